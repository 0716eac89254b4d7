// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// TestStackByBit adds one profile's answer to a stack's, for all values of one bit of
// each field: what comes out is said here without the bit arithmetic.
func TestStackByBit(t *testing.T) {
	const bit = 1 << 9
	value := func(n, i int) uint32 {
		if n>>i&1 != 0 {
			return bit
		}
		return 0
	}
	has := func(v uint32) bool { return v != 0 }
	for n := range 1 << 14 {
		p := Perms{Allow: value(n, 0), Deny: value(n, 1), Audit: value(n, 2), Quiet: value(n, 3), Kill: value(n, 4), Complain: value(n, 5), Prompt: value(n, 6), XIndex: 5}
		q := blob.Perms{Allow: value(n, 7), Deny: value(n, 8), Audit: value(n, 9), Quiet: value(n, 10), Kill: value(n, 11), Complain: value(n, 12), Prompt: value(n, 13)}
		got := p
		got.add(q)
		for _, f := range []struct {
			name      string
			got, want bool
		}{
			{"allow", has(got.Allow), has(p.Allow) && has(q.Allow) && !has(q.Deny)},
			{"deny", has(got.Deny), has(p.Deny) || has(q.Deny)},
			{"audit", has(got.Audit), has(p.Audit) || has(q.Audit) && has(q.Allow)},
			{"quiet", has(got.Quiet), has(p.Quiet) && has(q.Quiet) && !has(q.Allow)},
			{"kill", has(got.Kill), has(p.Kill) || has(q.Kill) && !has(q.Allow)},
			{"complain", has(got.Complain), has(p.Complain) || has(q.Complain) && !has(q.Allow) && !has(q.Deny)},
			{"prompt", has(got.Prompt), has(p.Prompt) || has(q.Prompt) && !has(q.Allow) && !has(q.Deny)},
		} {
			if f.got != f.want {
				t.Fatalf("%+v and %+v: %s is %v", p, q, f.name, f.got)
			}
		}
		if got.XIndex != 5 {
			t.Fatalf("a profile without a transition changes it to %d", got.XIndex)
		}
	}
	p := Perms{XIndex: 5}
	if p.add(blob.Perms{XIndex: 7}); p.XIndex != 7 {
		t.Errorf("transition %d", p.XIndex)
	}
}

// one profile with these rules, and its mode and flags changed.
func profile(t testing.TB, rules string, change func(*blob.Profile)) *blob.Profile {
	t.Helper()
	p := *compiled(t, "profile p { "+rules+" }", compile.Options{}).Blobs()[0]
	if change != nil {
		change(&p)
	}
	return &p
}

func mode(m blob.Mode) func(*blob.Profile) { return func(p *blob.Profile) { p.Mode = m } }

// TestModes: what the mode of a profile makes of an access that a rule allows, that a
// rule denies, and that none is about; alone and in a stack with one that enforces.
func TestModes(t *testing.T) {
	const rules = "/a r, deny /b r, signal send peer=x,"
	enforces := profile(t, "/a r, /b r, /c r, signal,", nil)
	for _, tt := range []struct {
		mode          blob.Mode
		a, b, c       Reason // of /a, /b and /c
		kill, comp, u bool   // of /c
	}{
		{blob.Enforce, ReasonAllowed, ReasonDenied, ReasonNoRule, false, false, false},
		{blob.Kill, ReasonAllowed, ReasonDenied, ReasonNoRule, true, false, false},
		{blob.User, ReasonAllowed, ReasonDenied, ReasonNoRule, false, false, true},
		{blob.Complain, ReasonAllowed, ReasonComplain, ReasonComplain, false, true, false},
		{blob.Unconfined, ReasonUnconfined, ReasonUnconfined, ReasonUnconfined, false, false, false},
	} {
		p := profile(t, rules, mode(tt.mode))
		for path, want := range map[string]Reason{"/a": tt.a, "/b": tt.b, "/c": tt.c} {
			allowed := want == ReasonAllowed || want == ReasonComplain || want == ReasonUnconfined
			d := May([]*blob.Profile{p}, File(path, apparmor.MayRead, true), nil)
			if len(d.Answers) != 1 || d.Allowed != allowed || d.Answers[0].Allowed != allowed || d.Answers[0].Reason != want || d.Answers[0].Profile != p {
				t.Errorf("%s, %s: %v %+v, want %s", tt.mode, path, d.Allowed, d.Answers, want)
			}
			for _, label := range [][]*blob.Profile{{p, enforces}, {enforces, p}} {
				if d := May(label, File(path, apparmor.MayRead, true), nil); d.Allowed != allowed || len(d.Answers) != 2 {
					t.Errorf("%s, %s in a stack: %+v", tt.mode, path, d)
				}
			}
			// The kernel's answer file does not know of complaining: what is not allowed is not.
			q := Query([]*blob.Profile{p}, []byte("\x02"+path))
			if want := path == "/a" || tt.mode == blob.Unconfined; (q.Allow&blob.MayRead != 0) != want {
				t.Errorf("%s, %s: query %+v", tt.mode, path, q)
			}
		}
		q := Query([]*blob.Profile{p}, []byte("\x02/c"))
		if (q.Kill&blob.MayRead != 0) != tt.kill || (q.Complain&blob.MayRead != 0) != tt.comp || (q.Prompt&blob.MayRead != 0) != tt.u {
			t.Errorf("%s: query %+v", tt.mode, q)
		}
		if q := Query([]*blob.Profile{p}, []byte("\x02/a")); tt.mode != blob.Unconfined && (q.Kill|q.Complain|q.Prompt)&blob.MayRead != 0 {
			t.Errorf("%s, allowed: query %+v", tt.mode, q)
		}
		// A capability.
		c := profile(t, "capability chown, deny capability kill,", mode(tt.mode))
		for n, want := range map[int]Reason{0: tt.a, 5: tt.b, 21: tt.c} {
			if d := May([]*blob.Profile{c}, Capability(n), nil); d.Answers[0].Reason != want {
				t.Errorf("%s, capability %d: %+v, want %s", tt.mode, n, d.Answers[0], want)
			}
		}
	}
	// Nothing confines a task without a label.
	for _, r := range []Request{File("/x", apparmor.MayWrite, false), Capability(3), Userns()} {
		if d := May(nil, r, nil); !d.Allowed || d.Answers != nil {
			t.Errorf("%s without a label: %+v", r, d)
		}
	}
	if q := Query(nil, []byte("\x02/x")); q != (Perms{Allow: allPerms, Quiet: allPerms}) {
		t.Errorf("without a label: %+v", q)
	}
	if q := Query([]*blob.Profile{profile(t, "/a r,", mode(blob.Unconfined))}, []byte("\x02/x")); q != (Perms{Allow: allPerms, Quiet: allPerms}) {
		t.Errorf("an unconfined profile: %+v", q)
	}
}

