// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"time"

	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/state"
)

// Summary is one container in a list.
type Summary struct {
	ID      string    `json:"id"`
	Engine  string    `json:"engine"`
	Status  string    `json:"status"`
	PID     int       `json:"pid"`
	Policy  string    `json:"policy"`
	Label   string    `json:"label"`
	Created time.Time `json:"created"`
	Command []string  `json:"command"`
}

// statusGone is the status of a container whose runtime knows it no more; the
// others are the runtime specification's: creating, created, running, stopped.
const statusGone = "gone"

// List returns all containers in the order of names. What cannot be read is
// joined into the error and does not keep the others away.
func List(dir *state.Dir) ([]Summary, error) {
	records, err := dir.List()
	errs := []error{err}
	out := []Summary{}
	for _, r := range records {
		s, err := summarize(r)
		errs = append(errs, err)
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

func summarize(r state.Record) (Summary, error) {
	s := Summary{ID: r.ID, Engine: r.Engine, Status: "unknown", Policy: r.Policy.Name, Label: r.Level, Created: r.Created, Command: r.Command}
	if s.Command == nil {
		s.Command = []string{}
	}
	st, found, err := delegate.Look(r)
	switch {
	case err != nil:
		return s, err
	case !found:
		s.Status = statusGone
	default:
		s.Status, s.PID = st.Status, st.PID
	}
	return s, nil
}

// Inspection is what was asked for a container beside what is in force.
type Inspection struct {
	Summary
	Asked effective.State `json:"asked"`
	// EngineProfile is the AppArmor profile that the engine has asked for.
	EngineProfile string `json:"engine_profile,omitempty"`
	// Effective is nil when the container does not run.
	Effective *effective.State `json:"effective"`
	// Layers are both, by layer.
	Layers []effective.Layer `json:"layers"`
	// Mismatches are the places where less is in force than was asked for.
	Mismatches []effective.Mismatch `json:"mismatches"`
}

// Inspect reads back from the kernel what confines a running container. The error wraps [state.ErrNotFound], [state.ErrAmbiguous],
// [state.ErrDamaged] or [state.ErrUnfinished].
func Inspect(dir *state.Dir, name string) (Inspection, error) {
	r, err := dir.Find(name)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Mismatches: []effective.Mismatch{}, EngineProfile: r.EngineProfile}
	if in.Summary, err = summarize(r); err != nil {
		return in, err
	}
	if in.Asked, err = r.Planned(); err != nil {
		return in, err
	}
	in.Layers = effective.Layers(in.Asked, nil, time.Time{})
	if _, err := dir.Step(r); err != nil {
		return in, err // what is added to the container would run without it
	}
	if in.Status != "running" && in.Status != "paused" {
		return in, nil
	}
	// What a process cannot leave needs no second witness while it is the same.
	verified := !r.VerifiedAt.IsZero() && r.Init != nil && r.Init.PID == in.PID && r.Init.Alive()
	st, err := effective.ReadWith(in.PID, in.Asked, effective.Options{Witness: effective.Witness{Verified: verified}})
	if errors.Is(err, effective.ErrGone) {
		in.Status, in.PID = "stopped", 0
		return in, nil
	} else if err != nil {
		return in, err
	}
	in.Effective = &st
	in.Layers = effective.Layers(in.Asked, &st, time.Now().UTC())
	in.Mismatches = effective.Compare(in.Asked, st)
	return in, nil
}
