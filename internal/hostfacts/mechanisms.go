// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

const (
	seccompSetModeFilter  = 1
	seccompGetActionAvail = 2
)

// seccompActions are the actions with their values, in the kernel's order.
var seccompActions = []struct {
	name  string
	value uint32
}{
	{"kill_process", 0x80000000},
	{"kill_thread", 0},
	{"trap", 0x00030000},
	{"errno", 0x00050000},
	{"user_notif", 0x7fc00000},
	{"trace", 0x7ff00000},
	{"log", 0x7ffc0000},
	{"allow", 0x7fff0000},
}

var seccompFlags = []string{"tsync", "log", "spec_allow", "new_listener", "tsync_esrch", "wait_killable_recv"}

var errNotAsked = errors.New("the running kernel was not asked")

func (r *reader) seccomp() SeccompStatus {
	s := SeccompStatus{Line: Line{
		Why: "filters system calls before any other check; the only layer that hides kernel code with bugs from a container",
	}}
	s.Actions, s.Flags = []string{}, []string{}
	text, err := r.read("/proc/sys/kernel/seccomp/actions_avail")
	switch {
	case err == nil:
		s.Actions = strings.Fields(text)
	case r.live:
		if s.Actions = seccompActionsByCall(); len(s.Actions) == 0 {
			s.cannotTell("seccomp actions", err)
		}
	default:
		s.cannotTell("seccomp actions", err)
	}
	if logged, err := r.read("/proc/sys/kernel/seccomp/actions_logged"); err == nil {
		s.Logged = strings.Fields(logged)
	}
	if r.live {
		for i, name := range seccompFlags {
			// A filter at address 0 cannot be installed: the kernel refuses
			// unknown flags with EINVAL before it reads the filter, and known
			// ones with EFAULT after.
			_, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompSetModeFilter, uintptr(flagCombination(i)), 0)
			switch errno {
			case unix.EFAULT:
				s.Flags = append(s.Flags, name)
			case unix.EINVAL:
			default:
				s.cannotTell("seccomp flag "+name, errno)
			}
		}
	} else {
		s.cannotTell("seccomp flags", errNotAsked)
	}
	for name, value := range r.config {
		if strings.HasPrefix(name, "CONFIG_SECCOMP") || name == "CONFIG_HAVE_ARCH_SECCOMP_FILTER" {
			if s.Config == nil {
				s.Config = make(map[string]string)
			}
			s.Config[name] = value
		}
	}
	built := r.config.Built("CONFIG_SECCOMP_FILTER")
	switch {
	case len(s.Actions) > 0:
		s.State = target.Enforcing
		s.Detail = fmt.Sprintf("filters work; actions %s; flags %s", strings.Join(s.Actions, " "), orNone(s.Flags))
	case built == target.No:
		s.State = target.Absent
		s.Detail = "the kernel is built without CONFIG_SECCOMP_FILTER"
		s.Enable = "boot a kernel with CONFIG_SECCOMP=y and CONFIG_SECCOMP_FILTER=y; every distribution's kernel has both"
	default:
		s.Detail = "could not be asked"
	}
	return s
}

// seccompActionsByCall asks the kernel for each action; none where it has no
// seccomp(2) or that is filtered.
func seccompActionsByCall() []string {
	list := []string{}
	for _, a := range seccompActions {
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompGetActionAvail, 0, uintptr(unsafe.Pointer(&a.value))); errno == 0 {
			list = append(list, a.name)
		}
	}
	return list
}

// flagCombination is what to pass for flag number i: wait_killable_recv is
// accepted only together with new_listener.
func flagCombination(i int) uint32 {
	if seccompFlags[i] == "wait_killable_recv" {
		return 1<<i | 1<<slices.Index(seccompFlags, "new_listener")
	}
	return 1 << i
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}

