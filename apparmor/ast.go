// SPDX-License-Identifier: Apache-2.0

package apparmor

import "github.com/palisade-sec/palisade/diag"

// Node is a part of a profile text.
type Node interface {
	// Span is where the node stands in its file; not valid in a tree that was
	// built rather than parsed.
	Span() diag.Span
}

// at gives a node its span.
type at struct{ Pos diag.Span }

// Span implements [Node].
func (a *at) Span() diag.Span { return a.Pos }

// Word is one token that names something: a path, a glob, a label, a value.
type Word struct {
	// Value is the text with quotes removed and escapes decoded as the language
	// does it: an escape of a glob character stays escaped ("\*", "\\").
	Value string
	// Raw is the text as it stood in the file, quotes and all; "" in a word
	// that was built. The printer prefers it.
	Raw string
	Pos diag.Span
}

// Span implements [Node].
func (w Word) Span() diag.Span { return w.Pos }

// IsZero tells whether the word is absent.
func (w Word) IsZero() bool { return w.Value == "" && w.Raw == "" }

// File is one parsed file: a whole policy file or something that is included.
type File struct {
	Name  string
	Text  []byte
	Items []Item
	// Broken tells that Parse found errors, so that the tree lacks what could not
	// be read. Resolving it finds further errors, but never gives a policy.
	Broken bool
}

// Span implements [Node].
func (f *File) Span() diag.Span { return diag.Span{File: f.Name} }

// Item is what stands at the top level of a file: *Include, *ABI, *Alias,
// *VarAssign, *BoolAssign, *Profile, *Comment. A file that is included inside
// of a profile holds rules, and every [Rule] is an Item.
type Item interface {
	Node
	item()
}

// Rule is what stands in the body of a profile: the rule types below, and
// *Include, *ABI, *Profile (a hat or child profile), *If, *Block, *Comment.
type Rule interface {
	Item
	rule()
}

// Comment is one comment with its '#', without the line end.
type Comment struct {
	at
	Text string
	// Trailing comments stand on the line where the node before them ends.
	Trailing bool
}

// Include is an include statement. What it pulls in is not part of this tree;
// see [Resolve].
type Include struct {
	at
	Hash     bool // spelled #include, which is deprecated
	IfExists bool
	Angle    bool // <path>, looked up in the search path
	Path     Word
}

// ABI is an abi statement.
type ABI struct {
	at
	Angle bool
	Path  Word
}

// Alias is an alias (or rewrite) statement.
type Alias struct {
	at
	Rewrite  bool // spelled rewrite
	From, To Word
}

// AssignOp is how a variable gets its values.
type AssignOp uint8

// The assignment operators.
const (
	AssignSet      AssignOp = iota // =
	AssignAdd                      // +=
	AssignDefault                  // ?=
	AssignOverride                 // :=
)

func (o AssignOp) String() string { return [...]string{"=", "+=", "?=", ":="}[o&3] }

// VarAssign sets a set variable: @{name} = value value.
type VarAssign struct {
	at
	Name   string // without @ and braces
	Brace  bool
	Op     AssignOp
	Values []Word
}

// BoolAssign sets a boolean variable: $name = expression.
type BoolAssign struct {
	at
	Name  string // without $ and braces
	Brace bool
	Op    AssignOp
	Value Expr
}

// ProfileKind is the keyword in front of a profile.
type ProfileKind uint8

// The ways to introduce a profile.
const (
	KindBare    ProfileKind = iota // no keyword: the name begins with / or a namespace
	KindProfile                    // profile
	KindHat                        // hat
	KindCaret                      // ^
)

// Profile is a profile, a child profile or a hat with its body.
type Profile struct {
	at
	Kind       ProfileKind
	Name       Word // as written, may hold a namespace and variables
	Attachment Word
	CondName   Word   // xattrs, as written before =( … )
	Xattrs     []Cond // of CondName=(…)
	HasXattrs  bool
	Identities [][]Word // one list per "+ identities=(…)"
	Flags      []Word
	FlagsWord  bool // spelled flags=( … ), not ( … )
	HasFlags   bool
	Rules      []Rule
	Close      diag.Span // the closing brace
}

