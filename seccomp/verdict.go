// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Mode says how overlapping rules, unknown names and wide arguments are read.
type Mode uint8

const (
	// Compat is what runc with libseccomp 2.5 installs, call by call: the
	// shape of libseccomp's rule tree decides between overlapping rules, 64-bit
	// ABIs compare whole registers, and runc's ENOSYS stub answers numbers above
	// the highest one that the profile names.
	Compat Mode = iota
	// Strict takes a profile at its word: all conditions of a rule must hold,
	// the most restrictive of several rules that match wins, arguments are
	// compared at the width at which the kernel reads them, calls that the
	// profile cannot have known fail with ENOSYS, and what is ambiguous is an
	// error.
	Strict
)

// String is "compat" or "strict".
func (m Mode) String() string {
	if m == Strict {
		return "strict"
	}
	return "compat"
}

// MarshalText makes the mode readable in JSON.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "compat", "":
		return Compat, nil
	case "strict":
		return Strict, nil
	}
	return 0, fmt.Errorf("unknown mode %q: want compat or strict", s)
}

// cond is a condition on the argument that its place in an array names.
type cond struct {
	op            Op // 0: none
	value, value2 uint64
}

// machine is what a filter does for one audit architecture.
type machine struct {
	audit uint32
	abis  []syscalls.Arch
	nr    *decision
}

// verdict is everything that a filter decides.
type verdict struct {
	filter   *Filter
	mode     Mode
	b        *builder
	machines []machine
	badArch  Action
}

// decide works out what the filter does with every call, as decisions.
func (f *Filter) decide(mode Mode) (*verdict, error) { return f.decideWith(newBuilder(), mode) }

func (f *Filter) decideWith(b *builder, mode Mode) (v *verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(errTooComplex) {
				panic(r)
			}
			v, err = nil, errTooComplex
		}
	}()
	v = &verdict{filter: f, mode: mode, b: b, badArch: cbpf.KillThread}
	if mode == Strict {
		v.badArch = cbpf.KillProcess
	}
	abis := f.ABIs()
	tables := make([]*abiTable, len(abis))
	for i, a := range abis {
		tables[i] = &abiTable{arch: a, wide: a.Is64()}
	}
	list := f.checkErrnos(mode)
	if mode == Strict {
		list = append(list, f.fillStrict(v.b, tables)...)
	} else {
		list = append(list, f.fillCompat(v.b, tables)...)
	}
	if err := list.Err(); err != nil {
		return nil, err
	}
	done := map[uint32]bool{}
	for _, t := range tables {
		audit := t.arch.Audit()
		if done[audit] {
			continue
		}
		done[audit] = true
		m := machine{audit: audit}
		var group []*abiTable
		for _, u := range tables {
			if u.arch.Audit() == audit {
				group = append(group, u)
				m.abis = append(m.abis, u.arch)
			}
		}
		m.nr = v.number(group)
		v.machines = append(v.machines, m)
	}
	return v, nil
}

// checkErrnos refuses error numbers that cannot be returned: libseccomp takes
// those below 4095, the kernel 4095 as well.
func (f *Filter) checkErrnos(mode Mode) diag.List {
	limit := Action(4095)
	if mode == Compat {
		limit = 4094
	}
	var list diag.List
	check := func(a Action, at diag.Span) {
		if a.Base() == cbpf.ErrnoBase && a&0xffff > limit {
			list.Errorf(at, "SEC-ERRNO-RANGE", "error number %d; the highest is %d", a.Data(), limit)
		}
	}
	check(f.Default, diag.Span{File: f.Profile.File})
	for _, r := range f.Rules {
		if mode == Strict || r.Action != f.Default && slices.ContainsFunc(r.Names, Name.Known) {
			check(r.Action, f.Profile.Span(r))
		}
	}
	return list
}

// abiTable collects what happens to the calls of one ABI.
type abiTable struct {
	arch   syscalls.Arch
	wide   bool
	calls  []callState
	sorted []int16               // places in calls, by number
	at     [syscalls.Count]int16 // 1 + place in calls
	enosys bool                  // numbers above largest fail with ENOSYS
	// largest is the highest number that the profile names.
	largest uint32
}

// order lists the calls by number.
func (t *abiTable) order() {
	t.sorted = make([]int16, 0, len(t.calls))
	t.arch.EachCall(func(_ uint32, n syscalls.Name) {
		if i := t.at[n]; i != 0 {
			t.sorted = append(t.sorted, i-1)
		}
	})
}

type callState struct {
	nr     uint32
	name   syscalls.Name
	action Action // while tree is nil
	tree   *tree
	d      *decision
	rules  []boundRule // strict mode
}

func (t *abiTable) state(n syscalls.Name, nr uint32) (s *callState, fresh bool) {
	if t.at[n] == 0 {
		if t.calls == nil {
			t.calls = make([]callState, 0, 448)
		}
		t.calls = append(t.calls, callState{nr: nr, name: n})
		t.at[n] = int16(len(t.calls))
		return &t.calls[len(t.calls)-1], true
	}
	return &t.calls[t.at[n]-1], false
}

