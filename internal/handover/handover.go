// SPDX-License-Identifier: Apache-2.0

// Package handover brings the last step before the workload into a container
// without a file or a mount of the container: as descriptors that the OCI
// runtime passes on with --preserve-fds.
//
// The container's processes run as the host's root more often than not, and
// could write to the program through /proc/PID/exe while it runs. So what is
// handed over is a view of the program on a read-only mount of its own, which
// belongs to no mount namespace, or a sealed copy in memory.
//
// Source: CVE-2019-5736; open_tree(2), mount_setattr(2), memfd_create(2).
package handover

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// EnvInit names the program to hand over.
const EnvInit = "PALISADE_INIT"

// ErrNoInit says that palisade-init was not found.
var ErrNoInit = errors.New("palisade-init not found")

// None, as the value of PALISADE_INIT, says that no last step is wanted.
const None = "none"

// Find returns the path of palisade-init: the one that PALISADE_INIT names, or
// the one beside the running program, or an installed one; empty when none is
// wanted. The error wraps [ErrNoInit].
func Find() (string, error) {
	if p := os.Getenv(EnvInit); p == None {
		return "", nil
	} else if p != "" {
		if !isProgram(p) {
			return "", fmt.Errorf("%s: %w", p, ErrNoInit)
		}
		return p, nil
	}
	var candidates []string
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), "palisade-init"))
	}
	for _, dir := range []string{"/usr/local/libexec/palisade", "/usr/libexec/palisade", "/usr/local/bin", "/usr/bin"} {
		candidates = append(candidates, filepath.Join(dir, "palisade-init"))
	}
	for _, p := range candidates {
		if isProgram(p) {
			return p, nil
		}
	}
	return "", ErrNoInit
}

func isProgram(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// Path is how the program is executed when it is handed over as descriptor fd.
func Path(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Program opens the program at path so that nobody can write to it through the
// descriptor. Where SELinux is on it is a copy with the label, which containers
// may execute; an empty label leaves the program's own.
func Program(path, label string) (*os.File, error) {
	if label == "" {
		if f, err := detached(path); err == nil {
			return f, nil
		}
	}
	return copied(path, label)
}

// detached is the program on a read-only mount of its own.
func detached(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// copied is the program in memory, sealed.
func copied(path, label string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return sealed("palisade-init", src, label)
}

// Config is a configuration in memory, sealed, with the label if there is one.
func Config(c *laststep.Config, label string) (*os.File, error) {
	return sealed("palisade-config", bytesReader(c.Encode()), label)
}

// bytesReader hands its bytes over in one piece.
type bytesReader []byte

func (b bytesReader) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

func (b bytesReader) Read([]byte) (int, error) { return 0, io.EOF }

func sealed(name string, content io.Reader, label string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if label != "" {
		if err := unix.Fsetxattr(fd, "security.selinux", append([]byte(label), 0), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("label %s: %w", name, err), f.Close())
		}
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), f.Close())
	}
	return f, nil
}
