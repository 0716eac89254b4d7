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
	out := map[string][]int{}
	threads, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "task", "[0-9]*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range threads {
		labels, err := taskLabels(dir)
		if err != nil {
			return nil, err
		}
		for _, l := range labels {
			for _, name := range names {
				if !l.Has(name) || ended(dir) {
					continue
				}
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(dir))))
				if err == nil && !slices.Contains(out[name], pid) {
					out[name] = append(out[name], pid)
				}
			}
		}
	}
	return out, nil
}

// taskLabels are the label of a thread and the one it takes with its next exec.
func taskLabels(dir string) ([]securityfs.Label, error) {
	var out []securityfs.Label
	for _, name := range []string{"current", "exec"} {
		b, err := os.ReadFile(filepath.Join(dir, "attr", "apparmor", name))
		if errors.Is(err, fs.ErrNotExist) {
			// Before 5.8 there is one folder for all modules.
			b, err = os.ReadFile(filepath.Join(dir, "attr", name))
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
			continue // it ended, or there is none
		case err != nil:
			return nil, err
		}
		if b = bytes.TrimSpace(b); len(b) == 0 {
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
