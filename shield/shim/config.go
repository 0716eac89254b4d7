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

	// Volume is a sealed volume, shown at Mount, an absolute path ("/" for everything).
	// Without one the program's files are those of the host.
	Volume string
	Mount  string
	// Key is the volume's key, 32 bytes. Run does not keep it.
	Key []byte
	// MinGeneration refuses a volume that is older.
	MinGeneration uint64
	// ReadOnly refuses changes.
	ReadOnly bool
	// CacheBytes bounds the opened content in memory (0: 256 MiB).
	CacheBytes int64

	// ConsoleKey, 32 bytes, seals what the program writes to Stdout and Stderr;
	// OpenConsole reads it. Needs a volume.
	ConsoleKey []byte

	// Stats has the shim count; Run fills Result.
	Stats bool
	// SignalOnly leaves all code as it is: every system call goes by the signal.
	SignalOnly bool
	// UserDispatch takes calls over by Syscall User Dispatch as well as by the seccomp filter.
	UserDispatch bool
}

// Result is how the program ended and, with Stats, what the shim counted.
type Result struct {
	// Code is the exit status, or 128 + the number of the signal that ended it.
	Code int
	// Generation is that of the volume's last committed state.
	Generation uint64
	// Signals counts system calls that came by SIGSYS, Sites those rewritten.
	Signals, Sites uint64
}
