// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// rowsRelatives are of the kind of a public weakness, but not it: the number
// says of which.
var rowsRelatives = slices.Concat([]row{
	workingDirectory("a link of the image to it", func(a *attempt, fd int) string {
		a.link(fmt.Sprintf("/proc/self/fd/%d", fd), "work")
		return "/work"
	}),
	workingDirectory("/proc/1/fd", func(_ *attempt, fd int) string { return fmt.Sprintf("/proc/1/fd/%d", fd) }),
	workingDirectory("/proc/thread-self/fd", func(_ *attempt, fd int) string { return fmt.Sprintf("/proc/thread-self/fd/%d", fd) }),
	workingDirectory("/dev/fd", func(_ *attempt, fd int) string { return fmt.Sprintf("/dev/fd/%d", fd) }),
	workingDirectory("the folder above it", func(_ *attempt, fd int) string { return fmt.Sprintf("/proc/self/fd/%d/..", fd) }),
	workingDirectory("a link, and a folder above", func(a *attempt, fd int) string {
		a.link(fmt.Sprintf("../proc/self/fd/%d/..", fd), "work")
		return "/work"
	}),
	{
		id: "CVE-2024-21626, program", fixed: "runc 1.1.12", what: "the program is found through the descriptor",
		on: []string{"1.1.4", "1.0.0-rc93"}, control: []string{"1.1.15"}, variants: 10, bare: true,
		setup: func(a *attempt) {
			a.inside(filepath.Join(a.outside, "tool"))
			up := strings.Repeat("../", 12)
			a.args(fmt.Sprintf("/proc/self/fd/%d/%s%s/tool", leakedFD(a), up, strings.TrimPrefix(a.outside, "/")))
		},
		reached: said("a program of the host runs", "impostor ran"), layer: "the last step's own exec closes what the runtime left open",
	},
	{
		id: "CVE-2024-21626, exec --cwd", fixed: "runc 1.1.12", what: "the descriptor in the flag of an exec",
		on: []string{"1.1.11", "1.1.4", "1.0.0-rc93"}, ways: []string{wayExec}, variants: 10,
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "hold"}
			// The program takes what it climbs to from its environment.
			a.inside(filepath.Join(a.root, "climb"))
			a.execFlags = []string{"--cwd", fmt.Sprintf("/proc/self/fd/%d", leakedFD(a)), "--env", "ESCAPES_CLIMB=" + a.outside, "/climb"}
		},
		reached: climbed("read"), why: "an exec has no folder of the host open here", layer: "the working directory has to lie in the container",
	},
	{
		id: "CVE-2019-5736, last step", fixed: "–", what: "the last step's own file opened for writing",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, ways: []string{wayExec},
		setup: func(a *attempt) {
			a.spec.Process.Args = []string{"/inside", "exes"}
			a.exec = a.process()
			a.exec.Args = []string{"/inside", "status"}
			a.last = func(pidfile string) {
				a.write(filepath.Join(a.root, "stop"), "")
				a.waitInit(pidfile)
			}
		},
		reached: foreignExe, why: "runc runs from a sealed copy of itself", layer: "a sealed copy",
	},
	{
		id: "CVE-2019-16884, last step named", fixed: "–", what: "the image's program is the path of the last step",
		on: []string{"1.1.4", "crun"}, variants: 6,
		setup: func(a *attempt) {
			dockerFilter(a)
			a.args(fmt.Sprintf("/proc/self/fd/%d", 3+a.n), "/inside", "status")
		},
		reached: lessFiltered, why: "there is no such descriptor",
	},
	procMount("destination spelled otherwise", "crun", []string{
		"proc/1/fd", "//proc/1/fd", "/./proc/1/fd", "/vol/../proc/1/fd", "/proc/self/fd", "/proc/thread-self/fd", "/proc/1/task/1/fd", "/proc/1",
	}, false),
	procMount("destination spelled otherwise", "1.1.4", []string{
		"proc/1/fd", "//proc/1/fd", "/./proc/1/fd", "/vol/../proc/1/fd", "/proc/self/fd", "/proc/thread-self/fd", "/proc/1/task/1/fd", "/proc/1",
	}, false),
	procLinkMount("crun"),
	procLinkMount("1.1.4"),
	procLinkMount("1.4.3"),
	{
		id: "CVE-2019-16884, tmpfs on /proc/self", fixed: "–", what: "a tmpfs on the link that is /proc/self",
		on: []string{"crun"}, ways: onlyRun(),
		setup: func(a *attempt) {
			dockerFilter(a)
			a.tmpfs("/proc/self")
			a.args("/inside", "statfs", "/proc/1/", "/proc/self/")
		},
		reached: func(_ *attempt, r result) (string, bool) {
			for _, path := range []string{"/proc/1/", "/proc/self/"} {
				if fs, ok := line(r.out, "statfs", path); ok && strings.HasPrefix(fs, magicTmpfs) {
					return path + " is a tmpfs", true
				}
			}
			return "", false
		},
		bare: true, layer: "mounts below /proc are refused",
	},
	{
		id: "CVE-2019-16884, over the root", fixed: "–", what: "a volume over / that brings a /proc of its own",
		on: []string{"crun", "1.1.4", "1.0.0-rc93", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			dockerFilter(a)
			fake := filepath.Join(a.dir, "fake")
			fakeProc(a, filepath.Join(fake, "proc"))
			for _, d := range []string{"dev", "sys", "tmp", "etc"} {
				a.mkdir(filepath.Join(fake, d))
			}
			a.inside(filepath.Join(fake, "inside"))
			a.bind(fake, "/")
			a.args("/inside", "status")
		},
		reached: lessFiltered, why: "the filter of the configuration stays", layer: "mounts over / are refused",
	},
	{
		id: "CVE-2023-27561, /sys", fixed: "–", what: "the image's /sys is a link",
		on: []string{"1.1.4", "crun", "1.0.0-rc93", "1.4.3"}, bare: true, ways: onlyRun(),
		setup: func(a *attempt) {
			a.mkdir(filepath.Join(a.root, "elsewhere"))
			a.link("/elsewhere", "sys")
			a.args("/inside", "stat", "/elsewhere/kernel")
		},
		reached: func(_ *attempt, r result) (string, bool) {
			rest, ok := line(r.out, "stat", "/elsewhere/kernel")
			return "sysfs is where the image's link points", ok && strings.HasSuffix(rest, " ok")
		},
		layer: "a root whose /sys is a link is refused",
	},
	{
		id: "CVE-2026-41579, inside", fixed: "–", what: "the image's /dev is a link to a folder of the image",
		on: []string{"1.1.4", "crun", "1.4.3"}, bare: true, ways: onlyRun(), variants: 2,
		setup: func(a *attempt) {
			a.mkdir(filepath.Join(a.root, "elsewhere"))
			a.link([]string{"elsewhere", "/elsewhere"}[a.n], "dev")
			a.args("/inside", "stat", "/elsewhere/null")
		},
		reached: func(_ *attempt, r result) (string, bool) {
			rest, ok := line(r.out, "stat", "/elsewhere/null")
			return "/dev is where the image's link points", ok && strings.HasSuffix(rest, " ok")
		},
		layer: "a root whose /dev is a link is refused",
	},
	{
		id: "CVE-2026-41579, removal", fixed: "runc 1.3.6, 1.4.3", what: "the image's /dev is a link: a file named ptmx is removed outside",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.0"}, control: []string{"1.4.3"}, bare: true, ways: onlyRun(),
		setup: func(a *attempt) {
			devLink(a)
			a.write(filepath.Join(a.outside, "ptmx"), "mine")
		},
		reached: func(a *attempt, _ result) (string, bool) {
			b, err := os.ReadFile(filepath.Join(a.outside, "ptmx"))
			if err == nil && string(b) == "mine" {
				return "the file is there", false
			}
			return "the host's file is gone", true
		},
		layer: "a root whose /dev is a link is refused",
	},
	linkBelow("/dev/pts", "dev/pts", "devpts"), linkBelow("/dev/shm", "dev/shm", "tmpfs"), linkBelow("/dev/mqueue", "dev/mqueue", "mqueue"),
	{
		id: "CVE-2026-41579, /etc", fixed: "–", what: "the image's /etc is a link; the engine mounts a file into it",
		on: []string{"1.1.4", "crun", "1.0.0-rc93", "1.4.3"}, ways: onlyRun(), variants: 2,
		setup: func(a *attempt) {
			target := a.outside
			if a.n == 1 {
				target = strings.Repeat("../", 12) + strings.TrimPrefix(a.outside, "/")
			}
			a.link(target, "etc")
			a.write(filepath.Join(a.dir, "resolv.conf"), "")
			a.bind(filepath.Join(a.dir, "resolv.conf"), "/etc/resolv.conf")
			a.args("/inside", "status")
		},
		reached: made, why: "mount points are made inside the root",
	},
	{
		id: "CVE-2026-41579, /sys/fs/cgroup", fixed: "–", what: "the image's /sys is its own, with a link at fs/cgroup",
		on: []string{"1.1.4", "crun", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.unmount("/sys")
			a.mkdir(filepath.Join(a.root, "sys/fs"))
			a.link(a.outside, "sys/fs/cgroup")
			a.spec.Mounts = append(a.spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
			a.args("/inside", "status")
		},
		reached: made, why: "mount points are made inside the root",
	},
	{
		id: "CVE-2026-88264, runc", fixed: "–", what: "/dev/console of the image is a link, in runc",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/shm", "/dev/mqueue")
			a.link(filepath.Join(a.outside, "console"), "dev/console")
			a.spec.Process.Terminal, a.terminal = true, true
			a.args("/inside", "status")
		},
		reached: made, why: "runc makes it in the changed root",
	},
	{
		id: "CVE-2025-31133, nowhere", fixed: "–", what: "/dev/null of the image is a link that leads nowhere",
		on: []string{"1.1.4", "1.2.7", "1.0.0-rc93", "crun"},
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			a.link("/nowhere/at/all", "dev/null")
			a.aside()
			a.args(append([]string{"/inside", "read"}, maskedThere...)...)
		},
		reached: unmasked, why: "the node is made where the link points, in the image", layer: "masks are read back",
	},
	nullLink("/dev/null is a link into procfs that can be written", func(a *attempt) {
		a.link("/proc/1/comm", "dev/null")
	}, 1),
	nullLink("/dev/null is a file of the image", func(a *attempt) {
		a.write(filepath.Join(a.root, "dev/null"), "content")
	}, 1),
	{
		id: "CVE-2025-31133, mount", fixed: "–", what: "a file is mounted over /dev/null",
		on: []string{"1.1.4", "1.4.3", "crun"}, bare: true, ways: onlyRun(),
		setup: func(a *attempt) {
			a.write(filepath.Join(a.dir, "null"), "content")
			a.bind(filepath.Join(a.dir, "null"), "/dev/null")
			a.aside()
			a.args(append([]string{"/inside", "read"}, maskedThere...)...)
		},
		reached: unmasked, layer: "masks are read back",
	},
	{
		id: "CVE-2022-24769, exec", fixed: "–", what: "the inheritable set that the engine left in the process",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, bare: true,
		setup: func(a *attempt) {
			a.args("/inside", "status")
			allSets(a.process())
		},
		reached: inherits, layer: "inheritable set emptied",
	},
	{
		id: "CVE-2022-24769, ambient", fixed: "–", what: "the ambient set that the engine left, as root",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, bare: true,
		setup: func(a *attempt) {
			a.args("/inside", "status")
			allSets(a.process())
			a.process().Capabilities.Ambient = []string{"CAP_NET_RAW"}
		},
		reached: func(_ *attempt, r result) (string, bool) {
			n, ok := line(r.out, "ambient")
			return "ambient capabilities: " + n, ok && n != "0"
		},
		open: "the engine's configuration gives the ambient set, and it stays as written",
	},
	{
		id: "CVE-2024-21626, descriptors", fixed: "–", what: "what is open in the workload",
		on:    []string{"1.1.4", "1.0.0-rc93", "crun", "1.4.3"},
		setup: func(a *attempt) { a.args("/inside", "fds") },
		reached: func(_ *attempt, r result) (string, bool) {
			seen := ""
			for l := range strings.Lines(r.out) {
				f := strings.Fields(l)
				if len(f) < 3 || f[0] != "fd" {
					continue
				}
				seen = "0 to 2 alone"
				if f[1] != "0" && f[1] != "1" && f[1] != "2" {
					return "descriptor " + strings.Join(f[1:], " "), true
				}
			}
			return seen, false
		},
		why: "none but the standard ones",
	},
}, hookRows())

