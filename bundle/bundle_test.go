// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/target"
)

func testTarget() target.Target {
	k, _ := target.ParseKernel("6.12.0")
	return target.Target{
		Kernel: k, Arch: "x86_64",
		SELinux:  target.SELinux{State: target.Absent, Mode: "disabled"},
		AppArmor: target.AppArmor{State: target.Absent},
		Landlock: target.Landlock{State: target.Enforcing, ABI: 7},
		Seccomp:  target.Seccomp{State: target.Enforcing},
	}
}

func withSELinux(t target.Target, mode string) target.Target {
	t.SELinux = target.SELinux{
		State: target.Off, Mode: mode, ProcessContext: target.DefaultProcessContext, FileContext: target.DefaultFileContext,
	}
	if mode == "enforcing" {
		t.SELinux.State = target.Enforcing
	}
	return t
}

func withAppArmor(t target.Target, loaded map[string]string) target.Target {
	t.AppArmor = target.AppArmor{State: target.Enforcing, Loaded: loaded}
	return t
}

func request() Request {
	return Request{ID: "c", Level: "s0:c1,c2", Init: "/proc/self/fd/3", BlockDevices: true}
}

func TestResolveLabels(t *testing.T) {
	const process, file = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	unknown := testTarget()
	unknown.SELinux = target.SELinux{}
	odd := withSELinux(testTarget(), "enforcing")
	odd.SELinux.FileContext = ""
	for _, tt := range []struct {
		name                string
		host                target.Target
		level               string
		process, file, step string
		wrong               string
	}{
		{"off", testTarget(), "s0:c1,c2", "", "", "", ""},
		{"enforcing", withSELinux(testTarget(), "enforcing"), "s0:c1,c2", process, file, target.DefaultFileContext, ""},
		{"permissive", withSELinux(testTarget(), "permissive"), "s0:c1,c2", process, file, target.DefaultFileContext, ""},
		{"unknown", unknown, "s0:c1,c2", "", "", "", "could not tell"},
		{"no level", withSELinux(testTarget(), "enforcing"), "", "", "", "", "level"},
		{"no file context", odd, "s0:c1,c2", "", "", "", "file context"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			r.Level = tt.level
			p, err := Resolve(tt.host, policy.Default(), r)
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %v, want an error with %q", err, tt.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.ProcessLabel != tt.process || p.MountLabel != tt.file || p.StepLabel != tt.step {
				t.Errorf("labels %q, %q, %q", p.ProcessLabel, p.MountLabel, p.StepLabel)
			}
		})
	}
}

func TestResolveAppArmor(t *testing.T) {
	none := testTarget()
	empty := withAppArmor(testTarget(), map[string]string{})
	unread := withAppArmor(testTarget(), nil)
	docker := withAppArmor(testTarget(), map[string]string{"docker-default": "enforce", "own": "kill", "lax": "complain"})
	lax := withAppArmor(testTarget(), map[string]string{"docker-default": "complain", "own": "unconfined"})
	apparmor := []Layer{LayerAppArmor}
	for _, tt := range []struct {
		name     string
		host     target.Target
		required bool // by the policy
		profile  string
		engine   string
		require  []Layer
		want     string
		wrong    string
	}{
		{"off", none, false, "", "", nil, "", ""},
		{"off, required by the policy", none, true, "", "", nil, "", "AppArmor is off"},
		{"not loaded", empty, false, "", "", nil, "", ""},
		{"not loaded, required by the policy", empty, true, "", "", nil, "", "is not loaded"},
		{"loaded", docker, true, "", "", nil, "docker-default", ""},
		{"only logs", lax, false, "", "", nil, "", ""},
		{"only logs, required by the policy", lax, true, "", "", nil, "", "complain"},
		{"list unread, required by the policy", unread, true, "", "", nil, "", "could not be read"},
		{"own", docker, false, "own", "", nil, "own", ""},
		{"own, not loaded", empty, false, "own", "", nil, "", "is not loaded"},
		{"own, unconfined mode", lax, false, "own", "", nil, "", "unconfined"},
		{"own, AppArmor off", none, false, "own", "", nil, "", "AppArmor is off"},
		{"required by the owner, off", none, false, "", "", apparmor, "", "apparmor, which this host requires, is off"},
		{"required by the owner, no profile", empty, false, "", "", apparmor, "", "no profile"},
		{"required by the owner, only logs", lax, false, "", "", apparmor, "", "no profile"},
		{"required by the owner, list unread", unread, false, "", "", apparmor, "", "no profile"},
		{"required by the owner", docker, false, "", "", apparmor, "docker-default", ""},
		{"required by the owner, the engine's enforces", docker, false, "", "own", apparmor, "docker-default", ""},
		{"required by the owner, the engine's only logs", docker, false, "", "lax", apparmor, "", `"lax"`},
		{"required by the owner, the engine's is not loaded", docker, false, "", "gone", apparmor, "", `"gone"`},
		{"required by the owner, the engine's is none", docker, false, "", "unconfined", apparmor, "docker-default", ""},
		{"an unknown layer", docker, false, "", "", []Layer{"smack"}, "", `"smack"`},
		{"SELinux required, off", docker, false, "", "", []Layer{LayerSELinux}, "", "is off"},
		{"SELinux required, permissive", withSELinux(docker, "permissive"), false, "", "", []Layer{LayerSELinux}, "", "is permissive"},
		{"both required", withSELinux(docker, "enforcing"), false, "", "", []Layer{LayerSELinux, LayerAppArmor}, "docker-default", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pol := policy.Default()
			pol.AppArmor.Required = tt.required
			r := request()
			r.Profile, r.EngineProfile, r.Require = tt.profile, tt.engine, tt.require
			p, err := Resolve(tt.host, pol, r)
			if tt.wrong != "" {
				if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %v, want an error with %q", err, tt.wrong)
				}
				return
			}
			if err != nil || p.AppArmorProfile != tt.want {
				t.Errorf("profile %q, %v; want %q", p.AppArmorProfile, err, tt.want)
			}
		})
	}
}

