// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"fmt"
	"strings"
)

// maxProblems is how many problems a ValidateError lists; a policy of garbage
// has as many as it has bytes.
const maxProblems = 50

// maxBoundsDepth is the longest chain of bounds.
//
// Source: security/selinux/ss/policydb.h, POLICYDB_BOUNDS_MAXDEPTH.
const maxBoundsDepth = 4

// Problem is one thing in a policy that has no meaning.
type Problem struct {
	Section string
	Offset  int // in the file, bytes; -1 when it is not known
	Message string
}

func (p Problem) String() string {
	if p.Offset < 0 {
		return fmt.Sprintf("%s: %s", p.Section, p.Message)
	}
	return fmt.Sprintf("offset %d (%s): %s", p.Offset, p.Section, p.Message)
}

// ValidateError lists what is wrong with the meaning of a policy.
type ValidateError struct {
	Problems []Problem // at least one
	More     int       // problems that are not listed
}

func (e *ValidateError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "validate policy: %s", e.Problems[0])
	if n := len(e.Problems) - 1 + e.More; n > 0 {
		fmt.Fprintf(&b, " (and %d more)", n)
	}
	return b.String()
}

// Validate checks that every value in the policy names something, that contexts
// are valid, and that rules are not given twice. The error is a
// [*ValidateError].
func (p *Policy) Validate() error {
	v := &validator{p: p}
	v.section = "header"
	if p.MLS() && p.Version < versionMLS {
		v.addf(-1, "levels need version %d", versionMLS)
	}
	v.symbols()
	v.classes()
	v.ruleTables()
	v.transitions()
	v.objectContexts()
	if len(v.problems) == 0 {
		return nil
	}
	return &ValidateError{Problems: v.problems, More: v.more}
}

type validator struct {
	p        *Policy
	section  string
	problems []Problem
	more     int
}

func (v *validator) addf(offset int, format string, args ...any) {
	if len(v.problems) == maxProblems {
		v.more++
		return
	}
	v.problems = append(v.problems, Problem{Section: v.section, Offset: offset, Message: fmt.Sprintf(format, args...)})
}

// isType reports whether rules may name t. Before version 24 the type table has
// no attributes, and rules name them all the same.
func (v *validator) isType(t TypeID) bool {
	if v.p.Version < versionBoundary {
		return t != 0 && uint32(t) <= v.p.Types.Prim
	}
	return v.p.Types.ByValue(uint32(t)) != nil
}
func (v *validator) isClass(c ClassID) bool { return v.p.Classes.ByValue(uint32(c)) != nil }
func (v *validator) isRole(r RoleID) bool   { return v.p.Roles.ByValue(uint32(r)) != nil }

// isPlainType reports whether t is a type that contexts may have.
func (v *validator) isPlainType(t TypeID) bool {
	e := v.p.Types.ByValue(uint32(t))
	return e != nil && !e.Attribute
}

// subset checks that all values of a bitmap are at most prim.
func (v *validator) subset(offset int, b Bitmap, prim uint32, what string) {
	if top, ok := b.Max(); ok && top >= prim {
		v.addf(offset, "%s: value %d, but the highest is %d", what, uint64(top)+1, prim)
	}
}

