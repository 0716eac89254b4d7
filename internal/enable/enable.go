// SPDX-License-Identifier: Apache-2.0

// Package enable plans, applies and undoes the way to SELinux or AppArmor on a
// host. Planning is pure: a [Plan] follows from [Facts]. What was done is kept in a
// journal before it is done, so that it can be undone after a crash at any point.
package enable

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/target"
)

// Facts is what a plan to enable a security module is made of. It is a
// value: planning is pure, and a plan can be tested without the host.
type Facts struct {
	// Distribution is ID of os-release, Like its ID_LIKE, Pretty the name.
	Distribution, Like, Pretty string
	// Packages are the installed Debian packages.
	Packages map[string]bool
	Kernels  []KernelFacts
	// HasGrub tells whether update-grub and its configuration are there;
	// Cmdline is what the configuration puts on the kernel's command line now.
	HasGrub bool
	Cmdline string
	// RootFS is the type of the root file system, empty when unknown.
	RootFS string
	// FreeMiB is the space on it, -1 when unknown.
	FreeMiB int
	// Status is that of the running host; nil for another tree.
	Status *hostfacts.Status
	// Files are the contents of the files that a plan may edit, nil when absent.
	Files map[string][]byte
	// Policy tells whether a policy is built, Labelled whether the files
	// carry labels, Relabelled whether they were labelled once more after
	// SELinux was started, ModuleIn whether the policy has the container module.
	Policy, Labelled, Relabelled, ModuleIn bool
	// ForeignTypes tells that the policy has container types of its own.
	ForeignTypes bool
	// Docker, Containerd and CRIO tell which engines are installed.
	Docker bool
	// Review is what enforcing would deny, from the log of denials.
	Review Review
}

// KernelFacts is what an installed kernel can do, from its configuration.
type KernelFacts struct {
	Release           string
	SELinux, AppArmor target.Answer
	// LSM is CONFIG_LSM.
	LSM string
}

// Review is the log of what SELinux denied or would have denied, decided again
// by the policy that is installed now.
type Review struct {
	// Source is where the log was read; empty when there is none.
	Source string
	// Open are the denials that the policy still denies, one for each
	// combination, with how often it was logged.
	Open []ReviewedDenial
	// Settled counts those that the policy allows by now.
	Settled int
}

// ReviewedDenial is one combination of a review.
type ReviewedDenial struct {
	Source     string `json:"source"`
	Target     string `json:"target"`
	Class      string `json:"class"`
	Permission string `json:"permission"`
	Command    string `json:"command,omitempty"`
	Path       string `json:"path,omitempty"`
	Count      int    `json:"count"`
}

// Step is one step of a plan: files that change, then commands.
type Step struct {
	ID    string
	Title string
	Why   string
	// Done tells that the host has it already.
	Done  bool
	Edits []configfile.Edit
	Run   [][]string
	// Undo are the commands that take the step back, after its files.
	Undo [][]string
	// Packages are installed by this step, and removed by undoing it.
	Packages []string
}

// Plan is a plan to enable a security module.
type Plan struct {
	Mechanism string // selinux or apparmor
	// Stage says where the host is on the way.
	Stage string
	// Blockers keep the plan from being applied.
	Blockers []string
	// Warnings are what a person should know before.
	Warnings []string
	Steps    []Step
	// Then says what comes after the steps.
	Then string
}

// Pending are the steps that are not done.
func (p Plan) Pending() []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return s.Done })
}

// Options are the decisions of the person.
type Options struct {
	// AcceptDenials goes on to enforcing with denials that are not settled.
	AcceptDenials bool
}

// The files that plans edit.
const (
	selinuxConfig  = "/etc/selinux/config"
	grubDropIn     = "/etc/default/grub.d/50-palisade.cfg"
	moduleFile     = "/usr/share/palisade/" + container.Name + ".cil"
	fileContexts   = "/etc/selinux/default/contexts/files/file_contexts"
	neededSpaceMiB = 300
)

// Files are the files whose contents a plan needs to know.
var Files = []string{selinuxConfig, grubDropIn, moduleFile, configfile.DockerDaemon}

// ErrMechanism is the error of a module that is not known.
var ErrMechanism = errors.New("unknown mechanism")

// NewPlan makes the plan for "selinux" or "apparmor". It is pure.
func NewPlan(mechanism string, f Facts, o Options) (Plan, error) {
	switch mechanism {
	case "selinux":
		return planSELinux(f, o), nil
	case "apparmor":
		return planAppArmor(f), nil
	}
	return Plan{}, fmt.Errorf("%w %q", ErrMechanism, mechanism)
}

