// SPDX-License-Identifier: Apache-2.0

package enable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/target"
)

// debianFacts is a Debian 12 host as installed.
func debianFacts() Facts {
	return Facts{
		Distribution: "debian", Pretty: "Debian GNU/Linux 12 (bookworm)", Packages: map[string]bool{"apparmor": true},
		Kernels: []KernelFacts{{Release: "6.1.0-56-amd64", SELinux: target.Yes, AppArmor: target.Yes, LSM: "landlock,lockdown,yama,integrity,apparmor,selinux,bpf"}},
		HasGrub: true, Cmdline: "quiet", RootFS: "ext4", FreeMiB: 5000,
		Status: &hostfacts.Status{
			SELinux:  hostfacts.SELinuxStatus{SELinux: target.SELinux{State: target.Off, Mode: "disabled"}},
			AppArmor: hostfacts.AppArmorStatus{AppArmor: target.AppArmor{State: target.Enforcing}, Profiles: map[string]int{"enforce": 3}},
		},
		Files: map[string][]byte{},
	}
}

func permissive(f *Facts) {
	f.Status.SELinux = hostfacts.SELinuxStatus{SELinux: target.SELinux{State: target.Off, Mode: "permissive"}}
	f.Status.AppArmor = hostfacts.AppArmorStatus{}
	f.Policy, f.Labelled, f.Relabelled, f.ModuleIn = true, true, true, true
	for _, name := range []string{"selinux-policy-default", "policycoreutils", "selinux-utils", "auditd"} {
		f.Packages[name] = true
	}
	f.Files[moduleFile] = container.Module()
	f.Files[selinuxConfig] = []byte("# comment\nSELINUX=permissive\nSELINUXTYPE=default\n")
	f.Files[grubDropIn] = f.commandLine("selinux=1 security=selinux", "selinux").Edits[0].After
	f.Cmdline = "quiet selinux=1 security=selinux"
	f.Review = Review{Source: "/var/log/audit/audit.log"}
}

