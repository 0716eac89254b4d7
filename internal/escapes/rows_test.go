// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// A row is one public weakness, or a relative of one.
type row struct {
	// id is the public number; a relative has the number and a word.
	id    string
	fixed string // the first version without it
	what  string
	// on are the affected runtimes: versions of runc, or "crun".
	on []string
	// control are runtimes on which the same attempt must come to nothing.
	control []string
	// ways are those that the row is about; empty for all three.
	ways []string
	// variants are tried one after the other until one succeeds.
	variants int
	// rounds, for a race: how many attempts, in the short form and at length.
	rounds, long int
	// hook is the version of NVIDIA's hook that the row needs.
	hook  string
	setup func(*attempt)
	// reached says what was reached, or what was seen instead.
	reached func(*attempt, result) (string, bool)
	// bare tells whether the runtime alone lets it happen; why says what was
	// measured where it does not.
	bare bool
	why  string
	// layer is what stops it under Palisade.
	layer string
	// open is why it is reached under Palisade too.
	open string
}

// said is an effect that the container prints.
func said(what string, words ...string) func(*attempt, result) (string, bool) {
	return func(_ *attempt, r result) (string, bool) {
		if rest, ok := line(r.out, words...); ok {
			return strings.TrimSpace(what + " " + rest), true
		}
		return "", false
	}
}

