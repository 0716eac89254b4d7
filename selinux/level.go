// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"strconv"
)

// MaxSensitivity is the largest sensitivity number of a [Level].
const MaxSensitivity = 1<<16 - 1

// Level is one MLS level: a sensitivity and a set of categories. The zero
// value is s0 without categories.
type Level struct {
	Sensitivity uint16
	Categories  CategorySet
}

// Relation is how two levels stand to each other; exactly one relation holds.
type Relation int

const (
	Equal        Relation = iota // eq: neither is higher
	Dominates                    // dom: the first is strictly higher
	DominatedBy                  // domby: the second is strictly higher
	Incomparable                 // incomp: each has something that the other lacks
)

// String returns the constraint language's operator: eq, dom, domby, incomp.
func (r Relation) String() string {
	switch r {
	case Equal:
		return "eq"
	case Dominates:
		return "dom"
	case DominatedBy:
		return "domby"
	default:
		return "incomp"
	}
}

// Dominates reports whether l is at least as high as m: its sensitivity is not
// lower and its categories contain those of m. Equal levels dominate each other.
//
// Source: security/selinux/ss/mls_types.h, mls_level_dom.
func (l Level) Dominates(m Level) bool {
	return l.Sensitivity >= m.Sensitivity && l.Categories.Contains(m.Categories)
}

// Compare returns the relation of l to m.
func (l Level) Compare(m Level) Relation {
	switch {
	case l == m:
		return Equal
	case l.Dominates(m):
		return Dominates
	case m.Dominates(l):
		return DominatedBy
	default:
		return Incomparable
	}
}

// String prints the level canonically, for example "s0:c12,c741".
func (l Level) String() string { return string(l.append(nil)) }

func (l Level) append(b []byte) []byte {
	b = strconv.AppendUint(append(b, 's'), uint64(l.Sensitivity), 10)
	if !l.Categories.IsEmpty() {
		b = l.Categories.append(append(b, ':'))
	}
	return b
}

// ParseLevel reads a level such as "s0" or "s0:c1.c3,c7". The error is a
// [*SyntaxError].
func ParseLevel(text string) (Level, error) {
	p := parser{kind: "level", text: text}
	l := p.level()
	return l, p.finish()
}

func (p *parser) level() Level {
	n, ok := p.numbered('s', MaxSensitivity, "a sensitivity such as s0")
	if !ok {
		return Level{}
	}
	l := Level{Sensitivity: uint16(n)}
	if p.accept(':') {
		l.Categories = p.categories()
	}
	return l
}

// Range is a low and a high level; the high level dominates the low one. Most
// labels have equal levels.
type Range struct {
	Low, High Level
}

// SingleLevel returns the range from l to l.
func SingleLevel(l Level) Range { return Range{Low: l, High: l} }

// Contains reports whether r includes s: its low level is dominated by that of
// s, and its high level dominates that of s.
//
// Source: security/selinux/ss/mls_types.h, mls_range_contains.
func (r Range) Contains(s Range) bool {
	return s.Low.Dominates(r.Low) && r.High.Dominates(s.High)
}

// IsValid reports whether the high level dominates the low one.
func (r Range) IsValid() bool { return r.High.Dominates(r.Low) }

// Single returns the level of a range that has one; ok is false when the high
// level is another than the low one.
func (r Range) Single() (l Level, ok bool) { return r.High, r.High == r.Low }

// String prints the range canonically: one level when both are equal,
// otherwise "low-high".
func (r Range) String() string { return string(r.append(nil)) }

func (r Range) append(b []byte) []byte {
	b = r.Low.append(b)
	if r.High != r.Low {
		b = r.High.append(append(b, '-'))
	}
	return b
}

// ParseRange reads "s0", "s0:c1,c2" or "s0-s0:c0.c1023". A high level that does
// not dominate the low one is an error. The error is a [*SyntaxError].
func ParseRange(text string) (Range, error) {
	p := parser{kind: "range", text: text}
	r := p.mlsRange()
	return r, p.finish()
}

func (p *parser) mlsRange() Range {
	low := p.level()
	r := SingleLevel(low)
	if p.err == nil && p.accept('-') {
		start := p.pos
		r.High = p.level()
		if p.err == nil && !r.IsValid() {
			p.fail(start, "a high level that dominates "+low.String(), r.High.String())
		}
	}
	return r
}