func (v *validator) symbols() {
	p := v.p
	v.section = "roles"
	for i := range p.Roles.Entries {
		r := &p.Roles.Entries[i]
		v.subset(r.Offset, r.Dominates, p.Roles.Prim, "roles that "+r.Name+" dominates")
		v.subset(r.Offset, r.Types, p.Types.Prim, "types of role "+r.Name)
		v.boundsChain(r.Offset, r.Name, uint32(r.Bounds), func(value uint32) (uint32, bool) {
			e := p.Roles.ByValue(value)
			if e == nil {
				return 0, false
			}
			return uint32(e.Bounds), true
		})
		if (r.Name == "object_r") != (RoleID(r.Value) == ObjectRole) {
			v.addf(r.Offset, "role %q has the value %d; object_r and no other role has %d", r.Name, r.Value, ObjectRole)
		}
	}
	v.section = "types"
	for i := range p.Types.Entries {
		t := &p.Types.Entries[i]
		if t.Alias && p.Types.ByValue(t.Value) == nil {
			v.addf(t.Offset, "%q is an alias of value %d, which no type has", t.Name, t.Value)
		}
		v.boundsChain(t.Offset, t.Name, uint32(t.Bounds), func(value uint32) (uint32, bool) {
			e := p.Types.ByValue(value)
			if e == nil || e.Attribute {
				return 0, false
			}
			return uint32(e.Bounds), true
		})
	}
	v.typeMap("permissive types", p.Permissive)
	v.typeMap("neveraudit types", p.NeverAudit)
	v.section = "users"
	for i := range p.Users.Entries {
		u := &p.Users.Entries[i]
		v.subset(u.Offset, u.Roles, p.Roles.Prim, "roles of user "+u.Name)
		v.boundsChain(u.Offset, u.Name, uint32(u.Bounds), func(value uint32) (uint32, bool) {
			e := p.Users.ByValue(value)
			if e == nil {
				return 0, false
			}
			return uint32(e.Bounds), true
		})
		if p.MLS() {
			v.mlsRange(u.Offset, u.Range)
			v.level(u.Offset, u.DefaultLevel)
		}
	}
	v.section = "sensitivities"
	for i := range p.Sensitivities.Entries {
		s := &p.Sensitivities.Entries[i]
		v.subset(s.Offset, s.Level.Categories, p.Categories.Prim, "categories of sensitivity "+s.Name)
		if p.Sensitivities.ByValue(uint32(s.Level.Sensitivity)) == nil {
			v.addf(s.Offset, "%q is an alias of value %d, which no sensitivity has", s.Name, s.Level.Sensitivity)
		}
	}
	v.section = "attributes of types"
	for i, attrs := range p.TypeAttributes {
		if top, ok := attrs.Max(); ok && top >= p.Types.Prim {
			v.addf(-1, "attributes of type %q: value %d, but the highest is %d", p.TypeName(TypeID(i+1)), uint64(top)+1, p.Types.Prim)
		}
	}
}

// typeMap checks a map whose bit v is the type with value v.
func (v *validator) typeMap(section string, b Bitmap) {
	v.section = section
	if top, ok := b.Max(); ok && top > v.p.Types.Prim {
		v.addf(-1, "value %d, but the highest type is %d", top, v.p.Types.Prim)
	}
}

func (v *validator) boundsChain(offset int, name string, bounds uint32, next func(uint32) (uint32, bool)) {
	for depth := 1; bounds != 0; depth++ {
		if depth == maxBoundsDepth {
			v.addf(offset, "the bounds of %q form a loop or a chain longer than %d", name, maxBoundsDepth-1)
			return
		}
		up, ok := next(bounds)
		if !ok {
			v.addf(offset, "%q is bounded by value %d, which cannot bound", name, bounds)
			return
		}
		bounds = up
	}
}

func (v *validator) classes() {
	v.section = "classes"
	for i := range v.p.Classes.Entries {
		c := &v.p.Classes.Entries[i]
		if c.DefaultUser > DefaultTarget || c.DefaultRole > DefaultTarget || c.DefaultType > DefaultTarget || c.DefaultRange > DefaultGLBLUB {
			v.addf(c.Offset, "class %q has defaults %d, %d, %d, %d for user, role, type, range", c.Name, c.DefaultUser, c.DefaultRole, c.DefaultType, c.DefaultRange)
		}
		for j := range c.Constraints {
			v.constraint(c, &c.Constraints[j], false)
		}
		for j := range c.ValidateTrans {
			v.constraint(c, &c.ValidateTrans[j], true)
		}
	}
}

