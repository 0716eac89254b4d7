// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/target"
)

// bundleFolder is the bundle that the runtime is given, in a container's folder.
const bundleFolder = "bundle"

// given is the path of the bundle that the runtime of a container is given.
func given(dir *state.Dir, key string) string { return filepath.Join(dir.Folder(key), bundleFolder) }

// create makes a container, and with run starts it.
func (w *wrapper) create() (int, error) {
	given, err := w.readBundle()
	if err != nil {
		return 0, err
	}
	if w.passed, err = readPassed(w.call); err != nil {
		return 0, err
	}
	w.facts()
	req, err := w.request(given)
	if err != nil {
		return 0, err
	}
	c, err := w.host.Prepare(req, func(c *state.Container, p *bundle.Plan) (effective.State, error) {
		return w.edit(c, p, given)
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	rt, m, err := w.making(c, given.spec)
	if err != nil {
		return 0, c.Undo(err)
	}
	before := w.log.size()
	if w.call.Role() == roleCreate {
		code, err := c.Create(rt, m)
		w.explain(launch.Outcome{Code: code}, err, before)
		if err == nil && code == 0 {
			w.tellDropped(given.spec.Process.Capabilities, req.Policy)
		}
		return w.exit(code, err)
	}
	key := c.Key
	out, err := c.Run(rt, m)
	w.explain(out, err, before)
	if err == nil && out.PID != 0 {
		w.tellDropped(given.spec.Process.Capabilities, req.Policy)
	}
	if err == nil && !w.call.Bool("detach") {
		// It has ended, and the runtime has deleted it unless it was told to keep it.
		if ferr := w.host.Forget(key); ferr != nil && !errors.Is(ferr, state.ErrBusy) && !errors.Is(ferr, state.ErrNotFound) {
			w.log.warn(ferr)
		}
	}
	return w.exit(out.Code, err)
}

// inBundle is a bundle as its engine has made it.
type inBundle struct {
	bundle state.Bundle
	raw    []byte
	spec   *specs.Spec
	file   string
	root   Root
}

// readBundle reads the configuration that the command line names, once.
func (w *wrapper) readBundle() (*inBundle, error) {
	g := &inBundle{file: w.call.ConfigFile(w.dirs())}
	folder := w.call.bundleDir(w.caller)
	f, raw, err := readFile(g.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bundle %s has no configuration: %w", folder, err)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	g.raw = raw
	if g.bundle, err = state.BundleOf(folder, f, raw); err != nil {
		return nil, err
	}
	if g.spec, err = decode(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", g.file, err)
	}
	if g.spec.Process == nil {
		return nil, fmt.Errorf("%s: no process", g.file)
	}
	if g.spec.Root == nil {
		return nil, fmt.Errorf("%s: %w", g.file, errNoRoot)
	}
	if g.root, err = resolveRoot(folder, g.spec.Root.Path); err != nil {
		return nil, fmt.Errorf("%s: %w", g.file, err)
	}
	return g, w.refuseMounts(g)
}

// refuseMounts refuses what would let the container decide what runs first, or reach
// what is known of it.
func (w *wrapper) refuseMounts(g *inBundle) error {
	// The checks want the paths that the runtime gets.
	_, spec, err := Edit(g.raw, bundle.Confinement{Root: g.root.Path}, g.bundle.Path)
	if err == nil {
		err = CheckMounts(spec)
	}
	if err == nil {
		err = checkProc(spec)
	}
	if err == nil {
		err = checkOwnDev(spec)
	}
	if err == nil {
		err = checkVolumePoints(spec, w.detected)
	}
	if err == nil {
		err = CheckStateReach(spec, w.dir.Path())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", g.file, err)
	}
	return nil
}

// request says what the bundle asks for in the words of every engine.
func (w *wrapper) request(g *inBundle) (launch.Request, error) {
	spec := g.spec
	demand, err := readDemand(spec, w.call.ID)
	if err != nil {
		return launch.Request{}, err
	}
	p, err := policy.Builtin(w.cfg.Policy)
	if err == nil {
		p, err = demand.Policy(p)
	}
	if err != nil {
		return launch.Request{}, err
	}
	r := launch.Request{
		Policy: p, Holder: gc.HolderOCI,
		Record: state.Record{
			ID: w.call.ID, Engine: gc.EngineOCI, Bundle: g.bundle, Command: spec.Process.Args, Runtime: w.realRuntime(),
		},
		Profile: spec.Process.ApparmorProfile, Joins: joinedProcess(spec), ReadOnly: readOnly(spec), StepFD: w.passed.step(),
		Compile: bundle.Request{HostNetwork: hostNetwork(spec), BlockDevices: bundle.BlockDevicesDenied(spec.Linux), Writable: writableVolumes(spec)},
	}
	for _, m := range spec.Mounts {
		r.Mounts = append(r.Mounts, m.Destination)
	}
	if spec.Linux != nil {
		r.Compile.Engine = spec.Linux.Seccomp
	}
	r.Compile.FilterStays, _ = filterStaysWithRuntime(spec)
	return r, w.demands(demand, spec, &r)
}

// demandHost is what the host can enforce.
func (w *wrapper) demandHost() demandHost {
	t := w.host.Target
	return demandHost{
		SELinux: t.SELinux.On() == target.Yes, AppArmor: t.AppArmor.On() == target.Yes,
		Loaded: func(name string) bool { return t.AppArmor.Enforces(name) == target.Yes },
	}
}

// demands refuses what the host cannot enforce, and says which label was asked for.
func (w *wrapper) demands(d demand, spec *specs.Spec, r *launch.Request) error {
	t := w.host.Target
	h := w.demandHost()
	if r.Policy.AppArmor.Profile != "" {
		h.EngineDefault = profile.EngineDefault
	}
	if h.SELinux {
		var err error
		if h.ProcessContext, err = selinux.ParseContext(t.SELinux.ProcessContext); err != nil {
			return fmt.Errorf("process context of the host's policy: %w", err)
		}
	}
	if err := d.Check(h); err != nil {
		return err
	}
	ctx, given, err := d.Context(h)
	if err != nil {
		return err
	}
	if given {
		r.Label.Context = ctx
	}
	if a := d.label(); a.By != byConfiguration {
		// The label that an engine gives to each container is in force as far as the
		// host enforces any; one that a person has asked for has to be.
		r.Demanded = launch.Demanded{SELinux: a.Value, By: a.By}
	}
	r.Label.Level = d.Claim()
	r.Label.Group = w.pod(spec)
	r.Label.Borrowed = d.mayBorrow(spec)
	return nil
}

// Annotations in which Kubernetes' engines name the pod's sandbox, in the sandbox
// itself as in the pod's containers.
//
// Source: containerd pkg/cri/annotations; CRI-O pkg/annotations, libpod/define.
var sandboxAnnotations = []string{"io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"}

// pod is the group of a pod's containers, which hold the pod's label together: it is
// free when the last of them is gone. Empty for a container that is of none.
func (w *wrapper) pod(spec *specs.Spec) string {
	for _, name := range sandboxAnnotations {
		sandbox := spec.Annotations[name]
		if sandbox == "" {
			continue
		}
		if sandbox != w.call.ID {
			// Only of a pod whose sandbox is here, and only a container that shares
			// something with it: an annotation alone may be an image's.
			if _, err := w.dir.Lookup(w.root(), sandbox); err != nil || !sharesSandbox(spec) {
				continue
			}
		}
		return "pod-" + sandbox
	}
	return ""
}

// joins reports whether a container shares a namespace with another: it is of a pod,
// or was told to, and its engine gave it the other's label on purpose.
func joins(spec *specs.Spec) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Path != "" && (n.Type == specs.IPCNamespace || n.Type == specs.PIDNamespace)
	})
}

