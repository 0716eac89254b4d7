// SPDX-License-Identifier: Apache-2.0

package shim

import "os"

// Config says what to run and under which shields.
type Config struct {
	// Program is the path of the program: on the host, or below Mount in the volume.
	Program string
	// Args are the program's arguments, its own name first.
	Args []string
	Env  []string
	Dir  string

	Stdin, Stdout, Stderr *os.File

	// Stats has the shim count; Run fills Result.
	Stats bool
	// SignalOnly leaves all code as it is: every system call goes by the signal.
	SignalOnly bool
	// FilterOnly dispatches by the seccomp filter alone, without Syscall User Dispatch.
	FilterOnly bool
}

// Result is how the program ended and, with Stats, what the shim counted.
type Result struct {
	// Code is the exit status, or 128 + the number of the signal that ended it.
	Code int
	// Signals counts system calls that came by SIGSYS, Sites those rewritten.
	Signals, Sites uint64
}
