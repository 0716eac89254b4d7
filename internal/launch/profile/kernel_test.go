// SPDX-License-Identifier: Apache-2.0

//go:build linux

package profile_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// guestTree is the root of the programs in the guest. It is a mount of its own, so
// that runtimes can pivot away from it.
const guestTree = "/tree"

// programs are palisade's own, runc with its libraries, and busybox.
func programs(t *testing.T) []vmtest.File {
	files := vmtest.Commands(t, guestTree, "palisade", "palisade-oci")
	runc, busybox := oracle.Tool(t, "runc", "apt: runc"), oracle.Tool(t, "busybox", "apt: busybox-static")
	files = append(files, vmtest.File{Guest: guestTree + "/usr/bin/runc", Host: runc})
	files = append(files, vmtest.Libraries(t, guestTree, runc)...)
	for _, applet := range []string{"busybox", "sh", "sleep", "kill", "cat", "grep", "true"} {
		files = append(files, vmtest.File{Guest: guestTree + "/box/bin/" + applet, Host: busybox})
	}
	return files
}

// guest runs programs inside the tree.
type guest struct {
	t      *testing.T
	kernel securityfs.FS
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t}
	vmtest.EnterTree(t, guestTree, "/var/lib", "/data", "/root", "/box/data", "/box/proc", "/box/dev", "/box/sys", "/box/tmp")
	return g
}

func (g *guest) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/box/bin", "HOME=/root"}
	cmd.Dir = "/"
	return cmd
}

// run gives what a program prints, and its exit code.
func (g *guest) run(name string, args ...string) (string, int) {
	g.t.Helper()
	cmd := g.command(name, args...)
	f, err := os.CreateTemp("", "out")
	if err != nil {
		g.t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(string(b)), cmd.ProcessState.ExitCode()
}

// must is run of what has to succeed.
func (g *guest) must(name string, args ...string) string {
	g.t.Helper()
	out, code := g.run(name, args...)
	if code != 0 {
		g.t.Fatalf("%s %q: exit code %d\n%s", name, args, code, out)
	}
	return out
}

// own are the loaded profiles of containers.
func (g *guest) own() []string {
	g.t.Helper()
	list, err := g.kernel.Profiles()
	if err != nil {
		g.t.Fatal(err)
	}
	out := []string{}
	for _, p := range list {
		if strings.HasPrefix(p.Name, "palisade-") {
			out = append(out, p.Name+" "+p.Mode)
		}
	}
	return out
}

func (g *guest) wantOwn(when string, want ...string) {
	g.t.Helper()
	if got := g.own(); !slices.Equal(got, want) {
		g.t.Errorf("%s: loaded are %q, want %q", when, got, want)
	}
}

// processes are the PIDs of those whose command line has the word.
func (g *guest) processes(word string) []int {
	var out []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !slices.Contains(strings.Split(string(b), "\x00"), word) || strings.Contains(string(b), "palisade") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		out = append(out, pid)
	}
	return out
}

// wait waits for the one process with the word on its command line.
func (g *guest) wait(word string) int {
	g.t.Helper()
	var pids []int
	await.True(g.t, "one process with "+word, func() bool { pids = g.processes(word); return len(pids) == 1 })
	return pids[0]
}

func (g *guest) wantLabel(pid int, want string) {
	g.t.Helper()
	l, err := g.kernel.LabelOf(pid)
	if err != nil || l.String() != want || l.Mode != "enforce" {
		g.t.Errorf("process %d has %s (%s) %v, want %s", pid, l, l.Mode, err, want)
	}
}

// bundle writes the configuration of a container that shares the guest's PIDs.
func (g *guest) bundle(name, profile string, args ...string) string {
	g.t.Helper()
	dir := "/tmp/" + name
	if err := os.MkdirAll(dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	os.Remove(dir + "/config.json")
	g.must("runc", "spec", "-b", dir)
	b, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		g.t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		g.t.Fatal(err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["terminal"], process["args"] = false, args
	if profile != "" {
		process["apparmorProfile"] = profile
	}
	spec["root"] = map[string]any{"path": "/box", "readonly": true}
	linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(n any) bool { return n.(map[string]any)["type"] == "pid" })
	if b, err = json.Marshal(spec); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/config.json", b, 0o600); err != nil {
		g.t.Fatal(err)
	}
	return dir
}

// oci starts a container through palisade-oci.
func (g *guest) oci(name, profile string, args ...string) {
	g.t.Helper()
	g.must("palisade-oci", "create", "--bundle", g.bundle(name, profile, args...), name)
	g.must("palisade-oci", "start", name)
}

func (g *guest) load(text string) {
	g.t.Helper()
	cmd := g.command("palisade", "apparmor", "load", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("load: %v\n%s", err, out)
	}
}

// killsEnv is how often palisade run is killed.
const killsEnv = "PALISADE_KILLS"

// suiteEnv is a release of Debian whose kernel it is to be instead.
const suiteEnv = "PALISADE_SUITE"

