// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a kernel version, ordered like one: major<<16 | minor<<8 | patch.
// The zero Version is "not known".
type Version uint32

// V makes a version of its three parts, each below 256.
func V(major, minor, patch uint8) Version {
	return Version(major)<<16 | Version(minor)<<8 | Version(patch)
}

func (v Version) String() string {
	if p := uint8(v); p != 0 {
		return fmt.Sprintf("%d.%d.%d", v>>16, uint8(v>>8), p)
	}
	return fmt.Sprintf("%d.%d", v>>16, uint8(v>>8))
}

// MarshalText makes the version readable in JSON.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MajorMinor drops the patch level, as Docker's minKernel does.
func (v Version) MajorMinor() Version { return v &^ 0xff }

// ParseVersion reads the leading numbers of a release: "6.1", "6.1.0-25-amd64",
// "4.15-rc1".
func ParseVersion(s string) (Version, error) {
	var part [3]uint8
	rest := s
	n := 0
	for n < 3 {
		end := 0
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		if end == 0 {
			break
		}
		u, err := strconv.ParseUint(rest[:end], 10, 16)
		if err != nil {
			return 0, fmt.Errorf("kernel version %q: number out of range", s)
		}
		// Stable releases went past 255 once (4.9.337); such a patch level
		// still sorts behind all lower ones.
		part[n] = uint8(min(u, 255))
		n++
		if rest = rest[end:]; !strings.HasPrefix(rest, ".") {
			break
		}
		rest = rest[1:]
	}
	if n < 2 {
		return 0, fmt.Errorf("kernel version %q: want MAJOR.MINOR", s)
	}
	return V(part[0], part[1], part[2]), nil
}