// memory is a [Store] that counts.
type memory struct {
	kept          map[string][]byte
	loads, stores int
}

func (m *memory) Load(key string) ([]byte, bool) {
	m.loads++
	b, ok := m.kept[key]
	return b, ok
}

func (m *memory) Store(key string, value []byte) {
	m.stores++
	m.kept[key] = value
}

func TestCache(t *testing.T) {
	resolve := func(host target.Target, c Cache) string {
		t.Helper()
		r := request()
		r.Cache = c
		p, err := Resolve(host, policy.Default(), r)
		if err != nil {
			t.Fatal(err)
		}
		return p.Seccomp.SHA256[0]
	}
	m := &memory{kept: map[string][]byte{}}
	want := resolve(testTarget(), Cache{})
	for range 2 {
		if got := resolve(testTarget(), Cache{Store: m, Build: "a"}); got != want {
			t.Errorf("filter %s from the cache, want %s", got, want)
		}
	}
	if m.loads != 2 || m.stores != 1 {
		t.Errorf("%d loads, %d stores; want 2, 1", m.loads, m.stores)
	}
	// What a filter depends on is in its name.
	older := testTarget()
	older.Kernel, _ = target.ParseKernel("4.4.0")
	other := testTarget()
	other.Arch = "aarch64"
	for i, c := range []struct {
		host  target.Target
		build string
	}{{testTarget(), "b"}, {older, "a"}, {other, "a"}} {
		resolve(c.host, Cache{Store: m, Build: c.build})
		if m.stores != i+2 {
			t.Errorf("%d: the filter of another build or host was used", i)
		}
	}
	if resolve(testTarget(), Cache{Store: m}); m.stores != 4 || m.loads != 5 {
		t.Errorf("without the name of a build: %d loads, %d stores", m.loads, m.stores)
	}
	// A value that is damaged anywhere is compiled again.
	for key, b := range m.kept {
		for _, n := range []int{0, 4, 8, 16, len(b) / 2, len(b) - 1} {
			damaged := slices.Clone(b)
			damaged[n] ^= 1
			m.kept[key] = damaged
			if _, ok := decodeFilter(damaged); ok {
				t.Errorf("byte %d changed, and the filter is used", n)
			}
			if _, ok := decodeFilter(b[:n]); ok {
				t.Errorf("cut to %d bytes, and the filter is used", n)
			}
		}
	}
	if got := resolve(testTarget(), Cache{Store: m, Build: "a"}); got != want {
		t.Errorf("damaged cache: filter %s, want %s", got, want)
	}
}

func FuzzDecodeFilter(f *testing.F) {
	good := encodeFilter(Filter{Flags: 4, Program: []byte("12345678")})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := decodeFilter(b)
		if ok && !slices.Equal(encodeFilter(got), b) {
			t.Errorf("%x is read and written differently", b)
		}
	})
}

