// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package install puts compiled seccomp filters into the kernel and reads them
// back from running processes.
//
// It takes ready filters, as seccomp.Program.Bytes gives them, and imports next to
// nothing, so that the last program before a container's own can use it without
// paying for a compiler at every start.
package install

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of seccomp(2)'s SECCOMP_SET_MODE_FILTER. Source:
// include/uapi/linux/seccomp.h.
type Flags uint

// The flags.
const (
	TSync            Flags = 1 << 0 // all threads of the process, not only this one
	Log              Flags = 1 << 1 // log what is denied
	SpecAllow        Flags = 1 << 2 // no mitigation of speculative store bypass
	NewListener      Flags = 1 << 3 // a descriptor that NOTIFY calls arrive on
	TSyncESRCH       Flags = 1 << 4 // say ESRCH when TSync fails; added where needed
	WaitKillableRecv Flags = 1 << 5 // a call that was notified of can only be killed
)

// Errors of this package. Those of the kernel are syscall.Errno: EACCES without
// no_new_privs and CAP_SYS_ADMIN, EINVAL for a filter or flag that the kernel does
// not take, ENOMEM when all filters together are too long, EBUSY when there is a
// listener already.
var (
	ErrFilter = errors.New("seccomp: the filter is no array of 1 to 4096 instructions")
	ErrFlags  = errors.New("seccomp: WAIT_KILLABLE_RECV needs NEW_LISTENER")
	ErrThread = errors.New("seccomp: a thread could not take the filter")
	ErrName   = errors.New("seccomp: unknown flag")
)

const instructionSize = 8

// ParseFlags reads the flags' names as profiles have them. TSYNC is left out
// where thread is true: a runtime that installs a filter on the one thread that
// will become the workload must not wait for the others.
func ParseFlags(names []string, thread bool) (Flags, error) {
	var f Flags
	for _, n := range names {
		switch n {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			if !thread {
				f |= TSync
			}
		case "SECCOMP_FILTER_FLAG_LOG":
			f |= Log
		case "SECCOMP_FILTER_FLAG_SPEC_ALLOW":
			f |= SpecAllow
		case "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
			f |= WaitKillableRecv
		default:
			return 0, ErrName
		}
	}
	return f, nil
}

// NoNewPrivs sets no_new_privs on the calling thread, which lets it install
// filters without CAP_SYS_ADMIN. It cannot be taken back.
func NoNewPrivs() error {
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// Load installs a filter on the calling thread, or with TSync on all threads. It
// cannot be taken back. The caller has locked its goroutine to the thread
// (runtime.LockOSThread), unless it sets TSync.
//
// With NewListener the descriptor of the listener is returned, close-on-exec;
// otherwise -1.
func Load(filter []byte, flags Flags) (listener int, err error) {
	n := len(filter) / instructionSize
	if n == 0 || n > 4096 || len(filter)%instructionSize != 0 {
		return -1, ErrFilter
	}
	if flags&WaitKillableRecv != 0 && flags&NewListener == 0 {
		return -1, ErrFlags
	}
	if flags&(TSync|NewListener) == TSync|NewListener {
		// Otherwise a positive result could be a thread or a descriptor.
		flags |= TSyncESRCH
	}
	prog := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(filter)))}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	runtime.KeepAlive(&prog)
	switch {
	case errno == unix.ESRCH && flags&TSyncESRCH != 0:
		return -1, ErrThread
	case errno != 0:
		return -1, errno
	case flags&NewListener != 0:
		return int(r), nil
	case r != 0:
		return -1, ErrThread
	}
	return -1, nil
}

// Supported tells whether the kernel knows all of the flags. It installs
// nothing: the kernel looks at the flags before it looks for the filter.
func Supported(flags Flags) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
	return errno == syscall.EFAULT
}

// ActionSupported tells whether the kernel knows an action, such as
// unix.SECCOMP_RET_USER_NOTIF.
func ActionSupported(action uint32) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}
