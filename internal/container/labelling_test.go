// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/launch"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/vmtest"
	policy "github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/selinux/relabel"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

func TestLabellingOf(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		options string
		seLinux bool
		want    labelling
	}{
		{"rw", true, labelNone},
		{"Z", true, labelPrivate},
		{"z", true, labelShared},
		{"Z,ro", true, labelPrivate},
		{"mount", true, labelNone},
		{"mount,Z", true, labelMount},
		{"z,mount", true, labelMount},
		{"Z", false, labelNone},
		{"mount,Z", false, labelNone},
	} {
		v, err := parseVolume(dir + ":/data:" + c.options)
		if err != nil {
			t.Fatal(err)
		}
		if got := labellingOf(v, c.seLinux); got != c.want {
			t.Errorf("%s, SELinux %v: %v, want %v", c.options, c.seLinux, got, c.want)
		}
	}
}

func TestFileSystem(t *testing.T) {
	write := func(size int64, offset int64, magic string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(magic), offset); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for _, c := range []struct {
		offset      int64
		magic, kind string
	}{{0x438, "\x53\xef", "ext4"}, {0, "hsqs", "squashfs"}, {0, "\x7fELF", ""}} {
		if kind, _ := fileSystem(write(1<<20, c.offset, c.magic)); kind != c.kind {
			t.Errorf("%q: %q, want %q", c.magic, kind, c.kind)
		}
	}
	if kind, _ := fileSystem(write(3, 0, "abc")); kind != "" {
		t.Errorf("three bytes are %q", kind)
	}
	// A tool's own images.
	mke2fs := oracle.Tool(t, "mke2fs", "apt: e2fsprogs")
	image := filepath.Join(t.TempDir(), "ext4")
	if out, err := exec.Command(mke2fs, "-q", "-t", "ext4", image, "4M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kind, fixed := fileSystem(f); kind != "ext4" || fixed {
		t.Errorf("mke2fs made %q", kind)
	}
	v := volume{src: "/dev/null"}
	if err := mountFileSystem(&v, t.TempDir()+"/x", ""); !errors.Is(err, errNoFileSystem) {
		t.Errorf("/dev/null: %v", err)
	}
}

