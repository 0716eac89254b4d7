// SPDX-License-Identifier: Apache-2.0

// Package filecontext answers which SELinux context a path is to have, from the
// files that restorecon reads: file_contexts with its .homedirs and .local, and
// the substitutions of .subs and .subs_dist.
//
// The rules are libselinux's: a specification without meta characters wins over
// one with them; among the others the last one wins, that of a later file over
// all of an earlier one. A specification matches the whole path.
//
// Source: libselinux/src/label_file.c, lookup_check_node (3.11)
package filecontext

import (
	"cmp"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"

	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/selinux"
)

// Kind is the kind of file that a specification is for.
type Kind byte

// Kinds, as the second field of a line has them.
const (
	Any       Kind = 0
	Regular   Kind = '-'
	Directory Kind = 'd'
	Symlink   Kind = 'l'
	Char      Kind = 'c'
	Block     Kind = 'b'
	Socket    Kind = 's'
	Pipe      Kind = 'p'
)

// None is the context of what is not to be labelled.
const None = "<<none>>"

// Match is the specification that decides about a path.
type Match struct {
	Context string    // None where nothing is to be labelled
	Pattern string    // as it is written
	Kind    Kind      // Any when the line has none
	Span    diag.Span // where it stands
}

// Labels tells whether the path is to have a label.
func (m Match) Labels() bool { return m.Context != None }

// File is one input with its name.
type File struct {
	Name string
	Text []byte
}

// Sources are the inputs, of which all may be empty. Specs are in the order in
// which libselinux reads them: file_contexts, .homedirs, .local.
type Sources struct {
	Specs    []File
	Subs     File // applied first
	SubsDist File // applied to the result
}

// Map answers look-ups. It is immutable and safe for concurrent use.
type Map struct {
	literals map[string][]*spec
	root     *node
	subs     []substitution
	subsDist []substitution
	count    int
}

type spec struct {
	order   int // later ones win
	file    int
	kind    Kind
	context string
	pattern string
	span    diag.Span

	prefix string // fixed text that the path begins with
	tail   tail
	re     func() *regexp.Regexp
	// needs are texts that every matching path has behind the prefix, in this
	// order. They rule most paths out for a fraction of what matching costs.
	needs []string
}

// tail is how what follows the fixed prefix is matched: three forms make up most
// of all specifications and need no regular expression.
type tail uint8

const (
	tailRegexp  tail = iota
	tailSubtree      // (/.*)?
	tailBelow        // /.*
	tailAll          // .*
)

// node is a folder of the tree of fixed prefixes.
type node struct {
	children map[string]*node
	specs    []*spec // the last first
}

type substitution struct{ from, to string }

// Len is the number of specifications.
func (m *Map) Len() int { return m.count }

// Parse reads the sources. All errors are reported at once; the map has the
// lines that are good.
func Parse(s Sources) (*Map, diag.List) {
	m := &Map{literals: map[string][]*spec{}, root: &node{}}
	var errs diag.List
	for i, f := range s.Specs {
		m.read(i, f, &errs)
	}
	m.subs = readSubstitutions(s.Subs, &errs)
	m.subsDist = readSubstitutions(s.SubsDist, &errs)
	m.root.sort()
	for _, l := range m.literals {
		// Of equal paths that of a later file wins, and of one file the first.
		slices.SortStableFunc(l, func(a, b *spec) int { return cmp.Compare(b.file, a.file) })
	}
	return m, errs
}

func (n *node) sort() {
	slices.SortFunc(n.specs, func(a, b *spec) int { return cmp.Compare(b.order, a.order) })
	for _, c := range n.children {
		c.sort()
	}
}

// field is a word of a line and its column.
type field struct {
	text   string
	column int
}

func fields(line string) []field {
	var out []field
	for i := 0; i < len(line); {
		if line[i] == ' ' || line[i] == '\t' || line[i] == '\r' {
			i++
			continue
		}
		start := i
		for i < len(line) && line[i] != ' ' && line[i] != '\t' && line[i] != '\r' {
			i++
		}
		out = append(out, field{line[start:i], start + 1})
	}
	return out
}

func eachLine(f File, fn func(n, offset int, line string)) {
	offset, n := 0, 0
	for line := range strings.Lines(string(f.Text)) {
		n++
		fn(n, offset, strings.TrimSuffix(line, "\n"))
		offset += len(line)
	}
}

