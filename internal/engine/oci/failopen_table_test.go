// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/enginetest"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/svirt"
)

// envTable asks for all cells of the table, envRows for the rows with a word in
// their names.
const (
	envTable = "FAILOPEN"
	envRows  = "FAILOPEN_ROWS"
)

// The fail-open table: ways into a container × faults. In each cell the way either
// ends in a refusal, before an instruction of the workload and with nothing left, or
// the workload reports that all that was asked for is in force. Everything else is
// open.

// way is a way into a container.
type way string

const (
	wayCreate   way = "create, start"
	wayRun      way = "run"
	wayDetached way = "run --detach"
	wayFile     way = "exec -p"
	wayFileAway way = "exec -p --detach"
	wayExec     way = "exec"
	wayPalisade way = "palisade run"
	wayRestore  way = "restore"
)

var (
	making  = []way{wayCreate, wayRun, wayDetached}
	adding  = []way{wayFile, wayFileAway, wayExec}
	allWays = slices.Concat(making, adding, []way{wayPalisade})
)

// adds reports whether a way adds a process to a container that is there.
func (w way) adds() bool { return slices.Contains(adding, w) }

// commands are those of the runtime that a fault is committed in.
func (w way) commands() string {
	switch {
	case w.adds():
		return "exec"
	case w == wayCreate:
		return "create"
	}
	return "run"
}

// fault is a row of the table.
type fault struct {
	name string
	ways []way
	// stub is the fault that the runtime commits, when the commands that it is
	// committed in; empty for those of the way.
	stub, when string
	// outer is the environment of the outer program.
	outer func(p *place) []string
	// shape says what the container is, before the fault.
	shape shape
	// edit changes the configuration and raw its text, process that of an exec.
	edit    func(t *testing.T, p *place, c map[string]any)
	raw     func([]byte) []byte
	process func(p *place, c map[string]any)
	// global and options are further words of the command line, own the words that
	// stand before those of the runtime.
	own, global, options []string
	// words makes the whole command line.
	words func(p *place) []string
	// between happens after a container is there and before it is started, or a
	// process is added.
	between func(t *testing.T, p *place)
	// refused says that nothing but a refusal is right, with these words in it.
	refused bool
	says    string
	// mayDiffer are keys of the report that may differ: what they say is no
	// confinement that was asked for, for the reason.
	mayDiffer []string
	reason    string
	// runtimes are those for which there is such a fault; both if empty.
	runtimes []string
	// alone is a fault of the container itself, which no other cell is to see.
	alone bool
	// mend undoes the fault of the host before the container is deleted.
	mend func(t *testing.T, p *place)
	// gc has what the fault has cut off collected.
	gc bool
	// keeps is why the container is not forgotten.
	keeps string
	// env is added to the environment.
	env func(p *place) []string
}

// shape is a kind of container.
type shape struct {
	policy string
	// user is the number of the container's user.
	user int
	// hook gives it a startContainer hook, so that the filter stays with the runtime.
	hook bool
}

func (s shape) String() string { return fmt.Sprintf("%s/%d/%v", s.policy, s.user, s.hook) }

// table is what the cells share.
type table struct {
	*host
	helper   string
	all      bool
	unified  string // what crun must not see
	process  int    // a process of the host
	secret   string // a folder of the host
	other    string // another root
	mu       sync.Mutex
	expected map[string]*expected
	results  []result
	number   int
}

type result struct {
	fault, runtime string
	way            way
	answer, detail string
}

// expected is what a way reports without a fault.
type expected struct {
	once   sync.Once
	report map[string]string
	err    error
}

