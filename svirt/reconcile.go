// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/selinux"
)

// Observation is a label seen on the host: on a running process, in the state of
// an engine, or on content.
type Observation struct {
	// Source is where it was seen: "process", "docker", "podman", "containerd",
	// "crio", "libvirt", "content".
	Source string `json:"source"`
	// ID is the container's ID there, the process ID, or the path.
	ID string `json:"id"`
	// Level is the level or range as it was found.
	Level string `json:"level"`
}

// Violation is something that must not be: two holders that are not kept apart,
// or a registry that contradicts itself.
type Violation struct {
	Level   string   `json:"level"`
	Holders []string `json:"holders"`
	Message string   `json:"message"`
}

// Report says what a reconciliation changed and found.
type Report struct {
	// Adopted are labels that somebody else gave out and that are now blocked.
	Adopted []Record `json:"adopted"`
	// Gone are foreign labels that are no longer seen.
	Gone []Record `json:"gone"`
	// Violations are what only a person or a relabelling can repair.
	Violations []Violation `json:"violations"`
}

// observedLevel is the label that keeps a holder apart: the high level, as that
// is what dominance looks at. Labels without categories and those with a whole
// range (engines and daemons of the host) belong to no container.
func observedLevel(text string) (selinux.Level, bool) {
	r, err := selinux.ParseRange(text)
	if err != nil || r.High.Categories.IsEmpty() || r.Low != r.High {
		return selinux.Level{}, false
	}
	return r.High, true
}

// Check returns what is wrong. Observations are compared with the registry: an
// observed label that conflicts with one of another holder is a violation.
func (r *Registry) Check(observed []Observation) ([]Violation, error) {
	var out []Violation
	err := r.Store.View(func(tx Tx) error {
		var err error
		out, err = r.check(tx, observed)
		return err
	})
	return out, err
}

