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

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/launch"
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

// testHost is a host with Landlock and seccomp alone.
func testHost() target.Target {
	return target.Target{
		Kernel: target.Kernel{Release: "6.12.0", Major: 6, Minor: 12}, Arch: "x86_64",
		SELinux:  target.SELinux{State: target.Off, Mode: "disabled"},
		AppArmor: target.AppArmor{State: target.Off},
		Landlock: target.Landlock{State: target.Enforcing, ABI: 7},
		Seccomp:  target.Seccomp{State: target.Enforcing},
	}
}

func enforcing(mode string) target.SELinux {
	s := target.SELinux{State: target.Enforcing, Mode: mode, ProcessContext: target.DefaultProcessContext, FileContext: target.DefaultFileContext}
	if mode != "enforcing" {
		s.State = target.Off
	}
	return s
}

func testSituation() situation {
	return situation{
		driver: "none", caps: caps.All, stepFD: 3,
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

// prepared takes a domain through the launch path up to its edit.
func prepared(t *testing.T, host target.Target, s situation, d *libvirt.Domain, registry svirt.Authority, dir *state.Dir) (*launch.Container, edited, error) {
	t.Helper()
	req, err := s.request(policy.Default(), d)
	if err != nil {
		return nil, edited{}, err
	}
	h := &launch.Host{Dir: dir, Registry: registry, Target: host}
	var got edited
	c, err := h.Prepare(req, func(_ *state.Container, p *bundle.Plan) (effective.State, error) {
		var err error
		got, err = s.edit(p, d)
		p.Step.AppArmor = got.profile
		return got.asked, err
	})
	return c, got, err
}

func testDir(t *testing.T) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// once is prepared with a registry of its own, whose level is s0:c7,c8 unless the
// domain has one.
func once(t *testing.T, host target.Target, s situation, d *libvirt.Domain) (edited, error) {
	t.Helper()
	registry := &svirt.Registry{Store: &svirt.Memory{}}
	c, got, err := prepared(t, host, s, d, registry, testDir(t))
	if err == nil {
		if err := c.Undo(nil); err != nil {
			t.Error(err)
		}
	}
	return got, err
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
		"no root":        {policy.Default(), domain(t, "", ""), errHostRoot},
		"the host's":     {policy.Default(), domain(t, strings.Replace(root, "/srv/web", "/", 1), ""), errHostRoot},
		"new privileges": {loose, domain(t, root, ""), errNewPrivileges},
		"a machine":      {policy.Default(), &libvirt.Domain{Driver: "kvm", Init: "/x"}, libvirt.ErrDomain},
		"no init":        {policy.Default(), &libvirt.Domain{Driver: "lxc"}, libvirt.ErrDomain},
	} {
		if err := check(c.policy, c.domain); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEdit(t *testing.T) {
	d := domain(t, root+"<filesystem><source dir='/d'/><target dir='/data'/></filesystem>", "<features><capabilities policy='deny'><chown state='on'/><sys_admin state='on'/></capabilities></features>")
	p, err := once(t, testHost(), testSituation(), d)
	if err != nil {
		t.Fatal(err)
	}
	if got := *p.edit.Capabilities; got != caps.Of(caps.Chown) || p.asked.Capabilities.Bounding != got {
		t.Errorf("capabilities %s", got)
	}
	if p.edit.Init != "/proc/self/fd/3" || p.profile != "" {
		t.Errorf("init %q, profile %q", p.edit.Init, p.profile)
	}
	if !slices.Equal(p.edit.Masked, []string{"/proc/kcore"}) || !slices.Equal(p.edit.MaskedDirs, []string{"/sys/firmware", cgroups}) || !slices.Equal(p.edit.ReadOnly, []string{"/proc/bus"}) {
		t.Errorf("mounts %+v", p.edit)
	}
	a := p.asked
	if a.SELinux != "" || !a.NoNewPrivileges || a.Landlock == nil || !slices.Contains(a.MaskedPaths, cgroups) || !slices.Equal(a.Namespaces, []string{"ipc", "mnt", "pid", "uts"}) {
		t.Errorf("asked %+v", a)
	}
	if q := a.Seccomp; q.Mode != effective.SeccompFilter || q.Filters != 1 || len(q.SHA256) != 1 || q.InstalledBy != "palisade-init" {
		t.Errorf("seccomp %+v", q)
	}
	if p.driver != "none" || p.edit.Label != nil {
		t.Errorf("label %+v by %s", p.edit.Label, p.driver)
	}

	s := testSituation()
	s.caps, s.shared = 0, []string{"uts"}
	p, err = once(t, testHost(), s, domain(t, root+"<interface type='bridge'/>", "<idmap/>"))
	if err != nil || *p.edit.Capabilities != 0 || !slices.Equal(p.asked.Namespaces, []string{"ipc", "mnt", "net", "pid", "user"}) {
		t.Errorf("%+v, %v", p, err)
	}
	// Without a step nothing would filter.
	if _, err := s.edit(&bundle.Plan{}, d); !errors.Is(err, errNewPrivileges) {
		t.Errorf("without a step: %v", err)
	}
}

func TestRequest(t *testing.T) {
	mount := func(target, more string) string {
		return "<filesystem><source dir='/d'/><target dir='" + target + "'/>" + more + "</filesystem>"
	}
	d := domain(t, root+mount("/rw", "")+mount("/ro", "<readonly/>")+mount("/half", "<readonly/>")+mount("/half/rw", ""), "")
	s := testSituation()
	s.hostNetwork = true
	r, err := s.request(policy.Default(), d)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Mounts, []string{"/rw", "/ro", "/half", "/half/rw"}) || !slices.Equal(r.ReadOnly, []string{"/ro"}) ||
		!slices.Equal(r.Compile.Writable, []string{"/rw", "/half/rw"}) || !r.Compile.HostNetwork || !r.Gate || r.StepFD != 3 {
		t.Errorf("%+v", r)
	}
	if r.Record.ID != "lxc-web" || r.Record.Engine != "libvirt" || !slices.Equal(r.Record.Command, []string{"/bin/sh"}) || r.Record.Labelled {
		t.Errorf("record %+v", r.Record)
	}
}

// TestLabels goes through who labels: libvirt, or none where SELinux is on.
func TestLabels(t *testing.T) {
	ours := "system_u:system_r:container_t:"
	ranged := func(kind, r string) string {
		return "<seclabel type='" + kind + "' model='selinux'><label>system_u:system_r:container_t:" + r + "</label></seclabel>"
	}
	for name, c := range map[string]struct {
		selinux      target.SELinux
		driver, more string
		asked, wrote string // ours stands for the level that the registry drew
		after        string
		err          error
	}{
		"no SELinux":             {target.SELinux{State: target.Off, Mode: "disabled"}, "none", "", "", "", "none", nil},
		"libvirt's":              {enforcing("enforcing"), "selinux", selinuxLabel, "system_u:system_r:container_t:s0:c1,c2", "", "selinux", nil},
		"a person's":             {enforcing("enforcing"), "selinux", staticLabel, "system_u:system_r:container_t:s0:c1,c2", "", "selinux", nil},
		"none by the domain":     {enforcing("enforcing"), "selinux", "<seclabel type='none' model='selinux'/>", ours, ours, "selinux", nil},
		"none by libvirt":        {enforcing("enforcing"), "none", "", ours, ours, "selinux", nil},
		"a label of another day": {target.SELinux{State: target.Off, Mode: "disabled"}, "none", selinuxLabel, "", "", "none", nil},
		"libvirt's, permissive":  {enforcing("permissive"), "selinux", selinuxLabel, "system_u:system_r:container_t:s0:c1,c2", "", "selinux", nil},
		"a person's, permissive": {enforcing("permissive"), "selinux", staticLabel, "", "", "", bundle.ErrMissing},
		"libvirt's, SELinux off": {target.SELinux{State: target.Off, Mode: "disabled"}, "selinux", selinuxLabel, "", "", "", bundle.ErrMissing},
		"a person's, unknown":    {target.SELinux{}, "selinux", staticLabel, "", "", "", bundle.ErrMissing},
		"without categories":     {enforcing("enforcing"), "selinux", plainLabel, "", "", "", svirt.ErrNotPrivate},
		"without a range":        {enforcing("enforcing"), "selinux", strings.Replace(plainLabel, ":s0", "", 1), "", "", "", svirt.ErrNotPrivate},
		"canonical":              {enforcing("enforcing"), "selinux", ranged("static", "s0-s0"), "", "", "", svirt.ErrNotPrivate},
		"equal levels":           {enforcing("enforcing"), "selinux", ranged("dynamic", "s0:c1,c2-s0:c2,c1"), "system_u:system_r:container_t:s0:c1,c2", "", "selinux", nil},
	} {
		t.Run(name, func(t *testing.T) {
			host, s := testHost(), testSituation()
			host.SELinux, s.driver = c.selinux, c.driver
			p, err := once(t, host, s, domain(t, root, c.more))
			if !errors.Is(err, c.err) || (err != nil) != (c.err != nil) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			wrote := ""
			if p.edit.Label != nil {
				wrote = p.edit.Label.Label
			}
			same := func(got, want string) bool {
				if want == ours {
					return strings.HasPrefix(got, ours) && got != ours
				}
				return got == want
			}
			if !same(p.asked.SELinux, c.asked) || !same(wrote, c.wrote) || p.driver != c.after {
				t.Errorf("asked %q, wrote %q, driver %s", p.asked.SELinux, wrote, p.driver)
			}
		})
	}
	for _, r := range []string{"s0-s0:c1,c2", "s0:c1,c2-s0:c1,c2,c3", "s0:c1,c2-s1:c1,c2"} {
		var ranges *oci.RangeError
		s := testSituation()
		s.driver = "selinux"
		if _, err := s.request(policy.Default(), domain(t, root, ranged("static", r))); !errors.As(err, &ranges) || !strings.Contains(err.Error(), "keeps no containers apart") {
			t.Errorf("%s: %v", r, err)
		}
	}
}

func TestAppArmor(t *testing.T) {
	host, s := testHost(), testSituation()
	host.AppArmor = target.AppArmor{State: target.Enforcing, Loaded: map[string]string{"docker-default": "enforce", "libvirt-u": "enforce", "loose": "complain"}}
	d := domain(t, root, "")
	plan := &bundle.Plan{Step: &bundle.Step{}, Confinement: bundle.Confinement{Policy: policy.Default(), AppArmorProfile: "palisade-lxc-web"}}
	p, err := s.edit(plan, d)
	if err != nil || p.profile != "palisade-lxc-web" || p.asked.AppArmor != "palisade-lxc-web" {
		t.Errorf("%+v, %v", p, err)
	}
	s.driver = "apparmor"
	own := domain(t, root, "<seclabel type='dynamic' model='apparmor'><label>libvirt-u</label></seclabel>")
	if p, err = s.edit(plan, own); err != nil || p.profile != "" || p.asked.AppArmor != "libvirt-u" {
		t.Errorf("libvirt's profile: %+v, %v", p, err)
	}
	if r, err := s.request(policy.Default(), own); err != nil || r.Profile != "libvirt-u" || r.Demanded.AppArmor != "" {
		t.Errorf("libvirt's profile: %+v, %v", r, err)
	}
	for _, name := range []string{"loose", "nosuch"} {
		static := domain(t, root, "<seclabel type='static' model='apparmor'><label>"+name+"</label></seclabel>")
		if _, err := once(t, host, s, static); !errors.Is(err, bundle.ErrMissing) {
			t.Errorf("a person's %s: %v", name, err)
		}
	}
}

// TestClaim reserves what libvirt has chosen, and names who is in the way.
func TestClaim(t *testing.T) {
	dir, registry := testDir(t), &svirt.Registry{Store: &svirt.Memory{}}
	host, s := testHost(), testSituation()
	host.SELinux, s.driver = enforcing("enforcing"), "selinux"
	prepare := func(more string) (*launch.Container, error) {
		c, _, err := prepared(t, host, s, domain(t, root, more), registry, dir)
		return c, err
	}
	if _, err := registry.Reserve(svirt.Claim{ID: "db", Level: "s0:c1,c2"}); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{"drawn by libvirt": selinuxLabel, "written down": staticLabel} {
		if _, err := prepare(more); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), "db") {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := dir.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: left %v, %v", name, list, err)
		}
	}
	if err := registry.Release("db"); err != nil {
		t.Fatal(err)
	}
	c, err := prepare(staticLabel)
	if err != nil {
		t.Fatal(err)
	}
	list, err := registry.List()
	if err != nil || len(list) != 1 || list[0].ID != "lxc-web" || list[0].Level != "s0:c1,c2" || list[0].State != svirt.Bound || !slices.Equal(list[0].Content, []string{"/srv/web"}) || !c.Labelled {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := prepare(staticLabel); !errors.Is(err, state.ErrExists) {
		t.Errorf("the same domain once more: %v", err)
	}
	// What is written down stays the domain's when the start fails.
	if err := c.Undo(nil); err != nil {
		t.Fatal(err)
	}
	if list, err := registry.List(); err != nil || len(list) != 1 || list[0].State != svirt.Draining {
		t.Errorf("after a start that failed: %+v, %v", list, err)
	}
	if c, err = prepare(staticLabel); err != nil {
		t.Fatal(err)
	}
	if err := c.Undo(nil); err != nil {
		t.Error(err)
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
