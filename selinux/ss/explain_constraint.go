// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// maxExprItems is the longest expression that is printed or taken apart.
const maxExprItems = 2000

// exprNode is an expression as a tree.
type exprNode struct {
	item        *constraintItem
	expr        *policydb.ConstraintExpr
	left, right *exprNode
}

// tree builds the tree of a postfix expression, or nil when it is too long.
func (c *constraint) tree() *exprNode {
	if len(c.expr) > maxExprItems {
		return nil
	}
	var stack []*exprNode
	pop := func() *exprNode {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return n
	}
	for i := range c.expr {
		n := &exprNode{item: &c.expr[i], expr: &c.source.Expr[i]}
		switch n.item.op {
		case policydb.ConstraintNot:
			n.left = pop()
		case policydb.ConstraintAnd, policydb.ConstraintOr:
			n.right = pop()
			n.left = pop()
		}
		stack = append(stack, n)
	}
	return stack[0]
}

func (n *exprNode) eval(p *policydb.Policy, source, target, x *Context) bool {
	switch n.item.op {
	case policydb.ConstraintNot:
		return !n.left.eval(p, source, target, x)
	case policydb.ConstraintAnd:
		return n.left.eval(p, source, target, x) && n.right.eval(p, source, target, x)
	case policydb.ConstraintOr:
		return n.left.eval(p, source, target, x) || n.right.eval(p, source, target, x)
	}
	return n.item.leaf(p, source, target, x)
}

// failedLeaves returns the comparisons that made a constraint false; levels,
// which labels can cure, come first.
func failedLeaves(p *policydb.Policy, c *constraint, source, target *Context) []Leaf {
	root := c.tree()
	if root == nil {
		return nil
	}
	var nodes []*exprNode
	root.culprits(p, source, target, false, &nodes)
	slices.SortStableFunc(nodes, func(a, b *exprNode) int { return leafRank(a) - leafRank(b) })
	var out []Leaf
	for _, n := range nodes {
		out = append(out, Leaf{Expr: leafText(p, n.expr), Why: leafWhy(p, n, source, target)})
	}
	return slices.Compact(out)
}

func leafRank(n *exprNode) int {
	switch {
	case n.item.attr >= policydb.AttrL1L2:
		return 0
	case n.item.op == policydb.ConstraintAttr:
		return 1
	}
	return 2
}

// culprits collects the leaves that make the node have a value.
func (n *exprNode) culprits(p *policydb.Policy, source, target *Context, value bool, out *[]*exprNode) {
	switch n.item.op {
	case policydb.ConstraintNot:
		n.left.culprits(p, source, target, !value, out)
	case policydb.ConstraintAnd, policydb.ConstraintOr:
		for _, child := range [2]*exprNode{n.left, n.right} {
			if child.eval(p, source, target, nil) == value {
				child.culprits(p, source, target, value, out)
			}
		}
	default:
		*out = append(*out, n)
	}
}

var compareWords = [...]string{
	policydb.CompareEq: "==", policydb.CompareNeq: "!=", policydb.CompareDom: "dom",
	policydb.CompareDomBy: "domby", policydb.CompareIncomp: "incomp",
}

func compareWord(op uint32, mls bool) string {
	if mls && op == policydb.CompareEq {
		return "eq"
	}
	if int(op) < len(compareWords) {
		return compareWords[op]
	}
	return "?"
}

// operands names what an attribute compares.
func operands(attr uint32) (a, b string) {
	switch attr {
	case policydb.AttrUser:
		return "u1", "u2"
	case policydb.AttrRole:
		return "r1", "r2"
	case policydb.AttrType:
		return "t1", "t2"
	case policydb.AttrL1L2:
		return "l1", "l2"
	case policydb.AttrL1H2:
		return "l1", "h2"
	case policydb.AttrH1L2:
		return "h1", "l2"
	case policydb.AttrH1H2:
		return "h1", "h2"
	case policydb.AttrL1H1:
		return "l1", "h1"
	case policydb.AttrL2H2:
		return "l2", "h2"
	}
	return "?", "?"
}

