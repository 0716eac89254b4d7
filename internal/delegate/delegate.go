// SPDX-License-Identifier: Apache-2.0

// Package delegate calls the OCI runtime that does the work below Palisade.
package delegate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
)

// envRuntime names the OCI runtime to use.
const envRuntime = "PALISADE_RUNTIME"

// ErrNoRuntime says that no OCI runtime was found.
var ErrNoRuntime = errors.New("no OCI runtime found")

// FindRuntime returns the path of the OCI runtime: the one that is named, or the
// one of PALISADE_RUNTIME, or the first of runc and crun that is installed. The
// error wraps [ErrNoRuntime].
func FindRuntime(name string) (string, error) {
	if name == "" {
		name = os.Getenv(envRuntime)
	}
	names := []string{name}
	if name == "" {
		names = []string{"runc", "crun"}
	}
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return filepath.Abs(p)
		}
		if strings.ContainsRune(n, '/') {
			continue
		}
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
			p := filepath.Join(dir, n)
			if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	if name != "" {
		return "", fmt.Errorf("%s: %w", name, ErrNoRuntime)
	}
	return "", ErrNoRuntime
}

// State is what an OCI runtime says about a container.
type State = witness.Container

// command prepares a call of the runtime.
func command(r state.Runtime, args ...string) *exec.Cmd {
	return exec.Command(r.Path, append(append([]string(nil), r.Args...), args...)...)
}

// Look asks whoever keeps a container for it: the OCI runtime, or the kernel about
// the controller of a domain. found is false when it is gone.
func Look(r state.Record) (st State, found bool, err error) {
	if r.Engine != "libvirt" {
		return Query(r.Runtime, r.ID)
	}
	if !r.Controller.Alive() {
		return st, false, nil
	}
	st = State{ID: r.ID, Status: "creating"}
	if r.Init.Alive() {
		st.Status, st.PID = "running", r.Init.PID
	}
	return st, true, nil
}

// queryTimeout bounds the wait for a runtime's answer.
const queryTimeout = 30 * time.Second

// Query asks the runtime for a container. found is false when it knows none of
// that ID.
func Query(r state.Runtime, id string) (st State, found bool, err error) {
	if r.Path == "" {
		return st, false, fmt.Errorf("container %s: the record names no runtime: %w", id, ErrNoRuntime)
	}
	var stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Path, append(append([]string(nil), r.Args...), "state", id)...)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return st, false, fmt.Errorf("%s state %s: no answer within %v", filepath.Base(r.Path), id, queryTimeout)
	} else if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && notThere(stderr.String(), id) {
			return st, false, nil
		}
		return st, false, fmt.Errorf("%s state %s: %w: %s", filepath.Base(r.Path), id, err, LastLine(stderr.Bytes()))
	}
	if err := json.Unmarshal(out, &st); err == nil && st.ID != id {
		return st, false, fmt.Errorf("%s state %s: the answer is about %.128q", filepath.Base(r.Path), id, st.ID)
	} else if err != nil {
		return st, false, fmt.Errorf("%s state %s: %w", filepath.Base(r.Path), id, err)
	}
	return st, true, nil
}

// notThere recognises how the runtimes say that they know no such container. That a
// file of the runtime's own is missing is another matter.
//
// Source: runc libcontainer/error.go, ErrNotExist; crun src/libcrun/status.c,
// libcrun_read_container_status.
func notThere(message, id string) bool {
	if strings.Contains(message, "container") && strings.Contains(message, "does not exist") {
		return true
	}
	return strings.Contains(message, "/"+id+"/") && strings.Contains(message, "No such file or directory")
}

// destroy ends a container and lets the runtime forget it.
func Destroy(r state.Runtime, id string) error {
	if r.Path == "" {
		return nil
	}
	if _, found, err := Query(r, id); err == nil && !found {
		return removeUnfinished(r, id)
	}
	var stderr bytes.Buffer
	cmd := command(r, "delete", "--force", id)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil && !notThere(stderr.String(), id) {
		return fmt.Errorf("%s delete %s: %w: %s", filepath.Base(r.Path), id, err, LastLine(stderr.Bytes()))
	}
	return nil
}

// rootOf is the folder in which a runtime keeps its containers.
//
// Source: runc main.go; crun src/libcrun/status.c, get_run_directory; youki
// crates/youki/src/rootpath.rs.
func rootOf(r state.Runtime) (string, error) {
	if r.Root != "" {
		return filepath.Abs(r.Root)
	}
	dir := "/run"
	if x := os.Getenv("XDG_RUNTIME_DIR"); x != "" && os.Geteuid() != 0 {
		dir = x
	}
	for _, name := range []string{"crun", "youki"} {
		if strings.Contains(filepath.Base(r.Path), name) {
			return filepath.Join(dir, name), nil
		}
	}
	return filepath.Join(dir, "runc"), nil
}

// removeUnfinished removes the folder of a container that a runtime was killed over
// before it had written what it knows of it. The runtime itself does not find such a
// container, and refuses to make another one of the ID.
//
// Source: runc libcontainer/factory_linux.go, Create; crun src/libcrun/status.c,
// libcrun_write_container_status.
func removeUnfinished(r state.Runtime, id string) error {
	root, err := rootOf(r)
	if err != nil || !state.ValidID(id) {
		return err
	}
	folder := filepath.Join(root, id)
	for _, known := range []string{"state.json", "status"} {
		if _, err := os.Lstat(filepath.Join(folder, known)); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return os.RemoveAll(folder)
}

// LastLine is the last line of what a runtime said, without the decoration of
// its logger.
func LastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	if _, msg, ok := strings.Cut(line, " msg="); ok {
		line = strings.Trim(msg, `"`)
	}
	return line
}
