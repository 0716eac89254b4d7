// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var sysAdmin = caps.Of(caps.SysAdmin)

var namespaceProbes = []spec{
	unshareProbe("mnt", unix.CLONE_NEWNS),
	unshareProbe("uts", unix.CLONE_NEWUTS),
	unshareProbe("ipc", unix.CLONE_NEWIPC),
	unshareProbe("pid", unix.CLONE_NEWPID),
	unshareProbe("net", unix.CLONE_NEWNET),
	unshareProbe("cgroup", unix.CLONE_NEWCGROUP),
	unshareProbe("time", unix.CLONE_NEWTIME),
	{
		name: "unshare-user", group: "namespace", own: true,
		about: "become root of a new user namespace and reach kernel code that only root reaches",
		try: func(w *world) attempt {
			return w.forkWith(unix.SYS_UNSHARE, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWUSER})
		},
	},
	{
		name: "clone-user", group: "namespace", own: true,
		about: "the same through clone(2)",
		try: func(w *world) attempt {
			return w.forkWith(unix.SYS_CLONE, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER})
		},
	},
	{
		name: "clone3", group: "namespace",
		about: "make namespaces through clone3(2), whose flags no filter can see",
		try: func(w *world) attempt {
			// A size of 0 is refused before anything is looked at, but only by
			// the kernel.
			return w.do(call{nr: unix.SYS_CLONE3, past: []unix.Errno{unix.EINVAL}})
		},
	},
	{
		name: "setns", group: "namespace", own: true,
		about: "enter the namespace of another process",
		try: func(w *world) attempt {
			fd, err := unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return notApplicable("no /proc to take a namespace from")
			}
			defer unix.Close(fd)
			return w.do(call{nr: unix.SYS_SETNS, args: [6]uintptr{uintptr(fd), unix.CLONE_NEWUTS}, anyOf: sysAdmin})
		},
	},
	// A network namespace had no number of its own before Linux 6.18: the first
	// one got the first of those that are given out.
	sharedProbe("net", "listen to and speak for the host on its network", 0xeffffff9, 0xf0000000),
	sharedProbe("pid", "see and signal the processes of the host", 0xeffffffc),
	sharedProbe("ipc", "read the shared memory of the host's processes", 0xefffffff),
	sharedProbe("uts", "rename the host", 0xeffffffe),
	sharedProbe("cgroup", "see the host's control groups", 0xeffffffb),
	sharedProbe("user", "be the same root as the host's", 0xeffffffd),
	{
		name: "host-processes", group: "namespace",
		about: "find processes of the host in /proc",
		try: func(w *world) attempt {
			comm, err := os.ReadFile("/proc/2/comm")
			if !hasProc() {
				return notApplicable("no /proc")
			}
			if errors.Is(err, os.ErrNotExist) {
				return blocked(namespace, "")
			}
			if err != nil {
				return w.opened(err, "/proc/2/comm", 0)
			}
			if strings.TrimSpace(string(comm)) == "kthreadd" {
				return open("the kernel's threads are visible")
			}
			return blocked(namespace, "")
		},
	},
	{
		name: "sethostname", group: "namespace",
		about: "rename the machine",
		try: func(w *world) attempt {
			// No name is that long: the kernel agrees, then refuses the length.
			return w.do(call{nr: unix.SYS_SETHOSTNAME, args: [6]uintptr{0, ^uintptr(0)}, past: []unix.Errno{unix.EINVAL}, anyOf: sysAdmin})
		},
	},
}

func unshareProbe(name string, flag uintptr) spec {
	return spec{
		name: "unshare-" + name, group: "namespace", own: true,
		about: "make a new " + name + " namespace, the first step of many escapes",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_UNSHARE, args: [6]uintptr{flag}, absent: []unix.Errno{unix.EINVAL}, anyOf: sysAdmin})
		},
	}
}

// sharedProbe compares a namespace with the number that the kernel gives to
// the one it boots with.
//
// Source: include/linux/proc_ns.h.
func sharedProbe(name, about string, initial ...uint64) spec {
	return spec{
		name: "host-" + name + "-namespace", group: "namespace", about: about,
		try: func(w *world) attempt {
			var st unix.Stat_t
			if err := unix.Stat("/proc/self/ns/"+name, &st); err != nil {
				return notApplicable("no /proc, or no such namespace")
			}
			if slices.Contains(initial, st.Ino) {
				return open("")
			}
			return blocked(namespace, "")
		},
	}
}

// forkWith starts this program with attributes that the kernel may refuse.
func (w *world) forkWith(nr uintptr, attr *syscall.SysProcAttr) attempt {
	attr.Pdeathsig = syscall.SIGKILL
	cmd := reexec(roleExit)
	cmd.SysProcAttr = attr
	err := cmd.Run()
	var errno syscall.Errno
	switch {
	case err == nil:
		return open("")
	case errors.As(err, &errno):
	default:
		return open(fmt.Sprintf("the process started, and ended with %v", err))
	}
	c := call{nr: nr, absent: []unix.Errno{unix.EINVAL}}
	if nr == unix.SYS_UNSHARE {
		c.args[0] = unix.CLONE_NEWUSER
	} else {
		// With CLONE_FS the kernel refuses the flags themselves, so that the
		// call that looks for the filter can start nothing.
		c.args[0] = unix.CLONE_NEWUSER | unix.CLONE_FS
	}
	if errno == unix.ENOSPC || errno == unix.EUSERS {
		return attempt{outcome: Blocked, errno: errno, layer: sysctl, note: "user.max_user_namespaces"}
	}
	return w.judge(c, errno)
}

func hasProc() bool {
	var st unix.Statfs_t
	return unix.Statfs("/proc", &st) == nil && int64(st.Type) == unix.PROC_SUPER_MAGIC
}
