// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// probeTimeout bounds how long a container's file systems may take to answer: one of
// them may belong to a process that does not.
var probeTimeout = 10 * time.Second

// errSlow says that a container's file systems did not answer in time.
var errSlow = errors.New("its file systems do not answer")

// within runs fn, and leaves it where it hangs when the time is over.
func within[T any](timeout time.Duration, fn func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := fn()
		done <- answer{v, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-timer.C:
		var none T
		return none, fmt.Errorf("%w within %v", errSlow, timeout)
	}
}

// node is one file or folder in a container, without opening it.
type node struct {
	unix.Statx_t
	mount int // the ID of its mount
	fd    int
}

func (n *node) dev() uint64  { return unix.Mkdev(n.Dev_major, n.Dev_minor) }
func (n *node) kind() string { return kindOf(n.Mode) }
func (n *node) device() Device {
	if k := n.kind(); k != kindChar && k != kindBlock {
		return Device{}
	}
	return Device{n.Rdev_major, n.Rdev_minor}
}

func (n *node) same(o *node) bool { return n.mount == o.mount && n.dev() == o.dev() && n.Ino == o.Ino }

// look describes the file that an O_PATH descriptor names, which the node then owns.
func look(fd int) (*node, error) {
	n := &node{fd: fd}
	// What the kernel has in memory will do: asking a server could take for ever.
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	err := unix.Statx(fd, "", flags, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_NLINK|unix.STATX_MNT_ID, &n.Statx_t)
	if err == nil {
		if n.Mask&unix.STATX_MNT_ID != 0 {
			n.mount = int(n.Mnt_id)
		} else {
			n.mount, err = mountID(filepath.Join("/proc/self/fdinfo", strconv.Itoa(fd)))
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return n, nil
}

// close gives the descriptor back; the rest of the node stays.
func (n *node) close() {
	if n != nil {
		unix.Close(n.fd)
	}
}

// mountID is the mount of an open file.
//
// Source: fs/proc/fd.c, seq_show.
func mountID(fdinfo string) (int, error) {
	b, err := os.ReadFile(fdinfo)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("%s: no mount", fdinfo)
}

// at finds a path in a container, following links as a process inside would, but not
// the kernel's links to descriptors. The last component is not followed with
// O_NOFOLLOW.
func at(root *node, p string, flags uint64) (*node, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range maxAgain {
		fd, err := unix.Openat2(root.fd, p, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue // a folder above was renamed meanwhile
		} else if err != nil {
			return nil, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		return look(fd)
	}
	return nil, &fs.PathError{Op: "open", Path: p, Err: unix.EAGAIN}
}

const maxAgain = 128

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// found is what a look into a container's file systems gives.
type found struct {
	root         *Mount
	readOnlyRoot bool
	masked, ro   []string
	mounts       []Mount
	devices      []Mount
	links        []string
	outside      []string
	fds          []Descriptor
}

// probe looks into the container in which a process is. proc is /proc/PID.
func probe(proc string, t *table, asked State, ownNamespace bool) (*found, error) {
	f := &found{masked: []string{}, ro: []string{}, links: []string{}, outside: []string{}}
	fd, err := unix.Open(filepath.Join(proc, "root"), unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: proc + "/root", Err: err}
	}
	root, err := look(fd)
	if err != nil {
		return nil, err
	}
	defer root.close()
	f.root = &Mount{Destination: "/", Bind: true, Dev: root.dev(), Ino: root.Ino, Kind: root.kind()}
	if m := t.byID[root.mount]; m != nil {
		f.root.Point, f.root.Type, f.root.Root, f.root.ReadOnly = m.Mountpoint, m.FSType, m.Root, readOnly(m)
		f.readOnlyRoot = f.root.ReadOnly
	}
	if err := f.paths(root, t, asked); err != nil {
		return nil, err
	}
	if !ownNamespace {
		return f, nil // the host's own mounts
	}
	if err := f.mountsAt(root, t, asked); err != nil {
		return nil, err
	}
	if asked.Others != nil {
		if err := f.nodes(root); err != nil {
			return nil, err
		}
	}
	if err := f.kernelPaths(root); err != nil {
		return nil, err
	}
	return f, f.inside(proc, root, t)
}

// paths looks which paths are masked and read-only. One that is not there is both.
func (f *found) paths(root *node, t *table, asked State) error {
	for _, p := range asked.MaskedPaths {
		ok, err := isMasked(root, t, p)
		if err != nil {
			return err
		}
		if ok {
			f.masked = append(f.masked, p)
		}
	}
	for _, p := range asked.ReadOnlyPaths {
		ok, err := isReadOnly(root, t, p)
		if err != nil {
			return err
		}
		if ok {
			f.ro = append(f.ro, p)
		}
	}
	return nil
}

// onMount opens what is at p and finds the mount that it is on: nil, when the table has
// none. The node is nil when nothing is there.
func onMount(root *node, t *table, p string, flags uint64) (*node, *mountinfo.Info, error) {
	n, err := at(root, p, flags)
	if absent(err) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p, err)
	}
	return n, t.byID[n.mount], nil
}

