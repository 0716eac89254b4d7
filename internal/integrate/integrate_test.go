// SPDX-License-Identifier: Apache-2.0

package integrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/oracle"
)

var update = flag.Bool("update", false, "write the results into the golden files")

const wrapperPath = "/usr/local/bin/palisade-oci"

// TestIntegrate runs each recorded configuration through plan, write and undo.
func TestIntegrate(t *testing.T) {
	files, err := filepath.Glob("testdata/integrate/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d recorded configurations: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			engine, _, _ := strings.Cut(name, "-")
			comment := string(a.Comment)
			o := Options{Root: t.TempDir(), Wrapper: wrapperPath, Default: strings.Contains(comment, "--default")}
			var before, want []byte
			for _, f := range a.Files {
				switch f.Name {
				case "before":
					before = f.Data
				case "want":
					want = f.Data
				default: // another file of the host
					path := filepath.Join(o.Root, f.Name)
					mode := os.FileMode(0o644)
					if bytes.HasPrefix(f.Data, []byte("#!")) {
						mode = 0o755
					}
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, f.Data, mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			i, err := Plan(engine, o)
			path := filepath.Join(o.Root, i.File)
			if before != nil {
				if i.File == "" {
					t.Fatal(err)
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, before, 0o640); err != nil {
					t.Fatal(err)
				}
				i, err = Plan(engine, o)
			}
			var got []byte
			switch {
			case err != nil:
				got = []byte("error: " + err.Error() + "\n")
			case len(i.Edits) == 0:
				got = []byte("nothing to do\n")
			default:
				got = i.Edits[0].After
			}
			if *update {
				a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
				a.Files = append(a.Files, txtar.File{Name: "want", Data: got})
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Fatalf("got:\n%s", got)
			}
			if err != nil {
				return
			}
			checkRoundTrip(t, engine, o, path, before)
		})
	}
}

