// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/selinux/selinuxfs"
)

// ErrGone says that the process ended while it was read.
var ErrGone = errors.New("the process has ended")

// Witness is what the caller knows of a process that the kernel does not tell.
type Witness struct {
	// StepReached reports that the last step has come to its gate, which it does
	// after it has entered its Landlock domain and installed its filters, and that
	// the program that did so is the one that was handed over.
	StepReached bool
	// Verified reports that this very process was found to be as asked before. It
	// can leave neither a domain nor a filter.
	Verified bool
}

// Options say how to read.
type Options struct {
	// Stopped reports that the process is stopped for the calling thread, its tracer.
	Stopped bool
	Witness Witness
}

// Read reads what confines the process pid. What there is to look at (masked and
// read-only paths, mounts, the hashes of filters) comes from asked. The process may be
// hostile; it is stopped for a moment when filters are to be found. The error wraps
// [ErrGone], or [errSlow] when one of its file systems does not answer.
func Read(pid int, asked State) (State, error) { return ReadWith(pid, asked, Options{}) }

// ReadWith is Read with options.
func ReadWith(pid int, asked State, o Options) (State, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return State{}, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	defer unix.Close(pidfd)
	st, err := read(pid, asked, o)
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

func read(pid int, asked State, o Options) (State, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	st := State{MaskedPaths: []string{}, ReadOnlyPaths: []string{}, Namespaces: []string{}}
	if err := st.readUser(proc); err != nil {
		return st, err
	}
	if asked.Seccomp.SHA256 != nil && st.Seccomp.Mode == SeccompFilter {
		hashes := filterHashes
		if o.Stopped {
			hashes = hashFilters
		}
		st.Seccomp.SHA256 = hashes(pid)
	}
	st.infer(asked, o.Witness)
	var err error
	if st.SELinux, st.AppArmor, err = labels(proc); err != nil {
		return st, err
	}
	if asked.SELinux != "" && st.SELinux != "" {
		if st.Permissive, err = permissive(st.SELinux); err != nil {
			return st, err
		}
	}
	if st.Namespaces, err = namespaces(proc); err != nil {
		return st, err
	}
	if asked.DevicesDenied {
		// In a user namespace runtimes leave devices alone, and so does the kernel.
		open := false
		if !slices.Contains(st.Namespaces, "user") {
			if open, err = openDevices(proc); err != nil {
				return st, err
			}
		}
		st.DevicesDenied = !open
	}
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return st, err
	}
	defer f.Close()
	t, err := readTable(f)
	if err != nil {
		return st, err
	}
	in, err := within(probeTimeout, func() (*found, error) {
		return probe(proc, t, asked, slices.Contains(st.Namespaces, "mnt"))
	})
	if err != nil {
		return st, err
	}
	st.Root, st.ReadOnlyRoot, st.MaskedPaths, st.ReadOnlyPaths = in.root, in.readOnlyRoot, in.masked, in.ro
	st.Mounts, st.Devices, st.Links, st.Outside, st.Descriptors = in.mounts, in.devices, in.links, in.outside, in.fds
	return st, nil
}

// infer concludes what no file tells: a Landlock domain, and filters that cannot be
// read.
func (st *State) infer(asked State, w Witness) {
	switch {
	case w.Verified, w.StepReached:
		st.Landlock = asked.Landlock
	case len(asked.Seccomp.SHA256) > 0 && st.Seccomp.SHA256 != nil && len(missing(asked.Seccomp.SHA256, st.Seccomp.SHA256)) == 0:
		// Only the last step has these filters, and it enters the domain first.
		st.Landlock = asked.Landlock
	}
	if asked.Seccomp.SHA256 != nil && st.Seccomp.Mode == SeccompFilter && st.Seccomp.SHA256 == nil {
		st.Seccomp.Witnessed = w.Verified || w.StepReached && st.Seccomp.Filters >= asked.Seccomp.Filters
	}
}

// permissive reports whether SELinux only logs what a domain may not do: the kernel's
// mode, or the policy's for that domain.
func permissive(context string) (bool, error) {
	f, err := selinuxfs.Open("")
	if err != nil {
		return false, err
	}
	on, err := f.Enforcing()
	if err != nil || !on {
		return true, err
	}
	class, err := f.Class("process")
	if err != nil {
		return false, err
	}
	d, err := f.Access(context, context, class)
	const domainIsPermissive = 1
	return d.Flags&domainIsPermissive != 0, err
}

// readUser takes what is in /proc/PID/status, with IDs as the process has them.
func (st *State) readUser(proc string) error {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return err
	}
	if err := st.readStatus(status); err != nil {
		return err
	}
	uids, err := readIDMap(filepath.Join(proc, "uid_map"))
	if err != nil {
		return err
	}
	gids, err := readIDMap(filepath.Join(proc, "gid_map"))
	if err != nil {
		return err
	}
	st.UID, st.GID = uids.inside(st.UID), gids.inside(st.GID)
	for i, g := range st.Groups {
		st.Groups[i] = gids.inside(g)
	}
	return nil
}

// idMap translates the IDs of a user namespace.
type idMap [][3]uint32 // inside, outside, count

func readIDMap(file string) (idMap, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(filepath.Dir(file)); serr != nil {
			return nil, serr
		}
		return idMap{{0, 0, noID}}, nil // a kernel without user namespaces
	} else if err != nil {
		return nil, err
	}
	return parseIDMap(b)
}

// Source: kernel/user_namespace.c, uid_m_show.
func parseIDMap(b []byte) (idMap, error) {
	var m idMap
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("ID map: line %.64q: want three numbers", line)
		}
		var e [3]uint32
		for i := range e {
			n, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("ID map: line %.64q: %w", line, err)
			}
			e[i] = uint32(n)
		}
		m = append(m, e)
	}
	return m, nil
}

// noID stands for one that a namespace does not have.
const noID = 1<<32 - 1

func (m idMap) inside(outside uint32) uint32 {
	for _, e := range m {
		if outside >= e[1] && outside-e[1] < e[2] {
			return e[0] + (outside - e[1])
		}
	}
	return noID
}

var statusLines = []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"}

// readStatus takes the lines of /proc/PID/status that are about confinement.
//
// Source: fs/proc/array.c, proc_pid_status.
func (st *State) readStatus(b []byte) error {
	st.Seccomp = Seccomp{Mode: SeccompDisabled, Filters: -1}
	seen := 0
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
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
			seen++
			st.NoNewPrivileges = value == "1"
		case "Groups":
			seen++
			st.Groups = []uint32{}
			for _, f := range strings.Fields(value) {
				n, perr := strconv.ParseUint(f, 10, 32)
				if perr != nil {
					err = perr
					break
				}
				st.Groups = append(st.Groups, uint32(n))
			}
		case "Seccomp":
			seen++
			modes := []string{SeccompDisabled, seccompStrict, SeccompFilter}
			if n, e := strconv.Atoi(value); e == nil && n >= 0 && n < len(modes) {
				st.Seccomp.Mode = modes[n]
			} else {
				err = fmt.Errorf("unknown seccomp mode %.16q", value)
			}
		case "Seccomp_filters":
			st.Seccomp.Filters, err = strconv.Atoi(value)
		case "Uid":
			seen++
			st.UID, err = effectiveID(value)
		case "Gid":
			seen++
			st.GID, err = effectiveID(value)
		}
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
	}
	if seen != len(statusLines) {
		return fmt.Errorf("status: want each of %s once", strings.Join(statusLines, ", "))
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