// operand names the left side of a comparison with a set.
func operand(attr uint32) string {
	letter := "t"
	switch {
	case attr&policydb.AttrUser != 0:
		letter = "u"
	case attr&policydb.AttrRole != 0:
		letter = "r"
	}
	switch {
	case attr&policydb.AttrTarget != 0:
		return letter + "2"
	case attr&policydb.AttrXTarget != 0:
		return letter + "3"
	}
	return letter + "1"
}

// leafText prints a comparison in the policy language.
func leafText(p *policydb.Policy, e *policydb.ConstraintExpr) string {
	if e.Op == policydb.ConstraintNames {
		return operand(e.Attr) + " " + compareWord(e.Compare, false) + " " + setText(p, e)
	}
	a, b := operands(e.Attr)
	return a + " " + compareWord(e.Compare, e.Attr >= policydb.AttrL1L2) + " " + b
}

// maxSetNames is how many names of a set are printed.
const maxSetNames = 12

// setText prints the set of a comparison, by attribute where it was written so.
func setText(p *policydb.Policy, e *policydb.ConstraintExpr) string {
	var names []string
	values, name := e.Names, p.Types.Name
	switch {
	case e.Attr&policydb.AttrUser != 0:
		name = p.Users.Name
	case e.Attr&policydb.AttrRole != 0:
		name = p.Roles.Name
	case e.Written != nil && !e.Written.Types.IsEmpty():
		values = e.Written.Types
	}
	for v := range values.Values() {
		if len(names) == maxSetNames {
			names = append(names, "…")
			break
		}
		names = append(names, name(v))
	}
	if len(names) == 0 {
		return "{ }"
	}
	return braces(names)
}

// leafWhy says what a comparison compared and found.
func leafWhy(p *policydb.Policy, n *exprNode, source, target *Context) string {
	e := n.item
	if e.op == policydb.ConstraintNames {
		c, side := source, "source"
		if e.attr&policydb.AttrTarget != 0 {
			c, side = target, "target"
		}
		kind, value := "type", p.TypeName(c.typ)
		switch {
		case e.attr&policydb.AttrUser != 0:
			kind, value = "user", p.Users.Name(uint32(c.user))
		case e.attr&policydb.AttrRole != 0:
			kind, value = "role", p.Roles.Name(uint32(c.role))
		}
		is := "is"
		if n.item.leaf(p, source, target, nil) != (e.compare == policydb.CompareEq) {
			is = "is not"
		}
		return fmt.Sprintf("the %s's %s %s %s in %s", side, kind, value, is, setText(p, n.expr))
	}
	holds := n.item.leaf(p, source, target, nil)
	switch e.attr {
	case policydb.AttrUser:
		return sameOrNot("users", p.Users.Name(uint32(source.user)), p.Users.Name(uint32(target.user)))
	case policydb.AttrRole:
		return fmt.Sprintf("roles %s and %s: %s is %t", p.Roles.Name(uint32(source.role)), p.Roles.Name(uint32(target.role)), leafText(p, n.expr), holds)
	case policydb.AttrType:
		return sameOrNot("types", p.TypeName(source.typ), p.TypeName(target.typ))
	}
	return levelWhy(p, e, source, target, holds)
}

func sameOrNot(what, a, b string) string {
	if a == b {
		return fmt.Sprintf("the %s are both %s", what, a)
	}
	return fmt.Sprintf("the %s differ, %s and %s", what, a, b)
}

var levelNames = map[string]string{
	"l1": "the source's low level", "h1": "the source's high level",
	"l2": "the target's low level", "h2": "the target's high level",
}

