// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/target"
)

// TestAsked asks for a label and a profile in the ways of each engine, on a host
// that has neither and on hosts that have one of them.
func TestAsked(t *testing.T) {
	const id = "0123456789abcdef"
	none := target.Target{SELinux: target.SELinux{State: target.Off, Mode: "disabled"}, AppArmor: target.AppArmor{State: target.Off}}
	se := none
	se.SELinux = target.SELinux{State: target.Enforcing, Mode: "enforcing", ProcessContext: target.DefaultProcessContext}
	permissive := se
	permissive.SELinux.State, permissive.SELinux.Mode = target.Off, "permissive"
	unknown := target.Target{}
	aa := none
	aa.AppArmor = target.AppArmor{State: target.Enforcing, Loaded: map[string]string{"docker-default": "enforce", "lax": "complain"}}
	unread := aa
	unread.AppArmor.Loaded = nil
	docker := func(t *testing.T, opts string) *specs.Spec {
		dir := filepath.Join(t.TempDir(), "docker")
		kept := filepath.Join(dir, "containers", id)
		if err := os.MkdirAll(kept, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(kept, "hostconfig.json"), []byte(`{"Binds":["/a:/b:Z"],"SecurityOpt":[`+opts+`]}`), 0o644); err != nil {
			t.Fatal(err)
		}
		return &specs.Spec{Process: &specs.Process{}, Root: &specs.Root{Path: filepath.Join(dir, "overlay2", "x", "merged")}}
	}
	annotated := func(k, v string) func(*testing.T) *specs.Spec {
		return func(*testing.T) *specs.Spec {
			return &specs.Spec{Process: &specs.Process{}, Annotations: map[string]string{k: v}}
		}
	}
	for _, tt := range []struct {
		name    string
		spec    func(*testing.T) *specs.Spec
		host    target.Target
		refused string // empty for not
		context string
	}{
		{"docker level", func(t *testing.T) *specs.Spec { return docker(t, `"label=level:s0:c1,c2"`) }, none, "docker --security-opt", ""},
		{"docker level, SELinux", func(t *testing.T) *specs.Spec { return docker(t, `"label=level:s0:c1,c2"`) }, se, "", "system_u:system_r:container_t:s0:c1,c2"},
		{"docker type, SELinux", func(t *testing.T) *specs.Spec { return docker(t, `"label:type:container_init_t"`) }, se, "", "system_u:system_r:container_init_t:s0"},
		{"docker, level on an AppArmor host", func(t *testing.T) *specs.Spec { return docker(t, `"label=level:s0:c1,c2"`) }, aa, "SELinux is off", ""},
		{"docker disable", func(t *testing.T) *specs.Spec { return docker(t, `"label=disable"`) }, none, "", ""},
		{"docker disable, SELinux", func(t *testing.T) *specs.Spec { return docker(t, `"label=disable"`) }, se, "", ""},
		{"docker nothing", func(t *testing.T) *specs.Spec { return docker(t, `"no-new-privileges"`) }, none, "", ""},
		{"docker profile", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=mine"`) }, none, "AppArmor is off", ""},
		{"docker profile, SELinux", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor:mine"`) }, se, "AppArmor is off", ""},
		{"docker profile that is not loaded", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=mine"`) }, aa, "not loaded", ""},
		{"docker profile that is loaded", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=docker-default"`) }, aa, "", ""},
		{"docker unconfined", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=unconfined"`) }, none, "", ""},
		{"podman level", annotated(podmanLabel, "level:s0:c1,c2,label=type:foo_t"), none, "podman --security-opt", ""},
		{"podman level, SELinux", annotated(podmanLabel, "level:s0:c1,c2,label=type:foo_t"), se, "", "system_u:system_r:foo_t:s0:c1,c2"},
		{"podman disable", annotated(podmanLabel, "disable"), none, "", ""},
		{"podman profile", annotated(podmanAppArmor, "mine"), none, "AppArmor is off", ""},
		{"ours", annotated(AnnotationSELinux, "level:s0:c7,c8"), none, AnnotationSELinux, ""},
		{"ours, SELinux", annotated(AnnotationSELinux, "level:s0:c7,c8"), se, "", "system_u:system_r:container_t:s0:c7,c8"},
		{"label in the configuration", func(*testing.T) *specs.Spec {
			return &specs.Spec{Process: &specs.Process{SelinuxLabel: "u:r:t:s0:c1,c2"}}
		}, none, "SELinux is off", ""},
		{"label in the configuration, SELinux", func(*testing.T) *specs.Spec {
			return &specs.Spec{Process: &specs.Process{SelinuxLabel: "u:r:t:s0:c1,c2"}}
		}, se, "", ""},
		{"docker level, permissive", func(t *testing.T) *specs.Spec { return docker(t, `"label=level:s0:c1,c2"`) }, permissive, "SELinux is permissive", "system_u:system_r:container_t:s0:c1,c2"},
		{"podman disable, permissive", annotated(podmanLabel, "disable"), permissive, "", ""},
		{"label of the engine, permissive", func(*testing.T) *specs.Spec {
			return &specs.Spec{Process: &specs.Process{SelinuxLabel: "u:r:t:s0:c1,c2"}}
		}, permissive, "", ""},
		{"docker level, unknown", func(t *testing.T) *specs.Spec { return docker(t, `"label=level:s0:c1,c2"`) }, unknown, "could not tell", ""},
		{"docker profile that only logs", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=lax"`) }, aa, "complain", ""},
		{"docker profile, list unread", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=docker-default"`) }, unread, "could not be read", ""},
		{"docker profile, unknown", func(t *testing.T) *specs.Spec { return docker(t, `"apparmor=docker-default"`) }, unknown, "cannot be checked", ""},
		{"profile in the configuration", func(*testing.T) *specs.Spec {
			return &specs.Spec{Process: &specs.Process{ApparmorProfile: "mine"}}
		}, none, "the configuration", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.spec(t)
			a, err := readAsked(s, id)
			if err != nil {
				t.Fatal(err)
			}
			err = a.check(tt.host, s)
			if (err != nil) != (tt.refused != "") || err != nil && (!strings.Contains(err.Error(), tt.refused) || !errors.Is(err, bundle.ErrMissing)) {
				t.Errorf("got %v, want an error with %q", err, tt.refused)
			}
			ctx, given, err := a.context(tt.host, s)
			if err != nil || given != (tt.context != "") || given && ctx.String() != tt.context {
				t.Errorf("context %v, %v, %v; want %q", ctx, given, err, tt.context)
			}
		})
	}
}

func TestAskedMalformed(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "containers", "x")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kept, "hostconfig.json"), []byte(`{"SecurityOpt":7}`), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &specs.Spec{Mounts: []specs.Mount{{Source: filepath.Join(kept, "hosts")}}}
	if _, err := readAsked(s, "x"); err == nil {
		t.Error("a record that cannot be read asks for nothing")
	}
	s = &specs.Spec{Process: &specs.Process{}, Annotations: map[string]string{AnnotationSELinux: "level:garbage"}}
	a, err := readAsked(s, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.context(target.Target{SELinux: target.SELinux{State: target.Enforcing, Mode: "enforcing", ProcessContext: "u:r:t:s0"}}, s); err == nil {
		t.Error("a level that is none is accepted")
	}
}
