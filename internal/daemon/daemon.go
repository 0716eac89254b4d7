// SPDX-License-Identifier: Apache-2.0

// Package daemon keeps the label registry of a host open: it serves it on a unix
// socket, and looks from time to time for labels that other engines gave out and
// for AppArmor profiles whose container is gone.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/observe"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/registry/socket"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// ErrDamaged is in the error of a registry that is not as it was written.
var ErrDamaged = errors.New("the registry is damaged")

// Options say what is served, and to whom it is told.
type Options struct {
	Dir       string            // the state directory, which has to be there
	Socket    string            // path of the socket
	Reconcile time.Duration     // between two looks at the host; 0: never
	Ready     func()            // called once, when the socket answers
	Warn      func(text string) // called for what does not end the daemon, by one goroutine at a time
}

// Serve serves until the context ends. Where another process serves the directory,
// the error is bolt.ErrLocked.
func Serve(ctx context.Context, o Options) (err error) {
	store, err := bolt.Own(authority.Registry(o.Dir), 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r := &svirt.Registry{Store: store}
	watch := newWatch(o.Warn, r, o.Dir)
	if o.Reconcile > 0 {
		// Before the first label is given out: what others gave out is in use.
		watch.look()
	}
	l, err := socket.Listen(o.Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	withdraw, err := authority.Announce(o.Dir, o.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, withdraw()) }()
	if o.Reconcile > 0 {
		go watch.run(ctx, o.Reconcile)
	}
	o.Ready()
	return socket.Serve(ctx, l, r)
}

// watch reconciles the registry with the host, unloads AppArmor profiles whose
// container is gone, and says each violation once.
type watch struct {
	warn func(string)
	r    svirt.Authority
	dir  *state.Dir // nil where there are no containers
	said map[string]bool
}

func newWatch(warn func(string), r svirt.Authority, path string) *watch {
	w := &watch{warn: warn, r: r, said: map[string]bool{}}
	var err error
	if w.dir, err = state.Open(path); err != nil {
		w.say(err.Error())
	}
	return w
}

func (w *watch) say(text string) {
	if !w.said[text] {
		w.said[text] = true
		w.warn(text)
	}
}

func (w *watch) look() {
	list, err := w.r.List()
	if err != nil {
		w.warn(fmt.Sprintf("reconcile: %v", err))
		return
	}
	seen, err := observe.All("/", list)
	if err != nil {
		w.say(err.Error())
	}
	if w.dir != nil {
		if _, err := gc.CollectProfiles(w.dir, w.r); err != nil {
			w.say(err.Error())
		}
	}
	rep, err := w.r.Reconcile(seen)
	if err != nil {
		w.warn(fmt.Sprintf("reconcile: %v", err))
	}
	for _, v := range rep.Violations {
		w.say(v.Message)
	}
	if _, err := w.r.Expire(); err != nil {
		w.warn(fmt.Sprintf("reconcile: %v", err))
	}
}

func (w *watch) run(ctx context.Context, every time.Duration) {
	for tick := time.NewTicker(every); ; {
		select {
		case <-tick.C:
			w.look()
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}
