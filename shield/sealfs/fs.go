// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

const maxLinks = 40 // symbolic links followed in one path, as Linux does

// place is where a path leads: a directory, the last name in it, and the inode
// behind the name if there is one.
type place struct {
	dir  *inode
	name string // empty for the root directory
	path string // absolute, without symbolic links
	in   *inode // nil: does not exist
}

// child gives the inode behind an entry, checked against the entry.
func (v *Volume) child(dir *inode, e entry) (*inode, error) {
	in, err := v.inode(e.inode)
	if err != nil {
		return nil, err
	}
	if in.rec.typ != e.typ || in.rec.nlink == 0 || e.typ == Dir && in.rec.parent != dir.n {
		return nil, &CorruptError{What: "directory", Inode: dir.n, Cause: fmt.Sprintf("entry %q does not fit inode %d", e.name, e.inode)}
	}
	return in, nil
}

// walkPath resolves an absolute path. The last component is followed through
// symbolic links only with follow.
func (v *Volume) walkPath(name string, follow bool) (place, error) {
	if len(name) > 1<<16 || strings.ContainsRune(name, 0) {
		return place{}, ErrName
	}
	root, err := v.inode(inodeRoot)
	if err != nil {
		return place{}, err
	}
	at := place{dir: root, path: "/", in: root}
	todo := strings.Split(name, "/")
	stack := []*inode{root} // the directories of at.path
	links := 0
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		if c == "" || c == "." {
			if c == "." && (at.in == nil || at.in.rec.typ != Dir) {
				return place{}, ErrNotDir
			}
			continue
		}
		if at.in == nil {
			return place{}, fs.ErrNotExist
		}
		if at.in.rec.typ != Dir {
			return place{}, ErrNotDir
		}
		if c == ".." {
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			at = place{dir: stack[len(stack)-1], path: path.Dir(at.path), in: stack[len(stack)-1]}
			continue
		}
		if !validName(c) {
			return place{}, ErrName
		}
		dir := at.in
		at = place{dir: dir, name: c, path: path.Join(at.path, c)}
		e, ok, err := v.dirFind(dir, c)
		if err != nil {
			return place{}, err
		}
		if !ok {
			continue
		}
		if at.in, err = v.child(dir, e); err != nil {
			return place{}, err
		}
		switch at.in.rec.typ {
		case Dir:
			stack = append(stack, at.in)
		case Symlink:
			if !follow && len(todo) == 0 {
				break
			}
			if links++; links > maxLinks {
				return place{}, ErrLoop
			}
			t, err := v.target(at.in)
			if err != nil {
				return place{}, err
			}
			todo = append(strings.Split(t, "/"), todo...)
			if strings.HasPrefix(t, "/") {
				stack = stack[:1]
			}
			top := stack[len(stack)-1]
			at = place{dir: top, path: path.Dir(at.path), in: top}
			if strings.HasPrefix(t, "/") {
				at.path = "/"
			}
		}
	}
	return at, nil
}

func (v *Volume) target(in *inode) (string, error) {
	b := make([]byte, in.tree.size)
	if err := v.readTree(&in.tree, b, 0); err != nil {
		return "", err
	}
	return string(b), nil
}

// op runs one operation under the lock and names it in the error.
func (v *Volume) op(name, file string, write bool, f func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.readable()
	if write {
		err = v.writable()
	}
	if err == nil {
		err = f()
	}
	if err != nil {
		return &fs.PathError{Op: name, Path: file, Err: err}
	}
	return nil
}

// existing resolves a path that must lead somewhere.
func (v *Volume) existing(name string, follow bool) (*inode, error) {
	at, err := v.walkPath(name, follow)
	if err == nil && at.in == nil {
		err = fs.ErrNotExist
	}
	return at.in, err
}

// free resolves a path whose last name must be free, for an inode of the type.
func (v *Volume) freePlace(name string, t Type) (place, error) {
	at, err := v.walkPath(name, false)
	switch {
	case err != nil:
	case at.in != nil:
		err = fs.ErrExist
	case t != Dir && strings.HasSuffix(name, "/"):
		err = ErrIsDir
	case !v.policy.allows(at.path, t):
		err = ErrRegion
	}
	return at, err
}

// Stat describes what a path leads to through symbolic links.
func (v *Volume) Stat(name string) (info Info, err error) { return v.stat(name, true) }

// Lstat describes what a path leads to, a symbolic link itself.
func (v *Volume) Lstat(name string) (info Info, err error) { return v.stat(name, false) }

func (v *Volume) stat(name string, follow bool) (info Info, err error) {
	err = v.op("stat", name, false, func() error {
		in, err := v.existing(name, follow)
		if err == nil {
			in.rec.size = in.tree.size
			info = in.rec.info(in.n)
		}
		return err
	})
	return info, err
}

// DirEntry is one name of a directory.
type DirEntry struct {
	Name  string
	Inode uint32
	Type  Type
}

