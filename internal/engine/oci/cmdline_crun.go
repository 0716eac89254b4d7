// SPDX-License-Identifier: Apache-2.0

package oci

import "slices"

// crunGrammar is the command line of crun 1.8 to 1.29, as far as the given version has
// it; all of it for an empty version.
//
// create, run and restore change their directory to the bundle before they use
// any other path: --log, --root, --pid-file and --console-socket are relative to
// the bundle there, and to the caller in all other commands.
//
// Source: crun 1.8.1 and 1.29.1: src/crun.c, src/run_create.c and one file a command;
// src/libcrun/status.c validate_id.
func crunGrammar(version string) *grammar {
	inBundle := map[string]pathBase{"create": bundleBase, "run": bundleBase, "restore": bundleBase}
	root := file("root", "", callerBase, "folder of the containers' state")
	root.PathIn = inBundle
	log := file("log", "", callerBase, "log: [file:]PATH, journald:ID or syslog:ID")
	log.PathIn = inBundle
	g := &grammar{
		Runtime: "crun",
		Version: version,
		Syntax:  syntaxArgp,
		IDChars: "_+-.",
		Options: []option{
			onOff("debug", "", "log debug messages"),
			choice("cgroup-manager", "", "cgroupfs, systemd or disabled", "cgroupfs", "systemd", "disabled"),
			onOff("systemd-cgroup", "", "make control groups through systemd"),
			log,
			choice("log-format", "", "format of the log", "text", "json"),
			choice("log-level", "", "error, warning or debug", "error", "warning", "debug").since("1.17"),
			root,
			text("rootless", "", "ignored").since("1.22"),
			onOff("version", "vV", "print the version"),
		},
		Commands: []command{
			{
				Name: "create", Role: roleCreate, Min: 1, Max: 1, Help: "create a container",
				Options: crunMakes(),
			},
			{
				Name: "run", Role: roleRun, Min: 1, Max: 1, Help: "create and start a container",
				Options: append(
					crunMakes(),
					onOff("detach", "d", "do not wait for the container"),
					onOff("keep", "", "keep the container after it has ended").since("1.15"),
				),
			},
			{
				Name: "exec", Role: roleExec, Min: 1, Max: -1, InOrder: true, NeedsCommand: true,
				Help: "run a process in a container",
				Options: []option{
					file("console-socket", "", callerBase, "socket that gets the terminal"),
					{Name: "tty", Short: "t", Type: optionalBool, Help: "give the process a terminal"},
					nonEmpty(file("process", "p", callerBase, "file with the process")),
					text("cwd", "", "working directory in the container"),
					text("cgroup", "", "control group below the container's"),
					onOff("detach", "d", "do not wait for the process"),
					text("user", "u", "UID[:GID]"),
					list("env", "e", "environment variable"),
					list("cap", "c", "capability to add"),
					file("pid-file", "", callerBase, "file that gets the process ID"),
					number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors),
					onOff("no-new-privs", "", "set no_new_privs"),
					text("process-label", "", "SELinux label"),
					text("apparmor", "", "AppArmor profile"),
				},
			},
			{
				Name: "restore", Role: roleRestore, Min: 1, Max: 2, Help: "restore a container from a checkpoint",
				Options: []option{
					nonEmpty(file("bundle", "b", callerBase, "folder of the bundle")),
					{Name: "image-path", Type: stringValue, Path: bundleBase, Default: "checkpoint", Help: "folder of the checkpoint"},
					file("work-path", "", bundleBase, "folder for CRIU's files"),
					onOff("tcp-established", "", "with open TCP connections"),
					onOff("tcp-close", "", "without TCP connections").since("1.23"),
					onOff("ext-unix-sk", "", "with external Unix sockets"),
					onOff("shell-job", "", "with shell jobs"),
					onOff("detach", "d", "do not wait for the container"),
					file("pid-file", "", bundleBase, "file that gets the process ID"),
					file("console-socket", "", bundleBase, "socket that gets the terminal"),
					onOff("file-locks", "", "with file locks"),
					crunCgroups(),
					crunNetworkLock(),
					text("lsm-profile", "", "TYPE:NAME of the LSM profile").since("1.18"),
					text("lsm-mount-context", "", "SELinux context of mounts").since("1.18"),
				},
			},
			{Name: "start", Role: roleStart, Min: 1, Max: 1, Help: "start a created container"},
			{
				Name: "delete", Role: roleDelete, Min: 1, Max: 1, Pattern: "regex", Help: "delete a container",
				Options: []option{onOff("force", "f", "kill it first"), onOff("regex", "r", "all that match the ID")},
			},
			{
				Name: "kill", Min: 1, Max: 2, Pattern: "regex", Help: "send a signal to a container",
				Options: []option{onOff("all", "a", "to all of its processes"), onOff("regex", "r", "all that match the ID")},
			},
			{Name: "pause", Min: 1, Max: 2, Help: "freeze a container"},
			{Name: "resume", Min: 1, Max: 2, Help: "thaw a container"},
			{Name: "state", Min: 1, Max: 1, Help: "print the state of a container"},
			{
				Name: "ps", Min: 1, Max: 1, Help: "print the processes of a container",
				Options: []option{choice("format", "f", "table or json", "table", "json")},
			},
			{
				Name: "list", Min: 0, Max: 0, ID: -1, Help: "print the containers",
				Options: []option{onOff("quiet", "q", "only IDs"), choice("format", "f", "table or json", "table", "json")},
			},
			{
				Name: "spec", Min: 0, Max: 0, ID: -1, Help: "write a config.json",
				Options: []option{
					nonEmpty(file("bundle", "b", callerBase, "folder of the bundle")),
					file("file", "f", bundleBase, "file to write"),
					onOff("rootless", "", "for a container without root"),
				},
			},
			{
				Name: "checkpoint", Min: 1, Max: 2, Help: "checkpoint a container",
				Options: []option{
					file("image-path", "", callerBase, "folder of the checkpoint"),
					file("work-path", "", callerBase, "folder for CRIU's files"),
					onOff("leave-running", "", "let the container run on"),
					onOff("tcp-established", "", "with open TCP connections"),
					onOff("ext-unix-sk", "", "with external Unix sockets"),
					onOff("shell-job", "", "with shell jobs"),
					onOff("file-locks", "", "with file locks"),
					crunNetworkLock(),
					file("parent-path", "", imageBase, "checkpoint before this one"),
					onOff("pre-dump", "", "memory only, and let the container run on"),
					crunCgroups(),
				},
			},
			{
				Name: "update", Role: roleUpdate, Min: 1, Max: 1, Help: "change the resources of a container",
				Options: append(
					crunUpdates(),
					text("l3-cache-schema", "", "schema of the L3 cache").since("1.10"),
					text("mem-bw-schema", "", "schema of the memory bandwidth").since("1.10"),
				),
			},
			{Name: "features", Min: 0, Max: 0, ID: -1, Since: "1.8.6", Help: "print what the runtime can do"},
			{Name: "mounts", Role: roleMounts, Min: 3, Max: 3, ID: 1, Since: "1.22", Help: "add or remove mounts of a running container"},
		},
	}
	if version != "" && older(version, "1.22") {
		// It is read as --root there.
		i := slices.IndexFunc(g.Options, func(o option) bool { return o.Name == "root" })
		g.Options[i].Aliases = []string{"rootless"}
	}
	g.Options = append(g.Options, argpOwn()...)
	for i := range g.Commands {
		g.Commands[i].Options = append(g.Commands[i].Options, argpOwn()...)
	}
	return g.at(version)
}

