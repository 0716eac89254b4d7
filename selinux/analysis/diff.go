// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// Change is one thing that two policies do not have alike.
type Change struct {
	Kind string `json:"kind"` // "type", "allow", "constraint", …
	// Name says which: a name, or a rule without what it gives.
	Name string `json:"name"`
	// What is "added", "removed" or "modified".
	What string `json:"what"`
	// Plus and Minus are what it has more or less: permissions, attributes, a value.
	Plus  []string `json:"plus,omitempty"`
	Minus []string `json:"minus,omitempty"`
}

// Difference is how the second of two policies differs from the first.
type Difference struct {
	Changes   []Change         `json:"changes"`
	Decisions []DecisionChange `json:"decisions"`
	// Contexts are decisions between the contexts that were asked about.
	Contexts []ContextChange `json:"contexts,omitempty"`
}

// Same reports whether the policies differ in nothing.
func (d *Difference) Same() bool {
	return len(d.Changes)+len(d.Decisions)+len(d.Contexts) == 0
}

// Diff compares two policies: what they are made of and, under the booleans of the
// two servers, what their rules come to for each pair of types. The two need not
// number their types, classes and permissions alike; all is compared by name.
func Diff(left, right *ss.Server) Difference {
	u := newUnion(left.Policy(), right.Policy())
	d := Difference{Changes: []Change{}, Decisions: []DecisionChange{}}
	d.Changes = append(d.Changes, u.rules()...)
	a, b := factsOf(left.Policy()), factsOf(right.Policy())
	for kind := range factKinds {
		changes := compareFacts(factKinds[kind], a[kind], b[kind])
		if kind == factXPerm {
			for i := range changes {
				changes[i].Plus, changes[i].Minus = joinNumbers(changes[i].Plus), joinNumbers(changes[i].Minus)
			}
		}
		d.Changes = append(d.Changes, changes...)
	}
	slices.SortFunc(d.Changes, func(x, y Change) int {
		return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.Name, y.Name))
	})
	d.Decisions = append(d.Decisions, u.decisions(booleanStates(left), booleanStates(right))...)
	return d
}

// compareFacts compares named sets of words.
func compareFacts(kind string, a, b map[string][]string) []Change {
	var out []Change
	for name, words := range a {
		other, ok := b[name]
		if !ok {
			out = append(out, Change{Kind: kind, Name: name, What: "removed", Minus: words})
			continue
		}
		c := Change{Kind: kind, Name: name, What: "modified", Plus: without(other, words), Minus: without(words, other)}
		if len(c.Plus)+len(c.Minus) > 0 {
			out = append(out, c)
		}
	}
	for name, words := range b {
		if _, ok := a[name]; !ok {
			out = append(out, Change{Kind: kind, Name: name, What: "added", Plus: words})
		}
	}
	return out
}

