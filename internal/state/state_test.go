// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLife(t *testing.T) {
	d := open(t)
	c, err := d.Create(Record{ID: "web", Engine: "palisade", Level: "s0:c1,c2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(Record{ID: "web"}); !errors.Is(err, ErrExists) {
		t.Errorf("a second of that name: %v", err)
	}
	if _, err := d.Lock("web"); !errors.Is(err, ErrBusy) {
		t.Errorf("lock of one in use: %v", err)
	}
	if r, err := d.Get("web"); err != nil || r.Level != "s0:c1,c2" || r.Key != "web" {
		t.Errorf("get: %+v, %v", r, err)
	}
	if _, err := d.Get("x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of none: %v", err)
	}
	other, err := d.Create(Record{ID: "web2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"w", "we", "web2x", "web ", "WEB"} {
		if _, err := d.Get(part); !errors.Is(err, ErrNotFound) {
			t.Errorf("get of %q: %v", part, err)
		}
		if _, err := d.Lookup("", part); !errors.Is(err, ErrNotFound) {
			t.Errorf("lookup of %q: %v", part, err)
		}
		// A beginning that fits several means none of them.
		want := ErrNotFound
		if part == "w" || part == "we" {
			want = ErrAmbiguous
		}
		if _, err := d.Find(part); !errors.Is(err, want) {
			t.Errorf("find of %q: %v", part, err)
		}
	}
	for _, name := range []string{"web", "web2"} {
		if r, err := d.Find(name); err != nil || r.ID != name {
			t.Errorf("find of %q: %v, %v", name, r.ID, err)
		}
	}
	if list, err := d.List(); err != nil || len(list) != 2 {
		t.Errorf("list: %v, %v", list, err)
	}
	other.Close()
	if again, err := d.Lock("web2"); err != nil || again.ID != "web2" {
		t.Errorf("lock of one not in use: %v", err)
	} else if err := again.Remove(); err != nil {
		t.Error(err)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if list, err := d.List(); err != nil || len(list) != 0 {
		t.Errorf("after removal: %v, %v", list, err)
	}
	entries, err := os.ReadDir(d.containers())
	if err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestIDs(t *testing.T) {
	long := strings.Repeat("a", 128)
	for id, want := range map[string]bool{
		"a": true, "web-1": true, "A_b.c+d": true, "_x": true, long: true, long + "a": true, strings.Repeat("a", 1024): true,
		".new-1": true, "-a": true, "a,b": true, "...": true, ".-.": true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, "a~b": false, "a:b": false, "a\x00": false, strings.Repeat("a", 1025): false,
	} {
		if ValidID(id) != want {
			t.Errorf("%q: %v, want %v", id, !want, want)
		}
		if !want {
			continue
		}
		for _, root := range []string{"", "/run/runc"} {
			for _, key := range keysOf(root, id) {
				if !ValidKey(key) || len(key) > 255-len(".old-.1234567890123456789") || !IsKeyOf(key, root, id) {
					t.Errorf("%q: key %q", id, key)
				}
				if IsKeyOf(key, root, id+"b") {
					t.Errorf("%q is also of another ID", key)
				}
			}
		}
	}
	for _, key := range []string{"", ".", "..", ".new-1", ".old-1", "-a", "~a", "a/b", "a,b", strings.Repeat("a", 200)} {
		if ValidKey(key) {
			t.Errorf("%q is a key", key)
		}
	}
	d := open(t)
	if _, err := d.Create(Record{ID: "../x"}); !errors.Is(err, ErrName) {
		t.Errorf("got %v", err)
	}
	for _, get := range []func(string) error{
		func(s string) error { _, err := d.Get(s); return err },
		func(s string) error { _, err := d.Lookup("", s); return err },
		func(s string) error { _, err := d.Lock(s); return err },
		func(s string) error { _, err := d.Find(s); return err },
	} {
		if err := get("../containers"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
}

// TestKeysDiffer wants containers of different IDs or roots kept under different keys.
func TestKeysDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.StringMatching(`[a.,~+-]{1,6}`), rapid.StringMatching(`[a.,_-]{120,300}`))
		a, b := id.Draw(t, "a"), id.Draw(t, "b")
		if !ValidID(a) || !ValidID(b) || a == b {
			return
		}
		for _, x := range keysOf("/r", a) {
			for _, y := range keysOf("/r", b) {
				if x == y {
					t.Fatalf("%q and %q have the key %q", a, b, x)
				}
			}
		}
	})
}

// TestRoots has one ID in several roots of runtimes.
func TestRoots(t *testing.T) {
	d := open(t)
	roots := []string{"/run/a", "/run/b", "/run/containerd/runc/k8s.io", ""}
	keys := map[string]string{}
	for _, root := range roots {
		c, err := d.Create(Record{ID: "web", Command: []string{root}, Runtime: Runtime{Root: root}})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if other, dup := keys[c.Key]; dup {
			t.Errorf("%q and %q have the key %s", root, other, c.Key)
		}
		keys[c.Key] = root
		for _, same := range []string{root, filepath.Clean(root + "/x/..")} {
			if root == "" {
				same = ""
			}
			if _, err := d.Create(Record{ID: "web", Runtime: Runtime{Root: same}}); !errors.Is(err, ErrExists) {
				t.Errorf("a second one in %q: %v", same, err)
			}
		}
	}
	for _, root := range roots {
		r, err := d.Lookup(root, "web")
		if err != nil || r.Command[0] != root {
			t.Errorf("%q: %+v, %v", root, r, err)
		}
	}
	if _, err := d.Lookup("/run/c", "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a root without one: %v", err)
	}
	_, err := d.Find("web")
	if !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("find: %v", err)
	}
	for _, root := range roots {
		full := keysOf(root, "web")[1]
		if !strings.Contains(err.Error(), full) {
			t.Errorf("%v does not name %s", err, full)
		}
		if r, err := d.Find(full); err != nil || r.Command[0] != root {
			t.Errorf("find %s: %+v, %v", full, r, err)
		}
	}
	// The plain key becomes free, and no container changes its own.
	first, err := d.Lock("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(Record{ID: "web", Runtime: Runtime{Root: "/run/b"}}); !errors.Is(err, ErrExists) {
		t.Errorf("one that is there under its other key: %v", err)
	}
	if r, err := d.Lookup("/run/b", "web"); err != nil || keys[r.Key] != "/run/b" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := d.Lookup("/run/a", "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of the removed one: %v", err)
	}
}

