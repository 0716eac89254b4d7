// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

const (
	x32Bit       = 0x40000000
	i386Keyctl   = 288
	highestErrno = 4095
)

// int80 makes a call of the 32-bit table. On a kernel without that table the
// process gets a signal.
func int80(nr, a, b, c uintptr) uintptr

// archProbes are doors that only this architecture has.
var archProbes = []spec{
	{
		name: "i386-table", group: "kernel", own: true,
		about: "go around a filter that knows only the 64-bit system calls",
		try: func(w *world) attempt {
			r := int32(int80(i386Keyctl, keyctlGetKeyringID, keySpecProcess, 0))
			if r >= 0 || r < -highestErrno {
				return open("")
			}
			errno := unix.Errno(-r)
			switch {
			case errno == unix.ENOKEY:
				return open("").at(errno)
			case errno == unix.ENOSYS && !w.seccomp:
				return notApplicable("the kernel does not have the call").at(errno)
			case w.seccomp && w.lsm(false) == "":
				// Nothing but a filter refuses a process its own key ring.
				return blocked(seccompLayer, "").at(errno)
			}
			return blocked("", "").at(errno)
		},
	},
	{
		name: "x32-table", group: "kernel",
		about: "the same through the x32 table",
		try: func(w *world) attempt {
			return w.do(call{nr: x32Bit | unix.SYS_KEYCTL, args: [6]uintptr{keyctlGetKeyringID, keySpecProcess}, past: []unix.Errno{unix.ENOKEY}})
		},
	},
	{
		name: "iopl", group: "kernel", own: true,
		about: "talk to hardware through its ports",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_IOPL, args: [6]uintptr{3}, anyOf: caps.Of(caps.SysRawio)})
		},
	},
	{
		name: "ioperm", group: "kernel", own: true,
		about: "the same for one port",
		try: func(w *world) attempt {
			return w.do(call{nr: unix.SYS_IOPERM, args: [6]uintptr{0x80, 1, 1}, anyOf: caps.Of(caps.SysRawio)})
		},
	},
}
