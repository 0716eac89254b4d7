// SPDX-License-Identifier: Apache-2.0

package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	set := func(key, value string) func(Object) error {
		return func(o Object) error { return o.Set(key, value) }
	}
	remove := func(key string) func(Object) error {
		return func(o Object) error { o.Remove(key); return nil }
	}
	in := func(key string, do func(Object) error) func(Object) error {
		return func(o Object) error {
			inner, ok, err := o.Object(key)
			if err == nil && !ok {
				err = errors.New("no " + key)
			}
			if err != nil {
				return err
			}
			return do(inner)
		}
	}
	for _, tt := range []struct {
		name   string
		before string
		do     func(Object) error
		after  string
		wrong  string
	}{
		{"empty", "{}\n", set("a", "1"), "{\n  \"a\": 1\n}\n", ""},
		{"empty with a space", "{ }", set("a", "1"), "{\n  \"a\": 1\n}", ""},
		{"behind the last", "{\n\t\"a\":  1\n}", set("b", "true"), "{\n\t\"a\":  1,\n\t\"b\": true\n}", ""},
		{"one line", `{"a":1}`, set("b", "2"), `{"a":1, "b": 2}`, ""},
		{"one line with spaces", `{ "a":1 }`, set("b", "2"), `{ "a":1, "b": 2 }`, ""},
		{"in its place", "{\"a\" : [ 1 ] , \"b\":2}", set("a", "3"), "{\"a\" : 3 , \"b\":2}", ""},
		{"several lines", "{\n    \"a\": 1\n}", set("b", "{\n  \"c\": 1\n}"), "{\n    \"a\": 1,\n    \"b\": {\n      \"c\": 1\n    }\n}", ""},
		{"of an inner object", "{\n  \"r\": {\n    \"x\": 1\n  }\n}", in("r", set("y", "2")), "{\n  \"r\": {\n    \"x\": 1,\n    \"y\": 2\n  }\n}", ""},
		{"of an empty inner object", "{\n  \"r\": {}\n}", in("r", set("y", "2")), "{\n  \"r\": {\n    \"y\": 2\n  }\n}", ""},
		{"a key that needs quotes", "{}", set("a\"\n", "1"), "{\n  \"a\\\"\\n\": 1\n}", ""},
		{"the key is written differently", `{"\u0061":1}`, set("a", "2"), `{"\u0061":2}`, ""},
		{"remove the only one", "{ \"a\": 1 }", remove("a"), "{}", ""},
		{"remove the first", "{\n \"a\": 1,\n  \"b\": 2\n}", remove("a"), "{\n \"b\": 2\n}", ""},
		{"remove the last", "{\n \"a\": 1 ,\n  \"b\": 2\n}", remove("b"), "{\n \"a\": 1\n}", ""},
		{"remove one between", "{\"a\":1,\n\"b\":2 , \"c\":3}", remove("b"), "{\"a\":1, \"c\":3}", ""},
		{"remove what is not there", `{"a":1}`, remove("b"), `{"a":1}`, ""},
		{"numbers stay as written", `{"a":1.50e+01,"b":123456789012345678901234567890}`, set("c", "0"), `{"a":1.50e+01,"b":123456789012345678901234567890, "c": 0}`, ""},
		{"no object", "[]", nil, "", "is no JSON object"},
		{"an inner value", `{"r":null}`, in("r", nil), "", "r is no JSON object"},
		{"behind the object", `{"a":1}{`, nil, "", "invalid character"},
		{"a comment", "{} // x", nil, "", "invalid character"},
		{"a trailing comma", `{"a":1,}`, nil, "", "invalid character"},
		{"twice", `{"a":1,"a":2}`, nil, "", `has "a" twice`},
		{"twice, written differently", `{"a":1,"\u0061":2}`, nil, "", `has "a" twice`},
		{"twice inside", `{"x":[{"a":1,"a":2}]}`, nil, "", `has "a" twice`},
		{"folded", `{"runtimes":{},"Runtimes":{}}`, nil, "", `has both "runtimes" and "Runtimes"`},
		{"folded inside, where names are keys", `{"runtimes":{"a":{},"A":{}}}`, remove("x"), `{"runtimes":{"a":{},"A":{}}}`, ""},
		{"set beside a folded one", `{"Runtimes":{}}`, set("runtimes", "{}"), "", `engines read as "runtimes"`},
		{"set beside a folded one, beyond ASCII", `{"runtimeſ":{}}`, set("runtimes", "{}"), "", `engines read as "runtimes"`},
		{"set what is no JSON", `{}`, set("a", "{"), "", "value of a"},
		{"too deep", strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000), nil, "", "max depth"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseJSON([]byte(tt.before))
			if err == nil && tt.do != nil {
				err = tt.do(f.Root())
			}
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %v, want an error with %q", err, tt.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := string(f.Bytes()); got != tt.after {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.after)
			}
		})
	}
}

// FuzzJSON sets a member and removes it in whatever is a JSON object: everything
// else has to keep its value, and without a change every byte.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{"{}", "{ }", `{"a":1}`, "{\n  \"k\": {},\n \"b\":[1,{\"c\":2}]}", `{"k":null , "z":1}`, "[]", `{"\u006b":{}}`, `{"K":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := ParseJSON(text)
		if err != nil {
			return
		}
		if !bytes.Equal(doc.Bytes(), text) {
			t.Fatalf("%q became %q", text, doc.Bytes())
		}
		members := func(text []byte) map[string]json.RawMessage {
			m := map[string]json.RawMessage{}
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			return m
		}
		before := members(text)
		if err := doc.Root().Set("k", `{"x": [true]}`); err != nil {
			return // a folded name is there
		}
		set := doc.Bytes()
		after := members(set)
		if string(after["k"]) != `{"x": [true]}` {
			t.Fatalf("%q -> %q", text, set)
		}
		doc.Root().Remove("k")
		left := members(doc.Bytes())
		delete(before, "k")
		delete(after, "k")
		for name, value := range before {
			if !bytes.Equal(after[name], value) || !bytes.Equal(left[name], value) {
				t.Fatalf("%q of %q became %q, then %q", name, text, set, doc.Bytes())
			}
		}
		if len(after) != len(before) || len(left) != len(before) {
			t.Fatalf("%q -> %q -> %q", text, set, doc.Bytes())
		}
	})
}