func TestResolveSeccomp(t *testing.T) {
	h := testTarget()
	docker, err := syscallFilter(h, policy.Default(), policy.Default().Capabilities)
	if err != nil {
		t.Fatal(err)
	}
	same, err := toSpec(docker)
	if err != nil {
		t.Fatal(err)
	}
	uses := policy.Default()
	uses.Syscalls.DenyUses = nil
	wider, err := syscallFilter(h, uses, uses.Capabilities)
	if err != nil {
		t.Fatal(err)
	}
	engines, err := toSpec(wider)
	if err != nil {
		t.Fatal(err)
	}
	other := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"ptrace"}, Action: specs.ActErrno}}}
	listener := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/l", Syscalls: []specs.LinuxSyscall{{Names: []string{"ptrace"}, Action: specs.ActNotify}}}
	stricter := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	privileged := policy.Default()
	privileged.Process.NewPrivileges = true
	tests := []struct {
		name    string
		policy  policy.Policy
		init    string
		engine  *specs.LinuxSeccomp
		mode    SeccompMode
		filters int
	}{
		{"ours, by the step", policy.Default(), "i", nil, SeccompInit, 1},
		{"the engine's is ours", policy.Default(), "i", same, SeccompInit, 1},
		{"the engine's is Docker's", policy.Default(), "i", engines, SeccompInit, 1},
		{"the engine's is another", policy.Default(), "i", other, SeccompInit, 2},
		{"the engine's has a listener", policy.Default(), "i", listener, SeccompKeep, 1},
		{"no step", policy.Default(), "", nil, SeccompRuntime, -1},
		{"no step, and the engine has ours", policy.Default(), "", same, SeccompKeep, -1},
		{"no step, and the engine has a stricter one", policy.Default(), "", stricter, SeccompKeep, -1},
		{"new privileges", privileged, "i", nil, SeccompRuntime, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			r.Init, r.Engine = tt.init, tt.engine
			p, err := Resolve(h, tt.policy, r)
			if err != nil {
				t.Fatal(err)
			}
			filters := -1
			if p.Step != nil {
				filters = len(p.Step.Filters)
			}
			if p.Confinement.Seccomp != tt.mode || filters != tt.filters {
				t.Errorf("mode %d with %d filters, want %d with %d", p.Confinement.Seccomp, filters, tt.mode, tt.filters)
			}
		})
	}
	// There is room for one filter, and the engine's allows what the policy denies.
	for _, p := range []policy.Policy{policy.Default(), privileged} {
		r := request()
		r.Engine, r.Init = other, ""
		if _, err := Resolve(h, p, r); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "allows more") {
			t.Errorf("a looser filter of the engine: %v", err)
		}
		r.Engine = listener
		if _, err := Resolve(h, p, r); !errors.Is(err, ErrMissing) {
			t.Errorf("a listener that allows more: %v", err)
		}
	}
	h.Seccomp.State = target.Absent
	if _, err := Resolve(h, policy.Default(), request()); !errors.Is(err, ErrMissing) {
		t.Errorf("a kernel without seccomp: %v", err)
	}
}

func TestSyscallFilter(t *testing.T) {
	rules := func(l *seccomp.LinuxSeccomp, name string) (out []seccomp.LinuxSyscall) {
		for _, s := range l.Syscalls {
			if slices.Contains(s.Names, name) {
				out = append(out, s)
			}
		}
		return out
	}
	strict, err := syscallFilter(testTarget(), policy.Strict(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := rules(strict, "socket"); len(got) != 1 || len(got[0].Args) != 1 || got[0].Args[0].Value != 1 {
		t.Errorf("socket under strict: %+v", got)
	}
	if got := rules(strict, "socketcall"); len(got) != 0 {
		t.Errorf("socketcall under strict: %+v", got)
	}
	if got := rules(strict, "ptrace"); len(got) != 0 {
		t.Errorf("ptrace under strict: %+v", got)
	}
	p := policy.Default()
	p.Syscalls.Deny, p.Syscalls.Allow = []string{"read"}, []string{"personality"}
	l, err := syscallFilter(testTarget(), p, p.Capabilities)
	if err != nil {
		t.Fatal(err)
	}
	if got := rules(l, "read"); len(got) != 0 {
		t.Errorf("a denied call is allowed: %+v", got)
	}
	if got := rules(l, "personality"); len(got) != 1 || len(got[0].Args) != 0 {
		t.Errorf("an allowed call keeps its conditions: %+v", got)
	}
	p.Network = &policy.Network{Families: []string{"pigeon"}}
	if _, err := syscallFilter(testTarget(), p, 0); !errors.Is(err, ErrFamily) {
		t.Errorf("an unknown family: %v", err)
	}
}
