// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// matcher compiles a glob for tests.
func matcher(t testing.TB, glob string) func(string) bool {
	t.Helper()
	c, err := dfa.ConvertGlob("", glob, false)
	if err != nil {
		t.Fatalf("%s: %v", glob, err)
	}
	a := dfa.NewArena()
	x, _, err := a.Parse(c.Regex)
	if err != nil {
		t.Fatalf("%s: %v", glob, err)
	}
	d, err := dfa.Build(a, []dfa.Rule{{Expr: x, Accept: 1}}, func([]int32) (uint32, error) { return 1, nil }, dfa.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", glob, err)
	}
	return func(s string) bool { return d.Label[d.Match([]byte(s))] != 0 }
}

func TestNotPrefixedIsExact(t *testing.T) {
	for _, s := range []string{"k", "kernel/shm", "fs/cgroup/"} {
		match := matcher(t, "/x/"+notPrefixed(s))
		rapid.Check(t, func(t *rapid.T) {
			p := rapid.SampledFrom([]string{"", s, s[:len(s)/2], s[:len(s)-1]}).Draw(t, "start") +
				rapid.StringOfN(rapid.RuneFrom([]rune(s+"abz/0.")), 0, 12, -1).Draw(t, "rest")
			if got, want := match("/x/"+p), !strings.HasPrefix(p, s); got != want {
				t.Fatalf("%q: %v", p, got)
			}
		})
	}
}

func TestNotProcessIsExact(t *testing.T) {
	match := matcher(t, notProcess())
	isPID := func(s string) bool {
		var n int
		_, err := fmt.Sscanf(s, "%d", &n)
		return err == nil && fmt.Sprint(n) == s && n > 0 && n <= 9999999
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.OneOf(
			rapid.StringOfN(rapid.RuneFrom([]rune("0123456789")), 1, 10, -1),
			rapid.StringOfN(rapid.RuneFrom([]rune("01239sysva-.")), 1, 10, -1),
			rapid.SampledFrom([]string{"sys", "sysvipc", "self", "s", "sy", "thread-self", "sysrq-trigger", "0", "10000000"}),
		).Draw(t, "name")
		if got, want := match(p), !isPID(p) && p != "sys"; got != want {
			t.Fatalf("%q: %v", p, got)
		}
	})
}

// TestDockerDefault: the default profile resolves without any other file and
// denies what it is meant to.
func TestDockerDefault(t *testing.T) {
	f, diags := Parse("docker-default", ContainerProfile{}.Text())
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	roundTrip(t, "docker-default", f)
	policy, diags := Resolve(f, Env{})
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if len(policy.Profiles) != 1 || policy.Profiles[0].Name != DockerDefaultName {
		t.Fatalf("profiles: %v", policy.Profiles)
	}
	type rule struct {
		match func(string) bool
		deny  uint32
	}
	var rules []rule
	for _, r := range policy.Profiles[0].Rules {
		if b, ok := r.Body.(*FileBody); ok && r.Mode == ModeDeny {
			rules = append(rules, rule{matcher(t, b.Path), b.Perms})
		}
	}
	denied := func(path string, perm uint32) bool {
		for _, r := range rules {
			if r.deny&perm != 0 && r.match(path) {
				return true
			}
		}
		return false
	}
	for _, c := range []struct {
		path        string
		read, write bool // allowed
	}{
		{"/etc/passwd", true, true},
		{"/proc/1/oom_score_adj", true, true},
		{"/proc/4194304/task/7/comm", true, true},
		{"/proc/12345678/x", true, false},
		{"/proc/sys/kernel/shmmax", true, true},
		{"/proc/sys/kernel/core_pattern", true, false},
		{"/proc/sys/kernel/sxm", true, false},
		{"/proc/sys/kernel/xhm", true, false},
		{"/proc/sys/kernel/sh", true, false},
		{"/proc/sys/kernel/keys/maxkeys", true, false},
		{"/proc/sys/vm/overcommit_memory", true, false},
		{"/proc/sys/k", true, false},
		{"/proc/sysvipc/shm", true, false},
		{"/proc/irq/1/smp_affinity", true, false},
		{"/proc/bus/pci", true, false},
		{"/proc/1a/x", true, false},
		{"/proc/kcore", false, false},
		{"/proc/sysrq-trigger", false, false},
		{"/sys/fs/cgroup/x/cgroup.procs", true, true},
		{"/sys/fs/cgroupx/y", true, false},
		{"/sys/fs/bpf/x", true, false},
		{"/sys/kernel/mm/ksm/run", true, false},
		{"/sys/kernel/security/apparmor/.load", false, false},
		{"/sys/firmware/efi/efivars/x", false, false},
		{"/sys/devices/virtual/powercap/intel-rapl/energy_uj", false, false},
		{"/sys/module", true, false},
	} {
		if got := !denied(c.path, MayRead); got != c.read {
			t.Errorf("read %s: %v", c.path, got)
		}
		if got := !denied(c.path, MayWrite); got != c.write {
			t.Errorf("write %s: %v", c.path, got)
		}
	}
}

// TestContainerProfileNames: names that mean something in globs stay names.
func TestContainerProfileNames(t *testing.T) {
	for _, name := range []string{"c-1", "a b", "x*y", "q{1,2}", `b\s`, "quo\"te", "ü", "a,b", "[z]", "^c"} {
		text := ContainerProfile{Name: name, Senders: []string{"my engine"}}.Text()
		f, diags := Parse("p", text)
		if diags.HasErrors() {
			t.Fatalf("%q: %v\n%s", name, diags, text)
		}
		p, diags := Resolve(f, Env{})
		if diags.HasErrors() {
			t.Fatalf("%q: %v\n%s", name, diags, text)
		}
		for _, r := range p.Profiles[0].Rules {
			if b, ok := r.Body.(*SignalBody); ok && b.Perms == signalAll {
				if m := matcher(t, b.Peer.Value); !m(name) || m("x11y") {
					t.Errorf("%q: the peer %q is another", name, b.Peer.Value)
				}
			}
		}
	}
}
