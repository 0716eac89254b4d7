// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/runtime/delegate"
)

// startTimeout bounds how long a container may take from its runtime's start to
// the first instruction of its workload.
const startTimeout = 30 * time.Second

// start lets the runtime start a container, and returns when what is in force
// has been compared with what was asked for: between the moment when the
// workload has been executed and its first instruction. A container that is less
// confined than asked is killed there.
//
// The container's first process is traced from before it starts to that moment,
// so that it cannot run on should this process be killed.
func (w *wrapper) start() (int, error) {
	rec, err := w.dir.Lookup(w.root, w.call.id())
	if errors.Is(err, state.ErrNotFound) {
		if err := w.foreign(); err != nil {
			return 0, err
		}
		return 0, w.replace() // made without us
	} else if err != nil {
		return 0, err
	}
	asked, err := rec.Planned()
	if err != nil {
		return 0, err
	}
	st, found, err := delegate.Query(rec.Runtime, rec.ID)
	if err != nil {
		return 0, err
	}
	if !found || st.Status != "created" || st.PID <= 0 {
		return 0, w.replace() // the runtime says what is wrong
	}
	step, err := w.dir.Step(rec)
	if err != nil {
		return 0, err
	}
	execs := 1
	if step != nil {
		execs = 2 // the last step, then the workload
	}
	// A tracer is a thread, and this one is not given back.
	runtime.LockOSThread()
	t := tracee{pid: st.PID}
	if err := t.seize(); err != nil {
		return 0, fmt.Errorf("verify %s: trace process %d: %w", rec.ID, st.PID, err)
	}
	code, err := w.startTraced(t, execs)
	switch {
	case errors.Is(err, effective.ErrGone):
		return code, nil // it has ended; nothing ran that could be less confined
	case err != nil:
		t.kill()
		return 0, fmt.Errorf("verify %s: %w", rec.ID, err)
	case code != 0:
		t.detach()
		return code, nil
	}
	err = verify(st.PID, asked)
	if err != nil && w.cfg.OnMismatch == "warn" {
		fmt.Fprintf(os.Stderr, "palisade-oci: warning: %v\n", err)
		err = nil
	}
	if err != nil {
		t.kill()
		return 0, err
	}
	t.detach()
	return code, nil
}

// startTraced runs the real start, and lets the container's process run until it
// has executed a program for the nth time; there it stays stopped. With another
// exit code than 0 it is where it was.
func (w *wrapper) startTraced(t tracee, n int) (int, error) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGCHLD)
	defer signal.Stop(changed)
	cmd := exec.Command(w.runtime, w.call.args()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan int, 1)
	go func() {
		_ = cmd.Wait() // the exit code says it
		ended <- cmd.ProcessState.ExitCode()
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	code, there, left := 0, false, n
	for running := true; running || !there; {
		select {
		case code = <-ended:
			if running, ended = false, nil; code != 0 {
				return code, nil
			}
		case <-changed:
		case <-timeout.C:
			_ = cmd.Process.Kill()
			return 0, fmt.Errorf("it did not start within %v", startTimeout)
		}
		for !there {
			stop, err := t.poll()
			if err != nil {
				if running {
					code = <-ended
				}
				return code, err
			}
			if stop == 0 {
				break // it runs
			}
			if event := int(stop) >> 16; event == unix.PTRACE_EVENT_EXEC {
				if left--; left == 0 {
					there = true
					break
				}
			}
			if err := t.goOn(stop); err != nil {
				return 0, err
			}
		}
	}
	return code, nil
}

// verify compares a process that has not yet run with what was asked.
func verify(pid int, asked effective.State) error {
	found, err := effective.ReadStopped(pid, asked)
	if err != nil {
		return fmt.Errorf("verify what is in force: %w", err)
	}
	var parts []string
	for _, m := range effective.Compare(asked, found) {
		parts = append(parts, m.String())
	}
	if len(parts) > 0 {
		return fmt.Errorf("killed, since it is less confined than asked: %s", strings.Join(parts, "; "))
	}
	return nil
}

// tracee is a process that stops for us when it executes a program.
type tracee struct{ pid int }

func (t tracee) seize() error {
	const exitKill = 1 << 20 // PTRACE_O_EXITKILL
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(t.pid), 0, uintptr(unix.PTRACE_O_TRACEEXEC|exitKill), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (t tracee) resume(signal int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_CONT, uintptr(t.pid), 0, uintptr(signal), 0, 0)
	if errno != 0 && errno != unix.ESRCH {
		return errno
	}
	return nil
}

// detach lets it run on. It has to be stopped; one that is not is stopped first.
func (t tracee) detach() {
	for range 2 {
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(t.pid), 0, 0, 0, 0); errno != unix.ESRCH {
			return
		}
		// ESRCH is also the answer for one that runs.
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(t.pid), 0, 0, 0, 0); errno != 0 {
			return
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(t.pid, &ws, unix.WALL, nil); err != nil || !ws.Stopped() {
			return
		}
	}
}

// kill ends it, and returns when it has ended.
func (t tracee) kill() {
	_ = unix.Kill(t.pid, unix.SIGKILL)
	for {
		var ws unix.WaitStatus
		switch _, err := unix.Wait4(t.pid, &ws, unix.WALL, nil); {
		case err == unix.EINTR:
		case err != nil, ws.Exited(), ws.Signaled():
			return
		}
	}
}

// poll tells whether the process has stopped, 0 when it runs. The error is
// [effective.ErrGone] when it has ended.
func (t tracee) poll() (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(t.pid, &ws, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, effective.ErrGone
		case pid == 0:
			return 0, nil
		case ws.Exited() || ws.Signaled():
			return 0, effective.ErrGone
		}
		return ws, nil
	}
}

// goOn resumes the process from a stop that is none of ours.
func (t tracee) goOn(ws unix.WaitStatus) error {
	event, sig := int(ws)>>16, ws.StopSignal()
	switch {
	case event == 0:
		return t.resume(int(sig)) // a signal of its own
	case event == unix.PTRACE_EVENT_STOP && sig != unix.SIGTRAP:
		// A group stop lasts until the next SIGCONT.
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_LISTEN, uintptr(t.pid), 0, 0, 0, 0)
		if errno != 0 && errno != unix.ESRCH {
			return errno
		}
		return nil
	}
	return t.resume(0)
}
