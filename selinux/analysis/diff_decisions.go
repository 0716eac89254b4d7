// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// DecisionChange is permissions that rules came to allow, or no longer allow, to
// each of some types on each of others. Constraints are not applied: between
// types without levels there is nothing to apply them to.
type DecisionChange struct {
	Sources []string `json:"sources"`
	Targets []string `json:"targets"`
	Class   string   `json:"class"`
	Allowed []string `json:"allowed,omitempty"` // allowed by the second policy alone
	Denied  []string `json:"denied,omitempty"`  // allowed by the first policy alone
}

// Pairs returns the number of pairs of types.
func (c *DecisionChange) Pairs() int { return len(c.Sources) * len(c.Targets) }

// indexed has a side's allow rules that are in force, by source.
type indexed struct {
	rules [][]unionRule // by union type
	attrs [][]uint32    // by union type: what it has rules from
}

type unionRule struct {
	class, target uint32
	vector        uint64
	mark          uint64 // of the target's members and the vector
}

func (u *union) index(side int, booleans []bool, seed maphash.Seed) indexed {
	p := u.side[side]
	x := indexed{rules: make([][]unionRule, len(u.types)), attrs: make([][]uint32, len(u.types))}
	marks := make([]uint64, len(u.types))
	for v, id := range u.typeOf[side] {
		marks[id] = hashBits(seed, u.members[side][id])
		if t := p.Types.ByValue(uint32(v + 1)); t != nil && !t.Attribute {
			for a := range p.AttributesOf(t.ID()).Values() {
				x.attrs[id] = append(x.attrs[id], u.typeOf[side][a-1])
			}
		}
	}
	for r := range activeRules(p, booleans, policydb.Allow) {
		source, target := u.typeOf[side][r.Source-1], u.typeOf[side][r.Target-1]
		rule := unionRule{class: u.classOf[side][r.Class-1], target: target, vector: u.vector(side, r.Class, r.Data)}
		rule.mark = maphash.Comparable(seed, [3]uint64{uint64(rule.class), marks[target], rule.vector})
		x.rules[source] = append(x.rules[source], rule)
	}
	return x
}

func hashBits(seed maphash.Seed, b bitset) uint64 {
	var h uint64
	for i, w := range b {
		if w != 0 {
			h += maphash.Comparable(seed, [2]uint64{uint64(i), w})
		}
	}
	return h
}

// decisions compares what rules come to, for all pairs of types.
func (u *union) decisions(left, right []bool) []DecisionChange {
	seed := maphash.MakeSeed()
	sides := [2]indexed{u.index(0, left, seed), u.index(1, right, seed)}
	type group struct {
		class           uint32
		allowed, denied uint64
		targets         uint64 // mark
	}
	type found struct {
		sources []int
		targets bitset
	}
	groups := map[group]*found{}
	type delta struct{ allowed, denied uint64 }
	n := len(u.types)
	marks := [2][]uint64{make([]uint64, len(u.classes)), make([]uint64, len(u.classes))}
	vectors := [2][]uint64{make([]uint64, n), make([]uint64, n)}
	touched := newBitset(n)
	for s := range n {
		// Equal rules about equal targets come to the same.
		for side := range sides {
			clear(marks[side])
			for _, a := range sides[side].attrs[s] {
				for i := range sides[side].rules[a] {
					r := &sides[side].rules[a][i]
					marks[side][r.class] += r.mark
				}
			}
		}
		for class := range marks[0] {
			if marks[0][class] == marks[1][class] {
				continue
			}
			clear(touched)
			for side := range sides {
				for _, a := range sides[side].attrs[s] {
					for i := range sides[side].rules[a] {
						r := &sides[side].rules[a][i]
						if int(r.class) != class {
							continue
						}
						members := u.members[side][r.target]
						touched.or(members)
						members.each(func(t int) { vectors[side][t] |= r.vector })
					}
				}
			}
			changed := map[delta]bitset{}
			touched.each(func(t int) {
				a, b := vectors[0][t], vectors[1][t]
				vectors[0][t], vectors[1][t] = 0, 0
				if a == b {
					return
				}
				d := delta{b &^ a, a &^ b}
				if changed[d] == nil {
					changed[d] = newBitset(n)
				}
				changed[d].set(t)
			})
			for d, targets := range changed {
				g := group{uint32(class), d.allowed, d.denied, hashBits(seed, targets)}
				if groups[g] == nil {
					groups[g] = &found{targets: targets}
				}
				groups[g].sources = append(groups[g].sources, s)
			}
		}
	}
	var out []DecisionChange
	for g, f := range groups {
		c := DecisionChange{Class: u.classes[g.class], Allowed: u.permNames(g.class, g.allowed), Denied: u.permNames(g.class, g.denied)}
		for _, s := range f.sources {
			c.Sources = append(c.Sources, u.types[s])
		}
		f.targets.each(func(t int) { c.Targets = append(c.Targets, u.types[t]) })
		slices.Sort(c.Sources)
		slices.Sort(c.Targets)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b DecisionChange) int {
		return cmp.Or(slices.Compare(a.Sources, b.Sources), strings.Compare(a.Class, b.Class), slices.Compare(a.Targets, b.Targets), slices.Compare(a.Allowed, b.Allowed))
	})
	return out
}

