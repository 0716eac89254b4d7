// SPDX-License-Identifier: Apache-2.0

package bolt

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/palisade-sec/palisade/svirt"
)

// maxGroup bounds how many transactions are committed together, and with it how
// long the first of them waits for the last.
const maxGroup = 256

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("label registry is closed")

// Owned is a [svirt.Store] that keeps its file to itself. Transactions that come
// in while one is being written are committed together with one flush to disk,
// so that many clients cost hardly more than one. It is safe for concurrent use
// by goroutines; other processes wait until it is closed.
type Owned struct {
	db       *bbolt.DB
	incoming chan *pending
	stop     chan struct{}
	stopped  chan struct{}
	once     sync.Once
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
	o := &Owned{db: db, incoming: make(chan *pending, maxGroup), stop: make(chan struct{}), stopped: make(chan struct{})}
	go o.write()
	return o, nil
}

// Close waits for the transactions under way and gives the file free.
func (o *Owned) Close() error {
	o.once.Do(func() { close(o.stop) })
	<-o.stopped
	return o.db.Close()
}

// View runs fn on the last committed state.
func (o *Owned) View(fn func(svirt.Tx) error) error { return view(o.db, fn) }

// Check verifies that the file is whole and that its indexes agree.
func (o *Owned) Check() error { return check(o.db) }

// Update runs fn in a durable transaction; others may be committed with it, and
// none runs at the same time.
func (o *Owned) Update(fn func(svirt.Tx) error) error {
	p := &pending{fn: fn, done: make(chan struct{})}
	select {
	case o.incoming <- p:
	case <-o.stop:
		return ErrClosed
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
			return ErrClosed
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
		err := update(o.db, func(tx svirt.Tx) error {
			for i, p := range group {
				w := &watched{Tx: tx}
				if p.err = p.fn(w); p.err != nil && w.wrote {
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

// watched tells whether a transaction has written.
type watched struct {
	svirt.Tx
	wrote bool
}

func (w *watched) Put(r svirt.Record) error {
	w.wrote = true
	return w.Tx.Put(r)
}

func (w *watched) Delete(id string) error {
	w.wrote = true
	return w.Tx.Delete(id)
}
