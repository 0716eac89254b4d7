// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/target"
)

// AnnotationSELinux on a container asks for an SELinux label, where the engine
// has no option for one: parts as in Docker's --security-opt, "level:s0:c1,c2"
// for example.
const AnnotationSELinux = "io.github.palisade-sec.selinux"

// asked is what somebody demanded of an engine for one container by name.
//
// Engines take a label or a profile that the host cannot enforce out of the
// configuration, and say nothing. What was asked for is still written where the
// engine keeps what it was told.
type asked struct {
	// selinux are the parts of a label, "level:s0:c1,c2".
	selinux []string
	// apparmor is the name of a profile.
	apparmor string
	// by is who was asked.
	by string
}

// Annotations in which Podman keeps its --security-opt.
//
// Source: podman libpod/define/annotations.go.
const (
	podmanLabel    = "io.podman.annotations.label"
	podmanAppArmor = "io.podman.annotations.apparmor"
)

// readAsked finds what was asked for a container: in our annotation, in
// Podman's, or in Docker's own record of the container.
func readAsked(s *specs.Spec, id string) (asked, error) {
	var a asked
	if s.Process != nil {
		a.apparmor = s.Process.ApparmorProfile
		a.by = "the configuration"
	}
	if v := s.Annotations[AnnotationSELinux]; v != "" {
		a.selinux, a.by = strings.Split(v, ";"), "annotation "+AnnotationSELinux
		return a, nil
	}
	if v := s.Annotations[podmanLabel]; v != "" {
		a.selinux, a.by = strings.Split(v, ",label="), "podman --security-opt"
	}
	if v := s.Annotations[podmanAppArmor]; v != "" {
		a.apparmor, a.by = v, "podman --security-opt"
	}
	opts, err := dockerOptions(s, id)
	if err != nil {
		return a, err
	}
	for _, o := range opts {
		// Before version 1.11 the two were separated by a colon.
		i := strings.IndexAny(o, "=:")
		if i < 0 {
			continue
		}
		switch name, value := o[:i], o[i+1:]; name {
		case "label":
			a.selinux, a.by = append(a.selinux, value), "docker --security-opt"
		case "apparmor":
			a.apparmor, a.by = value, "docker --security-opt"
		}
	}
	return a, nil
}

// dockerOptions are the --security-opt of a container of Docker, from the folder
// in which its daemon keeps the container. That folder is where the container's
// /etc/hosts and the like are mounted from, or beside the folder of its root.
func dockerOptions(s *specs.Spec, id string) ([]string, error) {
	var dirs []string
	for _, m := range s.Mounts {
		if dir := filepath.Dir(m.Source); filepath.Base(dir) == id && filepath.Base(filepath.Dir(dir)) == "containers" {
			dirs = append(dirs, dir)
		}
	}
	if s.Root != nil && filepath.IsAbs(s.Root.Path) {
		for dir := filepath.Dir(s.Root.Path); dir != "/"; dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(dir, "containers", id))
		}
	}
	for _, dir := range dirs {
		raw, _, err := readFile(filepath.Join(dir, "hostconfig.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("what was asked for: %w", err)
		}
		var c struct{ SecurityOpt []string }
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("what was asked for: %s: %w", dir, err)
		}
		return c.SecurityOpt, nil
	}
	return nil, nil
}

// noLabel are the words with which one asks an engine for no label.
func noLabel(part string) bool { return part == "disable" || part == "nested" }

// check refuses what the host cannot enforce: a label where SELinux is off, one
// that somebody asked for where it only logs, a profile that is not loaded or does
// not enforce. The error wraps [bundle.ErrMissing].
func (a asked) check(h target.Target, s *specs.Spec) error {
	named := strings.Join(slices.DeleteFunc(slices.Clone(a.selinux), noLabel), " ")
	label, by := named, a.by
	if s.Process != nil && s.Process.SelinuxLabel != "" {
		label, by = s.Process.SelinuxLabel, "the configuration"
	}
	if label != "" {
		switch {
		case h.SELinux.On() == target.No:
			return fmt.Errorf("SELinux label %q, asked for by %s: SELinux is off: %w", label, by, bundle.ErrMissing)
		case h.SELinux.On() == target.Unknown:
			return fmt.Errorf("SELinux label %q, asked for by %s: could not tell whether SELinux is on: %w", label, by, bundle.ErrMissing)
		case named != "" && h.SELinux.Enforces() != target.Yes:
			// The label that an engine gives to every container is no choice.
			return fmt.Errorf("SELinux label %q, asked for by %s: SELinux is permissive: %w", named, a.by, bundle.ErrMissing)
		}
	}
	if a.apparmor == "" || a.apparmor == "unconfined" {
		return nil
	}
	if err := bundle.CheckProfile(h, a.apparmor); err != nil {
		return fmt.Errorf("asked for by %s: %w", a.by, err)
	}
	return nil
}

// context is the label that was asked for, where SELinux is on and the engine has
// not put it into the configuration. Its level is empty when none was asked for.
func (a asked) context(h target.Target, s *specs.Spec) (ctx selinux.Context, given bool, err error) {
	if h.SELinux.On() != target.Yes || s.Process == nil || s.Process.SelinuxLabel != "" || slices.ContainsFunc(a.selinux, noLabel) {
		return ctx, false, nil
	}
	if ctx, err = selinux.ParseContext(h.SELinux.ProcessContext); err != nil {
		return ctx, false, fmt.Errorf("process context of the host's policy: %w", err)
	}
	for _, part := range a.selinux {
		name, value, _ := strings.Cut(part, ":")
		switch name {
		case "user":
			ctx.User = value
		case "role":
			ctx.Role = value
		case "type":
			ctx.Type = value
		case "level":
			l, err := selinux.ParseLevel(value)
			if err != nil {
				return ctx, false, fmt.Errorf("level asked for by %s: %w", a.by, err)
			}
			ctx = ctx.WithLevel(l)
		default:
			continue // "filetype", which is not about the process
		}
		given = true
	}
	return ctx, given, nil
}
