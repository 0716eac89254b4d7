// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"crypto/sha256"
	_ "embed"
)

// blob is the shim as an executable, built from src by gen.go. The file beside
// it, shim.sum, records the hash of the sources that it was built from.
//
//go:embed shim.bin
var blob []byte

// Digest names the shim: the SHA-256 of its executable, as a measurement covers it.
func Digest() [32]byte { return sha256.Sum256(blob) }
