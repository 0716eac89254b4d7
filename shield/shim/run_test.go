// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// shielded runs a program and gives what it wrote to both outputs.
func shielded(t *testing.T, c Config, args ...string) (string, Result) {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		path = args[0]
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Program, c.Args, c.Stats = path, args, true
	c.Env = append(os.Environ(), c.Env...)
	c.Stdout, c.Stderr = w, w
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(r) // ends when the last writer is gone
		out <- string(b)
	}()
	res, err := Run(c)
	w.Close()
	s := <-out
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return s, res
}

// bare runs the same program without the shield.
func bare(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput() // the exit code is part of the answer
	return string(out), cmd.ProcessState.ExitCode()
}

// sameOutput runs a program in both ways, each in a folder of its own, and in the
// three ways to take over its calls.
func sameOutput(t *testing.T, args ...string) {
	t.Helper()
	want, code := bare(t, t.TempDir(), args...)
	for name, c := range map[string]Config{"rewritten": {}, "by signal": {SignalOnly: true}, "by dispatch": {SignalOnly: true, UserDispatch: true}} {
		got, res := shielded(t, c, args...)
		if got != want || res.Code != code {
			t.Errorf("%v (%s): exit %d, want %d\n--- shielded\n%.2000s\n--- bare\n%.2000s", args, name, res.Code, code, got, want)
		}
		if name == "rewritten" {
			t.Logf("%s: %d sites rewritten, %d calls by signal", args[0], res.Sites, res.Signals)
		}
	}
}

func TestSameOutput(t *testing.T) {
	threads := oracle.CHelper(t, filepath.Join("testdata", "threads.c"), "apt: gcc libc6-dev", "-O1", "-pthread")
	static := oracle.CHelper(t, filepath.Join("testdata", "threads.c"), "apt: gcc libc6-dev", "-O1", "-pthread", "-static")
	tests := []struct {
		name string
		args []string
	}{
		{"cat", []string{"/bin/cat", "/etc/passwd"}},
		{"ls", []string{"/bin/ls", "-l", "/etc"}},
		{"exit code", []string{"/bin/sh", "-c", "exit 7"}},
		{"shell", []string{"/bin/sh", "-c", "ls /etc | wc -l; echo $(cat /etc/hostname); (echo background) & wait; readlink /proc/self/exe; exec echo done"}},
		{"threads and signals, dynamic", []string{threads}},
		{"threads and signals, static", []string{static}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { sameOutput(t, tt.args...) })
	}
}

func TestSameOutputOfTools(t *testing.T) {
	for _, tt := range []struct{ tool, install, script string }{
		{"busybox", "apt: busybox-static", `busybox sh -c 'busybox ls /etc; busybox seq 100 | busybox sort -r | busybox head -3'`},
		{"sqlite3", "apt: sqlite3", `sqlite3 x.db "create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all select x+1 from c where x<10000) insert into t select x, hex(x*x) from c; select count(*), sum(length(b)) from t;"`},
		{"python3", "apt: python3", "python3 -c '" + pythonScript + "'"},
		{"perl", "apt: perl-base", `perl -e 'print scalar(() = glob("/etc/*")), "\n"; system("echo hi"); kill 15, $$'`},
	} {
		t.Run(tt.tool, func(t *testing.T) {
			oracle.Tool(t, tt.tool, tt.install)
			sameOutput(t, "/bin/sh", "-c", tt.script)
		})
	}
}

// TestSameOutputOfGo has a program that starts its threads without a C library.
func TestSameOutputOfGo(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "gostatic")
	build := exec.Command("go", "build", "-o", prog, "testdata/gostatic/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sameOutput(t, prog)
}

func TestSameOutputOfMusl(t *testing.T) {
	cc := oracle.Tool(t, "musl-gcc", "apt: musl-tools")
	for _, flags := range [][]string{{"-static"}, nil} {
		prog := filepath.Join(t.TempDir(), "threads")
		args := append([]string{"-O1", "-pthread", "-o", prog, filepath.Join("testdata", "threads.c")}, flags...)
		if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sameOutput(t, prog)
	}
}

const pythonScript = `
import threading, subprocess, os, signal, time, sys
out = {}
ts = [threading.Thread(target=lambda i=i: out.__setitem__(i, sum(range(i * 1000)))) for i in range(20)]
[t.start() for t in ts]; [t.join() for t in ts]
print(sum(out.values()))
print(subprocess.run(["ls", "/etc"], capture_output=True).stdout[:40])
got = []
signal.signal(signal.SIGALRM, lambda s, f: got.append(s))
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
while len(got) < 10: time.sleep(0.05)
signal.setitimer(signal.ITIMER_REAL, 0)
p = os.fork()
if p == 0: os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))
try: subprocess.run(["/nonexistent"])
except FileNotFoundError: print("not found")
print(os.readlink("/proc/self/exe") == os.path.realpath(sys.executable))
`

// TestRefused checks the calls that would go around the shield.
func TestRefused(t *testing.T) {
	prog := oracle.CHelper(t, filepath.Join("testdata", "refused.c"), "apt: gcc libc6-dev")
	out, res := shielded(t, Config{}, prog)
	if res.Code != 0 {
		t.Errorf("exit %d\n%s", res.Code, out)
	}
}

// TestOldKernel: what the kernel lacks is one clear error, or not missed.
func TestOldKernel(t *testing.T) {
	denied := oracle.CHelper(t, filepath.Join("testdata", "denied.c"), "apt: gcc libc6-dev linux-libc-dev")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const prctl, seccomp = "157", "317"
	for _, tt := range []struct {
		how, nr, arg, want string
		code               int
	}{
		{"passed", prctl, "59", "hello\n", 0},
		{"dispatch", prctl, "59", "palisade: error: this kernel has no Syscall User Dispatch (Linux 5.11 or newer is needed)\n", 125},
		{"passed", seccomp, "-", "palisade: error: cannot install the seccomp filter\n", 125},
	} {
		cmd := exec.Command(denied, tt.nr, tt.arg, self, "/bin/echo", "hello")
		cmd.Env = append(os.Environ(), serveVariable+"="+tt.how)
		out, _ := cmd.CombinedOutput() // the exit code is part of the answer
		if string(out) != tt.want || cmd.ProcessState.ExitCode() != tt.code {
			t.Errorf("%s without call %s: exit %d, %q", tt.how, tt.nr, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestBadPrograms(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	noLoader := filepath.Join(dir, "noloader")
	if out, code := bare(t, dir, oracle.Tool(t, "cc", "apt: gcc libc6-dev"), "-x", "c", "-Wl,--dynamic-linker=/no/such/ld.so", "-o", noLoader, write("m", "int main(void) { return 0; }\n", 0o644)); code != 0 {
		t.Fatal(out)
	}
	elf32 := "\x7fELF\x01\x01\x01" + strings.Repeat("\x00", 200)
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "none"), "no such program"},
		{write("text", "hello\n", 0o755), "not a 64-bit x86 ELF program"},
		{write("elf32", elf32, 0o755), "not a 64-bit x86 ELF program"},
		{write("noexec", "#!/bin/sh\n", 0o644), "permission denied"},
		{write("script", "#!/no/such/interpreter\n", 0o755), "interpreter cannot be opened"},
		{noLoader, "(dynamic loader) cannot be opened: /no/such/ld.so"},
	} {
		out, res := shielded(t, Config{}, tt.path)
		if res.Code != 125 || !strings.HasPrefix(out, "palisade: error: ") || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: exit %d, %q", tt.path, res.Code, out)
		}
	}
}
