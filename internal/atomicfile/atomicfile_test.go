// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/palisade-sec/palisade/internal/atomicfile"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for i, w := range []atomicfile.File{
		{Mode: 0o600},
		{Mode: 0o666},
		{Mode: 0o640, Volatile: true},
		{Mode: 0o644, Owner: &atomicfile.Owner{UID: os.Getuid(), GID: os.Getgid()}},
	} {
		want := string(rune('a' + i))
		if err := w.Write(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != want || fi.Mode().Perm() != w.Mode {
			t.Errorf("%+v: %q, mode %v", w, b, fi.Mode())
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFails finds the old content in its place, and nothing beside it.
func TestFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken", "inner")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Dir(path) // a folder that is not empty cannot be replaced
	if err := (atomicfile.File{Mode: 0o600}).Write(taken, []byte("x")); err == nil {
		t.Error("a folder was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := (atomicfile.File{Mode: 0o600}).Write(filepath.Join(dir, "no", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}

func TestLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := (atomicfile.File{Mode: 0o600}).Write(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(target); string(b) != "old" {
		t.Errorf("the link was followed: %q", b)
	}
}
