// SPDX-License-Identifier: Apache-2.0

// Package hold stops a container's process between its last step and the first
// instruction of its workload, so that the kernel can be asked what is in force
// before anything of the container has run.
//
// The process is traced. It stops when it executes a program: the first program
// inside the container must be the last step that was handed over, compared by
// identity, and the next one is the workload. Everything else that is executed
// inside is killed before its first instruction. When the tracer is killed the
// kernel kills what it traces.
//
// Source: ptrace(2), PTRACE_SEIZE, PTRACE_O_TRACEEXEC, PTRACE_O_EXITKILL.
package hold

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrForeign says that another program than the last step was executed first.
	ErrForeign = errors.New("another program than the last step was executed first")
	// errExchanged says that the last step was given another configuration.
	errExchanged = errors.New("the last step was given another configuration than the one that was handed over")
	// ErrTimeout says that the workload was not executed in time.
	ErrTimeout = errors.New("the workload was not executed in time")
	// ErrCancelled says that [Expect.Cancel] was closed first.
	ErrCancelled = errors.New("the start was given up")
)

// Identity names an open file: the device and inode that stat(2) returns.
type Identity struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// IsZero reports whether i names nothing.
func (i Identity) IsZero() bool { return i == Identity{} }

// Of returns the identity of an open file.
func Of(f *os.File) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Identity{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return Identity{st.Dev, st.Ino}, nil
}

// Expect says what may be executed inside the container before the workload.
type Expect struct {
	// Step is the last step; zero when there is none, and the first program is
	// the workload.
	Step Identity
	// Config is the configuration of the last step, which it finds behind its own
	// descriptor; zero for one that is not compared.
	Config Identity
	// Inside reports whether a process is inside the container. Only followed
	// processes are asked about; nil means that every program counts.
	Inside func(pid int) bool
	// Early reports whether a process is in the container's namespaces before its root
	// is there. What is executed there are programs of the host, hooks, and so is all
	// that they start. Nil means that nothing is.
	Early func(pid int) bool
	// Apart reports whether a process that a traced one has just made is none of the
	// container's, and is traced by its maker. It is let go before it has run; nil for
	// none.
	Apart func(pid, maker int) bool
	// Hooks allows programs that children of the container's first process
	// execute inside the container: its startContainer hooks.
	Hooks bool
	// Timeout bounds the time until the workload is executed.
	Timeout time.Duration
	// Cancel ends the wait for the workload when it is closed; nil for never.
	Cancel <-chan struct{}
}

// Result is how a hold ended.
type Result struct {
	// PID is the held process, or 0.
	PID int
	// Exited tells whether the program that was started has ended, Status how.
	Exited bool
	Status unix.WaitStatus
	// StepStatus is how the last step ended when it did not execute the workload.
	StepEnded  bool
	StepStatus unix.WaitStatus
}

// Hold is a set of traced processes and the thread that traces them. All methods
// must be called by the goroutine that called New, which stays locked to its
// thread until Close.
type Hold struct {
	expect Expect
	root   int // the program that was started, or 0
	exited bool
	on     bool // wait for the workload whatever became of the program
	status unix.WaitStatus
	// tracees maps each traced thread to what is known about it. The lock is for
	// the alarm, which kills from another thread.
	mu      sync.Mutex
	tracees map[int]*tracee
	expired error // why the alarm has gone off
	over    bool  // it must not go off any more
}

type tracee struct {
	parent  int  // the traced process that made it, 0 for none
	known   bool // who made it, or it was there before
	waits   bool // stopped until that is known
	begun   bool // it runs since
	stopped bool // for us
	step    bool // it has executed the last step
	hook    bool // it is a hook that runs before the root is there, or of one
}

// New locks the goroutine to its thread and prepares to hold.
func New(e Expect) *Hold {
	runtime.LockOSThread()
	return &Hold{expect: e, tracees: map[int]*tracee{}}
}

const (
	exitKill    = 1 << 20 // PTRACE_O_EXITKILL
	eventStop   = 128     // PTRACE_EVENT_STOP
	followFlags = unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE
	baseFlags   = unix.PTRACE_O_TRACEEXEC | exitKill
)

