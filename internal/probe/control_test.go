// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

var measure = flag.Bool("measure-control", false, "run the probes under the installed runtime and write control.json")

// containerMain runs the probes as the first process of a container does.
func containerMain() int {
	// A run that does not end shows where it was.
	results, err := Run(context.Background(), Options{Progress: func(_, _ int, name string) { fmt.Fprintln(os.Stderr, name) }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		return 125
	}
	return 0
}

// dockerSpec is the configuration that Docker gives to a container with no
// options, for the program of this test as the only file of its root.
//
// Source: moby daemon/pkg/oci/defaults.go.
func dockerSpec(rootfs string) *specs.Spec {
	names := caps.Docker.Names()
	device := func(major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"/probe.test", "probe-as-container"}, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names},
		},
		Root:     &specs.Root{Path: rootfs},
		Hostname: "probe",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Allow: false, Access: "rwm"},
				device(1, 5), device(1, 3), device(1, 9), device(1, 8), device(5, 0), device(5, 1),
			}},
		},
	}
}

func withDockerFilter(t *testing.T, s *specs.Spec) {
	t.Helper()
	filter, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = filter
}

// strictSpec takes away what Docker's default leaves: capabilities, a writable
// root, and sockets other than those of the unix family.
func strictSpec(t *testing.T, s *specs.Spec) {
	s.Process.Capabilities = &specs.LinuxCapabilities{}
	s.Process.NoNewPrivileges = true
	s.Root.Readonly = true
	withDockerFilter(t, s)
	filter := s.Linux.Seccomp
	var kept []specs.LinuxSyscall
	for _, rule := range filter.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool {
			return name == "socket" || name == "socketcall"
		})
		if len(rule.Names) > 0 {
			kept = append(kept, rule)
		}
	}
	filter.Syscalls = append(kept, specs.LinuxSyscall{
		Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_UNIX, Op: specs.OpEqualTo}},
	})
}

// unconfinedSpec makes every mistake at once: all capabilities, no filter, the
// host's namespaces, control groups, disk and sockets.
func unconfinedSpec(t *testing.T, s *specs.Spec) {
	all := capget().Intersect(caps.All).Names()
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	s.Hostname = ""
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/loop-control", Type: "c", Major: 10, Minor: 237}}
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return o == "ro" })
		if m := &s.Mounts[i]; m.Destination == "/sys/fs/cgroup" || m.Destination == "/sys" {
			m.Type, m.Source, m.Options = "bind", m.Destination, []string{"rbind", "rprivate"}
		}
	}
	// A socket such as an engine has, by name and without one.
	dir := t.TempDir()
	for _, name := range []string{filepath.Join(dir, "docker.sock"), "@/containerd-shim/palisade-probe-test.sock@"} {
		// Not by package net, with which this program might need a C library
		// that the container does not have.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/run", Type: "bind", Source: dir, Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/host", Type: "bind", Source: "/", Options: []string{"bind", "ro"}},
	)
}

func runtimePath(t *testing.T) string {
	t.Helper()
	path := oracle.Tool(t, "runc", "apt: runc")
	oracle.Root(t, "to start containers")
	return path
}

// inContainer runs the probes in a container with the given changes to
// Docker's configuration.
//
// Files are handed to the container as a careless runtime would.
func inContainer(t *testing.T, change func(*testing.T, *specs.Spec), files ...*os.File) map[string]Result {
	t.Helper()
	runc := runtimePath(t)
	bundle := t.TempDir()
	rootfs := filepath.Join(bundle, "rootfs")
	spec := dockerSpec(rootfs)
	change(t, spec)
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Mounts {
		if strings.Count(m.Destination, "/") > 1 {
			continue // on a file system that is mounted first
		}
		if err := os.MkdirAll(filepath.Join(rootfs, m.Destination), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "/proc/self/exe", filepath.Join(rootfs, "probe.test"))
	before := leftOvers(t, rootfs)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("palisade-probe-test-%d", os.Getpid())
	state := t.TempDir()
	ctx := await.Context(t)
	args := []string{"--root", state, "run"}
	if vmtest.InGuest() {
		// The initial root file system cannot be pivoted away from.
		args = append(args, "--no-pivot")
	}
	cmd := exec.CommandContext(ctx, runc, append(args, "--bundle", bundle, "--preserve-fds", strconv.Itoa(len(files)), id)...)
	cmd.ExtraFiles = files
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	defer func() { _ = exec.Command(runc, "--root", state, "delete", "--force", id).Run() }()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s run: %v\n%s%s", runc, err, stderr.Bytes(), stdout.Bytes())
	}
	var list []Result
	if err := json.Unmarshal(stdout.Bytes(), &list); err != nil {
		t.Fatalf("%v in %s", err, stdout.Bytes())
	}
	if after := leftOvers(t, rootfs); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
	m := make(map[string]Result)
	for _, r := range list {
		m[r.Name] = r
	}
	return m
}

