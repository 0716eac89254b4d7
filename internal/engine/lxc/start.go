// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package lxc confines the containers of libvirt's LXC driver, which knows no
// seccomp, no Landlock and no new-privileges, gives its containers nearly all
// capabilities, and draws labels from a table of its own.
//
// libvirt starts it as a domain's <emulator> in the place of libvirt_lxc, its
// controller of one container. It decides what the domain gets, has the controller
// read an edited definition, leaves a watcher behind, and becomes the controller:
// same process ID, which libvirt relies on. The last step before the container's
// first command is palisade-init, which the controller passes on as a descriptor.
//
// The watcher traces the controller from before it is executed, and stands between it
// and libvirt, where the two tell each other how far they are. It compares the first
// program that is executed in the container with the last step, stops the first
// command before its first instruction, and compares what is in force with what was
// asked for. libvirt hears that the container has started when it has been let go; or
// it hears why not, and the domain does not start. From then on nothing is traced. The
// watcher waits for the container's end and gives its label back.
package lxc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/settings"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/svirt/libvirt"
)

// failed is the exit code of what went wrong here.
const failed = 125

// statusDir is where libvirt keeps the status of running containers. Both the
// driver and the controller have it compiled in.
//
// Source: src/lxc/lxc_conf.h, LXC_STATE_DIR.
const statusDir = "/run/libvirt/lxc"

// Main does what the arguments say. As the emulator it returns only when the
// container is not to be started. The calling thread must be locked.
func Main(args []string, registry func(*state.Dir) svirt.Authority) int {
	if len(args) > 0 && args[0] == watchCommand {
		return watch(args[1:], registry)
	}
	err := start(args, registry)
	// libvirt reports the lines that its log of the container has got.
	report(err)
	return failed
}

