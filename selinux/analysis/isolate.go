// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// Residual is a permission that one context keeps on what belongs to another.
type Residual struct {
	Class  string `json:"class"`
	Perm   string `json:"perm"`
	Source string `json:"source"` // who may
	Target string `json:"target"` // on what of the other's
	Reason string `json:"reason"`
	// Accepted tells that the file of accepted residuals has it.
	Accepted bool `json:"accepted,omitempty"`
}

// Proof is the answer to the question whether contexts are kept apart.
type Proof struct {
	// Proven says that no residual is left that was not accepted.
	Proven bool `json:"proven"`
	// Pairs is the number of ordered pairs of contexts that were looked at, Kinds
	// how many of them differ in what decides.
	Pairs int `json:"pairs"`
	Kinds int `json:"kinds"`
	// Checked is the number of decisions made.
	Checked  int        `json:"checked"`
	Residual []Residual `json:"residual"`
	// Problems name what is wrong with the contexts themselves: a level that
	// dominates the other, a type that no constraint holds.
	Problems []string `json:"problems"`
}

// Accepted is a set of residuals that somebody has looked at and accepts.
type Accepted struct{ lines [][4]string }

// ParseAccepted reads lines "CLASS PERM SOURCE TARGET", each a name or "*";
// SOURCE and TARGET are types. A "#" begins a comment.
func ParseAccepted(text string) (Accepted, error) {
	var a Accepted
	n := 0
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		n++
		line, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(line)
		switch len(f) {
		case 0:
		case 4:
			a.lines = append(a.lines, [4]string(f))
		default:
			return a, fmt.Errorf("line %d: want CLASS PERM SOURCE TARGET, found %d words", n, len(f))
		}
	}
	return a, nil
}

func (a Accepted) has(class, perm, source, target string) bool {
	return slices.ContainsFunc(a.lines, func(l [4]string) bool {
		for i, v := range [4]string{class, perm, source, target} {
			if l[i] != "*" && l[i] != v {
				return false
			}
		}
		return true
	})
}

// ErrTooFew says that fewer than two contexts were given.
var ErrTooFew = errors.New("isolation is between two contexts or more")

// objectClasses are classes whose objects have a label of their own, given when
// they are made; those of all other classes carry the label of a process.
var objectClasses = []string{"file", "dir", "lnk_file", "chr_file", "blk_file", "sock_file", "fifo_file", "filesystem"}

// ownership are the permissions that make content of a type one's own: somebody
// who has one of them can have put something there.
var ownership = []string{"create", "write", "append", "setattr", "rename", "unlink"}

// notBetween are classes whose objects belong to nobody: the label comes from
// the policy, not from a container.
var notBetween = map[string]bool{"node": true, "netif": true, "packet": true, "security": true, "system": true, "kernel_service": true, "infiniband_pkey": true, "infiniband_endport": true}

// Isolate decides, for every ordered pair of contexts and every class, what the
// one may still do to the other: to its processes and what carries their label,
// and to content of every type that the other may own, with the other's level.
// Constraints, booleans and type bounds are taken into account: each answer is
// a decision as the kernel makes it.
//
// Pairs that differ in nothing that decides are looked at once: users, roles,
// types, and how the levels relate.
func Isolate(server *ss.Server, contexts []*ss.Context, accepted Accepted) (Proof, error) {
	if len(contexts) < 2 {
		return Proof{}, ErrTooFew
	}
	iso := &isolation{s: server, p: server.Policy(), accepted: accepted, seen: map[Residual]bool{}, owns: map[policydb.TypeID][]owned{}}
	kinds := map[pairKind]bool{}
	proof := Proof{Residual: []Residual{}, Problems: []string{}}
	sides := make([]side, len(contexts))
	for i, c := range contexts {
		sides[i] = prepare(c.Values())
	}
	for i, a := range contexts {
		for j, b := range contexts {
			if i == j {
				continue
			}
			proof.Pairs++
			k := kindOf(&sides[i], &sides[j])
			if kinds[k] {
				continue
			}
			kinds[k] = true
			if err := iso.pair(a, b); err != nil {
				return proof, err
			}
		}
	}
	proof.Kinds, proof.Checked = len(kinds), iso.checked
	proof.Residual = append(proof.Residual, iso.out...)
	slices.SortFunc(proof.Residual, func(x, y Residual) int {
		return cmp.Or(strings.Compare(x.Class, y.Class), strings.Compare(x.Perm, y.Perm), strings.Compare(x.Source, y.Source), strings.Compare(x.Target, y.Target))
	})
	proof.Problems = append(proof.Problems, iso.problems...)
	proof.Proven = len(proof.Problems) == 0 && !slices.ContainsFunc(proof.Residual, func(r Residual) bool { return !r.Accepted })
	return proof, nil
}