// landlockByCall asks the kernel for its version of Landlock.
//
// Source: security/landlock/syscalls.c, sys_landlock_create_ruleset.
func landlockByCall() (target.Landlock, unix.Errno) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
	case unix.EOPNOTSUPP:
		return target.Landlock{State: target.Off}, errno
	default:
		// The kernel does not have it, or the call is filtered here.
		return target.Landlock{}, errno
	}
	l := target.Landlock{State: target.Enforcing, ABI: int(abi)}
	const createRulesetErrata = 2
	if errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetErrata); errno == 0 {
		l.Errata = int(errata)
	}
	return l, 0
}

func (r *reader) landlock(active target.Answer, k target.Kernel) LandlockStatus {
	s := LandlockStatus{Line: Line{
		Why: "confines files, TCP ports and signals without a policy loaded by root, stacked below SELinux and AppArmor",
	}}
	built := r.config.Built("CONFIG_SECURITY_LANDLOCK")
	enable := "boot with landlock in the lsm= list (Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK=y)"
	if !r.live {
		s.cannotTell("Landlock ABI", errNotAsked)
		switch {
		case active == target.Yes:
			s.State, s.ABI = target.Enforcing, target.LandlockABI(k)
			s.Detail = fmt.Sprintf("active; ABI %d follows from the kernel's version", s.ABI)
		case active == target.No && built == target.Yes:
			s.State, s.Detail, s.Enable = target.Off, "built in, not in the list of active modules", enable
		case built == target.No:
			s.State, s.Detail, s.Enable = target.Absent, "the kernel is built without it", enable
		}
		return s
	}
	l, errno := landlockByCall()
	switch errno {
	case 0:
		s.Landlock = l
		s.Detail = fmt.Sprintf("ABI %d", s.ABI)
		if s.Errata != 0 {
			s.Detail += fmt.Sprintf(", errata %#x fixed", s.Errata)
		}
	case unix.EOPNOTSUPP:
		s.State, s.Detail, s.Enable = target.Off, "built in, disabled at boot", enable
	case unix.ENOSYS:
		// A seccomp filter may answer so too; the kernel's configuration
		// and version tell the two apart.
		if built == target.Yes || active == target.Yes {
			s.cannotTell("Landlock ABI", errors.New("the kernel has Landlock, but the system call is filtered here"))
			s.Detail = "the system call is filtered here"
			return s
		}
		s.State, s.Detail, s.Enable = target.Absent, "the kernel does not have it", enable
	default:
		s.cannotTell("Landlock ABI", errno)
		s.Detail = "the system call is filtered here"
	}
	return s
}

func (r *reader) yama() YamaStatus {
	s := YamaStatus{Line: Line{Why: "keeps processes of one user from tracing each other, in containers too"}}
	s.PtraceScope = -1
	scope, err := r.readInt("/proc/sys/kernel/yama/ptrace_scope")
	switch {
	case err == nil && scope > 0:
		s.State, s.PtraceScope = target.Enforcing, scope
		s.Detail = fmt.Sprintf("ptrace_scope %d: %s", scope, map[int]string{1: "only ancestors may trace", 2: "only CAP_SYS_PTRACE may trace", 3: "nobody may trace"}[scope])
	case err == nil:
		s.State, s.PtraceScope = target.Off, scope
		s.Detail = "ptrace_scope 0: any process of the same user may trace"
		s.Enable = "sysctl -w kernel.yama.ptrace_scope=1, and a file in /etc/sysctl.d to keep it"
	case r.exists("/proc/sys/kernel/ostype") == target.Yes && r.exists("/proc/sys/kernel/yama") == target.No:
		s.State, s.Detail = target.Absent, "the kernel does not have it active"
		s.Enable = "boot with yama in the lsm= list (CONFIG_SECURITY_YAMA=y)"
	default:
		s.cannotTell("ptrace_scope", err)
	}
	return s
}

