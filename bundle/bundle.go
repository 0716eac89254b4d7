// SPDX-License-Identifier: Apache-2.0

// Package bundle compiles a policy for one container on one host: which label,
// which AppArmor profile, who installs the system call filter, and what the last
// step before the workload does.
//
// [Resolve] is pure: the host is a [target.Target], an argument as the policy is,
// so the outcome is reproducible and can be had for another host. What a policy
// asks for and the target cannot enforce is an error that wraps [ErrMissing].
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/landlock"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/target"
)

// ErrMissing says that the host lacks a layer that the policy requires.
var ErrMissing = errors.New("the host cannot enforce it")

// Request is what a container brings along.
type Request struct {
	// ID is the holder of the label.
	ID string
	// Level is the label's level, for example s0:c1,c2.
	Level string
	// HostNetwork reports whether the container has the host's network.
	HostNetwork bool
	// BlockDevices reports that another layer denies block devices: the device control
	// group of the container, see [BlockDevicesDenied].
	BlockDevices bool
	// Shared is the group under which Level was reserved; empty for a label of the
	// container's own.
	Shared string
	// Writable are the volumes that may be written to whatever the policy's
	// rules on files say.
	Writable []string
	// Profile is the container's AppArmor profile: one of its own that was loaded
	// for it, or that of the container that it joins. Empty means the shared one
	// of the policy.
	Profile string
	// EngineProfile is the profile in the engine's configuration. It stays, unless
	// it is empty, "unconfined" or Replaces.
	EngineProfile string
	// Replaces is the profile of the engine whose place Profile takes.
	Replaces string
	// Require are the layers without which the host's owner wants no container
	// to start.
	Require []Layer
	// Engine is the filter that an engine has chosen; nil for none. FilterStays
	// leaves it to the runtime, and the policy's own where there is none.
	Engine      *specs.LinuxSeccomp
	FilterStays bool
	// Init is how the last step is executed inside the container; empty when
	// there is none to hand over.
	Init string
	// Cache keeps compiled filters from one container to the next; the zero value
	// keeps none.
	Cache Cache
}

// Layer is a mechanism that an owner can require for every container.
type Layer string

// The layers of [Request.Require].
const (
	LayerSELinux  Layer = "selinux"
	LayerAppArmor Layer = "apparmor"
)

// Plan is a policy resolved for one container.
type Plan struct {
	Confinement
	// Step is what the last step does; nil when there is none.
	Step *Step
	// StepLabel is the SELinux context of what is handed over to the container;
	// empty where SELinux is off.
	StepLabel string
	// Seccomp and Landlock are what has to be in force through the step; nil for
	// nothing.
	Seccomp  *Filters
	Landlock *Domain
	// Holds says of each rule that Landlock could hold what holds it.
	Holds []Hold
}

// Confinement is what is put into a container's configuration: a policy and what
// was decided about it for this container on this host.
type Confinement struct {
	Policy policy.Policy
	// ID is the holder of the label.
	ID string
	// Level is the MCS label that the container holds, also where SELinux is
	// off.
	Level string
	// ProcessLabel and MountLabel are whole SELinux contexts, empty where
	// SELinux is off: runtimes refuse a label that they cannot set.
	ProcessLabel string
	MountLabel   string
	// AppArmorProfile is the name of a loaded profile, empty for none.
	AppArmorProfile string
	// Replaces is the engine's profile whose place AppArmorProfile takes, because
	// it allows nothing that Replaces denies.
	Replaces string
	// Seccomp says who filters system calls.
	Seccomp SeccompMode
	// Filter is what goes into the configuration with [SeccompRuntime].
	Filter *specs.LinuxSeccomp
	// Init is the path, inside the container, of the last step that runs
	// before the workload; empty for none.
	Init string
	// Root is the real path of the container's root; empty takes the path of the
	// configuration, relative to the bundle.
	Root string
	// Env is added to the environment of the process.
	Env []string
}

// SeccompMode says who filters system calls.
type SeccompMode int

const (
	// SeccompKeep leaves the filter of the configuration.
	SeccompKeep SeccompMode = iota
	// SeccompRuntime gives the OCI runtime [Confinement.Filter].
	SeccompRuntime
	// SeccompInit takes the filter out of the configuration, because the last
	// step inside the container installs one.
	SeccompInit
)

