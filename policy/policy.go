// SPDX-License-Identifier: Apache-2.0

// Package policy is what a person allows one workload to do, as a value.
//
// A [Policy] names no mechanism: it says which files, networks, capabilities
// and system calls a workload may use, and the compilers of each mechanism take
// from it what they can enforce. [Default] and [Strict] are the two policies
// that are built in; the policy file fills the same type.
//
// A Policy is a value. Treat it as immutable and use [Policy.Clone] before
// changing one.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/selinux"
)

// Policy is what one workload may do.
type Policy struct {
	// Name is of the form [a-z0-9][a-z0-9-]{0,62}.
	Name string `json:"name"`
	// Files are the rules on paths inside the container. Nil means that
	// ownership and modes alone decide.
	Files *Files `json:"files,omitempty"`
	// Network are the rules on sockets. Nil means that the network namespace
	// alone decides.
	Network *Network `json:"network,omitempty"`
	// Capabilities is the whole set that a process of the container can ever
	// have, not a difference.
	Capabilities caps.Set `json:"capabilities"`
	Syscalls     Syscalls `json:"syscalls"`
	Process      Process  `json:"process"`
	// ReadOnlyRoot makes everything read-only but the volumes and the
	// in-memory file systems.
	ReadOnlyRoot bool `json:"read_only_root"`
	// MaskedPaths are made unreadable, ReadOnlyPaths unwritable, where they
	// exist.
	MaskedPaths   []string `json:"masked_paths"`
	ReadOnlyPaths []string `json:"read_only_paths"`
	AppArmor      AppArmor `json:"apparmor"`
	Label         Label    `json:"label"`
}

// Files are rules on paths inside the container. In a pattern ** stands for any
// depth, * for one element. A path that is a folder stands for all that is below it too.
type Files struct {
	Read    []string `json:"read,omitempty"`
	Write   []string `json:"write,omitempty"`   // implies read, create and unlink below the path
	Append  []string `json:"append,omitempty"`  //
	Execute []string `json:"execute,omitempty"` // implies read and map
	Deny    []string `json:"deny,omitempty"`    // wins over everything
}

// Network are rules on sockets.
type Network struct {
	// Families are the address families a socket may be made of: unix, inet,
	// inet6, netlink, packet, …
	Families []string `json:"families"`
	// Listen and Connect are endpoints such as tcp/443; "*" is any.
	Listen  []string `json:"listen,omitempty"`
	Connect []string `json:"connect,omitempty"`
}

// Bases of the system calls that a policy allows.
const (
	// SyscallsDocker is Docker's default profile, resolved for the
	// capabilities of the policy.
	SyscallsDocker = "docker"
	// SyscallsNone filters nothing.
	SyscallsNone = "none"
)

// Syscalls are the rules on system calls.
type Syscalls struct {
	Base  string   `json:"base"`
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
	// DenyUses are uses of calls that are refused although the call is allowed,
	// also when Allow names it.
	DenyUses []string `json:"deny_uses,omitempty"`
}

// Uses of system calls that [Syscalls.DenyUses] can name.
const (
	// UseNotificationPipe is pipe2 with O_NOTIFICATION_PIPE.
	UseNotificationPipe = "notification-pipe"
	// UseTerminalInput is ioctl with TIOCSTI or TIOCLINUX, which put input into
	// a terminal as if it had been typed.
	UseTerminalInput = "terminal-input"
	// UseUrgentData is MSG_OOB, in sending and receiving.
	UseUrgentData = "urgent-data"
)

var uses = []string{UseNotificationPipe, UseTerminalInput, UseUrgentData}

// Process are the rules on processes.
type Process struct {
	// NewPrivileges tells whether execve may give more privileges than the
	// caller has: setuid and setgid programs, file capabilities.
	NewPrivileges bool `json:"new_privileges"`
	// Ptrace is "self" (processes of the container among themselves) or "none".
	Ptrace string `json:"ptrace"`
}

// AppArmor says which profile of the host confines the workload.
type AppArmor struct {
	// Profile is the name of a loaded profile; empty for none.
	Profile string `json:"profile"`
	// Required makes a host that cannot enforce the profile an error. Without
	// it the profile is used where AppArmor is on and the profile is loaded.
	Required bool `json:"required"`
}

// Values of [Label.MCS] beside an explicit pair such as "c1,c2".
const (
	MCSPrivate = "private"
	// MCSSharedPrefix begins the name of a group whose members have one pair.
	MCSSharedPrefix = "shared:"
)

// Label says which SELinux label the workload gets.
type Label struct {
	// MCS is private (a pair of categories that no other container has),
	// shared:GROUP (one pair for all members of a group), or a pair such as c1,c2.
	MCS string `json:"mcs"`
	// Level is the sensitivity: s0.
	Level string `json:"level"`
}

