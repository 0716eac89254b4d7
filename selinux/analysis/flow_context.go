// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"slices"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// ContextFlow is the answer to a question about full contexts.
type ContextFlow struct {
	// Path has the steps of a shortest path, empty when nothing flows. Its rules
	// are "CLASS: PERMISSION..." as decided, with whose permissions they are.
	Path []FlowStep `json:"path"`
	// Reached is the number of contexts that the information gets to, Decisions how
	// many were made.
	Reached   int `json:"reached"`
	Decisions int `json:"decisions"`
}

// ShortestBetween returns a shortest path from one context to another on which
// every step is one that the kernel would allow: rules, booleans, constraints and
// type bounds.
//
// What lies between is every type of the policy that is not excluded, each with
// the ranges of the source and of the target and those in ranges, and with a role
// and a user that may have it, those of the source or the target where possible.
// So "no flow" means none through contexts with these ranges. Content at the
// lowest level, which two containers share when it is there, and system domains
// with a wide range count when their ranges are given.
func (g *FlowGraph) ShortestBetween(source, target *ss.Context, ranges ...policydb.Range) ContextFlow {
	f := g.contextFlow(source, target, ranges)
	start := flowNode{context: source, from: -1}
	f.nodes = append(f.nodes, start)
	for i := 0; i < len(f.nodes); i++ {
		if f.expand(i, target) {
			break
		}
	}
	answer := ContextFlow{Path: []FlowStep{}, Reached: len(f.nodes) - 1, Decisions: f.decisions}
	last := len(f.nodes) - 1
	if last == 0 || f.nodes[last].context != target {
		return answer
	}
	for i := last; f.nodes[i].from >= 0; i = f.nodes[i].from {
		answer.Path = append(answer.Path, f.step(f.nodes[f.nodes[i].from].context, f.nodes[i].context))
	}
	slices.Reverse(answer.Path)
	return answer
}

type flowNode struct {
	context *ss.Context
	from    int // the node before, or -1
}

type contextFlow struct {
	g         *FlowGraph
	nodes     []flowNode
	waiting   [][]*ss.Context // by type value - 1: contexts not reached yet; nil before the first look
	looked    []bool
	ranges    []policydb.Range
	source    policydb.Context
	target    policydb.Context
	classes   []flowClass // those that carry something, the usual ones first
	decisions int
}

type flowClass struct {
	id          policydb.ClassID
	read, write uint32
}

func (g *FlowGraph) contextFlow(source, target *ss.Context, ranges []policydb.Range) *contextFlow {
	n := int(g.p.Types.Prim)
	f := &contextFlow{g: g, waiting: make([][]*ss.Context, n), looked: make([]bool, n), source: source.Values(), target: target.Values()}
	add := func(r policydb.Range) {
		if !slices.ContainsFunc(f.ranges, func(o policydb.Range) bool { return o.Low.Equal(r.Low) && o.High.Equal(r.High) }) {
			f.ranges = append(f.ranges, r)
		}
	}
	add(f.source.Range)
	add(f.target.Range)
	for _, r := range ranges {
		add(r)
	}
	for c := range g.p.Classes.All() {
		if w := g.classes[c.Value-1]; w.read|w.write != 0 {
			f.classes = append(f.classes, flowClass{c.ID(), w.read, w.write})
		}
	}
	// What most pairs have is asked first.
	usual := []string{"file", "dir", "process", "fd", "fifo_file", "unix_stream_socket", "lnk_file", "chr_file"}
	rank := func(c flowClass) int {
		if i := slices.Index(usual, g.p.ClassName(c.id)); i >= 0 {
			return i
		}
		return len(usual)
	}
	slices.SortStableFunc(f.classes, func(a, b flowClass) int { return rank(a) - rank(b) })
	return f
}

