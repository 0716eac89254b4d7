// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options says what to try.
type Options struct {
	// Only names the probes to run; nil runs all.
	Only []string
	// Timeout is how long one probe may take before it is killed; 0 means
	// ten seconds.
	Timeout time.Duration
	// Claims are what the policy in force claims to block.
	Claims Claims
	// Progress, when set, is called before each probe.
	Progress func(done, total int, name string)
}

// ErrNoWorker is the error of a run that could not start a process to try
// anything in.
var ErrNoWorker = errors.New("start a process to probe in")

// Run tries all probes and returns their results in the order of [List]. The
// error wraps [ErrNoWorker] when nothing could be tried, and is the context's
// when that ended.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	probes := table
	if o.Only != nil {
		probes = nil
		for _, name := range o.Only {
			p, ok := byName(name)
			if !ok {
				return nil, fmt.Errorf("no probe is named %q", name)
			}
			probes = append(probes, p)
		}
	}
	// Children are killed when the thread that started them ends, so it must
	// not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	r := &runner{timeout: o.Timeout, inherited: inherited()}
	defer r.stop()
	sibling := r.startVictim()
	results := make([]Result, 0, len(probes))
	for i, p := range probes {
		if err := ctx.Err(); err != nil {
			return results, err
		}
		if o.Progress != nil {
			o.Progress(i, len(probes), p.name)
		}
		if p.own {
			r.stopWorker()
		}
		a, err := r.ask(ctx, request{Name: p.name, Sibling: sibling, Inherited: r.inherited})
		if err != nil {
			return results, err
		}
		if p.own {
			r.stopWorker()
		}
		control, proves := controlOf(p.name)
		results = append(results, Result{
			Name: p.name, Group: p.group, Outcome: a.Outcome, Errno: a.Errno, Layer: a.Layer, Note: a.Note,
			Claimed: o.Claims.claims(p.name), Control: control, Proves: proves,
		})
	}
	return results, nil
}

// Violations are the results that are open and claimed to be blocked.
func Violations(results []Result) []Result {
	var list []Result
	for _, r := range results {
		if r.Claimed && r.Outcome == Open {
			list = append(list, r)
		}
	}
	return list
}

type runner struct {
	timeout   time.Duration
	inherited []string
	worker    *exec.Cmd
	requests  io.WriteCloser
	answers   chan []byte
	victim    *exec.Cmd
	victimIn  io.WriteCloser
}

// startVictim starts the process that others are tried on; 0 when it cannot.
func (r *runner) startVictim() int {
	cmd := reexec(roleVictim)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0
	}
	if err := cmd.Start(); err != nil {
		in.Close()
		return 0
	}
	r.victim, r.victimIn = cmd, in
	return cmd.Process.Pid
}

func (r *runner) startWorker() error {
	cmd := reexec(roleWorker)
	// A session of its own, for the probe of terminals and to kill it whole.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoWorker, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoWorker, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoWorker, err)
	}
	r.worker, r.requests = cmd, in
	// The channel belongs to this worker: a late answer of one that was killed
	// must not be taken for that of the next.
	answers := make(chan []byte, 1)
	r.answers = answers
	go func() {
		defer close(answers)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			answers <- append([]byte(nil), lines.Bytes()...)
		}
	}()
	return nil
}

// ask has a worker try one probe. That the worker dies of it is an answer.
func (r *runner) ask(ctx context.Context, q request) (answer, error) {
	if r.worker == nil {
		if err := r.startWorker(); err != nil {
			return answer{}, err
		}
	}
	text, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	// A worker that is gone shows in the answer that it does not give.
	_, _ = r.requests.Write(append(text, '\n'))
	timer := time.NewTimer(r.timeout)
	defer timer.Stop()
	select {
	case line, ok := <-r.answers:
		var a answer
		if ok && json.Unmarshal(line, &a) == nil {
			return a, nil
		}
		return died(r.stopWorker()), nil
	case <-timer.C:
		r.stopWorker()
		return answer{Outcome: NotApplicable, Errno: "ETIMEDOUT", Note: "no answer in " + r.timeout.String()}, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// died says what the end of a worker means: a filter kills with SIGSYS.
func died(state *os.ProcessState) answer {
	if state == nil {
		return answer{Outcome: NotApplicable, Note: "the process ended"}
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() && status.Signal() == syscall.SIGSYS {
		return answer{Outcome: Blocked, Layer: seccompLayer, Note: "the process was killed"}
	}
	return answer{Outcome: NotApplicable, Note: "the process ended: " + state.String()}
}

// stopWorker ends the worker, with all that it started, and removes what it
// may have left.
func (r *runner) stopWorker() *os.ProcessState {
	if r.worker == nil {
		return nil
	}
	cmd := r.worker
	r.worker = nil
	r.requests.Close()
	// A worker that answered ends by itself when nothing more is asked; the
	// state of one that died already is kept by Wait.
	select {
	case _, running := <-r.answers:
		if running {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	case <-time.After(200 * time.Millisecond):
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	_ = cmd.Wait()
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	for _, dir := range []string{"/dev", "/", "/tmp", "/dev/shm", "/run", "/var/tmp"} {
		left, _ := filepath.Glob(filepath.Join(dir, ".palisade-probe-*-"+strconv.Itoa(cmd.Process.Pid)))
		for _, name := range left {
			_ = os.Remove(name)
		}
	}
	return cmd.ProcessState
}

func (r *runner) stop() {
	r.stopWorker()
	if r.victim != nil {
		r.victimIn.Close()
		_ = r.victim.Process.Kill()
		_ = r.victim.Wait()
	}
}
