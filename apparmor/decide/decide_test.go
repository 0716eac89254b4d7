// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

func compiled(t testing.TB, text string, o compile.Options) *compile.Policy {
	t.Helper()
	if o.Kernel == nil {
		o.Kernel = compile.Portable()
	}
	file, diags := apparmor.Parse("test", []byte(text))
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	policy, diags := apparmor.Resolve(file, apparmor.Env{Kernel: o.Kernel, ABI: o.Kernel})
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	out, diags := compile.New(o).Compile(policy)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	return out
}

const sample = `profile p {
  /etc/** r,
  deny /etc/shadow rw,
  audit /var/log/* w,
  owner /home/*/** rwk,
  /usr/bin/[a-m]* px -> q,
  /bin/{sh,ls} ix,
  link subset /l/** -> /etc/**,
  /l/** rw,
  change_profile /bin/x -> q,
  network inet stream,
  deny network inet6,
  signal send set=(term,kill) peer=q,
  ptrace read peer=/usr/**,
  mount options=(ro,nosuid) /dev/sd* -> /mnt/**,
  umount /mnt/**,
  capability chown,
}
profile q { /etc/passwd r, signal, /x w, }
profile r flags=(complain) { /a r, }
`

// modern are features of a kernel with every encoding that there is.
func modern(t testing.TB) *apparmor.Features {
	f, err := apparmor.ParseFeatures(strings.Replace(compile.Portable().String(), "policy {",
		"policy {diff-encode {yes\n}\npermstable32 {allow deny\n}\npermstable32_version {0x000003\n}\nstate32 {yes\n}\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEncodingsDecideAlike compares all encodings of one policy.
func TestEncodingsDecideAlike(t *testing.T) {
	old := compiled(t, sample, compile.Options{Level: compile.Level4, Format: compile.FormatV7})
	for _, o := range []compile.Options{
		{Level: compile.Level4, Kernel: modern(t)},
		{Level: compile.Level4, Kernel: modern(t), Format: compile.FormatV7},
		{Level: compile.Level4, Format: compile.FormatPermstable},
	} {
		p := compiled(t, sample, o)
		b, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := blob.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := Diff(NewSet(old.Blobs()...), NewSet(back...))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			t.Errorf("format %d: %+v", o.Format, c)
		}
		if o.Format == compile.FormatAuto && back[0].File.Perms == nil {
			t.Error("the newest format was not chosen")
		}
	}
}

func want(t testing.TB, op string) *compile.Wanted {
	t.Helper()
	f := compile.Portable()
	file, diags := apparmor.Parse("question", []byte("profile question { "+op+", }"))
	if diags.HasErrors() {
		t.Fatalf("%s: %v", op, diags.Err())
	}
	policy, diags := apparmor.Resolve(file, apparmor.Env{Kernel: f, ABI: f})
	if diags.HasErrors() {
		t.Fatalf("%s: %v", op, diags.Err())
	}
	w, diags := compile.Want(policy.Profiles[0], compile.Options{Kernel: f})
	if diags.HasErrors() {
		t.Fatalf("%s: %v", op, diags.Err())
	}
	return w
}

func TestCheck(t *testing.T) {
	policy := compiled(t, sample, compile.Options{})
	set := NewSet(policy.Blobs()...)
	explain := func(p *blob.Profile) Explainer {
		for _, c := range policy.Profiles {
			if c.Blob == p {
				return c
			}
		}
		return nil
	}
	for _, tt := range []struct {
		label, op string
		other     bool
		allowed   bool
		reason    Reason
		lines     []int // of the deciding rules, in sample
		text      string
	}{
		{"p", "/etc/passwd r", false, true, ReasonAllowed, []int{2}, "read /etc/passwd"},
		{"p", "/etc/shadow r", false, false, ReasonDenied, []int{3}, "read /etc/shadow"},
		{"p", "/etc/** r", false, false, ReasonDenied, []int{3}, "read /etc/shadow"},
		{"p", "/etc/[a-r]* r", false, true, ReasonAllowed, []int{2}, ""},
		{"p", "/etc/x w", false, false, ReasonNoRule, nil, ""},
		{"p", "/home/u/f rw", false, true, ReasonAllowed, []int{5}, ""},
		{"p", "/home/u/f rw", true, false, ReasonNoRule, nil, ""},
		{"p", "/usr/bin/awk ix", false, true, ReasonAllowed, []int{6}, "exec /usr/bin/awk"},
		{"p", "/usr/bin/zip ix", false, false, ReasonNoRule, nil, ""},
		{"p", "link /l/a -> /etc/passwd", false, false, ReasonLinkSubset, []int{8}, ""},
		{"p", "link /l/a -> /usr/x", false, false, ReasonLinkTarget, nil, ""},
		{"p", "link /m/a -> /etc/x", false, false, ReasonNoRule, nil, ""},
		{"p", "change_profile /bin/x -> q", false, true, ReasonAllowed, []int{10}, ""},
		{"p", "change_profile -> r", false, false, ReasonNoRule, nil, ""},
		{"p", "network inet stream", false, true, ReasonAllowed, []int{11}, ""},
		{"p", "network inet6 stream", false, false, ReasonDenied, []int{12}, "network inet6 stream"},
		{"p", "signal send set=term peer=q", false, true, ReasonAllowed, []int{13}, ""},
		{"p", "signal send set=hup peer=q", false, false, ReasonNoRule, nil, "signal (send) set=hup peer=q"},
		{"p", "signal receive set=term peer=q", false, false, ReasonNoRule, nil, ""},
		{"p", "ptrace read peer=/usr/bin/x", false, true, ReasonAllowed, []int{14}, ""},
		{"p", "ptrace trace peer=/usr/bin/x", false, false, ReasonNoRule, nil, ""},
		{"p", "mount options=(ro,nosuid) /dev/sda -> /mnt/x", false, true, ReasonAllowed, []int{15}, ""},
		{"p", "mount options=(ro) /dev/sda -> /mnt/x", false, false, ReasonNoRule, nil, ""},
		{"p", "umount /mnt/a", false, true, ReasonAllowed, []int{16}, "umount /mnt/a"},
		{"p", "umount", false, false, ReasonNoRule, nil, ""},
		{"p", "capability chown", false, true, ReasonAllowed, []int{17}, ""},
		{"p", "capability mknod", false, false, ReasonNoRule, nil, "capability mknod"},
		{"r", "/b w", false, true, ReasonComplain, nil, ""},
		{"unconfined", "/b w", false, true, ReasonAllowed, nil, ""},
	} {
		label, err := set.Label(tt.label)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Check(label, want(t, tt.op), !tt.other, explain)
		if err != nil {
			t.Errorf("%s: %v", tt.op, err)
			continue
		}
		if v.Allowed != tt.allowed || tt.text != "" && v.Text != tt.text {
			t.Errorf("%s %s: %v %q", tt.label, tt.op, v.Allowed, v.Text)
			continue
		}
		if tt.label == "unconfined" {
			continue
		}
		a := v.Decision.Answers[0]
		var lines []int
		for _, r := range a.Rules {
			lines = append(lines, r.Span.Start.Line)
		}
		if a.Reason != tt.reason || !slices.Equal(lines, tt.lines) {
			t.Errorf("%s %s: %s by lines %v, want %s by %v", tt.label, tt.op, a.Reason, lines, tt.reason, tt.lines)
		}
	}
}

func TestStackIsIntersection(t *testing.T) {
	set := NewSet(compiled(t, sample, compile.Options{}).Blobs()...)
	label, err := set.Label("p//&q//&unconfined")
	if err != nil || len(label) != 2 {
		t.Fatal(label, err)
	}
	for q, allow := range map[string]uint32{"\x02/etc/passwd": blob.MayRead, "\x02/etc/hosts": 0, "\x02/x": 0} {
		if got := Query(label, []byte(q)).Allow & (blob.MayRead | blob.MayWrite); got != allow {
			t.Errorf("%q: %x", q, got)
		}
	}
	r, err := Reachable(label, ReachQuery{Perms: blob.MayRead})
	if err != nil || !slices.Equal(r.Globs, []string{"/etc/passwd"}) {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := set.Label("p//&nobody"); err == nil {
		t.Error("an unknown profile is found")
	}
}

func TestReachable(t *testing.T) {
	for _, tt := range []struct {
		rules  string
		q      ReachQuery
		globs  []string
		except []string
	}{
		{"/a r,", ReachQuery{Perms: blob.MayRead}, []string{"/a"}, nil},
		{"/a/* r, /b/** r,", ReachQuery{Perms: blob.MayRead}, []string{"/a/*", "/b/**"}, nil},
		{"/a/** rw, deny /a/b w,", ReachQuery{Perms: blob.MayWrite, Within: "/a/**"}, []string{"/a/**"}, []string{"/a/b"}},
		{"/a/** rw, deny /a/b w,", ReachQuery{Perms: blob.MayWrite, Within: "/a/**", Denied: true}, []string{"/a/b"}, nil},
		{"/lib/**.so r,", ReachQuery{Perms: blob.MayRead, Hints: []string{"/lib/**.so"}}, []string{"/lib/**.so"}, nil},
		{"/a/** r, deny /a/b/** r,", ReachQuery{Perms: blob.MayRead, Hints: []string{"/a/**"}}, []string{"/a/**"}, []string{"/a/b/**"}},
		{"owner /a r, /b r,", ReachQuery{Perms: blob.MayRead, Other: true}, []string{"/b"}, nil},
		{"", ReachQuery{Perms: blob.MayRead}, nil, nil},
	} {
		p := compiled(t, "profile p { "+tt.rules+" }", compile.Options{}).Blobs()
		r, err := Reachable(p, tt.q)
		slices.Sort(r.Globs)
		if err != nil || !slices.Equal(r.Globs, tt.globs) || !slices.Equal(r.Except, tt.except) || r.Truncated {
			t.Errorf("%s: %+v %v, want %v except %v", tt.rules, r, err, tt.globs, tt.except)
		}
	}
}

// TestReachExact checks that listed globs and exceptions cover just what is
// allowed, on paths near the rules.
func TestReachExact(t *testing.T) {
	p := compiled(t, "profile p { /proc/** r, deny /proc/sys/[^k]** r, deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} r, }", compile.Options{}).Blobs()
	for _, denied := range []bool{false, true} {
		r, err := Reachable(p, ReachQuery{Perms: blob.MayRead, Within: "/proc/sys/**", Denied: denied})
		if err != nil || r.Truncated {
			t.Fatal(r, err)
		}
		match := func(globs []string, s string) bool {
			for _, g := range globs {
				c, err := dfa.ConvertGlob("", g, false)
				if err != nil {
					t.Fatal(g, err)
				}
				a := dfa.NewArena()
				e, _, err := a.Parse(c.Regex)
				if err != nil {
					t.Fatal(g, err)
				}
				in := make([]uint16, len(s))
				for i := range in {
					in[i] = uint16(s[i])
				}
				if len(a.Accepts([]dfa.Rule{{Expr: e}}, in)) > 0 {
					return true
				}
			}
			return false
		}
		for _, s := range []string{
			"/proc/sys/a", "/proc/sys/k", "/proc/sys/kernel", "/proc/sys/kernel/", "/proc/sys/kernel/s", "/proc/sys/kernel/sh", "/proc/sys/kernel/shm",
			"/proc/sys/kernel/shmmax", "/proc/sys/kernel/shn", "/proc/sys/kernel/axx", "/proc/sys/kernel/a/b", "/proc/sys/kx/y", "/proc/sys/net/x",
		} {
			allowed := Query(p, []byte("\x02"+s)).Allow&blob.MayRead != 0
			listed := match(r.Globs, s) && !match(r.Except, s)
			if listed != (allowed != denied) {
				t.Errorf("%s: allowed %v, listed %v in %v except %v", s, allowed, listed, r.Globs, r.Except)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want []string // kind: text
	}{
		{"/a r,", "/a r,", nil},
		{"/a r, /a{,b} r,", "/a{b,} r,", nil},
		{"/a r,", "/a rw,", []string{"file: the second allows write /a"}},
		{"/a r,", "owner /a r,", []string{"file-other: the second no longer allows read /a"}},
		{"/a Px -> x,", "/a Px -> y,", []string{"file: exec of /a goes to the profile y instead of to the profile x"}},
		{"capability chown,", "capability kill,", []string{"capabilities: the second allows kill", "capabilities: the second no longer allows chown"}},
		{"signal peer=a,", "signal peer=ab,", []string{"signal: the second allows", "signal: the second no longer allows"}},
		{"set rlimit nofile <= 4,", "", []string{"rlimits: limit 7: 4 becomes not set"}},
	} {
		a := compiled(t, "profile p { "+tt.a+" }", compile.Options{}).Blobs()
		b := compiled(t, "profile p { "+tt.b+" }", compile.Options{}).Blobs()
		changes, err := Diff(NewSet(a...), NewSet(b...))
		if err != nil {
			t.Fatal(err)
		}
		ok := len(changes) == len(tt.want)
		for _, w := range tt.want {
			ok = ok && slices.ContainsFunc(changes, func(c Change) bool { return strings.HasPrefix(c.Kind+": "+c.Text, w) })
		}
		if !ok {
			t.Errorf("%s against %s: %+v, want %q", tt.a, tt.b, changes, tt.want)
		}
	}
}

func TestDeadRules(t *testing.T) {
	p := compiled(t, "profile p {\n/a/** r,\n/a/b r,\n/c r,\ndeny /c r,\n/d r,\nsignal,\nsignal peer=x,\n}", compile.Options{})
	dead, err := p.Profiles[0].DeadRules(dfa.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, d := range dead {
		lines = append(lines, d.Rule.Span.Start.Line)
	}
	if !slices.Equal(lines, []int{3, 4, 8}) {
		t.Errorf("dead rules on lines %v", lines)
	}
}

func TestAttachments(t *testing.T) {
	set := NewSet(compiled(t, "profile a /usr/bin/* { }\nprofile b /usr/bin/xx* { }\n/usr/bin/xx { }\n", compile.Options{}).Blobs()...)
	var names []string
	for _, p := range set.Attachments("/usr/bin/xx") {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"/usr/bin/xx", "b", "a"}) {
		t.Errorf("%v", names)
	}
}
