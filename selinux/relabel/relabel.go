// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package relabel gives all content of a folder one SELinux context, as a
// container's volume needs it.
//
// The walk is parallel and safe against whoever may change the tree while it
// runs: folders are opened with openat2 below the root, no symbolic link is
// followed, no mount is crossed unless asked, and a label is set through the
// folder's descriptor. Only what has another label is written, so that an
// interrupted run is resumed by running it again. A finished run leaves a
// marker on the root, which only a privileged process of the host can set, and
// the next run with the same context ends at once.
//
// SELinux need not be enabled: the label is an extended attribute.
package relabel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/selinux"
)

const (
	labelXattr  = "security.selinux"
	markerXattr = "trusted.palisade.relabelled"
)

var (
	// ErrSystemPath says that the folder belongs to the host's system.
	ErrSystemPath = errors.New("a folder of the system is not for a container to own")
	// ErrNotSupported says that the file system keeps no security labels.
	ErrNotSupported = errors.New("the file system keeps no security labels")
)

// Options say what is done beside setting the label.
type Options struct {
	// DryRun counts what would change and changes nothing.
	DryRun bool
	// CrossMounts goes on into file systems mounted below the root.
	CrossMounts bool
	// IgnoreMarker walks the tree even if an earlier run has finished.
	IgnoreMarker bool
	// Workers is the number of folders read at one time; 0 means one a CPU and
	// at least two.
	Workers int
	// Guard, if set, is asked before anything changes, with the root's present
	// label ("" when it has none); its error refuses the run. It is where a
	// volume of a live container is protected.
	Guard func(present string) error
	// Progress, if set, is called now and then, from one goroutine at a time.
	Progress func(Counts)
}

// Counts says what a run found and did.
type Counts struct {
	Seen    int64 `json:"seen"`    // files and folders, the root included
	Changed int64 `json:"changed"` // label set (or to be set, in a dry run)
	Already int64 `json:"already"` // label was right
	Mounts  int64 `json:"mounts"`  // mounts not crossed
	Failed  int64 `json:"failed"`  // could not be labelled
	// Marked tells that an earlier run had finished and nothing was walked.
	Marked bool `json:"marked"`
}

// Relabel gives dir and all below it the context. Errors about single files are
// counted and the first of them is returned at the end; the others are labelled
// all the same. The error wraps [ErrSystemPath] or [ErrNotSupported] where that
// is the reason, and the context's error when the run was cancelled.
func Relabel(ctx context.Context, dir string, label selinux.Context, o Options) (Counts, error) {
	root, real, err := openRoot(dir)
	if err != nil {
		return Counts{}, err
	}
	defer unix.Close(root)
	if err := Refuse(real); err != nil {
		return Counts{}, err
	}
	want := label.String()
	self := fmt.Sprintf("/proc/self/fd/%d", root)
	present, err := getLabel(self, true)
	if err != nil {
		return Counts{}, fmt.Errorf("relabel %s: %w", dir, err)
	}
	if o.Guard != nil {
		if err := o.Guard(present); err != nil {
			return Counts{}, fmt.Errorf("relabel %s: %w", dir, err)
		}
	}
	if !o.IgnoreMarker && present == want && marker(self) == want {
		return Counts{Marked: true}, nil
	}
	if !o.DryRun {
		// Gone first, so that a run that dies leaves no word of having finished.
		if err := unix.Removexattr(self, markerXattr); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return Counts{}, fmt.Errorf("relabel %s: %w", dir, err)
		}
	}
	w := &walk{opts: o, want: want, label: append([]byte(want), 0), bottom: !hasMountsBelow(real)}
	w.run(ctx, root, dir)
	counts := w.counts()
	if err := ctx.Err(); err != nil {
		return counts, fmt.Errorf("relabel %s: interrupted: %w", dir, err)
	}
	if w.first != nil {
		return counts, w.first
	}
	// The root comes last: with the right label on it, the tree is done.
	w.descriptor(root, dir)
	counts = w.counts()
	if w.first != nil {
		return counts, w.first
	}
	if !o.DryRun {
		// Without the right to keep a marker the next run walks again.
		_ = unix.Setxattr(self, markerXattr, []byte(want), 0)
	}
	return counts, nil
}

func openRoot(dir string) (fd int, real string, err error) {
	fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	// What was opened is what counts, whatever links led there.
	real, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, real, nil
}

