// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
)

const mountinfoText = `1 0 0:1 / / ro,relatime - overlay overlay rw,lowerdir=/a
2 1 0:2 / /proc rw,nosuid - proc proc rw
3 2 0:2 /bus /proc/bus ro,nosuid shared:5 master:3 - proc proc rw
4 2 0:3 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
5 2 0:4 / /proc/acpi ro,relatime - tmpfs tmpfs ro
6 2 0:5 / /proc/odd\040name\012\134040\011\043 rw - tmpfs tm\040pfs rw
7 1 0:6 / /sys rw - sysfs sysfs ro
8 7 0:7 / /sys rw - tmpfs tmpfs rw
9 1 0:8 / /gone//deleted rw - fuse.x fuse rw
`

func TestTable(t *testing.T) {
	table, err := readTable(strings.NewReader(mountinfoText))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.list) != 9 {
		t.Fatalf("%d mounts", len(table.list))
	}
	for id, want := range map[int]struct {
		point, root, fstype string
		ro, hidden          bool
	}{
		1: {"/", "/", "overlay", true, false},
		2: {"/proc", "/", "proc", false, false},
		3: {"/proc/bus", "/bus", "proc", true, false},
		5: {"/proc/acpi", "/", "tmpfs", true, false},
		6: {"/proc/odd name\n\\040\t#", "/", "tmpfs", false, false},
		7: {"/sys", "/", "sysfs", true, true},
		8: {"/sys", "/", "tmpfs", false, false},
		9: {"/gone//deleted", "/", "fuse.x", false, false},
	} {
		m := table.byID[id]
		if m == nil || m.Mountpoint != want.point || m.Root != want.root || m.FSType != want.fstype || readOnly(m) != want.ro || table.hidden(m) != want.hidden {
			t.Errorf("%d: %+v", id, m)
		}
	}
	long := "1 0 0:1 / / rw - overlay overlay ro,lowerdir=" + strings.Repeat("/layer:", 1<<15) + "\n"
	if table, err := readTable(strings.NewReader(long)); err != nil || !readOnly(table.byID[1]) {
		t.Errorf("an overlay of many layers: %v", err)
	}
	for name, bad := range map[string]string{
		"nonsense": "nonsense\n", "no separator": "1 0 0:1 / / rw x y overlay overlay rw\n", "few": "1 0 0:1 / / rw - overlay\n",
		"no number": "x 0 0:1 / / rw - overlay overlay rw\n", "no device": "1 0 1 / / rw - overlay overlay rw\n",
		"relative": "1 0 0:1 / x rw - overlay overlay rw\n", "twice": "1 0 0:1 / / rw - a a rw\n1 0 0:1 / /x rw - a a rw\n",
		"long": "1 0 0:1 / /" + strings.Repeat("x", 1<<17) + " rw - a a rw\n",
	} {
		if table, err := readTable(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: taken for %+v", name, table.list[0])
		}
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		p, dir string
		want   bool
	}{{"/proc", "/proc", true}, {"/proc/x", "/proc", true}, {"/process", "/proc", false}, {"/", "/proc", false}, {"/x", "/", true}} {
		if below(c.p, c.dir) != c.want {
			t.Errorf("%+v", c)
		}
	}
}

const context = "u:r:t:s0:c1,c2"

func askedState() State {
	return State{
		SELinux: context, AppArmor: "docker-default", NoNewPrivileges: true,
		Seccomp:      Seccomp{Mode: SeccompFilter, Filters: 2, SHA256: []string{"aa", "bb"}},
		Capabilities: Capabilities{Bounding: caps.Docker &^ caps.Of(caps.Setgid), Effective: caps.Of(caps.Chown), Permitted: caps.Of(caps.Chown), Inheritable: caps.Of(caps.Kill), Ambient: caps.Of(caps.Kill)},
		Landlock:     &Landlock{ABI: 7, HandledFS: 3, HandledNet: 3, Scoped: 3},
		UID:          1000, GID: 1001, Groups: []uint32{1001, 5},
		Root: &Mount{Destination: "/", Bind: true, Dev: 9, Ino: 2}, ReadOnlyRoot: true,
		MaskedPaths: []string{"/proc/kcore", "/proc/acpi/"}, ReadOnlyPaths: []string{"/proc/sys"},
		Mounts: []Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/dev", Type: "tmpfs"},
			{Destination: "/sys/", Type: "sysfs", ReadOnly: true},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", ReadOnly: true},
			{Destination: "/data", Bind: true, Dev: 9, Ino: 7, ReadOnly: true},
			{Destination: "/var/run/x", Bind: true, Dev: 9, Ino: 8},
			{Destination: "/dev/host", Bind: true, Recursive: true, Dev: 9, Ino: 9},
			{Destination: "/dev/flat", Bind: true, Dev: 9, Ino: 10},
		},
		Others: []string{"/before", "/process"}, DevicesDenied: true,
		Devices: []Mount{{Destination: "/dev/fuse", Kind: kindChar, Device: Device{10, 229}}},
		FDs:     1, Namespaces: []string{"mnt", "pid"},
	}
}

