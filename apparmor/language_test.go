// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/palisade-sec/palisade/diag"
)

// check parses and resolves a text.
func check(text string, env Env) (*Policy, diag.List) {
	f, diags := Parse("p", []byte(text))
	if diags.HasErrors() {
		return nil, diags
	}
	p, more := Resolve(f, env)
	return p, append(diags, more...)
}

// in puts rules into a profile; the first one is on line 2.
func in(rules string) string { return "profile p {\n" + rules + "\n}\n" }

func TestAccept(t *testing.T) {
	for _, text := range []string{
		"",
		"/bin/a { }",
		"profile a { }",
		":ns:a { }",
		":ns://a { }",
		"profile a /b { }",
		"profile a @{x} { }\n"[:0],
		"profile \"a b\" \"/c d\" { }",
		"^hat { /a r, }",
		"profile a (complain audit) { }",
		"profile a flags=(attach_disconnected, chroot_relative) { }",
		"profile a flags=(attach_disconnected.path=/x kill.signal=rtmin+3 error=eperm default_allow) { }",
		"profile a xattrs=(user.a=\"x*\" user.b) flags=(kill) { }",
		"profile a + identities=(x y) + identities=(z) { }",
		in("^h { }\nhat i (complain) { }\nprofile j /k { ^l { } }"),
		in("/a r,\n/b{c,d}[e-f]?*** wlk,\n\"/g h\" m,\n/i\\ j r,\n@{PROC}\\@ r,"[:0] + "/a r,"),
		in("/a rwk, /b aml, r /c, owner /d r, other /e w, user /f r,"),
		in("/a ix, /b Px, /c cux -> d, /e Pix -> &f, /g ux,"),
		in("deny /a x, audit deny /b wx, allow /c ix, prompt /d r,"),
		in("safe /a px, unsafe /b px, file /c r, file rw /d, file,"),
		in("priority=5 /a r,\npriority=-1000 deny /b w,\npriority = +7 audit allow owner /c r,"),
		in("link /a -> /b, link subset /c -> /d, /e l -> /f, l /g -> /h, rl /i,"),
		in("audit { /a r, owner { /b w, } }\ndeny { /c w, }"),
		in("capability, capability chown kill, deny capability sys_admin,"),
		in("network, network inet, network tcp, network inet6 dgram, network netlink raw, deny network bluetooth,"),
		in("network (send, receive) inet stream ip=127.0.0.1 port=80-90 peer=(ip=::1 port=1),\nnetwork inet ip=none,"),
		in("network inet label=\"x\" interface=eth* peer=(label:=y),"),
		in("unix, unix (send receive) type=stream addr=@a* peer=(label=b addr=none), unix bind addr=auto,"),
		in("signal, signal send, signal (r w) set=(hup rtmin+0 exists) peer=x,"),
		in("ptrace, ptrace (read trace readby tracedby) peer=@{profile_name},"),
		in("dbus, dbus bind bus=session name=a.b, dbus send bus=system peer=(label=x name=y), dbus eavesdrop bus=z,"),
		in("mqueue, mqueue (r, w, create) type=posix label=x /q, mqueue getattr 17,"),
		in("io_uring, io_uring sqpoll, io_uring (override_creds) label=x,"),
		in("userns, userns create,"),
		in("mount, mount options=(ro bind) /a -> /b/, mount options in (ro,rw) fstype=(a b) c -> /d,\nremount /e, umount, unmount /f,"),
		in("mount options=(rw) options=(ro),"),
		in("pivot_root, pivot_root oldroot=/a /b -> c,"),
		in("change_profile, change_profile -> a, change_profile /b -> c, change_profile unsafe /d -> :e:f,"),
		in("set rlimit cpu <= 3 min, set rlimit data <= 5K, set rlimit nice <= -20, set rlimit nproc <= infinity,"),
		in("all,"),
		in("/bin/* ix, /bin/a px,"),              // exact beats pattern
		in("deny /bin/* x, /bin/a* px,"),         // deny beats all
		in("priority=1 /bin/* ix, /bin/a* px,"),  // priority beats all
		in("owner /bin/* ix, other /bin/a* px,"), // never both
		in("/bin/a px -> x, /bin/b px -> y,"),    // nothing in common
		in("/usr/bin/[a-c]* ix, /usr/bin/[d-f]* px,"),
		"@{A} = b \"c d\" e\\ f # g\n@{A} += h\n@{B} ?= i\n@{B} := @{A}/j\n$K = true\n$L = not $K or ( @{A} == @{B} )\n" + in("/@{B} r,\nif $L { /x r, } else if @{A} in @{B} { /y r, } else { /z r, }"),
		in("if defined @{nope} { /a r, }\nif 10 > 9 and TRUE { /b r, }"),
		"alias /a/ -> /b/,\nrewrite /c -> \"/d e\",\n" + in("/a/x r,"),
		"abi <abi/3.0>,\nabi <kernel>,\n" + in("abi <default>,"),
		"#include <tunables/global>\ninclude if exists <no/such>\n" + in("#include if exists \"no such\"\ninclude <abstractions/base>"),
		"profile open open }", // "open" is the brace to the reference scanner
	} {
		if p, diags := check(text, Env{}); diags.HasErrors() || p == nil {
			t.Errorf("rejected: %v\n%s", diags, text)
		}
	}
}

