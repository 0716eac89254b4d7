// SPDX-License-Identifier: Apache-2.0

// Package caps names the Linux capabilities and does arithmetic on sets of
// them.
//
// A [Set] is a value of eight bytes with the bit order of the kernel, so it can
// be compared with ==, used as a map key, and read from the Cap lines of
// /proc/PID/status. Nothing here touches the running kernel, and all functions
// are safe for concurrent use.
//
// Source: include/uapi/linux/capability.h, kernel/capability.c, fs/proc/array.c.
package caps

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Capability is the number that the kernel gives to one capability, 0 to 63.
type Capability uint8

// The capabilities of Linux, in the kernel's order.
const (
	Chown Capability = iota
	DACOverride
	DACReadSearch
	Fowner
	Fsetid
	Kill
	Setgid
	Setuid
	Setpcap
	LinuxImmutable
	NetBindService
	NetBroadcast
	NetAdmin
	NetRaw
	IPCLock
	IPCOwner
	SysModule
	SysRawio
	SysChroot
	SysPtrace
	SysPacct
	SysAdmin
	SysBoot
	SysNice
	SysResource
	SysTime
	SysTTYConfig
	Mknod
	Lease
	AuditWrite
	AuditControl
	Setfcap
	MACOverride
	MACAdmin
	Syslog
	WakeAlarm
	BlockSuspend
	AuditRead
	Perfmon
	BPF
	CheckpointRestore
)

// Last is the highest capability that this package knows a name for. A newer
// kernel may have more; they are kept in a Set and print as CAP_41 and so on.
const Last = CheckpointRestore

const maxCapability = 63

var names = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL",
	"SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL",
	"SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
	"BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

var byName = func() map[string]Capability {
	m := make(map[string]Capability, len(names))
	for i, name := range names {
		m[name] = Capability(i)
	}
	return m
}()

// ErrUnknown is the error of a name that is no capability.
var ErrUnknown = errors.New("unknown capability")

// String is the name in the spelling of OCI configurations: CAP_SYS_ADMIN.
func (c Capability) String() string {
	if int(c) < len(names) {
		return "CAP_" + names[c]
	}
	return "CAP_" + strconv.Itoa(int(c))
}

// Name is the lower-case name without prefix, as policy files and AppArmor
// profiles spell it: sys_admin.
func (c Capability) Name() string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CAP_"))
}

// Parse reads one name. Case and the prefix CAP_ do not matter. A capability
// that is newer than this package is written as its number: CAP_41. The error
// wraps [ErrUnknown].
func Parse(name string) (Capability, error) {
	short := strings.ToUpper(name)
	short = strings.TrimPrefix(short, "CAP_")
	if c, ok := byName[short]; ok {
		return c, nil
	}
	// strconv alone would also take signs and leading zeros, which would give
	// one capability several spellings.
	if n, err := strconv.ParseUint(short, 10, 8); err == nil && n <= maxCapability && strconv.FormatUint(n, 10) == short {
		return Capability(n), nil
	}
	return 0, fmt.Errorf("parse %q: %w", name, ErrUnknown)
}

// MarshalText writes the OCI spelling.
func (c Capability) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what [Parse] reads.
func (c *Capability) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}

// Set is a set of capabilities: bit n is capability n. The zero value is the
// empty set.
type Set uint64

// Docker is the set that Docker, containerd and CRI-tools give to a container
// by default: fourteen capabilities.
//
// Source: moby daemon/pkg/oci/caps/defaults.go, DefaultCapabilities.
const Docker = Set(1<<Chown | 1<<DACOverride | 1<<Fowner | 1<<Fsetid | 1<<Kill |
	1<<Setgid | 1<<Setuid | 1<<Setpcap | 1<<NetBindService | 1<<NetRaw |
	1<<SysChroot | 1<<Mknod | 1<<AuditWrite | 1<<Setfcap)

// All is every capability that this package has a name for.
const All = Set(1<<(Last+1) - 1)

// Of is the set of the given capabilities.
func Of(list ...Capability) Set {
	var s Set
	for _, c := range list {
		s = s.With(c)
	}
	return s
}

// ParseSet reads a list of names as [Parse] reads each; the name ALL stands
// for [All]. All unknown names are reported at once, joined.
func ParseSet(list []string) (Set, error) {
	var s Set
	var errs []error
	for _, name := range list {
		if strings.EqualFold(name, "ALL") || strings.EqualFold(name, "CAP_ALL") {
			s |= All
			continue
		}
		c, err := Parse(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s = s.With(c)
	}
	return s, errors.Join(errs...)
}

// ParseHex reads the hexadecimal form of the Cap lines in /proc/PID/status.
func ParseHex(s string) (Set, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("parse capability set %q: not a hexadecimal number of 64 bits", s)
	}
	return Set(n), nil
}

// Has tells whether c is in the set.
func (s Set) Has(c Capability) bool { return c <= maxCapability && s>>c&1 == 1 }

// With is the set and c. Numbers above 63 are ignored: the kernel has none.
func (s Set) With(c Capability) Set {
	if c > maxCapability {
		return s
	}
	return s | 1<<c
}

// Without is the set less c.
func (s Set) Without(c Capability) Set {
	if c > maxCapability {
		return s
	}
	return s &^ (1 << c)
}

// Union is what is in s or in t.
func (s Set) Union(t Set) Set { return s | t }

// Intersect is what is in both.
func (s Set) Intersect(t Set) Set { return s & t }

// Minus is what is in s and not in t.
func (s Set) Minus(t Set) Set { return s &^ t }

// SubsetOf tells whether all of s is in t.
func (s Set) SubsetOf(t Set) bool { return s&^t == 0 }

// Len is the number of capabilities in the set.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// List is the members in the kernel's order.
func (s Set) List() []Capability {
	list := make([]Capability, 0, s.Len())
	for rest := uint64(s); rest != 0; rest &= rest - 1 {
		list = append(list, Capability(bits.TrailingZeros64(rest)))
	}
	return list
}

// Names is the members in the kernel's order and the spelling of OCI
// configurations. It is never nil, so that it encodes as [].
func (s Set) Names() []string {
	list := make([]string, 0, s.Len())
	for _, c := range s.List() {
		list = append(list, c.String())
	}
	return list
}

// Hex is the form of the Cap lines in /proc/PID/status: 16 digits.
func (s Set) Hex() string { return fmt.Sprintf("%016x", uint64(s)) }

// String is the lower-case names joined by commas; "none" and "all" stand for
// the empty set and for [All].
func (s Set) String() string {
	switch s {
	case 0:
		return "none"
	case All:
		return "all"
	}
	list := make([]string, 0, s.Len())
	for _, c := range s.List() {
		list = append(list, c.Name())
	}
	return strings.Join(list, ",")
}

// MarshalJSON writes an array of names, as OCI configurations have it.
func (s Set) MarshalJSON() ([]byte, error) { return json.Marshal(s.Names()) }

// UnmarshalJSON reads an array of names as [ParseSet] does.
func (s *Set) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	parsed, err := ParseSet(list)
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
