// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// guestTree is the root of the programs in the guest. It is a mount of its own, so
// that libvirt's controller can pivot away from it.
const guestTree = "/tree"

// guestPrograms are palisade's own, libvirt with its libraries, and busybox.
func guestPrograms(t *testing.T) []vmtest.File {
	files := vmtest.Commands(t, guestTree, "palisade", "palisade-lxc")
	libvirtd, virsh := oracle.Tool(t, "libvirtd", "apt: libvirt-daemon"), oracle.Tool(t, "virsh", "apt: libvirt-clients")
	drivers, err := filepath.Glob("/usr/lib/*/libvirt/connection-driver/libvirt_driver_lxc.so")
	if err != nil || len(drivers) == 0 {
		oracle.Missing(t, "libvirt's LXC driver (apt: libvirt-daemon-driver-lxc)")
	}
	loaded := []string{libvirtd, virsh, libvirtController(t), drivers[0]}
	for _, p := range loaded {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, vmtest.File{Guest: guestTree + p, Host: real})
	}
	files = append(files, vmtest.Libraries(t, guestTree, loaded...)...)
	busybox := oracle.Tool(t, "busybox", "apt: busybox-static")
	for _, name := range []string{"/bin/sh", "/box/bin/sh", "/box/bin/sleep"} {
		files = append(files, vmtest.File{Guest: guestTree + name, Host: busybox})
	}
	return append(files,
		vmtest.File{Guest: guestTree + "/etc/passwd", Data: []byte("root:x:0:0::/root:/bin/sh\n")},
		vmtest.File{Guest: guestTree + "/etc/group", Data: []byte("root:x:0:\nlibvirt:x:120:\n")},
		vmtest.File{Guest: guestTree + "/etc/libvirt/libvirtd.conf", Data: []byte("auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n")},
	)
}

// TestKernelLibvirtProfiles starts domains in a kernel that enforces AppArmor: each
// has its own profile, as long as it lives and no longer.
func TestKernelLibvirtProfiles(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() && !testing.Short() {
		files = guestPrograms(t)
	}
	vmtest.Run(t, vmtest.Config{LSM: "apparmor", Files: files, Modules: []string{"fuse"}, MemoryMiB: 2048}, func(t *testing.T) {
		enterTree(t)
		t.Setenv("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/bin")
		run := func(name string, args ...string) (string, error) {
			out, err := exec.Command(name, args...).CombinedOutput()
			return string(out), err
		}
		virsh := func(args ...string) (string, error) {
			return run("virsh", append([]string{"-q", "-c", "lxc:///system"}, args...)...)
		}
		work := t.TempDir()
		daemon := exec.Command("libvirtd")
		log, err := os.Create(filepath.Join(work, "libvirtd.log"))
		if err != nil {
			t.Fatal(err)
		}
		daemon.Stdout, daemon.Stderr = log, log
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = daemon.Process.Kill()
			_ = daemon.Wait()
			if b, _ := os.ReadFile(log.Name()); t.Failed() {
				t.Logf("libvirtd:\n%s", b)
			}
		}()
		await.Until(t, "libvirtd answers", func() (bool, error) {
			_, err := virsh("version")
			return err == nil, nil
		})
		var kernel securityfs.FS
		own := func() []string {
			list, err := kernel.Profiles()
			if err != nil {
				t.Fatal(err)
			}
			out := []string{}
			for _, p := range list {
				if strings.HasPrefix(p.Name, "palisade-") || p.Name == "docker-default" {
					out = append(out, p.Name+" "+p.Mode)
				}
			}
			slices.Sort(out)
			return out
		}
		for _, name := range []string{"web", "db"} {
			xml := fmt.Sprintf("<domain type='lxc'><name>%s</name><memory>65536</memory><os><type>exe</type><init>/bin/sleep</init><initarg>1000000</initarg></os>"+
				"<features><privnet/></features><devices><emulator>/usr/local/bin/palisade-lxc</emulator>"+
				"<filesystem type='mount'><source dir='/box'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>", name)
			file := filepath.Join(work, name+".xml")
			if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := virsh("create", file); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := run("palisade", "inspect", "lxc-"+name); err != nil || !strings.Contains(out, "palisade-lxc-"+name) {
				t.Errorf("inspect: %v: %s", err, out)
			}
		}
		if got, want := own(), []string{"palisade-lxc-db enforce", "palisade-lxc-web enforce"}; !slices.Equal(got, want) {
			t.Errorf("loaded are %q, want %q", got, want)
		}
		labels := map[string]int{}
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if b, _ := os.ReadFile(f); string(b) == "/bin/sleep\x001000000\x00" {
				b, err := os.ReadFile(filepath.Join(filepath.Dir(f), "attr/apparmor/current"))
				if err != nil {
					t.Error(err)
				}
				labels[strings.TrimSpace(string(b))]++
			}
		}
		if labels["palisade-lxc-web (enforce)"] != 1 || labels["palisade-lxc-db (enforce)"] != 1 || len(labels) != 2 {
			t.Errorf("the first commands have %v", labels)
		}
		for _, name := range []string{"web", "db"} {
			if out, err := virsh("destroy", name); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		await.True(t, "the profiles are unloaded", func() bool { return len(own()) == 0 })
	})
}

// enterTree makes the tree the root, as on a host that has left its initramfs.
func enterTree(t *testing.T) {
	t.Helper()
	vmtest.EnterTree(t, guestTree, "/var/lib", "/var/log", "/var/cache", "/root", "/box/proc", "/box/dev", "/box/sys", "/box/tmp", "/box/etc")
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +cpuset +io +memory +pids"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Symlink("/run", "/var/run")
}
