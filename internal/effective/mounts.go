// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// mount is one line of /proc/PID/mountinfo.
type mount struct {
	root, point string
	options     []string
	fstype      string
	source      string
	super       []string
}

func (m mount) readOnly() bool {
	return slices.Contains(m.options, "ro") || slices.Contains(m.super, "ro")
}

// readMounts parses mountinfo.
//
// Source: fs/proc_namespace.c, show_mountinfo.
func readMounts(r io.Reader) ([]mount, error) {
	var out []mount
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		left, right := strings.Fields(before), strings.Split(after, " ")
		if !ok || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("mountinfo: line %q is not of its form", sc.Text())
		}
		out = append(out, mount{
			root: unescape(left[3]), point: unescape(left[4]), options: strings.Split(left[5], ","),
			fstype: right[0], source: unescape(right[1]), super: strings.Split(right[2], ","),
		})
	}
	return out, sc.Err()
}

// unescape undoes what seq_escape does to spaces, tabs, newlines and
// backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			n, ok := 0, true
			for _, c := range s[i+1 : i+4] {
				ok = ok && c >= '0' && c <= '7'
				n = n<<3 | int(c-'0')
			}
			if ok && n < 256 {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// covering is the mount that a path is on: the last of those with the longest
// mount point above it. ok is false in an empty namespace.
func covering(mounts []mount, p string) (best mount, ok bool) {
	for _, m := range mounts {
		above := m.point == p || m.point == "/" || strings.HasPrefix(p, m.point+"/")
		if above && len(m.point) >= len(best.point) {
			best, ok = m, true
		}
	}
	return best, ok
}

// masked tells whether something harmless is mounted over p: /dev/null over a
// file, an empty read-only file system over a folder.
func masked(mounts []mount, p string) bool {
	m, ok := covering(mounts, p)
	if !ok || m.point != p {
		return false
	}
	return m.root == "/null" || (m.fstype == "tmpfs" && m.readOnly())
}

// readOnly tells whether p cannot be written to.
func readOnly(mounts []mount, p string) bool {
	m, ok := covering(mounts, p)
	return ok && m.readOnly()
}
