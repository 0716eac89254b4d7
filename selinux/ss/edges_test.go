// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// reference decides as the kernel's steps read, without an index, a cache or compiled
// expressions.
type reference struct {
	p *policydb.Policy
	s *Server // for the values of booleans and the attributes of types
}

func (r reference) matches(typ, of policydb.TypeID) bool {
	return slices.Contains(r.s.attributes[of-1], typ)
}

// rules are all in force.
func (r reference) rules(yield func(policydb.Rule)) {
	for _, x := range r.p.Rules {
		yield(x)
	}
	for i := range r.p.Conditionals {
		c := &r.p.Conditionals[i]
		list := c.False
		if r.s.state[i] {
			list = c.True
		}
		for _, x := range list {
			yield(x)
		}
	}
}

func (r reference) decide(a, b *Context, class policydb.ClassID) Decision {
	d := Decision{AuditDeny: ^uint32(0)}
	if r.p.Permissive.Has(uint32(a.typ)) {
		d.Flags |= 1
	}
	if r.p.NeverAudit.Has(uint32(a.typ)) {
		d.Flags |= 2
	}
	if d.Flags == 3 {
		d.Allowed = ^uint32(0)
		return d
	}
	c := r.p.Classes.ByValue(uint32(class))
	if c == nil {
		if class == 0 && r.p.HandleUnknown() == policydb.AllowUnknown {
			d.Allowed = ^uint32(0)
		}
		return d
	}
	d.Allowed, d.AuditAllow, d.AuditDeny = r.vector(a, b, c)
	return d
}

func (r reference) vector(a, b *Context, c *policydb.Class) (allowed, auditAllow, auditDeny uint32) {
	auditDeny = ^uint32(0)
	r.rules(func(x policydb.Rule) {
		if uint32(x.Class) != c.Value || !r.matches(x.Source, a.typ) || !r.matches(x.Target, b.typ) {
			return
		}
		switch x.Kind() {
		case policydb.Allow:
			allowed |= x.Data
		case policydb.AuditAllow:
			auditAllow |= x.Data
		case policydb.DontAudit:
			auditDeny &= x.Data
		}
	})
	for i := range c.Constraints {
		if !r.constraint(&c.Constraints[i], a, b, nil) {
			allowed &^= c.Constraints[i].Permissions
		}
	}
	if c.Name == "process" && a.role != b.role && !slices.Contains(r.p.RoleAllows, policydb.RoleAllow{Role: a.role, NewRole: b.role}) {
		allowed &^= c.PermissionMask("transition") | c.PermissionMask("dyntransition")
	}
	if t := r.p.Types.ByValue(uint32(a.typ)); t != nil && t.Bounds != 0 {
		up, target := *a, *b
		up.typ = t.Bounds
		if t := r.p.Types.ByValue(uint32(b.typ)); t != nil && t.Bounds != 0 {
			target.typ = t.Bounds
		}
		most, _, _ := r.vector(&up, &target, c)
		allowed &= most
	}
	return allowed, auditAllow, auditDeny
}

// constraint evaluates every part of the expression.
func (r reference) constraint(c *policydb.Constraint, a, b, x *Context) bool {
	var stack []bool
	for i := range c.Expr {
		e := &c.Expr[i]
		n := len(stack)
		switch e.Op {
		case policydb.ConstraintNot:
			stack[n-1] = !stack[n-1]
		case policydb.ConstraintAnd:
			stack = append(stack[:n-2], stack[n-2] && stack[n-1])
		case policydb.ConstraintOr:
			stack = append(stack[:n-2], stack[n-2] || stack[n-1])
		default:
			stack = append(stack, r.leaf(e, a, b, x))
		}
	}
	return stack[0]
}

