// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"sync"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/laststep"
)

// handedOver is the last step as open files, nil without one, and the lock that the
// runtime inherits.
type handedOver struct{ program, config, lock *os.File }

func openStep(step *laststep.Config, label string) (s handedOver, program, config hold.Identity, err error) {
	if s.program, err = handover.Program(label); err != nil {
		return s, program, config, err
	}
	if s.config, err = handover.Config(step, label); err == nil {
		config, err = hold.Of(s.config)
	}
	if err == nil {
		program, err = hold.Of(s.program)
	}
	if err != nil {
		s.close()
	}
	return s, program, config, err
}

func (s handedOver) files() []*os.File {
	if s.program == nil {
		return nil
	}
	return []*os.File{s.program, s.config}
}

func (s handedOver) close() {
	for _, f := range []*os.File{s.program, s.config, s.lock} {
		if f != nil {
			f.Close()
		}
	}
}

// handOver opens the last step and records it: as a file for processes that are
// added later, and by identity for the first program that is executed.
func (c *Container) handOver(r Request) error {
	if c.Plan.Step == nil {
		return nil
	}
	step := stepConfig(c.Plan.Step)
	if err := c.SaveStep(step); err != nil {
		return err
	}
	step.Gate, step.Stderr = r.Gate, r.Stderr
	step.Capabilities = kept(c.Asked.Capabilities)
	var err error
	c.step, c.Handed, c.HandedConfig, err = openStep(step, c.Plan.StepLabel)
	return err
}

// kept bounds what a runtime may have left of the sets that a program with file
// capabilities gains from.
func kept(asked effective.Capabilities) *laststep.Capabilities {
	return &laststep.Capabilities{Inheritable: asked.Inheritable, Ambient: asked.Ambient}
}

// StepFiles are the last step and its configuration, for the runtime to pass on as
// the descriptors from Request.StepFD on; none without a last step.
func (c *Container) StepFiles() []*os.File { return c.step.files() }

// stepConfig is the configuration of the last step; nil for none.
func stepConfig(s *bundle.Step) *laststep.Config {
	if s == nil {
		return nil
	}
	// A runtime that has not set it fails to install a filter, and says less.
	c := &laststep.Config{NoNewPrivileges: true, AppArmor: s.AppArmor}
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

// installedBy names the last step in what was asked for.
const installedBy = "palisade-init"

// Ask adds what the last step of a plan puts in force to what a configuration does.
func Ask(p *bundle.Plan, asked effective.State) effective.State {
	if p.Seccomp != nil {
		runtimes := asked.Seccomp.Filters
		asked.Seccomp = effective.Seccomp{
			Mode: effective.SeccompFilter, Filters: p.Seccomp.Count + runtimes, SHA256: p.Seccomp.SHA256, InstalledBy: installedBy,
		}
	}
	if d := p.Landlock; d != nil {
		asked.Landlock = &effective.Landlock{
			ABI: d.ABI, HandledFS: uint64(d.Rules.HandledFS), HandledNet: uint64(d.Rules.HandledNet), Scoped: uint64(d.Rules.Scoped), Missing: d.Missing,
		}
	}
	return asked
}

// Cache is a cache of filters for this program: another build may compile
// differently. Where the program cannot be told from another, nothing is kept.
func Cache(store bundle.Store) bundle.Cache { return bundle.Cache{Store: store, Build: build()} }

// build names the program that runs.
var build = sync.OnceValue(func() string {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", self.Size(), self.ModTime().UnixNano())
})
