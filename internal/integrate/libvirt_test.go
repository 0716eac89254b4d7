// SPDX-License-Identifier: Apache-2.0

package integrate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/target"
)

const domainXML = "<!--\n  virsh edit %s\n-->\n<domain type='lxc'>\n  <name>%s</name>\n  <devices>\n    <emulator>/usr/libexec/libvirt_lxc</emulator>\n    <console type='pty'/>\n  </devices>\n</domain>\n"

// libvirtHost is a host with two containers, one machine, and AppArmor's profile of
// the daemon.
func libvirtHost(t *testing.T) (string, map[string]string) {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		libvirtDir + "/web.xml":           strings.ReplaceAll(domainXML, "%s", "web"),
		libvirtDir + "/db.xml":            strings.ReplaceAll(domainXML, "%s", "db"),
		libvirtDir + "/autostart/web.xml": "left alone",
		"/etc/libvirt/qemu/vm.xml":        "<domain type='kvm'><name>vm</name></domain>",
		libvirtProfile:                    "profile libvirtd /usr/sbin/libvirtd {\n}\n",
		libvirtLocal:                      "# a person's own\n  /srv/bin/hook PUx,\n",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root, files
}

func TestIntegrateLibvirt(t *testing.T) {
	root, files := libvirtHost(t)
	o := Options{Root: root, Wrapper: "/usr/local/bin/palisade-lxc"}
	plan := func(f func(string, Options) (Integration, error)) Integration {
		t.Helper()
		i, err := f("libvirt", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := configfile.Write(root, i.Edits); err != nil {
			t.Fatal(err)
		}
		return i
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	answer := func() target.Answer {
		rt := hostfacts.Runtime{Name: "libvirtd"}
		Describe(root, &rt)
		return rt.Palisade
	}
	if answer() != target.No {
		t.Errorf("before: %v", answer())
	}
	if i := plan(Plan); len(i.Edits) != 3 || !strings.Contains(strings.Join(i.Next, "\n"), "apparmor_parser -r") {
		t.Fatalf("%+v", i)
	}
	for _, name := range []string{"/web.xml", "/db.xml"} {
		want := strings.Replace(files[libvirtDir+name], "/usr/libexec/libvirt_lxc", o.Wrapper, 1)
		if got := read(libvirtDir + name); got != want {
			t.Errorf("%s became %s", name, got)
		}
	}
	if got := read(libvirtLocal); !strings.HasPrefix(got, files[libvirtLocal]) || !strings.Contains(got, "\n  /usr/local/bin/palisade-lxc PUx,\n") {
		t.Errorf("AppArmor's file became %s", got)
	}
	if answer() != target.Yes {
		t.Errorf("after: %v", answer())
	}
	if i := plan(Plan); len(i.Edits) != 0 {
		t.Errorf("the second time: %+v", i.Edits)
	}
	// One was edited since, and one is gone.
	web := strings.Replace(read(libvirtDir+"/web.xml"), "<console", "<hub type='usb'/>\n    <console", 1)
	if err := os.WriteFile(filepath.Join(root, libvirtDir, "web.xml"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, libvirtDir, "db.xml")); err != nil {
		t.Fatal(err)
	}
	plan(PlanUndo)
	if got := read(libvirtDir + "/web.xml"); got != strings.Replace(web, o.Wrapper, "/usr/libexec/libvirt_lxc", 1) {
		t.Errorf("undo left %s", got)
	}
	for name, text := range files {
		if strings.HasSuffix(name, "lxc/web.xml") || strings.HasSuffix(name, "lxc/db.xml") {
			continue
		}
		if read(name) != text {
			t.Errorf("undo left %s: %s", name, read(name))
		}
	}
	if left, _ := filepath.Glob(root + "/etc/*/*/*palisade*"); len(left) > 0 {
		t.Errorf("undo left %v", left)
	}
	if i := plan(PlanUndo); len(i.Edits) != 0 {
		t.Errorf("the second undo: %+v", i.Edits)
	}
	// Without an edit in between the files are what they were.
	before := read(libvirtDir + "/web.xml")
	plan(Plan)
	plan(PlanUndo)
	if read(libvirtDir+"/web.xml") != before || read(libvirtLocal) != files[libvirtLocal] {
		t.Error("undo is no undo")
	}
}

func TestIntegrateLibvirtPlaces(t *testing.T) {
	root, _ := libvirtHost(t)
	// The daemon may execute what is in the system's folders.
	i, err := Plan("libvirt", Options{Root: root, Wrapper: "/usr/bin/palisade-lxc"})
	if err != nil || len(i.Edits) != 2 {
		t.Errorf("%+v, %v", i.Edits, err)
	}
	if i, err := Plan("libvirt", Options{Root: t.TempDir(), Wrapper: "/w"}); err != nil || len(i.Edits) != 0 {
		t.Errorf("without libvirt: %+v, %v", i.Edits, err)
	}
	if _, err := Plan("libvirt", Options{Root: root, Wrapper: "/w", Default: true}); !errors.Is(err, ErrNoDefault) {
		t.Errorf("a default: %v", err)
	}
	bad := filepath.Join(root, libvirtDir, "db.xml")
	if err := os.WriteFile(bad, []byte("<domain>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Plan("libvirt", Options{Root: root, Wrapper: "/w"}); err == nil || !strings.Contains(err.Error(), "lxc/db.xml") {
		t.Errorf("a broken definition: %v", err)
	}
}
