// SPDX-License-Identifier: Apache-2.0

// Command inside is what runs in the containers of these tests: it looks, by
// harmless means, how far it gets, and prints lines of words. Executed by
// /proc/self/fd/N it is an impostor: something in the image that was taken for
// the last step.
package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	if strings.HasPrefix(os.Args[0], "/proc/self/fd/") {
		say("impostor", "ran")
		status()
		return
	}
	if host := os.Getenv("ESCAPES_CLIMB"); host != "" && len(args) == 0 {
		climb(host, "made")
		return
	}
	if len(args) == 0 {
		say("ran", filepath.Base(os.Args[0]))
		status()
		return
	}
	say("ran", args[0])
	switch name, args := args[0], args[1:]; name {
	case "status":
		status()
	case "hold":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, unix.SIGTERM)
		<-stop
	case "climb":
		climb(args[0], args[1])
	case "statfs":
		for _, path := range args {
			var st unix.Statfs_t
			err := unix.Statfs(path, &st)
			say("statfs", path, fmt.Sprintf("%x", st.Type), errno(err))
		}
	case "read":
		for _, path := range args {
			read(path)
		}
	case "write":
		for _, path := range args {
			fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			say("write", path, errno(err))
			unix.Close(fd)
		}
	case "create":
		for _, path := range args {
			fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
			say("create", path, errno(err))
			unix.Close(fd)
		}
	case "stat":
		for _, path := range args {
			var st unix.Stat_t
			err := unix.Stat(path, &st)
			say("stat", path, fmt.Sprintf("%o", st.Mode), fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), fmt.Sprintf("%d/%d", st.Dev, st.Ino), errno(err))
		}
	case "fds":
		fds()
	case "connect":
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + args[0]})
		}
		say("connect", errno(err))
	case "exes":
		exes()
	case "as":
		as(args[0], args[1])
	case "tty":
		tty(args[0])
	case "hook":
		hook(args)
	case "exchange":
		exchange(args[0], args[1], len(args) > 2)
	case "calls":
		calls()
	case "call":
		say("call", args[0], call(args[0]))
	default:
		say("unknown", name)
		os.Exit(2)
	}
}

// say prints a line; beside standard output, which a runtime may have lost, into
// the file that ESCAPES_OUT names.
func say(words ...string) {
	text := strings.Join(words, " ") + "\n"
	os.Stdout.WriteString(text)
	if name := os.Getenv("ESCAPES_OUT"); name != "" {
		if f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			f.WriteString(text)
			f.Close()
		}
	}
}

func errno(err error) string {
	if err == nil {
		return "ok"
	}
	if e, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(e)
	}
	return strings.ReplaceAll(err.Error(), " ", "_")
}

// status asks the kernel, not /proc, which may be anybody's.
func status() {
	seccomp, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	say("seccomp", strconv.Itoa(seccomp), errno(err))
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	say("no_new_privs", strconv.Itoa(nnp), errno(err))
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err = unix.Capget(&hdr, &data[0])
	word := func(low, high uint32) string { return fmt.Sprintf("%x", uint64(high)<<32|uint64(low)) }
	say("effective", word(data[0].Effective, data[1].Effective), errno(err))
	say("permitted", word(data[0].Permitted, data[1].Permitted), errno(err))
	say("inheritable", word(data[0].Inheritable, data[1].Inheritable), errno(err))
	ambient := 0
	for c := range 41 {
		if set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0); err == nil && set == 1 {
			ambient++
		}
	}
	say("ambient", strconv.Itoa(ambient))
	say("uid", strconv.Itoa(unix.Getuid()))
	groups, _ := unix.Getgroups()
	say("groups", strings.ReplaceAll(strings.Trim(fmt.Sprint(groups), "[]"), " ", ","))
}

