// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/target"
)

func (r *reader) bpfLSM(active target.Answer) BPFLSMStatus {
	s := BPFLSMStatus{Line: Line{
		Why: "rules that no other module has, loaded at run time; stacks with SELinux or AppArmor",
	}}
	s.Listed = active
	const enable = "boot with bpf in the lsm= list (CONFIG_BPF_LSM=y, CONFIG_DEBUG_INFO_BTF=y)"
	built := r.config.Built("CONFIG_BPF_LSM")
	switch active {
	case target.No:
		s.State, s.Loads, s.Detail, s.Enable = target.Off, target.No, "built in, not in the list of active modules", enable
		if built != target.Yes {
			s.State, s.Detail = target.Absent, "not in the list of active modules"
		}
		return s
	case target.Unknown:
		s.cannotTell("whether bpf is an active module", errors.New("the list of active modules cannot be read"))
		return s
	}
	if !r.live || r.quick || r.loadLSM == nil {
		s.cannotTell("whether programs load", errNotAsked)
		s.Detail = "in the list of active modules"
		return s
	}
	err := r.loadLSM()
	switch {
	case err == nil:
		s.State, s.Loads, s.Detail = target.Enforcing, target.Yes, "in the list of active modules, and a program for a hook loads"
	case !privilegedForBPF():
		s.cannotTell("whether programs load", fmt.Errorf("%w (needs CAP_BPF and CAP_PERFMON)", err))
		s.Detail = "in the list of active modules"
	default:
		s.State, s.Loads = target.Off, target.No
		s.Detail = fmt.Sprintf("in the list of active modules, but the kernel refuses programs: %v", oneLine(err))
		s.Enable = "boot a kernel that has BPF trampolines for this architecture (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y) and " + enable[len("boot with "):]
	}
	return s
}
