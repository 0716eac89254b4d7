// SPDX-License-Identifier: Apache-2.0

// Package bolt keeps the label registry of one host in a bbolt file.
//
// [Open] is for many short-lived processes: the file is opened for each
// transaction and closed behind it, and the lock that bbolt takes on it makes
// them wait for each other. [Own] is for the one process that serves all others:
// it keeps the file open and commits what came in meanwhile together. Either
// way a commit is on disk before Update returns, and a process that dies at any
// instruction leaves all of its transaction or nothing.
package bolt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/palisade-sec/palisade/svirt"
)

// lockTimeout bounds how long one transaction waits for the others.
const lockTimeout = 30 * time.Second

// ErrLocked says that another process has the file and does not give it away:
// one that [Own]s it.
var ErrLocked = berrors.ErrTimeout

var (
	bucketIDs       = []byte("id")        // ID → record as JSON
	bucketLevels    = []byte("level")     // level → ID
	bucketIrregular = []byte("irregular") // ID of a record whose level is no plain pair → nothing
	// and bucketRecent, in recent.go
)

// Registry is a [svirt.Store] in one file. It is safe for concurrent use by
// goroutines and processes.
type Registry struct {
	path    string
	timeout time.Duration
}

// Open returns the store in the file at path; the file is made when it is first
// written. The folder must exist.
func Open(path string) *Registry { return &Registry{path: path, timeout: lockTimeout} }

// WithTimeout returns the store with another bound on waiting for the lock;
// beyond it, transactions fail with [ErrLocked].
func (s *Registry) WithTimeout(d time.Duration) *Registry {
	return &Registry{path: s.path, timeout: d}
}

func (s *Registry) open(readOnly bool) (*bbolt.DB, error) {
	opts := *bbolt.DefaultOptions
	opts.Timeout = s.timeout
	opts.ReadOnly = readOnly
	opts.NoFreelistSync = true
	opts.FreelistType = bbolt.FreelistMapType
	opts.InitialMmapSize = 1 << 20
	db, err := bbolt.Open(s.path, 0o600, &opts)
	if err != nil {
		return nil, fmt.Errorf("open label registry %s: %w", s.path, err)
	}
	return db, nil
}

// with opens the file for fn, its changes merged.
func (s *Registry) with(readOnly bool, fn func(*bbolt.DB) error) error {
	for {
		left, err := s.once(readOnly, func(db *bbolt.DB) error {
			left, err := unmerged(db)
			switch {
			case err != nil:
				return err
			case left && readOnly:
				return errPending
			case left:
				if err := merge(db); err != nil {
					return err
				}
			}
			return fn(db)
		})
		if !left {
			return err
		}
		// Its owner was killed.
		if _, err := s.once(false, merge); err != nil {
			return err
		}
	}
}

var errPending = errors.New("label registry has changes to merge")

func (s *Registry) once(readOnly bool, fn func(*bbolt.DB) error) (pending bool, err error) {
	db, err := s.open(readOnly)
	if err != nil {
		return false, err
	}
	err = fn(db)
	return errors.Is(err, errPending), errors.Join(err, db.Close())
}

