// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/target"
)

// profile gives the container an AppArmor profile of its own, unless its engine
// has chosen one: what engines give to every container is no choice, and is
// replaced where ours is proven to be at least as tight.
func (w *wrapper) profile(h *target.Target, c *state.Container, spec *specsSpec, req *bundle.Request) error {
	if spec.Process != nil {
		c.EngineProfile = spec.Process.ApparmorProfile
		req.EngineProfile = c.EngineProfile
	}
	if h.AppArmor.On() != target.Yes || w.made.AppArmor.Profile == "" {
		return nil
	}
	var kernel profile.Kernel
	var mounts []string
	for _, m := range spec.Mounts {
		mounts = append(mounts, m.Destination)
	}
	shape := profile.ShapeOf(kernel, w.made, mounts)
	switch engine := c.EngineProfile; {
	case engine == "", engine == "unconfined":
	case engine == profile.Name(w.dir, c.Key):
		req.Replaces = engine // this configuration was edited before
	case !profile.EngineDefault(engine):
		return nil
	default:
		tight, covered, why, err := profile.Covering(kernel, shape, engine, w.dir)
		if err != nil || !covered {
			warn(fmt.Errorf("profile %s of the engine stays: %s", engine, why), err)
			return nil
		}
		req.Replaces, shape = engine, tight
	}
	if pid := joinedProcess(spec); pid > 0 {
		if name, ours := profile.Joined(kernel, w.dir, pid); ours {
			req.Profile = name
			return nil
		}
	}
	name, err := profile.Give(kernel, w.dir, c, shape, readOnly(spec))
	if errors.Is(err, profile.ErrDenied) {
		warn(err)
		err = nil
	}
	req.Profile = name
	if name == "" {
		req.Replaces = ""
	} else if err == nil {
		h.AppArmor = h.AppArmor.With(name, "enforce") // the kernel has just taken it
	}
	return err
}

func warn(errs ...error) { fmt.Fprintf(os.Stderr, "palisade-oci: warning: %v\n", errors.Join(errs...)) }

// joinedProcess is the process whose PID namespace a container joins, 0 for none.
func joinedProcess(s *specs.Spec) int {
	if s.Linux == nil {
		return 0
	}
	for _, ns := range s.Linux.Namespaces {
		if rest, ok := strings.CutPrefix(ns.Path, "/proc/"); ok && ns.Type == specs.PIDNamespace {
			number, _, _ := strings.Cut(rest, "/")
			pid, _ := strconv.Atoi(number) // 0 for what is no number
			return pid
		}
	}
	return 0
}

// readOnly are the destinations of what the engine mounts from the host for
// reading only, and below which it mounts nothing.
func readOnly(s *specs.Spec) []string {
	var out []string
	for i, m := range s.Mounts {
		ro, bind := false, m.Type == "bind"
		for _, o := range m.Options {
			ro = ro || o == "ro"
			bind = bind || o == "bind" || o == "rbind"
		}
		var others []string
		for j, o := range s.Mounts {
			if j != i {
				others = append(others, o.Destination)
			}
		}
		if bind && ro && strings.HasPrefix(m.Destination, "/") && m.Destination != "/" {
			out = append(out, profile.Unmounted([]string{m.Destination}, others)...)
		}
	}
	return out
}
