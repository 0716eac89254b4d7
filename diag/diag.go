// SPDX-License-Identifier: Apache-2.0

// Package diag holds the one positioned-diagnostic type that every language
// front end of the module reports through: SELinux CIL, AppArmor profiles,
// seccomp JSON and the policy file.
//
// A parser collects a [List] and returns it whole, so that a person sees all
// errors of a file at once, each with its place, the other places that took
// part, and, where the cure is known, an edit that applies it.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a text. The zero Pos means "no place known".
type Pos struct {
	Offset int // bytes from the start of the text, 0-based
	Line   int // 1-based; 0 in a Pos that is not valid
	Column int // bytes from the start of the line, 1-based
}

// IsValid tells whether the position names a place.
func (p Pos) IsValid() bool { return p.Line > 0 }

func (p Pos) String() string {
	if !p.IsValid() {
		return "-"
	}
	return fmt.Sprintf("%d:%d", p.Line, p.Column)
}

// Span is a half-open range of one file: Start is in it, End is not. An End
// that is not valid makes the span a point.
type Span struct {
	File       string // as the user named it; "" when there is none
	Start, End Pos
}

// IsValid tells whether the span names a place.
func (s Span) IsValid() bool { return s.Start.IsValid() }

func (s Span) String() string {
	switch {
	case !s.IsValid():
		return s.File
	case s.File == "":
		return s.Start.String()
	default:
		return s.File + ":" + s.Start.String()
	}
}

// Severity orders diagnostics by how much they matter.
type Severity uint8

// Severities, the most serious last.
const (
	Note Severity = iota
	Warning
	Error
)

func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	default:
		return "error"
	}
}

// MarshalText makes the severity readable in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Related is another place that took part in what a diagnostic says.
type Related struct {
	Span    Span
	Message string
}

// Edit replaces the text of a span.
type Edit struct {
	Span Span
	New  string
}

// Fix is a cure that a person may apply; no part of the module applies one by
// itself.
type Fix struct {
	Message string
	Edits   []Edit
}

// Diagnostic is one finding about a text. It is an error value by itself.
type Diagnostic struct {
	// Code is stable and in capitals, "AA-EXEC-CONFLICT", so that scripts and
	// documentation can name the finding; "" where a finding has no code yet.
	Code     string
	Severity Severity
	Message  string // lower case, no final stop, no position in it
	Span     Span
	Related  []Related
	Fix      *Fix
}

// Error is the message behind its position, on one line.
func (d Diagnostic) Error() string {
	if s := d.Span.String(); s != "" {
		return s + ": " + d.Message
	}
	return d.Message
}

// List is a collection of diagnostics. The zero List is empty and ready to use.
type List []Diagnostic

// Errorf adds an error at a span.
func (l *List) Errorf(at Span, code, format string, args ...any) {
	*l = append(*l, Diagnostic{Code: code, Severity: Error, Message: fmt.Sprintf(format, args...), Span: at})
}

// Warnf adds a warning at a span.
func (l *List) Warnf(at Span, code, format string, args ...any) {
	*l = append(*l, Diagnostic{Code: code, Severity: Warning, Message: fmt.Sprintf(format, args...), Span: at})
}

// HasErrors tells whether at least one diagnostic is an error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Err is the list as an error value, or nil when nothing in it is an error.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return l
}

// Error names the first error and counts the others; [Render] shows them all.
func (l List) Error() string {
	n, first := 0, -1
	for i, d := range l {
		if d.Severity == Error {
			if n++; first < 0 {
				first = i
			}
		}
	}
	switch {
	case len(l) == 0:
		return "no diagnostics"
	case n == 0:
		return l[0].Error()
	case n == 1:
		return l[first].Error()
	default:
		return fmt.Sprintf("%s (and %d more)", l[first].Error(), n-1)
	}
}

// Unwrap gives each diagnostic to errors.Is and errors.As.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, d := range l {
		errs[i] = d
	}
	return errs
}

// Sorted returns the list in order of file and position, without exact repeats.
func (l List) Sorted() List {
	out := slices.Clone(l)
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		return cmp.Or(
			strings.Compare(a.Span.File, b.Span.File),
			cmp.Compare(a.Span.Start.Offset, b.Span.Start.Offset),
			cmp.Compare(a.Span.Start.Line, b.Span.Start.Line),
			cmp.Compare(a.Span.Start.Column, b.Span.Start.Column),
		)
	})
	return slices.CompactFunc(out, func(a, b Diagnostic) bool {
		return a.Span == b.Span && a.Code == b.Code && a.Message == b.Message && a.Severity == b.Severity
	})
}