// create makes the file whole before anyone can see it: a half-made one would
// be refused by everybody ever after.
func (s *Registry) create() error {
	if _, err := os.Lstat(s.path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(s.path), ".registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, "db")
	db, err := bbolt.Open(fresh, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		var errs []error
		for _, b := range [][]byte{bucketIDs, bucketLevels, bucketIrregular} {
			_, err := tx.CreateBucketIfNotExists(b)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A link fails when someone else was faster; then theirs counts.
	if err := os.Link(fresh, s.path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// Update runs fn in one durable transaction, alone.
func (s *Registry) Update(fn func(svirt.Tx) error) error {
	if err := s.create(); err != nil {
		return fmt.Errorf("create label registry %s: %w", s.path, err)
	}
	return s.with(false, func(db *bbolt.DB) error { return update(db, fn) })
}

// View runs fn on a consistent state. A registry that does not exist is empty.
func (s *Registry) View(fn func(svirt.Tx) error) error {
	if _, err := os.Lstat(s.path); errors.Is(err, os.ErrNotExist) {
		return (&svirt.Memory{}).View(fn)
	}
	return s.with(true, func(db *bbolt.DB) error { return view(db, fn) })
}

// Check verifies that the file is whole and that its indexes agree.
func (s *Registry) Check() error {
	if _, err := os.Lstat(s.path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.with(true, check)
}

func update(db *bbolt.DB, fn func(svirt.Tx) error) error {
	return db.Update(func(tx *bbolt.Tx) error {
		t, err := open(tx)
		if err != nil {
			return err
		}
		return fn(t)
	})
}

func view(db *bbolt.DB, fn func(svirt.Tx) error) error {
	return db.View(func(tx *bbolt.Tx) error {
		t, err := open(tx)
		if err != nil {
			return err
		}
		return fn(t)
	})
}

func check(db *bbolt.DB) error {
	return db.View(func(tx *bbolt.Tx) error {
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		t, err := open(tx)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		levels, irregular := 0, 0
		errs = append(errs, t.Each(func(r svirt.Record) error {
			if r.Group != "" {
				return nil
			}
			levels++
			if id := t.levels.Get([]byte(r.Level)); string(id) != r.ID {
				errs = append(errs, fmt.Errorf("level %s of %s is held by %q", r.Level, r.ID, id))
			}
			if listed := t.irregular.Get([]byte(r.ID)) != nil; listed == svirt.Regular(r.Level) {
				errs = append(errs, fmt.Errorf("level %s of %s: irregular is %v", r.Level, r.ID, listed))
			} else if listed {
				irregular++
			}
			return nil
		}))
		if n := t.levels.Stats().KeyN; n != levels {
			errs = append(errs, fmt.Errorf("%d holders and %d levels", levels, n))
		}
		if n := t.irregular.Stats().KeyN; n != irregular {
			errs = append(errs, fmt.Errorf("%d irregular levels, %d listed", irregular, n))
		}
		return errors.Join(errs...)
	})
}

type transaction struct{ ids, levels, irregular *bbolt.Bucket }

func open(tx *bbolt.Tx) (transaction, error) {
	t := transaction{ids: tx.Bucket(bucketIDs), levels: tx.Bucket(bucketLevels), irregular: tx.Bucket(bucketIrregular)}
	if t.ids == nil || t.levels == nil || t.irregular == nil {
		return t, errors.New("label registry: this is another program's file")
	}
	return t, nil
}

func (t transaction) ByID(id string) (svirt.Record, bool, error) {
	b := t.ids.Get([]byte(id))
	if b == nil {
		return svirt.Record{}, false, nil
	}
	r, err := decode(b)
	return r, err == nil, err
}

func decode(b []byte) (svirt.Record, error) {
	var r svirt.Record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("label registry: record: %w", err)
	}
	return r, nil
}

func (t transaction) ByLevel(level string) (svirt.Record, bool, error) {
	id := t.levels.Get([]byte(level))
	if id == nil {
		return svirt.Record{}, false, nil
	}
	return t.ByID(string(id))
}

func (t transaction) Put(r svirt.Record) error {
	if other := t.levels.Get([]byte(r.Level)); other != nil && r.Group == "" && string(other) != r.ID {
		return fmt.Errorf("level %s is held by %s: %w", r.Level, other, svirt.ErrInUse)
	}
	if err := t.unindex(r.ID); err != nil {
		return err
	}
	if err := t.putRecord(r); err != nil || r.Group != "" {
		return err
	}
	return t.putLevel(r)
}

func (t transaction) putRecord(r svirt.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return t.ids.Put([]byte(r.ID), b)
}

// putLevel notes that r, which is no member of a group, holds its level.
func (t transaction) putLevel(r svirt.Record) error {
	if err := t.levels.Put([]byte(r.Level), []byte(r.ID)); err != nil || svirt.Regular(r.Level) {
		return err
	}
	return t.irregular.Put([]byte(r.ID), []byte{})
}

func (t transaction) unindex(id string) error {
	old, ok, err := t.ByID(id)
	if err != nil || !ok || old.Group != "" {
		return err
	}
	if err := t.levels.Delete([]byte(old.Level)); err != nil || svirt.Regular(old.Level) {
		return err
	}
	return t.irregular.Delete([]byte(id))
}

func (t transaction) Delete(id string) error {
	if err := t.unindex(id); err != nil {
		return err
	}
	return t.ids.Delete([]byte(id))
}

func (t transaction) Each(fn func(svirt.Record) error) error {
	return t.ids.ForEach(func(_, v []byte) error {
		r, err := decode(v)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

func (t transaction) EachIrregular(fn func(svirt.Record) error) error {
	return t.irregular.ForEach(func(id, _ []byte) error {
		r, ok, err := t.ByID(string(id))
		if err != nil || !ok {
			return err
		}
		return fn(r)
	})
}

func (t transaction) EachOwn(prefix string, fn func(svirt.Record) error) error {
	c := t.ids.Cursor()
	for k, v := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		r, err := decode(v)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}
