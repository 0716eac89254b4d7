// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

var le = binary.LittleEndian

const (
	headerMagic = "PALSEAL1"
	rootMagic   = "SFSROOT1"
	version     = 1
	chunkLog2   = 12
)

// header is block 0.
type header struct {
	suite    byte
	volumeID [idSize]byte
	kdfSalt  [32]byte
}

func (h *header) encode(k *keys) []byte {
	b := make([]byte, BlockSize)
	copy(b, headerMagic)
	le.PutUint32(b[8:], version)
	b[12], b[13] = h.suite, chunkLog2
	copy(b[16:], h.volumeID[:])
	copy(b[32:], h.kdfSalt[:])
	copy(b[64:], k.commitment[:])
	copy(b[480:], k.headerMAC(b[:480]))
	return b
}

// decodeHeader checks block 0 in the order of the specification.
func decodeHeader(b, key []byte) (*header, *keys, error) {
	if len(b) < headerSize || string(b[:8]) != headerMagic {
		return nil, nil, ErrNotVolume
	}
	if v := le.Uint32(b[8:]); v != version {
		return nil, nil, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	h := &header{suite: b[12], volumeID: [idSize]byte(b[16:]), kdfSalt: [32]byte(b[32:])}
	if h.suite != SuiteAES256GCM {
		return nil, nil, fmt.Errorf("%w: suite %d", ErrVersion, h.suite)
	}
	if b[13] != chunkLog2 {
		return nil, nil, fmt.Errorf("%w: chunks of 2^%d bytes", ErrVersion, b[13])
	}
	k, err := deriveKeys(key, h.suite, h.volumeID, h.kdfSalt)
	if err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare(k.commitment[:], b[64:96]) != 1 {
		k.wipe()
		return nil, nil, ErrWrongKey
	}
	if !hmac.Equal(k.headerMAC(b[:480]), b[480:512]) {
		k.wipe()
		return nil, nil, &CorruptError{What: "header", Cause: "authentication failed"}
	}
	if !allZero(b[14:16]) || !allZero(b[96:480]) {
		k.wipe()
		return nil, nil, &CorruptError{What: "header", Cause: "reserved bytes are not zero"}
	}
	return h, k, nil
}

// rootRecord is the content of a root slot.
type rootRecord struct {
	generation uint64
	blocks     uint32
	inodes     uint32
	table      cell
	depth      uint8
	time       time.Time
	previous   [32]byte
}

// encode makes the 4096 bytes of the slot and its digest.
func (r *rootRecord) encode(k *blockKey, salt []byte) (slot []byte, digest [32]byte) {
	slot = make([]byte, BlockSize)
	copy(slot, rootMagic)
	le.PutUint64(slot[8:], r.generation)
	copy(slot[16:28], salt)
	p := make([]byte, rootSize, rootSize+tagSize)
	le.PutUint64(p, r.generation)
	le.PutUint32(p[8:], r.blocks)
	le.PutUint32(p[12:], r.inodes)
	r.table.put(p[16:])
	p[48] = r.depth
	le.PutUint64(p[56:], uint64(r.time.UnixNano()))
	copy(p[64:], r.previous[:])
	tag := k.seal(p, p, salt, levelRoot, r.generation)
	copy(slot[32:], tag[:])
	copy(slot[48:], p)
	return slot, sha256.Sum256(slot[:slotSize])
}

// decodeRoot opens the slot of the given number (0 or 1).
func decodeRoot(b []byte, n int, k *blockKey) (*rootRecord, [32]byte, error) {
	var digest [32]byte
	bad := func(cause string) (*rootRecord, [32]byte, error) {
		return nil, digest, &CorruptError{What: fmt.Sprintf("root slot %d", n), Cause: cause}
	}
	if len(b) < slotSize {
		return bad("is missing")
	}
	b = b[:slotSize]
	if string(b[:8]) != rootMagic {
		if allZero(b) {
			return bad("is empty")
		}
		return bad("has no magic number")
	}
	gen := le.Uint64(b[8:])
	if gen == 0 || gen&1 != uint64(n) || le.Uint32(b[28:]) != 0 {
		return bad(fmt.Sprintf("has generation %d, which is not its own", gen))
	}
	p := make([]byte, rootSize+tagSize)
	copy(p, b[48:])
	if !k.open(p[:rootSize], p[:rootSize], b[16:28], [tagSize]byte(b[32:]), levelRoot, gen) {
		return bad("authentication failed")
	}
	p = p[:rootSize]
	r := &rootRecord{
		generation: le.Uint64(p), blocks: le.Uint32(p[8:]), inodes: le.Uint32(p[12:]),
		table: getCell(p[16:]), depth: p[48], time: time.Unix(0, int64(le.Uint64(p[56:]))), previous: [32]byte(p[64:]),
	}
	switch {
	case r.generation != gen:
		return bad("its two generations differ")
	case !allZero(p[49:56]) || !allZero(p[96:]):
		return bad("reserved bytes are not zero")
	case r.inodes < firstInode:
		return bad("has no inodes")
	case r.blocks < firstBlock:
		return bad("has no blocks")
	case !depthFits(r.depth, uint64(r.inodes)*inodeSize):
		return bad("its inode table does not fit its depth")
	}
	return r, sha256.Sum256(b), nil
}

// slotState is what was found in a root slot.
type slotState struct {
	root   *rootRecord
	digest [32]byte
	err    error
}

// readPreamble reads header and roots, and picks the root.
func readPreamble(dev Device, key []byte) (*header, *keys, [2]slotState, int, error) {
	var slots [2]slotState
	b := make([]byte, firstBlock*BlockSize)
	n, err := dev.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, slots, 0, fmt.Errorf("read header: %w", err)
	}
	b = b[:n]
	h, k, err := decodeHeader(b, key)
	if err != nil {
		return nil, nil, slots, 0, err
	}
	rk, err := k.rootKey()
	if err != nil {
		return nil, nil, slots, 0, err
	}
	best := -1
	for i := range slots {
		var sb []byte
		if off := (1 + i) * BlockSize; off < len(b) {
			sb = b[off:min(off+BlockSize, len(b))]
		}
		s := &slots[i]
		s.root, s.digest, s.err = decodeRoot(sb, i, rk)
		if s.err == nil && (best < 0 || s.root.generation > slots[best].root.generation) {
			best = i
		}
	}
	if best < 0 {
		return nil, nil, slots, 0, fmt.Errorf("%w (%s; %s)", ErrNoRoot, slots[0].err.Error(), slots[1].err.Error())
	}
	return h, k, slots, best, nil
}

