// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"crypto/aes"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestXAES checks the derivation of keys against the vectors of C2SP
// XAES-256-GCM, and 10 000 random ones against its accumulated vector.
func TestXAES(t *testing.T) {
	for _, tt := range []struct{ key, nonce, plain, aad, want string }{
		{
			strings.Repeat("01", 32), hex.EncodeToString([]byte("ABCDEFGHIJKLMNOPQRSTUVWX")), "XAES-256-GCM", "",
			"ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
		},
		{
			strings.Repeat("03", 32), hex.EncodeToString([]byte("ABCDEFGHIJKLMNOPQRSTUVWX")), "XAES-256-GCM", "c2sp.org/XAES-256-GCM",
			"986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
		},
	} {
		k, _ := hex.DecodeString(tt.key)
		n, _ := hex.DecodeString(tt.nonce)
		got := xaes(t, k, n).Seal(nil, n[12:], []byte(tt.plain), []byte(tt.aad))
		if hex.EncodeToString(got) != tt.want {
			t.Errorf("XAES(%s) = %x, want %s", tt.plain, got, tt.want)
		}
	}

	s, d := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	for range 10_000 {
		k, n := make([]byte, 32), make([]byte, 24)
		s.Read(k)
		s.Read(n)
		l := make([]byte, 1)
		s.Read(l)
		plain := make([]byte, l[0])
		s.Read(plain)
		s.Read(l)
		aad := make([]byte, l[0])
		s.Read(aad)
		d.Write(xaes(t, k, n).Seal(nil, n[12:], plain, aad))
	}
	sum := make([]byte, 32)
	d.Read(sum)
	if got := hex.EncodeToString(sum); got != "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939" {
		t.Errorf("accumulated: %s", got)
	}
}

// xaes makes a blockKey of a raw key as newBlockKey does.
func xaes(t *testing.T, key, nonce []byte) interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
} {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	bk := &blockKey{block: b}
	bk.subkey()
	return bk.derived(nonce[:12])
}

func tree1() []Entry {
	body := func(b []byte) func() (Content, error) {
		return func() (Content, error) {
			return struct {
				io.ReaderAt
				io.Closer
			}{bytes.NewReader(b), io.NopCloser(nil)}, nil
		}
	}
	big := make([]byte, 3*BlockSize*nodeCells+777)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	sparse := make([]byte, 10*BlockSize)
	copy(sparse[5*BlockSize:], "in the middle")
	at := Attr{Mode: 0o644, UID: 1, GID: 2, ModTime: time.Unix(1e9, 5)}
	dir := Attr{Mode: 0o755, ModTime: time.Unix(1e9, 0)}
	list := []Entry{
		{Path: "/", Type: Dir, Attr: dir},
		{Path: "/etc", Type: Dir, Attr: dir},
		{Path: "/etc/passwd", Type: Regular, Attr: at, Size: 5, Open: body([]byte("root\n"))},
		{Path: "/etc/empty", Type: Regular, Attr: at},
		{Path: "/usr/bin/big", Type: Regular, Attr: Attr{Mode: 0o4755}, Size: int64(len(big)), Open: body(big)},
		{Path: "/usr/sparse", Type: Regular, Attr: at, Size: int64(len(sparse)), Open: body(sparse)},
		{Path: "/usr/link", Type: Symlink, Attr: at, Target: "../etc/passwd"},
		{Path: "/usr/hard", LinkTo: "/usr/sparse"},
		{Path: "/dev/null", Type: Char, Attr: Attr{Mode: 0o666, Rdev: 1<<20 | 3}},
		{Path: "/dev/fifo", Type: Fifo, Attr: at},
		{Path: "/tmp", Type: Dir, Attr: dir},
		{Path: "/tmp/gone", Type: Regular, Attr: at, Size: 1, Open: body([]byte("x"))},
		{Path: "/many", Type: Dir, Attr: dir},
	}
	for i := range 500 {
		c := fmt.Appendf(nil, "file %d", i)
		list = append(list, Entry{Path: fmt.Sprintf("/many/%04d-%s", i*7919%500, strings.Repeat("n", i%200)), Type: Regular, Attr: at, Size: int64(len(c)), Open: body(c)})
	}
	return list
}

