// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// typeRules finds type_transition, type_member and type_change rules and
// transitions by name, role and range.
type typeRules struct {
	always    map[typeKey]policydb.TypeID
	conds     map[typeKey][]condType
	filenames map[filenameKey]int // index into Policy.FilenameTransitions
	more      map[filenameKey][]int
	roles     map[roleKey]policydb.RoleID
	ranges    map[rangeKey]int
	sockets   []bool // by class-1
}

type typeKey struct {
	kind           policydb.RuleKind
	source, target policydb.TypeID
	class          policydb.ClassID
}

type condType struct {
	node uint32
	typ  policydb.TypeID
}

type filenameKey struct {
	target policydb.TypeID
	class  policydb.ClassID
	name   string
}

type roleKey struct {
	role  policydb.RoleID
	typ   policydb.TypeID
	class policydb.ClassID
}

type rangeKey struct {
	source, target policydb.TypeID
	class          policydb.ClassID
}

func newTypeRules(p *policydb.Policy) *typeRules {
	t := &typeRules{
		always:    map[typeKey]policydb.TypeID{},
		conds:     map[typeKey][]condType{},
		filenames: make(map[filenameKey]int, len(p.FilenameTransitions)),
		more:      map[filenameKey][]int{},
		roles:     make(map[roleKey]policydb.RoleID, len(p.RoleTransitions)),
		ranges:    make(map[rangeKey]int, len(p.RangeTransitions)),
		sockets:   make([]bool, p.Classes.Prim),
	}
	for _, r := range p.Rules {
		if r.Kind().IsType() {
			t.always[typeKey{r.Kind(), r.Source, r.Target, r.Class}] = policydb.TypeID(r.Data)
		}
	}
	for i := range p.Conditionals {
		c := &p.Conditionals[i]
		for branch, list := range [2][]policydb.Rule{c.True, c.False} {
			for _, r := range list {
				if r.Kind().IsType() {
					k := typeKey{r.Kind(), r.Source, r.Target, r.Class}
					t.conds[k] = append(t.conds[k], condType{uint32(1 + 2*i + branch), policydb.TypeID(r.Data)})
				}
			}
		}
	}
	for i := range p.FilenameTransitions {
		f := &p.FilenameTransitions[i]
		k := filenameKey{f.Target, f.Class, f.Name}
		if _, ok := t.filenames[k]; ok {
			// Before version 33 each source type has a rule of its own.
			t.more[k] = append(t.more[k], i)
			continue
		}
		t.filenames[k] = i
	}
	for _, r := range p.RoleTransitions {
		k := roleKey{r.Role, r.Type, r.Class}
		if _, ok := t.roles[k]; !ok {
			t.roles[k] = r.NewRole
		}
	}
	for i, r := range p.RangeTransitions {
		k := rangeKey{r.Source, r.Target, r.Class}
		if _, ok := t.ranges[k]; !ok {
			t.ranges[k] = i
		}
	}
	if p.Target == policydb.SELinux {
		for c := range p.Classes.All() {
			_, t.sockets[c.Value-1] = socketClasses[c.Name]
		}
	}
	return t
}

// InvalidResultError says that the rules give a context that the policy does not
// allow; an enforcing kernel refuses the operation with EACCES.
type InvalidResultError struct {
	Context string // the refused context
	Reason  string
}

func (e *InvalidResultError) Error() string {
	return fmt.Sprintf("the new context %s is not valid: %s", e.Context, e.Reason)
}

// ErrForeignContext is returned for contexts of another policy.
var ErrForeignContext = errors.New("a context of another policy")

// Transition returns the context of a new process (class process: source is the
// process, target the executable) or of a new object (target is the directory or
// related object). name is the last component of the new object's path, or "".
// The error is an [*InvalidResultError] or [ErrForeignContext].
func (s *Server) Transition(source, target *Context, class policydb.ClassID, name string) (*Context, error) {
	return s.computeContext(policydb.TypeTransition, source, target, class, name)
}

// Member returns the context of a member of a polyinstantiated object.
func (s *Server) Member(source, target *Context, class policydb.ClassID) (*Context, error) {
	return s.computeContext(policydb.TypeMember, source, target, class, "")
}

// Relabel returns the context that a relabelling program gives to an object for
// a user, a terminal at login for example.
func (s *Server) Relabel(source, target *Context, class policydb.ClassID) (*Context, error) {
	return s.computeContext(policydb.TypeChange, source, target, class, "")
}

