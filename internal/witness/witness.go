// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package witness says of a container without a readable record whether it is one
// of Palisade's, and whether anything of it is left.
//
// A record can be lost, be damaged, or lie in another state directory. What was done
// to the container is still seen in its runtime's state and on its processes, so
// that no record does not come to mean no confinement. Both answers err on the safe
// side: in doubt a container is ours, and something of it is left.
package witness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt"
)

// Container is what an OCI runtime says about one.
type Container struct {
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	PID         int               `json:"pid"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations"`
}

// Query asks a runtime for a container; found is false when it knows none of that ID.
type Query func(r state.Runtime, id string) (c Container, found bool, err error)

// ErrNoRecord says that a container was confined by Palisade and that this state
// directory has no record of it. Nothing can be started in it with what confines the
// others, so nothing may be.
var ErrNoRecord = errors.New("Palisade confined this container and its record is not here")

// noRecordError is an [ErrNoRecord].
type noRecordError struct {
	ID string
	// State is the state directory that was asked, Other the one in which the
	// container was made, if that is known.
	State, Other string
	// Evidence is what shows that the container is ours.
	Evidence []string
}

func (e *noRecordError) Error() string {
	mend := "stop it with its engine, and start it again"
	where := "state directory " + e.State + " has no record of it"
	if e.Other != "" && e.Other != e.State {
		where = "it was made with state directory " + e.Other + ", and this is " + e.State
		mend = "use " + e.Other + " (" + state.EnvDir + ", or \"state\" in the configuration of palisade-oci)"
	}
	return fmt.Sprintf("container %.128s: %v: %s (%s); %s", e.ID, ErrNoRecord, where, strings.Join(e.Evidence, "; "), mend)
}

// Unwrap gives [ErrNoRecord].
func (e *noRecordError) Unwrap() error { return ErrNoRecord }

// Annotations that Palisade alone writes begin so; those of requests, which an engine
// or an image may bring, are no evidence.
const annotationPrefix = "io.github.palisade-sec."

var requests = map[string]bool{annotationPrefix + "request": true, annotationPrefix + "selinux": true}

// Verdict is what is known about a container without a record.
type Verdict struct {
	// Ours reports whether Palisade confined it; Evidence says why. Other is the
	// state directory that it was made with, empty when that is not known.
	Ours     bool
	Evidence []string
	Other    string
	// Init is its first process; nil when it has none.
	Init *state.Process
}

// Err is the refusal to work with the container: a [*noRecordError], nil for one
// that is not ours.
func (v Verdict) Err(dir *state.Dir, id string) error {
	if !v.Ours {
		return nil
	}
	return &noRecordError{ID: id, State: dir.Path(), Other: v.Other, Evidence: v.Evidence}
}

// Ours asks the runtime and the kernel about a container of which dir has no record.
// labels may be nil. found is false when the runtime has no such container. An error
// means that it is not known: then nothing may be started in it either.
func Ours(dir *state.Dir, labels []svirt.Record, query Query, r state.Runtime, id string) (v Verdict, found bool, err error) {
	c, found, err := query(r, id)
	if err != nil || !found {
		return Verdict{}, found, err
	}
	v, err = judge(dir, labels, c)
	return v, true, err
}

// judge is Ours for what a runtime has answered.
func judge(dir *state.Dir, labels []svirt.Record, c Container) (Verdict, error) {
	var v Verdict
	say := func(format string, args ...any) {
		v.Ours = true
		v.Evidence = append(v.Evidence, fmt.Sprintf(format, args...))
	}
	for name, value := range c.Annotations {
		if strings.HasPrefix(name, annotationPrefix) && !requests[name] {
			say("annotation %s is %.64q", name, value)
			break
		}
	}
	if other, ok := stateOf(c.Bundle); ok {
		v.Other = other
		say("its bundle lies in %s", other)
	} else if b := filepath.Clean(c.Bundle) + "/"; strings.HasPrefix(b, filepath.Join(dir.Path(), "containers")+"/") {
		v.Other = dir.Path()
		say("its bundle lies in %s", dir.Path())
	}
	if c.PID <= 0 || c.Status == "stopped" {
		return v, nil
	}
	p, err := state.FindProcess(c.PID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone) {
		return v, nil
	} else if err != nil {
		return v, fmt.Errorf("container %.128s: %w", c.ID, err)
	}
	v.Init = &p
	st, err := effective.Read(c.PID, effective.State{})
	if errors.Is(err, effective.ErrGone) {
		v.Init = nil
		return v, nil
	} else if err != nil {
		return v, fmt.Errorf("container %.128s: %w", c.ID, err)
	}
	if name, _, _ := strings.Cut(st.AppArmor, " ("); profile.Ours(name) {
		say("process %d has the AppArmor profile %s", c.PID, name)
	}
	if level := levelOf(st.SELinux); level != "" {
		for _, l := range labels {
			if l.Level == level && l.Live() && l.State != svirt.Foreign {
				say("process %d carries the label %s of %s", c.PID, level, l.ID)
				break
			}
		}
	}
	return v, nil
}

