// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Source is anything that answers system calls: a profile resolved for a host,
// or compiled filters that run one after the other.
type Source struct {
	Filter *Filter // with Mode; otherwise:
	Mode   Mode

	Programs  []cbpf.Program
	BigEndian bool

	read sync.Once
	b    *builder
	d    *decision
	err  error
}

// own is the source's meaning, worked out once.
func (s *Source) own() (*decision, error) {
	s.read.Do(func() {
		s.b = newBuilder()
		s.d, s.err = s.meaning(s.b)
	})
	return s.d, s.err
}

// meaning is the decision over architecture, number and arguments.
func (s *Source) meaning(b *builder) (d *decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(errTooComplex) {
				panic(r)
			}
			d, err = nil, errTooComplex
		}
	}()
	if s.Filter != nil {
		v, err := s.Filter.decideWith(b, s.Mode)
		if err != nil {
			return nil, err
		}
		return v.root(), nil
	}
	for i, p := range s.Programs {
		one, err := fromProgram(b, p, s.BigEndian)
		if err != nil {
			return nil, err
		}
		if one = b.normal(one); i == 0 {
			d = one
		} else {
			d = b.strictest(d, one)
		}
	}
	if d == nil {
		d = b.action(cbpf.Allow)
	}
	return d, nil
}

// root puts the machines of a verdict under one decision over the architecture.
func (v *verdict) root() *decision {
	ms := slices.Clone(v.machines)
	slices.SortFunc(ms, func(a, b machine) int { return int(int64(a.audit) - int64(b.audit)) })
	bad := v.b.action(v.badArch)
	next := make([]edge, 0, 2*len(ms)+1)
	from := uint64(0)
	for _, m := range ms {
		if uint64(m.audit) > from {
			next = append(next, edge{m.audit - 1, bad})
		}
		next = append(next, edge{m.audit, m.nr})
		from = uint64(m.audit) + 1
	}
	if from <= 1<<32-1 {
		next = append(next, edge{^uint32(0), bad})
	}
	return v.b.choose(wordArch.masked(^uint32(0)), next)
}

// strictest is what the kernel makes of two filters: the action of lower rank;
// of equal ones that of the first, which is the newer filter.
func (b *builder) strictest(x, y *decision) *decision {
	type pair struct{ x, y *decision }
	memo := map[pair]*decision{}
	var join func(x, y *decision) *decision
	join = func(x, y *decision) *decision {
		if x.isAction() && y.isAction() {
			if y.act.Rank() < x.act.Rank() {
				return y
			}
			return x
		}
		k := pair{x, y}
		if d, ok := memo[k]; ok {
			return d
		}
		v := topOf(x, y)
		var next []edge
		eachPair(v, x, y, func(_, hi uint32, xs, ys *decision) { next = append(next, edge{hi, join(xs, ys)}) })
		d := b.choose(v, next)
		memo[k] = d
		return d
	}
	return join(x, y)
}

// topOf is the variable that the first of two normal decisions asks for.
func topOf(x, y *decision) variable {
	if x.isAction() || !y.isAction() && y.v.compare(x.v) < 0 {
		return y.v
	}
	return x.v
}

// eachPair walks two decisions over the ranges of v on which neither changes.
func eachPair(v variable, x, y *decision, visit func(lo, hi uint32, x, y *decision)) {
	xs, ys := []edge{{v.mask, x}}, []edge{{v.mask, y}}
	if !x.isAction() && x.v == v {
		xs = x.next
	}
	if !y.isAction() && y.v == v {
		ys = y.next
	}
	lo := uint32(0)
	for i, j := 0, 0; ; {
		hi := min(xs[i].last, ys[j].last)
		visit(lo, hi, xs[i].to, ys[j].to)
		if hi == v.mask {
			return
		}
		if xs[i].last == hi {
			i++
		}
		if ys[j].last == hi {
			j++
		}
		lo = hi + 1
	}
}

// wordAt is the word at an offset of struct seccomp_data.
func wordAt(off uint32, bigEndian bool) word {
	switch off {
	case cbpf.OffsetNr:
		return wordNr
	case cbpf.OffsetArch:
		return wordArch
	}
	high := (off&4 != 0) != bigEndian
	if off < cbpf.OffsetArgs {
		if high {
			return wordIP
		}
		return wordIP + 1
	}
	return argWord(int(off-cbpf.OffsetArgs)/8, high)
}

