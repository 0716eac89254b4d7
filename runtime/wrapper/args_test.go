// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseArgs(t *testing.T) {
	tests := []struct {
		line     string
		command  string
		id       string
		bundle   string
		preserve int
		own      string
	}{
		{"create --bundle /b c1", "create", "c1", "/b", 0, ""},
		{"--root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s c1", "create", "c1", "/b", 0, ""},
		{"--root=/r --systemd-cgroup create -b /b c1", "create", "c1", "/b", 0, ""},
		{"--palisade-policy strict --root /r run --bundle=/b --preserve-fds=3 c1", "run", "c1", "/b", 3, "strict"},
		{"--palisade-policy=strict create --preserve-fds 2 --no-pivot --bundle /b c1", "create", "c1", "/b", 2, "strict"},
		{"exec --process /p --detach --pid-file /q c1", "exec", "c1", "", 0, ""},
		{"exec -t -e A=b --cwd / c1 sh -c ls", "exec", "c1", "", 0, ""},
		{"delete --force c1", "delete", "c1", "", 0, ""},
		{"delete -f c1", "delete", "c1", "", 0, ""},
		{"kill --all c1 9", "kill", "c1", "", 0, ""},
		{"--version", "", "", "", 0, ""},
		{"", "", "", "", 0, ""},
		{"list", "list", "", "", 0, ""},
		{"--cgroup-manager cgroupfs --log-level debug create --bundle /b c1", "create", "c1", "/b", 0, ""},
	}
	for _, tt := range tests {
		args := strings.Fields(tt.line)
		c, err := parseArgs(args)
		if err != nil {
			t.Errorf("%q: %v", tt.line, err)
			continue
		}
		bundle, _ := flag(c.flags, "bundle", "b")
		preserve, err := c.preserved()
		if err != nil {
			t.Errorf("%q: %v", tt.line, err)
		}
		if c.command != tt.command || c.id() != tt.id || bundle != tt.bundle || preserve != tt.preserve || c.own["policy"] != tt.own {
			t.Errorf("%q: command %q, ID %q, bundle %q, preserve %d, policy %q", tt.line, c.command, c.id(), bundle, preserve, c.own["policy"])
		}
		want := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "--palisade-") })
		if tt.own != "" && !strings.Contains(tt.line, "=strict") {
			want = want[1:] // the value
		}
		if !slices.Equal(c.args(), want) {
			t.Errorf("%q is passed on as %q", tt.line, c.args())
		}
	}
}

// TestArgsArePassedOn wants every argument that is not ours handed to the
// runtime, in its place.
func TestArgsArePassedOn(t *testing.T) {
	word := rapid.SampledFrom([]string{"create", "run", "exec", "start", "--root", "--root=/x", "--bundle", "-b", "/b", "c1", "--", "-t", "--cap", "x=y", "-", "--debug"})
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.SliceOf(word).Draw(t, "args")
		c, err := parseArgs(args)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.args(); !slices.Equal(got, args) {
			t.Fatalf("%q became %q", args, got)
		}
	})
}

func TestSetPreserved(t *testing.T) {
	for _, line := range []string{"create --bundle /b c1", "create --preserve-fds 1 --bundle /b c1", "create --preserve-fds=1 --bundle /b c1"} {
		c, err := parseArgs(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		c.setPreserved(4)
		if got, want := strings.Join(c.args(), " "), "create --preserve-fds 4 --bundle /b c1"; got != want {
			t.Errorf("%q became %q, want %q", line, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	if _, err := LoadConfig(map[string]string{"nosuch": "x"}); err == nil || !strings.Contains(err.Error(), "--palisade-nosuch") {
		t.Errorf("an unknown flag of ours: %v", err)
	}
	if _, err := LoadConfig(map[string]string{"on-mismatch": "maybe"}); err == nil {
		t.Error("a bad value was taken")
	}
	if _, err := LoadConfig(map[string]string{"config": "/nosuch"}); err == nil {
		t.Error("a configuration that is not there was taken")
	}
}
