// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// inRoot asks the kernel where a path inside a root leads.
func inRoot(root, p string) (string, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	got, err := unix.Openat2(fd, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", err
	}
	defer unix.Close(got)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", got))
}

// TestConfirmDestinations follows random paths through random links as runc's
// library and the kernel do.
func TestConfirmDestinations(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "root")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		comp := rapid.SampledFrom([]string{"a", "b", "c", "..", ".", "", "/"})
		some := func(label string) string {
			return filepath.FromSlash(fmt.Sprint(rapid.SampledFrom([]string{"", "/"}).Draw(r, label+" start"))) + join(rapid.SliceOfN(comp, 1, 6).Draw(r, label))
		}
		for _, name := range []string{"a", "b", "a/b", "b/a", "c"} {
			p := filepath.Join(dir, name)
			if rapid.Bool().Draw(r, name+" is a link") {
				_ = os.Symlink(some("target of "+name), p)
			} else {
				_ = os.Mkdir(p, 0o755)
			}
		}
		dest := some("destination")
		w := walker{root: dir, at: map[string]string{}}
		got, err := w.resolve(dest)
		want, jerr := securejoin.SecureJoin(dir, dest)
		if (err == nil) != (jerr == nil) {
			r.Fatalf("%q: %q, %v; securejoin %q, %v", dest, got, err, want, jerr)
		}
		if err == nil && filepath.Join(dir, got) != want {
			r.Errorf("%q: %q, securejoin %q", dest, got, want)
		}
		if kernel, kerr := inRoot(dir, dest); kerr == nil && err == nil && kernel != filepath.Join(dir, got) {
			r.Errorf("%q: %q, kernel %q", dest, got, kernel)
		}
	})
}

func join(parts []string) string {
	out := ""
	for i, p := range parts {
		if i > 0 {
			out += "/"
		}
		out += p
	}
	return out
}
