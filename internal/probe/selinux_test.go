// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/vmtest"
	"github.com/palisade-sec/palisade/selinux/container"
)

// TestKernelSELinuxAlone runs the probes as root with all capabilities, with
// no filter, no mask and in the host's namespaces, and with nothing but the
// label of a container.
func TestKernelSELinuxAlone(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = []vmtest.File{{Guest: "/policy", Host: debian.Policy(t, "default", map[string][]byte{container.Name: container.Module()}).Policy}}
	}
	vmtest.Run(t, vmtest.Config{LSM: "selinux", Files: files}, func(t *testing.T) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		policy, err := os.ReadFile("/policy")
		must(err)
		must(os.WriteFile("/sys/fs/selinux/load", policy, 0))
		label := func(path, context string) { must(unix.Setxattr(path, "security.selinux", []byte(context+"\x00"), 0)) }
		// A file system of its own: the initial one has no type that files go with.
		const root = "/host"
		must(os.Mkdir(root, 0o755))
		must(unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"))
		label(root, "system_u:object_r:root_t:s0")
		program := filepath.Join(root, "program")
		copyFile(t, "/proc/self/exe", program)
		label(program, "system_u:object_r:container_ro_file_t:s0")
		label("/dev/null", "system_u:object_r:null_device_t:s0")
		// kernel_t is not what starts containers: an engine in initrc_t is.
		out := runAs(t, "system_u:system_r:initrc_t:s0-s0:c0.c1023", "/proc/self/exe", "probe-as-engine", program)
		var results []Result
		if err := json.Unmarshal(out, &results); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		counts := map[Outcome]int{}
		bySELinux := 0
		var list []string
		for _, r := range results {
			counts[r.Outcome]++
			if r.Outcome == Blocked && r.Layer == selinux {
				bySELinux++
			}
			if r.Outcome == Open {
				list = append(list, r.Name)
			}
			t.Logf("%-24s %-15s %-12s %-12s %s", r.Name, r.Outcome, r.Errno, r.Layer, r.Note)
		}
		t.Logf("%d blocked, %d of them shown to be by SELinux; open: %v", counts[Blocked], bySELinux, list)
		if bySELinux < 40 {
			t.Errorf("SELinux alone blocked %d", bySELinux)
		}
		for _, r := range results {
			switch r.Name {
			case "mount", "umount", "pivot_root", "open_by_handle_at", "init_module", "bpf-program", "kcore", "core_pattern", "modprobe-path", "open-disk",
				"open-mem", "selinux-load", "selinux-permissive", "selinux-retype", "swapon", "reboot", "set-clock", "sysrq-trigger":
				if r.Outcome == Open {
					t.Errorf("%s is open: %+v", r.Name, r)
				}
			}
		}
	})
}

func runAs(t *testing.T, context, program string, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := startAs(cmd, context); err != nil {
		t.Fatalf("start as %s: %v", context, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	return stdout.Bytes()
}

// startAs starts a process under a label, as runtimes do: by setting the label
// for the next exec of the thread.
func startAs(cmd *exec.Cmd, context string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr := fmt.Sprintf("/proc/self/task/%d/attr/exec", unix.Gettid())
	if err := os.WriteFile(attr, []byte(context), 0); err != nil {
		return err
	}
	defer func() { _ = os.WriteFile(attr, nil, 0) }()
	return cmd.Start()
}

// engineMain turns enforcing on and runs the probes in a container's domain.
func engineMain(program string) int {
	if err := os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(program, "probe-as-container")
	// A container may write into pipes of its engine, and of nobody else.
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Dir = "/host"
	err := startAs(cmd, "system_u:system_r:container_t:s0:c1,c2")
	if err == nil {
		err = cmd.Wait()
	}
	_ = os.WriteFile("/sys/fs/selinux/enforce", []byte("0"), 0)
	if err == nil {
		_, err = os.Stdout.Write(stdout.Bytes())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, stderr.Bytes())
		return 1
	}
	return 0
}
