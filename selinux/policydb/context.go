// SPDX-License-Identifier: Apache-2.0

package policydb

import "fmt"

// ContextError says why the policy does not allow a context.
type ContextError struct {
	Context string // as far as it can be printed
	Reason  string
}

func (e *ContextError) Error() string { return fmt.Sprintf("context %s: %s", e.Context, e.Reason) }

// CheckContext reports whether the policy allows a context: user, role and type
// exist, the user may have the role, the role the type, the sensitivities the
// categories and the user the range. The error is a [*ContextError].
//
// Source: security/selinux/ss/policydb.c, policydb_context_isvalid;
// security/selinux/ss/mls.c, mls_context_isvalid.
func (p *Policy) CheckContext(c Context) error {
	if reason := p.contextReason(c); reason != "" {
		return &ContextError{Context: p.ContextString(c), Reason: reason}
	}
	return nil
}

func (p *Policy) contextReason(c Context) string {
	user, role, typ := p.Users.ByValue(uint32(c.User)), p.Roles.ByValue(uint32(c.Role)), p.Types.ByValue(uint32(c.Type))
	switch {
	case user == nil:
		return fmt.Sprintf("no user has the value %d", c.User)
	case role == nil:
		return fmt.Sprintf("no role has the value %d", c.Role)
	case typ == nil:
		return fmt.Sprintf("no type has the value %d", c.Type)
	case typ.Attribute:
		return fmt.Sprintf("%s is an attribute, not a type", typ.Name)
	}
	if c.Role != ObjectRole {
		if !role.Types.HasValue(uint32(c.Type)) {
			return fmt.Sprintf("role %s may not have type %s", role.Name, typ.Name)
		}
		if !user.Roles.HasValue(uint32(c.Role)) {
			return fmt.Sprintf("user %s may not have role %s", user.Name, role.Name)
		}
	}
	if !p.MLS() {
		return ""
	}
	for _, l := range [2]Level{c.Range.Low, c.Range.High} {
		s := p.Sensitivities.ByValue(uint32(l.Sensitivity))
		if s == nil {
			return fmt.Sprintf("no sensitivity has the value %d", l.Sensitivity)
		}
		if !s.Level.Categories.Contains(l.Categories) {
			return fmt.Sprintf("sensitivity %s may not have all of the categories of %s", s.Name, p.LevelString(l))
		}
	}
	if !c.Range.High.Dominates(c.Range.Low) {
		return "the high level does not dominate the low one"
	}
	if c.Role != ObjectRole && !user.Range.Contains(c.Range) {
		return fmt.Sprintf("user %s may have %s only", user.Name, p.RangeString(user.Range))
	}
	return ""
}

// Dominates reports whether l is at least as high as m.
func (l Level) Dominates(m Level) bool {
	return l.Sensitivity >= m.Sensitivity && l.Categories.Contains(m.Categories)
}

// Equal reports whether l and m are the same level.
func (l Level) Equal(m Level) bool {
	return l.Sensitivity == m.Sensitivity && l.Categories.Equal(m.Categories)
}

// Contains reports whether r includes s.
func (r Range) Contains(s Range) bool {
	return s.Low.Dominates(r.Low) && r.High.Dominates(s.High)
}