// fromProgram reads a verified program back into a decision. Programs that
// compute with words, beyond masking them, cannot be read.
func fromProgram(b *builder, p cbpf.Program, bigEndian bool) (*raw, error) {
	type value struct {
		isWord bool
		v      variable
		k      uint32
		odd    bool
	}
	type place struct {
		pc  int
		a   value
		x   value
		mem [16]value
	}
	memo := map[place]*raw{}
	var read func(s place) (*raw, error)
	read = func(s place) (*raw, error) {
		if d, ok := memo[s]; ok {
			return d, nil
		}
		start := s
		for ; s.pc < len(p); s.pc++ {
			i := p[s.pc]
			operand := value{k: i.K}
			if i.Op&cbpf.SrcX != 0 {
				operand = s.x
			}
			switch {
			case i.Op == cbpf.LoadAbs:
				s.a = value{isWord: true, v: wordAt(i.K, bigEndian).masked(^uint32(0))}
			case i.Op == cbpf.LoadImm:
				s.a = value{k: i.K}
			case i.Op == cbpf.LoadXImm:
				s.x = value{k: i.K}
			case i.Op == cbpf.LoadLen:
				s.a = value{k: 64}
			case i.Op == cbpf.LoadXLen:
				s.x = value{k: 64}
			case i.Op == cbpf.LoadMem:
				s.a = s.mem[i.K]
			case i.Op == cbpf.LoadXMem:
				s.x = s.mem[i.K]
			case i.Op == cbpf.Store:
				s.mem[i.K] = s.a
			case i.Op == cbpf.StoreX:
				s.mem[i.K] = s.x
			case i.Op == cbpf.Tax:
				s.x = s.a
			case i.Op == cbpf.Txa:
				s.a = s.x
			case i.Op&7 == cbpf.ClassALU:
				switch {
				case s.a.isWord && !operand.isWord && !operand.odd && i.Op&0xf0 == cbpf.AndOp:
					if s.a.v.mask &= operand.k; s.a.v.mask == 0 {
						s.a = value{}
					}
				case !s.a.isWord && !s.a.odd && !operand.isWord && !operand.odd:
					one := cbpf.Program{{Op: cbpf.LoadImm, K: s.a.k}, {Op: i.Op &^ cbpf.SrcX, K: operand.k}, {Op: cbpf.ReturnA}}
					r, steps, err := one.Run(&cbpf.Data{}, bigEndian)
					if err != nil {
						return nil, err
					}
					if steps < 3 { // division by zero ends the filter
						d := b.action(cbpf.KillThread)
						memo[start] = d
						return d, nil
					}
					s.a = value{k: uint32(r)}
				default:
					s.a = value{odd: true}
				}
			case i.Op == cbpf.Jump:
				s.pc += int(i.K)
			case i.IsJump():
				if s.a.odd || operand.odd || operand.isWord {
					return nil, fmt.Errorf("instruction %d: %w", s.pc, cbpf.ErrArithmetic)
				}
				yes, no := s, s
				yes.pc, no.pc = s.pc+1+int(i.JT), s.pc+1+int(i.JF)
				if !s.a.isWord {
					one := cbpf.Program{{Op: cbpf.LoadImm, K: s.a.k}, {Op: i.Op &^ cbpf.SrcX, JT: 1, K: operand.k}, {Op: cbpf.Return}, {Op: cbpf.Return, K: 1}}
					if r := one.Eval(&cbpf.Data{}, bigEndian); r == 1 {
						s = yes
					} else {
						s = no
					}
					s.pc--
					continue
				}
				dy, err := read(yes)
				if err != nil {
					return nil, err
				}
				dn, err := read(no)
				if err != nil {
					return nil, err
				}
				v, k := s.a.v, operand.k
				var d *raw
				switch i.Op & 0xf0 {
				case cbpf.JeqOp:
					d = b.equal(v, k, dy, dn)
				case cbpf.JgeOp:
					d = b.split(v, k, dn, dy)
				case cbpf.JgtOp:
					d = b.above(v, k, dn, dy)
				default:
					if m := v.mask & k; m == 0 {
						d = dn
					} else {
						d = b.equal(variable{v.word, m}, 0, dn, dy)
					}
				}
				memo[start] = d
				return d, nil
			case i.Op == cbpf.Return:
				d := b.action(Action(i.K))
				memo[start] = d
				return d, nil
			case i.Op == cbpf.ReturnA:
				if s.a.isWord || s.a.odd {
					return nil, fmt.Errorf("instruction %d: %w", s.pc, cbpf.ErrArithmetic)
				}
				d := b.action(Action(s.a.k))
				memo[start] = d
				return d, nil
			default:
				return nil, fmt.Errorf("instruction %d: %w", s.pc, cbpf.ErrArithmetic)
			}
		}
		return nil, cbpf.ErrStuck
	}
	return read(place{})
}

