// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/diag"
)

// draft is a rule on its way through the blocks around it: prefixes are still
// being added. It becomes a [ResolvedRule] in the end.
type draft struct {
	*ResolvedRule
	audit  auditState
	owners uint8 // bit 0 own, bit 1 other
}

// auditState is how the prefixes of a rule and of its blocks add up.
//
// Source: parser/rule.h, prefix_rule_t::add_prefix.
type auditState uint8

const (
	auditNone auditState = iota
	auditImplied
	auditForced
)

// addPrefix applies a prefix on top of what the rule has. It returns what is
// wrong, or "".
func (d *draft) addPrefix(x Prefix) string {
	if x.Priority != 0 {
		d.Priority = x.Priority
	}
	if x.Mode != ModeUnspecified {
		if d.Mode != ModeUnspecified && d.Mode != x.Mode {
			return fmt.Sprintf("%s conflicts with the %s inside of it", x.Mode, d.Mode)
		}
		d.Mode = x.Mode
	}
	switch {
	case (x.Mode == ModeDeny || d.Mode == ModeDeny) && (x.Audit || d.audit == auditForced):
		d.Mode, d.audit = ModeDeny, auditNone
	case x.Mode == ModeDeny:
		d.audit = auditImplied
	case x.Audit:
		d.audit = auditForced
	}
	switch x.Owner {
	case OwnerOwn:
		d.owners &= 1
	case OwnerOther:
		d.owners &= 2
	}
	return ""
}

// settle writes the sum of the prefixes into the rule. It reports false for a
// rule that is left with nobody to apply to.
func (d *draft) settle() bool {
	switch {
	case d.Mode == ModeDeny && d.audit != auditNone:
		d.Audit = AuditQuiet
	case d.Mode != ModeDeny && d.audit != auditNone:
		d.Audit = AuditForce
	default:
		d.Audit = AuditDefault
	}
	if d.Mode == ModeUnspecified {
		d.Mode = ModeAllow
	}
	switch d.owners {
	case 0:
		return false
	case 1:
		d.Owner = OwnerOwn
	case 2:
		d.Owner = OwnerOther
	}
	return true
}

// checkExec is the rule about exec qualifiers: an allowed x needs one, a denied
// x must have none.
func (d *draft) checkExec() string {
	var has, qualified bool
	switch b := d.Body.(type) {
	case *FileBody:
		has = b.Perms&MayExec != 0
		qualified = b.Exec.Kind != ExecNone
	default:
		return "" // change_profile follows its own rules
	}
	switch {
	case !has || d.owners == 0:
	case d.Mode == ModeDeny && qualified:
		return "in a deny rule x stands alone, without i, p, c or u"
	case d.Mode != ModeDeny && !qualified:
		return "x needs to say where the exec goes: ix, px, cx or ux"
	}
	return ""
}

// blockBody is a body under construction.
type blockBody struct {
	drafts  []*draft
	caps    Capabilities
	rlimits map[int]uint64
	hats    []*profileDraft
}

func (b *blockBody) merge(o *blockBody, r *resolver) {
	b.drafts = append(b.drafts, o.drafts...)
	b.caps.Allow |= o.caps.Allow
	b.caps.Audit |= o.caps.Audit
	b.caps.Deny |= o.caps.Deny
	b.caps.Quiet |= o.caps.Quiet
	for k, v := range o.rlimits {
		b.setRlimit(k, v)
	}
	for _, h := range o.hats {
		b.addHat(h, r)
	}
}

func (b *blockBody) setRlimit(k int, v uint64) {
	if b.rlimits == nil {
		b.rlimits = map[int]uint64{}
	}
	b.rlimits[k] = v
}

func (b *blockBody) addHat(h *profileDraft, r *resolver) {
	if dup := findDraft(b.hats, h); dup != nil {
		r.duplicate("hat or child profile", h, dup)
		return
	}
	b.hats = append(b.hats, h)
}

// rules collects what a list of rules comes to.
func (r *resolver) rules(rules []Rule, b *blockBody) {
	for _, rule := range rules {
		r.rule(rule, b)
	}
}

