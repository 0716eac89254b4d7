// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A probe makes a system call in a way that changes nothing, and returns its error.
type probe struct {
	name string
	try  func() error
}

func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return e
	}
	return nil
}

// rawFD is raw for calls that return a descriptor.
func rawFD(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	fd, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return e
	}
	return unix.Close(int(fd))
}

func sock(family, kind, proto int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

// bad is a descriptor that is not open, none an argument of -1.
const (
	bad  = ^uintptr(0)
	none = ^uintptr(0)
)

var zeros [256]byte

func ptr() uintptr { return uintptr(unsafe.Pointer(&zeros[0])) }

func str(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(b))
}

// clone starts a process in new namespaces, which ends at once.
func clone(flags uintptr) func() error {
	return func() error {
		cmd := exec.Command("/inside", "status")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		err := cmd.Start()
		if err == nil {
			return cmd.Wait()
		}
		if pe, ok := err.(*os.PathError); ok {
			return pe.Err
		}
		return err
	}
}

var probes = []probe{
	{"keyctl", func() error { return raw(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 0) }},
	{"keyctl-watch", func() error { return raw(unix.SYS_KEYCTL, 32, ^uintptr(2), bad, 0) }},
	{"add_key", func() error { return raw(unix.SYS_ADD_KEY, str("palisade-none"), str("x"), 0, 0, ^uintptr(2)) }},
	{"request_key", func() error { return raw(unix.SYS_REQUEST_KEY, str("palisade-none"), str("x"), 0, 0) }},
	{"bpf", func() error { return raw(unix.SYS_BPF, 9999, ptr(), 64) }},
	{"unshare-user", func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER) }},
	{"clone-user", clone(unix.CLONE_NEWUSER)},
	{"clone3", func() error { return raw(unix.SYS_CLONE3, ptr(), 8) }},
	{"mount", func() error { return raw(unix.SYS_MOUNT, str("none"), str("/palisade-none"), str("overlay"), 0, 0) }},
	{"mount-cgroup", func() error { return raw(unix.SYS_MOUNT, str("none"), str("/palisade-none"), str("cgroup"), 0, 0) }},
	{"umount2", func() error { return raw(unix.SYS_UMOUNT2, str("/palisade-none"), 0) }},
	{"vsock", sock(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
	{"alg", sock(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
	{"packet", sock(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{"netlink-route", sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
	{"netlink-netfilter", sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)},
	{"netlink-xfrm", sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM)},
	{"netlink-diag", sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)},
	{"rxrpc", sock(unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET)},
	{"xdp", sock(unix.AF_XDP, unix.SOCK_RAW, 0)},
	{"tipc", sock(unix.AF_TIPC, unix.SOCK_RDM, 0)},
	{"smc", sock(unix.AF_SMC, unix.SOCK_STREAM, 0)},
	{"can", sock(unix.AF_CAN, unix.SOCK_RAW, 1)},
	{"rds", sock(unix.AF_RDS, unix.SOCK_SEQPACKET, 0)},
	{"dccp", sock(unix.AF_INET, unix.SOCK_DCCP, 33)},
	{"sctp", sock(unix.AF_INET, unix.SOCK_STREAM, 132)},
	{"mptcp", sock(unix.AF_INET, unix.SOCK_STREAM, 262)},
	{"llc", sock(unix.AF_LLC, unix.SOCK_STREAM, 0)},
	{"pppox", sock(unix.AF_PPPOX, unix.SOCK_DGRAM, 1)},
	{"bluetooth", sock(unix.AF_BLUETOOTH, unix.SOCK_RAW, 1)},
	{"nfc", sock(39, unix.SOCK_SEQPACKET, 0)},
	{"kcm", sock(unix.AF_KCM, unix.SOCK_DGRAM, 0)},
	{"tcp", sock(unix.AF_INET, unix.SOCK_STREAM, 0)},
	{"io_uring_setup", func() error { return raw(unix.SYS_IO_URING_SETUP, 1, 0) }},
	{"io_uring_enter", func() error { return raw(unix.SYS_IO_URING_ENTER, bad, 0, 0, 0, 0, 0) }},
	{"fsopen", func() error { return rawFD(unix.SYS_FSOPEN, str("palisade-none"), 0) }},
	{"fsconfig", func() error { return raw(unix.SYS_FSCONFIG, bad, 6, 0, 0, 0) }},
	{"open_tree", func() error { return rawFD(unix.SYS_OPEN_TREE, bad, str("palisade-none"), 1) }},
	{"move_mount", func() error { return raw(unix.SYS_MOVE_MOUNT, bad, str("x"), bad, str("y"), 0) }},
	{"mount_setattr", func() error { return raw(unix.SYS_MOUNT_SETATTR, bad, str("x"), 0, ptr(), 32) }},
	{"userfaultfd", func() error { return rawFD(unix.SYS_USERFAULTFD, 1) }},
	{"perf_event_open", func() error { return raw(unix.SYS_PERF_EVENT_OPEN, ptr(), 0, none, none, ^uintptr(0)) }},
	{"setns", func() error { return raw(unix.SYS_SETNS, bad, 0) }},
	{"kcmp", func() error { return raw(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 99, 0, 0) }},
	{"open_by_handle_at", func() error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, bad, ptr(), 0) }},
	{"ptrace", func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(os.Getpid()), 0, 0) }},
	{"ptrace-traceme", func() error {
		// Any signal stops a traced thread for ever, the scheduler's own too.
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^uint64(0)
		}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
			return err
		}
		return raw(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0, 0)
	}},
	{"process_vm_writev", func() error { return raw(unix.SYS_PROCESS_VM_WRITEV, none, 0, 0, 0, 0, 0) }},
	{"pidfd_getfd", func() error { return raw(unix.SYS_PIDFD_GETFD, bad, 0, 0) }},
	{"init_module", func() error { return raw(unix.SYS_INIT_MODULE, ptr(), 0, str("")) }},
	{"kexec_load", func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 99, 0, 0) }},
	{"modify_ldt", func() error { return raw(unix.SYS_MODIFY_LDT, 9, 0, 0) }},
	{"remap_file_pages", func() error { return raw(unix.SYS_REMAP_FILE_PAGES, 1, 0, 1, 0, 0) }},
	{"move_pages", func() error { return raw(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 99) }},
	{"mbind", func() error { return raw(unix.SYS_MBIND, 1, 0, 99, 0, 0, 0) }},
	{"vmsplice", func() error { return raw(unix.SYS_VMSPLICE, bad, 0, 0, 0) }},
	{"tee", func() error { return raw(unix.SYS_TEE, bad, bad, 1, 0) }},
	{"splice", func() error { return raw(unix.SYS_SPLICE, bad, 0, bad, 0, 1, 0) }},
	{"waitid", func() error { return raw(unix.SYS_WAITID, 99, 0, 0, 0, 0) }},
	{"mq_notify", func() error { return raw(unix.SYS_MQ_NOTIFY, bad, 0) }},
	{"futex-pi", func() error { return raw(unix.SYS_FUTEX, ptr(), 12, 1, 1, ptr(), 1) }},
	{"notification-pipe", func() error {
		fds := [2]int32{-1, -1}
		err := raw(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&fds[0])), unix.O_EXCL)
		for _, fd := range fds {
			unix.Close(int(fd))
		}
		return err
	}},
	{"tiocsti", func() error { return raw(unix.SYS_IOCTL, bad, unix.TIOCSTI, 0) }},
	{"tiocsti-high", func() error { return raw(unix.SYS_IOCTL, bad, 1<<32|unix.TIOCSTI, 0) }},
	{"tioclinux", func() error { return raw(unix.SYS_IOCTL, bad, 0x541c, 0) }},
	{"msg-oob-send", func() error { return raw(unix.SYS_SENDTO, bad, 0, 0, unix.MSG_OOB, 0, 0) }},
	{"msg-oob-receive", func() error { return raw(unix.SYS_RECVFROM, bad, 0, 0, unix.MSG_OOB, 0, 0) }},
	{"msg-oob-sendmsg", func() error { return raw(unix.SYS_SENDMSG, bad, ptr(), unix.MSG_OOB) }},
	{"msg-oob-recvmsg", func() error { return raw(unix.SYS_RECVMSG, bad, ptr(), unix.MSG_OOB) }},
	{"msg-oob-sendmmsg", func() error { return raw(unix.SYS_SENDMMSG, bad, ptr(), 1, unix.MSG_OOB) }},
	{"msg-oob-recvmmsg", func() error { return raw(unix.SYS_RECVMMSG, bad, ptr(), 1, unix.MSG_OOB, 0) }},
	{"msg-oob-unix", func() error {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		return unix.Send(fds[0], []byte("x"), unix.MSG_OOB)
	}},
	{"send-plain", func() error {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		if err := unix.Send(fds[0], []byte("x"), unix.MSG_NOSIGNAL); err != nil {
			return err
		}
		_, _, err = unix.Recvfrom(fds[1], make([]byte, 1), unix.MSG_DONTWAIT)
		return err
	}},
	{"pipe-plain", func() error {
		var fds [2]int
		err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
		unix.Close(fds[0])
		unix.Close(fds[1])
		return err
	}},
	{"ioctl-plain", func() error { return raw(unix.SYS_IOCTL, bad, unix.TCGETS, 0) }},
}

// The first thread makes the calls: another one that is traced when it ends would
// have to be waited for by itself.
func init() { runtime.LockOSThread() }

// call makes one call, on a thread that does nothing else.
func call(name string) string {
	for _, p := range probes {
		if p.name == name {
			return errno(p.try())
		}
	}
	return "unknown"
}

// calls makes each call in a process of its own, since a filter may kill.
func calls() {
	for _, p := range probes {
		out, err := exec.Command("/inside", "call", p.name).Output()
		line := strings.TrimSpace(strings.TrimPrefix(string(out), "ran call\n"))
		if !strings.HasPrefix(line, "call "+p.name+" ") {
			line = "call " + p.name + " killed"
			if err != nil {
				line += ":" + strings.ReplaceAll(err.Error(), " ", "_")
			}
		}
		say(line)
	}
}
