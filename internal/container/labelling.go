// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/selinux/relabel"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

// labelling is how the content of a volume comes to carry a label.
type labelling int

const (
	// labelNone leaves it what it is.
	labelNone labelling = iota
	// labelMount has the kernel show one label for all of it, with the mount option
	// context=: at no cost per file, and nothing is written.
	labelMount
	// labelPrivate writes the container's own label to every file, labelShared the
	// one of all containers.
	labelPrivate
	labelShared
)

// labellingOf decides that. A label is an option of a file system, not of one of
// the places where it is mounted: what is mounted for this container alone can be
// given one as a whole, and a folder of a file system that is mounted already
// cannot. (The kernel refuses: "mount invalid. Same superblock, different
// security settings".) There every file has to be labelled.
//
// What the OCI runtime mounts, which is every other tmpfs, /dev/shm, /dev/mqueue
// and /dev/pts, it mounts with the mountLabel of the configuration.
//
// Source: security/selinux/hooks.c, selinux_sb_remount, selinux_set_mnt_opts.
func labellingOf(v volume, seLinux bool) labelling {
	switch {
	case !seLinux, v.relabel == "":
		return labelNone
	case v.mount:
		return labelMount
	case v.relabel == "Z":
		return labelPrivate
	}
	return labelShared
}

// mountOption is the option that gives a file system one label.
func mountOption(label string) string {
	if label == "" {
		return ""
	}
	return `context="` + label + `"`
}

// addVolumes mounts the volumes, and labels those that are to be labelled.
func (r *run) addVolumes(c *state.Container, p *bundle.Plan, spec *specs.Spec) error {
	for i, v := range r.volumes {
		how := labellingOf(v, r.host.Target.SELinux.On() == target.Yes)
		if v.mount {
			label := ""
			switch {
			case how == labelMount && v.relabel == "Z":
				label = p.MountLabel
			case how == labelMount:
				label = r.host.Target.SELinux.FileContext
			}
			at := c.Path("volume" + strconv.Itoa(i))
			if err := mountFileSystem(&v, at, label); err != nil {
				return err
			}
			v.src = at
		}
		spec.Mounts = append(spec.Mounts, v.mountpoint())
		if err := r.relabel(c, p, v, how); err != nil {
			return err
		}
	}
	return nil
}

// relabel writes labels to a volume's files, and notes first in the registry that
// they carry it.
func (r *run) relabel(c *state.Container, p *bundle.Plan, v volume, how labelling) error {
	label := r.host.Target.SELinux.FileContext
	switch how {
	case labelNone, labelMount:
		return nil
	case labelShared:
		// The label of all containers has no holder; the present one may have.
		if err := r.notOthers(c.Key, v.src); err != nil {
			return err
		}
	case labelPrivate:
		label = p.MountLabel
		// Recorded first: the label stays taken if we are killed halfway.
		c.Labelled = true
		if err := c.Save(); err != nil {
			return err
		}
		if _, err := r.registry.Reserve(svirt.Claim{ID: c.Key, Content: []string{v.src}}); err != nil {
			return err
		}
	}
	con, err := selinux.ParseContext(label)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(v.src); err != nil {
		return err
	} else if fi.IsDir() {
		_, err := relabel.Relabel(context.Background(), v.src, con, relabel.Options{})
		return err
	}
	return relabelFile(v.src, label)
}

// notOthers wants no live container to have a volume for itself.
func (r *run) notOthers(key, path string) error {
	list, err := r.registry.List()
	if err != nil {
		return err
	}
	for _, rec := range list {
		if rec.ID != key && rec.Live() && rec.State != svirt.Draining && slices.Contains(rec.Content, path) {
			return fmt.Errorf("%s carries the label of %s, which is %s: %w", path, rec.ID, rec.State, svirt.ErrInUse)
		}
	}
	return nil
}

// relabelFile labels a volume that is a single file.
func relabelFile(path, label string) error {
	if err := relabel.Refuse(path); err != nil {
		return err
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return &os.PathError{Op: "relabel", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "security.selinux", append([]byte(label), 0), 0); err != nil {
		return &os.PathError{Op: "relabel", Path: path, Err: err}
	}
	return nil
}

// mountFileSystem mounts the device or image that a volume names, in the calling
// thread's mount namespace. A read-only file system makes the volume read-only.
// Everything goes with the last process in the namespace, the loop device too.
func mountFileSystem(v *volume, at, label string) (err error) {
	bad := func(err error) error { return fmt.Errorf("volume %s: %w", v.src, err) }
	mode := os.O_RDWR
	if v.readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(v.src, mode|unix.O_NOFOLLOW, 0)
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return bad(err)
	}
	kind, fixed := fileSystem(f)
	if kind == "" {
		return bad(errNoFileSystem)
	}
	v.readOnly = v.readOnly || fixed
	device := v.src
	switch m := fi.Mode(); {
	case m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0:
	case m.IsRegular():
		loop, err := attachLoop(f, v.readOnly)
		if err != nil {
			return bad(err)
		}
		defer loop.Close() // the mount keeps it
		device = loop.Name()
	default:
		return bad(errNoFileSystem)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return bad(err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if v.readOnly {
		flags |= unix.MS_RDONLY
	}
	err = unix.Mount(device, at, kind, flags, mountOption(label))
	if err == unix.EINVAL && label != "" || err == unix.EBUSY {
		err = fmt.Errorf("mount %s: %w (is it mounted elsewhere? a file system has one label in all places)", kind, err)
	} else if err != nil {
		err = fmt.Errorf("mount %s: %w", kind, err)
	}
	if err != nil {
		return bad(err)
	}
	return nil
}

var errNoFileSystem = errors.New("not a block device or an image of ext4, xfs, btrfs, squashfs or erofs")

// fileSystem tells from the superblock what a device or image holds, and whether
// it is of a kind that cannot be written; "" for what is not known.
//
// Source: Documentation/filesystems/ext4/super.rst; fs/xfs/libxfs/xfs_format.h;
// fs/btrfs/ctree.h; fs/squashfs/squashfs_fs.h; fs/erofs/erofs_fs.h.
func fileSystem(f *os.File) (kind string, fixed bool) {
	for _, m := range []struct {
		offset      int64
		magic, kind string
		fixed       bool
	}{
		{0x438, "\x53\xef", "ext4", false},
		{0, "XFSB", "xfs", false},
		{0x10040, "_BHRfS_M", "btrfs", false},
		{0, "hsqs", "squashfs", true},
		{1024, "\xe2\xe1\xf5\xe0", "erofs", true},
	} {
		b := make([]byte, len(m.magic))
		if _, err := f.ReadAt(b, m.offset); err == nil && string(b) == m.magic {
			return m.kind, m.fixed
		}
	}
	return "", false
}

// attachLoop makes a block device of an image. Nobody else may have it: two file
// systems that write to one image destroy it. The lock goes with the open file,
// which the device keeps.
func attachLoop(image *os.File, readOnly bool) (*os.File, error) {
	how := unix.LOCK_EX
	flags := uint32(unix.LO_FLAGS_AUTOCLEAR)
	mode := os.O_RDWR
	if readOnly {
		how, flags, mode = unix.LOCK_SH, flags|unix.LO_FLAGS_READ_ONLY, os.O_RDONLY
	}
	if err := unix.Flock(int(image.Fd()), how|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return nil, errors.New("another container has it mounted")
	} else if err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	const tries = 16
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err)
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), mode, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: flags}})
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if err != unix.EBUSY { // somebody else was faster
			return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", err)
		}
	}
	return nil, errors.New("no free loop device")
}
