// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/caps"
)

const mountinfo = `1 0 0:1 / / ro,relatime - overlay overlay rw,lowerdir=/a
2 1 0:2 / /proc rw,nosuid - proc proc rw
3 2 0:2 /bus /proc/bus ro,nosuid - proc proc rw
4 2 0:3 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
5 2 0:4 / /proc/acpi ro,relatime - tmpfs tmpfs ro
6 2 0:5 / /proc/odd\040name rw - tmpfs tmpfs rw
7 1 0:6 / /sys ro - sysfs sysfs rw
`

func TestMounts(t *testing.T) {
	mounts, err := readMounts(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string][2]bool{ // masked, read-only
		"/":                {false, true},
		"/etc":             {false, true},
		"/proc":            {false, false},
		"/proc/bus":        {false, true},
		"/proc/bus/pci":    {false, true},
		"/proc/business":   {false, false},
		"/proc/kcore":      {true, false},
		"/proc/acpi":       {true, true},
		"/proc/odd name":   {false, false},
		"/sys/firmware":    {false, true},
		"/proc/timer_list": {false, false},
	} {
		if got := [2]bool{masked(mounts, p), readOnly(mounts, p)}; got != want {
			t.Errorf("%s: masked, read-only = %v, want %v", p, got, want)
		}
	}
	if _, err := readMounts(strings.NewReader("nonsense\n")); err == nil {
		t.Error("nonsense was taken")
	}
}

func full() State {
	return State{
		SELinux: "u:r:t:s0:c1,c2", AppArmor: "docker-default", NoNewPrivileges: true,
		Seccomp:      Seccomp{Mode: SeccompFilter, Filters: 1, SHA256: []string{"aa"}},
		Capabilities: Capabilities{Bounding: caps.Docker, Effective: caps.Docker, Permitted: caps.Docker},
		Landlock:     &Landlock{ABI: 7, HandledFS: 3},
		ReadOnlyRoot: true, MaskedPaths: []string{"/m"}, ReadOnlyPaths: []string{"/r"}, Namespaces: []string{"pid"},
	}
}

// TestCompare weakens one layer at a time, and wants that one reported.
func TestCompare(t *testing.T) {
	if m := Compare(full(), full()); len(m) != 0 {
		t.Errorf("equal states differ: %v", m)
	}
	weaker := map[string]func(*State){
		"selinux":           func(s *State) { s.SELinux = "u:r:t:s0:c1,c3" },
		"apparmor":          func(s *State) { s.AppArmor = "" },
		"no_new_privileges": func(s *State) { s.NoNewPrivileges = false },
		"seccomp":           func(s *State) { s.Seccomp.Mode = SeccompDisabled },
		"capabilities":      func(s *State) { s.Capabilities.Permitted = caps.All },
		"landlock":          func(s *State) { s.Landlock = nil },
		"namespaces":        func(s *State) { s.Namespaces = nil },
	}
	for layer, weaken := range weaker {
		found := full()
		weaken(&found)
		if m := Compare(full(), found); len(m) != 1 || m[0].Layer != layer || m[0].Why == "" {
			t.Errorf("%s: got %v", layer, m)
		}
	}
	for _, weaken := range []func(*State){
		func(s *State) { s.ReadOnlyRoot = false },
		func(s *State) { s.MaskedPaths = nil },
		func(s *State) { s.ReadOnlyPaths = nil },
	} {
		found := full()
		weaken(&found)
		if m := Compare(full(), found); len(m) != 1 || m[0].Layer != "mounts" {
			t.Errorf("mounts: got %v", m)
		}
	}
	for _, weaken := range []func(*State){
		func(s *State) { s.Seccomp.SHA256 = []string{"bb"} },
		func(s *State) { s.Seccomp.Filters = 0 },
	} {
		found := full()
		weaken(&found)
		if m := Compare(full(), found); len(m) != 1 || m[0].Layer != "seccomp" {
			t.Errorf("seccomp: got %v", m)
		}
	}
	complain := full()
	complain.AppArmor = "docker-default (complain)"
	if m := Compare(full(), complain); len(m) != 1 {
		t.Errorf("a profile in complain mode: %v", m)
	}
	// More is no mismatch.
	more := full()
	more.AppArmor = "docker-default (enforce)"
	more.Capabilities = Capabilities{}
	more.Seccomp.Filters, more.Seccomp.SHA256 = 2, []string{"bb", "aa"}
	more.Namespaces = append(more.Namespaces, "user")
	if m := Compare(full(), more); len(m) != 0 {
		t.Errorf("more confinement: %v", m)
	}
}

func TestReadSelf(t *testing.T) {
	st, err := Read(os.Getpid(), State{})
	if err != nil {
		t.Fatal(err)
	}
	if int(st.UID) != os.Geteuid() || len(st.Namespaces) != 0 || st.Seccomp.Mode == "" {
		t.Errorf("this process: %+v", st)
	}
}

func TestReadGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Skip(err)
	}
	if _, err := Read(cmd.Process.Pid, State{}); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}

func TestReadStatus(t *testing.T) {
	good := "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapInh:\t0\nCapPrm:\t1\nCapEff:\t3\nCapBnd:\t7\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"
	var st State
	if err := st.readStatus([]byte(good)); err != nil {
		t.Fatal(err)
	}
	if st.UID != 2 || st.GID != 6 || st.Capabilities.Bounding != 7 || !st.NoNewPrivileges || st.Seccomp.Mode != SeccompFilter || st.Seccomp.Filters != 3 {
		t.Errorf("got %+v", st)
	}
	for _, bad := range []string{"", strings.Replace(good, "CapEff:\t3\n", "", 1), strings.Replace(good, "Seccomp:\t2", "Seccomp:\t9", 1), strings.Replace(good, "CapBnd:\t7", "CapBnd:\tx", 1)} {
		if err := new(State).readStatus([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, s string) {
		mounts, err := readMounts(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, m := range mounts {
			if m.point == "" && !slices.Contains(m.options, "") {
				continue
			}
			_ = masked(mounts, m.point)
			_ = readOnly(mounts, m.point)
		}
	})
}