func (r reference) leaf(e *policydb.ConstraintExpr, a, b, x *Context) bool {
	if e.Op == policydb.ConstraintNames {
		c := a
		if e.Attr&policydb.AttrTarget != 0 {
			c = b
		} else if e.Attr&policydb.AttrXTarget != 0 {
			c = x
		}
		if c == nil {
			return false
		}
		v := uint32(c.typ)
		if e.Attr&policydb.AttrUser != 0 {
			v = uint32(c.user)
		} else if e.Attr&policydb.AttrRole != 0 {
			v = uint32(c.role)
		}
		return e.Names.HasValue(v) == (e.Compare == policydb.CompareEq)
	}
	same := e.Compare == policydb.CompareEq
	switch e.Attr {
	case policydb.AttrUser:
		return same == (a.user == b.user)
	case policydb.AttrType:
		return same == (a.typ == b.typ)
	case policydb.AttrRole:
		// A role that is not there is no policy's: reading one refuses it.
		ra, rb := r.p.Roles.ByValue(uint32(a.role)), r.p.Roles.ByValue(uint32(b.role))
		switch up, down := ra.Dominates.HasValue(uint32(b.role)), rb.Dominates.HasValue(uint32(a.role)); e.Compare {
		case policydb.CompareEq:
			return a.role == b.role
		case policydb.CompareNeq:
			return a.role != b.role
		case policydb.CompareDom:
			return up
		case policydb.CompareDomBy:
			return down
		case policydb.CompareIncomp:
			return !up && !down
		}
		return false
	}
	pair := map[uint32][2]level{
		policydb.AttrL1L2: {a.low, b.low}, policydb.AttrL1H2: {a.low, b.high}, policydb.AttrH1L2: {a.high, b.low}, policydb.AttrH1H2: {a.high, b.high}, policydb.AttrL1H1: {a.low, a.high}, policydb.AttrL2H2: {b.low, b.high},
	}[e.Attr]
	above := func(l, m level) bool {
		for i, w := range m.cats {
			if i >= len(l.cats) && w != 0 || i < len(l.cats) && w&^l.cats[i] != 0 {
				return false
			}
		}
		return l.sens >= m.sens
	}
	up, down := above(pair[0], pair[1]), above(pair[1], pair[0])
	switch e.Compare {
	case policydb.CompareEq:
		return up && down
	case policydb.CompareNeq:
		return !up || !down
	case policydb.CompareDom:
		return up
	case policydb.CompareDomBy:
		return down
	case policydb.CompareIncomp:
		return !up && !down
	}
	return false
}

// variants are the seeds' policies and what can be made of one: bounds, permissive and
// muted domains, booleans the other way round.
func variants(t *testing.T) []*Server {
	t.Helper()
	var out []*Server
	for i, data := range seeds(t) {
		s := loadServer(t, data)
		out = append(out, s)
		flipped := map[string]bool{}
		for b := range s.policy.Booleans.All() {
			v, _ := s.Boolean(b.Name)
			flipped[b.Name] = !v
		}
		if len(flipped) > 0 {
			other, err := s.WithBooleans(flipped)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, other)
		}
		if i > 0 {
			continue
		}
		p, err := policydb.Load(withBounds(t, s.policy, newGenerator(s.policy, 5)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, New(p))
	}
	return out
}

// TestDecideAsWritten compares decisions with the reference's, on all policies and for
// all classes.
func TestDecideAsWritten(t *testing.T) {
	const n = 60
	allowed := 0
	for i, s := range variants(t) {
		r := reference{s.policy, s}
		contexts := slices.DeleteFunc(resolve(s, newGenerator(s.policy, uint64(i)).contexts(n)), func(c *Context) bool { return c == nil })
		for _, a := range contexts {
			for _, b := range contexts {
				for class := range policydb.ClassID(s.policy.Classes.Prim + 2) {
					got, want := s.Decide(a, b, class), r.decide(a, b, class)
					if got != want {
						t.Fatalf("policy %d, %s %s class %d: %s, want %s", i, a, b, class, describe(got), describe(want))
					}
					if again := s.Decide(a, b, class); again != got {
						t.Fatalf("policy %d, %s %s class %d: %s, and again %s", i, a, b, class, describe(got), describe(again))
					}
					if got.Allowed != 0 {
						allowed++
					}
				}
			}
		}
	}
	if allowed < 100 {
		t.Errorf("only %d decisions allow something", allowed)
	}
}

