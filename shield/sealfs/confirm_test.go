// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// readerSays is what testdata/reader.py finds in one volume.
type readerSays struct {
	Refused    string       `json:"refused"`
	Generation uint64       `json:"generation"`
	RootDigest string       `json:"root_digest"`
	Policy     []Region     `json:"regions"`
	Tree       []vectorFile `json:"tree"`
}

// reader runs the reader that was written from docs/sealfs.md alone, in Python with
// other people's cryptography.
func reader(t *testing.T, files ...string) []readerSays {
	t.Helper()
	python := oracle.Tool(t, "python3", "apt: python3")
	if err := exec.Command(python, "-c", "import cryptography").Run(); err != nil {
		oracle.Missing(t, "python3 has no module cryptography (apt: python3-cryptography)")
	}
	cmd := exec.Command(python, append([]string{"testdata/reader.py", hex.EncodeToString(testKey())}, files...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reader.py: %v", err)
	}
	var list []readerSays
	for line := range bytes.Lines(out) {
		var r readerSays
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if len(list) != len(files) {
		t.Fatalf("reader.py answered for %d of %d volumes", len(list), len(files))
	}
	return list
}

// ours is the same from this package.
func ours(dev Device) (readerSays, error) {
	v, err := Open(dev, testKey(), Options{ReadOnly: true})
	if err != nil {
		return readerSays{}, err
	}
	defer v.Close()
	tree, err := readAll(v)
	r := v.Root()
	return readerSays{Generation: r.Generation, RootDigest: hex.EncodeToString(r.Digest[:]), Policy: v.Policy().Regions, Tree: tree}, err
}

// differ says where two readers differ.
func differ(a, b readerSays) string {
	for i := range max(len(a.Tree), len(b.Tree)) {
		if i >= min(len(a.Tree), len(b.Tree)) {
			return fmt.Sprintf("%d and %d names", len(a.Tree), len(b.Tree))
		}
		if a.Tree[i] != b.Tree[i] {
			return fmt.Sprintf("%+v and %+v", a.Tree[i], b.Tree[i])
		}
	}
	a.Tree, b.Tree = nil, nil
	if !reflect.DeepEqual(a, b) {
		return fmt.Sprintf("%+v and %+v", a, b)
	}
	return ""
}

// TestConfirmReader reads the vectors, and a volume after random work, with the
// document's reader.
func TestConfirmReader(t *testing.T) {
	dev := &memory{}
	v, err := Create(dev, testKey(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := model{}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		step(t, v, m, r)
		if i%50 == 49 {
			if _, err := v.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	worked := filepath.Join(t.TempDir(), "worked.sealfs")
	if err := os.WriteFile(worked, dev.data, 0o600); err != nil {
		t.Fatal(err)
	}
	files := []string{"testdata/vector-1.sealfs", "testdata/vector-2.sealfs", worked}
	for i, got := range reader(t, files...) {
		data, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		want, err := ours(&memory{data: data})
		if err != nil {
			t.Fatal(err)
		}
		if d := differ(got, want); d != "" {
			t.Errorf("%s: reader.py and this package: %s", files[i], d)
		}
	}
}

// TestConfirmReaderCorrupted changes one byte: both readers give the true data, or
// the older state that a crash leaves, or both refuse. SEALFS_READER_FLIPS is how many.
func TestConfirmReaderCorrupted(t *testing.T) {
	flips := 30
	if testing.Short() {
		flips = 2
	}
	if n, err := strconv.Atoi(os.Getenv("SEALFS_READER_FLIPS")); err == nil {
		flips = n
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"testdata/vector-1.sealfs", "testdata/vector-2.sealfs"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		type change struct {
			at   int
			bits byte
		}
		var changes []change
		var args []string
		for i := range flips {
			c := change{r.IntN(len(data)), byte(1 + r.IntN(255))}
			if i%2 == 0 {
				c.at %= 3*BlockSize + 1024 // where there is more to get wrong
			}
			changes = append(changes, c)
			args = append(args, fmt.Sprintf("%s@%d:%d", name, c.at, c.bits))
		}
		refused := 0
		for i, theirs := range reader(t, args...) {
			dev := &memory{data: bytes.Clone(data)}
			dev.data[changes[i].at] ^= changes[i].bits
			mine, err := ours(dev)
			switch {
			case theirs.Refused == "" && (err != nil || differ(theirs, mine) != ""):
				t.Errorf("%s: reader.py accepts it, this package: %v %s", args[i], err, differ(theirs, mine))
			case theirs.Refused != "":
				refused++
				if _, err := Open(dev, testKey(), Options{ReadOnly: true}); err == nil {
					if rep, err := Check(dev, testKey(), Options{}, CheckOptions{}); err == nil && len(rep.Problems) == 0 {
						t.Errorf("%s: reader.py refuses (%s), this package finds nothing", args[i], theirs.Refused)
					}
				}
			}
		}
		if refused == 0 {
			t.Errorf("%s: no change was refused", name)
		}
		t.Logf("%s: %d changes, %d refused", name, flips, refused)
	}
}
