// SPDX-License-Identifier: Apache-2.0

package hold

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary stands for a runtime, for the last step and for workloads: what
// it does is in its arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "act" {
		act(os.Args[2:])
	}
	os.Exit(m.Run())
}

// act does what the words say, the last of which replaces the process.
//
//	fork WORDS -- WORDS   a child does the first, then this process goes on
//	exec PROGRAM ARGS     become it
//	exit N, mark FILE, wait FILE, say, stop, untraced
//	threads               threads begin and end from here on
func act(words []string) {
	bad := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	for len(words) > 0 {
		switch words[0] {
		case "fork":
			n := 1
			for n < len(words) && words[n] != "--" {
				n++
			}
			self, err := os.Executable()
			if err != nil {
				bad(err)
			}
			cmd := exec.Command(self, append([]string{"act"}, words[1:n]...)...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				bad(err)
			}
			words = words[min(n+1, len(words)):]
		case "exec":
			bad(unix.Exec(words[1], words[1:], os.Environ()))
		case "mark":
			if err := os.WriteFile(words[1], nil, 0o600); err != nil {
				bad(err)
			}
			words = words[2:]
		case "wait":
			for { // for a file that the test makes; the test has the deadline
				if _, err := os.Stat(words[1]); err == nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			words = words[2:]
		case "say":
			fmt.Println("here")
			words = words[1:]
		case "stop":
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			words = words[1:]
		case "untraced":
			b, err := os.ReadFile("/proc/self/status")
			if err != nil || !strings.Contains(string(b), "TracerPid:\t0\n") {
				bad(fmt.Errorf("traced: %w", err))
			}
			words = words[1:]
		case "threads":
			for range 4 {
				go func() {
					for {
						ended := make(chan struct{})
						go func() {
							runtime.LockOSThread() // the thread ends with it
							close(ended)
						}()
						<-ended
					}
				}()
			}
			words = words[1:]
		case "exit":
			n, _ := strconv.Atoi(words[1])
			os.Exit(n)
		default:
			bad(fmt.Errorf("word %q", words[0]))
		}
	}
	os.Exit(0)
}

// programs are copies of this binary, so that each has an identity of its own.
type programs struct{ dir, runtime, step, workload, foreign string }

func copies(t *testing.T) programs {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	p := programs{dir: t.TempDir()}
	for name, path := range map[string]*string{"runtime": &p.runtime, "step": &p.step, "workload": &p.workload, "foreign": &p.foreign} {
		*path = filepath.Join(p.dir, name)
		if err := os.WriteFile(*path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p programs) mark(name string) string { return filepath.Join(p.dir, "mark-"+name) }

func (p programs) identity(t *testing.T, path string) Identity {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := Of(f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// inside takes everything but the runtime's own program for the container's.
func (p programs) inside(t *testing.T) func(int) bool {
	rt := p.identity(t, p.runtime)
	return func(pid int) bool {
		exe, err := exeOf(pid)
		return err != nil || exe != rt
	}
}

func stdio() *os.ProcAttr { return &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}} }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const testTimeout = time.Minute

func TestFollow(t *testing.T) {
	p := copies(t)
	step := p.identity(t, p.step)
	workload := []string{"exec", p.workload, "act", "mark", p.mark("workload")}
	stepThen := append([]string{"exec", p.step, "act"}, workload...)
	for _, test := range []struct {
		name   string
		words  []string
		hooks  bool
		noStep bool
		want   error
		held   bool
		step   int // its exit code when it ended
		code   int
	}{
		{name: "step then workload", words: stepThen, held: true},
		{name: "in a child", words: append([]string{"fork"}, stepThen...), held: true},
		{name: "in a grandchild", words: append([]string{"fork", "fork"}, stepThen...), held: true},
		{name: "the runtime executes itself first", words: append([]string{"exec", p.runtime, "act"}, stepThen...), held: true},
		{name: "foreign first", words: []string{"exec", p.foreign, "act", "mark", p.mark("foreign")}, want: ErrForeign},
		{name: "foreign in a child", words: []string{"fork", "exec", p.foreign, "act", "mark", p.mark("foreign")}, want: ErrForeign},
		{name: "foreign, then the step", words: append([]string{"exec", p.foreign, "act", "mark", p.mark("foreign")}, stepThen...), want: ErrForeign},
		{name: "the workload in the place of the step", words: workload, want: ErrForeign},
		{name: "the step fails", words: []string{"exec", p.step, "act", "exit", "127"}, step: 127, code: 127},
		{name: "the runtime fails", words: []string{"exit", "3"}, step: -1, code: 3},
		{name: "nothing is started", words: []string{"mark", p.mark("runtime")}, step: -1},
		{name: "stopped on its way", words: append([]string{"fork", "mark", p.mark("x"), "--"}, stepThen...), held: true},
		{name: "without a step", words: workload, noStep: true, held: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range []string{"workload", "foreign"} {
				os.Remove(p.mark(m))
			}
			e := Expect{Step: step, Inside: p.inside(t), Hooks: test.hooks, Timeout: testTimeout}
			if test.noStep {
				e.Step = Identity{}
			}
			h := New(e)
			defer h.Close()
			if err := h.Start(p.runtime, append([]string{p.runtime, "act"}, test.words...), stdio(), true); err != nil {
				t.Fatal(err)
			}
			res, err := h.Wait()
			if !errors.Is(err, test.want) || (err != nil) != (test.want != nil) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if exists(p.mark("workload")) || exists(p.mark("foreign")) {
				t.Error("something ran before it was let go")
			}
			if err != nil {
				return
			}
			if got := res.PID > 0; got != test.held {
				t.Fatalf("held %v, want %v: %+v", got, test.held, res)
			}
			if !test.held {
				if res.StepEnded != (test.step >= 0) || res.StepEnded && res.StepStatus.ExitStatus() != test.step {
					t.Errorf("step ended %v with %v, want %d", res.StepEnded, res.StepStatus.ExitStatus(), test.step)
				}
				h.Abandon(false)
			} else if exe, err := os.Readlink(proc(res.PID, "exe")); err != nil || exe != p.workload {
				t.Errorf("held is %s, %v", exe, err)
			} else {
				h.Release()
			}
			ws, err := h.Ended()
			if err != nil || ws.ExitStatus() != test.code {
				t.Errorf("ended with %v, %v, want %d", ws.ExitStatus(), err, test.code)
			}
			if exists(p.mark("workload")) != test.held {
				t.Errorf("the workload ran: %v", !test.held)
			}
		})
	}
}

// TestHooks lets children of the container's first process execute programs where
// hooks are expected, and there alone.
func TestHooks(t *testing.T) {
	p := copies(t)
	for _, hooks := range []bool{false, true} {
		// The first process is inside when it forks: it has another program then.
		inner := filepath.Join(p.dir, "inner")
		b, err := os.ReadFile(p.step)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(inner, b, 0o755); err != nil {
			t.Fatal(err)
		}
		inside := false
		innerID := p.identity(t, inner)
		in := func(pid int) bool {
			exe, err := exeOf(pid)
			if err == nil && exe == innerID && !inside {
				inside = true // from its exec on; the exec itself is the runtime's
				return false
			}
			return inside
		}
		h := New(Expect{Step: p.identity(t, p.step), Inside: in, Hooks: hooks, Timeout: testTimeout})
		words := []string{"exec", inner, "act"}
		// A child may be seen to execute before its parent is seen to have made it.
		const many = 20
		for range many {
			words = append(words, "fork", "exec", p.foreign, "act", "mark", p.mark("hook"), "--")
		}
		words = append(words, "exec", p.step, "act", "exec", p.workload, "act")
		if err := h.Start(p.runtime, append([]string{p.runtime, "act"}, words...), stdio(), true); err != nil {
			t.Fatal(err)
		}
		res, err := h.Wait()
		if hooks && (err != nil || res.PID == 0 || !exists(p.mark("hook"))) {
			t.Errorf("with hooks: %+v, %v", res, err)
		}
		if !hooks && (!errors.Is(err, ErrForeign) || exists(p.mark("hook"))) {
			t.Errorf("without hooks: %+v, %v", res, err)
		}
		h.Release()
		if _, err := h.Ended(); err != nil {
			t.Error(err)
		}
		h.Close()
		os.Remove(p.mark("hook"))
	}
}

// TestApart lets go a process that a traced one makes for itself, and holds all else.
func TestApart(t *testing.T) {
	p := copies(t)
	for _, apart := range []bool{false, true} {
		e := Expect{Step: p.identity(t, p.step), Inside: p.inside(t), Timeout: testTimeout}
		if apart {
			e.Apart = func(pid, maker int) bool {
				b, err := os.ReadFile(proc(pid, "status"))
				// A thread of the maker is none.
				return err == nil && strings.Contains(string(b), fmt.Sprintf("\nTgid:\t%d\n", pid))
			}
		}
		h := New(e)
		words := []string{"fork", "untraced", "mark", p.mark("apart"), "--", "exec", p.step, "act", "exec", p.workload, "act"}
		if err := h.Start(p.runtime, append([]string{p.runtime, "act"}, words...), stdio(), true); err != nil {
			t.Fatal(err)
		}
		res, err := h.Wait()
		if apart && (err != nil || res.PID == 0 || !exists(p.mark("apart"))) {
			t.Errorf("apart: %+v, %v", res, err)
		}
		if !apart && (err != nil || res.PID != 0 || exists(p.mark("apart"))) {
			t.Errorf("not apart: %+v, %v", res, err)
		}
		h.Release()
		if _, err := h.Ended(); err != nil {
			t.Error(err)
		}
		h.Close()
	}
}

// TestSeize holds a process that is there already, while another program makes it
// go on.
func TestSeize(t *testing.T) {
	p := copies(t)
	for _, test := range []struct {
		name  string
		first string
		want  error
	}{
		{"step", p.step, nil},
		{"foreign", p.foreign, ErrForeign},
	} {
		t.Run(test.name, func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate")
			os.Remove(p.mark("workload"))
			init := exec.Command(p.runtime, "act", "say", "wait", gate, "exec", test.first, "act", "exec", p.workload, "act", "mark", p.mark("workload"))
			said, err := init.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := init.Start(); err != nil {
				t.Fatal(err)
			}
			// Its own exec is over when it says something.
			if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
				t.Fatal(line, err)
			}
			h := New(Expect{Step: p.identity(t, p.step), Timeout: testTimeout})
			defer h.Close()
			if err := h.Seize(init.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if err := h.Start(p.runtime, []string{p.runtime, "act", "mark", gate}, stdio(), false); err != nil {
				t.Fatal(err)
			}
			res, err := h.Wait()
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if exists(p.mark("workload")) {
				t.Error("the workload ran before it was let go")
			}
			if err != nil {
				return
			}
			if res.PID != init.Process.Pid {
				t.Errorf("held %d, want %d", res.PID, init.Process.Pid)
			}
			h.Release()
			if ws, err := h.Ended(); err != nil || ws.ExitStatus() != 0 {
				t.Errorf("%v, %v", ws, err)
			}
			if err := init.Wait(); err != nil || !exists(p.mark("workload")) {
				t.Errorf("the workload did not run on: %v", err)
			}
		})
	}
}

// TestSeizeTree holds a process with several threads that is about to become the
// runtime, and what it starts.
func TestSeizeTree(t *testing.T) {
	p := copies(t)
	step := p.identity(t, p.step)
	workload := []string{"exec", p.workload, "act", "mark", p.mark("workload")}
	stepThen := append([]string{"exec", p.step, "act"}, workload...)
	for _, test := range []struct {
		name  string
		words []string // from when it is let go on
		want  error
		held  bool
	}{
		{name: "step then workload", words: append([]string{"exec", p.runtime, "act"}, stepThen...), held: true},
		{name: "in a child of what it becomes", words: append([]string{"exec", p.runtime, "act", "fork"}, stepThen...), held: true},
		{name: "in a child", words: append([]string{"fork"}, stepThen...), held: true},
		{name: "foreign", words: []string{"exec", p.runtime, "act", "fork", "exec", p.foreign, "act", "mark", p.mark("foreign")}, want: ErrForeign},
		{name: "foreign itself", words: []string{"exec", p.foreign, "act", "mark", p.mark("foreign")}, want: ErrForeign},
		{name: "foreign, then the step", words: append([]string{"exec", p.runtime, "act", "fork", "exec", p.foreign, "act", "--"}, stepThen...), want: ErrForeign},
		{name: "it ends", words: []string{"exit", "0"}},
		{name: "it fails", words: []string{"exit", "3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range []string{"workload", "foreign"} {
				os.Remove(p.mark(m))
			}
			gate := filepath.Join(t.TempDir(), "gate")
			maker := exec.Command(p.runtime, append([]string{"act", "say", "wait", gate}, test.words...)...)
			said, err := maker.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := maker.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
				t.Fatal(line, err)
			}
			h := New(Expect{Step: step, Inside: p.inside(t), Timeout: testTimeout})
			defer h.Close()
			if err := h.SeizeTree(maker.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			res, err := h.Wait()
			if !errors.Is(err, test.want) || (err != nil) != (test.want != nil) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if exists(p.mark("workload")) || exists(p.mark("foreign")) {
				t.Error("something ran before it was let go")
			}
			if got := res.PID > 0; got != test.held {
				t.Fatalf("held %v, want %v: %+v", got, test.held, res)
			}
			h.Release()
			_ = maker.Wait() // it may have been killed
			if err == nil && exists(p.mark("workload")) != test.held {
				t.Errorf("the workload ran: %v", !test.held)
			}
		})
	}
}

