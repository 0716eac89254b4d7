// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// Cause is why a permission is allowed or denied: the first step of the kernel's
// decision that settles it.
type Cause string

const (
	CauseRule           Cause = "rule"          // allowed: a rule grants it and nothing takes it away
	CauseUnknownClass   Cause = "unknown-class" // the policy has no such class
	CauseUnknownPerm    Cause = "unknown-perm"  // the class has no such permission
	CauseNoRule         Cause = "no-rule"       // no rule grants it, whatever the booleans
	CauseBoolean        Cause = "boolean"       // rules grant it, under other boolean values
	CauseConstraint     Cause = "constraint"    // a constraint takes it away
	CauseRoleAllow      Cause = "role-allow"    // no role allow for the change of role
	CauseBounds         Cause = "bounds"        // the bounding type may not do it
	CauseXPerm          Cause = "extended-perm" // the ioctl number is not among the allowed
	CausePermissiveMute Cause = "never-audit"   // allowed: permissive and never audited
)

// FixKind is what a fix changes. Kinds are in the order of preference: the
// smaller change first.
type FixKind string

const (
	FixBoolean FixKind = "boolean" // set booleans
	FixRelabel FixKind = "relabel" // give the target another label
	FixSource  FixKind = "source"  // start the source with another label
	FixRole    FixKind = "role"    // allow a change of role
	FixRule    FixKind = "rule"    // add a rule
	FixPolicy  FixKind = "policy"  // another policy is needed
)

// Fix is a change after which the server would allow the permission; each was
// tried out before it is proposed.
type Fix struct {
	Kind FixKind `json:"kind"`
	Text string  `json:"text"`
	// Rule is a statement of the policy language, with FixRole and FixRule.
	Rule string `json:"rule,omitempty"`
	// Booleans are the settings of FixBoolean.
	Booleans map[string]bool `json:"booleans,omitempty"`
	// Context is the new context of FixRelabel and FixSource.
	Context string `json:"context,omitempty"`

	node uint32 // of the conditional rule, with FixBoolean; as in ruleEntry
}

// Leaf is a comparison in a constraint that made it fail.
type Leaf struct {
	Expr string `json:"expr"` // as in the policy: "h1 dom h2"
	Why  string `json:"why"`  // with what the contexts have
}

// FailedConstraint is the constraint that denies a permission.
type FailedConstraint struct {
	Text   string `json:"text"`   // the whole statement
	Leaves []Leaf `json:"leaves"` // what would have to be different, any of them or all
	MLS    bool   `json:"mls"`
}

// Explanation says why one permission is allowed or denied.
type Explanation struct {
	Source     string `json:"source"`
	Target     string `json:"target"`
	Class      string `json:"class"`
	Permission string `json:"permission"`

	Allowed    bool   `json:"allowed"`
	Permissive bool   `json:"permissive,omitempty"` // denied, but only logged
	DontAudit  bool   `json:"dontaudit,omitempty"`  // the denial is not logged
	Cause      Cause  `json:"cause"`
	Text       string `json:"text"` // the cause in a sentence

	// Rules grant the permission, or would under other booleans.
	Rules      []string          `json:"rules,omitempty"`
	Constraint *FailedConstraint `json:"constraint,omitempty"`
	// Then are further steps that would deny the permission if the cause were
	// cured.
	Then  []string `json:"then,omitempty"`
	Fixes []Fix    `json:"fixes,omitempty"`
}

// Explain says why a permission is allowed or denied. class and permission are
// names, so that unknown ones can be explained too.
func (s *Server) Explain(source, target *Context, class, permission string) Explanation {
	x := &explainer{s: s, source: source, target: target}
	x.out = Explanation{Source: source.String(), Target: target.String(), Class: class, Permission: permission}
	x.explain(class, permission)
	x.out.Permissive = !x.out.Allowed && s.policy.Permissive.Has(uint32(source.typ))
	return x.out
}

// ExplainIoctl is [Server.Explain] for the permission ioctl with an ioctl number.
func (s *Server) ExplainIoctl(source, target *Context, class string, number uint16) Explanation {
	out := s.Explain(source, target, class, "ioctl")
	id := s.Class(class)
	if !out.Allowed || id == 0 || out.Cause == CausePermissiveMute {
		return out
	}
	d := s.DecideX(source, target, id, Ioctl, number)
	if d.Allowed {
		return out
	}
	src, tgt := s.policy.TypeName(source.typ), s.policy.TypeName(target.typ)
	rule := fmt.Sprintf("allowxperm %s %s:%s ioctl 0x%04x;", src, tgt, class, number)
	out.Allowed, out.Cause, out.Rules = false, CauseXPerm, nil
	out.DontAudit = d.DontAudit
	out.Permissive = s.policy.Permissive.Has(uint32(source.typ))
	out.Text = fmt.Sprintf("%s may use ioctl on %s:%s, but rules with extended permissions list the numbers, and 0x%04x is not among them", src, tgt, class, number)
	out.Fixes = []Fix{{Kind: FixRule, Text: "allow this ioctl number", Rule: rule}}
	return out
}

