// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"strings"
)

// DockerDefaultName is the name under which Docker looks for its default
// profile.
const DockerDefaultName = "docker-default"

// ContainerProfile says what a profile for containers is to be. The zero value
// is Docker's default.
type ContainerProfile struct {
	Name string // DockerDefaultName when empty
	// Senders are the profiles besides "unconfined" whose processes may send
	// signals into the container: those of the engine and of the OCI runtime. nil
	// means runc and crun.
	Senders []string
	// Capabilities and Families are those of them that the container may use, in
	// the language's spelling; nil means all.
	Capabilities, Families []string
	// NoTrace keeps the container's processes from debugging each other; they may
	// still look at each other below /proc.
	NoTrace bool
	// Blind keeps them from looking at each other too, as Podman's profile does.
	Blind bool
	// Hidden are paths that the container neither reads nor writes, ReadOnly such
	// that it does not write, both with all that is below them.
	Hidden, ReadOnly []string
}

// sealed are the parts of /proc and /sys that a container neither reads nor
// writes: memory and crash of the host, keys of its firmware, its power
// counters (a side channel) and its security modules.
var sealed = []string{
	"/proc/sysrq-trigger", "/proc/kcore", "/sys/firmware/**", "/sys/devices/virtual/powercap/**",
	"/sys/kernel/security/**",
}

// Text is the profile as text that needs no other file.
//
// The rule is an intent, not a list of patterns: below /proc a container writes
// to the folders of processes and to /proc/sys/kernel/shm*, and nowhere else;
// below /sys it writes to /sys/fs/cgroup, and nowhere else. The patterns are the
// exact complements of these sets, so that what is meant and what is denied are
// the same.
func (c ContainerProfile) Text() []byte {
	name := c.Name
	if name == "" {
		name = DockerDefaultName
	}
	senders := c.Senders
	if senders == nil {
		senders = []string{"runc", "crun"}
	}
	q := quoteWord(name)
	// A process that entered the container from outside of it, as "exec" does on
	// some engines, carries both labels.
	self := quoteWord("{" + Exactly(name) + "," + Exactly(name) + "//&unconfined}")
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# The profile of containers. Generated; see 'palisade apparmor generate --help'.")
	line("abi <abi/3.0>,\n")
	line("profile %s flags=(attach_disconnected, mediate_deleted) {", q)
	line("  # Capabilities and system calls are other mechanisms' work; sockets too.")
	for _, r := range []struct {
		keyword string
		only    []string
	}{{"network", c.Families}, {"capability", c.Capabilities}} {
		if r.only == nil {
			line("  %s,", r.keyword)
		}
		for _, word := range r.only {
			line("  %s %s,", r.keyword, word)
		}
	}
	line("  file,\n  umount,\n")
	line("  # Signals: from the host, the engine and the OCI runtime, and among the")
	line("  # processes of the container.")
	line("  signal (receive) peer=unconfined,")
	for _, s := range senders {
		line("  signal (receive) peer=%s,", quoteWord(s))
	}
	line("  signal (send, receive) peer=%s,\n", self)
	line("  # Debugging: within the container, and from the host.")
	switch {
	case c.Blind:
	case c.NoTrace:
		line("  ptrace (read, readby) peer=%s,", self)
	default:
		line("  ptrace (trace, read, tracedby, readby) peer=%s,", self)
	}
	line("  ptrace (tracedby, readby) peer=unconfined,\n")
	line("  deny mount,\n")
	line("  # Below /proc: writes only to the folders of processes and to")
	line("  # /proc/sys/kernel/shm*.")
	line("  deny /proc/* w,")
	line("  deny /proc/%s/** w,", notProcess())
	line("  deny /proc/sys/%s w,\n", notPrefixed("kernel/shm"))
	line("  # Below /sys: writes only to /sys/fs/cgroup.")
	line("  deny /sys/%s wklx,\n", notPrefixed("fs/cgroup/"))
	line("  # Nothing at all.")
	for _, p := range sealed {
		line("  deny %s rwklx,", p)
	}
	for _, p := range c.Hidden {
		line("  deny %s rwklx,", quoteWord(Below(p)))
	}
	for _, p := range c.ReadOnly {
		line("  deny %s wl,", quoteWord(Below(p)))
	}
	line("}")
	return []byte(b.String())
}

// Below is the glob of exactly a path and all that is below it.
func Below(path string) string { return Exactly(strings.TrimRight(path, "/")) + "{,/,/**}" }

// Exactly is the glob of exactly one name or path.
func Exactly(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if strings.IndexByte(`*?[]{}^,\`, name[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// notPrefixed is the glob of exactly the strings that do not begin with s. At
// each character either the string ends, or another one stands there and then
// anything, or it is the character and the rest decides.
func notPrefixed(s string) string {
	out := ""
	for i := len(s) - 1; i >= 0; i-- {
		c := string(s[i])
		if out == "" {
			out = "{,[^" + c + "]**}"
			continue
		}
		out = "{,[^" + c + "]**," + c + out + "}"
	}
	return out
}

// maxPIDDigits is the length of the largest process ID, 4194304.
//
// Source: include/linux/threads.h, PID_MAX_LIMIT.
const maxPIDDigits = 7

// notProcess is the glob of exactly the names in /proc that are neither a
// process ID nor "sys".
func notProcess() string {
	return "{[^1-9s/]*,[1-9]" + digitsThenOther(maxPIDDigits-1) + ",s{,[^y/]*,y{,[^s/]*,s[^/]*}}}"
}

// digitsThenOther is the glob of up to n digits, then a character that is none,
// then anything; or of more than n digits.
func digitsThenOther(n int) string {
	if n == 0 {
		return "[^/]*"
	}
	return "{[^0-9/]*,[0-9]" + digitsThenOther(n-1) + "}"
}
