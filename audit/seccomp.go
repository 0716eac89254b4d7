// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/denial"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// parseSeccomp reads what the kernel logs of a system call that a filter answered otherwise than
// with ALLOW. Arguments are not logged. Class is the ABI, Object the call, Operation the filter's
// answer.
//
// Source: kernel/auditsc.c, audit_seccomp, audit_log_task.
func parseSeccomp(h header) (d denial.Denial, err error) {
	fail := func(err error) (denial.Denial, error) { return denial.Denial{}, fmt.Errorf("seccomp: %w", err) }
	p, err := readPairs(h.body)
	if err != nil {
		return fail(err)
	}
	d.Mechanism = denial.Seccomp
	if err := p.process(&d); err != nil {
		return fail(err)
	}
	var n [4]uint64
	for i, f := range []struct {
		key  string
		base int
	}{{"arch", 16}, {"syscall", 10}, {"code", 16}, {"sig", 10}} {
		if n[i], err = p.number(f.key, f.base); err != nil {
			return fail(err)
		}
	}
	if v, _ := p.get("code"); !strings.HasPrefix(v.text, "0x") {
		return fail(fmt.Errorf("%w: field code is no action", ErrMalformed))
	}
	arch, nr, code := n[0], n[1], n[2]
	if arch>>32 != 0 || nr>>32 != 0 || code>>32 != 0 || n[3] > 64 {
		return fail(fmt.Errorf("%w: a number is too large", ErrMalformed))
	}
	if v, ok := p.get("subj"); ok {
		d.Subject = v.text
	}
	action := cbpf.Action(code)
	switch action {
	case cbpf.Allow, cbpf.Log, cbpf.Notify, cbpf.TraceBase:
		// Executed, or left to a supervisor or tracer, whose answer is not logged.
		d.Outcome = denial.Audited
	case cbpf.ErrnoBase, cbpf.Trap, cbpf.KillThread, cbpf.KillProcess:
		d.Outcome = denial.Denied
	default:
		// The kernel logs actions without their data: anything else was cut off.
		return fail(fmt.Errorf("%w: code %#x is no action", ErrMalformed, code))
	}
	d.Operation, _, _ = strings.Cut(action.String(), "(")
	d.Class, d.Object = call(uint32(arch), uint32(nr))
	return d, nil
}

// call names an ABI and a call of it; numbers without a name stay numbers.
func call(arch, nr uint32) (abi, name string) {
	abi, name = fmt.Sprintf("%#x", arch), strconv.FormatUint(uint64(nr), 10)
	for _, a := range syscalls.FromAudit(arch) {
		if abi[0] == '0' {
			abi = a.String()
		}
		if n, ok := a.Name(nr); ok {
			return a.String(), n
		}
	}
	return abi, name
}
