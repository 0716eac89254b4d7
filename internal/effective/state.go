// SPDX-License-Identifier: Apache-2.0

// Package effective reads from the kernel what confines a running process, and
// compares it with what was asked for.
//
// Nothing is taken from what a runtime says that it did: labels and profiles
// come from /proc/PID/attr, seccomp, capabilities and no_new_privs from
// /proc/PID/status, the filters themselves through ptrace, mounts from
// /proc/PID/mountinfo. Landlock is the exception: no kernel tells which domain a
// process is in. It is inferred from a filter that the last step before the
// workload installs only after it has entered the domain.
package effective

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
)

// State is what confines a process, or what is asked to.
type State struct {
	// SELinux is the context, AppArmor the profile with its mode as the kernel
	// spells it: "docker-default (enforce)". Empty means none.
	SELinux  string  `json:"selinux"`
	AppArmor string  `json:"apparmor"`
	Seccomp  Seccomp `json:"seccomp"`

	NoNewPrivileges bool         `json:"no_new_privileges"`
	Capabilities    Capabilities `json:"capabilities"`
	Landlock        *Landlock    `json:"landlock"`
	UID             uint32       `json:"uid"`
	GID             uint32       `json:"gid"`

	ReadOnlyRoot bool `json:"read_only_root"`
	// MaskedPaths and ReadOnlyPaths are those that exist.
	MaskedPaths   []string `json:"masked_paths"`
	ReadOnlyPaths []string `json:"read_only_paths"`
	// Namespaces are the kinds that the process does not share with the reader.
	Namespaces []string `json:"namespaces"`
}

// Seccomp is the system call filtering of a process.
type Seccomp struct {
	// Mode is disabled, strict or filter.
	Mode string `json:"mode"`
	// Filters is the number of filters, -1 when the kernel does not tell.
	Filters int `json:"filters"`
	// SHA256 are the hashes of the filters' instructions, the newest first.
	// Nil means that they were not read, or not known beforehand.
	SHA256 []string `json:"sha256"`
	// InstalledBy says who was to install the filter: palisade-init or the OCI
	// runtime.
	InstalledBy string `json:"installed_by,omitempty"`
}

// Capabilities are the five sets of a process.
type Capabilities struct {
	Bounding    caps.Set `json:"bounding"`
	Effective   caps.Set `json:"effective"`
	Permitted   caps.Set `json:"permitted"`
	Inheritable caps.Set `json:"inheritable"`
	Ambient     caps.Set `json:"ambient"`
}

// Landlock is a domain.
type Landlock struct {
	// ABI is the version of the interface that the domain was made with.
	ABI int `json:"abi"`
	// HandledFS, HandledNet and Scoped are the kernel's bit sets of what the
	// domain denies unless a rule allows it.
	HandledFS  uint64 `json:"handled_fs"`
	HandledNet uint64 `json:"handled_net"`
	Scoped     uint64 `json:"scoped"`
	// Missing names what was asked for and this kernel's ABI does not have.
	Missing []string `json:"missing,omitempty"`
}

// Values of [Seccomp.Mode].
const (
	SeccompDisabled = "disabled"
	SeccompStrict   = "strict"
	SeccompFilter   = "filter"
)

// Asked is what an OCI configuration asks of a runtime.
func Asked(s *specs.Spec) State {
	st := State{Seccomp: Seccomp{Mode: SeccompDisabled}, MaskedPaths: []string{}, ReadOnlyPaths: []string{}, Namespaces: []string{}}
	if p := s.Process; p != nil {
		st.SELinux = p.SelinuxLabel
		if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
			st.AppArmor = p.ApparmorProfile
		}
		st.NoNewPrivileges = p.NoNewPrivileges
		st.UID, st.GID = p.User.UID, p.User.GID
		st.Capabilities = CapabilitiesOf(p)
	}
	st.ReadOnlyRoot = s.Root != nil && s.Root.Readonly
	if l := s.Linux; l != nil {
		st.MaskedPaths = append(st.MaskedPaths, l.MaskedPaths...)
		st.ReadOnlyPaths = append(st.ReadOnlyPaths, l.ReadonlyPaths...)
		if l.Seccomp != nil {
			st.Seccomp = Seccomp{Mode: SeccompFilter, Filters: 1, InstalledBy: "runtime"}
		}
		for _, ns := range l.Namespaces {
			if ns.Path == "" {
				st.Namespaces = append(st.Namespaces, namespaceFile(string(ns.Type)))
			}
		}
	}
	slices.Sort(st.MaskedPaths)
	slices.Sort(st.ReadOnlyPaths)
	slices.Sort(st.Namespaces)
	return st
}

// CapabilitiesOf are the capabilities that p asks for.
func CapabilitiesOf(p *specs.Process) Capabilities {
	c := p.Capabilities
	if c == nil {
		return Capabilities{}
	}
	return Capabilities{
		Bounding: set(c.Bounding), Effective: set(c.Effective), Permitted: set(c.Permitted),
		Inheritable: set(c.Inheritable), Ambient: set(c.Ambient),
	}
}

func set(names []string) caps.Set {
	var s caps.Set
	for _, n := range names {
		if c, err := caps.Parse(n); err == nil {
			s = s.With(c)
		}
	}
	return s
}

// namespaceFile is the name below /proc/PID/ns of a namespace that the runtime
// specification names otherwise.
func namespaceFile(kind string) string {
	switch kind {
	case "network":
		return "net"
	case "mount":
		return "mnt"
	}
	return kind
}