func (r *reader) lockdown() LockdownStatus {
	s := LockdownStatus{Line: Line{Why: "keeps even root from changing the running kernel: unsigned modules, /dev/mem, kexec, raw MSRs"}}
	if r.security == "" {
		s.cannotTell("lockdown", r.securityErr)
		return s
	}
	text, err := readFile(r.security + "/lockdown")
	if err != nil {
		if r.config.Built("CONFIG_SECURITY_LOCKDOWN_LSM") == target.No {
			s.State, s.Detail = target.Absent, "the kernel is built without it"
			s.Enable = "boot a kernel with CONFIG_SECURITY_LOCKDOWN_LSM=y"
			return s
		}
		s.cannotTell("lockdown", err)
		return s
	}
	// none [integrity] confidentiality
	if _, rest, ok := strings.Cut(text, "["); ok {
		s.Mode, _, _ = strings.Cut(rest, "]")
	}
	switch s.Mode {
	case "":
		s.cannotTell("lockdown", fmt.Errorf("no mode is marked in %q", text))
	case "none":
		s.State, s.Detail = target.Off, "mode none"
		s.Enable = "boot with lockdown=integrity, or with secure boot on distributions that couple the two"
	default:
		s.State, s.Detail = target.Enforcing, "mode "+s.Mode
	}
	return s
}

func (r *reader) userNamespaces() UserNamespacesStatus {
	s := UserNamespacesStatus{Line: Line{
		Why: "root of a container that is nobody on the host; also the way to most kernel bugs for unprivileged users",
	}}
	s.Max = -1
	if r.exists("/proc/self/ns") == target.Yes && r.exists("/proc/self/ns/user") == target.No || r.config.Built("CONFIG_USER_NS") == target.No {
		s.State, s.Unprivileged = target.Absent, target.No
		s.Detail, s.Enable = "the kernel is built without them", "boot a kernel with CONFIG_USER_NS=y"
		return s
	}
	limit, err := r.readInt("/proc/sys/user/max_user_namespaces")
	if err != nil {
		s.cannotTell("limit of user namespaces", err)
		return s
	}
	s.Max = limit
	if limit == 0 {
		s.State, s.Unprivileged = target.Off, target.No
		s.Detail, s.Enable = "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000"
		return s
	}
	s.State, s.Unprivileged = target.Enforcing, target.Yes
	s.Detail = fmt.Sprintf("at most %d, unprivileged users may create them", limit)
	for _, sysctl := range []struct {
		file   string
		barred int
		detail string
	}{
		{"kernel/unprivileged_userns_clone", 0, "only root may create them (kernel.unprivileged_userns_clone=0)"},
		{"kernel/apparmor_restrict_unprivileged_userns", 1, "AppArmor restricts those of unprivileged users (kernel.apparmor_restrict_unprivileged_userns=1)"},
	} {
		if v, err := r.readInt("/proc/sys/" + sysctl.file); err == nil && v == sysctl.barred {
			s.Unprivileged = target.No
			s.Detail = fmt.Sprintf("at most %d; %s", limit, sysctl.detail)
		}
	}
	return s
}

func (r *reader) cgroup() CgroupStatus {
	s := CgroupStatus{Line: Line{Why: "limits memory, processes and devices of a container; version 2 is also what BPF and modern runtimes identify a container by"}}
	mounts, err := r.mounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		s.cannotTell("mounts of cgroup", err)
		return s
	}
	var v1, v2 bool
	unified := ""
	for _, m := range mounts {
		switch m.FSType {
		case "cgroup":
			// name= hierarchies hold no controllers and limit nothing.
			v1 = true
		case "cgroup2":
			v2 = true
			if unified == "" {
				unified = m.Mountpoint
			}
		}
	}
	switch {
	case v2 && !v1:
		s.Mode = "v2"
		if c, err := r.read(unified + "/cgroup.controllers"); err == nil {
			s.Controllers = strings.Fields(c)
			slices.Sort(s.Controllers)
		} else {
			s.cannotTell("controllers", err)
		}
	case v1:
		s.Mode = "v1"
		if v2 {
			s.Mode = "hybrid"
		}
		if text, err := r.read("/proc/cgroups"); err == nil {
			for line := range strings.Lines(text) {
				f := strings.Fields(line)
				if len(f) == 4 && !strings.HasPrefix(f[0], "#") && f[3] == "1" && f[1] != "0" {
					s.Controllers = append(s.Controllers, f[0])
				}
			}
			slices.Sort(s.Controllers)
		} else {
			s.cannotTell("controllers", err)
		}
	default:
		s.State, s.Detail = target.Absent, "no cgroup hierarchy is mounted"
		s.Enable = "mount -t cgroup2 none /sys/fs/cgroup, or boot a system manager that does"
		return s
	}
	s.State = target.Enforcing
	s.Detail = fmt.Sprintf("%s; controllers %s", s.Mode, orNone(s.Controllers))
	if s.Mode != "v2" {
		s.Enable = "for version 2: boot with systemd.unified_cgroup_hierarchy=1 (crun refuses hybrid)"
	}
	return s
}

