// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// none is the target of a value that is checked and not kept.
var none reflect.Value

func target(v any) reflect.Value {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		panic(fmt.Sprintf("strictjson: target %T is no pointer to a value", v))
	}
	return rv.Elem()
}

func (d *decoder) document(v reflect.Value) error {
	if len(d.raw) > maxSize {
		return d.fail(0, errSize, "%d bytes, at most %d", len(d.raw), maxSize)
	}
	if strings.HasPrefix(string(d.raw[:min(3, len(d.raw))]), "\ufeff") {
		return d.fail(0, errText, "byte order mark")
	}
	d.space()
	if err := d.value(v); err != nil {
		return err
	}
	if d.space(); d.pos < len(d.raw) {
		return d.fail(d.pos, errSyntax, "found %s after the document", d.found())
	}
	return nil
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads the value at the position into v, or passes over it when v is none.
func (d *decoder) value(v reflect.Value) error {
	if !v.IsValid() {
		return d.pass()
	}
	c := d.peek()
	if v.Kind() == reflect.Pointer {
		if c == 'n' {
			return d.null(v)
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem())
	}
	if v.Kind() != reflect.Interface && v.CanAddr() {
		switch p := reflect.PointerTo(v.Type()); {
		case p.Implements(jsonUnmarshaler):
			return d.own(v.Addr().Interface().(json.Unmarshaler))
		case p.Implements(textUnmarshaler):
			return d.ownText(v.Addr().Interface().(encoding.TextUnmarshaler))
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		if c != '{' {
			return d.mismatch("an object")
		}
		return d.structure(v, structOf(v.Type()))
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			panic(fmt.Sprintf("strictjson: %v has keys that are no strings", v.Type()))
		}
		if c == 'n' {
			return d.null(v)
		}
		if c != '{' {
			return d.mismatch("an object")
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		return d.mapping(v)
	case reflect.Slice:
		switch {
		case c == 'n':
			return d.null(v)
		case c == '"' && v.Type().Elem().Kind() == reflect.Uint8:
			return d.bytes(v)
		case c != '[':
			return d.mismatch("an array")
		}
		return d.slice(v)
	case reflect.Array:
		if c != '[' {
			return d.mismatch("an array")
		}
		return d.array(v)
	case reflect.Interface:
		if v.NumMethod() != 0 {
			panic(fmt.Sprintf("strictjson: nothing is known about a value of %v", v.Type()))
		}
		x, err := d.any()
		if err == nil {
			if x == nil {
				v.SetZero()
			} else {
				v.Set(reflect.ValueOf(x))
			}
		}
		return err
	case reflect.String:
		if c != '"' {
			return d.mismatch("a string")
		}
		s, err := d.text()
		if err == nil {
			v.SetString(string(s))
		}
		return err
	case reflect.Bool:
		if c != 't' && c != 'f' {
			return d.mismatch("true or false")
		}
		v.SetBool(c == 't')
		return d.boolean(c)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64:
		return d.numeric(v, c)
	default:
		panic(fmt.Sprintf("strictjson: no JSON for %v", v.Type()))
	}
}

// mismatch is the error of a value of another type than wanted.
func (d *decoder) mismatch(want string) error {
	found, reason := d.found(), errSyntax
	if d.pos < len(d.raw) {
		reason = errType
		switch c := d.raw[d.pos]; {
		case c == '"':
			found = "a string"
		case c == '{':
			found = "an object"
		case c == '[':
			found = "an array"
		case c == 'n' && strings.HasPrefix(string(d.raw[d.pos:min(d.pos+4, len(d.raw))]), "null"):
			found = "null"
		case c == 't', c == 'f':
			found = "a boolean"
		case c == '-' || c-'0' < 10:
			found = "a number"
		default:
			reason = errSyntax
		}
	}
	return d.fail(d.pos, reason, "found %s, want %s", found, want)
}

func (d *decoder) null(v reflect.Value) error {
	v.SetZero()
	return d.literal("null")
}

func (d *decoder) boolean(c byte) error {
	if c == 't' {
		return d.literal("true")
	}
	return d.literal("false")
}

// numeric reads an integer or a floating-point number. An integer is written as
// one, and not as -0: "1e3" and "1.0" are integers for some readers only.
func (d *decoder) numeric(v reflect.Value, c byte) error {
	if c != '-' && c-'0' >= 10 {
		return d.mismatch("a number")
	}
	at := d.pos
	text, integer, err := d.number()
	if err != nil {
		return err
	}
	s := string(text)
	switch {
	case v.CanFloat():
		f, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return d.fail(at, errNumber, "%s is out of range", shorten(text))
		}
		v.SetFloat(f)
		return nil
	case !integer:
		return d.fail(at, errNumber, "%s is not written as an integer", shorten(text))
	case s == "-0":
		return d.fail(at, errNumber, "-0 is not written as 0")
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return d.fail(at, errNumber, "%s does not fit into %d bits", shorten(text), v.Type().Bits())
		}
		v.SetInt(n)
	default:
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return d.fail(at, errNumber, "%s does not fit into %d bits without a sign", shorten(text), v.Type().Bits())
		}
		v.SetUint(n)
	}
	return nil
}

