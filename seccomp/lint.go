// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Finding is something about a profile that does not do what it looks like,
// with a call that shows it where one can.
type Finding struct {
	diag.Diagnostic
	// Witness is a call that proves the finding, with the answer that it gets.
	Witness *Witness `json:"witness,omitempty"`
	Gets    string   `json:"gets,omitempty"`
	Arch    string   `json:"arch,omitempty"`

	group string // findings with the same are one
}

// Checks lists the codes of Lint with what they mean.
var Checks = []struct{ Code, Text string }{
	{"SEC-LINT-WIDTH", "a condition looks at bits of an argument that the kernel does not read"},
	{"SEC-LINT-SWALLOWED", "a rule that denies never takes effect, because another rule of the same call does"},
	{"SEC-LINT-DEAD", "a rule that allows never takes effect"},
	{"SEC-LINT-REPEATED-INDEX", "a rule asks about one argument twice, which turns all its conditions into alternatives"},
	{"SEC-LINT-MUX", "a condition on a call that some ABIs also make through socketcall or ipc, where it cannot be checked"},
	{"SEC-LINT-FOREIGN-ARCH", "the machine serves an ABI that the profile has no rules for"},
	{"SEC-LINT-UNKNOWN-NAME", "a rule names a call that no ABI has"},
	{"SEC-LINT-NOTIFY", "a call that the runtime or its own hand-over needs is sent to a listener"},
	{"SEC-LINT-BYPASS", "an allowed call that makes other denials pointless"},
	{"SEC-LINT-CONFLICT", "two rules contradict each other, so that the runtime refuses the profile"},
	{"SEC-LINT-PERMISSIVE", "the default lets everything through that no rule names, calls of later kernels included"},
	{"SEC-LINT-FLAGS", "a flag that has no effect or costs something"},
	{"SEC-LINT-REDUNDANT", "a rule that says what the default says, which runc skips"},
}

type linter struct {
	f    *Filter
	v    *verdict
	list []Finding
}

// Lint looks for rules that do not do what they look like, on the ABIs of the
// filter and as runc installs it. What it reports it has proved, by evaluating
// the filter: each finding about an effect carries a call.
func (f *Filter) Lint() []Finding {
	l := &linter{f: f}
	v, err := f.decide(Compat)
	if err != nil {
		var ds diag.List
		if errors.As(err, &ds) {
			for _, d := range ds {
				if d.Code == "SEC-CONFLICT" {
					d.Code = "SEC-LINT-CONFLICT"
				}
				l.list = append(l.list, Finding{Diagnostic: d})
			}
		}
	}
	l.v = v
	l.profile()
	for _, r := range f.Rules {
		l.rule(r)
	}
	l.foreign()
	if v != nil {
		l.bypasses()
		l.effects()
	}
	slices.SortStableFunc(l.list, func(a, b Finding) int {
		return a.Span.Start.Offset - b.Span.Start.Offset
	})
	return grouped(l.list)
}

// grouped keeps the first of findings that are alike but for their place, and
// names the places of the others.
func grouped(list []Finding) []Finding {
	const places = 3
	type first struct {
		at, more int
	}
	seen := map[string]*first{}
	var out []Finding
	for _, f := range list {
		if f.group == "" {
			out = append(out, f)
			continue
		}
		g := seen[f.group]
		if g == nil {
			seen[f.group] = &first{at: len(out)}
			out = append(out, f)
			continue
		}
		if g.more++; g.more <= places {
			out[g.at].Related = append(out[g.at].Related, diag.Related{Span: f.Span, Message: "here too"})
		}
	}
	for _, g := range seen {
		if g.more > places {
			out[g.at].Related = append(out[g.at].Related, diag.Related{Message: fmt.Sprintf("and in %d more places", g.more-places)})
		}
	}
	return out
}

func (l *linter) add(sev diag.Severity, at diag.Span, code, format string, args ...any) *Finding {
	l.list = append(l.list, Finding{Diagnostic: diag.Diagnostic{Code: code, Severity: sev, Span: at, Message: fmt.Sprintf(format, args...)}})
	return &l.list[len(l.list)-1]
}

// prove attaches a call and the answer that the filter gives to it.
func (l *linter) prove(fd *Finding, a syscalls.Arch, nr uint32, args [6]uint64) {
	fd.Witness = &Witness{a.Audit(), nr, args}
	fd.Arch = a.String()
	if l.v != nil {
		fd.Gets = l.eval(a, nr, args).String()
	}
}