func (r *resolver) rule(rule Rule, b *blockBody) {
	switch n := rule.(type) {
	case *Comment:
	case *Include:
		r.include(n, func(f *File) {
			for _, it := range f.Items {
				if in, ok := it.(Rule); ok && !preambleItem(it) {
					r.rule(in, b)
				} else {
					r.errorf(it.Span(), "AA-PREAMBLE", "this belongs before the profiles, but the file is included in a profile")
				}
			}
		})
	case *ABI:
		r.abi(n)
	case *Profile:
		if n.Kind == KindBare {
			r.errorf(n.Name.Pos, "AA-CHILD", "a profile inside of a profile needs the keyword profile or hat")
			return
		}
		if h := r.profile(n, b); h != nil {
			b.addHat(h, r)
		}
	case *If:
		r.conditional(n, b)
	case *Block:
		r.block(n, b)
	case *RlimitRule:
		r.rlimit(n, b)
	case *CapabilityRule:
		r.capability(n, b)
	case *FileRule:
		r.add(b, n, n.Prefix, r.fileBody(n))
	case *LinkRule:
		r.add(b, n, n.Prefix, &FileBody{Path: n.Path.Value, Perms: MayLink, LinkTarget: n.Target.Value, Subset: n.Subset})
	case *ChangeProfileRule:
		if n.Prefix.Owner != OwnerUnspecified {
			r.errorf(n.Prefix.Pos, "AA-OWNER", "owner does not go with change_profile rules")
		}
		r.add(b, n, n.Prefix, r.changeProfileBody(n))
	case *MountRule:
		r.noOwner(n.Prefix, n.Kind.String())
		r.add(b, n, n.Prefix, r.mountBody(n))
	case *AllRule:
		r.noOwner(n.Prefix, "all")
		r.noPriority(n.Prefix, "all")
		r.add(b, n, n.Prefix, &allBody{})
	case *CondRule:
		r.condRule(n, b)
	}
}

func preambleItem(it Item) bool {
	switch it.(type) {
	case *Alias, *VarAssign, *BoolAssign:
		return true
	}
	return false
}

// allBody stands for an "all" rule until it is taken apart.
type allBody struct{}

func (*allBody) Class() Class { return ClassFile }

func (r *resolver) noOwner(x Prefix, what string) {
	if x.Owner != OwnerUnspecified {
		r.errorf(x.Pos, "AA-OWNER", "%s does not go with %s rules", x.Owner, what)
	}
}

func (r *resolver) noPriority(x Prefix, what string) {
	if x.Priority != 0 {
		r.errorf(x.Pos, "AA-PRIORITY", "priority does not go with %s rules", what)
	}
}

// add makes a draft of a body; nil means that the rule was faulty.
func (r *resolver) add(b *blockBody, source Rule, x Prefix, body Body) *draft {
	if body == nil {
		return nil
	}
	d := &draft{ResolvedRule: &ResolvedRule{
		Body: body, Source: source, Span: source.Span(), Via: r.via,
	}, owners: 3}
	if msg := d.addPrefix(x); msg != "" {
		r.errorf(x.Pos, "AA-PREFIX", "%s", msg)
	}
	if msg := d.checkExec(); msg != "" {
		at := source.Span()
		if f, ok := source.(*FileRule); ok {
			at = f.Perms.Pos
		}
		r.errorf(at, "AA-EXEC-QUALIFIER", "%s", msg)
	}
	b.drafts = append(b.drafts, d)
	return d
}

// conditional takes the branch that holds. Both are read, because their errors
// count.
func (r *resolver) conditional(n *If, b *blockBody) {
	yes := r.eval(n.Cond)
	var then, other blockBody
	r.rules(n.Then.Rules, &then)
	switch e := n.Else.(type) {
	case *If:
		r.conditional(e, &other)
	case *Block:
		r.rules(e.Rules, &other)
	}
	if yes {
		b.merge(&then, r)
	} else {
		b.merge(&other, r)
	}
}

// block applies a prefix to the rules of a block. The reference parser applies
// it to file and change_profile rules and forgets all others; so do we, and say
// so.
func (r *resolver) block(n *Block, b *blockBody) {
	if n.Prefix.Priority != 0 {
		r.errorf(n.Prefix.Pos, "AA-PRIORITY", "priority does not go with a block of rules")
	}
	var in blockBody
	r.rules(n.Rules, &in)
	for _, d := range in.drafts {
		switch d.Body.(type) {
		case *FileBody, *ChangeProfileBody:
		default:
			r.dropped(d.Span)
			continue
		}
		if msg := d.addPrefix(n.Prefix); msg != "" {
			r.errorf(d.Span, "AA-PREFIX", "%s", msg)
		}
		if msg := d.checkExec(); msg != "" {
			r.errorf(d.Span, "AA-EXEC-QUALIFIER", "%s", msg)
		}
		b.drafts = append(b.drafts, d)
	}
	for _, h := range in.hats {
		r.dropped(h.decl.Name.Pos)
	}
	if in.caps != (Capabilities{}) || in.rlimits != nil {
		r.dropped(n.Span())
	}
}

func (r *resolver) dropped(at diag.Span) {
	r.warnf(at, "AA-BLOCK-DROPPED", "only file and change_profile rules take effect in a block; the others are dropped, as the parser does")
}

