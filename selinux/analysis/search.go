// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// Query selects rules. What is empty matches everything.
type Query struct {
	// Kinds are type enforcement rules to search.
	Kinds []policydb.RuleKind
	// RoleAllows, RoleTransitions and RangeTransitions are searched too.
	RoleAllows, RoleTransitions, RangeTransitions bool

	// Source and Target are names of types or attributes (of roles in rules about
	// roles). Unless Direct is set, a rule matches when the name and what the rule
	// is written with have a type in common.
	Source, Target             string
	SourceDirect, TargetDirect bool
	SourceRegexp, TargetRegexp bool

	Classes     []string
	ClassRegexp bool

	// Permissions match a rule that has one of them; with PermsEqual it has these
	// and no others, with PermsSubset all of these.
	Permissions             []string
	PermsEqual, PermsSubset bool

	// XPerms are extended permissions, ranges of numbers.
	XPerms      [][2]uint16
	XPermsEqual bool

	Default       string // new type, role or (as text) range
	DefaultRegexp bool

	Booleans   []string // one of them is in the rule's condition
	BoolsEqual bool
	BoolRegexp bool
}

// UnknownNameError says that a query names what the policy does not have.
type UnknownNameError struct{ Kind, Name string }

func (e *UnknownNameError) Error() string {
	return fmt.Sprintf("no %s %q in the policy", e.Kind, e.Name)
}

// Search returns the matching rules as statements of the policy language, sorted.
// A rule that depends on booleans has the condition behind it. The error is an
// [*UnknownNameError] or that of a regular expression.
func Search(p *policydb.Policy, q Query) ([]string, error) {
	s, err := newSearcher(p, q)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range p.Rules {
		if s.rule(r, nil) {
			out = append(out, s.print(r, ""))
		}
	}
	for i := range p.Conditionals {
		c := &p.Conditionals[i]
		var condition string
		for branch, rules := range [][]policydb.Rule{c.True, c.False} {
			for _, r := range rules {
				if !s.rule(r, c) {
					continue
				}
				if condition == "" {
					condition = s.condition(c.Expr)
				}
				out = append(out, s.print(r, " [ "+condition+" ]:"+[]string{"True", "False"}[branch]))
			}
		}
	}
	out = append(out, s.filenames()...)
	out = append(out, s.roles()...)
	out = append(out, s.ranges()...)
	slices.Sort(out)
	return out, nil
}

type searcher struct {
	p *policydb.Policy
	q Query

	kinds           map[policydb.RuleKind]bool
	source, target  matcher
	def             matcher
	class           map[policydb.ClassID]bool // nil matches all
	perms           map[string]bool
	booleans        map[policydb.BoolID]bool
	roleSrc, roleTo matcher
}

// matcher tells for each type (or role) whether it matches; nil matches all.
type matcher []bool

func (m matcher) has(v uint32) bool { return m == nil || (v > 0 && int(v) <= len(m) && m[v-1]) }

func newSearcher(p *policydb.Policy, q Query) (*searcher, error) {
	s := &searcher{p: p, q: q, kinds: map[policydb.RuleKind]bool{}}
	for _, k := range q.Kinds {
		s.kinds[k] = true
	}
	var err error
	about := func(kind, name string, direct, re bool, find func(string, bool, bool) (matcher, error)) (m matcher) {
		if name == "" || err != nil {
			return nil
		}
		m, err = find(name, direct, re)
		return m
	}
	if len(q.Kinds) > 0 || q.RangeTransitions {
		s.source = about("type", q.Source, q.SourceDirect, q.SourceRegexp, s.types)
		s.target = about("type", q.Target, q.TargetDirect, q.TargetRegexp, s.types)
		if len(q.Kinds) > 0 {
			s.def = about("type", q.Default, false, q.DefaultRegexp, s.types)
		}
	}
	if q.RoleAllows || q.RoleTransitions {
		s.roleSrc = about("role", q.Source, q.SourceDirect, q.SourceRegexp, s.roleSet)
		to := q.Target
		if q.RoleTransitions {
			// The target of a role_transition is a type, its default a role.
			s.target = about("type", q.Target, q.TargetDirect, q.TargetRegexp, s.types)
			to = q.Default
		}
		s.roleTo = about("role", to, true, q.TargetRegexp && !q.RoleTransitions || q.DefaultRegexp && q.RoleTransitions, s.roleSet)
	}
	if err != nil {
		return nil, err
	}
	if err := s.classes(); err != nil {
		return nil, err
	}
	if err := s.permissions(); err != nil {
		return nil, err
	}
	return s, s.bools()
}