// checkRoundTrip writes, writes again, and takes back.
func checkRoundTrip(t *testing.T, engine string, o Options, path string, before []byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(plan func(string, Options) (Integration, error)) int {
		t.Helper()
		i, err := plan(engine, o)
		must(err)
		must(configfile.Write(o.Root, i.Edits))
		return len(i.Edits)
	}
	write(Plan)
	if n := write(Plan); n != 0 {
		t.Errorf("the second time there are %d edits", n)
	}
	if before != nil {
		fi, err := os.Stat(path)
		must(err)
		if fi.Mode().Perm() != 0o640 {
			t.Errorf("mode became %v", fi.Mode())
		}
	}
	write(PlanUndo)
	after, err := configfile.Read(path)
	must(err)
	if !bytes.Equal(after, before) || (after == nil) != (before == nil) {
		t.Errorf("undo left:\n%s", after)
	}
	if left, err := filepath.Glob(filepath.Dir(path) + "/*palisade*"); err != nil || len(left) > 0 && before == nil {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if n := write(PlanUndo); n != 0 {
		t.Errorf("the second undo has %d edits", n)
	}

	// Edited in between: only our part goes.
	write(Plan)
	text, err := os.ReadFile(path)
	must(err)
	if engine == "docker" {
		doc, err := configfile.ParseJSON(text)
		must(err)
		must(doc.Root().Set("added-since", "true"))
		text = doc.Bytes()
	} else {
		text = append([]byte("# added since\n"), text...)
	}
	must(os.WriteFile(path, text, 0o640))
	write(PlanUndo)
	after, err = os.ReadFile(path)
	must(err)
	if !bytes.Contains(after, []byte("added")) || bytes.Contains(after, []byte(wrapperPath)) || bytes.Contains(after, []byte("palisade\"")) {
		t.Errorf("undo of an edited file left:\n%s", after)
	}
}

func TestIntegrateRefuses(t *testing.T) {
	if _, err := Plan("lxd", Options{Root: t.TempDir(), Wrapper: wrapperPath}); !errors.Is(err, ErrEngine) {
		t.Errorf("lxd: %v", err)
	}
	for _, wrapper := range []string{"", "palisade-oci", "/a\"b", "/a\nb"} {
		if _, err := Plan("docker", Options{Root: t.TempDir(), Wrapper: wrapper}); err == nil {
			t.Errorf("wrapper %q was taken", wrapper)
		}
	}
}

func TestWriteSeesChanges(t *testing.T) {
	root := t.TempDir()
	o := Options{Root: root, Wrapper: wrapperPath}
	i, err := Plan("docker", o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, i.File)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(root, i.Edits); !errors.Is(err, configfile.ErrChanged) {
		t.Errorf("error %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "{}" {
		t.Errorf("the file became %s", text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", path); err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(root, i.Edits); err == nil {
		t.Error("a dangling link was written through")
	}
	// A link into another folder stays one.
	if err := os.WriteFile(filepath.Join(root, "managed.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../managed.json", path); err != nil {
		t.Fatal(err)
	}
	if i, err = Plan("docker", o); err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(root, i.Edits); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v (%v)", fi.Mode(), err)
	}
}

// TestConfirmDocker starts a Docker daemon with the written file and asks it.
func TestConfirmDocker(t *testing.T) {
	dockerd := oracle.Tool(t, "dockerd", "apt: docker.io")
	docker := oracle.Tool(t, "docker", "apt: docker.io")
	oracle.Tool(t, "containerd", "apt: containerd")
	oracle.Root(t, "to start a daemon")
	// A short path: sockets have at most 108 bytes.
	dir, err := os.MkdirTemp("", "pal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := Options{Root: dir, Wrapper: "/usr/bin/true", Default: true}
	path := filepath.Join(dir, configfile.DockerDaemon)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{\n\t\"log-driver\": \"json-file\",\n\t\"runtimes\": {\"other\": {\"path\": \"/usr/bin/false\"}}\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	i, err := Plan("docker", o)
	if err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(dir, i.Edits); err != nil {
		t.Fatal(err)
	}
	socket := "unix://" + dir + "/s"
	ctx, cancel := context.WithCancel(await.Context(t))
	defer cancel()
	daemon := exec.CommandContext(ctx, dockerd, "--config-file", path, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", socket,
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none", "--storage-driver", "vfs")
	daemon.Cancel = func() error { return daemon.Process.Signal(os.Interrupt) }
	daemon.WaitDelay = 15 * time.Second
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	defer func() { cancel(); <-ended }()
	var out []byte
	await.Until(t, "an answer of dockerd", func() (bool, error) {
		select {
		case err := <-ended:
			ended <- err
			return false, fmt.Errorf("dockerd ended: %w\n%s", err, log.Bytes())
		default:
		}
		info := exec.CommandContext(ctx, docker, "-H", socket, "info", "--format", "{{json .Runtimes}} default {{.DefaultRuntime}}")
		out, err = info.Output()
		return err == nil && !bytes.Contains(out, []byte("null default")), nil
	})
	for _, want := range []string{`"palisade":{"path":"/usr/bin/true"`, `"other":`, "default palisade"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("docker info has no %s: %s (%v)", want, out, err)
		}
	}
}

func TestConfirmPodman(t *testing.T) {
	podman := oracle.Tool(t, "podman", "apt: podman")
	root := t.TempDir()
	i, err := Plan("podman", Options{Root: root, Wrapper: "/usr/bin/true", Default: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(root, i.Edits); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(podman, "--root", filepath.Join(root, "r"), "--runroot", filepath.Join(root, "rr"), "--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs",
		"info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}")
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(root, podmanFile))
	out, err := cmd.CombinedOutput()
	if !bytes.Contains(out, []byte("palisade /usr/bin/true")) {
		t.Errorf("podman info says %s (%v)", out, err)
	}
}

// TestConfirmPodmanLists has Podman create a container without control groups, and
// start it: the runtime has to be asked for its errors as JSON.
func TestConfirmPodmanLists(t *testing.T) {
	podman := oracle.Tool(t, "podman", "apt: podman")
	oracle.Tool(t, "conmon", "apt: conmon")
	oracle.Root(t, "for the storage of root")
	root := t.TempDir()
	called := filepath.Join(root, "called")
	wrapper := filepath.Join(root, "wrapper")
	for name, text := range map[string]string{
		wrapper:                              "#!/bin/sh\necho \"$@\" >>" + called + "\nexit 1\n",
		filepath.Join(root, "/usr/bin/crun"): "#!/bin/sh\n",
		filepath.Join(root, "/rootfs/true"):  "#!/bin/sh\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil { //nolint:gosec // it is executed
			t.Fatal(err)
		}
	}
	i, err := Plan("podman", Options{Root: root, Wrapper: wrapper, Default: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := configfile.Write(root, i.Edits); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.Command(podman, append([]string{
			"--root", filepath.Join(root, "r"), "--runroot", filepath.Join(root, "rr"), "--tmpdir", filepath.Join(root, "t"),
			"--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=vfs",
		}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(root, podmanFile))
		out, err := cmd.CombinedOutput()
		return fmt.Sprintf("%s (%v)", out, err)
	}
	out := run("create", "--name", "x", "--network=none", "--cgroups=disabled", "--rootfs", filepath.Join(root, "rootfs"), "/true")
	if !strings.HasSuffix(out, "(<nil>)") {
		t.Fatalf("create: %s", out)
	}
	out = run("start", "x")
	text, err := os.ReadFile(called)
	if err != nil || !bytes.Contains(text, []byte("--log-format=json")) {
		t.Errorf("the runtime was called with %s (%v); podman says %s", text, err, out)
	}
	run("rm", "-f", "x")
}

func TestConfirmContainerd(t *testing.T) {
	containerd := oracle.Tool(t, "containerd", "apt: containerd")
	defaults, err := exec.Command(containerd, "config", "default").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string][]byte{"its own default": defaults, "nothing": nil, "Debian's": []byte("version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n")} {
		t.Run(name, func(t *testing.T) {
			o := Options{Root: t.TempDir(), Wrapper: wrapperPath, Default: true}
			path := filepath.Join(o.Root, containerdFile)
			if before != nil {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, before, 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(o.Root, "/etc/selinux"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(o.Root, "/etc/selinux/config"), []byte("SELINUX=permissive\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			i, err := Plan("containerd", o)
			if err != nil {
				t.Fatal(err)
			}
			if err := configfile.Write(o.Root, i.Edits); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(containerd, "--config", path, "config", "dump").Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, i.Edits[0].After)
			}
			var config map[string]any
			if err := toml.Unmarshal(out, &config); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, plugin := range containerdPlugin {
				c := dig(config, "plugins", plugin, "containerd")
				if dig(c, "runtimes", "palisade", "options", "BinaryName") != wrapperPath || dig(c, "default_runtime_name") != "palisade" {
					continue
				}
				found = true
				if dig(config, "plugins", plugin, "enable_selinux") != true {
					t.Error("containerd takes seLinuxOptions away")
				}
				for _, key := range []string{"pod_annotations", "container_annotations"} {
					if got := fmt.Sprint(dig(c, "runtimes", "palisade", key)); got != "["+passedOn+"]" {
						t.Errorf("%s is %s", key, got)
					}
				}
			}
			if !found {
				t.Errorf("containerd does not know the runtime:\n%s", out)
			}
		})
	}
}

func FuzzDockerAdd(f *testing.F) {
	for _, seed := range []string{"{}", "{ }", "{\"a\":1}", "{\n  \"runtimes\": {}\n}", "{\"runtimes\":{\"palisade\":{\"path\":\"/x\"}},\"b\":[1,{\"c\":2}]}", "{\"runtimes\":null}", "[]", "{\"a\":1}{", "{\"\\u0072untimes\":{}}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o := Options{Wrapper: wrapperPath, Default: true}
		added, err := dockerAdd(text, o, `{"path": "/w"}`)
		if err != nil {
			return
		}
		var before, after map[string]any
		if err := json.Unmarshal(text, &before); err != nil {
			return // numbers that fit nowhere
		}
		if err := json.Unmarshal(added, &after); err != nil {
			t.Fatalf("%q -> %q: %v", text, added, err)
		}
		if dig(after, "runtimes", "palisade", "path") != "/w" || after["default-runtime"] != "palisade" {
			t.Fatalf("%q -> %q", text, added)
		}
		for key := range before {
			if _, ok := after[key]; !ok {
				t.Fatalf("%q lost %q: %q", text, key, added)
			}
		}
		removed, err := dockerRemove(added, text)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(removed) {
			t.Fatalf("%q -> %q -> %q", text, added, removed)
		}
	})
}

func FuzzContainerd(f *testing.F) {
	f.Add([]byte("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"runc\"\n"))
	f.Add([]byte("version = 3\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		added, _, err := Options{Wrapper: wrapperPath, Default: true}.containerdAdd(text, true)
		if err != nil {
			return
		}
		var config map[string]any
		if err := toml.Unmarshal(added, &config); err != nil {
			t.Fatalf("%q -> %q: %v", text, added, err)
		}
	})
}
