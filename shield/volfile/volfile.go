// SPDX-License-Identifier: Apache-2.0

// Package volfile keeps sealed volumes in files of this host: it opens them
// under their lock, makes them atomically, and reads the directories, archives
// and images that are sealed into them.
package volfile

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

// errLocked says that another process has the volume open in a way that excludes this one.
var errLocked = errors.New("volume is in use by another process")

// File is a volume file under its lock. It is a [sealfs.Device].
type File struct{ *os.File }

// Size is the size of the file.
func (f *File) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if fi.Mode()&fs.ModeDevice != 0 {
		return f.Seek(0, io.SeekEnd)
	}
	return fi.Size(), nil
}

// Sync makes what was written durable.
func (f *File) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			if err != nil {
				return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
			}
			return nil
		}
	}
}

// Open opens a volume file, with a shared lock for reading or an exclusive one
// for writing. It fails at once with errLocked when it cannot have the lock.
func Open(name string, write bool) (*File, error) {
	mode, lock := os.O_RDONLY, unix.LOCK_SH
	if write {
		mode, lock = os.O_RDWR, unix.LOCK_EX
	}
	f, err := os.OpenFile(name, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() && fi.Mode()&fs.ModeDevice == 0 {
		err = fmt.Errorf("%s: not a file", name)
	}
	if err == nil {
		err = flock(f, lock)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f}, nil
}

func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", f.Name(), errLocked)
	}
	return err
}

// Create calls fill with a new empty file and gives it the name when fill
// succeeded: the name has the whole volume or what it had before. Without
// replace an existing file is refused. A process that is killed leaves nothing
// where the file system knows files without a name.
func Create(name string, replace bool, fill func(*File) error) (err error) {
	if _, err := os.Lstat(name); err == nil && !replace {
		return &os.PathError{Op: "create", Path: name, Err: os.ErrExist}
	}
	dir := filepath.Dir(name)
	f, temporary, err := nameless(dir, name)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if temporary != "" && err != nil {
			os.Remove(temporary)
		}
	}()
	if err := flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	if err := fill(&File{f}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if temporary == "" {
		temporary = filepath.Join(dir, fmt.Sprintf(".%s.%d", filepath.Base(name), os.Getpid()))
		if !replace {
			temporary = name
		}
		if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temporary, unix.AT_SYMLINK_FOLLOW); err != nil {
			err = &os.LinkError{Op: "link", Old: "new volume", New: temporary, Err: err}
			temporary = ""
			return err
		}
	} else if !replace {
		if err := os.Link(temporary, name); err != nil {
			return err
		}
		if err := os.Remove(temporary); err != nil {
			return err
		}
	}
	if replace {
		if err := os.Rename(temporary, name); err != nil {
			return err
		}
	}
	temporary = ""
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// nameless makes a file without a name, or one with a temporary name, which it
// returns, where the file system does not know such files.
func nameless(dir, name string) (f *os.File, temporary string, err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), name), "", nil
	}
	if f, err = os.CreateTemp(dir, "."+filepath.Base(name)+".*"); err != nil {
		if e := (*os.PathError)(nil); errors.As(err, &e) {
			err = &os.PathError{Op: "create", Path: name, Err: e.Err} // not the temporary name
		}
		return nil, "", err
	}
	return f, f.Name(), nil
}

// ReadKey reads a key file: 32 bytes as they are, or 64 hexadecimal digits, or
// base64 (standard or URL alphabet) of 32 bytes, with white space around the
// latter two. open says whether others than its owner may read the file.
func ReadKey(name string) (key []byte, open bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 257))
	if err != nil {
		return nil, false, err
	}
	defer clear(b)
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		open = fi.Mode().Perm()&0o077 != 0
	}
	key, err = parseKey(b)
	if err != nil {
		return nil, open, fmt.Errorf("key file %s: %w", name, err)
	}
	return key, open, nil
}

// parseKey decodes the content of a key file.
func parseKey(b []byte) ([]byte, error) {
	if len(b) == sealfs.KeySize {
		return append([]byte(nil), b...), nil
	}
	s := strings.TrimSpace(string(b))
	if len(s) == 2*sealfs.KeySize {
		if k, err := hex.DecodeString(s); err == nil {
			return k, nil
		}
	}
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	if k, err := base64.RawStdEncoding.DecodeString(s); err == nil && len(k) == sealfs.KeySize {
		return k, nil
	}
	return nil, errors.New("is neither 32 bytes, nor 64 hexadecimal digits, nor base64 of 32 bytes")
}
