// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install

import (
	"errors"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotSupported is returned where the kernel cannot hand filters out, because
// it was built without CONFIG_CHECKPOINT_RESTORE.
var ErrNotSupported = errors.New("seccomp: the kernel does not hand out filters (CONFIG_CHECKPOINT_RESTORE is off)")

// ErrStopped is returned when a process could not be brought to a halt in time.
var ErrStopped = errors.New("seccomp: the process did not stop")

const maxStacked = 32768

// Filters reads the filters of a thread, the newest first, each a raw array of
// struct sock_filter in the byte order of this machine. It stops the thread for
// a moment with ptrace, which the caller must be allowed to do: root with
// CAP_SYS_ADMIN in the initial user namespace, under no filter itself.
func Filters(tid int) (filters [][]byte, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(tid); err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if stopped {
			_ = unix.PtraceDetach(tid)
		}
	}()
	if err := unix.PtraceInterrupt(tid); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(5 * time.Second)
	for !stopped {
		var status unix.WaitStatus
		pid, err := unix.Wait4(tid, &status, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case pid == tid && (status.Exited() || status.Signaled()):
			return nil, syscall.ESRCH
		case pid == tid && status.Stopped():
			stopped = true
		case time.Now().After(deadline):
			return nil, ErrStopped
		default:
			time.Sleep(200 * time.Microsecond)
		}
	}
	for i := 0; i < maxStacked; i++ {
		n, errno := getFilter(tid, i, nil)
		switch errno {
		case 0:
		case unix.ENOENT:
			return filters, nil
		case unix.EINVAL: // no filter at all
			return filters, nil
		case unix.EIO:
			return nil, ErrNotSupported
		default:
			return nil, errno
		}
		b := make([]byte, n*instructionSize)
		if n == 0 {
			continue
		}
		if _, errno := getFilter(tid, i, b); errno != 0 {
			return nil, errno
		}
		filters = append(filters, b)
	}
	return filters, nil
}

func getFilter(tid, index int, into []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(tid), uintptr(index), uintptr(unsafe.Pointer(unsafe.SliceData(into))), 0, 0)
	runtime.KeepAlive(into)
	return int(n), errno
}
