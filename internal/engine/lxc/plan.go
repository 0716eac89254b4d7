// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt/libvirt"
)

// Errors of domains that are not started.
var (
	// errHostRoot says that a domain has the host's root as its own, where no
	// layer but the labels keeps it from the host's files.
	errHostRoot = errors.New("its root is the host's: give it a <filesystem> with the target /")
	// errNewPrivileges says that a policy allows new privileges, with which the
	// last step cannot filter.
	errNewPrivileges = errors.New("the policy allows new privileges, and libvirt has no filter of its own")
)

// Security drivers of libvirt.
const (
	driverSELinux  = "selinux"
	driverAppArmor = "apparmor"
	// static is the type of a label that a person has written down.
	static = "static"
)

// cgroups is hidden from containers: libvirt shows the container's own part there
// where the host has control groups of version 1, and the host's whole tree where it
// has version 2, both for writing.
//
// Source: src/util/vircgroupv1.c and vircgroupv2.c, virCgroupV1BindMount and
// virCgroupV2BindMount.
const cgroups = "/sys/fs/cgroup"

// situation is what a domain's edit depends on beside the plan and the domain.
type situation struct {
	// driver is libvirt's security driver: none, selinux or apparmor.
	driver string
	// caps is all that this process can give away.
	caps caps.Set
	// shared are the kinds of namespaces that the domain has from another one,
	// hostNetwork reports whether its network is the host's.
	shared      []string
	hostNetwork bool
	// path says what a path is on the host: "file", "folder", or "" for nothing.
	path func(string) string
	// stepFD is the descriptor of the last step.
	stepFD int
}

// check refuses domains that cannot be confined.
func check(p policy.Policy, d *libvirt.Domain) error {
	switch root := d.Root(); {
	case d.Driver != "lxc":
		return fmt.Errorf("it is a domain of the %q driver: %w", d.Driver, libvirt.ErrDomain)
	case d.Init == "":
		return fmt.Errorf("it has no init: %w", libvirt.ErrDomain)
	case root == nil || root.Type == typeMount && root.Source == "/":
		return errHostRoot
	case p.Process.NewPrivileges:
		return errNewPrivileges
	}
	return nil
}

// chosenLabel is the SELinux label that libvirt has given to a domain, and its
// level; both are zero without one. A range of two levels is an error.
func chosenLabel(d *libvirt.Domain, driver string) (ctx selinux.Context, level string, err error) {
	l := d.Label(driverSELinux)
	if driver != driverSELinux || l == nil || l.Label == "" {
		return ctx, "", nil
	}
	if ctx, err = selinux.ParseContext(l.Label); err != nil {
		return ctx, "", fmt.Errorf("label of libvirt: %w", err)
	}
	one, ok := ctx.Range.Single()
	if !ok {
		return ctx, "", fmt.Errorf("label of libvirt: %w", &oci.RangeError{Range: ctx.Range})
	}
	return ctx, one.String(), nil
}

// chosenProfile is the AppArmor profile that libvirt enters, empty for none.
func chosenProfile(d *libvirt.Domain, driver string) string {
	if l := d.Label(driverAppArmor); l != nil && driver == driverAppArmor {
		return l.Label
	}
	return ""
}

// request says what the domain asks for in the words of every engine. Who has
// written a label down wants it enforced; what libvirt draws is its way to keep
// containers apart where it can.
func (s situation) request(p policy.Policy, d *libvirt.Domain) (launch.Request, error) {
	r := launch.Request{
		Policy: p, Holder: gc.HolderLibvirt, StepFD: s.stepFD, Gate: true,
		Record:  state.Record{ID: d.ID(), Engine: gc.EngineLibvirt, Command: append([]string{d.Init}, d.InitArgs...)},
		Profile: chosenProfile(d, s.driver),
		Compile: bundle.Request{HostNetwork: s.hostNetwork},
	}
	ctx, level, err := chosenLabel(d, s.driver)
	if err != nil {
		return r, err
	}
	// A level without categories keeps no container apart; the registry says so.
	r.Label.Context, r.Label.Level = ctx, level
	r.Demanded.By = "the domain's <seclabel>"
	if level != "" && d.Label(driverSELinux).Type == static {
		r.Demanded.SELinux = ctx.String()
		// The label belongs to the domain and not to one of its runs: content
		// carries it also in between.
		r.Record.Labelled = true
		if root := d.Root(); root.Type == typeMount {
			r.Label.Content = []string{root.Source}
		}
	}
	if r.Profile != "" && d.Label(driverAppArmor).Type == static {
		r.Demanded.AppArmor = r.Profile
	}
	for _, f := range d.Filesystems {
		if f.Target == "/" {
			continue
		}
		r.Mounts = append(r.Mounts, f.Target)
		if !f.ReadOnly {
			r.Compile.Writable = append(r.Compile.Writable, f.Target)
		}
	}
	for _, f := range d.Filesystems {
		if !f.ReadOnly || f.Target == "/" {
			continue
		}
		// What is mounted below it is a file system of its own.
		others := slices.DeleteFunc(slices.Clone(r.Mounts), func(t string) bool { return t == f.Target })
		r.ReadOnly = append(r.ReadOnly, profile.Unmounted([]string{f.Target}, others)...)
	}
	return r, nil
}

