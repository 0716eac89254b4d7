// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"sync/atomic"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// cacheSlots is the number of decisions that a server remembers.
const cacheSlots = 8192

// cache is a direct-mapped cache of decisions without locks. An entry is guarded
// by its sequence number: odd while it is written, changed by every write. All
// words are atomic, so a torn read is seen and discarded.
type cache struct {
	entries [cacheSlots]cacheEntry
}

type cacheEntry struct {
	seq    atomic.Uint32
	class  atomic.Uint32
	source atomic.Uint64
	target atomic.Uint64
	first  atomic.Uint64 // allowed, auditallow
	second atomic.Uint64 // auditdeny, flags
}

func newCache() *cache { return &cache{} }

func (c *cache) entry(source, target uint64, class policydb.ClassID) *cacheEntry {
	h := (source*0x9e3779b97f4a7c15 ^ target*0xc2b2ae3d27d4eb4f ^ uint64(class)*0x165667b19e3779f9) * 0x9e3779b97f4a7c15
	return &c.entries[h>>(64-13)]
}

func (e *cacheEntry) load(source, target uint64, class policydb.ClassID) (Decision, bool) {
	seq := e.seq.Load()
	if seq&1 != 0 || e.source.Load() != source || e.target.Load() != target || e.class.Load() != uint32(class) {
		return Decision{}, false
	}
	first, second := e.first.Load(), e.second.Load()
	if e.seq.Load() != seq {
		return Decision{}, false
	}
	return Decision{
		Allowed: uint32(first), AuditAllow: uint32(first >> 32),
		AuditDeny: uint32(second), Flags: uint32(second >> 32),
	}, true
}

func (e *cacheEntry) store(source, target uint64, class policydb.ClassID, d Decision) {
	seq := e.seq.Load()
	// Whoever loses the race to write need not: it is a cache.
	if seq&1 != 0 || !e.seq.CompareAndSwap(seq, seq+1) {
		return
	}
	e.source.Store(source)
	e.target.Store(target)
	e.class.Store(uint32(class))
	e.first.Store(uint64(d.Allowed) | uint64(d.AuditAllow)<<32)
	e.second.Store(uint64(d.AuditDeny) | uint64(d.Flags)<<32)
	e.seq.Store(seq + 2)
}
