// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"errors"
	"fmt"
	"io"
)

// node is one decoded node of a tag tree, cached below its parent.
type node struct {
	cells [nodeCells]cell
	kids  []*node // above level 1; nil entries are not loaded
	dirty bool
}

// tree is the content of one file: root cell, depth, and the nodes in memory.
// The volume's lock guards it.
type tree struct {
	v     *Volume
	inode uint32 // for errors
	key   *blockKey
	depth uint8
	root  cell
	top   *node // the root cell's node, when loaded
	size  uint64
}

func (t *tree) corrupt(level uint8, index uint64, block uint32, cause string) error {
	what := "node"
	if level == 0 {
		what = "data"
	}
	return &CorruptError{What: what, Inode: t.inode, Level: level, Index: index, Block: block, Cause: cause}
}

// readBlock reads and opens the block of a cell. box needs room for the tag.
func readBlock(dev Device, key *blockKey, dst, box []byte, c *cell, blocks uint32, level uint8, index uint64) (cause string, err error) {
	if cause := c.check(blocks); cause != "" {
		return cause, nil
	}
	if c.block == 0 {
		clear(dst[:BlockSize])
		return "", nil
	}
	if n, err := dev.ReadAt(box[:BlockSize], int64(c.block)*BlockSize); n < BlockSize {
		if err == nil || errors.Is(err, io.EOF) {
			return "the volume ends before it", nil
		}
		return "", fmt.Errorf("read block %d: %w", c.block, err)
	}
	if !key.open(dst[:BlockSize], box[:BlockSize:cap(box)], c.salt[:], c.tag, level, index) {
		return "authentication failed", nil
	}
	return "", nil
}

func (n *node) decode(b []byte) {
	for i := range n.cells {
		n.cells[i] = getCell(b[i*cellSize:])
	}
}

func (n *node) encode(b []byte) {
	for i := range n.cells {
		n.cells[i].put(b[i*cellSize:])
	}
}

// load reads the node behind c.
func (t *tree) load(c *cell, level uint8, index uint64) (*node, error) {
	n := new(node)
	if level > 1 {
		n.kids = make([]*node, nodeCells)
	}
	if c.block == 0 && *c == (cell{}) {
		return n, nil
	}
	v := t.v
	cause, err := readBlock(v.dev, t.key, v.box[:BlockSize], v.box[:], c, v.blocks(), level, index)
	if err != nil {
		return nil, err
	}
	if cause != "" {
		return nil, t.corrupt(level, index, c.block, cause)
	}
	n.decode(v.box[:])
	v.nodes++
	return n, nil
}

// leaf gives the level-1 node over a chunk; with write it marks the way dirty.
// depth must be above 0.
func (t *tree) leaf(chunk uint64, write bool) (*node, error) {
	if t.top == nil {
		n, err := t.load(&t.root, t.depth, 0)
		if err != nil {
			return nil, err
		}
		t.top = n
	}
	n := t.top
	for level := t.depth; ; level-- {
		if write {
			n.dirty = true
		}
		if level == 1 {
			return n, nil
		}
		i := chunk >> (7 * (level - 1)) & (nodeCells - 1)
		if n.kids[i] == nil {
			kid, err := t.load(&n.cells[i], level-1, chunk>>(7*(level-1)))
			if err != nil {
				return nil, err
			}
			n.kids[i] = kid
		}
		n = n.kids[i]
	}
}

// cell gives the cell of a chunk.
func (t *tree) cell(chunk uint64) (cell, error) {
	if chunk >= 1<<(7*t.depth) {
		return cell{}, nil
	}
	if t.depth == 0 {
		return t.root, nil
	}
	n, err := t.leaf(chunk, false)
	if err != nil {
		return cell{}, err
	}
	return n.cells[chunk%nodeCells], nil
}

// nextData finds the first chunk from a given one on that is no hole. Nothing is
// read below a hole.
func (t *tree) nextData(from uint64) (chunk uint64, ok bool, err error) {
	if t.top == nil && t.root.block == 0 || from >= 1<<(7*t.depth) {
		return 0, false, nil
	}
	if t.depth == 0 {
		return 0, true, nil
	}
	if t.top == nil {
		if t.top, err = t.load(&t.root, t.depth, 0); err != nil {
			t.top = nil
			return 0, false, err
		}
	}
	return t.nextBelow(t.top, t.depth, 0, from)
}

func (t *tree) nextBelow(n *node, level uint8, index, from uint64) (uint64, bool, error) {
	first := index << (7 * level)
	i := uint64(0)
	if from > first {
		i = (from - first) >> (7 * (level - 1))
	}
	for ; i < nodeCells; i++ {
		switch {
		case level == 1:
			if n.cells[i].block != 0 {
				return first + i, true, nil
			}
			continue
		case n.kids[i] == nil && n.cells[i].block == 0:
			continue
		case n.kids[i] == nil:
			kid, err := t.load(&n.cells[i], level-1, index*nodeCells+i)
			if err != nil {
				return 0, false, err
			}
			n.kids[i] = kid
		}
		if at, ok, err := t.nextBelow(n.kids[i], level-1, index*nodeCells+i, from); ok || err != nil {
			return at, ok, err
		}
	}
	return 0, false, nil
}