// TestKernelOwnProfileRun runs containers in a kernel that enforces AppArmor: each
// has its own profile, as long as it lives and no longer.
func TestKernelOwnProfileRun(t *testing.T) { inKernel(t) }

// TestKernelOwnProfileEngines is about palisade-oci too, which starts some thirty
// containers and so takes minutes ("make apparmor-containers").
func TestKernelOwnProfileEngines(t *testing.T) {
	if !vmtest.InGuest() && os.Getenv(killsEnv) == "" {
		t.Skip("starts thirty containers; make apparmor-containers runs it")
	}
	inKernel(t)
}

func inKernel(t *testing.T) {
	kills := "3"
	if n := os.Getenv(killsEnv); n != "" {
		kills = n
	}
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = programs(t)
	}
	vmtest.Run(t, vmtest.Config{LSM: "apparmor", Suite: os.Getenv(suiteEnv), Files: files, Modules: []string{"overlay"}, Env: []string{killsEnv + "=" + kills, "PATH=/usr/local/bin:/usr/bin"}}, func(t *testing.T) {
		g := newGuest(t)
		for _, step := range []struct {
			name string
			do   func(*guest)
		}{
			{"run", (*guest).testRun},
			{"strict", (*guest).testStrict},
			{"killed", (*guest).testKilled},
			{"lost", (*guest).testLost},
			{"peers", (*guest).testPeers},
			{"choice", (*guest).testChoice},
		} {
			if strings.HasSuffix(t.Name(), "Run") && (step.name == "peers" || step.name == "choice") {
				continue
			}
			t.Run(step.name, func(t *testing.T) {
				g := &guest{t: t, kernel: g.kernel}
				step.do(g)
			})
		}
	})
}