// ReadDir lists a directory in byte order.
func (v *Volume) ReadDir(name string) (list []DirEntry, err error) {
	err = v.op("readdir", name, false, func() error {
		in, err := v.existing(name, true)
		if err != nil {
			return err
		}
		list, err = v.list(in)
		return err
	})
	return list, err
}

func (v *Volume) list(in *inode) ([]DirEntry, error) {
	if in.rec.typ != Dir {
		return nil, ErrNotDir
	}
	var list []DirEntry
	for n := range in.tree.size / BlockSize {
		p, err := v.readPage(in, n)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 && p[0].name <= list[len(list)-1].Name {
			return nil, &CorruptError{What: "directory page", Inode: in.n, Index: n, Cause: "out of order"}
		}
		for _, e := range p {
			list = append(list, DirEntry{e.name, e.inode, e.typ})
		}
	}
	return list, nil
}

// Readlink gives the target of a symbolic link.
func (v *Volume) Readlink(name string) (target string, err error) {
	err = v.op("readlink", name, false, func() error {
		in, err := v.existing(name, false)
		if err != nil {
			return err
		}
		if in.rec.typ != Symlink {
			return ErrInvalid
		}
		target, err = v.target(in)
		return err
	})
	return target, err
}

// Open opens a regular file, following symbolic links.
func (v *Volume) Open(name string) (f *File, err error) {
	err = v.op("open", name, false, func() error {
		in, err := v.existing(name, true)
		if err != nil {
			return err
		}
		if f, err = v.openRegular(in); err != nil {
			return err
		}
		return nil
	})
	return f, err
}

func (v *Volume) openRegular(in *inode) (*File, error) {
	switch in.rec.typ {
	case Regular:
		return v.openInode(in), nil
	case Dir:
		return nil, ErrIsDir
	}
	return nil, ErrNotRegular
}

// Facts gives what was authenticated about a regular file when it was sealed,
// or nil.
func (v *Volume) Facts(name string) (b []byte, err error) {
	err = v.op("facts", name, false, func() error {
		in, err := v.existing(name, true)
		if err != nil || in.rec.aux == 0 {
			return err
		}
		facts, err := v.inode(in.rec.aux)
		if err != nil {
			return err
		}
		if facts.rec.typ != Internal || facts.tree.size > maxFacts {
			return &CorruptError{What: "facts", Inode: in.n, Cause: fmt.Sprintf("inode %d holds none", facts.n)}
		}
		b = make([]byte, facts.tree.size)
		return v.readTree(&facts.tree, b, 0)
	})
	return b, err
}

const maxFacts = 64 << 20

// Create makes an empty regular file that must not exist yet.
func (v *Volume) Create(name string, a Attr) (f *File, err error) {
	err = v.op("create", name, true, func() error {
		in, err := v.make(name, Regular, a)
		if err == nil {
			f = v.openInode(in)
		}
		return err
	})
	return f, err
}

// Mkdir makes a directory.
func (v *Volume) Mkdir(name string, a Attr) error {
	return v.op("mkdir", name, true, func() error {
		_, err := v.make(strings.TrimRight(name, "/"), Dir, a)
		return err
	})
}

