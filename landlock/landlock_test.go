// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"errors"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRights(t *testing.T) {
	seen := map[string]bool{}
	next := map[Kind]uint64{KindFS: 1, KindNet: 1, KindScope: 1, KindFlag: 1}
	for _, r := range Rights() {
		if seen[r.Name] || r.Bit != next[r.Kind] || r.ABI < 1 || r.ABI > MaxABI || bits.OnesCount64(r.Bit) != 1 {
			t.Errorf("%+v", r)
		}
		seen[r.Name] = true
		next[r.Kind] <<= 1
		if got, ok := LookupRight(r.Name); !ok || got != r {
			t.Errorf("%s: looked up %+v", r.Name, got)
		}
	}
	// What each version adds, spelled out: the table may not be read with its own code alone.
	for abi, want := range map[int]string{
		0: "none none none none", 1: "0x1fff 0x0 0x0 0x0", 2: "0x3fff 0x0 0x0 0x0", 3: "0x7fff 0x0 0x0 0x0",
		4: "0x7fff 0x3 0x0 0x0", 5: "0xffff 0x3 0x0 0x0", 6: "0xffff 0x3 0x3 0x0", 7: "0xffff 0x3 0x3 0x7",
		8: "0xffff 0x3 0x3 0xf", 9: "0x1ffff 0x3 0x3 0xf", 10: "0x1ffff 0xf 0x3 0xf", 11: "0x1ffff 0xf 0x3 0xf",
	} {
		got := fmt.Sprintf("%#x %#x %#x %#x", uint64(FSAt(abi)), uint64(NetAt(abi)), uint64(ScopeAt(abi)), uint32(FlagsAt(abi)))
		if abi == 0 {
			got = fmt.Sprintf("%s %s %s %s", FSAt(0), NetAt(0), ScopeAt(0), FlagsAt(0))
		}
		if got != want {
			t.Errorf("ABI %d: %s, want %s", abi, got, want)
		}
	}
	if FSAt(-1) != 0 || FileRights != Execute|WriteFile|ReadFile|Truncate|IoctlDev|ResolveUnix {
		t.Errorf("negative version %s, files %s", FSAt(-1), FileRights)
	}
	for in, want := range map[string]string{
		(ReadFile | MakeSym | 1<<40).String(): "fs.read_file,fs.make_sym,0x10000000000",
		(BindTCP | ConnectSendUDP).String():   "net.bind_tcp,net.connect_send_udp",
		AllScopes.String():                    "scope.abstract_unix_socket,scope.signal",
		TSync.String():                        "restrict_self.tsync",
	} {
		if in != want {
			t.Errorf("%s, want %s", in, want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "fs.read", "net.bind_tcp", "fs.read_file,", "none,fs.read_file", "0x1"} {
		if a, err := ParseAccessFS(bad); !errors.Is(err, ErrRight) {
			t.Errorf("%q: %s, %v", bad, a, err)
		}
	}
	if _, err := ParseAccessNet("fs.execute"); !errors.Is(err, ErrRight) {
		t.Error(err)
	}
	if _, err := ParseScope("ptrace"); !errors.Is(err, ErrRight) {
		t.Error(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		fs := AccessFS(rapid.Uint64().Draw(t, "fs")) & AllFS
		net := AccessNet(rapid.Uint64().Draw(t, "net")) & AllNet
		scope := Scope(rapid.Uint64().Draw(t, "scope")) & AllScopes
		if got, err := ParseAccessFS(fs.String()); err != nil || got != fs {
			t.Errorf("%s: %s, %v", fs, got, err)
		}
		if got, err := ParseAccessNet(net.String()); err != nil || got != net {
			t.Errorf("%s: %s, %v", net, got, err)
		}
		if got, err := ParseScope(scope.String()); err != nil || got != scope {
			t.Errorf("%s: %s, %v", scope, got, err)
		}
	})
}

func TestValidate(t *testing.T) {
	fs := func(p PathRule) Ruleset { return Ruleset{HandledFS: ReadFile, Paths: []PathRule{p}} }
	for _, tt := range []struct {
		name string
		r    Ruleset
		abi  int
		want error
	}{
		{"empty", Ruleset{}, 10, ErrEmpty},
		{"bit 17", Ruleset{HandledFS: 1 << 17}, 10, ErrRight},
		{"net bit 4", Ruleset{HandledNet: 1 << 4}, 10, ErrRight},
		{"scope bit 2", Ruleset{Scoped: 1 << 2}, 10, ErrRight},
		{"relative", fs(PathRule{ReadFile, "etc"}), 10, ErrPath},
		{"not clean", fs(PathRule{ReadFile, "/etc/../x"}), 10, ErrPath},
		{"slash behind", fs(PathRule{ReadFile, "/etc/"}), 10, ErrPath},
		{"zero byte", fs(PathRule{ReadFile, "/a\x00"}), 10, ErrPath},
		{"too long", fs(PathRule{ReadFile, "/" + strings.Repeat("x", pathMax)}), 10, ErrPath},
		{"longest", fs(PathRule{ReadFile, "/" + strings.Repeat("x", pathMax-1)}), 10, nil},
		{"root", fs(PathRule{ReadFile, "/"}), 10, nil},
		{"grants nothing", fs(PathRule{0, "/"}), 10, ErrNoop},
		{"grants more", fs(PathRule{ReadFile | Execute, "/"}), 10, ErrGrant},
		{"refer unhandled", fs(PathRule{Refer, "/"}), 10, ErrGrant},
		{"port grants nothing", Ruleset{HandledNet: BindTCP, Ports: []PortRule{{0, 1}}}, 10, ErrNoop},
		{"port grants more", Ruleset{HandledNet: BindTCP, Ports: []PortRule{{ConnectTCP, 1}}}, 10, ErrGrant},
		{"TCP at 3", Ruleset{HandledNet: BindTCP}, 3, ErrABI},
		{"TCP at 4", Ruleset{HandledNet: BindTCP}, 4, nil},
		{"scope at 5", Ruleset{Scoped: Signal}, 5, ErrABI},
		{"UDP at 9", Ruleset{HandledNet: BindUDP}, 9, ErrABI},
		{"any at 0", Ruleset{HandledFS: Execute}, 0, ErrABI},
		{"too many", Ruleset{HandledFS: Execute, Paths: make([]PathRule, maxRules+1)}, 10, ErrRules},
	} {
		if err := tt.r.ValidateFor(tt.abi); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// Everything at once, each by its name.
	err := Ruleset{HandledFS: ReadFile | Truncate, HandledNet: BindUDP, Paths: []PathRule{{Execute, "x"}}}.ValidateFor(2)
	for _, want := range []string{"fs.truncate", "net.bind_udp", `"x"`, "fs.execute"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestString(t *testing.T) {
	r := Ruleset{HandledFS: ReadFile | Refer, HandledNet: BindTCP, Scoped: Signal, Paths: []PathRule{{ReadFile, "/a\n"}}, Ports: []PortRule{{BindTCP, 80}}}
	want := "handles fs.read_file,fs.refer net.bind_tcp, scoped scope.signal\n\"/a\\n\" grants fs.read_file\nport 80 grants net.bind_tcp\n"
	if got := r.String(); got != want {
		t.Errorf("got %q", got)
	}
}

func TestDegrade(t *testing.T) {
	all := Ruleset{
		HandledFS: AllFS, HandledNet: AllNet, Scoped: AllScopes,
		Paths: []PathRule{{ReadFile | Refer, "/a"}, {IoctlDev, "/dev"}}, Ports: []PortRule{{BindTCP, 80}, {BindUDP, 53}},
	}
	for _, tt := range []struct {
		name string
		r    Ruleset
		abi  int
		lost string
	}{
		{"all at 10", all, 10, ""},
		{"all at 9", all, 9, "net.bind_udp 10 0 net.connect_send_udp 10 0"},
		{"all at 5", all, 5, "fs.resolve_unix 9 0 net.bind_udp 10 0 net.connect_send_udp 10 0 scope.abstract_unix_socket 6 0 scope.signal 6 0"},
		{"all at 1", all, 1, "fs.refer 2 1 fs.truncate 3 0 fs.ioctl_dev 5 0 fs.resolve_unix 9 0 net.bind_tcp 4 0 net.connect_tcp 4 0 net.bind_udp 10 0 net.connect_send_udp 10 0 scope.abstract_unix_socket 6 0 scope.signal 6 0"},
		{"no grant of refer at 1", Ruleset{HandledFS: Execute | Refer}, 1, ""},
		{"grant of refer at 1", Ruleset{HandledFS: Execute | Refer, Paths: []PathRule{{Refer, "/"}}}, 1, "fs.refer 2 1"},
		{"refer alone at 1", Ruleset{HandledFS: Refer}, 1, "fs.refer 2 0 fs.change_topology 2 0 ptrace 2 0"},
		{"truncate alone at 2", Ruleset{HandledFS: Truncate}, 2, "fs.refer 3 0 fs.truncate 3 0 fs.change_topology 3 0 ptrace 3 0"},
		{"truncate with a scope at 2", Ruleset{HandledFS: Truncate, Scoped: Signal}, 2, "fs.refer 3 0 fs.truncate 3 0 scope.signal 6 0 fs.change_topology 3 0 ptrace 3 0"},
		{"nothing at 0", Ruleset{HandledFS: Execute}, 0, "fs.execute 1 0 fs.refer 2 0 fs.change_topology 1 0 ptrace 1 0"},
		{"scope at 5", Ruleset{Scoped: Signal}, 5, "scope.signal 6 0 ptrace 6 0"},
	} {
		out, lost := tt.r.Degrade(tt.abi)
		var got []string
		for _, l := range lost {
			got = append(got, fmt.Sprintf("%s %d %d", l.Right, l.ABI, l.Effect))
		}
		if s := strings.Join(got, " "); s != tt.lost {
			t.Errorf("%s: lost %s\nwant %s", tt.name, s, tt.lost)
		}
		if err := out.ValidateFor(tt.abi); err != nil && !out.Empty() {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for l, want := range map[Loss]string{
		{"fs.refer", 2, Refused}:    "fs.refer cannot be granted before ABI 2 and is denied everywhere",
		{"fs.truncate", 3, Allowed}: "fs.truncate is not denied before ABI 3",
	} {
		if l.String() != want {
			t.Errorf("%s", l)
		}
	}
}

// drawRuleset draws a valid rule set on a small tree.
func drawRuleset(t *rapid.T, name string) Ruleset {
	r := Ruleset{
		HandledFS:  AccessFS(rapid.Uint64().Draw(t, name+" fs")) & AllFS,
		HandledNet: AccessNet(rapid.Uint64().Draw(t, name+" net")) & AllNet,
		Scoped:     Scope(rapid.Uint64().Draw(t, name+" scope")) & AllScopes,
	}
	if r.Empty() {
		r.HandledFS = Execute
	}
	for range rapid.IntRange(0, 4).Draw(t, name+" paths") {
		p := PathRule{AccessFS(rapid.Uint64().Draw(t, "access")) & r.HandledFS, drawPath(t)}
		if p.Access != 0 {
			r.Paths = append(r.Paths, p)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, name+" ports") {
		p := PortRule{AccessNet(rapid.Uint64().Draw(t, "access")) & r.HandledNet, rapid.Uint16Range(0, 2).Draw(t, "port")}
		if p.Access != 0 {
			r.Ports = append(r.Ports, p)
		}
	}
	return r
}

func drawPath(t *rapid.T) string {
	return rapid.SampledFrom([]string{"/", "/a", "/a/b", "/a/b/c", "/d", "/d/e"}).Draw(t, "path")
}

// drawRequest draws a request whose answer follows the order of strictness: all but
// moves between folders.
func drawRequest(t *rapid.T, server *Domain) Request {
	p := drawPath(t)
	if p == "/" {
		p = "/x"
	}
	kind := FileKind(rapid.IntRange(0, 6).Draw(t, "kind"))
	b := func(what string) bool { return rapid.Bool().Draw(t, what) }
	switch rapid.IntRange(0, 9).Draw(t, "request") {
	case 0:
		return OpenRequest{Path: p, Kind: kind, Read: b("read"), Write: b("write"), Execute: b("execute"), Truncate: b("truncate")}
	case 1:
		return MakeRequest{p, kind}
	case 2:
		return RemoveRequest{p, kind}
	case 3:
		return TruncateRequest{p}
	case 4:
		return IoctlRequest{p, kind, rapid.SampledFrom([]uint32{0x5421, 0x541b}).Draw(t, "command")}
	case 5:
		return MountRequest{}
	case 6:
		return PortRequest{AccessNet(1) << rapid.IntRange(0, 3).Draw(t, "right"), rapid.Uint16Range(0, 2).Draw(t, "port"), b("unbound")}
	case 7:
		return UnixRequest{Path: rapid.SampledFrom([]string{"", p}).Draw(t, "socket"), Server: server}
	case 8:
		return SignalRequest{Target: server, SameProcess: b("same")}
	}
	return PtraceRequest{server}
}

func enter(t interface{ Fatal(...any) }, d *Domain, sets ...Ruleset) *Domain {
	for _, r := range sets {
		var err error
		if d, err = d.Enter(r); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDegradeKeeps wants a degraded rule set to be valid, to deny nothing that was allowed but
// what is said to be refused, and to allow nothing that was denied but what is said to be lost.
func TestDegradeKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRuleset(t, "r")
		abi := rapid.IntRange(0, MaxABI).Draw(t, "abi")
		out, lost := r.Degrade(abi)
		names := map[string]Effect{}
		for _, l := range lost {
			if _, twice := names[l.Right]; twice || l.ABI <= abi {
				t.Fatalf("loss %s at ABI %d", l, abi)
			}
			names[l.Right] = l.Effect
		}
		if len(lost) == 0 && Compare(r, out) != Equal {
			t.Fatalf("nothing lost, and %s is %s than\n%s", out, Compare(r, out), r)
		}
		var before, after *Domain
		before = enter(t, nil, r)
		if !out.Empty() {
			if err := out.ValidateFor(abi); err != nil {
				t.Fatal(err)
			}
			after = enter(t, nil, out)
		}
		q := drawRequest(t, nil)
		was, is := before.Decide(q), after.Decide(q)
		if was.Allowed && !is.Allowed {
			t.Fatalf("%+v: was allowed, is %s", q, is.Reason())
		}
		if !was.Allowed && is.Allowed && was.Errno != "EINVAL" {
			for _, n := range was.Blockers[0].Rights {
				if e, ok := names[n]; !ok || e != Allowed {
					t.Fatalf("%+v: was %s, is allowed, and %s is not said to be lost: %v", q, was.Reason(), n, lost)
				}
			}
		}
	})
}

// TestCompareOrders wants a rule set that covers another to deny all that the other denies, and
// one that does not to name something that shows it.
func TestCompareOrders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawRuleset(t, "a"), drawRuleset(t, "b")
		if rapid.Bool().Draw(t, "related") {
			// Of two unrelated rule sets seldom one covers the other.
			a = b
			a.HandledFS |= AccessFS(rapid.Uint64().Draw(t, "more")) & AllFS
			a.Paths = a.Paths[:rapid.IntRange(0, len(a.Paths)).Draw(t, "kept")]
		}
		outside := (*Domain)(nil)
		da, db := enter(t, nil, a), enter(t, nil, b)
		looser := a.Looser(b)
		if a.Covers(b) != (len(looser) == 0) {
			t.Fatal("Covers and Looser differ")
		}
		q := drawRequest(t, outside)
		wa, wb := da.Decide(q), db.Decide(q)
		if a.Covers(b) && wa.Allowed && !wb.Allowed {
			t.Fatalf("covers, but %+v is allowed against %s", q, wb.Reason())
		}
		for _, d := range looser {
			if !shows(d, da, db) {
				t.Fatalf("%s: no request shows it\n%s%s", d, a, b)
			}
		}
		switch o := Compare(a, b); {
		case (o == Equal || o == Stricter) != a.Covers(b), (o == Equal || o == Weaker) != b.Covers(a):
			t.Fatalf("order %s", o)
		}
		if Compare(a, a) != Equal || Compare(a, b) == Stricter && Compare(b, a) != Weaker {
			t.Fatal("no order")
		}
	})
}

// shows reports whether a allows and b denies what a difference names.
func shows(d Difference, a, b *Domain) bool {
	object := d.Object
	if !strings.HasPrefix(object, "/") {
		object = ""
	}
	var q Request
	switch right, _ := LookupRight(d.Right); {
	case d.Right == ChangeTopology:
		q = MountRequest{}
	case d.Right == Ptrace:
		q = PtraceRequest{}
	case right.Kind == KindFS:
		if object == "" {
			// Not denied anywhere: somewhere the other has no rule.
			for _, p := range []string{"/", "/a", "/a/b", "/a/b/c", "/d", "/d/e", "/nowhere"} {
				if a.onPath(p, AccessFS(right.Bit)).Allowed && !b.onPath(p, AccessFS(right.Bit)).Allowed {
					return true
				}
			}
			// The other handles it, and grants it on "/": only the order of handling differs.
			return b.granted("/")&AccessFS(right.Bit) != 0
		}
		return a.onPath(object, AccessFS(right.Bit)).Allowed && !b.onPath(object, AccessFS(right.Bit)).Allowed
	case right.Kind == KindNet:
		for port := range uint16(4) {
			if a.onPort(port, AccessNet(right.Bit)).Allowed && !b.onPort(port, AccessNet(right.Bit)).Allowed {
				return true
			}
		}
		return false
	case Scope(right.Bit) == Signal:
		q = SignalRequest{}
	default:
		q = UnixRequest{}
	}
	return a.Decide(q).Allowed && !b.Decide(q).Allowed
}

func TestDecide(t *testing.T) {
	read := Ruleset{HandledFS: ReadFile | WriteFile | Refer | MakeReg | RemoveFile | MakeDir, Paths: []PathRule{{ReadFile, "/srv"}, {Refer | MakeReg | RemoveFile, "/"}}}
	udp := Ruleset{HandledNet: BindUDP | ConnectSendUDP, Ports: []PortRule{{ConnectSendUDP, 53}}}
	bound := Ruleset{HandledNet: BindUDP | ConnectSendUDP, Ports: []PortRule{{ConnectSendUDP, 53}, {BindUDP, 0}}}
	sock := Ruleset{HandledFS: ResolveUnix, Paths: []PathRule{{ResolveUnix, "/run/ok"}}}
	outer := enter(t, nil, sock)
	inner := enter(t, outer, sock)
	sibling := enter(t, outer, sock)
	for _, tt := range []struct {
		name   string
		d      *Domain
		q      Request
		reason string
	}{
		{"no domain", nil, OpenRequest{Path: "/etc", Read: true}, "allowed"},
		{"below a rule", enter(t, nil, read), OpenRequest{Path: "/srv/a", Read: true}, "allowed"},
		{"name alone", enter(t, nil, read), OpenRequest{Path: "/etc/shadow"}, "allowed"},
		{"no prefix of a name", enter(t, nil, read), OpenRequest{Path: "/srv2/a", Read: true}, "EACCES: layer 1 denies fs.read_file on /srv2/a"},
		{"two rights", enter(t, nil, read), OpenRequest{Path: "/x", Read: true, Write: true}, "EACCES: layer 1 denies fs.write_file,fs.read_file on /x"},
		{"two layers", enter(t, nil, read, read), OpenRequest{Path: "/x", Read: true}, "EACCES: layer 2 denies fs.read_file on /x; layer 1 denies fs.read_file on /x"},
		{"gained by the move", enter(t, nil, read), ReparentRequest{Old: "/x/f", New: "/srv/f"}, "EXDEV: layer 1 denies fs.write_file,fs.read_file,fs.make_dir on /x; layer 1 denies fs.write_file,fs.make_dir on /srv"},
		{"lost by the move", enter(t, nil, read), ReparentRequest{Old: "/srv/f", New: "/x/f"}, "allowed"},
		{"a folder", enter(t, nil, read), ReparentRequest{Old: "/srv/d", New: "/x/d", Kind: Directory}, "EACCES: layer 1 denies fs.make_dir on /x"},
		{"exchange with nothing", enter(t, nil, read), ReparentRequest{Old: "/a/f", New: "/b/f", Exchange: true}, "EINVAL"},
		{"a path that is none", enter(t, nil, read), OpenRequest{Path: "x", Read: true}, "EINVAL"},
		{"network layer, files allowed", enter(t, nil, Ruleset{HandledNet: BindTCP}), ReparentRequest{Old: "/a/f", New: "/b/f"}, "allowed"},
		{"network layer inside", enter(t, nil, read, Ruleset{HandledNet: BindTCP}), ReparentRequest{Old: "/a/f", New: "/b/f"}, "EXDEV: layer 2 denies fs.refer on /a; layer 2 denies fs.refer on /b"},
		{"UDP", enter(t, nil, udp), PortRequest{Access: ConnectSendUDP, Port: 53}, "allowed"},
		{"UDP, unbound", enter(t, nil, udp), PortRequest{Access: ConnectSendUDP, Port: 53, Unbound: true}, "EACCES: layer 1 denies net.bind_udp on port 0"},
		{"UDP, unbound, allowed", enter(t, nil, bound), PortRequest{Access: ConnectSendUDP, Port: 53, Unbound: true}, "allowed"},
		{"UDP, other port", enter(t, nil, bound), PortRequest{Access: ConnectSendUDP, Port: 54, Unbound: true}, "EACCES: layer 1 denies net.connect_send_udp on port 54"},
		{"socket of the host", inner, UnixRequest{Path: "/run/x", Server: nil}, "EACCES: layer 2 denies fs.resolve_unix on /run/x; layer 1 denies fs.resolve_unix on /run/x"},
		{"socket allowed", inner, UnixRequest{Path: "/run/ok", Server: nil}, "allowed"},
		{"socket of a sibling", inner, UnixRequest{Path: "/run/x", Server: sibling}, "EACCES: layer 2 denies fs.resolve_unix on /run/x"},
		{"socket of a child", outer, UnixRequest{Path: "/run/x", Server: inner}, "allowed"},
		{"ptrace of a sibling", inner, PtraceRequest{sibling}, "EPERM: layer 2 denies ptrace"},
		{"ptrace of a child", outer, PtraceRequest{inner}, "allowed"},
		{"ptrace of the parent", inner, PtraceRequest{outer}, "EPERM: layer 2 denies ptrace"},
	} {
		if got := tt.d.Decide(tt.q).Reason(); got != tt.reason {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.reason)
		}
	}
	if inner.Parent() != outer || outer.Parent() != nil || inner.Layers() != 2 || (*Domain)(nil).Layers() != 0 {
		t.Error("wrong relations")
	}
	if _, err := outer.Enter(Ruleset{}); !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
}

// TestInnerOnlyTightens wants no layer to allow what one around it denies.
func TestInnerOnlyTightens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outer := enter(t, nil, drawRuleset(t, "outer"))
		inner := enter(t, outer, drawRuleset(t, "inner"))
		var q Request
		if rapid.Bool().Draw(t, "move") {
			from, to := drawPath(t), drawPath(t)
			q = ReparentRequest{Old: path.Join(from, "f"), New: path.Join(to, "g"), Link: rapid.Bool().Draw(t, "link")}
		} else {
			q = drawRequest(t, nil)
		}
		if !outer.Decide(q).Allowed && inner.Decide(q).Allowed {
			t.Fatalf("%+v: %s outside, allowed inside", q, outer.Decide(q).Reason())
		}
	})
}

