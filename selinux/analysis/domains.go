// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// DomainStep is a change of domain that rules allow.
type DomainStep struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Exec are the executables by which From becomes To; empty when the change is
	// only a dynamic one.
	Exec []DomainExec `json:"exec"`
	// OnRequest says that From may ask for a domain before it executes (setexec), so
	// that the executables need not be automatic.
	OnRequest bool `json:"on_request,omitempty"`
	// Dynamic says that From may become To without executing anything (setcurrent
	// and dyntransition).
	Dynamic bool `json:"dynamic,omitempty"`
}

// DomainExec is the type of an executable. Automatic says that a type_transition
// rule makes the change without being asked.
type DomainExec struct {
	Type      string `json:"type"`
	Automatic bool   `json:"automatic"`
}

// DomainGraph has the changes of domain that the rules of a policy allow. It is
// immutable and safe for concurrent use. Constraints are not applied: it is about
// types; ask for a decision about contexts.
type DomainGraph struct {
	p                 *policydb.Policy
	out, in           []bitset // by type value - 1
	execute, entry    []bitset // executables that a type may execute, may be entered by
	setexec           bitset
	dynamic           []bitset
	automatic         map[[2]int]bitset // from and to → executables
	process, execTran []bitset          // process transition; changes with an executable
}

// NewDomainGraph builds the graph. With whatever, rules count whatever booleans they
// depend on, as other tools count them; else those in force under the server's.
func NewDomainGraph(server *ss.Server, whatever bool) *DomainGraph {
	p := server.Policy()
	n := int(p.Types.Prim)
	g := &DomainGraph{
		p: p, setexec: newBitset(n), automatic: map[[2]int]bitset{},
		out: matrix(n), in: matrix(n), execute: matrix(n), entry: matrix(n), dynamic: matrix(n), process: matrix(n), execTran: matrix(n),
	}
	var file, process policydb.ClassID
	var execute, entrypoint, transition, dyntransition, setexec, setcurrent uint32
	if c := p.Classes.ByName("file"); c != nil {
		file, execute, entrypoint = c.ID(), c.PermissionMask("execute"), c.PermissionMask("entrypoint")
	}
	if c := p.Classes.ByName("process"); c != nil {
		process, transition, dyntransition = c.ID(), c.PermissionMask("transition"), c.PermissionMask("dyntransition")
		setexec, setcurrent = c.PermissionMask("setexec"), c.PermissionMask("setcurrent")
	}
	current := newBitset(n)
	add := func(r policydb.Rule) {
		for _, s := range p.TypesOf(r.Source) {
			from := int(s - 1)
			for _, t := range p.TypesOf(r.Target) {
				to := int(t - 1)
				set := func(b bitset, mask uint32, i int) {
					if r.Data&mask != 0 {
						b.set(i)
					}
				}
				switch {
				case r.Kind() == policydb.TypeTransition:
					pair := [2]int{from, int(r.Data - 1)}
					if g.automatic[pair] == nil {
						g.automatic[pair] = newBitset(n)
					}
					g.automatic[pair].set(to)
				case r.Class == file:
					set(g.execute[from], execute, to)
					set(g.entry[from], entrypoint, to)
				case from == to:
					set(g.setexec, setexec, from)
					set(current, setcurrent, from)
				default:
					set(g.process[from], transition, to)
					set(g.dynamic[from], dyntransition, to)
				}
			}
		}
	}
	wanted := func(r policydb.Rule) bool {
		switch r.Kind() {
		case policydb.Allow:
			return r.Class == file && r.Data&(execute|entrypoint) != 0 ||
				r.Class == process && r.Data&(transition|dyntransition|setexec|setcurrent) != 0
		case policydb.TypeTransition:
			return r.Class == process && process != 0
		}
		return false
	}
	rules := activeRules(p, booleanStates(server), policydb.Allow|policydb.TypeTransition)
	if whatever {
		rules = allRules(p)
	}
	for r := range rules {
		if wanted(r) {
			add(r)
		}
	}
	g.connect(current)
	return g
}

