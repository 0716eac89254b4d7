// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

// envKill names the state directory in which a process does what is to be killed.
const envKill = "PALISADE_TEST_STATE_KILL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envKill); dir != "" {
		if err := life(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// life is that of one container: made, planned, given its first process, removed.
func life(root string) error {
	// The tracer counts from this call on.
	if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil {
		return err
	}
	d, err := Open(root)
	if err != nil {
		return err
	}
	c, err := d.Create(Record{ID: "web", Level: "one", Runtime: Runtime{Path: "/bin/false", Root: "/nowhere"}})
	if err != nil {
		return err
	}
	if err := c.SaveStep(&laststep.Config{Gate: true}); err != nil {
		return err
	}
	c.Level = "two"
	if err := c.Save(); err != nil {
		return err
	}
	c.Init = &Process{PID: 1}
	c.Level = "three"
	if err := c.Save(); err != nil {
		return err
	}
	return c.Remove()
}

// TestKillAtEachCall kills a process before and after each of its system calls, and
// wants a state directory that can be read each time: no record, or a whole one of a
// container that is not in use, and room for the next.
func TestKillAtEachCall(t *testing.T) {
	if testing.Short() {
		t.Skip("one process for each system call")
	}
	seen := map[string]int{}
	for n := 0; ; n++ {
		root := filepath.Join(t.TempDir(), "state")
		ended := killAt(t, root, n)
		if _, err := os.Lstat(root); err != nil {
			seen["nothing"]++
			continue
		}
		d, err := Open(root)
		if err != nil {
			t.Fatalf("killed at %d: %v", n, err)
		}
		list, err := d.List()
		if err != nil {
			t.Fatalf("killed at %d: %v", n, err)
		}
		for _, r := range list {
			if r.Level != "one" && r.Level != "two" && r.Level != "three" {
				t.Errorf("killed at %d: %+v", n, r)
			}
			if _, err := d.Step(r); err != nil || (r.Step == "") != (r.Level == "one") {
				t.Errorf("killed at %d: step of %+v: %v", n, r, err)
			}
			seen[r.Level]++
		}
		if len(list) == 0 {
			seen["none"]++
		}
		if _, err := d.Runtimes(); err != nil {
			t.Errorf("killed at %d: %v", n, err)
		}
		swept := 0
		if err := d.Sweep(func(c *Container) error {
			swept++
			return errors.Join(c.Damaged, c.Remove())
		}); err != nil || swept != len(list) {
			t.Errorf("killed at %d: swept %d of %d: %v", n, swept, len(list), err)
		}
		if left, err := os.ReadDir(d.containers()); err != nil || len(left) != 0 {
			t.Errorf("killed at %d: left %v, %v", n, left, err)
		}
		c, err := d.Create(Record{ID: "web", Runtime: Runtime{Root: "/nowhere"}})
		if err != nil {
			t.Errorf("killed at %d: the next: %v", n, err)
		} else {
			c.Close()
		}
		if ended {
			break
		}
	}
	t.Logf("killed at each of its calls: %v", seen)
	for _, stage := range []string{"nothing", "none", "one", "two", "three"} {
		if seen[stage] == 0 {
			t.Errorf("never killed with %s", stage)
		}
	}
}

// fileCalls are those that can leave something behind.
var fileCalls = []uint64{
	unix.SYS_OPENAT, unix.SYS_WRITE, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FSYNC, unix.SYS_FLOCK, unix.SYS_CLOSE, unix.SYS_FTRUNCATE,
}

// killAt lets life run until the nth stop before or after a call, and reports whether
// it has ended before that.
//
// Source: ptrace(2), PTRACE_GET_SYSCALL_INFO.
func killAt(t *testing.T, root string, n int) (ended bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(self)
	cmd.Env = []string{envKill + "=" + root, "TMPDIR=" + os.TempDir()}
	cmd.Stderr = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Skipf("this process may not trace: %v", err)
	}
	pid := cmd.Process.Pid
	const exitKill = 1 << 20
	inside := map[int]bool{}
	first, counting, stops, status := true, false, 0, unix.WaitStatus(0)
	for {
		// Of this test's process group only: others have children too.
		tid, err := unix.Wait4(-pid, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		} else if err != nil {
			t.Fatalf("wait: %v", err)
		}
		if status.Exited() || status.Signaled() {
			if tid != pid {
				continue
			}
			if !status.Exited() || status.ExitStatus() != 0 {
				if stops <= n {
					b, _ := os.ReadFile(out.Name())
					t.Fatalf("it ended with %v: %s", status, b)
				}
				return false
			}
			return true
		}
		sig := 0
		switch {
		case first:
			first = false
			if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|exitKill); err != nil {
				t.Fatal(err)
			}
		case status.StopSignal() == unix.SIGTRAP|0x80:
			var info [88]byte
			if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, 0x420e, uintptr(tid), uintptr(len(info)), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
				t.Fatal(errno)
			}
			const entry = 1
			nr := *(*uint64)(unsafe.Pointer(&info[24]))
			if info[0] == entry && nr == unix.SYS_GETPRIORITY {
				counting = true
			}
			// An exit has no number; it is that of its thread's last entry.
			if info[0] == entry {
				inside[tid] = counting && slices.Contains(fileCalls, nr)
			}
			if inside[tid] {
				if stops++; stops > n {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			sig = int(status.StopSignal())
		}
		if err := unix.PtraceSyscall(tid, sig); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
}
