// SPDX-License-Identifier: Apache-2.0

package shim

import _ "embed"

// blob is the shim as an executable, built from src by gen.go. The file beside
// it, shim.sum, records the hash of the sources that it was built from.
//
//go:embed shim.bin
var blob []byte
