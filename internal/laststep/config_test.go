// SPDX-License-Identifier: Apache-2.0

package laststep

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/freestanding"
	"github.com/palisade-sec/palisade/internal/oracle"
)

func example() *Config {
	return &Config{
		Gate: true, Stderr: true, NoNewPrivileges: true, AppArmor: "docker-default",
		Capabilities: &Capabilities{1 << 10, 1<<10 | 1<<40},
		Landlock: &Landlock{
			HandledFS: 1<<40 | 7, HandledNet: 3, Scoped: 1,
			Paths: []PathRule{{5, "/"}, {6, "/tmp"}}, Ports: []PortRule{{1, 443}},
		},
		Filters: []Filter{{4, []byte("12345678")}, {0, []byte("abcdefgh")}},
	}
}

func TestConfigRoundTrip(t *testing.T) {
	for _, c := range []*Config{
		{}, {Gate: true}, {Stderr: true}, {NoNewPrivileges: true}, {AppArmor: "p"}, {Capabilities: &Capabilities{}}, {Landlock: &Landlock{}}, example(),
	} {
		got, err := Decode(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Error(d)
		}
	}
}

// TestConfigCut wants every beginning of a configuration, and one with something
// behind it, refused.
func TestConfigCut(t *testing.T) {
	b := example().Encode()
	for i := range b {
		if _, err := Decode(b[:i]); !errors.Is(err, ErrConfig) {
			t.Errorf("%d of %d bytes: %v", i, len(b), err)
		}
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, ErrConfig) {
		t.Errorf("a byte too many: %v", err)
	}
}

// bounds are configurations at and beyond what is accepted.
func bounds() map[string]struct {
	c  *Config
	ok bool
} {
	program := func(instructions int) []Filter {
		return []Filter{{0, make([]byte, instructions*instruction)}}
	}
	path := func(p string) *Config { return &Config{Landlock: &Landlock{Paths: []PathRule{{1, p}}}} }
	long := func(n int) string { return "/" + strings.Repeat("x", n-1) }
	type row = struct {
		c  *Config
		ok bool
	}
	return map[string]row{
		"largest filter":           {&Config{Filters: program(maxInstructions)}, true},
		"filter too large":         {&Config{Filters: program(maxInstructions + 1)}, false},
		"65,537 instructions":      {&Config{Filters: program(1<<16 + 1)}, false},
		"empty filter":             {&Config{Filters: program(0)}, false},
		"cut filter":               {&Config{Filters: []Filter{{0, make([]byte, 12)}}}, false},
		"all filter flags":         {&Config{Filters: []Filter{{7, make([]byte, 8)}}}, true},
		"filter with a listener":   {&Config{Filters: []Filter{{8, make([]byte, 8)}}}, false},
		"64 filters":               {&Config{Filters: slicesRepeat(program(1), maxFilters)}, true},
		"65 filters":               {&Config{Filters: slicesRepeat(program(1), maxFilters+1)}, false},
		"longest path":             {path(long(maxPath)), true},
		"path too long":            {path(long(maxPath + 1)), false},
		"relative path":            {path("tmp"), false},
		"empty path":               {path(""), false},
		"path with a zero byte":    {path("/a\x00b"), false},
		"longest profile":          {&Config{AppArmor: long(maxProfile)}, true},
		"profile too long":         {&Config{AppArmor: long(maxProfile + 1)}, false},
		"profile with a zero byte": {&Config{AppArmor: "a\x00"}, false},
		"most rules":               {&Config{Landlock: &Landlock{Ports: make([]PortRule, maxRules)}}, true},
		"too many rules":           {&Config{Landlock: &Landlock{Ports: make([]PortRule, maxRules+1)}}, false},
	}
}

func slicesRepeat(f []Filter, n int) (out []Filter) {
	for range n {
		out = append(out, f...)
	}
	return out
}

func TestConfigBounds(t *testing.T) {
	for name, row := range bounds() {
		if _, err := Decode(row.c.Encode()); (err == nil) != row.ok {
			t.Errorf("%s: %v, want accepted %t", name, err, row.ok)
		}
	}
	if _, err := Decode(make([]byte, maxConfig+1)); !errors.Is(err, ErrConfig) {
		t.Errorf("too large: %v", err)
	}
}

