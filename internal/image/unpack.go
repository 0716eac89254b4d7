// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// Bounds on an image as a whole. A larger one is refused before anything of it
// is written.
const (
	maxEntries = 500_000
	maxBytes   = 64 << 30
)

// HostileError is an entry that has no business in a layer.
type HostileError struct {
	Entry string
	Why   string
}

func (e *HostileError) Error() string { return fmt.Sprintf("entry %q: %s", e.Entry, e.Why) }

// ErrTooLarge says that an image is beyond maxEntries or maxBytes.
var ErrTooLarge = errors.New("image is too large")

// Names of the entries that take something of a lower layer away.
//
// Source: OCI image-spec, layer.md, Whiteouts.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// plan is what a first look at a layer found: it is whole and harmless, and
// takes these paths of lower layers away.
type plan struct {
	remove []string // paths that are whited out
	opaque []string // folders whose content is
}

// budget counts what all layers of an image have together.
type budget struct {
	entries int
	bytes   int64
}

// inspect reads a layer without writing anything.
func inspect(r io.Reader, b *budget) (plan, error) {
	var p plan
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			// What follows the end still counts for the layer's hash.
			_, err := io.Copy(io.Discard, r)
			return p, err
		}
		if err != nil {
			return p, err
		}
		if b.entries++; b.entries > maxEntries {
			return p, fmt.Errorf("more than %d entries: %w", maxEntries, ErrTooLarge)
		}
		if b.bytes += h.Size; h.Size < 0 || b.bytes > maxBytes {
			return p, fmt.Errorf("more than %d bytes: %w", int64(maxBytes), ErrTooLarge)
		}
		name, err := entryName(h.Name)
		if err != nil {
			return p, err
		}
		if err := check(h, name); err != nil {
			return p, err
		}
		dir, base := path.Split(name)
		switch {
		case base == whiteoutOpaque:
			p.opaque = append(p.opaque, dir)
		case strings.HasPrefix(base, whiteoutPrefix):
			gone := strings.TrimPrefix(base, whiteoutPrefix)
			if gone == "" || gone == "." || gone == ".." {
				return p, &HostileError{h.Name, "this whiteout would remove its own folder"}
			}
			p.remove = append(p.remove, dir+gone)
		}
	}
}

