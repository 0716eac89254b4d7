// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"io/fs"
	"os"
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
		want, skip := exitNo, false
		for _, line := range bytes.SplitAfter(text, []byte("\n")) {
			switch {
			case bytes.HasPrefix(line, []byte("#=EXRESULT PASS")):
				want = exitDone
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
		if out.Len() > 0 && got != exitDone {
			t.Errorf("%s: exit code %d with %d bytes of policy", p, got, out.Len())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d profiles, %d differ", n, wrong)
}
