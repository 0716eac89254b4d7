// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/launch/profile"
	"github.com/palisade-sec/palisade/internal/state"
)

// exec confines a process that is added to a container of ours.
func (w *wrapper) exec() (int, error) {
	rec, ours, err := w.record()
	if err != nil {
		return 0, err
	}
	if !ours {
		return 0, w.replace()
	}
	if w.passed, err = readPassed(w.call); err != nil {
		return 0, err
	}
	dirs := w.dirs()
	dirs.Container = rec.Bundle.Path
	w.call.makeAbsolute(dirs)
	raw, err := w.addedProcess(rec)
	if err != nil {
		return 0, err
	}
	asked, err := decodeProcess(raw)
	if err != nil {
		return 0, err
	}
	w.facts()
	if err := w.processDemands(asked); err != nil {
		return 0, err
	}
	a, err := w.host.Add(rec, w.passed.step())
	if err != nil {
		return 0, err
	}
	defer a.Close()
	a.Confinement.Env = w.passed.env()
	edited, process, err := editProcess(raw, a.Confinement)
	if err != nil {
		return 0, err
	}
	file, step, err := a.Edited(edited, process)
	if err != nil {
		return 0, err
	}
	// The whole process is in the file; runtimes read nothing of it from options then.
	for _, name := range w.call.Names() {
		if !besideProcess[name] {
			w.call.Delete(name)
		}
	}
	w.call.Args = nil
	if err := errors.Join(
		w.call.Set("process", file),
		w.call.Set("preserve-fds", strconv.Itoa(w.passed.total()+len(step))),
	); err != nil {
		return 0, err
	}
	before := w.log.size()
	out, err := a.Run(w.launchRuntime(step), asked)
	w.explain(out, err, before)
	if err == nil && out.PID != 0 {
		w.tellDropped(asked.Capabilities, rec.Policy.ForProcess())
	}
	return w.exit(out.Code, err)
}

// processDemands refuses a label or profile of a process that the host cannot enforce.
func (w *wrapper) processDemands(p *specs.Process) error {
	d, err := demandOf(&specs.Spec{Process: p}, nil)
	if err != nil {
		return err
	}
	h := w.demandHost()
	h.EngineDefault = profile.EngineDefault
	return d.Check(h)
}

// besideProcess are the options of exec that say something else than what the
// process is.
var besideProcess = map[string]bool{
	"console-socket": true, "pidfd-socket": true, "pid-file": true, "detach": true, "process": true,
	"preserve-fds": true, "cgroup": true, "ignore-paused": true, "tty": true,
}

// addedProcess is the process that the command line describes, as the runtime would
// read it: from a file, or from the container's own process and options.
func (w *wrapper) addedProcess(rec state.Record) ([]byte, error) {
	if path := w.call.Value("process"); path != "" {
		f, raw, err := readFile(path)
		if err != nil {
			return nil, err
		}
		f.Close()
		return raw, nil
	}
	raw, err := w.ownConfig(rec)
	if err != nil {
		return nil, err
	}
	spec, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if err := w.override(rec, spec.Process); err != nil {
		return nil, err
	}
	return json.Marshal(spec.Process)
}

// override puts the options of an exec into the container's own process.
//
// Source: runc exec.go, getProcess; crun src/exec.c, crun_command_exec.
func (w *wrapper) override(rec state.Record, p *specs.Process) error {
	c := w.call
	p.Args = slices.Clone(c.Args)
	// What the container was told of its sockets is not for others.
	p.Env = slices.DeleteFunc(p.Env, func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_FDS=") || strings.HasPrefix(kv, "LISTEN_PID=")
	})
	p.Env = append(p.Env, c.Values("env")...)
	if v := c.Value("cwd"); v != "" {
		p.Cwd = v
	}
	if v := c.Value("apparmor"); v != "" {
		p.ApparmorProfile = v
	}
	if v := c.Value("process-label"); v != "" {
		p.SelinuxLabel = v
	}
	p.Terminal = c.Bool("tty")
	if v := c.Value("user"); v != "" {
		user, group, both := strings.Cut(v, ":")
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %q: want UID[:GID] in numbers", v)
		}
		p.User.UID = uint32(uid)
		if both {
			gid, err := strconv.ParseUint(group, 10, 32)
			if err != nil {
				return fmt.Errorf("--user %q: want UID[:GID] in numbers", v)
			}
			p.User.GID = uint32(gid)
		}
	}
	for _, v := range c.Values("additional-gids") {
		gid, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids %q: want a number", v)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	for _, name := range c.Values("cap") {
		one, err := caps.Parse(name)
		if err != nil {
			continue // runtimes leave out what they do not know
		}
		if !rec.Policy.Capabilities.Has(one) {
			return fmt.Errorf("capability %s is not allowed by policy %s", name, rec.Policy.Name)
		}
		if p.Capabilities == nil {
			p.Capabilities = &specs.LinuxCapabilities{}
		}
		for _, list := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
			if !slices.Contains(*list, one.String()) {
				*list = append(*list, one.String())
			}
		}
	}
	return nil
}
