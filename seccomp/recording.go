// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"cmp"
	"slices"

	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Recording is what a workload did: one entry for each call on each ABI, split by
// the argument that matters where one does.
type Recording struct {
	Calls []RecordedCall `json:"calls"`
	// Lost is how many calls could not be counted, because there was no room
	// for more different ones.
	Lost uint64 `json:"lost"`
}

// RecordedCall counts one call.
type RecordedCall struct {
	Arch syscalls.Arch `json:"arch"`
	Nr   uint32        `json:"nr"`
	Name string        `json:"name"`
	// Arg is the argument that was looked at, -1 for none; Value what it was.
	Arg   int    `json:"arg"`
	Value uint64 `json:"value,omitempty"`
	// Count is how often the call was made. Denied is how often a seccomp
	// filter answered it; NoSys how often it failed with ENOSYS.
	Count  uint64 `json:"count"`
	Denied uint64 `json:"denied,omitempty"`
	NoSys  uint64 `json:"enosys,omitempty"`
}

// ArgOf says which argument of a call a recording tells apart, -1 for none.
func ArgOf(name string) int {
	switch name {
	case "socket", "clone", "personality", "prctl":
		return 0
	case "ioctl":
		return 1
	}
	return -1
}

// start are calls that every program's start and end need, whatever was seen.
var start = []string{"execve", "exit", "exit_group", "rt_sigreturn", "restart_syscall"}

// NeverWorked lists the calls that only ever failed with ENOSYS, so that nothing
// is lost by leaving them out of a profile.
func (r *Recording) NeverWorked() []string {
	worked, failed := map[string]bool{}, map[string]bool{}
	for _, c := range r.Calls {
		if c.NoSys < c.Count {
			worked[c.Name] = true
		} else if c.Count > 0 {
			failed[c.Name] = true
		}
	}
	var out []string
	for n := range failed {
		if !worked[n] {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Weights are the frequencies of the recording.
func (r *Recording) Weights() map[string]map[string]float64 {
	out := map[string]map[string]float64{}
	for _, c := range r.Calls {
		if c.Name == "" {
			continue
		}
		m := out[c.Arch.String()]
		if m == nil {
			m = map[string]float64{}
			out[c.Arch.String()] = m
		}
		m[c.Name] += float64(c.Count)
	}
	return out
}

// maxFamilies is up to how many values of an argument become conditions.
const maxFamilies = 16

// Profile makes a profile that allows what was recorded and nothing else. With
// arguments, socket, personality and prctl are allowed for the values that were
// seen only.
func (r *Recording) Profile(arguments bool) *LinuxSeccomp {
	one := uint(eperm)
	p := &LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", DefaultErrnoRet: &one}
	never := r.NeverWorked()
	names := map[string]bool{}
	values := map[string]map[uint64]bool{}
	var archs []syscalls.Arch
	for _, n := range start {
		names[n] = true
	}
	for _, c := range r.Calls {
		if !slices.Contains(archs, c.Arch) {
			archs = append(archs, c.Arch)
		}
		if c.Name == "" || slices.Contains(never, c.Name) {
			continue
		}
		names[c.Name] = true
		if c.Arg == 0 && c.Name != "clone" {
			if values[c.Name] == nil {
				values[c.Name] = map[uint64]bool{}
			}
			values[c.Name][c.Value&0xffffffff] = true
		}
	}
	slices.SortFunc(archs, func(a, b syscalls.Arch) int { return cmp.Compare(a, b) })
	for _, a := range archs {
		p.Architectures = append(p.Architectures, a.OCI())
	}
	allow := LinuxSyscall{Action: "SCMP_ACT_ALLOW"}
	var special []LinuxSyscall
	for n := range names {
		if vs := values[n]; arguments && len(vs) > 0 && len(vs) <= maxFamilies {
			list := make([]uint64, 0, len(vs))
			for v := range vs {
				list = append(list, v)
			}
			slices.Sort(list)
			for _, v := range list {
				special = append(special, LinuxSyscall{Names: []string{n}, Action: "SCMP_ACT_ALLOW", Args: []LinuxSeccompArg{{Index: 0, Value: v, Op: EQ.String()}}})
			}
			continue
		}
		allow.Names = append(allow.Names, n)
	}
	slices.Sort(allow.Names)
	slices.SortStableFunc(special, func(a, b LinuxSyscall) int { return cmp.Compare(a.Names[0], b.Names[0]) })
	p.Syscalls = append([]LinuxSyscall{allow}, special...)
	return p
}
