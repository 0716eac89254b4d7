// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// maxNamed is how many named exec transitions the packed exec index can tell
// apart. Source: parser/immunix.h, AA_EXEC_COUNT.
const maxNamed = 12

// named gives the packed exec index of a named transition.
func (b *build) named(target string) (uint32, error) {
	for i, t := range b.xtable {
		if t == target {
			return uint32(i+4) << execModShift, nil
		}
	}
	if len(b.xtable) == maxNamed {
		return 0, fmt.Errorf("profile %s has more than %d named exec transitions", b.rp.Name, maxNamed)
	}
	b.xtable = append(b.xtable, target)
	return uint32(len(b.xtable)+3) << execModShift, nil
}

// nameTransitions puts the named exec transitions into the parser's order: its list
// of rules begins with the last one.
func (b *build) nameTransitions() {
	for _, r := range slices.Backward(b.rp.Rules) {
		if body, ok := r.Body.(*apparmor.FileBody); ok {
			_, _ = b.exec(body) // one too many is an error of its rule, later
		}
	}
}

// exec packs an exec transition.
func (b *build) exec(body *apparmor.FileBody) (uint32, error) {
	x := body.Exec
	var t uint32
	switch x.Kind {
	case apparmor.ExecNone:
		return 0, nil
	case apparmor.ExecInherit:
		t = execInherit
	case apparmor.ExecUnconfined:
		t = execModUnconf
	case apparmor.ExecProfile:
		t = execModProfile
	case apparmor.ExecChild:
		t = execModChild
	}
	if x.FallbackInherit {
		t |= execInherit
	}
	if x.FallbackUnconfined {
		t |= execPUX
	}
	if x.Unsafe {
		t |= execUnsafe
	}
	if x.Target == "" {
		return t, nil
	}
	if x.Kind == apparmor.ExecChild && x.Target == b.rp.Name+"//"+body.Path {
		// The name that the child would have anyway.
		return t, nil
	}
	index, err := b.named(x.Target)
	return t&^(0xf<<execModShift) | index, err
}

// spread puts permissions where the owner condition wants them.
func spread(o apparmor.Owner, perms uint32) uint32 {
	switch o {
	case apparmor.OwnerOwn:
		return perms
	case apparmor.OwnerOther:
		return perms << otherShift
	}
	return perms | perms<<otherShift
}

// fileRule adds a file rule and its link pair.
// Source: parser/parser_regex.c, process_dfa_entry.
func (b *build) fileRule(r *apparmor.ResolvedRule, body *apparmor.FileBody) error {
	path, err := glob("", dfa.FilterSlashes(body.Path))
	if err != nil {
		return err
	}
	types, err := b.exec(body)
	if err != nil {
		return err
	}
	perms := spread(r.Owner, body.Perms|types)
	if b.s.level == Level3 && types&execInherit != 0 {
		perms |= spread(r.Owner, apparmor.MayMmap)
	}
	g := grant{mode: r.Mode, priority: r.Priority, perms: perms}
	if r.Mode == apparmor.ModeDeny {
		// Both halves of a link have to match, so the first is never denied.
		g.perms &^= linkBits
	}
	g.audit = auditOf(r, g.perms&^execTypes)
	if g.perms != 0 {
		if err := b.file.add(r, g, path); err != nil {
			return err
		}
	}
	link := perms & linkBits
	if link == 0 {
		return nil
	}
	audit := auditOf(r, link)
	target := `/[^/].*`
	subset := true
	if body.LinkTarget != "" && !(b.s.level == Level3 && pathFirst(r)) {
		if target, err = glob("", dfa.FilterSlashes(body.LinkTarget)); err != nil {
			return err
		}
		subset = body.Subset
	}
	if subset {
		link |= link << 1 & apparmor.MayLock
	}
	return b.file.add(r, grant{mode: r.Mode, priority: r.Priority, perms: link, audit: audit}, path, target)
}

// pathFirst tells that a rule was written as "path perms -> name". AppArmor 3
// takes the name for that of a profile even where the permission is link, and
// so lets the link go anywhere.
func pathFirst(r *apparmor.ResolvedRule) bool {
	f, ok := r.Source.(*apparmor.FileRule)
	return ok && !f.PermsFirst
}

// changeProfile adds the three expressions of a change_profile rule: for the
// label at once, for the executable at which the change may happen, and for
// both together.
func (b *build) changeProfile(r *apparmor.ResolvedRule, body *apparmor.ChangeProfileBody) error {
	target := body.Target
	if target == "" {
		target = "**"
	}
	var label []string
	if !b.s.stack {
		if strings.HasPrefix(target, "&") {
			return fmt.Errorf("the target does not support the stacking of profiles: %s", target)
		}
		if strings.HasPrefix(target, ":") {
			ns, rest, ok := strings.Cut(target[1:], ":")
			if !ok {
				return fmt.Errorf("namespace without an end in %q", target)
			}
			n, err := glob("", ns)
			if err != nil {
				return err
			}
			label, target = append(label, n), strings.TrimPrefix(rest, "//")
		}
	}
	t, err := glob("", target)
	if err != nil {
		return err
	}
	label = append(label, t)
	exec := `/[^/\x00][^\x00]*`
	if body.Exec != "" {
		if exec, err = glob("", body.Exec); err != nil {
			return err
		}
	}
	g := grant{mode: r.Mode, priority: r.Priority, perms: changeBit | onexecBit}
	if err := b.file.add(r, g, label...); err != nil {
		return err
	}
	g.perms = onexecBit
	if err := b.file.add(r, g, exec); err != nil {
		return err
	}
	if body.Exec != "" {
		// So that rules with and without unsafe that overlap are a conflict.
		g.perms |= execBits
	}
	if body.Unsafe {
		g.perms |= allUnsafe
	}
	return b.file.add(r, g, append([]string{exec}, label...)...)
}
