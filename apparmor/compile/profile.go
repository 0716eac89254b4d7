// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/diag"
)

// build is the state of compiling one profile.
type build struct {
	c      *Compiler
	s      support
	rp     *apparmor.ResolvedProfile
	list   *diag.List
	file   *rules
	policy *rules
	xmatch *rules
	net    netMasks
	xtable []string
	warned map[string]bool
	// mounts are the permissions of mount rules that were merged.
	mounts map[*apparmor.ResolvedRule]uint32
	failed bool
	// question: the rules ask, so they mark nothing as mediated.
	question bool
}

func (b *build) errorf(span diag.Span, code, format string, args ...any) {
	b.failed = true
	b.list.Errorf(span, code, format, args...)
}

// unsupported warns, once for each class, that rules are not enforced.
func (b *build) unsupported(r *apparmor.ResolvedRule, what string) {
	if b.warned[what] || r.Implied {
		return
	}
	b.warned[what] = true
	b.list.Warnf(r.Span, "AA-NOT-ENFORCED", "profile %s: %s rules are not enforced on the target", b.rp.Name, what)
}

func (c *Compiler) profile(rp *apparmor.ResolvedProfile, s support, list *diag.List) *Profile {
	if c.arena.Len() > maxShared {
		c.reset()
	}
	b := &build{
		c: c, s: s, rp: rp, list: list, warned: map[string]bool{},
		file: newRules(c, s.level, true), policy: newRules(c, s.level, false),
	}
	span := diag.Span{}
	if rp.Decl != nil {
		span = rp.Decl.Span()
	}
	bp := b.header()
	b.attachment(bp, span)
	b.mergeMounts()
	b.nameTransitions()
	for _, r := range rp.Rules {
		if r.Mode == apparmor.ModePrompt && !s.permstable {
			b.unsupported(r, "prompt")
			continue
		}
		if err := b.rule(r); err != nil {
			var ge *dfa.GlobError
			if errors.As(err, &ge) {
				b.errorf(r.Span, "AA-GLOB", "expression: %s", ge.Msg)
			} else {
				b.errorf(r.Span, "AA-RULE", "%s", err)
			}
		}
	}
	b.networkTotals()
	b.mediates()
	if b.failed {
		return nil
	}
	b.automata(bp, span)
	if b.failed {
		return nil
	}
	return &Profile{Resolved: rp, Blob: bp, support: s, file: b.file, policy: b.policy, xmatch: b.xmatch}
}

var packedModes = map[apparmor.ProfileMode]blob.Mode{
	apparmor.ProfileComplain: blob.Complain, apparmor.ProfileKill: blob.Kill,
	apparmor.ProfileUnconfined: blob.Unconfined, apparmor.ProfileDefaultAllow: blob.Unconfined,
	apparmor.ProfilePrompt: blob.User,
}

const complainVersion = 1 << 11

// header fills what needs no automaton.
func (b *build) header() *blob.Profile {
	rp, s := b.rp, b.s
	p := &blob.Profile{
		Version:   s.abi | 2<<12 | 2<<20, // compiler's interface and policy version
		Namespace: rp.Namespace, Name: rp.Name,
		Disconnected: rp.Flags.DisconnectedPath, Mode: packedModes[rp.Flags.Mode],
		Caps: blob.Caps{
			Allow: rp.Caps.Allow &^ rp.Caps.Deny,
			Audit: rp.Caps.Allow &^ rp.Caps.Deny & rp.Caps.Audit,
			Quiet: rp.Caps.Deny & rp.Caps.Quiet,
		},
	}
	if b.c.opts.Complain {
		p.Version |= complainVersion
	}
	if rp.Flags.Hat {
		p.Flags |= blob.FlagHat
	}
	if d := rp.Decl; s.level == Level4 && rp.Flags.Debug && d != nil && len(d.Flags) > 0 && d.Flags[0].Value == "debug" {
		p.Flags |= 1 << 1 // behind another flag it gets lost there
	}
	if rp.Flags.Interruptible && s.interruptible {
		p.Flags |= 1 << 3
	}
	if rp.Flags.Audit {
		p.Audit = 1
	}
	if s.flagIPC {
		p.DisconnectedIPC = rp.Flags.DisconnectedIPC
	}
	if s.flagSignal {
		p.KillSignal = uint32(rp.Flags.KillSignal)
	}
	if s.flagError {
		p.Error = uint32(rp.Flags.Error)
	}
	if s.identity {
		p.Identities = append([]string{}, rp.Identities...)
	}
	if rp.Flags.Path != 0 {
		p.HasPathFlags = true
		p.PathFlags = rp.Flags.Path & (apparmor.PathMediateDeleted | apparmor.PathAttachDisconn | apparmor.PathChrootRelative |
			apparmor.PathChrootAttach | apparmor.PathIPCAttach)
	}
	if len(rp.Rlimits) > 0 {
		p.Rlimits = make([]uint64, 16)
		for _, i := range slices.Sorted(maps.Keys(rp.Rlimits)) {
			if i >= 0 && i < len(p.Rlimits) {
				p.RlimitMask |= 1 << uint(i)
				p.Rlimits[i] = rp.Rlimits[i]
			}
		}
	}
	return p
}

