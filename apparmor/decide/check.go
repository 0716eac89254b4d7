// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Verdict is the answer to a question about a set of accesses.
type Verdict struct {
	Allowed bool
	// Query is an access of the set that is refused, the shortest one, or, where
	// all are allowed, one that stands for the set. Class byte and match string;
	// empty for capabilities.
	Query []byte
	// Text is Query in words.
	Text string
	// Decision are the answers of the profiles to Query.
	Decision Decision
}

// Check decides whether a label allows all that is wanted. Where the wanted
// rules hold no globs, that is one access of each.
func Check(label []*blob.Profile, w *compile.Wanted, owner bool, explain func(*blob.Profile) Explainer) (Verdict, error) {
	v := Verdict{Allowed: true}
	if w.Empty() {
		v.Text = "the target does not mediate this"
		return v, nil
	}
	ask := func(r Request) bool {
		d := May(label, r, explain)
		v = Verdict{Allowed: d.Allowed, Query: r.query, Text: r.String(), Decision: d}
		return d.Allowed
	}
	for n := range 64 {
		if w.Capabilities&(1<<n) != 0 && !ask(Capability(n)) {
			return v, nil
		}
	}
	for _, l := range w.Links {
		target := l.LinkTarget
		if wildcards(l.Path) || wildcards(target) || target == "" {
			return v, fmt.Errorf("a question about links needs a path and a target without wildcards")
		}
		if !ask(Link(plain(l.Path), plain(target), owner)) {
			return v, nil
		}
	}
	for _, c := range w.Changes {
		if wildcards(c.Target) || wildcards(c.Exec) {
			return v, fmt.Errorf("a question about change_profile needs names without wildcards")
		}
		if !ask(ChangeProfile(plain(c.Target), plain(c.Exec))) {
			return v, nil
		}
	}
	if w.File != nil {
		which, wanted := ownerView, w.Owner
		if !owner {
			which, wanted = otherView, w.Other
		}
		r, err := include(label, which, w.File, wanted, w.FilePacked, owner)
		if err != nil {
			return v, err
		}
		if r != nil && !ask(*r) {
			return v, nil
		}
	}
	if w.Policy != nil {
		r, err := include(label, policyView, w.Policy, w.PolicyPerms, w.PolicyBits, owner)
		if err != nil {
			return v, err
		}
		if r != nil && !ask(*r) {
			return v, nil
		}
	}
	return v, nil
}

// include gives the shortest wanted access that the label refuses, else the
// shortest wanted one at all.
func include(label []*blob.Profile, which int, want *dfa.DFA, perms []blob.Perms, packed []uint32, owner bool) (*Request, error) {
	v, err := stackViews(label, which)
	if err != nil {
		return nil, err
	}
	var any, refused *Request
	request := func(in []uint16, l uint32) *Request {
		q := make([]byte, 0, len(in)+1)
		if which != policyView {
			q = append(q, fileClass)
		}
		for _, c := range in {
			q = append(q, byte(c))
		}
		bits := packed[l]
		switch which {
		case ownerView:
			bits &= 1<<14 - 1
		case otherView:
			bits &^= 1<<14 - 1
		}
		return &Request{query: q, perms: perms[l].Allow, packed: bits, owner: owner}
	}
	dfa.Product(want, v.d, func(lw, lv uint32, in func() ([]uint16, uint32, uint32)) bool {
		need := perms[lw].Allow
		if need == 0 {
			return true
		}
		t := v.perms[lv]
		missing := need &^ (t.Allow &^ t.Deny)
		if any == nil || missing != 0 {
			input, _, _ := in()
			r := request(input, lw)
			if any == nil {
				any = r
			}
			if missing != 0 {
				refused = r
				return false
			}
		}
		return true
	})
	if refused != nil {
		return refused, nil
	}
	return any, nil
}

// wildcards tells whether a glob stands for more than one string.
func wildcards(s string) bool {
	g, err := dfa.ConvertGlob("", s, false)
	return err != nil || g.Kind != dfa.GlobLiteral
}

// plain takes the escapes out of a glob without wildcards.
func plain(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	a := dfa.NewArena()
	g, err := dfa.ConvertGlob("", s, false)
	if err != nil {
		return s
	}
	e, _, err := a.Parse(g.Regex)
	if err != nil {
		return s
	}
	if lit, ok := a.Text(e); ok {
		return lit
	}
	return s
}

var fileWords = []struct {
	bit  uint32
	word string
}{
	{blob.MayExec, "exec"},
	{blob.MayWrite, "write"},
	{blob.MayRead, "read"},
	{blob.MayAppend, "append"},
	{blob.MayLink, "link"},
	{blob.MayLock, "lock"},
	{blob.MayMmap, "mmap"},
	{blob.MayOnexec, "change_profile on exec"},
	{blob.MayChangeProfile, "change_profile"},
}

// String is the request in words.
func (r Request) String() string {
	switch r.what {
	case kindCapability:
		return "capability " + apparmor.CapabilityName(r.capability)
	case kindLink:
		return fmt.Sprintf("link %s -> %s", r.query[1:], r.target)
	}
	if r.query[0] != fileClass {
		return Describe(r.query, r.perms)
	}
	var words []string
	for _, w := range fileWords {
		if r.perms&w.bit != 0 && (w.bit != blob.MayAppend || r.perms&blob.MayWrite == 0) {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ") + " " + printable(r.query[1:])
}
