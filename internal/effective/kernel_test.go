// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Environment of a process that makes a container of itself.
const (
	envBox   = "PALISADE_TEST_BOX"   // the work folder
	envFault = "PALISADE_TEST_FAULT" // what goes wrong with it
)

func TestMain(m *testing.M) {
	if work := os.Getenv(envBox); work != "" {
		runtime.LockOSThread()
		if err := box(work, os.Getenv(envFault)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test is over
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// boxSpec is the configuration of a box in a work folder.
func boxSpec(work string) *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{User: specs.User{UID: 0, GID: 0}, Capabilities: &specs.LinuxCapabilities{}},
		Root:    &specs.Root{Path: "root"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/dev", Type: "tmpfs"},
			{Destination: "/dev/shm", Type: "tmpfs"},
			{Destination: "/sys", Type: "tmpfs", Options: []string{"ro"}},
			{Destination: "/data", Type: "bind", Source: filepath.Join(work, "data"), Options: []string{"rbind", "ro"}},
			{Destination: "/var/run/sock", Type: "none", Source: filepath.Join(work, "file"), Options: []string{"bind"}},
		},
		Linux: &specs.Linux{
			Namespaces:    []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}},
			MaskedPaths:   []string{"/proc/uptime", "/proc/irq", "/proc/nothing"},
			ReadonlyPaths: []string{"/proc/sys", "/sys", "/proc/none/at/all"},
		},
	}
}

func prepare(work string) error {
	for _, dir := range []string{"root/proc", "root/dev", "root/sys", "root/data", "root/run", "root/var", "root/old", "data", "other"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(work, "file"), nil, 0o600), os.WriteFile(filepath.Join(work, "other/file"), nil, 0o600),
		os.WriteFile(filepath.Join(work, "root/run/sock"), nil, 0o600), os.Symlink("../run", filepath.Join(work, "root/var/run")),
	)
}

type call struct {
	what string
	err  error
}

func mount(source, target, fstype string, flags uintptr, data string) call {
	return call{"mount " + target, unix.Mount(source, target, fstype, flags, data)}
}

func bind(source, target string, flags uintptr) call {
	c := mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
	if c.err == nil && flags != 0 {
		return mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
	}
	return c
}

func first(calls ...call) error {
	for _, c := range calls {
		if c.err != nil {
			return fmt.Errorf("%s: %w", c.what, c.err)
		}
	}
	return nil
}

