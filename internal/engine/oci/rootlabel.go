// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay is one overlay mount.
type overlay struct {
	flags uintptr
	data  string
}

// maxMountData is what the kernel takes of a file system's options: a page, with
// a NUL at the end.
const maxMountData = 4095

// labelRoot gives the root of a container its label, where the engine has mounted
// an overlay without one: engines that know no labels (ctr) do. Its files then
// have the label that all images have, which a container may read and not
// change. Like the engines that do label, it mounts the overlay with one context
// for everything in it; the kernel does not change that on a mount that exists.
func labelRoot(root, context string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	o, found, err := findOverlay(f, root)
	if err != nil || !found {
		return err
	}
	data := o.data + `,context="` + context + `"`
	if len(data) > maxMountData {
		return nil // it stays as it is: the container cannot write to its root
	}
	if err := unix.Unmount(root, 0); err != nil {
		return &os.PathError{Op: "unmount", Path: root, Err: err}
	}
	if err := unix.Mount("overlay", root, "overlay", o.flags, data); err != nil {
		return errors.Join(
			fmt.Errorf("mount %s with context %s: %w", root, context, err),
			unix.Mount("overlay", root, "overlay", o.flags, o.data),
		)
	}
	return nil
}

// findOverlay looks for the topmost mount at root, and tells of it whether it is
// an overlay whose files have labels of their own.
//
// Source: proc(5), /proc/pid/mountinfo; fs/overlayfs/super.c, ovl_show_options;
// security/selinux/hooks.c, selinux_sb_show_options ("seclabel").
func findOverlay(mountinfo io.Reader, root string) (o overlay, found bool, err error) {
	sc := bufio.NewScanner(mountinfo)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 6 || unescape(f[4]) != root {
			continue
		}
		o, found = overlay{}, false
		if len(g) < 3 || g[0] != "overlay" || f[3] != "/" {
			continue
		}
		for opt := range strings.SplitSeq(f[5], ",") {
			o.flags |= mountFlags[opt]
		}
		var keep []string
		own := false
		for _, opt := range splitOptions(unescape(g[2])) {
			name, value, _ := strings.Cut(opt, "=")
			switch name {
			case "rw", "ro":
				o.flags |= mountFlags[opt]
				continue
			case "seclabel":
				own = true
				continue
			case "lowerdir":
				// Relative ones are relative to a folder that only its mounter knows.
				own = own && strings.HasPrefix(value, "/")
			}
			keep = append(keep, opt)
		}
		o.data, found = strings.Join(keep, ","), own
	}
	return o, found, sc.Err()
}

// mountFlags are the options of a mount that are flags of mount(2).
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

// splitOptions splits at commas that no backslash precedes.
func splitOptions(s string) []string {
	var out []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ',':
			out, start = append(out, s[start:i]), i+1
		}
	}
	return append(out, s[start:])
}

// unescape undoes what the kernel writes for blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
