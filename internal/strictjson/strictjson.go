// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads JSON that other programs read too, and accepts only
// what all of them read in the same way.
//
// RFC 8259 leaves open what a repeated member, a number out of range or half a
// surrogate pair means, and decoders differ: encoding/json takes the last of two
// equal members and matches names without regard to case ("proceſs" is
// "process"), while C readers take the first, compare bytes and end a string at
// NUL. [Unmarshal] refuses such documents:
//
//   - a member name that occurs twice in one object, at any depth
//   - a name that equals a member of the Go type only after case folding, and two
//     unknown names that fold to the same
//   - invalid UTF-8, unpaired surrogates, NUL in a string, a byte order mark,
//     anything after the document
//   - a number for an integer that is not written as one, or is out of range
//   - null for what cannot be absent: strings, numbers, booleans, structs
//   - documents over [maxSize] bytes or maxDepth levels
//
// In objects that are maps, such as annotations, only equal names are refused.
//
// [Changes] edits a document that Unmarshal has accepted and leaves every byte
// alone that it does not own.
//
// All functions may be called from several goroutines at once.
package strictjson

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxSize bounds a document in bytes.
	maxSize = 16 << 20
	// maxDepth bounds the nesting of objects and arrays.
	maxDepth = 64
)

// Reasons for a refusal; each [*decodeError] wraps one.
var (
	errSyntax    = errors.New("malformed JSON")
	errText      = errors.New("malformed text")
	errDuplicate = errors.New("duplicate member")
	errFolded    = errors.New("ambiguous member name")
	errUnknown   = errors.New("unknown member")
	errType      = errors.New("wrong type")
	errNumber    = errors.New("ambiguous number")
	errSize      = errors.New("document too large")
	errDepth     = errors.New("document nested too deeply")
)

// decodeError is a document that was refused, with the place of the cause.
type decodeError struct {
	// Line and Column count from 1; Column counts bytes.
	Line, Column int
	// Path leads to the value, "process.args[2]"; empty for the document.
	Path string
	// Err wraps one of the reasons of this package.
	Err error
}

func (e *decodeError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("line %d, column %d: %v", e.Line, e.Column, e.Err)
	}
	return fmt.Sprintf("line %d, column %d: %s: %v", e.Line, e.Column, e.Path, e.Err)
}

func (e *decodeError) Unwrap() error { return e.Err }

// Unknown says what happens to members that the Go type does not have.
type Unknown int

const (
	// AllowUnknown passes over them, once they are well formed and unambiguous.
	AllowUnknown Unknown = iota
	// RefuseUnknown refuses them, with the nearest known name as a hint.
	RefuseUnknown
)

// Unmarshal reads the JSON document raw into the value that v points to, as
// encoding/json does, and refuses what the package comment lists. What the
// document does not mention keeps its value. After an error v may be filled in
// part. The error is an [*decodeError].
//
// Supported are structs, pointers, slices, arrays, maps with string keys,
// strings, booleans, numbers, any, and types with an UnmarshalJSON or
// UnmarshalText of their own. Other types and the tag option ",string" are
// programming errors and panic.
func Unmarshal(raw []byte, v any, unknown Unknown) error {
	d := decoder{raw: raw, unknown: unknown}
	return d.document(target(v))
}

// step is a part of a path: the name of a member, or the index of an element.
type step struct {
	name  string
	index int
}

// maxPathName bounds the part of a name that an error shows.
const maxPathName = 64

func pathString(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		switch {
		case s.index >= 0:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case plainName(s.name):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.name)
		default:
			b.WriteString("[" + show(s.name) + "]")
		}
	}
	return b.String()
}

func plainName(s string) bool {
	if s == "" || len(s) > maxPathName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// show quotes a name for an error, so that a reader sees letters that look like
// others.
func show(s string) string {
	if len(s) > maxPathName {
		return strconv.QuoteToASCII(s[:maxPathName]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
