// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Place is what stands at one byte of a policy stream.
type Place struct {
	// Start and End bound the smallest part that was recognised.
	Start, End int
	// Profile is the name of the profile that the byte belongs to, if one has
	// begun.
	Profile string
	// Field says which part it is: "mode", "policy automaton, state 7, BASE".
	Field string
	// After is the part that ends at Start, in the same words: what a reader had
	// read when it stopped there. Often that is the faulty one.
	After string
	// Automaton tells whether the part is one of an automaton, Kind of which, and
	// State which state an entry of its tables belongs to, −1 for none.
	Automaton bool
	Kind      Kind
	State     int
	// Exec is the number of the exec target that the part is, −1 for none.
	Exec int
}

func (p Place) String() string {
	s := fmt.Sprintf("bytes %d to %d, %s", p.Start, p.End, p.Field)
	if p.Profile != "" {
		s += fmt.Sprintf(" of profile %q", p.Profile)
	}
	if p.After != "" {
		s += ", behind " + p.After
	}
	return s
}

// At says what stands at a byte of a policy stream, which may be damaged there
// or anywhere else: items say themselves how long they are, and the first one
// that does not make sense ends what can be told.
func At(data []byte, offset int) Place {
	w := &walker{data: data, offset: offset, last: Place{State: -1, Exec: -1, Field: "the beginning"}}
	w.run()
	return w.found
}

// walker reads items one after the other, without knowing which ones there may be.
type walker struct {
	data    []byte
	offset  int
	pos     int
	stack   []string // names of the structures and arrays that are open
	count   []int    // of the unnamed items in each
	profile string
	flags   bool // the profile's flags were read
	kind    Kind
	last    Place
	found   Place
}

var itemSize = map[byte]int{codeU8: 1, codeU16: 2, codeU32: 4, codeU64: 8, codeString: 2, codeBlob: 4, codeArray: 2, codeStruct: 0, codeStructEnd: 0, codeArrayEnd: 0, codeList: 0, codeListEnd: 0}

func (w *walker) run() {
	for w.pos < len(w.data) {
		start, name, code, body, ok := w.item()
		p := Place{Start: start, End: w.pos, Profile: w.profile, State: -1, Exec: -1}
		if !ok {
			p.End, p.Field = len(w.data), "something that is no item of a policy"
			w.found, w.found.After = p, w.last.Field
			return
		}
		p.Field = w.name(code, name, body, &p)
		if w.offset < w.pos {
			w.found, w.found.After = p, w.last.Field
			if code == codeBlob && p.Automaton {
				w.found = table(w.data, w.found, w.offset, w.pos-len(body))
			}
			return
		}
		w.last = p
	}
	w.found = Place{Start: len(w.data), End: len(w.data), Profile: w.profile, State: -1, Exec: -1, Field: "the end", After: w.last.Field}
}

// item moves behind the next item. body is the content of strings and blobs.
func (w *walker) item() (start int, name string, code byte, body []byte, ok bool) {
	start = w.pos
	d := w.data
	if d[w.pos] == codeName {
		if w.pos+3 > len(d) {
			return start, "", 0, nil, false
		}
		n := int(binary.LittleEndian.Uint16(d[w.pos+1:]))
		if w.pos+3+n >= len(d) {
			return start, "", 0, nil, false
		}
		name = strings.TrimSuffix(string(d[w.pos+3:w.pos+3+n]), "\x00")
		w.pos += 3 + n
	}
	code = d[w.pos]
	size, known := itemSize[code]
	if !known || w.pos+1+size > len(d) {
		return start, name, code, nil, false
	}
	at := w.pos + 1
	w.pos = at + size
	n := 0
	switch code {
	case codeString:
		n = int(binary.LittleEndian.Uint16(d[at:]))
	case codeBlob:
		n = int(min(int64(binary.LittleEndian.Uint32(d[at:])), int64(len(d))))
	}
	if n > len(d)-w.pos {
		return start, name, code, nil, false
	}
	body = d[w.pos : w.pos+n]
	w.pos += n
	return start, name, code, body, true
}

// unnamed are the fields of structures that have no names of their own.
var unnamed = map[string][]string{
	"flags":   {"flags", "mode", "audit"},
	"caps64":  {"upper capabilities, allowed", "upper capabilities, logged", "upper capabilities, kept quiet", "upper capabilities, reserved"},
	"capsx":   {"extended capabilities", "extended capabilities, upper half"},
	"rlimits": {"mask of resource limits"},
}

var capabilityFields = []string{"capabilities, allowed", "capabilities, logged", "capabilities, kept quiet", "capabilities, reserved"}

// permFields are the words of an entry of a permission table.
var permFields = []string{"reserved", "allow", "deny", "subtree", "cond", "kill", "complain", "prompt", "audit", "quiet", "hide", "xindex", "tag", "label"}

var kindNames = [...]string{KindXMatch: "attachment automaton", KindPolicy: "policy automaton", KindFile: "file automaton"}

