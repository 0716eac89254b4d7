// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// history is a volume with all states it went through.
type history struct {
	devs   []*memory
	models []model
	roots  []Root
}

func makeHistory(t testing.TB) *history {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 9))
	dev := &memory{}
	opts := Options{Policy: Policy{Regions: []Region{{"/", Encrypted}, {"/d1", Authenticated}}}, Rand: &stream{seed: "history"}, Now: vectorNow}
	v, err := Create(dev, testKey(), opts)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	m := model{}
	// No renames across the regions: the model does not know them.
	names := []string{"/d0", "/d1", "/d2"}
	for _, n := range names {
		if err := v.Mkdir(n, Attr{Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		m[n] = nil
	}
	for range 5 {
		for range 6 {
			p := fmt.Sprintf("%s/f%d", names[r.IntN(3)], r.IntN(4))
			b := make([]byte, r.IntN(3*BlockSize))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if err := v.WriteFile(p, b, Attr{Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
			m[p] = append([]byte{}, b...)
		}
		root, err := v.Commit()
		if err != nil {
			t.Fatal(err)
		}
		h.devs, h.models, h.roots = append(h.devs, dev.clone()), append(h.models, m.clone()), append(h.roots, root)
	}
	return h
}

// corrupt does one of the things that a host can do to a volume.
func (h *history) corrupt(r *rand.Rand) (*memory, string) {
	last := len(h.devs) - 1
	m := h.devs[last].clone()
	block := func() int { return r.IntN(len(m.data) / BlockSize) }
	at := func(b int) []byte { return m.data[b*BlockSize : (b+1)*BlockSize] }
	switch r.IntN(9) {
	case 0:
		i, bit := r.IntN(len(m.data)), r.IntN(8)
		m.data[i] ^= 1 << bit
		return m, fmt.Sprintf("bit %d of byte %d flipped", bit, i)
	case 1:
		a, b := block(), block()
		for i := range BlockSize {
			at(a)[i], at(b)[i] = at(b)[i], at(a)[i]
		}
		return m, fmt.Sprintf("blocks %d and %d swapped", a, b)
	case 2:
		a, b := block(), block()
		copy(at(a), at(b))
		return m, fmt.Sprintf("block %d copied over %d", b, a)
	case 3:
		a, g := block(), r.IntN(last)
		if old := h.devs[g].data; (a+1)*BlockSize <= len(old) {
			copy(at(a), old[a*BlockSize:])
		}
		return m, fmt.Sprintf("block %d as it was in state %d", a, g)
	case 4:
		n := r.IntN(len(m.data))
		m.data = m.data[:n]
		return m, fmt.Sprintf("cut to %d bytes", n)
	case 5:
		a := block()
		clear(at(a))
		return m, fmt.Sprintf("block %d zeroed", a)
	case 6:
		a := block()
		for i := range at(a) {
			at(a)[i] = byte(r.Uint32())
		}
		return m, fmt.Sprintf("block %d random", a)
	case 7:
		g := r.IntN(last)
		old := h.devs[g].data
		from := r.IntN(len(old))
		n := copy(m.data[from:], old[from:min(len(old), from+r.IntN(16*BlockSize))])
		return m, fmt.Sprintf("bytes %d to %d as they were in state %d", from, from+n, g)
	default:
		g := r.IntN(last)
		m := h.devs[g].clone()
		if r.IntN(2) == 0 { // all but the root slots
			copy(m.data[BlockSize:3*BlockSize], h.devs[last].data[BlockSize:])
		}
		return m, fmt.Sprintf("the whole volume as it was in state %d", g)
	}
}

// judge opens a corrupted volume and accepts true data or a clean error.
func (h *history) judge(t *testing.T, m *memory, what string) (outcome string) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("%s: panic: %v", what, p)
		}
	}()
	last := len(h.devs) - 1
	for _, ro := range []bool{true, false} {
		v, err := Open(m, testKey(), Options{ReadOnly: ro, Expect: &h.roots[last]})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrStale) && !errors.Is(err, ErrNoRoot) && !errors.Is(err, ErrNotVolume) &&
				!errors.Is(err, ErrVersion) && !errors.Is(err, ErrWrongKey) {
				t.Fatalf("%s: unclean error: %v", what, err)
			}
			outcome = "refused at opening"
			continue
		}
		for p, want := range h.models[last] {
			if want == nil {
				if _, err := v.ReadDir(p); err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s: %s: unclean error: %v", what, p, err)
				}
				continue
			}
			got, err := v.ReadFile(p, 1<<20)
			switch {
			case err != nil && !errors.Is(err, ErrCorrupt):
				t.Fatalf("%s: %s: unclean error: %v", what, p, err)
			case err != nil:
				outcome = "refused at reading"
			case !bytes.Equal(got, want):
				t.Fatalf("%s: %s: WRONG DATA", what, p)
			}
		}
		v.Close()
	}
	if outcome == "" {
		return "true data"
	}
	return outcome
}

