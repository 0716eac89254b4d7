// SPDX-License-Identifier: Apache-2.0

package sealfs

// readPage gives one page of a directory.
func (v *Volume) readPage(in *inode, n uint64) (page, error) {
	ch, err := v.chunk(&in.tree, n)
	if err != nil {
		return nil, err
	}
	return decodePage(ch.data[:], in.n, n, v.count)
}

func (v *Volume) writePage(in *inode, n uint64, p page) error {
	ch, err := v.chunk(&in.tree, n)
	if err != nil {
		return err
	}
	p.encode(ch.data[:])
	ch.dirty = true
	in.tree.size = max(in.tree.size, (n+1)*BlockSize)
	return nil
}

// findPage gives the page that holds name or into which it belongs: the last
// one whose first name is not behind it, else page 0. The directory must have pages.
func (v *Volume) findPage(in *inode, name string) (uint64, page, error) {
	lo, hi := uint64(0), in.tree.size/BlockSize // first page lo: fits or is 0; hi: does not
	var best page
	for lo+1 < hi {
		m := (lo + hi) / 2
		p, err := v.readPage(in, m)
		if err != nil {
			return 0, nil, err
		}
		if p[0].name <= name {
			lo, best = m, p
		} else {
			hi = m
		}
	}
	if best == nil {
		var err error
		if best, err = v.readPage(in, 0); err != nil {
			return 0, nil, err
		}
	}
	return lo, best, nil
}

// dirFind looks a name up; ok is false when it is not there.
func (v *Volume) dirFind(in *inode, name string) (e entry, ok bool, err error) {
	if in.rec.typ != Dir {
		return e, false, ErrNotDir
	}
	if in.tree.size == 0 {
		return e, false, nil
	}
	_, p, err := v.findPage(in, name)
	if err != nil {
		return e, false, err
	}
	i, ok := p.find(name)
	if ok {
		e = p[i]
	}
	return e, ok, nil
}

// dirInsert adds an entry whose name is not there yet.
func (v *Volume) dirInsert(in *inode, e entry) error {
	v.stamp(in)
	pages := in.tree.size / BlockSize
	if pages == 0 {
		return v.writePage(in, 0, page{e})
	}
	n, p, err := v.findPage(in, e.name)
	if err != nil {
		return err
	}
	i, _ := p.find(e.name)
	if p.used()+e.size() <= BlockSize {
		return v.writePage(in, n, insertAt(p, i, e))
	}
	half := len(p) / 2
	if n == pages-1 && i == len(p) {
		half = len(p)
	}
	upper := append(page(nil), p[half:]...)
	p = p[:half]
	if i <= half && half < len(p)+len(upper) {
		p = insertAt(p, i, e)
	} else {
		upper = insertAt(upper, i-half, e)
	}
	// From the end backwards, so that no page is lost on the way.
	for m := pages; m > n+1; m-- {
		if err := v.movePage(in, m-1, m); err != nil {
			return err
		}
	}
	if err := v.writePage(in, n+1, upper); err != nil {
		return err
	}
	return v.writePage(in, n, p)
}

func (v *Volume) movePage(in *inode, from, to uint64) error {
	src, err := v.chunk(&in.tree, from)
	if err != nil {
		return err
	}
	data := src.data
	dst, err := v.chunk(&in.tree, to)
	if err != nil {
		return err
	}
	dst.data, dst.dirty = data, true
	in.tree.size = max(in.tree.size, (to+1)*BlockSize)
	return nil
}

// dirRemove takes a name out.
func (v *Volume) dirRemove(in *inode, name string) error {
	v.stamp(in)
	n, p, err := v.findPage(in, name)
	if err != nil {
		return err
	}
	i, ok := p.find(name)
	if !ok {
		return &CorruptError{What: "directory", Inode: in.n, Cause: "an entry vanished"}
	}
	p = append(p[:i:i], p[i+1:]...)
	if len(p) > 0 {
		return v.writePage(in, n, p)
	}
	pages := in.tree.size / BlockSize
	for m := n + 1; m < pages; m++ {
		if err := v.movePage(in, m, m-1); err != nil {
			return err
		}
	}
	return v.truncateTree(&in.tree, (pages-1)*BlockSize)
}

// dirReplace points an existing name to another inode.
func (v *Volume) dirReplace(in *inode, e entry) error {
	v.stamp(in)
	n, p, err := v.findPage(in, e.name)
	if err != nil {
		return err
	}
	i, ok := p.find(e.name)
	if !ok {
		return &CorruptError{What: "directory", Inode: in.n, Cause: "an entry vanished"}
	}
	p[i] = e
	return v.writePage(in, n, p)
}

func insertAt(p page, i int, e entry) page {
	out := make(page, 0, len(p)+1)
	out = append(out, p[:i]...)
	out = append(out, e)
	return append(out, p[i:]...)
}
