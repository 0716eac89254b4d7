// SPDX-License-Identifier: Apache-2.0

// Package oracle finds other people's implementations and test inputs for tests
// that compare with them. What is missing skips the test and says what to
// install; with REQUIRE_ORACLES=1 it fails the test instead, so that a machine
// that should have everything cannot pass by having nothing.
package oracle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Required tells whether a missing oracle is a failure.
func Required() bool { return os.Getenv("REQUIRE_ORACLES") == "1" }

// Missing skips the test, or fails it where oracles are required.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if Required() {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// Root skips the test of another user than the superuser, or fails it where oracles
// are required; why says what the superuser does in it.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "root: %s", why)
	}
}

// Tool returns the path of a program; install says what brings it, for example
// "apt: secilc". /usr/sbin and /sbin are searched too.
func Tool(tb testing.TB, name, install string) string {
	tb.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p := filepath.Join(dir, name); isExecutable(p) {
			return p
		}
	}
	Missing(tb, "no %s here (%s)", name, install)
	return ""
}

func isExecutable(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// Module is the folder of a published Go module, path@version, in the module cache.
func Module(tb testing.TB, module string) string {
	tb.Helper()
	cmd := exec.Command(Tool(tb, "go", "https://go.dev/dl"), "mod", "download", "-json", module)
	cmd.Dir = tb.TempDir()
	out, err := cmd.Output()
	if err != nil {
		Missing(tb, "%s cannot be downloaded: %v %s", module, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		tb.Fatal(err)
	}
	return m.Dir
}

// ModuleRoot is the folder that holds go.mod.
func ModuleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// Corpus returns a folder of the shared test inputs: below $PALISADE_CORPUS, or
// below ../shared/corpus beside the module. The project does not ship it.
func Corpus(tb testing.TB, sub string) string {
	tb.Helper()
	dir := os.Getenv("PALISADE_CORPUS")
	if dir == "" {
		dir = filepath.Join(ModuleRoot(tb), "..", "shared", "corpus")
	}
	dir = filepath.Join(dir, filepath.FromSlash(sub))
	if _, err := os.Stat(dir); err != nil {
		// Not shipped with the project, so never required.
		tb.Skipf("no test inputs at %s (set PALISADE_CORPUS)", dir)
	}
	return dir
}

// CacheDir is a folder outside the module for what tests download or build; its
// content may vanish at any time and must be named by what it was made from.
func CacheDir(tb testing.TB, sub string) string {
	tb.Helper()
	base := os.Getenv("PALISADE_TEST_CACHE")
	if base == "" {
		c, err := os.UserCacheDir()
		if err != nil {
			c = os.TempDir()
		}
		base = filepath.Join(c, "palisade-test")
	}
	dir := filepath.Join(base, filepath.FromSlash(sub))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// CHelper builds a test-only C program and returns its path. flags are given to
// the compiler behind the source, "-lsepol" for example. The binary is kept by
// the hash of its source and flags. A missing compiler, header or library is a
// missing oracle: install says what brings it. That a program of ours does not
// compile where those are there is a failure.
func CHelper(tb testing.TB, source, install string, flags ...string) string {
	tb.Helper()
	cc := Tool(tb, "cc", "apt: gcc libc6-dev")
	src, err := os.ReadFile(source)
	if err != nil {
		tb.Fatal(err)
	}
	h := sha256.New()
	h.Write(src)
	h.Write([]byte(strings.Join(flags, "\x00")))
	name := strings.TrimSuffix(filepath.Base(source), ".c") + "-" + hex.EncodeToString(h.Sum(nil))[:16]
	out := filepath.Join(CacheDir(tb, "chelper"), name)
	if isExecutable(out) {
		return out
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), name+".*")
	if err != nil {
		tb.Fatal(err)
	}
	tmp.Close()
	defer os.Remove(tmp.Name())
	args := append([]string{"-O2", "-o", tmp.Name(), source}, flags...)
	if msg, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		if why := lacks(tb, cc, source, src, flags); why != "" {
			Missing(tb, "cannot build %s (%s): %s", filepath.Base(source), install, why)
		}
		tb.Fatalf("build %s: %v\n%s", filepath.Base(source), err, msg)
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		tb.Fatal(err)
	}
	return out
}

var asked = regexp.MustCompile(`^#\s*(include\s*<|define|undef|if|ifdef|ifndef|elif|else|endif)`)

// lacks builds a program that has the headers and flags of a helper and does
// nothing, and tells what keeps even that from being built; "" says that nothing does.
func lacks(tb testing.TB, cc, source string, src []byte, flags []string) string {
	tb.Helper()
	var probe bytes.Buffer
	for line := range bytes.Lines(src) {
		// Conditions stay, so that a header of another system is not asked for; headers
		// in quotes are our own.
		if d := strings.TrimLeft(string(line), " \t"); asked.MatchString(d) && !strings.HasSuffix(strings.TrimSpace(d), "\\") {
			probe.Write(line)
		}
	}
	probe.WriteString("\nint main(void) { return 0; }\n")
	dir := tb.TempDir()
	file := filepath.Join(dir, "probe.c")
	if err := os.WriteFile(file, probe.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	args := append([]string{"-I", filepath.Dir(source), "-o", filepath.Join(dir, "probe"), file}, flags...)
	msg, err := exec.Command(cc, args...).CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error() + "\n" + string(msg))
}
