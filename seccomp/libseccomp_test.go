// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// libseccomp is the C library behind testdata/libseccomp.c.
type libseccomp struct {
	tb  testing.TB
	in  io.WriteCloser
	out *bufio.Reader
	nrs map[string]string
}

func startLibseccomp(tb testing.TB) *libseccomp {
	tb.Helper()
	l := &libseccomp{tb: tb, nrs: map[string]string{}}
	l.start()
	return l
}

func (l *libseccomp) start() {
	tb := l.tb
	tb.Helper()
	bin := oracle.CHelper(tb, "testdata/libseccomp.c", "apt: libseccomp-dev", "-lseccomp")
	cmd := exec.Command(bin)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	l.in, l.out = in, bufio.NewReader(out)
}

func (l *libseccomp) send(format string, args ...any) {
	if _, err := fmt.Fprintf(l.in, format+"\n", args...); err != nil {
		l.tb.Fatal(err)
	}
}

func (l *libseccomp) line() string {
	s, err := l.out.ReadString('\n')
	if err != nil {
		l.tb.Fatalf("libseccomp helper: %v", err)
	}
	return strings.TrimSpace(s)
}

func (l *libseccomp) ask(format string, args ...any) string {
	l.send(format, args...)
	return l.line()
}

// token is SCMP_ARCH_…, which is the audit architecture but for X32.
func token(a syscalls.Arch) uint32 {
	if a == syscalls.X32 {
		return 62 | 0x40000000
	}
	return a.Audit()
}

// number is what libseccomp resolves a name to; ok is false for an error.
func (l *libseccomp) number(a syscalls.Arch, name string) (nr int32, ok bool) {
	key := a.String() + " " + name
	s, have := l.nrs[key]
	if !have {
		s = l.ask("resolve %d %s", token(a), name)
		l.nrs[key] = s
	}
	if s == "error" {
		return 0, false
	}
	if _, err := fmt.Sscan(s, &nr); err != nil {
		l.tb.Fatal(err)
	}
	return nr, true
}

// scmpOp numbers the operators as enum scmp_compare does.
var scmpOp = map[Op]int{NE: 1, LT: 2, LE: 3, EQ: 4, GE: 5, GT: 6, MaskedEQ: 7}

func scmpAction(a Action) uint32 { return uint32(a) }

// compile does what runc does with a filter: the rules through libseccomp, and
// the ENOSYS stub in front, as a function. refused is the return code of the
// first rule that libseccomp did not take.
func (l *libseccomp) compile(f *Filter, optimize int) (p cbpf.Program, ns int64, refused int) {
	if f.Default.Base() == cbpf.ErrnoBase && f.Default.Data() >= 4095 {
		return nil, 0, -22 // seccomp_init gives no filter
	}
	l.send("begin %d %d", scmpAction(f.Default), optimize)
	native := syscalls.X86_64
	if !slices.Contains(f.ABIs(), native) {
		// The library knows the machine's own ABI first; take it away.
		if rc := l.ask("native 0"); rc != "0" {
			l.tb.Fatalf("remove native: %s", rc)
		}
	}
	for _, a := range f.ABIs() {
		if a == native {
			continue
		}
		if rc := l.ask("arch %d", token(a)); rc != "0" {
			l.tb.Fatalf("arch %v: %s", a, rc)
		}
	}
	for _, r := range f.Rules {
		if r.Action == f.Default {
			continue
		}
		for _, n := range r.Names {
			if _, ok := l.number(native, n.Text); !ok {
				continue
			}
			lists := [][]Arg{r.Args}
			if r.repeatsIndex() {
				lists = nil
				for _, a := range r.Args {
					lists = append(lists, []Arg{a})
				}
			}
			for _, args := range lists {
				var b strings.Builder
				for _, a := range args {
					fmt.Fprintf(&b, " %d %d %d %d", a.Index, scmpOp[a.Op], a.Value, a.ValueTwo)
				}
				var rc int
				if _, err := fmt.Sscan(l.ask("rule %d %s %d%s", scmpAction(r.Action), n.Text, len(args), b.String()), &rc); err != nil {
					l.tb.Fatal(err)
				}
				if rc < 0 && refused == 0 {
					refused = rc
				}
			}
		}
	}
	l.send("export")
	head, err := l.out.ReadString('\n')
	if err != nil && optimize == 2 {
		// libseccomp 2.5 does not survive a binary tree for an ABI without rules.
		l.start()
		return nil, 0, refused
	}
	n := 0
	if _, err := fmt.Sscan(head, &n, &ns); err != nil {
		l.tb.Fatalf("export: %s", head)
	}
	for range n {
		var i cbpf.Instruction
		if _, err := fmt.Sscan(l.line(), &i.Op, &i.JT, &i.JF, &i.K); err != nil {
			l.tb.Fatal(err)
		}
		if f.Native.BigEndian() { // exported in the target's byte order
			i.Op = i.Op<<8 | i.Op>>8
			raw := i.K
			i.K = raw<<24 | raw>>24 | raw>>8&0xff00 | raw<<8&0xff0000
			if i.IsReturn() && !f.answers(Action(i.K)) && f.answers(Action(raw)) {
				// Copies of returns for long jumps are converted twice, which
				// shows only when the target's order is not the host's.
				i.K = raw
			}
		}
		p = append(p, i)
	}
	return p, ns, refused
}

