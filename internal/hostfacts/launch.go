// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

// ForLaunch is what compiling a policy for one container needs to know of the
// running host: kernel, architecture, SELinux, AppArmor with its loaded profiles,
// Landlock and seccomp. The other fields are unknown. It is read for every
// container, since a profile can be loaded and SELinux made permissive at any time;
// reading takes some 50 µs, most of it the list of profiles where there is AppArmor.
//
// SELinux and AppArmor are Off where they are not active, whether the kernel has
// them or not.
func ForLaunch() target.Target {
	r := &reader{root: "/", live: true, quick: true}
	defer r.done()
	t := target.Target{
		Arch:           machine(),
		UserNamespaces: target.UserNamespaces{Max: -1},
		Yama:           target.Yama{PtraceScope: -1},
	}
	t.Kernel, _ = release()
	t.LSMs, _ = lsmListModules()
	t.Seccomp.Actions, t.Seccomp.Flags = seccompActionsByCall(), []string{}
	if len(t.Seccomp.Actions) > 0 {
		t.Seccomp.State = target.Enforcing
	}
	t.Landlock, _ = landlockByCall()
	t.SELinux = r.selinuxForLaunch(t.HasLSM("selinux"))
	t.AppArmor = r.apparmorForLaunch(t.HasLSM("apparmor"))
	return t
}

// release is the version of the running kernel.
func release() (target.Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return target.Kernel{}, err
	}
	return target.ParseKernel(unix.ByteSliceToString(u.Release[:]))
}

// machines are the names that uname(2) has for what Go calls otherwise.
var machines = map[string]string{"amd64": "x86_64", "386": "i686", "arm64": "aarch64"}

// machine is the native architecture of this program, as uname(2) spells it.
// uname itself answers i686 to a caller with the personality of such a machine,
// whose system calls are those of x86_64 all the same.
func machine() string {
	if name, ok := machines[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// selinuxForLaunch reads the mode of SELinux. Active is what the kernel's list of
// modules says.
func (r *reader) selinuxForLaunch(active target.Answer) target.SELinux {
	if active == target.Unknown {
		active = r.hasFileSystem("selinuxfs")
	}
	switch active {
	case target.No:
		return target.SELinux{State: target.Off, Mode: "disabled", MLS: target.No, ContainerTypes: target.No}
	case target.Unknown:
		return target.SELinux{}
	case target.Yes:
	}
	var s target.SELinux
	dir, err := r.pseudo("selinuxfs", "/sys/fs/selinux", unix.SELINUX_MAGIC)
	if err != nil {
		return s
	}
	switch enforce, err := readFile(dir + "/enforce"); {
	case err != nil:
		return s
	case enforce == "1":
		s.Mode, s.State = "enforcing", target.Enforcing
	case enforce == "0":
		s.Mode, s.State = "permissive", target.Off
	default:
		return s
	}
	s.PolicyName, s.ProcessContext, s.FileContext = r.containerContexts()
	return s
}

// hasFileSystem asks whether the kernel knows a file system. SELinux registers its
// own only when it is active.
//
// Source: security/selinux/selinuxfs.c, init_sel_fs.
func (r *reader) hasFileSystem(name string) target.Answer {
	text, err := r.read("/proc/filesystems")
	if err != nil || text == "" {
		return target.Unknown
	}
	return target.AnswerOf(slices.Contains(strings.Fields(text), name))
}

// containerContexts are the name of the host's policy and what it wants containers
// and their content to be labelled with.
//
// Source: selinux_lxc_contexts_path(3); container-selinux, lxc_contexts.
func (r *reader) containerContexts() (policy, process, file string) {
	process, file = target.DefaultProcessContext, target.DefaultFileContext
	config, _ := r.read("/etc/selinux/config")
	policy = ShellVariable(config, "SELINUXTYPE")
	name := policy
	if name == "" {
		name = "targeted"
	}
	if name != filepath.Base(name) || name == ".." || name == "." {
		return policy, process, file
	}
	text, err := r.read("/etc/selinux/" + name + "/contexts/lxc_contexts")
	if err != nil {
		return policy, process, file
	}
	var ofProcess, ofFile string
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(key) {
		case "process":
			ofProcess = value
		case "file":
			ofFile = value
		}
	}
	if ofProcess != "" && ofFile != "" {
		process, file = ofProcess, ofFile
	}
	return policy, process, file
}

// apparmorForLaunch reads which profiles are loaded. Active is what the kernel's
// list of modules says.
func (r *reader) apparmorForLaunch(active target.Answer) target.AppArmor {
	if active == target.Unknown {
		switch enabled, err := r.read("/sys/module/apparmor/parameters/enabled"); {
		case err == nil:
			active = target.AnswerOf(enabled == "Y")
		case errors.Is(err, fs.ErrNotExist) && r.exists("/sys/module") == target.Yes:
			active = target.No
		}
	}
	switch active {
	case target.No:
		return target.AppArmor{State: target.Off, DockerDefault: target.No}
	case target.Unknown:
		return target.AppArmor{}
	case target.Yes:
	}
	a := target.AppArmor{State: target.Enforcing}
	security, err := r.pseudo("securityfs", "/sys/kernel/security", unix.SECURITYFS_MAGIC)
	if err != nil {
		return a
	}
	if text, err := readFile(security + "/apparmor/profiles"); err == nil {
		a.Loaded = parseProfiles(text)
		a.DockerDefault = target.AnswerOf(a.Loaded["docker-default"] != "")
	}
	return a
}

// parseProfiles reads lines of "name (mode)"; a name can have spaces and brackets
// itself. Children, name//child, count. A line of another form is left out, and so
// is taken for a profile that is not loaded.
func parseProfiles(text string) map[string]string {
	loaded := make(map[string]string, strings.Count(text, "\n")+1)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndex(line, " (")
		if i <= 0 || !strings.HasSuffix(line, ")") {
			continue
		}
		loaded[line[:i]] = line[i+2 : len(line)-1]
	}
	return loaded
}
