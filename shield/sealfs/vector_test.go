// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the vector volumes again")

// vectors is testdata/vector.json: what a second implementation compares with.
type vectors struct {
	Comment string   `json:"comment"`
	Key     string   `json:"key"`
	Derived []labels `json:"derived"`
	Block   block    `json:"block"`
	Volumes []volume `json:"volumes"`
}

type labels struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type block struct {
	Comment    string `json:"comment"`
	FileKey    string `json:"file_key"`
	K1         string `json:"xaes_k1"`
	Salt       string `json:"salt"`
	Level      uint8  `json:"level"`
	Index      uint64 `json:"index"`
	DerivedKey string `json:"derived_key"`
	IV         string `json:"iv"`
	AAD        string `json:"aad"`
	PlainSHA   string `json:"plain_sha256"`
	BoxSHA     string `json:"ciphertext_sha256"`
	Tag        string `json:"tag"`
}

type volume struct {
	File       string       `json:"file"`
	SHA256     string       `json:"sha256"`
	Generation uint64       `json:"generation"`
	RootDigest string       `json:"root_digest"`
	Policy     []Region     `json:"regions"`
	Tree       []vectorFile `json:"tree"`
}

type vectorFile struct {
	Path   string `json:"path"`
	Inode  uint32 `json:"inode"`
	Type   string `json:"type"`
	Class  Class  `json:"class"`
	Mode   string `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Links  uint32 `json:"links"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime_ns"`
	Target string `json:"target,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Facts  string `json:"facts,omitempty"`
}

func vectorNow() time.Time { return time.Unix(1700000000, 123456789) }

// vectorTree has every type, each depth up to 3, holes, both classes and a
// directory of several pages.
func vectorTree() []Entry {
	content := func(f func(p []byte, off int64)) func() (Content, error) {
		return func() (Content, error) { return generated(f), nil }
	}
	text := func(s string) func() (Content, error) {
		return content(func(p []byte, off int64) { copy(p, s[min(off, int64(len(s))):]) })
	}
	pattern := func(p []byte, off int64) {
		for i := range p {
			at := uint64(off) + uint64(i)
			p[i] = byte(at*7 + at>>12*13 + 1)
		}
	}
	islands := func(p []byte, off int64) { // one written chunk each 97 chunks
		for i := range p {
			at := uint64(off) + uint64(i)
			if at>>12%97 == 0 {
				p[i] = byte(at>>12) | 1
			}
		}
	}
	at := Attr{Mode: 0o640, UID: 1000, GID: 1001, ModTime: time.Unix(1600000000, 7)}
	dir := Attr{Mode: 0o755, ModTime: time.Unix(1600000001, 0)}
	list := []Entry{
		{Path: "/", Type: Dir, Attr: dir},
		{Path: "/auth", Type: Dir, Attr: dir},
		{Path: "/auth/clear", Type: Regular, Attr: at, Size: 6000, Open: content(pattern)},
		{Path: "/auth/program", Type: Regular, Attr: Attr{Mode: 0o4755, ModTime: at.ModTime}, Size: 4096, Open: content(pattern), Facts: []byte("facts about a program")},
		{Path: "/deep", Type: Regular, Attr: at, Size: 128*128*4096 + 1, Open: content(func(p []byte, off int64) {
			if off == 128*128*4096 {
				p[0] = 'z'
			} else if off == 0 {
				p[0] = 'a'
			}
		})},
		{Path: "/device", Type: Char, Attr: Attr{Mode: 0o666, Rdev: 1<<20 | 3, ModTime: at.ModTime}},
		{Path: "/empty", Type: Regular, Attr: at},
		{Path: "/fifo", Type: Fifo, Attr: at},
		{Path: "/hello", Type: Regular, Attr: at, Size: 14, Open: text("hello, shield\n")},
		{Path: "/link", Type: Symlink, Attr: Attr{Mode: 0o777, ModTime: at.ModTime}, Target: "many/../hello"},
		{Path: "/many", Type: Dir, Attr: dir},
		{Path: "/one", Type: Regular, Attr: at, Size: 4096, Open: content(pattern)},
		{Path: "/one+1", Type: Regular, Attr: at, Size: 4097, Open: content(pattern)},
		{Path: "/second", LinkTo: "/hello"},
		{Path: "/sparse", Type: Regular, Attr: at, Size: 400 * 4096, Open: content(islands)},
	}
	for i := range 120 {
		list = append(list, Entry{Path: fmt.Sprintf("/many/%03d.%s", i, strings.Repeat("x", i)), Type: Regular, Attr: at})
	}
	return list
}

type generated func(p []byte, off int64)

func (g generated) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	g(p, off)
	return len(p), nil
}
func (generated) Close() error { return nil }

// vectorChange makes the second volume from the first.
func vectorChange(t *testing.T, v *Volume) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(v.WriteFile("/hello", []byte("hello again, shield\n"), Attr{}))
	must(v.Remove("/one"))
	must(v.Rename("/one+1", "/auth/../moved"))
	must(v.Mkdir("/new", Attr{Mode: 0o700}))
	must(v.Rename("/many", "/new/many"))
	f, err := v.Open("/sparse")
	must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte("overwritten"), 1000), 200*4096-5)
	must(err)
	must(f.Truncate(300 * 4096))
	must(f.Close())
	must(v.Truncate("/auth/program", 100))
	for i := range 40 {
		must(v.Remove(fmt.Sprintf("/new/many/%03d.%s", 3*i, strings.Repeat("x", 3*i))))
		must(v.WriteFile(fmt.Sprintf("/new/many/%03d.more", 2*i), fmt.Appendf(nil, "%d", i), Attr{Mode: 0o600}))
	}
	_, err = v.Commit()
	must(err)
	must(v.Mkdir("/new/third", Attr{Mode: 0o711}))
	_, err = v.Commit()
	must(err)
}

func describe(t *testing.T, v *Volume) []vectorFile {
	t.Helper()
	list, err := readAll(v)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// readAll reads everything that a volume holds.
func readAll(v *Volume) ([]vectorFile, error) {
	var list []vectorFile
	var down func(p string) error
	down = func(p string) error {
		i, err := v.Lstat(p)
		if err != nil {
			return err
		}
		f := vectorFile{
			Path: p, Inode: i.Inode, Type: i.Type.String(), Class: i.Class, Mode: fmt.Sprintf("%#o", i.Mode), UID: i.UID, GID: i.GID,
			Links: i.Links, Size: i.Size, MTime: i.ModTime.UnixNano(),
		}
		switch i.Type {
		case Symlink:
			if f.Target, err = v.Readlink(p); err != nil {
				return err
			}
		case Regular:
			in, err := v.Open(p)
			if err != nil {
				return err
			}
			h := sha256.New()
			if _, err := io.Copy(h, in); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			f.SHA256 = hex.EncodeToString(h.Sum(nil))
			if i.HasFacts {
				b, err := v.Facts(p)
				if err != nil {
					return err
				}
				f.Facts = string(b)
			}
		}
		list = append(list, f)
		if i.Type != Dir {
			return nil
		}
		names, err := v.ReadDir(p)
		for _, n := range names {
			if err == nil {
				err = down(strings.TrimSuffix(p, "/") + "/" + n.Name)
			}
		}
		return err
	}
	err := down("/")
	return list, err
}

// TestVectors makes the vector volumes again, with the random numbers and the
// clock fixed, and compares them byte by byte with those in testdata.
func TestVectors(t *testing.T) {
	opts := Options{
		Rand: &stream{seed: "sealfs vector"}, Now: vectorNow,
		Policy: Policy{Regions: []Region{{"/", Encrypted}, {"/auth", Authenticated}, {"/host", Passthrough}}, Freshness: Interval, Interval: 250 * time.Millisecond},
	}
	dev := &memory{}
	if _, err := Seal(dev, testKey(), opts, Source{Entries: entries(vectorTree()), Workers: 1}); err != nil {
		t.Fatal(err)
	}
	w := vectors{
		Comment: "sealfs test vectors. Random bytes of the k-th read: SHA-256(\"sealfs vector\" || u64 counter), see stream in device_test.go; they are not needed for reading.",
		Key:     hex.EncodeToString(testKey()),
	}
	w.addKeys(t, dev)
	for _, name := range []string{"vector-1.sealfs", "vector-2.sealfs"} {
		if name == "vector-2.sealfs" {
			v, err := Open(dev, testKey(), Options{Rand: &stream{seed: "sealfs vector 2"}, Now: vectorNow})
			if err != nil {
				t.Fatal(err)
			}
			vectorChange(t, v)
			v.Close()
		}
		check(t, dev)
		v, err := Open(dev, testKey(), Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		r := v.Root()
		sum := sha256.Sum256(dev.data)
		w.Volumes = append(w.Volumes, volume{
			File: name, SHA256: hex.EncodeToString(sum[:]), Generation: r.Generation, RootDigest: hex.EncodeToString(r.Digest[:]),
			Policy: v.Policy().Regions, Tree: describe(t, v),
		})
		v.Close()
		file := "testdata/" + name
		if *update {
			if err := os.WriteFile(file, dev.data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, dev.data) {
			t.Errorf("%s differs from what is made now", file)
		}
	}
	got, err := json.MarshalIndent(w, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile("testdata/vector.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/vector.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("testdata/vector.json differs from what is made now")
	}
}

// addKeys records the key schedule and one sealed block.
func (w *vectors) addKeys(t *testing.T, dev *memory) {
	h, k, err := decodeHeader(dev.data[:BlockSize], testKey())
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, b []byte) { w.Derived = append(w.Derived, labels{name, hex.EncodeToString(b)}) }
	expand := func(label string, suffix []byte) []byte {
		out := make([]byte, 32)
		if err := k.expand(out, label, suffix); err != nil {
			t.Fatal(err)
		}
		return out
	}
	add("volume_id", h.volumeID[:])
	add("kdf_salt", h.kdfSalt[:])
	add("PRK", k.prk)
	add("commitment", k.commitment[:])
	add("header_key", k.header[:])
	add("header_mac", k.headerMAC(dev.data[:480]))
	add("root_key", expand("sealfs/1 root", nil))
	add("file_key(inode table)", expand("sealfs/1 file", append(make([]byte, 16), 3)))

	id := [16]byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
	bk, err := k.fileKey(id, Encrypted)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, BlockSize+tagSize)
	for i := range plain[:BlockSize] {
		plain[i] = byte(i)
	}
	psum := sha256.Sum256(plain[:BlockSize])
	salt := []byte("twelve bytes")
	const level, index = 2, 0x0102030405
	iv, aad := bk.position(level, index)
	var x [32]byte
	for i := range 2 {
		m := x[i*16:]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:16], salt)
		for j := range 16 {
			m[j] ^= bk.k1[j]
		}
		bk.block.Encrypt(m[:16], m[:16])
	}
	tag := bk.seal(plain, plain[:BlockSize], salt, level, index)
	bsum := sha256.Sum256(plain[:BlockSize])
	w.Block = block{
		Comment: "file_id 10 11 … 1f, class 3; plaintext byte i is i mod 256", FileKey: hex.EncodeToString(expand("sealfs/1 file", append(id[:], 3))),
		K1: hex.EncodeToString(bk.k1[:]), Salt: hex.EncodeToString(salt), Level: level, Index: index, DerivedKey: hex.EncodeToString(x[:]),
		IV: hex.EncodeToString(iv[:]), AAD: hex.EncodeToString(aad[:]), PlainSHA: hex.EncodeToString(psum[:]), BoxSHA: hex.EncodeToString(bsum[:]), Tag: hex.EncodeToString(tag[:]),
	}
}
