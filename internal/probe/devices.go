// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var deviceProbes = []spec{
	{
		name: "mknod-disk", group: "devices",
		about: "make a device file for the host's disk",
		try: func(w *world) attempt {
			major, minor := disk()
			name, a := w.makeNode(unix.S_IFBLK, major, minor)
			if name != "" {
				os.Remove(name)
				return open("")
			}
			return a
		},
	},
	{
		name: "open-disk", group: "devices",
		about: "read the host's disk as a whole",
		try: func(w *world) attempt {
			major, minor := disk()
			return w.openNode("", unix.S_IFBLK, major, minor)
		},
	},
	charProbe("open-mem", "read the machine's memory", "/dev/mem", 1, 1),
	charProbe("open-port", "reach hardware through its ports", "/dev/port", 1, 4),
	charProbe("open-kmsg", "read and forge the kernel's log", "/dev/kmsg", 1, 11),
	charProbe("open-fuse", "serve file systems to the kernel", "/dev/fuse", 10, 229),
	charProbe("open-kvm", "run virtual machines", "/dev/kvm", 10, 232),
	charProbe("open-loop", "make disks of files and mount them", "/dev/loop-control", 10, 237),
	charProbe("open-console", "write on the machine's console", "", 5, 1),
	{
		name: "device-nodes", group: "devices",
		about: "use a device that was left in /dev",
		try: func(*world) attempt {
			entries, err := os.ReadDir("/dev")
			if err != nil {
				return notApplicable("no /dev")
			}
			var extra []string
			for _, e := range entries {
				if e.Type()&os.ModeDevice == 0 {
					continue
				}
				switch e.Name() {
				case "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx":
				default:
					// Opening some devices has effects, a watchdog for one, so
					// this only asks.
					if unix.Faccessat(unix.AT_FDCWD, "/dev/"+e.Name(), unix.R_OK, unix.AT_EACCESS) == nil {
						extra = append(extra, e.Name())
					}
				}
			}
			if len(extra) > 0 {
				if len(extra) > 5 {
					extra = append(extra[:5], "…")
				}
				return open(strings.Join(extra, " "))
			}
			return blocked(namespace, "")
		},
	},
}

func charProbe(name, about, path string, major, minor uint32) spec {
	return spec{name: name, group: "devices", about: about, try: func(w *world) attempt {
		return w.openNode(path, unix.S_IFCHR, major, minor)
	}}
}

// disk is the first disk of /proc/partitions, or 8:0.
func disk() (major, minor uint32) {
	b, _ := os.ReadFile("/proc/partitions")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 4 || strings.HasPrefix(f[3], "loop") || strings.HasPrefix(f[3], "ram") {
			continue
		}
		a, err1 := strconv.ParseUint(f[0], 10, 32)
		b, err2 := strconv.ParseUint(f[1], 10, 32)
		if err1 == nil && err2 == nil {
			return uint32(a), uint32(b)
		}
	}
	return 8, 0
}

// makeNode makes a device file where that is possible; the caller removes it.
func (w *world) makeNode(kind, major, minor uint32) (string, attempt) {
	last := blocked(readOnly, "no directory to put a device into")
	for _, dir := range []string{"/dev", "/", "/tmp", "/dev/shm", "/run", "/var/tmp"} {
		m, ok := w.mountOf(dir)
		if ok && m.has("ro") {
			continue
		}
		name := scratchName(dir, "device")
		err := unix.Mknod(name, kind|0o600, int(unix.Mkdev(major, minor)))
		if err == nil {
			return name, attempt{}
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EROFS) {
			continue
		}
		var errno syscall.Errno
		errors.As(err, &errno)
		last = w.judge(call{
			nr: unix.SYS_MKNODAT, anyOf: caps.Of(caps.Mknod),
			args: [6]uintptr{atFDCWD, cstring(name), uintptr(kind | 0o600), uintptr(unix.Mkdev(major, minor))},
		}, errno)
		if last.layer == "" && w.initialUserNS && w.effective.Has(caps.Mknod) && w.lsm(false) == "" && errno == unix.EPERM {
			last.layer = devices
		}
	}
	return "", last
}

// openNode opens a device through an existing file or one that it makes.
// Opening has no effect on the devices that are tried.
func (w *world) openNode(path string, kind, major, minor uint32) attempt {
	if path != "" {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && st.Rdev == unix.Mkdev(major, minor) {
			return w.openDevice(path, false)
		}
	}
	name, a := w.makeNode(kind, major, minor)
	if name == "" {
		return a
	}
	defer os.Remove(name)
	return w.openDevice(name, true)
}

func (w *world) openDevice(path string, made bool) attempt {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	var errno syscall.Errno
	switch {
	case err == nil:
		unix.Close(fd)
		return open("")
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOMEDIUM):
		errors.As(err, &errno)
		// The control group and the modules were asked before the driver.
		if errors.Is(err, unix.EBUSY) {
			return open("").at(errno)
		}
		return notApplicable("the machine does not have the device").at(errno)
	case errors.Is(err, unix.EACCES):
		if m, ok := w.mountOf(path); ok && m.has("nodev") {
			errors.As(err, &errno)
			return blocked("", "devices do not work on this mount").at(errno)
		}
	}
	errors.As(err, &errno)
	a := blocked("", "").at(errno)
	// A node that this process made is its own, so mode bits do not refuse. Of
	// what is asked next, the control group answers EPERM and modules EACCES.
	if errno == unix.EPERM && made && w.lsm(false) == "" {
		a.layer = devices
	} else if errno == unix.EACCES && made {
		a.layer = w.lsm(false)
	}
	return a
}
