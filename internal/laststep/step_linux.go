// SPDX-License-Identifier: Apache-2.0

package laststep

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"
)

// Exit codes, as shells and engines use them.
const (
	exitFailed   = 125
	exitNoExec   = 126
	exitNotFound = 127
)

// argPrefix begins the first argument: the path by which the step is executed.
const argPrefix = "/proc/self/fd/"

// System calls and constants that package syscall does not have.
const (
	sysSeccomp              = sysSeccompNumber
	sysLandlockCreate       = 444
	sysLandlockAddRule      = 445
	sysLandlockRestrictSelf = 446

	prSetNoNewPrivs      = 38
	seccompSetModeFilter = 1
	landlockRulePath     = 1
	landlockRulePort     = 2
	oPath                = 0x200000
	// Access rights that a file, in contrast to a folder, can have: execute,
	// write, read, truncate, ioctl on devices.
	landlockFileAccess = 1<<0 | 1<<1 | 1<<2 | 1<<14 | 1<<15
)

// Main is the whole program: it does not return.
//
// What it asks of the kernel counts for the calling thread and what that thread
// executes, so the caller must have locked the thread.
func Main(argv []string) {
	runtime.LockOSThread()
	if len(argv) < 2 {
		die(exitFailed, "this program is for palisade to run inside containers", 0)
	}
	self := selfFD(argv[0])
	if self < 3 {
		die(exitFailed, "this program is for palisade to run inside containers", 0)
	}
	c := readConfig(self + 1)
	closeFD(self)
	closeFD(self + 1)
	gate, next := -1, self+2
	if c.Gate {
		gate = next
		next++
		closeOnExec(gate)
	}
	if c.Stderr {
		if err := syscall.Dup3(next, 2, 0); err != nil {
			die(exitFailed, "standard error", number(err))
		}
		closeFD(next)
	}
	// Everything that takes memory comes before the filters, which need not
	// allow what the Go runtime does to get some.
	w := prepare(argv[1:])
	if c.AppArmor != "" {
		change(c.AppArmor)
	}
	if c.NoNewPrivileges {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			die(exitFailed, "no new privileges", errno)
		}
	}
	if c.Landlock != nil {
		enter(c.Landlock)
	}
	// This executes nothing: it is how package syscall gives the limit of open
	// files back, which it has raised for this program.
	_ = syscall.Exec("", nil, nil)
	for i := range c.Filters {
		install(&c.Filters[i])
	}
	if gate >= 0 {
		wait(gate)
	}
	code, errno := w.exec()
	if gate >= 0 {
		// Whoever holds the other end has better words for it.
		report := [3]byte{'E', byte(code), byte(errno)}
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(gate), uintptr(unsafe.Pointer(&report[0])), uintptr(len(report)))
	} else {
		say("exec "+argv[1], errno)
	}
	exit(code)
}

// selfFD is the descriptor that the path names, or -1.
func selfFD(path string) int {
	if len(path) <= len(argPrefix) || path[:len(argPrefix)] != argPrefix {
		return -1
	}
	n := 0
	for _, c := range []byte(path[len(argPrefix):]) {
		if c < '0' || c > '9' || n > 1<<20 {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func readConfig(fd int) *Config {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Size <= 0 || st.Size > 64*maxBytes {
		die(exitFailed, "no configuration", syscall.EINVAL)
	}
	b := make([]byte, st.Size)
	for got := 0; got < len(b); {
		n, err := syscall.Pread(fd, b[got:], int64(got))
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			die(exitFailed, "read configuration", syscall.EIO)
		}
		got += n
	}
	c, err := Decode(b)
	if err != nil {
		die(exitFailed, err.Error(), 0)
	}
	return c
}

func closeFD(fd int) { _ = syscall.Close(fd) } // it is open, or is not ours

func closeOnExec(fd int) {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, syscall.FD_CLOEXEC); errno != 0 {
		die(exitFailed, "gate", errno)
	}
}

// change puts the calling thread under an AppArmor profile. Only the thread
// itself may, so the file is that of the thread.
//
// Source: security/apparmor/lsm.c, do_setattr.
func change(profile string) {
	fd, err := syscall.Open("/proc/thread-self/attr/apparmor/current", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT {
		// Before Linux 5.8 there was one file for whichever module is there.
		fd, err = syscall.Open("/proc/thread-self/attr/current", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	}
	if err == nil {
		_, err = syscall.Write(fd, []byte("changeprofile "+profile))
		closeFD(fd)
	}
	if err != nil {
		die(exitFailed, "AppArmor profile "+profile, number(err))
	}
}

// enter makes the calling thread a member of a Landlock domain.
func enter(l *Landlock) {
	attr := [3]uint64{l.HandledFS, l.HandledNet, l.Scoped}
	// Older kernels refuse members that they do not know unless they are zero.
	ruleset, _, errno := syscall.RawSyscall(sysLandlockCreate, uintptr(unsafe.Pointer(&attr[0])), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		die(exitFailed, "landlock: create ruleset", errno)
	}
	for i := range l.Paths {
		addPath(ruleset, &l.Paths[i])
	}
	for i := range l.Ports {
		rule := [2]uint64{l.Ports[i].Access, l.Ports[i].Port}
		if _, _, errno := syscall.RawSyscall6(sysLandlockAddRule, ruleset, landlockRulePort, uintptr(unsafe.Pointer(&rule[0])), 0, 0, 0); errno != 0 {
			die(exitFailed, "landlock: add port", errno)
		}
	}
	if _, _, errno := syscall.RawSyscall(sysLandlockRestrictSelf, ruleset, 0, 0); errno != 0 {
		die(exitFailed, "landlock: restrict", errno)
	}
	closeFD(int(ruleset))
}

func addPath(ruleset uintptr, p *PathRule) {
	fd, err := syscall.Open(p.Path, oPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		if err == syscall.ENOENT || err == syscall.ENOTDIR || err == syscall.EACCES {
			return // what cannot be reached need not be allowed
		}
		die(exitFailed, "landlock: "+p.Path, number(err))
	}
	// The kernel's structure is packed: 12 bytes.
	rule := struct {
		access [2]uint32
		parent int32
	}{parent: int32(fd)}
	access := p.Access
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		access &= landlockFileAccess
	}
	*(*uint64)(unsafe.Pointer(&rule.access)) = access
	if access != 0 {
		if _, _, errno := syscall.RawSyscall6(sysLandlockAddRule, ruleset, landlockRulePath, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			die(exitFailed, "landlock: allow "+p.Path, errno)
		}
	}
	closeFD(fd)
}

// install adds one filter to the calling thread.
func install(f *Filter) {
	const instruction = 8
	if len(f.Program) == 0 || len(f.Program)%instruction != 0 {
		die(exitFailed, "seccomp: filter is not whole", syscall.EINVAL)
	}
	prog := struct {
		length uint16
		filter *byte
	}{uint16(len(f.Program) / instruction), &f.Program[0]}
	if _, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetModeFilter, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog))); errno != 0 {
		die(exitFailed, "seccomp: install filter", errno)
	}
}