func spanOf(f File, n, offset int, w field) diag.Span {
	start := diag.Pos{Offset: offset + w.column - 1, Line: n, Column: w.column}
	end := diag.Pos{Offset: start.Offset + len(w.text), Line: n, Column: w.column + len(w.text)}
	return diag.Span{File: f.Name, Start: start, End: end}
}

func (m *Map) read(index int, f File, errs *diag.List) {
	eachLine(f, func(n, offset int, line string) {
		w := fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0].text, "#") {
			return
		}
		at := func(i int) diag.Span { return spanOf(f, n, offset, w[i]) }
		if len(w) < 2 {
			errs.Errorf(at(0), "FC-FIELDS", "want PATTERN [KIND] CONTEXT, found one word")
			return
		}
		if len(w) > 3 {
			errs.Errorf(at(3), "FC-FIELDS", "want PATTERN [KIND] CONTEXT, found %d words", len(w))
			return
		}
		s := &spec{order: m.count, file: index, pattern: w[0].text, context: w[len(w)-1].text, span: at(0)}
		if len(w) == 3 {
			kind := w[1].text
			if len(kind) != 2 || kind[0] != '-' || !strings.Contains("-dlcbsp", kind[1:]) {
				errs.Errorf(at(1), "FC-KIND", "unknown kind of file %q: want --, -d, -l, -c, -b, -s or -p", kind)
				return
			}
			s.kind = Kind(kind[1])
		}
		if s.context != None {
			if _, err := selinux.ParseContext(s.context); err != nil {
				errs.Errorf(at(len(w)-1), "FC-CONTEXT", "%v", err)
				return
			}
		}
		if err := m.insert(s); err != nil {
			errs.Errorf(at(0), "FC-REGEXP", "%v", err)
		}
	})
}

func (m *Map) insert(s *spec) error {
	prefix, rest, ok := fixedPrefix(s.pattern)
	m.count++
	if ok && rest == "" {
		m.literals[prefix] = append(m.literals[prefix], s)
		return nil
	}
	s.prefix = prefix
	switch rest {
	case "(/.*)?":
		s.tail = tailSubtree
	case "/.*":
		s.tail = tailBelow
	case ".*":
		s.tail = tailAll
	default:
		// Compiling is put off: most look-ups need few of them. What is wrong is
		// said now all the same.
		text := `\A(?s:` + s.pattern + `)\z`
		tree, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			// Go has no look-around and no back references; no known file contexts
			// use them.
			return fmt.Errorf("pattern: %w", err)
		}
		s.needs = required(tree, nil)
		if len(s.needs) > 0 && prefix != "" {
			if rest, found := strings.CutPrefix(s.needs[0], prefix); found {
				s.needs[0] = rest
			}
		}
		s.re = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
	}
	// The deepest folder that every matching path is in.
	n := m.root
	folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if s.tail == tailSubtree || s.tail == tailBelow {
		folder = prefix + "/"
	}
	for name := range strings.SplitSeq(strings.Trim(folder, "/"), "/") {
		if name == "" {
			continue
		}
		c := n.children[name]
		if c == nil {
			c = &node{}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[name] = c
		}
		n = c
	}
	n.specs = append(n.specs, s)
	return nil
}

// fixedPrefix splits a pattern into the text that it begins with and the rest;
// ok is false when the text has an escape whose meaning is not the character.
func fixedPrefix(pattern string) (prefix, rest string, ok bool) {
	var b strings.Builder
	// A meta character behind may apply to the last character: "a?" has no "a".
	last := 0
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch {
		case strings.IndexByte("?*+{", c) >= 0:
			prefix, rest, _ := finishPrefix(b.String()[:last], pattern, i)
			return prefix, rest, false
		case strings.IndexByte(".^$|[()]}", c) >= 0:
			if c == '|' {
				return "", pattern, false
			}
			return finishPrefix(b.String(), pattern, i)
		case c == '\\':
			if i+1 >= len(pattern) || strings.IndexByte(".^$?*+|[({])}-_,", pattern[i+1]) < 0 {
				return finishPrefix(b.String(), pattern, i)
			}
			i++
			last = b.Len()
			b.WriteByte(pattern[i])
		default:
			last = b.Len()
			b.WriteByte(c)
		}
	}
	return b.String(), "", true
}