// types returns which type and attribute values match a name: for a rule's
// source, that is written with a value, the answer is one look-up.
func (s *searcher) types(name string, direct, re bool) (matcher, error) {
	m := make(matcher, s.p.Types.Prim)
	hit := make(matcher, s.p.Types.Prim) // types, not attributes
	if re {
		x, err := regexp.Compile(name)
		if err != nil {
			return nil, err
		}
		for v := uint32(1); v <= s.p.Types.Prim; v++ {
			m[v-1] = x.MatchString(s.p.TypeName(policydb.TypeID(v)))
		}
		if direct {
			return m, nil
		}
		copy(hit, m)
	} else {
		t := s.p.Types.ByName(name)
		if t == nil {
			return nil, &UnknownNameError{"type or attribute", name}
		}
		if direct {
			m[t.Value-1] = true
			return m, nil
		}
		for _, v := range s.p.TypesOf(policydb.TypeID(t.Value)) {
			hit[v-1] = true
		}
	}
	for v := uint32(1); v <= s.p.Types.Prim; v++ {
		m[v-1] = slices.ContainsFunc(s.p.TypesOf(policydb.TypeID(v)), func(t policydb.TypeID) bool { return hit[t-1] })
	}
	return m, nil
}

func (s *searcher) roleSet(name string, _, re bool) (matcher, error) {
	m := make(matcher, s.p.Roles.Prim)
	if re {
		x, err := regexp.Compile(name)
		if err != nil {
			return nil, err
		}
		for i := range s.p.Roles.Entries {
			m[s.p.Roles.Entries[i].Value-1] = x.MatchString(s.p.Roles.Entries[i].Name)
		}
		return m, nil
	}
	r := s.p.Roles.ByName(name)
	if r == nil {
		return nil, &UnknownNameError{"role", name}
	}
	m[r.Value-1] = true
	return m, nil
}

func (s *searcher) classes() error {
	if len(s.q.Classes) == 0 {
		return nil
	}
	s.class = map[policydb.ClassID]bool{}
	for _, name := range s.q.Classes {
		if s.q.ClassRegexp {
			x, err := regexp.Compile(name)
			if err != nil {
				return err
			}
			for i := range s.p.Classes.Entries {
				if c := &s.p.Classes.Entries[i]; x.MatchString(c.Name) {
					s.class[c.ID()] = true
				}
			}
			continue
		}
		c := s.p.Classes.ByName(name)
		if c == nil {
			return &UnknownNameError{"class", name}
		}
		s.class[c.ID()] = true
	}
	return nil
}

func (s *searcher) permissions() error {
	if len(s.q.Permissions) == 0 {
		return nil
	}
	s.perms = map[string]bool{}
	for _, name := range s.q.Permissions {
		known := false
		for i := range s.p.Classes.Entries {
			c := &s.p.Classes.Entries[i]
			if (s.class == nil || s.class[c.ID()]) && c.PermissionMask(name) != 0 {
				known = true
				break
			}
		}
		if !known {
			return &UnknownNameError{"permission", name}
		}
		s.perms[name] = true
	}
	return nil
}

func (s *searcher) bools() error {
	if len(s.q.Booleans) == 0 {
		return nil
	}
	s.booleans = map[policydb.BoolID]bool{}
	for _, name := range s.q.Booleans {
		if s.q.BoolRegexp {
			x, err := regexp.Compile(name)
			if err != nil {
				return err
			}
			for i := range s.p.Booleans.Entries {
				if b := &s.p.Booleans.Entries[i]; x.MatchString(b.Name) {
					s.booleans[policydb.BoolID(b.Value)] = true
				}
			}
			continue
		}
		b := s.p.Booleans.ByName(name)
		if b == nil {
			return &UnknownNameError{"boolean", name}
		}
		s.booleans[policydb.BoolID(b.Value)] = true
	}
	return nil
}

func (s *searcher) rule(r policydb.Rule, c *policydb.Conditional) bool {
	kind := r.Kind()
	if !s.kinds[kind] || !s.source.has(uint32(r.Source)) || !s.target.has(uint32(r.Target)) ||
		(s.class != nil && !s.class[r.Class]) {
		return false
	}
	if s.q.Default != "" && (!kind.IsType() || !s.def.has(r.Data)) {
		return false
	}
	if s.perms != nil && !s.matchPerms(r) {
		return false
	}
	if len(s.q.XPerms) > 0 && !s.matchXPerms(r) {
		return false
	}
	return s.booleans == nil || (c != nil && s.matchBools(c))
}

