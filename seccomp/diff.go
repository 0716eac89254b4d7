// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Change is a region of calls that two sources answer differently.
type Change struct {
	// Arch is the ABI; "other" stands for all that neither source knows.
	Arch string `json:"arch"`
	// Syscall is the name, a number, or a range of numbers that are no calls:
	// "471-1073741823".
	Syscall string `json:"syscall"`
	// Args are the conditions under which the answers differ; all must hold.
	Args   []ArgRange `json:"args"`
	Before Action     `json:"before"`
	After  Action     `json:"after"`
	// Witness is one call of the region, on which both sources were run.
	Witness Witness `json:"witness"`
}

// Witness is a call as a filter sees it.
type Witness struct {
	Arch uint32    `json:"arch"`
	Nr   uint32    `json:"nr"`
	Args [6]uint64 `json:"args"`
}

// String is the change in one line.
func (c *Change) String() string {
	s := fmt.Sprintf("%s %s", c.Arch, c.Syscall)
	if len(c.Args) > 0 {
		s += " (" + rangesText(c.Args) + ")"
	}
	return fmt.Sprintf("%s: %v -> %v", s, c.Before, c.After)
}

// Grants tells whether the change lets a call through that was stopped before.
func (c *Change) Grants() bool { return c.After.Permits() && !c.Before.Permits() }

// Denies tells whether the change stops a call that was let through before.
func (c *Change) Denies() bool { return c.Before.Permits() && !c.After.Permits() }

// Diff lists exactly the regions of calls that two sources answer differently,
// in order of ABI and number. It compares what they do, not how they are
// written: a profile and a compiled filter can be compared. archs are the ABIs
// whose calls are named; others are compared too.
func Diff(before, after *Source, archs []syscalls.Arch) ([]Change, error) {
	b := newBuilder()
	x, err := before.meaning(b)
	if err != nil {
		return nil, fmt.Errorf("read the first filter: %w", err)
	}
	y, err := after.meaning(b)
	if err != nil {
		return nil, fmt.Errorf("read the second filter: %w", err)
	}
	if x == y {
		return nil, nil
	}
	var out []Change
	var audits []uint32
	for _, a := range archs {
		if !slices.Contains(audits, a.Audit()) {
			audits = append(audits, a.Audit())
		}
	}
	for _, audit := range audits {
		xs, ys := at(x, wordArch, audit), at(y, wordArch, audit)
		for _, r := range abiRanges(audit) {
			out = append(out, diffNumbers(audit, r, xs, ys)...)
		}
	}
	// Whatever is left: one architecture that neither knows.
	eachPair(wordArch.masked(^uint32(0)), x, y, func(lo, hi uint32, xs, ys *decision) {
		for nr := lo; ; nr++ {
			if !slices.Contains(audits, nr) {
				if list := syscalls.FromAudit(nr); len(list) == 0 || lo != hi {
					if lo != hi && xs != ys {
						out = append(out, otherArch(nr, xs, ys)...)
					}
				} else if xs != ys {
					for _, r := range abiRanges(nr) {
						out = append(out, diffNumbers(nr, r, xs, ys)...)
					}
				}
				break
			}
			if nr == hi {
				break
			}
		}
	})
	return dedupe(out), nil
}

// at is the branch of a decision for a value of a word, whether it asks or not.
func at(d *decision, w word, value uint32) *decision {
	for !d.isAction() && d.v.word == w {
		d = d.find(value & d.v.mask)
	}
	return d
}

func otherArch(audit uint32, x, y *decision) []Change {
	var out []Change
	eachPair(wordNr.masked(^uint32(0)), x, y, func(lo, _ uint32, xs, ys *decision) {
		if len(out) == 0 {
			regions(xs, ys, func(bounds []bound, p, q Action) {
				if args, ok := solve(bounds); ok && len(out) == 0 {
					out = append(out, Change{Arch: "other", Syscall: "any", Args: []ArgRange{}, Before: p, After: q, Witness: Witness{audit, lo, args}})
				}
			})
		}
	})
	return out
}

func dedupe(list []Change) []Change {
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(c Change) bool {
		if c.Arch != "other" {
			return false
		}
		k := c.String()
		if seen[k] {
			return true
		}
		seen[k] = true
		return false
	})
}

// diffNumbers compares the numbers of one ABI.
func diffNumbers(audit uint32, r abiRange, x, y *decision) []Change {
	var out []Change
	one := func(name string, nr uint32, xs, ys *decision) {
		regions(xs, ys, func(bounds []bound, p, q Action) {
			args, ok := solve(bounds)
			if !ok {
				return
			}
			rs := ranges(bounds)
			if rs == nil {
				rs = []ArgRange{}
			}
			out = append(out, Change{Arch: r.arch.String(), Syscall: name, Args: rs, Before: p, After: q, Witness: Witness{audit, nr, args}})
		})
	}
	v := wordNr.masked(^uint32(0))
	byNumber := func(lo, hi uint32, xs, ys *decision) {
		if xs == ys || hi < r.lo || lo > r.hi {
			return
		}
		lo, hi = max(lo, r.lo), min(hi, r.hi)
		from := uint64(lo)
		gap := func(to uint64) {
			if from > to {
				return
			}
			name := fmt.Sprint(from)
			switch {
			case from == to && from == 1<<32-1:
				name = "-1"
			case from != to:
				name = fmt.Sprintf("%d-%d", from, to)
			}
			one(name, uint32(from), xs, ys)
		}
		r.arch.Each(func(nr uint32, name string) {
			if uint64(nr) >= from && nr <= hi {
				if uint64(nr) > from {
					gap(uint64(nr) - 1)
				}
				one(name, nr, xs, ys)
				from = uint64(nr) + 1
			}
		})
		gap(uint64(hi))
	}
	if !x.isAction() && x.v.word == wordNr && x.v != v || !y.isAction() && y.v.word == wordNr && y.v != v {
		// A filter that masks the number: take the numbers one by one.
		r.arch.Each(func(nr uint32, name string) {
			if nr >= r.lo && nr <= r.hi {
				one(name, nr, at(x, wordNr, nr), at(y, wordNr, nr))
			}
		})
		return out
	}
	eachPair(v, x, y, func(lo, hi uint32, xs, ys *decision) {
		if !xs.isAction() && xs.v.word == wordNr || !ys.isAction() && ys.v.word == wordNr {
			// Some ranges also ask for bits of the number.
			r.arch.Each(func(nr uint32, name string) {
				if nr >= max(lo, r.lo) && nr <= min(hi, r.hi) {
					one(name, nr, at(xs, wordNr, nr), at(ys, wordNr, nr))
				}
			})
			return
		}
		byNumber(lo, hi, xs, ys)
	})
	return out
}

// Eval runs a source on a call.
func (s *Source) Eval() (func(d *cbpf.Data) Action, error) {
	if s.Filter != nil {
		return s.Filter.Reference(s.Mode), nil
	}
	return func(d *cbpf.Data) Action {
		act := cbpf.Allow
		for i, p := range s.Programs {
			if a := p.Eval(d, s.BigEndian); i == 0 || a.Rank() < act.Rank() {
				act = a
			}
		}
		return act
	}, nil
}