func (l *linter) eval(a syscalls.Arch, nr uint32, args [6]uint64) Action {
	d := at(at(l.v.root(), wordArch, a.Audit()), wordNr, nr)
	return d.eval(func(w word) uint32 {
		arg, high := w.arg()
		if high {
			return uint32(args[arg] >> 32)
		}
		return uint32(args[arg])
	})
}

func (l *linter) profile() {
	f, p := l.f, l.f.Profile
	whole := diag.Span{File: p.File}
	if f.Default.Permits() {
		l.add(diag.Warning, whole, "SEC-LINT-PERMISSIVE", "the default action is %v: calls that later kernels add are let through", f.Default)
	}
	for _, flag := range p.Flags {
		switch {
		case flag == FlagWaitKillableRecv && !f.Notifies():
			l.add(diag.Warning, whole, "SEC-LINT-FLAGS", "%s without a rule that notifies has no effect", flag)
		case flag == FlagTSync:
			l.add(diag.Note, whole, "SEC-LINT-FLAGS", "%s: runtimes install the filter on the one thread that becomes the container", flag)
		}
	}
	if p.Flags != nil && !slices.Contains(p.Flags, FlagSpecAllow) {
		l.add(diag.Note, whole, "SEC-LINT-FLAGS", "without %s the kernel (before 5.16) switches on mitigations that slow the container down", FlagSpecAllow)
	}
	if p.ListenerPath != "" && !f.Notifies() {
		l.add(diag.Warning, whole, "SEC-LINT-FLAGS", "listenerPath without a rule that notifies has no effect")
	}
}

// needed are calls that a runtime or the Go runtime makes between installing
// the filter and handing over its listener, or that every program's start needs.
var needed = []string{"write", "sendmsg", "futex", "rt_sigreturn", "nanosleep", "clone", "mmap", "exit_group", "execve"}

func (l *linter) rule(r *Rule) {
	f := l.f
	at := f.Profile.Span(r)
	if r.Action == f.Default {
		l.add(diag.Note, at, "SEC-LINT-REDUNDANT", "the rule says what the default says: runc skips it, so it does not win over other rules of the same calls either")
	}
	if r.repeatsIndex() {
		fd := l.add(diag.Warning, at, "SEC-LINT-REPEATED-INDEX", "the rule asks about one argument twice: each of its %d conditions alone is enough for %v", len(r.Args), r.Action)
		l.proveRepeated(fd, r)
	}
	for _, n := range r.Names {
		span := f.Profile.NameSpan(n)
		if !n.known {
			if r.Action.Permits() {
				l.add(diag.Note, span, "SEC-LINT-UNKNOWN-NAME", "no system call %q on any architecture; the runtime ignores it", n.Text)
			} else if f.Default.Permits() {
				l.add(diag.Error, span, "SEC-LINT-UNKNOWN-NAME", "no system call %q on any architecture: the runtime ignores the denial, and the default is %v", n.Text, f.Default)
			} else {
				l.add(diag.Warning, span, "SEC-LINT-UNKNOWN-NAME", "no system call %q on any architecture; the runtime ignores the rule", n.Text)
			}
			continue
		}
		if r.Action == cbpf.Notify && len(r.Args) == 0 && slices.Contains(needed, n.Text) {
			l.add(diag.Warning, span, "SEC-LINT-NOTIFY", "%s is sent to the listener, and the runtime or the program's start needs it before anybody listens", n.Text)
		}
		l.widths(r, n)
		l.mux(r, n)
	}
}

// proveRepeated looks for a call that only some of the conditions hold for.
func (l *linter) proveRepeated(fd *Finding, r *Rule) {
	if l.v == nil {
		return
	}
	for _, n := range r.Names {
		for _, a := range l.f.ABIs() {
			nr, ok := a.Number(n.Text)
			if !ok {
				continue
			}
			for _, one := range r.Args {
				var args [6]uint64
				args[one.Index] = one.Value
				holds := 0
				for _, c := range r.Args {
					if (cond{c.Op, c.Value, c.ValueTwo}).holds(args[c.Index], ^uint64(0)) {
						holds++
					}
				}
				if holds > 0 && holds < len(r.Args) && l.eval(a, nr, args) == r.Action {
					l.prove(fd, a, nr, args)
					return
				}
			}
		}
	}
}

