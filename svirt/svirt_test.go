// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPair wants every pair of a range exactly once.
func TestPair(t *testing.T) {
	const n = 40
	seen := map[string]bool{}
	for k := range n * (n - 1) / 2 {
		i, j := pair(k)
		seen[fmt.Sprintf("s0:c%d,c%d", i, j)] = true
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			if level := fmt.Sprintf("s0:c%d,c%d", i, j); !seen[level] {
				t.Errorf("%s is never drawn", level)
			}
		}
	}
	if len(seen) != n*(n-1)/2 {
		t.Errorf("%d labels for %d pairs", len(seen), n*(n-1)/2)
	}
}

func TestReserveUntilExhausted(t *testing.T) {
	r := &Registry{Store: &Memory{}, Quarantine: -1, Categories: 6}
	held := map[string]string{}
	for i := range 15 {
		id := fmt.Sprintf("c%d", i)
		rec, err := r.Reserve(Claim{ID: id})
		if err != nil {
			t.Fatalf("pair %d of 15: %v", i, err)
		}
		if other := held[rec.Level]; other != "" {
			t.Fatalf("%s and %s both hold %s", other, id, rec.Level)
		}
		held[rec.Level] = id
	}
	if _, err := r.Reserve(Claim{ID: "one-more"}); !errors.Is(err, ErrExhausted) {
		t.Errorf("16th pair of 15: %v, want ErrExhausted", err)
	}
	if err := r.Release("c3"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(Claim{ID: "one-more"}); err != nil {
		t.Errorf("after a release: %v", err)
	}
}

func TestReserveExplicit(t *testing.T) {
	r := &Registry{Store: &Memory{}, Quarantine: -1}
	rec, err := r.Reserve(Claim{ID: "a", Level: "s0:c9,c3"})
	if err != nil || rec.Level != "s0:c3,c9" {
		t.Fatalf("got %q, %v; want the canonical s0:c3,c9", rec.Level, err)
	}
	if _, err := r.Reserve(Claim{ID: "b", Level: "s0:c3,c9"}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second holder: %v, want ErrInUse", err)
	}
	if again, err := r.Reserve(Claim{ID: "a"}); err != nil || again.Level != rec.Level {
		t.Errorf("asking again: %q, %v; want %q", again.Level, err, rec.Level)
	}
	if _, err := r.Reserve(Claim{ID: "c", Level: "s0:nonsense"}); err == nil {
		t.Error("a malformed level was taken")
	}
}

// TestLife runs random lives against a model: no label ever has two holders, and
// a draining one is not given out.
func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Registry{Store: &Memory{}, Quarantine: -1, Categories: rapid.IntRange(2, 7).Draw(t, "categories")}
		pairs := r.Categories * (r.Categories - 1) / 2
		held := map[string]string{} // ID → level
		id := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("c%d", rapid.IntRange(0, 9).Draw(t, "id")) })
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				who := id.Draw(t, "who")
				rec, err := r.Reserve(Claim{ID: who})
				if errors.Is(err, ErrExhausted) {
					if len(held) < pairs {
						t.Fatalf("exhausted with %d of %d pairs held", len(held), pairs)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if old, ok := held[who]; ok && old != rec.Level {
					t.Fatalf("%s held %s and now %s", who, old, rec.Level)
				}
				held[who] = rec.Level
			},
			"drain": func(t *rapid.T) {
				who := id.Draw(t, "who")
				if err := r.Drain(who); (err == nil) != (held[who] != "") {
					t.Fatalf("drain %s: %v", who, err)
				}
			},
			"release": func(t *rapid.T) {
				who := id.Draw(t, "who")
				if err := r.Release(who); err != nil {
					t.Fatal(err)
				}
				delete(held, who)
			},
			"": func(t *rapid.T) {
				owner := map[string]string{}
				for who, level := range held {
					if other := owner[level]; other != "" {
						t.Fatalf("%s and %s hold %s", who, other, level)
					}
					owner[level] = who
				}
			},
		})
	})
}

// TestRestart stops a container and starts it again with the label that its
// engine has kept: it may have it at once, and nobody else may.
func TestRestart(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := &Registry{Store: &Memory{}, Now: func() time.Time { return now }}
	first, err := r.Reserve(Claim{ID: "web", Level: "s0:c1,c2", Bound: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Release("web"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Claim{{ID: "db", Level: "s0:c1,c2"}, {ID: "db", Level: "s0:c1.c3"}, {ID: "web", Level: "s0:c1.c3"}} {
		if rec, err := r.Reserve(c); !errors.Is(err, ErrInUse) {
			t.Errorf("%s got %s, which rests: %v", c.ID, rec.Level, err)
		}
	}
	again, err := r.Reserve(Claim{ID: "web", Level: "s0:c2,c1", Bound: true})
	if err != nil || again.Level != first.Level {
		t.Errorf("restart: %+v, %v; want %s", again, err, first.Level)
	}
	list, err := r.List()
	if err != nil || len(list) != 1 {
		t.Errorf("registry: %+v, %v", list, err)
	}
	// It rests anew when it goes.
	if err := r.Release("web"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(Claim{ID: "db", Level: "s0:c1,c2"}); !errors.Is(err, ErrInUse) {
		t.Errorf("a label that rests was given to somebody else: %v", err)
	}
	now = now.Add(2 * DefaultQuarantine)
	if _, err := r.Reserve(Claim{ID: "db", Level: "s0:c1,c2"}); err != nil {
		t.Errorf("after the quarantine: %v", err)
	}
}

// TestAdopt wants a label back that was seen in an engine's state before the
// container asked for it, by that container and by no other.
func TestAdopt(t *testing.T) {
	r := &Registry{Store: &Memory{}}
	seen := []Observation{{Source: "libvirt", ID: "lxc-web", Level: "s0:c1,c2"}}
	if _, err := r.Reconcile(seen); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"web", "x", "c-web"} {
		if _, err := r.Reserve(Claim{ID: id, Level: "s0:c1,c2"}); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if rec, err := r.Reserve(Claim{ID: "lxc-web", Level: "s0:c2,c1"}); err != nil || rec.Level != "s0:c1,c2" {
		t.Errorf("%+v, %v", rec, err)
	}
	rep, err := r.Reconcile(seen)
	if err != nil || len(rep.Violations) > 0 || len(rep.Adopted) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
