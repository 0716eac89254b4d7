// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Table is an automaton in the kernel's compressed form: the row of state s
// starts at Base[s] in Next and Check, which all rows share like the teeth of
// combs. Source: security/apparmor/match.c and include/match.h.
type Table struct {
	Accept, Accept2 []uint32
	Base            []uint32 // with flag bits above bit 23
	Def             []uint32
	Next, Check     []uint32
	Classes         *[256]byte // equivalence class of each byte; nil: the byte itself
	Flags           uint16
	// Wide says that Def, Next and Check have 32-bit entries, which needs a
	// kernel with the feature policy/state32.
	Wide bool
}

// Flags of a table and of its Base entries.
const (
	FlagDiffEncode = 1
	FlagOOB        = 2

	baseMask     = 0x00ffffff
	baseDiff     = 0x80000000
	baseOOB      = 0x20000000
	baseReserved = 0xff000000 &^ (baseDiff | baseOOB)
)

const (
	tableMagic = 0x1B5E783D

	idAccept  = 1
	idBase    = 2
	idCheck   = 3
	idDefault = 4
	idEC      = 5
	idAccept2 = 7
	idNext    = 8
)

// Bounds of the formats.
const (
	MaxStates16 = 1<<16 - 2
	MaxStates32 = 1<<24 - 1
)

// Pack compresses d. accept gives the values of the two accept tables for a
// label. The tables start with the trap and the start state.
func Pack(d *DFA, accept func(label uint32) (uint32, uint32)) (*Table, error) {
	return pack(d, nil, accept)
}

func pack(d *DFA, rel []relRow, accept func(label uint32) (uint32, uint32)) (*Table, error) {
	n := d.Len()
	if n > MaxStates32 {
		return nil, fmt.Errorf("%w: %d states", ErrTooBig, n)
	}
	size := max(n, 2)
	t := &Table{
		Accept: make([]uint32, size), Accept2: make([]uint32, size),
		Base: make([]uint32, size), Def: make([]uint32, size), Wide: n > MaxStates16,
	}
	row := func(s int) (uint32, []Edge) {
		if rel != nil && rel[s].on {
			return rel[s].base, rel[s].edges
		}
		return d.Default[s], d.Edges(uint32(s))
	}
	order := make([]uint32, 0, n)
	for s := 1; s < n; s++ {
		order = append(order, uint32(s))
	}
	// Dense rows first: they are hardest to place.
	slices.SortStableFunc(order[min(1, len(order)):], func(a, b uint32) int {
		_, x := row(int(a))
		_, y := row(int(b))
		return len(y) - len(x)
	})
	p := packer{}
	p.extend(256)
	p.used[0] = true
	p.first = 1
	maxBase := 0
	for s := range n {
		t.Accept[s], t.Accept2[s] = accept(d.Label[s])
		t.Def[s], _ = row(s)
		if rel != nil && rel[s].on {
			t.Base[s] |= baseDiff
			t.Flags |= FlagDiffEncode
		}
	}
	for _, s := range order {
		_, edges := row(int(s))
		if len(edges) == 0 {
			continue
		}
		base := p.place(s, edges)
		if base > baseMask {
			return nil, fmt.Errorf("%w: transition table", ErrTooBig)
		}
		t.Base[s] |= uint32(base)
		maxBase = max(maxBase, base)
		if edges[len(edges)-1].Sym == OOB {
			t.Base[s] |= baseOOB
			t.Flags |= FlagOOB
		}
	}
	p.extend(maxBase + 256)
	t.Next, t.Check = p.next[:maxBase+256], p.check[:maxBase+256]
	return t, nil
}

type packer struct {
	next, check []uint32
	used        []bool
	first       int      // every place below is used
	hint        [258]int // where a row of this many edges was last placed
}

