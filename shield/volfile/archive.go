// SPDX-License-Identifier: Apache-2.0

package volfile

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

// Layers are tar streams that make one tree, the lowest first.
type Layers struct {
	Name string // of the file or directory they come from, for errors
	Open []func() (io.ReadCloser, error)
	// Image says that names hide what is below them as in container images
	// (whiteouts). In a plain archive they are names like any other.
	Image bool
}

// Archive gives the tree that layers make, sorted. Contents are kept in a spool
// until the volume is sealed: a file without a name in dir, so that nothing is left
// whatever happens. Call close at the end.
func Archive(l Layers, dir string) (_ iter.Seq2[sealfs.Entry, error], close func() error, err error) {
	spool, err := newSpool(dir)
	if err != nil {
		return nil, nil, err
	}
	seq := func(yield func(sealfs.Entry, error) bool) {
		m := &merge{spool: spool, image: l.Image, root: newDirectory()}
		for i, open := range l.Open {
			if err := m.layer(i, open); err != nil {
				yield(sealfs.Entry{}, fmt.Errorf("%s: %w", l.Name, err))
				return
			}
		}
		m.emit(yield)
	}
	return seq, spool.Close, nil
}

func newSpool(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "spool in "+dir), nil
	}
	spool, err := os.CreateTemp(dir, ".palisade-spool.*")
	if err != nil {
		return nil, err
	}
	return spool, os.Remove(spool.Name())
}

// merge puts layers on top of each other.
type merge struct {
	spool *os.File
	end   int64 // of the spool
	image bool
	root  *node
}

// node is one name of the tree.
type node struct {
	entry sealfs.Entry
	layer int
	kids  map[string]*node // of a directory
	link  *node            // the first name of the same file, of a hard link
}

func newDirectory() *node {
	return &node{entry: sealfs.Entry{Type: sealfs.Dir, Attr: sealfs.Attr{Mode: 0o755}}, kids: map[string]*node{}}
}

func (m *merge) layer(i int, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	tail := &tailReader{r: r}
	t := tar.NewReader(tail)
	for first := true; ; first = false {
		h, err := t.Next()
		if err == io.EOF && first && !m.image && !tail.any {
			return errors.New("neither an image nor a tar archive: it is empty")
		}
		if err == io.EOF {
			if !m.image && !tail.marked() {
				return errors.New("read archive: it has no end mark: it was cut short")
			}
			return nil
		}
		if err != nil && first && !m.image {
			return fmt.Errorf("neither an image nor a tar archive: %w", err)
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := m.add(i, h, t); err != nil {
			return fmt.Errorf("read archive: %s: %w", h.Name, err)
		}
	}
}

// tailReader keeps the last block that was read. An archive ends with blocks of
// zeros; one that was cut between two files does not.
type tailReader struct {
	r    io.Reader
	last [512]byte
	any  bool
}

func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.any = t.any || n > 0
	if n >= len(t.last) {
		copy(t.last[:], p[n-len(t.last):n])
	} else {
		copy(t.last[:], t.last[n:])
		copy(t.last[len(t.last)-n:], p[:n])
	}
	return n, err
}

func (t *tailReader) marked() bool { return t.last == [512]byte{} }

const whiteout = ".wh."

func (m *merge) add(layer int, h *tar.Header, content io.Reader) error {
	at := path.Join("/", h.Name)
	dirName, name := path.Split(at)
	hides := m.image && strings.HasPrefix(name, whiteout)
	if hides {
		// A whiteout makes no directories.
		dir, err := m.directory(dirName, layer, false)
		if err != nil || dir == nil {
			return err
		}
		switch hidden := strings.TrimPrefix(name, whiteout); {
		case hidden == whiteout+".opq":
			dir.hide(layer)
		case hidden == "" || hidden == "." || hidden == "..":
			return errors.New("hides no file")
		default:
			if k := dir.kids[hidden]; k != nil && k.layer < layer {
				delete(dir.kids, hidden)
			} else if k != nil && k.kids != nil {
				k.hide(layer)
			}
		}
		return nil
	}
	n, err := m.node(layer, h, content)
	if err != nil {
		return err
	}
	if at == "/" {
		if n.kids == nil {
			return errors.New("the root is no directory")
		}
		m.root.entry, m.root.layer = n.entry, layer
		return nil
	}
	dir, err := m.directory(dirName, layer, true)
	if err != nil {
		return err
	}
	if old := dir.kids[name]; old != nil && old.kids != nil && n.kids != nil {
		old.entry, old.layer = n.entry, layer // what it holds stays
		return nil
	}
	dir.kids[name] = n
	return nil
}

