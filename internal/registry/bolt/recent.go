// SPDX-License-Identifier: Apache-2.0

package bolt

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/palisade-sec/palisade/svirt"
)

// IDs and levels are random, so that in a large registry every record that is
// written touches pages of its own in every tree: a group of a hundred some four
// hundred of them. Who owns the file therefore appends what changes to a bucket
// of its own, a few pages a group, and keeps the same in memory, where it lies
// over the trees. It is merged into the trees when the file is given free, or by
// whoever opens it after its owner was killed.

var bucketRecent = []byte("recent") // number in order → change as JSON

// change is what a record has become since the last merge.
type change struct {
	svirt.Record
	Gone bool `json:"gone,omitempty"`
	seq  uint64
}

// overlay are the changes since the last merge.
type overlay struct {
	ids       map[string]change
	levels    map[string]string // levels that changed records hold → ID
	irregular map[string]bool
	own       map[string]bool // IDs of the registry's own records
}

func newOverlay() overlay {
	return overlay{ids: map[string]change{}, levels: map[string]string{}, irregular: map[string]bool{}, own: map[string]bool{}}
}

func (o overlay) clone() overlay {
	return overlay{maps.Clone(o.ids), maps.Clone(o.levels), maps.Clone(o.irregular), maps.Clone(o.own)}
}

// set replaces what is known of an ID; a nil change is as if it had not changed.
func (o overlay) set(id string, c *change) {
	if old, ok := o.ids[id]; ok && !old.Gone && old.Group == "" {
		delete(o.levels, old.Level)
		delete(o.irregular, id)
	}
	delete(o.own, id)
	if c == nil {
		delete(o.ids, id)
		return
	}
	o.ids[id] = *c
	if !c.Gone && c.Group == "" {
		o.levels[c.Level] = id
		if !svirt.Regular(c.Level) {
			o.irregular[id] = true
		}
		if svirt.Own(id) {
			o.own[id] = true
		}
	}
}

// load reads the changes back.
func (o overlay) load(tx *bbolt.Tx) error {
	b := tx.Bucket(bucketRecent)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var c change
		if err := json.Unmarshal(v, &c); err != nil || len(k) != 8 {
			return fmt.Errorf("label registry: change: %w", errors.Join(err))
		}
		c.seq = binary.BigEndian.Uint64(k)
		o.set(c.ID, &c)
		return nil
	})
}

// layered is a transaction on the trees and the changes over them. undo takes
// back what it did to the changes, should it not be committed.
type layered struct {
	trees  transaction
	over   overlay
	recent *bbolt.Bucket // nil to read only
	pairs  *svirt.Pairs
	undo   *[]func()
	wrote  bool
}

func (t *layered) Pair(i, j int) svirt.PairState {
	if t.pairs == nil {
		return svirt.PairUnknown
	}
	return t.pairs.Pair(i, j)
}

func (t *layered) ByID(id string) (svirt.Record, bool, error) {
	if c, ok := t.over.ids[id]; ok {
		return c.Record, !c.Gone, nil
	}
	return t.trees.ByID(id)
}

func (t *layered) ByLevel(level string) (svirt.Record, bool, error) {
	if id, ok := t.over.levels[level]; ok {
		return t.over.ids[id].Record, true, nil
	}
	id := t.trees.levels.Get([]byte(level))
	if id == nil {
		return svirt.Record{}, false, nil
	}
	if _, changed := t.over.ids[string(id)]; changed {
		return svirt.Record{}, false, nil // it has another level now, or is gone
	}
	return t.trees.ByID(string(id))
}

func (t *layered) Put(r svirt.Record) error {
	if r.Group == "" {
		if other, held, err := t.ByLevel(r.Level); err != nil {
			return err
		} else if held && other.ID != r.ID {
			return fmt.Errorf("level %s is held by %s: %w", r.Level, other.ID, svirt.ErrInUse)
		}
	}
	return t.change(r.ID, &change{Record: r})
}

func (t *layered) Delete(id string) error {
	if t.trees.ids.Get([]byte(id)) != nil {
		return t.change(id, &change{Record: svirt.Record{ID: id}, Gone: true})
	}
	return t.change(id, nil)
}

