// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	texttemplate "text/template"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
)

func build(t testing.TB, p policy.Policy, name string, readOnly ...string) *blob.Profile {
	t.Helper()
	b, err := newBuilder(Shape{Policy: p}, compile.Portable())
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Build(name, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	list, err := blob.Decode(data)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d profiles, %v", len(list), err)
	}
	return list[0]
}

func may(p *blob.Profile, r decide.Request) bool {
	return decide.May([]*blob.Profile{p}, r, nil).Allowed
}

func TestNames(t *testing.T) {
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"web", "a.b-c_d+e", strings.Repeat("f", 64)} {
		name := Name(dir, id)
		if got, ok := keyOf(dir, name); !ok || got != id {
			t.Errorf("%s: %q %v", name, got, ok)
		}
		if _, ok := keyOf(other, name); ok {
			t.Errorf("%s belongs to another directory too", name)
		}
	}
	for _, name := range []string{"docker-default", "palisade-", "palisade-web", "palisade-web//&unconfined", "palisade-x y@00000000"} {
		if id, ok := keyOf(dir, name); ok {
			t.Errorf("%q is taken for the profile of %q", name, id)
		}
	}
}

// TestOwnPeers: a container's processes reach each other and no other
// container's, by signal and by ptrace.
func TestOwnPeers(t *testing.T) {
	for _, name := range policy.BuiltinNames() {
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		own := build(t, p, "palisade-a.b")
		const send, receive, trace, read, tracedby = 2, 4, 2, 4, 8
		for _, tt := range []struct {
			peer                          string
			send, receive, trace, traceby bool
		}{
			{"palisade-a.b", true, true, true, true},
			{"palisade-a.b//&unconfined", true, true, true, true},
			{"palisade-axb", false, false, false, false},
			{"palisade-a.bc", false, false, false, false},
			{"palisade-template", false, false, false, false},
			{"docker-default", false, false, false, false},
			{"unconfined", false, true, false, true},
			{"runc", false, true, false, false},
		} {
			traces := p.Process.Ptrace != "none"
			if got := may(own, decide.Signal(9, tt.peer, send)); got != tt.send {
				t.Errorf("%s: send to %s: %v", name, tt.peer, got)
			}
			if got := may(own, decide.Signal(9, tt.peer, receive)); got != tt.receive {
				t.Errorf("%s: receive from %s: %v", name, tt.peer, got)
			}
			if got := may(own, decide.Ptrace(tt.peer, trace)); got != (tt.trace && traces) {
				t.Errorf("%s: trace %s: %v", name, tt.peer, got)
			}
			if got := may(own, decide.Ptrace(tt.peer, read)); got != tt.trace {
				t.Errorf("%s: read %s: %v", name, tt.peer, got)
			}
			if got := may(own, decide.Ptrace(tt.peer, tracedby)); got != (tt.traceby && (traces || tt.peer == "unconfined")) {
				t.Errorf("%s: traced by %s: %v", name, tt.peer, got)
			}
		}
	}
}

// TestOwnPaths: paths of the policy and of the container.
func TestOwnPaths(t *testing.T) {
	own := build(t, policy.Default(), "palisade-x", "/data set/[1]", "/etc/x/")
	for _, tt := range []struct {
		path        string
		read, write bool
	}{
		{"/data set/[1]", true, false},
		{"/data set/[1]/", true, false},
		{"/data set/[1]/a/b", true, false},
		{"/data set/1/a", true, true},
		{"/data set/[1]a", true, true},
		{"/etc/x/y", true, false},
		{"/etc/xy", true, true},
		{"/proc/acpi/wakeup", false, false},
		{"/proc/keys", false, false},
		{"/proc/bus/pci/00", true, false},
		{"/proc/1/comm", true, true},
		{"/tmp/x", true, true},
	} {
		for perm, want := range map[uint32]bool{blob.MayRead: tt.read, blob.MayWrite: tt.write} {
			if got := may(own, decide.File(tt.path, perm, true)); got != want {
				t.Errorf("%s %d: %v", tt.path, perm, got)
			}
		}
	}
	if may(own, decide.Capability(21)) || !may(own, decide.Capability(0)) {
		t.Error("capabilities are not those of the policy: want chown and not sys_admin")
	}
	strict := build(t, policy.Strict(), "palisade-x")
	if strict.Caps.Allow != 0 {
		t.Errorf("strict has capabilities %#x", strict.Caps.Allow)
	}
	const stream = 1
	if may(strict, decide.Network(apparmor.ClassNetV8, 2, stream, apparmor.NetCreate)) || !may(strict, decide.Network(apparmor.ClassNetV8, 1, stream, apparmor.NetCreate)) {
		t.Error("strict has sockets of other families than unix")
	}
}

// TestConfirmProfile: the text of a container's profile is one that the reference
// compiler accepts.
func TestConfirmProfile(t *testing.T) {
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	for _, name := range policy.BuiltinNames() {
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(parser, "-Q", "-K", "-S", "-q", "-b", "/etc/apparmor.d", "--features-file", "/usr/share/apparmor-features/features")
		cmd.Stdin = bytes.NewReader(bytes.Replace(Shape{Policy: p}.Text("palisade-x"), []byte("abi <abi/3.0>,\n"), nil, 1))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if out, err := cmd.Output(); err != nil || len(out) == 0 {
			t.Errorf("%s: %v %s", name, err, stderr.Bytes())
		}
	}
}