func (v *validator) constraint(class *Class, c *Constraint, validateTrans bool) {
	if !validateTrans && c.Permissions&^permissionMask(class.PermPrim) != 0 {
		v.addf(c.Offset, "a constraint of class %q on permissions 0x%x, but the class has %d", class.Name, c.Permissions, class.PermPrim)
	}
	for i := range c.Expr {
		e := &c.Expr[i]
		switch e.Op {
		case ConstraintAttr:
			if !validCompare(e.Attr, e.Compare) {
				v.addf(c.Offset, "a constraint of class %q compares attribute 0x%x with operator %d", class.Name, e.Attr, e.Compare)
			}
		case ConstraintNames:
			v.constraintNames(class, c, e, validateTrans)
		}
	}
}

func (v *validator) constraintNames(class *Class, c *Constraint, e *ConstraintExpr, validateTrans bool) {
	if e.Compare != CompareEq && e.Compare != CompareNeq {
		v.addf(c.Offset, "a constraint of class %q compares a set with operator %d", class.Name, e.Compare)
	}
	if e.Attr&AttrXTarget != 0 && !validateTrans {
		v.addf(c.Offset, "a constraint of class %q uses the third context, which only validatetrans has", class.Name)
	}
	switch e.Attr &^ (AttrTarget | AttrXTarget) {
	case AttrUser:
		v.subset(c.Offset, e.Names, v.p.Users.Prim, "users of a constraint")
	case AttrRole:
		v.subset(c.Offset, e.Names, v.p.Roles.Prim, "roles of a constraint")
	case AttrType:
		v.subset(c.Offset, e.Names, v.p.Types.Prim, "types of a constraint")
		if e.Written != nil {
			v.subset(c.Offset, e.Written.Types, v.p.Types.Prim, "types of a constraint")
			v.subset(c.Offset, e.Written.Negated, v.p.Types.Prim, "types of a constraint")
		}
	default:
		v.addf(c.Offset, "a constraint of class %q compares attribute 0x%x with a set", class.Name, e.Attr)
	}
}

// validCompare reports whether an operator exists for an attribute.
//
// Source: security/selinux/ss/services.c, constraint_expr_eval.
func validCompare(attr, compare uint32) bool {
	switch attr {
	case AttrUser, AttrType:
		return compare == CompareEq || compare == CompareNeq
	case AttrRole, AttrL1L2, AttrL1H2, AttrH1L2, AttrH1H2, AttrL1H1, AttrL2H2:
		return compare >= CompareEq && compare <= CompareIncomp
	}
	return false
}

func permissionMask(n uint32) uint32 {
	if n >= 32 {
		return ^uint32(0)
	}
	return 1<<n - 1
}

func (v *validator) ruleTables() {
	v.section = "rules"
	off := v.p.offsets.rules
	seen := newRuleSet(len(v.p.Rules))
	for _, r := range v.p.Rules {
		v.rule(off, r)
		// Extended permissions of one source, target and class are several rules.
		if !r.Kind().IsXPerm() && seen.add(r) {
			v.addf(off, "%s %s %s:%s is there twice", r.Kind(), v.p.TypeName(r.Source), v.p.TypeName(r.Target), v.p.ClassName(r.Class))
		}
		off += ruleSize(r)
	}
	v.section = "conditionals"
	for i := range v.p.Conditionals {
		c := &v.p.Conditionals[i]
		off := c.Offset + 8
		for _, e := range c.Expr {
			if e.Op == CondBool && v.p.Booleans.ByValue(uint32(e.Bool)) == nil {
				v.addf(off, "no boolean has the value %d", e.Bool)
			}
			off += 8
		}
		for _, list := range [2][]Rule{c.True, c.False} {
			off += 4
			for _, r := range list {
				v.rule(off, r)
				if r.Kind().IsType() && seen.has(r) {
					v.addf(off, "%s %s %s:%s is there unconditionally too", r.Kind(), v.p.TypeName(r.Source), v.p.TypeName(r.Target), v.p.ClassName(r.Class))
				}
				off += ruleSize(r)
			}
		}
	}
}

