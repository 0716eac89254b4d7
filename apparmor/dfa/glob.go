// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"fmt"
	"strings"
)

// GlobKind says which wildcards a glob uses.
type GlobKind uint8

// Kinds of glob, from the most specific.
const (
	GlobLiteral GlobKind = iota // no wildcard
	GlobTail                    // literal, then ** at the end
	GlobRegex                   // anything else
)

// Glob is a converted glob.
type Glob struct {
	Regex string   // expression text for Arena.Parse
	Kind  GlobKind //
	// Prefix is the length in bytes of what stands before the first wildcard;
	// 0 without wildcards.
	Prefix int
}

// A GlobError says why a glob is malformed.
type GlobError struct {
	Offset int // in bytes of the glob, from 0
	Msg    string
}

func (e *GlobError) Error() string { return e.Msg }

// maxAltDepth is how deep {} may nest. Source: parser/parser_regex.c, MAX_ALT_DEPTH.
const maxAltDepth = 50

// ConvertGlob translates an AppArmor glob to expression text, appending to what
// prefix already holds (a "/" at its end makes a following "*" a whole path
// component). With nullOK the wildcards also match the NUL byte, as the values
// of extended attributes and abstract socket addresses need.
//
// The translation keeps the reference parser's corners on purpose, because a
// profile's meaning depends on them: [^x] matches "/", and "*" and "?" are
// wildcards' text even between brackets.
//
// Source: parser/parser_regex.c, convert_aaregex_to_pcre.
func ConvertGlob(prefix, glob string, nullOK bool) (Glob, error) {
	one, many, all := `[^/\x00]`, `[^/\x00]*`, `[^\x00]*`
	if nullOK {
		one, many, all = `[^/]`, `[^/]*`, `.*`
	}
	var out strings.Builder
	out.Grow(len(prefix) + len(glob) + 16)
	out.WriteString(prefix)
	last := byte(0)
	if prefix != "" {
		last = prefix[len(prefix)-1]
	}
	write := func(s string) {
		out.WriteString(s)
		last = s[len(s)-1]
	}
	put := func(c byte) {
		out.WriteByte(c)
		last = c
	}
	g := Glob{}
	wildcard := func(at int, kind GlobKind) {
		if g.Prefix == 0 {
			g.Prefix = at
		}
		g.Kind = kind
	}
	fail := func(at int, format string, args ...any) (Glob, error) {
		return Glob{}, &GlobError{Offset: at, Msg: fmt.Sprintf(format, args...)}
	}

	var depth, openAt, classAt int
	var items [maxAltDepth]int
	inClass, escaped := false, false
	for i := 0; i < len(glob); i++ {
		c := glob[i]
		if c == '\\' && !escaped {
			escaped = true
			continue
		}
		switch c {
		case '\\':
			write(`\\`)
		case '*':
			if escaped {
				write(`\*`)
				break
			}
			if last == '/' {
				end := i
				for end < len(glob) && glob[end] == '*' {
					end++
				}
				if end == len(glob) || glob[end] == '/' {
					// A whole component: never the empty name.
					write(one)
				}
			}
			if i+1 < len(glob) && glob[i+1] == '*' {
				kind := GlobRegex
				if i+2 == len(glob) && g.Kind == GlobLiteral {
					kind = GlobTail
				}
				wildcard(i, kind)
				write(all)
				i++
			} else {
				wildcard(i, GlobRegex)
				write(many)
			}
		case '?':
			if escaped {
				put(c)
				break
			}
			wildcard(i, GlobRegex)
			write(one)
		case '[':
			if escaped {
				write(`\[`)
				break
			}
			wildcard(i, GlobRegex)
			inClass, classAt = true, i
			put(c)
		case ']':
			if escaped {
				write(`\]`)
				break
			}
			if !inClass {
				return fail(i, "']' without a matching '['")
			}
			inClass = false
			put(c)
		case '{':
			switch {
			case escaped:
				write(`\{`)
			case inClass:
				put(c)
			default:
				wildcard(i, GlobRegex)
				depth++
				if depth >= maxAltDepth {
					return fail(i, "{} nests deeper than %d", maxAltDepth-1)
				}
				if depth == 1 {
					openAt = i
				}
				items[depth] = 0
				put('(')
			}
		case '}':
			switch {
			case escaped:
				write(`\}`)
			case inClass:
				put(c)
			case depth == 0:
				return fail(i, "'}' without a matching '{'")
			case items[depth] == 0:
				return fail(i, "{} needs at least two alternatives")
			default:
				depth--
				put(')')
			}
		case ',':
			switch {
			case escaped && inClass:
				write(`\,`)
			case !escaped && depth > 0 && !inClass:
				items[depth]++
				put('|')
			default:
				put(c)
			}
		case '^', '$':
			if !inClass {
				put('\\')
			}
			put(c)
		case 0:
			return fail(i, "NUL byte in an expression")
		default:
			switch c {
			case '.', '+', '|', '(', ')':
				put('\\')
			}
			if escaped {
				if _, n := escapeSequence(glob[i:], ""); n > 0 {
					write(`\` + glob[i:i+n])
					i += n - 1
					break
				}
			}
			put(c)
		}
		escaped = false
	}
	switch {
	case inClass:
		return fail(classAt, "'[' is not closed")
	case depth > 0:
		return fail(openAt, "'{' is not closed")
	case escaped:
		return fail(len(glob)-1, `trailing '\'`)
	}
	g.Regex = out.String()
	return g, nil
}

// FilterSlashes collapses runs of slashes, except that exactly two leading ones
// stay: they name a POSIX namespace. Source: parser/parser_regex.c,
// filter_slashes.
func FilterSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	var out strings.Builder
	i := 0
	if strings.HasPrefix(path, "//") && (len(path) == 2 || path[2] != '/') {
		out.WriteString("//")
		i = 2
	}
	slash := false
	for ; i < len(path); i++ {
		if path[i] == '/' && slash {
			continue
		}
		slash = path[i] == '/'
		out.WriteByte(path[i])
	}
	return out.String()
}
