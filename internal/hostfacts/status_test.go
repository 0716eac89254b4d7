// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

// TestStatusContract checks the keys that other programs rely on.
func TestStatusContract(t *testing.T) {
	text, err := json.Marshal(Read(context.Background(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lsm", "runtimes"} {
		if _, ok := m[key].([]any); !ok {
			t.Errorf("%s is %T, want an array", key, m[key])
		}
	}
	for _, key := range []string{"selinux", "apparmor", "landlock", "seccomp", "bpf_lsm", "tee"} {
		o, ok := m[key].(map[string]any)
		if !ok {
			t.Errorf("%s is %T, want an object", key, m[key])
			continue
		}
		state, _ := o["state"].(string)
		if !slices.Contains([]string{"enforcing", "off", "absent", "unknown"}, state) {
			t.Errorf("%s.state = %q", key, state)
		}
		if o["why"] == "" || o["detail"] == "" && state != "unknown" {
			t.Errorf("%s lacks its line: %v", key, o)
		}
		if state != "enforcing" && state != "unknown" && o["enable"] == nil {
			t.Errorf("%s is %s and does not say how to turn it on", key, state)
		}
	}
}

// TestConfirmLSMList compares the two ways in which the running kernel tells
// its active modules.
func TestConfirmLSMList(t *testing.T) {
	byCall, err := lsmListModules()
	if err != nil {
		t.Skipf("the kernel has no lsm_list_modules: %v", err)
	}
	r := newReader(Options{})
	defer r.done()
	byFile, source, err := r.lsmList()
	if err != nil || source != "/sys/kernel/security/lsm" {
		t.Skipf("securityfs cannot be read: %v", err)
	}
	// Modules of integrity are in the file and have no number before 6.13.
	if !slices.Equal(byCall, byFile) {
		t.Errorf("lsm_list_modules says %v, securityfs %v", byCall, byFile)
	}
}

// TestReadLeavesNothing checks that looking mounts nothing for others to see. The
// mount namespace is the test's own, so that what others mount meanwhile is no matter.
func TestReadLeavesNothing(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	const mounts = "/proc/thread-self/mountinfo"
	before, err := os.ReadFile(mounts)
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	fds := openFiles(t)
	Read(context.Background(), Options{})
	ForLaunch()
	after, err := os.ReadFile(mounts)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("mounts changed:\n%s\n%s", before, after)
	}
	if now := openFiles(t); now > fds+2 {
		t.Errorf("%d files were open, %d are now", fds, now)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestForLaunchAgreesWithStatus reads the running kernel in both ways.
func TestForLaunchAgreesWithStatus(t *testing.T) {
	checkForLaunch(t, Read(context.Background(), Options{Quick: true}))
}

// checkForLaunch compares what is read for each container with a whole status.
func checkForLaunch(t *testing.T, s *Status) {
	t.Helper()
	got, want := ForLaunch(), s.Target()
	// The parts that compilers do not take are left out, and so is whether the
	// kernel has a module that is not active.
	if want.SELinux.State == target.Absent {
		want.SELinux.State = target.Off
	}
	if want.AppArmor.State == target.Absent {
		want.AppArmor.State = target.Off
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"kernel", got.Kernel, want.Kernel},
		{"architecture", got.Arch, want.Arch},
		{"Landlock", got.Landlock, want.Landlock},
		{"seccomp state", got.Seccomp.State, want.Seccomp.State},
		{"seccomp actions", got.Seccomp.Actions, want.Seccomp.Actions},
		{"SELinux state", got.SELinux.State, want.SELinux.State},
		{"SELinux mode", got.SELinux.Mode, want.SELinux.Mode},
		{"process context", got.SELinux.ProcessContext, want.SELinux.ProcessContext},
		{"file context", got.SELinux.FileContext, want.SELinux.FileContext},
		{"AppArmor state", got.AppArmor.State, want.AppArmor.State},
		{"profiles", got.AppArmor.Loaded, want.AppArmor.Loaded},
		{"docker-default", got.AppArmor.DockerDefault, want.AppArmor.DockerDefault},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v for a container, %v in the status", c.what, c.got, c.want)
		}
	}
}

func BenchmarkForLaunch(b *testing.B) {
	for b.Loop() {
		ForLaunch()
	}
}

// BenchmarkParseProfiles reads the list of a host with a profile for each of 500
// containers.
func BenchmarkParseProfiles(b *testing.B) {
	var list strings.Builder
	for i := range 500 {
		fmt.Fprintf(&list, "palisade.container-%d.0123456789abcdef (enforce)\n", i)
	}
	for b.Loop() {
		if len(parseProfiles(list.String())) != 500 {
			b.Fatal("profiles are missing")
		}
	}
}

func TestParseProfiles(t *testing.T) {
	got := parseProfiles("docker-default (enforce)\n/usr/bin/a b (complain)\nx (y) (kill)\nx//child (unconfined)\nbroken\n(enforce)\n (enforce)\nopen (enforce\n")
	want := map[string]string{"docker-default": "enforce", "/usr/bin/a b": "complain", "x (y)": "kill", "x//child": "unconfined"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParseKernelConfig(t *testing.T) {
	got := ParseKernelConfig([]byte("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_LSM=\"a,b\"\n#comment\nX=1\nCONFIG_\n# CONFIG_C is\n"))
	want := KernelConfig{"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_LSM": "a,b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func FuzzParseKernelConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n# CONFIG_B is not set\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name := range ParseKernelConfig(text) {
			if !strings.HasPrefix(name, "CONFIG_") {
				t.Fatalf("%q", name)
			}
		}
	})
}

func FuzzParseProfiles(f *testing.F) {
	f.Add("docker-default (enforce)\nx (complain)\na (b) (kill)\n")
	f.Add(" (enforce)\n()\nx (\n")
	f.Fuzz(func(t *testing.T, text string) {
		loaded := parseProfiles(text)
		if len(loaded) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d profiles in %q", len(loaded), text)
		}
		for name, mode := range loaded {
			if name == "" || !strings.Contains(text, name+" ("+mode+")") {
				t.Fatalf("%q (%q) of %q", name, mode, text)
			}
		}
	})
}