// workingDirectory is a row about another way to a leaked descriptor.
func workingDirectory(what string, path func(a *attempt, fd int) string) row {
	return row{
		id: "CVE-2024-21626, " + what, fixed: "runc 1.1.12", what: "the working directory is a leaked descriptor, by " + what,
		on: []string{"1.1.4", "1.0.0-rc93"}, control: []string{"1.1.15"}, variants: 10, bare: true,
		setup: func(a *attempt) {
			a.args(a.climbArgs()...)
			a.process().Cwd = path(a, leakedFD(a))
		},
		reached: climbed("read"), layer: "the working directory has to lie in the container",
	}
}

// procMount is a row about mounts below /proc, with Docker's filter asked for.
func procMount(what, on string, destinations []string, isBare bool) row {
	return row{
		id: "CVE-2019-16884, " + on + ", spelling", fixed: "–", what: what + " (/proc/1/fd and its names)",
		on: []string{on}, ways: onlyRun(), variants: len(destinations), bare: isBare,
		setup: func(a *attempt) {
			dockerFilter(a)
			fake := filepath.Join(a.dir, "fake")
			fakeProc(a, fake)
			from := filepath.Join(fake, "self/fd")
			if strings.HasSuffix(destinations[a.n], "/1") {
				from = filepath.Join(fake, "self")
			}
			a.bind(from, destinations[a.n])
			a.args("/inside", "status")
		},
		reached: lessFiltered, why: "refused, or the runtime's own filter stays", layer: "mounts below /proc are refused",
	}
}

