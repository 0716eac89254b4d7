// SPDX-License-Identifier: Apache-2.0

package bolt

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/palisade-sec/palisade/svirt"
)

// maxGroup bounds how many transactions are committed together, and with it how
// long the first of them waits for the last.
const maxGroup = 256

// errClosed says that the store was closed.
var errClosed = errors.New("label registry is closed")

// Owned is a [svirt.Store] that keeps its file to itself. Transactions that come
// in while one is being written are committed together with one flush to disk,
// so that many clients cost hardly more than one. It is safe for concurrent use
// by goroutines; other processes wait until it is closed.
type Owned struct {
	db *bbolt.DB
	// mu keeps the last commit and what is in memory of it together.
	mu       sync.Mutex
	recent   overlay
	pairs    svirt.Pairs
	incoming chan *pending
	stop     chan struct{}
	stopped  chan struct{}
	once     sync.Once
	closed   error
}

type pending struct {
	fn   func(svirt.Tx) error
	err  error
	done chan struct{}
}

// Own opens the file at path, which is made if need be, and keeps it. The error
// is [ErrLocked] when another process keeps it.
func Own(path string, wait time.Duration) (*Owned, error) {
	s := Open(path).WithTimeout(wait)
	if err := s.create(); err != nil {
		return nil, fmt.Errorf("create label registry %s: %w", path, err)
	}
	db, err := s.open(false)
	if err != nil {
		return nil, err
	}
	o := &Owned{db: db, recent: newOverlay(), incoming: make(chan *pending, maxGroup), stop: make(chan struct{}), stopped: make(chan struct{})}
	if err := o.index(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go o.write()
	return o, nil
}

// index reads the changes that are not merged yet, and which pairs are held.
func (o *Owned) index() error {
	if err := o.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketRecent)
		return err
	}); err != nil {
		return err
	}
	defer o.pairs.Commit()
	return o.db.View(func(tx *bbolt.Tx) error {
		if err := o.recent.load(tx); err != nil {
			return err
		}
		t, err := open(tx)
		if err != nil {
			return err
		}
		if err := t.levels.ForEach(func(level, id []byte) error {
			if _, changed := o.recent.ids[string(id)]; changed {
				return nil
			}
			// No more than its kind and its level matter, and reading half a million
			// records takes seconds.
			rec := svirt.Record{Level: string(level)}
			if svirt.Rests(string(id)) {
				rec.State = svirt.Quarantine
			}
			o.pairs.Put(rec)
			return nil
		}); err != nil {
			return err
		}
		for _, id := range o.recent.levels {
			o.pairs.Put(o.recent.ids[id].Record)
		}
		return nil
	})
}

// Close waits for the transactions under way, merges what changed and gives the
// file free.
func (o *Owned) Close() error {
	o.once.Do(func() {
		close(o.stop)
		<-o.stopped
		o.closed = errors.Join(merge(o.db), o.db.Close())
	})
	return o.closed
}

// View runs fn on the last committed state.
func (o *Owned) View(fn func(svirt.Tx) error) error {
	o.mu.Lock()
	tx, err := o.db.Begin(false)
	over := o.recent.clone()
	o.mu.Unlock()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	t, err := open(tx)
	if err != nil {
		return err
	}
	return fn(&layered{trees: t, over: over})
}

// Check verifies that the file is whole and that its indexes agree, also with
// the changes over them.
func (o *Owned) Check() error {
	if err := check(o.db); err != nil {
		return err
	}
	return o.View(func(tx svirt.Tx) error {
		return tx.Each(func(r svirt.Record) error {
			if r.Group != "" {
				return nil
			}
			if holder, _, err := tx.ByLevel(r.Level); err != nil || holder.ID != r.ID {
				return errors.Join(err, fmt.Errorf("level %s of %s is held by %q", r.Level, r.ID, holder.ID))
			}
			return nil
		})
	})
}

// Update runs fn in a durable transaction; others may be committed with it, and
// none runs at the same time.
func (o *Owned) Update(fn func(svirt.Tx) error) error {
	p := &pending{fn: fn, done: make(chan struct{})}
	select {
	case o.incoming <- p:
	case <-o.stop:
		return errClosed
	}
	select {
	case <-p.done:
		return p.err
	case <-o.stopped:
		// It may have been taken up in the last round.
		select {
		case <-p.done:
			return p.err
		default:
			return errClosed
		}
	}
}

func (o *Owned) write() {
	defer close(o.stopped)
	for {
		var group []*pending
		select {
		case p := <-o.incoming:
			group = append(group, p)
		case <-o.stop:
			return
		}
	fill:
		for len(group) < maxGroup {
			select {
			case p := <-o.incoming:
				group = append(group, p)
			default:
				break fill
			}
		}
		o.commit(group)
	}
}

// commit runs a group in one transaction. One that fails before it has written
// anything leaves the others alone; otherwise they are run again without it.
func (o *Owned) commit(group []*pending) {
	for len(group) > 0 {
		spoilt := -1
		err := o.update(func(t *layered) error {
			for i, p := range group {
				t.wrote = false
				if p.err = p.fn(t); p.err != nil && t.wrote {
					spoilt = i
					return p.err
				}
			}
			return nil
		})
		if spoilt < 0 {
			for _, p := range group {
				if p.err == nil {
					p.err = err
				}
				close(p.done)
			}
			return
		}
		close(group[spoilt].done)
		group = append(group[:spoilt:spoilt], group[spoilt+1:]...)
	}
}

// update runs fn in one transaction, and takes back what it did in memory when
// it is not committed.
func (o *Owned) update(fn func(*layered) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var undo []func()
	err := o.db.Update(func(tx *bbolt.Tx) error {
		trees, err := open(tx)
		if err != nil {
			return err
		}
		recent := tx.Bucket(bucketRecent)
		recent.FillPercent = 1 // nothing comes in between
		return fn(&layered{trees: trees, over: o.recent, recent: recent, pairs: &o.pairs, undo: &undo})
	})
	if err == nil {
		o.pairs.Commit()
		return nil
	}
	for _, u := range slices.Backward(undo) {
		u()
	}
	o.pairs.Rollback()
	return err
}
