// SPDX-License-Identifier: Apache-2.0

package policydb

import "iter"

// Versions of the binary policy that can be read and written.
const (
	MinVersion      = 15
	MaxVersion      = 35
	MinWriteVersion = 20
)

// Versions that changed the format.
//
// Source: security/selinux/include/security.h.
const (
	versionBool            = 16 // booleans and conditional rules
	versionIPv6            = 17 // IPv6 nodes
	versionMLS             = 19 // ranges, validatetrans
	versionAvtab           = 20 // compact rules, attributes kept
	versionRangeTrans      = 21 // range_transition names a class
	versionPolcap          = 22 // policy capabilities
	versionPermissive      = 23 // permissive domains
	versionBoundary        = 24 // bounds
	versionFilenameTrans   = 25 // type_transition with a file name
	versionRoleTrans       = 26 // role_transition names a class
	versionObjectDefaults  = 27 // default_user, default_role, default_range
	versionDefaultType     = 28 // default_type
	versionConstraintNames = 29 // the type sets that constraints were written with
	versionXperms          = 30 // extended permissions (SELinux)
	versionXenDeviceTree   = 30 // device tree contexts (Xen)
	versionInfiniband      = 31 // pkeys and end ports
	versionGLBLUB          = 32 // default_range glblub
	versionCompFilename    = 33 // compressed file name transitions
	versionCondXperms      = 34 // extended permissions in conditionals
	versionNeverAudit      = 35 // domains that are never audited
)

// Distinct types for the values of symbols, all from 1 up; 0 is "none".
type (
	TypeID  uint16 // type or attribute
	ClassID uint16
	RoleID  uint32
	UserID  uint32
	BoolID  uint32
	SensID  uint32 // sensitivity
	CatID   uint32 // category
)

// ObjectRole is the value of the role object_r in every policy.
const ObjectRole RoleID = 1

// Target is the platform that enforces the policy.
type Target uint8

const (
	SELinux Target = iota // "SE Linux"
	Xen                   // "XenFlask"
)

func (t Target) String() string {
	if t == Xen {
		return "xen"
	}
	return "selinux"
}

// Config bits of the header.
const (
	ConfigMLS           uint32 = 1 // the policy has levels
	ConfigRejectUnknown uint32 = 2 // do not load when the kernel knows more classes
	ConfigAllowUnknown  uint32 = 4 // allow what the policy does not know
)

// HandleUnknown says what happens to classes and permissions that the kernel
// knows and the policy does not.
type HandleUnknown uint8

const (
	DenyUnknown HandleUnknown = iota
	RejectUnknown
	AllowUnknown
)

func (h HandleUnknown) String() string {
	return [...]string{"deny", "reject", "allow"}[h]
}

// Policy is one binary policy.
type Policy struct {
	Target  Target
	Version uint32
	Config  uint32

	Capabilities Bitmap // bit n is capability n; see CapabilityName
	Permissive   Bitmap // bit v is the type with value v, unlike other bitmaps
	NeverAudit   Bitmap // bit v is the type with value v

	Commons       Table[Common]
	Classes       Table[Class]
	Roles         Table[Role]
	Types         Table[Type]
	Users         Table[User]
	Booleans      Table[Boolean]
	Sensitivities Table[Sensitivity]
	Categories    Table[Category]

	Rules        []Rule // unconditional rules
	Conditionals []Conditional
	// XPermSets holds the extended permissions of rules; see Rule.XPerms.
	XPermSets []XPermSet

	RoleTransitions     []RoleTransition
	RoleAllows          []RoleAllow
	FilenameTransitions []FilenameTransition

	ObjectContexts ObjectContexts
	Genfs          []Genfs

	RangeTransitions []RangeTransition

	// TypeAttributes[v-1] has the attributes of the type with value v, itself
	// included. Before version 20 the file has no such map, and each type only
	// has itself.
	TypeAttributes []Bitmap

	// Trailing is what follows the policy in the file; the kernel ignores it.
	Trailing string

	attributeTypes [][]TypeID // by attribute value, ascending
	offsets        sectionOffsets
}