func (p *packer) extend(n int) {
	if n > len(p.used) {
		add := n - len(p.used)
		p.next = append(p.next, make([]uint32, add)...)
		p.check = append(p.check, make([]uint32, add)...)
		p.used = append(p.used, make([]bool, add)...)
	}
}

// offset is a symbol's distance from its row's base.
func offset(sym uint16) int {
	if sym == OOB {
		return -1
	}
	return int(sym)
}

func (p *packer) place(s uint32, edges []Edge) int {
	lo := offset(edges[0].Sym)
	if edges[len(edges)-1].Sym == OOB {
		lo = -1
	}
	for p.first < len(p.used) && p.used[p.first] {
		p.first++
	}
	x := max(p.first, p.hint[len(edges)], 1)
	if len(edges) == 1 {
		x = max(p.first, 1)
	}
	base := max(x-lo, 0)
	if lo < 0 {
		base = max(base, 2)
	}
search:
	for ; ; base++ {
		if base+lo < len(p.used) && p.used[base+lo] {
			continue
		}
		for _, e := range edges {
			if at := base + offset(e.Sym); at < len(p.used) && p.used[at] {
				continue search
			}
		}
		break
	}
	p.extend(base + 256)
	for _, e := range edges {
		at := base + offset(e.Sym)
		p.used[at] = true
		p.next[at] = e.To
		p.check[at] = s
	}
	if len(edges) > 1 {
		p.hint[len(edges)] = base + lo
	}
	return base
}

// States is the number of states.
func (t *Table) States() int { return len(t.Base) }

// Step is the kernel's transition function; sym is a byte or OOB.
func (t *Table) Step(s uint32, sym int) uint32 {
	at := 0
	if sym == OOB {
		if t.Base[s]&baseOOB == 0 {
			return Trap
		}
		at = -1
	} else if t.Classes != nil {
		at = int(t.Classes[byte(sym)])
	} else {
		at = sym
	}
	for {
		b := t.Base[s]
		pos := int(b&baseMask) + at
		if t.Check[pos] == s {
			return t.Next[pos]
		}
		s = t.Def[s]
		if b&baseDiff == 0 {
			return s
		}
	}
}

func pad8(n int) int { return (n + 7) &^ 7 }

// EncodedLen is the length in bytes of what Encode returns.
func (t *Table) EncodedLen() int {
	w := 2
	if t.Wide {
		w = 4
	}
	n := 24 + pad8(12+4*len(t.Accept)) + pad8(12+4*len(t.Base)) + pad8(12+w*len(t.Def)) + 2*pad8(12+w*len(t.Next))
	if t.Accept2 != nil {
		n += pad8(12 + 4*len(t.Accept2))
	}
	if t.Classes != nil {
		n += pad8(12 + 256)
	}
	return n
}

// Encode writes the table as the kernel reads it, in big-endian order. Its
// start has to be aligned to 8 bytes in the policy stream.
// Source: security/apparmor/match.c, aa_dfa_unpack.
func (t *Table) Encode() []byte {
	be := binary.BigEndian
	size := t.EncodedLen()
	out := make([]byte, 0, size)
	out = be.AppendUint32(out, tableMagic)
	out = be.AppendUint32(out, 24)
	out = be.AppendUint32(out, uint32(size))
	out = be.AppendUint16(out, t.Flags)
	out = append(out, "notflex\x00\x00\x00"...)
	head := func(id, width, n int) {
		out = be.AppendUint16(out, uint16(id))
		out = be.AppendUint16(out, uint16(width))
		out = be.AppendUint32(out, 0)
		out = be.AppendUint32(out, uint32(n))
	}
	pad := func() {
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
	}
	words := func(id int, v []uint32) {
		head(id, 4, len(v))
		for _, x := range v {
			out = be.AppendUint32(out, x)
		}
		pad()
	}
	states := func(id int, v []uint32) {
		if t.Wide {
			words(id, v)
			return
		}
		head(id, 2, len(v))
		for _, x := range v {
			out = be.AppendUint16(out, uint16(x))
		}
		pad()
	}
	words(idAccept, t.Accept)
	if t.Accept2 != nil {
		words(idAccept2, t.Accept2)
	}
	if t.Classes != nil {
		head(idEC, 1, 256)
		out = append(out, t.Classes[:]...)
		pad()
	}
	words(idBase, t.Base)
	states(idDefault, t.Def)
	states(idNext, t.Next)
	states(idCheck, t.Check)
	return out
}

