// SPDX-License-Identifier: Apache-2.0

// Package target describes what one host can enforce, as a value.
//
// Compilers take a [Target] as an argument instead of asking the kernel, so
// their output is reproducible, can be made on any operating system, and can be
// made for another host. Package internal/hostfacts reads the target of the
// machine that it runs on; [Preset] has the targets of well-known distributions.
//
// A Target is plain data. Treat it as immutable and use [Target.Clone] before
// changing one. Fields that nobody could determine are empty, and their State
// or Answer is Unknown: a compiler must not take Unknown for Yes.
package target

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Answer is the outcome of a question about a host. The zero value is Unknown.
type Answer uint8

const (
	// Unknown means that the question could not be answered, for example
	// because reading the answer needs a privilege that was not there.
	Unknown Answer = iota
	// No means that the host was asked and does not have it.
	No
	// Yes means that the host was asked and has it.
	Yes
)

// AnswerOf is Yes for true and No for false.
func AnswerOf(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}

var answerNames = [...]string{"unknown", "no", "yes"}

// String is "yes", "no" or "unknown".
func (a Answer) String() string {
	if int(a) < len(answerNames) {
		return answerNames[a]
	}
	return "unknown"
}

// MarshalText writes what String says.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads "yes", "no" or "unknown".
func (a *Answer) UnmarshalText(text []byte) error {
	i := slices.Index(answerNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("parse answer %q: want yes, no or unknown", text)
	}
	*a = Answer(i)
	return nil
}

// State says how much of a mechanism works on a host. The zero value is
// StateUnknown.
type State uint8

const (
	// StateUnknown means that the state could not be determined.
	StateUnknown State = iota
	// Absent means that the kernel or the machine does not have it.
	Absent
	// Off means that it is there and does not enforce anything now: not in
	// the list of active LSMs, permissive, without a policy, or refused.
	Off
	// Enforcing means that what is asked of it now is enforced. For what has
	// no rules of its own, such as control groups, it means usable.
	Enforcing
)

var stateNames = [...]string{"unknown", "absent", "off", "enforcing"}

// String is "enforcing", "off", "absent" or "unknown".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// enforces is the state as the answer to whether something is enforced.
func (s State) enforces() Answer {
	if s == StateUnknown {
		return Unknown
	}
	return AnswerOf(s == Enforcing)
}

// MarshalText writes what String says.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "enforcing", "off", "absent" or "unknown".
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("parse state %q: want enforcing, off, absent or unknown", text)
	}
	*s = State(i)
	return nil
}

// Target is what one host can enforce.
type Target struct {
	// Name is the preset's name, or empty for a host that was read.
	Name   string `json:"name,omitempty"`
	Kernel Kernel `json:"kernel"`
	// Arch is the machine as uname(2) spells it: x86_64, aarch64, riscv64.
	Arch string `json:"arch"`
	// LSMs are the active security modules in the kernel's order. Nil means
	// that the list could not be read, empty that the kernel has none.
	LSMs           []string       `json:"lsm"`
	SELinux        SELinux        `json:"selinux"`
	AppArmor       AppArmor       `json:"apparmor"`
	Landlock       Landlock       `json:"landlock"`
	Seccomp        Seccomp        `json:"seccomp"`
	BPFLSM         BPFLSM         `json:"bpf_lsm"`
	UserNamespaces UserNamespaces `json:"user_namespaces"`
	Cgroup         Cgroup         `json:"cgroup"`
	Yama           Yama           `json:"yama"`
	Lockdown       Lockdown       `json:"lockdown"`
	TEE            TEE            `json:"tee"`
}

// Kernel is a version of Linux.
type Kernel struct {
	// Release is the whole string of uname -r, for example 6.1.0-56-cloud-amd64.
	Release string `json:"release"`
	Major   int    `json:"major"`
	Minor   int    `json:"minor"`
}

// ParseKernel reads the two leading numbers of a release string.
func ParseKernel(release string) (Kernel, error) {
	release = strings.TrimSpace(release)
	k := Kernel{Release: release}
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	var err1, err2 error
	k.Major, err1 = strconv.Atoi(major)
	k.Minor, err2 = strconv.Atoi(rest[:end])
	if err1 != nil || err2 != nil || k.Major < 0 {
		return Kernel{Release: release}, fmt.Errorf("parse kernel release %q: want MAJOR.MINOR", release)
	}
	return k, nil
}

// AtLeast tells whether the version is major.minor or later. It is false for
// the zero value.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// SELinux is the state of SELinux.
type SELinux struct {
	State State `json:"state"`
	// Mode is "enforcing", "permissive" or "disabled"; empty when unknown.
	Mode string `json:"mode,omitempty"`
	// PolicyName is SELINUXTYPE of /etc/selinux/config: default, targeted.
	PolicyName string `json:"policy_name,omitempty"`
	// PolicyVersion is the highest version of the binary policy that the
	// kernel reads, 15 to 35; 0 when unknown.
	PolicyVersion int    `json:"policy_version,omitempty"`
	MLS           Answer `json:"mls"`
	// ContainerTypes tells whether the loaded policy knows container_t and
	// container_file_t, the types that engines ask for.
	ContainerTypes Answer `json:"container_types"`
	// ProcessContext and FileContext are what the policy wants the processes
	// and the content of containers to be labelled with, without categories.
	// Empty when SELinux is not on.
	ProcessContext string `json:"process_context,omitempty"`
	FileContext    string `json:"file_context,omitempty"`
}

// On reports whether SELinux labels processes and files, whether it enforces its
// policy or only logs.
func (s SELinux) On() Answer {
	switch {
	case s.Mode == "enforcing" || s.Mode == "permissive":
		return Yes
	case s.Mode == "disabled" || s.State == Absent:
		return No
	}
	return Unknown
}

