// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/svirt/libvirt"
)

// testRoot is a folder that can be a container's root, with a state folder and data
// beside it.
func testRoot(t *testing.T) (work, rootfs, stateDir string) {
	t.Helper()
	work, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rootfs, stateDir = filepath.Join(work, "root"), filepath.Join(work, "outer/state")
	for _, dir := range []string{rootfs + "/proc", rootfs + "/dev", rootfs + "/tmp", stateDir + "/containers", work + "/data"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for target, link := range map[string]string{
		"/proc/self": rootfs + "/tmp/self", "../proc": rootfs + "/tmp/up", "/": rootfs + "/tmp/top", "/dev": rootfs + "/devices",
		stateDir: work + "/to-state", "/proc/keys": work + "/data/keys", "/sys": work + "/to-sys",
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	return work, rootfs, stateDir
}

func TestCheckFilesystems(t *testing.T) {
	work, rootfs, stateDir := testRoot(t)
	for name, c := range map[string]struct {
		fs   libvirt.Filesystem
		want error
	}{
		"data":                      {libvirt.Filesystem{Type: typeMount, Source: work + "/data", Target: "/data"}, nil},
		"in memory":                 {libvirt.Filesystem{Type: typeRAM, Target: "/tmp"}, nil},
		"in a file":                 {libvirt.Filesystem{Type: typeFile, Source: work + "/image", Target: "/data"}, nil},
		"shared memory":             {libvirt.Filesystem{Type: typeRAM, Target: "/dev/shm"}, nil},
		"a part of /sys":            {libvirt.Filesystem{Type: typeRAM, Target: "/sys/fs/cgroup"}, nil},
		"of the container":          {libvirt.Filesystem{Type: typeBind, Source: "/data", Target: "/more"}, nil},
		"over /proc":                {libvirt.Filesystem{Type: typeMount, Source: work + "/data", Target: "/proc"}, oci.ErrNoProcfs},
		"over /proc in memory":      {libvirt.Filesystem{Type: typeRAM, Target: "//proc/."}, oci.ErrNoProcfs},
		"over /proc from the host":  {libvirt.Filesystem{Type: typeMount, Source: "/proc", Target: "/proc"}, errKernelFiles},
		"over /proc by a link":      {libvirt.Filesystem{Type: typeRAM, Target: "/tmp/up"}, oci.ErrNoProcfs},
		"below /proc":               {libvirt.Filesystem{Type: typeMount, Source: work + "/data", Target: "/proc/self/fd"}, oci.ErrBelowProc},
		"below /proc in a file":     {libvirt.Filesystem{Type: typeFile, Source: "/x", Target: "/proc/keys"}, oci.ErrBelowProc},
		"below /proc by a link":     {libvirt.Filesystem{Type: typeRAM, Target: "/tmp/self/fd"}, oci.ErrBelowProc},
		"below /proc by dots":       {libvirt.Filesystem{Type: typeRAM, Target: "/tmp/../proc/1"}, oci.ErrBelowProc},
		"over the root":             {libvirt.Filesystem{Type: typeRAM, Target: "//"}, oci.ErrOverRoot},
		"over the root by a link":   {libvirt.Filesystem{Type: typeRAM, Target: "/tmp/top"}, oci.ErrOverRoot},
		"a second root":             {libvirt.Filesystem{Type: typeRAM, Target: "/"}, oci.ErrOverRoot},
		"over /dev":                 {libvirt.Filesystem{Type: typeMount, Source: work + "/data", Target: "/dev"}, errReplaces},
		"over /dev by a link":       {libvirt.Filesystem{Type: typeRAM, Target: "/devices"}, errReplaces},
		"over the null device":      {libvirt.Filesystem{Type: typeBind, Source: "/tmp/x", Target: "/dev/null"}, errReplaces},
		"over /sys":                 {libvirt.Filesystem{Type: typeRAM, Target: "/sys/"}, errReplaces},
		"another view of /proc":     {libvirt.Filesystem{Type: typeBind, Source: "/proc", Target: "/p"}, errKernelFiles},
		"a part of /proc":           {libvirt.Filesystem{Type: typeBind, Source: "/proc/sys", Target: "/p"}, errKernelFiles},
		"another view by a link":    {libvirt.Filesystem{Type: typeBind, Source: "/tmp/up", Target: "/p"}, errKernelFiles},
		"another view of /sys":      {libvirt.Filesystem{Type: typeBind, Source: "/sys/firmware", Target: "/p"}, errKernelFiles},
		"another view of all":       {libvirt.Filesystem{Type: typeBind, Source: "/", Target: "/p"}, errKernelFiles},
		"the host's /proc":          {libvirt.Filesystem{Type: typeMount, Source: "/proc", Target: "/p"}, errKernelFiles},
		"the host's /sys by a link": {libvirt.Filesystem{Type: typeMount, Source: work + "/to-sys", Target: "/p"}, errKernelFiles},
		"the state folder":          {libvirt.Filesystem{Type: typeMount, Source: stateDir, Target: "/p"}, oci.ErrStateReach},
		"by a link":                 {libvirt.Filesystem{Type: typeMount, Source: work + "/to-state", Target: "/p"}, oci.ErrStateReach},
		"above it":                  {libvirt.Filesystem{Type: typeMount, Source: work + "/outer", Target: "/p", ReadOnly: true}, oci.ErrStateReach},
		"inside":                    {libvirt.Filesystem{Type: typeMount, Source: stateDir + "/containers", Target: "/p"}, oci.ErrStateReach},
		"missing":                   {libvirt.Filesystem{Type: typeMount, Source: work + "/nosuch", Target: "/p"}, fs.ErrNotExist},
		"a missing device":          {libvirt.Filesystem{Type: typeBlock, Source: work + "/nosuch", Target: "/p"}, fs.ErrNotExist},
		"of another type":           {libvirt.Filesystem{Type: "template", Source: "x", Target: "/p"}, errType},
	} {
		for kind, root := range map[string]libvirt.Filesystem{
			"folder": {Type: typeMount, Source: rootfs, Target: "/"},
			"image":  {Type: typeFile, Source: work + "/image", Target: "/"},
		} {
			if kind == "image" && strings.Contains(name, "by a link") && c.fs.Type != typeMount {
				continue // into an image that is not looked at
			}
			d := &libvirt.Domain{Filesystems: []libvirt.Filesystem{root, c.fs}}
			if err := checkFilesystems(d, stateDir); !errors.Is(err, c.want) || (err != nil) != (c.want != nil) {
				t.Errorf("%s, root in a %s: %v, want %v", name, kind, err, c.want)
			}
		}
	}
}

func TestCheckRoot(t *testing.T) {
	work, rootfs, stateDir := testRoot(t)
	root := func(kind, source string) *libvirt.Domain {
		return &libvirt.Domain{Filesystems: []libvirt.Filesystem{{Type: kind, Source: source, Target: "/"}}}
	}
	for _, name := range []string{"proc", "dev", "sys"} {
		linked := filepath.Join(work, "linked-"+name)
		if err := os.Mkdir(linked, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/tmp", filepath.Join(linked, name)); err != nil {
			t.Fatal(err)
		}
		if err := checkFilesystems(root(typeMount, linked), stateDir); !errors.Is(err, oci.ErrRootFolder) || !strings.Contains(err.Error(), linked) {
			t.Errorf("/%s is a link: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		domain *libvirt.Domain
		want   error
	}{
		"good":             {root(typeMount, rootfs), nil},
		"an image":         {root(typeFile, work+"/image"), nil},
		"missing":          {root(typeMount, work+"/nosuch"), fs.ErrNotExist},
		"the state folder": {root(typeMount, stateDir), oci.ErrStateReach},
		"above it":         {root(typeMount, work), oci.ErrStateReach},
		"of another type":  {root("template", "x"), errType},
	} {
		if err := checkFilesystems(c.domain, stateDir); !errors.Is(err, c.want) || (err != nil) != (c.want != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestCheckDevice refuses the device that the state folder is on, under any name.
func TestCheckDevice(t *testing.T) {
	work, _, stateDir := testRoot(t)
	var st unix.Stat_t
	if err := unix.Stat(stateDir, &st); err != nil {
		t.Fatal(err)
	}
	device := filepath.Join(work, "device")
	if err := unix.Mknod(device, unix.S_IFBLK|0o600, int(st.Dev)); err != nil {
		t.Skip("this user cannot make device nodes:", err)
	}
	other := filepath.Join(work, "other")
	if err := unix.Mknod(other, unix.S_IFBLK|0o600, int(st.Dev)+1); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]error{device: oci.ErrStateReach, other: nil} {
		for _, dir := range []string{stateDir, stateDir + "/not/yet"} {
			if err := checkDevice(libvirt.Filesystem{Type: typeBlock, Source: source, Target: "/p"}, dir); !errors.Is(err, want) || (err != nil) != (want != nil) {
				t.Errorf("%s for %s: %v", source, dir, err)
			}
		}
	}
}