// TestReject: each text is refused for the reason given, at the place given,
// as "line:column code".
func TestReject(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"/a r,", "1:1 AA-OUTSIDE"},
		{"b { }", "1:1 AA-PROFILE-NAME"},
		{in("userns (create),"), "2:8 AA-LEX"},
		{"profile { }", "1:11 AA-SYNTAX"},
		{"profile a b { }", "1:11 AA-ATTACHMENT"},
		{"profile &a { }", "1:9 AA-PROFILE-NAME"},
		{"profile :a { }", "1:9 AA-PROFILE-NAME"},
		{"profile a { } profile a { }", "1:23 AA-DUPLICATE"},
		{in("^h { }\nhat h { }"), "3:5 AA-DUPLICATE"},
		{"profile a { ", "1:11 AA-SYNTAX"},
		{"profile a { } }", "1:15 AA-SYNTAX"},
		{"profile a (nope) { }", "1:12 AA-FLAG"},
		{"profile a (complain enforce) { }", "1:21 AA-FLAG-CONFLICT"},
		{"profile a (mediate_deleted delegate_deleted) { }", "1:28 AA-FLAG-CONFLICT"},
		{"profile a (attach_disconnected.path=x) { }", "1:12 AA-FLAG"},
		{"profile a (kill.signal=nope) { }", "1:12 AA-SIGNAL"},
		{"profile a (error=ENOPE) { }", "1:12 AA-FLAG"},
		{"profile a flags=() { }", "1:18 AA-SYNTAX"},
		{"profile a peer=(b) { }", "1:11 AA-PROFILE-CONDITION"},
		{in("^h xattrs=(a=b) { }"), "2:4 AA-HAT-XATTRS"},
		{"profile a + identities=(\"b c\") { }", "1:25 AA-IDENTITY"},
		{in("/a/b { }"), "2:6 AA-SYNTAX"},
		{in("/a r"), "3:1 AA-SYNTAX"},
		{in("/a rq,"), "2:4 AA-SYNTAX"},
		{in("/a wa,"), "2:4 AA-APPEND-WRITE"},
		{in("/a x,"), "2:4 AA-EXEC-QUALIFIER"},
		{in("deny /a ix,"), "2:9 AA-EXEC-QUALIFIER"},
		{in("/a pxix,"), "2:4 AA-EXEC-CONFLICT"},
		{in("/a px, /a ix,"), "2:8 AA-EXEC-CONFLICT"},
		{in("/bin/* px, /bin/a? ix,"), "2:12 AA-EXEC-CONFLICT"},
		{in("/bin/[ab] px -> x, /bin/{a,b} px -> y,"), ""},
		{in("/bin/a px -> x, /bin/{a,b} px -> y,"), "2:17 AA-EXEC-CONFLICT"},
		{in("change_profile safe /a -> b, change_profile unsafe /a -> b,"), "2:30 AA-EXEC-CONFLICT"},
		{in("safe /a r,"), "2:1 AA-EXEC-MODE"},
		{in("r subset /a,"), "2:1 AA-SUBSET"},
		{in("lix /a -> /b,"), "2:11 AA-TARGET"},
		{in("/a[b r,"), "2:1 AA-GLOB"},
		{in("/a{b} r,"), "2:1 AA-GLOB"},
		{in("/a]b r,"), "2:1 AA-GLOB"},
		{in("/a\\ r,"), "2:6 AA-SYNTAX"},
		{in("link /a,"), "2:8 AA-SYNTAX"},
		{in("priority=1001 /a r,"), "2:1 AA-PRIORITY"},
		{in("priority=1 network,"), "2:1 AA-PRIORITY"},
		{in("priority=1 { /a r, }"), "2:1 AA-PRIORITY"},
		{in("deny { allow /a r, }"), "2:8 AA-PREFIX"},
		{in("deny audit /a r,"), "2:6 AA-SYNTAX"},
		{in("owner capability kill,"), "2:1 AA-OWNER"},
		{in("owner signal,"), "2:1 AA-OWNER"},
		{in("owner mount,"), "2:1 AA-OWNER"},
		{in("owner change_profile,"), "2:1 AA-OWNER"},
		{in("capability nope,"), "2:12 AA-CAPABILITY"},
		{in("network nope,"), "2:9 AA-NETWORK"},
		{in("network inet nope,"), "2:9 AA-NETWORK"},
		{in("network unix ip=1.2.3.4,"), "2:9 AA-NETWORK"},
		{in("network ip=1.2.3,"), "2:12 AA-NETWORK-IP"},
		{in("network port=70000,"), "2:14 AA-NETWORK-PORT"},
		{in("network port=9-8,"), "2:14 AA-NETWORK-PORT"},
		{in("network bind peer=(ip=1.2.3.4),"), "2:1 AA-PEER"},
		{in("network peer=(interface=a),"), "2:1 AA-NETWORK"},
		{in("network nope=a,"), "2:9 AA-CONDITION-NAME"},
		{in("unix addr=a,"), "2:11 AA-UNIX-ADDR"},
		{in("unix label=a,"), "2:6 AA-CONDITION-NAME"},
		{in("unix bind peer=(addr=none),"), "2:1 AA-PEER"},
		{in("unix type=nope,"), "2:11 AA-NETWORK"},
		{in("signal set=nope,"), "2:12 AA-SIGNAL"},
		{in("signal set=rtmin+33,"), "2:12 AA-SIGNAL"},
		{in("signal trace,"), "2:8 AA-SYNTAX"},
		{in("signal (trace),"), "2:9 AA-ACCESS"},
		{in("ptrace peer in (a b),"), "2:8 AA-CONDITION-OP"},
		{in("ptrace peer=a peer=b,"), "2:15 AA-CONDITION-TWICE"},
		{in("dbus label=a,"), "2:1 AA-DBUS"},
		{in("dbus send name=a,"), "2:1 AA-DBUS"},
		{in("dbus bind path=/a,"), "2:1 AA-DBUS"},
		{in("dbus eavesdrop name=a,"), "2:1 AA-DBUS"},
		{in("dbus bus=(a b),"), "2:6 AA-CONDITION-MANY"},
		{in("mqueue type=posix 12,"), "2:19 AA-MQUEUE"},
		{in("mqueue a,"), "2:8 AA-MQUEUE"},
		{in("userns delete,"), "2:8 AA-LEX"},
		{in("io_uring send,"), "2:10 AA-ACCESS"},
		{in("mount options=(ro rw),"), "2:7 AA-MOUNT"},
		{in("mount options=(nope),"), "2:16 AA-MOUNT"},
		{in("mount nope=a,"), "2:7 AA-MOUNT"},
		{in("mount a -> fstype=b /c,"), "2:12 AA-MOUNT"},
		{in("mount options=(bind) fstype=a /b -> /c,"), "2:1 AA-MOUNT"},
		{in("pivot_root newroot=/a,"), "2:12 AA-MOUNT"},
		{in("change_profile safe -> a,"), "2:1 AA-CHANGE-PROFILE"},
		{in("change_profile a -> b,"), "2:16 AA-CHANGE-PROFILE"},
		{in("set rlimit nope <= 1,"), "2:12 AA-RLIMIT"},
		{in("set rlimit cpu <= 1 ms,"), "2:19 AA-RLIMIT"},
		{in("set rlimit nice <= 20,"), "2:20 AA-RLIMIT"},
		{in("set rlimit nproc <= 1K,"), "2:21 AA-RLIMIT"},
		{in("set rlimit data <= 1 TB,"), "2:20 AA-RLIMIT"},
		{in("@{A} = b"), "2:1 AA-PREAMBLE"},
		{in("/@{A} r,"), "2:1 AA-VARIABLE"},
		{"@{A} = b\n@{A} = c\n", "2:1 AA-VAR-REDECLARED"},
		{"@{A} += b\n", "1:1 AA-VAR-UNDECLARED"},
		{"@{A} = @{A}\n" + in("/@{A} r,"), "3:1 AA-VARIABLE"},
		{"@{A} = b,\n", "1:9 AA-VAR-COMMA"},
		{"$A = nope\n", "1:6 AA-CONDITION"},
		{"$A += true\n", "1:1 AA-VAR-KIND"},
		{in("if $A { }"), "2:4 AA-CONDITION"},
		{in("if 1 > a { }"), "2:4 AA-CONDITION"},
		{in("if @{A} == b { }"), "2:4 AA-CONDITION"},
		{in("else { }"), "2:1 AA-SYNTAX"},
		{"profile a { }\n@{B} = c\n", "2:1 AA-PREAMBLE"},
		{"alias /a /b,\n", "1:10 AA-SYNTAX"},
		{"abi <no/such>,\n", "1:5 AA-ABI"},
		{"abi nope\nprofile a { }\n", "2:1 AA-SYNTAX"},
		{"include <no/such>\n", "1:9 AA-INCLUDE"},
		{"include \"no\"\n", "1:9 AA-INCLUDE"},
		{in("nonsense"), "3:1 AA-SYNTAX"},
		{in("~"), "2:1 AA-LEX"},
		{"profile a {\x00}", "1:12 AA-LEX"},
	} {
		_, diags := check(c.text, Env{FS: fstest.MapFS{}, Search: nil})
		got := ""
		for _, d := range diags.Sorted() {
			if d.Severity == diag.Error {
				got = d.Span.Start.String() + " " + d.Code
				break
			}
		}
		if got != c.want {
			t.Errorf("%q, want %q: %v\n%s", got, c.want, diags, c.text)
		}
	}
}

