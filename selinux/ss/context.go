// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// Context is a context that a policy allows, resolved to the policy's values. It
// is immutable. Resolve a context once and use it for many questions: decisions
// are cached by the identity of contexts, not by their text.
type Context struct {
	policy *policydb.Policy
	id     uint64
	user   policydb.UserID
	role   policydb.RoleID
	typ    policydb.TypeID
	low    level
	high   level
}

// contextIDs numbers contexts for the decision cache.
var contextIDs atomic.Uint64

// level is a level with its categories as dense words without trailing zeros.
type level struct {
	sens policydb.SensID
	cats []uint64
}

func (l *level) dominates(m *level) bool {
	if l.sens < m.sens || len(l.cats) < len(m.cats) {
		return false
	}
	for i, w := range m.cats {
		if w&^l.cats[i] != 0 {
			return false
		}
	}
	return true
}

func (l *level) equal(m *level) bool {
	if l.sens != m.sens || len(l.cats) != len(m.cats) {
		return false
	}
	for i, w := range m.cats {
		if l.cats[i] != w {
			return false
		}
	}
	return true
}

func (l *level) intersect(m *level) []uint64 {
	n := min(len(l.cats), len(m.cats))
	out := make([]uint64, n)
	for i := range out {
		out[i] = l.cats[i] & m.cats[i]
	}
	return trim(out)
}

func trim(words []uint64) []uint64 {
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	return words
}

// Type returns the value of the context's type.
func (c *Context) Type() policydb.TypeID { return c.typ }

// Role returns the value of the context's role.
func (c *Context) Role() policydb.RoleID { return c.role }

// User returns the value of the context's user.
func (c *Context) User() policydb.UserID { return c.user }

// Values returns the context as values of the policy.
func (c *Context) Values() policydb.Context {
	return policydb.Context{
		User: c.user, Role: c.role, Type: c.typ,
		Range: policydb.Range{Low: c.low.values(), High: c.high.values()},
	}
}

func (l *level) values() policydb.Level {
	var bits []uint32
	for i, w := range l.cats {
		for b := range uint32(64) {
			if w&(1<<b) != 0 {
				bits = append(bits, uint32(i)*64+b)
			}
		}
	}
	return policydb.Level{Sensitivity: l.sens, Categories: policydb.BitmapOf(bits...)}
}

// String prints the context canonically, as the kernel does.
func (c *Context) String() string { return c.policy.ContextString(c.Values()) }

// ContextError says why text is no context of the policy.
type ContextError struct {
	Text   string
	Offset int // bytes from the start of Text, 0-based; -1 when the whole is wrong
	Reason string
	// Near is what may have been meant, "" when nothing is close.
	Near string
}

func (e *ContextError) Error() string {
	text := e.Text
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	s := fmt.Sprintf("context %q: %s", text, e.Reason)
	if e.Offset >= 0 {
		s = fmt.Sprintf("context %q: offset %d: %s", text, e.Offset, e.Reason)
	}
	if e.Near != "" {
		s += fmt.Sprintf(" (did you mean %s?)", e.Near)
	}
	return s
}

