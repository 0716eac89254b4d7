// SPDX-License-Identifier: Apache-2.0

// Package confine decides what a policy comes to for one container on one host:
// which label, which AppArmor profile, who installs the system call filter, and
// what the last step before the workload does.
package confine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/laststep"
	"github.com/palisade-sec/palisade/runtime/oci"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
	"github.com/palisade-sec/palisade/selinux"
)

// ErrMissing says that the host lacks a layer that the policy requires.
var ErrMissing = errors.New("the host cannot enforce it")

// Request is what a container brings along.
type Request struct {
	ID    string
	Level string
	// HostNetwork tells that the container has the host's network.
	HostNetwork bool
	// Writable are the volumes that may be written to whatever the policy's
	// rules on files say.
	Writable []string
	// Profile is the AppArmor profile that the container is to have: one of its
	// own that was loaded for it, or that of the container that it joins. Empty
	// means the shared one of the policy.
	Profile string
	// Replaces is the profile of the engine whose place Profile takes.
	Replaces string
	// Engine is the filter that an engine has chosen; nil for none.
	Engine *specs.LinuxSeccomp
	// Init is how the last step is executed inside the container; empty when
	// there is none to hand over.
	Init string
}

// Plan is what a policy comes to.
type Plan struct {
	oci.Confinement
	// Step is what the last step does; nil when there is none.
	Step *laststep.Config
	// StepLabel is the SELinux context of what is handed over; empty where
	// SELinux is off.
	StepLabel string
	// Seccomp and Landlock are what is to be in force through the step.
	Seccomp  *effective.Seccomp
	Landlock *effective.Landlock
}

// Ask is what is to be in force in a container with the configuration s, to which
// the plan was applied.
func (p *Plan) Ask(s *specs.Spec) effective.State {
	asked := effective.Asked(s)
	if p.Seccomp != nil {
		runtimes := asked.Seccomp.Filters
		asked.Seccomp = *p.Seccomp
		asked.Seccomp.Filters += runtimes
	}
	asked.Landlock = p.Landlock
	return asked
}

// Labels puts a level into the contexts that the host wants. Both are empty
// where SELinux is off.
func Labels(h Host, level string) (process, mount string, err error) {
	if !h.SELinux {
		return "", "", nil
	}
	l, err := selinux.ParseLevel(level)
	if err != nil {
		return "", "", err
	}
	p, err := selinux.ParseContext(h.ProcessContext)
	if err != nil {
		return "", "", fmt.Errorf("process context of the host's policy: %w", err)
	}
	f, err := selinux.ParseContext(h.FileContext)
	if err != nil {
		return "", "", fmt.Errorf("file context of the host's policy: %w", err)
	}
	return p.WithLevel(l).String(), f.WithLevel(l).String(), nil
}

