// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// The environment says which fault the runtime commits, and when.
const (
	// envFault is the fault's name, or empty.
	envFault = "STUB_FAULT"
	// envWhen are the commands that commit it, with commas between them.
	envWhen = "STUB_WHEN"
	// envFolder is a folder for what is written, envHost one of the host that the
	// container must not reach, envProcess the number of a process of the host.
	envFolder  = "STUB_FOLDER"
	envHost    = "STUB_HOST"
	envProcess = "STUB_PROCESS"
)

type object = map[string]any

// line is a command line that is edited.
type line struct {
	args []string
	at   int // of the command, -1 without one
}

func parse(args []string) line {
	commands := []string{"create", "run", "start", "exec", "restore", "delete", "state", "kill"}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case slices.Contains(commands, a):
			return line{args, i}
		case a == "--root" || a == "--log" || a == "--log-format":
			i++
		}
	}
	return line{args, -1}
}

func (l line) command() string {
	if l.at < 0 {
		return ""
	}
	return l.args[l.at]
}

func (l line) id() string { return l.args[len(l.args)-1] }

// find is where an option of the command is, and its value.
func (l line) find(name string) (at int, joined bool, value string) {
	for i := l.at + 1; i < len(l.args); i++ {
		if v, ok := strings.CutPrefix(l.args[i], "--"+name+"="); ok {
			return i, true, v
		}
		if l.args[i] == "--"+name && i+1 < len(l.args) {
			return i, false, l.args[i+1]
		}
	}
	return -1, false, ""
}

func (l line) get(name string) string { _, _, v := l.find(name); return v }

func (l *line) set(name, value string) {
	switch at, joined, _ := l.find(name); {
	case at < 0:
		l.args = slices.Insert(l.args, l.at+1, "--"+name+"="+value)
	case joined:
		l.args[at] = "--" + name + "=" + value
	default:
		l.args[at+1] = value
	}
}

func (l *line) drop(name string) {
	switch at, joined, _ := l.find(name); {
	case at < 0:
	case joined:
		l.args = slices.Delete(l.args, at, at+1)
	default:
		l.args = slices.Delete(l.args, at, at+2)
	}
}

func (l line) preserved() int { n, _ := strconv.Atoi(l.get("preserve-fds")); return n }

// faulty is the runtime with the name.
func faulty(name string) error {
	real, err := find(name)
	if err != nil {
		return err
	}
	l := parse(slices.Clone(os.Args[1:]))
	become := func() error { return unix.Exec(real, append([]string{real}, l.args...), os.Environ()) }
	fault := os.Getenv(envFault)
	if fault == "" || l.at < 0 || !slices.Contains(strings.Split(os.Getenv(envWhen), ","), l.command()) {
		return become()
	}
	if f, ok := processFaults[fault]; ok {
		if err := l.edit(func(config, process object) { f(process) }); err != nil {
			return err
		}
		return become()
	}
	if f, ok := configFaults[fault]; ok {
		if err := l.edit(func(config, process object) { f(config) }); err != nil {
			return err
		}
		return become()
	}
	if f, ok := lineFaults[fault]; ok {
		if err := f(&l); err != nil {
			return err
		}
		return become()
	}
	if f, ok := runFaults[fault]; ok {
		return f(&l, real)
	}
	return fmt.Errorf("unknown fault %q", fault)
}

func find(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
		p := filepath.Join(dir, name)
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s here", name)
}

// edit changes a copy of the configuration or of the process that the command was
// given. config is nil for a process.
func (l *line) edit(change func(config, process object)) error {
	name, source := "bundle", filepath.Join(l.get("bundle"), "config.json")
	if l.command() == "exec" {
		name, source = "process", l.get("process")
	}
	b, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	var doc object
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	process, config := doc, object(nil)
	if name == "bundle" {
		process, config = doc["process"].(object), doc
	}
	change(config, process)
	if b, err = json.Marshal(doc); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(os.Getenv(envFolder), name)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	if name == "process" {
		l.set("process", file)
	} else {
		l.set("bundle", dir)
	}
	return nil
}

var everything = []any{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
	"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_MKNOD", "CAP_FOWNER", "CAP_KILL", "CAP_SYSLOG",
}

// widen adds capabilities to sets.
func widen(names []any, sets ...string) func(object) {
	return func(p object) {
		c, _ := p["capabilities"].(object)
		if c == nil {
			c = object{}
		}
		for _, set := range sets {
			have, _ := c[set].([]any)
			for _, n := range names {
				if !slices.Contains(have, n) {
					have = append(have, n)
				}
			}
			c[set] = have
		}
		p["capabilities"] = c
	}
}

var one = []any{"CAP_SYS_ADMIN"}

func args(p object) []any { return p["args"].([]any) }

