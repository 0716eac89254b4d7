// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// Collected is what [Collect] cleaned up.
type Collected struct {
	// Containers are the IDs of containers that were removed, Labels the IDs
	// whose label was freed or, with labelled content left, set to draining,
	// Profiles AppArmor profiles that no container had any more.
	Containers []string `json:"containers"`
	Labels     []string `json:"labels"`
	Profiles   []string `json:"profiles"`
}

// Collect removes what killed processes left behind: containers whose palisade
// run is gone (they are ended), records of containers that their engine has
// deleted, half-made folders, and labels without a container.
func Collect(dir *state.Dir, registry svirt.Authority) (Collected, error) {
	got := Collected{Containers: []string{}, Labels: []string{}, Profiles: []string{}}
	// The labels are listed first: one that is reserved after this belongs to a
	// container whose folder is there by the time we look for it.
	labels, err := registry.List()
	errs := []error{err}
	errs = append(errs, dir.Sweep(func(c *state.Container) error {
		gone, err := collect(dir, registry, c)
		if gone {
			got.Containers = append(got.Containers, c.ID)
		}
		return err
	}))
	for _, l := range labels {
		if l.State == svirt.Draining || !slices.Contains([]string{HolderRun, HolderOCI, HolderLibvirt}, l.Holder) {
			continue
		}
		if _, err := dir.Get(l.ID); errors.Is(err, state.ErrNotFound) {
			got.Labels = append(got.Labels, l.ID)
			errs = append(errs, registry.Release(l.ID))
		}
	}
	lost, err := CollectProfiles(dir, registry)
	got.Profiles = append(got.Profiles, lost...)
	return got, errors.Join(append(errs, err)...)
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
	for name, id := range loaded {
		if len(held[name]) > 0 {
			continue
		}
		err := CollectOne(dir, registry, id)
		if errors.Is(err, state.ErrNotFound) {
			// Under the lock under which IDs are taken: whoever takes this one now
			// would find its profile gone.
			err = dir.Absent(id, func() error { return profile.Unload(kernel, name) })
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

// CollectOne removes one container if nobody works with it and no engine has it.
// The error wraps [state.ErrNotFound] or [state.ErrBusy].
func CollectOne(dir *state.Dir, registry svirt.Authority, id string) error {
	c, err := dir.Lock(id)
	if err != nil {
		return err
	}
	gone, err := collect(dir, registry, c)
	if err == nil && !gone {
		return state.ErrBusy
	}
	return err
}

// collect removes c unless an engine still has it.
func collect(dir *state.Dir, registry svirt.Authority, c *state.Container) (gone bool, err error) {
	if c.Engine == EngineOCI || c.Engine == EngineLibvirt {
		st, found, err := Look(c.Record)
		if err == nil && found && abandoned(c.Record, st) {
			err = Destroy(c.Runtime, c.ID)
			found = false
		}
		if err != nil || found {
			c.Close()
			return false, err
		}
	} else {
		r := c.Runtime
		if r.Path == "" {
			// The record was unreadable; the runtime is one of those installed.
			if r.Path, err = FindRuntime(""); err == nil {
				r.Args = []string{"--root", dir.RuntimeRoot()}
			}
		}
		if err := destroyOrphan(r, dir.RuntimeRoot(), c); err != nil {
			c.Close()
			return false, err
		}
	}
	if c.Profile == "" {
		// The record may have been unreadable. The name follows from the ID.
		c.Profile = profile.Name(dir, c.ID)
	}
	err = Forget(registry, c)
	return err == nil, err
}

// abandoned tells of a container that its runtime still knows whether its engine
// has given it up: it has ended, and its bundle is gone. So it is when the runtime
// was killed when it was to delete it.
func abandoned(r state.Record, st State) bool {
	if r.Engine != EngineOCI || st.Status != "stopped" || r.Bundle == "" {
		return false
	}
	_, err := os.Lstat(r.Bundle)
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
	return Destroy(r, id)
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
			return fmt.Errorf("container %s: its runtime neither ends nor has it: %w", c.ID, state.ErrBusy)
		}
	}
}

// Forget unloads the profile, removes the folder, then frees the label: a label
// must not be free while something may still carry it. While a process has the
// profile everything stays, and the error wraps [state.ErrBusy].
func Forget(registry svirt.Authority, c *state.Container) error {
	labelled := c.Labelled
	switch err := profile.Unload(profile.Kernel{}, c.Profile); {
	case errors.Is(err, profile.ErrHeld):
		c.Close()
		return errors.Join(err, state.ErrBusy)
	case err != nil:
		c.Close()
		return err
	}
	if err := c.Remove(); err != nil {
		return err
	}
	if labelled {
		if err := registry.Drain(c.ID); !errors.Is(err, svirt.ErrNotHeld) {
			return err
		}
		return nil
	}
	return registry.Release(c.ID)
}
