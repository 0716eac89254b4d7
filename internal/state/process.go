// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Process is one process, told from a later one with the same number by when it
// started.
type Process struct {
	PID int `json:"pid"`
	// Start is the time since the boot in clock ticks.
	Start uint64 `json:"start"`
}

// FindProcess is the process that has a number now.
func FindProcess(pid int) (Process, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return Process{}, err
	}
	// The name, in parentheses, may contain anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const stateField, startField = 0, 19 // the third and the 22nd of all
	if len(fields) <= startField {
		return Process{}, fmt.Errorf("process %d: stat is not of its form", pid)
	}
	if s := fields[stateField]; len(s) == 1 && (s[0] == 'Z' || s[0] == 'X') {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, os.ErrProcessDone)
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: stat: %w", pid, err)
	}
	return Process{pid, start}, nil
}

// Alive tells whether the process has not ended.
func (p *Process) Alive() bool {
	if p == nil || p.PID <= 0 {
		return false
	}
	now, err := FindProcess(p.PID)
	return err == nil && now == *p
}
