// SPDX-License-Identifier: Apache-2.0

package seccomp

import "sync"

// This file finds the best tree of two-way tests for a decision over one
// variable: the one that executes the fewest instructions on the average, and
// among those the smallest.

// test is a node of the tree: either a leaf, or one comparison.
type test struct {
	leaf *decision // not nil: the end
	// eq: the variable equals k; otherwise: it is k or greater.
	eq      bool
	k       uint32
	yes, no *test
}

// exactLimit is up to how many ranges the exact search runs; its time grows with
// the square. Above it the range is halved by weight.
const exactLimit = 400

// testCost is what one more test in the program weighs against executing one
// more instruction on the average.
const testCost = 0.04

// wholeLimit is up to how many ranges every root is tried: Knuth's bounds hold
// for thresholds, and picked values can make another root better.
const wholeLimit = 48

// argCost is the same for arguments: few calls have conditions on them, the
// kernel never caches those, and what they cost is mostly size.
const argCost = 1.0

// maxChain is how many single values may be picked out of one background, one
// comparison each, before thresholds are tried.
const maxChain = 5

type planner struct {
	next   []edge
	weight []float64 // prefix sums, weight[i] is that of the edges before i
	n      int
	cost   []float64 // by i*n+j
	root   []int16   // the edge at which the right half begins; negative: a chain
	bound  []int16   // root by thresholds alone, for Knuth's bounds
	single []bool    // the edge is a single value
	pool   []test
	each   float64 // testCost or argCost
}

func (p *planner) sum(i, j int) float64 { return p.weight[j+1] - p.weight[i] }

// planners keeps the search's tables from one decision to the next.
var planners = sync.Pool{New: func() any { return new(planner) }}

func (p *planner) reset(next []edge, n int, each float64) {
	p.next, p.n, p.each = next, n, each
	p.weight = grown(p.weight, n+1)
	p.single = grown(p.single, n)
	p.weight[0] = 0
	p.pool = make([]test, 0, 2*n) // the tree outlives the search
	if n <= exactLimit {
		p.cost, p.root, p.bound = grown(p.cost, n*n), grown(p.root, n*n), grown(p.bound, n*n)
	}
}

// grown is a slice of n elements with any content.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// plan makes the tree for edges with the given weights.
func plan(next []edge, weights []float64, each float64) *test {
	n := len(next)
	p := planners.Get().(*planner)
	defer planners.Put(p)
	p.reset(next, n, each)
	for i := range next {
		p.weight[i+1] = p.weight[i] + weights[i]
		if i > 0 {
			p.single[i] = next[i].last == next[i-1].last+1
		} else {
			p.single[i] = next[i].last == 0
		}
	}
	if n > exactLimit {
		return p.halve(0, n-1)
	}
	p.solve()
	return p.build(0, n-1)
}

// background tells whether the edges from i to j are one decision out of which
// a few single values are picked.
func (p *planner) background(i, j int) (picked int, ok bool) {
	if j-i > 2*maxChain+1 {
		return 0, false
	}
	// The background has to be at every second place.
	for start := i; start <= i+1 && start <= j; start++ {
		bg := p.next[start].to
		ok, picked = true, 0
		for m := i; m <= j; m++ {
			if (m-start)%2 == 0 {
				if p.next[m].to != bg {
					ok = false
					break
				}
			} else {
				if !p.single[m] {
					ok = false
					break
				}
				picked++
			}
		}
		if ok && picked > 0 && picked <= maxChain {
			return start, true
		}
	}
	return 0, false
}

// chainOrder lists the single values of a chain, the heaviest first.
func (p *planner) chainOrder(i, j, start int, order *[maxChain]int) []int {
	out := order[:0]
	for m := i; m <= j; m++ {
		if (m-start)%2 != 0 {
			at := len(out)
			out = append(out, m)
			for at > 0 && p.sum(out[at-1], out[at-1]) < p.sum(m, m) {
				out[at] = out[at-1]
				at--
			}
			out[at] = m
		}
	}
	return out
}

func (p *planner) chainCost(i, j, start int) float64 {
	var order [maxChain]int
	left, cost := p.sum(i, j), 0.0
	for _, m := range p.chainOrder(i, j, start, &order) {
		cost += left + p.each
		left -= p.sum(m, m)
	}
	return cost
}

// solve fills cost and root for all stretches of edges. The bounds on the roots
// are Knuth's: with them the time is quadratic.
func (p *planner) solve() {
	n := p.n
	bound := p.bound
	for i := range n {
		bound[i*n+i], p.cost[i*n+i] = int16(i), 0
	}
	for size := 2; size <= n; size++ {
		for i := 0; i+size <= n; i++ {
			j := i + size - 1
			lo, hi := int(bound[i*n+j-1]), int(bound[(i+1)*n+j])
			lo, hi = max(lo, i+1), min(max(hi, i+1), j)
			if lo > hi || n <= wholeLimit {
				lo, hi = i+1, j
			}
			best, at := 0.0, -1
			for m := lo; m <= hi; m++ {
				if c := p.cost[i*n+m-1] + p.cost[m*n+j]; at < 0 || c < best {
					best, at = c, m
				}
			}
			best += p.sum(i, j) + p.each
			bound[i*n+j] = int16(at)
			if start, ok := p.background(i, j); ok {
				if c := p.chainCost(i, j, start); c < best {
					best, at = c, -start-1
				}
			}
			p.cost[i*n+j], p.root[i*n+j] = best, int16(at)
		}
	}
}

func (p *planner) node(t test) *test {
	p.pool = append(p.pool, t)
	return &p.pool[len(p.pool)-1]
}

func (p *planner) build(i, j int) *test {
	if i == j {
		return p.node(test{leaf: p.next[i].to})
	}
	at := int(p.root[i*p.n+j])
	if at < 0 {
		return p.chain(i, j, -at-1)
	}
	return p.threshold(at, p.build(i, at-1), p.build(at, j))
}

func (p *planner) threshold(at int, below, from *test) *test {
	return p.node(test{k: p.next[at-1].last + 1, yes: from, no: below})
}

func (p *planner) chain(i, j, start int) *test {
	var order [maxChain]int
	list := p.chainOrder(i, j, start, &order)
	t := p.node(test{leaf: p.next[start].to})
	for k := len(list) - 1; k >= 0; k-- {
		m := list[k]
		t = p.node(test{eq: true, k: p.next[m].last, yes: p.node(test{leaf: p.next[m].to}), no: t})
	}
	return t
}

// halve splits by weight, for decisions that are too large for solve.
func (p *planner) halve(i, j int) *test {
	if i == j {
		return p.node(test{leaf: p.next[i].to})
	}
	if start, ok := p.background(i, j); ok && j-i <= 2 {
		return p.chain(i, j, start)
	}
	half := p.weight[i] + p.sum(i, j)/2
	lo, hi := i+1, j
	for lo < hi {
		if m := (lo + hi) / 2; p.weight[m] < half {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo-1 > i && half-p.weight[lo-1] < p.weight[lo]-half {
		lo--
	}
	return p.threshold(lo, p.halve(i, lo-1), p.halve(lo, j))
}
