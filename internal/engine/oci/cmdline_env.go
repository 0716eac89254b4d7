// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"slices"
	"strings"
)

// variable is a variable of the environment that changes what a runtime does.
type variable struct {
	// Name, or the beginning of names where it ends with a star.
	Name string
	// Unset says that an engine has no reason to set it: it belongs between two
	// processes of one runtime.
	Unset bool
	// Effect is what it changes.
	Effect string
}

// environment lists what runc 1.0 to 1.5, crun 1.8 to 1.29 and youki read, and what
// the libraries read that take their command lines apart. The tables of runc bind
// no option to a variable.
var environment = []variable{
	{"_LIBCONTAINER_*", true, "the descriptors and the kind of a process between runc and its init; crun and runc up to 1.1: that the program was copied already"},
	{"POSIXLY_CORRECT", true, "getopt ends options at the first argument"},
	{"ARGP_HELP_FMT", true, "argp prints an error of the layout of its help"},
	{"_CLI_ZSH_AUTOCOMPLETE_HACK", true, "urfave/cli prints names for a shell"},
	{"CLI_TEMPLATE_ERROR_DEBUG", true, "urfave/cli prints errors of its help"},
	{"XDG_RUNTIME_DIR", false, "the state root: crun always, runc and youki when they are not root of the host"},
	{"HOME", false, "the state root of youki, when nothing else can be written"},
	{"USER", false, "runc as root of a user namespace takes /run/runc when it is root"},
	{"NOTIFY_SOCKET", false, "a bind mount at /run/notify and a variable of the container are added"},
	{"LISTEN_FDS", false, "descriptors from 3 on are handed to the container"},
	{"LISTEN_PID", false, "the process that LISTEN_FDS is for: runc since 1.2 obeys it"},
	{"LISTEN_FDNAMES", false, "names of the descriptors"},
	{"RUN_OCI_SECCOMP_RECEIVER", false, "crun: the socket that gets the listener of a filter that notifies"},
	{"DBUS_SESSION_BUS_ADDRESS", false, "where systemd is asked for control groups"},
	{"GOMAXPROCS", false, "runc hands it to its init"},
}

// cleanEnvironment leaves out the variables that are to be unset before a runtime
// is started. The result shares no memory with env.
func cleanEnvironment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(environment, func(v variable) bool {
			begin, star := strings.CutSuffix(v.Name, "*")
			return v.Unset && (name == v.Name || star && strings.HasPrefix(name, begin))
		})
	})
}
