// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// boundRule is a rule for one call of one ABI.
type boundRule struct {
	rule  *Rule
	name  Name
	conds [6]cond
	masks [6]uint64 // the bits of each argument that the kernel reads
}

// fillStrict adds the rules as they are written.
func (f *Filter) fillStrict(b *builder, tables []*abiTable) diag.List {
	var list diag.List
	for _, r := range f.Rules {
		if r.repeatsIndex() {
			list = append(list, diag.Diagnostic{
				Code: "SEC-REPEATED-INDEX", Severity: diag.Error, Span: f.Profile.Span(r),
				Message: "the rule asks about one argument twice: runc takes every condition for a rule of its own; write one rule for each condition, or one condition",
			})
			continue
		}
		set := r.conditionSets()[0]
		for _, n := range r.Names {
			if !n.known {
				list = append(list, diag.Diagnostic{
					Code: "SEC-UNKNOWN-NAME", Severity: diag.Error, Span: f.Profile.NameSpan(n),
					Message: fmt.Sprintf("no system call %q on any architecture", n.Text),
				})
				continue
			}
			for _, t := range tables {
				if nr, ok := n.call.On(t.arch); ok {
					bound := boundRule{rule: r, name: n, conds: set}
					for i := range set {
						if set[i].op == 0 {
							continue
						}
						bound.masks[i] = n.call.Mask(t.arch, i)
						if msg := checkWidth(set[i], bound.masks[i]); msg != "" {
							list = append(list, diag.Diagnostic{
								Code: "SEC-WIDTH", Severity: diag.Error, Span: f.Profile.Span(r),
								Message: fmt.Sprintf("%s on %v, argument %d: %s", n.Text, t.arch, i, msg),
							})
						}
					}
					t.bind(n.call, nr, bound)
				}
				mux, sub, ok := muxOf(t.arch, n.call)
				if !ok {
					continue
				}
				// What a multiplexed call's arguments are stands in memory,
				// where no filter can look: an allowance with conditions does
				// not reach it, a denial does without them.
				if !isEmpty(&set) && r.Action.Rank() > f.Default.Rank() {
					continue
				}
				nr, ok := mux.On(t.arch)
				if !ok {
					continue
				}
				bound := boundRule{rule: r, name: n}
				bound.conds[0] = cond{op: EQ, value: uint64(sub)}
				bound.masks[0] = 0xffffffff
				if mux == ipcName { // the upper half is a version
					bound.masks[0] = 0xffff
				}
				t.bind(mux, nr, bound)
			}
		}
	}
	otherwise := b.action(f.Default)
	for _, t := range tables {
		for i := range t.calls {
			s := &t.calls[i]
			list = append(list, f.ambiguities(b, t.arch, s)...)
			s.d = b.normal(s.lowerStrict(b, otherwise))
		}
	}
	return list
}

func (t *abiTable) bind(n syscalls.Name, nr uint32, r boundRule) {
	s, _ := t.state(n, nr)
	s.rules = append(s.rules, r)
}

// checkWidth says what is wrong with a condition on an argument of which the
// kernel reads only the bits of mask.
func checkWidth(c cond, mask uint64) string {
	switch {
	case mask == 0:
		return "the call has no such argument"
	case mask == ^uint64(0):
		return ""
	}
	bits := 32
	if mask == 0xffff {
		bits = 16
	}
	switch c.op {
	case MaskedEQ:
		if c.value&^mask != 0 && c.value2&c.value&^mask != 0 {
			return fmt.Sprintf("the kernel reads %d bits; the condition can never hold", bits)
		}
	case EQ, NE:
		if c.value&^mask != 0 && !signExtended(c.value, bits) {
			return fmt.Sprintf("the kernel reads %d bits; %#x can never be there", bits, c.value)
		}
	default:
		if c.value&^mask != 0 {
			return fmt.Sprintf("the kernel reads %d bits; comparing with %#x decides nothing", bits, c.value)
		}
	}
	return ""
}

func signExtended(v uint64, bits int) bool { return int64(v)>>(bits-1) == -1 }

// lowerStrict makes a chain that tries the most restrictive rule first.
func (s *callState) lowerStrict(b *builder, otherwise *decision) *raw {
	rules := slices.Clone(s.rules)
	slices.SortStableFunc(rules, func(p, q boundRule) int {
		// Among rules of one action the order is free: those about the same
		// arguments stay together, in the order in which decisions ask.
		return cmp.Or(cmp.Compare(q.rule.Action.Rank(), p.rule.Action.Rank()), cmp.Compare(p.rule.Action, q.rule.Action), cmp.Compare(p.shape(), q.shape()))
	})
	d := otherwise
	for i := range rules { // the least restrictive ends up last
		d = rules[i].test(b, b.action(rules[i].rule.Action), d)
	}
	return d
}

// shape has a bit for every argument that is asked about.
func (r *boundRule) shape() (s uint8) {
	for i := range r.conds {
		if r.conds[i].op != 0 {
			s |= 1 << i
		}
	}
	return s
}

// test is yes where all conditions hold.
func (r *boundRule) test(b *builder, yes, no *decision) *raw {
	for i := range r.conds { // the last argument ends up outermost
		if r.conds[i].op != 0 {
			yes = testArg(b, i, r.conds[i], r.masks[i], yes, no)
		}
	}
	return yes
}