func (r *resolver) rlimit(n *RlimitRule, b *blockBody) {
	res, ok := rlimits[n.Resource.Value]
	if !ok {
		r.errorf(n.Resource.Pos, "AA-RLIMIT", "there is no resource limit %s", n.Resource.Value)
		return
	}
	v, unit := n.Value.Value, n.Unit.Value
	if v == "infinity" {
		b.setRlimit(res, RlimitInfinity)
		return
	}
	bad := func(why string) {
		r.errorf(n.Value.Pos, "AA-RLIMIT", "rlimit %s: %s", n.Resource.Value, why)
	}
	num := strtoll(v)
	switch res {
	case rlimitCPU, rlimitRTTime:
		base := int64(1)
		if res == rlimitCPU {
			base = 1e6
		}
		if num < 0 {
			bad(v + " is negative")
			return
		}
		if unit != "" {
			u, ok := timeUnits[unit]
			switch {
			case !ok:
				bad(unit + " is no unit of time")
				return
			case num*u < base:
				bad("less than the smallest value, which is a second")
				return
			}
			num = num * u / base
		} else {
			r.warnf(n.Value.Pos, "AA-RLIMIT-UNIT", "rlimit %s without a unit", n.Resource.Value)
		}
	case rlimitNice:
		switch {
		case unit != "":
			bad("takes no unit")
			return
		case num < -20 || num > 19:
			bad(v + " is not between -20 and 19")
			return
		}
		num += 20
	case rlimits["nofile"], rlimits["nproc"], rlimits["locks"], rlimits["sigpending"], rlimits["rtprio"]:
		switch {
		case unit != "":
			bad("takes no unit")
			return
		case num < 0:
			bad(v + " is negative")
			return
		}
	default:
		if num < 0 {
			bad(v + " is negative")
			return
		}
		switch {
		case unit == "":
		case strings.HasPrefix("KB", unit):
			num *= 1024
		case strings.HasPrefix("MB", unit):
			num *= 1024 * 1024
		case strings.HasPrefix("GB", unit):
			num *= 1024 * 1024 * 1024
		default:
			bad(unit + " is no unit of size; use KB, MB or GB")
			return
		}
	}
	b.setRlimit(res, uint64(num))
}

// strtoll reads a number as the C function does: octal after a leading 0, up to
// the first character that does not belong, held at the ends of its range.
func strtoll(s string) int64 {
	body, neg := strings.CutPrefix(s, "-")
	base := 10
	if len(body) > 1 && body[0] == '0' {
		base = 8
	}
	end := 0
	for end < len(body) && body[end] >= '0' && int(body[end]-'0') < base {
		end++
	}
	n, err := strconv.ParseInt(body[:end], base, 64)
	if err != nil && end > 0 {
		n = math.MaxInt64
	}
	if neg {
		n = -n
	}
	return n
}

func (r *resolver) capability(n *CapabilityRule, b *blockBody) {
	if n.Prefix.Owner != OwnerUnspecified {
		r.errorf(n.Prefix.Pos, "AA-OWNER", "owner does not go with capability rules")
	}
	var mask uint64
	for _, w := range n.Caps {
		c, ok := capabilityNumber[w.Value]
		if !ok {
			if c, ok = r.featureCapability(w.Value); !ok {
				r.errorf(w.Pos, "AA-CAPABILITY", "there is no capability %s", w.Value)
				continue
			}
		}
		// What newer capabilities stand for was sys_admin's before.
		if c >= int(caps.Perfmon) && c <= int(caps.CheckpointRestore) && r.env.Kernel != nil &&
			!slices.Contains(r.env.Kernel.Words("caps/mask"), w.Value) {
			c = int(caps.SysAdmin)
		}
		mask |= 1 << c
	}
	if len(n.Caps) == 0 {
		mask = ^uint64(0)
	}
	addCaps(&b.caps, n.Prefix.Mode, n.Prefix.Audit, mask)
	d := r.add(b, n, n.Prefix, &CapabilityBody{Mask: mask})
	d.ResolvedRule.Priority = 0 // capabilities are sets: priority has no meaning
}

// addCaps adds a rule to the sets.
func addCaps(c *Capabilities, m Mode, audit bool, mask uint64) {
	switch {
	case m == ModeDeny && audit:
		c.Deny |= mask
	case m == ModeDeny:
		c.Deny |= mask
		c.Quiet |= mask
	default:
		c.Allow |= mask
		if audit {
			c.Audit |= mask
		}
	}
}

// featureCapability looks for a capability that only the features name.
func (r *resolver) featureCapability(name string) (int, bool) {
	for _, f := range []*Features{r.env.Kernel, r.policy.ABI} {
		if f == nil {
			continue
		}
		if i := slices.Index(f.Words("caps/mask"), name); i >= 0 && i < 64 {
			return i, true
		}
	}
	return 0, false
}

