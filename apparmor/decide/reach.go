// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Reach is the set of file accesses of a label, below a glob.
type Reach struct {
	// Globs stand together for the paths where the permissions are allowed, but
	// for those of Except.
	Globs, Except []string
	// Truncated: there are more paths than Globs say.
	Truncated bool
}

// ReachQuery asks where a label has file permissions.
type ReachQuery struct {
	Perms  uint32 // kernel's bits, all of which have to be there
	Within string // glob; "" is all paths
	Other  bool   // files of other users instead of the task's own
	Denied bool   // where the permissions are missing
	Limit  int    // of globs; 0 is 200
	// Hints are globs, those of the rules for example, that the answer spells
	// as they are where all they match is part of it.
	Hints []string
}

// Reachable lists as globs the paths where a label has permissions.
func Reachable(label []*blob.Profile, q ReachQuery) (Reach, error) {
	if q.Limit == 0 {
		q.Limit = 200
	}
	if q.Within == "" {
		q.Within = "/**"
	}
	which := ownerView
	if q.Other {
		which = otherView
	}
	v, err := stackViews(label, which)
	if err != nil {
		return Reach{}, err
	}
	select1 := func(denied bool) (*dfa.DFA, error) {
		return intersectGlob(v.d.Relabel(func(l uint32) uint32 {
			t := v.perms[l]
			if (q.Perms&^(t.Allow&^t.Deny) == 0) != denied {
				return 1
			}
			return 0
		}), q.Within)
	}
	d, err := select1(q.Denied)
	if err != nil {
		return Reach{}, err
	}
	var r Reach
	rest := d
	for _, h := range q.Hints {
		if len(r.Globs) >= q.Limit {
			break
		}
		g, err := intersectGlob(nil, h)
		if err != nil {
			return r, err
		}
		if !meets(rest, g) {
			continue
		}
		if !covers(d, g) {
			// A glob with a few exceptions still says more than what is left
			// when it is taken apart.
			out, err := minus(g, d)
			if err != nil {
				return r, err
			}
			except, cut := Globs(out, maxExcept+1)
			if cut || len(except) > maxExcept {
				continue
			}
			for _, x := range except {
				if x = tidy(x); !slices.Contains(r.Except, x) {
					r.Except = append(r.Except, x)
				}
			}
		}
		r.Globs = append(r.Globs, h)
		if rest, err = minus(rest, g); err != nil {
			return r, err
		}
	}
	more, truncated := Globs(rest, q.Limit)
	for i, g := range more {
		more[i] = tidy(g)
	}
	if len(more) > 3 {
		// Perhaps what is missing is said in fewer words.
		c, err := select1(!q.Denied)
		if err != nil {
			return r, err
		}
		if except, cut := Globs(c, len(more)); !cut && len(except) < len(more) {
			for i, g := range except {
				except[i] = tidy(g)
			}
			return Reach{Globs: []string{q.Within}, Except: except}, nil
		}
	}
	r.Globs = append(r.Globs, more...)
	r.Truncated = truncated
	return r, nil
}

// maxExcept is how many exceptions a glob may have to be used.
const maxExcept = 8

// covers tells whether every input that g accepts is accepted by d.
func covers(d, g *dfa.DFA) bool {
	ok := true
	dfa.Product(d, g, func(ld, lg uint32, _ func() ([]uint16, uint32, uint32)) bool {
		ok = lg == 0 || ld != 0
		return ok
	})
	return ok
}

// meets tells whether some input is accepted by both.
func meets(d, g *dfa.DFA) bool {
	met := false
	dfa.Product(d, g, func(ld, lg uint32, _ func() ([]uint16, uint32, uint32)) bool {
		met = ld != 0 && lg != 0
		return !met
	})
	return met
}

// minus keeps what d accepts and g does not.
func minus(d, g *dfa.DFA) (*dfa.DFA, error) {
	x := &view{d: d, perms: []blob.Perms{{}, {Allow: 1}}}
	y := &view{d: g, perms: []blob.Perms{{Allow: 1}, {}}}
	out, err := both(x, y)
	if err != nil {
		return nil, err
	}
	return out.d.Relabel(func(l uint32) uint32 { return out.perms[l].Allow & 1 }).Minimize(), nil
}

// intersectGlob keeps the labels of inputs that the glob matches and that are
// paths; without d it gives the paths of the glob.
func intersectGlob(d *dfa.DFA, glob string) (*dfa.DFA, error) {
	g, err := dfa.ConvertGlob("", dfa.FilterSlashes(glob), false)
	if err != nil {
		return nil, err
	}
	a := dfa.NewArena()
	e, _, err := a.Parse(g.Regex)
	if err != nil {
		return nil, err
	}
	// A path has no empty components and no NUL.
	path, _, err := a.Parse(`(/|(/[^/\x00]+)+(/|))`)
	if err != nil {
		return nil, err
	}
	m, err := dfa.Build(a, []dfa.Rule{{Expr: e, Accept: 0}, {Expr: path, Accept: 1}}, func(ids []int32) (uint32, error) {
		if len(ids) == 2 {
			return 1, nil
		}
		return 0, nil
	}, dfa.Limits{})
	if err != nil {
		return nil, err
	}
	if d == nil {
		return m.Minimize(), nil
	}
	x := &view{d: d, perms: []blob.Perms{{}, {Allow: 1}}}
	y := &view{d: m, perms: []blob.Perms{{}, {Allow: 1}}}
	both, err := both(x, y)
	if err != nil {
		return nil, err
	}
	return both.d.Relabel(func(l uint32) uint32 { return both.perms[l].Allow & 1 }).Minimize(), nil
}

