// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of a definition. Real ones have some 10 KiB and a depth of 8.
const (
	MaxSize  = 4 << 20
	maxDepth = 64
	maxNodes = 1 << 17
)

// element is one element of a document and where it stands: text[begin:content]
// is its start tag, text[content:close] what is in it, text[close:end] its end
// tag, which is empty for <a/>.
type element struct {
	space, name                string
	attrs                      []xml.Attr
	begin, content, close, end int
	kids                       []*element
	text                       string
}

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// find returns the first element at a path of names, nil without one.
func (e *element) find(path ...string) *element {
	for _, name := range path {
		if e == nil {
			return nil
		}
		i := slices.IndexFunc(e.kids, func(k *element) bool { return k.name == name && k.space == "" })
		if i < 0 {
			return nil
		}
		e = e.kids[i]
	}
	return e
}

// all returns the children of a name.
func (e *element) all(name string) []*element {
	var out []*element
	if e != nil {
		for _, k := range e.kids {
			if k.name == name && k.space == "" {
				out = append(out, k)
			}
		}
	}
	return out
}

func (e *element) string() string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.text)
}

func (e *element) selfClosing() bool { return e.close == e.end }

// parse reads a document. Namespaces are resolved; entities of its own a document
// may not have.
func parse(text []byte) (*element, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%d bytes are more than the %d that a definition may have", len(text), MaxSize)
	}
	dec := xml.NewDecoder(bytes.NewReader(text))
	var open []*element
	var root *element
	nodes := 0
	for {
		begin := int(dec.InputOffset())
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		var syntax *xml.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
		} else if err != nil {
			return nil, err
		}
		end := int(dec.InputOffset())
		switch t := token.(type) {
		case xml.StartElement:
			if nodes++; nodes > maxNodes || len(open) >= maxDepth {
				return nil, fmt.Errorf("more than %d elements, or more than %d inside each other", maxNodes, maxDepth)
			}
			e := &element{space: t.Name.Space, name: t.Name.Local, attrs: slices.Clone(t.Attr), begin: begin, content: end}
			if len(open) > 0 {
				parent := open[len(open)-1]
				parent.kids = append(parent.kids, e)
			} else if root != nil {
				return nil, errors.New("more than one document")
			} else {
				root = e
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			e.close, e.end = begin, end
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(t)
			}
		case xml.Directive:
			return nil, errors.New("a document type is not taken")
		}
	}
	if root == nil || len(open) > 0 {
		return nil, errors.New("no document")
	}
	return root, nil
}

// splice is a change: text[from:to] becomes with.
type splice struct {
	from, to int
	with     string
}

// apply makes changes, none of which may overlap another. Of two at one place the
// first in the list comes first.
func apply(text []byte, changes []splice) ([]byte, error) {
	slices.SortStableFunc(changes, func(a, b splice) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, c := range changes {
		if c.from < at {
			return nil, errOverlap
		}
		out = append(out, text[at:c.from]...)
		out = append(out, c.with...)
		at = c.to
	}
	return append(out, text[at:]...), nil
}

var errOverlap = errors.New("two changes of one place")

// escape is s as text or as the value of an attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// indent is the white space in front of an element on its line.
func indent(text []byte, e *element) string {
	line := text[:e.begin]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	if len(bytes.TrimLeft(line, " \t")) > 0 {
		return ""
	}
	return string(line)
}

// first inserts lines as the first children of e, last as the last.
func first(text []byte, e *element, lines ...string) splice {
	if e.selfClosing() {
		return open(text, e, lines)
	}
	inner := indent(text, e) + "  "
	return splice{e.content, e.content, "\n" + inner + strings.Join(lines, "\n"+inner)}
}

func last(text []byte, e *element, lines ...string) splice {
	if e.selfClosing() {
		return open(text, e, lines)
	}
	outer := indent(text, e)
	// Behind the last child, in front of the white space of the end tag.
	at := e.content + len(bytes.TrimRight(text[e.content:e.close], " \t\r\n"))
	with := "\n" + outer + "  " + strings.Join(lines, "\n"+outer+"  ")
	if at == e.close {
		with += "\n" + outer
	}
	return splice{at, at, with}
}

// open makes <a/> an element with children.
func open(text []byte, e *element, lines []string) splice {
	outer := indent(text, e)
	tag := bytes.TrimRight(text[e.begin:e.content], " \t\r\n")
	tag = bytes.TrimRight(bytes.TrimSuffix(tag, []byte("/>")), " \t\r\n")
	name := string(tag[1:])
	if i := strings.IndexAny(name, " \t\r\n"); i >= 0 {
		name = name[:i]
	}
	return splice{e.begin, e.end, string(tag) + ">\n" + outer + "  " + strings.Join(lines, "\n"+outer+"  ") + "\n" + outer + "</" + name + ">"}
}

// remove takes an element away with the line that it stands on.
func remove(text []byte, e *element) splice {
	from := e.begin - len(indent(text, e))
	if from > 0 && text[from-1] == '\n' && (e.end == len(text) || text[e.end] == '\n' || text[e.end] == '\r') {
		from--
	} else {
		from = e.begin
	}
	return splice{from, e.end, ""}
}
