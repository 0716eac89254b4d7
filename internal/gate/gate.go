// SPDX-License-Identifier: Apache-2.0

// Package gate holds a container back between its last step and its workload: the
// step waits on a socket until what is in force has been compared with what was
// asked. Should the process at the other end be killed, the workload does not run.
package gate

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// ExecError says that the workload could not be executed.
type ExecError struct {
	Command string
	// Code is the exit code that shells have for it.
	Code  int
	Errno unix.Errno
}

func (e *ExecError) Error() string { return fmt.Sprintf("exec %q: %v", e.Command, e.Errno) }

// refusedError says that the last step ended since it could not put in force what
// its configuration says.
type refusedError struct {
	// Reason is the step's, in printable characters.
	Reason string
}

func (e *refusedError) Error() string { return e.Reason }

// Gate is the socket on which the last step waits.
type Gate struct {
	// Ours is the end to watch, Theirs the one for the step; nil where another
	// process has it.
	Ours, Theirs *os.File
	// Done is closed when Watch has returned; PID and Err hold from then on.
	Done chan struct{}
	// PID is the workload's, 0 when it has not come so far.
	PID int
	// Err is why the workload does not run.
	Err error
}

// New makes both ends.
func New() (*Gate, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	g := Open(os.NewFile(uintptr(fds[0]), "gate"))
	g.Theirs = os.NewFile(uintptr(fds[1]), "gate")
	// The kernel tells who wrote, translated into our PID namespace.
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		g.Close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return g, nil
}

// Open is the gate of which another process has made both ends.
func Open(ours *os.File) *Gate { return &Gate{Ours: ours, Done: make(chan struct{})} }

// Close closes the ends that are here.
func (g *Gate) Close() {
	g.Ours.Close()
	if g.Theirs != nil {
		g.Theirs.Close()
	}
}

// Refuse ends the step, which waits for an answer that will not come, and Watch.
func (g *Gate) Refuse() { _ = unix.Shutdown(int(g.Ours.Fd()), unix.SHUT_RDWR) }

// Watch lets the workload start once verify is content with the process that is
// about to become it, and hears of the failure to execute it.
func (g *Gate) Watch(command string, verify func(pid int) error) {
	defer close(g.Done)
	msg, pid, err := g.receive()
	if err != nil {
		return // the runtime ended before the last step, and says why
	}
	switch {
	case len(msg) == 1 && msg[0] == laststep.Report:
	case len(msg) > 1 && msg[0] == laststep.Refused:
		g.Err = &refusedError{printable(msg[1:])}
		return
	default:
		g.Err = errMessage
		g.Refuse()
		return
	}
	g.PID = pid
	if g.Err = verify(pid); g.Err != nil {
		// The step ends when no answer any more.
		g.Refuse()
		return
	}
	if _, err := g.Ours.Write([]byte{laststep.Go}); err != nil {
		g.Err = err
		return
	}
	msg, _, err = g.receive()
	if err == nil && len(msg) == 3 && msg[0] == laststep.NotExecuted {
		g.Err = &ExecError{command, int(msg[1]), unix.Errno(msg[2])}
	}
}

var errMessage = errors.New("the last step sent a message that is none of its own")

// printable is text that came from inside a container, without control characters.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}

// receive reads one message and the PID of its sender.
func (g *Gate) receive() ([]byte, int, error) {
	buf, oob := make([]byte, laststep.MaxMessage), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(g.Ours.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
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
