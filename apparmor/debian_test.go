// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// installed lists the profiles that the distribution's packages installed.
func installed(t testing.TB) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{"/etc/apparmor.d", "/usr/share/apparmor/extra-profiles"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !Ignored(e.Name()) {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		oracle.Missing(t, "no profiles in /etc/apparmor.d (apt: apparmor apparmor-profiles apparmor-profiles-extra)")
	}
	return files
}

// TestConfirmInstalledProfiles finds in the installed profiles the names that
// apparmor_parser finds, and prints them so that they mean the same.
func TestConfirmInstalledProfiles(t *testing.T) {
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	files := installed(t)
	env := Env{FS: os.DirFS("/"), Search: []string{"/etc/apparmor.d"}, Dir: "/", NoBuiltin: true}
	profiles := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(parser, "--config-file=/dev/null", "-QN", file)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		f, diags := Parse(file, text)
		var policy *Policy
		if !diags.HasErrors() {
			roundTrip(t, file, f)
			policy, diags = Resolve(f, env)
		}
		if (err == nil) != (policy != nil) {
			t.Errorf("%s: %v, apparmor_parser: %v %s", file, diags.Err(), err, &stderr)
			continue
		}
		if policy == nil {
			continue // both refuse it: a local/ file is missing, for example
		}
		var got []string
		for _, p := range policy.Profiles {
			got = append(got, p.FullName())
		}
		want := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: profiles %q, apparmor_parser: %q", file, got, want)
		}
		profiles += len(got)
	}
	t.Logf("%d files, %d profiles", len(files), profiles)
}