// isDebian tells whether packages come by apt from Debian or what follows it.
func (f Facts) isDebian() bool {
	return f.Distribution == "debian" || f.Distribution == "ubuntu" || slices.Contains(strings.Fields(f.Like), "debian")
}

// common are the blockers that every plan has.
func (f Facts) common(p *Plan, builtIn func(KernelFacts) target.Answer, option string) {
	if !f.isDebian() {
		p.Blockers = append(p.Blockers, fmt.Sprintf("%s is not known to this plan, which is for Debian and Ubuntu; Fedora, RHEL and SUSE have %s of their own", orUnknown(f.Pretty), p.Mechanism))
	}
	if len(f.Kernels) == 0 {
		p.Blockers = append(p.Blockers, "no kernel with its configuration is in /boot: this is a container, or boots a kernel from elsewhere")
	}
	for _, k := range f.Kernels {
		if builtIn(k) == target.No {
			p.Blockers = append(p.Blockers, fmt.Sprintf("the installed kernel %s is built without %s; with it as default the host would boot without any major module", k.Release, option))
		}
	}
	if !f.HasGrub {
		p.Blockers = append(p.Blockers, "no GRUB (update-grub and /etc/default/grub): the kernel's command line of this boot loader is not known to this plan")
	}
	if f.FreeMiB >= 0 && f.FreeMiB < neededSpaceMiB {
		p.Blockers = append(p.Blockers, fmt.Sprintf("%d MiB are free, %d are needed", f.FreeMiB, neededSpaceMiB))
	}
	for _, word := range strings.Fields(f.Cmdline) {
		if strings.HasPrefix(word, "lsm=") {
			p.Blockers = append(p.Blockers, fmt.Sprintf("the kernel's command line has %s, which overrides security=; change it to %s in /etc/default/grub first", word, lsmWith(word, p.Mechanism)))
		}
	}
}

// withModule is the lsm= argument that keeps what is active and adds name.
func withModule(active []string, name string, without ...string) string {
	var list []string
	for _, m := range active {
		// The kernel puts these in by itself, and takes no order for them.
		if m == "capability" || m == name || slices.Contains(without, m) {
			continue
		}
		list = append(list, m)
	}
	// bpf goes last, so that its programs see only what the others let pass.
	at := len(list)
	if i := slices.Index(list, "bpf"); i >= 0 {
		at = i
	}
	return "lsm=" + strings.Join(slices.Insert(list, at, name), ",")
}

func profiles(n int) string {
	if n == 1 {
		return "1 profile"
	}
	return fmt.Sprintf("%d profiles", n)
}

func orUnknown(s string) string {
	if s == "" {
		return "this distribution"
	}
	return s
}

// lsmWith is the lsm= argument with the mechanism in the place of its rivals.
func lsmWith(word, mechanism string) string {
	list := strings.Split(strings.TrimPrefix(word, "lsm="), ",")
	return withModule(list, mechanism, "selinux", "apparmor", "smack", "tomoyo")
}

// commandLine is the step that makes the kernel start with the mechanism.
func (f Facts) commandLine(arguments, mechanism string) Step {
	text := []byte(fmt.Sprintf("# Written by 'palisade host enable %s', removed by its --undo.\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX %s\"\n", mechanism, arguments))
	before := f.Files[grubDropIn]
	return Step{
		ID: "command-line", Title: "have the kernel start with " + mechanism,
		Why:   "the kernel takes one major module, and takes AppArmor when it is not told otherwise",
		Done:  string(before) == string(text),
		Edits: []configfile.Edit{{Path: grubDropIn, Before: before, After: text}},
		Run:   [][]string{{"update-grub"}},
		Undo:  [][]string{{"update-grub"}},
	}
}

func (f Facts) packages(names ...string) Step {
	var missing []string
	for _, name := range names {
		if !f.Packages[name] {
			missing = append(missing, name)
		}
	}
	s := Step{
		ID: "packages", Title: "install " + strings.Join(names, ", "), Why: "policy and the tools that load it",
		Done: len(missing) == 0, Packages: missing,
	}
	if len(missing) > 0 {
		s.Title = "install " + strings.Join(missing, ", ")
		s.Run = [][]string{append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)}
		s.Undo = [][]string{append([]string{"apt-get", "remove", "-y"}, missing...)}
	}
	return s
}