// widths reports conditions on bits that the kernel does not read, with a call
// that the kernel takes for another one, to which the filter answers
// differently.
func (l *linter) widths(r *Rule, n Name) {
	for _, a := range l.f.ABIs() {
		if !a.Is64() {
			continue // libseccomp compares 32 bits there
		}
		nr, ok := n.call.On(a)
		if !ok {
			continue
		}
		for _, c := range r.Args {
			mask := n.call.Mask(a, int(c.Index))
			if mask == ^uint64(0) {
				continue
			}
			what := fmt.Sprintf("the kernel reads %d bits of argument %d of %s", popcount64(mask), c.Index, n.Text)
			if mask == 0 {
				what = fmt.Sprintf("%s has no argument %d", n.Text, c.Index)
			}
			if l.v == nil {
				continue
			}
			// A call and one that differs only in bits that are not read.
			base, ok := l.satisfy(r, c)
			if !ok {
				continue
			}
			for _, flip := range []uint64{1 << 32, 1 << 63, 1 << 16, ^mask} {
				if flip &= ^mask; flip == 0 {
					continue
				}
				other := base
				other[c.Index] ^= flip
				x, y := l.eval(a, nr, base), l.eval(a, nr, other)
				if x == y {
					continue
				}
				sev := diag.Note
				if !r.Action.Permits() && y.Permits() {
					sev = diag.Error // setting unread bits gets around a denial
				} else if r.Action.Permits() == y.Permits() {
					sev = diag.Warning
				}
				fd := l.add(sev, l.f.Profile.ArgSpan(c), "SEC-LINT-WIDTH", "%s on %v: a call with a%d = %#x is %v, with %#x, which is the same to the kernel, it is %v", what, a, c.Index, base[c.Index], x, other[c.Index], y)
				fd.group = fmt.Sprint("width", n.Text, a, sev, c.Index)
				l.prove(fd, a, nr, other)
				break
			}
		}
	}
}

// satisfy finds arguments for which a rule's conditions hold.
func (l *linter) satisfy(r *Rule, _ Arg) (args [6]uint64, ok bool) {
	for _, set := range r.conditionSets() {
		b := newBuilder()
		br := boundRule{rule: r, conds: set}
		for i := range br.masks {
			br.masks[i] = ^uint64(0)
		}
		yes, no := b.action(cbpf.Allow), b.action(cbpf.KillProcess)
		found := false
		regions(b.normal(br.test(b, yes, no)), nil, func(bounds []bound, act, _ Action) {
			if !found && act == cbpf.Allow {
				args, found = solve(bounds)
			}
		})
		if found {
			return args, true
		}
	}
	return args, false
}

func (l *linter) mux(r *Rule, n Name) {
	if len(r.Args) == 0 {
		return
	}
	for _, a := range l.f.ABIs() {
		mux, sub, ok := muxOf(a, n.call)
		if !ok {
			continue
		}
		nr, ok := mux.On(a)
		if !ok {
			continue
		}
		what := "the condition on argument 0 is dropped there"
		for _, c := range r.Args {
			if c.Index != 0 {
				what = "conditions on other arguments look at a pointer there"
			}
		}
		sev := diag.Warning
		if r.Action.Permits() && !l.f.Default.Permits() {
			sev = diag.Error
		}
		fd := l.add(sev, l.f.Profile.NameSpan(n), "SEC-LINT-MUX", "%s is also made through %v on %v: %s, and no filter can check them", n.Text, mux, a, what)
		fd.group = fmt.Sprint("mux", n.Text, a, sev, what)
		if l.v != nil {
			l.prove(fd, a, nr, [6]uint64{uint64(sub)})
		}
	}
}

// foreign reports ABIs of the machine that fall to the action for foreign ones.
func (l *linter) foreign() {
	have := l.f.ABIs()
	for _, a := range syscalls.All() {
		if a == l.f.Native || slices.Contains(have, a) {
			continue
		}
		same := map[syscalls.Arch][]syscalls.Arch{
			syscalls.X86_64: {syscalls.X86, syscalls.X32}, syscalls.ARM64: {syscalls.ARM}, syscalls.S390X: {syscalls.S390},
			syscalls.MIPS64: {syscalls.MIPS, syscalls.MIPS64N32}, syscalls.MIPSEL64: {syscalls.MIPSEL, syscalls.MIPSEL64N32}, syscalls.PPC64: {syscalls.PPC},
		}[l.f.Native]
		if slices.Contains(same, a) {
			fd := l.add(diag.Note, diag.Span{File: l.f.Profile.File}, "SEC-LINT-FOREIGN-ARCH", "no rules for %v, which %v kernels serve: a program of that ABI is killed at its first call", a, l.f.Native)
			if nr, ok := a.Number("execve"); ok {
				l.prove(fd, a, nr, [6]uint64{})
			}
		}
	}
}

