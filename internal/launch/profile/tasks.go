// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/apparmor/securityfs"
)

// Holders finds the processes that have one of the profiles, alone or in a
// stack, now or from their next exec on. Threads count: each has a label of its
// own. Those that have ended and were not yet waited for do not.
func Holders(kernel Kernel, names []string) (map[string][]int, error) {
	proc := kernel.Proc
	if proc == "" {
		proc = "/proc"
	}
	// Before 5.8 there is one folder for all modules.
	folder := "attr"
	if _, err := os.Stat(filepath.Join(proc, "self", "attr", "apparmor")); err == nil {
		folder = "attr/apparmor"
	}
	processes, err := numbers(proc)
	if err != nil {
		return nil, err
	}
	out := map[string][]int{}
	for _, process := range processes {
		tasks := proc + "/" + process + "/task"
		threads, err := numbers(tasks)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return nil, err
		}
		for _, thread := range threads {
			dir := tasks + "/" + thread
			labels, err := taskLabels(dir + "/" + folder)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if !slices.ContainsFunc(labels, func(l securityfs.Label) bool { return l.Has(name) }) || ended(dir) {
					continue
				}
				pid, err := strconv.Atoi(process)
				if err == nil && !slices.Contains(out[name], pid) {
					out[name] = append(out[name], pid)
				}
			}
		}
	}
	return out, nil
}

// numbers are the entries of a folder of /proc that are numbers.
func numbers(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return slices.DeleteFunc(names, func(n string) bool { return n[0] < '0' || n[0] > '9' }), err
}

// maxLabel bounds a label in bytes: the kernel gives a page at most.
const maxLabel = 4096

// taskLabels are the label of a thread and the one it takes with its next exec.
// There are thousands of threads, so it reads as plainly as can be.
func taskLabels(dir string) ([]securityfs.Label, error) {
	var out []securityfs.Label
	var buf [maxLabel]byte
	for _, name := range []string{"current", "exec"} {
		fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		n := 0
		if err == nil {
			n, err = unix.Read(fd, buf[:])
			unix.Close(fd)
		}
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
			continue // it ended, or there is none
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: dir + "/" + name, Err: err}
		}
		b := bytes.TrimSpace(buf[:n])
		if len(b) == 0 || string(b) == "unconfined" {
			continue
		}
		l, err := securityfs.ParseLabel(string(b))
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// ended tells whether a thread runs no more.
func ended(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && i+2 < len(b) && bytes.IndexByte([]byte("ZX"), b[i+2]) >= 0
}
