// SPDX-License-Identifier: Apache-2.0

package target

import (
	"slices"
)

// LandlockABI is the Landlock ABI of an unpatched kernel of this version, 0
// before 5.13. A distribution that builds Landlock in and leaves it out of the
// list of active modules has 0 all the same.
//
// Source: Documentation/userspace-api/landlock.rst; security/landlock/syscalls.c, landlock_abi_version.
func LandlockABI(k Kernel) int {
	abi := 0
	for i, since := range [...][2]int{{5, 13}, {5, 19}, {6, 2}, {6, 7}, {6, 10}, {6, 12}, {6, 15}} {
		if k.AtLeast(since[0], since[1]) {
			abi = i + 1
		}
	}
	return abi
}

// Contexts of containers where the policy's own file, lxc_contexts, does not
// say.
const (
	DefaultProcessContext = "system_u:system_r:container_t:s0"
	DefaultFileContext    = "system_u:object_r:container_file_t:s0"
)

// distribution is what differs between the presets.
type distribution struct {
	name    string
	release string
	// lsms in the order of /sys/kernel/security/lsm.
	lsms []string
	// selinux is the loaded policy, for those that have SELinux on.
	selinux *SELinux
	// off are the major modules that are built in and not active.
	off          []string
	yamaScope    int
	unprivileged Answer
}

// The active modules follow from each distribution's CONFIG_LSM and default
// kernel command line. The two of Debian are compared with its kernel in a
// virtual machine by the tests of package internal/hostfacts.
var distributions = []distribution{
	{
		name: "debian-12-apparmor", release: "6.1.0-56-amd64",
		lsms:         []string{"lockdown", "capability", "landlock", "yama", "apparmor", "tomoyo", "bpf"},
		off:          []string{"selinux"},
		unprivileged: Yes,
	},
	{
		name: "debian-12-selinux", release: "6.1.0-56-amd64",
		lsms:         []string{"lockdown", "capability", "landlock", "yama", "selinux", "bpf"},
		selinux:      &SELinux{State: Enforcing, Mode: "enforcing", PolicyName: "default", PolicyVersion: 33, MLS: Yes, ContainerTypes: No},
		off:          []string{"apparmor"},
		unprivileged: Yes,
	},
	{
		name: "ubuntu-22.04", release: "5.15.0-170-generic",
		lsms:      []string{"lockdown", "capability", "landlock", "yama", "apparmor"},
		off:       []string{"selinux"},
		yamaScope: 1, unprivileged: Yes,
	},
	{
		name: "ubuntu-24.04", release: "6.8.0-90-generic",
		lsms: []string{"lockdown", "capability", "landlock", "yama", "apparmor"},
		// kernel.apparmor_restrict_unprivileged_userns is 1.
		yamaScope: 1, unprivileged: No,
	},
	{
		name: "fedora-42", release: "6.14.0-63.fc42.x86_64",
		lsms:         []string{"lockdown", "capability", "yama", "selinux", "bpf", "landlock", "ipe", "ima", "evm"},
		selinux:      &SELinux{State: Enforcing, Mode: "enforcing", PolicyName: "targeted", PolicyVersion: 33, MLS: Yes, ContainerTypes: Yes},
		unprivileged: Yes,
	},
	{
		name: "rhel-9", release: "5.14.0-570.el9.x86_64",
		lsms:         []string{"lockdown", "capability", "landlock", "yama", "selinux", "bpf"},
		selinux:      &SELinux{State: Enforcing, Mode: "enforcing", PolicyName: "targeted", PolicyVersion: 33, MLS: Yes, ContainerTypes: Yes},
		unprivileged: Yes,
	},
}

// Presets are the names that [Preset] knows, in alphabetical order.
func Presets() []string {
	list := make([]string, 0, len(distributions))
	for _, d := range distributions {
		list = append(list, d.name)
	}
	slices.Sort(list)
	return list
}

// Preset is the target of a distribution as installed, on x86_64 without a
// trusted execution environment. It claims only what every installation has:
// AppArmor features, which depend on the exact kernel build, are nil.
func Preset(name string) (Target, bool) {
	i := slices.IndexFunc(distributions, func(d distribution) bool { return d.name == name })
	if i < 0 {
		return Target{}, false
	}
	return distributions[i].target(), true
}

func (d distribution) target() Target {
	// The releases are constants of this file; the tests parse each.
	k, _ := ParseKernel(d.release)
	has := func(lsm string) bool { return slices.Contains(d.lsms, lsm) }
	t := Target{
		Name: d.name, Kernel: k, Arch: "x86_64", LSMs: d.lsms,
		SELinux:  SELinux{State: Absent, Mode: "disabled", MLS: No, ContainerTypes: No},
		AppArmor: AppArmor{State: Absent, DockerDefault: No},
		Landlock: Landlock{State: Absent},
		Seccomp: Seccomp{
			State:   Enforcing,
			Actions: []string{"kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow"},
			Flags:   []string{"tsync", "log", "spec_allow", "new_listener", "tsync_esrch"},
		},
		BPFLSM:         BPFLSM{State: Off, Listed: AnswerOf(has("bpf")), Loads: AnswerOf(has("bpf"))},
		UserNamespaces: UserNamespaces{State: Enforcing, Max: -1, Unprivileged: d.unprivileged},
		Cgroup:         Cgroup{State: Enforcing, Mode: "v2"},
		Yama:           Yama{State: Off, PtraceScope: d.yamaScope},
		Lockdown:       Lockdown{State: Off, Mode: "none"},
		TEE:            TEE{State: Absent, SGX: No, SEVSNP: No, TDX: No},
	}
	// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV came with 5.19.
	if k.AtLeast(5, 19) {
		t.Seccomp.Flags = append(t.Seccomp.Flags, "wait_killable_recv")
	}
	if slices.Contains(d.off, "selinux") {
		t.SELinux.State = Off
	}
	if slices.Contains(d.off, "apparmor") {
		t.AppArmor.State = Off
	}
	if d.selinux != nil {
		t.SELinux = *d.selinux
		t.SELinux.ProcessContext, t.SELinux.FileContext = DefaultProcessContext, DefaultFileContext
	}
	if has("apparmor") {
		t.AppArmor.State = Enforcing
	}
	if has("landlock") {
		t.Landlock = Landlock{State: Enforcing, ABI: LandlockABI(k)}
	}
	if has("bpf") {
		t.BPFLSM.State = Enforcing
	}
	if d.yamaScope > 0 {
		t.Yama.State = Enforcing
	}
	return t.Clone()
}
