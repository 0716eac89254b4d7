// SPDX-License-Identifier: Apache-2.0

package oci

// How the tables are written: one line an option.

func onOff(name, short, help string) option {
	return option{Name: name, Short: short, Type: boolValue, Help: help}
}

func text(name, short, help string) option {
	return option{Name: name, Short: short, Type: stringValue, Help: help}
}

func file(name, short string, base pathBase, help string) option {
	return option{Name: name, Short: short, Type: stringValue, Path: base, Help: help}
}

func list(name, short, help string) option {
	return option{Name: name, Short: short, Type: stringValue, Repeat: true, Help: help}
}

func choice(name, short, help string, values ...string) option {
	return option{Name: name, Short: short, Type: stringValue, Enum: values, Help: help}
}

func number(name, short, help string, low, high int64) option {
	return option{Name: name, Short: short, Type: intValue, Min: low, Max: high, Help: help}
}

// since is an option of a version and the later ones.
func (o option) since(version string) option { o.Since = version; return o }

// until is an option that a version no longer has.
func (o option) until(version string) option { o.Until = version; return o }

// goInt is a number that may be written as in Go: 0x10, 0b1, 1_000.
func (o option) goInt() option { o.Fold = true; return o }

// dropping is a list of urfave/cli: compared with its default, which is one empty
// value, and stripped of it.
func (o option) dropping() option { o.DropsEmpty = true; return o }

// maxDescriptors bounds --preserve-fds: the kernel's own limit of a process's
// descriptors (fs.nr_open).
const maxDescriptors = 1 << 20

const maxInt32, maxInt64 = 1<<31 - 1, 1<<63 - 1

