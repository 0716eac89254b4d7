// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"regexp"
	"slices"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
)

func TestConfirmLinks(t *testing.T) {
	for _, flavour := range []string{"default", "mls"} {
		t.Run(flavour, func(t *testing.T) {
			debian.Policy(t, flavour, map[string][]byte{Name: Module()})
		})
	}
}

// A policy that has container types of its own must not take the module: two
// definitions of one domain would add up.
func TestCheck(t *testing.T) {
	has := func(names ...string) func(string) bool {
		return func(n string) bool { return slices.Contains(requires, n) || slices.Contains(names, n) }
	}
	for _, tt := range []struct {
		name     string
		declares func(string) bool
		want     Verdict
	}{
		{"refpolicy without containers", has(), Verdict{OK: true}},
		{"container-selinux", has("container_t", "spc_t"), Verdict{Present: []string{"container_t", "spc_t"}}},
		{"no refpolicy", func(string) bool { return false }, Verdict{Missing: requires}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Check(tt.declares)
			if got.OK != tt.want.OK || !slices.Equal(got.Present, tt.want.Present) || !slices.Equal(got.Missing, tt.want.Missing) {
				t.Errorf("Check = %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Constraints that forget a permission are how labels leak, so the module says
// (all) or names what it leaves out.
func TestConstraintsAreWhole(t *testing.T) {
	sets := regexp.MustCompile(`\(classpermissionset palisade_(?:object|subject) \((\w+) (\(.*\))\)\)`).FindAllSubmatch(module, -1)
	if len(sets) < 30 {
		t.Fatalf("%d class permission sets found", len(sets))
	}
	for _, s := range sets {
		if !bytes.Equal(s[2], []byte("(all)")) && !bytes.HasPrefix(s[2], []byte("(not (")) {
			t.Errorf("class %s: %s: neither all permissions nor all but named ones", s[1], s[2])
		}
	}
}