// pairKind is all that a decision about two contexts depends on.
type pairKind struct {
	userA, userB policydb.UserID
	roleA, roleB policydb.RoleID
	typeA, typeB policydb.TypeID
	levels       [6]relation
}

type relation uint8

// flat is a level as plain words, for the many comparisons of many contexts.
type flat struct {
	sensitivity policydb.SensID
	words       []uint64
}

func flatten(l policydb.Level) flat {
	f := flat{sensitivity: l.Sensitivity}
	for bit := range l.Categories.Bits() {
		for int(bit/64) >= len(f.words) {
			f.words = append(f.words, 0)
		}
		f.words[bit/64] |= 1 << (bit % 64)
	}
	return f
}

func (f flat) dominates(g flat) bool {
	if f.sensitivity < g.sensitivity || len(f.words) < len(g.words) {
		return false
	}
	for i, w := range g.words {
		if w&^f.words[i] != 0 {
			return false
		}
	}
	return true
}

func relate(a, b flat) relation {
	var r relation
	if a.dominates(b) {
		r |= 1
	}
	if b.dominates(a) {
		r |= 2
	}
	return r
}

// side is one context of a pair, prepared.
type side struct {
	user      policydb.UserID
	role      policydb.RoleID
	typ       policydb.TypeID
	low, high flat
	single    bool
	own       relation
}

func prepare(c policydb.Context) side {
	s := side{user: c.User, role: c.Role, typ: c.Type, low: flatten(c.Range.Low), high: flatten(c.Range.High)}
	s.single = c.Range.Low.Equal(c.Range.High)
	s.own = relate(s.low, s.high)
	return s
}

func kindOf(a, b *side) pairKind {
	k := pairKind{a.user, b.user, a.role, b.role, a.typ, b.typ, [6]relation{4: a.own, 5: b.own}}
	k.levels[3] = relate(a.high, b.high)
	if a.single && b.single {
		k.levels[0], k.levels[1], k.levels[2] = k.levels[3], k.levels[3], k.levels[3]
		return k
	}
	k.levels[0], k.levels[1], k.levels[2] = relate(a.low, b.low), relate(a.low, b.high), relate(a.high, b.low)
	return k
}

type owned struct {
	class policydb.ClassID
	typ   policydb.TypeID
}

type isolation struct {
	s        *ss.Server
	p        *policydb.Policy
	accepted Accepted
	checked  int
	out      []Residual
	seen     map[Residual]bool
	problems []string
	owns     map[policydb.TypeID][]owned
}

func (iso *isolation) pair(a, b *ss.Context) error {
	av, bv := a.Values(), b.Values()
	dominates := iso.p.MLS() && av.Range.High.Dominates(bv.Range.High)
	switch {
	case !iso.p.MLS():
		iso.problem("the policy has no levels: contexts of one type are one")
	case dominates && bv.Range.High.Dominates(av.Range.High):
		iso.problem(fmt.Sprintf("%s and %s have the same level", a, b))
	case dominates:
		iso.problem(fmt.Sprintf("the level of %s dominates that of %s", a, b))
	}
	// What carries the label of b's processes.
	for i := range iso.p.Classes.Entries {
		c := &iso.p.Classes.Entries[i]
		if !notBetween[c.Name] && !slices.Contains(objectClasses, c.Name) {
			iso.decide(a, b, c, dominates)
		}
	}
	// b's content: the types that it may own, with the level that it gives them.
	level := policydb.Context{User: bv.User, Role: policydb.ObjectRole, Range: policydb.Range{Low: bv.Range.Low, High: bv.Range.Low}}
	for _, o := range iso.owned(b) {
		c := iso.p.Classes.ByValue(uint32(o.class))
		if c == nil {
			continue
		}
		level.Type = o.typ
		object, err := iso.s.Resolve(level)
		if err != nil {
			continue // no such object can exist
		}
		iso.decide(a, object, c, dominates)
	}
	return nil
}

