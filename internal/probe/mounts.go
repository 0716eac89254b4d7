// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var mountProbes = []spec{
	{
		name: "mount", group: "mount",
		about: "mount a file system over what confines, or mount the host's disk",
		try: func(w *world) attempt {
			// tmpfs refuses the option after the kernel has agreed to mount.
			return w.do(call{
				nr:    unix.SYS_MOUNT,
				args:  [6]uintptr{cstring("none"), cstring("/"), cstring("tmpfs"), 0, cstring("palisade_probe=1")},
				past:  []unix.Errno{unix.EINVAL, unix.ENODEV},
				anyOf: sysAdmin,
			})
		},
	},
	{
		name: "remount", group: "mount",
		about: "make read-only parts of the container writable",
		try: func(w *world) attempt {
			// /proc/self/status is no mount point, so there is nothing to change.
			return w.do(call{
				nr:    unix.SYS_MOUNT,
				args:  [6]uintptr{cstring("none"), cstring("/proc/self/status"), cstring("none"), unix.MS_REMOUNT | unix.MS_BIND},
				past:  []unix.Errno{unix.EINVAL},
				anyOf: sysAdmin,
			})
		},
	},
	{
		name: "umount", group: "mount",
		about: "take away the mounts that mask files of /proc and /sys",
		try: func(w *world) attempt {
			return w.do(call{
				nr:    unix.SYS_UMOUNT2,
				args:  [6]uintptr{cstring("/proc/self/status"), unix.MNT_DETACH},
				past:  []unix.Errno{unix.EINVAL},
				anyOf: sysAdmin,
			})
		},
	},
	{
		name: "pivot_root", group: "mount",
		about: "change the root of the mount namespace",
		try: func(w *world) attempt {
			return w.do(call{
				nr:    unix.SYS_PIVOT_ROOT,
				args:  [6]uintptr{cstring("/proc/self"), cstring("/proc/self")},
				past:  []unix.Errno{unix.EINVAL, unix.EBUSY},
				anyOf: sysAdmin,
			})
		},
	},
	{
		name: "fsopen", group: "mount",
		about: "make a mount with the newer calls, which old filters do not know",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_FSOPEN, args: [6]uintptr{cstring("tmpfs"), unix.FSOPEN_CLOEXEC},
				past: []unix.Errno{unix.ENODEV}, anyOf: sysAdmin, undo: closeFD,
			})
		},
	},
	{
		name: "open_tree", group: "mount",
		about: "copy a mount tree without what is mounted over it",
		try: func(w *world) attempt {
			return w.do(call{
				nr:    unix.SYS_OPEN_TREE,
				args:  [6]uintptr{atFDCWD, cstring("/"), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC},
				past:  []unix.Errno{unix.EINVAL},
				anyOf: sysAdmin, undo: closeFD,
			})
		},
	},
	{
		name: "move_mount", group: "mount",
		about: "attach a mount elsewhere",
		try: func(w *world) attempt {
			return w.do(call{
				nr:    unix.SYS_MOVE_MOUNT,
				args:  [6]uintptr{^uintptr(0), cstring("palisade-probe"), ^uintptr(0), cstring("palisade-probe"), 0},
				past:  []unix.Errno{unix.EBADF, unix.ENOENT},
				anyOf: sysAdmin,
			})
		},
	},
	{
		name: "chroot", group: "mount", own: true,
		about: "leave a root by changing it below an open directory",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_CHROOT, args: [6]uintptr{cstring("/")},
				anyOf: caps.Of(caps.SysChroot),
			})
		},
	},
	{
		name: "open_by_handle_at", group: "mount",
		about: "open files of the host's disk by number, outside of every mount",
		try: func(w *world) attempt {
			fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return notApplicable("/ cannot be opened")
			}
			defer unix.Close(fd)
			// A handle of eight bytes that fits no file: a kernel that agrees
			// says that it is stale, or that the file system has no handles.
			handle := &[16]byte{0: 8, 4: 1, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}
			return w.do(call{
				nr:   unix.SYS_OPEN_BY_HANDLE_AT,
				args: [6]uintptr{uintptr(fd), pointer(handle), unix.O_RDONLY | unix.O_CLOEXEC},
				past: []unix.Errno{unix.ESTALE, unix.EOPNOTSUPP, unix.EINVAL}, anyOf: caps.Of(caps.DACReadSearch), undo: closeFD,
			})
		},
	},
	{
		name: "swapon", group: "mount",
		about: "make the host swap to a file of the container",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_SWAPON, args: [6]uintptr{cstring("/palisade-probe-no-such-file")},
				past: []unix.Errno{unix.ENOENT}, anyOf: sysAdmin,
			})
		},
	},
	{
		name: "acct", group: "mount",
		about: "have the kernel write to a file of the host",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_ACCT, args: [6]uintptr{cstring("/palisade-probe-no-such-file")},
				past: []unix.Errno{unix.ENOENT}, anyOf: caps.Of(caps.SysPacct),
			})
		},
	},
	{
		name: "fanotify", group: "mount",
		about: "watch and hold up every file access of a mount",
		try: func(w *world) attempt {
			return w.do(call{
				nr:   unix.SYS_FANOTIFY_INIT,
				args: [6]uintptr{unix.FAN_CLASS_CONTENT | unix.FAN_CLOEXEC, unix.O_RDONLY},
				past: []unix.Errno{unix.EMFILE}, anyOf: sysAdmin, undo: closeFD,
			})
		},
	},
}

// atFDCWD is AT_FDCWD as a register holds it.
var atFDCWD = func() uintptr { fd := unix.AT_FDCWD; return uintptr(fd) }()