// made is an effect that is seen from the host: something new outside of the
// container's root.
func made(a *attempt, _ result) (string, bool) {
	entries, err := os.ReadDir(a.outside)
	if err != nil {
		a.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "secret" {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "nothing outside", false
	}
	if len(names) > 3 {
		names = append(names[:3], "…")
	}
	return "outside: " + strings.Join(names, ", "), true
}

// either is the first effect of several that is there.
func either(effects ...func(*attempt, result) (string, bool)) func(*attempt, result) (string, bool) {
	return func(a *attempt, r result) (string, bool) {
		seen := ""
		for _, e := range effects {
			s, ok := e(a, r)
			if ok {
				return s, true
			}
			if seen == "" {
				seen = s
			}
		}
		return seen, false
	}
}

const (
	magicProc  = "9fa0"
	magicTmpfs = "1021994"
)

// fakeProc makes a folder that a last step would be looked up in.
func fakeProc(a *attempt, dir string) {
	// A file for each descriptor: a runtime that is deceived writes into some.
	for fd := 3; fd < 11; fd++ {
		path := filepath.Join(dir, "self/fd", fmt.Sprint(fd))
		a.mkdir(filepath.Dir(path))
		copyOnce(a.t, filepath.Join(a.s.bin, "inside"), path)
	}
	for _, name := range []string{"thread-self", "1"} {
		if err := os.Symlink("self", filepath.Join(dir, name)); err != nil {
			a.t.Fatal(err)
		}
	}
	const self = "self"
	a.write(filepath.Join(dir, self, "status"), "Name:\tfake\nSeccomp:\t2\nNoNewPrivs:\t1\n")
	a.mkdir(filepath.Join(dir, self, "attr"))
	for _, f := range []string{"attr/exec", "attr/current", "oom_score_adj", "loginuid", "setgroups"} {
		a.write(filepath.Join(dir, self, f), "")
	}
	a.mkdir(filepath.Join(dir, "sys/net/ipv4"))
}

// notProc is reached when what the image brought ran in place of the last step,
// or when the workload ran with a /proc that is none.
func notProc(a *attempt, r result) (string, bool) {
	if _, ok := line(r.out, "impostor", "ran"); ok {
		mode, _ := line(r.out, "seccomp")
		return "the image's program ran as the last step, Seccomp " + strings.TrimSuffix(mode, " ok"), true
	}
	if fs, ok := line(r.out, "statfs", "/proc"); ok && !strings.HasPrefix(fs, magicProc) {
		return "/proc is no procfs", true
	}
	return "", false
}

// lessFiltered is notProc, or a workload that has less than the engine asked for.
func lessFiltered(a *attempt, r result) (string, bool) {
	if s, ok := notProc(a, r); ok && a.pol != bare {
		return s, true
	}
	mode, ok := line(r.out, "seccomp")
	if !ok {
		return "", false
	}
	mode = strings.TrimSuffix(mode, " ok")
	return "Seccomp " + mode, mode != "2"
}

// dockerFilter gives the container Docker's own filter.
func dockerFilter(a *attempt) {
	l := resolvedDocker(a)
	a.spec.Linux.Seccomp = l
}

func resolvedDocker(a *attempt) *specs.LinuxSeccomp {
	native, ok := syscalls.FromGo(goruntime.GOARCH)
	if !ok {
		a.t.Skip("no table of system calls for " + goruntime.GOARCH)
	}
	kernel, err := syscalls.ParseVersion("5.10")
	if err != nil {
		a.t.Fatal(err)
	}
	f, err := seccomp.Docker().Resolve(seccomp.Host{Native: native, Caps: caps.Docker.Names(), Kernel: kernel})
	if err != nil {
		a.t.Fatal(err)
	}
	return recode(a.t, f.OCI())
}

// swapping prepares a volume in which a folder and a link to the host change
// places, with mounts of the container behind.
func swapping(a *attempt, target string, premade bool) {
	vol := filepath.Join(a.dir, "vol")
	exchanged(a, filepath.Join(vol, "swap"), filepath.Join(vol, "link"), target)
	a.bind(vol, "/vol")
	for i := range 16 {
		name := fmt.Sprintf("t%02d", i)
		if premade {
			a.mkdir(filepath.Join(vol, "swap", name))
			a.mkdir(filepath.Join(target, name))
		}
		a.tmpfs("/vol/swap/" + name)
	}
}

// exchanged makes a folder and a link to target, which take each other's place while
// the runtime runs.
func exchanged(a *attempt, folder, link, target string) {
	a.mkdir(folder)
	if err := os.Symlink(target, link); err != nil {
		a.t.Fatal(err)
	}
	a.beside = a.exchange(folder, link)
}

// hooked gives the container a hook that writes down what it was given.
func hooked(a *attempt, kind string) {
	notes := filepath.Join(a.dir, "notes")
	a.mkdir(notes)
	h := specs.Hook{Path: filepath.Join(a.s.bin, "inside"), Args: []string{"inside", "hook", filepath.Join(notes, "hook"), kind}}
	if kind == "startContainer" {
		// It runs inside.
		h.Path, h.Args[2] = "/inside", "/vol/hook"
		a.bind(notes, "/vol")
	}
	a.spec.Hooks = &specs.Hooks{}
	switch kind {
	case "prestart":
		a.spec.Hooks.Prestart = []specs.Hook{h} //nolint:staticcheck // old runtimes know no other
	case "createRuntime":
		a.spec.Hooks.CreateRuntime = []specs.Hook{h}
	case "createContainer":
		a.spec.Hooks.CreateContainer = []specs.Hook{h}
	case "startContainer":
		a.spec.Hooks.StartContainer = []specs.Hook{h}
	case "poststart":
		a.spec.Hooks.Poststart = []specs.Hook{h}
	}
}

var hookKinds = []string{"prestart", "createRuntime", "createContainer", "poststart"}

// hookSaw looks for a line in what a hook wrote down.
func hookSaw(what, prefix string) func(*attempt, result) (string, bool) {
	return func(a *attempt, _ result) (string, bool) {
		b, err := os.ReadFile(filepath.Join(a.dir, "notes/hook"))
		if errors.Is(err, os.ErrNotExist) {
			return "no hook ran", false
		}
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, prefix) {
				return what, true
			}
		}
		return "the hook ran without it", false
	}
}

// nvidia gives the container NVIDIA's hook.
func nvidia(a *attempt, version string, args ...string) {
	path := filepath.Join(a.s.bin, "nvidia-cdi-hook-"+version)
	copyOnce(a.t, Hook(a.t, version), path)
	a.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: path, Args: append([]string{"nvidia-cdi-hook"}, args...)}}}
}

// capabilities gives every set of the container all of Docker's.
func allSets(p *specs.Process) {
	names := caps.Docker.Names()
	p.Capabilities.Inheritable = slices.Clone(names)
}

// withFileCapability makes a program of the image that has file capabilities in
// the inheritable set and the effective flag.
func withFileCapability(a *attempt, path string) {
	name := filepath.Join(a.root, path)
	b, err := os.ReadFile(filepath.Join(a.s.bin, "inside"))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o755); err != nil {
		a.t.Fatal(err)
	}
	// struct vfs_cap_data, revision 2: effective flag, nothing permitted, and
	// CAP_NET_RAW and CAP_DAC_OVERRIDE inheritable.
	data := []byte{1, 0, 0, 2, 0, 0, 0, 0, 0x02, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(name, "security.capability", data, 0); err != nil {
		a.t.Fatal(err)
	}
}

