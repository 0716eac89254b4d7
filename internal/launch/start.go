// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/internal/state"
)

// Outcome is how a call of the runtime ended.
type Outcome struct {
	// Code is the runtime's exit code: 128 and the number of the signal for one that
	// was killed by a signal.
	Code int
	// PID is the workload's; 0 when it was not reached.
	PID int
	// Step is the exit code of a last step that did not execute the workload, or -1.
	Step int
}

// Making is a container whose runtime has been told to make it.
type Making struct {
	// PIDFile is where the runtime writes the number of the first process.
	PIDFile string
	// Process is the workload as the engine wants it.
	Process *specs.Process
	// Hooks: the container has hooks that its runtime executes inside, before the
	// workload. EarlyHooks: it has hooks that run in its namespaces before its root
	// is there.
	Hooks, EarlyHooks bool
	// Mappers: the runtime makes processes in user namespaces of their own, which it
	// traces, for the mappings of mounts. No process of the container begins so.
	Mappers bool
	// Keep keeps the container in use until it has ended: nobody else is to clean up
	// after it.
	Keep bool
}

// inherited adds the lock by which it is known whether the runtime of a container
// without an owner is still there. The runtime does not pass it on.
func (c *Container) inherited(rt Runtime) (Runtime, error) {
	lock, err := c.RuntimeLock()
	if err != nil {
		return rt, err
	}
	rt.Files = append(slices.Clone(rt.Files), lock)
	c.step.lock = lock
	return rt, nil
}

// Create calls a runtime that makes the container and leaves it waiting for its
// start. With an error, or another exit code than 0, the container is gone and
// everything is undone.
func (c *Container) Create(rt Runtime, m Making) (int, error) {
	rt, err := c.inherited(rt)
	if err != nil {
		return 0, c.Undo(err)
	}
	code, err := rt.Run()
	if err != nil || code != 0 {
		return code, c.Undo(errors.Join(err, c.destroyLeft(code)))
	}
	if err := c.created(m); err != nil {
		return 0, c.Undo(errors.Join(err, delegate.Destroy(c.Runtime, c.ID)))
	}
	return 0, nil
}

// destroyLeft ends what a runtime that failed has left. It may have failed because
// the container is another's: what is ours has our bundle.
func (c *Container) destroyLeft(code int) error {
	const killed = 128
	if code < killed {
		st, found, err := delegate.Query(c.Runtime, c.ID)
		if err != nil || !found || st.Bundle != c.Path("bundle") {
			return nil // what failed is told by the runtime
		}
	}
	return delegate.Destroy(c.Runtime, c.ID)
}

// created records the first process, and looks for the command where the process
// will: a command that is missing is an error of create, as the runtime alone has it.
func (c *Container) created(m Making) error {
	pid, err := readPID(m.PIDFile)
	if err != nil {
		return err
	}
	init, err := state.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("first process of container %s: %w", c.ID, err)
	}
	if err := inRoot(pid, c.Asked.Root); err != nil {
		return fmt.Errorf("first process of container %s: %w", c.ID, err)
	}
	c.Init = &init
	if c.Plan.Step != nil && len(m.Process.Args) > 0 {
		if err := lookCommand(pid, m.Process.Args[0], m.Process.Cwd, m.Process.Env); err != nil {
			return err
		}
	}
	return c.Save()
}

// inRoot refuses a process that has another root than the container: what the runtime
// wrote down is the number of a process that is not the container's.
func inRoot(pid int, root *effective.Mount) error {
	if root == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(procFile(pid, "root"), &st); err != nil {
		return &os.PathError{Op: "stat", Path: procFile(pid, "root"), Err: err}
	}
	if st.Dev != root.Dev || st.Ino != root.Ino {
		return fmt.Errorf("process %d is not in the container's root", pid)
	}
	return nil
}

func readPID(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const most = 32
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s: %q is not the number of a process", path, b)
	}
	return pid, nil
}

// Run calls a runtime that makes and starts the container. With an error the
// container is gone, and everything is undone.
func (c *Container) Run(rt Runtime, m Making) (Outcome, error) {
	rt, err := c.inherited(rt)
	if err != nil {
		return Outcome{}, c.Undo(err)
	}
	expect := hold.Expect{Step: c.Handed, Config: c.HandedConfig, Hooks: m.Hooks}
	if expect.Inside, expect.Early, err = insideNew(); err != nil {
		return Outcome{}, c.Undo(err)
	}
	if m.Mappers {
		expect.Apart = beganInNamespace
	}
	if !m.EarlyHooks {
		expect.Early = nil
	}
	out, err := held{
		runtime: rt,
		expect:  expect,
		verify: func(pid int) error {
			if err := c.host.verify(pid, *c.Asked, !c.Handed.IsZero()); err != nil {
				return err
			}
			return c.verified(pid)
		},
		released: func() {
			c.step.close()
			if !m.Keep {
				c.Container.Close()
			}
		},
	}.run()
	if m.Keep {
		return out, err // the caller cleans up in every case
	}
	if err == nil {
		err = out.reached()
	}
	if err != nil {
		return out, c.Undo(errors.Join(err, delegate.Destroy(c.Runtime, c.ID)))
	}
	if out.PID == 0 {
		return out, c.Undo(c.destroyLeft(out.Code)) // the runtime has said why
	}
	return out, nil
}

