// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/denial"
	"github.com/palisade-sec/palisade/selinux"
)

// parseAVC reads SELinux's message, the kernel's or a user-space object manager's.
//
// Source: security/selinux/avc.c, avc_audit_pre_callback, avc_audit_post_callback;
// security/lsm_audit.c, dump_common_audit_data.
func parseAVC(h header) (d denial.Denial, err error) {
	if !strings.Contains(h.body, "avc:") {
		if h.user {
			return d, ErrNotDenial // of another security module's daemon
		}
		return d, fmt.Errorf("%w of SELinux: no avc: message", ErrMalformed)
	}
	a, err := selinux.ParseAVC(h.body)
	switch {
	case errors.Is(err, selinux.ErrNotAVC):
		return d, ErrNotDenial // "received policyload notice"
	case err != nil:
		return d, fmt.Errorf("%w of SELinux: %w", ErrMalformed, err)
	}
	d = denial.Denial{
		Mechanism: denial.SELinux, Subject: a.Source, ObjectLabel: a.Target, Class: a.Class, Access: a.Permissions,
		Object: a.Path, PID: a.PID, Command: a.Comm,
	}
	switch {
	case a.Granted:
		d.Outcome = denial.Audited
	case a.Permissive:
		d.Outcome = denial.Allowed
	}
	for _, label := range []string{a.Source, a.Target} {
		if strings.ContainsAny(label, "\"'") {
			return denial.Denial{}, fmt.Errorf("%w of SELinux: label %q", ErrMalformed, first(label))
		}
	}
	if h.user {
		return d, nil // the manager chose the form of the rest
	}
	_, fields, ok := strings.Cut(h.body, "} for")
	if !ok {
		return denial.Denial{}, fmt.Errorf("%w of SELinux: no fields", ErrMalformed)
	}
	p, err := readPairs(fields)
	if err != nil {
		return denial.Denial{}, fmt.Errorf("SELinux: %w", err)
	}
	if v, _ := p.get("permissive"); !a.Granted && v.text != "0" && v.text != "1" {
		return denial.Denial{}, fmt.Errorf("%w of SELinux: it ends before permissive", ErrMalformed)
	}
	if _, ok := p.get("pid"); ok {
		if err := p.process(&d); err != nil {
			return denial.Denial{}, fmt.Errorf("SELinux: %w", err)
		}
	}
	if d.Object, err = p.object(); err != nil {
		return denial.Denial{}, fmt.Errorf("SELinux: %w", err)
	}
	if _, ok := p.get("capability"); ok {
		n, err := p.number("capability", 10)
		if err != nil || n > 63 {
			return denial.Denial{}, fmt.Errorf("%w of SELinux: capability %d", ErrMalformed, n)
		}
		d.Object = caps.Capability(n).String()
	}
	if a.HasIoctl {
		d.Operation = fmt.Sprintf("ioctl %#04x", a.Ioctl)
	}
	return d, nil
}

// object is what a request was about, in the fields that all security modules share: a
// path, the name of a file whose path is not known, an address, or another process.
//
// Source: security/lsm_audit.c, dump_common_audit_data.
func (p pairs) object() (string, error) {
	for _, key := range []string{"path", "name", "kmod", "key"} {
		if _, ok := p.get(key); ok {
			return p.text(key)
		}
	}
	for _, end := range []struct{ addr, port string }{{"daddr", "dest"}, {"saddr", "src"}, {"faddr", "fport"}, {"laddr", "lport"}} {
		addr, hasAddr := p.get(end.addr)
		port, hasPort := p.get(end.port)
		switch {
		case hasAddr && hasPort && strings.Contains(addr.text, ":"):
			return "[" + addr.text + "]:" + port.text, nil
		case hasAddr && hasPort:
			return addr.text + ":" + port.text, nil
		case hasAddr:
			return addr.text, nil
		case hasPort:
			return ":" + port.text, nil
		}
	}
	if _, ok := p.get("opid"); ok {
		pid, err := p.number("opid", 10)
		if err != nil {
			return "", err
		}
		comm, err := p.text("ocomm")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("process %d (%s)", pid, comm), nil
	}
	return "", nil
}
