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
// The watcher stands between the controller and libvirt, where the two tell each
// other how far they are. libvirt hears that the container has started when the
// kernel says that what was asked is in force, and the first command has been
// executed; or it hears why not, and the domain does not start. The watcher then
// waits for the container's end and gives its label back.
package lxc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gate"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/settings"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/confine"
	"github.com/palisade-sec/palisade/selinux"
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

// launch is the start of one domain.
type launch struct {
	call      *call
	inherited inherited
	cfg       settings.Settings
	domain    *libvirt.Domain
	text      []byte // the definition as libvirt has written it
	dir       *state.Dir
	registry  svirt.Authority
	record    *state.Container
	policy    policy.Policy
}

func start(args []string, registry func(*state.Dir) svirt.Authority) error {
	c, err := parseArgs(args)
	if err != nil {
		return err
	}
	l := &launch{call: c}
	// First of all: later there are descriptors of our own.
	if l.inherited, err = inherit(c); err != nil {
		return err
	}
	if l.cfg, err = settings.Load(c.own); err != nil {
		return err
	}
	if err := l.confine(registry); err != nil {
		return fmt.Errorf("domain %s: %w", c.name(), err)
	}
	return nil
}

func (l *launch) confine(registry func(*state.Dir) svirt.Authority) error {
	controller, err := findController(l.cfg.Emulator)
	if err != nil {
		return err
	}
	status := filepath.Join(statusDir, l.call.name()+".xml")
	if l.text, err = readStatus(status); err != nil {
		return err
	}
	if l.domain, err = libvirt.Parse(l.text); err != nil {
		return err
	}
	p, err := pick(l.cfg.Policy, l.domain.Policy)
	if err != nil {
		return err
	}
	if err := check(p, l.domain); err != nil {
		return err
	}
	if l.dir, err = state.Open(l.cfg.State); err != nil {
		return err
	}
	l.registry = registry(l.dir)
	if err := l.claim(p); err != nil {
		return err
	}
	err = l.become(controller, status)
	// It did not. Of what was begun nothing is left.
	return errors.Join(err, l.registry.Release(l.record.Key), l.record.Remove())
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

func readStatus(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > libvirt.MaxSize {
		return nil, fmt.Errorf("status %s: not a file of at most %d bytes", path, libvirt.MaxSize)
	}
	b := make([]byte, fi.Size())
	_, err = f.ReadAt(b, 0)
	return b, err
}

// claim takes the domain's ID and its label.
func (l *launch) claim(p policy.Policy) error {
	l.policy = p
	self, err := state.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	rec := state.Record{
		ID: l.domain.ID(), Engine: gc.EngineLibvirt, Policy: state.PolicyOf(p), Created: time.Now().UTC(), Controller: &self,
		Command: append([]string{l.domain.Init}, l.domain.InitArgs...),
	}
	l.record, err = l.dir.Create(rec)
	if errors.Is(err, state.ErrExists) {
		// A restart finds what the watcher of the last time has not yet removed.
		if cerr := gc.CollectOne(l.dir, l.registry, rec.ID); cerr != nil && !errors.Is(cerr, state.ErrNotFound) {
			return errors.Join(err, cerr)
		}
		l.record, err = l.dir.Create(rec)
	}
	if err != nil {
		return err
	}
	if l.record.Level, err = l.label(p); err == nil {
		err = l.registry.Bind(rec.ID)
	}
	if err != nil {
		err = errors.Join(err, l.registry.Release(rec.ID), l.record.Remove())
	}
	return err
}

// label reserves the label that libvirt has chosen, whether it drew it itself or a
// person wrote it down, or one of our own.
func (l *launch) label(p policy.Policy) (string, error) {
	claim := svirt.Claim{ID: l.record.Key, Holder: gc.HolderLibvirt, Bundle: l.record.Path(), Sensitivity: p.Label.Level}
	chosen, err := processLabel(l.domain, l.call.value("security"))
	if err != nil {
		return "", err
	}
	if chosen != "" {
		ctx, err := selinux.ParseContext(chosen)
		if err != nil {
			return "", err
		}
		_, level, _ := strings.Cut(ctx.String(), ctx.Type+":")
		// One without categories is apart from nobody by its label; the registry
		// says so.
		claim.Level = level
		if l.domain.Label("selinux").Type == "static" {
			// The label belongs to the domain and not to one of its runs: content
			// carries it also in between.
			l.record.Labelled = true
			if root := l.domain.Root(); root.Type == "mount" {
				claim.Content = []string{root.Source}
			}
		}
	}
	rec, err := l.registry.Reserve(claim)
	return rec.Level, err
}

// become makes this process the controller. It returns only when that failed.
func (l *launch) become(controller, status string) error {
	wanted, err := handover.Wanted()
	if err == nil && !wanted {
		err = fmt.Errorf("%s=%s: %w", handover.EnvInit, handover.None, handover.ErrNoInit)
	}
	if err != nil {
		return err
	}
	s := situation{
		driver: l.call.value("security"), path: hostPath, init: handover.Path(slot(l.call)),
	}
	s.cache = confine.Cache(l.dir)
	if s.caps, err = ownCapabilities(); err != nil {
		return err
	}
	for _, kind := range []string{"net", "ipc", "uts"} {
		if l.call.has("share-" + kind) {
			s.shared = append(s.shared, kind)
		}
	}
	s.hostNetwork = !l.domain.Network && !slices.Contains(s.shared, "net") || sharesHostNetwork(l.call)
	if err := profile.Ensure(profile.Kernel{}, l.policy.AppArmor.Profile); err != nil {
		// Whether it may be missing is the policy's to say.
		report(fmt.Errorf("warning: domain %s: %w", l.record.ID, err))
	}
	s.host = hostfacts.ForLaunch() // with the profile
	pl, err := resolve(s, l.policy, l.domain, l.record.ID, l.record.Level)
	if err != nil {
		return err
	}
	edited, err := pl.edit.Apply(l.text)
	if err != nil {
		return err
	}
	l.call.set("security", pl.driver)
	l.record.Asked = &pl.asked
	if err := l.record.SaveStep(pl.step); err != nil {
		return err
	}
	if err := l.record.Save(); err != nil {
		return err
	}
	step, err := handover.Program(pl.label)
	if err != nil {
		return err
	}
	config, err := handover.Config(pl.step, pl.label)
	if err != nil {
		return err
	}
	g, err := gate.New()
	if err != nil {
		return err
	}
	if err := l.watcher(g); err != nil {
		return err
	}
	if err := present(status, edited); err != nil {
		return err
	}
	at := slot(l.call)
	l.call.pass(at, at+1, at+2)
	if err := place(at, step, config, g.Theirs); err != nil {
		return err
	}
	err = unix.Exec(controller, append([]string{controller}, l.call.args()...), os.Environ())
	return &os.PathError{Op: "exec", Path: controller, Err: err}
}

// watcher starts the process that stays behind, and takes libvirt's ends of the
// handshake from the controller.
func (l *launch) watcher(g *gate.Gate) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var files []*os.File
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		files = append(files, r, w)
	}
	toController, fromWatcher := files[0], files[1]
	toWatcher, fromController := files[2], files[3]
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	theirs := l.call.fds("handshakefds")
	cmd := exec.Command(self, watchCommand, l.dir.Path(), l.record.ID, l.cfg.OnMismatch)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{
		g.Ours, toWatcher, fromWatcher, os.NewFile(uintptr(theirs[0]), "libvirt"), os.NewFile(uintptr(theirs[1]), "libvirt"),
		os.NewFile(uintptr(pidfd), "controller"),
	}
	// Not a child of the controller, which takes every child that ends for its
	// container.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("watcher: %w", err)
	}
	if err := l.inherited.keep(theirs...); err != nil {
		return err
	}
	var pair [2]int
	for i, f := range []*os.File{toController, fromController} {
		if pair[i], err = pass(f); err != nil {
			return err
		}
	}
	l.call.set("handshakefds", fmt.Sprintf("%d:%d", pair[0], pair[1]))
	return nil
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

// sharesHostNetwork tells whether the network namespace that a domain is to join is
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
