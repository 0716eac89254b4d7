// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// init takes over when the test binary is the guest's first process. The kernel
// hands unknown "name=value" parameters of its command line to /init as its
// environment, which is how the binary knows.
func init() {
	if os.Getpid() != 1 || !InGuest() {
		return
	}
	runtime.LockOSThread()
	if err := guest(); err != nil {
		fmt.Fprintf(os.Stderr, "vmtest: %v\n", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

var mounts = []struct{ source, target, fstype, data string }{
	{"proc", "/proc", "proc", ""},
	{"sysfs", "/sys", "sysfs", ""},
	{"devtmpfs", "/dev", "devtmpfs", "mode=0755"},
	{"devpts", "/dev/pts", "devpts", "ptmxmode=0666"},
	{"tmpfs", "/dev/shm", "tmpfs", ""},
	{"tmpfs", "/run", "tmpfs", "mode=0755"},
	{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
	{"securityfs", "/sys/kernel/security", "securityfs", ""},
	{"selinuxfs", "/sys/fs/selinux", "selinuxfs", ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	{"bpf", "/sys/fs/bpf", "bpf", ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", ""},
}

func guest() error {
	for _, m := range mounts {
		if !strings.HasPrefix(m.target, "/sys/") {
			_ = os.MkdirAll(m.target, 0o755)
		}
		// What this kernel does not have, the test will notice by itself.
		_ = unix.Mount(m.source, m.target, m.fstype, 0, m.data)
	}
	for i, name := range []string{"fd", "fd/0", "fd/1", "fd/2"} {
		_ = os.Symlink("/proc/self/"+name, filepath.Join("/dev", []string{"fd", "stdin", "stdout", "stderr"}[i]))
	}
	b, err := os.ReadFile(orderFile)
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	for _, m := range o.Modules {
		if err := loadModule(m); err != nil {
			return fmt.Errorf("module %s: %w", m, err)
		}
	}
	results, err := resultsPort()
	if err != nil {
		return err
	}
	defer results.Close()
	loopbackUp()
	// Without auditd the kernel prints denials, and drops all but a few.
	_ = os.WriteFile("/proc/sys/kernel/printk_ratelimit", []byte("0"), 0)

	if err := os.MkdirAll(guestDir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", o.Args...)
	cmd.Dir = guestDir
	cmd.Env = append([]string{
		guestEnv + "=1", "HOME=/root", "TMPDIR=/tmp", "REQUIRE_ORACLES=",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, o.Env...)
	cmd.Stdout, cmd.Stderr = results, results
	code := 0
	if err := cmd.Run(); err != nil {
		if code = cmd.ProcessState.ExitCode(); code <= 0 {
			code = 125
			fmt.Fprintln(results, err)
		}
	}
	_, err = fmt.Fprintf(results, "%s%d\n", doneMark, code)
	return err
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// resultsPort opens the virtio port named "results"; there is no udev to make
// the /dev/virtio-ports links. The kernel adds ports some time after the driver
// was loaded.
func resultsPort() (*os.File, error) {
	const name = "/sys/class/virtio-ports/*/name"
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ports, err := filepath.Glob(name)
		if err != nil {
			return nil, err
		}
		for _, p := range ports {
			if b, err := os.ReadFile(p); err != nil || strings.TrimSpace(string(b)) != "results" {
				continue
			}
			if f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(p)), os.O_WRONLY, 0); err == nil {
				return f, nil
			}
		}
	}
	return nil, fmt.Errorf("no virtio port named results")
}

func loopbackUp() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	_ = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
