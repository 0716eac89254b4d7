// SPDX-License-Identifier: Apache-2.0

package bundle_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/landlock"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
	"github.com/palisade-sec/palisade/target"
)

// outcome is what a policy ends in: the plan, and the configuration that it was applied to.
type outcome struct {
	plan *bundle.Plan
	spec *specs.Spec
}

// may asks the domain; everything is allowed without one.
func (o outcome) may(q landlock.Request) bool {
	var d *landlock.Domain
	if o.plan.Step != nil && o.plan.Step.Landlock != nil {
		var err error
		if d, err = d.Enter(*o.plan.Step.Landlock); err != nil {
			panic(err)
		}
	}
	return d.Decide(q).Allowed
}

// calls asks all filters of the step about one system call of x86-64.
func (o outcome) calls(name string, args ...uint64) bool {
	if o.plan.Step == nil {
		return true
	}
	n, _ := syscalls.Lookup(name)
	amd64, err := syscalls.ParseArch("x86_64")
	if err != nil {
		panic(err)
	}
	nr, ok := n.On(amd64)
	if !ok {
		panic(name)
	}
	data := &cbpf.Data{Arch: amd64.Audit(), Nr: nr}
	copy(data.Args[:], args)
	for _, f := range o.plan.Step.Filters {
		program, err := cbpf.Decode(f.Program, false)
		if err != nil {
			panic(err)
		}
		eval, err := (&seccomp.Source{Programs: []cbpf.Program{program}}).Eval()
		if err != nil {
			panic(err)
		}
		if !eval(data).Permits() {
			return false
		}
	}
	return true
}

// value is one change of a policy. It has to be refused with an error that names it, or show in what is
// in force.
type value struct {
	name    string
	change  func(p *policy.Policy)
	request func(r *bundle.Request)
	abi     int
	refused string
	shows   func(o outcome) bool
}

const families = "unix inet inet6"