// edited is what becomes of a domain.
type edited struct {
	edit  libvirt.Edit
	asked effective.State
	// driver is the security driver that the controller is to use, profile the
	// AppArmor profile that the last step enters.
	driver, profile string
}

// edit decides what of a plan goes into the definition, and what is to be in force.
func (s situation) edit(plan *bundle.Plan, d *libvirt.Domain) (edited, error) {
	if plan.Step == nil {
		return edited{}, errNewPrivileges
	}
	p := plan.Policy
	given := d.Capabilities() & p.Capabilities & s.caps
	out := edited{driver: s.driver}
	out.edit = libvirt.Edit{Init: plan.Init, Capabilities: &given, ReadOnlyRoot: p.ReadOnlyRoot}
	masked := append(slices.Clone(p.MaskedPaths), cgroups)
	a := &out.asked
	*a = effective.State{
		NoNewPrivileges: true, ReadOnlyRoot: p.ReadOnlyRoot,
		Capabilities: effective.Capabilities{Bounding: given, Effective: given, Permitted: given, Inheritable: given},
		MaskedPaths:  slices.Sorted(slices.Values(masked)), ReadOnlyPaths: slices.Sorted(slices.Values(p.ReadOnlyPaths)),
		Seccomp: effective.Seccomp{Mode: effective.SeccompDisabled},
	}
	// What the kernel puts into /proc and /sys is the same in every container.
	for _, path := range masked {
		switch s.path(path) {
		case "file":
			out.edit.Masked = append(out.edit.Masked, path)
		case "folder":
			out.edit.MaskedDirs = append(out.edit.MaskedDirs, path)
		}
	}
	for _, path := range p.ReadOnlyPaths {
		if s.path(path) != "" {
			out.edit.ReadOnly = append(out.edit.ReadOnly, path)
		}
	}
	chosen, level, err := chosenLabel(d, s.driver)
	switch {
	case err != nil:
		return out, err
	case level != "" && plan.ProcessLabel == "":
		return out, fmt.Errorf("label %s of libvirt: SELinux is off: %w", chosen, bundle.ErrMissing)
	case level == "" && plan.ProcessLabel != "":
		// SELinux is on, and libvirt would start the domain without a label.
		out.driver = driverSELinux
		out.edit.Label = &libvirt.Seclabel{Type: static, Model: driverSELinux, Label: plan.ProcessLabel}
	}
	a.SELinux = plan.ProcessLabel
	if a.AppArmor = chosenProfile(d, s.driver); a.AppArmor == "" {
		a.AppArmor, out.profile = plan.AppArmorProfile, plan.AppArmorProfile
	}
	a.Namespaces = namespaces(d, s.shared)
	*a = launch.Ask(plan, *a)
	return out, nil
}

// namespaces are the kinds that a domain has of its own.
func namespaces(d *libvirt.Domain, shared []string) []string {
	out := []string{"mnt", "pid"}
	for _, kind := range []string{"ipc", "uts"} {
		if !slices.Contains(shared, kind) {
			out = append(out, kind)
		}
	}
	if d.Network && !slices.Contains(shared, "net") {
		out = append(out, "net")
	}
	if d.UserNamespace {
		out = append(out, "user")
	}
	slices.Sort(out)
	return out
}

// hostPath is situation.path for this host.
func hostPath(p string) string {
	switch fi, err := os.Lstat(p); {
	case err != nil:
		return ""
	case fi.IsDir():
		return "folder"
	case fi.Mode()&os.ModeSymlink != 0:
		return ""
	}
	return "file"
}
