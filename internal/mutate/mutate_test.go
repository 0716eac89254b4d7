// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// subject has a line for each kind of mutant. Its tests notice some.
const subject = `package subject

import "errors"

var ErrOdd = errors.New("odd")

var table = []int{10, 20}

type flag = bool

type level uint8

const top level = 3

// Noticed is tested in full.
func Noticed(n int) (int, error) {
	if n%2 != 0 {
		return 0, ErrOdd
	}
	sum := 0
	for i := range n {
		if i == 3 {
			continue
		}
		sum += i << 1
	}
	return sum, nil
}

// Ignored is called, and its result is ignored.
func Ignored(n int, b flag) int {
	if n > table[1] && b {
		n = 7
	}
	return n &^ 4
}

// Unreached is never called.
func Unreached(l level) bool { return l < top }

// Waits hangs when its condition is changed.
func Waits(done bool) {
	if !done {
		select {}
	}
}

// Spins needs for ever when its condition is changed.
func Spins(n uint8) (m int) {
	for n > 0 {
		n--
		m++
	}
	return m
}
`

const subjectTests = `package subject

import (
	"errors"
	"testing"
)

func TestNoticed(t *testing.T) {
	for n, want := range map[int]int{0: 0, 2: 2, 4: 6, 8: 50} {
		if got, err := Noticed(n); got != want || err != nil {
			t.Errorf("%d: %d, %v", n, got, err)
		}
	}
	if got, err := Noticed(3); got != 0 || !errors.Is(err, ErrOdd) {
		t.Error(got, err)
	}
}

func TestIgnored(t *testing.T) { Ignored(30, true); Ignored(3, false) }
func TestWaits(t *testing.T)   { Waits(true) }
func TestFails(t *testing.T)   { t.Error("always") }
func TestSkips(t *testing.T)   { t.Skip(Unreached(1)) }

func TestSpins(t *testing.T) {
	if m := Spins(5); m != 5 {
		t.Error(m)
	}
}
`

// TestMutate finds out about a small package what its tests notice.
func TestMutate(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and waits")
	}
	if _, err := exec.LookPath("unshare"); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(cache, "palisade-mutate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"go.mod": "module example.test/m\n\ngo 1.26\n", "subject/subject.go": subject, "subject/subject_test.go": subjectTests,
		"same.txt": "# comment\n\nsubject/subject.go Ignored: n &^ 4 => n & 4 ## an example\n", "bad.txt": "subject/x y\n", "twice.txt": "a ## b\na ## c\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out strings.Builder
	err = run(&out, options{workers: 4, slow: 20 * time.Second, verbose: true, min: 50}, "same.txt", []string{"./subject"})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	got := map[string][]string{}
	for line := range strings.Lines(out.String()) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) == 3 {
			_, change, _ := strings.Cut(f[2], "subject/subject.go ")
			got[f[0]] = append(got[f[0]], change)
		}
	}
	for what, want := range map[string][]string{
		"killed": {
			"Noticed: n % 2 => n * 2", "Noticed: 2 => 2+1", "Noticed: n%2 != 0 => n%2 == 0", "Noticed: ErrOdd => nil", "Noticed: 0 => 0+1 #2", "Noticed: i == 3 => i != 3",
			"Noticed: continue => break", "Noticed: sum += i << 1 => ", "Noticed: sum += i << 1 => sum -= i << 1", "Noticed: i << 1 => i >> 1", "Waits: !done => done",
			"Spins: m++ => ", "Spins: n-- => ", "Spins: n > 0 => n >= 0", "Spins: n > 0 => n <= 0", "Spins: m => 0",
		},
		"survived":  {"table: 10 => 10+1", "Ignored: n > table[1] && b => n > table[1] || b", "Ignored: b => !b", "Ignored: n = 7 => ", "Ignored: 7 => 7+1", "Ignored: n &^ 4 => 0"},
		"unreached": {"Unreached: l < top => l <= top", "Unreached: l < top => l >= top"},
	} {
		for _, w := range want {
			if !slices.Contains(got[what], strings.TrimSpace(w)) {
				t.Errorf("%s is not %s", w, what)
			}
		}
	}
	for _, w := range []string{"left out: ./subject TestFails", "left out: ./subject TestSkips", "1 equivalent"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("nothing of %q", w)
		}
	}
	if strings.Contains(out.String(), "Ignored: n &^ 4 => n & 4") {
		t.Error("a mutant that changes nothing was tried")
	}
	if t.Failed() {
		t.Log(out.String())
	}

	// Samples are the same for one seed, and the bar is one.
	sample := func(seed uint64) string {
		var out strings.Builder
		if err := run(&out, options{workers: 2, slow: 20 * time.Second, sample: 5, seed: seed, verbose: true, match: "Noticed"}, "none.txt", []string{"./subject"}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if a, b := sample(3), sample(3); a != b || strings.Count(a, "killed\t") != 5 {
		t.Errorf("%s\nand\n%s", a, b)
	}
	if err := run(&out, options{workers: 2, slow: 20 * time.Second, min: 100, match: "Ignored"}, "none.txt", []string{"./subject"}); err == nil || !strings.Contains(err.Error(), "fewer than 100.0 %") {
		t.Errorf("below the bar: %v", err)
	}
	for _, name := range []string{"bad.txt", "twice.txt"} {
		if err := run(&out, options{}, name, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := run(&out, options{}, "none.txt", []string{"./none"}); err == nil {
		t.Error("a package that is not there")
	}
}
