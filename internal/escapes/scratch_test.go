// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/policy"
)

// all tells whether every runtime is built and every race is run at length.
func all() bool { return os.Getenv("PALISADE_ESCAPES") == "all" }

// one tells whether each row is run on the first of its runtimes, whichever that
// is, in the short form.
func one() bool { return os.Getenv("PALISADE_ESCAPES") == "one" }

// A scratch is a folder that holds everything that a test touches: the built
// commands, copies of the runtimes, and one folder for each attempt.
type scratch struct {
	dir, bin string
	count    chan int
}

func newScratch(t testing.TB) *scratch {
	t.Helper()
	oracle.Root(t, "containers need root")
	if testing.Short() {
		t.Skip("containers take a while")
	}
	// A short path: sockets have 108 bytes, and a climb out of a container repeats it.
	dir, err := os.MkdirTemp("", "palisade-escapes")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, dir) })
	s := &scratch{dir: dir, bin: filepath.Join(dir, "bin"), count: make(chan int, 1)}
	s.count <- 0
	cmds := [][]string{{"-o", s.bin + "/", "./cmd/..."}, {"-ldflags", "-s -w", "-o", s.bin + "/inside", "./internal/escapes/testdata/inside"}}
	for _, args := range cmds {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		cmd.Dir, cmd.Env = oracle.ModuleRoot(t), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %v: %v\n%s", args, err, out)
		}
	}
	return s
}

// removeAll unmounts what may be mounted below dir first.
func removeAll(t testing.TB, dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Log(err)
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	for _, p := range points {
		_ = unix.Unmount(p, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Log(err)
	}
}

// A runtime is one program that the rows are run with.
type runtime struct {
	name string // "runc 1.1.4"
	path string
	// legacy is crun as Debian has it, which wants one kind of control groups.
	legacy bool
}

// runc is a copy of a built version in the scratch folder, so that a row may try
// to open it for writing.
func (s *scratch) runc(t testing.TB, version string) runtime {
	t.Helper()
	path := filepath.Join(s.bin, "runc-"+version)
	copyOnce(t, Runc(t, version), path)
	return runtime{name: "runc " + version, path: path}
}

func (s *scratch) crun(t testing.TB) runtime {
	t.Helper()
	path := filepath.Join(s.bin, "crun")
	copyOnce(t, oracle.Tool(t, "crun", "apt: crun"), path)
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(string(out), "\n")
	return runtime{name: strings.Replace(name, "version ", "", 1), path: path, legacy: true}
}

func copyOnce(t testing.TB, from, to string) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), "tmp-")
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Chmod(0o755), tmp.Close(), os.Rename(tmp.Name(), to)); err != nil {
		t.Fatal(err)
	}
}

// Ways into a container.
const (
	wayRun    = "run"
	wayCreate = "create+start"
	wayExec   = "exec"
)

// Configurations in which a row is tried; bare is the runtime alone.
const (
	bare          = "bare"
	policyDefault = "default"
	policyStrict  = "strict"
)

// An attempt is one container in a folder of its own.
type attempt struct {
	t   testing.TB
	s   *scratch
	rt  runtime
	way string
	pol string
	n   int // which of the row's variants

	id, dir, bundle, root, outside string
	spec                           *specs.Spec
	// exec is the process of an exec; the container's own then only holds it.
	exec *specs.Process
	// execFlags replace the process file of an exec by a command line.
	execFlags []string
	terminal  bool
	// unified shows the runtime nothing but the unified control groups.
	unified bool
	// beside runs while the container starts; it must end when its context does.
	beside func(context.Context)
	// last runs after an exec, before the output is read.
	last func(pidfile string)
	// text changes the configuration as it is written.
	text []string
}

// outsideSecret is what is to be read outside of the container.
const outsideSecret = "palisade-outside"

func (s *scratch) attempt(t testing.TB, rt runtime, pol, way string, n int) *attempt {
	t.Helper()
	number := <-s.count
	s.count <- number + 1
	id := fmt.Sprintf("esc%d-%d", os.Getpid(), number)
	dir := filepath.Join(s.dir, strconv.Itoa(number))
	a := &attempt{
		t: t, s: s, rt: rt, way: way, pol: pol, n: n, id: id, dir: dir,
		bundle: filepath.Join(dir, "b"), root: filepath.Join(dir, "b/root"), outside: filepath.Join(dir, "outside"),
	}
	for _, sub := range []string{"proc", "dev", "sys", "tmp", "etc", "vol", "work"} {
		a.mkdir(filepath.Join(a.root, sub))
	}
	a.mkdir(a.outside)
	a.write(filepath.Join(a.outside, "secret"), outsideSecret)
	a.inside(filepath.Join(a.root, "inside"))
	a.spec = baseSpec(id)
	return a
}

// inside puts the helper somewhere.
func (a *attempt) inside(path string) {
	a.t.Helper()
	a.mkdir(filepath.Dir(path))
	if err := os.Link(filepath.Join(a.s.bin, "inside"), path); err != nil {
		a.t.Fatal(err)
	}
}