// ParseContext resolves the text of a context as the kernel does: every name
// must be in the policy and the whole must be valid. The error is a
// [*ContextError].
//
// Source: security/selinux/ss/services.c, string_to_context_struct;
// security/selinux/ss/mls.c, mls_context_to_sid.
func (s *Server) ParseContext(text string) (*Context, error) {
	p := s.policy
	if len(text) > selinux.MaxContextLength {
		return nil, &ContextError{Text: text, Offset: selinux.MaxContextLength, Reason: fmt.Sprintf("longer than %d bytes", selinux.MaxContextLength)}
	}
	fail := func(offset int, format string, args ...any) (*Context, error) {
		return nil, &ContextError{Text: text, Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	unknown := func(offset int, kind, name string, near string) (*Context, error) {
		return nil, &ContextError{Text: text, Offset: offset, Reason: fmt.Sprintf("the policy has no %s %q", kind, clip(name)), Near: near}
	}
	userName, rest, ok := strings.Cut(text, ":")
	if !ok {
		return fail(-1, "expected user:role:type")
	}
	roleAt := len(userName) + 1
	roleName, rest, ok := strings.Cut(rest, ":")
	if !ok {
		return fail(-1, "expected user:role:type")
	}
	typeAt := roleAt + len(roleName) + 1
	typeName, rangeText, ranged := strings.Cut(rest, ":")
	c := &Context{policy: p}
	user := p.Users.ByName(userName)
	if user == nil {
		return unknown(0, "user", userName, near(userName, &p.Users))
	}
	role := p.Roles.ByName(roleName)
	if role == nil {
		return unknown(roleAt, "role", roleName, near(roleName, &p.Roles))
	}
	typ := p.Types.ByName(typeName)
	if typ == nil {
		return unknown(typeAt, "type", typeName, near(typeName, &p.Types))
	}
	if typ.Attribute {
		return fail(typeAt, "%s is an attribute, not a type", typeName)
	}
	c.user, c.role, c.typ = policydb.UserID(user.Value), policydb.RoleID(role.Value), typ.ID()
	rangeAt := typeAt + len(typeName) + 1
	switch {
	case !p.MLS() && ranged:
		return fail(rangeAt-1, "the policy has no levels")
	case p.MLS() && !ranged:
		return fail(len(text), "expected a level, for example %q", ":"+p.Sensitivities.Name(1))
	case ranged:
		if err := s.parseRange(c, text, rangeAt, rangeText); err != nil {
			return nil, err
		}
	}
	if err := s.checkContext(c); err != "" {
		return fail(-1, "%s", err)
	}
	c.id = contextIDs.Add(1)
	return c, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func (s *Server) parseRange(c *Context, text string, at int, rangeText string) error {
	lowText, highText, two := strings.Cut(rangeText, "-")
	var err error
	if c.low, err = s.parseLevel(text, at, lowText); err != nil {
		return err
	}
	c.high = c.low
	if two {
		c.high, err = s.parseLevel(text, at+len(lowText)+1, highText)
	}
	return err
}

func (s *Server) parseLevel(whole string, at int, text string) (level, error) {
	p := s.policy
	fail := func(offset int, format string, args ...any) (level, error) {
		return level{}, &ContextError{Text: whole, Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	name, cats, more := strings.Cut(text, ":")
	sens := p.Sensitivities.ByName(name)
	if sens == nil {
		return fail(at, "the policy has no sensitivity %q", clip(name))
	}
	l := level{sens: sens.Level.Sensitivity}
	at += len(name) + 1
	for more {
		var item string
		item, cats, more = strings.Cut(cats, ",")
		first, last, span := strings.Cut(item, ".")
		low := p.Categories.ByName(first)
		if low == nil {
			return fail(at, "the policy has no category %q", clip(first))
		}
		high := low
		if span {
			if high = p.Categories.ByName(last); high == nil {
				return fail(at+len(first)+1, "the policy has no category %q", clip(last))
			}
			if high.Value <= low.Value {
				return fail(at, "the categories %s do not ascend", item)
			}
		}
		for v := low.Value; v <= high.Value; v++ {
			bit := v - 1
			for uint32(len(l.cats)) <= bit/64 {
				l.cats = append(l.cats, 0)
			}
			l.cats[bit/64] |= 1 << (bit % 64)
		}
		at += len(item) + 1
	}
	return l, nil
}

// checkContext returns why the policy does not allow the combination, or "".
func (s *Server) checkContext(c *Context) string {
	err := s.policy.CheckContext(c.Values())
	var ce *policydb.ContextError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &ce):
		return ce.Reason
	}
	return err.Error()
}

// Resolve turns values of the policy into a context. The error is a
// [*policydb.ContextError].
func (s *Server) Resolve(v policydb.Context) (*Context, error) {
	if err := s.policy.CheckContext(v); err != nil {
		return nil, err
	}
	c := &Context{policy: s.policy, user: v.User, role: v.Role, typ: v.Type}
	c.low, c.high = denseLevel(v.Range.Low), denseLevel(v.Range.High)
	c.id = contextIDs.Add(1)
	return c, nil
}

func denseLevel(l policydb.Level) level {
	return level{sens: l.Sensitivity, cats: dense(l.Categories)}
}

// dense turns a bitmap into words.
func dense(b policydb.Bitmap) []uint64 {
	n := b.NodeCount()
	if n == 0 {
		return nil
	}
	last, _ := b.Node(n - 1)
	words := make([]uint64, last/64+1)
	for i := range n {
		start, w := b.Node(i)
		words[start/64] = w
	}
	return words
}

// near finds a name of the table that differs by little, for messages.
func near[T policydb.Symbol](name string, t *policydb.Table[T]) string {
	const longest = 64
	if len(name) > longest {
		return ""
	}
	best, bestName := 3, ""
	for i := range t.Entries {
		other := t.Entries[i].EntryName()
		if d := distance(name, other, best); d < best {
			best, bestName = d, other
		}
	}
	return bestName
}

// distance is the edit distance of a and b, or limit when it is not less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal, least := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
			least = min(least, row[j+1])
		}
		if least >= limit {
			return limit
		}
	}
	return min(row[len(b)], limit)
}
