// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"math/rand/v2"
	"slices"
)

// Minimize returns the automaton with the fewest states that labels every
// input as d does. The start keeps a state of its own only where its future
// differs from that of every other state.
//
// AppArmor automata are trees with few loops. So strongly connected components
// are visited from the leaves: a state outside any cycle is equal to another
// exactly if label and successors' classes are, which is one hash lookup; only
// the states of a cycle need partition refinement, and only among themselves.
func (d *DFA) Minimize() *DFA {
	m := &minimizer{
		d: d, class: make([]uint32, d.Len()), trivial: make(map[uint64][]uint32, d.Len()),
		cyclic: make(map[uint64][]uint32),
	}
	m.components()
	m.run()
	return m.quotient()
}

const unclassed = ^uint32(0)

type minimizer struct {
	d     *DFA
	class []uint32 // state → class
	reps  []uint32 // class → representative state

	order   []uint32 // states by component, successors first
	compEnd []uint32 // ends of components in order
	comp    []uint32 // state → component

	depth   []uint64            // what the next few symbols tell of a state
	trivial map[uint64][]uint32 // exact row → classes
	cyclic  map[uint64][]uint32 // depth → classes that lie on cycles
}

// components finds strongly connected components (Tarjan's algorithm without
// recursion), each after those that it leads to.
func (m *minimizer) components() {
	d := m.d
	n := d.Len()
	m.comp = make([]uint32, n)
	index := make([]uint32, n) // 0: not visited
	low := make([]uint32, n)
	onStack := make([]bool, n)
	type frame struct {
		s    uint32
		edge int32 // next edge; −1: default
	}
	var call []frame
	var stack []uint32
	counter := uint32(0)
	visit := func(s uint32) {
		counter++
		index[s], low[s] = counter, counter
		stack = append(stack, s)
		onStack[s] = true
		call = append(call, frame{s, -1})
	}
	for _, root := range []uint32{Trap, Start} {
		if int(root) >= n || index[root] != 0 {
			continue
		}
		visit(root)
		for len(call) > 0 {
			f := &call[len(call)-1]
			edges := d.Edges(f.s)
			if int(f.edge) < len(edges) {
				t := d.Default[f.s]
				if f.edge >= 0 {
					t = edges[f.edge].To
				}
				f.edge++
				if index[t] == 0 {
					visit(t)
				} else if onStack[t] && index[t] < low[f.s] {
					low[f.s] = index[t]
				}
				continue
			}
			s := f.s
			call = call[:len(call)-1]
			if len(call) > 0 {
				if p := call[len(call)-1].s; low[s] < low[p] {
					low[p] = low[s]
				}
			}
			if low[s] == index[s] {
				c := uint32(len(m.compEnd))
				for {
					t := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					onStack[t] = false
					m.comp[t] = c
					m.order = append(m.order, t)
					if t == s {
						break
					}
				}
				m.compEnd = append(m.compEnd, uint32(len(m.order)))
			}
		}
	}
}

func (m *minimizer) run() {
	for i := range m.class {
		m.class[i] = unclassed
	}
	m.depths()
	begin := uint32(0)
	for c, end := range m.compEnd {
		states := m.order[begin:end]
		begin = end
		if len(states) == 1 && !m.selfLoop(states[0]) {
			m.single(states[0])
			continue
		}
		m.cycle(uint32(c), states)
	}
}

func (m *minimizer) selfLoop(s uint32) bool {
	if m.d.Default[s] == s {
		return true
	}
	for _, e := range m.d.Edges(s) {
		if e.To == s {
			return true
		}
	}
	return false
}

// Rows are compared by a linear sketch: the sum over all bytes of a fixed
// random weight times the scrambled colour of the successor. It does not
// depend on which successor is the default.
var weights, weightSum = func() (w [257]uint64, sum uint64) {
	r := rand.New(rand.NewPCG(0x9E3779B97F4A7C15, 0xD1B54A32D192ED03))
	for i := range w {
		w[i] = r.Uint64() | 1
		if i < 256 {
			sum += w[i]
		}
	}
	return
}()

