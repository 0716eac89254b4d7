// SPDX-License-Identifier: Apache-2.0

package sealfs

import "math/bits"

// allocator keeps the three bitmaps of docs/sealfs.md section 9.
type allocator struct {
	used, fresh, dead bitmap
	blocks            uint64 // end of the volume being built
	free              uint64 // blocks below the end that are not used
	cursor            uint64
}

func newAllocator(blocks uint32) *allocator {
	a := &allocator{blocks: uint64(blocks), free: uint64(blocks) - firstBlock}
	a.used.grow(a.blocks)
	a.used[0] |= 1<<firstBlock - 1
	return a
}

// claim marks a block of the committed state; false if it already was.
func (a *allocator) claim(b uint32) bool {
	if a.used.get(uint64(b)) {
		return false
	}
	a.used.set(uint64(b))
	a.free--
	return true
}

// take allocates a block.
func (a *allocator) take() (uint32, error) {
	if a.free == 0 {
		if a.blocks >= 1<<32-1 {
			return 0, ErrTooLarge
		}
		b := a.blocks
		a.blocks++
		for _, m := range []*bitmap{&a.used, &a.fresh, &a.dead} {
			m.grow(a.blocks)
		}
		a.used.set(b)
		a.fresh.set(b)
		return uint32(b), nil
	}
	b := a.used.nextZero(a.cursor, a.blocks)
	a.cursor = b + 1
	a.free--
	a.used.set(b)
	a.fresh.grow(a.blocks)
	a.dead.grow(a.blocks)
	a.fresh.set(b)
	return uint32(b), nil
}

// release gives a block back: at once when no committed state knows it, else
// after the next commit. Block 0 is a hole.
func (a *allocator) release(b uint32) {
	if b == 0 {
		return
	}
	n := uint64(b)
	if a.fresh.get(n) {
		a.fresh.reset(n)
		a.used.reset(n)
		a.free++
		return
	}
	a.dead.grow(a.blocks)
	a.dead.set(n)
}

// committed turns the state being built into the committed one.
func (a *allocator) committed() {
	for i, d := range a.dead {
		a.used[i] &^= d
		a.free += uint64(bits.OnesCount64(d))
		a.dead[i] = 0
	}
	clear(a.fresh)
	a.cursor = 0
}

// inUse is the number of blocks the state being built needs, with header and slots.
func (a *allocator) inUse() uint64 {
	n := a.blocks - a.free
	for _, d := range a.dead {
		n -= uint64(bits.OnesCount64(d))
	}
	return n
}

type bitmap []uint64

func (m *bitmap) grow(n uint64) {
	for uint64(len(*m))*64 < n {
		*m = append(*m, 0)
	}
}

func (m bitmap) get(i uint64) bool { return i/64 < uint64(len(m)) && m[i/64]>>(i%64)&1 != 0 }
func (m bitmap) set(i uint64)      { m[i/64] |= 1 << (i % 64) }
func (m bitmap) reset(i uint64)    { m[i/64] &^= 1 << (i % 64) }

// nextZero finds a clear bit below end, from start on and then from the beginning.
// There must be one.
func (m bitmap) nextZero(start, end uint64) uint64 {
	if start >= end {
		start = 0
	}
	for w := start / 64; w < uint64(len(m)); w++ {
		free := ^m[w]
		if w == start/64 {
			free &= ^uint64(0) << (start % 64)
		}
		if free != 0 {
			if b := w*64 + uint64(bits.TrailingZeros64(free)); b < end {
				return b
			}
			break
		}
	}
	if start == 0 {
		panic("sealfs: allocator's free count is wrong")
	}
	return m.nextZero(0, end)
}
