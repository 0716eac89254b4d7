// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/state"
)

// TestInherited tells descriptors of the caller from those of this process.
func TestInherited(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if inherited(int(f.Fd())) {
		t.Error("a descriptor that was opened here counts as the caller's")
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !inherited(fd) {
		t.Error("a descriptor that is passed on does not count")
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if inherited(1 << 20) {
		t.Error("one that is not open counts")
	}
}

// TestAside wants what is put aside above all that is passed on.
func TestAside(t *testing.T) {
	for _, tt := range []struct {
		grammar, listen string
		words           []string
		least           int
	}{
		{"runc", "", []string{"run", "ID"}, 100},
		{"runc", "", []string{"list"}, 100},
		{"runc", "", []string{"run", "--preserve-fds", "200", "ID"}, 204},
		{"crun", "300", []string{"run", "--preserve-fds", "200", "ID"}, 504},
		{"runc", "x", []string{"run", "ID"}, 100},
		{"runc", "99999999999", []string{"run", "ID"}, 100},
		{"runc", "-5", []string{"run", "ID"}, 100},
	} {
		t.Setenv("LISTEN_FDS", tt.listen)
		g := runcGrammar(reorderKnownOptions)
		if tt.grammar == "crun" {
			g = crunGrammar("1.8.1")
		}
		c, err := parse(g, tt.words)
		if err != nil {
			t.Fatal(err)
		}
		if n := aside(c); n < tt.least || n > firstFD+2*mostPassed+100 {
			t.Errorf("%q, LISTEN_FDS=%s: %d", tt.words, tt.listen, n)
		}
	}
}

// TestEngineBundles puts the engine's bundles where runtimes name those of ours.
func TestEngineBundles(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wrapper{dir: dir}
	records := []state.Record{{Key: "a", Bundle: state.Bundle{Path: "/b"}}, {Key: "a1", Bundle: state.Bundle{Path: `/with"quote`}}}
	a, a1 := given(dir, "a"), given(dir, "a1")
	pad := func(s string) string {
		for len(s) < len(a) {
			s += " "
		}
		return s
	}
	for _, tt := range [][2]string{
		{`{"id": "a", "bundle": "` + a + `"}`, `{"id": "a", "bundle": "/b"}`},
		{`[{"bundle":"` + a1 + `"},{"bundle":"` + a + `"}]`, `[{"bundle":"/with\"quote"},{"bundle":"/b"}]`},
		{"ID  BUNDLE\na   " + a + "   now\n", "ID  BUNDLE\na   " + pad("/b") + "   now\n"},
		{`{"bundle": "/other"}`, `{"bundle": "/other"}`},
		{"", ""},
	} {
		if got := w.engineBundles(tt[0], records); got != tt[1] {
			t.Errorf("%s:\n%s\nwant\n%s", tt[0], got, tt[1])
		}
	}
}

// TestMountsRefused refuses to change the mounts of a container of ours.
func TestMountsRefused(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := dir.Create(state.Record{ID: "web", Engine: "oci"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, words := range [][]string{{"mounts", "add", "web", "mounts.json"}, {"mounts", "remove", "web", "mounts.json"}} {
		call, err := parse(crunGrammar("1.22"), words)
		if err != nil {
			t.Fatal(err)
		}
		if call.Role() != roleMounts {
			t.Fatalf("%q has the role %v", words, call.Role())
		}
		w := &wrapper{dir: dir, call: call, caller: "/"}
		if err := w.mounts(); err == nil || !strings.Contains(err.Error(), "are not changed later") {
			t.Errorf("%q: %v", words, err)
		}
	}
}

// TestNotifyPoint says where runtimes mount the folder of a service's socket.
func TestNotifyPoint(t *testing.T) {
	runc, crun := &commandLine{Grammar: runcGrammar(reorderKnownOptions)}, &commandLine{Grammar: crunGrammar("1.8.1")}
	for _, tt := range []struct {
		call         *commandLine
		socket, want string
	}{
		{runc, "", ""}, {crun, "", ""}, {runc, "/x/y", "/run/notify"}, {crun, "/run/a/../socket", "/run/socket"}, {crun, "@abstract", "/@abstract"},
	} {
		if got := notifyPoint(tt.call, tt.socket); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.socket, got, tt.want)
		}
	}
}