// argpOwn are the options that argp adds by itself. The last two are not in its
// help; abbreviations have to differ from them too.
func argpOwn() []option {
	return []option{
		onOff("help", "?", "print the help"),
		onOff("usage", "", "print a short help"),
		{Name: "program-name", Type: stringValue, Refuse: "it only changes messages"},
		{Name: "HANG", Type: optionalBool, Refuse: "it is for a debugger"},
	}
}

// crunMakes are the options that create and run share.
func crunMakes() []option {
	config := nonEmpty(file("config", "f", callerBase, "file in place of config.json"))
	config.Literal = map[string]pathBase{"config.json": bundleBase}
	return []option{
		nonEmpty(file("bundle", "b", callerBase, "folder of the bundle")),
		config,
		file("console-socket", "", bundleBase, "socket that gets the terminal"),
		number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors),
		onOff("no-pivot", "", "do not use pivot_root"),
		file("pid-file", "", bundleBase, "file that gets the process ID"),
		onOff("no-subreaper", "", "do not reap orphaned processes"),
		onOff("no-new-keyring", "", "keep the session keyring"),
	}
}

func crunCgroups() option {
	return choice("manage-cgroups-mode", "", "what to do with control groups", "soft", "ignore", "full", "strict")
}

// crunNetworkLock takes its value only as a word of its own, since the table of
// crun has it as a switch.
func crunNetworkLock() option {
	o := choice("network-lock", "", "how the network is locked", "iptables", "nftables", "skip")
	o.Separate = true
	return o.since("1.19")
}

// crunUpdates are the options of update. crun puts each one into a JSON object, so
// that a second value of a name is a second key.
func crunUpdates() []option {
	out := append(updates(), text("blkio-weight", "", "block IO weight"), text("pids-limit", "", "limit of processes"))
	for i := range out {
		out[i].Literal = nil
		out[i].Once = out[i].Name != "resources"
	}
	return out
}

// nonEmpty is an option of which the runtime refuses an empty value.
func nonEmpty(o option) option { o.NonEmpty = true; return o }
