// SPDX-License-Identifier: Apache-2.0

package cbpf

import "fmt"

// VerifyError says why the kernel would refuse a filter.
type VerifyError struct {
	At     int // instruction, -1 for the filter as a whole
	Reason string
}

func (e *VerifyError) Error() string {
	if e.At < 0 {
		return "filter: " + e.Reason
	}
	return fmt.Sprintf("filter: instruction %d: %s", e.At, e.Reason)
}

// Verify applies the kernel's rules for seccomp filters: the instructions that
// seccomp takes, loads within struct seccomp_data, jumps that stay inside, a
// return at the end, and no read of scratch memory before it is written.
//
// Source: kernel/seccomp.c, seccomp_check_filter; net/core/filter.c,
// bpf_check_classic and check_load_and_stores.
func (p Program) Verify() error {
	if len(p) == 0 {
		return &VerifyError{-1, "it is empty"}
	}
	if len(p) > MaxInstructions {
		return &VerifyError{-1, fmt.Sprintf("%d instructions; the kernel takes %d", len(p), MaxInstructions)}
	}
	for at, i := range p {
		bad := func(format string, args ...any) error { return &VerifyError{at, fmt.Sprintf(format, args...)} }
		if !allowed(i.Op) {
			return bad("opcode %#04x is not one that seccomp takes", i.Op)
		}
		switch i.Op {
		case LoadAbs:
			if i.K >= dataSize || i.K&3 != 0 {
				return bad("load from offset %d: want a multiple of 4 below %d", i.K, dataSize)
			}
		case ClassALU | DivOp | SrcK, ClassALU | ModOp | SrcK:
			if i.K == 0 {
				return bad("division by zero")
			}
		case ClassALU | LshOp | SrcK, ClassALU | RshOp | SrcK:
			if i.K >= 32 {
				return bad("shift by %d", i.K)
			}
		case LoadMem, LoadXMem, Store, StoreX:
			if i.K >= memSlots {
				return bad("scratch memory cell %d of %d", i.K, memSlots)
			}
		case Jump:
			if uint64(i.K) >= uint64(len(p)-at-1) {
				return bad("jump behind the end")
			}
		default:
			if i.IsJump() && (at+int(i.JT)+1 >= len(p) || at+int(i.JF)+1 >= len(p)) {
				return bad("jump behind the end")
			}
		}
	}
	if !p[len(p)-1].IsReturn() {
		return &VerifyError{len(p) - 1, "the last instruction is no return"}
	}
	return p.verifyMemory()
}

// allowed lists the opcodes of seccomp_check_filter.
func allowed(op uint16) bool {
	switch op {
	case LoadAbs, LoadLen, LoadXLen, LoadImm, LoadXImm, LoadMem, LoadXMem, Store, StoreX, Tax, Txa,
		Return, ReturnA, Jump,
		JumpEq, JumpEq | SrcX, JumpGe, JumpGe | SrcX, JumpGt, JumpGt | SrcX, JumpSet, JumpSet | SrcX,
		ClassALU | NegOp:
		return true
	}
	if op&7 == ClassALU && op&^0xff == 0 {
		switch op & 0xf0 {
		case AddOp, SubOp, MulOp, DivOp, AndOp, OrOp, XorOp, LshOp, RshOp:
			return true
		}
	}
	return false
}

// verifyMemory refuses reads of cells that not every way here has written.
func (p Program) verifyMemory() error {
	masks := make([]uint16, len(p)) // cells that every jump here has written
	var written uint16
	for i := range masks {
		masks[i] = 0xffff
	}
	for at, i := range p {
		written &= masks[at]
		switch i.Op {
		case Store, StoreX:
			written |= 1 << i.K
		case LoadMem, LoadXMem:
			if written&(1<<i.K) == 0 {
				return &VerifyError{at, fmt.Sprintf("scratch memory cell %d is read before it is written", i.K)}
			}
		case Jump:
			masks[at+1+int(i.K)] &= written
			written = 0xffff
		default:
			if i.IsJump() {
				masks[at+1+int(i.JT)] &= written
				masks[at+1+int(i.JF)] &= written
				written = 0xffff
			}
		}
	}
	return nil
}
