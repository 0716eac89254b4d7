// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// TestKernelEngines runs unmodified engines, and palisade run, of a whole Debian
// under its enforcing policy with the module: two containers of each, and what
// each of them may do to every other. It builds that Debian first, which takes
// root and minutes, so it runs where oracles are required only ("make
// svirt-kernel").
func TestKernelEngines(t *testing.T) {
	inDebian(t, "engines")
}

// inDebian runs a role of this test's binary in the domain of services of the
// guest's Debian.
func inDebian(t *testing.T, role string) {
	t.Helper()
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
	vmtest.Run(t, vmtest.Config{
		LSM: "selinux", Disk: disk, MemoryMiB: 4096, Modules: []string{"overlay", "fuse"},
		Env: []string{onlyEnv + "=" + os.Getenv(onlyEnv), permissiveEnv + "=" + os.Getenv(permissiveEnv), verboseEnv + "=" + os.Getenv(verboseEnv)},
	}, func(t *testing.T) {
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
		cmd.Env = append(os.Environ(), roleEnv+"="+role)
		must(t, startAs(cmd, "system_u:system_r:initrc_t:s0"))
		err = cmd.Wait()
		if err != nil || os.Getenv(permissiveEnv) != "" {
			t.Logf("%v\n%s", err, denials())
		}
		if err != nil {
			t.Fail()
		}
	})
}

// For work on the module: which engines and steps to run ("docker|ctr|escapes|fail-open"), without enforcing,
// and with every command.
const (
	verboseEnv    = "PALISADE_TEST_VERBOSE"
	onlyEnv       = "PALISADE_TEST_ENGINES"
	permissiveEnv = "PALISADE_TEST_PERMISSIVE"
)

// relabelDevices does what udev and systemd-tmpfiles do on a real host.
func relabelDevices(t *testing.T) {
	t.Helper()
	for path, label := range map[string]string{
		"/dev/null": "null_device_t", "/dev/zero": "zero_device_t", "/dev/random": "random_device_t", "/dev/urandom": "urandom_device_t",
		"/dev/tty": "devtty_t", "/dev/ptmx": "ptmx_t", "/disk/run": "var_run_t", "/disk/tmp": "tmp_t", "/dev/shm": "tmpfs_t", "/dev": "device_t",
		"/dev/fuse": "fuse_device_t", "/dev/loop-control": "loop_control_device_t", "/dev/kmsg": "kmsg_device_t",
	} {
		if err := unix.Setxattr(path, "security.selinux", []byte("system_u:object_r:"+label+":s0\x00"), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Logf("label %s: %v", path, err)
		}
	}
}

var containerLabel = regexp.MustCompile(`^system_u:system_r:container_t:s0:c\d+,c\d+$`)

// enterDebian makes the disk the root of the mount namespace, as at every boot:
// who joins a container's namespaces later lands on that root.
func enterDebian() error {
	if err := errors.Join(os.Chdir("/disk"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	// systemd shares mounts.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return err
	}
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if os.Getenv(permissiveEnv) != "" {
		return nil
	}
	return os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0)
}

// services starts the engines' daemons and gives every engine the image.
func services(s *shell, all []*engine) (stop func()) {
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile("/srv/box"+agentIn, self, 0o755)
	}
	if err != nil {
		s.errorf("%v", err)
	}
	s.must("palisade", "relabel", "/srv/box", "--context", "system_u:object_r:container_ro_file_t:s0")
	s.must("tar", "-C", "/srv/box", "-cf", "/srv/box.tar", ".")
	uses := func(prefix string) bool {
		return selected("fail-open") || slices.ContainsFunc(all, func(e *engine) bool { return strings.HasPrefix(e.name, prefix) })
	}
	var daemons []*exec.Cmd
	start := func(name string, args ...string) {
		daemons = append(daemons, s.background("/run/"+name+".log", name, args...))
	}
	if uses("libvirt") {
		// What its package sets up where systemd is: no group of its own, no polkit.
		conf := "unix_sock_group = \"root\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n"
		if err := os.WriteFile("/etc/libvirtd-test.conf", []byte(conf), 0o644); err != nil {
			s.errorf("%v", err)
		}
		start("libvirtd", "-f", "/etc/libvirtd-test.conf")
	}
	if uses("docker") || uses("ctr") {
		start("containerd")
		s.wait("ctr", "version")
		start("dockerd", "--selinux-enabled", "--iptables=false", "--ip6tables=false", "--bridge=none",
			"--storage-driver=overlay2", "--containerd", "/run/containerd/containerd.sock", "--add-runtime", "palisade="+wrapper)
	}
	if uses("podman") {
		s.must(podman("crun")[0], join(podman("crun")[1:], []string{"import", "/srv/box.tar", "box"})...)
	}
	if uses("docker") || uses("ctr") {
		s.wait("docker", "version")
		s.must("docker", "import", "/srv/box.tar", "box:latest")
	}
	if uses("ctr") {
		s.must("docker", "save", "-o", "/srv/box.docker.tar", "box:latest")
		s.must("ctr", "image", "import", "/srv/box.docker.tar")
	}
	if uses("libvirt") {
		s.wait("virsh", "-c", "lxc:///system", "version")
	}
	return func() {
		for _, d := range daemons {
			if d != nil {
				_ = d.Process.Kill()
			}
		}
	}
}

