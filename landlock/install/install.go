// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package install asks the running kernel for Landlock, and puts rule sets into force for
// the calling thread.
package install

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/landlock"
)

// Errors of this package.
var (
	// ErrUnsupported says that the kernel is built without Landlock, or is older than 5.13.
	ErrUnsupported = errors.New("the kernel has no Landlock")
	// ErrDisabled says that the kernel has Landlock and was booted without it.
	ErrDisabled = errors.New("Landlock is off: boot with landlock in the lsm= list")
	// ErrPrivileges says that a thread may enter a domain only with no_new_privs or
	// CAP_SYS_ADMIN.
	ErrPrivileges = errors.New("set no_new_privs first, or have CAP_SYS_ADMIN")
)

const (
	createVersion = 1 << 0
	createErrata  = 1 << 1
	rulePath      = 1
	rulePort      = 2
)

// ABI asks the kernel for the version of its interface. The error is [ErrUnsupported]
// or [ErrDisabled].
//
// Source: security/landlock/syscalls.c, sys_landlock_create_ruleset.
func ABI() (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createVersion)
	if errno != 0 {
		return 0, fmt.Errorf("landlock: ask for the ABI: %w", explain(errno, nil))
	}
	return int(n), nil
}

// Errata asks the kernel which faults of its version are mended: bit 0 TCP sockets that are
// no TCP, bit 1 signals between threads of a process, bit 2 disconnected folders.
// Kernels that do not know the question have none mended.
func Errata() (uint32, error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createErrata)
	switch errno {
	case 0:
		return uint32(n), nil
	case unix.EINVAL:
		return 0, nil
	}
	return 0, fmt.Errorf("landlock: ask for errata: %w", explain(errno, nil))
}

// explain gives an error number the meaning that it has in one call.
func explain(errno unix.Errno, words map[unix.Errno]error) error {
	switch errno {
	case unix.ENOSYS:
		return ErrUnsupported
	case unix.EOPNOTSUPP:
		return ErrDisabled
	}
	if err, ok := words[errno]; ok {
		return fmt.Errorf("%w (%w)", err, errno)
	}
	return errno
}

var (
	errAttr    = errors.New("the kernel does not know a right of the rule set")
	errSize    = errors.New("the kernel is older than the rule set's form")
	errGrant   = errors.New("the rule grants what is not handled, what a file cannot have, or a port that is none")
	errFS      = errors.New("the file system cannot be named in rules")
	errDomains = errors.New("the thread is in 16 domains already")
)

var createWords = map[unix.Errno]error{
	unix.EINVAL: errAttr, unix.E2BIG: errSize, unix.ENOMSG: landlock.ErrEmpty,
}

var ruleWords = map[unix.Errno]error{
	unix.EINVAL: errGrant, unix.ENOMSG: landlock.ErrNoop, unix.EBADFD: errFS, unix.E2BIG: landlock.ErrRules,
}

var restrictWords = map[unix.Errno]error{
	unix.EPERM: ErrPrivileges, unix.E2BIG: errDomains,
}

// Missing says what to do about rules whose path does not exist.
type Missing uint8

const (
	// Refuse makes a missing path an error.
	Refuse Missing = iota
	// Skip leaves such rules out: what is not there need not be allowed.
	Skip
)

// Ruleset is a rule set in the kernel, which no process has entered yet.
type Ruleset struct {
	fd int
	// Skipped are the paths that were left out because they do not exist.
	Skipped []string
}

// New makes a rule set in the kernel. Rules on files grant of their rights only those that
// a file can have. Paths are resolved now, symbolic links followed. The errors are those
// of [landlock.Ruleset.ValidateFor] for the kernel's version, [ErrUnsupported] and
// [ErrDisabled], and those of opening a path.
func New(r landlock.Ruleset, missing Missing) (*Ruleset, error) {
	abi, err := ABI()
	if err != nil {
		return nil, err
	}
	if err := r.ValidateFor(min(abi, landlock.MaxABI)); err != nil {
		return nil, fmt.Errorf("landlock: ABI %d: %w", abi, err)
	}
	fd, errno := create(r)
	if errno != 0 {
		return nil, fmt.Errorf("landlock: create rule set: %w", explain(errno, createWords))
	}
	k := &Ruleset{fd: fd}
	for _, p := range r.Paths {
		err := k.addPath(p)
		if errors.Is(err, os.ErrNotExist) && missing == Skip {
			k.Skipped = append(k.Skipped, p.Path)
			continue
		}
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("landlock: allow %q: %w", p.Path, err)
		}
	}
	for _, p := range r.Ports {
		rule := [2]uint64{uint64(p.Access), uint64(p.Port)}
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(fd), rulePort, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			k.Close()
			return nil, fmt.Errorf("landlock: allow port %d: %w", p.Port, explain(errno, ruleWords))
		}
	}
	return k, nil
}

func create(r landlock.Ruleset) (int, unix.Errno) {
	attr := [3]uint64{uint64(r.HandledFS), uint64(r.HandledNet), uint64(r.Scoped)}
	// Kernels that know less take members that are zero.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	return int(fd), errno
}

func (k *Ruleset) addPath(p landlock.PathRule) error {
	fd, err := unix.Open(p.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	access := p.Access
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if access &= landlock.FileRights; access == 0 {
			return nil
		}
	}
	// The kernel's structure is packed: 12 bytes, in the byte order of the machine.
	var rule [3]uint32
	*(*uint32)(unsafe.Pointer(&rule[2])) = uint32(fd)
	a := uint64(access)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&rule)), 8), unsafe.Slice((*byte)(unsafe.Pointer(&a)), 8))
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(k.fd), rulePath, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return explain(errno, ruleWords)
	}
	return nil
}

// Close gives the rule set up. Domains made of it stay.
func (k *Ruleset) Close() error {
	if k.fd < 0 {
		return nil
	}
	err := unix.Close(k.fd)
	k.fd = -1
	return err
}

// Restrict makes a domain of k inside the one that the calling thread is in, for the
// thread and all that it starts. The caller locks the goroutine to its thread first and
// never unlocks it: the domain stays with the thread. [landlock.TSync] takes all
// threads of the process along. The error wraps [ErrPrivileges] without no_new_privs
// and CAP_SYS_ADMIN.
func (k *Ruleset) Restrict(flags landlock.Flags) error {
	defer runtime.KeepAlive(k)
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(k.fd), uintptr(flags), 0); errno != 0 {
		return fmt.Errorf("landlock: restrict: %w", explain(errno, restrictWords))
	}
	return nil
}