// Mknod makes a fifo, socket or device inode.
func (v *Volume) Mknod(name string, t Type, a Attr) error {
	return v.op("mknod", name, true, func() error {
		if t < Fifo || t > Block {
			return ErrInvalid
		}
		_, err := v.make(name, t, a)
		return err
	})
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(target, name string, a Attr) error {
	return v.op("symlink", name, true, func() error {
		if target == "" || len(target) > maxTarget || strings.ContainsRune(target, 0) {
			return ErrName
		}
		a.Mode = 0o777
		in, err := v.make(name, Symlink, a)
		if err != nil {
			return err
		}
		return v.writeTree(&in.tree, []byte(target), 0)
	})
}

func (v *Volume) make(name string, t Type, a Attr) (*inode, error) {
	at, err := v.freePlace(name, t)
	if err != nil {
		return nil, err
	}
	class := v.policy.Class(at.path)
	if !class.Stored() {
		class = Encrypted
	}
	in, err := v.newInode(t, class, a)
	if err != nil {
		return nil, err
	}
	in.rec.nlink = 1
	if t == Dir {
		in.rec.parent = at.dir.n
	}
	if err := v.dirInsert(at.dir, entry{in.n, t, at.name}); err != nil {
		return nil, err
	}
	return in, nil
}

// Link gives an inode that is no directory a second name.
func (v *Volume) Link(oldName, newName string) error {
	return v.op("link", newName, true, func() error {
		in, err := v.existing(oldName, false)
		if err != nil {
			return err
		}
		if in.rec.typ == Dir {
			return ErrIsDir
		}
		at, err := v.freePlace(newName, in.rec.typ)
		if err != nil {
			return err
		}
		if in.rec.typ == Regular && v.policy.Class(at.path) != in.rec.class {
			return ErrCrossRegion
		}
		in.rec.nlink++
		in.rec.ctime = v.now().UnixNano()
		v.touch(in)
		return v.dirInsert(at.dir, entry{in.n, in.rec.typ, at.name})
	})
}

// Remove takes a name away: of a file, or of an empty directory.
func (v *Volume) Remove(name string) error {
	return v.op("remove", name, true, func() error {
		at, err := v.walkPath(name, false)
		if err != nil {
			return err
		}
		if at.in == nil {
			return fs.ErrNotExist
		}
		if at.name == "" {
			return ErrInvalid
		}
		if at.in.rec.typ == Dir && at.in.tree.size != 0 {
			return ErrNotEmpty
		}
		if err := v.dirRemove(at.dir, at.name); err != nil {
			return err
		}
		return v.unlink(at.in)
	})
}

// unlink counts one name less.
func (v *Volume) unlink(in *inode) error {
	in.rec.nlink--
	in.rec.ctime = v.now().UnixNano()
	v.touch(in)
	if in.rec.nlink == 0 && in.refs == 0 {
		return v.dropInode(in)
	}
	return nil
}

// Rename moves a name, replacing what has the new one as rename(2) does.
func (v *Volume) Rename(oldName, newName string) error {
	return v.op("rename", oldName, true, func() error {
		from, err := v.walkPath(oldName, false)
		if err != nil {
			return err
		}
		if from.in == nil {
			return fs.ErrNotExist
		}
		to, err := v.walkPath(newName, false)
		if err != nil {
			return err
		}
		if from.name == "" || to.name == "" {
			return ErrInvalid
		}
		in, isDir := from.in, from.in.rec.typ == Dir
		if to.in == in {
			return nil
		}
		switch {
		case isDir && within(to.path, from.path):
			return ErrInvalid
		case to.in != nil && isDir && to.in.rec.typ != Dir:
			return ErrNotDir
		case to.in != nil && !isDir && to.in.rec.typ == Dir:
			return ErrIsDir
		case to.in != nil && isDir && to.in.tree.size != 0:
			return ErrNotEmpty
		case !isDir && strings.HasSuffix(newName, "/"):
			return ErrNotDir
		}
		if err := v.mayMove(in, from.path, to.path); err != nil {
			return err
		}
		in.rec.ctime = v.now().UnixNano()
		v.touch(in)
		e := entry{in.n, in.rec.typ, to.name}
		if to.in != nil {
			err = v.dirReplace(to.dir, e)
		} else {
			err = v.dirInsert(to.dir, e)
		}
		if err != nil {
			return err
		}
		if err := v.dirRemove(from.dir, from.name); err != nil {
			return err
		}
		if isDir {
			in.rec.parent = to.dir.n
		}
		if to.in != nil {
			return v.unlink(to.in)
		}
		return nil
	})
}

// mayMove keeps files in the class under which they were sealed.
func (v *Volume) mayMove(in *inode, from, to string) error {
	p := &v.policy
	switch {
	case in.rec.typ == Dir:
		if p.begins(from) || p.begins(to) || p.splits(from) || p.splits(to) || p.Class(from) != p.Class(to) {
			return ErrCrossRegion
		}
	case in.rec.typ == Regular:
		if p.Class(to) != in.rec.class {
			return ErrCrossRegion
		}
	case !p.Class(to).Stored():
		return ErrCrossRegion
	}
	return nil
}

// SetAttr is a change of attributes; nil fields stay.
type SetAttr struct {
	Mode     *uint32
	UID, GID *uint32
	ModTime  *time.Time
}

// Chattr changes attributes of what the path leads to, a symbolic link itself.
func (v *Volume) Chattr(name string, a SetAttr) error {
	return v.op("chattr", name, true, func() error {
		in, err := v.existing(name, false)
		if err != nil {
			return err
		}
		if a.Mode != nil {
			in.rec.mode = *a.Mode & 0o7777
		}
		if a.UID != nil {
			in.rec.uid = *a.UID
		}
		if a.GID != nil {
			in.rec.gid = *a.GID
		}
		if a.ModTime != nil {
			in.rec.mtime = a.ModTime.UnixNano()
		}
		in.rec.ctime = v.now().UnixNano()
		v.touch(in)
		return nil
	})
}

// Truncate sets the size of a regular file.
func (v *Volume) Truncate(name string, size int64) error {
	return v.op("truncate", name, true, func() error {
		in, err := v.existing(name, true)
		if err != nil {
			return err
		}
		if in.rec.typ != Regular {
			return ErrNotRegular
		}
		return v.truncate(in, size)
	})
}

// ReadFile reads a whole regular file of at most limit bytes.
func (v *Volume) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := v.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := int64(f.in.tree.size)
	if size > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("is %d bytes, more than %d", size, limit)}
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, nil
}

// WriteFile makes or replaces the content of a regular file.
func (v *Volume) WriteFile(name string, data []byte, a Attr) error {
	f, err := v.Create(name, a)
	if err != nil {
		if f, err = v.Open(name); err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}
