// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/palisade-sec/palisade/diag"
)

// maxDepth bounds nesting, so that hostile input cannot exhaust the stack.
const maxDepth = 64

// decoder reads JSON straight into the profile, with the position of every
// value. It exists because encoding/json keeps no positions, stops at the first
// wrong type, and takes several times as long on a container's way up.
type decoder struct {
	file  string
	src   string
	pos   int
	depth int
	diags diag.List
	lines []int // offsets at which lines begin
	dead  bool  // the syntax is broken; nothing behind it can be read
}

func newDecoder(file string, data []byte) *decoder {
	d := &decoder{file: file, src: string(data), lines: make([]int, 1, 1024)}
	for i := 0; ; {
		n := strings.IndexByte(d.src[i:], '\n')
		if n < 0 {
			break
		}
		i += n + 1
		d.lines = append(d.lines, i)
	}
	return d
}

// at turns an offset into a position.
func (d *decoder) at(off int) diag.Pos {
	lo, hi := 0, len(d.lines)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; d.lines[mid] <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return diag.Pos{Offset: off, Line: lo + 1, Column: off - d.lines[lo] + 1}
}

func (d *decoder) span(from, to int) diag.Span {
	return diag.Span{File: d.file, Start: d.at(from), End: d.at(to)}
}

func (d *decoder) errorf(from, to int, code, format string, args ...any) {
	d.diags.Errorf(d.span(from, to), code, format, args...)
}

// syntax reports broken JSON once and gives up.
func (d *decoder) syntax(off int, format string, args ...any) {
	if d.dead {
		return
	}
	d.dead = true
	d.errorf(off, min(off+1, len(d.src)), "SEC-JSON", format, args...)
}

