// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
)

const placed = `profile first /bin/a* { /a rw, /b px -> t, signal, }
profile second { set rlimit nofile <= 7, capability chown, /x px -> {t1,t2}, /y cx -> c, network, profile c { /c r, } }
`

func compiled(t testing.TB, format compile.Format) []*blob.Profile {
	t.Helper()
	text := strings.Replace(placed, "{t1,t2}", "t2", 1)
	file, diags := apparmor.Parse("p", []byte(text))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	policy, diags := apparmor.Resolve(file, apparmor.Env{})
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	out, diags := compile.New(compile.Options{Format: format}).Compile(policy)
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	return out.Blobs()
}

// TestAt changes one thing in a profile and asks what stands at the first byte
// of the stream that differs for it.
func TestAt(t *testing.T) {
	for _, tt := range []struct {
		want   string
		change func(p *blob.Profile)
	}{
		{"mode", func(p *blob.Profile) { p.Mode = blob.Kill }},
		{"flags", func(p *blob.Profile) { p.Flags ^= 0x10 }},
		{"audit", func(p *blob.Profile) { p.Audit ^= 1 }},
		{"capabilities, allowed", func(p *blob.Profile) { p.Caps.Allow ^= 2 }},
		{"capabilities, kept quiet", func(p *blob.Profile) { p.Caps.Quiet ^= 2 }},
		{"upper capabilities, logged", func(p *blob.Profile) { p.Caps.Audit ^= 1 << 40 }},
		{"resource limits, entry 7", func(p *blob.Profile) { p.Rlimits[7]++ }},
		{"mask of resource limits", func(p *blob.Profile) { p.RlimitMask ^= 2 }},
		{"automaton, exec target 0", func(p *blob.Profile) { p.File.XTable[0] = "T2" }},
		{"policy automaton, table BASE, entry 1", func(p *blob.Profile) { p.PolicyDB.Table.Base[1] ^= 1 }},
		{"file automaton, table NEXT, entry 3", func(p *blob.Profile) { p.File.Table.Next[3] ^= 1 }},
		{"file automaton, table CHECK, entry 2", func(p *blob.Profile) { p.File.Table.Check[2] ^= 1 }},
		{"file automaton, table ACCEPT, entry 2", func(p *blob.Profile) { p.File.Table.Accept[2] ^= 1 }},
		{"file automaton, header of the tables", func(p *blob.Profile) { p.File.Table.Flags ^= 4 }},
		{"file automaton, permission table, entry 1, allow", func(p *blob.Profile) {
			if p.File.Perms != nil {
				p.File.Perms[1].Allow ^= 2
			}
		}},
		{"policy automaton, permission table, entry 1, quiet", func(p *blob.Profile) {
			if p.PolicyDB.Perms != nil {
				p.PolicyDB.Perms[1].Quiet ^= 2
			}
		}},
	} {
		for _, format := range []compile.Format{compile.FormatV7, compile.FormatPermstable} {
			list := compiled(t, format)
			before := encode(t, list)
			tt.change(list[1])
			after := encode(t, list)
			at := 0
			for at < len(before) && before[at] == after[at] {
				at++
			}
			if at == len(before) {
				continue // the format has none
			}
			for _, data := range [][]byte{before, after} {
				p := blob.At(data, at)
				if !strings.HasSuffix(p.Field, tt.want) || p.Profile != "second" || p.Start > at || p.End <= at {
					t.Errorf("format %d, byte %d: %s, want %s of second", format, at, p, tt.want)
				}
			}
		}
	}
}

func encode(t testing.TB, list []*blob.Profile) []byte {
	t.Helper()
	b, err := blob.Encode(list...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAtEverywhere: every byte of a stream belongs to a part, and the parts stand
// one behind the other.
func TestAtEverywhere(t *testing.T) {
	for _, format := range []compile.Format{compile.FormatV7, compile.FormatPermstable} {
		data := encode(t, compiled(t, format))
		every := 1
		if testing.Short() {
			every = 61
		}
		for i := 0; i < len(data); i += every {
			p := blob.At(data, i)
			if p.Start > i || p.End <= i || p.Field == "" || strings.Contains(p.Field, "unknown") || strings.Contains(p.Field, "something") {
				t.Fatalf("format %d, byte %d: %+v", format, i, p)
			}
		}
		if p := blob.At(data[:len(data)-3], len(data)); !strings.Contains(p.Field, "end") && !strings.Contains(p.Field, "something") {
			t.Errorf("behind the end: %s", p)
		}
	}
}

func FuzzAt(f *testing.F) {
	for _, format := range []compile.Format{compile.FormatV7, compile.FormatPermstable} {
		data := encode(f, compiled(f, format))
		f.Add(data, 100)
		f.Add(data[:200], 300)
	}
	f.Fuzz(func(t *testing.T, data []byte, offset int) { _ = blob.At(data, offset).String() })
}
