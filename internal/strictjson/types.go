// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// structInfo are the members of a struct. It is made when the struct is first
// met: of a large tree of types a document touches few.
type structInfo struct {
	byName map[string]*field
	byFold map[string]string // folded name → spelling
}

type field struct {
	name   string
	number int
	index  []int
}

// in returns the field of v, and makes the embedded structs on the way.
func (f *field) in(v reflect.Value) reflect.Value {
	for i, n := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v
}

var structs sync.Map // reflect.Type → *structInfo

func structOf(t reflect.Type) *structInfo {
	if s, ok := structs.Load(t); ok {
		return s.(*structInfo)
	}
	s := &structInfo{byName: map[string]*field{}, byFold: map[string]string{}}
	s.collect(t, nil)
	got, _ := structs.LoadOrStore(t, s)
	return got.(*structInfo)
}

// collect adds the members of t. Two of one name, or of names that fold to one
// another, are a programming error: no document could be read.
func (s *structInfo) collect(t reflect.Type, prefix []int) {
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if tag == "-" && options == "" {
			continue
		}
		index := append(append([]int{}, prefix...), i)
		if sf.Anonymous && tag == "" {
			inner := sf.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				s.collect(inner, index)
				continue
			}
		}
		if !sf.IsExported() {
			continue
		}
		for option := range strings.SplitSeq(options, ",") {
			if option == "string" {
				panic(fmt.Sprintf("strictjson: %v.%s has the option \"string\"", t, sf.Name))
			}
		}
		name := tag
		if name == "" {
			name = sf.Name
		}
		alias := fold([]byte(name))
		if other, taken := s.byFold[alias]; taken {
			panic(fmt.Sprintf("strictjson: %v has members %q and %q", t, other, name))
		}
		s.byName[name] = &field{name: name, number: len(s.byName), index: index}
		s.byFold[alias] = name
	}
}

// nearest is the member that a name may have been meant for, empty for none.
func (s *structInfo) nearest(name string) string {
	return Nearest(name, slices.Sorted(maps.Keys(s.byName)))
}

// Nearest returns the candidate that a misspelled name was most likely meant for,
// the first of equals; empty when none is near.
func Nearest(name string, candidates []string) string {
	if len(name) > maxPathName {
		return ""
	}
	best, bound := "", len(name)/3+2
	for _, c := range candidates {
		if len(c) > 2*maxPathName {
			continue
		}
		if n := distance(name, c); n < bound {
			best, bound = c, n
		}
	}
	return best
}

// distance counts the bytes to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// names are the names of one object. Most objects have few, for which a list is
// faster than a map. The lists of an object and of those around it stand behind
// one another in the decoder.
type names struct {
	d    *decoder
	from int
	many map[string]struct{}
}

const fewNames = 12

func (d *decoder) names() *names { return &names{d: d, from: len(d.seen)} }

func (n *names) done() { n.d.seen = n.d.seen[:n.from] }

// add reports whether the name was not yet there. It keeps the slice.
func (n *names) add(name []byte) bool {
	if n.many != nil {
		if _, ok := n.many[string(name)]; ok {
			return false
		}
		n.many[string(name)] = struct{}{}
		return true
	}
	few := n.d.seen[n.from:]
	for _, have := range few {
		if string(have) == string(name) {
			return false
		}
	}
	n.d.seen = append(n.d.seen, name)
	if len(few) == fewNames {
		n.many = make(map[string]struct{}, 4*fewNames)
		for _, have := range n.d.seen[n.from:] {
			n.many[string(have)] = struct{}{}
		}
	}
	return true
}
