// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	mathbits "math/bits"
	"slices"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// emitter writes the program from its end to its beginning, so that every jump
// knows how far it goes. Positions count from the end.
type emitter struct {
	out       []cbpf.Instruction // the last instruction first
	bigEndian bool
	returns   map[Action]int      // the nearest return of an action
	loaded    map[*decision]place // code that expects its variable in the accumulator
	entry     map[*decision]place // code that loads it first
	// weights says how often the edges of a decision are taken.
	weights func(v variable, next []edge) []float64
}

// place is where code of a decision begins. A jump there that is too far gets a
// stepping stone, which later jumps from further away use as well.
type place struct{ at int }

const maxJump = 255

// put writes an instruction in front of all others and returns its position.
func (e *emitter) put(i cbpf.Instruction) int {
	e.out = append(e.out, i)
	return len(e.out) - 1
}

// distance is how far a jump from the next instruction to be written goes.
func (e *emitter) distance(to int) int { return len(e.out) - to - 1 }

// action makes a return that is within reach of the next n instructions.
func (e *emitter) action(a Action, n int) int {
	at, ok := e.returns[a]
	if !ok || e.distance(at)+n > maxJump {
		at = e.put(cbpf.Instruction{Op: cbpf.Return, K: uint32(a)})
		e.returns[a] = at
	}
	return at
}

// near makes sure that a position can be reached from one of the next n
// instructions, through a stepping stone if need be.
func (e *emitter) near(at, n int) int {
	if e.distance(at)+n > maxJump {
		return e.put(cbpf.Instruction{Op: cbpf.Jump, K: uint32(e.distance(at))})
	}
	return at
}

// state is what the accumulator holds; the zero state is nothing known.
type state struct {
	v     variable
	known bool
}

// target is a place to jump to that can be moved nearer.
type target struct {
	d  *decision // an action or a decision with code of its own
	at int
	in bool // d's code expects its variable loaded
}

// decision writes the code of d, unless it is there already, and says where it
// is. st is what the accumulator holds on the way there.
func (e *emitter) decision(d *decision, st state) target {
	if d.isAction() {
		return target{d: d, at: e.action(d.act, 4)}
	}
	in := st == e.needs(d)
	if p, ok := e.loaded[d]; ok && in {
		return target{d: d, at: p.at, in: true}
	}
	if p, ok := e.entry[d]; ok && !in {
		return target{d: d, at: p.at}
	}
	p, ok := e.loaded[d]
	if !ok {
		p = place{e.body(d)}
		e.loaded[d] = p
	}
	if in {
		return target{d: d, at: p.at, in: true}
	}
	// The load goes directly in front of the body; where that is no longer
	// the front of the program, a jump leads there.
	if p.at != len(e.out)-1 {
		e.put(cbpf.Instruction{Op: cbpf.Jump, K: uint32(e.distance(p.at))})
	}
	if e.masks(d) {
		e.put(cbpf.Instruction{Op: cbpf.And, K: d.v.mask})
	}
	at := e.put(cbpf.Instruction{Op: cbpf.LoadAbs, K: e.offset(d.v.word)})
	e.entry[d] = place{at}
	return target{d: d, at: at}
}

// reach brings a target within the next n instructions.
func (e *emitter) reach(t target, n int) target {
	if t.d != nil && t.d.isAction() {
		t.at = e.action(t.d.act, n)
		return t
	}
	moved := e.near(t.at, n)
	if moved != t.at {
		t.at = moved
		if t.d != nil {
			if t.in {
				e.loaded[t.d] = place{moved}
			} else {
				e.entry[t.d] = place{moved}
			}
		}
	}
	return t
}

// branch writes a conditional jump.
func (e *emitter) branch(op uint16, k uint32, yes, no target) int {
	// Each stepping stone moves the other target one further away.
	yes = e.reach(yes, 2)
	no = e.reach(no, 2)
	yes = e.reach(yes, 1)
	return e.put(cbpf.Instruction{Op: op, K: k, JT: uint8(e.distance(yes.at)), JF: uint8(e.distance(no.at))})
}

func (e *emitter) offset(w word) uint32 {
	switch w {
	case wordArch:
		return cbpf.OffsetArch
	case wordNr:
		return cbpf.OffsetNr
	}
	arg, high := w.arg()
	if high {
		return cbpf.Hi(arg, e.bigEndian)
	}
	return cbpf.Lo(arg, e.bigEndian)
}

// bitTest tells whether d can be decided by one JSET, without masking first: it
// asks whether all bits of the mask are clear, or about a single bit.
func bitTest(d *decision) (clear, set *decision, ok bool) {
	if d.v.mask == ^uint32(0) {
		return nil, nil, false
	}
	single := d.v.mask&(d.v.mask-1) == 0
	if len(d.next) == 2 && (d.next[0].last == 0 || single) {
		return d.next[0].to, d.next[1].to, true
	}
	return nil, nil, false
}

// needs is what the body of d wants in the accumulator.
func (e *emitter) needs(d *decision) state {
	v := d.v
	if _, _, bit := bitTest(d); bit {
		v.mask = ^uint32(0)
	}
	return state{v, true}
}

// masks tells whether the body of d wants the accumulator masked.
func (e *emitter) masks(d *decision) bool {
	if d.v.mask == ^uint32(0) {
		return false
	}
	_, _, bit := bitTest(d)
	return !bit
}

