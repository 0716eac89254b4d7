// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

// hostileNames are names of folders and of sources that look like something else in
// a mount table.
var hostileNames = []string{
	"plain", "a b", "tab\tbed", "line\nbreak", `back\slash`, `\040`, `\134040`, `\12`, `\777`, `end\`, "a - b", "- tmpfs x rw",
	"x rw - cgroup2 cgroup2 rw\n1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "#hash", "cr\r", "\x01\x7f", "\xff\xfe", "ü", ",ro,", strings.Repeat("n", 255),
}

// TestKernelMountNames mounts file systems under hostile names, and wants each of
// them back as it was, and no other.
func TestKernelMountNames(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("nothing can be mounted: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	before, err := mountinfo.GetMounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range append(hostileNames, "") {
		point := filepath.Join(dir, fmt.Sprint(i), name)
		if err := os.MkdirAll(point, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(name, point, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		r := &reader{root: "/", live: true}
		got, err := r.mounts(mountinfo.SingleEntryFilter(point))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if len(got) != 1 || got[0].Mountpoint != point || got[0].Source != name || got[0].FSType != "tmpfs" || got[0].Root != "/" {
			t.Errorf("%q is read as %+v", name, got)
		}
	}
	after, err := mountinfo.GetMounts(nil)
	if err != nil || len(after) != len(before)+len(hostileNames)+1 {
		t.Errorf("%d mounts became %d (%v)", len(before), len(after), err)
	}
	if got := (&reader{root: "/", live: true}).cgroup(); got.Mode != Read(context.Background(), Options{Quick: true}).Cgroup.Mode {
		t.Errorf("control groups: %+v", got)
	}
}

// escape is what the kernel does to names in a mount table.
//
// Source: fs/proc_namespace.c, mangle; fs/seq_file.c, seq_path.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`, "#", `\043`).Replace(s)
}

func TestRecordedMounts(t *testing.T) {
	line := func(point, fstype string) string {
		return "30 22 0:26 / " + point + " rw,nosuid shared:7 - " + fstype + " none rw\n"
	}
	var hostile strings.Builder
	for _, name := range hostileNames {
		hostile.WriteString(line("/x/"+escape(name), "tmpfs"))
	}
	long := line("/"+strings.Repeat("n", 70000), "tmpfs")
	for _, tt := range []struct {
		name, table string
		mode        string
		state       target.State
	}{
		{"version 2", line("/sys/fs/cgroup", "cgroup2"), "v2", target.Enforcing},
		{"version 2 at a hostile place", line("/a"+escape(" - b"), "cgroup2"), "v2", target.Enforcing},
		{"hybrid", line("/c", "cgroup") + line("/u", "cgroup2"), "hybrid", target.Enforcing},
		{"names that look like one", hostile.String(), "", target.Absent},
		{"names that look like one, and one", hostile.String() + line("/c", "cgroup"), "v1", target.Enforcing},
		{"empty", "", "", target.Absent},
		{"a line that is too long", line("/c", "cgroup2") + long, "", target.StateUnknown},
		{"a line that is too short", line("/c", "cgroup2") + "30 22 0:26 / /\n", "", target.StateUnknown},
		{"no separator", "30 22 0:26 / / rw shared:1 x tmpfs none rw\n", "", target.StateUnknown},
		{"no device", "30 22 0 / / rw - tmpfs none rw\n", "", target.StateUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, "/proc/self"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "/proc/self/mountinfo"), []byte(tt.table), 0o644); err != nil {
				t.Fatal(err)
			}
			got := newReader(Options{Root: root}).cgroup()
			if got.Mode != tt.mode || got.State != tt.state || (tt.state == target.StateUnknown) != (len(got.Unknown) > 0 && got.Mode == "") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// FuzzMounts checks the bounds of the library that reads mount tables.
func FuzzMounts(f *testing.F) {
	f.Add([]byte("30 22 0:26 /a\\040b /with\\040space rw - tmpfs tmpfs ro,size=4k\n"))
	f.Add([]byte("30 22 0:26 / /sys/fs/cgroup rw shared:1 master:2 - cgroup2 - rw\n"))
	f.Add([]byte("a b c:d \\1 \\18 \\ - - - -\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
		if err != nil {
			return
		}
		size := 0
		for _, m := range table {
			size += len(m.Root) + len(m.Mountpoint) + len(m.Options) + len(m.Optional) + len(m.FSType) + len(m.Source) + len(m.VFSOptions)
		}
		if size > len(text) || len(table) > bytes.Count(text, []byte("\n"))+1 {
			t.Fatalf("%d mounts of %d bytes from %d", len(table), size, len(text))
		}
	})
}
