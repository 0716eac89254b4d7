// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package vmtest runs a test inside a real kernel of its own: Debian's, under
// QEMU without KVM, with the security modules that the test wants. It needs no
// root and installs nothing: the kernel is unpacked into a cache.
//
// The running test binary is its own guest: it becomes /init of an initramfs,
// mounts what a test needs, and runs the one test that asked. So a kernel test
// is an ordinary test function:
//
//	func TestKernelLoad(t *testing.T) {
//		vmtest.Run(t, vmtest.Config{LSM: "apparmor"}, func(t *testing.T) {
//			// root in the guest; /proc, /sys, securityfs, tmpfs are there
//		})
//	}
//
// A boot takes 3 to 7 seconds on an idle machine, so one test does many checks.
// What is missing (qemu, a kernel package, a static test binary) skips the test
// with its reason, or fails it with REQUIRE_ORACLES=1.
package vmtest

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// Config says what the guest is. The zero value boots with no major LSM.
type Config struct {
	// LSM is the major security module: "selinux", "apparmor" or "" (none).
	// Landlock, lockdown, Yama and BPF-LSM are on with each.
	LSM string
	// Suite is a release of Debian whose kernel boots instead of the machine's, for
	// example "trixie-backports"; empty for the machine's.
	Suite string
	// Cmdline is added to the kernel's command line.
	Cmdline string
	// Files go into the guest's root file system, which is a tmpfs (with
	// security xattrs). The package's testdata folder always does, as
	// ./testdata of the test.
	Files []File
	// Disk is a raw image that the guest sees as /dev/vda; what the guest
	// writes there is thrown away, unless KeepDisk is set.
	Disk     string
	KeepDisk bool
	// MemoryMiB is the guest's memory, 1024 when zero.
	MemoryMiB int
	// Modules are further kernel modules to load by name, dependencies first;
	// those for virtio, console port and block device are there.
	Modules []string
	// Env is added to the environment of the test in the guest.
	Env []string
}

// File is one file or folder for the guest. Folders are taken whole. Of Host
// and Data one is given.
type File struct {
	Guest string // absolute path in the guest
	Host  string // path on the host
	Data  []byte // or the content itself, mode 0755
}

const (
	guestEnv  = "PALISADE_VM_GUEST"
	guestDir  = "/test"
	orderFile = "/vmtest.json"
	doneMark  = "\x00vmtest-exit "
)

// order is what the host tells the guest's init.
type order struct {
	Args    []string
	Env     []string
	Modules []string
}

// InGuest tells whether the test runs inside the virtual machine.
func InGuest() bool { return os.Getenv(guestEnv) == "1" }

