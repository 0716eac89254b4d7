// SPDX-License-Identifier: Apache-2.0

// Package freestanding builds the programs of this project that are written in C
// and stand on no library, with the system's C compiler. They are checked in as
// blobs beside a sum file, which records the sources, the blob and the compiler;
// the same sources and compiler give the same bytes.
//
// Only generators and tests use it.
package freestanding

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Program is how one program is built for one machine.
type Program struct {
	// Name is that of the blob and the sum file, without their extensions.
	Name string
	// Arch is the GOARCH that it runs on.
	Arch string
	// CFlags are for every C file. ScalarFlags are for all but the VectorFiles,
	// which get VectorFlags.
	CFlags, ScalarFlags, VectorFlags []string
	// VectorFiles may use vector registers.
	VectorFiles []string
	LDFlags     []string
}

// Shim is the shield's shim. It uses no vector registers outside of VectorFiles,
// which save and restore them: the program's are live while the shim works. It is
// position-independent because it is linked above 4 GiB.
func Shim() Program {
	return Program{
		Name: "shim", Arch: "amd64",
		CFlags: []string{
			"-std=gnu11", "-O2", "-ffreestanding", "-fpie", "-fno-stack-protector", "-fcf-protection=none",
			"-fno-asynchronous-unwind-tables", "-fno-delete-null-pointer-checks", "-fno-strict-aliasing",
			"-fno-tree-loop-distribute-patterns", "-fno-ident", "-fwrapv", "-Wall", "-Wextra",
		},
		VectorFiles: []string{"aes.c"},
		ScalarFlags: []string{"-mgeneral-regs-only"},
		VectorFlags: []string{"-mno-avx", "-msse4.1", "-maes", "-mpclmul"},
		LDFlags: []string{
			"-nostdlib", "-static", "-no-pie", "-Wl,-Ttext-segment=0x100000000000", "-Wl,--build-id=none",
			"-Wl,-z,noexecstack", "-Wl,-z,norelro", "-s",
		},
	}
}

// LastStep is the last step before a container's workload. Its stack frames are
// bounded; a larger one does not compile.
func LastStep(arch string) Program {
	p := Program{
		Name: "step-" + arch, Arch: arch,
		CFlags: []string{
			"-std=gnu11", "-Os", "-ffreestanding", "-fno-pie", "-fno-stack-protector", "-fno-unwind-tables",
			"-fno-asynchronous-unwind-tables", "-fno-delete-null-pointer-checks", "-fno-strict-aliasing",
			"-fno-tree-loop-distribute-patterns", "-fno-ident", "-fwrapv", "-Wall", "-Wextra",
			"-Werror=frame-larger-than=1024", "-mgeneral-regs-only",
		},
		LDFlags: []string{
			"-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro",
			"-Wl,-z,noseparate-code", "-s",
		},
	}
	if arch == "amd64" {
		p.CFlags = append(p.CFlags, "-fcf-protection=none")
	}
	return p
}

// Sources lists the files of dir that go into a program, sorted.
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

// SourceHash is the SHA-256 over names and contents of the sources in dir and over
// the flags.
func (p Program) SourceHash(dir string) (string, error) {
	files, err := Sources(dir)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, p.CFlags, p.VectorFiles, p.LDFlags)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// crossPrefix begins the names of the compilers for other machines.
var crossPrefix = map[string]string{"amd64": "x86_64-linux-gnu-", "arm64": "aarch64-linux-gnu-"}

// Compiler finds the C compiler and gives the line that names its version. It is
// $CC, or cc, or the cross compiler when the program is for another machine.
func (p Program) Compiler() (path, version string, err error) {
	name := os.Getenv("CC")
	if name == "" {
		name = "cc"
	}
	if p.Arch != runtime.GOARCH {
		name = crossPrefix[p.Arch] + "gcc"
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

// Build compiles the sources in dir and gives the program.
func (p Program) Build(dir string) ([]byte, error) {
	cc, _, err := p.Compiler()
	if err != nil {
		return nil, err
	}
	files, err := Sources(dir)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "palisade-freestanding-")
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
		more := p.ScalarFlags
		if slices.Contains(p.VectorFiles, base) {
			more = p.VectorFlags
		}
		obj := filepath.Join(tmp, base+".o")
		cmd := exec.Command(cc, slices.Concat(p.CFlags, more, []string{"-c", base, "-o", obj})...)
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
	out := filepath.Join(tmp, p.Name)
	cmd := exec.Command(cc, slices.Concat(p.LDFlags, []string{"-o", out}, objects)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("link: %w\n%s", err, msg)
	}
	return os.ReadFile(out)
}

// ErrStale says that a checked-in blob does not fit its sources.
var ErrStale = errors.New("the blob was built from other sources: run go generate")

// Generate builds the blob from src beside it, and records in the sum file what it
// was built from. A blob that fits the sources is kept when it was made by another
// compiler, or when none is here; note says so. The error wraps [ErrStale] when
// the sources changed and there is no compiler.
func (p Program) Generate() (note string, err error) {
	sources, err := p.SourceHash("src")
	if err != nil {
		return "", err
	}
	recorded, _ := os.ReadFile(p.Name + ".sum") // none before the first build
	fits := strings.Contains(string(recorded), "sources "+sources+"\n")
	_, version, err := p.Compiler()
	if err != nil {
		if fits {
			return fmt.Sprintf("no C compiler (%v): %s.bin is kept, it was built from these sources", err, p.Name), nil
		}
		return "", fmt.Errorf("%s.bin: %w: %w", p.Name, err, ErrStale)
	}
	if fits && !strings.Contains(string(recorded), "compiler "+version+"\n") {
		return fmt.Sprintf("%s.bin is kept: it was built from these sources by another compiler than %s", p.Name, version), nil
	}
	blob, err := p.Build("src")
	if err != nil {
		return "", err
	}
	sum := fmt.Sprintf("sources %s\nblob %x\ncompiler %s\n", sources, sha256.Sum256(blob), version)
	return "", errors.Join(os.WriteFile(p.Name+".bin", blob, 0o644), os.WriteFile(p.Name+".sum", []byte(sum), 0o644))
}

// Check holds a blob to the sources in src and to its sum file. With the compiler
// that made it here it builds them again and compares the bytes; otherwise note
// says why it did not. The error wraps [ErrStale].
func (p Program) Check(blob []byte) (note string, err error) {
	sum, err := os.ReadFile(p.Name + ".sum")
	if err != nil {
		return "", err
	}
	sources, err := p.SourceHash("src")
	if err != nil {
		return "", err
	}
	for _, line := range []string{"sources " + sources, fmt.Sprintf("blob %x", sha256.Sum256(blob))} {
		if !strings.Contains(string(sum), line+"\n") {
			return "", fmt.Errorf("%s.sum does not say %q: %w", p.Name, line, ErrStale)
		}
	}
	_, version, err := p.Compiler()
	if err != nil {
		return fmt.Sprintf("%s: bytes are not compared: %v", p.Name, err), nil
	}
	again, err := p.Build("src")
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(sum), "compiler "+version+"\n") {
		return fmt.Sprintf("%s: bytes are not compared: built with %s, the blob with another compiler", p.Name, version), nil
	}
	if string(again) != string(blob) {
		return "", fmt.Errorf("%s.bin: the sources build to other bytes: %w", p.Name, ErrStale)
	}
	return "", nil
}