func newTable(t *testing.T) *table {
	h := newHost(t)
	oracle.Tool(t, "crun", "apt: crun")
	tb := &table{host: h, helper: filepath.Join(h.work, "helper"), all: os.Getenv(envTable) != "", expected: map[string]*expected{}}
	cmd := exec.Command("go", "build", "-o", filepath.Join(tb.helper, "outer"), "./internal/engine/oci/testdata/failopen")
	cmd.Dir, cmd.Env = oracle.ModuleRoot(t), h.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, name := range []string{"runc", "crun"} {
		check(t, os.Link(filepath.Join(tb.helper, "outer"), filepath.Join(tb.helper, name)))
	}
	tb.other, tb.secret = filepath.Join(h.work, "otherroot"), filepath.Join(h.work, "secret")
	check(t, os.MkdirAll(tb.secret, 0o755))
	check(t, os.WriteFile(filepath.Join(tb.secret, "name"), []byte("of the host\n"), 0o644))
	for root, image := range map[string]string{h.root: "the image\n", tb.other: "another image\n"} {
		for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "data", "data2", "scratch", "x"} {
			check(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		}
		b, err := os.ReadFile(filepath.Join(tb.helper, "outer"))
		check(t, err)
		for _, name := range []string{"probe", "foreign"} {
			check(t, os.WriteFile(filepath.Join(root, "bin", name), b, 0o755))
		}
		check(t, os.WriteFile(filepath.Join(root, "etc/image"), []byte(image), 0o644))
	}
	if mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/sys/fs/cgroup/unified")); err == nil && len(mounts) > 0 {
		tb.unified = "/sys/fs/cgroup/unified"
	}
	sleeper := exec.Command("sleep", "1000")
	check(t, sleeper.Start())
	tb.process = sleeper.Process.Pid
	t.Cleanup(func() {
		if err := sleeper.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("a process of the host was ended: %v", err)
		}
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	return tb
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is where one container lives: a state folder, a root of the runtime and a
// bundle of its own.
type place struct {
	*table
	dir, state, root, bundle, stub string
	runtime, id                    string
	fault                          fault
	way                            way
}

func (tb *table) newPlace(t *testing.T, runtime string, w way, f fault) *place {
	t.Helper()
	tb.mu.Lock()
	tb.number++
	id := fmt.Sprintf("fo%dx%d", os.Getpid(), tb.number)
	tb.mu.Unlock()
	p := &place{table: tb, dir: filepath.Join(tb.work, id), runtime: runtime, id: id, fault: f, way: w}
	p.state, p.root, p.bundle, p.stub = p.dir+"/state", p.dir+"/root", p.dir+"/b", p.dir+"/stub"
	for _, dir := range []string{p.state, p.bundle, p.stub, p.dir + "/data"} {
		check(t, os.MkdirAll(dir, 0o755))
	}
	check(t, os.WriteFile(p.dir+"/data/name", []byte("asked for\n"), 0o644))
	for _, name := range []string{"foreign", "hook"} {
		check(t, os.Link(filepath.Join(tb.helper, "outer"), filepath.Join(p.stub, name)))
	}
	check(t, os.Symlink(tb.other, p.stub+"/otherroot"))
	t.Cleanup(func() {
		p.destroy(t)
		enginetest.RemoveAll(t, p.dir)
	})
	return p
}

// destroy ends what may be left of a cell, by the real runtime.
func (p *place) destroy(t *testing.T) {
	for _, id := range []string{p.id, p.id + "-second"} {
		if _, err := os.Stat(filepath.Join(p.root, id)); err == nil {
			p.call(t, nil, false, filepath.Join(p.helper, p.runtime), "--root", p.root, "delete", "--force", id)
		}
	}
}

// spec is a bundle in Docker's form, with the shape and the edit of the fault.
func (p *place) spec(t *testing.T, args ...string) {
	s := p.fault.shape
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	type list = []any
	type object = map[string]any
	mount := func(dest, kind, source string, options ...string) object {
		return object{"destination": dest, "type": kind, "source": source, "options": options}
	}
	c := object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": s.user, "gid": s.user}, "args": args, "env": list{"PATH=/bin"}, "cwd": "/",
			"capabilities": object{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"root":     object{"path": p.host.root},
		"hostname": "failopen",
		"mounts": list{
			mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
			mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
			mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
			mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=65536k"),
			mount("/scratch", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=65536k"),
			mount("/data", "bind", p.dir+"/data", "bind", "ro"),
		},
		"linux": object{
			"resources": object{"devices": list{
				object{"allow": false, "access": "rwm"},
				object{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
				object{"allow": true, "type": "c", "access": "m"},
			}},
			"namespaces": list{
				object{"type": "pid"}, object{"type": "ipc"}, object{"type": "uts"}, object{"type": "mount"}, object{"type": "network"}, object{"type": "cgroup"},
			},
			"seccomp": object{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list{object{"names": list{"kexec_load"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 16}}},
		},
	}
	if s.hook {
		c["hooks"] = object{"startContainer": list{object{"path": "/bin/true"}}}
	}
	if p.fault.edit != nil {
		p.fault.edit(t, p, c)
	}
	b, err := json.Marshal(c)
	check(t, err)
	if p.fault.raw != nil {
		b = p.fault.raw(b)
	}
	check(t, os.WriteFile(p.bundle+"/config.json", b, 0o600))
}

func (p *place) policy() string {
	if p.fault.shape.policy != "" {
		return p.fault.shape.policy
	}
	return "default"
}

// wrapper is a call of palisade-oci.
func (p *place) wrapper(faulty bool, words ...string) []string {
	var own []string
	if faulty {
		own = slices.Clone(p.fault.own)
	}
	own = append(own, "--palisade-policy", p.policy(), "--root", p.root, "--log", p.dir+"/log", "--log-format", "json")
	if faulty {
		own = append(own, p.fault.global...)
	}
	return slices.Concat([]string{filepath.Join(p.bin, "palisade-oci")}, own, words)
}

// call runs a command to its end. stdout is what it and the container write to.
// faulty has the runtime commit the fault.
func (p *place) call(t *testing.T, stdout *os.File, faulty bool, words ...string) (code int, stderr string) {
	t.Helper()
	const limit = 3 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	env := append(slices.Clone(p.env), "PALISADE_STATE="+p.state, "PALISADE_RUNTIME="+filepath.Join(p.helper, p.runtime), "STUB_FAULT=", "STUB_WHEN=",
		"STUB_FOLDER="+p.stub, "STUB_HOST="+p.secret, "STUB_PROCESS="+strconv.Itoa(p.process))
	var outer []string
	if p.runtime == "crun" && p.unified != "" {
		outer = append(outer, "OUTER_HIDE="+p.unified)
	}
	if faulty {
		when := p.fault.when
		if when == "" {
			when = p.way.commands()
		}
		env = append(env, "STUB_FAULT="+p.fault.stub, "STUB_WHEN="+when)
		if p.fault.outer != nil {
			outer = append(outer, p.fault.outer(p)...)
		}
		if p.fault.env != nil {
			env = append(env, p.fault.env(p)...)
		}
	}
	if len(outer) > 0 {
		words = append([]string{filepath.Join(p.helper, "outer")}, words...)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(env, outer...)
	// A file: what a container inherits must not keep us waiting.
	said, err := os.CreateTemp(p.dir, "stderr")
	check(t, err)
	defer said.Close()
	cmd.Stderr = said
	if stdout != nil {
		cmd.Stdout = stdout
	}
	err = cmd.Run()
	b, rerr := os.ReadFile(said.Name())
	check(t, rerr)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s", words, err, b)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// output collects what the workload writes, until no process has it open.
type output struct {
	w    *os.File
	text chan string
}

func newOutput(t *testing.T) *output {
	r, w, err := os.Pipe()
	check(t, err)
	o := &output{w: w, text: make(chan string, 1)}
	go func() {
		defer r.Close()
		b, _ := io.ReadAll(io.LimitReader(r, 1<<20))
		o.text <- string(b)
	}()
	return o
}

// end waits for the end of all who can write; ok is false when a writer is left.
func (o *output) end() (text string, ok bool) {
	o.w.Close()
	const limit = time.Minute
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case text := <-o.text:
		return text, true
	case <-timer.C:
		return "", false
	}
}

// attempt is what became of one way in.
type attempt struct {
	code        int
	said, wrote string
	// clean reports whether everybody who could write has ended.
	clean bool
	// created says that the container was created.
	created bool
}

// start makes the container that processes are added to.
func (p *place) start(t *testing.T) error {
	t.Helper()
	p.spec(t, "/bin/probe", "wait")
	for _, words := range [][]string{{"create", "--bundle", p.bundle, p.id}, {"start", p.id}} {
		if code, said := p.call(t, nil, false, p.wrapper(false, words...)...); code != 0 {
			return fmt.Errorf("%s: exit code %d: %s", words[0], code, said)
		}
	}
	return nil
}

// try goes the way once.
func (p *place) try(t *testing.T) attempt {
	t.Helper()
	f := p.fault
	o := newOutput(t)
	a := attempt{}
	oci := func(words ...string) {
		var said string
		a.code, said = p.call(t, o.w, true, p.wrapper(true, words...)...)
		a.said += said
	}
	run := func(command string, words ...string) {
		oci(slices.Concat([]string{command}, f.options, words)...)
	}
	if f.words != nil {
		oci(f.words(p)...)
	} else {
		switch p.way {
		case wayCreate:
			run("create", "--bundle", p.bundle, p.id)
			if a.created = a.code == 0; a.created {
				if f.between != nil {
					f.between(t, p)
				}
				if oci("start", p.id); a.code != 0 {
					p.delete(t)
				}
			}
		case wayRun:
			run("run", "--bundle", p.bundle, p.id)
		case wayDetached:
			run("run", "--detach", "--bundle", p.bundle, p.id)
		case wayFile, wayFileAway:
			process := map[string]any{
				"user": map[string]any{"uid": f.shape.user, "gid": f.shape.user}, "args": []string{"/bin/probe"}, "env": []string{"PATH=/bin"}, "cwd": "/",
				"capabilities": map[string]any{"bounding": []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, "effective": []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, "permitted": []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}},
			}
			if f.process != nil {
				f.process(p, process)
			}
			b, err := json.Marshal(process)
			check(t, err)
			if f.raw != nil {
				b = f.raw(b)
			}
			name := p.stub + "/process.json"
			check(t, os.WriteFile(name, b, 0o600))
			words := []string{"--process", name}
			if p.way == wayFileAway {
				words = append(words, "--detach")
			}
			run("exec", append(words, p.id)...)
		case wayExec:
			run("exec", p.id, "/bin/probe")
		case wayPalisade:
			words := slices.Concat([]string{
				filepath.Join(p.bin, "palisade"), "run", "--policy", p.policy(), "--runtime", filepath.Join(p.helper, p.runtime), "--name", p.id,
				"--rootfs", p.host.root, "-v", p.dir + "/data:/data:ro", "--user", strconv.Itoa(f.shape.user),
			}, f.options, []string{"--", "/bin/probe"})
			a.code, a.said = p.call(t, o.w, true, words...)
		case wayRestore:
			run("restore", "--bundle", p.bundle, "--image-path", p.stub, p.id)
		}
	}
	a.wrote, a.clean = o.end()
	return a
}

// reports are what workloads wrote.
func reports(text string) []map[string]string {
	var out []map[string]string
	var current map[string]string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch key, value, _ := strings.Cut(line, "\t"); {
		case line == "BEGIN":
			current = map[string]string{}
		case line == "END" && current != nil:
			out = append(out, current)
			current = nil
		case current != nil:
			current[key] = value
		}
	}
	return out
}

// normal replaces what differs from one container to the next: the numbers of
// namespaces, by whose they are.
func (p *place) normal(report map[string]string) map[string]string {
	out := maps.Clone(report)
	for key, value := range report {
		if kind, ok := strings.CutPrefix(key, "ns "); ok {
			whose := "own"
			if host, err := os.Readlink("/proc/self/ns/" + kind); err == nil && host == value {
				whose = "host"
			}
			out[key] = whose
		}
	}
	delete(out, "name")
	return out
}

// reference is what the way reports without a fault, which is confined itself.
func (p *place) reference(t *testing.T) (map[string]string, error) {
	key := fmt.Sprint(p.way, p.runtime, p.fault.shape)
	p.mu.Lock()
	e := p.expected[key]
	if e == nil {
		e = &expected{}
		p.expected[key] = e
	}
	p.mu.Unlock()
	e.once.Do(func() {
		q := p.newPlace(t, p.runtime, p.way, fault{shape: p.fault.shape})
		if q.way.adds() {
			if e.err = q.start(t); e.err != nil {
				return
			}
		} else {
			q.spec(t, "/bin/probe")
		}
		a := q.try(t)
		r := reports(a.wrote)
		if a.code != 0 || len(r) != 1 {
			e.err = fmt.Errorf("without a fault: exit code %d: %s%s", a.code, a.said, a.wrote)
			return
		}
		e.report = q.normal(r[0])
		e.err = q.confinedReport(e.report)
	})
	return e.report, e.err
}

// confinedReport holds what is expected against what the policies promise.
func (p *place) confinedReport(r map[string]string) error {
	var errs []error
	want := func(key string, values ...string) {
		if !slices.Contains(values, r[key]) {
			errs = append(errs, fmt.Errorf("%s is %q, want one of %q", key, r[key], values))
		}
	}
	want("NoNewPrivs", "1")
	want("Seccomp", "2")
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		want("ns "+ns, "own")
	}
	for _, masked := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} {
		want("content "+masked, "nothing", "ENOENT", "EACCES")
	}
	for _, dir := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys", "/data"} {
		want("read-only "+dir, "true")
	}
	want("write /data", "EROFS", "EACCES")
	want("data", "asked for")
	want("image", "the image")
	want("cwd", "/")
	want("call keyctl", "EPERM", "ENOSYS")
	want("call unshare", "EPERM", "ENOSYS")
	want("call bpf", "EPERM", "ENOSYS")
	if p.way != wayPalisade {
		want("call kexec_load", "EBUSY", "EPERM") // the engine's own filter
	}
	if strings.Contains(r["device fuse"], "allowed") {
		errs = append(errs, errors.New("a device of the host can be opened"))
	}
	for key := range r {
		if strings.HasPrefix(key, "fd ") {
			errs = append(errs, fmt.Errorf("%s is open", key))
		}
	}
	if p.policy() == "strict" {
		want("CapBnd", "0000000000000000")
		want("read-only /", "true")
		if p.way != wayPalisade {
			want("write /scratch", "EACCES") // by Landlock alone
			want("write /tmp", "allowed")
		}
	}
	return errors.Join(errs...)
}

