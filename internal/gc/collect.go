// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package gc forgets containers that are gone: their folders, labels and AppArmor
// profiles.
//
// A container is forgotten when its runtime, asked about it, has it no more and none
// of its processes is left. What cannot be read or asked proves nothing: such a
// container stays with its label, and is reported with what a person can do.
package gc

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
	"github.com/palisade-sec/palisade/svirt"
)

// Collected is what [Collect] cleaned up.
type Collected struct {
	// Containers are the keys of containers that were removed, Labels the IDs whose
	// label was freed or, with labelled content left, set to draining, Profiles
	// AppArmor profiles that no container had any more.
	Containers []string `json:"containers"`
	Labels     []string `json:"labels"`
	Profiles   []string `json:"profiles"`
	// Kept are containers and labels of which it is not known whether they are in
	// use.
	Kept []Kept `json:"kept"`
}

// Kept is a container that only a person can clean up.
type Kept struct {
	Key  string `json:"key"`
	Why  string `json:"why"`
	Mend string `json:"mend"`
}

func (k Kept) String() string { return fmt.Sprintf("container %s stays: %s; %s", k.Key, k.Why, k.Mend) }

// Collect removes what killed processes left behind: containers whose palisade run is
// gone (they are ended), records of containers that their engine has deleted,
// half-made folders, and labels without a container. The error does not hold what
// [Collected.Kept] does.
func Collect(dir *state.Dir, registry svirt.Authority) (Collected, error) {
	got := Collected{Containers: []string{}, Labels: []string{}, Profiles: []string{}, Kept: []Kept{}}
	// The labels are listed first: one that is reserved after this belongs to a
	// container whose folder is there by the time we look for it.
	labels, err := registry.List()
	errs := []error{err}
	keep := func(key string, err error) {
		if k := kept(dir, key, err); !slices.ContainsFunc(got.Kept, func(o Kept) bool { return o.Key == k.Key }) {
			got.Kept = append(got.Kept, k)
		}
	}
	err = dir.Sweep(func(c *state.Container) error {
		key := c.Key
		gone, err := collect(dir, registry, labels, c)
		switch {
		case gone:
			got.Containers = append(got.Containers, key)
		case errors.Is(err, state.ErrDamaged) || errors.Is(err, witness.ErrLeft):
			keep(key, err)
			return nil
		}
		return err
	})
	for _, e := range split(err) {
		if d := (*state.DamagedError)(nil); errors.As(e, &d) {
			keep(d.Key, e)
		} else {
			errs = append(errs, e)
		}
	}
	for _, l := range labels {
		if l.State == svirt.Draining || !slices.Contains([]string{HolderRun, HolderOCI, HolderLibvirt}, l.Holder) {
			continue
		}
		if slices.Contains(got.Containers, l.ID) {
			got.Labels = append(got.Labels, l.ID)
			continue
		}
		if _, err := dir.Get(l.ID); !errors.Is(err, state.ErrNotFound) {
			continue
		}
		// A label is released before its folder is removed, so this record was lost.
		if err := witness.Gone(dir, delegate.Query, l.ID, levelOf(l)); err != nil {
			keep(l.ID, fmt.Errorf("its record is lost: %w", err))
			continue
		}
		if err := dir.Absent(l.ID, func() error { return registry.Release(l.ID) }); err != nil {
			if !errors.Is(err, state.ErrExists) {
				errs = append(errs, err)
			}
			continue
		}
		got.Labels = append(got.Labels, l.ID)
	}
	lost, err := CollectProfiles(dir, registry)
	got.Profiles = append(got.Profiles, lost...)
	return got, errors.Join(append(errs, err)...)
}

