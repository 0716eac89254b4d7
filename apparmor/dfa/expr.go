// SPDX-License-Identifier: Apache-2.0

package dfa

import "math/bits"

// OOB is the out-of-band input symbol. Source: security/apparmor/match.c,
// aa_dfa_outofband_transition.
const OOB = 256

// Set is a set of bytes.
type Set [4]uint64

// Add puts byte c into the set.
func (s *Set) Add(c byte) { s[c>>6] |= 1 << (c & 63) }

// Has reports whether byte c is in the set.
func (s *Set) Has(c byte) bool { return s[c>>6]&(1<<(c&63)) != 0 }

// Len is the number of bytes in the set.
func (s *Set) Len() int {
	return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1]) + bits.OnesCount64(s[2]) + bits.OnesCount64(s[3])
}

// Invert replaces the set by its complement.
func (s *Set) Invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// bytes lists the members in ascending order.
func (s *Set) bytes() []byte {
	var out []byte
	for w, x := range s {
		for x != 0 {
			out = append(out, byte(w*64+bits.TrailingZeros64(x)))
			x &= x - 1
		}
	}
	return out
}

// Expr names an expression of one Arena.
type Expr int32

type op uint8

const (
	opEmpty op = iota // no string at all
	opEps             // the empty string
	opByte            // one byte: a
	opSet             // one byte of set a
	opOOB             // the out-of-band symbol
	opCat
	opAlt
	opStar
)

type node struct {
	op       op
	nullable bool
	ends     bool // holds what ends the count of MinLen
	a, b     int32
	min      int32
}

type nodeKey struct {
	op   op
	a, b int32
}

// charset is an interned byte set. The automaton builder needs only the
// members of a narrow set, or what a wide set leaves out.
type charset struct {
	set    Set
	wide   bool
	listed []byte // members of a narrow set, the complement of a wide one
}

// Arena holds hash-consed expressions: equal expressions have equal names, so
// that equal tails of different rules become one automaton state.
type Arena struct {
	nodes   []node
	cons    map[nodeKey]Expr
	sets    []charset
	setCons map[Set]int32
	bytes   [256]Expr
	stars   map[Expr]Expr
}

// Empty matches nothing; Epsilon matches the empty string.
const (
	Empty   Expr = 0
	Epsilon Expr = 1
)

// NewArena returns an arena that holds Empty and Epsilon.
func NewArena() *Arena {
	a := &Arena{cons: make(map[nodeKey]Expr, 1024), setCons: make(map[Set]int32), stars: make(map[Expr]Expr)}
	a.nodes = append(a.nodes, node{op: opEmpty}, node{op: opEps, nullable: true})
	for i := range a.bytes {
		a.bytes[i] = -1
	}
	return a
}

// Len is the number of expressions in the arena.
func (a *Arena) Len() int { return len(a.nodes) }

func (a *Arena) mk(n node) Expr {
	k := nodeKey{n.op, n.a, n.b}
	if e, ok := a.cons[k]; ok {
		return e
	}
	e := Expr(len(a.nodes))
	a.nodes = append(a.nodes, n)
	a.cons[k] = e
	return e
}

// Byte matches the single byte c.
func (a *Arena) Byte(c byte) Expr {
	if a.bytes[c] < 0 {
		a.bytes[c] = a.mk(node{op: opByte, a: int32(c), min: 1})
	}
	return a.bytes[c]
}

// Class matches any one byte of s.
func (a *Arena) Class(s Set) Expr {
	switch n := s.Len(); n {
	case 0:
		return Empty
	case 1:
		return a.Byte(s.bytes()[0])
	}
	id, ok := a.setCons[s]
	if !ok {
		id = int32(len(a.sets))
		cs := charset{set: s, wide: s.Len() > 128}
		if cs.wide {
			inv := s
			inv.Invert()
			cs.listed = inv.bytes()
		} else {
			cs.listed = s.bytes()
		}
		a.sets = append(a.sets, cs)
		a.setCons[s] = id
	}
	return a.mk(node{op: opSet, a: id, min: 1, ends: a.sets[id].wide && s.Len() < 256})
}

// OutOfBand matches the out-of-band symbol.
func (a *Arena) OutOfBand() Expr { return a.mk(node{op: opOOB, ends: true}) }

