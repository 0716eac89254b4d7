// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// maxMountinfo bounds what is read of a table of mounts in bytes; the kernel allows
// 100,000 mounts in a namespace.
const maxMountinfo = 64 << 20

// table is the mounts that a process sees, by their kernel's IDs.
type table struct {
	list []*mountinfo.Info
	byID map[int]*mountinfo.Info
	// over has a mount and its mount point where another is mounted above it.
	over map[place]bool
}

type place struct {
	id    int
	point string
}

// readTable reads /proc/PID/mountinfo.
func readTable(r io.Reader) (*table, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMountinfo+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxMountinfo {
		return nil, fmt.Errorf("mountinfo: more than %d bytes", maxMountinfo)
	}
	list, err := mountinfo.GetMountsFromReader(bytes.NewReader(shorten(b)), nil)
	if err != nil {
		return nil, fmt.Errorf("mountinfo: %w", err)
	}
	t := &table{list: list, byID: make(map[int]*mountinfo.Info, len(list)), over: map[place]bool{}}
	for _, m := range list {
		if m.ID <= 0 || !strings.HasPrefix(m.Mountpoint, "/") || m.Options == "" || t.byID[m.ID] != nil {
			return nil, fmt.Errorf("mountinfo: mount %d at %.128q is not of its form", m.ID, m.Mountpoint)
		}
		t.byID[m.ID] = m
		t.over[place{m.Parent, m.Mountpoint}] = true
	}
	return t, nil
}

// shorten leaves of a file system's many options, the end of each line, only whether it
// is read-only. An overlay of many layers has more of them than the parser takes.
//
// Source: fs/proc_namespace.c, show_mountinfo: "ro" or "rw" comes first.
func shorten(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for line := range bytes.Lines(b) {
		options := bytes.LastIndexByte(line, ' ') + 1
		const few = 256
		if comma := bytes.IndexByte(line[options:], ','); comma >= 0 && len(line)-options > few {
			out = append(append(out, line[:options+comma]...), '\n')
			continue
		}
		out = append(out, line...)
	}
	return out
}

