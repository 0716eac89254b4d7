// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/landlock"
)

// scale multiplies the number of rule sets; PALISADE_LANDLOCK_SCALE=20 is an hour's work.
func scale(n int) int {
	if testing.Short() {
		n = max(n/10, 1)
	}
	if s, err := strconv.Atoi(os.Getenv("PALISADE_LANDLOCK_SCALE")); err == nil && s > 0 {
		n *= s
	}
	return n
}

func needKernel(t *testing.T) int {
	t.Helper()
	abi, err := ABI()
	if err != nil {
		t.Skip(err)
	}
	oracle.Root(t, "device nodes and network namespaces are made by root")
	if abi > landlock.MaxABI {
		abi = landlock.MaxABI
	}
	return abi
}

// inDomain runs functions, one at a time, on a thread of its own that has entered the rule
// sets, the first outermost. The thread ends with the test.
func inDomain(t *testing.T, sets []landlock.Ruleset, before func() error) (do func(func() error) error) {
	t.Helper()
	var made []*Ruleset
	for _, r := range sets {
		k, err := New(r, Refuse)
		if err != nil {
			t.Fatalf("%v\n%s", err, r)
		}
		defer k.Close()
		made = append(made, k)
	}
	ask, answer := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil && before != nil {
			err = before()
		}
		for _, k := range made {
			if err == nil {
				err = k.Restrict(0)
			}
		}
		answer <- err
		for f := range ask {
			answer <- f()
		}
	}()
	t.Cleanup(func() { close(ask) })
	must(t, <-answer)
	return func(f func() error) error {
		ask <- f
		return <-answer
	}
}

// Nodes of the tree that the file tests work on.
var (
	treeDirs  = []string{"a", "a/b", "a/b/c", "d", "d/e", "x"}
	treeFiles = []string{"f", "a/f", "a/b/f", "a/b/c/f", "d/f", "d/e/f", "a/g", "d/g"}
	treeDevs  = []string{"a/null", "a/b/null", "d/null"}
	freeNames = []string{"new", "a/new", "a/b/new", "a/b/c/new", "d/new", "d/e/new"}
)

type tree struct{ root, keep string }

