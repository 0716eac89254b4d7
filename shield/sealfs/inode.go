// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"fmt"
	"time"
)

// record is one entry of the inode table.
type record struct {
	typ        Type
	class      Class
	depth      uint8
	mode       uint32
	uid, gid   uint32
	nlink      uint32
	parent     uint32
	size       uint64
	mtime      int64
	ctime      int64
	generation uint64
	rdev       uint32
	aux        uint32
	id         [idSize]byte
	root       cell
}

func (r *record) put(b []byte) {
	clear(b[:inodeSize])
	if r.typ == 0 {
		return
	}
	b[0], b[1], b[2] = byte(r.typ), byte(r.class), r.depth
	le.PutUint32(b[4:], r.mode)
	le.PutUint32(b[8:], r.uid)
	le.PutUint32(b[12:], r.gid)
	le.PutUint32(b[16:], r.nlink)
	le.PutUint32(b[20:], r.parent)
	le.PutUint64(b[24:], r.size)
	le.PutUint64(b[32:], uint64(r.mtime))
	le.PutUint64(b[40:], uint64(r.ctime))
	le.PutUint64(b[48:], r.generation)
	le.PutUint32(b[56:], r.rdev)
	le.PutUint32(b[60:], r.aux)
	copy(b[64:], r.id[:])
	r.root.put(b[80:])
}

// getRecord decodes and validates one record. A free record has type 0.
func getRecord(b []byte, n, inodes uint32) (record, error) {
	bad := func(format string, args ...any) (record, error) {
		return record{}, &CorruptError{What: "record", Inode: n, Cause: fmt.Sprintf(format, args...)}
	}
	b = b[:inodeSize]
	r := record{
		typ: Type(b[0]), class: Class(b[1]), depth: b[2],
		mode: le.Uint32(b[4:]), uid: le.Uint32(b[8:]), gid: le.Uint32(b[12:]), nlink: le.Uint32(b[16:]), parent: le.Uint32(b[20:]),
		size: le.Uint64(b[24:]), mtime: int64(le.Uint64(b[32:])), ctime: int64(le.Uint64(b[40:])), generation: le.Uint64(b[48:]),
		rdev: le.Uint32(b[56:]), aux: le.Uint32(b[60:]), id: [idSize]byte(b[64:]), root: getCell(b[80:]),
	}
	if r.typ == 0 {
		if !allZero(b) {
			return bad("free, but not zero")
		}
		return r, nil
	}
	isDev := r.typ == Char || r.typ == Block
	switch {
	case n == 0:
		return bad("inode 0 is in use")
	case r.typ > Internal:
		return bad("unknown type %d", uint8(r.typ))
	case !r.class.Stored() || r.class == Authenticated && (r.typ == Dir || r.typ == Symlink || r.typ == Internal):
		return bad("%v of class %v", r.typ, r.class)
	case b[3] != 0 || !allZero(b[112:]):
		return bad("reserved bytes are not zero")
	case r.mode&^0o7777 != 0:
		return bad("mode %#o", r.mode)
	case !depthFits(r.depth, r.size):
		return bad("size %d does not fit depth %d", r.size, r.depth)
	case r.typ == Dir && (r.size%BlockSize != 0 || r.parent == 0 || r.parent >= inodes):
		return bad("directory of size %d with parent %d", r.size, r.parent)
	case r.typ != Dir && r.parent != 0:
		return bad("%v with a parent", r.typ)
	case r.typ == Symlink && (r.size == 0 || r.size > maxTarget):
		return bad("symlink of %d bytes", r.size)
	case r.typ >= Fifo && r.typ <= Block && (r.size != 0 || r.root != cell{}):
		return bad("%v with content", r.typ)
	case !isDev && r.rdev != 0:
		return bad("%v with a device number", r.typ)
	case r.aux != 0 && (r.typ != Regular || r.aux >= inodes):
		return bad("%v with facts in inode %d", r.typ, r.aux)
	case r.id == [idSize]byte{}:
		return bad("has the file id of the inode table")
	}
	return r, nil
}

// Info describes an inode.
type Info struct {
	Inode      uint32
	Type       Type
	Class      Class
	Mode       uint32 // the low twelve bits
	UID, GID   uint32
	Links      uint32
	Size       int64
	ModTime    time.Time
	ChangeTime time.Time
	Rdev       uint32 // major << 20 | minor
	Generation uint64 // in which the inode last changed
	HasFacts   bool   // facts authenticated when it was sealed
}

func (r *record) info(n uint32) Info {
	return Info{
		Inode: n, Type: r.typ, Class: r.class, Mode: r.mode, UID: r.uid, GID: r.gid, Links: r.nlink, Size: int64(r.size),
		ModTime: time.Unix(0, r.mtime), ChangeTime: time.Unix(0, r.ctime), Rdev: r.rdev, Generation: r.generation, HasFacts: r.aux != 0,
	}
}

// Attr are the attributes that a caller may set. Times that are zero become now.
type Attr struct {
	Mode     uint32
	UID, GID uint32
	ModTime  time.Time
	Rdev     uint32
}