// fillCompat adds the rules in the order and in the way in which runc hands
// them to libseccomp.
func (f *Filter) fillCompat(b *builder, tables []*abiTable) diag.List {
	var list diag.List
	for _, r := range f.Rules {
		sets := r.conditionSets()
		skip := r.Action == f.Default
		for _, n := range r.Names {
			if !n.known {
				continue
			}
			for _, t := range tables {
				nr, direct := n.call.On(t.arch)
				mux, sub, muxed := muxOf(t.arch, n.call)
				if direct && !muxed && nr > t.largest {
					// libseccomp resolves multiplexed calls to a negative
					// number, which runc's search for the highest passes over.
					t.largest = nr
				}
				if skip {
					continue
				}
				for i := range sets {
					ok := true
					if muxed {
						c := sets[i]
						c[0] = cond{op: EQ, value: uint64(sub)}
						ok = t.add(mux, &c, r.Action)
					}
					if direct && ok {
						ok = t.add(n.call, &sets[i], r.Action)
					}
					if !ok {
						list = append(list, f.conflict(r, n, t.arch))
						break
					}
				}
			}
		}
	}
	permissive := f.Default == cbpf.Allow || f.Default == cbpf.Log || f.Default.Base() == cbpf.TraceBase
	otherwise := b.action(f.Default)
	for _, t := range tables {
		t.enosys = !permissive && t.largest > 0 && !f.withoutStub
		for i := range t.calls {
			s := &t.calls[i]
			if s.tree == nil {
				s.d = b.action(s.action)
			} else {
				s.d = b.normal(s.tree.lower(b, otherwise))
			}
		}
	}
	return list
}

func (f *Filter) conflict(r *Rule, n Name, a syscalls.Arch) diag.Diagnostic {
	d := diag.Diagnostic{
		Code: "SEC-CONFLICT", Severity: diag.Error, Span: f.Profile.NameSpan(n),
		Message: fmt.Sprintf("%s on %v: another rule has the same conditions and another action; libseccomp refuses the profile", n.Text, a),
	}
	for _, o := range f.Rules {
		if o == r {
			break
		}
		if o.Action != r.Action && o.Action != f.Default {
			for _, m := range o.Names {
				if m.Text == n.Text {
					d.Related = append(d.Related, diag.Related{Span: f.Profile.NameSpan(m), Message: fmt.Sprintf("a rule with %v", o.Action)})
				}
			}
		}
	}
	return d
}

func (t *abiTable) add(n syscalls.Name, conds *[6]cond, act Action) bool {
	nr, ok := n.On(t.arch)
	if !ok {
		return true
	}
	s, fresh := t.state(n, nr)
	if isEmpty(conds) {
		// libseccomp lets a rule without conditions replace a tree, but not
		// another rule without conditions.
		if fresh || s.tree != nil {
			s.tree, s.action = nil, act
		}
		return true
	}
	switch {
	case fresh:
		s.tree = &tree{}
	case s.tree == nil:
		return true
	}
	if !s.tree.add(!fresh, conds, act, t.wide) {
		return false
	}
	if s.tree.root == nil {
		s.action, s.tree = s.tree.action, nil
	}
	return true
}

func isEmpty(c *[6]cond) bool {
	for i := range c {
		if c[i].op != 0 {
			return false
		}
	}
	return true
}

// conditionSets lists the conjunctions that a rule stands for: one, or, when an
// argument is asked about twice, one for each single condition.
// Source: runc, libcontainer/seccomp/seccomp_linux.go, matchCall.
func (r *Rule) conditionSets() [][6]cond {
	if r.repeatsIndex() {
		out := make([][6]cond, len(r.Args))
		for i, a := range r.Args {
			out[i][a.Index] = cond{a.Op, a.Value, a.ValueTwo}
		}
		return out
	}
	out := make([][6]cond, 1)
	for _, a := range r.Args {
		out[0][a.Index] = cond{a.Op, a.Value, a.ValueTwo}
	}
	return out
}

func (r *Rule) repeatsIndex() bool {
	var seen uint8
	for _, a := range r.Args {
		if seen&(1<<a.Index) != 0 {
			return true
		}
		seen |= 1 << a.Index
	}
	return false
}

// Numbers of subcalls. Source: include/uapi/linux/net.h and ipc.h.
var (
	socketcalls = subcalls("socket", 1, "bind", 2, "connect", 3, "listen", 4, "accept", 5, "getsockname", 6, "getpeername", 7,
		"socketpair", 8, "send", 9, "recv", 10, "sendto", 11, "recvfrom", 12, "shutdown", 13, "setsockopt", 14, "getsockopt", 15,
		"sendmsg", 16, "recvmsg", 17, "accept4", 18, "recvmmsg", 19, "sendmmsg", 20)
	ipcs = subcalls("semop", 1, "semget", 2, "semctl", 3, "semtimedop", 4, "msgsnd", 11, "msgrcv", 12, "msgget", 13, "msgctl", 14,
		"shmat", 21, "shmdt", 22, "shmget", 23, "shmctl", 24)
	socketcallName = mustLookup("socketcall")
	ipcName        = mustLookup("ipc")
)

