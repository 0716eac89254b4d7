// SPDX-License-Identifier: Apache-2.0

// Package wrapper is an OCI runtime that confines what an engine starts, and
// leaves the work to another OCI runtime.
//
// It edits the configuration of a container on create and run, and the process
// of an exec, and then replaces itself by the real runtime: same process ID,
// same file descriptors, environment, terminal and exit code. Commands that it
// has nothing to add to are passed on without looking at them. When it cannot
// confine a container the container is not created.
package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/atomicfile"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/confine"
	"github.com/palisade-sec/palisade/runtime/delegate"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

// AnnotationPolicy on a container picks another built-in policy for it. It can
// only tighten: what holds is what both policies allow.
const AnnotationPolicy = "io.github.palisade-sec.request"

// failed is the exit code of what went wrong here rather than in the runtime.
const failed = 125

// Main does what the arguments say. It returns only when that failed, or when
// the runtime had to be waited for.
func Main(args []string, registry func(*state.Dir) svirt.Authority) int {
	c, err := parseArgs(args)
	if err == nil {
		var code int
		if code, err = run(&c, registry); err == nil {
			return code
		}
	}
	report(&c, err)
	return failed
}

func run(c *call, registry func(*state.Dir) svirt.Authority) (int, error) {
	// First of all: later there are descriptors of our own.
	place, free, err := reserve(c)
	if err != nil {
		return 0, err
	}
	cfg, err := LoadConfig(c.own)
	if err != nil {
		return 0, err
	}
	rt, err := delegate.FindRuntime(cfg.Runtime)
	if err != nil {
		return 0, err
	}
	w := &wrapper{call: c, cfg: cfg, runtime: rt, place: place, free: free}
	named, _ := flag(c.global, "root")
	if w.root, err = delegate.Root(rt, named); err != nil {
		return 0, err
	}
	switch c.command {
	case "create", "run", "exec", "delete", "start":
		if c.id() == "" {
			break // the runtime says what is missing
		}
		if w.dir, err = state.Open(cfg.State); err != nil {
			return 0, err
		}
		w.registry = registry(w.dir)
	}
	if w.dir == nil {
		return 0, w.replace()
	}
	switch c.command {
	case "exec":
		if err := w.exec(); err != nil {
			return 0, err
		}
	case "delete":
		return w.delete()
	case "start":
		return w.start()
	default:
		if err := w.create(); err != nil {
			return 0, err
		}
	}
	return 0, w.replace()
}

type wrapper struct {
	call     *call
	cfg      Config
	runtime  string
	dir      *state.Dir
	registry svirt.Authority
	// made is the policy of the container that is made, root where the runtime keeps it.
	made policy.Policy
	root string
	// place is where the last step goes, if it is free.
	place slot
	free  bool
}

// replace makes this process the runtime.
func (w *wrapper) replace() error {
	argv := slices.Concat([]string{w.runtime}, w.call.args())
	err := unix.Exec(w.runtime, argv, os.Environ())
	return &os.PathError{Op: "exec", Path: w.runtime, Err: err}
}

// realRuntime is how the runtime is called later, about the same delegate.
func (w *wrapper) realRuntime() state.Runtime {
	r := state.Runtime{Path: w.runtime, Root: w.root}
	for _, name := range []string{"root", "cgroup-manager"} {
		if v, given := flag(w.call.global, name); given {
			r.Args = append(r.Args, "--"+name, v)
		}
	}
	if _, given := flag(w.call.global, "systemd-cgroup"); given {
		r.Args = append(r.Args, "--systemd-cgroup")
	}
	return r
}

// create confines the container whose bundle the command line names.
func (w *wrapper) create() error {
	bundle, _ := flag(w.call.flags, "bundle", "b")
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return err
	}
	name := "config.json"
	if v, given := flag(w.call.flags, "config", "f"); given {
		name = v // crun's
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(bundle, name)
	}
	raw, as, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bundle %s has no configuration: %w", bundle, err)
	} else if err != nil {
		return err
	}
	spec, err := oci.Decode(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p, err := w.policy(spec.Annotations)
	if err != nil {
		return err
	}
	rec := state.Record{
		ID: w.call.id(), Engine: gc.EngineOCI, Policy: state.PolicyOf(p), Created: time.Now().UTC(),
		Runtime: w.realRuntime(), Bundle: state.Bundle{Path: bundle, Digest: state.Digest(raw)},
	}
	w.made = p
	if spec.Process != nil {
		rec.Command = spec.Process.Args
	}
	c, err := w.claim(rec)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := w.confine(c, spec, raw, name, as); err != nil {
		return errors.Join(err, gc.Forget(w.registry, c))
	}
	// Until the runtime has a container of that name, nobody may think that it was
	// left behind. The number is one that the runtime does not pass on.
	return c.LockBeyondExec(w.place.fd + slotSize)
}

