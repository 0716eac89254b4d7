// SPDX-License-Identifier: Apache-2.0

package diag

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxShown     = 50  // diagnostics that Render prints; the rest are counted
	maxLineShown = 160 // bytes of a source line that are printed around the caret
)

// Source returns the text of a file that diagnostics point into. It may return
// false, and the source line is then left out.
type Source func(file string) (text []byte, ok bool)

// Render writes the list for a person: position, severity, message, the source
// line with a caret below the span, related places, and the fix. Long lines are
// cut around the caret, and at most 50 diagnostics are shown.
func Render(w io.Writer, l List, src Source) error {
	var b bytes.Buffer
	for i, d := range l {
		if i == maxShown {
			fmt.Fprintf(&b, "… and %d more\n", len(l)-maxShown)
			break
		}
		if s := d.Span.String(); s != "" {
			fmt.Fprintf(&b, "%s: ", s)
		}
		fmt.Fprintf(&b, "%s: %s", d.Severity, d.Message)
		if d.Code != "" {
			fmt.Fprintf(&b, " [%s]", d.Code)
		}
		b.WriteByte('\n')
		excerpt(&b, d.Span, src)
		for _, r := range d.Related {
			fmt.Fprintf(&b, "  %s: %s\n", r.Span, r.Message)
		}
		if d.Fix != nil {
			fmt.Fprintf(&b, "  fix: %s\n", d.Fix.Message)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func excerpt(b *bytes.Buffer, at Span, src Source) {
	if src == nil || !at.IsValid() {
		return
	}
	text, ok := src(at.File)
	if !ok {
		return
	}
	line, ok := lineOf(text, at.Start.Line)
	if !ok {
		return
	}
	col := min(at.Start.Column-1, len(line))
	end := col + 1
	switch {
	case at.End.Line == at.Start.Line && at.End.Column > at.Start.Column:
		end = min(at.End.Column-1, len(line))
	case at.End.Line > at.Start.Line:
		end = len(line)
	}
	from := 0
	if col > maxLineShown/2 {
		from = col - maxLineShown/2
	}
	to := min(len(line), from+maxLineShown)
	for from > 0 && !utf8.RuneStart(line[from]) {
		from--
	}
	shown := printable(line[from:to])
	pad := printable(line[from:min(col, to)])
	carets := utf8.RuneCount(line[min(col, to):max(min(end, to), min(col, to))])
	fmt.Fprintf(b, "  | %s\n  | %s%s\n", shown, blank(pad), strings.Repeat("^", max(1, carets)))
}

// printable keeps hostile source text from steering the terminal.
func printable(line []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError {
			return '\ufffd'
		}
		return r
	}, string(line))
}

// blank keeps tabs, so that the caret stands below its column.
func blank(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, s)
}

func lineOf(text []byte, n int) ([]byte, bool) {
	for i := 1; i < n; i++ {
		nl := bytes.IndexByte(text, '\n')
		if nl < 0 {
			return nil, false
		}
		text = text[nl+1:]
	}
	if nl := bytes.IndexByte(text, '\n'); nl >= 0 {
		text = text[:nl]
	}
	return bytes.TrimSuffix(text, []byte("\r")), true
}
