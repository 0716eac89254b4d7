// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"strconv"
	"strings"
)

// MaxCategory is the largest category number that a [CategorySet] holds. The
// usual policies define categories 0 to 1023.
const MaxCategory = 1<<16 - 1

// CategorySet is an immutable set of category numbers from 0 to [MaxCategory].
// The zero value is the empty set; equal sets are equal under ==.
type CategorySet struct {
	// words holds little-endian 64-bit words without trailing zero words, so
	// that a set has exactly one form.
	words string
}

// Categories returns the set of the given category numbers. Numbers above
// [MaxCategory] cannot be given: the type ends there.
func Categories(numbers ...uint16) CategorySet {
	var b categoryBuilder
	for _, n := range numbers {
		b.add(n)
	}
	return b.set()
}

// CategorySpan returns the set {low, low+1, …, high}; it is empty when low is
// greater than high.
func CategorySpan(low, high uint16) CategorySet {
	var b categoryBuilder
	b.addSpan(low, high)
	return b.set()
}

// categoryBuilder collects categories before they are frozen into a set.
type categoryBuilder struct{ words []uint64 }

func (b *categoryBuilder) grow(word int) {
	if len(b.words) <= word {
		b.words = append(b.words, make([]uint64, word+1-len(b.words))...)
	}
}

func (b *categoryBuilder) add(n uint16) {
	b.grow(int(n) / 64)
	b.words[n/64] |= 1 << (n % 64)
}

func (b *categoryBuilder) addSpan(low, high uint16) {
	if low > high {
		return
	}
	first, last := int(low)/64, int(high)/64
	b.grow(last)
	for w := first; w <= last; w++ {
		mask := ^uint64(0)
		if w == first {
			mask &= ^uint64(0) << (low % 64)
		}
		if w == last {
			mask &= ^uint64(0) >> (63 - high%64)
		}
		b.words[w] |= mask
	}
}

func (b *categoryBuilder) set() CategorySet {
	n := len(b.words)
	for n > 0 && b.words[n-1] == 0 {
		n--
	}
	if n == 0 {
		return CategorySet{}
	}
	buf := make([]byte, 0, n*8)
	for _, w := range b.words[:n] {
		buf = binary.LittleEndian.AppendUint64(buf, w)
	}
	return CategorySet{words: string(buf)}
}

func (s CategorySet) wordCount() int { return len(s.words) / 8 }

func (s CategorySet) word(i int) uint64 {
	if i*8 >= len(s.words) {
		return 0
	}
	w := s.words[i*8 : i*8+8]
	return uint64(w[0]) | uint64(w[1])<<8 | uint64(w[2])<<16 | uint64(w[3])<<24 |
		uint64(w[4])<<32 | uint64(w[5])<<40 | uint64(w[6])<<48 | uint64(w[7])<<56
}

// IsEmpty reports whether the set has no category.
func (s CategorySet) IsEmpty() bool { return s.words == "" }

// Len returns the number of categories in the set.
func (s CategorySet) Len() int {
	n := 0
	for i := range s.wordCount() {
		n += bits.OnesCount64(s.word(i))
	}
	return n
}

// Has reports whether category n is in the set.
func (s CategorySet) Has(n uint16) bool { return s.word(int(n)/64)&(1<<(n%64)) != 0 }

// Contains reports whether every category of t is in s.
func (s CategorySet) Contains(t CategorySet) bool {
	if len(t.words) > len(s.words) {
		return false
	}
	for i := range t.wordCount() {
		if t.word(i)&^s.word(i) != 0 {
			return false
		}
	}
	return true
}

// Intersects reports whether s and t share a category.
func (s CategorySet) Intersects(t CategorySet) bool {
	for i := range min(s.wordCount(), t.wordCount()) {
		if s.word(i)&t.word(i) != 0 {
			return true
		}
	}
	return false
}

// Union returns the categories that are in s or in t.
func (s CategorySet) Union(t CategorySet) CategorySet {
	return s.combine(t, func(a, b uint64) uint64 { return a | b })
}

// Intersect returns the categories that are in s and in t.
func (s CategorySet) Intersect(t CategorySet) CategorySet {
	return s.combine(t, func(a, b uint64) uint64 { return a & b })
}

