// SPDX-License-Identifier: Apache-2.0

// Package oci puts a container's confinement into its OCI runtime
// configuration.
//
// [Apply] edits a [specs.Spec], [ApplyProcess] the process of an exec, and
// [Edit] and [EditProcess] do the same to JSON, leaving alone whatever they do
// not own, members unknown to this version included. All are pure, and doing
// them twice is the same as doing them once.
//
// Confinement is only ever added: the outcome allows what both the engine's
// configuration and the policy allow. What an engine has already decided in a
// layer where a process can have one thing only (an SELinux label, an AppArmor
// profile that is not "unconfined") stays.
package oci

import (
	"errors"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
)

// Annotations that tell what was applied.
const (
	AnnotationPolicy = "io.github.palisade-sec.policy"
	AnnotationID     = "io.github.palisade-sec.id"
	AnnotationLabel  = "io.github.palisade-sec.label"
)

var errNoProcess = errors.New("OCI configuration has no process")

// Apply puts c into s. The error is for configurations that run nothing.
func Apply(s *specs.Spec, c bundle.Confinement) error {
	if s.Process == nil {
		return errNoProcess
	}
	ApplyProcess(s.Process, c)
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	s.Linux.MaskedPaths = add(s.Linux.MaskedPaths, c.Policy.MaskedPaths)
	s.Linux.ReadonlyPaths = add(s.Linux.ReadonlyPaths, c.Policy.ReadOnlyPaths)
	if s.Linux.MountLabel == "" {
		s.Linux.MountLabel = c.MountLabel
	}
	switch c.Seccomp {
	case bundle.SeccompRuntime:
		s.Linux.Seccomp = c.Filter
	case bundle.SeccompInit:
		s.Linux.Seccomp = nil
	case bundle.SeccompKeep:
	}
	if c.Policy.ReadOnlyRoot && s.Root != nil {
		s.Root.Readonly = true
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[AnnotationPolicy] = c.Policy.Name
	s.Annotations[AnnotationID] = c.ID
	s.Annotations[AnnotationLabel] = c.Level
	return nil
}

// ApplyProcess puts the part of c that belongs to a process into p, the process
// of a container or of an exec.
func ApplyProcess(p *specs.Process, c bundle.Confinement) {
	p.Capabilities = meetCapabilities(p.Capabilities, c.Policy.Capabilities)
	if !c.Policy.Process.NewPrivileges {
		p.NoNewPrivileges = true
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = c.ProcessLabel
	}
	if c.AppArmorProfile != "" && (p.ApparmorProfile == "" || p.ApparmorProfile == "unconfined" || p.ApparmorProfile == c.Replaces) {
		p.ApparmorProfile = c.AppArmorProfile
	}
	if c.Init != "" && (len(p.Args) == 0 || p.Args[0] != c.Init) {
		p.Args = slices.Concat([]string{c.Init}, p.Args)
	}
}

// meetCapabilities leaves of each set what the policy allows. A configuration
// without the member gets empty sets: runtimes do not agree on what its absence
// means.
func meetCapabilities(have *specs.LinuxCapabilities, allowed caps.Set) *specs.LinuxCapabilities {
	if have == nil {
		have = &specs.LinuxCapabilities{}
	}
	keep := func(names []string) []string {
		out := make([]string, 0, len(names))
		for _, name := range names {
			if c, err := caps.Parse(name); err == nil && allowed.Has(c) {
				out = append(out, name)
			}
		}
		return out
	}
	return &specs.LinuxCapabilities{
		Bounding:    keep(have.Bounding),
		Effective:   keep(have.Effective),
		Inheritable: keep(have.Inheritable),
		Permitted:   keep(have.Permitted),
		Ambient:     keep(have.Ambient),
	}
}

// add appends what is not yet in the list, and keeps its order.
func add(list, more []string) []string {
	out := slices.Clone(list)
	for _, s := range more {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
