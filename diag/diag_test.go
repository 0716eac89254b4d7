// SPDX-License-Identifier: Apache-2.0

package diag

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func span(file string, line, col, endCol int) Span {
	return Span{File: file, Start: Pos{Line: line, Column: col}, End: Pos{Line: line, Column: endCol}}
}

func TestRender(t *testing.T) {
	text := "profile x {\n\t/etc/** rwq,\n}\n"
	long := strings.Repeat("a", 400) + "!" + strings.Repeat("b", 400)
	src := func(f string) ([]byte, bool) {
		switch f {
		case "p":
			return []byte(text), true
		case "long":
			return []byte(long), true
		case "esc":
			return []byte("a\x1b[31mb"), true
		}
		return nil, false
	}
	tests := []struct {
		name string
		d    Diagnostic
		want string
	}{
		{
			"caret below a tab",
			Diagnostic{Code: "AA-MODE", Severity: Error, Message: "unknown mode 'q'", Span: span("p", 2, 12, 13)},
			"p:2:12: error: unknown mode 'q' [AA-MODE]\n  | \t/etc/** rwq,\n  | \t          ^\n",
		},
		{"no place", Diagnostic{Severity: Warning, Message: "empty"}, "warning: empty\n"},
		{"unknown file", Diagnostic{Message: "m", Span: span("q", 1, 1, 2)}, "q:1:1: note: m\n"},
		{"line past the end", Diagnostic{Severity: Error, Message: "m", Span: span("p", 9, 1, 2)}, "p:9:1: error: m\n"},
		{
			"column past the end",
			Diagnostic{Severity: Error, Message: "m", Span: span("p", 1, 99, 100)},
			"p:1:99: error: m\n  | profile x {\n  |            ^\n",
		},
		{
			"control characters",
			Diagnostic{Severity: Error, Message: "m", Span: span("esc", 1, 1, 2)},
			"esc:1:1: error: m\n  | a\ufffd[31mb\n  | ^\n",
		},
		{
			"related and fix",
			Diagnostic{Severity: Error, Message: "m", Related: []Related{{span("p", 1, 1, 8), "declared here"}}, Fix: &Fix{Message: "drop q"}},
			"error: m\n  p:1:1: declared here\n  fix: drop q\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Render(&b, List{tt.d}, src); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", b.String(), tt.want)
			}
		})
	}
	var b bytes.Buffer
	if err := Render(&b, List{{Severity: Error, Message: "m", Span: span("long", 1, 401, 402)}}, src); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > maxLineShown+8 {
			t.Errorf("line of %d bytes printed", len(line))
		}
	}
	if !strings.Contains(b.String(), "a!b") {
		t.Error("the cut line does not show the place")
	}
}

func TestList(t *testing.T) {
	var l List
	if l.Err() != nil {
		t.Error("empty list is an error")
	}
	l.Warnf(Span{}, "W", "careful")
	if l.Err() != nil {
		t.Error("a warning is an error")
	}
	l.Errorf(span("b", 2, 1, 2), "E2", "second")
	l.Errorf(span("a", 1, 1, 2), "E1", "first")
	l.Errorf(span("a", 1, 1, 2), "E1", "first")
	s := l.Sorted()
	if len(s) != 3 || s[1].Code != "E1" || s[2].Code != "E2" {
		t.Errorf("sorted: %v", s)
	}
	if got := s.Error(); got != "a:1:1: first (and 1 more)" {
		t.Errorf("Error() = %q", got)
	}
	var d Diagnostic
	if !errors.As(l.Err(), &d) {
		t.Error("no diagnostic inside the error")
	}
}

func FuzzRender(f *testing.F) {
	f.Add("profile x {\n", 1, 3, 1, 5)
	f.Add("\xff\t\x1b", 1, 2, 3, 1)
	f.Fuzz(func(t *testing.T, text string, line, col, endLine, endCol int) {
		if line < 1 || col < 1 {
			return
		}
		d := Diagnostic{Severity: Error, Message: "m", Span: Span{File: "f", Start: Pos{Line: line, Column: col}, End: Pos{Line: endLine, Column: endCol}}}
		var b bytes.Buffer
		if err := Render(&b, List{d}, func(string) ([]byte, bool) { return []byte(text), true }); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsRune(b.Bytes(), 0x1b) {
			t.Error("escape character passed through")
		}
	})
}