// foundState is in force exactly as asked.
func foundState() State {
	s := askedState()
	s.SELinux = "u:r:t:s0:c2,c1"
	s.AppArmor = "docker-default (enforce)"
	s.Root = &Mount{Destination: "/", Point: "/", Type: "overlay", Bind: true, Dev: 9, Ino: 2, ReadOnly: true, Kind: KindFolder}
	s.MaskedPaths = []string{"/proc/acpi/", "/proc/kcore"}
	s.Mounts = []Mount{
		{Destination: "/proc", Point: "/proc", Type: "proc", Root: "/", Kind: KindFolder},
		{Destination: "/dev", Point: "/dev", Type: "tmpfs", Root: "/"},
		{Destination: "/sys/", Point: "/sys", Type: "sysfs", Root: "/", ReadOnly: true},
		{Destination: "/sys/fs/cgroup", Point: "/sys/fs/cgroup", Type: "cgroup2", Root: "/", ReadOnly: true},
		{Destination: "/data", Point: "/data", Type: "ext4", Root: "/srv/data", Dev: 9, Ino: 7, ReadOnly: true},
		{Destination: "/var/run/x", Point: "/run/x", Type: "ext4", Root: "/x", Dev: 9, Ino: 8},
		{Destination: "/dev/host", Point: "/dev/host", Type: "devtmpfs", Root: "/", Dev: 9, Ino: 9},
		{Destination: "/dev/flat", Point: "/dev/flat", Type: "devtmpfs", Root: "/", Dev: 9, Ino: 10},
		{Destination: "/proc/kcore", Point: "/proc/kcore", Type: "tmpfs", Root: "/null", Kind: kindChar, Device: Device{1, 3}},
		{Destination: "/proc/acpi", Point: "/proc/acpi", Type: "tmpfs", Root: "/", ReadOnly: true},
		{Destination: "/proc/sys", Point: "/proc/sys", Type: "proc", Root: "/sys", ReadOnly: true},
	}
	s.DevicesDenied = true
	s.Devices = []Mount{{Destination: "/dev/null", Kind: kindChar, Device: Device{1, 3}}, {Destination: "/dev/tty", Kind: kindChar, Device: Device{5, 0}}}
	s.FDs = 0
	return s
}

// at gives the found mount at a destination.
func (st *State) at(destination string) *Mount {
	for i := range st.Mounts {
		if st.Mounts[i].Destination == destination {
			return &st.Mounts[i]
		}
	}
	panic(destination)
}

func (st *State) mount(m Mount) { st.Mounts = append(st.Mounts, m) }