func allRules(p *policydb.Policy) func(func(policydb.Rule) bool) {
	return func(yield func(policydb.Rule) bool) {
		lists := [][]policydb.Rule{p.Rules}
		for i := range p.Conditionals {
			lists = append(lists, p.Conditionals[i].True, p.Conditionals[i].False)
		}
		for _, list := range lists {
			for _, r := range list {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// connect draws the edges for which everything that a change needs is allowed.
func (g *DomainGraph) connect(current bitset) {
	for from := range g.out {
		g.process[from].each(func(to int) {
			can := false
			auto := g.automatic[[2]int{from, to}]
			for i, w := range g.execute[from] {
				w &= g.entry[to][i]
				if !g.setexec.has(from) {
					if auto == nil {
						break
					}
					w &= auto[i]
				}
				can = can || w != 0
			}
			if can {
				g.execTran[from].set(to)
			}
		})
		if !current.has(from) {
			clear(g.dynamic[from])
		}
		g.out[from].or(g.execTran[from])
		g.out[from].or(g.dynamic[from])
		g.out[from].each(func(to int) { g.in[to].set(from) })
	}
}

func (g *DomainGraph) step(from, to int) DomainStep {
	name := func(v int) string { return g.p.TypeName(policydb.TypeID(v + 1)) }
	s := DomainStep{From: name(from), To: name(to), Exec: []DomainExec{}, Dynamic: g.dynamic[from].has(to)}
	if !g.execTran[from].has(to) {
		return s
	}
	s.OnRequest = g.setexec.has(from)
	auto := g.automatic[[2]int{from, to}]
	g.execute[from].each(func(x int) {
		if !g.entry[to].has(x) {
			return
		}
		e := DomainExec{Type: name(x), Automatic: auto != nil && auto.has(x)}
		if e.Automatic || s.OnRequest {
			s.Exec = append(s.Exec, e)
		}
	})
	slices.SortFunc(s.Exec, func(a, b DomainExec) int { return strings.Compare(a.Type, b.Type) })
	return s
}

func (g *DomainGraph) typeNamed(name string) (int, error) {
	t := g.p.Types.ByName(name)
	if t == nil || t.Attribute {
		return 0, &UnknownNameError{"type", name}
	}
	return int(t.Value - 1), nil
}

// Direct returns the changes of one step out of a domain, or into it, by name. The
// error is an [*UnknownNameError].
func (g *DomainGraph) Direct(domain string, into bool) ([]DomainStep, error) {
	v, err := g.typeNamed(domain)
	if err != nil {
		return nil, err
	}
	steps := []DomainStep{}
	if into {
		g.in[v].each(func(u int) { steps = append(steps, g.step(u, v)) })
	} else {
		g.out[v].each(func(u int) { steps = append(steps, g.step(v, u)) })
	}
	slices.SortFunc(steps, func(a, b DomainStep) int { return strings.Compare(a.From+" "+a.To, b.From+" "+b.To) })
	return steps, nil
}

// Shortest returns the shortest ways from one domain to another, at most limit of
// them (all when limit is 0), none when there is none. The error is an
// [*UnknownNameError].
func (g *DomainGraph) Shortest(from, to string, limit int) ([][]DomainStep, error) {
	s, err := g.typeNamed(from)
	if err != nil {
		return nil, err
	}
	t, err := g.typeNamed(to)
	if err != nil {
		return nil, err
	}
	out := [][]DomainStep{}
	for path := range shortestPaths(g.out, g.in, s, t) {
		steps := make([]DomainStep, len(path)-1)
		for i := range steps {
			steps[i] = g.step(path[i], path[i+1])
		}
		out = append(out, steps)
		if len(out) == limit {
			break
		}
	}
	return out, nil
}
