// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	configMagic = 0x314d494853535041
	sharedSize  = 1 << 20

	flagStats    = 1
	flagNoSUD    = 2
	flagNoSites  = 4
	offFlags     = 8
	offFDBase    = 12
	offSize      = 16
	offStats     = 24 + 8 + 64 + 4 + 4 + 1024 + 4 + 4 + 128
	keptFDs      = 16
	firstPassed  = 3
	shimVariable = "PALISADE_SHIM="
)

// The descriptors that the shim keeps, in the order of src/shim.h.
const (
	fdShim = iota
	fdShared
	fdSites
	fdProgram
	fdVolume
	fdLocks
)

// Run starts the program and waits for its end. Signals that reach the caller
// meanwhile are passed on.
func Run(c Config) (Result, error) {
	exe, err := memfd("palisade-shim", blob)
	if err != nil {
		return Result{}, fmt.Errorf("place the shim: %w", err)
	}
	defer exe.Close()
	shared, mem, err := c.shared()
	if err != nil {
		return Result{}, fmt.Errorf("shared memory: %w", err)
	}
	defer shared.Close()
	defer func() { _ = unix.Munmap(mem) }()
	ours, theirs, err := socketPair()
	if err != nil {
		return Result{}, fmt.Errorf("socket: %w", err)
	}
	defer ours.Close()
	go new(tables).serve(ours)

	cmd := &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", firstPassed+fdShim),
		Args:       c.Args,
		Dir:        c.Dir,
		Stdin:      c.Stdin,
		Stdout:     c.Stdout,
		Stderr:     c.Stderr,
		ExtraFiles: []*os.File{exe, shared, theirs},
		// A shield whose launcher is gone has nobody to answer to.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s+%d:%s", shimVariable, firstPassed, c.Program))
	for _, v := range c.Env {
		if !strings.HasPrefix(v, shimVariable) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// The death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return Result{}, fmt.Errorf("start the shim: %w", err)
	}
	stop := forward(cmd.Process, c.Stdin)
	err = cmd.Wait()
	stop()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return Result{}, err
	}
	res := Result{Code: cmd.ProcessState.ExitCode()}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		res.Code = 128 + int(ws.Signal())
	}
	if c.Stats {
		res.Signals = binary.LittleEndian.Uint64(mem[offStats:])
		res.Sites = binary.LittleEndian.Uint64(mem[offStats+16:])
	}
	return res, nil
}

// shared makes the memory that all processes of the run have in common, with the
// configuration at its start.
func (c *Config) shared() (*os.File, []byte, error) {
	f, err := memfd("palisade-shared", nil)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Truncate(sharedSize); err != nil {
		f.Close()
		return nil, nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	var flags uint32
	if c.Stats {
		flags |= flagStats
	}
	if c.SignalOnly {
		flags |= flagNoSites
	}
	if c.FilterOnly {
		flags |= flagNoSUD
	}
	le := binary.LittleEndian
	le.PutUint64(mem, configMagic)
	le.PutUint32(mem[offFlags:], flags)
	le.PutUint32(mem[offFDBase:], fdBase())
	le.PutUint64(mem[offSize:], sharedSize)
	return f, mem, nil
}

// fdBase picks descriptor numbers that programs hardly ever ask for by number.
func fdBase() uint32 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1024 {
		return 1024 - keptFDs
	}
	return uint32(lim.Cur) - keptFDs
}

func memfd(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "sites")
	f := os.NewFile(uintptr(fds[0]), "sites")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// forward passes signals on. A terminal sends its own to the whole foreground group.
func forward(p *os.Process, stdin *os.File) (stop func()) {
	signals := []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT}
	keyboard := []os.Signal{syscall.SIGINT, syscall.SIGQUIT}
	terminal := false
	if stdin != nil {
		_, err := unix.IoctlGetTermios(int(stdin.Fd()), unix.TCGETS)
		terminal = err == nil
	}
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, append(signals, keyboard...)...)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-ch:
				if terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
					continue
				}
				_ = p.Signal(s)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}
