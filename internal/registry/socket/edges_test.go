// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socket

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/svirt"
)

// spy is an authority that notes what it is asked.
type spy struct {
	asked []string
	err   error
}

func (s *spy) note(format string, args ...any) error {
	s.asked = append(s.asked, fmt.Sprintf(format, args...))
	return s.err
}

func (s *spy) Reserve(c svirt.Claim) (svirt.Record, error) {
	return svirt.Record{ID: c.ID, Level: "s0:c1,c2", State: svirt.Reserved}, s.note("reserve %s %v", c.ID, c.Content)
}
func (s *spy) Bind(id string) error    { return s.note("bind %s", id) }
func (s *spy) Drain(id string) error   { return s.note("drain %s", id) }
func (s *spy) Release(id string) error { return s.note("release %s", id) }
func (s *spy) List() ([]svirt.Record, error) {
	return []svirt.Record{{ID: "a"}, {ID: "b"}}, s.note("list")
}

func (s *spy) Check(o []svirt.Observation) ([]svirt.Violation, error) {
	return []svirt.Violation{{Level: "s0:c1,c2", Holders: []string{"a"}, Message: "m"}}, s.note("check %v", o)
}

func (s *spy) Reconcile(o []svirt.Observation) (svirt.Report, error) {
	return svirt.Report{Adopted: []svirt.Record{{ID: "x"}}}, s.note("reconcile %v", o)
}
func (s *spy) Expire() (int, error) { return 7, s.note("expire") }

var claim = &svirt.Claim{ID: "web", Content: []string{"/x"}}

// TestRights: who may ask for what. Everything that changes a label needs the right.
func TestRights(t *testing.T) {
	for op, reads := range map[string]bool{
		"ping": true, "list": true, "check": true,
		"reserve": false, "bind": false, "drain": false, "release": false, "reconcile": false, "expire": false, "": false, "nosuch": false, "List": false,
	} {
		s := &spy{}
		ans := handle(request{Version: protocolVersion, Op: op, ID: "web", Claim: claim}, s, false)
		switch {
		case reads && ans.Error != "":
			t.Errorf("%q without the right: %+v", op, ans)
		case !reads && (ans.Kind != "denied" || ans.Error != ErrDenied.Error() || len(s.asked) > 0):
			t.Errorf("%q without the right: %+v, and it was asked %q", op, ans, s.asked)
		}
		for _, version := range []int{0, protocolVersion + 1, -1} {
			s := &spy{}
			if ans := handle(request{Version: version, Op: op, ID: "web", Claim: claim}, s, true); ans.Kind != "protocol" || len(s.asked) > 0 {
				t.Errorf("%q of version %d: %+v, and it was asked %q", op, version, ans, s.asked)
			}
		}
	}
	s := &spy{}
	for _, req := range []request{{Op: "reserve"}, {Op: "nosuch"}, {Op: ""}} {
		req.Version = protocolVersion
		if ans := handle(req, s, true); ans.Error == "" || ans.Kind != "" || len(s.asked) > 0 {
			t.Errorf("%+v: %+v, and it was asked %q", req, ans, s.asked)
		}
	}
}

// over serves an authority to a client.
func over(t *testing.T, a svirt.Authority) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, a) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dial(t, path)
}

