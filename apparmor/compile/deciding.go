// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"slices"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// rulesOf gives the rules of one automaton, nil where the profile has none.
func (p *Profile) rulesOf(kind blob.Kind) *rules {
	switch kind {
	case blob.KindFile:
		return p.file
	case blob.KindPolicy:
		return p.policy
	default:
		return p.xmatch
	}
}

// Deciding lists the rules that decide about packed permission bits on an
// input: the denies if one matches, else what allows; with priorities only the
// highest. Empty where no rule says anything.
func (p *Profile) Deciding(kind blob.Kind, input []byte, bits uint32) []*apparmor.ResolvedRule {
	r := p.rulesOf(kind)
	if r == nil {
		return nil
	}
	in := make([]uint16, len(input))
	for i, c := range input {
		in[i] = uint16(c)
	}
	list := make([]dfa.Rule, len(r.entries))
	for i, e := range r.entries {
		list[i] = dfa.Rule{Expr: e.expr, Accept: int32(i)}
	}
	best := -1 << 30
	var out []*apparmor.ResolvedRule
	for _, i := range r.arena.Accepts(list, in) {
		e := r.entries[i]
		g := r.grants[e.grant]
		if e.rule == nil || g.perms&bits == 0 {
			continue
		}
		key := 2 * g.priority
		if g.mode == apparmor.ModeDeny {
			key++
		}
		if key > best {
			best, out = key, out[:0]
		}
		if key == best && !slices.Contains(out, e.rule) {
			out = append(out, e.rule)
		}
	}
	slices.SortFunc(out, func(a, b *apparmor.ResolvedRule) int { return a.ID - b.ID })
	return out
}

// DecidingCapability lists the rules that decide about a capability: the denies
// if there are any, else what allows.
func (p *Profile) DecidingCapability(n int) []*apparmor.ResolvedRule {
	var allow, deny []*apparmor.ResolvedRule
	for _, r := range p.Resolved.Rules {
		body, ok := r.Body.(*apparmor.CapabilityBody)
		switch {
		case !ok || body.Mask&(1<<uint(n)) == 0:
		case r.Mode == apparmor.ModeDeny:
			deny = append(deny, r)
		default:
			allow = append(allow, r)
		}
	}
	if len(deny) > 0 {
		return deny
	}
	return allow
}

// A DeadRule can be left out without any change of what the profile allows,
// denies or logs.
type DeadRule struct {
	Rule *apparmor.ResolvedRule
	// By are rules that, where they meet it, leave it nothing to say; empty for a
	// rule that no input matches.
	By []*apparmor.ResolvedRule
}

// DeadRules finds the rules of the file and policy automata that other rules
// shadow. Each is dead by itself: of two equal rules both are listed. Marked
// capabilities, and rules of classes that the target lacks, are not looked at.
func (p *Profile) DeadRules(limits dfa.Limits) ([]DeadRule, error) {
	alive := map[*apparmor.ResolvedRule]bool{}
	by := map[*apparmor.ResolvedRule][]*apparmor.ResolvedRule{}
	seen := map[*apparmor.ResolvedRule]bool{}
	for _, r := range []*rules{p.file, p.policy} {
		if r == nil || len(r.entries) == 0 {
			continue
		}
		list := make([]dfa.Rule, len(r.entries))
		for i, e := range r.entries {
			list[i] = dfa.Rule{Expr: e.expr, Accept: int32(i)}
			if e.rule != nil {
				seen[e.rule] = true
			}
		}
		// Every combination of expressions that some input meets is labelled
		// once; a rule lives if leaving its expressions out changes one.
		_, err := dfa.Build(r.arena, list, func(ids []int32) (uint32, error) {
			full, err := r.merge(r.grantsOf(ids, nil))
			if err != nil {
				return 0, err
			}
			done := map[*apparmor.ResolvedRule]bool{}
			for _, id := range ids {
				rule := r.entries[id].rule
				if rule == nil || alive[rule] || done[rule] {
					continue
				}
				done[rule] = true
				rest, err := r.merge(r.grantsOf(ids, rule))
				if err != nil || rest != full {
					alive[rule] = true
					continue
				}
				for _, o := range ids {
					if other := r.entries[o].rule; other != nil && other != rule && !slices.Contains(by[rule], other) && len(by[rule]) < 8 {
						by[rule] = append(by[rule], other)
					}
				}
			}
			return 1, nil
		}, limits)
		if err != nil {
			return nil, err
		}
	}
	var out []DeadRule
	for rule := range seen {
		if !alive[rule] && !rule.Implied {
			out = append(out, DeadRule{rule, by[rule]})
		}
	}
	slices.SortFunc(out, func(a, b DeadRule) int { return a.Rule.ID - b.Rule.ID })
	return out, nil
}

// grantsOf gives the grants of entries, without those of one rule.
func (r *rules) grantsOf(ids []int32, without *apparmor.ResolvedRule) []int32 {
	out := make([]int32, 0, len(ids))
	for _, id := range ids {
		if e := r.entries[id]; without == nil || e.rule != without {
			out = append(out, e.grant)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// StateRules lists the rules that a state of an automaton of the compiled policy
// stands for: those that decide on the shortest input that leads through it to
// where something is decided. Empty for the trap and for states that nothing
// reaches.
func (p *Profile) StateRules(kind blob.Kind, state uint32) []*apparmor.ResolvedRule {
	a := map[blob.Kind]*blob.Automaton{blob.KindFile: p.Blob.File, blob.KindPolicy: p.Blob.PolicyDB, blob.KindXMatch: p.Blob.XMatch}[kind]
	if a == nil || state == dfa.Trap || int64(state) >= int64(a.Table.States()) {
		return nil
	}
	to, ok := shortest(a.Table, 1, func(s uint32) bool { return s == state })
	if !ok {
		return nil
	}
	decided := func(s uint32) bool { return a.Table.Accept[s] != 0 }
	beyond := func(s uint32) bool { return s != state && decided(s) }
	// That a class is mediated at all is in the automaton, and of no rule.
	for _, want := range []func(uint32) bool{decided, beyond} {
		from, ok := shortest(a.Table, state, want)
		if !ok {
			return nil
		}
		if rules := p.Deciding(kind, slices.Concat(to, from), ^uint32(0)); len(rules) > 0 {
			return rules
		}
	}
	return nil
}

// shortest is a shortest input that leads from a state to one that is wanted.
func shortest(t *dfa.Table, start uint32, want func(uint32) bool) ([]byte, bool) {
	type step struct {
		from uint32
		by   byte
	}
	came := map[uint32]step{start: {}}
	for queue := []uint32{start}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if want(s) {
			var input []byte
			for s != start {
				input = append(input, came[s].by)
				s = came[s].from
			}
			slices.Reverse(input)
			return input, true
		}
		for c := range 256 {
			next := t.Step(s, c)
			if _, seen := came[next]; next != dfa.Trap && !seen {
				came[next] = step{s, byte(c)}
				queue = append(queue, next)
			}
		}
	}
	return nil, false
}
