// SPDX-License-Identifier: Apache-2.0

package ss

import "github.com/palisade-sec/palisade/selinux/policydb"

// Flags of a Decision.
const (
	FlagPermissive uint32 = 1 // the source domain is permissive: denials are logged only
	FlagNeverAudit uint32 = 2 // nothing about the source domain is logged
)

// Decision is what the policy says about a source, a target and a class. Its
// vectors have a bit for each permission of the class; see
// [policydb.Class.PermissionNames].
type Decision struct {
	Allowed    uint32
	AuditAllow uint32 // logged when allowed
	AuditDeny  uint32 // logged when denied; all ones but for dontaudit rules
	Flags      uint32
}

// IsPermissive reports whether denials are only logged.
func (d Decision) IsPermissive() bool { return d.Flags&FlagPermissive != 0 }

// Decide computes the access vectors of a source, a target and a class. A class
// of 0, one that the policy does not know, is decided by the policy's
// handle_unknown setting; a class number that is too high has no permissions.
// Contexts must come from this server or one with the same policy; others are
// denied everything.
//
// Source: security/selinux/ss/services.c, security_compute_av_user,
// context_struct_compute_av.
func (s *Server) Decide(source, target *Context, class policydb.ClassID) Decision {
	e := s.cache.entry(source.id, target.id, class)
	if d, ok := e.load(source.id, target.id, class); ok {
		return d
	}
	d := s.decide(source, target, class)
	e.store(source.id, target.id, class, d)
	return d
}

func (s *Server) decide(source, target *Context, class policydb.ClassID) Decision {
	d := Decision{AuditDeny: ^uint32(0)}
	if source.policy != s.policy || target.policy != s.policy {
		return d
	}
	if s.policy.Permissive.Has(uint32(source.typ)) {
		d.Flags |= FlagPermissive
	}
	if s.policy.NeverAudit.Has(uint32(source.typ)) {
		d.Flags |= FlagNeverAudit
	}
	// Kernels that know neveraudit let such a domain do everything when it is
	// permissive too, so that it costs nothing.
	if d.Flags == FlagPermissive|FlagNeverAudit {
		d.Allowed = ^uint32(0)
		return d
	}
	if class == 0 {
		if s.policy.HandleUnknown() == policydb.AllowUnknown {
			d.Allowed = ^uint32(0)
		}
		return d
	}
	rules := s.classRules(class)
	if rules == nil {
		return d
	}
	v := s.computeVector(source, target, rules, maxBounds)
	d.Allowed, d.AuditAllow, d.AuditDeny = v.allowed, v.auditAllow, v.auditDeny
	return d
}

// maxBounds is how far bounds are followed; a valid policy's chains are shorter.
const maxBounds = 8

// computeVector takes the kernel's steps: rules, constraints, role allows,
// bounds.
func (s *Server) computeVector(source, target *Context, class *classRules, depth int) vector {
	v := s.typeVector(source.typ, target.typ, class.id)
	for i := range class.constraints {
		c := &class.constraints[i]
		if c.permissions&v.allowed != 0 && !c.eval(s.policy, source, target, nil) {
			v.allowed &^= c.permissions
		}
	}
	if class.id == s.process && v.allowed&s.transitions != 0 && !s.roleAllowed(source.role, target.role) {
		v.allowed &^= s.transitions
	}
	if bounded := s.policy.Types.ByValue(uint32(source.typ)); bounded != nil && bounded.Bounds != 0 && depth > 0 && v.allowed != 0 {
		v.allowed &= s.boundingVector(source, target, bounded.Bounds, class, depth-1).allowed
	}
	return v
}

// boundingVector is what the type that bounds the source may do to the target,
// or to the type that bounds that.
//
// Source: security/selinux/ss/services.c, type_attribute_bounds_av.
func (s *Server) boundingVector(source, target *Context, bounds policydb.TypeID, class *classRules, depth int) vector {
	upSource, upTarget := s.boundContexts(source, target, bounds)
	return s.computeVector(&upSource, &upTarget, class, depth)
}

func (s *Server) boundContexts(source, target *Context, bounds policydb.TypeID) (upSource, upTarget Context) {
	upSource, upTarget = *source, *target
	upSource.typ = bounds
	if t := s.policy.Types.ByValue(uint32(target.typ)); t != nil && t.Bounds != 0 {
		upTarget.typ = t.Bounds
	}
	return upSource, upTarget
}

func (s *Server) roleAllowed(from, to policydb.RoleID) bool {
	if from == to {
		return true
	}
	_, ok := s.roleAllows[policydb.RoleAllow{Role: from, NewRole: to}]
	return ok
}
