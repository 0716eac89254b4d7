// SPDX-License-Identifier: Apache-2.0

// Package sealfs reads and writes sealed volumes: one file that holds a
// directory tree which whoever stores it can neither read nor change unnoticed.
//
// The format is docs/sealfs.md; the data plane of the shield implements it a
// second time, in C. This package does no I/O of its own: it works over a
// [Device], which the caller makes of a file, of memory, or of something that
// lies, as the tests do.
//
// A [Volume] is safe for concurrent use. Nothing is durable before
// [Volume.Commit] returns; after it everything is, and a crash at any moment
// leaves the state of the last Commit or of the one under way, never a mix.
//
// Errors to test for: [ErrNotVolume], [ErrVersion], [ErrWrongKey],
// [ErrCorrupt], [ErrStale], [ErrNoRoot], and the io/fs and sealfs errors of the
// file operations ([fs.ErrNotExist], [fs.ErrExist], [ErrNotDir], …).
package sealfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Sizes of the format (docs/sealfs.md sections 1, 5 and 6).
const (
	BlockSize = 4096
	KeySize   = 32

	nodeCells  = 128
	cellSize   = 32
	inodeSize  = 128
	maxDepth   = 5
	maxSize    = 1 << 44
	headerSize = 512
	slotSize   = 256
	rootSize   = 208

	firstBlock  = 3
	inodeRoot   = 1
	inodeRegion = 2
	firstInode  = 3

	maxName   = 255
	maxTarget = 4095
	pageHead  = 8
	entryHead = 6
)

// Device is the storage of a volume. ReadAt and WriteAt follow the rules of
// [io.ReaderAt] and [io.WriterAt]; WriteAt behind the end extends the device.
// Sync returns when everything written before is durable.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Sync() error
}

// Errors of opening and reading.
var (
	ErrNotVolume = errors.New("not a sealed volume")
	ErrVersion   = errors.New("unsupported version of the volume format")
	ErrWrongKey  = errors.New("wrong key for this volume")
	ErrNoRoot    = errors.New("no valid root: both root slots are damaged")
	ErrCorrupt   = errors.New("volume corrupted")
	ErrStale     = errors.New("volume is older than it should be")
	ErrReadOnly  = errors.New("volume is open for reading only")
	ErrClosed    = fs.ErrClosed
)

// Errors of file operations, beside those of io/fs.
var (
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrNotEmpty    = errors.New("directory not empty")
	ErrNotRegular  = errors.New("not a regular file")
	ErrName        = errors.New("name is empty, longer than 255 bytes, . or .., or holds / or NUL")
	ErrLoop        = errors.New("too many levels of symbolic links")
	ErrTooLarge    = errors.New("file or volume would be larger than 16 TiB")
	ErrCrossRegion = errors.New("target is in another region")
	ErrRegion      = errors.New("path is in a region that is not kept in the volume")
	ErrInvalid     = fs.ErrInvalid
)

// CorruptError says what did not verify. It matches [ErrCorrupt].
type CorruptError struct {
	What  string // what was being read, such as "node" or "inode table"
	Inode uint32 // 0: none, the inode table, or unknown
	Level uint8  // of the tree, 0 = data
	Index uint64 // chunk or node number at this level
	Block uint32 // 0: unknown
	Cause string // what is wrong with it
}

func (e *CorruptError) Error() string {
	s := "volume corrupted: " + e.What
	if e.Inode != 0 {
		s += fmt.Sprintf(" of inode %d", e.Inode)
	}
	if e.Block != 0 {
		s += fmt.Sprintf(" (level %d, index %d, block %d)", e.Level, e.Index, e.Block)
	}
	return s + ": " + e.Cause
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// StaleError says which generation was found and which was asked for. It
// matches [ErrStale].
type StaleError struct {
	Have, Want uint64
	Digest     bool // the generation is the one asked for but its root is another
}

func (e *StaleError) Error() string {
	if e.Digest {
		return fmt.Sprintf("volume's root of generation %d is not the expected one: it was replaced", e.Have)
	}
	return fmt.Sprintf("volume is older than it should be: generation %d, expected at least %d", e.Have, e.Want)
}

// Is makes errors.Is(err, ErrStale) true.
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// Type is the type of an inode.
type Type uint8

// Types of inodes.
const (
	Regular  Type = 1
	Dir      Type = 2
	Symlink  Type = 3
	Fifo     Type = 4
	Socket   Type = 5
	Char     Type = 6
	Block    Type = 7
	Internal Type = 8
)

func (t Type) String() string {
	names := [...]string{"free", "regular", "directory", "symlink", "fifo", "socket", "char", "block", "internal"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// FileMode gives the type in io/fs terms.
func (t Type) FileMode() fs.FileMode {
	switch t {
	case Dir:
		return fs.ModeDir
	case Symlink:
		return fs.ModeSymlink
	case Fifo:
		return fs.ModeNamedPipe
	case Socket:
		return fs.ModeSocket
	case Char:
		return fs.ModeDevice | fs.ModeCharDevice
	case Block:
		return fs.ModeDevice
	}
	return 0
}

// Class is how a region of the tree is kept.
type Class uint8

// Classes of regions.
const (
	Denied        Class = 0
	Passthrough   Class = 1
	Authenticated Class = 2
	Encrypted     Class = 3
	Ephemeral     Class = 4
)

var classNames = [...]string{"denied", "passthrough", "authenticated", "encrypted", "ephemeral"}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// MarshalText writes the class by its name.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText takes the name of a class.
func (c *Class) UnmarshalText(b []byte) error {
	for i, n := range classNames {
		if n == string(b) {
			*c = Class(i)
			return nil
		}
	}
	return fmt.Errorf("region class %q: want denied, passthrough, authenticated, encrypted or ephemeral", b)
}

// Stored says whether the volume holds the files of this class.
func (c Class) Stored() bool { return c == Authenticated || c == Encrypted }