type sectionOffsets struct{ rules, typeAttributes int }

// MLS reports whether contexts have ranges.
func (p *Policy) MLS() bool { return p.Config&ConfigMLS != 0 }

// HandleUnknown returns the header's setting for unknown classes.
func (p *Policy) HandleUnknown() HandleUnknown {
	switch {
	case p.Config&ConfigAllowUnknown != 0:
		return AllowUnknown
	case p.Config&ConfigRejectUnknown != 0:
		return RejectUnknown
	}
	return DenyUnknown
}

// Symbol is what the entries of all symbol tables have in common.
type Symbol interface {
	EntryName() string
	entryValue() uint32
	isPrimary() bool // false for aliases
}

// Table is a symbol table: entries in the order of the file, found by value and
// by name.
type Table[T Symbol] struct {
	// Prim is the number of primary values: values go from 1 to Prim.
	Prim    uint32
	Entries []T

	byValue []int32 // value-1 → index+1 of the primary entry
	byName  map[string]int32
}

// ByValue returns the primary entry with a value, or nil.
func (t *Table[T]) ByValue(value uint32) *T {
	if value == 0 || uint64(value) > uint64(len(t.byValue)) || t.byValue[value-1] == 0 {
		return nil
	}
	return &t.Entries[t.byValue[value-1]-1]
}

// ByName returns the entry with a name, aliases included, or nil.
func (t *Table[T]) ByName(name string) *T {
	i, ok := t.byName[name]
	if !ok {
		return nil
	}
	return &t.Entries[i]
}

// Name returns the name of the primary entry with a value, or "".
func (t *Table[T]) Name(value uint32) string {
	if e := t.ByValue(value); e != nil {
		return (*e).EntryName()
	}
	return ""
}

// All yields the primary entries in ascending order of their values.
func (t *Table[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, i := range t.byValue {
			if i != 0 && !yield(&t.Entries[i-1]) {
				return
			}
		}
	}
}

// index builds the look-ups; problem reports entries that cannot be found again.
func (t *Table[T]) index(problem func(entry *T, format string, args ...any)) {
	t.byName = make(map[string]int32, len(t.Entries))
	// Values are bounded by Prim, which is bounded by the reader.
	t.byValue = make([]int32, t.Prim)
	for i := range t.Entries {
		e := &t.Entries[i]
		if _, dup := t.byName[(*e).EntryName()]; dup {
			problem(e, "the name %q is there twice", (*e).EntryName())
			continue
		}
		t.byName[(*e).EntryName()] = int32(i)
		v := (*e).entryValue()
		if v == 0 || v > t.Prim {
			problem(e, "%q has the value %d, which is not from 1 to %d", (*e).EntryName(), v, t.Prim)
			continue
		}
		if !(*e).isPrimary() {
			continue
		}
		if t.byValue[v-1] != 0 {
			problem(e, "%q has the value %d, which %q has too", (*e).EntryName(), v, t.Name(v))
			continue
		}
		t.byValue[v-1] = int32(i) + 1
	}
}

// Permission is one permission of a class or common; Value is from 1 to 32, its
// bit in an access vector is Value-1.
type Permission struct {
	Name  string
	Value uint32
}

// Bit returns the permission's bit in an access vector.
func (p Permission) Bit() uint32 { return 1 << (p.Value - 1) }

// Common is a set of permissions that several classes share.
type Common struct {
	Name        string
	Value       uint32
	PermPrim    uint32
	Permissions []Permission
	Offset      int // in the file, bytes
}

// Class is an object class. Its permissions are those of its common, if it has
// one, and its own.
type Class struct {
	Name        string
	CommonName  string // "" without common
	Value       uint32
	PermPrim    uint32       // number of permissions, those of the common included
	Permissions []Permission // its own

	Constraints    []Constraint
	ValidateTrans  []Constraint
	DefaultUser    uint32 // DefaultSource, DefaultTarget or 0
	DefaultRole    uint32
	DefaultType    uint32
	DefaultRange   uint32 // DefaultSourceLow … DefaultGLBLUB or 0
	Offset         int
	permissionName [32]string
}

