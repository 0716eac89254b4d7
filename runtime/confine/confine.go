// SPDX-License-Identifier: Apache-2.0

// Package confine decides what a policy comes to for one container on one host:
// which label, which AppArmor profile, who installs the system call filter.
package confine

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/selinux"
)

// ErrMissing says that the host lacks a layer that the policy requires.
var ErrMissing = errors.New("the host cannot enforce it")

// Labels puts a level into the contexts that the host wants. Both are empty
// where SELinux is off.
func Labels(h Host, level string) (process, mount string, err error) {
	if !h.SELinux {
		return "", "", nil
	}
	l, err := selinux.ParseLevel(level)
	if err != nil {
		return "", "", err
	}
	p, err := selinux.ParseContext(h.ProcessContext)
	if err != nil {
		return "", "", fmt.Errorf("process context of the host's policy: %w", err)
	}
	f, err := selinux.ParseContext(h.FileContext)
	if err != nil {
		return "", "", fmt.Errorf("file context of the host's policy: %w", err)
	}
	return p.WithLevel(l).String(), f.WithLevel(l).String(), nil
}

// Resolve decides what p comes to on h for the container id that holds level.
// The error wraps [ErrMissing] when a layer that the policy requires is not
// there: that is said before anything starts.
func Resolve(h Host, p policy.Policy, id, level string) (oci.Confinement, error) {
	c := oci.Confinement{Policy: p, ID: id, Level: level}
	var err error
	if c.ProcessLabel, c.MountLabel, err = Labels(h, level); err != nil {
		return c, err
	}
	if name := p.AppArmor.Profile; name != "" {
		switch {
		case h.AppArmor && h.Loaded(name):
			c.AppArmorProfile = name
		case !p.AppArmor.Required:
		case !h.AppArmor:
			return c, fmt.Errorf("AppArmor profile %q: AppArmor is off: %w", name, ErrMissing)
		default:
			return c, fmt.Errorf("AppArmor profile %q is not loaded: %w", name, ErrMissing)
		}
	}
	if !h.Seccomp && p.Syscalls.Base != policy.SyscallsNone {
		return c, fmt.Errorf("system call filter: this kernel has no seccomp: %w", ErrMissing)
	}
	filter, err := syscallFilter(p, p.Capabilities, h.Kernel)
	if err != nil || filter == nil {
		return c, err
	}
	c.Seccomp = oci.SeccompRuntime
	c.Filter, err = toSpec(filter)
	return c, err
}
