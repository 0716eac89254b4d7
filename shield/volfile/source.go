// SPDX-License-Identifier: Apache-2.0

package volfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/shield/sealfs"
)

// Directory gives what lies below a directory, parents before children and in
// byte order. Names with several links become one inode. Nothing outside of the
// directory is read, whatever symbolic links it holds.
func Directory(root *os.Root) iter.Seq2[sealfs.Entry, error] {
	return func(yield func(sealfs.Entry, error) bool) {
		links := map[[2]uint64]string{}
		var down func(name string) bool
		visit := func(name string, fi fs.FileInfo) bool {
			e, err := entry(root, name, fi, links)
			return yield(e, err) && (err != nil || e.Type != sealfs.Dir || down(name))
		}
		down = func(name string) bool {
			d, err := root.Open(name)
			if err != nil {
				return yield(sealfs.Entry{}, err)
			}
			list, err := d.ReadDir(-1)
			d.Close()
			if err != nil {
				return yield(sealfs.Entry{}, err)
			}
			// ReadDir of a file does not sort.
			names := make([]string, len(list))
			for i, e := range list {
				names[i] = e.Name()
			}
			slices.Sort(names)
			for _, n := range names {
				at := path.Join(name, n)
				fi, err := root.Lstat(at)
				if errors.Is(err, fs.ErrNotExist) {
					continue // went away while we looked
				}
				if err != nil {
					return yield(sealfs.Entry{}, err)
				}
				if !visit(at, fi) {
					return false
				}
			}
			return true
		}
		fi, err := root.Stat(".")
		if err != nil {
			yield(sealfs.Entry{}, err)
			return
		}
		visit(".", fi)
	}
}

func entry(root *os.Root, name string, fi fs.FileInfo, links map[[2]uint64]string) (sealfs.Entry, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return sealfs.Entry{}, fmt.Errorf("%s: no Unix attributes", name)
	}
	e := sealfs.Entry{
		Path: path.Join("/", name),
		Attr: sealfs.Attr{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, ModTime: fi.ModTime()},
	}
	if st.Nlink > 1 && !fi.IsDir() {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first := links[id]; first != "" {
			e.LinkTo = first
			return e, nil
		}
		links[id] = e.Path
	}
	switch fi.Mode().Type() {
	case fs.ModeDir:
		e.Type = sealfs.Dir
	case 0:
		e.Type, e.Size = sealfs.Regular, fi.Size()
		size, dev, ino := fi.Size(), st.Dev, st.Ino // not all of fi: there may be millions
		e.Open = func() (sealfs.Content, error) {
			f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			var now unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &now); err != nil || now.Dev != dev || now.Ino != ino {
				f.Close()
				return nil, errors.Join(errors.New("was replaced while it was sealed"), err)
			}
			return &hostFile{f, size}, nil
		}
	case fs.ModeSymlink:
		e.Type = sealfs.Symlink
		t, err := root.Readlink(name)
		if err != nil {
			return e, err
		}
		e.Target = t
	case fs.ModeNamedPipe:
		e.Type = sealfs.Fifo
	case fs.ModeSocket:
		e.Type = sealfs.Socket
	case fs.ModeDevice | fs.ModeCharDevice, fs.ModeDevice:
		e.Type = sealfs.Block
		if fi.Mode()&fs.ModeCharDevice != 0 {
			e.Type = sealfs.Char
		}
		e.Attr.Rdev = unix.Major(uint64(st.Rdev))<<20 | unix.Minor(uint64(st.Rdev))&0xfffff
	default:
		return e, fmt.Errorf("%s: unknown kind of file", name)
	}
	return e, nil
}

// hostFile is a file that is being sealed.
type hostFile struct {
	*os.File
	size int64
}

// NextData finds what is no hole. It is io.EOF where there is nothing any more.
func (f *hostFile) NextData(off int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == nil:
		return at, nil
	case !errors.Is(err, unix.ENXIO):
		return off, nil // a file system that does not say
	}
	if fi, err := f.Stat(); err != nil || fi.Size() < f.size {
		return 0, errors.Join(errors.New("became shorter while it was sealed"), err)
	}
	return 0, io.EOF
}

// Extract writes a file or a directory of a volume to the host. dst must not
// exist, or be a directory, which then gets the file under its own name.
// Nothing is written outside of dst. Owners are set when own. Sockets, fifos and devices
// below a directory are left out, and listed.
func Extract(v *sealfs.Volume, src, dst string, own bool) (files int, skipped []string, err error) {
	info, err := v.Lstat(src)
	if err != nil {
		return 0, nil, err
	}
	if fi, err := os.Stat(dst); err == nil && fi.IsDir() && path.Base(src) != "/" {
		dst = filepath.Join(dst, path.Base(path.Clean(src)))
	}
	if _, err := os.Lstat(dst); err == nil && path.Clean("/"+src) != "/" {
		return 0, nil, &os.PathError{Op: "cp", Path: dst, Err: os.ErrExist}
	}
	parent, base := filepath.Dir(dst), filepath.Base(dst)
	if info.Type == sealfs.Dir {
		if err := os.MkdirAll(dst, 0o700); err != nil {
			return 0, nil, err
		}
		parent, base = dst, "."
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return 0, nil, err
	}
	defer root.Close()
	x := &extractor{v: v, root: root, own: own, links: map[uint32]string{}}
	err = x.copy(src, base, info)
	return x.files, x.skipped, err
}

