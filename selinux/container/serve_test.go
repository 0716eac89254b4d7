// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
)

// Descriptors of a pipe that a serving container keeps open.
const pipeRead, pipeWrite = 50, 51

// serve is the process of a container in the matrix. It has something of
// everything that another container could want: files in its root and in its
// volume, a named pipe, sockets with a path and without, and a pipe.
func serve() error {
	name := os.Getenv(nameEnv)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	for i, fd := range []int{pipeRead, pipeWrite} {
		if err := unix.Dup3(fds[i], fd, unix.O_CLOEXEC); err != nil {
			return err
		}
	}
	_ = os.WriteFile("/secret", []byte("secret of "+name), 0o666) // where the root may be written to
	if _, err := listen("@" + name); err != nil {
		return err
	}
	// Some volumes are labelled when the label is known.
	var err error
	if !await.Patiently(func() bool {
		if err = furnish(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return err == nil
	}) {
		return err
	}
	select {}
}

// furnish puts what others want into the volumes.
func furnish(name string) error {
	shared := "/shared/" + name + ".socket"
	for _, path := range []string{"/data/socket", "/data/pipe", "/data/ready", shared} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	for _, path := range []string{"/data/socket", shared} {
		if _, err := listen(path); err != nil {
			return err
		}
	}
	if err := unix.Mkfifo("/data/pipe", 0o666); err != nil {
		return fmt.Errorf("mkfifo /data/pipe: %w", err)
	}
	if err := os.WriteFile("/shared/"+name, []byte("shared by "+name), 0o666); err != nil {
		return err
	}
	return os.WriteFile("/data/ready", nil, 0o666)
}

func listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l, nil
}

// bindRoot mounts the root of a process's mount namespace at a place of this
// one. A plain bind mount cannot: the kernel clones trees of the caller's own
// namespace only. So a thread that is not given back goes there to clone it.
func bindRoot(pid int, at string) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	type answer struct {
		fd  int
		err error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // and ends with this goroutine
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- answer{err: err}
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			done <- answer{err: os.NewSyscallError("setns", err)}
			return
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		done <- answer{fd, os.NewSyscallError("open_tree", err)}
	}()
	a := <-done
	if a.err != nil {
		return a.err
	}
	defer unix.Close(a.fd)
	return os.NewSyscallError("move_mount", unix.MoveMount(a.fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
}
