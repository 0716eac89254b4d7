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
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/image"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/svirt"
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

// errStart says that the OCI runtime did not get as far as running the command.
var errStart = errors.New("the OCI runtime could not start the container")

// ErrNoCommand says that neither the caller nor the image names a command.
var ErrNoCommand = errors.New("no command to run")

// newID draws a name for a container that was given none.
func newID() string {
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
		o.Name = newID()
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
	if err := checkReach(dir, o.Rootfs, volumes); err != nil {
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
		dir: dir, opts: o, source: src, volumes: volumes, registry: labels,
		host: &launch.Host{
			Dir: dir, Registry: labels, Target: hostfacts.ForLaunch(), Cache: launch.Cache(dir),
			Lenient: o.OnMismatch == OnMismatchWarn, Warn: o.Warn,
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The mounts belong to this thread alone, which is never given back.
		runtime.LockOSThread()
		code, err = r.inPrivateMounts(rt)
	}()
	<-done
	return code, err
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
	host     *launch.Host
	c        *launch.Container
}

func (r *run) inPrivateMounts(rt string) (code int, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return 0, fmt.Errorf("make a mount namespace: %w", err)
	}
	// Nothing goes out to the host; what the host mounts later may come in.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return 0, fmt.Errorf("make mounts private: %w", err)
	}
	// Before anything of the volumes is touched.
	var wanted specs.Spec
	for _, v := range r.volumes {
		wanted.Mounts = append(wanted.Mounts, v.mountpoint())
	}
	if err := oci.CheckStateReach(&wanted, r.dir.Path()); err != nil {
		return 0, err
	}
	if r.c, err = r.host.Prepare(r.request(rt), r.edit); err != nil {
		return 0, err
	}
	code, err = r.start()
	return code, errors.Join(err, r.cleanUp())
}

// firstFD is the first descriptor that the runtime passes on.
const firstFD = 3

// request says what is to run in the words of every engine.
func (r *run) request(rt string) launch.Request {
	req := launch.Request{
		Policy: r.opts.Policy, Holder: gc.HolderRun, StepFD: firstFD, Gate: true, Stderr: r.ownStderr(),
		Record: state.Record{
			ID: r.opts.Name, Engine: gc.EnginePalisade, Command: r.opts.Args,
			Runtime: state.Runtime{Path: rt, Args: []string{"--root", r.dir.RuntimeRoot()}, Root: r.dir.RuntimeRoot()},
		},
		Compile: bundle.Request{HostNetwork: r.opts.Net == NetHost, BlockDevices: true}, // our configuration denies them
	}
	if r.opts.Image != "" {
		req.Record.Image = r.source.lower[0]
	}
	for _, v := range r.volumes {
		req.Mounts = append(req.Mounts, v.dst)
		if !v.readOnly {
			req.Compile.Writable = append(req.Compile.Writable, v.dst)
		}
	}
	for i, v := range r.volumes {
		// What is mounted below a read-only volume is a volume of its own.
		if v.readOnly {
			others := slices.Delete(slices.Clone(req.Mounts), i, i+1)
			req.ReadOnly = append(req.ReadOnly, profile.Unmounted([]string{v.dst}, others)...)
		}
	}
	return req
}

// edit mounts the root and the volumes and writes the bundle.
func (r *run) edit(c *state.Container, p *bundle.Plan) (effective.State, error) {
	c.Bundle.Path = c.Path("bundle")
	if err := os.Mkdir(c.Bundle.Path, 0o700); err != nil {
		return effective.State{}, err
	}
	rootfs := r.dir.RootFS()
	if err := mountRoot(r.source, rootfs, c.Path("scratch"), p.MountLabel); err != nil {
		return effective.State{}, err
	}
	if err := oci.CheckRoot(rootfs); err != nil {
		return effective.State{}, err
	}
	u, err := lookupUser(rootfs, r.opts.User)
	if err != nil {
		return effective.State{}, err
	}
	spec := baseSpec(rootfs, r.opts, u)
	if err := r.addVolumes(c, p, spec); err != nil {
		return effective.State{}, err
	}
	if err := oci.CheckMounts(spec); err != nil {
		return effective.State{}, err
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return effective.State{}, err
	}
	return oci.Compose(c, p, oci.Source{Raw: raw, Folder: c.Bundle.Path})
}

// ownStderr reports whether the workload gets another standard error than the
// runtime, whose words go to its log.
func (r *run) ownStderr() bool { return !r.opts.TTY && r.opts.Stderr != nil }

// cleanUp removes everything of a container that has ended.
func (r *run) cleanUp() error {
	err := gc.DestroyIfLeft(r.c.Runtime, r.dir.RuntimeRoot(), r.c.ID)
	return errors.Join(err, r.c.Undo(nil))
}

// start runs the OCI runtime and waits for it.
func (r *run) start() (int, error) {
	log := r.c.Path("runtime.log")
	files := []*os.File{r.opts.Stdin, r.opts.Stdout, r.opts.Stderr}
	if r.opts.TTY {
		inner, finish, err := terminal(r.opts)
		if err != nil {
			return 0, err
		}
		defer finish()
		files = inner
	}
	args := append(slices.Clone(r.c.Runtime.Args), "--log", log, "run", "--bundle", r.c.Bundle.Path)
	var g *gate.Gate
	if step := r.c.StepFiles(); step != nil {
		var err error
		if g, err = gate.New(); err != nil {
			return 0, err
		}
		defer g.Close()
		files = append(files, append(step, g.Theirs)...)
		if r.ownStderr() {
			said, err := os.Create(r.c.Path(stderrFile))
			if err != nil {
				return 0, err
			}
			defer said.Close()
			files[2] = said
			files = append(files, r.opts.Stderr)
		}
		args = append(args, "--preserve-fds", strconv.Itoa(len(files)-firstFD))
	}
	rt := launch.Runtime{
		Path: r.c.Runtime.Path, Args: append(args, r.c.ID), Files: files,
		// A session of its own keeps the terminal's signals from arriving twice.
		Session: true,
	}
	if g != nil {
		// What is in force is verified when the workload has been executed. The gate
		// tells why it could not be.
		go g.Watch(r.opts.Args[0], func(int) error { return nil })
		rt.Started = func() { g.Theirs.Close() }
	}
	out, err := r.c.Run(rt, launch.Making{Keep: true})
	if g != nil {
		g.Refuse()
		<-g.Done
	}
	switch {
	case err != nil:
		return 0, err
	case out.PID > 0:
		return out.Code, nil
	case g != nil && g.Err != nil:
		return 0, g.Err
	}
	// The workload was never reached.
	return 0, startError(r.opts.Args[0], r.lastWords(log))
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
	return fmt.Errorf("%w: %s", errStart, msg)
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