// Run runs fn in a guest as described by c. On the host it does not call fn: it
// reports what the guest's run of the same test said.
func Run(t *testing.T, c Config, fn func(t *testing.T)) {
	t.Helper()
	if InGuest() {
		fn(t)
		return
	}
	if testing.Short() {
		t.Skip("virtual machines are left out with -short")
	}
	if runtime.GOARCH != "amd64" {
		oracle.Missing(t, "the guest's kernel is for amd64")
	}
	qemu := oracle.Tool(t, "qemu-system-x86_64", "apt: qemu-system-x86")
	self := staticSelf(t)
	var kernel *kernelImage
	if c.Suite == "" {
		kernel = findKernel(t)
	} else {
		kernel = suiteKernel(t, c.Suite)
	}

	lsm, params, err := lsmParameters(c.LSM)
	if err != nil {
		t.Fatal(err)
	}
	// How long a guest takes depends on the machine. The end is that of the whole
	// test run, short of which it is stopped and its log shown.
	timeout := 24 * time.Hour
	if end, ok := t.Deadline(); ok {
		timeout = time.Until(end) - 30*time.Second
	}
	modules, err := kernel.resolve(append([]string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio_console"}, c.Modules...))
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	o := order{Args: guestArgs(t.Name(), timeout), Env: c.Env}
	var image cpio
	image.file("/init", 0o755, self)
	for _, m := range modules {
		b, err := readModule(m)
		if err != nil {
			t.Fatal(err)
		}
		name := "/modules/" + strings.TrimSuffix(filepath.Base(m), ".xz")
		image.data(name, 0o644, b)
		o.Modules = append(o.Modules, name)
	}
	files := c.Files
	if _, err := os.Stat("testdata"); err == nil {
		files = append(files, File{Guest: guestDir + "/testdata", Host: "testdata"})
	}
	for _, f := range files {
		if err := image.add(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	image.data(orderFile, 0o644, b)
	initrd := filepath.Join(dir, "initrd")
	if err := image.writeTo(initrd); err != nil {
		t.Fatal(err)
	}

	results, console := filepath.Join(dir, "results"), filepath.Join(dir, "console")
	memory := c.MemoryMiB
	if memory == 0 {
		memory = 1024
	}
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", strconv.Itoa(memory), "-smp", "2",
		"-display", "none", "-no-reboot", "-nodefaults", "-monitor", "none",
		"-serial", "file:" + console,
		"-device", "virtio-serial-pci", "-chardev", "file,id=results,path=" + results, "-device", "virtserialport,chardev=results,name=results",
		"-kernel", kernel.image, "-initrd", initrd,
		"-append", strings.Join([]string{"console=ttyS0 quiet panic=-1 oops=panic no_timer_check rdinit=/init", guestEnv + "=1", "lsm=" + lsm, params, c.Cmdline}, " "),
	}
	if c.Disk != "" {
		snapshot := "on"
		if c.KeepDisk {
			snapshot = "off"
		}
		args = append(args, "-drive", "file="+c.Disk+",format=raw,if=virtio,snapshot="+snapshot)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, args...)
	// A machine must not outlive a test binary that is killed. The kernel ties
	// that to the thread that starts it, which therefore is kept.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	msg, err := cmd.CombinedOutput()
	kernelLog, _ := os.ReadFile(console)
	out, _ := os.ReadFile(results)
	text, code, finished := parseResults(out)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		t.Fatalf("the guest did not finish in %v\n%s\nkernel log:\n%s", timeout, text, tail(kernelLog))
	case !finished:
		t.Fatalf("the guest died (qemu: %v %s)\n%s\nkernel log:\n%s", err, msg, text, tail(kernelLog))
	case code != 0:
		t.Fatalf("in the guest:\n%s\nkernel log:\n%s", text, tail(kernelLog))
	case strings.Contains(text, "\n--- SKIP: "+t.Name()) || strings.HasPrefix(text, "--- SKIP: "+t.Name()):
		oracle.Missing(t, "in the guest:\n%s", text)
	case !strings.Contains(text, "--- PASS: "+t.Name()):
		t.Fatalf("the guest ran no test of this name:\n%s", text)
	}
	t.Logf("in the guest (Linux %s, lsm=%s):\n%s", kernel.release, lsm, text)
}

// lsmParameters gives the kernel's lsm= list and what else a module needs.
func lsmParameters(major string) (list, params string, err error) {
	switch major {
	case "":
		return "landlock,lockdown,yama,bpf", "", nil
	case "selinux":
		return "landlock,lockdown,yama,selinux,bpf", "selinux=1 enforcing=0", nil
	case "apparmor":
		return "landlock,lockdown,yama,apparmor,bpf", "apparmor=1 security=apparmor", nil
	}
	return "", "", fmt.Errorf("vmtest: no LSM %q: selinux, apparmor or none", major)
}

// guestArgs runs just this test: each level of its name quoted on its own.
func guestArgs(name string, timeout time.Duration) []string {
	levels := strings.Split(name, "/")
	for i, l := range levels {
		levels[i] = "^" + regexp.QuoteMeta(l) + "$"
	}
	return []string{"-test.run=" + strings.Join(levels, "/"), "-test.v", "-test.count=1", "-test.timeout=" + timeout.String()}
}

func staticSelf(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			oracle.Missing(t, "the test binary is dynamically linked and cannot be the guest's init: build with CGO_ENABLED=0")
		}
	}
	return self
}

func parseResults(out []byte) (text string, code int, finished bool) {
	before, after, found := bytes.Cut(out, []byte(doneMark))
	if !found {
		return string(out), 0, false
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(after)))
	return strings.TrimSpace(string(before)), code, err == nil
}

// tail keeps the end of the kernel log, where the reason stands.
func tail(b []byte) []byte {
	const most = 8 << 10
	if len(b) > most {
		return append([]byte("…"), b[len(b)-most:]...)
	}
	return b
}

func (c *cpio) add(f File) error {
	if !filepath.IsAbs(f.Guest) {
		return fmt.Errorf("vmtest: guest path %q is not absolute", f.Guest)
	}
	if f.Host == "" {
		c.data(f.Guest, 0o755, f.Data)
		return nil
	}
	return filepath.WalkDir(f.Host, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(f.Host, path)
		if err != nil {
			return err
		}
		guest := filepath.Join(f.Guest, rel)
		info, err := os.Stat(path)
		if path != f.Host && d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			c.symlink(guest, target)
			return nil
		}
		switch {
		case err != nil:
			return err
		case info.IsDir():
			c.dir(guest, info.Mode().Perm())
		case info.Mode().IsRegular():
			c.file(guest, info.Mode().Perm(), path)
		}
		return nil
	})
}
