// SPDX-License-Identifier: Apache-2.0

//go:build linux

package authority

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/registry/socket"
	"github.com/palisade-sec/palisade/svirt"
)

// TestAgain: after which errors another authority is looked for. All else is an answer.
func TestAgain(t *testing.T) {
	for err, want := range map[error]bool{
		bolt.ErrLocked: true, os.ErrNotExist: true, fs.ErrNotExist: true, unix.ENOENT: true, unix.ECONNREFUSED: true, unix.ECONNRESET: true, unix.EPIPE: true, io.ErrUnexpectedEOF: true,
		unix.EACCES: false, io.EOF: false, svirt.ErrInUse: false, svirt.ErrExhausted: false, socket.ErrDenied: false, socket.ErrProtocol: false, errors.New("x"): false,
	} {
		if again(fmt.Errorf("with words: %w", err)) != want {
			t.Errorf("%v: again is %v", err, !want)
		}
	}
	for in, want := range map[string]string{"": "", "\n": "", "x": "x", "x\n": "x", "x\n\n": "x\n"} {
		if got := string(trimNewline([]byte(in))); got != want {
			t.Errorf("%q without its end: %q", in, got)
		}
	}
}

// every asks an authority for everything.
func every(a svirt.Authority) map[string]error {
	_, reserve := a.Reserve(svirt.Claim{ID: "x"})
	_, list := a.List()
	_, check := a.Check(nil)
	_, reconcile := a.Reconcile(nil)
	_, expire := a.Expire()
	return map[string]error{"reserve": reserve, "bind": a.Bind("x"), "drain": a.Drain("x"), "release": a.Release("x"), "list": list, "check": check, "reconcile": reconcile, "expire": expire}
}

// TestNoAnswer: the file is locked and no daemon says where it is. The search
// ends, in the time of the bubble, and no sooner than its patience.
func TestNoAnswer(t *testing.T) {
	state := t.TempDir()
	o, err := bolt.Own(Registry(state), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := Open(state).List()
		// The last try may begin a moment before the end, and waits for the lock.
		if took := time.Since(start); took < patience || took > patience+3*lockWait {
			t.Errorf("it was looked for in %v", took)
		}
		if !errors.Is(err, bolt.ErrLocked) || !strings.Contains(err.Error(), "label registry in "+state+": no answer") {
			t.Errorf("got %v", err)
		}
	})
}

// TestFile: without a daemon the file answers, whatever a daemon has left behind.
func TestFile(t *testing.T) {
	for name, address := range map[string]string{"none": "", "no newline": "/no/such/socket", "a dead one": "/no/such/socket\n"} {
		state := t.TempDir()
		if address != "" {
			if err := os.WriteFile(filepath.Join(state, addressName), []byte(address), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for op, err := range every(Open(state)) {
			if err != nil {
				t.Errorf("%s, %s: %v", name, op, err)
			}
		}
		if err := bolt.Open(Registry(state)).View(func(tx svirt.Tx) error {
			_, ok, err := tx.ByID("x")
			if ok {
				err = errors.Join(err, errors.New("it was given back"))
			}
			return err
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A socket without a listener.
	state := t.TempDir()
	path := filepath.Join(state, SocketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	withdraw, err := Announce(state, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(state).List(); err != nil {
		t.Errorf("a dead socket: %v", err)
	}
	if err := withdraw(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(state, addressName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the address is still there: %v", err)
	}
}

// TestUnreadable: an address that cannot be read is not one that is absent, and what a
// daemon answers is not asked of the file again.
func TestUnreadable(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, addressName), 0o700); err != nil {
		t.Fatal(err)
	}
	for op, err := range every(Open(state)) {
		if !errors.Is(err, unix.EISDIR) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := os.Stat(Registry(state)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file was made: %v", err)
	}
	if _, err := Announce(state, "x"); err == nil {
		t.Error("announced in a folder")
	}
	if _, err := Announce(filepath.Join(state, "none"), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("announced nowhere: %v", err)
	}

	state = t.TempDir()
	path := filepath.Join(state, SocketName)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				_, _ = io.WriteString(c, `{"error":"another version","kind":"protocol"}`+"\n")
			}
			c.Close()
		}
	}()
	if _, err := Announce(state, path); err != nil {
		t.Fatal(err)
	}
	for op, err := range every(Open(state)) {
		if !errors.Is(err, socket.ErrProtocol) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := os.Stat(Registry(state)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file was made: %v", err)
	}
}

// scripted is an authority that answers with values of its own.
type scripted struct{ svirt.Authority }

func (scripted) Reserve(c svirt.Claim) (svirt.Record, error) {
	return svirt.Record{ID: c.ID, Level: "s0:c1,c2"}, nil
}
func (scripted) Bind(id string) error          { return errors.New("bind " + id) }
func (scripted) Drain(id string) error         { return errors.New("drain " + id) }
func (scripted) Release(id string) error       { return errors.New("release " + id) }
func (scripted) List() ([]svirt.Record, error) { return []svirt.Record{{ID: "l"}}, nil }
func (scripted) Expire() (int, error)          { return 5, nil }
func (scripted) Check(o []svirt.Observation) ([]svirt.Violation, error) {
	return []svirt.Violation{{Message: o[0].ID}}, nil
}

func (scripted) Reconcile(o []svirt.Observation) (svirt.Report, error) {
	return svirt.Report{Adopted: []svirt.Record{{ID: o[0].ID}}}, nil
}

// TestPassedOn: what the daemon answers comes back, of each operation its own.
func TestPassedOn(t *testing.T) {
	state := t.TempDir()
	l, err := socket.Listen(filepath.Join(state, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- socket.Serve(ctx, l, scripted{}) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if _, err := Announce(state, filepath.Join(state, SocketName)); err != nil {
		t.Fatal(err)
	}
	a := Open(state)
	for _, op := range []struct {
		want string
		do   func(string) error
	}{{"bind a", a.Bind}, {"drain a", a.Drain}, {"release a", a.Release}} {
		if err := op.do("a"); err == nil || err.Error() != op.want {
			t.Errorf("%s: %v", op.want, err)
		}
	}
	seen := []svirt.Observation{{ID: "o"}}
	rec, err1 := a.Reserve(svirt.Claim{ID: "r"})
	list, err2 := a.List()
	n, err3 := a.Expire()
	v, err4 := a.Check(seen)
	rep, err5 := a.Reconcile(seen)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	if rec.ID != "r" || len(list) != 1 || list[0].ID != "l" || n != 5 || len(v) != 1 || v[0].Message != "o" || len(rep.Adopted) != 1 || rep.Adopted[0].ID != "o" {
		t.Errorf("%+v %+v %d %+v %+v", rec, list, n, v, rep)
	}
	if Registry("/s") != "/s/labels.db" {
		t.Error(Registry("/s"))
	}
}