// Globs writes the language of the accepting states of d as globs. Paths
// through the automaton are spelled out; where it loops, "*" stands for any
// run without a slash and "**" for any run, and only where that is exactly what
// the loop accepts; other loops are unrolled, and what then exceeds limit is
// left out.
func Globs(d *dfa.DFA, limit int) (globs []string, truncated bool) {
	live := d.Live(func(l uint32) bool { return l != 0 })
	type item struct {
		state  uint32
		prefix string
		visits map[uint32]int
	}
	queue := []item{{dfa.Start, "", map[uint32]int{}}}
	seen := map[string]bool{}
	const maxSteps = 1 << 16
	for steps := 0; len(queue) > 0; steps++ {
		if steps > maxSteps || len(globs) >= limit {
			return globs, true
		}
		it := queue[0]
		queue = queue[1:]
		s := it.state
		if tail, ok := wholeTail(d, s); ok {
			g := tidy(it.prefix + tail)
			if !seen[g] {
				seen[g] = true
				globs = append(globs, g)
			}
			continue
		}
		if d.Label[s] != 0 && it.prefix != "" && !seen[it.prefix] {
			seen[it.prefix] = true
			globs = append(globs, it.prefix)
		}
		if it.visits[s] >= 2 {
			truncated = true
			continue
		}
		visits := map[uint32]int{s: 1}
		for k, n := range it.visits {
			visits[k] += n
		}
		prefix := it.prefix
		// A state that stays where it is on everything but a slash is a "*".
		byTarget := map[uint32]*dfa.Set{}
		var order []uint32
		for c := range 256 {
			t := d.Next(s, c)
			if t == s && selfStar(d, s) && c != '/' && c != 0 {
				continue
			}
			if !live[t] {
				continue
			}
			if byTarget[t] == nil {
				byTarget[t] = &dfa.Set{}
				order = append(order, t)
			}
			byTarget[t].Add(byte(c))
		}
		if selfStar(d, s) {
			prefix += "*"
			if d.Label[s] != 0 && !seen[prefix] {
				// The shorter spelling is part of this one.
				for i, g := range globs {
					if g == it.prefix {
						globs = append(globs[:i], globs[i+1:]...)
						break
					}
				}
				seen[prefix] = true
				globs = append(globs, prefix)
			}
		}
		sort.Slice(order, func(i, j int) bool { return order[i] < order[j] })
		for _, t := range order {
			queue = append(queue, item{t, prefix + className1(*byTarget[t]), visits})
		}
	}
	return globs, truncated
}

// selfStar tells whether a state loops on every byte but slash and NUL.
func selfStar(d *dfa.DFA, s uint32) bool {
	for c := range 256 {
		if c != '/' && c != 0 && d.Next(s, c) != s {
			return false
		}
	}
	return true
}

// wholeTail recognises states after which every path, or every path of one
// component, is accepted.
func wholeTail(d *dfa.DFA, s uint32) (string, bool) {
	// "**": from s, every continuation that is a path is accepted. The automaton
	// is minimal and intersected with paths, so after any byte but slash comes
	// an accepting state that loops on itself and on one slash state.
	if d.Label[s] == 0 {
		return "", false
	}
	if !selfStar(d, s) {
		return "", false
	}
	slash := d.Next(s, '/')
	if d.Label[slash] != 0 && d.Next(slash, 'a') == s && selfTo(d, slash, s) {
		return "**", true
	}
	return "", false
}

func selfTo(d *dfa.DFA, from, to uint32) bool {
	for c := range 256 {
		if c != '/' && c != 0 && d.Next(from, c) != to {
			return false
		}
	}
	return true
}

// className1 spells a set of bytes as a glob for one byte.
func className1(s dfa.Set) string {
	n := s.Len()
	if n == 1 {
		for c := range 256 {
			if s.Has(byte(c)) {
				return globByte(byte(c))
			}
		}
	}
	inv := s
	inv.Invert()
	if n == 254 && !s.Has('/') && !s.Has(0) {
		return "?"
	}
	if n > 128 {
		// An inverted class matches a slash, so one that leaves it out names it.
		return "[^" + classBytes(inv) + "]"
	}
	return "[" + classBytes(s) + "]"
}

func globByte(c byte) string {
	switch {
	case strings.IndexByte(`*?[]{}\^,"@ `, c) >= 0 && c != ' ' && c != '@' && c != ',' && c != '^':
		return `\` + string(rune(c))
	case c < 0x20 || c >= 0x7f:
		return fmt.Sprintf(`\x%02x`, c)
	}
	return string(rune(c))
}

// classBytes writes the members of a class, with ranges.
func classBytes(s dfa.Set) string {
	var b strings.Builder
	one := func(c int) {
		switch {
		// Wildcards are wildcards in a class too.
		case strings.IndexByte("]-^\\[*?{},\"@", byte(c)) >= 0, c < 0x21, c >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(byte(c))
		}
	}
	for c := 0; c < 256; {
		if !s.Has(byte(c)) {
			c++
			continue
		}
		end := c
		for end+1 < 256 && s.Has(byte(end+1)) {
			end++
		}
		one(c)
		if end-c >= 2 {
			b.WriteByte('-')
			one(end)
		} else if end > c {
			one(end)
		}
		c = end + 1
	}
	return b.String()
}

// tidy spells a component of one byte and then any as the wildcard that means
// just that.
func tidy(g string) string {
	if rest, ok := strings.CutSuffix(g, "/?**"); ok {
		g = rest + "/**"
	}
	g = strings.ReplaceAll(g, "/?*/", "/*/")
	if rest, ok := strings.CutSuffix(g, "/?*"); ok && !strings.HasSuffix(g, "**") {
		g = rest + "/*"
	}
	return g
}
