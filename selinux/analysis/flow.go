// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// FlowOptions choose what counts as a flow.
type FlowOptions struct {
	Map *PermMap // nil is [BuiltinPermMap]
	// MinWeight leaves out permissions of less weight; 0 is 1.
	MinWeight int
	// Exclude are types and attributes that information does not pass.
	Exclude []string
}

// FlowGraph is the graph of information flow between the types of a policy under
// one setting of its booleans: an edge from a to b says that a may write to b, or
// b may read from a. It is immutable and safe for concurrent use.
type FlowGraph struct {
	server   *ss.Server
	p        *policydb.Policy
	min      int
	classes  []classWeights // by class value - 1
	exclude  bitset
	out, in  []bitset // by type value - 1
	booleans []bool
}

// classWeights has, for each bit of an access vector, the weight of what it lets
// flow each way, 0 for none.
type classWeights struct {
	read, write         uint32 // permissions of at least the minimum
	readWeight, wWeight [32]uint8
}

type bitset []uint64

func newBitset(n int) bitset      { return make(bitset, (n+63)/64) }
func (b bitset) set(i int)        { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i int) bool   { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) clear(i int)      { b[i/64] &^= 1 << (i % 64) }
func (b bitset) or(o bitset)      { orWords(b, o) }
func (b bitset) each(f func(int)) { eachBit(b, f) }

func orWords(b, o bitset) {
	for i, w := range o {
		b[i] |= w
	}
}

func eachBit(b bitset, f func(int)) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			f(i*64 + bits.TrailingZeros64(w))
		}
	}
}

// matrix returns n sets of n bits in one piece.
func matrix(n int) []bitset {
	words := (n + 63) / 64
	all := make(bitset, n*words)
	rows := make([]bitset, n)
	for i := range rows {
		rows[i] = all[i*words : (i+1)*words : (i+1)*words]
	}
	return rows
}

// NewFlowGraph builds the graph. The error is an [*UnknownNameError].
func NewFlowGraph(server *ss.Server, o FlowOptions) (*FlowGraph, error) {
	p := server.Policy()
	n := int(p.Types.Prim)
	g := &FlowGraph{server: server, p: p, min: max(o.MinWeight, 1), exclude: newBitset(n), booleans: booleanStates(server)}
	for _, name := range o.Exclude {
		t := p.Types.ByName(name)
		if t == nil {
			return nil, &UnknownNameError{"type or attribute", name}
		}
		for _, v := range p.TypesOf(t.ID()) {
			g.exclude.set(int(v - 1))
		}
	}
	if o.Map == nil {
		o.Map = BuiltinPermMap()
	}
	g.weigh(o.Map)

	members := matrix(n)
	for v := range n {
		for _, t := range p.TypesOf(policydb.TypeID(v + 1)) {
			members[v].set(int(t - 1))
		}
	}
	// First what rules are written with, then what each type has of its attributes.
	byName, reads := matrix(n), matrix(n)
	for r := range activeRules(p, g.booleans, policydb.Allow) {
		w := &g.classes[r.Class-1]
		if r.Data&w.write != 0 {
			byName[r.Source-1].or(members[r.Target-1])
		}
		if r.Data&w.read != 0 {
			reads[r.Source-1].or(members[r.Target-1])
		}
	}
	g.out, g.in = matrix(n), matrix(n)
	row := newBitset(n)
	for v := range n {
		t := p.Types.ByValue(uint32(v + 1))
		if t == nil || t.Attribute {
			continue
		}
		clear(row)
		for a := range p.AttributesOf(t.ID()).Values() {
			g.out[v].or(byName[a-1])
			row.or(reads[a-1])
		}
		row.each(func(u int) { g.out[u].set(v) })
	}
	for v := range n {
		g.out[v].clear(v) // what stays where it is is no flow
		if g.exclude.has(v) {
			clear(g.out[v])
		}
		for i := range g.out[v] {
			g.out[v][i] &^= g.exclude[i]
		}
		g.out[v].each(func(u int) { g.in[u].set(v) })
	}
	return g, nil
}

