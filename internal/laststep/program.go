// SPDX-License-Identifier: Apache-2.0

package laststep

import (
	"errors"
	"fmt"
	"runtime"
)

// errNoProgram says that the last step was not built for this machine.
var errNoProgram = errors.New("no last step")

// Program is the last step as an executable for this machine. It must not be
// changed. The error is [errNoProgram].
func Program() ([]byte, error) {
	if len(program) == 0 {
		return nil, fmt.Errorf("%w for %s", errNoProgram, runtime.GOARCH)
	}
	return program, nil
}