// isMasked reports whether the null device is mounted over a file, or an empty
// read-only folder over a folder.
func isMasked(root *node, t *table, p string) (bool, error) {
	n, m, err := onMount(root, t, p, unix.O_NOFOLLOW)
	if n == nil || err != nil {
		return err == nil, err
	}
	defer n.close()
	if m == nil || m.Mountpoint != path.Clean(p) {
		return false, nil
	}
	switch n.kind() {
	case kindChar:
		return n.device() == devices["/dev/null"], nil
	case KindFolder:
		if !readOnly(m) {
			return false, nil
		}
		return isEmpty(n)
	}
	return false, nil
}

// isEmpty reports whether a folder has no entries.
func isEmpty(n *node) (bool, error) {
	fd, err := unix.Openat(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil // not even this process can read it
	}
	d := os.NewFile(uintptr(fd), "masked")
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0, nil
}

// isReadOnly reports whether a path is on a read-only mount, and still the same file
// that was there before: a part of the file system around it.
func isReadOnly(root *node, t *table, p string) (bool, error) {
	n, m, err := onMount(root, t, p, unix.O_NOFOLLOW)
	if n == nil || err != nil {
		return err == nil, err
	}
	defer n.close()
	return m != nil && readOnly(m) && n.kind() != kindLink && sameFile(t, m), nil
}

// sameFile reports whether a mount shows what is below it.
func sameFile(t *table, m *mountinfo.Info) bool {
	under := t.byID[m.Parent]
	if under == nil || m.Mountpoint == "/" {
		return true
	}
	if under.Mountpoint == m.Mountpoint || under.Major != m.Major || under.Minor != m.Minor {
		// One above another, or a file system of its own, which its runtime was asked
		// for, or nobody: that is found elsewhere.
		return true
	}
	rel := strings.TrimPrefix(m.Mountpoint, strings.TrimSuffix(under.Mountpoint, "/"))
	return m.Root == path.Join(under.Root, rel)
}

// mountsAt finds what is at each destination, and the mounts in the kernel's folders
// that were not asked for.
func (f *found) mountsAt(root *node, t *table, asked State) error {
	if asked.Mounts == nil {
		return nil
	}
	f.mounts = []Mount{}
	seen := map[string]bool{}
	for _, a := range asked.Mounts {
		m, err := mountAt(root, t, a.Destination, 0)
		if err != nil {
			return err
		}
		f.mounts = append(f.mounts, m)
		seen[m.Point] = true
	}
	for _, i := range t.list {
		if seen[i.Mountpoint] && !t.hidden(i) || !inKernelFolder(i.Mountpoint) && asked.Others == nil {
			continue
		}
		m, err := mountAt(root, t, i.Mountpoint, unix.O_NOFOLLOW)
		if err != nil {
			return err
		}
		if m.Point == "" || t.hidden(i) {
			// Below another mount: what it is cannot be seen, and neither used.
			continue
		}
		f.mounts = append(f.mounts, m)
		seen[i.Mountpoint] = true
	}
	return nil
}

func mountAt(root *node, t *table, p string, flags uint64) (Mount, error) {
	out := Mount{Destination: p}
	n, m, err := onMount(root, t, p, flags)
	if n == nil || err != nil {
		return out, err
	}
	defer n.close()
	if m == nil {
		return out, nil
	}
	out.Type, out.Dev, out.Ino, out.ReadOnly, out.Root, out.Kind, out.Device = m.FSType, n.dev(), n.Ino, readOnly(m), m.Root, n.kind(), n.device()
	// What is below a mount is no mount.
	up, err := parent(n)
	if err != nil {
		return out, err
	}
	if up {
		out.Point = m.Mountpoint
	}
	return out, nil
}

// parent reports whether a node is the root of its mount.
func parent(n *node) (bool, error) {
	if n.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return n.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	return false, errors.New("this kernel does not tell mounts from what is inside them: it is older than 5.8")
}

// kernelPaths looks at what the kernel and runtimes put into every root.
func (f *found) kernelPaths(root *node) error {
	for _, p := range kernelFolders {
		switch n, err := at(root, p, unix.O_NOFOLLOW); {
		case absent(err):
		case err != nil:
			return err
		default:
			if n.kind() == kindLink {
				f.links = append(f.links, p)
			}
			n.close()
		}
	}
	for _, p := range deviceNames {
		n, err := at(root, p, unix.O_NOFOLLOW)
		if absent(err) {
			continue
		} else if err != nil {
			return err
		}
		f.devices = append(f.devices, Mount{Destination: p, Kind: n.kind(), Device: n.device()})
		n.close()
	}
	switch n, err := at(root, "/dev/console", unix.O_NOFOLLOW); {
	case absent(err):
	case err != nil:
		return err
	default:
		if n.kind() == kindLink {
			f.links = append(f.links, "/dev/console")
		}
		n.close()
	}
	return nil
}

