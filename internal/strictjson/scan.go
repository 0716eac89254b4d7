// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// decoder walks a document once.
type decoder struct {
	raw     []byte
	pos     int
	unknown Unknown
	path    []step
	seen    [][]byte // names of the objects that the position is in
}

// fail returns an error at a position.
func (d *decoder) fail(at int, reason error, format string, args ...any) error {
	at = min(at, len(d.raw))
	before := d.raw[:at]
	return &decodeError{
		Line:   bytes.Count(before, []byte("\n")) + 1,
		Column: at - bytes.LastIndexByte(before, '\n'),
		Path:   pathString(d.path),
		Err:    fmt.Errorf("%w: "+format, append([]any{reason}, args...)...),
	}
}

// found names what stands at the position, for errors.
func (d *decoder) found() string {
	if d.pos >= len(d.raw) {
		return "the end"
	}
	return fmt.Sprintf("%q", rune(d.raw[d.pos]))
}

func (d *decoder) space() {
	for d.pos < len(d.raw) {
		switch d.raw[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek skips blanks and returns the next byte, 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.pos < len(d.raw) {
		return d.raw[d.pos]
	}
	return 0
}

// list walks an array or object: it calls item for each of its items, with the
// position on the item's first byte.
func (d *decoder) list(end byte, item func() error) error {
	if len(d.path) >= maxDepth {
		return d.fail(d.pos, errDepth, "more than %d levels", maxDepth)
	}
	d.pos++
	if d.peek() == end {
		d.pos++
		return nil
	}
	for {
		d.space()
		if err := item(); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.pos++
			d.space()
		case end:
			d.pos++
			return nil
		default:
			return d.fail(d.pos, errSyntax, "found %s, want ',' or %q", d.found(), rune(end))
		}
	}
}

// member reads the name of a member and the colon behind it. at is where the
// name starts.
func (d *decoder) member() (name []byte, at int, err error) {
	at = d.pos
	if d.pos >= len(d.raw) || d.raw[d.pos] != '"' {
		return nil, at, d.fail(d.pos, errSyntax, "found %s, want the name of a member", d.found())
	}
	if name, err = d.text(); err != nil {
		return nil, at, err
	}
	if d.peek() != ':' {
		return nil, at, d.fail(d.pos, errSyntax, "found %s, want ':'", d.found())
	}
	d.pos++
	d.space()
	return name, at, nil
}

// literal reads true, false or null.
func (d *decoder) literal(word string) error {
	if !bytes.HasPrefix(d.raw[d.pos:], []byte(word)) {
		return d.fail(d.pos, errSyntax, "found %s, want a value", d.found())
	}
	d.pos += len(word)
	return nil
}

// number reads a number and reports whether it is written as an integer.
func (d *decoder) number() (text []byte, integer bool, err error) {
	start := d.pos
	digits := func() bool {
		from := d.pos
		for d.pos < len(d.raw) && d.raw[d.pos]-'0' < 10 {
			d.pos++
		}
		return d.pos > from
	}
	if d.raw[d.pos] == '-' {
		d.pos++
	}
	first := d.pos
	if !digits() {
		return nil, false, d.fail(d.pos, errSyntax, "found %s, want a digit", d.found())
	}
	if d.raw[first] == '0' && d.pos > first+1 {
		return nil, false, d.fail(start, errNumber, "%s has a leading zero", shorten(d.raw[start:d.pos]))
	}
	integer = true
	if d.pos < len(d.raw) && d.raw[d.pos] == '.' {
		integer = false
		d.pos++
		if !digits() {
			return nil, false, d.fail(d.pos, errSyntax, "found %s, want a digit", d.found())
		}
	}
	if d.pos < len(d.raw) && d.raw[d.pos]|0x20 == 'e' {
		integer = false
		d.pos++
		if d.pos < len(d.raw) && (d.raw[d.pos] == '+' || d.raw[d.pos] == '-') {
			d.pos++
		}
		if !digits() {
			return nil, false, d.fail(d.pos, errSyntax, "found %s, want a digit", d.found())
		}
	}
	return d.raw[start:d.pos], integer, nil
}

func shorten(b []byte) string {
	if len(b) > maxPathName {
		return string(b[:maxPathName]) + "…"
	}
	return string(b)
}

// text reads a string and returns its content, which is part of the document
// when the string has no escapes.
func (d *decoder) text() ([]byte, error) {
	start := d.pos + 1
	ascii := true
	for i := start; i < len(d.raw); i++ {
		switch c := d.raw[i]; {
		case c == '"':
			if s := d.raw[start:i]; ascii || utf8.Valid(s) {
				d.pos = i + 1
				return s, nil
			}
			return nil, d.fail(start+invalidAt(d.raw[start:i]), errText, "invalid UTF-8")
		case c == '\\':
			return d.escaped(start, i)
		case c < 0x20:
			return nil, d.fail(i, errText, "control character %#02x in a string", c)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, d.fail(len(d.raw), errSyntax, "string without an end")
}

// invalidAt is the offset of the first byte that is not UTF-8.
func invalidAt(s []byte) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return 0
}

// escaped reads on at the first escape of a string.
func (d *decoder) escaped(start, i int) ([]byte, error) {
	out := append(make([]byte, 0, 2*(i-start)+16), d.raw[start:i]...)
	for i < len(d.raw) {
		switch c := d.raw[i]; {
		case c == '"':
			if !utf8.Valid(d.raw[start:i]) {
				return nil, d.fail(start+invalidAt(d.raw[start:i]), errText, "invalid UTF-8")
			}
			d.pos = i + 1
			return out, nil
		case c < 0x20:
			return nil, d.fail(i, errText, "control character %#02x in a string", c)
		case c != '\\':
			out = append(out, c)
			i++
		case i+1 >= len(d.raw):
			return nil, d.fail(len(d.raw), errSyntax, "string without an end")
		case d.raw[i+1] == 'u':
			r, n, err := d.unicode(i)
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
			i += n
		default:
			plain := unescape(d.raw[i+1])
			if plain == 0 {
				return nil, d.fail(i, errSyntax, "unknown escape \\%c", rune(d.raw[i+1]))
			}
			out = append(out, plain)
			i += 2
		}
	}
	return nil, d.fail(len(d.raw), errSyntax, "string without an end")
}

func unescape(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// unicode reads \uXXXX, or two of them that are a surrogate pair, and returns
// how many bytes they take.
func (d *decoder) unicode(at int) (rune, int, error) {
	r, ok := hex4(d.raw[at:])
	switch {
	case !ok:
		return 0, 0, d.fail(at, errSyntax, "\\u without four hexadecimal digits")
	case r == 0:
		return 0, 0, d.fail(at, errText, "NUL in a string")
	case !utf16.IsSurrogate(r):
		return r, 6, nil
	}
	low, ok := hex4(d.raw[at+6:])
	if pair := utf16.DecodeRune(r, low); ok && pair != unicode.ReplacementChar {
		return pair, 12, nil
	}
	return 0, 0, d.fail(at, errText, "unpaired surrogate \\u%04x", r)
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c-'0' < 10:
			c -= '0'
		case c|0x20-'a' < 6:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// fold maps a name to the one that stands for all names which differ from it in
// case alone, as encoding/json folds names.
//
// Source: encoding/json, foldName; unicode.SimpleFold.
func fold(name []byte) string {
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(name[i:])
		i += n
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				r = next
				break
			}
			r = next
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}
