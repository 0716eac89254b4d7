// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
)

// seeds are texts with one of everything.
var seeds = []string{
	"",
	"# nothing\n",
	"abi <abi/3.0>,\ninclude <tunables/global>\nprofile a /a { include <abstractions/base>\n}\n",
	"@{A} = a b \"c d\" # why\n@{B}=@{A}/x\n@{B}+=y\n@{C} ?= z\n@{C} := w\n$F=true\n$G=not $F or ( @{A} == @{B} )\n/b { @{A}/@{B} rw, }\n",
	"alias /a -> /b,\nrewrite /c/ -> \"/d e/\",\n/a/b/** { /a/x r, /c/y l -> /a/z, }\n",
	"profile p /p* xattrs=(user.x=\"y\", security.z=*) flags=(complain, attach_disconnected, kill.signal=term, error=EPERM) {\n ^hat { }\n hat h2 (audit) { }\n profile child { /a Cx -> other, }\n}\n",
	"profile :ns:x + identities=(a b) { if defined @{x} { /a r, } else if 3 < 4 { /b r, } else { /c r, } }\n",
	"profile n {\n network,\n deny network inet6 dgram,\n audit network (send receive) inet ip=1.2.3.4 port=80-90 peer=(ip=::1 port=5 label=x),\n network tcp,\n unix (connect) type=stream addr=none peer=(label=\"x y\" addr=@a*),\n}\n",
	"profile r {\n set rlimit cpu <= 3 min,\n set rlimit nice <= -5,\n capability,\n priority=-3 audit deny capability sys_admin kill,\n signal (send) set=(hup rtmin+3) peer=@{profile_name},\n ptrace read peer=x,\n dbus send bus=system path=/a/{b,c} interface=i member=m peer=(name=n label=l),\n mqueue (r w) type=posix /q,\n io_uring sqpoll,\n userns create,\n all,\n}\n",
	"profile m {\n mount options=(ro, bind) options in (rw) fstype=ext[23] /dev/sd* -> /mnt/**,\n remount /x,\n umount,\n pivot_root oldroot=/o /n -> p,\n change_profile safe /e -> &x//y,\n}\n",
	"profile x {\n /a ix, /b Pix -> t, /c cUx, owner /d rwk, other /e a, unsafe /f ux, r /g, rl subset /h -> /i, link subset /j -> /k, file, file /l m,\n audit deny { /m w, owner { /n r, } }\n \"/quoted path\\\"x\" r,\n /esc\\040\\x41\\{b\\}[^a-z]{x,y{z,}}?*** r,\n}\n",
	"profile broken {\n /a rw /b r,\n capability nope,\n /c x,\n }}\n}{",
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Add(ContainerProfile{}.Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			return
		}
		file, diags := Parse("fuzz", text)
		n := 0
		Walk(file, func(Node) bool { n++; return true })
		for _, d := range diags {
			if !d.Span.IsValid() || d.Span.Start.Offset > len(text) || d.Message == "" {
				t.Fatalf("diagnostic without a place: %+v", d)
			}
		}
		if file.Broken != diags.HasErrors() {
			t.Fatal("broken, but not by an error")
		}
		if !file.Broken {
			roundTrip(t, "fuzz", file)
		}
		policy, rd := Resolve(file, Env{FS: fstest.MapFS{"d/self": {Data: text}}, Search: []string{"/d"}, Dir: "/d"})
		if (policy == nil) != rd.HasErrors() {
			t.Fatalf("err xor value: %v", rd)
		}
	})
}

func FuzzParseFeatures(f *testing.F) {
	f.Add("a {b {c d\n}\n}\n")
	f.Add("x {1")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseFeatures(text)
		if err != nil {
			return
		}
		b, err := ParseFeatures(a.String())
		if err != nil || b.String() != a.String() {
			t.Fatalf("%q prints as %q: %v", text, a.String(), err)
		}
		a.Has(text)
		a.Words("a/b")
	})
}

// FuzzWord: what is quoted reads back as the same value.
func FuzzWord(f *testing.F) {
	for _, s := range []string{"a", "a b", `a"b`, `\*`, `a\`, "\x01", "a,", "#", "", "ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if strings.ContainsRune(raw, 0) || strings.Contains(raw, "\n") {
			return
		}
		value := decode("\"" + raw + "\"") // any value that a text can give
		if strings.HasSuffix(value, `\`) {
			return // escapes the quote; no value of a token ends so
		}
		if got := decode(quoteWord(value)); got != value {
			t.Fatalf("%q is quoted as %s, which reads as %q", value, quoteWord(value), got)
		}
	})
}

func TestSeedsRoundTrip(t *testing.T) {
	for _, s := range seeds {
		file, diags := Parse("seed", []byte(s))
		if diags.HasErrors() {
			if !strings.Contains(s, "broken") {
				t.Errorf("%v\n%s", diags, s)
			}
			continue
		}
		roundTrip(t, "seed", file)
		var b bytes.Buffer
		if err := Print(&b, file); err != nil {
			t.Fatal(err)
		}
	}
}
