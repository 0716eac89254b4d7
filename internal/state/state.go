// SPDX-License-Identifier: Apache-2.0

// Package state keeps what Palisade knows about containers in a folder.
//
// Each container has a folder of its own with a record in it. A folder appears
// under its name only when it is whole, and whoever works with a container holds
// a lock on it for as long; so what a process left behind that was killed at any
// instruction is told from what is in use, and [Dir.Sweep] hands it out to be
// cleaned up.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/atomicfile"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/internal/laststep"
)

// DefaultDir is where the state is kept unless PALISADE_STATE names another
// folder.
const DefaultDir = "/var/lib/palisade"

// Environment variable that names the state directory.
const EnvDir = "PALISADE_STATE"

var (
	// ErrExists says that a container of that name is there.
	ErrExists = errors.New("a container of that name exists")
	// ErrNotFound says that there is no container of that name.
	ErrNotFound = errors.New("no such container")
	// ErrBusy says that another process works with the container.
	ErrBusy = errors.New("container is in use by another process")
	// ErrName says that a name cannot be a container's.
	ErrName = errors.New("a name is up to 128 letters, digits, '_', '+', '.' and '-', and begins with none of the last two")
)

// Record is what is known about one container.
type Record struct {
	ID string `json:"id"`
	// Engine says who made the container: "palisade" for palisade run, "oci"
	// for an engine that called palisade-oci, "libvirt" for a domain of libvirt's
	// LXC driver.
	Engine string        `json:"engine"`
	Policy policy.Policy `json:"policy"`
	// Level is the MCS label it holds.
	Level   string    `json:"level"`
	Created time.Time `json:"created"`
	Runtime Runtime   `json:"runtime"`
	Bundle  string    `json:"bundle"`
	// Controller is the process with which a domain of libvirt lives and ends,
	// Init the first process inside.
	Controller *Process `json:"controller,omitempty"`
	Init       *Process `json:"init,omitempty"`
	// Image is the root of the unpacked image that it uses, if any.
	Image   string   `json:"image,omitempty"`
	Command []string `json:"command"`
	// Labelled tells whether content outside the container's own folder
	// carries its label, so that the label must not be given out again.
	Labelled bool `json:"labelled,omitempty"`
	// Asked is what is to be in force, in the form of package effective.
	Asked json.RawMessage `json:"asked,omitempty"`
	// Profile is the container's own AppArmor profile, to be unloaded with it;
	// EngineProfile the one that its engine has asked for.
	Profile       string `json:"profile,omitempty"`
	EngineProfile string `json:"engine_profile,omitempty"`
}

// Runtime is how the OCI runtime that keeps the container is called.
type Runtime struct {
	Path string `json:"path"`
	// Args stand before the command: --root and what else is global.
	Args []string `json:"args,omitempty"`
}

// Dir is a state directory.
type Dir struct{ root string }

// Locate is the state directory that the environment names, or the default.
func Locate() string {
	if dir := os.Getenv(EnvDir); dir != "" {
		return dir
	}
	return DefaultDir
}

// Open prepares the state directory. It must belong to the caller and be
// writable to nobody else.
func Open(root string) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for _, dir := range []string{root, filepath.Join(root, "containers"), filepath.Join(root, "images"), filepath.Join(root, "runtime"), filepath.Join(root, "rootfs")} {
		if dir != root {
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("state directory: %w", err)
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return nil, fmt.Errorf("state directory: %w", &fs.PathError{Op: "stat", Path: dir, Err: err})
		}
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return nil, fmt.Errorf("state directory: %s is not a folder", dir)
		case int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0:
			return nil, fmt.Errorf("state directory: %s belongs to user %d with mode %04o, others could write to it", dir, st.Uid, st.Mode&0o7777)
		}
	}
	return &Dir{root: root}, nil
}

// Path is the state directory.
func (d *Dir) Path() string { return d.root }

// Registry is the file of the labels.
func (d *Dir) Registry() string { return filepath.Join(d.root, "labels.db") }

// RuntimeRoot is the folder where OCI runtimes keep their own state.
func (d *Dir) RuntimeRoot() string { return filepath.Join(d.root, "runtime") }

// RootFS is an empty folder on which every container's root is mounted, each in a
// mount namespace of its own. It stays: removing a folder on which something is
// mounted in another namespace takes the kernel some 10 ms.
func (d *Dir) RootFS() string { return filepath.Join(d.root, "rootfs") }

// maxCached bounds the number of cached values.
const maxCached = 512

func (d *Dir) cacheFile(key string) string { return filepath.Join(d.root, "cache", key) }

// Load returns a value that Store has kept under a key, a name of letters and
// digits.
func (d *Dir) Load(key string) ([]byte, bool) {
	b, err := os.ReadFile(d.cacheFile(key))
	return b, err == nil
}

