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

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestConfirmDebianProfiles finds in the profiles of the distribution's packages
// the names that apparmor_parser finds, and prints them so that they mean the same.
func TestConfirmDebianProfiles(t *testing.T) {
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	base, files := debian.Profiles(t)
	etc := filepath.Join(base, "etc/apparmor.d")
	env := Env{FS: os.DirFS("/"), Search: []string{etc}, Dir: etc, NoBuiltin: true}
	// Packages that a host may have besides install files without a profile.
	for name, text := range map[string]string{"empty": "", "comment": "# This file is intentionally empty.\n", "tunables": "@{X} = a b\n", "two": "profile a { }\nprofile b flags=(complain) { ^h { } }\n"} {
		file := filepath.Join(etc, "of-another-package-"+name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	profiles := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(parser, "--config-file=/dev/null", "--base", etc, "-I", etc, "-QN", file)
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
		want := strings.Fields(string(out))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: profiles %q, apparmor_parser: %q", file, got, want)
		}
		profiles += len(got)
	}
	if profiles < 100 {
		t.Errorf("only %d profiles in %d files", profiles, len(files))
	}
}
