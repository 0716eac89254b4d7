// SPDX-License-Identifier: Apache-2.0

package dfa

import "slices"

// Difference is an input on which two automata disagree.
type Difference struct {
	Input  []uint16 // symbols; OOB possible
	A, B   uint32   // labels
	StateA uint32
	StateB uint32
}

// Bytes is the input without out-of-band symbols.
func (d *Difference) Bytes() []byte {
	out := make([]byte, 0, len(d.Input))
	for _, s := range d.Input {
		if s != OOB {
			out = append(out, byte(s))
		}
	}
	return out
}

// Compare walks two automata together and returns a shortest input whose labels
// differ after same, or nil when there is none. The empty input counts too.
func Compare(a, b *DFA, same func(la, lb uint32) bool) *Difference {
	var found *Difference
	Product(a, b, func(la, lb uint32, in func() ([]uint16, uint32, uint32)) bool {
		if same(la, lb) {
			return true
		}
		input, sa, sb := in()
		found = &Difference{Input: input, A: la, B: lb, StateA: sa, StateB: sb}
		return false
	})
	return found
}

// Product visits every pair of states that some input reaches, in the order of
// the shortest such input, until visit returns false. The input is computed
// only when visit asks for it.
func Product(a, b *DFA, visit func(la, lb uint32, in func() (input []uint16, sa, sb uint32)) bool) {
	type pair struct{ a, b uint32 }
	type from struct {
		prev int32
		sym  uint16
	}
	seen := map[uint64]struct{}{}
	var queue []pair
	var back []from
	push := func(p pair, f from) {
		k := uint64(p.a)<<32 | uint64(p.b)
		if _, ok := seen[k]; ok {
			return
		}
		seen[k] = struct{}{}
		queue = append(queue, p)
		back = append(back, f)
	}
	push(pair{Start, Start}, from{-1, 0})
	for i := 0; i < len(queue); i++ {
		p := queue[i]
		input := func() ([]uint16, uint32, uint32) {
			var in []uint16
			for j := int32(i); back[j].prev >= 0; j = back[j].prev {
				in = append(in, back[j].sym)
			}
			slices.Reverse(in)
			return in, p.a, p.b
		}
		if !visit(a.Label[p.a], b.Label[p.b], input) {
			return
		}
		ea, eb := a.Edges(p.a), b.Edges(p.b)
		da, db := a.Default[p.a], b.Default[p.b]
		var mentioned Set
		n := 0
		for len(ea) > 0 || len(eb) > 0 {
			x, y := da, db
			var sym uint16
			switch {
			case len(eb) == 0 || len(ea) > 0 && ea[0].Sym < eb[0].Sym:
				sym, x = ea[0].Sym, ea[0].To
				ea = ea[1:]
				if sym == OOB {
					y = Trap
				}
			case len(ea) == 0 || eb[0].Sym < ea[0].Sym:
				sym, y = eb[0].Sym, eb[0].To
				eb = eb[1:]
				if sym == OOB {
					x = Trap
				}
			default:
				sym, x, y = ea[0].Sym, ea[0].To, eb[0].To
				ea, eb = ea[1:], eb[1:]
			}
			if sym != OOB {
				mentioned.Add(byte(sym))
				n++
			}
			push(pair{x, y}, from{int32(i), sym})
		}
		if n < 256 {
			mentioned.Invert()
			push(pair{da, db}, from{int32(i), uint16(Readable(mentioned))})
		}
	}
}

// Readable picks a byte of a non-empty set, letters first.
func Readable(s Set) byte {
	for _, r := range [...][2]byte{{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'/', '/'}, {'!', '~'}, {1, 255}} {
		for c := int(r[0]); c <= int(r[1]); c++ {
			if s.Has(byte(c)) {
				return byte(c)
			}
		}
	}
	return 0
}

// Live tells for each state whether a state with a label that want accepts can
// be reached from it.
func (d *DFA) Live(want func(label uint32) bool) []bool {
	n := d.Len()
	rev := make([][]uint32, n)
	for s := range n {
		add := func(t uint32) {
			if int(t) != s {
				rev[t] = append(rev[t], uint32(s))
			}
		}
		edges := d.Edges(uint32(s))
		if len(edges) < 256 || edges[255].Sym == OOB {
			add(d.Default[s])
		}
		last := -1
		for _, e := range edges {
			if int(e.To) != last {
				add(e.To)
				last = int(e.To)
			}
		}
	}
	live := make([]bool, n)
	var stack []uint32
	for s := range n {
		if want(d.Label[s]) {
			live[s] = true
			stack = append(stack, uint32(s))
		}
	}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, t := range rev[s] {
			if !live[t] {
				live[t] = true
				stack = append(stack, t)
			}
		}
	}
	return live
}

// Relabel returns d with each label replaced; the shape is shared.
func (d *DFA) Relabel(label func(uint32) uint32) *DFA {
	r := *d
	r.Label = make([]uint32, len(d.Label))
	for s, l := range d.Label {
		r.Label[s] = label(l)
	}
	return &r
}
