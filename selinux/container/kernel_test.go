// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// The kernel test runs this binary again in other roles, under other labels.
const roleEnv = "PALISADE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "engine":
		exit(separate())
	case "container":
		exit(contained())
	case "engines":
		exit(engines())
	case "serve":
		exit(serve())
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	root    = "/host"
	base    = root + "/containers"
	domainA = "system_u:system_r:container_t:s0:c1,c2"
	domainB = "system_u:system_r:container_t:s0:c3,c4"
	agent   = base + "/agent"
)

// try is one operation that a container attempts.
type try struct {
	Op, Path string
	PID      int
	Allowed  bool
}

func (t try) String() string { return fmt.Sprintf("%s %s", t.Op, t.Path) }

// TestKernelSeparation loads Debian's policy with the module into a kernel and
// has two containers, root with all capabilities in their domain, try what they
// may and what they may not do to themselves, to each other and to the host.
func TestKernelSeparation(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		b := debian.Policy(t, "default", map[string][]byte{Name: Module()})
		files = []vmtest.File{{Guest: "/policy", Host: b.Policy}}
	}
	vmtest.Run(t, vmtest.Config{LSM: "selinux", Files: files}, func(t *testing.T) {
		policy, err := os.ReadFile("/policy")
		if err != nil {
			t.Fatal(err)
		}
		must(t, os.WriteFile("/sys/fs/selinux/load", policy, 0))
		layOut(t)
		// kernel_t is not what starts containers: an engine in initrc_t is, with
		// the range that engines have.
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleEnv+"=engine")
		must(t, startAs(cmd, "system_u:system_r:initrc_t:s0-s0:c0.c1023"))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, denials())
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// denials returns the kernel's AVC records.
func denials() string {
	buf := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for line := range strings.Lines(string(buf[:n])) {
		if _, avc, found := strings.Cut(line, "avc:"); found {
			b.WriteString("avc:" + avc)
		}
	}
	return b.String()
}

// layOut makes two container roots, shared and read-only content, and files of
// the host that no container may touch.
func layOut(t *testing.T) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	// A file system of its own: the initial one has no type that files go with.
	must(t, os.Mkdir(root, 0o755))
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"))
	must(t, unix.Setxattr(root, "security.selinux", []byte("system_u:object_r:root_t:s0\x00"), 0))
	for _, d := range []struct{ dir, label string }{
		{base, "system_u:object_r:container_ro_file_t:s0"},
		{base + "/a", "system_u:object_r:container_file_t:s0:c1,c2"},
		{base + "/b", "system_u:object_r:container_file_t:s0:c3,c4"},
		{base + "/shared", "system_u:object_r:container_file_t:s0"},
		{base + "/state", "system_u:object_r:container_var_lib_t:s0"},
		{root + "/etc", "system_u:object_r:etc_t:s0"},
		{root + "/home", "system_u:object_r:home_root_t:s0"},
		{root + "/home/user", "unconfined_u:object_r:user_home_t:s0"},
		{root + "/bin", "system_u:object_r:bin_t:s0"},
		{root + "/lib", "system_u:object_r:lib_t:s0"},
	} {
		must(t, os.MkdirAll(d.dir, 0o777))
		must(t, os.WriteFile(d.dir+"/f", []byte("content"), 0o777))
		must(t, os.WriteFile(d.dir+"/old", nil, 0o777))
		must(t, os.WriteFile(d.dir+"/prog", self, 0o777))
		for _, p := range []string{d.dir, d.dir + "/f", d.dir + "/old", d.dir + "/prog"} {
			must(t, unix.Setxattr(p, "security.selinux", []byte(d.label+"\x00"), 0))
		}
	}
	must(t, os.WriteFile(root+"/etc/shadow", []byte("root:*"), 0o600))
	must(t, unix.Setxattr(root+"/etc/shadow", "security.selinux", []byte("system_u:object_r:shadow_t:s0\x00"), 0))
	must(t, unix.Setxattr("/dev/null", "security.selinux", []byte("system_u:object_r:null_device_t:s0\x00"), 0))
	must(t, os.WriteFile(agent, self, 0o755))
	must(t, unix.Setxattr(agent, "security.selinux", []byte("system_u:object_r:container_ro_file_t:s0\x00"), 0))
}

