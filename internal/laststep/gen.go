// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Command gen builds the last step from src for each machine, and records in the
// sum files what the blobs were built from.
package main

import (
	"log"

	"github.com/palisade-sec/palisade/internal/freestanding"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	for _, arch := range []string{"amd64", "arm64"} {
		note, err := freestanding.LastStep(arch).Generate()
		if err != nil {
			log.Fatal(err)
		}
		if note != "" {
			log.Print(note)
		}
	}
}
