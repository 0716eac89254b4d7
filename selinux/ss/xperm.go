// SPDX-License-Identifier: Apache-2.0

package ss

import "github.com/palisade-sec/palisade/selinux/policydb"

// XPermBase is the permission that extended permissions refine.
type XPermBase uint8

const (
	Ioctl       XPermBase = 1 // ioctl numbers
	NetlinkType XPermBase = 2 // netlink message types, permission nlmsg
)

// xpermRules are the rules with extended permissions by source, target, class.
type xpermRules struct {
	rules map[rangeKey][]xpermRule
}

type xpermRule struct {
	node uint32 // as in ruleEntry
	kind policydb.RuleKind
	set  *policydb.XPermSet
}

func newXPermRules(p *policydb.Policy) *xpermRules {
	x := &xpermRules{rules: map[rangeKey][]xpermRule{}}
	add := func(r policydb.Rule, node uint32) {
		if set := p.XPerms(r); set != nil {
			k := rangeKey{r.Source, r.Target, r.Class}
			x.rules[k] = append(x.rules[k], xpermRule{node, r.Kind(), set})
		}
	}
	for _, r := range p.Rules {
		add(r, 0)
	}
	for i := range p.Conditionals {
		c := &p.Conditionals[i]
		for branch, list := range [2][]policydb.Rule{c.True, c.False} {
			for _, r := range list {
				add(r, uint32(1+2*i+branch))
			}
		}
	}
	return x
}

// XDecision is what the policy says about one ioctl number or netlink message
// type, given that the base permission itself is allowed.
type XDecision struct {
	// Restricted reports whether extended permissions exist for the source, target
	// and class at all; without them the base permission covers all numbers.
	Restricted bool
	Allowed    bool
	AuditAllow bool
	DontAudit  bool
}

// DecideX decides one ioctl number (or netlink message type) by its extended
// permissions alone; the base permission is [Server.Decide]'s. As soon as any rule
// for the pair has extended permissions, of whatever base and kind, all numbers
// are denied that no allowxperm rule lists.
//
// Source: security/selinux/ss/services.c, services_compute_xperms_drivers,
// services_compute_xperms_decision; security/selinux/avc.c,
// avc_has_extended_perms.
func (s *Server) DecideX(source, target *Context, class policydb.ClassID, base XPermBase, number uint16) XDecision {
	if source.policy != s.policy || target.policy != s.policy {
		return XDecision{Restricted: true}
	}
	var d XDecision
	for r := range s.xperms(source.typ, target.typ, class) {
		d.Restricted = true
		if (r.set.Kind == policydb.XPermNetlink) != (base == NetlinkType) || !covers(r.set, number) {
			continue
		}
		switch r.kind {
		case policydb.AllowX:
			d.Allowed = true
		case policydb.AuditAllowX:
			d.AuditAllow = true
		case policydb.DontAuditX:
			d.DontAudit = true
		}
	}
	if !d.Restricted {
		d.Allowed = true
	}
	return d
}

// covers reports whether a set has a number.
func covers(x *policydb.XPermSet, number uint16) bool {
	high, low := uint8(number>>8), uint8(number)
	if x.Kind == policydb.XPermIoctlDriver {
		return x.Has(high)
	}
	return x.Driver == high && x.Has(low)
}

// xperms yields the extended permission rules in force for a pair.
func (s *Server) xperms(source, target policydb.TypeID, class policydb.ClassID) func(func(xpermRule) bool) {
	return func(yield func(xpermRule) bool) {
		x := s.xpermRules()
		if len(x.rules) == 0 {
			return
		}
		for _, a := range s.attributes[source-1] {
			for _, b := range s.attributes[target-1] {
				for _, r := range x.rules[rangeKey{a, b, class}] {
					if r.node != 0 && !s.branchActive(r.node) {
						continue
					}
					if !yield(r) {
						return
					}
				}
			}
		}
	}
}
