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

	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// watchCommand begins the command line of the watcher.
const watchCommand = "watch"

// onMismatchWarn lets a domain run of which less is in force than was asked for.
const onMismatchWarn = "warn"

// Bounds of waiting: for a container to come from the controller's start to its
// first command, and for the controller to end once its container has.
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
	readyFD
	lockFD
)

var (
	// errNoStep says that the last step did not come so far as to report.
	errNoStep     = errors.New("the container ended before palisade-init had confined it")
	errGaveUp     = errors.New("libvirt gave up starting it")
	errController = errors.New("libvirt's controller ended before the container had started")
)

// watcher accompanies one container from before its controller is executed to its
// end.
type watcher struct {
	host      *launch.Host
	container *state.Container
	gate      *gate.Gate

	fromController, toController *os.File
	fromLibvirt, toLibvirt       *os.File
	ready                        *os.File // tells the controller's process to go on
	controller                   int      // its pidfd
	init                         int      // that of the container's first process, or -1
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
	unix.CloseOnExec(controllerFD)
	w := &watcher{
		gate:           gate.Open(file(gateFD)),
		fromController: file(fromControllerFD), toController: file(toControllerFD),
		fromLibvirt: file(fromLibvirtFD), toLibvirt: file(toLibvirtFD), ready: file(readyFD), controller: controllerFD, init: -1,
	}
	key := args[1]
	if w.container, err = dir.Adopt(key, file(lockFD)); err == nil {
		id := w.container.ID
		w.host = &launch.Host{
			Dir: dir, Registry: registry(dir), Lenient: args[2] == onMismatchWarn,
			Warn: func(err error) { report(fmt.Errorf("warning: domain %s: %w", id, err)) },
		}
		if err = w.accompany(); err != nil {
			// Who takes the container back has said why it did not start.
			if _, gone := dir.Get(key); !errors.Is(gone, state.ErrNotFound) {
				report(fmt.Errorf("domain %s: %w", id, err))
			}
		}
		w.container.Close()
	} else {
		report(err)
	}
	if err != nil {
		w.end()
	}
	// libvirt reads why when it sees that nobody will say more.
	for _, f := range []*os.File{w.fromController, w.toController, w.fromLibvirt, w.toLibvirt, w.ready} {
		f.Close()
	}
	w.gate.Close()
	debug.FreeOSMemory()
	wait(w.controller)
	wait(w.init)
	if cerr := gc.CollectOne(dir, registry(dir), key); cerr != nil && !errors.Is(cerr, state.ErrNotFound) && !errors.Is(cerr, state.ErrBusy) {
		report(cerr)
		return failed
	}
	if err != nil {
		return failed
	}
	return 0
}

// accompany holds the container until it is verified, and passes on what controller
// and libvirt tell each other; the last of it, that the container has started, when it
// has been let go. With an error libvirt has not heard that.
//
// Source: src/lxc/lxc_process.c, virLXCProcessStart; src/lxc/lxc_controller.c,
// virLXCControllerRun.
func (w *watcher) accompany() error {
	// What is in force is verified when the first command has been executed. The gate
	// says why it could not be.
	go w.gate.Watch(w.container.Command[0], func(int) error { return nil })
	begun := make(chan error, 1)
	go func() { begun <- w.begin() }()
	over, cancel, relayed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { relayed <- w.failure(begun, over, cancel) }()
	pid, err := w.host.Follow(w.container, launch.Maker{
		PID: w.container.Controller.PID, Timeout: startTimeout, Cancel: cancel,
		Ready: func() error {
			_, err := w.ready.Write([]byte{1})
			return err
		},
	})
	close(over)
	if err != nil {
		return w.why(err, <-relayed)
	}
	if w.init, err = openProcess(w.container.Init); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	if err := <-relayed; err != nil {
		return err
	}
	return relay(w.toLibvirt, w.fromController, errGaveUp, errController) // the container has started
}

// begin passes on what is said before the container begins.
func (w *watcher) begin() error {
	if err := relay(w.toLibvirt, w.fromController, errGaveUp, errController); err != nil { // there are control groups
		return err
	}
	return relay(w.toController, w.fromLibvirt, errController, errGaveUp) // go on
}

// relay passes one byte on. The errors are for an end at either side.
func relay(to, from *os.File, noReader, noWriter error) error {
	var b [1]byte
	if _, err := from.Read(b[:]); err != nil {
		return noWriter
	}
	if _, err := to.Write(b[:]); err != nil {
		return noReader
	}
	return nil
}

// failure waits for what makes a start fail, and then cancels it: the controller ends;
// or libvirt gives up, or the last step ends without the first command, after which a
// controller has a moment to clean up by itself. It returns what begun has said, nil
// for nothing yet.
func (w *watcher) failure(begun <-chan error, over <-chan struct{}, cancel chan<- struct{}) error {
	var said error
	stepped, ended := w.gate.Done, make(chan struct{})
	go func() {
		wait(w.controller)
		close(ended)
	}()
	var grace <-chan time.Time
	for {
		failed := false
		select {
		case <-over:
			return said
		case <-ended:
			close(cancel)
			return said
		case <-grace:
			close(cancel)
			return said
		case <-stepped:
			stepped = nil
			failed = w.gate.Err != nil || w.gate.PID == 0
		case said = <-begun:
			begun = nil
			failed = said != nil
		}
		if failed && grace == nil {
			w.gate.Refuse()
			grace = time.After(endTimeout)
		}
	}
}

// why finds the reason of a start that failed with err.
func (w *watcher) why(err, relayed error) error {
	w.gate.Refuse()
	<-w.gate.Done
	switch {
	case !errors.Is(err, launch.ErrNotReached) && !errors.Is(err, hold.ErrCancelled):
		return err
	case w.gate.Err != nil:
		return w.gate.Err
	case errors.Is(relayed, errGaveUp):
		return errGaveUp
	case w.gate.PID == 0:
		return errNoStep
	}
	return errController
}

// openProcess is a pidfd of a process that may have ended, -1 then.
func openProcess(p *state.Process) (int, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, nil
	case err != nil:
		return -1, os.NewSyscallError("pidfd_open", err)
	case !p.Alive(): // it may be another one with this number
		unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// end sees to it that controller and container end. A controller that is left cleans
// up when its container has ended.
func (w *watcher) end() {
	w.gate.Refuse()
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
	deadline := time.Now().Add(most)
	for {
		ms := -1
		if most >= 0 {
			ms = max(0, int(time.Until(deadline).Milliseconds()))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, ms)
		if err != unix.EINTR {
			return n > 0
		}
	}
}