func (s *searcher) matchPerms(r policydb.Rule) bool {
	switch kind := r.Kind(); {
	case kind.IsXPerm():
		if s.q.PermsEqual && len(s.perms) > 1 {
			return false
		}
		return s.perms[xpermName(s.p.XPerms(r))]
	case !kind.IsVector():
		return false
	}
	class := s.p.Classes.ByValue(uint32(r.Class))
	if class == nil {
		return false
	}
	var want uint32
	missing := false
	for name := range s.perms {
		if bit := class.PermissionMask(name); bit != 0 {
			want |= bit
		} else {
			missing = true
		}
	}
	have := r.Vector() & class.AllPermissions()
	switch {
	case s.q.PermsEqual:
		return !missing && have == want
	case s.q.PermsSubset:
		return !missing && have&want == want
	default:
		return have&want != 0
	}
}

func xpermName(x *policydb.XPermSet) string {
	if x != nil && x.Kind == policydb.XPermNetlink {
		return "nlmsg"
	}
	return "ioctl"
}

func (s *searcher) matchXPerms(r policydb.Rule) bool {
	if !r.Kind().IsXPerm() {
		return false
	}
	have := xpermNumbers(s.p.XPerms(r))
	want := map[uint16]bool{}
	for _, span := range s.q.XPerms {
		for n := uint32(span[0]); n <= uint32(span[1]); n++ {
			want[uint16(n)] = true
		}
	}
	common := 0
	for _, n := range have {
		if want[n] {
			common++
		}
	}
	if s.q.XPermsEqual {
		return common == len(have) && common == len(want)
	}
	return common > 0
}

// xpermNumbers expands a set: a driver's bit stands for all of its 256 numbers.
func xpermNumbers(x *policydb.XPermSet) []uint16 {
	if x == nil {
		return nil
	}
	var out []uint16
	for bit := range uint16(256) {
		if !x.Has(uint8(bit)) {
			continue
		}
		if x.Kind == policydb.XPermIoctlDriver {
			for low := range uint16(256) {
				out = append(out, bit<<8|low)
			}
			continue
		}
		out = append(out, uint16(x.Driver)<<8|bit)
	}
	return out
}

func (s *searcher) matchBools(c *policydb.Conditional) bool {
	in := map[policydb.BoolID]bool{}
	common := 0
	for _, e := range c.Expr {
		if e.Op == policydb.CondBool && !in[e.Bool] {
			in[e.Bool] = true
			if s.booleans[e.Bool] {
				common++
			}
		}
	}
	if s.q.BoolsEqual && !s.q.BoolRegexp {
		return common == len(in) && common == len(s.booleans)
	}
	return common > 0
}

// print writes a rule as sesearch does, so that scripts can take either.
func (s *searcher) print(r policydb.Rule, condition string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s:%s ", r.Kind(), s.p.TypeName(r.Source), s.p.TypeName(r.Target), s.p.ClassName(r.Class))
	switch kind := r.Kind(); {
	case kind.IsType():
		b.WriteString(s.p.TypeName(policydb.TypeID(r.Data)))
	case kind.IsXPerm():
		x := s.p.XPerms(r)
		b.WriteString(xpermName(x) + " " + braces(spans(xpermNumbers(x))))
		condition = "" // sesearch leaves it out here
	default:
		if class := s.p.Classes.ByValue(uint32(r.Class)); class != nil {
			names := class.PermissionNames(r.Vector())
			slices.Sort(names)
			b.WriteString(braces(names))
		}
	}
	return b.String() + ";" + condition
}

func braces(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return "{ " + strings.Join(words, " ") + " }"
}

