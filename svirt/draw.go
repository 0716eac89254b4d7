// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/selinux"
)

// Regular tells whether a canonical level is of the form that the registry draws
// at the lowest sensitivity, "s0:cI,cJ". Two regular levels conflict only when
// they are equal; every other level has to be compared.
func Regular(level string) bool {
	_, _, ok := pairOf(level)
	return ok
}

// pairOf reads "s0:cI,cJ" and the spelling of neighbours, which is the same.
func pairOf(level string) (i, j int, ok bool) {
	rest, ok := strings.CutPrefix(level, "s0:c")
	if !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(rest, ",c")
	if !ok {
		return 0, 0, false
	}
	i, err1 := strconv.Atoi(a)
	j, err2 := strconv.Atoi(b)
	return i, j, err1 == nil && err2 == nil && i < j
}

// tries bounds the draws before the free pairs are counted out one by one. With
// one pair in 500 free, 4096 draws all miss once in 4000 times.
const tries = 4096

// draw returns a free pair, each with the same probability.
func (r *Registry) draw(tx Tx, sensitivity string) (string, error) {
	n := r.categories()
	if n < 2 {
		return "", fmt.Errorf("a range of %d categories has no pairs: %w", n, ErrExhausted)
	}
	if sensitivity == "" {
		sensitivity = "s0"
	}
	if l, err := selinux.ParseLevel(sensitivity); err != nil || !l.Categories.IsEmpty() {
		return "", fmt.Errorf("sensitivity %q: want one such as s0", sensitivity)
	}
	irregular, err := others(tx)
	if err != nil {
		return "", err
	}
	pairs := n * (n - 1) / 2
	source := newDice(r.Rand, pairs)
	for range min(tries, 16*pairs) {
		k, err := source.roll()
		if err != nil {
			return "", err
		}
		if level, free, err := r.pairIsFree(tx, irregular, sensitivity, k); err != nil || free {
			return level, err
		}
	}
	// Nearly full: choose among what is free.
	var free []string
	for k := range pairs {
		level, ok, err := r.pairIsFree(tx, irregular, sensitivity, k)
		if err != nil {
			return "", err
		}
		if ok {
			free = append(free, level)
		}
	}
	if len(free) == 0 {
		return "", fmt.Errorf("%d pairs of %d categories: %w", pairs, n, ErrExhausted)
	}
	k, err := newDice(r.Rand, len(free)).roll()
	if err != nil {
		return "", err
	}
	return free[k], r.clear(tx, free[k])
}

// pairIsFree tells whether pair number k conflicts with nobody; a rested one is
// cleared away.
func (r *Registry) pairIsFree(tx Tx, irregular []held, sensitivity string, k int) (string, bool, error) {
	i, j := pair(k)
	level := sensitivity + ":c" + strconv.Itoa(i) + ",c" + strconv.Itoa(j)
	regular := sensitivity == "s0"
	if len(irregular) > 0 || !regular {
		l := selinux.Level{Sensitivity: sensitivityOf(sensitivity), Categories: selinux.Categories(uint16(i), uint16(j))}
		for _, o := range irregular {
			if o.level.Compare(l) != selinux.Incomparable && !r.rested(o.rec) {
				return "", false, nil
			}
		}
	}
	if !regular {
		// The same pair at s0 is dominated.
		if taken, err := r.taken(tx, "s0"+strings.TrimPrefix(level, sensitivity)); err != nil || taken {
			return "", false, err
		}
	}
	if x, ok := tx.(Indexed); ok && regular {
		switch x.Pair(i, j) {
		case PairHeld:
			return "", false, nil
		case PairFree:
			return level, true, nil
		case PairRests, PairUnknown:
		}
	}
	if taken, err := r.taken(tx, level); err != nil || taken {
		return "", false, err
	}
	return level, true, nil
}

func sensitivityOf(s string) uint16 {
	l, _ := selinux.ParseLevel(s) // checked by draw
	return l.Sensitivity
}

// taken tells whether somebody holds exactly this level. A quarantine that is
// over is removed on the way.
func (r *Registry) taken(tx Tx, level string) (bool, error) {
	rec, ok, err := tx.ByLevel(level)
	if err != nil || !ok {
		return false, err
	}
	if r.rested(rec) {
		return false, tx.Delete(rec.ID)
	}
	return true, nil
}

// clear removes a rested record of a level, if there is one.
func (r *Registry) clear(tx Tx, level string) error {
	_, err := r.taken(tx, level)
	return err
}

// held is a level that is no plain pair, and its record.
type held struct {
	rec   Record
	level selinux.Level
}