func (g *guest) testRun() {
	var out bytes.Buffer
	cmd := g.command("palisade", "run", "--name", "web", "--rootfs", "/box", "-v", "/data:/data:ro", "--", "/bin/sleep", "1001")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	pid := g.wait("1001")
	g.wantOwn("running", "palisade-web enforce")
	g.wantLabel(pid, "palisade-web")
	if s := g.must("palisade", "inspect", "web"); !strings.Contains(s, "palisade-web (enforce)") {
		g.t.Errorf("inspect:\n%s", s)
	}
	q, err := g.kernel.Query()
	if err != nil {
		g.t.Fatal(err)
	}
	defer q.Close()
	const write = 2
	for path, want := range map[string]bool{"/data/x": false, "/tmp/x": true, "/proc/acpi/wakeup": false} {
		a, err := q.Ask("palisade-web", append([]byte{2}, path...))
		if err != nil || (a.Allow&write != 0) != want {
			g.t.Errorf("write %s: %+v %v", path, a, err)
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 137 {
		g.t.Errorf("exit code %d: %s", code, &out)
	}
	g.wantOwn("after the end")
}

// testPeers: of two containers that see each other's processes, neither can signal
// the other's; under one profile for both they can.
func (g *guest) testPeers() {
	g.load("profile shared { file, capability, network, signal peer=shared, signal (receive) peer=unconfined, ptrace peer=shared, }")
	for _, tt := range []struct{ profile, label1, label2, want string }{
		{"", "palisade-p1", "palisade-p2", "refused own"},
		{"docker-default", "palisade-p1", "palisade-p2", "refused own"},
		{"shared", "shared", "shared", "other own"},
	} {
		g.oci("p1", tt.profile, "/bin/sleep", "2001")
		pid := g.wait("2001")
		g.wantLabel(pid, tt.label1)
		script := fmt.Sprintf("cat /proc/self/attr/current >&2; kill -CONT %d 2>/dev/null && echo other || echo refused; sleep 9 & kill -CONT $! && echo own; exec sleep 2002", pid)
		g.must("palisade-oci", "create", "--bundle", g.bundle("p2", tt.profile, "/bin/sh", "-c", script+" >/dev/null"), "p2")
		// What create inherits is the container's output: exec asks instead.
		g.must("palisade-oci", "start", "p2")
		g.wantLabel(g.wait("2002"), tt.label2)
		got := g.must("palisade-oci", "exec", "p2", "/bin/sh", "-c", strings.TrimPrefix(strings.TrimSuffix(script, "; exec sleep 2002"), "cat /proc/self/attr/current >&2; "))
		if strings.Join(strings.Fields(got), " ") != tt.want {
			g.t.Errorf("profile %q: %q, want %q", tt.profile, got, tt.want)
		}
		if got := g.must("palisade-oci", "exec", "p2", "/bin/cat", "/proc/self/attr/current"); got != tt.label2+" (enforce)" {
			g.t.Errorf("profile %q: exec runs under %q", tt.profile, got)
		}
		for _, id := range []string{"p1", "p2"} {
			g.must("palisade-oci", "delete", "--force", id)
		}
		g.wantOwn("after delete")
	}
}

// testChoice: what an engine has chosen on purpose stays; what it gives to all is
// replaced where ours is at least as tight.
func (g *guest) testChoice() {
	g.load("profile docker-default flags=(attach_disconnected,mediate_deleted) { file, capability, network, umount, signal peer=docker-default, signal (receive) peer=unconfined, ptrace peer=docker-default, deny mount, }")
	check := func(profile, want, engine string) {
		g.t.Helper()
		g.oci("c", profile, "/bin/sleep", "3001")
		g.wantLabel(g.wait("3001"), want)
		var in struct {
			Asked  struct{ AppArmor string }
			Engine string `json:"engine_profile"`
		}
		if out := g.must("palisade", "inspect", "--json", "c"); json.Unmarshal([]byte(out), &in) != nil || in.Asked.AppArmor != want || in.Engine != engine {
			g.t.Errorf("inspect: %s", out)
		}
		g.must("palisade-oci", "delete", "--force", "c")
		g.wantOwn("after delete")
	}
	check("docker-default", "palisade-c", "docker-default")
	check("unconfined", "palisade-c", "unconfined")
	// The configuration as it was edited does again.
	g.must("palisade-oci", "create", "--bundle", "/tmp/c", "c")
	g.must("palisade-oci", "start", "c")
	g.wantLabel(g.wait("3001"), "palisade-c")
	g.must("palisade-oci", "delete", "--force", "c")
	g.wantOwn("after delete")
	check("shared", "shared", "shared")
	g.load("profile docker-default flags=(attach_disconnected,mediate_deleted) { file, capability, network, umount, signal peer=docker-default, signal (receive) peer=unconfined, deny /box/secret r, deny mount, }")
	check("docker-default", "docker-default", "docker-default")
}

func (g *guest) testStrict() {
	out := g.must("palisade", "run", "--policy", "strict", "--name", "s", "--rootfs", "/box", "--", "/bin/cat", "/proc/self/attr/current")
	if out != "palisade-s (enforce)" {
		g.t.Errorf("strict runs under %q", out)
	}
	g.wantOwn("after the end")
}

// testKilled kills palisade run at random moments. Whatever runs has its profile,
// and gc leaves none.
func (g *guest) testKilled() {
	loaded, span := 0, time.Duration(0)
	rounds, _ := strconv.Atoi(os.Getenv(killsEnv))
	for i := range rounds {
		word := strconv.Itoa(4000 + i)
		cmd := g.command("palisade", "run", "--name", "k"+word, "--rootfs", "/box", "--", "/bin/sleep", word)
		if err := cmd.Start(); err != nil {
			g.t.Fatal(err)
		}
		if i == 0 {
			// How long that takes depends on the machine; one is killed right then.
			start := time.Now()
			await.True(g.t, "a profile", func() bool { return len(g.own()) > 0 })
			span = 2 * time.Since(start)
		} else {
			await.Moment(span)
		}
		if err := cmd.Process.Kill(); err != nil {
			g.t.Fatal(err)
		}
		_ = cmd.Wait()
		for _, pid := range g.processes(word) {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || strings.TrimSpace(string(b)) != "sleep" {
				continue // the runtime on its way
			}
			g.wantLabel(pid, "palisade-k"+word)
		}
		loaded += len(g.own())
		g.must("palisade", "gc")
		g.wantOwn("after gc")
		if p := g.processes(word); len(p) > 0 {
			g.t.Errorf("processes %v are left", p)
		}
	}
	if loaded == 0 {
		g.t.Error("no container came as far as its profile")
	}
	g.t.Logf("%d profiles were loaded when palisade was killed", loaded)
}

// testLost: profiles without a container go, by gc and by the daemon, when no
// process has them any more.
func (g *guest) testLost() {
	g.load("profile palisade-ghost { file, }\nprofile palisade-held { file, signal, }")
	holder := g.command("/box/bin/sh", "-c", "printf 'exec palisade-held' >/proc/self/attr/apparmor/exec && exec sleep 5001")
	if err := holder.Start(); err != nil {
		g.t.Fatal(err)
	}
	pid := g.wait("5001")
	g.wantLabel(pid, "palisade-held")
	if out := g.must("palisade", "gc"); out != "palisade-ghost" {
		g.t.Errorf("gc: %q", out)
	}
	g.wantOwn("while a process has it", "palisade-held enforce")
	daemon := g.command("palisade", "daemon", "--reconcile", "200ms")
	if err := daemon.Start(); err != nil {
		g.t.Fatal(err)
	}
	// Twice the daemon takes away a profile without a process; it saw the other one then.
	for range 2 {
		g.load("profile palisade-ghost { file, }")
		await.True(g.t, "the daemon to take away a profile", func() bool { return !slices.Contains(g.own(), "palisade-ghost enforce") })
	}
	g.wantOwn("beside the daemon", "palisade-held enforce")
	g.wantLabel(pid, "palisade-held")
	_ = holder.Process.Kill()
	_ = holder.Wait()
	await.True(g.t, "the daemon to take away the last profile", func() bool { return len(g.own()) == 0 })
	g.wantOwn("after the process ended")
	_ = daemon.Process.Signal(unix.SIGTERM)
	_ = daemon.Wait()
}
