// SPDX-License-Identifier: Apache-2.0

// Package effective reads from the kernel what confines a running process, and
// compares it with what was asked for.
//
// Nothing is taken from what a runtime says that it did: labels and profiles
// come from /proc/PID/attr, seccomp, capabilities and no_new_privs from
// /proc/PID/status, the filters themselves through ptrace. Mounts are in
// /proc/PID/mountinfo, and what is mounted is told by its identity, the device and
// inode, not by its name. What cannot be read is unknown, and unknown is a mismatch.
//
// No kernel tells which Landlock domain a process is in. That it is in one is
// inferred from a filter that the last step before the workload installs only after
// it has entered the domain, or from a [Witness]. Two more have no other source: a
// process's securebits, and whether it is dumpable.
package effective

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/selinux"
)

// State is what confines a process, or what is asked to.
type State struct {
	// SELinux is the context, AppArmor the profile with its mode as the kernel
	// spells it: "docker-default (enforce)". Empty means none.
	SELinux  string  `json:"selinux"`
	AppArmor string  `json:"apparmor"`
	Seccomp  Seccomp `json:"seccomp"`
	// Permissive reports, of a process, that SELinux or its domain only logs.
	Permissive bool `json:"permissive"`

	NoNewPrivileges bool         `json:"no_new_privileges"`
	Capabilities    Capabilities `json:"capabilities"`
	Landlock        *Landlock    `json:"landlock"`
	// UID and GID are the effective ones, and Groups the supplementary ones, as they
	// are in the process's user namespace. Nil Groups are not asked about.
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`

	// Root is the folder that is the container's root; nil is not asked about.
	Root         *Mount `json:"root"`
	ReadOnlyRoot bool   `json:"read_only_root"`
	// MaskedPaths and ReadOnlyPaths are those that are so, or do not exist.
	MaskedPaths   []string `json:"masked_paths"`
	ReadOnlyPaths []string `json:"read_only_paths"`
	// Mounts are asked for, or found: what is at the destinations that were asked
	// for, and mounts at and below /proc, /sys and /dev. Nil are not asked about.
	Mounts []Mount `json:"mounts"`
	// Others are further places outside of these folders where something may be
	// mounted. Nil is not asked about: hooks mount what they like, and so does a
	// container that runs.
	Others []string `json:"others"`
	// Devices are asked for beside the usual ones, or those that are found.
	Devices []Mount `json:"devices"`
	// DevicesDenied reports that the control group denies devices that are not named.
	DevicesDenied bool `json:"devices_denied"`
	// Links are those of /proc, /sys, /dev and /dev/console that are links.
	Links []string `json:"links"`
	// Outside are those of "root" and "working directory" that are not within the
	// container's mounts, Descriptors the descriptors of files that are not.
	Outside     []string     `json:"outside"`
	Descriptors []Descriptor `json:"descriptors"`
	// FDs is the number of descriptors, from 3 on, that are passed on purpose.
	FDs int `json:"fds"`
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
	// Witnessed reports, of a process whose hashes cannot be read, that a [Witness]
	// shows which filters it has.
	Witnessed bool `json:"witnessed,omitempty"`
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
	seccompStrict   = "strict"
	SeccompFilter   = "filter"
)

// Asked is what an OCI configuration asks of a runtime, but for the identities of
// files; see [State.AskMounts].
func Asked(s *specs.Spec) State {
	st := State{Seccomp: Seccomp{Mode: SeccompDisabled}, MaskedPaths: []string{}, ReadOnlyPaths: []string{}, Namespaces: []string{}}
	if p := s.Process; p != nil {
		st.SELinux = p.SelinuxLabel
		if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
			st.AppArmor = p.ApparmorProfile
		}
		st.NoNewPrivileges = p.NoNewPrivileges
		st.UID, st.GID = p.User.UID, p.User.GID
		st.Groups = groups(p)
		st.Capabilities = capabilitiesOf(p)
	}
	st.ReadOnlyRoot = s.Root != nil && s.Root.Readonly
	st.DevicesDenied = deniesDevices(s)
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

// ForProcess is what is to be in force on a process that is added to a container of
// which st was asked.
func (st State) ForProcess(p *specs.Process) State {
	st.Capabilities = capabilitiesOf(p)
	st.UID, st.GID, st.Groups = p.User.UID, p.User.GID, groups(p)
	st.Others = nil // it may have mounted something since
	return st
}

func groups(p *specs.Process) []uint32 { return append([]uint32{p.User.GID}, p.User.AdditionalGids...) }

// capabilitiesOf are the capabilities that p asks for.
func capabilitiesOf(p *specs.Process) Capabilities {
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

// AskMounts adds the root, the mounts and the devices of a configuration in the folder
// bundle, with the identities that the files of the host have now, in the mount
// namespace of the calling thread. What an engine exchanges afterwards is found to be
// another file.
func (st *State) AskMounts(s *specs.Spec, bundle string) error {
	identify := func(m *Mount, p string) error {
		if !path.IsAbs(p) {
			p = path.Join(bundle, p)
		}
		fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: p, Err: err}
		}
		n, err := look(fd)
		if err != nil {
			return &fs.PathError{Op: "stat", Path: p, Err: err}
		}
		defer n.close()
		m.Bind, m.Dev, m.Ino = true, n.dev(), n.Ino
		return nil
	}
	if s.Root != nil {
		st.Root = &Mount{Destination: "/"}
		if err := identify(st.Root, s.Root.Path); err != nil {
			return fmt.Errorf("root: %w", err)
		}
	}
	st.Mounts, st.Devices = []Mount{}, []Mount{}
	for _, m := range s.Mounts {
		a := Mount{Destination: m.Destination, Type: m.Type}
		bind, remount := m.Type == "bind", false
		for _, o := range m.Options {
			switch o {
			case "bind":
				bind = true
			case "rbind":
				bind, a.Recursive = true, true
			case "ro", "rro":
				a.ReadOnly = true
			case "rw":
				a.ReadOnly = false
			case "remount":
				remount = true
			}
		}
		switch {
		case remount:
			continue
		case bind:
			a.Type = ""
			if err := identify(&a, m.Source); err != nil {
				return fmt.Errorf("mount at %.128s: %w", m.Destination, err)
			}
		}
		// A later mount hides what is mounted at its place and below.
		st.Mounts = slices.DeleteFunc(st.Mounts, func(o Mount) bool { return below(path.Clean(o.Destination), path.Clean(a.Destination)) })
		st.Mounts = append(st.Mounts, a)
	}
	if s.Linux != nil {
		for _, d := range s.Linux.Devices {
			kind := kindOther
			switch d.Type {
			case "c", "u":
				kind = kindChar
			case "b":
				kind = kindBlock
			}
			st.Devices = append(st.Devices, Mount{Destination: path.Clean(d.Path), Kind: kind, Device: Device{uint32(d.Major), uint32(d.Minor)}})
		}
	}
	//nolint:staticcheck // engines still write prestart hooks
	if h := s.Hooks; h == nil || len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer) == 0 {
		return st.askOthers(s.Root)
	}
	return nil
}

// askOthers names what may be mounted without standing in the configuration: what is
// mounted below the root already, and the socket that systemd waits at.
func (st *State) askOthers(root *specs.Root) error {
	st.Others = []string{}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		st.Others = append(st.Others, "/run/notify", "/run/notify/notify.sock")
	}
	if root == nil {
		return nil
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := readTable(f)
	if err != nil {
		return err
	}
	for _, m := range t.list {
		if rest, ok := strings.CutPrefix(m.Mountpoint, path.Clean(root.Path)+"/"); ok {
			st.Others = append(st.Others, "/"+rest)
		}
	}
	return nil
}

// gained are the capabilities that are permitted and effective once the process has
// executed its program: the ambient ones, and of the superuser of a user namespace
// all that it may gain, or with no_new_privs those that were permitted.
//
// Source: capabilities(7), "Transformation of capabilities during execve" and
// "Capabilities and execution of programs by root"; security/commoncap.c,
// cap_bprm_creds_from_file.
func (st State) gained() caps.Set {
	c := st.Capabilities
	switch {
	case st.UID != 0:
		return c.Ambient
	case st.NoNewPrivileges:
		return c.Permitted.Intersect(c.Bounding.Union(c.Inheritable))
	}
	return c.Bounding.Union(c.Inheritable)
}

// Mismatch is one place where less is in force than was asked for.
type Mismatch struct {
	// Layer is one of [layerNames].
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

	out = append(out, compareSELinux(asked, effective)...)
	out = append(out, compareAppArmor(asked.AppArmor, effective.AppArmor)...)
	out = append(out, compareSeccomp(asked.Seccomp, effective.Seccomp)...)
	if asked.NoNewPrivileges && !effective.NoNewPrivileges {
		add("no_new_privileges", "yes", "no", "execve may give the process more privileges")
	}
	gained := asked.gained()
	for _, c := range []struct {
		name             string
		asked, effective caps.Set
	}{
		{"bounding", asked.Capabilities.Bounding, effective.Capabilities.Bounding},
		{"effective", asked.Capabilities.Effective.Union(gained), effective.Capabilities.Effective},
		{"permitted", asked.Capabilities.Permitted.Union(gained), effective.Capabilities.Permitted},
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
			add("landlock", asked.Landlock.String(), "unknown", "nothing shows that the last step before the workload has entered a domain")
		case asked.Landlock.HandledFS&^e.HandledFS != 0 || asked.Landlock.HandledNet&^e.HandledNet != 0 || asked.Landlock.Scoped&^e.Scoped != 0:
			add("landlock", asked.Landlock.String(), e.String(), "the domain denies less")
		}
	}
	out = append(out, compareUser(asked, effective)...)
	out = append(out, compareMounts(asked, effective)...)
	out = append(out, compareInside(asked, effective)...)
	for _, n := range missing(asked.Namespaces, effective.Namespaces) {
		add("namespaces", n, "shared", "the process is in the same "+n+" namespace as the host")
	}
	return out
}

// compareSELinux compares contexts by what they mean: categories have no order.
func compareSELinux(asked, effective State) []Mismatch {
	if asked.SELinux == "" {
		return nil
	}
	want, err1 := selinux.ParseContext(asked.SELinux)
	have, err2 := selinux.ParseContext(effective.SELinux)
	switch {
	case err1 != nil || err2 != nil || want != have:
		return []Mismatch{{"selinux", asked.SELinux, orNone(effective.SELinux), "the process runs under another SELinux context"}}
	case effective.Permissive:
		return []Mismatch{{"selinux", asked.SELinux, effective.SELinux + ", permissive", "SELinux logs what it would deny"}}
	}
	return nil
}

// compareAppArmor wants the profile in a mode that denies.
//
// Source: security/apparmor/label.c, aa_label_printk; policy.c, aa_profile_mode_names.
func compareAppArmor(asked, effective string) []Mismatch {
	if asked == "" {
		return nil
	}
	name, mode, _ := strings.Cut(effective, " (")
	switch {
	case name != strings.TrimSuffix(asked, " (enforce)"):
		return []Mismatch{{"apparmor", asked, orNone(effective), "the process is not confined by the profile"}}
	case mode != "enforce)" && mode != "kill)":
		return []Mismatch{{"apparmor", asked, effective, "the profile does not enforce"}}
	}
	return nil
}

// compareUser wants the user and groups that were asked for. The superuser may become
// another one, and with CAP_SETGID give itself groups.
func compareUser(asked, effective State) []Mismatch {
	var out []Mismatch
	root := asked.UID == 0
	if !root && asked.UID != effective.UID {
		out = append(out, Mismatch{"user", fmt.Sprint("user ", asked.UID), fmt.Sprint("user ", effective.UID), "the process runs as another user"})
	}
	if !root && asked.GID != effective.GID {
		out = append(out, Mismatch{"user", fmt.Sprint("group ", asked.GID), fmt.Sprint("group ", effective.GID), "the process runs with another group"})
	}
	if asked.Groups == nil || root && asked.Capabilities.Bounding.Has(caps.Setgid) {
		return out
	}
	var more []uint32
	for _, g := range effective.Groups {
		if !slices.Contains(asked.Groups, g) {
			more = append(more, g)
		}
	}
	if len(more) > 0 {
		out = append(out, Mismatch{"user", fmt.Sprint("groups ", asked.Groups), fmt.Sprint("groups ", effective.Groups), fmt.Sprint("the process has the groups ", more, " in addition")})
	}
	return out
}

// compareInside wants nothing of the host within reach that was not passed on purpose.
func compareInside(asked, effective State) []Mismatch {
	var out []Mismatch
	for _, what := range effective.Outside {
		out = append(out, Mismatch{"root", what + " inside", what + " outside", "it is not within the container's mounts"})
	}
	const standard = 3
	for _, d := range effective.Descriptors {
		switch {
		case d.FD < standard && d.Kind != KindFolder:
		case d.FD >= standard && d.FD < standard+asked.FDs:
		default:
			out = append(out, Mismatch{"descriptors", "none", fmt.Sprintf("descriptor %d: %s %.128q", d.FD, d.Kind, d.Path), fmt.Sprintf("descriptor %d leads outside", d.FD)})
		}
	}
	return out
}

func compareSeccomp(asked, effective Seccomp) []Mismatch {
	if asked.Mode != SeccompFilter || effective.Mode == seccompStrict {
		return nil
	}
	if effective.Mode != SeccompFilter {
		return []Mismatch{{"seccomp", "filter", orNone(effective.Mode), "system calls are not filtered"}}
	}
	filters := effective.Filters
	if filters < 0 && effective.SHA256 != nil {
		filters = len(effective.SHA256)
	}
	switch {
	case filters < 0:
		return []Mismatch{{"seccomp", fmt.Sprintf("%d filters", asked.Filters), "unknown", "the kernel does not tell how many filters there are"}}
	case filters < asked.Filters:
		return []Mismatch{{"seccomp", fmt.Sprintf("%d filters", asked.Filters), fmt.Sprintf("%d filters", filters), "a filter is missing"}}
	case asked.SHA256 == nil:
		return nil // whoever compiled it does not tell
	case effective.SHA256 == nil && effective.Witnessed:
		return nil
	case effective.SHA256 == nil:
		return []Mismatch{{"seccomp", fmt.Sprintf("%d known filters", len(asked.SHA256)), fmt.Sprintf("%d filters", filters), "the filters cannot be read, so they are unknown"}}
	}
	for _, h := range missing(asked.SHA256, effective.SHA256) {
		return []Mismatch{{"seccomp", "filter " + h, "filters " + strings.Join(effective.SHA256, " "), "another filter is installed"}}
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
