// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// BenchmarkRun compares palisade run with plain runc run, both of true in the
// same root with Docker's default configuration, in pairs that alternate. The
// metrics are medians in milliseconds, and their ratio.
func BenchmarkRun(b *testing.B) {
	oracle.Root(b, "containers need root")
	runc := oracle.Tool(b, "runc", "apt: runc")
	busybox := oracle.Tool(b, "busybox", "apt: busybox-static")
	work := b.TempDir()
	bin, root := filepath.Join(work, "bin"), filepath.Join(work, "root")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./cmd/palisade")
	build.Dir, build.Env = oracle.ModuleRoot(b), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		b.Fatal(err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/true"), content, 0o755); err != nil {
		b.Fatal(err)
	}
	b.Setenv("PALISADE_STATE", filepath.Join(work, "state"))
	bundle := dockerBundle(b, bin, root, work)

	run := func(name string, args ...string) time.Duration {
		cmd := exec.Command(name, args...)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return time.Since(start)
	}
	plain := func(i int) time.Duration { return run(runc, "run", "--bundle", bundle, fmt.Sprintf("bench%d", i)) }
	for _, below := range []string{"runc", "crun"} {
		b.Run(below, func(b *testing.B) {
			path := oracle.Tool(b, below, "apt: "+below)
			privateCgroups(b)
			ours := func() time.Duration {
				return run(filepath.Join(bin, "palisade"), "run", "--runtime", path, "--rootfs", root, "--", "/bin/true")
			}
			plain(0)
			ours()
			var with, without []time.Duration
			for i := 1; b.Loop(); i++ {
				without = append(without, plain(i))
				with = append(with, ours())
			}
			b.ReportMetric(ms(with), "palisade-ms")
			b.ReportMetric(ms(without), "plain-runc-ms")
			b.ReportMetric(ms(with)/ms(without), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// privateCgroups hides, from this thread and what it starts, a version 2
// hierarchy of control groups beside version 1: crun wants either.
func privateCgroups(b *testing.B) {
	b.Helper()
	runtime.LockOSThread() // and not given back: its mounts are its own
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil {
		_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	}
}

func ms(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Millisecond)
}

// dockerBundle is the bundle that palisade hands to a runtime when that has to
// filter: Docker's default configuration, with its seccomp profile as JSON.
func dockerBundle(b *testing.B, bin, root, work string) string {
	b.Helper()
	bundle := filepath.Join(work, "bundle")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(bundle, "config.json")
	script := fmt.Sprintf("#!/bin/sh\nfor a; do [ ! -f \"$a/config.json\" ] || cp \"$a/config.json\" %s; done\n", config)
	capture := filepath.Join(work, "capture")
	if err := os.WriteFile(capture, []byte(script), 0o755); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "palisade"), "run", "--runtime", capture, "--rootfs", root, "--", "/bin/true")
	cmd.Env = append(os.Environ(), handover.EnvInit+"="+handover.None)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(config)
	if err != nil {
		b.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		b.Fatal(err)
	}
	if seccomp := c["linux"].(map[string]any)["seccomp"]; seccomp == nil {
		b.Fatal("the configuration has no seccomp profile: the last step filters")
	}
	c["root"] = map[string]any{"path": root}
	if raw, err = json.Marshal(c); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		b.Fatal(err)
	}
	return bundle
}
