// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
	for _, name := range []string{"web", "w"} {
		if r, err := d.Get(name); err != nil || r.Level != "s0:c1,c2" {
			t.Errorf("get %q: %+v, %v", name, r, err)
		}
	}
	if _, err := d.Get("x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of none: %v", err)
	}
	other, err := d.Create(Record{ID: "web2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get("we"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of a beginning that fits two: %v", err)
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

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "web-1": true, "A_b.c+d": true, "_x": true, strings.Repeat("a", 128): true,
		"": false, ".": false, "..": false, ".new-1": false, "-a": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("a", 129): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
	d := open(t)
	if _, err := d.Create(Record{ID: "../x"}); !errors.Is(err, ErrName) {
		t.Errorf("got %v", err)
	}
	if _, err := d.Get("../containers"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
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
		swept = append(swept, c.ID)
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

// TestAbsent: an ID that nobody has stays free until the function returns.
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
