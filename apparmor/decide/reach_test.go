// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// fatals is what both testing.TB and rapid.T have.
type fatals interface {
	Helper()
	Fatalf(format string, args ...any)
}

// matcher matches a glob as rules do.
func matcher(t fatals, glob string) func(string) bool {
	t.Helper()
	c, err := dfa.ConvertGlob("", glob, false)
	if err != nil {
		t.Fatalf("%q: %v", glob, err)
	}
	a := dfa.NewArena()
	e, _, err := a.Parse(c.Regex)
	if err != nil {
		t.Fatalf("%q: %v", glob, err)
	}
	return func(s string) bool {
		in := make([]uint16, len(s))
		for i := range in {
			in[i] = uint16(s[i])
		}
		return len(a.Accepts([]dfa.Rule{{Expr: e}}, in)) > 0
	}
}

// TestGlobOfBytes: the glob that is written for a set of bytes stands for just them.
func TestGlobOfBytes(t *testing.T) {
	check := func(t fatals, set dfa.Set) {
		t.Helper()
		glob := className1(set)
		match := matcher(t, "/"+glob)
		for c := 1; c < 256; c++ {
			// "?" and inverted classes of a set without the slash never mean the slash.
			if got := match("/" + string([]byte{byte(c)})); got != set.Has(byte(c)) {
				t.Fatalf("%q for %d bytes: byte %#x is %v", glob, set.Len(), c, got)
			}
		}
	}
	of := func(bytes ...byte) (s dfa.Set) {
		for _, b := range bytes {
			s.Add(b)
		}
		return s
	}
	for c := 1; c < 256; c++ {
		if c != '/' {
			check(t, of(byte(c)))
		}
	}
	for from := 1; from < 256; from += 7 {
		for n := 2; n < 256-from; n += 1 + n/3 {
			var s dfa.Set
			for c := from; c < from+n; c++ {
				if c != '/' {
					s.Add(byte(c))
				}
			}
			if s.Len() > 0 && s.Len() <= 128 {
				check(t, s)
			}
		}
	}
	for _, s := range []dfa.Set{of('a', 'b'), of('a', 'b', 'c'), of('a', 'c'), of('-', ']'), of('^', 'a'), of('\\', '['), of(' ', '!'), of(0x20, 0x21), of(0x7e, 0x7f), of(0xfe, 0xff), of(0xff), of('a', 'b', 'd', 'e', 'f', 'h')} {
		check(t, s)
	}
	for want, s := range map[string]dfa.Set{
		"a": of('a'), `\*`: of('*'), `\x1f`: of(0x1f), " ": of(' '), `\x7f`: of(0x7f), "~": of('~'), "@": of('@'), ",": of(','), "^": of('^'), `\"`: of('"'), `\[`: of('['),
		"[ab]": of('a', 'b'), "[a-c]": of('a', 'b', 'c'), "[ac]": of('a', 'c'), `[\x2da]`: of('-', 'a'), `[\x5da]`: of(']', 'a'), `[\xfe\xff]`: of(0xfe, 0xff), `[\x20!]`: of(' ', '!'), `[\xfd-\xff]`: of(0xfd, 0xfe, 0xff),
	} {
		if got := className1(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var all dfa.Set
	for c := 1; c < 256; c++ {
		if c != '/' {
			all.Add(byte(c))
		}
	}
	if got := className1(all); got != "?" {
		t.Errorf("all but slash: %q", got)
	}
	half := func(n int) (s dfa.Set) {
		for c := range n {
			s.Add(byte(c))
		}
		return s
	}
	if a, b := className1(half(128)), className1(half(129)); strings.HasPrefix(a, "[^") || !strings.HasPrefix(b, "[^") {
		t.Errorf("%q, %q", a, b)
	}
	rapid.Check(t, func(t *rapid.T) {
		var s dfa.Set
		for _, b := range rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 60).Draw(t, "bytes") {
			if b != '/' {
				s.Add(b)
			}
		}
		if s.Len() > 0 {
			check(t, s)
		}
	})
}

// TestReachEverywhere lists the paths of random profiles, with random hints, and
// compares what is listed with the decision about each short path.
func TestReachEverywhere(t *testing.T) {
	components := []string{"a", "b", "c", "ab", "ba"}
	var paths []string
	for _, x := range components {
		paths = append(paths, "/"+x, "/"+x+"/")
		for _, y := range components {
			paths = append(paths, "/"+x+"/"+y, "/"+x+"/"+y+"/", "/"+x+"/"+y+"/a", "/"+x+"/"+y+"/c/b")
		}
	}
	glob := rapid.Custom(func(t *rapid.T) string {
		out := ""
		for range rapid.IntRange(1, 3).Draw(t, "components") {
			out += "/" + rapid.SampledFrom([]string{"a", "b", "c", "a*", "*", "?", "[ab]", "[^a]", "{a,bc}", "ab"}).Draw(t, "component")
		}
		return out + rapid.SampledFrom([]string{"", "", "/", "/**", "/*"}).Draw(t, "end")
	})
	rapid.Check(t, func(rt *rapid.T) {
		var rules, hints []string
		for range rapid.IntRange(1, 4).Draw(rt, "rules") {
			g := glob.Draw(rt, "glob")
			rules = append(rules, rapid.SampledFrom([]string{"", "", "owner ", "deny "}).Draw(rt, "how")+g+" "+rapid.SampledFrom([]string{"r", "r", "w", "rw"}).Draw(rt, "access")+",")
			if rapid.Bool().Draw(rt, "hint") {
				hints = append(hints, g)
			}
		}
		q := ReachQuery{Perms: blob.MayRead, Other: rapid.Bool().Draw(rt, "other"), Denied: rapid.Bool().Draw(rt, "denied"), Hints: hints}
		if rapid.Bool().Draw(rt, "within") {
			q.Within = "/a/**"
		}
		if rapid.IntRange(0, 3).Draw(rt, "both") == 0 {
			q.Perms |= blob.MayWrite
		}
		p := compiled(t, "profile p { "+strings.Join(rules, " ")+" }", compile.Options{}).Blobs()
		r, err := Reachable(p, q)
		if err != nil {
			rt.Fatalf("%q: %v", rules, err)
		}
		var globs, except []func(string) bool
		for _, g := range r.Globs {
			globs = append(globs, matcher(rt, g))
		}
		for _, g := range r.Except {
			except = append(except, matcher(rt, g))
		}
		within := matcher(rt, "/**")
		if q.Within != "" {
			within = matcher(rt, q.Within)
		}
		any := func(list []func(string) bool, s string) bool {
			return slices.ContainsFunc(list, func(m func(string) bool) bool { return m(s) })
		}
		for _, path := range paths {
			allowed := q.Perms&^QueryAs(p, []byte("\x02"+path), !q.Other).Allow == 0
			listed := any(globs, path) && !any(except, path)
			want := allowed != q.Denied && within(path)
			// What is left out when there is too much is not more than there is.
			if listed != want && !(r.Truncated && !listed) {
				rt.Fatalf("%q %+v: %s is allowed %v, listed %v in %+v", rules, q, path, allowed, listed, r)
			}
		}
	})
}

// TestReachLimits: how many globs are listed, and that more is told.
func TestReachLimits(t *testing.T) {
	var rules []string
	for i := range 12 {
		rules = append(rules, fmt.Sprintf("/%c%c/x r,", 'a'+i, 'b'+i*2))
	}
	p := compiled(t, "profile p { "+strings.Join(rules, " ")+" }", compile.Options{}).Blobs()
	for limit, want := range map[int]int{0: 12, 1: 1, 5: 5, 12: 12, 13: 12} {
		r, err := Reachable(p, ReachQuery{Perms: blob.MayRead, Limit: limit})
		if err != nil || len(r.Globs) != want {
			t.Errorf("limit %d: %d globs, %v", limit, len(r.Globs), err)
		}
		if limit != 12 && r.Truncated != (limit != 0 && limit < 12) {
			t.Errorf("limit %d: truncated %v", limit, r.Truncated)
		}
		sorted := slices.Sorted(slices.Values(r.Globs))
		if len(slices.Compact(sorted)) != len(r.Globs) {
			t.Errorf("limit %d: twice in %q", limit, r.Globs)
		}
	}
	hints := []string{"/ab/x", "/bd/x", "/cf/x"}
	for limit, want := range map[int]int{1: 1, 2: 2, 3: 3} {
		r, err := Reachable(p, ReachQuery{Perms: blob.MayRead, Limit: limit, Hints: hints})
		n := 0
		for _, g := range r.Globs {
			if slices.Contains(hints, g) {
				n++
			}
		}
		if err != nil || n < want {
			t.Errorf("limit %d with hints: %q, %v", limit, r.Globs, err)
		}
	}
	// Fewer words: all but a few.
	r, err := Reachable(compiled(t, "profile p { /** r, deny /a/b r, }", compile.Options{}).Blobs(), ReachQuery{Perms: blob.MayRead, Within: "/a/**"})
	if err != nil || !slices.Equal(r.Globs, []string{"/a/**"}) || !slices.Equal(r.Except, []string{"/a/b"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for in, want := range map[string]string{"/a/?**": "/a/**", "/a/?*/b": "/a/*/b", "/a/?*": "/a/*", "/a?*": "/a?*", "/?*/?**": "/*/**", "/a": "/a", "/**/?*": "/**/*"} {
		if got := tidy(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestMountFlagNames: the kernel's numbers.
func TestMountFlagNames(t *testing.T) {
	for name, flag := range map[string]uint32{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "sync": unix.MS_SYNCHRONOUS, "remount": unix.MS_REMOUNT, "mand": unix.MS_MANDLOCK,
		"dirsync": unix.MS_DIRSYNC, "nosymfollow": unix.MS_NOSYMFOLLOW, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "bind": unix.MS_BIND, "move": unix.MS_MOVE, "rec": unix.MS_REC,
		"silent": unix.MS_SILENT, "acl": unix.MS_POSIXACL, "unbindable": unix.MS_UNBINDABLE, "private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "relatime": unix.MS_RELATIME,
		"iversion": unix.MS_I_VERSION, "strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME, "nouser": 1 << 31,
	} {
		if got := Mount("d", "p", "f", flag).String(); got != "mount options=("+name+") fstype=f d -> p" {
			t.Errorf("%s: %s", name, got)
		}
	}
}