// LabelClaim is what a [Label] asks of the registry of labels.
type LabelClaim struct {
	// Level is the whole level, for example s0:c1,c2; empty means a pair that the
	// registry draws.
	Level string
	// Shared is the group whose members have one label; empty for none.
	Shared string
	// Sensitivity is that of the level, for example s0.
	Sensitivity string
}

// Claim is what the label asks for. The error names the value that is none.
func (l Label) Claim() (LabelClaim, error) {
	c := LabelClaim{Sensitivity: l.Level}
	level, err := selinux.ParseLevel(l.Level)
	if err != nil || !level.Categories.IsEmpty() {
		return LabelClaim{}, fmt.Errorf("label: level %q: want a sensitivity such as s0", l.Level)
	}
	group, shared := strings.CutPrefix(l.MCS, MCSSharedPrefix)
	switch {
	case l.MCS == MCSPrivate:
	case shared && validGroup(group):
		c.Shared = group
	case shared:
		return LabelClaim{}, fmt.Errorf("label: mcs %q: a group has 1 to 128 letters, digits, '.', '_' and '-'", l.MCS)
	default:
		pair, err := selinux.ParseLevel(l.Level + ":" + l.MCS)
		if err != nil || pair.Categories.Len() != 2 {
			return LabelClaim{}, fmt.Errorf("label: mcs %q: want private, shared:GROUP or a pair of categories such as c1,c2", l.MCS)
		}
		c.Level = pair.String()
	}
	return c, nil
}

func validGroup(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 128
}

// meet is the label of a workload that has to obey both. A label of its own satisfies who
// would share it, too. Two labels that exclude each other become a value that no policy can have,
// so that it is refused by name.
func (l Label) meet(m Label) Label {
	if l.Level != m.Level {
		l.Level += " and " + m.Level
	}
	_, shared := strings.CutPrefix(l.MCS, MCSSharedPrefix)
	_, otherShared := strings.CutPrefix(m.MCS, MCSSharedPrefix)
	switch {
	case l.MCS == m.MCS, m.MCS == MCSPrivate && !shared:
	case l.MCS == MCSPrivate && !otherShared:
		l.MCS = m.MCS // a pair has one holder
	case l.MCS == MCSPrivate || m.MCS == MCSPrivate || shared && otherShared:
		l.MCS = MCSPrivate
	case shared:
		l.MCS = m.MCS
	case otherShared:
	default:
		l.MCS += " and " + m.MCS
	}
	return l
}

// dockerMasked are the paths that Docker hides, and dockerReadOnly those that
// it makes read-only.
//
// Source: moby daemon/pkg/oci/defaults.go, defaultLinuxMaskedPaths.
var (
	dockerMasked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore",
		"/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	dockerReadOnly = []string{
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	}
)

// Default is the policy of containers that name none: in every layer at least
// what Docker does by default, and no new privileges.
func Default() Policy {
	return Policy{
		Name:          "default",
		Capabilities:  caps.Docker,
		Syscalls:      Syscalls{Base: SyscallsDocker, DenyUses: []string{UseNotificationPipe, UseTerminalInput}},
		Process:       Process{Ptrace: "self"},
		MaskedPaths:   slices.Clone(dockerMasked),
		ReadOnlyPaths: slices.Clone(dockerReadOnly),
		AppArmor:      AppArmor{Profile: "docker-default"},
		Label:         Label{MCS: MCSPrivate, Level: "s0"},
	}
}

// Strict starts from nothing: no capabilities, a read-only root, and no sockets
// but those of the unix family.
func Strict() Policy {
	p := Default()
	p.Name = "strict"
	p.Capabilities = 0
	p.ReadOnlyRoot = true
	p.Process.Ptrace = "none"
	p.Syscalls.DenyUses = append(p.Syscalls.DenyUses, UseUrgentData)
	p.Network = &Network{Families: []string{"unix"}}
	p.Files = &Files{
		Read:    []string{"/**"},
		Execute: []string{"/**"},
		Write:   []string{"/dev/**", "/proc/**", "/tmp/**", "/run/**", "/var/tmp/**"},
	}
	return p
}

// ErrUnknown is the error of a name that is no built-in policy.
var ErrUnknown = errors.New("no such policy")

// Builtin returns the built-in policy of that name. The error wraps
// [ErrUnknown].
func Builtin(name string) (Policy, error) {
	switch name {
	case "default":
		return Default(), nil
	case "strict":
		return Strict(), nil
	}
	return Policy{}, fmt.Errorf("policy %q: %w", name, ErrUnknown)
}