// ArgRange is a condition on an argument: its bits in Mask lie from Min to Max.
type ArgRange struct {
	Index int    `json:"index"`
	Mask  uint64 `json:"mask"`
	Min   uint64 `json:"min"`
	Max   uint64 `json:"max"`
}

// String is the condition as people write it: "a0 = 5", "a1 & 0x3 >= 1".
func (r ArgRange) String() string {
	name := "a" + strconv.Itoa(r.Index)
	top := r.Mask
	switch r.Mask {
	case ^uint64(0):
	case 0xffffffff:
		name += ".low"
	case 0xffffffff00000000:
		name += ".high"
		r.Min, r.Max, top = r.Min>>32, r.Max>>32, 0xffffffff
	default:
		name += fmt.Sprintf(" & %#x", r.Mask)
	}
	num := func(v uint64) string {
		if v < 4096 {
			return strconv.FormatUint(v, 10)
		}
		return fmt.Sprintf("%#x", v)
	}
	switch {
	case r.Min == r.Max:
		return name + " = " + num(r.Min)
	case r.Min == 0:
		return name + " <= " + num(r.Max)
	case r.Max == top:
		return name + " >= " + num(r.Min)
	}
	return name + " in " + num(r.Min) + ".." + num(r.Max)
}

// bound is a condition on a variable.
type bound struct {
	v        variable
	min, max uint32
}

// ranges turns bounds on words into conditions on arguments.
func ranges(bounds []bound) []ArgRange {
	var out []ArgRange
	whole := ^uint32(0)
	for arg := range 6 {
		var hi, lo *bound
		var rest []ArgRange
		for i := range bounds {
			bd := &bounds[i]
			if bd.v.word < wordArgs || bd.v.word >= wordIP {
				continue
			}
			a, high := bd.v.word.arg()
			if a != arg {
				continue
			}
			switch {
			case bd.v.mask == whole && high:
				hi = bd
			case bd.v.mask == whole:
				lo = bd
			default:
				shift := 0
				if high {
					shift = 32
				}
				rest = append(rest, ArgRange{arg, uint64(bd.v.mask) << shift, uint64(bd.min) << shift, uint64(bd.max) << shift})
			}
		}
		switch {
		case hi != nil && hi.min == hi.max:
			r := ArgRange{arg, ^uint64(0), uint64(hi.min) << 32, uint64(hi.min)<<32 | uint64(whole)}
			if lo != nil {
				r.Min, r.Max = uint64(hi.min)<<32|uint64(lo.min), uint64(hi.min)<<32|uint64(lo.max)
			}
			out = append(out, r)
		case hi != nil && lo == nil:
			out = append(out, ArgRange{arg, ^uint64(0), uint64(hi.min) << 32, uint64(hi.max)<<32 | uint64(whole)})
		default:
			if hi != nil {
				out = append(out, ArgRange{arg, uint64(whole) << 32, uint64(hi.min) << 32, uint64(hi.max) << 32})
			}
			if lo != nil {
				out = append(out, ArgRange{arg, uint64(whole), uint64(lo.min), uint64(lo.max)})
			}
		}
		out = append(out, rest...)
	}
	return out
}

func rangesText(rs []ArgRange) string {
	parts := make([]string, len(rs))
	for i, r := range rs {
		parts[i] = r.String()
	}
	return strings.Join(parts, ", ")
}

