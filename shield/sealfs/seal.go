// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is one file to be sealed.
type Entry struct {
	Path   string // absolute and clean, "/" for the attributes of the root directory
	Type   Type
	Attr   Attr
	Target string // of a symlink
	LinkTo string // absolute path of an earlier entry: this is another name for it
	Size   int64  // of a regular file
	// Open gives the content of a regular file. It is called once, from another
	// goroutine, after the entries were read.
	Open  func() (Content, error)
	Facts []byte // to be authenticated with a regular file
}

// Content is the content of a file that is being sealed. One that has a method
// NextData, as [File] has it, is not read where it has holes.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Source is what is sealed into a new volume.
type Source struct {
	Entries iter.Seq2[Entry, error]
	// Facts computes facts about a regular file's content, or nil. It may be
	// called from several goroutines.
	Facts func(path string, r io.ReaderAt, size int64) ([]byte, error)
	// Workers is the number of goroutines that encrypt; 0 is one per processor.
	Workers int
	// Total is called once before content is sealed, Progress with the bytes
	// done since its last call, from any goroutine.
	Total    func(bytes int64)
	Progress func(bytes int64)
}

// Sealed says what a seal did.
type Sealed struct {
	Root    Root
	Files   int   // regular files
	Others  int   // directories, links, devices
	Bytes   int64 // of regular files
	Volume  int64 // size of the volume
	Skipped []string
}

// Seal writes a new volume that holds what the source gives, as its first
// generation. The device must be empty. Entries in regions that are not kept
// in a volume are left out and reported in Sealed.Skipped.
func Seal(dev Device, key []byte, opts Options, src Source) (Sealed, error) {
	opts.fill()
	policy, err := opts.Policy.Normalize()
	if err != nil {
		return Sealed{}, err
	}
	if size, err := dev.Size(); err != nil {
		return Sealed{}, err
	} else if size != 0 {
		return Sealed{}, fmt.Errorf("device is not empty: it has %d bytes", size)
	}
	h, k, err := newHeader(key, &opts)
	if err != nil {
		return Sealed{}, err
	}
	defer k.wipe()
	b := &builder{
		dev: dev, keys: k, rand: opts.Rand, policy: policy, src: src, next: firstBlock,
		generation: cmp.Or(opts.Generation, 1), now: opts.Now(), byPath: map[string]*item{},
	}
	if b.rand != rand.Reader {
		b.rand = &lockedReader{r: b.rand}
	}
	if b.src.Workers <= 0 {
		b.src.Workers = runtime.GOMAXPROCS(0)
	}
	if err := b.collect(); err != nil {
		return Sealed{}, err
	}
	b.byPath = nil // as large as all names
	if err := b.contents(); err != nil {
		return Sealed{}, err
	}
	root, err := b.finish(h)
	if err != nil {
		return Sealed{}, err
	}
	b.done.Root, b.done.Volume = root, int64(b.next)*BlockSize
	return b.done, nil
}

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return io.ReadFull(l.r, p)
}

// item is one inode of the volume being built.
type item struct {
	entry Entry
	n     uint32
	rec   record
	names []entry // of a directory, sorted at the end
	facts []byte
}

type builder struct {
	dev        Device
	keys       *keys
	rand       io.Reader
	policy     Policy
	src        Source
	generation uint64
	now        time.Time

	byPath map[string]*item
	items  []*item // in order of inode number from firstInode on
	root   *item
	done   Sealed

	mu   sync.Mutex
	next uint64 // first block not taken
}

// collect reads the entries and gives them inodes.
func (b *builder) collect() error {
	b.root = &item{entry: Entry{Path: "/", Type: Dir, Attr: Attr{Mode: 0o755, ModTime: b.now}}, n: inodeRoot}
	b.root.rec.nlink = 1
	b.root.rec.parent = inodeRoot
	b.byPath["/"] = b.root
	if b.src.Entries == nil {
		return nil
	}
	for e, err := range b.src.Entries {
		if err != nil {
			return err
		}
		if err := b.add(e); err != nil {
			return fmt.Errorf("seal %s: %w", e.Path, err)
		}
	}
	return nil
}