// IsHat tells whether the profile was declared as a hat.
func (p *Profile) IsHat() bool { return p.Kind == KindHat || p.Kind == KindCaret }

// If is a conditional. Else is nil, or one *If (else if), or holds a *Block
// without prefix (else).
type If struct {
	at
	Cond Expr
	Then *Block
	Else Rule // *If or *Block, or nil
}

// Block is a group of rules under one prefix.
type Block struct {
	at
	Prefix Prefix
	Rules  []Rule
	Close  diag.Span
}

// Mode says what a rule does to the access it names.
type Mode uint8

// The rule modes. An unspecified mode allows.
const (
	ModeUnspecified Mode = iota
	ModeAllow
	ModeDeny
	ModePrompt
)

func (m Mode) String() string { return [...]string{"", "allow", "deny", "prompt"}[m&3] }

// Owner restricts a file rule to files of the task's own user, or of others.
type Owner uint8

// The owner conditions.
const (
	OwnerUnspecified Owner = iota
	OwnerOwn               // owner
	OwnerOther             // other
)

func (o Owner) String() string { return [...]string{"", "owner", "other"}[o%3] }

// Prefix is what may stand in front of a rule or a block.
type Prefix struct {
	Priority    int // -1000 … 1000
	HasPriority bool
	Audit       bool
	Mode        Mode
	Owner       Owner
	Pos         diag.Span
}

// ExecMode is the safe or unsafe keyword.
type ExecMode uint8

// The environment scrubbing keywords of exec rules.
const (
	ExecModeUnspecified ExecMode = iota
	ExecModeSafe
	ExecModeUnsafe
)

func (m ExecMode) String() string { return [...]string{"", "safe", "unsafe"}[m%3] }

// FileRule grants access to paths.
type FileRule struct {
	at
	Prefix     Prefix
	File       bool // the keyword file is there
	ExecMode   ExecMode
	Path       Word // absent in the bare "file,"
	Perms      Word // as written, "rwPix"
	PermsFirst bool // "rw /path," rather than "/path rw,"
	Subset     bool // subset or <=
	Target     Word // after ->: link target or profile
}

// LinkRule grants hard links: link [subset] path -> target.
type LinkRule struct {
	at
	Prefix Prefix
	Subset bool
	Path   Word
	Target Word
}

// CapabilityRule grants capabilities; none named means all.
type CapabilityRule struct {
	at
	Prefix Prefix
	Caps   []Word // without the cap_ prefix
}

// CondOp is the operator of a condition.
type CondOp uint8

// The condition operators.
const (
	CondNone CondOp = iota // only the name stands there
	CondEq                 // =
	CondIn                 // in
	CondSet                // :=
)

func (o CondOp) String() string { return [...]string{"", "=", " in ", ":="}[o&3] }

// Cond is one condition of a rule: name=value, name=(values), name in (values).
type Cond struct {
	Name   Word
	Op     CondOp
	Paren  bool
	Values []Word
	Pos    diag.Span
}

// Span implements [Node].
func (c Cond) Span() diag.Span { return c.Pos }

// CondRule is the common shape of the rules that are a keyword, accesses,
// conditions and a peer group: network, unix, dbus, signal, ptrace, mqueue,
// io_uring and userns.
type CondRule struct {
	at
	Prefix Prefix
	Class  Class
	// Perms are the accesses in the order written; ParenPerms tells that they
	// stood in parentheses. None means all.
	Perms      []Word
	ParenPerms bool
	// Args are the bare words: family and type of network, name of mqueue.
	Args      []Word
	Conds     []Cond
	GroupName Word // peer
	Group     []Cond
	HasGroup  bool
}

// MountKind tells the mount-like rules apart.
type MountKind uint8

// The mount-like rules.
const (
	Mount MountKind = iota
	Remount
	Umount
	PivotRoot
)

func (k MountKind) String() string {
	return [...]string{"mount", "remount", "umount", "pivot_root"}[k&3]
}

// MountRule is mount, remount, umount or pivot_root.
type MountRule struct {
	at
	Prefix   Prefix
	Kind     MountKind
	Unmount  bool // spelled unmount
	Conds    []Cond
	Source   Word // mount: the device; pivot_root: unused
	Target   Word // the mount point; pivot_root: the new root
	HasArrow bool
	DstConds []Cond // conditions after ->
	Profile  Word   // pivot_root: the profile after ->
}

