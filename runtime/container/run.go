// SPDX-License-Identifier: Apache-2.0

// Package container runs a confined container through an OCI runtime and cleans
// up behind it.
//
// Everything that a container needs on the host is in its folder of the state
// directory, in mounts of a private mount namespace, and in the label registry.
// The mounts go when the last process does; folder and label go when [Run]
// returns, or, when it is killed, with [delegate.Collect].
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
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/confine"
	"github.com/palisade-sec/palisade/runtime/delegate"
	"github.com/palisade-sec/palisade/runtime/effective"
	"github.com/palisade-sec/palisade/runtime/image"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/runtime/state"
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
		host:     confine.ReadHost(),
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
	host     confine.Host
	c        *state.Container
	conf     oci.Confinement
}

// claim takes the name and, with it, the label.
func (r *run) claim(rt string) (*state.Container, error) {
	rec := state.Record{
		ID: r.opts.Name, Engine: delegate.EnginePalisade, Policy: r.opts.Policy, Created: time.Now().UTC(),
		Runtime: state.Runtime{Path: rt, Args: []string{"--root", r.dir.RuntimeRoot()}},
		Command: r.opts.Args,
	}
	c, err := r.dir.Create(rec)
	if errors.Is(err, state.ErrExists) {
		// A dead one gives its name away.
		if cerr := delegate.CollectOne(r.dir, r.registry, r.opts.Name); cerr == nil {
			c, err = r.dir.Create(rec)
		}
	}
	return c, err
}

func (r *run) cleanUp() error {
	err := delegate.DestroyIfLeft(r.c.Runtime, r.dir.RuntimeRoot(), r.c.ID)
	return errors.Join(err, delegate.Forget(r.registry, r.c))
}

func (r *run) execute() (int, error) {
	label, err := r.registry.Reserve(svirt.Claim{ID: r.c.ID, Holder: delegate.HolderRun, Bundle: r.c.Path(), Sensitivity: r.opts.Policy.Label.Level})
	if err != nil {
		return 0, err
	}
	if r.conf, err = confine.Resolve(r.host, r.opts.Policy, r.c.ID, label.Level); err != nil {
		return 0, err
	}
	r.c.Level = label.Level
	r.c.Bundle = r.c.Path("bundle")
	if err := os.Mkdir(r.c.Bundle, 0o700); err != nil {
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
	rootfs := filepath.Join(r.c.Bundle, "rootfs")
	if err := mountRoot(r.source, rootfs, r.c.Path("scratch"), r.conf.MountLabel); err != nil {
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
	if err := oci.Apply(spec, r.conf); err != nil {
		return 0, err
	}
	if err := r.ask(effective.Asked(spec)); err != nil {
		return 0, err
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return 0, err
	}
	if err := state.WriteFile(filepath.Join(r.c.Bundle, "config.json"), config, 0o600); err != nil {
		return 0, err
	}
	return r.start()
}

// addVolumes mounts the volumes, and labels those that are to be labelled.
func (r *run) addVolumes(spec *specs.Spec) error {
	for _, v := range r.volumes {
		spec.Mounts = append(spec.Mounts, v.mount())
		if v.relabel == "" || !r.host.SELinux {
			continue
		}
		context := r.host.FileContext
		if v.relabel == "Z" {
			context = r.conf.MountLabel
			// Recorded first: the label stays taken if we are killed halfway.
			r.c.Labelled = true
			if err := r.c.Save(); err != nil {
				return err
			}
		}
		if err := relabel(v.src, context); err != nil {
			return err
		}
	}
	return nil
}

// ask records what is to be in force.
func (r *run) ask(asked effective.State) (err error) {
	if r.c.Asked, err = json.Marshal(asked); err != nil {
		return err
	}
	return r.c.Save()
}

// start runs the OCI runtime and waits for it.
func (r *run) start() (int, error) {
	log := r.c.Path("runtime.log")
	cmd := delegate.Command(r.c.Runtime, "--log", log, "run", "--bundle", r.c.Bundle, r.c.ID)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.opts.Stdin, r.opts.Stdout, r.opts.Stderr
	// A session of its own keeps the terminal's signals from arriving twice:
	// once from the terminal and once from here.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if r.opts.TTY {
		finish, err := terminal(cmd, r.opts)
		if err != nil {
			return 0, err
		}
		defer finish()
	}
	forward := forwardSignals(cmd)
	defer forward.stop()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", r.c.Runtime.Path, err)
	}
	forward.started()
	err := cmd.Wait()
	if msg := readLog(log); msg != "" {
		return 0, fmt.Errorf("%w: %s", ErrStart, msg)
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

// readLog is the error that the runtime left in its log, if any.
func readLog(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte("level=error")) {
		return ""
	}
	return delegate.LastLine(b)
}