// ErrTable is wrapped by every error about malformed tables.
var ErrTable = errors.New("malformed automaton tables")

func tableError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrTable, fmt.Sprintf(format, args...))
}

// ParseTable reads tables and verifies all that the kernel verifies, so that
// Step never leaves them. Memory is bounded by a small multiple of len(b).
// Source: security/apparmor/match.c, aa_dfa_unpack, verify_table_headers,
// verify_dfa.
func ParseTable(b []byte) (*Table, error) {
	be := binary.BigEndian
	if len(b) < 16 || be.Uint32(b) != tableMagic {
		return nil, tableError("no magic number")
	}
	hsize, ssize := uint64(be.Uint32(b[4:])), uint64(be.Uint32(b[8:]))
	t := &Table{Flags: be.Uint16(b[12:])}
	if hsize < 14 || hsize > uint64(len(b)) {
		return nil, tableError("header of %d bytes", hsize)
	}
	if ssize > uint64(len(b)) {
		return nil, tableError("%d bytes announced, %d present", ssize, len(b))
	}
	if t.Flags&^(FlagDiffEncode|FlagOOB) != 0 {
		return nil, tableError("unknown flags %#x", t.Flags)
	}
	b = b[hsize:]
	have := map[int]bool{}
	for len(b) >= 12 {
		id, width, hi, n := int(be.Uint16(b)), int(be.Uint16(b[2:])), be.Uint32(b[4:]), uint64(be.Uint32(b[8:]))
		if id == 0 {
			break
		}
		if hi != 0 || width != 1 && width != 2 && width != 4 {
			return nil, tableError("table %d: dimensions", id)
		}
		if have[id] {
			return nil, tableError("table %d twice", id)
		}
		have[id] = true
		size := 12 + n*uint64(width)
		if size > uint64(len(b)) {
			return nil, tableError("table %d: %d entries do not fit", id, n)
		}
		data := b[12:size]
		b = b[min((size+7)&^7, uint64(len(b))):]
		if id == idEC {
			if width != 1 || n != 256 {
				return nil, tableError("equivalence classes: %d entries of %d bytes", n, width)
			}
			t.Classes = (*[256]byte)(slices.Clone(data))
			continue
		}
		v := make([]uint32, n)
		switch {
		case width == 4 && id != idEC:
			for i := range v {
				v[i] = be.Uint32(data[4*i:])
			}
		case width == 2 && (id == idDefault || id == idNext || id == idCheck):
			for i := range v {
				v[i] = uint32(be.Uint16(data[2*i:]))
			}
		default:
			return nil, tableError("table %d: entries of %d bytes", id, width)
		}
		switch id {
		case idAccept:
			t.Accept = v
		case idAccept2:
			t.Accept2 = v
		case idBase:
			t.Base = v
		case idDefault:
			t.Def, t.Wide = v, width == 4
		case idNext:
			t.Next = v
		case idCheck:
			t.Check = v
		default:
			return nil, tableError("unknown table %d", id)
		}
	}
	return t, t.verify()
}

