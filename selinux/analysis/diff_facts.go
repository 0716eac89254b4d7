// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// factKinds are the kinds of what is compared as named sets of words; the numbers
// are indexes.
var factKinds = []string{
	"policy", "type", "role", "user", "boolean", "class", "constraint", "default", "sensitivity", "category", "capability",
	"permissive", "role allow", "role_transition", "range_transition", "filename transition", "extended permissions", "label",
}

const (
	factPolicy = iota
	factType
	factRole
	factUser
	factBoolean
	factClass
	factConstraint
	factDefault
	factSensitivity
	factCategory
	factCapability
	factPermissive
	factRoleAllow
	factRoleTransition
	factRangeTransition
	factFilename
	factXPerm
	factLabel
)

type facts []map[string][]string

func (f facts) add(kind int, name string, words ...string) {
	f[kind][name] = append(f[kind][name], words...)
}

// factsOf describes everything of a policy but its type enforcement rules.
func factsOf(p *policydb.Policy) facts {
	f := make(facts, len(factKinds))
	for i := range f {
		f[i] = map[string][]string{}
	}
	f.add(factPolicy, "levels", onOff(p.MLS()))
	f.add(factPolicy, "unknown classes", p.HandleUnknown().String())
	f.add(factPolicy, "target", p.Target.String())
	f.add(factPolicy, "version", strconv.Itoa(int(p.Version)))
	for bit := range p.Capabilities.Bits() {
		name, _ := policydb.CapabilityName(bit)
		f.add(factCapability, name)
	}
	f.symbols(p)
	f.classes(p)
	f.transitions(p)
	f.labels(p)
	return f
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func (f facts) symbols(p *policydb.Policy) {
	for i := range p.Types.Entries {
		t := &p.Types.Entries[i]
		switch {
		case t.Alias:
			f.add(factType, t.Name, "alias of "+p.TypeName(t.ID()))
		case t.Attribute:
			f.add(factType, t.Name, "attribute")
		default:
			f.add(factType, t.Name)
			for a := range p.AttributesOf(t.ID()).Values() {
				if a != t.Value {
					f.add(factType, t.Name, p.TypeName(policydb.TypeID(a)))
				}
			}
			if t.Bounds != 0 {
				f.add(factType, t.Name, "bounded by "+p.TypeName(t.Bounds))
			}
			if p.Permissive.Has(t.Value) {
				f.add(factPermissive, t.Name)
			}
		}
	}
	for r := range p.Roles.All() {
		f.add(factRole, r.Name)
		if policydb.RoleID(r.Value) == policydb.ObjectRole {
			continue // has all types
		}
		for t := range r.Types.Values() {
			f.add(factRole, r.Name, p.TypeName(policydb.TypeID(t)))
		}
	}
	for u := range p.Users.All() {
		for r := range u.Roles.Values() {
			f.add(factUser, u.Name, p.Roles.Name(r))
		}
		if p.MLS() {
			f.add(factUser, u.Name, "range "+p.RangeString(u.Range), "level "+p.LevelString(u.DefaultLevel))
		}
	}
	for b := range p.Booleans.All() {
		f.add(factBoolean, b.Name, onOff(b.State))
	}
	rank := 0
	for s := range p.Sensitivities.All() {
		rank++
		f.add(factSensitivity, s.Name, fmt.Sprintf("rank %d", rank), "categories "+p.LevelString(s.Level))
	}
	for i := range p.Sensitivities.Entries {
		if s := &p.Sensitivities.Entries[i]; s.Alias {
			f.add(factSensitivity, s.Name, "alias of "+p.Sensitivities.Name(uint32(s.Level.Sensitivity)))
		}
	}
	for i := range p.Categories.Entries {
		if c := &p.Categories.Entries[i]; c.Alias {
			f.add(factCategory, c.Name, "alias of "+p.Categories.Name(c.Value))
		} else {
			f.add(factCategory, c.Name)
		}
	}
}

var wordSet = regexp.MustCompile(`\{ [^{}()]* \}`)

func (f facts) classes(p *policydb.Policy) {
	for c := range p.Classes.All() {
		f.add(factClass, c.Name, c.PermissionNames(c.AllPermissions())...)
		for _, text := range ss.Constraints(p, c) {
			// Sets are printed in the order of the policy's numbers.
			text = wordSet.ReplaceAllStringFunc(text, func(set string) string {
				words := strings.Fields(set[1 : len(set)-1])
				slices.Sort(words)
				return braces(words)
			})
			f.add(factConstraint, text)
		}
		for what, v := range map[string]uint32{"user": c.DefaultUser, "role": c.DefaultRole, "type": c.DefaultType} {
			if v != 0 {
				f.add(factDefault, "default_"+what+" "+c.Name, map[uint32]string{policydb.DefaultSource: "source", policydb.DefaultTarget: "target"}[v])
			}
		}
		if c.DefaultRange != 0 {
			f.add(factDefault, "default_range "+c.Name, map[uint32]string{
				policydb.DefaultSourceLow: "source low", policydb.DefaultSourceHigh: "source high", policydb.DefaultSourceLowHigh: "source low-high",
				policydb.DefaultTargetLow: "target low", policydb.DefaultTargetHigh: "target high", policydb.DefaultTargetLowHigh: "target low-high",
				policydb.DefaultGLBLUB: "glblub",
			}[c.DefaultRange])
		}
	}
}

func (f facts) transitions(p *policydb.Policy) {
	role := func(r policydb.RoleID) string { return p.Roles.Name(uint32(r)) }
	process := (&searcher{p: p}).processClass()
	class := func(c policydb.ClassID) string {
		if c == 0 {
			c = process
		}
		return p.ClassName(c)
	}
	for _, a := range p.RoleAllows {
		f.add(factRoleAllow, role(a.Role)+" "+role(a.NewRole))
	}
	for _, t := range p.RoleTransitions {
		f.add(factRoleTransition, role(t.Role)+" "+p.TypeName(t.Type)+":"+class(t.Class), role(t.NewRole))
	}
	for _, t := range p.RangeTransitions {
		f.add(factRangeTransition, p.TypeName(t.Source)+" "+p.TypeName(t.Target)+":"+class(t.Class), p.RangeString(t.Range))
	}
	for i := range p.FilenameTransitions {
		t := &p.FilenameTransitions[i]
		tail := fmt.Sprintf(" %s:%s %q", p.TypeName(t.Target), class(t.Class), t.Name)
		for _, o := range t.Outcomes {
			for s := range o.Sources.Values() {
				name := p.TypeName(policydb.TypeID(s)) + tail
				if f[factFilename][name] == nil { // the first outcome counts
					f.add(factFilename, name, p.TypeName(o.Type))
				}
			}
		}
	}
	s := searcher{p: p}
	xperms := func(list []policydb.Rule, condition string) {
		for _, r := range list {
			if !r.Kind().IsXPerm() {
				continue
			}
			x := p.XPerms(r)
			name := fmt.Sprintf("%s %s %s:%s %s%s", r.Kind(), p.TypeName(r.Source), p.TypeName(r.Target), p.ClassName(r.Class), xpermName(x), condition)
			for _, n := range xpermNumbers(x) {
				f.add(factXPerm, name, fmt.Sprintf("0x%04x", n))
			}
		}
	}
	xperms(p.Rules, "")
	for i := range p.Conditionals {
		c := &p.Conditionals[i]
		text := s.condition(c.Expr)
		xperms(c.True, " [ "+text+" ]:True")
		xperms(c.False, " [ "+text+" ]:False")
	}
}

// joinNumbers turns the numbers of extended permissions into ranges again.
func joinNumbers(words []string) []string {
	numbers := make([]uint16, 0, len(words))
	for _, w := range words {
		n, err := strconv.ParseUint(w, 0, 16)
		if err != nil {
			return words
		}
		numbers = append(numbers, uint16(n))
	}
	return spans(numbers)
}

// labels describes the labels that the policy itself gives. Order matters among
// ports and networks only where they overlap; it is not compared.
func (f facts) labels(p *policydb.Policy) {
	add := func(c policydb.Context, format string, args ...any) {
		f.add(factLabel, fmt.Sprintf(format, args...), p.ContextString(c))
	}
	o := &p.ObjectContexts
	for _, x := range o.InitialSIDs {
		add(x.Context, "sid %d", x.SID)
	}
	for _, x := range o.Filesystems {
		add(x.Context, "fscon %s", x.Name)
		add(x.Files, "fscon %s files", x.Name)
	}
	for _, x := range o.Ports {
		add(x.Context, "portcon protocol %d %d-%d", x.Protocol, x.Low, x.High)
	}
	for _, x := range o.Interfaces {
		add(x.Context, "netifcon %s", x.Name)
		add(x.Messages, "netifcon %s messages", x.Name)
	}
	for _, x := range o.Nodes {
		add(x.Context, "nodecon %s %s", netip.AddrFrom4(x.Address), netip.AddrFrom4(x.Mask))
	}
	for _, x := range o.Nodes6 {
		add(x.Context, "nodecon %s %s", netip.AddrFrom16(x.Address), netip.AddrFrom16(x.Mask))
	}
	for _, x := range o.FSUses {
		add(x.Context, "fs_use %d %s", x.Behavior, x.Name)
	}
	for _, x := range o.PKeys {
		add(x.Context, "ibpkeycon %x %d-%d", x.SubnetPrefix, x.Low, x.High)
	}
	for _, x := range o.EndPorts {
		add(x.Context, "ibendportcon %s %d", x.Device, x.Port)
	}
	for _, x := range o.PIRQs {
		add(x.Context, "pirqcon %d", x.Value)
	}
	for _, x := range o.IOPorts {
		add(x.Context, "ioportcon %#x-%#x", x.Low, x.High)
	}
	for _, x := range o.IOMems {
		add(x.Context, "iomemcon %#x-%#x", x.Low, x.High)
	}
	for _, x := range o.PCIDevices {
		add(x.Context, "pcidevicecon %#x", x.Value)
	}
	for _, x := range o.DeviceTrees {
		add(x.Context, "devicetreecon %s", x.Path)
	}
	for i := range p.Genfs {
		g := &p.Genfs[i]
		for _, e := range g.Entries {
			class := p.ClassName(e.Class)
			if class != "" {
				class = " " + class
			}
			add(e.Context, "genfscon %s %s%s", g.Filesystem, e.Path, class)
		}
	}
}
