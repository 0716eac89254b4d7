// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/strictjson"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
)

// errUnenforceable is the reason of a refusal of what the host cannot enforce.
var errUnenforceable = errors.New("the host cannot enforce it")

// asked is one value that was asked for, and of whom; the zero value is none.
type asked struct {
	Value, By string
}

// demand is what was asked for one container, by all who were asked together.
//
// Engines take a label or a profile that the host cannot enforce out of the
// configuration, and say nothing. What was asked for is still written where the
// engine keeps what it was told: in annotations, or in its own record.
//
// Whoever builds an image can write annotations: engines copy those of the image
// into the configuration. So an annotation can only tighten. It names a policy,
// which is met with the host's, and a level, which the registry gives to one
// container only. It cannot take a demand of another source away, ask for no label,
// or choose a type.
type demand struct {
	// Request names the built-in policy that was asked for.
	Request asked
	// Process and Mount are the labels that the engine put into the configuration;
	// zero for none.
	Process, Mount selinux.Context
	// Type, User and Role were asked for in addition.
	User, Role, Type asked
	// Level is a level in canonical form, with categories. ByEngine is one that the
	// engine or its user chose, and not an annotation alone.
	Level    asked
	ByEngine bool
	// AppArmor is the name of a profile.
	AppArmor asked
}

// A conflictError is two sources that ask for different things, neither of which is
// the tighter one by definition.
type conflictError struct {
	// What is "SELinux level", for example.
	What          string
	First, Second asked
}

func (e *conflictError) Error() string {
	return fmt.Sprintf("%s: %s asks for %q, %s for %q", e.What, e.First.By, e.First.Value, e.Second.By, e.Second.Value)
}

// put adds what another source asks for.
func (a *asked) put(what string, b asked) error {
	switch {
	case b.Value == "" || a.Value == b.Value:
		return nil
	case a.Value == "":
		*a = b
		return nil
	}
	return &conflictError{What: what, First: *a, Second: b}
}

// Annotations in which Podman keeps its --security-opt.
//
// Source: podman libpod/define/annotations.go.
const (
	podmanLabel    = "io.podman.annotations.label"
	podmanAppArmor = "io.podman.annotations.apparmor"
)

// byConfiguration is the source that stands in the configuration itself.
const byConfiguration = "the configuration"

// readDemand finds what was asked for the container id with the configuration s:
// in the process, in our annotations, in Podman's, and in Docker's own record of
// the container, which is looked for beside the root and the sources of mounts. All
// of them are read, and all have to agree; a source that cannot be read, or an
// unknown annotation of this project, is an error.
func readDemand(s *specs.Spec, id string) (demand, error) {
	options, err := dockerOptions(s, id)
	if err != nil {
		return demand{}, err
	}
	return demandOf(s, options)
}

// demandOf combines a configuration and Docker's --security-opt.
func demandOf(s *specs.Spec, options []string) (demand, error) {
	var d demand
	if err := d.configuration(s); err != nil {
		return demand{}, err
	}
	if err := checkKeys(s.Annotations); err != nil {
		return demand{}, err
	}
	d.Request = asked{Value: s.Annotations[annotationRequest], By: "annotation " + annotationRequest}
	// Docker's record first: what it says is the engine's word.
	const docker = "docker --security-opt"
	for _, o := range options {
		// Before version 1.11 the two were separated by a colon.
		i := strings.IndexAny(o, "=:")
		if i < 0 {
			continue
		}
		var err error
		switch name, value := o[:i], o[i+1:]; name {
		case "label":
			err = d.part(value, docker, true)
		case "apparmor":
			err = d.profile(asked{Value: value, By: docker})
		}
		if err != nil {
			return demand{}, err
		}
	}
	const podman = "podman --security-opt"
	if v := s.Annotations[podmanLabel]; v != "" {
		for part := range strings.SplitSeq(v, ",label=") {
			if err := d.part(part, podman, false); err != nil {
				return demand{}, err
			}
		}
	}
	if err := d.profile(asked{Value: s.Annotations[podmanAppArmor], By: podman}); err != nil {
		return demand{}, err
	}
	if v := s.Annotations[annotationSELinux]; v != "" {
		for part := range strings.SplitSeq(v, ";") {
			by := "annotation " + annotationSELinux
			if noLabel(part) {
				return demand{}, fmt.Errorf("%s asks for no label (%q): an annotation can only tighten", by, part)
			}
			if err := d.part(part, by, false); err != nil {
				return demand{}, err
			}
		}
	}
	return d, nil
}

