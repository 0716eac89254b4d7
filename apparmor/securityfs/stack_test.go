// SPDX-License-Identifier: Apache-2.0

//go:build linux

package securityfs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/await"
)

// testStack confines processes by a profile, a profile of a policy namespace and
// stacks of them, and compares the kernel's decisions about the stack with ours.
func testStack(t *testing.T, fs FS, f *apparmor.Features, o compile.Options) {
	p := compileFor(t, f, o, `
profile sa { file, signal (send,receive) set=(term kill) peer=sb, signal (receive) peer=unconfined, mount /dev/* -> /mnt/**, network inet, deny /tmp/no rw, ptrace, unix, }
profile :sns:sb { /** rmix, /tmp/** rw, deny /tmp/else w, signal set=(kill hup), signal (receive) peer=unconfined, mount, network inet stream, capability chown, ptrace read, unix, }
profile :sns:sc { /etc/** r, }
`)
	writes, err := blob.Writes(p.Blobs(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range writes {
		if err := fs.Replace(w); err != nil {
			t.Fatal(err)
		}
	}
	if ns, err := fs.Namespaces(""); err != nil || !slices.Contains(ns, "sns") {
		t.Errorf("namespaces %v %v", ns, err)
	}
	set := decide.NewSet(p.Blobs()...)
	a, ok1 := set.Profile("sa")
	b, ok2 := set.Profile(":sns://sb")
	if !ok1 || !ok2 {
		t.Fatalf("profiles %v", set.Names())
	}
	for _, name := range []string{"ok", "no", "else"} {
		if err := os.WriteFile("/tmp/"+name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// On exec into the stack, and into one half stacked on the other.
	for _, label := range []string{"sa//&:sns:sb", "sa//&:sns://sb"} {
		got := runUnder(t, fs, label)
		// The task sees of its label what is in its namespace; files obey both.
		if got != "sb ok=rw no= else=r" {
			t.Errorf("under %s: %q", label, got)
		}
		l, err := labelUnder(fs, label)
		if err != nil || len(l.Components) != 2 || !l.Has("sa") || !slices.Contains(l.Components, Component{Namespace: "sns", Profile: "sb"}) {
			t.Errorf("under %s the label is %q: %v", label, l, err)
		}
	}
	if err := inThread(func() error { return fs.ChangeOnExec(":sns://nobody") }); err == nil {
		t.Error("a profile that is not there can be entered")
	}

	// A thread that is about to enter the stack makes it exist for queries.
	const stack = "sa//&:sns:sb"
	stop, ready := make(chan struct{}), make(chan error)
	defer close(stop)
	go func() {
		runtime.LockOSThread()
		ready <- fs.ChangeOnExec(stack)
		<-stop
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	q, err := fs.Query()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	r := rand.New(rand.NewPCG(3, 9))
	unpacked := map[*blob.Automaton]*dfa.DFA{}
	wrong, allowed := 0, 0
	const n = 1500
	for i := 0; i < n && wrong < 10; i++ {
		query := randomQuery(r, []*blob.Profile{a, b}[i%2], unpacked)
		for _, ask := range []struct {
			do    func(string, []byte) (Access, error)
			stack []*blob.Profile
		}{{q.AskAll, []*blob.Profile{a, b}}, {q.Ask, []*blob.Profile{b}}} {
			got, err := ask.do(stack, query)
			if err != nil {
				t.Fatalf("%q: %v", query, err)
			}
			d := decide.Query(ask.stack, query)
			want := Access{d.Allow, d.Deny, d.Audit, d.Quiet}
			if query[0] != 2 && a.PolicyDB.Perms == nil {
				got.Allow, want.Allow = got.Allow&^blob.MayLock, want.Allow&^blob.MayLock
			}
			if d.Allow != 0 {
				allowed++
			}
			if got != want {
				wrong++
				t.Errorf("%d of the stack, %q: kernel %08x, offline %08x", len(ask.stack), query, got, want)
			}
		}
	}
	t.Logf("%d decisions on %s, %d allow something; %d differ", 2*n, stack, allowed, wrong)
	if err := fs.Remove("sa"); err != nil {
		t.Error(err)
	}
	if err := fs.RemoveNamespace("sns"); err != nil {
		t.Error(err)
	}
	if ns, err := fs.Namespaces(""); err != nil || slices.Contains(ns, "sns") {
		t.Errorf("namespaces after removal %v %v", ns, err)
	}
}

// labelUnder is the label of a process under it, as seen from outside.
func labelUnder(fs FS, label string) (l Label, err error) {
	err = inThread(func() error {
		if err := fs.ChangeOnExec(label); err != nil {
			return err
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestOperationsChild$")
		cmd.Env = append(os.Environ(), operationsEnv+"=wait")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		// Start returns in the middle of the exec.
		await.Patiently(func() bool {
			l, err = fs.LabelOf(cmd.Process.Pid)
			return err != nil || !l.Unconfined()
		})
		stdin.Close()
		return errors.Join(err, cmd.Wait())
	})
	return l, err
}

// inThread runs fn on a thread of its own, which ends with it.
func inThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// operations are what a process can be kept from by one rule.
var operations = []struct{ name, deny string }{
	{"userns", "deny userns"},
	{"signal", "deny signal (send)"},
	{"ptrace", "deny ptrace (trace)"},
	{"mount", "deny mount"},
	{"inet", "deny network inet"},
	{"unix", "deny unix (connect) type=stream"},
	{"io_uring", "deny io_uring sqpoll"},
	{"exec", "deny /tmp/program x"},
	{"write", "deny /tmp/file w"},
}

const operationsEnv = "PALISADE_OPERATIONS_CHILD"

// testOperations does real operations under a profile that allows all of them,
// and under one for each that denies just that.
func testOperations(t *testing.T, fs FS, f *apparmor.Features, o compile.Options) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/tmp/program", self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/tmp/point", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", "@palisade-operations")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for i := -1; i < len(operations); i++ {
		name, deny := "ops", ""
		if i >= 0 {
			name, deny = "ops_"+operations[i].name, operations[i].deny+","
		}
		p := compileFor(t, f, o, "profile "+name+" { file, capability, network, mount, umount, signal, ptrace, unix, userns, io_uring, dbus, "+deny+" }")
		b, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.Replace(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var out []byte
		err = inThread(func() error {
			if err := fs.ChangeOnExec(name); err != nil {
				return err
			}
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestOperationsChild$", "-test.v")
			cmd.Env = append(os.Environ(), operationsEnv+"=1")
			var err error
			out, err = cmd.CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for j, op := range operations {
			want := "yes"
			if i == j {
				want = "no"
			}
			if !strings.Contains(string(out), "operation "+op.name+" "+want+"\n") {
				t.Errorf("under %s, %s is not %s:\n%s", name, op.name, want, out)
			}
		}
	}
}

// TestOperationsChild is what runs under the profiles of testOperations.
func TestOperationsChild(t *testing.T) {
	switch os.Getenv(operationsEnv) {
	case "wait":
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	case "":
		return
	}
	program := func(flags uintptr) error {
		cmd := exec.Command("/tmp/program", "-test.run=^$")
		if flags != 0 {
			cmd.Path = "/proc/self/exe"
		}
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: flags}
		return cmd.Run()
	}
	for name, do := range map[string]func() error{
		"userns": func() error { return program(unix.CLONE_NEWUSER) },
		"exec":   func() error { return program(0) },
		"signal": func() error { return unix.Kill(os.Getppid(), unix.SIGCONT) },
		"ptrace": func() error {
			return inThread(func() error {
				_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(os.Getppid()), 0, 0, 0, 0)
				if e != 0 {
					return e
				}
				return nil
			})
		},
		"mount": func() error {
			err := unix.Mount("none", "/tmp/point", "tmpfs", 0, "")
			if err == nil {
				err = unix.Unmount("/tmp/point", 0)
			}
			return err
		},
		"inet": func() error { return closing(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) },
		"unix": func() error {
			c, err := net.DialTimeout("unix", "@palisade-operations", 10*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		},
		"io_uring": func() error {
			const sqpoll = 2 // IORING_SETUP_SQPOLL
			params := make([]uint32, 30)
			params[2] = sqpoll
			return ioURingSetup(params)
		},
		"write": func() error { return os.WriteFile("/tmp/file", []byte("x"), 0o644) },
	} {
		word := "yes"
		if err := do(); err != nil {
			word = "no"
			fmt.Printf("%s: %v\n", name, err)
		}
		fmt.Printf("operation %s %s\n", name, word)
	}
}

func closing(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func ioURingSetup(params []uint32) error {
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
	if e != 0 {
		return e
	}
	unix.Close(int(fd))
	return nil
}