// runcGrammar is the command line of runc 1.0 to 1.5. An option that a version does not
// have is refused by runc itself, in the rebuilt line too.
//
// A relative path of create, run and restore is used after runc has changed its
// directory to the bundle, except --pid-file; of exec after it has changed to the
// container's bundle, unless --process is given.
//
// Source: runc v1.0.0, v1.1.15, v1.2.8, v1.3.3, v1.4.0, v1.5.2: main.go and one file a
// command; utils.go setupSpec, revisePidFile, reviseRootDir.
func runcGrammar(how reordering) *grammar {
	g := &grammar{
		Runtime: "runc",
		Syntax:  syntaxGoFlag,
		Reorder: how,
		IDChars: "_+-.,", // the comma up to 1.1
		Options: []option{
			onOff("debug", "", "log debug messages"),
			file("log", "", callerBase, "log file"),
			choice("log-format", "", "format of the log", "text", "json", ""),
			file("root", "", callerBase, "folder of the containers' state"),
			file("criu", "", noPath, "CRIU program, ignored since 1.2").until("1.4"),
			onOff("systemd-cgroup", "", "make control groups through systemd"),
			{
				Name: "rootless", Type: stringValue, Fold: true, Help: "ignore permission errors of control groups",
				Enum: []string{"auto", "", "true", "false", "1", "0", "t", "f"},
			},
			onOff("help", "h", "print the help"),
			onOff("version", "v", "print the version"),
		},
		Commands: []command{
			{
				Name: "create", Role: roleCreate, Min: 1, Max: 1, Help: "create a container",
				Options: runcMakes(),
			},
			{
				Name: "run", Role: roleRun, Min: 1, Max: 1, Help: "create and start a container",
				Options: append(
					runcMakes(),
					onOff("detach", "d", "do not wait for the container"),
					onOff("keep", "", "keep the container after it has ended").since("1.1"),
					onOff("no-subreaper", "", "do not reap orphaned processes"),
				),
			},
			{
				Name: "exec", Role: roleExec, Min: 1, Max: -1, InOrder: true, NeedsCommand: true,
				Help: "run a process in a container",
				Options: []option{
					file("console-socket", "", containerBase, "socket that gets the terminal"),
					file("pidfd-socket", "", containerBase, "socket that gets the process's pidfd").since("1.2"),
					text("cwd", "", "working directory in the container"),
					list("env", "e", "environment variable").dropping(),
					onOff("tty", "t", "give the process a terminal"),
					text("user", "u", "UID[:GID]"),
					{Name: "additional-gids", Short: "g", Type: intValue, Repeat: true, Max: maxInt32, Help: "further group"},
					file("process", "p", callerBase, "file with the process"),
					onOff("detach", "d", "do not wait for the process"),
					file("pid-file", "", callerBase, "file that gets the process ID"),
					text("process-label", "", "SELinux label"),
					text("apparmor", "", "AppArmor profile"),
					onOff("no-new-privs", "", "set no_new_privs"),
					list("cap", "c", "capability to add").dropping(),
					number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors).goInt(),
					list("cgroup", "", "control group below the container's").dropping().since("1.1"),
					onOff("ignore-paused", "", "in a paused container too").since("1.1"),
					onOff("no-subreaper", "", "ignored").until("1.1"),
				},
			},
			{
				Name: "restore", Role: roleRestore, Min: 1, Max: 1, Help: "restore a container from a checkpoint",
				Options: []option{
					file("console-socket", "", bundleBase, "socket that gets the terminal"),
					file("image-path", "", bundleBase, "folder of the checkpoint"),
					file("work-path", "", bundleBase, "folder for CRIU's files"),
					onOff("tcp-established", "", "with open TCP connections"),
					onOff("ext-unix-sk", "", "with external Unix sockets"),
					onOff("shell-job", "", "with shell jobs"),
					onOff("file-locks", "", "with file locks"),
					criuCgroups(),
					file("bundle", "b", callerBase, "folder of the bundle"),
					onOff("detach", "d", "do not wait for the container"),
					file("pid-file", "", callerBase, "file that gets the process ID"),
					onOff("no-subreaper", "", "do not reap orphaned processes"),
					onOff("no-pivot", "", "do not use pivot_root"),
					list("empty-ns", "", "namespace whose properties are not restored").dropping(),
					onOff("auto-dedup", "", "remove duplicates of memory images"),
					onOff("lazy-pages", "", "restore memory lazily"),
					text("lsm-profile", "", "TYPE:NAME of the LSM profile"),
					text("lsm-mount-context", "", "SELinux context of mounts").since("1.1"),
				},
			},
			{Name: "start", Role: roleStart, Min: 1, Max: 1, Help: "start a created container"},
			{
				Name: "delete", Role: roleDelete, Min: 1, Max: 1, Help: "delete a container",
				Options: []option{onOff("force", "f", "kill it first")},
			},
			{
				Name: "kill", Min: 1, Max: 2, Help: "send a signal to a container",
				Options: []option{onOff("all", "a", "to all of its processes")},
			},
			{Name: "pause", Min: 1, Max: 1, Help: "freeze a container"},
			{Name: "resume", Min: 1, Max: 1, Help: "thaw a container"},
			{Name: "state", Min: 1, Max: 1, Help: "print the state of a container"},
			{
				Name: "ps", Min: 1, Max: -1, InOrder: true, Help: "print the processes of a container",
				Options: []option{choice("format", "f", "table or json", "table", "json")},
			},
			{
				Name: "events", Min: 1, Max: 1, Help: "print events and statistics of a container",
				Options: []option{
					{Name: "interval", Type: durationValue, Help: "time between statistics"},
					onOff("stats", "", "print statistics once"),
				},
			},
			{
				Name: "list", Min: 0, Max: 0, ID: -1, Help: "print the containers",
				Options: []option{
					choice("format", "f", "table or json", "table", "json"),
					onOff("quiet", "q", "only IDs"),
				},
			},
			{
				Name: "spec", Min: 0, Max: 0, ID: -1, Help: "write a config.json",
				Options: []option{
					file("bundle", "b", callerBase, "folder of the bundle"),
					onOff("rootless", "", "for a container without root"),
				},
			},
			{
				Name: "checkpoint", Min: 1, Max: 1, Help: "checkpoint a container",
				Options: []option{
					file("image-path", "", callerBase, "folder of the checkpoint"),
					file("work-path", "", callerBase, "folder for CRIU's files"),
					file("parent-path", "", imageBase, "checkpoint before this one"),
					onOff("leave-running", "", "let the container run on"),
					onOff("tcp-established", "", "with open TCP connections"),
					onOff("tcp-skip-in-flight", "", "without TCP connections that are being made").since("1.3"),
					onOff("link-remap", "", "link removed files back").since("1.3"),
					onOff("ext-unix-sk", "", "with external Unix sockets"),
					onOff("shell-job", "", "with shell jobs"),
					onOff("lazy-pages", "", "for lazy restoring"),
					number("status-fd", "", "descriptor that says when CRIU is ready", -1, maxDescriptors).goInt(),
					text("page-server", "", "ADDRESS:PORT of the page server"),
					onOff("file-locks", "", "with file locks"),
					onOff("pre-dump", "", "memory only, and let the container run on"),
					criuCgroups(),
					list("empty-ns", "", "namespace whose properties are not saved").dropping(),
					onOff("auto-dedup", "", "remove duplicates of memory images"),
				},
			},
			{
				Name: "update", Role: roleUpdate, Min: 1, Max: 1, Help: "change the resources of a container",
				Options: append(
					updates(),
					number("blkio-weight", "", "block IO weight", 0, 1000).goInt(),
					text("cpu-burst", "", "CPU burst").since("1.2"),
					text("cpu-idle", "", "1 for SCHED_IDLE").since("1.2"),
					number("pids-limit", "", "limit of processes", -1<<31, maxInt64).goInt(),
					text("l3-cache-schema", "", "schema of the L3 cache"),
					text("mem-bw-schema", "", "schema of the memory bandwidth"),
				),
			},
			{Name: "features", Min: 0, Max: 0, ID: -1, Since: "1.1", Help: "print what the runtime can do"},
			{Name: "help", Aliases: []string{"h"}, Min: 0, Max: -1, ID: -1, Help: "print the help of a command"},
		},
	}
	for i := range g.Commands {
		c := &g.Commands[i]
		c.Options = append(c.Options, onOff("help", "h", "print the help"))
	}
	return g
}

// runcMakes are the options that create and run share.
func runcMakes() []option {
	return []option{
		file("bundle", "b", callerBase, "folder of the bundle"),
		file("console-socket", "", bundleBase, "socket that gets the terminal"),
		file("pidfd-socket", "", bundleBase, "socket that gets the process's pidfd").since("1.2"),
		file("pid-file", "", callerBase, "file that gets the process ID"),
		onOff("no-pivot", "", "do not use pivot_root"),
		onOff("no-new-keyring", "", "keep the session keyring"),
		number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors).goInt(),
	}
}

// criuCgroups is how CRIU treats control groups.
func criuCgroups() option {
	return choice("manage-cgroups-mode", "", "what to do with control groups", "soft", "full", "strict", "ignore", "")
}

// updates are the options of update that runc and crun share.
func updates() []option {
	out := []option{{
		Name: "resources", Short: "r", Type: stringValue, Path: callerBase, Literal: map[string]pathBase{"-": noPath},
		Help: "file with the resources, - for the standard input",
	}}
	for _, name := range []string{
		"cpu-period", "cpu-quota", "cpu-share", "cpu-rt-period", "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems",
		"kernel-memory", "kernel-memory-tcp", "memory", "memory-reservation", "memory-swap",
	} {
		out = append(out, text(name, "", "resource"))
	}
	return out
}
