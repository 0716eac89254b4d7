// SPDX-License-Identifier: Apache-2.0

// Package launch is the one way into a container.
//
// Whoever starts a container says so in a [Request]. [Host.Prepare] claims the ID,
// reserves the label, gives the profile, compiles the policy and has the engine's
// configuration edited. [Container.Start], [Container.Run] and [Container.Exec] call
// the runtime, hold the container's process before the first instruction of its
// workload, compare what is in force in the kernel with what was asked for, and let
// it go. What cannot be verified is ended, and everything is undone.
package launch

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

// Host is where containers are started.
type Host struct {
	Dir      *state.Dir
	Registry svirt.Authority
	Target   target.Target
	// Cache keeps compiled filters.
	Cache bundle.Cache
	// Require are layers without which no container is started, whether one asks
	// for them or not.
	Require []bundle.Layer
	// Lenient lets a container run of which less is in force than was asked for,
	// after Warn was told.
	Lenient bool
	// Warn is told of what does not keep a container from running.
	Warn func(error)
}

// Request is one container to be made, in the words of every engine.
type Request struct {
	// Record is what is known of the container before anything is decided.
	Record state.Record
	Policy policy.Policy
	// Holder is who holds the label.
	Holder string
	Label  Label
	// Profile is the AppArmor profile that the engine's configuration has, Demanded
	// the one that was asked for by name, with the words for who it was.
	Profile  string
	Demanded Demanded
	// Mounts are the destinations of all mounts, ReadOnly those of what is mounted
	// from the host for reading only and below which nothing is mounted.
	Mounts, ReadOnly []string
	// Joins is a process whose PID namespace the container joins, or 0.
	Joins int
	// Compile is what else the compiler of the policy wants to know.
	Compile bundle.Request
	// StepFD is the descriptor under which the last step is handed over. Gate and
	// Stderr are for it; see [laststep.Config].
	StepFD       int
	Gate, Stderr bool
}

// Label says which label a container is to have.
type Label struct {
	// Context is the whole context that was asked for; zero for the one of the
	// host's policy. Level asks for one level in particular; empty draws a private
	// pair.
	Context selinux.Context
	Level   string
	// Group names containers that hold one label together; empty for none.
	Group string
	// Content are folders that carry the label whether the container runs or not.
	Content []string
	// Borrowed allows a level that another container holds: the containers of a pod
	// share one, and engines give one to all roots of containers without a label.
	Borrowed bool
}

// Demanded is a layer that was asked for by name, which the host must enforce.
type Demanded struct {
	SELinux, AppArmor string
	// By is who asked: "annotation …", "docker --security-opt".
	By string
}

// Container is one container on its way in.
type Container struct {
	*state.Container
	Plan *bundle.Plan
	host *Host
	step handedOver
}

// Edit writes the configuration that the runtime is to have, in the container's
// folder, and returns what is to be in force in it.
type Edit func(c *state.Container, p *bundle.Plan) (effective.State, error)

// Prepare takes a container up to the point where its runtime can be called. With
// an error nothing is left behind. The error wraps [state.ErrExists],
// [state.ErrName], [svirt.ErrInUse] or [bundle.ErrMissing] among others.
func (h *Host) Prepare(r Request, edit Edit) (*Container, error) {
	if err := h.demanded(r.Demanded); err != nil {
		return nil, err
	}
	c, err := h.claim(r)
	if err != nil {
		return nil, err
	}
	if err := c.prepare(r, edit); err != nil {
		return nil, c.Undo(err)
	}
	return c, nil
}

// Undo takes back all that was prepared, because of err, which it returns with what
// could not be taken back.
func (c *Container) Undo(err error) error {
	c.step.close()
	return errors.Join(err, gc.Forget(c.host.Registry, c.Container))
}

// Close gives back what is held for the container, and leaves it where it is.
func (c *Container) Close() {
	c.step.close()
	c.Container.Close()
}

// claim takes the ID, from a dead container if need be.
func (h *Host) claim(r Request) (*Container, error) {
	rec := r.Record
	rec.Policy, rec.Created, rec.EngineProfile = state.PolicyOf(r.Policy), time.Now().UTC(), r.Profile
	c, err := h.Dir.Create(rec)
	if errors.Is(err, state.ErrExists) && !errors.Is(err, state.ErrDamaged) {
		key, kerr := h.Dir.KeyOf(rec.Runtime.Root, rec.ID)
		if kerr == nil {
			kerr = gc.CollectOne(h.Dir, h.Registry, key)
		}
		if errors.Is(kerr, state.ErrBusy) {
			return nil, err // it runs: the name is taken, and there is nothing more to say
		}
		if kerr != nil && !errors.Is(kerr, state.ErrNotFound) {
			return nil, errors.Join(err, kerr)
		}
		c, err = h.Dir.Create(rec)
	}
	if err != nil {
		return nil, err
	}
	return &Container{Container: c, host: h}, nil
}