// finishPrefix gives up the prefix when an alternative at the top level makes it
// optional.
func finishPrefix(prefix, pattern string, i int) (string, string, bool) {
	depth := 0
	for j := i; j < len(pattern); j++ {
		switch pattern[j] {
		case '\\':
			j++
		case '(':
			depth++
		case ')':
			depth--
		case '[':
			for j++; j < len(pattern) && pattern[j] != ']'; j++ {
				if pattern[j] == '\\' {
					j++
				}
			}
		case '|':
			if depth == 0 {
				return "", pattern, false
			}
		}
	}
	return prefix, pattern[i:], true
}

// Lookup returns the specification for a path of a kind; ok is false when none
// matches. Any as the kind matches specifications of all kinds, as libselinux
// does for mode 0. Doubled and trailing slashes do not count.
func (m *Map) Lookup(path string, kind Kind) (match Match, ok bool) {
	path = clean(path)
	if to, done := apply(m.subs, path); done {
		path = to
	}
	if to, done := apply(m.subsDist, path); done {
		path = to
	}
	for _, s := range m.literals[path] {
		if s.fits(kind) {
			return s.match(), true
		}
	}
	best := (*spec)(nil)
	n := m.root
	for rest := path; ; {
		best = n.best(path, kind, best)
		if len(n.children) == 0 {
			break
		}
		rest = strings.TrimPrefix(rest, "/")
		name, tail, _ := strings.Cut(rest, "/")
		if n = n.children[name]; n == nil || name == "" {
			break
		}
		rest = tail
	}
	if best == nil {
		return Match{}, false
	}
	return best.match(), true
}

// best returns the last matching specification of a folder that comes behind the
// one found so far.
func (n *node) best(path string, kind Kind, found *spec) *spec {
	for _, s := range n.specs {
		if found != nil && s.order < found.order {
			return found
		}
		if s.fits(kind) && s.matches(path) {
			return s
		}
	}
	return found
}

func (s *spec) fits(kind Kind) bool { return kind == Any || s.kind == Any || s.kind == kind }

func (s *spec) match() Match {
	return Match{Context: s.context, Pattern: s.pattern, Kind: s.kind, Span: s.span}
}

func (s *spec) matches(path string) bool {
	rest, ok := strings.CutPrefix(path, s.prefix)
	if !ok {
		return false
	}
	switch s.tail {
	case tailSubtree:
		return rest == "" || rest[0] == '/'
	case tailBelow:
		return rest != "" && rest[0] == '/'
	case tailAll:
		return true
	}
	for _, need := range s.needs {
		i := strings.Index(rest, need)
		if i < 0 {
			return false
		}
		rest = rest[i+len(need):]
	}
	return s.re().MatchString(path)
}

func clean(path string) string {
	if strings.Contains(path, "//") {
		var b strings.Builder
		for i := range len(path) {
			if path[i] != '/' || i == 0 || path[i-1] != '/' {
				b.WriteByte(path[i])
			}
		}
		path = b.String()
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

func readSubstitutions(f File, errs *diag.List) []substitution {
	var out []substitution
	eachLine(f, func(n, offset int, line string) {
		w := fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0].text, "#") {
			return
		}
		if len(w) < 2 {
			errs.Warnf(spanOf(f, n, offset, w[0]), "FC-SUBS", "want FROM TO, found one word")
			return
		}
		out = append(out, substitution{w[0].text, w[1].text})
	})
	return out
}

// apply replaces the beginning of a path by the first substitution that fits.
func apply(subs []substitution, path string) (string, bool) {
	for _, s := range subs {
		rest, ok := strings.CutPrefix(path, s.from)
		if !ok || (rest != "" && rest[0] != '/') {
			continue
		}
		if s.to == "/" {
			rest = strings.TrimPrefix(rest, "/")
		}
		return s.to + rest, true
	}
	return path, false
}

// required collects the literal texts that are in every match of an expression,
// in their order.
func required(re *syntax.Regexp, out []string) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			out = append(out, string(re.Rune))
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			out = required(sub, out)
		}
	case syntax.OpCapture, syntax.OpPlus:
		out = required(re.Sub[0], out)
	}
	return out
}