// anyConfig draws a configuration within the bounds.
func anyConfig(t *rapid.T) *Config {
	text := rapid.StringMatching(`[^\x00]{1,20}`)
	c := &Config{
		Gate: rapid.Bool().Draw(t, "gate"), Stderr: rapid.Bool().Draw(t, "stderr"), NoNewPrivileges: rapid.Bool().Draw(t, "nnp"),
	}
	if rapid.Bool().Draw(t, "profile") {
		c.AppArmor = text.Draw(t, "name")
	}
	if rapid.Bool().Draw(t, "capabilities") {
		c.Capabilities = &Capabilities{caps.Set(rapid.Uint64().Draw(t, "inheritable")), caps.Set(rapid.Uint64().Draw(t, "ambient"))}
	}
	if rapid.Bool().Draw(t, "landlock") {
		l := &Landlock{HandledFS: rapid.Uint64().Draw(t, "fs"), HandledNet: rapid.Uint64().Draw(t, "net"), Scoped: rapid.Uint64().Draw(t, "scoped")}
		for range rapid.IntRange(0, 3).Draw(t, "paths") {
			l.Paths = append(l.Paths, PathRule{rapid.Uint64().Draw(t, "access"), "/" + text.Draw(t, "path")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "ports") {
			l.Ports = append(l.Ports, PortRule{rapid.Uint64().Draw(t, "access"), rapid.Uint64().Draw(t, "port")})
		}
		c.Landlock = l
	}
	for range rapid.IntRange(0, 4).Draw(t, "filters") {
		n := rapid.IntRange(1, 5).Draw(t, "instructions") * instruction
		c.Filters = append(c.Filters, Filter{rapid.Uint32Range(0, filterFlags).Draw(t, "flags"), rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "program")})
	}
	return c
}

func TestConfigProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConfig(t)
		got, err := Decode(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Fatal(d)
		}
	})
}

// theirs is the step's own reader in C, built with sanitizers.
type theirs struct {
	in  io.Writer
	out *bufio.Reader
}

func harness(tb testing.TB) string {
	tb.Helper()
	src, err := filepath.Abs("src")
	if err != nil {
		tb.Fatal(err)
	}
	sources, err := freestanding.LastStep("amd64").SourceHash("src")
	if err != nil {
		tb.Fatal(err)
	}
	return oracle.CHelper(tb, "testdata/decode.c", "apt: gcc libc6-dev", "-I"+src, "-O1", "-g", "-Wall", "-Wextra", "-Werror",
		"-fsanitize=address,undefined", "-fno-sanitize-recover", "-DSOURCES="+sources[:8])
}

func startTheirs(tb testing.TB) *theirs {
	tb.Helper()
	cmd := exec.Command(harness(tb))
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("decode.c: %v", err)
		}
	})
	return &theirs{in, bufio.NewReaderSize(out, 1<<20)}
}

// read gives the line that the step's reader has for a configuration.
func (h *theirs) read(tb testing.TB, b []byte) string {
	tb.Helper()
	_, err := h.in.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	if err != nil {
		tb.Fatal(err)
	}
	line, err := h.out.ReadString('\n')
	if err != nil {
		tb.Fatalf("decode.c on %x: %v", b, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// ours is the same line by Decode.
func ours(b []byte) string {
	c, err := Decode(b)
	if err != nil {
		return "no"
	}
	var w strings.Builder
	fmt.Fprintf(&w, "%x", binary.LittleEndian.Uint32(b[4:]))
	if c.AppArmor != "" {
		fmt.Fprintf(&w, " a %x", c.AppArmor)
	}
	if s := c.Capabilities; s != nil {
		fmt.Fprintf(&w, " c %x %x", uint64(s.Inheritable), uint64(s.Ambient))
	}
	if l := c.Landlock; l != nil {
		fmt.Fprintf(&w, " l %x %x %x", l.HandledFS, l.HandledNet, l.Scoped)
		for _, p := range l.Paths {
			fmt.Fprintf(&w, " p %x %x", p.Access, p.Path)
		}
		for _, p := range l.Ports {
			fmt.Fprintf(&w, " t %x %x", p.Access, p.Port)
		}
	}
	for _, f := range c.Filters {
		fmt.Fprintf(&w, " f %x %x", f.Flags, f.Program)
	}
	return w.String()
}

// mutate changes a configuration as a wrong writer or a bad disk would.
func mutate(r *rand.Rand, b []byte) []byte {
	b = append([]byte(nil), b...)
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			return b
		}
		at := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2:
			b = b[:at]
		case 3:
			b = append(b, byte(r.IntN(3)))
		case 4:
			b = append(b[:at], append([]byte{byte(r.IntN(2))}, b[at:]...)...)
		default:
			if at+4 <= len(b) {
				binary.LittleEndian.PutUint32(b[at:], []uint32{0, 1, 8, 1 << 16, 1<<32 - 1, uint32(len(b))}[r.IntN(6)])
			}
		}
	}
	return b
}

