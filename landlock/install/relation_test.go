// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/landlock"
)

const nodeVariable = "PALISADE_LANDLOCK_NODE"

// The process of a node enters its domain on its first thread, and becomes itself again: then
// all its threads are in the domain.
func init() {
	if os.Getenv(nodeVariable) != "" || os.Getenv(oracleVariable) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(nodeVariable); raw != "" {
		if err := runNode(raw); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if raw := os.Getenv(oracleVariable); raw != "" {
		if err := runOracle(raw); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// node is one process of a family: what it enters, and who its parent is.
type node struct {
	Parent int // -1 for none
	Rules  *landlock.Ruleset
}

type nodeSpec struct {
	Family  []node
	Index   int
	Name    string // of the abstract sockets
	Dir     string // of the control sockets
	Entered bool
}

type target struct {
	Index, PID int
}

// probe is what a node got from trying one other: error numbers, 0 for none.
type probe struct {
	Stream, Datagram, Signal, Ptrace unix.Errno
}

func number(err error) unix.Errno {
	var e unix.Errno
	if err != nil && !errors.As(err, &e) {
		return unix.EIO
	}
	return e
}

func (s nodeSpec) address(index int, kind string) string {
	return fmt.Sprintf("@%s-%d-%s", s.Name, index, kind)
}

func runNode(raw string) error {
	var s nodeSpec
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return err
	}
	if !s.Entered {
		return s.enter()
	}
	stream, err := net.Listen("unix", s.address(s.Index, "stream"))
	if err != nil {
		return err
	}
	defer stream.Close()
	datagram, err := net.ListenPacket("unixgram", s.address(s.Index, "datagram"))
	if err != nil {
		return err
	}
	defer datagram.Close()
	control, err := net.Listen("unix", filepath.Join(s.Dir, strconv.Itoa(s.Index)))
	if err != nil {
		return err
	}
	defer control.Close()
	for i, n := range s.Family {
		if n.Parent == s.Index {
			c := s
			c.Index, c.Entered = i, false
			if _, err := c.start(os.Stdout); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%d %d\n", s.Index, os.Getpid())
	conn, err := control.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	var targets []target
	if err := json.NewDecoder(conn).Decode(&targets); err != nil {
		return err
	}
	out := make([]probe, len(targets))
	for i, t := range targets {
		out[i] = s.try(t)
	}
	if err := json.NewEncoder(conn).Encode(out); err != nil {
		return err
	}
	_, err = bufio.NewReader(conn).ReadByte() // until all have been asked
	_ = err                                   // the end of the connection
	return nil
}

// start begins the process of a node; it ends with the one that started it.
func (s nodeSpec) start(stdout *os.File) (*exec.Cmd, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{nodeVariable + "=" + string(raw)}
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd, cmd.Start()
}

func (s nodeSpec) enter() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if r := s.Family[s.Index].Rules; r != nil {
		k, err := New(*r, Refuse)
		if err != nil {
			return err
		}
		if err := k.Restrict(0); err != nil {
			return err
		}
	}
	s.Entered = true
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", []string{"node"}, []string{nodeVariable + "=" + string(raw)})
}

func (s nodeSpec) try(t target) (p probe) {
	if c, err := net.Dial("unix", s.address(t.Index, "stream")); err != nil {
		p.Stream = number(err)
	} else {
		c.Close()
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.Datagram = number(err)
	} else {
		p.Datagram = number(unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: s.address(t.Index, "datagram")}))
		unix.Close(fd)
	}
	p.Signal = number(unix.Kill(t.PID, 0))
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", t.PID)) // guarded as ptrace is
	p.Ptrace = number(err)
	return p
}

// TestKernelRelations lets the processes of random families, each in a domain of its own
// or in its parent's, try each other: abstract sockets, signals, and looking inside.
func TestKernelRelations(t *testing.T) {
	abi := needKernel(t)
	if landlock.ScopeAt(abi) == 0 {
		t.Skipf("ABI %d has no scopes", abi)
	}
	denied, total := 0, 0
	for seed := range uint64(scale(12)) {
		r := rand.New(rand.NewPCG(14, seed))
		family := make([]node, 2+r.IntN(5))
		for i := range family {
			family[i].Parent = r.IntN(i+1) - 1
			if i > 0 && r.IntN(3) > 0 {
				family[i].Parent = r.IntN(i)
			}
			if r.IntN(4) > 0 {
				rules := landlock.Ruleset{Scoped: landlock.Scope(subset(r, uint64(landlock.ScopeAt(abi))))}
				if rules.Scoped == 0 || r.IntN(3) == 0 {
					rules.HandledFS = landlock.MakeBlock
				}
				family[i].Rules = &rules
			}
		}
		d, n := tryFamily(t, family)
		denied, total = denied+d, total+n
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d requests, %d denied", total, denied)
	if denied == 0 || denied == total {
		t.Errorf("%d of %d denied: the test is blind", denied, total)
	}
}

func tryFamily(t *testing.T, family []node) (denied, total int) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	must(t, r.SetReadDeadline(await.End(t)))
	dir, err := os.MkdirTemp("", "ll") // short, for the socket's path
	must(t, err)
	defer os.RemoveAll(dir)
	spec := nodeSpec{Family: family, Name: filepath.Base(dir), Dir: dir}
	// Pdeathsig is about the thread that starts the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, n := range family {
		if n.Parent >= 0 {
			continue
		}
		spec.Index = i
		cmd, err := spec.start(w)
		must(t, err)
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
	}
	w.Close()
	pids := make([]int, len(family))
	lines := bufio.NewScanner(r)
	for range family {
		if !lines.Scan() {
			t.Fatalf("a process did not come up: %v", lines.Err())
		}
		var index, pid int
		if _, err := fmt.Sscan(lines.Text(), &index, &pid); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		pids[index] = pid
	}
	domains := make([]*landlock.Domain, len(family))
	for i, n := range family {
		if n.Parent >= 0 {
			domains[i] = domains[n.Parent]
		}
		if n.Rules != nil {
			domains[i], err = domains[i].Enter(*n.Rules)
			must(t, err)
		}
	}
	targets := make([]target, len(family))
	for i, pid := range pids {
		targets[i] = target{i, pid}
	}
	for i := range family {
		conn, err := net.Dial("unix", filepath.Join(dir, strconv.Itoa(i)))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(await.End(t)))
		must(t, json.NewEncoder(conn).Encode(targets))
		var got []probe
		must(t, json.NewDecoder(conn).Decode(&got))
		for j, p := range got {
			for _, c := range []struct {
				what string
				q    landlock.Request
				got  unix.Errno
			}{
				{"stream", landlock.UnixRequest{Server: domains[j]}, p.Stream},
				{"datagram", landlock.UnixRequest{Server: domains[j]}, p.Datagram},
				{"signal", landlock.SignalRequest{Target: domains[j], SameProcess: i == j}, p.Signal},
				{"ptrace", landlock.PtraceRequest{Target: domains[j]}, p.Ptrace},
			} {
				total++
				want := domains[i].Decide(c.q)
				if !want.Allowed {
					denied++
				}
				got := denial(c.got)
				if c.what == "ptrace" && got != "" {
					got = "EPERM" // procfs makes EACCES of it
				}
				if got != want.Errno || c.got != 0 && got == "" {
					t.Errorf("%s from %d to %d: kernel %v, evaluator %s\n%s", c.what, i, j, c.got, want.Reason(), show(family))
				}
			}
		}
	}
	return denied, total
}

func show(family []node) string {
	b, err := json.Marshal(family)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
