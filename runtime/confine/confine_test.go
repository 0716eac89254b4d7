// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/seccomp"
)

func testHost() Host {
	return Host{
		ProcessContext: defaultProcessContext, FileContext: defaultFileContext,
		Loaded: func(string) bool { return false }, Landlock: 7, Seccomp: true, Kernel: "6.12.0",
	}
}

func request() Request { return Request{ID: "c", Level: "s0:c1,c2", Init: "/proc/self/fd/3"} }

func TestResolveLabels(t *testing.T) {
	h := testHost()
	p, err := Resolve(h, policy.Default(), request())
	if err != nil || p.ProcessLabel != "" || p.MountLabel != "" {
		t.Errorf("without SELinux: %q, %q, %v", p.ProcessLabel, p.MountLabel, err)
	}
	h.SELinux = true
	p, err = Resolve(h, policy.Default(), request())
	if err != nil || p.ProcessLabel != "system_u:system_r:container_t:s0:c1,c2" || p.MountLabel != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("with SELinux: %q, %q, %v", p.ProcessLabel, p.MountLabel, err)
	}
}

func TestResolveAppArmor(t *testing.T) {
	h := testHost()
	pol := policy.Default()
	if p, err := Resolve(h, pol, request()); err != nil || p.AppArmorProfile != "" {
		t.Errorf("off: %q, %v", p.AppArmorProfile, err)
	}
	pol.AppArmor.Required = true
	if _, err := Resolve(h, pol, request()); !errors.Is(err, ErrMissing) {
		t.Errorf("required and off: %v", err)
	}
	h.AppArmor = true
	if _, err := Resolve(h, pol, request()); !errors.Is(err, ErrMissing) {
		t.Errorf("required and not loaded: %v", err)
	}
	h.Loaded = func(name string) bool { return name == "docker-default" }
	if p, err := Resolve(h, pol, request()); err != nil || p.AppArmorProfile != "docker-default" {
		t.Errorf("loaded: %v", err)
	}
}

func TestResolveSeccomp(t *testing.T) {
	h := testHost()
	docker, err := syscallFilter(policy.Default(), policy.Default().Capabilities, h.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	same, err := toSpec(docker)
	if err != nil {
		t.Fatal(err)
	}
	other := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"ptrace"}, Action: specs.ActErrno}}}
	listener := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/l", Syscalls: []specs.LinuxSyscall{{Names: []string{"ptrace"}, Action: specs.ActNotify}}}
	privileged := policy.Default()
	privileged.Process.NewPrivileges = true
	tests := []struct {
		name    string
		policy  policy.Policy
		init    string
		engine  *specs.LinuxSeccomp
		mode    oci.SeccompMode
		filters int
	}{
		{"ours, by the step", policy.Default(), "i", nil, oci.SeccompInit, 1},
		{"the engine's is ours", policy.Default(), "i", same, oci.SeccompInit, 1},
		{"the engine's is another", policy.Default(), "i", other, oci.SeccompInit, 2},
		{"the engine's has a listener", policy.Default(), "i", listener, oci.SeccompKeep, 1},
		{"no step", policy.Default(), "", nil, oci.SeccompRuntime, -1},
		{"no step, and the engine has one", policy.Default(), "", other, oci.SeccompKeep, -1},
		{"new privileges", privileged, "i", nil, oci.SeccompRuntime, -1},
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
	h.Seccomp = false
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
	strict, err := syscallFilter(policy.Strict(), 0, "6.12.0")
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
	l, err := syscallFilter(p, p.Capabilities, "6.12.0")
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
	if _, err := syscallFilter(p, 0, "6.12.0"); !errors.Is(err, ErrFamily) {
		t.Errorf("an unknown family: %v", err)
	}
}

func TestLandlock(t *testing.T) {
	tests := []struct {
		name        string
		policy      policy.Policy
		abi         int
		hostNetwork bool
		want        *laststep.Landlock
		missing     []string
	}{
		{"default", policy.Default(), 7, false, &laststep.Landlock{HandledFS: llMakeBlock | llRefer, Paths: []laststep.PathRule{{Access: llRefer, Path: "/"}}}, nil},
		{"host network", policy.Default(), 7, true, &laststep.Landlock{HandledFS: llMakeBlock | llRefer, Scoped: llScopeAbstractUnix, Paths: []laststep.PathRule{{Access: llRefer, Path: "/"}}}, nil},
		{"host network, ABI 2", policy.Default(), 2, true, &laststep.Landlock{HandledFS: llMakeBlock | llRefer, Paths: []laststep.PathRule{{Access: llRefer, Path: "/"}}}, []string{"scopes"}},
		{"ABI 1", policy.Default(), 1, false, nil, []string{"landlock"}},
		{"none", policy.Default(), 0, false, nil, []string{"landlock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, missing, err := landlock(tt.policy, tt.abi, tt.hostNetwork, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(missing, tt.missing) {
				t.Errorf("missing %q, want %q", missing, tt.missing)
			}
			if (got == nil) != (tt.want == nil) {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
			if got != nil && (got.HandledFS != tt.want.HandledFS || got.HandledNet != tt.want.HandledNet || got.Scoped != tt.want.Scoped || !slices.Equal(got.Paths, tt.want.Paths)) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	// No rule may ask for a right that the domain does not handle: the kernel
	// refuses it.
	for abi := 2; abi <= 9; abi++ {
		got, _, err := landlock(policy.Strict(), abi, true, []string{"/data"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Paths {
			if r.Access&^got.HandledFS != 0 {
				t.Errorf("ABI %d: %s asks for %#x of %#x", abi, r.Path, r.Access, got.HandledFS)
			}
		}
	}
	p := policy.Strict()
	p.Files.Read = []string{"/a/*/b"}
	if _, _, err := landlock(p, 7, false, nil); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "/a/*/b") {
		t.Errorf("a pattern that Landlock cannot have: %v", err)
	}
}