// Mismatch is one place where less is in force than was asked for.
type Mismatch struct {
	// Layer is selinux, apparmor, seccomp, no_new_privileges, capabilities,
	// landlock, mounts or namespaces.
	Layer     string `json:"layer"`
	Asked     string `json:"asked"`
	Effective string `json:"effective"`
	Why       string `json:"why"`
}

func (m Mismatch) String() string {
	return fmt.Sprintf("%s: asked for %s, found %s: %s", m.Layer, m.Asked, m.Effective, m.Why)
}

// MismatchError says that less is in force than was asked for.
type MismatchError struct{ Mismatches []Mismatch }

func (e *MismatchError) Error() string {
	parts := make([]string, len(e.Mismatches))
	for i, m := range e.Mismatches {
		parts[i] = m.String()
	}
	return "the container is less confined than asked: " + strings.Join(parts, "; ")
}

// Check is Compare as an error, a [*MismatchError].
func Check(asked, effective State) error {
	if m := Compare(asked, effective); len(m) > 0 {
		return &MismatchError{m}
	}
	return nil
}

// Compare lists where effective is weaker than asked, in the order of the
// layers. More confinement than asked for is no mismatch: a process may drop
// capabilities and install filters of its own.
func Compare(asked, effective State) []Mismatch {
	out := []Mismatch{}
	add := func(layer, a, e, why string) { out = append(out, Mismatch{layer, a, e, why}) }

	if asked.SELinux != "" && asked.SELinux != effective.SELinux {
		add("selinux", asked.SELinux, orNone(effective.SELinux), "the process runs under another SELinux context")
	}
	if asked.AppArmor != "" {
		name, mode, _ := strings.Cut(effective.AppArmor, " (")
		switch {
		case name != strings.TrimSuffix(asked.AppArmor, " (enforce)"):
			add("apparmor", asked.AppArmor, orNone(effective.AppArmor), "the process is not confined by the profile")
		case mode != "" && mode != "enforce)":
			add("apparmor", asked.AppArmor, effective.AppArmor, "the profile does not enforce")
		}
	}
	out = append(out, compareSeccomp(asked.Seccomp, effective.Seccomp)...)
	if asked.NoNewPrivileges && !effective.NoNewPrivileges {
		add("no_new_privileges", "yes", "no", "execve may give the process more privileges")
	}
	for _, c := range []struct {
		name             string
		asked, effective caps.Set
	}{
		{"bounding", asked.Capabilities.Bounding, effective.Capabilities.Bounding},
		{"effective", asked.Capabilities.Effective, effective.Capabilities.Effective},
		{"permitted", asked.Capabilities.Permitted, effective.Capabilities.Permitted},
		{"inheritable", asked.Capabilities.Inheritable, effective.Capabilities.Inheritable},
		{"ambient", asked.Capabilities.Ambient, effective.Capabilities.Ambient},
	} {
		if more := c.effective.Minus(c.asked); more != 0 {
			add("capabilities", c.name+" "+c.asked.String(), c.name+" "+c.effective.String(), "the process has "+more.String()+" in addition")
		}
	}
	if asked.Landlock != nil {
		switch e := effective.Landlock; {
		case e == nil:
			add("landlock", asked.Landlock.String(), "none", "the last step before the workload has not entered a domain")
		case asked.Landlock.HandledFS&^e.HandledFS != 0 || asked.Landlock.HandledNet&^e.HandledNet != 0 || asked.Landlock.Scoped&^e.Scoped != 0:
			add("landlock", asked.Landlock.String(), e.String(), "the domain denies less")
		}
	}
	if asked.ReadOnlyRoot && !effective.ReadOnlyRoot {
		add("mounts", "read-only root", "writable root", "the root can be written to")
	}
	for _, p := range missing(asked.MaskedPaths, effective.MaskedPaths) {
		add("mounts", "masked "+p, "visible", "the path can be read")
	}
	for _, p := range missing(asked.ReadOnlyPaths, effective.ReadOnlyPaths) {
		add("mounts", "read-only "+p, "writable", "the path can be written to")
	}
	for _, n := range missing(asked.Namespaces, effective.Namespaces) {
		add("namespaces", n, "shared", "the process is in the same "+n+" namespace as the host")
	}
	return out
}

func compareSeccomp(asked, effective Seccomp) []Mismatch {
	if asked.Mode != SeccompFilter {
		return nil
	}
	if effective.Mode == SeccompStrict {
		return nil
	}
	if effective.Mode != SeccompFilter {
		return []Mismatch{{"seccomp", "filter", effective.Mode, "no system call is filtered"}}
	}
	if effective.Filters >= 0 && effective.Filters < asked.Filters {
		return []Mismatch{{"seccomp", fmt.Sprintf("%d filters", asked.Filters), fmt.Sprintf("%d filters", effective.Filters), "a filter is missing"}}
	}
	if effective.SHA256 != nil {
		for _, h := range missing(asked.SHA256, effective.SHA256) {
			return []Mismatch{{"seccomp", "filter " + h, "filters " + strings.Join(effective.SHA256, " "), "another filter is installed"}}
		}
	}
	return nil
}

// String names the bit sets in hexadecimal, as the kernel's audit records do.
func (l *Landlock) String() string {
	return fmt.Sprintf("ABI %d fs=%#x net=%#x scoped=%#x", l.ABI, l.HandledFS, l.HandledNet, l.Scoped)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// missing is what is in want and not in have.
func missing(want, have []string) []string {
	var out []string
	for _, w := range want {
		if !slices.Contains(have, w) && !slices.Contains(have, path.Clean(w)) {
			out = append(out, w)
		}
	}
	return out
}
