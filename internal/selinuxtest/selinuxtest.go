// SPDX-License-Identifier: Apache-2.0

// Package selinuxtest compiles small SELinux policies for tests with
// checkpolicy. What it makes is kept in the test cache.
package selinuxtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Compile compiles policy source into a version of the binary format; flags are
// those of checkpolicy: "-M" for MLS, "-t", "xen". It reports false when
// checkpolicy refuses, for example because the version cannot hold the policy.
func Compile(tb testing.TB, conf []byte, version int, flags ...string) ([]byte, bool) {
	tb.Helper()
	checkpolicy := oracle.Tool(tb, "checkpolicy", "apt: checkpolicy")
	h := sha256.New()
	h.Write(conf)
	for _, part := range append([]string{strconv.Itoa(version)}, flags...) {
		h.Write([]byte("\x00" + part))
	}
	out := filepath.Join(oracle.CacheDir(tb, "checkpolicy"), hex.EncodeToString(h.Sum(nil))[:24])
	if data, err := os.ReadFile(out); err == nil {
		return data, len(data) > 0
	}
	dir := tb.TempDir()
	in, bin := filepath.Join(dir, "policy.conf"), filepath.Join(dir, "policy")
	if err := os.WriteFile(in, conf, 0o644); err != nil {
		tb.Fatal(err)
	}
	args := append(slices.Clone(flags), "-c", strconv.Itoa(version), "-o", bin, in)
	var data []byte
	if msg, err := exec.Command(checkpolicy, args...).CombinedOutput(); err == nil {
		if data, err = os.ReadFile(bin); err != nil {
			tb.Fatal(err)
		}
	} else {
		lines := strings.Split(strings.TrimSpace(string(msg)), "\n")
		tb.Logf("checkpolicy %s: %v: %s", strings.Join(args[:len(args)-1], " "), err, lines[len(lines)-1])
	}
	// A refusal is kept too, as an empty file.
	tmp := out + "." + strconv.Itoa(os.Getpid())
	if err := errors.Join(os.WriteFile(tmp, data, 0o644), os.Rename(tmp, out)); err != nil {
		tb.Fatal(err)
	}
	return data, len(data) > 0
}

// CompileFile is [Compile] for a file; a refusal fails the test.
func CompileFile(tb testing.TB, path string, version int, flags ...string) []byte {
	tb.Helper()
	conf, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	data, ok := Compile(tb, conf, version, flags...)
	if !ok {
		tb.Fatalf("checkpolicy refuses %s for version %d", path, version)
	}
	return data
}