// stateOf is the state directory that a bundle of ours lies in. A folder counts as
// one when it has what every state directory has.
func stateOf(bundle string) (string, bool) {
	dir := filepath.Clean(bundle)
	if !filepath.IsAbs(dir) || filepath.Base(dir) != "bundle" {
		return "", false
	}
	containers := filepath.Dir(filepath.Dir(dir))
	root := filepath.Dir(containers)
	if filepath.Base(containers) != "containers" {
		return "", false
	}
	_, err := os.Lstat(filepath.Join(root, "containers.lock"))
	return root, err == nil
}

// levelOf is the level of a context that has categories; "" for others.
func levelOf(context string) string {
	c, err := selinux.ParseContext(context)
	if err != nil || !c.MLS || c.Range.Low != c.Range.High || c.Range.High.Categories.IsEmpty() {
		return ""
	}
	return c.Range.High.String()
}

// ErrLeft says that something of a container is left, or that it is not known.
var ErrLeft = errors.New("it may still run")

// defaultRoots are where runtimes keep their containers unless told otherwise.
var defaultRoots = []string{"/run/runc", "/run/crun", "/run/youki"}

// Gone proves that nothing of the container with the key is left: none of the
// runtimes that ever had a container of dir has it, and no process carries its
// profile or, unless it is empty, its level. The error wraps [ErrLeft] otherwise.
func Gone(dir *state.Dir, query Query, key, level string) error {
	if err := noRuntimeHas(dir, query, key); err != nil {
		return err
	}
	if err := noDomainIs(key); err != nil {
		return err
	}
	return noProcessCarries(dir, key, level)
}

func noRuntimeHas(dir *state.Dir, query Query, key string) error {
	runtimes, err := dir.Runtimes()
	if err != nil {
		return errors.Join(ErrLeft, err)
	}
	for _, r := range runtimes {
		roots := defaultRoots
		if r.Root != "" {
			roots = []string{r.Root}
		}
		for _, root := range roots {
			entries, err := os.ReadDir(root)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return errors.Join(ErrLeft, err)
			}
			for _, e := range entries {
				if !state.IsKeyOf(key, r.Root, e.Name()) {
					continue
				}
				switch _, found, err := query(r, e.Name()); {
				case err != nil:
					return errors.Join(ErrLeft, err)
				case found:
					return fmt.Errorf("%w: %s has a container %s in %s", ErrLeft, filepath.Base(r.Path), e.Name(), root)
				}
			}
		}
	}
	return nil
}

// statusFiles are where libvirt keeps the status of running domains of its LXC driver,
// and keyPrefix begins the keys of such domains.
const (
	statusFiles = "/run/libvirt/lxc/*.xml"
	keyPrefix   = "lxc-"
	maxStatus   = 4 << 20
)

// noDomainIs looks for the name or UUID of which the key is made, which no escape in
// XML changes. It does not parse: that would cost every start of a container.
func noDomainIs(key string) error {
	name, ok := strings.CutPrefix(key, keyPrefix)
	if !ok {
		return nil
	}
	files, err := filepath.Glob(statusFiles)
	if err != nil {
		return err
	}
	for _, file := range files {
		fi, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var b []byte
		if err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxStatus) {
			err = fmt.Errorf("%s: not a file of at most %d bytes", file, maxStatus)
		}
		if err == nil {
			b, err = os.ReadFile(file)
		}
		if err != nil {
			return errors.Join(ErrLeft, err)
		}
		if bytes.Contains(b, []byte(">"+name+"<")) {
			return fmt.Errorf("%w: libvirt has a domain %s", ErrLeft, name)
		}
	}
	return nil
}

func noProcessCarries(dir *state.Dir, key, level string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return errors.Join(ErrLeft, err)
	}
	name := profile.Name(dir, key)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		context, confined, err := effective.Labels(pid)
		if errors.Is(err, effective.ErrGone) {
			continue
		} else if err != nil {
			return errors.Join(ErrLeft, err)
		}
		if p, _, _ := strings.Cut(confined, " ("); p == name {
			return fmt.Errorf("%w: process %d has the AppArmor profile %s", ErrLeft, pid, name)
		}
		if l := levelOf(context); level != "" && l == level {
			return fmt.Errorf("%w: process %d carries the label %s", ErrLeft, pid, level)
		}
	}
	return nil
}
