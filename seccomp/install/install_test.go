// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/install"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// childEnv makes the test binary a process that installs a filter and makes
// calls: what a filter does cannot be undone.
const childEnv = "PALISADE_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(what); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type request struct {
	Filter []byte
	Flags  uint
	Calls  [][7]uint64
	Wait   bool
}

func child(string) error {
	runtime.LockOSThread()
	var req request
	in := bufio.NewReader(os.Stdin)
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return err
	}
	if err := install.NoNewPrivs(); err != nil {
		return err
	}
	fd, err := install.Load(req.Filter, install.Flags(req.Flags))
	if err != nil {
		return err
	}
	fmt.Println("loaded", fd)
	out := bufio.NewWriter(os.Stdout)
	for _, c := range req.Calls {
		_, _, errno := unix.RawSyscall6(uintptr(c[0]), uintptr(c[1]), uintptr(c[2]), uintptr(c[3]), uintptr(c[4]), uintptr(c[5]), uintptr(c[6]))
		fmt.Fprintln(out, int(errno))
	}
	out.Flush()
	if req.Wait {
		_, _ = io.Copy(io.Discard, in)
	}
	return nil
}

func start(t *testing.T, req request) (*exec.Cmd, *bufio.Reader, io.WriteCloser) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := json.NewEncoder(in).Encode(req); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out), in
}

func first(t *testing.T, out *bufio.Reader) string {
	t.Helper()
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	return strings.TrimSpace(line)
}

// unimplemented are calls of amd64 that no kernel has code for, so that they take
// any arguments and fail with ENOSYS.
var unimplemented = []string{"tuxcall", "security", "vserver", "afs_syscall", "getpmsg", "putpmsg", "nfsservctl", "query_module", "get_kernel_syms", "create_module", "epoll_ctl_old", "epoll_wait_old"}

// TestKernelAnswers runs filters with conditions of all kinds in the kernel and
// compares its answers with the interpreter's, in both modes.
func TestKernelAnswers(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the calls are those of amd64")
	}
	ops := []string{"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"}
	values := []uint64{0, 1, 5, 7, 0xffffffff, 1 << 32, 5 | 1<<32, ^uint64(0), 0x7e020000, 1 << 63}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var rules []string
		for i := range 12 {
			args := ""
			for j := range 1 + rng.IntN(2) {
				if j > 0 {
					args += ","
				}
				args += fmt.Sprintf(`{"index":%d,"value":%d,"valueTwo":%d,"op":"SCMP_CMP_%s"}`, 3*j+rng.IntN(3), values[rng.IntN(len(values))], values[rng.IntN(len(values))], ops[rng.IntN(len(ops))])
			}
			rules = append(rules, fmt.Sprintf(`{"names":[%q],"action":"SCMP_ACT_ERRNO","errnoRet":%d,"args":[%s]}`, unimplemented[i], 100+i, args))
		}
		p, err := seccomp.Parse("random", []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[`+strings.Join(rules, ",")+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.Resolve(seccomp.Host{Native: syscalls.X86_64})
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range []seccomp.Mode{seccomp.Compat, seccomp.Strict} {
			prog, err := f.Compile(seccomp.Options{Mode: mode})
			if err != nil {
				continue // strict has its own opinion of such rules
			}
			req := request{Filter: prog.Bytes(), Flags: uint(install.SpecAllow)}
			for range 2000 {
				nr, _ := syscalls.X86_64.Number(unimplemented[rng.IntN(len(unimplemented))])
				c := [7]uint64{uint64(nr)}
				for i := 1; i < 7; i++ {
					c[i] = values[rng.IntN(len(values))] + uint64(rng.IntN(3)) - 1
				}
				req.Calls = append(req.Calls, c)
			}
			_, out, _ := start(t, req)
			if s := first(t, out); s != "loaded -1" {
				t.Fatalf("child says %q", s)
			}
			for _, c := range req.Calls {
				var got int
				if _, err := fmt.Sscan(first(t, out), &got); err != nil {
					t.Fatal(err)
				}
				d := cbpf.Data{Arch: syscalls.X86_64.Audit(), Nr: uint32(c[0]), Args: [6]uint64(c[1:])}
				act := prog.Instructions.Eval(&d, false)
				want := int(syscall.ENOSYS)
				if act.Base() == cbpf.ErrnoBase {
					want = int(act.Data())
				}
				if got != want {
					t.Fatalf("seed %d, %v, call %d %#x: the kernel says errno %d, the interpreter %v", seed, mode, c[0], c[1:], got, act)
				}
			}
		}
	}
}

// The kernel takes Docker's filter on every flag combination that it supports,
// and hands back exactly what was installed.
func TestKernelReadback(t *testing.T) {
	native, ok := syscalls.FromGo(runtime.GOARCH)
	if !ok {
		t.Skipf("no tables for %s", runtime.GOARCH)
	}
	f, err := seccomp.Docker().Resolve(seccomp.Host{Native: native, AllCaps: true})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := f.Compile(seccomp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []install.Flags{0, install.TSync, install.Log, install.SpecAllow, install.TSync | install.Log | install.SpecAllow} {
		if !install.Supported(flags) {
			t.Logf("flags %#x: this kernel does not know them", flags)
			continue
		}
		cmd, out, _ := start(t, request{Filter: prog.Bytes(), Flags: uint(flags), Wait: true})
		if s := first(t, out); s != "loaded -1" {
			t.Fatalf("flags %#x: %s", flags, s)
		}
		got, err := install.Filters(cmd.Process.Pid)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, install.ErrNotSupported):
			oracle.Missing(t, "reading filters back: %v", err)
			return
		case err != nil:
			t.Fatal(err)
		}
		// Other filters may be in force already, of a container around us.
		if len(got) == 0 || !bytes.Equal(got[0], prog.Bytes()) {
			t.Errorf("flags %#x: %d filters came back; the first differs", flags, len(got))
		}
	}
}

func TestKernelListener(t *testing.T) {
	if !install.ActionSupported(uint32(cbpf.Notify)) || !install.Supported(install.NewListener) {
		t.Skip("the kernel has no notifications")
	}
	p, err := seccomp.Parse("notify", []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getppid"],"action":"SCMP_ACT_NOTIFY"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	native, _ := syscalls.FromGo(runtime.GOARCH)
	f, err := p.Resolve(seccomp.Host{Native: native})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := f.Compile(seccomp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ := start(t, request{Filter: prog.Bytes(), Flags: uint(install.NewListener | install.TSync)})
	var fd int
	if _, err := fmt.Sscanf(first(t, out), "loaded %d", &fd); err != nil || fd < 0 {
		t.Errorf("listener %d %v", fd, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		filter []byte
		flags  install.Flags
		want   error
	}{
		{"empty", nil, 0, install.ErrFilter},
		{"cut", make([]byte, 9), 0, install.ErrFilter},
		{"too long", make([]byte, 4097*8), 0, install.ErrFilter},
		{"flags", make([]byte, 8), install.WaitKillableRecv, install.ErrFlags},
	} {
		if _, err := install.Load(tt.filter, tt.flags); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := install.ParseFlags([]string{"X"}, false); !errors.Is(err, install.ErrName) {
		t.Errorf("unknown flag: %v", err)
	}
	if f, err := install.ParseFlags([]string{seccomp.FlagTSync, seccomp.FlagLog, seccomp.FlagSpecAllow, seccomp.FlagWaitKillableRecv}, true); err != nil || f != install.Log|install.SpecAllow|install.WaitKillableRecv {
		t.Errorf("flags %v %v", f, err)
	}
	if _, err := install.Filters(1 << 30); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no such process: %v", err)
	}
}