// own leaves a value to its type, once it is known to be unambiguous.
func (d *decoder) own(u json.Unmarshaler) error {
	at := d.pos
	if err := d.pass(); err != nil {
		return err
	}
	if err := u.UnmarshalJSON(d.raw[at:d.pos]); err != nil {
		return d.fail(at, errType, "%w", err)
	}
	return nil
}

func (d *decoder) ownText(u encoding.TextUnmarshaler) error {
	at := d.pos
	if d.peek() != '"' {
		return d.mismatch("a string")
	}
	s, err := d.text()
	if err != nil {
		return err
	}
	if err := u.UnmarshalText(s); err != nil {
		return d.fail(at, errType, "%w", err)
	}
	return nil
}

func (d *decoder) bytes(v reflect.Value) error {
	at := d.pos
	s, err := d.text()
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(string(s))
	if err != nil || strings.ContainsAny(string(s), "\r\n") {
		return d.fail(at, errText, "no base64")
	}
	v.SetBytes(b)
	return nil
}

func (d *decoder) enter(s step) { d.path = append(d.path, s) }
func (d *decoder) leave()       { d.path = d.path[:len(d.path)-1] }

func (d *decoder) slice(v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	i := 0
	return d.list(']', func() error {
		d.enter(step{index: i})
		if i == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(i + 1)
		if err := d.value(v.Index(i)); err != nil {
			return err
		}
		d.leave()
		i++
		return nil
	})
}

func (d *decoder) array(v reflect.Value) error {
	start, i := d.pos, 0
	err := d.list(']', func() error {
		if i >= v.Len() {
			return d.fail(d.pos, errType, "more than %d elements", v.Len())
		}
		d.enter(step{index: i})
		if err := d.value(v.Index(i)); err != nil {
			return err
		}
		d.leave()
		i++
		return nil
	})
	if err == nil && i < v.Len() {
		return d.fail(start, errType, "found %d elements, want %d", i, v.Len())
	}
	return err
}

func (d *decoder) mapping(v reflect.Value) error {
	seen := d.names()
	defer seen.done()
	elem := v.Type().Elem()
	return d.list('}', func() error {
		name, at, err := d.member()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return d.fail(at, errDuplicate, "%s", show(string(name)))
		}
		key := string(name)
		d.enter(step{name: key, index: -1})
		x := reflect.New(elem).Elem()
		if err := d.value(x); err != nil {
			return err
		}
		d.leave()
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), x)
		return nil
	})
}

