// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
)

// memory is a device in memory.
type memory struct {
	mu   sync.RWMutex
	data []byte
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(m.data)) {
		m.data = append(m.data, make([]byte, end-int64(len(m.data)))...)
	}
	return copy(m.data[off:], p), nil
}

func (m *memory) Size() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.data)), nil
}

func (m *memory) Sync() error { return nil }

func (m *memory) clone() *memory { return &memory{data: append([]byte(nil), m.data...)} }

// journal is a device that remembers every write and sync.
type journal struct {
	memory
	log []write
}

type write struct {
	off  int64
	data []byte // nil: a sync
}

func (j *journal) WriteAt(p []byte, off int64) (int, error) {
	j.log = append(j.log, write{off, append([]byte(nil), p...)})
	return j.memory.WriteAt(p, off)
}

func (j *journal) Sync() error {
	j.log = append(j.log, write{})
	return nil
}

// killed gives the storage after the first n events: what a kill leaves.
func killed(base *memory, log []write, n int) *memory {
	m := base.clone()
	for _, w := range log[:n] {
		if w.data != nil {
			m.WriteAt(w.data, w.off)
		}
	}
	return m
}

// powerLoss gives the storage after the first n events when of the writes since
// the last sync each 512-byte sector got there or not.
func powerLoss(base *memory, log []write, n int, r *rand.Rand) *memory {
	synced := 0
	for i, w := range log[:n] {
		if w.data == nil {
			synced = i
		}
	}
	m := killed(base, log, synced)
	for _, w := range log[synced:n] {
		for off := 0; off < len(w.data); off += 512 {
			if r.IntN(2) == 0 {
				m.WriteAt(w.data[off:min(off+512, len(w.data))], w.off+int64(off))
			}
		}
	}
	return m
}

var errFull = errors.New("no space left on device")

// failing is a device whose writes and syncs fail on demand.
type failing struct {
	memory
	left     int // operations until failure
	failures int // how many then fail
}

func (f *failing) fail() error {
	if f.left--; f.left < 0 && f.failures > 0 {
		f.failures--
		return errFull
	}
	return nil
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fail(); err != nil {
		n, _ := f.memory.WriteAt(p[:len(p)/2], off) // a torn write
		return n, err
	}
	return f.memory.WriteAt(p, off)
}

func (f *failing) Sync() error { return f.fail() }

// stream is a reproducible random generator: SHA-256(seed ‖ u64 counter), cut to
// what is asked for each call.
type stream struct {
	seed string
	n    uint64
}

func (s *stream) Read(p []byte) (int, error) {
	for done := 0; done < len(p); {
		var c [8]byte
		binary.LittleEndian.PutUint64(c[:], s.n)
		s.n++
		sum := sha256.Sum256(append([]byte(s.seed), c[:]...))
		done += copy(p[done:], sum[:])
	}
	return len(p), nil
}

func testKey() []byte {
	k := make([]byte, KeySize)
	for i := range k {
		k[i] = byte(i)
	}
	return k
}
