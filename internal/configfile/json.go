// SPDX-License-Identifier: Apache-2.0

package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/tailscale/hujson"
)

// JSON is a file that holds one JSON object, to be changed member by member: what
// is not changed keeps its bytes, white space and order.
type JSON struct {
	root hujson.Value
	step string
}

// Object is an object of a [JSON] file.
type Object struct {
	file   *JSON
	object *hujson.Object
	// indent is the white space that the line of the object begins with.
	indent string
}

// ParseJSON reads a file that holds one object. Engines read strict JSON, so
// comments and trailing commas are errors, and so is a key that an object has
// twice: readers do not agree on which one counts. The error is a
// [*json.SyntaxError] where there is a place to point at.
func ParseJSON(text []byte) (*JSON, error) {
	// This decoder bounds the depth, and places errors better.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	root, err := hujson.Parse(text)
	if err != nil {
		return nil, err
	}
	f := &JSON{root: root, step: indentStep(text)}
	if _, ok := root.Value.(*hujson.Object); !ok {
		return nil, errors.New("is no JSON object")
	}
	for v := range f.root.All() {
		if o, ok := v.Value.(*hujson.Object); ok {
			if err := unique(o, func(name string) string { return name }); err != nil {
				return nil, err
			}
		}
	}
	return f, unique(f.root.Value.(*hujson.Object), fold)
}

// unique refuses an object that has a key twice.
func unique(o *hujson.Object, key func(string) string) error {
	seen := make(map[string]string, len(o.Members))
	for _, m := range o.Members {
		name := nameOf(m)
		switch before, twice := seen[key(name)]; {
		case twice && before == name:
			return fmt.Errorf("has %q twice", name)
		case twice:
			return fmt.Errorf("has both %q and %q, which engines read as one", before, name)
		}
		seen[key(name)] = name
	}
	return nil
}

// fold is the same for names that Go's decoder takes for one member of a struct:
// "Runtimes" and "runtimes".
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		low := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			low = min(low, next)
		}
		return low
	}, name)
}

func nameOf(m hujson.ObjectMember) string { return m.Name.Value.(hujson.Literal).String() }

// Bytes is the file.
func (f *JSON) Bytes() []byte { return f.root.Pack() }

// Root is the object that the file holds.
func (f *JSON) Root() Object {
	return Object{f, f.root.Value.(*hujson.Object), ""}
}

// Len is the number of members.
func (o Object) Len() int { return len(o.object.Members) }

func (o Object) find(key string) int {
	return slices.IndexFunc(o.object.Members, func(m hujson.ObjectMember) bool { return nameOf(m) == key })
}

// Get is the text of a member's value; nil when there is none.
func (o Object) Get(key string) []byte {
	i := o.find(key)
	if i < 0 {
		return nil
	}
	v := o.object.Members[i].Value
	v.BeforeExtra, v.AfterExtra = nil, nil
	return v.Pack()
}

// Object is the object that is a member; ok is false when there is no such member.
// A member that is no object is an error.
func (o Object) Object(key string) (inner Object, ok bool, err error) {
	i := o.find(key)
	if i < 0 {
		return inner, false, nil
	}
	object, is := o.object.Members[i].Value.Value.(*hujson.Object)
	if !is {
		return inner, true, fmt.Errorf("%s is no JSON object", key)
	}
	indent := o.indent
	if at := lastLine(o.object.Members[i].Name.BeforeExtra); at != nil {
		indent = *at
	}
	return Object{o.file, object, indent}, true, nil
}

// Set gives a member its value, JSON of one or several lines, in the place where it
// is or behind the last member, indented as the others are.
func (o Object) Set(key, value string) error {
	v, err := hujson.Parse([]byte(value))
	if err != nil {
		return fmt.Errorf("value of %s: %w", key, err)
	}
	if i := o.find(key); i >= 0 {
		o.object.Members[i].Value.Value = v.Value
		return nil
	}
	m := hujson.ObjectMember{
		Name:  hujson.Value{Value: hujson.String(key)},
		Value: hujson.Value{BeforeExtra: hujson.Extra(" ")},
	}
	if o.object == o.file.root.Value {
		for _, m := range o.object.Members {
			if name := nameOf(m); fold(name) == fold(key) {
				return fmt.Errorf("has %q, which engines read as %q: rename it first", name, key)
			}
		}
	}
	n := len(o.object.Members)
	var own *string // the indentation of a line of its own
	if n == 0 {
		inner := o.indent + o.file.step
		own = &inner
		o.object.AfterExtra = hujson.Extra("\n" + o.indent)
	} else {
		own = lastLine(o.object.Members[0].Name.BeforeExtra)
		last := &o.object.Members[n-1].Value
		last.AfterExtra = nil
	}
	if own != nil {
		m.Name.BeforeExtra = hujson.Extra("\n" + *own)
		if v, err = hujson.Parse([]byte(strings.ReplaceAll(value, "\n", "\n"+*own))); err != nil {
			return err
		}
	} else {
		m.Name.BeforeExtra = hujson.Extra(" ")
	}
	m.Value.Value = v.Value
	o.object.Members = append(o.object.Members, m)
	return nil
}

// Remove takes a member away, with one comma beside it.
func (o Object) Remove(key string) {
	i := o.find(key)
	if i < 0 {
		return
	}
	members := o.object.Members
	switch {
	case len(members) == 1:
		o.object.AfterExtra = nil
	case i == 0:
		members[1].Name.BeforeExtra = members[0].Name.BeforeExtra
	case i == len(members)-1:
		members[i-1].Value.AfterExtra = nil // no comma follows
	}
	o.object.Members = slices.Delete(members, i, i+1)
}

// lastLine is the white space behind the last line break; nil when there is none.
func lastLine(extra hujson.Extra) *string {
	i := bytes.LastIndexByte(extra, '\n')
	if i < 0 {
		return nil
	}
	s := string(extra[i+1:])
	return &s
}

// indentStep is by how much the text indents: that of its first indented line.
func indentStep(text []byte) string {
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimLeft(line, " \t")
		if trimmed != line && strings.TrimSpace(trimmed) != "" {
			return line[:len(line)-len(trimmed)]
		}
	}
	return "  "
}

// SameJSON reports whether two texts are the same JSON but for white space.
func SameJSON(a []byte, b string) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, []byte(b)) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
