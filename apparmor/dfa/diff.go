// SPDX-License-Identifier: Apache-2.0

package dfa

// relRow is a row stored as its difference from another state's row.
type relRow struct {
	on    bool
	base  uint32
	edges []Edge
}

// PackDiff compresses d with differential rows: a state stores only how its
// row differs from that of a state nearer to the start, where that is smaller.
// It needs a kernel with the feature policy/diff-encode.
//
// The kernel follows a chain of such rows for one symbol. Rows refer only to
// states at a smaller distance from the start, or at the same distance that are
// not differential themselves; so an input of n symbols costs at most 2n steps.
// Source: security/apparmor/match.c, match_char.
func PackDiff(d *DFA, accept func(label uint32) (uint32, uint32)) (*Table, error) {
	n := d.Len()
	depth := make([]int, n)
	parents := make([][]uint32, n)
	order := []uint32{Start}
	for i := range depth {
		depth[i] = -1
	}
	depth[Trap], depth[Start] = 0, 1
	for i := 0; i < len(order); i++ {
		s := order[i]
		link := func(t uint32) {
			if t == Trap {
				return
			}
			if depth[t] < 0 {
				depth[t] = depth[s] + 1
				order = append(order, t)
			}
			if depth[s] <= depth[t] && s != t {
				if p := parents[t]; len(p) == 0 || p[len(p)-1] != s {
					parents[t] = append(p, s)
				}
			}
		}
		link(d.Default[s])
		for _, e := range d.Edges(s) {
			link(e.To)
		}
	}
	rel := make([]relRow, n)
	for _, s := range order[1:] {
		var best uint32
		gain := 0
		own := d.Edges(s)
		tried := 0
		try := func(next uint32) {
			for _, p := range parents[next] {
				if tried > 64 {
					return
				}
				if p == s || depth[p] > depth[s] || depth[p] == depth[s] && rel[p].on {
					continue
				}
				tried++
				if g := len(own) - len(d.difference(s, p, nil)); g > gain {
					gain, best = g, p
				}
			}
		}
		try(d.Default[s])
		for _, e := range own {
			try(e.To)
		}
		if gain > 0 {
			rel[s] = relRow{on: true, base: best, edges: d.difference(s, best, []Edge{})}
		}
	}
	// A sibling chosen as base must stay absolute; it was when chosen, and
	// states are visited in order, so only later siblings can differ.
	for _, s := range order[1:] {
		if r := rel[s]; r.on && depth[r.base] == depth[s] && rel[r.base].on {
			rel[s] = relRow{}
		}
	}
	return pack(d, rel, accept)
}

// difference lists the edges that s needs on top of the whole row of p.
func (d *DFA) difference(s, p uint32, out []Edge) []Edge {
	a, b := d.Edges(s), d.Edges(p)
	ds, dp := d.Default[s], d.Default[p]
	if ds != dp {
		for c := range uint16(257) {
			x, y := ds, dp
			if c == OOB {
				x, y = Trap, Trap
			}
			if len(a) > 0 && a[0].Sym == c {
				x, a = a[0].To, a[1:]
			}
			if len(b) > 0 && b[0].Sym == c {
				y, b = b[0].To, b[1:]
			}
			if x != y || c == OOB && x != Trap {
				out = append(out, Edge{c, x})
			}
		}
		return out
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Sym < b[0].Sym:
			out = append(out, a[0])
			a = a[1:]
		case len(a) == 0 || b[0].Sym < a[0].Sym:
			if b[0].Sym != OOB {
				out = append(out, Edge{b[0].Sym, ds})
			}
			b = b[1:]
		default:
			if a[0].To != b[0].To || a[0].Sym == OOB {
				out = append(out, a[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}
