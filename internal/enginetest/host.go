// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package enginetest is for tests that run real container engines: the built
// programs, a root file system and a state directory in a folder of the test's own.
package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Host is a folder with the built programs, a root file system and a state
// directory of its own.
type Host struct {
	Bin, Root, Work string
	// Env is what the programs get.
	Env []string
}

// New builds the programs. It skips where containers cannot be run.
func New(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers of engines need root")
	}
	busybox := oracle.Tool(t, "busybox", "apt: busybox-static")
	// A short path: sockets have 108 bytes.
	work, err := os.MkdirTemp("", "palisade-engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { RemoveAll(t, work) })
	h := &Host{Bin: filepath.Join(work, "bin"), Root: filepath.Join(work, "root"), Work: work}
	h.Env = append(os.Environ(), "PALISADE_STATE="+filepath.Join(work, "state"), "PALISADE_RUNTIME=", "CGO_ENABLED=0")
	cmd := exec.Command("go", "build", "-o", h.Bin+"/", "./cmd/palisade", "./cmd/palisade-oci", "./cmd/palisade-lxc")
	cmd.Dir, cmd.Env = oracle.ModuleRoot(t), h.Env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.Root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Root, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "cat", "grep", "id", "ls", "sleep", "true", "tty"} {
		if err := os.Symlink("busybox", filepath.Join(h.Root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// RemoveAll unmounts what an engine may have left below dir first.
func RemoveAll(t testing.TB, dir string) {
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Log(err)
	}
	for _, m := range slices.Backward(below) {
		_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Log(err)
	}
}

// Run runs a command to its end, or for a minute.
func (h *Host) Run(t testing.TB, name string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = h.Env
	// A file, not a pipe: a container that inherits it must not keep us waiting.
	f, err := os.CreateTemp(h.Work, "output")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	b, rerr := os.ReadFile(f.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %q: %v\n%s", name, args, err, b)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// Daemon starts a program and waits until ready says so.
func (h *Host) Daemon(t testing.TB, ready func() bool, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(h.Work, filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = h.Env, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", name, b[max(0, len(b)-4000):])
		}
		log.Close()
	})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !ready(); {
		select {
		case <-tick.C:
		case <-ended:
			b, _ := os.ReadFile(log.Name())
			oracle.Missing(t, "%s does not run here: %s", name, b[max(0, len(b)-600):])
		case <-deadline:
			t.Fatalf("%s is not ready after a minute", name)
		}
	}
}

// Inspection is what palisade inspect --json prints.
type Inspection struct {
	Engine    string `json:"engine"`
	Policy    string `json:"policy"`
	Label     string `json:"label"`
	Status    string `json:"status"`
	Effective *struct {
		Seccomp struct {
			Mode   string   `json:"mode"`
			SHA256 []string `json:"sha256"`
		} `json:"seccomp"`
		NoNewPrivileges bool `json:"no_new_privileges"`
		Landlock        *struct {
			ABI int `json:"abi"`
		} `json:"landlock"`
	} `json:"effective"`
	Mismatches []json.RawMessage `json:"mismatches"`
}
