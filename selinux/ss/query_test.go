// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/selinuxtest"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// loadServer returns a server for the bytes of a policy.
func loadServer(tb testing.TB, data []byte) *Server {
	tb.Helper()
	p, err := policydb.Load(data)
	if err != nil {
		tb.Fatal(err)
	}
	return New(p)
}

func debianPolicy(tb testing.TB, flavour string) []byte {
	tb.Helper()
	data, err := os.ReadFile(debian.Policy(tb, flavour, nil).Policy)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func talosPolicy(tb testing.TB) []byte {
	tb.Helper()
	data, err := os.ReadFile(oracle.Corpus(tb, "selinux/talos") + "/policy.33")
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func everyPolicy(tb testing.TB) []byte {
	tb.Helper()
	return selinuxtest.CompileFile(tb, "../policydb/testdata/every.conf", 33, "-M")
}

// generator makes random questions about a policy.
type generator struct {
	rng    *rand.Rand
	p      *policydb.Policy
	users  []string
	roles  []string
	types  []string
	levels []string
}

func newGenerator(p *policydb.Policy, seed uint64) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 7)), p: p}
	for u := range p.Users.All() {
		g.users = append(g.users, u.Name)
	}
	for r := range p.Roles.All() {
		g.roles = append(g.roles, r.Name)
	}
	for t := range p.Types.All() {
		if !t.Attribute {
			g.types = append(g.types, t.Name)
		}
	}
	if !p.MLS() {
		g.levels = []string{""}
		return g
	}
	low, top := p.Sensitivities.Name(1), p.Sensitivities.Name(p.Sensitivities.Prim)
	cat := func(n uint32) string { return p.Categories.Name(min(n, p.Categories.Prim)) }
	last := cat(p.Categories.Prim)
	g.levels = []string{
		low,
		low + ":" + cat(2) + "," + cat(3),
		low + ":" + cat(4) + "," + cat(5),
		low + ":" + cat(2) + "." + cat(5),
		low + "-" + low + ":" + cat(1) + "." + last,
		low + ":" + cat(1) + "." + last,
		low + ":" + cat(2) + "-" + top + ":" + cat(2) + "," + cat(4),
		top + ":" + cat(2) + "," + cat(3),
		low + "-" + top + ":" + cat(1) + "." + last,
	}
	if low == top {
		g.levels = g.levels[:6]
	}
	return g
}

func (g *generator) pick(list []string) string { return list[g.rng.IntN(len(list))] }

// context returns a context that is probably valid.
func (g *generator) context() string {
	suffix := g.pick(g.levels)
	if suffix != "" {
		suffix = ":" + suffix
	}
	user := g.p.Users.ByName(g.pick(g.users))
	if g.rng.IntN(2) == 0 {
		return user.Name + ":object_r:" + g.pick(g.types) + suffix
	}
	if roles := slices.Collect(user.Roles.Values()); len(roles) > 0 {
		role := g.p.Roles.ByValue(roles[g.rng.IntN(len(roles))])
		if types := slices.Collect(role.Types.Values()); len(types) > 0 {
			return user.Name + ":" + role.Name + ":" + g.p.TypeName(policydb.TypeID(types[g.rng.IntN(len(types))])) + suffix
		}
	}
	return g.broken()
}

// broken returns a context that is probably not valid.
func (g *generator) broken() string {
	c := g.pick(g.users) + ":" + g.pick(g.roles) + ":" + g.pick(g.types) + ":" + g.pick(g.levels)
	switch g.rng.IntN(8) {
	case 0:
		return strings.Replace(c, ":", "", 1)
	case 1:
		return c + ":c1.c1"
	case 2:
		return c + ",c99999"
	case 3:
		return "x" + c
	case 4:
		return c + "-"
	}
	return c
}

// contexts returns n different contexts, one in five of them probably not valid.
func (g *generator) contexts(n int) []string {
	seen := map[string]bool{}
	var out []string
	for tries := 0; len(out) < n && tries < 20*n; tries++ {
		c := g.context()
		if g.rng.IntN(5) == 0 {
			c = g.broken()
		}
		if !seen[c] {
			seen[c] = true
			out = append(out, c)
		}
	}
	return out
}

func (g *generator) class() uint32 { return 1 + g.rng.Uint32N(g.p.Classes.Prim) }

// resolve parses contexts; those that are not valid are nil.
func resolve(s *Server, texts []string) []*Context {
	out := make([]*Context, len(texts))
	for i, text := range texts {
		if c, err := s.ParseContext(text); err == nil {
			out[i] = c
		}
	}
	return out
}

func describe(d Decision) string {
	return fmt.Sprintf("allowed %x auditallow %x auditdeny %x flags %x", d.Allowed, d.AuditAllow, d.AuditDeny, d.Flags)
}