// cell points to one block and authenticates it.
type cell struct {
	block uint32
	salt  [saltSize]byte
	tag   [tagSize]byte
}

func getCell(b []byte) cell {
	return cell{le.Uint32(b), [saltSize]byte(b[4:]), [tagSize]byte(b[16:])}
}

func (c *cell) put(b []byte) {
	le.PutUint32(b, c.block)
	copy(b[4:], c.salt[:])
	copy(b[16:], c.tag[:])
}

// check is what every reader asks of a cell before it follows it.
func (c *cell) check(blocks uint32) string {
	if c.block == 0 {
		if *c != (cell{}) {
			return "hole with a salt or tag"
		}
		return ""
	}
	if c.block < firstBlock || c.block >= blocks {
		return fmt.Sprintf("block %d is outside of the volume's %d", c.block, blocks)
	}
	return ""
}

var zeroBlock [BlockSize]byte

func allZero(b []byte) bool {
	for len(b) > BlockSize {
		if !bytes.Equal(b[:BlockSize], zeroBlock[:]) {
			return false
		}
		b = b[BlockSize:]
	}
	return bytes.Equal(b, zeroBlock[:len(b)])
}

// chunksOf is the number of chunks of a file of this size.
func chunksOf(size uint64) uint64 { return (size + BlockSize - 1) / BlockSize }

// depthFits says whether a tree of this depth can hold size bytes.
func depthFits(depth uint8, size uint64) bool {
	return depth <= maxDepth && size <= maxSize && chunksOf(size) <= 1<<(7*depth)
}

// depthFor is the least depth that holds n chunks.
func depthFor(n uint64) uint8 {
	var d uint8
	for n > 1<<(7*d) {
		d++
	}
	return d
}
