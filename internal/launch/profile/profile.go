// SPDX-License-Identifier: Apache-2.0

// Package profile gives each container an AppArmor profile of its own: what the
// policy allows, for one container by name. Its processes can signal and trace
// each other and no other container's, which one profile for all cannot say.
//
// The name follows from the state directory and the container's ID, and stands
// in the container's record before the kernel knows it; so whoever cleans up
// behind a killed process finds the profile by the record, and a profile without
// a record by its name. A profile goes only when no task has it: the kernel sets
// the tasks of a removed profile free.
package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
)

// Kernel is AppArmor's interface of the running kernel, which the zero value is.
type Kernel = securityfs.FS

// ErrDenied says that this process may not load profiles.
var ErrDenied = securityfs.ErrDenied

const prefix = "palisade-"

// Name is the name of the profile of a container. Containers of other state
// directories than the default one have a mark of their directory in it.
func Name(dir *state.Dir, key string) string { return prefix + key + mark(dir) }

// mark begins with a character that no key has.
func mark(dir *state.Dir) string {
	if dir.Path() == state.DefaultDir {
		return ""
	}
	sum := sha256.Sum256([]byte(filepath.Clean(dir.Path())))
	return "@" + hex.EncodeToString(sum[:4])
}

// Ours reports whether a profile of this name is of a container of any state
// directory.
func Ours(name string) bool { return strings.HasPrefix(name, prefix) }

// keyOf is the key of the container that a profile of this name belongs to, if it is
// one of the state directory.
func keyOf(dir *state.Dir, name string) (key string, ok bool) {
	key, ok = strings.CutPrefix(name, prefix)
	if !ok {
		return "", false
	}
	if key, ok = strings.CutSuffix(key, mark(dir)); !ok || !state.ValidKey(key) {
		return "", false
	}
	return key, true
}

// EngineDefault tells whether an engine gives this profile to every container
// that asks for none. Ours takes its place.
func EngineDefault(name string) bool {
	switch name {
	case apparmor.DockerDefaultName, "cri-containerd.apparmor.d", "nerdctl-default":
		return true
	}
	// Podman and CRI-O add their version, BuildKit uses Docker's.
	return strings.HasPrefix(name, "containers-default-") || name == "crio-default"
}

// builder makes profiles of containers of one shape for one kernel from one
// template, which is compiled once. Not safe for concurrent use.
type builder struct{ template *compile.Template }

// Shape is what the profile of a container follows from, its name aside.
type Shape struct {
	Policy policy.Policy
	// Senders are profiles whose processes may send signals into the container,
	// besides the OCI runtimes' and those that nothing confines.
	Senders []string
	// Blind keeps processes of the container from looking at each other.
	Blind bool
}

// ShapeOf is the shape of a container with mounts at these destinations: what is
// mounted on purpose on or below a path that the policy masks or makes read-only
// is not denied. An engine that a profile confines can end its containers.
func ShapeOf(kernel Kernel, p policy.Policy, mounts []string) Shape {
	s := Shape{Policy: p.Clone()}
	s.Policy.MaskedPaths = Unmounted(p.MaskedPaths, mounts)
	s.Policy.ReadOnlyPaths = Unmounted(p.ReadOnlyPaths, mounts)
	if l, err := kernel.LabelOf(0); err == nil && !l.Unconfined() {
		s.Senders = append(s.Senders, l.String())
	}
	return s
}

// Unmounted leaves out the paths on or below which something is mounted.
func Unmounted(paths, mounts []string) []string {
	out := []string{}
	for _, p := range paths {
		p := path.Clean(p)
		if !slices.ContainsFunc(mounts, func(m string) bool {
			m = path.Clean(m)
			return m == p || strings.HasPrefix(m, strings.TrimSuffix(p, "/")+"/")
		}) {
			out = append(out, p)
		}
	}
	return out
}

// Text is the profile as text, under a name.
func (s Shape) Text(name string) []byte {
	p := s.Policy
	c := apparmor.ContainerProfile{
		Name: name, Capabilities: []string{}, NoTrace: p.Process.Ptrace == "none", Blind: s.Blind,
		Senders: append([]string{"runc", "crun"}, s.Senders...),
		Hidden:  p.MaskedPaths, ReadOnly: p.ReadOnlyPaths,
	}
	for _, n := range p.Capabilities.Names() {
		c.Capabilities = append(c.Capabilities, strings.ToLower(strings.TrimPrefix(n, "CAP_")))
	}
	if p.Network != nil {
		c.Families = append([]string{}, p.Network.Families...)
	}
	return c.Text()
}

// newBuilder compiles the template.
func newBuilder(s Shape, kernel *apparmor.Features) (*builder, error) {
	const name = "palisade-template"
	t, err := template(s.Text(name), name, kernel)
	if err != nil {
		return nil, fmt.Errorf("AppArmor profile of policy %s: %w", s.Policy.Name, err)
	}
	return &builder{t}, nil
}

