// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"sync"
)

// CheckOptions steer Check.
type CheckOptions struct {
	MetadataOnly bool // leave file contents out
	Workers      int  // 0: one per processor
	// Total is called once with the bytes of content to be read, Progress with
	// the bytes read since its last call, from any goroutine.
	Total    func(bytes int64)
	Progress func(bytes int64)
}

// Problem is one thing that is wrong with a volume.
type Problem struct {
	Inode uint32 `json:"inode,omitempty"`
	Path  string `json:"path,omitempty"`
	Text  string `json:"problem"`
}

func (p Problem) String() string {
	switch {
	case p.Path != "":
		return fmt.Sprintf("%s (inode %d): %s", p.Path, p.Inode, p.Text)
	case p.Inode != 0:
		return fmt.Sprintf("inode %d: %s", p.Inode, p.Text)
	}
	return p.Text
}

// Report is the result of a check.
type Report struct {
	Generation  uint64    `json:"generation"`
	RootDigest  string    `json:"root_digest"`
	Files       int       `json:"files"`
	Directories int       `json:"directories"`
	Others      int       `json:"others"`
	Bytes       int64     `json:"bytes"`       // of files
	Blocks      uint64    `json:"blocks"`      // of the volume
	BlocksUsed  uint64    `json:"blocks_used"` // with header and root slots
	Orphans     int       `json:"orphans"`     // unlinked while open; the next writer releases them
	Notes       []string  `json:"notes,omitempty"`
	Problems    []Problem `json:"problems"`
}

const maxProblems = 1000

// Check reads a whole volume and verifies every tag and all that section 10 of
// the specification names. An error means that the volume could not be opened;
// everything else is in Report.Problems, at most 1000 of them.
func Check(dev Device, key []byte, opts Options, co CheckOptions) (Report, error) {
	opts.ReadOnly = true
	v, err := Open(dev, key, opts)
	if err != nil {
		return Report{}, err
	}
	defer v.Close()
	c := &checker{v: v, co: co, records: map[uint32]*record{}, paths: map[uint32]string{}, links: map[uint32]uint32{}, facts: map[uint32]uint32{}}
	if c.co.Workers <= 0 {
		c.co.Workers = runtime.GOMAXPROCS(0)
	}
	s := v.Summary()
	c.report.Generation, c.report.RootDigest, c.report.Blocks = s.Generation, s.RootDigest, uint64(v.root.blocks)
	_, _, slots, best, err := readPreamble(dev, key)
	if err != nil {
		return Report{}, err
	}
	if other := slots[1-best]; other.err != nil && v.root.previous != [32]byte{} {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf("%v (normal after a crash during a commit)", other.err))
	} else if other.err == nil && other.root.generation+1 == v.root.generation && other.digest != v.root.previous {
		c.problem(0, "the root slots do not follow each other")
	}
	c.run()
	slices.SortStableFunc(c.report.Problems, func(a, b Problem) int { return int(int64(a.Inode) - int64(b.Inode)) })
	for i := range c.report.Problems {
		p := &c.report.Problems[i]
		p.Path = c.paths[p.Inode]
	}
	return c.report, nil
}

type checker struct {
	v       *Volume
	co      CheckOptions
	records map[uint32]*record
	paths   map[uint32]string
	links   map[uint32]uint32 // directory entries found
	facts   map[uint32]uint32 // internal inode → file it belongs to

	mu     sync.Mutex
	used   bitmap
	report Report
}