func (r *Registry) check(tx Tx, observed []Observation) ([]Violation, error) {
	var out []Violation
	members := map[string]int{}
	levels := map[string]string{}
	err := tx.Each(func(rec Record) error {
		level, err := selinux.ParseLevel(rec.Level)
		if err != nil || level.String() != rec.Level {
			out = append(out, Violation{Level: rec.Level, Holders: []string{rec.ID}, Message: "not a level in canonical spelling"})
			return nil
		}
		if rec.Group != "" {
			members[rec.Group]++
			if group, ok, err := tx.ByID(groupPrefix + rec.Group); err != nil {
				return err
			} else if !ok || group.Level != rec.Level {
				out = append(out, Violation{Level: rec.Level, Holders: []string{rec.ID}, Message: "a member of a group has not the group's label"})
			}
			return nil
		}
		if other := levels[rec.Level]; other != "" {
			out = append(out, Violation{Level: rec.Level, Holders: []string{other, rec.ID}, Message: "one label has two holders"})
		}
		levels[rec.Level] = rec.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = tx.Each(func(rec Record) error {
		if name, ok := strings.CutPrefix(rec.ID, groupPrefix); ok && members[name] != rec.Members {
			out = append(out, Violation{Level: rec.Level, Holders: []string{rec.ID}, Message: fmt.Sprintf("a group of %d counts %d members", members[name], rec.Members)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	irregular, err := others(tx)
	if err != nil {
		return nil, err
	}
	for x, o := range irregular {
		if o.rec.State == Quarantine {
			continue
		}
		report := func(rec Record) {
			out = append(out, Violation{Level: o.rec.Level, Holders: []string{o.rec.ID, rec.ID}, Message: fmt.Sprintf("%s and %s are not kept apart: one dominates the other", o.rec.Level, rec.Level)})
		}
		for _, p := range irregular[x+1:] {
			if p.rec.State != Quarantine && o.level.Compare(p.level) != selinux.Incomparable {
				report(p.rec)
			}
		}
		if err := r.eachComparablePair(o.level, func(i, j int) error {
			rec, ok, err := tx.ByLevel(fmt.Sprintf("s0:c%d,c%d", i, j))
			if err == nil && ok && rec.State != Quarantine && rec.ID != o.rec.ID {
				report(rec)
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	for _, s := range foreignClaims(observed) {
		if rec, ok, err := r.conflicting(tx, s); err != nil {
			return nil, err
		} else if ok {
			out = append(out, Violation{Level: s.level.String(), Holders: []string{rec.ID, s.name()}, Message: fmt.Sprintf("%s carries %s, which is not kept apart from %s of %s", s.name(), s.level, rec.Level, rec.ID)})
		}
	}
	return out, nil
}

// sighting is one observed holder and its label.
type sighting struct {
	Observation
	level selinux.Level
}

func (s sighting) name() string { return s.Source + ":" + s.ID }

// foreignClaims takes the observations that are of containers, each once.
func foreignClaims(observed []Observation) []sighting {
	var out []sighting
	seen := map[Observation]bool{}
	for _, o := range observed {
		level, ok := observedLevel(o.Level)
		if !ok || seen[o] {
			continue
		}
		seen[o] = true
		out = append(out, sighting{o, level})
	}
	slices.SortStableFunc(out, func(a, b sighting) int { return strings.Compare(a.name(), b.name()) })
	return out
}

// conflicting returns the record that a sighting contradicts: one of another
// holder whose label is not incomparable with the one that was seen. A process
// and content carry the label of their container, so that equality with any
// holder is as it should be there.
func (r *Registry) conflicting(tx Tx, s sighting) (Record, bool, error) {
	mine := func(rec Record) (bool, error) {
		switch {
		case rec.State == Quarantine, rec.ID == s.ID:
			return true, nil
		case rec.State == Foreign && strings.HasSuffix(rec.ID, ":"+s.ID):
			return true, nil // one container, seen in two places
		case rec.Level == s.level.String() && (s.Source == "process" || s.Source == "content"):
			return true, nil
		}
		// Members of a group are found by the group's record.
		member, ok, err := tx.ByID(s.ID)
		return ok && groupPrefix+member.Group == rec.ID, err
	}
	if rec, ok, err := tx.ByLevel(s.level.String()); err != nil {
		return Record{}, false, err
	} else if ok {
		if own, err := mine(rec); err != nil || !own {
			return rec, err == nil, err
		}
	}
	irregular, err := others(tx)
	if err != nil {
		return Record{}, false, err
	}
	for _, o := range irregular {
		if o.level.Compare(s.level) == selinux.Incomparable {
			continue
		}
		if own, err := mine(o.rec); err != nil || !own {
			return o.rec, err == nil, err
		}
	}
	var found Record
	err = r.eachComparablePair(s.level, func(i, j int) error {
		rec, ok, err := tx.ByLevel(fmt.Sprintf("s0:c%d,c%d", i, j))
		if err != nil || !ok {
			return err
		}
		own, err := mine(rec)
		if err == nil && !own {
			found, err = rec, errFound
		}
		return err
	})
	if errors.Is(err, errFound) {
		return found, true, nil
	}
	return Record{}, false, err
}

// Reconcile blocks the labels that somebody else gave out, frees those that are
// no longer seen, and reports what conflicts. Observations must be complete: a
// foreign label that is not among them is taken as gone.
func (r *Registry) Reconcile(observed []Observation) (Report, error) {
	var out Report
	err := r.Store.Update(func(tx Tx) error {
		out = Report{}
		sightings := foreignClaims(observed)
		current := map[string]bool{}
		for _, s := range sightings {
			current[foreignPrefix+s.name()] = true
		}
		var gone []Record
		if err := tx.EachOwn(foreignPrefix, func(rec Record) error {
			if !current[rec.ID] {
				gone = append(gone, rec)
			}
			return nil
		}); err != nil {
			return err
		}
		slices.SortFunc(gone, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
		for _, rec := range gone {
			if err := r.rest(tx, rec, true); err != nil {
				return err
			}
			out.Gone = append(out.Gone, rec)
		}
		for _, s := range sightings {
			level := s.level.String()
			holder, taken, err := tx.ByLevel(level)
			if err != nil {
				return err
			}
			if taken && holder.State == Quarantine {
				// It rests, and yet something carries it: it is in use.
				if err := tx.Delete(holder.ID); err != nil {
					return err
				}
				taken = false
			}
			if taken {
				continue
			}
			if known, err := knownTo(tx, s); err != nil {
				return err
			} else if known {
				continue
			}
			rec := Record{ID: foreignPrefix + s.name(), Level: level, State: Foreign, Holder: s.Source, Since: r.now()}
			if err := tx.Put(rec); err != nil {
				return err
			}
			out.Adopted = append(out.Adopted, rec)
		}
		return nil
	})
	if err == nil {
		// All records are read for this, while labels go on being given out.
		out.Violations, err = r.Check(observed)
	}
	return out, err
}

// adopt takes back a label that was seen with the very container that claims it: by
// whoever looked at its engine's state before the container had asked.
func (r *Registry) adopt(tx Tx, c Claim) error {
	level, err := selinux.ParseLevel(c.Level)
	if err != nil {
		return err
	}
	rec, ok, err := tx.ByLevel(level.String())
	if err == nil && ok && rec.State == Foreign && strings.HasSuffix(rec.ID, ":"+c.ID) {
		err = tx.Delete(rec.ID)
	}
	return err
}

// knownTo tells whether the registry gave the label to that very holder.
func knownTo(tx Tx, s sighting) (bool, error) {
	rec, ok, err := tx.ByID(s.ID)
	return ok && rec.Level == s.level.String(), err
}
