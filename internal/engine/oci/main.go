// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/settings"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
	"github.com/palisade-sec/palisade/svirt"
)

// Main is an OCI runtime that confines what an engine starts and leaves the work to
// another OCI runtime. It returns the exit code: the other runtime's, or 125 for
// what was refused here. A command that makes no process is rebuilt and handed on,
// and then Main does not return.
func Main(args []string, registry func(*state.Dir) svirt.Authority) int {
	w := &wrapper{registry: registry}
	code, err := w.main(args)
	if err == nil {
		return code
	}
	w.log.error(err)
	if code == 0 {
		code = failed
	}
	return code
}

// wrapper is one call of the runtime.
type wrapper struct {
	registry func(*state.Dir) svirt.Authority
	log      log
	cfg      settings.Settings
	runtime  string
	detected detected
	call     *commandLine
	// caller is the working directory of whoever called.
	caller string
	dir    *state.Dir
	host   *launch.Host
	passed passed
}

func (w *wrapper) main(args []string) (int, error) {
	own, rest, err := takeOwn(args)
	if err != nil {
		return 0, err
	}
	// Where a refusal is told does not wait until all was understood.
	w.log = logOf(rest)
	if w.cfg, err = settings.Load(own); err != nil {
		return 0, err
	}
	if w.runtime, err = delegate.FindRuntime(w.cfg.Runtime); err != nil {
		return 0, err
	}
	grammar, detected, err := detect(w.runtime, w.detectedCache())
	if err != nil {
		return 0, err
	}
	w.detected = detected
	if w.call, err = parse(grammar, rest); err != nil {
		return 0, err
	}
	if w.caller, err = os.Getwd(); err != nil {
		return 0, err
	}
	if err := keepNamed(w.call); err != nil {
		return 0, err
	}
	w.log = log{path: w.call.globalPath("log", w.dirs()), format: w.call.Global.Value("log-format")}
	topic, help := w.call.helpTopic()
	switch {
	case help, w.call.Version, w.call.Command == "":
		return w.about(w.detected, topic)
	case w.call.Role() == roleRestore:
		return 0, errRestore
	case w.call.Command == "state", w.call.Command == "list":
		return w.show()
	case w.call.Role() == rolePass, w.call.Role() == roleUpdate:
		return 0, w.replace()
	}
	if w.dir, err = state.Open(w.cfg.State); err != nil {
		return 0, err
	}
	w.host = &launch.Host{
		Dir: w.dir, Registry: w.registry(w.dir), Cache: launch.Cache(w.dir),
		Lenient: w.cfg.OnMismatch == "warn", Warn: w.log.warn,
	}
	for _, layer := range w.cfg.Require {
		w.host.Require = append(w.host.Require, bundle.Layer(layer))
	}
	switch w.call.Role() {
	case roleCreate, roleRun:
		return w.create()
	case roleStart:
		return w.start()
	case roleExec:
		return w.exec()
	case roleDelete:
		return w.delete()
	case roleMounts:
		return 0, w.mounts()
	default:
		return 0, fmt.Errorf("command %s: %s is not handled", w.call.Command, w.call.Role())
	}
}

var errRestore = errors.New("restore: the processes of a checkpoint bring filters and labels of their own, and run before they can be verified")

// mounts refuses to change what was verified when a container of ours was started.
func (w *wrapper) mounts() error {
	_, ours, err := w.record()
	switch {
	case err != nil:
		return err
	case ours:
		return fmt.Errorf("%s: the mounts of container %s were verified when it was started, and are not changed later", w.call.Command, w.call.ID)
	}
	return w.replace()
}

// about prints what palisade-oci is, or how it is called: all of it, or the command
// that is the topic.
func (w *wrapper) about(d detected, topic string) (int, error) {
	if w.call.Version {
		fmt.Print(versionText(program, version(), w.runtime, d.Output))
		return 0, nil
	}
	fmt.Print(w.call.Grammar.helpText(program, w.runtime, topic))
	return 0, nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// replace makes this process the runtime.
func (w *wrapper) replace() error {
	err := unix.Exec(w.runtime, slices.Concat([]string{w.runtime}, w.call.argv()), cleanEnvironment(os.Environ()))
	return &os.PathError{Op: "exec", Path: w.runtime, Err: err}
}

// dirs are the folders to which paths of the command line are relative.
func (w *wrapper) dirs() dirs { return dirs{Caller: w.caller, Bundle: w.call.bundleDir(w.caller)} }

// root is the folder in which the runtime keeps its containers; empty for its
// default.
func (w *wrapper) root() string { return w.call.globalPath("root", w.dirs()) }

// realRuntime is how the runtime is called about the same container later.
func (w *wrapper) realRuntime() state.Runtime {
	r := state.Runtime{Path: w.runtime, Root: w.root()}
	if r.Root != "" {
		r.Args = append(r.Args, "--root="+r.Root)
	}
	if v := w.call.Global.Value("cgroup-manager"); v != "" {
		r.Args = append(r.Args, "--cgroup-manager="+v)
	}
	if w.call.Global.Bool("systemd-cgroup") {
		r.Args = append(r.Args, "--systemd-cgroup")
	}
	return r
}

// record finds what is known of the container that the command line names. One
// without a record is not ours, unless its runtime or the kernel say so.
func (w *wrapper) record() (rec state.Record, ours bool, err error) {
	rec, err = w.dir.Lookup(w.root(), w.call.ID)
	if err == nil {
		return rec, true, nil
	}
	if !errors.Is(err, state.ErrNotFound) {
		return rec, false, err
	}
	labels, err := w.host.Registry.List()
	if err != nil {
		return rec, false, err
	}
	v, found, err := witness.Ours(w.dir, labels, delegate.Query, w.realRuntime(), w.call.ID)
	if err != nil || !found {
		return rec, false, err
	}
	return rec, false, v.Err(w.dir, w.call.ID)
}

// detectedCache keeps what a runtime is, in the state directory.
type detectedCache struct{ file string }

// detectedCache is nil where nothing can be kept.
func (w *wrapper) detectedCache() versionCache {
	if w.cfg.State == "" {
		return nil
	}
	return detectedCache{filepath.Join(w.cfg.State, "runtimes.cache")}
}

const maxDetected = 1 << 16

func (c detectedCache) read() map[string]detected {
	f, b, err := readFile(c.file)
	if err != nil || len(b) > maxDetected {
		return nil
	}
	defer f.Close()
	// Only what root has written says which grammar holds.
	if fi, err := f.Stat(); err != nil || fi.Mode().Perm()&0o022 != 0 {
		return nil
	}
	var all map[string]detected
	if json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

func (c detectedCache) Load(key string) (detected, bool) {
	d, ok := c.read()[key]
	return d, ok
}

func (c detectedCache) Store(key string, d detected) {
	all := c.read()
	const most = 32
	if all == nil || len(all) >= most {
		all = map[string]detected{}
	}
	all[key] = d
	if b, err := json.Marshal(all); err == nil {
		_ = state.WriteFile(c.file, b, 0o600) // it is only there to save time
	}
}

// facts reads the host, right before it decides.
func (w *wrapper) facts() { w.host.Target = hostfacts.ForLaunch() }
