// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/target"
)

// check refuses values of a policy that no layer would enforce, whatever the host. The error
// wraps [ErrMissing] and names the value.
func check(p policy.Policy, r Request) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("policy %q: %w: %w", p.Name, err, ErrMissing)
	}
	for _, list := range []struct {
		what  string
		names []string
	}{{"deny", p.Syscalls.Deny}, {"allow", p.Syscalls.Allow}} {
		for _, name := range list.names {
			if _, ok := syscalls.Lookup(name); !ok {
				return fmt.Errorf("syscalls: %s %q: no such system call: %w", list.what, name, ErrMissing)
			}
		}
	}
	if p.Syscalls.Base == policy.SyscallsNone {
		// There is no filter that could hold these.
		switch {
		case len(p.Syscalls.Deny) > 0:
			return fmt.Errorf("syscalls: deny %q: base none filters nothing: %w", p.Syscalls.Deny[0], ErrMissing)
		case len(p.Syscalls.DenyUses) > 0:
			return fmt.Errorf("syscalls: use %q: base none filters nothing: %w", p.Syscalls.DenyUses[0], ErrMissing)
		case p.Network != nil:
			return fmt.Errorf("network: families: syscalls: base none filters nothing: %w", ErrMissing)
		case p.Process.Ptrace == "none":
			return fmt.Errorf("process: ptrace none: syscalls: base none filters nothing: %w", ErrMissing)
		case len(p.Syscalls.DenyUses) > 0:
			return fmt.Errorf("syscalls: deny use %q: base none filters nothing: %w", p.Syscalls.DenyUses[0], ErrMissing)
		}
	}
	if p.Network != nil {
		for _, name := range p.Network.Families {
			if _, ok := families[name]; !ok {
				return fmt.Errorf("network: family %q: %w: %w", name, ErrFamily, ErrMissing)
			}
		}
	}
	return checkLabel(p.Label, r)
}

// checkLabel refuses a label that is not the one that the policy wants.
func checkLabel(l policy.Label, r Request) error {
	want, err := l.Claim()
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrMissing)
	}
	if want.Shared != "" && r.Shared != want.Shared {
		return fmt.Errorf("label: mcs %q: the label was reserved for %s: %w", l.MCS, group(r.Shared), ErrMissing)
	}
	if r.Level == "" {
		if want.Shared != "" || want.Level != "" {
			return fmt.Errorf("label: mcs %q: no label was reserved: %w", l.MCS, ErrMissing)
		}
		return nil
	}
	got, err := selinux.ParseLevel(r.Level)
	if err != nil {
		return fmt.Errorf("label %q: %w", r.Level, err)
	}
	if want.Level != "" {
		if level, err := selinux.ParseLevel(want.Level); err != nil || level.Compare(got) != selinux.Equal {
			return fmt.Errorf("label: mcs %q: the container has %s: %w", l.MCS, got, ErrMissing)
		}
	}
	if plain, err := selinux.ParseLevel(want.Sensitivity); err != nil || plain.Sensitivity != got.Sensitivity {
		return fmt.Errorf("label: level %q: the container has %s: %w", l.Level, got, ErrMissing)
	}
	return nil
}

func group(name string) string {
	if name == "" {
		return "the container alone"
	}
	return fmt.Sprintf("group %q", name)
}

// atLeast refuses a filter of an engine that lets a call through that the policy's filter would
// stop: where only the runtime can install a filter, there is room for one.
func atLeast(t target.Target, p policy.Policy, engine *specs.LinuxSeccomp, ours *seccomp.LinuxSeccomp) error {
	if ours == nil {
		return nil
	}
	host, err := seccompHost(t)
	if err != nil {
		return err
	}
	a, err := meaning(host, "policy "+p.Name, ours)
	if err != nil {
		return err
	}
	b, err := meaning(host, "engine", engine)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrMissing)
	}
	changes, err := seccomp.Diff(a, b, []syscalls.Arch{host.Native})
	if err != nil {
		return fmt.Errorf("compare the engine's filter with the policy's: %w: %w", err, ErrMissing)
	}
	for _, c := range changes {
		if c.Grants() {
			return fmt.Errorf("system call filter: the engine's takes the place of the policy's, and allows more (%s): %w", &c, ErrMissing)
		}
	}
	return nil
}

// meaning is a filter of an OCI configuration, for comparing.
func meaning(host seccomp.Host, name string, filter any) (*seccomp.Source, error) {
	raw, err := json.Marshal(filter)
	if err != nil {
		return nil, err
	}
	profile, err := seccomp.Parse(name, raw)
	if err != nil {
		return nil, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	resolved, err := profile.Resolve(host)
	if err != nil {
		return nil, fmt.Errorf("system call filter of %s: %w", name, err)
	}
	return &seccomp.Source{Filter: resolved}, nil
}
