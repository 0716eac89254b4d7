// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

var strict = shape{policy: "strict"}

// faults are the rows of the fail-open table.
//
// Rows that only a host with a security module can have are in the tests of those:
// a label or profile that a runtime drops, a permissive SELinux, and a profile that
// does not enforce (internal/svirtkernel).
func faults() []fault {
	return slices.Concat(
		runtimeFaults(), recordFaults(), hostFaults(), lineFaults(), hookFaults(), annotationFaults(),
		jsonFaults(), mountFaults(), demandFaults(), processFaults(),
	)
}

// runtimeFaults are committed by the runtime.
func runtimeFaults() []fault {
	var out []fault
	add := func(s shape, ways []way, names ...string) {
		for _, name := range names {
			out = append(out, fault{name: "runtime: " + name, stub: name, shape: s, ways: ways})
		}
	}
	both := slices.Concat(making, []way{wayPalisade})
	add(shape{}, allWays, "no new privileges dropped", "bounding set widened", "effective set widened", "permitted set widened",
		"inheritable set widened", "ambient set widened", "inheritable set filled", "every set filled", "last step dropped",
		"last step replaced", "another program instead", "another workload")
	add(shape{user: 1000}, allWays, "user 0", "group 0")
	add(shape{user: 1000}, slices.Concat(making, adding), "group 0 in addition") // "palisade run" gives it, as Docker does
	add(shape{}, both, "masks dropped", "one mask dropped", "read-only paths dropped", "one read-only path dropped", "another root",
		"pid namespace dropped", "ipc namespace dropped", "uts namespace dropped", "net namespace dropped", "cgroup namespace dropped",
		"mount namespace dropped", "pid namespace shared", "ipc namespace shared", "net namespace shared", "uts namespace shared",
		"another source", "mount made writable", "mount dropped", "folder of the host", "folder of the host at /etc",
		"folder of the host at /tmp/x", "tmpfs over /proc/self", "tmpfs over /proc", "folder over /proc", "procfs of the host",
		"/sys writable", "/sys/fs/cgroup writable", "/dev of the host", "every device allowed", "device node added",
		"startContainer hook added")
	add(strict, both, "root writable")
	add(shape{hook: true}, making, "filter dropped", "filter allows everything")
	add(strict, allWays, "descriptors dropped", "one descriptor too few", "program and configuration exchanged",
		"another program as the last step", "configuration closed", "configuration without anything", "configuration without filters",
		"configuration without Landlock", "configuration with a Landlock rule", "configuration from elsewhere")
	add(shape{}, allWays, "folder of the host leaked", "folder of the host leaked far up", "working directory by a leaked descriptor")
	add(shape{}, allWays, "nothing done", "killed before", "fails without doing it")
	add(shape{}, making, "pid file absent", "pid file empty", "pid file of letters", "pid file with 0", "pid file negative",
		"pid file of the host", "pid file of nobody", "pid file long", "started twice")
	add(shape{}, []way{wayCreate}, "started in create")
	for _, name := range []string{"killed afterwards", "fails afterwards"} {
		out = append(out,
			fault{name: "runtime: " + name, stub: name, ways: allWays},
			fault{name: "runtime: start " + name, stub: name, when: "start", ways: []way{wayCreate}})
	}
	for _, name := range []string{"nothing done", "killed before", "fails without doing it"} {
		out = append(out, fault{name: "runtime: start " + name, stub: name, when: "start", ways: []way{wayCreate}})
	}
	return out
}

// only is the file or folder that a pattern in the state folder names.
func (p *place) only(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.state, "containers", pattern))
	check(t, err)
	if len(files) != 1 {
		t.Fatalf("%s: %q", pattern, files)
	}
	return files[0]
}

func change(t *testing.T, file string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	check(t, os.WriteFile(file, f(b), 0o600))
}

