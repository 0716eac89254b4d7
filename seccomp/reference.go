// SPDX-License-Identifier: Apache-2.0

package seccomp

import "github.com/palisade-sec/palisade/cbpf"

// Reference answers calls by reading the decisions of the profile directly,
// without the compiled program. It is slow and independent of planning, layout
// and encoding; tests and `check` compare programs with it.
func (f *Filter) Reference(mode Mode) func(d *cbpf.Data) Action {
	v, err := f.decide(mode)
	if err != nil {
		return func(*cbpf.Data) Action { return cbpf.KillProcess }
	}
	return func(d *cbpf.Data) Action {
		for _, m := range v.machines {
			if m.audit == d.Arch {
				return m.nr.eval(func(w word) uint32 {
					if w == wordNr {
						return d.Nr
					}
					arg, high := w.arg()
					if high {
						return uint32(d.Args[arg] >> 32)
					}
					return uint32(d.Args[arg])
				})
			}
		}
		return v.badArch
	}
}
