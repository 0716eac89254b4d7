// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// EncodeError says why a policy cannot be written.
type EncodeError struct {
	Version uint32 // the version to write
	Section string
	Reason  string
}

func (e *EncodeError) Error() string {
	return fmt.Sprintf("encode policy version %d: %s: %s", e.Version, e.Section, e.Reason)
}

// Encode writes the policy in its own version. An unmodified policy gives the
// bytes that it was parsed from. The error is an [*EncodeError].
func (p *Policy) Encode() ([]byte, error) { return p.EncodeVersion(p.Version) }

// EncodeVersion writes the policy in a version from [MinWriteVersion] to
// [MaxVersion]; older policies, whose rules have no attributes, can be written in
// their own version alone. What the version cannot hold and decisions depend on is an
// error: extended permissions, InfiniBand contexts, class-specific role and
// range transitions, bounds, defaults, permissive types. The names that
// constraints were written with and capabilities are left out where there is no
// room for them.
func (p *Policy) EncodeVersion(version uint32) ([]byte, error) {
	w := &writer{p: p, version: version}
	if version != p.Version && (version < MinWriteVersion || version > MaxVersion || p.Version < MinWriteVersion) {
		return nil, &EncodeError{version, "header", fmt.Sprintf("only policies of version %d to %d can be written in another of these versions", MinWriteVersion, MaxVersion)}
	}
	w.buf = make([]byte, 0, 64+len(p.Rules)*12+len(p.Types.Entries)*48+len(p.Trailing))
	w.policy()
	if w.err != nil {
		return nil, w.err
	}
	return w.buf, nil
}

type writer struct {
	p       *Policy
	version uint32
	buf     []byte
	section string
	err     *EncodeError
}

func (w *writer) failf(format string, args ...any) {
	if w.err == nil {
		w.err = &EncodeError{w.version, w.section, fmt.Sprintf(format, args...)}
	}
}

func (w *writer) u32(values ...uint32) {
	for _, v := range values {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, v)
	}
}

func (w *writer) u16(v uint16)           { w.buf = binary.LittleEndian.AppendUint16(w.buf, v) }
func (w *writer) u64(v uint64)           { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }
func (w *writer) text(s string)          { w.buf = append(w.buf, s...) }
func (w *writer) length(s string) uint32 { return uint32(len(s)) }

func (w *writer) sizedName(s string) {
	w.u32(w.length(s))
	w.text(s)
}

func (w *writer) bitmap(b Bitmap) {
	w.u32(64, b.high, uint32(b.NodeCount()))
	w.text(b.nodes)
}

func (w *writer) policy() {
	p := w.p
	w.section = "header"
	w.u32(magicKernel, uint32(len(nameSELinux)))
	if p.Target == Xen {
		w.text(nameXen)
	} else {
		w.text(nameSELinux)
	}
	symbols, contexts := tableCounts(p.Target, w.version)
	w.u32(w.version, p.Config, symbols, contexts)
	if w.version >= versionPolcap {
		w.bitmap(p.Capabilities)
	}
	if w.version >= versionPermissive {
		w.bitmap(p.Permissive)
	} else if !p.Permissive.IsEmpty() {
		w.failf("permissive types need version %d", versionPermissive)
	}
	if w.version >= versionNeverAudit {
		w.bitmap(p.NeverAudit)
	}
	w.symbols()
	w.section = "rules"
	w.ruleList(p.Rules, false)
	if w.version >= versionBool {
		w.conditionals()
	}
	w.roleRules()
	w.filenameTransitions()
	w.objectContexts()
	w.genfs()
	if w.version >= versionMLS {
		w.rangeTransitions()
	}
	if w.version >= versionAvtab {
		for _, b := range p.TypeAttributes {
			w.bitmap(b)
		}
	}
	w.text(p.Trailing)
}