// TestMediation: classes that a policy has and does not have.
func TestMediation(t *testing.T) {
	p := profile(t, "/a r, signal send peer=x,", nil)
	for _, tt := range []struct {
		r    Request
		want Reason
	}{
		{Signal(1, "x", apparmor.SignalSend), ReasonAllowed},
		{Signal(1, "y", apparmor.SignalSend), ReasonNoRule},
		{Signal(1, "x", apparmor.SignalReceive), ReasonNoRule},
		{Signal(1, "x", apparmor.SignalSend|apparmor.SignalReceive), ReasonNoRule},
		{Raw([]byte{1}, 1), ReasonUnmediated},
		{Raw([]byte{77}, 1), ReasonUnmediated},
		{Raw(nil, 1), ReasonUnmediated},
		{Raw([]byte("\x02/a"), blob.MayRead), ReasonAllowed},
		{Raw([]byte("\x02/b"), blob.MayRead), ReasonNoRule},
		{Raw([]byte{0}, 0x400), ReasonNoRule},
	} {
		a := answer(p, tt.r)
		if a.Reason != tt.want || a.Allowed != (tt.want == ReasonAllowed || tt.want == ReasonUnmediated) {
			t.Errorf("%+v: %+v, want %s", tt.r, a, tt.want)
		}
		if a.Allowed != (a.Missing == 0) {
			t.Errorf("%+v: missing %#x", tt.r, a.Missing)
		}
	}
	// Without automata files are refused, and all else is not mediated.
	bare := &blob.Profile{Name: "bare"}
	if a := answer(bare, File("/a", apparmor.MayRead, true)); a.Allowed || a.Reason != ReasonNoRule {
		t.Errorf("no file automaton: %+v", a)
	}
	if a := answer(bare, Signal(1, "x", apparmor.SignalSend)); !a.Allowed || a.Reason != ReasonUnmediated {
		t.Errorf("no policy automaton: %+v", a)
	}
	// Files go on in the policy's automaton where the profile has no other.
	q := *profile(t, "signal,", nil)
	q.File = nil
	if a := answer(&q, File("/a", apparmor.MayRead, true)); a.Allowed {
		t.Errorf("files without an automaton of theirs: %+v", a)
	}
	// What is asked for and not allowed is told bit by bit.
	if a := answer(p, File("/a", apparmor.MayRead|apparmor.MayWrite|apparmor.MayExec, true)); a.Missing != blob.MayWrite|blob.MayExec {
		t.Errorf("missing %#x", a.Missing)
	}
}

// TestLogging: which accesses are logged, and which denials are not.
func TestLogging(t *testing.T) {
	audited := func(p *blob.Profile) { p.Audit = 1 }
	for _, tt := range []struct {
		rules        string
		change       func(*blob.Profile)
		r            Request
		allowed      bool
		audit, quiet bool
		reason       Reason
	}{
		{"audit /a r,", nil, File("/a", apparmor.MayRead, true), true, true, false, ReasonAllowed},
		{"/a r,", nil, File("/a", apparmor.MayRead, true), true, false, false, ReasonAllowed},
		{"audit /a r, /a w,", nil, File("/a", apparmor.MayWrite, true), true, false, false, ReasonAllowed},
		{"audit /a r, /a w,", nil, File("/a", apparmor.MayWrite|apparmor.MayRead, true), true, true, false, ReasonAllowed},
		{"deny /a r,", nil, File("/a", apparmor.MayRead, true), false, false, true, ReasonDenied},
		{"audit deny /a r,", nil, File("/a", apparmor.MayRead, true), false, false, false, ReasonNoRule},
		{"deny /a r,", nil, File("/a", apparmor.MayRead|apparmor.MayWrite, true), false, false, false, ReasonNoRule},
		{"", nil, File("/a", apparmor.MayRead, true), false, false, false, ReasonNoRule},
		{"/a r,", audited, File("/a", apparmor.MayRead, true), true, true, false, ReasonAllowed},
		{"deny /a r,", audited, File("/a", apparmor.MayRead, true), false, false, false, ReasonNoRule},
		{"audit capability chown,", nil, Capability(0), true, true, false, ReasonAllowed},
		{"capability chown,", nil, Capability(0), true, false, false, ReasonAllowed},
		{"deny capability chown,", nil, Capability(0), false, false, true, ReasonDenied},
		{"", nil, Capability(40), false, false, false, ReasonNoRule},
	} {
		a := answer(profile(t, tt.rules, tt.change), tt.r)
		if a.Allowed != tt.allowed || a.Audit != tt.audit || a.Quiet != tt.quiet || a.Reason != tt.reason {
			t.Errorf("%q (%s): %+v, want allowed %v, audit %v, quiet %v, %s", tt.rules, tt.r, a, tt.allowed, tt.audit, tt.quiet, tt.reason)
		}
	}
	for audit, want := range map[uint32]Perms{0: {Allow: blob.MayRead}, 1: {Allow: blob.MayRead, Audit: blob.MayRead}} {
		q := Query([]*blob.Profile{profile(t, "/a r,", func(p *blob.Profile) { p.Audit = audit })}, []byte("\x02/a"))
		if q.Allow&blob.MayRead != want.Allow || q.Audit&blob.MayRead != want.Audit {
			t.Errorf("audit %d: %+v", audit, q)
		}
	}
}

