// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// watchCommand begins the command line of the watcher.
const watchCommand = "watch"

// Bounds of waiting: for a container to come from the controller's start to its
// first command, and for the controller to end once its container is refused.
const (
	startTimeout = time.Minute
	endTimeout   = 3 * time.Second
)

// Descriptors of the watcher.
const (
	gateFD = 3 + iota
	fromControllerFD
	toControllerFD
	fromLibvirtFD
	toLibvirtFD
	controllerFD
)

var (
	// errNoStep says that the last step did not come so far as to ask.
	errNoStep = errors.New("the container ended before palisade-init had confined it")
	errGaveUp = errors.New("libvirt gave up starting it")
)

// watcher accompanies one container from before its first command to its end.
type watcher struct {
	dir        *state.Dir
	registry   svirt.Authority
	record     state.Record
	onMismatch string
	gate       *gate.Gate

	fromController, toController *os.File
	fromLibvirt, toLibvirt       *os.File
	controller                   int // its pidfd
	init                         int // that of the container's first process, or -1
}

func watch(args []string, registry func(*state.Dir) svirt.Authority) int {
	if len(args) != 3 {
		report(errors.New("watch is not for running by hand"))
		return failed
	}
	dir, err := state.Open(args[0])
	if err != nil {
		report(err)
		return failed
	}
	file := func(fd int) *os.File {
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), "inherited")
	}
	w := &watcher{
		dir: dir, registry: registry(dir), onMismatch: args[2], gate: gate.Open(file(gateFD)),
		fromController: file(fromControllerFD), toController: file(toControllerFD),
		fromLibvirt: file(fromLibvirtFD), toLibvirt: file(toLibvirtFD), controller: controllerFD, init: -1,
	}
	w.record, err = dir.Get(args[1])
	if err == nil {
		if err = w.accompany(); err != nil {
			report(fmt.Errorf("domain %s: %w", w.record.ID, err))
			w.end()
		}
	} else if !errors.Is(err, state.ErrNotFound) {
		report(err)
	} // else the process that was to become the controller has said why it did not
	// libvirt reads why when it sees that nobody will say more.
	for _, f := range []*os.File{w.fromController, w.toController, w.fromLibvirt, w.toLibvirt} {
		f.Close()
	}
	w.gate.Close()
	debug.FreeOSMemory()
	wait(w.controller)
	wait(w.init)
	if cerr := gc.CollectOne(w.dir, w.registry, args[1]); cerr != nil && !errors.Is(cerr, state.ErrNotFound) && !errors.Is(cerr, state.ErrBusy) {
		report(cerr)
		return failed
	}
	if err != nil {
		return failed
	}
	return 0
}

// accompany passes on what controller and libvirt tell each other, and the last of
// it, that the container has started, when it is confined.
//
// Source: src/lxc/lxc_process.c, virLXCProcessStart; src/lxc/lxc_controller.c,
// virLXCControllerRun.
func (w *watcher) accompany() error {
	go w.gate.Watch(w.record.Command[0], w.verify)
	started := make(chan error, 1)
	go func() {
		err := relay(w.toLibvirt, w.fromController) // there are control groups
		if err == nil {
			err = relay(w.toController, w.fromLibvirt) // go on
		}
		started <- err
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	done := w.gate.Done
	for done != nil || started != nil {
		select {
		case <-done:
			done = nil
			if w.gate.Err != nil {
				return w.gate.Err
			}
			if w.gate.PID == 0 {
				return errNoStep
			}
		case err := <-started:
			if started = nil; err != nil {
				return errGaveUp
			}
		case <-timeout.C:
			return fmt.Errorf("its first command did not start within %v", startTimeout)
		}
	}
	if relay(w.toLibvirt, w.fromController) != nil { // the container has started
		return errGaveUp
	}
	return nil
}

// relay passes one byte on.
func relay(to, from *os.File) error {
	var b [1]byte
	if _, err := from.Read(b[:]); err != nil {
		return err
	}
	_, err := to.Write(b[:])
	return err
}

// verify compares what is in force with what was asked, before the first command
// runs.
func (w *watcher) verify(pid int) error {
	var err error
	if w.init, err = unix.PidfdOpen(pid, 0); err != nil {
		return fmt.Errorf("verify what is in force: %w", err)
	}
	// The record was locked by the process that has become the controller.
	if err := w.remember(pid); err != nil {
		return err
	}
	asked, err := w.record.Planned()
	if err != nil {
		return err
	}
	found, err := effective.Read(pid, asked)
	if err != nil {
		return fmt.Errorf("verify what is in force: %w", err)
	}
	err = effective.Check(asked, found)
	if err != nil && w.onMismatch == "warn" {
		report(fmt.Errorf("warning: domain %s: %w", w.record.ID, err))
		return nil
	}
	return err
}

// remember writes the container's first process into the record.
func (w *watcher) remember(pid int) error {
	const tries, pause = 100, 10 * time.Millisecond
	init, err := state.FindProcess(pid)
	if err != nil {
		return err
	}
	var c *state.Container
	for range tries {
		if c, err = w.dir.Lock(w.record.ID); !errors.Is(err, state.ErrBusy) {
			break
		}
		time.Sleep(pause) // somebody looks whether it is to be cleaned up
	}
	if err != nil {
		return err
	}
	defer c.Close()
	c.Init = &init
	return c.Save()
}

// end sees to it that controller and container end.
func (w *watcher) end() {
	// The last step ends when nobody answers any more, and the controller with it.
	w.gate.Refuse()
	<-w.gate.Done
	if w.init >= 0 {
		_ = unix.PidfdSendSignal(w.init, unix.SIGKILL, nil, 0)
	}
	if !waitFor(w.controller, endTimeout) {
		_ = unix.PidfdSendSignal(w.controller, unix.SIGKILL, nil, 0)
	}
}

// wait waits for the end of a process; there is none behind -1.
func wait(pidfd int) {
	if pidfd >= 0 {
		waitFor(pidfd, -1)
	}
}

// waitFor waits for the end of a process, for ever when the time is negative.
func waitFor(pidfd int, most time.Duration) bool {
	ms := -1
	if most >= 0 {
		ms = int(most.Milliseconds())
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, ms)
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}