// verified records that the workload begins under all that was asked for.
func (c *Container) verified(pid int) error {
	init, err := state.FindProcess(pid)
	if err != nil {
		return err
	}
	c.Init, c.VerifiedAt = &init, time.Now().UTC()
	c.Asked.Others = nil // the workload may mount what it likes where it may
	return c.Save()
}

// errNotCreated says that a container was not created whole.
var errNotCreated = errors.New("the container was not created whole: delete it")

// Start calls a runtime that starts a created container, and returns when its
// workload has been verified and runs. With an error the container's process was
// killed.
func (h *Host) Start(rec state.Record, rt Runtime) (Outcome, error) {
	c, err := h.Dir.Lock(rec.Key)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	asked, err := c.Planned()
	if err != nil {
		return Outcome{}, err
	}
	if c.Init == nil {
		return Outcome{}, fmt.Errorf("container %s: %w", c.ID, errNotCreated)
	}
	if !c.VerifiedAt.IsZero() || !c.Init.Alive() {
		code, err := rt.Run() // the runtime says what is wrong
		return Outcome{Code: code, Step: -1}, err
	}
	this := &Container{Container: c, host: h}
	out, err := held{
		runtime: rt, init: c.Init.PID,
		expect: hold.Expect{Step: c.Handed, Config: c.HandedConfig},
		// A runtime that fails may have let the process go all the same.
		waits: func() (bool, error) {
			st, found, err := delegate.Query(c.Runtime, c.ID)
			return found && st.Status == "created", err
		},
		verify: func(pid int) error {
			if err := h.verify(pid, asked, !c.Handed.IsZero()); err != nil {
				return err
			}
			return this.verified(pid)
		},
	}.run()
	if err == nil {
		err = out.reached()
	}
	return out, err
}

// Added is a process that is added to a container.
type Added struct {
	// Confinement is what is put into the process.
	Confinement bundle.Confinement
	host        *Host
	record      state.Record
	asked       effective.State
	config      *laststep.Config
	step        handedOver
	handed      hold.Identity
	// handedConfig is the configuration of the last step.
	handedConfig hold.Identity
	passed       int // descriptors that the caller passes on
	file         string
}

// firstPassed is the first descriptor that is passed on.
const firstPassed = 3

// Add prepares to add a process to a container, with its last step under the
// descriptor stepFD.
func (h *Host) Add(rec state.Record, stepFD int) (*Added, error) {
	asked, err := rec.Planned()
	if err != nil {
		return nil, err
	}
	if !rec.Init.Alive() {
		return nil, fmt.Errorf("container %s: its first process has ended", rec.ID)
	}
	// The labels are the container's own, whatever the host would say today.
	a := &Added{host: h, record: rec, asked: asked, passed: stepFD - firstPassed, Confinement: bundle.Confinement{
		Policy: rec.Policy.ForProcess(), ID: rec.Key, Level: rec.Level, ProcessLabel: asked.SELinux, AppArmorProfile: asked.AppArmor,
	}}
	if rec.EngineProfile != asked.AppArmor {
		a.Confinement.Replaces = rec.EngineProfile
	}
	if a.config, err = h.Dir.Step(rec); err != nil {
		return nil, err
	}
	if a.config != nil {
		a.Confinement.Init = handover.Path(stepFD)
	}
	return a, nil
}

// Edited takes the process as it was edited, in JSON and as what it says, and writes
// it where the runtime reads it. Files are the last step and its configuration, for
// the runtime to pass on; none without one.
func (a *Added) Edited(raw []byte, p *specs.Process) (path string, files []*os.File, err error) {
	a.asked = a.asked.ForProcess(p)
	if a.config != nil {
		a.config.Capabilities = kept(a.asked.Capabilities)
		if a.step, a.handed, a.handedConfig, err = openStep(a.config, bundle.StepLabel(a.host.Target)); err != nil {
			return "", nil, err
		}
	}
	path, err = a.writeProcess(raw)
	return path, a.step.files(), err
}

func (a *Added) writeProcess(b []byte) (path string, err error) {
	f, err := os.CreateTemp(a.host.Dir.Folder(a.record.Key), "exec-*.json")
	if err != nil {
		return "", err
	}
	a.file = f.Name()
	_, err = f.Write(b)
	return a.file, errors.Join(err, f.Close())
}

// Close removes what was made for the process.
func (a *Added) Close() {
	a.step.close()
	if a.file != "" {
		os.Remove(a.file)
	}
}

// Run calls a runtime that adds the process; p is what the engine wants it to be,
// without the last step. With an error no process was added.
func (a *Added) Run(rt Runtime, p *specs.Process) (Outcome, error) {
	init := a.record.Init.PID
	if a.config != nil && len(p.Args) > 0 {
		if err := lookCommand(init, p.Args[0], p.Cwd, p.Env); err != nil {
			return Outcome{}, err
		}
	}
	inside, err := insideOf(init)
	if err != nil {
		return Outcome{}, err
	}
	a.asked.FDs = a.passed
	out, err := held{
		runtime:  rt,
		expect:   hold.Expect{Step: a.handed, Config: a.handedConfig, Inside: inside},
		verify:   func(pid int) error { return a.host.verify(pid, a.asked, !a.handed.IsZero()) },
		released: a.Close,
	}.run()
	if err == nil {
		err = out.reached()
	}
	return out, err
}

// Forget removes what is left of a container that its runtime has deleted.
func (h *Host) Forget(key string) error { return gc.CollectOne(h.Dir, h.Registry, key) }
