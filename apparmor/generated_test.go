// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// sourceTree is the source of AppArmor, whose generators make the suites:
// $APPARMOR_SOURCE is the folder that holds parser/tst.
func sourceTree(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("APPARMOR_SOURCE")
	if dir == "" {
		t.Skip("APPARMOR_SOURCE does not name a source tree of AppArmor")
	}
	if _, err := os.Stat(filepath.Join(dir, "parser", "tst", "gen-xtrans.py")); err != nil {
		t.Fatalf("APPARMOR_SOURCE: %v", err)
	}
	return dir
}

// TestConfirmGenerated runs the suites that upstream generates: exec
// transitions, dbus rules and conditionals, 71,496 profiles. -short takes every
// fiftieth.
func TestConfirmGenerated(t *testing.T) {
	src := sourceTree(t)
	python := oracle.Tool(t, "python3", "apt: python3")
	features := filepath.Join(src, "parser", "tst", "features_files", "features.all")
	for _, script := range []string{"gen-xtrans.py", "gen-dbus.py", "gen-conditionals.py"} {
		t.Run(script, func(t *testing.T) {
			work := t.TempDir()
			dir := filepath.Join(work, "simple_tests")
			path := filepath.Join(src, "parser", "tst", script)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// The generators write into folders that the Makefile has made.
			for _, folder := range regexp.MustCompile(`generated_\w+`).FindAll(text, -1) {
				if err := os.MkdirAll(filepath.Join(dir, string(folder)), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			gen := exec.Command(python, path)
			gen.Dir = work
			if out, err := gen.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
			env := suiteEnv(t, dir, features)
			n, wrong := 0, 0
			for i, c := range loadSuite(t, dir) {
				if c.Todo || c.Disabled || testing.Short() && i%50 != 0 {
					continue
				}
				n++
				f, diags := Parse("stdin", c.Text)
				if !diags.HasErrors() {
					_, diags = Resolve(f, env)
				}
				if got := !diags.HasErrors(); got != c.Pass {
					if wrong++; wrong <= 20 {
						t.Errorf("%s: accepted=%v, want %v: %v\n%s", c.Name, got, c.Pass, diags.Err(), c.Text)
					}
				}
			}
			if n == 0 {
				t.Fatalf("%s made no profiles", script)
			}
			t.Logf("%d profiles, %d differ", n, wrong)
		})
	}
}