// policy is that of the host, tightened by what the container asks for.
func (w *wrapper) policy(annotations map[string]string) (policy.Policy, error) {
	p, err := policy.Builtin(w.cfg.Policy)
	if err != nil {
		return p, err
	}
	if name := annotations[AnnotationPolicy]; name != "" && name != p.Name {
		q, err := policy.Builtin(name)
		if err != nil {
			return p, fmt.Errorf("annotation %s: %w", AnnotationPolicy, err)
		}
		q = q.Meet(p)
		return q, nil
	}
	return p, nil
}

// claim takes the ID, from a dead container if need be.
func (w *wrapper) claim(rec state.Record) (*state.Container, error) {
	c, err := w.dir.Create(rec)
	if errors.Is(err, state.ErrExists) {
		key, cerr := w.dir.KeyOf(rec.Runtime.Root, rec.ID)
		if cerr == nil {
			cerr = gc.CollectOne(w.dir, w.registry, key)
		}
		if cerr != nil && !errors.Is(cerr, state.ErrNotFound) {
			return nil, errors.Join(err, cerr)
		}
		c, err = w.dir.Create(rec)
	}
	return c, err
}

func (w *wrapper) confine(c *state.Container, spec *specsSpec, raw []byte, name string, as atomicfile.File) error {
	host := hostfacts.ForLaunch()
	demand, err := readAsked(spec, c.ID)
	if err != nil {
		return err
	}
	if demand.apparmor == profile.Name(w.dir, c.Key) || host.AppArmor.On() == target.Yes && w.made.AppArmor.Profile != "" && profile.EngineDefault(demand.apparmor) {
		// This configuration was edited before, or nobody has chosen: a profile of the
		// container's own is to take the place.
		demand.apparmor = ""
	}
	if err := demand.check(host, spec); err != nil {
		return err
	}
	chosen, given, err := demand.context(host, spec)
	if err != nil {
		return err
	}
	if given {
		spec.Process.SelinuxLabel = chosen.String() // of this copy; the level is to be reserved
	}
	level, err := w.label(c, spec)
	if err != nil {
		return err
	}
	c.Level = level
	slot, err := w.slot(w.made.Process.NewPrivileges)
	if err != nil {
		return err
	}
	req := bundle.Request{ID: c.Key, Level: level, HostNetwork: hostNetwork(spec), Writable: writable(spec), Init: slot.path(), Cache: confine.Cache(w.dir)}
	for _, layer := range w.cfg.Require {
		req.Require = append(req.Require, bundle.Layer(layer))
	}
	if spec.Linux != nil {
		req.Engine = spec.Linux.Seccomp
	}
	if err := w.profile(&host, c, spec, &req); err != nil {
		return err
	}
	plan, err := bundle.Resolve(host, w.made, req)
	if err != nil {
		return err
	}
	if given {
		l, err := selinux.ParseLevel(level)
		if err != nil {
			return err
		}
		plan.ProcessLabel = chosen.WithLevel(l).String()
	}
	if plan.MountLabel != "" && spec.Root != nil && (spec.Linux == nil || spec.Linux.MountLabel == "") {
		root := spec.Root.Path
		if !filepath.IsAbs(root) {
			root = filepath.Join(c.Bundle.Path, root)
		}
		if err := labelRoot(root, plan.MountLabel); err != nil {
			return fmt.Errorf("label the root: %w", err)
		}
	}
	edited, result, err := oci.Edit(raw, plan.Confinement)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	asked := confine.Ask(plan, result)
	c.Asked, c.Config = &asked, state.Digest(edited)
	if plan.Step != nil {
		step := confine.Step(plan.Step)
		// Kept for processes that are added later.
		if err := c.SaveStep(step); err != nil {
			return err
		}
		if err := w.handOver(slot, step, plan.StepLabel); err != nil {
			return err
		}
	}
	if err := c.Save(); err != nil {
		return err
	}
	return as.Write(name, edited)
}

