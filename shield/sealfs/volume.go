// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of what a volume keeps in memory beside open files.
const (
	cacheChunks = 1024 // 4 MiB of decrypted chunks
	cacheNodes  = 4096 // 16 MiB of tree nodes
	cacheInodes = 16384
	runBlocks   = 128 // longest run read or written at once: 512 KiB
)

// Root names one committed state of a volume.
type Root struct {
	Generation uint64
	Digest     [32]byte
}

// String gives "generation:digest" in decimal and hexadecimal.
func (r Root) String() string {
	return fmt.Sprintf("%d:%s", r.Generation, hex.EncodeToString(r.Digest[:]))
}

// Options of making and opening a volume.
type Options struct {
	Policy        Policy    // of a new volume; the zero value is DefaultPolicy
	VolumeID      [16]byte  // of a new volume; zero: random
	Generation    uint64    // of a new volume's first root; zero: 1
	ReadOnly      bool      // refuse changes, and skip the walk that a writer needs
	MinGeneration uint64    // refuse anything older
	Expect        *Root     // refuse an older generation, and another root of the same one
	Rand          io.Reader // salts and identifiers; nil is crypto/rand, anything else is for tests only
	Now           func() time.Time
}

func (o *Options) fill() {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Policy.Regions) == 0 {
		p := DefaultPolicy()
		p.Freshness, p.Interval = o.Policy.Freshness, o.Policy.Interval
		if o.Policy.Freshness == InRun {
			p.Freshness = AtFsync
		}
		o.Policy = p
	}
}

// Volume is an open sealed volume. It is safe for concurrent use.
type Volume struct {
	mu     sync.Mutex
	dev    Device
	rand   io.Reader
	now    func() time.Time
	hdr    *header
	keys   *keys
	rootK  *blockKey
	root   rootRecord
	digest [32]byte
	policy Policy
	ro     bool
	closed bool
	dirty  bool // something changed since the last commit
	unsure bool // the last root write failed: it may or may not be on disk
	broken error

	table  tree
	inodes map[uint32]*inode
	changd map[uint32]*inode // inodes whose record is to be written
	count  uint32            // records in the table being built
	inUse  bitmap            // inode numbers in use, when writable

	freeInodes uint32 // clear bits of inUse below count

	alloc  *allocator // nil when read-only
	chunks map[chunkKey]*list.Element
	recent *list.List // of *chunk, most recently used first
	nodes  int
	box    [BlockSize + tagSize]byte
	run    []byte
}

// inode is one inode in memory.
type inode struct {
	n    uint32
	rec  record
	tree tree
	refs int // open files
}

type chunkKey struct {
	t *tree
	n uint64
}

type chunk struct {
	key   chunkKey
	data  [BlockSize]byte
	dirty bool
}

func newVolume(dev Device, h *header, k *keys, o *Options) (*Volume, error) {
	rk, err := k.rootKey()
	if err != nil {
		return nil, err
	}
	v := &Volume{
		dev: dev, rand: o.Rand, now: o.Now, hdr: h, keys: k, rootK: rk, ro: o.ReadOnly,
		inodes: map[uint32]*inode{}, changd: map[uint32]*inode{}, chunks: map[chunkKey]*list.Element{}, recent: list.New(),
	}
	return v, nil
}

// newHeader draws the identity of a new volume.
func newHeader(key []byte, o *Options) (*header, *keys, error) {
	h := &header{suite: SuiteAES256GCM, volumeID: o.VolumeID}
	if h.volumeID == [idSize]byte{} {
		if _, err := io.ReadFull(o.Rand, h.volumeID[:]); err != nil {
			return nil, nil, err
		}
	}
	if _, err := io.ReadFull(o.Rand, h.kdfSalt[:]); err != nil {
		return nil, nil, err
	}
	k, err := deriveKeys(key, h.suite, h.volumeID, h.kdfSalt)
	return h, k, err
}