func (a *attempt) mkdir(path string) {
	a.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		a.t.Fatal(err)
	}
}

func (a *attempt) write(path, content string) {
	a.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// link makes a symbolic link in the image in place of whatever is there.
func (a *attempt) link(target, path string) {
	a.t.Helper()
	if err := errors.Join(os.RemoveAll(filepath.Join(a.root, path)), os.Symlink(target, filepath.Join(a.root, path))); err != nil {
		a.t.Fatal(err)
	}
}

// bind mounts a folder of the host into the container.
func (a *attempt) bind(from, to string, options ...string) {
	a.spec.Mounts = append(a.spec.Mounts, specs.Mount{Destination: to, Type: "bind", Source: from, Options: append([]string{"bind", "rw"}, options...)})
}

func (a *attempt) tmpfs(to string) {
	a.spec.Mounts = append(a.spec.Mounts, specs.Mount{Destination: to, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}})
}

// unmount takes the mount of a destination out of the configuration.
func (a *attempt) unmount(destinations ...string) {
	a.spec.Mounts = slices.DeleteFunc(a.spec.Mounts, func(m specs.Mount) bool { return slices.Contains(destinations, m.Destination) })
}

func (a *attempt) args(args ...string) {
	if a.way == wayExec {
		a.exec = a.process()
		a.exec.Args = args
		a.spec.Process.Args = []string{"/inside", "hold"}
		return
	}
	a.spec.Process.Args = args
}

// process is the process that the row is about.
func (a *attempt) process() *specs.Process {
	if a.way != wayExec {
		return a.spec.Process
	}
	if a.exec == nil {
		p := *a.spec.Process
		c := *p.Capabilities
		p.Capabilities = &c
		p.Env = slices.Clone(p.Env)
		a.exec = &p
	}
	return a.exec
}

// baseSpec is a container as Docker configures it, without a filter of system
// calls, for runtimes of any age.
func baseSpec(id string) *specs.Spec {
	names := caps.Docker.Names()
	def := policy.Default()
	return &specs.Spec{
		Version:  "1.0.0",
		Hostname: "escapes",
		Root:     &specs.Root{Path: "root"},
		Process: &specs.Process{
			Args: []string{"/inside", "status"}, Cwd: "/",
			Env:          []string{"PATH=/bin:/", "HOME=/"},
			Capabilities: &specs.LinuxCapabilities{Bounding: names, Effective: slices.Clone(names), Permitted: slices.Clone(names)},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/palisade-escapes/" + id,
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace},
			},
			MaskedPaths:   slices.Clone(def.MaskedPaths),
			ReadonlyPaths: slices.Clone(def.ReadOnlyPaths),
		},
	}
}

// command is a call of the runtime, or of Palisade above it.
func (a *attempt) command(ctx context.Context, args ...string) *exec.Cmd {
	line := []string{a.rt.path}
	if a.pol != bare {
		line = []string{filepath.Join(a.s.bin, "palisade-oci"), "--palisade-runtime", a.rt.path, "--palisade-policy", a.pol}
	}
	line = append(line, "--root", filepath.Join(a.dir, "state"))
	return a.commandLine(ctx, append(line, args...))
}

func (a *attempt) commandLine(ctx context.Context, line []string) *exec.Cmd {
	mounts := ""
	if a.rt.legacy {
		mounts = `umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"`
	}
	if a.unified {
		mounts = `mount -t cgroup2 none /sys/fs/cgroup && exec "$@"`
	}
	if mounts != "" {
		line = append([]string{"unshare", "-m", "sh", "-c", mounts, "sh"}, line...)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "PALISADE_STATE="+filepath.Join(a.dir, "palisade"), "PALISADE_RUNTIME=", "XDG_RUNTIME_DIR=")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// result is what came of an attempt.
type result struct {
	out  string // of the container and of the runtime
	code int    // of the last call that was made
	call string // which call that was
}

// call runs a command to its end with its output in a file, which a container may
// keep open.
func (a *attempt) call(r *result, args ...string) bool {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	cmd := a.command(ctx, args...)
	r.call = args[0]
	return a.wait(r, cmd)
}

func (a *attempt) wait(r *result, cmd *exec.Cmd) bool {
	a.t.Helper()
	f, err := os.OpenFile(filepath.Join(a.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, exec.ErrWaitDelay) {
		a.t.Fatalf("%q: %v", cmd.Args, err)
	}
	r.code = cmd.ProcessState.ExitCode()
	return r.code == 0
}

// do goes the attempt's way.
func (a *attempt) do() result {
	a.t.Helper()
	b, err := json.Marshal(a.spec)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(filepath.Join(a.bundle, "config.json"), strings.NewReplacer(a.text...).Replace(string(b)))
	return a.start()
}

// start is do for a configuration that is written already.
func (a *attempt) start() (r result) {
	a.t.Helper()
	// Last of all, when whatever writes to it is gone.
	defer func() { r.out = a.output() }()
	done := func() {}
	defer func() { done() }()
	defer a.clean()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if a.beside != nil {
			a.beside(ctx)
		}
	}()
	defer func() { cancel(); <-ended }()

	pidfile := filepath.Join(a.dir, "pid")
	args := []string{"create", "--bundle", a.bundle, "--pid-file", pidfile}
	if a.terminal {
		var socket string
		socket, done = a.console()
		args = append(args, "--console-socket", socket)
	}
	switch a.way {
	case wayRun:
		if a.terminal {
			args[0] = "run"
			args = append(args, "--detach")
			if a.call(&r, append(args, a.id)...) {
				a.waitInit(pidfile)
			}
			break
		}
		a.call(&r, "run", "--bundle", a.bundle, a.id)
	case wayCreate:
		if a.call(&r, append(args, a.id)...) && a.call(&r, "start", a.id) {
			a.waitInit(pidfile)
		}
	case wayExec:
		if !a.call(&r, append(args, a.id)...) || !a.call(&r, "start", a.id) {
			break
		}
		if a.last != nil {
			defer a.last(pidfile)
		}
		if a.execFlags != nil {
			a.call(&r, append(append([]string{"exec"}, a.execFlags[:len(a.execFlags)-1]...), a.id, a.execFlags[len(a.execFlags)-1])...)
			break
		}
		p, err := json.Marshal(a.process())
		if err != nil {
			a.t.Fatal(err)
		}
		a.write(filepath.Join(a.dir, "process.json"), string(p))
		a.call(&r, "exec", "--process", filepath.Join(a.dir, "process.json"), a.id)
	}
	return r
}

func (a *attempt) output() string {
	a.t.Helper()
	var text []byte
	for _, name := range []string{"out", "aside/out"} {
		b, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			a.t.Fatal(err)
		}
		text = append(text, b...)
	}
	return string(text)
}