// comparisons has what is found in the place of what was asked. layer is the one that
// is reported; empty for none, which is where it is as tight or tighter.
var comparisons = []struct {
	field, name string
	found       func(*State)
	layer       string
}{
	{"SELinux", "another category", func(s *State) { s.SELinux = "u:r:t:s0:c1,c3" }, "selinux"},
	{"SELinux", "another type", func(s *State) { s.SELinux = "u:r:u:s0:c1,c2" }, "selinux"},
	{"SELinux", "a range", func(s *State) { s.SELinux = "u:r:t:s0-s0:c1,c2" }, "selinux"},
	{"SELinux", "no level", func(s *State) { s.SELinux = "u:r:t" }, "selinux"},
	{"SELinux", "none", func(s *State) { s.SELinux = "" }, "selinux"},
	{"SELinux", "no context", func(s *State) { s.SELinux = "x" }, "selinux"},
	{"SELinux", "a span", func(s *State) { s.SELinux = "u:r:t:s0:c1.c2" }, ""},
	{"SELinux", "the range of one level", func(s *State) { s.SELinux = "u:r:t:s0:c1,c2-s0:c1,c2" }, ""},
	{"Permissive", "permissive", func(s *State) { s.Permissive = true }, "selinux"},
	{"AppArmor", "none", func(s *State) { s.AppArmor = "" }, "apparmor"},
	{"AppArmor", "another", func(s *State) { s.AppArmor = "x (enforce)" }, "apparmor"},
	{"AppArmor", "complain", func(s *State) { s.AppArmor = "docker-default (complain)" }, "apparmor"},
	{"AppArmor", "mixed", func(s *State) { s.AppArmor = "docker-default (mixed)" }, "apparmor"},
	{"AppArmor", "unconfined by flag", func(s *State) { s.AppArmor = "docker-default (unconfined)" }, "apparmor"},
	{"AppArmor", "no mode", func(s *State) { s.AppArmor = "docker-default" }, "apparmor"},
	{"AppArmor", "a child", func(s *State) { s.AppArmor = "docker-default//x (enforce)" }, "apparmor"},
	{"AppArmor", "kill", func(s *State) { s.AppArmor = "docker-default (kill)" }, ""},
	{"NoNewPrivileges", "not set", func(s *State) { s.NoNewPrivileges = false }, "no_new_privileges"},
	{"Seccomp", "disabled", func(s *State) { s.Seccomp.Mode = SeccompDisabled }, "seccomp"},
	{"Seccomp", "no mode", func(s *State) { s.Seccomp.Mode = "" }, "seccomp"},
	{"Seccomp", "one missing", func(s *State) { s.Seccomp.Filters, s.Seccomp.SHA256 = 1, []string{"aa"} }, "seccomp"},
	{"Seccomp", "another", func(s *State) { s.Seccomp.SHA256 = []string{"aa", "cc"} }, "seccomp"},
	{"Seccomp", "unread", func(s *State) { s.Seccomp.SHA256 = nil }, "seccomp"},
	{"Seccomp", "uncounted, unread", func(s *State) { s.Seccomp.Filters, s.Seccomp.SHA256 = -1, nil }, "seccomp"},
	{"Seccomp", "uncounted, witnessed", func(s *State) { s.Seccomp = Seccomp{Mode: SeccompFilter, Filters: -1, Witnessed: true} }, "seccomp"},
	{"Seccomp", "uncounted, one missing", func(s *State) { s.Seccomp.Filters, s.Seccomp.SHA256 = -1, []string{"aa"} }, "seccomp"},
	{"Seccomp", "uncounted", func(s *State) { s.Seccomp.Filters = -1 }, ""},
	{"Seccomp", "unread, witnessed", func(s *State) { s.Seccomp.SHA256, s.Seccomp.Witnessed = nil, true }, ""},
	{"Seccomp", "one more", func(s *State) { s.Seccomp.Filters, s.Seccomp.SHA256 = 3, []string{"cc", "bb", "aa"} }, ""},
	{"Seccomp", "strict", func(s *State) { s.Seccomp = Seccomp{Mode: seccompStrict} }, ""},
	{"Capabilities", "bounding", func(s *State) { s.Capabilities.Bounding |= caps.Of(caps.SysAdmin) }, "capabilities"},
	{"Capabilities", "effective", func(s *State) { s.Capabilities.Effective |= caps.Of(caps.SysAdmin) }, "capabilities"},
	{"Capabilities", "permitted", func(s *State) { s.Capabilities.Permitted |= caps.Of(caps.SysAdmin) }, "capabilities"},
	{"Capabilities", "inheritable", func(s *State) { s.Capabilities.Inheritable |= caps.Of(caps.SysAdmin) }, "capabilities"},
	{"Capabilities", "ambient", func(s *State) { s.Capabilities.Ambient |= caps.Of(caps.SysAdmin) }, "capabilities"},
	{"Capabilities", "fewer", func(s *State) { s.Capabilities = Capabilities{} }, ""},
	{"Landlock", "unknown", func(s *State) { s.Landlock = nil }, "landlock"},
	{"Landlock", "files", func(s *State) { s.Landlock = &Landlock{HandledFS: 1, HandledNet: 3, Scoped: 3} }, "landlock"},
	{"Landlock", "network", func(s *State) { s.Landlock = &Landlock{HandledFS: 3, HandledNet: 1, Scoped: 3} }, "landlock"},
	{"Landlock", "scope", func(s *State) { s.Landlock = &Landlock{HandledFS: 3, HandledNet: 3, Scoped: 1} }, "landlock"},
	{"Landlock", "more", func(s *State) { s.Landlock = &Landlock{HandledFS: 7, HandledNet: 7, Scoped: 7} }, ""},
	{"UID", "root", func(s *State) { s.UID = 0 }, "user"},
	{"UID", "another", func(s *State) { s.UID = 1002 }, "user"},
	{"UID", "none", func(s *State) { s.UID = noID }, "user"},
	{"GID", "root", func(s *State) { s.GID = 0 }, "user"},
	{"Groups", "one more", func(s *State) { s.Groups = []uint32{5, 6} }, "user"},
	{"Groups", "fewer", func(s *State) { s.Groups = nil }, ""},
	{"Root", "none", func(s *State) { s.Root = nil }, "mounts"},
	{"Root", "another inode", func(s *State) { s.Root.Ino++ }, "mounts"},
	{"Root", "another device", func(s *State) { s.Root.Dev++ }, "mounts"},
	{"ReadOnlyRoot", "writable", func(s *State) { s.ReadOnlyRoot = false }, "mounts"},
	{"MaskedPaths", "one missing", func(s *State) { s.MaskedPaths = s.MaskedPaths[1:] }, "mounts"},
	{"MaskedPaths", "one more", func(s *State) { s.MaskedPaths = append(s.MaskedPaths, "/x") }, ""},
	{"ReadOnlyPaths", "none", func(s *State) { s.ReadOnlyPaths = nil }, "mounts"},
	{"Mounts", "nothing at a place", func(s *State) { s.at("/data").Point = "" }, "mounts"},
	{"Mounts", "one missing", func(s *State) { s.Mounts = slices.Delete(s.Mounts, 4, 5) }, "mounts"},
	{"Mounts", "another inode", func(s *State) { s.at("/data").Ino++ }, "mounts"},
	{"Mounts", "another device", func(s *State) { s.at("/data").Dev++ }, "mounts"},
	{"Mounts", "writable", func(s *State) { s.at("/data").ReadOnly = false }, "mounts"},
	{"Mounts", "writable sysfs", func(s *State) { s.at("/sys/").ReadOnly = false }, "mounts"},
	{"Mounts", "read-only, not asked for", func(s *State) { s.at("/dev").ReadOnly = true }, ""},
	{"Mounts", "/proc of another type", func(s *State) { s.at("/proc").Type = "tmpfs" }, "mounts"},
	{"Mounts", "/proc a part", func(s *State) { s.at("/proc").Root = "/1" }, "mounts"},
	{"Mounts", "/dev of another type", func(s *State) { s.at("/dev").Type = "devtmpfs" }, "mounts"},
	{"Mounts", "cgroups of version 1", func(s *State) {
		*s.at("/sys/fs/cgroup") = Mount{Destination: "/sys/fs/cgroup", Point: "/sys/fs/cgroup", Type: "tmpfs", Root: "/"}
		s.mount(Mount{Destination: "/sys/fs/cgroup/memory", Point: "/sys/fs/cgroup/memory", Type: "cgroup", Root: "/x", ReadOnly: true})
	}, ""},
	{"Mounts", "a writable cgroup of version 1", func(s *State) {
		*s.at("/sys/fs/cgroup") = Mount{Destination: "/sys/fs/cgroup", Point: "/sys/fs/cgroup", Type: "tmpfs", Root: "/"}
		s.mount(Mount{Destination: "/sys/fs/cgroup/memory", Point: "/sys/fs/cgroup/memory", Type: "cgroup", Root: "/x"})
	}, "mounts"},
	{"Mounts", "writable cgroups of version 2", func(s *State) { s.at("/sys/fs/cgroup").ReadOnly = false }, "mounts"},
	{"Mounts", "its own cgroup", func(s *State) { s.at("/sys/fs/cgroup").Root = "/web" }, ""},
	{"Mounts", "something else in cgroups", func(s *State) {
		s.mount(Mount{Destination: "/sys/fs/cgroup/memory", Point: "/sys/fs/cgroup/memory", Type: "ext4", Root: "/"})
	}, "mounts"},
	{"Mounts", "cgroups of another type", func(s *State) { s.at("/sys/fs/cgroup").Type = "ext4" }, "mounts"},
	{"Mounts", "over /proc/1/fd", func(s *State) { s.mount(Mount{Destination: "/proc/1/fd", Point: "/proc/1/fd", Type: "tmpfs"}) }, "mounts"},
	{"Mounts", "a device over /proc/self/x", func(s *State) {
		s.mount(Mount{Destination: "/proc/uptime", Point: "/proc/uptime", Type: "tmpfs", Kind: kindChar, Device: Device{1, 3}})
	}, "mounts"},
	{"Mounts", "in /sys", func(s *State) { s.mount(Mount{Destination: "/sys/kernel", Point: "/sys/kernel", Type: "tmpfs"}) }, "mounts"},
	{"Mounts", "in /dev", func(s *State) { s.mount(Mount{Destination: "/dev/x", Point: "/dev/x", Type: "tmpfs"}) }, "mounts"},
	{"Mounts", "below a bind that is not recursive", func(s *State) { s.mount(Mount{Destination: "/dev/flat/x", Point: "/dev/flat/x", Type: "tmpfs"}) }, "mounts"},
	{"Mounts", "below a recursive bind", func(s *State) { s.mount(Mount{Destination: "/dev/host/x", Point: "/dev/host/x", Type: "tmpfs"}) }, ""},
	{"Mounts", "where it may be", func(s *State) { s.mount(Mount{Destination: "/process", Point: "/process", Type: "tmpfs"}) }, ""},
	{"Mounts", "a node for /dev/zero", func(s *State) {
		s.mount(Mount{Destination: "/dev/zero", Point: "/dev/zero", Type: "devtmpfs", Kind: kindChar, Device: Device{1, 5}})
	}, ""},
	{"Mounts", "another for /dev/zero", func(s *State) {
		s.mount(Mount{Destination: "/dev/zero", Point: "/dev/zero", Type: "devtmpfs", Kind: kindChar, Device: Device{1, 1}})
	}, "mounts"},
	{"Mounts", "a file for /dev/zero", func(s *State) {
		s.mount(Mount{Destination: "/dev/zero", Point: "/dev/zero", Type: "ext4", Kind: kindFile, Device: Device{1, 5}})
	}, "mounts"},
	{"Mounts", "a console", func(s *State) {
		s.mount(Mount{Destination: "/dev/console", Point: "/dev/console", Type: "devpts", Kind: kindChar, Device: Device{136, 1}})
	}, ""},
	{"Mounts", "a file for a console", func(s *State) {
		s.mount(Mount{Destination: "/dev/console", Point: "/dev/console", Type: "proc", Kind: kindFile})
	}, "mounts"},
	{"Mounts", "a disk for a console", func(s *State) {
		s.mount(Mount{Destination: "/dev/console", Point: "/dev/console", Type: "devtmpfs", Kind: kindBlock, Device: Device{136, 0}})
	}, "mounts"},
	{"Mounts", "memory for a console", func(s *State) {
		s.mount(Mount{Destination: "/dev/console", Point: "/dev/console", Type: "devtmpfs", Kind: kindChar, Device: Device{1, 1}})
	}, "mounts"},
	{"Mounts", "ptmx", func(s *State) {
		s.mount(Mount{Destination: "/dev/ptmx", Point: "/dev/ptmx", Type: "devpts", Kind: kindChar, Device: Device{5, 2}})
	}, ""},
	{"Mounts", "another ptmx", func(s *State) {
		s.mount(Mount{Destination: "/dev/ptmx", Point: "/dev/ptmx", Type: "devpts", Kind: kindChar, Device: Device{5, 1}})
	}, "mounts"},
	{"Mounts", "a device that was asked for", func(s *State) {
		s.mount(Mount{Destination: "/dev/fuse", Point: "/dev/fuse", Type: "devtmpfs", Kind: kindChar, Device: Device{10, 229}})
	}, ""},
	{"Mounts", "another in its place", func(s *State) {
		s.mount(Mount{Destination: "/dev/fuse", Point: "/dev/fuse", Type: "devtmpfs", Kind: kindChar, Device: Device{10, 228}})
	}, "mounts"},
	{"Mounts", "a disk in its place", func(s *State) {
		s.mount(Mount{Destination: "/dev/fuse", Point: "/dev/fuse", Type: "devtmpfs", Kind: kindBlock, Device: Device{10, 229}})
	}, "mounts"},
	{"Devices", "a file", func(s *State) { s.Devices[0].Kind = kindFile }, "mounts"},
	{"Devices", "a link", func(s *State) { s.Devices[0] = Mount{Destination: "/dev/null", Kind: kindLink} }, "mounts"},
	{"Devices", "another", func(s *State) { s.Devices[0].Device.Minor = 1 }, "mounts"},
	{"Devices", "of another kind", func(s *State) { s.Devices[1].Device.Major = 4 }, "mounts"},
	{"DevicesDenied", "every device", func(s *State) { s.DevicesDenied = false }, "mounts"},
	{"Devices", "in a folder of the host", func(s *State) {
		s.Devices = append(s.Devices, Mount{Destination: "/dev/host/kvm", Kind: kindChar, Device: Device{10, 232}})
	}, ""},
	{"Devices", "beside a folder of the host", func(s *State) {
		s.Devices = append(s.Devices, Mount{Destination: "/dev/hosts", Kind: kindChar, Device: Device{10, 232}})
	}, "mounts"},
	{"Devices", "not asked for", func(s *State) {
		s.Devices = append(s.Devices, Mount{Destination: "/dev/kmsg", Kind: kindChar, Device: Device{1, 11}})
	}, "mounts"},
	{"Devices", "asked for", func(s *State) {
		s.Devices = append(s.Devices, Mount{Destination: "/dev/fuse", Kind: kindChar, Device: Device{10, 229}})
	}, ""},
	{"Devices", "asked for as another", func(s *State) {
		s.Devices = append(s.Devices, Mount{Destination: "/dev/fuse", Kind: kindChar, Device: Device{1, 1}})
	}, "mounts"},
	{"Mounts", "not asked for", func(s *State) {
		s.Mounts = append(s.Mounts, Mount{Destination: "/etc/x", Point: "/etc/x", Type: "ext4", Dev: 5, Ino: 5, Kind: KindFolder})
	}, "mounts"},
	{"Mounts", "it was below the root before", func(s *State) {
		s.Mounts = append(s.Mounts, Mount{Destination: "/before", Point: "/before", Type: "ext4", Dev: 5, Ino: 5, Kind: KindFolder})
	}, ""},
	{"Devices", "none", func(s *State) { s.Devices = nil }, ""},
	{"Links", "/dev", func(s *State) { s.Links = []string{"/dev"} }, "mounts"},
	{"Outside", "root", func(s *State) { s.Outside = []string{"root"} }, "root"},
	{"Outside", "working directory", func(s *State) { s.Outside = []string{"working directory"} }, "root"},
	{"Descriptors", "a folder", func(s *State) { s.Descriptors = []Descriptor{{4, KindFolder, "/"}} }, "descriptors"},
	{"Descriptors", "a file", func(s *State) { s.Descriptors = []Descriptor{{4, kindFile, "/"}} }, "descriptors"},
	{"Descriptors", "a folder as standard input", func(s *State) { s.Descriptors = []Descriptor{{0, KindFolder, "/"}} }, "descriptors"},
	{"Descriptors", "a file as standard error", func(s *State) { s.Descriptors = []Descriptor{{2, kindFile, "/"}} }, ""},
	{"Descriptors", "one that was passed", func(s *State) { s.Descriptors = []Descriptor{{3, KindFolder, "/"}} }, ""},
	{"Namespaces", "one shared", func(s *State) { s.Namespaces = []string{"pid"} }, "namespaces"},
	{"Namespaces", "one more", func(s *State) { s.Namespaces = append(s.Namespaces, "user") }, ""},
}

