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
	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/strictjson"
	"github.com/palisade-sec/palisade/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// engines are configurations that engines have written, for /bin/true with their
// defaults; the list of system calls in a seccomp profile is cut.
var engines = []string{"runc", "docker", "docker-privileged", "podman", "containerd"}

const engineBundle = "/run/engine/bundle"

func confinement(p policy.Policy, mode bundle.SeccompMode) Confinement {
	c := Confinement{
		Policy: p, ID: "c1", Seccomp: mode,
		ProcessLabel: "system_u:system_r:container_t:s0:c3,c9", MountLabel: "system_u:object_r:container_file_t:s0:c3,c9",
		AppArmorProfile: "docker-default",
	}
	switch mode {
	case seccompInit:
		c.Init = "/proc/self/fd/3"
	case seccompRuntime:
		c.Filter = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	case seccompKeep:
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

// withoutFilter takes the engine's filter away, for modes that bring one.
func withoutFilter(t testing.TB, raw []byte) []byte {
	t.Helper()
	var c strictjson.Changes
	c.Remove("linux", "seccomp")
	out, err := c.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGolden edits real configurations; the golden files hold the result.
func TestGolden(t *testing.T) {
	for _, engine := range engines {
		for name, c := range map[string]Confinement{
			"default": confinement(policy.Default(), seccompInit),
			"strict":  confinement(policy.Strict(), seccompRuntime),
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				raw := read(t, engine)
				if c.Seccomp == seccompRuntime {
					raw = withoutFilter(t, raw)
				}
				out, _, err := Edit(raw, c, engineBundle)
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
		for _, mode := range []bundle.SeccompMode{seccompKeep, seccompRuntime, seccompInit} {
			c := confinement(policy.Default(), mode)
			raw := read(t, engine)
			if mode == seccompRuntime {
				raw = withoutFilter(t, raw)
			}
			once, first, err := Edit(raw, c, engineBundle)
			if err != nil {
				t.Fatal(err)
			}
			twice, second, err := Edit(once, c, "/elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(once, twice) {
				t.Errorf("%s, mode %d: %s", engine, mode, cmp.Diff(string(once), string(twice)))
			}
			checkTightens(t, raw, first, c)
			checkTightens(t, once, second, c)
		}
	}
}

func capSets(c *specs.LinuxCapabilities) map[string]caps.Set {
	out := map[string]caps.Set{}
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	for name, list := range map[string][]string{"bounding": c.Bounding, "effective": c.Effective, "permitted": c.Permitted, "inheritable": c.Inheritable, "ambient": c.Ambient} {
		var s caps.Set
		for _, n := range list {
			if x, err := caps.Parse(n); err == nil {
				s = s.With(x)
			}
		}
		out[name] = s
	}
	return out
}

// checkTightens wants nothing in the outcome that the engine or the policy had not
// allowed.
func checkTightens(t interface{ Errorf(string, ...any) }, raw []byte, after *specs.Spec, c Confinement) {
	before, err := decode(raw)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	had, has := capSets(before.Process.Capabilities), capSets(after.Process.Capabilities)
	for name := range has {
		if !has[name].SubsetOf(had[name]) || !has[name].SubsetOf(c.Policy.Capabilities) {
			t.Errorf("%s capabilities %v became %v", name, had[name], has[name])
		}
	}
	if has["inheritable"] != has["ambient"] || !has["ambient"].SubsetOf(has["permitted"]) {
		t.Errorf("inheritable %v, ambient %v, permitted %v", has["inheritable"], has["ambient"], has["permitted"])
	}
	if before.Linux == nil {
		before.Linux = &specs.Linux{}
	}
	for _, p := range slices.Concat(before.Linux.MaskedPaths, c.Policy.MaskedPaths) {
		if !slices.Contains(after.Linux.MaskedPaths, p) {
			t.Errorf("%s is not masked", p)
		}
	}
	for _, p := range slices.Concat(before.Linux.ReadonlyPaths, c.Policy.ReadOnlyPaths) {
		if !slices.Contains(after.Linux.ReadonlyPaths, p) {
			t.Errorf("%s is not read-only", p)
		}
	}
	if before.Process.NoNewPrivileges && !after.Process.NoNewPrivileges || !c.Policy.Process.NewPrivileges && !after.Process.NoNewPrivileges {
		t.Errorf("new privileges")
	}
	if before.Root.Readonly && !after.Root.Readonly {
		t.Errorf("the root can be written to")
	}
	if l := before.Process.SelinuxLabel; l != "" && l != after.Process.SelinuxLabel {
		t.Errorf("label %q became %q", l, after.Process.SelinuxLabel)
	}
	if p := before.Process.ApparmorProfile; p != "" && p != "unconfined" && p != after.Process.ApparmorProfile {
		t.Errorf("profile %q became %q", p, after.Process.ApparmorProfile)
	}
	if before.Linux.Seccomp != nil && after.Linux.Seccomp == nil {
		if c.Init == "" {
			t.Errorf("the filter is gone, and there is no last step")
		}
		if stays, why := filterStaysWithRuntime(before); stays {
			t.Errorf("the filter is gone, though %s", why)
		}
	}
	if c.Init != "" && (len(after.Process.Args) == 0 || after.Process.Args[0] != c.Init) {
		t.Errorf("args %q without the last step", after.Process.Args)
	}
	if !filepath.IsAbs(after.Root.Path) {
		t.Errorf("root %q", after.Root.Path)
	}
	for _, m := range after.Mounts {
		if bind, _ := isBind(m); bind && !filepath.IsAbs(m.Source) {
			t.Errorf("source %q", m.Source)
		}
	}
	if after.Annotations[annotationID] != c.ID {
		t.Errorf("annotations %v do not name the container", after.Annotations)
	}
}

// TestKeepsWhatItDoesNotOwn puts members of a later specification everywhere, in an
// order and layout of their own.
func TestKeepsWhatItDoesNotOwn(t *testing.T) {
	const in = "{ \"linux\" : {\"newer\":[ {} ],\"seccomp\": {\"defaultAction\":\"SCMP_ACT_ALLOW\",\"unheard\":1}},\n\t\"future\":{\"a\":[1,2.50,1e3]},\"process\":{\"args\":[\"x\"],\"cwd\":\"/\",\"user\":{\"uid\":0,\"gid\":0,\"fresh\":1},\"novel\":true},\n" +
		"\"root\":{\"path\":\"/r\",\"later\":\"\\u0078\"},\"ociVersion\":\"9.9\"}\n"
	c := confinement(policy.Default(), seccompKeep)
	c.Policy.MaskedPaths, c.Policy.ReadOnlyPaths = nil, nil
	out, _, err := Edit([]byte(in), c, engineBundle)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		`"unheard":1}}`, `"unheard":1},"mountLabel":"system_u:object_r:container_file_t:s0:c3,c9"}`,
		`"novel":true`, `"novel":true,"noNewPrivileges":true,"selinuxLabel":"system_u:system_r:container_t:s0:c3,c9","apparmorProfile":"docker-default","capabilities":{}`,
		`"9.9"}`, `"9.9","annotations":{"io.github.palisade-sec.id":"c1"}}`,
	).Replace(in)
	if string(out) != want {
		t.Error(cmp.Diff(want, string(out)))
	}
}

func TestEngineLabelStays(t *testing.T) {
	const in = `{"root":{"path":"r"},"process":{"args":["x"],"selinuxLabel":"u:r:t:s0:c1,c2","apparmorProfile":"mine"},"linux":{"mountLabel":"u:r:f:s0:c1,c2"}}`
	_, s, err := Edit([]byte(in), confinement(policy.Default(), seccompInit), engineBundle)
	if err != nil {
		t.Fatal(err)
	}
	if s.Process.SelinuxLabel != "u:r:t:s0:c1,c2" || s.Linux.MountLabel != "u:r:f:s0:c1,c2" || s.Process.ApparmorProfile != "mine" {
		t.Errorf("labels are now %q, %q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel, s.Process.ApparmorProfile)
	}
}

// TestAmbient takes capabilities that the engine left where a program would inherit
// them (CVE-2022-24769 and its kind).
func TestAmbient(t *testing.T) {
	allowed := caps.Of(caps.Chown, caps.Kill, caps.Setuid)
	for _, tt := range []struct{ name, in, inheritable, ambient string }{
		{"inheritable alone", `{"permitted":["CAP_CHOWN"],"inheritable":["CAP_CHOWN"]}`, "", ""},
		{"both", `{"permitted":["CAP_CHOWN","CAP_KILL"],"inheritable":["CAP_CHOWN","CAP_KILL"],"ambient":["CAP_KILL"]}`, "CAP_KILL", "CAP_KILL"},
		{"ambient, not inheritable", `{"permitted":["CAP_CHOWN"],"ambient":["CAP_CHOWN"]}`, "", ""},
		{"ambient, not permitted", `{"inheritable":["CAP_CHOWN"],"ambient":["CAP_CHOWN"]}`, "", ""},
		{"not allowed", `{"permitted":["CAP_SYS_ADMIN"],"inheritable":["CAP_SYS_ADMIN"],"ambient":["CAP_SYS_ADMIN"]}`, "", ""},
		{"no capability", `{"permitted":["CAP_X"],"inheritable":["CAP_X"],"ambient":["CAP_X"]}`, "", ""},
	} {
		c := confinement(policy.Default(), seccompKeep)
		c.Policy.Capabilities = allowed
		_, p, err := editProcess([]byte(`{"args":["x"],"capabilities":`+tt.in+`}`), c)
		if err != nil {
			t.Fatal(err)
		}
		if i, a := strings.Join(p.Capabilities.Inheritable, " "), strings.Join(p.Capabilities.Ambient, " "); i != tt.inheritable || a != tt.ambient {
			t.Errorf("%s: inheritable %q, ambient %q", tt.name, i, a)
		}
	}
}

func TestEditProcess(t *testing.T) {
	const in = `{"terminal":true,"user":{"uid":5},"args":["sh"],"capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_CHOWN"]},"apparmorProfile":"unconfined","odd":[1]}`
	out, p, err := editProcess([]byte(in), confinement(policy.Default(), seccompInit))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Args, []string{"/proc/self/fd/3", "sh"}) || !p.NoNewPrivileges || p.ApparmorProfile != "docker-default" ||
		!slices.Equal(p.Capabilities.Bounding, []string{"CAP_CHOWN"}) || !p.Terminal || p.User.UID != 5 || !bytes.Contains(out, []byte(`"odd":[1]`)) {
		t.Errorf("got %s", out)
	}
}

// TestProcessOfAnother wants an exec to have the container's label and profile.
func TestProcessOfAnother(t *testing.T) {
	c := confinement(policy.Default(), seccompInit)
	c.AppArmorProfile, c.Replaces = "palisade.c1", "docker-default"
	for _, tt := range []struct{ in, refused string }{
		{`{}`, ""},
		{`{"selinuxLabel":"system_u:system_r:container_t:s0:c9,c3"}`, ""},
		{`{"selinuxLabel":"system_u:system_r:container_t:s0:c3,c8"}`, "SELinux label"},
		{`{"selinuxLabel":"system_u:system_r:spc_t:s0:c3,c9"}`, "SELinux label"},
		{`{"selinuxLabel":"garbage"}`, "SELinux label"},
		{`{"apparmorProfile":"docker-default"}`, ""},
		{`{"apparmorProfile":"palisade.c1"}`, ""},
		{`{"apparmorProfile":"unconfined"}`, ""},
		{`{"apparmorProfile":"other"}`, "AppArmor profile"},
	} {
		_, p, err := editProcess([]byte(tt.in), c)
		switch {
		case tt.refused != "":
			if err == nil || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%s: %v", tt.in, err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.in, err)
		case p.ApparmorProfile != "palisade.c1":
			t.Errorf("%s: profile %q", tt.in, p.ApparmorProfile)
		}
	}
}

func TestFilterStaysWithRuntime(t *testing.T) {
	for _, tt := range []struct {
		in    string
		stays bool
	}{
		{`{}`, false},
		{`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}`, false},
		{`{"hooks":{"createContainer":[{"path":"/x"}],"poststart":[{"path":"/x"}]}}`, false},
		{`{"hooks":{"startContainer":[{"path":"/x"}]}}`, true},
		{`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}}}`, true},
		{`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_NOTIFY"}}}`, true},
		{`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ERRNO"},{"names":["y"],"action":"SCMP_ACT_NOTIFY"}]}}}`, true},
		{`{"annotations":{"run.oci.seccomp.receiver":"/x"}}`, true},
		{`{"annotations":{"run.oci.seccomp.plugins":"x.so"}}`, true},
	} {
		s, err := decode([]byte(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if stays, why := filterStaysWithRuntime(s); stays != tt.stays || stays != (why != "") {
			t.Errorf("%s: %v, %q", tt.in, stays, why)
		}
		if s.Linux == nil || s.Linux.Seccomp == nil {
			continue
		}
		in := strings.Replace(tt.in, "{", `{"process":{"args":["x"]},"root":{"path":"/r"},`, 1)
		_, after, err := Edit([]byte(in), confinement(policy.Default(), seccompInit), engineBundle)
		if err != nil || (after.Linux.Seccomp != nil) != tt.stays {
			t.Errorf("%s: filter %v, %v", tt.in, after.Linux.Seccomp, err)
		}
	}
}

func TestRebase(t *testing.T) {
	const frame = `{"process":{"args":["x"]},"root":{"path":"/r"},`
	for _, tt := range []struct{ name, in, want string }{
		{"root", `{"process":{"args":["x"]},"root":{"path":"rootfs"}`, `"root":{"path":"/run/engine/bundle/rootfs"}`},
		{"root above", `{"process":{"args":["x"]},"root":{"path":"../fs"}`, `"root":{"path":"/run/engine/fs"}`},
		{"bind by option", frame + `"mounts":[{"destination":"/a","source":"/s","options":["rbind"]},{"destination":"/b","type":"none","source":"vol/x","options":["ro","rbind"]}]`, `"source":"/run/engine/bundle/vol/x"`},
		{"bind by type", frame + `"mounts":[{"destination":"/b","type":"bind","source":"./vol"}]`, `"source":"/run/engine/bundle/vol"`},
		{"names", frame + `"mounts":[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},{"destination":"/x","type":"proc","source":"proc"}]`, `[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},{"destination":"/x","type":"proc","source":"proc"}]`},
		{"listener", frame + `"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"agent.sock"}}`, `"listenerPath":"/run/engine/bundle/agent.sock"`},
		{"output of hooks", frame + `"annotations":{"run.oci.hooks.stdout":"out","run.oci.hooks.stderr":"/err"}`, `{"run.oci.hooks.stdout":"/run/engine/bundle/out","run.oci.hooks.stderr":"/err","io.github.palisade-sec.id":"c1"}`},
		{"receiver", frame + `"annotations":{"run.oci.pidfd_receiver":"sock"}`, `"run.oci.pidfd_receiver":"/run/engine/bundle/sock"`},
		{
			"hook without an environment", frame + `"hooks":{"createContainer":[{"path":"/h"},{"path":"/h","env":["A=b"]},{"path":"/h","env":[]}],"createRuntime":[{"path":"/h"}]}`,
			`"createContainer":[{"path":"/h","env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},{"path":"/h","env":["A=b"]},{"path":"/h","env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}],"createRuntime":[{"path":"/h"}]`,
		},
		{"overlay", frame + `"mounts":[{"destination":"/o","type":"overlay","source":"overlay","options":["lowerdir=/a:/b","upperdir=/c,workdir=/d"]}]`, `"lowerdir=/a:/b"`},
	} {
		out, _, err := Edit([]byte(tt.in+"}"), confinement(policy.Default(), seccompInit), engineBundle)
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %s, %v", tt.name, out, err)
		}
	}
	for _, tt := range []struct{ name, in, want string }{
		{"overlay", frame + `"mounts":[{"destination":"/o","type":"overlay","options":["lowerdir=/a:b"]}]`, `mounts[0].options: relative path "b"`},
		{"overlay in one option", frame + `"mounts":[{"destination":"/o","type":"overlay","options":["index=off,upperdir=c"]}]`, `mounts[0].options: relative path "c"`},
		{"namespace", frame + `"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"ns/net"}]}`, `linux.namespaces[1].path: relative path "ns/net"`},
		{"hook", frame + `"hooks":{"poststop":[{"path":"hook"}]}`, `hooks.poststop[0].path: relative path "hook"`},
		{"bind without a source", frame + `"mounts":[{"destination":"/b","type":"bind"}]`, "has no source"},
		{"no root", `{"process":{"args":["x"]}`, "no root"},
		{"empty root", `{"process":{"args":["x"]},"root":{"path":""}`, "no root"},
		{"a program in place of the filter", frame + `"annotations":{"run.oci.seccomp_bpf_data":"AA=="}`, "not allowed"},
	} {
		if out, _, err := Edit([]byte(tt.in+"}"), confinement(policy.Default(), seccompInit), engineBundle); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s, %v; want %q", tt.name, out, err, tt.want)
		}
	}
	if _, _, err := Edit([]byte(frame+`"x":1}`), confinement(policy.Default(), seccompInit), "engineBundle"); !errors.Is(err, errBundle) {
		t.Errorf("a relative engineBundle: %v", err)
	}
	c := confinement(policy.Default(), seccompRuntime)
	if _, _, err := Edit(read(t, "docker"), c, engineBundle); !errors.Is(err, errFilter) {
		t.Errorf("two filters: %v", err)
	}
	c.Root = "/real/root"
	if _, s, err := Edit(withoutFilter(t, read(t, "docker")), c, engineBundle); err != nil || s.Root.Path != c.Root {
		t.Errorf("root %v, %v", s, err)
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"{\n  \"process\": {\n    \"args\": oops", "line 3"},
		{`{"process": {"args": 7}}`, "line 1, column 22: process.args"},
		{"", "line 1"},
		{`{}`, "no process"},
		{`[]`, "line 1"},
		{`{"proce\u017fs":{}}`, `is not spelled "process"`},
		{`{"process":{"Capabilities":{}}}`, `is not spelled "capabilities"`},
		{`{"linux":{},"linux":{}}`, "duplicate"},
	} {
		_, _, err := Edit([]byte(tt.in), confinement(policy.Default(), seccompInit), engineBundle)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.in, err, tt.want)
		}
	}
}

