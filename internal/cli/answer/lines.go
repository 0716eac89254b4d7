// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bufio"
	"errors"
	"fmt"
)

// maxLine bounds a line of standard input.
const maxLine = 1 << 20

// EachLine calls fn for every line of standard input, counted from 1, until fn
// fails.
func (e *Env) EachLine(fn func(n int, line string) error) error {
	in := bufio.NewScanner(e.Stdin)
	in.Buffer(make([]byte, 64<<10), maxLine)
	n := 1
	for ; in.Scan(); n++ {
		if err := fn(n, in.Text()); err != nil {
			return err
		}
	}
	switch err := in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("standard input, line %d: more than %d bytes", n, maxLine)
	case err != nil:
		return fmt.Errorf("standard input: %w", err)
	}
	return nil
}
