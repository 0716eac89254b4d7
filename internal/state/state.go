// SPDX-License-Identifier: Apache-2.0

// Package state keeps what Palisade knows about containers in a folder.
//
// Each container has a folder with a sealed [Record] in it. A folder appears under
// its name only when it is whole, and whoever works with a container holds a lock
// on it meanwhile. So what a killed process left behind is told from what is in
// use, and [Dir.Sweep] hands it out to be cleaned up.
//
// A container is known by the folder in which its runtime keeps it and its ID
// there; see [Dir.Lookup]. A record that cannot be read is [ErrDamaged], never
// [ErrNotFound]: the container that it describes may still run.
package state

import (
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
	ErrName = errors.New("an ID is up to 1024 letters, digits, '_', '+', ',', '.' and '-', and neither '.' nor '..'")
	// ErrAmbiguous says that several containers have the name.
	ErrAmbiguous = errors.New("several containers have that ID")
)

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

// Folder is the folder of the container with the key.
func (d *Dir) Folder(key string) string { return filepath.Join(d.containers(), key) }

func (d *Dir) containers() string { return filepath.Join(d.root, "containers") }

// Container is one container's folder, locked against all other processes until
// Close or Remove.
type Container struct {
	Record
	// Damaged is why the record cannot be read, nil when it was. Record then holds
	// the claim, which was written when the folder was made, or no more than the
	// key. It wraps [ErrDamaged].
	Damaged error
	dir     *Dir
	path    string
	lock    *os.File
}

// Path is a file or folder in the container's folder.
func (c *Container) Path(elem ...string) string {
	return filepath.Join(append([]string{c.path}, elem...)...)
}

// Folders that are not yet whole, and those on their way out, have names that begin
// so. No key does.
const (
	newPrefix = ".new-"
	oldPrefix = ".old-"
)

// guard takes the lock on the set of containers: shared to add one, exclusive to
// look for leftovers.
func (d *Dir) guard(how int) (*os.File, error) {
	return lockFile(filepath.Join(d.root, "containers.lock"), how)
}

func lockFile(path string, how int) (*os.File, error) { return lockOpened(path, os.O_CREATE, how) }

func lockOpened(path string, flag, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag|unix.O_NOFOLLOW, 0o600)
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

