// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// guestPackages are what the guest's Debian has beside the base, as its archive
// brings them, unmodified.
var guestPackages = []string{
	"runc", "crun", "docker.io", "containerd", "podman", "conmon",
	"libvirt-daemon", "libvirt-daemon-driver-lxc", "libvirt-clients",
	"kmod", "iproute2", "busybox-static",
}

// noServices keeps maintainer scripts from starting anything in the folder that
// becomes the guest's root.
const noServices = "#!/bin/sh\nexit 101\n"

// guestRoot is the folder with the guest's Debian: kept by the list of packages,
// made anew in minutes.
func guestRoot(t *testing.T, cache string) string {
	t.Helper()
	debootstrap := oracle.Tool(t, "debootstrap", "apt: debootstrap")
	sum := sha256.Sum256([]byte(fmt.Sprint(guestPackages)))
	root := filepath.Join(cache, "root-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(root); err == nil {
		return root
	}
	tmp := root + ".tmp"
	must(t, os.RemoveAll(tmp))
	command(t, debootstrap, "--variant=minbase", "bookworm", tmp)
	must(t, os.WriteFile(filepath.Join(tmp, "usr/sbin/policy-rc.d"), []byte(noServices), 0o755))
	cmd := exec.Command("chroot", append([]string{tmp, "apt-get", "install", "-q", "-y", "--no-install-recommends"}, guestPackages...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install into the guest: %v\n%.4000s", err, out[max(0, len(out)-4000):])
	}
	// libvirtd's drivers want the users that the package of its systemd units makes.
	command(t, "chroot", tmp, "useradd", "--system", "libvirt-qemu")
	must(t, os.RemoveAll(filepath.Join(tmp, "var/cache/apt")))
	must(t, os.Rename(tmp, root))
	return root
}

// engineDisk is a Debian with the engines and Palisade, labelled by its own file
// contexts, as an ext4 image. It is kept by what it was made from.
func engineDisk(t *testing.T) string {
	t.Helper()
	cache := oracle.CacheDir(t, "engines")
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	t.Cleanup(func() { lock.Close() }) // held while the guest uses the image
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))

	setfiles := oracle.Tool(t, "setfiles", "apt: policycoreutils")
	mkfs := oracle.Tool(t, "mkfs.ext4", "apt: e2fsprogs")
	root := guestRoot(t, cache)
	programs := filepath.Join(root, "usr", "local", "bin")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", programs+"/", "./cmd/...")
	build.Dir, build.Env = oracle.ModuleRoot(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := debian.Policy(t, "default", map[string][]byte{Name: Module()})
	h := sha256.New()
	names, err := filepath.Glob(programs + "/palisade*")
	must(t, err)
	for _, name := range append(names, b.Policy, b.FileContexts) {
		f, err := os.Open(name)
		must(t, err)
		_, err = io.Copy(h, f)
		f.Close()
		must(t, err)
	}
	fmt.Fprint(h, root, layout)
	disk := filepath.Join(cache, "disk-"+hex.EncodeToString(h.Sum(nil)[:10])+".img")
	if _, err := os.Stat(disk); err == nil {
		return disk
	}
	old, err := filepath.Glob(filepath.Join(cache, "disk-*"))
	must(t, err)
	for _, name := range old {
		must(t, os.Remove(name))
	}

	tree := filepath.Join(root, "etc", "selinux")
	must(t, os.RemoveAll(tree))
	must(t, os.MkdirAll(filepath.Join(tree, "default", "policy"), 0o755))
	command(t, "cp", "-a", filepath.Join(debian.PolicyTree(t, "default"), "contexts"), filepath.Join(tree, "default"))
	command(t, "cp", b.Policy, filepath.Join(tree, "default", "policy", "policy.33"))
	command(t, "cp", b.FileContexts, filepath.Join(tree, "default", "contexts", "files", "file_contexts"))
	must(t, os.WriteFile(filepath.Join(tree, "config"), []byte("SELINUX=enforcing\nSELINUXTYPE=default\n"), 0o644))
	for _, dir := range layout.dirs {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	command(t, "cp", filepath.Join(root, "bin", "busybox"), filepath.Join(root, "srv", "box", "bin", "busybox"))
	for _, applet := range layout.applets {
		link := filepath.Join(root, "srv", "box", "bin", applet)
		_ = os.Remove(link)
		must(t, os.Symlink("busybox", link))
	}
	if out, err := exec.Command(setfiles, "-F", "-r", root, filepath.Join(tree, "default", "contexts", "files", "file_contexts"), root).CombinedOutput(); err != nil {
		t.Logf("setfiles: %v\n%.2000s", err, bytes.TrimSpace(out))
	}
	f, err := os.Create(disk + ".tmp")
	must(t, err)
	must(t, f.Truncate(4<<30))
	must(t, f.Close())
	command(t, mkfs, "-q", "-d", root, disk+".tmp")
	must(t, os.Rename(disk+".tmp", disk))
	return disk
}

// layout is what the disk has for the tests: a root for containers, and places
// for volumes.
var layout = struct{ dirs, applets []string }{
	[]string{"srv/vol/shared", "srv/lxc", "srv/box/bin", "srv/box/proc", "srv/box/dev", "srv/box/sys", "srv/box/etc", "srv/box/data", "srv/box/shared", "srv/box/theirs", "srv/box/tmp"},
	[]string{"sh", "cat", "sleep", "touch", "ls", "echo", "kill", "id", "true", "rm"},
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%.4000s", name, err, out)
	}
}
