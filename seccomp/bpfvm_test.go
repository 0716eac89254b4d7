// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/palisade-sec/palisade/cbpf"
)

// vm runs a program in golang.org/x/net/bpf, which loads words in big-endian
// order whatever the machine.
type vm struct {
	vm  *bpf.VM
	big bool
	buf [64]byte
}

func newVM(tb testing.TB, p cbpf.Program, big bool) *vm {
	raw := make([]bpf.RawInstruction, len(p))
	for i, in := range p {
		raw[i] = bpf.RawInstruction{Op: in.Op, Jt: in.JT, Jf: in.JF, K: in.K}
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		tb.Fatal("x/net/bpf does not know an instruction")
	}
	v, err := bpf.NewVM(insns)
	if err != nil {
		tb.Fatal(err)
	}
	return &vm{vm: v, big: big}
}

func (v *vm) run(tb testing.TB, d *cbpf.Data) Action {
	for off := uint32(0); off < 64; off += 4 {
		binary.BigEndian.PutUint32(v.buf[off:], d.Word(off, v.big))
	}
	r, err := v.vm.Run(v.buf[:])
	if err != nil {
		tb.Fatal(err)
	}
	return Action(uint32(r))
}

// TestConfirmVM runs compiled filters in another interpreter, until every
// instruction has been executed both ways.
func TestConfirmVM(t *testing.T) {
	l := syscallNames()
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := Docker()
		if seed > 2 {
			var err error
			if p, err = Parse("random", []byte(randomProfile(rng, l))); err != nil {
				t.Fatal(err)
			}
		}
		family := families[int(seed)%len(families)]
		f, err := p.Resolve(Host{Native: family[0], Archs: family, Caps: dockerCaps})
		if err != nil {
			t.Fatal(err)
		}
		prog, err := f.Compile(Options{})
		if err != nil {
			continue
		}
		big := f.Native.BigEndian()
		other := newVM(t, prog.Instructions, big)
		c := newCases(f, rng)
		var d cbpf.Data
		for i := range 12_000 {
			c.next(i, &d)
			got := prog.Instructions.Eval(&d, big)
			if want := other.run(t, &d); got != want {
				t.Fatalf("seed %d %v %+v: %v, x/net/bpf says %v", seed, family, d, got, want)
			}
		}
	}
}

// TestEveryInstructionRuns: a compiled filter has no dead code.
func TestEveryInstructionRuns(t *testing.T) {
	for _, family := range families {
		f, err := Docker().Resolve(Host{Native: family[0], Archs: family, Caps: dockerCaps})
		if err != nil {
			t.Fatal(err)
		}
		prog, err := f.Compile(Options{})
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]bool, len(prog.Instructions))
		seen[0] = true
		for at, in := range prog.Instructions {
			switch {
			case !seen[at]:
				t.Errorf("%v: instruction %d is never reached", family, at)
			case in.Op == cbpf.Jump:
				seen[at+1+int(in.K)] = true
			case in.IsJump():
				seen[at+1+int(in.JT)], seen[at+1+int(in.JF)] = true, true
			case !in.IsReturn():
				seen[at+1] = true
			}
		}
	}
}