// TestConstraintsAsWritten evaluates random expressions in both ways.
func TestConstraintsAsWritten(t *testing.T) {
	s := seedServer(t)
	// Give one role another to dominate.
	var roles []*policydb.Role
	for role := range s.policy.Roles.All() {
		roles = append(roles, role)
	}
	if len(roles) < 3 {
		t.Fatalf("%d roles", len(roles))
	}
	roles[1].Dominates = policydb.BitmapOf(roles[1].Value-1, roles[2].Value-1)
	rng := rand.New(rand.NewPCG(3, 9))
	level := func() level {
		l := level{sens: policydb.SensID(1 + rng.IntN(2))}
		for range rng.IntN(3) {
			l.cats = append(l.cats, rng.Uint64()&rng.Uint64())
		}
		l.cats = trim(l.cats)
		return l
	}
	context := func() *Context {
		c := &Context{user: policydb.UserID(1 + rng.IntN(3)), role: policydb.RoleID(roles[rng.IntN(3)].Value), typ: policydb.TypeID([]int{1, 2, 63, 64, 65, 66}[rng.IntN(6)]), low: level()}
		c.high = c.low
		if rng.IntN(2) == 0 {
			c.high = level()
		}
		return c
	}
	leaf := func() policydb.ConstraintExpr {
		compares := []uint32{policydb.CompareEq, policydb.CompareNeq, policydb.CompareDom, policydb.CompareDomBy, policydb.CompareIncomp}
		if rng.IntN(2) == 0 {
			attr := []uint32{policydb.AttrUser, policydb.AttrRole, policydb.AttrType}[rng.IntN(3)] | []uint32{0, policydb.AttrTarget, policydb.AttrXTarget}[rng.IntN(3)]
			var names []uint32
			for range rng.IntN(4) {
				names = append(names, []uint32{0, 1, 2, 62, 63, 64, 65}[rng.IntN(7)])
			}
			return policydb.ConstraintExpr{Op: policydb.ConstraintNames, Attr: attr, Compare: compares[rng.IntN(2)], Names: policydb.BitmapOf(names...)}
		}
		attr := []uint32{policydb.AttrUser, policydb.AttrRole, policydb.AttrType, policydb.AttrL1L2, policydb.AttrL1H2, policydb.AttrH1L2, policydb.AttrH1H2, policydb.AttrL1H1, policydb.AttrL2H2}[rng.IntN(9)]
		n := 5
		if attr == policydb.AttrUser || attr == policydb.AttrType {
			n = 2
		}
		return policydb.ConstraintExpr{Op: policydb.ConstraintAttr, Attr: attr, Compare: compares[rng.IntN(n)]}
	}
	var tree func(depth int) []policydb.ConstraintExpr
	tree = func(depth int) []policydb.ConstraintExpr {
		if depth == 0 || rng.IntN(4) == 0 {
			return []policydb.ConstraintExpr{leaf()}
		}
		switch rng.IntN(5) {
		case 0:
			return append(tree(depth-1), policydb.ConstraintExpr{Op: policydb.ConstraintNot})
		case 1, 2:
			return append(append(tree(depth-1), tree(depth-1)...), policydb.ConstraintExpr{Op: policydb.ConstraintAnd})
		}
		return append(append(tree(depth-1), tree(depth-1)...), policydb.ConstraintExpr{Op: policydb.ConstraintOr})
	}
	r := reference{s.policy, s}
	yes := 0
	for range 20_000 {
		c := policydb.Constraint{Permissions: 1, Expr: tree(4)}
		compiled := compileConstraint(&c)
		a, b, x := context(), context(), context()
		if rng.IntN(3) == 0 {
			x = nil
		}
		got, want := compiled.eval(s.policy, a, b, x), r.constraint(&c, a, b, x)
		if got != want {
			t.Fatalf("%+v of %+v, %+v, %+v: %v, want %v", c.Expr, a, b, x, got, want)
		}
		if got {
			yes++
		}
	}
	if yes < 2000 || yes > 18_000 {
		t.Errorf("%d of 20000 hold", yes)
	}
	// Roles that the policy does not have compare with none.
	for _, compare := range []uint32{policydb.CompareDom, policydb.CompareDomBy, policydb.CompareIncomp, 99} {
		if compareRoles(s.policy, 9999, policydb.RoleID(roles[1].Value), compare) || compareRoles(s.policy, policydb.RoleID(roles[1].Value), 9999, compare) {
			t.Errorf("comparison %d with a role that is not there", compare)
		}
	}
	if !compareRoles(s.policy, 7, 7, policydb.CompareEq) || compareRoles(s.policy, 7, 8, policydb.CompareEq) || compareRoles(s.policy, 7, 7, policydb.CompareNeq) || !compareRoles(s.policy, 7, 8, policydb.CompareNeq) {
		t.Error("equal roles")
	}
}

