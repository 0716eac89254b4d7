// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/hold"
)

// Runtime is one call of the OCI runtime that does the work.
type Runtime struct {
	Path string
	Args []string
	// Files are its descriptors, from 0 on. Nil closes one.
	Files []*os.File
	Env   []string
	Dir   string
	// Started is called once it runs; nil for nothing to do.
	Started func()
	// Session gives it a session of its own, so that a terminal's signals do not
	// reach it.
	Session bool
}

func (r Runtime) attr() *os.ProcAttr {
	return &os.ProcAttr{Files: r.Files, Env: r.Env, Dir: r.Dir, Sys: &syscall.SysProcAttr{Setsid: r.Session}}
}

func (r Runtime) started() {
	if r.Started != nil {
		r.Started()
	}
}

func (r Runtime) argv() []string { return slices.Concat([]string{r.Path}, r.Args) }

// Run runs it to its end without looking at what it starts, and returns its exit
// code: 128 and the number of the signal for one that was killed by a signal.
func (r Runtime) Run() (int, error) {
	f := collectSignals()
	defer f.stop()
	p, err := os.StartProcess(r.Path, r.argv(), r.attr())
	if err != nil {
		return 0, err
	}
	r.started()
	f.to(p.Pid, !r.Session)
	st, err := p.Wait()
	if err != nil {
		return 0, err
	}
	return exitCode(unix.WaitStatus(st.Sys().(syscall.WaitStatus))), nil
}

func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// startTimeout bounds how long a container may take from the call of its runtime
// to the first instruction of its workload.
const startTimeout = 2 * time.Minute

// held is one start that is held until it has been verified.
type held struct {
	runtime Runtime
	// init is the container's first process, which is there already; 0 follows what
	// the runtime starts.
	init   int
	expect hold.Expect
	// waits reports whether a process that is there already still waits for its
	// start, after a runtime that failed.
	waits func() (bool, error)
	// verify is called by the tracing thread while the workload is stopped before
	// its first instruction.
	verify func(pid int) error
	// released is called once the workload was let go.
	released func()
}

// errNotStarted says that a runtime reported success without having executed the
// workload.
var errNotStarted = errors.New("the runtime reports success, but has not executed the command")

// A StepError is a last step that ended before the workload. What it said is on the
// workload's standard error.
type StepError struct {
	// Code is its exit code: 127 and 126 for a command that cannot be executed.
	Code int
}

func (e *StepError) Error() string {
	return fmt.Sprintf("the last step before the command ended with exit code %d; standard error of the container says why", e.Code)
}

// reached is nil for a runtime that executed the workload, or that failed and said
// so itself.
func (o Outcome) reached() error {
	switch {
	case o.PID > 0:
		return nil
	case o.Step >= 0:
		return &StepError{o.Step}
	case o.Code == 0:
		return errNotStarted
	}
	return nil
}

// run starts, holds, verifies, releases and waits for the runtime. With an error
// nothing of the container has run, and all that was traced is killed.
func (s held) run() (Outcome, error) {
	f := collectSignals()
	defer f.stop()
	s.expect.Timeout = startTimeout
	h := hold.New(s.expect)
	defer h.Close()
	out := Outcome{Step: -1}
	if s.init > 0 {
		if err := h.Seize(s.init); err != nil {
			return out, err
		}
	}
	if err := h.Start(s.runtime.Path, s.runtime.argv(), s.runtime.attr(), s.init == 0); err != nil {
		h.Abandon(s.init > 0)
		return out, err
	}
	s.runtime.started()
	f.to(h.PID(), !s.runtime.Session)
	res, err := h.Wait()
	if err == nil && res.PID == 0 && s.init > 0 && !res.StepEnded && len(h.Left()) > 0 {
		res, err = s.failed(h)
	}
	if err != nil {
		return out, err
	}
	if res.StepEnded {
		out.Step = exitCode(res.StepStatus)
	}
	if out.PID = res.PID; res.PID == 0 {
		// A process that is there and was not started stays as it is.
		h.Abandon(s.init > 0)
		ws, err := h.Ended()
		out.Code = exitCode(ws)
		return out, err
	}
	if err := s.verify(res.PID); err != nil {
		h.Kill()
		return out, err
	}
	h.Release()
	if s.released != nil {
		s.released()
	}
	ws, err := h.Ended()
	out.Code = exitCode(ws)
	return out, err
}

// failed deals with a runtime that failed to start a process that is there. One that
// waits no more was let go before the failure, and is held all the same.
func (s held) failed(h *hold.Hold) (hold.Result, error) {
	waits, err := s.waits()
	if err != nil {
		h.Kill()
		return hold.Result{}, err
	}
	if waits {
		return hold.Result{}, nil
	}
	return h.WaitOn()
}

// insideOf reports whether a process is in the mount namespace of the container
// whose first process is init.
func insideOf(init int) (func(pid int) bool, error) {
	ns, err := os.Readlink(procFile(init, "ns/mnt"))
	if err != nil {
		return nil, err
	}
	return func(pid int) bool {
		theirs, err := os.Readlink(procFile(pid, "ns/mnt"))
		return err != nil || theirs == ns
	}, nil
}

// insideNew reports of a container that is being made whether a process is in it: it
// has another mount namespace than this thread. early reports whether such a process
// still has the host's root, as hooks of the kind createContainer have.
func insideNew() (inside, early func(pid int) bool, err error) {
	const self = "/proc/thread-self"
	ns, err := os.Readlink(filepath.Join(self, "ns/mnt"))
	if err != nil {
		return nil, nil, err
	}
	var root unix.Stat_t
	if err := unix.Stat(filepath.Join(self, "root"), &root); err != nil {
		return nil, nil, &os.PathError{Op: "stat", Path: self + "/root", Err: err}
	}
	inside = func(pid int) bool {
		theirs, err := os.Readlink(procFile(pid, "ns/mnt"))
		return err != nil || theirs != ns
	}
	early = func(pid int) bool {
		var st unix.Stat_t
		return inside(pid) && unix.Stat(procFile(pid, "root"), &st) == nil && st.Dev == root.Dev && st.Ino == root.Ino
	}
	return inside, early, nil
}

// beganInNamespace reports whether a process that was just made has another user
// namespace than its maker.
func beganInNamespace(pid, maker int) bool {
	theirs, err1 := os.Readlink(procFile(pid, "ns/user"))
	makers, err2 := os.Readlink(procFile(maker, "ns/user"))
	return err1 == nil && err2 == nil && theirs != makers
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