// TestEditOnlyTightens edits random configurations.
func TestEditOnlyTightens(t *testing.T) {
	names := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_NET_RAW", "cap_setuid", "CAP_NONE"}
	list := rapid.SliceOfN(rapid.SampledFrom(names), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string, v any) any {
			if rapid.Bool().Draw(t, name) {
				return v
			}
			return nil
		}
		doc := map[string]any{
			"process": map[string]any{
				"args":            rapid.SliceOfN(rapid.SampledFrom([]string{"sh", "/proc/self/fd/3"}), 0, 2).Draw(t, "args"),
				"noNewPrivileges": rapid.Bool().Draw(t, "nnp"),
				"selinuxLabel":    rapid.SampledFrom([]string{"", "u:r:t:s0:c1,c2"}).Draw(t, "label"),
				"apparmorProfile": rapid.SampledFrom([]string{"", "unconfined", "mine"}).Draw(t, "profile"),
				"capabilities": some("caps", map[string]any{
					"bounding": list.Draw(t, "bounding"), "effective": list.Draw(t, "effective"), "permitted": list.Draw(t, "permitted"),
					"inheritable": list.Draw(t, "inheritable"), "ambient": list.Draw(t, "ambient"),
				}),
			},
			"root":  map[string]any{"path": rapid.SampledFrom([]string{"r", "/r", "../r"}).Draw(t, "root"), "readonly": rapid.Bool().Draw(t, "ro")},
			"hooks": some("hooks", map[string]any{"startContainer": []any{map[string]any{"path": "/h"}}, "createContainer": []any{map[string]any{"path": "/h"}}}),
			"linux": some("linux", map[string]any{
				"maskedPaths":   some("masked", []string{"/proc/kcore", "/x"}),
				"readonlyPaths": some("readonly", []string{"/proc/sys", "/y"}),
				"seccomp":       some("seccomp", map[string]any{"defaultAction": rapid.SampledFrom([]string{"SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"}).Draw(t, "action")}),
			}),
			"mounts": []any{map[string]any{"destination": "/m", "type": "bind", "source": rapid.SampledFrom([]string{"s", "/s"}).Draw(t, "source")}},
		}
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		c := confinement(rapid.SampledFrom([]policy.Policy{policy.Default(), policy.Strict()}).Draw(t, "policy"), rapid.SampledFrom([]bundle.SeccompMode{seccompKeep, seccompInit}).Draw(t, "mode"))
		once, after, err := Edit(raw, c, engineBundle)
		if err != nil {
			t.Fatal(err)
		}
		checkTightens(t, raw, after, c)
		twice, _, err := Edit(once, c, "/elsewhere")
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("edited twice: %s\n%s\n%v", once, twice, err)
		}
	})
}

