// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
)

func template(t testing.TB, text, name string) *Template {
	t.Helper()
	file, diags := apparmor.Parse("template", []byte(text))
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	f := Portable()
	policy, diags := apparmor.Resolve(file, apparmor.Env{Kernel: f, ABI: f})
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	tmpl, err := New(Options{Kernel: f}).Template(policy, name)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func fileRule(path string, perms uint32, mode apparmor.Mode) *apparmor.ResolvedRule {
	return &apparmor.ResolvedRule{Mode: mode, Body: &apparmor.FileBody{Path: path, Perms: perms}}
}

// TestSpecialise compares a specialised template with the same text compiled
// under the other name.
func TestSpecialise(t *testing.T) {
	for _, tt := range []struct {
		text, name, rules string
		extra             []*apparmor.ResolvedRule
	}{
		{containerProfile(t), "docker-default", "", nil},
		{containerProfile(t), "docker-default", "  /data/** r,\n  deny /proc/acpi/** w,\n", []*apparmor.ResolvedRule{
			fileRule("/data/**", apparmor.MayRead, apparmor.ModeAllow),
			{Mode: apparmor.ModeDeny, Audit: apparmor.AuditQuiet, Body: &apparmor.FileBody{Path: "/proc/acpi/**", Perms: apparmor.MayWrite | apparmor.MayAppend}},
		}},
		{"profile docker-default {\n  network,\n /x cx -> kid, change_profile -> docker-default, profile kid { /k r, } }\n", "docker-default", "", nil},
	} {
		const name = "c-0123456789ab"
		got, err := template(t, tt.text, tt.name).Specialise(name, tt.extra...)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(tt.text, "docker-default", name)
		text = strings.Replace(text, "  network,\n", "  network,\n"+tt.rules, 1)
		want := compileText(t, text, Options{Kernel: Portable()}, apparmor.Env{})
		g, err := blob.Encode(got.Blob)
		if err != nil {
			t.Fatal(err)
		}
		w, err := blob.Encode(want.Profiles[0].Blob)
		if err != nil {
			t.Fatal(err)
		}
		if err := compareProfiles(got.Blob, want.Profiles[0].Blob); err != nil {
			t.Errorf("%s: %v", tt.rules, err)
		}
		if len(tt.extra) == 0 && !bytes.Equal(g, w) {
			t.Errorf("%.40s: %d and %d bytes differ", tt.text, len(g), len(w))
		}
	}
	if _, err := template(t, containerProfile(t), "docker-default").Specialise("a\nb"); err == nil {
		t.Error("a name of two lines is taken")
	}
}

// BenchmarkSpecialise is one container's profile from a compiled template, to
// binary policy.
func BenchmarkSpecialise(b *testing.B) {
	tmpl := template(b, containerProfile(b), "docker-default")
	for _, bb := range []struct {
		name  string
		extra []*apparmor.ResolvedRule
	}{{"name", nil}, {"paths", []*apparmor.ResolvedRule{
		fileRule("/var/lib/data/**", apparmor.MayRead, apparmor.ModeAllow),
		fileRule("/proc/acpi/**", apparmor.MayWrite|apparmor.MayAppend, apparmor.ModeDeny),
	}}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				p, err := tmpl.Specialise("c-0123456789abcdef", bb.extra...)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := blob.Encode(p.Blob); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestStateRules: each state of an automaton is one of a rule, and of the right
// one.
func TestStateRules(t *testing.T) {
	p := compileText(t, "profile p { /etc/** r, /usr/bin/x px -> y, deny /etc/shadow w, signal peer=z, }", Options{Kernel: Portable()}, apparmor.Env{}).Profiles[0]
	for _, a := range []struct {
		kind  blob.Kind
		input string
		want  string
	}{
		{blob.KindFile, "/etc/", "/etc/** r,"},
		{blob.KindFile, "/usr/b", "/usr/bin/x px -> y,"},
		{blob.KindFile, "/etc/shadow", "deny /etc/shadow w,"},
		{blob.KindPolicy, "\x0a", "signal peer=z,"},
	} {
		table := p.Blob.File.Table
		if a.kind == blob.KindPolicy {
			table = p.Blob.PolicyDB.Table
		}
		s := uint32(1)
		for i := range len(a.input) {
			s = table.Step(s, int(a.input[i]))
		}
		found := false
		for _, r := range p.StateRules(a.kind, s) {
			found = found || r.Source != nil && strings.Contains(apparmor.String(r.Source), a.want)
		}
		if !found {
			t.Errorf("state %d of %q: %d rules, want %s", s, a.input, len(p.StateRules(a.kind, s)), a.want)
		}
	}
	if rules := p.StateRules(blob.KindFile, 0); rules != nil {
		t.Errorf("the trap has rules: %v", rules)
	}
}