// allEngines are the ways to start containers that the matrix has.
func allEngines() []*engine {
	static := func(container string) string {
		var engine, n int
		fmt.Sscanf(container, "e%d-%d", &engine, &n)
		return fmt.Sprintf("s0:c%d,c1023", 1000+2*engine+n)
	}
	all := []*engine{
		dockerlike("docker", []string{"docker"}, nil),
		dockerlike("docker, palisade-oci", []string{"docker"}, []string{"--runtime", "palisade"}),
		dockerlike("podman, crun", podman("crun"), nil),
		dockerlike("podman, runc", podman("runc"), nil),
		dockerlike("podman, palisade-oci", podman(wrapper), nil),
		ctr("ctr, palisade-oci", nil),
		ctr("ctr, palisade-oci, level asked", static),
		libvirtLXC("libvirt, dynamic", "/usr/lib/libvirt/libvirt_lxc", nil),
		libvirtLXC("libvirt, static", "/usr/lib/libvirt/libvirt_lxc", static),
		libvirtLXC("libvirt, palisade-lxc", "/usr/local/bin/palisade-lxc", nil),
		palisadeRun(),
	}
	return slices.DeleteFunc(all, func(e *engine) bool { return !selected(e.name) })
}

// selected tells whether an engine, or a step, is among what to run.
func selected(name string) bool {
	return slices.ContainsFunc(strings.Split(os.Getenv(onlyEnv), "|"), func(o string) bool { return strings.HasPrefix(name, o) })
}

// engines is what happens in the guest's Debian, in the domain of its services.
func engines() error {
	if err := enterDebian(); err != nil {
		return err
	}
	s := &shell{}
	began := time.Now()
	note := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	all := allEngines()
	stop := services(s, all)
	defer stop()
	note("daemons are up, with %d things wrong", len(s.errs))
	if len(s.errs) > 0 {
		return errors.Join(append(s.errs, logs()...)...)
	}
	if selected("escapes") {
		s.escapes()
		note("probes in a container with nothing but its label: %d things wrong", len(s.errs))
	}
	if selected("fail-open") {
		s.failOpen()
		note("labels and profiles asked for: %d things wrong", len(s.errs))
	}
	var boxes []*box
	for n, e := range all {
		for i := range 2 {
			b := &box{engine: e, name: fmt.Sprintf("e%d-%d", n, i)}
			if s.bring(b) {
				boxes = append(boxes, b)
			}
		}
		note("%s: two containers, %d things wrong so far", e.name, len(s.errs))
	}
	s.inside(boxes)
	note("what each may do by itself: %d things wrong so far", len(s.errs))
	s.matrix(boxes)
	note("matrix: %d things wrong so far", len(s.errs))
	s.restarts(boxes)
	note("restarts: %d things wrong", len(s.errs))
	for _, b := range boxes {
		b.engine.remove(s, b.name)
	}
	if len(s.errs) > 0 {
		s.errs = append(s.errs, logs()...)
	}
	return errors.Join(s.errs...)
}

// logs are the ends of what the daemons said.
func logs() []error {
	var out []error
	names, _ := filepath.Glob("/var/log/libvirt/lxc/*.log")
	for _, name := range append(names, "/run/dockerd.log", "/run/containerd.log", "/run/libvirtd.log") {
		if log, err := os.ReadFile(name); err == nil {
			out = append(out, fmt.Errorf("%s: …%s", name, log[max(0, len(log)-1000):]))
		}
	}
	return out
}