func gained(_ *attempt, r result) (string, bool) {
	if _, ok := line(r.out, "uid 1000"); !ok {
		return "", false
	}
	eff, _ := line(r.out, "effective")
	eff = strings.TrimSuffix(eff, " ok")
	return "uid 1000, CapEff " + eff, eff != "0"
}

func inherits(_ *attempt, r result) (string, bool) {
	inh, ok := line(r.out, "inheritable")
	if !ok {
		return "", false
	}
	inh = strings.TrimSuffix(inh, " ok")
	return "CapInh " + inh, inh != "0"
}

// leakedFD is the descriptor that a variant tries.
func leakedFD(a *attempt) int { return 3 + a.n }

func climbed(what string) func(*attempt, result) (string, bool) {
	return either(made, said(what, "climb", "read"))
}

func (a *attempt) climbArgs() []string { return []string{"/inside", "climb", a.outside, "made"} }

// unmasked is reached when a path that is to be masked can be read.
func unmasked(_ *attempt, r result) (string, bool) {
	for _, path := range maskedThere {
		if rest, ok := line(r.out, "read", path, "ok"); ok && rest != `""` {
			return path + " is readable", true
		}
	}
	return "", false
}

// maskedThere are masked paths that this kernel has.
var maskedThere = []string{"/proc/keys", "/proc/interrupts", "/proc/timer_list"}

func onlyRun() []string { return []string{wayRun, wayCreate} }