// TestSeizeThreads seizes processes whose threads begin and end meanwhile: one that a
// seized thread has started is traced already, and one that has ended cannot be.
func TestSeizeThreads(t *testing.T) {
	p := copies(t)
	for range 50 {
		maker := exec.Command(p.runtime, "act", "threads", "say", "wait", filepath.Join(p.dir, "never"))
		said, err := maker.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := maker.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
			t.Fatal(line, err)
		}
		h := New(Expect{Step: p.identity(t, p.step), Timeout: testTimeout})
		err = h.SeizeTree(maker.Process.Pid)
		h.Kill()
		h.Close()
		_ = maker.Wait() // it was killed
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCancel gives a start up that never comes to its workload.
func TestCancel(t *testing.T) {
	p := copies(t)
	cancel := make(chan struct{})
	h := New(Expect{Step: p.identity(t, p.step), Inside: p.inside(t), Cancel: cancel})
	defer h.Close()
	if err := h.Start(p.runtime, []string{p.runtime, "act", "fork", "wait", filepath.Join(p.dir, "never")}, stdio(), true); err != nil {
		t.Fatal(err)
	}
	close(cancel)
	if _, err := h.Wait(); !errors.Is(err, ErrCancelled) {
		t.Fatalf("error %v", err)
	}
	if ws, err := h.Ended(); err != nil || !ws.Signaled() {
		t.Errorf("%v, %v", ws, err)
	}
}

// TestCancelledLate lets a container alone that has been let go.
func TestCancelledLate(t *testing.T) {
	p := copies(t)
	cancel := make(chan struct{})
	h := New(Expect{Step: p.identity(t, p.step), Inside: p.inside(t), Cancel: cancel})
	defer h.Close()
	words := []string{"exec", p.step, "act", "exec", p.workload, "act", "mark", p.mark("workload")}
	if err := h.Start(p.runtime, append([]string{p.runtime, "act"}, words...), stdio(), true); err != nil {
		t.Fatal(err)
	}
	if res, err := h.Wait(); err != nil || res.PID == 0 {
		t.Fatal(res, err)
	}
	close(cancel)
	h.Release()
	if ws, err := h.Ended(); err != nil || ws.ExitStatus() != 0 || !exists(p.mark("workload")) {
		t.Errorf("%v, %v", ws, err)
	}
}

// TestTimeout kills what does not execute a workload.
func TestTimeout(t *testing.T) {
	p := copies(t)
	h := New(Expect{Step: p.identity(t, p.step), Inside: p.inside(t), Timeout: 50 * time.Millisecond})
	defer h.Close()
	never := filepath.Join(p.dir, "never")
	if err := h.Start(p.runtime, []string{p.runtime, "act", "fork", "wait", never}, stdio(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(); !errors.Is(err, ErrTimeout) {
		t.Fatalf("error %v", err)
	}
	if ws, err := h.Ended(); err != nil || !ws.Signaled() {
		t.Errorf("%v, %v", ws, err)
	}
}

// TestKilledTracer wants what is held to end with the process that holds it.
func TestKilledTracer(t *testing.T) {
	if dir := os.Getenv("HOLD_TEST_DIR"); dir != "" {
		p := programs{dir: dir, runtime: filepath.Join(dir, "runtime"), step: filepath.Join(dir, "step"), workload: filepath.Join(dir, "workload")}
		h := New(Expect{Step: p.identity(t, p.step), Inside: p.inside(t), Timeout: testTimeout})
		if err := h.Start(p.runtime, []string{p.runtime, "act", "fork", "exec", p.step, "act", "exec", p.workload, "act", "mark", p.mark("workload")}, stdio(), true); err != nil {
			t.Fatal(err)
		}
		res, err := h.Wait()
		if err != nil || res.PID == 0 {
			t.Fatal(res, err)
		}
		fmt.Printf("held %d\n", res.PID)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	p := copies(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestKilledTracer$")
	cmd.Env = append(os.Environ(), "HOLD_TEST_DIR="+p.dir)
	out, _ := cmd.Output() // it is killed
	_, rest, found := strings.Cut(string(out), "held ")
	if !found {
		t.Fatalf("it held nothing: %s", out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(rest))
	if err != nil {
		t.Fatal(err)
	}
	// The output is closed by the last process that has it, the held one included.
	if err := unix.Kill(pid, 0); err == nil {
		if b, rerr := os.ReadFile(proc(pid, "exe")); rerr == nil && len(b) > 0 {
			t.Errorf("process %d is still there", pid)
		}
	}
	if exists(p.mark("workload")) {
		t.Error("the workload ran")
	}
}

func BenchmarkFollow(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(self)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	id, err := Of(f)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		h := New(Expect{Step: id, Timeout: testTimeout})
		if err := h.Start(self, []string{self, "act", "fork", "exec", self, "act"}, stdio(), true); err != nil {
			b.Fatal(err)
		}
		if _, err := h.Wait(); err != nil {
			b.Fatal(err)
		}
		h.Release()
		if _, err := h.Ended(); err != nil {
			b.Fatal(err)
		}
		h.Close()
	}
}
