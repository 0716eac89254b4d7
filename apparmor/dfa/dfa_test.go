// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// globTable are globs with what they become and what they match.
var globTable = []struct {
	glob  string
	regex string
	kind  GlobKind
	yes   []string
	no    []string
}{
	{"/bin/sh", "/bin/sh", GlobLiteral, []string{"/bin/sh"}, []string{"/bin/s", "/bin/shx", ""}},
	{"/a.b+c", `/a\.b\+c`, GlobLiteral, []string{"/a.b+c"}, []string{"/axbbc"}},
	{"/a$b^c(d)|e", `/a\$b\^c\(d\)\|e`, GlobLiteral, []string{"/a$b^c(d)|e"}, nil},
	{"/foo/*", `/foo/[^/\x00][^/\x00]*`, GlobRegex, []string{"/foo/x", "/foo/xy"}, []string{"/foo/", "/foo/x/", "/foo/x\x00"}},
	{"/foo/*bar", `/foo/[^/\x00]*bar`, GlobRegex, []string{"/foo/bar", "/foo/xbar"}, []string{"/foo/x/bar"}},
	{"/*/foo", `/[^/\x00][^/\x00]*/foo`, GlobRegex, []string{"/x/foo"}, []string{"//foo"}},
	{"/foo/**", `/foo/[^/\x00][^\x00]*`, GlobTail, []string{"/foo/x", "/foo/x/y/"}, []string{"/foo/", "/foo//"}},
	{"/foo**", `/foo[^\x00]*`, GlobTail, []string{"/foo", "/foo/x"}, []string{"/fo"}},
	{"/foo/**/bar", `/foo/[^/\x00][^\x00]*/bar`, GlobRegex, []string{"/foo/x/bar", "/foo/x/y/bar"}, []string{"/foo//bar"}},
	{"/foo?", `/foo[^/\x00]`, GlobRegex, []string{"/foox"}, []string{"/foo", "/foo/"}},
	{"/[abc]x", `/[abc]x`, GlobRegex, []string{"/ax", "/cx"}, []string{"/dx"}},
	{"/[^a]x", `/[^a]x`, GlobRegex, []string{"/bx", "//x", "/\x00x"}, []string{"/ax"}},
	{"/[a-c^-]x", "", 0, nil, nil},
	{"/{a,b{c,d},}e", `/(a|b(c|d)|)e`, GlobRegex, []string{"/ae", "/bce", "/bde", "/e"}, []string{"/be"}},
	{"/a,b", "/a,b", GlobLiteral, []string{"/a,b"}, nil},
	{`/a\*b`, `/a\*b`, GlobLiteral, []string{"/a*b"}, []string{"/ab", "/axb"}},
	{`/a\{b\,c\}`, `/a\{b,c\}`, GlobLiteral, []string{"/a{b,c}"}, nil},
	{`/a\001b`, `/a\001b`, GlobLiteral, []string{"/a\x01b"}, nil},
	{`/a\x41b`, `/a\x41b`, GlobLiteral, []string{"/aAb"}, nil},
	{`/a\d065b`, `/a\d065b`, GlobLiteral, []string{"/aAb"}, nil},
	{`/a\qb`, `/aqb`, GlobLiteral, []string{"/aqb"}, nil},
	{`/a\\b`, `/a\\b`, GlobLiteral, []string{`/a\b`}, nil},
	{"@{x}", "", 0, nil, nil},
	{"/[]a]", "", 0, nil, nil},
	{"/{a}", "", 0, nil, nil},
	{"/{a,b", "", 0, nil, nil},
	{"/a}", "", 0, nil, nil},
	{"/[a", "", 0, nil, nil},
	{`/a\`, "", 0, nil, nil},
	{"/\x00", "", 0, nil, nil},
	{strings.Repeat("{a,", 50) + strings.Repeat("}", 50), "", 0, nil, nil},
}

func TestConvertGlob(t *testing.T) {
	for _, tt := range globTable {
		g, err := ConvertGlob("", tt.glob, false)
		if err != nil {
			if tt.regex != "" {
				t.Errorf("%q: %v", tt.glob, err)
			}
			continue
		}
		a := NewArena()
		e, _, err := a.Parse(g.Regex)
		if err != nil {
			if tt.regex != "" {
				t.Errorf("%q: %q: %v", tt.glob, g.Regex, err)
			}
			continue
		}
		if tt.regex == "" {
			t.Errorf("%q: got %q, want an error", tt.glob, g.Regex)
			continue
		}
		if g.Regex != tt.regex || g.Kind != tt.kind {
			t.Errorf("%q: got %q kind %d, want %q kind %d", tt.glob, g.Regex, g.Kind, tt.regex, tt.kind)
		}
		d := mustBuild(t, a, []Rule{{e, 1}})
		for _, s := range tt.yes {
			if d.Label[d.Match([]byte(s))] == 0 {
				t.Errorf("%q does not match %q", tt.glob, s)
			}
		}
		for _, s := range tt.no {
			if d.Label[d.Match([]byte(s))] != 0 {
				t.Errorf("%q matches %q", tt.glob, s)
			}
		}
	}
}

func TestFilterSlashes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/": "/", "//": "//", "//a//b": "//a/b", "///a": "/a", "/a///b/": "/a/b/", "a//": "a/", "a": "a",
	} {
		if got := FilterSlashes(in); got != want {
			t.Errorf("FilterSlashes(%q) = %q, want %q", in, got, want)
		}
	}
}

func mustBuild(t testing.TB, a *Arena, rules []Rule) *DFA {
	t.Helper()
	d, err := Build(a, rules, bitLabel, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d.Minimize()
}

// bitLabel labels a state with the set of its accepts, which are below 32.
func bitLabel(accepts []int32) (uint32, error) {
	var l uint32
	for _, a := range accepts {
		l |= 1 << uint(a)
	}
	return l, nil
}

// TestRegexAgainstStdlib compares random expressions with Go's regexp.
func TestRegexAgainstStdlib(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	n := 400
	if testing.Short() {
		n = 40
	}
	for range n {
		var rules []Rule
		var oracle []*regexp.Regexp
		a := NewArena()
		for i := range 1 + r.IntN(4) {
			s := randomRegex(r, 4)
			e, _, err := a.Parse(s)
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			rules = append(rules, Rule{e, int32(i)})
			oracle = append(oracle, regexp.MustCompile(`(?s)^(?:`+s+`)$`))
		}
		d := mustBuild(t, a, rules)
		if n := moore(d); n != d.Len() {
			t.Fatalf("%d states, %d needed", d.Len(), n)
		}
		table, err := Pack(d, func(l uint32) (uint32, uint32) { return l, 0 })
		if err != nil {
			t.Fatal(err)
		}
		diff, err := PackDiff(d, func(l uint32) (uint32, uint32) { return l, 0 })
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			in := make([]byte, r.IntN(8))
			for i := range in {
				in[i] = "abc/\n"[r.IntN(5)]
			}
			var want uint32
			for i, re := range oracle {
				if re.Match(in) {
					want |= 1 << i
				}
			}
			if got := d.Label[d.Match(in)]; got != want {
				t.Fatalf("%v on %q: got %b, want %b", oracle, in, got, want)
			}
			for _, tb := range []*Table{table, diff} {
				s := uint32(Start)
				for _, c := range in {
					s = tb.Step(s, int(c))
				}
				if tb.Accept[s] != want {
					t.Fatalf("tables of %v on %q: got %b, want %b", oracle, in, tb.Accept[s], want)
				}
			}
		}
	}
}

func randomRegex(r *rand.Rand, depth int) string {
	switch n := r.IntN(10); {
	case depth == 0 || n < 3:
		return []string{"a", "b", "c", "/", ".", "[^a]", "[ab]", "[^/b]"}[r.IntN(8)]
	case n < 6:
		return randomRegex(r, depth-1) + randomRegex(r, depth-1)
	case n < 7:
		return "(" + randomRegex(r, depth-1) + "|" + randomRegex(r, depth-1) + ")"
	case n < 8:
		return "(" + randomRegex(r, depth-1) + "|)"
	case n < 9:
		return "(" + randomRegex(r, depth-1) + ")*"
	default:
		return "(" + randomRegex(r, depth-1) + ")+"
	}
}

// moore counts the classes of equal states by plain refinement.
func moore(d *DFA) int {
	class := make([]int, d.Len())
	n := 0
	for {
		ids := map[string]int{}
		next := make([]int, d.Len())
		for s := range class {
			key := fmt.Sprint(d.Label[s])
			if n > 0 {
				key += fmt.Sprint(class[s])
				for c := range 257 {
					key += fmt.Sprint(",", class[d.Next(uint32(s), c)])
				}
			}
			if _, ok := ids[key]; !ok {
				ids[key] = len(ids)
			}
			next[s] = ids[key]
		}
		class = next
		if len(ids) == n {
			return n
		}
		n = len(ids)
	}
}

func TestOutOfBand(t *testing.T) {
	a := NewArena()
	path, _, _ := a.Parse("/bin/.*")
	value, _, _ := a.Parse(`\x00v+`)
	e := a.Cat(path, a.Alt(Epsilon, a.Cat(a.OutOfBand(), value)))
	if got := a.MinLen(e); got != 5 {
		t.Errorf("MinLen = %d, want 5", got)
	}
	d := mustBuild(t, a, []Rule{{e, 0}})
	table, err := Pack(d, func(l uint32) (uint32, uint32) { return l, 0 })
	if err != nil {
		t.Fatal(err)
	}
	if table, err = ParseTable(table.Encode()); err != nil {
		t.Fatal(err)
	}
	step := func(in ...int) uint32 {
		s, q := uint32(Start), uint32(Start)
		for _, c := range in {
			s, q = d.Next(s, c), table.Step(q, c)
		}
		if d.Label[s] != table.Accept[q] {
			t.Errorf("%v: automaton %d, tables %d", in, d.Label[s], table.Accept[q])
		}
		return d.Label[s]
	}
	for _, tt := range []struct {
		in   []int
		want uint32
	}{
		{[]int{'/', 'b', 'i', 'n', '/', 'x'}, 1},
		{[]int{'/', 'b', 'i', 'n', '/', 'x', OOB}, 0},
		{[]int{'/', 'b', 'i', 'n', '/', OOB, 0, 'v'}, 1},
		{[]int{'/', 'b', 'i', OOB, 0, 'v'}, 0},
		{[]int{'/', 'b', 'i', 'n', '/', OOB, 0, 'v', OOB}, 0},
	} {
		if got := step(tt.in...); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestBuildLimits(t *testing.T) {
	a := NewArena()
	e, _, err := a.Parse(".*a" + strings.Repeat(".", 30))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(a, []Rule{{e, 0}}, bitLabel, Limits{States: 1000}); !errors.Is(err, ErrTooBig) {
		t.Errorf("got %v, want ErrTooBig", err)
	}
}

func TestCompareFindsShortest(t *testing.T) {
	a := NewArena()
	x, _, _ := a.Parse("/a(b|c)*")
	y, _, _ := a.Parse("/a(b|c)*|/acb")
	z, _, _ := a.Parse("/a(b|c)*|/d")
	dx, dy, dz := mustBuild(t, a, []Rule{{x, 0}}), mustBuild(t, a, []Rule{{y, 0}}), mustBuild(t, a, []Rule{{z, 0}})
	same := func(p, q uint32) bool { return p == q }
	if d := Compare(dx, dy, same); d != nil {
		t.Errorf("equal languages differ at %q", d.Bytes())
	}
	if d := Compare(dx, dz, same); d == nil || string(d.Bytes()) != "/d" {
		t.Errorf("got %v, want the witness /d", d)
	}
}

// optionalChains are attachments as they occur in practice: 50 alternatives
// of twelve optional digits.
func optionalChains() string {
	var b strings.Builder
	b.WriteString("/usr/lib/{")
	for i := range 50 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "tool%d-[0-9]%s", i, strings.Repeat("{[0-9],}", 12))
	}
	b.WriteString("}/bin/*")
	return b.String()
}

func TestOptionalChains(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := compileGlobs(t, optionalChains())
	runtime.ReadMemStats(&after)
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 200 {
		t.Errorf("%d MiB allocated", mb)
	}
	if d.Len() > 2000 {
		t.Errorf("%d states", d.Len())
	}
}

func compileGlobs(t testing.TB, globs ...string) *DFA {
	t.Helper()
	a := NewArena()
	var rules []Rule
	for i, s := range globs {
		g, err := ConvertGlob("", s, false)
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := a.Parse(g.Regex)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, Rule{e, int32(i % 32)})
	}
	return mustBuild(t, a, rules)
}

func BenchmarkOptionalChains(b *testing.B) {
	s := optionalChains()
	b.ReportAllocs()
	for b.Loop() {
		compileGlobs(b, s)
	}
}

func FuzzConvertGlob(f *testing.F) {
	for _, tt := range globTable {
		f.Add(tt.glob)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 200 {
			return
		}
		g, err := ConvertGlob("", s, false)
		if err != nil {
			return
		}
		a := NewArena()
		e, _, err := a.Parse(g.Regex)
		if err != nil {
			return
		}
		d, err := Build(a, []Rule{{e, 0}}, bitLabel, Limits{States: 2000})
		if err != nil {
			return
		}
		m := d.Minimize()
		if diff := Compare(d, m, func(x, y uint32) bool { return x == y }); diff != nil {
			t.Fatalf("%q: minimising changes %q", s, diff.Bytes())
		}
		if g.Kind == GlobLiteral && !strings.Contains(s, `\`) && m.Label[m.Match([]byte(s))] == 0 {
			t.Fatalf("literal %q does not match itself", s)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	a := NewArena()
	e, _, _ := a.Parse("/a(b|[^c])*d")
	d, _ := Build(a, []Rule{{e, 0}}, bitLabel, Limits{})
	d = d.Minimize()
	accept := func(l uint32) (uint32, uint32) { return l, 0 }
	for _, pack := range []func(*DFA, func(uint32) (uint32, uint32)) (*Table, error){Pack, PackDiff} {
		t, err := pack(d, accept)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(t.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ParseTable(b)
		if err != nil {
			return
		}
		s := uint32(Start)
		for c := range 257 {
			s = table.Step(s, c)
		}
		d, err := table.Unpack(func(x, _ uint32) uint32 { return x })
		if err != nil {
			return
		}
		for s := range d.Len() {
			for _, c := range []int{0, 'a', '/', 255, OOB} {
				if d.Next(uint32(s), c) != table.Step(uint32(s), c) {
					t.Fatalf("state %d on %d: automaton %d, tables %d", s, c, d.Next(uint32(s), c), table.Step(uint32(s), c))
				}
			}
		}
		back, err := ParseTable(table.Encode())
		if err != nil || !bytes.Equal(back.Encode(), table.Encode()) {
			t.Fatalf("written tables do not read back: %v", err)
		}
	})
}