type explainer struct {
	s              *Server
	source, target *Context
	class          *classRules
	bit            uint32
	out            Explanation
}

func (x *explainer) sourceType() string { return x.s.policy.TypeName(x.source.typ) }
func (x *explainer) targetType() string { return x.s.policy.TypeName(x.target.typ) }

func (x *explainer) explain(class, permission string) {
	s := x.s
	if s.policy.Permissive.Has(uint32(x.source.typ)) && s.policy.NeverAudit.Has(uint32(x.source.typ)) {
		x.out.Allowed, x.out.Cause = true, CausePermissiveMute
		x.out.Text = fmt.Sprintf("%s is permissive and never audited: it may do everything", x.sourceType())
		return
	}
	c := s.policy.Classes.ByName(class)
	if c == nil {
		x.unknown(CauseUnknownClass, fmt.Sprintf("the policy has no class %s", class))
		return
	}
	x.class = s.classRules(c.ID())
	if x.bit = c.PermissionMask(permission); x.bit == 0 {
		x.unknown(CauseUnknownPerm, fmt.Sprintf("class %s has no permission %s in the policy", class, permission))
		return
	}
	d := s.decide(x.source, x.target, c.ID())
	x.out.Allowed = d.Allowed&x.bit != 0
	x.out.DontAudit = !x.out.Allowed && d.AuditDeny&x.bit == 0
	active, inactive := x.grants()
	if x.out.Allowed {
		x.out.Cause, x.out.Rules = CauseRule, ruleTexts(s.policy, active)
		x.out.Text = fmt.Sprintf("allowed by %s", strings.Join(x.out.Rules, " "))
		return
	}
	if len(active) == 0 {
		x.noRule(inactive)
		return
	}
	x.out.Rules = ruleTexts(s.policy, active)
	if c, ok := x.failedConstraint(x.source, x.target); ok {
		x.constraint(c)
		return
	}
	if x.roleDenied() {
		x.roleAllow()
		return
	}
	x.bounds()
}

func (x *explainer) unknown(cause Cause, text string) {
	x.out.Cause = cause
	h := x.s.policy.HandleUnknown()
	x.out.Allowed = h == policydb.AllowUnknown
	x.out.Text = fmt.Sprintf("%s; its handle_unknown setting is %s", text, h)
	if !x.out.Allowed {
		x.out.Fixes = []Fix{{Kind: FixPolicy, Text: "load a policy that defines it, or one built to allow what is unknown"}}
	}
}

// grant is a rule that gives the permission.
type grant struct {
	source, target policydb.TypeID
	entry          *ruleEntry
}

// grants returns the allow rules with the permission that are in force, and those
// that are not.
func (x *explainer) grants() (active, inactive []grant) {
	for _, a := range x.s.attributes[x.source.typ-1] {
		entries := x.s.rules.of(a)
		for i := range entries {
			e := &entries[i]
			if e.kind != policydb.Allow || e.data&x.bit == 0 || policydb.ClassID(e.key>>16) != x.class.id {
				continue
			}
			b := policydb.TypeID(e.key & 0xffff)
			if !slices.Contains(x.s.attributes[x.target.typ-1], b) {
				continue
			}
			if e.node == 0 || x.s.branchActive(e.node) {
				active = append(active, grant{a, b, e})
			} else {
				inactive = append(inactive, grant{a, b, e})
			}
		}
	}
	return active, inactive
}

// maxRules is how many rules an explanation quotes.
const maxRules = 3

func ruleTexts(p *policydb.Policy, list []grant) []string {
	var out []string
	for _, g := range list {
		if len(out) == maxRules {
			return append(out, fmt.Sprintf("… and %d more", len(list)-maxRules))
		}
		class := policydb.ClassID(g.entry.key >> 16)
		c := p.Classes.ByValue(uint32(class))
		text := fmt.Sprintf("allow %s %s:%s %s;", p.TypeName(g.source), p.TypeName(g.target), c.Name, braces(c.PermissionNames(g.entry.data)))
		if g.entry.node != 0 {
			n := (g.entry.node - 1) / 2
			branch := "true"
			if (g.entry.node-1)&1 != 0 {
				branch = "false"
			}
			text += fmt.Sprintf(" [ %s ]:%s", p.CondString(p.Conditionals[n].Expr), branch)
		}
		out = append(out, text)
	}
	return out
}

