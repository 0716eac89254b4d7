// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"iter"
	"math/bits"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// maxRowBytes bounds the memory of kept rows. Debian's policy needs a fraction
// of it for all of its types; a policy made to be large computes rows anew.
const maxRowBytes = 256 << 20

// rowKey is a class and a target type or attribute; it is never 0.
type rowKey uint32

func makeRowKey(class policydb.ClassID, target policydb.TypeID) rowKey {
	return rowKey(class)<<16 | rowKey(target)
}

// ruleIndex has the access vector rules by source, unconditional and
// conditional.
type ruleIndex struct {
	start   []uint32 // by source value; the rules of v are start[v]:start[v+1]
	entries []ruleEntry
}

type ruleEntry struct {
	key  rowKey
	data uint32
	kind policydb.RuleKind
	// node is 0, or 1 + 2×conditional, plus 1 for the false branch.
	node uint32
}

func newRuleIndex(p *policydb.Policy) ruleIndex {
	x := ruleIndex{start: make([]uint32, p.Types.Prim+2)}
	each := func(f func(r policydb.Rule, node uint32)) {
		for _, r := range p.Rules {
			if r.Kind().IsVector() {
				f(r, 0)
			}
		}
		for i := range p.Conditionals {
			c := &p.Conditionals[i]
			for branch, list := range [2][]policydb.Rule{c.True, c.False} {
				for _, r := range list {
					if r.Kind().IsVector() {
						f(r, uint32(1+2*i+branch))
					}
				}
			}
		}
	}
	each(func(r policydb.Rule, _ uint32) { x.start[r.Source+1]++ })
	for i := 1; i < len(x.start); i++ {
		x.start[i] += x.start[i-1]
	}
	x.entries = make([]ruleEntry, x.start[len(x.start)-1])
	fill := make([]uint32, len(x.start))
	copy(fill, x.start)
	each(func(r policydb.Rule, node uint32) {
		x.entries[fill[r.Source]] = ruleEntry{makeRowKey(r.Class, r.Target), r.Data, r.Kind(), node}
		fill[r.Source]++
	})
	return x
}

func (x *ruleIndex) of(source policydb.TypeID) []ruleEntry {
	return x.entries[x.start[source]:x.start[source+1]]
}

// row is all rules of one source type and its attributes, merged by class and
// target: an open hash table. Conditional rules hang off their slot.
type row struct {
	slots []slot
	shift uint8
	more  []slotMore
	conds []condRule
}

type slot struct {
	key     rowKey
	allowed uint32
	more    uint32 // 1 + index into row.more, or 0
}

// slotMore is what few slots have.
type slotMore struct {
	auditAllow uint32
	auditDeny  uint32
	cond       uint32 // 1 + index of the first in row.conds, or 0
}

type condRule struct {
	node uint32 // as in ruleEntry
	kind policydb.RuleKind
	data uint32
	next uint32 // 1 + index of the next for the same slot, or 0
}

const (
	slotSize = 12
	moreSize = 12
	condSize = 16
)

func (r *row) bytes() int64 {
	return int64(len(r.slots)*slotSize + cap(r.more)*moreSize + cap(r.conds)*condSize)
}

func (r *row) index(key rowKey) int { return int(uint32(key) * 0x9e3779b1 >> r.shift) }

// find returns the slot of a key, or nil.
func (r *row) find(key rowKey) *slot {
	mask := len(r.slots) - 1
	for i := r.index(key) & mask; ; i = (i + 1) & mask {
		s := &r.slots[i]
		if s.key == key {
			return s
		}
		if s.key == 0 {
			return nil
		}
	}
}

func (r *row) insert(key rowKey) *slot {
	mask := len(r.slots) - 1
	for i := r.index(key) & mask; ; i = (i + 1) & mask {
		s := &r.slots[i]
		if s.key == key {
			return s
		}
		if s.key == 0 {
			s.key = key
			return s
		}
	}
}

func (r *row) resize(entries int) {
	size := 4
	for size*2 < entries*3 {
		size *= 2
	}
	r.slots = make([]slot, size)
	r.shift = uint8(32 - bits.Len(uint(size-1)))
}

