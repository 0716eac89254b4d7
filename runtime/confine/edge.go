// SPDX-License-Identifier: Apache-2.0

// Package confine converts what package bundle decides into what the edges take:
// the configuration of the last step, and what is compared with the kernel.
package confine

import (
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/laststep"
)

// Step is the configuration of the last step; nil for none. Gate and Stderr are
// the caller's to set.
func Step(s *bundle.Step) *laststep.Config {
	if s == nil {
		return nil
	}
	c := &laststep.Config{NoNewPrivileges: s.NoNewPrivileges, AppArmor: s.AppArmor}
	if l := s.Landlock; l != nil {
		c.Landlock = &laststep.Landlock{HandledFS: uint64(l.HandledFS), HandledNet: uint64(l.HandledNet), Scoped: uint64(l.Scoped)}
		for _, r := range l.Paths {
			c.Landlock.Paths = append(c.Landlock.Paths, laststep.PathRule{Access: uint64(r.Access), Path: r.Path})
		}
		for _, r := range l.Ports {
			c.Landlock.Ports = append(c.Landlock.Ports, laststep.PortRule{Access: uint64(r.Access), Port: uint64(r.Port)})
		}
	}
	for _, f := range s.Filters {
		c.Filters = append(c.Filters, laststep.Filter(f))
	}
	return c
}

// installedBy names the last step in what was asked.
const installedBy = "palisade-init"

// Seccomp is what has to be in force of a plan's filters through the last step;
// disabled for none.
func Seccomp(p *bundle.Plan) effective.Seccomp {
	if p.Seccomp == nil {
		return effective.Seccomp{Mode: effective.SeccompDisabled}
	}
	return effective.Seccomp{
		Mode: effective.SeccompFilter, Filters: p.Seccomp.Count, SHA256: p.Seccomp.SHA256, InstalledBy: installedBy,
	}
}

// Landlock is the domain that has to be in force; nil for none.
func Landlock(p *bundle.Plan) *effective.Landlock {
	d := p.Landlock
	if d == nil {
		return nil
	}
	return &effective.Landlock{
		ABI: d.ABI, HandledFS: uint64(d.Rules.HandledFS), HandledNet: uint64(d.Rules.HandledNet), Scoped: uint64(d.Rules.Scoped), Missing: d.Missing,
	}
}

// Ask is what has to be in force in a container with the configuration s, to which
// the plan was applied.
func Ask(p *bundle.Plan, s *specs.Spec) effective.State {
	asked := effective.Asked(s)
	if p.Seccomp != nil {
		runtimes := asked.Seccomp.Filters
		asked.Seccomp = Seccomp(p)
		asked.Seccomp.Filters += runtimes
	}
	asked.Landlock = Landlock(p)
	return asked
}

// Cache is a cache of filters for this program: another build may compile
// differently. Where the program cannot be told from another, nothing is kept.
func Cache(store bundle.Store) bundle.Cache {
	return bundle.Cache{Store: store, Build: build()}
}

// build names the program that runs.
var build = sync.OnceValue(func() string {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", self.Size(), self.ModTime().UnixNano())
})
