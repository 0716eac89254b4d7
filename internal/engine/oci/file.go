// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const maxFile = 16 << 20

// readFile reads a file that an engine wrote, whatever it is: a file, a link to one,
// or a pipe.
func readFile(path string) (*os.File, []byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, b, nil
}
