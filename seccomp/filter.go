// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Host is what a profile's conditions are about: one machine, and the
// capabilities of one container.
type Host struct {
	// Native is the machine's own ABI; required.
	Native syscalls.Arch
	// Archs, when not empty, replaces the ABIs that the profile lists. Native
	// is always one of those that a filter has rules for.
	Archs []syscalls.Arch
	// Caps are the capabilities of the bounding set, "CAP_SYS_ADMIN"; the
	// prefix and the case do not matter. AllCaps stands for all that there are.
	Caps    []string
	AllCaps bool
	// Kernel is the running version. Zero means newer than any that a profile
	// can ask for.
	Kernel syscalls.Version
}

func (h *Host) hasCap(c string) bool {
	return h.AllCaps || slices.ContainsFunc(h.Caps, func(have string) bool { return sameCap(have, c) })
}

func sameCap(a, b string) bool {
	const prefix = "CAP_"
	trim := func(s string) string {
		if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
			return s[len(prefix):]
		}
		return s
	}
	return strings.EqualFold(trim(a), trim(b))
}

func (h *Host) isArch(name string) bool {
	if h.Native.Docker() == name {
		return true
	}
	// Podman's tools use libseccomp's names, which differ for one ABI.
	return h.Native == syscalls.MIPSEL64N32 && name == h.Native.String()
}

func (h *Host) atLeast(v syscalls.Version) bool { return h.Kernel == 0 || h.Kernel.MajorMinor() >= v }

// counts tells whether a rule applies: every condition of includes and none of
// excludes. Source: moby/profiles, seccomp_linux.go, setupSeccomp.
func (h *Host) counts(r *Rule) bool {
	if x := &r.Excludes; !x.empty() {
		if slices.ContainsFunc(x.Arches, h.isArch) || slices.ContainsFunc(x.Caps, h.hasCap) || x.hasKernel && h.atLeast(x.MinKernel) {
			return false
		}
	}
	if in := &r.Includes; !in.empty() {
		if len(in.Arches) > 0 && !slices.ContainsFunc(in.Arches, h.isArch) {
			return false
		}
		for _, c := range in.Caps {
			if !h.hasCap(c) {
				return false
			}
		}
		if in.hasKernel && !h.atLeast(in.MinKernel) {
			return false
		}
	}
	return true
}

// Filter is a profile resolved for one host: the rules that count there and the
// ABIs they count for. It says the same as the OCI object that a runtime gets.
type Filter struct {
	Profile *Profile
	Native  syscalls.Arch
	// Archs are the ABIs as the profile lists them for this host; it may be
	// empty and need not contain Native. ABIs says what is filtered.
	Archs   []syscalls.Arch
	Default Action
	Rules   []*Rule

	withoutStub bool // libseccomp alone, for its own tests
}

// ErrDisabled is the answer to resolving a profile that switches seccomp off.
var ErrDisabled = errors.New("the profile is empty: it means no seccomp")

// Resolve picks the rules and ABIs for a host.
func (p *Profile) Resolve(h Host) (*Filter, error) {
	if p.disabled {
		return nil, ErrDisabled
	}
	if !h.Native.IsValid() {
		return nil, fmt.Errorf("resolve profile: no native architecture given")
	}
	f := &Filter{Profile: p, Native: h.Native, Default: p.DefaultAction}
	switch {
	case len(h.Archs) > 0:
		f.Archs = slices.Clone(h.Archs)
	case len(p.ArchMap) > 0:
		for _, m := range p.ArchMap {
			if m.Arch == h.Native {
				f.Archs = append([]syscalls.Arch{m.Arch}, m.Sub...)
				break
			}
		}
	default:
		f.Archs = slices.Clone(p.Architectures)
	}
	for _, a := range f.Archs {
		if a.BigEndian() != h.Native.BigEndian() {
			return nil, fmt.Errorf("resolve profile: %v and %v have different byte orders and cannot share a filter", h.Native, a)
		}
	}
	f.Rules = make([]*Rule, 0, len(p.Rules))
	for i := range p.Rules {
		if r := &p.Rules[i]; h.counts(r) {
			f.Rules = append(f.Rules, r)
		}
	}
	return f, nil
}

// ABIs lists what the filter has rules for, the native ABI first, each once.
func (f *Filter) ABIs() []syscalls.Arch {
	out := []syscalls.Arch{f.Native}
	for _, a := range f.Archs {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Notifies tells whether a rule hands calls to a listener.
func (f *Filter) Notifies() bool {
	return slices.ContainsFunc(f.Rules, func(r *Rule) bool { return r.Action == cbpf.Notify })
}

// Flags are the profile's flags as runc takes them: SPEC_ALLOW when the profile
// has no `flags` at all, none when it has an empty list.
func (f *Filter) Flags() []string {
	if f.Profile.Flags == nil {
		return []string{FlagSpecAllow}
	}
	return f.Profile.Flags
}

// LinuxSeccomp is the runtime specification's object of the same name. It
// marshals to the JSON that OCI runtimes take as `linux.seccomp`.
type LinuxSeccomp struct {
	DefaultAction    string         `json:"defaultAction"`
	DefaultErrnoRet  *uint          `json:"defaultErrnoRet,omitempty"`
	Architectures    []string       `json:"architectures,omitempty"`
	Flags            []string       `json:"flags,omitzero"`
	ListenerPath     string         `json:"listenerPath,omitempty"`
	ListenerMetadata string         `json:"listenerMetadata,omitempty"`
	Syscalls         []LinuxSyscall `json:"syscalls,omitempty"`
}

// LinuxSyscall is one rule of a LinuxSeccomp.
type LinuxSyscall struct {
	Names    []string          `json:"names"`
	Action   string            `json:"action"`
	ErrnoRet *uint             `json:"errnoRet,omitempty"`
	Args     []LinuxSeccompArg `json:"args,omitempty"`
}

// LinuxSeccompArg is one condition of a LinuxSyscall.
type LinuxSeccompArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	Op       string `json:"op"`
}

// OCI is the filter as an OCI runtime wants it.
func (f *Filter) OCI() *LinuxSeccomp {
	p := f.Profile
	out := &LinuxSeccomp{
		DefaultAction:    p.defaultKind,
		DefaultErrnoRet:  toUint(p.DefaultErrnoRet),
		Flags:            p.Flags,
		ListenerPath:     p.ListenerPath,
		ListenerMetadata: p.ListenerMetadata,
		Syscalls:         make([]LinuxSyscall, 0, len(f.Rules)),
	}
	for _, a := range f.Archs {
		out.Architectures = append(out.Architectures, a.OCI())
	}
	for _, r := range f.Rules {
		call := LinuxSyscall{Action: r.kind, ErrnoRet: toUint(r.ErrnoRet), Names: make([]string, len(r.Names))}
		for i, n := range r.Names {
			call.Names[i] = n.Text
		}
		for _, a := range r.Args {
			call.Args = append(call.Args, LinuxSeccompArg{uint(a.Index), a.Value, a.ValueTwo, a.Op.String()})
		}
		out.Syscalls = append(out.Syscalls, call)
	}
	return out
}

func toUint(v *uint32) *uint {
	if v == nil {
		return nil
	}
	u := uint(*v)
	return &u
}