// Step is what the last step does before it becomes the workload, in this order.
type Step struct {
	// NoNewPrivileges is for starters that have not set it themselves.
	NoNewPrivileges bool
	// AppArmor is the profile to change to, for starters that have not; empty for
	// none.
	AppArmor string
	// Landlock is the domain, with rights of the target's ABI; nil for none. Rules whose path does
	// not exist in the container are left out.
	Landlock *landlock.Ruleset
	// Filters are installed in this order; the last is the newest.
	Filters []Filter
}

// Filter is a seccomp filter: flags of seccomp(2), and the array of struct
// sock_filter in the byte order of the target.
type Filter struct {
	Flags   uint32
	Program []byte
}

// SHA256 is the hash of the filter's instructions, in hexadecimal.
func (f Filter) SHA256() string {
	sum := sha256.Sum256(f.Program)
	return hex.EncodeToString(sum[:])
}

// Filters are the system call filters that have to be in force through the step.
type Filters struct {
	// Count is at least 1.
	Count int
	// SHA256 are the hashes of their instructions, the newest first.
	SHA256 []string
}

// Domain is the Landlock domain that has to be in force through the step.
type Domain struct {
	// ABI is the version of the interface that the domain is made with.
	ABI int
	// Rules are what the domain denies, and what it allows of it.
	Rules landlock.Ruleset
	// Missing names the rights that would be handled and that the ABI does not have.
	// No value of the policy asks for them.
	Missing []string
}

// Labels puts a level into the contexts that the target's policy wants. Both are
// empty where SELinux is off. It is an error when the target does not say whether
// SELinux is on.
func Labels(t target.Target, level string) (process, mount string, err error) {
	switch t.SELinux.On() {
	case target.No:
		return "", "", nil
	case target.Unknown:
		return "", "", fmt.Errorf("SELinux label: could not tell whether SELinux is on: %w", ErrMissing)
	case target.Yes:
	}
	l, err := selinux.ParseLevel(level)
	if err != nil {
		return "", "", err
	}
	p, err := selinux.ParseContext(t.SELinux.ProcessContext)
	if err != nil {
		return "", "", fmt.Errorf("process context of the host's policy: %w", err)
	}
	f, err := selinux.ParseContext(t.SELinux.FileContext)
	if err != nil {
		return "", "", fmt.Errorf("file context of the host's policy: %w", err)
	}
	return p.WithLevel(l).String(), f.WithLevel(l).String(), nil
}

// StepLabel is the SELinux context of what all containers may read and execute,
// empty where SELinux is not on.
func StepLabel(t target.Target) string {
	if t.SELinux.On() != target.Yes {
		return ""
	}
	return t.SELinux.FileContext
}

