// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/await"
)

// box is a container of an engine in the guest. Its process is this test's
// binary in the role "serve"; /data is a volume of its own, /shared one that all
// containers have.
type box struct {
	engine *engine
	name   string
	label  string // of its process, as the kernel says
	pid    int    // in the guest's first PID namespace
}

func (b *box) volume() string { return "/srv/vol/" + b.name }

// engine is one way to start containers.
type engine struct {
	name string
	// start starts a container; it goes on in the background.
	start func(s *shell, name string)
	// exec runs a command inside.
	exec func(s *shell, name string, command ...string) (string, error)
	// once runs a script in a container of its own that has somebody else's folder
	// at /theirs and the host's /etc at /host; nil where there is no such way.
	once func(s *shell, theirs, script string) (string, error)
	// restart ends and starts it again.
	restart func(s *shell, name string)
	remove  func(s *shell, name string)
	// relabels tells that the engine gives volumes their labels (":Z"). Where it
	// does not, "palisade relabel" does once the label is known.
	relabels bool
	// fresh tells that a restarted container is to have another label.
	fresh bool
}

// shell runs commands of the guest's Debian and collects what goes wrong.
type shell struct{ errs []error }

func (s *shell) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second // what it leaves in the background has our pipe
	began := time.Now()
	err := cmd.Run()
	if os.Getenv(verboseEnv) != "" {
		fmt.Fprintf(os.Stderr, "%.1fs %s %.200s: %v %.300q\n", time.Since(began).Seconds(), name, strings.Join(args, " "), err, out.String())
	}
	return strings.Trim(out.String(), "\x00\n "), err
}

