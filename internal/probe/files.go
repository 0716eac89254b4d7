// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var fileProbes = []spec{
	writeProbe("core_pattern", "have the host run a program as root when a process of the container crashes", "/proc/sys/kernel/core_pattern"),
	writeProbe("modprobe-path", "have the host run a program as root when it looks for a module", "/proc/sys/kernel/modprobe"),
	writeProbe("binfmt_misc", "have every container run a program of one's own", "/proc/sys/fs/binfmt_misc/register"),
	writeProbe("sysrq-trigger", "crash or halt the host with a letter", "/proc/sysrq-trigger"),
	writeProbe("sysctl", "change settings of the host's memory management", "/proc/sys/vm/overcommit_memory"),
	writeProbe("uevent_helper", "have the host run a program as root for every device event", "/sys/kernel/uevent_helper"),
	writeProbe("sys-write", "change how the host's kernel works through /sys", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/profiling", "/sys/kernel/rcu_normal", "/sys/module/printk/parameters/time"),
	writeProbe("power-state", "put the host to sleep", "/sys/power/state"),
	writeProbe("irq-affinity", "change which processor serves the host's interrupts", "/proc/irq/default_smp_affinity"),
	writeProbe("debugfs", "change the kernel through its debugging files", "/sys/kernel/debug/sched/verbose", "/sys/kernel/debug/fail_futex"),
	readProbe("kcore", "read all of the host's memory", caps.Of(caps.SysRawio), "/proc/kcore"),
	readProbe("proc-keys", "see the keys of other users and containers", 0, "/proc/keys"),
	readProbe("timer_list", "see what the host's kernel does and where it lies", 0, "/proc/timer_list"),
	readProbe("interrupts", "time what others do by the interrupts that they cause", 0, "/proc/interrupts"),
	readProbe("firmware", "read what the firmware left in memory", 0, "/sys/firmware/dmi", "/sys/firmware/acpi", "/sys/firmware/memmap", "/sys/firmware"),
	readProbe("powercap", "measure power, and with it secrets, of others", 0, "/sys/devices/virtual/powercap/intel-rapl", "/sys/devices/virtual/powercap"),
	readProbe("scsi", "remove the host's disks", 0, "/proc/scsi/scsi"),
	readProbe("acpi", "reach the firmware's tables", 0, "/proc/acpi/wakeup", "/proc/acpi"),
	{
		name: "release_agent", group: "files",
		about: "have the host run a program as root when a control group empties",
		try:   func(w *world) attempt { return w.cgroupFile("release_agent") },
	},
	{
		name: "devices.allow", group: "files",
		about: "give oneself the host's devices",
		try:   func(w *world) attempt { return w.cgroupFile("devices.allow") },
	},
	{
		name: "cgroup-procs", group: "files",
		about: "leave one's own limits",
		try:   func(w *world) attempt { return w.cgroupFile("cgroup.procs") },
	},
	{
		name: "engine-socket", group: "files",
		about: "ask the engine for a container that is not confined",
		try: func(*world) attempt {
			for _, name := range []string{
				"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
				"/run/podman/podman.sock", "/run/libvirt/libvirt-sock", "/run/libvirt/virtlxcd-sock", "/run/systemd/private",
				"/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket", "/run/palisade/palisade.sock",
			} {
				var st unix.Stat_t
				if unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
					return open(name)
				}
			}
			return blocked(namespace, "")
		},
	},
	{
		name: "host-disk", group: "files",
		about: "find a whole file system of the host mounted in the container",
		try: func(w *world) attempt {
			if len(w.mounts) == 0 {
				return notApplicable("no mount table to read")
			}
			for _, m := range w.mounts {
				switch m.fstype {
				case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "vfat":
					if m.root == "/" {
						return open(m.fstype + " at " + m.point)
					}
				}
			}
			return blocked(namespace, "")
		},
	},
	{
		name: "write-root", group: "files",
		about: "change the container's own programs",
		try: func(w *world) attempt {
			name := scratchName("/", "root")
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return w.opened(err, "/", caps.Of(caps.DACOverride))
			}
			f.Close()
			os.Remove(name)
			return open("")
		},
	},
	{
		name: "overwrite-binary", group: "files",
		about: "change the program that runs, which other containers or the host may share",
		try: func(w *world) attempt {
			fd, err := unix.Open("/proc/self/exe", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			switch {
			case err == nil:
				unix.Close(fd)
				return open("")
			case errors.Is(err, unix.ETXTBSY):
				// That it runs is looked at before the mount is.
				if errors.Is(unix.Faccessat(unix.AT_FDCWD, "/proc/self/exe", unix.W_OK, 0), unix.EROFS) {
					return blocked(readOnly, "").at(unix.EROFS)
				}
				return open("writable as soon as nobody runs it").at(unix.ETXTBSY)
			case errors.Is(err, unix.ENOENT):
				return notApplicable("no /proc")
			}
			return w.opened(err, "/proc/self/exe", caps.Of(caps.DACOverride))
		},
	},
}