// notCompared are members that say what was asked and not what is found.
var notCompared = map[string]string{"FDs": "how many descriptors of Descriptors are passed on purpose", "Others": "what may be mounted without being asked for"}

func TestCompare(t *testing.T) {
	if m := Compare(askedState(), foundState()); len(m) != 0 {
		t.Errorf("as asked: %v", m)
	}
	rows := map[string]bool{}
	for _, c := range comparisons {
		rows[c.field] = rows[c.field] || c.layer != ""
		found := foundState()
		c.found(&found)
		m := Compare(askedState(), found)
		err := Check(askedState(), found)
		switch {
		case c.layer == "":
			if len(m) != 0 || err != nil {
				t.Errorf("%s, %s: %v", c.field, c.name, m)
			}
			continue
		case len(m) == 0:
			t.Errorf("%s, %s: no mismatch", c.field, c.name)
			continue
		}
		for _, m := range m {
			if m.Layer != c.layer || m.Why == "" || m.Asked == "" || m.Effective == "" || !slices.Contains(layerNames, m.Layer) {
				t.Errorf("%s, %s: %+v", c.field, c.name, m)
			}
		}
		var e *MismatchError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), m[0].Why) {
			t.Errorf("%s, %s: %v", c.field, c.name, err)
		}
		// Of a container that asks for nothing, nothing is missing but what every
		// container has.
		if m := Compare(State{}, found); len(m) != 0 && c.field != "Capabilities" && c.field != "Devices" && c.field != "Links" && c.field != "Outside" && c.field != "Descriptors" {
			if slices.ContainsFunc(m, func(m Mismatch) bool { return m.Layer != "capabilities" }) {
				t.Errorf("%s, %s: asked for nothing: %v", c.field, c.name, m)
			}
		}
	}
	for i := range reflect.TypeFor[State]().NumField() {
		f := reflect.TypeFor[State]().Field(i).Name
		if !rows[f] && notCompared[f] == "" {
			t.Errorf("no row has %s looser than asked", f)
		}
	}
}