func (b *builder) add(e Entry) error {
	if !strings.HasPrefix(e.Path, "/") || path.Clean(e.Path) != e.Path {
		return ErrName
	}
	if e.Path == "/" {
		if e.Type != Dir {
			return ErrNotDir
		}
		b.root.entry = e
		return nil
	}
	target := b.byPath[e.LinkTo]
	if e.LinkTo != "" {
		if target == nil {
			if slices.Contains(b.done.Skipped, e.LinkTo) {
				b.done.Skipped = append(b.done.Skipped, e.Path)
				return nil
			}
			return fmt.Errorf("hard link to %s, which was not sealed before it", e.LinkTo)
		}
		if e.Type = target.entry.Type; e.Type == Dir {
			return ErrIsDir
		}
	}
	if !b.policy.allows(e.Path, e.Type) {
		b.done.Skipped = append(b.done.Skipped, e.Path)
		return nil
	}
	dirName, name := path.Split(e.Path)
	dir, err := b.dir(path.Clean(dirName))
	if err != nil {
		return err
	}
	if !validName(name) {
		return ErrName
	}
	if old := b.byPath[e.Path]; old != nil {
		if old.entry.Type == Dir && e.Type == Dir && old.entry.Open == nil {
			old.entry.Attr = e.Attr // a parent that was implied before
			return nil
		}
		return errors.New("is there twice")
	}
	if target != nil {
		if e.Type == Regular && b.policy.Class(e.Path) != b.policy.Class(target.entry.Path) {
			return fmt.Errorf("%w: hard link to %s of class %v", ErrCrossRegion, target.entry.Path, b.policy.Class(target.entry.Path))
		}
		target.rec.nlink++
		b.byPath[e.Path] = target
		dir.names = append(dir.names, entry{target.n, e.Type, name})
		return nil
	}
	switch {
	case e.Type < Regular || e.Type >= Internal:
		return fmt.Errorf("unknown type %d", e.Type)
	case e.Type == Symlink && (e.Target == "" || len(e.Target) > maxTarget || strings.ContainsRune(e.Target, 0)):
		return fmt.Errorf("symlink target of %d bytes", len(e.Target))
	case e.Type == Regular && (e.Size < 0 || e.Size > maxSize):
		return ErrTooLarge
	case e.Type == Regular && e.Size > 0 && e.Open == nil:
		return errors.New("no content")
	}
	it := &item{entry: e, n: firstInode + uint32(len(b.items)), facts: e.Facts}
	it.rec.nlink = 1
	if e.Type == Dir {
		it.rec.parent = dir.n
	}
	b.items = append(b.items, it)
	b.byPath[e.Path] = it
	dir.names = append(dir.names, entry{it.n, e.Type, name})
	return nil
}

// dir gives a directory, making what the source did not mention.
func (b *builder) dir(name string) (*item, error) {
	if it := b.byPath[name]; it != nil {
		if it.entry.Type != Dir {
			return nil, fmt.Errorf("%s: %w", name, ErrNotDir)
		}
		return it, nil
	}
	if err := b.add(Entry{Path: name, Type: Dir, Attr: Attr{Mode: 0o755}}); err != nil {
		return nil, err
	}
	if it := b.byPath[name]; it != nil {
		return it, nil
	}
	return nil, ErrRegion
}

// job is a part of a file: some leaves of its tree.
type job struct {
	f           *openFile
	first, last uint64 // leaves
}

const (
	leafBytes = nodeCells * BlockSize
	jobLeaves = 32 // 16 MiB
)

type openFile struct {
	it     *item
	key    *blockKey
	r      Content
	leaves []cell
	left   atomic.Int64
	once   sync.Once
	err    error
}

