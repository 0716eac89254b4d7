// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/caps"
)

func TestBuiltin(t *testing.T) {
	for _, name := range BuiltinNames() {
		p, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.Name != name || p.Process.NewPrivileges || !p.Capabilities.SubsetOf(caps.Docker) || p.Syscalls.Base != SyscallsDocker {
			t.Errorf("%s is weaker than Docker's default: %+v", name, p)
		}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again Policy
		if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%s does not survive JSON: %v\n%s", name, err, b)
		}
	}
	if _, err := Builtin("nosuch"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

// TestMeet wants the outcome to allow what both allow, whichever comes first.
func TestMeet(t *testing.T) {
	d, s := Default(), Strict()
	for _, m := range []Policy{d.Meet(s), s.Meet(d)} {
		if m.Capabilities != 0 || !m.ReadOnlyRoot || m.Process.Ptrace != "none" || m.Network == nil || m.Files == nil {
			t.Errorf("got %+v", m)
		}
		if !slices.Equal(m.MaskedPaths, d.MaskedPaths) {
			t.Errorf("masked %q", m.MaskedPaths)
		}
	}
	loose := Default()
	loose.Syscalls.Base, loose.Process.NewPrivileges, loose.Capabilities = SyscallsNone, true, caps.All
	loose.Network = &Network{Families: []string{"unix", "inet"}}
	m := loose.Meet(s)
	if m.Syscalls.Base != SyscallsDocker || m.Process.NewPrivileges || m.Capabilities != 0 || !slices.Equal(m.Network.Families, []string{"unix"}) {
		t.Errorf("got %+v", m)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	p := Strict()
	c := p.Clone()
	c.MaskedPaths[0], c.Files.Read[0], c.Network.Families[0] = "x", "x", "x"
	if want := Strict(); !reflect.DeepEqual(p, want) {
		t.Errorf("the original is now %+v", p)
	}
}

func TestValidate(t *testing.T) {
	for want, spoil := range map[string]func(*Policy){
		"name":    func(p *Policy) { p.Name = "Web" },
		"base":    func(p *Policy) { p.Syscalls.Base = "all" },
		"ptrace":  func(p *Policy) { p.Process.Ptrace = "yes" },
		"path":    func(p *Policy) { p.MaskedPaths = []string{"proc"} },
		"label":   func(p *Policy) { p.Label.MCS = "" },
		`"-web"`:  func(p *Policy) { p.Name = "-web" },
		`name ""`: func(p *Policy) { p.Name = "" },
	} {
		p := Default()
		spoil(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestLabelClaim(t *testing.T) {
	for _, tt := range []struct {
		mcs, level string
		want       LabelClaim
		bad        string
	}{
		{"private", "s0", LabelClaim{Sensitivity: "s0"}, ""},
		{"shared:db-1", "s0", LabelClaim{Shared: "db-1", Sensitivity: "s0"}, ""},
		{"c7,c3", "s2", LabelClaim{Level: "s2:c3,c7", Sensitivity: "s2"}, ""},
		{"", "s0", LabelClaim{}, `mcs ""`},
		{"Private", "s0", LabelClaim{}, `mcs "Private"`},
		{"shared", "s0", LabelClaim{}, `mcs "shared"`},
		{"shared:a b", "s0", LabelClaim{}, `mcs "shared:a b"`},
		{"shared:a:b", "s0", LabelClaim{}, `mcs "shared:a:b"`},
		{"shared:" + strings.Repeat("x", 129), "s0", LabelClaim{}, "mcs"},
		{"c1", "s0", LabelClaim{}, `mcs "c1"`},
		{"c1,c1", "s0", LabelClaim{}, `mcs "c1,c1"`},
		{"c1,c2,c3", "s0", LabelClaim{}, `mcs "c1,c2,c3"`},
		{"c1,c2-s0", "s0", LabelClaim{}, `mcs "c1,c2-s0"`},
		{"private", "", LabelClaim{}, `level ""`},
		{"private", "s0:c1", LabelClaim{}, `level "s0:c1"`},
		{"private", "s0-s1", LabelClaim{}, `level "s0-s1"`},
	} {
		got, err := Label{MCS: tt.mcs, Level: tt.level}.Claim()
		if got != tt.want || (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%q at %q: %+v, %v", tt.mcs, tt.level, got, err)
		}
	}
}

func TestMeetLabels(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"private", "private", "private"},
		{"private", "shared:g", "private"},
		{"private", "c1,c2", "c1,c2"},
		{"shared:g", "shared:g", "shared:g"},
		{"shared:g", "shared:h", "private"},
		{"shared:g", "c1,c2", "c1,c2"},
		{"c1,c2", "c1,c2", "c1,c2"},
		{"c1,c2", "c3,c4", ""},
	} {
		for _, pair := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			p, q := Default(), Default()
			p.Label.MCS, q.Label.MCS = pair[0], pair[1]
			m := p.Meet(q)
			err := m.Validate()
			if (err == nil) != (tt.want != "") || err == nil && m.Label.MCS != tt.want || err != nil && !strings.Contains(err.Error(), "c1,c2") {
				t.Errorf("%q and %q: %q, %v", pair[0], pair[1], m.Label.MCS, err)
			}
		}
	}
	p, q := Default(), Default()
	q.Label.Level = "s1"
	if err := p.Meet(q).Validate(); err == nil || !strings.Contains(err.Error(), `level "s0 and s1"`) {
		t.Errorf("two sensitivities: %v", err)
	}
}
