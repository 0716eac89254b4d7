// SPDX-License-Identifier: Apache-2.0

// Package hostfacts is the only reader of what the machine that it runs on can
// enforce: [Read] for a person, [ForLaunch] for each container. Everything else
// takes a [target.Target] as an argument.
//
// Reading changes nothing: no file is written, no file system is mounted where
// another process could see it, no module is loaded. Every question has three
// outcomes, yes, no and could not tell, and none of them is an error: a host
// where half of /proc is missing still has a status.
package hostfacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

// Options says what to read.
type Options struct {
	// Root is the directory that stands for /, for reading a recorded tree.
	// With a Root other than / nothing is asked of the running kernel and no
	// program is started: what only they could tell is unknown.
	Root string
	// Quick leaves out what needs another program or a BPF program: the
	// versions of runtimes and whether BPF-LSM programs load.
	Quick bool
	// Engine completes what is said of an engine from its configuration below
	// root; nil leaves it unknown. The packages that know engines' files are too
	// heavy for what runs once for every container.
	Engine func(root string, rt *Runtime)
	// LoadLSM has the kernel take a BPF program for an LSM hook, and lets go of it
	// without attaching it; nil leaves unknown whether programs load.
	LoadLSM func() error
}

// maxFile bounds every file that is read. The largest are the kernel
// configuration and /proc/self/mountinfo of a host with thousands of mounts.
const maxFile = 8 << 20

// reader answers questions about one host.
type reader struct {
	root  string
	live  bool // root is / and the running kernel may be asked
	quick bool
	close []func()

	engine  func(root string, rt *Runtime)
	loadLSM func() error
	// security is the directory of securityfs, or empty with the reason.
	security    string
	securityErr error
	config      KernelConfig
	configPath  string
}

func newReader(o Options) *reader {
	r := &reader{root: o.Root, quick: o.Quick, engine: o.Engine, loadLSM: o.LoadLSM}
	if r.root == "" {
		r.root = "/"
	}
	r.root = filepath.Clean(r.root)
	r.live = r.root == "/"
	r.security, r.securityErr = r.pseudo("securityfs", "/sys/kernel/security", unix.SECURITYFS_MAGIC)
	return r
}

func (r *reader) done() {
	for _, f := range r.close {
		f()
	}
}

// Read asks the host everything. The context bounds the programs that are
// started for their versions; what did not answer in time is unknown.
func Read(ctx context.Context, o Options) *Status {
	r := newReader(o)
	defer r.done()
	return r.status(ctx)
}

func (r *reader) path(name string) string {
	if r.live {
		return name
	}
	return filepath.Join(r.root, name)
}

// read is the content of a file with surrounding white space removed.
func (r *reader) read(name string) (string, error) { return readFile(r.path(name)) }

func readFile(name string) (string, error) {
	// Some pseudo files wait for a writer; a terminal or a fifo in a recorded
	// tree must not hold us up either.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// The kernel makes the text of most files anew for each call, one page at most.
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		b.Write(buf[:n])
		switch {
		case errors.Is(err, io.EOF):
			return strings.TrimSpace(b.String()), nil
		case err != nil:
			return "", err
		case b.Len() > maxFile:
			return "", fmt.Errorf("read %s: more than %d bytes", name, maxFile)
		}
	}
}

func (r *reader) readInt(name string) (int, error) {
	s, err := r.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("read %s: %q is not a number", name, s)
	}
	return n, nil
}

func (r *reader) exists(name string) target.Answer {
	_, err := os.Stat(r.path(name))
	switch {
	case err == nil:
		return target.Yes
	case errors.Is(err, fs.ErrNotExist):
		return target.No
	}
	return target.Unknown
}

// pseudo finds a mounted kernel file system, or makes a private instance of it
// that is attached nowhere and goes away with its descriptor.
func (r *reader) pseudo(fstype, dir string, magic int64) (string, error) {
	if !r.live {
		if r.exists(dir) != target.Yes {
			return "", fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
		}
		return r.path(dir), nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && int64(st.Type) == magic {
		return dir, nil
	}
	fd, err := detachedMount(fstype)
	if err != nil {
		return "", fmt.Errorf("%s is not mounted at %s, and a private instance could not be made: %w", fstype, dir, err)
	}
	r.close = append(r.close, func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

func detachedMount(fstype string) (int, error) {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return fd, nil
}

// within gives one question its own deadline under that of the whole.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}