func (d *decoder) skipSpace() {
	for d.pos < len(d.src) {
		switch d.src[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek is the next significant byte, 0 at the end.
func (d *decoder) peek() byte {
	d.skipSpace()
	if d.dead || d.pos >= len(d.src) {
		return 0
	}
	return d.src[d.pos]
}

// null consumes a null, if one is next.
func (d *decoder) null() bool {
	if d.peek() == 'n' && strings.HasPrefix(d.src[d.pos:], "null") {
		d.pos += 4
		return true
	}
	return false
}

// enter reads the opening bracket of an object or array, whose reader counts the
// depth down again. It reports another value; null is none.
func (d *decoder) enter(bracket byte, what, kind string) bool {
	if d.null() {
		return false
	}
	if d.peek() != bracket {
		d.wrong(what, kind)
		return false
	}
	if d.depth == maxDepth {
		d.syntax(d.pos, "nested more than %d deep", maxDepth)
		return false
	}
	d.depth++
	d.pos++
	return true
}

// object calls member for each key; member must read the value. It reports a
// value that is no object, and a key that is there twice. null is an empty one.
func (d *decoder) object(what string, member func(key string, from, to int)) bool {
	if !d.enter('{', what, "an object") {
		return false
	}
	defer func() { d.depth-- }()
	var seenBuf [16]string
	seen := seenBuf[:0]
	for first := true; ; first = false {
		switch c := d.peek(); {
		case c == '}' && first:
			d.pos++
			return true
		case c != '"':
			d.syntax(d.pos, "want a quoted key")
			return false
		}
		from := d.pos
		key, ok := d.rawString()
		if !ok {
			return false
		}
		to := d.pos
		for _, s := range seen {
			if s == key {
				d.errorf(from, to, "SEC-DUPLICATE-KEY", "key %q is there twice", key)
				break
			}
		}
		seen = append(seen, key)
		if d.peek() != ':' {
			d.syntax(d.pos, "want ':' behind the key %q", key)
			return false
		}
		d.pos++
		member(key, from, to)
		if d.dead {
			return false
		}
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return true
		default:
			d.syntax(d.pos, "want ',' or '}' in the object")
			return false
		}
	}
}

// array calls element for each element, which must read it. It tells whether
// there was an array; null is none.
func (d *decoder) array(what string, element func()) bool {
	if !d.enter('[', what, "an array") {
		return false
	}
	defer func() { d.depth-- }()
	if d.peek() == ']' {
		d.pos++
		return true
	}
	for {
		element()
		if d.dead {
			return false
		}
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return true
		default:
			d.syntax(d.pos, "want ',' or ']' in the array")
			return false
		}
	}
}

// stringValue reads a string and its place; null is the empty string.
func (d *decoder) stringValue(what string) (s string, from, to int) {
	if d.null() {
		return "", d.pos - 4, d.pos
	}
	if d.peek() != '"' {
		from = d.pos
		d.wrong(what, "a string")
		return "", from, d.pos
	}
	from = d.pos
	s, _ = d.rawString()
	return s, from, d.pos
}

// uintValue reads an unsigned integer below 2^bits.
func (d *decoder) uintValue(what string, bits int) (v uint64, ok bool) {
	c := d.peek()
	from := d.pos
	if c != '-' && (c < '0' || c > '9') {
		d.wrong(what, "a number")
		return 0, false
	}
	text := d.number()
	if d.dead {
		return 0, false
	}
	v, err := strconv.ParseUint(text, 10, 64)
	limit := uint64(math.MaxUint64)
	if bits < 64 {
		limit = 1<<bits - 1
	}
	if err != nil || v > limit {
		d.errorf(from, d.pos, "SEC-NUMBER", "%s: want a whole number from 0 to %d, not %s", what, limit, text)
		return 0, false
	}
	return v, true
}

// wrong reports a value of the wrong type and steps over it.
func (d *decoder) wrong(what, want string) {
	if d.dead {
		return
	}
	from := d.pos
	got := d.kind()
	d.skip()
	if !d.dead {
		to := d.pos
		if nl := strings.IndexByte(d.src[from:to], '\n'); nl >= 0 {
			to = from + nl
		}
		d.errorf(from, to, "SEC-TYPE", "%s: want %s, not %s", what, want, got)
	}
}

func (d *decoder) kind() string {
	switch c := d.peek(); {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == 0:
		return "the end of the text"
	default:
		return "a number"
	}
}

// skip reads any value and forgets it.
func (d *decoder) skip() {
	switch c := d.peek(); {
	case c == '{':
		d.object("", func(string, int, int) { d.skip() })
	case c == '[':
		d.array("", d.skip)
	case c == '"':
		d.rawString()
	case c == '-' || c >= '0' && c <= '9':
		d.number()
	default:
		for _, word := range []string{"true", "false", "null"} {
			if strings.HasPrefix(d.src[d.pos:], word) {
				d.pos += len(word)
				return
			}
		}
		if c == 0 {
			d.syntax(d.pos, "the text ends in the middle")
			return
		}
		d.syntax(d.pos, "want a value")
	}
}

// number consumes a JSON number and returns its text.
func (d *decoder) number() string {
	from := d.pos
	digits := func() bool {
		n := d.pos
		for d.pos < len(d.src) && d.src[d.pos] >= '0' && d.src[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > n
	}
	is := func(set string) bool { return d.pos < len(d.src) && strings.IndexByte(set, d.src[d.pos]) >= 0 }
	if is("-") {
		d.pos++
	}
	zero := is("0")
	intFrom := d.pos
	ok := digits() && (!zero || d.pos == intFrom+1)
	if ok && is(".") {
		d.pos++
		ok = digits()
	}
	if ok && is("eE") {
		d.pos++
		if is("+-") {
			d.pos++
		}
		ok = digits()
	}
	if !ok {
		d.syntax(from, "malformed number")
	}
	return d.src[from:d.pos]
}

// rawString consumes a string literal.
func (d *decoder) rawString() (string, bool) {
	start := d.pos + 1
	for i := start; i < len(d.src); i++ {
		switch c := d.src[i]; {
		case c == '"':
			d.pos = i + 1
			s := d.src[start:i]
			if !utf8.ValidString(s) {
				s = strings.ToValidUTF8(s, "\ufffd")
			}
			return s, true
		case c == '\\':
			return d.escapedString(start, i)
		case c < 0x20:
			d.syntax(i, "control character in a string")
			return "", false
		}
	}
	d.syntax(d.pos, "string without an end")
	return "", false
}

func (d *decoder) escapedString(start, i int) (string, bool) {
	b := []byte(d.src[start:i])
	for i < len(d.src) {
		c := d.src[i]
		switch {
		case c == '"':
			d.pos = i + 1
			return strings.ToValidUTF8(string(b), "\ufffd"), true
		case c < 0x20:
			d.syntax(i, "control character in a string")
			return "", false
		case c != '\\':
			b = append(b, c)
			i++
			continue
		}
		if i+1 >= len(d.src) {
			break
		}
		switch e := d.src[i+1]; e {
		case '"', '\\', '/':
			b = append(b, e)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := d.hex4(i + 2)
			if !ok {
				d.syntax(i, `want four hexadecimal digits behind \u`)
				return "", false
			}
			i += 4
			if utf16.IsSurrogate(r) {
				r2 := rune(-1)
				if strings.HasPrefix(d.src[min(i+2, len(d.src)):], `\u`) {
					r2, _ = d.hex4(i + 4)
				}
				if r = utf16.DecodeRune(r, r2); r != utf8.RuneError {
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			d.syntax(i, "unknown escape in a string")
			return "", false
		}
		i += 2
	}
	d.syntax(d.pos, "string without an end")
	return "", false
}

func (d *decoder) hex4(i int) (rune, bool) {
	if i+4 > len(d.src) {
		return 0, false
	}
	v, err := strconv.ParseUint(d.src[i:i+4], 16, 32)
	return rune(v), err == nil
}

// end reports text behind the value.
func (d *decoder) end() {
	if d.skipSpace(); d.pos < len(d.src) && !d.dead {
		d.syntax(d.pos, "something is behind the end of the profile")
	}
}
