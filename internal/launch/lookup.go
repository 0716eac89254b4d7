// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CommandError says that a command cannot be executed. Its text has the words
// that engines look for in what a runtime says.
type CommandError struct {
	Command string
	// Code is the exit code that shells have for it: 127 for a command that is not
	// there, 126 for one that cannot be executed.
	Code int
	Err  error
}

// Exit codes of a command that cannot be executed, as shells have them.
const (
	exitNoExec   = 126
	exitNotFound = 127
)

var errNotInPath = errors.New("executable file not found in $PATH")

func (e *CommandError) Error() string { return fmt.Sprintf("exec: %q: %v", e.Command, e.Err) }

func (e *CommandError) Unwrap() error { return e.Err }

// lookCommand looks for a command as its process will, in the root of the process
// init. The error is a [*CommandError]. What cannot be decided from outside passes:
// the last step decides it.
func lookCommand(init int, command, cwd string, env []string) error {
	root, err := unix.Open("/proc/"+strconv.Itoa(init)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/" + strconv.Itoa(init) + "/root", Err: err}
	}
	defer unix.Close(root)
	return lookIn(root, command, cwd, env)
}

func lookIn(root int, command, cwd string, env []string) error {
	if command == "" {
		return &CommandError{command, exitNotFound, errNotInPath}
	}
	if strings.Contains(command, "/") {
		if name := path.Clean(inFolder(cwd, command)); name == "/proc" || strings.HasPrefix(name, "/proc/") {
			return nil // what is there depends on the process that looks
		}
		if err := executable(root, inFolder(cwd, command)); err != nil {
			return &CommandError{command, codeOf(err), err}
		}
		return nil
	}
	var denied error
	for _, dir := range strings.Split(searchPath(env), ":") {
		switch err := executable(root, path.Join(inFolder(cwd, dir), command)); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EACCES):
			denied = err
		}
	}
	if denied != nil {
		return &CommandError{command, exitNoExec, denied}
	}
	return &CommandError{command, exitNotFound, errNotInPath}
}

func codeOf(err error) int {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return exitNotFound
	}
	return exitNoExec
}

func inFolder(cwd, name string) string {
	if path.IsAbs(name) {
		return name
	}
	if cwd == "" {
		cwd = "/"
	}
	return cwd + "/" + name
}

// defaultSearchPath is where the last step looks without a PATH.
const defaultSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// searchPath is the value of the last PATH, as the last step reads it.
func searchPath(env []string) string {
	value := defaultSearchPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok && v != "" {
			value = v
		}
	}
	return value
}

// executable reports whether a path inside a root is a file that can be executed.
// It opens nothing but a name: no device, pipe or slow file system is touched.
func executable(root int, name string) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP:
		if err == unix.ELOOP {
			return nil // a link of /proc: the process itself finds out
		}
		return err
	default:
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	case st.Mode&0o111 == 0:
		return unix.EACCES
	}
	return nil
}