// contents seals the regular files, side by side.
func (b *builder) contents() error {
	var total int64
	for _, it := range b.items {
		if err := b.identify(it); err != nil {
			return err
		}
		if it.entry.Type == Regular {
			b.done.Files++
			total += it.entry.Size
		} else {
			b.done.Others++
		}
	}
	b.done.Bytes = total
	if b.src.Total != nil {
		b.src.Total(total)
	}
	var (
		jobs   = make(chan job)
		wg     sync.WaitGroup
		failed atomic.Bool
		mu     sync.Mutex
		first  error
	)
	fail := func(it *item, err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = fmt.Errorf("seal %s: %w", it.entry.Path, err)
		}
		failed.Store(true)
	}
	for range b.src.Workers {
		wg.Go(func() {
			buf := newSealBuffer()
			for j := range jobs {
				err := b.job(j, buf, &failed)
				if j.f.left.Add(-1) == 0 {
					if err == nil && !failed.Load() {
						err = b.finishFile(j.f, buf)
					}
					if j.f.r != nil {
						j.f.r.Close()
					}
				}
				if err != nil {
					fail(j.f.it, err)
				}
			}
		})
	}
	for _, it := range b.items {
		if failed.Load() {
			break
		}
		if it.entry.Type != Regular {
			continue
		}
		k, err := b.keys.fileKey(it.rec.id, it.rec.class)
		if err != nil {
			fail(it, err)
			break
		}
		leaves := (chunksOf(it.rec.size) + nodeCells - 1) / nodeCells
		f := &openFile{it: it, key: k, leaves: make([]cell, leaves)}
		parts := max((leaves+jobLeaves-1)/jobLeaves, 1)
		f.left.Store(int64(parts))
		for p := range parts {
			jobs <- job{f, p * jobLeaves, min((p+1)*jobLeaves, leaves)}
		}
	}
	close(jobs)
	wg.Wait()
	return first
}

// identify fills the record with all that does not depend on the content.
func (b *builder) identify(it *item) error {
	e, r := &it.entry, &it.rec
	r.typ, r.class = e.Type, Encrypted
	if e.Type == Regular {
		r.class = b.policy.Class(e.Path)
		r.size = uint64(e.Size)
	}
	r.mode, r.uid, r.gid = e.Attr.Mode&0o7777, e.Attr.UID, e.Attr.GID
	if e.Type == Char || e.Type == Block {
		r.rdev = e.Attr.Rdev
	}
	r.ctime = b.now.UnixNano()
	r.mtime = r.ctime
	if !e.Attr.ModTime.IsZero() {
		r.mtime = e.Attr.ModTime.UnixNano()
	}
	r.generation = b.generation
	_, err := io.ReadFull(b.rand, r.id[:])
	return err
}

func (f *openFile) open() error {
	f.once.Do(func() {
		if f.it.entry.Open == nil {
			f.r = nothing{}
			return
		}
		f.r, f.err = f.it.entry.Open()
	})
	return f.err
}

func (b *builder) job(j job, buf *sealBuffer, failed *atomic.Bool) error {
	if err := j.f.open(); err != nil {
		return err
	}
	sparse, _ := j.f.r.(interface {
		NextData(off int64) (int64, error)
	})
	next := int64(-1)
	for l := j.first; l < j.last; l++ {
		if failed.Load() {
			return nil
		}
		if sparse != nil {
			start, end := int64(l*leafBytes), int64(min((l+1)*leafBytes, j.f.it.rec.size))
			if next < start {
				var err error
				if next, err = sparse.NextData(start); errors.Is(err, io.EOF) {
					next = math.MaxInt64
				} else if err != nil {
					return err
				}
			}
			if next >= end {
				if b.src.Progress != nil {
					b.src.Progress(end - start)
				}
				continue
			}
		}
		n, err := b.leaf(j.f.key, j.f.r, j.f.it.rec.size, l, &j.f.leaves[l], buf)
		if err != nil {
			return err
		}
		if b.src.Progress != nil {
			b.src.Progress(n)
		}
	}
	return nil
}

func (b *builder) finishFile(f *openFile, buf *sealBuffer) error {
	if b.src.Facts != nil && f.it.facts == nil && f.it.rec.size > 0 {
		facts, err := b.src.Facts(f.it.entry.Path, f.r, f.it.entry.Size)
		if err != nil {
			return err
		}
		if len(facts) > maxFacts {
			return fmt.Errorf("facts of %d bytes, at most %d", len(facts), maxFacts)
		}
		f.it.facts = facts
	}
	var err error
	f.it.rec.root, f.it.rec.depth, err = b.upper(f.key, f.leaves, f.it.rec.size, buf)
	return err
}