// Create claims the container and writes its record. The error wraps [ErrExists]
// or [ErrName].
func (d *Dir) Create(r Record) (_ *Container, err error) {
	if !ValidID(r.ID) {
		return nil, fmt.Errorf("ID %.64q: %w", r.ID, ErrName)
	}
	r.Version = Version
	if err := d.remember(r.Runtime); err != nil {
		return nil, err
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
	if err := markBoot(tmp); err != nil {
		return nil, err
	}
	for _, name := range []string{claimFile, recordFile} {
		b, err := seal(&c.Record)
		if err != nil {
			return nil, err
		}
		if err := WriteFile(c.Path(name), b, 0o600); err != nil {
			return nil, err
		}
	}
	if c.Key, err = d.place(tmp, r); err != nil {
		return nil, err
	}
	c.path = filepath.Join(d.containers(), c.Key)
	return c, nil
}

// place gives a new folder the first key of its container that is free, and
// refuses one that the state directory has under another.
func (d *Dir) place(tmp string, r Record) (string, error) {
	// Between the looks no other process may take or give a key.
	names, err := lockFile(filepath.Join(d.root, "names.lock"), unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer names.Close()
	keys := keysOf(r.Runtime.Root, r.ID)
	switch old, err := d.Lookup(r.Runtime.Root, r.ID); {
	case err == nil:
		return "", fmt.Errorf("container %s: %w", old.Key, ErrExists)
	case errors.Is(err, ErrDamaged):
		return "", fmt.Errorf("container %s: %w", r.ID, errors.Join(ErrExists, err))
	case !errors.Is(err, ErrNotFound):
		return "", err
	}
	for _, key := range keys {
		final := filepath.Join(d.containers(), key)
		switch err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err {
		case nil:
			return key, nil
		case unix.EEXIST: // of another runtime root
		default:
			return "", &os.LinkError{Op: "rename", Old: tmp, New: final, Err: err}
		}
	}
	return "", fmt.Errorf("container %s: %w", r.ID, ErrExists)
}

// Names of files in a container's folder. The claim is the record as it was when
// the folder was made, and does not change.
const (
	recordFile = "record.json"
	claimFile  = "claim.json"
)

// Save writes the record, whole or not at all. A damaged record stays as it is.
func (c *Container) Save() error {
	if c.Damaged != nil {
		return c.Damaged
	}
	c.Version = Version
	b, err := seal(&c.Record)
	if err != nil {
		return err
	}
	return WriteFile(c.Path(recordFile), b, 0o600)
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

// Share is the lock, for a process that takes over the work with the container; see
// [Dir.Adopt]. The container is in use until every process that has it has closed it.
func (c *Container) Share() *os.File { return c.lock }

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

// SaveStep keeps what the last step does for processes that are added later, and
// its digest in the record, which the caller then saves.
func (c *Container) SaveStep(step *laststep.Config) error {
	b := step.Encode()
	if err := WriteFile(c.Path(StepFile), b, 0o600); err != nil {
		return err
	}
	c.Step = Digest(b)
	return nil
}

// Step reads what the last step of a container does, nil when its record says that
// it has none. A file that is absent or another wraps [ErrDamaged].
func (d *Dir) Step(r Record) (*laststep.Config, error) {
	if r.Step == "" {
		return nil, nil
	}
	path := filepath.Join(d.containers(), r.Key, StepFile)
	b, err := readBounded(path)
	if err == nil && Digest(b) != r.Step {
		err = errors.New("it is not the file that the record names")
	}
	var step *laststep.Config
	if err == nil {
		step, err = laststep.Decode(b)
	}
	if err != nil {
		if _, serr := os.Lstat(filepath.Dir(path)); errors.Is(serr, fs.ErrNotExist) {
			return nil, fmt.Errorf("%.64q: %w", r.Key, ErrNotFound) // removed meanwhile
		}
		return nil, &DamagedError{Key: r.Key, Folder: filepath.Dir(path), File: StepFile, Cause: err}
	}
	return step, nil
}

func (d *Dir) names() ([]string, error) {
	entries, err := os.ReadDir(d.containers())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ValidKey(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// List reads all records in the order of keys. What cannot be read is joined into
// the error, and does not keep the others away.
func (d *Dir) List() ([]Record, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var out []Record
	var errs []error
	for _, n := range names {
		r, err := d.Get(n)
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, ErrNotFound): // removed since we listed it
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Lock takes the lock of the container with the key. The error wraps
// [ErrNotFound], [ErrBusy] when another process has it, or [ErrDamaged].
func (d *Dir) Lock(key string) (*Container, error) {
	c, err := d.Hold(key)
	if err == nil && c.Damaged != nil {
		c.Close()
		return nil, c.Damaged
	}
	return c, err
}

// Adopt is Lock for a process that has inherited the lock of another, from
// [Container.Share]. The file is closed with the container, and with an error.
func (d *Dir) Adopt(key string, lock *os.File) (*Container, error) {
	fail := func(err error) (*Container, error) {
		lock.Close()
		return nil, err
	}
	if !ValidKey(key) {
		return fail(fmt.Errorf("%.64q: %w", key, ErrNotFound))
	}
	c := &Container{dir: d, path: filepath.Join(d.containers(), key), lock: lock}
	held, err := lock.Stat()
	if err != nil {
		return fail(err)
	}
	now, err := os.Lstat(c.Path("lock"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(fmt.Errorf("%q: %w", key, ErrNotFound))
	case err != nil:
		return fail(err)
	case !os.SameFile(now, held):
		return fail(fmt.Errorf("container %s: %w", key, ErrBusy))
	}
	// It is this lock already, or it is another's.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fail(fmt.Errorf("container %s: %w", key, ErrBusy))
	}
	if c.Record, err = d.Get(key); err != nil {
		return fail(err)
	}
	return c, nil
}

// Hold is Lock for a caller that can do with a damaged record; see
// [Container.Damaged].
func (d *Dir) Hold(key string) (*Container, error) {
	if !ValidKey(key) {
		return nil, fmt.Errorf("%.64q: %w", key, ErrNotFound)
	}
	return d.lock(filepath.Join(d.containers(), key))
}

func (d *Dir) lock(path string) (*Container, error) {
	key := filepath.Base(path)
	lock, err := lockOpened(filepath.Join(path, "lock"), 0, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) {
		if fi, serr := os.Lstat(path); serr == nil && fi.IsDir() && ValidKey(key) {
			if _, again := os.Lstat(filepath.Join(path, "lock")); again == nil {
				return nil, fmt.Errorf("container %s: %w", key, ErrBusy) // made since
			}
			// A folder without its lock is not absent.
			return nil, &DamagedError{Key: key, Folder: path, File: "lock", Cause: fs.ErrNotExist}
		}
		return nil, fmt.Errorf("%q: %w", key, ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("container %s: %w", key, err)
	}
	c := &Container{dir: d, path: path, lock: lock}
	// The key may have been taken over meanwhile.
	if now, err := os.Stat(filepath.Join(path, "lock")); err != nil {
		c.Close()
		return nil, fmt.Errorf("%q: %w", key, ErrNotFound)
	} else if held, err := lock.Stat(); err != nil || !os.SameFile(now, held) {
		c.Close()
		return nil, fmt.Errorf("container %s: %w", key, ErrBusy)
	}
	if !ValidKey(key) {
		return c, nil
	}
	c.Record, c.Damaged = d.Get(key)
	if c.Damaged != nil {
		var err error
		if c.Record, err = d.Claimed(key); err != nil {
			c.Record = Record{Key: key, ID: key}
		}
	}
	return c, nil
}

// Absent calls fn if no container has the key, and none can take it until fn
// returns. Otherwise the error wraps [ErrExists].
func (d *Dir) Absent(key string, fn func() error) error {
	guard, err := d.guard(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer guard.Close()
	switch _, err := os.Lstat(filepath.Join(d.containers(), key)); {
	case errors.Is(err, fs.ErrNotExist):
		return fn()
	case err != nil:
		return err
	}
	return fmt.Errorf("container %s: %w", key, ErrExists)
}

// Sweep calls fn with every container that no process works with, locked; those
// with a damaged record too. What a killed process left half made is removed.
// Errors are joined and do not end the sweep; fn has to Close or Remove what it is
// given.
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
