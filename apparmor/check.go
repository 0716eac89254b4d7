// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/diag"
)

// supports tells whether the kernel and the policy's abi both have a feature;
// without a kernel everything is.
func (r *resolver) supports(path string) bool {
	return r.env.Kernel == nil || BothHave(r.policy.ABI, r.env.Kernel, path)
}

// glob checks one glob.
func (r *resolver) glob(g string, at diag.Span, nullOK bool) {
	if err := checkGlob(g, nullOK); err != nil {
		if len(g) > 100 {
			g = g[:100] + "…"
		}
		r.errorf(at, "AA-GLOB", "'%s' is no valid pattern: %s", g, err)
	}
}

func checkGlob(g string, nullOK bool) error {
	c, err := dfa.ConvertGlob("", g, nullOK)
	if err != nil {
		return err
	}
	if !strings.Contains(g, "[") {
		return nil // only what stands between brackets can be malformed after that
	}
	_, _, err = dfa.NewArena().Parse(c.Regex)
	return err
}

func (r *resolver) globWord(g string, at diag.Span) { r.glob(g, at, false) }

// pathSpan is where the path of a rule was written.
func pathSpan(d *ResolvedRule) diag.Span {
	switch n := d.Source.(type) {
	case *FileRule:
		if n.Path.Pos.IsValid() {
			return n.Path.Pos
		}
	case *LinkRule:
		return n.Path.Pos
	}
	return d.Span
}

// checkProfile checks what only the finished rules show: patterns, mounts that
// nothing can match, and exec rules that contradict each other.
func (r *resolver) checkProfile(p *ResolvedProfile) {
	at := p.Decl.Name.Pos
	if p.Attachment != "" {
		if p.Decl.Attachment.Pos.IsValid() {
			at = p.Decl.Attachment.Pos
		}
		r.glob(p.Attachment, at, false)
	} else {
		r.glob(dfa.FilterSlashes(localName(p.Local)), at, false)
	}
	for _, d := range p.Rules {
		r.via = d.Via
		r.checkRule(d)
	}
	r.via = nil
	r.sameRules(p)
	if !r.env.SkipExecCheck {
		r.diags = append(r.diags, CheckExec(p)...)
	}
}

func (r *resolver) checkRule(d *ResolvedRule) {
	at := d.Span
	opt := func(o Opt) {
		if o.Set {
			r.glob(o.Value, at, false)
		}
	}
	switch b := d.Body.(type) {
	case *FileBody:
		r.glob(dfa.FilterSlashes(b.Path), pathSpan(d), false)
		if b.LinkTarget != "" {
			r.glob(dfa.FilterSlashes(b.LinkTarget), at, false)
		}
	case *ChangeProfileBody:
		r.glob(b.Target, at, false)
		if b.Exec != "" {
			r.glob(b.Exec, at, false)
		}
		if stack, _, _, bad := parseLabel(b.Target); !r.supports("domain/stack") {
			switch {
			case bad != "":
				r.errorf(at, "AA-CHANGE-PROFILE", "%s", bad)
			case stack:
				r.errorf(at, "AA-CHANGE-PROFILE", "this kernel does not stack profiles")
			}
		}
	case *SignalBody:
		if r.supports("signal") {
			opt(b.Peer)
		}
	case *PtraceBody:
		if r.supports("ptrace") {
			opt(b.Peer)
		}
	case *DBusBody:
		if r.supports("dbus") {
			for _, o := range []Opt{b.Bus, b.Name, b.PeerLabel, b.Path, b.Interface, b.Member} {
				opt(o)
			}
		}
	case *MqueueBody:
		posix, sysv := r.supports("ipc/posix_mqueue"), r.supports("ipc/sysv_mqueue")
		if b.Type != MqueueSysv && posix || b.Type != MqueuePosix && sysv {
			opt(b.Label)
		}
		if b.Type != MqueueSysv && posix {
			opt(b.Name)
		}
	case *IOUringBody:
		if r.supports("io_uring") {
			opt(b.Label)
		}
	case *NetworkBody:
		if b.Local.Label != "" && (r.supports("network_v8/af_inet") || r.supports("network_v9/af_inet")) {
			r.glob(b.Local.Label, at, false)
		}
	case *UnixBody:
		if !r.supports("network/af_unix") && !r.supports("network_v9/af_unix") {
			return
		}
		opt(b.PeerLabel)
		for _, o := range []Opt{b.Addr, b.PeerAddr} {
			if a, ok := strings.CutPrefix(o.Value, "@"); ok {
				r.glob(a, at, true)
			}
		}
	case *MountBody:
		if !r.supports("mount") {
			return
		}
		opt(b.MountPoint)
		if b.Perms == MayUmount {
			return
		}
		opt(b.Device)
		for _, t := range b.FSTypes {
			r.glob(t, at, false)
		}
		if !b.matchable() {
			r.errorf(at, "AA-MOUNT", "no mount can match this rule: these options do not go with a source or a file system type")
		}
	case *PivotRootBody:
		if r.supports("mount") {
			opt(b.NewRoot)
			opt(b.OldRoot)
		}
	}
}

