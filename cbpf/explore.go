// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"errors"
	"fmt"
	"slices"
)

// Known is what is known of a system call. Words that are not known may have any
// value.
type Known struct {
	// Words holds values by offset into struct seccomp_data.
	Words map[uint32]uint32
}

// KnownCall is a call with known architecture and number and unknown arguments.
func KnownCall(arch, nr uint32) Known {
	return Known{Words: map[uint32]uint32{OffsetArch: arch, OffsetNr: nr}}
}

// Constraint is what a way through the program asks of an unknown word: that the
// word's bits in Mask lie from Min to Max.
type Constraint struct {
	Offset   uint32
	Mask     uint32
	Min, Max uint32
}

// Outcome is one way through the program.
type Outcome struct {
	Action      Action
	Path        []int        // the instructions on the way
	Constraints []Constraint // sorted by offset, the whole word first
}

// ErrTooManyWays is returned when a program has more ways than Explore follows.
var ErrTooManyWays = errors.New("too many ways through the program")

// ErrArithmetic is returned when a way depends on an unknown word in a manner
// that is no comparison of some of its bits with a constant.
var ErrArithmetic = errors.New("the program computes with unknown words")

const maxOutcomes = 1 << 12

// Explore runs a verified program with some words unknown and returns every way
// through it that some values of them take. Ways whose constraints contradict
// each other on the same bits are left out; a way may remain that asks for
// different bits of one word in contradiction.
func (p Program) Explore(known Known, bigEndian bool) ([]Outcome, error) {
	x := explorer{p: p, known: known}
	err := x.walk(0, symbol{}, symbol{}, [memSlots]symbol{}, nil, nil)
	return x.out, err
}

// symbol is a value: a constant, or some bits of an unknown word.
type symbol struct {
	word  bool
	off   uint32
	mask  uint32
	value uint32
	odd   bool // computed from an unknown word
}

type explorer struct {
	p     Program
	known Known
	out   []Outcome
	steps int
}

func (x *explorer) load(off uint32) symbol {
	if v, ok := x.known.Words[off]; ok {
		return symbol{value: v}
	}
	return symbol{word: true, off: off, mask: ^uint32(0)}
}

func (x *explorer) walk(pc int, a, xr symbol, mem [memSlots]symbol, path []int, cs []Constraint) error {
	for ; pc < len(x.p); pc++ {
		if x.steps++; x.steps > maxOutcomes*16 {
			return ErrTooManyWays
		}
		i := x.p[pc]
		path = append(path, pc)
		switch i.Op & 7 {
		case ClassLD, ClassLDX:
			var v symbol
			switch i.Op & 0xe0 {
			case ModeABS:
				v = x.load(i.K)
			case ModeIMM:
				v = symbol{value: i.K}
			case ModeMEM:
				v = mem[i.K%memSlots]
			case ModeLEN:
				v = symbol{value: dataSize}
			default:
				return fmt.Errorf("instruction %d: %w", pc, ErrStuck)
			}
			if i.Op&7 == ClassLD {
				a = v
			} else {
				xr = v
			}
		case ClassST:
			mem[i.K%memSlots] = a
		case ClassSTX:
			mem[i.K%memSlots] = xr
		case ClassALU:
			v := symbol{value: i.K}
			if i.Op&SrcX != 0 {
				v = xr
			}
			switch {
			case !a.word && !v.word && !a.odd && !v.odd:
				r, ok := alu(i.Op, a.value, v.value)
				if !ok {
					return x.end(KillThread, path, cs)
				}
				a = symbol{value: r}
			case a.word && !v.word && !v.odd && i.Op&0xf0 == AndOp:
				if a.mask &= v.value; a.mask == 0 {
					a = symbol{}
				}
			default:
				a = symbol{odd: true}
			}
		case ClassJMP:
			if i.Op == Jump {
				pc += int(i.K)
				continue
			}
			v := symbol{value: i.K}
			if i.Op&SrcX != 0 {
				v = xr
			}
			if a.odd || v.odd || v.word {
				return fmt.Errorf("instruction %d: %w", pc, ErrArithmetic)
			}
			if !a.word {
				if compare(i.Op, a.value, v.value) {
					pc += int(i.JT)
				} else {
					pc += int(i.JF)
				}
				continue
			}
			for _, yes := range []bool{true, false} {
				skip := int(i.JF)
				if yes {
					skip = int(i.JT)
				}
				for _, c := range asked(i.Op, a, v.value, yes) {
					next, ok := narrow(cs, c)
					if !ok {
						continue
					}
					if err := x.walk(pc+1+skip, a, xr, mem, slices.Clip(slices.Clone(path)), next); err != nil {
						return err
					}
				}
			}
			return nil
		case ClassRET:
			if i.Op&0x18 == SrcA {
				if a.word || a.odd {
					return fmt.Errorf("instruction %d: %w", pc, ErrArithmetic)
				}
				return x.end(Action(a.value), path, cs)
			}
			return x.end(Action(i.K), path, cs)
		default:
			if i.Op == Txa {
				a = xr
			} else {
				xr = a
			}
		}
	}
	return ErrStuck
}

