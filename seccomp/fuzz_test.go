// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

func syscallNames() []string { return syscalls.Names() }

// FuzzProfile: any text is either refused or understood, and what is understood
// reads back the same from its OCI form.
func FuzzProfile(f *testing.F) {
	f.Add(dockerJSON)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`))
	f.Add([]byte(`{"ociVersion":"1","linux":{"seccomp":{"defaultAction":"SCMP_ACT_KILL","flags":[]}}}`))
	f.Add([]byte("{\"a\":\"\\ud83d\\ude00\\u12\"}"))
	for seed := range uint64(8) {
		f.Add([]byte(randomProfile(rand.New(rand.NewPCG(seed, 1)), syscallNames())))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("fuzz", text)
		if (p == nil) == (err == nil) {
			t.Fatalf("profile %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		h := Host{Native: syscalls.X86_64}
		r, err := p.Resolve(h)
		if err != nil {
			return
		}
		b, err := json.Marshal(r.OCI())
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse("again", b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		s, err := q.Resolve(h)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(r.OCI(), s.OCI()) {
			t.Fatalf("OCI form changes:\n%s", b)
		}
	})
}

// FuzzCompileEval: compiled filters of random profiles answer as the reference
// does, in both modes, on all families of ABIs.
func FuzzCompileEval(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(seed, uint8(seed), seed*7919)
	}
	names := syscallNames()
	f.Fuzz(func(t *testing.T, seed uint64, family uint8, inputs uint64) {
		rng := rand.New(rand.NewPCG(seed, inputs))
		p, err := Parse("random", []byte(randomProfile(rng, names)))
		if err != nil {
			t.Fatal(err)
		}
		abis := families[int(family)%len(families)]
		r, err := p.Resolve(Host{Native: abis[0], Archs: abis})
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range []Mode{Compat, Strict} {
			prog, err := r.Compile(Options{Mode: mode})
			if err != nil {
				continue
			}
			checkAgainstRules(t, r, mode, prog, rng)
		}
	})
}

// checkAgainstRules compares a filter with the decisions, and in strict mode with
// a plain reading of the rules one by one.
func checkAgainstRules(t *testing.T, f *Filter, mode Mode, prog *Program, rng *rand.Rand) {
	t.Helper()
	ref := f.Reference(mode)
	c := newCases(f, rng)
	var d cbpf.Data
	for i := range 9000 {
		c.next(i, &d)
		got := prog.Instructions.Eval(&d, f.Native.BigEndian())
		if want := ref(&d); got != want {
			t.Fatalf("%v %+v: %v, reference %v", mode, d, got, want)
		}
		if mode == Strict {
			if want, ok := f.plainly(&d); ok && got != want {
				t.Fatalf("%+v: %v, the rules say %v", d, got, want)
			}
		}
	}
}

// plainly reads the rules for a call that they name: the most restrictive one
// that matches, or the default. ok is false for calls that no rule names.
func (f *Filter) plainly(d *cbpf.Data) (act Action, ok bool) {
	for _, a := range syscalls.FromAudit(d.Arch) {
		n, known := a.Call(d.Nr)
		if !known {
			continue
		}
		listed := false
		for _, b := range f.ABIs() {
			listed = listed || a == b
		}
		if !listed {
			continue
		}
		act = f.Default
		matched := false
		for _, b := range f.bindings(Strict, a, n) {
			ok = true
			if b.matches(d) && (!matched || b.rule.Action.Rank() < act.Rank()) {
				act, matched = b.rule.Action, true
			}
		}
		return act, ok
	}
	return 0, false
}

func TestStrictPlainly(t *testing.T) {
	names := syscallNames()
	compiled := 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 11))
		p, err := Parse("random", []byte(randomProfile(rng, names)))
		if err != nil {
			t.Fatal(err)
		}
		abis := families[int(seed)%len(families)]
		f, err := p.Resolve(Host{Native: abis[0], Archs: abis})
		if err != nil {
			t.Fatal(err)
		}
		prog, err := f.Compile(Options{Mode: Strict})
		if err != nil {
			continue
		}
		compiled++
		checkAgainstRules(t, f, Strict, prog, rng)
	}
	if compiled < 20 {
		t.Errorf("only %d of 400 profiles compile in strict mode", compiled)
	}
}