// TestCompareRoot is about the superuser, who may become another.
func TestCompareRoot(t *testing.T) {
	asked, found := askedState(), foundState()
	asked.UID, asked.GID = 0, 0
	if m := Compare(asked, found); len(m) != 0 {
		t.Errorf("root became user 1000: %v", m)
	}
	found.Groups = []uint32{7}
	if m := Compare(asked, found); len(m) != 1 || m[0].Layer != "user" {
		t.Errorf("groups, without the capability for it: %v", m)
	}
	asked.Capabilities.Bounding |= caps.Of(caps.Setgid)
	if m := Compare(asked, found); len(m) != 0 {
		t.Errorf("groups, with the capability for it: %v", m)
	}
	asked.Groups, asked.Capabilities.Bounding = nil, found.Capabilities.Bounding
	if m := Compare(asked, found); len(m) != 0 {
		t.Errorf("groups that were not asked about: %v", m)
	}
}

// TestCompareRuntimeFilter is about a filter whose instructions the runtime makes.
func TestCompareRuntimeFilter(t *testing.T) {
	asked, found := askedState(), foundState()
	asked.Seccomp.SHA256, found.Seccomp.SHA256 = nil, nil
	if m := Compare(asked, found); len(m) != 0 {
		t.Error(m)
	}
	found.Seccomp.Filters = 1
	if m := Compare(asked, found); len(m) != 1 {
		t.Error(m)
	}
}