func (c *checker) problem(inode uint32, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Problems) < maxProblems {
		c.report.Problems = append(c.report.Problems, Problem{Inode: inode, Text: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) err(inode uint32, err error) {
	var ce *CorruptError
	if errors.As(err, &ce) {
		text := ce.What
		if ce.Block != 0 {
			text += fmt.Sprintf(" (level %d, index %d, block %d)", ce.Level, ce.Index, ce.Block)
		}
		c.problem(max(inode, ce.Inode), "%s: %s", text, ce.Cause)
		return
	}
	c.problem(inode, "%v", err)
}

func (c *checker) run() {
	v := c.v
	c.used.grow(uint64(v.root.blocks))
	c.used[0] |= 1<<firstBlock - 1
	c.claimTree(&v.table, nil, true)
	var total int64
	for n := uint32(1); n < v.count; n++ {
		r, err := c.record(n)
		if err != nil {
			c.err(n, err)
			continue
		}
		if r.typ == 0 {
			continue
		}
		c.records[n] = r
		total += int64(r.size)
		switch r.typ {
		case Regular:
			c.report.Files++
			c.report.Bytes += int64(r.size)
		case Dir:
			c.report.Directories++
		case Internal:
		default:
			c.report.Others++
		}
	}
	if c.co.Total != nil {
		c.co.Total(total)
	}
	jobs := make(chan uint32)
	var wg sync.WaitGroup
	for range c.co.Workers {
		wg.Go(func() {
			buf := make([]byte, runBlocks*BlockSize+tagSize)
			plain := make([]byte, BlockSize)
			for n := range jobs {
				c.content(n, c.records[n], buf, plain)
			}
		})
	}
	for n := uint32(1); n < v.count; n++ {
		if c.records[n] != nil {
			jobs <- n
		}
	}
	close(jobs)
	wg.Wait()
	c.names()
	for _, w := range c.used {
		for ; w != 0; w &= w - 1 {
			c.report.BlocksUsed++
		}
	}
}

func (c *checker) record(n uint32) (*record, error) {
	v := c.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.trim(); err != nil {
		return nil, err
	}
	var b [inodeSize]byte
	if err := v.readTree(&v.table, b[:], uint64(n)*inodeSize); err != nil {
		return nil, err
	}
	r, err := getRecord(b[:], n, v.count)
	return &r, err
}

// content walks the tree of one inode.
func (c *checker) content(n uint32, r *record, buf, plain []byte) {
	k, err := c.v.keys.fileKey(r.id, r.class)
	if err != nil {
		c.err(n, err)
		return
	}
	t := &tree{v: c.v, inode: n, key: k, depth: r.depth, root: r.root, size: r.size}
	var run []cell
	var first uint64
	flush := func() {
		c.verifyRun(t, run, first, buf, plain)
		run = run[:0]
	}
	c.claimTree(t, func(cl *cell, index uint64) {
		if c.co.MetadataOnly && r.typ != Dir && r.typ != Symlink && r.typ != Internal {
			return
		}
		if len(run) > 0 && (len(run) == runBlocks || cl.block != run[len(run)-1].block+1 || index != first+uint64(len(run))) {
			flush()
		}
		if len(run) == 0 {
			first = index
		}
		run = append(run, *cl)
	}, false)
	if len(run) > 0 {
		flush()
	}
	if c.co.Progress != nil {
		c.co.Progress(int64(r.size))
	}
}

// claimTree notes the blocks of a tree and calls data for each chunk.
func (c *checker) claimTree(t *tree, data func(c *cell, index uint64), table bool) {
	err := walk(c.v.dev, t.key, t.inode, c.v.root.blocks, &t.root, t.depth, func(cl *cell, level uint8, index uint64) error {
		c.mu.Lock()
		twice := c.used.get(uint64(cl.block))
		c.used.set(uint64(cl.block))
		c.mu.Unlock()
		if twice {
			c.problem(t.inode, "block %d (level %d, index %d) is used twice", cl.block, level, index)
		}
		if index<<(7*level) >= chunksOf(t.size) {
			c.problem(t.inode, "block %d (level %d, index %d) lies behind the end", cl.block, level, index)
		}
		if level == 0 && data != nil {
			data(cl, index)
		}
		return nil
	})
	if err != nil {
		if table {
			c.problem(0, "inode table: %v", err)
		} else {
			c.err(t.inode, err)
		}
	}
}

// verifyRun verifies chunks that lie in one run of blocks.
func (c *checker) verifyRun(t *tree, run []cell, first uint64, buf, plain []byte) {
	got, err := c.v.dev.ReadAt(buf[:len(run)*BlockSize], int64(run[0].block)*BlockSize)
	for i := range run {
		n, off := first+uint64(i), i*BlockSize
		if got < off+BlockSize {
			c.problem(t.inode, "data (level 0, index %d, block %d): cannot be read: %v", n, run[i].block, err)
			return
		}
		tail := buf[off+BlockSize : off+BlockSize+tagSize]
		keep := [tagSize]byte(tail)
		if !t.key.open(plain, buf[off:off+BlockSize:off+BlockSize+tagSize], run[i].salt[:], run[i].tag, 0, n) {
			c.problem(t.inode, "data (level 0, index %d, block %d): authentication failed", n, run[i].block)
		} else if end := t.size - min(t.size, n*BlockSize); end < BlockSize && !allZero(plain[end:]) {
			c.problem(t.inode, "data (index %d): bytes behind the end of the file are not zero", n)
		}
		copy(tail, keep[:])
	}
}

// names walks the directories.
func (c *checker) names() {
	type dirAt struct {
		n    uint32
		path string
	}
	seen := map[uint32]bool{inodeRoot: true}
	c.paths[inodeRoot] = "/"
	c.links[inodeRoot], c.links[inodeRegion] = 1, 1
	for todo := []dirAt{{inodeRoot, "/"}}; len(todo) > 0; todo = todo[1:] {
		d := todo[0]
		if c.records[d.n] == nil {
			continue
		}
		list, err := c.list(d.n)
		if err != nil {
			c.err(d.n, err)
		}
		for _, e := range list {
			r := c.records[e.Inode]
			at := path.Join(d.path, e.Name)
			switch {
			case r == nil:
				c.problem(d.n, "entry %q leads to inode %d, which is free or damaged", e.Name, e.Inode)
				continue
			case r.typ != e.Type:
				c.problem(d.n, "entry %q says %v, its inode %d is a %v", e.Name, e.Type, e.Inode, r.typ)
			case r.typ == Dir && r.parent != d.n:
				c.problem(d.n, "entry %q: the parent of inode %d is %d", e.Name, e.Inode, r.parent)
			case r.typ == Regular && c.v.policy.Class(at) != r.class:
				c.problem(e.Inode, "is %v, but its region at %s is %v", r.class, at, c.v.policy.Class(at))
			case !c.v.policy.allows(at, r.typ):
				c.problem(e.Inode, "lies in a region that is not kept in the volume: %s", at)
			}
			c.links[e.Inode]++
			if c.paths[e.Inode] == "" {
				c.paths[e.Inode] = at
			}
			if r.typ == Dir && !seen[e.Inode] {
				seen[e.Inode] = true
				todo = append(todo, dirAt{e.Inode, at})
			}
		}
	}
	for n, r := range c.records {
		if r.aux == 0 {
			continue
		}
		if f := c.records[r.aux]; f == nil || f.typ != Internal || r.aux == inodeRegion || c.facts[r.aux] != 0 {
			c.problem(n, "its facts are in inode %d, which holds none or another file's", r.aux)
			continue
		}
		c.facts[r.aux] = n
		c.links[r.aux]++
	}
	for n, r := range c.records {
		switch {
		case r.nlink == 0:
			c.report.Orphans++
			if c.links[n] != 0 {
				c.problem(n, "has %d names but a link count of 0", c.links[n])
			}
		case c.links[n] == 0:
			c.problem(n, "no directory leads to it")
		case c.links[n] != r.nlink:
			c.problem(n, "has %d names but a link count of %d", c.links[n], r.nlink)
		}
	}
}

func (c *checker) list(n uint32) ([]DirEntry, error) {
	v := c.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.trim(); err != nil {
		return nil, err
	}
	in, err := v.inode(n)
	if err != nil {
		return nil, err
	}
	return v.list(in)
}