// stub is runc's ENOSYS stub, written down from its instructions: it answers
// before the filter does. Source: runc, libcontainer/seccomp/patchbpf.
func (l *libseccomp) stub(f *Filter) func(audit, nr uint32) (Action, bool) {
	if f.Default == cbpf.Allow || f.Default == cbpf.Log || f.Default.Base() == cbpf.TraceBase {
		return func(uint32, uint32) (Action, bool) { return 0, false }
	}
	last := map[syscalls.Arch]int32{}
	for _, a := range f.ABIs() {
		for _, r := range f.Rules {
			for _, n := range r.Names {
				if nr, ok := l.number(a, n.Text); ok && nr > last[a] {
					last[a] = nr
				}
			}
		}
	}
	enosys := cbpf.Errno(f.Native.ENOSYS())
	return func(audit, nr uint32) (Action, bool) {
		for _, a := range syscalls.FromAudit(audit) {
			if last[a] == 0 {
				continue
			}
			if audit == syscalls.X86_64.Audit() && (nr&syscalls.X32Bit != 0) != (a == syscalls.X32) {
				continue
			}
			if (a == syscalls.S390 || a == syscalls.S390X) && nr == 0 {
				return enosys, true
			}
			if nr > uint32(last[a]) {
				return enosys, true
			}
		}
		return 0, false
	}
}

// answers tells whether a filter can return an action.
func (f *Filter) answers(a Action) bool {
	return a == f.Default || a == cbpf.KillThread || slices.ContainsFunc(f.Rules, func(r *Rule) bool { return r.Action == a })
}

// mixed finds the comparisons of a program that can be reached with more than one
// word in the accumulator. What such a comparison tests depends on the way to it,
// so that cases which pass through one say nothing about the rules; they are not
// compared.
func mixed(p cbpf.Program) []bool {
	type acc struct{ off, mask uint32 }
	const (
		unseen = 1 << 30
		many   = 1<<30 + 1
	)
	at := make([]acc, len(p))
	for i := range at {
		at[i].off = unseen
	}
	bad := make([]bool, len(p))
	join := func(to int, a acc) {
		switch {
		case at[to].off == unseen:
			at[to] = a
		case at[to] != a:
			at[to] = acc{off: many}
		}
	}
	for pc, i := range p {
		a := at[pc]
		if a.off == unseen && pc > 0 {
			continue
		}
		switch {
		case i.Op == cbpf.LoadAbs:
			join(pc+1, acc{i.K, ^uint32(0)})
		case i.Op == cbpf.And:
			bad[pc] = a.off == many
			join(pc+1, acc{a.off, a.mask & i.K})
		case i.Op == cbpf.Jump:
			join(pc+1+int(i.K), a)
		case i.IsJump():
			// Comparing the architecture with something else is a lost load.
			bad[pc] = a.off == many || a.off == cbpf.OffsetArch && len(syscalls.FromAudit(i.K)) == 0
			join(pc+1+int(i.JT), a)
			join(pc+1+int(i.JF), a)
		}
	}
	return bad
}

// evalPast is Eval, and tells whether the way led over a marked instruction.
func evalPast(p cbpf.Program, bad []bool, d *cbpf.Data, big bool) (act Action, past bool) {
	var a uint32
	for pc := 0; ; pc++ {
		i := &p[pc]
		past = past || bad[pc]
		switch {
		case i.Op == cbpf.LoadAbs:
			a = d.Word(i.K, big)
		case i.Op == cbpf.And:
			a &= i.K
		case i.Op == cbpf.Jump:
			pc += int(i.K)
		case i.IsReturn():
			return Action(i.K), past
		default:
			yes := i.Op == cbpf.JumpEq && a == i.K || i.Op == cbpf.JumpGt && a > i.K || i.Op == cbpf.JumpGe && a >= i.K
			if yes {
				pc += int(i.JT)
			} else {
				pc += int(i.JF)
			}
		}
	}
}