// TestAllErrorsAtOnce: one faulty rule does not hide the next.
func TestAllErrorsAtOnce(t *testing.T) {
	text := "@{A} = b,\nprofile a (nope) {\n  /a rw /b r,\n  capability fly,\n  /c x,\n  deny /d ix,\n  ^h {\n    ~\n    network nope,\n  }\n  /e r\n}\nprofile b {\n  signal set=nope,\n}\n"
	_, diags := Parse("p", []byte(text))
	var lines []int
	for _, d := range diags.Sorted() {
		lines = append(lines, d.Span.Start.Line)
	}
	if want := []int{1, 3, 8, 12}; !slices.Equal(lines, want) {
		t.Errorf("syntax errors on lines %v, want %v: %v", lines, want, diags)
	}
	f, _ := Parse("p", []byte(text))
	_, diags = Resolve(f, Env{})
	lines = nil
	for _, d := range diags.Sorted() {
		lines = append(lines, d.Span.Start.Line)
	}
	if want := []int{2, 4, 5, 6, 9, 14}; !slices.Equal(lines, want) {
		t.Errorf("further errors on lines %v, want %v: %v", lines, want, diags)
	}
	good := strings.NewReplacer("b,\n", "b\n", "/a rw /b r", "/a rw", "~", "", "/e r\n", "/e r,\n").Replace(text)
	_, diags = check(good, Env{})
	lines = nil
	for _, d := range diags.Sorted() {
		lines = append(lines, d.Span.Start.Line)
	}
	if want := []int{2, 4, 5, 6, 9, 14}; !slices.Equal(lines, want) {
		t.Errorf("errors on lines %v, want %v: %v", lines, want, diags)
	}
}