func writeTable[T Symbol](w *writer, section string, t *Table[T], write func(*T)) {
	w.section = section
	w.u32(t.Prim, uint32(len(t.Entries)))
	for i := range t.Entries {
		write(&t.Entries[i])
	}
}

func (w *writer) symbols() {
	p := w.p
	writeTable(w, "commons", &p.Commons, func(c *Common) {
		w.u32(w.length(c.Name), c.Value, c.PermPrim, uint32(len(c.Permissions)))
		w.text(c.Name)
		w.permissions(c.Permissions)
	})
	writeTable(w, "classes", &p.Classes, w.class)
	writeTable(w, "roles", &p.Roles, func(s *Role) {
		w.u32(w.length(s.Name), s.Value)
		w.bounds(s.Name, uint32(s.Bounds))
		w.text(s.Name)
		w.bitmap(s.Dominates)
		w.bitmap(s.Types)
	})
	writeTable(w, "types", &p.Types, func(s *Type) {
		w.u32(w.length(s.Name), s.Value, w.typeProperties(s))
		w.bounds(s.Name, uint32(s.Bounds))
		w.text(s.Name)
	})
	writeTable(w, "users", &p.Users, func(s *User) {
		w.u32(w.length(s.Name), s.Value)
		w.bounds(s.Name, uint32(s.Bounds))
		w.text(s.Name)
		w.bitmap(s.Roles)
		if w.version >= versionMLS {
			w.mlsRange(s.Range)
			w.level(s.DefaultLevel)
		}
	})
	if w.version < versionBool {
		return
	}
	writeTable(w, "booleans", &p.Booleans, func(s *Boolean) {
		w.u32(s.Value, bit(s.State), w.length(s.Name))
		w.text(s.Name)
	})
	if w.version < versionMLS {
		return
	}
	writeTable(w, "sensitivities", &p.Sensitivities, func(s *Sensitivity) {
		w.u32(w.length(s.Name), bit(s.Alias))
		w.text(s.Name)
		w.level(s.Level)
	})
	writeTable(w, "categories", &p.Categories, func(s *Category) {
		w.u32(w.length(s.Name), s.Value, bit(s.Alias))
		w.text(s.Name)
	})
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// bounds writes the bounds of a symbol where the version has them.
func (w *writer) bounds(name string, bounds uint32) {
	if w.version >= versionBoundary {
		w.u32(bounds)
	} else if bounds != 0 {
		w.failf("the bounds of %q need version %d", name, versionBoundary)
	}
}

// typeProperties gives the flags of a type; before version 24 the field only
// says whether it is an alias.
func (w *writer) typeProperties(s *Type) uint32 {
	newForm := w.version >= versionBoundary
	if newForm == (w.p.Version >= versionBoundary) {
		return s.properties
	}
	if newForm && s.Attribute {
		return propertyPrimary | propertyAttribute
	}
	return bit(!s.Alias)
}

func (w *writer) permissions(perms []Permission) {
	for _, p := range perms {
		w.u32(w.length(p.Name), p.Value)
		w.text(p.Name)
	}
}

func (w *writer) class(c *Class) {
	w.u32(w.length(c.Name), w.length(c.CommonName), c.Value, c.PermPrim, uint32(len(c.Permissions)), uint32(len(c.Constraints)))
	w.text(c.Name)
	w.text(c.CommonName)
	w.permissions(c.Permissions)
	w.constraints(c.Constraints)
	if w.version >= versionMLS {
		w.u32(uint32(len(c.ValidateTrans)))
		w.constraints(c.ValidateTrans)
	}
	if w.version >= versionObjectDefaults {
		if c.DefaultRange == DefaultGLBLUB && w.version < versionGLBLUB && w.p.Version >= versionGLBLUB {
			w.failf("default_range glblub of class %q needs version %d", c.Name, versionGLBLUB)
		}
		w.u32(c.DefaultUser, c.DefaultRole, c.DefaultRange)
	} else if c.DefaultUser|c.DefaultRole|c.DefaultRange != 0 {
		w.failf("the defaults of class %q need version %d", c.Name, versionObjectDefaults)
	}
	if w.version >= versionDefaultType {
		w.u32(c.DefaultType)
	} else if c.DefaultType != 0 {
		w.failf("the default type of class %q needs version %d", c.Name, versionDefaultType)
	}
}

func (w *writer) constraints(list []Constraint) {
	for i := range list {
		c := &list[i]
		w.u32(c.Permissions, uint32(len(c.Expr)))
		for j := range c.Expr {
			e := &c.Expr[j]
			w.u32(uint32(e.Op), e.Attr, e.Compare)
			if e.Op != ConstraintNames {
				continue
			}
			w.bitmap(e.Names)
			if w.version >= versionConstraintNames {
				written := e.Written
				if written == nil {
					written = &TypeSet{}
				}
				w.bitmap(written.Types)
				w.bitmap(written.Negated)
				w.u32(written.Flags)
			}
		}
	}
}

func (w *writer) level(l Level) {
	w.u32(uint32(l.Sensitivity))
	w.bitmap(l.Categories)
}

func (w *writer) mlsRange(r Range) {
	split := r.split || r.Low.Sensitivity != r.High.Sensitivity || !r.Low.Categories.Equal(r.High.Categories)
	if !split {
		w.u32(1, uint32(r.Low.Sensitivity))
		w.bitmap(r.Low.Categories)
		return
	}
	w.u32(2, uint32(r.Low.Sensitivity), uint32(r.High.Sensitivity))
	w.bitmap(r.Low.Categories)
	w.bitmap(r.High.Categories)
}

func (w *writer) context(c Context) {
	w.u32(uint32(c.User), uint32(c.Role), uint32(c.Type))
	if w.version >= versionMLS {
		w.mlsRange(c.Range)
	}
}

// ruleList writes the number of rules and the rules.
func (w *writer) ruleList(list []Rule, conditional bool) {
	if w.version < versionAvtab {
		w.oldRules(list)
		return
	}
	w.u32(uint32(len(list)))
	for _, r := range list {
		w.u16(uint16(r.Source))
		w.u16(uint16(r.Target))
		w.u16(uint16(r.Class))
		w.u16(r.raw)
		if !r.Kind().IsXPerm() {
			w.u32(r.Data)
			continue
		}
		x := w.p.XPerms(r)
		switch {
		case x == nil:
			w.failf("an extended permission rule without its set")
			return
		case w.version < versionXperms || w.p.Target == Xen:
			w.failf("extended permissions need version %d for selinux", versionXperms)
			return
		case conditional && w.version < versionCondXperms && w.p.Version >= versionCondXperms:
			w.failf("extended permissions in conditionals need version %d", versionCondXperms)
			return
		}
		w.buf = append(w.buf, x.Kind, x.Driver)
		w.u32(x.Bits[:]...)
	}
}

// oldRules writes the form of versions 15 to 19, where rules that were read from
// one entry are one entry again.
func (w *writer) oldRules(list []Rule) {
	at := len(w.buf)
	w.u32(0)
	entries := uint32(0)
	for len(list) > 0 {
		n, kinds := 1, uint32(list[0].Kind())
		for n < len(list) && list[n].raw&uint16(kindJoined) != 0 {
			kinds |= uint32(list[n].Kind())
			n++
		}
		if list[0].raw&uint16(kindEnabled) != 0 {
			kinds |= enabledOld
		}
		w.u32(uint32(4+n), uint32(list[0].Source), uint32(list[0].Target), uint32(list[0].Class), kinds)
		for _, r := range list[:n] {
			w.u32(r.Data)
		}
		list = list[n:]
		entries++
	}
	binary.LittleEndian.PutUint32(w.buf[at:], entries)
}

func (w *writer) conditionals() {
	w.section = "conditionals"
	w.u32(uint32(len(w.p.Conditionals)))
	for i := range w.p.Conditionals {
		c := &w.p.Conditionals[i]
		w.u32(c.State, uint32(len(c.Expr)))
		for _, e := range c.Expr {
			w.u32(uint32(e.Op), uint32(e.Bool))
		}
		w.ruleList(c.True, true)
		w.ruleList(c.False, true)
	}
}

func (w *writer) roleRules() {
	w.section = "role transitions"
	w.u32(uint32(len(w.p.RoleTransitions)))
	process := w.p.processClass()
	for _, t := range w.p.RoleTransitions {
		w.u32(uint32(t.Role), uint32(t.Type), uint32(t.NewRole))
		if w.version >= versionRoleTrans {
			w.u32(uint32(t.Class))
		} else if t.Class != process {
			w.failf("a role transition for class %q needs version %d", w.p.ClassName(t.Class), versionRoleTrans)
		}
	}
	w.section = "role allows"
	w.u32(uint32(len(w.p.RoleAllows)))
	for _, a := range w.p.RoleAllows {
		w.u32(uint32(a.Role), uint32(a.NewRole))
	}
}

func (w *writer) filenameTransitions() {
	w.section = "filename transitions"
	list := w.p.FilenameTransitions
	switch {
	case w.version < versionFilenameTrans:
		if len(list) > 0 {
			w.failf("filename transitions need version %d", versionFilenameTrans)
		}
	case w.version < versionCompFilename:
		n := 0
		for i := range list {
			for _, o := range list[i].Outcomes {
				n += o.Sources.Len()
			}
		}
		w.u32(uint32(n))
		for i := range list {
			t := &list[i]
			for _, o := range t.Outcomes {
				for source := range o.Sources.Values() {
					w.sizedName(t.Name)
					w.u32(source, uint32(t.Target), uint32(t.Class), uint32(o.Type))
				}
			}
		}
	default:
		if w.p.Version < versionCompFilename {
			list = compressFilenameTransitions(list)
		}
		w.u32(uint32(len(list)))
		for i := range list {
			t := &list[i]
			w.sizedName(t.Name)
			w.u32(uint32(t.Target), uint32(t.Class), uint32(len(t.Outcomes)))
			for _, o := range t.Outcomes {
				w.bitmap(o.Sources)
				w.u32(uint32(o.Type))
			}
		}
	}
}

// compressFilenameTransitions merges rules for the same name, target and class,
// in the order in which they first appear.
func compressFilenameTransitions(list []FilenameTransition) []FilenameTransition {
	type key struct {
		name   string
		target TypeID
		class  ClassID
	}
	at := make(map[key]int, len(list))
	var out []FilenameTransition
	for i := range list {
		t := list[i]
		k := key{t.Name, t.Target, t.Class}
		j, ok := at[k]
		if !ok {
			at[k] = len(out)
			t.Outcomes = slices.Clone(t.Outcomes)
			out = append(out, t)
			continue
		}
		for _, o := range t.Outcomes {
			out[j].Outcomes = addOutcome(out[j].Outcomes, o)
		}
	}
	return out
}

func addOutcome(list []FilenameOutcome, o FilenameOutcome) []FilenameOutcome {
	for i := range list {
		if list[i].Type == o.Type {
			list[i].Sources = BitmapOf(append(slices.Collect(list[i].Sources.Bits()), slices.Collect(o.Sources.Bits())...)...)
			return list
		}
	}
	return append(list, o)
}

func (w *writer) rangeTransitions() {
	w.section = "range transitions"
	w.u32(uint32(len(w.p.RangeTransitions)))
	process := w.p.processClass()
	for _, t := range w.p.RangeTransitions {
		w.u32(uint32(t.Source), uint32(t.Target))
		if w.version >= versionRangeTrans {
			w.u32(uint32(t.Class))
		} else if t.Class != process {
			w.failf("a range transition for class %q needs version %d", w.p.ClassName(t.Class), versionRangeTrans)
		}
		w.mlsRange(t.Range)
	}
}
