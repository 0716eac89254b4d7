// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// failOpen asks engines for a label and for a profile that this host cannot
// enforce, and collects what they answer.
type failOpen struct {
	*host
	rows map[string]map[string]string // engine, layer: answer
}

// ranMark is printed by the container, should it run.
const ranMark = "it ran anyway"

// ask runs a container of an engine; with the words of Palisade or of the engine
// in its answer it was refused.
func (f *failOpen) ask(t *testing.T, engine, layer string, wantRefused bool, name string, args ...string) {
	t.Helper()
	out, code := f.run(t, name, args...)
	ran := strings.Contains(out, ranMark)
	answer := "refused"
	switch {
	case ran && code == 0:
		answer = "SILENTLY ignored"
	case ran || code == 0:
		t.Errorf("%s, %s: exit code %d: %s", engine, layer, code, out)
	case wantRefused && !mentions(out, layer):
		t.Errorf("%s, %s: refused, but not for that: %s", engine, layer, out)
	}
	if wantRefused && ran {
		t.Errorf("%s, %s: not refused: %s", engine, layer, out)
	}
	if f.rows[engine] == nil {
		f.rows[engine] = map[string]string{}
	}
	f.rows[engine][layer] = answer
}

// mentions tells whether a refusal names the layer.
func mentions(out, layer string) bool {
	want := "selinux"
	if layer == layerAppArmor {
		want = "apparmor"
	}
	return strings.Contains(strings.ToLower(out), want)
}

const (
	layerSELinux  = "SELinux label"
	layerAppArmor = "AppArmor profile"
)

func (f *failOpen) print(t *testing.T) {
	names := make([]string, 0, len(f.rows))
	for n := range f.rows {
		names = append(names, n)
	}
	slices.Sort(names)
	t.Logf("%-36s %-20s %s", "engine", layerSELinux, layerAppArmor)
	for _, n := range names {
		t.Logf("%-36s %-20s %s", n, f.rows[n][layerSELinux], f.rows[n][layerAppArmor])
	}
}

// TestConfirmFailOpen asks every engine on a host without SELinux and AppArmor
// for a label and for a profile: by itself many of them start the container
// without, and with Palisade none does.
func TestConfirmFailOpen(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("SELinux is on here")
	}
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); len(b) > 0 && b[0] == 'Y' {
		t.Skip("AppArmor is on here")
	}
	f := &failOpen{newHost(t), map[string]map[string]string{}}
	wrapper := filepath.Join(f.bin, "palisade-oci")
	defer f.print(t)

	t.Run("runtimes", func(t *testing.T) {
		label := func(c map[string]any) {
			c["process"].(map[string]any)["selinuxLabel"] = "system_u:system_r:container_t:s0:c1,c2"
		}
		profile := func(c map[string]any) { c["process"].(map[string]any)["apparmorProfile"] = "mine" }
		for _, rt := range []string{"runc", "crun"} {
			path := oracle.Tool(t, rt, "apt: "+rt)
			for layer, edit := range map[string]func(map[string]any){layerSELinux: label, layerAppArmor: profile} {
				id := fmt.Sprintf("%s%d", rt, len(layer))
				dir := f.bundle(t, "echo "+ranMark, edit)
				// crun wants one kind of control groups, which is the host's business.
				if rt == "runc" {
					f.ask(t, rt, layer, false, path, "--root", f.work+"/"+rt, "run", "--bundle", dir, id)
				}
				f.ask(t, rt+" by palisade-oci", layer, true, wrapper, "--palisade-runtime", path, "--root", f.work+"/"+rt, "run", "--bundle", dir, id)
			}
		}
	})
	t.Run("docker", func(t *testing.T) {
		docker := f.docker(t)
		for _, rt := range []string{"runc", "palisade"} {
			name, refused := "docker", false
			if rt == "palisade" {
				name, refused = "docker by palisade-oci", true
			}
			run := func(layer string, opts ...string) {
				f.ask(t, name, layer, refused, docker, slices.Concat([]string{"run", "--rm", "--network", "none", "--runtime", rt}, opts, []string{"busybox", "sh", "-c", "echo " + ranMark})...)
			}
			run(layerSELinux, "--security-opt", "label=level:s0:c1,c2")
			run(layerAppArmor, "--security-opt", "apparmor=mine")
		}
		// One who asks for nothing, or for no label, is not refused.
		for _, opts := range [][]string{nil, {"--security-opt", "label=disable", "--security-opt", "apparmor=unconfined"}} {
			if out, code := f.run(t, docker, slices.Concat([]string{"run", "--rm", "--network", "none", "--runtime", "palisade"}, opts, []string{"busybox", "true"})...); code != 0 {
				t.Errorf("docker run %v: exit code %d: %s", opts, code, out)
			}
		}
	})
	t.Run("podman", func(t *testing.T) {
		podman := oracle.Tool(t, "podman", "apt: podman")
		ours := filepath.Join(f.work, "runtime.sh")
		if err := os.WriteFile(ours, fmt.Appendf(nil, "#!/bin/sh\nexec %s --palisade-state %s/state \"$@\"\n", wrapper, f.work), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, rt := range map[string]string{"podman": oracle.Tool(t, "runc", "apt: runc"), "podman by palisade-oci": ours} {
			run := func(layer, opt string) {
				f.ask(t, name, layer, rt == ours, podman, "--root", f.work+"/storage", "--runroot", f.work+"/podman", "--cgroup-manager=cgroupfs", "--events-backend=file",
					"--storage-driver=vfs", "--runtime", rt, "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none",
					"--security-opt", opt, "--rootfs", f.root, "sh", "-c", "echo "+ranMark)
			}
			run(layerSELinux, "label=level:s0:c1,c2")
			run(layerAppArmor, "apparmor=mine")
		}
	})
	t.Run("ctr", func(t *testing.T) {
		ctr, address := f.containerd(t)
		for _, rt := range []string{oracle.Tool(t, "runc", "apt: runc"), wrapper} {
			name := "ctr"
			if rt == wrapper {
				name = "ctr by palisade-oci"
			}
			run := func(id, layer string, opts ...string) {
				f.ask(t, name, layer, rt == wrapper, ctr, slices.Concat([]string{"-a", address, "run", "--rm", "--runc-binary", rt}, opts, []string{"--env", "PATH=/bin", "--rootfs", f.root, id, "/bin/sh", "-c", "echo " + ranMark})...)
			}
			// ctr has no option for labels; an annotation asks for one.
			run("a"+filepath.Base(rt), layerSELinux, "--annotation", "io.github.palisade-sec.selinux=level:s0:c1,c2")
			run("b"+filepath.Base(rt), layerAppArmor, "--apparmor-profile", "mine")
		}
	})
	t.Run("required by the host", func(t *testing.T) {
		// What no engine passes on, ":Z" without a label for example, is a matter
		// of what the host requires of every container.
		for _, layer := range []string{"selinux", "apparmor"} {
			dir := f.bundle(t, "echo "+ranMark, nil)
			out, code := f.run(t, wrapper, "--palisade-require", layer, "--root", f.work+"/runc", "run", "--bundle", dir, "required")
			if code != 125 || !strings.Contains(out, layer+", which this host requires, is off") {
				t.Errorf("require %s: exit code %d: %s", layer, code, out)
			}
		}
	})
	f.leftNothing(t)
}