// AllRule is "all,".
type AllRule struct {
	at
	Prefix Prefix
}

// ChangeProfileRule is change_profile [safe|unsafe] [exec] [-> target].
type ChangeProfileRule struct {
	at
	Prefix   Prefix
	ExecMode ExecMode
	Exec     Word
	Target   Word
}

// RlimitRule is set rlimit name <= value [unit].
type RlimitRule struct {
	at
	Resource Word
	Value    Word
	Unit     Word
}

// Expr is a condition expression of if and of boolean assignments: *BoolVar,
// *Defined, *Compare, *Literal, *Not, *And, *Or, *Paren.
type Expr interface {
	Node
	expr()
}

// BoolVar is $name.
type BoolVar struct {
	at
	Name  string
	Brace bool
}

// Defined is "defined @{name}" or "defined $name".
type Defined struct {
	at
	Name  string
	Brace bool
	Bool  bool // $name
}

// Compare is an operator between two operands: == != < <= > >= in.
type Compare struct {
	at
	Op          string
	Left, Right Operand
}

// Literal is true or false (in any case), or a variable that is not allowed
// there; resolving tells.
type Literal struct {
	at
	Operand Operand
}

// Operand is a value, or a set variable when Var.
type Operand struct {
	Word Word
	Var  bool // @{name}, Word.Value is the text with @
}

// Not is "not x".
type Not struct {
	at
	X Expr
}

// And is "x and y".
type And struct {
	at
	X, Y Expr
}

// Or is "x or y".
type Or struct {
	at
	X, Y Expr
}

// Paren is "( x )".
type Paren struct {
	at
	X Expr
}

func (*Comment) item()           {}
func (*Include) item()           {}
func (*ABI) item()               {}
func (*Alias) item()             {}
func (*VarAssign) item()         {}
func (*BoolAssign) item()        {}
func (*Profile) item()           {}
func (*If) item()                {}
func (*Block) item()             {}
func (*FileRule) item()          {}
func (*LinkRule) item()          {}
func (*CapabilityRule) item()    {}
func (*CondRule) item()          {}
func (*MountRule) item()         {}
func (*AllRule) item()           {}
func (*ChangeProfileRule) item() {}
func (*RlimitRule) item()        {}

func (*Comment) rule()           {}
func (*Include) rule()           {}
func (*ABI) rule()               {}
func (*Profile) rule()           {}
func (*If) rule()                {}
func (*Block) rule()             {}
func (*FileRule) rule()          {}
func (*LinkRule) rule()          {}
func (*CapabilityRule) rule()    {}
func (*CondRule) rule()          {}
func (*MountRule) rule()         {}
func (*AllRule) rule()           {}
func (*ChangeProfileRule) rule() {}
func (*RlimitRule) rule()        {}

func (*BoolVar) expr() {}
func (*Defined) expr() {}
func (*Compare) expr() {}
func (*Literal) expr() {}
func (*Not) expr()     {}
func (*And) expr()     {}
func (*Or) expr()      {}
func (*Paren) expr()   {}

// Walk calls visit for node and, as long as visit returns true, for everything
// below it in source order. It is the only visitor of the tree.
func Walk(node Node, visit func(Node) bool) {
	if node == nil || !visit(node) {
		return
	}
	switch n := node.(type) {
	case *File:
		for _, it := range n.Items {
			Walk(it, visit)
		}
	case *Profile:
		for _, r := range n.Rules {
			Walk(r, visit)
		}
	case *Block:
		for _, r := range n.Rules {
			Walk(r, visit)
		}
	case *If:
		Walk(n.Cond, visit)
		Walk(n.Then, visit)
		if n.Else != nil {
			Walk(n.Else, visit)
		}
	case *BoolAssign:
		Walk(n.Value, visit)
	case *Not:
		Walk(n.X, visit)
	case *Paren:
		Walk(n.X, visit)
	case *And:
		Walk(n.X, visit)
		Walk(n.Y, visit)
	case *Or:
		Walk(n.X, visit)
		Walk(n.Y, visit)
	}
}