// TestRootsAtOnce claims few names in few roots from many goroutines, each to be had
// once.
func TestRootsAtOnce(t *testing.T) {
	d := open(t)
	var won [3]atomic.Int32
	var wg sync.WaitGroup
	for i := range 48 {
		wg.Go(func() {
			root := i % len(won)
			c, err := d.Create(Record{ID: "web", Runtime: Runtime{Root: fmt.Sprint("/", root)}})
			switch {
			case err == nil:
				won[root].Add(1)
				c.Close()
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for root := range won {
		if n := won[root].Load(); n != 1 {
			t.Errorf("root %d: %d have the name", root, n)
		}
	}
}

// TestOneWins lets many claim one name at once.
func TestOneWins(t *testing.T) {
	d := open(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, err := d.Create(Record{ID: "web"}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have the name", won.Load())
	}
}

func TestSweep(t *testing.T) {
	d := open(t)
	inUse, err := d.Create(Record{ID: "in-use"})
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	left, err := d.Create(Record{ID: "left"})
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	broken, err := d.Create(Record{ID: "broken"})
	if err != nil {
		t.Fatal(err)
	}
	broken.Close()
	if err := os.WriteFile(filepath.Join(d.containers(), "broken", recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{newPrefix + "1", oldPrefix + "web.1"} {
		if err := os.MkdirAll(filepath.Join(d.containers(), half, "bundle"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.List(); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("list with an unreadable record: %v", err)
	}
	var swept []string
	if err := d.Sweep(func(c *Container) error {
		if (c.ID == "broken") != errors.Is(c.Damaged, ErrDamaged) {
			t.Errorf("%s: damaged %v", c.ID, c.Damaged)
		}
		swept = append(swept, c.Key)
		return c.Remove()
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(swept, " "); got != "broken left" {
		t.Errorf("swept %q", got)
	}
	entries, err := os.ReadDir(d.containers())
	if err != nil || len(entries) != 1 || entries[0].Name() != "in-use" {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestForeignDir wants a state directory that others could write to refused.
func TestForeignDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a folder that all can write to was taken")
	}
	target, link := t.TempDir(), filepath.Join(t.TempDir(), "state")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link); err == nil {
		t.Error("a link was taken")
	}
	file := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file was taken")
	}
}

func TestCache(t *testing.T) {
	d := open(t)
	if _, ok := d.Load("k"); ok {
		t.Error("something before anything was kept")
	}
	d.Store("k", []byte("v"))
	if b, ok := d.Load("k"); !ok || string(b) != "v" {
		t.Errorf("got %q, %v", b, ok)
	}
}

// TestAbsent: an ID without a holder stays free until the function returns.
func TestAbsent(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Create(Record{ID: "there"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	called := false
	if err := d.Absent("there", func() error { called = true; return nil }); !errors.Is(err, ErrExists) || called {
		t.Errorf("of a container that is there: %v, called %v", err, called)
	}
	created := make(chan error, 1)
	err = d.Absent("other", func() error {
		go func() {
			c, err := d.Create(Record{ID: "other"})
			if err == nil {
				c.Close()
			}
			created <- err
		}()
		select {
		case <-created:
			return errors.New("the ID was taken meanwhile")
		case <-time.After(100 * time.Millisecond):
			return ErrName
		}
	})
	if !errors.Is(err, ErrName) {
		t.Errorf("got %v, want what the function returned", err)
	}
	if err := <-created; err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAdopt passes the lock of a container on.
func TestAdopt(t *testing.T) {
	dir, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := dir.Create(Record{ID: "one", Level: "s0:c1,c2"})
	if err != nil {
		t.Fatal(err)
	}
	inherit := func() *os.File {
		n, err := unix.FcntlInt(first.Share().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(n), "inherited")
	}
	second, err := dir.Adopt(first.Key, inherit())
	if err != nil || second.Level != "s0:c1,c2" {
		t.Fatal(second, err)
	}
	for name, row := range map[string]struct {
		key  string
		file func() *os.File
		want error
	}{
		"no key": {"../x", inherit, ErrNotFound},
		"absent": {"two", inherit, ErrNotFound},
		"another file": {first.Key, func() *os.File {
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			return f
		}, ErrBusy},
		"another's lock": {first.Key, func() *os.File {
			f, err := os.OpenFile(first.Path("lock"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}, ErrBusy},
	} {
		if _, err := dir.Adopt(row.key, row.file()); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	first.Close()
	if _, err := dir.Lock(second.Key); !errors.Is(err, ErrBusy) {
		t.Errorf("while the second has it: %v", err)
	}
	second.Close()
	third, err := dir.Lock(second.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Remove(); err != nil {
		t.Error(err)
	}
}
