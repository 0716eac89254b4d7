// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deniesDevices reports whether a configuration denies devices that it does not name.
func deniesDevices(s *specs.Spec) bool {
	if s.Linux == nil || s.Linux.Resources == nil {
		return false
	}
	denied := false
	for _, d := range s.Linux.Resources.Devices {
		whole := (d.Type == "" || d.Type == "a") && d.Major == nil && d.Minor == nil && strings.Contains(d.Access, "r") && strings.Contains(d.Access, "w")
		if whole {
			denied = !d.Allow
		}
	}
	return denied
}

// openDevices reports whether every device is allowed by the control group that the
// process proc has of its own. One that shares ours is confined as we are: its
// runtime was told to make no group, or has no right to.
func openDevices(proc string) (bool, error) {
	theirs, err := groupsOf(filepath.Join(proc, "cgroup"))
	if err != nil {
		return false, err
	}
	ours, err := groupsOf("/proc/thread-self/cgroup")
	if err != nil {
		return false, err
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	t, err := readTable(f)
	if err != nil {
		return false, err
	}
	for _, m := range t.list {
		name := ""
		switch {
		case t.hidden(m):
			continue
		case m.FSType == "cgroup" && slices.Contains(strings.Split(m.VFSOptions, ","), "devices"):
			name = "devices"
		case m.FSType != "cgroup2" || theirs["devices"] != "":
			continue
		}
		group, ok := theirs[name]
		if !ok || group == ours[name] {
			continue
		}
		dir, ok := folderOf(m, group)
		if !ok {
			continue
		}
		if name == "" {
			n, err := devicePrograms(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil && n == 0, err
		}
		b, err := os.ReadFile(filepath.Join(dir, "devices.list"))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // of a hierarchy that is seen in part
		} else if err != nil {
			return false, err
		}
		return bytes.HasPrefix(b, []byte("a *:* ")), nil
	}
	return false, nil
}

// folderOf is where a control group is below a mount of its hierarchy.
func folderOf(m *mountinfo.Info, group string) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean(group)+"/", strings.TrimSuffix(m.Root, "/")+"/")
	return filepath.Join(m.Mountpoint, rest), ok
}

// groupsOf are the control groups of a process by the controllers of version 1; that
// of version 2 has an empty name.
//
// Source: cgroups(7), "/proc/pid/cgroup".
func groupsOf(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(filepath.Dir(file)); serr == nil {
			return nil, nil // a kernel without control groups
		}
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		parts := strings.SplitN(sc.Text(), ":", 3)
		if len(parts) != 3 {
			return nil, fmt.Errorf("cgroup: line %.128q is not of its form", sc.Text())
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			out[name] = parts[2]
		}
	}
	return out, nil
}

// devicePrograms counts the programs that decide about devices for a control group of
// version 2, those of the groups above it among them.
//
// Source: kernel/bpf/cgroup.c, __cgroup_bpf_query.
func devicePrograms(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	query := struct {
		target, kind, flags, attached uint32
		programs                      uint64
		count, spare                  uint32
		more                          [4]uint64
	}{target: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_QUERY_EFFECTIVE}
	const size = 32 // up to the count
	_, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), size)
	switch e {
	case 0, unix.ENOSPC:
		return int(query.count), nil
	case unix.ENOSYS, unix.EINVAL:
		return 1, nil // a kernel without such programs: runtimes fail by themselves
	}
	return 0, os.NewSyscallError("bpf", e)
}
