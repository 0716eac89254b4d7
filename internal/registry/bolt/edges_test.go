// SPDX-License-Identifier: Apache-2.0

package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/palisade-sec/palisade/svirt"
)

// Records of every kind: plain, of a group, irregular, of the registry's own.
var someRecords = []svirt.Record{
	{ID: "a", Level: "s0:c1,c2", State: svirt.Bound},
	{ID: "b", Level: "s0:c3.c5", State: svirt.Reserved},
	{ID: "m", Level: "s0:c7,c8", State: svirt.Bound, Group: "g"},
	{ID: "shared:g", Level: "s0:c7,c8", State: svirt.Bound, Members: 1},
	{ID: "quarantine:s0:c9", Level: "s0:c9", State: svirt.Quarantine},
}

func puts(records ...svirt.Record) func(svirt.Tx) error {
	return func(tx svirt.Tx) error {
		for _, r := range records {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// filled is a file with these records.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "labels.db")
	if err := Open(path).Update(puts(someRecords...)); err != nil {
		t.Fatal(err)
	}
	return path
}

// damage changes a file behind the store's back.
func damage(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func set(bucket []byte, key, value string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), []byte(value)) }
}

func unset(bucket []byte, key string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(key)) }
}

// TestCheckFinds: indexes that do not agree with the records, one at a time.
func TestCheckFinds(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(*bbolt.Tx) error
		want string
	}{
		"nothing":              {func(*bbolt.Tx) error { return nil }, ""},
		"another holder":       {set(bucketLevels, "s0:c1,c2", "b"), `level s0:c1,c2 of a is held by "b"`},
		"no holder":            {unset(bucketLevels, "s0:c1,c2"), `level s0:c1,c2 of a is held by ""`},
		"a level of nobody":    {set(bucketLevels, "s0:c100,c101", "nobody"), "4 holders and 5 levels"},
		"a group's lost level": {unset(bucketLevels, "s0:c7,c8"), `level s0:c7,c8 of shared:g is held by ""`},
		"irregular, unlisted":  {unset(bucketIrregular, "b"), "level s0:c3.c5 of b: irregular is false"},
		"regular, listed":      {set(bucketIrregular, "a", ""), "level s0:c1,c2 of a: irregular is true"},
		"nobody, listed":       {set(bucketIrregular, "nobody", ""), "2 irregular levels, 3 listed"},
		"a broken record":      {set(bucketIDs, "a", "{"), "label registry: record: "},
		"no records":           {func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketIDs) }, "another program's file"},
		"no levels":            {func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketLevels) }, "another program's file"},
		"no list":              {func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketIrregular) }, "another program's file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			damage(t, path, tt.do)
			wrong := func(what string, err error) {
				t.Helper()
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("%s: %v, want %q", what, err, tt.want)
				}
			}
			wrong("check", Open(path).Check())
			if strings.Contains(tt.want, "another program") {
				wrong("view", Open(path).View(func(svirt.Tx) error { return nil }))
				wrong("update", Open(path).Update(func(svirt.Tx) error { return nil }))
				_, err := Own(path, time.Minute)
				wrong("own", err)
				return
			}
			if strings.Contains(tt.want, "record:") {
				for what, fn := range map[string]func(svirt.Tx) error{
					"ID":     func(tx svirt.Tx) error { _, ok, err := tx.ByID("a"); return errors.Join(err, truth(!ok)) },
					"level":  func(tx svirt.Tx) error { _, ok, err := tx.ByLevel("s0:c1,c2"); return errors.Join(err, truth(!ok)) },
					"each":   func(tx svirt.Tx) error { return tx.Each(func(svirt.Record) error { return nil }) },
					"put":    func(tx svirt.Tx) error { return tx.Put(svirt.Record{ID: "a", Level: "s0:c1,c2"}) },
					"delete": func(tx svirt.Tx) error { return tx.Delete("a") },
				} {
					wrong(what, Open(path).Update(fn))
				}
				damage(t, path, set(bucketIDs, "b", "["))
				wrong("irregular", Open(path).View(func(tx svirt.Tx) error { return tx.EachIrregular(func(svirt.Record) error { return nil }) }))
				damage(t, path, set(bucketIDs, "shared:g", "["))
				wrong("own", Open(path).View(func(tx svirt.Tx) error { return tx.EachOwn("shared:", func(svirt.Record) error { return nil }) }))
			}
			o, err := Own(path, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			wrong("check of its owner", o.Check())
			_ = o.Close()
		})
	}
}

