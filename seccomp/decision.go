// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"slices"
)

// word is one of the 32-bit words that a filter can look at, in the order in
// which decisions ask for them.
type word uint8

const (
	wordArch word = iota
	wordNr
	wordArgs                 // argument 0 high, argument 0 low, argument 1 high, …
	wordIP   = wordArgs + 12 // instruction pointer, high and low
	wordEnd  = wordIP + 2
)

// argWord puts later arguments first, as libseccomp's trees do: its rules then
// come in the order in which decisions are made.
func argWord(arg int, high bool) word {
	w := wordArgs + word(2*(5-arg))
	if !high {
		w++
	}
	return w
}

// arg splits an argument's word into its argument and half.
func (w word) arg() (arg int, high bool) { return 5 - int(w-wordArgs)/2, (w-wordArgs)%2 == 0 }

// variable is what is tested: some bits of a word. Ordered by word, the whole
// word first.
type variable struct {
	word word
	mask uint32
}

func (w word) masked(m uint32) variable { return variable{w, m} }

func (v variable) compare(u variable) int {
	if v.word != u.word {
		return int(v.word) - int(u.word)
	}
	switch {
	case v.mask > u.mask:
		return -1
	case v.mask < u.mask:
		return 1
	}
	return 0
}

// decision says what happens: either an action, or what to do for each range of
// values of a variable. Decisions are made by a builder, which makes equal ones
// identical, and do not change. A normal decision asks for its variables in
// their order, each once, and its neighbouring ranges differ; two normal
// decisions over unmasked variables are equal if and only if they always answer
// the same.
type decision struct {
	id   int
	act  Action // edges == nil
	v    variable
	next []edge // ascending by last; the last one's last is the greatest value
	// top is the first variable that is asked for anywhere below; in a normal
	// decision that is v.
	top variable
}

var nothing = variable{word: wordEnd}

// newDecision makes a decision that is not looked up or kept.
func newDecision(v variable, next []edge) *decision {
	d := &decision{v: v, next: next, top: v}
	for _, e := range next {
		if e.to.top.compare(d.top) < 0 {
			d.top = e.to.top
		}
	}
	return d
}

// edge leads from all values up to and including last, from behind the edge
// before.
type edge struct {
	last uint32
	to   *decision
}

func (d *decision) isAction() bool { return d.next == nil }

// raw is a decision as it comes from rules: one binary test after the other, in
// any order.
type raw = decision

// errTooComplex is returned where a decision would need too much memory.
var errTooComplex = errors.New("the conditions are too complex to compile")

// maxDecisions bounds how many nodes one call's conditions may need.
const maxDecisions = 1 << 19

type edgeKey struct {
	v    variable
	hash uint64
}

// builder makes decisions, and makes equal ones identical.
type builder struct {
	actions map[Action]*decision
	byEdges map[edgeKey][]*decision
	normals map[*decision]*decision
	count   int
}

func newBuilder() *builder {
	return &builder{actions: make(map[Action]*decision, 8), byEdges: make(map[edgeKey][]*decision, 64), normals: map[*decision]*decision{}}
}

func (b *builder) action(a Action) *decision {
	d := b.actions[a]
	if d == nil {
		b.count++
		d = &decision{id: b.count, act: a, top: nothing}
		b.actions[a] = d
	}
	return d
}

// merge makes one edge of neighbours that lead to the same. It takes the slice.
func merge(next []edge) []edge {
	merged := next[:1]
	for _, e := range next[1:] {
		if last := &merged[len(merged)-1]; last.to == e.to {
			last.last = e.last
		} else {
			merged = append(merged, e)
		}
	}
	return merged
}

// choose makes the decision with the given edges, merging neighbours that lead
// to the same. It takes the slice.
func (b *builder) choose(v variable, next []edge) *decision {
	merged := merge(next)
	if len(merged) == 1 {
		return merged[0].to
	}
	h := uint64(14695981039346656037)
	for _, e := range merged {
		h = (h ^ uint64(e.last)) * 1099511628211
		h = (h ^ uint64(e.to.id)) * 1099511628211
	}
	k := edgeKey{v, h}
	for _, d := range b.byEdges[k] {
		if slices.Equal(d.next, merged) {
			return d
		}
	}
	b.count++
	if b.count > maxDecisions {
		panic(errTooComplex)
	}
	d := newDecision(v, slices.Clip(merged))
	d.id = b.count
	b.byEdges[k] = append(b.byEdges[k], d)
	return d
}

// split decides by v < at.
func (b *builder) split(v variable, at uint32, below, from *decision) *raw {
	if at == 0 || below == from {
		return from
	}
	if at > v.mask {
		return below
	}
	return b.choose(v, []edge{{at - 1, below}, {v.mask, from}})
}

