// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"reflect"
	"testing"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/landlock"
)

func TestStepConfig(t *testing.T) {
	if got := stepConfig(nil); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
	got := stepConfig(&bundle.Step{
		AppArmor: "p",
		Landlock: &landlock.Ruleset{
			HandledFS: 1, HandledNet: 2, Scoped: 3,
			Paths: []landlock.PathRule{{Access: 4, Path: "/a"}}, Ports: []landlock.PortRule{{Access: 5, Port: 6}},
		},
		Filters: []bundle.Filter{{Flags: 7, Program: []byte("12345678")}, {Program: []byte("abcdefgh")}},
	})
	want := &laststep.Config{
		NoNewPrivileges: true, AppArmor: "p",
		Landlock: &laststep.Landlock{
			HandledFS: 1, HandledNet: 2, Scoped: 3,
			Paths: []laststep.PathRule{{Access: 4, Path: "/a"}}, Ports: []laststep.PortRule{{Access: 5, Port: 6}},
		},
		Filters: []laststep.Filter{{Flags: 7, Program: []byte("12345678")}, {Program: []byte("abcdefgh")}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	// A member that is added to a step and forgotten here would be a layer lost.
	for _, s := range []any{bundle.Step{}, landlock.Ruleset{}} {
		n := map[string]int{"Step": 4, "Ruleset": 5}[reflect.TypeOf(s).Name()]
		if reflect.TypeOf(s).NumField() != n {
			t.Errorf("%T has %d fields, and %d are converted", s, reflect.TypeOf(s).NumField(), n)
		}
	}
}

func TestAsk(t *testing.T) {
	asked := effective.State{NoNewPrivileges: true, Seccomp: effective.Seccomp{Mode: effective.SeccompFilter, Filters: 1, InstalledBy: "runtime"}}
	got := Ask(&bundle.Plan{
		Seccomp:  &bundle.Filters{Count: 2, SHA256: []string{"b", "a"}},
		Landlock: &bundle.Domain{ABI: 7, Rules: landlock.Ruleset{HandledFS: 1, HandledNet: 2, Scoped: 3}, Missing: []string{"m"}},
	}, asked)
	want := effective.State{
		NoNewPrivileges: true,
		Seccomp:         effective.Seccomp{Mode: effective.SeccompFilter, Filters: 3, SHA256: []string{"b", "a"}, InstalledBy: "palisade-init"},
		Landlock:        &effective.Landlock{ABI: 7, HandledFS: 1, HandledNet: 2, Scoped: 3, Missing: []string{"m"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Ask(&bundle.Plan{}, asked); !reflect.DeepEqual(got, asked) {
		t.Errorf("without a step: %+v", got)
	}
}

func TestCache(t *testing.T) {
	if c := Cache(nil); c.Build == "" || c.Build != Cache(nil).Build {
		t.Errorf("this program is %q", c.Build)
	}
}