// perms reads the letters of a file rule.
//
// Source: parser/parser_misc.c, parse_sub_perms.
func (r *resolver) perms(w Word) (perms uint32, x Exec, ok bool) {
	s := w.Value
	conflict := func(q string) {
		r.errorf(w.Pos, "AA-EXEC-CONFLICT", "exec qualifier %s conflicts with the one before it", q)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' && strings.IndexByte("RWLMIX", c) >= 0 {
			r.warnf(w.Pos, "AA-UPPERCASE", "capital R, W, L, M, I and X are deprecated")
			c |= 0x20
		}
		switch c {
		case 'r':
			perms |= MayRead
		case 'w':
			if perms&MayAppend != 0 && perms&MayWrite == 0 {
				r.errorf(w.Pos, "AA-APPEND-WRITE", "a and w exclude each other")
				return 0, Exec{}, false
			}
			perms |= MayWrite | MayAppend
		case 'a':
			if perms&MayWrite != 0 {
				r.errorf(w.Pos, "AA-APPEND-WRITE", "a and w exclude each other")
				return 0, Exec{}, false
			}
			perms |= MayAppend
		case 'l':
			perms |= MayLink
		case 'k':
			perms |= MayLock
		case 'm':
			perms |= MayMmap
		case 'x':
			perms |= MayExec
		case 'i':
			if x.Kind != ExecNone && x.Kind != ExecInherit {
				conflict("i")
				return 0, Exec{}, false
			}
			x.Kind = ExecInherit
			perms |= MayExec
			i++
		default:
			n := Exec{Unsafe: c|0x20 == c}
			q := string(c)
			switch c | 0x20 {
			case 'u':
				n.Kind = ExecUnconfined
			case 'p':
				n.Kind = ExecProfile
			case 'c':
				n.Kind = ExecChild
			}
			if n.Kind != ExecUnconfined && i+1 < len(s) {
				switch s[i+1] | 0x20 {
				case 'i':
					n.FallbackInherit = true
					q += "i"
					i++
				case 'u':
					n.FallbackUnconfined = true
					q += "u"
					i++
				}
			}
			if perms&MayExec != 0 && x != n {
				conflict(q)
				return 0, Exec{}, false
			}
			x = n
			perms |= MayExec
			i++
		}
	}
	return perms, x, true
}

func (r *resolver) fileBody(n *FileRule) Body {
	if n.Perms.IsZero() && n.File && n.Path.IsZero() {
		return &FileBody{
			Path:  "/{**,}",
			Perms: MayRead | MayWrite | MayAppend | MayLink | MayLock | MayMmap | MayExec,
			Exec:  Exec{Kind: ExecInherit},
		}
	}
	perms, x, ok := r.perms(n.Perms)
	if !ok {
		return nil
	}
	b := &FileBody{Path: n.Path.Value, Perms: perms, Exec: x}
	exec, link := perms&MayExec != 0, perms&MayLink != 0
	hasTarget := !n.Target.IsZero()
	if n.PermsFirst {
		if n.Subset && perms&^MayLink != 0 {
			r.errorf(n.Perms.Pos, "AA-SUBSET", "subset only goes with link permission")
		}
		if hasTarget && link && exec {
			r.errorf(n.Target.Pos, "AA-TARGET", "with both l and x it is not clear what the target after -> is for")
		}
		if hasTarget && link && labelHasNamespace(n.Target.Value) {
			r.errorf(n.Target.Pos, "AA-TARGET", "link permission does not go with a transition to a profile")
		}
		if link {
			b.LinkTarget, b.Subset = n.Target.Value, n.Subset
		} else {
			b.Exec.Target = n.Target.Value
		}
	} else {
		if hasTarget && link && exec {
			r.warnf(n.Target.Pos, "AA-TARGET", "with both l and x the target after -> is taken as that of the exec")
		}
		if hasTarget && link && !exec {
			b.LinkTarget = n.Target.Value
		} else {
			b.Exec.Target = n.Target.Value
		}
	}
	if n.ExecMode != ExecModeUnspecified {
		if !exec {
			r.errorf(n.Span(), "AA-EXEC-MODE", "%s needs exec permission", n.ExecMode)
		}
		b.Exec.Unsafe = n.ExecMode == ExecModeUnsafe
	}
	return b
}

func (r *resolver) changeProfileBody(n *ChangeProfileRule) Body {
	b := &ChangeProfileBody{
		Target: n.Target.Value, Exec: n.Exec.Value,
		Unsafe: n.ExecMode == ExecModeUnsafe, Safe: n.ExecMode == ExecModeSafe,
	}
	if b.Exec == "" && n.ExecMode != ExecModeUnspecified {
		r.errorf(n.Span(), "AA-CHANGE-PROFILE", "%s needs the path of an executable", n.ExecMode)
	}
	if b.Exec != "" && b.Exec[0] != '/' && !strings.HasPrefix(b.Exec, "@{") {
		r.errorf(n.Exec.Pos, "AA-CHANGE-PROFILE", "the path of an executable begins with '/' or a variable")
	}
	if n.Target.IsZero() {
		b.Target = "**"
	}
	return b
}

// classPerms reads the accesses of a rule: words of the table, or r and w.
// lenient classes ignore what they do not know inside of parentheses, as the
// parser does.
func (r *resolver) classPerms(n *CondRule, table map[string]uint32, all uint32, rw, lenient bool) (uint32, bool) {
	var perms uint32
	ok := true
	for _, w := range n.Perms {
		if p, known := table[w.Value]; known {
			perms |= p
			continue
		}
		if rw && w.Value != "" && strings.Trim(w.Value, "rwRW") == "" {
			if strings.ContainsAny(w.Value, "rR") {
				perms |= table["read"]
			}
			if strings.ContainsAny(w.Value, "wW") {
				perms |= table["write"]
			}
			continue
		}
		if lenient && n.ParenPerms {
			r.warnf(w.Pos, "AA-ACCESS", "%s is no access of %s rules and is ignored", w.Value, className(n.Class))
			continue
		}
		r.errorf(w.Pos, "AA-ACCESS", "%s is no access of %s rules", w.Value, className(n.Class))
		ok = false
	}
	if perms == 0 {
		perms = all
	}
	return perms, ok
}

