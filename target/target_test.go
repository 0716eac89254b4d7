// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
)

func TestParseKernel(t *testing.T) {
	tests := []struct {
		in           string
		major, minor int
		ok           bool
	}{
		{"6.1.0-56-cloud-amd64", 6, 1, true},
		{"6.18.44-custom-1\n", 6, 18, true},
		{"5.15", 5, 15, true},
		{"6.14-rc1", 6, 14, true},
		{"7.0+", 7, 0, true},
		{"6", 0, 0, false},
		{"", 0, 0, false},
		{"six.one", 0, 0, false},
		{"-6.1", 0, 0, false},
	}
	for _, test := range tests {
		k, err := ParseKernel(test.in)
		if (err == nil) != test.ok || test.ok && (k.Major != test.major || k.Minor != test.minor) {
			t.Errorf("ParseKernel(%q) = %+v, %v", test.in, k, err)
		}
	}
	k := Kernel{Major: 6, Minor: 1}
	for v, want := range map[[2]int]bool{{6, 1}: true, {6, 0}: true, {5, 19}: true, {6, 2}: false, {7, 0}: false} {
		if got := k.AtLeast(v[0], v[1]); got != want {
			t.Errorf("6.1 at least %v = %v", v, got)
		}
	}
}

func TestLandlockABI(t *testing.T) {
	for release, want := range map[string]int{
		"5.12.0": 0, "5.13.0": 1, "5.15.0": 1, "5.19.1": 2, "6.1.0": 2, "6.2.0": 3, "6.8.0": 4,
		"6.10.3": 5, "6.12.0": 6, "6.14.2": 6, "6.15.0": 7, "6.18.44": 7,
	} {
		k, err := ParseKernel(release)
		if err != nil {
			t.Fatal(err)
		}
		if got := LandlockABI(k); got != want {
			t.Errorf("LandlockABI(%s) = %d, want %d", release, got, want)
		}
	}
}

func TestPresets(t *testing.T) {
	names := Presets()
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
	for _, want := range []string{"debian-12-selinux", "debian-12-apparmor", "ubuntu-24.04", "fedora-42"} {
		if !slices.Contains(names, want) {
			t.Errorf("no preset %s", want)
		}
	}
	for _, name := range names {
		p, ok := Preset(name)
		if !ok || p.Name != name {
			t.Fatalf("Preset(%q) = %+v, %v", name, p, ok)
		}
		if p.Kernel.Major == 0 {
			t.Errorf("%s: kernel release does not parse", name)
		}
		if p.HasLSM("selinux") == Yes && p.HasLSM("apparmor") == Yes {
			t.Errorf("%s: SELinux and AppArmor exclude each other", name)
		}
		if (p.SELinux.State == Enforcing) != (p.HasLSM("selinux") == Yes) {
			t.Errorf("%s: SELinux state %v does not agree with the list", name, p.SELinux.State)
		}
		// A preset that shared memory with the table would let one caller
		// change what the next one gets.
		p.LSMs[0] = "changed"
		if q, _ := Preset(name); q.LSMs[0] == "changed" {
			t.Errorf("%s: shares memory with the table", name)
		}
	}
	if _, ok := Preset("beos"); ok {
		t.Error("Preset found beos")
	}
}

func TestJSONRoundTrip(t *testing.T) {
	for _, name := range Presets() {
		want, _ := Preset(name)
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Target
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s", name, text)
		}
	}
	var a Answer
	if a.UnmarshalText([]byte("perhaps")) == nil {
		t.Error("perhaps is no answer")
	}
	var s State
	if s.UnmarshalText([]byte("on")) == nil {
		t.Error("on is no state")
	}
}

func TestHasLSM(t *testing.T) {
	if got := (Target{}).HasLSM("yama"); got != Unknown {
		t.Errorf("unread list: %v", got)
	}
	if got := (Target{LSMs: []string{}}).HasLSM("yama"); got != No {
		t.Errorf("empty list: %v", got)
	}
}