// testArg compares the bits of an argument that the kernel reads.
func testArg(b *builder, arg int, c cond, mask uint64, yes, no *decision) *raw {
	lo := argWord(arg, false)
	if mask>>32 == 0 {
		v := lo.masked(uint32(mask))
		value := uint32(c.value & mask)
		switch c.op {
		case EQ:
			return b.equal(v, value, yes, no)
		case NE:
			return b.equal(v, value, no, yes)
		case MaskedEQ:
			m := uint32(c.value & mask)
			return b.equal(lo.masked(m), uint32(c.value2)&m, yes, no)
		case LT:
			return b.split(v, value, yes, no)
		case LE:
			return b.above(v, value, yes, no)
		case GE:
			return b.split(v, value, no, yes)
		}
		return b.above(v, value, no, yes)
	}
	hi := argWord(arg, true).masked(^uint32(0))
	v := lo.masked(^uint32(0))
	high, low := uint32(c.value>>32), uint32(c.value)
	switch c.op {
	case EQ:
		return b.equal(hi, high, b.equal(v, low, yes, no), no)
	case NE:
		return b.equal(hi, high, b.equal(v, low, no, yes), yes)
	case MaskedEQ:
		return b.equal(argWord(arg, true).masked(high), uint32(c.value2>>32)&high,
			b.equal(lo.masked(low), uint32(c.value2)&low, yes, no), no)
	case LT:
		return b.three(hi, high, yes, b.split(v, low, yes, no), no)
	case LE:
		return b.three(hi, high, yes, b.above(v, low, yes, no), no)
	case GE:
		return b.three(hi, high, no, b.split(v, low, no, yes), yes)
	}
	return b.three(hi, high, no, b.above(v, low, no, yes), yes)
}

// above decides by v > k.
func (b *builder) above(v variable, k uint32, upTo, above *decision) *raw {
	if k >= v.mask {
		return upTo
	}
	return b.split(v, k+1, upTo, above)
}

// three decides by v < k, v == k and v > k.
func (b *builder) three(v variable, k uint32, less, equal, more *decision) *raw {
	next := make([]edge, 0, 3)
	if k > 0 {
		next = append(next, edge{k - 1, less})
	}
	next = append(next, edge{k, equal})
	if k < v.mask {
		next = append(next, edge{v.mask, more})
	}
	return b.choose(v, next)
}

// apartAt tells at a glance that two rules exclude each other: both want one
// argument to be equal to something, and not to the same.
func apartAt(p, q *boundRule) bool {
	for i := range p.conds {
		a, b := p.conds[i], q.conds[i]
		if a.op == EQ && b.op == EQ && p.masks[i] == q.masks[i] && a.value&p.masks[i] != b.value&q.masks[i] {
			return true
		}
	}
	return false
}

// ambiguities reports rules of one call that can both match and differ only in
// data, so that neither is the more restrictive.
func (f *Filter) ambiguities(b *builder, a syscalls.Arch, s *callState) diag.List {
	var list diag.List
	no := b.action(cbpf.KillProcess)
	for i := range s.rules {
		p := &s.rules[i]
		for j := range i {
			q := &s.rules[j]
			if p.rule == q.rule || p.rule.Action == q.rule.Action || p.rule.Action.Base() != q.rule.Action.Base() || apartAt(p, q) {
				continue
			}
			if both := b.normal(p.test(b, q.test(b, b.action(cbpf.Allow), no), no)); both == no {
				continue
			}
			list = append(list, diag.Diagnostic{
				Code: "SEC-AMBIGUOUS", Severity: diag.Error, Span: f.Profile.NameSpan(p.name),
				Message: fmt.Sprintf("%s on %v: %v here and %v in another rule can match the same call", p.name.Text, a, p.rule.Action, q.rule.Action),
				Related: []diag.Related{{Span: f.Profile.NameSpan(q.name), Message: "the other rule"}},
			})
		}
	}
	return list
}

// strictNumbers fills the decision over numbers: calls that are newer than every
// call that the profile names, and numbers that are no call, fail with ENOSYS.
func (v *verdict) strictNumbers(native, x32 *abiTable, isX86 bool, put func(uint32, *decision), done func() *decision) *decision {
	b, f := v.b, v.filter
	otherwise := b.action(f.Default)
	enosys, bad := b.action(cbpf.Errno(f.Native.ENOSYS())), b.action(v.badArch)
	if f.Default == cbpf.Allow || f.Default == cbpf.Log || f.Default.Base() == cbpf.TraceBase {
		enosys = otherwise
	}
	table := func(t *abiTable, lo, hi uint32) {
		if t == nil {
			put(hi, bad)
			return
		}
		var newest syscalls.Version
		for _, r := range f.Rules {
			for _, n := range r.Names {
				if n.known {
					if _, ok := n.call.On(t.arch); ok {
						newest = max(newest, n.call.Since(t.arch))
					}
				}
			}
		}
		from := uint64(lo)
		for _, n := range t.arch.Calls() {
			nr, _ := n.On(t.arch)
			if uint64(nr) > from {
				put(nr-1, enosys)
			}
			d := otherwise
			if since := n.Since(t.arch); since > newest && newest > 0 {
				d = enosys
			}
			if i := t.at[n]; i != 0 {
				d = t.calls[i-1].d
			}
			put(nr, d)
			from = uint64(nr) + 1
		}
		if from <= uint64(hi) {
			put(hi, enosys)
		}
	}
	const bit = syscalls.X32Bit
	if !isX86 {
		table(native, 0, ^uint32(0)-1)
	} else {
		table(native, 0, bit-1)
		table(x32, bit, 2*bit-1)
		put(^uint32(0)-1, bad)
	}
	put(^uint32(0), otherwise) // -1 is a tracer's way to skip a call
	return done()
}
