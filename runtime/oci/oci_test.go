// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// engines are configurations that engines have written, for /bin/true with their
// defaults; the list of system calls in a seccomp profile is cut.
var engines = []string{"runc", "docker", "docker-privileged", "podman", "containerd"}

func confinement(p policy.Policy, mode bundle.SeccompMode) bundle.Confinement {
	c := bundle.Confinement{
		Policy: p, ID: "c1", Level: "s0:c3,c9", Seccomp: mode,
		ProcessLabel: "system_u:system_r:container_t:s0:c3,c9", MountLabel: "system_u:object_r:container_file_t:s0:c3,c9",
		AppArmorProfile: "docker-default",
	}
	switch mode {
	case bundle.SeccompInit:
		c.Init = "/proc/self/fd/3"
	case bundle.SeccompRuntime:
		c.Filter = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	case bundle.SeccompKeep:
	}
	return c
}

func read(t testing.TB, engine string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", engine+".config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden edits real configurations; the golden files hold what becomes of
// them.
func TestGolden(t *testing.T) {
	for _, engine := range engines {
		for name, c := range map[string]bundle.Confinement{
			"default": confinement(policy.Default(), bundle.SeccompInit),
			"strict":  confinement(policy.Strict(), bundle.SeccompRuntime),
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				raw := read(t, engine)
				out, _, err := Edit(raw, c)
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if err := json.Indent(&got, out, "", " "); err != nil {
					t.Fatal(err)
				}
				got.WriteByte('\n')
				golden := filepath.Join("testdata", engine+"."+name+".golden.json")
				if *update {
					if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got.String()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestIdempotent(t *testing.T) {
	for _, engine := range engines {
		for _, mode := range []bundle.SeccompMode{bundle.SeccompKeep, bundle.SeccompRuntime, bundle.SeccompInit} {
			c := confinement(policy.Default(), mode)
			once, _, err := Edit(read(t, engine), c)
			if err != nil {
				t.Fatal(err)
			}
			twice, _, err := Edit(once, c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(once, twice) {
				t.Errorf("%s, mode %d: %s", engine, mode, cmp.Diff(string(once), string(twice)))
			}
		}
	}
}

// TestOnlyTightens wants nothing in the outcome that the engine had not allowed.
func TestOnlyTightens(t *testing.T) {
	for _, engine := range engines {
		before, err := Decode(read(t, engine))
		if err != nil {
			t.Fatal(err)
		}
		_, after, err := Edit(read(t, engine), confinement(policy.Default(), bundle.SeccompInit))
		if err != nil {
			t.Fatal(err)
		}
		b, a := before.Process.Capabilities, after.Process.Capabilities
		for _, s := range [][2][]string{{b.Bounding, a.Bounding}, {b.Effective, a.Effective}, {b.Permitted, a.Permitted}, {b.Inheritable, a.Inheritable}, {b.Ambient, a.Ambient}} {
			had, _ := caps.ParseSet(s[0])
			has, _ := caps.ParseSet(s[1])
			if !has.SubsetOf(had) || !has.SubsetOf(caps.Docker) {
				t.Errorf("%s: capabilities %v became %v", engine, had, has)
			}
		}
		for _, p := range slices.Concat(before.Linux.MaskedPaths, policy.Default().MaskedPaths) {
			if !slices.Contains(after.Linux.MaskedPaths, p) {
				t.Errorf("%s: %s is not masked", engine, p)
			}
		}
		if !after.Process.NoNewPrivileges {
			t.Errorf("%s: new privileges", engine)
		}
	}
}

// TestKeepsWhatItDoesNotOwn puts members of a later specification everywhere.
func TestKeepsWhatItDoesNotOwn(t *testing.T) {
	const in = `{"ociVersion":"9.9","future":{"a":[1,2.50,1e3]},"process":{"args":["x"],"cwd":"/","user":{"uid":0,"gid":0,"fresh":1},"novel":true},` +
		`"root":{"path":"r","later":"x"},"linux":{"newer":[{}],"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","unheard":1}}}`
	out, _, err := Edit([]byte(in), confinement(policy.Default(), bundle.SeccompKeep))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"future":{"a":[1,2.50,1e3]}`, `"novel":true`, `"fresh":1`, `"later":"x"`, `"newer":[{}]`, `"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","unheard":1}`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is gone from %s", want, out)
		}
	}
}

func TestEngineLabelStays(t *testing.T) {
	const in = `{"process":{"args":["x"],"selinuxLabel":"u:r:t:s0:c1,c2","apparmorProfile":"mine"},"linux":{"mountLabel":"u:r:f:s0:c1,c2"}}`
	_, s, err := Edit([]byte(in), confinement(policy.Default(), bundle.SeccompInit))
	if err != nil {
		t.Fatal(err)
	}
	if s.Process.SelinuxLabel != "u:r:t:s0:c1,c2" || s.Linux.MountLabel != "u:r:f:s0:c1,c2" || s.Process.ApparmorProfile != "mine" {
		t.Errorf("labels are now %q, %q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel, s.Process.ApparmorProfile)
	}
}

func TestEditProcess(t *testing.T) {
	const in = `{"terminal":true,"user":{"uid":5},"args":["sh"],"capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_CHOWN"]},"apparmorProfile":"unconfined","odd":[1]}`
	out, err := EditProcess([]byte(in), confinement(policy.Default(), bundle.SeccompInit))
	if err != nil {
		t.Fatal(err)
	}
	p, err := DecodeProcess(out)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Args, []string{"/proc/self/fd/3", "sh"}) || !p.NoNewPrivileges || p.ApparmorProfile != "docker-default" ||
		!slices.Equal(p.Capabilities.Bounding, []string{"CAP_CHOWN"}) || !p.Terminal || p.User.UID != 5 || !bytes.Contains(out, []byte(`"odd":[1]`)) {
		t.Errorf("got %s", out)
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"{\n  \"process\": {\n    \"args\": oops", "line 3"},
		{`{"process": {"args": 7}}`, "line 1"},
		{"", "line 1"},
		{`{}`, "no process"},
		{`[]`, "line 1"},
	} {
		_, _, err := Edit([]byte(tt.in), confinement(policy.Default(), bundle.SeccompInit))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.in, err, tt.want)
		}
	}
	var syntax *SyntaxError
	if _, err := Decode([]byte("{\n x")); !errors.As(err, &syntax) || syntax.Line != 2 {
		t.Errorf("got %v, want a place in line 2", err)
	}
}

func FuzzEdit(f *testing.F) {
	for _, engine := range engines {
		f.Add(read(f, engine))
	}
	f.Add([]byte(`{"process":{},"linux":null,"root":null,"annotations":null}`))
	c := confinement(policy.Default(), bundle.SeccompInit)
	f.Fuzz(func(t *testing.T, raw []byte) {
		once, _, err := Edit(raw, c)
		if err != nil {
			return
		}
		twice, s, err := Edit(once, c)
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, once)
		}
		if !bytes.Equal(once, twice) {
			t.Errorf("not idempotent:\n%s\n%s", once, twice)
		}
		if !s.Process.NoNewPrivileges || len(s.Process.Args) == 0 || s.Process.Args[0] != c.Init {
			t.Errorf("not confined: %s", twice)
		}
	})
}
