// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/denial"
	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/install"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

const probeVariable = "PALISADE_AUDIT_PROBE"

// TestMain lets the test binary be a process with a filter: it logs one call and dies of another.
func TestMain(m *testing.M) {
	if os.Getenv(probeVariable) == "" {
		os.Exit(m.Run())
	}
	if err := probe(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(3) // it should not have come to this
}

func probe() error {
	native, err := syscalls.ParseArch(machine())
	if err != nil {
		return err
	}
	p, err := seccomp.Parse("probe", []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getsid"],"action":"SCMP_ACT_LOG"},{"names":["getpgid"],"action":"SCMP_ACT_KILL_PROCESS"}]}`))
	if err != nil {
		return err
	}
	f, err := p.Resolve(seccomp.Host{Native: native, Kernel: syscalls.V(6, 12, 0)})
	if err != nil {
		return err
	}
	program, err := f.Compile(seccomp.Options{})
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, err := install.Load(program.Bytes(), install.TSync); err != nil {
		return err
	}
	_, _ = unix.Getsid(0)
	_, _ = unix.Getpgid(0)
	return errors.New("the process survived")
}

func machine() string {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Machine[:])
}

// TestKernelSeccomp reads what the running kernel logs of a process that it stopped, whose name
// has to be written in hexadecimal.
func TestKernelSeccomp(t *testing.T) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	if b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_logged"); err != nil || !strings.Contains(string(b), "kill_process") {
		t.Skip("this kernel logs no seccomp actions")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := "pal isade\"" // 15 bytes are kept
	program := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16<<10)
	// The kernel drops messages when there are many at once.
	got := map[string]denial.Denial{}
	await.Until(t, "two messages of the kernel", func() (bool, error) {
		clear(got)
		if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
			return false, err
		}
		cmd := exec.Command(program)
		cmd.Env = []string{probeVariable + "=1"}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Exited() {
			return false, fmt.Errorf("the process was not killed: %w %s", err, out)
		}
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) {
				return len(got) == 2, nil
			}
			if errors.Is(err, unix.EPIPE) {
				continue // overwritten before we came to it
			}
			if err != nil {
				return false, err
			}
			line, _, _ := strings.Cut(string(buf[:n]), "\n")
			d, err := Parse(line)
			if errors.Is(err, ErrMalformed) && strings.Contains(line, hexOf(name)) {
				return false, fmt.Errorf("%q: %w", line, err)
			}
			if err == nil && d.PID == cmd.Process.Pid {
				got[d.Object] = d
			}
		}
	})
	for call, want := range map[string]struct {
		outcome   denial.Outcome
		operation string
	}{"getsid": {denial.Audited, "LOG"}, "getpgid": {denial.Denied, "KILL_PROCESS"}} {
		d, ok := got[call]
		if !ok || d.Outcome != want.outcome || d.Operation != want.operation || d.Command != name || d.Mechanism != denial.Seccomp || d.Serial == 0 || d.Time.IsZero() {
			t.Errorf("%s: %+v", call, d)
		}
	}
}
