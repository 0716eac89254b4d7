// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestConfirmAppArmorSuite compiles upstream's accept/reject profiles through
// the command, as a user would: exit code 0 or 1. -short takes every tenth.
func TestConfirmAppArmorSuite(t *testing.T) {
	root := oracle.Corpus(t, "apparmor")
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	suite := filepath.Join(root, "simple_tests")
	// Some profiles name files relative to a folder tst that holds the suite.
	work := filepath.Join(t.TempDir(), "tst")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(suite, filepath.Join(work, "simple_tests")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(work)
	n, seen, wrong := 0, 0, 0
	err = filepath.WalkDir(suite, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".sd") {
			return err
		}
		if seen++; testing.Short() && seen%10 != 0 {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var profile []byte
		want, skip := 1, false
		for _, line := range bytes.SplitAfter(text, []byte("\n")) {
			switch {
			case bytes.HasPrefix(line, []byte("#=EXRESULT PASS")):
				want = 0
			case bytes.HasPrefix(line, []byte("#=TODO")), bytes.HasPrefix(line, []byte("#=DISABLED")):
				skip = true
			case !bytes.HasPrefix(line, []byte("#=")):
				profile = append(profile, line...)
			}
		}
		if skip {
			return nil
		}
		n++
		var out, errs bytes.Buffer
		got := Main([]string{
			"apparmor", "compile", "--features", filepath.Join(root, "features", "parser-tests.all.features"), "-I", suite, "-",
		}, bytes.NewReader(profile), &out, &errs)
		if got != want {
			wrong++
			t.Errorf("%s: exit code %d, want %d\n%s", p, got, want, &errs)
		}
		if out.Len() > 0 && got != 0 {
			t.Errorf("%s: exit code %d with %d bytes of policy", p, got, out.Len())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 100 {
		t.Errorf("only %d profiles in %s", n, suite)
	}
	t.Logf("%d profiles, %d differ", n, wrong)
}

// TestConfirmAppArmorEquality has upstream's equality.sh compile its pairs of
// profiles, which are to become the same policy or different ones, with the
// command. It is the script of AppArmor 4 and later; $APPARMOR_SOURCE names the
// source tree.
func TestConfirmAppArmorEquality(t *testing.T) {
	src := os.Getenv("APPARMOR_SOURCE")
	if src == "" {
		t.Skip("APPARMOR_SOURCE does not name a source tree of AppArmor")
	}
	bash := oracle.Tool(t, "bash", "apt: bash")
	palisade, err := exec.LookPath("palisade") // this test binary, see TestMain
	if err != nil {
		t.Fatal(err)
	}
	// The script calls the parser with flags of its own; only the features matter.
	parser := filepath.Join(t.TempDir(), "parser")
	script := `#!/bin/bash
while [ $# -gt 0 ]; do case $1 in --features-file) features=$2; shift;; esac; shift; done
exec ` + palisade + ` apparmor compile --level 4 --features "$features" -q -
`
	if err := os.WriteFile(parser, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "equality.sh")
	cmd.Dir = filepath.Join(src, "parser", "tst")
	cmd.Env = append(os.Environ(), "APPARMOR_PARSER="+parser)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte(".")); n < 100 {
		t.Fatalf("%d pairs were compared\n%s", n, out)
	}
}
