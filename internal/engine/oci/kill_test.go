// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// envKills is how many containers each engine is asked for while palisade-oci is
// killed below it.
const envKills = "SVIRT_ENGINE_KILLS"

func kills(t *testing.T) int {
	t.Helper()
	s := os.Getenv(envKills)
	if s == "" {
		return 2
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", envKills, err)
	}
	return n
}

// killed is a host whose engines have palisade-oci killed at random moments.
type killed struct {
	*host
	random *rand.Rand
	// calm stops the killing while it is there.
	calm, log string
}

func newKilled(t *testing.T) *killed {
	h := newHost(t)
	bash := oracle.Tool(t, "bash", "apt: bash")
	h.runtime = filepath.Join(h.work, "killed")
	k := &killed{
		host: h, calm: filepath.Join(h.work, "calm"), log: filepath.Join(h.work, "kills"),
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k.random = rand.New(rand.NewPCG(seed, 4))
	// Half of the calls are killed within 80 ms: before, while and after palisade-oci
	// works, and while it has become the runtime or waits for it.
	script := fmt.Sprintf(`#!%s
run=(%s/palisade-oci --palisade-state %s/state "$@")
if [ -e %s ] || [ $((RANDOM %% 2)) = 0 ]; then exec "${run[@]}"; fi
echo x >>%s
exec timeout --foreground -s KILL "$(printf '0.%%03d' $((1 + RANDOM %% 80)))" "${run[@]}"
`, bash, h.bin, h.work, k.calm, k.log)
	if err := os.WriteFile(k.runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *killed) setCalm(t *testing.T, calm bool) {
	t.Helper()
	var err error
	if calm {
		err = os.WriteFile(k.calm, nil, 0o600)
	} else if err = os.Remove(k.calm); os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
}

type heldLabel struct{ ID, Level, State, Holder string }

func (k *killed) labels(t *testing.T) []heldLabel {
	t.Helper()
	out, code := k.run(t, filepath.Join(k.bin, "palisade"), "label", "ls", "--json")
	var list []heldLabel
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("label ls: %v: %s", err, out)
	}
	return list
}

// check wants, after gc, no two labels that meet, and a holder for every container
// that runs: all of its processes have the root or the script of this host.
func (k *killed) check(t *testing.T, running []string) {
	t.Helper()
	palisade := filepath.Join(k.bin, "palisade")
	if out, code := k.run(t, palisade, "gc"); code != 0 {
		t.Errorf("gc: exit code %d: %s", code, out)
	}
	if out, code := k.run(t, palisade, "label", "check", "--registry-only"); code != 0 {
		t.Errorf("label check: exit code %d: %s", code, out)
	}
	list := k.labels(t)
	for _, id := range running {
		if !slices.ContainsFunc(list, func(l heldLabel) bool { return l.ID == id }) {
			t.Errorf("container %s runs and holds no label; labels: %v", id, list)
		}
	}
}

// end wants nothing left once the engine has removed everything in peace.
func (k *killed) end(t *testing.T) {
	t.Helper()
	k.check(t, nil)
	k.removeForgotten(t)
	k.leftNothing(t)
	for _, l := range k.labels(t) {
		t.Errorf("left: label %s of %s, %s", l.Level, l.ID, l.State)
	}
	b, _ := os.ReadFile(k.log)
	n := strings.Count(string(b), "x")
	t.Logf("%d calls of palisade-oci were to be killed", n)
	if n == 0 {
		t.Error("nothing was killed")
	}
}

// removeForgotten removes containers that run and that their engine has forgotten:
// what was killed was the runtime that was to end them. They hold their label,
// as they should, and it is for the host's keeper to end them.
func (k *killed) removeForgotten(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.work, "state/containers/*/record.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var sealed struct {
			Record struct {
				ID, Level string
				Runtime   struct{ Args []string }
			}
		}
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &sealed)
		}
		if err != nil {
			t.Fatal(err)
		}
		rec := sealed.Record
		if !slices.ContainsFunc(k.labels(t), func(l heldLabel) bool { return l.ID == rec.ID && l.Level == rec.Level && l.State == "bound" }) {
			t.Errorf("%s runs and does not hold its label", rec.ID)
		}
		t.Logf("%s was forgotten by its engine", rec.ID)
		if out, code := k.run(t, k.runtime, append(rec.Runtime.Args, "delete", "--force", rec.ID)...); code != 0 {
			t.Errorf("delete: %s", out)
		}
	}
}

