// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFindOverlay(t *testing.T) {
	const (
		root  = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,seclabel\n"
		plain = "90 22 0:40 / /run/r rw,relatime shared:9 - overlay overlay rw,seclabel,lowerdir=/a/1/fs,upperdir=/a/2/fs,workdir=/a/2/work,index=off\n"
	)
	for _, tt := range []struct {
		name, mountinfo string
		want            overlay
		found           bool
	}{
		{"labels of its own", root + plain, overlay{unix.MS_RELATIME, "lowerdir=/a/1/fs,upperdir=/a/2/fs,workdir=/a/2/work,index=off"}, true},
		{"one context", root + strings.Replace(plain, "seclabel", `context="u:r:t:s0:c1,c2"`, 1), overlay{}, false},
		{"read-only", root + "90 22 0:40 / /run/r ro,nodev,relatime - overlay o ro,seclabel,lowerdir=/a/1:/a/2\n", overlay{unix.MS_RDONLY | unix.MS_NODEV | unix.MS_RELATIME, "lowerdir=/a/1:/a/2"}, true},
		{"layers relative to an unknown folder", root + strings.Replace(plain, "lowerdir=/a/", "lowerdir=", 1), overlay{}, false},
		{"a comma in a name", root + strings.Replace(plain, "/a/1/fs", `/a/1\134,2/fs`, 1), overlay{unix.MS_RELATIME, `lowerdir=/a/1\,2/fs,upperdir=/a/2/fs,workdir=/a/2/work,index=off`}, true},
		{"another on top", root + plain + "91 90 0:41 / /run/r rw - tmpfs t rw,seclabel\n", overlay{}, false},
		{"a bind mount of a part", root + strings.Replace(plain, "0:40 / ", "0:40 /x ", 1), overlay{}, false},
		{"a folder", root, overlay{}, false},
		{"SELinux off", root + strings.Replace(plain, "seclabel,", "", 1), overlay{}, false},
	} {
		got, found, err := findOverlay(strings.NewReader(tt.mountinfo), "/run/r")
		if err != nil || found != tt.found || found && got != tt.want {
			t.Errorf("%s: got %+v, %v, %v; want %+v, %v", tt.name, got, found, err, tt.want, tt.found)
		}
	}
}
