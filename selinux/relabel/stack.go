// SPDX-License-Identifier: Apache-2.0

//go:build linux

package relabel

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// stack is the shared list of folders still to be walked. It ends when no
// folder waits and none is in work.
type stack struct {
	mu      sync.Mutex
	cond    sync.Cond
	waiting []folder
	working int
	depth   atomic.Int64
}

func newStack(f folder) *stack {
	s := &stack{waiting: []folder{f}}
	s.cond.L = &s.mu
	s.depth.Store(1)
	return s
}

func (s *stack) add(f folder) {
	s.mu.Lock()
	s.waiting = append(s.waiting, f)
	s.mu.Unlock()
	s.depth.Add(1)
	s.cond.Signal()
}

// full tells whether as many folders wait as may be open.
func (s *stack) full() bool { return s.depth.Load() >= maxOpen }

// take waits for a folder; false means that the walk is over.
func (s *stack) take() (folder, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 {
		if s.working == 0 {
			s.cond.Broadcast()
			return folder{}, false
		}
		s.cond.Wait()
	}
	f := s.waiting[len(s.waiting)-1]
	s.waiting = s.waiting[:len(s.waiting)-1]
	s.depth.Add(-1)
	s.working++
	return f, true
}

func (s *stack) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working--; s.working == 0 && len(s.waiting) == 0 {
		s.cond.Broadcast()
	}
}

// dirent takes the first record of what getdents64 returned. The name ends with
// its NUL, so that it can be handed to the kernel as it stands.
//
// Source: include/linux/dirent.h, struct linux_dirent64
func dirent(b []byte) (name []byte, typ byte, rest []byte, ok bool) {
	const header = 19 // u64 inode, s64 offset, u16 length, u8 type
	if len(b) < header {
		return nil, 0, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b[16:]))
	if n <= header || n > len(b) {
		return nil, 0, nil, false
	}
	end := bytes.IndexByte(b[header:n], 0)
	if end < 1 {
		return nil, 0, nil, false
	}
	return b[header : header+end+1 : n], b[18], b[n:], true
}
