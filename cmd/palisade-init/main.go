// SPDX-License-Identifier: Apache-2.0

// Command palisade-init is the last step before the workload inside a confined
// container. Palisade hands it over by a file descriptor; it is not for running
// by hand.
package main

import (
	"os"
	"runtime"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// What the kernel is asked for counts for one thread, and only the first can
// execute another program in its place without a stop.
func init() { runtime.LockOSThread() }

func main() { laststep.Main(os.Args) }
