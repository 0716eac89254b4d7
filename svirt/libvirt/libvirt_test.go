// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/caps"
)

// status is the file of a running container as libvirt 9.0 writes it.
const status = `<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->

<domstatus state='running' reason='booted' pid='1842'>
  <init pid='1843'/>
  <domain type='lxc' id='1842'>
    <name>web</name>
    <uuid>deabfeaf-9faa-4ce1-bb2f-da68e03ab12b</uuid>
    <metadata>
      <p:confine xmlns:p="https://palisade-sec.github.io/libvirt/1" policy="strict"/>
      <q:confine xmlns:q="https://example.org/" policy="default"/>
    </metadata>
    <os>
      <type arch='x86_64'>exe</type>
      <init>/bin/a&amp;b</init>
      <initarg>-c</initarg>
      <initarg> x &lt; y </initarg>
    </os>
    <features>
      <privnet/>
      <capabilities policy='default'>
        <mknod state='on'/>
        <kill state='off'/>
      </capabilities>
    </features>
    <devices>
      <emulator>/usr/local/bin/palisade-lxc</emulator>
      <filesystem type='mount' accessmode='passthrough'>
        <source dir='/srv/web'/>
        <target dir='/'/>
      </filesystem>
      <filesystem>
        <source dir='/srv/data'/>
        <target dir='/data'/>
        <readonly/>
      </filesystem>
      <console type='pty'/>
    </devices>
    <seclabel type='dynamic' model='selinux' relabel='yes'>
      <label>system_u:system_r:svirt_lxc_net_t:s0:c13,c14</label>
      <imagelabel>system_u:object_r:svirt_sandbox_file_t:s0:c13,c14</imagelabel>
    </seclabel>
  </domain>
</domstatus>
`

func TestParse(t *testing.T) {
	d, err := Parse([]byte(status))
	if err != nil {
		t.Fatal(err)
	}
	want := &Domain{
		Driver: "lxc", Name: "web", UUID: "deabfeaf-9faa-4ce1-bb2f-da68e03ab12b", Emulator: "/usr/local/bin/palisade-lxc",
		Init: "/bin/a&b", InitArgs: []string{"-c", " x < y "}, Policy: "strict", Network: true,
		Labels: []Seclabel{{
			Type: "dynamic", Model: "selinux", Label: "system_u:system_r:svirt_lxc_net_t:s0:c13,c14",
			ImageLabel: "system_u:object_r:svirt_sandbox_file_t:s0:c13,c14",
		}},
		Filesystems: []Filesystem{{"mount", "/srv/web", "/", false}, {"mount", "/srv/data", "/data", true}},
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(Domain{}), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".capabilities" }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
	if c := d.Capabilities(); !c.Has(caps.Mknod) || c.Has(caps.Kill) || c.Has(caps.SysModule) || !c.Has(caps.SysAdmin) {
		t.Errorf("capabilities %s", c)
	}
	if r := d.Root(); r == nil || r.Source != "/srv/web" {
		t.Errorf("root %+v", r)
	}
}

