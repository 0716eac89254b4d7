// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/target"
)

// families are the address families by their names in policies.
//
// Source: include/linux/socket.h.
var families = map[string]uint64{
	"unix": 1, "inet": 2, "ax25": 3, "ipx": 4, "appletalk": 5, "x25": 9,
	"inet6": 10, "netlink": 16, "packet": 17, "rds": 21, "llc": 26, "can": 29,
	"tipc": 30, "bluetooth": 31, "rxrpc": 33, "alg": 38, "vsock": 40, "kcm": 41,
	"qipcrtr": 42, "smc": 43, "xdp": 44, "mctp": 45,
}

// ErrFamily is the error of an address family without a name here.
var ErrFamily = errors.New("unknown address family")

// syscallFilter is the filter of p for a container whose bounding set is bounding
// on the host t. It is nil when p filters nothing.
func syscallFilter(t target.Target, p policy.Policy, bounding caps.Set) (*seccomp.LinuxSeccomp, error) {
	if p.Syscalls.Base == policy.SyscallsNone {
		return nil, nil
	}
	host, err := seccompHost(t)
	if err != nil {
		return nil, err
	}
	host.Caps = bounding.Names()
	f, err := seccomp.Docker().Resolve(host)
	if err != nil {
		return nil, fmt.Errorf("system call filter: %w", err)
	}
	n, err := endpoints(p.Network)
	if err != nil {
		return nil, err
	}
	l := f.OCI()
	denied := slices.Clone(p.Syscalls.Deny)
	if p.Process.Ptrace == "none" {
		denied = append(denied, intoProcesses...)
	}
	// What is denied stays so, whatever list allows it too.
	allowed := slices.DeleteFunc(slices.Clone(p.Syscalls.Allow), func(n string) bool { return slices.Contains(denied, n) })
	drop(l, denied)
	if len(allowed) > 0 {
		drop(l, allowed) // an unconditional rule replaces conditional ones
		l.Syscalls = append(l.Syscalls, seccomp.LinuxSyscall{Names: allowed, Action: "SCMP_ACT_ALLOW"})
	}
	if p.Network != nil {
		if err := onlyFamilies(l, p.Network.Families, n, denied); err != nil {
			return nil, err
		}
	}
	if err := refuseUses(l, p.Syscalls.DenyUses); err != nil {
		return nil, fmt.Errorf("system call filter: %w", err)
	}
	return l, nil
}

// onlyFamilies allows sockets of the families alone, with the arguments that n
// leaves, unless socket is denied as a whole.
func onlyFamilies(l *seccomp.LinuxSeccomp, names []string, n network, denied []string) error {
	// The arguments of socketcall are in memory, where no filter sees them.
	drop(l, []string{"socket", "socketcall"})
	if slices.Contains(denied, "socket") {
		return nil
	}
	for _, name := range names {
		number, ok := families[name]
		if !ok {
			return fmt.Errorf("network: family %q: %w: %w", name, ErrFamily, ErrMissing)
		}
		for _, args := range sockets(name, n) {
			l.Syscalls = append(l.Syscalls, seccomp.LinuxSyscall{
				Names: []string{"socket"}, Action: "SCMP_ACT_ALLOW",
				Args: append([]seccomp.LinuxSeccompArg{{Index: 0, Value: number, Op: "SCMP_CMP_EQ"}}, args...),
			})
		}
	}
	return nil
}

// intoProcesses are the calls that look into other processes or change them. The kernel asks the
// same of each, so denying one alone denies nothing.
//
// Source: kernel/ptrace.c, ptrace_may_access and its callers with a call of their own.
var intoProcesses = []string{"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"}

// Numbers of socket(2).
//
// Source: include/linux/net.h; include/uapi/linux/in.h.
const (
	socketTypeMask = 0xf
	sockStream     = 1
	sockDgram      = 2
	protoTCP       = 6
	protoUDP       = 17
)

// sockets are the sockets of a family that can be made, as conditions on the type and protocol;
// one empty list for all. Landlock holds ports of TCP and UDP. MPTCP, SCTP, DCCP and raw sockets pass
// it, so where endpoints are restricted there are none.
func sockets(family string, n network) [][]seccomp.LinuxSeccompArg {
	if n.free() || family != "inet" && family != "inet6" {
		return [][]seccomp.LinuxSeccompArg{nil}
	}
	var out [][]seccomp.LinuxSeccompArg
	add := func(kind, proto uint64) {
		for _, p := range []uint64{0, proto} {
			out = append(out, []seccomp.LinuxSeccompArg{
				{Index: 1, Value: socketTypeMask, ValueTwo: kind, Op: "SCMP_CMP_MASKED_EQ"},
				{Index: 2, Value: p, Op: "SCMP_CMP_EQ"},
			})
		}
	}
	// A TCP socket that can neither be bound nor connected still answers questions about
	// the network's interfaces.
	add(sockStream, protoTCP)
	if n.udp() {
		add(sockDgram, protoUDP)
	}
	return out
}

// drop takes system calls out of all rules.
func drop(l *seccomp.LinuxSeccomp, names []string) {
	if len(names) == 0 {
		return
	}
	kept := l.Syscalls[:0]
	for _, rule := range l.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(n string) bool { return slices.Contains(names, n) })
		if len(rule.Names) > 0 {
			kept = append(kept, rule)
		}
	}
	l.Syscalls = kept
}

// toSpec is the filter as the runtime specification's Go type.
func toSpec(l *seccomp.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	var out specs.LinuxSeccomp
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, err
	}
	return &out, nil
}
