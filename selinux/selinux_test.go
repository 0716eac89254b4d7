// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// contextTable drives the parser test, the printer test and the fuzz seeds.
var contextTable = []struct {
	in       string
	want     string // canonical form; "" when the input is an error
	expected string // what the error says was expected
	offset   int
}{
	{in: "system_u:system_r:container_t:s0:c12,c741", want: "system_u:system_r:container_t:s0:c12,c741"},
	{in: "u:r:t", want: "u:r:t"},
	{in: "u:r:t:s0", want: "u:r:t:s0"},
	{in: "u:r:t:s0-s0", want: "u:r:t:s0"},
	{in: "u:r:t:s0:c2,c1", want: "u:r:t:s0:c1,c2"},
	{in: "u:r:t:s0:c1,c1", want: "u:r:t:s0:c1"},
	{in: "u:r:t:s0:c1,c2,c3,c7", want: "u:r:t:s0:c1.c3,c7"},
	{in: "u:r:t:s0:c1.c2", want: "u:r:t:s0:c1,c2"},
	{in: "u:r:t:s0-s0:c0.c1023", want: "u:r:t:s0-s0:c0.c1023"},
	{in: "u:r:t:s0:c3-s15:c0.c5", want: "u:r:t:s0:c3-s15:c0.c5"},
	{in: "u:r:t:s0:c65535", want: "u:r:t:s0:c65535"},
	{in: "a.b-c_u:r.1:_t", want: "a.b-c_u:r.1:_t"},

	{in: "", expected: "a user", offset: 0},
	{in: "u", expected: "':' and a role", offset: 1},
	{in: "u:", expected: "a role", offset: 2},
	{in: "u:r", expected: "':' and a type", offset: 3},
	{in: "u:r:", expected: "a type", offset: 4},
	{in: "u:r:t:", expected: "a sensitivity such as s0", offset: 6},
	{in: "u:r:t:s00", expected: "a sensitivity such as s0", offset: 6},
	{in: "u:r:t:s65536", expected: "a sensitivity such as s0", offset: 6},
	{in: "u:r:t:c1", expected: "a sensitivity such as s0", offset: 6},
	{in: "u:r:t:s0:", expected: "a category such as c12", offset: 9},
	{in: "u:r:t:s0:c01", expected: "a category such as c12", offset: 9},
	{in: "u:r:t:s0:c1,", expected: "a category such as c12", offset: 12},
	{in: "u:r:t:s0:c1,,c2", expected: "a category such as c12", offset: 12},
	{in: "u:r:t:s0:c65536", expected: "a category such as c12", offset: 9},
	{in: "u:r:t:s0:c3.c3", expected: "an ascending span of categories", offset: 9},
	{in: "u:r:t:s0:c3.c1", expected: "an ascending span of categories", offset: 9},
	{in: "u:r:t:s0:c1.c2.c3", expected: "the end", offset: 14},
	{in: "u:r:t:s0:c1-s0", expected: "a high level that dominates s0:c1", offset: 12},
	{in: "u:r:t:s1-s0", expected: "a high level that dominates s1", offset: 9},
	{in: "u:r:t:s0-", expected: "a sensitivity such as s0", offset: 9},
	{in: "u:r:t:s0-s0-s0", expected: "the end", offset: 11},
	{in: "u:r:t s0", expected: "the end", offset: 5},
	{in: "u:r:t:s0 ", expected: "a sensitivity such as s0", offset: 6},
	{in: " u:r:t", expected: "a user", offset: 0},
	{in: "u:r:t\n", expected: "the end", offset: 5},
	{in: "u:r:t\x00", expected: "the end", offset: 5},
	{in: "1u:r:t", expected: "a user", offset: 0},
	{in: "a:b:c:garbage:not,a,level", expected: "a sensitivity such as s0", offset: 6},
}

func TestParseContext(t *testing.T) {
	for _, tt := range contextTable {
		got, err := ParseContext(tt.in)
		if tt.want != "" {
			if err != nil || got.String() != tt.want {
				t.Errorf("ParseContext(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
			continue
		}
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("ParseContext(%q) = %q, %v; want a SyntaxError", tt.in, got, err)
			continue
		}
		if syntax.Expected != tt.expected || syntax.Offset != tt.offset {
			t.Errorf("ParseContext(%q): %v; want offset %d, expected %s", tt.in, err, tt.offset, tt.expected)
		}
		if got != (Context{}) {
			t.Errorf("ParseContext(%q) returned %v beside an error", tt.in, got)
		}
	}
	if _, err := ParseContext(strings.Repeat("a", MaxContextLength+1)); err == nil || len(err.Error()) > 300 {
		t.Errorf("overlong context: %v", err)
	}
}

func FuzzParseContext(f *testing.F) {
	for _, tt := range contextTable {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseContext(text)
		if err != nil {
			return
		}
		again, err := ParseContext(c.String())
		if err != nil || again != c {
			t.Fatalf("%q prints as %q, which reads as %q, %v", text, c, again, err)
		}
	})
}