// rowsRuntime are the public numbers, oldest runtime first.
var rowsRuntime = []row{
	{
		id: "CVE-2016-9962", fixed: "runc 1.0.0-rc3", what: "descriptors of the runtime in a process that the container can trace",
		on: []string{"1.0.0-rc6"}, ways: []string{wayExec},
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "hold"}
			a.args("/inside", "fds")
		},
		reached: foreignFD,
		why:     "no descriptor of the host in the process of an exec: fixed before the oldest version that builds",
	},
	{
		id: "CVE-2019-5736", fixed: "runc 1.0.0-rc7", what: "the runtime's own file opened for writing by /proc/PID/exe",
		on: []string{"1.0.0-rc6"}, control: []string{"1.1.4"}, ways: []string{wayExec}, bare: true,
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "exes"}
			a.exec = a.process()
			a.exec.Args = []string{"/proc/self/exe"}
			a.last = func(pidfile string) {
				a.write(filepath.Join(a.root, "stop"), "")
				a.waitInit(pidfile)
			}
		},
		reached: foreignExe, layer: "the runtime has no --preserve-fds",
	},
	{
		id: "CVE-2019-16884", fixed: "runc 1.0.0-rc9", what: "an image's volume over /proc",
		on: []string{"1.0.0-rc8"}, control: []string{"1.1.4"}, bare: true,
		setup: func(a *attempt) {
			fakeProc(a, filepath.Join(a.dir, "fake"))
			a.unmount("/proc")
			a.bind(filepath.Join(a.dir, "fake"), "/proc")
			a.args("/inside", "statfs", "/proc")
		},
		reached: notProc, layer: "mounts over /proc are refused",
	},
	{
		id: "CVE-2019-19921", fixed: "runc 1.0.0-rc10", what: "the image's /proc is a link into a volume",
		on: []string{"1.0.0-rc8", "1.0.0-rc6"}, control: []string{"1.1.11"}, bare: true,
		setup: func(a *attempt) {
			fakeProc(a, filepath.Join(a.dir, "fake"))
			a.spec.Mounts = slices.Insert(a.spec.Mounts, 0, specs.Mount{Destination: "/vol", Type: "bind", Source: filepath.Join(a.dir, "fake"), Options: []string{"bind", "rw"}})
			a.link("/vol", "proc")
			a.unmount("/proc")
			a.args("/inside", "statfs", "/proc")
		},
		reached: notProc, layer: "a root whose /proc is a link is refused",
	},
	{
		id: "CVE-2023-27561", fixed: "runc 1.1.5", what: "the same, back again: procfs goes where the link points",
		on: []string{"1.1.4", "1.0.2"}, control: []string{"1.1.11", "1.0.0-rc93"}, bare: true,
		setup: func(a *attempt) {
			a.mkdir(filepath.Join(a.root, "elsewhere"))
			a.link("/elsewhere", "proc")
			a.args("/inside", "stat", "/elsewhere/1")
		},
		reached: func(a *attempt, r result) (string, bool) {
			if rest, ok := line(r.out, "stat", "/elsewhere/1"); ok && strings.HasSuffix(rest, " ok") {
				return "procfs is where the image's link points", true
			}
			return "", false
		},
		layer: "a root whose /proc is a link is refused",
	},
	{
		id: "CVE-2023-28642", fixed: "runc 1.1.5", what: "the image's /proc is a link, which lets a folder of the host lie over /proc/1/attr",
		on: []string{"1.1.4", "1.0.2"}, control: []string{"1.1.11", "1.0.0-rc93"}, bare: true,
		setup: func(a *attempt) {
			a.mkdir(filepath.Join(a.root, "elsewhere"))
			a.link("/elsewhere", "proc")
			a.mkdir(filepath.Join(a.dir, "attr"))
			a.bind(filepath.Join(a.dir, "attr"), "/elsewhere/1/attr")
			a.args("/inside", "statfs", "/proc/1/attr")
		},
		reached: inProc("/proc/1/attr"), layer: "a root whose /proc is a link is refused",
	},
	{
		id: "CVE-2021-30465", fixed: "runc 1.0.0-rc95", what: "a link exchanged while the runtime mounts",
		on: []string{"1.0.0-rc93"}, control: []string{"1.4.3"}, ways: onlyRun(), rounds: 12, long: 60, bare: true,
		setup: func(a *attempt) {
			source := filepath.Join(a.dir, "source")
			a.mkdir(source)
			swapping(a, source, true)
			a.bind(source, "/work", "rbind")
			paths := []string{"/inside", "statfs"}
			for i := range 16 {
				paths = append(paths, fmt.Sprintf("/work/t%02d", i))
			}
			a.args(paths...)
		},
		reached: func(_ *attempt, r result) (string, bool) {
			n := 0
			for i := range 16 {
				if fs, ok := line(r.out, "statfs", fmt.Sprintf("/work/t%02d", i)); ok && strings.HasPrefix(fs, magicTmpfs) {
					n++
				}
			}
			return fmt.Sprintf("%d mounts outside", n), n > 0
		},
		layer: "mounts are compared with what was asked",
	},
	{
		id: "CVE-2024-45310", fixed: "runc 1.1.14", what: "a link exchanged while mount points are made",
		on: []string{"1.1.4", "1.1.11"}, control: []string{"1.4.3"}, ways: onlyRun(), rounds: 12, long: 60, bare: true,
		setup: func(a *attempt) {
			swapping(a, a.outside, false)
			a.args("/inside", "status")
		},
		reached: made, layer: "mount points in a writable volume need a runc that has the fix",
	},
	{
		id: "CVE-2021-43784", fixed: "runc 1.0.3", what: "a length over 65,535 in the message to the first process",
		on: []string{"1.0.2", "1.0.0-rc93"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.spec.Linux.Namespaces = append(a.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			// The namespaces after the overflow would be those of the host.
			for i := range 4000 {
				m := specs.LinuxIDMapping{ContainerID: uint32(i), HostID: uint32(100000 + i), Size: 1}
				a.spec.Linux.UIDMappings = append(a.spec.Linux.UIDMappings, m)
			}
			a.spec.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			a.chown(100000)
			a.args("/inside", "stat", "/proc/self/ns/mnt")
		},
		reached: func(a *attempt, r result) (string, bool) {
			var st unix.Stat_t
			if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
				a.t.Fatal(err)
			}
			rest, ok := line(r.out, "stat", "/proc/self/ns/mnt")
			return "ran in the host's namespaces", ok && strings.Contains(rest, fmt.Sprintf("/%d ok", st.Ino))
		},
		why: "the kernel refuses a user namespace of 4,000 mappings, and no other member of the message can be that long: paths are looked at first",
	},
	{
		id: "CVE-2022-29162", fixed: "runc 1.1.2", what: "exec --cap puts capabilities into the inheritable set",
		on: []string{"1.0.0-rc93", "1.0.2"}, control: []string{"1.1.4"}, ways: []string{wayExec}, bare: true,
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "hold"}
			a.execFlags = []string{"--cap", "CAP_NET_RAW", "/inside"}
		},
		reached: inherits, layer: "inheritable set emptied",
	},
	inheritable("CVE-2022-24769", "moby 20.10.14", "Docker's configuration of its time: all sets alike"),
	inheritable("CVE-2022-27649", "Podman 4.0.3", "Podman's configuration of its time: all sets alike"),
	inheritable("CVE-2022-27651", "Buildah 1.25.0", "Buildah's configuration of its time: all sets alike"),
	{
		id: "CVE-2022-27650", fixed: "crun 1.4.4", what: "exec puts capabilities into the inheritable set",
		on: []string{"crun"}, ways: []string{wayExec},
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "hold"}
			a.execFlags = []string{"--cap", "CAP_NET_RAW", "/inside"}
		},
		reached: inherits, why: "crun 1.8.1 has the fix", layer: "not affected",
	},
	{
		id: "CVE-2023-25809", fixed: "runc 1.1.5", what: "/sys/fs/cgroup writable without a cgroup namespace",
		on: []string{"1.1.4"}, control: []string{"1.1.11"}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			a.spec.Mounts = append(a.spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}})
			// The host's unified hierarchy, which the first process of a user
			// namespace may not mount: the runtime binds the host's in its place.
			a.unified = true
			a.spec.Linux.Resources = nil
			a.spec.Linux.Namespaces = append(a.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			a.spec.Linux.UIDMappings, a.spec.Linux.GIDMappings = maps, maps
			a.chown(100000)
			a.args("/inside", "create", "/sys/fs/cgroup/palisade-none")
		},
		reached: func(_ *attempt, r result) (string, bool) {
			got, ok := line(r.out, "create", "/sys/fs/cgroup/palisade-none")
			return "/sys/fs/cgroup: " + got, ok && got != "EROFS"
		},
		layer: "mount options are compared with what was asked",
	},
	{
		id: "CVE-2024-21626", fixed: "runc 1.1.12", what: "the working directory is a descriptor that the runtime left open",
		on: []string{"1.1.4", "1.1.11", "1.0.0-rc93", "1.0.2"}, control: []string{"1.1.15", "1.4.3"}, variants: 10, bare: true,
		setup: func(a *attempt) {
			a.args(a.climbArgs()...)
			a.process().Cwd = fmt.Sprintf("/proc/self/fd/%d", leakedFD(a))
		},
		reached: climbed("read"), layer: "the working directory has to lie in the container",
	},
	{
		id: "CVE-2025-31133", fixed: "runc 1.2.8", what: "/dev/null of the image is a link to a masked file",
		on: []string{"1.1.4", "1.2.7", "1.3.2", "1.0.0-rc93"}, control: []string{"1.3.4"}, variants: 3, bare: true,
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			a.link(maskedThere[a.n], "dev/null")
			a.aside()
			a.args(append([]string{"/inside", "read"}, maskedThere...)...)
		},
		reached: unmasked, layer: "masks are read back",
	},
	{
		id: "CVE-2025-52565", fixed: "runc 1.2.8", what: "the console is mounted where a link of the image points",
		on: []string{"1.1.4", "1.2.7", "1.0.0-rc93"}, control: []string{"1.4.3"}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/shm", "/dev/mqueue")
			a.link("/proc/uptime", "dev/console")
			a.spec.Process.Terminal, a.terminal = true, true
			a.args("/inside", "statfs", "/proc/uptime")
		},
		reached: inProc("/proc/uptime"), layer: "mounts below /proc are refused",
	},
	{
		id: "CVE-2025-52881", fixed: "runc 1.2.8", what: "a mount goes into procfs by a link that is exchanged",
		on: []string{"1.1.4", "1.2.7", "1.0.0-rc93"}, control: nil, ways: onlyRun(), rounds: 12, long: 60, bare: true,
		setup: func(a *attempt) {
			vol := filepath.Join(a.dir, "vol")
			a.mkdir(filepath.Join(vol, "swap/tty"))
			if err := os.Symlink("/proc", filepath.Join(vol, "link")); err != nil {
				a.t.Fatal(err)
			}
			a.bind(vol, "/vol")
			for range 16 {
				a.tmpfs("/vol/swap/tty")
			}
			a.beside = a.exchange(filepath.Join(vol, "swap"), filepath.Join(vol, "link"))
			a.args("/inside", "statfs", "/proc/tty")
		},
		reached: inProc("/proc/tty"), layer: "mounts below /proc are refused",
	},
	{
		id: "CVE-2026-41579", fixed: "runc 1.3.6, 1.4.3", what: "the image's /dev is a link: links and nodes are made outside",
		on: []string{"1.1.4", "1.4.0", "1.3.4", "1.0.0-rc93"}, control: []string{"1.4.3"}, bare: true,
		setup: devLink, reached: made, layer: "a root whose /dev is a link is refused",
	},
	{
		id: "CVE-2026-47766", fixed: "crun 1.28", what: "the same in crun",
		on: []string{"crun"}, ways: onlyRun(), bare: true,
		setup: devLink, reached: made, layer: "a root whose /dev is a link is refused",
	},
	{
		id: "CVE-2026-88264", fixed: "after crun 1.29.1", what: "/dev/console of the image is a link: the runtime makes a file outside",
		on: []string{"crun"}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			a.link(filepath.Join(a.outside, "console"), "dev/console")
			a.spec.Process.Terminal, a.terminal = true, true
			a.args("/inside", "status")
		},
		reached: made, layer: "a link at /dev/console is refused",
	},
	{
		id: "CVE-2026-88265", fixed: "after crun 1.29.1", what: "/dev/null of the image is a link to a file, which becomes a standard stream",
		on: []string{"crun"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			// The path is there on both sides, and only the host's is of the host.
			inside := filepath.Join(a.root, a.outside)
			a.mkdir(inside)
			a.write(filepath.Join(inside, "secret"), "of the image")
			a.link(filepath.Join(a.outside, "secret"), "dev/null")
			a.aside()
			a.args("/inside", "fds")
		},
		reached: foreignFD, why: "the link is resolved in the container in 1.8.1: the stream is a file of the image",
	},
	{
		id: "no number", fixed: "–", what: "crun: a bind on /proc, Docker's filter asked for",
		on: []string{"crun"}, ways: onlyRun(), bare: false,
		setup: func(a *attempt) {
			dockerFilter(a)
			fakeProc(a, filepath.Join(a.dir, "fake"))
			a.unmount("/proc")
			a.bind(filepath.Join(a.dir, "fake"), "/proc")
			a.args("/inside", "status")
		},
		reached: lessFiltered, why: "the runtime's own filter stays: Seccomp 2", layer: "mounts over /proc are refused",
	},
	{
		id: "no number, /proc/1/fd", fixed: "–", what: "crun: a bind on /proc/1/fd alone, Docker's filter asked for",
		on: []string{"crun"}, ways: onlyRun(), bare: false,
		setup: func(a *attempt) {
			dockerFilter(a)
			fakeProc(a, filepath.Join(a.dir, "fake"))
			a.bind(filepath.Join(a.dir, "fake/self/fd"), "/proc/1/fd")
			a.args("/inside", "status")
		},
		reached: lessFiltered, why: "the runtime's own filter stays: Seccomp 2", layer: "mounts below /proc are refused",
	},
	{
		id: "CVE-2026-30892", fixed: "crun 1.27", what: "exec --user 1 taken for root",
		on: []string{"crun"}, ways: []string{wayExec},
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "hold"}
			a.execFlags = []string{"--user", "1", "/inside"}
		},
		reached: said("runs as root", "uid 0"), why: "came with crun 1.19: 1.8.1 runs it as user 1",
	},
	{
		id: "CVE-2025-24965", fixed: "crun 1.20", what: "the krun handler writes its file through a link of the image",
		on: []string{"crun"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.spec.Annotations = map[string]string{"run.oci.handler": "krun"}
			a.link(filepath.Join(a.outside, "krun"), ".krun_config.json")
			a.args("/inside", "status")
		},
		reached: made, why: "Debian's crun has no krun: the annotation has no effect",
	},
	{
		id: "CVE-2020-15257", fixed: "containerd 1.3.9", what: "abstract sockets of the host in the host's network namespace",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, bare: true,
		setup: func(a *attempt) {
			a.spec.Linux.Namespaces = slices.DeleteFunc(a.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
			name := "palisade-escapes-" + a.id
			a.beside = func(ctx context.Context) { listenAbstract(a, ctx, name) }
			a.args("/inside", "connect", name)
		},
		reached: said("connected", "connect", "ok"), layer: "Landlock's scope of abstract sockets",
	},
	{
		id: "CVE-2022-0811", fixed: "CRI-O 1.19.6", what: "a second sysctl behind a plus sign",
		on: []string{"1.1.4", "1.0.0-rc93"}, ways: onlyRun(),
		setup: func(a *attempt) {
			pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
			if err != nil {
				a.t.Skip(err)
			}
			// What the host has: should it be written, nothing changes.
			a.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": "0+kernel.core_pattern=" + strings.TrimSpace(string(pattern))}
			a.args("/inside", "status")
		},
		reached: said("accepted", "ran"), why: "of CRI-O's own helper; runc writes the value to one file, which refuses it",
	},
	{
		id: "CVE-2024-40635", fixed: "containerd 1.7.27", what: "a user number over 32 bits becomes root",
		on: []string{"1.1.4", "crun"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.args("/inside", "status")
			a.text = []string{`"uid":0`, `"uid":4294967296`}
		},
		reached: said("runs as root", "uid 0"), why: "of containerd's reading of a user; runc refuses the number",
	},
	{
		id: "CVE-2022-36109", fixed: "moby 20.10.18", what: "additional groups that the engine's configuration drops",
		on: []string{"1.1.4"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 2000}}
			a.args("/inside", "status")
		},
		reached: func(_ *attempt, r result) (string, bool) {
			g, ok := line(r.out, "groups")
			return "groups " + g, ok && g != "1000,2000"
		},
		why: "of the engine's configuration: what it names is set",
	},
	{
		id: "CVE-2025-23266", fixed: "NVIDIA 1.17.8", what: "a createContainer hook gets the image's LD_PRELOAD",
		on: []string{"1.1.4", "1.2.7", "1.0.0-rc93"}, control: []string{"1.3.2"}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			hooked(a, "createContainer")
			a.spec.Process.Env = append(a.spec.Process.Env, "LD_PRELOAD=./escapes.so")
		},
		reached: hookSaw("LD_PRELOAD of the image in a hook on the host", "env LD_PRELOAD="), layer: "hooks get the engine's environment",
	},
	{
		id: "CVE-2025-23266, NVIDIA", fixed: "NVIDIA 1.17.8", what: "nvidia-cdi-hook loads a library of the image",
		on: []string{"1.1.4", "1.2.7"}, control: []string{"1.3.2"}, ways: onlyRun(), hook: "1.17.7", bare: true,
		setup: func(a *attempt) {
			preload(a)
			nvidia(a, "1.17.7", "enable-cuda-compat", "--host-driver-version", "570.1")
			a.spec.Process.Env = append(a.spec.Process.Env, "LD_PRELOAD=./escapes.so", "ESCAPES_MARK="+filepath.Join(a.outside, "loaded"))
		},
		reached: made, layer: "hooks get the engine's environment",
	},
	{
		id: "CVE-2024-0133", fixed: "NVIDIA 1.16.2", what: "create-symlinks follows a folder of the image that is a link",
		on: []string{"1.1.4"}, ways: onlyRun(), hook: "1.16.1", bare: true,
		setup: func(a *attempt) {
			a.link(a.outside, "lib64")
			nvidia(a, "1.16.1", "create-symlinks", "--link", "libcuda.so.1::/lib64/made")
		},
		reached: made, open: "a hook is a program of the host, with its rights, and follows what it finds",
	},
	{
		id: "CVE-2024-0134", fixed: "NVIDIA 1.17.0", what: "update-ldcache writes a file where the image's link points",
		on: []string{"1.1.4"}, ways: onlyRun(), hook: "1.16.1", bare: true,
		setup: func(a *attempt) {
			a.link(a.outside, "etc/ld.so.conf.d")
			nvidia(a, "1.16.1", "update-ldcache", "--folder", "/usr/lib/none")
		},
		reached: made, open: "a hook is a program of the host, with its rights, and follows what it finds",
	},
	{
		id: "CVE-2025-23267", fixed: "NVIDIA 1.17.8", what: "update-ldcache follows links of the image",
		on: []string{"1.1.4"}, ways: onlyRun(), hook: "1.17.7",
		setup: func(a *attempt) {
			a.link(a.outside, "etc/ld.so.conf.d")
			a.link(filepath.Join(a.outside, "cache"), "etc/ld.so.cache")
			nvidia(a, "1.17.7", "update-ldcache", "--folder", "/usr/lib/none")
		},
		reached: made, why: "1.17.7 writes in a changed root: nothing outside was made",
	},
	{
		id: "CVE-2025-23359", fixed: "NVIDIA 1.17.4", what: "a link exchanged while the hook runs",
		on: []string{"1.1.4"}, ways: onlyRun(), hook: "1.17.3", rounds: 6, long: 60, bare: true,
		setup: func(a *attempt) {
			exchanged(a, filepath.Join(a.root, "etc/ld.so.conf.d"), filepath.Join(a.root, "etc/link"), a.outside)
			nvidia(a, "1.17.3", "update-ldcache", "--folder", "/usr/lib/none")
		},
		reached: made, open: "a hook is a program of the host, with its rights, and follows what it finds",
	},
	{
		id: "CVE-2024-0132", fixed: "NVIDIA 1.16.2", what: "the same in the version before",
		on: []string{"1.1.4"}, ways: onlyRun(), hook: "1.16.1", rounds: 4, long: 60, bare: true,
		setup: func(a *attempt) {
			exchanged(a, filepath.Join(a.root, "lib64"), filepath.Join(a.root, "link"), a.outside)
			nvidia(a, "1.16.1", "create-symlinks", "--link", "libcuda.so.1::/lib64/made")
		},
		reached: made, open: "a hook is a program of the host, with its rights, and follows what it finds",
	},
}

