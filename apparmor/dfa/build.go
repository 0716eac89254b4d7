// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"errors"
	"fmt"
	"slices"
)

// A Rule is one expression and what its match means: rules with the same
// Accept are not told apart.
type Rule struct {
	Expr   Expr
	Accept int32
}

// Limits bound an automaton's size. Zero values mean the defaults.
type Limits struct {
	States int // states before minimisation; default 2^20
	Memory int // bytes of state sets and transitions; default 512 MiB
}

// ErrTooBig is returned when an automaton exceeds its limits.
var ErrTooBig = errors.New("automaton exceeds its size limit")

// An Edge is a transition on one symbol (a byte, or OOB).
type Edge struct {
	Sym uint16
	To  uint32
}

// DFA is a complete deterministic automaton. State 0 is the trap, state 1 the
// start. A transition on a byte that has no edge goes to Default; on OOB it
// goes to the trap.
type DFA struct {
	Default []uint32
	Label   []uint32 // 0: not accepting
	index   []uint32 // edges of state s are edges[index[s]:index[s+1]]
	edges   []Edge
}

// Trap and Start are the states of every DFA with a fixed meaning.
const (
	Trap  = 0
	Start = 1
)

// Len is the number of states.
func (d *DFA) Len() int { return len(d.Default) }

// Edges lists the edges of state s in ascending order of symbols.
func (d *DFA) Edges(s uint32) []Edge { return d.edges[d.index[s]:d.index[s+1]] }

