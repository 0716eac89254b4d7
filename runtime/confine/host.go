// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Host is what decides how a policy is put into force on a machine. It is read
// for every container, since a profile can be loaded at any time, and therefore
// only what matters is read.
type Host struct {
	// SELinux tells whether SELinux is on, ProcessContext and FileContext what
	// its policy wants containers and their content to be labelled with, without
	// categories.
	SELinux        bool
	ProcessContext string
	FileContext    string
	// AppArmor tells whether AppArmor is on. Loaded tells of a profile whether
	// it is loaded.
	AppArmor bool
	Loaded   func(profile string) bool
	// Landlock is the ABI, 0 without.
	Landlock int
	// Seccomp tells whether the kernel takes filters.
	Seccomp bool
	// Kernel is the release, as uname -r prints it.
	Kernel string
	// Cache keeps compiled filters; nil for none.
	Cache Cache
}

// StepLabel is the context of what all containers may read and execute; empty
// where SELinux is off.
func (h Host) StepLabel() string {
	if !h.SELinux {
		return ""
	}
	return h.FileContext
}

// Contexts that engines use where the policy's own file does not say.
const (
	defaultProcessContext = "system_u:system_r:container_t:s0"
	defaultFileContext    = "system_u:object_r:container_file_t:s0"
)

// ReadHost reads the running kernel.
func ReadHost() Host {
	h := Host{
		ProcessContext: defaultProcessContext,
		FileContext:    defaultFileContext,
		Loaded:         func(string) bool { return false },
		Landlock:       landlockABI(),
		Seccomp:        exists("/proc/sys/kernel/seccomp/actions_avail"),
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && bytes.HasPrefix(b, []byte("Y")) {
		h.AppArmor = true
		h.Loaded = apparmorLoaded
	}
	if exists("/sys/fs/selinux/enforce") {
		h.SELinux = true
		process, file := lxcContexts()
		if process != "" && file != "" {
			h.ProcessContext, h.FileContext = process, file
		}
	}
	return h
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// apparmorLoaded looks for a line "NAME (mode)".
func apparmorLoaded(profile string) bool {
	f, err := os.Open("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		return false
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, _, ok := strings.Cut(sc.Text(), " (")
		if ok && name == profile {
			return true
		}
	}
	return false
}

// lxcContexts reads what the host's policy says about containers.
//
// Source: selinux_lxc_contexts_path(3); container-selinux, lxc_contexts.
func lxcContexts() (process, file string) {
	name := "targeted"
	if b, err := os.ReadFile("/etc/selinux/config"); err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok {
				name = strings.TrimSpace(v)
			}
		}
	}
	if strings.ContainsAny(name, "/\x00") || name == ".." {
		return "", ""
	}
	b, err := os.ReadFile("/etc/selinux/" + name + "/contexts/lxc_contexts")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(key) {
		case "process":
			process = value
		case "file":
			file = value
		}
	}
	return process, file
}

// landlockABI asks the kernel for its version of Landlock.
//
// Source: security/landlock/syscalls.c, sys_landlock_create_ruleset.
func landlockABI() int {
	const createRulesetVersion = 1
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(nil)), 0, createRulesetVersion)
	if errno != 0 {
		return 0
	}
	return int(abi)
}
