// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ErrTooLong is returned for strings and tables that the format cannot hold.
var ErrTooLong = errors.New("longer than the policy format can hold")

// Encode writes profiles as one policy stream, each with its own header, so
// that any prefix of whole profiles is a stream of its own and the kernel takes
// the whole in one write where it has the feature policy/set_load.
func Encode(profiles ...*Profile) ([]byte, error) {
	e := &encoder{}
	for _, p := range profiles {
		e.profile(p)
		if e.err != nil {
			return nil, fmt.Errorf("profile %q: %w", p.Name, e.err)
		}
	}
	return e.out, nil
}

// Writes groups profiles into what may be written to the kernel at once and
// encodes the groups: all profiles of one write go into one policy namespace,
// and without several (feature policy/set_load) each profile is its own write.
func Writes(profiles []*Profile, several bool) ([][]byte, error) {
	var groups [][]*Profile
	at := map[string]int{}
	for _, p := range profiles {
		i, ok := at[p.Namespace]
		if !ok || !several {
			i = len(groups)
			at[p.Namespace] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	out := make([][]byte, len(groups))
	for i, g := range groups {
		var err error
		if out[i], err = Encode(g...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

type encoder struct {
	out []byte
	err error
}

func (e *encoder) tooLong(what string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s: %w", what, ErrTooLong)
	}
}

func (e *encoder) name(s string) {
	if s != "" {
		e.out = append(e.out, codeName)
		e.out = binary.LittleEndian.AppendUint16(e.out, uint16(len(s)+1))
		e.out = append(append(e.out, s...), 0)
	}
}

func (e *encoder) item(code byte, name string) {
	e.name(name)
	e.out = append(e.out, code)
}

func (e *encoder) u32(name string, v uint32) {
	e.item(codeU32, name)
	e.out = binary.LittleEndian.AppendUint32(e.out, v)
}

func (e *encoder) u16(v uint16) {
	e.item(codeU16, "")
	e.out = binary.LittleEndian.AppendUint16(e.out, v)
}

func (e *encoder) u64(v uint64) {
	e.item(codeU64, "")
	e.out = binary.LittleEndian.AppendUint64(e.out, v)
}

func (e *encoder) str(name, s string) {
	if len(s)+1 > 0xffff {
		e.tooLong("string")
		return
	}
	e.item(codeString, name)
	e.out = binary.LittleEndian.AppendUint16(e.out, uint16(len(s)+1))
	e.out = append(append(e.out, s...), 0)
}

func (e *encoder) array(name string, n int) {
	if n > 0xffff {
		e.tooLong("array")
	}
	e.item(codeArray, name)
	e.out = binary.LittleEndian.AppendUint16(e.out, uint16(n))
}

func (e *encoder) end(code byte) { e.out = append(e.out, code) }

func (e *encoder) profile(p *Profile) {
	e.u32("version", p.Version)
	if p.Namespace != "" {
		e.str("namespace", p.Namespace)
	}
	e.item(codeStruct, "profile")
	e.str("", p.Name)
	if p.Rename != "" {
		e.str("rename", p.Rename)
	}
	if p.Attach != "" {
		e.str("attach", p.Attach)
	}
	if p.XMatch != nil {
		e.automaton(p.XMatch, false)
		e.u32("", p.XMatchLen)
	}
	if p.Disconnected != "" {
		e.str("disconnected", p.Disconnected)
	}
	if p.DisconnectedIPC != "" {
		e.str("disconnected_ipc", p.DisconnectedIPC)
	}
	if p.KillSignal != 0 {
		e.u32("kill", p.KillSignal)
	}
	if p.Error != 0 {
		e.u32("error", p.Error)
	}
	e.item(codeStruct, "flags")
	e.u32("", p.Flags)
	e.u32("", uint32(p.Mode))
	e.u32("", p.Audit)
	e.end(codeStructEnd)
	if p.HasPathFlags {
		e.u32("path_flags", p.PathFlags)
	}
	sets := [...]uint64{p.Caps.Allow, p.Caps.Audit, p.Caps.Quiet, p.Caps.Reserved}
	for _, s := range sets {
		e.u32("", uint32(s))
	}
	e.item(codeStruct, "caps64")
	for _, s := range sets {
		e.u32("", uint32(s>>32))
	}
	e.end(codeStructEnd)
	if p.Caps.HasExtended {
		e.item(codeStruct, "capsx")
		e.u32("", uint32(p.Caps.Extended))
		e.u32("", uint32(p.Caps.Extended>>32))
		e.end(codeStructEnd)
	}
	if p.Identities != nil {
		e.array("identity", len(p.Identities))
		for _, s := range p.Identities {
			e.str("", s)
		}
		e.end(codeArrayEnd)
	}
	if len(p.Xattrs) > 0 {
		e.item(codeStruct, "xattrs")
		e.array("", len(p.Xattrs))
		for _, s := range p.Xattrs {
			e.str("", s)
		}
		e.end(codeArrayEnd)
		e.end(codeStructEnd)
	}
	e.limits(p)
	if p.PolicyDB != nil {
		e.item(codeStruct, "policydb")
		e.automaton(p.PolicyDB, true)
		e.end(codeStructEnd)
	}
	if p.File != nil {
		e.automaton(p.File, true)
	}
	if len(p.Data) > 0 {
		e.item(codeStruct, "data")
		for _, d := range p.Data {
			e.str("", d.Key)
			e.item(codeBlob, "")
			e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(d.Value)))
			e.out = append(e.out, d.Value...)
		}
		e.end(codeStructEnd)
	}
	e.end(codeStructEnd)
}

func (e *encoder) limits(p *Profile) {
	if p.RlimitMask != 0 {
		e.item(codeStruct, "rlimits")
		e.u32("", p.RlimitMask)
		e.array("", len(p.Rlimits))
		for _, v := range p.Rlimits {
			e.u64(v)
		}
		e.end(codeArrayEnd)
		e.end(codeStructEnd)
	}
	if len(p.Secmarks) > 0 {
		e.item(codeStruct, "secmark")
		e.array("", len(p.Secmarks))
		for _, s := range p.Secmarks {
			e.out = append(e.out, codeU8, s.Audit, codeU8, s.Deny)
			e.str("", s.Label)
		}
		e.end(codeArrayEnd)
		e.end(codeStructEnd)
	}
	if p.NetAF != nil {
		e.array("net_allowed_af", len(p.NetAF))
		for _, af := range p.NetAF {
			for _, v := range af {
				e.u16(v)
			}
		}
		e.end(codeArrayEnd)
	}
}

func (e *encoder) automaton(a *Automaton, xtable bool) {
	if a.Perms != nil {
		e.item(codeStruct, "perms")
		e.u32("version", 1)
		e.array("", len(a.Perms))
		for i := range a.Perms {
			p := a.Perms[i]
			e.u32("", 0)
			for _, f := range p.fields() {
				e.u32("", *f)
			}
		}
		e.end(codeArrayEnd)
		e.end(codeStructEnd)
		if a.PermsVersion != 0 {
			e.u32("permsv", a.PermsVersion)
		}
	}
	e.item(codeBlob, "aadfa")
	table := a.Table.Encode()
	// The kernel wants the tables aligned to 8 bytes from the stream's start.
	pad := -(len(e.out) + 4) & 7
	if int64(len(table)+pad) > 0xffffffff {
		e.tooLong("automaton")
		return
	}
	e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(table)+pad))
	e.out = append(e.out, make([]byte, pad)...)
	e.out = append(e.out, table...)
	if a.Start != 0 {
		e.u32("start", a.Start)
	}
	if a.FileStart != 0 {
		e.u32("dfa_start", a.FileStart)
	}
	if xtable && len(a.XTable) > 0 {
		e.item(codeStruct, "xtable")
		e.array("", len(a.XTable))
		for _, s := range a.XTable {
			// ":ns:name" is stored with a NUL for the second colon.
			if strings.HasPrefix(s, ":") {
				if i := strings.IndexByte(s[1:], ':'); i >= 0 {
					s = s[:i+1] + "\x00" + s[i+2:]
				}
			}
			e.str("", s)
		}
		e.end(codeArrayEnd)
		e.end(codeStructEnd)
	}
}
