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
