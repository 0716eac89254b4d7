// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"io/fs"
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
			if errors.Is(err, fs.ErrNotExist) {
				t.Skip("this version does not have it")
			}
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
			step := 1
			if testing.Short() {
				step = 50
			}
			confirmSuite(t, dir, features, step)
		})
	}
}