func (s *shell) errorf(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

func (s *shell) must(name string, args ...string) string {
	out, err := s.run(name, args...)
	if err != nil {
		s.errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// background starts what stays in the foreground.
func (s *shell) background(log, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	f, err := os.Create(log)
	if err != nil {
		s.errorf("%v", err)
		return nil
	}
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		s.errorf("%s: %v", name, err)
		return nil
	}
	go func() { _ = cmd.Wait(); f.Close() }()
	return cmd
}

// wait waits for a service to answer.
func (s *shell) wait(name string, args ...string) {
	var out string
	if !await.Patiently(func() (ok bool) {
		var err error
		out, err = s.run(name, args...)
		return err == nil
	}) {
		s.errorf("%s %s: no answer: %s", name, strings.Join(args, " "), out)
	}
}

// environment is what makes this test's binary serve in a container.
func environment(name string) []string {
	return []string{roleEnv + "=serve", nameEnv + "=" + name}
}

const (
	nameEnv = "PALISADE_TEST_NAME"
	agentIn = "/bin/agent" // in every container
	wrapper = "/usr/local/bin/palisade-oci"
)

func flags(flag string, values ...string) []string {
	var out []string
	for _, v := range values {
		out = append(out, flag, v)
	}
	return out
}

func join(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// dockerlike is an engine with Docker's command line.
func dockerlike(name string, program, options []string) *engine {
	call := func(args ...[]string) (string, []string) {
		all := join(args...)
		return program[0], join(program[1:], all)
	}
	run := func(args ...string) []string { return join([]string{"run", "--network", "host"}, options, args) }
	return &engine{
		name: name, relabels: true,
		start: func(s *shell, name string) {
			p, args := call(run("-d", "--name", name, "-v", "/srv/vol/"+name+":/data:Z", "-v", "/srv/vol/shared:/shared:z"), flags("-e", environment(name)...), []string{"box", agentIn})
			s.must(p, args...)
		},
		exec: func(s *shell, name string, command ...string) (string, error) {
			p, args := call([]string{"exec", name}, command)
			return s.run(p, args...)
		},
		once: func(s *shell, theirs, script string) (string, error) {
			p, args := call(run("--rm", "-v", theirs+":/theirs", "-v", "/etc:/host", "box", "/bin/sh", "-c", script))
			return s.run(p, args...)
		},
		restart: func(s *shell, name string) {
			p, args := call([]string{"restart", "-t", "1", name})
			s.must(p, args...)
		},
		remove: func(s *shell, name string) {
			p, args := call([]string{"rm", "-f", name})
			s.must(p, args...)
		},
	}
}

func podman(runtime string) []string {
	return []string{"podman", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", runtime}
}

// ctr is containerd's own client. It has no options for labels: the wrapper
// gives them, as it likes or as level asks for in an annotation.
func ctr(name string, level func(container string) string) *engine {
	start := func(s *shell, name string, options []string, command ...string) (string, error) {
		return s.run("ctr", join([]string{"run", "--net-host", "--runc-binary", wrapper}, options, []string{"docker.io/library/box:latest", name}, command)...)
	}
	bind := func(from, to string) []string {
		return []string{"--mount", "type=bind,src=" + from + ",dst=" + to + ",options=rbind:rw"}
	}
	e := &engine{name: name, fresh: level == nil}
	e.start = func(s *shell, name string) {
		var asked []string
		if level != nil {
			asked = []string{"--annotation", "io.github.palisade-sec.selinux=level:" + level(name)}
		}
		out, err := start(s, name, join([]string{"-d"}, asked, bind("/srv/vol/"+name, "/data"), bind("/srv/vol/shared", "/shared"), flags("--env", environment(name)...)), agentIn)
		if err != nil {
			s.errorf("ctr run: %v: %s", err, out)
		}
	}
	e.exec = func(s *shell, name string, command ...string) (string, error) {
		return s.run("ctr", join([]string{"task", "exec", "--exec-id", fmt.Sprint("x", time.Now().UnixNano()), name}, command)...)
	}
	e.once = func(s *shell, theirs, script string) (string, error) {
		return start(s, fmt.Sprint("once", time.Now().UnixNano()), join([]string{"--rm"}, bind(theirs, "/theirs"), bind("/etc", "/host")), "/bin/sh", "-c", script)
	}
	e.restart = func(s *shell, name string) {
		s.must("ctr", "task", "rm", "-f", name)
		s.must("ctr", "task", "start", "-d", name)
	}
	e.remove = func(s *shell, name string) {
		s.must("ctr", "task", "rm", "-f", name)
		s.must("ctr", "container", "rm", name)
	}
	return e
}

// libvirtLXC is libvirt with a label of its own choice, or with the one that
// level gives a container, and its own controller or another.
func libvirtLXC(name, emulator string, level func(container string) string) *engine {
	virsh := func(args ...string) []string { return join([]string{"-q", "-c", "lxc:///system"}, args) }
	define := func(s *shell, name, theirs string) {
		root := "/srv/lxc/" + name
		s.must("mkdir", "-p", "/srv/lxc")
		s.must("cp", "-a", "/srv/box", root)
		label := "<seclabel type='dynamic' model='selinux' relabel='yes'/>"
		if level != nil {
			l := "system_u:system_r:container_t:" + level(name)
			label = "<seclabel type='static' model='selinux' relabel='no'><label>" + l + "</label></seclabel>"
			s.must("palisade", "relabel", root, "--context", "system_u:object_r:container_file_t:"+level(name))
		}
		var env strings.Builder
		for _, e := range environment(name) {
			k, v, _ := strings.Cut(e, "=")
			fmt.Fprintf(&env, "<initenv name='%s'>%s</initenv>", k, v)
		}
		mount := func(from, to string) string {
			return "<filesystem type='mount'><source dir='" + from + "'/><target dir='" + to + "'/></filesystem>"
		}
		xml := "<domain type='lxc'><name>" + name + "</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>" +
			"<os><type>exe</type><init>" + agentIn + "</init>" + env.String() + "</os>" +
			"<devices><emulator>" + emulator + "</emulator>" + mount(root, "/") + mount("/srv/vol/"+name, "/data") + mount("/srv/vol/shared", "/shared") + mount(theirs, "/theirs") +
			"<console type='pty'/></devices>" + label + "</domain>"
		file := filepath.Join("/etc", name+".xml") // virsh_t reads no other folder that is not its own
		if err := os.WriteFile(file, []byte(xml), 0o644); err != nil {
			s.errorf("%v", err)
		}
		s.must("virsh", virsh("define", file)...)
	}
	e := &engine{name: name, fresh: level == nil}
	// start starts a domain that is defined. libvirtd at times misses its
	// controller's word about the first process, and then never enters it.
	start := func(s *shell, name string) {
		for range 3 {
			s.must("virsh", virsh("start", name)...)
			if out, _ := e.exec(s, name, "/bin/true"); !strings.Contains(out, "Init pid is not yet available") {
				return
			}
			s.must("virsh", virsh("destroy", name)...)
		}
		s.errorf("%s: %s does not start", e.name, name)
	}
	e.start = func(s *shell, name string) {
		define(s, name, "/srv/vol/shared")
		start(s, name)
	}
	e.exec = func(s *shell, name string, command ...string) (string, error) {
		return s.run("virsh", virsh(join([]string{"lxc-enter-namespace", name, "--"}, command)...)...)
	}
	e.restart = func(s *shell, name string) {
		s.must("virsh", virsh("destroy", name)...)
		if level == nil {
			// It gets another label, and could not read a root that has the old one.
			s.must("palisade", "relabel", "/srv/lxc/"+name, "--context", "system_u:object_r:container_ro_file_t:s0")
		}
		start(s, name)
	}
	e.remove = func(s *shell, name string) {
		s.must("virsh", virsh("destroy", name)...)
		s.must("virsh", virsh("undefine", name)...)
	}
	return e
}

// palisadeRun is "palisade run", which has no exec.
func palisadeRun() *engine {
	running := map[string]*exec.Cmd{}
	e := &engine{name: "palisade run", relabels: true, fresh: true}
	e.start = func(s *shell, name string) {
		args := join([]string{"run", "--net", "host", "--name", name, "--rootfs", "/srv/box", "-v", "/srv/vol/" + name + ":/data:Z", "-v", "/srv/vol/shared:/shared:z"},
			flags("-e", environment(name)...), []string{"--", agentIn})
		running[name] = s.background("/run/"+name+".log", "palisade", args...)
	}
	e.once = func(s *shell, theirs, script string) (string, error) {
		return s.run("palisade", "run", "--rootfs", "/srv/box", "-v", theirs+":/theirs", "-v", "/etc:/host:ro", "--", "/bin/sh", "-c", script)
	}
	e.remove = func(s *shell, name string) {
		if cmd := running[name]; cmd != nil {
			_ = cmd.Process.Kill()
		}
		s.must("palisade", "gc")
	}
	e.restart = func(s *shell, name string) {
		e.remove(s, name)
		e.start(s, name)
	}
	return e
}
