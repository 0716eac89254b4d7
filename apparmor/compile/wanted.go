// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/diag"
)

// Wanted is what a profile's rules ask for, as automata whose labels index
// Perms: the accesses that another profile is asked to allow.
type Wanted struct {
	File, Policy           *dfa.DFA // nil: nothing of the kind
	Owner, Other           []blob.Perms
	PolicyPerms            []blob.Perms
	Capabilities           uint64
	Links                  []*apparmor.FileBody
	Changes                []*apparmor.ChangeProfileBody
	Classes                []byte // class bytes of Policy's inputs
	FilePacked, PolicyBits []uint32
}

// Want compiles the rules of a profile as a question rather than as policy:
// nothing is mediated by itself, and a network rule without a type stands for
// the types that exist. Only the bare permissions count, not where an exec
// goes.
func Want(p *apparmor.ResolvedProfile, o Options) (*Wanted, diag.List) {
	o.Level = Level4
	c := New(o)
	s := supported(nil, o)
	s.permstable = false
	var list diag.List
	b := &build{
		c: c, s: s, rp: p, list: &list, warned: map[string]bool{}, question: true,
		file: newRules(c, Level4, true), policy: newRules(c, Level4, false),
	}
	w := &Wanted{}
	for _, r := range p.Rules {
		if r.Implied {
			continue
		}
		var err error
		switch body := r.Body.(type) {
		case *apparmor.FileBody:
			if body.Perms == apparmor.MayLink {
				w.Links = append(w.Links, body)
				continue
			}
			f := *body
			f.Perms &^= apparmor.MayLink
			f.Exec = apparmor.Exec{}
			err = b.fileRule(r, &f)
		case *apparmor.ChangeProfileBody:
			w.Changes = append(w.Changes, body)
		case *apparmor.CapabilityBody:
			w.Capabilities |= body.Mask
		case *apparmor.NetworkBody:
			n := *body
			n.Matches = nil
			for _, m := range body.Matches {
				if m.Types == apparmor.AnyType {
					m.Types = 0x7e
				}
				n.Matches = append(n.Matches, m)
			}
			err = b.network(r, &n)
		default:
			err = b.rule(r)
		}
		if err != nil {
			list.Errorf(r.Span, "AA-RULE", "%s", err)
		}
	}
	if list.HasErrors() {
		return nil, list
	}
	for _, t := range []struct {
		r  *rules
		to **dfa.DFA
	}{{b.file, &w.File}, {b.policy, &w.Policy}} {
		if len(t.r.entries) == 0 {
			continue
		}
		if err := t.r.build(o.Limits); err != nil {
			list.Errorf(diag.Span{}, "AA-TOO-BIG", "%s", err)
			return nil, list
		}
		*t.to = t.r.dfa
	}
	for _, l := range b.file.labels {
		own, oth := blob.FilePerms(l.accept&^uint32(execTypes), 0)
		const asked = blob.MayExec | blob.MayWrite | blob.MayRead | blob.MayAppend | blob.MayLock | blob.MayMmap
		w.Owner = append(w.Owner, blob.Perms{Allow: own.Allow & asked})
		w.Other = append(w.Other, blob.Perms{Allow: oth.Allow & asked})
		w.FilePacked = append(w.FilePacked, l.accept&^uint32(execTypes))
	}
	for _, l := range b.policy.labels {
		w.PolicyPerms = append(w.PolicyPerms, blob.Perms{Allow: blob.PolicyPerms(l.accept, 0).Allow})
		w.PolicyBits = append(w.PolicyBits, l.accept)
	}
	if w.Policy != nil {
		live := w.Policy.Live(func(l uint32) bool { return l != 0 })
		for c := range 256 {
			if live[w.Policy.Next(dfa.Start, c)] {
				w.Classes = append(w.Classes, byte(c))
			}
		}
	}
	return w, list
}

// Empty tells that nothing is asked for: the target has none of the classes.
func (w *Wanted) Empty() bool {
	return w.File == nil && w.Policy == nil && w.Capabilities == 0 && len(w.Links) == 0 && len(w.Changes) == 0
}
