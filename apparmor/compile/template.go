// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/diag"
)

// Template is a compiled profile from which profiles for single containers are
// made quickly: under another name, with that name in place of the template's
// own in peers (alone, or as one of several in braces) and child profiles, and
// with further rules. Not safe for
// concurrent use with its compiler.
type Template struct {
	c    *Compiler
	base *Profile
}

// Template compiles a profile as a template.
func (c *Compiler) Template(p *apparmor.Policy, name string) (*Template, error) {
	for _, rp := range p.Profiles {
		if rp.FullName() != name && rp.Name != name {
			continue
		}
		var list diag.List
		base := c.profile(rp, supported(p.ABI, c.opts), &list)
		if err := list.Err(); err != nil {
			return nil, err
		}
		return &Template{c: c, base: base}, nil
	}
	return nil, fmt.Errorf("no profile %q to make a template of", name)
}

// literal escapes a name so that it stands for itself in a glob.
var literal = strings.NewReplacer(
	`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `{`, `\{`, `}`, `\}`,
)

// Specialise makes the profile of one container. Its peers, and labels that it
// may change to, that are exactly the template's name become name. extra are
// further rules; without any the file automaton is the template's.
func (t *Template) Specialise(name string, extra ...*apparmor.ResolvedRule) (*Profile, error) {
	if name == "" || strings.ContainsAny(name, "\x00\n") {
		return nil, errors.New("a profile needs a name of one line")
	}
	old, base := t.base.Resolved.Name, t.base
	rp := *base.Resolved
	rp.Name, rp.Local = name, name
	glob := literal.Replace(name)
	files := false // the file automaton has to be built anew
	rp.Rules = make([]*apparmor.ResolvedRule, 0, len(base.Resolved.Rules)+len(extra))
	for _, r := range base.Resolved.Rules {
		n := renamed(r, old, glob)
		if _, ok := n.Body.(*apparmor.ChangeProfileBody); ok && n != r {
			files = true
		}
		rp.Rules = append(rp.Rules, n)
	}
	for _, r := range extra {
		r := *r
		r.ID = len(rp.Rules)
		rp.Rules = append(rp.Rules, &r)
		switch r.Body.(type) {
		case *apparmor.FileBody, *apparmor.ChangeProfileBody:
			files = true
		}
	}
	if t.c.arena.Len() > maxShared {
		t.c.reset()
	}
	var list diag.List
	b := &build{
		c: t.c, s: base.support, rp: &rp, list: &list, warned: map[string]bool{},
		file: newRules(t.c, base.support.level, true), policy: newRules(t.c, base.support.level, false), xmatch: base.xmatch,
	}
	bp := b.header()
	bp.Xattrs, bp.XMatch, bp.XMatchLen = base.Blob.Xattrs, base.Blob.XMatch, base.Blob.XMatchLen
	b.mergeMounts()
	for _, r := range rp.Rules {
		switch r.Body.(type) {
		case *apparmor.FileBody, *apparmor.ChangeProfileBody:
			if !files {
				continue
			}
		}
		if r.Mode == apparmor.ModePrompt && !b.s.permstable {
			continue
		}
		if err := b.rule(r); err != nil {
			return nil, err
		}
	}
	b.networkTotals()
	b.mediates()
	b.automata(bp, diag.Span{})
	if err := list.Err(); err != nil {
		return nil, err
	}
	if !files {
		b.file = base.file
		bp.File = base.Blob.File
	}
	for _, a := range []**blob.Automaton{&bp.File, &bp.PolicyDB} {
		if *a == nil || !slices.ContainsFunc((*a).XTable, func(s string) bool { return strings.HasPrefix(s, old+"//") }) {
			continue
		}
		own := **a
		own.XTable = slices.Clone(own.XTable)
		for i, s := range own.XTable {
			if rest, ok := strings.CutPrefix(s, old+"//"); ok {
				own.XTable[i] = name + "//" + rest
			}
		}
		*a = &own
	}
	return &Profile{Resolved: &rp, Blob: bp, support: base.support, file: b.file, policy: b.policy, xmatch: b.xmatch}, nil
}

// renamed gives the rule with the name in place of the old one as peer or
// target; the same rule where there is none.
func renamed(r *apparmor.ResolvedRule, old, glob string) *apparmor.ResolvedRule {
	same := func(o *apparmor.Opt) bool {
		if !o.Set {
			return false
		}
		was := o.Value
		o.Value = rename(o.Value, old, glob)
		return o.Value != was
	}
	var body apparmor.Body
	switch x := r.Body.(type) {
	case *apparmor.SignalBody:
		if n := *x; same(&n.Peer) {
			body = &n
		}
	case *apparmor.PtraceBody:
		if n := *x; same(&n.Peer) {
			body = &n
		}
	case *apparmor.UnixBody:
		n := *x
		l, p := same(&n.Label), same(&n.PeerLabel)
		if l || p {
			body = &n
		}
	case *apparmor.DBusBody:
		if n := *x; same(&n.PeerLabel) {
			body = &n
		}
	case *apparmor.ChangeProfileBody:
		if x.Target == old {
			n := *x
			n.Target = glob
			body = &n
		}
	}
	if body == nil {
		return r
	}
	out := *r
	out.Body = body
	return &out
}

// rename puts glob in the place of the name old where it stands alone or as one
// of the alternatives in braces, with or without what is stacked on it.
func rename(value, old, glob string) string {
	if value == old {
		return glob
	}
	inner, begins := strings.CutPrefix(value, "{")
	inner, ends := strings.CutSuffix(inner, "}")
	if !begins || !ends || strings.ContainsAny(inner, `{}\`) {
		return value
	}
	words := strings.Split(inner, ",")
	for i, w := range words {
		if rest, ok := strings.CutPrefix(w, old); ok && (rest == "" || strings.HasPrefix(rest, "//")) {
			words[i] = glob + rest
		}
	}
	return "{" + strings.Join(words, ",") + "}"
}