func levelWhy(p *policydb.Policy, e *constraintItem, source, target *Context, holds bool) string {
	left, right := operands(e.attr)
	a, b := e.levels(source, target)
	verb := map[bool]map[uint32]string{
		true: {
			policydb.CompareEq: "equals", policydb.CompareNeq: "differs from", policydb.CompareDom: "dominates",
			policydb.CompareDomBy: "is dominated by", policydb.CompareIncomp: "cannot be compared with",
		},
		false: {
			policydb.CompareEq: "differs from", policydb.CompareNeq: "equals", policydb.CompareDom: "does not dominate",
			policydb.CompareDomBy: "is not dominated by", policydb.CompareIncomp: "can be compared with",
		},
	}[holds][e.compare]
	text := fmt.Sprintf("%s %s %s %s %s", levelNames[left], p.LevelString(a.values()), verb, levelNames[right], p.LevelString(b.values()))
	if missing := missingCategories(p, e, a, b, holds); missing != "" {
		text += " (it lacks " + missing + ")"
	}
	return text
}

// missingCategories names what the level that should dominate lacks.
func missingCategories(p *policydb.Policy, e *constraintItem, a, b *level, holds bool) string {
	if holds {
		return ""
	}
	switch e.compare {
	case policydb.CompareDom:
	case policydb.CompareDomBy:
		a, b = b, a
	default:
		return ""
	}
	rest := slices.Clone(b.cats)
	for i := range min(len(rest), len(a.cats)) {
		rest[i] &^= a.cats[i]
	}
	l := level{sens: b.sens, cats: trim(rest)}
	if len(l.cats) == 0 {
		return ""
	}
	_, cats, _ := strings.Cut(p.LevelString(l.values()), ":")
	return cats
}

// constraintText prints a constraint as a statement of the policy language.
func constraintText(p *policydb.Policy, class *policydb.Class, c *policydb.Constraint, validateTrans bool) string {
	word := "constrain"
	if validateTrans && c.Permissions == 0 {
		word = "validatetrans"
	}
	if c.IsMLS() {
		word = "mls" + word
	}
	compiled := compileConstraint(c)
	root := compiled.tree()
	expr := "…"
	if root != nil {
		expr = root.text(p)
	}
	if word == "validatetrans" || word == "mlsvalidatetrans" {
		return fmt.Sprintf("%s %s ( %s );", word, class.Name, expr)
	}
	return fmt.Sprintf("%s %s %s ( %s );", word, class.Name, braces(class.PermissionNames(c.Permissions)), expr)
}

// text prints the expression in infix form.
func (n *exprNode) text(p *policydb.Policy) string {
	switch n.item.op {
	case policydb.ConstraintNot:
		return "not " + n.left.inner(p)
	case policydb.ConstraintAnd:
		return n.left.inner(p) + " and " + n.right.inner(p)
	case policydb.ConstraintOr:
		return n.left.side(p, policydb.ConstraintOr) + " or " + n.right.side(p, policydb.ConstraintOr)
	}
	return leafText(p, n.expr)
}

// inner prints a part with parentheses where it has an operator of its own.
func (n *exprNode) inner(p *policydb.Policy) string {
	if n.item.op == policydb.ConstraintAnd || n.item.op == policydb.ConstraintOr {
		return "( " + n.text(p) + " )"
	}
	return n.text(p)
}

// side leaves the parentheses out for the same operator.
func (n *exprNode) side(p *policydb.Policy, op policydb.ConstraintOp) string {
	if n.item.op == op {
		return n.text(p)
	}
	return n.inner(p)
}

// Constraints returns the constraints of a class as statements, for people.
func Constraints(p *policydb.Policy, class *policydb.Class) []string {
	var out []string
	for i := range class.Constraints {
		out = append(out, constraintText(p, class, &class.Constraints[i], false))
	}
	for i := range class.ValidateTrans {
		out = append(out, constraintText(p, class, &class.ValidateTrans[i], true))
	}
	return out
}
