// SPDX-License-Identifier: Apache-2.0

// Package container runs a confined container through an OCI runtime and cleans
// up behind it.
//
// Everything that a container needs on the host is in its folder of the state
// directory, in mounts of a private mount namespace, and in the label registry.
// The mounts go when the last process does; folder and label go when [Run]
// returns, or, when it is killed, with [gc.Collect].
package container

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/image"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/confine"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

// Options say what is to run.
type Options struct {
	// Name of the container; empty for a random one.
	Name   string
	Policy policy.Policy
	// Rootfs is a folder, Image an OCI layout or a docker archive; with neither
	// the root holds this program only, at /palisade. What the container writes
	// into its root is gone when it ends.
	Rootfs string
	Image  string
	// Volumes of the form src:dst[:ro|:Z|:z].
	Volumes []string
	Env     []string
	Workdir string
	User    string
	// Net is NetNone or NetHost.
	Net      string
	Hostname string
	TTY      bool
	Args     []string
	// OnMismatch is OnMismatchKill or OnMismatchWarn; Warn is told of what does not
	// keep the container from running.
	OnMismatch string
	Warn       func(error)
	// Runtime is the name or path of the OCI runtime.
	Runtime string
	// Stdin, Stdout and Stderr are the container's.
	Stdin, Stdout, Stderr *os.File

	imageEnv []string
}

// ErrStart says that the OCI runtime did not get as far as running the command.
var ErrStart = errors.New("the OCI runtime could not start the container")

// ErrNoCommand says that neither the caller nor the image names a command.
var ErrNoCommand = errors.New("no command to run")

// NewID draws a name for a container that was given none.
func NewID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "p" + hex.EncodeToString(b[:])
}

// Run runs a container to its end and returns the exit code of its command: 128
// and the number of the signal for one that was killed by a signal. With an
// error nothing was run, and nothing is left behind.
func Run(dir *state.Dir, labels svirt.Authority, o Options) (code int, err error) {
	rt, err := delegate.FindRuntime(o.Runtime)
	if err != nil {
		return 0, err
	}
	if o.Name == "" {
		o.Name = NewID()
	}
	if o.Hostname == "" {
		o.Hostname = hostname(o.Name)
	}
	volumes, err := parseVolumes(o.Volumes)
	if err != nil {
		return 0, err
	}
	src, err := o.root(dir)
	if err != nil {
		return 0, err
	}
	if len(o.Args) == 0 {
		return 0, ErrNoCommand
	}
	if o.Workdir == "" {
		o.Workdir = "/"
	}
	if !path.IsAbs(o.Workdir) {
		return 0, fmt.Errorf("working folder %q: want an absolute path", o.Workdir)
	}
	r := &run{
		dir: dir, opts: o, source: src, volumes: volumes,
		registry: labels,
		host:     hostfacts.ForLaunch(),
	}
	c, err := r.claim(rt)
	if err != nil {
		return 0, err
	}
	r.c = c
	defer func() {
		if cleanErr := r.cleanUp(); err == nil {
			err = cleanErr
		}
	}()
	return r.execute()
}

// root finds the root file system, and takes from an image what was not given.
func (o *Options) root(dir *state.Dir) (rootSource, error) {
	switch {
	case o.Image != "":
		img, err := image.Load(dir.Images(), o.Image)
		if err != nil {
			return rootSource{}, err
		}
		o.imageEnv = img.Env
		if len(o.Args) == 0 {
			o.Args = img.Cmd
		}
		o.Args = slices.Concat(img.Entrypoint, o.Args)
		if o.Workdir == "" {
			o.Workdir = img.Workdir
		}
		if o.User == "" {
			o.User = img.User
		}
		return rootSource{lower: []string{img.Root}}, nil
	case o.Rootfs != "":
		return folderRoot(o.Rootfs)
	default:
		return builtinRoot()
	}
}

