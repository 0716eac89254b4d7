// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// Direction tells which way a permission moves information.
type Direction uint8

// Directions of a permission. Read moves information from the target to the
// source of a rule, Write from the source to the target.
const (
	NoFlow Direction = 0
	Read   Direction = 1
	Write  Direction = 2
	Both   Direction = Read | Write
)

// PermWeight is what a permission means for information flow. Weight is from 1,
// next to nothing, to 10, as much as one likes.
type PermWeight struct {
	Direction Direction
	Weight    uint8
}

// PermMap says for each permission how information flows when it is used.
type PermMap struct {
	classes map[string]map[string]PermWeight // the class "*" is for all others
}

// Of returns what a permission of a class means; ok is false when the map does
// not say.
func (m *PermMap) Of(class, perm string) (w PermWeight, ok bool) {
	if w, ok = m.classes[class][perm]; ok {
		return w, true
	}
	w, ok = m.classes["*"][perm]
	return w, ok
}

// Unmapped returns "class perm" for what a policy has and the map does not; such
// permissions move nothing.
func (m *PermMap) Unmapped(p *policydb.Policy) []string {
	var out []string
	for c := range p.Classes.All() {
		for _, perm := range c.PermissionNames(c.AllPermissions()) {
			if _, ok := m.Of(c.Name, perm); !ok {
				out = append(out, c.Name+" "+perm)
			}
		}
	}
	return out
}

//go:embed permmap.txt
var builtinMap string

// BuiltinPermMap returns the map that is part of Palisade: what each permission
// of the kernel's and the usual user-space classes can carry.
func BuiltinPermMap() *PermMap {
	m := &PermMap{classes: map[string]map[string]PermWeight{}}
	for line := range strings.Lines(builtinMap) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		// CLASS DIRECTION WEIGHT PERMISSION...
		weight, err := strconv.ParseUint(f[2], 10, 8)
		direction, ok := directions[f[1]]
		if err != nil || !ok {
			panic("built-in permission map: " + line)
		}
		if m.classes[f[0]] == nil {
			m.classes[f[0]] = map[string]PermWeight{}
		}
		for _, perm := range f[3:] {
			m.classes[f[0]][perm] = PermWeight{direction, uint8(weight)}
		}
	}
	return m
}

var directions = map[string]Direction{"r": Read, "w": Write, "b": Both, "n": NoFlow, "u": NoFlow}

// maxMapClasses and maxMapPerms bound what a map may declare: the policy format
// has 16 bits for classes and 32 permissions in each, and maps list old ones too.
const (
	maxMapClasses = 1 << 16
	maxMapPerms   = 64
)

// ParsePermMap reads a map in the format of setools: the number of classes, then
// for each "class NAME COUNT" and COUNT lines "PERMISSION DIRECTION WEIGHT",
// where DIRECTION is r, w, b (both), n (none) or u (not mapped yet) and WEIGHT
// from 1 to 10. A "#" begins a comment. The error names the line.
func ParsePermMap(r io.Reader) (*PermMap, error) {
	m := &PermMap{classes: map[string]map[string]PermWeight{}}
	sc := bufio.NewScanner(r)
	line, classes, left := 0, -1, 0
	var class string
	bad := func(format string, args ...any) error {
		return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
	}
	for sc.Scan() {
		line++
		text, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(text)
		switch {
		case len(f) == 0:
		case classes < 0:
			n, err := strconv.Atoi(f[0])
			if len(f) != 1 || err != nil || n < 1 || n > maxMapClasses {
				return nil, bad("want the number of classes, found %q", strings.TrimSpace(text))
			}
			classes = n
		case left == 0:
			if len(f) != 3 || f[0] != "class" {
				return nil, bad("want \"class NAME COUNT\", found %q", strings.TrimSpace(text))
			}
			n, err := strconv.Atoi(f[2])
			if err != nil || n < 1 || n > maxMapPerms {
				return nil, bad("want a number of permissions from 1 to %d, found %q", maxMapPerms, f[2])
			}
			if class = f[1]; m.classes[class] != nil {
				return nil, bad("class %s is there twice", class)
			}
			if len(m.classes) == classes {
				return nil, bad("more than the %d classes that the map begins with", classes)
			}
			m.classes[class], left = map[string]PermWeight{}, n
		default:
			if len(f) != 3 {
				return nil, bad("want \"PERMISSION DIRECTION WEIGHT\", found %q", strings.TrimSpace(text))
			}
			d, ok := directions[f[1]]
			if !ok {
				return nil, bad("direction %q of %s is not r, w, b, n or u", f[1], f[0])
			}
			w, err := strconv.Atoi(f[2])
			if err != nil || w < 1 || w > 10 {
				return nil, bad("weight %q of %s is not from 1 to 10", f[2], f[0])
			}
			if _, twice := m.classes[class][f[0]]; twice {
				return nil, bad("permission %s of class %s is there twice", f[0], class)
			}
			m.classes[class][f[0]] = PermWeight{d, uint8(w)}
			left--
		}
	}
	if err := sc.Err(); err != nil {
		line++
		return nil, bad("%v", err)
	}
	switch {
	case classes < 0:
		return nil, bad("the map is empty")
	case left > 0:
		return nil, bad("class %s lacks %d permissions", class, left)
	case len(m.classes) < classes:
		return nil, bad("%d classes, the map begins with %d", len(m.classes), classes)
	}
	return m, nil
}
