// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Reason says why a filter gives an answer.
type Reason struct {
	Action  Action `json:"action"`
	Because string `json:"because"`
	// Rules are the places of the rules that decide; none for a default.
	Rules []RuleRef `json:"rules,omitempty"`
	// Shadowed are rules that match as well and do not decide.
	Shadowed []RuleRef `json:"shadowed,omitempty"`
}

// RuleRef is a rule and where it names the call.
type RuleRef struct {
	Rule   int    `json:"rule"` // place in `syscalls`, from 1
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Action Action `json:"action"`
	Name   string `json:"name"`
	When   string `json:"when,omitempty"`
	// Comment is the rule's own.
	Comment string `json:"comment,omitempty"`
}

func (r RuleRef) String() string {
	s := fmt.Sprintf("%s:%d:%d: rule %d, %v", r.File, r.Line, r.Column, r.Rule, r.Action)
	if r.When != "" {
		s += " when " + r.When
	}
	return s
}

func (r *Reason) String() string {
	s := r.Because
	for _, ref := range r.Rules {
		s += "\n  " + ref.String()
	}
	for _, ref := range r.Shadowed {
		s += "\n  without effect: " + ref.String()
	}
	return s
}

// Why explains the answer that the filter gives to a call on an ABI.
func (f *Filter) Why(mode Mode, a syscalls.Arch, d *cbpf.Data, act Action) *Reason {
	r := &Reason{Action: act}
	if !slices.Contains(f.ABIs(), a) {
		r.Because = fmt.Sprintf("the filter has no rules for %v", a)
		return r
	}
	isX32 := d.Nr&syscalls.X32Bit != 0
	if a.Audit() == syscalls.X86_64.Audit() && d.Nr != ^uint32(0) {
		switch {
		case isX32 && !slices.Contains(f.ABIs(), syscalls.X32):
			r.Because = "the number has the x32 bit, and the filter has no rules for x32"
			return r
		case isX32:
			a = syscalls.X32
		}
	}
	n, known := a.Call(d.Nr)
	var others []RuleRef
	if known {
		for _, b := range f.bindings(mode, a, n) {
			if !b.matches(d) {
				continue
			}
			ref := f.ref(b)
			if b.rule.Action == act {
				r.Rules = append(r.Rules, ref)
			} else {
				others = append(others, ref)
			}
		}
	}
	r.Shadowed = others
	switch {
	case len(r.Rules) > 0:
		r.Because = "a rule says so"
	case act == cbpf.Errno(f.Native.ENOSYS()) && act != f.Default:
		switch {
		case !known:
			r.Because = fmt.Sprintf("%v has no such system call; the filter answers ENOSYS, so that programs fall back", a)
		case mode == Strict:
			r.Because = fmt.Sprintf("%v is newer than every call that the profile names; the filter answers ENOSYS, so that programs fall back", n)
		default:
			r.Because = fmt.Sprintf("%v is above the highest number that the profile names on %v; runc answers ENOSYS, so that programs fall back", n, a)
		}
	default:
		r.Because = "no rule matches; this is the default action"
		if len(others) > 0 && act == f.Default {
			r.Because = "a rule matches, but libseccomp drops its part of the rules; this is the default action"
		}
	}
	return r
}

// bindings lists what the rules say about a call of an ABI, subcalls of a
// multiplexer included.
func (f *Filter) bindings(mode Mode, a syscalls.Arch, n syscalls.Name) []boundRule {
	var out []boundRule
	for _, r := range f.Rules {
		sets := r.conditionSets()
		if mode == Strict {
			sets = sets[:1]
		}
		for _, name := range r.Names {
			if !name.known {
				continue
			}
			for _, set := range sets {
				b := boundRule{rule: r, name: name, conds: set}
				for i := range b.masks {
					b.masks[i] = ^uint64(0)
					if a.Bits() == 32 {
						b.masks[i] = 0xffffffff
					}
					if mode == Strict {
						b.masks[i] = name.call.Mask(a, i)
					}
				}
				if name.call == n {
					out = append(out, b)
					continue
				}
				mux, sub, ok := muxOf(a, name.call)
				if !ok || mux != n {
					continue
				}
				if mode == Strict {
					if !isEmpty(&set) && r.Action.Rank() > f.Default.Rank() {
						continue
					}
					b.conds = [6]cond{}
				}
				b.conds[0] = cond{op: EQ, value: uint64(sub)}
				b.masks[0] = 0xffffffff
				if mode == Strict && mux == ipcName { // the upper half is a version
					b.masks[0] = 0xffff
				}
				out = append(out, b)
			}
		}
	}
	return out
}

// matches tells whether all conditions hold.
func (b *boundRule) matches(d *cbpf.Data) bool {
	for i, c := range b.conds {
		if c.op != 0 && !c.holds(d.Args[i]&b.masks[i], b.masks[i]) {
			return false
		}
	}
	return true
}

func (c cond) holds(v, mask uint64) bool {
	k := c.value & mask
	switch c.op {
	case NE:
		return v != k
	case LT:
		return v < k
	case LE:
		return v <= k
	case EQ:
		return v == k
	case GE:
		return v >= k
	case GT:
		return v > k
	}
	return v&k == c.value2&k
}

func (c cond) text(arg int) string {
	num := func(v uint64) string {
		if v < 4096 {
			return fmt.Sprint(v)
		}
		return fmt.Sprintf("%#x", v)
	}
	name := fmt.Sprintf("a%d", arg)
	switch c.op {
	case NE:
		return name + " != " + num(c.value)
	case LT:
		return name + " < " + num(c.value)
	case LE:
		return name + " <= " + num(c.value)
	case EQ:
		return name + " = " + num(c.value)
	case GE:
		return name + " >= " + num(c.value)
	case GT:
		return name + " > " + num(c.value)
	}
	return fmt.Sprintf("%s & %#x = %s", name, c.value, num(c.value2&c.value))
}

