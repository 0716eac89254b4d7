// SPDX-License-Identifier: Apache-2.0

//go:build linux

package authority

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/registry/socket"
	"github.com/palisade-sec/palisade/svirt"
)

// TestDaemonComesAndGoes asks one authority while a daemon starts, answers and
// ends: nobody notices but by the time it takes.
func TestDaemonComesAndGoes(t *testing.T) {
	state := t.TempDir()
	a := Open(state)
	first, err := a.Reserve(svirt.Claim{ID: "first"})
	if err != nil {
		t.Fatal(err)
	}

	store, err := bolt.Own(Registry(state), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// The daemon has the file and does not answer yet: requests wait for it.
	late := make(chan error, 1)
	go func() {
		_, err := a.Reserve(svirt.Claim{ID: "late"})
		late <- err
	}()
	l, err := socket.Listen(filepath.Join(state, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	withdraw, err := Announce(state, filepath.Join(state, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- socket.Serve(ctx, l, &svirt.Registry{Store: store}) }()
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	if err := a.Bind("first"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Reserve(svirt.Claim{ID: "x", Level: first.Level}); !errors.Is(err, svirt.ErrInUse) {
		t.Errorf("through the daemon: %v", err)
	}

	stop()
	if err := errors.Join(<-done, store.Close()); err != nil {
		t.Fatal(err)
	}
	// A daemon that was killed leaves its address and its socket behind.
	list, err := a.List()
	if err != nil || len(list) != 2 || list[0].State != svirt.Bound {
		t.Errorf("after the daemon: %+v, %v", list, err)
	}
	if err := withdraw(); err != nil {
		t.Fatal(err)
	}
	if v, err := a.Check(nil); err != nil || len(v) != 0 {
		t.Errorf("check: %v, %v", v, err)
	}
	for _, err := range []error{a.Drain("late"), a.Release("late"), a.Release("first")} {
		if err != nil {
			t.Error(err)
		}
	}
	if rep, err := a.Reconcile(nil); err != nil || len(rep.Violations) != 0 {
		t.Errorf("reconcile: %+v, %v", rep, err)
	}
	if _, err := a.Expire(); err != nil {
		t.Error(err)
	}
}

func TestNoState(t *testing.T) {
	a := Open(filepath.Join(t.TempDir(), "none"))
	// The bubble's clock moves only while everything sleeps.
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if _, err := a.List(); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("err = %v", err)
		}
		if time.Now() != start {
			t.Error("a folder that is not there was waited for")
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file).Reserve(svirt.Claim{ID: "a"}); err == nil {
		t.Error("a file was taken for a state directory")
	}
}
