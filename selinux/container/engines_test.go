// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// TestKernelEngines runs an unmodified Docker, and palisade run, of a whole
// Debian under its enforcing policy with the module. It builds that Debian first,
// which takes root and minutes, so it runs where oracles are required only
// ("make svirt-kernel").
func TestKernelEngines(t *testing.T) {
	var disk string
	if !vmtest.InGuest() {
		if !oracle.Required() {
			t.Skip("builds a whole Debian; make svirt-kernel runs it")
		}
		if os.Geteuid() != 0 {
			t.Fatal("building the guest's disk needs root")
		}
		disk = engineDisk(t)
	}
	vmtest.Run(t, vmtest.Config{LSM: "selinux", Disk: disk, MemoryMiB: 3072, Modules: []string{"overlay"}, Timeout: 30 * time.Minute}, func(t *testing.T) {
		must(t, os.Mkdir("/disk", 0o755))
		must(t, unix.Mount("/dev/vda", "/disk", "ext4", 0, ""))
		policy, err := os.ReadFile("/disk/etc/selinux/default/policy/policy.33")
		must(t, err)
		must(t, os.WriteFile("/sys/fs/selinux/load", policy, 0))
		for _, m := range []struct{ from, to, fs string }{
			{"/proc", "proc", ""}, {"/sys", "sys", ""}, {"/dev", "dev", ""}, {"tmpfs", "run", "tmpfs"}, {"tmpfs", "tmp", "tmpfs"},
		} {
			flags := uintptr(unix.MS_BIND | unix.MS_REC)
			if m.fs != "" {
				flags = 0
			}
			must(t, unix.Mount(m.from, "/disk/"+m.to, m.fs, flags, ""))
		}
		relabelDevices(t)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleEnv+"=engines")
		must(t, startAs(cmd, "system_u:system_r:initrc_t:s0"))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, denials())
		}
	})
}

// relabelDevices does what udev and systemd-tmpfiles do on a real host.
func relabelDevices(t *testing.T) {
	t.Helper()
	for path, label := range map[string]string{
		"/dev/null": "null_device_t", "/dev/zero": "zero_device_t", "/dev/random": "random_device_t", "/dev/urandom": "urandom_device_t",
		"/dev/tty": "devtty_t", "/dev/ptmx": "ptmx_t", "/disk/run": "var_run_t", "/disk/tmp": "tmp_t", "/dev/shm": "tmpfs_t", "/dev": "device_t",
	} {
		if err := unix.Setxattr(path, "security.selinux", []byte("system_u:object_r:"+label+":s0\x00"), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Logf("label %s: %v", path, err)
		}
	}
}

// engineDisk is a Debian with Docker and Palisade, labelled by its own file
// contexts, as an ext4 image.
func engineDisk(t *testing.T) string {
	t.Helper()
	cache := oracle.CacheDir(t, "engines")
	debootstrap := oracle.Tool(t, "debootstrap", "apt: debootstrap")
	setfiles := oracle.Tool(t, "setfiles", "apt: policycoreutils")
	mkfs := oracle.Tool(t, "mkfs.ext4", "apt: e2fsprogs")
	root := filepath.Join(cache, "root")
	if _, err := os.Stat(filepath.Join(root, "usr", "sbin", "dockerd")); err != nil {
		os.RemoveAll(root)
		command(t, debootstrap, "--variant=minbase", "--include=runc,docker.io,containerd,kmod,iproute2,busybox-static", "bookworm", root)
	}
	b := debian.Policy(t, "default", map[string][]byte{Name: Module()})
	tree := filepath.Join(root, "etc", "selinux")
	os.RemoveAll(tree)
	must(t, os.MkdirAll(filepath.Join(tree, "default", "policy"), 0o755))
	command(t, "cp", "-a", filepath.Join(debian.PolicyTree(t, "default"), "contexts"), filepath.Join(tree, "default"))
	command(t, "cp", b.Policy, filepath.Join(tree, "default", "policy", "policy.33"))
	command(t, "cp", b.FileContexts, filepath.Join(tree, "default", "contexts", "files", "file_contexts"))
	must(t, os.WriteFile(filepath.Join(tree, "config"), []byte("SELINUX=enforcing\nSELINUXTYPE=default\n"), 0o644))
	module := oracle.ModuleRoot(t)
	for _, name := range []string{"palisade", "palisade-oci", "palisade-init"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(root, "usr", "local", "bin", name), "./cmd/"+name)
		cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, dir := range []string{"srv/private", "srv/shared", "srv/own", "srv/box/bin"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	command(t, "cp", filepath.Join(root, "bin", "busybox"), filepath.Join(root, "srv", "box", "bin", "busybox"))
	for _, applet := range []string{"sh", "cat", "sleep", "touch", "ls", "echo", "kill"} {
		_ = os.Symlink("busybox", filepath.Join(root, "srv", "box", "bin", applet))
	}
	command(t, "tar", "-C", filepath.Join(root, "srv", "box"), "-cf", filepath.Join(root, "srv", "box.tar"), ".")
	if out, err := exec.Command(setfiles, "-F", "-r", root, filepath.Join(tree, "default", "contexts", "files", "file_contexts"), root).CombinedOutput(); err != nil {
		t.Logf("setfiles: %v\n%.2000s", err, out)
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(disk)
	must(t, err)
	must(t, f.Truncate(3<<30))
	must(t, f.Close())
	command(t, mkfs, "-q", "-d", root, disk)
	return disk
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%.4000s", name, err, out)
	}
}

// shell runs commands of the guest's Debian and collects what goes wrong.
type shell struct{ errs []error }

func (s *shell) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.Trim(out.String(), "\x00\n "), err
}