// startAs starts a process under a label, as runtimes do: by setting the label
// for the next exec of the thread.
func startAs(cmd *exec.Cmd, label string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr := fmt.Sprintf("/proc/self/task/%d/attr/exec", unix.Gettid())
	if err := os.WriteFile(attr, []byte(label), 0); err != nil {
		return err
	}
	defer os.WriteFile(attr, nil, 0)
	cmd.Stderr = os.Stderr
	return cmd.Start()
}

// separate is the daemon: it turns enforcing on and starts container B, which
// waits, and then A once for each thing to try.
func separate() error {
	if err := os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0); err != nil {
		return err
	}
	var failures []error
	if got, _ := os.ReadFile("/sys/fs/selinux/enforce"); string(got) != "1" {
		return fmt.Errorf("not enforcing: %q", got)
	}
	b := exec.Command(agent)
	b.Env = append(os.Environ(), roleEnv+"=container")
	order, err := b.StdinPipe()
	if err != nil {
		return err
	}
	ready, err := b.StdoutPipe()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(order).Encode([]try{{Op: "serve", Path: base + "/b/socket"}, {Op: "serve", Path: base + "/shared/socket"}, {Op: "serve", Path: "@b"}, {Op: "wait"}}); err != nil {
		return err
	}
	if err := startAs(b, domainB); err != nil {
		return fmt.Errorf("start B: %w", err)
	}
	defer b.Process.Kill()
	// A pipe of the engine, which has all categories, works in both directions.
	if line := make([]byte, 6); func() bool { _, err := ready.Read(line); return err != nil }() || string(line) != "ready\n" {
		return fmt.Errorf("B did not come up: %q", line)
	}
	if err := os.WriteFile("/dev/kmsg", []byte("<6>separation: two containers are up\n"), 0); err != nil {
		return err
	}

	pid := b.Process.Pid
	var tries []try
	files := []string{"read", "write", "append", "truncate", "stat", "chmod", "exec", "map", "watch", "link", "rename", "relabel", "getxattr"}
	for _, op := range files {
		own := op != "relabel" // its label is not for a container to change
		tries = append(tries,
			try{Op: op, Path: base + "/a/f", Allowed: own && op != "exec"}, // not a program, but see prog below
			try{Op: op, Path: base + "/b/f"},
			try{Op: op, Path: base + "/state/f"},
			try{Op: op, Path: root + "/etc/shadow"},
			try{Op: op, Path: root + "/etc/f"},
			try{Op: op, Path: root + "/home/user/f"},
			try{Op: op, Path: root + "/bin/f"},
			try{Op: op, Path: root + "/lib/f"},
		)
	}
	for _, op := range []string{"list", "create", "mkdir", "unlink", "socket", "fifo", "symlink", "mknod"} {
		tries = append(tries,
			try{Op: op, Path: base + "/a", Allowed: true},
			try{Op: op, Path: base + "/shared", Allowed: true},
			try{Op: op, Path: base + "/b"},
			try{Op: op, Path: base + "/state"},
			try{Op: op, Path: root + "/etc"},
			try{Op: op, Path: root + "/lib"},
			try{Op: op, Path: root + "/home/user"},
		)
	}
	tries = append(tries,
		try{Op: "run", Path: base + "/a/prog", Allowed: true},
		try{Op: "run", Path: base + "/prog", Allowed: true},
		try{Op: "run", Path: base + "/b/prog"},
		try{Op: "run", Path: root + "/bin/prog"},
		try{Op: "read", Path: base + "/f", Allowed: true},
		try{Op: "write", Path: base + "/f"},
		try{Op: "write", Path: base + "/shared/f", Allowed: true},
		try{Op: "connect", Path: base + "/b/socket"},
		try{Op: "connect", Path: "@b"},
		try{Op: "connect", Path: base + "/shared/socket"}, // the file is shared, B's socket is not
		try{Op: "read", Path: "/proc/kcore"},
		try{Op: "read", Path: "/proc/kmsg"},
		try{Op: "read", Path: "/proc/meminfo", Allowed: true},
		try{Op: "write", Path: "/proc/sys/kernel/core_pattern"},
		try{Op: "write", Path: "/proc/sysrq-trigger"},
		try{Op: "write", Path: "/sys/kernel/uevent_helper"},
		try{Op: "write", Path: "/sys/fs/selinux/enforce"},
		try{Op: "mount", Path: base + "/a"},
		try{Op: "setcon", Path: "system_u:system_r:container_t:s0:c3,c4"},
		try{Op: "setcon", Path: "system_u:system_r:spc_t:s0"},
		try{Op: "setexec", Path: "system_u:system_r:container_t:s0:c3,c4"},
		try{Op: "setfscreate", Path: "system_u:object_r:container_file_t:s0:c3,c4"},
		try{Op: "network", Path: "127.0.0.1:0", Allowed: true},
	)
	for _, target := range []struct {
		pid     int
		allowed bool
	}{{pid, false}, {os.Getpid(), false}, {0, true}} {
		for _, op := range []string{"signull", "kill", "ptrace", "vmread", "proc-environ", "proc-root", "proc-fd", "setsched", "getsched", "getpgid", "setpgid-of", "pidfd-getfd"} {
			allowed := target.allowed
			if target.pid == 0 && op == "kill" {
				continue // nothing to gain from killing oneself
			}
			tries = append(tries, try{Op: op, PID: target.pid, Path: strconv.Itoa(target.pid), Allowed: allowed})
		}
	}

	a := exec.Command(agent)
	a.Env = append(os.Environ(), roleEnv+"=container")
	in, err := a.StdinPipe()
	if err != nil {
		return err
	}
	var out strings.Builder
	a.Stdout = &out
	if err := startAs(a, domainA); err != nil {
		return fmt.Errorf("start A: %w", err)
	}
	if err := json.NewEncoder(in).Encode(tries); err != nil {
		return err
	}
	in.Close()
	if err := a.Wait(); err != nil {
		failures = append(failures, fmt.Errorf("A: %w", err))
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(tries)+1 {
		return fmt.Errorf("%d answers to %d tries:\n%s", len(lines)-1, len(tries), out.String())
	}
	if lines[0] != domainA {
		failures = append(failures, fmt.Errorf("A runs as %s", lines[0]))
	}
	blocked := 0
	for i, try := range tries {
		answer := lines[i+1]
		if ok := answer == "ok"; ok != try.Allowed {
			failures = append(failures, fmt.Errorf("%s: %s, should be allowed: %v", try, answer, try.Allowed))
		} else if !ok {
			blocked++
		}
	}
	fmt.Fprintf(os.Stderr, "%d tries, %d of them denied\n", len(tries), blocked)
	return errors.Join(failures...)
}