func className(c Class) string {
	for n, k := range condClasses {
		if k.class == c {
			return n
		}
	}
	return "these"
}

// conds goes through conditions: set handles those it knows.
func (r *resolver) conds(class Class, conds []Cond, allow []CondOp, set func(c Cond, v string) bool) {
	what := className(class)
	for _, c := range conds {
		if !slices.Contains(allow, c.Op) {
			if c.Op == CondNone {
				r.errorf(c.Pos, "AA-CONDITION-OP", "%s needs a value", c.Name.Value)
			} else {
				r.errorf(c.Pos, "AA-CONDITION-OP", "'%s' does not go with %s in %s rules", strings.TrimSpace(c.Op.String()), c.Name.Value, what)
			}
			continue
		}
		if !set(c, c.Values[0].Value) {
			r.errorf(c.Name.Pos, "AA-CONDITION-NAME", "%s is no condition of %s rules", c.Name.Value, what)
		}
	}
}

var eqOnly = []CondOp{CondEq}

// once sets a value that may be given once.
func (r *resolver) setOnce(o *Opt, c Cond, v string) {
	if o.Set {
		r.errorf(c.Pos, "AA-CONDITION-TWICE", "%s is given twice", c.Name.Value)
		return
	}
	*o = Opt{Value: v, Set: true}
}

func (r *resolver) single(c Cond) bool {
	if len(c.Values) > 1 {
		r.errorf(c.Pos, "AA-CONDITION-MANY", "%s takes a single value", c.Name.Value)
		return false
	}
	return true
}

func (r *resolver) condRule(n *CondRule, b *blockBody) {
	r.noOwner(n.Prefix, className(n.Class))
	if n.HasGroup && n.GroupName.Value != "peer" && n.Class != ClassIOUring {
		r.errorf(n.GroupName.Pos, "AA-CONDITION-NAME", "%s=( … ) does not go with %s rules", n.GroupName.Value, className(n.Class))
	}
	switch n.Class {
	case ClassNetwork:
		r.noPriority(n.Prefix, "network")
		r.network(n, b)
	case ClassUnix:
		r.add(b, n, n.Prefix, r.unix(n))
	case ClassDBus:
		r.add(b, n, n.Prefix, r.dbus(n))
	case ClassSignal:
		r.add(b, n, n.Prefix, r.signal(n))
	case ClassPtrace:
		perms, ok := r.classPerms(n, ptracePerms, ptraceAll, true, false)
		body := &PtraceBody{Perms: perms}
		r.conds(n.Class, n.Conds, eqOnly, func(c Cond, v string) bool {
			if c.Name.Value != "peer" {
				return false
			}
			r.setOnce(&body.Peer, c, v)
			return true
		})
		if ok {
			r.add(b, n, n.Prefix, body)
		}
	case ClassMqueue:
		r.add(b, n, n.Prefix, r.mqueue(n))
	case ClassIOUring:
		perms, ok := r.classPerms(n, ioUringPerms, IOUringOverrideCreds|IOUringSQPoll, false, true)
		body := &IOUringBody{Perms: perms}
		set := func(c Cond, v string) bool {
			if c.Name.Value != "label" {
				return false
			}
			if r.single(c) {
				r.setOnce(&body.Label, c, v)
			}
			return true
		}
		r.conds(n.Class, n.Conds, eqOnly, set)
		r.conds(n.Class, n.Group, eqOnly, set)
		if ok {
			r.add(b, n, n.Prefix, body)
		}
	case ClassUserns:
		perms, ok := r.classPerms(n, usernsPerms, UsernsCreate, false, true)
		r.conds(n.Class, n.Conds, eqOnly, func(Cond, string) bool { return false })
		if ok {
			r.add(b, n, n.Prefix, &UsernsBody{Perms: perms})
		}
	}
}

func (r *resolver) signal(n *CondRule) Body {
	perms, ok := r.classPerms(n, signalPerms, signalAll, true, false)
	body := &SignalBody{Perms: perms}
	r.conds(n.Class, n.Conds, eqOnly, func(c Cond, v string) bool {
		switch c.Name.Value {
		case "set":
			for _, w := range c.Values {
				s := findSignal(w.Value)
				if s < 0 {
					r.errorf(w.Pos, "AA-SIGNAL", "there is no signal %s", w.Value)
					continue
				}
				if i, found := slices.BinarySearch(body.Signals, s); !found {
					body.Signals = slices.Insert(body.Signals, i, s)
				}
			}
		case "peer":
			r.setOnce(&body.Peer, c, v)
		default:
			return false
		}
		return true
	})
	if !ok {
		return nil
	}
	return body
}

