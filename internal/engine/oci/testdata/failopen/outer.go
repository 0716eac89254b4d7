// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The environment says what outer changes before it becomes its arguments.
const (
	// envHide detaches what is mounted at this path.
	envHide = "OUTER_HIDE"
	// envReadOnly makes a folder read-only, envTmpfs ("FOLDER=OPTIONS") mounts an
	// empty file system over one.
	envReadOnly = "OUTER_READONLY"
	envTmpfs    = "OUTER_TMPFS"
	// envRefuse is a system call and the error that it is answered with: NAME=ERRNO.
	envRefuse = "OUTER_REFUSE"
)

func outer() error {
	runtime.LockOSThread() // everything is this thread's, and it executes the command
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if dir := os.Getenv(envHide); dir != "" {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount %s: %w", dir, err)
		}
	}
	if dir := os.Getenv(envReadOnly); dir != "" {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("remount %s: %w", dir, err)
		}
	}
	if dir, options, ok := strings.Cut(os.Getenv(envTmpfs), "="); ok {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,"+options); err != nil {
			return fmt.Errorf("tmpfs at %s: %w", dir, err)
		}
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	if name, answer, ok := strings.Cut(os.Getenv(envRefuse), "="); ok {
		n, err := strconv.Atoi(answer)
		if err == nil {
			err = refuse(name, n)
		}
		if err != nil {
			return fmt.Errorf("refuse %s: %w", name, err)
		}
	}
	return unix.Exec(path, os.Args[1:], os.Environ())
}

var calls = map[string]uint32{
	"seccomp": unix.SYS_SECCOMP, "landlock_create_ruleset": unix.SYS_LANDLOCK_CREATE_RULESET,
	"landlock_add_rule": unix.SYS_LANDLOCK_ADD_RULE, "landlock_restrict_self": unix.SYS_LANDLOCK_RESTRICT_SELF,
	"memfd_create": unix.SYS_MEMFD_CREATE, "ptrace": unix.SYS_PTRACE, "pidfd_open": unix.SYS_PIDFD_OPEN,
	"openat2": unix.SYS_OPENAT2, "close_range": unix.SYS_CLOSE_RANGE, "capset": unix.SYS_CAPSET,
	"mount_setattr": unix.SYS_MOUNT_SETATTR, "statx": unix.SYS_STATX,
}

// prctls are refused by their first argument.
var prctls = map[string]uint32{"prctl(PR_SET_NO_NEW_PRIVS)": unix.PR_SET_NO_NEW_PRIVS, "prctl(PR_CAP_AMBIENT)": unix.PR_CAP_AMBIENT}

// refuse installs a filter that answers one call with an error.
func refuse(name string, errno int) error {
	number, ok := calls[name]
	option, byOption := prctls[name]
	if byOption {
		number = unix.SYS_PRCTL
	} else if !ok {
		return fmt.Errorf("unknown system call")
	}
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	const load, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_RET | unix.BPF_K
	program := []unix.SockFilter{stmt(load, 0), unless(number, 1), stmt(ret, unix.SECCOMP_RET_ERRNO|uint32(errno)), stmt(ret, unix.SECCOMP_RET_ALLOW)}
	if byOption {
		const firstArgument = 16
		program = []unix.SockFilter{
			stmt(load, 0), unless(number, 3), stmt(load, firstArgument), unless(option, 1),
			stmt(ret, unix.SECCOMP_RET_ERRNO|uint32(errno)), stmt(ret, unix.SECCOMP_RET_ALLOW),
		}
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return e
	}
	return nil
}