// TestWire: every operation comes to the authority as it was asked, and its answer and
// its errors come back.
func TestWire(t *testing.T) {
	seen := []svirt.Observation{{Source: "docker", ID: "d", Level: "s0:c3,c4"}}
	ops := map[string]func(*Client) (any, error){
		"reserve web [/x]":                func(c *Client) (any, error) { return c.Reserve(*claim) },
		"bind a":                          func(c *Client) (any, error) { return nil, c.Bind("a") },
		"drain b":                         func(c *Client) (any, error) { return nil, c.Drain("b") },
		"release c":                       func(c *Client) (any, error) { return nil, c.Release("c") },
		"list":                            func(c *Client) (any, error) { return c.List() },
		"check [{docker d s0:c3,c4}]":     func(c *Client) (any, error) { return c.Check(seen) },
		"reconcile [{docker d s0:c3,c4}]": func(c *Client) (any, error) { return c.Reconcile(seen) },
		"expire":                          func(c *Client) (any, error) { return c.Expire() },
	}
	want := map[string]any{
		"reserve web [/x]":                svirt.Record{ID: "web", Level: "s0:c1,c2", State: svirt.Reserved},
		"list":                            []svirt.Record{{ID: "a"}, {ID: "b"}},
		"check [{docker d s0:c3,c4}]":     []svirt.Violation{{Level: "s0:c1,c2", Holders: []string{"a"}, Message: "m"}},
		"reconcile [{docker d s0:c3,c4}]": svirt.Report{Adopted: []svirt.Record{{ID: "x"}}},
		"expire":                          7,
	}
	for asked, op := range ops {
		s := &spy{}
		got, err := op(over(t, s))
		if err != nil || !reflect.DeepEqual(got, want[asked]) || !slices.Equal(s.asked, []string{asked}) {
			t.Errorf("%s: %+v, %v; asked %q", asked, got, err, s.asked)
		}
		for _, kind := range []error{svirt.ErrExhausted, svirt.ErrInUse, svirt.ErrNotHeld, svirt.ErrNotPrivate, svirt.ErrID, ErrDenied, ErrProtocol} {
			s := &spy{err: fmt.Errorf("with words: %w", kind)}
			got, err := op(over(t, s))
			if !errors.Is(err, kind) || err.Error() != s.err.Error() {
				t.Errorf("%s: %v comes back as %v", asked, s.err, err)
			}
			for _, other := range kinds {
				if other != kind && errors.Is(err, other) {
					t.Errorf("%s: %v comes back as %v too", asked, kind, other)
				}
			}
			if asked != "list" && asked != "check [{docker d s0:c3,c4}]" && got != nil && !reflect.ValueOf(got).IsZero() {
				t.Errorf("%s: with an error comes %+v", asked, got)
			}
		}
		s = &spy{err: errors.New("of no kind")}
		if _, err := op(over(t, s)); err == nil || err.Error() != "of no kind" || errors.Unwrap(err) != nil {
			t.Errorf("%s: %v", asked, err)
		}
	}
}

// answering is a daemon that says the same to everything, but for the first request.
func answering(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for _, line := range append([]string{"{}\n"}, lines...) {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					_, _ = io.WriteString(c, line)
				}
			}()
		}
	}()
	return path
}

