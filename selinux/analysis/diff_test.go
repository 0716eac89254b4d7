// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

func changesOf(d Difference, kind string) []string {
	var out []string
	for _, c := range d.Changes {
		if c.Kind == kind {
			out = append(out, map[string]string{"added": "+", "removed": "-", "modified": "*"}[c.What]+" "+c.Name)
		}
	}
	slices.Sort(out)
	return out
}

// TestConfirmDiff compares with sediff what both compare alike: sediff expands
// attributes in rules, these policies have none there.
func TestConfirmDiff(t *testing.T) {
	sediff := oracle.Tool(t, "sediff", "apt: setools")
	left, right := compiled(t, "diff_left.conf"), compiled(t, "diff_right.conf")
	d := Diff(ss.New(load(t, left)), ss.New(load(t, right)))
	for flag, kind := range map[string]string{"-c": "class", "-b": "boolean", "-r": "role", "-u": "user"} {
		// The status tells whether the tool worked, not whether there are differences.
		out, err := exec.Command(sediff, flag, left, right).Output()
		if err != nil {
			t.Fatalf("sediff %s: %v", flag, err)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			if len(line) > 8 && strings.HasPrefix(line, "      ") && strings.Contains("+-*", line[6:7]) {
				want = append(want, strings.Join(strings.Fields(line)[:2], " "))
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, changesOf(d, kind)); len(want) < 3 || diff != "" {
			t.Errorf("%s (-sediff +ours):\n%s", kind, diff)
		}
	}
}

func TestDiffSmall(t *testing.T) {
	left, right := load(t, compiled(t, "diff_left.conf")), load(t, compiled(t, "diff_right.conf"))
	d := Diff(ss.New(left), ss.New(right))
	find := func(kind, name string) *Change {
		for i := range d.Changes {
			if d.Changes[i].Kind == kind && d.Changes[i].Name == name {
				return &d.Changes[i]
			}
		}
		return nil
	}
	for _, want := range []Change{
		{"allow", "added_rule_source added_rule_target:infoflow", "added", []string{"med_w"}, nil},
		{"allow", "removed_rule_source removed_rule_target:infoflow", "removed", nil, []string{"hi_r"}},
		{"allow", "modified_rule_add_remove_perms modified_rule_add_remove_perms:infoflow2", "modified", []string{"super_r"}, []string{"super_w"}},
		{"allow", "move_to_bool move_to_bool:infoflow4 [ move_to_bool_b ]:True", "added", []string{"hi_w"}, nil},
		{"extended permissions", "allowxperm ax_modified_rule_add_remove_perms ax_modified_rule_add_remove_perms:infoflow2 ioctl", "modified", []string{"0x0006"}, []string{"0x0007"}},
		{"boolean", "modified_bool", "modified", []string{"on"}, []string{"off"}},
		{"type", "modified_add_attr", "modified", []string{"an_attr"}, nil},
		{"permissive", "modified_remove_permissive", "removed", nil, nil},
		{"default", "default_type infoflow4", "modified", []string{"target"}, []string{"source"}},
		{"capability", "always_check_network", "added", nil, nil},
		{"constraint", "mlsconstrain infoflow3 null ( ( l1 domby l2 and h1 domby h2 ) or t1 != mls_exempt );", "added", nil, nil},
		{"label", "genfscon change_path /new", "added", []string{"system:object_r:system:s0"}, nil},
	} {
		if diff := cmp.Diff(&want, find(want.Kind, want.Name)); diff != "" {
			t.Errorf("%s %s: %s", want.Kind, want.Name, diff)
		}
	}
	for name, p := range map[string]*policydb.Policy{"left": left, "right": right} {
		if same := Diff(ss.New(p), ss.New(p)); !same.Same() {
			t.Errorf("%s and itself: %+v", name, same)
		}
	}
}

// vectors returns what rules allow a type on each type, as "type class perm".
func vectors(s *ss.Server, source string) map[string]bool {
	p := s.Policy()
	out := map[string]bool{}
	t := p.Types.ByName(source)
	if t == nil || t.Attribute {
		return out
	}
	for g := range s.Grants(t.ID()) {
		c := p.Classes.ByValue(uint32(g.Class))
		for _, to := range p.TypesOf(g.Target) {
			for _, perm := range c.PermissionNames(g.Allowed) {
				out[p.TypeName(to)+" "+c.Name+" "+perm] = true
			}
		}
	}
	return out
}

// TestDiffDecisions compares with what the security server makes of both policies'
// rules, which merges them in another way.
func TestDiffDecisions(t *testing.T) {
	base := ss.New(load(t, debian.Policy(t, "default", nil).Policy))
	_, with := defaultPolicy(t)
	mls := ss.New(load(t, debian.Policy(t, "mls", nil).Policy))
	for _, pair := range []struct {
		name string
		a, b *ss.Server
	}{
		{"module", base, ss.New(with)},
		{"mls", base, mls},
		{"small", ss.New(load(t, compiled(t, "diff_left.conf"))), ss.New(load(t, compiled(t, "diff_right.conf")))},
	} {
		t.Run(pair.name, func(t *testing.T) {
			d := Diff(pair.a, pair.b)
			// A source of each fourth of the groups, and some at random.
			sources := map[string]bool{"container_t": true, "svirt_t": true, "modified_rule_add_perms": true, "removed_type": true}
			for i := 0; i < len(d.Decisions); i += 1 + len(d.Decisions)/4 {
				sources[d.Decisions[i].Sources[0]] = true
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 4 {
				p := pair.b.Policy()
				sources[p.TypeName(policydb.TypeID(1+r.IntN(int(p.Types.Prim))))] = true
			}
			got := map[string]map[string]bool{}
			for i := range d.Decisions {
				c := &d.Decisions[i]
				for _, s := range c.Sources {
					if !sources[s] {
						continue
					}
					if got[s] == nil {
						got[s] = map[string]bool{}
					}
					for _, to := range c.Targets {
						for _, perm := range c.Allowed {
							got[s]["+"+to+" "+c.Class+" "+perm] = true
						}
						for _, perm := range c.Denied {
							got[s]["-"+to+" "+c.Class+" "+perm] = true
						}
					}
				}
			}
			checked := 0
			for s := range sources {
				a, b := vectors(pair.a, s), vectors(pair.b, s)
				want := map[string]bool{}
				for k := range a {
					if !b[k] {
						want["-"+k] = true
					}
				}
				for k := range b {
					if !a[k] {
						want["+"+k] = true
					}
				}
				checked += len(want)
				if !maps.Equal(want, got[s]) {
					t.Errorf("%s: %d permissions differ, want %d", s, len(got[s]), len(want))
				}
			}
			if checked == 0 {
				t.Error("nothing differs")
			}
			t.Logf("%d changes, %d groups of decisions, %d permissions checked of %d sources", len(d.Changes), len(d.Decisions), checked, len(sources))
		})
	}
}

func TestDiffContexts(t *testing.T) {
	base := ss.New(load(t, debian.Policy(t, "default", nil).Policy))
	_, with := defaultPolicy(t)
	a, b := "system_u:system_r:svirt_t:s0:c1,c2", "system_u:system_r:svirt_t:s0:c3,c4"
	mls := ss.New(load(t, debian.Policy(t, "mls", nil).Policy))
	got, err := DiffContexts(base, mls, []string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got {
		for side, s := range []*ss.Server{base, mls} {
			x := contexts(t, s, c.Source, c.Target)
			have := s.Policy().Classes.ByName(c.Class).PermissionNames(s.Decide(x[0], x[1], s.Class(c.Class)).Allowed)
			for _, perm := range c.Allowed {
				if slices.Contains(have, perm) != (side == 1) {
					t.Errorf("%+v: policy %d has %v", c, side, have)
				}
			}
			for _, perm := range c.Denied {
				if slices.Contains(have, perm) != (side == 0) {
					t.Errorf("%+v: policy %d has %v", c, side, have)
				}
			}
		}
	}
	if len(got) == 0 {
		t.Error("nothing differs between the policies")
	}
	got, err = DiffContexts(base, ss.New(with), []string{containerAt + "c1,c2"})
	if err != nil || len(got) != 1 || !strings.Contains(got[0].Invalid, "the first policy") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = DiffContexts(base, base, []string{"a:b:c:s0"}); err == nil {
		t.Error("a context that no policy allows")
	}
}

func BenchmarkDiff(b *testing.B) {
	left, right := debian.Policy(b, "default", nil).Policy, debian.Policy(b, "mls", nil).Policy
	b.ReportAllocs()
	for b.Loop() {
		d := Diff(ss.New(load(b, left)), ss.New(load(b, right)))
		if len(d.Changes) < 1000 {
			b.Fatal(fmt.Sprint(len(d.Changes)))
		}
	}
}
