// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/palisade-sec/palisade/target"
)

// Store keeps values by name, a string of letters and digits. What it loses is
// compiled again.
type Store interface {
	Load(key string) ([]byte, bool)
	Store(key string, value []byte)
}

// Cache keeps compiled filters. The zero value keeps none.
type Cache struct {
	Store Store
	// Build names the program that compiles: another build may compile
	// differently. Without it nothing is kept.
	Build string
}

// filter returns what compile would return for what on the host t, from the cache
// if the same build has compiled it before for the same kernel and architecture.
func (c Cache) filter(t target.Target, what any, compile func() (Filter, error)) (Filter, error) {
	if c.Store == nil || c.Build == "" {
		return compile()
	}
	key, err := c.key(t, what)
	if err != nil {
		return compile()
	}
	if b, ok := c.Store.Load(key); ok {
		if f, ok := decodeFilter(b); ok {
			return f, nil
		}
	}
	f, err := compile()
	if err == nil {
		c.Store.Store(key, encodeFilter(f))
	}
	return f, err
}

// key names what, together with all that its filter depends on.
func (c Cache) key(t target.Target, what any) (string, error) {
	b, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %T\n", c.Build, t.Kernel.Release, t.Arch, what)
	sum.Write(b)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// A kept filter is a mark, the flags, the program, and the SHA-256 of all of it: a
// value that was cut short must not pass for a shorter filter.
var filterMark = [4]byte{'P', 'L', 'F', 1}

const (
	instruction     = 8
	maxInstructions = 4096 // BPF_MAXINSNS
)

func encodeFilter(f Filter) []byte {
	b := append(filterMark[:len(filterMark):len(filterMark)], 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[4:], f.Flags)
	b = append(b, f.Program...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func decodeFilter(b []byte) (Filter, bool) {
	size := len(b) - 8 - sha256.Size
	if size < instruction || size%instruction != 0 || size > maxInstructions*instruction || !bytes.HasPrefix(b, filterMark[:]) {
		return Filter{}, false
	}
	body, sum := b[:8+size], sha256.Sum256(b[:8+size])
	if !bytes.Equal(sum[:], b[8+size:]) {
		return Filter{}, false
	}
	return Filter{Flags: binary.LittleEndian.Uint32(b[4:]), Program: body[8:]}, true
}