// hostname is the name as far as the kernel takes one.
func hostname(name string) string {
	const maxHostname = 63
	return name[:min(len(name), maxHostname)]
}

// run is one container on its way.
type run struct {
	dir      *state.Dir
	opts     Options
	source   rootSource
	volumes  []volume
	registry svirt.Authority
	host     target.Target
	c        *state.Container
	plan     *bundle.Plan
}

// claim takes the name and, with it, the label.
func (r *run) claim(rt string) (*state.Container, error) {
	rec := state.Record{
		ID: r.opts.Name, Engine: gc.EnginePalisade, Policy: state.PolicyOf(r.opts.Policy), Created: time.Now().UTC(),
		Runtime: state.Runtime{Path: rt, Args: []string{"--root", r.dir.RuntimeRoot()}, Root: r.dir.RuntimeRoot()},
		Command: r.opts.Args,
	}
	if r.opts.Image != "" {
		rec.Image = r.source.lower[0]
	}
	c, err := r.dir.Create(rec)
	if errors.Is(err, state.ErrExists) {
		// A dead one gives its name away.
		key, cerr := r.dir.KeyOf(rec.Runtime.Root, rec.ID)
		if cerr == nil {
			cerr = gc.CollectOne(r.dir, r.registry, key)
		}
		if cerr == nil || errors.Is(cerr, state.ErrNotFound) {
			c, err = r.dir.Create(rec)
		}
	}
	return c, err
}

func (r *run) cleanUp() error {
	err := gc.DestroyIfLeft(r.c.Runtime, r.dir.RuntimeRoot(), r.c.ID)
	return errors.Join(err, gc.Forget(r.registry, r.c))
}

func (r *run) execute() (int, error) {
	label, err := r.registry.Reserve(svirt.Claim{ID: r.c.Key, Holder: gc.HolderRun, Bundle: r.c.Path(), Bound: true, Sensitivity: r.opts.Policy.Label.Level})
	if err != nil {
		return 0, err
	}
	if err := r.resolve(label.Level); err != nil {
		return 0, err
	}
	r.c.Level = label.Level
	r.c.Bundle.Path = r.c.Path("bundle")
	if err := os.Mkdir(r.c.Bundle.Path, 0o700); err != nil {
		return 0, err
	}

	type result struct {
		code int
		err  error
	}
	done := make(chan result)
	go func() {
		// The mounts belong to this thread alone, which is never given back.
		runtime.LockOSThread()
		code, err := r.inPrivateMounts()
		done <- result{code, err}
	}()
	res := <-done
	return res.code, res.err
}

func (r *run) inPrivateMounts() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return 0, fmt.Errorf("make a mount namespace: %w", err)
	}
	// Nothing goes out to the host; what the host mounts later may come in.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return 0, fmt.Errorf("make mounts private: %w", err)
	}
	rootfs := r.dir.RootFS()
	if err := mountRoot(r.source, rootfs, r.c.Path("scratch"), r.plan.MountLabel); err != nil {
		return 0, err
	}
	u, err := lookupUser(rootfs, r.opts.User)
	if err != nil {
		return 0, err
	}
	spec := baseSpec(rootfs, r.opts, u)
	if err := r.addVolumes(spec); err != nil {
		return 0, err
	}
	if err := oci.Apply(spec, r.plan.Confinement); err != nil {
		return 0, err
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return 0, err
	}
	asked := confine.Ask(r.plan, spec)
	r.c.Asked, r.c.Config = &asked, state.Digest(config)
	if r.plan.Step != nil {
		if err := r.c.SaveStep(confine.Step(r.plan.Step)); err != nil {
			return 0, err
		}
	}
	if err := r.c.Save(); err != nil {
		return 0, err
	}
	if err := state.WriteFile(filepath.Join(r.c.Bundle.Path, "config.json"), config, 0o600); err != nil {
		return 0, err
	}
	return r.start()
}

// firstFD is the first descriptor that the runtime passes on.
const firstFD = 3

