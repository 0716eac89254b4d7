// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"os"

	"github.com/palisade-sec/palisade/internal/atomicfile"
)

// WriteFile writes a file whole or not at all; a device or pipe is written to.
func WriteFile(path string, b []byte) error {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return os.WriteFile(path, b, 0o644)
	}
	return atomicfile.File{Mode: 0o644}.Write(path, b)
}
