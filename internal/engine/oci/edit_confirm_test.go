// SPDX-License-Identifier: Apache-2.0

package oci

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

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/strictjson"
	"github.com/palisade-sec/palisade/policy"
)

// station is a folder in which a runtime runs containers.
type station struct {
	runtime, dir string
	n            int
}

// stations are the runtimes of this machine.
func stations(t *testing.T) map[string]*station {
	t.Helper()
	oracle.Root(t, "containers need root")
	busybox, err := os.ReadFile(oracle.Tool(t, "busybox", "apt: busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*station{}
	for _, name := range []string{"runc", "crun"} {
		s := &station{runtime: oracle.Tool(t, name, "apt: "+name), dir: tree(t, "bundle/rootfs/proc/", "bundle/rootfs/dev/", "bundle/rootfs/sys/", "bundle/rootfs/volume/", "bundle/rootfs/bin/", "bundle/volume/file", "state/", "edited/")}
		if err := os.WriteFile(filepath.Join(s.dir, "bundle/rootfs/bin/busybox"), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
		out[name] = s
	}
	return out
}

// run runs a configuration that lies in a folder of its own. crun refuses hosts
// with both versions of control groups, so the second is out of its sight.
func (s *station) run(t *testing.T, config []byte) (string, error) {
	t.Helper()
	s.n++
	dir := filepath.Join(s.dir, "edited", strconv.Itoa(s.n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("palisade-edit-%d-%d", os.Getpid(), s.n)
	const script = `umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" --root "$1" run --bundle "$2" "$3"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, s.runtime, filepath.Join(s.dir, "state"), dir, id).CombinedOutput()
	return string(out), err
}

// runnable is a configuration that prints the state of its process.
func runnable() *specs.Spec {
	all := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT", "CAP_SYS_ADMIN"}
	return &specs.Spec{
		Version: "1.0.0",
		Process: &specs.Process{
			Args: []string{"/bin/busybox", "cat", "/proc/self/status"}, Cwd: "/", Env: []string{"PATH=/bin", "LD_PRELOAD=/image.so"},
			Capabilities: &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all, Inheritable: all, Ambient: []string{"CAP_CHOWN"}},
		},
		Root:   &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux:  &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}}},
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// status takes fields out of what /proc/PID/status has printed.
func status(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			m[name] = strings.TrimSpace(value)
		}
	}
	return m
}

// TestConfirmEdit runs an edited configuration from a folder other than its bundle:
// relative paths lead where they led, capabilities are as they were written, and a
// createContainer hook has nothing of the image in its environment, which bare it
// may have (CVE-2025-23266).
func TestConfirmEdit(t *testing.T) {
	for name, s := range stations(t) {
		t.Run(name, func(t *testing.T) {
			bundle := filepath.Join(s.dir, "bundle")
			record := filepath.Join(s.dir, "hook")
			spec := runnable()
			script := "env >" + record + "; pwd >" + record + ".pwd; cat >" + record + ".state"
			spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/volume", Source: "volume", Options: []string{"bind"}})
			spec.Process.Args = []string{"/bin/busybox", "sh", "-c", "/bin/busybox ls /volume; /bin/busybox cat /proc/self/status"}
			c := Confinement{Policy: policy.Default(), ID: "c1", Seccomp: seccompKeep}
			edited, after, err := Edit(marshal(t, spec), c, bundle)
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.run(t, edited)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !strings.HasPrefix(out, "file\n") {
				t.Errorf("the volume is not the bundle's: %s", out)
			}
			checkStatus(t, out, after)
			env, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(env)) {
				if name, _, _ := strings.Cut(line, "="); !slices.Contains([]string{"PATH", "PWD", "OLDPWD", "SHLVL", "_"}, name) {
					t.Errorf("the hook has %s", line)
				}
			}
			state, err := os.ReadFile(record + ".state")
			if err != nil {
				t.Fatal(err)
			}
			var got specs.State
			if err := json.Unmarshal(state, &got); err != nil {
				t.Fatal(err)
			}
			if got.Annotations[annotationID] != "c1" || len(got.Annotations) != 1 {
				t.Errorf("the runtime's state does not name the container, or says more: %s", state)
			}
			// Bare, for comparison: the environment of the hook.
			spec.Root.Path, spec.Mounts[1].Source = filepath.Join(bundle, "rootfs"), filepath.Join(bundle, "volume")
			if out, err := s.run(t, marshal(t, spec)); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			bare, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			pwd, _ := os.ReadFile(record + ".pwd")
			t.Logf("bare: the hook has the image's LD_PRELOAD: %v; its working directory is %s", strings.Contains(string(bare), "LD_PRELOAD=/image.so"), pwd)
		})
	}
}

// checkStatus compares what the kernel says about a process with its configuration.
func checkStatus(t *testing.T, out string, s *specs.Spec) {
	t.Helper()
	st, want := status(out), capSets(s.Process.Capabilities)
	for field, set := range map[string]string{"CapBnd": "bounding", "CapInh": "inheritable", "CapAmb": "ambient", "CapPrm": "permitted", "CapEff": "effective"} {
		got, err := caps.ParseHex(st[field])
		if err != nil {
			t.Fatalf("%s: %v in %s", field, err, out)
		}
		if set == "permitted" || set == "effective" {
			// As root a process that executes gets its bounding and inheritable sets,
			// as another user the ambient one.
			most := want["ambient"]
			if s.Process.User.UID == 0 {
				most = want["bounding"].Union(want["inheritable"])
			}
			if !got.SubsetOf(most) {
				t.Errorf("%s is %v, the configuration allows %v", field, got, most)
			}
			continue
		}
		exactly := want[set]
		if set == "ambient" {
			exactly = exactly.Intersect(want["permitted"]).Intersect(want["inheritable"])
		}
		if got != exactly {
			t.Errorf("%s is %v, the configuration has %v", field, got, exactly)
		}
	}
	if (st["NoNewPrivs"] == "1") != s.Process.NoNewPrivileges {
		t.Errorf("NoNewPrivs is %q, the configuration has %v", st["NoNewPrivs"], s.Process.NoNewPrivileges)
	}
	if filter := s.Linux != nil && s.Linux.Seccomp != nil; (st["Seccomp"] == "2") != filter {
		t.Errorf("Seccomp is %q, the configuration has a filter: %v", st["Seccomp"], filter)
	}
	if uid := strconv.Itoa(int(s.Process.User.UID)); !strings.HasPrefix(st["Uid"]+"\t", uid+"\t") {
		t.Errorf("Uid is %q, the configuration has %s", st["Uid"], uid)
	}
}

// TestConfirmStrictJSONEnforced runs configurations that are odd and accepted, and
// compares what both runtimes put into force. PALISADE_STRICTJSON_RUNS is their
// number for each runtime.
func TestConfirmStrictJSONEnforced(t *testing.T) {
	n := 8
	if testing.Short() {
		n = 1
	}
	if s := os.Getenv("PALISADE_STRICTJSON_RUNS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	all := stations(t)
	g := &generator{Rand: rand.New(rand.NewPCG(0x0c15, 2))}
	accepted, refused, ran := 0, 0, 0
	for accepted < n {
		raw := g.runnable()
		s, err := decode(raw)
		if err != nil {
			refused++
			continue
		}
		if s.Process == nil || !slices.Equal(s.Process.Args, runnable().Process.Args) || len(s.Mounts) != 1 {
			continue
		}
		accepted++
		for name, st := range all {
			var c strictjson.Changes
			if err := c.Set(filepath.Join(st.dir, "bundle/rootfs"), "root", "path"); err != nil {
				t.Fatal(err)
			}
			config, err := c.Apply(raw)
			if err != nil {
				t.Fatal(err)
			}
			out, err := st.run(t, config)
			if err != nil {
				// Closed: it was not started.
				t.Logf("%s refuses %s: %s", name, config, out)
				continue
			}
			ran++
			t.Run(fmt.Sprintf("%d-%s", accepted, name), func(t *testing.T) {
				checkStatus(t, out, s)
				if t.Failed() {
					t.Logf("%s", config)
				}
			})
		}
	}
	t.Logf("%d accepted, run %d times; %d refused", accepted, ran, refused)
	if ran < n {
		t.Errorf("only %d of %d configurations ran", ran, accepted*len(all))
	}
}

// runnable writes a configuration that runs, unless an oddity is in its way.
func (g *generator) runnable() []byte {
	g.out.Reset()
	g.odd = pickOne(g, 1, 2, 3)
	plain := func(v any) func() {
		return func() {
			b, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			g.out.Write(b)
		}
	}
	base := runnable()
	// The kernel wants the sets to lie in one another.
	all := pickOne(g, []string{}, []string{"CAP_CHOWN"}, []string{"CAP_KILL", "CAP_SYS_CHROOT"}, []string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"})
	set := plain(all)
	ambient := plain(pickOne(g, []string{}, all))
	filter := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"swapon"}, Action: specs.ActErrno}}}
	// The frame is written by hand: without one of these nothing runs.
	g.out.WriteString(`{"ociVersion":"1.0.0","mounts":`)
	plain(base.Mounts)()
	g.out.WriteString(`,"root":`)
	g.object(member{"path", plain("rootfs")}, member{"readonly", g.boolean})
	g.out.WriteString(`,"process":`)
	g.object(
		member{"args", plain(base.Process.Args)}, member{"cwd", plain("/")}, member{"noNewPrivileges", g.boolean},
		member{"user", func() { g.object(member{"uid", g.number("0", "1000")}, member{"gid", g.number("0", "5")}) }},
		member{"capabilities", func() {
			g.object(member{"bounding", set}, member{"permitted", set}, member{"effective", set}, member{"inheritable", set}, member{"ambient", ambient})
		}},
	)
	g.out.WriteString(`,"linux":`)
	g.object(member{"type", plain("novel")}, member{"seccomp", plain(filter)}, member{"limit", plain(1)})
	out := strings.Replace(g.out.String(), `,"linux":{`, `,"linux":{"namespaces":`+string(mustJSON(base.Linux.Namespaces))+`,`, 1)
	return []byte(strings.Replace(out, ",}", "}", 1) + "}")
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
