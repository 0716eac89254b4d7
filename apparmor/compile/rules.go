// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// grant is what a match of an expression means. Expressions with equal grants
// share one accepting state.
type grant struct {
	mode     apparmor.Mode
	exact    bool // no wildcard: dominates the exec transition of others
	priority int
	perms    uint32 // packed as in the accept table
	audit    uint32 // of deny: quiet
}

// entry is one expression of an automaton and the rule that it comes from.
type entry struct {
	expr  dfa.Expr
	grant int32
	rule  *apparmor.ResolvedRule // nil: a mark that the class is mediated
}

// rules collect the expressions of one automaton.
type rules struct {
	c       *Compiler
	arena   *dfa.Arena
	level   Level
	file    bool
	entries []entry
	grants  []grant
	ids     map[grant]int32

	labels []label // of the built automaton; index 0: nothing
	byWhat map[label]uint32
	dfa    *dfa.DFA
}

// label is what an accepting state of a built automaton means: the values of
// the two old accept tables, and what is to be prompted for.
type label struct {
	accept, accept2, prompt uint32
}

func newRules(c *Compiler, level Level, file bool) *rules {
	return &rules{c: c, arena: c.arena, level: level, file: file, ids: map[grant]int32{}}
}

// Bits of the packed permissions. Source: parser/immunix.h.
const (
	execInherit    = 1 << 9
	execUnsafe     = 1 << 8
	execPUX        = 1 << 7
	execModShift   = 10
	execModUnconf  = 1 << execModShift
	execModProfile = 2 << execModShift
	execModChild   = 3 << execModShift
	execTypeMask   = execUnsafe | execInherit | execPUX | 0xf<<execModShift

	otherShift  = 14
	userMask    = 1<<otherShift - 1
	execBits    = apparmor.MayExec | apparmor.MayExec<<otherShift
	execTypes   = execTypeMask | execTypeMask<<otherShift
	linkBits    = apparmor.MayLink | apparmor.MayLink<<otherShift
	allUnsafe   = execUnsafe | execUnsafe<<otherShift
	onexecBit   = 1 << 30
	changeBit   = 1 << 31
	contMatch   = 1 << 28
	mediatesBit = 4 // read: the class is mediated
)

// packAudit packs audit and quiet bits, seven of each for user and other.
func packAudit(audit, quiet uint32) uint32 { return audit&0x1fc07f | quiet&0x1fc07f<<7 }

// expr parses expression text, once for all profiles.
func (r *rules) expr(text string) (dfa.Expr, bool, error) {
	if e, ok := r.c.exprs[text]; ok {
		return e.expr, e.exact, nil
	}
	e, exact, err := r.arena.Parse(text)
	if err != nil {
		return dfa.Empty, false, err
	}
	r.c.exprs[text] = cachedExpr{e, exact}
	return e, exact, nil
}

// add adds the concatenation of parts, separated by NUL.
func (r *rules) add(rule *apparmor.ResolvedRule, g grant, parts ...string) error {
	e := dfa.Epsilon
	exact := true
	for i := len(parts) - 1; i >= 0; i-- {
		p, x, err := r.expr(parts[i])
		if err != nil {
			return err
		}
		exact = exact && x
		e = r.arena.Cat(p, e)
		if i > 0 {
			e = r.arena.Cat(r.arena.Byte(0), e)
		}
	}
	g.exact = exact && r.file && g.perms&execBits != 0 && g.mode != apparmor.ModeDeny
	if r.level == Level3 {
		g.priority = 0
	}
	id, ok := r.ids[g]
	if !ok {
		id = int32(len(r.grants))
		r.ids[g] = id
		r.grants = append(r.grants, g)
	}
	r.entries = append(r.entries, entry{e, id, rule})
	return nil
}

// errConflict is returned by build where rules with different exec transitions
// meet.
type errConflict struct{ a, b int32 }

func (e *errConflict) Error() string { return "conflicting exec transitions" }