func braces(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return "{ " + strings.Join(names, " ") + " }"
}

// later returns what would deny the permission if rules granted it, for contexts
// that may differ from the explained ones in their labels.
func (x *explainer) later(source, target *Context) []string {
	var out []string
	if c, ok := x.failedConstraint(source, target); ok {
		out = append(out, fmt.Sprintf("a constraint would deny it still: %s", constraintText(x.s.policy, x.class.class, c.source, len(x.class.validateTrans) > 0)))
	}
	if x.class.id == x.s.process && x.bit&x.s.transitions != 0 && !x.s.roleAllowed(source.role, target.role) {
		out = append(out, fmt.Sprintf("the change of role would be denied still: there is no allow %s %s;",
			x.s.policy.Roles.Name(uint32(source.role)), x.s.policy.Roles.Name(uint32(target.role))))
	}
	if up, ok := x.boundsDeny(source, target); ok {
		out = append(out, fmt.Sprintf("the bounds would deny it still: %s, which bounds %s, may not do it", x.s.policy.TypeName(up), x.s.policy.TypeName(source.typ)))
	}
	return out
}

func (x *explainer) noRule(inactive []grant) {
	src, tgt := x.sourceType(), x.targetType()
	x.out.Then = x.later(x.source, x.target)
	if fixes := x.booleanFixes(inactive); len(fixes) > 0 {
		x.out.Cause = CauseBoolean
		// The rule that the first fix puts in force is quoted first.
		slices.SortStableFunc(inactive, func(a, b grant) int { return fixRank(fixes, a) - fixRank(fixes, b) })
		x.out.Rules = ruleTexts(x.s.policy, inactive)
		x.out.Text = fmt.Sprintf("the rule that allows %s to %s %s:%s is off: %s", src, x.out.Permission, tgt, x.out.Class, x.out.Rules[0])
		if len(x.out.Then) == 0 {
			x.out.Fixes = fixes
		}
		return
	}
	x.out.Cause = CauseNoRule
	x.out.Text = fmt.Sprintf("no rule allows %s to %s %s:%s", src, x.out.Permission, tgt, x.out.Class)
	if x.targetUnlabeled() {
		x.out.Text += "; the target has no valid label of its own"
		x.out.Fixes = append(x.out.Fixes, Fix{Kind: FixRelabel, Text: "label the target, with restorecon for example; " + tgt + " is what the kernel shows for objects without a valid label"})
		return
	}
	if len(x.out.Then) > 0 {
		return
	}
	x.out.Fixes = append(x.out.Fixes, x.relabelType()...)
	x.out.Fixes = append(x.out.Fixes, Fix{
		Kind: FixRule, Text: "add the rule, if it is meant",
		Rule: fmt.Sprintf("allow %s %s:%s %s;", src, selfOr(src, tgt), x.out.Class, x.out.Permission),
	})
}

func selfOr(source, target string) string {
	if source == target {
		return "self"
	}
	return target
}

// targetUnlabeled reports whether the target's type is that of the initial SIDs
// for objects without a label.
func (x *explainer) targetUnlabeled() bool {
	const sidUnlabeled = 3
	for _, sid := range x.s.policy.ObjectContexts.InitialSIDs {
		if sid.SID == sidUnlabeled && sid.Context.Type == x.target.typ && x.target.typ != x.source.typ {
			return x.s.policy.Target == policydb.SELinux
		}
	}
	return false
}

// maxBooleans is how many booleans of an expression are tried.
const maxBooleans = 10

// booleanFixes returns the smallest settings that put one of the rules in force.
func (x *explainer) booleanFixes(inactive []grant) []Fix {
	seen := map[uint32]bool{}
	var fixes []Fix
	for _, g := range inactive {
		if seen[g.entry.node] {
			continue
		}
		seen[g.entry.node] = true
		if settings := x.s.smallestSetting(g.entry.node); settings != nil {
			fixes = append(fixes, Fix{Kind: FixBoolean, Text: settingText(settings), Booleans: settings, node: g.entry.node})
		}
	}
	// The fewest settings first, and among them what changes the fewest rules.
	slices.SortStableFunc(fixes, func(a, b Fix) int {
		return cmp.Or(len(a.Booleans)-len(b.Booleans), x.s.rulesBehind(a.Booleans)-x.s.rulesBehind(b.Booleans))
	})
	return fixes[:min(len(fixes), maxRules)]
}

