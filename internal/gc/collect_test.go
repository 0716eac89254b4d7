// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/witness"
	"github.com/palisade-sec/palisade/svirt"
)

// fakeRuntime answers with the files below its root, as runc would.
const fakeRuntime = `#!/bin/sh
[ "$1" = --root ] && root=$2 && shift 2
case "$1" in
state)
	if [ -f "$root/fails" ]; then echo 'error while loading shared libraries: libx.so: No such file or directory' >&2; exit 127; fi
	if [ -f "$root/$2/state" ]; then cat "$root/$2/state"; exit; fi
	echo 'time="x" level=error msg="container does not exist"' >&2; exit 1 ;;
delete) rm -rf "$root/$3" ;;
*) exit 2 ;;
esac
`

type host struct {
	t        *testing.T
	dir      *state.Dir
	registry *svirt.Registry
	runtime  string
	root     string
}

func newHost(t *testing.T) *host {
	t.Helper()
	work := t.TempDir()
	h := &host{t: t, registry: &svirt.Registry{Store: &svirt.Memory{}}, runtime: filepath.Join(work, "runc"), root: filepath.Join(work, "root")}
	if err := os.WriteFile(h.runtime, []byte(fakeRuntime), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.root, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.dir, err = state.Open(filepath.Join(work, "state")); err != nil {
		t.Fatal(err)
	}
	return h
}

// container has a label, a record, and an entry with the runtime.
func (h *host) container(id string, edit func(*state.Record)) {
	h.t.Helper()
	r := state.Record{ID: id, Engine: EngineOCI, Runtime: state.Runtime{Path: h.runtime, Args: []string{"--root", h.root}, Root: h.root}}
	if edit != nil {
		edit(&r)
	}
	c, err := h.dir.Create(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	holder := HolderOCI
	switch r.Engine {
	case EngineLibvirt:
		holder = HolderLibvirt
	case EnginePalisade:
		holder = HolderRun
	}
	l, err := h.registry.Reserve(svirt.Claim{ID: c.Key, Holder: holder, Bound: true})
	if err != nil {
		h.t.Fatal(err)
	}
	c.Level = l.Level
	if err := c.Save(); err != nil {
		h.t.Fatal(err)
	}
	h.tells(id, "running", os.Getpid())
}

func (h *host) tells(id, status string, pid int) {
	h.t.Helper()
	b, err := json.Marshal(witness.Container{ID: id, Status: status, PID: pid, Bundle: "/b"})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(h.root, id), 0o700), os.WriteFile(filepath.Join(h.root, id, "state"), b, 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) file(elem ...string) string {
	return filepath.Join(append([]string{h.dir.Path(), "containers"}, elem...)...)
}

func (h *host) held(id string) bool {
	h.t.Helper()
	list, err := h.registry.List()
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(l svirt.Record) bool { return l.ID == id })
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// What can have happened to what Palisade keeps of a container.
var faults = map[string]func(h *host){
	"none":          func(*host) {},
	"record cut":    func(h *host) { h.must(os.Truncate(h.file("web", "record.json"), 20)) },
	"record empty":  func(h *host) { h.must(os.Truncate(h.file("web", "record.json"), 0)) },
	"record absent": func(h *host) { h.must(os.Remove(h.file("web", "record.json"))) },
	"record and claim": func(h *host) {
		h.must(os.Truncate(h.file("web", "record.json"), 20))
		h.must(os.Truncate(h.file("web", "claim.json"), 20))
	},
	"lock absent": func(h *host) { h.must(os.Remove(h.file("web", "lock"))) },
	"all absent":  func(h *host) { h.must(os.RemoveAll(h.file("web"))) },
	"another version": func(h *host) {
		b, err := os.ReadFile(h.file("web", "record.json"))
		h.must(err)
		h.must(os.WriteFile(h.file("web", "record.json"), []byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1)), 0o600))
	},
}