// The answers of a cell.
const (
	answerRefused = "refused"
	answerInForce = "in force"
	answerOpen    = "OPEN"
)

// judge decides what became of an attempt.
func (p *place) judge(t *testing.T, a attempt) (answer, detail string) {
	f := p.fault
	var open []string
	say := func(format string, args ...any) { open = append(open, fmt.Sprintf(format, args...)) }
	ran := reports(a.wrote)
	if len(ran) == 0 && strings.TrimSpace(a.wrote) != "" && a.code == 0 && f.words == nil {
		say("it wrote %.200q", a.wrote)
	}
	if !a.clean {
		say("a process is left that has the container's output open")
	}
	switch {
	case len(ran) > 0 && f.refused:
		say("it ran, exit code %d: %.300s", a.code, a.said)
	case len(ran) > 0:
		want, err := p.reference(t)
		if err != nil {
			return answerOpen, err.Error()
		}
		for _, r := range ran {
			for _, d := range different(want, p.normal(r), f.mayDiffer) {
				say("it ran with %s", d)
			}
		}
		answer = answerInForce
	case a.code == 0:
		say("exit code 0 and nothing ran: %.300s", a.said)
	default:
		answer = answerRefused
		if strings.TrimSpace(a.said) == "" {
			say("exit code %d without a message", a.code)
		}
		if strings.Contains(a.said, "panic:") || strings.Contains(a.said, "goroutine ") {
			say("a stack trace: %.300s", a.said)
		}
		if f.says != "" && !strings.Contains(a.said, f.says) {
			say("the refusal does not say %q: %.300s", f.says, a.said)
		}
		if !p.logged(t) && p.way != wayPalisade && f.words == nil {
			say("the log has no error")
		}
	}
	open = append(open, p.left(t, a)...)
	if len(open) > 0 {
		return answerOpen, strings.Join(open, "; ")
	}
	return answer, lastOf(a.said)
}