// contained is the process in the container: it does what it is told on
// standard input and answers a line for each.
func contained() error {
	var tries []try
	if err := json.NewDecoder(os.Stdin).Decode(&tries); err != nil {
		return err
	}
	label, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return err
	}
	if tries[0].Op != "serve" {
		fmt.Println(strings.TrimRight(string(label), "\x00\n"))
	}
	for _, t := range tries {
		if t.Op == "wait" {
			fmt.Println("ready")
			await.Killed()
		}
		err := attempt(t)
		if t.Op == "serve" {
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok")
	}
	return nil
}

func attempt(t try) error {
	pid := t.PID
	if pid == 0 {
		pid = os.Getpid()
	}
	name := func(n string) string { return filepath.Join(t.Path, n) }
	proc := func(n string) string { return fmt.Sprintf("/proc/%d/%s", pid, n) }
	switch t.Op {
	case "read":
		f, err := os.Open(t.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 16))
		return err
	case "write":
		return closed(os.OpenFile(t.Path, os.O_WRONLY, 0))
	case "append":
		return closed(os.OpenFile(t.Path, os.O_WRONLY|os.O_APPEND, 0))
	case "truncate":
		return os.Truncate(t.Path, 7)
	case "stat":
		_, err := os.Stat(t.Path)
		return err
	case "chmod":
		return os.Chmod(t.Path, 0o777)
	case "exec", "run":
		cmd := exec.Command(t.Path, "-test.list=^$")
		cmd.Env = append(os.Environ(), roleEnv+"=none")
		return cmd.Run()
	case "map":
		// The inode's permission to be mapped is asked on its own.
		f, err := os.OpenFile(t.Path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		if err == nil {
			_ = unix.Munmap(m)
		}
		return err
	case "watch":
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, t.Path, unix.IN_MODIFY)
		return err
	case "link":
		to := base + "/a/link"
		defer os.Remove(to)
		return os.Link(t.Path, to)
	case "rename":
		if err := os.Rename(t.Path, t.Path+".moved"); err != nil {
			return err
		}
		return os.Rename(t.Path+".moved", t.Path)
	case "getxattr":
		_, err := unix.Getxattr(t.Path, "security.selinux", make([]byte, 256))
		return err
	case "relabel":
		return unix.Setxattr(t.Path, "security.selinux", []byte("system_u:object_r:container_file_t:s0\x00"), 0)
	case "list":
		_, err := os.ReadDir(t.Path)
		return err
	case "create":
		return closed(os.Create(name("new")))
	case "mkdir":
		return os.MkdirAll(name("dir"), 0o755)
	case "unlink":
		return os.Remove(name("old"))
	case "symlink":
		return os.Symlink("x", name("symlink"))
	case "mknod":
		return unix.Mknod(name("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	case "fifo":
		return unix.Mkfifo(name("fifo"), 0o666)
	case "socket", "serve":
		if t.Op == "socket" {
			t.Path = name("own-socket")
		}
		l, err := net.Listen("unix", t.Path)
		if err == nil && t.Op == "serve" {
			go func() {
				for {
					if c, err := l.Accept(); err == nil {
						c.Close()
					}
				}
			}()
		}
		return err
	case "connect":
		c, err := net.Dial("unix", t.Path)
		if err == nil {
			c.Close()
		}
		return err
	case "mount":
		return unix.Mount("tmpfs", t.Path, "tmpfs", 0, "")
	case "setcon", "setexec", "setfscreate":
		attr := map[string]string{"setcon": "current", "setexec": "exec", "setfscreate": "fscreate"}[t.Op]
		return os.WriteFile("/proc/thread-self/attr/"+attr, []byte(t.Path), 0)
	case "network":
		l, err := net.Listen("tcp", t.Path)
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	case "signull":
		return unix.Kill(pid, 0)
	case "kill":
		return unix.Kill(pid, unix.SIGKILL)
	case "ptrace":
		if t.PID == 0 {
			return nil // one cannot trace oneself; children are the runtime's business
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := unix.PtraceSeize(pid)
		if err == nil {
			_ = unix.PtraceDetach(pid)
		}
		return err
	case "vmread":
		if t.PID == 0 {
			return nil
		}
		b := make([]byte, 8)
		_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
		return err
	case "proc-environ":
		_, err := os.ReadFile(proc("environ"))
		return err
	case "proc-root":
		_, err := os.ReadDir(proc("root/"))
		if t.PID == 0 && errors.Is(err, unix.EACCES) {
			return nil // the guest's own root is the host's, and closed
		}
		return err
	case "proc-fd":
		_, err := os.ReadDir(proc("fd"))
		return err
	case "proc-pipe-read", "proc-pipe-write":
		fd, flags := pipeRead, unix.O_RDONLY
		if t.Op == "proc-pipe-write" {
			fd, flags = pipeWrite, unix.O_WRONLY
		}
		return closed(os.OpenFile(proc(fmt.Sprint("fd/", fd)), flags|unix.O_NONBLOCK, 0))
	case "fifo-read":
		return closed(os.OpenFile(t.Path, unix.O_RDONLY|unix.O_NONBLOCK, 0))
	case "fifo-write":
		// For reading too, or there would have to be a reader.
		return closed(os.OpenFile(t.Path, unix.O_RDWR|unix.O_NONBLOCK, 0))
	case "stop":
		// Another signal than the harmless one, which the target must survive.
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			return err
		}
		return unix.Kill(pid, unix.SIGCONT)
	case "setsched":
		return unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	case "getsched":
		_, err := unix.SchedGetAttr(pid, 0)
		return err
	case "getpgid":
		_, err := unix.Getpgid(pid)
		return err
	case "setpgid-of":
		if t.PID == 0 {
			return unix.Setpgid(0, 0)
		}
		return unix.Setpgid(pid, pid)
	case "pidfd-getfd":
		if t.PID == 0 {
			return nil
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.PidfdGetfd(fd, 0, 0)
		return err
	}
	return fmt.Errorf("unknown operation %q", t.Op)
}

func closed(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}