// computeContext is the kernel's rule for new contexts.
//
// Source: security/selinux/ss/services.c, security_compute_sid.
func (s *Server) computeContext(kind policydb.RuleKind, source, target *Context, class policydb.ClassID, name string) (*Context, error) {
	if source.policy != s.policy || target.policy != s.policy {
		return nil, ErrForeignContext
	}
	t := s.typeRules()
	var defaults policydb.Class
	if c := s.policy.Classes.ByValue(uint32(class)); c != nil {
		defaults = *c
	}
	isSocket := class != 0 && int(class) <= len(t.sockets) && t.sockets[class-1]
	likeProcess := class != 0 && class == s.process || isSocket

	n := &Context{policy: s.policy}
	n.user = source.user
	if kind == policydb.TypeMember || defaults.DefaultUser == policydb.DefaultTarget {
		n.user = target.user
	}
	switch {
	case defaults.DefaultRole == policydb.DefaultSource, defaults.DefaultRole != policydb.DefaultTarget && likeProcess:
		n.role = source.role
	case defaults.DefaultRole == policydb.DefaultTarget:
		n.role = target.role
	default:
		n.role = policydb.ObjectRole
	}
	n.typ = s.newType(t, kind, source, target, class, &defaults, likeProcess)
	if name != "" {
		if typ := t.byName(s.policy, source.typ, target.typ, class, name); typ != 0 {
			n.typ = typ
		}
	}
	if kind == policydb.TypeTransition {
		if role, ok := t.roles[roleKey{source.role, target.typ, class}]; ok {
			n.role = role
		}
	}
	if s.policy.MLS() {
		if reason := s.newRange(n, t, kind, source, target, class, &defaults, likeProcess); reason != "" {
			return nil, &InvalidResultError{Context: n.String(), Reason: reason}
		}
	}
	if reason := s.checkContext(n); reason != "" {
		return nil, &InvalidResultError{Context: n.String(), Reason: reason}
	}
	n.id = contextIDs.Add(1)
	return n, nil
}

func (s *Server) newType(t *typeRules, kind policydb.RuleKind, source, target *Context, class policydb.ClassID, defaults *policydb.Class, likeProcess bool) policydb.TypeID {
	k := typeKey{kind, source.typ, target.typ, class}
	if typ, ok := t.always[k]; ok {
		return typ
	}
	for _, c := range t.conds[k] {
		if s.branchActive(c.node) {
			return c.typ
		}
	}
	switch {
	case defaults.DefaultType == policydb.DefaultSource, defaults.DefaultType != policydb.DefaultTarget && likeProcess:
		return source.typ
	default:
		return target.typ
	}
}

// byName returns the type that a new object with a name gets, or 0.
//
// Source: security/selinux/ss/services.c, filename_compute_type.
func (t *typeRules) byName(p *policydb.Policy, source, target policydb.TypeID, class policydb.ClassID, name string) policydb.TypeID {
	k := filenameKey{target, class, name}
	first, ok := t.filenames[k]
	if !ok {
		return 0
	}
	for _, i := range append([]int{first}, t.more[k]...) {
		for _, o := range p.FilenameTransitions[i].Outcomes {
			if o.Sources.HasValue(uint32(source)) {
				return o.Type
			}
		}
	}
	return 0
}

// newRange sets the range of a new context, or says why there is none.
//
// Source: security/selinux/ss/mls.c, mls_compute_sid.
func (s *Server) newRange(n *Context, t *typeRules, kind policydb.RuleKind, source, target *Context, class policydb.ClassID, defaults *policydb.Class, likeProcess bool) string {
	if kind == policydb.TypeTransition {
		if i, ok := t.ranges[rangeKey{source.typ, target.typ, class}]; ok {
			r := &s.policy.RangeTransitions[i].Range
			n.low, n.high = denseLevel(r.Low), denseLevel(r.High)
			return ""
		}
		switch defaults.DefaultRange {
		case policydb.DefaultSourceLow:
			n.low, n.high = source.low, source.low
			return ""
		case policydb.DefaultSourceHigh:
			n.low, n.high = source.high, source.high
			return ""
		case policydb.DefaultSourceLowHigh:
			n.low, n.high = source.low, source.high
			return ""
		case policydb.DefaultTargetLow:
			n.low, n.high = target.low, target.low
			return ""
		case policydb.DefaultTargetHigh:
			n.low, n.high = target.high, target.high
			return ""
		case policydb.DefaultTargetLowHigh:
			n.low, n.high = target.low, target.high
			return ""
		case policydb.DefaultGLBLUB:
			return greatestLower(n, source, target)
		}
	}
	n.low, n.high = source.low, source.low
	if likeProcess && kind != policydb.TypeMember {
		n.high = source.high
	}
	return ""
}

// greatestLower gives the greatest lower bound of the ranges of both contexts.
//
// Source: security/selinux/ss/context.h, mls_context_glblub.
func greatestLower(n, a, b *Context) string {
	if a.high.sens < b.low.sens || b.high.sens < a.low.sens {
		return "the ranges have no sensitivity in common"
	}
	n.low = level{sens: max(a.low.sens, b.low.sens), cats: a.low.intersect(&b.low)}
	n.high = level{sens: min(a.high.sens, b.high.sens), cats: a.high.intersect(&b.high)}
	return ""
}

// ErrTransitionDenied is returned by ValidateTransition when a validatetrans
// rule forbids the change; the kernel answers EPERM.
var ErrTransitionDenied = errors.New("a validatetrans rule forbids the change of label")

// ErrUnknownClass is returned where a class must exist.
var ErrUnknownClass = errors.New("the policy has no such class")

// ValidateTransition checks a change of an object's label from one context to
// another by a process. The error is [ErrTransitionDenied], [ErrUnknownClass] or
// [ErrForeignContext].
//
// Source: security/selinux/ss/services.c, security_compute_validatetrans.
func (s *Server) ValidateTransition(from, to, process *Context, class policydb.ClassID) error {
	if from.policy != s.policy || to.policy != s.policy || process.policy != s.policy {
		return ErrForeignContext
	}
	rules := s.classRules(class)
	if rules == nil {
		return ErrUnknownClass
	}
	for i := range rules.validateTrans {
		if !rules.validateTrans[i].eval(s.policy, from, to, process) {
			return ErrTransitionDenied
		}
	}
	return nil
}
