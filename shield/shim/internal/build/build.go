// SPDX-License-Identifier: Apache-2.0

// Package build makes the shim's blob from its C and assembly sources with the
// system's C compiler. The same sources and compiler give the same bytes.
package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Flags of every C file: no library, no vector registers (the program's are live
// while the shim works), position-independent code because the shim is linked
// above 4 GiB.
var cflags = []string{
	"-std=gnu11", "-O2", "-ffreestanding", "-fpie", "-fno-stack-protector", "-fcf-protection=none",
	"-fno-asynchronous-unwind-tables", "-fno-delete-null-pointer-checks", "-fno-strict-aliasing",
	"-fno-tree-loop-distribute-patterns", "-fno-ident", "-fwrapv", "-Wall", "-Wextra",
}

// vectorFiles may use vector registers; they save and restore them.
var vectorFiles = []string{"aes.c"}

var ldflags = []string{
	"-nostdlib", "-static", "-no-pie", "-Wl,-Ttext-segment=0x100000000000", "-Wl,--build-id=none",
	"-Wl,-z,noexecstack", "-Wl,-z,norelro", "-s",
}

// Sources lists the files of dir that go into the blob, sorted.
func Sources(dir string) ([]string, error) {
	var out []string
	for _, pattern := range []string{"*.h", "*.S", "*.c"} {
		m, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		out = append(out, m...)
	}
	slices.Sort(out)
	return out, nil
}

// SourceHash is the SHA-256 over names and contents of the sources and over the flags.
func SourceHash(dir string) (string, error) {
	files, err := Sources(dir)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, cflags, vectorFiles, ldflags)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Compiler finds the C compiler ($CC, or cc) and gives the line that names its version.
func Compiler() (path, version string, err error) {
	name := os.Getenv("CC")
	if name == "" {
		name = "cc"
	}
	path, err = exec.LookPath(name)
	if err != nil {
		return "", "", err
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", path, err)
	}
	version, _, _ = strings.Cut(string(out), "\n")
	return path, version, nil
}

// Build compiles the sources in dir and gives the blob.
func Build(dir string) ([]byte, error) {
	cc, _, err := Compiler()
	if err != nil {
		return nil, err
	}
	files, err := Sources(dir)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "palisade-shim-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	// The entry code goes first, so that the order does not depend on names.
	var objects []string
	for _, f := range files {
		base := filepath.Base(f)
		if strings.HasSuffix(base, ".h") {
			continue
		}
		args := slices.Clone(cflags)
		if slices.Contains(vectorFiles, base) {
			args = append(args, "-mno-avx", "-msse4.1", "-maes", "-mpclmul")
		} else {
			args = append(args, "-mgeneral-regs-only")
		}
		obj := filepath.Join(tmp, base+".o")
		args = append(args, "-c", base, "-o", obj)
		cmd := exec.Command(cc, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compile %s: %w\n%s", base, err, out)
		}
		if base == "entry.S" {
			objects = slices.Insert(objects, 0, obj)
		} else {
			objects = append(objects, obj)
		}
	}
	out := filepath.Join(tmp, "shim")
	cmd := exec.Command(cc, slices.Concat(ldflags, []string{"-o", out}, objects)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("link: %w\n%s", err, msg)
	}
	return os.ReadFile(out)
}
