// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/runtime/effective"
	"github.com/palisade-sec/palisade/runtime/laststep"
)

// MismatchError says that less is in force than was asked for.
type MismatchError struct{ Mismatches []effective.Mismatch }

func (e *MismatchError) Error() string {
	parts := make([]string, len(e.Mismatches))
	for i, m := range e.Mismatches {
		parts[i] = m.String()
	}
	return "the container is less confined than asked: " + strings.Join(parts, "; ")
}

// execError says that the workload could not be executed.
type execError struct {
	command string
	code    int
	errno   unix.Errno
}

func (e *execError) Error() string { return fmt.Sprintf("exec %q: %v", e.command, e.errno) }

// gate is our end of the socket on which the last step waits.
type gate struct {
	ours, theirs *os.File
	done         chan struct{}
	// pid is the workload's, 0 while it has not come so far.
	pid int
	err error
}

func newGate() (*gate, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	g := &gate{ours: os.NewFile(uintptr(fds[0]), "gate"), theirs: os.NewFile(uintptr(fds[1]), "gate"), done: make(chan struct{})}
	// The kernel tells who wrote, translated into our PID namespace.
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		g.close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return g, nil
}

func (g *gate) close() {
	g.ours.Close()
	g.theirs.Close()
}

// watch lets the workload start once verify is content with the process that is
// about to become it, and hears of the failure to execute it.
func (g *gate) watch(command string, verify func(pid int) error) {
	defer close(g.done)
	msg, pid, err := g.receive()
	if err != nil || len(msg) != 1 || msg[0] != laststep.Report {
		return // the runtime ended before the last step, and says why
	}
	g.pid = pid
	if g.err = verify(pid); g.err != nil {
		// The step ends when nobody answers any more.
		_ = unix.Shutdown(int(g.ours.Fd()), unix.SHUT_RDWR)
		return
	}
	if _, err := g.ours.Write([]byte{laststep.Go}); err != nil {
		g.err = err
		return
	}
	msg, _, err = g.receive()
	if err == nil && len(msg) == 3 && msg[0] == 'E' {
		g.err = &execError{command, int(msg[1]), unix.Errno(msg[2])}
	}
}

// receive reads one message and the PID of its sender.
func (g *gate) receive() ([]byte, int, error) {
	buf, oob := make([]byte, 16), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(g.ours.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if n == 0 {
			return nil, 0, errors.New("the other end is closed")
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, 0, err
		}
		for _, m := range messages {
			if cred, err := unix.ParseUnixCredentials(&m); err == nil {
				return buf[:n], int(cred.Pid), nil
			}
		}
		return nil, 0, errors.New("a message without a sender")
	}
}