// TestCollect has every fault with every answer of the runtime. A container and its
// label go when the runtime has it no more, and only then.
func TestCollect(t *testing.T) {
	for fault, spoil := range faults {
		for answer, prepare := range map[string]func(h *host){
			"running": func(*host) {},
			"stopped": func(h *host) { h.tells("web", "stopped", 0) },
			"about another": func(h *host) {
				h.must(os.WriteFile(filepath.Join(h.root, "web", "state"), []byte(`{"id":"x"}`), 0o600))
			},
			"nonsense":        func(h *host) { h.must(os.WriteFile(filepath.Join(h.root, "web", "state"), []byte("x"), 0o600)) },
			"fails":           func(h *host) { h.must(os.WriteFile(filepath.Join(h.root, "fails"), nil, 0o600)) },
			"runtime absent":  func(h *host) { h.must(os.Remove(h.runtime)) },
			"gone":            func(h *host) { h.must(os.RemoveAll(filepath.Join(h.root, "web"))) },
			"root absent":     func(h *host) { h.must(os.RemoveAll(h.root)) },
			"folder is empty": func(h *host) { h.must(os.Remove(filepath.Join(h.root, "web", "state"))) },
		} {
			t.Run(fault+"/"+answer, func(t *testing.T) {
				// Not in parallel: a process that is being started holds the locks of all
				// others until it executes its program.
				h := newHost(t)
				h.container("web", nil)
				h.container("other", nil)
				prepare(h)
				if _, err := os.Lstat(h.root); err == nil {
					h.tells("other", "running", os.Getpid())
				}
				spoil(h)
				got, err := Collect(h.dir, h.registry)
				gone := answer == "gone" || answer == "root absent" || answer == "folder is empty"
				if fault == "lock absent" {
					gone = false // it cannot be told whether another process works with it
				}
				_, ferr := os.Lstat(h.file("web"))
				folder := ferr == nil
				if h.held("web") == gone {
					t.Errorf("the label is held: %v; %+v, %v", !gone, got, err)
				}
				if folder == gone && fault != "all absent" {
					t.Errorf("the folder is there: %v; %+v, %v", folder, got, err)
				}
				healthy := fault == "none" && (answer == "running" || answer == "stopped")
				reported := slices.ContainsFunc(got.Kept, func(k Kept) bool { return k.Key == "web" && k.Why != "" && k.Mend != "" })
				if reported == (gone || healthy) {
					t.Errorf("kept: %+v, %v", got.Kept, err)
				}
				if answer != "fails" && answer != "runtime absent" && answer != "root absent" && !h.held("other") {
					t.Error("another container was forgotten")
				}
				if answer == "root absent" && h.held("other") {
					t.Error("another container was not forgotten")
				}
			})
		}
	}
}