// spans compresses sorted numbers to ranges.
func spans(numbers []uint16) []string {
	slices.Sort(numbers)
	var out []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprintf("0x%04x", numbers[i]))
		} else {
			out = append(out, fmt.Sprintf("0x%04x-0x%04x", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return out
}

var condOps = map[policydb.CondOp]struct {
	text       string
	precedence int
}{
	policydb.CondNot: {"!", 5}, policydb.CondOr: {"||", 1}, policydb.CondAnd: {"&&", 3},
	policydb.CondXor: {"^", 2}, policydb.CondEq: {"==", 4}, policydb.CondNeq: {"!=", 4},
}

// condition prints an expression with the parentheses and the order of operands
// that sesearch has.
//
// Source: setools/policyrep/boolcond.pxi, Conditional.__str__
func (s *searcher) condition(expr []policydb.CondExpr) string {
	type term struct {
		text string
		leaf bool
	}
	var stack []term
	pop := func() term {
		if len(stack) == 0 {
			return term{"?", true}
		}
		t := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return t
	}
	previous := 5
	for _, e := range expr {
		op := condOps[e.Op]
		switch e.Op {
		case policydb.CondBool:
			name := "?"
			if b := s.p.Booleans.ByValue(uint32(e.Bool)); b != nil {
				name = b.Name
			}
			stack = append(stack, term{name, true})
			continue
		case policydb.CondNot:
			t := pop()
			if t.leaf {
				stack = append(stack, term{op.text + " " + t.text, false})
			} else {
				stack = append(stack, term{op.text + " ( " + t.text + " )", false})
			}
		default:
			x, y := pop(), pop()
			text := x.text + " " + op.text + " " + y.text
			if previous <= op.precedence {
				text = "( " + text + " )"
			}
			stack = append(stack, term{text, false})
		}
		previous = op.precedence
	}
	return pop().text
}

func (s *searcher) filenames() []string {
	if !s.kinds[policydb.TypeTransition] || s.perms != nil || s.booleans != nil || len(s.q.XPerms) > 0 {
		return nil
	}
	var out []string
	for _, f := range s.p.FilenameTransitions {
		if !s.target.has(uint32(f.Target)) || (s.class != nil && !s.class[f.Class]) {
			continue
		}
		for _, o := range f.Outcomes {
			if s.q.Default != "" && !s.def.has(uint32(o.Type)) {
				continue
			}
			for v := range o.Sources.Values() {
				if s.source.has(v) {
					out = append(out, fmt.Sprintf("type_transition %s %s:%s %s %s;",
						s.p.TypeName(policydb.TypeID(v)), s.p.TypeName(f.Target), s.p.ClassName(f.Class), s.p.TypeName(o.Type), f.Name))
				}
			}
		}
	}
	return out
}

func (s *searcher) roles() []string {
	name := func(r policydb.RoleID) string {
		if e := s.p.Roles.ByValue(uint32(r)); e != nil {
			return e.Name
		}
		return strconv.Itoa(int(r))
	}
	var out []string
	if s.q.RoleAllows && s.class == nil && s.q.Default == "" {
		for _, a := range s.p.RoleAllows {
			if s.roleSrc.has(uint32(a.Role)) && s.roleTo.has(uint32(a.NewRole)) {
				out = append(out, fmt.Sprintf("allow %s %s;", name(a.Role), name(a.NewRole)))
			}
		}
	}
	if s.q.RoleTransitions {
		for _, t := range s.p.RoleTransitions {
			class := t.Class
			if class == 0 {
				class = s.processClass()
			}
			if s.roleSrc.has(uint32(t.Role)) && s.target.has(uint32(t.Type)) && s.roleTo.has(uint32(t.NewRole)) && (s.class == nil || s.class[class]) {
				out = append(out, fmt.Sprintf("role_transition %s %s:%s %s;", name(t.Role), s.p.TypeName(t.Type), s.p.ClassName(class), name(t.NewRole)))
			}
		}
	}
	return out
}

func (s *searcher) processClass() policydb.ClassID {
	if c := s.p.Classes.ByName("process"); c != nil {
		return c.ID()
	}
	return 0
}

func (s *searcher) ranges() []string {
	if !s.q.RangeTransitions {
		return nil
	}
	var out []string
	for _, t := range s.p.RangeTransitions {
		class := t.Class
		if class == 0 {
			class = s.processClass()
		}
		text := s.p.RangeString(t.Range)
		if s.source.has(uint32(t.Source)) && s.target.has(uint32(t.Target)) && (s.class == nil || s.class[class]) && (s.q.Default == "" || s.q.Default == text) {
			out = append(out, fmt.Sprintf("range_transition %s %s:%s %s;", s.p.TypeName(t.Source), s.p.TypeName(t.Target), s.p.ClassName(class), strings.Replace(text, "-", " - ", 1)))
		}
	}
	return out
}
