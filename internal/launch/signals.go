// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// forwarder passes signals on to a child.
type forwarder struct {
	signals chan os.Signal
	done    chan struct{}
	once    sync.Once
}

// local are the signals that concern this process alone: what the kernel sends
// about children and pipes, what the Go runtime sends itself, and job control.
var local = map[os.Signal]bool{
	unix.SIGCHLD: true, unix.SIGPIPE: true, unix.SIGURG: true,
	unix.SIGTTIN: true, unix.SIGTTOU: true, unix.SIGTSTP: true, unix.SIGCONT: true,
}

// fromTerminal are the signals that a terminal sends to its whole foreground
// group. A child in the same group has them already.
var fromTerminal = map[os.Signal]bool{
	unix.SIGINT: true, unix.SIGQUIT: true, unix.SIGHUP: true, unix.SIGWINCH: true,
}

// collectSignals begins to collect signals, so that none is lost while the child
// starts; they are delivered from the call of to on.
func collectSignals() *forwarder {
	f := &forwarder{signals: make(chan os.Signal, 64), done: make(chan struct{})}
	signal.Notify(f.signals)
	return f
}

// to delivers what arrives to a child. With sameGroup the child is in this
// process's group.
func (f *forwarder) to(pid int, sameGroup bool) {
	go func() {
		for {
			select {
			case s := <-f.signals:
				if local[s] || sameGroup && fromTerminal[s] && inForeground() {
					continue
				}
				if n, ok := s.(unix.Signal); ok {
					// It fails only when the child has ended, which its wait tells.
					_ = unix.Kill(pid, n)
				}
			case <-f.done:
				return
			}
		}
	}()
}

func (f *forwarder) stop() {
	f.once.Do(func() {
		signal.Stop(f.signals)
		close(f.done)
	})
}

// inForeground reports whether this process's group is the foreground group of
// its terminal.
func inForeground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
