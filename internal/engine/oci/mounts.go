// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A MountError is a mount of a configuration that is refused.
type MountError struct {
	// Index counts the mounts of the configuration; -1 is the root.
	Index       int
	Destination string
	Err         error
}

func (e *MountError) Error() string {
	if e.Index < 0 {
		return fmt.Sprintf("root %q: %v", e.Destination, e.Err)
	}
	return fmt.Sprintf("mounts[%d] at %q: %v", e.Index, e.Destination, e.Err)
}

func (e *MountError) Unwrap() error { return e.Err }

// Reasons of a [*MountError].
var (
	ErrBelowProc  = errors.New("nothing may be mounted below /proc")
	ErrNoProcfs   = errors.New("only a whole procfs may be mounted at /proc")
	ErrOverRoot   = errors.New("nothing may be mounted over the root")
	ErrRootFolder = errors.New("/proc, /dev and /sys of the root must be folders, not links or files")
	ErrStateReach = errors.New("reaches the state folder of Palisade")
	errTooMany    = errors.New("too many mounts, or paths too long")
	errLinks      = errors.New("too many symbolic links")
)

// Bounds for what a configuration may ask of the checks.
const (
	maxMounts = 4096
	maxLinks  = 255
	maxSteps  = 1 << 19 // of 32 bytes of path each
)

// Root is the root of a container.
type Root struct {
	// Path is absolute and has no links.
	Path string
	// Dev and Ino identify the folder.
	Dev, Ino uint64
}

// resolveRoot finds the root that a configuration in the folder bundle names, and
// checks it as [CheckRoot] does.
//
// Runtimes do not agree on a path in which ".." follows a link: runc shortens it
// first. Such a path is refused, unless both readings are one folder.
func resolveRoot(bundle, rootPath string) (Root, error) {
	if rootPath == "" {
		return Root{}, errNoRoot
	}
	if !filepath.IsAbs(rootPath) {
		if !filepath.IsAbs(bundle) {
			return Root{}, fmt.Errorf("%w: %q", errBundle, bundle)
		}
		rootPath = bundle + "/" + rootPath
	}
	real, err := filepath.EvalSymlinks(rootPath)
	if err != nil {
		return Root{}, fmt.Errorf("root of the container: %w", err)
	}
	if clean, err := filepath.EvalSymlinks(filepath.Clean(rootPath)); err != nil || clean != real {
		return Root{}, errors.Join(fmt.Errorf("root of the container: %q and %q are not the same folder", rootPath, filepath.Clean(rootPath)), err)
	}
	r := Root{Path: real}
	if r.Dev, r.Ino, err = checkRoot(real); err != nil {
		return Root{}, err
	}
	return r, nil
}

// CheckRoot refuses a root whose /proc, /dev or /sys is a link or a file: runtimes
// mount through the link, and what they then take for procfs is a folder that the
// image or a volume has filled (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579).
// rootfs is a path without links.
//
// A root that others write to can change afterwards; what was mounted in the end
// is compared with [Mounted].
func CheckRoot(rootfs string) error {
	_, _, err := checkRoot(rootfs)
	return err
}

func checkRoot(rootfs string) (dev, ino uint64, err error) {
	fd, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open root", Path: rootfs, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: rootfs, Err: err}
	}
	dev, ino = uint64(st.Dev), st.Ino
	for _, name := range []string{"proc", "dev", "sys"} {
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return 0, 0, &os.PathError{Op: "stat", Path: filepath.Join(rootfs, name), Err: err}
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return 0, 0, &MountError{Index: -1, Destination: rootfs, Err: fmt.Errorf("%w: /%s", ErrRootFolder, name)}
		}
	}
	return dev, ino, nil
}

// Mount is what one mount of a configuration should be once the container is
// there, for comparison with what the kernel says about its mount namespace.
type Mount struct {
	// Index counts the mounts of the configuration.
	Index int
	// Destination is the mount point in the container: absolute, without links, as
	// far as the root and the sources of earlier mounts say.
	Destination string
	// Type is the type of the file system; empty for a bind mount.
	Type string
	// Bind is a mount of Source, a path of the host without links, which Dev and
	// Ino identify. Recursive takes along what is mounted below it.
	Bind, Recursive bool
	Source          string
	Dev, Ino        uint64
	ReadOnly        bool
	// Covered is a mount that a later one at the same place or above it hides.
	Covered bool
	// Volume is the source of a bind mount that can be written and in which the mount
	// point was looked for; empty for none.
	Volume string
}

// Mounted returns what the mounts of s should be, in their order. The root's path
// is absolute, as [Edit] leaves it. A destination or source that cannot be
// resolved is a [*MountError].
func Mounted(s *specs.Spec) ([]Mount, error) {
	out, _, err := mounted(s)
	return out, err
}

