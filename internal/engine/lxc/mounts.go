// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/svirt/libvirt"
)

// An fsError is a <filesystem> of a domain that is refused.
type fsError struct {
	Target string
	Err    error
}

func (e *fsError) Error() string {
	return fmt.Sprintf("<filesystem> with the target %q: %v", e.Target, e.Err)
}

func (e *fsError) Unwrap() error { return e.Err }

// Reasons of a [*fsError], besides those of package oci.
var (
	// errReplaces says that a target is a folder or file in which libvirt puts what
	// masks are made of.
	errReplaces = errors.New("nothing may be mounted at /dev, /dev/null or /sys")
	// errKernelFiles says that a source has the kernel's files, which the policy
	// masks at their own place only.
	errKernelFiles = errors.New("its source has the kernel's files of /proc or /sys, where no policy masks them")
	// errType says that a file system is of a type that libvirt's LXC driver does
	// not have, or of one that has not been looked at here.
	errType = errors.New("unknown type")
)

// Types of file systems: of a folder of the host, of a folder of the container, in a
// file, on a device, in memory.
//
// Source: src/lxc/lxc_container.c, lxcContainerMountFS.
const (
	typeMount = "mount"
	typeBind  = "bind"
	typeFile  = "file"
	typeBlock = "block"
	typeRAM   = "ram"
)

// checkFilesystems refuses file systems of a domain that decide what runs first in
// the container or what its kernel interfaces say, and those that reach the state
// folder. What cannot be seen before libvirt mounts it is left to the comparison of
// the first program and of the masks.
func checkFilesystems(d *libvirt.Domain, stateDir string) error {
	root := d.Root()
	reach := &specs.Spec{}
	spec := &specs.Spec{Root: &specs.Root{Path: nowhere}}
	if root.Type == typeMount {
		real, err := filepath.EvalSymlinks(root.Source)
		if err == nil {
			err = oci.CheckRoot(real)
		}
		if err != nil {
			return rootError(root, err)
		}
		spec.Root.Path = real
		reach.Root = spec.Root
	}
	first := true
	var inner []string // sources of the container's own
	for _, f := range d.Filesystems {
		m := specs.Mount{Destination: f.Target, Type: unseen}
		switch f.Type {
		case typeMount:
			m.Type, m.Source, m.Options = "", f.Source, []string{"bind"}
		case typeBind:
			inner = append(inner, f.Source)
		case typeFile, typeBlock, typeRAM:
		default:
			return &fsError{f.Target, fmt.Errorf("%w %q", errType, f.Type)}
		}
		if first && f.Target == "/" {
			first = false
			continue
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	if err := oci.CheckMounts(spec); err != nil {
		return filesystemError(err)
	}
	reach.Mounts = spec.Mounts
	if err := oci.CheckStateReach(reach, stateDir); err != nil {
		return filesystemError(err)
	}
	for _, f := range d.Filesystems {
		if err := checkDevice(f, stateDir); err != nil {
			return &fsError{f.Target, err}
		}
	}
	return checkKernelFiles(spec, inner)
}

const (
	// nowhere stands for the root of a container that is in an image: there is no
	// such folder, so nothing in it is taken for a link.
	nowhere = "/proc/self/nosuch"
	// unseen is the type of a file system into which one cannot look beforehand.
	unseen = "unseen"
)

func rootError(root *libvirt.Filesystem, err error) error {
	if e := (*oci.MountError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("its root %s: %w", root.Source, err)
}

// filesystemError has the words of a definition.
func filesystemError(err error) error {
	if e := (*oci.MountError)(nil); errors.As(err, &e) {
		return &fsError{e.Destination, e.Err}
	}
	return err
}

// checkDevice refuses the device of the file system that has the state folder.
func checkDevice(f libvirt.Filesystem, stateDir string) error {
	if f.Type != typeBlock {
		return nil
	}
	var device, state unix.Stat_t
	if err := unix.Stat(f.Source, &device); err != nil {
		return &os.PathError{Op: "stat", Path: f.Source, Err: err}
	}
	for dir := stateDir; ; dir = filepath.Dir(dir) {
		err := unix.Stat(dir, &state)
		if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			continue // it will be made in the folder above
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		break
	}
	if device.Mode&unix.S_IFMT == unix.S_IFBLK && device.Rdev == state.Dev {
		return fmt.Errorf("%s %w", f.Source, oci.ErrStateReach)
	}
	return nil
}

// checkKernelFiles refuses what stands where masks come from, and second views of
// what is masked. The sources inner are paths of the container.
func checkKernelFiles(spec *specs.Spec, inner []string) error {
	probe := *spec
	for _, p := range inner {
		// Its place is resolved as that of a mount behind all others.
		probe.Mounts = append(probe.Mounts[:len(probe.Mounts):len(probe.Mounts)], specs.Mount{Destination: p, Type: unseen})
	}
	mounts, err := oci.Mounted(&probe)
	if err != nil {
		return filesystemError(err)
	}
	for _, m := range mounts {
		written := probe.Mounts[m.Index].Destination
		for _, p := range []string{m.Destination, path.Clean("/" + written)} {
			switch {
			case m.Index < len(spec.Mounts) && (p == "/dev" || p == "/dev/null" || p == "/sys"):
				return &fsError{written, errReplaces}
			case m.Index >= len(spec.Mounts) && (p == "/" || within(p, "/proc") || within(p, "/sys")):
				return fmt.Errorf("<filesystem> of the type bind from %q: %w", written, errKernelFiles)
			}
		}
		if !m.Bind {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(m.Source, &fs); err != nil {
			return &fsError{written, &os.PathError{Op: "statfs", Path: m.Source, Err: err}}
		}
		switch fs.Type {
		case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.SECURITYFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.SELINUX_MAGIC, unix.BPF_FS_MAGIC, unix.EFIVARFS_MAGIC:
			return &fsError{written, errKernelFiles}
		}
	}
	return nil
}

// within reports whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
