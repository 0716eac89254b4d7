// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Instruction is one classic BPF instruction, struct sock_filter.
type Instruction struct {
	Op uint16
	JT uint8 // instructions to skip when a conditional jump's test is true
	JF uint8 // and when it is false
	K  uint32
}

// Program is a filter. It starts at its first instruction and only ever goes
// forward.
type Program []Instruction

// MaxInstructions is the most that one filter may have: BPF_MAXINSNS.
const MaxInstructions = 4096

// Parts of an opcode. Source: include/uapi/linux/bpf_common.h.
const (
	ClassLD   = 0x00
	ClassLDX  = 0x01
	ClassST   = 0x02
	ClassSTX  = 0x03
	ClassALU  = 0x04
	ClassJMP  = 0x05
	ClassRET  = 0x06
	ClassMISC = 0x07

	SizeW = 0x00
	SizeH = 0x08
	SizeB = 0x10

	ModeIMM = 0x00
	ModeABS = 0x20
	ModeIND = 0x40
	ModeMEM = 0x60
	ModeLEN = 0x80
	ModeMSH = 0xa0

	SrcK = 0x00
	SrcX = 0x08
	SrcA = 0x10 // RET only

	AddOp = 0x00
	SubOp = 0x10
	MulOp = 0x20
	DivOp = 0x30
	OrOp  = 0x40
	AndOp = 0x50
	LshOp = 0x60
	RshOp = 0x70
	NegOp = 0x80
	ModOp = 0x90
	XorOp = 0xa0

	JaOp   = 0x00
	JeqOp  = 0x10
	JgtOp  = 0x20
	JgeOp  = 0x30
	JsetOp = 0x40

	TaxOp = 0x00
	TxaOp = 0x80
)

// The opcodes that a compiler of seccomp filters needs.
const (
	LoadAbs    = ClassLD | SizeW | ModeABS
	LoadImm    = ClassLD | ModeIMM
	LoadMem    = ClassLD | ModeMEM
	LoadLen    = ClassLD | SizeW | ModeLEN
	LoadXImm   = ClassLDX | ModeIMM
	LoadXMem   = ClassLDX | ModeMEM
	LoadXLen   = ClassLDX | SizeW | ModeLEN
	Store      = ClassST
	StoreX     = ClassSTX
	And        = ClassALU | AndOp | SrcK
	Jump       = ClassJMP | JaOp
	JumpEq     = ClassJMP | JeqOp | SrcK
	JumpGt     = ClassJMP | JgtOp | SrcK
	JumpGe     = ClassJMP | JgeOp | SrcK
	JumpSet    = ClassJMP | JsetOp | SrcK
	Return     = ClassRET | SrcK
	ReturnA    = ClassRET | SrcA
	Tax        = ClassMISC | TaxOp
	Txa        = ClassMISC | TxaOp
	memSlots   = 16
	instrSize  = 8
	dataSize   = 64
	argsOffset = 16
)

// Offsets into struct seccomp_data. Arguments are 64-bit values in the byte
// order of the machine; see Lo and Hi.
const (
	OffsetNr   = 0
	OffsetArch = 4
	OffsetIP   = 8
	OffsetArgs = argsOffset
)

// Lo is the offset of the less significant word of an argument.
func Lo(arg int, bigEndian bool) uint32 {
	off := uint32(OffsetArgs + 8*arg)
	if bigEndian {
		off += 4
	}
	return off
}

// Hi is the offset of the more significant word of an argument.
func Hi(arg int, bigEndian bool) uint32 {
	off := uint32(OffsetArgs + 8*arg)
	if !bigEndian {
		off += 4
	}
	return off
}

// IsJump tells whether the instruction is a conditional or unconditional jump.
func (i Instruction) IsJump() bool { return i.Op&7 == ClassJMP }

// IsReturn tells whether the instruction ends the filter.
func (i Instruction) IsReturn() bool { return i.Op&7 == ClassRET }

// ErrLength is returned for bytes that are no whole number of instructions.
var ErrLength = errors.New("length is not a multiple of 8 bytes")

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func order(bigEndian bool) byteOrder {
	if bigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// Encode is the array of struct sock_filter that the kernel takes, in the byte
// order of the machine that the filter is for.
func (p Program) Encode(bigEndian bool) []byte {
	o := order(bigEndian)
	b := make([]byte, 0, len(p)*instrSize)
	for _, i := range p {
		b = o.AppendUint16(b, i.Op)
		b = append(b, i.JT, i.JF)
		b = o.AppendUint32(b, i.K)
	}
	return b
}

// Decode reads what Encode writes. It does not verify the program.
func Decode(b []byte, bigEndian bool) (Program, error) {
	if len(b)%instrSize != 0 {
		return nil, fmt.Errorf("decode filter of %d bytes: %w", len(b), ErrLength)
	}
	if len(b) > 1<<16*instrSize {
		return nil, fmt.Errorf("decode filter of %d bytes: more than %d instructions", len(b), 1<<16)
	}
	o := order(bigEndian)
	p := make(Program, len(b)/instrSize)
	for i := range p {
		w := b[i*instrSize:]
		p[i] = Instruction{Op: o.Uint16(w), JT: w[2], JF: w[3], K: o.Uint32(w[4:])}
	}
	return p, nil
}

// GuessBigEndian tells the byte order of an encoded filter: in the other one its
// first opcodes would be no opcodes.
func GuessBigEndian(b []byte) bool {
	if len(b) < instrSize {
		return false
	}
	little, err := Decode(b[:len(b)/instrSize*instrSize], false)
	if err == nil && little.Verify() == nil {
		return false
	}
	big, err := Decode(b[:len(b)/instrSize*instrSize], true)
	return err == nil && big.Verify() == nil
}