func FuzzEdit(f *testing.F) {
	for _, engine := range engines {
		f.Add(read(f, engine))
	}
	f.Add([]byte(`{"process":{},"linux":null,"root":{"path":"x"},"annotations":null,"hooks":null}`))
	f.Add([]byte(`{"root":{"path":"x"},"process":{"args":["/proc/self/fd/3"],"capabilities":{"ambient":["CAP_CHOWN"]}},"linux":{"seccomp":null}}`))
	c := confinement(policy.Default(), seccompInit)
	f.Fuzz(func(t *testing.T, raw []byte) {
		once, after, err := Edit(raw, c, engineBundle)
		if err != nil {
			return
		}
		checkTightens(t, raw, after, c)
		twice, again, err := Edit(once, c, "/elsewhere")
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, once)
		}
		if !bytes.Equal(once, twice) {
			t.Errorf("not idempotent:\n%s\n%s", once, twice)
		}
		// What is returned is what was written, but for nil and empty.
		read, err := decode(once)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(after)
		y, _ := json.Marshal(again)
		z, _ := json.Marshal(read)
		if !bytes.Equal(x, y) || !bytes.Equal(x, z) {
			t.Errorf("returned %s\nwrote %s", x, z)
		}
	})
}

func BenchmarkEdit(b *testing.B) {
	raw, c := read(b, "docker"), confinement(policy.Default(), seccompInit)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, _, err := Edit(raw, c, engineBundle); err != nil {
			b.Fatal(err)
		}
	}
}