// inheritable is a row about a configuration in which all sets are alike.
func inheritable(id, fixed, what string) row {
	return row{
		id: id, fixed: fixed, what: what,
		on: []string{"1.0.0-rc93", "1.1.4", "1.4.3"}, bare: true,
		setup: func(a *attempt) {
			withFileCapability(a, "other")
			a.args("/inside", "as", "1000", "/other")
			allSets(a.process())
		},
		reached: gained, layer: "no_new_privs",
	}
}

func devLink(a *attempt) {
	a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
	a.link(a.outside, "dev")
	a.args("/inside", "status")
}

func inProc(path string) func(*attempt, result) (string, bool) {
	return func(_ *attempt, r result) (string, bool) {
		fs, ok := line(r.out, "statfs", path)
		return path + " is of file system " + fs, ok && !strings.HasPrefix(fs, magicProc)
	}
}

// foreignFD is reached when a descriptor is a folder, or a file of the host.
func foreignFD(a *attempt, r result) (string, bool) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(a.outside, "secret"), &st); err != nil {
		a.t.Fatal(err)
	}
	seen := ""
	for l := range strings.Lines(r.out) {
		f := strings.Fields(l)
		if len(f) < 4 || f[0] != "fd" {
			continue
		}
		if f[2] == "40000" || f[3] == fmt.Sprintf("%d/%d", st.Dev, st.Ino) {
			return "descriptor " + f[1] + " is of the host", true
		}
		seen = "descriptors are its own"
	}
	return seen, false
}

