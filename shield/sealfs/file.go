// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"errors"
	"fmt"
	"io"
)

// readTree fills p from the offset; the range must lie within the tree's size.
func (v *Volume) readTree(t *tree, p []byte, off uint64) error {
	for len(p) > 0 {
		n, in := off/BlockSize, int(off%BlockSize)
		if in == 0 && len(p) >= BlockSize && v.chunks[chunkKey{t, n}] == nil {
			did, err := v.readRun(t, p, n)
			if err != nil {
				return err
			}
			p, off = p[did:], off+uint64(did)
			continue
		}
		ch, err := v.chunk(t, n)
		if err != nil {
			return err
		}
		did := copy(p, ch.data[in:])
		p, off = p[did:], off+uint64(did)
	}
	return nil
}

// readRun reads whole chunks that are not cached and lie in one run of blocks.
func (v *Volume) readRun(t *tree, p []byte, first uint64) (int, error) {
	var cells [runBlocks]cell
	count := 0
	for count < runBlocks && len(p) >= (count+1)*BlockSize {
		n := first + uint64(count)
		if count > 0 && v.chunks[chunkKey{t, n}] != nil {
			break
		}
		c, err := t.cell(n)
		if err != nil {
			return 0, err
		}
		if count > 0 && (c.block == 0 || c.block != cells[count-1].block+1) {
			break
		}
		if cause := c.check(v.blocks()); cause != "" {
			return 0, t.corrupt(0, n, c.block, cause)
		}
		cells[count] = c
		count++
		if c.block == 0 {
			break
		}
	}
	if cells[0].block == 0 {
		clear(p[:BlockSize])
		return BlockSize, nil
	}
	if v.run == nil {
		v.run = make([]byte, runBlocks*BlockSize+tagSize)
	}
	got, err := v.dev.ReadAt(v.run[:count*BlockSize], int64(cells[0].block)*BlockSize)
	if got < count*BlockSize && err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read block %d: %w", cells[0].block, err)
	}
	for i := range count {
		n, off := first+uint64(i), i*BlockSize
		if got < off+BlockSize {
			clear(p[:off])
			return 0, t.corrupt(0, n, cells[i].block, "the volume ends before it")
		}
		var keep [tagSize]byte
		box := v.run[off : off+BlockSize : off+BlockSize+tagSize]
		tail := v.run[off+BlockSize : off+BlockSize+tagSize]
		copy(keep[:], tail)
		if !t.key.open(p[off:off+BlockSize], box, cells[i].salt[:], cells[i].tag, 0, n) {
			clear(p[:off+BlockSize])
			return 0, t.corrupt(0, n, cells[i].block, "authentication failed")
		}
		copy(tail, keep[:])
	}
	return count * BlockSize, nil
}

// writeTree writes p at the offset, extending the tree.
func (v *Volume) writeTree(t *tree, p []byte, off uint64) error {
	if off > maxSize || uint64(len(p)) > maxSize-off {
		return ErrTooLarge
	}
	var b []byte
	for len(p) > 0 {
		n, in := off/BlockSize, int(off%BlockSize)
		var did int
		if in == 0 && len(p) >= BlockSize && v.chunks[chunkKey{t, n}] == nil {
			if b == nil {
				b = make([]byte, BlockSize+tagSize)
			}
			did = copy(b[:BlockSize], p)
			if err := v.replaceChunk(t, n, b); err != nil {
				return err
			}
		} else {
			ch, err := v.chunk(t, n)
			if err != nil {
				return err
			}
			did = copy(ch.data[in:], p)
			ch.dirty = true
		}
		p, off = p[did:], off+uint64(did)
		t.size = max(t.size, off)
	}
	return nil
}

// truncateTree sets the size.
func (v *Volume) truncateTree(t *tree, size uint64) error {
	if size > maxSize {
		return ErrTooLarge
	}
	if size < t.size {
		keep := chunksOf(size)
		v.discardChunks(t, keep)
		if err := t.cut(keep); err != nil {
			return err
		}
		if in := size % BlockSize; in != 0 {
			c, err := t.cell(keep - 1)
			if err != nil {
				return err
			}
			if c.block != 0 || v.chunks[chunkKey{t, keep - 1}] != nil {
				ch, err := v.chunk(t, keep-1)
				if err != nil {
					return err
				}
				clear(ch.data[in:])
				ch.dirty = true
			}
		}
	}
	for chunksOf(size) > 1<<(7*t.depth) {
		t.deepen()
	}
	t.size = size
	return nil
}

// File is an open regular file. It is safe for concurrent use; Read, Write and
// Seek share one position.
type File struct {
	v      *Volume
	in     *inode
	pos    int64
	closed bool
}

