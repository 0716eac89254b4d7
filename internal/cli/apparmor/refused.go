// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// refused shows on standard error what the kernel did not like about data, at the
// place of the source that it was compiled from, where there is one. The error
// says what stands at the byte that the kernel names.
func (p *openedPolicy) refused(e *answer.Env, data []byte, err error) error {
	var le *securityfs.LoadError
	if !errors.As(err, &le) || le.Info == "" {
		return err
	}
	where := ""
	place := blob.Place{State: -1, Exec: -1, Profile: le.Profile}
	if le.Offset >= 0 {
		place = blob.At(data, le.Offset)
		where = place.String()
		err = fmt.Errorf("%w: %s", err, where)
	}
	if place.Profile == "" {
		place.Profile = le.Profile
	}
	for b, c := range p.compiled {
		if b.Name != place.Profile {
			continue
		}
		spans := placeSpans(c, place, le.Info)
		d := diag.Diagnostic{Code: "AA-REFUSED", Severity: diag.Error, Span: spans[0], Message: fmt.Sprintf("the kernel refuses profile %q: %s", b.Name, le.Info)}
		if where != "" {
			d.Message += " (" + where + ")"
		}
		for _, s := range spans[1:] {
			d.Related = append(d.Related, diag.Related{Span: s, Message: "this rule takes part"})
		}
		if rerr := diag.Render(e.Stderr, diag.List{d}, p.source); rerr != nil {
			return errors.Join(err, rerr)
		}
	}
	return err
}

// placeSpans are the places in the source that a part of the binary policy comes
// from: rules where that is known, else the beginning of the profile. The kernel
// often stops at the beginning of the faulty part, or behind it; then its reason
// says which part it is.
func placeSpans(c *compile.Profile, place blob.Place, info string) []diag.Span {
	var out []diag.Span
	add := func(s diag.Span) {
		if s.IsValid() {
			out = append(out, s)
		}
	}
	decl := c.Resolved.Decl
	part := func(word string) bool { return strings.Contains(place.Field, word) || strings.Contains(info, word) }
	switch {
	case place.Exec >= 0:
		target := ""
		if a := automatonOf(c.Blob, place.Kind); a != nil && place.Exec < len(a.XTable) {
			target = a.XTable[place.Exec]
		}
		for _, r := range c.Resolved.Rules {
			if f, ok := r.Body.(*apparmor.FileBody); ok && target != "" && f.Exec.Target == target {
				add(r.Span)
			}
		}
	case place.State >= 0:
		for _, r := range c.StateRules(place.Kind, uint32(place.State)) {
			add(r.Span)
		}
	case strings.Contains(info, "transition table"):
		for _, r := range c.Resolved.Rules {
			if f, ok := r.Body.(*apparmor.FileBody); ok && f.Exec.Target != "" {
				add(r.Span)
			}
		}
	case part("capabilities"):
		for _, r := range c.Resolved.Rules {
			if _, ok := r.Body.(*apparmor.CapabilityBody); ok {
				add(r.Span)
			}
		}
	case part("resource limits"), part("rlimits"):
		for _, r := range decl.Rules {
			if l, ok := r.(*apparmor.RlimitRule); ok {
				add(l.Span())
			}
		}
	case place.Field == "mode", place.Field == "path_flags", strings.Contains(info, "profile flags"):
		for _, w := range decl.Flags {
			add(w.Pos)
		}
	case place.Automaton && place.Kind == blob.KindXMatch:
		add(decl.Attachment.Pos)
	}
	if len(out) == 0 {
		if out = append(out, decl.Name.Pos); !out[0].IsValid() {
			out[0] = decl.Span()
		}
	}
	return out
}

func automatonOf(p *blob.Profile, kind blob.Kind) *blob.Automaton {
	switch kind {
	case blob.KindFile:
		return p.File
	case blob.KindPolicy:
		return p.PolicyDB
	}
	return p.XMatch
}