func scramble(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (m *minimizer) sketch(s uint32, colour func(uint32) uint64) uint64 {
	d := m.d
	def := scramble(colour(d.Default[s]))
	h := scramble(uint64(d.Label[s])+0x51) + def*weightSum
	var lastTo uint32 = unclassed
	var lastCol uint64
	for _, e := range d.Edges(s) {
		if e.To != lastTo {
			lastTo, lastCol = e.To, scramble(colour(e.To))
		}
		if e.Sym == OOB {
			h += weights[OOB] * lastCol
		} else {
			h += weights[e.Sym] * (lastCol - def)
		}
	}
	return scramble(h)
}

// depths gives every state a colour that equal states share, wherever they
// are: what is told by labels within the next symbols.
func (m *minimizer) depths() {
	n := m.d.Len()
	cur, next := make([]uint64, n), make([]uint64, n)
	for s := range cur {
		cur[s] = scramble(uint64(m.d.Label[s]) + 7)
	}
	for range 6 {
		colour := func(s uint32) uint64 { return cur[s] }
		for _, s := range m.order {
			next[s] = m.sketch(s, colour)
		}
		cur, next = next, cur
	}
	m.depth = cur
}

func (m *minimizer) newClass(s uint32) uint32 {
	c := uint32(len(m.reps))
	m.reps = append(m.reps, s)
	m.class[s] = c
	return c
}

func (m *minimizer) single(s uint32) {
	h := m.sketch(s, func(t uint32) uint64 { return uint64(m.class[t]) })
	for _, c := range m.trivial[h] {
		if m.sameRow(s, m.reps[c]) {
			m.class[s] = c
			return
		}
	}
	m.trivial[h] = append(m.trivial[h], m.newClass(s))
}

// sameRow compares labels and the classes of all successors.
func (m *minimizer) sameRow(s, t uint32) bool {
	d := m.d
	if d.Label[s] != d.Label[t] {
		return false
	}
	ds, dt := m.class[d.Default[s]], m.class[d.Default[t]]
	a, b := d.Edges(s), d.Edges(t)
	mentioned := 0
	for len(a) > 0 || len(b) > 0 {
		var x, y uint32
		var sym uint16
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Sym < b[0].Sym:
			sym, x, y = a[0].Sym, m.class[a[0].To], dt
			a = a[1:]
			if sym == OOB {
				y = m.class[Trap]
			}
		case len(a) == 0 || b[0].Sym < a[0].Sym:
			sym, x, y = b[0].Sym, ds, m.class[b[0].To]
			b = b[1:]
			if sym == OOB {
				x = m.class[Trap]
			}
		default:
			sym, x, y = a[0].Sym, m.class[a[0].To], m.class[b[0].To]
			a, b = a[1:], b[1:]
		}
		if x != y {
			return false
		}
		if sym != OOB {
			mentioned++
		}
	}
	return ds == dt || mentioned == 256
}

// cycle classes the states of one component that contains a cycle.
func (m *minimizer) cycle(c uint32, states []uint32) {
	if m.matchEarlier(c, states) {
		return
	}
	groups := m.refine(c, states)
	for _, g := range groups {
		k := m.newClass(g[0])
		for _, s := range g {
			m.class[s] = k
		}
	}
	for _, g := range groups {
		s := g[0]
		m.cyclic[m.depth[s]] = append(m.cyclic[m.depth[s]], m.class[s])
		h := m.sketch(s, func(t uint32) uint64 { return uint64(m.class[t]) })
		m.trivial[h] = append(m.trivial[h], m.class[s])
	}
}

// matchEarlier looks for classes that behave as the states of the component
// do, by walking both together from a state with few candidates.
func (m *minimizer) matchEarlier(c uint32, states []uint32) bool {
	best := states[0]
	for i, s := range states {
		n := len(m.cyclic[m.depth[s]])
		if n == 0 {
			return false
		}
		if n < len(m.cyclic[m.depth[best]]) {
			best = s
		}
		if i > 64 {
			break
		}
	}
	for _, k := range m.cyclic[m.depth[best]] {
		if m.walk(c, best, k) {
			return true
		}
		for _, s := range states {
			m.class[s] = unclassed
		}
	}
	return false
}

// walk tries to map component c onto existing classes with s ↦ k.
func (m *minimizer) walk(c, s, k uint32) bool {
	d := m.d
	m.class[s] = k
	todo := []uint32{s}
	ok := true
	pair := func(t, class uint32) {
		switch {
		case m.comp[t] != c:
			ok = ok && m.class[t] == class
		case m.class[t] == unclassed:
			m.class[t] = class
			todo = append(todo, t)
		default:
			ok = ok && m.class[t] == class
		}
	}
	for len(todo) > 0 && ok {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		r := m.reps[m.class[s]]
		if d.Label[s] != d.Label[r] || m.depth[s] != m.depth[r] {
			return false
		}
		a, b := d.Edges(s), d.Edges(r)
		ds, dr := d.Default[s], d.Default[r]
		mentioned := 0
		for ok && (len(a) > 0 || len(b) > 0) {
			x, y := ds, dr
			var sym uint16
			switch {
			case len(b) == 0 || len(a) > 0 && a[0].Sym < b[0].Sym:
				sym, x = a[0].Sym, a[0].To
				a = a[1:]
				if sym == OOB {
					y = Trap
				}
			case len(a) == 0 || b[0].Sym < a[0].Sym:
				sym, y = b[0].Sym, b[0].To
				b = b[1:]
				if sym == OOB {
					x = Trap
				}
			default:
				sym, x, y = a[0].Sym, a[0].To, b[0].To
				a, b = a[1:], b[1:]
			}
			pair(x, m.class[y])
			if sym != OOB {
				mentioned++
			}
		}
		if ok && mentioned < 256 {
			pair(ds, m.class[dr])
		}
	}
	return ok
}