func planAppArmor(f Facts) Plan {
	p := Plan{Mechanism: "apparmor"}
	f.common(&p, func(k KernelFacts) target.Answer { return k.AppArmor }, "CONFIG_SECURITY_APPARMOR")
	if s := f.Status; s != nil && s.SELinux.State != target.Absent && s.SELinux.Mode != "disabled" && s.SELinux.Mode != "" || strings.Contains(f.Cmdline, "security=selinux") {
		p.Blockers = append(p.Blockers, "SELinux is on, and the two exclude each other: 'palisade host enable selinux --undo' and a reboot come first")
	}
	p.Steps = append(p.Steps, f.packages("apparmor"))
	// Debian's and Ubuntu's kernels take AppArmor by themselves.
	byDefault := len(f.Kernels) > 0
	for _, k := range f.Kernels {
		list := strings.Split(k.LSM, ",")
		a, s := slices.Index(list, "apparmor"), slices.Index(list, "selinux")
		byDefault = byDefault && a >= 0 && (s < 0 || a < s)
	}
	off := strings.Contains(f.Cmdline, "apparmor=0")
	if off {
		p.Blockers = append(p.Blockers, "the kernel's command line has apparmor=0; remove it from /etc/default/grub first")
	}
	if !byDefault || f.Files[grubDropIn] != nil {
		p.Steps = append(p.Steps, f.commandLine("apparmor=1 security=apparmor", "apparmor"))
	}
	active := f.Status != nil && f.Status.AppArmor.State == target.Enforcing
	switch {
	case active && len(p.Pending()) == 0:
		p.Stage = "enforcing"
		p.Then = "nothing: Docker and Palisade load docker-default when they start a container"
	case len(p.Pending()) > 0 && active:
		p.Stage = "active without its tools"
		p.Then = "no reboot is needed"
	default:
		p.Stage = "off"
		p.Then = "reboot; then 'palisade host status' shows AppArmor as enforcing"
	}
	return p
}

func planSELinux(f Facts, o Options) Plan {
	p := Plan{Mechanism: "selinux"}
	f.common(&p, func(k KernelFacts) target.Answer { return k.SELinux }, "CONFIG_SECURITY_SELINUX")
	for _, word := range strings.Fields(f.Cmdline) {
		if word == "selinux=0" || word == "apparmor=1" || strings.HasPrefix(word, "security=") && word != "security=selinux" {
			p.Blockers = append(p.Blockers, "the kernel's command line has "+word+"; remove it from /etc/default/grub first")
		}
	}
	switch f.RootFS {
	case "", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs":
	default:
		p.Blockers = append(p.Blockers, "the root file system is "+f.RootFS+", which keeps no labels")
	}
	if s := f.Status; s != nil && s.AppArmor.State == target.Enforcing {
		p.Warnings = append(p.Warnings, fmt.Sprintf("AppArmor ends with the reboot: SELinux takes its place, and %s no longer hold", profiles(s.AppArmor.Profiles["enforce"])))
	}
	if f.ForeignTypes {
		p.Warnings = append(p.Warnings, "the policy has container types of its own; the container module is left out")
	}

	active := f.Status != nil && f.Status.SELinux.Mode != "" && f.Status.SELinux.Mode != "disabled"
	enforcing := active && f.Status.SELinux.State == target.Enforcing
	mode := hostfacts.ShellVariable(string(f.Files[selinuxConfig]), "SELINUX")

	p.Steps = append(p.Steps, f.packages("selinux-policy-default", "policycoreutils", "selinux-utils", "auditd"))
	wanted := "permissive"
	if active && (mode == "enforcing" || f.readyToEnforce(o)) {
		wanted = "enforcing"
	}
	if !f.ForeignTypes {
		p.Steps = append(p.Steps, f.moduleStep(active))
	}
	p.Steps = append(p.Steps, f.labelStep(active))
	if f.Docker {
		p.Steps = append(p.Steps, f.dockerStep(&p))
	}
	if !active {
		p.Steps = append(p.Steps, f.modeStep("permissive", false), f.commandLine("selinux=1 security=selinux", "selinux"))
		p.Stage = "off"
		p.Then = "reboot: SELinux starts permissive and only logs. Use the host for a while, then run this command again: it shows what enforcing would deny"
		if len(p.Pending()) == 0 {
			p.Stage = "waiting for the reboot"
		}
		return p
	}
	p.Steps = append(p.Steps, f.commandLine("selinux=1 security=selinux", "selinux"), f.modeStep(wanted, !enforcing))
	switch {
	case enforcing && len(p.Pending()) == 0:
		p.Stage, p.Then = "enforcing", "nothing: SELinux enforces, now and after a reboot"
	case wanted == "permissive":
		p.Stage = "permissive"
		p.Then = "settle the denials below, or say --accept-denials; then run this command again to enforce"
		if f.Review.Source == "" {
			p.Then = "there is no log of denials to review (auditd is not running yet?); use the host for a while and run this command again"
		}
	default:
		p.Stage = "permissive, ready to enforce"
		if enforcing {
			p.Stage = "enforcing"
		}
		p.Then = "SELinux enforces at once. If the host cannot be used any more: reboot and add enforcing=0 to the kernel's command line in the boot menu"
	}
	return p
}

