// SPDX-License-Identifier: Apache-2.0

// Command palisade-lxc is what libvirt starts for a container in the place of its
// own libvirt_lxc: it confines the container and leaves the work to libvirt_lxc.
package main

import (
	"os"
	"runtime"

	"github.com/palisade-sec/palisade/internal/engine/lxc"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// A mount namespace is a thread's, and the thread that has it is to become
// libvirt_lxc.
func init() { runtime.LockOSThread() }

func main() {
	os.Exit(lxc.Main(os.Args[1:], func(dir *state.Dir) svirt.Authority {
		return authority.Open(dir.Path())
	}))
}