// TestKernelContextMounts has an enforcing kernel show one label for all of a
// root and of a volume that is a device or an image, without a file being
// labelled: the container may use them, another may not. And it shows why a
// folder of a mounted file system cannot be labelled so.
func TestKernelContextMounts(t *testing.T) {
	c := vmtest.Config{LSM: "selinux", Modules: []string{"overlay", "loop"}}
	if !vmtest.InGuest() {
		mke2fs := oracle.Tool(t, "mke2fs", "apt: e2fsprogs")
		disk := filepath.Join(t.TempDir(), "disk")
		if out, err := exec.Command(mke2fs, "-q", "-t", "ext4", disk, "16M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c.Disk = disk
		c.Files = []vmtest.File{
			{Guest: "/policy", Host: debian.Policy(t, "default", map[string][]byte{policy.Name: policy.Module()}).Policy},
			{Guest: "/busybox", Host: oracle.Tool(t, "busybox", "apt: busybox-static")},
			{Guest: "/image", Host: disk},
		}
	}
	vmtest.Run(t, c, func(t *testing.T) {
		g := newGuest(t)
		const label = "system_u:object_r:container_file_t:s0:c1,c2"
		const other = "system_u:object_r:container_file_t:s0:c3,c4"

		// The root: an overlay with a label of its own.
		g.mkdir("/host/lower")
		g.write("/host/lower/file", "content")
		g.label("/host/lower/file", "system_u:object_r:etc_t:s0")
		root := "/host/root"
		g.must(mountRoot(rootSource{lower: []string{"/host/lower"}}, root, "/host/scratch", label))
		g.isolated(root+"/file", label, "system_u:object_r:etc_t:s0", "/host/lower/file")

		// What an engine has mounted with a label of its own (all containers that it
		// runs without one get the same): it cannot be changed in place; a second view on
		// top of it has the label, and keeps what is written away from the engine; only
		// the same layers mounted anew have both.
		g.mkdir("/host/engine")
		for _, d := range []string{"upper", "work", "upper2", "work2", "merged", "view"} {
			g.mkdir("/host/engine/" + d)
		}
		engines := "system_u:object_r:container_file_t:s0:c1022,c1023"
		g.overlay("/host/lower", "/host/engine/upper", "/host/engine/work", "/host/engine/merged", engines)
		if err := unix.Mount("", "/host/engine/merged", "", unix.MS_REMOUNT, mountOption(label)); err == nil && g.get("/host/engine/merged/file") == label {
			t.Error("the label of a mounted overlay can be changed")
		}
		g.overlay("/host/engine/merged", "/host/engine/upper2", "/host/engine/work2", "/host/engine/view", label)
		g.isolated("/host/engine/view/file", label, engines, "/host/engine/merged/file")
		g.write("/host/engine/view/new", "")
		if _, err := os.Stat("/host/engine/merged/new"); err == nil {
			t.Error("what is written through a view reaches the engine: roots can be given labels of their own")
		}
		g.must(unix.Unmount("/host/engine/view", 0))
		g.must(unix.Unmount("/host/engine/merged", 0))
		g.overlay("/host/lower", "/host/engine/upper", "/host/engine/work", "/host/engine/merged", label)
		g.isolated("/host/engine/merged/file", label, "system_u:object_r:etc_t:s0", "/host/lower/file")

		// A device, and an image, each mounted for one container.
		device := volume{src: "/dev/vda"}
		g.must(mountFileSystem(&device, "/host/device", label))
		g.write("/host/device/file", "content")
		g.isolated("/host/device/file", label, "", "")
		image := volume{src: "/image"}
		g.must(mountFileSystem(&image, "/host/image", label))
		g.write("/host/image/file", "content")
		g.isolated("/host/image/file", label, "", "")

		// An image has one user at a time; a device one label at a time.
		again := volume{src: "/image"}
		if err := mountFileSystem(&again, "/host/again", other); err == nil || !strings.Contains(err.Error(), "another container") {
			t.Errorf("an image mounted twice: %v", err)
		}
		if err := mountFileSystem(&device, "/host/again", other); err == nil || !strings.Contains(err.Error(), "one label in all places") {
			t.Errorf("a device mounted with two labels: %v", err)
		}
		// The label stays away from the disk, so that nothing has to drain.
		g.must(unix.Unmount("/host/image", 0))
		plain := volume{src: "/image"}
		g.must(mountFileSystem(&plain, "/host/plain", ""))
		if got := g.get("/host/plain/file"); got == label {
			t.Errorf("the label was written to the image")
		}

		// A folder of a mounted file system: a bind takes no label, neither when it is
		// made nor when it is changed.
		g.mkdir("/host/plain/folder")
		g.mkdir("/host/bind")
		g.must(unix.Mount("/host/plain/folder", "/host/bind", "", unix.MS_BIND, mountOption(label)))
		if got := g.get("/host/bind"); got == label {
			t.Errorf("a bind has the label %s: volumes need not be relabelled any more", got)
		}
		if err := unix.Mount("", "/host/bind", "", unix.MS_BIND|unix.MS_REMOUNT, mountOption(label)); err == nil && g.get("/host/bind") == label {
			t.Error("a bind can be given a label afterwards: volumes need not be relabelled any more")
		}
		if err := unix.Mount("", "/host/plain", "", unix.MS_REMOUNT, mountOption(label)); err == nil && g.get("/host/plain") == label {
			t.Error("a file system can be given a label afterwards")
		}
	})
}

// kernelGuest is a kernel with the container policy.
type kernelGuest struct{ *testing.T }

func newGuest(t *testing.T) kernelGuest {
	g := kernelGuest{t}
	b, err := os.ReadFile("/policy")
	g.must(err)
	g.must(os.WriteFile("/sys/fs/selinux/load", b, 0))
	// A file system of its own: the initial one has no type that files go with.
	g.mkdir("/host")
	g.must(unix.Mount("tmpfs", "/host", "tmpfs", 0, "mode=0755"))
	g.label("/host", "system_u:object_r:root_t:s0")
	b, err = os.ReadFile("/busybox")
	g.must(err)
	g.must(os.WriteFile("/host/busybox", b, 0o755))
	g.label("/host/busybox", "system_u:object_r:container_ro_file_t:s0")
	return g
}

func (g kernelGuest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g kernelGuest) mkdir(path string) { g.must(os.Mkdir(path, 0o755)) }

func (g kernelGuest) write(path, text string) { g.must(os.WriteFile(path, []byte(text), 0o644)) }

func (g kernelGuest) label(path, context string) {
	g.must(unix.Setxattr(path, "security.selinux", append([]byte(context), 0), 0))
}

// overlay mounts one as engines do.
func (g kernelGuest) overlay(lower, upper, work, at, label string) {
	g.Helper()
	g.must(unix.Mount("overlay", at, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work+","+mountOption(label)))
}

func (g kernelGuest) get(path string) string {
	b := make([]byte, 4096)
	n, err := unix.Getxattr(path, "security.selinux", b)
	g.must(err)
	return strings.TrimRight(string(b[:n]), "\x00")
}

// isolated wants a file to show a label, and a container of that level to be able
// to read it and one of another level not to. What is below keeps its own.
func (g kernelGuest) isolated(path, label, below, belowPath string) {
	g.Helper()
	if got := g.get(path); got != label {
		g.Errorf("%s has %s, want %s", path, got, label)
	}
	if belowPath != "" {
		if got := g.get(belowPath); got != below {
			g.Errorf("%s has %s, want %s", belowPath, got, below)
		}
	}
	if out, err := g.as("s0:c1,c2", "cat", path); err != nil || out != "content" {
		g.Errorf("its own container reads %s: %q, %v", path, out, err)
	}
	if out, err := g.as("s0:c3,c4", "cat", path); err == nil || !strings.Contains(out, "Permission denied") {
		g.Errorf("another container reads %s: %q, %v", path, out, err)
	}
}

// as runs an applet as a container of that level, as an engine does, with the
// policy enforced.
func (g kernelGuest) as(level string, args ...string) (string, error) {
	// A label is set with one write: echo's newline would be another, and unset it.
	// The pipe is the engine's; a container may write to no other's.
	script := fmt.Sprintf(`echo 1 >/sys/fs/selinux/enforce
out=$(printf %%s system_u:system_r:container_t:%s >/proc/self/attr/exec && exec /host/busybox %s 2>&1)
code=$?; echo 0 >/sys/fs/selinux/enforce; printf %%s "$out"; exit $code`, level, strings.Join(args, " "))
	cmd := exec.Command("/busybox", "sh", "-c", "printf %s system_u:system_r:initrc_t:s0-s0:c0.c1023 >/proc/self/attr/exec && exec /busybox sh -c '"+script+"'")
	cmd.Dir = "/host"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestVolumeHasOneHolder labels a volume for two containers: the second is told
// who has it, whether it wants it for itself or for all, until the first is gone.
func TestVolumeHasOneHolder(t *testing.T) {
	oracle.Root(t, "labels are set by root")
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.MkdirTemp("/var/tmp", "palisade-volume")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(src)
	if err := os.WriteFile(filepath.Join(src, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	registry := &svirt.Registry{Store: &svirt.Memory{}}
	start := func(id string) labelled {
		c, err := dir.Create(state.Record{ID: id, Engine: gc.EnginePalisade})
		if err != nil {
			t.Fatal(err)
		}
		rec, err := registry.Reserve(svirt.Claim{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		file := "system_u:object_r:container_file_t:"
		return labelled{
			&run{registry: registry, host: &launch.Host{Target: target.Target{SELinux: target.SELinux{State: target.Enforcing, Mode: "enforcing", FileContext: file + "s0"}}}},
			c, &bundle.Plan{Confinement: bundle.Confinement{MountLabel: file + rec.Level}},
		}
	}
	has := func(name, want string) {
		t.Helper()
		if got := (kernelGuest{t}).get(filepath.Join(src, name)); got != want {
			t.Errorf("%q has %s, want %s", name, got, want)
		}
	}
	a, b := start("a"), start("b")
	v := volume{src: src}
	if err := a.run.relabel(a.c, a.plan, v, labelPrivate); err != nil {
		t.Fatal(err)
	}
	has("", a.plan.MountLabel)
	has("file", a.plan.MountLabel)
	for _, how := range []labelling{labelPrivate, labelShared} {
		if err := b.run.relabel(b.c, b.plan, v, how); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), "label of a,") {
			t.Errorf("a live container's volume: %v", err)
		}
	}
	has("file", a.plan.MountLabel)
	if err := gc.Forget(registry, a.c); err != nil {
		t.Fatal(err)
	}
	if list, err := registry.List(); err != nil || list[0].State != svirt.Draining || len(list[0].Content) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := b.run.relabel(b.c, b.plan, v, labelPrivate); err != nil {
		t.Fatal(err)
	}
	has("file", b.plan.MountLabel)
	file := volume{src: filepath.Join(src, "file")}
	if err := b.run.relabel(b.c, b.plan, file, labelShared); err != nil {
		t.Fatal(err)
	}
	has("file", b.run.host.Target.SELinux.FileContext)
	if err := b.run.relabel(b.c, b.plan, volume{src: "/etc/passwd"}, labelPrivate); !errors.Is(err, relabel.ErrSystemPath) {
		t.Errorf("/etc/passwd: %v", err)
	}
}

// labelled is a container that labels its volumes.
type labelled struct {
	run  *run
	c    *state.Container
	plan *bundle.Plan
}