func (r *resolver) dbus(n *CondRule) Body {
	perms, ok := r.classPerms(n, dbusPerms, 0, true, false)
	b := &DBusBody{}
	set := func(c Cond, v string) bool {
		var o *Opt
		switch c.Name.Value {
		case "bus":
			o = &b.Bus
		case "name":
			o = &b.Name
		case "label":
			o = &b.PeerLabel
		case "path":
			o = &b.Path
		case "interface":
			o = &b.Interface
		case "member":
			o = &b.Member
		default:
			return false
		}
		if r.single(c) {
			r.setOnce(o, c, v)
		}
		return true
	}
	r.conds(n.Class, n.Conds, eqOnly, set)
	service := b.Name.Set
	if b.PeerLabel.Set {
		r.errorf(n.Span(), "AA-DBUS", "label only goes inside of peer=( … )")
	}
	r.conds(n.Class, n.Group, eqOnly, set)
	message := b.Path.Set || b.Interface.Set || b.Member.Set || b.PeerLabel.Set || b.Name.Set && !service
	bad := ""
	switch {
	case message && service:
		bad = "conditions of messages (path, interface, member, peer) do not go with the name of a service"
	case message && perms&DBusBind != 0:
		bad = "bind does not go with conditions of messages"
	case service && perms&(DBusSend|DBusReceive) != 0:
		bad = "send and receive do not go with the name of a service"
	case perms&DBusEavesdrop != 0 && (message || service):
		bad = "eavesdrop goes with no condition but bus"
	}
	if bad != "" {
		r.errorf(n.Span(), "AA-DBUS", "%s", bad)
		return nil
	}
	switch {
	case perms != 0:
	case message:
		perms = DBusSend | DBusReceive
	case service:
		perms = DBusBind
	default:
		perms = dbusAll
	}
	b.Perms = perms
	if !ok {
		return nil
	}
	return b
}

func (r *resolver) mqueue(n *CondRule) Body {
	perms, ok := r.classPerms(n, mqueuePerms, mqueueAll, true, false)
	b := &MqueueBody{Perms: perms}
	r.conds(n.Class, n.Conds, eqOnly, func(c Cond, v string) bool {
		switch c.Name.Value {
		case "label":
			r.setOnce(&b.Label, c, v)
		case "type":
			switch v {
			case "posix":
				b.Type = MqueuePosix
			case "sysv":
				b.Type = MqueueSysv
			default:
				r.errorf(c.Values[0].Pos, "AA-MQUEUE", "there are message queues of type posix and sysv, not %s", v)
			}
		default:
			return false
		}
		return true
	})
	if len(n.Args) > 0 {
		w := n.Args[0]
		switch {
		case strings.HasPrefix(w.Value, "/"):
			if b.Type == MqueueSysv {
				r.errorf(w.Pos, "AA-MQUEUE", "a queue of type sysv is a number, not %s", w.Value)
			}
			b.Type = MqueuePosix
		case w.Value != "" && digits(w.Value) == len(w.Value):
			if b.Type == MqueuePosix {
				r.errorf(w.Pos, "AA-MQUEUE", "the name of a queue of type posix begins with '/'")
			}
			b.Type = MqueueSysv
		default:
			r.errorf(w.Pos, "AA-MQUEUE", "the name of a queue begins with '/' or is a number")
		}
		b.Name = Opt{Value: w.Value, Set: true}
	}
	if !ok {
		return nil
	}
	return b
}

func (r *resolver) unix(n *CondRule) Body {
	perms, ok := r.classPerms(n, netPerms, 0, true, false)
	b := &UnixBody{Type: -1}
	side := func(peer bool) func(c Cond, v string) bool {
		return func(c Cond, v string) bool {
			var o *Opt
			switch c.Name.Value {
			case "addr":
				o = &b.Addr
				if peer {
					o = &b.PeerAddr
				}
				if !r.single(c) {
					return true
				}
				if v != "none" && v != "auto" && !strings.HasPrefix(v, "@") {
					r.errorf(c.Values[0].Pos, "AA-UNIX-ADDR", "an address is '@name', 'none' or 'auto', not '%s'", v)
				}
			case "type":
				if peer {
					r.errorf(c.Pos, "AA-CONDITION-NAME", "type does not go into the peer")
					return true
				}
				if !r.single(c) {
					return true
				}
				t, known := socketTypes[v]
				if !known {
					r.errorf(c.Values[0].Pos, "AA-NETWORK", "there is no socket type %s", v)
				}
				if b.Type >= 0 {
					r.errorf(c.Pos, "AA-CONDITION-TWICE", "type is given twice")
				}
				b.Type = t
				return true
			case "protocol":
				r.errorf(c.Pos, "AA-CONDITION-NAME", "protocol is not supported in unix rules")
				return true
			case "label":
				if !peer {
					r.errorf(c.Pos, "AA-CONDITION-NAME", "label only goes inside of peer=( … )")
					return true
				}
				if !r.single(c) {
					return true
				}
				o = &b.PeerLabel
			default:
				return false
			}
			r.setOnce(o, c, v)
			return true
		}
	}
	r.conds(n.Class, n.Conds, eqOnly, side(false))
	r.conds(n.Class, n.Group, eqOnly, side(true))
	if perms&^uint32(netPeer) != 0 && (b.PeerAddr.Set || b.PeerLabel.Set) {
		r.errorf(n.Span(), "AA-PEER", "only send, receive, connect and accept go with a peer")
	}
	if perms == 0 {
		perms = NetAll
	}
	b.Perms = perms
	if !ok {
		return nil
	}
	return b
}