func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && err != nil {
		if _, damaged := err.(*state.DamagedError); !damaged { //nolint:errorlint // the join itself is taken apart
			return joined.Unwrap()
		}
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func kept(dir *state.Dir, key string, err error) Kept {
	k := Kept{Key: key, Why: err.Error(), Mend: "stop it with its engine, then run 'palisade gc' again"}
	if d := (*state.DamagedError)(nil); errors.As(err, &d) {
		k.Why, k.Mend = fmt.Sprintf("%s cannot be read: %v", d.File, d.Cause), d.Mend()
	}
	return k
}

// levelOf is the level that no process but the holder's carries; empty where others
// have the same.
func levelOf(l svirt.Record) string {
	if l.Group != "" {
		return ""
	}
	return l.Level
}

func labelOf(labels []svirt.Record, key string) svirt.Record {
	for _, l := range labels {
		if l.ID == key {
			return l
		}
	}
	return svirt.Record{}
}

// CollectProfiles unloads AppArmor profiles whose container is gone: those without
// a record, and, with the container, those that no process has and whose runtime
// knows their container no more. It looks at nothing else and so can be called
// often.
func CollectProfiles(dir *state.Dir, registry svirt.Authority) ([]string, error) {
	var kernel profile.Kernel
	// The profiles first: of one that is loaded later the record is there by now.
	loaded, err := profile.Loaded(kernel, dir)
	if err != nil || len(loaded) == 0 {
		return nil, err
	}
	held, err := profile.Holders(kernel, slices.Collect(maps.Keys(loaded)))
	if err != nil {
		return nil, err
	}
	var lost []string
	var errs []error
	for name, key := range loaded {
		if len(held[name]) > 0 {
			continue
		}
		err := CollectOne(dir, registry, key)
		if errors.Is(err, state.ErrNotFound) {
			if err = witness.Gone(dir, delegate.Query, key, ""); err == nil {
				// Under the lock under which keys are taken: whoever takes this one now
				// would find its profile gone.
				err = dir.Absent(key, func() error { return profile.Unload(kernel, name) })
			}
		}
		switch {
		case err == nil:
			lost = append(lost, name)
		case !errors.Is(err, state.ErrBusy) && !errors.Is(err, state.ErrExists) && !errors.Is(err, profile.ErrHeld):
			errs = append(errs, err)
		}
	}
	slices.Sort(lost)
	return lost, errors.Join(errs...)
}

// Holders of labels.
const (
	HolderRun     = "palisade run"
	HolderOCI     = "palisade-oci"
	HolderLibvirt = "palisade-lxc"
)

// CollectOne removes the container with the key if no process works with it and no
// engine has it. The error wraps [state.ErrNotFound], [state.ErrBusy] or, of one of
// which nothing is known, [state.ErrDamaged] or [witness.ErrLeft].
func CollectOne(dir *state.Dir, registry svirt.Authority, key string) error {
	c, err := dir.Hold(key)
	if err != nil {
		return err
	}
	var labels []svirt.Record
	if c.Damaged != nil {
		if labels, err = registry.List(); err != nil {
			c.Close()
			return err
		}
	}
	gone, err := collect(dir, registry, labels, c)
	if err == nil && !gone {
		return state.ErrBusy
	}
	return err
}

// collect removes c if nothing of it is left. Else it closes it; the error says why
// that is not known.
func collect(dir *state.Dir, registry svirt.Authority, labels []svirt.Record, c *state.Container) (gone bool, err error) {
	switch {
	case c.BeforeBoot():
		// No process has lived since. The runtime may have files left.
		err = tidy(dir, c)
	case c.Damaged != nil:
		err = damagedGone(dir, labels, c)
	case c.Engine == EngineOCI || c.Engine == EngineLibvirt:
		gone, err := ended(c)
		if err != nil || !gone {
			c.Close()
			return false, err
		}
	case c.Engine == EnginePalisade:
		err = destroyOrphan(c.Runtime, dir.RuntimeRoot(), c)
		if err == nil && c.Init.Alive() {
			err = fmt.Errorf("%w: process %d", witness.ErrLeft, c.Init.PID)
		}
	default:
		err = fmt.Errorf("container %s: unknown engine %.32q: %w", c.Key, c.Engine, state.ErrDamaged)
	}
	if err != nil {
		c.Close()
		return false, err
	}
	if c.Damaged != nil {
		// A domain of libvirt may have a label of its own that content carries.
		c.Labelled = c.Engine == EngineLibvirt || len(labelOf(labels, c.Key).Content) > 0
	}
	if c.Profile == "" {
		// The record may have been unreadable. The name follows from the key.
		c.Profile = profile.Name(dir, c.Key)
	}
	err = Forget(registry, c)
	return err == nil, err
}

// tidy removes what the runtime of palisade run has kept of a container that a
// restart of the machine has ended.
func tidy(dir *state.Dir, c *state.Container) error {
	if c.Engine != EnginePalisade || !state.ValidID(c.ID) {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir.RuntimeRoot(), c.ID))
}

