// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/landlock"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/target"
)

// hold is the part of a decision that the tables below spell out.
func hold(holds []Hold) string {
	var out []string
	for _, h := range holds {
		out = append(out, h.Value+": "+h.By)
	}
	return strings.Join(out, "; ")
}

// custom is a policy with rules on files that need no other layer.
func custom(files *policy.Files) policy.Policy {
	p := policy.Default()
	p.Name, p.Files = "custom", files
	return p
}

func TestLandlockDecision(t *testing.T) {
	const own = "the network namespace"
	mknod := policy.Default()
	noMknod := policy.Default()
	noMknod.Capabilities = noMknod.Capabilities.Without(caps.Mknod)
	privileged := policy.Default()
	privileged.Process.NewPrivileges = true
	deaf := policy.Default()
	deaf.Network = &policy.Network{Families: []string{"inet"}, Listen: []string{"*"}, Connect: []string{"*"}}
	web := policy.Default()
	web.Network = &policy.Network{Families: []string{"unix", "inet"}, Listen: []string{"tcp/80"}, Connect: []string{"tcp/5432-5433", "udp/53"}}
	webTCP := web
	webTCP.Network = &policy.Network{Families: []string{"unix", "inet"}, Listen: []string{"tcp/80"}}
	readOnly := custom(&policy.Files{Read: []string{"/**"}})
	readOnly.ReadOnlyRoot = true
	all := func(*Request) {}
	host := func(r *Request) { r.HostNetwork = true }
	devices := func(r *Request) { r.BlockDevices = false }
	noStep := func(r *Request) { r.Init = "" }
	for _, tt := range []struct {
		name   string
		policy policy.Policy
		change func(*Request)
		abi    int
		// want is what the domain handles, "" for no domain; refused a word of the error.
		want, holds, refused string
	}{
		{name: "default needs none", policy: policy.Default(), change: all, abi: 7, holds: "block devices: the device control group; host network: " + own},
		{name: "default without Landlock", policy: policy.Default(), change: all, abi: 0, holds: "block devices: the device control group; host network: " + own},
		{name: "default, no layer denies block devices", policy: mknod, change: devices, abi: 7, want: "fs.make_block,fs.refer none none", holds: "block devices: landlock; host network: " + own},
		{name: "default, no CAP_MKNOD", policy: noMknod, change: devices, abi: 0, holds: "block devices: no CAP_MKNOD; host network: " + own},
		{name: "block devices at ABI 1", policy: mknod, change: devices, abi: 1, refused: "block devices: Landlock alone holds fs.refer (ABI 2), and the host has Landlock ABI 1"},
		{name: "block devices without Landlock", policy: mknod, change: devices, abi: 0, refused: "the host has no Landlock"},
		{name: "block devices with new privileges", policy: privileged, change: devices, abi: 7, refused: "excludes new privileges"},
		{name: "new privileges", policy: privileged, change: all, abi: 7, holds: "block devices: the device control group; host network: " + own},
		{name: "host network", policy: policy.Default(), change: host, abi: 6, want: "none none scope.abstract_unix_socket", holds: "block devices: the device control group; host network: landlock"},
		{name: "host network at ABI 5", policy: policy.Default(), change: host, abi: 5, holds: "block devices: the device control group; host network: nothing"},
		{name: "host network, no unix sockets", policy: deaf, change: host, abi: 0, holds: "block devices: the device control group; host network: the system call filter"},
		{name: "strict", policy: policy.Strict(), change: all, abi: 7, want: "0xffff none scope.signal", holds: "files: nothing; files: landlock; network: the system call filter; host network: " + own},
		{name: "strict at ABI 10", policy: policy.Strict(), change: all, abi: 10, want: "0x1ffff none scope.signal", holds: "files: landlock; network: the system call filter; host network: " + own},
		{name: "strict at ABI 2: its root is read-only", policy: policy.Strict(), change: all, abi: 2, want: "0x3fff none none", holds: "files: the read-only root; files: nothing; files: landlock; network: the system call filter; host network: " + own},
		{name: "strict at ABI 1", policy: policy.Strict(), change: all, abi: 1, refused: "files: Landlock alone holds fs.refer (ABI 2)"},
		{name: "strict without Landlock", policy: policy.Strict(), change: all, abi: 0, refused: "files: Landlock alone holds fs.execute (ABI 1)"},
		{name: "strict without a step", policy: policy.Strict(), change: noStep, abi: 7, refused: "no last step"},
		{name: "strict, host network", policy: policy.Strict(), change: host, abi: 7, want: "0xffff none scope.abstract_unix_socket,scope.signal", holds: "files: nothing; files: landlock; network: the system call filter; host network: landlock"},
		{name: "strict, host network, ABI 5", policy: policy.Strict(), change: host, abi: 5, refused: "host network: Landlock alone holds scope.abstract_unix_socket (ABI 6)"},
		{name: "files at ABI 2", policy: custom(&policy.Files{Read: []string{"/**"}}), change: all, abi: 2, refused: "fs.truncate (ABI 3)"},
		{name: "files at ABI 3", policy: custom(&policy.Files{Read: []string{"/**"}}), change: all, abi: 3, want: "0x7fff none none", holds: "files: nothing; files: landlock; host network: " + own},
		{name: "files on a read-only root at ABI 2", policy: readOnly, change: all, abi: 2, want: "0x3fff none none", holds: "files: the read-only root; files: nothing; files: landlock; host network: " + own},
		{name: "ports with UDP at ABI 9", policy: web, change: all, abi: 9, refused: "network: Landlock alone holds net.bind_udp (ABI 10), net.connect_send_udp (ABI 10)"},
		{name: "ports with UDP at ABI 10", policy: web, change: all, abi: 10, want: "none net.bind_tcp,net.connect_tcp,net.bind_udp,net.connect_send_udp none", holds: "block devices: the device control group; network: landlock; host network: " + own},
		{name: "TCP ports at ABI 4", policy: webTCP, change: all, abi: 4, want: "none net.bind_tcp,net.connect_tcp none", holds: "block devices: the device control group; network: landlock; host network: " + own},
		{name: "TCP ports at ABI 3", policy: webTCP, change: all, abi: 3, refused: "net.bind_tcp (ABI 4), net.connect_tcp (ABI 4), and the host has Landlock ABI 3"},
		{name: "an ABI of later", policy: webTCP, change: all, abi: 99, want: "none net.bind_tcp,net.connect_tcp none", holds: "block devices: the device control group; network: landlock; host network: " + own},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, r := testTarget(), request()
			h.Landlock.ABI = tt.abi
			if tt.abi == 0 {
				h.Landlock.State = target.Absent
			}
			tt.change(&r)
			plan, err := Resolve(h, tt.policy, r)
			if tt.refused != "" {
				if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if plan.Landlock != nil {
				if plan.Step == nil || plan.Step.Landlock == nil || plan.Landlock.ABI != tt.abi {
					t.Fatalf("domain %+v, step %+v", plan.Landlock, plan.Step)
				}
				rules := *plan.Step.Landlock
				fs := rules.HandledFS.String()
				if strings.HasPrefix(tt.want, "0x") {
					fs = fmt.Sprintf("%#x", uint64(rules.HandledFS))
				}
				got = fs + " " + rules.HandledNet.String() + " " + rules.Scoped.String()
				if err := rules.ValidateFor(min(tt.abi, landlock.MaxABI)); err != nil {
					t.Error(err)
				}
			} else if plan.Step != nil && plan.Step.Landlock != nil {
				t.Error("the step enters a domain that the check does not look for")
			}
			if got != tt.want {
				t.Errorf("domain %q, want %q", got, tt.want)
			}
			if h := hold(plan.Holds); h != tt.holds {
				t.Errorf("held %q\nwant %q", h, tt.holds)
			}
		})
	}
}