func leftOvers(t *testing.T, rootfs string) []string {
	entries, err := os.ReadDir(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}

func record(m map[string]Result) map[string]Recorded {
	out := make(map[string]Recorded)
	for name, r := range m {
		out[name] = Recorded{r.Outcome, r.Errno, r.Layer}
	}
	return out
}

// controlHere measures the three configurations on the running kernel.
func controlHere(t *testing.T, name string) Control {
	runc := runtimePath(t)
	forgotten, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer forgotten.Close()
	c := Control{
		Name:       name,
		Profile:    "default profile of github.com/moby/profiles/seccomp, 14 capabilities",
		Docker:     record(inContainer(t, withDockerFilter)),
		Strict:     record(inContainer(t, strictSpec)),
		Unconfined: record(inContainer(t, unconfinedSpec, forgotten)),
	}
	version, err := exec.Command(runc, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	c.Runtime, _, _ = strings.Cut(string(version), "\n")
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	c.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return c
}

// compare fails on what the record claims to be blocked and is open. The
// kernel decides what is applicable and the runtime's version what it can
// express, so that other differences are only reported.
func (c Control) compare(t *testing.T) {
	t.Helper()
	for _, x := range []struct {
		name   string
		got    map[string]Recorded
		claims Claims
	}{{"docker", c.Docker, defaultClaims()}, {"strict", c.Strict, strictClaims()}} {
		if len(x.claims.Blocks) < 40 {
			t.Errorf("%s: only %d probes are recorded as blocked", x.name, len(x.claims.Blocks))
		}
		for _, name := range x.claims.Blocks {
			if x.got[name].Outcome == Open {
				t.Errorf("%s: %s is open, recorded as blocked", x.name, name)
			}
		}
	}
	for _, p := range table {
		if c.Docker[p.name].Outcome == "" {
			t.Errorf("%s was not tried", p.name)
		}
	}
}

// keep puts a measurement into the record in the place of that of its name.
func (c Control) keep(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("control.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []Control
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(list, func(o Control) bool { return o.Name == c.Name }); i >= 0 {
		list[i] = c
	} else {
		list = append(list, c)
	}
	if text, err = json.MarshalIndent(list, "", " "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("control.json", append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestKernelControl measures the probes again on the running kernel.
func TestKernelControl(t *testing.T) {
	c := controlHere(t, "cgroup-v1-host")
	if *measure {
		c.keep(t)
		return
	}
	c.compare(t)
}

// TestKernelControlDebian does so on Debian's kernel, which has modules, kexec
// and the rest that small kernels leave out, and control groups of version 2.
func TestKernelControlDebian(t *testing.T) {
	config := vmtest.Config{MemoryMiB: 1536}
	if !vmtest.InGuest() {
		runc := oracle.Tool(t, "runc", "apt: runc")
		config.Files = append(vmtest.Libraries(t, "/", runc), vmtest.File{Guest: "/usr/sbin/runc", Host: runc})
		// The guest leaves its measurement on a disk.
		config.Disk, config.KeepDisk = filepath.Join(t.TempDir(), "disk"), true
		if err := os.WriteFile(config.Disk, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vmtest.Run(t, config, func(t *testing.T) {
		c := controlHere(t, "debian-12")
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile("/dev/vda", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	if vmtest.InGuest() {
		return
	}
	text, err := os.ReadFile(config.Disk)
	if err != nil {
		t.Fatal(err)
	}
	var c Control
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &c); err != nil {
		t.Fatal(err)
	}
	if *measure {
		c.keep(t)
		return
	}
	c.compare(t)
}
