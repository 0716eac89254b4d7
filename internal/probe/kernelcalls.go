// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

const (
	keyctlGetKeyringID   = 0
	keySpecProcess       = ^uintptr(1) // KEY_SPEC_PROCESS_KEYRING, -2
	syslogReadAll        = 3
	adjTick              = 0x4000
	uffdUserModeOnly     = 1
	addrNoRandomize      = 0x0040000
	kexecTooManySegments = 1 << 20
)

var kernelProbes = []spec{
	{
		name: "bpf-map", group: "kernel",
		about: "load programs into the kernel",
		try: func(w *world) attempt {
			attr := &struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{2, 4, 4, 1, 0}
			return w.do(call{
				nr: unix.SYS_BPF, args: [6]uintptr{unix.BPF_MAP_CREATE, pointer(attr), unsafe.Sizeof(*attr)},
				anyOf: caps.Of(caps.SysAdmin, caps.BPF), undo: closeFD,
			})
		},
	},
	{
		name: "bpf-program", group: "kernel",
		about: "load a program and have the verifier, where many bugs were, look at it",
		try: func(w *world) attempt {
			// r0 = 0; exit. Never attached.
			program := &[2]uint64{0x00000000000000b7, 0x0000000000000095}
			attr := &struct {
				progType, count   uint32
				program, license  uint64
				logLevel, logSize uint32
				log               uint64
				version, flags    uint32
			}{progType: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: 2, program: uint64(pointer(program)), license: uint64(cstring("GPL"))}
			return w.do(call{
				nr: unix.SYS_BPF, args: [6]uintptr{unix.BPF_PROG_LOAD, pointer(attr), unsafe.Sizeof(*attr)},
				anyOf: caps.Of(caps.SysAdmin, caps.BPF), undo: closeFD,
			})
		},
	},
	perfProbe("perf-self", "measure with the kernel's performance counters", 0, ^uintptr(0), true),
	perfProbe("perf-system", "watch everything that a processor does, of the host too", ^uintptr(0), 0, false),
	{
		name: "keyctl", group: "kernel",
		about: "reach key rings, which no namespace separates",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_KEYCTL, args: [6]uintptr{keyctlGetKeyringID, keySpecProcess, 0},
				past: []unix.Errno{unix.ENOKEY},
			})
		},
	},
	{
		name: "add_key", group: "kernel",
		about: "put keys into the kernel's memory",
		try: func(w *world) attempt {
			// Into the ring of this process, which goes away with it.
			return w.do(call{
				nr:   unix.SYS_ADD_KEY,
				args: [6]uintptr{cstring("user"), cstring("palisade-probe"), cstring("x"), 1, keySpecProcess},
				past: []unix.Errno{unix.EDQUOT},
			})
		},
	},
	{
		name: "request_key", group: "kernel",
		about: "have the kernel look for keys of others",
		try: func(w *world) attempt {
			// Without callout information no program is started on the host.
			return w.do(call{
				nr:   unix.SYS_REQUEST_KEY,
				args: [6]uintptr{cstring("user"), cstring("palisade-probe-no-such-key"), 0, 0},
				past: []unix.Errno{unix.ENOKEY},
			})
		},
	},
	{
		name: "userfaultfd", group: "kernel",
		about: "stop the kernel in the middle of reading user memory, which makes races easy to win",
		try: func(w *world) attempt {
			a := w.do(call{nr: unix.SYS_USERFAULTFD, args: [6]uintptr{unix.O_CLOEXEC}, anyOf: caps.Of(caps.SysPtrace), undo: closeFD})
			if a.layer == capability {
				// The sysctl decides whether the capability is needed.
				if b, err := os.ReadFile("/proc/sys/vm/unprivileged_userfaultfd"); err == nil && strings.TrimSpace(string(b)) == "1" {
					a.layer = ""
				}
			}
			return a
		},
	},
	{
		name: "io_uring", group: "kernel",
		about: "do input and output that no system call filter sees",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_IO_URING_SETUP, args: [6]uintptr{1, pointer(&[120]byte{})}, undo: closeFD})
		},
	},
	{
		name: "kexec_load", group: "kernel",
		about: "replace the host's kernel",
		try: func(w *world) attempt {
			// So many segments are refused after permission was given. (None
			// at all would unload the host's crash kernel.)
			return w.do(call{
				nr: unix.SYS_KEXEC_LOAD, args: [6]uintptr{0, kexecTooManySegments, 0, 0},
				past: []unix.Errno{unix.EINVAL, unix.EADDRNOTAVAIL}, anyOf: caps.Of(caps.SysBoot),
			})
		},
	},
	{
		name: "kexec_file_load", group: "kernel",
		about: "the same with a file",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_KEXEC_FILE_LOAD, args: [6]uintptr{^uintptr(0), ^uintptr(0), 0, 0, 1 << 30},
				past: []unix.Errno{unix.EINVAL, unix.EBADF}, anyOf: caps.Of(caps.SysBoot),
			})
		},
	},
	{
		name: "init_module", group: "kernel",
		about: "load code into the kernel",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_INIT_MODULE, args: [6]uintptr{0, 0, cstring("")},
				past: []unix.Errno{unix.ENOEXEC}, anyOf: caps.Of(caps.SysModule),
			})
		},
	},
	{
		name: "finit_module", group: "kernel",
		about: "the same from a file",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_FINIT_MODULE, args: [6]uintptr{^uintptr(0), cstring(""), 0},
				past: []unix.Errno{unix.EBADF, unix.ENOEXEC}, anyOf: caps.Of(caps.SysModule),
			})
		},
	},
	{
		name: "delete_module", group: "kernel",
		about: "take a security module of the host away",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_DELETE_MODULE, args: [6]uintptr{cstring("palisade_probe_no_such_module"), unix.O_NONBLOCK},
				past: []unix.Errno{unix.ENOENT}, anyOf: caps.Of(caps.SysModule),
			})
		},
	},
	{
		name: "reboot", group: "kernel",
		about: "restart or halt the machine",
		try: func(w *world) attempt {
			// Without the magic numbers nothing can happen.
			return w.do(call{nr: unix.SYS_REBOOT, past: []unix.Errno{unix.EINVAL}, anyOf: caps.Of(caps.SysBoot)})
		},
	},
	{
		name: "set-clock", group: "kernel",
		about: "change the time of the host",
		try: func(w *world) attempt {
			// A tick of nothing is refused after permission was given.
			t := &unix.Timex{Modes: adjTick}
			return w.do(call{
				nr: unix.SYS_ADJTIMEX, args: [6]uintptr{pointer(t)},
				past: []unix.Errno{unix.EINVAL}, anyOf: caps.Of(caps.SysTime),
			})
		},
	},
	{
		name: "dmesg", group: "kernel",
		about: "read addresses and secrets in the kernel's log",
		try: func(w *world) attempt {
			return w.do(call{
				nr: unix.SYS_SYSLOG, args: [6]uintptr{syslogReadAll, pointer(&[64]byte{}), 64},
				anyOf: caps.Of(caps.Syslog, caps.SysAdmin),
			})
		},
	},
	{
		name: "kernel-pointers", group: "kernel",
		about: "read the addresses of the kernel's code",
		try: func(w *world) attempt {
			f, err := os.Open("/proc/kallsyms")
			if err != nil {
				return w.opened(err, "/proc/kallsyms", 0)
			}
			defer f.Close()
			b := make([]byte, 4096)
			n, _ := f.Read(b)
			for line := range strings.Lines(string(b[:n])) {
				address, _, _ := strings.Cut(line, " ")
				if strings.Trim(address, "0") != "" {
					return open("")
				}
			}
			return blocked(sysctl, "all addresses are zero (kernel.kptr_restrict)")
		},
	},
	{
		name: "personality", group: "kernel", own: true,
		about: "turn off the randomisation of addresses for programs with more rights",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_PERSONALITY, args: [6]uintptr{addrNoRandomize}})
		},
	},
	{
		name: "numa-policy", group: "kernel",
		about: "say where the kernel allocates memory",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_SET_MEMPOLICY})
		},
	},
}

func perfProbe(name, about string, pid, cpu uintptr, userOnly bool) spec {
	return spec{
		name: name, group: "kernel", about: about,
		try: func(w *world) attempt {
			attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
			if userOnly {
				attr.Bits = unix.PerfBitDisabled | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv
			} else {
				attr.Bits = unix.PerfBitDisabled
			}
			return w.do(call{
				nr:    unix.SYS_PERF_EVENT_OPEN,
				args:  [6]uintptr{pointer(attr), pid, cpu, ^uintptr(0), unix.PERF_FLAG_FD_CLOEXEC},
				anyOf: caps.Of(caps.Perfmon, caps.SysAdmin), undo: closeFD,
			})
		},
	}
}
