// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Command gen builds shim.bin from src and records in shim.sum what it was built
// from. Without a C compiler it leaves the committed blob alone when that fits
// the sources, and fails when it does not.
package main

import (
	"log"

	"github.com/palisade-sec/palisade/internal/freestanding"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	note, err := freestanding.Shim().Generate()
	if err != nil {
		log.Fatal(err)
	}
	if note != "" {
		log.Print(note)
	}
}