func entries(list []Entry) func(func(Entry, error) bool) {
	return func(yield func(Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func policy1() Policy {
	return Policy{Regions: []Region{{"/", Encrypted}, {"/usr", Authenticated}, {"/tmp", Ephemeral}}, Freshness: AtFsync}
}

func sealed(t testing.TB, opts Options, list []Entry) (*memory, Sealed) {
	t.Helper()
	dev := &memory{}
	s, err := Seal(dev, testKey(), opts, Source{Entries: entries(list)})
	if err != nil {
		t.Fatal(err)
	}
	return dev, s
}

func check(t testing.TB, dev Device) Report {
	t.Helper()
	r, err := Check(dev, testKey(), Options{}, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("check: %v", p)
	}
	return r
}

func TestSeal(t *testing.T) {
	dev, s := sealed(t, Options{Policy: policy1()}, tree1())
	if want := []string{"/tmp/gone"}; !slices.Equal(s.Skipped, want) {
		t.Errorf("skipped %v, want %v", s.Skipped, want)
	}
	r := check(t, dev)
	if r.Files != s.Files || r.BlocksUsed != r.Blocks {
		t.Errorf("check %+v, sealed %+v", r, s)
	}
	for _, ro := range []bool{true, false} {
		v, err := Open(dev, testKey(), Options{ReadOnly: ro})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range tree1() {
			if slices.Contains(s.Skipped, e.Path) {
				continue
			}
			info, err := v.Lstat(e.Path)
			if err != nil {
				t.Fatal(err)
			}
			if e.LinkTo == "" && (info.Type != e.Type || e.Type == Regular && (info.Mode != e.Attr.Mode || info.UID != e.Attr.UID || info.Size != e.Size) || !e.Attr.ModTime.IsZero() && !info.ModTime.Equal(e.Attr.ModTime)) {
				t.Errorf("%s: %+v", e.Path, info)
			}
			switch {
			case e.Open != nil:
				c, _ := e.Open()
				want := make([]byte, e.Size)
				c.ReadAt(want, 0)
				got, err := v.ReadFile(e.Path, 1<<30)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", e.Path, len(got), err)
				}
			case e.Type == Symlink:
				if got, err := v.Readlink(e.Path); got != e.Target || err != nil {
					t.Errorf("%s: %q, %v", e.Path, got, err)
				}
			}
		}
		if b, err := v.ReadFile("/usr/link", 10); string(b) != "root\n" || err != nil {
			t.Errorf("through the link: %q, %v", b, err)
		}
		if info, _ := v.Stat("/usr/hard"); info.Links != 2 || info.Class != Authenticated {
			t.Errorf("hard link: %+v", info)
		}
		list, err := v.ReadDir("/many")
		if err != nil || len(list) != 500 || !slices.IsSortedFunc(list, func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("list: %d, %v", len(list), err)
		}
		v.Close()
	}
	// No name and no encrypted content is readable in the volume; authenticated content is.
	for _, s := range []string{"passwd", "root\n", "0001-", "file 17", "../etc"} {
		if bytes.Contains(dev.data, []byte(s)) {
			t.Errorf("volume holds %q in clear", s)
		}
	}
	if !bytes.Contains(dev.data, []byte("in the middle")) {
		t.Error("authenticated content is not in clear")
	}
}

func TestOpenErrors(t *testing.T) {
	dev, s := sealed(t, Options{}, tree1()[:4])
	other := testKey()
	other[31] ^= 1
	flip := func(off int) *memory {
		m := dev.clone()
		m.data[off] ^= 1
		return m
	}
	wrong := s.Root
	wrong.Digest[0] ^= 1
	for _, tt := range []struct {
		name string
		dev  *memory
		key  []byte
		opts Options
		want error
	}{
		{"key", dev, other, Options{}, ErrWrongKey},
		{"empty", &memory{}, testKey(), Options{}, ErrNotVolume},
		{"text", &memory{data: bytes.Repeat([]byte("text"), 4096)}, testKey(), Options{}, ErrNotVolume},
		{"version", flip(8), testKey(), Options{}, ErrVersion},
		{"suite", flip(12), testKey(), Options{}, ErrVersion},
		{"chunk size", flip(13), testKey(), Options{}, ErrVersion},
		{"volume id", flip(16), testKey(), Options{}, ErrWrongKey},
		{"header MAC", flip(500), testKey(), Options{}, ErrCorrupt},
		{"root", flip(2*BlockSize + 60), testKey(), Options{}, ErrNoRoot},
		{"stale", dev, testKey(), Options{MinGeneration: 2}, ErrStale},
		{"replaced", dev, testKey(), Options{Expect: &wrong}, ErrStale},
		{"cut", &memory{data: dev.data[:len(dev.data)-1]}, testKey(), Options{}, ErrCorrupt},
	} {
		v, err := Open(tt.dev, tt.key, tt.opts)
		if v != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := Open(dev, testKey(), Options{Expect: &s.Root, MinGeneration: 1}); err != nil {
		t.Error(err)
	}
	if _, err := Open(dev, []byte("short"), Options{}); err == nil {
		t.Error("a short key opened the volume")
	}
}

func TestOperations(t *testing.T) {
	dev, _ := sealed(t, Options{Policy: policy1()}, tree1())
	v, err := Open(dev, testKey(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	is := func(want error, got error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	a := Attr{Mode: 0o600}
	is(ErrRegion, v.Mkdir("/tmp/x", a))
	is(fs.ErrExist, v.Mkdir("/etc", a))
	is(fs.ErrNotExist, v.Mkdir("/nowhere/x", a))
	is(ErrNotDir, v.Mkdir("/etc/passwd/x", a))
	is(ErrName, v.Mkdir("/"+strings.Repeat("x", 256), a))
	is(ErrCrossRegion, v.Rename("/etc/passwd", "/usr/passwd"))
	is(ErrCrossRegion, v.Rename("/usr", "/usr2"))
	is(ErrCrossRegion, v.Link("/etc/passwd", "/usr/passwd"))
	is(ErrIsDir, v.Link("/etc", "/etc2"))
	is(ErrInvalid, v.Rename("/etc", "/etc/sub"))
	is(ErrIsDir, v.Rename("/etc/passwd", "/many"))
	is(ErrNotDir, v.Rename("/many", "/etc/passwd"))
	is(ErrNotEmpty, v.Rename("/etc", "/many"))
	is(ErrNotEmpty, v.Remove("/many"))
	is(ErrInvalid, v.Remove("/"))
	_, err = v.Open("/etc")
	is(ErrIsDir, err)
	_, err = v.Open("/dev/fifo")
	is(ErrNotRegular, err)
	ok(v.Symlink("loop", "/loop", a))
	_, err = v.Open("/loop")
	is(ErrLoop, err)
	ok(v.Remove("/loop"))
	ok(v.Symlink("/etc/../etc", "/e", a))
	ok(v.WriteFile("/e/new", []byte("content"), a))
	if b, err := v.ReadFile("/etc/new", 100); string(b) != "content" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	ok(v.Rename("/etc/new", "/etc/passwd"))
	if b, _ := v.ReadFile("/etc/passwd", 100); string(b) != "content" {
		t.Errorf("%q", b)
	}
	ok(v.Rename("/many", "/moved"))
	if list, err := v.ReadDir("/moved/../moved"); len(list) != 500 || err != nil {
		t.Errorf("%d %v", len(list), err)
	}
	mode := uint32(0o640)
	ok(v.Chattr("/etc/passwd", SetAttr{Mode: &mode}))
	ok(v.Truncate("/usr/bin/big", 5000))
	ok(v.Truncate("/usr/bin/big", 9000))
	b, err := v.ReadFile("/usr/bin/big", 1<<20)
	if err != nil || !allZero(b[5000:]) || len(b) != 9000 || allZero(b[:5000]) {
		t.Errorf("truncated: %d bytes, %v", len(b), err)
	}

	// Unlinked while open: the space goes with the last close, or at the next opening.
	f, err := v.Open("/usr/sparse")
	ok(err)
	ok(v.Remove("/usr/sparse"))
	ok(v.Remove("/usr/hard"))
	if _, err := f.ReadAt(make([]byte, 10), 5*BlockSize); err != nil {
		t.Error(err)
	}
	if _, err := v.Commit(); err != nil {
		t.Fatal(err)
	}
	if r := check(t, dev); r.Orphans != 1 {
		t.Errorf("orphans %d", r.Orphans)
	}
	crashed := dev.clone()
	ok(f.Close())
	before := v.Root()
	if r, err := v.Commit(); r.Generation != before.Generation+1 || err != nil {
		t.Errorf("%v %v", r, err)
	}
	before = v.Root()
	if r, err := v.Commit(); r != before || err != nil {
		t.Errorf("commit without changes: %v %v", r, err)
	}
	ok(v.Close())
	is(ErrClosed, v.Mkdir("/x", a))
	if r := check(t, dev); r.Orphans != 0 {
		t.Errorf("orphans %d", r.Orphans)
	}
	v, err = Open(crashed, testKey(), Options{})
	ok(err)
	if _, err := v.Commit(); err != nil {
		t.Error(err)
	}
	if r := check(t, crashed); r.Orphans != 0 {
		t.Errorf("orphans %d after recovery", r.Orphans)
	}
	v, err = Open(crashed, testKey(), Options{ReadOnly: true})
	ok(err)
	is(ErrReadOnly, v.Mkdir("/x", a))
}

// model is what a volume should hold: contents by path, nil for directories.
type model map[string][]byte

func (m model) clone() model {
	c := model{}
	for k, b := range m {
		c[k] = bytes.Clone(b)
	}
	return c
}

// snapshot reads a volume into a model.
func snapshot(v *Volume) (model, error) {
	m := model{}
	var down func(dir string) error
	down = func(dir string) error {
		list, err := v.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			p := strings.TrimSuffix(dir, "/") + "/" + e.Name
			if e.Type == Dir {
				m[p] = nil
				if err := down(p); err != nil {
					return err
				}
				continue
			}
			b, err := v.ReadFile(p, 1<<30)
			if err != nil {
				return err
			}
			m[p] = append([]byte{}, b...)
		}
		return nil
	}
	return m, down("/")
}

func same(a, b model) bool {
	if len(a) != len(b) {
		return false
	}
	for k, x := range a {
		y, ok := b[k]
		if !ok || (x == nil) != (y == nil) || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

// step does one random operation on volume and model alike.
func step(t testing.TB, v *Volume, m model, r *rand.Rand) {
	t.Helper()
	name := func() string {
		if r.IntN(3) == 0 {
			return fmt.Sprintf("/d%d", r.IntN(3))
		}
		return fmt.Sprintf("/d%d/f%d%s", r.IntN(3), r.IntN(30), strings.Repeat("-", 30*r.IntN(5)))
	}
	parent := func(p string) bool {
		i := strings.LastIndexByte(p, '/')
		if i == 0 {
			return true
		}
		b, ok := m[p[:i]]
		return ok && b == nil
	}
	empty := func(p string) bool {
		for k := range m {
			if strings.HasPrefix(k, p+"/") {
				return false
			}
		}
		return true
	}
	p := name()
	old, exists := m[p]
	var err error
	var wantErr bool
	switch op := r.IntN(10); op {
	case 0, 1:
		if strings.Count(p, "/") > 1 {
			return
		}
		err = v.Mkdir(p, Attr{Mode: 0o755})
		if wantErr = exists; !wantErr {
			m[p] = nil
		}
	case 2, 3, 4, 5:
		if strings.Count(p, "/") == 1 || !parent(p) || exists && old == nil {
			return
		}
		f, e := v.Open(p)
		if !exists {
			f, e = v.Create(p, Attr{Mode: 0o644})
		}
		if e != nil {
			t.Fatalf("open %s: %v", p, e)
		}
		off := r.IntN(3 * BlockSize)
		if r.IntN(8) == 0 {
			off = r.IntN(300 * BlockSize)
		}
		data := make([]byte, r.IntN(3*BlockSize))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		if op == 2 {
			err = f.Truncate(int64(off))
			b := append(bytes.Clone(old), make([]byte, max(0, off-len(old)))...)
			m[p] = append([]byte{}, b[:off]...)
		} else {
			_, err = f.WriteAt(data, int64(off))
			b := append([]byte{}, old...)
			if len(data) > 0 {
				b = append(b, make([]byte, max(0, off+len(data)-len(b)))...)
				copy(b[off:], data)
			}
			m[p] = b
		}
		if e := f.Close(); err == nil {
			err = e
		}
	case 6, 7:
		err = v.Remove(p)
		wantErr = !exists || old == nil && !empty(p)
		if !wantErr {
			delete(m, p)
		}
	case 8:
		q := name()
		other, there := m[q]
		err = v.Rename(p, q)
		wantErr = !exists || !parent(q) || p != q && (old == nil && strings.HasPrefix(q, p+"/") ||
			there && (old == nil) != (other == nil) || there && old == nil && !empty(q))
		if wantErr || p == q {
			break
		}
		for k, b := range m.clone() {
			if k == p || strings.HasPrefix(k, p+"/") {
				delete(m, k)
				m[q+k[len(p):]] = b
			}
		}
	case 9:
		if old == nil {
			return
		}
		got, e := v.ReadFile(p, 1<<30)
		if e != nil || !bytes.Equal(got, old) {
			t.Fatalf("%s: read %d bytes (%v), want %d", p, len(got), e, len(old))
		}
	}
	if (err != nil) != wantErr {
		t.Fatalf("operation on %s: error %v, expected an error: %v", p, err, wantErr)
	}
}

func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		dev := &memory{}
		v, err := Create(dev, testKey(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		m := model{}
		for i := range 600 {
			step(t, v, m, r)
			if i%50 == 49 {
				if _, err := v.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			if i%97 == 96 {
				v.nodes = cacheNodes + 1 // forget everything in memory at the next operation
			}
			if i%200 == 199 {
				if _, err := v.Commit(); err != nil {
					t.Fatal(err)
				}
				rep := check(t, dev)
				if got := v.alloc.inUse(); got != rep.BlocksUsed {
					t.Errorf("allocator: %d blocks in use, check finds %d", got, rep.BlocksUsed)
				}
				v.Close()
				if v, err = Open(dev, testKey(), Options{}); err != nil {
					t.Fatal(err)
				}
				got, err := snapshot(v)
				if err != nil || !same(got, m) {
					t.Fatalf("seed %d, step %d: volume and model differ (%v)", seed, i, err)
				}
			}
		}
	}
}

// TestCrash kills a workload at every write, and takes the power at every write
// with random sectors lost: the volume holds the last committed state or, from
// the root's write on, the one under way.
func TestCrash(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	dev := &journal{}
	v, err := Create(dev, testKey(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	base := dev.memory.clone()
	dev.log = nil
	m := model{}
	states := []model{m.clone()}
	first := v.Root().Generation
	type mark struct{ event, state int }
	var done []mark // at event, the state was committed
	rounds := 25
	if s := os.Getenv("SEALFS_CRASH_ROUNDS"); s != "" {
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for range rounds {
		for range 6 {
			step(t, v, m, r)
		}
		before := v.Root().Generation
		root, err := v.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if root.Generation != before {
			states = append(states, m.clone())
			done = append(done, mark{len(dev.log), len(states) - 1})
		}
	}
	runs := 0
	for n := 0; n <= len(dev.log); n++ {
		atLeast := 0
		for _, d := range done {
			if d.event <= n {
				atLeast = d.state
			}
		}
		for i, crashed := range []*memory{killed(base, dev.log, n), powerLoss(base, dev.log, n, r), powerLoss(base, dev.log, n, r)} {
			runs++
			v, err := Open(crashed, testKey(), Options{MinGeneration: first + uint64(atLeast)})
			if err != nil {
				t.Fatalf("event %d, kind %d: %v", n, i, err)
			}
			state := int(v.Root().Generation - first)
			got, err := snapshot(v)
			if err != nil {
				t.Fatalf("event %d, kind %d: %v", n, i, err)
			}
			if state > atLeast+1 || !same(got, states[state]) {
				t.Fatalf("event %d, kind %d: generation holds neither the old nor the new state", n, i)
			}
			if i == 0 && n%10 == 0 {
				check(t, crashed)
				// The recovered volume can be written.
				if err := v.WriteFile("/after", []byte("crash"), Attr{}); err != nil {
					t.Fatal(err)
				}
				if _, err := v.Commit(); err != nil {
					t.Fatal(err)
				}
				check(t, crashed)
			}
		}
	}
	t.Logf("%d crashes over %d writes and syncs", runs, len(dev.log))
}

// TestFull lets every operation of the storage fail once: the committed state
// stays, and the work can be committed once the storage works again.
func TestFull(t *testing.T) {
	for _, failures := range []int{1, 3} {
		for left := 0; ; left++ {
			dev := &failing{left: 1 << 30}
			v, err := Create(dev, testKey(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := v.WriteFile(fmt.Sprintf("/f%d", i), bytes.Repeat([]byte{byte(i + 1)}, 3*BlockSize), Attr{}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := v.Commit(); err != nil {
				t.Fatal(err)
			}
			old, err := snapshot(v)
			if err != nil {
				t.Fatal(err)
			}
			committed := v.Root()
			dev.left, dev.failures = left, failures
			failed := false
			try := func(err error) {
				if err != nil {
					failed = true
				}
			}
			f, err := v.Open("/f0")
			try(err)
			_, err = f.WriteAt(bytes.Repeat([]byte{9}, 2*BlockSize+100), 50)
			try(err)
			try(v.Remove("/f1"))
			try(v.Mkdir("/d", Attr{}))
			_, err = v.Commit()
			try(err)
			exhausted := dev.failures == failures
			dev.failures = 0
			if failed {
				// A reader that comes now finds the old state or, when the root's write failed, the new one.
				now := &memory{data: append([]byte(nil), dev.data...)}
				w, err := Open(now, testKey(), Options{Expect: &committed})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := snapshot(w); err != nil || w.Root() == committed && !same(got, old) {
					t.Fatalf("after failure at %d: %v", left, err)
				}
				check(t, now)
			}
			for i := range 3 {
				if err := v.WriteFile("/f2", bytes.Repeat([]byte{byte(40 + i)}, BlockSize), Attr{}); err != nil && v.broken == nil {
					t.Fatal(err)
				}
				_, err := v.Commit()
				if err != nil && v.broken == nil {
					t.Fatal(err)
				}
			}
			check(t, dev)
			if w, err := Open(dev, testKey(), Options{}); err != nil {
				t.Fatal(err)
			} else if b, err := w.ReadFile("/f2", 1<<20); v.broken == nil && (err != nil || !bytes.Equal(b, bytes.Repeat([]byte{42}, BlockSize))) {
				t.Fatalf("failure at %d: %v", left, err)
			}
			if exhausted {
				break
			}
		}
	}
}

// TestNextData compares the holes of a file with those of a model, before and after commits.
func TestNextData(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	dev := &memory{}
	v, err := Create(dev, testKey(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.Create("/f", Attr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	const size = 3 << 40
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	written := map[int64]bool{} // chunks
	for range 60 {
		n := r.Int64N(size / BlockSize)
		if r.IntN(2) == 0 {
			n %= 300
		}
		if _, err := f.WriteAt([]byte{1}, n*BlockSize+r.Int64N(BlockSize)); err != nil {
			t.Fatal(err)
		}
		written[n] = true
		if r.IntN(4) == 0 {
			if _, err := v.Commit(); err != nil {
				t.Fatal(err)
			}
			v.nodes = cacheNodes + 1 // forget the nodes
		}
		for range 20 {
			off := r.Int64N(size)
			if r.IntN(2) == 0 {
				off %= 400 * BlockSize
			}
			want, found := int64(0), false
			for c := range written {
				if at := max(off, c*BlockSize); c >= off/BlockSize && (!found || at < want) {
					want, found = at, true
				}
			}
			got, err := f.NextData(off)
			if found && (err != nil || got != want) || !found && !errors.Is(err, io.EOF) {
				t.Fatalf("at %d: %d, %v; want %d, %v", off, got, err, want, found)
			}
		}
	}
	if _, err := f.NextData(size); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if _, err := f.NextData(-1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
