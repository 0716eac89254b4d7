// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Options of Compile. The zero value compiles as runc would, for calls that are
// all equally frequent.
type Options struct {
	Mode Mode
	// Weights say how frequent calls are; nil stands for Uniform.
	Weights *Weights
}

// Program is a compiled filter.
type Program struct {
	Instructions cbpf.Program
	Native       syscalls.Arch
	ABIs         []syscalls.Arch
	Mode         Mode
}

// Bytes is the array of struct sock_filter in the byte order of the native ABI.
func (p *Program) Bytes() []byte { return p.Instructions.Encode(p.Native.BigEndian()) }

// TooLargeError is returned for filters of more instructions than the kernel
// takes.
type TooLargeError struct {
	Instructions int
	// Costs lists the system calls that need most, the most expensive first.
	Costs []CallCost
}

// CallCost is how many instructions the conditions on one call need.
type CallCost struct {
	Arch         syscalls.Arch
	Call         string
	Instructions int
	Rules        int    // rules that name the call
	At           string // where the first of them is
}

func (e *TooLargeError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the filter needs %d instructions; the kernel takes %d", e.Instructions, cbpf.MaxInstructions)
	for i, c := range e.Costs {
		if i == 5 {
			break
		}
		sep := "; most of them: "
		if i > 0 {
			sep = ", "
		}
		fmt.Fprintf(&b, "%s%s on %v %d (%d rules from %s)", sep, c.Call, c.Arch, c.Instructions, c.Rules, c.At)
	}
	return b.String()
}

// Compile turns a resolved profile into a filter. The error is a diag.List where
// the profile is at fault, or a *TooLargeError.
func (f *Filter) Compile(o Options) (*Program, error) {
	v, err := f.decide(o.Mode)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", f.Profile.File, err)
	}
	p := &Program{Native: f.Native, ABIs: f.ABIs(), Mode: o.Mode}
	w := o.Weights
	if w == nil {
		w = Uniform
	}
	p.Instructions = v.emit(w)
	if len(p.Instructions) > cbpf.MaxInstructions {
		return nil, fmt.Errorf("compile %s: %w", f.Profile.File, v.tooLarge(len(p.Instructions)))
	}
	if err := p.Instructions.Verify(); err != nil {
		return nil, fmt.Errorf("compile %s: the compiler made an invalid filter: %w", f.Profile.File, err)
	}
	return p, nil
}

func (v *verdict) emit(w *Weights) cbpf.Program {
	e := &emitter{
		out:       make([]cbpf.Instruction, 0, 512),
		bigEndian: v.filter.Native.BigEndian(),
		returns:   make(map[Action]int, 8),
		loaded:    map[*decision]place{},
		entry:     map[*decision]place{},
	}
	targets := make([]target, len(v.machines))
	for i := len(v.machines) - 1; i >= 0; i-- {
		m := &v.machines[i]
		e.weights = func(u variable, next []edge) []float64 {
			if u.word == wordNr {
				return w.edges(m.abis, next)
			}
			return even(len(next))
		}
		targets[i] = e.decision(m.nr, state{})
	}
	next := e.decision(v.b.action(v.badArch), state{})
	for i := len(v.machines) - 1; i >= 0; i-- {
		next = target{at: e.branch(cbpf.JumpEq, v.machines[i].audit, targets[i], next)}
	}
	e.put(cbpf.Instruction{Op: cbpf.LoadAbs, K: cbpf.OffsetArch})
	return e.program()
}

func even(n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = 1 / float64(n)
	}
	return w
}

// tooLarge works out which calls' conditions cost most.
func (v *verdict) tooLarge(total int) *TooLargeError {
	err := &TooLargeError{Instructions: total}
	for _, m := range v.machines {
		from := uint32(0)
		for _, ed := range m.nr.next {
			if from == ed.last && !ed.to.isAction() {
				for _, a := range m.abis {
					if n, ok := a.Call(ed.last); ok {
						c := CallCost{Arch: a, Call: n.String(), Instructions: ed.to.size(map[*decision]bool{})}
						for _, r := range v.filter.Rules {
							for _, name := range r.Names {
								if name.known && name.call == n {
									if c.Rules++; c.Rules == 1 {
										c.At = v.filter.Profile.NameSpan(name).String()
									}
								}
							}
						}
						err.Costs = append(err.Costs, c)
					}
				}
			}
			from = ed.last + 1
		}
	}
	slices.SortStableFunc(err.Costs, func(a, b CallCost) int { return b.Instructions - a.Instructions })
	return err
}

// size is about how many instructions a decision needs.
func (d *decision) size(seen map[*decision]bool) int {
	if d.isAction() || seen[d] {
		return 0
	}
	seen[d] = true
	n := len(d.next)
	for _, e := range d.next {
		n += e.to.size(seen)
	}
	return n
}
