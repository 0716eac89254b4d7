// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces files so that a reader, and whoever comes after a
// kill -9, finds either the old or the new content, and nothing beside it but, at
// worst, a file whose name begins with prefix.
package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
)

// prefix begins the name of a file that is not whole yet.
const prefix = ".palisade-"

// Owner is the user and group that own a file.
type Owner struct{ UID, GID int }

// File says how a file is written.
type File struct {
	// Mode holds the permissions; the umask does not count.
	Mode fs.FileMode
	// Owner owns the file; nil leaves it with the process.
	Owner *Owner
	// Volatile does without waiting for the disk: for what a power cut ends as
	// well as the file. A killed process does no harm to it either way.
	Volatile bool
}

// Write puts data in the place of the file at path, which need not exist. A
// symbolic link is replaced, not followed.
func (a File) Write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, prefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if a.Owner != nil {
		if err := f.Chown(a.Owner.UID, a.Owner.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(a.Mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if !a.Volatile {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil || a.Volatile {
		return err
	}
	return SyncDir(dir)
}

// SyncDir waits until what was made, renamed or removed in a folder is on disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
