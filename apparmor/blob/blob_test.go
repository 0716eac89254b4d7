// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/oracle"
)

func automaton(t testing.TB, regex string, perms []Perms, diff bool) *Automaton {
	t.Helper()
	a := dfa.NewArena()
	e, _, err := a.Parse(regex)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dfa.Build(a, []dfa.Rule{{Expr: e, Accept: 1}}, func([]int32) (uint32, error) { return 1, nil }, dfa.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	pack := dfa.Pack
	if diff {
		pack = dfa.PackDiff
	}
	table, err := pack(d.Minimize(), func(l uint32) (uint32, uint32) { return l, 0 })
	if err != nil {
		t.Fatal(err)
	}
	return &Automaton{Table: table, Perms: perms}
}

func samples(t testing.TB) []*Profile {
	full := &Profile{
		Version: 0x202007, Namespace: "ns", Name: "a//b", Rename: "old", Attach: "/a",
		XMatch: automaton(t, "/bin/.*", nil, false), XMatchLen: 5,
		Disconnected: "/x", DisconnectedIPC: "/y", KillSignal: 9, Error: 13,
		Flags: FlagHat, Mode: Complain, Audit: 1, PathFlags: 0x10004, HasPathFlags: true,
		Caps:       Caps{Allow: 1 << 40, Audit: 3, Quiet: 1 << 33, Extended: 7, HasExtended: true},
		Identities: []string{"i"}, Xattrs: []string{"user.x"}, RlimitMask: 2, Rlimits: []uint64{0, 1 << 40},
		Secmarks: []Secmark{{1, 0, "l"}}, NetAF: [][3]uint16{{1, 2, 3}},
		PolicyDB: automaton(t, `\x07[^\x00]*`, nil, false),
		File:     automaton(t, `/a(b|[^c])*`, nil, true),
		Data:     []DataItem{{"k", []byte{1, 2}}},
	}
	full.File.XTable = []string{"p", ":ns:q"}
	small := &Profile{Version: 0x202007, Name: "x"}
	table := &Profile{Version: 0x202007, Name: "y", File: automaton(t, "/x.*", []Perms{
		{Allow: MayGetattr}, {Allow: MayGetattr}, {Allow: MayRead, Audit: MayRead}, {Quiet: MayRead, Deny: MayWrite},
	}, true)}
	table.File.PermsVersion = 3
	return []*Profile{full, small, table}
}

func TestRoundTrip(t *testing.T) {
	want := samples(t)
	b, err := Encode(want...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Encode(got...)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("reading and writing changes the stream: %v", err)
	}
	for i := range want {
		w, g := *want[i], *got[i]
		w.XMatch, w.PolicyDB, w.File, g.XMatch, g.PolicyDB, g.File = nil, nil, nil, nil, nil, nil
		if !reflect.DeepEqual(w, g) {
			t.Errorf("got %+v\nwant %+v", g, w)
		}
	}
	if g := got[0].File.XTable; !reflect.DeepEqual(g, []string{"p", ":ns:q"}) {
		t.Errorf("exec names %q", g)
	}
}

func TestDecodeRefuses(t *testing.T) {
	b, err := Encode(samples(t)...)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{}
	for i := range 4 {
		part, err := Encode(samples(t)[:i]...)
		if err != nil {
			t.Fatal(err)
		}
		ends[len(part)] = true
	}
	for n := range b {
		_, err := Decode(b[:n])
		if n > 0 && ends[n] {
			if err != nil {
				t.Errorf("whole profiles of %d bytes: %v", n, err)
			}
			continue
		}
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestPermMapping(t *testing.T) {
	own, oth := FilePerms(0x4|0x1|0x200|2<<10|1<<14<<1|1<<31, 0x4|0x2<<21)
	if own.Allow != MayExec|MayRead|MayGetattr|MayOpen|MayChangeProfile || own.XIndex != XInherit|XName || own.Audit != MayRead|MayGetattr|MayOpen {
		t.Errorf("owner %+v", own)
	}
	if oth.Allow != MayWrite|MaySetattr|MayCreate|MayDelete|MayChmod|MayChown|MayOpen|MayGetattr|MayChangeProfile || oth.Quiet == 0 {
		t.Errorf("other %+v", oth)
	}
	if p := PolicyPerms(0x12|0x7f<<14, 0); p.Allow != 0x12|0x300|0x700000|0x3000000 {
		t.Errorf("policy %#x", p.Allow)
	}
}

// parserTexts are profiles that touch every part of the stream.
var parserTexts = []string{
	"profile a { }",
	"profile a /bin/{x,y}* flags=(complain,audit) { /a r, owner /b w, /c px -> x, /d cx -> y, profile y { } ^h { } }",
	"profile a flags=(attach_disconnected,mediate_deleted) { capability, set rlimit nofile <= 4, network inet stream, signal, ptrace, mount, umount, }",
	"profile a /x xattrs=(user.a=v*) { change_profile -> :ns:p, /e px -> :ns:q, }",
}

// TestConfirmDecode reads what the reference compiler writes; writing it again
// gives the same bytes.
func TestConfirmDecode(t *testing.T) {
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	features := filepath.Join(oracle.Corpus(t, "apparmor/features"), "6.1.features")
	for _, text := range parserTexts {
		cmd := exec.Command(parser, "-Q", "-K", "-S", "-q", "-M", features)
		cmd.Stdin = strings.NewReader(text)
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		profiles, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		// Each profile is its own stream there, aligned from its own start.
		var again []byte
		for _, p := range profiles {
			one, err := Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, one...)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%s: writing what was read changes it", text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(samples(f)...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, p := range samples(f) {
		b, err := Encode(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		profiles, err := Decode(b)
		if err != nil {
			var fe *FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("error without a position: %v", err)
			}
			return
		}
		one, err := Encode(profiles...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(one)
		if err != nil {
			t.Fatal(err)
		}
		two, err := Encode(again...)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("second round trip differs: %v", err)
		}
	})
}
