// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// kube is containerd's part for Kubernetes with palisade-oci as a RuntimeClass.
type kube struct {
	*host
	client, address string
}

// newKube starts containerd with the configuration that 'palisade host integrate'
// writes, and one runtime more that requires SELinux.
func newKube(t *testing.T) *kube {
	k := &kube{host: newHost(t)}
	k.client = filepath.Join(k.bin, "cri")
	build := exec.Command("go", "build", "-o", k.client, ".")
	build.Dir, build.Env = filepath.Join(oracle.ModuleRoot(t), "internal/cri"), k.env
	if out, err := build.CombinedOutput(); err != nil {
		oracle.Missing(t, "the client of the container runtime interface: %v: %s", err, out)
	}
	strict := filepath.Join(k.work, "strict")
	if err := os.WriteFile(strict, fmt.Appendf(nil, "#!/bin/sh\nexec %s --palisade-require selinux \"$@\"\n", k.runtime), 0o755); err != nil {
		t.Fatal(err)
	}
	var ctr string
	ctr, k.address = k.containerdWith(t, func(config string) string {
		const plugin = `[plugins."io.containerd.grpc.v1.cri"`
		config += plugin + "]\nsandbox_image = \"localhost/root:1\"\nrestrict_oom_score_adj = true\n" +
			plugin + ".containerd]\ndefault_runtime_name = \"runc\"\n" +
			plugin + ".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n" +
			plugin + ".containerd.runtimes.strict]\nruntime_type = \"io.containerd.runc.v2\"\n" +
			plugin + ".containerd.runtimes.strict.options]\nBinaryName = \"" + strict + "\"\n"
		return k.integrate(t, config)
	})
	archive := k.image(t, "localhost/root:1")
	if out, code := k.run(t, ctr, "-a", k.address, "-n", "k8s.io", "images", "import", archive); code != 0 {
		t.Fatal(out)
	}
	for range 100 {
		if out, err := k.call("RuntimeService/Version", nil); err == nil && out["runtimeName"] == "containerd" {
			return k
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("containerd does not answer")
	return nil
}

// integrate lets palisade edit a configuration.
func (k *kube) integrate(t *testing.T, config string) string {
	t.Helper()
	root := filepath.Join(k.work, "etcroot")
	file := filepath.Join(root, "etc/containerd/config.toml")
	wrapper := filepath.Join(root, k.runtime)
	for _, dir := range []string{filepath.Dir(file), filepath.Dir(wrapper)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{file: config, wrapper: "the same path is checked below the root"} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := k.run(t, filepath.Join(k.bin, "palisade"), "host", "integrate", "containerd", "--root", root, "--wrapper", k.runtime, "--apply"); code != 0 {
		t.Fatal(out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// image writes the host's root as an archive as docker save does.
func (h *host) image(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(h.work, "image")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := h.run(t, "tar", "-C", h.root, "-cf", filepath.Join(dir, "layer.tar"), "."); code != 0 {
		t.Fatal(out)
	}
	layer, err := os.ReadFile(filepath.Join(dir, "layer.tar"))
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{"/bin/sleep", "1000"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	}
	manifest := []map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}}
	for file, v := range map[string]any{"config.json": config, "manifest.json": manifest} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(h.work, "image.tar")
	if out, code := h.run(t, "tar", "-C", dir, "-cf", archive, "config.json", "manifest.json", "layer.tar"); code != 0 {
		t.Fatal(out)
	}
	return archive
}

type object = map[string]any

func (k *kube) call(method string, request object) (object, error) {
	in, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if request == nil {
		in = []byte("{}")
	}
	cmd := exec.Command(k.client, k.address, method)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%s: %s", method, exit.Stderr)
		}
		return nil, err
	}
	var answer object
	return answer, json.Unmarshal(out, &answer)
}

func (k *kube) must(t *testing.T, method string, request object) object {
	t.Helper()
	out, err := k.call(method, request)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sandbox is the configuration of a pod in the host's network, which needs no
// plugin.
func sandbox(name string, edit func(security object)) object {
	security := object{"namespaceOptions": object{"network": "NODE"}}
	if edit != nil {
		edit(security)
	}
	return object{
		"metadata": object{"name": name, "namespace": "default", "uid": name},
		"linux":    object{"securityContext": security},
	}
}

func (k *kube) pod(t *testing.T, config object) string {
	t.Helper()
	return k.must(t, "RuntimeService/RunPodSandbox", object{"config": config, "runtimeHandler": "palisade"})["podSandboxId"].(string)
}

func (k *kube) container(t *testing.T, pod string, config object, name string) string {
	t.Helper()
	id := k.must(t, "RuntimeService/CreateContainer", object{
		"podSandboxId": pod, "sandboxConfig": config,
		"config": object{
			"metadata": object{"name": name}, "image": object{"image": "localhost/root:1"}, "command": []string{"/bin/sleep", "1000"},
			"linux": object{"securityContext": object{"namespaceOptions": object{"network": "NODE"}}},
		},
	})["containerId"].(string)
	k.must(t, "RuntimeService/StartContainer", object{"containerId": id})
	return id
}

// levels is who holds which level.
func (k *kube) levels(t *testing.T) map[string]string {
	t.Helper()
	out, code := k.run(t, filepath.Join(k.bin, "palisade"), "label", "ls", "--json")
	var list []heldLabel
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("label ls: %v: %s", err, out)
	}
	held := map[string]string{}
	for _, l := range list {
		held[l.ID] = l.Level
	}
	return held
}

// TestConfirmCRI drives containerd as Kubernetes does, with palisade-oci as the
// handler of a RuntimeClass: a pod has one label, whatever its containers are, and
// no other has it; what a pod asks for and the host cannot do is an error.
func TestConfirmCRI(t *testing.T) {
	k := newKube(t)
	one, two := sandbox("one", nil), sandbox("two", nil)
	p1 := k.pod(t, one)
	a, b := k.container(t, p1, one, "a"), k.container(t, p1, one, "b")
	p2 := k.pod(t, two)
	c := k.container(t, p2, two, "c")

	held := k.levels(t)
	if l := held[p1]; l == "" || held[a] != l || held[b] != l {
		t.Errorf("the containers of a pod hold %q, %q and %q", held[p1], held[a], held[b])
	}
	if l := held[p2]; l == "" || held[c] != l || l == held[p1] {
		t.Errorf("the containers of another pod hold %q and %q; the first %q", held[p2], held[c], held[p1])
	}
	for _, id := range []string{p1, a, b, p2, c} {
		k.checkInspect(t, id)
	}
	exec := k.must(t, "RuntimeService/ExecSync", object{"containerId": a, "cmd": []string{"/bin/sh", "-c", confined}, "timeout": 20})
	out, err := json.Marshal(exec["stdout"])
	if err != nil {
		t.Fatal(err)
	}
	var text []byte // base64 in JSON
	if err := json.Unmarshal(out, &text); err != nil {
		t.Fatal(err)
	}
	checkConfined(t, string(text))

	t.Run("killed and left behind", func(t *testing.T) {
		// gc takes nothing from a pod that runs.
		if out, code := k.run(t, filepath.Join(k.bin, "palisade"), "gc"); code != 0 || strings.TrimSpace(out) != "" {
			t.Errorf("gc: exit code %d: %s", code, out)
		}
	})
	t.Run("asked for and not there", func(t *testing.T) {
		if _, err := k.call("RuntimeService/RunPodSandbox", object{"config": sandbox("x1", nil), "runtimeHandler": "nosuch"}); err == nil || !strings.Contains(err.Error(), "nosuch") {
			t.Errorf("a handler that is not configured: %v", err)
		}
		if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
			// containerd drops a label without a word, and the runtime never sees it: what
			// is asked for so has to be required by the host.
			labelled := sandbox("x2", func(s object) { s["selinuxOptions"] = object{"level": "s0:c1,c2"} })
			if _, err := k.call("RuntimeService/RunPodSandbox", object{"config": labelled, "runtimeHandler": "strict"}); err == nil || !strings.Contains(err.Error(), "selinux, which this host requires, is off") {
				t.Errorf("a label without SELinux: %v", err)
			}
		}
		if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !bytes.HasPrefix(b, []byte("Y")) {
			id, err := k.call("RuntimeService/CreateContainer", object{
				"podSandboxId": p2, "sandboxConfig": two,
				"config": object{
					"metadata": object{"name": "x3"}, "image": object{"image": "localhost/root:1"}, "command": []string{"/bin/sleep", "1000"},
					"linux": object{"securityContext": object{"apparmor": object{"profileType": "Localhost", "localhostRef": "mine"}, "apparmorProfile": "localhost/mine", "namespaceOptions": object{"network": "NODE"}}},
				},
			})
			if err == nil {
				_, err = k.call("RuntimeService/StartContainer", object{"containerId": id["containerId"]})
			}
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), "apparmor") {
				t.Errorf("a profile without AppArmor: %v", err)
			}
		}
	})
	t.Run("policy of the pod", func(t *testing.T) {
		config := sandbox("three", nil)
		config["annotations"] = object{"io.github.palisade-sec.request": "strict"}
		p3 := k.pod(t, config)
		out, _ := k.run(t, filepath.Join(k.bin, "palisade"), "inspect", p3, "--json")
		if !strings.Contains(out, `"policy": "strict"`) {
			t.Errorf("inspect: %.300s", out)
		}
		k.must(t, "RuntimeService/RemovePodSandbox", object{"podSandboxId": p3})
	})

	// The label stays until the last of the pod is gone.
	for _, id := range []string{a, b} {
		k.must(t, "RuntimeService/StopContainer", object{"containerId": id})
		k.must(t, "RuntimeService/RemoveContainer", object{"containerId": id})
	}
	if now := k.levels(t); now[p1] != held[p1] || now[a] != "" {
		t.Errorf("with the containers gone the pod holds %q, a container %q", now[p1], now[a])
	}
	for _, id := range []string{p1, p2} {
		k.must(t, "RuntimeService/StopPodSandbox", object{"podSandboxId": id})
		k.must(t, "RuntimeService/RemovePodSandbox", object{"podSandboxId": id})
	}
	if now := k.levels(t); len(now) != 0 {
		t.Errorf("left: %v", now)
	}
	all, _ := k.run(t, filepath.Join(k.bin, "palisade"), "label", "ls", "--all", "--json")
	var list []heldLabel
	if err := json.Unmarshal([]byte(all), &list); err != nil {
		t.Fatal(err)
	}
	for _, level := range []string{held[p1], held[p2]} {
		if !slices.ContainsFunc(list, func(l heldLabel) bool { return l.Level == level && l.State == "quarantine" }) {
			t.Errorf("%s does not rest: %v", level, list)
		}
	}
	k.leftNothing(t)
}