// ContextChange is what one context came to be allowed, or is no longer allowed,
// on another: decisions as the kernel makes them.
type ContextChange struct {
	Source  string   `json:"source"`
	Target  string   `json:"target"`
	Class   string   `json:"class"`
	Allowed []string `json:"allowed,omitempty"`
	Denied  []string `json:"denied,omitempty"`
	// Invalid says that only one of the policies allows both contexts, and why.
	Invalid string `json:"invalid,omitempty"`
}

// DiffContexts compares the decisions of two policies between contexts: each on
// itself and on each other, all classes. A context that neither policy allows is
// an error.
func DiffContexts(left, right *ss.Server, texts []string) ([]ContextChange, error) {
	var out []ContextChange
	servers := [2]*ss.Server{left, right}
	u := newUnion(left.Policy(), right.Policy())
	resolved := [2][]*ss.Context{}
	problems := make([]string, len(texts))
	for i, text := range texts {
		a, errA := left.ParseContext(text)
		b, errB := right.ParseContext(text)
		switch {
		case errA != nil && errB != nil:
			return nil, errA
		case errA != nil:
			problems[i] = "the first policy does not allow the context: " + errA.Error()
		case errB != nil:
			problems[i] = "the second policy does not allow the context: " + errB.Error()
		}
		resolved[0], resolved[1] = append(resolved[0], a), append(resolved[1], b)
	}
	for i, source := range texts {
		for j, target := range texts {
			if problem := cmp.Or(problems[i], problems[j]); problem != "" {
				if i == j {
					out = append(out, ContextChange{Source: source, Target: target, Invalid: problem})
				}
				continue
			}
			for class, name := range u.classes {
				var v [2]uint64
				for side, s := range servers {
					if id := s.Class(name); id != 0 {
						v[side] = u.vector(side, id, s.Decide(resolved[side][i], resolved[side][j], id).Allowed)
					}
				}
				if v[0] != v[1] {
					out = append(out, ContextChange{
						Source: source, Target: target, Class: name,
						Allowed: u.permNames(uint32(class), v[1]&^v[0]), Denied: u.permNames(uint32(class), v[0]&^v[1]),
					})
				}
			}
		}
	}
	return out, nil
}

// Permissions returns how many permissions on how many pairs of types came to be
// allowed and denied.
func (d *Difference) Permissions() (allowed, denied int) {
	for i := range d.Decisions {
		c := &d.Decisions[i]
		allowed += c.Pairs() * len(c.Allowed)
		denied += c.Pairs() * len(c.Denied)
	}
	return allowed, denied
}