// TestLandlockRules compiles policies, and asks the evaluator what their domains decide.
func TestLandlockRules(t *testing.T) {
	open := func(p string, write bool) landlock.Request {
		return landlock.OpenRequest{Path: p, Read: !write, Write: write}
	}
	files := custom(&policy.Files{
		Read: []string{"/usr/**", "/etc/hosts"}, Execute: []string{"/usr/bin/**"}, Write: []string{"/tmp/**"},
		Append: []string{"/tmp/log"}, Deny: []string{"/root/**", "/etc/*/key"},
	})
	files.Files.Deny = []string{"/root/**"}
	ports := policy.Default()
	ports.Network = &policy.Network{Families: []string{"inet"}, Listen: []string{"tcp/80", "tcp/8000-8001"}, Connect: []string{"tcp/*", "udp/53"}}
	oneWay := policy.Default()
	oneWay.Network = &policy.Network{Families: []string{"inet"}, Connect: []string{"*"}}
	port := func(a landlock.AccessNet, p uint16) landlock.Request {
		return landlock.PortRequest{Access: a, Port: p, Unbound: true}
	}
	for _, tt := range []struct {
		name     string
		policy   policy.Policy
		writable []string
		allowed  []landlock.Request
		denied   []landlock.Request
	}{
		{
			"files", files,
			[]string{"/data"},
			[]landlock.Request{
				open("/usr/lib/x", false), open("/etc/hosts", false), open("/tmp/a/b", true), open("/data/x", true), open("/tmp/log", true),
				landlock.OpenRequest{Path: "/usr/bin/x", Execute: true},
				landlock.OpenRequest{Path: "/usr", Kind: landlock.Directory, Read: true},
				landlock.ReparentRequest{Old: "/tmp/a", New: "/tmp/d/a"},
				landlock.RemoveRequest{Path: "/data/x"},
				landlock.TruncateRequest{Path: "/tmp/x"},
				landlock.UnixRequest{Path: "/tmp/socket"},
			},
			[]landlock.Request{
				open("/usr/lib/x", true), open("/etc/shadow", false), open("/root/x", false), open("/usrx", false), open("/", false),
				landlock.OpenRequest{Path: "/usr/lib/x", Execute: true},
				landlock.OpenRequest{Path: "/etc", Kind: landlock.Directory, Read: true},
				landlock.MakeRequest{Path: "/tmp/disk", Kind: landlock.BlockDevice},
				landlock.MakeRequest{Path: "/tmp/tty", Kind: landlock.CharDevice},
				landlock.TruncateRequest{Path: "/usr/lib/x"},
				landlock.MountRequest{},
				landlock.UnixRequest{Path: "/usr/socket"},
				landlock.ReparentRequest{Old: "/tmp/a", New: "/usr/a"},
			},
		},
		{
			"ports", ports, nil,
			[]landlock.Request{port(landlock.BindTCP, 80), port(landlock.BindTCP, 8001), port(landlock.ConnectTCP, 5), port(landlock.ConnectSendUDP, 53)},
			[]landlock.Request{port(landlock.BindTCP, 81), port(landlock.BindTCP, 0), port(landlock.BindTCP, 8002), port(landlock.ConnectSendUDP, 54), port(landlock.BindUDP, 53)},
		},
		{
			"connect anywhere, listen nowhere", oneWay, nil,
			[]landlock.Request{port(landlock.ConnectTCP, 80), port(landlock.ConnectSendUDP, 53), port(landlock.BindUDP, 0)},
			[]landlock.Request{port(landlock.BindTCP, 80), port(landlock.BindUDP, 53)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, r := testTarget(), request()
			h.Landlock.ABI, r.Writable = 10, tt.writable
			plan, err := Resolve(h, tt.policy, r)
			if err != nil {
				t.Fatal(err)
			}
			var d *landlock.Domain
			if d, err = d.Enter(*plan.Step.Landlock); err != nil {
				t.Fatal(err)
			}
			for _, q := range tt.allowed {
				if got := d.Decide(q); !got.Allowed {
					t.Errorf("%+v: %s", q, got.Reason())
				}
			}
			for _, q := range tt.denied {
				if d.Decide(q).Allowed {
					t.Errorf("%+v is allowed", q)
				}
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"":           `"": want tcp/PORT, udp/PORT or *`,
		"80":         "want tcp/PORT",
		"sctp/80":    "want tcp/PORT",
		"tcp/":       "want a port",
		"tcp/0":      "want a port",
		"tcp/080":    "want a port",
		"tcp/65536":  "want a port",
		"tcp/9-8":    "want a port",
		"tcp/1-":     "want a port",
		"udp/-1":     "want a port",
		"tcp/+1":     "want a port",
		"tcp/1-9999": "more than 4096 ports",
		"unix:/run":  "want tcp/PORT",
	} {
		for _, n := range []*policy.Network{{Listen: []string{in}}, {Connect: []string{"*", in}}} {
			if _, err := endpoints(n); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", in)) {
				t.Errorf("%q: %v", in, err)
			}
		}
	}
	n, err := endpoints(&policy.Network{Listen: []string{"tcp/65535", "tcp/1-4096"}, Connect: []string{"udp/*"}})
	if err != nil || len(n.listen.tcp) != 4097 || n.free() || !n.udp() || !n.tcp() || n.connect.hasTCP() {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestPatterns(t *testing.T) {
	for in, want := range map[string]string{
		"/**": "/", "/": "/", "/a": "/a", "/a/b/**": "/a/b",
		"": "", "a/**": "", "/a/": "", "/a/../b": "", "/a//b": "", "**": "", "/a/*": "", "/a*/**": "", "/a/{b,c}": "", "/a/**/b": "", "/a/**/**": "", "/a\x00": "", "/a?": "", "//**": "",
		"/" + strings.Repeat("x", 4096): "",
	} {
		got, err := tree(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrMissing) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestBlockDevicesDenied(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	type d = specs.LinuxDeviceCgroup
	deny := d{Access: "rwm"}
	for _, tt := range []struct {
		name  string
		rules []d
		want  bool
	}{
		{"none", nil, false},
		{"all denied", []d{deny}, true},
		{"all denied by letter", []d{{Type: "a", Access: "rwm", Major: n(-1), Minor: n(-1)}}, true},
		{"as Docker does", []d{deny, {Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "rwm"}}, true},
		{"block denied", []d{{Type: "b", Access: "mrw"}}, true},
		{"characters denied", []d{{Type: "c", Access: "rwm"}}, false},
		{"one disk denied", []d{{Type: "b", Major: n(8), Access: "rwm"}}, false},
		{"not all ways", []d{{Access: "rw"}}, false},
		{"privileged", []d{{Allow: true, Access: "rwm"}}, false},
		{"a disk allowed", []d{deny, {Allow: true, Type: "b", Major: n(8), Minor: n(0), Access: "r"}}, false},
		{"all allowed again", []d{deny, {Allow: true, Type: "a", Access: "m"}}, false},
		{"denied at last", []d{{Allow: true, Access: "rwm"}, deny}, true},
	} {
		if got := BlockDevicesDenied(&specs.Linux{Resources: &specs.LinuxResources{Devices: tt.rules}}); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
	if BlockDevicesDenied(nil) || BlockDevicesDenied(&specs.Linux{}) {
		t.Error("nothing denies")
	}
}

// FuzzPattern wants a path below which a pattern allows to be one that Landlock takes.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"/**", "/a/**", "/a/*/b", "a", "/{a", "/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		p := custom(&policy.Files{Read: []string{pattern}, Deny: []string{"/deny/" + pattern}})
		d, err := fileDemand(p, Request{})
		if err != nil {
			if !errors.Is(err, ErrMissing) {
				t.Fatal(err)
			}
			return
		}
		if err := d.want.Validate(); err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
	})
}

// FuzzEndpoint wants an endpoint to be refused or to have ports that exist.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"*", "tcp/80", "udp/1-3", "tcp/*", "tcp/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, e string) {
		n, err := endpoints(&policy.Network{Listen: []string{e}})
		if err != nil {
			if !errors.Is(err, ErrMissing) {
				t.Fatal(err)
			}
			return
		}
		all := slices.Concat(n.listen.tcp, n.listen.udp)
		if slices.Contains(all, 0) || len(all) > maxRange || len(all) == 0 && !n.listen.anyTCP && !n.listen.anyUDP {
			t.Fatalf("%q: %+v", e, n)
		}
	})
}