func template(text []byte, name string, kernel *apparmor.Features) (*compile.Template, error) {
	resolved, err := resolve(text, name, kernel)
	if err != nil {
		return nil, err
	}
	return compile.New(compile.Options{Kernel: kernel}).Template(resolved, name)
}

func resolve(text []byte, name string, kernel *apparmor.Features) (*apparmor.Policy, error) {
	file, diags := apparmor.Parse(name, text)
	if err := diags.Err(); err != nil {
		return nil, err
	}
	resolved, diags := apparmor.Resolve(file, apparmor.Env{Kernel: kernel, ABI: kernel, SkipExecCheck: true})
	return resolved, diags.Err()
}

// Build makes one container's profile. readOnly are paths that this container
// does not write to, beside those of its policy.
func (b *builder) Build(name string, readOnly []string) ([]byte, error) {
	var extra []*apparmor.ResolvedRule
	for _, p := range readOnly {
		extra = append(extra, &apparmor.ResolvedRule{
			Mode: apparmor.ModeDeny, Audit: apparmor.AuditQuiet,
			Body: &apparmor.FileBody{Path: apparmor.Below(p), Perms: apparmor.MayWrite | apparmor.MayAppend | apparmor.MayLink},
		})
	}
	p, err := b.template.Specialise(name, extra...)
	if err != nil {
		return nil, fmt.Errorf("AppArmor profile %s: %w", name, err)
	}
	return blob.Encode(p.Blob)
}

// Load gives the kernel the profile of a container. Its name has to be in the
// container's record before.
func Load(kernel Kernel, s Shape, name string, readOnly []string) error {
	features, err := kernel.Features()
	if err != nil {
		return err
	}
	b, err := newBuilder(s, features)
	if err != nil {
		return err
	}
	data, err := b.Build(name, slices.Compact(slices.Sorted(slices.Values(readOnly))))
	if err != nil {
		return err
	}
	return kernel.Replace(data)
}

// Give loads the profile of a container, after its name was written into the
// container's record, and returns the name: none where AppArmor is off. The error
// wraps [ErrDenied] where this process may not load profiles; then the
// record has no name, and the container can go on without.
func Give(kernel Kernel, dir *state.Dir, c *state.Container, s Shape, readOnly []string) (string, error) {
	if kernel.Available() != nil {
		return "", nil
	}
	c.Profile = Name(dir, c.Key)
	if err := c.Save(); err != nil {
		return "", err
	}
	err := Load(kernel, s, c.Profile, readOnly)
	if errors.Is(err, securityfs.ErrDenied) {
		c.Profile = ""
		err = errors.Join(err, c.Save())
	}
	if err != nil {
		return "", fmt.Errorf("AppArmor profile of %s: %w", c.ID, err)
	}
	return c.Profile, nil
}

// Joined is the profile of the container whose process this is, when it is one
// of the state directory's: who shares a container's processes shares its
// profile, or they could not signal each other.
func Joined(kernel Kernel, dir *state.Dir, pid int) (string, bool) {
	l, err := kernel.LabelOf(pid)
	if err != nil || len(l.Components) != 1 {
		return "", false
	}
	_, ours := keyOf(dir, l.String())
	return l.String(), ours
}

func isLoaded(kernel Kernel, name string) (bool, error) {
	list, err := kernel.Profiles()
	return slices.ContainsFunc(list, func(p securityfs.Profile) bool { return p.Name == name }), err
}

// ErrHeld says that a task still has the profile, or is about to.
var ErrHeld = errors.New("a process still has the profile")

// Unload takes a profile out of the kernel; one that is not there is no error.
// The error wraps [ErrHeld] while a task has the profile. The caller sees to it
// that nothing enters it any more.
func Unload(kernel Kernel, name string) error {
	if name == "" || kernel.Available() != nil {
		return nil
	}
	if loaded, err := isLoaded(kernel, name); err != nil || !loaded {
		return err
	}
	held, err := Holders(kernel, []string{name})
	if err != nil {
		return err
	}
	if pids := held[name]; len(pids) > 0 {
		return fmt.Errorf("AppArmor profile %s: %w: %d", name, ErrHeld, pids[0])
	}
	if err := kernel.Remove(name); err != nil && !errors.Is(err, securityfs.ErrNotLoaded) {
		return err
	}
	return nil
}

// Loaded lists the profiles of containers of the state directory that the kernel
// has, with the keys of their containers.
func Loaded(kernel Kernel, dir *state.Dir) (map[string]string, error) {
	if kernel.Available() != nil {
		return nil, nil
	}
	list, err := kernel.Profiles()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range list {
		if key, ok := keyOf(dir, p.Name); ok {
			out[p.Name] = key
		}
	}
	return out, nil
}
