// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
)

// ErrUse is the error of a use of a system call that cannot be told from others:
// its name is unknown, or the call has conditions of its own.
var ErrUse = errors.New("cannot refuse this use of a system call")

// Arguments by which uses are told apart. The numbers are those of amd64 and arm64.
//
// Source: include/uapi/linux/watch_queue.h, include/uapi/asm-generic/ioctls.h,
// include/linux/socket.h.
const (
	notificationPipe = 0x80 // O_NOTIFICATION_PIPE, which is O_EXCL
	tiocsti          = 0x5412
	tioclinux        = 0x541c
	msgOOB           = 1
)

// flagsOf has the index of the flags among the arguments of each call that sends
// or receives.
var flagsOf = map[string]uint{
	"send": 3, "recv": 3, "sendto": 3, "recvfrom": 3, "sendmsg": 2, "recvmsg": 2,
	"sendmmsg": 3, "recvmmsg": 3, "recvmmsg_time64": 3,
}

// refuseUses takes uses of allowed calls out of a filter.
func refuseUses(l *seccomp.LinuxSeccomp, uses []string) error {
	for _, use := range uses {
		var err error
		switch use {
		case policy.UseNotificationPipe:
			err = allowOnly(l, "pipe2", without(1, notificationPipe))
		case policy.UseTerminalInput:
			err = allowOnly(l, "ioctl", except(1, tiocsti, tioclinux))
		case policy.UseUrgentData:
			// The arguments of socketcall are in memory, where no filter sees them.
			drop(l, []string{"socketcall"})
			for name, index := range flagsOf {
				err = errors.Join(err, allowOnly(l, name, without(index, msgOOB)))
			}
		default:
			err = ErrUse
		}
		if err != nil {
			return fmt.Errorf("%q: %w", use, err)
		}
	}
	return nil
}

// allowOnly puts conditions, of which one has to hold, on a call that is allowed
// whatever its arguments. A call that is not allowed stays so.
func allowOnly(l *seccomp.LinuxSeccomp, name string, conditions []seccomp.LinuxSeccompArg) error {
	allowed := false
	for _, rule := range l.Syscalls {
		if rule.Action != "SCMP_ACT_ALLOW" || !slices.Contains(rule.Names, name) {
			continue
		}
		if len(rule.Args) > 0 {
			return fmt.Errorf("%s has conditions of its own: %w", name, ErrUse)
		}
		allowed = true
	}
	if !allowed {
		return nil
	}
	drop(l, []string{name})
	for _, c := range conditions {
		l.Syscalls = append(l.Syscalls, seccomp.LinuxSyscall{
			Names: []string{name}, Action: "SCMP_ACT_ALLOW", Args: []seccomp.LinuxSeccompArg{c},
		})
	}
	return nil
}

// without is the condition that none of the flags is set.
func without(index uint, flags uint64) []seccomp.LinuxSeccompArg {
	return []seccomp.LinuxSeccompArg{{Index: index, Value: flags, ValueTwo: 0, Op: "SCMP_CMP_MASKED_EQ"}}
}

// except are conditions of which one holds for every argument but those whose low
// 32 bits are one of values. The kernel reads a request of ioctl as 32 bits, so a
// comparison of all 64 would be passed by setting a higher one.
//
// A rule only says what is allowed, so each condition fixes bits that no value
// has: bits in which all values agree come first, low ones before high ones,
// since that is where common requests differ.
func except(index uint, values ...uint32) []seccomp.LinuxSeccompArg {
	var agree, differ []uint
	for bit := range uint(32) {
		first := values[0] >> bit & 1
		if slices.ContainsFunc(values, func(v uint32) bool { return v>>bit&1 != first }) {
			differ = append(differ, bit)
		} else {
			agree = append(agree, bit)
		}
	}
	var out []seccomp.LinuxSeccompArg
	var walk func(bits []uint, mask, fixed uint32, left []uint32)
	walk = func(bits []uint, mask, fixed uint32, left []uint32) {
		if len(bits) == 0 {
			return
		}
		bit := bits[0]
		for _, digit := range []uint32{0, 1} {
			mask, fixed := mask|1<<bit, fixed|digit<<bit
			var same []uint32
			for _, v := range left {
				if v>>bit&1 == digit {
					same = append(same, v)
				}
			}
			if len(same) > 0 {
				walk(bits[1:], mask, fixed, same)
				continue
			}
			if slices.Contains(agree, bit) {
				// Whatever the bits before: none of the values has this one.
				mask, fixed = 1<<bit, digit<<bit
			}
			out = append(out, seccomp.LinuxSeccompArg{Index: index, Value: uint64(mask), ValueTwo: uint64(fixed), Op: "SCMP_CMP_MASKED_EQ"})
		}
	}
	walk(slices.Concat(agree, differ), 0, 0, values)
	// walk finds the longest first where it goes down before it goes on.
	slices.SortStableFunc(out, func(a, b seccomp.LinuxSeccompArg) int { return rank(a.Value) - rank(b.Value) })
	return out
}

// rank orders masks: single bits by their place, then the others.
func rank(mask uint64) int {
	n, last := 0, 0
	for bit := range 32 {
		if mask>>bit&1 == 1 {
			n, last = n+1, bit
		}
	}
	if n == 1 {
		return last
	}
	return 32 + n
}