// inet reads the conditions of one end of a network rule.
func (r *resolver) inet(conds []Cond, into *InetCond) {
	var ip, port, iface, label Opt
	for _, c := range conds {
		isLabel := c.Name.Value == "label"
		if c.Op == CondNone || c.Op == CondIn || c.Op == CondSet && !isLabel {
			r.errorf(c.Pos, "AA-CONDITION-OP", "%s in network rules is set with '='", c.Name.Value)
			continue
		}
		v := c.Values[0].Value
		at := c.Values[0].Pos
		switch c.Name.Value {
		case "label":
			r.setOnce(&label, c, v)
			into.Label, into.SetLabel = v, c.Op == CondSet
		case "ip":
			r.setOnce(&ip, c, v)
			if v == "none" {
				into.IPNone = true
				break
			}
			a, err := netip.ParseAddr(v)
			if err != nil || a.Zone() != "" {
				r.errorf(at, "AA-NETWORK-IP", "'%s' is no IPv4 or IPv6 address", v)
				break
			}
			into.IP = a.AsSlice()
		case "port":
			r.setOnce(&port, c, v)
			lo, hi, isRange := strings.Cut(v, "-")
			from, err := parsePort(lo)
			to := from
			if err == nil && isRange {
				to, err = parsePort(hi)
			}
			if err != nil || from > to {
				r.errorf(at, "AA-NETWORK-PORT", "'%s' is no port and no range of ports", v)
				break
			}
			into.HasPort, into.From, into.To = true, from, to
		case "interface":
			r.setOnce(&iface, c, v)
			into.Interface = v
			r.globWord(v, at)
		default:
			r.errorf(c.Name.Pos, "AA-CONDITION-NAME", "%s is no condition of network rules", c.Name.Value)
		}
	}
}

// parsePort reads a port as strtoul does: blanks and a plus may lead.
func parsePort(s string) (uint16, error) {
	s = strings.TrimPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "+")
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

func (r *resolver) network(n *CondRule, b *blockBody) {
	perms, ok := r.classPerms(n, netPerms, 0, true, false)
	body := &NetworkBody{Perms: perms}
	r.inet(n.Conds, &body.Local)
	r.inet(n.Group, &body.Peer)
	if body.Peer.Interface != "" {
		r.errorf(n.Span(), "AA-NETWORK", "interface does not go into the peer")
	}
	body.Peer.Interface = body.Local.Interface
	peerConds := body.Peer.IP != nil || body.Peer.IPNone || body.Peer.HasPort
	inetOnly := !body.Local.IsZero() || peerConds

	var tuples []netTuple
	switch len(n.Args) {
	case 0:
		body.All = true
		if inetOnly {
			tuples = append(findNet("inet", ""), findNet("inet6", "")...)
			break
		}
		for f := range afMax {
			body.Matches = append(body.Matches, NetMatch{Family: uint16(f), Types: AnyType, Protocol: AnyType})
		}
	default:
		first, typ := n.Args[0].Value, ""
		if len(n.Args) > 1 {
			typ = n.Args[1].Value
		}
		tuples = findNet(first, typ)
		for _, t := range tuples {
			if inetOnly && t.family != afInet && t.family != afInet6 {
				r.errorf(n.Args[0].Pos, "AA-NETWORK", "only inet and inet6 take addresses and ports, not %s", first)
				ok = false
				break
			}
		}
		if typ == "" && len(tuples) == 0 {
			for _, t := range findNet("", first) {
				if !inetOnly || t.family == afInet || t.family == afInet6 {
					tuples = append(tuples, t)
				}
			}
		}
		if len(tuples) == 0 {
			words := first
			if typ != "" {
				words += " " + typ
			}
			r.errorf(n.Args[0].Pos, "AA-NETWORK", "there is no address family, type or protocol '%s'", words)
			ok = false
		}
	}
	for _, t := range tuples {
		i := slices.IndexFunc(body.Matches, func(m NetMatch) bool { return int(m.Family) == t.family })
		if i < 0 {
			i = len(body.Matches)
			body.Matches = append(body.Matches, NetMatch{Family: uint16(t.family)})
		}
		body.Matches[i].Types |= 1 << t.sockType
		body.Matches[i].Protocol |= t.protocol
	}
	if perms&^uint32(netPeer) != 0 && peerConds {
		r.errorf(n.Span(), "AA-PEER", "only send, receive, connect and accept go with a peer")
	}
	if perms == 0 {
		body.Perms = NetAll
	}
	if !ok {
		return
	}
	// A network rule for unix sockets makes unix rules, one of each type.
	for _, m := range body.Matches {
		if m.Family != afUnix {
			continue
		}
		types := []int{-1}
		if m.Types != AnyType {
			types = nil
			for t := range 16 {
				if m.Types&(1<<t) != 0 {
					types = append(types, t)
				}
			}
		}
		for _, t := range types {
			d := r.add(b, n, Prefix{}, &UnixBody{Perms: NetAll, Type: t, FromNetworkRule: true})
			d.Implied = true
			d.Mode = n.Prefix.Mode
			if n.Prefix.Audit {
				d.audit = auditForced
			}
		}
	}
	r.add(b, n, n.Prefix, body)
}