// Resolve decides what p comes to on h. The error wraps [ErrMissing] when a layer
// that the policy requires is not there: that is said before anything starts.
func Resolve(h Host, p policy.Policy, r Request) (*Plan, error) {
	plan := &Plan{Confinement: oci.Confinement{Policy: p, ID: r.ID, Level: r.Level}}
	var err error
	if plan.ProcessLabel, plan.MountLabel, err = Labels(h, r.Level); err != nil {
		return nil, err
	}
	if name := p.AppArmor.Profile; name != "" {
		switch {
		case h.AppArmor && r.Profile != "":
			plan.AppArmorProfile, plan.Replaces = r.Profile, r.Replaces
		case h.AppArmor && h.Loaded(name):
			plan.AppArmorProfile = name
		case !p.AppArmor.Required:
		case !h.AppArmor:
			return nil, fmt.Errorf("AppArmor profile %q: AppArmor is off: %w", name, ErrMissing)
		default:
			return nil, fmt.Errorf("AppArmor profile %q is not loaded: %w", name, ErrMissing)
		}
	}
	if !h.Seccomp && p.Syscalls.Base != policy.SyscallsNone {
		return nil, fmt.Errorf("system call filter: this kernel has no seccomp: %w", ErrMissing)
	}
	// With new privileges allowed neither a filter nor a domain can be had
	// without CAP_SYS_ADMIN: then the runtime, which has it, installs the filter.
	if r.Init == "" || p.Process.NewPrivileges {
		err = plan.byRuntime(h, p, r)
	} else {
		err = plan.byStep(h, p, r)
	}
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// byRuntime leaves filtering to the OCI runtime, whose configuration has room
// for one filter: what an engine has chosen stays.
func (plan *Plan) byRuntime(h Host, p policy.Policy, r Request) error {
	if r.Engine != nil {
		plan.Confinement.Seccomp = oci.SeccompKeep
		return nil
	}
	filter, err := syscallFilter(p, p.Capabilities, h.Kernel)
	if err != nil || filter == nil {
		return err
	}
	plan.Confinement.Seccomp = oci.SeccompRuntime
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
func (plan *Plan) byStep(h Host, p policy.Policy, r Request) error {
	step := &laststep.Config{}
	asked := effective.Seccomp{Mode: effective.SeccompDisabled, InstalledBy: "palisade-init"}
	if p.Syscalls.Base != policy.SyscallsNone {
		f, err := h.cached(policyFilter{p.Syscalls, p.Network, p.Capabilities, p.Process}, func() (laststep.Filter, error) {
			filter, err := syscallFilter(p, p.Capabilities, h.Kernel)
			if err != nil {
				return laststep.Filter{}, err
			}
			return compile("policy "+p.Name, filter, h.Kernel)
		})
		if err != nil {
			return err
		}
		step.Filters = append(step.Filters, f)
	}
	if r.Engine != nil {
		f, err := h.cached(r.Engine, func() (laststep.Filter, error) { return compile("engine", r.Engine, h.Kernel) })
		switch {
		case err != nil:
			// What we cannot compile, for example a profile with a listener, the
			// runtime installs, and the policy's own comes on top of it.
			plan.Confinement.Seccomp = oci.SeccompKeep
		case len(step.Filters) == 1 && bytes.Equal(f.Program, step.Filters[0].Program):
			plan.Confinement.Seccomp = oci.SeccompInit
		default:
			// The engine's comes last: it need not allow that another is
			// installed.
			plan.Confinement.Seccomp = oci.SeccompInit
			step.Filters = append(step.Filters, f)
		}
	} else {
		plan.Confinement.Seccomp = oci.SeccompInit
	}
	for _, f := range step.Filters {
		sum := sha256.Sum256(f.Program)
		asked.SHA256 = append([]string{hex.EncodeToString(sum[:])}, asked.SHA256...)
	}
	if n := len(step.Filters); n > 0 {
		asked.Mode, asked.Filters = effective.SeccompFilter, n
		plan.Seccomp = &asked
	}
	domain, missing, err := landlock(p, h.Landlock, r.HostNetwork, r.Writable)
	if err != nil {
		return err
	}
	if domain != nil {
		step.Landlock = domain
		plan.Landlock = &effective.Landlock{
			ABI: h.Landlock, HandledFS: domain.HandledFS, HandledNet: domain.HandledNet, Scoped: domain.Scoped, Missing: missing,
		}
	}
	plan.Init = r.Init
	plan.Step = step
	plan.StepLabel = h.StepLabel()
	return nil
}

// Flags of seccomp(2).
const (
	flagLog       = 1 << 1
	flagSpecAllow = 1 << 2
)

var errNotify = errors.New("a filter with a listener is for the runtime")

// compile turns a filter of an OCI configuration into a program.
func compile(name string, filter any, kernel string) (laststep.Filter, error) {
	raw, err := json.Marshal(filter)
	if err != nil {
		return laststep.Filter{}, err
	}
	native, ok := syscalls.FromGo(runtime.GOARCH)
	if !ok {
		return laststep.Filter{}, fmt.Errorf("system call filter: no table for %s: %w", runtime.GOARCH, ErrMissing)
	}
	version, err := syscalls.ParseVersion(kernel)
	if err != nil {
		return laststep.Filter{}, err
	}
	profile, err := seccomp.Parse(name, raw)
	if err != nil {
		return laststep.Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	resolved, err := profile.Resolve(seccomp.Host{Native: native, Kernel: version})
	if err != nil {
		return laststep.Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	if resolved.Notifies() {
		return laststep.Filter{}, errNotify
	}
	program, err := resolved.Compile(seccomp.Options{})
	if err != nil {
		return laststep.Filter{}, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	out := laststep.Filter{Program: program.Bytes()}
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
