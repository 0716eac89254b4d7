// SPDX-License-Identifier: Apache-2.0

package cbpf

import (
	"fmt"
	"strconv"
	"strings"
)

// Action is what a seccomp filter returns: an action in the upper 16 bits and
// its data in the lower. Source: include/uapi/linux/seccomp.h.
type Action uint32

// The actions. ERRNO and TRACE carry data; see Errno and Trace.
const (
	KillProcess Action = 0x80000000
	KillThread  Action = 0x00000000
	Trap        Action = 0x00030000
	ErrnoBase   Action = 0x00050000
	Notify      Action = 0x7fc00000
	TraceBase   Action = 0x7ff00000
	Log         Action = 0x7ffc0000
	Allow       Action = 0x7fff0000
)

// Errno makes the system call fail with an error number. The kernel replaces
// numbers above 4095 by 4095.
func Errno(n uint16) Action { return ErrnoBase | Action(n) }

// Trace hands the call to a tracer with a message; without a tracer the call
// fails with ENOSYS.
func Trace(n uint16) Action { return TraceBase | Action(n) }

// Base is the action without its data.
func (a Action) Base() Action { return a & 0xffff0000 }

// Data is the lower 16 bits.
func (a Action) Data() uint16 { return uint16(a) }

// Rank orders actions as the kernel does when several filters answer: the
// lowest rank wins. A value that is none of the actions kills the process.
// Source: kernel/seccomp.c, seccomp_run_filters.
func (a Action) Rank() int32 { return int32(a.Base()) }

// Permits tells whether the call is executed in the ordinary case: ALLOW and LOG.
func (a Action) Permits() bool { return a.Base() == Allow || a.Base() == Log }

// String is ALLOW, LOG, ERRNO(1), TRACE(1), TRAP, NOTIFY, KILL_THREAD or
// KILL_PROCESS. Data that the kernel ignores is left out.
func (a Action) String() string {
	switch a.Base() {
	case KillProcess:
		return "KILL_PROCESS"
	case KillThread:
		return "KILL_THREAD"
	case Trap:
		if a.Data() != 0 {
			return "TRAP(" + strconv.Itoa(int(a.Data())) + ")"
		}
		return "TRAP"
	case ErrnoBase:
		return "ERRNO(" + strconv.Itoa(int(a.Data())) + ")"
	case Notify:
		return "NOTIFY"
	case TraceBase:
		return "TRACE(" + strconv.Itoa(int(a.Data())) + ")"
	case Log:
		return "LOG"
	case Allow:
		return "ALLOW"
	}
	return fmt.Sprintf("UNKNOWN(%#08x)", uint32(a))
}

// MarshalText makes the action readable in JSON.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// ParseAction reads what String writes; KILL stands for KILL_THREAD.
func ParseAction(s string) (Action, error) {
	name, rest, data := strings.Cut(s, "(")
	var n uint64
	if data {
		var err error
		if n, err = strconv.ParseUint(strings.TrimSuffix(rest, ")"), 0, 16); err != nil || !strings.HasSuffix(rest, ")") {
			return 0, fmt.Errorf("malformed action %q", s)
		}
	}
	switch name {
	case "ERRNO":
		if data {
			return Errno(uint16(n)), nil
		}
		return 0, fmt.Errorf("action %q lacks its error number", s)
	case "TRACE":
		return Trace(uint16(n)), nil
	case "TRAP":
		return Trap | Action(n), nil
	}
	if !data {
		switch name {
		case "ALLOW":
			return Allow, nil
		case "LOG":
			return Log, nil
		case "NOTIFY":
			return Notify, nil
		case "KILL", "KILL_THREAD":
			return KillThread, nil
		case "KILL_PROCESS":
			return KillProcess, nil
		}
	}
	return 0, fmt.Errorf("unknown action %q", s)
}
