// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"errors"
	"fmt"
)

// A RegexError says where an expression's text is malformed.
type RegexError struct {
	Offset int // in bytes, from 0
	Msg    string
}

func (e *RegexError) Error() string {
	return fmt.Sprintf("expression, offset %d: %s", e.Offset, e.Msg)
}

// ErrDepth is returned for expressions that nest deeper than 1000 groups.
var ErrDepth = errors.New("expression nests too deep")

const maxRegexDepth = 1000

// Parse reads an expression in the restricted regular language of AppArmor's
// back end: . * + | ( ) [ ] and escapes; no anchors, no counts. Bytes above
// 127 stand for themselves. The second result is true when the expression has
// no wildcard (no repetition, class or dot), which gives its exec rule
// precedence over rules with wildcards.
//
// Source: parser/libapparmor_re/parse.y (grammar), aare_rules.cc, add_rule_vec
// (exactness).
func (a *Arena) Parse(s string) (Expr, bool, error) {
	p := regexParser{a: a, s: s, exact: true}
	e, err := p.alternatives(0)
	if err != nil {
		return Empty, false, err
	}
	if p.pos < len(s) {
		return Empty, false, p.fail("unexpected %q", s[p.pos])
	}
	return e, p.exact, nil
}

type regexParser struct {
	a     *Arena
	s     string
	pos   int
	exact bool
}

func (p *regexParser) fail(format string, args ...any) error {
	return &RegexError{Offset: p.pos, Msg: fmt.Sprintf(format, args...)}
}

func (p *regexParser) alternatives(depth int) (Expr, error) {
	if depth > maxRegexDepth {
		return Empty, ErrDepth
	}
	var alts []Expr
	for {
		e, err := p.sequence(depth)
		if err != nil {
			return Empty, err
		}
		alts = append(alts, e)
		if p.pos >= len(p.s) || p.s[p.pos] != '|' {
			return p.a.AltList(alts), nil
		}
		p.pos++
	}
}

func (p *regexParser) sequence(depth int) (Expr, error) {
	var terms []Expr
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		if c == '|' || c == ')' {
			break
		}
		e, err := p.term(depth)
		if err != nil {
			return Empty, err
		}
		if p.pos < len(p.s) && (p.s[p.pos] == '*' || p.s[p.pos] == '+') {
			p.exact = false
			if p.s[p.pos] == '*' {
				e = p.a.Star(e)
			} else {
				e = p.a.Plus(e)
			}
			p.pos++
		}
		terms = append(terms, e)
	}
	e := Epsilon
	for i := len(terms) - 1; i >= 0; i-- {
		e = p.a.Cat(terms[i], e)
	}
	return e, nil
}

func (p *regexParser) term(depth int) (Expr, error) {
	c := p.s[p.pos]
	switch c {
	case '*', '+':
		return Empty, p.fail("nothing to repeat before %q", c)
	case '.':
		p.pos++
		p.exact = false
		var all Set
		all.Invert()
		return p.a.Class(all), nil
	case '(':
		start := p.pos
		p.pos++
		e, err := p.alternatives(depth + 1)
		if err != nil {
			return Empty, err
		}
		if p.pos >= len(p.s) {
			p.pos = start
			return Empty, p.fail("group is not closed")
		}
		p.pos++
		return e, nil
	case '[':
		p.exact = false
		return p.class()
	case '\\':
		return p.a.Byte(p.escape()), nil
	default:
		p.pos++
		return p.a.Byte(c), nil
	}
}

// class reads a bracket expression. A "]" or "-" first in the class stands for
// itself; "^" inverts when first and is a member when doubled or later.
func (p *regexParser) class() (Expr, error) {
	start := p.pos
	p.pos++
	var s Set
	invert, doubled := false, false
	if p.peek() == '^' {
		invert = true
		p.pos++
		if p.peek() == '^' {
			doubled = true
			s.Add('^')
			p.pos++
		}
	}
	first := !doubled
	for {
		if p.pos >= len(p.s) {
			p.pos = start
			return Empty, p.fail("character class is not closed")
		}
		c := p.s[p.pos]
		if c == ']' && !first {
			break
		}
		if c == '-' && !first {
			return Empty, p.fail("misplaced '-' in character class")
		}
		if c == '^' && first {
			return Empty, p.fail("misplaced '^' in character class")
		}
		lo := p.member()
		first = false
		if p.peek() != '-' {
			s.Add(lo)
			continue
		}
		p.pos++
		if n := p.peek(); n == ']' || n == '-' || n < 0 {
			return Empty, p.fail("range without an end in character class")
		}
		hi := p.member()
		if lo > hi {
			lo, hi = hi, lo
		}
		for c := int(lo); c <= int(hi); c++ {
			s.Add(byte(c))
		}
	}
	p.pos++
	if invert {
		s.Invert()
	}
	return p.a.Class(s), nil
}

func (p *regexParser) peek() int {
	if p.pos < len(p.s) {
		return int(p.s[p.pos])
	}
	return -1
}

func (p *regexParser) member() byte {
	c := p.s[p.pos]
	if c == '\\' {
		return p.escape()
	}
	p.pos++
	return c
}

// escape reads an escape sequence; a backslash before anything that is none
// stands for itself.
func (p *regexParser) escape() byte {
	c, n := escapeSequence(p.s[p.pos+1:], regexSpecial)
	if n == 0 {
		p.pos++
		return '\\'
	}
	p.pos += 1 + n
	return c
}

const regexSpecial = "*+.|^$-[](){}"

// escapeSequence reads what follows a backslash: octal (up to three digits),
// \x hexadecimal (up to two), \d decimal (up to three), the C letters, a
// backslash or a double quote, or any byte of special. It returns the byte and
// how much was read; 0 when it is no escape.
//
// Source: parser/lib.c, strn_escseq.
func escapeSequence(s, special string) (byte, int) {
	if s == "" {
		return 0, 0
	}
	switch c := s[0]; c {
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return number(s, 8, 3, 0)
	case 'x':
		return number(s[1:], 16, 2, 1)
	case 'd':
		return number(s[1:], 10, 3, 1)
	case 'a':
		return '\a', 1
	case 'e':
		return 0o33, 1
	case 'f':
		return '\f', 1
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case '\\', '"':
		return c, 1
	default:
		for i := range len(special) {
			if special[i] == c {
				return c, 1
			}
		}
	}
	return 0, 0
}

// number reads up to limit digits; a digit that would take the value over 255
// ends it.
func number(s string, base, limit, prefix int) (byte, int) {
	v, n := 0, 0
	for n < limit && n < len(s) {
		d := 99
		switch c := s[n]; {
		case c >= '0' && c <= '9':
			d = int(c - '0')
		case c >= 'a' && c <= 'f':
			d = int(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = int(c-'A') + 10
		}
		if d >= base || v*base+d > 255 {
			limit = n
			continue
		}
		v = v*base + d
		n++
	}
	if n == 0 {
		return 0, 0
	}
	return byte(v), prefix + n
}
