// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"strings"
)

// decode removes the quotes of a token and decodes its escapes. An escape that
// stands for a glob character stays one escaped character, so that it does not
// become special; an unknown escape stays as it is.
//
// Source: parser/parser_misc.c, processunquoted.
func decode(s string) string {
	if len(s) > 0 && s[0] == '"' {
		if len(s) < 2 {
			s = ""
		} else {
			s = s[1 : len(s)-1]
		}
	}
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			i++
			continue
		}
		c, n := escape(s[i+1:])
		switch {
		case n == 0:
			b.WriteByte('\\')
			i++
			continue
		case c == 0:
			b.WriteString(s[i : i+1+n])
		case strings.IndexByte("*?[]{}^,\\", c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
		i += 1 + n
	}
	return b.String()
}

// escape decodes what follows a backslash: octal \ooo, decimal \dnnn, hex \xhh
// and the letters of C. n is how many bytes it takes, 0 when it is no escape.
func escape(s string) (c byte, n int) {
	if s[0] >= '0' && s[0] <= '7' {
		return number(s, 8, 3)
	}
	switch s[0] {
	case '\\', '"':
		return s[0], 1
	case 'd':
		if c, n = number(s[1:], 10, 3); n > 0 {
			n++
		}
		return c, n
	case 'x':
		if c, n = number(s[1:], 16, 2); n > 0 {
			n++
		}
		return c, n
	case 'a':
		return '\a', 1
	case 'e':
		return 0x1b, 1
	case 'f':
		return '\f', 1
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	}
	return 0, 0
}

// number reads up to limit digits as long as the value stays below 256.
func number(s string, base, limit int) (byte, int) {
	v, n := 0, 0
	for n < len(s) && n < limit {
		d := 99
		switch c := s[n]; {
		case isDigit(c):
			d = int(c - '0')
		case isAlpha(c):
			d = int(c|0x20-'a') + 10
		}
		if d >= base || v*base+d > 255 {
			break
		}
		v = v*base + d
		n++
	}
	return byte(v), n
}

// quoteWord writes a value so that it reads back as the same value: bare where
// it can be, in quotes otherwise.
func quoteWord(v string) string {
	plain := v != "" && v[0] != '#'
	for i := 0; i < len(v) && plain; i++ {
		c := v[i]
		plain = class[c]&clsID != 0 && c > ' ' && c < 0x7f && c != '(' && c != ')' && c != '='
	}
	if plain && decode(v) == v {
		return v
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			b.WriteString(`\042`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		case c == '\\' && i+1 < len(v):
			// A backslash in a value escapes what follows it already, but must
			// not form an escape that would be decoded.
			code, n := escape(v[i+1:])
			if n > 0 && code != 0 && v[i+1] != '\\' {
				b.WriteString(`\134`)
			} else {
				// What follows goes out as it is: an escape of it would join up
				// with this backslash.
				b.WriteByte(c)
				i++
				b.WriteByte(v[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
