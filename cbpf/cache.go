// SPDX-License-Identifier: Apache-2.0

package cbpf

import "fmt"

// Cacheable tells whether the kernel answers a call from its bitmap, without
// running the filter: since Linux 5.11 it emulates a filter for every number
// when the filter is installed, and keeps the verdict where the filter looks at
// the number and the architecture only, with the few instructions that the
// emulator knows, and allows the call. why says what stands against it.
//
// Source: kernel/seccomp.c, seccomp_is_const_allow.
func (p Program) Cacheable(arch, nr uint32) (ok bool, why string) {
	var a uint32
	loaded := false
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		switch i.Op {
		case LoadAbs:
			switch i.K {
			case OffsetNr:
				a = nr
			case OffsetArch:
				a = arch
			default:
				return false, fmt.Sprintf("instruction %d looks at %s", pc, WordName(i.K, false))
			}
			loaded = true
		case Return:
			if act := Action(i.K); act != Allow {
				return false, fmt.Sprintf("the verdict is %v; only ALLOW is kept", act)
			}
			return true, ""
		case Jump:
			pc += int(i.K)
		case JumpEq, JumpGe, JumpGt, JumpSet:
			if !loaded {
				return false, fmt.Sprintf("instruction %d compares before anything is loaded", pc)
			}
			if compare(i.Op, a, i.K) {
				pc += int(i.JT)
			} else {
				pc += int(i.JF)
			}
		case And:
			a &= i.K
		default:
			return false, fmt.Sprintf("instruction %d (%s) is not one that the kernel emulates", pc, i.text(pc, false))
		}
	}
	return false, "the program leaves its end"
}
