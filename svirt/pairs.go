// SPDX-License-Identifier: Apache-2.0

package svirt

import "slices"

// PairState is what is known of the level "s0:cI,cJ" without reading a record.
type PairState uint8

// A pair is free, or a record holds it, or one that rests does, which may be
// over. Unknown pairs have to be looked up.
const (
	PairFree PairState = iota
	PairHeld
	PairRests
	PairUnknown
)

// Indexed is a [Tx] that keeps [Pairs]. Once most pairs are held most draws hit
// one that is, and looking those up is most of what an allocation costs.
type Indexed interface {
	Tx
	// Pair returns the state of "s0:cI,cJ", I < J.
	Pair(i, j int) PairState
}

// Pairs knows which pairs records hold, in two bits each: 128 KiB for the pairs
// of 1024 categories. The zero value knows of no record. It is not safe for
// concurrent use.
type Pairs struct {
	words   []uint64
	changed []pairChange
}

type pairChange struct {
	k   int
	old PairState
}

const (
	pairsPerWord = 32
	// indexedCategories bounds the memory; pairs beyond are unknown.
	indexedCategories = 4096
)

// Pair returns the state of "s0:cI,cJ", I < J.
func (p *Pairs) Pair(i, j int) PairState {
	if j >= indexedCategories {
		return PairUnknown
	}
	k := pairNumber(i, j)
	if k/pairsPerWord >= len(p.words) {
		return PairFree
	}
	return p.get(k)
}

// Put takes in that a record is there, Delete that it is gone.
func (p *Pairs) Put(r Record) {
	if r.State == Quarantine {
		p.set(r, PairRests)
	} else {
		p.set(r, PairHeld)
	}
}

// Delete takes in that a record is gone.
func (p *Pairs) Delete(r Record) { p.set(r, PairFree) }

func (p *Pairs) set(r Record, state PairState) {
	i, j, ok := pairOf(r.Level)
	if !ok || r.Group != "" || j >= indexedCategories {
		return // the group's record holds the level
	}
	k := pairNumber(i, j)
	if need := k/pairsPerWord + 1; need > len(p.words) {
		p.words = append(p.words, make([]uint64, need-len(p.words))...)
	}
	p.changed = append(p.changed, pairChange{k, p.get(k)})
	p.put(k, state)
}

func (p *Pairs) get(k int) PairState {
	return PairState(p.words[k/pairsPerWord] >> (2 * (k % pairsPerWord)) & 3)
}

func (p *Pairs) put(k int, s PairState) {
	word, shift := &p.words[k/pairsPerWord], 2*(k%pairsPerWord)
	*word = *word&^(3<<shift) | uint64(s)<<shift
}

// Commit keeps what was taken in, Rollback forgets it back to the last Commit.
func (p *Pairs) Commit() { p.changed = p.changed[:0] }

// Rollback takes everything since the last Commit back.
func (p *Pairs) Rollback() {
	for _, c := range slices.Backward(p.changed) {
		p.put(c.k, c.old)
	}
	p.changed = p.changed[:0]
}

// pairNumber is the inverse of pair.
func pairNumber(i, j int) int { return j*(j-1)/2 + i }