// Enforces reports whether the policy is enforced now. It is No under a
// permissive SELinux.
func (s SELinux) Enforces() Answer { return s.State.enforces() }

// AppArmor is the state of AppArmor.
type AppArmor struct {
	State State `json:"state"`
	// Features is the tree below /sys/kernel/security/apparmor/features, one
	// entry per file with the path below it as key and the trimmed content as
	// value: "domain/stack": "yes". Nil when it could not be read.
	Features map[string]string `json:"features,omitempty"`
	// DockerDefault tells whether a profile named docker-default is loaded.
	DockerDefault Answer `json:"docker_default"`
	// Loaded are the loaded profiles with their modes as the kernel spells
	// them: enforce, complain, kill, unconfined. Nil when the list could not be
	// read.
	Loaded map[string]string `json:"loaded,omitempty"`
}

// On reports whether AppArmor confines what has a profile.
func (a AppArmor) On() Answer { return a.State.enforces() }

// Has reports whether a profile is loaded, in whatever mode.
func (a AppArmor) Has(profile string) Answer {
	switch on := a.On(); {
	case on != Yes:
		return on
	case a.Loaded == nil:
		return Unknown
	}
	_, ok := a.Loaded[profile]
	return AnswerOf(ok)
}

// Enforces reports whether a profile is loaded and denies what it does not allow.
// It is No for one that only logs.
func (a AppArmor) Enforces(profile string) Answer {
	has := a.Has(profile)
	if has != Yes {
		return has
	}
	mode := a.Loaded[profile]
	return AnswerOf(mode == "enforce" || mode == "kill")
}

// With is a with one more loaded profile: for callers that have just loaded it.
func (a AppArmor) With(profile, mode string) AppArmor {
	if a.Loaded = maps.Clone(a.Loaded); a.Loaded == nil {
		a.Loaded = map[string]string{}
	}
	a.Loaded[profile] = mode
	return a
}

// Landlock is the state of Landlock.
type Landlock struct {
	State State `json:"state"`
	// ABI is 1 or more when Landlock can be used, 0 when not.
	ABI int `json:"abi"`
	// Errata is the bit set of fixed errata for this ABI, 0 when the kernel
	// does not tell (before 6.15).
	Errata int `json:"errata,omitempty"`
}

// Seccomp is the state of seccomp filters.
type Seccomp struct {
	State State `json:"state"`
	// Actions are the names of /proc/sys/kernel/seccomp/actions_avail:
	// kill_process, kill_thread, trap, errno, user_notif, trace, log, allow.
	Actions []string `json:"actions"`
	// Flags are the SECCOMP_FILTER_FLAG_ names that the kernel takes, lower
	// case without prefix: tsync, log, spec_allow, new_listener, tsync_esrch,
	// wait_killable_recv.
	Flags []string `json:"flags"`
}

// BPFLSM is the state of BPF programs attached to LSM hooks.
type BPFLSM struct {
	State State `json:"state"`
	// Listed tells whether "bpf" is an active LSM. It says little: a kernel
	// may list it and refuse every program.
	Listed Answer `json:"listed"`
	// Loads tells whether the kernel takes a program for an LSM hook.
	Loads Answer `json:"loads"`
}

// UserNamespaces tells who may create user namespaces.
type UserNamespaces struct {
	State State `json:"state"`
	// Max is /proc/sys/user/max_user_namespaces; -1 when unknown.
	Max int `json:"max"`
	// Unprivileged tells whether users without CAP_SYS_ADMIN may.
	Unprivileged Answer `json:"unprivileged"`
}

// Cgroup is the layout of control groups.
type Cgroup struct {
	State State `json:"state"`
	// Mode is "v2" (unified), "v1" (legacy), "hybrid", or empty when unknown.
	Mode string `json:"mode,omitempty"`
	// Controllers are the names of the version that has them, sorted.
	Controllers []string `json:"controllers,omitempty"`
}

// Yama is the state of the ptrace restriction.
type Yama struct {
	State State `json:"state"`
	// PtraceScope is 0 to 3, or -1 when Yama is absent or unreadable.
	PtraceScope int `json:"ptrace_scope"`
}

// Lockdown is the state of kernel lockdown.
type Lockdown struct {
	State State `json:"state"`
	// Mode is "none", "integrity" or "confidentiality"; empty when unknown.
	Mode string `json:"mode,omitempty"`
}

// TEE tells which trusted execution environments can be used.
type TEE struct {
	State State `json:"state"`
	// SGX can run enclaves here, with flexible launch control.
	SGX Answer `json:"sgx"`
	// SEVSNP and TDX are about being inside a guest that can attest itself.
	SEVSNP Answer `json:"sev_snp"`
	TDX    Answer `json:"tdx"`
}

// HasLSM tells whether the module is active; Unknown when the list is not
// known.
func (t Target) HasLSM(name string) Answer {
	if t.LSMs == nil {
		return Unknown
	}
	return AnswerOf(slices.Contains(t.LSMs, name))
}

// Clone is a copy that shares no memory with t.
func (t Target) Clone() Target {
	t.LSMs = slices.Clone(t.LSMs)
	t.AppArmor.Features = maps.Clone(t.AppArmor.Features)
	t.AppArmor.Loaded = maps.Clone(t.AppArmor.Loaded)
	t.Seccomp.Actions = slices.Clone(t.Seccomp.Actions)
	t.Seccomp.Flags = slices.Clone(t.Seccomp.Flags)
	t.Cgroup.Controllers = slices.Clone(t.Cgroup.Controllers)
	return t
}
