// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// Server answers questions about one policy under one setting of its booleans.
// It is immutable and safe for concurrent use.
type Server struct {
	*engine
	booleans []bool // by value-1
	state    []bool // of each conditional
	cache    *cache
}

// engine is what servers with different booleans share.
type engine struct {
	policy *policydb.Policy

	rules ruleIndex
	rows  []atomic.Pointer[row] // by source type-1
	// rowBytes is the memory of all rows; past maxRowBytes none is kept.
	rowBytes atomic.Int64

	classes    []atomic.Pointer[classRules] // by class-1
	attributes [][]policydb.TypeID          // by type-1: its attributes, itself included

	process     policydb.ClassID
	transitions uint32 // process:transition and dyntransition
	roleAllows  map[policydb.RoleAllow]struct{}

	typeRules  func() *typeRules
	xpermRules func() *xpermRules
}

// New returns a server for a valid policy, with the booleans as the policy sets
// them. The policy must not be modified any more.
func New(p *policydb.Policy) *Server {
	e := &engine{
		policy:     p,
		rows:       make([]atomic.Pointer[row], len(p.TypeAttributes)),
		classes:    make([]atomic.Pointer[classRules], p.Classes.Prim),
		roleAllows: make(map[policydb.RoleAllow]struct{}, len(p.RoleAllows)),
	}
	e.indexAttributes()
	e.rules = newRuleIndex(p)
	for _, a := range p.RoleAllows {
		e.roleAllows[a] = struct{}{}
	}
	name := "process"
	if p.Target == policydb.Xen {
		name = "domain"
	}
	if c := p.Classes.ByName(name); c != nil {
		e.process = c.ID()
		e.transitions = c.PermissionMask("transition") | c.PermissionMask("dyntransition")
	}
	e.typeRules = sync.OnceValue(func() *typeRules { return newTypeRules(p) })
	e.xpermRules = sync.OnceValue(func() *xpermRules { return newXPermRules(p) })
	booleans := make([]bool, p.Booleans.Prim)
	for b := range p.Booleans.All() {
		booleans[b.Value-1] = b.State
	}
	return e.server(booleans)
}

func (e *engine) server(booleans []bool) *Server {
	s := &Server{engine: e, booleans: booleans, cache: newCache()}
	s.state = make([]bool, len(e.policy.Conditionals))
	for i := range s.state {
		s.state[i] = policydb.EvalCond(e.policy.Conditionals[i].Expr, booleans)
	}
	return s
}

// indexAttributes lists each type's attributes as numbers, with the type itself
// among them whether or not the file says so.
func (e *engine) indexAttributes() {
	total := 0
	for _, b := range e.policy.TypeAttributes {
		total += b.Len() + 1
	}
	all := make([]policydb.TypeID, 0, total)
	e.attributes = make([][]policydb.TypeID, len(e.policy.TypeAttributes))
	for i, b := range e.policy.TypeAttributes {
		start, self := len(all), false
		for v := range b.Values() {
			all = append(all, policydb.TypeID(v))
			self = self || v == uint32(i+1)
		}
		if !self {
			all = append(all, policydb.TypeID(i+1))
		}
		e.attributes[i] = all[start:len(all):len(all)]
	}
}

// Policy returns the policy that the server answers for.
func (s *Server) Policy() *policydb.Policy { return s.policy }

// Class returns the value of a class, or 0 when the policy has no such class.
func (s *Server) Class(name string) policydb.ClassID {
	if c := s.policy.Classes.ByName(name); c != nil {
		return c.ID()
	}
	return 0
}

// Boolean returns the value of a boolean under this server; ok is false when the
// policy has no such boolean.
func (s *Server) Boolean(name string) (value, ok bool) {
	b := s.policy.Booleans.ByName(name)
	if b == nil {
		return false, false
	}
	return s.booleans[b.Value-1], true
}

// UnknownBooleanError names booleans that the policy does not have.
type UnknownBooleanError struct{ Names []string }

func (e *UnknownBooleanError) Error() string {
	return fmt.Sprintf("the policy has no boolean %q", e.Names)
}

// WithBooleans returns a server with some booleans changed. It shares the policy
// and everything compiled from it with s. The error is an
// [*UnknownBooleanError].
func (s *Server) WithBooleans(values map[string]bool) (*Server, error) {
	booleans := slices.Clone(s.booleans)
	var unknown []string
	for name, v := range values {
		b := s.policy.Booleans.ByName(name)
		if b == nil {
			unknown = append(unknown, name)
			continue
		}
		booleans[b.Value-1] = v
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, &UnknownBooleanError{Names: unknown}
	}
	return s.server(booleans), nil
}