// TestLinks: the pair, the subset, and what is asked of either file.
func TestLinks(t *testing.T) {
	for _, tt := range []struct {
		rules   string
		reason  Reason
		missing uint32
	}{
		{"/l rwl -> /t, /t rw,", ReasonAllowed, 0},
		{"link /l -> /t,", ReasonAllowed, 0},
		{"link /l -> /t, /l rw,", ReasonAllowed, 0},
		{"link subset /l -> /t, /l rw, /t rw,", ReasonAllowed, 0},
		{"link subset /l -> /t, /l r, /t rw,", ReasonAllowed, 0},
		{"link subset /l -> /t, /l rw, /t r,", ReasonLinkSubset, blob.MayWrite},
		{"link subset /l -> /t, /l ix, /t ix,", ReasonAllowed, 0},
		{"link subset /l -> /t, /l px, /t ix,", ReasonLinkSubset, blob.MayExec},
		{"link subset /l -> /t, /t ix,", ReasonAllowed, 0},
		{"link /l -> /u,", ReasonLinkTarget, blob.MayLink},
		{"link /k -> /t,", ReasonNoRule, blob.MayLink},
		{"deny link /l -> /t,", ReasonDenied, blob.MayLink},
	} {
		for _, owner := range []bool{true, false} {
			a := answer(profile(t, tt.rules, nil), Link("/l", "/t", owner))
			missing := a.Missing & (blob.MayLink | blob.MayWrite | blob.MayExec)
			if tt.reason == ReasonLinkSubset && !owner {
				// The reference gives the mark of a subset to the owner's half alone.
				if a.Reason != ReasonAllowed {
					t.Errorf("%s of another: %+v", tt.rules, a)
				}
				continue
			}
			if a.Reason != tt.reason && (tt.reason != ReasonDenied || a.Allowed) || a.Allowed != (tt.reason == ReasonAllowed) || missing != tt.missing {
				t.Errorf("%s: %+v, want %s, missing %#x", tt.rules, a, tt.reason, tt.missing)
			}
		}
	}
	for rules, want := range map[string]bool{"audit link /l -> /t,": true, "link /l -> /t,": false} {
		if a := answer(profile(t, rules, nil), Link("/l", "/t", true)); a.Audit != want || a.Quiet {
			t.Errorf("%s: %+v", rules, a)
		}
	}
	p := profile(t, "owner link /l -> /t,", nil)
	if a := answer(p, Link("/l", "/t", true)); !a.Allowed {
		t.Errorf("the owner: %+v", a)
	}
	if a := answer(p, Link("/l", "/t", false)); a.Allowed {
		t.Errorf("another: %+v", a)
	}
}

// TestRequests: the query and the bits of each kind of request.
func TestRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		got    Request
		query  string
		perms  uint32
		packed uint32
	}{
		"read":            {File("/a", apparmor.MayRead, true), "\x02/a", blob.MayRead, apparmor.MayRead},
		"read of another": {File("/a", apparmor.MayRead, false), "\x02/a", blob.MayRead, apparmor.MayRead << 14},
		"all":             {File("/a", apparmor.MayRead|apparmor.MayWrite|apparmor.MayExec|apparmor.MayAppend, true), "\x02/a", 0xf, 0xf},
		"link":            {File("/a", apparmor.MayLink, true), "\x02/a", blob.MayLink, apparmor.MayLink},
		"lock":            {File("/a", apparmor.MayLock, true), "\x02/a", blob.MayLock, apparmor.MayLock},
		"mmap":            {File("/a", apparmor.MayMmap, true), "\x02/a", blob.MayMmap, apparmor.MayMmap},
		"link to":         {Link("/a", "/t", true), "\x02/a", blob.MayLink, apparmor.MayLink},
		"another's link":  {Link("/a", "/t", false), "\x02/a", blob.MayLink, apparmor.MayLink << 14},
		"change":          {ChangeProfile("q", ""), "\x02q", blob.MayChangeProfile, 1 << 31},
		"change on exec":  {ChangeProfile("q", "/x"), "\x02/x\x00q", blob.MayOnexec, 1 << 30},
		"network":         {Network(apparmor.ClassNetV8, 0x102, 3, apparmor.NetCreate), string([]byte{byte(apparmor.ClassNetV8), 1, 2, 0, 3}), apparmor.NetCreate, packNet(apparmor.NetCreate)},
		"signal":          {Signal(9, "q", apparmor.SignalSend), string([]byte{byte(apparmor.ClassSignal), 9}) + "q", apparmor.SignalSend, apparmor.SignalSend},
		"ptrace":          {Ptrace("q", apparmor.PtraceRead), string([]byte{byte(apparmor.ClassLabel), byte(apparmor.ClassPtrace)}) + "q", apparmor.PtraceRead, apparmor.PtraceRead},
		"mount":           {Mount("/d", "/m", "ext4", 1<<0|1<<12|1<<31), string(byte(apparmor.ClassMount)) + "/m\x00/d\x00ext4\x00\x01\x0d\x20", apparmor.MayMount, apparmor.MayMount},
		"plain mount":     {Mount("/d", "/m", "", 0), string(byte(apparmor.ClassMount)) + "/m\x00/d\x00\x00", apparmor.MayMount, apparmor.MayMount},
		"umount":          {Umount("/m"), string(byte(apparmor.ClassMount)) + "/m", apparmor.MayUmount, apparmor.MayUmount},
		"pivot":           {PivotRoot("/n", "/o"), string(byte(apparmor.ClassMount)) + "/n\x00/o", apparmor.MayPivotRoot, apparmor.MayPivotRoot},
		"bus send":        {DBus(apparmor.DBusSend, "b", "n", "p", "/o", "i", "m"), string([]byte{byte(apparmor.ClassDBus)}) + "b\x00n\x00p\x00/o\x00i\x00m", apparmor.DBusSend, apparmor.DBusSend},
		"bus bind":        {DBus(apparmor.DBusBind, "b", "n", "p", "/o", "i", "m"), string([]byte{byte(apparmor.ClassDBus)}) + "b\x00n", apparmor.DBusBind, apparmor.DBusBind},
		"bus listen":      {DBus(apparmor.DBusEavesdrop, "b", "n", "p", "/o", "i", "m"), string([]byte{byte(apparmor.ClassDBus)}) + "b", apparmor.DBusEavesdrop, apparmor.DBusEavesdrop},
		"userns":          {Userns(), string(byte(apparmor.ClassUserns)), apparmor.UsernsCreate, apparmor.UsernsCreate},
		"raw":             {Raw([]byte("\x07x"), 5), "\x07x", 5, 5},
	} {
		if string(tt.got.query) != tt.query || tt.got.perms != tt.perms || tt.got.packed != tt.packed {
			t.Errorf("%s: %q %#x %#x, want %q %#x %#x", name, tt.got.query, tt.got.perms, tt.got.packed, tt.query, tt.perms, tt.packed)
		}
	}
	for in, want := range map[uint32]uint32{0x7f: 0x7f, 0x100: 0x4000, 0x200: 0x8000, 0x100000: 0x10000, 0x400000: 0x40000, 0x1000000: 0x80000, 0x2000000: 0x100000, 0x80: 0, 1 << 31: 0, 0x800000: 0} {
		if got := packNet(in); got != want {
			t.Errorf("network bits %#x: %#x, want %#x", in, got, want)
		}
	}
	// Each bit of a request is decided by itself: the packed ones name the rules.
	if !File("/a", apparmor.MayRead, true).owner || File("/a", 0, false).owner || !Link("", "", true).owner || Link("", "", false).owner || !ChangeProfile("q", "").owner || !ChangeProfile("q", "/x").owner || !Raw(nil, 0).owner {
		t.Error("owner")
	}
}

