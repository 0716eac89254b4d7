// SPDX-License-Identifier: Apache-2.0

//go:build !linux || !amd64

package shim

import "errors"

// Run is there for 64-bit x86 Linux only.
func Run(Config) (Result, error) {
	return Result{}, errors.New("the shield's data plane runs on 64-bit x86 Linux only")
}