// checkKeys refuses annotations of this project that it does not have.
func checkKeys(annotations map[string]string) error {
	known := []string{annotationID, annotationRequest, annotationSELinux}
	var unknown []string
	for key := range annotations {
		if len(key) >= len(annotationPrefix) && strings.EqualFold(key[:len(annotationPrefix)], annotationPrefix) && !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	key := slices.Min(unknown)
	if near := strictjson.Nearest(key, known); near != "" {
		return fmt.Errorf("unknown annotation %q, did you mean %q?", key, near)
	}
	return fmt.Errorf("unknown annotation %q", key)
}

// configuration takes what the engine put into the configuration.
func (d *demand) configuration(s *specs.Spec) error {
	parse := func(what, text string) (ctx selinux.Context, err error) {
		if text == "" {
			return ctx, nil
		}
		if ctx, err = selinux.ParseContext(text); err != nil {
			return ctx, fmt.Errorf("%s of the engine: %w", what, err)
		}
		if _, one := ctx.Range.Single(); !one {
			return ctx, fmt.Errorf("%s of the engine: %w", what, &RangeError{ctx.Range})
		}
		return ctx, nil
	}
	var err error
	if s.Linux != nil {
		if d.Mount, err = parse("mount label", s.Linux.MountLabel); err != nil {
			return err
		}
	}
	if s.Process == nil {
		return nil
	}
	if d.Process, err = parse("process label", s.Process.SelinuxLabel); err != nil {
		return err
	}
	if d.Process != (selinux.Context{}) {
		d.User, d.Role, d.Type = asked{d.Process.User, byConfiguration}, asked{d.Process.Role, byConfiguration}, asked{d.Process.Type, byConfiguration}
		d.Level, d.ByEngine = asked{levelOf(d.Process), byConfiguration}, true
	}
	return d.profile(asked{Value: s.Process.ApparmorProfile, By: byConfiguration})
}

// levelOf is the level of a context, in canonical form; empty for one without
// categories, which keeps no container apart.
func levelOf(ctx selinux.Context) string {
	if ctx.Range.High.Categories.IsEmpty() {
		return ""
	}
	return ctx.Range.High.String()
}

// A RangeError is a range of two levels. A process with it can read up to the high
// one, and what it makes has the low one: it is apart from no other container. The
// registry gives out single levels.
type RangeError struct {
	Range selinux.Range
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("range %s has two levels, which keeps no containers apart: ask for %s", e.Range, e.Range.High)
}

// noLabel reports whether a part asks an engine for no label.
func noLabel(part string) bool { return part == "disable" || part == "nested" }

// part adds one part of a label, "level:s0:c1,c2". Asking for no label asks for
// nothing, and takes nothing away that another source asks for. Of a source that
// is not the engine's own word a level counts alone.
func (d *demand) part(part, by string, own bool) error {
	if noLabel(part) {
		return nil
	}
	name, value, ok := strings.Cut(part, ":")
	if !ok || value == "" {
		return fmt.Errorf("%s: label %q: want NAME:VALUE", by, part)
	}
	var to *asked
	switch name {
	case "level":
		r, err := selinux.ParseRange(value)
		if err != nil {
			return fmt.Errorf("level asked for by %s: %w", by, err)
		}
		l, one := r.Single()
		if !one {
			return fmt.Errorf("level asked for by %s: %w", by, &RangeError{r})
		}
		if l.Categories.IsEmpty() {
			return nil // less than any level that the registry gives
		}
		d.ByEngine = d.ByEngine || own
		return d.Level.put("SELinux level", asked{l.String(), by})
	case "user":
		to = &d.User
	case "role":
		to = &d.Role
	case "type":
		to = &d.Type
	case "filetype":
		return nil // not about the process
	default:
		return fmt.Errorf("%s: unknown part %q of a label", by, name)
	}
	if !own && to.Value == "" {
		// Not known to be tighter than what the container gets without it.
		*to = asked{Value: value, By: by + notOwn}
		return nil
	}
	return to.put("SELinux "+name, asked{value, by})
}

// notOwn marks a choice by someone who may only confirm it.
const notOwn = " (an annotation)"

func (d *demand) profile(a asked) error {
	if a.Value == "unconfined" {
		return nil // tighter is whatever another source asks for
	}
	return d.AppArmor.put("AppArmor profile", a)
}

// maxRecord bounds Docker's record of a container in bytes.
const maxRecord = 1 << 20

// dockerOptions are the --security-opt of a container of Docker, from the folders
// in which its daemon may keep the container: where the container's /etc/hosts and
// the like are mounted from, and beside the folders of its root. Of several records
// each counts.
func dockerOptions(s *specs.Spec, id string) ([]string, error) {
	var dirs []string
	for _, m := range s.Mounts {
		if dir := filepath.Dir(m.Source); filepath.Base(dir) == id && filepath.Base(filepath.Dir(dir)) == "containers" {
			dirs = append(dirs, dir)
		}
	}
	if s.Root != nil && filepath.IsAbs(s.Root.Path) && id == filepath.Base(id) {
		for dir := filepath.Dir(s.Root.Path); dir != "/"; dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(dir, "containers", id))
		}
	}
	slices.Sort(dirs)
	var out []string
	for _, dir := range slices.Compact(dirs) {
		name := filepath.Join(dir, "hostconfig.json")
		raw, err := readRecord(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("what was asked for: %w", err)
		}
		options, err := decodeDocker(raw)
		if err != nil {
			return nil, fmt.Errorf("what was asked for: %s: %w", name, err)
		}
		out = append(out, options...)
	}
	return out, nil
}

