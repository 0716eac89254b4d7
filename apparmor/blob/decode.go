// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Item codes of the stream. Source: security/apparmor/include/policy_unpack.h.
const (
	codeU8 = iota
	codeU16
	codeU32
	codeU64
	codeName
	codeString
	codeBlob
	codeStruct
	codeStructEnd
	codeList
	codeListEnd
	codeArray
	codeArrayEnd
	codeOffset
)

// A FormatError says where a stream is malformed and, where a profile was being
// read, which.
type FormatError struct {
	Offset  int // in bytes, from 0
	Profile string
	Msg     string
	Err     error // of the automaton tables, or nil
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("policy offset %d: ", e.Offset)
	if e.Profile != "" {
		s = fmt.Sprintf("profile %q, offset %d: ", e.Profile, e.Offset)
	}
	s += e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the error of the automaton tables.
func (e *FormatError) Unwrap() error { return e.Err }

// Limits of the kernel's interface versions.
const (
	minVersion = 5
	maxVersion = 9
)

// Decode reads a policy stream of one or several profiles. It takes any input;
// memory is bounded by a small multiple of len(data).
func Decode(data []byte) ([]*Profile, error) {
	d := &decoder{data: data}
	var out []*Profile
	var version uint32
	for d.pos < len(data) {
		p := &Profile{}
		if v, ok := d.u32("version"); ok {
			version = v
		} else if len(out) == 0 {
			return out, d.fail(nil, "no version header")
		}
		if abi := version & 0x3ff; abi < minVersion || abi > maxVersion {
			return out, d.fail(nil, "interface version %d, known are %d to %d", abi, minVersion, maxVersion)
		}
		p.Version = version
		p.Namespace, _ = d.str("namespace")
		if err := d.profile(p); err != nil {
			return out, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, d.fail(nil, "empty policy")
	}
	return out, nil
}

type decoder struct {
	data []byte
	pos  int
	name string
}

func (d *decoder) fail(err error, format string, args ...any) error {
	return &FormatError{Offset: d.pos, Profile: d.name, Msg: fmt.Sprintf(format, args...), Err: err}
}

// item moves past an item's header if it has the code and, unless name is
// empty, the name. An unnamed item matches with any name, as in the kernel.
func (d *decoder) item(code byte, name string) bool {
	pos := d.pos
	if pos < len(d.data) && d.data[pos] == codeName {
		if pos+3 > len(d.data) {
			return false
		}
		n := int(binary.LittleEndian.Uint16(d.data[pos+1:]))
		pos += 3
		if pos+n > len(d.data) {
			return false
		}
		tag := d.data[pos : pos+n]
		if name != "" && (n == 0 || tag[n-1] != 0 || string(tag[:n-1]) != name) {
			return false
		}
		pos += n
	} else if name != "" {
		return false
	}
	if pos >= len(d.data) || d.data[pos] != code {
		return false
	}
	d.pos = pos + 1
	return true
}

// fixed reads an item of n bytes after its header.
func (d *decoder) fixed(code byte, name string, n int) ([]byte, bool) {
	pos := d.pos
	if !d.item(code, name) {
		return nil, false
	}
	if d.pos+n > len(d.data) {
		d.pos = pos
		return nil, false
	}
	b := d.data[d.pos : d.pos+n]
	d.pos += n
	return b, true
}

func (d *decoder) u8(name string) (uint8, bool) {
	b, ok := d.fixed(codeU8, name, 1)
	if !ok {
		return 0, false
	}
	return b[0], true
}

func (d *decoder) u16(name string) (uint16, bool) {
	b, ok := d.fixed(codeU16, name, 2)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint16(b), true
}

func (d *decoder) u32(name string) (uint32, bool) {
	b, ok := d.fixed(codeU32, name, 4)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}

func (d *decoder) u64(name string) (uint64, bool) {
	b, ok := d.fixed(codeU64, name, 8)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}

func (d *decoder) array(name string) (int, bool) {
	b, ok := d.fixed(codeArray, name, 2)
	if !ok {
		return 0, false
	}
	return int(binary.LittleEndian.Uint16(b)), true
}

// str reads a string without its final NUL.
func (d *decoder) str(name string) (string, bool) {
	pos := d.pos
	b, ok := d.fixed(codeString, name, 2)
	if ok {
		n := int(binary.LittleEndian.Uint16(b))
		if n > 0 && d.pos+n <= len(d.data) && d.data[d.pos+n-1] == 0 {
			s := string(d.data[d.pos : d.pos+n-1])
			d.pos += n
			return s, true
		}
	}
	d.pos = pos
	return "", false
}

func (d *decoder) blob(name string) ([]byte, bool) {
	pos := d.pos
	b, ok := d.fixed(codeBlob, name, 4)
	if ok {
		n := int64(binary.LittleEndian.Uint32(b))
		if n <= int64(len(d.data)-d.pos) {
			out := d.data[d.pos : d.pos+int(n)]
			d.pos += int(n)
			return out, true
		}
	}
	d.pos = pos
	return nil, false
}

func (d *decoder) profile(p *Profile) error {
	d.name = ""
	if !d.item(codeStruct, "profile") {
		return d.fail(nil, "no profile")
	}
	var ok bool
	if p.Name, ok = d.str(""); !ok || p.Name == "" {
		return d.fail(nil, "profile without a name")
	}
	d.name = p.Name
	p.Rename, _ = d.str("rename")
	p.Attach, _ = d.str("attach")
	var err error
	if p.XMatch, err = d.automaton(false); err != nil {
		return err
	}
	if p.XMatch != nil {
		if p.XMatchLen, ok = d.u32(""); !ok {
			return d.fail(nil, "no length after the attachment's automaton")
		}
	}
	p.Disconnected, _ = d.str("disconnected")
	p.DisconnectedIPC, _ = d.str("disconnected_ipc")
	p.KillSignal, _ = d.u32("kill")
	p.Error, _ = d.u32("error")
	if err := d.flags(p); err != nil {
		return err
	}
	if err := d.caps(p); err != nil {
		return err
	}
	if n, ok := d.array("identity"); ok {
		if p.Identities, ok = d.strings(n); !ok || !d.item(codeArrayEnd, "") {
			return d.fail(nil, "identities")
		}
	}
	if d.item(codeStruct, "xattrs") {
		n, ok := d.array("")
		if !ok {
			return d.fail(nil, "extended attributes")
		}
		if p.Xattrs, ok = d.strings(n); !ok || !d.item(codeArrayEnd, "") || !d.item(codeStructEnd, "") {
			return d.fail(nil, "extended attributes")
		}
	}
	if err := d.limits(p); err != nil {
		return err
	}
	if d.item(codeStruct, "policydb") {
		if p.PolicyDB, err = d.automaton(true); err != nil {
			return err
		}
		if p.PolicyDB == nil {
			return d.fail(nil, "policydb without an automaton")
		}
		if !d.item(codeStructEnd, "") {
			return d.fail(nil, "policydb does not end")
		}
	}
	if p.File, err = d.automaton(true); err != nil {
		return err
	}
	if d.item(codeStruct, "data") {
		for {
			key, ok := d.str("")
			if !ok {
				break
			}
			value, ok := d.blob("")
			if !ok {
				return d.fail(nil, "data %q without a value", key)
			}
			p.Data = append(p.Data, DataItem{key, bytes.Clone(value)})
		}
		if !d.item(codeStructEnd, "") {
			return d.fail(nil, "data do not end")
		}
	}
	if !d.item(codeStructEnd, "") {
		return d.fail(nil, "profile does not end here")
	}
	return nil
}

func (d *decoder) strings(n int) ([]string, bool) {
	var out []string
	for range n {
		s, ok := d.str("")
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

func (d *decoder) flags(p *Profile) error {
	if !d.item(codeStruct, "flags") {
		return d.fail(nil, "no flags")
	}
	var ok [3]bool
	var mode uint32
	p.Flags, ok[0] = d.u32("")
	mode, ok[1] = d.u32("")
	p.Audit, ok[2] = d.u32("")
	if !ok[0] || !ok[1] || !ok[2] || !d.item(codeStructEnd, "") {
		return d.fail(nil, "flags")
	}
	if mode > uint32(User) {
		return d.fail(nil, "unknown mode %d", mode)
	}
	p.Mode = Mode(mode)
	p.PathFlags, p.HasPathFlags = d.u32("path_flags")
	return nil
}

func (d *decoder) caps(p *Profile) error {
	c := &p.Caps
	sets := [...]*uint64{&c.Allow, &c.Audit, &c.Quiet, &c.Reserved}
	for _, s := range sets {
		v, ok := d.u32("")
		if !ok {
			return d.fail(nil, "capabilities")
		}
		*s = uint64(v)
	}
	if d.item(codeStruct, "caps64") {
		for _, s := range sets {
			v, ok := d.u32("")
			if !ok {
				return d.fail(nil, "upper capabilities")
			}
			*s |= uint64(v) << 32
		}
		if !d.item(codeStructEnd, "") {
			return d.fail(nil, "upper capabilities")
		}
	}
	if d.item(codeStruct, "capsx") {
		lo, ok1 := d.u32("")
		hi, ok2 := d.u32("")
		if !ok1 || !ok2 || !d.item(codeStructEnd, "") {
			return d.fail(nil, "extended capabilities")
		}
		c.Extended, c.HasExtended = uint64(hi)<<32|uint64(lo), true
	}
	return nil
}

// maxRlimits is the number of resource limits. Source: RLIM_NLIMITS.
const maxRlimits = 16

func (d *decoder) limits(p *Profile) error {
	if d.item(codeStruct, "rlimits") {
		var ok bool
		if p.RlimitMask, ok = d.u32(""); !ok {
			return d.fail(nil, "resource limits")
		}
		n, ok := d.array("")
		if !ok || n > maxRlimits {
			return d.fail(nil, "resource limits")
		}
		for range n {
			v, ok := d.u64("")
			if !ok {
				return d.fail(nil, "resource limits")
			}
			p.Rlimits = append(p.Rlimits, v)
		}
		if !d.item(codeArrayEnd, "") || !d.item(codeStructEnd, "") {
			return d.fail(nil, "resource limits")
		}
	}
	if d.item(codeStruct, "secmark") {
		n, ok := d.array("")
		if !ok {
			return d.fail(nil, "packet marks")
		}
		for range n {
			var s Secmark
			var ok [3]bool
			s.Audit, ok[0] = d.u8("")
			s.Deny, ok[1] = d.u8("")
			s.Label, ok[2] = d.str("")
			if !ok[0] || !ok[1] || !ok[2] {
				return d.fail(nil, "packet marks")
			}
			p.Secmarks = append(p.Secmarks, s)
		}
		if !d.item(codeArrayEnd, "") || !d.item(codeStructEnd, "") {
			return d.fail(nil, "packet marks")
		}
	}
	if n, ok := d.array("net_allowed_af"); ok {
		for range n {
			var af [3]uint16
			for i := range af {
				v, ok := d.u16("")
				if !ok {
					return d.fail(nil, "address families")
				}
				af[i] = v
			}
			p.NetAF = append(p.NetAF, af)
		}
		if !d.item(codeArrayEnd, "") {
			return d.fail(nil, "address families")
		}
	}
	return nil
}

// automaton reads permission table, tables and exec names; nil without tables.
func (d *decoder) automaton(xtable bool) (*Automaton, error) {
	a := &Automaton{}
	if d.item(codeStruct, "tags") {
		return nil, d.fail(nil, "tags are not supported")
	}
	if d.item(codeStruct, "perms") {
		if v, ok := d.u32("version"); !ok || v != 1 {
			return nil, d.fail(nil, "version of the permission table")
		}
		n, ok := d.array("")
		if !ok {
			return nil, d.fail(nil, "permission table")
		}
		a.Perms = []Perms{}
		for range n {
			var p Perms
			var reserved uint32
			for _, f := range append([]*uint32{&reserved}, p.fields()...) {
				if *f, ok = d.u32(""); !ok {
					return nil, d.fail(nil, "permission table, entry %d", len(a.Perms))
				}
			}
			if msg := p.invalid(); msg != "" {
				return nil, d.fail(nil, "permission table, entry %d: %s", len(a.Perms), msg)
			}
			a.Perms = append(a.Perms, p)
		}
		if !d.item(codeArrayEnd, "") || !d.item(codeStructEnd, "") {
			return nil, d.fail(nil, "permission table does not end")
		}
	}
	a.PermsVersion, _ = d.u32("permsv")
	pos := d.pos
	b, ok := d.blob("aadfa")
	if !ok {
		if a.Perms != nil {
			return nil, d.fail(nil, "permission table without an automaton")
		}
		return nil, nil
	}
	// The tables stand at the end of the item, which padding aligns.
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	var err error
	if a.Table, err = dfa.ParseTable(b); err != nil {
		d.pos = pos
		return nil, d.fail(err, "automaton")
	}
	if a.Start, ok = d.u32("start"); ok && a.Start >= uint32(a.Table.States()) {
		return nil, d.fail(nil, "start state %d of %d", a.Start, a.Table.States())
	}
	if a.FileStart, ok = d.u32("dfa_start"); ok && a.FileStart >= uint32(a.Table.States()) {
		return nil, d.fail(nil, "start state %d of %d", a.FileStart, a.Table.States())
	}
	if xtable && d.item(codeStruct, "xtable") {
		n, ok := d.array("")
		if !ok {
			return nil, d.fail(nil, "exec names")
		}
		for range n {
			s, ok := d.str("")
			if !ok {
				return nil, d.fail(nil, "exec names, entry %d", len(a.XTable))
			}
			if i := strings.IndexByte(s, 0); i >= 0 {
				if s[0] != ':' || strings.Count(s, "\x00") > 1 {
					return nil, d.fail(nil, "exec name %q", s)
				}
				s = s[:i] + ":" + s[i+1:]
			}
			a.XTable = append(a.XTable, s)
		}
		if !d.item(codeArrayEnd, "") || !d.item(codeStructEnd, "") {
			return nil, d.fail(nil, "exec names do not end")
		}
	}
	return a, nil
}

// fields lists an entry's fields in the order of the stream.
func (p *Perms) fields() []*uint32 {
	return []*uint32{
		&p.Allow, &p.Deny, &p.Subtree, &p.Cond, &p.Kill, &p.Complain, &p.Prompt, &p.Audit, &p.Quiet, &p.Hide,
		&p.XIndex, &p.Tag, &p.Label,
	}
}

// invalid says which rule of the kernel the entry breaks.
// Source: security/apparmor/policy_unpack.c, verify_perm.
func (p *Perms) invalid() string {
	switch {
	case p.Allow&p.Deny != 0:
		return "allowed and denied"
	case p.Subtree&^p.Allow != 0:
		return "subtree without allow"
	case p.Cond&(p.Allow|p.Deny) != 0:
		return "conditional and decided"
	case p.Kill&p.Allow != 0:
		return "kill on an allowed access"
	case p.Complain&(p.Allow|p.Deny) != 0:
		return "complain and decided"
	case p.Prompt&(p.Allow|p.Deny) != 0:
		return "prompt and decided"
	case p.Complain&p.Prompt != 0:
		return "complain and prompt"
	case p.Hide&p.Allow != 0:
		return "hide on an allowed access"
	}
	return ""
}