// sealBuffer is what one worker needs to seal a leaf: 128 chunks and their node.
type sealBuffer struct {
	plain []byte
	box   []byte
	salts [(nodeCells + 1) * saltSize]byte
}

func newSealBuffer() *sealBuffer {
	return &sealBuffer{plain: make([]byte, nodeCells*BlockSize), box: make([]byte, (nodeCells+1)*BlockSize+tagSize)}
}

// leaf seals the chunks below one level-1 node, and the node. For a file of at
// most one chunk the cell is that of the chunk.
func (b *builder) leaf(k *blockKey, r io.ReaderAt, size, index uint64, out *cell, buf *sealBuffer) (int64, error) {
	start := index * nodeCells * BlockSize
	want := min(uint64(len(buf.plain)), size-start)
	plain := buf.plain[:chunksOf(want)*BlockSize]
	n, err := r.ReadAt(plain[:want], int64(start))
	if uint64(n) < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("became shorter while it was sealed: %d bytes, want %d", start+uint64(n), size)
		}
		return 0, err
	}
	clear(plain[want:])
	if _, err := io.ReadFull(b.rand, buf.salts[:]); err != nil {
		return 0, err
	}
	var nd node
	blocks := 0
	for i := 0; i*BlockSize < len(plain); i++ {
		p := plain[i*BlockSize : (i+1)*BlockSize]
		if allZero(p) {
			continue
		}
		c := &nd.cells[i]
		copy(c.salt[:], buf.salts[i*saltSize:])
		c.tag = k.seal(buf.box[blocks*BlockSize:], p, c.salt[:], 0, index*nodeCells+uint64(i))
		blocks++
		c.block = uint32(blocks) // until the run has its place
	}
	if blocks == 0 {
		return int64(want), nil
	}
	withNode := chunksOf(size) > 1
	run := blocks
	if withNode {
		run++
	}
	at, err := b.take(run)
	if err != nil {
		return 0, err
	}
	for i := range nd.cells {
		if c := &nd.cells[i]; c.block != 0 {
			c.block += at - 1
		}
	}
	*out = nd.cells[0]
	if withNode {
		box := buf.box[blocks*BlockSize : (blocks+1)*BlockSize+tagSize]
		nd.encode(box)
		out.block = at + uint32(blocks)
		copy(out.salt[:], buf.salts[nodeCells*saltSize:])
		out.tag = k.seal(box, box[:BlockSize], out.salt[:], 1, index)
	}
	_, err = b.dev.WriteAt(buf.box[:run*BlockSize], int64(at)*BlockSize)
	return int64(want), err
}

// upper seals the nodes above the leaves.
func (b *builder) upper(k *blockKey, level []cell, size uint64, buf *sealBuffer) (cell, uint8, error) {
	depth := depthFor(chunksOf(size))
	if len(level) == 0 {
		return cell{}, 0, nil
	}
	for l := uint8(2); l <= depth; l++ {
		up := make([]cell, (len(level)+nodeCells-1)/nodeCells)
		for i := range up {
			var nd node
			copy(nd.cells[:], level[i*nodeCells:])
			if nd.cells == [nodeCells]cell{} {
				continue
			}
			box := buf.box[:BlockSize+tagSize]
			nd.encode(box)
			if _, err := io.ReadFull(b.rand, up[i].salt[:]); err != nil {
				return cell{}, 0, err
			}
			up[i].tag = k.seal(box, box[:BlockSize], up[i].salt[:], l, uint64(i))
			at, err := b.take(1)
			if err != nil {
				return cell{}, 0, err
			}
			up[i].block = at
			if _, err := b.dev.WriteAt(box[:BlockSize], int64(at)*BlockSize); err != nil {
				return cell{}, 0, err
			}
		}
		level = up
	}
	return level[0], depth, nil
}

// take reserves a run of blocks.
func (b *builder) take(n int) (uint32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next+uint64(n) > 1<<32-1 {
		return 0, ErrTooLarge
	}
	at := b.next
	b.next += uint64(n)
	return uint32(at), nil
}

