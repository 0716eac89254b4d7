// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

// world is what a worker knows of itself before it tries anything.
type world struct {
	seccomp    bool // a filter is installed
	noNewPrivs bool
	effective  caps.Set
	euid       int
	// initialUserNS tells whether the user namespace is the host's.
	initialUserNS bool
	appArmor      string // profile, empty when unconfined
	seLinux       string // context
	mounts        []mount
	// sibling is a process of the same run that a probe may touch.
	sibling int
	// inherited are the descriptors that the first process was started with.
	inherited []string
}

type mount struct {
	point, fstype, options, root string
}

func (m mount) has(option string) bool {
	for o := range strings.SplitSeq(m.options, ",") {
		if o == option {
			return true
		}
	}
	return false
}

func survey() *world {
	w := &world{euid: unix.Geteuid(), initialUserNS: true}
	status, _ := os.ReadFile("/proc/thread-self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Seccomp":
			w.seccomp = value == "2"
		case "NoNewPrivs":
			w.noNewPrivs = value == "1"
		case "CapEff":
			w.effective, _ = caps.ParseHex(value)
		}
	}
	if len(status) == 0 {
		// Without /proc the kernel can still be asked.
		w.seccomp = prctl(unix.PR_GET_SECCOMP) == 2
		w.noNewPrivs = prctl(unix.PR_GET_NO_NEW_PRIVS) == 1
		w.effective = capget()
	}
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		f := strings.Fields(string(m))
		w.initialUserNS = len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
	}
	w.readLabels()
	// Without a table that can be read there are no mounts, and what looks for
	// some says so.
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		w.mounts, _ = parseMounts(f)
		f.Close()
	}
	return w
}

func prctl(option uintptr) uintptr {
	r, _, e := unix.RawSyscall6(unix.SYS_PRCTL, option, 0, 0, 0, 0, 0)
	if e != 0 {
		return 0
	}
	return r
}

func capget() caps.Set {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return 0
	}
	return caps.Set(data[0].Effective) | caps.Set(data[1].Effective)<<32
}

func (w *world) readLabels() {
	if b, err := os.ReadFile("/proc/self/attr/apparmor/current"); err == nil {
		w.setAppArmor(string(b))
	}
	b, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return
	}
	text := strings.TrimRight(string(b), "\x00\n")
	switch {
	case strings.HasSuffix(text, ")") || text == "unconfined":
		w.setAppArmor(text)
	case strings.Count(text, ":") >= 2:
		w.seLinux = text
	}
}

func (w *world) setAppArmor(text string) {
	name, mode, ok := strings.Cut(strings.TrimSpace(text), " (")
	if ok && mode == "enforce)" {
		w.appArmor = name
	}
}

// parseMounts reads a mount table, the topmost mount of a path last.
func parseMounts(r io.Reader) ([]mount, error) {
	table, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, err
	}
	list := make([]mount, 0, len(table))
	for _, m := range table {
		list = append(list, mount{point: m.Mountpoint, root: m.Root, fstype: m.FSType, options: m.Options + "," + m.VFSOptions})
	}
	return list, nil
}

// mountOf is the mount that a path is on.
func (w *world) mountOf(path string) (mount, bool) {
	var best mount
	found := false
	for _, m := range w.mounts {
		if m.point == path || m.point == "/" || strings.HasPrefix(path, m.point+"/") {
			if !found || len(m.point) >= len(best.point) {
				best, found = m, true
			}
		}
	}
	return best, found
}

// refusedBy names the layer of a refusal that no filter made.
func (w *world) refusedBy(errno unix.Errno, anyOf caps.Set) Layer {
	if errno == unix.EROFS {
		return readOnly
	}
	if errno != unix.EPERM && errno != unix.EACCES {
		return ""
	}
	if anyOf != 0 && w.effective.Intersect(anyOf) == 0 {
		return capability
	}
	return w.lsm(anyOf != 0)
}

// lsm names the one module that can have refused what the capabilities permit.
func (w *world) lsm(privileged bool) Layer {
	switch {
	case privileged && !w.initialUserNS:
		// The capabilities are those of another namespace.
		return userNamespace
	case w.appArmor != "" && w.seLinux == "":
		return appArmor
	case w.seLinux != "" && w.appArmor == "":
		return selinux
	}
	return ""
}

