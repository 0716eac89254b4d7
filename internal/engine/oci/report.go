// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/policy"
)

// failed is the exit code of what went wrong here rather than in the runtime.
const failed = 125

// log is where engines look for what a runtime says: standard error, and the file
// that they name with --log.
type log struct{ path, format string }

func (l log) error(err error) { l.write("error", oneLine(err)) }

func (l log) warn(err error) { l.write("warning", "warning: "+oneLine(err)) }

// tellDropped names in the engine's log the capabilities that were asked for and that
// the policy takes away. It is told of what has begun: engines read the log of what
// has failed as one error.
func (w *wrapper) tellDropped(asked *specs.LinuxCapabilities, p policy.Policy) {
	if asked == nil {
		return
	}
	var all caps.Set
	for _, names := range [][]string{asked.Bounding, asked.Effective, asked.Permitted, asked.Inheritable, asked.Ambient} {
		for _, name := range names {
			if c, err := caps.Parse(name); err == nil {
				all = all.With(c)
			}
		}
	}
	if gone := all.Minus(p.Capabilities); gone != 0 {
		w.log.append("warning", fmt.Sprintf("%s: warning: container %s: policy %s takes away %s", program, w.call.ID, p.Name, strings.Join(gone.Names(), ", ")))
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

func (l log) write(level, text string) {
	msg := program + ": " + text
	fmt.Fprintln(os.Stderr, msg)
	l.append(level, msg)
}

// size is how much the log file holds; -1 without one.
func (l log) size() int64 {
	if l.path == "" {
		return -1
	}
	fi, err := os.Stat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0
	case err != nil || !fi.Mode().IsRegular():
		return -1
	}
	return fi.Size()
}

// append writes to the log file alone.
func (l log) append(level, msg string) {
	if l.path == "" {
		return
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOCTTY|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	now := time.Now().UTC().Format(time.RFC3339)
	if l.format == "json" {
		line, _ := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now}) // strings never fail
		fmt.Fprintf(f, "%s\n", line)
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, msg)
}

const program = "palisade-oci"

// logOf finds where a command line that was not understood wants errors to be
// told. It is a guess, and nothing but the message depends on it.
func logOf(args []string) log {
	var l log
	for i, a := range args {
		name, value, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || name != "log" && name != "log-format" {
			continue
		}
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		if name == "log" {
			l.path = value
		} else {
			l.format = value
		}
	}
	return l
}