// mounted also returns who follows paths with all mounts in place.
func mounted(s *specs.Spec) ([]Mount, *walker, error) {
	if s.Root == nil || !filepath.IsAbs(s.Root.Path) {
		return nil, nil, errNoRoot
	}
	if len(s.Mounts) > maxMounts {
		return nil, nil, errTooMany
	}
	w := &walker{root: s.Root.Path, at: map[string]string{}, writable: map[string]string{}}
	out := make([]Mount, 0, len(s.Mounts))
	for i, m := range s.Mounts {
		fail := func(err error) ([]Mount, *walker, error) {
			return nil, nil, &MountError{Index: i, Destination: m.Destination, Err: err}
		}
		dest, err := w.resolve(m.Destination)
		if err != nil {
			return fail(err)
		}
		asked := Mount{Index: i, Destination: dest, Type: m.Type, Volume: w.through}
		asked.Bind, asked.ReadOnly = isBind(m)
		content := unknownContent
		if asked.Bind {
			asked.Type = ""
			for _, o := range m.Options {
				asked.Recursive = asked.Recursive || o == "rbind"
			}
			if !filepath.IsAbs(m.Source) {
				return fail(fmt.Errorf("source %q is no absolute path", m.Source))
			}
			if asked.Source, err = filepath.EvalSymlinks(m.Source); err != nil {
				return fail(err)
			}
			var st unix.Stat_t
			if err := unix.Lstat(asked.Source, &st); err != nil {
				return fail(&os.PathError{Op: "stat", Path: asked.Source, Err: err})
			}
			asked.Dev, asked.Ino = uint64(st.Dev), st.Ino
			content = asked.Source
		}
		copies := false
		for _, o := range m.Options {
			copies = copies || o == "tmpcopyup"
		}
		if !copies { // a copy has the links that were there before
			w.at[dest] = content
			delete(w.writable, dest)
			if asked.Bind && !asked.ReadOnly {
				w.writable[dest] = asked.Source
			}
		}
		for j := range out {
			out[j].Covered = out[j].Covered || out[j].Destination == dest || below(out[j].Destination, dest)
		}
		out = append(out, asked)
	}
	return out, w, nil
}

// below reports whether p is below dir; both are clean and absolute.
func below(p, dir string) bool {
	return dir == "/" && p != "/" || strings.HasPrefix(p, dir+"/")
}

// unknownContent stands for a file system of the kernel, in which no container has
// put links.
const unknownContent = ""

// walker follows paths inside a container that is not there yet.
type walker struct {
	root  string
	at    map[string]string // mount point → folder of the host
	steps int
	// writable are the mount points of volumes that can be written, with their
	// sources; through is the source of the last one that was looked into.
	writable map[string]string
	through  string
}

// host is the path on the host of a path inside, which has no links, and the mount
// point that it lies below.
func (w *walker) host(p string) (name, point string, known bool) {
	for dir := p; ; dir = path.Dir(dir) {
		w.steps += 1 + len(dir)/32
		if source, mounted := w.at[dir]; mounted {
			return source + p[len(strings.TrimSuffix(dir, "/")):], dir, source != unknownContent
		}
		if dir == "/" {
			return w.root + p, dir, true
		}
	}
}

// resolve follows the links of a destination the way runtimes do: inside the root,
// with the mounts before it in place, and with folders that do not exist yet taken
// as made.
//
// Source: filepath-securejoin (runc); openat2(2), RESOLVE_IN_ROOT (crun).
func (w *walker) resolve(dest string) (string, error) {
	if len(dest) > unix.PathMax {
		return "", errTooMany
	}
	cur, rest, links := "/", dest, 0
	w.through = ""
	for rest != "" {
		var comp string
		comp, rest, _ = strings.Cut(rest, "/")
		switch comp {
		case "", ".":
			continue
		case "..":
			cur = path.Dir(cur)
			continue
		}
		next := path.Join(cur, comp)
		host, point, known := w.host(next)
		if w.steps > maxSteps {
			return "", errTooMany
		}
		if volume := w.writable[point]; volume != "" && point != next {
			w.through = volume
		}
		if known {
			target, err := os.Readlink(host)
			switch {
			case err == nil:
				if links++; links > maxLinks {
					return "", errLinks
				}
				if strings.HasPrefix(target, "/") {
					cur = "/"
				}
				rest = target + "/" + rest
				continue
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
				// No link, or not there.
			default:
				return "", err
			}
		}
		cur = next
	}
	return cur, nil
}

