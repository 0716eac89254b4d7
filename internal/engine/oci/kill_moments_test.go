// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envMoments is how many calls of palisade-oci are killed, each at a moment of its
// own.
const envMoments = "PALISADE_MOMENTS"

// TestKillMoments kills palisade-oci, alone or with the runtime below it, at random
// moments of create, start, exec and delete. No process of a container may then be
// less confined than its policy says, the container can be deleted, and after gc
// no label, record or process is left.
func TestKillMoments(t *testing.T) {
	n := 16
	if s := os.Getenv(envMoments); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", envMoments, err)
		}
	}
	h := newHost(t)
	seed := uint64(os.Getpid())<<32 | uint64(n)
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 7))
	dir := h.bundle(t, "sleep 1000", nil)
	root := filepath.Join(h.work, "runc")
	oci := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(h.bin, "palisade-oci"), append([]string{"--palisade-state", h.work + "/state", "--root", root}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	usual := map[string]time.Duration{} // how long a call takes that is not killed
	weak := 0
	for i := range n {
		id := "moment" + strconv.Itoa(i)
		ops := [][]string{{"create", "--bundle", dir, id}, {"start", id}, {"exec", id, "sleep", "1000"}, {"delete", "--force", id}}
		victim := i % len(ops)
		for j, op := range ops {
			cmd := oci(op...)
			begin := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if j == victim {
				// A moment within the usual time, or a little later.
				most := max(usual[op[0]], 20*time.Millisecond) * 5 / 4
				pause := unix.NsecToTimespec(random.Int64N(int64(most)))
				_ = unix.Nanosleep(&pause, nil)
				pid := cmd.Process.Pid
				if random.IntN(2) == 0 {
					pid = -pid // with the runtime
				}
				_ = unix.Kill(pid, unix.SIGKILL)
			} else if op[0] == "exec" {
				// It runs on: it is ended with the container.
				go func() { _ = cmd.Wait() }()
				continue
			}
			if err := cmd.Wait(); err == nil {
				usual[op[0]] = time.Since(begin)
			}
			if j == victim {
				weak += h.lessConfined(t, fmt.Sprintf("%s, killed in %s", id, op[0]))
			}
		}
		if victim == len(ops)-1 {
			_ = oci("delete", "--force", id).Run()
		}
	}
	if weak > 0 {
		t.Errorf("%d processes are less confined", weak)
	}
	// What a runtime finished after palisade-oci was killed is deleted as its engine
	// would; then nothing may be left.
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		_ = oci("delete", "--force", e.Name()).Run()
	}
	h.settled(t)
	palisade := filepath.Join(h.bin, "palisade")
	if out, code := h.run(t, palisade, "gc"); code != 0 {
		t.Errorf("gc: exit code %d: %s", code, out)
	}
	h.leftNothing(t)
	if out, code := h.run(t, palisade, "label", "ls", "--json"); code != 0 || strings.TrimSpace(out) != "[]" {
		t.Errorf("labels left: %s", out)
	}
	t.Logf("%d calls killed, %d processes less confined", n, weak)
}

// lessConfined counts the processes of this host's containers that run without what
// the default policy puts in force.
func (h *host) lessConfined(t *testing.T, when string) int {
	t.Helper()
	weak := 0
	for _, pid := range h.inContainers(t) {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			continue // it has ended
		}
		status := string(b)
		if strings.Contains(status, "\nState:\tZ") || strings.Contains(status, "\nState:\tX") {
			continue
		}
		for _, want := range []string{"\nNoNewPrivs:\t1", "\nSeccomp:\t2", "\nCapInh:\t0000000000000000"} {
			if !strings.Contains(status, want) {
				t.Errorf("%s: process %d has no %q", when, pid, strings.TrimSpace(want))
				weak++
				break
			}
		}
	}
	return weak
}

// inContainers are the processes that execute a program of this host's root.
func (h *host) inContainers(t *testing.T) []int {
	t.Helper()
	var want unix.Stat_t
	if err := unix.Stat(filepath.Join(h.root, "bin/busybox"), &want); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join("/proc", e.Name(), "exe"), &st) == nil && st.Ino == want.Ino && st.Dev == want.Dev {
			out = append(out, pid)
		}
	}
	return out
}

// settled ends what is left of the containers and waits until it has ended.
func (h *host) settled(t *testing.T) {
	t.Helper()
	for _, pid := range h.inContainers(t) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		unix.Close(fd)
	}
}