func (iso *isolation) problem(text string) {
	if !slices.Contains(iso.problems, text) {
		iso.problems = append(iso.problems, text)
	}
}

// owned returns the content that a context may own, by class and type.
func (iso *isolation) owned(b *ss.Context) []owned {
	if have, ok := iso.owns[b.Type()]; ok {
		return have
	}
	masks := map[policydb.ClassID]uint32{}
	var fs policydb.ClassID
	for _, name := range objectClasses {
		c := iso.p.Classes.ByName(name)
		if c == nil {
			continue
		}
		if name == "filesystem" {
			fs = c.ID()
			continue
		}
		for _, perm := range ownership {
			masks[c.ID()] |= c.PermissionMask(perm)
		}
	}
	// Pipes and entries of /proc have the type of a process; those of other
	// domains are not b's, whatever b may do with them.
	domain := map[policydb.TypeID]bool{}
	for i := range iso.p.Roles.Entries {
		if r := &iso.p.Roles.Entries[i]; policydb.RoleID(r.Value) != policydb.ObjectRole {
			for t := range r.Types.Values() {
				domain[policydb.TypeID(t)] = true
			}
		}
	}
	set := map[owned]bool{}
	for g := range iso.s.Grants(b.Type()) {
		if masks[g.Class]&g.Allowed == 0 {
			continue
		}
		for _, t := range iso.p.TypesOf(g.Target) {
			if domain[t] && t != b.Type() {
				continue
			}
			set[owned{g.Class, t}] = true
			if fs != 0 {
				set[owned{fs, t}] = true // mounted with that label
			}
		}
	}
	out := make([]owned, 0, len(set))
	for o := range set {
		out = append(out, o)
	}
	slices.SortFunc(out, func(x, y owned) int { return cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.typ, y.typ)) })
	iso.owns[b.Type()] = out
	return out
}

func (iso *isolation) decide(a, target *ss.Context, c *policydb.Class, dominates bool) {
	iso.checked++
	d := iso.s.Decide(a, target, c.ID())
	if d.IsPermissive() {
		iso.problem(fmt.Sprintf("%s is permissive: nothing holds it", iso.p.TypeName(a.Type())))
	}
	for _, perm := range c.PermissionNames(d.Allowed & c.AllPermissions()) {
		r := Residual{Class: c.Name, Perm: perm, Source: iso.p.TypeName(a.Type()), Target: iso.p.TypeName(target.Type())}
		r.Accepted = iso.accepted.has(r.Class, r.Perm, r.Source, r.Target)
		r.Reason = iso.reason(a, c, c.PermissionMask(perm), dominates)
		if !iso.seen[r] {
			iso.seen[r] = true
			iso.out = append(iso.out, r)
		}
	}
}

// reason says why a permission is left.
func (iso *isolation) reason(a *ss.Context, c *policydb.Class, bit uint32, dominates bool) string {
	if dominates {
		return "the level of the source dominates that of the target"
	}
	compares := false
	for i := range c.Constraints {
		k := &c.Constraints[i]
		if k.Permissions&bit != 0 && k.IsMLS() {
			compares = true
		}
	}
	if !compares {
		return fmt.Sprintf("no constraint on %s %s compares levels", c.Name, c.PermissionName(lowestBit(bit)))
	}
	return fmt.Sprintf("the constraints that compare levels exempt %s", iso.p.TypeName(a.Type()))
}

func lowestBit(mask uint32) int {
	for i := range 32 {
		if mask&(1<<i) != 0 {
			return i
		}
	}
	return -1
}
