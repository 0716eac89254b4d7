// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestConfirmPaths makes a container and a process with relative paths only, and
// looks in which folder the runtime took each one.
func TestConfirmPaths(t *testing.T) {
	oracle.Root(t, "containers want root")
	busybox := oracle.Tool(t, "busybox", "apt: busybox-static")
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			runtime := oracle.Tool(t, name, "apt: "+name)
			g, _, err := detect(runtime, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Sockets have short names.
			top, err := os.MkdirTemp("", "cl")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(top) })
			d := dirs{Caller: filepath.Join(top, "a"), Bundle: filepath.Join(top, "b")}
			d.Container = d.Bundle
			makeBundle(t, runtime, busybox, d.Bundle)
			if err := os.MkdirAll(d.Caller, 0o755); err != nil {
				t.Fatal(err)
			}
			root, id := filepath.Join(top, "root"), "c"+filepath.Base(top)
			do := func(line ...string) ([]byte, error) {
				cmd := exec.Command(runtime, line...)
				if name == "crun" {
					// crun refuses a host with control groups of both versions.
					hide := `umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"`
					cmd = exec.Command(oracle.Tool(t, "unshare", "apt: util-linux"), append([]string{"-m", "sh", "-c", hide, "sh", runtime}, line...)...)
				}
				cmd.Dir = d.Caller
				var out bytes.Buffer
				// The container's process keeps the descriptors: they have to be files.
				file, err := os.CreateTemp(top, "out")
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				cmd.Stdout, cmd.Stderr = file, file
				err = cmd.Run()
				if b, rerr := os.ReadFile(file.Name()); rerr == nil {
					out.Write(b)
				}
				return out.Bytes(), err
			}
			t.Cleanup(func() { _, _ = do("--root="+root, "delete", "--force", id) })

			create := []string{"--log=l", "--root=" + root, "create", "--bundle=../b", "--pid-file=p", "--console-socket=s", id}
			c, err := parse(g, create)
			if err != nil {
				t.Fatal(err)
			}
			sockets := listen(t, d, "s")
			if out, err := do(create...); err != nil {
				oracle.Missing(t, "%s makes no container here: %v\n%s", name, err, out)
			}
			file, _ := c.Log(d)
			for what, path := range map[string]string{"--log": file, "--pid-file": c.Path("pid-file", d)} {
				if _, err := os.Stat(path); err != nil {
					t.Errorf("%s: not where the table says: %v", what, err)
				}
			}
			if got, want := sockets.used(t), c.Path("console-socket", d); got != want {
				t.Errorf("--console-socket of create: %s, the table says %s", got, want)
			}
			if out, err := do("--root="+root, "start", id); err != nil {
				t.Fatalf("start: %v\n%s", err, out)
			}
			add := []string{"--root=" + root, "exec", "--detach", "--tty", "--pid-file=q", "--console-socket=e", id, "/busybox", "sleep", "60"}
			if c, err = parse(g, add); err != nil {
				t.Fatal(err)
			}
			sockets = listen(t, d, "e")
			if out, err := do(add...); err != nil {
				t.Fatalf("exec: %v\n%s", err, out)
			}
			if got, want := sockets.used(t), c.Path("console-socket", d); got != want {
				t.Errorf("--console-socket of exec: %s, the table says %s", got, want)
			}
			if _, err := os.Stat(c.Path("pid-file", d)); err != nil {
				t.Errorf("--pid-file of exec: not where the table says: %v", err)
			}
			// With --process, runc stays where it is.
			process := filepath.Join(d.Caller, "process.json")
			if err := os.WriteFile(process, []byte(`{"terminal":true,"user":{"uid":0,"gid":0},"args":["/busybox","sleep","60"],"cwd":"/"}`), 0o644); err != nil {
				t.Fatal(err)
			}
			add = []string{"--root=" + root, "exec", "--detach", "--process=process.json", "--console-socket=f", id}
			if c, err = parse(g, add); err != nil {
				t.Fatal(err)
			}
			sockets = listen(t, d, "f")
			if out, err := do(add...); err != nil {
				t.Fatalf("exec: %v\n%s", err, out)
			}
			if got, want := sockets.used(t), c.Path("console-socket", d); got != want {
				t.Errorf("--console-socket of exec --process: %s, the table says %s", got, want)
			}
		})
	}
}

// makeBundle makes a bundle with a terminal.
func makeBundle(t *testing.T, runtime, busybox, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(runtime, "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("spec: %v\n%s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	p := spec["process"].(map[string]any)
	p["terminal"], p["args"] = true, []string{"/busybox", "sleep", "60"}
	delete(p, "rlimits")
	delete(p, "capabilities")
	if b, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sockets are sockets of one name in each folder that a path may be relative to.
type sockets map[string]*net.UnixListener

func listen(t *testing.T, d dirs, name string) sockets {
	t.Helper()
	out := sockets{}
	for _, dir := range []string{d.Caller, d.Bundle} {
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		out[path] = l
	}
	return out
}

// used is the path of the socket that was connected to. The runtime has returned,
// so nothing has to be waited for. The connection holds the terminal until the test
// ends.
func (s sockets) used(t *testing.T) string {
	t.Helper()
	var out []string
	for path, l := range s {
		raw, err := l.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var fd int
		var failed error
		if err := raw.Control(func(listener uintptr) {
			fd, _, failed = unix.Accept4(int(listener), unix.SOCK_CLOEXEC)
		}); err != nil {
			t.Fatal(err)
		}
		switch {
		case failed == nil:
			t.Cleanup(func() { unix.Close(fd) })
			out = append(out, path)
		case !errors.Is(failed, unix.EAGAIN):
			t.Fatal(failed)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
