// SPDX-License-Identifier: Apache-2.0

package policydb

import (
	"fmt"
	"slices"
	"strings"
)

// indexAttributes inverts TypeAttributes.
func (p *Policy) indexAttributes() {
	prim := uint32(len(p.TypeAttributes))
	counts := make([]uint32, prim+1)
	total := uint32(0)
	for _, attrs := range p.TypeAttributes {
		for a := range attrs.Values() {
			if a <= prim {
				counts[a]++
				total++
			}
		}
	}
	all := make([]TypeID, 0, total)
	p.attributeTypes = make([][]TypeID, prim)
	for a := range p.attributeTypes {
		n := len(all)
		all = all[:n+int(counts[a+1])]
		p.attributeTypes[a] = all[n:n:len(all)]
	}
	for i, attrs := range p.TypeAttributes {
		for a := range attrs.Values() {
			if a <= prim {
				p.attributeTypes[a-1] = append(p.attributeTypes[a-1], TypeID(i+1))
			}
		}
	}
}

// AttributesOf returns the attributes of a type, the type itself included.
func (p *Policy) AttributesOf(t TypeID) Bitmap {
	if t == 0 || int(t) > len(p.TypeAttributes) {
		return Bitmap{}
	}
	return p.TypeAttributes[t-1]
}

// TypesOf returns the types that an attribute stands for, ascending; of a type
// that is the type alone. The slice must not be changed.
func (p *Policy) TypesOf(attribute TypeID) []TypeID {
	if attribute == 0 || int(attribute) > len(p.attributeTypes) {
		return nil
	}
	types := p.attributeTypes[attribute-1]
	entry := p.Types.ByValue(uint32(attribute))
	isType := entry != nil && !entry.Attribute
	if isType && p.Version >= versionBoundary {
		return []TypeID{attribute}
	}
	// Writers may make an attribute a member of itself; and before version 24
	// nothing but its members tells an attribute from a type.
	if i, ok := slices.BinarySearch(types, attribute); ok && !(isType && len(types) == 1) {
		return slices.Delete(slices.Clone(types), i, i+1)
	}
	return types
}

// TypeName returns the name of a type or attribute, or "". An attribute that the
// file has no name for, as before version 24, is called @ttr and its value, as
// other tools do.
func (p *Policy) TypeName(t TypeID) string {
	if t != 0 && p.Version < versionBoundary && uint32(t) <= p.Types.Prim && p.Types.ByValue(uint32(t)) == nil {
		return fmt.Sprintf("@ttr%d", t)
	}
	return p.Types.Name(uint32(t))
}

// ClassName returns the name of a class, or "".
func (p *Policy) ClassName(c ClassID) string { return p.Classes.Name(uint32(c)) }

// capabilityNames are the capabilities that kernels know, by bit.
//
// Source: security/selinux/include/policycap_names.h.
var capabilityNames = [...]string{
	"network_peer_controls",
	"open_perms",
	"extended_socket_class",
	"always_check_network",
	"cgroup_seclabel",
	"nnp_nosuid_transition",
	"genfs_seclabel_symlinks",
	"ioctl_skip_cloexec",
	"userspace_initial_context",
	"netlink_xperm",
	"netif_wildcard",
	"genfs_seclabel_wildcard",
	"functionfs_seclabel",
	"memfd_class",
	"bpf_token_perms",
}

// CapabilityName returns the name of a policy capability, and false for one that
// is not known here.
func CapabilityName(bit uint32) (string, bool) {
	if bit < uint32(len(capabilityNames)) {
		return capabilityNames[bit], true
	}
	return fmt.Sprintf("capability_%d", bit), false
}

// Warnings says what in the policy is odd and kept all the same.
func (p *Policy) Warnings() []string {
	var out []string
	for bit := range p.Capabilities.Bits() {
		if _, ok := CapabilityName(bit); !ok {
			out = append(out, fmt.Sprintf("policy capability %d is not known here and kept as it is", bit))
		}
	}
	if p.Trailing != "" {
		out = append(out, fmt.Sprintf("%d bytes follow the policy in the file", len(p.Trailing)))
	}
	return out
}

// ContextString prints a context of the policy as the kernel does.
//
// Source: security/selinux/ss/services.c, context_struct_to_string;
// security/selinux/ss/mls.c, mls_sid_to_context.
func (p *Policy) ContextString(c Context) string {
	var b strings.Builder
	b.WriteString(p.Users.Name(uint32(c.User)))
	b.WriteByte(':')
	b.WriteString(p.Roles.Name(uint32(c.Role)))
	b.WriteByte(':')
	b.WriteString(p.TypeName(c.Type))
	if p.MLS() {
		b.WriteByte(':')
		b.WriteString(p.RangeString(c.Range))
	}
	return b.String()
}

// RangeString prints a range with the names of the policy.
func (p *Policy) RangeString(r Range) string {
	low := p.LevelString(r.Low)
	if r.Low.Sensitivity == r.High.Sensitivity && r.Low.Categories.Equal(r.High.Categories) {
		return low
	}
	return low + "-" + p.LevelString(r.High)
}

// LevelString prints a level with the names of the policy.
func (p *Policy) LevelString(l Level) string {
	var b strings.Builder
	b.WriteString(p.Sensitivities.Name(uint32(l.Sensitivity)))
	sep := byte(':')
	low, high := uint32(0), uint32(0)
	flush := func() {
		if low == 0 {
			return
		}
		b.WriteByte(sep)
		sep = ','
		b.WriteString(p.Categories.Name(low))
		if high > low {
			if high == low+1 {
				b.WriteByte(',')
			} else {
				b.WriteByte('.')
			}
			b.WriteString(p.Categories.Name(high))
		}
	}
	for v := range l.Categories.Values() {
		if low != 0 && v == high+1 {
			high = v
			continue
		}
		flush()
		low, high = v, v
	}
	flush()
	return b.String()
}

// CondString prints a conditional expression in infix form.
func (p *Policy) CondString(expr []CondExpr) string {
	const longest = 1000 // items; longer ones no person reads
	if len(expr) > longest {
		return fmt.Sprintf("an expression of %d items", len(expr))
	}
	var stack []string
	pop := func() string {
		if len(stack) == 0 {
			return "?"
		}
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return s
	}
	for _, e := range expr {
		switch e.Op {
		case CondBool:
			stack = append(stack, p.Booleans.Name(uint32(e.Bool)))
		case CondNot:
			stack = append(stack, "! "+pop())
		default:
			right, left := pop(), pop()
			stack = append(stack, "("+left+" "+e.Op.String()+" "+right+")")
		}
	}
	s := pop()
	if strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") {
		s = s[1 : len(s)-1]
	}
	return s
}
