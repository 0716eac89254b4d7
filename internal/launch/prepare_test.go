// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/target"
)

// plainHost can filter and restrict, and has neither SELinux nor AppArmor.
func plainHost(t *testing.T) *Host {
	t.Helper()
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Host{
		Dir: dir, Registry: &svirt.Registry{Store: &svirt.Memory{}},
		Target: target.Target{
			Kernel: target.Kernel{Release: "6.12.0", Major: 6, Minor: 12}, Arch: "x86_64", LSMs: []string{"landlock"},
			SELinux: target.SELinux{State: target.Absent}, AppArmor: target.AppArmor{State: target.Absent},
			Landlock: target.Landlock{State: target.Enforcing, ABI: 6}, Seccomp: target.Seccomp{State: target.Enforcing},
		},
	}
}

func request(id string) Request {
	return Request{
		Record: state.Record{ID: id, Engine: gc.EngineLibvirt}, Policy: policy.Default(), Holder: gc.HolderOCI,
		StepFD: 3, Compile: bundle.Request{BlockDevices: true},
	}
}

func asks(*state.Container, *bundle.Plan) (effective.State, error) {
	return effective.State{NoNewPrivileges: true}, nil
}

// levels are the labels that have a holder.
func (h *Host) levels(t *testing.T) []string {
	t.Helper()
	list, err := h.Registry.List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range list {
		if l.State == svirt.Quarantine {
			continue
		}
		out = append(out, l.ID+" "+l.Level+" "+string(l.State))
	}
	return out
}