// change writes what has become of an ID, in place of the last change of it.
func (t *layered) change(id string, c *change) error {
	t.wrote = true
	before, held, err := t.ByID(id)
	if err != nil {
		return err
	}
	last, changed := t.over.ids[id]
	if changed {
		if err := t.recent.Delete(sequence(last.seq)); err != nil {
			return err
		}
	}
	if c != nil {
		if c.seq, err = t.recent.NextSequence(); err != nil {
			return err
		}
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if err := t.recent.Put(sequence(c.seq), b); err != nil {
			return err
		}
	}
	if held {
		t.pairs.Delete(before)
	}
	if c != nil && !c.Gone {
		t.pairs.Put(c.Record)
	}
	t.over.set(id, c)
	*t.undo = append(*t.undo, func() {
		if changed {
			t.over.set(id, &last)
		} else {
			t.over.set(id, nil)
		}
	})
	return nil
}

func sequence(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Each goes through both layers in the order of IDs.
func (t *layered) Each(fn func(svirt.Record) error) error {
	ids := slices.Sorted(maps.Keys(t.over.ids))
	upTo := func(end string, all bool) error {
		for len(ids) > 0 && (all || ids[0] < end) {
			c := t.over.ids[ids[0]]
			ids = ids[1:]
			if c.Gone {
				continue
			}
			if err := fn(c.Record); err != nil {
				return err
			}
		}
		return nil
	}
	if err := t.trees.ids.ForEach(func(k, v []byte) error {
		if err := upTo(string(k), false); err != nil {
			return err
		}
		if _, changed := t.over.ids[string(k)]; changed {
			return nil
		}
		r, err := decode(v)
		if err != nil {
			return err
		}
		return fn(r)
	}); err != nil {
		return err
	}
	return upTo("", true)
}

func (t *layered) EachIrregular(fn func(svirt.Record) error) error {
	var all []svirt.Record
	if err := t.trees.EachIrregular(func(r svirt.Record) error {
		if _, changed := t.over.ids[r.ID]; !changed {
			all = append(all, r)
		}
		return nil
	}); err != nil {
		return err
	}
	for id := range t.over.irregular {
		all = append(all, t.over.ids[id].Record)
	}
	slices.SortFunc(all, func(a, b svirt.Record) int { return strings.Compare(a.ID, b.ID) })
	for _, r := range all {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (t *layered) EachOwn(prefix string, fn func(svirt.Record) error) error {
	for id := range t.over.own {
		if !strings.HasPrefix(id, prefix) {
			continue
		}
		if err := fn(t.over.ids[id].Record); err != nil {
			return err
		}
	}
	return t.trees.EachOwn(prefix, func(r svirt.Record) error {
		if _, changed := t.over.ids[r.ID]; changed {
			return nil
		}
		return fn(r)
	})
}

// unmerged tells whether there are changes to merge.
func unmerged(db *bbolt.DB) (yes bool, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketRecent); b != nil {
			k, _ := b.Cursor().First()
			yes = k != nil
		}
		return nil
	})
	return yes, err
}

// merge moves the changes into the trees, all at once.
func merge(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		over := newOverlay()
		if err := over.load(tx); err != nil {
			return err
		}
		t, err := open(tx)
		if err != nil {
			return err
		}
		ids := slices.Sorted(maps.Keys(over.ids))
		// First all that gives a level up: another may have it now.
		for _, id := range ids {
			if err := t.Delete(id); err != nil {
				return err
			}
		}
		// Each tree in its own order: bbolt splits no page before the end, and keeps
		// what comes in between of a long one by moving the rest of it.
		for _, id := range ids {
			if c := over.ids[id]; !c.Gone {
				if err := t.putRecord(c.Record); err != nil {
					return err
				}
			}
		}
		for _, level := range slices.Sorted(maps.Keys(over.levels)) {
			if err := t.putLevel(over.ids[over.levels[level]].Record); err != nil {
				return err
			}
		}
		if err := tx.DeleteBucket(bucketRecent); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
			return err
		}
		_, err = tx.CreateBucket(bucketRecent)
		return err
	})
}
