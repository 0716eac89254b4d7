// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"errors"
	"fmt"
)

// Data is what a filter sees of a system call, struct seccomp_data.
type Data struct {
	Nr   uint32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// Word is the 32-bit word at an offset, as the machine's byte order puts it.
func (d *Data) Word(off uint32, bigEndian bool) uint32 {
	switch {
	case off == OffsetNr:
		return d.Nr
	case off == OffsetArch:
		return d.Arch
	}
	v := d.IP
	if off >= OffsetArgs {
		v = d.Args[(off-OffsetArgs)/8]
	}
	if (off&4 != 0) != bigEndian {
		return uint32(v >> 32)
	}
	return uint32(v)
}

// ErrStuck is returned by the interpreters for programs that Verify refuses.
var ErrStuck = errors.New("the program leaves its end")

// Run executes a verified program and returns its answer and how many
// instructions it took.
func (p Program) Run(d *Data, bigEndian bool) (act Action, steps int, err error) {
	var a, x uint32
	var mem [memSlots]uint32
	for pc := 0; pc < len(p); pc++ {
		i := &p[pc]
		steps++
		switch i.Op & 7 {
		case ClassLD, ClassLDX:
			var v uint32
			switch i.Op & 0xe0 {
			case ModeABS:
				if i.K >= dataSize {
					return 0, steps, ErrStuck
				}
				v = d.Word(i.K, bigEndian)
			case ModeIMM:
				v = i.K
			case ModeMEM:
				if i.K >= memSlots {
					return 0, steps, ErrStuck
				}
				v = mem[i.K]
			case ModeLEN:
				v = dataSize
			default:
				return 0, steps, ErrStuck
			}
			if i.Op&7 == ClassLD {
				a = v
			} else {
				x = v
			}
		case ClassST, ClassSTX:
			if i.K >= memSlots {
				return 0, steps, ErrStuck
			}
			if i.Op&7 == ClassST {
				mem[i.K] = a
			} else {
				mem[i.K] = x
			}
		case ClassALU:
			v := i.K
			if i.Op&SrcX != 0 {
				v = x
			}
			var ok bool
			if a, ok = alu(i.Op, a, v); !ok {
				// The kernel ends a filter that divides by zero with 0.
				return 0, steps, nil
			}
		case ClassJMP:
			if i.Op == Jump {
				if uint64(i.K) > uint64(len(p)) {
					return 0, steps, ErrStuck
				}
				pc += int(i.K)
				continue
			}
			v := i.K
			if i.Op&SrcX != 0 {
				v = x
			}
			if compare(i.Op, a, v) {
				pc += int(i.JT)
			} else {
				pc += int(i.JF)
			}
		case ClassRET:
			if i.Op&0x18 == SrcA {
				return Action(a), steps, nil
			}
			return Action(i.K), steps, nil
		default:
			if i.Op&0xf8 == TxaOp {
				a = x
			} else {
				x = a
			}
		}
	}
	return 0, steps, ErrStuck
}

func alu(op uint16, a, v uint32) (uint32, bool) {
	switch op & 0xf0 {
	case AddOp:
		return a + v, true
	case SubOp:
		return a - v, true
	case MulOp:
		return a * v, true
	case DivOp:
		if v == 0 {
			return 0, false
		}
		return a / v, true
	case ModOp:
		if v == 0 {
			return 0, false
		}
		return a % v, true
	case OrOp:
		return a | v, true
	case AndOp:
		return a & v, true
	case XorOp:
		return a ^ v, true
	case LshOp:
		return a << (v & 31), true
	case RshOp:
		return a >> (v & 31), true
	case NegOp:
		return -a, true
	}
	return a, true
}

func compare(op uint16, a, v uint32) bool {
	switch op & 0xf0 {
	case JeqOp:
		return a == v
	case JgtOp:
		return a > v
	case JgeOp:
		return a >= v
	case JsetOp:
		return a&v != 0
	}
	return false
}

// Eval is Run for callers that only want the answer of a verified program; it
// panics on one that Verify refuses.
func (p Program) Eval(d *Data, bigEndian bool) Action {
	act, _, err := p.Run(d, bigEndian)
	if err != nil {
		panic(fmt.Sprintf("cbpf: %v", err))
	}
	return act
}