// entryName is the name relative to the root, without a leading slash; "." is
// the root itself.
func entryName(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) > unix.PathMax {
		return "", &HostileError{name, "this is no path"}
	}
	for _, elem := range strings.Split(name, "/") {
		if elem == ".." {
			return "", &HostileError{name, "it leads out of the root"}
		}
		if len(elem) > unix.NAME_MAX {
			return "", &HostileError{name, "an element is longer than 255 bytes"}
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// check refuses what must not be made, whatever the root is used for.
func check(h *tar.Header, name string) error {
	const maxID = 1<<32 - 2
	if h.Uid < 0 || h.Gid < 0 || h.Uid > maxID || h.Gid > maxID {
		return &HostileError{h.Name, fmt.Sprintf("owner %d:%d is out of range", h.Uid, h.Gid)}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo, tar.TypeXGlobalHeader:
	case tar.TypeLink:
		if _, err := entryName(h.Linkname); err != nil {
			return &HostileError{h.Name, fmt.Sprintf("hard link to %q leads out of the root", h.Linkname)}
		}
	case tar.TypeChar, tar.TypeBlock:
		if !inDev(name) {
			return &HostileError{h.Name, "a device node outside /dev"}
		}
	default:
		return &HostileError{h.Name, fmt.Sprintf("entries of type %q are not known", h.Typeflag)}
	}
	return nil
}

// inDev tells of entries that no container sees, since /dev is mounted over.
func inDev(name string) bool { return strings.HasPrefix(name, "dev/") }

// unpacker writes layers into a folder. Every path is resolved inside the
// folder, whatever symbolic links earlier entries have made.
type unpacker struct {
	root *os.File
	// The folder of the last entry: layers list a folder's files together.
	dirName string
	dir     *os.File
	times   []dirTime
}

type dirTime struct {
	name string
	when time.Time
}

func (u *unpacker) close() {
	if u.dir != nil {
		u.dir.Close()
	}
}

// parent opens the folder that an entry goes to, and makes it if it is not
// there.
func (u *unpacker) parent(name string) (*os.File, error) {
	name = strings.TrimSuffix(name, "/")
	if name == "" {
		return u.root, nil
	}
	if u.dir != nil && u.dirName == name {
		return u.dir, nil
	}
	dir, err := securejoin.MkdirAllHandle(u.root, name, 0o755)
	if err != nil {
		return nil, err
	}
	u.forgetDir()
	u.dir, u.dirName = dir, name
	return dir, nil
}

// lookup opens what is there under a name, inside the root.
func (u *unpacker) lookup(name string) (*os.File, error) {
	if name == "" {
		name = "."
	}
	return securejoin.OpenatInRoot(u.root, name)
}

// forgetDir has to be called when a folder may have been replaced.
func (u *unpacker) forgetDir() {
	if u.dir != nil {
		u.dir.Close()
		u.dir = nil
	}
}

// removeLower applies the whiteouts of a layer to the layers below it.
func (u *unpacker) removeLower(p plan) error {
	for _, name := range p.remove {
		dir, base := path.Split(name)
		h, err := u.lookup(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("whiteout of %s: %w", name, err)
		}
		err = removeAt(h, base)
		h.Close()
		if err != nil {
			return fmt.Errorf("whiteout of %s: %w", name, err)
		}
	}
	for _, name := range p.opaque {
		h, err := u.lookup(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("whiteout of %s: %w", name, err)
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", h.Fd()))
		for _, e := range entries {
			err = errors.Join(err, removeAt(h, e.Name()))
		}
		h.Close()
		if err != nil {
			return fmt.Errorf("whiteout of %s: %w", name, err)
		}
	}
	return nil
}

// removeAt deletes one entry of a folder with everything in it.
func removeAt(dir *os.File, base string) error {
	err := unix.Unlinkat(int(dir.Fd()), base, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), base))
}

// apply writes one layer, which inspect has let pass.
func (u *unpacker) apply(r io.Reader, p plan) error {
	if err := u.removeLower(p); err != nil {
		return err
	}
	u.forgetDir()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// The layer is looked at twice; it may not be the same twice.
		name, err := entryName(h.Name)
		if err != nil {
			return err
		}
		if err := check(h, name); err != nil {
			return err
		}
		dir, base := path.Split(name)
		if h.Typeflag == tar.TypeXGlobalHeader || strings.HasPrefix(base, whiteoutPrefix) || inDev(name) {
			continue
		}
		if err := u.entry(tr, h, dir, base); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) entry(tr *tar.Reader, h *tar.Header, dir, base string) error {
	if base == "" { // the root itself
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is a folder")
		}
		return setMeta(int(u.root.Fd()), h)
	}
	parent, err := u.parent(dir)
	if err != nil {
		return err
	}
	at := int(parent.Fd())
	mode := uint32(h.Mode) & 0o7777
	if h.Typeflag == tar.TypeDir {
		err := unix.Mkdirat(at, base, 0o700)
		if err == unix.EEXIST {
			var st unix.Stat_t
			if err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				if err = unix.Unlinkat(at, base, 0); err == nil {
					err = unix.Mkdirat(at, base, 0o700)
				}
			}
		}
		if err != nil {
			return err
		}
		fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		u.times = append(u.times, dirTime{dir + base, h.ModTime})
		return setMeta(fd, h)
	}
	if err := removeAt(parent, base); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		fd, err := unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), base)
		_, err = io.Copy(f, tr)
		if err == nil {
			err = setMeta(fd, h)
		}
		if err == nil {
			err = setTime(fd, "", h.ModTime, unix.AT_EMPTY_PATH)
		}
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, at, base); err != nil {
			return err
		}
		if err := unix.Fchownat(at, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return setTime(at, base, h.ModTime, unix.AT_SYMLINK_NOFOLLOW)
	case tar.TypeLink:
		return u.link(at, base, h.Linkname)
	case tar.TypeFifo:
		if err := unix.Mknodat(at, base, unix.S_IFIFO|mode, 0); err != nil {
			return err
		}
		return unix.Fchownat(at, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// link makes a hard link to what is inside the root under target.
func (u *unpacker) link(at int, base, target string) error {
	name, err := entryName(target)
	if err != nil {
		return err
	}
	dir, last := path.Split(name)
	h, err := u.lookup(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := unix.Linkat(int(h.Fd()), last, at, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	return nil
}

// setMeta gives a file or folder its owner, capabilities and mode, in this
// order: changing the owner drops the others.
func setMeta(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	// Of the extended attributes only what a container could set itself counts:
	// labels are ours to give, and attributes of overlays would change the root.
	const pax = "SCHILY.xattr."
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, pax)
		if !ok || (name != "security.capability" && !strings.HasPrefix(name, "user.")) {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return unix.Fchmod(fd, uint32(h.Mode)&0o7777)
}

func setTime(at int, base string, t time.Time, flags int) error {
	if t.Before(time.Unix(0, 0)) {
		t = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return nil // beyond what the file system has; the time is no content
	}
	return unix.UtimesNanoAt(at, base, []unix.Timespec{ts, ts}, flags)
}

// finish gives folders their times, which filling them has changed.
func (u *unpacker) finish() error {
	for _, d := range u.times {
		h, err := u.lookup(d.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whited out by a later layer
		} else if err != nil {
			return err
		}
		err = setTime(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", h.Fd()), d.when, 0)
		h.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
