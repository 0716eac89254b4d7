// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// MaxABI is the newest version of the interface that this package knows.
// A kernel of a later version has all its rights.
const MaxABI = 10

// MaxLayers is how many domains a process can be in at once.
//
// Source: security/landlock/limits.h, LANDLOCK_MAX_NUM_LAYERS.
const MaxLayers = 16

// AccessFS is a set of rights on files, in the kernel's bits.
type AccessFS uint64

// The rights on files.
//
// Source: include/uapi/linux/landlock.h.
const (
	Execute AccessFS = 1 << iota
	WriteFile
	ReadFile
	ReadDir
	RemoveDir
	RemoveFile
	MakeChar
	MakeDir
	MakeReg
	MakeSock
	MakeFifo
	MakeBlock
	MakeSym
	Refer       // ABI 2: rename and link between folders
	Truncate    // ABI 3
	IoctlDev    // ABI 5: ioctl(2) on character and block devices
	ResolveUnix // ABI 9: connect to a socket by its path
)

// AccessNet is a set of rights on ports, in the kernel's bits.
type AccessNet uint64

// The rights on ports.
const (
	BindTCP        AccessNet = 1 << iota // ABI 4
	ConnectTCP                           // ABI 4
	BindUDP                              // ABI 10: bind(2), and the port that the first datagram takes
	ConnectSendUDP                       // ABI 10: connect(2), and sendto(2) with an address
)

// Scope is a set of ways to reach processes outside of a domain, in the kernel's bits.
type Scope uint64

// The scopes, both of ABI 6.
const (
	AbstractUnixSocket Scope = 1 << iota
	Signal
)

// Flags are the flags of landlock_restrict_self(2).
type Flags uint32

// The flags. The first three say which denials are logged; they decide nothing.
const (
	LogSameExecOff   Flags = 1 << iota // ABI 7: not those of the program that enters the domain
	LogNewExecOn                       // ABI 7: those of the programs that it executes
	LogSubdomainsOff                   // ABI 7: not those of domains inside this one
	TSync                              // ABI 8: all threads of the process enter
)

// Kind says what a right is about.
type Kind uint8

// The kinds.
const (
	KindFS Kind = iota
	KindNet
	KindScope
	KindFlag
)

// Right describes one right, scope or flag.
type Right struct {
	// Name is the kernel's in audit records: fs.read_file, net.bind_tcp, scope.signal.
	// Flags, which no record names, are spelled likewise: restrict_self.tsync.
	Name string
	Kind Kind
	// Bit is the kernel's.
	Bit uint64
	// ABI is the first version that has it, Kernel the first release with that
	// version. Distributions bring newer versions to older kernels.
	ABI    int
	Kernel string
	// File reports that a rule on a file can grant it, not only one on a folder.
	File bool
}

// rights is the one table of rights.
//
// Source: security/landlock/audit.c, fs_access_strings and net_access_strings;
// security/landlock/fs.c, ACCESS_FILE; Documentation/userspace-api/landlock.rst,
// "Previous limitations"; security/landlock/syscalls.c, landlock_abi_version.
var rights = []Right{
	{"fs.execute", KindFS, uint64(Execute), 1, "5.13", true},
	{"fs.write_file", KindFS, uint64(WriteFile), 1, "5.13", true},
	{"fs.read_file", KindFS, uint64(ReadFile), 1, "5.13", true},
	{"fs.read_dir", KindFS, uint64(ReadDir), 1, "5.13", false},
	{"fs.remove_dir", KindFS, uint64(RemoveDir), 1, "5.13", false},
	{"fs.remove_file", KindFS, uint64(RemoveFile), 1, "5.13", false},
	{"fs.make_char", KindFS, uint64(MakeChar), 1, "5.13", false},
	{"fs.make_dir", KindFS, uint64(MakeDir), 1, "5.13", false},
	{"fs.make_reg", KindFS, uint64(MakeReg), 1, "5.13", false},
	{"fs.make_sock", KindFS, uint64(MakeSock), 1, "5.13", false},
	{"fs.make_fifo", KindFS, uint64(MakeFifo), 1, "5.13", false},
	{"fs.make_block", KindFS, uint64(MakeBlock), 1, "5.13", false},
	{"fs.make_sym", KindFS, uint64(MakeSym), 1, "5.13", false},
	{"fs.refer", KindFS, uint64(Refer), 2, "5.19", false},
	{"fs.truncate", KindFS, uint64(Truncate), 3, "6.2", true},
	{"fs.ioctl_dev", KindFS, uint64(IoctlDev), 5, "6.10", true},
	{"fs.resolve_unix", KindFS, uint64(ResolveUnix), 9, "7.1", true},
	{"net.bind_tcp", KindNet, uint64(BindTCP), 4, "6.7", false},
	{"net.connect_tcp", KindNet, uint64(ConnectTCP), 4, "6.7", false},
	{"net.bind_udp", KindNet, uint64(BindUDP), 10, "7.2", false},
	{"net.connect_send_udp", KindNet, uint64(ConnectSendUDP), 10, "7.2", false},
	{"scope.abstract_unix_socket", KindScope, uint64(AbstractUnixSocket), 6, "6.12", false},
	{"scope.signal", KindScope, uint64(Signal), 6, "6.12", false},
	{"restrict_self.log_same_exec_off", KindFlag, uint64(LogSameExecOff), 7, "6.15", false},
	{"restrict_self.log_new_exec_on", KindFlag, uint64(LogNewExecOn), 7, "6.15", false},
	{"restrict_self.log_subdomains_off", KindFlag, uint64(LogSubdomainsOff), 7, "6.15", false},
	{"restrict_self.tsync", KindFlag, uint64(TSync), 8, "7.0", false},
}