// bypass lists calls that, where allowed, do what other calls are denied for.
var bypass = map[string]string{
	"io_uring_setup":    "io_uring makes other system calls that the filter never sees",
	"process_vm_writev": "it writes into other processes that have fewer limits",
	"ptrace":            "before Linux 4.8 a tracer changes calls behind the filter, and it takes over other processes",
	"modify_ldt":        "it has been the way to many kernel defects",
	"userfaultfd":       "it makes races in the kernel winnable",
	"bpf":               "it loads programs into the kernel",
	"kexec_load":        "it replaces the kernel",
	"open_by_handle_at": "it opens files outside of the container's root",
	"init_module":       "it loads code into the kernel",
}

func (l *linter) bypasses() {
	for _, r := range l.f.Rules {
		if !r.Action.Permits() {
			continue
		}
		for _, n := range r.Names {
			why := bypass[n.Text]
			nr, ok := l.f.Native.Number(n.Text)
			if why == "" || !ok || !l.eval(l.f.Native, nr, [6]uint64{}).Permits() {
				continue
			}
			fd := l.add(diag.Note, l.f.Profile.NameSpan(n), "SEC-LINT-BYPASS", "%s is allowed: %s", n.Text, why)
			l.prove(fd, l.f.Native, nr, [6]uint64{})
		}
	}
}

// effects looks for rules with conditions that no call ever reaches: in every
// region in which the rule's conditions hold, something else is answered.
func (l *linter) effects() {
	f := l.f
	for _, r := range f.Rules {
		if r.Action == f.Default {
			continue
		}
		for _, n := range r.Names {
			if !n.known {
				continue
			}
			var dead []string
			var where syscalls.Arch
			var nr uint32
			var args [6]uint64
			for _, a := range f.ABIs() {
				num, ok := n.call.On(a)
				if !ok {
					continue
				}
				if w, got, hit := l.reach(r, n, a, num); !hit && got {
					dead = append(dead, a.String())
					where, nr, args = a, num, w
				}
			}
			if len(dead) == 0 {
				continue
			}
			code, sev := "SEC-LINT-DEAD", diag.Warning
			if !r.Action.Permits() {
				code = "SEC-LINT-SWALLOWED"
				if l.eval(where, nr, args).Permits() {
					sev = diag.Error
				}
			}
			fd := l.add(sev, f.Profile.NameSpan(n), code, "%s: the rule with %v never takes effect on %s; a call that it is about gets %v", n.Text, r.Action, strings.Join(dead, ", "), l.eval(where, nr, args))
			l.prove(fd, where, nr, args)
			for _, o := range f.bindings(Compat, where, n.call) {
				if o.rule != r && o.matches(&cbpf.Data{Args: args}) {
					fd.Related = append(fd.Related, diag.Related{Span: f.Profile.NameSpan(o.name), Message: fmt.Sprintf("this rule matches too, with %v", o.rule.Action)})
				}
			}
		}
	}
}

// reach looks for a call for which a rule's conditions hold. hit tells that one
// of them gets the rule's action; got that there is one at all.
func (l *linter) reach(r *Rule, n Name, a syscalls.Arch, nr uint32) (args [6]uint64, got, hit bool) {
	b := l.v.b
	whole := at(at(l.v.root(), wordArch, a.Audit()), wordNr, nr)
	yes, no := b.action(cbpf.Allow), b.action(cbpf.KillProcess)
	mask := ^uint64(0)
	if a.Bits() == 32 {
		mask = 0xffffffff
	}
	for _, set := range r.conditionSets() {
		br := boundRule{rule: r, name: n, conds: set}
		for i := range br.masks {
			br.masks[i] = mask
		}
		mine := b.normal(br.test(b, yes, no))
		if mine == no {
			continue
		}
		var walk func(x, y *decision, bounds []bound)
		walk = func(x, y *decision, bounds []bound) {
			if hit || x == no {
				return
			}
			if x.isAction() && y.isAction() {
				w, ok := solve(bounds)
				if !ok {
					return
				}
				if y.act == r.Action {
					hit = true
				}
				args, got = w, true
				return
			}
			v := topOf(x, y)
			eachPair(v, x, y, func(lo, hi uint32, xs, ys *decision) {
				next := bounds
				if lo != 0 || hi != v.mask {
					next = append(slices.Clip(bounds), bound{v, lo, hi})
				}
				walk(xs, ys, next)
			})
		}
		walk(mine, whole, nil)
	}
	return args, got, hit
}

func popcount64(v uint64) int {
	n := 0
	for ; v != 0; v &= v - 1 {
		n++
	}
	return n
}
