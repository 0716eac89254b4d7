// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

// ErrGone says that the process ended while it was read.
var ErrGone = errors.New("the process has ended")

// Read reads what confines the process pid. Which masked and read-only paths
// there are to look at comes from asked. Landlock is in force when a filter is
// found that the last step installs after it. The process may be hostile; it is
// stopped for a moment, when filters are to be found. The error wraps [ErrGone].
func Read(pid int, asked State) (State, error) { return readWith(pid, asked, filterHashes) }

// ReadStopped is Read of a process that is stopped for the calling thread, its
// tracer.
func ReadStopped(pid int, asked State) (State, error) { return readWith(pid, asked, hashFilters) }

func readWith(pid int, asked State, hashes func(int) []string) (State, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return State{}, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	defer unix.Close(pidfd)
	st, err := read(pid, asked, hashes)
	// A number that came to mean another process in between would have been
	// read in vain.
	if serr := unix.PidfdSendSignal(pidfd, 0, nil, 0); serr != nil {
		return State{}, fmt.Errorf("process %d: %w", pid, gone(serr))
	}
	if err != nil {
		return State{}, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	return st, nil
}

func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return ErrGone
	}
	return err
}

func read(pid int, asked State, hashes func(int) []string) (State, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	st := State{MaskedPaths: []string{}, ReadOnlyPaths: []string{}, Namespaces: []string{}}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return st, err
	}
	if err := st.readStatus(status); err != nil {
		return st, err
	}
	if asked.Seccomp.SHA256 != nil && st.Seccomp.Mode == SeccompFilter {
		st.Seccomp.SHA256 = hashes(pid)
	}
	// Where filters cannot be read there is nothing to go by but that the step
	// ended well.
	if st.Seccomp.SHA256 == nil || len(missing(asked.Seccomp.SHA256, st.Seccomp.SHA256)) == 0 {
		st.Landlock = asked.Landlock
	}
	if st.SELinux, st.AppArmor, err = labels(proc); err != nil {
		return st, err
	}
	if st.Namespaces, err = namespaces(proc); err != nil {
		return st, err
	}
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return st, err
	}
	defer f.Close()
	mounts, err := readMounts(f)
	if err != nil {
		return st, err
	}
	st.ReadOnlyRoot = readOnly(mounts, "/")
	root, err := os.OpenFile(filepath.Join(proc, "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return st, err
	}
	defer root.Close()
	for _, p := range asked.MaskedPaths {
		if masked(mounts, p) || !there(root, p) {
			st.MaskedPaths = append(st.MaskedPaths, p)
		}
	}
	for _, p := range asked.ReadOnlyPaths {
		if readOnly(mounts, p) || !there(root, p) {
			st.ReadOnlyPaths = append(st.ReadOnlyPaths, p)
		}
	}
	return st, nil
}

// there tells whether a path exists inside a container, without following a
// link out of it. In doubt it does.
func there(root *os.File, p string) bool {
	h, err := securejoin.OpenatInRoot(root, p)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	h.Close()
	return true
}

// readStatus takes the lines of /proc/PID/status that are about confinement.
//
// Source: fs/proc/array.c, proc_pid_status.
func (st *State) readStatus(b []byte) error {
	st.Seccomp = Seccomp{Mode: SeccompDisabled, Filters: -1}
	seen := 0
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimSpace(value)
		var err error
		capSet := func(dst *caps.Set) {
			seen++
			*dst, err = caps.ParseHex(value)
		}
		switch key {
		case "CapInh":
			capSet(&st.Capabilities.Inheritable)
		case "CapPrm":
			capSet(&st.Capabilities.Permitted)
		case "CapEff":
			capSet(&st.Capabilities.Effective)
		case "CapBnd":
			capSet(&st.Capabilities.Bounding)
		case "CapAmb":
			capSet(&st.Capabilities.Ambient)
		case "NoNewPrivs":
			st.NoNewPrivileges = value == "1"
		case "Seccomp":
			modes := []string{SeccompDisabled, SeccompStrict, SeccompFilter}
			if n, e := strconv.Atoi(value); e == nil && n >= 0 && n < len(modes) {
				st.Seccomp.Mode = modes[n]
			} else {
				err = fmt.Errorf("seccomp mode %q is none that is known", value)
			}
		case "Seccomp_filters":
			st.Seccomp.Filters, err = strconv.Atoi(value)
		case "Uid":
			st.UID, err = effectiveID(value)
		case "Gid":
			st.GID, err = effectiveID(value)
		}
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
	}
	if seen != 5 {
		return errors.New("status: capability lines are missing")
	}
	return nil
}

// effectiveID is the second of the real, effective, saved and file system IDs.
func effectiveID(value string) (uint32, error) {
	f := strings.Fields(value)
	if len(f) < 2 {
		return 0, fmt.Errorf("IDs %q: want four", value)
	}
	n, err := strconv.ParseUint(f[1], 10, 32)
	return uint32(n), err
}

// labels reads the SELinux context and the AppArmor profile.
func labels(proc string) (selinux, apparmor string, err error) {
	attr := func(name string) string {
		b, rerr := os.ReadFile(filepath.Join(proc, "attr", name))
		switch {
		case rerr == nil:
			return strings.TrimRight(string(b), "\x00\n ")
		case errors.Is(rerr, unix.EINVAL), errors.Is(rerr, fs.ErrNotExist), errors.Is(rerr, unix.EOPNOTSUPP):
			return "" // no module answers
		}
		err = errors.Join(err, rerr)
		return ""
	}
	apparmor = attr("apparmor/current")
	if _, serr := os.Stat("/sys/fs/selinux/enforce"); serr == nil {
		selinux = attr("current")
	} else if apparmor == "" {
		// Kernels before 5.8 have one file for whichever module is there.
		apparmor = attr("current")
	}
	if apparmor == "unconfined" {
		apparmor = ""
	}
	return selinux, apparmor, err
}

// Labels are the SELinux context and the AppArmor profile of a process, the latter
// with its mode; empty for none. The error wraps [ErrGone].
func Labels(pid int) (selinux, apparmor string, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	selinux, apparmor, err = labels(proc)
	if _, serr := os.Stat(proc); serr != nil {
		return "", "", fmt.Errorf("process %d: %w", pid, gone(serr))
	}
	return selinux, apparmor, err
}

// namespaces lists the kinds that the process does not share with us.
func namespaces(proc string) ([]string, error) {
	out := []string{}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		theirs, err := os.Readlink(filepath.Join(proc, "ns", kind))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		ours, err := os.Readlink(filepath.Join("/proc/self/ns", kind))
		if err != nil {
			return nil, err
		}
		if ours != theirs {
			out = append(out, kind)
		}
	}
	slices.Sort(out)
	return out, nil
}