// decodeDocker reads hostconfig.json.
func decodeDocker(raw []byte) ([]string, error) {
	var record struct{ SecurityOpt []string }
	if err := strictjson.Unmarshal(raw, &record, strictjson.AllowUnknown); err != nil {
		return nil, err
	}
	return record.SecurityOpt, nil
}

// readRecord reads a file of an engine, and refuses links and what is no file.
func readRecord(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%s has more than %d bytes", name, maxRecord)
	}
	return b, err
}

// demandHost is what of the host decides whether a demand can be met.
type demandHost struct {
	SELinux bool
	// ProcessContext is what the host's policy gives containers; zero without SELinux.
	ProcessContext selinux.Context
	AppArmor       bool
	// Loaded reports whether a profile is in the kernel and enforced.
	Loaded func(profile string) bool
	// EngineDefault reports whether engines give a profile to each container: a
	// profile of the container's own may take its place.
	EngineDefault func(profile string) bool
}

// Check refuses what the host cannot enforce. The error wraps [errUnenforceable].
func (d demand) Check(h demandHost) error {
	if a := d.label(); a.Value != "" && !h.SELinux {
		return fmt.Errorf("SELinux label %q, asked for by %s: SELinux is off: %w", a.Value, a.By, errUnenforceable)
	}
	if d.Mount != (selinux.Context{}) && !h.SELinux {
		return fmt.Errorf("SELinux label %q of mounts, asked for by %s: SELinux is off: %w", d.Mount, byConfiguration, errUnenforceable)
	}
	a := d.AppArmor
	switch {
	case a.Value == "":
		return nil
	case !h.AppArmor:
		return fmt.Errorf("AppArmor profile %q, asked for by %s: AppArmor is off: %w", a.Value, a.By, errUnenforceable)
	case h.EngineDefault != nil && h.EngineDefault(a.Value):
		return nil
	case h.Loaded == nil || !h.Loaded(a.Value):
		return fmt.Errorf("AppArmor profile %q, asked for by %s, is not loaded and enforced: %w", a.Value, a.By, errUnenforceable)
	}
	return nil
}