// procLinkMount mounts below /proc by a link of the image.
func procLinkMount(on string) row {
	return row{
		id: "CVE-2025-52881, " + on + ", link", fixed: "–", what: "a mount below /proc by a link of the image",
		on: []string{on}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			dockerFilter(a)
			a.link("/proc", "vol")
			a.tmpfs("/vol/tty")
			a.args("/inside", "statfs", "/proc/tty")
		},
		reached: inProc("/proc/tty"), layer: "mounts below /proc are refused",
	}
}

// linkBelow is a row about a link in an image's own /dev, where a file system is
// to be mounted.
func linkBelow(path, in, kind string) row {
	return row{
		id: "CVE-2026-41579, " + path, fixed: "–", what: "the image's " + path + " is a link, and its /dev its own",
		on: []string{"1.1.4", "crun", "1.0.0-rc93", "1.4.3"}, ways: onlyRun(), variants: 2,
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			target := filepath.Join(a.outside, "new")
			if a.n == 1 {
				target = strings.Repeat("../", 12) + strings.TrimPrefix(target, "/")
			}
			a.link(target, in)
			a.spec.Mounts = append(a.spec.Mounts, specs.Mount{Destination: path, Type: kind, Source: kind, Options: []string{"nosuid", "noexec"}})
			a.args("/inside", "status")
		},
		reached: made, why: "mount points are made inside the root",
	}
}