func (s *shell) errorf(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

func (s *shell) must(name string, args ...string) string {
	out, err := s.run(name, args...)
	if err != nil {
		s.errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (s *shell) denied(name string, args ...string) {
	if out, err := s.run(name, args...); err == nil || !strings.Contains(out, "ermission denied") {
		s.errorf("%s %s: not denied: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

var containerLabel = regexp.MustCompile(`^system_u:system_r:container_t:s0:c\d+,c\d+$`)

// engines is what happens in the guest's Debian, in the domain of its services.
func engines() error {
	// The disk becomes the root of the mount namespace, as at every boot: who joins
	// a container's namespaces later lands on that root.
	if err := errors.Join(os.Chdir("/disk"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if err := os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0); err != nil {
		return err
	}
	s := &shell{}
	log, err := os.Create("/run/dockerd.log")
	if err != nil {
		return err
	}
	daemon := exec.Command("dockerd", "--selinux-enabled", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2",
		"--add-runtime", "palisade=/usr/local/bin/palisade-oci")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return err
	}
	defer daemon.Process.Kill()
	for range 300 {
		if _, err := s.run("docker", "version"); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	s.must("docker", "import", "/srv/box.tar", "box")
	docker(s, "docker", nil)
	docker(s, "docker through palisade-oci", []string{"--runtime", "palisade"})
	if len(s.errs) > 0 {
		tail, _ := os.ReadFile("/run/dockerd.log")
		s.errorf("dockerd: …%s", tail[max(0, len(tail)-1500):])
	}

	// palisade run, with the host's policy and no engine.
	s.must("palisade", "relabel", "/srv/box", "--context", "system_u:object_r:container_ro_file_t:s0")
	own := s.must("palisade", "run", "--rootfs", "/srv/box", "--", "/bin/cat", "/proc/self/attr/current")
	if !containerLabel.MatchString(own) {
		s.errorf("palisade run: label %q", own)
	}
	s.denied("palisade", "run", "--rootfs", "/srv/box", "-v", "/etc:/host:ro", "--", "/bin/cat", "/host/shadow")
	s.must("palisade", "run", "--rootfs", "/srv/box", "-v", "/srv/own:/data:Z", "--", "/bin/touch", "/data/x")
	fmt.Fprintf(os.Stderr, "engines: docker, docker with palisade-oci, palisade run: %d things wrong\n", len(s.errs))
	return errors.Join(s.errs...)
}

// docker starts two containers and tries what they may do to each other.
func docker(s *shell, what string, options []string) {
	run := func(args ...string) []string {
		return append(append([]string{"run", "--network", "none"}, options...), args...)
	}
	label := func(name string) string { return s.must("docker", "exec", name, "/bin/cat", "/proc/1/attr/current") }
	for _, name := range []string{"one", "two"} {
		s.must("docker", run("-d", "--name", name, "-v", "/srv/"+name+":/data:Z", "-v", "/srv/shared:/shared:z", "box", "/bin/sleep", "3600")...)
	}
	a, b := label("one"), label("two")
	if !containerLabel.MatchString(a) || !containerLabel.MatchString(b) || a == b {
		s.errorf("%s: labels %q and %q", what, a, b)
	}
	if got := s.must("docker", "exec", "one", "/bin/cat", "/proc/self/attr/current"); got != a {
		s.errorf("%s: exec runs as %q in %q", what, got, a)
	}
	s.must("docker", "exec", "one", "/bin/touch", "/data/mine", "/shared/ours")
	s.must("docker", "exec", "two", "/bin/cat", "/shared/ours")
	// The other's volume and the host's files, mounted as they are.
	s.denied("docker", run("--rm", "-v", "/srv/one:/theirs", "box", "/bin/ls", "/theirs")...)
	s.denied("docker", run("--rm", "-v", "/srv/one:/theirs", "box", "/bin/touch", "/theirs/mine")...)
	s.denied("docker", run("--rm", "-v", "/etc:/host:ro", "box", "/bin/cat", "/host/shadow")...)
	s.denied("docker", run("--rm", "-v", "/etc:/host:ro", "box", "/bin/cat", "/host/passwd")...)
	s.must("docker", "restart", "-t", "1", "one")
	if again := label("one"); again != a {
		s.errorf("%s: label %q became %q over a restart", what, a, again)
	}
	s.must("docker", "exec", "one", "/bin/cat", "/data/mine")
	s.must("docker", "rm", "-f", "one", "two")
}
