// SPDX-License-Identifier: Apache-2.0

package laststep_test

import (
	"os"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// TestKernelStep runs the step in the distribution's kernel, which enforces
// AppArmor and is older than some of what the step asks for.
func TestKernelStep(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a kernel")
	}
	var files []vmtest.File
	if !vmtest.InGuest() {
		for _, name := range []string{"/usr/bin/busybox", "/bin/true"} {
			files = append(files, vmtest.File{Guest: name, Host: busybox(t)})
		}
	}
	vmtest.Run(t, vmtest.Config{LSM: "apparmor", Files: files, Env: []string{fullEnv + "=" + os.Getenv(fullEnv)}}, func(t *testing.T) {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+pids +memory"), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("/etc/passwd", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Run("AppArmor", appArmor)
		for _, row := range []struct {
			name string
			long bool
			test func(*testing.T)
		}{
			{"Inside", false, TestInside},
			{"Descriptors", false, TestDescriptors},
			{"Capabilities", false, TestCapabilities},
			{"Gate", false, TestGate},
			{"Footprint", false, TestFootprint},
			{"InForce", true, TestInForce},
			{"Refused", true, TestRefused},
			{"Command", true, TestCommand},
			{"LongArguments", true, TestLongArguments},
			{"FiltersThatRefuse", true, TestFiltersThatRefuse},
			{"Untraceable", true, TestUntraceable},
			{"Activation", true, TestActivation},
			{"Limits", true, TestLimits},
		} {
			if !row.long || os.Getenv(fullEnv) != "" {
				t.Run(row.name, row.test)
			}
		}
	})
}

// fullEnv, when set, runs all tests of the step in the guest ("make step-kernel").
const fullEnv = "PALISADE_FULL"

// appArmor changes to a profile, with and without new privileges, and to one that
// is not there.
func appArmor(t *testing.T) {
	var fs securityfs.FS
	features, err := fs.Features()
	if err != nil {
		t.Fatal(err)
	}
	const text = "profile step-test { file, deny /secret r, network, unix, signal, ptrace, capability, }"
	file, diags := apparmor.Parse("profile", []byte(text))
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	resolved, diags := apparmor.Resolve(file, apparmor.Env{Kernel: features, ABI: features})
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	policy, diags := compile.New(compile.Options{Kernel: features}).Compile(resolved)
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	b, err := policy.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Replace(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/secret", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	under := func(profile string) *laststep.Config {
		return &laststep.Config{AppArmor: profile, NoNewPrivileges: true}
	}
	ops := func(o ...op) []op { return o }
	for _, row := range []struct {
		name       string
		step       step
		program    string
		out, wrong string
	}{
		{"profile", step{config: under("step-test")}, "cat /proc/self/attr/current", "step-test (enforce)\n", ""},
		{"of a user", step{config: under("step-test"), ops: ops(op{Do: "user", N: 1234})}, "cat /proc/self/attr/current", "step-test (enforce)\n", ""},
		{"without openat2", step{config: under("step-test"), ops: ops(refusing(38, 437))}, "cat /proc/self/attr/current", "", ""},
		{"denies", step{config: under("step-test")}, "cat /secret", "", "cat: can't open '/secret': Permission denied\n"},
		{"missing", step{config: under("nosuch")}, "echo ran", "", "palisade-init: AppArmor profile nosuch: no such file or directory\n"},
		{"prefix of one", step{config: under("step")}, "echo ran", "", "palisade-init: AppArmor profile step: no such file or directory\n"},
		{"longest", step{config: under(strings.Repeat("p", 4000))}, "echo ran", "", "palisade-init: AppArmor profile ppp"},
		// The container chose what is mounted at /proc. On older kernels the check of
		// the working directory finds it first.
		{"no /proc", step{config: under("step-test"), exec: "-", ops: ops(op{Do: "unshare", N: 0x20000}, op{Do: "private"}, op{Do: "tmpfs", Text: "/proc"})}, "echo ran", "", ": no such device\n"},
		{"part of /proc", step{config: under("step-test"), exec: "-", ops: ops(op{Do: "unshare", N: 0x20000}, op{Do: "private"}, op{Do: "move", Text: "/proc/1"})}, "echo ran", "", ": no such device\n"},
		{"mount in /proc", step{config: under("step-test"), exec: "-", ops: ops(op{Do: "unshare", N: 0x20000}, op{Do: "private"}, op{Do: "over"})}, "echo ran", "", "palisade-init: AppArmor profile step-test: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := inside(t, row.step, row.program)
			if row.name == "without openat2" {
				// The filter came with no new privileges, under which the kernel lets
				// nobody change from no profile to one without their agreement; either
				// answer is the kernel's, and neither leaves the workload outside.
				if r.stdout != "step-test (enforce)\n" && (r.code != 125 || r.stdout != "") {
					t.Error(r)
				}
				return
			}
			if r.stdout != row.out || !strings.Contains(r.stderr, row.wrong) || (row.wrong == "") != (r.code == 0) {
				t.Errorf("%v\nwant %q, %q", r, row.out, row.wrong)
			}
		})
	}
}
