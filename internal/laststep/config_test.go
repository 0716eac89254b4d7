// SPDX-License-Identifier: Apache-2.0

package laststep

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func example() *Config {
	return &Config{
		Gate: true, Stderr: true, NoNewPrivileges: true, AppArmor: "docker-default",
		Landlock: &Landlock{
			HandledFS: 1<<40 | 7, HandledNet: 3, Scoped: 1,
			Paths: []PathRule{{5, "/"}, {6, "/tmp"}}, Ports: []PortRule{{1, 443}},
		},
		Filters: []Filter{{4, []byte("12345678")}, {0, []byte("abcdefgh")}},
	}
}

func TestConfigRoundTrip(t *testing.T) {
	for _, c := range []*Config{{}, {Gate: true}, {Stderr: true}, {NoNewPrivileges: true}, {AppArmor: "p"}, {Landlock: &Landlock{}}, example()} {
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

func TestConfigProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &Config{Gate: rapid.Bool().Draw(t, "gate")}
		for range rapid.IntRange(0, 4).Draw(t, "filters") {
			c.Filters = append(c.Filters, Filter{rapid.Uint32().Draw(t, "flags"), rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "program")})
		}
		got, err := Decode(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(example().Encode())
	f.Add([]byte("PLS\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
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

func TestSelfFD(t *testing.T) {
	for path, want := range map[string]int{
		"/proc/self/fd/3": 3, "/proc/self/fd/17": 17, "/proc/self/fd/": -1, "/proc/self/fd/3x": -1,
		"palisade-init": -1, "/proc/self/fd/99999999999999999999": -1, "/proc/self/fd/-1": -1,
	} {
		if got := selfFD(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}
