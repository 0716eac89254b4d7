// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
)

// Networks that a container can be given.
const (
	NetNone = "none" // a network namespace of its own with a loopback device only
	NetHost = "host" // the host's
)

// defaultPath is what engines give a process that brings no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseSpec is what the container would be without Palisade: what Docker
// generates by default, for the root at rootfs.
//
// Source: moby daemon/pkg/oci/defaults.go, DefaultLinuxSpec.
func baseSpec(rootfs string, o Options, u execUser) *specs.Spec {
	all := caps.Docker.Names()
	process := &specs.Process{
		Terminal: o.TTY,
		User:     specs.User{UID: uint32(u.uid), GID: uint32(u.gid), AdditionalGids: u.groups},
		Args:     o.Args,
		Env:      environment(o, u),
		Cwd:      o.Workdir,
		Capabilities: &specs.LinuxCapabilities{
			Bounding:    all,
			Effective:   all,
			Permitted:   all,
			Inheritable: []string{},
			Ambient:     []string{},
		},
	}
	if u.uid != 0 {
		process.Capabilities.Effective, process.Capabilities.Permitted = []string{}, []string{}
	}
	s := &specs.Spec{
		// The oldest version that has everything used here: old runtimes
		// refuse versions that they do not know.
		Version:  "1.0.2",
		Process:  process,
		Root:     &specs.Root{Path: rootfs},
		Hostname: o.Hostname,
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
		},
	}
	if o.Net == NetHost {
		// The host's network is of little use without its names.
		for _, name := range []string{"/etc/hosts", "/etc/resolv.conf"} {
			if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: name, Type: "bind", Source: name, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"}})
			}
		}
	} else {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if o.Policy.ReadOnlyRoot {
		// A read-only root without a place to write is of little use.
		for _, dir := range []string{"/run", "/tmp"} {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=65536k"}})
		}
	}
	return s
}

// environment is PATH, HOME, HOSTNAME and TERM as engines set them, the image's
// own, and what was asked for, the later winning.
func environment(o Options, u execUser) []string {
	env := []string{defaultPath, "HOSTNAME=" + o.Hostname}
	if o.TTY {
		env = append(env, "TERM=xterm")
	}
	hasHome := false
	for _, kv := range slices.Concat(o.imageEnv, o.Env) {
		key, value, given := strings.Cut(kv, "=")
		if !given {
			// The name alone passes on what the caller has, as engines do.
			if value, given = os.LookupEnv(key); !given {
				continue
			}
		}
		hasHome = hasHome || key == "HOME"
		env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, key+"=") })
		env = append(env, key+"="+value)
	}
	if !hasHome {
		env = append(env, "HOME="+u.home)
	}
	return env
}
