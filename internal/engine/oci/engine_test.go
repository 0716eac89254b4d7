// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/enginetest"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// host is a folder with the built programs, a root file system and a state
// directory of its own.
type host struct {
	enginetest.Host
	bin, root, work string
	// runtime is what engines call as palisade.
	runtime string
	env     []string
}

// newHost skips where containers cannot be run.
func newHost(t testing.TB) *host {
	t.Helper()
	oracle.Tool(t, "runc", "apt: runc")
	h := &host{Host: *enginetest.New(t)}
	h.bin, h.root, h.work, h.env = h.Bin, h.Root, h.Work, h.Env
	h.runtime = filepath.Join(h.bin, "palisade-oci")
	return h
}

// run runs a command to its end, or for a minute.
func (h *host) run(t testing.TB, name string, args ...string) (out string, code int) {
	t.Helper()
	h.Env = h.env
	return h.Run(t, name, args...)
}

// daemon starts a program and waits until ready says so.
func (h *host) daemon(t testing.TB, ready func() bool, name string, args ...string) {
	t.Helper()
	h.Env = h.env
	h.Daemon(t, ready, name, args...)
}

type inspection = enginetest.Inspection

// checkInspect wants a running container confined, as inspect reads it back.
func (h *host) checkInspect(t *testing.T, id string) {
	t.Helper()
	out, code := h.run(t, filepath.Join(h.bin, "palisade"), "inspect", id, "--json")
	var in inspection
	if err := json.Unmarshal([]byte(out), &in); err != nil || code != 0 {
		t.Fatalf("inspect: exit code %d, %v: %s", code, err, out)
	}
	if in.Engine != "oci" || in.Policy != "default" || in.Label == "" || in.Status != "running" || len(in.Mismatches) != 0 {
		t.Errorf("inspect: %s", out)
	}
	if e := in.Effective; e == nil || e.Seccomp.Mode != "filter" || len(e.Seccomp.SHA256) == 0 || !e.NoNewPrivileges {
		t.Errorf("inspect: %s", out)
	}
}

// confined is what a shell inside prints about itself.
const confined = `grep -E "NoNewPrivs|Seccomp:|CapBnd" /proc/self/status; ls /proc/self/fd`

// checkConfined wants the output of confined to be of a confined process with no
// descriptor but its own.
func checkConfined(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000a80425fb"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// ls has its folder open as number 3.
	if fields := strings.Fields(out); fields[len(fields)-1] != "3" {
		t.Errorf("open descriptors:\n%s", out)
	}
}

func (h *host) leftNothing(t *testing.T) {
	t.Helper()
	out, code := h.run(t, filepath.Join(h.bin, "palisade"), "ps", "--json")
	if strings.TrimSpace(out) != "[]" || code != 0 {
		t.Errorf("left: %s", out)
	}
}

