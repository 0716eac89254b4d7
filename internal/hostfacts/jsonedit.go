// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// jsonObject is an object inside a JSON text, by position, so that a member
// can be changed without touching anything else of the text.
type jsonObject struct {
	start, end int // of the braces; end is behind the closing one
	members    []jsonMember
}

type jsonMember struct {
	key                        string
	keyStart, valueStart, last int // last is behind the value
}

func (o jsonObject) find(key string) (jsonMember, bool) {
	for _, m := range o.members {
		if m.key == key {
			return m, true
		}
	}
	return jsonMember{}, false
}

// parseObject finds the members of the object that begins at offset at, after
// white space.
func parseObject(text []byte, at int) (jsonObject, error) {
	dec := json.NewDecoder(bytes.NewReader(text[at:]))
	tok, err := dec.Token()
	if err != nil {
		return jsonObject{}, err
	}
	if tok != json.Delim('{') {
		return jsonObject{}, errors.New("is no JSON object")
	}
	o := jsonObject{start: at + int(dec.InputOffset()) - 1}
	for dec.More() {
		from := at + int(dec.InputOffset())
		tok, err := dec.Token()
		if err != nil {
			return jsonObject{}, err
		}
		key, ok := tok.(string)
		if !ok {
			return jsonObject{}, fmt.Errorf("unexpected %v", tok)
		}
		keyStart := from + bytes.IndexByte(text[from:], '"')
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return jsonObject{}, err
		}
		last := at + int(dec.InputOffset())
		if _, twice := o.find(key); twice {
			return jsonObject{}, fmt.Errorf("has %q twice", key)
		}
		o.members = append(o.members, jsonMember{key: key, keyStart: keyStart, valueStart: last - len(value), last: last})
	}
	if _, err := dec.Token(); err != nil {
		return jsonObject{}, err
	}
	o.end = at + int(dec.InputOffset())
	return o, nil
}

// parseDocument is parseObject for a whole file.
func parseDocument(text []byte) (jsonObject, error) {
	// The decoder by token places errors less well than that of whole texts.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return jsonObject{}, err
	}
	o, err := parseObject(text, 0)
	if err != nil {
		return o, err
	}
	if len(bytes.TrimSpace(text[o.end:])) > 0 {
		return o, errors.New("has something behind the JSON object")
	}
	return o, nil
}

// setMember gives key the value, in the place where it is or behind the last
// member, indented as the others are.
func setMember(text []byte, o jsonObject, key, value string) []byte {
	if m, ok := o.find(key); ok {
		return splice(text, m.valueStart, m.last, value)
	}
	quoted, _ := json.Marshal(key)
	outer := lineIndent(text, o.start)
	if len(o.members) == 0 {
		inner := outer + indentStep(text)
		return splice(text, o.start+1, o.end-1, "\n"+inner+string(quoted)+": "+reindent(value, inner)+"\n"+outer)
	}
	last := o.members[len(o.members)-1]
	between := " "
	if at := o.members[0].keyStart; bytes.ContainsRune(text[o.start:at], '\n') {
		inner := lineIndent(text, at)
		between = "\n" + inner
		value = reindent(value, inner)
	}
	return splice(text, last.last, last.last, ","+between+string(quoted)+": "+value)
}

// removeMember takes a member away with one comma beside it.
func removeMember(text []byte, o jsonObject, key string) []byte {
	for i, m := range o.members {
		switch {
		case m.key != key:
		case i > 0:
			return splice(text, o.members[i-1].last, m.last, "")
		case len(o.members) > 1:
			return splice(text, m.keyStart, o.members[1].keyStart, "")
		default:
			return splice(text, o.start+1, o.end-1, "")
		}
	}
	return text
}

func splice(text []byte, from, to int, with string) []byte {
	out := make([]byte, 0, len(text)+len(with))
	out = append(out, text[:from]...)
	out = append(out, with...)
	return append(out, text[to:]...)
}

// lineIndent is the white space that the line of an offset begins with.
func lineIndent(text []byte, at int) string {
	start := bytes.LastIndexByte(text[:at], '\n') + 1
	end := start
	for end < len(text) && (text[end] == ' ' || text[end] == '\t') {
		end++
	}
	return string(text[start:end])
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

// reindent moves all lines of a value but the first by an indentation.
func reindent(value, by string) string { return strings.ReplaceAll(value, "\n", "\n"+by) }
