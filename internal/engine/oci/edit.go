// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/strictjson"
	"github.com/palisade-sec/palisade/selinux"
)

// Confinement is what [Edit] puts into a configuration: a policy, resolved for
// one container on this host.
type Confinement = bundle.Confinement

// Who filters system calls. With seccompRuntime a configuration that has another
// filter is refused: it has room for one only. With seccompInit the filter stays
// where [filterStaysWithRuntime].
const (
	seccompKeep    = bundle.SeccompKeep
	seccompRuntime = bundle.SeccompRuntime
	seccompInit    = bundle.SeccompInit
)

var (
	errNoProcess = errors.New("OCI configuration has no process")
	errNoRoot    = errors.New("OCI configuration has no root")
	errFilter    = errors.New("OCI configuration has a system call filter, and room for one only")
	errNoFilter  = errors.New("no system call filter for the runtime to install")
	errBundle    = errors.New("bundle is no absolute path")
)

// hookEnv is the environment of hooks that have none of their own.
var hookEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// apply puts c into s.
func apply(s *specs.Spec, c Confinement) error {
	if s.Process == nil {
		return errNoProcess
	}
	if s.Root == nil {
		return errNoRoot
	}
	applyProcess(s.Process, c)
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	s.Linux.MaskedPaths = add(s.Linux.MaskedPaths, c.Policy.MaskedPaths)
	s.Linux.ReadonlyPaths = add(s.Linux.ReadonlyPaths, c.Policy.ReadOnlyPaths)
	if s.Linux.MountLabel == "" {
		s.Linux.MountLabel = c.MountLabel
	}
	switch c.Seccomp {
	case seccompRuntime:
		if c.Filter == nil {
			return errNoFilter
		}
		if s.Linux.Seccomp == nil {
			filter := *c.Filter
			s.Linux.Seccomp = &filter
		} else if same, err := sameJSON(s.Linux.Seccomp, c.Filter); err != nil || !same {
			return errors.Join(errFilter, err)
		}
	case seccompInit:
		if stays, _ := filterStaysWithRuntime(s); !stays {
			s.Linux.Seccomp = nil
		}
	case seccompKeep:
	}
	if c.Policy.ReadOnlyRoot {
		s.Root.Readonly = true
	}
	if s.Hooks != nil {
		for i := range s.Hooks.CreateContainer {
			// Runtimes run it with the environment of the container in the making, which
			// names libraries of the image, unless the hook has one of its own.
			if h := &s.Hooks.CreateContainer[i]; len(h.Env) == 0 {
				h.Env = hookEnv
			}
		}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[annotationID] = c.ID
	return nil
}

// applyProcess puts the part of c that belongs to a process into p, the process
// of a container or of an exec.
func applyProcess(p *specs.Process, c Confinement) {
	p.Capabilities = meetCapabilities(p.Capabilities, c.Policy.Capabilities)
	if !c.Policy.Process.NewPrivileges {
		p.NoNewPrivileges = true
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = c.ProcessLabel
	}
	if c.AppArmorProfile != "" && (p.ApparmorProfile == "" || p.ApparmorProfile == "unconfined" || p.ApparmorProfile == c.Replaces) {
		p.ApparmorProfile = c.AppArmorProfile
	}
	if c.Init != "" && (len(p.Args) == 0 || p.Args[0] != c.Init) {
		p.Args = slices.Concat([]string{c.Init}, p.Args)
	}
	for _, kv := range c.Env {
		if !slices.Contains(p.Env, kv) {
			p.Env = append(slices.Clip(p.Env), kv)
		}
	}
}

// meetCapabilities leaves of each set what the policy allows. Names that are no
// capabilities go too. A configuration without the member gets empty sets:
// runtimes do not agree on what its absence means.
//
// Of the inheritable set only what the ambient set needs is left: with the rest a
// program that has file capabilities gains what its user does not have. The
// ambient set is what the kernel would raise of it: a capability that is
// permitted and inheritable.
//
// Source: capabilities(7), "Transformation of capabilities during execve";
// kernel/cap.c, cap_prctl (PR_CAP_AMBIENT_RAISE).
func meetCapabilities(have *specs.LinuxCapabilities, allowed caps.Set) *specs.LinuxCapabilities {
	if have == nil {
		have = &specs.LinuxCapabilities{}
	}
	keep := func(names []string, allowed caps.Set) []string {
		out := make([]string, 0, len(names))
		for _, name := range names {
			if c, err := caps.Parse(name); err == nil && allowed.Has(c) {
				out = append(out, name)
			}
		}
		return out
	}
	set := func(names []string) caps.Set {
		var s caps.Set
		for _, name := range names {
			if c, err := caps.Parse(name); err == nil {
				s = s.With(c)
			}
		}
		return s
	}
	ambient := keep(have.Ambient, allowed.Intersect(set(have.Permitted)).Intersect(set(have.Inheritable)))
	return &specs.LinuxCapabilities{
		Bounding:    keep(have.Bounding, allowed),
		Effective:   keep(have.Effective, allowed),
		Inheritable: keep(have.Inheritable, set(ambient)),
		Permitted:   keep(have.Permitted, allowed),
		Ambient:     ambient,
	}
}

// sameJSON reports whether two filters say the same; in Go one may have nil where
// the other has an empty list.
func sameJSON(a, b *specs.LinuxSeccomp) (bool, error) {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return bytes.Equal(x, y), errors.Join(err1, err2)
}

// add appends what is not yet in the list, and keeps its order.
func add(list, more []string) []string {
	out := slices.Clone(list)
	for _, s := range more {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// A relativeError is a relative path for which runtimes do not agree on the folder
// that it starts from.
type relativeError struct {
	// Where names the member, "hooks.prestart[0].path".
	Where, Path string
}

func (e *relativeError) Error() string {
	return fmt.Sprintf("%s: relative path %q: want an absolute one", e.Where, e.Path)
}

// rebase makes the paths of s absolute that runtimes take relative to the bundle,
// which is an absolute path: the edited configuration lies elsewhere.
//
//	root.path                       runc, crun and youki: the bundle
//	mounts[].source of a bind       runc: the bundle; crun, youki: the working
//	                                directory, which is the bundle
//	linux.seccomp.listenerPath      runc, youki: the working directory; crun
//	                                wants it absolute
//	annotations run.oci.hooks.stdout, run.oci.hooks.stderr,
//	run.oci.pidfd_receiver          crun: the working directory
//
// Paths that the specification wants absolute, and which runtimes take relative to
// folders of their own when they are not, are refused: namespaces, hooks, and the
// folders of an overlay mount (runc: the container's root, crun: the bundle). So
// is a bind mount without a source, for which runc takes the bundle.
//
// Other paths are inside the container (process.cwd, mounts[].destination,
// devices, masked paths), absolute by a check of the runtime
// (run.oci.seccomp.receiver), or names (cgroupsPath, intelRdt, profiles).
//
// Source: runc 1.1.5 and 1.5.1, libcontainer/specconv/spec_linux.go and
// rootfs_linux.go; crun 1.8.1 and 1.29, src/run.c and src/libcrun; youki 0.7,
// crates/libcontainer.
func rebase(s *specs.Spec, c Confinement, bundle string) error {
	if !filepath.IsAbs(bundle) {
		return fmt.Errorf("%w: %q", errBundle, bundle)
	}
	absolute := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(bundle, *path)
		}
	}
	if s.Root.Path == "" {
		return errNoRoot
	}
	absolute(&s.Root.Path)
	if c.Root != "" {
		s.Root.Path = c.Root
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if bind, _ := isBind(*m); bind {
			if m.Source == "" {
				return fmt.Errorf("mounts[%d]: bind mount at %q has no source", i, m.Destination)
			}
			absolute(&m.Source)
			continue
		}
		for _, dir := range overlayDirs(*m) {
			if !filepath.IsAbs(dir) {
				return &relativeError{Where: fmt.Sprintf("mounts[%d].options", i), Path: dir}
			}
		}
	}
	for _, name := range []string{"run.oci.hooks.stdout", "run.oci.hooks.stderr", "run.oci.pidfd_receiver"} {
		if path := s.Annotations[name]; path != "" {
			absolute(&path)
			s.Annotations[name] = path
		}
	}
	if l := s.Linux; l != nil {
		if l.Seccomp != nil && l.Seccomp.ListenerPath != "" {
			absolute(&l.Seccomp.ListenerPath)
		}
		for i, n := range l.Namespaces {
			if n.Path != "" && !filepath.IsAbs(n.Path) {
				return &relativeError{Where: fmt.Sprintf("linux.namespaces[%d].path", i), Path: n.Path}
			}
		}
	}
	for name, hooks := range hooksOf(s) {
		for i, h := range hooks {
			if !filepath.IsAbs(h.Path) {
				return &relativeError{Where: fmt.Sprintf("hooks.%s[%d].path", name, i), Path: h.Path}
			}
		}
	}
	return nil
}

// overlayDirs are the folders of the host that an overlay mount is made of.
func overlayDirs(m specs.Mount) []string {
	if m.Type != "overlay" {
		return nil
	}
	var out []string
	for _, name := range []string{"lowerdir", "upperdir", "workdir"} {
		for _, v := range optionValues(m, name) {
			for dir := range strings.SplitSeq(v, ":") {
				if dir != "" { // between two colons, in front of a layer of data
					out = append(out, dir)
				}
			}
		}
	}
	return out
}

func hooksOf(s *specs.Spec) map[string][]specs.Hook {
	if s.Hooks == nil {
		return nil
	}
	return map[string][]specs.Hook{
		"prestart":        s.Hooks.Prestart, //nolint:staticcheck // engines still write it
		"createRuntime":   s.Hooks.CreateRuntime,
		"createContainer": s.Hooks.CreateContainer,
		"startContainer":  s.Hooks.StartContainer,
		"poststart":       s.Hooks.Poststart,
		"poststop":        s.Hooks.Poststop,
	}
}

// replacesFilter is an annotation with which crun loads a program in the place of
// the filter that the configuration has.
//
// Source: crun 1.8.1, src/libcrun/container.c, libcrun_container_run_internal.
const replacesFilter = "run.oci.seccomp_bpf_data"

// loadsPlugins is an annotation with which crun loads libraries that answer system
// calls. It waits for ever when they do not.
const loadsPlugins = "run.oci.seccomp.plugins"

// Edit puts c into the text of config.json, which comes from the given folder (an
// absolute path), so that the text can lie in any folder. It returns the edited
// text and what it says.
//
// Confinement is only ever added: the outcome allows what both the engine's
// configuration and the policy allow. What an engine has already decided in a
// layer where a process can have one thing only (an SELinux label, an AppArmor
// profile that is not "unconfined") stays. Everything else, members unknown to
// this version included, stays byte for byte what it was. Editing twice is the
// same as editing once.
//
// The error wraps a [*strictjson.Error] for a text that [decode] refuses, or is a
// [*relativeError].
func Edit(raw []byte, c Confinement, folder string) ([]byte, *specs.Spec, error) {
	before, err := decode(raw)
	if err != nil {
		return nil, nil, err
	}
	s, err := decode(raw)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := s.Annotations[replacesFilter]; ok {
		return nil, nil, fmt.Errorf("annotation %s replaces the container's system call filter: not allowed", replacesFilter)
	}
	if _, ok := s.Annotations[loadsPlugins]; ok {
		return nil, nil, fmt.Errorf("annotation %s loads libraries into the runtime: not allowed", loadsPlugins)
	}
	if err := apply(s, c); err != nil {
		return nil, nil, err
	}
	if err := rebase(s, c, folder); err != nil {
		return nil, nil, err
	}
	e := edits{}
	e.process(before.Process, s.Process, "process")
	e.differ(before.Root.Path, s.Root.Path, "root", "path")
	e.differ(before.Root.Readonly, s.Root.Readonly, "root", "readonly")
	for i := range s.Mounts {
		e.differ(before.Mounts[i].Source, s.Mounts[i].Source, "mounts", strconv.Itoa(i), "source")
	}
	if s.Hooks != nil {
		for i, h := range s.Hooks.CreateContainer {
			e.differ(before.Hooks.CreateContainer[i].Env, h.Env, "hooks", "createContainer", strconv.Itoa(i), "env")
		}
	}
	if before.Linux == nil {
		before.Linux = &specs.Linux{}
	}
	e.differ(before.Linux.MaskedPaths, s.Linux.MaskedPaths, "linux", "maskedPaths")
	e.differ(before.Linux.ReadonlyPaths, s.Linux.ReadonlyPaths, "linux", "readonlyPaths")
	e.differ(before.Linux.MountLabel, s.Linux.MountLabel, "linux", "mountLabel")
	switch had, has := before.Linux.Seccomp, s.Linux.Seccomp; {
	case has == nil && had != nil:
		e.Remove("linux", "seccomp")
	case has != nil && had == nil:
		e.differ(had, has, "linux", "seccomp")
	case has != nil:
		e.differ(had.ListenerPath, has.ListenerPath, "linux", "seccomp", "listenerPath")
	}
	names := make([]string, 0, len(s.Annotations))
	for name := range s.Annotations {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if had, ok := before.Annotations[name]; !ok || had != s.Annotations[name] {
			e.set(s.Annotations[name], "annotations", name)
		}
	}
	out, err := e.apply(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("edit OCI configuration: %w", err)
	}
	return out, s, nil
}

// A processError is an exec that asks for another label or profile than the
// container has.
type processError struct {
	// Layer is "SELinux label" or "AppArmor profile".
	Layer, Asked, Container string
}

func (e *processError) Error() string {
	return fmt.Sprintf("%s %q of the process is not the container's, %q", e.Layer, e.Asked, e.Container)
}

// sameContainer refuses a process with another label or profile than that of its
// container, which c holds. An engine that asks for none, or names its own profile
// that was replaced, gets the container's.
func sameContainer(p *specs.Process, c Confinement) error {
	if p.SelinuxLabel != "" && c.ProcessLabel != "" && p.SelinuxLabel != c.ProcessLabel {
		asked, err := selinux.ParseContext(p.SelinuxLabel)
		if err != nil {
			return fmt.Errorf("SELinux label of the process: %w", err)
		}
		if has, err := selinux.ParseContext(c.ProcessLabel); err != nil || asked != has {
			return errors.Join(&processError{"SELinux label", p.SelinuxLabel, c.ProcessLabel}, err)
		}
	}
	switch p.ApparmorProfile {
	case "", "unconfined", c.Replaces, c.AppArmorProfile:
		return nil
	}
	if c.AppArmorProfile == "" {
		return nil
	}
	return &processError{"AppArmor profile", p.ApparmorProfile, c.AppArmorProfile}
}

// editProcess is [Edit] on the text that an exec is given; c holds the label and
// the profile that the container has. The error is a [*processError] for a process
// that asks for others.
func editProcess(raw []byte, c Confinement) ([]byte, *specs.Process, error) {
	before, err := decodeProcess(raw)
	if err != nil {
		return nil, nil, err
	}
	if err := sameContainer(before, c); err != nil {
		return nil, nil, err
	}
	p := *before
	applyProcess(&p, c)
	e := edits{}
	e.process(before, &p)
	out, err := e.apply(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("edit OCI process: %w", err)
	}
	return out, &p, nil
}

// edits collects changes to a document, and the first error.
type edits struct {
	strictjson.Changes
	err error
}

func (e *edits) set(v any, path ...string) {
	if err := e.Set(v, path...); e.err == nil {
		e.err = err
	}
}

// differ sets a value that is not what it was.
func (e *edits) differ(before, after any, path ...string) {
	if !reflect.DeepEqual(before, after) {
		e.set(after, path...)
	}
}

func (e *edits) process(before, after *specs.Process, path ...string) {
	at := func(name string) []string { return append(slices.Clone(path), name) }
	e.differ(before.Args, after.Args, at("args")...)
	e.differ(before.NoNewPrivileges, after.NoNewPrivileges, at("noNewPrivileges")...)
	e.differ(before.SelinuxLabel, after.SelinuxLabel, at("selinuxLabel")...)
	e.differ(before.ApparmorProfile, after.ApparmorProfile, at("apparmorProfile")...)
	e.differ(before.Env, after.Env, at("env")...)
	had, has := before.Capabilities, after.Capabilities
	if had == nil {
		e.set(has, at("capabilities")...)
		return
	}
	for _, set := range []struct {
		name     string
		had, has []string
	}{
		{"bounding", had.Bounding, has.Bounding},
		{"effective", had.Effective, has.Effective},
		{"inheritable", had.Inheritable, has.Inheritable},
		{"permitted", had.Permitted, has.Permitted},
		{"ambient", had.Ambient, has.Ambient},
	} {
		if !slices.Equal(set.had, set.has) {
			e.set(set.has, append(at("capabilities"), set.name)...)
		}
	}
}

func (e *edits) apply(raw []byte) ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	return e.Apply(raw)
}
