// SPDX-License-Identifier: Apache-2.0

package lxc

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/confine"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt/libvirt"
	"github.com/palisade-sec/palisade/target"
)

// Errors of domains that are not started.
var (
	// ErrHostRoot says that a domain has the host's root as its own, where no
	// layer but the labels keeps it from the host's files.
	ErrHostRoot = errors.New("its root is the host's: give it a <filesystem> with the target /")
	// ErrNewPrivileges says that a policy allows new privileges, with which the
	// last step cannot filter.
	ErrNewPrivileges = errors.New("the policy allows new privileges, and libvirt has no filter of its own")
)

// cgroups is hidden from containers: libvirt shows the container's own part there
// where the host has control groups of version 1, and the host's whole tree where it
// has version 2, both for writing.
//
// Source: src/util/vircgroupv1.c and vircgroupv2.c, virCgroupV1BindMount and
// virCgroupV2BindMount.
const cgroups = "/sys/fs/cgroup"

// situation is what a plan depends on beside the policy and the domain.
type situation struct {
	host  target.Target
	cache bundle.Cache
	// driver is libvirt's security driver: none, selinux or apparmor.
	driver string
	// caps is all that this process can give away.
	caps caps.Set
	// shared are the kinds of namespaces that the domain has from another one,
	// hostNetwork tells whether its network is the host's.
	shared      []string
	hostNetwork bool
	// path tells what a path is on the host: "file", "folder", or "" for nothing.
	path func(string) string
	// init is how the last step is executed.
	init string
}

// plan is what a domain is to get.
type plan struct {
	edit  libvirt.Edit
	step  *laststep.Config
	label string // of what is handed over
	asked effective.State
	// driver is the security driver that the controller is to use.
	driver string
}

// check refuses domains that cannot be confined.
func check(p policy.Policy, d *libvirt.Domain) error {
	switch root := d.Root(); {
	case d.Driver != "lxc":
		return fmt.Errorf("it is a domain of the %q driver: %w", d.Driver, libvirt.ErrDomain)
	case d.Init == "":
		return fmt.Errorf("it has no init: %w", libvirt.ErrDomain)
	case root == nil || root.Type == "mount" && root.Source == "/":
		return ErrHostRoot
	case p.Process.NewPrivileges:
		return ErrNewPrivileges
	}
	return nil
}

// processLabel is the SELinux label that libvirt has given to a domain, in the
// kernel's spelling; empty for none.
func processLabel(d *libvirt.Domain, driver string) (string, error) {
	l := d.Label("selinux")
	if driver != "selinux" || l == nil || l.Label == "" {
		return "", nil
	}
	ctx, err := selinux.ParseContext(l.Label)
	if err != nil {
		return "", fmt.Errorf("label of libvirt: %w", err)
	}
	return ctx.String(), nil
}

// resolve decides what a policy comes to for a domain that holds a level.
func resolve(s situation, p policy.Policy, d *libvirt.Domain, id, level string) (*plan, error) {
	req := bundle.Request{ID: id, Level: level, HostNetwork: s.hostNetwork, Init: s.init, Cache: s.cache}
	for _, f := range d.Filesystems {
		if !f.ReadOnly && f.Target != "/" {
			req.Writable = append(req.Writable, f.Target)
		}
	}
	c, err := bundle.Resolve(s.host, p, req)
	if err != nil {
		return nil, err
	}
	given := d.Capabilities() & p.Capabilities & s.caps
	out := &plan{step: confine.Step(c.Step), label: c.StepLabel, driver: s.driver}
	out.edit = libvirt.Edit{Init: s.init, Capabilities: &given, ReadOnlyRoot: p.ReadOnlyRoot}
	out.step.Gate, out.step.NoNewPrivileges = true, true
	masked := append(slices.Clone(p.MaskedPaths), cgroups)
	a := &out.asked
	*a = effective.State{
		NoNewPrivileges: true, Landlock: confine.Landlock(c), ReadOnlyRoot: p.ReadOnlyRoot,
		Capabilities: effective.Capabilities{Bounding: given, Effective: given, Permitted: given, Inheritable: given},
		MaskedPaths:  slices.Sorted(slices.Values(masked)), ReadOnlyPaths: slices.Sorted(slices.Values(p.ReadOnlyPaths)),
		Seccomp: confine.Seccomp(c),
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
	if a.SELinux, err = processLabel(d, s.driver); err != nil {
		return nil, err
	}
	if a.SELinux == "" && c.ProcessLabel != "" {
		// SELinux is on, and libvirt would start the domain without a label.
		a.SELinux = c.ProcessLabel
		out.driver = "selinux"
		out.edit.Label = &libvirt.Seclabel{Type: "static", Model: "selinux", Label: c.ProcessLabel}
	}
	if l := d.Label("apparmor"); s.driver == "apparmor" && l != nil && l.Label != "" {
		a.AppArmor = l.Label
	} else if c.AppArmorProfile != "" {
		a.AppArmor, out.step.AppArmor = c.AppArmorProfile, c.AppArmorProfile
	}
	a.Namespaces = namespaces(d, s.shared)
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