func (x *explorer) end(act Action, path []int, cs []Constraint) error {
	if len(x.out) >= maxOutcomes {
		return ErrTooManyWays
	}
	x.out = append(x.out, Outcome{Action: act, Path: path, Constraints: cs})
	return nil
}

// asked are the constraints, one of which holds, when a comparison of an unknown
// word comes out as given.
func asked(op uint16, a symbol, k uint32, yes bool) []Constraint {
	c := func(lo, hi uint32) []Constraint { return []Constraint{{a.off, a.mask, lo, hi}} }
	top := a.mask
	switch op & 0xf0 {
	case JeqOp:
		if yes {
			if k&^a.mask != 0 {
				return nil
			}
			return c(k, k)
		}
		if k > top {
			return c(0, top)
		}
		var out []Constraint
		if k > 0 {
			out = c(0, k-1)
		}
		if k < top {
			out = append(out, c(k+1, top)...)
		}
		return out
	case JgtOp:
		if k >= top {
			if yes {
				return nil
			}
			return c(0, top)
		}
		if yes {
			return c(k+1, top)
		}
		return c(0, k)
	case JgeOp:
		switch {
		case k == 0 && yes, k > top && !yes:
			return c(0, top)
		case k == 0, k > top:
			return nil
		case yes:
			return c(k, top)
		}
		return c(0, k-1)
	}
	m := k & a.mask
	if m == 0 {
		if yes {
			return nil
		}
		return c(0, top)
	}
	if yes {
		return []Constraint{{a.off, m, 1, m}}
	}
	return []Constraint{{a.off, m, 0, 0}}
}

// narrow adds a constraint to those that hold; ok is false when they contradict
// each other.
func narrow(cs []Constraint, c Constraint) ([]Constraint, bool) {
	out := slices.Clone(cs)
	for i := range out {
		if out[i].Offset == c.Offset && out[i].Mask == c.Mask {
			out[i].Min, out[i].Max = max(out[i].Min, c.Min), min(out[i].Max, c.Max)
			return out, out[i].Min <= out[i].Max
		}
	}
	// A word that is pinned to one value answers for all of its bits.
	for _, o := range out {
		if o.Offset == c.Offset && o.Mask == ^uint32(0) && o.Min == o.Max {
			v := o.Min & c.Mask
			return out, v >= c.Min && v <= c.Max
		}
	}
	if c.Min == 0 && c.Max == c.Mask {
		return out, true
	}
	out = append(out, c)
	slices.SortFunc(out, func(a, b Constraint) int {
		if a.Offset != b.Offset {
			return int(a.Offset) - int(b.Offset)
		}
		return int(int64(b.Mask) - int64(a.Mask))
	})
	return out, true
}
