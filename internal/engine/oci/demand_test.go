// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
)

const dockerID = "0123456789abcdef"

// docker is a configuration of Docker, beside a record with some --security-opt.
func docker(t testing.TB, options string) *specs.Spec {
	t.Helper()
	dir := tree(t, "docker/containers/"+dockerID+"/hosts")
	dockerRecord(t, filepath.Join(dir, "docker"), options)
	return &specs.Spec{Process: &specs.Process{}, Root: &specs.Root{Path: filepath.Join(dir, "docker/overlay2/x/merged")}}
}

func dockerRecord(t testing.TB, dir, options string) {
	t.Helper()
	kept := filepath.Join(dir, "containers", dockerID)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kept, "hostconfig.json"), []byte(`{"Binds":["/a:/b:Z"],"SecurityOpt":[`+options+`]}`), 0o644); err != nil {
		t.Fatal(err)
	}
}

func annotate(s *specs.Spec, pairs ...string) *specs.Spec {
	if s == nil {
		s = &specs.Spec{Process: &specs.Process{}}
	}
	s.Annotations = map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		s.Annotations[pairs[i]] = pairs[i+1]
	}
	return s
}

func labelled(s *specs.Spec, label string) *specs.Spec {
	s.Process.SelinuxLabel = label
	return s
}

func profiled(s *specs.Spec, profile string) *specs.Spec {
	s.Process.ApparmorProfile = profile
	return s
}

func demandHosts(t testing.TB) (none, se, aa demandHost) {
	ctx, err := selinux.ParseContext("system_u:system_r:container_t:s0")
	if err != nil {
		t.Fatal(err)
	}
	is := func(name string) func(string) bool { return func(p string) bool { return p == name } }
	return demandHost{}, demandHost{SELinux: true, ProcessContext: ctx}, demandHost{AppArmor: true, Loaded: is("mine"), EngineDefault: is("docker-default")}
}

