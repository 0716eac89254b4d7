// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Automaton kinds of a view.
const (
	policyView = iota
	ownerView  // files of the task's user
	otherView
)

// view is an automaton of a profile with the permissions of its states. A
// profile without the automaton gives a view in which nothing is allowed.
type view struct {
	d     *dfa.DFA
	perms []blob.Perms // by label; 0 is the trap's
}

// nothing is the automaton in which no input goes anywhere.
var nothing = dfa.NewDFA([]uint32{0, 0}, []uint32{0, 0}, [][]dfa.Edge{nil, nil})

func viewOf(p *blob.Profile, which int) (*view, error) {
	a, kind := p.PolicyDB, blob.KindPolicy
	if which != policyView {
		a, kind = p.File, blob.KindFile
	}
	v := &view{perms: []blob.Perms{{}}}
	if a == nil {
		v.d = nothing
		return v, nil
	}
	ids := map[blob.Perms]uint32{{}: 0}
	at := make([]uint32, a.Table.States())
	for s := range at {
		var t blob.Perms
		if s != dfa.Trap {
			t = a.Lookup(kind, uint32(s), which == ownerView)
		}
		id, ok := ids[t]
		if !ok {
			id = uint32(len(v.perms))
			ids[t] = id
			v.perms = append(v.perms, t)
		}
		at[s] = id
	}
	d, err := a.Table.Unpack(func(_, _ uint32) uint32 { return 0 })
	if err != nil {
		return nil, err
	}
	copy(d.Label, at)
	v.d = d
	return v, nil
}

// stack is the view of several profiles together: what all of them allow.
func stackViews(profiles []*blob.Profile, which int) (*view, error) {
	var sum *view
	for _, p := range profiles {
		if p.Mode == blob.Unconfined {
			continue
		}
		v, err := viewOf(p, which)
		if err != nil {
			return nil, err
		}
		if which == policyView {
			v = unmediated(p, v)
		}
		if sum == nil {
			sum = v
			continue
		}
		if sum, err = both(sum, v); err != nil {
			return nil, err
		}
	}
	if sum == nil {
		// Nothing confines: one state that allows everything.
		all := dfa.NewDFA([]uint32{0, 1}, []uint32{0, 1}, [][]dfa.Edge{nil, nil})
		sum = &view{d: all, perms: []blob.Perms{{}, {Allow: allPerms}}}
	}
	return sum, nil
}

// unmediated adds to a policy view that classes without a state are allowed.
func unmediated(p *blob.Profile, v *view) *view {
	n := v.d.Len()
	free := uint32(n)
	defaults := append(append([]uint32{}, v.d.Default...), free)
	labels := append(append([]uint32{}, v.d.Label...), uint32(len(v.perms)))
	edges := make([][]dfa.Edge, n+1)
	for s := range n {
		edges[s] = v.d.Edges(uint32(s))
	}
	edges[dfa.Start] = nil
	for c := range 256 {
		to := v.d.Next(dfa.Start, c)
		if to == dfa.Trap || p.PolicyDB == nil {
			to = free
		}
		edges[dfa.Start] = append(edges[dfa.Start], dfa.Edge{Sym: uint16(c), To: to})
	}
	return &view{d: dfa.NewDFA(defaults, labels, edges), perms: append(v.perms[:len(v.perms):len(v.perms)], blob.Perms{Allow: allPerms})}
}

// both intersects two views.
func both(a, b *view) (*view, error) {
	out := &view{perms: []blob.Perms{{}}}
	ids := map[blob.Perms]uint32{{}: 0}
	type pair struct{ a, b uint32 }
	index := map[pair]uint32{{}: 0}
	var queue []pair
	queue = append(queue, pair{})
	name := func(p pair) (uint32, error) {
		id, ok := index[p]
		if !ok {
			id = uint32(len(queue))
			if id > maxProduct {
				return 0, dfa.ErrTooBig
			}
			index[p] = id
			queue = append(queue, p)
		}
		return id, nil
	}
	if _, err := name(pair{dfa.Start, dfa.Start}); err != nil {
		return nil, err
	}
	var defaults, labels []uint32
	var edges [][]dfa.Edge
	for i := 0; i < len(queue); i++ {
		p := queue[i]
		x, y := a.perms[a.d.Label[p.a]], b.perms[b.d.Label[p.b]]
		sum := Perms{Allow: allPerms, Quiet: allPerms}
		sum.add(x)
		sum.add(y)
		t := blob.Perms{Allow: sum.Allow, Audit: sum.Audit, Quiet: sum.Quiet}
		id, ok := ids[t]
		if !ok {
			id = uint32(len(out.perms))
			ids[t] = id
			out.perms = append(out.perms, t)
		}
		labels = append(labels, id)
		def, err := name(pair{a.d.Default[p.a], b.d.Default[p.b]})
		if err != nil {
			return nil, err
		}
		defaults = append(defaults, def)
		var row []dfa.Edge
		seen := map[uint16]bool{}
		for _, l := range [][]dfa.Edge{a.d.Edges(p.a), b.d.Edges(p.b)} {
			for _, e := range l {
				seen[e.Sym] = true
			}
		}
		for c := range uint16(256) {
			if !seen[c] {
				continue
			}
			to, err := name(pair{a.d.Next(p.a, int(c)), b.d.Next(p.b, int(c))})
			if err != nil {
				return nil, err
			}
			if to != def {
				row = append(row, dfa.Edge{Sym: c, To: to})
			}
		}
		edges = append(edges, row)
	}
	out.d = dfa.NewDFA(defaults, labels, edges)
	return out, nil
}

// maxProduct bounds the states of an intersection.
const maxProduct = 1 << 20