func (v *Volume) openInode(in *inode) *File {
	in.refs++
	return &File{v: v, in: in}
}

func (f *File) lock(write bool) error {
	f.v.mu.Lock()
	err := f.v.readable()
	if write {
		err = f.v.writable()
	}
	if f.closed {
		err = ErrClosed
	}
	if err != nil {
		f.v.mu.Unlock()
	}
	return err
}

// Stat describes the file.
func (f *File) Stat() (Info, error) {
	if err := f.lock(false); err != nil {
		return Info{}, err
	}
	defer f.v.mu.Unlock()
	f.in.rec.size = f.in.tree.size
	return f.in.rec.info(f.in.n), nil
}

// ReadAt reads as io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.lock(false); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	return f.readAt(p, off)
}

func (f *File) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrInvalid
	}
	size := int64(f.in.tree.size)
	if off >= size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > size-off {
		p, end = p[:size-off], io.EOF
	}
	// One run at a time, so that what is returned before an error is true.
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+runBlocks*BlockSize)]
		if err := f.v.readTree(&f.in.tree, part, uint64(off)+uint64(done)); err != nil {
			clear(p[done:])
			return done, err
		}
		done += len(part)
	}
	return done, end
}

// NextData gives the offset of the first byte at or behind off that does not lie in a
// hole, as lseek does with SEEK_DATA; io.EOF when there is none.
func (f *File) NextData(off int64) (int64, error) {
	if err := f.lock(false); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	if off < 0 {
		return 0, ErrInvalid
	}
	t := &f.in.tree
	if uint64(off) >= t.size {
		return 0, io.EOF
	}
	first := uint64(off) / BlockSize
	next, ok, err := t.nextData(first)
	if err != nil {
		return 0, err
	}
	for k := range f.v.chunks { // written, but not yet in the tree
		if k.t == t && k.n >= first && (!ok || k.n < next) {
			next, ok = k.n, true
		}
	}
	if !ok || next*BlockSize >= t.size {
		return 0, io.EOF
	}
	return max(off, int64(next*BlockSize)), nil
}

// WriteAt writes as io.WriterAt, extending the file.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.lock(true); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	return f.writeAt(p, off)
}

func (f *File) writeAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrInvalid
	}
	if len(p) == 0 {
		return 0, nil
	}
	v, in := f.v, f.in
	if err := v.dropFacts(in); err != nil {
		return 0, err
	}
	before := in.tree.size
	err := v.writeTree(&in.tree, p, uint64(off))
	v.stamp(in)
	if err != nil {
		// What was written stays, as with a short write; the size says how far it went.
		done := 0
		if in.tree.size > max(before, uint64(off)) {
			done = int(in.tree.size - uint64(off))
		}
		return min(done, len(p)), err
	}
	return len(p), nil
}

// stamp notes a change of content.
func (v *Volume) stamp(in *inode) {
	in.rec.mtime = v.now().UnixNano()
	in.rec.ctime = in.rec.mtime
	v.touch(in)
}

// Truncate sets the size.
func (f *File) Truncate(size int64) error {
	if err := f.lock(true); err != nil {
		return err
	}
	defer f.v.mu.Unlock()
	return f.v.truncate(f.in, size)
}

func (v *Volume) truncate(in *inode, size int64) error {
	if size < 0 {
		return ErrInvalid
	}
	if err := v.dropFacts(in); err != nil {
		return err
	}
	v.stamp(in)
	return v.truncateTree(&in.tree, uint64(size))
}

// Read reads from the position.
func (f *File) Read(p []byte) (int, error) {
	if err := f.lock(false); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	n, err := f.readAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Write writes at the position.
func (f *File) Write(p []byte) (int, error) {
	if err := f.lock(true); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	n, err := f.writeAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

// Seek moves the position.
func (f *File) Seek(off int64, whence int) (int64, error) {
	if err := f.lock(false); err != nil {
		return 0, err
	}
	defer f.v.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += int64(f.in.tree.size)
	case io.SeekStart:
	default:
		return 0, ErrInvalid
	}
	if off < 0 {
		return 0, ErrInvalid
	}
	f.pos = off
	return off, nil
}

// Sync commits the volume: fsync of one file makes everything durable.
func (f *File) Sync() error {
	if err := f.lock(true); err != nil {
		return err
	}
	defer f.v.mu.Unlock()
	_, err := f.v.commit()
	return err
}

// Close releases the file, and its space when it has no name any more. It does
// not commit.
func (f *File) Close() error {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.closed || f.v.closed {
		f.closed = true
		return nil
	}
	f.closed = true
	f.in.refs--
	if f.in.refs == 0 && f.in.rec.nlink == 0 && !f.v.ro {
		return f.v.dropInode(f.in)
	}
	return nil
}
