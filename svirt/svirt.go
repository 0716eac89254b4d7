// SPDX-License-Identifier: Apache-2.0

// Package svirt decides which label belongs to which container.
//
// A private label is a pair of MCS categories. Pairs are drawn uniformly at
// random, so that a label says nothing about its neighbours. No label of one
// holder dominates a label of another, whoever gave it out: equal labels are
// only the simplest case of two containers that are not kept apart. Holders
// that are to share content form a group and have one label together.
//
// The [Store] is the only authority: everything happens in one durable
// transaction, and a label is reserved before any process or file can carry it.
package svirt

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/selinux"
)

// State is where a label is in its life.
type State string

// The life of a label: reserved before anything carries it, bound to a
// container, draining once the container is gone and content still carries it,
// in quarantine for a while after the last carrier is gone. A free label has no
// record. Foreign labels were given out by someone else on the host.
const (
	Reserved   State = "reserved"
	Bound      State = "bound"
	Draining   State = "draining"
	Quarantine State = "quarantine"
	Foreign    State = "foreign"
)

// Record is one holder and its label.
type Record struct {
	// ID is the holder: a container's ID. IDs with a colon are the registry's
	// own: "shared:NAME" is a group, "quarantine:LEVEL" a label that rests,
	// "foreign:SOURCE:ID" one that somebody else gave out.
	ID string `json:"id"`
	// Level is the label in canonical spelling: s0:c12,c844.
	Level string `json:"level"`
	State State  `json:"state"`
	// Group is the name of the group that the holder is a member of. The label
	// itself is held by the group's record.
	Group string `json:"group,omitempty"`
	// Members counts the members of a group's record.
	Members int `json:"members,omitempty"`
	// Holder says on whose behalf it is held: "palisade run", "palisade-oci".
	Holder string `json:"holder,omitempty"`
	// Bundle is the folder of the container's OCI bundle.
	Bundle string `json:"bundle,omitempty"`
	// Content lists folders outside the container's own that carry the label.
	Content []string `json:"content,omitempty"`
	// Last is, of a label that rests, the ID that held it. It may have it back
	// before the time is over: a container that is started again comes with the
	// label that its engine has kept for it.
	Last  string    `json:"last,omitempty"`
	Since time.Time `json:"since"`
}

// Own tells of an ID whether it is of the registry's own records.
func Own(id string) bool { return strings.Contains(id, ":") }

// Rests tells of an ID whether it is a record of quarantine.
func Rests(id string) bool { return strings.HasPrefix(id, quarantinePrefix) }

// Live tells whether something may carry the label now.
func (r Record) Live() bool { return r.State != Quarantine }

// Tx is one transaction on a [Store]. Levels are in canonical spelling.
type Tx interface {
	// ByID returns the record of a holder.
	ByID(id string) (Record, bool, error)
	// ByLevel returns the record that holds exactly this level.
	ByLevel(level string) (Record, bool, error)
	// Put adds or replaces the record of r.ID. A record that is no member of a
	// group holds its level alone: one that another record holds is an error.
	Put(r Record) error
	// Delete removes the record of a holder; one that is not there is no error.
	Delete(id string) error
	// Each calls fn for every record in the order of IDs until fn fails.
	Each(fn func(Record) error) error
	// EachIrregular calls fn for every record that holds a level for which
	// [Regular] is false.
	EachIrregular(fn func(Record) error) error
	// EachOwn calls fn for every record of the registry's own whose ID begins with
	// prefix, a word and its colon, in no order, until fn fails. fn must not change
	// anything. It does not look at other records.
	EachOwn(prefix string, fn func(Record) error) error
}

// Store is the durable registry. Update runs fn alone: no other Update, of this
// or another process, runs between its reads and its writes, and nothing of it
// stays when fn or the commit fails. When Update returns nil the changes are on
// disk. fn may be run more than once, and only the last run counts.
type Store interface {
	Update(fn func(Tx) error) error
	View(fn func(Tx) error) error
}

// Authority is who gives out the labels of a host: a [Registry], or a client of
// the process that has one.
type Authority interface {
	Reserve(c Claim) (Record, error)
	Bind(id string) error
	Drain(id string) error
	Release(id string) error
	List() ([]Record, error)
	// Check returns what is wrong with the registry itself, and, compared with
	// what was observed on the host, with the host.
	Check(observed []Observation) ([]Violation, error)
	// Reconcile brings the registry in line with what was observed.
	Reconcile(observed []Observation) (Report, error)
	// Expire frees the labels whose quarantine is over and returns how many.
	Expire() (int, error)
}

