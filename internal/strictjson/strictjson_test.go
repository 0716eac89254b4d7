// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

type part struct {
	Text   string         `json:"text,omitempty"`
	Number int32          `json:"number"`
	Size   *uint64        `json:"size"`
	Real   float64        `json:"real"`
	Flag   *bool          `json:"flag"`
	Parts  []part         `json:"parts"`
	Next   *part          `json:"next"`
	Notes  map[string]any `json:"notes"`
	Raw    json.RawMessage
	When   time.Time `json:"when"`
	Pair   [2]uint8  `json:"pair"`
	Blob   []byte    `json:"blob"`
	Any    any       `json:"any"`
	Key    string    `json:"kisses"` // k and s fold to letters outside of ASCII
	hidden int       //nolint:unused // no member: it is not exported
	Gone   string    `json:"-"`
	embedded
}

type embedded struct {
	Inner string            `json:"inner"`
	Tags  map[string]string `json:"tags"`
}

// documents are the table of all tests and the seeds of the fuzz targets. want is
// nil for what is accepted; place is "line:column path" of what is not.
var documents = []struct {
	name, in string
	want     error
	place    string
}{
	{"empty object", `{}`, nil, ""},
	{"all kinds", `{"text":"a\n\u00e9\ud83d\ude00é","number":-5,"size":18446744073709551615,"real":1.5e3,"flag":false,"parts":[{"text":"b"},{}],` +
		`"next":{"next":null},"notes":{"x":[1,{"y":null}],"X":true},"Raw":[1, 2],"when":"2026-11-29T00:00:00Z","pair":[1,2],"blob":"aGk=","any":{"a":[0.5,"b",null,true]},"inner":"i","tags":{"k":"v","K":"w"}}`, nil, ""},
	{"absent by null", `{"size":null,"flag":null,"parts":null,"next":null,"notes":null,"any":null,"blob":null,"tags":null}`, nil, ""},
	{"blanks", " \t\r\n{ \"text\" :\n\"a\" , \"number\" : 1 }\n ", nil, ""},
	{"unknown member", `{"novel":{"a":[1e400,-0,01e0]}}`, errNumber, "1:25 novel.a[2]"},
	{"unknown members", `{"novel":{"a":[1e400,-0,0.10]},"other":null}`, nil, ""},

	{"nothing", ``, errSyntax, "1:1"},
	{"null", `null`, errType, "1:1"},
	{"array", `[]`, errType, "1:1"},
	{"byte order mark", "\ufeff{}", errText, "1:1"},
	{"second document", "{}\n{}", errSyntax, "2:1"},
	{"trailing text", `{} x`, errSyntax, "1:4"},
	{"trailing NUL", "{}\x00", errSyntax, "1:3"},
	{"comment", `{/* */}`, errSyntax, "1:2"},
	{"trailing comma", `{"text":"a",}`, errSyntax, "1:13"},
	{"comma in array", `{"parts":[{},]}`, errSyntax, "1:14 parts[1]"},
	{"no colon", `{"text" "a"}`, errSyntax, "1:9"},
	{"single quotes", `{'text':"a"}`, errSyntax, "1:2"},
	{"cut", `{"text":"a`, errSyntax, "1:11 text"},
	{"cut escape", `{"text":"a\`, errSyntax, "1:12 text"},
	{"word", `{"flag":tru}`, errSyntax, "1:9 flag"},
	{"NaN", `{"real":NaN}`, errSyntax, "1:9 real"},
	{"plus", `{"real":+1}`, errSyntax, "1:9 real"},
	{"fraction without digits", `{"real":1.}`, errSyntax, "1:11 real"},
	{"exponent without digits", `{"real":1e}`, errSyntax, "1:11 real"},

	{"duplicate", "{\n \"text\":\"a\",\n \"text\":\"b\"}", errDuplicate, "3:2"},
	{"duplicate by escape", `{"text":"a","te\u0078t":"b"}`, errDuplicate, "1:13"},
	{"duplicate below", `{"parts":[{"next":{"inner":"a","inner":"a"}}]}`, errDuplicate, "1:32 parts[0].next"},
	{"duplicate in a map", `{"tags":{"a":"x","a":"x"}}`, errDuplicate, "1:18 tags"},
	{"duplicate in any", `{"any":{"a":{"b":1,"b":2}}}`, errDuplicate, "1:20 any.a"},
	{"duplicate in raw", `{"Raw":{"a":1,"a":2}}`, errDuplicate, "1:15 Raw"},
	{"duplicate unknown", `{"x":1,"x":1}`, errDuplicate, "1:8"},
	{"duplicate in unknown", `{"x":[{"a":1,"a":1}]}`, errDuplicate, "1:14 x[0]"},
	{"many names", `{"tags":{` + many(40) + `,"n7":"x"}}`, errDuplicate, ""},
	{"case", `{"Text":"a"}`, errFolded, "1:2"},
	{"case of raw", `{"raw":1}`, errFolded, "1:2"},
	{"long s", `{"ki\u017fses":"a"}`, errFolded, "1:2"},
	{"Kelvin", "{\"\u212aisses\":\"a\"}", errFolded, "1:2"},
	{"unknown names by case", `{"novel":1,"Novel":1}`, errFolded, "1:12"},
	{"case in a map", `{"tags":{"a":"x","A":"y"},"notes":{"\u017f":1,"s":2}}`, nil, ""},
	{"hidden field", `{"hidden":1,"Gone":"x"}`, nil, ""},

	{"invalid UTF-8", "{\"text\":\"ab\xff\"}", errText, "1:12 text"},
	{"overlong UTF-8", "{\"text\":\"\xc0\x80\"}", errText, "1:10 text"},
	{"surrogate in UTF-8", "{\"text\":\"\xed\xa0\x80\"}", errText, "1:10 text"},
	{"invalid UTF-8 in a name", "{\"\xff\":1}", errText, "1:3"},
	{"invalid UTF-8 behind an escape", "{\"text\":\"\\n\xff\"}", errText, "1:12 text"},
	{"lone high surrogate", `{"text":"\ud800"}`, errText, "1:10 text"},
	{"lone low surrogate", `{"text":"\udc00\ud800"}`, errText, "1:10 text"},
	{"two high surrogates", `{"text":"\ud800\ud800"}`, errText, "1:10 text"},
	{"NUL", `{"text":"a\u0000b"}`, errText, "1:11 text"},
	{"NUL in a name", `{"a\u0000b":1}`, errText, "1:4"},
	{"raw control", "{\"text\":\"a\x01\"}", errText, "1:11 text"},
	{"raw line feed", "{\"text\":\"a\n\"}", errText, "1:11 text"},
	{"raw control behind an escape", "{\"text\":\"\\t\x01\"}", errText, "1:12 text"},
	{"bad escape", `{"text":"\x41"}`, errSyntax, "1:10 text"},
	{"short escape", `{"text":"\u12"}`, errSyntax, "1:10 text"},

	{"exponent", `{"number":1e3}`, errNumber, "1:11 number"},
	{"fraction", `{"number":1.0}`, errNumber, "1:11 number"},
	{"minus zero", `{"number":-0}`, errNumber, "1:11 number"},
	{"leading zero", `{"number":010}`, errNumber, "1:11 number"},
	{"overflow", `{"number":2147483648}`, errNumber, "1:11 number"},
	{"negative without a sign", `{"size":-1}`, errNumber, "1:9 size"},
	{"overflow without a sign", `{"size":18446744073709551616}`, errNumber, "1:9 size"},
	{"real out of range", `{"real":1e400}`, errNumber, "1:9 real"},
	{"inexact", `{"any":9007199254740993}`, errNumber, "1:8 any"},
	{"exact", `{"any":9007199254740992,"size":9007199254740993}`, nil, ""},

	{"number for text", `{"text":1}`, errType, "1:9 text"},
	{"text for number", `{"number":"1"}`, errType, "1:11 number"},
	{"null for text", `{"text":null}`, errType, "1:9 text"},
	{"null for a number", `{"number":null}`, errType, "1:11 number"},
	{"null for an element", `{"parts":[null]}`, errType, "1:11 parts[0]"},
	{"null in a map", `{"tags":{"a b":null}}`, errType, `1:16 tags["a b"]`},
	{"object for array", `{"parts":{}}`, errType, "1:10 parts"},
	{"array for object", `{"next":[]}`, errType, "1:9 next"},
	{"text for a boolean", `{"flag":"true"}`, errType, "1:9 flag"},
	{"no time", `{"when":"yesterday"}`, errType, "1:9 when"},
	{"short array", `{"pair":[1]}`, errType, "1:9 pair"},
	{"long array", `{"pair":[1,2,3]}`, errType, "1:14 pair"},
	{"no base64", `{"blob":"a"}`, errText, "1:9 blob"},

	{"deep", `{"any":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`, errDepth, ""},
	{"deep and unknown", `{"x":` + strings.Repeat("[", 1<<20), errDepth, ""},
	{"not too deep", `{"any":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`, nil, ""},
}

func many(n int) string {
	var list []string
	for i := range n {
		list = append(list, `"n`+string(rune('0'+i%10))+strings.Repeat("x", i/10)+`":"v"`)
	}
	return strings.Join(list, ",")
}

func TestUnmarshal(t *testing.T) {
	for _, tt := range documents {
		t.Run(tt.name, func(t *testing.T) {
			var got part
			err := Unmarshal([]byte(tt.in), &got, AllowUnknown)
			checkError(t, err, tt.want, tt.place)
			if err == nil {
				agrees(t, []byte(tt.in), got)
			}
		})
	}
}

func checkError(t *testing.T, err, want error, place string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if want == nil || place == "" {
		return
	}
	var e *decodeError
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	at, path, _ := strings.Cut(place, " ")
	if got := placeOf(e); got != at || e.Path != path {
		t.Errorf("got %s %q (%v), want %s %q", got, e.Path, err, at, path)
	}
}

func placeOf(e *decodeError) string {
	b, _ := json.Marshal([]int{e.Line, e.Column})
	return strings.NewReplacer("[", "", "]", "", ",", ":").Replace(string(b))
}

// agrees wants encoding/json to read the same.
func agrees(t *testing.T, raw []byte, got part) {
	t.Helper()
	var want part
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatalf("encoding/json refuses it: %v", err)
	}
	// Not cmp.Diff, which takes exponential time for values nested in any.
	if !reflect.DeepEqual(want, got) {
		t.Errorf("encoding/json reads something else: %+v, not %+v", want, got)
	}
}

func TestRefuseUnknown(t *testing.T) {
	for in, want := range map[string]string{
		`{"txet":"a"}`:            `line 1, column 2: unknown member: "txet", did you mean "text"?`,
		`{"parts":[{"nxet":{}}]}`: `line 1, column 12: parts[0]: unknown member: "nxet", did you mean "next"?`,
		`{"completely_else":1}`:   `line 1, column 2: unknown member: "completely_else"`,
		`{"tags":{"any":"x"}}`:    "",
		`{"Text":"a"}`:            `line 1, column 2: ambiguous member name: "Text" is not spelled "text"`,
		`{"ki\u017fses":"a"}`:     `line 1, column 2: ambiguous member name: "ki\u017fses" is not spelled "kisses"`,
	} {
		var p part
		err := Unmarshal([]byte(in), &p, RefuseUnknown)
		if got := errorText(err); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSize(t *testing.T) {
	raw := slices.Concat([]byte(`{}`), make([]byte, maxSize))
	if err := check(raw); !errors.Is(err, errSize) {
		t.Errorf("got %v", err)
	}
	for i := range raw[2:] {
		raw[2+i] = ' '
	}
	if err := check(raw[:maxSize]); err != nil {
		t.Errorf("a document of %d bytes: %v", maxSize, err)
	}
}

// TestKeepsDefaults reads over values that are there.
func TestKeepsDefaults(t *testing.T) {
	p := part{Text: "default", Number: 7, Parts: []part{{Text: "old"}}, embedded: embedded{Tags: map[string]string{"a": "b"}}}
	old := p.Parts
	if err := Unmarshal([]byte(`{"number":8,"parts":[{"number":1}],"tags":{"c":"d"}}`), &p, RefuseUnknown); err != nil {
		t.Fatal(err)
	}
	if p.Text != "default" || p.Number != 8 || p.Parts[0].Text != "" || old[0].Text != "old" || !maps.Equal(p.Tags, map[string]string{"a": "b", "c": "d"}) {
		t.Errorf("got %+v", p)
	}
}

func TestUnsupported(t *testing.T) {
	for name, v := range map[string]any{
		"no pointer": part{},
		"nil":        (*part)(nil),
		"channel":    &struct{ A chan int }{},
		"string": &struct {
			A int `json:",string"`
		}{},
		"same folded": &struct {
			A int
			B int `json:"a"`
		}{},
		"number keys": &struct{ A map[int]int }{},
		"interface":   &struct{ A error }{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = Unmarshal([]byte(`{"A":{}}`), v, AllowUnknown)
		}()
	}
}

func TestChanges(t *testing.T) {
	type op struct {
		path  string
		value any // nil removes
	}
	for _, tt := range []struct {
		name, in string
		ops      []op
		want     string
	}{
		{"nothing", " {\"a\" : 1}\n", nil, " {\"a\" : 1}\n"},
		{"replace", `{ "a" : 1 , "b":[ 2 ] }`, []op{{"a", "x"}}, `{ "a" : "x" , "b":[ 2 ] }`},
		{"replace by escape", `{"\u0061":1}`, []op{{"a", 2}}, `{"\u0061":2}`},
		{"add", `{ "a" : 1 }`, []op{{"b", 2}, {"c/d", 3}, {"c/e", 4}}, `{ "a" : 1,"b":2,"c":{"d":3,"e":4} }`},
		{"add to empty", `{ }`, []op{{"a", 1}}, `{"a":1 }`},
		{"add to null", `{"a":null}`, []op{{"a/b", 1}}, `{"a":{"b":1}}`},
		{"remove from null", `{"a":null}`, []op{{"a/b", nil}}, `{"a":null}`},
		{"remove what is absent", `{"a":1}`, []op{{"b", nil}, {"c/d", nil}}, `{"a":1}`},
		{"remove first", `{ "a":1, "b":2 }`, []op{{"a", nil}}, `{"b":2 }`},
		{"remove last", `{ "a":1, "b":2 }`, []op{{"b", nil}}, `{ "a":1 }`},
		{"remove middle", `{"a":1, "b":2, "c":3}`, []op{{"b", nil}}, `{"a":1,"c":3}`},
		{"remove two", `{"a":1, "b":2, "c":3 , "d":4}`, []op{{"b", nil}, {"c", nil}}, `{"a":1,"d":4}`},
		{"remove all", `{ "a":1, "b":2 }`, []op{{"a", nil}, {"b", nil}}, `{ }`},
		{"remove and add", `{"a":1,"b":{"c":2}}`, []op{{"a", nil}, {"b/c", nil}, {"b/d", 3}, {"e", 4}}, `{"b":{"d":3},"e":4}`},
		{"remove and change", `{"a":1,"b":2}`, []op{{"a", nil}, {"b", 3}}, `{"b":3}`},
		{"element", `{"a":[{"b":1}, {"b":2}]}`, []op{{"a/1/b", "x"}}, `{"a":[{"b":1}, {"b":"x"}]}`},
		{"whole", ` [1] `, []op{{"", 2}}, ` 2 `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Changes
			for _, o := range tt.ops {
				var path []string
				if o.path != "" {
					path = strings.Split(o.path, "/")
				}
				if o.value == nil {
					c.Remove(path...)
				} else if err := c.Set(o.value, path...); err != nil {
					t.Fatal(err)
				}
			}
			got, err := c.Apply([]byte(tt.in))
			if err != nil || string(got) != tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
			again, err := c.Apply(got)
			if err != nil || string(again) != tt.want {
				t.Errorf("a second time %s, %v", again, err)
			}
		})
	}
	for _, bad := range []struct{ in, path string }{{`{"a":1}`, "a/b"}, {`{"a":[]}`, "a/0"}, {`{"a":[1]}`, "a/x"}} {
		var c Changes
		if err := c.Set(1, strings.Split(bad.path, "/")...); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Apply([]byte(bad.in)); !errors.Is(err, errType) {
			t.Errorf("%s at %s: %s, %v", bad.in, bad.path, got, err)
		}
	}
}

// FuzzUnmarshal wants of whatever is accepted that encoding/json reads the same,
// and that a changed document differs in the change alone.
func FuzzUnmarshal(f *testing.F) {
	for _, tt := range documents {
		if len(tt.in) < 1<<12 {
			f.Add([]byte(tt.in))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got part
		err := Unmarshal(raw, &got, AllowUnknown)
		if err != nil {
			var e *decodeError
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		if err := check(raw); err != nil {
			t.Fatalf("accepted with a type and refused without: %v", err)
		}
		agrees(t, raw, got)
		var c Changes
		if err := c.Set("changed", "inner"); err != nil {
			t.Fatal(err)
		}
		c.Remove("text")
		edited, err := c.Apply(raw)
		if err != nil {
			t.Fatal(err)
		}
		var after part
		if err := Unmarshal(edited, &after, AllowUnknown); err != nil {
			t.Fatalf("%s: %v", edited, err)
		}
		got.Inner, got.Text = "changed", ""
		if !reflect.DeepEqual(got, after) {
			t.Errorf("the change changed more: %+v became %+v", got, after)
		}
	})
}

// large is a configuration of 100 KiB.
func large(tb testing.TB) []byte {
	s := specs.Spec{Version: "1.1.0", Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}, Root: &specs.Root{Path: "rootfs"}, Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{}}}
	for i := 0; len(s.Process.Env) < 200; i++ {
		s.Process.Env = append(s.Process.Env, "VARIABLE_"+strings.Repeat("X", i%20)+"=value of the variable")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/var/lib/volume" + strings.Repeat("x", i), Type: "bind", Source: "/srv", Options: []string{"rbind", "ro", "nosuid"}})
	}
	for {
		names := []string{"accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "capget", "capset", "chdir", "chmod", "chown"}
		s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 2114060288, Op: specs.OpMaskedEqual}}})
		if b, err := json.Marshal(s); err != nil {
			tb.Fatal(err)
		} else if len(b) >= 100<<10 {
			return b
		}
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	raw := large(b)
	for name, read := range map[string]func(*specs.Spec) error{
		"strict":   func(s *specs.Spec) error { return Unmarshal(raw, s, AllowUnknown) },
		"std":      func(s *specs.Spec) error { return json.Unmarshal(raw, s) },
		"untyped":  func(*specs.Spec) error { return check(raw) },
		"stdvalid": func(*specs.Spec) error { json.Valid(raw); return nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				var s specs.Spec
				if err := read(&s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestLarge reads the benchmark's document as encoding/json does.
func TestLarge(t *testing.T) {
	raw := large(t)
	var got, want specs.Spec
	if err := Unmarshal(raw, &got, RefuseUnknown); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// check reads a document without a type: it refuses whatever is ambiguous in any.
func check(raw []byte) error {
	d := decoder{raw: raw}
	return d.document(none)
}
