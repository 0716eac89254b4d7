// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/launch/profile"
)

// hostNetwork reports whether a container has the host's network.
func hostNetwork(s *specs.Spec) bool {
	if s.Linux == nil {
		return true
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path != "" && sameAsOurs(ns.Path)
		}
	}
	return true
}

// sameAsOurs reports whether a path names the network namespace of this process.
func sameAsOurs(path string) bool {
	theirs, err1 := os.Stat(path)
	ours, err2 := os.Stat("/proc/self/ns/net")
	return err1 == nil && err2 == nil && os.SameFile(theirs, ours)
}

// writableVolumes are the destinations of volumes that the engine mounts for writing.
func writableVolumes(s *specs.Spec) []string {
	var out []string
	for _, m := range s.Mounts {
		bind, ro := isBind(m)
		if bind && !ro && strings.HasPrefix(m.Destination, "/") {
			out = append(out, m.Destination)
		}
	}
	return out
}

// joinedProcess is the process whose PID namespace a container joins, 0 for none.
func joinedProcess(s *specs.Spec) int {
	if s.Linux == nil {
		return 0
	}
	for _, ns := range s.Linux.Namespaces {
		if rest, ok := strings.CutPrefix(ns.Path, "/proc/"); ok && ns.Type == specs.PIDNamespace {
			number, _, _ := strings.Cut(rest, "/")
			pid, _ := strconv.Atoi(number) // 0 for what is no number
			return pid
		}
	}
	return 0
}

// readOnly are the destinations of what the engine mounts from the host for
// reading only, and below which it mounts nothing.
func readOnly(s *specs.Spec) []string {
	var out []string
	for i, m := range s.Mounts {
		bind, ro := isBind(m)
		var others []string
		for j, o := range s.Mounts {
			if j != i {
				others = append(others, o.Destination)
			}
		}
		if bind && ro && strings.HasPrefix(m.Destination, "/") && m.Destination != "/" {
			out = append(out, profile.Unmounted([]string{m.Destination}, others)...)
		}
	}
	return out
}