// foreignExe is reached when a program that is not of the image could be opened
// for writing. A file in memory that is sealed against writes opens, and takes none.
func foreignExe(a *attempt, r result) (string, bool) {
	seen := ""
	for l := range strings.Lines(r.out) {
		f := strings.Fields(l)
		if len(f) < 6 || f[0] != "exe" {
			continue
		}
		seals, err := strconv.Atoi(f[4])
		sealed := err == nil && f[5] == "ok" && seals&unix.F_SEAL_WRITE != 0
		if f[2] == "ok" && !sealed {
			return "a program of the host is open for writing", true
		}
		seen = "programs of the host seen, " + f[2]
	}
	return seen, false
}

func listenAbstract(a *attempt, ctx context.Context, name string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}), unix.Listen(fd, 8))
	}
	if err != nil {
		a.t.Error(err)
		return
	}
	<-ctx.Done()
	unix.Close(fd)
}

// preload puts a library into the image that leaves a mark where it is loaded.
func preload(a *attempt) {
	a.t.Helper()
	const source = `#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void)
{
	const char *mark = getenv("ESCAPES_MARK");
	if (mark)
		close(open(mark, O_CREAT | O_WRONLY, 0600));
}
`
	name := filepath.Join(a.dir, "escapes.c")
	a.write(name, source)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "cc", "-shared", "-fPIC", "-o", filepath.Join(a.root, "escapes.so"), name).CombinedOutput(); err != nil {
		a.t.Fatalf("library: %v: %s", err, out)
	}
}