// Create makes an empty volume on the device, committed as generation 1, and
// leaves it open for writing. Use Seal to make a volume of existing files.
func Create(dev Device, key []byte, opts Options) (*Volume, error) {
	if _, err := Seal(dev, key, opts, Source{}); err != nil {
		return nil, err
	}
	opts.ReadOnly, opts.MinGeneration, opts.Expect = false, 0, nil
	return Open(dev, key, opts)
}

// Open opens a volume. Opening for writing walks all tree nodes, about 1 % of
// the volume, and fails with ErrCorrupt when one does not verify.
func Open(dev Device, key []byte, opts Options) (*Volume, error) {
	opts.fill()
	h, k, slots, best, err := readPreamble(dev, key)
	if err != nil {
		return nil, err
	}
	v, err := newVolume(dev, h, k, &opts)
	if err != nil {
		return nil, err
	}
	v.root, v.digest = *slots[best].root, slots[best].digest
	if err := v.fresh(&opts); err != nil {
		return nil, err
	}
	size, err := dev.Size()
	if err != nil {
		return nil, err
	}
	if size < int64(v.root.blocks)*BlockSize {
		return nil, &CorruptError{What: "volume", Cause: fmt.Sprintf("cut short: %d bytes, want %d", size, int64(v.root.blocks)*BlockSize)}
	}
	v.count = v.root.inodes
	if err := v.openTable(); err != nil {
		return nil, err
	}
	if !v.ro {
		if err := v.prepareWriting(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// ReadRoot reads the root of a volume and nothing else: three blocks. It may be
// called while another process writes the volume.
func ReadRoot(dev Device, key []byte) (Root, error) {
	_, k, slots, best, err := readPreamble(dev, key)
	if err != nil {
		return Root{}, err
	}
	k.wipe()
	return Root{slots[best].root.generation, slots[best].digest}, nil
}

// fresh compares the root with what the caller knows.
func (v *Volume) fresh(o *Options) error {
	g := v.root.generation
	if g < o.MinGeneration {
		return &StaleError{Have: g, Want: o.MinGeneration}
	}
	if e := o.Expect; e != nil {
		if g < e.Generation {
			return &StaleError{Have: g, Want: e.Generation}
		}
		if g == e.Generation && v.digest != e.Digest {
			return &StaleError{Have: g, Want: g, Digest: true}
		}
	}
	return nil
}

func (v *Volume) openTable() error {
	tk, err := v.keys.fileKey([idSize]byte{}, Encrypted)
	if err != nil {
		return err
	}
	v.table = tree{v: v, key: tk, depth: v.root.depth, root: v.root.table, size: uint64(v.count) * inodeSize}
	in, err := v.inode(inodeRegion)
	if err != nil {
		return err
	}
	if in.rec.typ != Internal || in.rec.size > maxRegionFile {
		return &CorruptError{What: "region table", Inode: inodeRegion, Cause: fmt.Sprintf("is a %v of %d bytes", in.rec.typ, in.rec.size)}
	}
	b := make([]byte, in.rec.size)
	if err := v.readTree(&in.tree, b, 0); err != nil {
		return err
	}
	if v.policy, err = decodePolicy(b); err != nil {
		return err
	}
	in, err = v.inode(inodeRoot)
	if err != nil {
		return err
	}
	if in.rec.typ != Dir || in.rec.parent != inodeRoot {
		return &CorruptError{What: "root directory", Inode: inodeRoot, Cause: "is not a directory that is its own parent"}
	}
	return nil
}

// prepareWriting builds the bitmaps and releases orphans.
func (v *Volume) prepareWriting() error {
	v.alloc = newAllocator(v.root.blocks)
	claim := func(inode uint32) func(c *cell, level uint8, index uint64) error {
		return func(c *cell, level uint8, index uint64) error {
			if !v.alloc.claim(c.block) {
				return (&tree{inode: inode}).corrupt(level, index, c.block, "block is used twice")
			}
			return nil
		}
	}
	if err := walk(v.dev, v.table.key, 0, v.root.blocks, &v.root.table, v.root.depth, claim(0)); err != nil {
		return err
	}
	v.inUse.grow(uint64(v.count))
	v.inUse.set(0)
	v.freeInodes = v.count - 1
	var orphans []uint32
	err := v.eachRecord(func(n uint32, r *record) error {
		v.inUse.set(uint64(n))
		v.freeInodes--
		if r.nlink == 0 {
			orphans = append(orphans, n)
		}
		if r.depth == 0 { // the common small file needs no key
			c := r.root
			if cause := c.check(v.root.blocks); cause != "" {
				return (&tree{inode: n}).corrupt(0, 0, c.block, cause)
			}
			if c.block == 0 {
				return nil
			}
			return claim(n)(&c, 0, 0)
		}
		k, err := v.keys.fileKey(r.id, r.class)
		if err != nil {
			return err
		}
		return walk(v.dev, k, n, v.root.blocks, &r.root, r.depth, claim(n))
	})
	if err != nil {
		return err
	}
	for _, n := range orphans {
		in, err := v.inode(n)
		if err != nil {
			return err
		}
		if err := v.dropInode(in); err != nil {
			return err
		}
	}
	return nil
}

// eachRecord decodes all inode records that are in use, in order.
func (v *Volume) eachRecord(f func(n uint32, r *record) error) error {
	buf := make([]byte, runBlocks*BlockSize)
	total := uint64(v.count) * inodeSize
	for off := uint64(0); off < total; off += uint64(len(buf)) {
		b := buf[:min(uint64(len(buf)), total-off)]
		if err := v.readTree(&v.table, b, off); err != nil {
			return err
		}
		for i := 0; i+inodeSize <= len(b); i += inodeSize {
			n := uint32((off + uint64(i)) / inodeSize)
			r, err := getRecord(b[i:], n, v.count)
			if err != nil {
				return err
			}
			if r.typ == 0 {
				continue
			}
			if err := f(n, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

// inode gives an inode that must be in use.
func (v *Volume) inode(n uint32) (*inode, error) {
	if in := v.inodes[n]; in != nil {
		return in, nil
	}
	if n == 0 || n >= v.count {
		return nil, &CorruptError{What: "record", Inode: n, Cause: "behind the end of the inode table"}
	}
	var b [inodeSize]byte
	if err := v.readTree(&v.table, b[:], uint64(n)*inodeSize); err != nil {
		return nil, err
	}
	r, err := getRecord(b[:], n, v.count)
	if err != nil {
		return nil, err
	}
	if r.typ == 0 {
		return nil, &CorruptError{What: "record", Inode: n, Cause: "is free but in use"}
	}
	return v.adopt(n, r)
}

// adopt puts an inode into the cache.
func (v *Volume) adopt(n uint32, r record) (*inode, error) {
	k, err := v.keys.fileKey(r.id, r.class)
	if err != nil {
		return nil, err
	}
	in := &inode{n: n, rec: r}
	in.tree = tree{v: v, inode: n, key: k, depth: r.depth, root: r.root, size: r.size}
	v.inodes[n] = in
	return in, nil
}

// touch notes that the record is to be written.
func (v *Volume) touch(in *inode) {
	v.changd[in.n] = in
	v.dirty = true
}

// newInode makes an inode without a name.
func (v *Volume) newInode(t Type, class Class, a Attr) (*inode, error) {
	var n uint32
	if v.freeInodes > 0 {
		n = uint32(v.inUse.nextZero(0, uint64(v.count)))
	} else {
		if v.count == 1<<32-1 {
			return nil, ErrTooLarge
		}
		n = v.count
	}
	r := record{typ: t, class: class, mode: a.Mode & 0o7777, uid: a.UID, gid: a.GID}
	if t != Regular {
		r.class = Encrypted
	}
	if t == Char || t == Block {
		r.rdev = a.Rdev
	}
	if _, err := io.ReadFull(v.rand, r.id[:]); err != nil {
		return nil, err
	}
	r.ctime = v.now().UnixNano()
	r.mtime = r.ctime
	if !a.ModTime.IsZero() {
		r.mtime = a.ModTime.UnixNano()
	}
	in, err := v.adopt(n, r)
	if err != nil {
		return nil, err
	}
	if n == v.count {
		v.count++
		v.table.size = uint64(v.count) * inodeSize
		v.inUse.grow(uint64(v.count))
	} else {
		v.freeInodes--
	}
	v.inUse.set(uint64(n))
	v.touch(in)
	return in, nil
}

// dropInode frees an inode that no name and no open file holds, with its facts.
func (v *Volume) dropInode(in *inode) error {
	if in.rec.aux != 0 {
		if err := v.dropFacts(in); err != nil {
			return err
		}
	}
	v.discardChunks(&in.tree, 0)
	if err := in.tree.releaseAll(); err != nil {
		return err
	}
	in.tree = tree{v: v, inode: in.n, key: in.tree.key}
	in.rec = record{}
	v.inUse.reset(uint64(in.n))
	v.freeInodes++
	v.touch(in)
	return nil
}

// dropFacts forgets what was authenticated about the content at seal time.
func (v *Volume) dropFacts(in *inode) error {
	if in.rec.aux == 0 {
		return nil
	}
	facts, err := v.inode(in.rec.aux)
	if err != nil {
		return err
	}
	if facts.rec.typ != Internal || facts.rec.aux != 0 {
		return &CorruptError{What: "facts", Inode: in.n, Cause: fmt.Sprintf("inode %d holds none", facts.n)}
	}
	in.rec.aux = 0
	v.touch(in)
	return v.dropInode(facts)
}

// writable says why the volume cannot be changed, if so.
func (v *Volume) writable() error {
	switch {
	case v.closed:
		return ErrClosed
	case v.ro:
		return ErrReadOnly
	case v.broken != nil:
		return v.broken
	}
	return v.trim()
}

func (v *Volume) readable() error {
	if v.closed {
		return ErrClosed
	}
	return v.trim()
}

// trim keeps the memory bounded: dirty things go to fresh blocks, the rest is forgotten.
func (v *Volume) trim() error {
	if v.nodes <= cacheNodes && len(v.inodes) <= cacheInodes {
		return nil
	}
	if !v.ro {
		if err := v.flush(); err != nil {
			return err
		}
	}
	for e := v.recent.Front(); e != nil; e = v.recent.Front() {
		v.dropChunk(e)
	}
	for n, in := range v.inodes {
		in.tree.forget()
		if in.refs == 0 {
			delete(v.inodes, n)
		}
	}
	v.table.forget()
	v.nodes = 0
	return nil
}

// blocks is the end of the volume for checks of cells.
func (v *Volume) blocks() uint32 {
	if v.alloc != nil {
		return uint32(v.alloc.blocks)
	}
	return v.root.blocks
}

// writeBlock seals b (with room for the tag) into a block of its own.
func (v *Volume) writeBlock(k *blockKey, b []byte, level uint8, index uint64) (cell, error) {
	var c cell
	if _, err := io.ReadFull(v.rand, c.salt[:]); err != nil {
		return cell{}, err
	}
	c.tag = k.seal(b, b[:BlockSize], c.salt[:], level, index)
	var err error
	if c.block, err = v.alloc.take(); err != nil {
		return cell{}, err
	}
	if _, err := v.dev.WriteAt(b[:BlockSize], int64(c.block)*BlockSize); err != nil {
		v.alloc.release(c.block)
		return cell{}, fmt.Errorf("write block %d: %w", c.block, err)
	}
	return c, nil
}

// chunk gives a chunk through the cache.
func (v *Volume) chunk(t *tree, n uint64) (*chunk, error) {
	if e := v.chunks[chunkKey{t, n}]; e != nil {
		v.recent.MoveToFront(e)
		return e.Value.(*chunk), nil
	}
	c, err := t.cell(n)
	if err != nil {
		return nil, err
	}
	ch, err := v.newChunk(t, n)
	if err != nil {
		return nil, err
	}
	cause, err := readBlock(v.dev, t.key, ch.data[:], v.box[:], &c, v.blocks(), 0, n)
	if err == nil && cause != "" {
		err = t.corrupt(0, n, c.block, cause)
	}
	if err != nil {
		v.dropChunk(v.chunks[ch.key])
		return nil, err
	}
	return ch, nil
}

// newChunk puts an empty chunk into the cache, evicting the oldest.
func (v *Volume) newChunk(t *tree, n uint64) (*chunk, error) {
	for v.recent.Len() >= cacheChunks {
		old := v.recent.Back()
		if err := v.writeChunk(old.Value.(*chunk)); err != nil {
			return nil, err
		}
		v.dropChunk(old)
	}
	ch := &chunk{key: chunkKey{t, n}}
	v.chunks[ch.key] = v.recent.PushFront(ch)
	return ch, nil
}

func (v *Volume) dropChunk(e *list.Element) {
	ch := v.recent.Remove(e).(*chunk)
	delete(v.chunks, ch.key)
	clear(ch.data[:])
}

// discardChunks drops the cached chunks of a tree from the first one on.
func (v *Volume) discardChunks(t *tree, first uint64) {
	for k, e := range v.chunks {
		if k.t == t && k.n >= first {
			v.dropChunk(e)
		}
	}
}

func (v *Volume) writeChunk(ch *chunk) error {
	if !ch.dirty {
		return nil
	}
	b := make([]byte, BlockSize+tagSize)
	copy(b, ch.data[:])
	if err := v.replaceChunk(ch.key.t, ch.key.n, b); err != nil {
		return err
	}
	ch.dirty = false
	return nil
}

// replaceChunk writes one chunk and releases the block it was in.
func (v *Volume) replaceChunk(t *tree, n uint64, b []byte) error {
	old, err := t.cell(n)
	if err != nil {
		return err
	}
	c, err := v.writeBlock(t.key, b, 0, n)
	if err != nil {
		return err
	}
	if err := t.setCell(n, c); err != nil {
		v.alloc.release(c.block)
		return err
	}
	v.alloc.release(old.block)
	return nil
}

// flush writes everything that is dirty into blocks that no committed state
// knows. It changes nothing that is visible after a crash.
func (v *Volume) flush() error {
	flushChunks := func(want func(*tree) bool) error {
		var list []*chunk
		for k, e := range v.chunks {
			if ch := e.Value.(*chunk); ch.dirty && want(k.t) {
				list = append(list, ch)
			}
		}
		// Neighbours go to neighbouring blocks, and the order does not depend on the map.
		slices.SortFunc(list, func(a, b *chunk) int {
			if a.key.t.inode != b.key.t.inode {
				return int(int64(a.key.t.inode) - int64(b.key.t.inode))
			}
			return int(int64(a.key.n) - int64(b.key.n))
		})
		for _, ch := range list {
			if err := v.writeChunk(ch); err != nil {
				return err
			}
		}
		return nil
	}
	if err := flushChunks(func(t *tree) bool { return t != &v.table }); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(v.changd)) {
		in := v.changd[n]
		if err := in.tree.flush(); err != nil {
			return err
		}
		r := &in.rec
		if r.typ != 0 {
			r.depth, r.root, r.size, r.generation = in.tree.depth, in.tree.root, in.tree.size, v.nextGeneration()
		}
		ch, err := v.chunk(&v.table, uint64(n)*inodeSize/BlockSize)
		if err != nil {
			return err
		}
		r.put(ch.data[uint64(n)*inodeSize%BlockSize:])
		ch.dirty = true
		delete(v.changd, n)
		if r.typ == 0 {
			delete(v.inodes, n)
		}
	}
	if err := flushChunks(func(t *tree) bool { return t == &v.table }); err != nil {
		return err
	}
	return v.table.flush()
}

func (v *Volume) nextGeneration() uint64 {
	if v.unsure {
		return v.root.generation + 3
	}
	return v.root.generation + 1
}

// Commit makes everything done so far durable and returns the root that names
// this state. Without changes it returns the present root and writes nothing.
// When it fails the committed state is intact and Commit may be tried again.
func (v *Volume) Commit() (Root, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.commit()
}

func (v *Volume) commit() (Root, error) {
	if v.closed {
		return Root{}, ErrClosed
	}
	if v.broken != nil {
		return Root{}, v.broken
	}
	if !v.dirty && !v.unsure {
		return Root{v.root.generation, v.digest}, nil
	}
	if err := v.flush(); err != nil {
		return Root{}, err
	}
	if err := v.dev.Sync(); err != nil {
		return Root{}, fmt.Errorf("sync volume: %w", err)
	}
	next := rootRecord{
		generation: v.nextGeneration(), blocks: uint32(v.alloc.blocks), inodes: v.count,
		table: v.table.root, depth: v.table.depth, time: v.now(), previous: v.digest,
	}
	var salt [saltSize]byte
	if _, err := io.ReadFull(v.rand, salt[:]); err != nil {
		return Root{}, err
	}
	slot, digest := next.encode(v.rootK, salt[:])
	// From here on it is unknown what is on disk until Sync has returned.
	if _, err := v.dev.WriteAt(slot, int64(1+next.generation&1)*BlockSize); err != nil {
		v.unsureOnce()
		return Root{}, fmt.Errorf("write root: %w", err)
	}
	if err := v.dev.Sync(); err != nil {
		v.unsureOnce()
		return Root{}, fmt.Errorf("sync root: %w", err)
	}
	v.root, v.digest = next, digest
	v.alloc.committed()
	v.dirty, v.unsure = false, false
	return Root{next.generation, digest}, nil
}

// unsureOnce skips the generation that may be on disk. A second failure of the
// root's write gives up: the numbers that may be on disk would run ahead of the slots.
func (v *Volume) unsureOnce() {
	clear(v.alloc.fresh) // a root on disk may lead to them
	if v.unsure {
		v.broken = errors.New("the root could not be written twice: close the volume and open it again")
	}
	v.unsure = true
}

// Root names the committed state.
func (v *Volume) Root() Root {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Root{v.root.generation, v.digest}
}

// Policy gives the region table.
func (v *Volume) Policy() Policy {
	p := v.policy
	p.Regions = slices.Clone(p.Regions)
	return p
}

// Close forgets the keys and everything that was not committed. It does not
// close the device.
func (v *Volume) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	v.keys.wipe()
	for e := v.recent.Front(); e != nil; e = v.recent.Front() {
		v.dropChunk(e)
	}
	clear(v.box[:])
	clear(v.run)
	v.inodes, v.changd = nil, nil
	return nil
}

// Summary describes a volume as a whole.
type Summary struct {
	VolumeID   string    `json:"volume_id"`
	Suite      string    `json:"suite"`
	Generation uint64    `json:"generation"`
	RootDigest string    `json:"root_digest"`
	Committed  time.Time `json:"committed"`
	Bytes      int64     `json:"bytes"`
	Inodes     uint32    `json:"inode_records"`
	Regions    []Region  `json:"regions"`
	Freshness  Freshness `json:"freshness"`
	IntervalMS int64     `json:"interval_ms,omitempty"`
}

// Summary describes the committed state.
func (v *Volume) Summary() Summary {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Summary{
		VolumeID: hex.EncodeToString(v.hdr.volumeID[:]), Suite: "XAES-256-GCM",
		Generation: v.root.generation, RootDigest: hex.EncodeToString(v.digest[:]), Committed: v.root.time.UTC(),
		Bytes: int64(v.root.blocks) * BlockSize, Inodes: v.root.inodes,
		Regions: v.policy.Regions, Freshness: v.policy.Freshness, IntervalMS: v.policy.Interval.Milliseconds(),
	}
}

// VolumeID is the public identity of the volume, which stays when it is re-keyed.
func (v *Volume) VolumeID() [16]byte { return v.hdr.volumeID }
