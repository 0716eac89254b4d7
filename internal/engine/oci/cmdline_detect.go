// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// detected is what was found out about the runtime at a path.
type detected struct {
	// Runtime is runc, crun or youki.
	Runtime string `json:"runtime"`
	// Version is the number that --version prints.
	Version string `json:"version"`
	// Reorder is how a runc moves options.
	Reorder reordering `json:"reorder,omitempty"`
	// Output is what --version printed.
	Output string `json:"output,omitempty"`
}

// grammar is the command line of the runtime.
func (d detected) grammar() (*grammar, error) {
	switch d.Runtime {
	case "runc":
		g := runcGrammar(d.Reorder)
		g.Version = d.Version
		return g, nil
	case "crun":
		return crunGrammar(d.Version), nil
	case "youki":
		g := youkiGrammar()
		g.Version = d.Version
		return g, nil
	}
	return nil, fmt.Errorf("no command line is known for runtime %q", d.Runtime)
}

// versionCache keeps what was detected, by a key that changes with the file. A missing or
// damaged entry costs two calls of the runtime, no more.
type versionCache interface {
	Load(key string) (detected, bool)
	Store(key string, d detected)
}

// unknownRuntimeError is a program of which it is not known how it reads its
// command line.
type unknownRuntimeError struct {
	Path string
	// Output is the beginning of what --version printed.
	Output string
	Err    error
}

func (e *unknownRuntimeError) Error() string {
	msg := "detect runtime " + e.Path + ": "
	switch {
	case e.Err != nil:
		msg += "--version: " + e.Err.Error()
	default:
		msg += "--version says " + quote(e.Output) + ", want runc, crun or youki"
	}
	return msg + "; name one of these with --palisade-runtime or \"runtime\" in the configuration"
}

func (e *unknownRuntimeError) Unwrap() error { return e.Err }

const (
	detectTimeout = 5 * time.Second
	maxVersion    = 4096
)

// detect finds out which runtime the program at an absolute path is, by asking it
// for its version; so a script that executes runc is runc. The answer is kept in
// the cache, which may be nil, under the path and the identity of the file. What a
// script executes may change without it; a rebuilt line is safe all the same, since
// each runtime either reads --name=value as it is meant or refuses it.
//
// The error is an [*unknownRuntimeError], or one of looking at the file.
func detect(path string, cache versionCache) (*grammar, detected, error) {
	key, err := fileKey(path)
	if err != nil {
		return nil, detected{}, err
	}
	if cache != nil {
		if d, ok := cache.Load(key); ok {
			if g, err := d.grammar(); err == nil {
				return g, d, nil
			}
		}
	}
	d, err := ask(path)
	if err != nil {
		return nil, detected{}, err
	}
	g, err := d.grammar()
	if err != nil {
		return nil, detected{}, &unknownRuntimeError{Path: path, Output: d.Output}
	}
	if cache != nil {
		cache.Store(key, d)
	}
	return g, d, nil
}

// fileKey names a file as it is now.
func fileKey(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("detect runtime %s: not an absolute path", path)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("detect runtime: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("detect runtime %s: not a file", path)
	}
	var dev, ino uint64
	var changed syscall.Timespec
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		dev, ino, changed = uint64(st.Dev), st.Ino, st.Ctim
	}
	return fmt.Sprintf("%s %d:%d %d %d %d.%09d", path, dev, ino, fi.Size(), fi.ModTime().UnixNano(), changed.Sec, changed.Nsec), nil
}

// ask runs the program.
func ask(path string) (detected, error) {
	out, err := query(path, "--version")
	d := detected{Output: out}
	first, _, _ := strings.Cut(out, "\n")
	// "runc version 1.1.5+ds1", "crun version 1.8.1", "youki version: 0.5.7"
	words := strings.Fields(strings.Replace(first, "version:", "version", 1))
	if len(words) >= 3 && words[1] == "version" {
		d.Runtime, d.Version = strings.ToLower(words[0]), words[2]
	} else if err != nil {
		return d, &unknownRuntimeError{Path: path, Output: out, Err: err}
	}
	if d.Runtime == "runc" {
		d.Reorder = askReorder(path)
	}
	return d, nil
}

// askReorder finds out how a runc moves options. A word with a dash that is no
// option of the command is one argument too many for the one way and an unknown
// option for the other; neither does anything.
func askReorder(path string) reordering {
	out, err := query(path, "list", "palisade", "-zz")
	var exit *exec.ExitError
	switch {
	case !errors.As(err, &exit):
	case strings.Contains(out, "flag provided but not defined: -zz"):
		return reorderDashes
	case strings.Contains(out, "requires exactly 0 argument"):
		return reorderKnownOptions
	}
	return reorderUnknown
}

// query runs the program and returns the beginning of what it prints.
func query(path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), detectTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = detectTimeout
	cmd.Env = cleanEnvironment(os.Environ())
	cmd.Dir = "/"
	out := &limited{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v", detectTimeout)
	}
	return string(out.b), err
}

// limited keeps the first bytes that are written to it.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(maxVersion-len(l.b), len(p))]...)
	return len(p), nil
}