func TestPlanEnable(t *testing.T) {
	tests := []struct {
		name, mechanism string
		change          func(*Facts)
		options         Options
		stage           string
		pending         string // IDs, in order
		blocked         string // part of the first blocker
	}{
		{name: "debian", mechanism: "selinux", stage: "off", pending: "packages container-policy labels mode command-line"},
		{name: "with docker", mechanism: "selinux", change: func(f *Facts) { f.Docker = true }, stage: "off", pending: "packages container-policy labels docker mode command-line"},
		{name: "own container types", mechanism: "selinux", change: func(f *Facts) { f.ForeignTypes = true }, stage: "off", pending: "packages labels mode command-line"},
		{name: "before the reboot", mechanism: "selinux", change: func(f *Facts) { s := f.Status; permissive(f); f.Status = s; s.SELinux.Mode = "disabled" }, stage: "waiting for the reboot"},
		{name: "first boot", mechanism: "selinux", change: func(f *Facts) { permissive(f); f.Relabelled = false }, stage: "permissive", pending: "relabel"},
		{name: "no log yet", mechanism: "selinux", change: func(f *Facts) { permissive(f); f.Review.Source = "" }, stage: "permissive"},
		{name: "denials", mechanism: "selinux", change: func(f *Facts) { permissive(f); f.Review.Open = []ReviewedDenial{{Source: "a_t"}} }, stage: "permissive"},
		{name: "denials accepted", mechanism: "selinux", change: func(f *Facts) { permissive(f); f.Review.Open = []ReviewedDenial{{Source: "a_t"}} }, options: Options{AcceptDenials: true}, stage: "permissive, ready to enforce", pending: "mode"},
		{name: "clean", mechanism: "selinux", change: permissive, stage: "permissive, ready to enforce", pending: "mode"},
		{name: "enforcing", mechanism: "selinux", change: func(f *Facts) {
			permissive(f)
			f.Status.SELinux.State, f.Status.SELinux.Mode = target.Enforcing, "enforcing"
			f.Files[selinuxConfig] = []byte("SELINUX=enforcing\nSELINUXTYPE=default\n")
		}, stage: "enforcing"},
		{name: "fedora", mechanism: "selinux", change: func(f *Facts) { f.Distribution, f.Pretty = "fedora", "Fedora Linux 42" }, blocked: "Fedora Linux 42 is not known"},
		{name: "old kernel beside", mechanism: "selinux", change: func(f *Facts) {
			f.Kernels = append(f.Kernels, KernelFacts{Release: "6.9-custom", SELinux: target.No})
		}, blocked: "6.9-custom is built without CONFIG_SECURITY_SELINUX"},
		{name: "no kernel", mechanism: "selinux", change: func(f *Facts) { f.Kernels = nil }, blocked: "no kernel"},
		{name: "no grub", mechanism: "selinux", change: func(f *Facts) { f.HasGrub = false }, blocked: "no GRUB"},
		{name: "lsm given", mechanism: "selinux", change: func(f *Facts) { f.Cmdline = "quiet lsm=landlock,yama,apparmor,bpf" }, blocked: "change it to lsm=landlock,yama,selinux,bpf"},
		{name: "selinux=0", mechanism: "selinux", change: func(f *Facts) { f.Cmdline = "selinux=0" }, blocked: "has selinux=0"},
		{name: "overlay root", mechanism: "selinux", change: func(f *Facts) { f.RootFS = "overlay" }, blocked: "keeps no labels"},
		{name: "full disk", mechanism: "selinux", change: func(f *Facts) { f.FreeMiB = 100 }, blocked: "100 MiB are free"},
		{name: "broken daemon.json", mechanism: "selinux", change: func(f *Facts) { f.Docker = true; f.Files[configfile.DockerDaemon] = []byte("{\n]") }, blocked: "/etc/docker/daemon.json:2:1"},
		{name: "apparmor on", mechanism: "apparmor", stage: "enforcing"},
		{name: "apparmor without tools", mechanism: "apparmor", change: func(f *Facts) { f.Packages = map[string]bool{} }, stage: "active without its tools", pending: "packages"},
		{name: "apparmor not first", mechanism: "apparmor", change: func(f *Facts) {
			f.Kernels[0].LSM = "landlock,selinux,apparmor"
			f.Status.AppArmor.State = target.Off
		}, stage: "off", pending: "command-line"},
		{name: "apparmor beside selinux", mechanism: "apparmor", change: permissive, blocked: "exclude each other"},
		{name: "apparmor=0", mechanism: "apparmor", change: func(f *Facts) { f.Cmdline = "apparmor=0" }, blocked: "apparmor=0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := debianFacts()
			if test.change != nil {
				test.change(&f)
			}
			p, err := NewPlan(test.mechanism, f, test.options)
			if err != nil {
				t.Fatal(err)
			}
			if test.blocked != "" {
				if len(p.Blockers) == 0 || !strings.Contains(p.Blockers[0], test.blocked) {
					t.Errorf("blockers %q, want %q", p.Blockers, test.blocked)
				}
				return
			}
			if len(p.Blockers) > 0 {
				t.Errorf("blocked: %q", p.Blockers)
			}
			var ids []string
			for _, s := range p.Pending() {
				ids = append(ids, s.ID)
			}
			if got := strings.Join(ids, " "); got != test.pending || p.Stage != test.stage {
				t.Errorf("stage %q, pending %q; want %q, %q", p.Stage, got, test.stage, test.pending)
			}
			if p.Then == "" {
				t.Error("nothing is said of what comes then")
			}
		})
	}
	if _, err := NewPlan("smack", debianFacts(), Options{}); !errors.Is(err, ErrMechanism) {
		t.Errorf("smack: %v", err)
	}
}

// fakeHost is a tree that looks like a Debian host, and commands that do to it
// what matters of the real ones.
type fakeHost struct {
	root string
	log  []string
	// failAt is the number of the command that fails, -1 for none.
	failAt int
}

var errFake = errors.New("fails on purpose")

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	h := &fakeHost{root: t.TempDir(), failAt: -1}
	for name, content := range map[string]string{
		"/etc/os-release":              "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"/etc/fstab":                   "# root\nUUID=x / ext4 errors=remount-ro 0 1\n",
		"/etc/default/grub":            "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n",
		"/etc/default/grub.d/10.cfg":   "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX net.ifnames=0\"\n",
		"/usr/sbin/update-grub":        "#!/bin/sh\n",
		"/boot/config-6.1.0-56-amd64":  "CONFIG_SECURITY_SELINUX=y\nCONFIG_SECURITY_APPARMOR=y\nCONFIG_LSM=\"landlock,lockdown,yama,apparmor,selinux,bpf\"\n",
		"/boot/vmlinuz-6.1.0-56-amd64": "",
		"/boot/config-5.0":             "# of a kernel that is gone\n",
		"/etc/passwd":                  "root:x:0:0::/root:/bin/sh\n",
		"/usr/bin/dpkg":                "",
		"/usr/sbin/dockerd":            "",
		"/etc/docker/daemon.json":      "{\n\t\"debug\": true\n}\n",
		"/var/lib/dpkg/status":         "Package: apparmor\nStatus: install ok installed\n\nPackage: auditd\nStatus: deinstall ok config-files\n",
	} {
		h.put(t, name, content)
	}
	return h
}