func TestCapabilities(t *testing.T) {
	for text, want := range map[string]caps.Set{
		``: names.Minus(caps.Of(caps.SysModule, caps.SysTime, caps.Mknod, caps.AuditControl, caps.MACAdmin)),
		`<capabilities policy='allow'><chown state='off'/></capabilities>`:                              names.Without(caps.Chown),
		`<capabilities policy='deny'><chown state='on'/><kill state='off'/></capabilities>`:             caps.Of(caps.Chown),
		`<capabilities><sys_module/><chown state='off'/></capabilities>`:                                names.Minus(caps.Of(caps.SysTime, caps.Mknod, caps.AuditControl, caps.MACAdmin, caps.Chown)),
		`<capabilities policy='deny'><sys_time state='on'/><sys_tty_config state='on'/></capabilities>`: caps.Of(caps.SysTime, caps.SysTTYConfig),
		`<capabilities policy='deny'></capabilities>`:                                                   0,
	} {
		d, err := Parse([]byte("<domain type='lxc'><features>" + text + "</features></domain>"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := d.Capabilities(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	for _, bad := range []string{`<capabilities policy='maybe'/>`, `<capabilities><fly/></capabilities>`} {
		if _, err := Parse([]byte("<domain><features>" + bad + "</features></domain>")); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestID(t *testing.T) {
	for want, d := range map[string]Domain{
		"lxc-web":       {Driver: "lxc", Name: "web", UUID: "u"},
		"qemu-web":      {Driver: "kvm", Name: "web"},
		"lxc-u":         {Driver: "lxc", Name: "a b", UUID: "u"},
		"lxc-v":         {Driver: "lxc", Name: strings.Repeat("x", 130), UUID: "v"},
		"lxc-Web_1.2-x": {Driver: "lxc", Name: "Web_1.2-x"},
	} {
		if got := d.ID(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestApply(t *testing.T) {
	set := caps.Of(caps.Chown, caps.NetBindService)
	x := Edit{
		Init: "/proc/self/fd/3", Capabilities: &set, ReadOnlyRoot: true, Emulator: "/e<1>",
		Masked: []string{"/proc/kcore"}, MaskedDirs: []string{"/proc/acpi"}, ReadOnly: []string{"/proc/sys"},
		Label: &Seclabel{Type: "static", Model: "selinux", Label: "u:r:t:s0:c1,c2"}, Policy: "default",
	}
	got, err := x.Apply([]byte(status))
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(got)
	if err != nil {
		t.Fatalf("%v in\n%s", err, got)
	}
	if d.Init != x.Init || len(d.InitArgs) != 3 || d.InitArgs[0] != "/bin/a&b" || d.InitArgs[2] != " x < y " {
		t.Errorf("init %q %q", d.Init, d.InitArgs)
	}
	if d.Capabilities() != set || d.Emulator != x.Emulator || d.Policy != "default" {
		t.Errorf("capabilities %s, emulator %s, policy %s", d.Capabilities(), d.Emulator, d.Policy)
	}
	wantFS := []Filesystem{
		{"mount", "/srv/web", "/", true},
		{"mount", "/srv/data", "/data", true},
		{"bind", "/proc/sys", "/proc/sys", true},
		{"bind", "/dev/null", "/proc/kcore", false},
		{"ram", "", "/proc/acpi", true},
	}
	if diff := cmp.Diff(wantFS, d.Filesystems); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Seclabel{{Type: "static", Model: "selinux", Label: "u:r:t:s0:c1,c2"}}, d.Labels); diff != "" {
		t.Error(diff)
	}
	// What no edit is about stays.
	for line := range strings.Lines(status) {
		for _, gone := range []string{"init>", "capabilities", "state='o", "emulator", "seclabel", "label>", "p:confine"} {
			if strings.Contains(line, gone) {
				line = ""
			}
		}
		if !bytes.Contains(got, []byte(line)) {
			t.Errorf("%q is gone", line)
		}
	}
}

// TestApplySmall edits definitions that lack what is to be edited.
func TestApplySmall(t *testing.T) {
	set := caps.Set(0)
	x := Edit{Emulator: "/e", Capabilities: &set, Policy: "strict", Label: &Seclabel{Type: "dynamic", Model: "selinux"}}
	for name, text := range map[string]string{
		"one line":       `<domain type='lxc'><name>a</name><os><init>/i</init></os><devices><console/></devices></domain>`,
		"empty devices":  "<domain type='lxc'>\n  <devices/>\n</domain>\n",
		"empty features": "<domain type='lxc'>\n  <features/>\n  <metadata/>\n  <devices>\n  </devices>\n</domain>\n",
		"other labels":   "<domain type='lxc'>\n  <devices/>\n  <seclabel type='none' model='none'/>\n  <seclabel type='dynamic' model='dac'/>\n</domain>",
	} {
		t.Run(name, func(t *testing.T) {
			once, err := x.Apply([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			d, err := Parse(once)
			if err != nil {
				t.Fatalf("%v in\n%s", err, once)
			}
			if d.Emulator != "/e" || d.Capabilities() != 0 || d.Policy != "strict" || d.Label("selinux") == nil || d.Label("none") != nil {
				t.Errorf("%+v from\n%s", d, once)
			}
			twice, err := x.Apply(once)
			if err != nil || !bytes.Equal(once, twice) {
				t.Errorf("a second time, %v:\n%s\nafter\n%s", err, twice, once)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no XML": "{}", "another document": "<network/>", "cut off": status[:len(status)-20],
		"two": "<domain/><domain/>", "a document type": "<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>",
		"deep": strings.Repeat("<a>", 100), "a namespace": "<domain xmlns='x'/>", "status of nothing": "<domstatus/>",
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
		if _, err := (Edit{Emulator: "/e"}).Apply([]byte(text)); err == nil {
			t.Errorf("%s was edited", name)
		}
	}
	if _, err := (Edit{Init: "/i"}).Apply([]byte("<domain><devices/></domain>")); !errors.Is(err, ErrDomain) {
		t.Errorf("without init: %v", err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(status))
	f.Add([]byte("<domain><os><init>/i</init></os><devices/></domain>"))
	f.Add([]byte("<domain><os><init>/i</init></os><features><capabilities/></features><devices>\n</devices></domain>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		set := caps.Of(caps.Chown)
		x := Edit{Init: "/x", Capabilities: &set, Policy: "strict", Emulator: "/e", Label: &Seclabel{Type: "dynamic", Model: "selinux"}}
		got, err := x.Apply(text)
		if err != nil {
			return
		}
		before, err := Parse(text)
		d, err2 := Parse(got)
		if err2 != nil {
			if err == nil {
				t.Fatalf("%v: from %q came %q", err2, text, got)
			}
			return
		}
		if d.Init != "/x" || d.Capabilities() != set || d.Emulator != "/e" || d.Policy != "strict" {
			t.Fatalf("%+v from %q, which was %+v", d, got, before)
		}
	})
}