// Source is the configuration of an engine: its text, and the folder against which
// its relative paths are meant. Root is the real path of the container's root.
type Source struct {
	Raw          []byte
	Folder, Root string
	// Env is added to the environment of the process.
	Env []string
}

// Compose writes the bundle that the runtime gets, in the container's folder: the
// engine's configuration with the plan put into it. It returns what is to be in
// force.
func Compose(c *state.Container, p *bundle.Plan, src Source) (effective.State, error) {
	confinement := p.Confinement
	confinement.Root, confinement.Env = src.Root, src.Env
	edited, spec, err := Edit(src.Raw, confinement, src.Folder)
	if err != nil {
		return effective.State{}, err
	}
	if err := os.Mkdir(c.Path(bundleFolder), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return effective.State{}, err
	}
	c.Config = state.Digest(edited)
	if err := state.WriteFile(c.Path(bundleFolder, "config.json"), edited, 0o600); err != nil {
		return effective.State{}, err
	}
	st := launch.Ask(p, effective.Asked(spec))
	return st, st.AskMounts(spec, src.Folder)
}

// edit writes the runtime's bundle, and gives the root its label where the engine
// knows none.
func (w *wrapper) edit(c *state.Container, p *bundle.Plan, g *inBundle) (effective.State, error) {
	if p.MountLabel != "" && (g.spec.Linux == nil || g.spec.Linux.MountLabel == "") {
		if err := labelRoot(g.root.Path, p.MountLabel); err != nil {
			return effective.State{}, fmt.Errorf("label the root: %w", err)
		}
	}
	st, err := Compose(c, p, Source{Raw: g.raw, Folder: g.bundle.Path, Root: g.root.Path, Env: w.passed.env()})
	if err != nil {
		return st, fmt.Errorf("%s: %w", g.file, err)
	}
	st.FDs = w.passed.total()
	if point := notifyPoint(w.call, os.Getenv("NOTIFY_SOCKET")); point != "" && st.Others != nil {
		st.Others = append(st.Others, point)
	}
	return st, nil
}

