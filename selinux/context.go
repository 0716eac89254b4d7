// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"fmt"
	"strings"
)

// MaxContextLength is the longest text, in bytes, that [ParseContext] reads:
// the size of the page through which the kernel exchanges contexts.
const MaxContextLength = 4096

// Context is a security context: user, role, type and, under a policy with
// MLS or MCS, a range. Contexts are comparable with ==.
type Context struct {
	User string
	Role string
	Type string

	// MLS reports whether the context has a range; without it Range is zero.
	MLS   bool
	Range Range
}

// WithRange returns the context with another range.
func (c Context) WithRange(r Range) Context {
	c.MLS, c.Range = true, r
	return c
}

// WithLevel returns the context with the single-level range of l.
func (c Context) WithLevel(l Level) Context { return c.WithRange(SingleLevel(l)) }

// WithType returns the context with another type.
func (c Context) WithType(typ string) Context {
	c.Type = typ
	return c
}

// String prints the context canonically: "user:role:type" or
// "user:role:type:range".
func (c Context) String() string {
	b := make([]byte, 0, len(c.User)+len(c.Role)+len(c.Type)+32)
	b = append(b, c.User...)
	b = append(append(b, ':'), c.Role...)
	b = append(append(b, ':'), c.Type...)
	if c.MLS {
		b = c.Range.append(append(b, ':'))
	}
	return string(b)
}

// ParseContext reads "user:role:type" or "user:role:type:range" strictly: no
// blanks, no trailing text, names as policy languages define them (a letter or
// '_', then letters, digits, '_', '-', '.'), ranges as in [ParseRange]. The
// error is a [*SyntaxError].
func ParseContext(text string) (Context, error) {
	p := parser{kind: "context", text: text}
	if len(text) > MaxContextLength {
		p.fail(MaxContextLength, fmt.Sprintf("at most %d bytes", MaxContextLength), "more")
		return Context{}, p.err
	}
	var c Context
	c.User = p.name("user")
	p.colon("role")
	c.Role = p.name("role")
	p.colon("type")
	c.Type = p.name("type")
	if p.err == nil && p.accept(':') {
		c.MLS = true
		c.Range = p.mlsRange()
	}
	if err := p.finish(); err != nil {
		return Context{}, err
	}
	return c, nil
}

func (p *parser) colon(next string) {
	if p.err == nil && !p.accept(':') {
		p.fail(p.pos, "':' and a "+next, p.text[p.pos:])
	}
}

func (p *parser) name(what string) string {
	if p.err != nil {
		return ""
	}
	start := p.pos
	for p.pos < len(p.text) && isNameByte(p.text[p.pos], p.pos == start) {
		p.pos++
	}
	if p.pos == start {
		p.fail(start, "a "+what, p.text[start:])
	}
	return p.text[start:p.pos]
}

func isNameByte(c byte, first bool) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		return true
	case '0' <= c && c <= '9', c == '-', c == '.':
		return !first
	}
	return false
}

// SyntaxError says where label text stops being well formed.
type SyntaxError struct {
	Kind     string // what was read: context, range, level or categories
	Text     string // the whole text
	Offset   int    // bytes from the start of Text, 0-based
	Expected string // what should stand there
	Found    string // what stands there; "" at the end of the text
}

// Error says what was expected and found, and where.
func (e *SyntaxError) Error() string {
	found := "the end"
	if e.Found != "" {
		found = quote(e.Found)
	}
	return fmt.Sprintf("parse %s %s: offset %d: expected %s, found %s", e.Kind, quote(e.Text), e.Offset, e.Expected, found)
}

// quote quotes text for a message and cuts what is too long to read.
func quote(text string) string {
	const limit = 80
	if len(text) > limit {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(text[:limit], "?"))
	}
	return fmt.Sprintf("%q", text)
}