// TestLevels: dominance and equality at the edges of words.
func TestLevels(t *testing.T) {
	l := func(sens int, cats ...uint64) *level { return &level{policydb.SensID(sens), cats} }
	for _, tt := range []struct {
		a, b              *level
		above, below, eq_ bool
	}{
		{l(1), l(1), true, true, true},
		{l(2), l(1), true, false, false},
		{l(1, 1), l(1), true, false, false},
		{l(1, 1), l(1, 2), false, false, false},
		{l(1, 3), l(1, 2), true, false, false},
		{l(1, 0, 1), l(1, 1), false, false, false},
		{l(1, 1, 1), l(1, 1), true, false, false},
		{l(1, 1, 1), l(1, 1, 1), true, true, true},
		{l(1, 1, 2), l(1, 1, 1), false, false, false},
		{l(2, 1), l(1, 1, 1), false, false, false},
		{l(1, 1), l(2, 1), false, true, false},
	} {
		if got := [3]bool{tt.a.dominates(tt.b), tt.b.dominates(tt.a), tt.a.equal(tt.b)}; got != [3]bool{tt.above, tt.below, tt.eq_} {
			t.Errorf("%v and %v: %v", tt.a, tt.b, got)
		}
		if tt.b.equal(tt.a) != tt.eq_ {
			t.Errorf("%v and %v: equality of the second", tt.a, tt.b)
		}
	}
	for _, tt := range []struct {
		a, b *level
		want []uint64
	}{{l(1, 3, 1), l(1, 6), []uint64{2}}, {l(1, 1), l(1, 2), nil}, {l(1, 1, 4), l(1, 1, 8), []uint64{1}}, {l(1, 0, 4), l(1, 1, 4), []uint64{0, 4}}, {l(1), l(1, 1), nil}} {
		if got := tt.a.intersect(tt.b); !slices.Equal(got, tt.want) {
			t.Errorf("%v with %v: %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestNewContexts: what a new object gets, for each default of its class and each kind
// of question. The types have no rules, so the defaults alone count.
func TestNewContexts(t *testing.T) {
	base, err := policydb.Load(seeds(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	low := level{sens: 1, cats: []uint64{1}}
	high := level{sens: 2, cats: []uint64{3}}
	low2, high2 := level{sens: 1}, level{sens: 1, cats: []uint64{2}}
	names := map[uint32]string{}
	for c := range base.Classes.All() {
		names[c.Value] = c.Name
	}
	asked := 0
	for value, name := range names {
		s := New(base)
		rules := s.typeRules()
		class := policydb.ClassID(value)
		_, socket := socketClasses[name]
		if rules.sockets[value-1] != socket {
			t.Errorf("%s: a socket is %v", name, rules.sockets[value-1])
		}
		like := name == "process" || socket
		for _, kind := range []policydb.RuleKind{policydb.TypeTransition, policydb.TypeMember, policydb.TypeChange} {
			{
				for typ, want := range map[uint32]policydb.TypeID{0: map[bool]policydb.TypeID{true: 500, false: 600}[like], policydb.DefaultSource: 500, policydb.DefaultTarget: 600} {
					a := &Context{policy: base, typ: 500}
					b := &Context{policy: base, typ: 600}
					if got := s.newType(rules, kind, a, b, class, &policydb.Class{DefaultType: typ}, like); got != want {
						t.Errorf("%s, type by default %d: %d, want %d", name, typ, got, want)
					}
				}
				for rang, want := range map[uint32][2]level{
					0: {low, low}, policydb.DefaultSourceLow: {low, low}, policydb.DefaultSourceHigh: {high, high}, policydb.DefaultSourceLowHigh: {low, high},
					policydb.DefaultTargetLow: {low2, low2}, policydb.DefaultTargetHigh: {high2, high2}, policydb.DefaultTargetLowHigh: {low2, high2},
					policydb.DefaultGLBLUB: {{sens: 1}, {sens: 1, cats: []uint64{2}}},
				} {
					if kind != policydb.TypeTransition {
						want = [2]level{low, low}
					}
					if like && kind != policydb.TypeMember && (rang == 0 || kind != policydb.TypeTransition) {
						want[1] = high
					}
					n := &Context{}
					a, b := &Context{typ: 500, low: low, high: high}, &Context{typ: 600, low: low2, high: high2}
					if reason := s.newRange(n, rules, kind, a, b, class, &policydb.Class{DefaultRange: rang}, like); reason != "" || !n.low.equal(&want[0]) || !n.high.equal(&want[1]) {
						t.Errorf("%s, %v, range by default %d: %+v (%s), want %v", name, kind, rang, n, reason, want)
					}
					asked++
				}
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d questions", asked)
	}
	for _, tt := range []struct {
		a, b [2]int // sensitivities
		ok   bool
		want [2]int
	}{{[2]int{1, 2}, [2]int{2, 3}, true, [2]int{2, 2}}, {[2]int{1, 1}, [2]int{2, 3}, false, [2]int{}}, {[2]int{2, 3}, [2]int{1, 1}, false, [2]int{}}, {[2]int{2, 3}, [2]int{1, 2}, true, [2]int{2, 2}}, {[2]int{1, 3}, [2]int{1, 3}, true, [2]int{1, 3}}} {
		n := &Context{}
		ctx := func(s [2]int) *Context {
			return &Context{low: level{sens: policydb.SensID(s[0])}, high: level{sens: policydb.SensID(s[1])}}
		}
		reason := greatestLower(n, ctx(tt.a), ctx(tt.b))
		if (reason == "") != tt.ok || tt.ok && (int(n.low.sens) != tt.want[0] || int(n.high.sens) != tt.want[1]) {
			t.Errorf("%v with %v: %+v, %q", tt.a, tt.b, n, reason)
		}
	}
}

// TestUsersAndRoles of new contexts, by the class's defaults.
func TestUsersAndRoles(t *testing.T) {
	for _, name := range []string{"file", "process", "tcp_socket"} {
		like := name != "file"
		for _, user := range []uint32{0, policydb.DefaultSource, policydb.DefaultTarget} {
			for _, role := range []uint32{0, policydb.DefaultSource, policydb.DefaultTarget} {
				p, err := policydb.Load(seeds(t)[0])
				if err != nil {
					t.Fatal(err)
				}
				c := p.Classes.ByName(name)
				if c == nil {
					t.Fatalf("no class %s", name)
				}
				c.DefaultUser, c.DefaultRole, c.DefaultType = user, role, policydb.DefaultSource
				s := New(p)
				a, b := mustParse(t, s, "system_u:system_r:app_t:s0"), mustParse(t, s, "system_u:object_r:data_t:s0")
				// Users and roles that no rule mentions, so that the defaults alone count; such a
				// context is not valid, and its text is in the error.
				for _, kind := range []policydb.RuleKind{policydb.TypeTransition, policydb.TypeMember, policydb.TypeChange} {
					x, y := *a, *b
					y.user = policydb.UserID(p.Users.ByName("plain_u").Value)
					n, err := s.computeContext(kind, &x, &y, policydb.ClassID(c.Value), "")
					got := ""
					var invalid *InvalidResultError
					switch {
					case err == nil:
						got = n.String()
					case errors.As(err, &invalid):
						got = invalid.Context
					default:
						t.Fatal(err)
					}
					wantUser, wantRole := "system_u", "object_r"
					if kind == policydb.TypeMember || user == policydb.DefaultTarget {
						wantUser = "plain_u"
					}
					if role == policydb.DefaultSource || role == 0 && like {
						wantRole = "system_r"
					}
					if role == policydb.DefaultTarget {
						wantRole = "object_r"
					}
					if want := fmt.Sprintf("%s:%s:", wantUser, wantRole); len(got) < len(want) || got[:len(want)] != want {
						t.Errorf("%s, %v, user %d, role %d: %s, want %s", name, kind, user, role, got, want)
					}
				}
			}
		}
	}
}

// TestTypeRulesAsWritten: each rule for new types, by name and conditional ones too,
// gives what a walk over all rules gives.
func TestTypeRulesAsWritten(t *testing.T) {
	named, conditional := 0, 0
	for i, s := range variants(t) {
		p := s.policy
		rules := s.typeRules()
		for _, f := range p.FilenameTransitions {
			for source := policydb.TypeID(1); uint32(source) <= p.Types.Prim; source++ {
				for _, name := range []string{f.Name, f.Name + "x", ""} {
					var want policydb.TypeID
					for _, g := range p.FilenameTransitions {
						if g.Target != f.Target || g.Class != f.Class || g.Name != name {
							continue
						}
						for _, o := range g.Outcomes {
							if want == 0 && o.Sources.HasValue(uint32(source)) {
								want = o.Type
							}
						}
					}
					if got := rules.byName(p, source, f.Target, f.Class, name); got != want {
						t.Fatalf("policy %d, %q for %s on %s: %d, want %d", i, name, p.TypeName(source), p.TypeName(f.Target), got, want)
					}
					if want != 0 {
						named++
					}
					// The name counts in a question about a transition, where there is one.
					a, b := &Context{policy: p, typ: source, role: policydb.ObjectRole}, &Context{policy: p, typ: f.Target, role: policydb.ObjectRole}
					base := s.newType(rules, policydb.TypeTransition, a, b, f.Class, p.Classes.ByValue(uint32(f.Class)), false)
					if want == 0 {
						want = base
					}
					n, err := s.Transition(a, b, f.Class, name)
					var invalid *InvalidResultError
					switch {
					case err == nil && n.typ != want:
						t.Fatalf("policy %d, %q: %s, want type %s", i, name, n, p.TypeName(want))
					case errors.As(err, &invalid):
						if part := ":" + p.TypeName(want); !containsType(invalid.Context, part) {
							t.Fatalf("policy %d, %q: %s, want type %s", i, name, invalid.Context, part)
						}
					case err != nil:
						t.Fatal(err)
					}
				}
			}
		}
		for c := range p.Conditionals {
			for branch, list := range [2][]policydb.Rule{p.Conditionals[c].True, p.Conditionals[c].False} {
				for _, r := range list {
					if !r.Kind().IsType() {
						continue
					}
					key := typeKey{r.Kind(), r.Source, r.Target, r.Class}
					if _, always := rules.always[key]; always {
						continue
					}
					conditional++
					active := s.state[c] == (branch == 0)
					a, b := &Context{policy: p, typ: r.Source}, &Context{policy: p, typ: r.Target}
					got := s.newType(rules, r.Kind(), a, b, r.Class, &policydb.Class{DefaultType: policydb.DefaultTarget}, false)
					if active && got != policydb.TypeID(r.Data) {
						t.Errorf("policy %d: %s, want %s", i, p.TypeName(got), p.TypeName(policydb.TypeID(r.Data)))
					}
				}
			}
		}
		for _, r := range p.Rules {
			if !r.Kind().IsType() {
				continue
			}
			a, b := &Context{policy: p, typ: r.Source}, &Context{policy: p, typ: r.Target}
			if got := s.newType(rules, r.Kind(), a, b, r.Class, &policydb.Class{}, false); got != policydb.TypeID(r.Data) {
				t.Errorf("policy %d: %s, want %s", i, p.TypeName(got), p.TypeName(policydb.TypeID(r.Data)))
			}
		}
		for _, r := range p.RoleTransitions {
			if got := rules.roles[roleKey{r.Role, r.Type, r.Class}]; got != r.NewRole {
				t.Errorf("policy %d: role %d, want %d", i, got, r.NewRole)
			}
		}
	}
	if named == 0 || conditional == 0 {
		t.Errorf("%d names, %d conditional rules", named, conditional)
	}
}

func containsType(context, part string) bool {
	for i := range context {
		if i+len(part) <= len(context) && context[i:i+len(part)] == part && (i+len(part) == len(context) || context[i+len(part)] == ':') {
			return true
		}
	}
	return false
}