// setCell puts the cell of a chunk, deepening the tree as needed.
func (t *tree) setCell(chunk uint64, c cell) error {
	for chunk >= 1<<(7*t.depth) {
		t.deepen()
	}
	if t.depth == 0 {
		t.root = c
		return nil
	}
	n, err := t.leaf(chunk, true)
	if err != nil {
		return err
	}
	n.cells[chunk%nodeCells] = c
	return nil
}

func (t *tree) deepen() {
	if t.root == (cell{}) && t.top == nil {
		t.depth++
		return
	}
	n := &node{dirty: true}
	n.cells[0] = t.root
	t.depth++
	if t.depth > 1 {
		n.kids = make([]*node, nodeCells)
		n.kids[0] = t.top
	}
	t.top, t.root = n, cell{}
	t.v.nodes++
}

// flush writes the dirty nodes and leaves t.root valid.
func (t *tree) flush() error {
	if t.top == nil || !t.top.dirty {
		return nil
	}
	return t.flushNode(t.top, &t.root, t.depth, 0)
}

func (t *tree) flushNode(n *node, at *cell, level uint8, index uint64) error {
	holes := true
	for i := range n.cells {
		if n.kids != nil && n.kids[i] != nil && n.kids[i].dirty {
			if err := t.flushNode(n.kids[i], &n.cells[i], level-1, index<<7|uint64(i)); err != nil {
				return err
			}
		}
		holes = holes && n.cells[i].block == 0
	}
	c := cell{}
	if !holes {
		var b [BlockSize + tagSize]byte
		n.encode(b[:])
		var err error
		if c, err = t.v.writeBlock(t.key, b[:], level, index); err != nil {
			return err
		}
	}
	t.v.alloc.release(at.block)
	*at = c
	n.dirty = false
	return nil
}

// cut makes holes of all chunks from the first one given.
func (t *tree) cut(first uint64) error {
	if t.depth == 0 {
		if first == 0 {
			t.v.alloc.release(t.root.block)
			t.root = cell{}
		}
		return nil
	}
	if first >= 1<<(7*t.depth) || t.top == nil && t.root.block == 0 {
		return nil
	}
	if first == 0 {
		if err := t.releaseAll(); err != nil {
			return err
		}
		t.top, t.root, t.depth = nil, cell{}, 0
		return nil
	}
	if _, err := t.leaf(first, true); err != nil { // loads the way along the cut
		return err
	}
	return t.cutNode(t.top, t.depth, 0, first)
}

// cutNode releases what lies at or behind first below a loaded node.
func (t *tree) cutNode(n *node, level uint8, index, first uint64) error {
	n.dirty = true
	span := uint64(1) << (7 * (level - 1)) // chunks below one cell
	for i := range n.cells {
		start := (index<<7 | uint64(i)) * span
		if start+span <= first || n.cells[i].block == 0 && (n.kids == nil || n.kids[i] == nil) {
			continue
		}
		if level > 1 {
			if n.kids[i] == nil {
				kid, err := t.load(&n.cells[i], level-1, index<<7|uint64(i))
				if err != nil {
					return err
				}
				n.kids[i] = kid
			}
			if err := t.cutNode(n.kids[i], level-1, index<<7|uint64(i), first); err != nil {
				return err
			}
			if start < first {
				continue
			}
			n.kids[i] = nil
		}
		t.v.alloc.release(n.cells[i].block)
		n.cells[i] = cell{}
	}
	return nil
}

// releaseAll frees every block of the tree.
func (t *tree) releaseAll() error {
	if t.depth > 0 {
		if t.top == nil {
			n, err := t.load(&t.root, t.depth, 0)
			if err != nil {
				return err
			}
			t.top = n
		}
		if err := t.cutNode(t.top, t.depth, 0, 0); err != nil {
			return err
		}
	}
	t.v.alloc.release(t.root.block)
	return nil
}

// forget drops the nodes in memory; they must be clean.
func (t *tree) forget() { t.top = nil }

// walk calls visit with every cell that is not a hole, parents first. The tree
// is read without a cache, so that walks of one volume can run side by side.
func walk(dev Device, key *blockKey, inode, blocks uint32, root *cell, depth uint8, visit func(c *cell, level uint8, index uint64) error) error {
	var box [BlockSize + tagSize]byte
	var down func(c *cell, level uint8, index uint64) error
	down = func(c *cell, level uint8, index uint64) error {
		corrupt := func(cause string) error {
			return (&tree{inode: inode}).corrupt(level, index, c.block, cause)
		}
		if cause := c.check(blocks); cause != "" {
			return corrupt(cause)
		}
		if c.block == 0 {
			return nil
		}
		if err := visit(c, level, index); err != nil || level == 0 {
			return err
		}
		cause, err := readBlock(dev, key, box[:BlockSize], box[:], c, blocks, level, index)
		if err != nil {
			return err
		}
		if cause != "" {
			return corrupt(cause)
		}
		n := new(node)
		n.decode(box[:])
		for i := range n.cells {
			if err := down(&n.cells[i], level-1, index<<7|uint64(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return down(root, depth, 0)
}