// Cat matches x and then y.
func (a *Arena) Cat(x, y Expr) Expr {
	switch {
	case x == Empty || y == Empty:
		return Empty
	case x == Epsilon:
		return y
	case y == Epsilon:
		return x
	}
	// Kept right-leaning, so that equal tails are equal expressions.
	if n := a.nodes[x]; n.op == opCat {
		var heads []Expr
		for {
			n := a.nodes[x]
			if n.op != opCat {
				heads = append(heads, x)
				break
			}
			heads = append(heads, Expr(n.a))
			x = Expr(n.b)
		}
		for i := len(heads) - 1; i >= 0; i-- {
			y = a.cat1(heads[i], y)
		}
		return y
	}
	return a.cat1(x, y)
}

func (a *Arena) cat1(x, y Expr) Expr {
	k := nodeKey{opCat, int32(x), int32(y)}
	if e, ok := a.cons[k]; ok {
		return e
	}
	nx, ny := &a.nodes[x], &a.nodes[y]
	n := node{op: opCat, a: int32(x), b: int32(y), nullable: nx.nullable && ny.nullable, ends: nx.ends || ny.ends, min: nx.min}
	if !nx.ends {
		n.min = addLen(nx.min, ny.min)
	}
	e := Expr(len(a.nodes))
	a.nodes = append(a.nodes, n)
	a.cons[k] = e
	return e
}

func addLen(x, y int32) int32 {
	if s := int64(x) + int64(y); s < 1<<30 {
		return int32(s)
	}
	return 1 << 30
}

// Literal matches exactly s.
func (a *Arena) Literal(s string) Expr {
	e := Epsilon
	for i := len(s) - 1; i >= 0; i-- {
		e = a.Cat(a.Byte(s[i]), e)
	}
	return e
}

// Alt matches x or y.
func (a *Arena) Alt(x, y Expr) Expr {
	switch {
	case x == y || y == Empty:
		return x
	case x == Empty:
		return y
	}
	if x > y {
		x, y = y, x
	}
	nx, ny := &a.nodes[x], &a.nodes[y]
	return a.mk(node{
		op: opAlt, a: int32(x), b: int32(y), nullable: nx.nullable || ny.nullable,
		ends: nx.ends || ny.ends, min: min(nx.min, ny.min),
	})
}

// AltList matches any expression of the list. The tree is balanced, so a long
// list costs no deep recursion later.
func (a *Arena) AltList(list []Expr) Expr {
	switch len(list) {
	case 0:
		return Empty
	case 1:
		return list[0]
	}
	m := len(list) / 2
	return a.Alt(a.AltList(list[:m]), a.AltList(list[m:]))
}

// Star matches x repeated any number of times.
func (a *Arena) Star(x Expr) Expr {
	if e, ok := a.stars[x]; ok {
		return e
	}
	// The body of a star never matches the empty string: the automaton builder
	// can then read a star's first symbols without meeting the star again.
	body := a.strip(x)
	var e Expr
	if body == Empty {
		e = Epsilon
	} else {
		e = a.mk(node{op: opStar, a: int32(body), nullable: true, ends: a.nodes[body].ends})
	}
	a.stars[x] = e
	return e
}

// Plus matches x repeated at least once.
func (a *Arena) Plus(x Expr) Expr { return a.Cat(x, a.Star(x)) }

// strip returns an expression without the empty string whose star is the star
// of x (star normal form, after Brüggemann-Klein).
func (a *Arena) strip(x Expr) Expr {
	n := a.nodes[x]
	if !n.nullable {
		return x
	}
	switch n.op {
	case opAlt, opCat: // (xy)* is (x|y)* when both may be empty
		return a.Alt(a.strip(Expr(n.a)), a.strip(Expr(n.b)))
	case opStar:
		return Expr(n.a)
	default:
		return Empty
	}
}

// MinLen is the length of the shortest match, counted up to the first out-of-
// band symbol or inverted class: the reference compiler's measure of how
// specific an attachment is, of which the kernel takes the greatest.
// Source: parser/libapparmor_re/expr-tree.h, min_match_len;
// security/apparmor/domain.c, find_attach.
func (a *Arena) MinLen(x Expr) int { return int(a.nodes[x].min) }

// HasEmpty reports whether x matches the empty string.
func (a *Arena) HasEmpty(x Expr) bool { return a.nodes[x].nullable }

// Text gives the string that an expression without wildcards matches.
func (a *Arena) Text(x Expr) (string, bool) {
	var out []byte
	for {
		n := a.nodes[x]
		switch n.op {
		case opEps:
			return string(out), true
		case opByte:
			return string(append(out, byte(n.a))), true
		case opCat:
			if h := a.nodes[n.a]; h.op == opByte {
				out = append(out, byte(h.a))
				x = Expr(n.b)
				continue
			}
		}
		return "", false
	}
}
