// SPDX-License-Identifier: Apache-2.0

package apparmor

import "github.com/palisade-sec/palisade/diag"

// Class is a mediation class of the kernel's policy database.
//
// Source: security/apparmor/include/apparmor.h, AA_CLASS_*.
type Class uint8

// The classes that rules belong to. Rules of classes that the kernel does not
// look up by class byte (capability, rlimit, all) have pseudo classes above
// 0x80.
const (
	ClassFile        Class = 2
	ClassNetwork     Class = 4
	ClassMount       Class = 7
	ClassPtrace      Class = 9
	ClassSignal      Class = 10
	ClassXmatch      Class = 11
	ClassNetV8       Class = 14
	ClassNetV9       Class = 15
	ClassLabel       Class = 16
	ClassPosixMqueue Class = 17
	ClassSysvMqueue  Class = 18
	ClassUserns      Class = 21
	ClassIOUring     Class = 22
	ClassNetV9Skb    Class = 30
	ClassDBus        Class = 32

	ClassUnix          Class = 0x81 // unix rules: NetV7, V8 or V9 by feature
	ClassMqueue        Class = 0x82 // posix and sysv
	ClassCapability    Class = 0x83
	ClassRlimit        Class = 0x84
	ClassChangeProfile Class = 0x85
)

// Policy is what a file and its includes say, resolved: nothing in it needs
// looking up any more.
type Policy struct {
	// Profiles are all profiles, every parent before its hats and children,
	// each level sorted by namespace and name as the parser emits them.
	Profiles []*ResolvedProfile
	// ABI is the feature set that the policy declared with abi, or the default
	// where it declared none (ABIDeclared false).
	ABI         *Features
	ABIDeclared bool
	// Files are all files that took part, the first one first, for the
	// rendering of diagnostics.
	Files []*File
}

// ProfileMode is what the kernel does where the profile does not allow.
type ProfileMode uint8

// The profile modes. Prompt is the kernel's user mode.
const (
	ProfileUnspecified ProfileMode = iota // as enforce
	ProfileEnforce
	ProfileComplain
	ProfileKill
	ProfileUnconfined
	ProfilePrompt
	ProfileDefaultAllow // 4.1+: encoded as unconfined
)

func (m ProfileMode) String() string {
	return [...]string{"", "enforce", "complain", "kill", "unconfined", "prompt", "default_allow"}[m%7]
}

// Path flags of a profile.
//
// Source: security/apparmor/include/policy.h, PATH_*.
const (
	PathDelegateDeleted   uint32 = 0x8000
	PathMediateDeleted    uint32 = 0x10000
	PathAttachDisconn     uint32 = 0x4
	PathChrootRelative    uint32 = 0x8
	PathChrootAttach      uint32 = 0x10
	PathIPCAttach         uint32 = 0x20
	pathNamespaceRelative uint32 = 1 << 24 // the four below only exclude their opposites
	pathNoAttach          uint32 = 1 << 25
	pathChrootNoAttach    uint32 = 1 << 26
)

// ProfileFlags are the flags of a profile.
type ProfileFlags struct {
	Mode             ProfileMode
	Audit            bool
	Hat              bool
	Debug            bool
	Interruptible    bool
	Path             uint32 // Path* bits
	DisconnectedPath string // attach_disconnected.path, no trailing /
	DisconnectedIPC  string
	KillSignal       int // 0 when not given
	Error            int // errno, 0 when not given
}

// Xattr is one extended attribute that an attachment asks for.
type Xattr struct {
	Name  string
	Value string // a glob
}

// Capabilities are the four sets of capabilities of a profile; bit n is
// capability n.
type Capabilities struct {
	Allow, Audit, Deny, Quiet uint64
}

// RlimitInfinity is no limit.
const RlimitInfinity = ^uint64(0)

// ResolvedProfile is one profile as the kernel will know it.
type ResolvedProfile struct {
	Namespace string
	// Name is the full name, "parent//child" for hats and children. Variables
	// are expanded; the name is no glob.
	Name  string
	Local string // the part after the last //, "child"
	// Parent is nil for a profile at the top.
	Parent *ResolvedProfile
	// Attachment is the glob of executables, "" where the profile attaches to
	// none. AltNames are more of them, made by aliases.
	Attachment string
	AltNames   []string
	Xattrs     []Xattr
	Identities []string
	Flags      ProfileFlags
	Caps       Capabilities
	// Rlimits maps RLIMIT_* to its limit.
	Rlimits map[int]uint64
	// Rules are in source order, implied ones (Implied) at their end. The index
	// of a rule is its identity within the profile.
	Rules []*ResolvedRule
	// PromptRules tells that a prompt rule is among them.
	PromptRules bool
	Decl        *Profile
	// Via are the include statements that lead to Decl, the outermost first.
	Via []diag.Span
}

// FullName is the name with its namespace, as the parser prints it.
func (p *ResolvedProfile) FullName() string {
	if p.Namespace != "" {
		return ":" + p.Namespace + "://" + p.Name
	}
	return p.Name
}

// Audit says when an access that a rule names is logged.
type Audit uint8