func TestInfer(t *testing.T) {
	asked := askedState()
	for name, c := range map[string]struct {
		found               Seccomp
		w                   Witness
		landlock, witnessed bool
	}{
		"all filters":            {Seccomp{Mode: SeccompFilter, Filters: 2, SHA256: []string{"bb", "aa"}}, Witness{}, true, false},
		"one filter":             {Seccomp{Mode: SeccompFilter, Filters: 2, SHA256: []string{"bb", "cc"}}, Witness{}, false, false},
		"no filter":              {Seccomp{Mode: SeccompFilter, Filters: 2, SHA256: []string{}}, Witness{}, false, false},
		"unread":                 {Seccomp{Mode: SeccompFilter, Filters: 2}, Witness{}, false, false},
		"unread, step":           {Seccomp{Mode: SeccompFilter, Filters: 2}, Witness{StepReached: true}, true, true},
		"unread, step, fewer":    {Seccomp{Mode: SeccompFilter, Filters: 1}, Witness{StepReached: true}, true, false},
		"unread, step, unknown":  {Seccomp{Mode: SeccompFilter, Filters: -1}, Witness{StepReached: true}, true, false},
		"unread, verified":       {Seccomp{Mode: SeccompFilter, Filters: 2}, Witness{Verified: true}, true, true},
		"disabled":               {Seccomp{Mode: SeccompDisabled}, Witness{}, false, false},
		"disabled, step reached": {Seccomp{Mode: SeccompDisabled}, Witness{StepReached: true}, true, false},
	} {
		st := State{Seccomp: c.found}
		st.infer(asked, c.w)
		if (st.Landlock != nil) != c.landlock || st.Seccomp.Witnessed != c.witnessed {
			t.Errorf("%s: landlock %v, witnessed %v", name, st.Landlock, st.Seccomp.Witnessed)
		}
	}
	// Without filters of its own there is nothing to infer from.
	asked.Seccomp = Seccomp{Mode: SeccompDisabled}
	st := State{Seccomp: Seccomp{Mode: SeccompFilter, Filters: 1, SHA256: []string{"zz"}}}
	if st.infer(asked, Witness{}); st.Landlock != nil {
		t.Error("a domain was inferred from nothing")
	}
}

func TestLayers(t *testing.T) {
	now := time.Unix(1700000000, 0).UTC()
	found := foundState()
	found.NoNewPrivileges = false
	layers := Layers(askedState(), &found, now)
	if len(layers) != len(layerNames) {
		t.Fatalf("%d layers", len(layers))
	}
	for i, l := range layers {
		if l.Layer != layerNames[i] || l.VerifiedAt == nil || !l.VerifiedAt.Equal(now) || (l.Layer == "no_new_privileges") != (len(l.Mismatches) == 1) {
			t.Errorf("%+v", l)
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		for _, member := range []string{"layer", "asked", "effective", "verified_at", "mismatches"} {
			if m[member] == nil {
				t.Errorf("%s has no %s: %s", l.Layer, member, b)
			}
		}
	}
	for _, l := range Layers(askedState(), nil, now) {
		if l.Effective != nil || l.VerifiedAt != nil || l.Mismatches == nil {
			t.Errorf("of what does not run: %+v", l)
		}
	}
}

func TestReadSelf(t *testing.T) {
	st, err := Read(os.Getpid(), State{MaskedPaths: []string{"/nowhere", "/"}, ReadOnlyPaths: []string{"/nowhere/at/all"}})
	if err != nil {
		t.Fatal(err)
	}
	if int(st.UID) != os.Geteuid() || len(st.Namespaces) != 0 || st.Seccomp.Mode == "" || st.Root == nil {
		t.Errorf("this process: %+v", st)
	}
	if d := cmp.Diff([]string{"/nowhere"}, st.MaskedPaths); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"/nowhere/at/all"}, st.ReadOnlyPaths); d != "" {
		t.Error(d)
	}
}

func TestReadGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Skip(err)
	}
	if _, err := Read(cmd.Process.Pid, State{}); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if _, _, err := Labels(cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}

// As kernels write it: 6.18, and 5.4, which does not count filters.
const (
	status618 = "Name:\tsleep\\nUid:\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t4711\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t9 10 \nNSpid:\t4711\t1\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000004\nCapBnd:\t0000000000000008\nCapAmb:\t0000000000000010\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nSpeculation_Store_Bypass:\tvulnerable\n"
	status54  = "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n"
)

func TestReadStatus(t *testing.T) {
	for text, want := range map[string]State{
		status618: {
			UID: 2, GID: 6, Groups: []uint32{9, 10}, NoNewPrivileges: true, Seccomp: Seccomp{Mode: SeccompFilter, Filters: 3},
			Capabilities: Capabilities{Inheritable: 1, Permitted: 2, Effective: 4, Bounding: 8, Ambient: 16},
		},
		status54: {Groups: []uint32{}, Seccomp: Seccomp{Mode: SeccompDisabled, Filters: -1}},
		strings.Replace(status54, "Seccomp:\t0", "Seccomp:\t1", 1): {Groups: []uint32{}, Seccomp: Seccomp{Mode: seccompStrict, Filters: -1}},
	} {
		var st State
		if err := st.readStatus([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, st); d != "" {
			t.Error(d)
		}
	}
	for _, line := range statusLines {
		i := strings.Index(status618, "\n"+line+":") + 1
		whole := status618[i : i+strings.Index(status618[i:], "\n")+1]
		for name, bad := range map[string]string{
			"absent":  strings.Replace(status618, whole, "", 1),
			"twice":   status618 + whole,
			"a word":  strings.Replace(status618, whole, line+":\tx y z w\n", 1),
			"another": strings.Replace(status618, whole, "X"+whole, 1),
		} {
			if line == "NoNewPrivs" && name == "a word" {
				continue // read as not set, the looser
			}
			if err := new(State).readStatus([]byte(bad)); err == nil {
				t.Errorf("%s %s: taken", line, name)
			}
		}
	}
	for _, bad := range []string{"", strings.Replace(status618, "Seccomp:\t2", "Seccomp:\t9", 1), strings.Replace(status618, "Seccomp:\t2", "Seccomp:\t-1", 1), strings.Replace(status618, "Seccomp_filters:\t3", "Seccomp_filters:\tx", 1)} {
		if err := new(State).readStatus([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestIDMap(t *testing.T) {
	m, err := parseIDMap([]byte("         0     100000      65536\n     70000          7          1\n"))
	if err != nil {
		t.Fatal(err)
	}
	for outside, want := range map[uint32]uint32{100000: 0, 101000: 1000, 165535: 65535, 165536: noID, 99999: noID, 0: noID, 7: 70000, 8: noID, noID: noID} {
		if got := m.inside(outside); got != want {
			t.Errorf("%d: %d, want %d", outside, got, want)
		}
	}
	identity, err := parseIDMap([]byte("0 0 4294967295\n"))
	if err != nil || identity.inside(1000) != 1000 || identity.inside(noID) != noID {
		t.Errorf("%v, %v", identity, err)
	}
	if none, err := parseIDMap(nil); err != nil || none.inside(0) != noID {
		t.Errorf("an empty map: %v, %v", none, err)
	}
	for _, bad := range []string{"0 0\n", "0 0 x\n", "0 0 -1\n", "0 0 1 1\n", "0 0 4294967296\n"} {
		if _, err := parseIDMap([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestLabels(t *testing.T) {
	for name, c := range map[string]struct {
		files              map[string]string
		wantSE, wantArmour string
	}{
		"apparmor":   {map[string]string{"attr/apparmor/current": "docker-default (enforce)\n"}, "", "docker-default (enforce)"},
		"unconfined": {map[string]string{"attr/apparmor/current": "unconfined\n"}, "", ""},
		"none":       {nil, "", ""},
		"nul":        {map[string]string{"attr/apparmor/current": "x (kill)\x00\n"}, "", "x (kill)"},
	} {
		proc := t.TempDir()
		for f, text := range c.files {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(proc, f)), 0o700), os.WriteFile(filepath.Join(proc, f), []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		se, armour, err := labels(proc)
		if err != nil || se != c.wantSE || armour != c.wantArmour {
			t.Errorf("%s: %q, %q, %v", name, se, armour, err)
		}
	}
}

func TestWithin(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	if _, err := within(time.Millisecond, func() (int, error) { <-never; return 1, nil }); !errors.Is(err, errSlow) {
		t.Errorf("got %v", err)
	}
	if v, err := within(time.Hour, func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add(mountinfoText)
	f.Add("1 0 0:1 / / rw - - - rw\n")
	f.Fuzz(func(t *testing.T, s string) {
		table, err := readTable(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, m := range table.list {
			if table.byID[m.ID] != m {
				t.Fatalf("%+v", m)
			}
			_, _, _ = readOnly(m), table.hidden(m), sameFile(table, m)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add(status618)
	f.Add(status54)
	f.Fuzz(func(t *testing.T, s string) {
		var st State
		if st.readStatus([]byte(s)) == nil && (st.Seccomp.Mode == "" || st.Groups == nil) {
			t.Fatalf("%+v", st)
		}
	})
}

func FuzzIDMap(f *testing.F) {
	f.Add("0 100000 65536\n1 7 1\n", uint32(7))
	f.Fuzz(func(t *testing.T, s string, id uint32) {
		if m, err := parseIDMap([]byte(s)); err == nil {
			_ = m.inside(id)
		}
	})
}

// FuzzCompare wants no panic, and each mismatch in a layer that is shown.
func FuzzCompare(f *testing.F) {
	for _, s := range []State{askedState(), foundState()} {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var st State
		if json.Unmarshal(b, &st) != nil {
			return
		}
		for _, m := range append(Compare(askedState(), st), Compare(st, foundState())...) {
			if !slices.Contains(layerNames, m.Layer) {
				t.Fatalf("%+v", m)
			}
		}
		_ = Layers(st, &st, time.Time{})
	})
}

func TestDeniesDevices(t *testing.T) {
	one := int64(1)
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  bool
	}{
		{nil, false},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}}, true},
		{[]specs.LinuxDeviceCgroup{{Type: "a", Access: "rwm"}, {Allow: true, Type: "c", Major: &one, Access: "rw"}}, true},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Access: "rwm"}}, false},
		{[]specs.LinuxDeviceCgroup{{Access: "m"}}, false},
		{[]specs.LinuxDeviceCgroup{{Type: "b", Access: "rwm"}}, false},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: c.rules}}}
		if got := Asked(s).DevicesDenied; got != c.want {
			t.Errorf("%+v: %v, want %v", c.rules, got, c.want)
		}
	}
}

// TestCompareGained has what the kernel gives a process when it executes its program,
// whatever its configuration says of the effective set.
func TestCompareGained(t *testing.T) {
	kill, chown := caps.Of(caps.Kill), caps.Of(caps.Chown)
	both := kill | chown
	for _, tt := range []struct {
		name             string
		uid              uint32
		nnp              bool
		asked, effective Capabilities
		less             bool
	}{
		{"permitted become effective", 0, true, Capabilities{Bounding: both, Permitted: both, Effective: kill}, Capabilities{Bounding: both, Permitted: both, Effective: both}, false},
		{"bounding with no_new_privs", 0, true, Capabilities{Bounding: both, Permitted: kill, Effective: kill}, Capabilities{Bounding: both, Permitted: both, Effective: both}, true},
		{"bounding", 0, false, Capabilities{Bounding: both, Permitted: kill, Effective: kill}, Capabilities{Bounding: both, Permitted: both, Effective: both}, false},
		{"permitted beyond bounding", 0, true, Capabilities{Bounding: kill, Permitted: both, Effective: kill}, Capabilities{Bounding: kill, Permitted: both, Effective: both}, true},
		{"inheritable", 0, false, Capabilities{Inheritable: chown}, Capabilities{Inheritable: chown, Permitted: chown, Effective: chown}, false},
		{"another user", 1, false, Capabilities{Bounding: both, Permitted: both, Effective: kill}, Capabilities{Bounding: both, Permitted: both, Effective: both}, true},
		{"ambient of another user", 1, true, Capabilities{Bounding: both, Permitted: kill, Inheritable: kill, Ambient: kill}, Capabilities{Bounding: both, Permitted: kill, Effective: kill, Inheritable: kill, Ambient: kill}, false},
		{"inheritable of another user", 1, true, Capabilities{Inheritable: kill}, Capabilities{Inheritable: kill, Effective: kill}, true},
		{"outside of all", 0, false, Capabilities{Bounding: kill}, Capabilities{Bounding: kill, Effective: both}, true},
	} {
		asked, found := askedState(), foundState()
		asked.UID, found.UID, asked.NoNewPrivileges, found.NoNewPrivileges = tt.uid, tt.uid, tt.nnp, tt.nnp
		asked.Capabilities, found.Capabilities = tt.asked, tt.effective
		less := slices.ContainsFunc(Compare(asked, found), func(m Mismatch) bool { return m.Layer == "capabilities" })
		if less != tt.less {
			t.Errorf("%s: less confined: %v", tt.name, less)
		}
	}
}

// TestAskMountsHidden wants of mounts that hide each other those that can be seen.
func TestAskMountsHidden(t *testing.T) {
	work := t.TempDir()
	at := func(dests ...string) *specs.Spec {
		s := &specs.Spec{Root: &specs.Root{Path: work}}
		for _, d := range dests {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: d, Type: "tmpfs", Source: "tmpfs"})
		}
		return s
	}
	for _, tt := range []struct{ in, want []string }{
		{[]string{"/dev", "/dev/mqueue", "/data"}, []string{"/dev", "/dev/mqueue", "/data"}},
		{[]string{"/dev", "/dev/mqueue", "/dev"}, []string{"/dev"}},
		{[]string{"/dev/mqueue", "/device", "/dev/"}, []string{"/device", "/dev/"}},
		{[]string{"/a/b", "/a", "/a/b"}, []string{"/a", "/a/b"}},
	} {
		var st State
		if err := st.AskMounts(at(tt.in...), "/"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range st.Mounts {
			got = append(got, m.Destination)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}
