// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/google/go-containerregistry/pkg/name"
)

// entry is one line of a layer in a test: a path, and behind it what it is.
type entry struct {
	name string
	typ  byte
	link string
	body string
}

func file(name, body string) entry   { return entry{name, tar.TypeReg, "", body} }
func dir(name string) entry          { return entry{name, tar.TypeDir, "", ""} }
func link(name, target string) entry { return entry{name, tar.TypeLink, target, ""} }
func sym(name, target string) entry  { return entry{name, tar.TypeSymlink, target, ""} }

func layerTar(t testing.TB, entries []entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Linkname: e.link, Size: int64(len(e.body)), Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}
		if e.typ == tar.TypeDir {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func build(t testing.TB, layers ...[]entry) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Env: []string{"A=b"}, Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, WorkingDir: "/w", User: "1:2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		img, err = mutate.AppendLayers(img, static.NewLayer(layerTar(t, l), types.OCIUncompressedLayer))
		if err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func writeLayout(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree lists a folder: "path" for a folder, "path=content" for a file,
// "path→target" for a link.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel := strings.TrimPrefix(p, root+"/")
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out = append(out, rel+"→"+target)
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			out = append(out, rel+"="+string(b))
			return err
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	tests := []struct {
		name   string
		layers [][]entry
		want   []string
	}{
		{"files", [][]entry{{dir("etc"), file("etc/a", "1"), file("./b", "2"), file("/c", "3")}}, []string{"b=2", "c=3", "etc", "etc/a=1"}},
		{"parents that are not in the layer", [][]entry{{file("a/b/c", "1")}}, []string{"a", "a/b", "a/b/c=1"}},
		{"later layer wins", [][]entry{{file("a", "1")}, {file("a", "2")}}, []string{"a=2"}},
		{"whiteout", [][]entry{{file("d/a", "1"), file("d/b", "2")}, {file("d/.wh.a", "")}}, []string{"d", "d/b=2"}},
		{"whiteout of a folder", [][]entry{{file("d/e/f", "1"), file("g", "2")}, {file(".wh.d", "")}}, []string{"g=2"}},
		{"whiteout in its own layer hides nothing of it", [][]entry{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, []string{"a=2"}},
		{"opaque folder", [][]entry{{file("d/a", "1"), file("d/e/f", "2")}, {file("d/b", "3"), file("d/.wh..wh..opq", "")}}, []string{"d", "d/b=3"}},
		{"opaque root", [][]entry{{file("a", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}}, []string{"b=2"}},
		{"whiteout of nothing", [][]entry{{file("x/.wh.nothing", ""), file("a", "1")}}, []string{"a=1"}},
		{"hard link", [][]entry{{file("a", "1"), link("b", "a"), link("c", "/a")}}, []string{"a=1", "b=1", "c=1"}},
		{"file in place of a folder", [][]entry{{file("a/b", "1")}, {file("a", "2")}}, []string{"a=2"}},
		{"folder in place of a file", [][]entry{{file("a", "1")}, {dir("a"), file("a/b", "2")}}, []string{"a", "a/b=2"}},
		{"folder in place of a link", [][]entry{{dir("d"), sym("a", "d")}, {dir("a"), file("a/b", "2")}}, []string{"a", "a/b=2", "d"}},
		{"absolute link is followed inside the root", [][]entry{{dir("run"), sym("var", "/run")}, {file("var/pid", "1")}}, []string{"run", "run/pid=1", "var→/run"}},
		{"link with .. is followed inside the root", [][]entry{{dir("run"), sym("var", "../../../../run")}, {file("var/pid", "1")}}, []string{"run", "run/pid=1", "var→../../../../run"}},
		{"nodes below /dev are left out", [][]entry{{dir("dev"), {"dev/null", tar.TypeChar, "", ""}, file("a", "1")}}, []string{"a=1", "dev"}},
		{"dangling link stays", [][]entry{{sym("a", "/nosuch")}}, []string{"a→/nosuch"}},
		{"whiteout through a link stays inside", [][]entry{{file("run/x", "1"), sym("var", "/run")}, {file("var/.wh.x", "")}}, []string{"run", "var→/run"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := t.TempDir()
			img, err := Load(store, writeLayout(t, build(t, tt.layers...)))
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, img.Root); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestHostile wants images refused, nothing left in the store, and nothing
// touched outside it.
func TestHostile(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	tests := []struct {
		name   string
		layers [][]entry
	}{
		{"dot dot", [][]entry{{file("../victim", "x")}}},
		{"dot dot in the middle", [][]entry{{file("a/../../../../../../../../"+victim, "x")}}},
		{"hard link out", [][]entry{{link("a", "../../../../../../../../"+victim)}}},
		{"hard link to what is outside only", [][]entry{{link("a", victim)}}},
		{"hard link through a link", [][]entry{{sym("d", outside), link("a", "d/victim")}}},
		{"character device", [][]entry{{{"mem", tar.TypeChar, "", ""}}}},
		{"block device", [][]entry{{{"usr/disk", tar.TypeBlock, "", ""}}}},
		{"whiteout of the folder itself", [][]entry{{file("d/.wh.", "")}}},
		{"whiteout of dot", [][]entry{{file("d/.wh..", "")}}},
		{"whiteout of dot dot", [][]entry{{file("d/.wh...", "")}}},
		{"unknown type", [][]entry{{{"a", 'Z', "", ""}}}},
		{"long name", [][]entry{{file(strings.Repeat("a", 300), "x")}}},
		{"root that is a file", [][]entry{{file("/.", "")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
				t.Fatal(err)
			}
			store := t.TempDir()
			_, err := Load(store, writeLayout(t, build(t, tt.layers...)))
			if err == nil {
				t.Error("was taken")
			}
			if left := tree(t, store); !slices.Equal(left, []string{"lock="}) {
				t.Errorf("left %q", left)
			}
			fi, serr := os.Stat(victim)
			if b, rerr := os.ReadFile(victim); rerr != nil || serr != nil || string(b) != "whole" {
				t.Errorf("the file outside: %q, %v", b, rerr)
			} else if n := links(fi); n != 1 {
				t.Errorf("the file outside has %d links", n)
			}
		})
	}
}

// TestLinksOut follows links that lead out while later entries are written: all
// of it has to land inside.
func TestLinksOut(t *testing.T) {
	outside := t.TempDir()
	store := t.TempDir()
	img, err := Load(store, writeLayout(t, build(t,
		[]entry{sym("abs", outside), sym("rel", "../../../../../../../.."+outside), sym("leaf", filepath.Join(outside, "leaf"))},
		[]entry{file("abs/a", "1"), file("rel/b", "2"), file("leaf", "3")},
	)))
	if err == nil {
		t.Logf("%q", tree(t, img.Root))
	} else {
		t.Logf("refused: %v", err)
	}
	if got := tree(t, outside); len(got) != 0 {
		t.Errorf("written outside: %q", got)
	}
}

func TestTooManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("half a million entries")
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range maxEntries + 1 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", i), Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	_, err := inspect(&buf, &budget{})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestFormats(t *testing.T) {
	img := build(t, []entry{file("a", "1")})
	check := func(t *testing.T, source string) {
		got, err := Load(t.TempDir(), source)
		if err != nil {
			t.Fatal(err)
		}
		if l := tree(t, got.Root); !slices.Equal(l, []string{"a=1"}) {
			t.Errorf("root is %q", l)
		}
		if !slices.Equal(got.Entrypoint, []string{"/entry"}) || !slices.Equal(got.Cmd, []string{"cmd"}) || got.Workdir != "/w" || got.User != "1:2" || !slices.Equal(got.Env, []string{"A=b"}) {
			t.Errorf("configuration is %+v", got)
		}
	}
	t.Run("layout", func(t *testing.T) { check(t, writeLayout(t, img)) })
	t.Run("OCI archive", func(t *testing.T) {
		dir := writeLayout(t, img)
		out := filepath.Join(t.TempDir(), "a.tar")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(f)
		if err := w.AddFS(os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		check(t, out)
	})
	t.Run("docker archive", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "a.tar")
		tag, err := name.NewTag("a/b:c")
		if err != nil {
			t.Fatal(err)
		}
		if err := tarball.WriteToFile(out, tag, img); err != nil {
			t.Fatal(err)
		}
		check(t, out)
	})
	t.Run("none", func(t *testing.T) {
		for _, bad := range []string{"image_test.go", t.TempDir(), "/dev/null"} {
			if _, err := Load(t.TempDir(), bad); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v, want ErrFormat", bad, err)
			}
		}
	})
}

func TestWrongHash(t *testing.T) {
	dir := writeLayout(t, build(t, []entry{file("a", "1")}))
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		raw, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(raw, []byte("ustar")); i > 0 {
			raw[512] = '2' // the content of a
			if err := os.WriteFile(b, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Load(t.TempDir(), dir); err == nil {
		t.Error("a layer with another content was taken")
	}
}

func TestPrune(t *testing.T) {
	store := t.TempDir()
	img, err := Load(store, writeLayout(t, build(t, []entry{file("a", "1")})))
	if err != nil {
		t.Fatal(err)
	}
	if gone, err := Prune(store, func(root string) bool { return root == img.Root }); err != nil || len(gone) != 0 {
		t.Errorf("in use: %v, %v", gone, err)
	}
	if gone, err := Prune(store, func(string) bool { return false }); err != nil || len(gone) != 1 {
		t.Errorf("unused: %v, %v", gone, err)
	}
	if left := tree(t, store); !slices.Equal(left, []string{"lock="}) {
		t.Errorf("left %q", left)
	}
}

// FuzzInspect feeds the reader of layers with anything.
func FuzzInspect(f *testing.F) {
	f.Add(layerTar(f, []entry{dir("etc"), file("etc/a", "1"), sym("b", "/etc"), link("c", "etc/a"), file(".wh.x", "")}))
	f.Add(layerTar(f, []entry{file("../a", "1")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := inspect(bytes.NewReader(data), &budget{})
		if err != nil {
			return
		}
		for _, name := range slices.Concat(p.remove, p.opaque) {
			if slices.Contains(strings.Split(name, "/"), "..") || strings.HasPrefix(name, "/") {
				t.Errorf("%q leads out", name)
			}
		}
	})
}