func readOnly(m *mountinfo.Info) bool {
	ro := func(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
	return ro(m.Options) || ro(m.VFSOptions)
}

// hidden reports whether another mount is at the same place, above m.
func (t *table) hidden(m *mountinfo.Info) bool { return t.over[place{m.ID, m.Mountpoint}] }

// below reports whether p is dir or inside of it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// Kinds of what is mounted, or of a descriptor.
const (
	KindFolder = "folder"
	kindFile   = "file"
	kindChar   = "character device"
	kindBlock  = "block device"
	kindLink   = "link"
	kindOther  = "other"
)

func kindOf(mode uint16) string {
	switch uint32(mode) & unix.S_IFMT {
	case unix.S_IFDIR:
		return KindFolder
	case unix.S_IFREG:
		return kindFile
	case unix.S_IFCHR:
		return kindChar
	case unix.S_IFBLK:
		return kindBlock
	case unix.S_IFLNK:
		return kindLink
	}
	return kindOther
}

// Mount is one mount that is asked for, or that is there.
type Mount struct {
	// Destination is where it was asked to be, or, of one that was not asked for,
	// where it is.
	Destination string `json:"destination"`
	// Point is the mount point, which differs from Destination where a link leads
	// there; empty when nothing is mounted at Destination.
	Point string `json:"point,omitzero"`
	// Type is that of the file system: proc, tmpfs, ext4. It is not asked for with
	// Bind.
	Type string `json:"type,omitzero"`
	// Bind reports that a file or folder of the host is asked for, the one with Dev
	// and Ino, which are those of what is mounted.
	Bind bool   `json:"bind,omitzero"`
	Dev  uint64 `json:"dev,omitzero"`
	Ino  uint64 `json:"ino,omitzero"`
	// Recursive asks for what is mounted below the file or folder, too.
	Recursive bool `json:"recursive,omitzero"`
	// ReadOnly is the mount's or its file system's.
	ReadOnly bool `json:"read_only,omitzero"`
	// Root is the part of the file system that is mounted, Kind what that is, and
	// Device the number of a device. They are not asked for.
	Root   string `json:"root,omitzero"`
	Kind   string `json:"kind,omitzero"`
	Device Device `json:"device,omitzero"`
}

// Device is the number of a device node.
type Device struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

func (m Mount) String() string {
	s := m.Type
	if m.Bind || s == "" {
		s = "device " + devString(m.Dev) + " inode " + fmt.Sprint(m.Ino)
		if m.Type != "" {
			s += " (" + m.Type + ")"
		}
	}
	if m.Root != "" && m.Root != "/" {
		s += " from " + m.Root
	}
	if m.ReadOnly {
		s += ", read-only"
	}
	return s
}

func orNothing(m *Mount) string {
	if m == nil {
		return "nothing"
	}
	return m.String()
}

func devString(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// devices are the nodes below /dev that every container has.
//
// Source: runtime specification, config-linux.md, default devices.
var devices = map[string]Device{
	"/dev/null": {1, 3}, "/dev/zero": {1, 5}, "/dev/full": {1, 7}, "/dev/random": {1, 8}, "/dev/urandom": {1, 9}, "/dev/tty": {5, 0},
}

// Major numbers of terminals.
//
// Source: include/uapi/linux/major.h.
const (
	majorTTY = 4
	majorAux = 5
	majorPTY = 136 // to 143
)

// terminal reports whether a device can be a container's console.
func (d Device) terminal() bool {
	return d.Major >= majorPTY && d.Major < majorPTY+8 || d.Major == majorTTY || d.Major == majorAux && d.Minor <= 1
}

// kernelFolders are where mounts that were not asked for are a way around confinement.
var kernelFolders = []string{"/proc", "/sys", "/dev"}

func inKernelFolder(p string) bool {
	return slices.ContainsFunc(kernelFolders, func(dir string) bool { return below(p, dir) })
}

// compareMounts lists what is mounted otherwise than asked.
func compareMounts(asked, found State) []Mismatch {
	var out []Mismatch
	add := func(what, a, e, why string) { out = append(out, Mismatch{"mounts", what + ": " + a, e, why}) }

	for _, l := range found.Links {
		add(l, "no link", "a link", "what is at the path is not what was mounted or made there")
	}
	if asked.DevicesDenied && !found.DevicesDenied {
		add("devices", "those that are named", "all", "the control group allows every device")
	}
	for _, d := range found.Devices {
		want, usual := devices[d.Destination]
		if !usual {
			// A folder of the host brings its devices along; the control group says which
			// of them can be used.
			ofHost := slices.ContainsFunc(asked.Mounts, func(a Mount) bool { return a.Bind && below(d.Destination, path.Clean(a.Destination)) })
			if asked.Others != nil && !ofHost && !slices.ContainsFunc(asked.Devices, func(a Mount) bool { return a.Destination == d.Destination && a.Device == d.Device }) {
				add(d.Destination, "nothing", fmt.Sprintf("%s %d:%d", d.Kind, d.Device.Major, d.Device.Minor), "the device was not asked for")
			}
			continue
		}
		if d.Kind != kindChar || d.Device != want {
			add(d.Destination, fmt.Sprintf("character device %d:%d", want.Major, want.Minor), d.Kind+fmt.Sprintf(" %d:%d", d.Device.Major, d.Device.Minor), "another file is in the place of a device")
		}
	}
	if asked.Root != nil {
		if r := found.Root; r == nil || r.Dev != asked.Root.Dev || r.Ino != asked.Root.Ino {
			add("/", asked.Root.String(), orNothing(r), "another folder is the root")
		}
	}
	if asked.ReadOnlyRoot && !found.ReadOnlyRoot {
		out = append(out, Mismatch{"mounts", "read-only root", "writable root", "the root can be written to"})
	}
	for _, p := range missing(asked.MaskedPaths, found.MaskedPaths) {
		out = append(out, Mismatch{"mounts", "masked " + p, "visible", "the path can be read"})
	}
	for _, p := range missing(asked.ReadOnlyPaths, found.ReadOnlyPaths) {
		out = append(out, Mismatch{"mounts", "read-only " + p, "writable", "the path can be written to"})
	}
	if asked.Mounts == nil {
		return out // whoever planned this container knows nothing of its mounts
	}
	wanted := map[string]bool{}
	for _, a := range asked.Mounts {
		wanted[path.Clean(a.Destination)] = true
		i := slices.IndexFunc(found.Mounts, func(m Mount) bool { return m.Destination == a.Destination })
		if i < 0 || found.Mounts[i].Point == "" {
			add(a.Destination, a.String(), "nothing", "nothing is mounted there")
			continue
		}
		m := found.Mounts[i]
		wanted[m.Point] = true
		switch {
		case a.Bind && (m.Dev != a.Dev || m.Ino != a.Ino):
			add(a.Destination, a.String(), Mount{Bind: true, Type: m.Type, Dev: m.Dev, Ino: m.Ino}.String(), "another file or folder is mounted there")
		case !a.Bind && !sameType(a.Type, m.Type):
			add(a.Destination, a.Type, m.Type, "another file system is mounted there")
		case !a.Bind && m.Root != "/" && !cgroup(a.Type): // a container is shown its own cgroup
			add(a.Destination, a.Type, m.String(), "a part of a file system is mounted there")
		}
		// Of version 1 the hierarchies below are read-only, and not what holds them.
		if a.ReadOnly && !m.ReadOnly && !(cgroup(a.Type) && m.Type == "tmpfs") {
			add(a.Destination, "read-only", "writable", "the mount can be written to")
		}
	}
	for _, m := range found.Mounts {
		if m.Point == "" || m.Point == "/" || !inKernelFolder(m.Point) && (asked.Others == nil || slices.Contains(asked.Others, m.Point)) {
			continue
		}
		covers := func(paths []string) bool {
			return slices.ContainsFunc(paths, func(p string) bool { return path.Clean(p) == m.Point })
		}
		switch {
		case covers(asked.MaskedPaths) || covers(asked.ReadOnlyPaths):
		case m.Point != "/proc" && below(m.Point, "/proc"):
			add(m.Point, "nothing", m.String(), "a mount in /proc hides what the kernel says there")
		case wanted[m.Point]:
		case allowedUnasked(asked, m):
		default:
			add(m.Point, "nothing", m.String(), "the mount was not asked for")
		}
	}
	return out
}

// allowedUnasked has the mounts that runtimes make on their own.
func allowedUnasked(asked State, m Mount) bool {
	if want, ok := devices[m.Point]; ok {
		return m.Kind == kindChar && m.Device == want // in a user namespace nodes are mounted
	}
	switch m.Point {
	case "/dev/console":
		return m.Kind == kindChar && m.Device.terminal()
	case "/dev/ptmx":
		return m.Kind == kindChar && m.Device == Device{5, 2}
	}
	for _, d := range asked.Devices {
		if d.Destination == m.Point {
			return m.Kind == d.Kind && m.Device == d.Device
		}
	}
	for _, a := range asked.Mounts {
		if a.Bind && a.Recursive && path.Clean(a.Destination) != "/" && below(m.Point, path.Clean(a.Destination)) {
			return true
		}
		// The hierarchies of version 1 are mounted below one file system in memory.
		if cgroup(a.Type) && below(m.Point, path.Clean(a.Destination)) {
			if cgroup(m.Type) && (m.ReadOnly || !a.ReadOnly) {
				return true
			}
		}
	}
	return false
}

func cgroup(fstype string) bool { return fstype == "cgroup" || fstype == "cgroup2" }

func sameType(asked, found string) bool {
	return asked == found || cgroup(asked) && (cgroup(found) || found == "tmpfs")
}