// systemTrees belong to the host with all that is below them; systemFolders are
// refused themselves, while a folder below may be a volume.
var (
	systemTrees   = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"}
	systemFolders = []string{"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var", "/var/cache", "/var/db", "/var/lib", "/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/log", "/var/mail", "/var/opt", "/var/run", "/var/spool", "/var/tmp"}
)

// Refuse returns an error that wraps [ErrSystemPath] for folders that no
// container may own: those of the system, and whole home folders.
func Refuse(dir string) error {
	clean := filepath.Clean(dir)
	for _, f := range systemFolders {
		if clean == f {
			return fmt.Errorf("%s: %w", dir, ErrSystemPath)
		}
	}
	for _, t := range systemTrees {
		if clean == t || strings.HasPrefix(clean, t+"/") {
			return fmt.Errorf("%s: %w", dir, ErrSystemPath)
		}
	}
	if filepath.Dir(clean) == "/home" {
		return fmt.Errorf("%s: %w", dir, ErrSystemPath)
	}
	return nil
}

func marker(path string) string {
	var buf [4096]byte
	n, err := unix.Getxattr(path, markerXattr, buf[:])
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// getLabel returns a label without its NUL; "" when there is none.
func getLabel(path string, follow bool) (string, error) {
	var buf [4096]byte
	n, err := 0, error(nil)
	if follow {
		n, err = unix.Getxattr(path, labelXattr, buf[:])
	} else {
		n, err = unix.Lgetxattr(path, labelXattr, buf[:])
	}
	switch {
	case errors.Is(err, unix.ENODATA):
		return "", nil
	case errors.Is(err, unix.ENOTSUP):
		return "", ErrNotSupported
	case err != nil:
		return "", err
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// hasMountsBelow reports whether something is mounted below a folder, or could not
// be told. Then every entry is opened before it is labelled, which costs two calls
// more.
func hasMountsBelow(dir string) bool {
	inside := mountinfo.PrefixFilter(filepath.Clean(dir))
	below, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		skip, _ = inside(m)
		skip = skip || m.Mountpoint == filepath.Clean(dir)
		return skip, !skip // one is enough
	})
	return err != nil || len(below) > 0
}

type walk struct {
	opts   Options
	want   string
	label  []byte // want and a NUL, as the kernel keeps it
	bottom bool   // no mounts below: entries can be labelled by name

	seen, changed, already, mounts, failed atomic.Int64

	mu    sync.Mutex
	first error
}

func (w *walk) counts() Counts {
	return Counts{Seen: w.seen.Load(), Changed: w.changed.Load(), Already: w.already.Load(), Mounts: w.mounts.Load(), Failed: w.failed.Load()}
}

func (w *walk) fail(path string, err error) {
	w.failed.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = fmt.Errorf("relabel %s: %w", path, err)
	}
}

// folder is one folder of the work list. Its descriptor keeps the place, its
// path is for messages only.
type folder struct {
	fd   int
	path string
}

// run walks the tree with a fixed number of workers over a shared stack. Depth
// first keeps the number of open descriptors near the depth of the tree times
// the workers; beyond a bound a worker goes down by itself.
func (w *walk) run(ctx context.Context, root int, path string) {
	workers := w.opts.Workers
	if workers <= 0 {
		workers = max(2, runtime.GOMAXPROCS(0))
	}
	fd, err := unix.Dup(root)
	if err != nil {
		w.fail(path, err)
		return
	}
	unix.CloseOnExec(fd)
	q := newStack(folder{fd, path})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			// A working folder of its own lets a worker name entries without a
			// path: half the cost of a call is looking the path up. The thread is
			// not unlocked, so that it ends with the goroutine.
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				w.fail(path, err)
			}
			buf := make([]byte, 64<<10)
			for {
				f, ok := q.take()
				if !ok {
					return
				}
				if ctx.Err() == nil {
					w.folder(ctx, f, q, buf)
				}
				unix.Close(f.fd)
				q.done()
			}
		})
	}
	wg.Wait()
}

// maxOpen bounds the descriptors that wait in the stack.
const maxOpen = 256

