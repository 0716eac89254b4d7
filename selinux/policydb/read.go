// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"fmt"
	"math/bits"
)

const (
	magicKernel = 0xf97cff8c
	magicModule = 0xf97cff8d
	magicPkg    = 0xf97cff8f

	nameSELinux = "SE Linux"
	nameXen     = "XenFlask"
)

// ParseError says where bytes stop being a policy.
type ParseError struct {
	Offset   int    // bytes from the start of the file, 0-based
	Section  string // "header", "types", "rules", …
	Expected string
	Found    string // "" when the file ends
}

func (e *ParseError) Error() string {
	found := "the end of the file"
	if e.Found != "" {
		found = e.Found
	}
	return fmt.Sprintf("parse policy: offset %d (%s): expected %s, found %s", e.Offset, e.Section, e.Expected, found)
}

// Load parses and validates a policy.
func Load(data []byte) (*Policy, error) {
	p, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// Parse reads the records of a policy. It checks the form alone: counts,
// lengths, bitmaps, and that symbols can be found; [Policy.Validate] checks what
// the records mean. data is copied. The error is a [*ParseError].
func Parse(data []byte) (*Policy, error) {
	r := &reader{data: string(data), section: "header"}
	p := r.policy()
	if r.err != nil {
		return nil, r.err
	}
	return p, nil
}

// reader walks over the file and keeps the first error; after an error every
// read returns zero and every count is zero, so that loops end.
type reader struct {
	data    string
	off     int
	section string
	version uint32
	target  Target
	err     *ParseError
}

func (r *reader) fail(offset int, expected, found string) {
	if r.err == nil {
		r.err = &ParseError{Offset: offset, Section: r.section, Expected: expected, Found: found}
	}
}

func (r *reader) failf(offset int, expected, found string, args ...any) {
	if r.err == nil {
		r.fail(offset, expected, fmt.Sprintf(found, args...))
	}
}

func (r *reader) remaining() int { return len(r.data) - r.off }

func (r *reader) take(n int, what string) string {
	if r.err != nil {
		return ""
	}
	if n > r.remaining() {
		r.fail(len(r.data), fmt.Sprintf("%d more bytes of %s from offset %d on", n, what, r.off), "")
		return ""
	}
	s := r.data[r.off : r.off+n]
	r.off += n
	return s
}

func (r *reader) u32(what string) uint32 {
	s := r.take(4, what)
	if len(s) < 4 {
		return 0
	}
	return le32(s)
}

func (r *reader) u64(what string) uint64 {
	s := r.take(8, what)
	if len(s) < 8 {
		return 0
	}
	return le64(s)
}

// u16 reads a number of four bytes that must fit into two.
func (r *reader) u16(what string) uint16 {
	off := r.off
	v := r.u32(what)
	if v > 0xffff {
		r.failf(off, "a "+what+" up to 65535", "%d", v)
		return 0
	}
	return uint16(v)
}

// count reads how many items follow, each of at least size bytes.
func (r *reader) count(what string, size int) int {
	off := r.off
	n := r.u32("the number of " + what)
	return r.checkCount(off, n, what, size)
}

func (r *reader) checkCount(off int, n uint32, what string, size int) int {
	if r.err != nil {
		return 0
	}
	if uint64(n)*uint64(size) > uint64(r.remaining()) {
		r.failf(off, fmt.Sprintf("at most %d %s in the %d bytes that follow", r.remaining()/size, what, r.remaining()), "%d", n)
		return 0
	}
	return int(n)
}

// text reads a name of n bytes; names have no NUL and are not empty.
func (r *reader) text(off int, n uint32, what string) string {
	if r.err != nil {
		return ""
	}
	if uint64(n) > uint64(r.remaining()) {
		r.failf(off, fmt.Sprintf("a length of the %s of at most %d", what, r.remaining()), "%d", n)
		return ""
	}
	at := r.off
	s := r.take(int(n), what)
	for i := range len(s) {
		if s[i] == 0 {
			r.failf(at+i, "a "+what+" without NUL", "%q", s[:i+1])
			return ""
		}
	}
	return s
}

// name is text that is not empty.
func (r *reader) name(off int, n uint32, what string) string {
	if n == 0 {
		r.fail(off, "a "+what+" that is not empty", "length 0")
		return ""
	}
	return r.text(off, n, what)
}

func (r *reader) bitmap(what string) Bitmap {
	off := r.off
	head := r.take(12, what)
	if len(head) < 12 {
		return Bitmap{}
	}
	size, high, count := le32(head), le32(head[4:]), le32(head[8:])
	if size != 64 {
		r.failf(off, "a bitmap of 64-bit words ("+what+")", "words of %d bits", size)
		return Bitmap{}
	}
	if high%64 != 0 || (high == 0) != (count == 0) {
		r.failf(off+4, "a high bit that is a multiple of 64, and 0 for an empty bitmap ("+what+")", "%d with %d words", high, count)
		return Bitmap{}
	}
	n := r.checkCount(off+8, count, "words of "+what, bitmapNodeSize)
	b := Bitmap{nodes: r.take(n*bitmapNodeSize, what), high: high}
	next := uint32(0)
	for i := range n {
		start, word := b.Node(i)
		at := off + 12 + i*bitmapNodeSize
		if start%64 != 0 || start < next || start > high-64 {
			r.failf(at, fmt.Sprintf("a multiple of 64 from %d to %d as start of a word (%s)", next, high-64, what), "%d", start)
			return Bitmap{}
		}
		if word == 0 {
			r.fail(at+4, "a word with bits ("+what+")", "0")
			return Bitmap{}
		}
		next = start + 64
	}
	return b
}

func (r *reader) policy() *Policy {
	p := &Policy{}
	r.header(p)
	if r.version >= versionPolcap {
		r.section = "policy capabilities"
		p.Capabilities = r.bitmap("policy capabilities")
	}
	if r.version >= versionPermissive {
		r.section = "permissive types"
		p.Permissive = r.bitmap("permissive types")
	}
	if r.version >= versionNeverAudit {
		r.section = "neveraudit types"
		p.NeverAudit = r.bitmap("neveraudit types")
	}
	r.symbols(p)
	r.rules(p)
	if r.version >= versionBool {
		r.conditionals(p)
	}
	r.roleRules(p)
	if r.version >= versionFilenameTrans {
		r.filenameTransitions(p)
	}
	r.objectContexts(p)
	r.genfs(p)
	if r.version >= versionMLS {
		r.rangeTransitions(p)
	}
	r.typeAttributes(p)
	if r.err == nil {
		p.Trailing = r.data[r.off:]
		p.indexAttributes()
	}
	return p
}

func (r *reader) header(p *Policy) {
	off := r.off
	switch magic := r.u32("the magic number"); {
	case r.err != nil:
		return
	case magic == magicModule || magic == magicPkg:
		r.failf(off, "the magic number 0xf97cff8c of a kernel policy", "0x%08x of a policy module", magic)
		return
	case magic != magicKernel:
		r.failf(off, "the magic number 0xf97cff8c of a kernel policy", "0x%08x", magic)
		return
	}
	off = r.off
	n := r.u32("the length of the platform")
	if n != uint32(len(nameSELinux)) && r.err == nil {
		r.failf(off, "the length 8 of the platform", "%d", n)
		return
	}
	off = r.off
	switch name := r.take(int(n), "the platform"); {
	case r.err != nil:
		return
	case name == nameSELinux:
		p.Target = SELinux
	case name == nameXen:
		p.Target = Xen
	default:
		r.failf(off, fmt.Sprintf("the platform %q or %q", nameSELinux, nameXen), "%q", name)
		return
	}
	off = r.off
	p.Version = r.u32("the version")
	if (p.Version < MinVersion || p.Version > MaxVersion) && r.err == nil {
		r.failf(off, fmt.Sprintf("a version from %d to %d", MinVersion, MaxVersion), "%d", p.Version)
		return
	}
	r.version, r.target = p.Version, p.Target
	p.Config = r.u32("the configuration")
	off = r.off
	symbols, contexts := r.u32("the number of symbol tables"), r.u32("the number of object context tables")
	wantSymbols, wantContexts := tableCounts(p.Target, p.Version)
	if (symbols != wantSymbols || contexts != wantContexts) && r.err == nil {
		r.failf(off, fmt.Sprintf("%d symbol tables and %d object context tables in version %d for %s",
			wantSymbols, wantContexts, p.Version, p.Target), "%d and %d", symbols, contexts)
	}
}

// tableCounts returns how many tables a policy of a version has.
func tableCounts(target Target, version uint32) (symbols, contexts uint32) {
	switch {
	case version < versionBool:
		symbols = 5
	case version < versionMLS:
		symbols = 6
	default:
		symbols = 8
	}
	if target == Xen {
		if version >= versionXenDeviceTree {
			return symbols, 6
		}
		return symbols, 5
	}
	switch {
	case version < versionIPv6:
		contexts = 6
	case version < versionInfiniband:
		contexts = 7
	default:
		contexts = 9
	}
	return symbols, contexts
}

// maxValue bounds the values of symbols. Types and classes have 16 bits in rules;
// of nothing else does any policy have as many.
const maxValue = 1<<16 - 1

// readTable reads one symbol table and indexes it. size is the least number of
// bytes of an entry.
func readTable[T Symbol](r *reader, t *Table[T], what string, size int, read func() T, offset func(*T) int) {
	r.section = what
	off := r.off
	prim := r.u32("the highest value of " + what)
	n := r.count(what, size)
	// Holes are legal: attributes of roles, and before version 20 those of types,
	// have values and no entries. So the entries are no bound.
	if prim > maxValue && r.err == nil {
		r.failf(off, fmt.Sprintf("a highest value of %s up to %d", what, maxValue), "%d", prim)
	}
	if r.err != nil {
		return
	}
	t.Prim = prim
	t.Entries = make([]T, 0, n)
	for range n {
		e := read()
		if r.err != nil {
			return
		}
		t.Entries = append(t.Entries, e)
	}
	t.index(func(e *T, format string, args ...any) {
		r.fail(offset(e), "symbols with values and names of their own", fmt.Sprintf(format, args...))
	})
}

func (r *reader) symbols(p *Policy) {
	readTable(r, &p.Commons, "commons", 17, r.common, func(c *Common) int { return c.Offset })
	readTable(r, &p.Classes, "classes", 25, r.class, func(c *Class) int { return c.Offset })
	readTable(r, &p.Roles, "roles", 33, r.role, func(c *Role) int { return c.Offset })
	readTable(r, &p.Types, "types", 13, r.typ, func(c *Type) int { return c.Offset })
	readTable(r, &p.Users, "users", 21, r.user, func(c *User) int { return c.Offset })
	if r.version >= versionBool {
		readTable(r, &p.Booleans, "booleans", 13, r.boolean, func(c *Boolean) int { return c.Offset })
	}
	if r.version >= versionMLS {
		readTable(r, &p.Sensitivities, "sensitivities", 25, r.sensitivity, func(c *Sensitivity) int { return c.Offset })
		readTable(r, &p.Categories, "categories", 13, r.category, func(c *Category) int { return c.Offset })
	}
	if r.err == nil {
		r.namePermissions(p)
	}
}

// namePermissions gives each class the names of all its permissions.
func (r *reader) namePermissions(p *Policy) {
	r.section = "classes"
	for i := range p.Classes.Entries {
		c := &p.Classes.Entries[i]
		var all []Permission
		if c.CommonName != "" {
			common := p.Commons.ByName(c.CommonName)
			if common == nil {
				r.failf(c.Offset, "a common that exists", "class %q with common %q", c.Name, c.CommonName)
				return
			}
			all = append(all, common.Permissions...)
		}
		all = append(all, c.Permissions...)
		for _, perm := range all {
			if old := c.permissionName[perm.Value-1]; old != "" {
				r.failf(c.Offset, "permissions with bits of their own", "class %q with %q and %q on bit %d", c.Name, old, perm.Name, perm.Value-1)
				return
			}
			c.permissionName[perm.Value-1] = perm.Name
		}
	}
}

func (r *reader) permissions(n int) []Permission {
	if n == 0 {
		return nil
	}
	perms := make([]Permission, 0, n)
	for range n {
		off := r.off
		length, value := r.u32("the length of a permission"), r.u32("the value of a permission")
		if (value < 1 || value > 32) && r.err == nil {
			r.failf(off+4, "a permission's value from 1 to 32", "%d", value)
		}
		name := r.name(off, length, "permission")
		if r.err != nil {
			return nil
		}
		perms = append(perms, Permission{Name: name, Value: value})
	}
	return perms
}

func (r *reader) permissionCounts() (prim uint32, n int) {
	off := r.off
	prim = r.u32("the number of permissions")
	n = r.count("permissions", 9)
	if (prim > 32 || n > 32) && r.err == nil {
		r.failf(off, "at most 32 permissions", "%d with %d entries", prim, n)
	}
	return prim, n
}

func (r *reader) common() Common {
	c := Common{Offset: r.off}
	length := r.u32("the length of a common")
	c.Value = r.u32("the value of a common")
	var n int
	c.PermPrim, n = r.permissionCounts()
	c.Name = r.name(c.Offset, length, "common")
	c.Permissions = r.permissions(n)
	return c
}

func (r *reader) class() Class {
	c := Class{Offset: r.off}
	length, common := r.u32("the length of a class"), r.u32("the length of a common")
	c.Value = uint32(r.u16("value of a class"))
	var n int
	c.PermPrim, n = r.permissionCounts()
	constraints := r.count("constraints", 8)
	c.Name = r.name(c.Offset, length, "class")
	c.CommonName = r.text(c.Offset+4, common, "common")
	c.Permissions = r.permissions(n)
	c.Constraints = r.constraints(constraints)
	if r.version >= versionMLS {
		c.ValidateTrans = r.constraints(r.count("validatetrans rules", 8))
	}
	if r.version >= versionObjectDefaults {
		c.DefaultUser = r.u32("the default user")
		c.DefaultRole = r.u32("the default role")
		c.DefaultRange = r.u32("the default range")
	}
	if r.version >= versionDefaultType {
		c.DefaultType = r.u32("the default type")
	}
	return c
}

func (r *reader) constraints(n int) []Constraint {
	if n == 0 || r.err != nil {
		return nil
	}
	list := make([]Constraint, 0, n)
	for range n {
		c := Constraint{Offset: r.off, Permissions: r.u32("the permissions of a constraint")}
		items := r.count("items of a constraint", 12)
		depth := 0
		c.Expr = make([]ConstraintExpr, 0, items)
		for range items {
			e := r.constraintExpr(&depth)
			if r.err != nil {
				return nil
			}
			c.Expr = append(c.Expr, e)
		}
		if depth != 1 && r.err == nil {
			r.failf(c.Offset, "a constraint that leaves one value", "%d values", depth)
		}
		list = append(list, c)
	}
	return list
}

func (r *reader) constraintExpr(depth *int) ConstraintExpr {
	off := r.off
	e := ConstraintExpr{
		Op:      ConstraintOp(r.u32("an item of a constraint")),
		Attr:    r.u32("an attribute of a constraint"),
		Compare: r.u32("a comparison of a constraint"),
	}
	need, push := 0, 1
	switch e.Op {
	case ConstraintNot:
		need = 1
	case ConstraintAnd, ConstraintOr:
		need = 2
	case ConstraintAttr:
	case ConstraintNames:
		e.Names = r.bitmap("names of a constraint")
		if r.version >= versionConstraintNames {
			e.Written = &TypeSet{
				Types:   r.bitmap("types of a constraint"),
				Negated: r.bitmap("negated types of a constraint"),
				Flags:   r.u32("flags of a type set"),
			}
		}
	default:
		r.failf(off, "an item of a constraint from 1 to 5", "%d", e.Op)
		return e
	}
	if *depth < need {
		r.failf(off, fmt.Sprintf("%d values before an operator", need), "%d", *depth)
	}
	*depth += push - need
	if *depth > MaxConstraintDepth {
		r.failf(off, fmt.Sprintf("a constraint with at most %d values at a time", MaxConstraintDepth), "%d", *depth)
	}
	return e
}

func (r *reader) role() Role {
	s := Role{Offset: r.off}
	length := r.u32("the length of a role")
	s.Value = r.u32("the value of a role")
	if r.version >= versionBoundary {
		s.Bounds = RoleID(r.u32("the bounds of a role"))
	}
	s.Name = r.name(s.Offset, length, "role")
	s.Dominates = r.bitmap("dominated roles")
	s.Types = r.bitmap("types of a role")
	return s
}

// Properties of types.
const (
	propertyPrimary   = 1
	propertyAttribute = 2
)

func (r *reader) typ() Type {
	s := Type{Offset: r.off}
	length := r.u32("the length of a type")
	s.Value = uint32(r.u16("value of a type"))
	s.properties = r.u32("the properties of a type")
	if r.version >= versionBoundary {
		s.Bounds = TypeID(r.u16("bounds of a type"))
		s.Attribute = s.properties&propertyAttribute != 0
		s.Alias = s.properties&propertyPrimary == 0
	} else {
		s.Alias = s.properties == 0
	}
	s.Name = r.name(s.Offset, length, "type")
	// An attribute is no alias, whatever the primary bit says.
	s.Alias = s.Alias && !s.Attribute
	return s
}

func (r *reader) user() User {
	s := User{Offset: r.off}
	length := r.u32("the length of a user")
	s.Value = r.u32("the value of a user")
	if r.version >= versionBoundary {
		s.Bounds = UserID(r.u32("the bounds of a user"))
	}
	s.Name = r.name(s.Offset, length, "user")
	s.Roles = r.bitmap("roles of a user")
	if r.version >= versionMLS {
		s.Range = r.mlsRange()
		s.DefaultLevel = r.level()
	}
	return s
}

func (r *reader) boolean() Boolean {
	s := Boolean{Offset: r.off}
	s.Value = r.u32("the value of a boolean")
	state := r.u32("the state of a boolean")
	if state > 1 {
		r.failf(s.Offset+4, "a boolean's state 0 or 1", "%d", state)
	}
	s.State = state == 1
	length := r.u32("the length of a boolean")
	s.Name = r.name(s.Offset+8, length, "boolean")
	return s
}

func (r *reader) alias(off int) bool {
	v := r.u32("whether a name is an alias")
	if v > 1 {
		r.failf(off, "0 or 1 for an alias", "%d", v)
	}
	return v != 0
}

func (r *reader) sensitivity() Sensitivity {
	s := Sensitivity{Offset: r.off}
	length := r.u32("the length of a sensitivity")
	s.Alias = r.alias(s.Offset + 4)
	s.Name = r.name(s.Offset, length, "sensitivity")
	s.Level = r.level()
	return s
}

func (r *reader) category() Category {
	s := Category{Offset: r.off}
	length := r.u32("the length of a category")
	s.Value = r.u32("the value of a category")
	s.Alias = r.alias(s.Offset + 8)
	s.Name = r.name(s.Offset, length, "category")
	return s
}

func (r *reader) level() Level {
	return Level{Sensitivity: SensID(r.u32("a sensitivity")), Categories: r.bitmap("categories")}
}

func (r *reader) mlsRange() Range {
	off := r.off
	n := r.u32("the number of levels")
	if (n < 1 || n > 2) && r.err == nil {
		r.failf(off, "a range of 1 or 2 levels", "%d", n)
		return Range{}
	}
	var g Range
	g.split = n == 2
	g.Low.Sensitivity = SensID(r.u32("a sensitivity"))
	if g.split {
		g.High.Sensitivity = SensID(r.u32("a sensitivity"))
	}
	g.Low.Categories = r.bitmap("categories")
	if g.split {
		g.High.Categories = r.bitmap("categories")
	} else {
		g.High = g.Low
	}
	return g
}

func (r *reader) context() Context {
	c := Context{
		User: UserID(r.u32("the user of a context")),
		Role: RoleID(r.u32("the role of a context")),
		Type: TypeID(r.u16("type of a context")),
	}
	if r.version >= versionMLS {
		c.Range = r.mlsRange()
	}
	return c
}

func (r *reader) rules(p *Policy) {
	r.section = "rules"
	off := r.off
	n := r.count("rules", 12)
	p.offsets.rules = r.off
	if n == 0 && r.err == nil {
		r.fail(off, "at least one rule", "none")
	}
	p.Rules = r.ruleList(p, n)
}

func (r *reader) ruleList(p *Policy, n int) []Rule {
	if r.err != nil || n == 0 {
		return nil
	}
	if r.version < versionAvtab {
		return r.oldRules(p, n)
	}
	list := make([]Rule, 0, n)
	data, off := r.data, r.off
	for range n {
		if len(data)-off < 12 {
			r.off = off
			r.take(12, "a rule")
			return nil
		}
		s := data[off : off+12]
		rule := Rule{
			Source: TypeID(uint16(s[0]) | uint16(s[1])<<8),
			Target: TypeID(uint16(s[2]) | uint16(s[3])<<8),
			Class:  ClassID(uint16(s[4]) | uint16(s[5])<<8),
			raw:    uint16(s[6]) | uint16(s[7])<<8,
			Data:   le32(s[8:]),
		}
		kind := rule.Kind()
		if RuleKind(rule.raw)&^(ruleKinds|kindEnabled) != 0 || bits.OnesCount16(uint16(kind)) != 1 {
			r.failf(off+6, "one kind of rule", "0x%x", rule.raw)
			return nil
		}
		if kind.IsXPerm() {
			r.off = off + 8
			rule.Data = r.xperms(p, off)
			if r.err != nil {
				return nil
			}
			off = r.off
		} else {
			off += 12
		}
		list = append(list, rule)
	}
	r.off = off
	return list
}

func (r *reader) xperms(p *Policy, off int) uint32 {
	if r.version < versionXperms || r.target != SELinux {
		r.failf(off+6, "extended permissions only from version 30 on, for selinux", "version %d for %s", r.version, r.target)
		return 0
	}
	s := r.take(34, "extended permissions")
	if len(s) < 34 {
		return 0
	}
	x := XPermSet{Kind: s[0], Driver: s[1]}
	for i := range x.Bits {
		x.Bits[i] = le32(s[2+i*4:])
	}
	p.XPermSets = append(p.XPermSets, x)
	return uint32(len(p.XPermSets) - 1)
}

// enabledOld is the enabled bit of conditional rules in versions 15 to 19.
const enabledOld = 0x80000000

// oldRules reads the rules of versions 15 to 19, where one entry may hold
// several kinds for the same source, target and class.
//
// Source: security/selinux/ss/avtab.c, avtab_read_item.
func (r *reader) oldRules(_ *Policy, n int) []Rule {
	list := make([]Rule, 0, n)
	for range n {
		off := r.off
		items := r.u32("the number of words of a rule")
		if (items < 5 || items > 7) && r.err == nil {
			r.failf(off, "a rule of 5 to 7 words", "%d", items)
		}
		source := TypeID(r.u16("source of a rule"))
		target := TypeID(r.u16("target of a rule"))
		class := ClassID(r.u16("class of a rule"))
		at := r.off
		kinds := r.u32("the kinds of a rule")
		vector, typ := kinds&uint32(vectorKinds), kinds&uint32(typeKinds)
		if ((vector == 0) == (typ == 0) || uint32(bits.OnesCount32(vector|typ)) != items-4 ||
			kinds&^(vector|typ|enabledOld) != 0) && r.err == nil {
			r.failf(at, fmt.Sprintf("%d kinds of rule, all permissions or all types", items-4), "0x%x", kinds)
		}
		if r.err != nil {
			return nil
		}
		flags := RuleKind(0)
		if kinds&enabledOld != 0 {
			flags = kindEnabled
		}
		// The words of an entry are in this order, not in that of the bits.
		for _, k := range [...]RuleKind{Allow, DontAudit, AuditAllow, TypeTransition, TypeChange, TypeMember} {
			if kinds&uint32(k) != 0 {
				list = append(list, NewRule(k|flags, source, target, class, r.u32("a word of a rule")))
				flags |= kindJoined
			}
		}
	}
	return list
}

func (r *reader) conditionals(p *Policy) {
	r.section = "conditionals"
	n := r.count("conditionals", 16)
	if n > 0 {
		p.Conditionals = make([]Conditional, 0, n)
	}
	for range n {
		c := Conditional{Offset: r.off, State: r.u32("the state of a conditional")}
		items := r.count("items of a conditional", 8)
		c.Expr = make([]CondExpr, 0, items)
		depth := 0
		for range items {
			off := r.off
			e := CondExpr{Op: CondOp(r.u32("an item of a conditional")), Bool: BoolID(r.u32("a boolean"))}
			c.Expr = append(c.Expr, e)
			switch {
			case e.Op == CondBool:
				depth++
			case e.Op == CondNot && depth >= 1:
			case e.Op >= CondOr && e.Op <= CondNeq && depth >= 2:
				depth--
			default:
				r.failf(off, "an item of a conditional from 1 to 7 with its values before it", "%d after %d values", e.Op, depth)
			}
			// The kernel's stack has ten places.
			if depth > maxCondDepth {
				r.failf(off, fmt.Sprintf("a conditional with at most %d values at a time", maxCondDepth), "%d", depth)
			}
			if r.err != nil {
				return
			}
		}
		if depth != 1 && r.err == nil {
			r.failf(c.Offset, "a conditional that leaves one value", "%d values", depth)
		}
		c.True = r.ruleList(p, r.count("rules of a conditional", 12))
		c.False = r.ruleList(p, r.count("rules of a conditional", 12))
		if r.err != nil {
			return
		}
		p.Conditionals = append(p.Conditionals, c)
	}
}

const maxCondDepth = 10

func (r *reader) roleRules(p *Policy) {
	r.section = "role transitions"
	size := 12
	if r.version >= versionRoleTrans {
		size = 16
	}
	n := r.count("role transitions", size)
	process := p.processClass()
	for range n {
		t := RoleTransition{
			Role:    RoleID(r.u32("the role of a role transition")),
			Type:    TypeID(r.u16("type of a role transition")),
			NewRole: RoleID(r.u32("the new role of a role transition")),
			Class:   process,
		}
		if r.version >= versionRoleTrans {
			t.Class = ClassID(r.u16("class of a role transition"))
		}
		p.RoleTransitions = append(p.RoleTransitions, t)
	}
	r.section = "role allows"
	n = r.count("role allows", 8)
	for range n {
		p.RoleAllows = append(p.RoleAllows, RoleAllow{
			Role:    RoleID(r.u32("the role of a role allow")),
			NewRole: RoleID(r.u32("the new role of a role allow")),
		})
	}
}

func (r *reader) filenameTransitions(p *Policy) {
	r.section = "filename transitions"
	if r.version < versionCompFilename {
		n := r.count("filename transitions", 20)
		for range n {
			off := r.off
			length := r.u32("the length of a file name")
			t := FilenameTransition{Name: r.name(off, length, "file name")}
			at := r.off
			source := uint32(r.u16("source of a filename transition"))
			t.Target = TypeID(r.u16("target of a filename transition"))
			t.Class = ClassID(r.u16("class of a filename transition"))
			typ := TypeID(r.u16("new type of a filename transition"))
			if source == 0 && r.err == nil {
				r.fail(at, "a source of a filename transition", "0")
			}
			if r.err != nil {
				return
			}
			t.Outcomes = []FilenameOutcome{{Sources: BitmapOfValues(source), Type: typ}}
			p.FilenameTransitions = append(p.FilenameTransitions, t)
		}
		return
	}
	n := r.count("filename transitions", 16)
	for range n {
		off := r.off
		length := r.u32("the length of a file name")
		t := FilenameTransition{
			Name:   r.name(off, length, "file name"),
			Target: TypeID(r.u16("target of a filename transition")),
			Class:  ClassID(r.u16("class of a filename transition")),
		}
		at := r.off
		outcomes := r.count("outcomes of a filename transition", 16)
		if outcomes == 0 && r.err == nil {
			r.fail(at, "at least one outcome of a filename transition", "none")
		}
		for range outcomes {
			t.Outcomes = append(t.Outcomes, FilenameOutcome{
				Sources: r.bitmap("sources of a filename transition"),
				Type:    TypeID(r.u16("new type of a filename transition")),
			})
			if r.err != nil {
				return
			}
		}
		p.FilenameTransitions = append(p.FilenameTransitions, t)
	}
}

func (r *reader) rangeTransitions(p *Policy) {
	r.section = "range transitions"
	n := r.count("range transitions", 28)
	process := p.processClass()
	for range n {
		t := RangeTransition{
			Source: TypeID(r.u16("source of a range transition")),
			Target: TypeID(r.u16("target of a range transition")),
			Class:  process,
		}
		if r.version >= versionRangeTrans {
			t.Class = ClassID(r.u16("class of a range transition"))
		}
		t.Range = r.mlsRange()
		if r.err != nil {
			return
		}
		p.RangeTransitions = append(p.RangeTransitions, t)
	}
}

func (r *reader) typeAttributes(p *Policy) {
	r.section = "attributes of types"
	if r.err != nil {
		return
	}
	if r.version < versionAvtab {
		p.TypeAttributes = make([]Bitmap, p.Types.Prim)
		for i := range p.TypeAttributes {
			p.TypeAttributes[i] = BitmapOf(uint32(i))
		}
		return
	}
	p.offsets.typeAttributes = r.off
	n := r.checkCount(r.off, p.Types.Prim, "attribute sets of types", 12)
	p.TypeAttributes = make([]Bitmap, n)
	for i := range p.TypeAttributes {
		p.TypeAttributes[i] = r.bitmap("attributes of a type")
		if r.err != nil {
			return
		}
	}
}

// processClass returns the class of role and range transitions in versions whose
// rules name none: process, or domain on Xen; 0 when the policy has neither.
func (p *Policy) processClass() ClassID {
	name := "process"
	if p.Target == Xen {
		name = "domain"
	}
	if c := p.Classes.ByName(name); c != nil {
		return ClassID(c.Value)
	}
	return 0
}
