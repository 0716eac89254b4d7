// SPDX-License-Identifier: Apache-2.0

// Package configfile changes configuration files of the host without touching
// what it does not own: a plan is a list of [Edit], and nothing is written until
// [Write], which keeps what was there and writes each file whole or not at all.
package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/palisade-sec/palisade/internal/atomicfile"
)

// Edit is one file of the host before and after a change. A plan is a list of
// them; nothing is written until [Write].
type Edit struct {
	// Path is absolute, below the root that the plan was made for.
	Path string
	// Before and After are the contents; nil means that there is no file.
	Before, After []byte
	// Backup is where Before is kept; empty when nothing is kept.
	Backup string
}

// Changes tells whether the edit does anything.
func (e Edit) Changes() bool {
	return (e.Before == nil) != (e.After == nil) || !bytes.Equal(e.Before, e.After)
}

// BackupSuffix marks the file that holds what was there before Palisade's
// first change. absentMark is its content when there was no file.
const (
	BackupSuffix = ".palisade-orig"
	absentMark   = "# palisade: this file did not exist\n"
)

// ErrChanged is the error of a plan whose files are no longer what it was made
// for.
var ErrChanged = errors.New("changed since the plan was made")

// Write does the edits in order below root: it keeps what was there, writes
// each file whole or not at all, and keeps owner and mode. A file that is not
// as the plan found it is not touched, and the error wraps [ErrChanged]; edits
// before it stay done, and doing the rest of a new plan is safe.
func Write(root string, edits []Edit) error {
	for _, e := range edits {
		if !e.Changes() {
			continue
		}
		if err := writeEdit(filepath.Join(root, e.Path), e, root); err != nil {
			return fmt.Errorf("write %s: %w", e.Path, err)
		}
	}
	return nil
}

func writeEdit(path string, e Edit, root string) error {
	// A configuration file may be a symbolic link into a managed tree; what
	// it points at is what is edited.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return errors.New("is a symbolic link to a file that does not exist")
	}
	current, err := Read(path)
	if err != nil {
		return err
	}
	if (current == nil) != (e.Before == nil) || !bytes.Equal(current, e.Before) {
		return ErrChanged
	}
	if e.Backup != "" {
		if err := keepBackup(filepath.Join(root, e.Backup), e.Before, path); err != nil {
			return fmt.Errorf("keep a copy: %w", err)
		}
	}
	if e.After == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
		return atomicfile.SyncDir(filepath.Dir(path))
	}
	return Replace(path, e.After, path)
}

// keepBackup keeps the first state that was found: the second change must not
// take the first for the original.
func keepBackup(backup string, content []byte, like string) error {
	if _, err := os.Lstat(backup); err == nil {
		return nil
	}
	if content == nil {
		content = []byte(absentMark)
	}
	return Replace(backup, content, like)
}

// Replace puts content in the place of path, with the owner and mode of
// like where that exists.
func Replace(path string, content []byte, like string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file := atomicfile.File{Mode: 0o644}
	if fi, err := os.Stat(like); err == nil {
		file.Mode = fi.Mode().Perm()
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			file.Owner = &atomicfile.Owner{UID: int(st.Uid), GID: int(st.Gid)}
		}
	}
	return file.Write(path, content)
}

// maxConfig bounds the configuration files that are edited.
const maxConfig = 4 << 20

// Read is a file's content, nil when there is none.
func Read(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	if fi.Size() > maxConfig {
		return nil, fmt.Errorf("is larger than %d bytes", maxConfig)
	}
	b, err := os.ReadFile(path)
	if err == nil && b == nil {
		b = []byte{}
	}
	return b, err
}

// ReadBackup is what was kept of a file: found is false when nothing was kept,
// and content nil when there was no file.
func ReadBackup(path string) (content []byte, found bool, err error) {
	b, err := Read(path + BackupSuffix)
	if err != nil || b == nil {
		return nil, false, err
	}
	if string(b) == absentMark {
		return nil, true, nil
	}
	return b, true, nil
}

// Diff shows an edit as lines that go (-) and come (+), with up to three lines
// around them.
func (e Edit) Diff() string {
	var b strings.Builder
	switch {
	case !e.Changes():
		return ""
	case e.Before == nil:
		fmt.Fprintf(&b, "create %s\n", e.Path)
	case e.After == nil:
		fmt.Fprintf(&b, "remove %s\n", e.Path)
	default:
		fmt.Fprintf(&b, "change %s\n", e.Path)
	}
	before, after := lines(e.Before), lines(e.After)
	// What both begin and end with is the same; between them everything goes
	// and everything comes. Configuration edits touch one or two places, and
	// this never misstates one.
	head := 0
	for head < len(before) && head < len(after) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < len(before)-head && tail < len(after)-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	for _, l := range before[max(0, head-3):head] {
		fmt.Fprintf(&b, "    %s\n", l)
	}
	for _, l := range before[head : len(before)-tail] {
		fmt.Fprintf(&b, "  - %s\n", l)
	}
	for _, l := range after[head : len(after)-tail] {
		fmt.Fprintf(&b, "  + %s\n", l)
	}
	for _, l := range after[len(after)-tail : min(len(after), len(after)-tail+3)] {
		fmt.Fprintf(&b, "    %s\n", l)
	}
	return b.String()
}

func lines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