// ID returns the value as the type that rules use.
func (c *Class) ID() ClassID { return ClassID(c.Value) }

// PermissionName returns the name of the permission with a bit number from 0 to
// 31, or "".
func (c *Class) PermissionName(bit int) string { return c.permissionName[bit&31] }

// PermissionNames returns the names of the permissions in an access vector, in
// the order of their bits. Bits without a name are left out.
func (c *Class) PermissionNames(vector uint32) []string {
	var names []string
	for bit, name := range c.permissionName {
		if vector&(1<<bit) != 0 && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// PermissionMask returns the access vector with a permission's bit, or 0 when
// the class does not have it.
func (c *Class) PermissionMask(name string) uint32 {
	if name == "" {
		return 0
	}
	for bit, n := range c.permissionName {
		if n == name {
			return 1 << bit
		}
	}
	return 0
}

// AllPermissions returns the access vector of all permissions that have a name.
func (c *Class) AllPermissions() uint32 {
	var v uint32
	for bit, name := range c.permissionName {
		if name != "" {
			v |= 1 << bit
		}
	}
	return v
}

// Values of Class.DefaultUser, DefaultRole and DefaultType.
const (
	DefaultSource uint32 = 1
	DefaultTarget uint32 = 2
)

// Values of Class.DefaultRange.
const (
	DefaultSourceLow     uint32 = 1
	DefaultSourceHigh    uint32 = 2
	DefaultSourceLowHigh uint32 = 3
	DefaultTargetLow     uint32 = 4
	DefaultTargetHigh    uint32 = 5
	DefaultTargetLowHigh uint32 = 6
	DefaultGLBLUB        uint32 = 7
)

// Role is a role and the types that it may be with.
type Role struct {
	Name      string
	Value     uint32
	Bounds    RoleID
	Dominates Bitmap // roles
	Types     Bitmap
	Offset    int
}

// Type is a type, an attribute or an alias.
type Type struct {
	Name      string
	Value     uint32
	Attribute bool
	Alias     bool   // another name for the entry whose value it has
	Bounds    TypeID // the type that bounds it, or 0

	Offset     int
	properties uint32 // as in the file
}

// ID returns the value as the type that rules use.
func (t *Type) ID() TypeID { return TypeID(t.Value) }

// User is an SELinux user: the roles and the range that it may have.
type User struct {
	Name         string
	Value        uint32
	Bounds       UserID
	Roles        Bitmap
	Range        Range
	DefaultLevel Level
	Offset       int
}

// Boolean is a switch for conditional rules with its default state.
type Boolean struct {
	Name   string
	Value  uint32
	State  bool
	Offset int
}

// Sensitivity is a sensitivity, or another name for one, with the categories
// that it may have.
type Sensitivity struct {
	Name   string
	Alias  bool
	Level  Level
	Offset int
}

// Category is a category or another name for one.
type Category struct {
	Name   string
	Value  uint32
	Alias  bool
	Offset int
}

// EntryName returns the name of the entry.
func (s Common) EntryName() string  { return s.Name }
func (s Common) entryValue() uint32 { return s.Value }
func (s Common) isPrimary() bool    { return true }

// EntryName returns the name of the entry.
func (s Class) EntryName() string  { return s.Name }
func (s Class) entryValue() uint32 { return s.Value }
func (s Class) isPrimary() bool    { return true }

// EntryName returns the name of the entry.
func (s Role) EntryName() string  { return s.Name }
func (s Role) entryValue() uint32 { return s.Value }
func (s Role) isPrimary() bool    { return true }

// EntryName returns the name of the entry.
func (s Type) EntryName() string  { return s.Name }
func (s Type) entryValue() uint32 { return s.Value }
func (s Type) isPrimary() bool    { return !s.Alias }

// EntryName returns the name of the entry.
func (s User) EntryName() string  { return s.Name }
func (s User) entryValue() uint32 { return s.Value }
func (s User) isPrimary() bool    { return true }

// EntryName returns the name of the entry.
func (s Boolean) EntryName() string  { return s.Name }
func (s Boolean) entryValue() uint32 { return s.Value }
func (s Boolean) isPrimary() bool    { return true }

// EntryName returns the name of the entry.
func (s Sensitivity) EntryName() string  { return s.Name }
func (s Sensitivity) entryValue() uint32 { return uint32(s.Level.Sensitivity) }
func (s Sensitivity) isPrimary() bool    { return !s.Alias }

// EntryName returns the name of the entry.
func (s Category) EntryName() string  { return s.Name }
func (s Category) entryValue() uint32 { return s.Value }
func (s Category) isPrimary() bool    { return !s.Alias }

// Level is a sensitivity and categories, as values of this policy.
type Level struct {
	Sensitivity SensID
	Categories  Bitmap
}

// Range is a low and a high level.
type Range struct {
	Low, High Level

	split bool // both levels are in the file
}

// Context is a context of values.
type Context struct {
	User  UserID
	Role  RoleID
	Type  TypeID
	Range Range
}

// RuleKind is the kind of a rule; exactly one bit is set.
type RuleKind uint16

const (
	Allow          RuleKind = 0x0001
	AuditAllow     RuleKind = 0x0002
	DontAudit      RuleKind = 0x0004 // Data has the permissions that are still audited
	TypeTransition RuleKind = 0x0010
	TypeMember     RuleKind = 0x0020
	TypeChange     RuleKind = 0x0040
	AllowX         RuleKind = 0x0100
	AuditAllowX    RuleKind = 0x0200
	DontAuditX     RuleKind = 0x0400

	vectorKinds = Allow | AuditAllow | DontAudit
	typeKinds   = TypeTransition | TypeMember | TypeChange
	xpermKinds  = AllowX | AuditAllowX | DontAuditX
	ruleKinds   = vectorKinds | typeKinds | xpermKinds

	kindEnabled RuleKind = 0x8000 // conditional rules that are in force
	kindJoined  RuleKind = 0x4000 // here only: in one entry with the rule before, versions 15 to 19
)

// IsVector reports whether Rule.Data is an access vector.
func (k RuleKind) IsVector() bool { return k&vectorKinds != 0 }

// IsType reports whether Rule.Data is a type.
func (k RuleKind) IsType() bool { return k&typeKinds != 0 }

// IsXPerm reports whether the rule has extended permissions.
func (k RuleKind) IsXPerm() bool { return k&xpermKinds != 0 }

// String returns the statement's keyword in the policy language.
func (k RuleKind) String() string {
	switch k &^ (kindEnabled | kindJoined) {
	case Allow:
		return "allow"
	case AuditAllow:
		return "auditallow"
	case DontAudit:
		return "dontaudit"
	case TypeTransition:
		return "type_transition"
	case TypeMember:
		return "type_member"
	case TypeChange:
		return "type_change"
	case AllowX:
		return "allowxperm"
	case AuditAllowX:
		return "auditallowxperm"
	case DontAuditX:
		return "dontauditxperm"
	}
	return "unknown"
}

// Rule is one type enforcement rule. Source and Target are types or attributes.
type Rule struct {
	Source, Target TypeID
	Class          ClassID
	raw            uint16 // the kind as in the file, with the enabled bit, and kindJoined
	// Data is an access vector, a type, or an index into Policy.XPermSets,
	// depending on Kind.
	Data uint32
}

// NewRule returns a rule.
func NewRule(kind RuleKind, source, target TypeID, class ClassID, data uint32) Rule {
	return Rule{Source: source, Target: target, Class: class, raw: uint16(kind), Data: data}
}

// Kind returns the kind of the rule.
func (r Rule) Kind() RuleKind { return RuleKind(r.raw) &^ (kindEnabled | kindJoined) }

// Vector returns the permissions that the rule is written with: for dontaudit
// these are the permissions that are not audited.
func (r Rule) Vector() uint32 {
	switch r.Kind() {
	case DontAudit:
		return ^r.Data
	case Allow, AuditAllow:
		return r.Data
	}
	return 0
}

// XPerms returns the extended permissions of an xperm rule, or nil.
func (p *Policy) XPerms(r Rule) *XPermSet {
	if !r.Kind().IsXPerm() || uint64(r.Data) >= uint64(len(p.XPermSets)) {
		return nil
	}
	return &p.XPermSets[r.Data]
}

// XPermSet kinds.
const (
	XPermIoctlFunction uint8 = 1 // Bits are the low bytes of ioctl numbers whose second byte is Driver
	XPermIoctlDriver   uint8 = 2 // Bits are second bytes of ioctl numbers, all low bytes included
	XPermNetlink       uint8 = 3 // Bits are the low bytes of netlink message types whose second byte is Driver
)

// XPermSet is the extended permissions of one rule.
type XPermSet struct {
	Kind   uint8
	Driver uint8
	Bits   [8]uint32 // 256 bits, the lowest first
}

// Has reports whether bit n is set.
func (x *XPermSet) Has(n uint8) bool { return x.Bits[n/32]&(1<<(n%32)) != 0 }

// Conditional is a block of rules that depend on booleans.
type Conditional struct {
	State uint32     // the value of the expression when the policy was written
	Expr  []CondExpr // postfix
	True  []Rule
	False []Rule

	Offset int
}

// CondOp is an operator of a conditional expression.
type CondOp uint32

const (
	CondBool CondOp = 1 // push the boolean
	CondNot  CondOp = 2
	CondOr   CondOp = 3
	CondAnd  CondOp = 4
	CondXor  CondOp = 5
	CondEq   CondOp = 6
	CondNeq  CondOp = 7
)

// String returns the operator in the policy language.
func (op CondOp) String() string {
	switch op {
	case CondNot:
		return "!"
	case CondOr:
		return "||"
	case CondAnd:
		return "&&"
	case CondXor:
		return "^"
	case CondEq:
		return "=="
	case CondNeq:
		return "!="
	}
	return "?"
}

// CondExpr is one item of a postfix expression.
type CondExpr struct {
	Op   CondOp
	Bool BoolID // with CondBool
}

// ConstraintOp is the kind of an item in a constraint expression.
type ConstraintOp uint32

const (
	ConstraintNot   ConstraintOp = 1
	ConstraintAnd   ConstraintOp = 2
	ConstraintOr    ConstraintOp = 3
	ConstraintAttr  ConstraintOp = 4 // compare an attribute of both contexts
	ConstraintNames ConstraintOp = 5 // compare an attribute with a set
)

// Bits of ConstraintExpr.Attr. Levels are compared with ConstraintAttr only;
// the Target bits say which context with ConstraintNames.
const (
	AttrUser    uint32 = 1
	AttrRole    uint32 = 2
	AttrType    uint32 = 4
	AttrTarget  uint32 = 8  // the second context
	AttrXTarget uint32 = 16 // the third context, of validatetrans
	AttrL1L2    uint32 = 32
	AttrL1H2    uint32 = 64
	AttrH1L2    uint32 = 128
	AttrH1H2    uint32 = 256
	AttrL1H1    uint32 = 512
	AttrL2H2    uint32 = 1024
)

// Values of ConstraintExpr.Compare.
const (
	CompareEq     uint32 = 1
	CompareNeq    uint32 = 2
	CompareDom    uint32 = 3
	CompareDomBy  uint32 = 4
	CompareIncomp uint32 = 5
)

// MaxConstraintDepth is the deepest stack that an expression may need.
const MaxConstraintDepth = 5

// Constraint is a rule that permissions (of constrain, mlsconstrain) or a
// change of label (validatetrans, mlsvalidatetrans) must satisfy.
type Constraint struct {
	Permissions uint32 // 0 in validatetrans
	Expr        []ConstraintExpr
	Offset      int
}

// IsMLS reports whether the constraint compares levels.
func (c *Constraint) IsMLS() bool {
	for i := range c.Expr {
		if c.Expr[i].Op == ConstraintAttr && c.Expr[i].Attr >= AttrL1L2 {
			return true
		}
	}
	return false
}

// ConstraintExpr is one item of a postfix expression.
type ConstraintExpr struct {
	Op      ConstraintOp
	Attr    uint32
	Compare uint32
	Names   Bitmap   // users, roles or types; attributes are expanded
	Written *TypeSet // the set as it was written, from version 29 on
}

// TypeSet is a set of types and attributes as it was written in the source.
type TypeSet struct {
	Types   Bitmap
	Negated Bitmap // taken out again
	Flags   uint32 // 1 all types, 2 complement
}

// RoleTransition gives a process or, from version 26 on, an object of a class a
// new role.
type RoleTransition struct {
	Role    RoleID
	Type    TypeID
	NewRole RoleID
	Class   ClassID
}

// RoleAllow allows a change of role.
type RoleAllow struct {
	Role, NewRole RoleID
}

// FilenameTransition gives new objects with a name in a directory of type Target
// the type of the first outcome that has the creating type among its sources.
type FilenameTransition struct {
	Name     string
	Target   TypeID
	Class    ClassID
	Outcomes []FilenameOutcome
}

// FilenameOutcome is the new type for some source types.
type FilenameOutcome struct {
	Sources Bitmap
	Type    TypeID
}

// RangeTransition gives a new process or object a range.
type RangeTransition struct {
	Source, Target TypeID
	Class          ClassID
	Range          Range
}

// ObjectContexts are the contexts of things that have no file to carry them.
// The first group is SELinux's, the second Xen's.
type ObjectContexts struct {
	InitialSIDs []InitialSID // both
	Filesystems []FilesystemContext
	Ports       []PortContext
	Interfaces  []InterfaceContext
	Nodes       []NodeContext
	FSUses      []FSUse
	Nodes6      []Node6Context
	PKeys       []PKeyContext
	EndPorts    []EndPortContext

	PIRQs       []XenValueContext
	IOPorts     []XenRangeContext
	IOMems      []XenRangeContext
	PCIDevices  []XenValueContext
	DeviceTrees []DeviceTreeContext
}

// InitialSID is the context behind one of the kernel's fixed security IDs.
type InitialSID struct {
	SID     uint32
	Context Context
}

// FilesystemContext labels a file system without labels of its own.
type FilesystemContext struct {
	Name    string
	Context Context
	Files   Context
}

// PortContext labels a range of ports.
type PortContext struct {
	Protocol  uint32 // IPPROTO_TCP 6, UDP 17, DCCP 33, SCTP 132
	Low, High uint32
	Context   Context
}

// InterfaceContext labels a network interface and its messages.
type InterfaceContext struct {
	Name     string
	Context  Context
	Messages Context
}

// NodeContext labels an IPv4 network; addresses are in network byte order.
type NodeContext struct {
	Address, Mask [4]byte
	Context       Context
}

// Node6Context labels an IPv6 network.
type Node6Context struct {
	Address, Mask [16]byte
	Context       Context
}

// FSUse says how a file system gets its labels: 1 xattr, 2 transition, 3 task.
type FSUse struct {
	Behavior uint32
	Name     string
	Context  Context
}

// PKeyContext labels a range of InfiniBand partition keys.
type PKeyContext struct {
	SubnetPrefix [8]byte // network byte order
	Low, High    uint32
	Context      Context
}

// EndPortContext labels an InfiniBand end port.
type EndPortContext struct {
	Port    uint32
	Device  string
	Context Context
}

// XenValueContext labels an interrupt or a PCI device.
type XenValueContext struct {
	Value   uint32
	Context Context
}

// XenRangeContext labels a range of I/O ports or memory pages.
type XenRangeContext struct {
	Low, High uint64
	Context   Context
}

// DeviceTreeContext labels a path of the device tree.
type DeviceTreeContext struct {
	Path    string
	Context Context
}

// Genfs labels the files of a pseudo file system by path.
type Genfs struct {
	Filesystem string
	Entries    []GenfsEntry
}

// GenfsEntry labels the paths that begin with a prefix.
type GenfsEntry struct {
	Path    string
	Class   ClassID // 0 for all
	Context Context
}
