// SPDX-License-Identifier: Apache-2.0

package policydb

import "slices"

// EvalCond evaluates a conditional's expression; booleans has the values, that of
// the boolean with value v at v-1. An expression without sense is false.
//
// Source: security/selinux/ss/conditional.c, cond_evaluate_expr.
func EvalCond(expr []CondExpr, booleans []bool) bool {
	var stack [16]bool
	n := 0
	for _, e := range expr {
		switch e.Op {
		case CondBool:
			if n == len(stack) {
				return false
			}
			stack[n] = e.Bool != 0 && int(e.Bool) <= len(booleans) && booleans[e.Bool-1]
			n++
			continue
		case CondNot:
			if n < 1 {
				return false
			}
			stack[n-1] = !stack[n-1]
			continue
		}
		if n < 2 {
			return false
		}
		n--
		a, b := stack[n-1], stack[n]
		switch e.Op {
		case CondOr:
			a = a || b
		case CondAnd:
			a = a && b
		case CondXor, CondNeq:
			a = a != b
		case CondEq:
			a = a == b
		}
		stack[n-1] = a
	}
	return n == 1 && stack[0]
}

// WithBooleans returns a policy that differs in the default values of booleans,
// with the states of conditionals and of their rules to match. values has the
// value of the boolean with value v at v-1. Everything else is shared with p.
func (p *Policy) WithBooleans(values []bool) *Policy {
	q := *p
	q.Booleans.Entries = slices.Clone(p.Booleans.Entries)
	for i := range q.Booleans.Entries {
		b := &q.Booleans.Entries[i]
		if int(b.Value) <= len(values) {
			b.State = values[b.Value-1]
		}
	}
	q.Conditionals = slices.Clone(p.Conditionals)
	for i := range q.Conditionals {
		c := &q.Conditionals[i]
		state := EvalCond(c.Expr, values)
		c.State = bit(state)
		c.True = enable(c.True, state)
		c.False = enable(c.False, !state)
	}
	return &q
}

// enable sets the enabled bit of conditional rules, which the kernel believes
// until a boolean is set.
func enable(rules []Rule, on bool) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].raw &^= uint16(kindEnabled)
		if on {
			rules[i].raw |= uint16(kindEnabled)
		}
	}
	return rules
}