// Minus returns the categories that are in s and not in t.
func (s CategorySet) Minus(t CategorySet) CategorySet {
	return s.combine(t, func(a, b uint64) uint64 { return a &^ b })
}

func (s CategorySet) combine(t CategorySet, op func(a, b uint64) uint64) CategorySet {
	b := categoryBuilder{words: make([]uint64, max(s.wordCount(), t.wordCount()))}
	for i := range b.words {
		b.words[i] = op(s.word(i), t.word(i))
	}
	return b.set()
}

// All yields the categories in ascending order.
func (s CategorySet) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for i := range s.wordCount() {
			for w := s.word(i); w != 0; w &= w - 1 {
				if !yield(uint16(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// Spans yields the maximal runs low, high of the set in ascending order.
func (s CategorySet) Spans() iter.Seq2[uint16, uint16] {
	return func(yield func(uint16, uint16) bool) {
		low, high, open := uint16(0), uint16(0), false
		for n := range s.All() {
			if open && n == high+1 {
				high = n
				continue
			}
			if open && !yield(low, high) {
				return
			}
			low, high, open = n, n, true
		}
		if open {
			yield(low, high)
		}
	}
}

// String prints the set canonically: "c1.c3,c7". The empty set is "".
func (s CategorySet) String() string { return string(s.append(nil)) }

func (s CategorySet) append(b []byte) []byte {
	first := true
	for low, high := range s.Spans() {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendCategory(b, low)
		switch high - low {
		case 0:
		case 1:
			b = appendCategory(append(b, ','), high)
		default:
			b = appendCategory(append(b, '.'), high)
		}
	}
	return b
}

func appendCategory(b []byte, n uint16) []byte {
	return strconv.AppendUint(append(b, 'c'), uint64(n), 10)
}

// ParseCategorySet reads "c1.c3,c7": categories and ascending spans, in any
// order, separated by commas. The empty string is the empty set. The error is
// a [*SyntaxError].
func ParseCategorySet(text string) (CategorySet, error) {
	if text == "" {
		return CategorySet{}, nil
	}
	p := parser{kind: "categories", text: text}
	set := p.categories()
	return set, p.finish()
}

// categories reads a category list up to the end of the text or to a '-'.
func (p *parser) categories() CategorySet {
	var b categoryBuilder
	for {
		start := p.pos
		low, ok := p.numbered('c', MaxCategory, "a category such as c12")
		if !ok {
			return CategorySet{}
		}
		high := low
		if p.accept('.') {
			if high, ok = p.numbered('c', MaxCategory, "a category such as c12"); !ok {
				return CategorySet{}
			}
			if high <= low {
				p.fail(start, "an ascending span of categories", p.text[start:p.pos])
				return CategorySet{}
			}
		}
		b.addSpan(uint16(low), uint16(high))
		if !p.accept(',') {
			return b.set()
		}
	}
}

// parser reads label text from left to right and keeps the first error.
type parser struct {
	kind string
	text string
	pos  int
	err  *SyntaxError
}

func (p *parser) fail(offset int, expected, found string) {
	if p.err == nil {
		p.err = &SyntaxError{Kind: p.kind, Text: p.text, Offset: offset, Expected: expected, Found: found}
	}
}

func (p *parser) accept(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// finish reports the first error, or text left over.
func (p *parser) finish() error {
	if p.err == nil && p.pos < len(p.text) {
		p.fail(p.pos, "the end", p.text[p.pos:])
	}
	if p.err != nil {
		return p.err
	}
	return nil
}

// numbered reads a prefix letter and a decimal number without leading zeros.
func (p *parser) numbered(prefix byte, limit int, expected string) (int, bool) {
	start := p.pos
	end := start
	for end < len(p.text) && strings.IndexByte(",.:-", p.text[end]) < 0 {
		end++
	}
	name := p.text[start:end]
	bad := func() (int, bool) {
		p.fail(start, expected, name)
		return 0, false
	}
	if len(name) < 2 || name[0] != prefix || (name[1] == '0' && len(name) > 2) {
		return bad()
	}
	n := 0
	for i := 1; i < len(name); i++ {
		d := name[i] - '0'
		if d > 9 {
			return bad()
		}
		if n = n*10 + int(d); n > limit {
			return bad()
		}
	}
	p.pos = end
	return n, true
}