// readyToEnforce tells whether the log was read and has nothing left in it.
func (f Facts) readyToEnforce(o Options) bool {
	return f.Policy && f.Labelled && f.Relabelled && (o.AcceptDenials || f.Review.Source != "" && len(f.Review.Open) == 0)
}

func (f Facts) moduleStep(active bool) Step {
	semodule := []string{"semodule", "-n"}
	if active {
		semodule = []string{"semodule"} // and load it
	}
	module := container.Module()
	return Step{
		ID: "container-policy", Title: "add the types of containers to the policy",
		Why:   "Debian's policy has none: Podman fails without them, and Docker labels nothing",
		Done:  f.ModuleIn && string(f.Files[moduleFile]) == string(module),
		Edits: []configfile.Edit{{Path: moduleFile, Before: f.Files[moduleFile], After: module}},
		Run:   [][]string{append(slices.Clone(semodule), "-i", moduleFile)},
		Undo:  [][]string{append(slices.Clone(semodule), "-r", container.Name)},
	}
}

// labelStep labels all files. Before SELinux runs, labels are only attributes
// that nobody looks at, so they can be set in advance.
func (f Facts) labelStep(active bool) Step {
	s := Step{
		ID: "labels", Title: "label all files", Why: "the policy decides by label; a file without one can be used by hardly anybody",
		Done: f.Labelled,
		Run:  [][]string{{"setfiles", "-F", "-e", "/proc", "-e", "/sys", "-e", "/dev", "-e", "/run", "-e", "/tmp", fileContexts, "/"}},
	}
	if active {
		s.ID, s.Title, s.Done = "relabel", "label what was written before SELinux was started", f.Relabelled
		s.Run = [][]string{{"restorecon", "-R", "-F", "-e", "/proc", "-e", "/sys", "-e", "/dev", "-e", "/run", "-e", "/tmp", "/"}}
	}
	return s
}

func (f Facts) dockerStep(p *Plan) Step {
	s := Step{
		ID: "docker", Title: "have Docker label its containers", Why: "without selinux-enabled, Docker starts containers without a label of their own",
	}
	before := f.Files[configfile.DockerDaemon]
	after := []byte("{\n  \"selinux-enabled\": true\n}\n")
	if len(strings.TrimSpace(string(before))) > 0 {
		doc, err := configfile.ParseJSON(before)
		if err == nil && string(doc.Root().Get("selinux-enabled")) != "true" {
			err = doc.Root().Set("selinux-enabled", "true")
		}
		if err != nil {
			p.Blockers = append(p.Blockers, fmt.Sprintf("%s%s: %v", configfile.DockerDaemon, configfile.Position(before, err), err))
			return s
		}
		after = doc.Bytes()
	}
	s.Edits = []configfile.Edit{{Path: configfile.DockerDaemon, Before: before, After: after}}
	s.Done = !s.Edits[0].Changes()
	return s
}

// modeStep sets the mode of the next boot and, when the kernel is to follow,
// that of now. The kernel goes first, and the file only when it could.
func (f Facts) modeStep(mode string, now bool) Step {
	before := f.Files[selinuxConfig]
	after := setShellVariables(before, [][2]string{{"SELINUX", mode}, {"SELINUXTYPE", "default"}})
	s := Step{
		ID: "mode", Title: "set the mode to " + mode, Why: "permissive logs what enforcing would deny",
		Done:  string(before) == string(after),
		Edits: []configfile.Edit{{Path: selinuxConfig, Before: before, After: after}},
	}
	if mode == "enforcing" {
		s.Why = "from here on what the policy does not allow is denied"
		if now {
			s.Run = [][]string{{"setenforce", "1"}}
			s.Undo = [][]string{{"setenforce", "0"}}
			s.Done = false
		}
	}
	return s
}

// setShellVariables gives variables their values in a file of NAME=value
// lines, and keeps everything else of it.
func setShellVariables(text []byte, values [][2]string) []byte {
	var out strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		for _, v := range values {
			if strings.HasPrefix(strings.TrimSpace(line), v[0]+"=") {
				line = v[0] + "=" + v[1] + "\n"
				seen[v[0]] = true
			}
		}
		out.WriteString(line)
	}
	for _, v := range values {
		if !seen[v[0]] {
			if s := out.String(); s != "" && !strings.HasSuffix(s, "\n") {
				out.WriteString("\n")
			}
			out.WriteString(v[0] + "=" + v[1] + "\n")
		}
	}
	return []byte(out.String())
}