func (c *Container) prepare(r Request, edit Edit) error {
	h := c.host
	level, group, err := c.reserve(r)
	if err != nil {
		return err
	}
	c.Level = level
	if err := c.Save(); err != nil { // the level is the container's from here on
		return err
	}
	req := r.Compile
	req.ID, req.Level, req.Shared, req.Require, req.Cache, req.EngineProfile = c.Key, level, group, h.Require, h.Cache, r.Profile
	switch wanted, err := handover.Wanted(); {
	case err != nil:
		return err
	case wanted:
		req.Init = handover.Path(r.StepFD)
	}
	if err := c.giveProfile(r, &req); err != nil {
		return err
	}
	if c.Plan, err = bundle.Resolve(h.Target, r.Policy, req); err != nil {
		return err
	}
	if r.Label.Context.Type != "" && c.Plan.ProcessLabel != "" {
		l, err := selinux.ParseLevel(level)
		if err != nil {
			return err
		}
		c.Plan.ProcessLabel = r.Label.Context.WithLevel(l).String()
	}
	asked, err := edit(c.Container, c.Plan)
	if err != nil {
		return err
	}
	c.Asked = &asked
	if err := c.handOver(r); err != nil {
		return err
	}
	return c.Save()
}

// reserve takes the label that the engine or the policy asks for, or draws one. The group is the
// one that holds it together, if any. A label that is not the policy's is refused when
// the policy is compiled.
func (c *Container) reserve(r Request) (level, group string, err error) {
	want, err := r.Policy.Label.Claim()
	if err != nil {
		return "", "", err
	}
	claim := svirt.Claim{
		ID: c.Key, Holder: r.Holder, Bundle: c.Bundle.Path, Bound: true,
		Level: cmp.Or(r.Label.Level, want.Level), Sensitivity: want.Sensitivity, Content: r.Label.Content,
	}
	if group := cmp.Or(r.Label.Group, want.Shared); group != "" {
		shared := claim
		shared.Shared = group
		if rec, err := c.host.Registry.Reserve(shared); !errors.Is(err, svirt.ErrInUse) {
			return rec.Level, group, err
		}
		// A container of a group may be given a label of its own.
	}
	rec, err := c.host.Registry.Reserve(claim)
	if errors.Is(err, svirt.ErrInUse) && claim.Level != "" && r.Label.Borrowed {
		return claim.Level, "", nil
	}
	return rec.Level, "", err
}

// demanded refuses what was asked for by name and the host does not enforce.
func (h *Host) demanded(d Demanded) error {
	if d.SELinux != "" {
		switch {
		case h.Target.SELinux.On() != target.Yes:
			return fmt.Errorf("SELinux label %q, asked for by %s: SELinux is off: %w", d.SELinux, d.By, bundle.ErrMissing)
		case h.Target.SELinux.Enforces() != target.Yes:
			return fmt.Errorf("SELinux label %q, asked for by %s: SELinux is permissive: %w", d.SELinux, d.By, bundle.ErrMissing)
		}
	}
	if d.AppArmor == "" || d.AppArmor == unconfined {
		return nil
	}
	if err := bundle.CheckProfile(h.Target, d.AppArmor); err != nil {
		return fmt.Errorf("asked for by %s: %w", d.By, err)
	}
	return nil
}

const unconfined = "unconfined"

// giveProfile gives the container an AppArmor profile of its own, unless its engine
// has chosen one: what engines give to every container is no choice, and is
// replaced where ours is proven to be at least as tight.
func (c *Container) giveProfile(r Request, req *bundle.Request) error {
	h := c.host
	if h.Target.AppArmor.On() != target.Yes || r.Policy.AppArmor.Profile == "" {
		return nil
	}
	var kernel profile.Kernel
	shape := profile.ShapeOf(kernel, r.Policy, r.Mounts)
	switch engine := r.Profile; {
	case engine == "", engine == unconfined:
	case engine == profile.Name(h.Dir, c.Key):
		req.Replaces = engine // a configuration of ours
	case !profile.EngineDefault(engine):
		return nil
	default:
		tight, covered, why, err := profile.Covering(kernel, shape, engine, h.Dir)
		if err != nil || !covered {
			h.warn(errors.Join(fmt.Errorf("profile %s of the engine stays: %s", engine, why), err))
			return nil
		}
		req.Replaces, shape = engine, tight
	}
	if r.Joins > 0 {
		if name, ours := profile.Joined(kernel, h.Dir, r.Joins); ours {
			req.Profile = name
			h.loaded(name)
			return nil
		}
	}
	name, err := profile.Give(kernel, h.Dir, c.Container, shape, r.ReadOnly)
	if errors.Is(err, profile.ErrDenied) {
		h.warn(err)
		err = nil
	}
	if req.Profile = name; name == "" {
		req.Replaces = ""
		return err
	}
	h.loaded(name)
	return err
}

// loaded notes that a profile enforces that was loaded after the host was read.
func (h *Host) loaded(name string) {
	h.Target.AppArmor = h.Target.AppArmor.With(name, "enforce")
}

func (h *Host) warn(err error) {
	if h.Warn != nil {
		h.Warn(err)
	}
}

// verify compares a process that has not yet run with what was asked for.
// step reports whether it has come from the last step that was handed over.
func (h *Host) verify(pid int, asked effective.State, step bool) error {
	found, err := effective.ReadWith(pid, asked, effective.Options{Stopped: true, Witness: effective.Witness{StepReached: step}})
	if err != nil {
		return fmt.Errorf("verify what is in force: %w", err)
	}
	if err = effective.Check(asked, found); err == nil {
		return nil
	}
	err = fmt.Errorf("killed: %w", err)
	if h.Lenient {
		h.warn(err)
		return nil
	}
	return err
}