func TestKillOCI(t *testing.T) {
	k := newKilled(t)
	root := filepath.Join(k.work, "runc")
	call := func(args ...string) (string, int) {
		return k.run(t, k.runtime, append([]string{"--root", root}, args...)...)
	}
	for i := range kills(t) * 4 {
		id := fmt.Sprintf("c%d", i)
		dir := k.bundle(t, "sleep 100", nil)
		call("create", "--bundle", dir, id)
		call("start", id)
		call("exec", id, "/bin/true")
		call("exec", "--detach", id, "/bin/sleep", "50")
		out, _ := k.run(t, "sh", "-c", "runc --root "+root+" list --format json 2>/dev/null")
		var list []struct{ ID, Status string }
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err, out)
		}
		var running []string
		for _, c := range list {
			if c.Status != "stopped" {
				running = append(running, c.ID)
			}
		}
		k.check(t, running)
		call("delete", "--force", id)
		if i%3 == 0 {
			k.check(t, nil)
		}
		k.setCalm(t, true)
		call("delete", "--force", id)
		k.setCalm(t, false)
	}
	k.setCalm(t, true)
	k.end(t)
}

// engineKills runs containers of an engine while palisade-oci is killed below it.
// start may fail; running lists those that the engine takes for running.
func (k *killed) engineKills(t *testing.T, start, use func(name string), running func() []string, remove func(name string)) {
	t.Helper()
	for i := range kills(t) {
		name := fmt.Sprintf("k%d", i)
		k.setCalm(t, false)
		start(name)
		use(name)
		k.setCalm(t, true) // what lists has to get through
		k.check(t, running())
		k.setCalm(t, k.random.IntN(2) == 0)
		remove(name)
		k.setCalm(t, true)
		remove(name)
	}
	k.end(t)
}

func TestKillDocker(t *testing.T) {
	k := newKilled(t)
	docker := k.docker(t)
	k.engineKills(t,
		func(name string) {
			k.run(t, docker, "run", "-d", "--name", name, "--network", "none", "--runtime", "palisade", "busybox", "sleep", "100")
		},
		func(name string) { k.run(t, docker, "exec", name, "true") },
		func() []string { out, _ := k.run(t, docker, "ps", "-q", "--no-trunc"); return strings.Fields(out) },
		func(name string) { k.run(t, docker, "rm", "-f", name) })
}

func TestKillPodman(t *testing.T) {
	k := newKilled(t)
	podman := oracle.Tool(t, "podman", "apt: podman")
	call := func(args ...string) string {
		base := []string{
			"--root", k.work + "/storage", "--runroot", k.work + "/run", "--cgroup-manager=cgroupfs", "--events-backend=file",
			"--storage-driver=vfs", "--runtime", k.runtime,
		}
		out, _ := k.run(t, podman, append(base, args...)...)
		return out
	}
	k.engineKills(t,
		func(name string) {
			call("run", "-d", "--name", name, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none", "--rootfs", k.root, "sleep", "100")
		},
		func(name string) { call("exec", name, "true") },
		func() []string { return strings.Fields(call("ps", "-q", "--no-trunc")) },
		func(name string) { call("rm", "-f", "-t", "0", name) })
}

func TestKillContainerd(t *testing.T) {
	k := newKilled(t)
	ctr, address := k.containerd(t)
	call := func(args ...string) (string, int) {
		return k.run(t, ctr, append([]string{"-a", address}, args...)...)
	}
	k.engineKills(t,
		func(name string) {
			call("run", "-d", "--runc-binary", k.runtime, "--env", "PATH=/bin", "--rootfs", k.root, name, "/bin/sleep", "100")
		},
		func(name string) { call("task", "exec", "--exec-id", "x"+name, name, "/bin/true") },
		func() []string {
			out, _ := call("task", "ls")
			var ids []string
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) == 3 && f[2] == "RUNNING" {
					ids = append(ids, f[0])
				}
			}
			return ids
		},
		func(name string) {
			call("task", "kill", "-s", "KILL", name)
			call("task", "rm", "-f", name)
			call("container", "rm", name)
		})
}

// TestKillCommands kills 'palisade label' at random, without a daemon, while
// others wait for their turn: what was printed is held, and nothing is held twice.
func TestKillCommands(t *testing.T) {
	k := newKilled(t)
	palisade := filepath.Join(k.bin, "palisade")
	promised := map[string]string{}
	for i := range kills(t) * 10 {
		id := fmt.Sprintf("l%d", i)
		var out strings.Builder
		cmd := exec.Command(palisade, "label", "reserve", "--id", id)
		cmd.Env, cmd.Stdout = k.env, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(k.random.IntN(30)) * time.Millisecond)
		_ = cmd.Process.Signal(unix.SIGKILL)
		_ = cmd.Wait()
		if level := strings.TrimSpace(out.String()); level != "" {
			promised[id] = level
		}
	}
	list := k.labels(t)
	for _, l := range list {
		if want, ok := promised[l.ID]; ok && want != l.Level {
			t.Errorf("%s was promised %s and holds %s", l.ID, want, l.Level)
		}
		delete(promised, l.ID)
	}
	for id, level := range promised {
		t.Errorf("%s was promised %s and holds nothing", id, level)
	}
	k.check(t, nil)
	t.Logf("%d labels held", len(list))
}