// build makes the minimal automaton.
func (r *rules) build(limits dfa.Limits) error {
	list := make([]dfa.Rule, len(r.entries))
	for i, e := range r.entries {
		list[i] = dfa.Rule{Expr: e.expr, Accept: e.grant}
	}
	r.labels = []label{{}}
	r.byWhat = map[label]uint32{{}: 0}
	d, err := dfa.Build(r.arena, list, func(accepts []int32) (uint32, error) {
		l, err := r.merge(accepts)
		if err != nil {
			return 0, err
		}
		id, ok := r.byWhat[l]
		if !ok {
			id = uint32(len(r.labels))
			r.byWhat[l] = id
			r.labels = append(r.labels, l)
		}
		return id, nil
	}, limits)
	if err != nil {
		return err
	}
	d = d.Minimize()
	if r.level == Level3 {
		// The start state never carries permissions there.
		d.Label[dfa.Start] = 0
	}
	r.dfa = d
	return nil
}

func consistent(a, b uint32) bool {
	if a&b&apparmor.MayExec != 0 && (a^b)&execTypeMask != 0 {
		return false
	}
	return a&b&(apparmor.MayExec<<otherShift) == 0 || (a^b)&(execTypeMask<<otherShift) == 0
}

func (r *rules) merge(accepts []int32) (label, error) {
	if r.level == Level3 {
		return r.merge3(accepts)
	}
	return r.merge4(accepts)
}

// merge3 unites grants as AppArmor 3 does: allows and denies accumulate, denies
// win, and exact rules decide the exec transition.
// Source: parser 3.0.8, libapparmor_re/hfa.cc, accept_perms.
func (r *rules) merge3(accepts []int32) (label, error) {
	var allow, audit, deny, quiet, exact, exactAudit uint32
	lastAllow, lastExact := int32(-1), int32(-1)
	for _, id := range accepts {
		g := r.grants[id]
		switch {
		case g.exact:
			if !consistent(exact, g.perms) {
				return label{}, &errConflict{lastExact, id}
			}
			exact |= g.perms
			exactAudit |= g.audit
			lastExact = id
		case g.mode == apparmor.ModeDeny:
			deny |= g.perms
			quiet |= g.audit
		default:
			if r.file && !consistent(allow, g.perms) {
				return label{}, &errConflict{lastAllow, id}
			}
			allow |= g.perms
			audit |= g.audit
			if g.perms&execBits != 0 {
				lastAllow = id
			}
		}
	}
	allow |= exact &^ execTypes
	audit |= exactAudit &^ execTypes
	for _, shift := range [...]uint{0, otherShift} {
		types := uint32(execTypeMask) << shift
		if exact&(apparmor.MayExec<<shift) != 0 {
			allow = allow&^types | exact&types
		}
		if r.file && deny&(apparmor.MayExec<<shift) != 0 {
			deny |= types
		}
	}
	return label{accept: allow &^ deny, accept2: packAudit(audit, quiet&deny)}, nil
}

// merge4 unites grants as AppArmor 4 does: for each permission the grants of
// the highest priority count, among them first denies, then for exec the exact
// ones, then allows, then prompts.
// Source: parser 4.1.8, libapparmor_re/hfa.cc, pri_update_perm.
func (r *rules) merge4(accepts []int32) (label, error) {
	var allow, audit, quiet, prompt uint32
	const none = -1 << 30
	var top [32]int
	for bit := range top {
		top[bit] = none
		mask := uint32(1) << bit
		if r.file && mask&execTypes != 0 {
			continue
		}
		key := func(g grant) int {
			switch {
			case g.mode == apparmor.ModeDeny:
				return 4*g.priority + 3
			case g.exact && r.file && mask&execBits != 0:
				return 4*g.priority + 2
			case g.mode == apparmor.ModePrompt:
				return 4 * g.priority
			}
			return 4*g.priority + 1
		}
		for _, id := range accepts {
			if g := r.grants[id]; (g.perms|g.audit)&mask != 0 {
				top[bit] = max(top[bit], key(g))
			}
		}
		if top[bit] == none {
			continue
		}
		all := mask
		if r.file && mask&execBits != 0 {
			all |= mask * execTypeMask
		}
		first := int32(-1)
		for _, id := range accepts {
			g := r.grants[id]
			if (g.perms|g.audit)&mask == 0 || key(g) != top[bit] {
				continue
			}
			if r.file && mask&execBits != 0 && g.perms&mask != 0 && g.mode != apparmor.ModeDeny {
				if first >= 0 && (r.grants[first].perms^g.perms)&all != 0 {
					return label{}, &errConflict{first, id}
				}
				first = id
			}
			switch g.mode {
			case apparmor.ModeDeny:
				quiet |= g.audit & all
			case apparmor.ModePrompt:
				prompt |= g.perms & all
				audit |= g.audit & all
			default:
				allow |= g.perms & all
				audit |= g.audit & all
			}
		}
	}
	if r.file {
		// ix implies m, unless something stronger decides m.
		for _, shift := range [...]uint{0, otherShift} {
			if allow>>shift&apparmor.MayExec != 0 && allow>>shift&execInherit != 0 && top[6+shift] <= top[shift] {
				allow |= apparmor.MayMmap << shift
			}
		}
	}
	return label{accept: allow, accept2: packAudit(audit, quiet), prompt: prompt}, nil
}