// body writes the tests of d and returns the position of the first.
func (e *emitter) body(d *decision) int {
	after := e.needs(d)
	if clear, set, ok := bitTest(d); ok {
		no := e.decision(clear, after)
		yes := e.decision(set, after)
		return e.branch(cbpf.JumpSet, d.v.mask, yes, no)
	}
	next, each := d.next, argCost
	switch {
	case d.v.word == wordNr && d.v.mask == ^uint32(0):
		next, each = apart(next, d.v), testCost
	case d.v.word >= wordArgs:
		if bits, inside, rest, ok := cube(d); ok {
			other := rest[0].to
			if len(rest) > 1 {
				other = newDecision(d.v, rest)
			}
			no := e.decision(inside, after)
			yes := e.decision(other, after)
			return e.branch(cbpf.JumpSet, ^bits, yes, no)
		}
	}
	t := plan(next, e.weights(d.v, next), each)
	// Children with code of their own come first: they are further from the
	// front, and the tests stay close together.
	e.children(t, after)
	return e.tests(t, after).at
}

// children writes the code of all decisions that a tree ends in.
func (e *emitter) children(t *test, st state) {
	var list []*decision
	var walk func(*test)
	walk = func(t *test) {
		if t.leaf != nil {
			if !t.leaf.isAction() && !slices.Contains(list, t.leaf) {
				list = append(list, t.leaf)
			}
			return
		}
		walk(t.yes)
		walk(t.no)
	}
	walk(t)
	slices.SortFunc(list, func(a, b *decision) int { return a.id - b.id })
	for _, d := range list {
		e.decision(d, st)
	}
}

func (e *emitter) tests(t *test, st state) target {
	if t.leaf != nil {
		return e.decision(t.leaf, st)
	}
	yes := e.tests(t.yes, st)
	no := e.tests(t.no, st)
	op := uint16(cbpf.JumpGe)
	if t.eq {
		op = cbpf.JumpEq
	}
	// The yes branch may have moved out of reach behind the no branch's code.
	return target{at: e.branch(op, t.k, yes, no)}
}

// program is what has been written, in the order in which it runs.
func (e *emitter) program() cbpf.Program {
	p := make(cbpf.Program, len(e.out))
	for i, in := range e.out {
		p[len(p)-1-i] = in
	}
	return p
}

// apart puts numbers with bit 30 set under decisions of their own. Those of X32
// gain nothing from being planned together with the others; and without X32
// there are only few left to tell apart, which one look at the bit does better
// than thresholds.
func apart(next []edge, v variable) []edge {
	const bit = syscalls.X32Bit
	i, _ := slices.BinarySearchFunc(next, bit-1, func(e edge, v int) int { return int(e.last) - v })
	if i == 0 || i >= len(next)-1 {
		return next
	}
	if rest := next[i:]; len(rest) == 5 && rest[0].last == bit-1 && rest[1].last == 2*bit-1 && rest[2].last == 3*bit-1 && rest[3].last == v.mask-1 &&
		rest[0].to == rest[2].to && rest[1].to == rest[3].to {
		set := newDecision(v, rest[3:])
		return append(slices.Clone(next[:i]), edge{v.mask, newDecision(variable{v.word, bit}, []edge{{0, rest[0].to}, {bit, set}})})
	}
	if len(next)-i < 8 {
		return next
	}
	low := append(slices.Clone(next[:i]), edge{bit - 1, next[i].to})
	return append(low, edge{v.mask, newDecision(v, next[i:])})
}

// cube finds single values of an argument that lead to the same place and are
// all combinations of some bits, 0 among them, so that one JSET with the other
// bits tells them apart from everything else. rest are the edges without them.
func cube(d *decision) (bits uint32, inside *decision, rest []edge, ok bool) {
	next := d.next
	if d.v.mask != ^uint32(0) || len(next) < 6 || next[0].last != 0 {
		return 0, nil, nil, false
	}
	inside = next[0].to
	at := func(k uint32) int {
		i, found := slices.BinarySearchFunc(next, k, func(e edge, k uint32) int {
			if e.last < k {
				return -1
			}
			if e.last > k {
				return 1
			}
			return 0
		})
		if !found || next[i].to != inside || i > 0 && next[i-1].last != k-1 || i > 0 && i < len(next)-1 && next[i-1].to != next[i+1].to {
			return -1
		}
		return i
	}
	for b := range 32 {
		if at(1<<b) >= 0 {
			bits |= 1 << b
		}
	}
	if n := mathbits.OnesCount32(bits); n < 2 || n > 6 {
		return 0, nil, nil, false
	}
	rest = slices.Clone(next)
	for k := bits; ; k = (k - 1) & bits { // all subsets of bits
		i := at(k)
		if i < 0 {
			return 0, nil, nil, false
		}
		if i == 0 {
			rest[0].to = next[1].to
		} else {
			rest[i].to = next[i-1].to
		}
		if k == 0 {
			break
		}
	}
	merged := rest[:1]
	for _, e := range rest[1:] {
		if last := &merged[len(merged)-1]; last.to == e.to {
			last.last = e.last
		} else {
			merged = append(merged, e)
		}
	}
	return bits, inside, merged, true
}