func (f *Filter) ref(b boundRule) RuleRef {
	at := f.Profile.NameSpan(b.name)
	ref := RuleRef{File: at.File, Line: at.Start.Line, Column: at.Start.Column, Action: b.rule.Action, Name: b.name.Text, Comment: b.rule.Comment}
	for i := range f.Profile.Rules {
		if &f.Profile.Rules[i] == b.rule {
			ref.Rule = i + 1
		}
	}
	var parts []string
	for i, c := range b.conds {
		if c.op != 0 {
			parts = append(parts, c.text(i))
		}
	}
	ref.When = strings.Join(parts, " and ")
	return ref
}

// Region is one way in which a call can be answered.
type Region struct {
	Args   []ArgRange `json:"args"`
	Action Action     `json:"action"`
	Reason *Reason    `json:"reason,omitempty"`
}

// Explanation says what happens to one call on one ABI.
type Explanation struct {
	Arch    syscalls.Arch `json:"arch"`
	Syscall string        `json:"syscall"`
	Nr      uint32        `json:"nr"`
	Since   string        `json:"since,omitempty"`
	Groups  []string      `json:"groups,omitempty"`
	Regions []Region      `json:"regions"`
	// Cached tells whether the kernel, since 5.11, answers the call without
	// running the filter; NotCached why it does not.
	Cached    bool   `json:"cached"`
	NotCached string `json:"not_cached,omitempty"`
}

// Explain lists everything that a source can do with a call of an ABI, with the
// rules that decide when it is a profile.
func Explain(s *Source, a syscalls.Arch, nr uint32) (*Explanation, error) {
	d, err := s.own()
	if err != nil {
		return nil, err
	}
	x := &Explanation{Arch: a, Nr: nr, Syscall: fmt.Sprint(int32(nr)), Regions: []Region{}}
	if n, ok := a.Call(nr); ok {
		x.Syscall = n.String()
		if v := n.Since(a); v != 0 {
			x.Since = v.String()
		}
		x.Groups = syscalls.GroupsOf(x.Syscall)
	}
	d = at(at(d, wordArch, a.Audit()), wordNr, nr)
	regions(d, nil, func(bounds []bound, act, _ Action) {
		args, ok := solve(bounds)
		if !ok {
			return
		}
		r := Region{Args: ranges(bounds), Action: act}
		if r.Args == nil {
			r.Args = []ArgRange{}
		}
		if s.Filter != nil {
			r.Reason = s.Filter.Why(s.Mode, a, &cbpf.Data{Arch: a.Audit(), Nr: nr, Args: args}, act)
		}
		x.Regions = append(x.Regions, r)
	})
	return x, nil
}

// SelfTest compares a program compiled from the filter with the reference over
// all numbers and the borders of all conditions. It returns how many cases it
// compared.
func (f *Filter) SelfTest(mode Mode, p cbpf.Program) (int, error) {
	ref := f.Reference(mode)
	rng := rand.New(rand.NewPCG(1, 1))
	values := [6][]uint64{}
	for i := range values {
		values[i] = []uint64{0, 1, ^uint64(0), 0xffffffff, 1 << 32, 1 << 31, 1 << 63}
	}
	asked := map[syscalls.Name]bool{}
	for _, r := range f.Rules {
		for _, a := range r.Args {
			v := &values[a.Index]
			*v = append(*v, a.Value, a.Value-1, a.Value+1, a.Value|1<<32, a.ValueTwo, ^a.Value)
		}
		if len(r.Args) > 0 {
			for _, n := range r.Names {
				if n.known {
					asked[n.call] = true
				}
			}
		}
	}
	cases := 0
	try := func(d *cbpf.Data) error {
		cases++
		got, _, err := p.Run(d, f.Native.BigEndian())
		if err != nil {
			return err
		}
		if want := ref(d); got != want {
			return diag.List{{Code: "SEC-SELF-TEST", Severity: diag.Error, Message: fmt.Sprintf("compiler error: arch %#x nr %d args %#x: the filter says %v, the rules say %v", d.Arch, d.Nr, d.Args, got, want)}}
		}
		return nil
	}
	for _, a := range f.ABIs() {
		for nr := range uint32(1024) {
			if err := try(&cbpf.Data{Arch: a.Audit(), Nr: a.Base() + nr}); err != nil {
				return cases, err
			}
		}
		for _, nr := range []uint32{0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0xbfffffff, 0xc0000000, 0xfffffffe, 0xffffffff} {
			if err := try(&cbpf.Data{Arch: a.Audit(), Nr: nr}); err != nil {
				return cases, err
			}
		}
		var err error
		a.Each(func(nr uint32, name string) {
			n, _ := syscalls.Lookup(name)
			if !asked[n] && n != socketcallName && n != ipcName {
				return
			}
			for range 200 {
				d := cbpf.Data{Arch: a.Audit(), Nr: nr}
				for i := range d.Args {
					d.Args[i] = values[i][rng.IntN(len(values[i]))]
				}
				if (n == socketcallName || n == ipcName) && rng.IntN(2) == 0 {
					d.Args[0] = rng.Uint64N(26)
				}
				if e := try(&d); e != nil && err == nil {
					err = e
				}
			}
		})
		if err != nil {
			return cases, err
		}
	}
	return cases, try(&cbpf.Data{Arch: 0xdeadbeef})
}