// automaton packs the built automaton. kind says which table of permissions
// the new format needs; it stays the old one for attachments.
func (r *rules) automaton(s support, kind blob.Kind) (*blob.Automaton, error) {
	d := r.dfa
	pack := dfa.Pack
	if s.diffEncode {
		pack = dfa.PackDiff
	}
	if !s.permstable || kind == blob.KindXMatch {
		t, err := pack(d, func(l uint32) (uint32, uint32) { return r.labels[l].accept, r.labels[l].accept2 })
		if err != nil {
			return nil, err
		}
		return &blob.Automaton{Table: t}, r.fits(t, s)
	}
	a := &blob.Automaton{}
	index := make([]uint32, len(r.labels))
	add := func(l label) uint32 {
		i := uint32(len(a.Perms))
		if kind == blob.KindFile {
			own, oth := blob.FilePerms(l.accept, l.accept2)
			po, pt := blob.FilePerms(l.prompt, 0)
			own.Prompt = (po.Allow &^ blob.MayGetattr) &^ own.Allow
			oth.Prompt = (pt.Allow &^ blob.MayGetattr) &^ oth.Allow
			a.Perms = append(a.Perms, own, oth)
		} else {
			p := blob.PolicyPerms(l.accept, l.accept2)
			p.Allow |= blob.MayLock // what kernels of this format expect
			if l.accept&contMatch != 0 {
				p.Allow |= blob.ContMatch
			}
			p.Prompt = blob.PolicyPerms(l.prompt, 0).Allow &^ p.Allow
			a.Perms = append(a.Perms, p)
		}
		return i
	}
	for i, l := range r.labels {
		index[i] = add(l)
	}
	owner := uint32(0)
	if kind == blob.KindFile {
		a.PermsVersion = 3
		owner = 1
	}
	t, err := pack(d, func(l uint32) (uint32, uint32) { return index[l], owner })
	if err != nil {
		return nil, err
	}
	// The trap and the start stand for the first entry.
	for _, s := range []int{dfa.Trap, dfa.Start} {
		t.Accept[s], t.Accept2[s] = 0, 0
	}
	if kind != blob.KindFile {
		t.Accept2 = nil
	}
	a.Table = t
	return a, r.fits(t, s)
}

func (r *rules) fits(t *dfa.Table, s support) error {
	if t.Wide && !s.state32 {
		return fmt.Errorf("%w: %d states, the kernel takes %d", dfa.ErrTooBig, t.States(), dfa.MaxStates16)
	}
	return nil
}

// overlapping finds two rules with the grants of a conflict whose expressions
// meet.
func (r *rules) overlapping(c *errConflict) (a, b *apparmor.ResolvedRule) {
	for _, x := range r.entries {
		if x.grant != c.a {
			continue
		}
		for _, y := range r.entries {
			if y.grant != c.b {
				continue
			}
			met := errors.New("met")
			_, err := dfa.Build(r.arena, []dfa.Rule{{Expr: x.expr, Accept: 0}, {Expr: y.expr, Accept: 1}}, func(ids []int32) (uint32, error) {
				if len(ids) == 2 {
					return 0, met
				}
				return 1, nil
			}, dfa.Limits{States: 1 << 14})
			if errors.Is(err, met) {
				return x.rule, y.rule
			}
		}
	}
	return nil, nil
}
