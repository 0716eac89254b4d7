// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"fmt"
	"slices"
)

// Difference is one thing that one rule set allows and another denies.
type Difference struct {
	// Right is its name, [ChangeTopology] and [Ptrace] included.
	Right string
	// Object is the path below which, or the port on which, it is allowed; empty
	// for everywhere.
	Object string
}

func (d Difference) String() string {
	if d.Object == "" {
		return d.Right + " is not denied"
	}
	return fmt.Sprintf("%s is granted on %s", d.Right, d.Object)
}

// Looser lists what r allows and other denies, without repetitions. An empty list
// means that r is at least as strict: each right that other denies on a path or port,
// or towards a process, r denies there too.
//
// One thing is left out, since it follows no order: a move between folders is denied
// too when what is moved would gain rights, and fewer rights at the destination can
// so make a move possible. Nothing more can be done to the file by it than other allows.
func (r Ruleset) Looser(other Ruleset) []Difference {
	var out []Difference
	add := func(names []string, object string) {
		for _, n := range names {
			out = append(out, Difference{n, object})
		}
	}
	add((other.denied() &^ r.denied()).Names(), "")
	if other.HandledFS != 0 && r.HandledFS == 0 {
		add([]string{ChangeTopology}, "")
	}
	add((other.HandledNet &^ r.HandledNet).Names(), "")
	add((other.Scoped &^ r.Scoped).Names(), "")
	if !other.Empty() && r.Empty() {
		add([]string{Ptrace}, "")
	}
	// What is granted on a path is granted by rules on it or above; so whoever
	// grants too much does so at one of its own rules.
	theirs := layer(other)
	for _, p := range r.Paths {
		if validPath(p.Path) {
			add((p.Access & other.denied() & r.denied() &^ theirs.granted(p.Path)).Names(), p.Path)
		}
	}
	for _, p := range r.Ports {
		add((p.Access & other.HandledNet & r.HandledNet &^ theirs.ports[p.Port]).Names(), fmt.Sprintf("port %d", p.Port))
	}
	seen := map[Difference]bool{}
	return slices.DeleteFunc(out, func(d Difference) bool {
		was := seen[d]
		seen[d] = true
		return was
	})
}

// layer is r as a layer, valid or not.
func layer(r Ruleset) *Domain {
	d := &Domain{layers: 1, files: r.HandledFS != 0, rules: r, paths: map[string]AccessFS{}, ports: map[uint16]AccessNet{}}
	for _, p := range r.Paths {
		d.paths[p.Path] |= p.Access
	}
	for _, p := range r.Ports {
		d.ports[p.Port] |= p.Access
	}
	return d
}

// Covers reports whether r is at least as strict as other; see [Ruleset.Looser].
func (r Ruleset) Covers(other Ruleset) bool { return len(r.Looser(other)) == 0 }

// Order is how two rule sets compare.
type Order uint8

// The orders.
const (
	Equal        Order = iota // they deny the same
	Stricter                  // the first denies more
	Weaker                    // the first denies less
	Incomparable              // each denies something that the other allows
)

func (o Order) String() string {
	return [...]string{"equal", "stricter", "weaker", "incomparable"}[o%4]
}

// Compare says how strict a is beside b.
func Compare(a, b Ruleset) Order {
	switch ab, ba := a.Covers(b), b.Covers(a); {
	case ab && ba:
		return Equal
	case ab:
		return Stricter
	case ba:
		return Weaker
	}
	return Incomparable
}
