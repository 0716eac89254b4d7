// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/target"
)

// Runtime is an installed container runtime or engine.
type Runtime struct {
	Name string `json:"name"`
	// Kind is "runtime" for what starts a bundle, "engine" for what manages
	// containers.
	Kind    string `json:"kind"`
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`
	// SELinux tells whether its configuration makes it ask for labels. For a
	// runtime it is Yes: it does what the bundle says.
	SELinux target.Answer `json:"selinux"`
	// Palisade tells whether its configuration knows the wrapper runtime.
	Palisade target.Answer `json:"palisade"`
	Detail   string        `json:"detail,omitempty"`
}

var known = []struct {
	name, kind string
	args       []string
}{
	{"runc", "runtime", []string{"--version"}},
	{"crun", "runtime", []string{"--version"}},
	{"youki", "runtime", []string{"--version"}},
	{"runsc", "runtime", []string{"--version"}},
	{"kata-runtime", "runtime", []string{"--version"}},
	{"dockerd", "engine", []string{"--version"}},
	{"podman", "engine", []string{"--version"}},
	{"containerd", "engine", []string{"--version"}},
	{"crio", "engine", []string{"--version"}},
	{"libvirtd", "engine", []string{"--version"}},
	{"virtlxcd", "engine", []string{"--version"}},
	{"lxc-start", "engine", []string{"--version"}},
	{"kubelet", "engine", []string{"--version"}},
}

func (r *reader) runtimes(ctx context.Context, selinux target.State, cgroup string) []Runtime {
	list := []Runtime{}
	for _, k := range known {
		path := r.find(k.name)
		if path == "" {
			continue
		}
		rt := Runtime{Name: k.name, Kind: k.kind, Path: path, Version: r.version(ctx, path, k.args...)}
		switch k.kind {
		case "runtime":
			rt.SELinux = target.Yes
			rt.Detail = "labels what the bundle says, and fails when the host cannot"
			if k.name == "crun" && cgroup == "hybrid" {
				rt.Detail += "; refuses hybrid cgroups"
			}
		default:
			if r.engine != nil {
				r.engine(r.root, &rt)
			}
			if rt.SELinux == target.Yes && selinux != target.Enforcing && selinux != target.StateUnknown {
				rt.Detail = strings.TrimPrefix(rt.Detail+"; asks for labels that this host does not enforce", "; ")
			}
		}
		list = append(list, rt)
	}
	return list
}

// versionPattern is compiled when a version is asked for, and not at each start of
// a program that only launches.
var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\d+\.\d+(\.\d+)?([-+~.][0-9A-Za-z][-+~.0-9A-Za-z]*)?`)
})

// version runs a program for its version; empty when it did not tell.
func (r *reader) version(ctx context.Context, path string, args ...string) string {
	if !r.live || r.quick {
		return ""
	}
	ctx, cancel := within(ctx, 3*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/nonexistent"}
	cmd.Dir = "/"
	cmd.WaitDelay = 500 * time.Millisecond
	// A group of its own, so that what it started goes away with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	out := &bounded{limit: 4096}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return ""
	}
	return versionPattern().FindString(string(out.b))
}

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	b     []byte
	limit int
}

func (w *bounded) Write(p []byte) (int, error) {
	if room := w.limit - len(w.b); room > 0 {
		w.b = append(w.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func privilegedForBPF() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := caps.ParseHex(hex)
			return err == nil && (set.Has(caps.SysAdmin) || set.Has(caps.BPF) && set.Has(caps.Perfmon))
		}
	}
	return false
}

func oneLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// Find is the first installed runtime with one of the names.
func (s *Status) Find(names ...string) (Runtime, bool) {
	for _, name := range names {
		if i := slices.IndexFunc(s.Runtimes, func(r Runtime) bool { return r.Name == name }); i >= 0 {
			return s.Runtimes[i], true
		}
	}
	return Runtime{}, false
}
