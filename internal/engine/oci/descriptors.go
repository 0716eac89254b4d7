// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is the first descriptor that a runtime passes on.
const firstFD = 3

// passed is how many descriptors a runtime is to pass on for its caller: the
// sockets of socket activation, then those of --preserve-fds.
type passed struct{ sockets, preserved int }

// readPassed reads it from the environment and the command line. Socket activation
// names the process by its number, which the runtime has not: so its sockets are
// passed on as descriptors of the caller, and the container is told of them.
//
// Source: sd_listen_fds(3); runc utils_linux.go, activation.Files.
func readPassed(c *Call) (passed, error) {
	var p passed
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) || c.Grammar.Runtime == "crun" { // crun does not look
		if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 {
			p.sockets = n
		}
	}
	p.preserved = c.Int("preserve-fds")
	const most = 1 << 16
	if p.total() > most {
		return p, fmt.Errorf("%d descriptors to pass on, want at most %d", p.total(), most)
	}
	for fd := firstFD; fd < firstFD+p.total(); fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return p, fmt.Errorf("descriptor %d, which is to be passed on, is not open", fd)
		}
	}
	return p, nil
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
// passed on, then more.
func (p passed) files(more ...*os.File) []*os.File {
	out := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := firstFD; fd < firstFD+p.total(); fd++ {
		out = append(out, os.NewFile(uintptr(fd), "inherited"))
	}
	return append(out, more...)
}

// runtimeEnv is the runtime's environment: without socket activation, which has been
// turned into descriptors, and without what has crun hand system calls over.
func runtimeEnv() []string {
	return slices.DeleteFunc(CleanEnvironment(os.Environ()), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "LISTEN_") || name == "RUN_OCI_SECCOMP_RECEIVER"
	})
}

// keepNamed moves descriptors that options name by number out of the way of those
// that are handed over.
func keepNamed(c *Call) error {
	for _, options := range []*Options{&c.Global, &c.Options} {
		for _, name := range options.Names() {
			value := options.Value(name)
			fd, ok := namedFD(value)
			// A path inside the container names no descriptor of the caller.
			if !ok || fd < firstFD || options.find(name).Path == NoPath {
				continue
			}
			const aside = 100
			n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, aside)
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