// name says what an item is, and keeps track of where the walk is.
func (w *walker) name(code byte, name string, body []byte, p *Place) string {
	top := ""
	if len(w.stack) > 0 {
		top = w.stack[len(w.stack)-1]
	}
	nth := func() int {
		if len(w.count) == 0 {
			return 0
		}
		w.count[len(w.count)-1]++
		return w.count[len(w.count)-1] - 1
	}
	open := func(s string) {
		w.stack, w.count = append(w.stack, s), append(w.count, 0)
	}
	automaton := func(what string) string {
		p.Automaton, p.Kind = true, w.kind
		return kindNames[w.kind] + ", " + what
	}
	switch code {
	case codeStructEnd, codeArrayEnd, codeListEnd:
		if len(w.stack) > 0 {
			w.stack, w.count = w.stack[:len(w.stack)-1], w.count[:len(w.count)-1]
		}
		if top == "flags" {
			w.flags = true
		}
		if top == "policydb" {
			w.kind = KindFile
		}
		if top == "perms" {
			return automaton("the end of the permission table")
		}
		return "the end of " + words(top)
	case codeStruct:
		open(name)
		switch name {
		case "profile":
			w.profile, w.flags, w.kind = "", false, KindXMatch
			p.Profile = ""
		case "policydb":
			w.kind = KindPolicy
		case "perms", "xtable", "tags":
			if w.flags && w.kind == KindXMatch {
				w.kind = KindFile
			}
			return automaton("the beginning of the " + words(name))
		}
		return "the beginning of " + words(name)
	case codeArray, codeList:
		what := name
		if what == "" {
			what = top
		}
		open(what + "[]")
		return "the length of " + words(what)
	}
	switch {
	case name == "aadfa":
		if w.flags && w.kind == KindXMatch {
			w.kind = KindFile
		}
		return automaton("tables")
	case name == "start", name == "dfa_start", name == "permsv":
		return automaton(name)
	case name != "":
		return name
	case top == "profile" && code == codeString && w.count[len(w.count)-1] == 0:
		nth()
		w.profile = strings.TrimSuffix(string(body), "\x00")
		p.Profile = w.profile
		return "name"
	case top == "profile" && code == codeU32 && !w.flags:
		return automaton("length of the shortest match")
	case top == "profile" && code == codeU32:
		if n := nth() - 1; n >= 0 && n < len(capabilityFields) {
			return capabilityFields[n]
		}
	case top == "perms[]":
		n := nth()
		return automaton(fmt.Sprintf("permission table, entry %d, %s", n/len(permFields), permFields[n%len(permFields)]))
	case top == "xtable[]":
		p.Exec = nth()
		return automaton(fmt.Sprintf("exec target %d", p.Exec))
	case strings.HasSuffix(top, "[]"):
		return fmt.Sprintf("%s, entry %d", words(strings.TrimSuffix(top, "[]")), nth())
	case len(unnamed[top]) > 0:
		if n := nth(); n < len(unnamed[top]) {
			return unnamed[top][n]
		}
	}
	return "an unknown part of " + words(top)
}

// words is the name of a structure for people.
func words(name string) string {
	switch name {
	case "":
		return "the stream"
	case "perms":
		return "permission table"
	case "xtable":
		return "exec targets"
	case "rlimits":
		return "resource limits"
	case "xattrs":
		return "extended attributes"
	case "secmark":
		return "packet marks"
	case "net_allowed_af":
		return "address families"
	case "profile":
		return "the profile"
	case "policydb":
		return "the policy automaton"
	}
	return name
}

var tableNames = map[uint16]string{1: "ACCEPT", 2: "BASE", 3: "CHECK", 4: "DEFAULT", 5: "classes", 7: "ACCEPT2", 8: "NEXT"}

// table says where in an automaton's tables a byte stands. The tables begin behind
// padding in the blob at body.
// Source: security/apparmor/match.c, aa_dfa_unpack.
func table(data []byte, p Place, offset, body int) Place {
	be := binary.BigEndian
	name := kindNames[p.Kind]
	at := body
	for at < p.End && data[at] == 0 {
		at++
	}
	const header = 24
	if offset < at || at+header > p.End {
		return p // of the item itself, or of the padding
	}
	if offset < at+header {
		p.Start, p.End, p.Field = at, at+header, name+", header of the tables"
		return p
	}
	var check []byte
	width := 0
	end := p.End
	for pass := range 2 {
		for pos := at + header; pos+12 <= end; {
			id, size, n := be.Uint16(data[pos:]), int(be.Uint16(data[pos+2:])), int(be.Uint32(data[pos+8:]))
			what, known := tableNames[id]
			next := pos + (12+size*n+7)&^7
			if !known || size < 1 || size > 4 || n > end || next > end {
				if offset >= pos {
					p.Start, p.Field = pos, name+", something that is no table"
					return p
				}
				break
			}
			if id == 3 {
				check, width = data[pos+12:pos+12+size*n], size
			}
			if pass == 1 && offset >= pos && offset < next {
				p.Start, p.End, p.Field = pos, pos+12, name+", header of table "+what
				if offset >= pos+12+size*n {
					p.Start, p.End, p.Field = pos+12+size*n, next, name+", padding behind table "+what
				} else if i := (offset - pos - 12) / size; offset >= pos+12 && i < n {
					p.Start, p.End = pos+12+i*size, pos+12+(i+1)*size
					p.Field = fmt.Sprintf("%s, table %s, entry %d", name, what, i)
					switch id {
					case 1, 2, 4, 7:
						p.State = i
					case 3, 8:
						if s := entry(check, width, i); s >= 0 {
							p.State = s
						}
					}
				}
				return p
			}
			pos = next
		}
	}
	return p
}

func entry(table []byte, width, i int) int {
	switch {
	case (i+1)*width > len(table):
	case width == 2:
		return int(binary.BigEndian.Uint16(table[2*i:]))
	case width == 4:
		return int(binary.BigEndian.Uint32(table[4*i:]))
	}
	return -1
}