// TestEvilHost corrupts volumes: true data or a clean error, always. The number
// is in SEALFS_CORRUPTIONS; make shield-volumes takes 100 000.
func TestEvilHost(t *testing.T) {
	n := 3000
	if s := os.Getenv("SEALFS_CORRUPTIONS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	h := makeHistory(t)
	r := rand.New(rand.NewPCG(uint64(n), 4))
	count := map[string]int{}
	for range n {
		m, what := h.corrupt(r)
		count[h.judge(t, m, what)]++
	}
	t.Logf("%d corrupted volumes: %v", n, count)
}

// TestMixAndMatch is what only the format's tree can refuse: parts that are each
// authentic, of another state of the same file, or of another file.
func TestMixAndMatch(t *testing.T) {
	h := makeHistory(t)
	last := len(h.devs) - 1
	n := 0
	for b := 3; b*BlockSize < len(h.devs[0].data); b++ {
		for g := range last {
			if (b+1)*BlockSize > len(h.devs[g].data) {
				continue
			}
			m := h.devs[last].clone()
			copy(m.data[b*BlockSize:(b+1)*BlockSize], h.devs[g].data[b*BlockSize:])
			h.judge(t, m, fmt.Sprintf("block %d of state %d", b, g))
			n++
		}
	}
	for a := 3; (a+1)*BlockSize <= len(h.devs[last].data); a++ {
		b := 3 + (a+7)%(len(h.devs[last].data)/BlockSize-3)
		m := h.devs[last].clone()
		copy(m.data[a*BlockSize:(a+1)*BlockSize], h.devs[last].data[b*BlockSize:])
		h.judge(t, m, fmt.Sprintf("block %d in the place of %d", b, a))
		n++
	}
	t.Logf("%d volumes", n)
}

// FuzzVolume is for inputs that a fuzzer thinks up, and for authentic structures
// with wrong content: the second byte string is sealed as an inode table, which
// only someone with the key could do.
func FuzzVolume(f *testing.F) {
	h := makeHistory(f)
	last := h.devs[len(h.devs)-1]
	f.Add(uint32(5000), []byte{1}, []byte{})
	f.Add(uint32(BlockSize+20), []byte("abc"), []byte{})
	table := make([]byte, 6*inodeSize)
	(&record{typ: Dir, class: Encrypted, parent: 1, nlink: 1, id: [16]byte{1}}).put(table[inodeSize:])
	f.Add(uint32(0), []byte{}, table)
	f.Fuzz(func(t *testing.T, off uint32, patch, table []byte) {
		m := last.clone()
		if len(table) > 0 && len(table) < 1<<16 {
			resealTable(t, m, table)
		} else {
			copy(m.data[int(off)%len(m.data):], patch)
		}
		for _, ro := range []bool{true, false} {
			v, err := Open(m, testKey(), Options{ReadOnly: ro})
			if err != nil {
				continue
			}
			got, err := snapshotBounded(v)
			if err == nil && len(table) == 0 && !same(got, h.models[len(h.models)-1]) && v.Root() == h.roots[len(h.roots)-1] {
				t.Error("wrong data")
			}
			v.Close()
		}
		if _, err := Check(m, testKey(), Options{}, CheckOptions{Workers: 1}); err == nil {
			return
		}
	})
}

// resealTable puts an inode table of the fuzzer's into the volume.
func resealTable(t *testing.T, m *memory, table []byte) {
	// The same input gives the same volume: a fuzzer cannot work with anything else.
	v, err := Open(m, testKey(), Options{Rand: &stream{seed: "fuzz"}, Now: vectorNow})
	if err != nil {
		t.Fatal(err)
	}
	v.count = max(uint32(len(table)/inodeSize), v.count)
	v.table.size = uint64(v.count) * inodeSize
	if err := v.writeTree(&v.table, table[:len(table)/inodeSize*inodeSize], 0); err != nil {
		t.Fatal(err)
	}
	v.dirty = true
	if _, err := v.commit(); err != nil {
		t.Fatal(err)
	}
}

func snapshotBounded(v *Volume) (model, error) {
	m := model{}
	var down func(dir string, depth int) error
	down = func(dir string, depth int) error {
		list, err := v.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			p := dir + "/" + e.Name
			if dir == "/" {
				p = dir + e.Name
			}
			if e.Type == Dir {
				m[p] = nil
				if depth < 20 {
					if err := down(p, depth+1); err != nil {
						return err
					}
				}
				continue
			}
			if e.Type != Regular {
				continue
			}
			b, err := v.ReadFile(p, 1<<20)
			if err != nil {
				return err
			}
			m[p] = append([]byte{}, b...)
		}
		return nil
	}
	return m, down("/", 0)
}

func FuzzPage(f *testing.F) {
	b := make([]byte, BlockSize)
	page{{3, Regular, "a"}, {4, Dir, "b"}}.encode(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, in []byte) {
		b := make([]byte, BlockSize)
		copy(b, in)
		p, err := decodePage(b, 1, 0, 10)
		if err != nil {
			return
		}
		again := make([]byte, BlockSize)
		p.encode(again)
		if !bytes.Equal(b, again) {
			t.Error("a page has two encodings")
		}
	})
}

func FuzzRecord(f *testing.F) {
	b := make([]byte, inodeSize)
	(&record{typ: Regular, class: Authenticated, nlink: 1, id: [16]byte{1}, size: 5}).put(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		b := make([]byte, inodeSize)
		copy(b, in)
		r, err := getRecord(b, 3, 10)
		if err != nil {
			return
		}
		again := make([]byte, inodeSize)
		r.put(again)
		if !bytes.Equal(b, again) {
			t.Error("a record has two encodings")
		}
	})
}

func FuzzPolicy(f *testing.F) {
	p := policy1()
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePolicy(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.encode(), b) {
			t.Error("a region table has two encodings")
		}
	})
}
