// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
)

// Bitmap is an immutable sparse set of bit numbers. In the sets of types, roles,
// users and categories the bit of value v is v-1: HasValue and Values use
// values, Has and Bits use bit numbers.
//
// Source: security/selinux/ss/ebitmap.c.
type Bitmap struct {
	// nodes are the file's: u32 start bit, u64 bits; ascending, none empty.
	nodes string
	// high is the file's high bit: past the last node, a multiple of 64.
	high uint32
}

const bitmapNodeSize = 12

func le32(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func le64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// BitmapOf returns the set of the given bit numbers.
func BitmapOf(numbers ...uint32) Bitmap {
	numbers = slices.Clone(numbers)
	slices.Sort(numbers)
	var buf []byte
	high := uint32(0)
	for i := 0; i < len(numbers); {
		start := numbers[i] &^ 63
		var word uint64
		for ; i < len(numbers) && numbers[i]&^63 == start; i++ {
			word |= 1 << (numbers[i] & 63)
		}
		buf = binary.LittleEndian.AppendUint32(buf, start)
		buf = binary.LittleEndian.AppendUint64(buf, word)
		high = start + 64
	}
	return Bitmap{nodes: string(buf), high: high}
}

// BitmapOfValues returns the set of the bits of the given values, v-1 each.
func BitmapOfValues(values ...uint32) Bitmap {
	numbers := make([]uint32, len(values))
	for i, v := range values {
		numbers[i] = v - 1
	}
	return BitmapOf(numbers...)
}

// NodeCount returns the number of 64-bit words that have bits.
func (b Bitmap) NodeCount() int { return len(b.nodes) / bitmapNodeSize }

// Node returns the i-th word that has bits and the number of its first bit.
func (b Bitmap) Node(i int) (start uint32, word uint64) {
	n := b.nodes[i*bitmapNodeSize:]
	return le32(n), le64(n[4:])
}

// IsEmpty reports whether no bit is set.
func (b Bitmap) IsEmpty() bool { return b.nodes == "" }

// Len returns the number of bits that are set.
func (b Bitmap) Len() int {
	n := 0
	for i := range b.NodeCount() {
		_, w := b.Node(i)
		n += bits.OnesCount64(w)
	}
	return n
}

// Has reports whether a bit is set.
func (b Bitmap) Has(bit uint32) bool {
	lo, hi := 0, b.NodeCount()
	start := bit &^ 63
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		s, w := b.Node(mid)
		switch {
		case s == start:
			return w&(1<<(bit&63)) != 0
		case s < start:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return false
}

// HasValue reports whether the bit of a value, value-1, is set.
func (b Bitmap) HasValue(value uint32) bool { return value != 0 && b.Has(value-1) }

// Max returns the highest bit that is set, and false when none is.
func (b Bitmap) Max() (uint32, bool) {
	n := b.NodeCount()
	if n == 0 {
		return 0, false
	}
	s, w := b.Node(n - 1)
	return s + uint32(bits.Len64(w)) - 1, true
}

// Bits yields the numbers of the bits that are set, ascending.
func (b Bitmap) Bits() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := range b.NodeCount() {
			s, w := b.Node(i)
			for ; w != 0; w &= w - 1 {
				if !yield(s + uint32(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// Values yields the values of the bits that are set, one more than their
// numbers, ascending.
func (b Bitmap) Values() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for bit := range b.Bits() {
			if !yield(bit + 1) {
				return
			}
		}
	}
}

// Contains reports whether all bits of o are set in b.
func (b Bitmap) Contains(o Bitmap) bool {
	i := 0
	for j := range o.NodeCount() {
		os, ow := o.Node(j)
		for i < b.NodeCount() {
			if s, _ := b.Node(i); s >= os {
				break
			}
			i++
		}
		if i == b.NodeCount() {
			return false
		}
		s, w := b.Node(i)
		if s != os || ow&^w != 0 {
			return false
		}
	}
	return true
}

// Equal reports whether b and o have the same bits.
func (b Bitmap) Equal(o Bitmap) bool { return b.nodes == o.nodes }