// row returns the merged rules of a source type.
func (e *engine) row(source policydb.TypeID) *row {
	if r := e.rows[source-1].Load(); r != nil {
		return r
	}
	r := e.buildRow(source)
	if e.rowBytes.Add(r.bytes()) > maxRowBytes {
		e.rowBytes.Add(-r.bytes())
		return r
	}
	if !e.rows[source-1].CompareAndSwap(nil, r) {
		e.rowBytes.Add(-r.bytes())
		return e.rows[source-1].Load()
	}
	return r
}

func (e *engine) buildRow(source policydb.TypeID) *row {
	n := 0
	for _, a := range e.attributes[source-1] {
		n += len(e.rules.of(a))
	}
	r := &row{}
	r.resize(n)
	used := 0
	for _, a := range e.attributes[source-1] {
		for i := range e.rules.of(a) {
			if r.add(&e.rules.of(a)[i]) {
				used++
			}
		}
	}
	// Attributes repeat each other; what they took too much goes back.
	if old := r.slots; used*4 < len(old) {
		r.resize(used)
		for i := range old {
			if old[i].key != 0 {
				*r.insert(old[i].key) = old[i]
			}
		}
	}
	return r
}

// add merges a rule and reports whether its key is new.
func (r *row) add(x *ruleEntry) bool {
	s := r.insert(x.key)
	fresh := s.allowed == 0 && s.more == 0
	if x.kind == policydb.Allow && x.node == 0 {
		s.allowed |= x.data
		return fresh
	}
	if s.more == 0 {
		r.more = append(r.more, slotMore{auditDeny: ^uint32(0)})
		s.more = uint32(len(r.more))
	}
	m := &r.more[s.more-1]
	switch {
	case x.node != 0:
		r.conds = append(r.conds, condRule{node: x.node, kind: x.kind, data: x.data, next: m.cond})
		m.cond = uint32(len(r.conds))
	case x.kind == policydb.AuditAllow:
		m.auditAllow |= x.data
	case x.kind == policydb.DontAudit:
		m.auditDeny &= x.data
	}
	return fresh
}

// vector is the outcome of rules alone.
type vector struct{ allowed, auditAllow, auditDeny uint32 }

// typeVector merges the rules of a source type and a target type for a class.
func (s *Server) typeVector(source, target policydb.TypeID, class policydb.ClassID) vector {
	v := vector{auditDeny: ^uint32(0)}
	r := s.row(source)
	for _, a := range s.attributes[target-1] {
		if slot := r.find(makeRowKey(class, a)); slot != nil {
			s.addSlot(&v, r, slot)
		}
	}
	return v
}

func (s *Server) addSlot(v *vector, r *row, x *slot) {
	v.allowed |= x.allowed
	if x.more == 0 {
		return
	}
	m := &r.more[x.more-1]
	v.auditAllow |= m.auditAllow
	v.auditDeny &= m.auditDeny
	for i := m.cond; i != 0; {
		c := &r.conds[i-1]
		if s.branchActive(c.node) {
			switch c.kind {
			case policydb.Allow:
				v.allowed |= c.data
			case policydb.AuditAllow:
				v.auditAllow |= c.data
			case policydb.DontAudit:
				v.auditDeny &= c.data
			}
		}
		i = c.next
	}
}

// branchActive reports whether the branch of a conditional rule is in force.
func (s *Server) branchActive(node uint32) bool {
	return s.state[(node-1)/2] == ((node-1)&1 == 0)
}

// Grant is the permissions that rules allow a source type on a target, which is
// a type or an attribute. Constraints are not applied.
type Grant struct {
	Class   policydb.ClassID
	Target  policydb.TypeID
	Allowed uint32
}

// Grants yields what the rules allow a source type under the server's booleans,
// its attributes' rules included, one entry for each class and target; in no
// particular order.
func (s *Server) Grants(source policydb.TypeID) iter.Seq[Grant] {
	return func(yield func(Grant) bool) {
		if source == 0 || int(source) > len(s.rows) {
			return
		}
		r := s.row(source)
		for i := range r.slots {
			x := &r.slots[i]
			if x.key == 0 {
				continue
			}
			v := vector{}
			s.addSlot(&v, r, x)
			if v.allowed != 0 && !yield(Grant{policydb.ClassID(x.key >> 16), policydb.TypeID(x.key & 0xffff), v.allowed}) {
				return
			}
		}
	}
}
