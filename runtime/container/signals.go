// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// forwarder passes signals on to a child.
type forwarder struct {
	signals chan os.Signal
	ready   chan struct{}
	done    chan struct{}
	once    sync.Once
}

// local are the signals that concern this process alone: what the kernel sends
// about children and pipes, what the Go runtime sends itself, and job control.
var local = map[os.Signal]bool{
	unix.SIGCHLD: true, unix.SIGPIPE: true, unix.SIGURG: true,
	unix.SIGTTIN: true, unix.SIGTTOU: true, unix.SIGTSTP: true, unix.SIGCONT: true,
}

// forwardSignals begins to collect signals, so that none is lost while the child
// starts; they are delivered once started is called.
func forwardSignals(cmd *exec.Cmd) *forwarder {
	f := &forwarder{signals: make(chan os.Signal, 64), ready: make(chan struct{}), done: make(chan struct{})}
	signal.Notify(f.signals)
	go func() {
		select {
		case <-f.ready:
		case <-f.done:
			return
		}
		for {
			select {
			case s := <-f.signals:
				if !local[s] {
					// It fails only when the child has ended, which Wait tells.
					_ = cmd.Process.Signal(s)
				}
			case <-f.done:
				return
			}
		}
	}()
	return f
}

func (f *forwarder) started() { close(f.ready) }

func (f *forwarder) stop() {
	f.once.Do(func() {
		signal.Stop(f.signals)
		close(f.done)
	})
}