// Seize begins to trace a process that is there already, with all its threads. What
// it starts is not traced.
func (h *Hold) Seize(pid int) error { return h.seizeThreads(pid, unix.PTRACE_O_TRACECLONE) }

// SeizeTree is Seize of a process that is to become or to start the container's
// runtime: it and all that it starts from here on is traced, and [Expect.Inside] is
// asked about what they execute.
func (h *Hold) SeizeTree(pid int) error { return h.seizeThreads(pid, followFlags) }

func (h *Hold) seizeThreads(pid int, flags uintptr) error {
	// A thread can start another one while its siblings are being listed.
	for {
		entries, err := os.ReadDir(proc(pid, "task"))
		if err != nil {
			return fmt.Errorf("trace process %d: %w", pid, err)
		}
		more := false
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || h.tracees[tid] != nil {
				continue
			}
			switch err := h.seize(tid, flags); {
			case err == nil:
				more = true
			case tid == pid || !errors.Is(err, unix.ESRCH) && !(errors.Is(err, unix.EPERM) && ours(pid, tid)):
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// ours reports whether a thread that cannot be seized need not be: this thread traces
// it already, since one that was seized has started it, or it has ended.
func ours(pid, tid int) bool {
	b, err := os.ReadFile(proc(pid, filepath.Join("task", strconv.Itoa(tid), "status")))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	for l := range strings.Lines(string(b)) {
		switch f := strings.Fields(l); {
		case len(f) < 2:
		case f[0] == "TracerPid:" && f[1] == strconv.Itoa(unix.Gettid()), f[0] == "State:" && (f[1] == "Z" || f[1] == "X"):
			return true
		}
	}
	return false
}

func (h *Hold) seize(tid int, flags uintptr) error {
	if err := ptrace(unix.PTRACE_SEIZE, tid, 0, baseFlags|flags); err != nil {
		return fmt.Errorf("trace process %d: %w", tid, err)
	}
	h.add(tid).known = true
	return nil
}

func (h *Hold) add(pid int) *tracee {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tracees[pid]
	if t == nil {
		t = &tracee{}
		h.tracees[pid] = t
		if h.expired != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return t
}

func (h *Hold) remove(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tracees, pid)
}

// Start runs a program as a child of this thread. With follow it and all that it
// starts is traced from its first instruction on.
func (h *Hold) Start(path string, argv []string, attr *os.ProcAttr, follow bool) error {
	sys := unix.SysProcAttr{}
	if attr.Sys != nil {
		sys = *attr.Sys
	}
	sys.Ptrace = follow
	a := *attr
	a.Sys = &sys
	p, err := os.StartProcess(path, argv, &a)
	if err != nil {
		return err
	}
	h.root = p.Pid
	_ = p.Release() // this thread waits for it
	if !follow {
		return nil
	}
	// It is stopped after its exec. It was attached in the old way, in which a
	// group stop cannot be told from a signal: attach it anew while it is stopped.
	var ws unix.WaitStatus
	if _, err := wait4(h.root, &ws, unix.WALL); err != nil {
		return fmt.Errorf("trace %s: %w", path, err)
	}
	if !ws.Stopped() {
		h.exited, h.status = true, ws
		return nil
	}
	err = ptrace(unix.PTRACE_DETACH, h.root, 0, uintptr(unix.SIGSTOP))
	if err == nil {
		err = h.seize(h.root, followFlags)
	}
	if err == nil {
		err = unix.Kill(h.root, unix.SIGCONT)
	}
	if err != nil {
		_ = unix.Kill(h.root, unix.SIGKILL)
		_, _ = wait4(h.root, &ws, unix.WALL)
		return fmt.Errorf("trace %s: %w", path, err)
	}
	return nil
}

// PID is the process ID of the program that Start has started.
func (h *Hold) PID() int { return h.root }

// Wait lets everything run until the workload has been executed and is stopped
// before its first instruction. Result.PID is 0 when it ends before: the started
// program has failed, or all that was traced has ended. With an error all that is
// traced has been killed; it wraps [ErrForeign], [ErrTimeout] or [ErrCancelled].
func (h *Hold) Wait() (Result, error) {
	h.over = false
	if h.expect.Timeout > 0 || h.expect.Cancel != nil {
		done := make(chan struct{})
		defer close(done)
		go h.alarm(done)
	}
	var held int
	res := Result{}
	for held == 0 {
		if h.exited && (h.code() != 0 && !h.on || len(h.tracees) == 0) {
			break // it failed, or nothing is left that could execute the workload
		}
		var ws unix.WaitStatus
		pid, err := wait4(-1, &ws, unix.WALL|unix.WNOTHREAD)
		if err == unix.ECHILD {
			break
		} else if err != nil {
			h.Kill()
			return res, os.NewSyscallError("wait4", err)
		}
		if ws.Exited() || ws.Signaled() {
			h.ended(pid, ws)
			if t := h.tracees[pid]; t != nil && t.step {
				res.StepEnded, res.StepStatus = true, ws
			}
			h.remove(pid)
			if err := h.goOnOrphans(); err != nil {
				h.Kill()
				return res, err
			}
			continue
		}
		here, err := h.event(pid, ws)
		if err != nil {
			h.Kill()
			return res, err
		}
		if here {
			held = pid
		}
	}
	h.mu.Lock()
	expired := h.expired
	h.over = true
	h.mu.Unlock()
	if expired != nil {
		h.Kill()
		return res, expired
	}
	res.PID, res.Exited, res.Status = held, h.exited, h.status
	return res, nil
}

// ended notes the end of the started program.
func (h *Hold) ended(pid int, ws unix.WaitStatus) {
	if pid == h.root {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.exited, h.status = true, ws
	}
}

// WaitOn is Wait after the started program has failed: the workload may have been
// started all the same.
func (h *Hold) WaitOn() (Result, error) {
	h.on = true
	return h.Wait()
}

// Left are the traced threads.
func (h *Hold) Left() []int { return slices.Sorted(maps.Keys(h.tracees)) }

func (h *Hold) code() int {
	if h.status.Exited() {
		return h.status.ExitStatus()
	}
	return -1
}

// alarm ends everything when the time is over or the start is cancelled: a wait has
// no timeout.
func (h *Hold) alarm(done chan struct{}) {
	var over <-chan time.Time // without a timeout it never comes
	if h.expect.Timeout > 0 {
		t := time.NewTimer(h.expect.Timeout)
		defer t.Stop()
		over = t.C
	}
	var why error
	select {
	case <-done:
		return
	case <-over:
		why = ErrTimeout
	case <-h.expect.Cancel:
		why = ErrCancelled
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	h.expired = why
	for pid := range h.tracees {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if h.root > 0 && !h.exited {
		_ = unix.Kill(h.root, unix.SIGKILL)
	}
}

// event deals with a stop of a traced thread. It reports whether the workload is
// there.
func (h *Hold) event(pid int, ws unix.WaitStatus) (bool, error) {
	t := h.add(pid) // a new one's stop can come before that of its parent
	t.stopped = true
	switch event := int(ws) >> 16; event {
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		child, err := eventMessage(pid)
		if err != nil {
			return false, err
		}
		if child != 0 {
			c := h.add(child)
			c.parent, c.hook, c.known = pid, t.hook, true
			if c.waits {
				if err := h.begin(child, c); err != nil {
					return false, err
				}
			}
		}
	case unix.PTRACE_EVENT_EXEC:
		// Another thread than the first becomes the process.
		if old, err := eventMessage(pid); err == nil && old != pid {
			if o := h.tracees[old]; o != nil {
				t.parent, t.hook = o.parent, o.hook
				h.remove(old)
			}
		}
		here, err := h.executed(pid, t)
		if here || err != nil {
			return here, err
		}
	case eventStop:
		if ws.StopSignal() != unix.SIGTRAP {
			// A group stop lasts until the next SIGCONT.
			t.stopped = false
			return false, ptraceRunning(unix.PTRACE_LISTEN, pid, 0)
		}
		if !t.known {
			// What it executes is judged by who made it: it waits for the word of that.
			t.waits = true
			return false, nil
		}
		return false, h.begin(pid, t)
	case 0:
		return false, h.goOn(pid, t, int(ws.StopSignal()))
	}
	return false, h.goOn(pid, t, 0)
}

// executed judges a program that a traced process has executed.
func (h *Hold) executed(pid int, t *tracee) (workload bool, err error) {
	exe, err := exeOf(pid)
	if err != nil {
		return false, err
	}
	step := h.expect.Step
	switch {
	case t.step:
		return true, nil
	case t.hook:
		return false, nil
	case !step.IsZero() && exe == step:
		t.step = true
		return false, h.configured(pid)
	case h.expect.Early != nil && h.expect.Early(pid):
		t.hook = true
		return false, nil
	case h.expect.Inside != nil && !h.expect.Inside(pid):
		return false, nil
	case h.expect.Hooks && t.parent != 0 && h.expect.Inside != nil && h.expect.Inside(t.parent):
		return false, nil
	case step.IsZero():
		return true, nil
	}
	name, _ := os.Readlink(proc(pid, "exe"))
	return false, fmt.Errorf("%q: %w", name, ErrForeign)
}

// configured compares the configuration that the last step is about to read.
func (h *Hold) configured(pid int) error {
	if h.expect.Config.IsZero() {
		return nil
	}
	fd, err := ownDescriptor(pid)
	if err != nil {
		return fmt.Errorf("descriptor of the last step: %w", err)
	}
	var st unix.Stat_t
	switch err := unix.Stat(proc(pid, "fd/"+strconv.Itoa(fd+1)), &st); {
	case err != nil && err != unix.ENOENT:
		return &os.PathError{Op: "stat", Path: proc(pid, "fd/"+strconv.Itoa(fd+1)), Err: err}
	case err != nil, (Identity{st.Dev, st.Ino}) != h.expect.Config:
		return fmt.Errorf("descriptor %d: %w", fd+1, errExchanged)
	}
	return nil
}

// ownDescriptor is the number that the last step takes for its own: that of the path
// by which it was executed, or of its first argument.
func ownDescriptor(pid int) (int, error) {
	path, err := executedAs(pid)
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(path, "/proc/self/fd/")
	if fd, err := strconv.Atoi(number); ok && err == nil && fd >= 0 {
		return fd, nil
	}
	b, err := readSome(proc(pid, "cmdline"), 0)
	if err != nil {
		return 0, err
	}
	first, _, _ := bytes.Cut(b, []byte{0})
	number, ok = strings.CutPrefix(string(first), "/proc/self/fd/")
	fd, err := strconv.Atoi(number)
	if !ok || err != nil || fd < 0 {
		return 0, fmt.Errorf("executed as %q, first argument %q: %w", path, first, errExchanged)
	}
	return fd, nil
}

// executedAs is the path that execve was given.
//
// Source: fs/binfmt_elf.c, create_elf_tables (AT_EXECFN).
func executedAs(pid int) (string, error) {
	b, err := readSome(proc(pid, "auxv"), 0)
	if err != nil {
		return "", err
	}
	const entry, atExecFn = 16, 31
	for ; len(b) >= entry; b = b[entry:] {
		if binary.NativeEndian.Uint64(b) != atExecFn {
			continue
		}
		s, err := readSome(proc(pid, "mem"), int64(binary.NativeEndian.Uint64(b[8:])))
		if err != nil {
			return "", err
		}
		name, _, _ := bytes.Cut(s, []byte{0})
		return string(name), nil
	}
	return "", errors.New("the kernel does not say by which path")
}

// readSome reads the beginning of a file of /proc from an offset on.
func readSome(name string, at int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 4096
	b := make([]byte, most)
	n, err := f.ReadAt(b, at)
	if n == 0 && err != nil {
		return nil, err
	}
	return b[:n], nil
}

func proc(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

func exeOf(pid int) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(proc(pid, "exe"), &st); err != nil {
		return Identity{}, &os.PathError{Op: "stat", Path: proc(pid, "exe"), Err: err}
	}
	return Identity{st.Dev, st.Ino}, nil
}

// goOn resumes a stopped thread.
func (h *Hold) goOn(pid int, t *tracee, signal int) error {
	t.stopped, t.waits = false, false
	return ptraceRunning(unix.PTRACE_CONT, pid, uintptr(signal))
}

// begin resumes a thread whose maker is known, or lets it go.
func (h *Hold) begin(pid int, t *tracee) error {
	if h.expect.Apart == nil || t.begun || t.parent == 0 || !h.expect.Apart(pid, t.parent) {
		t.begun = true
		return h.goOn(pid, t, 0)
	}
	if err := ptrace(unix.PTRACE_DETACH, pid, 0, 0); err != nil && err != unix.ESRCH {
		return err
	}
	h.remove(pid)
	return nil
}

// goOnOrphans resumes what waits for the word of a process that was killed before it
// could give it. It has no parent then, and counts as made by none.
func (h *Hold) goOnOrphans() error {
	for pid, t := range h.tracees {
		if !t.waits || h.tracees[parentOf(pid)] != nil {
			continue
		}
		t.known = true
		if err := h.goOn(pid, t, 0); err != nil {
			return err
		}
	}
	return nil
}

// parentOf is the process whose child a process is, 0 for one that has ended.
func parentOf(pid int) int {
	b, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return 0
	}
	// The name, which is in brackets, can have any character.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(f[1]) // the kernel's own text
	return ppid
}

// Release lets everything run on untraced.
func (h *Hold) Release() {
	for pid, t := range h.tracees {
		if t.stopped {
			_ = ptrace(unix.PTRACE_DETACH, pid, 0, 0)
			h.remove(pid)
			continue
		}
		_ = ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0) // one that is ending is reported, too
	}
	// Not one by one: the end of a process is reported after that of all its threads.
	for len(h.tracees) > 0 {
		if _, err := h.letGo(); err != nil {
			break
		}
	}
}

// letGo waits for the next event and lets what stopped run on untraced. It returns
// the process.
func (h *Hold) letGo() (int, error) {
	var ws unix.WaitStatus
	pid, err := wait4(-1, &ws, unix.WALL|unix.WNOTHREAD)
	if err != nil {
		return 0, err
	}
	signal := 0
	if ws.Exited() || ws.Signaled() {
		h.ended(pid, ws)
		h.remove(pid)
		return pid, nil
	}
	switch int(ws) >> 16 {
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		// It was attached before it began; its first stop is still to come.
		if child, err := eventMessage(pid); err == nil && child != 0 {
			h.add(child)
		}
	case 0:
		signal = int(ws.StopSignal())
	}
	_ = ptrace(unix.PTRACE_DETACH, pid, 0, uintptr(signal))
	h.remove(pid)
	return pid, nil
}

// Abandon ends a hold that has not reached the workload. What was followed is
// killed, since it could still execute the workload; with keep it is a process that
// was there before, and is let go.
func (h *Hold) Abandon(keep bool) {
	if keep {
		h.Release()
		return
	}
	h.Kill()
}

// Close gives the thread back.
func (h *Hold) Close() { runtime.UnlockOSThread() }

// Kill ends all that is traced and the started program, and returns when they have
// ended.
func (h *Hold) Kill() {
	for pid := range h.tracees {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if h.root > 0 && !h.exited {
		_ = unix.Kill(h.root, unix.SIGKILL)
	}
	for len(h.tracees) > 0 || h.root > 0 && !h.exited {
		var ws unix.WaitStatus
		pid, err := wait4(-1, &ws, unix.WALL|unix.WNOTHREAD)
		if err != nil {
			break
		}
		if ws.Exited() || ws.Signaled() {
			h.ended(pid, ws)
			h.remove(pid)
			continue
		}
		// Attached while it was being made: it did not get the signal.
		_ = unix.Kill(pid, unix.SIGKILL)
		_ = ptraceRunning(unix.PTRACE_CONT, pid, 0)
	}
	h.tracees = map[int]*tracee{}
}

// Ended waits for the end of the started program, after Release, and returns how
// it ended.
func (h *Hold) Ended() (unix.WaitStatus, error) {
	for !h.exited {
		if _, err := h.letGo(); err != nil {
			return h.status, os.NewSyscallError("wait4", err)
		}
	}
	return h.status, nil
}

func wait4(pid int, ws *unix.WaitStatus, options int) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, options, nil)
		if err != unix.EINTR {
			return got, err
		}
	}
}

func eventMessage(pid int) (int, error) {
	n, err := unix.PtraceGetEventMsg(pid)
	if err == unix.ESRCH {
		return 0, nil // killed meanwhile; its end is reported
	}
	return int(n), err
}

func ptrace(request, pid int, addr, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// ptraceRunning resumes a thread; one that was killed meanwhile is no error.
func ptraceRunning(request, pid int, data uintptr) error {
	if err := ptrace(request, pid, 0, data); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}