// aside lets the container tell what it sees by a file too.
func (a *attempt) aside() {
	a.t.Helper()
	a.mkdir(filepath.Join(a.dir, "aside"))
	a.bind(filepath.Join(a.dir, "aside"), "/aside")
	a.spec.Process.Env = append(a.spec.Process.Env, "ESCAPES_OUT=/aside/out")
}

// chown gives the image to another user.
func (a *attempt) chown(uid int) {
	a.t.Helper()
	err := filepath.WalkDir(a.root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// recode is a filter as the runtime specification's Go type.
func recode(t testing.TB, from any) *specs.LinuxSeccomp {
	t.Helper()
	b, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	var to specs.LinuxSeccomp
	if err := json.Unmarshal(b, &to); err != nil {
		t.Fatal(err)
	}
	return &to
}

// waitInit waits for the end of a container's first process.
func (a *attempt) waitInit(pidfile string) {
	a.t.Helper()
	b, err := os.ReadFile(pidfile)
	if err != nil {
		a.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		a.t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	} else if err != nil {
		a.t.Fatal(err)
	}
	defer unix.Close(fd)
	for end := time.Now().Add(30 * time.Second); ; {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// console answers as an engine does that wants the terminal, and keeps what is
// written to it.
func (a *attempt) console() (socket string, done func()) {
	a.t.Helper()
	socket = filepath.Join(a.dir, "tty")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 4)); err != nil {
		a.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			oob := make([]byte, unix.CmsgSpace(4))
			_, n, _, _, err := unix.Recvmsg(conn, make([]byte, 256), oob, unix.MSG_CMSG_CLOEXEC)
			unix.Close(conn)
			if err != nil {
				continue
			}
			msgs, _ := unix.ParseSocketControlMessage(oob[:n])
			for _, m := range msgs {
				fds, _ := unix.ParseUnixRights(&m)
				for _, master := range fds {
					f := os.NewFile(uintptr(master), "terminal")
					b, _ := io.ReadAll(io.LimitReader(f, 1<<20)) // EIO when the last end is closed
					f.Close()
					out, err := os.OpenFile(filepath.Join(a.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
					if err == nil {
						_, _ = out.Write(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
						out.Close()
					}
				}
			}
		}
	}()
	return socket, func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd); <-ended }
}

// clean deletes the container, and what may be left of it.
func (a *attempt) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, pol := range slices.Compact([]string{a.pol, bare}) {
		b := *a
		b.pol = pol
		_ = b.command(ctx, "delete", "--force", a.id).Run()
	}
}

// line is the first line of the container's output that begins with these words,
// without them.
func line(out string, words ...string) (string, bool) {
	prefix := strings.Join(words, " ")
	for l := range strings.Lines(out) {
		l = strings.TrimSpace(l)
		if l == prefix {
			return "", true
		}
		if rest, ok := strings.CutPrefix(l, prefix+" "); ok {
			return rest, true
		}
	}
	return "", false
}

// exchange swaps two names of the host until its context ends.
func (a *attempt) exchange(names ...string) func(context.Context) {
	return func(ctx context.Context) {
		cmd := exec.Command(filepath.Join(a.s.bin, "inside"), append([]string{"exchange"}, names...)...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			a.t.Error(err)
			return
		}
		if err := cmd.Start(); err != nil {
			a.t.Error(err)
			return
		}
		<-ctx.Done()
		stdin.Close()
		_ = cmd.Wait()
	}
}