func (h *fakeHost) put(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (h *fakeHost) Run(_ context.Context, argv []string) error {
	h.log = append(h.log, strings.Join(argv, " "))
	if len(h.log)-1 == h.failAt {
		return errFake
	}
	at := func(name string) string { return filepath.Join(h.root, name) }
	status := at("/var/lib/dpkg/status")
	switch {
	case argv[0] == "apt-get" && argv[1] == "install":
		b, err := os.ReadFile(status)
		if err != nil {
			return err
		}
		for _, name := range argv[4:] {
			b = append(b, "\nPackage: "+name+"\nStatus: install ok installed\n"...)
		}
		if err := os.WriteFile(status, b, 0o644); err != nil {
			return err
		}
		// The package brings a configuration of its own.
		if err := os.MkdirAll(at("/etc/selinux"), 0o755); err != nil {
			return err
		}
		return os.WriteFile(at(selinuxConfig), []byte("# the package's\nSELINUX=disabled\nSELINUXTYPE=default\n"), 0o644)
	case argv[0] == "apt-get" && argv[1] == "remove":
		b, err := os.ReadFile(status)
		if err != nil {
			return err
		}
		text := string(b)
		for _, name := range argv[3:] {
			text = strings.Replace(text, "\nPackage: "+name+"\nStatus: install ok installed\n", "", 1)
		}
		return os.WriteFile(status, []byte(text), 0o644)
	case argv[0] == "semodule" && argv[2] == "-i":
		if _, err := os.Stat(at(argv[3])); err != nil {
			return err
		}
		return os.MkdirAll(at("/var/lib/selinux/default/active/modules/400/"+container.Name), 0o755)
	case argv[0] == "semodule" && argv[2] == "-r":
		return os.RemoveAll(at("/var/lib/selinux/default/active/modules/400/" + container.Name))
	case argv[0] == "setfiles":
		for _, name := range []string{"/", "/etc", "/etc/passwd", "/usr/bin", "/usr/bin/dpkg", "/usr/sbin", "/var/lib"} {
			if err := unix.Setxattr(at(name), "security.selinux", []byte("system_u:object_r:etc_t:s0\x00"), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// files is the tree but for package lists and what is not taken back.
func (h *fakeHost) files(t *testing.T) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		m[strings.TrimPrefix(path, h.root)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(m, selinuxConfig) // the package's
	return m
}

func canLabel(t *testing.T) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(name, "security.selinux", []byte("x\x00"), 0); err != nil {
		t.Skipf("labels cannot be set here: %v", err)
	}
}

func TestEnableAndUndo(t *testing.T) {
	canLabel(t)
	h := newFakeHost(t)
	before := h.files(t)
	p, err := Apply(context.Background(), h.root, "selinux", Options{}, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Stage != "waiting for the reboot" {
		t.Errorf("stage %q", p.Stage)
	}
	after := h.files(t)
	if got := grubCmdline(filepath.Join(h.root, "/etc/default")); got != "net.ifnames=0 selinux=1 security=selinux quiet" {
		t.Errorf("command line %q", got)
	}
	if want := "{\n\t\"debug\": true,\n\t\"selinux-enabled\": true\n}\n"; after[configfile.DockerDaemon] != want {
		t.Errorf("daemon.json:\n%s", after[configfile.DockerDaemon])
	}
	config, err := os.ReadFile(filepath.Join(h.root, selinuxConfig))
	if err != nil || string(config) != "# the package's\nSELINUX=permissive\nSELINUXTYPE=default\n" {
		t.Errorf("%s (%v)", config, err)
	}
	if want := []string{"apt-get", "semodule", "setfiles", "update-grub"}; !slices.EqualFunc(h.log, want, func(a, b string) bool { return strings.HasPrefix(a, b) }) {
		t.Errorf("commands %q", h.log)
	}
	// Again: nothing.
	h.log = nil
	if _, err := Apply(context.Background(), h.root, "selinux", Options{}, h, nil); err != nil || len(h.log) != 0 {
		t.Errorf("the second time: %q, %v", h.log, err)
	}
	// Somebody edits a file in between: only our part goes.
	h.put(t, configfile.DockerDaemon, "{\n\t\"debug\": false,\n\t\"selinux-enabled\": true\n}\n")
	kept, err := Undo(context.Background(), h.root, "selinux", h, nil)
	if err != nil || len(kept) > 0 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	before[configfile.DockerDaemon] = "{\n\t\"debug\": false\n}\n"
	if got := h.files(t); !maps.Equal(got, before) {
		t.Errorf("after undoing: %v", difference(before, got))
	}
	if kept, err := Undo(context.Background(), h.root, "selinux", h, nil); err != nil || len(kept) > 0 {
		t.Errorf("undoing twice: %v, %v", kept, err)
	}
}

func difference(a, b map[string]string) []string {
	var list []string
	for name := range a {
		if a[name] != b[name] {
			list = append(list, fmt.Sprintf("%s: %q became %q", name, a[name], b[name]))
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			list = append(list, "new: "+name)
		}
	}
	return list
}

// TestEnableFails has each command fail in turn: what was done can be taken
// back, and repeating goes on where it failed.
func TestEnableFails(t *testing.T) {
	canLabel(t)
	for n := range 4 {
		h := newFakeHost(t)
		before := h.files(t)
		h.failAt = n
		if _, err := Apply(context.Background(), h.root, "selinux", Options{}, h, nil); !errors.Is(err, errFake) {
			t.Fatalf("command %d: %v", n, err)
		}
		// The kernel's command line must not be half set.
		if n == 3 {
			if _, err := os.Stat(filepath.Join(h.root, grubDropIn)); err == nil {
				t.Error("update-grub failed, and the next one would take effect")
			}
		}
		again := *h
		again.failAt = -1
		if n%2 == 0 {
			if _, err := Apply(context.Background(), h.root, "selinux", Options{}, &again, nil); err != nil {
				t.Errorf("command %d, repeated: %v", n, err)
			}
		}
		if _, err := Undo(context.Background(), h.root, "selinux", &again, nil); err != nil {
			t.Fatalf("command %d, undone: %v", n, err)
		}
		if got := h.files(t); !maps.Equal(got, before) {
			t.Errorf("command %d: after undoing: %v", n, difference(before, got))
		}
	}
}

func TestEnableIsBlocked(t *testing.T) {
	h := newFakeHost(t)
	if err := os.Remove(filepath.Join(h.root, "/usr/sbin/update-grub")); err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(context.Background(), h.root, "selinux", Options{}, h, nil); !errors.Is(err, errBlocked) {
		t.Errorf("error %v", err)
	}
	if len(h.log) > 0 {
		t.Errorf("commands %q", h.log)
	}
	if _, err := Gather(context.Background(), t.TempDir()); err == nil {
		t.Error("an empty folder is a host")
	}
}

func TestSetShellVariables(t *testing.T) {
	got := setShellVariables([]byte("# SELINUX=x\n SELINUX=disabled\nSETLOCALDEFS=0"), [][2]string{{"SELINUX", "permissive"}, {"SELINUXTYPE", "default"}})
	if want := "# SELINUX=x\nSELINUX=permissive\nSETLOCALDEFS=0\nSELINUXTYPE=default\n"; string(got) != want {
		t.Errorf("%q", got)
	}
}

func TestWithModule(t *testing.T) {
	tests := []struct {
		active  []string
		add     string
		without []string
		want    string
	}{
		{[]string{"lockdown", "capability", "landlock", "yama", "apparmor", "tomoyo", "bpf"}, "selinux", []string{"apparmor", "tomoyo"}, "lsm=lockdown,landlock,yama,selinux,bpf"},
		{[]string{"lockdown", "capability", "landlock"}, "apparmor", nil, "lsm=lockdown,landlock,apparmor"},
		{[]string{"apparmor"}, "apparmor", nil, "lsm=apparmor"},
		{nil, "selinux", nil, "lsm=selinux"},
	}
	for _, test := range tests {
		if got := withModule(test.active, test.add, test.without...); got != test.want {
			t.Errorf("withModule(%v, %s) = %s, want %s", test.active, test.add, got, test.want)
		}
	}
}