// Store keeps a value, or not: it is only there to save time.
func (d *Dir) Store(key string, value []byte) {
	dir := filepath.Join(d.root, "cache")
	if entries, err := os.ReadDir(dir); err == nil && len(entries) >= maxCached {
		// Old kernels, old builds, profiles of images that are gone.
		_ = os.RemoveAll(dir)
	}
	_ = os.Mkdir(dir, 0o700)
	_ = WriteFile(d.cacheFile(key), value, 0o600)
}

// Images is the folder of unpacked images.
func (d *Dir) Images() string { return filepath.Join(d.root, "images") }

func (d *Dir) containers() string { return filepath.Join(d.root, "containers") }

// ValidName tells whether a name can be a container's.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '_' && c != '+' && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 128
}

// Container is one container's folder, locked against everybody else until
// Close or Remove.
type Container struct {
	Record
	dir  *Dir
	path string
	lock *os.File
}

// Path is a file or folder in the container's folder.
func (c *Container) Path(elem ...string) string {
	return filepath.Join(append([]string{c.path}, elem...)...)
}

// newPrefix begins the names of folders that are not yet whole. No container's
// name can begin so.
const newPrefix = ".new-"

// oldPrefix begins the names of folders that are on their way out.
const oldPrefix = ".old-"

// guard takes the lock on the set of containers: shared to add one, exclusive to
// look for leftovers.
func (d *Dir) guard(how int) (*os.File, error) {
	return lockFile(filepath.Join(d.root, "containers.lock"), how)
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, ErrBusy
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// Create claims r.ID and writes the record. The error wraps [ErrExists] or
// [ErrName].
func (d *Dir) Create(r Record) (_ *Container, err error) {
	if !ValidName(r.ID) {
		return nil, fmt.Errorf("name %q: %w", r.ID, ErrName)
	}
	guard, err := d.guard(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	tmp, err := os.MkdirTemp(d.containers(), newPrefix)
	if err != nil {
		return nil, err
	}
	c := &Container{Record: r, dir: d, path: tmp}
	defer func() {
		if err != nil {
			c.Close()
			os.RemoveAll(tmp)
		}
	}()
	if c.lock, err = lockFile(filepath.Join(tmp, "lock"), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	if err := c.Save(); err != nil {
		return nil, err
	}
	final := filepath.Join(d.containers(), r.ID)
	switch err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err {
	case nil:
		c.path = final
		return c, nil
	case unix.EEXIST:
		return nil, fmt.Errorf("container %s: %w", r.ID, ErrExists)
	default:
		return nil, &os.LinkError{Op: "rename", Old: tmp, New: final, Err: err}
	}
}

const recordFile = "record.json"

// Save writes the record, whole or not at all.
func (c *Container) Save() error {
	b, err := json.MarshalIndent(c.Record, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(c.Path(recordFile), append(b, '\n'), 0o600)
}

// WriteFile replaces the file at path so that a reader, and whoever comes after a
// kill -9, finds either the old or the new content. It does not wait for the
// disk: what it writes is about running processes, which a power cut ends too.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return atomicfile.File{Mode: mode, Volatile: true}.Write(path, data)
}

// Close gives the lock back and leaves the container where it is.
func (c *Container) Close() {
	if c.lock != nil {
		c.lock.Close()
		c.lock = nil
	}
}

// RuntimeLock is for the OCI runtime to inherit, so that it is known of a
// container without an owner whether its runtime is still there.
func (c *Container) RuntimeLock() (*os.File, error) {
	return lockFile(c.Path(runtimeLockFile), unix.LOCK_EX|unix.LOCK_NB)
}

// RuntimeRuns tells whether a process that has inherited the lock is there.
func (c *Container) RuntimeRuns() (bool, error) {
	f, err := lockFile(c.Path(runtimeLockFile), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, ErrBusy) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	return false, f.Close()
}

const runtimeLockFile = "runtime.lock"

// LockBeyondExec keeps the container in use while this process is replaced by
// another program, until that and all that inherit its descriptor have ended. The
// descriptor gets a number of at least min.
func (c *Container) LockBeyondExec(min int) error {
	if _, err := unix.FcntlInt(c.lock.Fd(), unix.F_DUPFD, min); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return nil
}

// Remove deletes the container's folder. The name is free before the content is
// gone.
func (c *Container) Remove() error {
	defer c.Close()
	// Sweep must not find it half removed.
	guard, err := c.dir.guard(unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer guard.Close()
	old := filepath.Join(c.dir.containers(), oldPrefix+filepath.Base(c.path)+fmt.Sprintf(".%d", time.Now().UnixNano()))
	if err := os.Rename(c.path, old); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	c.path = old
	return os.RemoveAll(old)
}

// StepFile is the file, in a container's folder, with what the last step before
// its workload does.
const StepFile = "step"

// Step reads what the last step of a container does, nil when it has none.
func (d *Dir) Step(id string) (*laststep.Config, error) {
	b, err := os.ReadFile(filepath.Join(d.containers(), id, StepFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	c, err := laststep.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	return c, nil
}

// Get reads the record of a container without taking its lock. A prefix of the
// name will do when it fits only one. The error wraps [ErrNotFound].
func (d *Dir) Get(name string) (Record, error) {
	if !ValidName(name) {
		return Record{}, fmt.Errorf("%q: %w", name, ErrNotFound)
	}
	if r, err := d.read(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	names, err := d.names()
	if err != nil {
		return Record{}, err
	}
	var fits []string
	for _, n := range names {
		if strings.HasPrefix(n, name) {
			fits = append(fits, n)
		}
	}
	switch len(fits) {
	case 0:
		return Record{}, fmt.Errorf("%q: %w", name, ErrNotFound)
	case 1:
		return d.read(fits[0])
	}
	return Record{}, fmt.Errorf("%q fits %d containers, among them %s and %s: %w", name, len(fits), fits[0], fits[1], ErrNotFound)
}

// maxRecord bounds a record in bytes.
const maxRecord = 4 << 20

func (d *Dir) read(name string) (Record, error) {
	path := filepath.Join(d.containers(), name, recordFile)
	fi, err := os.Lstat(path)
	if err != nil {
		return Record{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRecord {
		return Record{}, fmt.Errorf("record %s: not a file of at most %d bytes", path, maxRecord)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("record %s: %w", path, err)
	}
	if r.ID != name {
		return Record{}, fmt.Errorf("record %s: is of container %q", path, r.ID)
	}
	return r, nil
}

func (d *Dir) names() ([]string, error) {
	entries, err := os.ReadDir(d.containers())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// List reads all records in the order of names. What cannot be read is joined
// into the error, and does not keep the others away.
func (d *Dir) List() ([]Record, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var out []Record
	var errs []error
	for _, n := range names {
		r, err := d.read(n)
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, fs.ErrNotExist): // gone since we listed it
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Lock takes the lock of one container. The error wraps [ErrNotFound], or
// [ErrBusy] when another process has it.
func (d *Dir) Lock(name string) (*Container, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%q: %w", name, ErrNotFound)
	}
	return d.lock(filepath.Join(d.containers(), name))
}

func (d *Dir) lock(path string) (*Container, error) {
	name := filepath.Base(path)
	lock, err := lockFile(filepath.Join(path, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", name, ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("container %s: %w", name, err)
	}
	c := &Container{dir: d, path: path, lock: lock}
	// The name may have been taken over while we waited for nothing.
	if now, err := os.Stat(filepath.Join(path, "lock")); err != nil {
		c.Close()
		return nil, fmt.Errorf("%q: %w", name, ErrNotFound)
	} else if held, err := lock.Stat(); err != nil || !os.SameFile(now, held) {
		c.Close()
		return nil, fmt.Errorf("container %s: %w", name, ErrBusy)
	}
	if ValidName(name) {
		r, err := d.read(name)
		if err != nil {
			// An unreadable record still has to be cleaned up.
			r = Record{ID: name}
		}
		c.Record = r
	}
	return c, nil
}

// Absent calls fn if no container has the ID, and none can take it until fn returns.
// Otherwise the error wraps [ErrExists].
func (d *Dir) Absent(id string, fn func() error) error {
	guard, err := d.guard(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer guard.Close()
	switch _, err := os.Lstat(filepath.Join(d.containers(), id)); {
	case errors.Is(err, fs.ErrNotExist):
		return fn()
	case err != nil:
		return err
	}
	return fmt.Errorf("container %s: %w", id, ErrExists)
}

// Sweep calls fn with every container that no process works with, locked. What
// a killed process left half made is removed on the way. Errors are joined and
// do not end the sweep; fn has to Close or Remove what it is given.
func (d *Dir) Sweep(fn func(*Container) error) error {
	guard, err := d.guard(unix.LOCK_EX)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(d.containers())
	if err != nil {
		guard.Close()
		return err
	}
	var found []*Container
	var errs []error
	for _, e := range entries {
		path := filepath.Join(d.containers(), e.Name())
		half := strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), oldPrefix)
		c, err := d.lock(path)
		switch {
		case err == nil && half:
			errs = append(errs, os.RemoveAll(path))
			c.Close()
		case err == nil:
			found = append(found, c)
		case errors.Is(err, ErrNotFound) && half:
			errs = append(errs, os.RemoveAll(path))
		case !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNotFound):
			errs = append(errs, err)
		}
	}
	guard.Close()
	slices.SortFunc(found, func(a, b *Container) int { return strings.Compare(a.path, b.path) })
	for _, c := range found {
		errs = append(errs, fn(c))
	}
	return errors.Join(errs...)
}