// TestBadDaemon: what no daemon of ours would answer is an error, and the next request
// takes a connection of its own.
func TestBadDaemon(t *testing.T) {
	for name, line := range map[string]string{"nothing": "", "half a line": `{"count":`, "no JSON": "x\n", "a list": "[]\n", "a number": "{\"count\":\"x\"}\n"} {
		c := dial(t, answering(t, line))
		if n, err := c.Expire(); err == nil || n != 0 || !strings.HasPrefix(err.Error(), "ask the daemon at ") {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if name == "nothing" || name == "half a line" {
			if _, err := c.List(); !errors.Is(err, io.ErrUnexpectedEOF) && err != nil {
				t.Errorf("%s, then: %v", name, err)
			}
		}
		// The connection is another one: the first answer of it is {}.
		c = dial(t, answering(t, line))
		_, _ = c.Expire()
		if _, err := c.List(); err != nil {
			t.Errorf("%s, and on a new connection: %v", name, err)
		}
	}
	c := dial(t, answering(t, "{}\n", "{}\n"))
	if _, err := c.Reserve(*claim); !errors.Is(err, ErrProtocol) {
		t.Errorf("a label without a record: %v", err)
	}
	if rep, err := c.Reconcile(nil); err != nil || !reflect.DeepEqual(rep, svirt.Report{}) {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := c.List(); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	path := answering(t)
	if _, err := Dial(path); err != nil {
		t.Error(err)
	}
	refusing := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", refusing)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer l.Close()
	if c, err := Dial(refusing); err == nil || c != nil {
		t.Errorf("a daemon that hangs up at once: %v, %v", c, err)
	}
}

// TestReadLine: lines up to the limit, and not a byte more is kept.
func TestReadLine(t *testing.T) {
	const buffer, limit = 16, 64
	for n := range 200 {
		text := strings.Repeat("x", n)
		line, err := readLine(bufio.NewReaderSize(strings.NewReader(text+"\nnext\n"), buffer), limit)
		switch {
		case n+1 <= limit && (err != nil || string(line) != text+"\n"):
			t.Errorf("%d bytes: %q, %v", n, line, err)
		case n > limit+buffer && err == nil:
			t.Errorf("%d bytes are taken", n)
		case err != nil && !strings.Contains(err.Error(), "longer than 64 bytes"):
			t.Errorf("%d bytes: %v", n, err)
		}
		if line, err := readLine(bufio.NewReaderSize(strings.NewReader(text), buffer), limit); err == nil {
			t.Errorf("%d bytes without an end: %q", n, line)
		}
	}
	// What follows is the next line, and a line is not overwritten by it.
	r := bufio.NewReaderSize(strings.NewReader(strings.Repeat("a", 40)+"\n"+strings.Repeat("b", 40)+"\n"), buffer)
	a, err1 := readLine(r, limit)
	b, err2 := readLine(r, limit)
	if err1 != nil || err2 != nil || !bytes.Equal(a, append(bytes.Repeat([]byte("a"), 40), '\n')) || b[0] != 'b' {
		t.Errorf("%q %q %v %v", a, b, err1, err2)
	}
}

// failing is a listener that fails as the system does when it is out of files.
type failing struct {
	errs []error
	net.Listener
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

// TestAcceptFails: what passes is passed over, and the rest ends the daemon.
func TestAcceptFails(t *testing.T) {
	listen := func(t *testing.T) (net.Listener, string) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l, path
	}
	for _, passing := range []error{unix.EMFILE, unix.ENFILE, unix.ECONNABORTED} {
		l, path := listen(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- Serve(ctx, &failing{[]error{&net.OpError{Op: "accept", Err: passing}}, l}, &spy{}) }()
		if _, err := dial(t, path).List(); err != nil {
			t.Errorf("after %v: %v", passing, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("after %v: %v", passing, err)
		}
	}
	l, _ := listen(t)
	if err := Serve(context.Background(), &failing{[]error{unix.EINVAL}, l}, &spy{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

// slow answers a list when it may.
type slow struct {
	spy
	asked, may chan struct{}
}

func (s *slow) List() ([]svirt.Record, error) {
	close(s.asked)
	<-s.may
	return s.spy.List()
}

// TestEnd: at the end the request under way is answered, and no other is read.
func TestEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{asked: make(chan struct{}), may: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, s) }()
	busy, idle := dial(t, path), dial(t, path)
	list := make(chan error, 1)
	go func() {
		records, err := busy.List()
		if err == nil && len(records) != 2 {
			err = fmt.Errorf("%d records", len(records))
		}
		list <- err
	}()
	<-s.asked
	cancel()
	// Until Serve has seen the end it may answer.
	await.True(t, "the end of the idle connection", func() bool { return idle.Bind("x") != nil })
	if err := idle.Bind("x"); err == nil {
		t.Error("a request was answered after the end")
	}
	select {
	case err := <-done:
		t.Errorf("ended under a request: %v", err)
	default:
	}
	close(s.may)
	if err := <-list; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lateListener accepts a connection while the end comes.
type lateListener struct {
	net.Listener
	end    func()
	closed chan struct{}
	once   sync.Once
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.end()
		<-l.closed
	}
	return c, err
}

func (l *lateListener) Close() error {
	defer l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// TestEndWhileAccepting: a client that comes just before the end does not hold it up.
func TestEndWhileAccepting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, &lateListener{Listener: l, end: cancel, closed: make(chan struct{})}, &spy{})
	}()
	c, err := net.Dial("unix", path) // a Client would ask at once
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-await.Context(t).Done():
		t.Fatal("it waits for a client that asks nothing")
	}
}

const envOther = "PALISADE_TEST_OTHER"

// TestOtherUser: who is neither root nor the daemon's own user may look and change nothing.
func TestOtherUser(t *testing.T) {
	if path := os.Getenv(envOther); path != "" {
		c, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if list, err := c.List(); err != nil || len(list) != 2 {
			t.Errorf("list: %v, %v", list, err)
		}
		for name, err := range map[string]error{"bind": c.Bind("a"), "release": c.Release("a"), "expire": func() error { _, err := c.Expire(); return err }(), "reserve": func() error { _, err := c.Reserve(*claim); return err }()} {
			if !errors.Is(err, ErrDenied) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return
	}
	oracle.Root(t, "another user can be had by root alone")
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, s) }()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestOtherUser$", "-test.v")
	cmd.Env = []string{envOther + "=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestOtherUser") {
		t.Errorf("%v\n%s", err, out)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.asked, []string{"list"}) {
		t.Errorf("it was asked %q", s.asked)
	}
}

// TestNoSocket: on what is no unix socket nothing is known of who asks.
func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	go converse(a, &spy{})
	defer b.Close()
	r := bufio.NewReader(b)
	for op, want := range map[string]string{"list": "", "bind": ErrDenied.Error()} {
		if _, err := fmt.Fprintf(b, `{"v":1,"op":%q,"id":"x"}`+"\n", op); err != nil {
			t.Fatal(err)
		}
		line, err := r.ReadString('\n')
		var ans answer
		if err != nil || json.Unmarshal([]byte(line), &ans) != nil || ans.Error != want {
			t.Errorf("%s: %q, %v", op, line, err)
		}
	}
}

// TestListenTwice: permissions of the socket, and what cannot be taken over.
func TestListenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if _, err := Listen(path); err == nil || errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("while it answers: %v", err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "no", "folder")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