type extractor struct {
	v     *sealfs.Volume
	root  *os.Root
	own   bool
	links map[uint32]string
	files int

	skipped []string
}

func (x *extractor) copy(src, dst string, info sealfs.Info) error {
	if info.Type != sealfs.Dir && info.Links > 1 {
		if first := x.links[info.Inode]; first != "" {
			return x.root.Link(first, dst)
		}
		x.links[info.Inode] = dst
	}
	switch info.Type {
	case sealfs.Dir:
		if dst != "." {
			if err := x.root.Mkdir(dst, 0o700); err != nil {
				return err
			}
		}
		list, err := x.v.ReadDir(src)
		if err != nil {
			return err
		}
		for _, e := range list {
			at := path.Join(src, e.Name)
			child, err := x.v.Lstat(at)
			if err != nil {
				return err
			}
			if child.Type > sealfs.Symlink {
				x.skipped = append(x.skipped, at)
				continue
			}
			if err := x.copy(at, path.Join(dst, e.Name), child); err != nil {
				return err
			}
		}
	case sealfs.Regular:
		x.files++
		if err := x.regular(src, dst); err != nil {
			return err
		}
	case sealfs.Symlink:
		t, err := x.v.Readlink(src)
		if err != nil {
			return err
		}
		if err := x.root.Symlink(t, dst); err != nil {
			return err
		}
		if x.own {
			return x.root.Lchown(dst, int(info.UID), int(info.GID))
		}
		return nil
	default:
		return fmt.Errorf("%s: a %v cannot be copied out", src, info.Type)
	}
	if x.own {
		if err := x.root.Lchown(dst, int(info.UID), int(info.GID)); err != nil {
			return err
		}
	}
	mode := fs.FileMode(info.Mode & 0o777)
	if x.own {
		for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
			if info.Mode&bit != 0 {
				mode |= m
			}
		}
	}
	if err := x.root.Chmod(dst, mode); err != nil {
		return err
	}
	return x.root.Chtimes(dst, info.ModTime, info.ModTime)
}

func (x *extractor) regular(src, dst string) (err error) {
	in, err := x.v.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := x.root.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	return copySparse(out, in)
}

// copySparse leaves holes as holes.
func copySparse(out *os.File, in *sealfs.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		if off, err = in.NextData(off); err != nil {
			break
		}
		n, err := in.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := out.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	if err != io.EOF {
		return err
	}
	return out.Truncate(info.Size)
}

// CopyIn writes a file of the host into a volume that is open for writing; the
// caller commits. The target is replaced when it is a regular file.
func CopyIn(v *sealfs.Volume, src, dst string) (err error) {
	f, err := os.OpenFile(src, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo would wait for its writer
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", src)
	}
	if info, err := v.Stat(dst); err == nil && info.Type == sealfs.Dir {
		dst = path.Join(dst, filepath.Base(src))
	}
	st := fi.Sys().(*syscall.Stat_t)
	out, err := v.Create(dst, sealfs.Attr{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid})
	if errors.Is(err, fs.ErrExist) {
		if out, err = v.Open(dst); err == nil {
			err = out.Truncate(0)
		}
	}
	if err != nil {
		return err
	}
	defer out.Close()
	host := &hostFile{f, fi.Size()}
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		if off, err = host.NextData(off); err != nil {
			break
		}
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := out.WriteAt(buf[:n], off); err != nil {
			return err
		}
		if off += int64(n); n == 0 {
			break
		}
	}
	if err != nil && err != io.EOF {
		return err
	}
	return out.Truncate(fi.Size())
}

// Volume gives what a volume holds, for sealing it again under another key.
func Volume(v *sealfs.Volume) iter.Seq2[sealfs.Entry, error] {
	return func(yield func(sealfs.Entry, error) bool) {
		links := map[uint32]string{}
		var down func(at string) bool
		down = func(at string) bool {
			e, err := volumeEntry(v, at, links)
			if !yield(e, err) || err != nil {
				return false
			}
			if e.Type != sealfs.Dir {
				return true
			}
			list, err := v.ReadDir(at)
			if err != nil {
				return yield(e, err)
			}
			for _, c := range list {
				if !down(path.Join(at, c.Name)) {
					return false
				}
			}
			return true
		}
		down("/")
	}
}

func volumeEntry(v *sealfs.Volume, at string, links map[uint32]string) (sealfs.Entry, error) {
	info, err := v.Lstat(at)
	e := sealfs.Entry{
		Path: at, Type: info.Type, Size: info.Size,
		Attr: sealfs.Attr{Mode: info.Mode, UID: info.UID, GID: info.GID, ModTime: info.ModTime, Rdev: info.Rdev},
	}
	if err != nil {
		return e, err
	}
	if info.Links > 1 && info.Type != sealfs.Dir {
		if e.LinkTo = links[info.Inode]; e.LinkTo != "" {
			return e, nil
		}
		links[info.Inode] = at
	}
	switch info.Type {
	case sealfs.Symlink:
		e.Target, err = v.Readlink(at)
	case sealfs.Regular:
		e.Open = func() (sealfs.Content, error) { return v.Open(at) }
		if info.HasFacts {
			e.Facts, err = v.Facts(at)
		}
	}
	return e, err
}