// nullLink is a row about what an image has in place of /dev/null.
func nullLink(what string, put func(*attempt), variants int) row {
	return row{
		id: "CVE-2025-31133, " + what, fixed: "runc 1.2.8", what: what,
		on: []string{"1.1.4", "1.2.7", "1.0.0-rc93"}, control: []string{"1.3.4"}, variants: variants, bare: true,
		setup: func(a *attempt) {
			a.unmount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			put(a)
			a.aside()
			a.args(append([]string{"/inside", "read"}, maskedThere...)...)
		},
		reached: unmasked, layer: "masks are read back",
	}
}

// loaderVariables are what an image could have a program of the host load or run.
var loaderVariables = []string{
	"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "GCONV_PATH", "PYTHONPATH",
	"PERL5LIB", "NODE_OPTIONS", "GLIBC_TUNABLES", "IFS", "ESCAPES_ANY",
}

// hookRows are rows about each kind of hook: the image's environment, its working
// directory, and descriptors that are not the hook's.
func hookRows() []row {
	var rows []row
	for _, kind := range hookKinds {
		inContainer := kind == "createContainer"
		rows = append(rows, row{
			id: "CVE-2025-23266, " + kind, fixed: "–", what: "variables of the image in a " + kind + " hook",
			on: []string{"1.1.4", "crun", "1.0.0-rc93", "1.2.7", "1.4.3"}, ways: onlyRun(),
			setup: func(a *attempt) {
				hooked(a, kind)
				for _, v := range loaderVariables {
					a.spec.Process.Env = append(a.spec.Process.Env, v+"=/escapes")
				}
				a.args("/inside", "status")
			},
			reached: hookSaw("the image's variables in a hook on the host", "env ESCAPES_ANY="),
			bare:    inContainer, why: "hooks of this kind get the engine's environment", layer: "hooks get the engine's environment",
		})
	}
	rows = append(rows, row{
		id: "CVE-2025-23266, working directory", fixed: "–", what: "a createContainer hook begins in the image",
		on: []string{"1.1.4", "1.0.0-rc93", "1.4.3"}, ways: onlyRun(), bare: true,
		setup: func(a *attempt) {
			hooked(a, "createContainer")
			a.args("/inside", "status")
		},
		reached: func(a *attempt, _ result) (string, bool) {
			b, err := os.ReadFile(filepath.Join(a.dir, "notes/hook"))
			if errors.Is(err, os.ErrNotExist) {
				return "no hook ran", false
			}
			dir, _ := line(string(b), "cwd")
			if strings.HasPrefix(dir, a.root) {
				return "the hook begins in the image", true
			}
			return "the hook begins outside of the image", false
		},
		open: "the configuration has no member for the folder in which a hook begins",
	}, row{
		id: "hooks, startContainer", fixed: "–", what: "a startContainer hook, Docker's filter asked for",
		on: []string{"1.1.4", "1.0.0-rc93", "crun", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			dockerFilter(a)
			hooked(a, "startContainer")
			a.args("/inside", "status")
		},
		reached: hookSaw("the hook runs without the filter", "seccomp 0"),
		why:     "the filter is on when the hook runs", layer: "the runtime keeps the filter where there is such a hook",
	}, row{
		id: "hooks, startContainer, descriptors", fixed: "–", what: "descriptors that a startContainer hook inherits",
		on: []string{"1.1.4", "1.0.0-rc93", "crun", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			hooked(a, "startContainer")
			a.args("/inside", "status")
		},
		reached: hookOurs, why: "none of Palisade's there",
		open: "the last step and its parameters, sealed and to read only",
	}, row{
		id: "hooks, createContainer, descriptors", fixed: "–", what: "descriptors that a createContainer hook inherits",
		on: []string{"1.1.4", "1.0.0-rc93", "crun", "1.4.3"}, ways: onlyRun(),
		setup: func(a *attempt) {
			hooked(a, "createContainer")
			a.args("/inside", "status")
		},
		reached: hookOurs, why: "none of Palisade's there",
		open: "the last step and its parameters, sealed and to read only",
	})
	return rows
}

// hookOurs is reached when a hook has a descriptor of Palisade's.
func hookOurs(a *attempt, _ result) (string, bool) {
	b, err := os.ReadFile(filepath.Join(a.dir, "notes/hook"))
	if errors.Is(err, os.ErrNotExist) {
		return "no hook ran", false
	}
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, "fd ") && (strings.Contains(l, "memfd:") || strings.Contains(l, "palisade-init") || strings.Contains(l, "(deleted)")) {
			return "the hook has " + strings.TrimSpace(l), true
		}
	}
	return "the hook ran without one", false
}