func (r *resolver) mountBody(n *MountRule) Body {
	if n.Kind == PivotRoot {
		return r.pivotRoot(n)
	}
	if len(n.DstConds) > 0 {
		r.errorf(n.DstConds[0].Pos, "AA-MOUNT", "a mount point takes no conditions")
		return nil
	}
	b := &MountBody{Perms: MayMount}
	if n.Kind == Umount {
		b.Perms = MayUmount
	}
	opt := func(w Word) Opt { return Opt{Value: w.Value, Set: !w.IsZero()} }
	b.MountPoint, b.Device = opt(n.Target), opt(n.Source)
	ok := true
	for _, c := range n.Conds {
		isType := c.Name.Value == "fstype" || c.Name.Value == "vfstype"
		isOptions := c.Name.Value == "options" || c.Name.Value == "option"
		switch {
		case !isType && !isOptions:
			r.errorf(c.Name.Pos, "AA-MOUNT", "%s is no condition of mount rules", c.Name.Value)
			ok = false
		case c.Op != CondEq && c.Op != CondIn:
			r.errorf(c.Pos, "AA-CONDITION-OP", "conditions of mount rules are set with '=' or 'in'")
			ok = false
		case isType:
			for _, w := range c.Values {
				b.FSTypes = append(b.FSTypes, w.Value)
			}
		default:
			var set, clear uint32
			for _, w := range c.Values {
				o, known := mountOptions[w.Value]
				if !known {
					r.errorf(w.Pos, "AA-MOUNT", "there is no mount option %s", w.Value)
					ok = false
					continue
				}
				set |= o.set
				clear |= o.clear
			}
			if c.Op == CondIn {
				b.OptFlags = append(b.OptFlags, set|clear)
				break
			}
			if n.Kind == Remount {
				set |= MSRemount
			}
			if set&clear != 0 {
				r.errorf(c.Pos, "AA-MOUNT", "these options exclude each other")
				ok = false
			}
			b.Flags = append(b.Flags, set)
		}
	}
	if !ok {
		return nil
	}
	switch {
	case len(b.Flags)+len(b.OptFlags) == 0 && n.Kind == Remount:
		b.Flags, b.OptFlags = []uint32{MSRemount}, []uint32{MSAll &^ (MSMove | MSRemount)}
	case len(b.Flags)+len(b.OptFlags) == 0:
		b.Flags, b.OptFlags = []uint32{MSAll}, []uint32{MSAll}
	case len(b.Flags) == 0 && n.Kind == Remount:
		b.Flags = []uint32{MSRemount}
	case len(b.Flags) == 0:
		b.Flags = []uint32{0}
	case len(b.OptFlags) == 0:
		b.OptFlags = []uint32{0}
	}
	return b
}

func (r *resolver) pivotRoot(n *MountRule) Body {
	b := &PivotRootBody{Target: n.Profile.Value}
	b.NewRoot = Opt{Value: n.Target.Value, Set: !n.Target.IsZero()}
	if len(n.Conds) > 0 {
		// The parser keeps the last condition written and forgets the others.
		c := n.Conds[len(n.Conds)-1]
		if c.Name.Value != "oldroot" {
			r.errorf(c.Name.Pos, "AA-MOUNT", "%s is no condition of pivot_root rules", c.Name.Value)
			return nil
		}
		if len(c.Values) > 0 {
			b.OldRoot = Opt{Value: c.Values[0].Value, Set: true}
		}
	}
	return b
}

// labelHasNamespace tells whether a label is ":ns:name" or ":ns://name", with a
// & in front or not.
func labelHasNamespace(s string) bool {
	_, ns, _, err := parseLabel(s)
	return err == "" && ns != ""
}

// parseLabel takes a label apart.
//
// Source: parser/parser_misc.c, _parse_label.
func parseLabel(s string) (stack bool, ns, name, err string) {
	s, stack = strings.CutPrefix(s, "&")
	if !strings.HasPrefix(s, ":") {
		if s == "" {
			return stack, "", "", "the name of the profile is empty"
		}
		return stack, "", s, ""
	}
	ns, name, ok := strings.Cut(s[1:], ":")
	name = strings.TrimPrefix(name, "//")
	switch {
	case !ok:
		err = "the namespace does not end: ':' is missing"
	case ns == "":
		err = "the namespace is empty"
	case name == "":
		err = "the name of the profile is empty"
	}
	return stack, ns, name, err
}