// damagedGone proves that nothing is left of a container whose record cannot be read.
func damagedGone(dir *state.Dir, labels []svirt.Record, c *state.Container) error {
	level := levelOf(labelOf(labels, c.Key))
	if c.Controller.Alive() {
		return errors.Join(c.Damaged, fmt.Errorf("%w: process %d", witness.ErrLeft, c.Controller.PID))
	}
	if runs, err := c.RuntimeRuns(); err != nil || runs {
		return errors.Join(c.Damaged, err)
	}
	if err := witness.Gone(dir, delegate.Query, c.Key, level); err != nil {
		return errors.Join(c.Damaged, err)
	}
	return nil
}

// ended reports whether an engine's container is gone.
func ended(c *state.Container) (bool, error) {
	st, found, err := delegate.Look(c.Record)
	if err != nil {
		// The runtime did not answer. Without it only the absence of everything else
		// counts, and an answer that cannot be had is not that.
		return false, fmt.Errorf("container %s: %w: %w", c.Key, witness.ErrLeft, err)
	}
	if found && abandoned(c.Record, st) {
		if err := delegate.Destroy(c.Runtime, c.ID); err != nil {
			return false, err
		}
		found = false
	}
	if found {
		return false, nil
	}
	// A runtime whose folder is out of sight says that there is no container. Its
	// process says otherwise.
	if c.Init.Alive() {
		return false, fmt.Errorf("container %s: %w: its runtime does not know it, and process %d runs", c.Key, witness.ErrLeft, c.Init.PID)
	}
	return true, nil
}

// abandoned tells of a container that its runtime still knows whether its engine
// has given it up: it has ended, and its bundle is gone. So it is when the runtime
// was killed when it was to delete it.
func abandoned(r state.Record, st delegate.State) bool {
	if r.Engine != EngineOCI || st.Status != "stopped" || r.Bundle.Path == "" {
		return false
	}
	_, err := os.Lstat(r.Bundle.Path)
	return errors.Is(err, os.ErrNotExist)
}

// Engines of records.
const (
	EnginePalisade = "palisade"
	EngineOCI      = "oci"
	EngineLibvirt  = "libvirt"
)

// DestroyIfLeft ends a container if the runtime has anything of it.
func DestroyIfLeft(r state.Runtime, root, id string) error {
	if _, err := os.Lstat(filepath.Join(root, id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return delegate.Destroy(r, id)
}

// How long and how often a container without an owner is looked for that its
// runtime is still making.
const (
	orphanTimeout = 20 * time.Second
	orphanPause   = 20 * time.Millisecond
)

// destroyOrphan ends a container whose owner was killed. Its runtime may be in the
// middle of making it: then it is ended as soon as it is there.
func destroyOrphan(r state.Runtime, root string, c *state.Container) error {
	for deadline := time.Now().Add(orphanTimeout); ; time.Sleep(orphanPause) {
		runs, err := c.RuntimeRuns()
		if err != nil {
			return err
		}
		if err := DestroyIfLeft(r, root, c.ID); err != nil && !runs {
			return err
		}
		if !runs {
			// A runtime that was killed early has a folder and no container.
			return os.RemoveAll(filepath.Join(root, c.ID))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("container %s: its runtime neither ends nor has it: %w", c.Key, state.ErrBusy)
		}
	}
}

// Forget unloads the profile, frees the label and removes the folder, of a container
// of which nothing is left. The label goes first: so a label without a folder is one
// whose record was lost, and not one that is being forgotten. While a process has the
// profile everything stays, and the error wraps [state.ErrBusy].
func Forget(registry svirt.Authority, c *state.Container) error {
	switch err := profile.Unload(profile.Kernel{}, c.Profile); {
	case errors.Is(err, profile.ErrHeld):
		c.Close()
		return errors.Join(err, state.ErrBusy)
	case err != nil:
		c.Close()
		return err
	}
	free := registry.Release
	if c.Labelled {
		free = registry.Drain
	}
	if err := free(c.Key); err != nil && !errors.Is(err, svirt.ErrNotHeld) {
		c.Close()
		return err
	}
	return c.Remove()
}
