// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Commands builds commands of this module and returns them as files of
// /usr/local/bin below root, a folder of the guest.
func Commands(t testing.TB, root string, names ...string) []File {
	t.Helper()
	bin := t.TempDir()
	args := []string{"build", "-o", bin + "/"}
	var files []File
	for _, name := range names {
		args = append(args, "./cmd/"+name)
		files = append(files, File{Guest: path.Join(root, "usr/local/bin", name), Host: filepath.Join(bin, name)})
	}
	build := exec.Command("go", args...)
	build.Dir, build.Env = oracle.ModuleRoot(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return files
}

var loaded = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// Libraries returns what the dynamic linker loads for programs of the host, each file
// once and at its own path below root, a folder of the guest. A static program loads
// nothing.
func Libraries(t testing.TB, root string, programs ...string) []File {
	t.Helper()
	ldd := oracle.Tool(t, "ldd", "apt: libc-bin")
	seen := map[string]bool{}
	var files []File
	for _, program := range programs {
		out, err := exec.Command(ldd, program).Output()
		if static := new(exec.ExitError); err != nil && !errors.As(err, &static) {
			t.Fatalf("ldd %s: %v", program, err)
		}
		for _, m := range loaded.FindAllStringSubmatch(string(out), -1) {
			if seen[m[1]] {
				continue
			}
			seen[m[1]] = true
			real, err := filepath.EvalSymlinks(m[1])
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, File{Guest: path.Join(root, m[1]), Host: real})
		}
	}
	return files
}

// EnterTree makes tree, a folder of the guest, its root: a mount of its own, from which
// runtimes can pivot away as on a host that has left its initramfs. folders are made in
// it first, as absolute paths.
func EnterTree(t testing.TB, tree string, folders ...string) {
	t.Helper()
	mount := func(source, target, fs string, flags uintptr) {
		t.Helper()
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, fs, flags, ""); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	mount(tree, tree, "", unix.MS_BIND)
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		mount(dir, tree+dir, "", unix.MS_BIND|unix.MS_REC)
	}
	for _, dir := range []string{"/tmp", "/run"} {
		mount("tmpfs", tree+dir, "tmpfs", 0)
	}
	for _, dir := range folders {
		if err := os.MkdirAll(tree+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chdir(tree); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chroot("."); err != nil {
		t.Fatal(err)
	}
}