func others(tx Tx) ([]held, error) {
	var out []held
	err := tx.EachIrregular(func(rec Record) error {
		l, err := selinux.ParseLevel(rec.Level)
		if err != nil {
			return fmt.Errorf("record of %s: %w", rec.ID, err)
		}
		out = append(out, held{rec, l})
		return nil
	})
	return out, err
}

// explicit checks a level that somebody asks for.
func (r *Registry) explicit(tx Tx, text string) (string, error) {
	level, err := selinux.ParseLevel(text)
	if err != nil {
		return "", err
	}
	if level.Categories.IsEmpty() {
		return "", fmt.Errorf("level %s has no categories, so every container dominates it: %w", level, ErrNotPrivate)
	}
	if n := r.categories(); highest(level.Categories) >= n {
		return "", fmt.Errorf("level %s: the policy has categories c0 to c%d: %w", level, n-1, ErrNotPrivate)
	}
	if err := r.free(tx, level); err != nil {
		return "", err
	}
	return level.String(), r.clear(tx, level.String())
}

func highest(s selinux.CategorySet) int {
	top := -1
	for c := range s.All() {
		top = int(c)
	}
	return top
}

// free returns an error that names the holder of a level with which this one
// conflicts.
func (r *Registry) free(tx Tx, level selinux.Level) error {
	if rec, ok, err := tx.ByLevel(level.String()); err != nil {
		return err
	} else if ok && !r.rested(rec) {
		return conflict(level, rec)
	}
	irregular, err := others(tx)
	if err != nil {
		return err
	}
	for _, o := range irregular {
		if o.level.Compare(level) != selinux.Incomparable && !r.rested(o.rec) {
			return conflict(level, o.rec)
		}
	}
	// Regular levels: those whose pair the level contains (it dominates them), or
	// whose pair contains the level's one category (they dominate it).
	return r.eachComparablePair(level, func(i, j int) error {
		rec, ok, err := tx.ByLevel(fmt.Sprintf("s0:c%d,c%d", i, j))
		if err == nil && ok && !r.rested(rec) {
			err = conflict(level, rec)
		}
		return err
	})
}

func conflict(level selinux.Level, rec Record) error {
	held, err := selinux.ParseLevel(rec.Level)
	switch {
	case err != nil:
		return err
	case held == level:
		return fmt.Errorf("%s is held by %s: %w", level, rec.ID, ErrInUse)
	case level.Dominates(held):
		return fmt.Errorf("%s dominates %s, which %s holds: %w", level, held, rec.ID, ErrInUse)
	default:
		return fmt.Errorf("%s is dominated by %s, which %s holds: %w", level, held, rec.ID, ErrInUse)
	}
}

func (r *Registry) eachComparablePair(level selinux.Level, fn func(i, j int) error) error {
	var cats []int
	for c := range level.Categories.All() {
		cats = append(cats, int(c))
	}
	if len(cats) == 1 && level.Sensitivity == 0 {
		for j := range r.categories() {
			if j == cats[0] {
				continue
			}
			if err := fn(min(cats[0], j), max(cats[0], j)); err != nil {
				return err
			}
		}
	}
	for x, i := range cats {
		for _, j := range cats[x+1:] {
			if err := fn(i, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// pair is pair number k: (0,1), (0,2), (1,2), (0,3), …
func pair(k int) (low, high int) {
	// The largest high with high*(high-1)/2 <= k; the float is exact enough for
	// 65536 categories, and the loops make it exact.
	high = int((1 + math.Sqrt(float64(1+8*k))) / 2)
	for high*(high-1)/2 > k {
		high--
	}
	for high*(high+1)/2 <= k {
		high++
	}
	return k - high*(high-1)/2, high
}

// dice draws numbers below n, each with the same probability.
type dice struct {
	source io.Reader
	n      uint32
	buf    [64]byte
	rest   []byte
}

func newDice(source io.Reader, n int) *dice {
	if source == nil {
		source = rand.Reader
	}
	return &dice{source: source, n: uint32(n)}
}

var errDice = errors.New("nothing to draw from")

func (d *dice) roll() (int, error) {
	if d.n == 0 {
		return 0, errDice
	}
	// What is above the largest multiple of n would favour small numbers.
	limit := math.MaxUint32 - math.MaxUint32%d.n
	for {
		if len(d.rest) < 4 {
			if _, err := io.ReadFull(d.source, d.buf[:]); err != nil {
				return 0, err
			}
			d.rest = d.buf[:]
		}
		v := binary.LittleEndian.Uint32(d.rest)
		d.rest = d.rest[4:]
		if v < limit {
			return int(v % d.n), nil
		}
	}
}