// small seals content that is in memory.
func (b *builder) small(r *record, data []byte, buf *sealBuffer) error {
	r.size = uint64(len(data))
	k, err := b.keys.fileKey(r.id, r.class)
	if err != nil {
		return err
	}
	r.root, r.depth, err = b.memory(k, data, buf)
	return err
}

func (b *builder) memory(k *blockKey, data []byte, buf *sealBuffer) (cell, uint8, error) {
	size := uint64(len(data))
	leaves := make([]cell, (chunksOf(size)+nodeCells-1)/nodeCells)
	for i := range leaves {
		if _, err := b.leaf(k, bytesAt(data), size, uint64(i), &leaves[i], buf); err != nil {
			return cell{}, 0, err
		}
	}
	return b.upper(k, leaves, size, buf)
}

// finish seals directories, symlinks, facts and the inode table, and commits.
func (b *builder) finish(h *header) (Root, error) {
	buf := newSealBuffer()
	if err := b.identify(b.root); err != nil {
		return Root{}, err
	}
	for _, it := range append([]*item{b.root}, b.items...) {
		var err error
		switch it.entry.Type {
		case Dir:
			err = b.small(&it.rec, packPages(it.names), buf)
		case Symlink:
			err = b.small(&it.rec, []byte(it.entry.Target), buf)
		}
		if err != nil {
			return Root{}, err
		}
	}
	for _, it := range b.items[:len(b.items):len(b.items)] {
		if len(it.facts) == 0 || it.entry.Type != Regular {
			continue
		}
		f := &item{entry: Entry{Type: Internal}, n: firstInode + uint32(len(b.items))}
		f.rec.nlink = 1
		if err := b.identify(f); err != nil {
			return Root{}, err
		}
		if err := b.small(&f.rec, it.facts, buf); err != nil {
			return Root{}, err
		}
		it.rec.aux = f.n
		b.items = append(b.items, f)
	}
	regions := &item{entry: Entry{Type: Internal}, n: inodeRegion}
	regions.rec.nlink = 1
	if err := b.identify(regions); err != nil {
		return Root{}, err
	}
	if err := b.small(&regions.rec, b.policy.encode(), buf); err != nil {
		return Root{}, err
	}
	inodes := firstInode + len(b.items)
	table := make([]byte, inodes*inodeSize)
	for _, it := range append([]*item{b.root, regions}, b.items...) {
		it.rec.put(table[int(it.n)*inodeSize:])
	}
	tk, err := b.keys.fileKey([idSize]byte{}, Encrypted)
	if err != nil {
		return Root{}, err
	}
	root := rootRecord{generation: b.generation, inodes: uint32(inodes), time: b.now}
	if root.table, root.depth, err = b.memory(tk, table, buf); err != nil {
		return Root{}, err
	}
	root.blocks = uint32(b.next)
	rk, err := b.keys.rootKey()
	if err != nil {
		return Root{}, err
	}
	var salt [saltSize]byte
	if _, err := io.ReadFull(b.rand, salt[:]); err != nil {
		return Root{}, err
	}
	slot, digest := root.encode(rk, salt[:])
	head := make([]byte, firstBlock*BlockSize)
	copy(head, h.encode(b.keys))
	if _, err := b.dev.WriteAt(head, 0); err != nil {
		return Root{}, fmt.Errorf("write header: %w", err)
	}
	if err := b.dev.Sync(); err != nil {
		return Root{}, fmt.Errorf("sync volume: %w", err)
	}
	if _, err := b.dev.WriteAt(slot, int64(1+b.generation&1)*BlockSize); err != nil {
		return Root{}, fmt.Errorf("write root: %w", err)
	}
	if err := b.dev.Sync(); err != nil {
		return Root{}, fmt.Errorf("sync root: %w", err)
	}
	return Root{b.generation, digest}, nil
}

// packPages makes the content of a directory.
func packPages(names []entry) []byte {
	slices.SortFunc(names, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	var out []byte
	for len(names) > 0 {
		n, used := 0, pageHead
		for n < len(names) && used+names[n].size() <= BlockSize {
			used += names[n].size()
			n++
		}
		out = append(out, zeroBlock[:]...)
		page(names[:n]).encode(out[len(out)-BlockSize:])
		names = names[n:]
	}
	return out
}

type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (nothing) Close() error                      { return nil }