// TestWords: requests and queries in words.
func TestWords(t *testing.T) {
	class := func(c apparmor.Class, rest string) []byte { return append([]byte{byte(c)}, rest...) }
	for _, tt := range []struct{ got, want string }{
		{File("/a", apparmor.MayRead|apparmor.MayExec, true).String(), "exec, read /a"},
		{File("/a", apparmor.MayWrite|apparmor.MayAppend, true).String(), "write /a"},
		{File("/a", apparmor.MayAppend, true).String(), "append /a"},
		{File("/a", apparmor.MayLink|apparmor.MayLock|apparmor.MayMmap, true).String(), "link, lock, mmap /a"},
		{File("/\x1f", apparmor.MayRead, true).String(), `read "/\x1f"`},
		{File("/ ~", apparmor.MayRead, true).String(), "read / ~"},
		{File("/\x7f", apparmor.MayRead, true).String(), `read "/\x7f"`},
		{ChangeProfile("q", "").String(), "change_profile q"},
		{ChangeProfile("q", "/x").String(), `change_profile on exec "/x\x00q"`},
		{Capability(21).String(), "capability sys_admin"},
		{Link("/a", "/b", true).String(), "link /a -> /b"},
		{Signal(9, "q", apparmor.SignalSend).String(), "signal (send) set=kill peer=q"},
		{Signal(9, "q", apparmor.SignalSend|apparmor.SignalReceive).String(), "signal set=kill peer=q"},
		{Describe(nil, 0), "nothing"},
		{Describe([]byte("\x02/a"), 0), "file /a"},
		{Describe(class(apparmor.ClassNetV8, "\x00\x02\x00\x01"), apparmor.NetCreate|apparmor.NetBind), "network (create,bind) inet stream"},
		{Describe(class(apparmor.ClassNetV9, "\x00\x0a\x00\x0aab"), 0), "network inet6 packet ab"},
		{Describe(class(apparmor.ClassNetwork, "\x7f\xff\x00\x07"), 0), "network 32767 7"},
		{Describe(class(apparmor.ClassNetV8, "\x00\x02\x00"), 0), fmt.Sprintf("class %d %q", apparmor.ClassNetV8, "\x00\x02\x00")},
		{Describe(class(apparmor.ClassSignal, ""), 0), fmt.Sprintf("class %d %q", apparmor.ClassSignal, "")},
		{Describe(class(apparmor.ClassSignal, "\x01"), 0), "signal set=hup peer="},
		{Describe(class(apparmor.ClassPtrace, "q"), apparmor.PtraceRead), "ptrace (read) peer=q"},
		{Describe(class(apparmor.ClassLabel, string(byte(apparmor.ClassPtrace))+"q"), apparmor.PtraceTrace), "ptrace (trace) peer=q"},
		{Describe(class(apparmor.ClassLabel, string(byte(apparmor.ClassSignal))+"q"), apparmor.SignalSend), "signal (send) peer=q"},
		{Describe(class(apparmor.ClassLabel, "\x01q"), 0), fmt.Sprintf("class %d %q", apparmor.ClassLabel, "\x01q")},
		{Describe(class(apparmor.ClassLabel, ""), 0), fmt.Sprintf("class %d %q", apparmor.ClassLabel, "")},
		{Describe(class(apparmor.ClassMount, "/n\x00/o"), apparmor.MayPivotRoot), "pivot_root oldroot=/o /n"},
		{Describe(class(apparmor.ClassMount, "/n\x00/o"), 0), fmt.Sprintf("class %d %q", apparmor.ClassMount, "/n\x00/o")},
		{Describe(class(apparmor.ClassMount, "/n"), apparmor.MayPivotRoot), "umount /n"},
		{Describe(class(apparmor.ClassMount, "/m\x00/d\x00tmpfs\x00"), 0), "mount fstype=tmpfs /d -> /m"},
		{Describe(class(apparmor.ClassMount, "/m\x00/d\x00tmpfs\x00\x01\x0c\x0e\x20\x17"), 0), "mount options=(ro,nodiratime,move,nouser,22) fstype=tmpfs /d -> /m"},
		{Describe(class(apparmor.ClassDBus, "b\x00n\x00p\x00/o\x00i\x00m\x00more"), apparmor.DBusSend), "dbus (send) bus=b name=n label=p path=/o interface=i member=m"},
		{Describe(class(apparmor.ClassDBus, "b"), 0), "dbus bus=b"},
		{Describe(class(apparmor.ClassUserns, ""), 0), "userns create"},
		{Describe(class(apparmor.ClassIOUring, "x"), 0), "io_uring x"},
		{Describe(class(apparmor.ClassPosixMqueue, "x"), 0), "mqueue x"},
		{Describe(class(apparmor.ClassSysvMqueue, "x"), 0), "mqueue x"},
		{Describe([]byte{200, 'x'}, 0), `class 200 "x"`},
		{signalName(0), "unknown"},
		{signalName(35), "exists"},
		{signalName(36), "36"},
		{signalName(127), "127"},
		{signalName(128), "rtmin+0"},
		{signalName(130), "rtmin+2"},
		{className(2), "file"},
		{className(250), "class 250"},
		{capNames(1 | 1<<21 | 1<<63), "chown, sys_admin, 63"},
		{ReasonComplain.String(), "would be denied, but the profile is in complain mode"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestTransitions: exec transitions in words.
func TestTransitions(t *testing.T) {
	p := &blob.Profile{File: &blob.Automaton{XTable: []string{"a", "b"}}}
	for x, want := range map[uint32]string{
		0:                                "",
		blob.XUnsafe:                     "",
		blob.XInherit:                    "under the same profile",
		blob.XUnconfined:                 "unconfined",
		blob.XInherit | blob.XUnsafe:     "under the same profile, with the environment as it is",
		blob.XInherit | blob.XUnconfined: "under the same profile",
		blob.XName:                       "to the profile that attaches to the file",
		blob.XName | blob.XChild:         "to the child profile that attaches to the file",
		blob.XName | blob.XInherit:       "to the profile that attaches to the file, else under the same profile",
		blob.XName | blob.XUnconfined:    "to the profile that attaches to the file, else unconfined",
		blob.XTable:                      "to the profile a",
		blob.XTable | 1:                  "to the profile b",
		blob.XTable | 2:                  "to a profile that the policy does not name",
		blob.XTable | 1 | blob.XUnsafe:   "to the profile b, with the environment as it is",
		blob.XTable | blob.XInherit:      "to the profile a, else under the same profile",
		blob.XTable | 1 | blob.XInherit | blob.XUnconfined: "to the profile b, else under the same profile, else unconfined",
	} {
		if got := Transition(p, x); got != want {
			t.Errorf("%#x: %q, want %q", x, got, want)
		}
	}
	if got := Transition(&blob.Profile{}, blob.XTable); got != "to a profile that the policy does not name" {
		t.Errorf("without an automaton: %q", got)
	}
	c := profile(t, "/x Px -> q, /r r,", nil)
	if a := answer(c, File("/x", apparmor.MayExec, true)); a.Transition != "to the profile q" {
		t.Errorf("%+v", a)
	}
	if a := answer(c, File("/r", apparmor.MayRead, true)); a.Transition != "" {
		t.Errorf("%+v", a)
	}
}

// TestNames: how labels name profiles.
func TestNames(t *testing.T) {
	a, b, again := &blob.Profile{Name: "a"}, &blob.Profile{Name: "b", Namespace: "ns"}, &blob.Profile{Name: "a", Flags: 7}
	set := NewSet(a, b, again)
	if !slices.Equal(set.Names(), []string{"a", ":ns:b"}) {
		t.Errorf("names %q", set.Names())
	}
	for name, want := range map[string]*blob.Profile{"a": again, ":ns:b": b, ":ns://b": b, "b": nil, ":ns:a": nil, ":ns": nil, "": nil, ":": nil} {
		if p, ok := set.Profile(name); p != want || ok != (want != nil) {
			t.Errorf("%q: %v, %v", name, p, ok)
		}
	}
	for label, want := range map[string][]*blob.Profile{
		"a": {again}, "a//&:ns:b": {again, b}, ":ns://b//&a": {b, again}, "&a": {again}, "unconfined": nil, ":ns:unconfined": nil, "a//&unconfined": {again}, ":ns:unconfined//&a": {again},
	} {
		if got, err := set.Label(label); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", label, got, err)
		}
	}
	for _, label := range []string{"", "c", "a//&c", "unconfined2", "xunconfined"} {
		if got, err := set.Label(label); !errors.Is(err, ErrNoProfile) || got != nil {
			t.Errorf("%q: %v, %v", label, got, err)
		}
	}
}

// TestAttachmentOrder: exact names first, then the longest match, then the order given.
func TestAttachmentOrder(t *testing.T) {
	set := NewSet(compiled(t, "profile d /usr/bin/a* { }\nprofile e /usr/bin/a* { }\nprofile a /usr/** { }\nprofile b /usr/bin/* { }\nprofile c /usr/bin/abc* { }\n/usr/bin/abc { }\nprofile plain { }", compile.Options{}).Blobs()...)
	for path, want := range map[string][]string{
		"/usr/bin/abc": {"/usr/bin/abc", "c", "b", "d", "e", "a"}, "/usr/bin/ab": {"b", "d", "e", "a"}, "/usr/x/y": {"a"}, "/bin/abc": nil, "plain": {"plain"},
	} {
		var names []string
		for _, p := range set.Attachments(path) {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q, want %q", path, names, want)
		}
	}
}

// explainer says that one rule decided everything, and notes what it was asked.
type explainer struct {
	rule  *apparmor.ResolvedRule
	asked *[]string
}

func (e explainer) Deciding(kind blob.Kind, input []byte, bits uint32) []*apparmor.ResolvedRule {
	*e.asked = append(*e.asked, fmt.Sprintf("%d %q %#x", kind, input, bits))
	return []*apparmor.ResolvedRule{e.rule}
}

func (e explainer) DecidingCapability(n int) []*apparmor.ResolvedRule {
	*e.asked = append(*e.asked, fmt.Sprintf("capability %d", n))
	return []*apparmor.ResolvedRule{e.rule}
}

// TestExplainers: what the explainer of each profile is asked, and what its answer changes.
func TestExplainers(t *testing.T) {
	p := profile(t, "/a r, link /l -> /t, signal send,", nil)
	deny, allow := &apparmor.ResolvedRule{Mode: apparmor.ModeDeny}, &apparmor.ResolvedRule{}
	for _, tt := range []struct {
		r      Request
		asked  string
		denied Reason // with a rule that denies
	}{
		{File("/a", apparmor.MayRead, true), fmt.Sprintf(`%d "/a" %#x`, blob.KindFile, apparmor.MayRead), ReasonAllowed},
		{File("/b", apparmor.MayRead, false), fmt.Sprintf(`%d "/b" %#x`, blob.KindFile, apparmor.MayRead<<14), ReasonDenied},
		{Link("/l", "/t", true), fmt.Sprintf(`%d "/l\x00/t" %#x`, blob.KindFile, apparmor.MayLink), ReasonAllowed},
		{Link("/k", "/t", true), fmt.Sprintf(`%d "/k" %#x`, blob.KindFile, apparmor.MayLink), ReasonDenied},
		{Signal(1, "q", apparmor.SignalSend), fmt.Sprintf(`%d "%c\x01q" %#x`, blob.KindPolicy, apparmor.ClassSignal, apparmor.SignalSend), ReasonAllowed},
		{Capability(3), "capability 3", ReasonDenied},
	} {
		for _, rule := range []*apparmor.ResolvedRule{deny, allow} {
			var asked []string
			d := May([]*blob.Profile{p}, tt.r, func(q *blob.Profile) Explainer {
				if q != p {
					t.Errorf("asked about %v", q)
				}
				return explainer{rule, &asked}
			})
			want := tt.denied
			if rule == allow && want == ReasonDenied {
				want = ReasonNoRule
			}
			if a := d.Answers[0]; a.Reason != want || !reflect.DeepEqual(a.Rules, []*apparmor.ResolvedRule{rule}) {
				t.Errorf("%s: %+v, want %s", tt.r, a, want)
			}
			ok := len(asked) == 1 && (asked[0] == tt.asked || strings.HasPrefix(tt.asked, fmt.Sprint(int(blob.KindPolicy))) && strings.Contains(asked[0], `\x01q`))
			if !ok {
				t.Errorf("%s: asked %q, want %q", tt.r, asked, tt.asked)
			}
		}
		if d := May([]*blob.Profile{p}, tt.r, func(*blob.Profile) Explainer { return nil }); d.Answers[0].Rules != nil {
			t.Errorf("%s: rules without a profile", tt.r)
		}
	}
}

// TestSameAsEach compares the view of a stack with asking each profile by itself, on
// strings near the rules and for each mode.
func TestSameAsEach(t *testing.T) {
	texts := []string{"/a/** r, deny /a/b r, owner /o rw,", "/a/* rw, audit /a/c w, signal send peer=x,", "", "/a/b r, /o r, signal,"}
	paths := []string{"/a", "/a/", "/a/b", "/a/c", "/a/b/c", "/o", "/x"}
	for i, x := range texts {
		for j, y := range texts {
			for _, m := range []blob.Mode{blob.Enforce, blob.Unconfined} {
				label := []*blob.Profile{profile(t, x, nil), profile(t, y, mode(m))}
				for _, which := range []int{ownerView, otherView, policyView} {
					v, err := stackViews(label, which)
					if err != nil {
						t.Fatal(err)
					}
					inputs := paths
					if which == policyView {
						inputs = []string{string([]byte{byte(apparmor.ClassSignal), 1}) + "x", string([]byte{byte(apparmor.ClassSignal), 1}) + "y", "\x4dx"}
					}
					for _, in := range inputs {
						s := uint32(dfa.Start)
						for _, c := range []byte(in) {
							s = v.d.Next(s, int(c))
						}
						got := v.perms[v.d.Label[s]]
						query := []byte(in)
						if which != policyView {
							query = append([]byte{fileClass}, in...)
						}
						want := QueryAs(label, query, which != otherView)
						if got.Allow&^got.Deny != want.Allow || which != policyView && m != blob.Unconfined && (got.Audit != want.Audit || got.Quiet != want.Quiet) {
							t.Errorf("%d over %d (%s), view %d, %q: %+v, want %+v", i, j, m, which, in, got, want)
						}
					}
				}
			}
		}
	}
	// No profile confines.
	v, err := stackViews([]*blob.Profile{profile(t, "", mode(blob.Unconfined))}, ownerView)
	if err != nil || v.perms[v.d.Label[v.d.Next(dfa.Start, '/')]].Allow != allPerms {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestDiffs: each kind of difference, in both directions.
func TestDiffs(t *testing.T) {
	for _, tt := range []struct {
		a, b func(*blob.Profile)
		kind string
		want string // from a to b
		back string
	}{
		{nil, mode(blob.Complain), "mode", "enforce becomes complain", "complain becomes enforce"},
		{nil, func(p *blob.Profile) { p.Flags = 4 }, "flags", "flags 0x0 audit 0 path flags 0x10000 become flags 0x4 audit 0 path flags 0x10000", "flags 0x4 audit 0"},
		{nil, func(p *blob.Profile) { p.Audit = 1 }, "flags", "become flags 0x0 audit 1", "audit 1 path"},
		{nil, func(p *blob.Profile) { p.HasPathFlags, p.PathFlags = true, 0x20000 }, "flags", "become flags 0x0 audit 0 path flags 0x20000", "path flags 0x20000 become"},
		{nil, func(p *blob.Profile) { p.Disconnected = "/x" }, "flags", "flags", "flags"},
		{nil, func(p *blob.Profile) { p.Caps.Audit = 1 }, "capabilities", "the second logs chown", "the second no longer logs chown"},
		{nil, func(p *blob.Profile) { p.Caps.Quiet = 2 }, "capabilities", "the second keeps quiet about dac_override", "the second no longer keeps quiet about dac_override"},
		{nil, func(p *blob.Profile) { p.Caps.Allow = 1 << 40 }, "capabilities", "the second allows checkpoint_restore", "the second no longer allows checkpoint_restore"},
		{nil, func(p *blob.Profile) {
			p.RlimitMask, p.Rlimits = 1<<15, append(make([]uint64, 15), apparmor.RlimitInfinity)
		}, "rlimits", "limit 15: not set becomes infinity", "limit 15: infinity becomes not set"},
		{nil, func(p *blob.Profile) { p.RlimitMask, p.Rlimits = 1, []uint64{9} }, "rlimits", "limit 0: not set becomes 9", "limit 0: 9 becomes not set"},
		{nil, func(p *blob.Profile) { p.RlimitMask = 1 }, "", "", ""},
	} {
		a, b := profile(t, "/a r,", tt.a), profile(t, "/a r,", tt.b)
		for i, want := range []string{tt.want, tt.back} {
			x, y := a, b
			if i == 1 {
				x, y = b, a
			}
			got, err := DiffProfiles(x, y)
			if err != nil {
				t.Fatal(err)
			}
			if want == "" && len(got) == 0 {
				continue
			}
			if len(got) != 1 || got[0].Kind != tt.kind || !strings.Contains(got[0].Text, want) || got[0].Profile != "p" {
				t.Errorf("%+v, want %s: %s", got, tt.kind, want)
			}
		}
	}
	// The default path flags are the same as no path flags.
	if got, err := DiffProfiles(profile(t, "", nil), profile(t, "", func(p *blob.Profile) { p.HasPathFlags, p.PathFlags = true, 0x10000 })); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
	// Two unconfined profiles decide alike, whatever their rules.
	if got, err := DiffProfiles(profile(t, "/a r,", mode(blob.Unconfined)), profile(t, "/a w,", mode(blob.Unconfined))); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DiffProfiles(profile(t, "/a r,", nil), profile(t, "/a w,", mode(blob.Unconfined))); err != nil || len(got) < 2 {
		t.Errorf("%+v, %v", got, err)
	}

	// Sets: profiles of one of them alone, in the order of names.
	one := NewSet(&blob.Profile{Name: "b"}, &blob.Profile{Name: "z"})
	two := NewSet(&blob.Profile{Name: "z"}, &blob.Profile{Name: "a"})
	got, err := Diff(one, two)
	want := []Change{{Profile: "a", Kind: "profile", Text: "only the second policy has it"}, {Profile: "b", Kind: "profile", Text: "only the first policy has it"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}

	for _, tt := range []struct {
		a, b  string
		kinds map[string]string // kind → the access and what is gained or lost
	}{
		{"/a r,", "/a rw,", map[string]string{"file": "\x02/a +a"}},
		{"/a rw,", "/a r,", map[string]string{"file": "\x02/a -a"}},
		{"/a r, /bb r,", "/cc r,", map[string]string{"file": "\x02/a -4"}},
		{"owner /a r,", "owner /a w,", map[string]string{"file": "\x02/a +a"}},
		{"/a r,", "owner /a r, /b r,", map[string]string{"file": "\x02/b +4", "file-other": "\x02/a -4"}},
		{"audit /a r,", "/a r,", map[string]string{"file": "\x02/a"}},
		{"deny /a r,", "", map[string]string{"file": "\x02/a"}},
		{"signal send peer=q,", "signal send peer=q, signal receive peer=r,", map[string]string{"signal": ""}},
		{"", "network inet stream,", map[string]string{"network": ""}},
		{"mount /a -> /b,", "mount /a -> /c,", map[string]string{"mount": ""}},
	} {
		changes, err := DiffProfiles(profile(t, tt.a, nil), profile(t, tt.b, nil))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, c := range changes {
			want, ok := tt.kinds[c.Kind]
			if !ok {
				t.Errorf("%s against %s: %+v", tt.a, tt.b, c)
				continue
			}
			first := !seen[c.Kind]
			seen[c.Kind] = true
			if !first || want == "" {
				continue
			}
			got := string(c.Query)
			if n := c.Gained &^ (blob.MayGetattr | blob.MayOpen); n != 0 {
				got += fmt.Sprintf(" +%x", n&0xf)
			} else if n := c.Lost &^ (blob.MayGetattr | blob.MayOpen); n != 0 {
				got += fmt.Sprintf(" -%x", n&0xf)
			}
			if got != want {
				t.Errorf("%s against %s: %q (%+v), want %q", tt.a, tt.b, got, c, want)
			}
		}
		for kind := range tt.kinds {
			if !seen[kind] {
				t.Errorf("%s against %s: nothing of %s in %+v", tt.a, tt.b, kind, changes)
			}
		}
	}
	// Attachments.
	attach := func(text string) *blob.Profile {
		return compiled(t, "profile p "+text+" { }", compile.Options{}).Blobs()[0]
	}
	for _, tt := range []struct{ a, b, want string }{
		{"", "", ""},
		{"/x*", "/x*", ""},
		{"", "/x*", "the second attaches to /x"},
		{"/x*", "", "the second no longer attaches to /x"},
		{"/x*", "/xy*", "the second no longer attaches to /x"},
		{"/xy*", "/x*", "the second attaches to /x"},
	} {
		c, err := diffAttachment("p", attach(tt.a), attach(tt.b))
		if err != nil || (c == nil) != (tt.want == "") || c != nil && (c.Text != tt.want || c.Kind != "attachment" || c.Profile != "p") {
			t.Errorf("%q against %q: %+v, %v", tt.a, tt.b, c, err)
		}
	}
}

// TestQuestions: what can be asked, and what the answer names.
func TestQuestions(t *testing.T) {
	set := compiled(t, sample, compile.Options{}).Blobs()
	label := set[:1]
	for _, op := range []string{"link /l/* -> /etc/passwd", "link /l/a -> /etc/*", "change_profile -> q*", "change_profile /bin/* -> q"} {
		if v, err := Check(label, want(t, op), true, nil); err == nil || !strings.Contains(err.Error(), "without wildcards") {
			t.Errorf("%s: %+v, %v", op, v, err)
		}
	}
	for op, text := range map[string]string{
		"link /l/a -> /etc/passwd": "link /l/a -> /etc/passwd", `/etc/a\*b r`: `read /etc/a*b`, `change_profile -> q\[x`: "change_profile q[x",
	} {
		if v, err := Check(label, want(t, op), true, nil); err != nil || v.Text != text {
			t.Errorf("%s: %+v, %v", op, v, err)
		}
	}
	if v, err := Check(label, &compile.Wanted{}, true, nil); err != nil || !v.Allowed || v.Text != "the target does not mediate this" {
		t.Errorf("nothing: %+v, %v", v, err)
	}
	for in, want := range map[string]string{`/a`: "/a", `/a\*`: "/a*", `/a\\b`: `/a\b`, `/a\x`: `/a\x`} {
		if got := plain(in); got != want && in != `/a\x` {
			t.Errorf("%s: %q", in, got)
		}
	}
	for in, want := range map[string]bool{"/a": false, "/a*": true, "/a?": true, "/{a,b}": true, `/a\*`: false, "/[ab]": true, "/[": true} {
		if got := wildcards(in); got != want {
			t.Errorf("%s: wildcards %v", in, got)
		}
	}
}

// TestSeveral: of several things that are wanted, the first refused one is named.
func TestSeveral(t *testing.T) {
	label := compiled(t, sample, compile.Options{}).Blobs()[:1]
	for op, text := range map[string]string{
		"capability chown, /etc/x w":                             "write /etc/x",
		"capability mknod, /etc/x w":                             "capability mknod",
		"capability chown, capability mknod":                     "capability mknod",
		"capability chown, link /l/a -> /usr/x":                  "link /l/a -> /usr/x",
		"link /l/a -> /etc/shadow, /etc/x w":                     "link /l/a -> /etc/shadow",
		"change_profile -> r, /etc/x w":                          "change_profile r",
		"change_profile /bin/x -> q, /etc/x w":                   "write /etc/x",
		"/etc/x w, signal send set=hup peer=q":                   "write /etc/x",
		"/etc/passwd r, signal send set=hup peer=q":              "signal (send) set=hup peer=q",
		"capability chown, /etc/passwd r, umount":                "",
		"signal send set=hup peer=q, ptrace trace peer=/usr/bin": "",
	} {
		v, err := Check(label, want(t, op), true, nil)
		if err != nil || v.Allowed || v.Decision.Allowed || text != "" && v.Text != text {
			t.Errorf("%s: %+v, %v; want %q", op, v, err, text)
		}
	}
	for op, text := range map[string]string{
		"capability chown, /etc/passwd r": "read /etc/passwd", "/etc/passwd r, signal send set=term peer=q": "signal (send) set=term peer=q", "capability chown": "capability chown",
	} {
		if v, err := Check(label, want(t, op), true, nil); err != nil || !v.Allowed || v.Text != text {
			t.Errorf("%s: %+v, %v; want %q", op, v, err, text)
		}
	}
	// Files of another: only what the rules give to all.
	if v, err := Check(label, want(t, "/etc/passwd r"), false, nil); err != nil || !v.Allowed {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestOnlyExec: a transition is told of what is executed, and of nothing else.
func TestOnlyExec(t *testing.T) {
	p := profile(t, "/x rPx -> q, link /l -> /**, deny link /l -> /t,", nil)
	for perms, want := range map[uint32]string{apparmor.MayRead: "", apparmor.MayExec: "to the profile q", apparmor.MayRead | apparmor.MayExec: "to the profile q"} {
		if a := answer(p, File("/x", perms, true)); a.Transition != want || !a.Allowed {
			t.Errorf("%#x: %+v", perms, a)
		}
	}
	if a := answer(p, Link("/l", "/t", true)); a.Allowed || !a.Quiet || a.Reason != ReasonLinkTarget {
		t.Errorf("a denied pair: %+v", a)
	}
	if a := answer(profile(t, "link /l -> /u,", nil), Link("/l", "/t", true)); a.Allowed || a.Quiet {
		t.Errorf("no pair: %+v", a)
	}
	for typ, name := range map[uint16]string{1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 7: "7", 9: "9", 10: "packet", 11: "11"} {
		if got := Network(apparmor.ClassNetV8, 2, typ, apparmor.NetCreate).String(); got != "network (create) inet "+name {
			t.Errorf("type %d: %s", typ, got)
		}
	}
}