// TestConfirmDecode compares Decode with the reader in the step on configurations
// whole and changed.
func TestConfirmDecode(t *testing.T) {
	h := startTheirs(t)
	check := func(name string, b []byte) {
		t.Helper()
		if theirs, ours := h.read(t, b), ours(b); theirs != ours {
			t.Fatalf("%s: %x\nthe step: %.200s\nDecode:   %.200s", name, b[:min(len(b), 100)], theirs, ours)
		}
	}
	check("empty", nil)
	check("too large", make([]byte, maxConfig+1))
	for name, row := range bounds() {
		check(name, row.c.Encode())
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	rounds := 100_000
	if testing.Short() {
		rounds = 5_000
	}
	var seeds [][]byte
	for i := range 200 {
		seeds = append(seeds, rapid.Custom(anyConfig).Example(i).Encode())
	}
	accepted := 0
	for i := range rounds {
		b := seeds[i%len(seeds)]
		if i >= len(seeds) {
			b = mutate(r, b)
		}
		check(fmt.Sprintf("seed %d, round %d", seed, i), b)
		if _, err := Decode(b); err == nil {
			accepted++
		}
	}
	// Both answers have to occur for the comparison to say something.
	if accepted < rounds/20 || accepted > rounds*19/20 {
		t.Errorf("%d of %d accepted: the changes are too many or too few", accepted, rounds)
	}
	t.Logf("%d configurations, %d accepted", rounds, accepted)
}

// TestConfirmWords wants the step's words for error numbers to be Go's.
func TestConfirmWords(t *testing.T) {
	out, err := exec.Command(harness(t), "words").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for n, words := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		if words == "" {
			continue
		}
		known++
		if want := unix.Errno(n).Error(); words != want {
			t.Errorf("%d: %q, want %q", n, words, want)
		}
	}
	if known < 20 {
		t.Errorf("words for %d numbers", known)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example().Encode())
	f.Add([]byte("PLS\x02"))
	for _, row := range bounds() {
		if b := row.c.Encode(); len(b) < 1<<16 {
			f.Add(b)
		}
	}
	// The step's own reader answers beside ours where there is a compiler.
	h := startTheirs(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if theirs, ours := h.read(t, b), ours(b); theirs != ours {
			t.Errorf("the step: %.200s\nDecode:   %.200s", theirs, ours)
		}
		c, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, again); d != "" {
			t.Error(d)
		}
	})
}

// TestBlobIsCurrent holds the embedded programs to the sources: by the recorded
// hash always, byte for byte when the compiler that made them is at hand.
func TestBlobIsCurrent(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			p := freestanding.LastStep(arch)
			blob, err := os.ReadFile(p.Name + ".bin")
			if err != nil {
				t.Fatal(err)
			}
			if len(blob) > 20_000 {
				t.Errorf("%d bytes, more than 20,000", len(blob))
			}
			note, err := p.Check(blob)
			if err != nil {
				t.Fatal(err)
			}
			if note != "" {
				oracle.Missing(t, "%s (apt: gcc gcc-aarch64-linux-gnu)", note)
			}
		})
	}
}
