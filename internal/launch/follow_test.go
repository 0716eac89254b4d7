// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/state"
)

// The test binary stands for the maker of a container, for its last step and for
// programs: what it does is in its arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "act" {
		os.Exit(act(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// act does what the words say, the last of which replaces or ends the process.
//
//	await           wait for a byte on the standard input
//	run PROGRAM     a child executes it with "act", which ends at once
//	inside WORDS    a child in a PID namespace of its own does the rest
//	exec PROGRAM    become it, with the rest of the words
//	mark FILE, forever
func act(words []string) int {
	const bad = 99
	self, err := os.Executable()
	if err != nil {
		return bad
	}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch word {
		case "await":
			if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
				return bad
			}
		case "run":
			if exec.Command(words[0], "act").Run() != nil {
				return bad
			}
			words = words[1:]
		case "inside":
			cmd := exec.Command(self, append([]string{"act"}, words[1:]...)...)
			cmd.Path = words[0]
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
			if cmd.Run() != nil {
				return bad
			}
			return 0
		case "exec":
			_ = unix.Exec(words[0], append([]string{words[0], "act"}, words[1:]...), os.Environ())
			return bad
		case "mark":
			if os.WriteFile(words[0], nil, 0o600) != nil {
				return bad
			}
			words = words[1:]
		case "forever":
			_ = unix.Pause() // until it is killed
		default:
			return bad
		}
	}
	return 0
}

// errLess stands for a mismatch of any kind.
var errLess = errors.New("less confined")

func TestFollow(t *testing.T) {
	oracle.Root(t, "PID namespaces need root")
	work := t.TempDir()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := func(name string) string {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, self, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	step, workload, foreign := program("step"), program("workload"), program("foreign")
	f, err := os.Open(step)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	handed, err := hold.Of(f)
	if err != nil {
		t.Fatal(err)
	}
	all := effective.Capabilities{Bounding: caps.All, Effective: caps.All, Permitted: caps.All, Inheritable: caps.All, Ambient: caps.All}
	errReady := errors.New("no")
	for name, row := range map[string]struct {
		words    []string // of the maker, behind await; MARK stands for a file
		asked    func(*effective.State)
		maker    func(*Maker)
		lenient  bool
		runs     bool
		want     error
		mentions string
	}{
		"good":                       {words: []string{"inside", step, "exec", workload, "mark", "MARK"}, runs: true},
		"the maker becomes another":  {words: []string{"exec", foreign, "inside", step, "exec", workload, "mark", "MARK"}, runs: true},
		"a program outside":          {words: []string{"run", foreign, "inside", step, "exec", workload, "mark", "MARK"}, runs: true},
		"another program first":      {words: []string{"inside", foreign, "mark", "MARK"}, want: hold.ErrForeign},
		"the workload first":         {words: []string{"inside", workload, "mark", "MARK"}, want: hold.ErrForeign},
		"another, then the step":     {words: []string{"inside", foreign, "exec", step, "exec", workload, "mark", "MARK"}, want: hold.ErrForeign},
		"no namespace of its own":    {words: []string{"run", workload}, want: ErrNotReached},
		"the maker ends":             {want: ErrNotReached},
		"the step ends":              {words: []string{"inside", step}, want: ErrNotReached},
		"less than asked":            {words: []string{"inside", step, "exec", workload, "mark", "MARK"}, asked: func(s *effective.State) { s.NoNewPrivileges = true }, want: errLess, mentions: "no_new_privileges"},
		"less than asked, and warn":  {words: []string{"inside", step, "exec", workload, "mark", "MARK"}, asked: func(s *effective.State) { s.NoNewPrivileges = true }, lenient: true, runs: true},
		"a namespace is missing":     {words: []string{"inside", step, "exec", workload, "mark", "MARK"}, asked: func(s *effective.State) { s.Namespaces = []string{"net"} }, want: errLess, mentions: "namespaces"},
		"no filter":                  {words: []string{"inside", step, "exec", workload, "mark", "MARK"}, asked: func(s *effective.State) { s.Seccomp = effective.Seccomp{Mode: effective.SeccompFilter, Filters: 1} }, want: errLess, mentions: "seccomp"},
		"it cannot be told to begin": {words: []string{"mark", "MARK"}, maker: func(m *Maker) { m.Ready = func() error { return errReady } }, want: errReady},
		"no such process":            {words: []string{"mark", "MARK"}, maker: func(m *Maker) { m.PID = 1 << 30 }, want: os.ErrNotExist},
		"out of time":                {words: []string{"inside", step, "forever"}, maker: func(m *Maker) { m.Timeout = 50 * time.Millisecond }, want: hold.ErrTimeout},
		"given up": {words: []string{"inside", step, "forever"}, maker: func(m *Maker) {
			c := make(chan struct{})
			close(c)
			m.Cancel = c
		}, want: hold.ErrCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := dir.Create(state.Record{ID: "one", Engine: "libvirt"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			asked := effective.State{Capabilities: all, Namespaces: []string{"pid"}}
			if row.asked != nil {
				row.asked(&asked)
			}
			c.Asked, c.Handed = &asked, handed
			mark := filepath.Join(t.TempDir(), "mark")
			words := []string{"act", "await"}
			for _, w := range row.words {
				words = append(words, strings.ReplaceAll(w, "MARK", mark))
			}
			maker := exec.Command("/proc/self/exe", words...)
			begin, err := maker.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := maker.Start(); err != nil {
				t.Fatal(err)
			}
			m := Maker{PID: maker.Process.Pid, Timeout: time.Minute, Ready: func() error {
				_, err := begin.Write([]byte{1})
				return err
			}}
			if row.maker != nil {
				row.maker(&m)
			}
			var warned []error
			h := &Host{Dir: dir, Lenient: row.lenient, Warn: func(err error) { warned = append(warned, err) }}
			pid, err := h.Follow(c, m)
			if errors.As(err, new(*effective.MismatchError)) {
				err = fmt.Errorf("%w: %w", errLess, err)
			}
			if !errors.Is(err, row.want) || (err != nil) != (row.want != nil) || err != nil && !strings.Contains(err.Error(), row.mentions) {
				t.Errorf("error %v, want %v with %q", err, row.want, row.mentions)
			}
			if (pid > 0) != row.runs || len(warned) > 0 != row.lenient {
				t.Errorf("process %d, warned %v", pid, warned)
			}
			begin.Close()
			_ = maker.Wait() // it may have been killed
			if _, err := os.Stat(mark); (err == nil) != row.runs {
				t.Errorf("the workload ran: %v", err == nil)
			}
			if saved, err := dir.Get(c.Key); err != nil || saved.VerifiedAt.IsZero() == row.runs || row.runs && saved.Init.PID != pid {
				t.Errorf("record %+v, %v", saved, err)
			}
		})
	}
}

// TestFollowUnplanned holds no container of which it is not known what to expect.
func TestFollowUnplanned(t *testing.T) {
	c := &state.Container{Record: state.Record{Key: "one", ID: "one"}}
	if _, err := (&Host{}).Follow(c, Maker{PID: os.Getpid()}); !errors.Is(err, state.ErrUnfinished) {
		t.Errorf("error %v", err)
	}
}