// onThread runs f on a thread that ends with it, so that what f does to its
// thread stays there.
func onThread(f func() (uintptr, unix.Errno)) (uintptr, unix.Errno) {
	type answer struct {
		r uintptr
		e unix.Errno
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread()
		r, e := f()
		done <- answer{r, e}
		// Not unlocked: the thread must not serve anybody else.
	}()
	a := <-done
	return a.r, a.e
}

const (
	retTrace     = 0x7ff00000
	retUserNotif = 0x7fc00000
	retAllow     = 0x7fff0000
	newListener  = 1 << 3

	notifRecv = 0xc0502100
	notifSend = 0xc0182101
)

// filter answers one call with an action and allows all others.
func filter(nr uintptr, action uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
		{Code: unix.BPF_RET | unix.BPF_K, K: action},
		{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
	}
}

func install(prog []unix.SockFilter, flags uintptr) (uintptr, unix.Errno) {
	if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return 0, e
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, e := unix.RawSyscall(unix.SYS_SECCOMP, 1, flags, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	return r, e
}

// errOther is an error that no kernel code and no filter in use answers with.
const errOther = unix.ENOANO

// filtered tells whether a filter gave the error, and whether that is known.
// The call is not carried out again.
func (w *world) filtered(nr uintptr, args [6]uintptr, errno unix.Errno) (filtered, known bool) {
	if !w.seccomp {
		return false, true
	}
	var setup unix.Errno
	if errno != unix.ENOSYS {
		// An errno of the filters in force goes before our trace action, which
		// without a tracer is answered with ENOSYS.
		_, got := onThread(func() (uintptr, unix.Errno) {
			if _, setup = install(filter(nr, retTrace), 0); setup != 0 {
				return 0, setup
			}
			_, _, e := unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
			return 0, e
		})
		if setup != 0 {
			return false, false
		}
		return got == errno, got == errno || got == unix.ENOSYS
	}
	// ENOSYS of the filters in force goes before our notification, which we
	// answer with another error.
	listener := make(chan int, 1)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		fd, ok := <-listener
		if !ok {
			return
		}
		defer unix.Close(fd)
		answerOne(fd)
	}()
	_, got := onThread(func() (uintptr, unix.Errno) {
		fd, e := install(filter(nr, retUserNotif), newListener)
		if e != 0 {
			setup = e
			close(listener)
			return 0, e
		}
		listener <- int(fd)
		_, _, e = unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		return 0, e
	})
	if setup != 0 {
		return false, false
	}
	return got == unix.ENOSYS, got == unix.ENOSYS || got == errOther
}

// answerOne answers the first notification with errOther; it gives up when the
// thread that it would come from has ended or two seconds have passed.
func answerOne(fd int) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 2000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		break
	}
	var request [80]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&request[0]))); e != 0 {
		return
	}
	var reply [24]byte
	copy(reply[:8], request[:8])
	other := int32(errOther)
	binary.NativeEndian.PutUint32(reply[16:], uint32(-other))
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&reply[0])))
}

// scratch is a directory that can be written to, preferring those that go away
// with the container; want are mount options that must not be set on it.
func (w *world) scratch(avoid ...string) (string, bool) {
dirs:
	for _, dir := range []string{"/dev/shm", "/tmp", "/run", "/dev", "/var/tmp", "/"} {
		m, ok := w.mountOf(dir)
		for _, option := range append(avoid, "ro") {
			if ok && m.has(option) {
				continue dirs
			}
		}
		if unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return dir, true
		}
	}
	return "", false
}

// scratchName is a name that nobody else uses; the file must be removed in the
// same breath.
func scratchName(dir, what string) string {
	return filepath.Join(dir, ".palisade-probe-"+what+"-"+strconv.Itoa(os.Getpid()))
}

func cstring(s string) uintptr {
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

func pointer[T any](v *T) uintptr {
	kept = append(kept, v)
	return uintptr(unsafe.Pointer(v))
}

// kept holds what system calls point at. A worker is one goroutine at a time
// and lives for a moment, so nothing is ever let go.
var kept []any
