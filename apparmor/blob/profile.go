// SPDX-License-Identifier: Apache-2.0

package blob

import "github.com/palisade-sec/palisade/apparmor/dfa"

// Mode is what the kernel does with an access that a profile does not allow.
type Mode uint32

// The modes. Source: security/apparmor/include/policy_unpack.h, PACKED_MODE_*.
const (
	Enforce Mode = iota
	Complain
	Kill
	Unconfined
	User
)

var modeNames = [...]string{"enforce", "complain", "kill", "unconfined", "prompt"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// FlagHat marks a profile that change_hat may enter.
const FlagHat = 1

// Profile is one profile of a policy stream, in the stream's terms.
type Profile struct {
	Version   uint32 // of the stream's header: ABI | complain<<11 | parser<<12 | policy<<20
	Namespace string
	Name      string
	Rename    string
	Attach    string

	XMatch    *Automaton // nil: the profile attaches by its name alone
	XMatchLen uint32     // length of the shortest match; the longest wins

	Disconnected    string
	DisconnectedIPC string
	KillSignal      uint32 // 0: not given
	Error           uint32 // errno, 0: not given

	Flags     uint32
	Mode      Mode
	Audit     uint32
	PathFlags uint32
	// HasPathFlags is false where the stream leaves the kernel's default.
	HasPathFlags bool

	Caps       Caps
	Identities []string
	Xattrs     []string
	// RlimitMask has a bit for each entry of Rlimits that applies.
	RlimitMask uint32
	Rlimits    []uint64
	Secmarks   []Secmark
	// NetAF holds, for kernels that do not mediate sockets by policy automaton,
	// masks of socket types for each address family: allow, audit, quiet.
	NetAF [][3]uint16

	PolicyDB *Automaton
	File     *Automaton
	Data     []DataItem
}

// Caps are sets of capabilities; bit n is capability n.
type Caps struct {
	Allow, Audit, Quiet, Reserved uint64
	Extended                      uint64
	HasExtended                   bool
}

// Secmark is one rule on packet marks.
type Secmark struct {
	Audit, Deny uint8
	Label       string
}

// DataItem is one entry of the data that user space attaches to a profile.
type DataItem struct {
	Key   string
	Value []byte
}

// Automaton is an automaton with what its accepting states mean.
type Automaton struct {
	Table *dfa.Table
	// Perms is the permission table of the new encoding, nil in the old one.
	Perms []Perms
	// PermsVersion is the value of "permsv": 3 makes entries of the file
	// automaton come in pairs (owner, other), as all known writers do.
	PermsVersion uint32
	// Start and FileStart are start states other than 1, 0 when not given.
	Start, FileStart uint32
	Tags             []string
	// XTable holds the names of exec transitions. A name with a namespace is
	// ":ns:profile".
	XTable []string
}

// Perms is one entry of a permission table, in the kernel's bits.
type Perms struct {
	Allow, Deny, Subtree, Cond, Kill, Complain, Prompt, Audit, Quiet, Hide uint32
	XIndex, Tag, Label                                                     uint32
}

// Permission bits of the kernel. Source: security/apparmor/include/perms.h.
const (
	MayExec          = 0x0001
	MayWrite         = 0x0002
	MayRead          = 0x0004
	MayAppend        = 0x0008
	MayCreate        = 0x0010
	MayDelete        = 0x0020
	MayOpen          = 0x0040
	MayRename        = 0x0080
	MaySetattr       = 0x0100
	MayGetattr       = 0x0200
	MaySetcred       = 0x0400
	MayGetcred       = 0x0800
	MayChmod         = 0x1000
	MayChown         = 0x2000
	MayChgrp         = 0x4000
	MayLock          = 0x8000
	MayMmap          = 0x00010000
	MayMprot         = 0x00020000
	MayLink          = 0x00040000
	MaySnapshot      = 0x00080000
	LinkSubset       = MayLock // on the second half of a link pair
	ContMatch        = 0x08000000
	MayStack         = 0x10000000
	MayOnexec        = 0x20000000
	MayChangeProfile = 0x40000000
	MayChangehat     = 0x80000000
)

// Exec index bits. Source: security/apparmor/include/file.h, AA_X_*.
const (
	XIndexMask  = 0x00ffffff
	XTypeMask   = 0x0c000000
	XName       = 0x04000000
	XTable      = 0x08000000
	XUnsafe     = 0x10000000
	XChild      = 0x20000000
	XInherit    = 0x40000000
	XUnconfined = 0x80000000
)

// mapXIndex turns the packed exec mode into an exec index.
func mapXIndex(old uint32) uint32 {
	var x uint32
	if old&0x100 != 0 {
		x |= XUnsafe
	}
	if old&0x200 != 0 {
		x |= XInherit
	}
	if old&0x80 != 0 {
		x |= XUnconfined
	}
	switch i := old >> 10 & 0xf; i {
	case 0:
	case 1:
		x |= XUnconfined
	case 2:
		x |= XName
	case 3:
		x |= XName | XChild
	default:
		x |= XTable | (i - 4)
	}
	return x
}

func mapFile(old uint32) uint32 {
	p := old & 0xf
	if old&MayRead != 0 {
		p |= MayGetattr | MayOpen
	}
	if old&MayWrite != 0 {
		p |= MaySetattr | MayCreate | MayDelete | MayChmod | MayChown | MayOpen
	}
	if old&0x10 != 0 {
		p |= MayLink
	}
	if old&0x20 != 0 {
		p |= MayLock | LinkSubset
	}
	if old&0x40 != 0 {
		p |= MayMmap
	}
	return p
}

// FilePerms turns packed accept values of a file automaton into what the
// kernel makes of them for the owner of a file and for others.
// Source: security/apparmor/policy_compat.c, compute_fperms.
func FilePerms(accept, accept2 uint32) (owner, other Perms) {
	shared := uint32(MayGetattr)
	if accept&0x80000000 != 0 {
		shared |= MayChangeProfile
	}
	if accept&0x40000000 != 0 {
		shared |= MayOnexec
	}
	owner = Perms{
		Allow: mapFile(accept&0x7f) | shared, Audit: mapFile(accept2 & 0x7f),
		Quiet: mapFile(accept2 >> 7 & 0x7f), XIndex: mapXIndex(accept & 0x3fff),
	}
	other = Perms{
		Allow: mapFile(accept>>14&0x7f) | shared, Audit: mapFile(accept2 >> 14 & 0x7f),
		Quiet: mapFile(accept2 >> 21 & 0x7f), XIndex: mapXIndex(accept >> 14 & 0x3fff),
	}
	return owner, other
}

func mapOther(x uint32) uint32 { return x&0x3<<8 | x&0x1c<<18 | x&0x60<<19 }

// PolicyPerms turns packed accept values of a policydb automaton into what the
// kernel makes of them, for interface versions up to 8. Kernels from 6.2 on add
// MayLock to every entry of the policydb; it decides nothing there but whether a
// file lock on a socket passes.
// Source: security/apparmor/policy_compat.c, compute_perms_entry.
func PolicyPerms(accept, accept2 uint32) Perms {
	p := Perms{
		Allow: accept&0x7f | accept&0x80000000 | mapOther(accept>>14&0x7f),
		Audit: accept2&0x7f | mapOther(accept2>>14&0x7f),
		Quiet: accept2>>7&0x7f | mapOther(accept2>>21&0x7f),
	}
	return p
}

// Kind says what an automaton decides on.
type Kind uint8

// The automata of a profile.
const (
	KindXMatch Kind = iota
	KindPolicy
	KindFile
)

// Lookup gives the permissions of state s as the kernel would see them; owner
// matters for a file automaton only.
func (a *Automaton) Lookup(kind Kind, s uint32, owner bool) Perms {
	var a1, a2 uint32
	if a.Table.Accept != nil {
		a1 = a.Table.Accept[s]
	}
	if a.Table.Accept2 != nil {
		a2 = a.Table.Accept2[s]
	}
	if a.Perms != nil {
		i := int(a1)
		if kind == KindFile && !owner {
			i++
		}
		if i >= len(a.Perms) {
			return Perms{}
		}
		return a.Perms[i]
	}
	switch kind {
	case KindXMatch:
		return Perms{Allow: a1&0x7f | a1&0x80000000}
	case KindPolicy:
		if s == dfa.Trap {
			return Perms{}
		}
		return PolicyPerms(a1, a2)
	default:
		own, oth := FilePerms(a1, a2)
		if owner {
			return own
		}
		return oth
	}
}