// making is the call of the runtime that makes the container from the folder of
// ours, with the last step behind what the caller passes on.
func (w *wrapper) making(c *launch.Container, spec *specs.Spec) (launch.Runtime, launch.Making, error) {
	call := w.call
	call.makeAbsolute(w.dirs())
	m := launch.Making{Process: spec.Process, PIDFile: call.Value("pid-file")}
	// Source: runc 1.2, libcontainer/userns/usernsfd_linux.go. Its container's own
	// processes move to their user namespace after they have begun. Those of crun
	// begin in it.
	m.Mappers = call.Grammar.Runtime == "runc" && slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
	})
	if h := spec.Hooks; h != nil {
		m.Hooks, m.EarlyHooks = len(h.StartContainer) > 0, len(h.CreateContainer) > 0
	}
	errs := []error{call.Set("bundle", c.Path(bundleFolder))}
	call.Delete("config")
	if m.PIDFile == "" {
		m.PIDFile = c.Path("pid")
		errs = append(errs, call.Set("pid-file", m.PIDFile))
	}
	step := c.StepFiles()
	errs = append(errs, call.Set("preserve-fds", strconv.Itoa(w.passed.total()+len(step))))
	return w.launchRuntime(step), m, errors.Join(errs...)
}

// launchRuntime is the runtime with the rebuilt command line.
func (w *wrapper) launchRuntime(step []*os.File) launch.Runtime {
	return launch.Runtime{Path: w.runtime, Args: w.call.argv(), Files: w.passed.files(step...), Env: runtimeEnv()}
}

// exit is the exit code for what happened: the runtime's, or for a command that
// cannot be executed the one that the runtime has for it.
func (w *wrapper) exit(code int, err error) (int, error) {
	var step *launch.StepError
	if errors.As(err, &step) {
		return step.Code, err
	}
	var missing *launch.CommandError
	if !errors.As(err, &missing) {
		return code, err
	}
	if w.call.Role() == roleExec {
		return 255, err
	}
	return 1, err
}

// explain says that the runtime failed when it did not say so itself: it was killed,
// or has added nothing to its log, which had the size before.
func (w *wrapper) explain(out launch.Outcome, err error, before int64) {
	// A shell, and ours, give 128 and the number of the signal; 255 is the
	// runtime's own failure.
	const killed, signals = 128, 64
	switch {
	case err != nil || out.PID > 0 || out.Code == 0:
	case out.Code > killed && out.Code <= killed+signals:
		w.log.error(fmt.Errorf("%s was killed by signal %d", filepath.Base(w.runtime), out.Code-killed))
	case before >= 0 && w.log.size() == before:
		w.log.error(fmt.Errorf("%s ended with exit code %d, and without a word in its log", filepath.Base(w.runtime), out.Code))
	}
}

// ownConfig is the configuration that the runtime was given.
func (w *wrapper) ownConfig(rec state.Record) ([]byte, error) {
	f, b, err := readFile(filepath.Join(given(w.dir, rec.Key), "config.json"))
	if err != nil {
		return nil, err
	}
	f.Close()
	if state.Digest(b) != rec.Config {
		return nil, fmt.Errorf("configuration of container %s: it is not the one that was made for it", rec.ID)
	}
	return b, nil
}