// processFaults change the process of a container or of an exec.
var processFaults = map[string]func(object){
	"no new privileges dropped": func(p object) { delete(p, "noNewPrivileges") },
	"bounding set widened":      widen(one, "bounding"),
	"effective set widened":     widen(one, "bounding", "permitted", "effective"),
	"permitted set widened":     widen(one, "bounding", "permitted"),
	"inheritable set widened":   widen(one, "bounding", "permitted", "inheritable"),
	"ambient set widened":       widen(one, "bounding", "permitted", "inheritable", "ambient"),
	"inheritable set filled":    widen([]any{"CAP_CHOWN"}, "inheritable"),
	"every set filled":          widen(everything, "bounding", "permitted", "effective", "inheritable", "ambient"),
	"last step dropped":         func(p object) { p["args"] = args(p)[1:] },
	"last step replaced":        func(p object) { args(p)[0] = "/bin/foreign" },
	"another program instead":   func(p object) { p["args"] = []any{"/bin/foreign"} },
	"another workload":          func(p object) { args(p)[1] = "/bin/foreign" },
	"user 0":                    func(p object) { p["user"].(object)["uid"] = 0 },
	"group 0":                   func(p object) { p["user"].(object)["gid"] = 0 },
	"group 0 in addition":       func(p object) { p["user"].(object)["additionalGids"] = []any{0} },
	"filter of its own":         func(p object) { p["selinuxLabel"], p["apparmorProfile"] = "", "" },
}

func linux(c object) object { return c["linux"].(object) }

func without(list any, drop func(any) bool) []any {
	have, _ := list.([]any)
	return slices.DeleteFunc(slices.Clone(have), drop)
}

func namespaceDropped(kind string) func(object) {
	return func(c object) {
		linux(c)["namespaces"] = without(linux(c)["namespaces"], func(n any) bool { return n.(object)["type"] == kind })
	}
}

func namespaceShared(kind, file string) func(object) {
	return func(c object) {
		for _, n := range linux(c)["namespaces"].([]any) {
			if n := n.(object); n["type"] == kind {
				n["path"] = "/proc/" + os.Getenv(envProcess) + "/ns/" + file
			}
		}
	}
}

func mountAt(c object, destination string) object {
	for _, m := range c["mounts"].([]any) {
		if m := m.(object); m["destination"] == destination {
			return m
		}
	}
	return object{}
}

func mounted(m object) func(object) {
	return func(c object) { c["mounts"] = append(c["mounts"].([]any), m) }
}

func hostBind(destination string, options ...any) func(object) {
	return func(c object) {
		mounted(object{"destination": destination, "type": "bind", "source": os.Getenv(envHost), "options": append([]any{"bind"}, options...)})(c)
	}
}

