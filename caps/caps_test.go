// SPDX-License-Identifier: Apache-2.0

package caps

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want Capability
		ok   bool
	}{
		{"CAP_SYS_ADMIN", SysAdmin, true},
		{"sys_admin", SysAdmin, true},
		{"cap_Sys_Admin", SysAdmin, true},
		{"CHOWN", Chown, true},
		{"CAP_CHECKPOINT_RESTORE", CheckpointRestore, true},
		{"CAP_41", 41, true},
		{"0", Chown, true},
		{"63", 63, true},
		{"64", 0, false},
		{"041", 0, false},
		{"+1", 0, false},
		{"", 0, false},
		{"CAP_", 0, false},
		{"CAP_CAP_CHOWN", 0, false},
		{"sys-admin", 0, false},
	}
	for _, test := range tests {
		got, err := Parse(test.in)
		if (err == nil) != test.ok || got != test.want {
			t.Errorf("Parse(%q) = %v, %v; want %v, ok %v", test.in, got, err, test.want, test.ok)
		}
		if err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("Parse(%q): error %v is not ErrUnknown", test.in, err)
		}
	}
	for c := Capability(0); c <= maxCapability; c++ {
		for _, spelling := range []string{c.String(), c.Name()} {
			if got, err := Parse(spelling); err != nil || got != c {
				t.Errorf("Parse(%q) = %v, %v; want %v", spelling, got, err, c)
			}
		}
	}
}

func TestDockerDefault(t *testing.T) {
	if Docker.Len() != 14 {
		t.Errorf("Docker has %d capabilities, want 14: %v", Docker.Len(), Docker)
	}
	// CapEff of a container that Docker starts with no options.
	if got, want := Docker.Hex(), "00000000a80425fb"; got != want {
		t.Errorf("Docker = %s, want %s", got, want)
	}
}

func TestSetAlgebra(t *testing.T) {
	a, b := Of(Chown, SysAdmin), Of(SysAdmin, BPF, 63)
	if got := a.Union(b); got != Of(Chown, SysAdmin, BPF, 63) {
		t.Errorf("union = %v", got)
	}
	if got := a.Intersect(b); got != Of(SysAdmin) {
		t.Errorf("intersection = %v", got)
	}
	if got := b.Minus(a); got != Of(BPF, 63) {
		t.Errorf("difference = %v", got)
	}
	if !Of(SysAdmin).SubsetOf(a) || b.SubsetOf(a) {
		t.Error("subset is wrong")
	}
	if a.With(200) != a || a.Without(200) != a || a.Has(200) {
		t.Error("a number above 63 must change nothing")
	}
	if a.Without(SysAdmin) != Of(Chown) {
		t.Error("without is wrong")
	}
	if All.Len() != int(Last)+1 || !Docker.SubsetOf(All) {
		t.Errorf("All = %v", All.Hex())
	}
	for want, s := range map[string]Set{"none": 0, "all": All, "chown,41": Of(Chown, 41)} {
		if s.String() != want {
			t.Errorf("String = %q, want %q", s, want)
		}
	}
}

func TestSetText(t *testing.T) {
	for _, s := range []Set{0, All, Docker, Of(CheckpointRestore), Of(45), 1<<64 - 1} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Set
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s -> %v, %v", text, back, err)
		}
		if back, err := ParseHex(s.Hex()); err != nil || back != s {
			t.Errorf("%s -> %v, %v", s.Hex(), back, err)
		}
	}
	_, err := ParseSet([]string{"chown", "nonsense", "ALL", "other"})
	if err == nil || !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), "other") {
		t.Errorf("both unknown names must be reported: %v", err)
	}
	for _, bad := range []string{"", "x", "1ffffffffffffffff", "-1"} {
		if _, err := ParseHex(bad); err == nil {
			t.Errorf("ParseHex(%q) succeeded", bad)
		}
	}
}

// TestConfirmNames compares the table with the kernel's own header, where it
// is installed.
func TestConfirmNames(t *testing.T) {
	header, err := os.ReadFile("/usr/include/linux/capability.h")
	if err != nil {
		t.Skipf("no kernel headers to compare with: %v", err)
	}
	defines := regexp.MustCompile(`(?m)^#define (CAP_[A-Z_]+)\s+(\d+)$`).FindAllSubmatch(header, -1)
	if len(defines) < 38 {
		t.Fatalf("only %d capabilities found in the header", len(defines))
	}
	for _, d := range defines {
		n, err := strconv.Atoi(string(d[2]))
		if err != nil {
			t.Fatal(err)
		}
		if got := Capability(n).String(); got != string(d[1]) {
			t.Errorf("capability %d is %s, the kernel calls it %s", n, got, d[1])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"CAP_SYS_ADMIN", "chown", "CAP_41", "064", "ALL", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c, err := Parse(name)
		if err != nil {
			return
		}
		if again, err := Parse(c.String()); err != nil || again != c {
			t.Fatalf("%q -> %v -> %v, %v", name, c, again, err)
		}
	})
}
