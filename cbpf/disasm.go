// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"fmt"
	"strings"
)

// Describe turns a constant into words: the number of a system call, an audit
// architecture. off is the word that it is compared with, -1 when not known.
// An empty answer leaves the number as it is.
type Describe func(off int64, k uint32) string

// Format writes the program one instruction a line, with its number, where the
// jumps lead, and what describe says about constants; describe may be nil.
func (p Program) Format(bigEndian bool, describe Describe) string {
	var b strings.Builder
	words := p.accumulators()
	targets := make([]bool, len(p)+1)
	for at, i := range p {
		if i.Op == Jump {
			targets[min(uint64(at)+1+uint64(i.K), uint64(len(p)))] = true
		} else if i.IsJump() {
			targets[min(at+1+int(i.JT), len(p))] = true
			targets[min(at+1+int(i.JF), len(p))] = true
		}
	}
	for at, i := range p {
		mark := " "
		if targets[at] {
			mark = ">"
		}
		text := i.text(at, bigEndian)
		if note := i.note(words[at], bigEndian, describe); note != "" {
			text = fmt.Sprintf("%-38s ; %s", text, note)
		}
		fmt.Fprintf(&b, "%s%4d  %s\n", mark, at, text)
	}
	return b.String()
}

// WordName is the name of the word at an offset of struct seccomp_data:
// "nr", "arch", "args[0].lo".
func WordName(off uint32, bigEndian bool) string {
	switch off {
	case OffsetNr:
		return "nr"
	case OffsetArch:
		return "arch"
	}
	half := "lo"
	if (off&4 != 0) != bigEndian {
		half = "hi"
	}
	if off < OffsetArgs {
		return "ip." + half
	}
	return fmt.Sprintf("args[%d].%s", (off-OffsetArgs)/8, half)
}

var (
	aluNames  = map[uint16]string{AddOp: "add", SubOp: "sub", MulOp: "mul", DivOp: "div", OrOp: "or", AndOp: "and", LshOp: "lsh", RshOp: "rsh", NegOp: "neg", ModOp: "mod", XorOp: "xor"}
	jumpNames = map[uint16]string{JeqOp: "jeq", JgtOp: "jgt", JgeOp: "jge", JsetOp: "jset"}
)

func (i Instruction) text(at int, bigEndian bool) string {
	operand := fmt.Sprintf("#%#x", i.K)
	if i.Op&SrcX != 0 {
		operand = "x"
	}
	switch i.Op & 7 {
	case ClassLD, ClassLDX:
		name := "ld"
		if i.Op&7 == ClassLDX {
			name = "ldx"
		}
		switch i.Op & 0xe0 {
		case ModeABS:
			if i.K < dataSize && i.K&3 == 0 && i.Op == LoadAbs {
				return name + " " + WordName(i.K, bigEndian)
			}
			return fmt.Sprintf("%s [%d]", name, i.K)
		case ModeIMM:
			return fmt.Sprintf("%s #%#x", name, i.K)
		case ModeMEM:
			return fmt.Sprintf("%s m[%d]", name, i.K)
		case ModeLEN:
			return name + " len"
		}
	case ClassST:
		return fmt.Sprintf("st m[%d]", i.K)
	case ClassSTX:
		return fmt.Sprintf("stx m[%d]", i.K)
	case ClassALU:
		if name := aluNames[i.Op&0xf0]; name == "neg" {
			return name
		} else if name != "" {
			return name + " " + operand
		}
	case ClassJMP:
		if i.Op == Jump {
			return fmt.Sprintf("ja %d", uint64(at)+1+uint64(i.K))
		}
		if name := jumpNames[i.Op&0xf0]; name != "" {
			return fmt.Sprintf("%-4s %s, %d, %d", name, operand, at+1+int(i.JT), at+1+int(i.JF))
		}
	case ClassRET:
		if i.Op&0x18 == SrcA {
			return "ret a"
		}
		return "ret " + Action(i.K).String()
	case ClassMISC:
		if i.Op == Tax {
			return "tax"
		}
		if i.Op == Txa {
			return "txa"
		}
	}
	return fmt.Sprintf("unknown %#04x jt %d jf %d k %#x", i.Op, i.JT, i.JF, i.K)
}

func (i Instruction) note(off int64, bigEndian bool, describe Describe) string {
	if !i.IsJump() || i.Op == Jump || i.Op&SrcX != 0 || off < 0 {
		return ""
	}
	note := ""
	if describe != nil {
		note = describe(off, i.K)
	}
	if note == "" && off >= OffsetArgs {
		note = WordName(uint32(off), bigEndian)
	}
	return note
}

// accumulators says for each instruction which word the accumulator holds, -1
// where that depends on the way or is no word.
func (p Program) accumulators() []int64 {
	const unseen = -2
	out := make([]int64, len(p)+1)
	for i := range out {
		out[i] = unseen
	}
	join := func(to uint64, off int64) {
		if to > uint64(len(p)) {
			return
		}
		if out[to] == unseen {
			out[to] = off
		} else if out[to] != off {
			out[to] = -1
		}
	}
	if len(p) > 0 {
		out[0] = -1
	}
	for at, i := range p {
		off := out[at]
		next := uint64(at) + 1
		switch {
		case i.Op == LoadAbs:
			join(next, int64(i.K))
		case i.Op == Jump:
			join(next+uint64(i.K), off)
		case i.IsJump():
			join(next+uint64(i.JT), off)
			join(next+uint64(i.JF), off)
		case i.IsReturn():
		case i.Op == And, i.Op&7 == ClassST, i.Op&7 == ClassSTX, i.Op&7 == ClassLDX, i.Op == Tax:
			join(next, off)
		default:
			join(next, -1)
		}
	}
	for i := range out {
		if out[i] == unseen {
			out[i] = -1
		}
	}
	return out[:len(p)]
}
