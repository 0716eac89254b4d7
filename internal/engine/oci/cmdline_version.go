// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"slices"
	"strconv"
	"strings"
)

// at leaves out what the version does not have. All stays for an empty version.
func (g *grammar) at(version string) *grammar {
	if version == "" {
		return g
	}
	gone := func(since, until string) bool {
		return since != "" && older(version, since) || until != "" && !older(version, until)
	}
	less := func(table []option) []option {
		return slices.DeleteFunc(table, func(o option) bool { return gone(o.Since, o.Until) })
	}
	g.Options = less(g.Options)
	g.Commands = slices.DeleteFunc(g.Commands, func(c command) bool { return gone(c.Since, "") })
	for i := range g.Commands {
		g.Commands[i].Options = less(g.Commands[i].Options)
	}
	return g
}

// older compares versions by their numbers; what follows the numbers does not
// count.
func older(a, b string) bool { return slices.Compare(numbers(a), numbers(b)) < 0 }

func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		end := 0
		for end < len(part) && part[end] >= '0' && part[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		out = append(out, n)
		if end < len(part) {
			break
		}
	}
	return out
}
