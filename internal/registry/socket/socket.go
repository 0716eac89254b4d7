// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package socket lets one process per host give out the labels and all others
// ask it: [Serve] offers an [svirt.Authority] on a unix socket, and [Client] is
// one that asks there.
//
// A request is one JSON object on a line, and so is its answer. A connection
// carries any number of them, one after the other. Who asks is known from the
// kernel (SO_PEERCRED): root and the server's own user may change labels, others
// may read. The protocol is private to one version of Palisade: both ends are of
// one installation, and a difference is an error that says so.
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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/svirt"
)

// protocolVersion is that of the protocol.
const protocolVersion = 1

// maxLine bounds a request and an answer; a list of half a million labels is
// about 100 MiB.
const (
	maxRequest = 1 << 20
	maxAnswer  = 256 << 20
)

var (
	// ErrDenied says that the caller's user may not change labels.
	ErrDenied = errors.New("only root and the daemon's own user may change labels")
	// ErrProtocol says that the two ends do not speak the same version.
	ErrProtocol = errors.New("the daemon is of another version of palisade; restart it")
)

type request struct {
	Version  int                 `json:"v"`
	Op       string              `json:"op"`
	ID       string              `json:"id,omitempty"`
	Claim    *svirt.Claim        `json:"claim,omitempty"`
	Observed []svirt.Observation `json:"observed,omitempty"`
}

type answer struct {
	Error      string            `json:"error,omitempty"`
	Kind       string            `json:"kind,omitempty"` // names the error to test for
	Record     *svirt.Record     `json:"record,omitempty"`
	Records    []svirt.Record    `json:"records,omitempty"`
	Violations []svirt.Violation `json:"violations,omitempty"`
	Report     *svirt.Report     `json:"report,omitempty"`
	Count      int               `json:"count,omitempty"`
}

// kinds carries the errors that callers test for over the wire.
var kinds = map[string]error{
	"exhausted": svirt.ErrExhausted, "in-use": svirt.ErrInUse, "not-held": svirt.ErrNotHeld,
	"not-private": svirt.ErrNotPrivate, "id": svirt.ErrID, "denied": ErrDenied, "protocol": ErrProtocol,
}

type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// Listen opens the socket at path. A socket that no answer on any more is
// replaced; the folder decides who may do that, so it must not be writable for
// others.
func Listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, unix.EADDRINUSE) {
		if c, derr := net.DialTimeout("unix", path, time.Second); derr == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %s: another daemon answers there", path)
		}
		if fi, serr := os.Lstat(path); serr != nil || fi.Mode()&os.ModeSocket == 0 {
			return nil, err
		}
		if rerr := os.Remove(path); rerr != nil {
			return nil, rerr
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	// Everybody may ask; what they may do is decided by who they are.
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers on the listener until the context ends; then it waits for the
// requests under way.
func Serve(ctx context.Context, l net.Listener, a svirt.Authority) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			// No new request is read; the one under way is answered.
			_ = c.SetReadDeadline(time.Now())
		}
	})
	defer stop()
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return err
		}
		mu.Lock()
		open[c] = true
		if ctx.Err() != nil { // what ends the others may not have seen this one
			_ = c.SetReadDeadline(time.Now())
		}
		mu.Unlock()
		wg.Go(func() {
			defer func() {
				mu.Lock()
				delete(open, c)
				mu.Unlock()
				c.Close()
			}()
			converse(c, a)
		})
	}
}

func converse(c net.Conn, a svirt.Authority) {
	may := mayChange(c)
	r := bufio.NewReaderSize(c, 4096)
	w := bufio.NewWriterSize(c, 4096)
	for {
		line, err := readLine(r, maxRequest)
		if err != nil {
			return
		}
		var req request
		var ans answer
		if err := json.Unmarshal(line, &req); err != nil {
			ans = failure(fmt.Errorf("request: %w", err))
		} else {
			ans = handle(req, a, may)
		}
		b, err := json.Marshal(ans)
		if err != nil {
			return
		}
		_, _ = w.Write(append(b, '\n'))
		if w.Flush() != nil {
			return
		}
	}
}

func mayChange(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cerr != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid()
}