func truth(ok bool) error {
	if !ok {
		return errors.New("a record came with an error")
	}
	return nil
}

// TestAbsent: a registry that is not there is empty and sound, and looking makes none.
func TestAbsent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "labels.db")
	s := Open(path)
	n := 0
	if err := errors.Join(s.Check(), s.View(func(tx svirt.Tx) error { return tx.Each(func(svirt.Record) error { n++; return nil }) })); err != nil || n != 0 {
		t.Errorf("%d records, %v", n, err)
	}
	called := false
	if err := s.View(func(svirt.Tx) error { called = true; return os.ErrInvalid }); !called || !errors.Is(err, os.ErrInvalid) {
		t.Errorf("called %v, %v", called, err)
	}
	if names(t, dir) != "" {
		t.Errorf("looking made %s", names(t, dir))
	}
	if err := s.Update(puts(someRecords[0])); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if names(t, dir) != "labels.db" {
		t.Errorf("beside the file: %s", names(t, dir))
	}
	if err := s.Update(puts(svirt.Record{ID: "thief", Level: someRecords[0].Level})); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), "is held by a") {
		t.Errorf("a level that is held: %v", err)
	}
	// It is not made anew.
	if err := s.create(); err != nil {
		t.Error(err)
	}
	if err := s.View(func(tx svirt.Tx) error { _, ok, err := tx.ByID("a"); return errors.Join(err, truth(ok)) }); err != nil {
		t.Error(err)
	}
	for what, path := range map[string]string{"no folder": filepath.Join(dir, "no", "x.db"), "a file for a folder": filepath.Join(path, "x.db")} {
		if err := Open(path).Update(func(svirt.Tx) error { return nil }); err == nil || !strings.HasPrefix(err.Error(), "create label registry "+path) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := Own(path, time.Minute); err == nil || !strings.HasPrefix(err.Error(), "create label registry "+path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Open(filepath.Join(path, "x.db")).View(func(svirt.Tx) error { return nil }); err == nil {
		t.Error("a file for a folder is an empty registry")
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// TestCreateTogether: many that make the file at once have one, with what each wrote.
func TestCreateTogether(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "labels.db")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := Open(path).Update(puts(svirt.Record{ID: fmt.Sprint(i), Level: fmt.Sprintf("s0:c%d,c%d", i, i+1)})); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		if err := Open(path).View(func(tx svirt.Tx) error { return tx.Each(func(svirt.Record) error { n++; return nil }) }); err != nil || n != 8 {
			t.Errorf("%d records, %v", n, err)
		}
	}
}

// TestLocked: who owns the file has it alone.
func TestLocked(t *testing.T) {
	path := filled(t)
	o, err := Own(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	short := Open(path).WithTimeout(time.Millisecond)
	for name, err := range map[string]error{
		"update": short.Update(func(svirt.Tx) error { return nil }), "view": short.View(func(svirt.Tx) error { return nil }), "check": short.Check(),
		"own": func() error { _, err := Own(path, time.Millisecond); return err }(),
	} {
		if !errors.Is(err, ErrLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(short.WithTimeout(time.Minute).Check(), o.Close()); err != nil {
		t.Error(err)
	}
	if err := o.Update(func(svirt.Tx) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestKilledOwner: what an owner committed is there for whoever comes after it was
// killed, to look, to write and to own.
func TestKilledOwner(t *testing.T) {
	path := filled(t)
	o, err := Own(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Update(func(tx svirt.Tx) error {
		return errors.Join(
			tx.Delete("a"), // gives its level up
			tx.Put(svirt.Record{ID: "c", Level: "s0:c1,c2", State: svirt.Bound}),
			tx.Put(svirt.Record{ID: "b", Level: "s0:c20,c21", State: svirt.Bound}), // regular now
			tx.Put(svirt.Record{ID: "d", Level: "s0:c30", State: svirt.Bound}),
			tx.Delete("quarantine:s0:c9"),
			tx.Put(svirt.Record{ID: "n", Level: "s0:c7,c8", State: svirt.Bound, Group: "g"}),
		)
	}); err != nil {
		t.Fatal(err)
	}
	want := "b s0:c20,c21; c s0:c1,c2; d s0:c30; m s0:c7,c8; n s0:c7,c8; shared:g s0:c7,c8; irregular d; own shared:g"
	look := func(what string, s svirt.Store) {
		t.Helper()
		if got := spell(t, s); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
		}
	}
	look("the owner", o)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string) svirt.Store{
		"view": func(p string) svirt.Store { return Open(p) },
		"update": func(p string) svirt.Store {
			if err := Open(p).Update(func(tx svirt.Tx) error { _, ok, err := tx.ByID("d"); return errors.Join(err, truth(ok)) }); err != nil {
				t.Error(err)
			}
			return Open(p)
		},
		"check": func(p string) svirt.Store {
			if err := Open(p).Check(); err != nil {
				t.Error(err)
			}
			return Open(p)
		},
		"own": func(p string) svirt.Store {
			o, err := Own(p, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			look("owned", o)
			if err := errors.Join(o.Check(), o.Close()); err != nil {
				t.Error(err)
			}
			return Open(p)
		},
	} {
		left := filepath.Join(t.TempDir(), "left.db")
		if err := os.WriteFile(left, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(left)
		look(name, s)
		if err := Open(left).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		db, err := bbolt.Open(left, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if yes, err := unmerged(db); yes || err != nil {
			t.Errorf("%s: unmerged is %v, %v", name, yes, err)
		}
		db.Close()
	}
	// A change that cannot be read keeps everybody from the file.
	for name, kv := range map[string][2]string{"no JSON": {"12345678", "{"}, "no number": {"1234567", `{"id":"x","level":"s0:c1"}`}, "long": {"123456789", `{"id":"x","level":"s0:c1"}`}} {
		left := filepath.Join(t.TempDir(), "left.db")
		if err := os.WriteFile(left, b, 0o600); err != nil {
			t.Fatal(err)
		}
		damage(t, left, set(bucketRecent, kv[0], kv[1]))
		for what, err := range map[string]error{
			"view": Open(left).View(func(svirt.Tx) error { return nil }), "update": Open(left).Update(func(svirt.Tx) error { return nil }), "check": Open(left).Check(),
			"own": func() error { _, err := Own(left, time.Minute); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), "label registry: change") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

func spell(t *testing.T, s svirt.Store) string {
	t.Helper()
	var out []string
	if err := s.View(func(tx svirt.Tx) error {
		var own []string
		err := errors.Join(
			tx.Each(func(r svirt.Record) error { out = append(out, r.ID+" "+r.Level); return nil }),
			tx.EachIrregular(func(r svirt.Record) error { out = append(out, "irregular "+r.ID); return nil }),
			tx.EachOwn("shared:", func(r svirt.Record) error { own = append(own, "own "+r.ID); return nil }),
			tx.EachOwn("quarantine:", func(r svirt.Record) error { own = append(own, "own "+r.ID); return nil }),
		)
		slices.Sort(own)
		out = append(out, own...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "; ")
}

// TestStopped: what a callback returns ends the going through, in either layer.
func TestStopped(t *testing.T) {
	path := filled(t)
	o, err := Own(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Update(puts(svirt.Record{ID: "0", Level: "s0:c40"}, svirt.Record{ID: "z", Level: "s0:c41"}, svirt.Record{ID: "shared:a", Level: "s0:c42,c43"})); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for _, s := range []svirt.Store{o, &svirt.Memory{}} {
		if m, ok := s.(*svirt.Memory); ok {
			if err := m.Update(puts(append(slices.Clone(someRecords), svirt.Record{ID: "0", Level: "s0:c40"}, svirt.Record{ID: "z", Level: "s0:c41"}, svirt.Record{ID: "shared:a", Level: "s0:c42,c43"})...)); err != nil {
				t.Fatal(err)
			}
		}
		for name, each := range map[string]func(svirt.Tx, func(svirt.Record) error) error{
			"each": svirt.Tx.Each, "irregular": svirt.Tx.EachIrregular, "own": func(tx svirt.Tx, fn func(svirt.Record) error) error { return tx.EachOwn("shared:", fn) },
		} {
			total := 0
			if err := s.View(func(tx svirt.Tx) error { return each(tx, func(svirt.Record) error { total++; return nil }) }); err != nil {
				t.Fatal(err)
			}
			if want := map[string]int{"each": 8, "irregular": 4, "own": 2}[name]; total != want {
				t.Errorf("%T, %s: %d records, want %d", s, name, total, want)
			}
			for stop := 1; stop <= total; stop++ {
				n := 0
				err := s.View(func(tx svirt.Tx) error {
					return each(tx, func(svirt.Record) error {
						if n++; n == stop {
							return boom
						}
						return nil
					})
				})
				if !errors.Is(err, boom) || n != stop {
					t.Errorf("%T, %s stopped at %d of %d: %v after %d", s, name, stop, total, err, n)
				}
			}
		}
	}
}

// TestTogether: of transactions that are committed together, each that fails leaves
// nothing and takes no other with it.
func TestTogether(t *testing.T) {
	o, err := Own(filepath.Join(t.TempDir(), "labels.db"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	boom := errors.New("boom")
	rec := func(i int) svirt.Record {
		return svirt.Record{ID: fmt.Sprintf("r%02d", i), Level: fmt.Sprintf("s0:c%d,c%d", 2*i, 2*i+1)}
	}
	var group []*pending
	runs := make([]int, 12)
	for i := range 12 {
		group = append(group, &pending{done: make(chan struct{}), fn: func(tx svirt.Tx) error {
			runs[i]++
			switch i % 4 {
			case 1: // fails before it writes
				return boom
			case 2: // and after
				return errors.Join(tx.Put(rec(i)), boom)
			case 3: // takes what another has
				return tx.Put(svirt.Record{ID: "thief", Level: rec(i - 3).Level})
			}
			return tx.Put(rec(i))
		}})
	}
	o.commit(group)
	for i, p := range group {
		select {
		case <-p.done:
		default:
			t.Errorf("%d was not told", i)
			continue
		}
		want := map[int]error{1: boom, 2: boom, 3: svirt.ErrInUse}[i%4]
		if !errors.Is(p.err, want) || want == nil && p.err != nil {
			t.Errorf("%d: %v, want %v", i, p.err, want)
		}
		if i%4 == 2 && runs[i] != 1 {
			t.Errorf("%d ran %d times", i, runs[i])
		}
	}
	if got := spell(t, o); got != "r00 s0:c0,c1; r04 s0:c8,c9; r08 s0:c16,c17" {
		t.Error(got)
	}
	if err := o.Check(); err != nil {
		t.Error(err)
	}
	// Who fails before it writes makes nobody run again, not even behind one that wrote.
	again := make([]int, 5)
	group = nil
	for i := range again {
		group = append(group, &pending{done: make(chan struct{}), fn: func(tx svirt.Tx) error {
			again[i]++
			if i%2 == 1 {
				return boom
			}
			return tx.Put(rec(20 + i))
		}})
	}
	o.commit(group)
	for i, n := range again {
		if n != 1 || (group[i].err != nil) != (i%2 == 1) {
			t.Errorf("%d ran %d times: %v", i, n, group[i].err)
		}
	}
	if err := o.Update(func(tx svirt.Tx) error { return errors.Join(tx.Delete("r20"), tx.Delete("r22"), tx.Delete("r24")) }); err != nil {
		t.Fatal(err)
	}
	// The index of pairs knows what came of it.
	for i, want := range map[int]svirt.PairState{0: svirt.PairHeld, 2: svirt.PairFree, 6: svirt.PairFree, 8: svirt.PairHeld} {
		if got := o.pairs.Pair(2*i, 2*i+1); got != want {
			t.Errorf("pair of %d: %v, want %v", i, got, want)
		}
	}
	// A commit that fails is told to all of it.
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	last := &pending{done: make(chan struct{}), fn: func(svirt.Tx) error { return nil }}
	o.commit([]*pending{last})
	if last.err == nil {
		t.Error("a commit to a closed file succeeded")
	}
}

// TestCheckOverlay: what is in memory over the file is checked, too.
func TestCheckOverlay(t *testing.T) {
	o, err := Own(filepath.Join(t.TempDir(), "labels.db"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Update(puts(someRecords...)); err != nil {
		t.Fatal(err)
	}
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	o.recent.levels["s0:c1,c2"] = "b"
	if err := o.Check(); err == nil || !strings.Contains(err.Error(), `level s0:c1,c2 of a is held by "b"`) {
		t.Errorf("another holder: %v", err)
	}
	o.recent.levels["s0:c1,c2"] = "a"
	// A record that gives up its level and one that takes it, in either order.
	over := newOverlay()
	over.set("x", &change{Record: svirt.Record{ID: "x", Level: "s0:c1"}})
	over.set("y", &change{Record: svirt.Record{ID: "y", Level: "s0:c2"}, Gone: true})
	over.set("z", &change{Record: svirt.Record{ID: "z", Level: "s0:c1"}})
	over.set("y", nil)
	if over.levels["s0:c1"] != "z" || len(over.ids) != 2 || !over.irregular["x"] {
		t.Errorf("%+v", over)
	}
	over.set("z", &change{Record: svirt.Record{ID: "z", Level: "s0:c1"}, Gone: true})
	over.set("x", &change{Record: svirt.Record{ID: "x", Level: "s0:c1"}})
	over.set("z", nil) // was gone: what it held before belongs to another key
	if over.levels["s0:c1"] != "x" {
		t.Errorf("%+v", over)
	}
}

// TestIndexed: what is known of pairs when the file is opened.
func TestIndexed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels.db")
	if err := Open(path).Update(puts(
		svirt.Record{ID: "a", Level: "s0:c1,c2", State: svirt.Bound}, svirt.Record{ID: "quarantine:s0:c3,c4", Level: "s0:c3,c4", State: svirt.Quarantine},
		svirt.Record{ID: "b", Level: "s0:c5,c6", State: svirt.Bound}, svirt.Record{ID: "c", Level: "s0:c7,c8", State: svirt.Bound},
	)); err != nil {
		t.Fatal(err)
	}
	o, err := Own(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Update(func(tx svirt.Tx) error {
		return errors.Join(tx.Delete("b"), tx.Put(svirt.Record{ID: "c", Level: "s0:c9,c10", State: svirt.Bound}), tx.Put(svirt.Record{ID: "quarantine:s0:c11,c12", Level: "s0:c11,c12", State: svirt.Quarantine}))
	}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left.db")
	if err := os.WriteFile(left, b, 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := Own(left, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	defer o.Close()
	want := map[[2]int]svirt.PairState{{1, 2}: svirt.PairHeld, {3, 4}: svirt.PairRests, {5, 6}: svirt.PairFree, {7, 8}: svirt.PairFree, {9, 10}: svirt.PairHeld, {11, 12}: svirt.PairRests}
	for name, o := range map[string]*Owned{"its owner": o, "after a kill": after} {
		if err := o.Update(func(tx svirt.Tx) error {
			x := tx.(svirt.Indexed)
			for ij, state := range want {
				if got := x.Pair(ij[0], ij[1]); got != state {
					t.Errorf("%s: pair %v is %v, want %v", name, ij, got, state)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := o.View(func(tx svirt.Tx) error {
			if got := tx.(svirt.Indexed).Pair(1, 2); got != svirt.PairUnknown {
				t.Errorf("%s: to look, pair is %v", name, got)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