func (d *decoder) structure(v reflect.Value, s *structInfo) error {
	seen := d.names()
	defer seen.done()
	folded := map[string]bool(nil)
	var known uint64
	var more []bool // for structs of more than 64 members
	return d.list('}', func() error {
		name, at, err := d.member()
		if err != nil {
			return err
		}
		f, ok := s.byName[string(name)]
		if !ok {
			return d.stranger(name, at, s, seen, &folded)
		}
		again := false
		if f.number < 64 {
			again = known&(1<<f.number) != 0
			known |= 1 << f.number
		} else {
			if more == nil {
				more = make([]bool, len(s.byName))
			}
			again = more[f.number]
			more[f.number] = true
		}
		if again {
			return d.fail(at, errDuplicate, "%s", show(f.name))
		}
		d.enter(step{name: f.name, index: -1})
		if err := d.value(f.in(v)); err != nil {
			return err
		}
		d.leave()
		return nil
	})
}

// stranger checks a member that a struct does not have.
func (d *decoder) stranger(name []byte, at int, s *structInfo, seen *names, folded *map[string]bool) error {
	alias := fold(name)
	switch right, near := s.byFold[alias]; {
	case near:
		return d.fail(at, errFolded, "%s is not spelled %q", show(string(name)), right)
	case !seen.add(name):
		return d.fail(at, errDuplicate, "%s", show(string(name)))
	case (*folded)[alias]:
		return d.fail(at, errFolded, "%s differs from another member in case alone", show(string(name)))
	case d.unknown == RefuseUnknown:
		if right := s.nearest(string(name)); right != "" {
			return d.fail(at, errUnknown, "%s, did you mean %q?", show(string(name)), right)
		}
		return d.fail(at, errUnknown, "%s", show(string(name)))
	}
	if *folded == nil {
		*folded = map[string]bool{}
	}
	(*folded)[alias] = true
	d.enter(step{name: string(name), index: -1})
	if err := d.pass(); err != nil {
		return err
	}
	d.leave()
	return nil
}

// pass checks a value of unknown meaning and moves behind it.
func (d *decoder) pass() error {
	switch c := d.peek(); {
	case c == '{':
		seen := d.names()
		defer seen.done()
		return d.list('}', func() error {
			name, at, err := d.member()
			if err != nil {
				return err
			}
			if !seen.add(name) {
				return d.fail(at, errDuplicate, "%s", show(string(name)))
			}
			d.enter(step{name: string(name), index: -1})
			if err := d.pass(); err != nil {
				return err
			}
			d.leave()
			return nil
		})
	case c == '[':
		i := 0
		return d.list(']', func() error {
			d.enter(step{index: i})
			if err := d.pass(); err != nil {
				return err
			}
			d.leave()
			i++
			return nil
		})
	case c == '"':
		_, err := d.text()
		return err
	case c == 't', c == 'f':
		return d.boolean(c)
	case c == 'n':
		return d.literal("null")
	case c == '-', c-'0' < 10:
		_, _, err := d.number()
		return err
	default:
		return d.fail(d.pos, errSyntax, "found %s, want a value", d.found())
	}
}

// any reads a value into the types that encoding/json has for any. An integer
// that a float64 cannot hold is refused.
func (d *decoder) any() (any, error) {
	switch c := d.peek(); {
	case c == '{':
		m := map[string]any{}
		err := d.mapping(reflect.ValueOf(&m).Elem())
		return m, err
	case c == '[':
		s := []any{}
		err := d.slice(reflect.ValueOf(&s).Elem())
		return s, err
	case c == '"':
		s, err := d.text()
		return string(s), err
	case c == 't', c == 'f':
		return c == 't', d.boolean(c)
	case c == '-', c-'0' < 10:
		at := d.pos
		text, integer, err := d.number()
		if err != nil {
			return nil, err
		}
		f, err := strconv.ParseFloat(string(text), 64)
		if err != nil || integer && strconv.FormatFloat(f, 'f', -1, 64) != string(text) {
			return nil, d.fail(at, errNumber, "%s is not exact in 64 bits", shorten(text))
		}
		return f, nil
	default:
		return nil, d.pass()
	}
}