// resolve decides what the policy comes to here, with the last step if there is
// one to hand over.
func (r *run) resolve(level string) (err error) {
	req := bundle.Request{ID: r.c.Key, Level: level, HostNetwork: r.opts.Net == NetHost, Cache: confine.Cache(r.dir)}
	for _, v := range r.volumes {
		if !v.readOnly {
			req.Writable = append(req.Writable, v.dst)
		}
	}
	if wanted, err := handover.Wanted(); err != nil {
		return err
	} else if wanted {
		req.Init = handover.Path(firstFD)
	}
	if req.Profile, err = r.profile(); err != nil {
		return err
	}
	r.plan, err = bundle.Resolve(r.host, r.opts.Policy, req)
	return err
}

// profile loads the container's own AppArmor profile where there is AppArmor and
// the policy wants it.
func (r *run) profile() (string, error) {
	if r.host.AppArmor.On() != target.Yes || r.opts.Policy.AppArmor.Profile == "" {
		return "", nil
	}
	var readOnly, mounts []string
	for _, v := range r.volumes {
		mounts = append(mounts, v.dst)
	}
	for i, v := range r.volumes {
		// What is mounted below a read-only volume is a volume of its own.
		if v.readOnly {
			readOnly = append(readOnly, profile.Unmounted([]string{v.dst}, slices.Delete(slices.Clone(mounts), i, i+1))...)
		}
	}
	name, err := profile.Give(profile.Kernel{}, r.dir, r.c, profile.ShapeOf(profile.Kernel{}, r.opts.Policy, mounts), readOnly)
	if errors.Is(err, profile.ErrDenied) {
		r.warn(err)
		return "", nil
	}
	if err == nil && name != "" {
		r.host.AppArmor = r.host.AppArmor.With(name, "enforce") // the kernel has just taken it
	}
	return name, err
}

// start runs the OCI runtime and waits for it.
func (r *run) start() (int, error) {
	log := r.c.Path("runtime.log")
	args := []string{"--log", log, "run", "--bundle", r.c.Bundle.Path}
	cmd := delegate.Command(r.c.Runtime)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.opts.Stdin, r.opts.Stdout, r.opts.Stderr
	if r.opts.TTY {
		finish, err := terminal(cmd, r.opts)
		if err != nil {
			return 0, err
		}
		defer finish()
	}
	var g *gate.Gate
	if r.plan.Step != nil {
		var err error
		if g, err = r.handOver(cmd); err != nil {
			return 0, err
		}
		defer g.Close()
		if f, ok := cmd.Stderr.(*os.File); ok && f != r.opts.Stderr && f != cmd.Stdin {
			defer f.Close()
		}
		for _, f := range cmd.ExtraFiles {
			if f != r.opts.Stderr {
				defer f.Close()
			}
		}
		args = append(args, "--preserve-fds", strconv.Itoa(len(cmd.ExtraFiles)))
	}
	cmd.Args = append(cmd.Args, append(args, r.c.ID)...)
	// Should we be killed while the runtime makes the container, whoever cleans up
	// has to know that it will be there. The runtime does not pass on what comes
	// after --preserve-fds.
	lock, err := r.c.RuntimeLock()
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	cmd.ExtraFiles = append(slices.Clone(cmd.ExtraFiles), lock)
	// A session of its own keeps the terminal's signals from arriving twice:
	// once from the terminal and once from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	forward := forwardSignals(cmd)
	defer forward.stop()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", r.c.Runtime.Path, err)
	}
	forward.started()
	if g != nil {
		g.Theirs.Close()
		go g.Watch(r.opts.Args[0], r.verify)
	}
	err = cmd.Wait()
	if g != nil {
		// The runtime held the last copy of the other end.
		<-g.Done
		if g.Err != nil {
			return 0, g.Err
		}
	}
	switch {
	case g == nil:
		if msg := readLog(log); msg != "" {
			return 0, startError(r.opts.Args[0], msg)
		}
	case g.PID == 0 && err != nil:
		// The last step was never reached, whatever the runtime's log looks like.
		return 0, startError(r.opts.Args[0], r.lastWords(log))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 0, fmt.Errorf("%s was killed by signal %d", filepath.Base(r.c.Runtime.Path), ws.Signal())
	}
	return ws.ExitStatus(), nil
}

