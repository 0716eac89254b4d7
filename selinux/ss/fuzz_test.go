// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// exercise asks a server everything; nothing may panic, whatever the policy.
func exercise(t *testing.T, p *policydb.Policy) {
	t.Helper()
	s := New(p)
	g := newGenerator(p, 1)
	if len(g.users) == 0 || len(g.roles) == 0 || len(g.types) == 0 || p.Classes.Prim == 0 {
		return
	}
	var contexts []*Context
	for range 12 {
		text := g.context()
		c, err := s.ParseContext(text)
		if err != nil {
			continue
		}
		again, err := s.ParseContext(c.String())
		if err != nil || again.String() != c.String() {
			t.Fatalf("%s prints as %s, which is %v", text, c, err)
		}
		contexts = append(contexts, c)
	}
	for _, a := range contexts {
		for _, b := range contexts {
			class := policydb.ClassID(g.class())
			d := s.Decide(a, b, class)
			if again := s.Decide(a, b, class); again != d {
				t.Fatalf("%s %s %d: %v and then %v", a, b, class, d, again)
			}
			_, _ = s.Transition(a, b, class, "key")
			_, _ = s.Member(a, b, class)
			_, _ = s.Relabel(a, b, class)
			_ = s.ValidateTransition(a, b, a, class)
			_ = s.DecideX(a, b, class, Ioctl, 0x5401)
			if c := p.Classes.ByValue(uint32(class)); c != nil {
				for _, perm := range c.PermissionNames(c.AllPermissions()) {
					x := s.Explain(a, b, c.Name, perm)
					if x.Allowed != (d.Allowed&c.PermissionMask(perm) != 0) {
						t.Fatalf("%s %s %s %s: decided %x, explained %+v", a, b, c.Name, perm, d.Allowed, x)
					}
				}
				_ = Constraints(p, c)
			}
		}
	}
}

func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	files, err := filepath.Glob("../policydb/testdata/seeds/*-[0-9]*")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no seeds: %v", err)
	}
	var out [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, data)
	}
	return out
}

// TestDamagedPolicies serves policies with flipped bits that are still valid.
func TestDamagedPolicies(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	served := 0
	for _, data := range seeds(t) {
		for range 400 {
			bad := slices.Clone(data)
			for range rng.IntN(3) {
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			}
			if p, err := policydb.Load(bad); err == nil {
				served++
				exercise(t, p)
			}
		}
	}
	t.Logf("%d served", served)
	if served < 300 {
		t.Errorf("only %d damaged policies were still valid", served)
	}
}

// FuzzServe serves whatever the reader takes for a valid policy.
func FuzzServe(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := policydb.Load(data); err == nil {
			exercise(t, p)
		}
	})
}

// FuzzParseContext reads contexts under a policy.
func FuzzParseContext(f *testing.F) {
	p, err := policydb.Load(seeds(f)[0])
	if err != nil {
		f.Fatal(err)
	}
	s := New(p)
	g := newGenerator(p, 2)
	for range 50 {
		f.Add(g.context())
		f.Add(g.broken())
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := s.ParseContext(text)
		if err != nil {
			return
		}
		if again, err := s.ParseContext(c.String()); err != nil || again.String() != c.String() {
			t.Fatalf("%q prints as %s, which is %v", text, c, err)
		}
	})
}
