// SPDX-License-Identifier: Apache-2.0

package lxc

import (
	"slices"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	// What libvirt 9.0 writes, with all that it can have.
	line := "--palisade-state /s --name web --console 17 --console 18 --passfd 30 --share-net 25 --security=none --palisade-policy=strict --handshakefds 21:20 --veth vnet0"
	c, err := parseArgs(strings.Fields(line))
	if err != nil {
		t.Fatal(err)
	}
	if c.own["state"] != "/s" || c.own["policy"] != "strict" || c.name() != "web" || !slices.Equal(c.fds("console"), []int{17, 18}) || slot(c) != 4 {
		t.Errorf("%+v", c)
	}
	c.moved(20, 101)
	c.moved(17, 102)
	c.set("security", "selinux")
	c.pass(4, 5, 6)
	want := "--name web --console 102 --console 18 --passfd 30 --share-net 25 --security selinux --handshakefds 21:101 --veth vnet0 --passfd 4 --passfd 5 --passfd 6"
	if got := strings.Join(c.args(), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{
		"", "--name web", "--handshakefds 1:2", "--name web --handshakefds 1", "--name web --handshakefds 1:x", "--name web --handshakefds 1:2:3",
		"--name web --handshakefds 1:2 --background", "--name web --handshakefds 1:2 --console -1", "--name web --handshakefds 1:2 --console 1:2",
		"--name web --handshakefds 1:2 --share-pid 4", "web", "--name", "-n web --handshakefds 1:2", "--name web --handshakefd 7",
	} {
		if _, err := parseArgs(strings.Fields(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("--name web --handshakefds 1:2 --passfd 4")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parseArgs(strings.Fields(line))
		if err != nil {
			return
		}
		again, err := parseArgs(c.args())
		if err != nil || !slices.Equal(again.options, c.options) {
			t.Fatalf("%q became %q: %v", line, c.args(), err)
		}
	})
}