// solve finds arguments within bounds; ok is false when there are none.
func solve(bounds []bound) (args [6]uint64, ok bool) {
	for w := wordArgs; w < wordIP; w++ {
		var mine []bound
		for _, bd := range bounds {
			if bd.v.word == w {
				mine = append(mine, bd)
			}
		}
		if len(mine) == 0 {
			continue
		}
		v, ok := solveWord(mine)
		if !ok {
			return args, false
		}
		arg, high := w.arg()
		if high {
			args[arg] |= uint64(v) << 32
		} else {
			args[arg] |= uint64(v)
		}
	}
	return args, true
}

func solveWord(bounds []bound) (uint32, bool) {
	fits := func(v uint32) bool {
		for _, bd := range bounds {
			if m := v & bd.v.mask; m < bd.min || m > bd.max {
				return false
			}
		}
		return true
	}
	lo, hi := uint32(0), ^uint32(0)
	for _, bd := range bounds {
		if bd.v.mask == ^uint32(0) {
			lo, hi = bd.min, bd.max
		}
	}
	// Put the masked bits into the ends of the range, then try around them.
	for _, base := range []uint32{lo, hi, 0, ^uint32(0)} {
		for _, pickMax := range []bool{false, true} {
			v := base
			for _, bd := range bounds {
				if bd.v.mask == ^uint32(0) || v&bd.v.mask >= bd.min && v&bd.v.mask <= bd.max {
					continue
				}
				k := bd.min
				if pickMax {
					k = bd.max
				}
				if k&^bd.v.mask != 0 { // no value of these bits: take the lowest one set
					k = bd.v.mask & -bd.v.mask
				}
				v = v&^bd.v.mask | k
			}
			if fits(v) {
				return v, true
			}
		}
	}
	for v, n := lo, 0; n < 1<<16; v, n = v+1, n+1 {
		if fits(v) {
			return v, true
		}
		if v == hi {
			return 0, false
		}
	}
	rng := rand.New(rand.NewPCG(uint64(lo), uint64(hi)))
	for range 1 << 14 {
		v := lo + uint32(rng.Uint64N(uint64(hi)-uint64(lo)+1))
		for _, bd := range bounds {
			if bd.v.mask != ^uint32(0) && (v&bd.v.mask < bd.min || v&bd.v.mask > bd.max) {
				v = v&^bd.v.mask | bd.min&bd.v.mask
			}
		}
		if fits(v) {
			return v, true
		}
	}
	return 0, false
}

// maxRegions bounds how many regions of one call are listed.
const maxRegions = 4096

// regions walks the argument regions on which two normal decisions answer
// differently; without y, all regions of x.
func regions(x, y *decision, visit func(bounds []bound, x, y Action)) {
	n := 0
	var walk func(x, y *decision, bounds []bound)
	walk = func(x, y *decision, bounds []bound) {
		if x == y && y != nil || n >= maxRegions {
			return
		}
		other := y
		if other == nil {
			other = x
		}
		if x.isAction() && other.isAction() {
			n++
			visit(bounds, x.act, other.act)
			return
		}
		v := topOf(x, other)
		eachPair(v, x, other, func(lo, hi uint32, xs, ys *decision) {
			if y == nil {
				ys = nil
			}
			next := bounds
			if lo != 0 || hi != v.mask {
				next = append(slices.Clip(bounds), bound{v, lo, hi})
			}
			walk(xs, ys, next)
		})
	}
	walk(x, y, nil)
}

// abiRange is a stretch of numbers that belong to an ABI.
type abiRange struct {
	arch   syscalls.Arch
	lo, hi uint32
}

// abiRanges splits the numbers of an audit architecture among its ABIs.
func abiRanges(audit uint32) []abiRange {
	list := syscalls.FromAudit(audit)
	if audit != syscalls.X86_64.Audit() {
		return []abiRange{{list[0], 0, ^uint32(0)}}
	}
	const bit = syscalls.X32Bit
	return []abiRange{{syscalls.X86_64, 0, bit - 1}, {syscalls.X32, bit, 2*bit - 1}, {syscalls.X86_64, 2 * bit, ^uint32(0)}}
}