func (w *walk) folder(ctx context.Context, f folder, q *stack, buf []byte) {
	if err := unix.Fchdir(f.fd); err != nil {
		w.fail(f.path, err)
		return
	}
	var deep []string
	for {
		n, err := unix.Getdents(f.fd, buf)
		if err != nil {
			w.fail(f.path, err)
			return
		}
		if n == 0 {
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			name, typ, tail, ok := dirent(rest)
			if !ok {
				w.fail(f.path, errors.New("the kernel returned a malformed directory"))
				return
			}
			rest = tail
			if text := name[:len(name)-1]; string(text) == "." || string(text) == ".." {
				continue
			}
			w.entry(f, name, typ, q, &deep)
		}
		if ctx.Err() != nil {
			return
		}
		w.report()
	}
	// The stack was full: these are walked here, one at a time.
	for _, name := range deep {
		if ctx.Err() != nil {
			return
		}
		if child, ok := w.open(f, name); ok {
			w.folder(ctx, child, q, make([]byte, 32<<10))
			unix.Close(child.fd)
		}
	}
}

// entry takes a name with its NUL, which stands in the worker's buffer.
func (w *walk) entry(f folder, name []byte, typ byte, q *stack, deep *[]string) {
	if typ == unix.DT_UNKNOWN {
		var st unix.Stat_t
		text := string(name[:len(name)-1])
		if err := unix.Fstatat(f.fd, text, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			w.gone(f.path+"/"+text, err)
			return
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			typ = unix.DT_DIR
		}
	}
	if typ != unix.DT_DIR {
		w.labelEntry(f, name)
		return
	}
	text := string(name[:len(name)-1])
	if q.full() {
		*deep = append(*deep, text)
		w.labelEntry(f, name)
		return
	}
	if child, ok := w.open(f, text); ok {
		w.descriptor(child.fd, child.path)
		q.add(child)
	}
}

// labelEntry labels an entry by its name in the worker's folder where nothing
// can be mounted on it; otherwise it is opened without crossing a mount.
func (w *walk) labelEntry(f folder, name []byte) {
	if w.bottom || w.opts.CrossMounts {
		if err := w.one(name, false); err != nil {
			w.gone(f.path+"/"+string(name[:len(name)-1]), err)
		}
		return
	}
	text := string(name[:len(name)-1])
	fd, err := unix.Openat2(f.fd, text, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.EXDEV):
		w.mounts.Add(1)
		return
	case err != nil:
		w.gone(f.path+"/"+text, err)
		return
	}
	defer unix.Close(fd)
	w.descriptor(fd, f.path+"/"+text)
}

// descriptor labels what a descriptor stands for, whatever its name is by now.
func (w *walk) descriptor(fd int, path string) {
	if err := w.one(fmt.Appendf(nil, "/proc/self/fd/%d\x00", fd), true); err != nil {
		w.gone(path, err)
	}
}

// open opens a folder below another, never through a link.
func (w *walk) open(f folder, name string) (folder, bool) {
	path := f.path + "/" + name
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if !w.opts.CrossMounts {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	fd, err := unix.Openat2(f.fd, name, how)
	switch {
	case errors.Is(err, unix.EXDEV):
		w.mounts.Add(1)
		return folder{}, false
	case err != nil:
		w.gone(path, err)
		return folder{}, false
	}
	return folder{fd, path}, true
}

// gone takes an entry that vanished or was exchanged while the walk ran as no
// error: whoever did that labels what is new.
func (w *walk) gone(path string, err error) {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return
	}
	w.fail(path, err)
}

// one labels what a NUL-terminated path names. follow is for descriptors below
// /proc, which are links of their own kind; an entry by name is never followed.
func (w *walk) one(path []byte, follow bool) error {
	w.seen.Add(1)
	get, set := uintptr(unix.SYS_LGETXATTR), uintptr(unix.SYS_LSETXATTR)
	if follow {
		get, set = unix.SYS_GETXATTR, unix.SYS_SETXATTR
	}
	var have [256]byte
	n, errno := xattr(get, path, have[:])
	if errno == 0 && n == len(w.label) && string(have[:n]) == string(w.label) {
		w.already.Add(1)
		return nil
	}
	if errno != 0 && errno != unix.ENODATA && errno != unix.ERANGE && errno != unix.ENOTSUP {
		return errno
	}
	if !w.opts.DryRun {
		switch _, errno := xattr(set, path, w.label); errno {
		case 0:
		case unix.ENOTSUP:
			return ErrNotSupported
		default:
			return errno
		}
	}
	w.changed.Add(1)
	return nil
}

// xattr reads or writes the label of a path without an allocation: a volume may
// have millions of files.
func xattr(call uintptr, path, value []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(call,
		uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&labelName[0])),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	return int(n), errno
}

var labelName = []byte(labelXattr + "\x00")

func (w *walk) report() {
	if w.opts.Progress == nil || !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	w.opts.Progress(w.counts())
}
