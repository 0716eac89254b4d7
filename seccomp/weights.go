// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	_ "embed" // the built-in mix
	"encoding/json"
	"fmt"
	"math"

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

// weightsFile is the JSON that ParseWeights reads and WriteWeights makes.
type weightsFile struct {
	Weights map[string]map[string]float64 `json:"weights"`
	Even    *float64                      `json:"even,omitempty"`
	Cached  bool                          `json:"cached,omitempty"`
}

// ParseWeights reads {"weights": {"amd64": {"read": 1200, …}, …}}; "even", from 0
// to 1, mixes in a uniform distribution (0.02 when absent), "cached" is Cached.
// Counts may be any positive numbers. The output of a recording is such a file.
func ParseWeights(file string, data []byte) (*Weights, error) {
	var in weightsFile
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("weights %s: %w", file, err)
	}
	if len(in.Weights) == 0 {
		return nil, fmt.Errorf("weights %s: no \"weights\" in it", file)
	}
	w := &Weights{Even: 0.02, Cached: in.Cached, Counts: map[syscalls.Arch]map[string]float64{}}
	if in.Even != nil {
		w.Even = *in.Even
	}
	if !(w.Even >= 0 && w.Even <= 1) {
		return nil, fmt.Errorf("weights %s: \"even\" is %v, not between 0 and 1", file, w.Even)
	}
	for name, counts := range in.Weights {
		a, err := syscalls.ParseArch(name)
		if err != nil {
			return nil, fmt.Errorf("weights %s: %w", file, err)
		}
		total := 0.0
		for call, c := range counts {
			if _, ok := a.Number(call); !ok {
				return nil, fmt.Errorf("weights %s: %v has no system call %q", file, a, call)
			}
			if c < 0 || math.IsInf(c, 0) || math.IsNaN(c) {
				return nil, fmt.Errorf("weights %s: %v %s: %v is no count", file, a, call, c)
			}
			total += c
		}
		if total > 0 {
			w.Counts[a] = counts
		}
	}
	return w, nil
}

// Recorded is the built-in mix: the mean of recordings of a web server, a key-value
// store, a database, a Python program and shell scripts, each counting alike.
func Recorded() *Weights {
	w, err := ParseWeights("builtin", recordedJSON)
	if err != nil {
		panic("built-in weights: " + err.Error())
	}
	return w
}

// Balanced serves all calls nearly alike and, where that costs nothing, the
// built-in mix first.
func Balanced() *Weights {
	w := Recorded()
	w.Even = 0.8
	return w
}

//go:embed profiles/mix.json
var recordedJSON []byte