// glob converts a glob, appending to prefix.
func glob(prefix, s string) (string, error) {
	g, err := dfa.ConvertGlob(prefix, s, false)
	return g.Regex, err
}

// opt converts a value, or gives the default where it is absent.
func opt(prefix string, o apparmor.Opt, otherwise string) (string, error) {
	if !o.Set {
		return prefix + otherwise, nil
	}
	return glob(prefix, o.Value)
}

// The expressions for "any string" and "any string but the empty one".
const (
	anyText = `[^\000]*`
	anyone  = `[^\000]+`
)

// attachment builds the automaton that says to which executables the profile
// attaches. Source: parser/parser_regex.c, process_profile_name_xmatch.
func (b *build) attachment(p *blob.Profile, span diag.Span) {
	rp := b.rp
	// A name that is a path attaches too, but is no attachment by itself.
	explicit := rp.Attachment != "" && (rp.Decl == nil || !rp.Decl.Attachment.IsZero())
	name := rp.Attachment
	if !explicit {
		name = rp.Local
		if i := strings.LastIndex(name, "//"); i >= 0 {
			name = name[i+2:]
		}
	}
	g, err := dfa.ConvertGlob("", dfa.FilterSlashes(name), false)
	if err != nil {
		b.errorf(span, "AA-GLOB", "profile name %q: %s", name, err)
		return
	}
	if g.Kind == dfa.GlobLiteral && !explicit && len(rp.AltNames) == 0 && len(rp.Xattrs) == 0 {
		return
	}
	r := newRules(b.c, b.s.level, false)
	b.xmatch = r
	arena := b.c.arena
	var alts []dfa.Expr
	for i, n := range append([]string{g.Regex}, rp.AltNames...) {
		if i > 0 {
			if n, err = glob("", dfa.FilterSlashes(n)); err != nil {
				b.errorf(span, "AA-GLOB", "alias of the attachment: %s", err)
				return
			}
		}
		e, _, err := r.expr(n)
		if err != nil {
			b.errorf(span, "AA-GLOB", "attachment: %s", err)
			return
		}
		alts = append(alts, e)
	}
	e := arena.AltList(alts)
	if len(rp.Xattrs) > 0 {
		if b.s.xattr && b.s.oob {
			// The kernel asks for the values in the order of the list; the
			// reference compiler's is that of the text backwards. Each value
			// may be missing, and then all that follow.
			tail := dfa.Epsilon
			for _, x := range rp.Xattrs {
				value := x.Value
				if value == "" {
					value = "**"
				}
				g, err := dfa.ConvertGlob(`\x00`, value, true)
				if err != nil {
					b.errorf(span, "AA-GLOB", "extended attribute %s: %s", x.Name, err)
					return
				}
				v, _, err := r.expr(g.Regex)
				if err != nil {
					b.errorf(span, "AA-GLOB", "extended attribute %s: %s", x.Name, err)
					return
				}
				tail = arena.Alt(dfa.Epsilon, arena.Cat(arena.Cat(arena.OutOfBand(), v), tail))
				p.Xattrs = append(p.Xattrs, x.Name)
			}
			e = arena.Cat(e, tail)
			slices.Reverse(p.Xattrs)
		} else {
			b.list.Warnf(span, "AA-NOT-ENFORCED", "profile %s: the target does not attach by extended attributes", rp.Name)
		}
	}
	r.grants = append(r.grants, grant{perms: apparmor.MayExec})
	r.entries = append(r.entries, entry{expr: e})
	p.XMatchLen = uint32(arena.MinLen(e))
	if err := r.build(b.c.opts.Limits); err != nil {
		b.errorf(span, "AA-TOO-BIG", "attachment: %s", err)
		return
	}
	if p.XMatch, err = r.automaton(b.s, blob.KindXMatch); err != nil {
		b.errorf(span, "AA-TOO-BIG", "attachment: %s", err)
	}
}

// audit gives the bits of perms that are to be logged, or kept quiet by a deny
// rule.
func auditOf(r *apparmor.ResolvedRule, perms uint32) uint32 {
	if r.Mode == apparmor.ModeDeny {
		if r.Audit == apparmor.AuditQuiet {
			return perms
		}
		return 0
	}
	if r.Audit == apparmor.AuditForce {
		return perms
	}
	return 0
}