// label reserves the label that the engine has chosen, or one of our own. Where
// the engine has labelled the root alone, for a container that it would run
// without a label, the root's level is the only one that fits.
func (w *wrapper) label(c *state.Container, spec *specsSpec) (string, error) {
	claim := svirt.Claim{ID: c.Key, Holder: gc.HolderOCI, Bundle: c.Bundle.Path, Bound: true, Sensitivity: w.made.Label.Level}
	chosen := ""
	if spec.Linux != nil {
		chosen = spec.Linux.MountLabel
	}
	if spec.Process != nil && spec.Process.SelinuxLabel != "" {
		chosen = spec.Process.SelinuxLabel
	}
	if chosen != "" {
		ctx, err := selinux.ParseContext(chosen)
		if err != nil {
			return "", fmt.Errorf("label of the engine: %w", err)
		}
		_, level, _ := strings.Cut(ctx.String(), ctx.Type+":")
		if l, err := selinux.ParseLevel(level); err == nil && !l.Categories.IsEmpty() {
			claim.Level = level
		}
	}
	if pod := w.pod(c.ID, spec); pod != "" {
		shared := claim
		shared.Shared = pod
		if rec, err := w.registry.Reserve(shared); !errors.Is(err, svirt.ErrInUse) {
			return rec.Level, err
		}
		// A container of a pod may be given a label of its own.
	}
	rec, err := w.registry.Reserve(claim)
	if errors.Is(err, svirt.ErrInUse) && claim.Level != "" && (joins(spec) || spec.Process == nil || spec.Process.SelinuxLabel == "") {
		// The containers of a pod have one label, which the first holds; and engines
		// give one label to all roots of containers that are to have none.
		return claim.Level, nil
	}
	return rec.Level, err
}

// Annotations in which Kubernetes' engines name the pod's sandbox, in the sandbox
// itself as in the pod's containers.
//
// Source: containerd pkg/cri/annotations; CRI-O pkg/annotations, libpod/define.
var sandboxAnnotations = []string{"io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"}

// pod is the group of a pod's containers, which hold the pod's label together: it
// is free when the last of them is gone. Empty for a container that is of none.
func (w *wrapper) pod(id string, spec *specsSpec) string {
	for _, name := range sandboxAnnotations {
		sandbox := spec.Annotations[name]
		if sandbox == "" {
			continue
		}
		if sandbox != id {
			// Only of a pod whose sandbox is here.
			if _, err := w.dir.Lookup(w.root, sandbox); err != nil {
				continue
			}
		}
		return "pod-" + sandbox
	}
	return ""
}

// joins tells whether a container shares a namespace with another: it is of a
// pod, or was told to, and its engine gave it the other's label on purpose.
func joins(spec *specsSpec) bool {
	if spec.Linux == nil {
		return false
	}
	return slices.ContainsFunc(spec.Linux.Namespaces, func(n specsNamespace) bool {
		return n.Path != "" && (n.Type == "ipc" || n.Type == "pid")
	})
}

// exec confines a process that is added to a container of ours.
func (w *wrapper) exec() error {
	rec, err := w.dir.Lookup(w.root, w.call.id())
	if errors.Is(err, state.ErrNotFound) {
		return w.foreign() // made without us, and then none of our business
	} else if err != nil {
		return err
	}
	asked, err := rec.Planned()
	if err != nil {
		return err
	}
	// The labels are the container's own, whatever the host would say today.
	conf := bundle.Confinement{Policy: rec.Policy.ForProcess(), ID: rec.Key, Level: rec.Level, ProcessLabel: asked.SELinux, AppArmorProfile: asked.AppArmor}
	if rec.EngineProfile != asked.AppArmor {
		conf.Replaces = rec.EngineProfile
	}
	step, err := w.dir.Step(rec)
	if err != nil {
		return err
	}
	if step != nil {
		slot, err := w.slot(rec.Policy.NewPrivileges)
		if err != nil {
			return err
		}
		if slot == nil {
			return fmt.Errorf("exec in %s: %w", rec.ID, errNoSlot)
		}
		conf.Init = slot.path()
		if err := w.handOver(slot, step, bundle.StepLabel(hostfacts.ForLaunch())); err != nil {
			return err
		}
	}
	if file, given := flag(w.call.flags, "process", "p"); given {
		raw, as, err := readFile(file)
		if err != nil {
			return err
		}
		edited, err := oci.EditProcess(raw, conf)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return as.Write(file, edited)
	}
	// The runtime takes the process from the container's configuration, which is
	// confined; what the flags would add is taken away again.
	if conf.Init != "" && len(w.call.rest) > 1 {
		w.call.rest = slices.Concat(w.call.rest[:1], []string{conf.Init}, w.call.rest[1:])
	}
	return w.confineExecFlags(conf)
}

