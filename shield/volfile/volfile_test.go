// SPDX-License-Identifier: Apache-2.0

package volfile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

var key = bytes.Repeat([]byte{5}, sealfs.KeySize)

// volume seals entries and opens the volume for reading.
func volume(t *testing.T, seq iter.Seq2[sealfs.Entry, error]) *sealfs.Volume {
	t.Helper()
	file := filepath.Join(t.TempDir(), "v")
	err := Create(file, false, func(f *File) error {
		_, err := sealfs.Seal(f, key, sealfs.Options{}, sealfs.Source{Entries: seq})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, file, false)
}

func opened(t *testing.T, file string, write bool) *sealfs.Volume {
	t.Helper()
	f, err := Open(file, write)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	v, err := sealfs.Open(f, key, sealfs.Options{ReadOnly: !write})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func read(t *testing.T, v *sealfs.Volume, name string) string {
	t.Helper()
	b, err := v.ReadFile(name, 1<<20)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// sample makes a directory with every kind of file that a user can make.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	do(os.WriteFile(filepath.Join(dir, "a/file"), []byte("content"), 0o640))
	do(os.Link(filepath.Join(dir, "a/file"), filepath.Join(dir, "a/b/hard")))
	do(os.Symlink("../../../../etc/passwd", filepath.Join(dir, "a/out")))
	do(os.WriteFile(filepath.Join(dir, "a.b"), bytes.Repeat([]byte("large"), 200_000), 0o600))
	do(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	do(os.WriteFile(filepath.Join(dir, "secret"), nil, 0o000))
	do(os.Chmod(filepath.Join(dir, "a/b"), 0o700|fs.ModeSticky))
	return dir
}

func TestDirectory(t *testing.T) {
	dir := sample(t)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	v := volume(t, Directory(root))
	if s := read(t, v, "/a/b/hard"); s != "content" {
		t.Errorf("hard link: %q", s)
	}
	if i, err := v.Stat("/a/file"); err != nil || i.Links != 2 || i.Mode != 0o640 || i.UID != uint32(os.Getuid()) {
		t.Errorf("%+v %v", i, err)
	}
	if i, _ := v.Stat("/a/b"); i.Mode != 0o1700 {
		t.Errorf("directory mode %#o", i.Mode)
	}
	if s, err := v.Readlink("/a/out"); s != "../../../../etc/passwd" {
		t.Errorf("%q %v", s, err)
	}
	if _, err := v.Stat("/a/out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link out of the volume leads to something: %v", err)
	}
	if i, err := v.Lstat("/fifo"); err != nil || i.Type != sealfs.Fifo {
		t.Errorf("%+v %v", i, err)
	}

	// And back, with what a person may do.
	out := filepath.Join(t.TempDir(), "out")
	if _, _, err := Extract(v, "/a", out, false); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(out, "b/hard"))
	if string(b) != "content" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	x, _ := os.Stat(filepath.Join(out, "b/hard"))
	y, _ := os.Stat(filepath.Join(out, "file"))
	if !os.SameFile(x, y) {
		t.Error("a hard link became a copy")
	}
	if _, _, err := Extract(v, "/a", out, false); err != nil { // into it, under its own name
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(out, "a/file")); err != nil {
		t.Error(err)
	}
	if _, _, err := Extract(v, "/a.b", filepath.Join(out, "file"), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwrote a file: %v", err)
	}

	// The same under another key.
	again := volume(t, Volume(v))
	if s := read(t, again, "/a/b/hard"); s != "content" {
		t.Errorf("sealed again: %q", s)
	}
	if i, _ := again.Stat("/a/file"); i.Links != 2 {
		t.Errorf("sealed again: %d links", i.Links)
	}
}

// TestExtractStaysInside extracts a volume whose names and links try to leave.
func TestExtractStaysInside(t *testing.T) {
	seq := func(yield func(sealfs.Entry, error) bool) {
		body := func() (sealfs.Content, error) {
			return section{io.NewSectionReader(strings.NewReader("evil"), 0, 4)}, nil
		}
		_ = yield(sealfs.Entry{Path: "/d", Type: sealfs.Dir, Attr: sealfs.Attr{Mode: 0o755}}, nil) &&
			yield(sealfs.Entry{Path: "/d/link", Type: sealfs.Symlink, Target: "/tmp"}, nil) &&
			yield(sealfs.Entry{Path: "/d/zz", Type: sealfs.Regular, Size: 4, Open: body}, nil)
	}
	v := volume(t, seq)
	out := t.TempDir()
	if _, _, err := Extract(v, "/d", filepath.Join(out, "x"), false); err != nil {
		t.Fatal(err)
	}
	if s, err := os.Readlink(filepath.Join(out, "x/link")); s != "/tmp" || err != nil {
		t.Errorf("%q %v", s, err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "v")
	boom := errors.New("boom")
	names := func() []string {
		list, _ := os.ReadDir(dir)
		var out []string
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	if err := Create(file, false, func(f *File) error { f.WriteAt([]byte("half"), 0); return boom }); !errors.Is(err, boom) || len(names()) != 0 {
		t.Errorf("%v, left %v", err, names())
	}
	write := func(s string) func(*File) error {
		return func(f *File) error { _, err := f.WriteAt([]byte(s), 0); return err }
	}
	if err := Create(file, false, write("one")); err != nil || !slices.Equal(names(), []string{"v"}) {
		t.Errorf("%v, %v", err, names())
	}
	if err := Create(file, false, write("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("replaced: %v", err)
	}
	if err := Create(file, true, func(f *File) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if b, _ := os.ReadFile(file); string(b) != "one" {
		t.Errorf("%q", b)
	}
	if err := Create(file, true, write("two")); err != nil || !slices.Equal(names(), []string{"v"}) {
		t.Errorf("%v, %v", err, names())
	}
	if b, _ := os.ReadFile(file); string(b) != "two" {
		t.Errorf("%q", b)
	}
}

func TestLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "v")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r1, err := Open(file, false)
	if err != nil {
		t.Fatal(err)
	}
	r2, err := Open(file, false)
	if err != nil {
		t.Errorf("two readers: %v", err)
	}
	if _, err := Open(file, true); !errors.Is(err, errLocked) {
		t.Errorf("a writer beside readers: %v", err)
	}
	r1.Close()
	r2.Close()
	w, err := Open(file, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := Open(file, false); !errors.Is(err, errLocked) {
		t.Errorf("a reader beside a writer: %v", err)
	}
	if _, err := Open(t.TempDir(), false); err == nil {
		t.Error("opened a directory")
	}
}

func TestKey(t *testing.T) {
	for _, s := range []string{
		string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)) + "\n", base64.StdEncoding.EncodeToString(key) + "\r\n",
		base64.RawURLEncoding.EncodeToString(key),
	} {
		if got, err := parseKey([]byte(s)); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%q: %x, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "short", strings.Repeat("z", 64), hex.EncodeToString(key[:31]), string(key) + "x", strings.Repeat("\n", 33)} {
		if k, err := parseKey([]byte(s)); err == nil {
			t.Errorf("%q gives %x", s, k)
		} else if strings.Contains(err.Error(), "zzz") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(file, key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, open, err := ReadKey(file); err != nil || !open {
		t.Errorf("a key file that others can read: %v, %v", open, err)
	}
}

// layer makes one layer of an image.
func layer(t *testing.T, headers ...*tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.PAXRecords["BODY"]
		h.PAXRecords = nil
		h.Size = int64(len(body))
		if h.Typeflag == tar.TypeReg && h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func file(name, body string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"BODY": body}}
}

// TestImage seals an image of two layers, the second of which changes and
// deletes, in each of its forms.
func TestImage(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image,
		layer(t, &tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, file("etc/keep", "kept"), file("etc/gone", "gone"), file("etc/change", "old"),
			&tar.Header{Name: "etc/link", Typeflag: tar.TypeSymlink, Linkname: "keep"}, &tar.Header{Name: "etc/hard", Typeflag: tar.TypeLink, Linkname: "etc/keep"}),
		layer(t, file("etc/change", "new"), file("etc/.wh.gone", ""), file("usr/bin/tool", "tool")))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lay := filepath.Join(dir, "layout")
	p, err := layout.Write(lay, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(dir, "docker.tar")
	tag, err := name.NewTag("example/image:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain.tar.gz")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := io.Copy(w, mutate.Extract(img)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := os.WriteFile(plain, z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{lay, docker, plain} {
		if IsImage(src) != (src == lay) {
			t.Errorf("%s: IsImage", src)
		}
		l, err := OpenImage(src)
		if err != nil {
			t.Fatal(err)
		}
		seq, done, err := Archive(l, dir)
		if err != nil {
			t.Fatal(err)
		}
		v := volume(t, seq)
		for name, want := range map[string]string{"/etc/keep": "kept", "/etc/change": "new", "/etc/link": "kept", "/usr/bin/tool": "tool", "/etc/hard": "kept"} {
			if got := read(t, v, name); got != want {
				t.Errorf("%s: %s is %q, want %q", src, name, got, want)
			}
		}
		if _, err := v.Stat("/etc/gone"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a deleted file is there: %v", src, err)
		}
		done()
	}
	if _, err := OpenImage(dir); err == nil {
		t.Error("opened a directory without an image")
	}
}
