// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"context"
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/target"
)

// Line is what a person wants to know of one mechanism beside its state.
type Line struct {
	// Detail says what was found, in one sentence.
	Detail string `json:"detail"`
	// Why says what the mechanism is good for.
	Why string `json:"why"`
	// Enable says how to turn it on; empty when it enforces.
	Enable string `json:"enable,omitempty"`
	// Unknown lists what could not be told and the reason.
	Unknown []string `json:"could_not_tell,omitempty"`
}

func (l *Line) cannotTell(what string, err error) {
	l.Unknown = append(l.Unknown, fmt.Sprintf("%s: %v", what, err))
}

// The types of the parts of a status: the value that compilers take, and the
// line for people.
type (
	// KernelStatus is the kernel and where its configuration was found.
	KernelStatus struct {
		target.Kernel
		Arch string `json:"arch"`
		// Config is the file that the configuration was read from; empty
		// when there is none to read.
		Config string `json:"config,omitempty"`
		Line
	}
	// SELinuxStatus is SELinux.
	SELinuxStatus struct {
		target.SELinux
		Line
	}
	// AppArmorStatus is AppArmor.
	AppArmorStatus struct {
		target.AppArmor
		// Parser is the version of apparmor_parser, "installed" when it
		// gave none, empty when there is no parser.
		Parser string `json:"parser,omitempty"`
		// Profiles counts the loaded profiles by mode.
		Profiles map[string]int `json:"profiles,omitempty"`
		Line
	}
	// LandlockStatus is Landlock.
	LandlockStatus struct {
		target.Landlock
		Line
	}
	// SeccompStatus is seccomp.
	SeccompStatus struct {
		target.Seccomp
		// Logged are the actions that reach the kernel log.
		Logged []string `json:"logged,omitempty"`
		// Config are the CONFIG_SECCOMP options of the kernel.
		Config map[string]string `json:"config,omitempty"`
		Line
	}
	// BPFLSMStatus is BPF programs on LSM hooks.
	BPFLSMStatus struct {
		target.BPFLSM
		Line
	}
	// UserNamespacesStatus is user namespaces.
	UserNamespacesStatus struct {
		target.UserNamespaces
		Line
	}
	// CgroupStatus is control groups.
	CgroupStatus struct {
		target.Cgroup
		Line
	}
	// YamaStatus is Yama.
	YamaStatus struct {
		target.Yama
		Line
	}
	// LockdownStatus is kernel lockdown.
	LockdownStatus struct {
		target.Lockdown
		Line
	}
	// TEEStatus is trusted execution environments.
	TEEStatus struct {
		target.TEE
		// Devices are the device nodes that were found.
		Devices []string `json:"devices"`
		Line
	}
)

// Status is the answer to "what can this host enforce?".
type Status struct {
	Kernel KernelStatus `json:"kernel"`
	// LSM is the list of active modules in the kernel's order; empty when the
	// kernel has none or when LSMSource is empty.
	LSM []string `json:"lsm"`
	// LSMSource tells where the list came from; empty when it could not be read.
	LSMSource      string               `json:"lsm_source"`
	Seccomp        SeccompStatus        `json:"seccomp"`
	Landlock       LandlockStatus       `json:"landlock"`
	SELinux        SELinuxStatus        `json:"selinux"`
	AppArmor       AppArmorStatus       `json:"apparmor"`
	BPFLSM         BPFLSMStatus         `json:"bpf_lsm"`
	Yama           YamaStatus           `json:"yama"`
	Lockdown       LockdownStatus       `json:"lockdown"`
	UserNamespaces UserNamespacesStatus `json:"user_namespaces"`
	Cgroup         CgroupStatus         `json:"cgroup"`
	TEE            TEEStatus            `json:"tee"`
	Runtimes       []Runtime            `json:"runtimes"`
}

// Target is the part that compilers take.
func (s *Status) Target() target.Target {
	t := target.Target{
		Kernel: s.Kernel.Kernel, Arch: s.Kernel.Arch,
		SELinux: s.SELinux.SELinux, AppArmor: s.AppArmor.AppArmor, Landlock: s.Landlock.Landlock,
		Seccomp: s.Seccomp.Seccomp, BPFLSM: s.BPFLSM.BPFLSM, UserNamespaces: s.UserNamespaces.UserNamespaces,
		Cgroup: s.Cgroup.Cgroup, Yama: s.Yama.Yama, Lockdown: s.Lockdown.Lockdown, TEE: s.TEE.TEE,
	}
	if s.LSMSource != "" {
		t.LSMs = s.LSM
	}
	return t.Clone()
}

// Mechanism is one line of the status for people.
type Mechanism struct {
	Name  string
	State target.State
	Line
}

// Mechanisms is the status as lines, those that confine containers first.
func (s *Status) Mechanisms() []Mechanism {
	list := []Mechanism{
		{"seccomp", s.Seccomp.State, s.Seccomp.Line},
		{"landlock", s.Landlock.State, s.Landlock.Line},
		{"selinux", s.SELinux.State, s.SELinux.Line},
		{"apparmor", s.AppArmor.State, s.AppArmor.Line},
		{"bpf-lsm", s.BPFLSM.State, s.BPFLSM.Line},
		{"yama", s.Yama.State, s.Yama.Line},
		{"lockdown", s.Lockdown.State, s.Lockdown.Line},
		{"user namespaces", s.UserNamespaces.State, s.UserNamespaces.Line},
		{"cgroups", s.Cgroup.State, s.Cgroup.Line},
		{"tee", s.TEE.State, s.TEE.Line},
	}
	for i := range list {
		if list[i].Detail == "" {
			list[i].Detail = "could not be determined"
		}
	}
	return list
}

func (r *reader) status(ctx context.Context) *Status {
	s := &Status{LSM: []string{}}
	s.Kernel = r.kernel()
	lsms, source, err := r.lsmList()
	if err == nil {
		s.LSM, s.LSMSource = lsms, source
	} else {
		s.Kernel.cannotTell("active security modules", err)
	}
	// active answers whether a module is in the list; unknown without a list.
	active := func(name string) target.Answer {
		if s.LSMSource == "" {
			return target.Unknown
		}
		return target.AnswerOf(slices.Contains(s.LSM, name))
	}
	s.Seccomp = r.seccomp()
	s.Landlock = r.landlock(active("landlock"), s.Kernel.Kernel)
	s.SELinux = r.selinux(active("selinux"))
	s.AppArmor = r.apparmor(ctx, active("apparmor"))
	s.BPFLSM = r.bpfLSM(active("bpf"))
	s.Yama = r.yama()
	s.Lockdown = r.lockdown()
	s.UserNamespaces = r.userNamespaces()
	s.Cgroup = r.cgroup()
	s.TEE = r.tee()
	s.Runtimes = r.runtimes(ctx, s.SELinux.State, s.Cgroup.Mode)
	return s
}
