// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"errors"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Perms is the answer to a query, in the kernel's permission bits.
type Perms struct {
	Allow, Deny, Audit, Quiet uint32
	Kill, Complain, Prompt    uint32
	XIndex                    uint32 // exec transition, of a file query
}

const allPerms = 0xffffffff

// fileClass is the class byte of paths. Source: security/apparmor/include/apparmor.h.
const fileClass = 2

// ErrNoProfile is returned for a label with a profile that the policy lacks.
var ErrNoProfile = errors.New("no such profile")

// Set is a policy: profiles by their full names.
type Set struct {
	profiles map[string]*blob.Profile
	names    []string
}

// NewSet makes a set. Of profiles with one name the last counts, as with
// loading.
func NewSet(profiles ...*blob.Profile) *Set {
	s := &Set{profiles: map[string]*blob.Profile{}}
	for _, p := range profiles {
		n := FullName(p)
		if _, ok := s.profiles[n]; !ok {
			s.names = append(s.names, n)
		}
		s.profiles[n] = p
	}
	return s
}

// FullName is a profile's name with its namespace, as labels spell it.
func FullName(p *blob.Profile) string {
	if p.Namespace != "" {
		return ":" + p.Namespace + ":" + p.Name
	}
	return p.Name
}

// Names lists the profiles in the order given.
func (s *Set) Names() []string { return s.names }

// Profile returns a profile by its full name; "://" after the namespace is
// taken too.
func (s *Set) Profile(name string) (*blob.Profile, bool) {
	if strings.HasPrefix(name, ":") {
		if ns, rest, ok := strings.Cut(name[1:], ":"); ok {
			name = ":" + ns + ":" + strings.TrimPrefix(rest, "//")
		}
	}
	p, ok := s.profiles[name]
	return p, ok
}

// Unconfined is the profile of tasks that no policy confines.
const Unconfined = "unconfined"

// Label resolves a label, a stack of profiles joined by "//&". Unconfined
// components contribute nothing and are left out.
func (s *Set) Label(label string) ([]*blob.Profile, error) {
	var out []*blob.Profile
	for _, name := range strings.Split(label, "//&") {
		name = strings.TrimPrefix(name, "&")
		if name == Unconfined || strings.HasSuffix(name, ":"+Unconfined) {
			continue
		}
		p, ok := s.Profile(name)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrNoProfile, name)
		}
		out = append(out, p)
	}
	return out, nil
}

// Query answers as the kernel's .access file does: query is the class byte and
// the match string of the class. Of a file the task is taken for the owner.
func Query(label []*blob.Profile, query []byte) Perms {
	return QueryAs(label, query, true)
}

// QueryAs is Query for a task that is, or is not, the owner of the file.
func QueryAs(label []*blob.Profile, query []byte, owner bool) Perms {
	// What follows from a label without any profile: everything is allowed.
	sum := Perms{Allow: allPerms, Quiet: allPerms}
	for _, p := range label {
		if t, mediated := one(p, query, owner); mediated {
			sum.add(t)
		}
	}
	return sum
}

// one is the answer of one profile; false where it does not mediate the class.
func one(p *blob.Profile, query []byte, owner bool) (blob.Perms, bool) {
	var t blob.Perms
	if p.Mode == blob.Unconfined || len(query) == 0 {
		return t, false
	}
	if query[0] == fileClass {
		a := p.File
		var start uint32
		if a != nil {
			start = fileStart(a)
		} else if a = p.PolicyDB; a != nil {
			// Without file rules the kernel goes on where the policydb marks
			// the class as mediated.
			start = a.Table.Step(policyStart(a), fileClass)
		}
		if a != nil && start != dfa.Trap {
			if s := walk(a, start, query[1:]); s != dfa.Trap {
				t = a.Lookup(blob.KindFile, s, owner)
			}
		}
	} else {
		a := p.PolicyDB
		// Class 0 is the whole automaton, class 1 none.
		if a == nil || query[0] == 1 || query[0] != 0 && a.Table.Step(policyStart(a), int(query[0])) == dfa.Trap {
			return t, false
		}
		if s := walk(a, policyStart(a), query); s != dfa.Trap {
			t = a.Lookup(blob.KindPolicy, s, owner)
		}
	}
	if p.Audit != 0 {
		t.Audit, t.Quiet = allPerms, 0
	}
	switch p.Mode {
	case blob.Kill:
		t.Kill = allPerms
	case blob.Complain:
		t.Complain = allPerms
	case blob.User:
		t.Prompt = allPerms
	}
	return t, true
}

func fileStart(a *blob.Automaton) uint32 {
	if a.FileStart != 0 {
		return a.FileStart
	}
	return dfa.Start
}

func policyStart(a *blob.Automaton) uint32 {
	if a.Start != 0 {
		return a.Start
	}
	return dfa.Start
}

func walk(a *blob.Automaton, s uint32, in []byte) uint32 {
	for _, c := range in {
		s = a.Table.Step(s, int(c))
	}
	return s
}

// add joins the answer of one more profile of a stack: allowed is what all
// allow.
func (p *Perms) add(t blob.Perms) {
	p.Deny |= t.Deny
	p.Allow &= t.Allow &^ t.Deny
	p.Audit |= t.Audit & t.Allow
	p.Quiet &= t.Quiet &^ t.Allow
	p.Kill |= t.Kill &^ t.Allow
	p.Complain |= t.Complain &^ t.Allow &^ t.Deny
	p.Prompt |= t.Prompt &^ t.Allow &^ t.Deny
	if t.XIndex != 0 {
		p.XIndex = t.XIndex
	}
}