const (
	msMake     = MSUnbindable | MSPrivate | MSSlave | MSShared | MSRec
	msCommands = MSMove | MSRemount | MSBind | msMake
)

// matchable tells whether one combination of flags gives a kind of mount that
// the conditions of the rule go with.
//
// Source: parser/mount.cc, mnt_rule::gen_flag_rules.
func (b *MountBody) matchable() bool {
	typed := len(b.FSTypes) > 0
	for _, f := range b.Flags {
		for _, o := range b.OptFlags {
			switch {
			case f == 0 || f == MSAll,
				f&MSRemount != 0 && !b.Device.Set && !typed,
				f&MSBind != 0 && !typed,
				f&msMake != 0 && (!b.Device.Set || !b.MountPoint.Set) && !typed,
				f&MSMove != 0 && !typed,
				(f|o)&^uint32(msCommands) != 0:
				return true
			}
		}
	}
	return false
}

// execRule is what matters of a rule about an exec.
type execRule struct {
	rule     *ResolvedRule
	exact    bool
	priority int
	typ      Exec
	owners   uint8
}

func owners(o Owner) uint8 {
	switch o {
	case OwnerOwn:
		return 1
	case OwnerOther:
		return 2
	}
	return 3
}

// conflicting tells whether two exec types exclude each other. The name of the
// target counts.
func (e execRule) conflicting(o execRule) bool { return e.owners&o.owners != 0 && e.typ != o.typ }

// sameRules finds rules for the very same path that send an exec to different
// places, which the parser refuses even where another rule would decide.
func (r *resolver) sameRules(p *ResolvedProfile) {
	type key struct {
		path, link string
		subset     bool
		mode       Mode
		audit      Audit
		priority   int
		change     bool
	}
	first := map[key][]execRule{}
	for _, d := range p.Rules {
		k := key{mode: d.Mode, audit: d.Audit, priority: d.Priority}
		e := execRule{rule: d, owners: owners(d.Owner)}
		switch b := d.Body.(type) {
		case *FileBody:
			if b.Perms&MayExec == 0 {
				continue
			}
			k.path, k.link, k.subset = b.Path, b.LinkTarget, b.Subset
			e.typ = b.Exec
		case *ChangeProfileBody:
			if b.Exec == "" {
				continue
			}
			k.path, k.link, k.change = b.Target, b.Exec, true
			e.typ.Unsafe = b.Unsafe
		default:
			continue
		}
		for _, o := range first[k] {
			if e.conflicting(o) {
				r.diags = append(r.diags, execConflict(d, o.rule))
				break
			}
		}
		first[k] = append(first[k], e)
	}
}

func execConflict(a, b *ResolvedRule) diag.Diagnostic {
	if a.ID < b.ID {
		a, b = b, a
	}
	return diag.Diagnostic{
		Code: "AA-EXEC-CONFLICT", Severity: diag.Error, Span: a.Span,
		Message: fmt.Sprintf("exec goes to %s here and to %s there for the same executables", execName(a), execName(b)),
		Related: []diag.Related{{Span: b.Span, Message: "the other rule"}},
	}
}

func execName(d *ResolvedRule) string {
	switch b := d.Body.(type) {
	case *FileBody:
		return b.Exec.String()
	case *ChangeProfileBody:
		if b.Unsafe {
			return "a profile with the environment kept (unsafe)"
		}
		return "a profile with the environment cleared (safe)"
	}
	return "nothing"
}