// wait tells that everything is in force, and waits to be told to go on. The
// plain Syscall lets the Go runtime know that the thread sleeps, so that it does
// not send it signals.
func wait(gate int) {
	b := [1]byte{Report}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(gate), uintptr(unsafe.Pointer(&b[0])), 1); errno != 0 {
		exit(exitFailed) // nobody is there
	}
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_READ, uintptr(gate), uintptr(unsafe.Pointer(&b[0])), 1)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 || n != 1 || b[0] != Go {
			exit(exitFailed) // refused, or nobody is there any more
		}
		return
	}
}

// workload is what is to be executed, in the form that the kernel takes.
type workload struct {
	paths []*byte
	argv  []*byte
	envv  []*byte
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// prepare finds the places where a command can be, in the order of PATH.
func prepare(args []string) *workload {
	w := &workload{}
	env := syscall.Environ()
	var err1, err2 error
	w.argv, err1 = syscall.SlicePtrFromStrings(args)
	w.envv, err2 = syscall.SlicePtrFromStrings(env)
	if err1 != nil || err2 != nil || args[0] == "" {
		die(exitNotFound, "exec: not a command", syscall.EINVAL)
	}
	if hasSlash(args[0]) {
		w.paths = []*byte{w.argv[0]}
		return w
	}
	search := defaultPath
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			search = kv[5:]
		}
	}
	for start := 0; start <= len(search); {
		end := start
		for end < len(search) && search[end] != ':' {
			end++
		}
		dir := search[start:end]
		if dir == "" {
			dir = "."
		}
		if p, err := syscall.BytePtrFromString(dir + "/" + args[0]); err == nil {
			w.paths = append(w.paths, p)
		}
		start = end + 1
	}
	return w
}

func hasSlash(s string) bool {
	for _, c := range []byte(s) {
		if c == '/' {
			return true
		}
	}
	return false
}

// exec becomes the workload. It returns only when that fails.
func (w *workload) exec() (code int, errno syscall.Errno) {
	errno = syscall.ENOENT
	for _, p := range w.paths {
		_, _, e := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&w.argv[0])), uintptr(unsafe.Pointer(&w.envv[0])))
		switch e {
		case syscall.ENOENT, syscall.ENOTDIR:
			continue
		case syscall.EACCES:
			errno = e // another folder may still have it
			continue
		}
		return exitNoExec, e
	}
	if errno == syscall.ENOENT {
		return exitNotFound, errno
	}
	return exitNoExec, errno
}

// number is the error number of a failed system call.
func number(err error) syscall.Errno {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return syscall.EINVAL
	}
	return e
}

func say(what string, errno syscall.Errno) {
	msg := "palisade-init: " + what
	if errno != 0 {
		msg += ": " + errno.Error()
	}
	_, _ = syscall.Write(2, []byte(msg+"\n"))
}

func die(code int, what string, errno syscall.Errno) {
	say(what, errno)
	exit(code)
}

func exit(code int) {
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}