// values has a row for each field of a policy, by the name of the field in JSON. A field without
// a row fails the test: a new one is given a layer, or an error, on purpose.
var values = map[string][]value{
	"name": {
		{name: "no name", change: func(p *policy.Policy) { p.Name = "Web!" }, refused: `name "Web!"`},
		{name: "named", change: func(p *policy.Policy) { p.Name = "web" }, shows: func(o outcome) bool { return o.plan.Policy.Name == "web" }},
	},
	"files.read": {
		{name: "tree", change: files(func(f *policy.Files) { f.Read = []string{"/srv/**"} }), shows: func(o outcome) bool {
			return o.may(landlock.OpenRequest{Path: "/srv/a", Read: true}) && !o.may(landlock.OpenRequest{Path: "/a", Read: true}) && !o.may(landlock.OpenRequest{Path: "/srv/a", Write: true})
		}},
		{name: "pattern", change: files(func(f *policy.Files) { f.Read = []string{"/srv/*.html"} }), refused: `read "/srv/*.html"`},
		{name: "relative", change: files(func(f *policy.Files) { f.Read = []string{"srv"} }), refused: `read "srv"`},
		{name: "no Landlock", abi: -1, change: files(func(f *policy.Files) { f.Read = []string{"/srv/**"} }), refused: "files: Landlock alone holds"},
		{name: "no step", change: files(func(f *policy.Files) { f.Read = []string{"/srv/**"} }), request: func(r *bundle.Request) { r.Init = "" }, refused: "files: Landlock alone holds"},
		{name: "new privileges", change: func(p *policy.Policy) {
			p.Files, p.Process.NewPrivileges = &policy.Files{Read: []string{"/**"}}, true
		}, refused: "a domain excludes new privileges"},
	},
	"files.write": {
		{name: "tree", change: files(func(f *policy.Files) { f.Write = []string{"/tmp/**"} }), shows: func(o outcome) bool {
			return o.may(landlock.OpenRequest{Path: "/tmp/a", Write: true}) && !o.may(landlock.OpenRequest{Path: "/a", Write: true}) && !o.may(landlock.TruncateRequest{Path: "/a"})
		}},
		{name: "pattern", change: files(func(f *policy.Files) { f.Write = []string{"/tmp/*"} }), refused: `write "/tmp/*"`},
		{name: "ABI 2 cannot hold truncate", abi: 2, change: files(func(f *policy.Files) { f.Write = []string{"/tmp/**"} }), refused: "fs.truncate"},
	},
	"files.append": {
		{name: "alone", change: files(func(f *policy.Files) { f.Append = []string{"/var/log/x"} }), refused: `append "/var/log/x"`},
		{name: "pattern", change: files(func(f *policy.Files) { f.Append = []string{"/var/*"} }), refused: `append "/var/*"`},
		{name: "below what may be written", change: files(func(f *policy.Files) { f.Append, f.Write = []string{"/var/log/x"}, []string{"/var/log/**"} }), shows: func(o outcome) bool {
			return o.may(landlock.OpenRequest{Path: "/var/log/x", Write: true})
		}},
	},
	"files.execute": {
		{name: "tree", change: files(func(f *policy.Files) { f.Execute = []string{"/bin/**"} }), shows: func(o outcome) bool {
			return o.may(landlock.OpenRequest{Path: "/bin/a", Execute: true}) && !o.may(landlock.OpenRequest{Path: "/tmp/a", Execute: true})
		}},
		{name: "pattern", change: files(func(f *policy.Files) { f.Execute = []string{"/bin/[ab]"} }), refused: `execute "/bin/[ab]"`},
	},
	"files.deny": {
		{name: "below what is allowed", change: files(func(f *policy.Files) { f.Read, f.Deny = []string{"/**"}, []string{"/etc/shadow"} }), refused: `deny "/etc/shadow"`},
		{name: "above what is allowed", change: files(func(f *policy.Files) { f.Read, f.Deny = []string{"/srv/a"}, []string{"/srv/**"} }), refused: `deny "/srv/**"`},
		{name: "by name anywhere", change: files(func(f *policy.Files) { f.Read, f.Deny = []string{"/srv/**"}, []string{"/**/id_rsa"} }), refused: `deny "/**/id_rsa"`},
		{name: "a volume", change: files(func(f *policy.Files) { f.Deny = []string{"/data/**"} }), request: func(r *bundle.Request) { r.Writable = []string{"/data"} }, refused: `deny "/data/**"`},
		{name: "elsewhere", change: files(func(f *policy.Files) { f.Read, f.Deny = []string{"/srv/**"}, []string{"/etc/**"} }), shows: func(o outcome) bool {
			return !o.may(landlock.OpenRequest{Path: "/etc/shadow", Read: true})
		}},
	},
	"network.families": {
		{name: "unknown", change: network("pigeon", nil, nil), refused: `family "pigeon"`},
		{name: "unix", change: network("unix", nil, nil), shows: func(o outcome) bool { return o.calls("socket", 1, 1, 0) && !o.calls("socket", 2, 1, 0) }},
		{name: "none", change: network("", nil, nil), shows: func(o outcome) bool { return !o.calls("socket", 1, 1, 0) && !o.calls("socket", 16, 3, 0) }},
		{name: "without a filter", change: func(p *policy.Policy) {
			p.Network, p.Syscalls = &policy.Network{Families: []string{"unix"}}, policy.Syscalls{Base: policy.SyscallsNone}
		}, refused: "network: families"},
		{name: "smc has TCP's ports", change: network("inet smc", []string{"tcp/80"}, nil), refused: `family "smc"`},
		{name: "socket denied", change: func(p *policy.Policy) {
			p.Network, p.Syscalls.Deny = &policy.Network{Families: []string{"unix"}}, []string{"socket"}
		}, shows: func(o outcome) bool { return !o.calls("socket", 1, 1, 0) }},
	},
	"network.listen": {
		{name: "a port", change: network(families, []string{"tcp/80"}, nil), shows: func(o outcome) bool {
			return o.may(landlock.PortRequest{Access: landlock.BindTCP, Port: 80}) && !o.may(landlock.PortRequest{Access: landlock.BindTCP, Port: 81}) &&
				!o.may(landlock.PortRequest{Access: landlock.ConnectTCP, Port: 80}) &&
				// Neither UDP nor what passes Landlock: SCTP, MPTCP, raw.
				o.calls("socket", 2, 1, 6) && o.calls("socket", 10, 0x80001, 0) && !o.calls("socket", 2, 2, 0) && !o.calls("socket", 2, 1, 132) &&
				!o.calls("socket", 2, 1, 262) && !o.calls("socket", 2, 3, 1) && !o.calls("socket", 2, 5, 132)
		}},
		{name: "no port", change: network(families, []string{"tcp/http"}, nil), refused: `listen "tcp/http"`},
		{name: "no Landlock", abi: -1, change: network(families, []string{"tcp/80"}, nil), refused: "network: Landlock alone holds"},
		{name: "ABI 3", abi: 3, change: network(families, []string{"tcp/80"}, nil), refused: "net.bind_tcp (ABI 4)"},
		{name: "UDP at ABI 9", abi: 9, change: network(families, []string{"udp/53"}, nil), refused: "net.bind_udp (ABI 10)"},
		{name: "UDP", abi: 10, change: network(families, []string{"udp/53"}, nil), shows: func(o outcome) bool {
			return o.may(landlock.PortRequest{Access: landlock.BindUDP, Port: 53}) && !o.may(landlock.PortRequest{Access: landlock.BindUDP, Port: 54}) && o.calls("socket", 2, 2, 17)
		}},
		{name: "everything", change: network(families, []string{"*"}, []string{"*"}), shows: func(o outcome) bool {
			return o.may(landlock.PortRequest{Access: landlock.BindTCP, Port: 81}) && o.calls("socket", 2, 2, 0) && o.calls("socket", 2, 3, 1)
		}},
	},
	"network.connect": {
		{name: "a port", change: network(families, nil, []string{"tcp/5432"}), shows: func(o outcome) bool {
			return o.may(landlock.PortRequest{Access: landlock.ConnectTCP, Port: 5432}) && !o.may(landlock.PortRequest{Access: landlock.ConnectTCP, Port: 80})
		}},
		{name: "a name", change: network(families, nil, []string{"example.org:443"}), refused: `connect "example.org:443"`},
		{name: "none", change: network(families, nil, nil), shows: func(o outcome) bool {
			return !o.may(landlock.PortRequest{Access: landlock.ConnectTCP, Port: 80}) && !o.calls("socket", 2, 2, 0)
		}},
	},
	"capabilities": {
		{name: "fewer", change: func(p *policy.Policy) { p.Capabilities = caps.Of(caps.Chown) }, shows: func(o outcome) bool {
			return slices.Equal(o.spec.Process.Capabilities.Bounding, []string{"CAP_CHOWN"})
		}},
		{name: "unknown", change: func(p *policy.Policy) { p.Capabilities |= 1 << 60 }, refused: "capabilities: "},
	},
	"syscalls.base": {
		{name: "none", change: func(p *policy.Policy) { p.Syscalls = policy.Syscalls{Base: policy.SyscallsNone} }, shows: func(o outcome) bool { return o.calls("kexec_load") }},
		{name: "unknown", change: func(p *policy.Policy) { p.Syscalls.Base = "all" }, refused: `base "all"`},
		{name: "the engine's in its place", change: func(p *policy.Policy) { p.Process.NewPrivileges = true }, request: func(r *bundle.Request) {
			r.Engine = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		}, refused: "takes the place of the policy's"},
	},
	"syscalls.allow": {
		{name: "one", change: func(p *policy.Policy) { p.Syscalls.Allow = []string{"kexec_load"} }, shows: func(o outcome) bool { return o.calls("kexec_load") }},
		{name: "unknown", change: func(p *policy.Policy) { p.Syscalls.Allow = []string{"raed"} }, refused: `allow "raed"`},
		{name: "denied too", change: func(p *policy.Policy) {
			p.Syscalls.Allow, p.Syscalls.Deny = []string{"getpid"}, []string{"getpid"}
		}, shows: func(o outcome) bool { return !o.calls("getpid") }},
	},
	"syscalls.deny": {
		{name: "one", change: func(p *policy.Policy) { p.Syscalls.Deny = []string{"getpid"} }, shows: func(o outcome) bool { return !o.calls("getpid") }},
		{name: "unknown", change: func(p *policy.Policy) { p.Syscalls.Deny = []string{"getpidd"} }, refused: `deny "getpidd"`},
		{name: "without a filter", change: func(p *policy.Policy) {
			p.Syscalls.Base, p.Syscalls.Deny = policy.SyscallsNone, []string{"getpid"}
		}, refused: `deny "getpid"`},
	},
	"syscalls.deny_uses": {
		{name: "none", change: func(p *policy.Policy) { p.Syscalls.DenyUses = nil }, shows: func(o outcome) bool {
			return o.calls("pipe2", 0, 0x80) && o.calls("ioctl", 0, 0x5412) && o.calls("sendto", 0, 0, 0, 1)
		}},
		{name: "notification-pipe", change: uses(policy.UseNotificationPipe), shows: func(o outcome) bool {
			return !o.calls("pipe2", 0, 0x80) && o.calls("pipe2", 0, 0) && o.calls("ioctl", 0, 0x5412)
		}},
		{name: "terminal-input", change: uses(policy.UseTerminalInput), shows: func(o outcome) bool {
			return !o.calls("ioctl", 0, 0x5412) && !o.calls("ioctl", 0, 0x541c) && o.calls("ioctl", 0, 0x5401) && o.calls("pipe2", 0, 0x80)
		}},
		{name: "urgent-data", change: uses(policy.UseUrgentData), shows: func(o outcome) bool {
			return !o.calls("sendto", 0, 0, 0, 1) && !o.calls("recvmsg", 0, 0, 1) && o.calls("sendto", 0, 0, 0, 0x4000)
		}},
		{name: "with families", change: func(p *policy.Policy) {
			p.Network = &policy.Network{Families: strings.Fields(families)}
		}, shows: func(o outcome) bool { return !o.calls("pipe2", 0, 0x80) }},
		{name: "unknown", change: uses("sneezing"), refused: `use "sneezing"`},
		{name: "without a filter", change: func(p *policy.Policy) { p.Syscalls.Base = policy.SyscallsNone }, refused: `deny use "notification-pipe"`},
	},
	"process.new_privileges": {
		{name: "allowed", change: func(p *policy.Policy) { p.Process.NewPrivileges = true }, shows: func(o outcome) bool { return !o.spec.Process.NoNewPrivileges && o.spec.Linux.Seccomp != nil }},
		{name: "not allowed", change: func(*policy.Policy) {}, shows: func(o outcome) bool { return o.spec.Process.NoNewPrivileges }},
	},
	"process.ptrace": {
		{name: "none", change: func(p *policy.Policy) { p.Process.Ptrace = "none" }, shows: func(o outcome) bool {
			return !o.calls("ptrace") && !o.calls("process_vm_writev") && !o.calls("pidfd_getfd")
		}},
		{name: "none, and allowed", change: func(p *policy.Policy) {
			p.Process.Ptrace, p.Syscalls.Allow = "none", []string{"ptrace"}
		}, shows: func(o outcome) bool { return !o.calls("ptrace") }},
		{name: "none, and the capability", change: func(p *policy.Policy) {
			p.Process.Ptrace, p.Capabilities = "none", caps.Docker.With(caps.SysPtrace)
		}, shows: func(o outcome) bool {
			return !o.calls("pidfd_getfd") && !o.calls("kcmp") && !o.calls("process_madvise")
		}},
		{name: "unknown", change: func(p *policy.Policy) { p.Process.Ptrace = "children" }, refused: `ptrace "children"`},
		{name: "without a filter", change: func(p *policy.Policy) {
			p.Process.Ptrace, p.Syscalls = "none", policy.Syscalls{Base: policy.SyscallsNone}
		}, refused: "ptrace none"},
	},
	"read_only_root": {{name: "on", change: func(p *policy.Policy) { p.ReadOnlyRoot = true }, shows: func(o outcome) bool { return o.spec.Root.Readonly }}},
	"masked_paths": {
		{name: "one more", change: func(p *policy.Policy) { p.MaskedPaths = []string{"/secret"} }, shows: func(o outcome) bool { return slices.Contains(o.spec.Linux.MaskedPaths, "/secret") }},
		{name: "relative", change: func(p *policy.Policy) { p.MaskedPaths = []string{"secret"} }, refused: `path "secret"`},
	},
	"read_only_paths": {
		{name: "one more", change: func(p *policy.Policy) { p.ReadOnlyPaths = []string{"/fixed"} }, shows: func(o outcome) bool { return slices.Contains(o.spec.Linux.ReadonlyPaths, "/fixed") }},
		{name: "relative", change: func(p *policy.Policy) { p.ReadOnlyPaths = []string{"fixed"} }, refused: `path "fixed"`},
	},
	"apparmor.profile": {
		{name: "loaded", change: func(p *policy.Policy) { p.AppArmor.Profile = "web" }, shows: func(o outcome) bool { return o.spec.Process.ApparmorProfile == "web" }},
		{name: "required, not loaded", change: func(p *policy.Policy) { p.AppArmor = policy.AppArmor{Profile: "gone", Required: true} }, refused: `"gone"`},
	},
	"apparmor.required": {
		{name: "complain mode", change: func(p *policy.Policy) { p.AppArmor = policy.AppArmor{Profile: "soft", Required: true} }, refused: `"soft"`},
	},
	"label.mcs": {
		{name: "no word", change: func(p *policy.Policy) { p.Label.MCS = "mine" }, refused: `mcs "mine"`},
		{name: "three categories", change: func(p *policy.Policy) { p.Label.MCS = "c1.c3" }, refused: `mcs "c1.c3"`},
		{name: "no group", change: func(p *policy.Policy) { p.Label.MCS = "shared:" }, refused: `mcs "shared:"`},
		{name: "a group that was not reserved", change: func(p *policy.Policy) { p.Label.MCS = "shared:db" }, refused: `mcs "shared:db": the label was reserved for the container alone`},
		{name: "another group", change: func(p *policy.Policy) { p.Label.MCS = "shared:db" }, request: func(r *bundle.Request) { r.Shared = "web" }, refused: `group "web"`},
		{name: "the group", change: func(p *policy.Policy) { p.Label.MCS = "shared:db" }, request: func(r *bundle.Request) { r.Shared = "db" }, shows: labelled("s0:c1,c2")},
		{name: "another pair", change: func(p *policy.Policy) { p.Label.MCS = "c3,c4" }, refused: `mcs "c3,c4": the container has s0:c1,c2`},
		{name: "the pair", change: func(p *policy.Policy) { p.Label.MCS = "c2,c1" }, shows: labelled("s0:c1,c2")},
		{name: "no label", change: func(p *policy.Policy) { p.Label.MCS = "c1,c2" }, request: func(r *bundle.Request) { r.Level = "" }, refused: "no label was reserved"},
	},
	"label.level": {
		{name: "another", change: func(p *policy.Policy) { p.Label.Level = "s1" }, refused: `level "s1": the container has s0:c1,c2`},
		{name: "with categories", change: func(p *policy.Policy) { p.Label.Level = "s0:c1" }, refused: `level "s0:c1"`},
		{name: "reserved", change: func(p *policy.Policy) { p.Label.Level = "s1" }, request: func(r *bundle.Request) { r.Level = "s1:c1,c2" }, shows: labelled("s1:c1,c2")},
	},
}

