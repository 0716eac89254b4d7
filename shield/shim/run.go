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
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The configuration at the start of the shared memory: struct config of src/shim.h.
const (
	configMagic   = 0x314d494853535041
	offFlags      = 8
	offFDBase     = 12
	offSize       = 16
	offMinimum    = 24
	offKey        = 32
	offConsole    = 64
	offMountLen   = 96
	offMount      = 104
	offEphemeral  = offMount + maxMount
	offCache      = offEphemeral + 64
	offReady      = offCache + 4
	offGeneration = offReady + 4
	offStats      = offGeneration + 8 + 16*8

	maxMount = 1024
	dataOff  = 0x10000000 // where the cache begins: src/vol.h

	flagStats    = 1
	flagSUD      = 2
	flagNoSites  = 4
	flagReadOnly = 8
	flagConsole  = 16
	flagFiles    = 32
	flagFinish   = 64

	keptFDs      = 16
	firstPassed  = 3
	shimVariable = "PALISADE_SHIM="
	defaultCache = 256 << 20
	minCache     = 4 << 20
	memoryFolder = "/dev/shm"
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
// meanwhile are passed on. What programs wrote to the volume is committed when they
// ask for it (fsync), and at the end.
func Run(c Config) (Result, error) {
	if c.ConsoleKey != nil && c.Volume == "" {
		return Result{}, errors.New("the console shield needs a volume")
	}
	r, err := c.prepare()
	if err != nil {
		return Result{}, err
	}
	defer r.close()
	ours, theirs, err := socketPair()
	if err != nil {
		return Result{}, fmt.Errorf("socket: %w", err)
	}
	defer ours.Close()
	go new(tables).serve(ours)
	r.files[fdSites] = theirs

	code, err := r.start(c.Program, c.Args, func() { theirs.Close(); r.files[fdSites] = nil })
	if err != nil {
		return Result{}, err
	}
	le := binary.LittleEndian
	if le.Uint32(r.mem[offReady:]) != 0 {
		// Whatever ended the program, what it had written counts.
		le.PutUint32(r.mem[offFlags:], le.Uint32(r.mem[offFlags:])|flagFinish)
		end, err := r.start("", []string{"palisade-shim"}, func() {})
		if err != nil {
			return Result{}, err
		}
		if end != 0 {
			code = end
		}
	}
	return Result{
		Code:       code,
		Generation: le.Uint64(r.mem[offGeneration:]),
		Signals:    le.Uint64(r.mem[offStats:]),
		Sites:      le.Uint64(r.mem[offStats+16:]),
	}, nil
}

// run is what the processes of one run share.
type run struct {
	c   *Config
	mem []byte
	// folder is in memory: it has the empty files that stand for open files of the
	// volume, and the ephemeral regions.
	folder string
	files  [fdLocks + 1]*os.File
}

func (r *run) ephemeral() string { return filepath.Join(r.folder, "mem") }

func (c *Config) prepare() (r *run, err error) {
	r = &run{c: c}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.files[fdShim], err = memfd("palisade-shim", blob); err != nil {
		return r, fmt.Errorf("place the shim: %w", err)
	}
	if c.Volume != "" {
		if err := r.openVolume(); err != nil {
			return r, err
		}
	}
	if r.files[fdShared], r.mem, err = c.shared(r.ephemeral()); err != nil {
		return r, fmt.Errorf("shared memory: %w", err)
	}
	return r, nil
}

func (r *run) close() {
	for _, f := range r.files {
		if f != nil {
			f.Close()
		}
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	if r.folder != "" {
		_ = os.RemoveAll(r.folder) // empty files, and what was to be forgotten
	}
}

// openVolume opens and locks the volume, and makes the folder whose empty files
// stand for open files of the volume.
func (r *run) openVolume() error {
	c := r.c
	if len(c.Key) != 32 {
		return fmt.Errorf("the key has %d bytes, not 32", len(c.Key))
	}
	if !path.IsAbs(c.Mount) || path.Clean(c.Mount) != c.Mount || len(c.Mount) >= maxMount {
		return fmt.Errorf("the mount point %q is not a clean absolute path", c.Mount)
	}
	if c.Mount == "/" && c.Dir == "" {
		c.Dir = "/"
	}
	mode, lock := os.O_RDWR, unix.LOCK_EX
	if c.ReadOnly {
		mode, lock = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(c.Volume, mode, 0)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	r.files[fdVolume] = f
	if err := unix.Flock(int(f.Fd()), lock|unix.LOCK_NB); err != nil {
		return fmt.Errorf("the volume %s is in use by somebody else: %w", c.Volume, err)
	}
	if c.ConsoleKey != nil && len(c.ConsoleKey) != 32 {
		return fmt.Errorf("the console's key has %d bytes, not 32", len(c.ConsoleKey))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(memoryFolder, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("%s is not a file system in memory", memoryFolder)
	}
	if r.folder, err = os.MkdirTemp(memoryFolder, "palisade-run-"); err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	if len(r.ephemeral()) >= 64 {
		return fmt.Errorf("the path %s is too long", r.folder)
	}
	// Programs may become other users: they pass, but cannot list.
	open := filepath.Join(r.folder, "open")
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{r.folder, 0o711}, {open, 0o777}, {r.ephemeral(), 0o711}} {
		if err := os.MkdirAll(d.name, d.mode); err != nil {
			return fmt.Errorf("temporary folder: %w", err)
		}
		if err := os.Chmod(d.name, d.mode); err != nil {
			return fmt.Errorf("temporary folder: %w", err)
		}
	}
	if r.files[fdLocks], err = os.Open(open); err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	return nil
}

// start runs the shim once.
func (r *run) start(program string, args []string, started func()) (code int, err error) {
	c := r.c
	cmd := &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", firstPassed+fdShim),
		Args:       args,
		Dir:        c.Dir,
		Stdin:      c.Stdin,
		Stdout:     c.Stdout,
		Stderr:     c.Stderr,
		ExtraFiles: r.files[:],
		// A shield whose launcher is gone has nobody to answer to.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s+%d::%s", shimVariable, firstPassed, program))
	for _, v := range c.Env {
		if !strings.HasPrefix(v, shimVariable) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// The death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	started()
	if err != nil {
		return 0, fmt.Errorf("start the shim: %w", err)
	}
	stop := forward(cmd.Process, c.Stdin)
	err = cmd.Wait()
	stop()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return 0, err
	}
	code = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return code, nil
}

// shared makes the memory that all processes of the run have in common, with the
// configuration at its start.
func (c *Config) shared(ephemeral string) (*os.File, []byte, error) {
	cache := c.CacheBytes
	if cache == 0 {
		cache = defaultCache
	}
	cache = min(max(cache, minCache), 4<<30)
	size := int64(1 << 20)
	if c.Volume != "" {
		size = dataOff + cache
	}
	f, err := memfd("palisade-shared", nil)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	var flags uint32
	for _, o := range []struct {
		on  bool
		bit uint32
	}{{c.Stats, flagStats}, {c.SignalOnly, flagNoSites}, {c.UserDispatch, flagSUD}, {c.ReadOnly, flagReadOnly}, {c.Volume != "", flagFiles}, {c.ConsoleKey != nil, flagConsole}} {
		if o.on {
			flags |= o.bit
		}
	}
	le := binary.LittleEndian
	le.PutUint64(mem, configMagic)
	le.PutUint32(mem[offFlags:], flags)
	le.PutUint32(mem[offFDBase:], fdBase())
	le.PutUint64(mem[offSize:], uint64(size))
	if c.Volume != "" {
		mount := strings.TrimSuffix(c.Mount, "/")
		le.PutUint64(mem[offMinimum:], c.MinGeneration)
		copy(mem[offKey:], c.Key)
		le.PutUint32(mem[offMountLen:], uint32(len(mount)))
		copy(mem[offMount:], mount)
		copy(mem[offConsole:], c.ConsoleKey)
		copy(mem[offEphemeral:], ephemeral)
		le.PutUint32(mem[offCache:], uint32(cache/4096))
	}
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
