// SPDX-License-Identifier: Apache-2.0

package laststep_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// starter is what the test's program does when it stands for an OCI runtime: it
// brings itself into a state and executes the step, or the workload without it.
type starter struct {
	Ops []op
	// Exec is the file to execute; empty for descriptor Self, without /proc.
	Exec      string
	Self      int
	Args, Env []string
}

// op is one change of the starter's state.
type op struct {
	Do   string
	Text string
	Data []byte
	N, M int
}

const starterVariable = "LASTSTEP_STARTER"

func init() {
	if path := os.Getenv(starterVariable); path != "" {
		runtime.LockOSThread()
		var start starter
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &start)
		}
		if err == nil {
			err = start.run()
		}
		fmt.Fprintln(os.Stderr, "starter:", err)
		os.Exit(99)
	}
}

func (s *starter) run() error {
	for _, o := range s.Ops {
		if err := o.apply(); err != nil {
			return fmt.Errorf("%+v: %w", o, err)
		}
	}
	if s.Exec != "" {
		return syscall.Exec(s.Exec, s.Args, s.Env)
	}
	argv, err1 := syscall.SlicePtrFromStrings(s.Args)
	envv, err2 := syscall.SlicePtrFromStrings(s.Env)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(s.Self), uintptr(unsafe.Pointer(&empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

func (o op) apply() error {
	switch o.Do {
	case "open":
		fd, err := unix.Open(o.Text, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if fd == o.N {
			return nil
		}
		return errors.Join(unix.Dup3(fd, o.N, 0), unix.Close(fd))
	case "close":
		return unix.Close(o.N)
	case "chdir":
		return unix.Chdir(o.Text)
	case "fchdir":
		return unix.Fchdir(o.N)
	case "chroot":
		return unix.Chroot(o.Text)
	case "mkdir":
		return unix.Mkdir(o.Text, 0o755)
	case "rmdir":
		return unix.Rmdir(o.Text)
	case "rename":
		return unix.Rename(o.Text, o.Text+".renamed")
	case "unshare":
		return unix.Unshare(o.N)
	case "private":
		return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	case "bind":
		return unix.Mount(o.Text, o.Text, "", unix.MS_BIND, "")
	case "detach":
		return unix.Unmount(o.Text, unix.MNT_DETACH)
	case "move": // part of /proc in the place of all of it
		return unix.Mount(o.Text, "/proc", "", unix.MS_BIND, "")
	case "over": // another process's file in the place of the own one
		return unix.Mount("/proc/1/attr", fmt.Sprintf("/proc/%d/task/%d/attr", os.Getpid(), unix.Gettid()), "", unix.MS_BIND, "")
	case "tmpfs":
		return unix.Mount("tmpfs", o.Text, "tmpfs", 0, "")
	case "rlimit":
		v := uint64(o.M)
		if o.N == unix.RLIMIT_NOFILE {
			// The one that package syscall gives back before it executes.
			return syscall.Setrlimit(o.N, &syscall.Rlimit{Cur: v, Max: v})
		}
		return unix.Setrlimit(o.N, &unix.Rlimit{Cur: v, Max: v})
	case "cgroup":
		return os.WriteFile(filepath.Join(o.Text, "cgroup.procs"), []byte("0"), 0)
	case "filter":
		prog := unix.SockFprog{Len: uint16(len(o.Data) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&o.Data[0]))}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, uintptr(o.N), 0, 0, 0); err != nil && o.N != 0 {
			return err
		}
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
	case "user":
		// Of this thread alone: the others vanish with execve.
		for _, call := range [][2]uintptr{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETGID, uintptr(o.N)}, {unix.SYS_SETUID, uintptr(o.N)}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], 0, 0); errno != 0 && call[0] != unix.SYS_SETGROUPS {
				return errno
			}
		}
		return nil
	case "keepcaps":
		return unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	case "caps": // N inheritable, M ambient too; both are permitted and effective
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		all := uint32(o.N | o.M)
		data[0] = unix.CapUserData{Effective: all, Permitted: all, Inheritable: all}
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		for c := range 32 {
			if o.M>>c&1 != 0 {
				if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return errors.New("unknown")
}

// step is one start of the step in a test.
type step struct {
	config *laststep.Config
	// content stands in place of a handed over configuration, file in place of
	// either; unsealed leaves the content unsealed.
	content  []byte
	file     *os.File
	none     bool
	unsealed bool
	// below are the descriptors from 3 on; the step's own follow.
	below []*os.File
	// gate and stderr are handed over behind the configuration, beyond follows.
	gate, stderr *os.File
	beyond       []*os.File
	ops          []op
	args, env    []string
	// exec is as in starter: empty for /proc/self/fd/N, "-" for the descriptor.
	exec  string
	argv0 string
	// prefix stands before the step's own name, for an emulator.
	prefix []string
	dir    string
}

type result struct {
	code           int
	signal         syscall.Signal
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit %d, signal %d\nstdout: %q\nstderr: %q", r.code, r.signal, r.stdout, r.stderr)
}

// running is a step that was started.
type running struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

func (s *step) start(tb testing.TB) *running {
	tb.Helper()
	program, err := handover.Program("")
	if err != nil {
		tb.Fatal(err)
	}
	defer program.Close()
	config := s.file
	switch {
	case config != nil || s.none:
	case s.content != nil:
		config = memory(tb, s.content, !s.unsealed)
	default:
		c := s.config
		if c == nil {
			c = &laststep.Config{}
		}
		if config, err = handover.Config(c, ""); err != nil {
			tb.Fatal(err)
		}
	}
	if config != nil && config != s.file {
		defer config.Close()
	}
	self := 3 + len(s.below)
	files := append(append([]*os.File(nil), s.below...), program, config)
	if s.gate != nil {
		files = append(files, s.gate)
	}
	if s.stderr != nil {
		files = append(files, s.stderr)
	}
	files = append(files, s.beyond...)
	start := starter{Ops: s.ops, Self: self, Exec: handover.Path(self), Env: s.env}
	argv0 := s.argv0
	if argv0 == "" {
		argv0 = handover.Path(self)
	}
	switch {
	case s.exec == "-":
		start.Exec = ""
	case s.exec != "":
		start.Exec = s.exec
	}
	start.Args = append(append(append([]string(nil), s.prefix...), argv0), s.args...)
	if s.prefix != nil {
		start.Args = append(append([]string(nil), s.prefix...), s.args...)
	}
	return start.start(tb, files, s.dir)
}

func (s *starter) start(tb testing.TB, files []*os.File, dir string) *running {
	tb.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		tb.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(tb.TempDir(), "starter.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		tb.Fatal(err)
	}
	r := &running{cmd: exec.Command(exe)}
	r.cmd.Env = []string{starterVariable + "=" + file}
	r.cmd.ExtraFiles, r.cmd.Dir = files, dir
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if err := r.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return r
}

func (r *running) wait(tb testing.TB) result {
	tb.Helper()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	ws := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	out := result{stdout: r.stdout.String(), stderr: r.stderr.String(), code: ws.ExitStatus()}
	if ws.Signaled() {
		out.signal = ws.Signal()
	}
	return out
}

func (s *step) run(tb testing.TB) result {
	tb.Helper()
	return s.start(tb).wait(tb)
}

// memory is a file in memory.
func memory(tb testing.TB, content []byte, seal bool) *os.File {
	tb.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		tb.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	tb.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		tb.Fatal(err)
	}
	if seal {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err != nil {
			tb.Fatal(err)
		}
	}
	return f
}

// Answers of a filter.
const (
	allow = unix.SECCOMP_RET_ALLOW
	kill  = unix.SECCOMP_RET_KILL_PROCESS
)

func answer(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// filter is the program of a filter with an answer for some system calls, and one
// for all others.
func filter(others uint32, calls map[uint32]uint32) []byte {
	var b []byte
	put := func(code uint16, jt, jf byte, k uint32) {
		b = binary.NativeEndian.AppendUint16(b, code)
		b = append(b, jt, jf)
		b = binary.NativeEndian.AppendUint32(b, k)
	}
	put(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, 0)
	for nr, what := range calls {
		put(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 1, nr)
		put(unix.BPF_RET|unix.BPF_K, 0, 0, what)
	}
	put(unix.BPF_RET|unix.BPF_K, 0, 0, others)
	return b
}

// filtered is a configuration with filters.
func filtered(programs ...[]byte) *laststep.Config {
	c := &laststep.Config{NoNewPrivileges: true}
	for _, p := range programs {
		c.Filters = append(c.Filters, laststep.Filter{Program: p})
	}
	return c
}

// refusing answers some calls of a process that was started with a filter already.
func refusing(errno unix.Errno, calls ...uint32) op {
	m := map[uint32]uint32{}
	for _, c := range calls {
		m[c] = answer(errno)
	}
	return op{Do: "filter", Data: filter(allow, m), N: 1}
}

func needRoot(tb testing.TB) {
	tb.Helper()
	oracle.Root(tb, "needs root")
}

// busybox is a static program that stands for every workload.
func busybox(tb testing.TB) string {
	tb.Helper()
	return oracle.Tool(tb, "busybox", "apt: busybox-static")
}

func null(tb testing.TB) *os.File {
	tb.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}