// box is what a runtime does, with one fault.
func box(work, fault string) error {
	// What this process was given, and what it opened, is none of the container's.
	if err := unix.CloseRange(3, 1<<30, 0); err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	in := func(p string) string { return filepath.Join(root, p) }
	is := func(f string) bool { return f == fault }
	err := first(
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		bind(root, root, 0),
		mount("proc", in("proc"), "proc", 0, ""),
		mount("tmpfs", in("dev"), "tmpfs", 0, ""),
		mount("tmpfs", in("sys"), "tmpfs", 0, ""),
	)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(in("sys/kernel"), 0o755), os.Mkdir(in("dev/shm"), 0o755), os.Mkdir(in("dev/x"), 0o755)); err != nil {
		return err
	}
	for name, d := range devices {
		if err := unix.Mknod(in(name), unix.S_IFCHR|0o666, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
			return fmt.Errorf("mknod %s: %w", name, err)
		}
	}
	data := filepath.Join(work, "data")
	if is("other data") {
		data = filepath.Join(work, "other")
	}
	var flags uintptr = unix.MS_RDONLY
	if is("writable data") {
		flags = 0
	}
	calls := []call{mount("tmpfs", in("dev/shm"), "tmpfs", 0, ""), mount("", in("sys"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""), bind(filepath.Join(work, "file"), in("run/sock"), 0)}
	if !is("no data") {
		calls = append(calls, bind(data, in("data"), flags))
	}
	// Masks.
	switch fault {
	case "no mask":
	case "mask is a file":
		calls = append(calls, bind(filepath.Join(work, "file"), in("proc/uptime"), 0))
	case "mask is named null":
		null := filepath.Join(work, "null")
		calls = append(calls, call{"write", os.WriteFile(null, nil, 0o600)}, bind(null, in("proc/uptime"), 0))
	case "mask is another device":
		calls = append(calls, bind(in("dev/zero"), in("proc/uptime"), 0))
	default:
		calls = append(calls, bind(in("dev/null"), in("proc/uptime"), 0))
	}
	switch fault {
	case "mask has content":
		calls = append(calls, mount("tmpfs", in("proc/irq"), "tmpfs", 0, ""), call{"mkdir", os.Mkdir(in("proc/irq/x"), 0o700)}, mount("", in("proc/irq"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	case "mask is writable":
		calls = append(calls, mount("tmpfs", in("proc/irq"), "tmpfs", 0, ""))
	default:
		calls = append(calls, mount("tmpfs", in("proc/irq"), "tmpfs", unix.MS_RDONLY, ""))
	}
	switch fault {
	case "writable path":
	case "another path":
		calls = append(calls, bind(in("proc/fs"), in("proc/sys"), unix.MS_RDONLY))
	default:
		calls = append(calls, bind(in("proc/sys"), in("proc/sys"), unix.MS_RDONLY))
	}
	// What was not asked for.
	switch fault {
	case "over /proc/1/fd":
		calls = append(calls, mount("tmpfs", in("proc/1/fd"), "tmpfs", 0, ""))
	case "over /proc/version":
		calls = append(calls, bind(in("dev/null"), in("proc/version"), 0))
	case "over /proc":
		calls = append(calls, mount("tmpfs", in("proc"), "tmpfs", 0, ""))
	case "part of /proc":
		calls = append(calls, bind(in("proc/fs"), in("proc"), 0))
	case "in /sys":
		calls = append(calls, mount("tmpfs", in("sys/kernel"), "tmpfs", 0, ""))
	case "in /dev":
		calls = append(calls, mount("tmpfs", in("dev/x"), "tmpfs", 0, ""))
	case "console is a file":
		calls = append(calls, call{"write", os.WriteFile(in("dev/console"), nil, 0o600)}, bind(in("proc/version"), in("dev/console"), 0))
	case "console is a link":
		calls = append(calls, call{"link", os.Symlink("/proc/version", in("dev/console"))})
	case "null is a file":
		calls = append(calls, call{"remove", os.Remove(in("dev/null"))}, call{"write", os.WriteFile(in("dev/null"), nil, 0o600)})
	case "null is a link":
		calls = append(calls, call{"remove", os.Remove(in("dev/null"))}, call{"link", os.Symlink("zero", in("dev/null"))})
	case "/dev is a link":
		calls = append(calls, call{"unmount", unix.Unmount(in("dev"), unix.MNT_DETACH)}, call{"remove", os.Remove(in("dev"))}, call{"link", os.Symlink("run", in("dev"))})
	case "stuck":
		dev, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("no fuse: %w", err)
		}
		calls = append(calls, mount("fuse", in("data"), "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)))
	}
	if err := first(calls...); err != nil {
		return err
	}
	// Descriptors that are kept.
	keep := func(p string, flags, want int) error {
		fd, err := unix.Open(p, flags, 0)
		if err != nil {
			return err
		}
		if err := unix.Dup2(fd, want); err != nil {
			return err
		}
		return unix.Close(fd)
	}
	const leaked = 30
	host, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	switch fault {
	case "leaked folder":
		err = keep("/", unix.O_RDONLY, leaked)
	case "leaked path":
		err = keep("/", unix.O_PATH, leaked)
	case "leaked file":
		err = keep(filepath.Join(work, "other/file"), unix.O_RDONLY, leaked)
	case "leaked namespace":
		err = keep("/proc/self/ns/mnt", unix.O_RDONLY, leaked)
	case "leaked /proc":
		err = keep("/proc", unix.O_RDONLY, leaked)
	case "input is a folder":
		err = keep("/", unix.O_RDONLY, 2)
	case "passed folder":
		err = keep("/", unix.O_RDONLY, 3)
	}
	if err != nil {
		return err
	}
	if is("not pivoted") {
		err = errors.Join(unix.Chroot(root), unix.Chdir("/"))
	} else {
		err = errors.Join(unix.PivotRoot(root, in("old")), unix.Chdir("/"), unix.Unmount("/old", unix.MNT_DETACH))
	}
	if err != nil {
		return err
	}
	switch fault {
	case "cwd outside":
		err = unix.Fchdir(host)
	case "chroot":
		err = errors.Join(unix.Chroot("/run"), unix.Chdir("/"))
	case "cwd above the root":
		err = unix.Chroot("/run")
	case "cwd in proc":
		err = unix.Chdir("/proc/sys")
	case "cwd is gone":
		err = errors.Join(os.Mkdir("/old/gone", 0o700), unix.Chdir("/old/gone"), os.Remove("/old/gone"))
	}
	return errors.Join(err, unix.Close(host))
}

// startBox makes a container in namespaces of its own.
func startBox(t *testing.T, work, fault string) int {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{envBox + "=" + work, envFault + "=" + fault, "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // whose end would be the child's
	t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		oracle.Missing(t, "no namespaces: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		if strings.Contains(line, "no fuse") {
			oracle.Missing(t, "%s", line)
		}
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid
}

// TestKernelBox has containers with one fault each, made by real calls.
func TestKernelBox(t *testing.T) {
	oracle.Root(t, "mounts take root")
	for fault, want := range map[string]string{ // part of the only mismatch; empty for none
		"none":                   "",
		"other data":             "mounts: asked for /data",
		"writable data":          "mounts: asked for /data: read-only, found writable",
		"no data":                "nothing is mounted there",
		"no mask":                "masked /proc/uptime, found visible",
		"mask is a file":         "masked /proc/uptime, found visible",
		"mask is named null":     "masked /proc/uptime, found visible",
		"mask is another device": "masked /proc/uptime, found visible",
		"mask has content":       "masked /proc/irq, found visible",
		"mask is writable":       "masked /proc/irq, found visible",
		"writable path":          "read-only /proc/sys, found writable",
		"another path":           "read-only /proc/sys, found writable",
		"over /proc/1/fd":        "/proc/1/fd: nothing, found tmpfs: a mount in /proc",
		"over /proc/version":     "/proc/version: nothing",
		"over /proc":             "/proc: proc, found tmpfs",
		"part of /proc":          "/proc: proc, found proc from /fs",
		"in /sys":                "/sys/kernel: nothing, found tmpfs",
		"in /dev":                "/dev/x: nothing, found tmpfs",
		"console is a file":      "/dev/console: nothing, found proc",
		"console is a link":      "/dev/console: no link",
		"null is a file":         "/dev/null: character device 1:3, found file",
		"null is a link":         "/dev/null: character device 1:3, found link",
		"/dev is a link":         "/dev: no link",
		"leaked folder":          "descriptor 30 leads outside",
		"leaked path":            "descriptor 30 leads outside",
		"leaked file":            "descriptor 30 leads outside",
		"leaked namespace":       "descriptor 30 leads outside",
		"leaked /proc":           "descriptor 30 leads outside",
		"input is a folder":      "descriptor 2 leads outside",
		"passed folder":          "",
		"cwd outside":            "working directory outside",
		"cwd above the root":     "working directory outside",
		"cwd in proc":            "",
		"cwd is gone":            "",
		"chroot":                 "root outside",
		"not pivoted":            "root outside",
	} {
		t.Run(fault, func(t *testing.T) {
			work := t.TempDir()
			if err := prepare(work); err != nil {
				t.Fatal(err)
			}
			spec := boxSpec(work)
			asked := Asked(spec)
			asked.FDs = 1
			// This process is the superuser with all capabilities.
			asked.Capabilities = Capabilities{}
			if err := asked.AskMounts(spec, work); err != nil {
				t.Fatal(err)
			}
			pid := startBox(t, work, fault)
			found, err := Read(pid, asked)
			if err != nil {
				t.Fatal(err)
			}
			asked.Capabilities = found.Capabilities
			m := Compare(asked, found)
			switch {
			case want == "":
				if len(m) != 0 {
					t.Errorf("%v", m)
				}
			case !slices.ContainsFunc(m, func(m Mismatch) bool { return strings.Contains(m.String(), want) }):
				t.Errorf("no %q in %v", want, m)
			}
		})
	}
}

// TestKernelStuck has a file system that does not answer.
func TestKernelStuck(t *testing.T) {
	oracle.Root(t, "mounts take root")
	work := t.TempDir()
	if err := prepare(work); err != nil {
		t.Fatal(err)
	}
	spec := boxSpec(work)
	asked := Asked(spec)
	if err := asked.AskMounts(spec, work); err != nil {
		t.Fatal(err)
	}
	asked.Mounts = append(asked.Mounts, Mount{Destination: "/data/below", Type: "tmpfs"})
	pid := startBox(t, work, "stuck")
	before := probeTimeout
	probeTimeout = time.Second
	defer func() { probeTimeout = before }()
	if _, err := Read(pid, asked); !errors.Is(err, errSlow) {
		t.Errorf("got %v, want ErrSlow", err)
	}
}

// TestKernelFilter reads the filters of a process with one that allows everything.
func TestKernelFilter(t *testing.T) {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}}
	raw := make([]byte, 8)
	binary.NativeEndian.PutUint16(raw, program[0].Code)
	binary.NativeEndian.PutUint32(raw[4:], program[0].K)
	sum := sha256.Sum256(raw)
	hash := hex.EncodeToString(sum[:])

	tid, errs, end := make(chan int, 1), make(chan error, 1), make(chan struct{})
	defer close(end)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		fprog := unix.SockFprog{Len: 1, Filter: &program[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			errs <- err
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
			errs <- errno
			return
		}
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := cmd.Start(); err != nil {
			errs <- err
			return
		}
		tid <- cmd.Process.Pid
		<-end
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var pid int
	select {
	case pid = <-tid:
	case err := <-errs:
		oracle.Missing(t, "no filter: %v", err)
	}
	landlock := &Landlock{ABI: 1, HandledFS: 1}
	asked := State{NoNewPrivileges: true, Landlock: landlock, Seccomp: Seccomp{Mode: SeccompFilter, Filters: 1, SHA256: []string{hash}}}
	found, err := Read(pid, asked)
	if err != nil {
		t.Fatal(err)
	}
	if found.Seccomp.SHA256 == nil {
		oracle.Missing(t, "filters cannot be read here")
	}
	asked.Capabilities = found.Capabilities
	if m := Compare(asked, found); len(m) != 0 || !slices.Contains(found.Seccomp.SHA256, hash) {
		t.Errorf("%v: %+v", m, found.Seccomp)
	}
	asked.Seccomp.SHA256 = []string{strings.Repeat("0", 64)}
	found, err = Read(pid, asked)
	if err != nil {
		t.Fatal(err)
	}
	var layers []string
	for _, m := range Compare(asked, found) {
		layers = append(layers, m.Layer)
	}
	if !slices.Equal(layers, []string{"seccomp", "landlock"}) {
		t.Errorf("with another filter: %v", layers)
	}
}
