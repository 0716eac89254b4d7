// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/laststep"
)

// slot is where the last step goes among the descriptors that the runtime passes
// on: behind those that the caller wants passed on.
type slot struct {
	fd int
	// before is the number of descriptors that the caller has --preserve-fds for.
	before int
}

// path is how the step is executed, empty without one.
func (s *slot) path() string {
	if s == nil {
		return ""
	}
	return handover.Path(s.fd)
}

// slotSize is the number of descriptors that a step takes: itself, and its
// configuration.
const slotSize = 2

// aside is where descriptors that are in the way go, or the next free one above.
const aside = 100

// reserve finds the place, and keeps it free of what this process opens later.
//
// Engines leave descriptors of their own open when they call a runtime, the
// containerd shim its socket. The runtime neither knows nor passes them on; they
// stay open under another number. Only when the command line names one by its
// number it is not moved, and free is false.
func reserve(c *call) (s slot, free bool, err error) {
	if s.before, err = c.preserved(); err != nil {
		return s, false, err
	}
	s.fd = 3 + listenFDs() + s.before
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, false, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	for fd := s.fd; fd < s.fd+slotSize; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			// It was open when we were executed.
			if c.mentions(fd) {
				return s, false, nil
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, aside); err != nil {
				return s, false, os.NewSyscallError("fcntl", err)
			}
		}
		if fd == null {
			continue
		}
		if err := unix.Dup3(null, fd, unix.O_CLOEXEC); err != nil {
			return s, false, os.NewSyscallError("dup3", err)
		}
	}
	return s, true, nil
}

// mentions tells whether an argument names a descriptor by its number.
func (c *call) mentions(fd int) bool {
	suffix := fmt.Sprintf("/fd/%d", fd)
	return slices.ContainsFunc(c.args(), func(a string) bool { return strings.HasSuffix(a, suffix) })
}

// slot is the place for a step under a policy, or nil when there is no step to
// hand over or no room for it; then the runtime has to filter.
func (w *wrapper) slot(newPrivileges bool) (*slot, error) {
	if newPrivileges || !w.free {
		return nil, nil
	}
	if wanted, err := handover.Wanted(); err != nil || !wanted {
		return nil, err
	}
	s := w.place
	return &s, nil
}

// listenFDs is the number of sockets that were handed to this process by socket
// activation, which runtimes pass on in front of the others.
//
// Source: sd_listen_fds(3).
func listenFDs() int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// handOver puts the step and its configuration where the runtime finds them.
func (w *wrapper) handOver(s *slot, step *laststep.Config, label string) error {
	program, err := handover.Program(label)
	if err != nil {
		return err
	}
	config, err := handover.Config(step, label)
	if err != nil {
		return err
	}
	// Out of the way first: one may have been opened where the other goes.
	for i, f := range []*os.File{program, config} {
		high, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, s.fd+slotSize)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		f.Close()
		defer unix.Close(high)
		// Without the flag that closes it on exec.
		if err := unix.Dup3(high, s.fd+i, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	w.call.setPreserved(s.before + slotSize)
	return nil
}

func hostNetwork(s *specs.Spec) bool {
	if s.Linux == nil {
		return true
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path != "" && sameAsOurs(ns.Path)
		}
	}
	return true
}

// sameAsOurs tells whether a path names the network namespace of this process.
func sameAsOurs(path string) bool {
	theirs, err1 := os.Stat(path)
	ours, err2 := os.Stat("/proc/self/ns/net")
	return err1 == nil && err2 == nil && os.SameFile(theirs, ours)
}

// writable are the destinations of volumes that the engine mounts for writing.
func writable(s *specs.Spec) []string {
	var out []string
	for _, m := range s.Mounts {
		ro, bind := false, m.Type == "bind"
		for _, o := range m.Options {
			ro = ro || o == "ro"
			bind = bind || o == "bind" || o == "rbind"
		}
		if bind && !ro && strings.HasPrefix(m.Destination, "/") {
			out = append(out, m.Destination)
		}
	}
	return out
}

var errNoSlot = fmt.Errorf("no room for the last step: %w", handover.ErrNoInit)