// ruleSize is the number of bytes of a rule from version 20 on.
func ruleSize(r Rule) int {
	if r.Kind().IsXPerm() {
		return 42
	}
	return 12
}

func (v *validator) rule(off int, r Rule) {
	if v.p.Version < versionAvtab {
		off = -1
	}
	if !v.isType(r.Source) || !v.isType(r.Target) || !v.isClass(r.Class) {
		v.addf(off, "a %s rule for types %d and %d and class %d, not all of which exist", r.Kind(), r.Source, r.Target, r.Class)
		return
	}
	if r.Kind().IsType() {
		if r.Data > 0xffff || !v.isPlainType(TypeID(r.Data)) {
			v.addf(off, "a %s rule gives the type %d, which does not exist", r.Kind(), r.Data)
		}
		return
	}
	if x := v.p.XPerms(r); x != nil && (x.Kind < XPermIoctlFunction || x.Kind > XPermNetlink) {
		v.addf(off+8, "extended permissions of kind %d", x.Kind)
	}
}

func (v *validator) transitions() {
	p := v.p
	v.section = "role transitions"
	for _, t := range p.RoleTransitions {
		if !v.isRole(t.Role) || !v.isType(t.Type) || !v.isRole(t.NewRole) || !v.isClass(t.Class) {
			v.addf(-1, "role %d, type %d, new role %d, class %d, not all of which exist", t.Role, t.Type, t.NewRole, t.Class)
		}
	}
	v.section = "role allows"
	for _, a := range p.RoleAllows {
		if !v.isRole(a.Role) || !v.isRole(a.NewRole) {
			v.addf(-1, "roles %d and %d, not all of which exist", a.Role, a.NewRole)
		}
	}
	v.section = "filename transitions"
	for i := range p.FilenameTransitions {
		t := &p.FilenameTransitions[i]
		if !v.isType(t.Target) || !v.isClass(t.Class) {
			v.addf(-1, "%q in type %d, class %d, not all of which exist", t.Name, t.Target, t.Class)
		}
		for _, o := range t.Outcomes {
			v.subset(-1, o.Sources, p.Types.Prim, fmt.Sprintf("sources of %q", t.Name))
			if !v.isPlainType(o.Type) {
				v.addf(-1, "%q gets the type %d, which does not exist", t.Name, o.Type)
			}
		}
	}
	v.section = "range transitions"
	for _, t := range p.RangeTransitions {
		if !v.isType(t.Source) || !v.isType(t.Target) || !v.isClass(t.Class) {
			v.addf(-1, "types %d and %d, class %d, not all of which exist", t.Source, t.Target, t.Class)
		}
		if p.MLS() {
			v.mlsRange(-1, t.Range)
		}
	}
}

func (v *validator) level(off int, l Level) {
	s := v.p.Sensitivities.ByValue(uint32(l.Sensitivity))
	if s == nil {
		v.addf(off, "no sensitivity has the value %d", l.Sensitivity)
		return
	}
	if !s.Level.Categories.Contains(l.Categories) {
		v.addf(off, "level %s has categories that %s may not have", v.p.LevelString(l), s.Name)
	}
}

func (v *validator) mlsRange(off int, r Range) {
	v.level(off, r.Low)
	v.level(off, r.High)
	if r.High.Sensitivity < r.Low.Sensitivity || !r.High.Categories.Contains(r.Low.Categories) {
		v.addf(off, "range %s, whose high level does not dominate the low one", v.p.RangeString(r))
	}
}

func (v *validator) context(c Context) {
	if err := v.p.CheckContext(c); err != nil {
		v.addf(-1, "%v", err)
	}
}