// BuiltinNames lists what [Builtin] knows.
func BuiltinNames() []string { return []string{"default", "strict"} }

// Clone is a copy that shares nothing.
func (p Policy) Clone() Policy {
	if p.Files != nil {
		f := *p.Files
		for _, list := range []*[]string{&f.Read, &f.Write, &f.Append, &f.Execute, &f.Deny} {
			*list = slices.Clone(*list)
		}
		p.Files = &f
	}
	if p.Network != nil {
		n := *p.Network
		for _, list := range []*[]string{&n.Families, &n.Listen, &n.Connect} {
			*list = slices.Clone(*list)
		}
		p.Network = &n
	}
	for _, list := range []*[]string{&p.Syscalls.Allow, &p.Syscalls.Deny, &p.Syscalls.DenyUses, &p.MaskedPaths, &p.ReadOnlyPaths} {
		*list = slices.Clone(*list)
	}
	return p
}

// Meet is at most what both p and q allow, under p's name: the policy of a
// workload that has to obey both. Of two AppArmor profiles p's is taken, since a
// process has only one. Labels that exclude each other make a policy that
// [Policy.Validate] refuses.
func (p Policy) Meet(q Policy) Policy {
	m := p.Clone()
	q = q.Clone()
	m.Capabilities = p.Capabilities.Intersect(q.Capabilities)
	m.Process.NewPrivileges = p.Process.NewPrivileges && q.Process.NewPrivileges
	if q.Process.Ptrace == "none" {
		m.Process.Ptrace = "none"
	}
	m.ReadOnlyRoot = p.ReadOnlyRoot || q.ReadOnlyRoot
	m.MaskedPaths = union(m.MaskedPaths, q.MaskedPaths)
	m.ReadOnlyPaths = union(m.ReadOnlyPaths, q.ReadOnlyPaths)
	if m.Syscalls.Base == SyscallsNone {
		m.Syscalls.Base, m.Syscalls.Allow = q.Syscalls.Base, q.Syscalls.Allow
	} else if q.Syscalls.Base != SyscallsNone {
		m.Syscalls.Allow = intersect(m.Syscalls.Allow, q.Syscalls.Allow)
	}
	m.Syscalls.Deny = union(m.Syscalls.Deny, q.Syscalls.Deny)
	m.Syscalls.DenyUses = union(m.Syscalls.DenyUses, q.Syscalls.DenyUses)
	if m.Network == nil {
		m.Network = q.Network
	} else if q.Network != nil {
		m.Network.Families = intersect(m.Network.Families, q.Network.Families)
		m.Network.Listen = intersect(m.Network.Listen, q.Network.Listen)
		m.Network.Connect = intersect(m.Network.Connect, q.Network.Connect)
	}
	if m.Files == nil {
		m.Files = q.Files
	} else if q.Files != nil {
		// Two patterns can overlap without being equal; what only one of the
		// policies spells out is left out, which is safe.
		m.Files.Read = intersect(m.Files.Read, q.Files.Read)
		m.Files.Write = intersect(m.Files.Write, q.Files.Write)
		m.Files.Append = intersect(m.Files.Append, q.Files.Append)
		m.Files.Execute = intersect(m.Files.Execute, q.Files.Execute)
		m.Files.Deny = union(m.Files.Deny, q.Files.Deny)
	}
	if m.AppArmor.Profile == "" {
		m.AppArmor = q.AppArmor
	}
	m.Label = p.Label.meet(q.Label)
	return m
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func intersect(a, b []string) []string {
	var out []string
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// Validate reports everything that is wrong with a policy, joined.
func (p Policy) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !validName(p.Name) {
		bad("name %q: want a letter or digit, then up to 62 letters, digits or hyphens", p.Name)
	}
	if b := p.Syscalls.Base; b != SyscallsDocker && b != SyscallsNone {
		bad("syscalls: base %q: want docker or none", b)
	}
	for _, use := range p.Syscalls.DenyUses {
		if !slices.Contains(uses, use) {
			bad("syscalls: use %q: want %s", use, strings.Join(uses, ", "))
		}
	}
	if t := p.Process.Ptrace; t != "self" && t != "none" {
		bad("process: ptrace %q: want self or none", t)
	}
	for _, list := range [][]string{p.MaskedPaths, p.ReadOnlyPaths} {
		for _, path := range list {
			if !strings.HasPrefix(path, "/") {
				bad("path %q: want an absolute path", path)
			}
		}
	}
	if more := p.Capabilities.Minus(caps.All); more != 0 {
		bad("capabilities: %s: no such capability", more)
	}
	if _, err := p.Label.Claim(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func validName(s string) bool {
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63
}