// CheckMounts refuses mounts that decide what runs first in a container or what its
// kernel interfaces say: the last step is executed through /proc, and masks and
// checks trust it. Refused are
//
//   - whatever is mounted below /proc
//   - whatever is mounted at /proc and is no whole procfs: a mount of the type proc,
//     or a bind of the root of one
//   - whatever is mounted over the root
//   - device nodes at or below /proc, which runtimes mount where they cannot be made
//
// A destination is taken as it is written, shortened, and with the links of the
// root and of earlier mounts followed. The root's path is absolute, as [Edit]
// leaves it. The error is a [*MountError].
func CheckMounts(s *specs.Spec) error {
	mounts, w, err := mounted(s)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		written := s.Mounts[m.Index].Destination
		for _, dest := range []string{m.Destination, path.Clean("/" + written)} {
			if err := checkMount(m, dest); err != nil {
				if dest != written {
					err = fmt.Errorf("%w (it is %s)", err, dest)
				}
				return &MountError{Index: m.Index, Destination: written, Err: err}
			}
		}
	}
	if s.Linux == nil {
		return nil
	}
	if len(s.Linux.Devices) > maxMounts {
		return errTooMany
	}
	for i, d := range s.Linux.Devices {
		at, err := w.resolve(d.Path)
		if err != nil {
			return fmt.Errorf("linux.devices[%d] at %q: %w", i, d.Path, err)
		}
		for _, dest := range []string{at, path.Clean("/" + d.Path)} {
			if dest == "/proc" || below(dest, "/proc") {
				return fmt.Errorf("linux.devices[%d] at %q: %w", i, d.Path, ErrBelowProc)
			}
		}
	}
	return nil
}

func checkMount(m Mount, dest string) error {
	switch {
	case dest == "/":
		return ErrOverRoot
	case below(dest, "/proc"):
		return ErrBelowProc
	case dest != "/proc":
		return nil
	case !m.Bind && m.Type == "proc":
		return nil
	case !m.Bind:
		return ErrNoProcfs
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(m.Source, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: m.Source, Err: err}
	}
	if fs.Type != unix.PROC_SUPER_MAGIC || m.Ino != procRootIno {
		return ErrNoProcfs
	}
	return nil
}

// procRootIno is the number of a procfs' root.
//
// Source: include/linux/proc_ns.h, PROC_ROOT_INO.
const procRootIno = 1

// checkProc refuses a configuration that mounts nothing at /proc: what would be
// executed through /proc/self/fd is then a file of the image.
func checkProc(s *specs.Spec) error {
	mounts, err := Mounted(s)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Destination == "/proc" {
			return nil
		}
	}
	return fmt.Errorf("nothing is mounted at /proc: %w", ErrNoProcfs)
}

// identity is a file, whatever path leads to it.
type identity struct{ dev, ino uint64 }

func identify(p string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	return identity{uint64(st.Dev), st.Ino}, nil
}

// CheckStateReach refuses a container that could reach the state folder: a bind
// mount, a layer of an overlay mount or a root that is the state folder or a folder
// above it, and a bind mount or layer from below it. Folders are compared by
// identity, so that a second mount of the host or a link does not hide them. The
// folder need not exist yet.
func CheckStateReach(s *specs.Spec, stateDir string) error {
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return err
	}
	above := map[identity]bool{}
	var state *identity
	for dir := stateDir; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, os.ErrNotExist) && dir != "/" {
			continue
		} else if err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
		if dir == stateDir {
			id, err := identify(real)
			if err != nil {
				return fmt.Errorf("state folder: %w", err)
			}
			state = &id
		}
		// The folders above are those of the path without links.
		for up := real; ; up = filepath.Dir(up) {
			id, err := identify(up)
			if err != nil {
				return fmt.Errorf("state folder: %w", err)
			}
			above[id] = true
			if up == "/" {
				break
			}
		}
		break
	}
	check := func(p string, inside bool) error {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		id, err := identify(real)
		if err != nil {
			return err
		}
		if above[id] {
			return fmt.Errorf("%s %w", p, ErrStateReach)
		}
		for up := real; inside && state != nil && up != "/"; up = filepath.Dir(up) {
			if id, err := identify(up); err != nil {
				return err
			} else if id == *state {
				return fmt.Errorf("%s %w", p, ErrStateReach)
			}
		}
		return nil
	}
	if s.Root != nil && filepath.IsAbs(s.Root.Path) {
		if err := check(s.Root.Path, false); err != nil {
			return &MountError{Index: -1, Destination: s.Root.Path, Err: err}
		}
	}
	if len(s.Mounts) > maxMounts {
		return errTooMany
	}
	for i, m := range s.Mounts {
		sources := overlayDirs(m)
		if bind, _ := isBind(m); bind {
			sources = []string{m.Source}
		}
		for _, source := range sources {
			if !filepath.IsAbs(source) {
				return &MountError{Index: i, Destination: m.Destination, Err: fmt.Errorf("source %q is no absolute path", source)}
			}
			if err := check(source, true); err != nil {
				return &MountError{Index: i, Destination: m.Destination, Err: err}
			}
		}
	}
	return nil
}
