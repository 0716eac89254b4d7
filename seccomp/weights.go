// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Weights say how often each system call is made, so that the filter answers
// frequent ones first. They never change what a filter answers.
type Weights struct {
	// Counts has, for each ABI, a share of every call by name. ABIs that it
	// lacks count as uniform.
	Counts map[syscalls.Arch]map[string]float64
	// Even is the share, from 0 to 1, of a uniform distribution over all calls
	// that is mixed in.
	Even float64
	// Cached tells that the kernel keeps the verdict on calls that are always
	// allowed, as Linux does since 5.11 on most architectures, so that those
	// never run the filter.
	Cached bool
}

// Uniform takes all calls of an ABI for equally frequent.
var Uniform = &Weights{Even: 1}

// edges weighs the edges of a decision over numbers. A number that is no call
// weighs almost nothing.
func (w *Weights) edges(abis []syscalls.Arch, next []edge) []float64 {
	const nothing = 1e-7
	out := make([]float64, len(next))
	for i := range out {
		out[i] = nothing
	}
	for _, a := range abis {
		counts := w.Counts[a]
		even := w.Even
		if counts == nil {
			even = 1
		}
		total := 0.0
		for _, c := range counts {
			total += c
		}
		// X32 never is what runs most.
		share := 1.0
		if a == syscalls.X32 && len(abis) > 1 {
			share = 1e-6
		}
		perCall := share * even / float64(a.Len())
		i := 0
		a.Each(func(nr uint32, name string) {
			for next[i].last < nr {
				i++
			}
			out[i] += perCall
			if counts != nil {
				if c := counts[name]; c > 0 {
					out[i] += share * (1 - even) * c / total
				}
			}
		})
	}
	if w.Cached {
		for i := range out {
			if to := next[i].to; to.isAction() && to.act == cbpf.Allow {
				out[i] = max(out[i]*1e-3, nothing)
			}
		}
	}
	return out
}

// Mean is the average number of instructions that the filter executes for the
// calls of its native ABI, with all arguments 0: over all calls alike when
// weights is nil, otherwise weighted.
func (p *Program) Mean(weights map[string]float64) float64 {
	sum, total := 0.0, 0.0
	d := cbpf.Data{Arch: p.Native.Audit()}
	p.Native.Each(func(nr uint32, name string) {
		share := 1.0
		if weights != nil {
			if share = weights[name]; share == 0 {
				return
			}
		}
		d.Nr = nr
		_, steps, _ := p.Instructions.Run(&d, p.Native.BigEndian())
		sum += share * float64(steps)
		total += share
	})
	if total == 0 {
		return 0
	}
	return sum / total
}

// names lists the calls that weights have for an ABI, sorted.
func (w *Weights) names(a syscalls.Arch) []string {
	var out []string
	for n := range w.Counts[a] {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