func TestCategorySetAlgebra(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a, b := randomNumbers(rng), randomNumbers(rng)
		sa, sb := Categories(a...), Categories(b...)
		inA := func(n uint16) bool { return slices.Contains(a, n) }
		inB := func(n uint16) bool { return slices.Contains(b, n) }
		checkMembers(t, "union", sa.Union(sb), func(n uint16) bool { return inA(n) || inB(n) })
		checkMembers(t, "intersect", sa.Intersect(sb), func(n uint16) bool { return inA(n) && inB(n) })
		checkMembers(t, "minus", sa.Minus(sb), func(n uint16) bool { return inA(n) && !inB(n) })
		contains := !slices.ContainsFunc(b, func(n uint16) bool { return !inA(n) })
		if sa.Contains(sb) != contains {
			t.Fatalf("%v contains %v: got %t", sa, sb, !contains)
		}
		if sa.Intersects(sb) != slices.ContainsFunc(b, inA) {
			t.Fatalf("%v intersects %v: wrong", sa, sb)
		}
		back, err := ParseCategorySet(sa.String())
		if err != nil || back != sa {
			t.Fatalf("%v reads back as %v, %v", sa, back, err)
		}
	}
	if got := CategorySpan(0, 1023); got.Len() != 1024 || got.String() != "c0.c1023" {
		t.Errorf("CategorySpan(0, 1023) = %v (%d)", got, got.Len())
	}
	if got := CategorySpan(5, 4); !got.IsEmpty() {
		t.Errorf("CategorySpan(5, 4) = %v", got)
	}
	if got := CategorySpan(63, 64); got != Categories(64, 63) {
		t.Errorf("CategorySpan(63, 64) = %v", got)
	}
}

func randomNumbers(rng *rand.Rand) []uint16 {
	limit := []int{8, 130, 1024}[rng.IntN(3)]
	var out []uint16
	for range rng.IntN(6) {
		out = append(out, uint16(rng.IntN(limit)))
	}
	return out
}

func checkMembers(t *testing.T, what string, s CategorySet, want func(uint16) bool) {
	t.Helper()
	n := 0
	for c := range uint16(1100) {
		if s.Has(c) != want(c) {
			t.Fatalf("%s %v: category %d wrong", what, s, c)
		}
		if want(c) {
			n++
		}
	}
	if s.Len() != n {
		t.Fatalf("%s %v: Len %d, want %d", what, s, s.Len(), n)
	}
}

func TestLevelCompare(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want Relation
	}{
		{"s0", "s0", Equal},
		{"s0:c1,c2", "s0:c2,c1", Equal},
		{"s0:c1,c2", "s0:c1", Dominates},
		{"s1:c1,c2", "s0:c1", Dominates},
		{"s1", "s0", Dominates},
		{"s0", "s0:c0.c1023", DominatedBy},
		{"s0:c1,c2", "s0:c2,c3", Incomparable},
		{"s1:c1", "s0:c2", Incomparable},
		{"s1", "s0:c2", Incomparable},
		{"s0:c1000", "s0:c1", Incomparable},
	} {
		a, err1 := ParseLevel(tt.a)
		b, err2 := ParseLevel(tt.b)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := a.Compare(b); got != tt.want {
			t.Errorf("%s ? %s = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestRangeContains(t *testing.T) {
	for _, tt := range []struct {
		outer, inner string
		want         bool
	}{
		{"s0-s0:c0.c1023", "s0:c1,c2", true},
		{"s0-s0:c0.c1023", "s0-s0:c0.c1023", true},
		{"s0", "s0:c1", false},
		{"s0:c1-s0:c1,c2", "s0", false},
		{"s0-s15:c0.c1023", "s3:c4-s9:c4,c5", true},
	} {
		outer, err1 := ParseRange(tt.outer)
		inner, err2 := ParseRange(tt.inner)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := outer.Contains(inner); got != tt.want {
			t.Errorf("%s contains %s = %t", tt.outer, tt.inner, got)
		}
	}
}

func TestTranslations(t *testing.T) {
	text := `# Multi-Category Security translation table
s0=SystemLow
s0-s0:c0.c1023=SystemLow-SystemHigh
 s0:c0.c1023 = SystemHigh  # comment
Base=Sensitivity Levels
s0:c2,c1=web
s0:c1,c2=web-again
bad=
s0:c9.c1=wrong
s0:c9=web
nonsense
`
	tr, err := ParseTranslations(text)
	for text, name := range map[string]string{
		"s0": "SystemLow", "s0-s0:c0.c1023": "SystemLow-SystemHigh", "s0:c0.c1023": "SystemHigh",
		"s0:c1,c2": "web", "s0:c77": "s0:c77",
	} {
		r, perr := ParseRange(text)
		if perr != nil {
			t.Fatal(perr)
		}
		if got := tr.Name(r); got != name {
			t.Errorf("Name(%s) = %q, want %q", text, got, name)
		}
		if back, perr := tr.ParseRange(name); perr != nil || back != r {
			t.Errorf("ParseRange(%q) = %v, %v; want %s", name, back, perr, text)
		}
	}
	if r, perr := tr.ParseRange("web-again"); perr != nil || r.String() != "s0:c1,c2" {
		t.Errorf("second name: %v, %v", r, perr)
	}
	want := []string{"line 8: expected range=name", "line 9: parse range", "line 10: name \"web\" already means s0:c1,c2", "line 11: expected range=name"}
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		t.Errorf("no SyntaxError in %v", err)
	}
	if got, err := (Translations{}).ParseRange("s0"); err != nil || got.String() != "s0" {
		t.Errorf("zero Translations: %v, %v", got, err)
	}
}

func BenchmarkLevelDominates(b *testing.B) {
	l, m := Level{Categories: CategorySpan(0, 1023)}, Level{Categories: Categories(12, 741)}
	for b.Loop() {
		if !l.Dominates(m) {
			b.Fatal("wrong")
		}
	}
}

func BenchmarkParseContext(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseContext("system_u:system_r:container_t:s0:c12,c741"); err != nil {
			b.Fatal(err)
		}
	}
}