// recordFaults lose or damage what is known of a container that is there.
func recordFaults() []fault {
	var out []fault
	ways := slices.Concat([]way{wayCreate}, adding)
	add := func(name string, refused bool, between func(t *testing.T, p *place)) {
		out = append(out, fault{name: "record: " + name, shape: strict, ways: ways, between: between, alone: true, refused: refused})
	}
	edit := func(pattern string, f func([]byte) []byte) func(t *testing.T, p *place) {
		return func(t *testing.T, p *place) { change(t, p.only(t, pattern), f) }
	}
	remove := func(pattern string) func(t *testing.T, p *place) {
		return func(t *testing.T, p *place) { check(t, os.RemoveAll(p.only(t, pattern))) }
	}
	add("absent", true, remove("*/record.json"))
	add("folder absent", true, remove("fo*"))
	out[len(out)-1].gc = true
	// A container that waits for its start has its last step already.
	step := func(name string, between func(t *testing.T, p *place)) {
		out = append(out,
			fault{name: "record: step " + name, shape: strict, ways: adding, between: between, alone: true, refused: true},
			fault{name: "record: step " + name, shape: strict, ways: []way{wayCreate}, between: between})
	}
	step("absent", remove("*/step"))
	step("empty", edit("*/step", func([]byte) []byte { return nil }))
	step("cut", edit("*/step", func(b []byte) []byte { return b[:len(b)-1] }))
	step("a bit changed", edit("*/step", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
	step("of nothing", edit("*/step", func([]byte) []byte { return new(laststep.Config).Encode() }))
	step("a link", func(t *testing.T, p *place) {
		file := p.only(t, "*/step")
		check(t, os.Rename(file, p.stub+"/step"))
		check(t, os.Symlink(p.stub+"/step", file))
	})
	for _, percent := range []int{0, 1, 30, 60, 99} {
		add(fmt.Sprintf("cut to %d %%", percent), true, edit("*/record.json", func(b []byte) []byte { return b[:len(b)*percent/100] }))
	}
	for _, percent := range []int{2, 35, 70, 98} {
		add(fmt.Sprintf("a bit changed at %d %%", percent), true, edit("*/record.json", func(b []byte) []byte { b[len(b)*percent/100] ^= 1; return b }))
	}
	add("without a step", true, edit("*/record.json", func(b []byte) []byte {
		at := bytes.Index(b, []byte(`"step":"`))
		return append(b[:at+8:at+8], b[at+8+bytes.IndexByte(b[at+8:], '"'):]...)
	}))
	add("a link", true, func(t *testing.T, p *place) {
		file := p.only(t, "*/record.json")
		check(t, os.Rename(file, p.stub+"/record"))
		check(t, os.Symlink(p.stub+"/record", file))
	})
	add("a pipe", true, func(t *testing.T, p *place) {
		file := p.only(t, "*/record.json")
		check(t, os.Remove(file))
		check(t, unix.Mkfifo(file, 0o600))
	})
	add("of another container", true, func(t *testing.T, p *place) {
		q := p.newPlace(t, p.runtime, wayCreate, fault{})
		q.state, q.root = p.dir+"/second", p.root
		q.spec(t, "/bin/probe", "wait")
		if code, said := q.call(t, nil, false, q.wrapper(false, "create", "--bundle", q.bundle, q.id)...); code != 0 {
			t.Fatal(said)
		}
		b, err := os.ReadFile(q.only(t, "*/record.json"))
		check(t, err)
		q.call(t, nil, false, q.wrapper(false, "delete", "--force", q.id)...)
		check(t, os.WriteFile(p.only(t, "*/record.json"), b, 0o600))
	})
	add("configuration absent", false, remove("*/bundle/config.json"))
	add("configuration changed", false, edit("*/bundle/config.json", func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"noNewPrivileges":true`), []byte(`"noNewPrivileges":false`), 1)
	}))
	add("of another state folder", true, func(t *testing.T, p *place) {
		p.fault.env = func(p *place) []string { return []string{"PALISADE_STATE=" + p.dir + "/elsewhere"} }
	})
	add("state folder read-only", false, func(t *testing.T, p *place) {
		p.fault.outer = func(p *place) []string { return []string{"OUTER_READONLY=" + p.state} }
	})
	add("state folder hidden", true, func(t *testing.T, p *place) {
		p.fault.outer = func(p *place) []string { return []string{"OUTER_TMPFS=" + p.state + "=size=1m"} }
	})
	add("state folder for everybody", true, func(t *testing.T, p *place) { check(t, os.Chmod(p.state, 0o777)) })
	out[len(out)-1].mend = func(t *testing.T, p *place) { check(t, os.Chmod(p.state, 0o711)) }
	add("labels absent", false, func(t *testing.T, p *place) { check(t, os.Remove(p.state+"/labels.db")) })
	add("labels damaged", false, func(t *testing.T, p *place) {
		check(t, os.WriteFile(p.state+"/labels.db", bytes.Repeat([]byte("x"), 1<<15), 0o600))
	})
	out[len(out)-1].keeps = "its label cannot be given back"
	return out
}

// hostFaults are those of the host: system calls refused and state folders that
// take nothing.
func hostFaults() []fault {
	var out []fault
	calls := []string{
		"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "memfd_create", "ptrace", "pidfd_open",
		"openat2", "close_range", "prctl(PR_SET_NO_NEW_PRIVS)", "prctl(PR_CAP_AMBIENT)", "capset", "statx", "mount_setattr",
	}
	for _, call := range calls {
		for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
			out = append(out, fault{
				name: fmt.Sprintf("host: %s answers %s", call, unix.ErrnoName(errno)), shape: strict,
				ways:      []way{wayCreate, wayRun, wayFile, wayExec, wayPalisade},
				outer:     func(*place) []string { return []string{fmt.Sprintf("OUTER_REFUSE=%s=%d", call, int(errno))} },
				mayDiffer: []string{"Seccomp_filters"}, reason: "the filter that refuses is one more",
			})
		}
	}
	ways := slices.Concat(making, []way{wayPalisade})
	out = append(out, fault{name: "host: state folder read-only", ways: ways, refused: true, outer: func(p *place) []string { return []string{"OUTER_READONLY=" + p.state} }})
	for _, size := range []string{"size=4k", "size=16k", "size=48k", "size=100k", "size=200k", "nr_inodes=4", "nr_inodes=9", "nr_inodes=14"} {
		out = append(out, fault{name: "host: state folder with " + size, ways: []way{wayRun, wayPalisade}, outer: func(p *place) []string { return []string{"OUTER_TMPFS=" + p.state + "=" + size} }})
	}
	for _, name := range []string{"_LIBCONTAINER_INITPIPE=3", "_LIBCONTAINER_CLONED_BINARY=1", "POSIXLY_CORRECT=1", "LISTEN_FDS=4", "XDG_RUNTIME_DIR=/tmp", "GODEBUG=execerrdot=0"} {
		out = append(out, fault{name: "environment: " + name, ways: slices.Concat(making, []way{wayExec, wayPalisade}), env: func(*place) []string { return []string{name} }})
	}
	return out
}

// lineFaults are command lines that must not be guessed at.
func lineFaults() []fault {
	var out []fault
	runtimes := slices.Concat(making, adding)
	add := func(name string, ways []way, f fault) {
		f.name, f.ways, f.refused = "command line: "+name, ways, true
		out = append(out, f)
	}
	add("unknown global option", runtimes, fault{global: []string{"--nosuch"}, says: "nosuch"})
	add("unknown option", runtimes, fault{options: []string{"--nosuch"}, says: "nosuch"})
	add("unknown option with a value", runtimes, fault{options: []string{"--nosuch=1"}, says: "nosuch"})
	add("abbreviated option", runtimes, fault{options: []string{"--pid-fil=/tmp/x"}, runtimes: []string{"runc"}})
	add("option of crun", making, fault{options: []string{"--config=/tmp/x"}, runtimes: []string{"runc"}})
	add("global option of crun", runtimes, fault{global: []string{"--cgroup-manager=cgroupfs"}, runtimes: []string{"runc"}})
	add("global option of runc", runtimes, fault{global: []string{"--criu=/bin/true"}, runtimes: []string{"crun"}})
	add("option of runc", making, fault{options: []string{"--pidfd-socket=/tmp/x"}, runtimes: []string{"crun"}})
	add("own option misplaced", runtimes, fault{options: []string{"--palisade-policy=default"}})
	add("own option among the global ones", runtimes, fault{global: []string{"--palisade-on-mismatch=warn"}})
	add("unknown own option", runtimes, fault{own: []string{"--palisade-nosuch=1"}})
	add("own option without a value", runtimes, fault{own: []string{"--palisade-runtime"}})
	add("unknown policy", slices.Concat(making, []way{wayPalisade}), fault{shape: shape{policy: "nosuch"}, says: "nosuch"})
	add("unknown answer to a mismatch", runtimes, fault{own: []string{"--palisade-on-mismatch=ignore"}})
	add("unknown requirement", runtimes, fault{own: []string{"--palisade-require=nosuch"}})
	add("configuration of ours absent", runtimes, fault{own: []string{"--palisade-config=/nosuch"}})
	add("configuration of ours unreadable", runtimes, fault{own: []string{"--palisade-config=/dev/null"}})
	add("state folder that is none", runtimes, fault{own: []string{"--palisade-state=/dev/null"}})
	add("runtime absent", runtimes, fault{own: []string{"--palisade-runtime=/nosuch"}})
	add("runtime that is none", runtimes, fault{own: []string{"--palisade-runtime=/bin/true"}})
	add("bundle absent", making, fault{options: []string{"--bundle=/nosuch"}, words: func(p *place) []string { return []string{"run", "--bundle", "/nosuch", p.id} }})
	add("no ID", runtimes, fault{words: func(p *place) []string { return []string{p.way.commands()} }})
	add("two IDs", making, fault{words: func(p *place) []string { return []string{"run", "--bundle", p.bundle, p.id, p.id + "b"} }})
	add("ID with a slash", making, fault{words: func(p *place) []string { return []string{"run", "--bundle", p.bundle, "../" + p.id} }})
	add("unknown command", making, fault{words: func(p *place) []string { return []string{"launch", "--bundle", p.bundle, p.id} }})
	add("descriptors that are not open", runtimes, fault{options: []string{"--preserve-fds=40"}, runtimes: []string{"runc"}})
	add("descriptors that are not open", runtimes, fault{options: []string{"--preserve-fds=40"}, runtimes: []string{"crun"}})
	crun := &out[len(out)-1]
	crun.refused, crun.reason = false, "crun passes on those that are open; /dev/null stands for the others"
	for fd := 3; fd < 43; fd++ {
		crun.mayDiffer = append(crun.mayDiffer, fmt.Sprintf("fd %d /dev/null", fd), fmt.Sprintf("fd %d /null", fd))
	}
	add("descriptors below zero", runtimes, fault{options: []string{"--preserve-fds=-1"}})
	add("too many descriptors", runtimes, fault{options: []string{"--preserve-fds=99999999999"}})
	add("log by a descriptor that is not open", runtimes, fault{words: func(p *place) []string {
		words := []string{"--log", "/dev/fd/77", p.way.commands(), "--bundle", p.bundle, p.id}
		if p.way.adds() {
			words = []string{"--log", "/dev/fd/77", "exec", p.id, "/bin/probe"}
		}
		return words
	}})
	add("checkpoint", []way{wayRestore}, fault{says: "restore"})
	add("capability more", []way{wayExec}, fault{options: []string{"--cap", "CAP_SYS_ADMIN"}})
	add("container that is not there", []way{wayExec}, fault{words: func(*place) []string { return []string{"exec", "nosuch", "/bin/probe"} }})
	add("container by the beginning of its name", []way{wayExec}, fault{words: func(p *place) []string { return []string{"exec", p.id[:len(p.id)-1], "/bin/probe"} }})
	for name, options := range map[string][]string{
		"volume of the state folder": {"-v", "STATE:/x"}, "volume above the state folder": {"-v", "/:/x"}, "volume at /proc": {"-v", "DATA:/proc"},
		"volume below /proc": {"-v", "DATA:/proc/self"}, "unknown user": {"--user", "nosuch"}, "runtime that is none": {"--runtime", "/bin/true"},
		"root with a link at /proc": {"--rootfs", "LINKS"}, "volume that is not there": {"-v", "/nosuch:/x"}, "unknown option": {"--nosuch"},
		"relative working folder": {"--workdir", "x"}, "unknown network": {"--net", "bridge"},
	} {
		f := fault{options: options}
		f.between = func(t *testing.T, p *place) {
			links := p.stub + "/links"
			check(t, os.CopyFS(links, os.DirFS(p.host.root)))
			check(t, os.Remove(links+"/proc"))
			check(t, os.Symlink("/data", links+"/proc"))
			p.fault.options = slices.Clone(options)
			for i := range p.fault.options {
				p.fault.options[i] = strings.NewReplacer("STATE", p.state, "DATA", p.dir+"/data", "LINKS", links).Replace(p.fault.options[i])
			}
		}
		add("palisade run, "+name, []way{wayPalisade}, f)
	}
	return out
}

func hooksEdit(kind string, hook object, env ...any) func(*testing.T, *place, map[string]any) {
	return func(_ *testing.T, p *place, c map[string]any) {
		h := object{}
		for k, v := range hook {
			h[k] = v
		}
		if s, ok := h["path"].(string); ok {
			h["path"] = strings.Replace(s, "STUB", p.stub, 1)
		}
		c["hooks"] = object{kind: []any{h}}
		process := c["process"].(object)
		process["env"] = append(process["env"].([]any), env...)
	}
}

// hookFaults are hooks that are not there, or that the image wants to change.
func hookFaults() []fault {
	var out []fault
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer"} {
		out = append(out,
			fault{name: "hook: " + kind + " absent", ways: making, edit: hooksEdit(kind, object{"path": "/nosuch"}), refused: true},
			fault{name: "hook: " + kind + " relative", ways: making, edit: hooksEdit(kind, object{"path": "nosuch"}), refused: true},
			fault{name: "hook: " + kind + " that fails", ways: making, edit: hooksEdit(kind, object{"path": "/bin/false"}), refused: true},
			fault{name: "hook: " + kind + " is the last step", ways: making, edit: hooksEdit(kind, object{"path": "/proc/self/fd/3"}), refused: true},
		)
	}
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
		out = append(out, fault{
			name: "hook: " + kind + " with a library of the image", ways: making, edit: hooksEdit(kind, object{"path": "STUB/hook"}, "LD_PRELOAD=/data/evil.so"),
			between: func(t *testing.T, p *place) {},
		})
	}
	return out
}

func annotated(pairs ...string) func(*testing.T, *place, map[string]any) {
	return func(_ *testing.T, _ *place, c map[string]any) {
		a := object{}
		for i := 0; i < len(pairs); i += 2 {
			a[pairs[i]] = pairs[i+1]
		}
		c["annotations"] = a
	}
}

// annotationFaults are what an image can bring.
func annotationFaults() []fault {
	const ours = "io.github.palisade-sec."
	var out []fault
	add := func(name string, refused bool, pairs ...string) {
		out = append(out, fault{name: "annotation: " + name, ways: making, edit: annotated(pairs...), refused: refused})
	}
	add("unknown key of ours", true, ours+"nosuch", "1")
	add("mistyped key of ours", true, ours+"requets", "strict")
	add("unknown policy", true, ours+"request", "nosuch")
	add("a label", true, ours+"selinux", "level:s0:c1,c2")
	add("a malformed label", true, ours+"selinux", "level:")
	add("an ID of another", false, ours+"id", "other")
	add("label off", false, ours+"selinux", "disable")
	// crun has a filter of instructions, 8 bytes each: return ALLOW.
	add("filter of crun", false, "run.oci.seccomp_bpf_data", "BgAAAAAA/38=")
	add("handler of crun", false, "run.oci.handler", "krun")
	add("plugins of crun", false, "run.oci.seccomp.plugins", "/data/plugin.so")
	add("receiver of crun", false, "run.oci.seccomp.receiver", "/nosuch")
	add("hooks' output of crun", false, "run.oci.hooks.stdout", "/nosuch/x")
	add("systemd of crun", false, "run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup")
	out[len(out)-1].mayDiffer, out[len(out)-1].reason = []string{"mounts", "read-only /sys/fs/cgroup"}, "one hierarchy is mounted for reading in place of all"
	add("groups of crun", false, "run.oci.keep_original_groups", "1")
	add("context type of crun", false, "run.oci.mount_context_type", "context")
	add("delegation of crun", false, "run.oci.delegate-cgroup", "x")
	return out
}

func replaced(old, with string) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, []byte(old)) {
			panic("no " + old)
		}
		return bytes.Replace(b, []byte(old), []byte(with), 1)
	}
}

// jsonFaults are documents that two programs read differently.
func jsonFaults() []fault {
	var out []fault
	add := func(name string, ways []way, raw func([]byte) []byte) {
		out = append(out, fault{name: "JSON: " + name, ways: ways, raw: raw, refused: true})
	}
	files := []way{wayFile, wayFileAway}
	all := slices.Concat(making, files)
	privileged := `{"user":{"uid":0,"gid":0},"cwd":"/","args":["/bin/foreign"],"capabilities":{"bounding":["CAP_SYS_ADMIN"]}}`
	add("folded name", making, replaced(`"process":`, `"proceſs":`+privileged+`,"process":`))
	add("name in capitals", making, replaced(`"process":`, `"Process":`+privileged+`,"process":`))
	add("name twice", making, replaced(`"process":`, `"process":`+privileged+`,"process":`))
	add("name twice, once escaped", making, replaced(`"process":`, `"pro\u0063ess":`+privileged+`,"process":`))
	add("linux twice", making, replaced(`"linux":`, `"linux":{},"linux":`))
	add("linux in capitals", making, replaced(`"linux":`, `"Linux":{},"linux":`))
	add("capabilities in capitals", all, replaced(`"capabilities":`, `"Capabilities":{"bounding":["CAP_SYS_ADMIN"]},"capabilities":`))
	add("capabilities twice", all, replaced(`"capabilities":`, `"capabilities":{"bounding":["CAP_SYS_ADMIN"]},"capabilities":`))
	add("arguments twice", all, replaced(`"args":`, `"args":["/bin/foreign"],"args":`))
	add("arguments folded", all, replaced(`"args":`, `"argſ":["/bin/foreign"],"args":`))
	add("second document", all, func(b []byte) []byte { return append(b, b...) })
	add("words behind it", all, func(b []byte) []byte { return append(b, " x"...) })
	add("cut", all, func(b []byte) []byte { return b[:len(b)-1] })
	add("empty", all, func([]byte) []byte { return nil })
	add("no object", all, func([]byte) []byte { return []byte("[]") })
	add("null", all, func([]byte) []byte { return []byte("null") })
	add("byte order mark", all, func(b []byte) []byte { return append([]byte("\xef\xbb\xbf"), b...) })
	add("invalid UTF-8", all, replaced(`"PATH=/bin"`, "\"PATH=/bin\xff\""))
	add("NUL in an argument", all, replaced(`"/bin/probe"`, `"/bin/probe\u0000x"`))
	add("deeply nested", all, replaced(`"cwd":`, `"x":`+strings.Repeat("[", 100000)+strings.Repeat("]", 100000)+`,"cwd":`))
	add("user as text", all, replaced(`"uid":0`, `"uid":"0"`))
	add("user below zero", all, replaced(`"uid":0`, `"uid":-1`))
	add("comment", all, replaced(`"cwd":`, `/* x */ "cwd":`))
	return out
}

// mountFaults let the container decide what runs first, or reach what it must not.
func mountFaults() []fault {
	var out []fault
	add := func(name string, refused bool, edit func(t *testing.T, p *place, c map[string]any)) {
		out = append(out, fault{name: "mount: " + name, ways: making, edit: edit, refused: refused})
	}
	at := func(destination, kind, source string, options ...any) func(*testing.T, *place, map[string]any) {
		return func(_ *testing.T, p *place, c map[string]any) {
			source := strings.NewReplacer("STATE", p.state, "DATA", p.dir+"/data", "STUB", p.stub, "DIR", p.dir).Replace(source)
			c["mounts"] = append(c["mounts"].([]any), object{"destination": destination, "type": kind, "source": source, "options": options})
		}
	}
	for _, destination := range []string{"/proc", "/proc/self", "/proc/self/fd", "/proc/1/fd", "/proc/thread-self", "/proc/sys", "/proc/kcore", "//proc//self", "/./proc/self", "/data/../proc/self", "/", "/.."} {
		add("volume at "+destination, true, at(destination, "bind", "DATA", "bind"))
	}
	add("tmpfs at /proc", true, at("/proc", "tmpfs", "tmpfs"))
	add("tmpfs at /proc/self", true, at("/proc/self", "tmpfs", "tmpfs"))
	add("procfs' folder at /proc", true, at("/proc", "bind", "/proc/self", "bind"))
	add("state folder", true, at("/x", "bind", "STATE", "bind"))
	add("folder above the state folder", true, at("/x", "bind", "DIR", "bind"))
	add("root of the host", true, at("/x", "bind", "/", "rbind"))
	add("state folder as a layer", true, at("/x", "overlay", "overlay", "lowerdir=/proc:/sys"))
	add("containers' folder", true, func(t *testing.T, p *place, c map[string]any) {
		check(t, os.MkdirAll(p.state+"/containers", 0o700))
		at("/x", "bind", "STATE/containers", "bind")(t, p, c)
	})
	add("link to the state folder", true, func(t *testing.T, p *place, c map[string]any) {
		check(t, os.Symlink(p.state, p.stub+"/link"))
		at("/x", "bind", "STUB/link", "bind")(t, p, c)
	})
	add("source that is not there", true, at("/x", "bind", "/nosuch", "bind"))
	add("source missing", true, func(_ *testing.T, p *place, c map[string]any) {
		c["mounts"] = append(c["mounts"].([]any), object{"destination": "/x", "type": "bind", "options": []any{"bind"}})
	})
	add("no procfs", true, func(_ *testing.T, p *place, c map[string]any) {
		c["mounts"] = slices.DeleteFunc(c["mounts"].([]any), func(m any) bool { return m.(object)["destination"] == "/proc" })
	})
	root := func(name, target string) func(*testing.T, *place, map[string]any) {
		return func(t *testing.T, p *place, c map[string]any) {
			own := p.stub + "/root"
			check(t, os.CopyFS(own, os.DirFS(p.host.root)))
			check(t, os.RemoveAll(filepath.Join(own, name)))
			if target == "" {
				check(t, os.WriteFile(filepath.Join(own, name), nil, 0o644))
			} else {
				check(t, os.Symlink(target, filepath.Join(own, name)))
			}
			c["root"].(object)["path"] = own
		}
	}
	add("/proc is a link", true, root("proc", "/data"))
	add("/proc is a link inside", true, root("proc", "data"))
	add("/proc is a file", true, root("proc", ""))
	add("/dev is a link", true, root("dev", "/data"))
	add("/sys is a link", true, root("sys", "/data"))
	add("link to /proc", true, func(t *testing.T, p *place, c map[string]any) {
		root("lnk", "/proc")(t, p, c)
		at("/lnk/self", "bind", "DATA", "bind")(t, p, c)
	})
	add("link of an earlier volume", true, func(t *testing.T, p *place, c map[string]any) {
		check(t, os.Symlink("/proc", p.dir+"/data/lnk"))
		at("/data/lnk/self", "bind", "STUB", "bind")(t, p, c)
	})
	for _, path := range []string{"", "/nosuch", "/", "STATE", "DIR"} {
		add("root "+strconv.Quote(path), true, func(_ *testing.T, p *place, c map[string]any) {
			c["root"].(object)["path"] = strings.NewReplacer("STATE", p.state, "DIR", p.dir).Replace(path)
		})
	}
	add("no root", true, func(_ *testing.T, _ *place, c map[string]any) { delete(c, "root") })
	return out
}

// demandFaults ask for what this host does not enforce.
func demandFaults() []fault {
	const label = "system_u:system_r:container_t:s0:c1,c2"
	var out []fault
	for _, layer := range []string{"selinux", "apparmor"} {
		out = append(out, fault{name: "demand: host requires " + layer, ways: making, own: []string{"--palisade-require=" + layer}, refused: true, says: layer})
	}
	process := func(key, value string) func(*testing.T, *place, map[string]any) {
		return func(_ *testing.T, _ *place, c map[string]any) { c["process"].(object)[key] = value }
	}
	added := func(key, value string) func(*place, map[string]any) {
		return func(_ *place, c map[string]any) { c[key] = value }
	}
	files := []way{wayFile, wayFileAway}
	out = append(out,
		fault{name: "demand: SELinux label", ways: making, edit: process("selinuxLabel", label), refused: true},
		fault{name: "demand: malformed SELinux label", ways: making, edit: process("selinuxLabel", "x"), refused: true},
		fault{name: "demand: AppArmor profile", ways: making, edit: process("apparmorProfile", "mine"), refused: true},
		fault{name: "demand: SELinux label, and an annotation against it", ways: making, refused: true, edit: func(t *testing.T, p *place, c map[string]any) {
			process("selinuxLabel", label)(t, p, c)
			annotated("io.github.palisade-sec.selinux", "disable")(t, p, c)
		}},
		fault{name: "demand: label of mounts", ways: making, refused: true, edit: func(_ *testing.T, _ *place, c map[string]any) {
			c["linux"].(object)["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
		}},
		fault{name: "demand: SELinux label of an exec", ways: files, process: added("selinuxLabel", label), refused: true},
		fault{name: "demand: AppArmor profile of an exec", ways: files, process: added("apparmorProfile", "mine"), refused: true},
		fault{name: "demand: label by an option", ways: []way{wayExec}, options: []string{"--process-label", label}, refused: true},
		fault{name: "demand: profile by an option", ways: []way{wayExec}, options: []string{"--apparmor", "mine"}, refused: true},
	)
	return out
}

// processFaults are processes that cannot be executed or ask for more.
func processFaults() []fault {
	var out []fault
	files := []way{wayFile, wayFileAway}
	all := slices.Concat(making, files)
	add := func(name string, ways []way, refused bool, change func(process map[string]any)) {
		out = append(out, fault{
			name: "process: " + name, ways: ways, refused: refused,
			edit:    func(_ *testing.T, _ *place, c map[string]any) { change(c["process"].(object)) },
			process: func(_ *place, c map[string]any) { change(c) },
		})
	}
	add("command missing", all, true, func(p map[string]any) { p["args"] = []any{"/nosuch"} })
	add("command missing in PATH", all, true, func(p map[string]any) { p["args"] = []any{"nosuch"} })
	add("command is a folder", all, true, func(p map[string]any) { p["args"] = []any{"/bin"} })
	add("command is no program", all, true, func(p map[string]any) { p["args"] = []any{"/etc/image"} })
	add("command is the last step", all, false, func(p map[string]any) { p["args"] = []any{"/proc/self/fd/3", "/bin/probe"} })
	add("no command", all, true, func(p map[string]any) { delete(p, "args") })
	add("empty command", all, true, func(p map[string]any) { p["args"] = []any{""} })
	add("working folder missing", files, true, func(p map[string]any) { p["cwd"] = "/nosuch/x/y" })
	add("relative working folder", all, false, func(p map[string]any) { p["cwd"] = "data" })
	out[len(out)-1].mayDiffer, out[len(out)-1].reason = []string{"cwd", "cwd holds"}, "crun takes it from the root"
	for _, fd := range []string{"3", "4", "5", "6", "7", "8", "9"} {
		add("working folder /proc/self/fd/"+fd, all, true, func(p map[string]any) { p["cwd"] = "/proc/self/fd/" + fd })
	}
	add("every capability", all, false, func(p map[string]any) {
		more := []any{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_ADMIN"}
		c := p["capabilities"].(object)
		for _, set := range []string{"inheritable", "ambient"} {
			c[set] = more
		}
	})
	out[len(out)-1].mayDiffer, out[len(out)-1].reason = []string{"CapInh", "CapAmb"}, "the policy allows them, and the engine asks for them"
	add("new privileges", all, false, func(p map[string]any) { p["noNewPrivileges"] = false })
	add("libraries of the image", all, false, func(p map[string]any) {
		p["env"] = []any{"PATH=/bin", "LD_PRELOAD=/data/evil.so", "LD_LIBRARY_PATH=/data", "PALISADE_INIT=none", "_LIBCONTAINER_INITPIPE=3"}
	})
	add("no capabilities named", making, false, func(p map[string]any) { delete(p, "capabilities") })
	out[len(out)-1].mayDiffer, out[len(out)-1].reason = []string{"CapBnd", "CapEff", "CapPrm", "device fuse"}, "without the member there are none"
	add("no process", making, true, func(p map[string]any) {
		for k := range p {
			delete(p, k)
		}
	})
	out = append(out, fault{name: "process: last step turned off", shape: strict, ways: slices.Concat(making, []way{wayExec, wayPalisade}), env: func(*place) []string { return []string{"PALISADE_INIT=none"} }, refused: false})
	return out
}
