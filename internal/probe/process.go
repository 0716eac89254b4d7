// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

const (
	ptraceSeize = 0x4206
	kcmpVM      = 1
)

var processProbes = []spec{
	{
		name: "ptrace-sibling", group: "process",
		about: "take over another process of the container",
		try: func(w *world) attempt {
			if w.sibling == 0 {
				return notApplicable("no other process to try it on")
			}
			// The tracer is a thread that ends at once, which lets go.
			a := w.do(call{nr: unix.SYS_PTRACE, args: [6]uintptr{ptraceSeize, uintptr(w.sibling)}, anyOf: 0})
			if a.outcome == Blocked && a.layer == "" && yamaScope() > 0 {
				a.layer, a.note = sysctl, "kernel.yama.ptrace_scope"
			}
			return a
		},
	},
	{
		name: "process_vm_readv", group: "process",
		about: "read the memory of another process",
		try: func(w *world) attempt {
			if w.sibling == 0 {
				return notApplicable("no other process to try it on")
			}
			local := &unix.Iovec{Base: &make([]byte, 1)[0], Len: 1}
			remote := &[2]uintptr{8, 1}
			a := w.do(call{
				nr: unix.SYS_PROCESS_VM_READV, args: [6]uintptr{uintptr(w.sibling), pointer(local), 1, pointer(remote), 1},
				past: []unix.Errno{unix.EFAULT},
			})
			if a.outcome == Blocked && a.layer == "" && yamaScope() > 0 {
				a.layer, a.note = sysctl, "kernel.yama.ptrace_scope"
			}
			return a
		},
	},
	{
		name: "pidfd_getfd", group: "process",
		about: "take an open file out of another process",
		try: func(w *world) attempt {
			if w.sibling == 0 {
				return notApplicable("no other process to try it on")
			}
			fd, err := unix.PidfdOpen(w.sibling, 0)
			if err != nil {
				return notApplicable("pidfd_open: " + err.Error())
			}
			defer unix.Close(fd)
			a := w.do(call{nr: unix.SYS_PIDFD_GETFD, args: [6]uintptr{uintptr(fd), 0, 0}, undo: closeFD})
			if a.outcome == Blocked && a.layer == "" && yamaScope() > 0 {
				a.layer, a.note = sysctl, "kernel.yama.ptrace_scope"
			}
			return a
		},
	},
	{
		name: "kcmp", group: "process",
		about: "learn how objects lie in the kernel's memory",
		try: func(w *world) attempt {
			if w.sibling == 0 {
				return notApplicable("no other process to try it on")
			}
			return w.do(call{nr: unix.SYS_KCMP, args: [6]uintptr{uintptr(os.Getpid()), uintptr(w.sibling), kcmpVM}})
		},
	},
	{
		name: "other-root", group: "process",
		about: "reach the host's files through /proc/PID/root of a process outside",
		try: func(w *world) attempt {
			var own unix.Stat_t
			if unix.Stat("/", &own) != nil || !hasProc() {
				return notApplicable("no /proc")
			}
			entries, err := os.ReadDir("/proc")
			if err != nil {
				return notApplicable("/proc cannot be listed")
			}
			refused := blocked(namespace, "")
			for _, e := range entries {
				if _, err := strconv.Atoi(e.Name()); err != nil {
					continue
				}
				var st unix.Stat_t
				root := "/proc/" + e.Name() + "/root/"
				switch err := unix.Stat(root, &st); {
				case err == nil && (st.Dev != own.Dev || st.Ino != own.Ino):
					return open("process " + e.Name())
				case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
					refused = w.opened(err, root, caps.Of(caps.SysPtrace))
				}
			}
			return refused
		},
	},
	{
		name: "inherited-descriptors", group: "process",
		about: "leave through an open directory that the runtime forgot",
		try: func(w *world) attempt {
			if len(w.inherited) > 0 {
				return open(strings.Join(w.inherited, ", "))
			}
			if !hasProc() {
				return notApplicable("no /proc")
			}
			return blocked(namespace, "")
		},
	},
	{
		name: "outside-directory", group: "process",
		about: "start in a directory outside of the root",
		try: func(*world) attempt {
			var b [4096]byte
			n, err := unix.Getcwd(b[:])
			if err != nil {
				return notApplicable("getcwd: " + err.Error())
			}
			if n > 1 && b[0] == '/' {
				return blocked(namespace, "")
			}
			return open("the working directory cannot be reached from the root")
		},
	},
	{
		name: "setuid-gain", group: "process", own: true,
		about: "become root through a setuid program",
		try:   setuidGain,
	},
	{
		name: "mmap-zero", group: "process", own: true,
		about: "put memory where the kernel's null pointers lead",
		try: func(w *world) attempt {
			return w.do(call{
				nr:    unix.SYS_MMAP,
				args:  [6]uintptr{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED, ^uintptr(0), 0},
				anyOf: caps.Of(caps.SysRawio),
				undo:  func(uintptr) { unix.RawSyscall(unix.SYS_MUNMAP, 0, 4096, 0) },
			})
		},
	},
	{
		name: "realtime", group: "process", own: true,
		about: "take the processor from everybody else",
		try: func(w *world) attempt {
			priority := &[1]int32{1}
			return w.do(call{
				nr:    unix.SYS_SCHED_SETSCHEDULER,
				args:  [6]uintptr{0, 1 /* SCHED_FIFO */, pointer(priority)},
				anyOf: caps.Of(caps.SysNice),
				undo: func(uintptr) {
					priority[0] = 0
					unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, 0, uintptr(unsafe.Pointer(priority)))
				},
			})
		},
	},
	{
		name: "nice", group: "process", own: true,
		about: "run before everybody else",
		try: func(w *world) attempt {
			minus20 := -20
			return w.do(call{nr: unix.SYS_SETPRIORITY, args: [6]uintptr{0, 0, uintptr(minus20)}, anyOf: caps.Of(caps.SysNice)})
		},
	},
	{
		name: "raise-limit", group: "process", own: true,
		about: "raise a limit that was set for the container",
		try: func(w *world) attempt {
			for _, resource := range []int{unix.RLIMIT_MEMLOCK, unix.RLIMIT_NPROC, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_SIGPENDING, unix.RLIMIT_CORE} {
				var limit unix.Rlimit
				if unix.Getrlimit(resource, &limit) != nil || limit.Max == ^uint64(0) {
					continue
				}
				limit.Max++
				return w.do(call{nr: unix.SYS_PRLIMIT64, args: [6]uintptr{0, uintptr(resource), pointer(&limit)}, anyOf: caps.Of(caps.SysResource)})
			}
			return notApplicable("nothing is limited")
		},
	},
	{
		name: "oom-immunity", group: "process", own: true,
		about: "have the kernel kill the host's processes first when memory runs out",
		try: func(w *world) attempt {
			// It holds for this worker, which ends now.
			err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
			if err == nil {
				return open("")
			}
			return w.opened(err, "/proc/self/oom_score_adj", caps.Of(caps.SysResource))
		},
	},
	{
		name: "tiocsti", group: "process", own: true,
		about: "type into the terminal that the container was started from",
		try:   tiocsti,
	},
}

