// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"strings"
)

// Translations maps ranges to the names that people gave them and back, after
// the lines of setrans.conf: "s0:c12,c741=web-frontend". The zero value has no
// names. It is immutable and safe for concurrent use.
type Translations struct {
	names  map[Range]string
	ranges map[string]Range
}

// TranslationError is one line of setrans.conf that cannot be used.
type TranslationError struct {
	Line int // 1-based
	Err  error
}

func (e *TranslationError) Error() string { return fmt.Sprintf("setrans line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause, for example a [*SyntaxError].
func (e *TranslationError) Unwrap() error { return e.Err }

// ParseTranslations reads setrans.conf: one "range=name" a line, '#' begins a
// comment, blanks around range and name do not count. The daemon's directives
// (Base=, Default, Domain, Join, ModifierGroup, Whitespace, Include) are
// skipped: plain names only. All bad lines are reported together, each as a
// [*TranslationError]; the lines that are right are kept in the result.
func ParseTranslations(text string) (Translations, error) {
	t := Translations{names: map[Range]string{}, ranges: map[string]Range{}}
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		left, name, ok := strings.Cut(line, "=")
		left, name = strings.TrimSpace(left), strings.TrimSpace(name)
		if line == "" || isSetransDirective(left) {
			continue
		}
		if err := t.add(left, name, ok); err != nil {
			errs = append(errs, &TranslationError{Line: number, Err: err})
		}
	}
	return t, errors.Join(errs...)
}

func (t Translations) add(text, name string, hasName bool) error {
	if !hasName || name == "" {
		return errors.New("expected range=name")
	}
	if strings.ContainsAny(name, ": \t") {
		return fmt.Errorf("name %q has a blank or a colon", name)
	}
	r, err := ParseRange(text)
	if err != nil {
		return err
	}
	if old, ok := t.ranges[name]; ok && old != r {
		return fmt.Errorf("name %q already means %s", name, old)
	}
	t.ranges[name] = r
	if _, ok := t.names[r]; !ok {
		t.names[r] = name
	}
	return nil
}

func isSetransDirective(word string) bool {
	word, _, _ = strings.Cut(word, " ")
	switch strings.ToLower(word) {
	case "base", "default", "domain", "join", "modifiergroup", "whitespace", "include", "prefix", "suffix":
		return true
	}
	return false
}

// Name returns the name of r; without one it is the canonical text of r.
func (t Translations) Name(r Range) string {
	if name, ok := t.names[r]; ok {
		return name
	}
	return r.String()
}

// ParseRange reads a name or the text of a range. A name wins.
func (t Translations) ParseRange(text string) (Range, error) {
	if r, ok := t.ranges[text]; ok {
		return r, nil
	}
	return ParseRange(text)
}
