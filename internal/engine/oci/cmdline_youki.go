// SPDX-License-Identifier: Apache-2.0

package oci

// youkiGrammar is the command line of youki 0.5 to 0.6. It has no restore, and its
// checkpoint is spelled checkpointt.
//
// No binary of youki was compared with this table: it is read from the sources.
//
// Source: youki crates/liboci-cli/src, crates/youki/src/main.rs, commands/info.rs,
// commands/completion.rs; crates/libcontainer/src/tty.rs setup_console_socket,
// container/builder.rs with_pid_file.
func youkiGrammar() *grammar {
	u := func(name, help string) option { return number(name, "", help, 0, maxInt64) }
	g := &grammar{
		Runtime: "youki",
		Syntax:  syntaxClap,
		IDChars: "_+-.",
		Options: []option{
			nonEmpty(file("log", "l", callerBase, "log file")),
			onOff("debug", "", "log debug messages"),
			choice("log-format", "", "format of the log", "text", "json"),
			nonEmpty(file("root", "r", callerBase, "folder of the containers' state")),
			onOff("systemd-cgroup", "s", "make control groups through systemd"),
			onOff("systemd-log", "", "log to the journal"),
			{
				Name: "log-level", Type: stringValue, Fold: true, Help: "level of the log",
				Enum: []string{"error", "warn", "info", "debug", "trace", "1", "2", "3", "4", "5"},
			},
			onOff("version", "v", "print the version"),
		},
		Commands: []command{
			{Name: "create", Role: roleCreate, Min: 1, Max: 1, Help: "create a container", Options: youkiMakes()},
			{
				Name: "run", Role: roleRun, Min: 1, Max: 1, Help: "create and start a container",
				Options: append(
					youkiMakes(),
					onOff("no-subreaper", "", "do not reap orphaned processes"),
					onOff("keep", "", "keep the container after it has ended"),
					onOff("detach", "d", "do not wait for the container"),
				),
			},
			{
				Name: "exec", Role: roleExec, Min: 1, Max: -1, InOrder: true, NeedsCommand: true,
				Help: "run a process in a container",
				Options: []option{
					nonEmpty(file("console-socket", "", stateBase, "socket that gets the terminal")),
					nonEmpty(text("cwd", "", "working directory in the container")),
					{Name: "env", Short: "e", Type: pairValue, Repeat: true, Help: "environment variable"},
					onOff("tty", "t", "give the process a terminal"),
					nonEmpty(text("user", "u", "UID[:GID]")),
					{Name: "additional-gids", Short: "g", Type: intValue, Repeat: true, Max: 1<<32 - 1, Help: "further group"},
					nonEmpty(file("process", "p", callerBase, "file with the process")),
					onOff("detach", "d", "do not wait for the process"),
					nonEmpty(file("pid-file", "", callerBase, "file that gets the process ID")),
					text("process-label", "", "SELinux label"),
					text("apparmor", "", "AppArmor profile"),
					onOff("no-new-privs", "", "set no_new_privs"),
					list("cap", "", "capability to add"),
					number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors),
					onOff("ignore-paused", "", "in a paused container too"),
					text("cgroup", "", "control group below the container's"),
				},
			},
			{Name: "start", Role: roleStart, Min: 1, Max: 1, Help: "start a created container"},
			{
				Name: "delete", Role: roleDelete, Min: 1, Max: 1, Help: "delete a container",
				Options: []option{onOff("force", "f", "kill it first")},
			},
			{
				Name: "kill", Min: 2, Max: 2, Help: "send a signal to a container",
				Options: []option{onOff("all", "a", "to all of its processes")},
			},
			{Name: "pause", Min: 1, Max: 1, Help: "freeze a container"},
			{Name: "resume", Min: 1, Max: 1, Help: "thaw a container"},
			{Name: "state", Min: 1, Max: 1, Help: "print the state of a container"},
			{
				Name: "ps", Min: 1, Max: -1, InOrder: true, HyphenArgs: true, Help: "print the processes of a container",
				Options: []option{choice("format", "f", "table or json", "table", "json")},
			},
			{
				Name: "events", Min: 1, Max: 1, Help: "print events and statistics of a container",
				Options: []option{
					number("interval", "", "seconds between statistics", 0, 1<<32-1),
					onOff("stats", "", "print statistics once"),
				},
			},
			{
				Name: "list", Min: 0, Max: 0, ID: -1, Help: "print the containers",
				Options: []option{choice("format", "", "table or json", "table", "json"), onOff("quiet", "q", "only IDs")},
			},
			{
				Name: "spec", Min: 0, Max: 0, ID: -1, Help: "write a config.json",
				Options: []option{
					nonEmpty(file("bundle", "b", callerBase, "folder of the bundle")),
					onOff("rootless", "", "for a container without root"),
				},
			},
			{
				Name: "checkpointt", Min: 1, Max: 1, Help: "checkpoint a container",
				Options: []option{
					nonEmpty(file("image-path", "", callerBase, "folder of the checkpoint")),
					nonEmpty(file("work-path", "", callerBase, "folder for CRIU's files")),
					onOff("leave-running", "", "let the container run on"),
					onOff("tcp-established", "", "with open TCP connections"),
					onOff("tcp-skip-in-flight", "", "without TCP connections that are being made"),
					onOff("link-remap", "", "link removed files back"),
					onOff("ext-unix-sk", "", "with external Unix sockets"),
					onOff("shell-job", "", "with shell jobs"),
					onOff("file-locks", "", "with file locks"),
					choice("manage-cgroups-mode", "", "what to do with control groups", "soft", "ignore", "full", "strict"),
				},
			},
			{
				Name: "update", Role: roleUpdate, Min: 1, Max: 1, Help: "change the resources of a container",
				Options: []option{
					{
						Name: "resources", Short: "r", Type: stringValue, NonEmpty: true, Path: callerBase, Literal: map[string]pathBase{"-": noPath},
						Help: "file with the resources, - for the standard input",
					},
					u("blkio-weight", "resource"), u("cpu-period", "resource"), u("cpu-quota", "resource"),
					u("cpu-rt-period", "resource"), u("cpu-rt-runtime", "resource"), u("cpu-share", "resource"),
					text("cpuset-cpus", "", "resource"), text("cpuset-mems", "", "resource"),
					u("memory", "resource"), u("memory-reservation", "resource"),
					number("memory-swap", "", "resource", -1<<63, maxInt64),
					number("pids-limit", "", "resource", -1<<63, maxInt64),
					text("l3-cache-schema", "", "schema of the L3 cache"),
					text("mem-bw-schema", "", "schema of the memory bandwidth"),
				},
			},
			{Name: "features", Min: 0, Max: 0, ID: -1, Help: "print what the runtime can do"},
			{Name: "info", Min: 0, Max: 0, ID: -1, Help: "print facts of the host"},
			{
				Name: "completion", Min: 0, Max: 0, ID: -1, Help: "print a script for a shell",
				Options: []option{choice("shell", "s", "name of the shell", "bash", "elvish", "fish", "powershell", "zsh")},
			},
			{Name: "help", Min: 0, Max: -1, ID: -1, Help: "print the help of a command"},
		},
	}
	g.Options = append(g.Options, onOff("help", "h", "print the help"))
	for i := range g.Commands {
		if c := &g.Commands[i]; c.Name != "help" {
			c.Options = append(c.Options, onOff("help", "h", "print the help"))
		}
	}
	return g
}

// youkiMakes are the options that create and run share. A relative --console-socket
// is put into a symbolic link in the container's folder.
func youkiMakes() []option {
	return []option{
		nonEmpty(file("bundle", "b", callerBase, "folder of the bundle")),
		nonEmpty(file("console-socket", "c", stateBase, "socket that gets the terminal")),
		nonEmpty(file("pid-file", "p", callerBase, "file that gets the process ID")),
		onOff("no-pivot", "", "do not use pivot_root"),
		onOff("no-new-keyring", "", "keep the session keyring"),
		number("preserve-fds", "", "further descriptors to hand on", 0, maxDescriptors),
	}
}