// writeProbe opens the first of the files that exists for writing, and writes
// nothing.
func writeProbe(name, about string, paths ...string) spec {
	return spec{name: name, group: "files", about: about, try: func(w *world) attempt {
		return w.openFirst(paths, unix.O_WRONLY, caps.Of(caps.DACOverride))
	}}
}

func readProbe(name, about string, anyOf caps.Set, paths ...string) spec {
	return spec{name: name, group: "files", about: about, try: func(w *world) attempt {
		return w.openFirst(paths, unix.O_RDONLY, anyOf)
	}}
}

// openFirst tries the first path that can be found; for a path that is hidden
// below a mount, that mount is the answer.
func (w *world) openFirst(paths []string, flags int, anyOf caps.Set) attempt {
	for _, path := range paths {
		if m, ok := w.masked(path); ok {
			return blocked(masked, m+" is mounted over")
		}
		fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return w.opened(err, path, anyOf)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
			return blocked(masked, "/dev/null in its place")
		}
		if flags == unix.O_RDONLY && st.Mode&unix.S_IFMT == unix.S_IFREG {
			// Some files give their permission when they are read.
			if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
				return w.opened(err, path, anyOf)
			}
		}
		return open(path)
	}
	return notApplicable("this kernel or this container does not have it")
}

// masked tells whether a path is, or is below, something that a runtime has
// mounted to hide it: an empty tmpfs, or /dev/null.
func (w *world) masked(path string) (string, bool) {
	m, ok := w.mountOf(path)
	if !ok || m.point == "/" || m.point == "/proc" || m.point == "/sys" {
		return "", false
	}
	var st unix.Stat_t
	if unix.Stat(m.point, &st) != nil {
		return "", false
	}
	isNull := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
	isEmpty := m.fstype == "tmpfs" && m.has("ro") && (len(m.point) > 6 && (m.point[:6] == "/proc/" || m.point[:5] == "/sys/"))
	return m.point, isNull || isEmpty
}

// opened judges the error of a file operation.
func (w *world) opened(err error, path string, anyOf caps.Set) attempt {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return blocked("", err.Error())
	}
	a := attempt{outcome: Blocked, errno: errno}
	switch {
	case errno == unix.ENOENT:
		return notApplicable("this container does not have it").at(errno)
	case errno == unix.EIO || errno == unix.EINVAL || errno == unix.ENODEV:
		// The file is there; this kernel has nothing behind it.
		return notApplicable("").at(errno)
	case errno == unix.EROFS:
		a.layer = readOnly
	case errno != unix.EACCES && errno != unix.EPERM:
	case anyOf != 0 && anyOf != caps.Of(caps.DACOverride) && w.effective.Intersect(anyOf) == 0:
		a.layer = capability
	case !w.permits(path, anyOf):
		a.layer = dac
	default:
		a.layer = w.lsm(anyOf != 0)
	}
	return a
}

// permits tells whether owner, mode and capabilities leave no reason for a
// refusal.
func (w *world) permits(path string, anyOf caps.Set) bool {
	if w.euid == 0 || w.effective.Has(caps.DACOverride) {
		var st unix.Stat_t
		return w.effective.Has(caps.DACOverride) || unix.Stat(path, &st) == nil && st.Uid == 0 && st.Mode&0o222 != 0
	}
	return false
}

// cgroupFile tries to open a file of some mounted hierarchy for writing.
func (w *world) cgroupFile(name string) attempt {
	any := false
	var last attempt
	for _, m := range w.mounts {
		if m.fstype != "cgroup" && m.fstype != "cgroup2" {
			continue
		}
		any = true
		path := filepath.Join(m.point, name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		last = w.openFirst([]string{path}, unix.O_WRONLY, caps.Of(caps.DACOverride))
		if last.outcome == Open {
			return last
		}
	}
	switch {
	case last.outcome != "":
		return last
	case any && name != "devices.allow":
		return blocked(namespace, "the mounted hierarchies do not have it")
	case any:
		return notApplicable("no hierarchy of version 1 with devices")
	}
	return notApplicable("no control groups are mounted")
}
