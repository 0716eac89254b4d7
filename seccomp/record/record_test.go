// SPDX-License-Identifier: Apache-2.0

//go:build linux

package record

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/install"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

const childEnv = "PALISADE_RECORD_CHILD"

// TestMain makes the test binary the workload too: calls of known number, one of
// them under a filter that denies it.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	for range 100 {
		_ = unix.Getppid()
	}
	for range 7 {
		_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0)
	}
	for range 5 { // no kernel has it
		_, _, _ = unix.RawSyscall(unix.SYS_AFS_SYSCALL, 0, 0, 0)
	}
	p, err := seccomp.Parse("deny", []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sched_rr_get_interval"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`))
	if err != nil {
		panic(err)
	}
	f, err := p.Resolve(seccomp.Host{Native: syscalls.X86_64})
	if err != nil {
		panic(err)
	}
	prog, err := f.Compile(seccomp.Options{})
	if err != nil {
		panic(err)
	}
	if err := install.NoNewPrivs(); err != nil {
		panic(err)
	}
	if _, err := install.Load(prog.Bytes(), 0); err != nil {
		panic(err)
	}
	for range 11 {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_RR_GET_INTERVAL, 0, 0, 0)
	}
	os.Exit(0)
}

// group makes a control group of the version 2 hierarchy, or says why not.
func group(t *testing.T) string {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) == 0 {
		oracle.Missing(t, "no cgroup2 hierarchy is mounted")
		return ""
	}
	dir := filepath.Join(mounts[0].Mountpoint, fmt.Sprintf("palisade-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		oracle.Missing(t, "make a control group: %v", err)
		return ""
	}
	t.Cleanup(func() { os.Remove(dir) })
	return dir
}

func TestKernelRecord(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the workload is one of amd64")
	}
	dir := group(t)
	r, err := Start(Scope{Cgroup: dir})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		oracle.Missing(t, "recording: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rec, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]seccomp.RecordedCall{}
	for _, c := range rec.Calls {
		if c.Arch != syscalls.X86_64 {
			t.Errorf("call of another ABI: %+v", c)
		}
		have := count[c.Name]
		have.Count += c.Count
		have.Denied += c.Denied
		have.NoSys += c.NoSys
		if c.Arg >= 0 {
			have.Value = c.Value
		}
		count[c.Name] = have
	}
	for name, want := range map[string]seccomp.RecordedCall{
		"getppid":               {Count: 100},
		"afs_syscall":           {Count: 5, NoSys: 5},
		"sched_rr_get_interval": {Count: 11, Denied: 11},
		"execve":                {Count: 1},
		"exit_group":            {Count: 1},
	} {
		if got := count[name]; got.Count != want.Count || got.Denied != want.Denied || got.NoSys != want.NoSys {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if n := count["prctl"].Count; n < 7 {
		t.Errorf("prctl was seen %d times", n)
	}
	if got := rec.NeverWorked(); len(got) != 1 || got[0] != "afs_syscall" {
		t.Errorf("never worked: %v", got)
	}
	p := rec.Profile(true)
	all := fmt.Sprint(p.Syscalls)
	if strings.Contains(all, "afs_syscall") || !strings.Contains(all, "getppid") || !strings.Contains(all, "restart_syscall") {
		t.Errorf("profile %v", p.Syscalls)
	}
}
