// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptraceSeccompGetFilter is not in x/sys.
//
// Source: include/uapi/linux/ptrace.h; kernel/seccomp.c, seccomp_get_filter.
const ptraceSeccompGetFilter = 0x420c

const (
	sockFilterSize  = 8
	maxInstructions = 4096
	maxFilters      = 1024
)

// filterHashes stops the process for a moment and hashes its filters, the newest
// first. It is nil when they cannot be read: the process is traced by someone
// else, this one is itself filtered, or the kernel lacks the interface.
func filterHashes(pid int) []string {
	out := make(chan []string, 1)
	go func() {
		// A tracer is a thread. It ends with this goroutine, and what it traces is then
		// traced no more, whatever else failed.
		runtime.LockOSThread()
		out <- readFilters(pid)
	}()
	return <-out
}

func readFilters(pid int) []string {
	if err := ptrace(unix.PTRACE_SEIZE, pid, 0, 0); err != 0 {
		return nil
	}
	defer func() { _ = ptrace(unix.PTRACE_DETACH, pid, 0, 0) }()
	if err := ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0); err != 0 {
		return nil
	}
	if !stopped(pid) {
		return nil
	}
	return hashFilters(pid)
}

// hashFilters hashes the filters of a process that is stopped for this thread.
func hashFilters(pid int) []string {
	hashes := []string{}
	buf := make([]byte, maxInstructions*sockFilterSize)
	for i := range maxFilters {
		n, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceSeccompGetFilter, uintptr(pid), uintptr(i), uintptr(unsafe.Pointer(&buf[0])), 0, 0)
		if errno == unix.ENOENT || errno == unix.EINVAL && i == 0 {
			break // there is none of that number, or none at all
		}
		if errno != 0 || n > maxInstructions {
			return nil
		}
		sum := sha256.Sum256(buf[:n*sockFilterSize])
		hashes = append(hashes, hex.EncodeToString(sum[:]))
	}
	return hashes
}

// stopped waits until the process has stopped for us. A signal that arrives in
// between is given back to it.
func stopped(pid int) bool {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || !ws.Stopped() {
			return false
		}
		const eventStop = 128 // PTRACE_EVENT_STOP
		if ws.TrapCause() == eventStop || int(ws)>>16 == eventStop {
			return true
		}
		if e := ptrace(unix.PTRACE_CONT, pid, 0, uintptr(ws.StopSignal())); e != 0 {
			return false
		}
	}
}

func ptrace(request, pid int, addr, data uintptr) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	return errno
}