// The audit states of a rule: a denied access is logged unless the rule is
// quiet, an allowed one only when it is forced.
const (
	AuditDefault Audit = iota
	AuditForce         // audit, or the audit of "audit deny": log
	AuditQuiet         // deny without audit: do not log
)

// ResolvedRule is one rule of a profile, its variables expanded and its
// prefixes, with those of the blocks around it, applied.
type ResolvedRule struct {
	ID       int // index in ResolvedProfile.Rules
	Priority int
	Audit    Audit
	Mode     Mode // ModeUnspecified is resolved to ModeAllow
	Owner    Owner
	Body     Body
	// Source is the rule as written; nil for an implied rule that nothing in
	// the text stands for.
	Source Rule
	Span   diag.Span
	// Via are the include statements that lead to Source, the outermost first.
	Via []diag.Span
	// Implied rules are not written: they follow from others (change_profile and
	// hats need /proc/*/attr, "network unix" makes a unix rule, "all" makes one
	// rule of each class).
	Implied bool
	// Alias tells that an alias made the rule out of the one before it.
	Alias bool
}

// Body is what a resolved rule grants: *FileBody, *ChangeProfileBody,
// *NetworkBody, *UnixBody, *DBusBody, *SignalBody, *PtraceBody, *MountBody,
// *PivotRootBody, *MqueueBody, *IOUringBody, *UsernsBody, *CapabilityBody.
type Body interface{ Class() Class }

// File permission bits as rules name them.
//
// Source: parser/immunix.h.
const (
	MayExec   uint32 = 1 << 0
	MayWrite  uint32 = 1 << 1 // always with MayAppend
	MayRead   uint32 = 1 << 2
	MayAppend uint32 = 1 << 3
	MayLink   uint32 = 1 << 4
	MayLock   uint32 = 1 << 5
	MayMmap   uint32 = 1 << 6
)

// ExecKind is where an exec goes.
type ExecKind uint8

// The exec transitions.
const (
	ExecNone       ExecKind = iota // a deny rule's bare x, or no MayExec
	ExecInherit                    // ix
	ExecUnconfined                 // ux
	ExecProfile                    // px
	ExecChild                      // cx
)

// Exec is an exec transition.
type Exec struct {
	Kind ExecKind
	// FallbackInherit and FallbackUnconfined say what happens where the profile
	// that Profile or Child asks for does not exist: pix, pux, cix, cux.
	FallbackInherit    bool
	FallbackUnconfined bool
	// Unsafe keeps the environment: ux, px, cx; not Ux, Px, Cx.
	Unsafe bool
	// Target is the profile (or stack, "&name") after ->; for Child it already
	// is "parent//child". "" where the executable's name decides.
	Target string
}

// FileBody grants access to the paths that a glob matches.
type FileBody struct {
	Path  string // glob
	Perms uint32 // May* bits
	Exec  Exec
	// LinkTarget is the glob of a link's target; "" is any ("/**"), where Perms
	// has MayLink. Subset asks that the target's permissions be no fewer.
	LinkTarget string
	Subset     bool
}

// Class implements [Body].
func (*FileBody) Class() Class { return ClassFile }

// ChangeProfileBody lets a task change its profile.
type ChangeProfileBody struct {
	Target string // glob of labels, "**" for any
	Exec   string // glob of the executable at which the change may happen, "" any time
	Unsafe bool   // unsafe: keep the environment on exec
	Safe   bool   // safe was written
}

// Class implements [Body].
func (*ChangeProfileBody) Class() Class { return ClassChangeProfile }

// Network permissions.
//
// Source: parser/network.h, AA_NET_*.
const (
	NetSend     uint32 = 0x0002
	NetReceive  uint32 = 0x0004
	NetCreate   uint32 = 0x0010
	NetShutdown uint32 = 0x0020
	NetConnect  uint32 = 0x0040
	NetSetattr  uint32 = 0x0100
	NetGetattr  uint32 = 0x0200
	NetAccept   uint32 = 0x00100000
	NetBind     uint32 = 0x00200000
	NetListen   uint32 = 0x00400000
	NetSetopt   uint32 = 0x01000000
	NetGetopt   uint32 = 0x02000000

	// NetAll are all that a rule can name.
	NetAll = NetSend | NetReceive | NetCreate | NetShutdown | NetConnect | NetSetattr |
		NetGetattr | NetAccept | NetBind | NetListen | NetSetopt | NetGetopt
)

// NetMatch is one address family with the types and protocols that a rule
// grants of it.
type NetMatch struct {
	Family uint16
	// Types is a mask of 1<<SOCK_*, or AnyType. Protocol is a mask too, of which
	// the bits above 16 mean any.
	Types    uint32
	Protocol uint32
}

// AnyType is every socket type.
const AnyType = ^uint32(0)

// InetCond are the conditions of an inet rule on one end.
type InetCond struct {
	// IP is 4 or 16 bytes; nil when any. IPNone is ip=none.
	IP     []byte
	IPNone bool
	// From and To are the ports where HasPort.
	HasPort   bool
	From, To  uint16
	Interface string // glob; "" any
	Label     string // glob; "" any. Only the local end; SetLabel with :=
	SetLabel  bool
}

