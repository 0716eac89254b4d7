// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestKill kills palisade run at random moments between its start and the middle
// of its container's life. Afterwards gc has to leave nothing: no process, no
// state of palisade or of the runtime, no label.
func TestKill(t *testing.T) {
	oracle.Root(t, "containers need root")
	oracle.Tool(t, "runc", "apt: runc")
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/palisade")
	build.Dir, build.Env = oracle.ModuleRoot(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	root := t.TempDir()
	content, err := os.ReadFile(oracle.Tool(t, "busybox", "apt: busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "busybox"), content, 0o755); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	t.Setenv("PALISADE_STATE", state)
	palisade := filepath.Join(bin, "palisade")
	gc := func() string {
		out, err := exec.Command(palisade, "gc").CombinedOutput()
		if err != nil {
			t.Fatalf("gc: %v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	rounds := 15
	if s := os.Getenv("SVIRT_ENGINE_KILLS"); s != "" {
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	collected := 0
	for i := range rounds {
		name := fmt.Sprintf("kill%d", i)
		cmd := exec.Command(palisade, "run", "--name", name, "--rootfs", root, "--", "/busybox", "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if i%3 == 2 {
			if gc() != "" {
				collected++
			}
		}
	}
	if gc() != "" {
		collected++
	}
	t.Logf("gc had something to do %d times", collected)
	for _, dir := range []string{"containers", "runtime"} {
		entries, err := os.ReadDir(filepath.Join(state, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			t.Errorf("left: %s/%s", dir, e.Name())
		}
	}
	out, err := exec.Command(palisade, "label", "ls", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var labels []struct{ ID, State string }
	if err := json.Unmarshal(out, &labels); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, l := range labels {
		t.Errorf("left: label of %s in state %s", l.ID, l.State)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), state) {
			t.Errorf("left: process %s: %q", p, b)
		}
	}
}
