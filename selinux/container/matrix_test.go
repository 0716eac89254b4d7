// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// matrix has every container try everything on every other: a process with its
// label, root with all capabilities in the host's namespaces, so that nothing
// but the label is in its way.
func (s *shell) matrix(boxes []*box) {
	for _, b := range boxes {
		s.showRoot(b)
	}
	type cell struct{ tries, denied int }
	cells := map[[2]string]*cell{}
	host := &cell{}
	for _, a := range boxes {
		var tries []try
		var of []*cell
		add := func(c *cell, t try) { tries, of = append(tries, t), append(of, c) }
		for _, b := range boxes {
			key := [2]string{a.engine.name, b.engine.name}
			if cells[key] == nil {
				cells[key] = &cell{}
			}
			c := cells[key]
			if a == b {
				c = nil
			}
			for _, t := range triesOn(b) {
				t.Allowed = a == b
				add(c, t)
			}
		}
		for _, t := range triesOnHost() {
			add(host, t)
		}
		answers, err := attempts(a.label, tries)
		if err != nil {
			s.errorf("%s as %s: %v", a.engine.name, a.label, err)
			continue
		}
		for i, t := range tries {
			ok := answers[i] == "ok"
			if ok != t.Allowed {
				s.errorf("%s (%s): %s: %s, should be allowed: %v", a.name, a.engine.name, t, answers[i], t.Allowed)
			}
			if of[i] != nil {
				of[i].tries++
				if !ok {
					of[i].denied++
				}
			}
		}
		for _, b := range boxes {
			if !serves(b.pid) {
				s.errorf("%s did not survive %s", b.name, a.name)
			}
		}
	}
	var names []string
	for _, b := range boxes {
		if !slices.Contains(names, b.engine.name) {
			names = append(names, b.engine.name)
		}
	}
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "denied / tried, of containers of\\on\t%s\t\n", strings.Join(names, "\t"))
	total := cell{}
	for _, a := range names {
		fmt.Fprintf(w, "%s\t", a)
		for _, b := range names {
			c := cells[[2]string{a, b}]
			fmt.Fprintf(w, "%d/%d\t", c.denied, c.tries)
			total.tries, total.denied = total.tries+c.tries, total.denied+c.denied
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintf(os.Stderr, "%d of %d tries on other containers denied, %d of %d on the host\n", total.denied, total.tries, host.denied, host.tries)
}

// showRoot makes a container's root visible below /srv/roots, with its labels.
func (s *shell) showRoot(b *box) {
	at := "/srv/roots/" + b.name
	if err := os.MkdirAll(at, 0o755); err != nil {
		s.errorf("%v", err)
		return
	}
	if err := bindRoot(b.pid, at); err != nil {
		s.errorf("show the root of %s: %v", b.name, err)
		return
	}
	label := make([]byte, 256)
	n, err := unix.Getxattr(at, "security.selinux", label)
	if err != nil {
		s.errorf("root of %s: %v", b.name, err)
		return
	}
	fmt.Fprintf(os.Stderr, "%-20s %-6s %s root %s\n", b.engine.name, b.name, b.label, label[:max(0, n-1)])
}

// triesOn are what one container tries on another's things.
func triesOn(b *box) []try {
	v, r := b.volume(), "/srv/roots/"+b.name
	tries := []try{
		{Op: "read", Path: v + "/f"},
		{Op: "write", Path: v + "/f"},
		{Op: "append", Path: v + "/f"},
		{Op: "stat", Path: v + "/f"},
		{Op: "map", Path: v + "/f"},
		{Op: "watch", Path: v + "/f"},
		{Op: "getxattr", Path: v + "/f"},
		{Op: "run", Path: v + "/true"},
		{Op: "list", Path: v},
		{Op: "create", Path: v},
		{Op: "rename", Path: v + "/f"},
		{Op: "fifo-write", Path: v + "/pipe"},
		{Op: "fifo-read", Path: v + "/pipe"},
		{Op: "connect", Path: v + "/socket"},
		{Op: "connect", Path: "@" + b.name},
		{Op: "connect", Path: "/srv/vol/shared/" + b.name + ".socket"},
	}
	if writableRoot(b) {
		tries = append(tries, try{Op: "read", Path: r + "/secret"}, try{Op: "write", Path: r + "/secret"}, try{Op: "list", Path: r})
	}
	for _, op := range []string{"signull", "stop", "ptrace", "vmread", "proc-environ", "proc-fd", "proc-pipe-read", "proc-pipe-write", "setsched", "getsched", "getpgid", "pidfd-getfd"} {
		tries = append(tries, try{Op: op, Path: fmt.Sprintf("process of %s", b.name), PID: b.pid})
	}
	return tries
}

// writableRoot tells whether a container's root is its own. That of palisade run
// is only read, by all that have it.
func writableRoot(b *box) bool {
	_, err := os.Stat("/srv/roots/" + b.name + "/secret")
	return err == nil
}

// triesOnHost are what a container tries on the host.
func triesOnHost() []try {
	tries := []try{
		{Op: "connect", Path: "/run/docker.sock"},
		{Op: "connect", Path: "/run/containerd/containerd.sock"},
		{Op: "connect", Path: "/run/libvirt/libvirt-sock"},
		{Op: "write", Path: "/proc/sys/kernel/core_pattern"},
		{Op: "write", Path: "/sys/fs/selinux/enforce"},
		{Op: "read", Path: "/dev/vda"},
		{Op: "run", Path: "/usr/bin/id"},
		{Op: "create", Path: "/srv"},
		{Op: "create", Path: "/root"},
		{Op: "list", Path: "/var/lib/docker"},
		{Op: "list", Path: "/var/lib/containers/storage"},
	}
	controllers, _ := filepath.Glob("/run/libvirt/lxc/*.sock")
	for _, path := range controllers {
		tries = append(tries, try{Op: "connect", Path: path}) // it has the label of its container
	}
	for _, f := range []string{"/etc/passwd", "/etc/shadow", "/root/.bashrc", "/usr/bin/id", "/var/lib/dpkg/status", "/srv/box.tar"} {
		tries = append(tries, try{Op: "read", Path: f}, try{Op: "write", Path: f})
	}
	for _, op := range []string{"signull", "kill", "ptrace", "proc-environ", "proc-fd", "proc-root", "setsched", "pidfd-getfd"} {
		tries = append(tries, try{Op: op, Path: "the process that started it", PID: os.Getpid()})
	}
	return tries
}

// attempts runs tries in a process with a label and returns the answers.
func attempts(label string, tries []try) ([]string, error) {
	cmd := exec.Command("/srv/box" + agentIn)
	cmd.Env = append(os.Environ(), roleEnv+"=container")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := startAs(cmd, label); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(in).Encode(tries); err != nil {
		return nil, err
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(tries)+1 || lines[0] != label {
		return nil, fmt.Errorf("%d answers to %d tries, as %q", len(lines)-1, len(tries), lines[0])
	}
	return lines[1:], nil
}
