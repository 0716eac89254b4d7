// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// strip returns a copy of a tree without positions, comments apart from their
// text included.
func strip(f *File) []Item {
	out := make([]Item, len(f.Items))
	for i, it := range f.Items {
		out[i] = stripValue(reflect.ValueOf(it)).Interface().(Item)
	}
	return out
}

func stripValue(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		n := reflect.New(v.Elem().Type())
		n.Elem().Set(stripValue(v.Elem()))
		return n
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		n := reflect.New(v.Type()).Elem()
		n.Set(stripValue(v.Elem()))
		return n
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		n := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			n.Index(i).Set(stripValue(v.Index(i)))
		}
		return n
	case reflect.Struct:
		n := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			f := v.Field(i)
			switch {
			case f.Type() == reflect.TypeFor[diag.Span]():
			case v.Type().Field(i).Name == "at":
			case v.Type().Field(i).Name == "Raw":
			default:
				n.Field(i).Set(stripValue(f))
			}
		}
		return n
	}
	return v
}

// roundTrip prints a tree and parses it again; the trees are equal and a second
// print changes nothing.
func roundTrip(t *testing.T, name string, f *File) {
	t.Helper()
	var one, two bytes.Buffer
	if err := Print(&one, f); err != nil {
		t.Fatal(err)
	}
	g, diags := Parse(name, one.Bytes())
	if diags.HasErrors() {
		t.Fatalf("%s: what was printed does not parse: %v\n%s", name, diags, one.Bytes())
	}
	if a, b := strip(f), strip(g); !reflect.DeepEqual(a, b) {
		t.Fatalf("%s: printing changed the tree:\n%s\nfrom\n%s", name, one.Bytes(), f.Text)
	}
	if err := Print(&two, g); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatalf("%s: printing twice is not the same as once:\n%s\nthen\n%s", name, one.Bytes(), two.Bytes())
	}
}

func TestPrintRoundTripCorpus(t *testing.T) {
	dir := filepath.Join(oracle.Corpus(t, "apparmor"), "simple_tests")
	n := 0
	for _, c := range loadSuite(t, dir) {
		f, diags := Parse(c.Name, c.Text)
		if diags.HasErrors() {
			continue
		}
		n++
		roundTrip(t, c.Name, f)
	}
	if n < 100 {
		t.Errorf("only %d files of %s parse", n, dir)
	}
}
