// SPDX-License-Identifier: Apache-2.0

package lxc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/svirt/libvirt"
	"github.com/palisade-sec/palisade/target"
)

const root = "<filesystem type='mount'><source dir='/srv/web'/><target dir='/'/></filesystem>"

func domain(t *testing.T, devices, more string) *libvirt.Domain {
	t.Helper()
	d, err := libvirt.Parse([]byte("<domain type='lxc'><name>web</name><os><init>/bin/sh</init></os><devices>" + devices + "</devices>" + more + "</domain>"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	selinuxLabel = "<seclabel type='dynamic' model='selinux'><label>system_u:system_r:container_t:s0:c2,c1</label></seclabel>"
	staticLabel  = "<seclabel type='static' model='selinux'><label>system_u:system_r:container_t:s0:c2,c1</label></seclabel>"
	plainLabel   = "<seclabel type='static' model='selinux'><label>system_u:system_r:container_t:s0</label></seclabel>"
)

func testSituation() situation {
	return situation{
		host: target.Target{
			Kernel: target.Kernel{Release: "6.12.0", Major: 6, Minor: 12}, Arch: "x86_64",
			SELinux:  target.SELinux{State: target.Off, Mode: "disabled"},
			AppArmor: target.AppArmor{State: target.Off},
			Landlock: target.Landlock{State: target.Enforcing, ABI: 7},
			Seccomp:  target.Seccomp{State: target.Enforcing},
		},
		driver: "none", caps: caps.All, init: "/proc/self/fd/3",
		path: func(p string) string {
			switch {
			case p == "/proc/kcore":
				return "file"
			case strings.HasPrefix(p, "/proc/bus"), p == "/sys/firmware", p == cgroups:
				return "folder"
			}
			return ""
		},
	}
}

func TestCheck(t *testing.T) {
	loose := policy.Default()
	loose.Process.NewPrivileges = true
	for name, c := range map[string]struct {
		policy policy.Policy
		domain *libvirt.Domain
		want   error
	}{
		"good":           {policy.Default(), domain(t, root, ""), nil},
		"no root":        {policy.Default(), domain(t, "", ""), ErrHostRoot},
		"the host's":     {policy.Default(), domain(t, strings.Replace(root, "/srv/web", "/", 1), ""), ErrHostRoot},
		"new privileges": {loose, domain(t, root, ""), ErrNewPrivileges},
		"a machine":      {policy.Default(), &libvirt.Domain{Driver: "kvm", Init: "/x"}, libvirt.ErrDomain},
		"no init":        {policy.Default(), &libvirt.Domain{Driver: "lxc"}, libvirt.ErrDomain},
	} {
		if err := check(c.policy, c.domain); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResolve(t *testing.T) {
	d := domain(t, root+"<filesystem><source dir='/d'/><target dir='/data'/></filesystem>", "<features><capabilities policy='deny'><chown state='on'/><sys_admin state='on'/></capabilities></features>")
	p, err := resolve(testSituation(), policy.Default(), d, "lxc-web", "s0:c1,c2")
	if err != nil {
		t.Fatal(err)
	}
	if got := *p.edit.Capabilities; got != caps.Of(caps.Chown) || p.asked.Capabilities.Bounding != got {
		t.Errorf("capabilities %s", got)
	}
	if !p.step.Gate || !p.step.NoNewPrivileges || len(p.step.Filters) != 1 || p.step.Landlock == nil || p.step.AppArmor != "" {
		t.Errorf("step %+v", p.step)
	}
	if !slices.Equal(p.edit.Masked, []string{"/proc/kcore"}) || !slices.Equal(p.edit.MaskedDirs, []string{"/sys/firmware", cgroups}) || !slices.Equal(p.edit.ReadOnly, []string{"/proc/bus"}) {
		t.Errorf("mounts %+v", p.edit)
	}
	if a := p.asked; a.SELinux != "" || !a.NoNewPrivileges || a.Landlock == nil || !slices.Contains(a.MaskedPaths, cgroups) || !slices.Equal(a.Namespaces, []string{"ipc", "mnt", "pid", "uts"}) {
		t.Errorf("asked %+v", a)
	}
	if p.driver != "none" || p.edit.Label != nil {
		t.Errorf("label %+v by %s", p.edit.Label, p.driver)
	}

	s := testSituation()
	s.caps, s.shared = 0, []string{"uts"}
	p, err = resolve(s, policy.Default(), domain(t, root+"<interface type='bridge'/>", "<idmap/>"), "lxc-web", "s0:c1,c2")
	if err != nil || *p.edit.Capabilities != 0 || !slices.Equal(p.asked.Namespaces, []string{"ipc", "mnt", "net", "pid", "user"}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestResolveLabels goes through who labels: libvirt, or nobody where SELinux is on.
func TestResolveLabels(t *testing.T) {
	for name, c := range map[string]struct {
		selinux             bool
		driver, more        string
		asked, wrote, after string
	}{
		"no SELinux":             {false, "none", "", "", "", "none"},
		"libvirt's":              {true, "selinux", selinuxLabel, "system_u:system_r:container_t:s0:c1,c2", "", "selinux"},
		"none by the domain":     {true, "selinux", "<seclabel type='none' model='selinux'/>", "system_u:system_r:container_t:s0:c7,c8", "system_u:system_r:container_t:s0:c7,c8", "selinux"},
		"none by libvirt":        {true, "none", "", "system_u:system_r:container_t:s0:c7,c8", "system_u:system_r:container_t:s0:c7,c8", "selinux"},
		"a label of another day": {false, "none", selinuxLabel, "", "", "none"},
	} {
		s := testSituation()
		if s.driver = c.driver; c.selinux {
			s.host.SELinux = target.SELinux{
				State: target.Enforcing, Mode: "enforcing",
				ProcessContext: target.DefaultProcessContext, FileContext: target.DefaultFileContext,
			}
		}
		p, err := resolve(s, policy.Default(), domain(t, root, c.more), "lxc-web", "s0:c7,c8")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wrote := ""
		if p.edit.Label != nil {
			wrote = p.edit.Label.Label
		}
		if p.asked.SELinux != c.asked || wrote != c.wrote || p.driver != c.after {
			t.Errorf("%s: asked %q, wrote %q, driver %s", name, p.asked.SELinux, wrote, p.driver)
		}
	}
}

func TestResolveAppArmor(t *testing.T) {
	s := testSituation()
	s.host.AppArmor = target.AppArmor{State: target.Enforcing, Loaded: map[string]string{"docker-default": "enforce"}}
	p, err := resolve(s, policy.Default(), domain(t, root, ""), "lxc-web", "s0:c1,c2")
	if err != nil || p.step.AppArmor != "docker-default" || p.asked.AppArmor != "docker-default" {
		t.Errorf("%+v, %v", p, err)
	}
	s.driver = "apparmor"
	p, err = resolve(s, policy.Default(), domain(t, root, "<seclabel type='dynamic' model='apparmor'><label>libvirt-u</label></seclabel>"), "lxc-web", "s0:c1,c2")
	if err != nil || p.step.AppArmor != "" || p.asked.AppArmor != "libvirt-u" {
		t.Errorf("libvirt's profile: %+v, %v", p, err)
	}
}

// TestClaim reserves what libvirt has chosen, and names who is in the way.
func TestClaim(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	registry := &svirt.Registry{Store: &svirt.Memory{}}
	launch := func(more string) *launch {
		c, err := parseArgs([]string{"--name", "web", "--handshakefds", "1:2", "--security=selinux"})
		if err != nil {
			t.Fatal(err)
		}
		return &launch{call: c, domain: domain(t, root, more), dir: dir, registry: registry}
	}
	if _, err := registry.Reserve(svirt.Claim{ID: "db", Level: "s0:c1,c2"}); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{"drawn by libvirt": selinuxLabel, "written down": staticLabel} {
		if err := launch(more).claim(policy.Default()); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), "db") {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := dir.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: left %v, %v", name, list, err)
		}
	}
	if err := launch(plainLabel).claim(policy.Default()); !errors.Is(err, svirt.ErrNotPrivate) {
		t.Errorf("a label without categories: %v", err)
	}
	if err := registry.Release("db"); err != nil {
		t.Fatal(err)
	}
	l := launch(staticLabel)
	if err := l.claim(policy.Default()); err != nil {
		t.Fatal(err)
	}
	list, err := registry.List()
	if err != nil || len(list) != 1 || list[0].ID != "lxc-web" || list[0].Level != "s0:c1,c2" || list[0].State != svirt.Bound || !slices.Equal(list[0].Content, []string{"/srv/web"}) || !l.record.Labelled {
		t.Errorf("%+v, %v", list, err)
	}
	if err := launch(staticLabel).claim(policy.Default()); !errors.Is(err, state.ErrBusy) {
		t.Errorf("the same domain once more: %v", err)
	}
}

// TestMove gives a locked file another descriptor, and wants the lock to stay.
func TestMove(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "pid"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	from, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	c := &call{options: []option{{"console", "0"}}}
	to, err := move(c, from)
	if err != nil {
		t.Fatal(err)
	}
	locks := recordLocks(to)
	if len(locks) != 1 || locks[0].Type != unix.F_WRLCK || locks[0].Start != 0 || locks[0].Len != 1 || to < aside {
		t.Errorf("descriptor %d, locks %+v", to, locks)
	}
	unix.Close(to)
	f.Close()
}
