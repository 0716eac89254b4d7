// SPDX-License-Identifier: Apache-2.0

package seccomp

// This file reproduces how libseccomp 2.5 merges the rules of one system call,
// because runc's filters are what comes out of it: which of two overlapping
// rules wins depends on the shape of a tree that grows rule by rule, and even on
// its reference counts. The tests compare it with the library.
//
// Source: libseccomp, src/db.c, db_rule_add and what it calls.

// treeOp is what a node of the tree asks; less-than is a greater-or-equal with
// its branches exchanged.
type treeOp uint8

const (
	treeEQ treeOp = iota
	treeGT
	treeGE
	treeMasked
)

// treeNode asks one question about one 32-bit word of an argument. Nodes of one
// level are siblings, tried in order; what neither branch answers goes on to the
// next sibling, and behind the last to the sibling of the parent.
type treeNode struct {
	arg         uint8
	high        bool
	op          treeOp
	orig        Op // the operator of the rule, which orders siblings
	mask, datum uint32
	full        uint64 // the rule's whole value

	hasYes, hasNo bool
	yes, no       Action

	ifYes, ifNo *treeNode
	prev, next  *treeNode
	refs        int
}

// tree is the state of one system call on one ABI.
type tree struct {
	root   *treeNode
	action Action // without root: what happens always
}

func (n *treeNode) ref() *treeNode {
	if n != nil {
		n.refs++
	}
	return n
}

func (n *treeNode) first() *treeNode {
	for n.prev != nil {
		n = n.prev
	}
	return n
}

func (n *treeNode) leaf() bool { return n.ifYes == nil && n.ifNo == nil }
func (n *treeNode) dead() bool { return n.leaf() && !n.hasYes && !n.hasNo }

func (n *treeNode) word() int {
	w := int(n.arg) << 1
	if n.high {
		w++
	}
	return w
}

func opOrder(o Op) int {
	switch o {
	case EQ, NE, MaskedEQ:
		return 3
	case LE, LT:
		return 2
	}
	return 1
}

// before tells that n sorts behind m: higher arguments and exact comparisons
// come first on a level.
func (n *treeNode) before(m *treeNode) bool {
	if a, b := n.word(), m.word(); a != b {
		return a < b
	}
	if a, b := opOrder(n.orig), opOrder(m.orig); a != b {
		return a < b
	}
	if n.orig == LE || n.orig == LT {
		return n.datum > m.datum
	}
	return n.datum < m.datum
}

func (n *treeNode) same(m *treeNode) bool {
	return n.word() == m.word() && n.op == m.op && n.datum == m.datum && n.mask == m.mask
}

// drop gives up one reference and returns how many nodes went with it; *p
// becomes a sibling, or nil, when the node is gone.
func drop(p **treeNode) int {
	n := *p
	if n == nil {
		return 0
	}
	if n.refs--; n.refs != 0 {
		return 0
	}
	prev, next, yes, no := n.prev, n.next, n.ifYes, n.ifNo
	if prev != nil {
		prev.next = nil
	}
	if next != nil {
		next.prev = nil
	}
	count := 0
	if prev != nil {
		count += drop(&prev)
	}
	if next != nil {
		count += drop(&next)
	}
	if prev != nil {
		prev.next = next.ref()
	}
	if next != nil {
		next.prev = prev.ref()
	}
	if prev != nil {
		*p = prev
	} else {
		*p = next
	}
	return count + dropTree(&yes) + dropTree(&no) + 1
}

// dropTree gives up a reference to a level and clears the level when nothing
// else leads to it.
func dropTree(p **treeNode) int {
	count := drop(p)
	if *p != nil {
		count += dropLevel(*p)
	}
	return count
}

func dropLevel(n *treeNode) int {
	start := n.first()
	for n = start; n != nil; n = n.next {
		links := 0
		if n.prev != nil {
			links++
		}
		if n.next != nil {
			links++
		}
		if n.refs > links {
			return 0
		}
	}
	count := 0
	// Each drop takes a reference until the last one frees the node.
	for n = start; n != nil && n.refs > 0; {
		count += drop(&n)
	}
	return count
}

