// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/denial"
	"github.com/palisade-sec/palisade/landlock"
)

// parseLandlock reads what the kernel logs of a denied access: the domain as Subject, the missing
// rights as Access. The record names no process; the one that made the domain is in the record about
// the domain, see [ParseDomain], and the one that asked in that of the system call.
//
// Source: security/landlock/audit.c, landlock_log_denial (Linux 6.18);
// Documentation/admin-guide/LSM/landlock.rst.
func parseLandlock(h header) (d denial.Denial, err error) {
	fail := func(err error) (denial.Denial, error) { return denial.Denial{}, fmt.Errorf("landlock: %w", err) }
	p, err := readPairs(h.body)
	if err != nil {
		return fail(err)
	}
	id, err := p.number("domain", 16)
	if err != nil {
		return fail(err)
	}
	blockers, ok := p.get("blockers")
	if !ok || blockers.quoted || blockers.text == "" {
		return fail(fmt.Errorf("%w: no blockers", ErrMalformed))
	}
	d = denial.Denial{Mechanism: denial.Landlock, Outcome: denial.Denied, Subject: strconv.FormatUint(id, 16)}
	for name := range strings.SplitSeq(blockers.text, ",") {
		class, ok := blocker(name)
		if !ok {
			return fail(fmt.Errorf("%w: blocker %q", ErrMalformed, first(name)))
		}
		d.Class = class
		d.Access = append(d.Access, name)
	}
	if len(p) < 3 {
		return fail(fmt.Errorf("%w: it ends before the object", ErrMalformed))
	}
	if d.Object, err = p.object(); err != nil {
		return fail(err)
	}
	if v, ok := p.get("ioctlcmd"); ok {
		d.Operation = "ioctl " + v.text
	}
	return d, nil
}

// blocker reports whether a name is one of what Landlock denies, and of which kind: fs, net, scope or
// ptrace. Names of later kernels are of a kind that is known.
func blocker(name string) (class string, ok bool) {
	if name == landlock.Ptrace {
		return name, true
	}
	class, right, ok := strings.Cut(name, ".")
	if !ok || right == "" || strings.Trim(right, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
		return "", false
	}
	return class, class == "fs" || class == "net" || class == "scope"
}

// Domain is what the kernel logs about a Landlock domain with its first denial, and when it goes.
type Domain struct {
	// ID is the domain's, as [denial.Denial.Subject] has it.
	ID string
	// PID, UID, Exe and Command are of the process that made the domain; zero when Gone.
	PID     int
	UID     uint32
	Exe     string
	Command string
	// Gone says that no process is in the domain any more; Denials counts what it
	// has denied, logged or not.
	Gone    bool
	Denials uint64
}

// ParseDomain reads the record about a domain, in the forms that [Parse] knows. The errors wrap
// [ErrNotDenial] for other lines, and [ErrMalformed].
//
// Source: security/landlock/audit.c, log_domain, landlock_log_drop_domain.
func ParseDomain(line string) (d Domain, err error) {
	if len(line) > maxLine {
		return Domain{}, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(line), maxLine)
	}
	h, err := readHeader(strings.TrimRight(line, "\r\n"))
	if err != nil {
		return Domain{}, err
	}
	if h.kind != kindDomain {
		return Domain{}, ErrNotDenial
	}
	fail := func(err error) (Domain, error) { return Domain{}, fmt.Errorf("landlock domain: %w", err) }
	p, err := readPairs(h.body)
	if err != nil {
		return fail(err)
	}
	id, err := p.number("domain", 16)
	if err != nil {
		return fail(err)
	}
	d.ID = strconv.FormatUint(id, 16)
	status, _ := p.get("status")
	switch status.text {
	case "deallocated":
		d.Gone = true
		if d.Denials, err = p.number("denials", 10); err != nil {
			return fail(err)
		}
		return d, nil
	case "allocated":
	default:
		return fail(fmt.Errorf("%w: status %q", ErrMalformed, first(status.text)))
	}
	var who denial.Denial
	if err := p.process(&who); err != nil {
		return fail(err)
	}
	uid, err := p.number("uid", 10)
	if err != nil || uid>>32 != 0 {
		return fail(fmt.Errorf("%w: field uid", ErrMalformed))
	}
	d.PID, d.UID, d.Command = who.PID, uint32(uid), who.Command
	d.Exe, err = p.text("exe")
	if err != nil {
		return fail(err)
	}
	return d, nil
}
