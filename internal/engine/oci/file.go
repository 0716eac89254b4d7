// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a file that an engine wrote: in bytes, and for a pipe in time.
const (
	maxFile     = 16 << 20
	readTimeout = 30 * time.Second
)

// readFile reads a file that an engine wrote, whatever it is: a file, a link to one,
// or a pipe.
func readFile(path string) (*os.File, []byte, error) {
	// Without waiting for a writer that may never come.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	_ = f.SetReadDeadline(time.Now().Add(readTimeout)) // of what can be waited for
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
