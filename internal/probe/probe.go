// SPDX-License-Identifier: Apache-2.0

// Package probe tries, from inside a container and harmlessly, what escapes
// are made of, and says what stopped each try.
//
// A probe asks the kernel for something that a confined process must not get.
// It is built so that the kernel gives its permission or refuses it before
// anything happens: the arguments are such that a permitted call fails on them,
// or its effect ends with the process that made it. So a probe does no damage
// when it succeeds, on an unconfined host too.
//
// Every probe runs in a worker process with a deadline. A filter that kills
// instead of refusing therefore ends one probe and not the run, and a probe
// that hangs is killed.
//
// Where a refusal can be proven to come from one layer, the layer is named.
// That a seccomp filter refused a call is shown with the very same arguments:
// see [Layer].
package probe

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

// Outcome says how a try ended.
type Outcome string

const (
	// Blocked means that the kernel refused, or that there was nothing to
	// reach.
	Blocked Outcome = "blocked"
	// Open means that the kernel would have let it happen.
	Open Outcome = "open"
	// NotApplicable means that this kernel or this container has nothing to
	// try it on.
	NotApplicable Outcome = "not-applicable"
)

// Layer is what refused. It is empty when that cannot be proven.
//
// seccompLayer is proven by a second filter on a thread of its own. That filter
// answers the same call with an action of lower precedence than an errno; the
// call is then never carried out, and its result tells which of the two filters
// decided. Capability means that the effective set lacks every capability that
// would have permitted it. AppArmor and SELinux are named when the call passed
// the filters, the capabilities were there, and just one of the two confines
// the process.
type Layer string

// The layers.
const (
	seccompLayer  Layer = "seccomp"
	capability    Layer = "capability"
	appArmor      Layer = "apparmor"
	selinux       Layer = "selinux"
	readOnly      Layer = "read-only"      // a read-only mount
	masked        Layer = "masked"         // a mount over the path hides it
	namespace     Layer = "namespace"      // it is not there in this namespace
	devices       Layer = "devices"        // the device control group
	noNewPrivs    Layer = "no-new-privs"   //
	userNamespace Layer = "user-namespace" // not in the initial user namespace
	dac           Layer = "dac"            // owner and mode of the file
	sysctl        Layer = "sysctl"         // a host-wide setting
)

// Result is the answer of one probe.
type Result struct {
	Name    string  `json:"name"`
	Group   string  `json:"group"`
	Outcome Outcome `json:"outcome"`
	// Errno is the symbol of the error that the try ended with, empty when it
	// had none.
	Errno string `json:"errno"`
	Layer Layer  `json:"layer"`
	// Note says in a few words what was found, where errno and layer do not.
	Note string `json:"note,omitempty"`
	// Claimed tells that the policy in force claims to block it.
	Claimed bool `json:"claimed"`
	// Control is the outcome under a plain runtime with Docker's defaults.
	Control Outcome `json:"control,omitempty"`
	// Proves is false for a probe that nothing blocks in any recorded
	// configuration: its outcome says nothing about the confinement.
	Proves bool `json:"proves"`
}

// attempt is what a probe's function reports.
type attempt struct {
	outcome Outcome
	errno   unix.Errno
	layer   Layer
	note    string
}

// spec is one probe.
type spec struct {
	name  string
	group string
	// about says what an attacker would do with it.
	about string
	// own asks for a worker of its own, for what changes the process.
	own bool
	try func(w *world) attempt
}

// Description is a probe for people.
type Description struct {
	Name, Group, About string
}

var table = slices.Concat(namespaceProbes, mountProbes, kernelProbes, archProbes, processProbes, fileProbes, deviceProbes, networkProbes, lsmProbes)

// List is all probes in the order in which they run.
func List() []Description {
	list := make([]Description, 0, len(table))
	for _, p := range table {
		list = append(list, Description{p.name, p.group, p.about})
	}
	return list
}

// hidden are probes that are found by name only; the tests put some here.
var hidden []spec

func byName(name string) (spec, bool) {
	for _, list := range [][]spec{table, hidden} {
		if i := slices.IndexFunc(list, func(p spec) bool { return p.name == name }); i >= 0 {
			return list[i], true
		}
	}
	return spec{}, false
}

func open(note string) attempt            { return attempt{outcome: Open, note: note} }
func notApplicable(note string) attempt   { return attempt{outcome: NotApplicable, note: note} }
func blocked(l Layer, n string) attempt   { return attempt{outcome: Blocked, layer: l, note: n} }
func (a attempt) with(n string) attempt   { a.note = cmp.Or(n, a.note); return a }
func (a attempt) at(e unix.Errno) attempt { a.errno = e; return a }

// call is a system call that asks for something.
type call struct {
	nr   uintptr
	args [6]uintptr
	// past are the errors that the kernel gives only after it has agreed.
	past []unix.Errno
	// absent are the errors of a kernel that does not have it, beside ENOSYS.
	absent []unix.Errno
	// anyOf are the capabilities of which one is enough.
	anyOf caps.Set
	// undo is called with the result of a call that succeeded.
	undo func(result uintptr)
}

// do makes the call on a thread of its own, which ends with it.
func (w *world) do(c call) attempt {
	result, errno := onThread(func() (uintptr, unix.Errno) {
		r, _, e := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if e == 0 && c.undo != nil {
			c.undo(r)
		}
		return r, e
	})
	_ = result
	return w.judge(c, errno)
}

// judge says what an error of the call means.
func (w *world) judge(c call, errno unix.Errno) attempt {
	if errno == 0 || slices.Contains(c.past, errno) {
		return attempt{outcome: Open, errno: errno}
	}
	if slices.Contains(c.absent, errno) {
		return attempt{outcome: NotApplicable, errno: errno}
	}
	a := attempt{outcome: Blocked, errno: errno}
	switch filtered, known := w.filtered(c.nr, c.args, errno); {
	case filtered:
		a.layer = seccompLayer
	case errno == unix.ENOSYS && known:
		a.outcome, a.note = NotApplicable, "the kernel does not have the call"
	case errno == unix.ENOSYS && !w.seccomp:
		a.outcome, a.note = NotApplicable, "the kernel does not have the call"
	case known:
		a.layer = w.refusedBy(errno, c.anyOf)
	}
	return a
}

// fd is the undo of calls that return a descriptor.
func closeFD(result uintptr) { unix.Close(int(result)) }