// remove takes a node out of the tree wherever it is found first, and nodes
// above it that no longer decide anything.
func remove(p **treeNode, target *treeNode) int {
	if p == nil || *p == nil || target == nil {
		return 0
	}
	count := 0
	n := (*p).first()
	for {
		if n == target {
			break
		}
		count += remove(&n.ifYes, target)
		count += remove(&n.ifNo, target)
		if n.dead() {
			break
		}
		if n = n.next; n == nil || count != 0 {
			return count
		}
	}
	if n == *p {
		if n.prev != nil {
			*p = n.prev
		} else {
			*p = n.next
		}
	}
	if n.prev != nil {
		n.prev.next = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.prev, n.next = nil, nil
	return count + drop(&n)
}

// uniform tells that everything below a level has one action.
func uniform(n *treeNode, a Action) bool {
	if n == nil {
		return true
	}
	for n = n.first(); n != nil; n = n.next {
		if n.hasYes && n.yes != a || n.hasNo && n.no != a || !uniform(n.ifYes, a) || !uniform(n.ifNo, a) {
			return false
		}
	}
	return true
}

// The state of a comparison between the tree and a new rule.
const (
	matching = 1 << iota
	matchedOnce
	oldDone
	newDone
	oldPrefix
	newPrefix

	matchSet  = matching | matchedOnce
	redundant = matching | oldDone | newPrefix
)

// prune removes from the tree what a new rule makes superfluous. It returns the
// number of nodes removed; state says whether the new rule itself is superfluous.
func prune(t *tree, old, new *treeNode, state *int, act Action) int {
	count := 0
	now := *state
	finish := func() int {
		if now&matching != 0 {
			*state |= now
		} else {
			*state &^= matching
		}
		return count
	}
	if new == nil || old == nil || *state&matchSet == matchedOnce {
		return finish()
	}
	// below compares further down; it tells that something matched there, and
	// that the node it stood on is gone.
	below := func(x **treeNode, xs, ns *treeNode, st int) (matched, gone bool) {
		(*x).ref()
		count += prune(t, xs, ns, &st, act)
		count += drop(x)
		if st&matching != 0 {
			now |= st
			matched = true
		}
		return matched, *x == nil
	}
	for x := old.first(); x != nil; {
		next := x.next
		switch {
		case x.same(new):
			now |= matchSet
			if new.leaf() {
				now |= newDone
			}
			if x.leaf() {
				now |= oldDone
			}
			if (x.hasYes || x.ifYes != nil) && !new.hasYes && new.ifYes == nil ||
				(x.hasNo || x.ifNo != nil) && !new.hasNo && new.ifNo == nil {
				return finish()
			}
			if now&newDone != 0 && now&oldDone != 0 &&
				(new.hasYes != x.hasYes || new.yes != x.yes || new.hasNo != x.hasNo || new.no != x.no) {
				return finish()
			}
			gone := false
			if new.ifYes != nil {
				_, gone = below(&x, x.ifYes, new.ifYes, *state|matchSet)
			}
			if !gone && new.ifNo != nil {
				_, gone = below(&x, x.ifNo, new.ifNo, *state|matchSet)
			}
			if gone {
				break
			}
			if uniform(x, act) && now&matching != 0 {
				if now&newDone != 0 && now&oldPrefix != 0 {
					if count += remove(&t.root, x); t.root == nil {
						return finish()
					}
				} else if now&oldDone != 0 && now&newPrefix != 0 {
					return finish()
				}
			}
		case x.before(new):
			if *state&newPrefix != 0 {
				return finish()
			}
			for _, branch := range []bool{true, false} {
				xs := x.ifYes
				if !branch {
					xs = x.ifNo
				}
				if xs == nil {
					continue
				}
				matched, gone := below(&x, xs, new, *state&^matching|oldPrefix)
				if matched {
					return finish()
				}
				if gone {
					break
				}
			}
		default:
			if *state&oldPrefix != 0 {
				return finish()
			}
			for _, ns := range []*treeNode{new.ifYes, new.ifNo} {
				if ns == nil {
					continue
				}
				matched, gone := below(&x, x, ns, *state&^matching|newPrefix)
				if matched {
					return finish()
				}
				if gone {
					break
				}
			}
		}
		x = next
	}
	now &^= matching
	return finish()
}

// graft puts a new rule into the tree. It tells false where libseccomp refuses
// the rule because one with the same conditions has another action.
func graft(p **treeNode, new *treeNode) bool {
	for x := *p; x != nil; {
		switch {
		case x.same(new):
			if new.hasYes {
				if !x.hasYes {
					if !uniform(x.ifYes, new.yes) {
						return false
					}
					drop(&x.ifYes)
					x.ifYes, x.yes, x.hasYes = nil, new.yes, true
				} else if new.yes != x.yes {
					if new.high && new.full > x.full {
						x.yes = new.yes
					}
					if x.leaf() || new.leaf() {
						return false
					}
				}
			}
			if new.hasNo {
				if !x.hasNo {
					if !uniform(x.ifNo, new.no) {
						return false
					}
					drop(&x.ifNo)
					x.ifNo, x.no, x.hasNo = nil, new.no, true
				} else if new.no != x.no && (x.leaf() || new.leaf()) {
					return false
				}
			}
			if new.ifYes != nil {
				switch {
				case x.ifYes != nil:
					if !graft(&x.ifYes, new.ifYes) {
						return false
					}
				case !x.hasYes:
					x.ifYes = new.ifYes.ref()
				default:
					return true
				}
			}
			if new.ifNo != nil {
				switch {
				case x.ifNo != nil:
					if !graft(&x.ifNo, new.ifNo) {
						return false
					}
				case !x.hasNo:
					x.ifNo = new.ifNo.ref()
				}
			}
			return true
		case !x.before(new):
			if x.next == nil {
				new.prev = x.ref()
				x.next = new.ref()
				return true
			}
			x = x.next
		default:
			if x.prev != nil {
				x.prev.next = new.ref()
				new.prev = x.prev
				x.prev = new.ref()
				new.next = x
			} else {
				x.prev = new.ref()
				new.next = x.ref()
			}
			if *p == x {
				*p = new.ref()
				drop(&x)
			}
			return true
		}
	}
	return true
}

// chain makes the tree of one rule alone; nil when no condition is left. wide
// says that the ABI compares 64 bits.
func chain(conds *[6]cond, act Action, wide bool) *treeNode {
	var root *treeNode
	// open are the places where the next condition, or the action, goes.
	type slot struct {
		n   *treeNode
		yes bool
	}
	var open []slot
	link := func(to *treeNode) {
		if root == nil {
			root = to.ref()
		}
		for _, s := range open {
			if s.yes {
				s.n.ifYes = to.ref()
			} else {
				s.n.ifNo = to.ref()
			}
		}
		open = open[:0]
	}
	for i := range conds {
		c := &conds[i]
		if c.op == 0 {
			continue
		}
		mask, datum := ^uint64(0), c.value
		if c.op == MaskedEQ {
			mask, datum = c.value, c.value2
		}
		needHigh, needLow := mask>>32 != 0, uint32(mask) != 0
		if !needLow && (!wide || !needHigh) {
			continue
		}
		node := func(high bool, op treeOp) *treeNode {
			n := &treeNode{arg: uint8(i), high: high, op: op, orig: c.op, full: datum, mask: uint32(mask), datum: uint32(datum)}
			if high {
				n.mask, n.datum = uint32(mask>>32), uint32(datum>>32)
			}
			n.datum &= n.mask
			return n
		}
		switch c.op {
		case EQ, NE, MaskedEQ:
			op := treeEQ
			if c.op == MaskedEQ {
				op = treeMasked
			}
			low := node(false, op)
			if wide {
				high := node(true, op)
				link(high)
				high.ifYes = low.ref()
				if c.op == NE {
					open = append(open, slot{high, false}, slot{low, false})
				} else {
					open = append(open, slot{low, true})
				}
				break
			}
			link(low)
			open = append(open, slot{low, c.op != NE})
		default:
			op := treeGT
			if c.op == GE || c.op == LT {
				op = treeGE
			}
			low := node(false, op)
			above := c.op == GT || c.op == GE
			if !wide {
				link(low)
				open = append(open, slot{low, above})
				break
			}
			more, equal := node(true, treeGT), node(true, treeEQ)
			link(more)
			more.ifNo = equal.ref()
			equal.ifYes = low.ref()
			if above {
				open = append(open, slot{more, true}, slot{low, true})
			} else {
				open = append(open, slot{equal, false}, slot{low, false})
			}
		}
	}
	for _, s := range open {
		if s.yes {
			s.n.hasYes, s.n.yes = true, act
		} else {
			s.n.hasNo, s.n.no = true, act
		}
	}
	return root
}

// add puts a rule into the state of its system call. known is false for the
// first rule of the call. It tells false where libseccomp refuses the rule.
func (t *tree) add(known bool, conds *[6]cond, act Action, wide bool) bool {
	new := chain(conds, act, wide)
	set := func() {
		t.root, t.action = new, 0
		if new == nil {
			t.action = act
		}
	}
	switch {
	case !known:
		set()
		return true
	case t.root == nil:
		return true // a rule without conditions has been there before
	case new == nil:
		t.root, t.action = nil, act
		return true
	}
	state := 0
	if n := prune(t, t.root, new, &state, act); n > 0 {
		if t.root == nil {
			set()
			return true
		}
	} else if state&redundant == redundant {
		return true
	}
	if !graft(&t.root, new) {
		return false
	}
	dropTree(&new)
	return true
}

// lower turns the tree into a decision, reading it as libseccomp's generated
// code does.
func (t *tree) lower(b *builder, otherwise *decision) *decision {
	if t.root == nil {
		return b.action(t.action)
	}
	type key struct {
		level *treeNode
		then  *decision
	}
	memo := map[key]*decision{}
	var level func(n *treeNode, then *decision) *decision
	level = func(n *treeNode, then *decision) *decision {
		n = n.first()
		k := key{n, then}
		if d, ok := memo[k]; ok {
			return d
		}
		last := n
		for last.next != nil {
			last = last.next
		}
		d := then
		for m := last; m != nil; m = m.prev {
			yes, no := d, d
			switch {
			case m.ifYes != nil:
				yes = level(m.ifYes, d)
			case m.hasYes:
				yes = b.action(m.yes)
			}
			switch {
			case m.ifNo != nil:
				no = level(m.ifNo, d)
			case m.hasNo:
				no = b.action(m.no)
			}
			d = m.test(b, yes, no)
			if m == n {
				break
			}
		}
		memo[k] = d
		return d
	}
	return level(t.root, otherwise)
}

func (n *treeNode) test(b *builder, yes, no *decision) *decision {
	v := argWord(int(n.arg), n.high).masked(n.mask)
	switch n.op {
	case treeGT:
		if n.datum == ^uint32(0) {
			return no
		}
		return b.split(v, n.datum+1, no, yes)
	case treeGE:
		return b.split(v, n.datum, no, yes)
	}
	return b.equal(v, n.datum, yes, no)
}