func (v *validator) objectContexts() {
	p := v.p
	c := &p.ObjectContexts
	v.section = "initial SIDs"
	for i := range c.InitialSIDs {
		v.context(c.InitialSIDs[i].Context)
	}
	v.section = "file systems"
	for i := range c.Filesystems {
		v.context(c.Filesystems[i].Context)
		v.context(c.Filesystems[i].Files)
	}
	v.section = "ports"
	for i := range c.Ports {
		v.context(c.Ports[i].Context)
	}
	v.section = "network interfaces"
	for i := range c.Interfaces {
		v.context(c.Interfaces[i].Context)
		v.context(c.Interfaces[i].Messages)
	}
	v.section = "nodes"
	for i := range c.Nodes {
		v.context(c.Nodes[i].Context)
	}
	for i := range c.Nodes6 {
		v.context(c.Nodes6[i].Context)
	}
	v.section = "fs_use"
	for i := range c.FSUses {
		v.context(c.FSUses[i].Context)
		// Source: security/selinux/include/security.h, SECURITY_FS_USE_MNTPOINT, _MAX.
		if b := c.FSUses[i].Behavior; b == 6 || b > 7 {
			v.addf(-1, "%s is labelled in the way %d, which there is not", c.FSUses[i].Name, b)
		}
	}
	v.section = "InfiniBand"
	for i := range c.PKeys {
		v.context(c.PKeys[i].Context)
		if c.PKeys[i].Low > 0xffff || c.PKeys[i].High > 0xffff {
			v.addf(-1, "pkeys from %d to %d; the highest is 65535", c.PKeys[i].Low, c.PKeys[i].High)
		}
	}
	for i := range c.EndPorts {
		v.context(c.EndPorts[i].Context)
		if n := c.EndPorts[i].Port; n == 0 || n > 0xff {
			v.addf(-1, "port %d of %s; ports are from 1 to 255", n, c.EndPorts[i].Device)
		}
	}
	v.section = "xen contexts"
	for _, list := range [2][]XenValueContext{c.PIRQs, c.PCIDevices} {
		for i := range list {
			v.context(list[i].Context)
		}
	}
	for _, list := range [2][]XenRangeContext{c.IOPorts, c.IOMems} {
		for i := range list {
			v.context(list[i].Context)
		}
	}
	for i := range c.DeviceTrees {
		v.context(c.DeviceTrees[i].Context)
	}
	v.section = "genfs"
	for i := range p.Genfs {
		for _, e := range p.Genfs[i].Entries {
			v.context(e.Context)
			if e.Class != 0 && !v.isClass(e.Class) {
				v.addf(-1, "class %d of %s%s does not exist", e.Class, p.Genfs[i].Filesystem, e.Path)
			}
		}
	}
}

// ruleSet is a set of rules by key, for finding those given twice.
type ruleSet struct {
	slots []uint64
	mask  uint64
}

func newRuleSet(n int) *ruleSet {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return &ruleSet{slots: make([]uint64, size), mask: uint64(size - 1)}
}

// key identifies a rule. It is never 0: types are at least 1 in rules that are
// right, and others are reported anyway.
func (s *ruleSet) key(r Rule) uint64 {
	return uint64(r.Source)<<48 | uint64(r.Target)<<32 | uint64(r.Class)<<16 | uint64(r.Kind())
}

// slot returns where a key is or would be.
func (s *ruleSet) slot(key uint64) *uint64 {
	for i := key * 0x9e3779b97f4a7c15 >> 32; ; i++ {
		if at := &s.slots[i&s.mask]; *at == 0 || *at == key {
			return at
		}
	}
}

// add reports whether a rule with the same key was there before.
func (s *ruleSet) add(r Rule) bool {
	at := s.slot(s.key(r))
	was := *at != 0
	*at = s.key(r)
	return was
}

// has reports whether a rule with the same key was added.
func (s *ruleSet) has(r Rule) bool { return *s.slot(s.key(r)) != 0 }
