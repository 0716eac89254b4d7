// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is the first descriptor that a runtime passes on.
const firstFD = 3

// passed is how many descriptors a runtime is to pass on for its caller: the
// sockets of socket activation, then those of --preserve-fds.
type passed struct {
	sockets, preserved int
	// empty stands for those that are not open.
	empty *os.File
}

// readPassed reads it from the environment and the command line. Socket activation
// names the process by its number, which the runtime has not: so its sockets are
// passed on as descriptors of the caller, and the container is told of them.
//
// Source: sd_listen_fds(3); runc utils_linux.go, activation.Files.
func readPassed(c *commandLine) (passed, error) {
	var p passed
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) || c.Grammar.Runtime == "crun" { // crun does not look
		if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 {
			p.sockets = n
		}
	}
	p.preserved = c.Int("preserve-fds")
	if p.sockets > mostPassed || p.preserved > mostPassed || p.total() > mostPassed {
		return p, fmt.Errorf("%d descriptors to pass on, want at most %d", p.total(), mostPassed)
	}
	if c.Grammar.Runtime == "crun" {
		// It passes on those that are open, whatever their number.
		for p.preserved > 0 && !inherited(p.step()-1) {
			p.preserved--
		}
	}
	for fd := firstFD; fd < p.step(); fd++ {
		switch {
		case inherited(fd):
		case c.Grammar.Runtime != "crun":
			return p, fmt.Errorf("descriptor %d, which is to be passed on, is not open", fd)
		case p.empty == nil:
			var err error
			if p.empty, err = os.Open(os.DevNull); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// mostPassed bounds how many descriptors are passed on.
const mostPassed = 1 << 16

// inherited reports whether a descriptor is of the caller. Those that this process
// has opened itself are closed on execution.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

func (p passed) total() int { return p.sockets + p.preserved }

// step is the number under which the last step is handed over.
func (p passed) step() int { return firstFD + p.total() }

// env is what the container's process is told of its sockets. The last step puts
// the process's own number in.
func (p passed) env() []string {
	if p.sockets == 0 {
		return nil
	}
	return []string{"LISTEN_FDS=" + strconv.Itoa(p.sockets), "LISTEN_PID=1"}
}

// files are the runtime's descriptors: the standard streams, what the caller wants
// passed on, then more. A number that is free between those of the caller gets an empty
// file, so that nothing of the runtime's own can take it.
func (p passed) files(more ...*os.File) []*os.File {
	out := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := firstFD; fd < p.step(); fd++ {
		f := p.empty
		if inherited(fd) {
			f = os.NewFile(uintptr(fd), "inherited")
		}
		out = append(out, f)
	}
	return append(out, more...)
}

// runtimeEnv is the runtime's environment: without socket activation, which has been
// turned into descriptors, and without what has crun hand system calls over.
func runtimeEnv() []string {
	return slices.DeleteFunc(cleanEnvironment(os.Environ()), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "LISTEN_") || name == "RUN_OCI_SECCOMP_RECEIVER"
	})
}

// keepNamed moves descriptors that options name by number out of the way of those
// that are handed over.
func keepNamed(c *commandLine) error {
	for _, options := range []*options{&c.Global, &c.options} {
		for _, name := range options.Names() {
			value := options.Value(name)
			fd, ok := namedFD(value)
			// A path inside the container names no descriptor of the caller.
			if !ok || fd < firstFD || options.find(name).Path == noPath {
				continue
			}
			n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, aside(c))
			if err != nil {
				return fmt.Errorf("--%s %s: %w", name, value, err)
			}
			if err := options.Set(name, "/proc/self/fd/"+strconv.Itoa(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// aside is a number above all descriptors that are passed on.
func aside(c *commandLine) int {
	sockets, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")) // 0 for what is no number
	const least, own = 100, 8
	return max(least, firstFD+min(max(sockets, 0), mostPassed)+min(max(c.Int("preserve-fds"), 0), mostPassed)+own)
}

// namedFD is the descriptor that a path names.
func namedFD(path string) (int, bool) {
	for _, prefix := range []string{"/proc/self/fd/", "/dev/fd/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			n, err := strconv.Atoi(rest)
			return n, err == nil && n >= 0 && strconv.Itoa(n) == rest
		}
	}
	return 0, false
}

// notifyPoint is where the runtime mounts the folder of the socket through which a
// service says that it is ready; empty for nowhere.
//
// Source: sd_notify(3); runc 1.1.5, notify_socket.go; crun 1.8.1,
// src/libcrun/container.c, get_notify_fd.
func notifyPoint(c *commandLine, socket string) string {
	switch {
	case socket == "":
		return ""
	case c.Grammar.Runtime == "crun":
		return filepath.Clean("/" + socket)
	}
	return "/run/notify"
}