// Names of what every domain denies and no rule allows.
const (
	// ChangeTopology is mount(2) and its like, denied by each domain that handles
	// a right on files.
	ChangeTopology = "fs.change_topology"
	// Ptrace is looking into a process that is not in the same domain or one
	// inside it, denied by each domain.
	Ptrace = "ptrace"
)

// Rights lists every right, scope and flag, in the kernel's order.
func Rights() []Right { return slices.Clone(rights) }

// LookupRight finds a right by its name.
func LookupRight(name string) (Right, bool) {
	i := slices.IndexFunc(rights, func(r Right) bool { return r.Name == name })
	if i < 0 {
		return Right{}, false
	}
	return rights[i], true
}

// upTo is the set of rights of a kind that a version has. Negative versions have none.
func upTo(kind Kind, abi int) (set uint64) {
	for _, r := range rights {
		if r.Kind == kind && r.ABI <= abi {
			set |= r.Bit
		}
	}
	return set
}

// FSAt returns the rights on files that a version of the interface has.
func FSAt(abi int) AccessFS { return AccessFS(upTo(KindFS, abi)) }

// NetAt returns the rights on ports that a version of the interface has.
func NetAt(abi int) AccessNet { return AccessNet(upTo(KindNet, abi)) }

// ScopeAt returns the scopes that a version of the interface has.
func ScopeAt(abi int) Scope { return Scope(upTo(KindScope, abi)) }

// FlagsAt returns the flags that a version of the interface has.
func FlagsAt(abi int) Flags { return Flags(upTo(KindFlag, abi)) }

// AllFS, AllNet and AllScopes are what the newest version has.
var (
	AllFS     = FSAt(MaxABI)
	AllNet    = NetAt(MaxABI)
	AllScopes = ScopeAt(MaxABI)
)

// FileRights are the rights that a rule on a file can grant. The kernel refuses a
// rule that grants a file any other.
var FileRights = func() (a AccessFS) {
	for _, r := range rights {
		if r.File {
			a |= AccessFS(r.Bit)
		}
	}
	return a
}()

// Names returns the names of the rights in a, unknown bits in hexadecimal.
func (a AccessFS) Names() []string { return names(KindFS, uint64(a)) }

// Names returns the names of the rights in a, unknown bits in hexadecimal.
func (a AccessNet) Names() []string { return names(KindNet, uint64(a)) }

// Names returns the names of the scopes in s, unknown bits in hexadecimal.
func (s Scope) Names() []string { return names(KindScope, uint64(s)) }

// Names returns the names of the flags in f, unknown bits in hexadecimal.
func (f Flags) Names() []string { return names(KindFlag, uint64(f)) }

func (a AccessFS) String() string  { return join(a.Names()) }
func (a AccessNet) String() string { return join(a.Names()) }
func (s Scope) String() string     { return join(s.Names()) }
func (f Flags) String() string     { return join(f.Names()) }

// join writes a list as audit records do.
func join(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

func names(kind Kind, set uint64) (out []string) {
	for _, r := range rights {
		if r.Kind == kind && set&r.Bit != 0 {
			out = append(out, r.Name)
			set &^= r.Bit
		}
	}
	for ; set != 0; set &= set - 1 {
		out = append(out, fmt.Sprintf("%#x", uint64(1)<<bits.TrailingZeros64(set)))
	}
	return out
}

// ParseAccessFS reads names as [AccessFS.String] writes them.
func ParseAccessFS(s string) (AccessFS, error) {
	set, err := parse(KindFS, s)
	return AccessFS(set), err
}

// ParseAccessNet reads names as [AccessNet.String] writes them.
func ParseAccessNet(s string) (AccessNet, error) {
	set, err := parse(KindNet, s)
	return AccessNet(set), err
}

// ParseScope reads names as [Scope.String] writes them.
func ParseScope(s string) (Scope, error) {
	set, err := parse(KindScope, s)
	return Scope(set), err
}

func parse(kind Kind, s string) (set uint64, err error) {
	if s == "none" {
		return 0, nil
	}
	for name := range strings.SplitSeq(s, ",") {
		r, ok := LookupRight(name)
		if !ok || r.Kind != kind {
			return 0, fmt.Errorf("%w: %q", ErrRight, name)
		}
		set |= r.Bit
	}
	return set, nil
}