// Resolve resolves p for one container on the host t. The error wraps [ErrMissing]
// when the host cannot enforce a layer that the policy or the owner requires, so
// that it is reported before anything starts.
func Resolve(t target.Target, p policy.Policy, r Request) (*Plan, error) {
	plan := &Plan{Confinement: Confinement{Policy: p, ID: r.ID, Level: r.Level}}
	if err := check(p, r); err != nil {
		return nil, err
	}
	var err error
	if plan.ProcessLabel, plan.MountLabel, err = Labels(t, r.Level); err != nil {
		return nil, err
	}
	if err := plan.profile(t, p, r); err != nil {
		return nil, err
	}
	if err := plan.required(t, r); err != nil {
		return nil, err
	}
	if t.Seccomp.State != target.Enforcing && p.Syscalls.Base != policy.SyscallsNone {
		return nil, fmt.Errorf("system call filter: seccomp filters are %s on this kernel: %w", t.Seccomp.State, ErrMissing)
	}
	domain, holds, err := landlockFor(t, p, r)
	if err != nil {
		return nil, err
	}
	plan.Holds = holds
	if domain != nil {
		plan.Landlock = &Domain{ABI: t.Landlock.ABI, Rules: *domain}
		for _, h := range holds {
			if h.By == ByNone {
				plan.Landlock.Missing = append(plan.Landlock.Missing, h.Rights...)
			}
		}
	}
	// With new privileges allowed, a filter or a domain needs CAP_SYS_ADMIN. The
	// runtime has it, so the runtime installs the filter.
	if r.Init == "" || p.Process.NewPrivileges {
		err = plan.byRuntime(t, p, r)
	} else {
		err = plan.byStep(t, p, r, domain)
	}
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// profile picks the AppArmor profile: the container's own, or the policy's where
// it is loaded and enforces.
func (plan *Plan) profile(t target.Target, p policy.Policy, r Request) error {
	name, shared := p.AppArmor.Profile, true
	if name == "" {
		return nil
	}
	if r.Profile != "" {
		name, shared = r.Profile, false
	}
	if t.AppArmor.Enforces(name) == target.Yes {
		plan.AppArmorProfile = name
		if !shared {
			plan.Replaces = r.Replaces
		}
		return nil
	}
	if !shared || p.AppArmor.Required {
		return missingProfile(t, name)
	}
	return nil
}

// missingProfile says why a profile does not enforce.
func missingProfile(t target.Target, name string) error {
	why := "is loaded and does not enforce"
	switch {
	case t.AppArmor.On() == target.No:
		why = "cannot be used: AppArmor is off"
	case t.AppArmor.Has(name) == target.No:
		why = "is not loaded"
	case t.AppArmor.Has(name) == target.Unknown:
		why = "cannot be checked: the list of loaded profiles could not be read"
	default:
		if mode := t.AppArmor.Loaded[name]; mode != "" {
			why += " (" + mode + ")"
		}
	}
	return fmt.Errorf("AppArmor profile %q %s: %w", name, why, ErrMissing)
}

// CheckProfile refuses a profile that was asked for by name and that the host
// does not enforce. The error wraps [ErrMissing].
func CheckProfile(t target.Target, name string) error {
	if t.AppArmor.Enforces(name) == target.Yes {
		return nil
	}
	return missingProfile(t, name)
}

// required checks the layers that the host's owner requires: SELinux has to
// enforce, and so has the profile that the container ends up with.
func (plan *Plan) required(t target.Target, r Request) error {
	for _, layer := range r.Require {
		switch layer {
		case LayerSELinux:
			why := ""
			switch {
			case t.SELinux.Enforces() == target.Yes:
				continue
			case t.SELinux.Mode == "permissive":
				why = "permissive"
			case t.SELinux.On() == target.No:
				why = "off"
			default:
				why = "in a state that could not be determined"
			}
			return fmt.Errorf("%s, which this host requires, is %s: %w", layer, why, ErrMissing)
		case LayerAppArmor:
			name := r.EngineProfile
			if name == "" || name == "unconfined" || name == plan.Replaces {
				name = plan.AppArmorProfile
			}
			switch {
			case t.AppArmor.On() == target.No:
				return fmt.Errorf("%s, which this host requires, is off: %w", layer, ErrMissing)
			case name == "":
				return fmt.Errorf("%s, which this host requires: the container has no profile that is loaded and enforces: %w", layer, ErrMissing)
			}
			if err := CheckProfile(t, name); err != nil {
				return fmt.Errorf("%s, which this host requires: %w", layer, err)
			}
		default:
			return fmt.Errorf("unknown layer %q is required: %w", layer, ErrMissing)
		}
	}
	return nil
}

// byRuntime leaves filtering to the OCI runtime, whose configuration has room
// for one filter: what an engine has chosen stays.
func (plan *Plan) byRuntime(t target.Target, p policy.Policy, r Request) error {
	filter, err := syscallFilter(t, p, p.Capabilities)
	if err != nil {
		return err
	}
	if r.Engine != nil {
		plan.Confinement.Seccomp = SeccompKeep
		return atLeast(t, p, r.Engine, filter)
	}
	if filter == nil {
		return nil
	}
	plan.Confinement.Seccomp = SeccompRuntime
	plan.Filter, err = toSpec(filter)
	return err
}

// policyFilter is what of a policy its filter depends on.
type policyFilter struct {
	Syscalls     policy.Syscalls
	Network      *policy.Network
	Capabilities caps.Set
	Process      policy.Process
}

// byStep makes the last step filter and restrict.
func (plan *Plan) byStep(t target.Target, p policy.Policy, r Request, domain *landlock.Ruleset) error {
	step := &Step{}
	ours := func(s policy.Syscalls) (Filter, error) {
		return r.Cache.filter(t, policyFilter{s, p.Network, p.Capabilities, p.Process}, func() (Filter, error) {
			q := p
			q.Syscalls = s
			filter, err := syscallFilter(t, q, p.Capabilities)
			if err != nil {
				return Filter{}, err
			}
			return compile(t, "policy "+p.Name, filter)
		})
	}
	if p.Syscalls.Base != policy.SyscallsNone {
		f, err := ours(p.Syscalls)
		if err != nil {
			return err
		}
		step.Filters = append(step.Filters, f)
	}
	plan.Confinement.Seccomp = SeccompInit
	switch {
	case r.FilterStays && r.Engine != nil:
		plan.Confinement.Seccomp = SeccompKeep
	case r.FilterStays && len(step.Filters) > 0:
		// What the runtime executes inside before the last step runs under the
		// policy's filter, too.
		filter, err := syscallFilter(t, p, p.Capabilities)
		if err != nil {
			return err
		}
		plan.Confinement.Seccomp = SeccompRuntime
		if plan.Filter, err = toSpec(filter); err != nil {
			return err
		}
	case r.Engine != nil:
		f, err := r.Cache.filter(t, r.Engine, func() (Filter, error) { return compile(t, "engine", r.Engine) })
		switch {
		case err != nil:
			// What we cannot compile, for example a profile with a listener, the
			// runtime installs, and the policy's own comes on top of it.
			plan.Confinement.Seccomp = SeccompKeep
		case len(step.Filters) == 1 && bytes.Equal(f.Program, step.Filters[0].Program):
		case len(step.Filters) == 1 && len(p.Syscalls.DenyUses) > 0 && widerEqual(ours, p.Syscalls, f):
			// The engine's is the policy's without DenyUses, which refuses less.
		default:
			// The engine's comes last: it need not allow that another is
			// installed.
			step.Filters = append(step.Filters, f)
		}
	}
	if n := len(step.Filters); n > 0 {
		plan.Seccomp = &Filters{Count: n}
		for i := n - 1; i >= 0; i-- {
			plan.Seccomp.SHA256 = append(plan.Seccomp.SHA256, step.Filters[i].SHA256())
		}
	}
	step.Landlock = domain
	plan.Init = r.Init
	plan.Step = step
	plan.StepLabel = StepLabel(t)
	return nil
}

// widerEqual reports whether f is the policy's filter without DenyUses.
func widerEqual(ours func(policy.Syscalls) (Filter, error), s policy.Syscalls, f Filter) bool {
	s.DenyUses = nil
	wider, err := ours(s)
	return err == nil && bytes.Equal(f.Program, wider.Program)
}

// Flags of seccomp(2).
const (
	flagLog       = 1 << 1
	flagSpecAllow = 1 << 2
)

var errNotify = errors.New("a filter with a listener is for the runtime")

// seccompHost is what the compiler of filters takes from a target.
func seccompHost(t target.Target) (seccomp.Host, error) {
	native, err := syscalls.ParseArch(t.Arch)
	if err != nil {
		return seccomp.Host{}, fmt.Errorf("system call filter: no table for %q: %w", t.Arch, ErrMissing)
	}
	version, err := syscalls.ParseVersion(t.Kernel.Release)
	if err != nil {
		return seccomp.Host{}, fmt.Errorf("system call filter: kernel version: %w", err)
	}
	return seccomp.Host{Native: native, Kernel: version}, nil
}

// compile turns a filter of an OCI configuration into a program.
func compile(t target.Target, name string, filter any) (Filter, error) {
	raw, err := json.Marshal(filter)
	if err != nil {
		return Filter{}, err
	}
	host, err := seccompHost(t)
	if err != nil {
		return Filter{}, err
	}
	profile, err := seccomp.Parse(name, raw)
	if err != nil {
		return Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	resolved, err := profile.Resolve(host)
	if err != nil {
		return Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	if resolved.Notifies() {
		return Filter{}, errNotify
	}
	program, err := resolved.Compile(seccomp.Options{})
	if err != nil {
		return Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	out := Filter{Program: program.Bytes()}
	for _, flag := range resolved.Flags() {
		switch flag {
		case seccomp.FlagSpecAllow:
			out.Flags |= flagSpecAllow
		case "SECCOMP_FILTER_FLAG_LOG":
			out.Flags |= flagLog
		}
	}
	return out, nil
}
