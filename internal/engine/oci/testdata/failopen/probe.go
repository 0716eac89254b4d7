// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// probe reports what confines it, in lines of "KEY\tVALUE" between "BEGIN" and
// "END", in one write. With "wait" it does nothing until it is killed; "exit N"
// reports and exits.
func probe(name string) error {
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, unix.SIGTERM)
		<-ch
		return nil
	}
	var b strings.Builder
	say := func(key string, value any) { fmt.Fprintf(&b, "%s\t%v\n", key, value) }
	mine := "probe-" + rand.Text() // several share a root
	b.WriteString("BEGIN\n")
	say("name", name)
	for _, fd := range descriptors() {
		say("fd "+fd, "open")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		say("status", errnoOf(err))
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			say(key, strings.Join(strings.Fields(value), " "))
		}
	}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			link = errnoOf(err)
		}
		say("ns "+ns, link)
	}
	for _, p := range []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	} {
		say("content "+p, content(p))
	}
	for _, p := range []string{"/", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup", "/data"} {
		var st unix.Statfs_t
		switch err := unix.Statfs(p, &st); {
		case err != nil:
			say("read-only "+p, errnoOf(err))
		default:
			say("read-only "+p, st.Flags&unix.ST_RDONLY != 0)
		}
	}
	for _, dir := range []string{"/", "/data", "/scratch", "/tmp"} {
		say("write "+dir, create(filepath.Join(dir, mine)))
	}
	if data, err := os.ReadFile("/data/name"); err == nil {
		say("data", strings.TrimSpace(string(data)))
	}
	if image, err := os.ReadFile("/etc/image"); err == nil {
		say("image", strings.TrimSpace(string(image)))
	} else {
		say("image", errnoOf(err))
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = errnoOf(err)
	}
	say("cwd", dir)
	say("cwd holds", strings.Join(names("."), " "))
	say("devices", strings.Join(names("/dev"), " "))
	say("mounts", strings.Join(mounts(), " "))
	say("call keyctl", call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 0)) // the session's keyring
	say("call unshare", call(unix.SYS_UNSHARE, unix.CLONE_NEWNS, 0, 0))
	say("call bpf", call(unix.SYS_BPF, ^uintptr(0), 0, 0))
	say("call kexec_load", call(unix.SYS_KEXEC_LOAD, 0, 0, 0))
	say("device fuse", device("/dev/"+mine, 10, 229)) // whoever may open it needs no capability
	b.WriteString("END\n")
	_, err = os.Stdout.WriteString(b.String())
	return err
}

func call(nr, a, b, c uintptr) string {
	_, _, e := unix.Syscall(nr, a, b, c)
	if e == 0 {
		return "allowed"
	}
	return errnoOf(e)
}

func errnoOf(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// content says whether a path shows anything.
func content(p string) string {
	f, err := os.Open(p)
	if err != nil {
		return errnoOf(err)
	}
	defer f.Close()
	if list, err := f.Readdirnames(1); err == nil && len(list) > 0 {
		return "visible"
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return "visible"
	}
	return "nothing"
}

func create(p string) string {
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errnoOf(err)
	}
	f.Close()
	os.Remove(p)
	return "allowed"
}

func device(p string, major, minor uint32) string {
	if err := unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return "mknod " + errnoOf(err)
	}
	defer os.Remove(p)
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "open " + errnoOf(err)
	}
	f.Close()
	return "allowed"
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{errnoOf(err)}
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "probe-") { // of another probe in the same root
			out = append(out, e.Name())
		}
	}
	return out
}

// descriptors are the open ones from 3 on that were inherited.
func descriptors() []string {
	var out []string
	const most = 64
	for fd := 3; fd < most; fd++ {
		link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		// The Go runtime polls, and has files of its control group open.
		if err != nil || strings.HasPrefix(link, "anon_inode:[event") || strings.Contains(link, "/cpu.cfs_") || strings.Contains(link, "/cpu.max") {
			continue
		}
		out = append(out, strconv.Itoa(fd)+" "+link)
	}
	return out
}

// mounts are mount points with the type of their file systems and whether they can
// be written to.
func mounts() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{errnoOf(err)}
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 1 {
			continue
		}
		mode, _, _ := strings.Cut(l[5], ",")
		out = append(out, l[4]+":"+r[0]+":"+mode)
	}
	slices.Sort(out)
	return out
}

// hook is a hook inside or outside of the container: it says that it ran.
func hook() error {
	_, err := fmt.Fprintln(os.Stderr, "the hook ran:", os.Getenv("LD_PRELOAD"))
	return err
}
