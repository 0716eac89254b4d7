// SPDX-License-Identifier: Apache-2.0

package container

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// layer is one folder or file of the host that becomes part of a root.
type rootSource struct {
	// lower are the folders of the root, the topmost first.
	lower []string
	// files are mounted read-only into the root: destination → source.
	files map[string]string
}

// selfPath is where the built-in root has Palisade.
const selfPath = "/palisade"

// builtinRoot holds nothing but this program.
func builtinRoot() (rootSource, error) {
	self, err := os.Executable()
	if err != nil {
		return rootSource{}, err
	}
	if static, err := Static(self); err != nil {
		return rootSource{}, err
	} else if !static {
		return rootSource{}, fmt.Errorf("built-in root: %s is linked dynamically and would find no libraries there", self)
	}
	return rootSource{files: map[string]string{selfPath: self}}, nil
}

// Static tells whether a program needs nothing but the kernel to run.
func Static(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

func folderRoot(dir string) (rootSource, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return rootSource{}, err
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return rootSource{}, fmt.Errorf("root file system: %w", err)
	}
	if !fi.IsDir() {
		return rootSource{}, fmt.Errorf("root file system: %s is not a folder", dir)
	}
	return rootSource{lower: []string{abs}}, nil
}

// mountRoot puts a writable root together at target, in the mount namespace of
// the calling thread, which must be a private one. What the container writes
// goes into scratch. mountLabel is the SELinux context that everything in it
// shows, at no cost per file; empty for none.
func mountRoot(src rootSource, target, scratch, mountLabel string) error {
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, dir := range []string{target, scratch, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	lower := src.lower
	if len(lower) == 0 {
		empty := filepath.Join(scratch, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		lower = []string{empty}
	}
	if err := mountOverlay(lower, upper, work, target, mountLabel); err != nil {
		// The state directory may itself be on an overlay, as in a container:
		// then what is written is kept in memory.
		if err2 := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err2 != nil {
			return err
		}
		for _, dir := range []string{upper, work, filepath.Join(scratch, "empty")} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		if err2 := mountOverlay(lower, upper, work, target, mountLabel); err2 != nil {
			return err
		}
	}
	for dst, path := range src.files {
		if err := bindFile(path, filepath.Join(target, filepath.Clean("/"+dst))); err != nil {
			return err
		}
	}
	return nil
}

func mountOverlay(lower []string, upper, work, target, mountLabel string) error {
	for _, p := range lower {
		if strings.ContainsAny(p, ":,\\") {
			return fmt.Errorf("root file system: %q: a path with ':', ',' or '\\' cannot be a layer", p)
		}
	}
	data := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	if o := mountOption(mountLabel); o != "" {
		data += "," + o
	}
	// A root that is thrown away need not be written to disk at the end.
	for _, extra := range []string{",volatile", ""} {
		err := unix.Mount("overlay", target, "overlay", 0, data+extra)
		if err == nil {
			return nil
		}
		if err != unix.EINVAL || extra == "" {
			return fmt.Errorf("root file system: mount overlay: %w", err)
		}
	}
	return nil
}

// bindFile shows the file at src, read-only, at dst.
func bindFile(src, dst string) error {
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o755)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	defer f.Close()
	at := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if err := unix.Mount(src, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("root file system: bind %s: %w", src, err)
	}
	if err := unix.Mount("", dst, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("root file system: make %s read-only: %w", dst, err)
	}
	return nil
}
