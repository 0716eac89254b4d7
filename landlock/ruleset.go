// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Errors of this package.
var (
	ErrRight  = errors.New("unknown right")
	ErrPath   = errors.New("not an absolute, clean path of at most 4095 bytes")
	ErrGrant  = errors.New("the rule grants what the rule set does not handle")
	ErrNoop   = errors.New("the rule grants nothing")
	ErrEmpty  = errors.New("the rule set handles nothing")
	ErrABI    = errors.New("the ABI lacks the right")
	ErrLayers = errors.New("a process can be in 16 domains at most")
	ErrRules  = errors.New("too many rules")
)

// maxRules bounds a rule set; the kernel's own bound is 2³²-1.
const maxRules = 1 << 20

// pathMax is the kernel's PATH_MAX without the terminating zero.
const pathMax = 4095

// Ruleset is one layer: what it denies, and the rules that allow some of it.
// A domain is made of it by landlock_restrict_self(2).
type Ruleset struct {
	// HandledFS and HandledNet are denied unless a rule grants them.
	HandledFS  AccessFS
	HandledNet AccessNet
	// Scoped is denied towards processes outside of the domain, without exceptions.
	Scoped Scope
	Paths  []PathRule
	Ports  []PortRule
}

// PathRule grants rights on the file or folder at Path and on all that is below it.
//
// The kernel holds a rule by inode: it resolves Path once, when the domain is made.
// So the evaluator wants the path that symbolic links lead to, and a rule whose path
// did not exist grants nothing.
type PathRule struct {
	Access AccessFS
	Path   string
}

// PortRule grants rights on one port. Port 0 stands for the ports that the kernel
// chooses itself when a program binds to port 0.
type PortRule struct {
	Access AccessNet
	Port   uint16
}

// Empty reports whether r handles nothing. The kernel makes no domain of such a rule set.
func (r Ruleset) Empty() bool { return r.HandledFS == 0 && r.HandledNet == 0 && r.Scoped == 0 }

// Validate reports everything for which the newest kernel would refuse r, joined: the errors
// wrap [ErrRight], [ErrPath], [ErrGrant], [ErrNoop], [ErrEmpty] and [ErrRules]. Whether
// a path is a file is not known here; see [FileRights].
func (r Ruleset) Validate() error { return r.ValidateFor(MaxABI) }

// ValidateFor is Validate for one version of the interface. Rights of later versions
// are errors that wrap [ErrABI].
//
// Source: security/landlock/syscalls.c, sys_landlock_create_ruleset and
// sys_landlock_add_rule.
func (r Ruleset) ValidateFor(abi int) error {
	var errs []error
	bad := func(err error, format string, args ...any) {
		errs = append(errs, fmt.Errorf(format+": %w", append(args, err)...))
	}
	if r.Empty() {
		errs = append(errs, ErrEmpty)
	}
	set := func(kind Kind, what string, have uint64) {
		if unknown := have &^ upTo(kind, MaxABI); unknown != 0 {
			bad(ErrRight, "%s %s", what, join(names(kind, unknown)))
		}
		if later := have & upTo(kind, MaxABI) &^ upTo(kind, abi); later != 0 {
			bad(ErrABI, "%s %s: ABI %d", what, join(names(kind, later)), abi)
		}
	}
	set(KindFS, "handled", uint64(r.HandledFS))
	set(KindNet, "handled", uint64(r.HandledNet))
	set(KindScope, "scoped", uint64(r.Scoped))
	if len(r.Paths) > maxRules || len(r.Ports) > maxRules {
		errs = append(errs, ErrRules)
		return errors.Join(errs...)
	}
	for _, p := range r.Paths {
		if !validPath(p.Path) {
			bad(ErrPath, "rule on %q", p.Path)
		}
		if p.Access == 0 {
			bad(ErrNoop, "rule on %q", p.Path)
		}
		if more := p.Access &^ r.HandledFS; more != 0 {
			bad(ErrGrant, "rule on %q: %s", p.Path, more)
		}
	}
	for _, p := range r.Ports {
		if p.Access == 0 {
			bad(ErrNoop, "rule on port %d", p.Port)
		}
		if more := p.Access &^ r.HandledNet; more != 0 {
			bad(ErrGrant, "rule on port %d: %s", p.Port, more)
		}
	}
	return errors.Join(errs...)
}

