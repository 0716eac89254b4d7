// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"time"

	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
)

// start lets the runtime start a container, and returns when what is in force has
// been verified.
func (w *wrapper) start() (int, error) {
	rec, ours, err := w.record()
	if err != nil {
		return 0, err
	}
	if !ours {
		return 0, w.replace()
	}
	before := w.log.size()
	out, err := w.host.Start(rec, w.launchRuntime(nil))
	w.explain(out, err, before)
	return w.exit(out.Code, err)
}

// How often and in what distance delete looks again for a container that is in
// use: a second in all.
const (
	forgetTries = 50
	endTries    = 500 // for a process that has got its last signal: ten seconds
	forgetPause = 20 * time.Millisecond
)

// delete lets the runtime forget a container, and forgets it too.
func (w *wrapper) delete() (int, error) {
	code, err := w.launchRuntime(nil).Run()
	if err != nil {
		return 0, err
	}
	if err := w.forget(code); err != nil {
		w.log.warn(err)
	}
	return code, nil
}

// forget goes by whether the runtime still has a container, not by its exit code:
// deleting twice fails, and still the container is gone.
func (w *wrapper) forget(code int) error {
	if w.call.Pattern != "" {
		_, err := gc.Collect(w.dir, w.host.Registry)
		return err
	}
	key, err := w.dir.KeyOf(w.root(), w.call.ID)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	for i := 0; ; i++ {
		err := w.host.Forget(key)
		switch {
		case err == nil, errors.Is(err, state.ErrNotFound):
			return nil
		case errors.Is(err, witness.ErrLeft) && i < endTries:
			// crun has sent the last signal and does not wait for the end.
		case !errors.Is(err, state.ErrBusy):
			return err
		case code != 0 || i == forgetTries:
			return nil // the runtime still has it
		}
		// Engines delete twice at once. The other one may have looked before the
		// container was gone.
		time.Sleep(forgetPause)
	}
}