// refine splits the states of a component into groups of equal ones: first by
// colours until their number stops growing, then exactly.
func (m *minimizer) refine(c uint32, states []uint32) [][]uint32 {
	if len(states) == 1 {
		return [][]uint32{states}
	}
	colours := make(map[uint32]uint64, len(states))
	for _, s := range states {
		colours[s] = m.depth[s]
	}
	colour := func(t uint32) uint64 {
		if m.comp[t] == c {
			return colours[t]
		}
		return uint64(m.class[t]) | 1<<40
	}
	count := func() int {
		seen := make(map[uint64]struct{}, len(states))
		for _, v := range colours {
			seen[v] = struct{}{}
		}
		return len(seen)
	}
	last := count()
	for last < len(states) {
		next := make(map[uint32]uint64, len(states))
		for _, s := range states {
			next[s] = m.sketch(s, colour)
		}
		colours = next
		n := count()
		if n == last {
			break
		}
		last = n
	}
	slices.SortStableFunc(states, func(x, y uint32) int {
		switch cx, cy := colours[x], colours[y]; {
		case cx < cy:
			return -1
		case cx > cy:
			return 1
		}
		return int(x) - int(y)
	})
	var groups [][]uint32
	for i := 0; i < len(states); {
		j := i
		for j < len(states) && colours[states[j]] == colours[states[i]] {
			j++
		}
		groups = append(groups, states[i:j:j])
		i = j
	}
	return m.exact(groups)
}

// exact splits groups until all members of each have equal rows. Colours
// leave it nothing to do but for a collision of hashes.
func (m *minimizer) exact(groups [][]uint32) [][]uint32 {
	base := uint32(len(m.reps)) // temporary names above every class in use
	for {
		for i, g := range groups {
			for _, s := range g {
				m.class[s] = base + uint32(i)
			}
		}
		var out [][]uint32
		for _, g := range groups {
			rest := g
			for len(rest) > 0 {
				var same, other []uint32
				for _, s := range rest {
					if m.sameRow(rest[0], s) {
						same = append(same, s)
					} else {
						other = append(other, s)
					}
				}
				out = append(out, same)
				rest = other
			}
		}
		if len(out) == len(groups) {
			return groups
		}
		groups = out
	}
}

// quotient builds the automaton of classes, numbered in breadth-first order
// from the start, with the most frequent successor as default.
func (m *minimizer) quotient() *DFA {
	d := m.d
	num := make([]uint32, len(m.reps))
	for i := range num {
		num[i] = unclassed
	}
	q := &DFA{index: []uint32{0}}
	queue := make([]uint32, 0, len(m.reps)+1)
	trap := m.class[Trap]
	num[trap] = Trap
	queue = append(queue, trap)
	if d.Len() > 1 {
		start := m.class[Start]
		if start == trap {
			// A start that accepts nothing still has to be state 1.
			queue = append(queue, start)
		} else {
			num[start] = Start
			queue = append(queue, start)
		}
	}
	number := func(s uint32) uint32 {
		c := m.class[s]
		if num[c] == unclassed {
			num[c] = uint32(len(queue))
			queue = append(queue, c)
		}
		return num[c]
	}
	var row []Edge
	for i := 0; i < len(queue); i++ {
		s := m.reps[queue[i]]
		def := number(d.Default[s])
		row = row[:0]
		for _, e := range d.Edges(s) {
			row = append(row, Edge{e.Sym, number(e.To)})
		}
		def, row = bestDefault(def, row)
		q.Default = append(q.Default, def)
		q.Label = append(q.Label, d.Label[s])
		q.edges = append(q.edges, row...)
		q.index = append(q.index, uint32(len(q.edges)))
	}
	return q
}

// bestDefault makes the most frequent successor the default, the lowest of
// equally frequent ones, and drops the edges that go there.
func bestDefault(def uint32, row []Edge) (uint32, []Edge) {
	nbytes := len(row)
	if nbytes > 0 && row[nbytes-1].Sym == OOB {
		nbytes--
	}
	best := def
	if nbytes > 64 {
		count := map[uint32]int{def: 256 - nbytes}
		for _, e := range row[:nbytes] {
			count[e.To]++
		}
		for t, n := range count {
			if b := count[best]; n > b || n == b && t < best {
				best = t
			}
		}
	}
	if best != def {
		full := make([]Edge, 0, 257)
		i := 0
		for c := range uint16(256) {
			if i < nbytes && row[i].Sym == c {
				full = append(full, row[i])
				i++
			} else {
				full = append(full, Edge{c, def})
			}
		}
		row = append(full, row[nbytes:]...)
		def = best
	}
	out := row[:0]
	for _, e := range row {
		if e.To != def && e.Sym != OOB || e.Sym == OOB && e.To != Trap {
			out = append(out, e)
		}
	}
	return def, out
}
