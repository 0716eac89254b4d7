// SPDX-License-Identifier: Apache-2.0

// Package svirt decides which label belongs to which container.
//
// A private label is a pair of MCS categories that no other holder on the host
// has. Pairs are drawn uniformly at random, so that a name says nothing about
// its neighbours, from the pairs that the [Store] says are free. The store is
// the only authority: everything happens in one durable transaction, and a pair
// is reserved before any process or file can carry it.
package svirt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/palisade-sec/palisade/selinux"
)

// State is where a label is in its life.
type State string

// The life of a label: reserved before anything carries it, bound to a
// container, draining once the container is gone and content still carries it.
// A free label has no record.
const (
	Reserved State = "reserved"
	Bound    State = "bound"
	Draining State = "draining"
)

// Record is one label and its holder.
type Record struct {
	// ID is the holder: a container's ID.
	ID string `json:"id"`
	// Level is the label in canonical spelling: s0:c12,c844.
	Level string `json:"level"`
	State State  `json:"state"`
	// Holder says on whose behalf it is held: "palisade run", "palisade-oci".
	Holder string `json:"holder,omitempty"`
	// Bundle is the folder of the container's OCI bundle.
	Bundle string    `json:"bundle,omitempty"`
	Since  time.Time `json:"since"`
}

// Tx is one transaction on a [Store].
type Tx interface {
	// ByID returns the record of a holder.
	ByID(id string) (Record, bool, error)
	// ByLevel returns the record that holds a level.
	ByLevel(level string) (Record, bool, error)
	// Put adds or replaces the record of r.ID.
	Put(r Record) error
	// Delete removes the record of a holder; one that is not there is no error.
	Delete(id string) error
	// Len is the number of records.
	Len() (int, error)
	// Each calls fn for every record in the order of IDs until fn fails.
	Each(fn func(Record) error) error
}

// Store is the durable registry. Update runs fn alone: no other Update, of this
// or another process, runs between its reads and its writes, and nothing of it
// stays when fn or the commit fails. When Update returns nil the changes are on
// disk.
type Store interface {
	Update(fn func(Tx) error) error
	View(fn func(Tx) error) error
}

var (
	// ErrExhausted says that every label of the range is in use.
	ErrExhausted = errors.New("all labels of the range are in use")
	// ErrInUse says that an explicit label has another holder.
	ErrInUse = errors.New("label is in use")
	// ErrNotHeld says that the ID holds no label.
	ErrNotHeld = errors.New("no label held")
)

// DefaultCategories is the number of categories of the usual policies.
const DefaultCategories = 1024

// Registry gives out labels. It is safe for concurrent use when its store is.
type Registry struct {
	Store Store
	// Categories is the number of categories of the loaded policy; 0 means
	// [DefaultCategories].
	Categories int
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

// Claim describes who asks for a label.
type Claim struct {
	ID     string
	Holder string
	Bundle string
	// Level asks for one label in particular; empty draws a private pair.
	Level string
	// Sensitivity of a drawn pair; empty means s0.
	Sensitivity string
}

// Reserve gives the claimant a label that nobody else has. Asking again with
// the same ID returns what it already holds. The errors wrap [ErrExhausted] and
// [ErrInUse].
func (r *Registry) Reserve(c Claim) (Record, error) {
	if c.ID == "" {
		return Record{}, errors.New("reserve label: no ID")
	}
	var out Record
	err := r.Store.Update(func(tx Tx) error {
		have, ok, err := tx.ByID(c.ID)
		if err != nil {
			return err
		}
		if ok && (c.Level == "" || c.Level == have.Level) {
			out = have
			return nil
		}
		level := c.Level
		if level == "" {
			level, err = r.draw(tx, c.Sensitivity)
		} else {
			level, err = explicit(tx, c.ID, level)
		}
		if err != nil {
			return err
		}
		out = Record{ID: c.ID, Level: level, State: Reserved, Holder: c.Holder, Bundle: c.Bundle, Since: r.now()}
		return tx.Put(out)
	})
	if err != nil {
		return Record{}, fmt.Errorf("reserve label for %s: %w", c.ID, err)
	}
	return out, nil
}

func explicit(tx Tx, id, text string) (string, error) {
	level, err := selinux.ParseLevel(text)
	if err != nil {
		return "", err
	}
	canonical := level.String()
	if held, ok, err := tx.ByLevel(canonical); err != nil {
		return "", err
	} else if ok && held.ID != id {
		return "", fmt.Errorf("%s is held by %s: %w", canonical, held.ID, ErrInUse)
	}
	return canonical, nil
}

// tries bounds the draws before the free pairs are counted out one by one. With
// half of all pairs in use, 64 draws all miss once in 2^64.
const tries = 64

func (r *Registry) draw(tx Tx, sensitivity string) (string, error) {
	n := r.Categories
	if n == 0 {
		n = DefaultCategories
	}
	if n < 2 {
		return "", fmt.Errorf("a range of %d categories has no pairs: %w", n, ErrExhausted)
	}
	if sensitivity == "" {
		sensitivity = "s0"
	}
	source := r.Rand
	if source == nil {
		source = rand.Reader
	}
	pairs := n * (n - 1) / 2
	for range tries {
		k, err := rand.Int(source, big.NewInt(int64(pairs)))
		if err != nil {
			return "", err
		}
		level := pairLevel(sensitivity, int(k.Int64()))
		if _, taken, err := tx.ByLevel(level); err != nil {
			return "", err
		} else if !taken {
			return level, nil
		}
	}
	// Nearly full: choose among what is free.
	var free []int
	for k := range pairs {
		if _, taken, err := tx.ByLevel(pairLevel(sensitivity, k)); err != nil {
			return "", err
		} else if !taken {
			free = append(free, k)
		}
	}
	if len(free) == 0 {
		return "", fmt.Errorf("%d pairs of %d categories: %w", pairs, n, ErrExhausted)
	}
	k, err := rand.Int(source, big.NewInt(int64(len(free))))
	if err != nil {
		return "", err
	}
	return pairLevel(sensitivity, free[k.Int64()]), nil
}

// pairLevel spells pair number k: (0,1), (0,2), (1,2), (0,3), …
func pairLevel(sensitivity string, k int) string {
	high := 1
	for k >= high {
		k -= high
		high++
	}
	return fmt.Sprintf("%s:c%d,c%d", sensitivity, k, high)
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
		if !ok {
			return fmt.Errorf("%s: %w", id, ErrNotHeld)
		}
		rec.State, rec.Since = to, r.now()
		return tx.Put(rec)
	})
}

// Release frees a label: no process and no content carries it any more. An ID
// that holds none is no error.
func (r *Registry) Release(id string) error {
	return r.Store.Update(func(tx Tx) error { return tx.Delete(id) })
}

// List returns all records in the order of IDs.
func (r *Registry) List() ([]Record, error) {
	var out []Record
	err := r.Store.View(func(tx Tx) error {
		return tx.Each(func(rec Record) error {
			out = append(out, rec)
			return nil
		})
	})
	return out, err
}
