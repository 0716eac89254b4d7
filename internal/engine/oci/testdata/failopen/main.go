// SPDX-License-Identifier: Apache-2.0

// Command failopen is what the fail-open table runs. By its name it is
//
//   - outer: runs a command in a mount namespace without the unified hierarchy of
//     control groups, with a small state folder, or below a filter
//   - probe or foreign: the workload, which reports what confines it
//   - runc or crun: a runtime that commits a fault and then becomes the real one
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	var err error
	switch name := filepath.Base(os.Args[0]); name {
	case "outer":
		err = outer()
	case "probe", "foreign":
		err = probe(name)
	case "hook":
		err = hook()
	default:
		err = faulty(name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failopen:", err)
		os.Exit(99)
	}
}
