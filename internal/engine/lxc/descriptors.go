// SPDX-License-Identifier: Apache-2.0

package lxc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// slotSize is the number of descriptors that the last step takes: itself, its
// configuration, and its gate.
const slotSize = 3

// aside is where descriptors that are in the way go, or the next free one above.
const aside = 100

// inherited are the descriptors that libvirt has left open for the controller.
// They are not passed on by accident to what this process starts: [inherited.keep]
// opens them for the controller again.
type inherited []int

// inherit finds the descriptors, and moves those that stand where the last step is
// to stand.
//
// libvirt gives the descriptors of --passfd the numbers from 3 on. That the last
// step is at its number from the beginning has a reason: libvirt wants its path to
// exist before it has moved anything.
func inherit(c *call) (inherited, error) {
	if err := occupySlot(slot(c)); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("inherited descriptors: %w", err)
	}
	var out inherited
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n <= unix.Stderr {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // our own, or the one that the folder was read with
		}
		if at := slot(c); n >= at && n < at+slotSize {
			if n, err = move(c, n); err != nil {
				return nil, err
			}
		}
		unix.CloseOnExec(n)
		out = append(out, n)
	}
	return out, nil
}

// occupySlot takes the numbers of the slot that are free, before the first file is
// opened here: the Go runtime would give one to its poller, and the last step would
// then be put in the poller's place.
func occupySlot(at int) error {
	for n := at; n < at+slotSize; n++ {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
			continue
		}
		if err := occupy(n); err != nil {
			return err
		}
	}
	return nil
}

// occupy puts /dev/null at a number, in the place of what is there.
func occupy(n int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	if null == n {
		return nil
	}
	defer unix.Close(null)
	return os.NewSyscallError("dup3", unix.Dup3(null, n, unix.O_CLOEXEC))
}

// slot is the number of the last step.
func slot(c *call) int { return unix.Stderr + 1 + len(c.fds("passfd")) }

// move gives a descriptor another number.
func move(c *call, from int) (int, error) {
	to, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, aside)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	locks := recordLocks(from)
	if err := occupy(from); err != nil {
		return 0, err
	}
	c.moved(from, to)
	// Closing one descriptor of a file gives up all locks of the process on it:
	// libvirt locks the file with the number of this process.
	for _, l := range locks {
		if err := unix.FcntlFlock(uintptr(to), unix.F_SETLK, &l); err != nil {
			return 0, os.NewSyscallError("fcntl", err)
		}
	}
	return to, nil
}

// recordLocks are the locks of this process on the file of a descriptor.
//
// Source: fs/locks.c, lock_get_status.
func recordLocks(n int) []unix.Flock_t {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(n))
	if err != nil {
		return nil
	}
	var out []unix.Flock_t
	for line := range strings.Lines(string(b)) {
		// lock: 1: POSIX ADVISORY WRITE 1842 00:2e:5 0 EOF
		f := strings.Fields(line)
		if len(f) != 9 || f[0] != "lock:" || f[2] != "POSIX" {
			continue
		}
		start, err := strconv.ParseInt(f[7], 10, 64)
		if err != nil {
			continue
		}
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: start}
		if f[4] == "READ" {
			l.Type = unix.F_RDLCK
		}
		if end, err := strconv.ParseInt(f[8], 10, 64); err == nil {
			l.Len = end - start + 1
		}
		out = append(out, l)
	}
	return out
}

// keep leaves the descriptors open for what this process becomes, but those in
// without.
func (in inherited) keep(without ...int) error {
	for _, n := range in {
		if slices.Contains(without, n) {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	return nil
}

// place puts files at the numbers from at on, open for what this process becomes.
func place(at int, files ...*os.File) error {
	var high []int
	// Out of the way first: one may have been opened where another goes.
	for _, f := range files {
		n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, aside)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		high = append(high, n)
	}
	for i, n := range high {
		if err := unix.Dup3(n, at+i, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// pass opens a file for what this process becomes, and returns its number there:
// one that is not in the slot.
func pass(f *os.File) (int, error) {
	n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, aside)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	return n, nil
}
