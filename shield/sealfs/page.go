// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"fmt"
	"strings"
)

// entry is one name of a directory.
type entry struct {
	inode uint32
	typ   Type
	name  string
}

func (e *entry) size() int { return entryHead + len(e.name) }

func validName(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// page is a decoded directory page.
type page []entry

func (p page) used() int {
	n := pageHead
	for i := range p {
		n += p[i].size()
	}
	return n
}

func (p page) encode(b []byte) {
	clear(b[:BlockSize])
	le.PutUint16(b, uint16(len(p)))
	n := pageHead
	for i := range p {
		e := &p[i]
		le.PutUint32(b[n:], e.inode)
		b[n+4], b[n+5] = byte(e.typ), byte(len(e.name))
		n += entryHead + copy(b[n+entryHead:], e.name)
	}
	le.PutUint16(b[2:], uint16(n))
}

// decodePage validates a page as section 7 of the specification asks.
func decodePage(b []byte, dir uint32, number uint64, inodes uint32) (page, error) {
	bad := func(format string, args ...any) (page, error) {
		return nil, &CorruptError{What: "directory page", Inode: dir, Index: number, Cause: fmt.Sprintf(format, args...)}
	}
	n, used := int(le.Uint16(b)), int(le.Uint16(b[2:]))
	if n == 0 || used < pageHead || used > BlockSize || le.Uint32(b[4:]) != 0 {
		return bad("%d entries in %d bytes", n, used)
	}
	if !allZero(b[used:BlockSize]) {
		return bad("bytes behind the last entry")
	}
	p := make(page, 0, min(n, BlockSize/(entryHead+1)))
	rest := b[pageHead:used]
	var last []byte
	for i := range n {
		if len(rest) < entryHead || len(rest) < entryHead+int(rest[5]) {
			return bad("entry %d is cut short", i)
		}
		name := rest[entryHead : entryHead+int(rest[5])]
		e := entry{inode: le.Uint32(rest), typ: Type(rest[4]), name: string(name)}
		switch {
		case !validName(e.name):
			return bad("entry %d: name %q", i, e.name)
		case i > 0 && bytes.Compare(last, name) >= 0:
			return bad("entry %d is out of order", i)
		case e.inode < firstInode || e.inode >= inodes:
			return bad("entry %d points to inode %d of %d", i, e.inode, inodes)
		case e.typ == 0 || e.typ >= Internal:
			return bad("entry %d has type %d", i, e.typ)
		}
		p, last = append(p, e), name
		rest = rest[e.size():]
	}
	if len(rest) != 0 {
		return bad("bytes behind the last entry")
	}
	return p, nil
}

// find gives the index of name, or where it belongs.
func (p page) find(name string) (int, bool) {
	lo, hi := 0, len(p)
	for lo < hi {
		m := (lo + hi) / 2
		if p[m].name < name {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < len(p) && p[lo].name == name
}