func booleanStates(s *ss.Server) []bool {
	p := s.Policy()
	states := make([]bool, p.Booleans.Prim)
	for b := range p.Booleans.All() {
		states[b.Value-1], _ = s.Boolean(b.Name)
	}
	return states
}

// activeRules yields the rules of some kinds that are in force.
func activeRules(p *policydb.Policy, booleans []bool, kinds policydb.RuleKind) func(func(policydb.Rule) bool) {
	return func(yield func(policydb.Rule) bool) {
		lists := [][]policydb.Rule{p.Rules}
		for i := range p.Conditionals {
			c := &p.Conditionals[i]
			if policydb.EvalCond(c.Expr, booleans) {
				lists = append(lists, c.True)
			} else {
				lists = append(lists, c.False)
			}
		}
		for _, list := range lists {
			for _, r := range list {
				if r.Kind()&kinds != 0 && !yield(r) {
					return
				}
			}
		}
	}
}

func (g *FlowGraph) weigh(m *PermMap) {
	g.classes = make([]classWeights, g.p.Classes.Prim)
	for c := range g.p.Classes.All() {
		w := &g.classes[c.Value-1]
		for bit := range 32 {
			name := c.PermissionName(bit)
			pw, ok := m.Of(c.Name, name)
			if name == "" || !ok || int(pw.Weight) < g.min {
				continue
			}
			if pw.Direction&Read != 0 {
				w.read |= 1 << bit
				w.readWeight[bit] = pw.Weight
			}
			if pw.Direction&Write != 0 {
				w.write |= 1 << bit
				w.wWeight[bit] = pw.Weight
			}
		}
	}
}

func heaviest(vector uint32, weights *[32]uint8) int {
	most := 0
	for ; vector != 0; vector &= vector - 1 {
		most = max(most, int(weights[bits.TrailingZeros32(vector)]))
	}
	return most
}

// Size returns the number of types that information flows to or from, and of
// pairs with a flow.
func (g *FlowGraph) Size() (nodes, edges int) {
	for v := range g.out {
		n := 0
		for _, w := range g.out[v] {
			n += bits.OnesCount64(w)
		}
		edges += n
		if n > 0 || slices.ContainsFunc(g.in[v], func(w uint64) bool { return w != 0 }) {
			nodes++
		}
	}
	return nodes, edges
}

// FlowStep is one flow, from what is written or read to what gets it.
type FlowStep struct {
	From   string `json:"from"` // a type or, where contexts are asked about, a context
	To     string `json:"to"`
	Weight int    `json:"weight"`
	// Rules give the flow, as statements of the policy language.
	Rules []string `json:"rules"`
}

func (g *FlowGraph) typeNamed(name string) (int, error) {
	t := g.p.Types.ByName(name)
	if t == nil || t.Attribute {
		return 0, &UnknownNameError{"type", name}
	}
	return int(t.Value - 1), nil
}

func (g *FlowGraph) name(v int) string { return g.p.TypeName(policydb.TypeID(v + 1)) }

// Direct returns the flows of one step out of a type, or into it, by name. With
// rules the steps have the rules that give them; without, no weight either. The
// error is an [*UnknownNameError].
func (g *FlowGraph) Direct(name string, into, rules bool) ([]FlowStep, error) {
	v, err := g.typeNamed(name)
	if err != nil {
		return nil, err
	}
	var pairs [][2]int
	row := g.out[v]
	if into {
		row = g.in[v]
	}
	row.each(func(u int) {
		if into {
			pairs = append(pairs, [2]int{u, v})
		} else {
			pairs = append(pairs, [2]int{v, u})
		}
	})
	steps := g.steps(pairs, rules)
	slices.SortFunc(steps, func(a, b FlowStep) int {
		return strings.Compare(a.From+" "+a.To, b.From+" "+b.To)
	})
	return steps, nil
}