func uses(names ...string) func(*policy.Policy) {
	return func(p *policy.Policy) { p.Syscalls.DenyUses = names }
}

func files(f func(*policy.Files)) func(*policy.Policy) {
	return func(p *policy.Policy) { p.Files = &policy.Files{}; f(p.Files) }
}

func network(families string, listen, connect []string) func(*policy.Policy) {
	return func(p *policy.Policy) {
		p.Network = &policy.Network{Families: strings.Fields(families), Listen: listen, Connect: connect}
	}
}

func labelled(level string) func(outcome) bool {
	return func(o outcome) bool {
		return o.spec.Process.SelinuxLabel == "system_u:system_r:container_t:"+level && o.plan.Level == level
	}
}

// leaves are the names of all fields below a type.
func leaves(t reflect.Type, prefix string) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		typ := f.Type
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Struct {
			out = append(out, leaves(typ, prefix+name+".")...)
		} else {
			out = append(out, prefix+name)
		}
	}
	return out
}

// TestEveryValue changes each field of a policy: the change is in force, or refused by name.
func TestEveryValue(t *testing.T) {
	fields := leaves(reflect.TypeFor[policy.Policy](), "")
	for _, f := range fields {
		if len(values[f]) == 0 {
			t.Errorf("no row says what enforces %q", f)
		}
	}
	for f := range values {
		if !slices.Contains(fields, f) {
			t.Errorf("a policy has no field %q", f)
		}
	}
	kernel, err := target.ParseKernel("6.12.0")
	if err != nil {
		t.Fatal(err)
	}
	for field, rows := range values {
		for _, v := range rows {
			t.Run(field+"/"+strings.ReplaceAll(v.name, " ", "_"), func(t *testing.T) {
				h := target.Target{
					Kernel: kernel, Arch: "x86_64",
					SELinux:  target.SELinux{State: target.Enforcing, Mode: "enforcing", ProcessContext: target.DefaultProcessContext, FileContext: target.DefaultFileContext},
					AppArmor: target.AppArmor{State: target.Enforcing, Loaded: map[string]string{"docker-default": "enforce", "web": "enforce", "soft": "complain"}},
					Landlock: target.Landlock{State: target.Enforcing, ABI: 7},
					Seccomp:  target.Seccomp{State: target.Enforcing},
				}
				switch {
				case v.abi < 0:
					h.Landlock = target.Landlock{State: target.Absent}
				case v.abi > 0:
					h.Landlock.ABI = v.abi
				}
				p, r := policy.Default(), bundle.Request{ID: "c", Level: "s0:c1,c2", Init: "/proc/self/fd/3", BlockDevices: true}
				v.change(&p)
				if v.request != nil {
					v.request(&r)
				}
				plan, err := bundle.Resolve(h, p, r)
				if v.refused != "" {
					if !errors.Is(err, bundle.ErrMissing) || !strings.Contains(err.Error(), v.refused) {
						t.Fatalf("got %v, want a refusal with %q", err, v.refused)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				all := caps.All.Names()
				raw, err := json.Marshal(specs.Spec{
					Version: "1.2.0", Root: &specs.Root{Path: "/root"}, Linux: &specs.Linux{Seccomp: r.Engine},
					Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}},
				})
				if err != nil {
					t.Fatal(err)
				}
				_, spec, err := oci.Edit(raw, plan.Confinement, "/bundle")
				if err != nil {
					t.Fatal(err)
				}
				if !v.shows(outcome{plan, spec}) {
					t.Errorf("not in force: step %+v", plan.Step)
				}
			})
		}
	}
}