func TestDecode(t *testing.T) {
	for in, want := range map[string]string{
		`a\1`: "a\x01", `\8`: `\8`, `\18`: "\x018", `\1a`: "\x01a", `\118`: "\x098", `\111`: "I", `\378`: "\x1f8",
		`123\421123`: "123\x221123", `\x41\d066`: "AB", `\xg`: `\xg`, `\dx`: `\dx`, `\000`: `\000`,
		`"a\tb"`: "a\tb", `"a\\b"`: `a\\b`, `"a\"b"`: `a"b`, `\*\?\[`: `\*\?\[`, `\052`: `\*`, `\173`: `\{`,
		`"ab\`: "ab"[:0] + "ab", `\q`: `\q`, `"\U\N\x"`: `\U\N\x`, `a\`: `a\`,
	} {
		if got := decode(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// rules lists the rules of the first profile in short.
func rules(t *testing.T, text string, env Env) []string {
	t.Helper()
	p, diags := check(text, env)
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	var out []string
	for _, r := range p.Profiles[0].Rules {
		s := ""
		switch b := r.Body.(type) {
		case *FileBody:
			s = fmt.Sprintf("%s %#x %s", b.Path, b.Perms, b.Exec)
			if b.Perms&MayExec == 0 {
				s = fmt.Sprintf("%s %#x", b.Path, b.Perms)
			}
			if b.LinkTarget != "" {
				s += " -> " + b.LinkTarget
			}
		case *UnixBody:
			s = fmt.Sprintf("unix %d", b.Type)
		default:
			s = fmt.Sprintf("%T", b)
		}
		if r.Mode != ModeAllow {
			s = r.Mode.String() + " " + s
		}
		s = [...]string{"", "audit ", "quiet "}[r.Audit] + s
		if r.Owner != OwnerUnspecified {
			s = r.Owner.String() + " " + s
		}
		if r.Implied {
			s = "implied " + s
		}
		out = append(out, s)
	}
	return out
}

func TestResolve(t *testing.T) {
	files := fstest.MapFS{
		"inc/a":           {Data: []byte("/from/a r,\ninclude <b>\n")},
		"inc/b":           {Data: []byte("/from/b r,\ninclude <a>\n")},
		"inc/d/1":         {Data: []byte("/from/1 r,\n")},
		"inc/d/2":         {Data: []byte("/from/2 r,\n")},
		"inc/d/2.rpmsave": {Data: []byte("~")},
		"inc/d/.hidden":   {Data: []byte("~")},
		"inc/d/README":    {Data: []byte("~")},
		"more/b":          {Data: []byte("/from/more r,\n")},
		"more/v":          {Data: []byte("@{V} = /v/ /w\n")},
		"home/rel":        {Data: []byte("/from/rel r,\n")},
	}
	env := Env{FS: files, Search: []string{"/inc", "/more/"}, Dir: "/home"}
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"each include once, the first directory wins", in("include <a>\ninclude <b>"), []string{"/from/a 0x4", "/from/b 0x4"}},
		{"a child profile starts anew", "profile p {\n include <b>\n ^h {\n include <b>\n }\n}", []string{"/from/b 0x4", "/from/a 0x4"}},
		{"directories: the last file first, leftovers not at all", in("include <d>"), []string{"/from/2 0x4", "/from/1 0x4"}},
		{"relative paths", in("include rel\ninclude \"/inc/d/1\"\ninclude if exists \"gone\""), []string{"/from/rel 0x4", "/from/1 0x4"}},
		{"variables, slashes merged", "include <v>\n" + in("@{V}/x r,\n/y/@{V} r,"), []string{"{/v,/w}/x 0x4", "/y/{v/,w} 0x4"}},
		{"variables of variables", "@{A}=a @{B}/c\n@{B}=b1 b2\n" + in("/@{A} r,"), []string{"/{a,b1/c,b2/c} 0x4"}},
		{"the first expansion holds", "@{A}=a\n$C = @{A} == a\n@{A}+=b\n" + in("/@{A} r,"), []string{"/a 0x4"}},
		{"names of the profile", "profile \"p*\" /b/* {\n @{profile_name} r,\n @{exec_path} m,\n}", []string{`p\* 0x4`, "/b/* 0x40"}},
		{"conditions take one branch", "@{A}=1 2\n" + in("if @{A} == 1 { /a r, } else if 2 in @{A} { /b r, } else { /c r, }"), []string{"/b 0x4"}},
		{"aliases add, once", "alias /a/ -> /b/,\nalias /b/ -> /c/,\n" + in("/a/x r,\n/d l -> /a/y,"), []string{"/a/x 0x4", "/b/x 0x4", "/d 0x10 -> /a/y", "/d 0x10 -> /b/y"}},
		{"prefixes", in("audit /a r,\ndeny /b r,\naudit deny /c r,\nowner { /d r, }"), []string{"audit /a 0x4", "quiet deny /b 0x4", "deny /c 0x4", "owner /d 0x4"}},
		{"owner of other is nobody", in("owner { other /a r, }\n/b r,"), []string{"/b 0x4"}},
		{"bare file", in("file,"), []string{"/{**,} 0x7f ix"}},
		{"children by name", in("/a cx -> b,\n/c px -> b,\n/d Cix -> /d,"), []string{"/a 0x1 cx -> p//b", "/c 0x1 px -> b", "/d 0x1 Cix"}},
		{"network unix makes unix rules", in("network unix stream,\ndeny network unix,"), []string{
			"implied unix 1", "*apparmor.NetworkBody",
			"implied deny unix 1", "implied deny unix 2", "implied deny unix 3", "implied deny unix 4", "implied deny unix 5", "implied deny unix 10", "quiet deny *apparmor.NetworkBody",
		}},
		{"change_profile needs its interface", in("change_profile -> x,"), []string{
			"*apparmor.ChangeProfileBody", "implied owner /proc/*/attr/apparmor/ 0x4",
			"implied owner /sys/module/apparmor/parameters/enabled 0x4", "implied owner /proc/*/attr/{apparmor/,}{current,exec} 0x2",
		}},
	} {
		var got []string
		for _, r := range rules(t, c.text, env) {
			if c.name == "a child profile starts anew" && strings.HasPrefix(r, "implied") {
				continue
			}
			got = append(got, strings.Replace(r, "implied owner", "owner implied", 1))
		}
		var want []string
		for _, w := range c.want {
			want = append(want, strings.Replace(w, "implied owner", "owner implied", 1))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, want)
		}
	}
}

func TestResolveProfiles(t *testing.T) {
	p, diags := check("profile z { ^h { /a r, } profile c /d { ^i { } } }\nprofile :n:a { ^b { } }\n/bin/y { }\n", Env{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var got []string
	for _, r := range p.Profiles {
		got = append(got, fmt.Sprintf("%s@%s hat=%v", r.FullName(), r.Attachment, r.Flags.Hat))
	}
	want := []string{
		":n://a@ hat=false", ":n://a//b@ hat=true", "/bin/y@/bin/y hat=false", "z@ hat=false",
		"z//c@/d hat=false", "z//c//i@ hat=true", "z//h@ hat=true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want\n%q", got, want)
	}
	if r := p.Profiles[len(p.Profiles)-1].Rules; r[0].Span.Start.Line != 1 || r[0].Source == nil || !r[len(r)-1].Implied {
		t.Errorf("rules of z//h: %+v", r)
	}
}

func TestResolveSets(t *testing.T) {
	p, diags := check(in("capability chown kill,\ndeny capability sys_admin,\naudit deny capability mknod,\naudit capability bpf,\nset rlimit nice <= 5,\nset rlimit fsize <= 3MB,\nset rlimit cpu <= 2 min,\nset rlimit rttime <= 4ms,\nset rlimit as <= infinity,"), Env{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r := p.Profiles[0]
	if want := (Capabilities{Allow: 1<<0 | 1<<5 | 1<<39, Audit: 1 << 39, Deny: 1<<21 | 1<<27, Quiet: 1 << 21}); r.Caps != want {
		t.Errorf("%+v, want %+v", r.Caps, want)
	}
	if got := fmt.Sprint(r.Rlimits); got != fmt.Sprint(map[int]uint64{13: 25, 1: 3 << 20, 0: 120, 15: 4000, 9: RlimitInfinity}) {
		t.Error(got)
	}
}

// TestVia: a rule from an include says how it got into the profile, and so does
// an error.
func TestVia(t *testing.T) {
	env := Env{FS: fstest.MapFS{"i/a": {Data: []byte("\ninclude <b>\n")}, "i/b": {Data: []byte("/x r,\ncapability fly,\n")}}, Search: []string{"i"}}
	_, diags := check(in("include <a>"), env)
	if len(diags) != 1 || diags[0].Span.String() != "i/b:2:12" || len(diags[0].Related) != 2 ||
		diags[0].Related[0].Span.String() != "i/a:2:1" || diags[0].Related[1].Span.String() != "p:2:1" {
		t.Errorf("%+v", diags)
	}
}

// TestBounds: a few lines of text cannot ask for unbounded work.
func TestBounds(t *testing.T) {
	bomb := "@{A0} = a b\n"
	for i := 1; i < 40; i++ {
		bomb += fmt.Sprintf("@{A%d} = @{A%d}@{A%d}\n", i, i-1, i-1)
	}
	var values strings.Builder
	for i := range 16000 {
		fmt.Fprintf(&values, " %d0123456789012345678901234567890123456789", i)
	}
	big := "@{A} =" + values.String() + "\n" + in(strings.Repeat("/x/@{A} r,\n", 20000))
	selfInclude := fstest.MapFS{"i/p": {Data: []byte("profile x {\n include <p>\n}\n")}}
	for _, c := range []struct {
		text string
		env  Env
		want string
	}{
		{bomb + in("/@{A39} r,"), Env{}, "AA-VARIABLE"},
		{big, Env{}, "AA-VARIABLE"},
		{in(strings.Repeat("^h {", 6000)), Env{}, "AA-SYNTAX"},
		{in("if " + strings.Repeat("not ", 6000) + "true { }"), Env{}, "AA-SYNTAX"},
		{"include <p>\n", Env{FS: selfInclude, Search: []string{"i"}}, "AA-INCLUDE-DEPTH"},
		{strings.Repeat("~\n", 5000), Env{}, "AA-LEX"},
	} {
		_, diags := check(c.text, c.env)
		if !slices.ContainsFunc(diags, func(d diag.Diagnostic) bool { return d.Code == c.want }) || len(diags) > 2*maxErrors+2 {
			t.Errorf("want %s, got %d: %.300v", c.want, len(diags), diags)
		}
	}
}