// Shortest returns the shortest paths from one type to another, at most limit of
// them (all when limit is 0), none when no information can flow. The error is an
// [*UnknownNameError].
func (g *FlowGraph) Shortest(source, target string, limit int) ([][]FlowStep, error) {
	s, err := g.typeNamed(source)
	if err != nil {
		return nil, err
	}
	t, err := g.typeNamed(target)
	if err != nil {
		return nil, err
	}
	var out [][]FlowStep
	known := map[[2]int]FlowStep{}
	for path := range shortestPaths(g.out, g.in, s, t) {
		var missing [][2]int
		pairs := make([][2]int, len(path)-1)
		for i := range pairs {
			pairs[i] = [2]int{path[i], path[i+1]}
			if _, ok := known[pairs[i]]; !ok {
				missing = append(missing, pairs[i])
			}
		}
		for i, step := range g.steps(missing, true) {
			known[missing[i]] = step
		}
		steps := make([]FlowStep, len(pairs))
		for i, pair := range pairs {
			steps[i] = known[pair]
		}
		out = append(out, steps)
		if len(out) == limit {
			break
		}
	}
	return out, nil
}

// shortestPaths yields the shortest paths of a graph, in the order of the values
// on them. A node has no path to itself.
func shortestPaths(out, in []bitset, s, t int) func(func([]int) bool) {
	return func(yield func([]int) bool) {
		if s == t {
			return
		}
		// How far each node is from the target.
		n := len(out)
		distance := make([]int, n)
		seen, frontier, next := newBitset(n), newBitset(n), newBitset(n)
		seen.set(t)
		frontier.set(t)
		for d := 1; !seen.has(s); d++ {
			clear(next)
			frontier.each(func(v int) { next.or(in[v]) })
			some := false
			for i := range next {
				next[i] &^= seen[i]
				seen[i] |= next[i]
				some = some || next[i] != 0
			}
			if !some {
				return
			}
			next.each(func(v int) { distance[v] = d })
			frontier, next = next, frontier
		}
		path := []int{s}
		var walk func(v int) bool
		walk = func(v int) bool {
			if v == t {
				return yield(slices.Clone(path))
			}
			more := true
			out[v].each(func(u int) {
				if more && seen.has(u) && distance[u] == distance[v]-1 && (u == t || distance[u] > 0) {
					path = append(path, u)
					more = walk(u)
					path = path[:len(path)-1]
				}
			})
			return more
		}
		walk(s)
	}
}

// steps finds the rules behind pairs of types.
func (g *FlowGraph) steps(pairs [][2]int, rules bool) []FlowStep {
	steps := make([]FlowStep, len(pairs))
	for i, pair := range pairs {
		steps[i] = FlowStep{From: g.name(pair[0]), To: g.name(pair[1]), Rules: []string{}}
	}
	if !rules || len(pairs) == 0 {
		return steps
	}
	// The pairs that a rule matters to are those with its source and its target.
	bySource := map[int][]int{}
	for i, pair := range pairs {
		bySource[pair[0]] = append(bySource[pair[0]], i)
		if pair[1] != pair[0] {
			bySource[pair[1]] = append(bySource[pair[1]], i)
		}
	}
	from := map[policydb.TypeID][]int{} // by what a rule is written with
	for v := range bySource {
		for a := range g.p.AttributesOf(policydb.TypeID(v + 1)).Values() {
			from[policydb.TypeID(a)] = append(from[policydb.TypeID(a)], v)
		}
	}
	s := &searcher{p: g.p}
	for r := range activeRules(g.p, g.booleans, policydb.Allow) {
		w := &g.classes[r.Class-1]
		if r.Data&(w.write|w.read) == 0 {
			continue
		}
		text := ""
		for _, v := range from[r.Source] {
			for _, i := range bySource[v] {
				weight, other := 0, 0
				if pairs[i][0] == v { // v writes
					weight, other = heaviest(r.Data&w.write, &w.wWeight), pairs[i][1]
				} else {
					weight, other = heaviest(r.Data&w.read, &w.readWeight), pairs[i][0]
				}
				if weight == 0 || !g.p.AttributesOf(policydb.TypeID(other+1)).HasValue(uint32(r.Target)) {
					continue
				}
				if text == "" {
					text = s.print(r, "")
				}
				steps[i].Weight = max(steps[i].Weight, weight)
				steps[i].Rules = append(steps[i].Rules, text)
			}
		}
	}
	for i := range steps {
		slices.Sort(steps[i].Rules)
		steps[i].Rules = slices.Compact(steps[i].Rules)
	}
	return steps
}
