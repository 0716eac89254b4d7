// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// suiteFS shows the suite's folder both as include base and as the folder
// tst/simple_tests, relative to which some tests name files.
type suiteFS struct{ fs.FS }

func (s suiteFS) sub(name string) string {
	for _, p := range []string{"base", "tst/simple_tests"} {
		if name == p {
			return "."
		}
		if rest, ok := strings.CutPrefix(name, p+"/"); ok {
			return rest
		}
	}
	return "no such file"
}

func (s suiteFS) Open(name string) (fs.File, error) { return s.FS.Open(s.sub(name)) }

// suiteCase is one accept/reject test.
type suiteCase struct {
	Name           string
	Text           []byte
	Pass           bool
	Todo, Disabled bool
}

func parseSuiteCase(name string, text []byte) suiteCase {
	c := suiteCase{Name: name}
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		switch {
		case bytes.HasPrefix(line, []byte("#=EXRESULT PASS")):
			c.Pass = true
		case bytes.HasPrefix(line, []byte("#=EXRESULT")), bytes.HasPrefix(line, []byte("#=DESCRIPTION")):
		case bytes.HasPrefix(line, []byte("#=TODO")):
			c.Todo = true
		case bytes.HasPrefix(line, []byte("#=DISABLED")):
			c.Disabled = true
		default:
			c.Text = append(c.Text, line...)
		}
	}
	return c
}

func loadSuite(t testing.TB, dir string) []suiteCase {
	t.Helper()
	var cases []suiteCase
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".sd") {
			return err
		}
		text, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		cases = append(cases, parseSuiteCase(filepath.ToSlash(rel), text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Slice(cases, func(i, j int) bool { return cases[i].Name < cases[j].Name })
	return cases
}

func suiteEnv(t testing.TB, dir, features string) Env {
	t.Helper()
	text, err := os.ReadFile(features)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFeatures(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return Env{FS: suiteFS{os.DirFS(dir)}, Search: []string{"/base"}, Dir: "/tst", Kernel: f, ABI: f, NoBuiltin: true}
}

// suiteFiles are the folder of upstream's accept/reject tests and the features that
// go with them: all of them in a source tree that $APPARMOR_SOURCE names, else those of
// the corpus.
func suiteFiles(t testing.TB) (dir, features string) {
	if src := os.Getenv("APPARMOR_SOURCE"); src != "" {
		tst := filepath.Join(src, "parser", "tst")
		return filepath.Join(tst, "simple_tests"), filepath.Join(tst, "features_files", "features.all")
	}
	root := oracle.Corpus(t, "apparmor")
	return filepath.Join(root, "simple_tests"), filepath.Join(root, "features", "parser-tests.all.features")
}

// TestConfirmSimpleTests accepts and rejects what upstream's parser does.
func TestConfirmSimpleTests(t *testing.T) {
	dir, features := suiteFiles(t)
	confirmSuite(t, dir, features, 1)
}

// confirmSuite accepts and rejects what upstream's parser does, of the tests in a
// folder those of every step-th.
func confirmSuite(t *testing.T, dir, features string, step int) {
	t.Helper()
	env := suiteEnv(t, dir, features)
	n, wrong := 0, 0
	for i, c := range loadSuite(t, dir) {
		if c.Todo || c.Disabled || i%step != 0 {
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
		t.Fatalf("%s holds no tests", dir)
	}
	t.Logf("%d cases, %d differ", n, wrong)
}
