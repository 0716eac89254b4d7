// SPDX-License-Identifier: Apache-2.0

package volfile

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

func dirHeader(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o700}
}

func symHeader(name, target string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

func linkHeader(name, target string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

// TestLayers puts layers on top of each other.
func TestLayers(t *testing.T) {
	type list = []*tar.Header
	for _, tt := range []struct {
		name   string
		plain  bool
		layers []list
		want   string // names with contents, or the error
	}{
		{"whiteout", false, []list{{file("d/a", "1"), file("d/b", "2")}, {file("d/.wh.a", "")}}, "d d/b=2"},
		{"whiteout of a directory", false, []list{{file("d/e/f", "1"), file("g", "2")}, {file(".wh.d", "")}}, "g=2"},
		{"whiteout, and a new file of the name", false, []list{{file("d/e", "1")}, {file(".wh.d", ""), file("d", "2")}}, "d=2"},
		{"a new directory and a whiteout of the name", false, []list{{file("d/e", "1")}, {file("d/f", "2"), file(".wh.d", "")}}, "d d/f=2"},
		{"whiteout hides nothing of its own layer", false, []list{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, "a=2"},
		{"opaque directory", false, []list{{file("d/a", "1"), file("d/e/f", "2")}, {file("d/b", "3"), file("d/.wh..wh..opq", "")}}, "d d/b=3"},
		{"opaque first", false, []list{{file("d/a", "1"), file("d/e/f", "2")}, {file("d/.wh..wh..opq", ""), file("d/e/g", "3")}}, "d d/e d/e/g=3"},
		{"opaque root", false, []list{{file("a", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}}, "b=2"},
		{"opaque in the layer below only", false, []list{{file("d/a", "1")}, {file("d/.wh..wh..opq", ""), file("d/b", "2")}, {file("d/c", "3")}}, "d d/b=2 d/c=3"},
		{"whiteout of nothing makes nothing", false, []list{{file("x/.wh.nothing", ""), file("a", "1")}}, "a=1"},
		{"file over directory", false, []list{{file("d/a", "1")}, {file("d", "2")}}, "d=2"},
		{"directory over file", false, []list{{file("d", "1")}, {dirHeader("d/"), file("d/a", "2")}}, "d d/a=2"},
		{"directory keeps what it has", false, []list{{file("d/a", "1")}, {dirHeader("d/")}}, "d d/a=1"},
		{"hard link keeps the old content", false, []list{{file("a", "1"), linkHeader("b", "a")}, {file("a", "2")}}, "a=2 b=1"},
		{"hard link to a lower layer", false, []list{{file("a", "1")}, {linkHeader("b", "a"), file(".wh.a", "")}}, "b=1"},
		{"through a link stays inside", false, []list{{file("run/x", "1"), symHeader("var", "/../run")}, {file("var/y", "2"), file("var/.wh.x", "")}}, "run run/y=2 var>/../run"},
		{"names climb nowhere", false, []list{{file("../../etc/x", "1")}}, "etc etc/x=1"},
		{"whiteouts are names in an archive", true, []list{{file("a", "1"), file(".wh.a", "2")}}, ".wh.a=2 a=1"},
		{"the last one counts", true, []list{{file("a", "1"), file("b", "2"), file("a", "3")}}, "a=3 b=2"},
		{"names that are not UTF-8", true, []list{{{Name: "na\xffme", Typeflag: tar.TypeReg, Format: tar.FormatGNU, PAXRecords: map[string]string{"BODY": "1"}}}}, "na\xffme=1"},
		{"links in a circle", false, []list{{symHeader("a", "b"), symHeader("b", "a"), file("a/x", "1")}}, "error: test: read archive: a/x: too many symbolic links"},
		{"below a file", false, []list{{file("a", "1")}, {file("a/b", "2")}}, "error: test: read archive: a/b: /a is no directory"},
		{"hard link to nothing", false, []list{{linkHeader("b", "a")}}, "error: test: read archive: b: hard link to a, which is not there"},
		{"hard link to a directory", false, []list{{dirHeader("a/"), linkHeader("b", "a")}}, "error: test: read archive: b: hard link to a, a directory"},
		{"whiteout of dot dot", false, []list{{file("d/.wh...", "")}, {file("d/x", "1"), file("d/.wh...", "")}}, "error: test: read archive: d/.wh...: hides no file"},
	} {
		l := Layers{Name: "test", Image: !tt.plain}
		for _, headers := range tt.layers {
			l.Open = append(l.Open, layer(t, headers...).Uncompressed)
		}
		if got := merged(t, l); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// merged seals layers and prints what the volume holds.
func merged(t *testing.T, l Layers) string {
	t.Helper()
	seq, done, err := Archive(l, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for _, err := range seq {
		if err != nil {
			return "error: " + err.Error()
		}
	}
	if seq, done, err = Archive(l, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer done()
	v := volume(t, seq)
	var out []string
	for e, err := range Volume(v) {
		if err != nil {
			t.Fatal(err)
		}
		s := strings.TrimPrefix(e.Path, "/")
		if info, err := v.Lstat(e.Path); err != nil {
			t.Fatal(err)
		} else if info.Type == sealfs.Regular {
			s += "=" + read(t, v, e.Path)
		}
		if e.Type == sealfs.Symlink {
			s += ">" + e.Target
		}
		if s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestBadArchives gives what is no archive, or not a whole one.
func TestBadArchives(t *testing.T) {
	dir := t.TempDir()
	var l v1.Layer = layer(t, file("a", strings.Repeat("x", 5000)), file("b", "2"))
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"text":     {[]byte(strings.Repeat("this is no archive\n", 100)), "neither an image nor a tar archive"},
		"short":    {[]byte("hi\n"), "neither an image nor a tar archive"},
		"cut":      {whole[:3000], "read archive: a: unexpected EOF"},
		"empty":    {nil, "it is empty"},
		"no end":   {whole[:512+5120], "it has no end mark"},
		"bad gzip": {append([]byte("\x1f\x8b"), make([]byte, 100)...), "gzip: invalid header"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenImage(file)
		if err == nil {
			seq, done, aerr := Archive(l, dir)
			if aerr != nil {
				t.Fatal(aerr)
			}
			for _, e := range seq {
				err = e
			}
			done()
		}
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// TestSparse seals a file of a terabyte that holds a few bytes, copies it out and in, and seals the volume again.
func TestSparse(t *testing.T) {
	const size = 1 << 40
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(src, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	at := map[int64]string{0: "first", 123456789: "early", 1<<39 + 4090: "across chunks", size - 4: "last"}
	for off, s := range at {
		if _, err := f.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	root, err := os.OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	v := volume(t, Directory(root))
	again := volume(t, Volume(v))
	if _, _, err := Extract(again, "/big", filepath.Join(dir, "out"), false); err != nil {
		t.Fatal(err)
	}
	if err := CopyIn(again, filepath.Join(dir, "out"), "/copy"); err == nil || !strings.Contains(err.Error(), "open for reading only") {
		t.Errorf("into a volume that is open for reading: %v", err)
	}
	out, err := os.Open(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fi, err := out.Stat()
	if err != nil || fi.Size() != size {
		t.Fatalf("%v, %v", fi, err)
	}
	for off, s := range at {
		b := make([]byte, len(s))
		if _, err := out.ReadAt(b, off); err != nil || string(b) != s {
			t.Errorf("at %d: %q, %v", off, b, err)
		}
	}
}