var _ Authority = (*Registry)(nil)

var (
	// ErrExhausted says that every label of the range is in use.
	ErrExhausted = errors.New("all labels of the range are in use")
	// ErrInUse says that a label, or one that dominates it or that it
	// dominates, has another holder.
	ErrInUse = errors.New("label is in use")
	// ErrNotHeld says that the ID holds no label.
	ErrNotHeld = errors.New("no label held")
	// ErrNotPrivate says that a level cannot keep its holder apart from others.
	ErrNotPrivate = errors.New("not a private label")
	// ErrID says that an ID or group name cannot be used.
	ErrID = errors.New("an ID is 1 to 255 printable characters without a colon or space")
)

// DefaultCategories is the number of categories of the usual policies.
const DefaultCategories = 1024

// DefaultQuarantine is how long a label rests that something has carried.
const DefaultQuarantine = time.Minute

// Registry gives out labels. It is safe for concurrent use when its store is.
type Registry struct {
	Store Store
	// Categories is the number of categories of the loaded policy; 0 means
	// [DefaultCategories].
	Categories int
	// Quarantine is how long a label rests that something has carried; 0 means
	// [DefaultQuarantine], and a negative one means not at all.
	Quarantine time.Duration
	// Rand is the source of randomness; nil means crypto/rand.
	Rand io.Reader
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (r *Registry) now() time.Time {
	if r.Now != nil {
		return r.Now().UTC()
	}
	return time.Now().UTC()
}

func (r *Registry) categories() int {
	if r.Categories == 0 {
		return DefaultCategories
	}
	return r.Categories
}

func (r *Registry) quarantine() time.Duration {
	if r.Quarantine == 0 {
		return DefaultQuarantine
	}
	return max(r.Quarantine, 0)
}

// Claim describes who asks for a label.
type Claim struct {
	ID     string `json:"id"`
	Holder string `json:"holder,omitempty"`
	Bundle string `json:"bundle,omitempty"`
	// Level asks for one label in particular; empty draws a private pair.
	Level string `json:"level,omitempty"`
	// Shared names a group, whose label its members have together.
	Shared string `json:"shared,omitempty"`
	// Sensitivity of a drawn pair; empty means s0.
	Sensitivity string `json:"sensitivity,omitempty"`
	// Content lists folders that are to carry the label. One that carries the
	// label of a live holder is an error that wraps [ErrInUse]; one of a holder
	// that is gone changes hands.
	Content []string `json:"content,omitempty"`
	// Bound says that a container is about to run with it: as Reserve and Bind, in
	// one transaction.
	Bound bool `json:"bound,omitempty"`
}

const groupPrefix, quarantinePrefix, foreignPrefix = "shared:", "quarantine:", "foreign:"

func validID(id string) error {
	bad := func(c rune) bool { return c <= ' ' || c == ':' || c == 0x7f }
	if id == "" || len(id) > 255 || strings.ContainsFunc(id, bad) {
		return fmt.Errorf("%q: %w", id, ErrID)
	}
	return nil
}

// Reserve gives the claimant a label that keeps it apart from everybody else.
// Asking again with the same ID returns what it already holds. The errors wrap
// [ErrExhausted], [ErrInUse], [ErrNotPrivate] and [ErrID].
func (r *Registry) Reserve(c Claim) (Record, error) {
	if err := validID(c.ID); err != nil {
		return Record{}, fmt.Errorf("reserve label: %w", err)
	}
	if c.Shared != "" {
		if err := validID(c.Shared); err != nil {
			return Record{}, fmt.Errorf("reserve label for %s: group %w", c.ID, err)
		}
	}
	var out Record
	err := r.Store.Update(func(tx Tx) (err error) {
		out, err = r.reserve(tx, c)
		return err
	})
	if err != nil {
		return Record{}, fmt.Errorf("reserve label for %s: %w", c.ID, err)
	}
	return out, nil
}

func (r *Registry) reserve(tx Tx, c Claim) (Record, error) {
	have, held, err := tx.ByID(c.ID)
	if err != nil {
		return Record{}, err
	}
	if held {
		return r.again(tx, have, c)
	}
	rec := Record{ID: c.ID, State: Reserved, Group: c.Shared, Holder: c.Holder, Bundle: c.Bundle, Since: r.now()}
	if c.Bound {
		rec.State = Bound
	}
	if err := r.wake(tx, c); err != nil {
		return Record{}, err
	}
	if rec.Level, err = r.levelFor(tx, c); err != nil {
		return Record{}, err
	}
	if c.Shared != "" {
		if err := r.join(tx, c.Shared, rec.Level, 1); err != nil {
			return Record{}, err
		}
	}
	if err := r.own(tx, &rec, c.Content); err != nil {
		return Record{}, err
	}
	return rec, tx.Put(rec)
}

// wake ends the quarantine of a label that its last holder asks for by name.
func (r *Registry) wake(tx Tx, c Claim) error {
	if c.Level == "" || c.Shared != "" {
		return nil
	}
	level, err := selinux.ParseLevel(c.Level)
	if err != nil {
		return err
	}
	rec, ok, err := tx.ByID(quarantinePrefix + level.String())
	if err != nil || !ok || rec.Last != c.ID {
		return err
	}
	return tx.Delete(rec.ID)
}

// again answers a claim of somebody who holds a label: a restart, or a second
// try after a crash. It may not ask for another one than it has.
func (r *Registry) again(tx Tx, have Record, c Claim) (Record, error) {
	if c.Level != "" {
		level, err := selinux.ParseLevel(c.Level)
		if err != nil {
			return Record{}, err
		}
		if level.String() != have.Level {
			return Record{}, fmt.Errorf("it holds %s, not %s: %w", have.Level, level, ErrInUse)
		}
	}
	if c.Shared != have.Group && (c.Shared != "" || c.Level == "" && have.Group != "") {
		return Record{}, fmt.Errorf("it holds %s in group %q, not %q: %w", have.Level, have.Group, c.Shared, ErrInUse)
	}
	rec := have
	if rec.State == Draining {
		rec.State, rec.Since = Reserved, r.now() // the container comes back to its content
	}
	if c.Bound && rec.State == Reserved {
		rec.State, rec.Since = Bound, r.now()
	}
	if c.Holder != "" {
		rec.Holder, rec.Bundle = c.Holder, c.Bundle
	}
	if err := r.own(tx, &rec, c.Content); err != nil {
		return Record{}, err
	}
	if slices.Equal(rec.Content, have.Content) && rec.State == have.State && rec.Holder == have.Holder && rec.Bundle == have.Bundle {
		return have, nil
	}
	return rec, tx.Put(rec)
}

func (r *Registry) levelFor(tx Tx, c Claim) (string, error) {
	if c.Shared != "" {
		group, ok, err := tx.ByID(groupPrefix + c.Shared)
		if err != nil {
			return "", err
		}
		if ok {
			if c.Level != "" {
				if l, err := selinux.ParseLevel(c.Level); err != nil || l.String() != group.Level {
					return "", fmt.Errorf("group %s has %s, not %s: %w", c.Shared, group.Level, c.Level, ErrInUse)
				}
			}
			return group.Level, nil
		}
	}
	if c.Level != "" {
		if err := r.adopt(tx, c); err != nil {
			return "", err
		}
		return r.explicit(tx, c.Level)
	}
	return r.draw(tx, c.Sensitivity)
}

// join counts a member in or out of a group. The group's record holds the label
// and goes with its last member.
func (r *Registry) join(tx Tx, name, level string, by int) error {
	group, ok, err := tx.ByID(groupPrefix + name)
	if err != nil {
		return err
	}
	if !ok {
		if by < 0 {
			return nil
		}
		group = Record{ID: groupPrefix + name, Level: level, State: Bound, Since: r.now()}
	}
	if group.Members += by; group.Members <= 0 {
		return r.rest(tx, group, true)
	}
	return tx.Put(group)
}

// own notes that content carries the label of rec. Content of a live holder is
// not taken from it.
func (r *Registry) own(tx Tx, rec *Record, content []string) error {
	for _, path := range content {
		if slices.Contains(rec.Content, path) {
			continue
		}
		previous, found, err := contentHolder(tx, path)
		if err != nil {
			return err
		}
		if found && previous.ID != rec.ID && previous.Level != rec.Level {
			if previous.State != Draining {
				return fmt.Errorf("%s carries the label of %s, which is %s: %w", path, previous.ID, previous.State, ErrInUse)
			}
			previous.Content = slices.DeleteFunc(slices.Clone(previous.Content), func(p string) bool { return p == path })
			if len(previous.Content) == 0 {
				if err := r.release(tx, previous); err != nil {
					return err
				}
			} else if err := tx.Put(previous); err != nil {
				return err
			}
		}
		rec.Content = append(slices.Clone(rec.Content), path)
		slices.Sort(rec.Content)
	}
	return nil
}

var errFound = errors.New("found")

func contentHolder(tx Tx, path string) (Record, bool, error) {
	var out Record
	err := tx.Each(func(rec Record) error {
		if slices.Contains(rec.Content, path) {
			out = rec
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return out, true, nil
	}
	return Record{}, false, err
}

// Bind says that a container with that label now runs or is about to.
func (r *Registry) Bind(id string) error { return r.move(id, Bound) }

// Drain says that the container is gone and that content still carries its
// label, which therefore is not given out again.
func (r *Registry) Drain(id string) error { return r.move(id, Draining) }

func (r *Registry) move(id string, to State) error {
	return r.Store.Update(func(tx Tx) error {
		rec, ok, err := tx.ByID(id)
		if err != nil {
			return err
		}
		if !ok || rec.State == Foreign || strings.Contains(id, ":") {
			return fmt.Errorf("%s: %w", id, ErrNotHeld)
		}
		if rec.State == to {
			return nil
		}
		rec.State, rec.Since = to, r.now()
		return tx.Put(rec)
	})
}

// Release gives a label back: no process and no content carries it any more. A
// label that something has carried rests for a while first. An ID that holds
// none is no error.
func (r *Registry) Release(id string) error {
	return r.Store.Update(func(tx Tx) error {
		rec, ok, err := tx.ByID(id)
		if err != nil || !ok {
			return err
		}
		if strings.HasPrefix(id, groupPrefix) {
			return fmt.Errorf("%s: a group goes with its last member", id)
		}
		return r.release(tx, rec)
	})
}

func (r *Registry) release(tx Tx, rec Record) error {
	if rec.Group != "" {
		if err := tx.Delete(rec.ID); err != nil {
			return err
		}
		return r.join(tx, rec.Group, rec.Level, -1)
	}
	return r.rest(tx, rec, rec.State == Bound || rec.State == Draining)
}

// rest frees a label, after its quarantine if something has carried it.
func (r *Registry) rest(tx Tx, rec Record, carried bool) error {
	if err := tx.Delete(rec.ID); err != nil || !carried || r.quarantine() == 0 {
		return err
	}
	// Where nobody calls Expire the registry must not grow with every container.
	if _, err := r.expire(tx, expireAlong); err != nil {
		return err
	}
	return tx.Put(Record{ID: quarantinePrefix + rec.Level, Level: rec.Level, State: Quarantine, Last: rec.ID, Since: r.now()})
}

// rested tells whether a quarantine is over.
func (r *Registry) rested(rec Record) bool {
	return rec.State == Quarantine && !r.now().Before(rec.Since.Add(r.quarantine()))
}

// Expire frees the labels whose quarantine is over and returns how many. They
// are found without it when they are needed: it only keeps the registry small.
func (r *Registry) Expire() (n int, err error) {
	err = r.Store.Update(func(tx Tx) error {
		n, err = r.expire(tx, math.MaxInt)
		return err
	})
	return n, err
}

// expireAlong is how many records are looked at on the way.
const expireAlong = 8

func (r *Registry) expire(tx Tx, most int) (int, error) {
	var over []string
	seen := 0
	if err := tx.EachOwn(quarantinePrefix, func(rec Record) error {
		if r.rested(rec) {
			over = append(over, rec.ID)
		}
		if seen++; seen >= most {
			return errFound
		}
		return nil
	}); err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	for _, id := range over {
		if err := tx.Delete(id); err != nil {
			return 0, err
		}
	}
	return len(over), nil
}

// List returns all records in the order of IDs.
func (r *Registry) List() ([]Record, error) {
	var out []Record
	err := r.Store.View(func(tx Tx) error {
		out = nil
		return tx.Each(func(rec Record) error {
			out = append(out, rec)
			return nil
		})
	})
	return out, err
}
