// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"slices"
	"time"
)

// layerNames are the layers in the order in which they are shown.
var layerNames = []string{
	"selinux", "apparmor", "seccomp", "no_new_privileges", "capabilities", "landlock", "user", "mounts", "root", "descriptors", "namespaces",
}

// Layer is what was asked of one layer beside what is in force.
type Layer struct {
	Layer string `json:"layer"`
	// Asked and Effective have the form that the layer has in a [State]. Effective is
	// nil when nothing runs.
	Asked     any `json:"asked"`
	Effective any `json:"effective"`
	// VerifiedAt is when the two were compared; nil when nothing runs.
	VerifiedAt *time.Time `json:"verified_at"`
	// Mismatches are the places where less is in force.
	Mismatches []Mismatch `json:"mismatches"`
}

// Layers puts what was asked beside what was found at a time; found is nil when
// nothing runs. All layers are there, in the order of [layerNames].
func Layers(asked State, found *State, at time.Time) []Layer {
	var mismatches []Mismatch
	if found != nil {
		mismatches = Compare(asked, *found)
	}
	out := make([]Layer, 0, len(layerNames))
	for _, name := range layerNames {
		l := Layer{Layer: name, Asked: asked.layer(name), Mismatches: []Mismatch{}}
		if found != nil {
			l.Effective, l.VerifiedAt = found.layer(name), &at
			l.Mismatches = append(l.Mismatches, slices.DeleteFunc(slices.Clone(mismatches), func(m Mismatch) bool { return m.Layer != name })...)
		}
		out = append(out, l)
	}
	return out
}

// user is the part of a [State] that is about users and groups.
type user struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Mounts is the part of a [State] that is about mounts.
type Mounts struct {
	Root          *Mount   `json:"root"`
	ReadOnlyRoot  bool     `json:"read_only_root"`
	MaskedPaths   []string `json:"masked_paths"`
	ReadOnlyPaths []string `json:"read_only_paths"`
	Mounts        []Mount  `json:"mounts"`
	Devices       []Mount  `json:"devices"`
	Links         []string `json:"links"`
}

func (st *State) layer(name string) any {
	switch name {
	case "selinux":
		if st.SELinux != "" && st.Permissive {
			return st.SELinux + ", permissive"
		}
		return st.SELinux
	case "apparmor":
		return st.AppArmor
	case "seccomp":
		return st.Seccomp
	case "no_new_privileges":
		return st.NoNewPrivileges
	case "capabilities":
		return st.Capabilities
	case "landlock":
		return st.Landlock
	case "user":
		return user{st.UID, st.GID, st.Groups}
	case "mounts":
		return Mounts{st.Root, st.ReadOnlyRoot, st.MaskedPaths, st.ReadOnlyPaths, st.Mounts, st.Devices, st.Links}
	case "root":
		return append([]string{}, st.Outside...)
	case "descriptors":
		return append([]Descriptor{}, st.Descriptors...)
	case "namespaces":
		return st.Namespaces
	}
	return nil
}