// confineExecFlags takes from an exec on the command line what the policy does
// not allow.
func (w *wrapper) confineExecFlags(conf bundle.Confinement) error {
	var out []string
	flags := w.call.flags
	for i := 0; i < len(flags); i++ {
		name, value, eq := cutFlag(flags[i])
		if isFlag(flags[i]) && (name == "cap" || name == "c") {
			if !eq && i+1 < len(flags) {
				i++
				value = flags[i]
			}
			if !allowedCap(conf.Policy, value) {
				return fmt.Errorf("capability %s is not allowed by policy %s", value, conf.Policy.Name)
			}
			out = append(out, "--cap", value)
			continue
		}
		if isFlag(flags[i]) && name == "apparmor" && conf.AppArmorProfile != "" {
			if !eq && i+1 < len(flags) {
				i++
				value = flags[i]
			}
			if value == "" || value == "unconfined" || value == conf.Replaces {
				value = conf.AppArmorProfile
			}
			out = append(out, "--apparmor", value)
			continue
		}
		out = append(out, flags[i])
	}
	w.call.flags = out
	return nil
}

// How often and in what distance delete looks again for a container that is in
// use: a second in all.
const (
	forgetTries = 50
	forgetPause = 20 * time.Millisecond
)

// delete lets the runtime forget a container, and forgets it too.
func (w *wrapper) delete() (int, error) {
	cmd := exec.Command(w.runtime, w.call.args()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	// Forgetting goes by whether the runtime still has it, not by the exit code:
	// deleting twice fails, and still it is gone.
	cerr := w.collect()
	for range forgetTries {
		if err != nil || !errors.Is(cerr, state.ErrBusy) {
			break
		}
		// Engines delete twice at once. The other one may have looked before the
		// container was gone.
		time.Sleep(forgetPause)
		cerr = w.collect()
	}
	if cerr != nil && !errors.Is(cerr, state.ErrNotFound) && !errors.Is(cerr, state.ErrBusy) {
		fmt.Fprintf(os.Stderr, "palisade-oci: warning: %v\n", cerr)
	}
	return cmd.ProcessState.ExitCode(), nil
}

func (w *wrapper) collect() error {
	key, err := w.dir.KeyOf(w.root, w.call.id())
	if err != nil {
		return err
	}
	return gc.CollectOne(w.dir, w.registry, key)
}

// foreign refuses a container without a record that is confined by us all the same.
func (w *wrapper) foreign() error {
	labels, err := w.registry.List()
	if err != nil {
		return err
	}
	v, found, err := witness.Ours(w.dir, labels, delegate.Query, w.realRuntime(), w.call.id())
	if err != nil || !found {
		return err
	}
	return v.Err(w.dir, w.call.id())
}

// report says what went wrong where engines look for it: on standard error and
// in the log file that they give the runtime.
func report(c *call, err error) {
	msg := "palisade-oci: " + strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	fmt.Fprintln(os.Stderr, msg)
	path, given := flag(c.global, "log")
	if !given || path == "" {
		return
	}
	f, ferr := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if ferr != nil {
		return
	}
	defer f.Close()
	now := time.Now().UTC().Format(time.RFC3339)
	if format, _ := flag(c.global, "log-format"); format == "json" {
		line, _ := json.Marshal(map[string]string{"level": "error", "msg": msg, "time": now}) // strings never fail
		fmt.Fprintf(f, "%s\n", line)
		return
	}
	fmt.Fprintf(f, "time=%q level=error msg=%q\n", now, msg)
}