// TestCollectProcess has runtimes that know nothing of a container whose process runs.
func TestCollectProcess(t *testing.T) {
	self, err := state.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dead := self
	dead.Start++
	for name, test := range map[string]struct {
		engine           string
		init, controller *state.Process
		kept             bool
	}{
		"init":               {EngineOCI, &self, nil, true},
		"no init":            {EngineOCI, &dead, nil, false},
		"controller":         {EngineLibvirt, nil, &self, true},
		"controller, init":   {EngineLibvirt, &self, &self, true},
		"init alone":         {EngineLibvirt, &self, &dead, true},
		"neither":            {EngineLibvirt, &dead, &dead, false},
		"no process":         {EngineLibvirt, nil, nil, false},
		"palisade run":       {EnginePalisade, &self, nil, true},
		"palisade run ended": {EnginePalisade, &dead, nil, false},
		"unknown engine":     {"x", nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.container("web", func(r *state.Record) { r.Engine, r.Init, r.Controller = test.engine, test.init, test.controller })
			h.must(os.RemoveAll(filepath.Join(h.root, "web")))
			got, err := Collect(h.dir, h.registry)
			if h.held("web") != test.kept {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestCollectAfterBoot forgets what was made before the machine was started, whatever
// it can read of it.
func TestCollectAfterBoot(t *testing.T) {
	const boot = "01234567-89ab-4cde-8f01-23456789abcd"
	for fault, spoil := range faults {
		if fault == "all absent" || fault == "lock absent" {
			continue
		}
		t.Run(fault, func(t *testing.T) {
			h := newHost(t)
			h.container("web", nil)
			h.must(os.WriteFile(filepath.Join(h.root, "fails"), nil, 0o600))
			spoil(h)
			h.must(os.Remove(h.file("web", "boot")))
			h.must(os.Symlink(boot+"."+state.Digest([]byte(boot))[:16], h.file("web", "boot")))
			got, err := Collect(h.dir, h.registry)
			if err != nil || len(got.Kept) != 0 || h.held("web") || !slices.Equal(got.Containers, []string{"web"}) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestCollectLabels is about labels whose holders have no folder.
func TestCollectLabels(t *testing.T) {
	h := newHost(t)
	h.container("known", nil) // so that its runtime and root are known
	for id, holder := range map[string]string{"lost": HolderOCI, "lost-run": HolderRun, "there": HolderOCI, "foreign": "somebody"} {
		if _, err := h.registry.Reserve(svirt.Claim{ID: id, Holder: holder, Bound: true}); err != nil {
			t.Fatal(err)
		}
	}
	h.tells("there", "running", os.Getpid())
	got, err := Collect(h.dir, h.registry)
	if err != nil {
		t.Error(err)
	}
	slices.Sort(got.Labels)
	if !slices.Equal(got.Labels, []string{"lost", "lost-run"}) || len(got.Kept) != 1 || got.Kept[0].Key != "there" {
		t.Errorf("%+v", got)
	}
	for id, want := range map[string]bool{"known": true, "lost": false, "there": true, "foreign": true} {
		if h.held(id) != want {
			t.Errorf("%s: held %v", id, !want)
		}
	}
}

// TestForget frees the label before the name, and content keeps it.
func TestForget(t *testing.T) {
	h := newHost(t)
	for id, labelled := range map[string]bool{"plain": false, "labelled": true} {
		h.container(id, nil)
		c, err := h.dir.Lock(id)
		if err != nil {
			t.Fatal(err)
		}
		c.Labelled = labelled
		order := &orderly{Authority: h.registry, folder: h.file(id)}
		if err := Forget(order, c); err != nil {
			t.Fatal(err)
		}
		if !order.asked || order.late {
			t.Errorf("%s: label freed after the folder: %+v", id, order)
		}
		if h.held(id) != labelled {
			t.Errorf("%s: held %v", id, !labelled)
		}
	}
}

type orderly struct {
	svirt.Authority
	folder      string
	asked, late bool
}

func (o *orderly) note() {
	_, err := os.Lstat(o.folder)
	o.asked, o.late = true, err != nil
}
func (o *orderly) Release(id string) error { o.note(); return o.Authority.Release(id) }
func (o *orderly) Drain(id string) error   { o.note(); return o.Authority.Drain(id) }

// TestOurs asks about containers of which there is no record.
func TestOurs(t *testing.T) {
	h, other := newHost(t), newHost(t)
	lost := func(dir string) string { return filepath.Join(dir, "containers", "web", "bundle") }
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for _, h := range []*host{h, other} {
		h.container("some", nil) // makes the state directory one
	}
	const prefix = "io.github.palisade-sec."
	for name, test := range map[string]struct {
		c     witness.Container
		ours  bool
		other string
	}{
		"nothing":            {witness.Container{Bundle: "/run/docker/web"}, false, ""},
		"id":                 {witness.Container{Annotations: map[string]string{prefix + "id": "web"}}, true, ""},
		"policy":             {witness.Container{Annotations: map[string]string{prefix + "policy": "default"}}, true, ""},
		"any of ours":        {witness.Container{Annotations: map[string]string{prefix + "new": ""}}, true, ""},
		"a request":          {witness.Container{Annotations: map[string]string{prefix + "request": "strict", prefix + "selinux": "level:s0"}}, false, ""},
		"another's":          {witness.Container{Annotations: map[string]string{"io.kubernetes.x": "y", "io.github.palisade-secx.id": ""}}, false, ""},
		"our folder":         {witness.Container{Bundle: lost(h.dir.Path())}, true, h.dir.Path()},
		"below our folder":   {witness.Container{Bundle: lost(h.dir.Path()) + "/x"}, true, h.dir.Path()},
		"other folder":       {witness.Container{Bundle: lost(other.dir.Path())}, true, other.dir.Path()},
		"no state directory": {witness.Container{Bundle: lost(t.TempDir())}, false, ""},
		"a relative bundle":  {witness.Container{Bundle: "containers/web/bundle"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := test.c
			c.ID, c.Status, c.PID = "web", "running", cmd.Process.Pid
			b, err := json.Marshal(c)
			h.must(err)
			h.must(errors.Join(os.MkdirAll(filepath.Join(h.root, "web"), 0o700), os.WriteFile(filepath.Join(h.root, "web", "state"), b, 0o600)))
			r := state.Runtime{Path: h.runtime, Args: []string{"--root", h.root}}
			v, found, err := witness.Ours(h.dir, nil, delegate.Query, r, "web")
			if err != nil || !found || v.Ours != test.ours || v.Other != test.other {
				t.Fatalf("%+v, %v, %v", v, found, err)
			}
			if v.Init == nil || v.Init.PID != cmd.Process.Pid || !v.Init.Alive() {
				t.Errorf("init %+v", v.Init)
			}
			err = v.Err(h.dir, "web")
			if errors.Is(err, witness.ErrNoRecord) != test.ours {
				t.Fatal(err)
			}
			if test.ours && !strings.Contains(err.Error(), h.dir.Path()) || test.other != "" && !strings.Contains(err.Error(), test.other) {
				t.Errorf("it does not say where: %v", err)
			}
			if _, found, err := witness.Ours(h.dir, nil, delegate.Query, r, "none"); found || err != nil {
				t.Errorf("of none: %v, %v", found, err)
			}
		})
	}
	h.must(os.WriteFile(filepath.Join(h.root, "fails"), nil, 0o600))
	if _, _, err := witness.Ours(h.dir, nil, delegate.Query, state.Runtime{Path: h.runtime, Args: []string{"--root", h.root}}, "web"); err == nil {
		t.Error("a runtime that does not answer is taken for one without the container")
	}
}

func TestKeptSaysHow(t *testing.T) {
	h := newHost(t)
	h.container("web", nil)
	h.must(os.Truncate(h.file("web", "record.json"), 5))
	got, err := Collect(h.dir, h.registry)
	if err != nil || len(got.Kept) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if s := got.Kept[0].String(); !strings.Contains(s, "record.json") || !strings.Contains(s, "remove the folder "+h.file("web")) {
		t.Error(s)
	}
	// A person does what it says.
	h.must(os.RemoveAll(filepath.Join(h.root, "web")))
	h.must(os.RemoveAll(h.file("web")))
	if got, err = Collect(h.dir, h.registry); err != nil || len(got.Kept) != 0 || h.held("web") {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
	fmt.Fprintln(t.Output(), got)
}