func lastOf(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.ReplaceAll(lines[len(lines)-1], "\t", " ")
}

// different are the keys in which a report differs.
func different(want, got map[string]string, may []string) []string {
	keys := map[string]bool{}
	for k := range want {
		keys[k] = true
	}
	for k := range got {
		keys[k] = true
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		denied := strings.HasPrefix(k, "call ") && want[k] != "allowed" && got[k] != "allowed" // by one filter or another
		if want[k] != got[k] && !denied && !slices.Contains(may, k) {
			out = append(out, fmt.Sprintf("%s %q, want %q", k, got[k], want[k]))
		}
	}
	return out
}

// logged reports whether the log has an error in the runtimes' form.
func (p *place) logged(t *testing.T) bool {
	b, err := os.ReadFile(p.dir + "/log")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg, Time string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" && entry.Msg != "" && entry.Time != "" {
			return true
		}
	}
	return false
}

// delete removes the container as its engine would.
func (p *place) delete(t *testing.T) {
	if p.fault.mend != nil {
		p.fault.mend(t, p)
	}
	q := *p
	q.fault = fault{shape: p.fault.shape}
	q.call(t, nil, false, q.wrapper(false, "delete", "--force", p.id)...)
}

// left deletes the container as an engine would, and lists what is left of it.
func (p *place) left(t *testing.T, a attempt) (left []string) {
	say := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	if p.way.adds() {
		// The container is as it was.
		temps, _ := filepath.Glob(p.state + "/containers/*/exec-*")
		if len(temps) > 0 {
			say("left: %q", temps)
		}
		return left
	}
	// Where the host refuses system calls to the runtime, it cannot clean up.
	if a.code == 0 || len(reports(a.wrote)) > 0 || p.fault.outer != nil {
		p.delete(t)
	}
	if p.fault.gc {
		q := *p
		q.fault = fault{}
		if code, said := q.call(t, nil, false, filepath.Join(p.bin, "palisade"), "gc"); code != 0 {
			say("gc: exit code %d: %s", code, said)
		}
	}
	if p.fault.keeps != "" {
		return nil
	}
	entries, _ := os.ReadDir(p.root)
	for _, e := range entries {
		say("left in the runtime's folder: %s", e.Name())
	}
	entries, _ = os.ReadDir(p.state + "/containers")
	for _, e := range entries {
		say("left in the state folder: %s", e.Name())
	}
	if _, err := os.Stat(p.state + "/labels.db"); err == nil {
		labels, err := authority.Open(p.state).List()
		if err != nil {
			say("labels: %v", err)
		}
		for _, l := range labels {
			if l.State != svirt.Draining && l.State != svirt.Quarantine {
				say("left: label %s of %s, %s", l.Level, l.ID, l.State)
			}
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(p.dir))
	check(t, err)
	for _, m := range mounts {
		say("left: a mount at %s", m.Mountpoint)
	}
	return append(left, p.processes(t)...)
}

// members are the processes in a control group of the container.
func (p *place) members(t *testing.T) (pids []int) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	check(t, err)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("/"+p.id+"\n")) {
			pid, err := strconv.Atoi(strings.Split(f, "/")[2])
			check(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// processes are those that do not end: who was killed may take its time.
func (p *place) processes(t *testing.T) (left []string) {
	for _, pid := range p.members(t) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		const patience = 20_000 // milliseconds
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience); n != 1 {
			left = append(left, "left: process "+strconv.Itoa(pid))
		}
		unix.Close(fd)
	}
	return left
}