// without returns the words of a that b lacks, sorted.
func without(a, b []string) []string {
	has := make(map[string]bool, len(b))
	for _, w := range b {
		has[w] = true
	}
	var out []string
	for _, w := range a {
		if !has[w] {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// union numbers the types, classes and permissions of two policies alike.
type union struct {
	side    [2]*policydb.Policy
	types   []string
	classes []string
	perms   [][]string // by class
	typeOf  [2][]uint32
	classOf [2][]uint32
	permOf  [2][][32]uint8 // by the policy's class: the bit of each bit
	same    [2][]bool      // by the policy's class: bits need no translation
	members [2][]bitset    // by union type
}

func newUnion(a, b *policydb.Policy) *union {
	u := &union{side: [2]*policydb.Policy{a, b}}
	types, classes := map[string]uint32{}, map[string]uint32{}
	number := func(m map[string]uint32, names *[]string, name string) uint32 {
		i, ok := m[name]
		if !ok {
			i = uint32(len(*names))
			m[name] = i
			*names = append(*names, name)
		}
		return i
	}
	for side, p := range u.side {
		u.typeOf[side] = make([]uint32, p.Types.Prim)
		for v := range u.typeOf[side] {
			u.typeOf[side][v] = number(types, &u.types, p.TypeName(policydb.TypeID(v+1)))
		}
		u.classOf[side] = make([]uint32, p.Classes.Prim)
		u.permOf[side] = make([][32]uint8, p.Classes.Prim)
		u.same[side] = make([]bool, p.Classes.Prim)
		for c := range p.Classes.All() {
			i := number(classes, &u.classes, c.Name)
			u.classOf[side][c.Value-1] = i
			if int(i) == len(u.perms) {
				u.perms = append(u.perms, nil)
			}
			same := true
			for bit := range 32 {
				name := c.PermissionName(bit)
				if name == "" {
					continue
				}
				at := slices.Index(u.perms[i], name)
				if at < 0 {
					at = len(u.perms[i])
					u.perms[i] = append(u.perms[i], name)
				}
				u.permOf[side][c.Value-1][bit] = uint8(at)
				same = same && at == bit
			}
			u.same[side][c.Value-1] = same
		}
	}
	for side, p := range u.side {
		u.members[side] = matrix(len(u.types))
		for v, id := range u.typeOf[side] {
			for _, t := range p.TypesOf(policydb.TypeID(v + 1)) {
				u.members[side][id].set(int(u.typeOf[side][t-1]))
			}
		}
	}
	return u
}

// vector translates an access vector; two policies together may have more than
// 32 permissions of a class, never more than 64.
func (u *union) vector(side int, class policydb.ClassID, v uint32) uint64 {
	c := u.side[side].Classes.ByValue(uint32(class))
	if c == nil {
		return 0
	}
	v &= c.AllPermissions()
	if u.same[side][class-1] {
		return uint64(v)
	}
	var out uint64
	eachBit(bitset{uint64(v)}, func(bit int) { out |= 1 << u.permOf[side][class-1][bit] })
	return out
}

func (u *union) permNames(class uint32, v uint64) []string {
	var out []string
	eachBit(bitset{v}, func(bit int) { out = append(out, u.perms[class][bit]) })
	slices.Sort(out)
	return out
}

// ruleName is a rule without what it gives.
type ruleName struct {
	kind                  policydb.RuleKind
	source, target, class uint32
	condition             uint32 // 0 or 1 + index
}

// rules compares type enforcement rules as they are written, condition included.
func (u *union) rules() []Change {
	var conditions []string
	number := map[string]uint32{}
	var have [2]map[ruleName]uint64
	for side, p := range u.side {
		m := make(map[ruleName]uint64, len(p.Rules))
		have[side] = m
		s := searcher{p: p}
		add := func(list []policydb.Rule, condition uint32) {
			for _, r := range list {
				name := ruleName{kind: r.Kind(), source: u.typeOf[side][r.Source-1], target: u.typeOf[side][r.Target-1], class: u.classOf[side][r.Class-1], condition: condition}
				switch {
				case name.kind.IsVector():
					m[name] |= u.vector(side, r.Class, r.Vector())
				case name.kind.IsType():
					m[name] = uint64(u.typeOf[side][r.Data-1])
				}
			}
		}
		add(p.Rules, 0)
		for i := range p.Conditionals {
			c := &p.Conditionals[i]
			text := s.condition(c.Expr)
			for branch, list := range [][]policydb.Rule{c.True, c.False} {
				full := " [ " + text + " ]:" + []string{"True", "False"}[branch]
				if number[full] == 0 {
					conditions = append(conditions, full)
					number[full] = uint32(len(conditions))
				}
				add(list, number[full])
			}
		}
	}
	var out []Change
	report := func(name ruleName, what string, plus, minus uint64, hasPlus, hasMinus bool) {
		c := Change{Kind: name.kind.String(), What: what, Name: u.types[name.source] + " " + u.types[name.target] + ":" + u.classes[name.class]}
		if name.condition != 0 {
			c.Name += conditions[name.condition-1]
		}
		words := func(v uint64) []string {
			if name.kind.IsType() {
				return []string{u.types[v]}
			}
			return u.permNames(name.class, v)
		}
		if hasPlus {
			c.Plus = words(plus)
		}
		if hasMinus {
			c.Minus = words(minus)
		}
		out = append(out, c)
	}
	for name, a := range have[0] {
		b, ok := have[1][name]
		switch {
		case !ok:
			report(name, "removed", 0, a, false, true)
		case a != b && name.kind.IsType():
			report(name, "modified", b, a, true, true)
		case a != b:
			report(name, "modified", b&^a, a&^b, b&^a != 0, a&^b != 0)
		}
	}
	for name, b := range have[1] {
		if _, ok := have[0][name]; !ok {
			report(name, "added", b, 0, true, false)
		}
	}
	return out
}
