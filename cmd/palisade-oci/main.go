// SPDX-License-Identifier: Apache-2.0

// Command palisade-oci is an OCI runtime that confines what an engine starts and
// leaves the work to runc or crun.
package main

import (
	"os"

	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

func main() {
	os.Exit(oci.Main(os.Args[1:], func(dir *state.Dir) svirt.Authority {
		return authority.Open(dir.Path())
	}))
}