// bring starts a container and waits until it serves.
func (s *shell) bring(b *box) bool {
	for _, dir := range []string{b.volume(), "/srv/vol/shared"} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			s.errorf("%v", err)
		}
	}
	for name, mode := range map[string]os.FileMode{"f": 0o666, "old": 0o666} {
		if err := os.WriteFile(filepath.Join(b.volume(), name), []byte("content of "+b.name), mode); err != nil {
			s.errorf("%v", err)
		}
	}
	s.must("cp", "/bin/busybox", b.volume()+"/true")
	if !b.engine.relabels {
		s.must("palisade", "relabel", "/srv/vol/shared", "--context", "system_u:object_r:container_file_t:s0")
	}
	b.engine.start(s, b.name)
	return s.find(b)
}

// find looks for the container's process and its label, labels its volume where
// the engine does not, and waits until it serves.
func (s *shell) find(b *box) bool {
	if !await.Patiently(func() bool { b.pid = processOf(b.name); return b.pid != 0 }) {
		s.errorf("%s: container %s does not come up", b.engine.name, b.name)
		return false
	}
	label, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", b.pid))
	if err != nil {
		s.errorf("%s: %v", b.engine.name, err)
		return false
	}
	b.label = strings.TrimRight(string(label), "\x00\n")
	if !containerLabel.MatchString(b.label) {
		s.errorf("%s: label %q", b.engine.name, b.label)
		return false
	}
	if !b.engine.relabels {
		_, level, _ := strings.Cut(b.label, "container_t:")
		s.must("palisade", "relabel", b.volume(), "--context", "system_u:object_r:container_file_t:"+level)
		if strings.HasPrefix(b.engine.name, "libvirt") {
			s.must("palisade", "relabel", "/srv/lxc/"+b.name, "--context", "system_u:object_r:container_file_t:"+level)
		}
	}
	ready := await.Patiently(func() bool { _, err := os.Stat(b.volume() + "/ready"); return err == nil })
	if !ready {
		s.errorf("%s: container %s does not serve", b.engine.name, b.name)
	}
	return ready
}

// processOf is the process that serves in a container of this name.
func processOf(name string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		env := strings.Split(string(b), "\x00")
		if !slices.Contains(env, nameEnv+"="+name) || !slices.Contains(env, roleEnv+"=serve") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && serves(pid) {
			return pid
		}
	}
	return 0
}

// serves tells whether a process is that of a container of the matrix.
func serves(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasSuffix(exe, agentIn)
}

// inside is what each container may do by itself, seen through its engine: use
// what is its own and what is shared; and what a new one cannot do with the
// volume of another and with the host's files that were mounted as they are.
func (s *shell) inside(boxes []*box) {
	for i, b := range boxes {
		e := b.engine
		if e.exec != nil {
			before := boxes[(i+len(boxes)-1)%len(boxes)]
			out, err := e.exec(s, b.name, "/bin/sh", "-c", "cat /proc/self/attr/current && echo && touch /data/mine /shared/of-"+b.name+" && /data/true && touch /tmp/in-the-root && cat /shared/"+before.name+" && echo && echo all done")
			lines := strings.FieldsFunc(out, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 })
			if err != nil || len(lines) != 3 || lines[0] != b.label || lines[1] != "shared by "+before.name || lines[2] != "all done" {
				s.errorf("%s: exec in %s (%s): %v: %q", e.name, b.name, b.label, err, out)
			}
		}
		if e.once == nil || strings.HasSuffix(b.name, "1") {
			continue
		}
		other := boxes[(i+2)%len(boxes)]
		var script strings.Builder
		tries := []string{"ls /theirs", "cat /theirs/f", "touch /theirs/x", "rm /theirs/f", "/theirs/true", "cat /host/shadow", "cat /host/passwd", "ls /host"}
		for _, try := range tries {
			fmt.Fprintf(&script, "%s && echo 'OPEN: %s'; ", try, try)
		}
		out, _ := e.once(s, other.volume(), script.String())
		if n := strings.Count(strings.ToLower(out), "permission denied"); n != len(tries) || strings.Contains(out, "OPEN") {
			s.errorf("%s: the volume of %s and /etc of the host: %d of %d denied: %s", e.name, other.name, n, len(tries), out)
		}
	}
}

// restarts wants a container to have its label again after it was started anew,
// and its volume to be of use.
func (s *shell) restarts(boxes []*box) {
	for _, b := range boxes {
		if strings.HasSuffix(b.name, "1") {
			continue
		}
		before := b.label
		_ = os.Remove(b.volume() + "/ready")
		b.engine.restart(s, b.name)
		if !s.find(b) {
			continue
		}
		if b.label != before && !b.engine.fresh {
			s.errorf("%s: label %q became %q over a restart", b.engine.name, before, b.label)
		}
		for _, other := range boxes {
			if other != b && other.label == b.label {
				s.errorf("%s and %s both have %s", b.name, other.name, b.label)
			}
		}
	}
}