func newTree(t *testing.T) tree {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tr := tree{filepath.Join(base, "tree"), filepath.Join(base, "keep")}
	for _, d := range []string{tr.root, tr.keep} {
		must(t, os.Mkdir(d, 0o755))
	}
	for _, d := range treeDirs {
		must(t, os.Mkdir(tr.path(d), 0o755))
	}
	for i, f := range treeFiles {
		must(t, os.WriteFile(tr.path(f), []byte("#!/bin/true\n"), 0o755))
		must(t, os.Link(tr.path(f), filepath.Join(tr.keep, strconv.Itoa(i))))
	}
	for _, d := range treeDevs {
		must(t, unix.Mknod(tr.path(d), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	return tr
}

func (tr tree) path(rel string) string { return filepath.Join(tr.root, rel) }

// restore puts a file that was removed or replaced back, with its inode.
func (tr tree) restore(t *testing.T, rel string) {
	t.Helper()
	for i, f := range treeFiles {
		if f == rel {
			if err := os.Remove(tr.path(rel)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			must(t, os.Link(filepath.Join(tr.keep, strconv.Itoa(i)), tr.path(rel)))
			return
		}
	}
	t.Fatalf("no copy of %s", rel)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// subset keeps each bit with one chance in two.
func subset(r *rand.Rand, bits uint64) uint64 { return bits & r.Uint64() }

// randomRuleset is a rule set for the tree. Now and then it grants everything on
// something, since moves between folders are otherwise seldom allowed.
func randomRuleset(r *rand.Rand, tr tree, abi int) landlock.Ruleset {
	var out landlock.Ruleset
	for out.Empty() {
		switch r.IntN(8) {
		case 0: // nothing of files
		case 1:
			out.HandledFS = landlock.FSAt(abi)
		default:
			out.HandledFS = landlock.AccessFS(subset(r, uint64(landlock.FSAt(abi))))
			if r.IntN(2) == 0 {
				out.HandledFS |= landlock.Refer & landlock.FSAt(abi)
			}
		}
		if r.IntN(3) == 0 {
			out.HandledNet = landlock.AccessNet(subset(r, uint64(landlock.NetAt(abi))))
		}
		if r.IntN(3) == 0 {
			out.Scoped = landlock.Scope(subset(r, uint64(landlock.ScopeAt(abi))))
		}
	}
	for range r.IntN(7) {
		p := landlock.PathRule{Path: tr.root}
		file := false
		switch r.IntN(8) {
		case 0:
		case 1:
			p.Path = filepath.Dir(filepath.Dir(tr.root))
		case 2, 3:
			p.Path, file = tr.path(pick(r, append(treeFiles, treeDevs...))), true
		default:
			p.Path = tr.path(pick(r, treeDirs))
		}
		p.Access = landlock.AccessFS(subset(r, uint64(out.HandledFS)))
		p.Access |= landlock.AccessFS(subset(r, uint64(out.HandledFS)))
		switch r.IntN(5) {
		case 0:
			p.Access = out.HandledFS
		case 1:
			p.Access |= out.HandledFS & (landlock.Refer | landlock.RemoveFile | landlock.RemoveDir | landlock.MakeReg | landlock.MakeDir)
		}
		if file {
			p.Access &= landlock.FileRights
		}
		if p.Access != 0 {
			out.Paths = append(out.Paths, p)
		}
	}
	for range r.IntN(4) {
		p := landlock.PortRule{Access: landlock.AccessNet(subset(r, uint64(out.HandledNet))), Port: pick(r, ports)}
		if p.Access != 0 {
			out.Ports = append(out.Ports, p)
		}
	}
	return out
}

var ports = []uint16{0, 80, 443, 8080, 65535}

// op is one thing to try: the request, how to ask the kernel, and how to undo it.
type op struct {
	name     string
	requests []landlock.Request // in the order that the kernel asks them
	do       func() error
	undo     func(t *testing.T) // of what was done; nil for nothing
}

func closing(fd int, err error) error {
	if err == nil {
		return unix.Close(fd)
	}
	return err
}

const executeCheck = 0x10000 // AT_EXECVE_CHECK, Linux 6.14

func one(q landlock.Request) []landlock.Request { return []landlock.Request{q} }

func randomOp(t *testing.T, r *rand.Rand, tr tree) op {
	f := pick(r, treeFiles)
	p := tr.path(f)
	kind := landlock.Regular
	switch r.IntN(12) {
	case 0, 1: // open
		flags := pick(r, []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR})
		q := landlock.OpenRequest{Path: p, Read: flags != unix.O_WRONLY, Write: flags != unix.O_RDONLY, Truncate: r.IntN(3) == 0}
		if r.IntN(4) == 0 {
			q = landlock.OpenRequest{Path: tr.path(pick(r, treeDirs)), Kind: landlock.Directory, Read: true}
			flags = unix.O_RDONLY
		} else if r.IntN(5) == 0 {
			q.Path, q.Kind, q.Truncate = tr.path(pick(r, treeDevs)), landlock.CharDevice, false
		}
		if q.Truncate {
			flags |= unix.O_TRUNC
		}
		return op{"open", one(q), func() error { return closing(unix.Open(q.Path, flags|unix.O_CLOEXEC, 0)) }, nil}
	case 2: // execute
		return op{"execute", one(landlock.OpenRequest{Path: p, Execute: true}), func() error { return execCheck(p) }, nil}
	case 3: // make
		type maker struct {
			kind landlock.FileKind
			mode uint32
		}
		m := pick(r, []maker{{landlock.Regular, unix.S_IFREG}, {landlock.CharDevice, unix.S_IFCHR}, {landlock.BlockDevice, unix.S_IFBLK}, {landlock.Fifo, unix.S_IFIFO}, {landlock.Socket, unix.S_IFSOCK}, {landlock.Directory, 0}, {landlock.Symlink, 0}})
		n := tr.path(pick(r, freeNames))
		return op{"make " + fmt.Sprint(m.kind), one(landlock.MakeRequest{Path: n, Kind: m.kind}), func() error {
			switch m.kind {
			case landlock.Directory:
				return unix.Mkdir(n, 0o755)
			case landlock.Symlink:
				return unix.Symlink("to", n)
			}
			return unix.Mknod(n, m.mode|0o600, int(unix.Mkdev(1, 3)))
		}, func(t *testing.T) { must(t, os.Remove(n)) }}
	case 4: // remove
		if r.IntN(3) == 0 {
			n := tr.path(pick(r, freeNames))
			must(t, os.Mkdir(n, 0o755))
			return op{"rmdir", one(landlock.RemoveRequest{Path: n, Kind: landlock.Directory}), func() error { return unix.Rmdir(n) }, func(t *testing.T) {
				if err := os.Remove(n); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}}
		}
		return op{"unlink", one(landlock.RemoveRequest{Path: p}), func() error { return unix.Unlink(p) }, func(t *testing.T) { tr.restore(t, f) }}
	case 5: // truncate
		return op{"truncate", one(landlock.TruncateRequest{Path: p}), func() error { return unix.Truncate(p, 0) }, nil}
	case 6: // ioctl, through a descriptor that the domain lets us have
		d := tr.path(pick(r, treeDevs))
		cmd := pick(r, []uint32{0x5421, 0x541b, 0x5401, 0x2, 0x1234, 0x5460, 0x80111500})
		open := landlock.OpenRequest{Path: d, Kind: landlock.CharDevice, Read: true}
		return op{fmt.Sprintf("ioctl %#x", cmd), []landlock.Request{open, landlock.IoctlRequest{Path: d, Kind: landlock.CharDevice, Cmd: cmd}}, func() error {
			fd, err := unix.Open(d, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			var arg [256]byte
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
			if errno != 0 {
				return errno
			}
			return nil
		}, nil}
	case 7: // ftruncate
		return op{"ftruncate", []landlock.Request{landlock.OpenRequest{Path: p, Write: true}, landlock.TruncateRequest{Path: p}}, func() error {
			fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Ftruncate(fd, 0)
		}, nil}
	case 8: // link
		n := tr.path(pick(r, freeNames))
		return op{"link", one(landlock.ReparentRequest{Old: p, New: n, Kind: kind, Link: true}), func() error { return unix.Link(p, n) }, func(t *testing.T) { must(t, os.Remove(n)) }}
	case 9: // rename to a free name, of a file or a folder
		rel, n := f, pick(r, freeNames)
		if r.IntN(2) == 0 {
			rel, kind = pick(r, treeDirs), landlock.Directory
			for strings.HasPrefix(n, rel+"/") {
				n = pick(r, freeNames)
			}
		}
		from, to := tr.path(rel), tr.path(n)
		return op{"rename", one(landlock.ReparentRequest{Old: from, New: to, Kind: kind}), func() error { return unix.Rename(from, to) }, func(t *testing.T) { must(t, os.Rename(to, from)) }}
	case 10: // rename over another file
		g := pick(r, treeFiles)
		for g == f {
			g = pick(r, treeFiles)
		}
		to := tr.path(g)
		return op{"replace", one(landlock.ReparentRequest{Old: p, New: to, Over: true}), func() error { return unix.Rename(p, to) }, func(t *testing.T) { tr.restore(t, g); tr.restore(t, f) }}
	default: // exchange, of any two that do not lie in each other
		all := append(append([]string{}, treeFiles...), treeDirs...)
		a, b := pick(r, all), pick(r, all)
		for a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
			a, b = pick(r, all), pick(r, all)
		}
		kindOf := func(rel string) landlock.FileKind {
			if filepath.Base(rel) == "f" || filepath.Base(rel) == "g" {
				return landlock.Regular
			}
			return landlock.Directory
		}
		from, to := tr.path(a), tr.path(b)
		swap := func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE) }
		return op{"exchange", one(landlock.ReparentRequest{Old: from, New: to, Kind: kindOf(a), Over: true, OverKind: kindOf(b), Exchange: true}), swap, func(t *testing.T) { must(t, swap()) }}
	}
}

// execCheck asks whether a file could be executed, without doing it.
func execCheck(p string) error {
	path, err := unix.BytePtrFromString(p)
	if err != nil {
		return err
	}
	argv := []*byte{path, nil}
	cwd := unix.AT_FDCWD
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(cwd), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), executeCheck, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// denial is the error number by which Landlock denies; empty for any other outcome.
func denial(err error) string {
	switch {
	case errors.Is(err, unix.EACCES):
		return "EACCES"
	case errors.Is(err, unix.EXDEV):
		return "EXDEV"
	case errors.Is(err, unix.EPERM):
		return "EPERM"
	}
	return ""
}

// compare asks the evaluator and the kernel. It reports false when they differ.
func compare(t *testing.T, sets []landlock.Ruleset, o op, got error) (denied bool) {
	t.Helper()
	var d *landlock.Domain
	for _, s := range sets {
		var err error
		if d, err = d.Enter(s); err != nil {
			t.Fatal(err)
		}
	}
	want := landlock.Decision{Allowed: true}
	for _, q := range o.requests {
		if want = d.Decide(q); !want.Allowed {
			break
		}
	}
	if want.Errno != denial(got) {
		t.Errorf("%s %+v\nkernel: %v\nevaluator: %s", o.name, o.requests, got, want.Reason())
		for i, s := range sets {
			t.Logf("layer %d: %s", i+1, s)
		}
	}
	return !want.Allowed
}

// TestKernelFiles tries random operations on files under random stacks of domains: the
// kernel has to answer as the evaluator does, down to the error number.
func TestKernelFiles(t *testing.T) {
	abi := needKernel(t)
	const opsPerStack = 60
	tr := newTree(t)
	total, denied := 0, map[string]int{}
	names := map[string]int{}
	for seed := range uint64(scale(300)) {
		r := rand.New(rand.NewPCG(12, seed))
		var sets []landlock.Ruleset
		for range 1 + r.IntN(3) {
			sets = append(sets, randomRuleset(r, tr, abi))
		}
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			do := inDomain(t, sets, nil)
			for range opsPerStack {
				o := randomOp(t, r, tr)
				if o.name == "execute" && !checksExecution(t) {
					continue
				}
				err := do(o.do)
				names[o.name]++
				total++
				if compare(t, sets, o, err) {
					denied[denial(err)]++
				}
				if o.undo != nil && (err == nil || o.name == "rmdir") {
					o.undo(t)
				}
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d operations, denied %v, by kind %v", total, denied, names)
	if denied["EACCES"] == 0 || denied["EXDEV"] == 0 || denied["EACCES"]+denied["EXDEV"] == total {
		t.Errorf("of %d operations %v were denied: the test is blind", total, denied)
	}
}

// checksExecution reports whether the kernel knows AT_EXECVE_CHECK.
func checksExecution(t *testing.T) bool {
	t.Helper()
	return !errors.Is(execCheck("/proc/self/exe"), unix.EINVAL)
}

// TestKernelMount wants every layer that handles files to forbid mounting, and no other.
func TestKernelMount(t *testing.T) {
	abi := needKernel(t)
	dir := t.TempDir()
	for _, sets := range [][]landlock.Ruleset{
		{{HandledFS: landlock.MakeBlock}},
		{{HandledFS: landlock.MakeBlock}, {HandledFS: landlock.Execute}},
		{{HandledNet: landlock.BindTCP}},
		{{Scoped: landlock.Signal}},
		{{HandledNet: landlock.BindTCP}, {HandledFS: landlock.MakeBlock}},
		{{HandledFS: landlock.MakeBlock}, {HandledNet: landlock.BindTCP}},
	} {
		for i, s := range sets {
			if err := s.ValidateFor(abi); err != nil {
				t.Skip(err)
			}
			sets[i] = s
		}
		mount := func() error { return unix.Mount("none", dir, "no-such-fs", 0, "") }
		compare(t, sets, op{"mount", one(landlock.MountRequest{}), mount, nil}, inDomain(t, sets, nil)(mount))
	}
}

// TestKernelPorts binds and connects TCP and UDP sockets in a network of its own, where
// nothing listens: every other error than EACCES is the network's answer.
func TestKernelPorts(t *testing.T) {
	abi := needKernel(t)
	if landlock.NetAt(abi) == 0 {
		t.Skipf("ABI %d has no rights on ports", abi)
	}
	tr := tree{root: "/usr"}
	denied, total := 0, 0
	for seed := range uint64(scale(100)) {
		r := rand.New(rand.NewPCG(13, seed))
		var sets []landlock.Ruleset
		for range 1 + r.IntN(3) {
			s := randomRuleset(r, tr, abi)
			s.HandledFS, s.Paths = 0, nil
			if s.Empty() {
				s.HandledNet = landlock.ConnectTCP
			}
			sets = append(sets, s)
		}
		do := inDomain(t, sets, func() error { return unix.Unshare(unix.CLONE_NEWNET) })
		for range 20 {
			port := pick(r, append([]uint16{81}, ports...))
			udp, connect, six := r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
			q := landlock.PortRequest{Port: port}
			kind := unix.SOCK_STREAM
			switch {
			case udp && connect:
				q.Access, q.Unbound, kind = landlock.ConnectSendUDP, true, unix.SOCK_DGRAM
			case udp:
				q.Access, kind = landlock.BindUDP, unix.SOCK_DGRAM
			case connect:
				q.Access = landlock.ConnectTCP
			default:
				q.Access = landlock.BindTCP
			}
			ask := func() error {
				var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
				family := unix.AF_INET
				if six {
					addr, family = &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}, unix.AF_INET6
				}
				fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return nil // no such family here
				}
				defer unix.Close(fd)
				if connect {
					return unix.Connect(fd, addr)
				}
				return unix.Bind(fd, addr)
			}
			total++
			if compare(t, sets, op{"port", one(q), ask, nil}, do(ask)) {
				denied++
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d requests, %d denied", total, denied)
	if denied == 0 || denied == total {
		t.Errorf("%d of %d denied: the test is blind", denied, total)
	}
}
