// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding/json"
	"strconv"
)

// Changes are changes to one document, which [Changes.Apply] makes in a single
// pass. The zero value changes nothing. It is not for use by several goroutines
// at once.
type Changes struct {
	root change
}

// change is what happens to one value: it is replaced, removed, or something in
// it is changed.
type change struct {
	value  []byte
	remove bool
	inner  map[string]*change
	order  []string
}

// Set replaces the value that the path leads to by v as encoding/json writes it;
// members that are missing on the way are added. An element of an array is named
// by its index in decimal and has to be there. A later change of the same value
// replaces an earlier one.
func (c *Changes) Set(v any, path ...string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	*c.root.at(path) = change{value: b}
	return nil
}

// Remove takes the member that the path leads to out of its object. Elements of
// arrays cannot be removed.
func (c *Changes) Remove(path ...string) {
	*c.root.at(path) = change{remove: true}
}

func (c *change) at(path []string) *change {
	for _, name := range path {
		if c.inner == nil {
			*c = change{inner: map[string]*change{}}
		}
		next := c.inner[name]
		if next == nil {
			next = &change{}
			c.inner[name] = next
			c.order = append(c.order, name)
		}
		c = next
	}
	return c
}

// adds reports whether the change leaves a value where there was none.
func (c *change) adds() bool {
	if c.value != nil {
		return true
	}
	for _, inner := range c.inner {
		if inner.adds() {
			return true
		}
	}
	return false
}

// Apply makes the changes to raw, a document that [Unmarshal] has accepted. What
// is not changed stays as it is, byte for byte; members are added at the end of
// their object in the order of the calls of Set. The error is an [*decodeError] for a
// path that leads through something other than an object or array.
func (c *Changes) Apply(raw []byte) ([]byte, error) {
	e := editor{decoder: decoder{raw: raw}}
	e.space()
	if err := e.edit(&c.root); err != nil {
		return nil, err
	}
	return append(e.out, raw[e.copied:]...), nil
}

// editor copies a document; up to copied it is in out.
type editor struct {
	decoder
	out    []byte
	copied int
}

// upTo copies what was not copied before a position.
func (e *editor) upTo(pos int) {
	if pos > e.copied {
		e.out = append(e.out, e.raw[e.copied:pos]...)
		e.copied = pos
	}
}

// edit changes the value at the position.
func (e *editor) edit(c *change) error {
	if c.value == nil && c.inner == nil {
		return e.pass()
	}
	switch b := e.peek(); {
	case c.value != nil:
		e.upTo(e.pos)
		if err := e.pass(); err != nil {
			return err
		}
		e.out, e.copied = append(e.out, c.value...), e.pos
		return nil
	case b == '{':
		return e.object(c)
	case b == '[':
		return e.elements(c)
	case b == 'n':
		if !c.adds() {
			return e.pass()
		}
		e.upTo(e.pos)
		if err := e.pass(); err != nil {
			return err
		}
		e.copied = e.pos
		e.out = c.fresh(e.out)
		return nil
	default:
		return e.mismatch("an object or array")
	}
}

// fresh writes the objects that lead to added values.
func (c *change) fresh(out []byte) []byte {
	if c.value != nil {
		return append(out, c.value...)
	}
	out = append(out, '{')
	out, _ = c.members(out, nil, true)
	return append(out, '}')
}

// members writes the members that a change adds, but those that are there.
func (c *change) members(out []byte, there map[string]bool, first bool) ([]byte, bool) {
	for _, name := range c.order {
		inner := c.inner[name]
		if there[name] || !inner.adds() {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		quoted, _ := json.Marshal(name)
		out = append(append(out, quoted...), ':')
		out = inner.fresh(out)
	}
	return out, first
}

func (e *editor) object(c *change) error {
	there := make(map[string]bool, len(c.inner))
	empty := true    // nothing is written of this object
	end := e.pos + 1 // of the last member that is written
	gone := false    // a member was removed, and the comma before this one goes with it
	err := e.list('}', func() error {
		start := e.pos
		name, _, err := e.member()
		if err != nil {
			return err
		}
		inner := c.inner[string(name)]
		if inner != nil {
			there[string(name)] = true
		}
		e.enter(step{name: string(name), index: -1})
		defer e.leave()
		if inner != nil && inner.remove {
			e.upTo(end)
			if err := e.pass(); err != nil {
				return err
			}
			e.copied = e.pos
			gone = true
			return nil
		}
		if gone {
			// What stood between the last member that stays and this one is gone.
			if !empty {
				e.out = append(e.out, ',')
			}
			e.copied = start
			gone = false
		}
		if inner != nil {
			err = e.edit(inner)
		} else {
			err = e.pass()
		}
		empty, end = false, e.pos
		return err
	})
	if err != nil {
		return err
	}
	e.upTo(end)
	e.out, _ = c.members(e.out, there, empty)
	return nil
}

func (e *editor) elements(c *change) error {
	i, done := 0, 0
	start := e.pos
	err := e.list(']', func() error {
		inner := c.inner[strconv.Itoa(i)]
		e.enter(step{index: i})
		defer e.leave()
		i++
		if inner == nil {
			return e.pass()
		}
		done++
		if inner.remove {
			return e.fail(e.pos, errType, "an element of an array cannot be removed")
		}
		return e.edit(inner)
	})
	if err == nil && done < len(c.inner) {
		return e.fail(start, errType, "found %d elements, want those at %v", i, c.order)
	}
	return err
}