func TestPrepare(t *testing.T) {
	h := plainHost(t)
	c, err := h.Prepare(request("web"), func(c *state.Container, p *bundle.Plan) (effective.State, error) {
		if p.Init != "/proc/self/fd/3" || p.Step == nil || p.Level == "" || p.Level != c.Level || p.ID != "web" {
			t.Errorf("plan %+v of %+v", p.Confinement, c.Record)
		}
		// What is known is on disk before the engine's configuration is touched.
		if rec, err := h.Dir.Get("web"); err != nil || rec.Level != c.Level {
			t.Errorf("record %+v, %v", rec, err)
		}
		return asks(c, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := h.Dir.Get("web")
	if err != nil || rec.Asked == nil || !rec.Asked.NoNewPrivileges || rec.Handed.IsZero() || rec.Step == "" || rec.Policy.Name != "default" || !rec.VerifiedAt.IsZero() {
		t.Errorf("record %+v, %v", rec, err)
	}
	files := c.StepFiles()
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	if id, err := hold.Of(files[0]); err != nil || id != rec.Handed {
		t.Errorf("handed over is %v, %v, recorded %v", id, err, rec.Handed)
	}
	if _, err := h.Prepare(request("web"), asks); !errors.Is(err, state.ErrExists) {
		t.Errorf("the same ID again: %v", err)
	}
	if err := c.Undo(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Dir.Get("web"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("left: %v", err)
	}
	if l := h.levels(t); len(l) != 0 {
		t.Errorf("labels left: %v", l)
	}
}

// TestPrepareUndone fails at each step and wants nothing left.
func TestPrepareUndone(t *testing.T) {
	fault := errors.New("fault")
	strict := func(r *Request) { r.Policy = policy.Strict() }
	for name, row := range map[string]struct {
		host    func(*Host)
		request func(*Request)
		edit    Edit
		want    error
	}{
		"edit":                  {edit: func(*state.Container, *bundle.Plan) (effective.State, error) { return effective.State{}, fault }, want: fault},
		"name":                  {request: func(r *Request) { r.Record.ID = "a/b" }, want: state.ErrName},
		"no seccomp":            {host: func(h *Host) { h.Target.Seccomp.State = target.Absent }, want: bundle.ErrMissing},
		"no Landlock":           {host: func(h *Host) { h.Target.Landlock = target.Landlock{State: target.Absent} }, request: strict, want: bundle.ErrMissing},
		"SELinux is required":   {host: func(h *Host) { h.Require = []bundle.Layer{bundle.LayerSELinux} }, want: bundle.ErrMissing},
		"AppArmor is required":  {host: func(h *Host) { h.Require = []bundle.Layer{bundle.LayerAppArmor} }, want: bundle.ErrMissing},
		"SELinux is demanded":   {request: func(r *Request) { r.Demanded = Demanded{SELinux: "level:s0:c1,c2", By: "a test"} }, want: bundle.ErrMissing},
		"AppArmor is demanded":  {request: func(r *Request) { r.Demanded = Demanded{AppArmor: "mine", By: "a test"} }, want: bundle.ErrMissing},
		"SELinux is unknown":    {host: func(h *Host) { h.Target.SELinux = target.SELinux{} }, want: bundle.ErrMissing},
		"level of another":      {request: func(r *Request) { r.Label.Level = "s0:c1,c2" }, want: svirt.ErrInUse},
		"permissive, demanded":  {host: permissive, request: func(r *Request) { r.Demanded = Demanded{SELinux: "level:s0:c1,c2", By: "a test"} }, want: bundle.ErrMissing},
		"complaining, demanded": {host: complaining, request: func(r *Request) { r.Demanded = Demanded{AppArmor: "mine", By: "a test"} }, want: bundle.ErrMissing},
	} {
		t.Run(name, func(t *testing.T) {
			h := plainHost(t)
			if _, err := h.Registry.Reserve(svirt.Claim{ID: "other", Level: "s0:c1,c2"}); err != nil {
				t.Fatal(err)
			}
			r := request("web")
			if row.host != nil {
				row.host(h)
			}
			if row.request != nil {
				row.request(&r)
			}
			edit := row.edit
			if edit == nil {
				edit = asks
			}
			if _, err := h.Prepare(r, edit); !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
			if list, err := h.Dir.List(); err != nil || len(list) != 0 {
				t.Errorf("records left: %v, %v", list, err)
			}
			if l := h.levels(t); len(l) != 1 || !strings.HasPrefix(l[0], "other ") {
				t.Errorf("labels: %v", l)
			}
			entries, err := os.ReadDir(h.Dir.Folder(""))
			if err != nil || len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func permissive(h *Host) {
	h.Target.SELinux = target.SELinux{
		State: target.Off, Mode: "permissive",
		ProcessContext: "system_u:system_r:container_t:s0", FileContext: "system_u:object_r:container_file_t:s0",
	}
}

func complaining(h *Host) {
	h.Target.AppArmor = target.AppArmor{State: target.Enforcing, Loaded: map[string]string{"mine": "complain"}}
}

func TestReserve(t *testing.T) {
	with := func(l Label) Request {
		r := request("")
		r.Label = l
		return r
	}
	h := plainHost(t)
	level := func(id string, r Request) (string, error) {
		r.Record.ID = id
		c, err := h.Prepare(r, asks)
		if err != nil {
			return "", err
		}
		c.Close()
		return c.Level, nil
	}
	must := func(id string, r Request) string {
		l, err := level(id, r)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		return l
	}
	a, b := must("a", with(Label{})), must("b", with(Label{}))
	if a == b {
		t.Errorf("two private labels are %s", a)
	}
	if l := must("c", with(Label{Level: "s0:c5,c6"})); l != "s0:c5,c6" {
		t.Errorf("asked for s0:c5,c6, got %s", l)
	}
	if _, err := level("d", with(Label{Level: "s0:c5,c6"})); !errors.Is(err, svirt.ErrInUse) {
		t.Errorf("a level of another: %v", err)
	}
	if l := must("e", with(Label{Level: "s0:c5,c6", Borrowed: true})); l != "s0:c5,c6" {
		t.Errorf("borrowed %s", l)
	}
	one, two := must("f", with(Label{Group: "pod-x"})), must("g", with(Label{Group: "pod-x"}))
	if one != two {
		t.Errorf("a group has %s and %s", one, two)
	}
	if l := must("h", with(Label{Group: "pod-y"})); l == one {
		t.Errorf("two groups have %s", l)
	}
}

// TestContext puts the level into the label that was asked for.
func TestContext(t *testing.T) {
	h := plainHost(t)
	permissive(h)
	h.Target.SELinux.State, h.Target.SELinux.Mode = target.Enforcing, "enforcing"
	r := request("web")
	ctx, err := selinux.ParseContext("system_u:system_r:mine_t:s0")
	if err != nil {
		t.Fatal(err)
	}
	r.Label = Label{Context: ctx, Level: "s0:c7,c8"}
	var got string
	_, err = h.Prepare(r, func(_ *state.Container, p *bundle.Plan) (effective.State, error) {
		got = p.ProcessLabel
		return effective.State{}, errors.New("far enough")
	})
	if want := "system_u:system_r:mine_t:s0:c7,c8"; got != want {
		t.Errorf("label %q, want %q (%v)", got, want, err)
	}
}

func TestReadPID(t *testing.T) {
	for text, want := range map[string]int{"17": 17, "17\n": 17, " 17 ": 17, "": 0, "0": 0, "-1": 0, "x": 0, "1 2": 0, strings.Repeat("1", 40): 0} {
		path := t.TempDir() + "/pid"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readPID(path)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := readPID(t.TempDir() + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestAdd prepares processes for a container that is there.
func TestAdd(t *testing.T) {
	h := plainHost(t)
	c, err := h.Prepare(request("web"), asks)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rec, err := h.Dir.Get("web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Add(rec, 4); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("without a first process: %v", err)
	}
	self, err := state.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	rec.Init = &self
	a, err := h.Add(rec, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Confinement.Init != "/proc/self/fd/4" || a.Confinement.ID != "web" || a.Confinement.Policy.Capabilities != rec.Policy.Capabilities {
		t.Errorf("%+v", a.Confinement)
	}
	path, files, err := a.Edited([]byte("{}"), &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}})
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if id, err := hold.Of(files[0]); err != nil || id != a.handed || id == rec.Handed {
		t.Errorf("each process has a step of its own: %v and %v, %v", id, rec.Handed, err)
	}
	a.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", path, err)
	}
	// Without the file of what the step does nothing is added.
	if err := os.Remove(c.Path(state.StepFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Add(rec, 4); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("without the step: %v", err)
	}
	rec.Asked = nil
	if _, err := h.Add(rec, 4); !errors.Is(err, state.ErrUnfinished) {
		t.Errorf("of an unfinished one: %v", err)
	}
}

func TestExitCode(t *testing.T) {
	var codes []int
	for _, script := range []string{"exit 0", "exit 7", "kill -9 $$"} {
		code, err := Runtime{Path: "/bin/sh", Args: []string{"-c", script}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}.Run()
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, code)
	}
	if want := []int{0, 7, 137}; !slices.Equal(codes, want) {
		t.Errorf("%v, want %v", codes, want)
	}
}
