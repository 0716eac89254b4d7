// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

func TestParseErrors(t *testing.T) {
	rule := func(s string) string { return "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\n \"syscalls\":[" + s + "]}" }
	tests := []struct{ name, in, want string }{
		{"empty", "", "p:1:1: the text ends in the middle"},
		{"not json", "hello", "p:1:1: want a value"},
		{"null", "null", "p:1:1: profile: want an object"},
		{"array", "[]", "p:1:1: profile: want an object, not an array"},
		{"behind the end", `{"defaultAction":"SCMP_ACT_ALLOW"} x`, "p:1:36: something is behind the end"},
		{"cut", `{"defaultAction":`, "p:1:18: the text ends"},
		{"no default", `{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, "p:1:1: the profile has no defaultAction"},
		{"unknown default", `{"defaultAction":"SCMP_ACT_DENY"}`, `p:1:18: defaultAction: unknown action "SCMP_ACT_DENY"`},
		{"default notify", `{"defaultAction":"SCMP_ACT_NOTIFY"}`, "p:1:18: SCMP_ACT_NOTIFY cannot be the default action"},
		{"default errno unused", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "p:1:35: defaultErrnoRet with SCMP_ACT_ALLOW, which takes no error number"},
		{"arch twice", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "p:1:69: both 'architectures' and 'archMap'"},
		{"unknown arch", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}`, `p:1:52: unknown architecture "SCMP_ARCH_VAX"`},
		{"unknown flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}`, `p:1:44: unknown flag "X"`},
		{"name and names", rule(`{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}`), "p:2:22: both 'name' and 'names'"},
		{"empty name", rule(`{"names":[""],"action":"SCMP_ACT_ALLOW"}`), "p:2:24: an empty string names no system call"},
		{"no action", rule(`{"names":["a"]}`), "p:2:14: the rule has no action"},
		{"errno unused", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","errnoRet":1}`), "p:2:55: errnoRet with SCMP_ACT_ALLOW"},
		{"index", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}`), "p:2:72: index 6"},
		{"operator", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":0,"op":"EQ"}]}`), `p:2:89: unknown operator "EQ"`},
		{"negative", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":-1,"op":"SCMP_CMP_EQ"}]}`), "p:2:82: value: want a whole number"},
		{"too big", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":18446744073709551616,"op":"SCMP_CMP_EQ"}]}`), "p:2:82: value: want a whole number"},
		{"fraction", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":1.5,"op":"SCMP_CMP_EQ"}]}`), "p:2:82: value: want a whole number"},
		{"type of names", rule(`{"names":"a","action":"SCMP_ACT_ALLOW"}`), "p:2:23: names: want an array, not a string"},
		{"minKernel", rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8.1"}}`), "p:2:79: minKernel: want MAJOR.MINOR"},
		{"write notify", rule(`{"names":["write"],"action":"SCMP_ACT_NOTIFY"}`), "p:2:24: SCMP_ACT_NOTIFY cannot be used for write"},
		{"duplicate key", `{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_ERRNO"}`, `p:1:35: key "defaultAction" is there twice`},
		{"metadata", `{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}`, "listenerMetadata without listenerPath"},
		{"deep", strings.Repeat("[", 100), "nested more than 64 deep"},
		{"deep unknown", `{"x":` + strings.Repeat("[", 100), "nested more than 64 deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("p", []byte(tt.in))
			var list diag.List
			if !errors.As(err, &list) {
				t.Fatalf("got %v, want a diag.List", err)
			}
			all := ""
			for _, d := range list {
				all += d.Error() + "\n"
			}
			if !strings.Contains(all, tt.want) {
				t.Errorf("got\n%swant %q", all, tt.want)
			}
		})
	}
}

// All errors are reported, not only the first.
func TestParseAllErrors(t *testing.T) {
	_, err := Parse("p", []byte(`{"defaultAction":"X","architectures":["Y"],"syscalls":[{"names":["a"],"action":"Z"},{"names":["b"]}]}`))
	var list diag.List
	if !errors.As(err, &list) || len(list) != 4 {
		t.Fatalf("got %v", err)
	}
}

func u(n uint) *uint { return &n }

func TestResolve(t *testing.T) {
	const text = `{
 "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
 "archMap": [{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
             {"architecture":"SCMP_ARCH_RISCV64","subArchitectures":null}],
 "syscalls": [
  {"name":"read","action":"SCMP_ACT_ALLOW","args":null,"comment":"c"},
  {"names":["mount","umount2"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
  {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390x"]}},
  {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
  {"names":["arch_prctl"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}},
  {"names":["syslog"],"action":"SCMP_ACT_ERRNO","errno":"EACCES"},
  {"names":["old"],"action":"SCMP_ACT_LOG","excludes":{"minKernel":"5.0"}}
 ]}`
	p, err := Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		host  Host
		archs string
		names string
	}{
		{"amd64", Host{Native: syscalls.X86_64, Kernel: syscalls.V(6, 1, 0)}, "amd64 x86 x32", "read clone ptrace arch_prctl syslog"},
		{"capability", Host{Native: syscalls.X86_64, Kernel: syscalls.V(6, 1, 0), Caps: []string{"sys_admin"}}, "amd64 x86 x32", "read mount umount2 ptrace arch_prctl syslog"},
		{"all capabilities", Host{Native: syscalls.X86_64, AllCaps: true}, "amd64 x86 x32", "read mount umount2 ptrace arch_prctl syslog"},
		{"old kernel", Host{Native: syscalls.X86_64, Kernel: syscalls.V(4, 7, 9)}, "amd64 x86 x32", "read clone arch_prctl syslog old"},
		{"same kernel", Host{Native: syscalls.X86_64, Kernel: syscalls.V(4, 8, 0)}, "amd64 x86 x32", "read clone ptrace arch_prctl syslog old"},
		{"riscv64", Host{Native: syscalls.RISCV64}, "riscv64", "read clone ptrace syslog"},
		{"s390x", Host{Native: syscalls.S390X}, "", "read ptrace syslog"},
		{"given", Host{Native: syscalls.ARM64, Archs: []syscalls.Arch{syscalls.ARM64, syscalls.ARM}}, "arm64 arm", "read clone ptrace syslog"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := p.Resolve(tt.host)
			if err != nil {
				t.Fatal(err)
			}
			var archs, names []string
			for _, a := range f.Archs {
				archs = append(archs, a.String())
			}
			for _, r := range f.Rules {
				for _, n := range r.Names {
					names = append(names, n.Text)
				}
			}
			if got := strings.Join(archs, " "); got != tt.archs {
				t.Errorf("architectures %q, want %q", got, tt.archs)
			}
			if got := strings.Join(names, " "); got != tt.names {
				t.Errorf("names %q, want %q", got, tt.names)
			}
		})
	}
	f, err := p.Resolve(Host{Native: syscalls.RISCV64, Kernel: syscalls.V(4, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want := &LinuxSeccomp{
		DefaultAction: "SCMP_ACT_ERRNO", DefaultErrnoRet: u(38), Architectures: []string{"SCMP_ARCH_RISCV64"},
		Syscalls: []LinuxSyscall{
			{Names: []string{"read"}, Action: "SCMP_ACT_ALLOW"},
			{Names: []string{"clone"}, Action: "SCMP_ACT_ALLOW", Args: []LinuxSeccompArg{{0, 2114060288, 0, "SCMP_CMP_MASKED_EQ"}}},
			{Names: []string{"syslog"}, Action: "SCMP_ACT_ERRNO", ErrnoRet: u(13)},
			{Names: []string{"old"}, Action: "SCMP_ACT_LOG"},
		},
	}
	if diff := cmp.Diff(want, f.OCI()); diff != "" {
		t.Error(diff)
	}
}

func TestParseConfigJSON(t *testing.T) {
	p, err := Parse("config.json", []byte(`{"ociVersion":"1.2.0","process":{"args":["a"]},"linux":{"namespaces":[],"seccomp":{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != cbpf.KillProcess || len(p.Rules) != 1 || len(p.Warnings()) != 0 {
		t.Errorf("got %+v %v", p, p.Warnings())
	}
	if p, err := Parse("config.json", []byte(`{"ociVersion":"1.2.0","linux":{}}`)); err != nil || !p.Disabled() {
		t.Errorf("without seccomp: %v %v", p, err)
	}
}

// What goes out as OCI JSON reads back as the same.
func TestOCIRoundTrip(t *testing.T) {
	for _, h := range []Host{{Native: syscalls.X86_64}, {Native: syscalls.ARM64, AllCaps: true}, {Native: syscalls.S390X}, {Native: syscalls.PPC64LE}} {
		f, err := Docker().Resolve(h)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(f.OCI())
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse("again", text)
		if err != nil {
			t.Fatal(err)
		}
		g, err := p.Resolve(h)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f.OCI(), g.OCI()); diff != "" {
			t.Errorf("%v: %s", h.Native, diff)
		}
	}
}

func TestDockerEntries(t *testing.T) {
	f, err := Docker().Resolve(Host{Native: syscalls.X86_64, Caps: []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range f.Rules {
		n += len(r.Names)
	}
	if n != 404 || len(f.Archs) != 3 || len(Docker().Warnings()) != 0 {
		t.Errorf("%d entries for %v, warnings %v; want 404 for three", n, f.Archs, Docker().Warnings())
	}
}
