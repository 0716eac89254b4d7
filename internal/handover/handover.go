// SPDX-License-Identifier: Apache-2.0

// Package handover brings the last step before the workload into a container
// without a file or a mount of the container: as descriptors that the OCI
// runtime passes on with --preserve-fds.
//
// The container's processes run as the host's root more often than not, and
// could write to the program through /proc/PID/exe while it runs. So what is
// handed over is a sealed file in memory. It belongs to this one hand-over, so
// its device and inode number tell it from every other file; see [Identity].
//
// Source: CVE-2019-5736; memfd_create(2), fcntl(2).
package handover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// EnvInit names a program to hand over in place of the last step that is part of
// this program. It is for tests.
const EnvInit = "PALISADE_INIT"

// None, as the value of PALISADE_INIT, says that no last step is wanted.
const None = "none"

var (
	// ErrNoInit says that there is no last step to hand over: PALISADE_INIT names
	// what is no program, or this machine has none.
	ErrNoInit = errors.New("palisade-init not found")
	// errNoExec says that this host does not execute files in memory.
	errNoExec = errors.New("vm.memfd_noexec=2 forbids programs in memory: set it to 0 or 1")
)

// Wanted reports whether there is a last step to hand over; PALISADE_INIT=none
// says that there is not. The error wraps [ErrNoInit].
func Wanted() (bool, error) {
	switch p := os.Getenv(EnvInit); {
	case p == None:
		return false, nil
	case p == "":
		if _, err := laststep.Program(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrNoInit, err)
		}
	case !isProgram(p):
		return false, fmt.Errorf("%s: %w", p, ErrNoInit)
	}
	return true, nil
}

func isProgram(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// Path is how the program is executed when it is handed over as descriptor fd.
func Path(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Program is the last step in memory, sealed. Where SELinux is on it gets the
// label, which containers may execute; an empty label leaves what it has. The
// error wraps [ErrNoInit] when none is wanted or there is none, and errNoExec.
func Program(label string) (*os.File, error) {
	switch wanted, err := Wanted(); {
	case err != nil:
		return nil, err
	case !wanted:
		return nil, fmt.Errorf("%s=%s: %w", EnvInit, None, ErrNoInit)
	}
	// Execution needs no right to read. Where the container's user has none, what
	// runs beside the step cannot trace it from its first instruction on.
	mode := uint32(0o111)
	var content io.Reader
	if p := os.Getenv(EnvInit); p != "" {
		f, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		content, mode = f, 0o555 // a script is read
	} else {
		b, err := laststep.Program()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoInit, err)
		}
		content = bytes.NewReader(b)
	}
	fd, err := memory("palisade-init", unix.MFD_EXEC)
	if errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("%w: %w", err, errNoExec)
	}
	if err != nil {
		return nil, err
	}
	return seal(fd, "palisade-init", content, mode, label)
}

// Config is a configuration in memory, sealed, with the label if there is one. The
// error is laststep.ErrConfig when the step would refuse it.
func Config(c *laststep.Config, label string) (*os.File, error) {
	b := c.Encode()
	if _, err := laststep.Decode(b); err != nil {
		return nil, err
	}
	fd, err := memory("palisade-config", unix.MFD_NOEXEC_SEAL)
	if err != nil {
		return nil, err
	}
	return seal(fd, "palisade-config", bytes.NewReader(b), 0o444, label)
}

// memory makes an empty file in memory, with a flag that Linux knows since 6.3.
func memory(name string, flag int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flag)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	return fd, os.NewSyscallError("memfd_create", err)
}

// seal fills a file in memory and seals it.
func seal(fd int, name string, content io.Reader, mode uint32, label string) (*os.File, error) {
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return nil, errors.Join(os.NewSyscallError("fchmod", err), f.Close())
	}
	if label != "" {
		if err := unix.Fsetxattr(fd, "security.selinux", append([]byte(label), 0), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("label %s: %w", name, err), f.Close())
		}
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	// Linux knows the seal of the execute bits since 6.3.
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals|unix.F_SEAL_EXEC)
	if errors.Is(err, unix.EINVAL) {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), f.Close())
	}
	return f, nil
}