func handle(req request, a svirt.Authority, may bool) answer {
	if req.Version != protocolVersion {
		return failure(fmt.Errorf("protocol %d, not %d: %w", req.Version, protocolVersion, ErrProtocol))
	}
	if req.Op != "list" && req.Op != "check" && req.Op != "ping" && !may {
		return failure(ErrDenied)
	}
	var ans answer
	var err error
	switch req.Op {
	case "ping":
	case "reserve":
		if req.Claim == nil {
			return failure(errors.New("request: no claim"))
		}
		var rec svirt.Record
		rec, err = a.Reserve(*req.Claim)
		ans.Record = &rec
	case "bind":
		err = a.Bind(req.ID)
	case "drain":
		err = a.Drain(req.ID)
	case "release":
		err = a.Release(req.ID)
	case "list":
		ans.Records, err = a.List()
	case "check":
		ans.Violations, err = a.Check(req.Observed)
	case "reconcile":
		var rep svirt.Report
		rep, err = a.Reconcile(req.Observed)
		ans.Report = &rep
	case "expire":
		ans.Count, err = a.Expire()
	default:
		err = fmt.Errorf("request: unknown operation %q", req.Op)
	}
	if err != nil {
		return failure(err)
	}
	return ans
}

func failure(err error) answer {
	ans := answer{Error: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			ans.Kind = name
		}
	}
	return ans
}

// readLine reads up to a newline, and not more than limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	var long []byte
	for errors.Is(err, bufio.ErrBufferFull) {
		if long = append(long, line...); len(long) > limit {
			return nil, fmt.Errorf("line longer than %d bytes", limit)
		}
		line, err = r.ReadSlice('\n')
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(append(long, line...)), nil
}

// Client is an [svirt.Authority] that asks the daemon. It is safe for concurrent
// use; requests of one client go one after the other.
type Client struct {
	path string
	mu   sync.Mutex
	conn net.Conn
	r    *bufio.Reader
}

var _ svirt.Authority = (*Client)(nil)

// requestTimeout bounds one request, the wait for the others included.
const requestTimeout = time.Minute

// Dial connects to the daemon at path. The error is that of the system: ENOENT
// or ECONNREFUSED mean that there is no daemon.
func Dial(path string) (*Client, error) {
	c := &Client{path: path}
	if err := c.connect(); err != nil {
		return nil, err
	}
	if _, err := c.ask(request{Op: "ping"}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) connect() error {
	conn, err := net.DialTimeout("unix", c.path, 5*time.Second)
	if err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

func (c *Client) ask(req request) (answer, error) {
	req.Version = protocolVersion
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return answer{}, err
		}
	}
	ans, err := c.exchange(req)
	if err != nil {
		// What the daemon did with a request that was cut off is not known; all of
		// them can be asked again.
		c.conn.Close()
		c.conn = nil
		return answer{}, fmt.Errorf("ask the daemon at %s: %w", c.path, err)
	}
	if ans.Error != "" {
		return ans, &remoteError{ans.Error, kinds[ans.Kind]}
	}
	return ans, nil
}

func (c *Client) exchange(req request) (answer, error) {
	var ans answer
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return ans, err
	}
	b, err := json.Marshal(req)
	if err != nil {
		return ans, err
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return ans, err
	}
	line, err := readLine(c.r, maxAnswer)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return ans, err
	}
	return ans, json.Unmarshal(line, &ans)
}

// Reserve asks for a label.
func (c *Client) Reserve(claim svirt.Claim) (svirt.Record, error) {
	ans, err := c.ask(request{Op: "reserve", Claim: &claim})
	if err != nil {
		return svirt.Record{}, err
	}
	if ans.Record == nil {
		return svirt.Record{}, ErrProtocol
	}
	return *ans.Record, nil
}

// Bind says that a container with that label now runs.
func (c *Client) Bind(id string) error {
	_, err := c.ask(request{Op: "bind", ID: id})
	return err
}

// Drain says that the container is gone and content still carries its label.
func (c *Client) Drain(id string) error {
	_, err := c.ask(request{Op: "drain", ID: id})
	return err
}

// Release gives a label back.
func (c *Client) Release(id string) error {
	_, err := c.ask(request{Op: "release", ID: id})
	return err
}

// List returns all records.
func (c *Client) List() ([]svirt.Record, error) {
	ans, err := c.ask(request{Op: "list"})
	return ans.Records, err
}

// Check returns what is wrong.
func (c *Client) Check(observed []svirt.Observation) ([]svirt.Violation, error) {
	ans, err := c.ask(request{Op: "check", Observed: observed})
	return ans.Violations, err
}

// Reconcile brings the registry in line with what was observed.
func (c *Client) Reconcile(observed []svirt.Observation) (svirt.Report, error) {
	ans, err := c.ask(request{Op: "reconcile", Observed: observed})
	if err != nil || ans.Report == nil {
		return svirt.Report{}, err
	}
	return *ans.Report, nil
}

// Expire frees the labels whose quarantine is over.
func (c *Client) Expire() (int, error) {
	ans, err := c.ask(request{Op: "expire"})
	return ans.Count, err
}
