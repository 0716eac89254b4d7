// SPDX-License-Identifier: Apache-2.0

// Package container holds the SELinux policy for containers on hosts whose own
// policy has none, as Debian's and Ubuntu's. It is one CIL module, small enough
// to be read in one sitting; the host's own semodule links it into the policy.
//
// The module is for policies that come from refpolicy. Where container-selinux
// or refpolicy's container module is there (Fedora, RHEL, Gentoo), that is to be
// used: see [Check].
package container

import (
	_ "embed"
	"slices"
)

// Name is the module's name in the host's module store.
const Name = "palisade_container"

//go:embed palisade_container.cil
var module []byte

// Module returns the CIL source of the module.
func Module() []byte { return slices.Clone(module) }

// Types that the module declares.
const (
	Domain     = "container_t"         // every container
	InitDomain = "container_init_t"    // containers that run an init system
	Privileged = "spc_t"               // confined by nothing
	File       = "container_file_t"    // what a container may change
	ReadOnly   = "container_ro_file_t" // what every container may read and run
	State      = "container_var_lib_t" // an engine's state
)

// requires are types and attributes of refpolicy's base that the module builds
// on; a policy without one of them is no refpolicy.
var requires = []string{
	"domain", "file_type", "filesystem_type", "initrc_t", "init_t", "netlabel_peer_t",
	"node_type", "port_type", "process_uncond_exempt", "unconfined_domain_type",
}

// Verdict says whether the module can be linked into a policy.
type Verdict struct {
	OK bool
	// Present are types of the module that the policy declares already: it has
	// container types of its own, and they are to be used.
	Present []string
	// Missing are types or attributes that the module builds on and that the
	// policy lacks: it does not come from refpolicy.
	Missing []string
}

// Check tells whether the module can be linked into a policy, given whether that
// declares a type or attribute of a name.
func Check(declares func(name string) bool) Verdict {
	var v Verdict
	for _, t := range []string{Domain, InitDomain, Privileged, File, ReadOnly, State} {
		if declares(t) {
			v.Present = append(v.Present, t)
		}
	}
	for _, t := range requires {
		if !declares(t) {
			v.Missing = append(v.Missing, t)
		}
	}
	v.OK = len(v.Present) == 0 && len(v.Missing) == 0
	return v
}