// label is what was asked for of SELinux, and of whom, for errors.
func (d demand) label() asked {
	if d.Process != (selinux.Context{}) {
		return asked{d.Process.String(), byConfiguration}
	}
	var parts []string
	by := ""
	for _, p := range []struct {
		name string
		asked
	}{{"user", d.User}, {"role", d.Role}, {"type", d.Type}, {"level", d.Level}} {
		if p.Value != "" {
			parts = append(parts, p.name+":"+p.Value)
			by = strings.TrimSuffix(p.By, notOwn)
		}
	}
	return asked{strings.Join(parts, " "), by}
}

// Context is the label that was asked for on a host with SELinux, where the engine
// has not put it into the configuration; its level is that of h when none was asked
// for. given is false when the container gets what the host gives any container. The
// error is for a user, role or type that an annotation may not choose.
func (d demand) Context(h demandHost) (ctx selinux.Context, given bool, err error) {
	if !h.SELinux || d.Process != (selinux.Context{}) {
		return ctx, false, nil
	}
	ctx = h.ProcessContext
	for _, p := range []struct {
		name string
		to   *string
		asked
	}{{"user", &ctx.User, d.User}, {"role", &ctx.Role, d.Role}, {"type", &ctx.Type, d.Type}} {
		if by, annotation := strings.CutSuffix(p.By, notOwn); annotation && p.Value != *p.to {
			return ctx, false, fmt.Errorf("SELinux %s %q, asked for by %s: an annotation can only tighten, and this host gives containers %q", p.name, p.Value, by, *p.to)
		}
		if p.Value != "" {
			*p.to, given = p.Value, true
		}
	}
	if d.Level.Value != "" {
		l, err := selinux.ParseLevel(d.Level.Value)
		if err != nil {
			return ctx, false, err
		}
		ctx, given = ctx.WithLevel(l), true
	}
	return ctx, given, nil
}

// Claim is the level to reserve, in canonical form: the one that was asked for, or
// that of the root, which the engine has labelled for a container that it would run
// without a label. Empty asks for a level of the registry's choice.
func (d demand) Claim() string {
	if d.Level.Value != "" || d.Process != (selinux.Context{}) {
		return d.Level.Value
	}
	return levelOf(d.Mount)
}

// mayBorrow reports whether the level to reserve may be one that another container
// holds. The containers of a pod have one label, which the first holds, and engines
// give one to all roots of containers that are to have none. A level that only an
// annotation names is for one container: an image would choose whose files it reads.
func (d demand) mayBorrow(s *specs.Spec) bool {
	fromRoot := d.Level.Value == "" && d.Claim() != ""
	return fromRoot || d.ByEngine && joins(s)
}

// sharesSandbox reports whether a container has a namespace of another, or none of
// its own of those that all containers of a pod share.
func sharesSandbox(s *specs.Spec) bool {
	if s.Linux == nil {
		return false
	}
	shares, own := false, false
	for _, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.IPCNamespace, specs.NetworkNamespace:
			shares, own = shares || n.Path != "", own || n.Path == ""
		case specs.PIDNamespace, specs.UTSNamespace:
			shares = shares || n.Path != ""
		}
	}
	return shares || !own
}

// Policy is the host's policy, tightened by what the container asks for.
func (d demand) Policy(host policy.Policy) (policy.Policy, error) {
	if d.Request.Value == "" || d.Request.Value == host.Name {
		return host, nil
	}
	asked, err := policy.Builtin(d.Request.Value)
	if err != nil {
		return policy.Policy{}, fmt.Errorf("%s: %w", d.Request.By, err)
	}
	return asked.Meet(host), nil
}