// FuzzRules reads rights and a path: no input may make a panic, and what is valid
// stays valid for its version, and denies nothing that it grants.
func FuzzRules(f *testing.F) {
	f.Add("fs.read_file,fs.refer", "fs.read_file", "/etc", "/etc/passwd", 7)
	f.Add("fs.refer", "none", "/", "/", 1)
	f.Add("none", "fs.execute", "etc/", "", -1)
	f.Fuzz(func(t *testing.T, handled, granted, rule, asked string, abi int) {
		h, err1 := ParseAccessFS(handled)
		g, err2 := ParseAccessFS(granted)
		if err1 != nil || err2 != nil {
			return
		}
		r := Ruleset{HandledFS: h, Paths: []PathRule{{g, rule}}}
		d, err := (*Domain)(nil).Enter(r)
		if (err == nil) != (r.Validate() == nil) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		out, _ := r.Degrade(abi)
		if !out.Empty() && out.ValidateFor(abi) != nil {
			t.Fatalf("%s", out.ValidateFor(abi))
		}
		got := d.Decide(OpenRequest{Path: asked, Write: true})
		below := validPath(asked) && (rule == "/" || asked == rule || strings.HasPrefix(asked, rule+"/"))
		want := validPath(asked) && (h&WriteFile == 0 || g&WriteFile != 0 && below)
		if got.Allowed != want {
			t.Fatalf("%q under %s: %s", asked, r, got.Reason())
		}
	})
}

func ExampleDomain_Decide() {
	var host *Domain
	web, err := host.Enter(Ruleset{
		HandledFS: ReadFile | WriteFile,
		Paths:     []PathRule{{ReadFile, "/srv"}},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(web.Decide(OpenRequest{Path: "/srv/index.html", Read: true}).Reason())
	fmt.Println(web.Decide(OpenRequest{Path: "/srv/index.html", Write: true}).Reason())
	// Output:
	// allowed
	// EACCES: layer 1 denies fs.write_file on /srv/index.html
}

func ExampleRuleset_Degrade() {
	r := Ruleset{HandledFS: WriteFile | Truncate, Scoped: Signal}
	_, lost := r.Degrade(2)
	for _, l := range lost {
		fmt.Println(l)
	}
	// Output:
	// fs.truncate is not denied before ABI 3
	// scope.signal is not denied before ABI 6
}

func TestRightsIsACopy(t *testing.T) {
	Rights()[0].Name = "x"
	if !slices.ContainsFunc(Rights(), func(r Right) bool { return r.Name == "fs.execute" }) {
		t.Error("the table was changed")
	}
}