// cell fills one cell of the table.
func (tb *table) cell(t *testing.T, p *place) {
	t.Helper()
	a := p.try(t)
	answer, detail := p.judge(t, a)
	tb.record(t, p, answer, detail)
}

func (tb *table) record(t *testing.T, p *place, answer, detail string) {
	t.Helper()
	tb.mu.Lock()
	tb.results = append(tb.results, result{p.fault.name, p.runtime, p.way, answer, detail})
	tb.mu.Unlock()
	if answer == answerOpen {
		t.Errorf("%s, %s, %s: %s", p.fault.name, p.way, p.runtime, detail)
	}
}

func (tb *table) print(t *testing.T) {
	slices.SortStableFunc(tb.results, func(a, b result) int {
		return strings.Compare(a.fault+string(a.way)+a.runtime, b.fault+string(b.way)+b.runtime)
	})
	counts := map[string]int{}
	for _, r := range tb.results {
		counts[r.answer]++
		t.Logf("%-48s %-16s %-4s %-8s %.200s", r.fault, r.way, r.runtime, r.answer, r.detail)
	}
	t.Logf("%d cells: %d refused, %d in force, %d open", len(tb.results), counts[answerRefused], counts[answerInForce], counts[answerOpen])
	if tb.all && os.Getenv(envRows) == "" && len(tb.results) < 300 {
		t.Errorf("%d cells, want at least 300", len(tb.results))
	}
}