func report(err error) {
	fmt.Fprintln(os.Stderr, "palisade-lxc: "+strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// emulator is one call by libvirt.
type emulator struct {
	call      *call
	inherited inherited
	cfg       settings.Settings
	registry  func(*state.Dir) svirt.Authority
	domain    *libvirt.Domain
	// status is the definition as libvirt has written it, text what the controller
	// reads instead.
	status, text []byte
	// driver is libvirt's security driver, which the controller is told.
	driver string
	dir    *state.Dir
}

func start(args []string, registry func(*state.Dir) svirt.Authority) error {
	c, err := parseArgs(args)
	if err != nil {
		return err
	}
	e := &emulator{call: c, registry: registry}
	// First of all: later there are descriptors of our own.
	if e.inherited, err = inherit(c); err != nil {
		return err
	}
	if e.cfg, err = settings.Load(c.own); err != nil {
		return err
	}
	if err := e.confine(); err != nil {
		return fmt.Errorf("domain %s: %w", c.name(), err)
	}
	return nil
}

func (e *emulator) confine() error {
	controller, err := findController(e.cfg.Emulator)
	if err != nil {
		return err
	}
	status := filepath.Join(statusDir, e.call.name()+".xml")
	definition, err := e.readStatus(status)
	if err != nil {
		return err
	}
	if e.domain, err = libvirt.Parse(e.status); err != nil {
		return err
	}
	p, err := pick(e.cfg.Policy, e.domain.Policy)
	if err != nil {
		return err
	}
	if err := check(p, e.domain); err != nil {
		return err
	}
	switch wanted, err := handover.Wanted(); {
	case err != nil:
		return err
	case !wanted:
		return fmt.Errorf("%s=%s: %w", handover.EnvInit, handover.None, handover.ErrNoInit)
	}
	if e.dir, err = state.Open(e.cfg.State); err != nil {
		return err
	}
	if err := checkFilesystems(e.domain, e.dir.Path()); err != nil {
		return err
	}
	s, err := e.situation()
	if err != nil {
		return err
	}
	req, err := s.request(p, e.domain)
	if err != nil {
		return err
	}
	self, err := state.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	req.Record.Controller, req.Record.Bundle = &self, definition
	c, err := e.prepare(s, req)
	if err != nil {
		return err
	}
	return c.Undo(e.become(c, controller, status))
}

// How long and how often a domain that is started again waits for the watcher of
// the last time to clean up.
const (
	cleanTimeout = 5 * time.Second
	cleanPause   = 10 * time.Millisecond
)

// prepare takes the domain up to the point where the controller can be executed.
func (e *emulator) prepare(s situation, req launch.Request) (*launch.Container, error) {
	h := &launch.Host{
		Dir: e.dir, Registry: e.registry(e.dir), Cache: launch.Cache(e.dir), Warn: e.warn,
		Lenient: e.cfg.OnMismatch == onMismatchWarn,
	}
	for _, layer := range e.cfg.Require {
		h.Require = append(h.Require, bundle.Layer(layer))
	}
	edit := func(c *state.Container, plan *bundle.Plan) (effective.State, error) { return e.edit(s, c, plan) }
	for deadline := time.Now().Add(cleanTimeout); ; time.Sleep(cleanPause) {
		h.Target = hostfacts.ForLaunch()
		c, err := h.Prepare(req, edit)
		if !errors.Is(err, state.ErrExists) || alive(e.dir, req.Record.ID) || time.Now().After(deadline) {
			return c, err
		}
	}
}

// alive reports whether the controller of the domain's last start is there. One of
// which that is not known counts as such.
func alive(dir *state.Dir, id string) bool {
	r, err := dir.Lookup("", id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return false // gone since
	case err != nil:
		return true
	}
	return r.Controller.Alive()
}

func (e *emulator) warn(err error) {
	report(fmt.Errorf("warning: domain %s: %w", e.call.name(), err))
}

// situation reads what the edit depends on.
func (e *emulator) situation() (situation, error) {
	s := situation{driver: e.call.value("security"), path: hostPath, stepFD: slot(e.call)}
	var err error
	if s.caps, err = ownCapabilities(); err != nil {
		return s, err
	}
	for _, kind := range []string{"net", "ipc", "uts"} {
		if e.call.has("share-" + kind) {
			s.shared = append(s.shared, kind)
		}
	}
	s.hostNetwork = !e.domain.Network && !slices.Contains(s.shared, "net") || sharesHostNetwork(e.call)
	return s, nil
}

// edit makes the definition that the controller reads.
func (e *emulator) edit(s situation, c *state.Container, plan *bundle.Plan) (effective.State, error) {
	d, err := s.edit(plan, e.domain)
	if err != nil {
		return effective.State{}, err
	}
	if e.text, err = d.edit.Apply(e.status); err != nil {
		return effective.State{}, err
	}
	c.Config = state.Digest(e.text)
	e.driver, plan.Step.AppArmor = d.driver, d.profile
	// Behind the workload's standard streams the controller passes on what its caller
	// wants passed on.
	d.asked.FDs = slot(e.call) - (unix.Stderr + 1)
	return d.asked, nil
}

// pick is the policy of the host, tightened by what the domain asks for.
func pick(host, asked string) (policy.Policy, error) {
	p, err := policy.Builtin(host)
	if err != nil || asked == "" || asked == p.Name {
		return p, err
	}
	q, err := policy.Builtin(asked)
	if err != nil {
		return p, fmt.Errorf("metadata: %w", err)
	}
	return q.Meet(p), nil
}

// findController is libvirt's own controller.
func findController(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	for _, p := range []string{"/usr/lib/libvirt/libvirt_lxc", "/usr/libexec/libvirt_lxc", "/usr/lib64/libvirt/libvirt_lxc", "/usr/lib/libvirt_lxc"} {
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", errors.New(`libvirt_lxc not found: name it as "emulator" in ` + settings.File)
}

// readStatus reads the definition of the domain as it runs.
func (e *emulator) readStatus(path string) (state.Bundle, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return state.Bundle{}, fmt.Errorf("status: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return state.Bundle{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > libvirt.MaxSize {
		return state.Bundle{}, fmt.Errorf("status %s: not a file of at most %d bytes", path, libvirt.MaxSize)
	}
	if e.status, err = io.ReadAll(io.LimitReader(f, libvirt.MaxSize)); err != nil {
		return state.Bundle{}, fmt.Errorf("status: %w", err)
	}
	return state.BundleOf(path, f, e.status)
}

// become makes this process the controller. It returns only when that failed.
func (e *emulator) become(c *launch.Container, controller, status string) error {
	g, err := gate.New()
	if err != nil {
		return err
	}
	e.call.set("security", e.driver)
	watched, err := e.watcher(c.Container, g)
	if err != nil {
		return err
	}
	if err := present(status, e.text); err != nil {
		return err
	}
	at := slot(e.call)
	e.call.pass(at, at+1, at+2)
	if err := place(at, append(c.StepFiles(), g.Theirs)...); err != nil {
		return err
	}
	// Nothing is executed before the watcher traces it.
	if _, err := watched.Read(make([]byte, 1)); err != nil {
		return errNoWatcher
	}
	err = unix.Exec(controller, append([]string{controller}, e.call.args()...), os.Environ())
	return &os.PathError{Op: "exec", Path: controller, Err: err}
}

var errNoWatcher = errors.New("its watcher ended before it could hold the container")

// watcher starts the process that holds the container until it is verified and stays
// behind, and takes libvirt's ends of the handshake from the controller. What it
// returns can be read once this process is traced.
func (e *emulator) watcher(c *state.Container, g *gate.Gate) (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		files = append(files, r, w)
	}
	toController, fromWatcher := files[0], files[1]
	toWatcher, fromController := files[2], files[3]
	watched, ready := files[4], files[5]
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	theirs := e.call.fds("handshakefds")
	cmd := exec.Command(self, watchCommand, e.dir.Path(), c.Key, e.cfg.OnMismatch)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{
		g.Ours, toWatcher, fromWatcher, os.NewFile(uintptr(theirs[0]), "libvirt"), os.NewFile(uintptr(theirs[1]), "libvirt"),
		os.NewFile(uintptr(pidfd), "controller"), ready, c.Share(),
	}
	// Not a child of the controller, which takes every child that ends for its
	// container.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watcher: %w", err)
	}
	ready.Close() // so that its end is seen
	if err := e.inherited.keep(theirs...); err != nil {
		return nil, err
	}
	var pair [2]int
	for i, f := range []*os.File{toController, fromController} {
		if pair[i], err = pass(f); err != nil {
			return nil, err
		}
	}
	e.call.set("handshakefds", fmt.Sprintf("%d:%d", pair[0], pair[1]))
	return watched, nil
}

// present has the controller find an edited definition where libvirt has written
// its own, which stays: in a mount namespace of the controller's, from which it
// makes its own one in a moment. The file with it has no name.
func present(status string, text []byte) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &os.PathError{Op: "mount", Path: "/", Err: err}
	}
	f, err := os.CreateTemp(filepath.Dir(status), ".palisade-")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(text)
	if err == nil {
		if err = unix.Mount(f.Name(), status, "", unix.MS_BIND, ""); err != nil {
			err = &os.PathError{Op: "mount", Path: status, Err: err}
		}
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// ownCapabilities are those of this process, of which it can give away no more.
func ownCapabilities() (caps.Set, error) {
	st, err := effective.Read(os.Getpid(), effective.State{})
	return st.Capabilities.Permitted & st.Capabilities.Bounding, err
}

// sharesHostNetwork reports whether the network namespace that a domain is to join is
// the host's.
func sharesHostNetwork(c *call) bool {
	for _, n := range c.fds("share-net") {
		var theirs unix.Stat_t
		ours, err := os.Stat("/proc/self/ns/net")
		if err != nil || unix.Fstat(n, &theirs) != nil {
			return true
		}
		if st, ok := ours.Sys().(*syscall.Stat_t); ok && st.Ino == theirs.Ino {
			return true
		}
	}
	return false
}