// equal decides by v == k.
func (b *builder) equal(v variable, k uint32, yes, no *decision) *raw {
	if k&^v.mask != 0 {
		return no
	}
	if v.mask == 0 {
		return yes
	}
	next := make([]edge, 0, 3)
	if k > 0 {
		next = append(next, edge{k - 1, no})
	}
	next = append(next, edge{k, yes})
	if k < v.mask {
		next = append(next, edge{v.mask, no})
	}
	return b.choose(v, next)
}

// normal turns a raw decision into its normal form.
func (b *builder) normal(d *raw) *decision {
	if d.isAction() {
		return d
	}
	if n, ok := b.normals[d]; ok {
		return n
	}
	v := d.top
	var next []edge
	// spread works out the values of v from lo to hi, halving the range until
	// nothing asks for v any more; whole stretches of rules fall away at once.
	var spread func(d *raw, lo, hi uint32)
	spread = func(d *raw, lo, hi uint32) {
		if d.top != v {
			next = append(next, edge{hi, b.normal(d)})
			return
		}
		cut := cuts(d, v, lo, hi)
		if len(cut) == 0 {
			// All tests of v come out the same way within the range.
			next = append(next, edge{hi, b.normal(restrict(d, v, lo, hi))})
			return
		}
		m := cut[len(cut)/2]
		spread(restrict(d, v, lo, m-1), lo, m-1)
		spread(restrict(d, v, m, hi), m, hi)
	}
	spread(d, 0, v.mask)
	n := b.choose(v, next)
	b.normals[d] = n
	return n
}

// cuts lists the values within (lo, hi] at which a test of v changes, sorted.
func cuts(d *raw, v variable, lo, hi uint32) []uint32 {
	var cut []uint32
	seen := map[*raw]bool{}
	var walk func(*raw)
	walk = func(d *raw) {
		for !d.isAction() && !seen[d] && d.top == v {
			seen[d] = true
			if d.v == v {
				for _, e := range d.next[:len(d.next)-1] {
					if e.last >= lo && e.last < hi {
						cut = append(cut, e.last+1)
					}
				}
			}
			// Chains of rules hang off the last branch: do not recurse there.
			for _, e := range d.next[:len(d.next)-1] {
				walk(e.to)
			}
			d = d.next[len(d.next)-1].to
		}
	}
	walk(d)
	slices.Sort(cut)
	return slices.Compact(cut)
}

// restrict is d with v known to be within lo and hi.
func restrict(d *raw, v variable, lo, hi uint32) *raw {
	memo := map[*raw]*raw{}
	var walk func(*raw) *raw
	walk = func(d *raw) *raw {
		// Tests that come out one way for the whole range are passed over.
		from, passed := d, 0
		for d.v == v && !d.isAction() {
			i := 0
			for d.next[i].last < lo {
				i++
			}
			if d.next[i].last < hi {
				break
			}
			d = d.next[i].to
			if passed++; passed%16 == 0 {
				if r, ok := memo[d]; ok {
					d = r
					break
				}
			}
		}
		if d.top != v {
			if passed > 16 {
				memo[from] = d
			}
			return d
		}
		if r, ok := memo[d]; ok {
			return r
		}
		var r *raw
		if d.v == v {
			var next []edge
			for _, e := range d.next {
				if e.last < lo {
					continue
				}
				next = append(next, edge{e.last, walk(e.to)})
				if e.last >= hi {
					break
				}
			}
			next[len(next)-1].last = v.mask
			r = fused(v, next)
		} else {
			next := make([]edge, len(d.next))
			for i, e := range d.next {
				next[i] = edge{e.last, walk(e.to)}
			}
			r = fused(d.v, next)
		}
		memo[d] = r
		return r
	}
	return walk(d)
}

// fused makes a passing decision with equal neighbours merged.
func fused(v variable, next []edge) *raw {
	merged := merge(next)
	if len(merged) == 1 {
		return merged[0].to
	}
	return newDecision(v, merged)
}

// find is the edge of a decision for a value.
func (d *decision) find(value uint32) *decision {
	i, _ := slices.BinarySearchFunc(d.next, value, func(e edge, v uint32) int {
		if e.last < v {
			return -1
		}
		if e.last > v {
			return 1
		}
		return 0
	})
	return d.next[i].to
}

// eval answers for given words; get returns the whole word.
func (d *decision) eval(get func(word) uint32) Action {
	for !d.isAction() {
		d = d.find(get(d.v.word) & d.v.mask)
	}
	return d.act
}