// bundle writes an OCI bundle whose process is a shell with a script.
func (h *host) bundle(t testing.TB, script string, edit func(map[string]any)) string {
	t.Helper()
	dir := filepath.Join(h.work, fmt.Sprintf("bundle%d", time.Now().UnixNano()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := h.run(t, "runc", "spec", "--bundle", dir); code != 0 {
		t.Fatal(out)
	}
	name := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	p := c["process"].(map[string]any)
	p["terminal"], p["args"] = false, []string{"/bin/sh", "-c", script}
	delete(p, "rlimits")
	delete(p, "noNewPrivileges")
	all := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN"}
	p["capabilities"] = map[string]any{"bounding": all, "effective": all, "permitted": all}
	c["root"] = map[string]any{"path": h.root}
	if edit != nil {
		edit(c)
	}
	if b, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 12, 34); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestConfirmRunc goes through the commands of an OCI runtime by hand.
func TestConfirmRunc(t *testing.T) {
	h := newHost(t)
	wrapper := filepath.Join(h.bin, "palisade-oci")
	root := []string{"--root", filepath.Join(h.work, "runc")}
	call := func(args ...string) (string, int) { return h.run(t, wrapper, append(slices.Clone(root), args...)...) }

	t.Run("run", func(t *testing.T) {
		dir := h.bundle(t, confined+"; exit 7", nil)
		out, code := call("run", "--bundle", dir, "c1")
		if code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
		checkConfined(t, out)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "config.json"), &st); err != nil || st.Mode&0o777 != 0o640 || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("config.json has mode %o and owner %d:%d: %v", st.Mode&0o777, st.Uid, st.Gid, err)
		}
		if out, code := h.run(t, filepath.Join(h.bin, "palisade"), "gc"); code != 0 {
			t.Error(out)
		}
		h.leftNothing(t)
	})
	t.Run("create, start, exec, kill, delete", func(t *testing.T) {
		dir := h.bundle(t, "sleep 100", nil)
		if out, code := call("create", "--bundle", dir, "c2"); code != 0 {
			t.Fatal(out)
		}
		if out, code := call("start", "c2"); code != 0 {
			t.Fatal(out)
		}
		h.checkInspect(t, "c2")
		out, code := call("exec", "c2", "/bin/sh", "-c", confined+"; exit 9")
		if code != 9 {
			t.Errorf("exec: exit code %d, want 9", code)
		}
		checkConfined(t, out)
		process := filepath.Join(h.work, "process.json")
		if err := os.WriteFile(process, []byte(`{"user":{"uid":0,"gid":0},"cwd":"/","args":["/bin/sh","-c","id -u; exit 3"],"env":["PATH=/bin"],"capabilities":{"bounding":["CAP_SYS_ADMIN"],"effective":["CAP_SYS_ADMIN"],"permitted":["CAP_SYS_ADMIN"]}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := call("exec", "--process", process, "c2"); code != 3 || strings.TrimSpace(out) != "0" {
			t.Errorf("exec --process: exit code %d: %s", code, out)
		}
		if out, code := call("exec", "--cap", "CAP_SYS_ADMIN", "c2", "/bin/true"); code == 0 || !strings.Contains(out, "not allowed by policy") {
			t.Errorf("exec with a capability more: exit code %d: %s", code, out)
		}
		if out, code := call("kill", "c2", "KILL"); code != 0 {
			t.Error(out)
		}
		if out, code := call("delete", "--force", "c2"); code != 0 {
			t.Error(out)
		}
		h.leftNothing(t)
	})
	t.Run("mounts that a later one hides", func(t *testing.T) {
		dir := h.bundle(t, "grep -c ' /data' /proc/mounts; touch /data/inner/file; ls /data", func(c map[string]any) {
			tmpfs := func(at string) any {
				return map[string]any{"destination": at, "type": "tmpfs", "source": "tmpfs", "options": []string{"rw"}}
			}
			c["mounts"] = append(c["mounts"].([]any), tmpfs("/data"), tmpfs("/data/inner"), tmpfs("/data"), tmpfs("/data/inner"))
		})
		if out, code := call("run", "--bundle", dir, "hides"); code != 0 || !strings.HasSuffix(out, "inner\n") {
			t.Errorf("exit code %d: %s", code, out)
		}
		h.leftNothing(t)
	})
	t.Run("capabilities that execution gives", func(t *testing.T) {
		for _, tt := range []struct {
			uid                           int
			permitted, inherited, ambient []string
		}{
			{0, []string{"CAP_KILL"}, nil, nil},
			{1000, []string{"CAP_KILL"}, []string{"CAP_KILL"}, []string{"CAP_KILL"}},
		} {
			dir := h.bundle(t, "grep CapEff /proc/self/status", func(c map[string]any) {
				p := c["process"].(map[string]any)
				p["user"] = map[string]any{"uid": tt.uid, "gid": 0}
				p["noNewPrivileges"] = true
				p["capabilities"] = map[string]any{"bounding": []string{"CAP_KILL"}, "permitted": tt.permitted, "inheritable": tt.inherited, "ambient": tt.ambient}
			})
			if out, code := call("run", "--bundle", dir, "gives"); code != 0 || !strings.Contains(out, "0000000000000020") {
				t.Errorf("user %d: exit code %d: %s", tt.uid, code, out)
			}
		}
		h.leftNothing(t)
	})
	t.Run("what the engine is told", func(t *testing.T) {
		dir := h.bundle(t, "sleep 100", nil)
		log := filepath.Join(h.work, "told.json")
		told := func() string {
			b, err := os.ReadFile(log)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return string(b)
		}
		logged := func(args ...string) (string, int) {
			return call(append([]string{"--log", log, "--log-format", "json"}, args...)...)
		}
		if out, code := logged("run", "--detach", "--bundle", dir, "told"); code != 0 || strings.Contains(out, "takes away") {
			t.Fatalf("exit code %d: %s", code, out)
		}
		if b := told(); !strings.Contains(b, `"level":"warning"`) || !strings.Contains(b, "policy default takes away CAP_SYS_ADMIN") {
			t.Errorf("the log has %q", b)
		}
		before := told()
		if out, code := logged("exec", "told", "/bin/true"); code != 0 || told() != before {
			t.Errorf("exec that loses nothing: exit code %d: %s%s", code, out, told())
		}
		process := filepath.Join(h.work, "told-process.json")
		if err := os.WriteFile(process, []byte(`{"user":{"uid":0,"gid":0},"cwd":"/","args":["/bin/true"],"capabilities":{"bounding":["CAP_SYS_TIME","CAP_KILL","CAP_NOSUCH"]}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := logged("exec", "--process", process, "told"); code != 0 || !strings.Contains(told(), "takes away CAP_SYS_TIME\"") {
			t.Errorf("exec: exit code %d: %s%s", code, out, told())
		}
		var st struct{ Bundle string }
		out, code := call("state", "told")
		if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 || st.Bundle != dir {
			t.Errorf("state: exit code %d: %s", code, out)
		}
		for _, format := range []string{"table", "json"} {
			if out, code := call("list", "--format", format); code != 0 || !strings.Contains(out, dir) || strings.Contains(out, "/state/containers/") {
				t.Errorf("list %s: exit code %d: %s", format, code, out)
			}
		}
		if out, code := call("state", "nosuch"); code != 1 {
			t.Errorf("state of no container: exit code %d: %s", code, out)
		}
		if out, code := call("help", "exec"); code != 0 || !strings.HasPrefix(out, "usage: palisade-oci [OPTION]... exec ") {
			t.Errorf("help exec: exit code %d: %s", code, out)
		}
		if out, code := call("delete", "--force", "told"); code != 0 {
			t.Error(out)
		}
		h.leftNothing(t)
	})
	t.Run("descriptors of the caller", func(t *testing.T) {
		// Number 3 is passed on to the container, number 4 is not.
		dir := h.bundle(t, "cat <&3; ls /proc/self/fd", nil)
		note := filepath.Join(h.work, "note")
		if err := os.WriteFile(note, []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		out, code := h.run(t, "sh", "-c", fmt.Sprintf("exec 3<%s 4<%s; exec %s --root %s run --preserve-fds 1 --bundle %s c3", note, note, wrapper, root[1], dir))
		if code != 0 || !strings.HasPrefix(out, "hello\n") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if f := strings.Fields(out); f[len(f)-1] != "4" { // 3, and the folder of ls
			t.Errorf("open descriptors: %s", out)
		}
	})
	t.Run("mismatch", func(t *testing.T) {
		// Somebody takes a mask away between create and start.
		dir := h.bundle(t, "sleep 100", nil)
		if out, code := call("create", "--bundle", dir, "c4"); code != 0 {
			t.Fatal(out)
		}
		state, code := call("state", "c4")
		var st struct{ PID int }
		if err := json.Unmarshal([]byte(state), &st); err != nil || code != 0 {
			t.Fatal(state)
		}
		if out, code := h.run(t, "nsenter", "-m", "-t", fmt.Sprint(st.PID), "/bin/busybox", "umount", "-l", "/proc/keys"); code != 0 {
			t.Fatalf("take a mask away: %s", out)
		}
		out, code := call("start", "c4")
		if code != 125 || !strings.Contains(out, "less confined than asked") || !strings.Contains(out, "/proc/keys") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if out, _ := call("state", "c4"); strings.Contains(out, `"running"`) {
			t.Errorf("still runs: %s", out)
		}
		if out, code := call("delete", "--force", "c4"); code != 0 {
			t.Error(out)
		}
		if out, code := h.run(t, filepath.Join(h.bin, "palisade"), "gc"); code != 0 {
			t.Error(out)
		}
		h.leftNothing(t)
	})
	t.Run("bad input", func(t *testing.T) {
		dir := h.bundle(t, "true", nil)
		for content, want := range map[string]string{"{\n\"process\": oops": "line 2", "": "line 1", `{"ociVersion":"1.0.2"}`: "no process"} {
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			log := filepath.Join(h.work, "log.json")
			out, code := call("--log", log, "--log-format", "json", "create", "--bundle", dir, "c5")
			if code != 125 || !strings.Contains(out, want) {
				t.Errorf("%q: exit code %d: %s", content, code, out)
			}
			if b, _ := os.ReadFile(log); !bytes.Contains(b, []byte(`"level":"error"`)) {
				t.Errorf("the log has %q", b)
			}
		}
		if out, code := call("create", "--bundle", "/nosuch", "c5"); code != 125 || !strings.Contains(out, "no configuration") {
			t.Errorf("exit code %d: %s", code, out)
		}
		h.leftNothing(t)
	})
}

// docker starts a daemon that has the wrapper as a runtime and an image, and
// returns its client.
func (h *host) docker(t *testing.T) string {
	t.Helper()
	dockerd := oracle.Tool(t, "dockerd", "apt: docker.io")
	docker := oracle.Tool(t, "docker", "apt: docker.io")
	h.env = append(h.env, "DOCKER_HOST=unix://"+h.work+"/docker.sock")
	ready := func() bool {
		_, code := h.run(t, docker, "version")
		return code == 0
	}
	h.daemon(t, ready, dockerd, "--data-root", h.work+"/data", "--exec-root", h.work+"/exec", "--pidfile", h.work+"/pid",
		"-H", "unix://"+h.work+"/docker.sock", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none",
		"--storage-driver", "vfs", "--add-runtime", "palisade="+h.runtime)
	tarball := filepath.Join(h.work, "root.tar")
	if out, code := h.run(t, "tar", "-C", h.root, "-cf", tarball, "."); code != 0 {
		t.Fatal(out)
	}
	if out, code := h.run(t, docker, "import", tarball, "busybox"); code != 0 {
		t.Fatal(out)
	}
	return docker
}

func TestConfirmDocker(t *testing.T) {
	h := newHost(t)
	docker := h.docker(t)
	base := []string{"--network", "none", "--runtime", "palisade"}
	run := func(args ...string) (string, int) {
		return h.run(t, docker, append(append([]string{"run"}, base...), args...)...)
	}

	out, code := run("--rm", "busybox", "sh", "-c", confined+"; exit 3")
	if code != 3 {
		t.Errorf("exit code %d, want 3: %s", code, out)
	}
	checkConfined(t, out)
	out, _ = run("--rm", "--privileged", "busybox", "sh", "-c", confined)
	checkConfined(t, out)
	out, _ = run("--rm", "--user", "1000", "--read-only", "--workdir", "/tmp", "busybox", "sh", "-c", confined)
	checkConfined(t, out)
	if out, code := run("--rm", "busybox", "nosuch"); code != 127 {
		t.Errorf("a missing command: exit code %d: %s", code, out)
	}
	if out, code := run("--rm", "-t", "busybox", "tty"); code != 0 || !strings.Contains(out, "/dev/pts/0") {
		t.Errorf("tty: exit code %d: %s", code, out)
	}

	if out, code := run("-d", "--name", "web", "busybox", "sleep", "100"); code != 0 {
		t.Fatal(out)
	}
	id, _ := h.run(t, docker, "inspect", "-f", "{{.Id}}", "web")
	h.checkInspect(t, strings.TrimSpace(id)[:12])
	out, code = h.run(t, docker, "exec", "web", "sh", "-c", confined+"; exit 4")
	if code != 4 {
		t.Errorf("exec: exit code %d", code)
	}
	checkConfined(t, out)
	out, _ = h.run(t, docker, "exec", "--privileged", "web", "sh", "-c", confined)
	checkConfined(t, out)
	if out, _ := h.run(t, docker, "diff", "web"); strings.Contains(out, "palisade") {
		t.Errorf("left in the container: %s", out)
	}
	if out, code := h.run(t, docker, "rm", "-f", "web"); code != 0 {
		t.Error(out)
	}
	h.leftNothing(t)
}

func TestConfirmPodman(t *testing.T) {
	h := newHost(t)
	podman := oracle.Tool(t, "podman", "apt: podman")
	// Podman's monitor calls the runtime with an environment of its own, and its
	// clean-up without the flags for the runtime.
	runtime := filepath.Join(h.work, "runtime.sh")
	script := fmt.Sprintf("#!/bin/sh\nexec %s/palisade-oci --palisade-state %s/state \"$@\"\n", h.bin, h.work)
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		base := []string{
			"--root", h.work + "/storage", "--runroot", h.work + "/run", "--cgroup-manager=cgroupfs", "--events-backend=file",
			"--storage-driver=vfs", "--runtime", runtime,
		}
		return h.run(t, podman, append(base, args...)...)
	}
	// The limits that podman sets by default are more than every root has.
	create := []string{"run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none"}
	out, code := run(append(create, "--rootfs", h.root, "sh", "-c", confined+"; exit 5")...)
	if code != 5 {
		t.Fatalf("exit code %d, want 5: %s", code, out)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, code := run(append(create, "-d", "--name", "web", "--rootfs", h.root, "sleep", "100")...); code != 0 {
		t.Fatal(out)
	}
	id, _ := run("inspect", "-f", "{{.Id}}", "web")
	h.checkInspect(t, strings.TrimSpace(id)[:12])
	if out, code := run("exec", "web", "sh", "-c", "grep Seccomp: /proc/self/status; exit 4"); code != 4 || !strings.Contains(out, "Seccomp:\t2") {
		t.Errorf("exec: exit code %d: %s", code, out)
	}
	if out, code := run("rm", "-f", "-t", "0", "web"); code != 0 {
		t.Error(out)
	}
	h.leftNothing(t)
}

// containerd starts a daemon and returns its client and where it answers.
func (h *host) containerd(t *testing.T) (ctr, address string) {
	t.Helper()
	return h.containerdWith(t, func(config string) string {
		return config + "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"
	})
}

// containerdWith is containerd with an edited configuration.
func (h *host) containerdWith(t *testing.T, edit func(config string) string) (ctr, address string) {
	t.Helper()
	containerd := oracle.Tool(t, "containerd", "apt: containerd")
	ctr, address = oracle.Tool(t, "ctr", "apt: containerd"), h.work+"/c.sock"
	config := filepath.Join(h.work, "containerd.toml")
	content := edit(fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ngrpc.address = %q\nttrpc.address = %q\n", h.work+"/root.d", h.work+"/state.d", address, h.work+"/t.sock"))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	ready := func() bool {
		_, code := h.run(t, ctr, "-a", address, "version")
		return code == 0
	}
	h.daemon(t, ready, containerd, "-c", config)
	return ctr, address
}

func TestConfirmContainerd(t *testing.T) {
	h := newHost(t)
	ctr, address := h.containerd(t)
	call := func(args ...string) (string, int) {
		return h.run(t, ctr, append([]string{"-a", address}, args...)...)
	}
	out, code := call("run", "--rm", "--runc-binary", h.bin+"/palisade-oci", "--env", "PATH=/bin", "--rootfs", h.root, "c1", "/bin/sh", "-c", confined+"; exit 6")
	if code != 6 {
		t.Fatalf("exit code %d, want 6: %s", code, out)
	}
	checkConfined(t, out)
	if out, code := call("run", "-d", "--runc-binary", h.bin+"/palisade-oci", "--env", "PATH=/bin", "--rootfs", h.root, "c2", "/bin/sleep", "100"); code != 0 {
		t.Fatal(out)
	}
	h.checkInspect(t, "c2")
	if out, code := call("task", "exec", "--exec-id", "x", "c2", "/bin/sh", "-c", confined); code != 0 {
		t.Errorf("exec: exit code %d: %s", code, out)
	} else {
		checkConfined(t, out)
	}
	if out, code := call("task", "rm", "-f", "c2"); code != 0 {
		t.Error(out)
	}
	h.leftNothing(t)
}