// Next is the transition function.
func (d *DFA) Next(s uint32, sym int) uint32 {
	edges := d.Edges(s)
	lo, hi := 0, len(edges)
	for lo < hi {
		m := (lo + hi) / 2
		if int(edges[m].Sym) < sym {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(edges) && int(edges[lo].Sym) == sym {
		return edges[lo].To
	}
	if sym == OOB {
		return Trap
	}
	return d.Default[s]
}

// Match runs the input from the start and returns the state reached.
func (d *DFA) Match(in []byte) uint32 {
	s := uint32(Start)
	for _, c := range in {
		s = d.Next(s, int(c))
	}
	return s
}

// nstate is a state of the automaton of partial derivatives: an expression
// that is yet to match, then another state.
type nstate struct {
	expr     Expr
	next     int32 // −1: none, this is an accepting end
	accept   int32 // of an accepting end
	first    int32 // items[first:first+count]; −1: not yet expanded
	count    int32
	accepts  int32 // acceptSets[accepts:accepts+nAccepts]
	nAccepts int32
}

// item is a transition of the automaton of partial derivatives.
type item struct {
	sym int32 // ≥ 0: byte; oobItem; otherwise −2−set
	to  int32
}

const oobItem = -1

type builder struct {
	a       *Arena
	limits  Limits
	states  []nstate
	byKey   map[uint64]int32
	ends    map[int32]int32
	items   []item
	accepts []int32

	// subset construction
	sets   []int32 // arena of state sets
	setAt  []uint32
	table  []uint32 // open addressing; DFA state + 1
	single []uint32 // state of a set of one
	dfa    *DFA
	label  func([]int32) (uint32, error)

	buckets   [257][]int32
	mentioned []uint16
	isMent    [257]bool
	scratch   []int32
	wideTo    []int32
	wideSet   []int32
	labels    map[string]uint32
}

// Build constructs the automaton of the union of rules. label turns the sorted
// accept values that meet in one state into that state's label; it is called
// once for each distinct combination, and an error of it stops the build.
func Build(a *Arena, rules []Rule, label func(accepts []int32) (uint32, error), limits Limits) (*DFA, error) {
	if limits.States == 0 {
		limits.States = 1 << 20
	}
	if limits.Memory == 0 {
		limits.Memory = 512 << 20
	}
	b := &builder{
		a: a, limits: limits, label: label,
		byKey: make(map[uint64]int32, 1024), ends: make(map[int32]int32), labels: make(map[string]uint32),
		table: make([]uint32, 1024),
		dfa:   &DFA{},
	}
	start := make([]int32, 0, len(rules))
	for _, r := range rules {
		if r.Expr == Empty {
			continue
		}
		end, ok := b.ends[r.Accept]
		if !ok {
			end = int32(len(b.states))
			b.states = append(b.states, nstate{next: -1, accept: r.Accept, first: -1})
			b.ends[r.Accept] = end
		}
		start = append(start, b.state(r.Expr, end))
	}
	if err := b.subsets(start); err != nil {
		return nil, err
	}
	return b.dfa, nil
}

// state names the state "expr, then next".
func (b *builder) state(e Expr, next int32) int32 {
	if e == Epsilon {
		return next
	}
	k := uint64(uint32(e))<<32 | uint64(uint32(next))
	if s, ok := b.byKey[k]; ok {
		return s
	}
	s := int32(len(b.states))
	b.states = append(b.states, nstate{expr: e, next: next, first: -1})
	b.byKey[k] = s
	return s
}

// expand computes the transitions and accepts of a state.
func (b *builder) expand(s int32) {
	if b.states[s].first >= 0 {
		return
	}
	var items []item
	var accepts []int32
	b.collect(s, &items, &accepts)
	if len(items) > 1 {
		slices.SortFunc(items, func(x, y item) int {
			if x.sym != y.sym {
				return int(x.sym) - int(y.sym)
			}
			return int(x.to) - int(y.to)
		})
		items = slices.Compact(items)
	}
	if len(accepts) > 1 {
		slices.Sort(accepts)
		accepts = slices.Compact(accepts)
	}
	st := &b.states[s]
	st.first, st.count = int32(len(b.items)), int32(len(items))
	st.accepts, st.nAccepts = int32(len(b.accepts)), int32(len(accepts))
	b.items = append(b.items, items...)
	b.accepts = append(b.accepts, accepts...)
}

func (b *builder) collect(s int32, items *[]item, accepts *[]int32) {
	st := b.states[s]
	switch {
	case st.first >= 0:
		*items = append(*items, b.items[st.first:st.first+st.count]...)
		*accepts = append(*accepts, b.accepts[st.accepts:st.accepts+st.nAccepts]...)
	case st.next < 0:
		*accepts = append(*accepts, st.accept)
	default:
		b.derive(st.expr, st.next, items, accepts)
	}
}

// derive adds the transitions of "e, then next". It terminates because the
// body of a star is never nullable.
func (b *builder) derive(e Expr, next int32, items *[]item, accepts *[]int32) {
	for {
		n := b.a.nodes[e]
		switch n.op {
		case opEmpty:
			return
		case opEps:
			b.collect(next, items, accepts)
			return
		case opByte:
			*items = append(*items, item{n.a, next})
			return
		case opSet:
			*items = append(*items, item{-2 - n.a, next})
			return
		case opOOB:
			*items = append(*items, item{oobItem, next})
			return
		case opCat:
			next = b.state(Expr(n.b), next)
			e = Expr(n.a)
		case opAlt:
			b.derive(Expr(n.a), next, items, accepts)
			e = Expr(n.b)
		case opStar:
			self := b.state(e, next)
			b.collect(next, items, accepts)
			next = self
			e = Expr(n.a)
		}
	}
}

func hashSet(set []int32) uint64 {
	h := uint64(len(set)) * 0x9E3779B97F4A7C15
	for _, v := range set {
		h ^= uint64(uint32(v))
		h *= 0xff51afd7ed558ccd
		h ^= h >> 29
	}
	return h ^ h>>32
}

// lookup returns the DFA state of a sorted set without repetitions.
func (b *builder) lookup(set []int32) uint32 {
	if len(set) == 0 {
		return Trap
	}
	if len(set) == 1 {
		n := int(set[0])
		for len(b.single) <= n {
			b.single = append(b.single, make([]uint32, len(b.states)-len(b.single)+64)...)
		}
		if b.single[n] == 0 {
			b.single[n] = b.add(set)
		}
		return b.single[n]
	}
	mask := uint64(len(b.table) - 1)
	for i := hashSet(set) & mask; ; i = (i + 1) & mask {
		v := b.table[i]
		if v == 0 {
			s := b.add(set)
			b.table[i] = s + 1
			if 2*len(b.setAt) > len(b.table) {
				b.grow()
			}
			return s
		}
		if slices.Equal(b.set(v-1), set) {
			return v - 1
		}
	}
}

func (b *builder) set(s uint32) []int32 {
	end := uint32(len(b.sets))
	if int(s)+1 < len(b.setAt) {
		end = b.setAt[s+1]
	}
	return b.sets[b.setAt[s]:end]
}

func (b *builder) add(set []int32) uint32 {
	s := uint32(len(b.setAt))
	b.setAt = append(b.setAt, uint32(len(b.sets)))
	b.sets = append(b.sets, set...)
	return s
}

func (b *builder) grow() {
	b.table = make([]uint32, 2*len(b.table))
	mask := uint64(len(b.table) - 1)
	for s := range b.setAt {
		set := b.set(uint32(s))
		if len(set) < 2 {
			continue
		}
		i := hashSet(set) & mask
		for b.table[i] != 0 {
			i = (i + 1) & mask
		}
		b.table[i] = uint32(s) + 1
	}
}

func (b *builder) subsets(start []int32) error {
	slices.Sort(start)
	start = slices.Compact(start)
	d := b.dfa
	b.add(nil) // the trap
	b.add(start)
	d.Default = append(d.Default, Trap)
	d.Label = append(d.Label, 0)
	d.index = append(d.index, 0, 0)
	// The start keeps a name of its own even if its set comes up again.
	for s := uint32(1); int(s) < len(b.setAt); s++ {
		if len(b.setAt) > b.limits.States || 4*len(b.sets)+8*len(d.edges)+16*len(b.items)+32*len(b.states) > b.limits.Memory {
			return fmt.Errorf("%w: %d states", ErrTooBig, len(b.setAt))
		}
		if err := b.transitions(s); err != nil {
			return err
		}
	}
	return nil
}

// transitions computes default, edges and label of DFA state s.
func (b *builder) transitions(s uint32) error {
	d := b.dfa
	b.mentioned = b.mentioned[:0]
	b.wideTo, b.wideSet = b.wideTo[:0], b.wideSet[:0]
	accepts := b.scratch[:0]
	for _, n := range b.set(s) {
		b.expand(n)
		st := &b.states[n]
		accepts = append(accepts, b.accepts[st.accepts:st.accepts+st.nAccepts]...)
		for _, it := range b.items[st.first : st.first+st.count] {
			switch {
			case it.sym >= 0:
				b.bucket(uint16(it.sym), it.to)
			case it.sym == oobItem:
				b.bucket(OOB, it.to)
			default:
				cs := &b.a.sets[-2-it.sym]
				if !cs.wide {
					for _, c := range cs.listed {
						b.bucket(uint16(c), it.to)
					}
					break
				}
				b.wideTo = append(b.wideTo, it.to)
				b.wideSet = append(b.wideSet, -2-it.sym)
				for _, c := range cs.listed {
					b.mention(uint16(c))
				}
			}
		}
	}
	label, err := b.labelOf(accepts)
	if err != nil {
		return err
	}
	b.scratch = accepts

	def := b.lookupUnion(append(b.scratch[:0], b.wideTo...))
	slices.Sort(b.mentioned)
	for _, sym := range b.mentioned {
		to := append(b.scratch[:0], b.buckets[sym]...)
		b.buckets[sym] = b.buckets[sym][:0]
		b.isMent[sym] = false
		if sym != OOB {
			for i, set := range b.wideSet {
				if b.a.sets[set].set.Has(byte(sym)) {
					to = append(to, b.wideTo[i])
				}
			}
		}
		b.scratch = to
		t := b.lookupUnion(to)
		if t != def && sym != OOB || t != Trap && sym == OOB {
			d.edges = append(d.edges, Edge{sym, t})
		}
	}
	d.Default = append(d.Default, def)
	d.Label = append(d.Label, label)
	d.index = append(d.index, uint32(len(d.edges)))
	return nil
}

func (b *builder) mention(sym uint16) {
	if !b.isMent[sym] {
		b.isMent[sym] = true
		b.mentioned = append(b.mentioned, sym)
	}
}

func (b *builder) bucket(sym uint16, to int32) {
	b.mention(sym)
	b.buckets[sym] = append(b.buckets[sym], to)
}

func (b *builder) lookupUnion(set []int32) uint32 {
	switch len(set) {
	case 0:
		return Trap
	case 1:
	case 2:
		if set[0] > set[1] {
			set[0], set[1] = set[1], set[0]
		}
		if set[0] == set[1] {
			set = set[:1]
		}
	default:
		slices.Sort(set)
		set = slices.Compact(set)
	}
	return b.lookup(set)
}

func (b *builder) labelOf(accepts []int32) (uint32, error) {
	if len(accepts) == 0 {
		return 0, nil
	}
	slices.Sort(accepts)
	accepts = slices.Compact(accepts)
	key := make([]byte, 0, 64)
	for _, v := range accepts {
		key = append(key, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	if l, ok := b.labels[string(key)]; ok {
		return l, nil
	}
	l, err := b.label(slices.Clone(accepts))
	if err != nil {
		return 0, err
	}
	b.labels[string(key)] = l
	return l, nil
}

// NewDFA makes an automaton from transition functions, for tests and for
// decoded tables. defaults, labels and edges have one entry per state; edges
// of one state are sorted by symbol.
func NewDFA(defaults, labels []uint32, edges [][]Edge) *DFA {
	d := &DFA{Default: defaults, Label: labels, index: make([]uint32, 1, len(defaults)+1)}
	for _, e := range edges {
		d.edges = append(d.edges, e...)
		d.index = append(d.index, uint32(len(d.edges)))
	}
	return d
}

// Accepts lists the accept values of the rules that match the input, in
// ascending order, without building an automaton.
func (a *Arena) Accepts(rules []Rule, input []uint16) []int32 {
	b := &builder{a: a, byKey: make(map[uint64]int32), ends: make(map[int32]int32)}
	var set []int32
	for _, r := range rules {
		if r.Expr == Empty {
			continue
		}
		end, ok := b.ends[r.Accept]
		if !ok {
			end = int32(len(b.states))
			b.states = append(b.states, nstate{next: -1, accept: r.Accept, first: -1})
			b.ends[r.Accept] = end
		}
		set = append(set, b.state(r.Expr, end))
	}
	var next []int32
	for _, sym := range input {
		next = next[:0]
		for _, s := range set {
			b.expand(s)
			st := b.states[s]
			for _, it := range b.items[st.first : st.first+st.count] {
				switch {
				case it.sym >= 0 && it.sym == int32(sym),
					it.sym == oobItem && sym == OOB,
					it.sym < oobItem && sym != OOB && a.sets[-2-it.sym].set.Has(byte(sym)):
					next = append(next, it.to)
				}
			}
		}
		slices.Sort(next)
		set, next = slices.Compact(next), set
	}
	var out []int32
	for _, s := range set {
		b.expand(s)
		st := b.states[s]
		out = append(out, b.accepts[st.accepts:st.accepts+st.nAccepts]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