// fixRank is the index of the fix that puts a rule in force.
func fixRank(fixes []Fix, g grant) int {
	if i := slices.IndexFunc(fixes, func(f Fix) bool { return f.node == g.entry.node }); i >= 0 {
		return i
	}
	return len(fixes)
}

// rulesBehind counts the rules that depend on booleans.
func (s *Server) rulesBehind(settings map[string]bool) int {
	n := 0
	for i := range s.policy.Conditionals {
		c := &s.policy.Conditionals[i]
		if slices.ContainsFunc(c.Expr, func(e policydb.CondExpr) bool {
			_, ok := settings[s.policy.Booleans.Name(uint32(e.Bool))]
			return e.Op == policydb.CondBool && ok
		}) {
			n += len(c.True) + len(c.False)
		}
	}
	return n
}

func settingText(settings map[string]bool) string {
	var parts []string
	for name, v := range settings {
		value := "off"
		if v {
			value = "on"
		}
		parts = append(parts, name+" "+value)
	}
	slices.Sort(parts)
	return "set " + strings.Join(parts, " and ")
}

// smallestSetting returns the fewest changes of booleans that activate a branch.
func (s *Server) smallestSetting(node uint32) map[string]bool {
	c := &s.policy.Conditionals[(node-1)/2]
	want := (node-1)&1 == 0
	var ids []policydb.BoolID
	for _, e := range c.Expr {
		if e.Op == policydb.CondBool && !slices.Contains(ids, e.Bool) {
			ids = append(ids, e.Bool)
		}
	}
	if len(ids) > maxBooleans {
		return nil
	}
	booleans := slices.Clone(s.booleans)
	best := -1
	for flips := range 1 << len(ids) {
		if best >= 0 && onesCount(flips) >= onesCount(best) {
			continue
		}
		for i, id := range ids {
			booleans[id-1] = s.booleans[id-1] != (flips>>i&1 != 0)
		}
		if policydb.EvalCond(c.Expr, booleans) == want {
			best = flips
		}
	}
	if best <= 0 {
		return nil
	}
	out := map[string]bool{}
	for i, id := range ids {
		if best>>i&1 != 0 {
			out[s.policy.Booleans.Name(uint32(id))] = !s.booleans[id-1]
		}
	}
	return out
}

func onesCount(n int) int {
	c := 0
	for ; n != 0; n &= n - 1 {
		c++
	}
	return c
}

// relabelType proposes the type that the source makes its own objects with, when
// that would help: content that was put into place by someone else.
func (x *explainer) relabelType() []Fix {
	c := x.class.class
	if c.PermissionMask("relabelto") == 0 || x.class.id == x.s.process || x.source.typ == x.target.typ {
		return nil
	}
	type score struct {
		typ policydb.TypeID
		own uint32
	}
	best := score{}
	row := x.s.row(x.source.typ)
	// Among types whose name begins like the source's, the one that the source
	// may do most with: container_t and container_file_t.
	prefix, _, _ := strings.Cut(x.sourceType(), "_")
	for t := range x.s.policy.Types.All() {
		if t.Attribute || t.ID() == x.target.typ || t.ID() == x.source.typ || !strings.HasPrefix(t.Name, prefix+"_") {
			continue
		}
		v := vector{}
		for _, a := range x.s.attributes[t.Value-1] {
			if slot := row.find(makeRowKey(x.class.id, a)); slot != nil {
				x.s.addSlot(&v, row, slot)
			}
		}
		if v.allowed&x.bit != 0 && onesCount(int(v.allowed)) > onesCount(int(best.own)) {
			best = score{t.ID(), v.allowed}
		}
	}
	if best.typ == 0 {
		return nil
	}
	target := *x.target
	target.typ = best.typ
	if !x.allows(x.source, &target) {
		return nil
	}
	return []Fix{{Kind: FixRelabel, Text: "if the target is " + x.sourceType() + "'s own content, label it so", Context: target.String()}}
}

// allows reports whether the permission would be allowed between two contexts
// that are valid.
func (x *explainer) allows(source, target *Context) bool {
	return x.s.checkContext(source) == "" && x.s.checkContext(target) == "" &&
		x.s.decide(source, target, x.class.id).Allowed&x.bit != 0
}

// failedConstraint returns the first constraint that denies the permission.
func (x *explainer) failedConstraint(source, target *Context) (*constraint, bool) {
	for i := range x.class.constraints {
		c := &x.class.constraints[i]
		if c.permissions&x.bit != 0 && !c.eval(x.s.policy, source, target, nil) {
			return c, true
		}
	}
	return nil, false
}