// TestDemand asks for a label and a profile in the ways of each engine, alone and
// together, on a host that has neither and on hosts that have one of them.
func TestDemand(t *testing.T) {
	none, se, aa := demandHosts(t)
	const label = "system_u:system_r:container_t:s0:c1,c2"
	for _, tt := range []struct {
		name    string
		spec    *specs.Spec
		host    demandHost
		refused string // empty for not
		context string
	}{
		{"docker level", docker(t, `"label=level:s0:c1,c2"`), none, "docker --security-opt", ""},
		{"docker level, SELinux", docker(t, `"label=level:s0:c1,c2"`), se, "", label},
		{"docker level in another order", docker(t, `"label=level:s0:c2,c1"`), se, "", label},
		{"docker type, SELinux", docker(t, `"label:type:container_init_t"`), se, "", "system_u:system_r:container_init_t:s0"},
		{"docker, level on an AppArmor host", docker(t, `"label=level:s0:c1,c2"`), aa, "SELinux is off", ""},
		{"docker disable", docker(t, `"label=disable"`), none, "", ""},
		{"docker disable, SELinux", docker(t, `"label=disable"`), se, "", ""},
		{"docker nothing", docker(t, `"no-new-privileges"`), none, "", ""},
		{"docker profile", docker(t, `"apparmor=mine"`), none, "AppArmor is off", ""},
		{"docker profile, SELinux", docker(t, `"apparmor:mine"`), se, "AppArmor is off", ""},
		{"docker profile that is not loaded", docker(t, `"apparmor=other"`), aa, "not loaded", ""},
		{"docker profile that is loaded", docker(t, `"apparmor=mine"`), aa, "", ""},
		{"docker unconfined", docker(t, `"apparmor=unconfined"`), none, "", ""},
		{"docker two levels", docker(t, `"label=level:s0:c1,c2","label=level:s0:c1,c3"`), se, "SELinux level", ""},
		{"docker odd part", docker(t, `"label=lewel:s0:c1,c2"`), se, `unknown part "lewel"`, ""},
		{"podman level", annotate(nil, podmanLabel, "level:s0:c1,c2,label=filetype:foo_t"), none, "podman --security-opt", ""},
		{"podman level, SELinux", annotate(nil, podmanLabel, "level:s0:c1,c2,label=type:container_t"), se, "", label},
		{"podman type that the engine set", annotate(labelled(&specs.Spec{Process: &specs.Process{}}, "system_u:system_r:foo_t:s0:c1,c2"), podmanLabel, "type:foo_t"), se, "", ""},
		{"podman type that the engine did not set", annotate(nil, podmanLabel, "type:spc_t"), se, "can only tighten", ""},
		{"podman type, SELinux off", annotate(nil, podmanLabel, "type:spc_t"), none, "SELinux is off", ""},
		{"podman disable", annotate(nil, podmanLabel, "disable"), none, "", ""},
		{"podman profile", annotate(nil, podmanAppArmor, "mine"), none, "AppArmor is off", ""},
		{"ours", annotate(nil, annotationSELinux, "level:s0:c1,c2"), none, annotationSELinux, ""},
		{"ours, SELinux", annotate(nil, annotationSELinux, "level:s0:c1,c2"), se, "", label},
		{"ours, type of the host", annotate(nil, annotationSELinux, "type:container_t;level:s0:c1,c2"), se, "", label},
		{"ours, another type", annotate(nil, annotationSELinux, "type:spc_t"), se, "can only tighten", ""},
		{"ours, another user", annotate(nil, annotationSELinux, "user:root"), se, "can only tighten", ""},
		{"ours, disable", annotate(nil, annotationSELinux, "disable"), none, "can only tighten", ""},
		{"ours, disable beside a level", annotate(nil, annotationSELinux, "level:s0:c1,c2;disable"), se, "can only tighten", ""},
		{"ours, garbage", annotate(nil, annotationSELinux, "garbage"), se, "want NAME:VALUE", ""},
		{"ours, no level", annotate(nil, annotationSELinux, "level:c1,c2"), se, "expected", ""},
		{"a range", annotate(nil, annotationSELinux, "level:s0-s0:c3,c4"), se, "ask for s0:c3,c4", ""},
		{"a range of one level", annotate(nil, annotationSELinux, "level:s0:c1,c2-s0:c1,c2"), se, "", label},
		{"a range in the configuration", labelled(&specs.Spec{Process: &specs.Process{}}, "u:r:t:s0-s0:c3,c4"), se, "ask for s0:c3,c4", ""},
		{"no categories", annotate(docker(t, `"label=level:s0:c1,c2"`), annotationSELinux, "level:s0"), se, "", label},
		{"label in the configuration", labelled(&specs.Spec{Process: &specs.Process{}}, "u:r:t:s0:c1,c2"), none, "SELinux is off", ""},
		{"label in the configuration, SELinux", labelled(&specs.Spec{Process: &specs.Process{}}, "u:r:t:s0:c1,c2"), se, "", ""},
		{"no label in the configuration", labelled(&specs.Spec{Process: &specs.Process{}}, "garbage"), se, "process label of the engine", ""},
		{"profile in the configuration", profiled(&specs.Spec{Process: &specs.Process{}}, "mine"), none, "the configuration", ""},
		{"profile of every container", profiled(&specs.Spec{Process: &specs.Process{}}, "docker-default"), aa, "", ""},

		// Several sources: the strictest wins, and an image takes nothing away.
		{"image's disable beside docker", annotate(docker(t, `"label=level:s0:c1,c2"`), podmanLabel, "disable"), none, "docker --security-opt", ""},
		{"image's disable beside docker, SELinux", annotate(docker(t, `"label=level:s0:c1,c2"`), podmanLabel, "disable"), se, "", label},
		{"annotation beside docker's record", annotate(docker(t, `"label=level:s0:c1,c2"`), annotationSELinux, "level:s0:c1,c2"), se, "", label},
		{"annotation of another level", annotate(docker(t, `"label=level:s0:c1,c2"`), annotationSELinux, "level:s0:c1,c3"), se, "SELinux level", ""},
		{"annotation of another level than the engine's", annotate(labelled(&specs.Spec{Process: &specs.Process{}}, label), annotationSELinux, "level:s0:c7,c8"), se, "SELinux level", ""},
		{"annotation of another type than the engine's", annotate(labelled(&specs.Spec{Process: &specs.Process{}}, label), annotationSELinux, "type:spc_t"), se, "SELinux type", ""},
		{"annotation of another type than docker's", annotate(docker(t, `"label=type:container_init_t"`), annotationSELinux, "type:container_t"), se, "SELinux type", ""},
		{"docker disable beside an annotation", annotate(docker(t, `"label=disable"`), annotationSELinux, "level:s0:c1,c2"), se, "", label},
		{"unconfined beside a profile", profiled(docker(t, `"apparmor=mine"`), "unconfined"), none, "AppArmor is off", ""},
		{"a profile beside unconfined", annotate(profiled(&specs.Spec{Process: &specs.Process{}}, "mine"), podmanAppArmor, "unconfined"), none, "AppArmor is off", ""},
		{"two profiles", annotate(profiled(&specs.Spec{Process: &specs.Process{}}, "mine"), podmanAppArmor, "other"), aa, "AppArmor profile", ""},

		{"mistyped", annotate(nil, "io.github.palisade-sec.selinx", "level:s0:c1,c2"), none, `did you mean "io.github.palisade-sec.selinux"?`, ""},
		{"by case", annotate(nil, "io.github.Palisade-sec.request", "strict"), none, `did you mean "io.github.palisade-sec.request"?`, ""},
		{"nothing like it", annotate(nil, "io.github.palisade-sec.some.other.setting", ""), none, `unknown annotation "io.github.palisade-sec.some.other.setting"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := readDemand(tt.spec, dockerID)
			read := err
			if err == nil {
				err = d.Check(tt.host)
			}
			if err != nil && read == nil && !errors.Is(err, errUnenforceable) {
				t.Errorf("%v is not ErrUnenforceable", err)
			}
			var ctx selinux.Context
			var given bool
			if err == nil {
				ctx, given, err = d.Context(tt.host)
			}
			if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
				t.Fatalf("got %v, want an error with %q", err, tt.refused)
			}
			if err == nil && (given != (tt.context != "") || given && ctx.String() != tt.context) {
				t.Errorf("context %v, %v; want %q", ctx, given, tt.context)
			}
		})
	}
}

func TestDemandClaim(t *testing.T) {
	mount := func(label string) *specs.Spec {
		return &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{MountLabel: label}}
	}
	for _, tt := range []struct {
		spec *specs.Spec
		want string
	}{
		{mount(""), ""},
		{mount("u:r:f:s0:c5,c6"), "s0:c5,c6"},
		{mount("u:r:f:s0"), ""},
		{labelled(mount("u:r:f:s0:c5,c6"), "u:r:t:s0:c2,c1"), "s0:c1,c2"},
		{labelled(mount("u:r:f:s0:c5,c6"), "u:r:t:s0"), ""},
		{annotate(mount("u:r:f:s0:c5,c6"), annotationSELinux, "level:s0:c8,c7"), "s0:c7,c8"},
	} {
		d, err := readDemand(tt.spec, "x")
		if err != nil || d.Claim() != tt.want {
			t.Errorf("%+v: %q, %v; want %q", tt.spec, d.Claim(), err, tt.want)
		}
	}
}

// TestBorrowed wants a level of another container for none that only an annotation
// asks for.
func TestBorrowed(t *testing.T) {
	joined := func(s *specs.Spec) *specs.Spec {
		s.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "ipc", Path: "/proc/7/ns/ipc"}}}
		return s
	}
	for _, tt := range []struct {
		name string
		spec *specs.Spec
		want bool
	}{
		{"nothing", annotate(nil), false},
		{"annotation", annotate(nil, annotationSELinux, "level:s0:c1,c2"), false},
		{"annotation of a container that joins another", joined(annotate(nil, annotationSELinux, "level:s0:c1,c2")), false},
		{"annotation of a labelled root", annotate(&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{MountLabel: "u:r:f:s0:c5,c6"}}, annotationSELinux, "level:s0:c1,c2"), false},
		{"label of the engine", labelled(annotate(nil), "u:r:t:s0:c1,c2"), false},
		{"label of the engine, confirmed, of a container that joins another", labelled(joined(annotate(nil, annotationSELinux, "level:s0:c1,c2")), "u:r:t:s0:c1,c2"), true},
		{"label of the root alone", &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{MountLabel: "u:r:f:s0:c5,c6"}}, true},
		{"docker", docker(t, `"label=level:s0:c1,c2"`), false},
		{"docker, of a container that joins another", joined(docker(t, `"label=level:s0:c1,c2"`)), true},
	} {
		d, err := readDemand(tt.spec, dockerID)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.mayBorrow(tt.spec); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestSharesSandbox(t *testing.T) {
	for _, tt := range []struct {
		namespaces []specs.LinuxNamespace
		want       bool
	}{
		{[]specs.LinuxNamespace{{Type: "ipc", Path: "/proc/7/ns/ipc"}, {Type: "network", Path: "/proc/7/ns/net"}, {Type: "pid"}}, true},
		{[]specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "uts"}}, true}, // the host's network and IPC
		{[]specs.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "network"}}, false},
		{[]specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}}, false},
	} {
		if got := sharesSandbox(&specs.Spec{Linux: &specs.Linux{Namespaces: tt.namespaces}}); got != tt.want {
			t.Errorf("%v: %v", tt.namespaces, got)
		}
	}
	if sharesSandbox(&specs.Spec{}) {
		t.Error("a configuration without namespaces")
	}
}

func TestDemandPolicy(t *testing.T) {
	for request, want := range map[string]string{"": "default", "default": "default", "strict": policy.Strict().Meet(policy.Default()).Name} {
		d, err := readDemand(annotate(nil, annotationRequest, request), "x")
		if err != nil {
			t.Fatal(err)
		}
		if p, err := d.Policy(policy.Default()); err != nil || p.Name != want {
			t.Errorf("%q: %q, %v", request, p.Name, err)
		}
	}
	if _, err := (demand{Request: asked{"lenient", "annotation"}}).Policy(policy.Default()); !errors.Is(err, policy.ErrUnknown) {
		t.Error(err)
	}
}

// TestDemandRecords wants each record of Docker to be read, and none to be passed
// over that cannot be.
func TestDemandRecords(t *testing.T) {
	// A volume that looks like Docker's folder does not hide the real one.
	s := docker(t, `"label=level:s0:c1,c2"`)
	forged := t.TempDir()
	dockerRecord(t, forged, "")
	s.Mounts = []specs.Mount{{Source: filepath.Join(forged, "containers", dockerID, "hosts"), Destination: "/x"}}
	if d, err := readDemand(s, dockerID); err != nil || d.Level.Value != "s0:c1,c2" {
		t.Errorf("%+v, %v", d, err)
	}
	kept := filepath.Join(forged, "containers", dockerID)
	for _, content := range []string{`{"SecurityOpt":7}`, `{"securityopt":["label=disable"]}`, `{"SecurityOpt":[],"SecurityOpt":["apparmor=mine"]}`, `{} {}`, `{"SecurityOpt":`, strings.Repeat(" ", maxRecord+1)} {
		if err := os.WriteFile(filepath.Join(kept, "hostconfig.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if d, err := readDemand(s, dockerID); err == nil {
			t.Errorf("%.40s: a record that cannot be read asks for %+v", content, d)
		}
	}
	if err := os.Remove(filepath.Join(kept, "hostconfig.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", filepath.Join(kept, "hostconfig.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := readDemand(s, dockerID); err == nil {
		t.Error("a record that is a link")
	}
	// An ID is no path.
	if _, err := readDemand(&specs.Spec{Root: &specs.Root{Path: "/a/b"}}, "../x"); err != nil {
		t.Error(err)
	}
}

// FuzzDemand wants that no annotation takes away what another source asks for.
func FuzzDemand(f *testing.F) {
	for _, v := range []string{"", "disable", "level:s0:c1,c2", "level:s0:c1,c2;disable", "type:spc_t", "level:s0-s0:c1", "level:s0:c2,label=disable", "nested", "user:x;role:y", ":", "level:"} {
		f.Add(v, v, "mine", `"label=level:s0:c1,c2"`)
		f.Add(v, "disable", "unconfined", `"apparmor=mine"`)
	}
	none, se, _ := demandHosts(f)
	f.Fuzz(func(t *testing.T, ours, podman, profile, options string) {
		raw := []byte(`{"SecurityOpt":[` + options + `]}`)
		list, err := decodeDocker(raw)
		if err != nil {
			return
		}
		base, err := demandOf(annotate(nil), list)
		if err != nil {
			return
		}
		s := annotate(nil, annotationSELinux, ours, podmanLabel, podman, podmanAppArmor, profile)
		d, err := demandOf(s, list)
		if err != nil {
			return
		}
		// Whatever the image asks for, what the engine was asked for holds.
		for what, pair := range map[string][2]asked{
			"user": {base.User, d.User}, "role": {base.Role, d.Role}, "type": {base.Type, d.Type}, "level": {base.Level, d.Level}, "profile": {base.AppArmor, d.AppArmor},
		} {
			if pair[0].Value != "" && pair[0] != pair[1] {
				t.Errorf("%s: %+v became %+v", what, pair[0], pair[1])
			}
		}
		if base.Check(none) != nil && d.Check(none) == nil {
			t.Errorf("a refusal was turned off")
		}
		ctx, given, err := d.Context(se)
		if err != nil {
			return
		}
		want, _, err := base.Context(se)
		if err != nil {
			t.Fatal(err)
		}
		if given && (ctx.User != want.User || ctx.Role != want.Role || ctx.Type != want.Type) {
			t.Errorf("an annotation chose %v, not %v", ctx, want)
		}
		if l, one := ctx.Range.Single(); given && (!one || !l.Dominates(want.Range.High)) {
			t.Errorf("range %v, not %v", ctx.Range, want.Range)
		}
	})
}
