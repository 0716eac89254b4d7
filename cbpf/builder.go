// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"errors"
	"fmt"
)

// Builder writes a program by hand, with labels in place of distances. Jumps only
// go forward; a conditional jump whose targets are too far gets unconditional
// ones behind it. The zero Builder is empty and ready to use.
type Builder struct {
	items []item
	errs  []error
}

type item struct {
	in      Instruction
	label   string // a place, no instruction
	yes, no string // targets of a conditional jump; yes alone of a jump
}

// Load puts the word at an offset of struct seccomp_data into the accumulator.
func (b *Builder) Load(off uint32) { b.Put(Instruction{Op: LoadAbs, K: off}) }

// Return ends the filter.
func (b *Builder) Return(a Action) { b.Put(Instruction{Op: Return, K: uint32(a)}) }

// Put adds any instruction; the distances of its jumps stay as they are.
func (b *Builder) Put(i Instruction) { b.items = append(b.items, item{in: i}) }

// Label names the place of the next instruction.
func (b *Builder) Label(name string) { b.items = append(b.items, item{label: name}) }

// Jump goes to a label.
func (b *Builder) Jump(to string) {
	b.items = append(b.items, item{in: Instruction{Op: Jump}, yes: to})
}

// Branch compares the accumulator with k by JumpEq, JumpGt, JumpGe or JumpSet and
// goes to one of two labels.
func (b *Builder) Branch(op uint16, k uint32, yes, no string) {
	b.items = append(b.items, item{in: Instruction{Op: op, K: k}, yes: yes, no: no})
}

// Program resolves the labels and verifies the program.
func (b *Builder) Program() (Program, error) {
	errs := b.errs
	long := make([]bool, len(b.items))
	for {
		at := map[string]int{}
		var place []int
		pc := 0
		for i, it := range b.items {
			place = append(place, pc)
			switch {
			case it.label != "":
				if _, twice := at[it.label]; twice {
					errs = append(errs, fmt.Errorf("label %q is there twice", it.label))
				}
				at[it.label] = pc
			case long[i]:
				pc += 3
			default:
				pc++
			}
		}
		var p Program
		again := false
		target := func(name string, from int) int {
			to, ok := at[name]
			switch {
			case !ok:
				errs = append(errs, fmt.Errorf("no label %q", name))
				return 0
			case to < from:
				errs = append(errs, fmt.Errorf("jump backwards to %q", name))
				return 0
			}
			return to - from
		}
		for i, it := range b.items {
			switch {
			case it.label != "":
			case it.yes == "":
				p = append(p, it.in)
			case it.no == "":
				it.in.K = uint32(target(it.yes, place[i]+1))
				p = append(p, it.in)
			case long[i]:
				it.in.JT, it.in.JF = 0, 1
				p = append(p, it.in,
					Instruction{Op: Jump, K: uint32(target(it.yes, place[i]+2))},
					Instruction{Op: Jump, K: uint32(target(it.no, place[i]+3))})
			default:
				yes, no := target(it.yes, place[i]+1), target(it.no, place[i]+1)
				if yes > 255 || no > 255 {
					long[i], again = true, true
				}
				it.in.JT, it.in.JF = uint8(yes), uint8(no)
				p = append(p, it.in)
			}
		}
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		if !again {
			return p, p.Verify()
		}
	}
}