// mounts is the part of the mount table that a filter takes.
func (r *reader) mounts(filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	if r.live {
		return mountinfo.GetMounts(filter)
	}
	text, err := r.read("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return mountinfo.GetMountsFromReader(strings.NewReader(text), filter)
}

func (r *reader) tee() TEEStatus {
	s := TEEStatus{Devices: []string{}, Line: Line{
		Why: "keeps the memory of a workload from the host itself and proves to others what runs in it",
	}}
	device := func(names ...string) target.Answer {
		answer := target.No
		for _, name := range names {
			switch r.exists(name) {
			case target.Yes:
				s.Devices = append(s.Devices, name)
				answer = target.Yes
			case target.Unknown:
				if answer == target.No {
					answer = target.Unknown
				}
			}
		}
		return answer
	}
	if r.exists("/dev/null") == target.No {
		s.cannotTell("devices", errors.New("there is no /dev to look at"))
		return s
	}
	s.SGX = device("/dev/sgx_enclave", "/dev/sgx/enclave", "/dev/isgx")
	s.SEVSNP = device("/dev/sev-guest")
	s.TDX = device("/dev/tdx_guest", "/dev/tdx-guest")
	// /dev/sev and kvm_intel's tdx are the host's side: this machine can start
	// such guests and is none itself.
	var can []string
	if device("/dev/sev") == target.Yes {
		can = append(can, "SEV")
	}
	if v, err := r.read("/sys/module/kvm_intel/parameters/tdx"); err == nil && (v == "Y" || v == "1") {
		can = append(can, "TDX")
	}
	cpu, err := r.read("/proc/cpuinfo")
	if err != nil {
		s.cannotTell("features of the processor", err)
	}
	flags := cpuFlags(cpu)
	var have []string
	for _, t := range []struct {
		name   string
		answer target.Answer
	}{{"SGX enclaves", s.SGX}, {"SEV-SNP guest", s.SEVSNP}, {"TDX guest", s.TDX}} {
		if t.answer == target.Yes {
			have = append(have, t.name)
		}
	}
	switch {
	case len(have) > 0:
		s.State, s.Detail = target.Enforcing, strings.Join(have, ", ")
	case slices.Contains(flags, "sgx"):
		s.State, s.Detail = target.Off, "the processor has SGX, but there is no /dev/sgx_enclave"
		s.Enable = "turn SGX on in the firmware, with flexible launch control, and boot a kernel with CONFIG_X86_SGX=y"
	case len(can) > 0:
		s.State, s.Detail = target.Off, "this host can start confidential guests ("+strings.Join(can, ", ")+") and is none itself"
		s.Enable = "run Palisade inside such a guest"
	case err == nil:
		s.State, s.Detail = target.Absent, "neither SGX nor a guest of SEV-SNP or TDX"
		s.Enable = "a processor with SGX2, or a confidential virtual machine (SEV-SNP, TDX)"
	}
	return s
}

func cpuFlags(cpuinfo string) []string {
	for line := range strings.Lines(cpuinfo) {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); ok && (name == "flags" || name == "Features") {
			return strings.Fields(value)
		}
	}
	return nil
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