func yamaScope() int {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// tiocsti works on a terminal of its own, and with an address that cannot be
// read: nothing is typed anywhere.
func tiocsti(w *world) attempt {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return notApplicable("no terminals: " + err.Error())
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return notApplicable("no terminals: " + err.Error())
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return notApplicable("no terminals: " + err.Error())
	}
	slave, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return notApplicable("no terminals: " + err.Error())
	}
	defer unix.Close(slave)
	// The worker has a session of its own, which may take this terminal.
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return notApplicable("terminal not taken: " + err.Error())
	}
	a := w.do(call{nr: unix.SYS_IOCTL, args: [6]uintptr{uintptr(slave), unix.TIOCSTI, 0}, past: []unix.Errno{unix.EFAULT}, anyOf: sysAdmin})
	if a.errno == unix.EIO && a.layer == "" {
		a.layer, a.note = sysctl, "dev.tty.legacy_tiocsti"
	}
	return a
}

// setuidGain writes a program of a few instructions that belongs to root and
// is setuid, and starts it as somebody else. Its exit code says who it was.
func setuidGain(w *world) attempt {
	code, ok := whoami[runtime.GOARCH]
	if !ok {
		return notApplicable("no program for this processor")
	}
	if w.euid != 0 || !w.effective.Has(caps.Setuid) {
		if w.noNewPrivs {
			return blocked(noNewPrivs, "")
		}
		return notApplicable("not root, so there is no setuid program to make")
	}
	dir, ok := w.scratch("noexec", "nosuid")
	if !ok {
		// Where nothing setuid can be put, what was there before still counts.
		if w.noNewPrivs {
			return blocked(noNewPrivs, "")
		}
		return notApplicable("no directory to put a setuid program into")
	}
	name := scratchName(dir, "setuid")
	if err := os.WriteFile(name, elf(code), 0o755); err != nil {
		return notApplicable("the program cannot be written: " + err.Error())
	}
	defer os.Remove(name)
	if err := unix.Chmod(name, 0o4755); err != nil {
		return w.opened(err, name, 0).with("the setuid bit cannot be set")
	}
	const nobody = 65534
	cmd := exec.Command(name)
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: !w.effective.Has(caps.Setgid)}, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return open("a process of uid 65534 became root")
	case errors.As(err, &exit) && exit.ExitCode() == nobody&0xff:
		if w.noNewPrivs {
			return blocked(noNewPrivs, "")
		}
		return blocked("", "")
	}
	return notApplicable(fmt.Sprintf("the program did not run: %v", err))
}

// whoami is exit(geteuid()).
var whoami = map[string][]byte{
	"amd64": {0xb8, 107, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 231, 0, 0, 0, 0x0f, 0x05},
	"arm64": {0xe8, 0x15, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4},
}

// elf wraps machine code into the smallest program that the kernel starts.
func elf(code []byte) []byte {
	const base, header = 0x400000, 64 + 56
	machine := map[string]byte{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	b := make([]byte, header, header+len(code))
	copy(b, "\x7fELF\x02\x01\x01")
	put := func(at int, value uint64, size int) {
		for i := range size {
			b[at+i] = byte(value >> (8 * i))
		}
	}
	put(16, 2, 2) // ET_EXEC
	put(18, uint64(machine), 2)
	put(20, 1, 4)
	put(24, base+header, 8) // entry
	put(32, 64, 8)          // program headers
	put(52, 64, 2)
	put(54, 56, 2)
	put(56, 1, 2)
	put(64, 1, 4) // PT_LOAD
	put(68, 5, 4) // read and execute
	put(80, base, 8)
	put(88, base, 8)
	put(96, uint64(header+len(code)), 8)
	put(104, uint64(header+len(code)), 8)
	put(112, 0x1000, 8)
	return append(b, code...)
}
