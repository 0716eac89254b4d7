// SPDX-License-Identifier: Apache-2.0

package bolt_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/svirt"
)

// contents are all answers that a store gives.
func contents(t *testing.T, s svirt.Store) (all, irregular []string, held map[string]string) {
	t.Helper()
	held = map[string]string{}
	err := s.View(func(tx svirt.Tx) error {
		return errors.Join(
			tx.Each(func(r svirt.Record) error {
				all = append(all, fmt.Sprintf("%+v", r))
				if got, ok, err := tx.ByID(r.ID); err != nil || !ok || got.Level != r.Level {
					return fmt.Errorf("by ID %s: %+v, %v, %w", r.ID, got, ok, err)
				}
				return nil
			}),
			tx.EachIrregular(func(r svirt.Record) error { irregular = append(irregular, r.ID); return nil }),
			func() error {
				var resting []string
				defer func() { slices.Sort(resting); irregular = append(irregular, resting...) }()
				return tx.EachOwn("quarantine:", func(r svirt.Record) error { resting = append(resting, r.ID); return nil })
			}(),
			func() error {
				for _, level := range levelsOfModel() {
					r, ok, err := tx.ByLevel(level)
					if err != nil {
						return err
					}
					if ok {
						held[level] = r.ID
					}
				}
				return nil
			}(),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, irregular, held
}

// levelsOfModel are few, so that they meet often.
func levelsOfModel() []string {
	var out []string
	for j := range 6 {
		for i := range j {
			out = append(out, fmt.Sprintf("s0:c%d,c%d", i, j))
		}
	}
	return append(out, "s0:c1", "s0:c1,c2,c3", "s1:c1,c2", "s0:c5000,c5001")
}

// TestOwnedAgainstMemory does the same at random to the file and to a store in
// memory: whatever was changed in which order, failed in the middle, merged by a
// restart or left behind by a kill, both give the same answers.
func TestOwnedAgainstMemory(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	path := filepath.Join(t.TempDir(), "labels.db")
	own := func(path string) *bolt.Owned {
		o, err := bolt.Own(path, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o, model := own(path), &svirt.Memory{}
	defer func() { _ = o.Close() }()
	levels := levelsOfModel()
	boom := errors.New("boom")
	same := func(name string, s svirt.Store) {
		t.Helper()
		all, irregular, held := contents(t, s)
		wantAll, wantIrregular, wantHeld := contents(t, model)
		if !slices.Equal(all, wantAll) || !slices.Equal(irregular, wantIrregular) || fmt.Sprint(held) != fmt.Sprint(wantHeld) {
			t.Fatalf("%s:\ngot  %v\n     %v\n     %v\nwant %v\n     %v\n     %v", name, all, irregular, held, wantAll, wantIrregular, wantHeld)
		}
	}
	for step := range 400 {
		ops := 1 + random.IntN(6)
		fail := random.IntN(4) == 0
		script := random.Uint64()
		run := func(tx svirt.Tx) (err error) {
			random := rand.New(rand.NewPCG(script, 3))
			for range ops {
				id := fmt.Sprintf("id%d", random.IntN(12))
				rec := svirt.Record{ID: id, Level: levels[random.IntN(len(levels))], State: svirt.Bound}
				switch random.IntN(6) {
				case 0, 1:
					err = tx.Delete(id)
				case 2:
					rec.ID, rec.State = "quarantine:"+rec.Level, svirt.Quarantine
					err = tx.Put(rec)
				case 3:
					rec.Group = "g"
					err = tx.Put(rec)
				default:
					err = tx.Put(rec)
				}
				if err != nil {
					return err // the level is held
				}
			}
			if x, ok := tx.(svirt.Indexed); ok {
				for j := range 6 {
					for i := range j {
						r, held, err := tx.ByLevel(fmt.Sprintf("s0:c%d,c%d", i, j))
						want := svirt.PairFree
						if held && r.State == svirt.Quarantine {
							want = svirt.PairRests
						} else if held {
							want = svirt.PairHeld
						}
						if got := x.Pair(i, j); err != nil || got != want {
							return fmt.Errorf("pair c%d,c%d is %v, want %v: %w", i, j, got, want, err)
						}
					}
				}
			}
			if fail {
				return boom
			}
			return nil
		}
		got, want := o.Update(run), model.Update(run)
		if (got == nil) != (want == nil) || errors.Is(got, svirt.ErrInUse) != errors.Is(want, svirt.ErrInUse) || errors.Is(got, boom) != errors.Is(want, boom) {
			t.Fatalf("step %d: got %v, want %v", step, got, want)
		}
		switch random.IntN(8) {
		case 0: // a clean restart
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			if random.IntN(2) == 0 {
				same("between two owners", bolt.Open(path))
			}
			o = own(path)
		case 1: // what a kill leaves is what is in the file
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			left := filepath.Join(filepath.Dir(path), "left.db")
			if err := os.WriteFile(left, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if random.IntN(2) == 0 {
				killed := own(left)
				same("an owner after a kill", killed)
				if err := killed.Close(); err != nil {
					t.Fatal(err)
				}
			}
			same("after a kill", bolt.Open(left))
			if err := bolt.Open(left).Check(); err != nil {
				t.Fatal(err)
			}
		}
		same("the owner", o)
		if step%20 == 0 {
			if err := o.Check(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