func subcalls(pairs ...any) *[syscalls.Count]uint8 {
	var out [syscalls.Count]uint8
	for i := 0; i < len(pairs); i += 2 {
		out[mustLookup(pairs[i].(string))] = uint8(pairs[i+1].(int))
	}
	return &out
}

func mustLookup(name string) syscalls.Name {
	n, ok := syscalls.Lookup(name)
	if !ok {
		panic("no system call " + name)
	}
	return n
}

// multiplexes tells whether an ABI has socketcall and ipc.
func multiplexes(a syscalls.Arch) bool {
	switch a {
	case syscalls.X86, syscalls.S390, syscalls.S390X, syscalls.PPC, syscalls.PPC64, syscalls.PPC64LE,
		syscalls.MIPS, syscalls.MIPSEL, syscalls.M68K, syscalls.SH, syscalls.SHEB:
		return true
	}
	return false
}

// muxOf finds the multiplexer and the number behind it through which an ABI
// also makes a call.
func muxOf(a syscalls.Arch, n syscalls.Name) (mux syscalls.Name, sub uint8, ok bool) {
	if !multiplexes(a) {
		return 0, 0, false
	}
	if s := socketcalls[n]; s != 0 {
		return socketcallName, s, true
	}
	if s := ipcs[n]; s != 0 {
		return ipcName, s, true
	}
	return 0, 0, false
}

// number makes the decision over the numbers of one audit architecture.
func (v *verdict) number(group []*abiTable) *decision {
	b := v.b
	otherwise := b.action(v.filter.Default)
	enosys := b.action(cbpf.Errno(v.filter.Native.ENOSYS()))
	bad := b.action(v.badArch)
	var native, x32 *abiTable
	points := 0
	for _, t := range group {
		if t.arch == syscalls.X32 {
			x32 = t
		} else {
			native = t
		}
		t.order()
		points += len(t.calls)
	}
	isX86 := group[0].arch.Audit() == syscalls.X86_64.Audit()
	next := make([]edge, 0, 2*points+8)
	put := func(last uint32, to *decision) {
		if n := len(next); n > 0 && next[n-1].to == to {
			next[n-1].last = last
		} else {
			next = append(next, edge{last, to})
		}
	}
	// half writes the numbers from lo to hi as one table has them; table may
	// be nil. rest is for numbers without a rule.
	half := func(t *abiTable, lo, hi uint32, rest *decision) {
		from := uint64(lo)
		limit := uint64(hi)
		if t != nil {
			if t.enosys {
				limit = min(limit, max(uint64(t.largest), from-min(from, 1)))
			}
			for _, i := range t.sorted {
				c := &t.calls[i]
				nr := uint64(c.nr)
				if nr < from || nr > limit {
					continue
				}
				if nr > from {
					put(uint32(nr-1), rest)
				}
				put(uint32(nr), c.d)
				from = nr + 1
			}
		}
		if from <= limit {
			put(uint32(limit), rest)
		}
		if limit < uint64(hi) {
			put(hi, enosys)
		}
	}
	const bit = syscalls.X32Bit
	switch {
	case v.mode == Strict:
		return v.strictNumbers(native, x32, isX86, put, func() *decision { return b.choose(wordNr.masked(^uint32(0)), next) })
	case !isX86:
		if t := native; t.enosys && (t.arch == syscalls.S390X || t.arch == syscalls.S390) {
			put(0, enosys) // setup, through which unknown calls come: see runc
			half(t, 1, ^uint32(0), otherwise)
		} else {
			half(t, 0, ^uint32(0), otherwise)
		}
	default:
		// runc's stub looks at bit 30 alone, libseccomp at the whole number.
		rest32 := otherwise
		if x32 == nil {
			rest32 = bad
		}
		rest64 := otherwise
		if native == nil {
			rest64 = bad
		}
		high := func(t *abiTable, lo, hi uint32, rest *decision) {
			if t != nil && t.enosys {
				put(hi, enosys)
				return
			}
			put(hi, rest)
		}
		half(native, 0, bit-1, rest64)
		half(x32, bit, 2*bit-1, rest32)
		high(native, 2*bit, 3*bit-1, rest32)
		high(x32, 3*bit, ^uint32(0)-1, rest32)
		if x32 == nil {
			put(^uint32(0), otherwise) // -1 is a tracer's way to skip a call
		} else {
			high(x32, ^uint32(0), ^uint32(0), rest32)
		}
	}
	return b.choose(wordNr.masked(^uint32(0)), next)
}
