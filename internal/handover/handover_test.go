// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestMain lets the test's program be the one that hands over in a PID namespace
// of its own; see TestMemfdNoexec.
func TestMain(m *testing.M) {
	if v := os.Getenv("HANDOVER_NOEXEC"); v != "" {
		os.Exit(handOverUnder(v))
	}
	os.Exit(m.Run())
}

// TestProgramCannotBeWritten tries to change what is handed over, as root in a
// container could through /proc/PID/exe.
func TestProgramCannotBeWritten(t *testing.T) {
	want, err := laststep.Program()
	if err != nil {
		t.Fatal(err)
	}
	f, err := Program("")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("cut: %v", err)
	}
	if err := f.Truncate(1 << 20); !errors.Is(err, unix.EPERM) {
		t.Errorf("lengthen: %v", err)
	}
	if w, err := os.OpenFile(Path(int(f.Fd())), os.O_RDWR, 0); err == nil {
		if _, err := w.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("write to another opening: %v", err)
		}
		w.Close()
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("it can be mapped for writing")
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("add seals: %v", err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if seals&unix.F_SEAL_EXEC != 0 {
		if err := f.Chmod(0); !errors.Is(err, unix.EPERM) {
			t.Errorf("take its execute bits: %v", err)
		}
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
	}
	if fi, err := f.Stat(); err != nil || fi.Mode().Perm() != 0o111 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// TestIdentity executes what is handed over and looks at what the kernel says of
// the process; each hand-over is a file of its own.
func TestIdentity(t *testing.T) {
	f, err := Program("")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := Program("")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	want, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := other.Stat(); err != nil || os.SameFile(fi, want) {
		t.Errorf("two hand-overs are one file, %v", err)
	}
	config, err := Config(&laststep.Config{Gate: true}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer config.Close()
	g, err := gate.New()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	cmd := exec.Command(Path(3))
	cmd.Args = []string{Path(3), "/bin/true"}
	cmd.ExtraFiles = []*os.File{f, config, g.Theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.Theirs.Close()
	g.Theirs = nil
	g.Watch("true", func(pid int) error {
		fi, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && !os.SameFile(fi, want) {
			err = fmt.Errorf("process %d executes another file", pid)
		}
		return err
	})
	if g.Err != nil {
		t.Error(g.Err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestConfigIsSealed(t *testing.T) {
	c := &laststep.Config{Filters: []laststep.Filter{{Flags: 4, Program: []byte("12345678")}}}
	f, err := Config(c, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("could be written to")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("could be cut")
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := laststep.Decode(b); err != nil || len(got.Filters) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	// What the step would refuse is refused here, where it can be said better.
	if _, err := Config(&laststep.Config{Filters: []laststep.Filter{{Program: []byte("1234")}}}, ""); !errors.Is(err, laststep.ErrConfig) {
		t.Errorf("a filter that is cut: %v", err)
	}
}

// TestChosen hands over what PALISADE_INIT says.
func TestChosen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "palisade-init")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		value  string
		wanted bool
		err    error
	}{
		{"", true, nil}, {path, true, nil}, {None, false, nil}, {path + ".nosuch", false, ErrNoInit}, {"/", false, ErrNoInit}, {"/etc/passwd", false, ErrNoInit},
	} {
		t.Setenv(EnvInit, row.value)
		wanted, err := Wanted()
		if wanted != row.wanted || !errors.Is(err, row.err) {
			t.Errorf("%q: wanted %t, %v", row.value, wanted, err)
		}
		f, err := Program("")
		if (err == nil) != row.wanted || !row.wanted && !errors.Is(err, ErrNoInit) {
			t.Errorf("%q: %v", row.value, err)
		}
		if err != nil {
			continue
		}
		if fi, err := f.Stat(); row.value == path && (err != nil || fi.Size() != 10 || fi.Mode().Perm() != 0o555) {
			t.Errorf("%q: %v, %v", row.value, fi, err)
		}
		f.Close()
	}
}

// TestMemfdNoexec hands over on hosts that restrict what is in memory. The sysctl
// belongs to a PID namespace, so the test has one of its own.
func TestMemfdNoexec(t *testing.T) {
	oracle.Root(t, "a PID namespace needs root")
	if _, err := os.Stat(noexecFile); err != nil {
		t.Skipf("before Linux 6.3: %v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"0": "handed over\n", "1": "handed over\n", "2": "memfd_create: permission denied: " + errNoExec.Error() + "\n"} {
		cmd := exec.Command(exe)
		cmd.Env = []string{"HANDOVER_NOEXEC=" + value}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("vm.memfd_noexec=%s: %q, %v, want %q", value, out, err, want)
		}
	}
}

const noexecFile = "/proc/sys/vm/memfd_noexec"

func handOverUnder(value string) int {
	if err := os.WriteFile(noexecFile, []byte(value), 0); err != nil {
		fmt.Println(err)
		return 1
	}
	if c, err := Config(&laststep.Config{}, ""); err != nil {
		fmt.Println("configuration:", err)
		return 1
	} else {
		c.Close()
	}
	f, err := Program("")
	if err != nil {
		fmt.Println(err)
		return 0
	}
	cmd := exec.Command(Path(3))
	cmd.ExtraFiles = []*os.File{f}
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 125 {
		fmt.Println("execute:", err)
		return 1
	}
	fmt.Println("handed over")
	return 0
}

// BenchmarkProgram is what a hand-over costs.
func BenchmarkProgram(b *testing.B) {
	for b.Loop() {
		f, err := Program("")
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