// climb looks for a folder of the host above the working directory.
func climb(host, name string) {
	up := ""
	for range 24 {
		b, err := os.ReadFile(up + strings.TrimPrefix(host, "/") + "/secret")
		if err == nil {
			say("climb", "read", string(bytes.TrimSpace(b)))
			fd, err := unix.Open(up+strings.TrimPrefix(host, "/")+"/"+name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			say("climb", "create", errno(err))
			unix.Close(fd)
			return
		}
		up += "../"
	}
	say("climb", "nothing")
}

func read(path string) {
	f, err := os.Open(path)
	if err != nil {
		pe, _ := err.(*os.PathError)
		say("read", path, errno(pe.Err))
		return
	}
	defer f.Close()
	b := make([]byte, 48)
	n, err := f.Read(b)
	if err != nil && err != io.EOF {
		pe, _ := err.(*os.PathError)
		say("read", path, errno(pe.Err))
		return
	}
	say("read", path, "ok", fmt.Sprintf("%q", b[:n]))
}

// fds describes every descriptor that is open here.
func fds() {
	for fd := range 64 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if strings.HasPrefix(link, "anon_inode:[eventpoll]") || strings.HasPrefix(link, "anon_inode:[eventfd]") {
			continue // of this program's own run time
		}
		say("fd", strconv.Itoa(fd), fmt.Sprintf("%o", st.Mode&unix.S_IFMT), fmt.Sprintf("%d/%d", st.Dev, st.Ino), strconv.Itoa(flags), strings.ReplaceAll(link, " ", "_"))
	}
}

// exes waits for a process whose program is not this one, keeps the program
// open, and tries to open it for writing when nothing runs it any more. Nothing
// is written.
func exes() {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &own); err != nil {
		say("exes", errno(err))
		return
	}
	kept := map[string]int{}
	say("exes", "watching")
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if _, err := os.Stat("/stop"); err == nil {
			break
		}
		list, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range list {
			var st unix.Stat_t
			if unix.Stat(p+"/exe", &st) != nil || st.Dev == own.Dev && st.Ino == own.Ino {
				continue
			}
			key := fmt.Sprintf("%d/%d", st.Dev, st.Ino)
			if _, have := kept[key]; have {
				continue
			}
			fd, err := unix.Open(p+"/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				kept[key] = fd
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
	for key, fd := range kept {
		result := error(unix.ETXTBSY)
		for range 300 {
			w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			unix.Close(w)
			if result = err; err != unix.ETXTBSY {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		seals, serr := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		say("exe", key, errno(result), "seals", strconv.Itoa(seals), errno(serr))
	}
	say("exes", "done")
}

// as runs a program as another user.
func as(uid, program string) {
	n, _ := strconv.Atoi(uid)
	if err := unix.Setgroups(nil); err != nil {
		say("setgroups", errno(err))
	}
	for _, set := range []func(int, int, int) error{unix.Setresgid, unix.Setresuid} {
		if err := set(n, n, n); err != nil {
			say("setuid", errno(err))
			os.Exit(3)
		}
	}
	err := unix.Exec(program, []string{program, "status"}, nil)
	say("exec", errno(err))
}

// tty says what is below a path that should be a terminal.
func tty(path string) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	say("tty", path, fmt.Sprintf("%x", fs.Type), errno(err))
}

// hook is run by a runtime: it appends what it was given to a file of the host.
func hook(args []string) {
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(4)
	}
	defer f.Close()
	dir, _ := os.Getwd()
	seccomp, _ := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	fmt.Fprintf(f, "hook %s\ncwd %s\nseccomp %d\n", strings.Join(args[1:], " "), dir, seccomp)
	for _, e := range os.Environ() {
		fmt.Fprintf(f, "env %s\n", e)
	}
	for fd := 3; fd < 40; fd++ {
		if fd == int(f.Fd()) {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			fmt.Fprintf(f, "fd %d %s\n", fd, link)
		}
	}
}

// exchange swaps two names until its standard input is closed; slow leaves each
// order for some milliseconds.
func exchange(a, b string, slow bool) {
	over := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(over) }()
	for {
		select {
		case <-over:
			return
		default:
		}
		_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		if slow {
			time.Sleep(time.Duration(rand.IntN(12000)) * time.Microsecond)
			continue
		}
		// Each order is there for about as long as the other.
		for range 20 {
			_ = unix.Getpid()
		}
	}
}