// expand reaches what is one step from a node, and reports whether that is the
// target.
func (f *contextFlow) expand(at int, target *ss.Context) bool {
	from := f.nodes[at].context
	goal := int(target.Type() - 1)
	v := int(from.Type() - 1)
	// A type may flow to itself at another level.
	if (f.g.out[v].has(goal) || v == goal) && f.flows(from, target) {
		f.nodes = append(f.nodes, flowNode{target, at})
		return true
	}
	visit := func(u int) {
		kept := f.candidates(u)[:0]
		for _, c := range f.candidates(u) {
			if f.flows(from, c) {
				f.nodes = append(f.nodes, flowNode{c, at})
			} else {
				kept = append(kept, c)
			}
		}
		f.waiting[u] = kept
	}
	f.g.out[v].each(visit)
	if !f.g.exclude.has(v) {
		visit(v)
	}
	return false
}

// candidates returns the contexts with a type that were not reached yet.
func (f *contextFlow) candidates(v int) []*ss.Context {
	if f.looked[v] {
		return f.waiting[v]
	}
	f.looked[v] = true
	for _, r := range f.ranges {
		if c := f.contextOf(policydb.TypeID(v+1), r); c != nil {
			f.waiting[v] = append(f.waiting[v], c)
		}
	}
	return f.waiting[v]
}

// contextOf finds a context with a type and a range that the policy allows: as a
// process where a role other than object_r has the type.
func (f *contextFlow) contextOf(t policydb.TypeID, r policydb.Range) *ss.Context {
	p := f.g.p
	var roles []policydb.RoleID
	for _, role := range []policydb.RoleID{f.source.Role, f.target.Role} {
		if e := p.Roles.ByValue(uint32(role)); role != policydb.ObjectRole && e != nil && e.Types.HasValue(uint32(t)) {
			roles = append(roles, role)
		}
	}
	for e := range p.Roles.All() {
		if policydb.RoleID(e.Value) != policydb.ObjectRole && e.Types.HasValue(uint32(t)) {
			roles = append(roles, policydb.RoleID(e.Value))
		}
	}
	roles = append(roles, policydb.ObjectRole)
	users := []policydb.UserID{f.source.User, f.target.User}
	for u := range p.Users.All() {
		users = append(users, policydb.UserID(u.Value))
	}
	for _, role := range roles {
		if role == policydb.ObjectRole {
			r.High = r.Low // content has one level
		}
		for _, u := range users {
			if c, err := f.g.server.Resolve(policydb.Context{User: u, Role: role, Type: t, Range: r}); err == nil {
				return c
			}
		}
	}
	return nil
}

func (f *contextFlow) flows(a, b *ss.Context) bool {
	for _, c := range f.classes {
		if c.write != 0 {
			f.decisions++
			if f.g.server.Decide(a, b, c.id).Allowed&c.write != 0 {
				return true
			}
		}
		if c.read != 0 {
			f.decisions++
			if f.g.server.Decide(b, a, c.id).Allowed&c.read != 0 {
				return true
			}
		}
	}
	return false
}

// step says what lets information flow between two contexts.
func (f *contextFlow) step(a, b *ss.Context) FlowStep {
	s := FlowStep{From: a.String(), To: b.String(), Rules: []string{}}
	add := func(who, whom *ss.Context, class policydb.ClassID, vector uint32, weights *[32]uint8) {
		if vector == 0 {
			return
		}
		s.Weight = max(s.Weight, heaviest(vector, weights))
		c := f.g.p.Classes.ByValue(uint32(class))
		s.Rules = append(s.Rules, "allow "+f.g.p.TypeName(who.Type())+" "+f.g.p.TypeName(whom.Type())+":"+c.Name+" "+braces(c.PermissionNames(vector))+";")
	}
	for _, c := range f.classes {
		w := &f.g.classes[c.id-1]
		add(a, b, c.id, f.g.server.Decide(a, b, c.id).Allowed&c.write, &w.wWeight)
		add(b, a, c.id, f.g.server.Decide(b, a, c.id).Allowed&c.read, &w.readWeight)
	}
	slices.Sort(s.Rules)
	s.Rules = slices.Compact(s.Rules)
	return s
}
