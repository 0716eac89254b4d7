// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// volume is a file or folder of the host that a container sees.
type volume struct {
	src, dst string
	readOnly bool
	// relabel is "Z" for a label of the container's own, "z" for one that all
	// containers may use.
	relabel string
}

// ErrVolume is the error of a volume that cannot be.
var ErrVolume = errors.New("want SRC:DST[:ro|:rw|:Z|:z] with an existing SRC and an absolute DST")

func parseVolume(text string) (volume, error) {
	bad := func(why string) (volume, error) {
		return volume{}, fmt.Errorf("volume %q: %s: %w", text, why, ErrVolume)
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return bad("not of this form")
	}
	v := volume{src: parts[0], dst: path.Clean(parts[1])}
	if !strings.HasPrefix(parts[1], "/") || v.dst == "/" {
		return bad("the destination is not an absolute path below the root")
	}
	if !strings.ContainsRune(v.src, '/') && v.src != "." && v.src != ".." {
		return bad("the source is the name of a volume, and there are only paths here (write ./" + v.src + ")")
	}
	if len(parts) == 3 {
		for _, opt := range strings.Split(parts[2], ",") {
			switch opt {
			case "ro":
				v.readOnly = true
			case "rw":
			case "Z", "z":
				if v.relabel != "" && v.relabel != opt {
					return bad("Z and z exclude each other")
				}
				v.relabel = opt
			default:
				return bad(fmt.Sprintf("unknown option %q", opt))
			}
		}
	}
	abs, err := filepath.Abs(v.src)
	if err != nil {
		return bad(err.Error())
	}
	if v.src, err = filepath.EvalSymlinks(abs); err != nil {
		return bad(err.Error())
	}
	return v, nil
}

func parseVolumes(texts []string) ([]volume, error) {
	var out []volume
	for _, t := range texts {
		v, err := parseVolume(t)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o volume) bool { return o.dst == v.dst }) {
			return nil, fmt.Errorf("volume %q: %s is given twice: %w", t, v.dst, ErrVolume)
		}
		out = append(out, v)
	}
	return out, nil
}

func (v volume) mount() specs.Mount {
	// Set-user-ID programs and devices of the host stay without effect.
	opts := []string{"rbind", "rprivate", "nosuid", "nodev"}
	if v.readOnly {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: v.dst, Type: "bind", Source: v.src, Options: opts}
}

// systemPaths are never relabelled: the host would not work any more.
var systemPaths = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt",
	"/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/tmp",
}

// systemTrees are not relabelled in any part.
var systemTrees = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"}

// ErrSystemPath says that a path is not for relabelling.
var ErrSystemPath = errors.New("a system path is not relabelled")

// relabel gives a file, or a folder and everything in it on the same file
// system, the SELinux context. Symbolic links are labelled and not followed.
func relabel(dir, context string) error {
	if slices.Contains(systemPaths, dir) || slices.ContainsFunc(systemTrees, func(t string) bool { return strings.HasPrefix(dir, t+"/") }) {
		return fmt.Errorf("relabel %s: %w", dir, ErrSystemPath)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return &os.PathError{Op: "relabel", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "relabel", Path: dir, Err: err}
	}
	return relabelTree(f, st.Dev, []byte(context+"\x00"), 0)
}

// maxDepth bounds how deep folders may be nested: each level holds a file open.
const maxDepth = 512

// relabelTree labels what f, opened with O_PATH, stands for.
func relabelTree(f *os.File, dev uint64, context []byte, depth int) error {
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "relabel", Path: f.Name(), Err: err}
	}
	if st.Dev != dev {
		return nil // something else is mounted here
	}
	have := make([]byte, len(context)+1)
	if n, err := unix.Getxattr(self, "security.selinux", have); err != nil || string(have[:n]) != string(context) {
		if err := unix.Setxattr(self, "security.selinux", context, 0); err != nil {
			return &os.PathError{Op: "relabel", Path: f.Name(), Err: err}
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("relabel %s: folders are nested deeper than %d", f.Name(), maxDepth)
	}
	entries, err := os.ReadDir(self)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := unix.Openat(int(f.Fd()), e.Name(), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue // gone since it was listed
		} else if err != nil {
			return &os.PathError{Op: "relabel", Path: filepath.Join(f.Name(), e.Name()), Err: err}
		}
		child := os.NewFile(uintptr(fd), filepath.Join(f.Name(), e.Name()))
		err = relabelTree(child, dev, context, depth+1)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