// configFaults change the configuration of a container.
var configFaults = map[string]func(object){
	"masks dropped": func(c object) { delete(linux(c), "maskedPaths") },
	"one mask dropped": func(c object) {
		linux(c)["maskedPaths"] = without(linux(c)["maskedPaths"], func(p any) bool { return p == "/proc/keys" })
	},
	"read-only paths dropped": func(c object) { delete(linux(c), "readonlyPaths") },
	"one read-only path dropped": func(c object) {
		linux(c)["readonlyPaths"] = without(linux(c)["readonlyPaths"], func(p any) bool { return p == "/proc/sys" })
	},
	"root writable":            func(c object) { c["root"].(object)["readonly"] = false },
	"another root":             func(c object) { c["root"].(object)["path"] = os.Getenv(envFolder) + "/otherroot" },
	"pid namespace dropped":    namespaceDropped("pid"),
	"ipc namespace dropped":    namespaceDropped("ipc"),
	"uts namespace dropped":    namespaceDropped("uts"),
	"net namespace dropped":    namespaceDropped("network"),
	"cgroup namespace dropped": namespaceDropped("cgroup"),
	"mount namespace dropped":  namespaceDropped("mount"),
	"pid namespace shared":     namespaceShared("pid", "pid"),
	"ipc namespace shared":     namespaceShared("ipc", "ipc"),
	"net namespace shared":     namespaceShared("network", "net"),
	"uts namespace shared":     namespaceShared("uts", "uts"),
	"filter dropped":           func(c object) { delete(linux(c), "seccomp") },
	"filter allows everything": func(c object) { linux(c)["seccomp"] = object{"defaultAction": "SCMP_ACT_ALLOW"} },
	"another source":           func(c object) { mountAt(c, "/data")["source"] = os.Getenv(envHost) },
	"mount made writable":      func(c object) { mountAt(c, "/data")["options"] = []any{"bind", "rw"} },
	"mount dropped": func(c object) {
		c["mounts"] = without(c["mounts"], func(m any) bool { return m.(object)["destination"] == "/data" })
	},
	"folder of the host":           hostBind("/data2"),
	"folder of the host at /etc":   hostBind("/etc"),
	"folder of the host at /tmp/x": hostBind("/tmp/x", "ro"),
	"tmpfs over /proc/self":        mounted(object{"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs"}),
	"tmpfs over /proc":             mounted(object{"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}),
	"folder over /proc":            hostBind("/proc"),
	"procfs of the host": func(c object) {
		m := mountAt(c, "/proc")
		m["type"], m["source"], m["options"] = "bind", "/proc", []any{"rbind"}
	},
	"/sys writable":           func(c object) { mountAt(c, "/sys")["options"] = []any{"nosuid", "noexec", "nodev"} },
	"/sys/fs/cgroup writable": func(c object) { mountAt(c, "/sys/fs/cgroup")["options"] = []any{"nosuid", "noexec", "nodev"} },
	"/dev of the host": func(c object) {
		m := mountAt(c, "/dev")
		m["type"], m["source"], m["options"] = "bind", "/dev", []any{"rbind"}
	},
	"every device allowed": func(c object) {
		linux(c)["resources"] = object{"devices": []any{object{"allow": true, "access": "rwm"}}}
	},
	"device node added": func(c object) {
		linux(c)["devices"] = []any{object{"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 438}}
	},
	"root propagation shared":    func(c object) { linux(c)["rootfsPropagation"] = "shared" },
	"startContainer hook added":  hooked("startContainer"),
	"createContainer hook added": hooked("createContainer"),
}

func hooked(kind string) func(object) {
	return func(c object) {
		path := "/bin/foreign"
		if kind != "startContainer" {
			path = os.Getenv(envFolder) + "/hook"
		}
		c["hooks"] = object{kind: []any{object{"path": path}}}
	}
}

// step is the number of the last step's descriptor.
func (l *line) step() (n int, err error) {
	err = l.edit(func(_, process object) {
		path, _ := args(process)[0].(string)
		if number, ok := strings.CutPrefix(path, "/proc/self/fd/"); ok {
			n, _ = strconv.Atoi(number)
		}
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("no last step")
	}
	return n, err
}

func exchange(a, b int) error {
	const aside = 200
	if err := unix.Dup3(a, aside, unix.O_CLOEXEC); err != nil {
		return err
	}
	if err := unix.Dup3(b, a, 0); err != nil {
		return err
	}
	return unix.Dup3(aside, b, 0)
}

// openAs opens a file as a descriptor that is inherited.
func openAs(name string, fd int) error {
	f, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Dup3(f, fd, 0)
}

// configured replaces the configuration of the last step by one that was changed,
// and sealed as the original.
func configured(change func(*laststep.Config)) func(*line) error {
	return func(l *line) error {
		n, err := l.step()
		if err != nil {
			return err
		}
		fd, err := otherConfig(n+1, change)
		if err != nil {
			return err
		}
		return unix.Dup3(fd, n+1, 0)
	}
}

func otherConfig(from int, change func(*laststep.Config)) (int, error) {
	b, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(from))
	if err != nil {
		return 0, err
	}
	c, err := laststep.Decode(b)
	if err != nil {
		return 0, err
	}
	change(c)
	fd, err := unix.MemfdCreate("other", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, c.Encode()); err != nil {
		return 0, err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	return fd, err
}

// lineFaults change the command line and what is handed over.
var lineFaults = map[string]func(*line) error{
	"descriptors dropped":    func(l *line) error { l.drop("preserve-fds"); return nil },
	"one descriptor too few": func(l *line) error { l.set("preserve-fds", strconv.Itoa(l.preserved()-1)); return nil },
	"program and configuration exchanged": func(l *line) error {
		n, err := l.step()
		if err != nil {
			return err
		}
		return exchange(n, n+1)
	},
	"another program as the last step": func(l *line) error {
		n, err := l.step()
		if err != nil {
			return err
		}
		return openAs(os.Getenv(envFolder)+"/foreign", n)
	},
	"configuration closed": func(l *line) error {
		n, err := l.step()
		if err != nil {
			return err
		}
		return openAs("/dev/null", n+1)
	},
	"configuration without anything": configured(func(c *laststep.Config) { *c = laststep.Config{Gate: c.Gate, Stderr: c.Stderr} }),
	"configuration without filters":  configured(func(c *laststep.Config) { c.Filters = nil }),
	"configuration without Landlock": configured(func(c *laststep.Config) { c.Landlock = nil }),
	"configuration with a Landlock rule": configured(func(c *laststep.Config) {
		if c.Landlock != nil {
			c.Landlock.Paths = append(c.Landlock.Paths, laststep.PathRule{Access: c.Landlock.HandledFS, Path: "/scratch"})
		}
	}),
	"configuration from elsewhere": func(l *line) error {
		// The same program under another number, with another configuration behind it.
		n, err := l.step()
		if err != nil {
			return err
		}
		end := 3 + l.preserved()
		fd, err := otherConfig(n+1, func(c *laststep.Config) { c.Landlock, c.Gate, c.Stderr = nil, false, false })
		if err != nil {
			return err
		}
		if err := unix.Dup3(n, end, 0); err != nil {
			return err
		}
		if err := unix.Dup3(fd, end+1, 0); err != nil {
			return err
		}
		l.set("preserve-fds", strconv.Itoa(l.preserved()+2))
		return l.edit(func(_, p object) { args(p)[0] = "/proc/self/fd/" + strconv.Itoa(end) })
	},
	"folder of the host leaked": func(l *line) error {
		end := 3 + l.preserved()
		l.set("preserve-fds", strconv.Itoa(l.preserved()+1))
		return openAs(os.Getenv(envHost), end)
	},
	"folder of the host leaked far up": func(l *line) error {
		end := 3 + l.preserved() + 20
		for fd := 3 + l.preserved(); fd <= end; fd++ {
			if err := openAs(os.Getenv(envHost), fd); err != nil {
				return err
			}
		}
		l.set("preserve-fds", strconv.Itoa(l.preserved()+21))
		return nil
	},
	"working directory by a leaked descriptor": func(l *line) error {
		end := 3 + l.preserved()
		l.set("preserve-fds", strconv.Itoa(l.preserved()+1))
		if err := openAs(os.Getenv(envHost), end); err != nil {
			return err
		}
		return l.edit(func(_, p object) { p["cwd"] = "/proc/self/fd/" + strconv.Itoa(end) })
	},
}

// child runs the real runtime as a child, with all that was handed over.
func (l *line) child(real string) (int, error) {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := 3; fd < 3+l.preserved(); fd++ {
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	p, err := os.StartProcess(real, append([]string{real}, l.args...), &os.ProcAttr{Files: files, Env: os.Environ()})
	if err != nil {
		return 0, err
	}
	st, err := p.Wait()
	if err != nil {
		return 0, err
	}
	return st.ExitCode(), nil
}

func (l *line) pidFile(content string) func() error {
	return func() error { return os.WriteFile(l.get("pid-file"), []byte(content), 0o600) }
}

// after does something once the real runtime has ended well.
func after(do func(l *line) error) func(*line, string) error {
	return func(l *line, real string) error {
		code, err := l.child(real)
		if err == nil && code == 0 {
			err = do(l)
		}
		if err == nil {
			os.Exit(code)
		}
		return err
	}
}

func die() error {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// runFaults run the real runtime in another way, or not at all.
var runFaults = map[string]func(*line, string) error{
	"nothing done":           func(*line, string) error { os.Exit(0); return nil },
	"killed before":          func(*line, string) error { return die() },
	"killed afterwards":      after(func(*line) error { return die() }),
	"fails afterwards":       after(func(*line) error { os.Exit(1); return nil }),
	"pid file absent":        after(func(l *line) error { return os.Remove(l.get("pid-file")) }),
	"pid file empty":         after(func(l *line) error { return l.pidFile("")() }),
	"pid file of letters":    after(func(l *line) error { return l.pidFile("init\n")() }),
	"pid file with 0":        after(func(l *line) error { return l.pidFile("0")() }),
	"pid file negative":      after(func(l *line) error { return l.pidFile("-1")() }),
	"pid file of the host":   after(func(l *line) error { return l.pidFile(os.Getenv(envProcess))() }),
	"pid file of nobody":     after(func(l *line) error { return l.pidFile("4194303")() }),
	"pid file long":          after(func(l *line) error { return l.pidFile(strings.Repeat("1", 4096))() }),
	"fails without doing it": func(*line, string) error { fmt.Fprintln(os.Stderr, "no"); os.Exit(1); return nil },
	"started twice": func(l *line, real string) error {
		second := line{slices.Clone(l.args), l.at}
		second.drop("pid-file")
		second.args[len(second.args)-1] += "-second"
		if _, err := second.child(real); err != nil {
			return err
		}
		code, err := l.child(real)
		if err != nil {
			return err
		}
		gone := line{append(slices.Clone(l.args[:l.at]), "delete", "--force", second.id()), l.at}
		_, _ = gone.child(real)
		os.Exit(code)
		return nil
	},
	"started in create": func(l *line, real string) error {
		// "create" starts the workload at once.
		code, err := l.child(real)
		if err != nil || code != 0 {
			return fmt.Errorf("create: %d, %w", code, err)
		}
		start := line{append(slices.Clone(l.args[:l.at]), "start", l.id()), l.at}
		code, err = start.child(real)
		if err != nil {
			return err
		}
		os.Exit(code)
		return nil
	},
}
