// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// call is one command line of an OCI runtime, taken apart as far as needed.
type call struct {
	own     map[string]string // --palisade-NAME
	global  []string          // flags before the command
	command string
	flags   []string // flags of the command
	rest    []string // what follows them: the ID, and of exec the command
}

// ownPrefix begins the flags that are for Palisade and not passed on.
const ownPrefix = "palisade-"

// withValue are the flags that take the next argument as their value, by
// command; "" stands for those before the command. Other flags are switches, or
// have their value behind an equals sign.
//
// Source: runc main.go, create.go, run.go, exec.go, delete.go; crun src/crun.c,
// src/create.c, src/run.c, src/exec.c.
var withValue = map[string][]string{
	"":       {"log", "log-format", "log-level", "root", "criu", "rootless", "cgroup-manager"},
	"create": {"bundle", "b", "console-socket", "pidfd-socket", "pid-file", "preserve-fds", "config", "f"},
	"run":    {"bundle", "b", "console-socket", "pidfd-socket", "pid-file", "preserve-fds", "config", "f"},
	"exec": {
		"process", "p", "console-socket", "pidfd-socket", "cwd", "env", "e", "user", "u", "additional-gids", "g",
		"pid-file", "process-label", "apparmor", "cap", "c", "preserve-fds", "cgroup",
	},
}

// parseArgs takes a command line apart. It does not judge it: what the runtime
// will refuse is left to the runtime to refuse.
func parseArgs(args []string) (call, error) {
	c := call{own: map[string]string{}}
	i := 0
	for i < len(args) && isFlag(args[i]) {
		name, value, given := cutFlag(args[i])
		if own, ok := strings.CutPrefix(name, ownPrefix); ok {
			if !given {
				i++
				if i == len(args) {
					return c, fmt.Errorf("flag --%s wants a value", name)
				}
				value = args[i]
			}
			c.own[own] = value
			i++
			continue
		}
		c.global = append(c.global, args[i])
		if !given && slices.Contains(withValue[""], name) && i+1 < len(args) {
			i++
			c.global = append(c.global, args[i])
		}
		i++
	}
	if i == len(args) {
		return c, nil
	}
	c.command = args[i]
	i++
	for i < len(args) && isFlag(args[i]) {
		c.flags = append(c.flags, args[i])
		name, _, given := cutFlag(args[i])
		i++
		if !given && slices.Contains(withValue[c.command], name) && i < len(args) {
			c.flags = append(c.flags, args[i])
			i++
		}
		if name == "" { // "--" ends the flags
			break
		}
	}
	c.rest = args[i:]
	return c, nil
}

func isFlag(s string) bool { return len(s) > 1 && s[0] == '-' }

func cutFlag(s string) (name, value string, given bool) {
	return strings.Cut(strings.TrimLeft(s, "-"), "=")
}

// args is the command line for the runtime.
func (c *call) args() []string {
	out := slices.Clone(c.global)
	if c.command != "" {
		out = append(out, c.command)
	}
	return slices.Concat(out, c.flags, c.rest)
}

// id is the container that the command is about.
func (c *call) id() string {
	if len(c.rest) == 0 {
		return ""
	}
	return c.rest[0]
}

// flag is the value of the last of the flags with one of these names.
func flag(flags []string, names ...string) (value string, given bool) {
	for i, f := range flags {
		if !isFlag(f) {
			continue
		}
		name, v, eq := cutFlag(f)
		if !slices.Contains(names, name) {
			continue
		}
		given = true
		switch {
		case eq:
			value = v
		case i+1 < len(flags):
			value = flags[i+1]
		}
	}
	return value, given
}

// preserved is the value of --preserve-fds.
func (c *call) preserved() (int, error) {
	v, given := flag(c.flags, "preserve-fds")
	if !given {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("--preserve-fds %q: not a number", v)
	}
	return n, nil
}

// setPreserved replaces --preserve-fds.
func (c *call) setPreserved(n int) {
	var out []string
	for i := 0; i < len(c.flags); i++ {
		name, _, eq := cutFlag(c.flags[i])
		if isFlag(c.flags[i]) && name == "preserve-fds" {
			if !eq {
				i++
			}
			continue
		}
		out = append(out, c.flags[i])
	}
	// In front, so that it stays a flag when "--" ends them.
	c.flags = slices.Concat([]string{"--preserve-fds", strconv.Itoa(n)}, out)
}
