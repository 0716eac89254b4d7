// SPDX-License-Identifier: Apache-2.0

// Command palisade confines Linux containers and explains what confines them.
package main

import (
	"os"

	"github.com/palisade-sec/palisade/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