// nodes lists the devices in /dev that are not usual.
func (f *found) nodes(root *node) error {
	dev, err := at(root, "/dev", unix.O_NOFOLLOW|unix.O_DIRECTORY)
	if absent(err) {
		return nil
	} else if err != nil {
		return err
	}
	defer dev.close()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", dev.fd))
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := "/dev/" + e.Name()
		if e.Type()&fs.ModeDevice == 0 || slices.Contains(deviceNames, p) || p == "/dev/console" || p == "/dev/ptmx" {
			continue
		}
		n, err := at(root, p, unix.O_NOFOLLOW)
		if absent(err) {
			continue
		} else if err != nil {
			return err
		}
		f.devices = append(f.devices, Mount{Destination: p, Kind: n.kind(), Device: n.device()})
		n.close()
	}
	return nil
}

var deviceNames = []string{"/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"}

// Descriptor is one that leads to a file outside of the container's mounts.
type Descriptor struct {
	FD   int    `json:"fd"`
	Kind string `json:"kind"`
	Path string `json:"path"`
}

// maxDescriptors bounds how many of a process are looked at: the kernel's default for
// the most that a limit can be set to.
//
// Source: fs/file.c, sysctl_nr_open.
const maxDescriptors = 1 << 20

// inside looks whether root, working directory and descriptors lie within the
// container's mounts.
func (f *found) inside(proc string, root *node, t *table) error {
	if m := t.byID[root.mount]; m == nil || m.Mountpoint != "/" {
		f.outside = append(f.outside, "root")
	} else if top, err := climb(root, root); err != nil {
		return err
	} else if !top {
		f.outside = append(f.outside, "root")
	}
	fd, err := unix.Open(filepath.Join(proc, "cwd"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: proc + "/cwd", Err: err}
	}
	cwd, err := look(fd)
	if err != nil {
		return err
	}
	defer cwd.close()
	in := t.byID[cwd.mount] != nil
	if in {
		if in, err = climb(cwd, root); err != nil {
			return err
		}
	}
	if !in {
		f.outside = append(f.outside, "working directory")
	}
	f.fds, err = leadOut(proc, t)
	return err
}

// climb reports whether the way up from a folder ends at root.
func climb(from, root *node) (bool, error) {
	const deepest = 1 << 16 // PATH_MAX does not bound a working directory
	n, mine := from, false
	defer func() {
		if mine {
			n.close()
		}
	}()
	reached := false
	for range deepest {
		reached = reached || n.same(root)
		fd, err := unix.Openat(n.fd, "..", unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return false, nil
		} else if err != nil {
			return false, &fs.PathError{Op: "open", Path: "..", Err: err}
		}
		up, err := look(fd)
		if err != nil {
			return false, err
		}
		end := up.same(n)
		if mine {
			n.close()
		}
		n, mine = up, true
		if end {
			// Nothing is above the root of a namespace.
			return reached && n.same(root), nil
		}
	}
	return false, nil
}

// leadOut lists the descriptors of files that are on none of the container's mounts.
// Pipes, sockets and the like are on mounts without a path.
func leadOut(proc string, t *table) ([]Descriptor, error) {
	dir, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	out := []Descriptor{}
	for n := 0; ; {
		names, err := dir.Readdirnames(1024)
		if n += len(names); n > maxDescriptors {
			return nil, fmt.Errorf("%s/fd: more than %d descriptors", proc, maxDescriptors)
		}
		for _, name := range names {
			d, leads, derr := leadsOut(proc, name, t)
			if errors.Is(derr, fs.ErrNotExist) {
				continue // closed meanwhile
			} else if derr != nil {
				return nil, derr
			}
			if leads {
				out = append(out, d)
			}
		}
		if err != nil || len(names) == 0 {
			return out, nil
		}
	}
}

func leadsOut(proc, name string, t *table) (d Descriptor, leads bool, err error) {
	if d.FD, err = strconv.Atoi(name); err != nil {
		return d, false, err
	}
	link := filepath.Join(proc, "fd", name)
	if d.Path, err = os.Readlink(link); err != nil {
		return d, false, err
	}
	if !strings.HasPrefix(d.Path, "/") && !strings.HasPrefix(d.Path, "(unreachable)") {
		for _, kind := range []string{"socket:[", "pipe:[", "anon_inode:"} {
			if strings.HasPrefix(d.Path, kind) {
				return d, false, nil
			}
		}
	}
	id, err := mountID(filepath.Join(proc, "fdinfo", name))
	if err != nil {
		return d, false, err
	}
	if t.byID[id] != nil {
		return d, false, nil
	}
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return d, false, &fs.PathError{Op: "open", Path: link, Err: err}
	}
	n, err := look(fd)
	if err != nil {
		return d, false, err
	}
	defer n.close()
	if n.mount != id {
		return d, false, &fs.PathError{Op: "open", Path: link, Err: fs.ErrNotExist} // another file by now
	}
	d.Kind = n.kind()
	if d.Kind == kindFile && strings.HasPrefix(d.Path, "/memfd:") && n.Nlink == 0 {
		return d, false, nil // memory; no name leads to or from it
	}
	return d, d.Kind != kindOther || strings.HasPrefix(d.Path, "/"), nil
}