// hide takes away what a directory has of lower layers.
func (n *node) hide(layer int) {
	for name, k := range n.kids {
		switch {
		case k.layer < layer:
			delete(n.kids, name)
		case k.kids != nil:
			k.hide(layer)
		}
	}
}

// directory finds a directory, and makes what is missing of it when create. Symbolic
// links are followed inside the tree.
func (m *merge) directory(name string, layer int, create bool) (*node, error) {
	const maxLinks = 40
	return m.follow(name, layer, create, maxLinks)
}

func (m *merge) follow(name string, layer int, create bool, links int) (*node, error) {
	dir, at := m.root, "/"
	for part := range strings.SplitSeq(strings.Trim(path.Clean(name), "/"), "/") {
		if part == "" {
			continue
		}
		k := dir.kids[part]
		if k != nil && k.entry.Type == sealfs.Symlink {
			if links == 0 {
				return nil, errors.New("too many symbolic links")
			}
			target := k.entry.Target
			if !path.IsAbs(target) {
				target = path.Join(at, target)
			}
			var err error
			if k, err = m.follow(path.Join("/", target), layer, create, links-1); err != nil {
				return nil, err
			}
		}
		switch {
		case k == nil && create:
			k = newDirectory()
			dir.kids[part] = k
		case k == nil || k.kids == nil && !create:
			return nil, nil
		case k.kids == nil:
			return nil, fmt.Errorf("%s is no directory", path.Join(at, part))
		}
		if create {
			k.layer = max(k.layer, layer)
		}
		dir, at = k, path.Join(at, part)
	}
	return dir, nil
}

func (m *merge) node(layer int, h *tar.Header, content io.Reader) (*node, error) {
	n := &node{layer: layer, entry: sealfs.Entry{
		Attr: sealfs.Attr{Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime, Rdev: uint32(h.Devmajor)<<20 | uint32(h.Devminor)&0xfffff},
	}}
	e := &n.entry
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		size, err := io.Copy(io.NewOffsetWriter(m.spool, m.end), content)
		if err != nil {
			return nil, err
		}
		part := io.NewSectionReader(m.spool, m.end, size)
		e.Type, e.Size, e.Open = sealfs.Regular, size, func() (sealfs.Content, error) { return section{part}, nil }
		m.end += size
	case tar.TypeDir:
		e.Type, n.kids = sealfs.Dir, map[string]*node{}
	case tar.TypeSymlink:
		e.Type, e.Target = sealfs.Symlink, h.Linkname
	case tar.TypeLink:
		dirName, name := path.Split(path.Join("/", h.Linkname))
		dir, err := m.directory(dirName, layer, false)
		if err != nil {
			return nil, err
		}
		if dir == nil || dir.kids[name] == nil {
			return nil, fmt.Errorf("hard link to %s, which is not there", h.Linkname)
		}
		to := dir.kids[name]
		if to.kids != nil {
			return nil, fmt.Errorf("hard link to %s, a directory", h.Linkname)
		}
		n.entry, n.link = to.entry, cmp.Or(to.link, to)
	case tar.TypeFifo:
		e.Type = sealfs.Fifo
	case tar.TypeChar:
		e.Type = sealfs.Char
	case tar.TypeBlock:
		e.Type = sealfs.Block
	default:
		return nil, fmt.Errorf("has an unknown type %q", h.Typeflag)
	}
	return n, nil
}

// emit gives the tree, parents before children.
func (m *merge) emit(yield func(sealfs.Entry, error) bool) {
	first := map[*node]string{}
	var down func(at string, n *node) bool
	down = func(at string, n *node) bool {
		e := n.entry
		e.Path = at
		if n.kids == nil {
			file := cmp.Or(n.link, n)
			if e.LinkTo = first[file]; e.LinkTo == "" {
				first[file] = at
			}
		}
		if !yield(e, nil) {
			return false
		}
		for _, name := range slices.Sorted(maps.Keys(n.kids)) {
			if !down(path.Join(at, name), n.kids[name]) {
				return false
			}
		}
		return true
	}
	down("/", m.root)
}

type section struct{ *io.SectionReader }

func (section) Close() error { return nil }