// handOver puts the last step, its configuration, the gate and the workload's
// standard error behind the standard streams.
func (r *run) handOver(cmd *exec.Cmd) (*gate.Gate, error) {
	program, err := handover.Program(r.plan.StepLabel)
	if err != nil {
		return nil, err
	}
	g, err := gate.New()
	if err != nil {
		program.Close()
		return nil, err
	}
	step := confine.Step(r.plan.Step)
	step.Gate = true
	files := []*os.File{program, nil, g.Theirs}
	if !r.opts.TTY && r.opts.Stderr != nil {
		// What the runtime says goes to its log; the workload's is its own.
		step.Stderr = true
		files = append(files, r.opts.Stderr)
		f, err := os.Create(r.c.Path(stderrFile))
		if err != nil {
			program.Close()
			g.Close()
			return nil, err
		}
		cmd.Stderr = f
	}
	if files[1], err = handover.Config(step, r.plan.StepLabel); err != nil {
		program.Close()
		g.Close()
		return nil, err
	}
	cmd.ExtraFiles = files
	return g, nil
}

// verify compares what is in force with what was asked, before the workload runs.
func (r *run) verify(pid int) error {
	asked, err := r.c.Planned()
	if err != nil {
		return err
	}
	found, err := effective.Read(pid, asked)
	if err != nil {
		return fmt.Errorf("verify what is in force: %w", err)
	}
	err = effective.Check(asked, found)
	if err != nil && r.opts.OnMismatch == OnMismatchWarn {
		r.warn(err)
		return nil
	}
	return err
}

func (r *run) warn(err error) {
	if r.opts.Warn != nil {
		r.opts.Warn(err)
	}
}

// What to do with a container of which less is in force than was asked for.
const (
	OnMismatchKill = "kill"
	OnMismatchWarn = "warn"
)

// startError finds out from the runtime's words whether the command was missing.
func startError(command, msg string) error {
	switch {
	case strings.Contains(msg, "executable file not found"), strings.Contains(msg, command) && strings.Contains(msg, "no such file or directory"):
		return &gate.ExecError{Command: command, Code: exitNotFound, Errno: unix.ENOENT}
	case strings.Contains(msg, command) && strings.Contains(msg, "permission denied"):
		return &gate.ExecError{Command: command, Code: exitNoExec, Errno: unix.EACCES}
	}
	return fmt.Errorf("%w: %s", ErrStart, msg)
}

// Exit codes of a command that cannot be executed, as shells have them.
const (
	exitNoExec   = 126
	exitNotFound = 127
)

// ExitCode is the exit code that an error of [Run] stands for: 127 for a command
// that is not there, 126 for one that cannot be executed, else 125.
func ExitCode(err error) int {
	var e *gate.ExecError
	if errors.As(err, &e) {
		return e.Code
	}
	return 125
}

// lastWords is what a runtime that failed has said last.
func (r *run) lastWords(log string) string {
	for _, name := range []string{log, r.c.Path(stderrFile)} {
		if b, err := os.ReadFile(name); err == nil && len(bytes.TrimSpace(b)) > 0 {
			return delegate.LastLine(b)
		}
	}
	return filepath.Base(r.c.Runtime.Path) + " gave no reason"
}

// stderrFile takes what the runtime says on standard error.
const stderrFile = "runtime.err"

// readLog is the error that the runtime left in its log, if any.
func readLog(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte("level=error")) {
		return ""
	}
	return delegate.LastLine(b)
}
