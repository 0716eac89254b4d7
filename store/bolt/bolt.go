// SPDX-License-Identifier: Apache-2.0

// Package bolt keeps the label registry of one host in a bbolt file.
//
// The file is opened for each transaction and closed behind it, so that many
// short-lived processes share it; the lock that bbolt takes on the file makes
// them wait for each other. A commit is on disk before Update returns, and a
// process that dies at any instruction leaves either all of its transaction or
// nothing.
package bolt

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/palisade-sec/palisade/svirt"
)

// LockTimeout bounds how long one transaction waits for the others.
const LockTimeout = 30 * time.Second

var (
	bucketIDs    = []byte("id")    // ID → record as JSON
	bucketLevels = []byte("level") // level → ID
)

// Registry is a [svirt.Store] in one file. It is safe for concurrent use by
// goroutines and processes.
type Registry struct{ path string }

// Open returns the store in the file at path; the file is made when it is first
// written. The folder must exist.
func Open(path string) *Registry { return &Registry{path: path} }

func (s *Registry) with(readOnly bool, fn func(*bbolt.DB) error) (err error) {
	opts := *bbolt.DefaultOptions
	opts.Timeout = LockTimeout
	opts.ReadOnly = readOnly
	opts.NoFreelistSync = true
	opts.InitialMmapSize = 1 << 20
	db, err := bbolt.Open(s.path, 0o600, &opts)
	if err != nil {
		return fmt.Errorf("open label registry %s: %w", s.path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
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
		_, err1 := tx.CreateBucketIfNotExists(bucketIDs)
		_, err2 := tx.CreateBucketIfNotExists(bucketLevels)
		return errors.Join(err1, err2)
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
	return s.with(false, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			t, err := open(tx)
			if err != nil {
				return err
			}
			return fn(t)
		})
	})
}

// View runs fn on a consistent state. A registry that does not exist is empty.
func (s *Registry) View(fn func(svirt.Tx) error) error {
	if _, err := os.Lstat(s.path); errors.Is(err, os.ErrNotExist) {
		return fn(empty{})
	}
	return s.with(true, func(db *bbolt.DB) error {
		return db.View(func(tx *bbolt.Tx) error {
			t, err := open(tx)
			if err != nil {
				return err
			}
			return fn(t)
		})
	})
}

// Check verifies that the file is whole and that the two indexes agree.
func (s *Registry) Check() error {
	if _, err := os.Lstat(s.path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.with(true, func(db *bbolt.DB) error {
		return db.View(func(tx *bbolt.Tx) error {
			var errs []error
			for err := range tx.Check() {
				errs = append(errs, err)
			}
			t, err := open(tx)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			n := 0
			errs = append(errs, t.Each(func(r svirt.Record) error {
				n++
				if id := t.levels.Get([]byte(r.Level)); string(id) != r.ID {
					errs = append(errs, fmt.Errorf("level %s of %s is held by %q", r.Level, r.ID, id))
				}
				return nil
			}))
			if m := t.levels.Stats().KeyN; m != n {
				errs = append(errs, fmt.Errorf("%d holders and %d levels", n, m))
			}
			return errors.Join(errs...)
		})
	})
}

type transaction struct{ ids, levels *bbolt.Bucket }

func open(tx *bbolt.Tx) (transaction, error) {
	t := transaction{ids: tx.Bucket(bucketIDs), levels: tx.Bucket(bucketLevels)}
	if t.ids == nil || t.levels == nil {
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
	if other := t.levels.Get([]byte(r.Level)); other != nil && string(other) != r.ID {
		return fmt.Errorf("level %s is held by %s: %w", r.Level, other, svirt.ErrInUse)
	}
	if err := t.dropLevel(r.ID); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return errors.Join(t.ids.Put([]byte(r.ID), b), t.levels.Put([]byte(r.Level), []byte(r.ID)))
}

func (t transaction) dropLevel(id string) error {
	old, ok, err := t.ByID(id)
	if err != nil || !ok {
		return err
	}
	return t.levels.Delete([]byte(old.Level))
}

func (t transaction) Delete(id string) error {
	if err := t.dropLevel(id); err != nil {
		return err
	}
	return t.ids.Delete([]byte(id))
}

func (t transaction) Len() (int, error) { return t.ids.Stats().KeyN, nil }

func (t transaction) Each(fn func(svirt.Record) error) error {
	return t.ids.ForEach(func(_, v []byte) error {
		r, err := decode(v)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// empty is the registry before its first label.
type empty struct{}

func (empty) ByID(string) (svirt.Record, bool, error)    { return svirt.Record{}, false, nil }
func (empty) ByLevel(string) (svirt.Record, bool, error) { return svirt.Record{}, false, nil }
func (empty) Put(svirt.Record) error                     { return errors.New("read-only transaction") }

func (empty) Delete(string) error                 { return errors.New("read-only transaction") }
func (empty) Len() (int, error)                   { return 0, nil }
func (empty) Each(func(svirt.Record) error) error { return nil }