func (b *build) rule(r *apparmor.ResolvedRule) error {
	switch body := r.Body.(type) {
	case *apparmor.FileBody:
		return b.fileRule(r, body)
	case *apparmor.ChangeProfileBody:
		return b.changeProfile(r, body)
	case *apparmor.NetworkBody:
		return b.network(r, body)
	case *apparmor.UnixBody:
		return b.unix(r, body)
	case *apparmor.DBusBody:
		return b.dbus(r, body)
	case *apparmor.SignalBody:
		return b.signal(r, body)
	case *apparmor.PtraceBody:
		return b.ptrace(r, body)
	case *apparmor.MountBody:
		return b.mount(r, body)
	case *apparmor.PivotRootBody:
		return b.pivotRoot(r, body)
	case *apparmor.MqueueBody:
		return b.mqueue(r, body)
	case *apparmor.IOUringBody:
		return b.ioURing(r, body)
	case *apparmor.UsernsBody:
		return b.userns(r, body)
	case *apparmor.CapabilityBody:
		return nil // in the sets of the profile
	}
	return errors.New("rule of an unknown kind")
}

// Priorities of the marks that a class is mediated. Source: parser/immunix.h.
const (
	maxPriority = 1001
	minPriority = -1001
)

// mediates adds, for each class that the target has, a state that exists even
// where no rule of the class does: without it the kernel allows the class.
// Source: parser/parser_regex.c, process_profile_policydb.
func (b *build) mediates() {
	mark := func(on bool, priority int, parts string) {
		if on {
			// The text is a constant of this function.
			if err := b.policy.add(nil, grant{perms: mediatesBit, priority: priority}, parts); err != nil {
				b.errorf(diag.Span{}, "AA-RULE", "%s", err)
			}
		}
	}
	s := b.s
	mark(s.userns, minPriority, classText(apparmor.ClassUserns))
	mode := b.rp.Flags.Mode
	if s.level != Level3 && (mode == apparmor.ProfileUnconfined || mode == apparmor.ProfileDefaultAllow) {
		return
	}
	mark(s.abi > 5, maxPriority, classText(apparmor.ClassFile))
	mark(s.mount, maxPriority, classText(apparmor.ClassMount))
	mark(s.dbus, maxPriority, classText(apparmor.ClassDBus))
	mark(s.signal, maxPriority, classText(apparmor.ClassSignal))
	mark(s.ptrace, maxPriority, classText(apparmor.ClassPtrace))
	mark(s.netV8, maxPriority, classText(apparmor.ClassNetV8))
	mark(s.skb, maxPriority, classText(apparmor.ClassNetV9Skb))
	// The mark below a class ends in the digit 1, not the family: so all
	// compilers write it, and AppArmor 3 the class as a digit too.
	switch {
	case s.unixV9:
		mark(true, maxPriority, classText(apparmor.ClassNetV9))
		mark(true, maxPriority, classText(apparmor.ClassNetV9)+`\0001`)
	case s.unixV7:
		mark(true, maxPriority, classText(apparmor.ClassNetwork))
		sub := classText(apparmor.ClassNetwork) + `\0001`
		if s.level == Level3 {
			sub = `4\0001`
		}
		mark(true, maxPriority, sub)
	}
	mark(s.posixMqueue, maxPriority, classText(apparmor.ClassPosixMqueue))
	mark(s.sysvMqueue, maxPriority, classText(apparmor.ClassSysvMqueue))
	mark(s.ioURing, minPriority, classText(apparmor.ClassIOUring))
}

// automata builds and packs the file and policydb automata.
func (b *build) automata(p *blob.Profile, span diag.Span) {
	for _, t := range []struct {
		r    *rules
		kind blob.Kind
		to   **blob.Automaton
		what string
	}{{b.policy, blob.KindPolicy, &p.PolicyDB, "policy"}, {b.file, blob.KindFile, &p.File, "file"}} {
		if len(t.r.entries) == 0 {
			continue
		}
		err := t.r.build(b.c.opts.Limits)
		var conflict *errConflict
		if errors.As(err, &conflict) {
			b.conflict(t.r, conflict, span)
			continue
		}
		if err == nil {
			*t.to, err = t.r.automaton(b.s, t.kind)
		}
		if err != nil {
			b.errorf(span, "AA-TOO-BIG", "profile %s: %s rules: %s", b.rp.Name, t.what, err)
		}
	}
	p.NetAF = b.netAF()
	if p.File != nil {
		p.File.XTable = b.xtable
	}
	if p.PolicyDB != nil && b.s.permstable {
		p.PolicyDB.XTable = b.xtable
	}
}

func (b *build) conflict(r *rules, c *errConflict, span diag.Span) {
	x, y := r.overlapping(c)
	if x == nil || y == nil {
		b.errorf(span, "AA-EXEC-CONFLICT", "profile %s has rules with conflicting exec transitions", b.rp.Name)
		return
	}
	if y.ID < x.ID {
		x, y = y, x
	}
	b.failed = true
	*b.list = append(*b.list, diag.Diagnostic{
		Code: "AA-EXEC-CONFLICT", Severity: diag.Error, Span: y.Span,
		Message: "exec transition conflicts with that of another rule for the same path",
		Related: []diag.Related{{Span: x.Span, Message: "the other rule"}},
	})
}