// String is the exec transition as rules write it.
func (x Exec) String() string {
	letter := map[ExecKind]string{ExecUnconfined: "u", ExecProfile: "p", ExecChild: "c", ExecInherit: "i"}[x.Kind]
	if !x.Unsafe && x.Kind != ExecInherit {
		letter = strings.ToUpper(letter)
	}
	switch {
	case x.FallbackInherit:
		letter += "i"
	case x.FallbackUnconfined:
		letter += "u"
	}
	letter += "x"
	if x.Kind == ExecInherit && x.Unsafe {
		letter = "unsafe " + letter
	}
	if x.Target != "" {
		letter += " -> " + x.Target
	}
	return letter
}

// errExecConflict carries the two rules that contradict each other.
type errExecConflict struct{ a, b *ResolvedRule }

func (*errExecConflict) Error() string { return "conflicting exec rules" }

// execLimits bound the automaton that looks for conflicts. A profile that needs
// more is left to the compiler, which finds the same.
var execLimits = dfa.Limits{States: 1 << 16, Memory: 64 << 20}

// CheckExec finds two rules of a profile that match the same executable with
// equal precedence and send its exec to different places. A rule of higher
// priority, a deny rule, and a rule without wildcards against one with them do
// not conflict: they win.
//
// Source: parser/libapparmor_re/hfa.cc, pri_update_perm.
func CheckExec(p *ResolvedProfile) diag.List {
	var rules []execRule
	differ := false
	for _, d := range p.Rules {
		e := execRule{rule: d, owners: owners(d.Owner)}
		switch b := d.Body.(type) {
		case *FileBody:
			if b.Perms&MayExec == 0 {
				continue
			}
			e.typ = b.Exec
		case *ChangeProfileBody:
			if b.Exec == "" {
				continue
			}
			e.typ.Unsafe = b.Unsafe
		default:
			continue
		}
		for _, o := range rules {
			differ = differ || d.Mode != ModeDeny && o.rule.Mode != ModeDeny && e.conflicting(o)
		}
		rules = append(rules, e)
	}
	if !differ {
		return nil
	}
	arena := dfa.NewArena()
	parse := func(g string) (dfa.Expr, bool) {
		c, err := dfa.ConvertGlob("", g, false)
		if err != nil {
			return dfa.Empty, false
		}
		x, exact, err := arena.Parse(c.Regex)
		if err != nil {
			return dfa.Empty, false
		}
		return x, exact
	}
	input := make([]dfa.Rule, 0, len(rules))
	for i := range rules {
		e := &rules[i]
		var x dfa.Expr
		switch b := e.rule.Body.(type) {
		case *FileBody:
			x, e.exact = parse(dfa.FilterSlashes(b.Path))
		case *ChangeProfileBody:
			exec, exact1 := parse(b.Exec)
			label, exact2 := parse(b.Target)
			if exec == dfa.Empty || label == dfa.Empty {
				continue
			}
			x, e.exact = arena.Cat(arena.Cat(exec, arena.Byte(0)), label), exact1 && exact2
		}
		e.priority = 4 * e.rule.Priority
		switch {
		case e.rule.Mode == ModeDeny:
			e.priority += 3
		case e.rule.Mode == ModePrompt:
		case e.exact:
			e.priority += 2
		default:
			e.priority++
		}
		input = append(input, dfa.Rule{Expr: x, Accept: int32(i)})
	}
	_, err := dfa.Build(arena, input, func(accepts []int32) (uint32, error) {
		for _, who := range []uint8{1, 2} {
			if a, b := decide(rules, accepts, who); b != nil {
				return 0, &errExecConflict{a, b}
			}
		}
		return 0, nil
	}, execLimits)
	var c *errExecConflict
	if errors.As(err, &c) {
		return diag.List{execConflict(c.a, c.b)}
	}
	return nil
}

// decide finds two rules of the highest precedence that disagree.
func decide(rules []execRule, accepts []int32, who uint8) (a, b *ResolvedRule) {
	var best *execRule
	for _, i := range accepts {
		e := &rules[i]
		switch {
		case e.owners&who == 0:
		case best == nil || e.priority > best.priority:
			best, b = e, nil
		case e.priority == best.priority && e.rule.Mode != ModeDeny && e.typ != best.typ && b == nil:
			b = e.rule
		}
	}
	if b == nil {
		return nil, nil
	}
	return best.rule, b
}
