// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"sync/atomic"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// classRules is a class with its constraints compiled.
type classRules struct {
	id            policydb.ClassID
	class         *policydb.Class
	constraints   []constraint
	validateTrans []constraint
}

// constraint is a postfix expression in which the left side of "and" and "or"
// skips the right side when that cannot change the outcome.
type constraint struct {
	permissions uint32
	source      *policydb.Constraint
	expr        []constraintItem
}

type constraintItem struct {
	op      policydb.ConstraintOp
	compare uint32
	attr    uint32
	// join is the item of the operator whose left side ends here, or 0; when the
	// value so far is joinOn, evaluation goes on behind that operator.
	join   uint32
	joinOn bool
	names  []uint64
}

// classRules returns the compiled constraints of a class, or nil when the policy
// has no such class.
func (e *engine) classRules(class policydb.ClassID) *classRules {
	if class == 0 || int(class) > len(e.classes) {
		return nil
	}
	p := &e.classes[class-1]
	if r := p.Load(); r != nil {
		return r
	}
	return e.compileClass(class, p)
}

func (e *engine) compileClass(class policydb.ClassID, at *atomic.Pointer[classRules]) *classRules {
	c := e.policy.Classes.ByValue(uint32(class))
	if c == nil {
		return nil
	}
	r := &classRules{id: class, class: c}
	r.constraints = compileConstraints(c.Constraints)
	r.validateTrans = compileConstraints(c.ValidateTrans)
	at.Store(r)
	return r
}

func compileConstraints(list []policydb.Constraint) []constraint {
	out := make([]constraint, len(list))
	for i := range list {
		out[i] = compileConstraint(&list[i])
	}
	return out
}

func compileConstraint(c *policydb.Constraint) constraint {
	out := constraint{permissions: c.Permissions, source: c, expr: make([]constraintItem, len(c.Expr))}
	// ends has the last items of the values on the stack.
	var ends [policydb.MaxConstraintDepth]uint32
	depth := 0
	for i := range c.Expr {
		e := &c.Expr[i]
		item := &out.expr[i]
		item.op, item.attr, item.compare = e.Op, e.Attr, e.Compare
		switch e.Op {
		case policydb.ConstraintNames:
			item.names = dense(e.Names)
			ends[depth] = uint32(i)
			depth++
		case policydb.ConstraintAttr:
			ends[depth] = uint32(i)
			depth++
		case policydb.ConstraintNot:
			ends[depth-1] = uint32(i)
		default:
			left := &out.expr[ends[depth-2]]
			left.join, left.joinOn = uint32(i), e.Op == policydb.ConstraintOr
			depth--
			ends[depth-1] = uint32(i)
		}
	}
	return out
}

// eval evaluates the constraint; x is the third context of validatetrans or nil.
//
// Source: security/selinux/ss/services.c, constraint_expr_eval.
func (c *constraint) eval(p *policydb.Policy, source, target, x *Context) bool {
	stack := uint32(0) // a bit for each value, the newest lowest
	for i := 0; i < len(c.expr); i++ {
		e := &c.expr[i]
		switch e.op {
		case policydb.ConstraintNot:
			stack ^= 1
		case policydb.ConstraintAnd:
			stack = stack>>1&^1 | stack>>1&stack&1
		case policydb.ConstraintOr:
			stack = stack>>1 | stack&1
		default:
			stack <<= 1
			if e.leaf(p, source, target, x) {
				stack |= 1
			}
		}
		for e.join != 0 && e.joinOn == (stack&1 != 0) {
			i = int(e.join)
			e = &c.expr[i]
		}
	}
	return stack&1 != 0
}

// leaf evaluates a comparison.
func (e *constraintItem) leaf(p *policydb.Policy, source, target, x *Context) bool {
	if e.op == policydb.ConstraintNames {
		c := source
		switch {
		case e.attr&policydb.AttrTarget != 0:
			c = target
		case e.attr&policydb.AttrXTarget != 0:
			c = x
		}
		if c == nil {
			return false
		}
		var value uint32
		switch {
		case e.attr&policydb.AttrUser != 0:
			value = uint32(c.user)
		case e.attr&policydb.AttrRole != 0:
			value = uint32(c.role)
		default:
			value = uint32(c.typ)
		}
		bit := value - 1
		has := int(bit/64) < len(e.names) && e.names[bit/64]&(1<<(bit%64)) != 0
		return has == (e.compare == policydb.CompareEq)
	}
	switch e.attr {
	case policydb.AttrUser:
		return (source.user == target.user) == (e.compare == policydb.CompareEq)
	case policydb.AttrType:
		return (source.typ == target.typ) == (e.compare == policydb.CompareEq)
	case policydb.AttrRole:
		return compareRoles(p, source.role, target.role, e.compare)
	}
	a, b := e.levels(source, target)
	if a == nil {
		return false
	}
	switch e.compare {
	case policydb.CompareEq:
		return a.equal(b)
	case policydb.CompareNeq:
		return !a.equal(b)
	case policydb.CompareDom:
		return a.dominates(b)
	case policydb.CompareDomBy:
		return b.dominates(a)
	case policydb.CompareIncomp:
		return !a.dominates(b) && !b.dominates(a)
	}
	return false
}

// levels returns the two levels that an item compares.
func (e *constraintItem) levels(source, target *Context) (a, b *level) {
	switch e.attr {
	case policydb.AttrL1L2:
		return &source.low, &target.low
	case policydb.AttrL1H2:
		return &source.low, &target.high
	case policydb.AttrH1L2:
		return &source.high, &target.low
	case policydb.AttrH1H2:
		return &source.high, &target.high
	case policydb.AttrL1H1:
		return &source.low, &source.high
	case policydb.AttrL2H2:
		return &target.low, &target.high
	}
	return nil, nil
}

func compareRoles(p *policydb.Policy, a, b policydb.RoleID, compare uint32) bool {
	switch compare {
	case policydb.CompareEq:
		return a == b
	case policydb.CompareNeq:
		return a != b
	}
	ra, rb := p.Roles.ByValue(uint32(a)), p.Roles.ByValue(uint32(b))
	if ra == nil || rb == nil {
		return false
	}
	switch compare {
	case policydb.CompareDom:
		return ra.Dominates.HasValue(uint32(b))
	case policydb.CompareDomBy:
		return rb.Dominates.HasValue(uint32(a))
	case policydb.CompareIncomp:
		return !ra.Dominates.HasValue(uint32(b)) && !rb.Dominates.HasValue(uint32(a))
	}
	return false
}
