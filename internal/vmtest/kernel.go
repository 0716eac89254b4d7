// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// kernelImage is an unpacked kernel package.
type kernelImage struct {
	image   string // vmlinuz
	release string
	deps    map[string][]string // module name → paths, itself last
}

// kernelPackages are the meta packages that name a suitable kernel, the one
// that the project is tested with first: Debian's, then Ubuntu's.
var kernelPackages = []string{"linux-image-cloud-amd64", "linux-image-virtual"}

var imagePackage = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-[0-9][^\s]*)`)

// findKernel unpacks the distribution's kernel into the cache, once.
func findKernel(t *testing.T) *kernelImage {
	t.Helper()
	cache := oracle.CacheDir(t, "kernel")
	unlock := lock(t, filepath.Join(cache, "lock"))
	defer unlock()
	for _, meta := range kernelPackages {
		out, err := exec.Command("apt-cache", "depends", meta).Output()
		if err != nil {
			continue
		}
		m := imagePackage.FindSubmatch(out)
		if m == nil {
			continue
		}
		name := string(m[1])
		dir := filepath.Join(cache, name)
		if k, err := openKernel(dir); err == nil {
			return k
		}
		if err := unpack(cache, dir, name); err != nil {
			t.Logf("vmtest: %v", err)
			continue
		}
		k, err := openKernel(dir)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	// Package lists may be gone while an unpacked kernel is still there.
	dirs, _ := filepath.Glob(filepath.Join(cache, "linux-image-*"))
	slices.Sort(dirs)
	for _, dir := range slices.Backward(dirs) {
		if k, err := openKernel(dir); err == nil {
			return k
		}
	}
	oracle.Missing(t, "no kernel package can be had (apt: %s)", strings.Join(kernelPackages, " or "))
	return nil
}

// unpack downloads the package, and the one that holds its modules where that
// is another, and unpacks both; the folder appears whole or not at all.
func unpack(cache, dir, name string) error {
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	names := []string{name, strings.Replace(name, "linux-image-", "linux-modules-", 1)}
	for i, n := range names {
		cmd := exec.Command("apt-get", "download", "-q", n)
		cmd.Dir = tmp
		if msg, err := cmd.CombinedOutput(); err != nil {
			if i > 0 {
				break // Debian has no separate modules package
			}
			return fmt.Errorf("apt-get download %s: %w: %s", n, err, msg)
		}
		debs, _ := filepath.Glob(filepath.Join(tmp, n+"_*.deb"))
		if len(debs) != 1 {
			return fmt.Errorf("apt-get download %s: no package came", n)
		}
		if msg, err := exec.Command("dpkg-deb", "-x", debs[0], root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb: %w: %s", err, msg)
		}
	}
	return os.Rename(root, dir)
}

func openKernel(dir string) (*kernelImage, error) {
	k := &kernelImage{deps: map[string][]string{}}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	switch newer, _ := filepath.Glob(filepath.Join(dir, "usr", "lib", "modules", "*", "vmlinuz")); {
	case err == nil && len(images) == 1:
		k.image = images[0]
		k.release = strings.TrimPrefix(filepath.Base(k.image), "vmlinuz-")
	case len(newer) == 1:
		k.image = newer[0]
		k.release = filepath.Base(filepath.Dir(k.image))
	default:
		return nil, fmt.Errorf("vmtest: no kernel in %s", dir)
	}
	k.deps, err = moduleDeps(dir, k.release)
	return k, err
}

// moduleDeps reads the modules' own "depends=" fields: depmod has not run in an
// unpacked package.
func moduleDeps(dir, release string) (map[string][]string, error) {
	base := filepath.Join(dir, "lib", "modules", release)
	if _, err := os.Stat(base); err != nil {
		base = filepath.Join(dir, "usr", "lib", "modules", release)
	}
	paths := map[string]string{}
	err := filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(strings.TrimSuffix(path, ".xz"), ".ko") {
			paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if f, err := os.Open(filepath.Join(base, "modules.builtin")); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			paths[moduleName(s.Text())] = "" // part of the kernel
		}
	}
	deps := map[string][]string{}
	for name, p := range paths {
		deps[name] = []string{p}
	}
	return deps, nil
}

func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".xz"), ".ko"), "-", "_")
}

var dependsField = regexp.MustCompile(`\x00depends=([^\x00]*)\x00`)

// resolve returns the files of the modules and of all that they depend on, in
// the order to load them.
func (k *kernelImage) resolve(names []string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		if seen[name] {
			return nil
		}
		seen[name] = true
		p, ok := k.deps[name]
		if !ok {
			return fmt.Errorf("vmtest: kernel %s has no module %s", k.release, name)
		}
		if p[0] == "" {
			return nil
		}
		b, err := readModule(p[0])
		if err != nil {
			return err
		}
		if m := dependsField.FindSubmatch(b); m != nil {
			for dep := range strings.SplitSeq(string(m[1]), ",") {
				if dep == "" {
					continue
				}
				if err := visit(dep); err != nil {
					return err
				}
			}
		}
		order = append(order, p[0])
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// suiteKernel is the kernel of another release of Debian, unpacked into the
// cache by the hash of its packages.
func suiteKernel(t *testing.T, suite string) *kernelImage {
	t.Helper()
	s := debian.OpenSuite(t, suite)
	parts := s.Depends(t, kernelPackages[0], func(dep string) bool {
		for _, prefix := range []string{"linux-image-", "linux-binary-", "linux-modules-", "linux-base-"} {
			if rest, ok := strings.CutPrefix(dep, prefix); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
				return true
			}
		}
		return false
	})
	if len(parts) < 2 {
		oracle.Missing(t, "suite %s names no kernel", suite)
	}
	k, err := openKernel(s.Unpack(t, parts[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// readModule reads a module, which newer packages compress.
func readModule(path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	out, err := exec.Command("xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("xz %s (apt: xz-utils): %w", path, err)
	}
	return out, nil
}

// lock keeps two test binaries from unpacking into one place.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
