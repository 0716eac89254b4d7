// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Command gen builds shim.bin from src and records in shim.sum what it was built
// from. Without a C compiler it leaves the committed blob alone when that fits
// the sources, and fails when it does not.
package main

import (
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/palisade-sec/palisade/shield/shim/internal/build"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	sources, err := build.SourceHash("src")
	if err != nil {
		log.Fatal(err)
	}
	recorded, _ := os.ReadFile("shim.sum") // none before the first build
	fits := strings.Contains(string(recorded), "sources "+sources+"\n")
	_, version, err := build.Compiler()
	if err != nil {
		if fits {
			log.Printf("no C compiler (%v): shim.bin is kept, it was built from these sources", err)
			return
		}
		log.Fatalf("no C compiler (%v), and shim.bin was built from other sources", err)
	}
	if fits && !strings.Contains(string(recorded), "compiler "+version+"\n") {
		log.Printf("shim.bin is kept: it was built from these sources by another compiler than %s", version)
		return
	}
	blob, err := build.Build("src")
	if err != nil {
		log.Fatal(err)
	}
	sum := fmt.Sprintf("sources %s\nblob %x\ncompiler %s\n", sources, sha256.Sum256(blob), version)
	if err := os.WriteFile("shim.bin", blob, 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("shim.sum", []byte(sum), 0o644); err != nil {
		log.Fatal(err)
	}
}