func (x *explainer) constraint(c *constraint) {
	x.out.Cause = CauseConstraint
	f := &FailedConstraint{
		Text:   constraintText(x.s.policy, x.class.class, c.source, false),
		Leaves: failedLeaves(x.s.policy, c, x.source, x.target),
		MLS:    c.source.IsMLS(),
	}
	x.out.Constraint = f
	x.out.Text = fmt.Sprintf("rules allow it, but a constraint on %s:%s denies it", x.out.Class, x.out.Permission)
	if len(f.Leaves) > 0 {
		x.out.Text += ": " + f.Leaves[0].Why
	}
	x.out.Fixes = x.labelFixes()
}

// labelFixes tries changes of level, user and role of either side.
func (x *explainer) labelFixes() []Fix {
	var fixes []Fix
	add := func(kind FixKind, text string, source, target *Context, changed *Context) {
		for _, f := range fixes {
			if f.Context == changed.String() && f.Kind == kind {
				return
			}
		}
		if x.allows(source, target) {
			fixes = append(fixes, Fix{Kind: kind, Text: text, Context: changed.String()})
		}
	}
	t := *x.target
	t.low, t.high = x.source.low, x.source.low
	add(FixRelabel, "label the target with the level of the source, so that they share their categories", x.source, &t, &t)
	t = *x.target
	t.low, t.high = x.source.low, x.source.high
	add(FixRelabel, "label the target with the range of the source", x.source, &t, &t)
	src := *x.source
	src.low, src.high = x.target.low, x.target.high
	add(FixSource, "start the source with the level of the target", &src, x.target, &src)
	t = *x.target
	t.user = x.source.user
	add(FixRelabel, "label the target with the user of the source", x.source, &t, &t)
	t.role = x.source.role
	add(FixRelabel, "label the target with the user and role of the source", x.source, &t, &t)
	return fixes[:min(len(fixes), maxRules)]
}

func (x *explainer) roleDenied() bool {
	return x.class.id == x.s.process && x.bit&x.s.transitions != 0 && !x.s.roleAllowed(x.source.role, x.target.role)
}

func (x *explainer) roleAllow() {
	from, to := x.s.policy.Roles.Name(uint32(x.source.role)), x.s.policy.Roles.Name(uint32(x.target.role))
	x.out.Cause = CauseRoleAllow
	x.out.Text = fmt.Sprintf("rules allow it, but role %s may not change to role %s", from, to)
	x.out.Fixes = []Fix{{Kind: FixRole, Text: "allow the change of role", Rule: fmt.Sprintf("allow %s %s;", from, to)}}
	if up, ok := x.boundsDeny(x.source, x.target); ok {
		x.out.Then = []string{fmt.Sprintf("the bounds would deny it still: %s, which bounds %s, may not do it", x.s.policy.TypeName(up), x.sourceType())}
		x.out.Fixes = nil
	}
}

// boundsDeny returns the type that bounds the source when that may not do it.
func (x *explainer) boundsDeny(source, target *Context) (policydb.TypeID, bool) {
	t := x.s.policy.Types.ByValue(uint32(source.typ))
	if t == nil || t.Bounds == 0 {
		return 0, false
	}
	v := x.s.boundingVector(source, target, t.Bounds, x.class, maxBounds)
	return t.Bounds, v.allowed&x.bit == 0
}

func (x *explainer) bounds() {
	x.out.Cause = CauseBounds
	t := x.s.policy.Types.ByValue(uint32(x.source.typ))
	if t == nil || t.Bounds == 0 {
		x.out.Text = "denied"
		return
	}
	up, down := x.s.boundContexts(x.source, x.target, t.Bounds)
	upName, downName := x.s.policy.TypeName(up.typ), x.s.policy.TypeName(down.typ)
	x.out.Text = fmt.Sprintf("rules allow it, but %s is bounded by %s, which may not %s %s:%s", x.sourceType(), upName, x.out.Permission, downName, x.out.Class)
	inner := &explainer{s: x.s, source: &up, target: &down, class: x.class, bit: x.bit}
	inner.out = Explanation{Class: x.out.Class, Permission: x.out.Permission}
	inner.explain(x.out.Class, x.out.Permission)
	x.out.Then = append(x.out.Then, "for the bounding type: "+inner.out.Text)
	if inner.out.Cause == CauseNoRule || inner.out.Cause == CauseBoolean {
		x.out.Fixes = inner.out.Fixes
	}
	x.out.Constraint = inner.out.Constraint
}