// IsZero tells whether there is no condition.
func (c InetCond) IsZero() bool {
	return c.IP == nil && !c.IPNone && !c.HasPort && c.Interface == "" && c.Label == ""
}

// NetworkBody grants sockets.
type NetworkBody struct {
	Perms uint32 // Net* bits
	// All tells that the rule names no family: Matches then holds every family
	// number with AnyType (or inet and inet6 in detail where there are conditions).
	All         bool
	Matches     []NetMatch
	Local, Peer InetCond
}

// Class implements [Body].
func (*NetworkBody) Class() Class { return ClassNetwork }

// Opt is a value that may be absent.
type Opt struct {
	Value string
	Set   bool
}

// UnixBody grants unix sockets.
type UnixBody struct {
	Perms uint32 // Net* bits
	// Type is SOCK_*, -1 when any.
	Type            int
	Addr, PeerAddr  Opt // "@abstract" glob, "none" (anonymous), "auto"
	Label           Opt
	PeerLabel       Opt
	FromNetworkRule bool // implied by a network rule, which covers old kernels already
}

// Class implements [Body].
func (*UnixBody) Class() Class { return ClassUnix }

// DBus permissions.
const (
	DBusSend      uint32 = 0x02
	DBusReceive   uint32 = 0x04
	DBusEavesdrop uint32 = 0x20
	DBusBind      uint32 = 0x40
)

// DBusBody grants messages and names on a bus.
type DBusBody struct {
	Perms                                         uint32
	Bus, Name, PeerLabel, Path, Interface, Member Opt
}

// Class implements [Body].
func (*DBusBody) Class() Class { return ClassDBus }

// Signal permissions.
const (
	SignalSend    uint32 = 0x02
	SignalReceive uint32 = 0x04
)

// SignalBody grants signals. Signals are the kernel's AppArmor numbers
// (hup 1 … unused 34, exists 35, rtmin+n 128+n), sorted; none means any.
type SignalBody struct {
	Perms   uint32
	Signals []int
	Peer    Opt
}

// Class implements [Body].
func (*SignalBody) Class() Class { return ClassSignal }

// Ptrace permissions.
const (
	PtraceTrace    uint32 = 0x02
	PtraceRead     uint32 = 0x04
	PtraceTracedBy uint32 = 0x08
	PtraceReadBy   uint32 = 0x10
)

// PtraceBody grants tracing.
type PtraceBody struct {
	Perms uint32
	Peer  Opt
}

// Class implements [Body].
func (*PtraceBody) Class() Class { return ClassPtrace }

// Mount permissions.
const (
	MayPivotRoot uint32 = 1
	MayMount     uint32 = 2
	MayUmount    uint32 = 4
)

// MountBody grants mounts (Perms MayMount; remount is a flag) or unmounts
// (Perms MayUmount, MountPoint only).
type MountBody struct {
	Perms      uint32
	MountPoint Opt
	Device     Opt
	FSTypes    []string
	// Flags are the alternatives of options=(…), one mask each; OptFlags those
	// of options in (…). Neither is empty. MS_* bits.
	Flags, OptFlags []uint32
}

// Class implements [Body].
func (*MountBody) Class() Class { return ClassMount }

// PivotRootBody grants pivot_root.
type PivotRootBody struct {
	NewRoot, OldRoot Opt
	Target           string // profile
}

// Class implements [Body].
func (*PivotRootBody) Class() Class { return ClassMount }

// Message queue permissions.
const (
	MqueueWrite   uint32 = 0x0002
	MqueueRead    uint32 = 0x0004
	MqueueCreate  uint32 = 0x0010
	MqueueDelete  uint32 = 0x0020
	MqueueOpen    uint32 = 0x0040
	MqueueSetattr uint32 = 0x0100
	MqueueGetattr uint32 = 0x0200
)

// MqueueType is the kind of message queue.
type MqueueType uint8

// The kinds of message queues.
const (
	MqueueAny MqueueType = iota
	MqueuePosix
	MqueueSysv
)

// MqueueBody grants message queues.
type MqueueBody struct {
	Perms       uint32
	Type        MqueueType
	Name, Label Opt
}

// Class implements [Body].
func (*MqueueBody) Class() Class { return ClassMqueue }

// io_uring permissions.
const (
	IOUringOverrideCreds uint32 = 0x08
	IOUringSQPoll        uint32 = 0x10
)

// IOUringBody grants io_uring.
type IOUringBody struct {
	Perms uint32
	Label Opt
}

// Class implements [Body].
func (*IOUringBody) Class() Class { return ClassIOUring }

// UsernsCreate is the permission of user namespaces.
const UsernsCreate uint32 = 8

// UsernsBody grants the making of user namespaces.
type UsernsBody struct{ Perms uint32 }

// Class implements [Body].
func (*UsernsBody) Class() Class { return ClassUserns }

// CapabilityBody grants capabilities; [ResolvedProfile].Caps already has them.
type CapabilityBody struct{ Mask uint64 }

// Class implements [Body].
func (*CapabilityBody) Class() Class { return ClassCapability }