func validPath(p string) bool {
	return strings.HasPrefix(p, "/") && len(p) <= pathMax && !strings.ContainsRune(p, 0) && path.Clean(p) == p
}

// String lists what r handles and each rule, a line each.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "handles %s %s, scoped %s\n", r.HandledFS, r.HandledNet, r.Scoped)
	for _, p := range r.Paths {
		fmt.Fprintf(&b, "%q grants %s\n", p.Path, p.Access)
	}
	for _, p := range r.Ports {
		fmt.Fprintf(&b, "port %d grants %s\n", p.Port, p.Access)
	}
	return b.String()
}

// denied are the rights on files that r denies unless a rule grants them. A rule set that
// handles any of them denies moving files between folders too, handled or not.
//
// Source: security/landlock/access.h, landlock_upgrade_handled_access_masks.
func (r Ruleset) denied() AccessFS {
	if r.HandledFS == 0 {
		return 0
	}
	return r.HandledFS | Refer
}

// Effect says what losing a right does.
type Effect uint8

// The effects.
const (
	// Allowed means that what the right stands for is denied nowhere any more.
	Allowed Effect = iota
	// Refused means that no rule can grant it: it is denied everywhere.
	Refused
)

// Loss is one right that an older interface does not have.
type Loss struct {
	// Right is its name, [ChangeTopology] and [Ptrace] included.
	Right string
	// ABI is the first version that has it.
	ABI    int
	Effect Effect
}

func (l Loss) String() string {
	if l.Effect == Refused {
		return fmt.Sprintf("%s cannot be granted before ABI %d and is denied everywhere", l.Right, l.ABI)
	}
	return fmt.Sprintf("%s is not denied before ABI %d", l.Right, l.ABI)
}

// Degrade is what a kernel of an older version can enforce of r, and what is lost, right
// by right in the kernel's order. The result is valid for that version, or empty. r has to be valid.
//
// Nothing that stays is looser than in r, and without losses the result denies exactly
// what r denies.
func (r Ruleset) Degrade(abi int) (Ruleset, []Loss) {
	out := Ruleset{HandledFS: r.HandledFS & FSAt(abi), HandledNet: r.HandledNet & NetAt(abi), Scoped: r.Scoped & ScopeAt(abi)}
	var lost []Loss
	for _, right := range rights {
		var had bool
		effect := Allowed
		switch right.Kind {
		case KindFS:
			had = r.denied()&^out.denied()&AccessFS(right.Bit) != 0
			if AccessFS(right.Bit) == Refer && out.HandledFS != 0 && out.HandledFS&Refer == 0 {
				// It stays denied: that counts where r grants it somewhere.
				had, effect = r.grants(Refer), Refused
			}
		case KindNet:
			had = r.HandledNet&^out.HandledNet&AccessNet(right.Bit) != 0
		case KindScope:
			had = r.Scoped&^out.Scoped&Scope(right.Bit) != 0
		case KindFlag:
		}
		if had {
			abi := right.ABI
			if AccessFS(right.Bit) == Refer && right.Kind == KindFS {
				// Unhandled, it is denied along with any other right on files.
				abi = max(abi, first(Ruleset{HandledFS: r.HandledFS}))
			}
			lost = append(lost, Loss{right.Name, abi, effect})
		}
	}
	if r.HandledFS != 0 && out.HandledFS == 0 {
		lost = append(lost, Loss{ChangeTopology, first(Ruleset{HandledFS: r.HandledFS}), Allowed})
	}
	if !r.Empty() && out.Empty() {
		lost = append(lost, Loss{Ptrace, first(r), Allowed})
	}
	for _, p := range r.Paths {
		if p.Access &= out.HandledFS; p.Access != 0 {
			out.Paths = append(out.Paths, p)
		}
	}
	for _, p := range r.Ports {
		if p.Access &= out.HandledNet; p.Access != 0 {
			out.Ports = append(out.Ports, p)
		}
	}
	return out, lost
}

func (r Ruleset) grants(a AccessFS) bool {
	for _, p := range r.Paths {
		if p.Access&a != 0 {
			return true
		}
	}
	return false
}

// first is the first version that has any of what r handles.
func first(r Ruleset) int {
	for abi := 1; abi <= MaxABI; abi++ {
		if r.HandledFS&FSAt(abi) != 0 || r.HandledNet&NetAt(abi) != 0 || r.Scoped&ScopeAt(abi) != 0 {
			return abi
		}
	}
	return MaxABI + 1
}