// TestCovers: ours takes the place of an engine's profile when it allows nothing
// that the engine's denies, and only then.
func TestCovers(t *testing.T) {
	generated, err := os.ReadFile(filepath.Join(oracle.ModuleRoot(t), "apparmor/testdata/docker-default"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, from, to, why string }{
		{"as generated", "", "", ""},
		{"a file that ours allows", "deny mount,", "deny mount,\n deny /etc/secret r,", "read /etc/secret"},
		{"a capability", "  capability,", "  capability setuid,", "capabilities"},
		{"a socket", "  network,", "  network inet,", "network"},
		{"no signals among themselves", "signal (send,receive) peer=docker-default,", "", "signal"},
		{"no debugging", "ptrace (trace,read,tracedby,readby) peer=docker-default,", "", "ptrace"},
		{"other flags", "attach_disconnected,", "", "flags"},
		{"another program", "deny mount,", "/bin/x px -> y, deny mount,", "exec"},
	} {
		text := string(generated)
		if tt.from != "" {
			if !strings.Contains(text, tt.from) {
				t.Fatalf("%s: no %q", tt.name, tt.from)
			}
			text = strings.Replace(text, tt.from, tt.to, 1)
		}
		resolved, err := resolve([]byte(text), "moby", compile.Portable())
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		compiled, diags := compile.New(compile.Options{Kernel: compile.Portable()}).Compile(resolved)
		if err := diags.Err(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		raw, err := compiled.Encode()
		if err != nil {
			t.Fatal(err)
		}
		why, err := allowsMore(raw, Shape{Policy: policy.Default()}, apparmor.DockerDefaultName, compile.Portable())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if (why == "") != (tt.why == "") || !strings.Contains(why, tt.why) {
			t.Errorf("%s: %q, want %q in it", tt.name, why, tt.why)
		}
	}
}

// TestConfirmCovering holds the profiles that engines really generate to give way to
// ours, as it is or blind.
func TestConfirmCovering(t *testing.T) {
	for _, e := range []struct {
		module, file, name string
		shape              int // of those that are tried
	}{
		{"github.com/moby/profiles/apparmor@v0.1.0", "template.go", "docker-default", 0},
		{"github.com/containerd/containerd/v2@v2.4.2", "contrib/apparmor/template.go", "cri-containerd.apparmor.d", 0},
		{"github.com/containers/common@v0.62.0", "pkg/apparmor/apparmor_linux_template.go", "containers-default-0.62.0", 1},
	} {
		t.Run(e.name, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(oracle.Module(t, e.module), e.file))
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile("(?s)emplate = `(.*?)`").FindSubmatch(source)
			if m == nil {
				t.Fatalf("no template in %s", e.file)
			}
			tmpl, err := texttemplate.New("profile").Parse(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := tmpl.Execute(&text, map[string]any{
				"Abi": "abi/3.0", "Name": e.name, "DaemonProfile": "unconfined", "RootlessKit": "", "Version": 300000,
				"Imports": []string{"#include <tunables/global>"}, "InnerImports": []string{"#include <abstractions/base>"},
			}); err != nil {
				t.Fatal(err)
			}
			resolved, err := resolve(text.Bytes(), e.name, compile.Portable())
			if err != nil {
				t.Fatal(err)
			}
			compiled, diags := compile.New(compile.Options{Kernel: compile.Portable()}).Compile(resolved)
			if err := diags.Err(); err != nil {
				t.Fatal(err)
			}
			raw, err := compiled.Encode()
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range tighter(Shape{Policy: policy.Default()}) {
				why, err := allowsMore(raw, s, e.name, compile.Portable())
				if err != nil {
					t.Fatal(err)
				}
				if (why == "") != (i >= e.shape) {
					t.Errorf("shape %d: %q", i, why)
				}
			}
		})
	}
}

// TestShape: mounts on masked paths, senders and blindness.
func TestShape(t *testing.T) {
	s := ShapeOf(Kernel{}, policy.Default(), []string{"/proc/acpi/x", "/proc/bus/", "/proc", "/proc/kcorex"})
	for path, want := range map[string]bool{"/proc/acpi": false, "/proc/kcore": true, "/proc/bus": false, "/proc/irq": true} {
		if got := slices.Contains(s.Policy.MaskedPaths, path) || slices.Contains(s.Policy.ReadOnlyPaths, path); got != want {
			t.Errorf("%s: denied %v, want %v", path, got, want)
		}
	}
	if !slices.Contains(policy.Default().MaskedPaths, "/proc/acpi") {
		t.Error("the policy itself was changed")
	}
	s.Senders, s.Blind = []string{"my engine"}, true
	b, err := newBuilder(s, compile.Portable())
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Build("palisade-x", nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := blob.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !may(list[0], decide.Signal(9, "my engine", 4)) || may(list[0], decide.Signal(9, "my engine", 2)) || may(list[0], decide.Signal(9, "my enginex", 4)) {
		t.Error("signals of the engine's profile: want received and not sent")
	}
	if may(list[0], decide.Ptrace("palisade-x", 4)) {
		t.Error("a blind container's processes look at each other")
	}
}

// BenchmarkOwn is the profile of one container from text to binary policy, and
// the part of it that is done for each container.
func BenchmarkOwn(b *testing.B) {
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			build(b, policy.Default(), "palisade-x")
		}
	})
	t, err := newBuilder(Shape{Policy: policy.Default()}, compile.Portable())
	if err != nil {
		b.Fatal(err)
	}
	for name, ro := range map[string][]string{"name": nil, "paths": {"/data", "/etc/x"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := t.Build("palisade-0123456789abcdef", ro); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