// job is the cells of one way and runtime that share a container, or one cell.
type job struct {
	runtime string
	way     way
	shape   shape
	faults  []fault
}

// chosen are the cells to fill: all, or each fault once over runc and every third
// over crun.
func (tb *table) chosen(faults []fault) []job {
	var jobs []job
	shared := map[string]int{}
	for i, f := range faults {
		runtimes := f.runtimes
		if len(runtimes) == 0 {
			runtimes = []string{"runc", "crun"}
		}
		for _, rt := range runtimes {
			for j, w := range f.ways {
				if !tb.all && (j != i%len(f.ways) || rt == "crun" && len(runtimes) > 1 && i%3 != 0) {
					continue
				}
				key := fmt.Sprint(rt, w, f.shape)
				at, ok := shared[key]
				if w.adds() && !f.alone && ok {
					jobs[at].faults = append(jobs[at].faults, f)
					continue
				}
				if w.adds() && !f.alone {
					shared[key] = len(jobs)
				}
				jobs = append(jobs, job{rt, w, f.shape, []fault{f}})
			}
		}
	}
	return jobs
}

func (tb *table) run(t *testing.T, j job) {
	var p *place
	for _, f := range j.faults {
		switch {
		case !j.way.adds():
			p = tb.newPlace(t, j.runtime, j.way, f)
			p.spec(t, "/bin/probe")
			if j.way != wayCreate && f.between != nil {
				f.between(t, p)
			}
		case p == nil:
			p = tb.newPlace(t, j.runtime, j.way, f)
			if err := p.start(t); err != nil {
				t.Fatal(err)
			}
		default:
			p.fault = f
			os.Remove(p.dir + "/log")
		}
		if j.way.adds() && f.between != nil {
			f.between(t, p)
		}
		tb.cell(t, p)
		if j.way.adds() && !f.alone && !p.runs(t) {
			t.Errorf("%s: the container was ended", f.name)
			p = nil
		}
	}
}

// runs reports whether the container that processes are added to is still there.
func (p *place) runs(t *testing.T) bool { return len(p.members(t)) > 0 }

// TestConfirmFailOpenTable fills the table over runc and crun.
func TestConfirmFailOpenTable(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts some hundred containers")
	}
	tb := newTable(t)
	defer tb.print(t)
	rows := faults()
	if only := os.Getenv(envRows); only != "" {
		rows = slices.DeleteFunc(rows, func(f fault) bool { return !strings.Contains(f.name, only) })
	}
	jobs := tb.chosen(rows)
	t.Run("cells", func(t *testing.T) {
		for _, j := range jobs {
			t.Run(fmt.Sprintf("%s/%s/%s", j.faults[0].name, j.way, j.runtime), func(t *testing.T) {
				t.Parallel()
				tb.run(t, j)
			})
		}
	})
}