func (t *Table) verify() error {
	n := len(t.Base)
	switch {
	case n < 2:
		return tableError("%d states, at least 2 are needed", n)
	case n > MaxStates32:
		return tableError("%d states", n)
	case len(t.Def) != n:
		return tableError("%d defaults for %d states", len(t.Def), n)
	case t.Accept == nil:
		return tableError("no accept table")
	case len(t.Accept) != n, t.Accept2 != nil && len(t.Accept2) != n:
		return tableError("accept table of another length than %d", n)
	case len(t.Next) != len(t.Check):
		return tableError("%d next and %d check entries", len(t.Next), len(t.Check))
	}
	for s := range n {
		b := t.Base[s]
		if b&baseReserved != 0 {
			return tableError("state %d: unknown flags %#x", s, b&baseReserved)
		}
		if b&baseDiff != 0 && t.Flags&FlagDiffEncode == 0 {
			return tableError("state %d: differential row in tables without", s)
		}
		if b&baseOOB != 0 {
			if t.Flags&FlagOOB == 0 {
				return tableError("state %d: out-of-band row in tables without", s)
			}
			if b&baseMask == 0 {
				return tableError("state %d: no room for the out-of-band entry", s)
			}
		}
		if int(b&baseMask)+255 >= len(t.Next) {
			return tableError("state %d: row ends outside the table", s)
		}
		if t.Def[s] >= uint32(n) {
			return tableError("state %d: default %d of %d states", s, t.Def[s], n)
		}
	}
	for i := range t.Next {
		if t.Next[i] >= uint32(n) || t.Check[i] >= uint32(n) {
			return tableError("entry %d: state out of range", i)
		}
	}
	return t.verifyChains()
}

// verifyChains refuses differential rows that refer to each other in a circle.
func (t *Table) verifyChains() error {
	if t.Flags&FlagDiffEncode == 0 {
		return nil
	}
	state := make([]uint8, len(t.Base)) // 1: on the current chain, 2: ends
	var chain []uint32
	for s := range t.Base {
		chain = chain[:0]
		for s := uint32(s); state[s] != 2; s = t.Def[s] {
			if state[s] == 1 {
				return tableError("state %d: differential rows form a circle", s)
			}
			state[s] = 1
			chain = append(chain, s)
			if t.Base[s]&baseDiff == 0 {
				break
			}
		}
		for _, s := range chain {
			state[s] = 2
		}
	}
	return nil
}

// maxUnpack bounds the work of Unpack, in table look-ups.
const maxUnpack = 1 << 28

// Unpack returns the automaton of the tables, not minimised, with
// label(accept, accept2) as labels.
func (t *Table) Unpack(label func(accept, accept2 uint32) uint32) (*DFA, error) {
	n := len(t.Base)
	d := &DFA{Default: make([]uint32, n), Label: make([]uint32, n), index: make([]uint32, 1, n+1)}
	work := 0
	var rows [257][2]uint32 // symbol → (state + 1 that set it, target)
	for s := range n {
		var a1, a2 uint32
		if t.Accept != nil {
			a1 = t.Accept[s]
		}
		if t.Accept2 != nil {
			a2 = t.Accept2[s]
		}
		d.Label[s] = label(a1, a2)
		mark := uint32(s) + 1
		var row []Edge
		if t.Base[s]&baseOOB != 0 {
			rows[OOB] = [2]uint32{mark, t.Step(uint32(s), OOB)}
		}
		r := uint32(s)
		for {
			b := int(t.Base[r] & baseMask)
			if work += 256; work > maxUnpack {
				return nil, fmt.Errorf("%w: differential rows", ErrTooBig)
			}
			for c := range 256 {
				at := b + c
				if t.Classes != nil {
					at = b + int(t.Classes[c])
				}
				if t.Check[at] == r && rows[c][0] != mark {
					rows[c] = [2]uint32{mark, t.Next[at]}
				}
			}
			if t.Base[r]&baseDiff == 0 {
				break
			}
			r = t.Def[r]
		}
		def := t.Def[r]
		for c := range rows {
			if rows[c][0] == mark {
				row = append(row, Edge{uint16(c), rows[c][1]})
			}
		}
		d.Default[s], row = bestDefault(def, row)
		d.edges = append(d.edges, row...)
		d.index = append(d.index, uint32(len(d.edges)))
	}
	return d, nil
}
