// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
)

// byteTexts are the escapes of all bytes.
var byteTexts = func() (t [256]string) {
	for i := range t {
		t[i] = fmt.Sprintf(`\x%02x`, i)
	}
	return
}()

func byteText(v int) string { return byteTexts[v&0xff] }

func be16Text(v int) string { return byteText(v>>8) + byteText(v) }

func classText(c apparmor.Class) string { return byteText(int(c)) }

// addPolicy adds an expression of a rule to the policydb.
func (b *build) addPolicy(r *apparmor.ResolvedRule, perms, audit uint32, parts ...string) error {
	return b.policy.add(r, grant{mode: r.Mode, priority: r.Priority, perms: perms, audit: audit}, parts...)
}

// signal: class, signal number, peer's label; rules for every signal also in
// the form that compares labels alone.
func (b *build) signal(r *apparmor.ResolvedRule, body *apparmor.SignalBody) error {
	if !b.s.signal {
		b.unsupported(r, "signal")
		return nil
	}
	class := classText(apparmor.ClassSignal)
	var head string
	if len(body.Signals) == 0 {
		head = "(" + classText(apparmor.ClassLabel) + class + "|" + class + ".)"
		if b.s.level == Level3 {
			// There the class after the label class is written in hexadecimal
			// without a leading zero: the same byte.
			head = "(" + classText(apparmor.ClassLabel) + `\xa` + "|" + class + ".)"
		}
	} else {
		var set strings.Builder
		for _, n := range body.Signals {
			set.WriteString(byteText(n))
		}
		head = class + "[" + set.String() + "]"
	}
	text, err := peer(head, body.Peer)
	if err != nil {
		return err
	}
	return b.addPolicy(r, body.Perms, auditOf(r, body.Perms), text)
}

// peer appends the expression of a peer's label. The glob is converted by
// itself, so what stands before it does not change it.
func peer(head string, o apparmor.Opt) (string, error) {
	p, err := opt("", o, anyone)
	return head + p, err
}

func (b *build) ptrace(r *apparmor.ResolvedRule, body *apparmor.PtraceBody) error {
	if !b.s.ptrace {
		b.unsupported(r, "ptrace")
		return nil
	}
	text, err := peer("("+classText(apparmor.ClassLabel)+"|)"+classText(apparmor.ClassPtrace), body.Peer)
	if err != nil {
		return err
	}
	return b.addPolicy(r, body.Perms, auditOf(r, body.Perms), text)
}

// dbus: bus, name, peer's label, path, interface, member. Names are bound by
// the first two alone, and eavesdropping is by bus.
func (b *build) dbus(r *apparmor.ResolvedRule, body *apparmor.DBusBody) error {
	if !b.s.dbus {
		b.unsupported(r, "dbus")
		return nil
	}
	parts := make([]string, 6)
	for i, o := range []apparmor.Opt{body.Bus, body.Name, body.PeerLabel, body.Path, body.Interface, body.Member} {
		head := ""
		if i == 0 {
			head = classText(apparmor.ClassDBus)
		}
		var err error
		if parts[i], err = opt(head, o, anyText); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		perms uint32
		n     int
	}{{apparmor.DBusBind, 2}, {apparmor.DBusSend | apparmor.DBusReceive, 6}, {apparmor.DBusEavesdrop, 1}} {
		if p := body.Perms & t.perms; p != 0 {
			if err := b.addPolicy(r, p, auditOf(r, p), parts[:t.n]...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *build) userns(r *apparmor.ResolvedRule, body *apparmor.UsernsBody) error {
	if !b.s.userns {
		b.unsupported(r, "userns")
		return nil
	}
	class := classText(apparmor.ClassUserns)
	if err := b.addPolicy(r, body.Perms, auditOf(r, body.Perms), class); err != nil {
		return err
	}
	return b.mediatesAt(r.Priority, class)
}

// mediatesAt adds the mark of a class whose permissions sit on the class state,
// at the priority of the rule, so that neither wipes the other out.
func (b *build) mediatesAt(priority int, text string) error {
	if b.question {
		return nil
	}
	return b.policy.add(nil, grant{perms: mediatesBit, priority: priority}, text)
}

func (b *build) ioURing(r *apparmor.ResolvedRule, body *apparmor.IOUringBody) error {
	if !b.s.ioURing {
		b.unsupported(r, "io_uring")
		return nil
	}
	class := classText(apparmor.ClassIOUring)
	if err := b.addPolicy(r, body.Perms, auditOf(r, body.Perms), class); err != nil {
		return err
	}
	if err := b.mediatesAt(r.Priority, class); err != nil {
		return err
	}
	if body.Perms&apparmor.IOUringOverrideCreds == 0 {
		return nil
	}
	l, err := opt("", body.Label, anyText)
	if err != nil {
		return err
	}
	return b.addPolicy(r, body.Perms, auditOf(r, body.Perms), class+l)
}

func mapQueue(perms uint32) uint32 {
	return perms&0x7f | perms&(apparmor.MqueueGetattr|apparmor.MqueueSetattr)<<(otherShift-8)
}

// mqueue: name (posix) or key (sysv), then the label of the queue. Without a
// label in the rule the permissions stand on the name already; creating never
// depends on the label, which is not there yet.
func (b *build) mqueue(r *apparmor.ResolvedRule, body *apparmor.MqueueBody) error {
	posix := body.Type != apparmor.MqueueSysv && b.s.posixMqueue
	sysv := body.Type != apparmor.MqueuePosix && b.s.sysvMqueue
	if !posix && !sysv {
		b.unsupported(r, "mqueue")
		return nil
	}
	label, err := opt("", body.Label, anyone)
	if err != nil {
		return err
	}
	var names []string
	if body.Type != apparmor.MqueueSysv {
		n, err := opt(classText(apparmor.ClassPosixMqueue), body.Name, anyText)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	if body.Type != apparmor.MqueuePosix {
		key := "...."
		if body.Name.Set {
			n, err := strconv.ParseInt(body.Name.Value, 0, 64)
			if err != nil {
				return fmt.Errorf("message queue key %q is no number", body.Name.Value)
			}
			key = be16Text(int(n>>16)) + be16Text(int(n))
		}
		names = append(names, classText(apparmor.ClassSysvMqueue)+key)
	}
	perms := mapQueue(body.Perms)
	for _, n := range names {
		if !body.Label.Set {
			if err := b.addPolicy(r, perms, auditOf(r, perms), n); err != nil {
				return err
			}
		}
		if c := mapQueue(body.Perms & apparmor.MqueueCreate); c != 0 {
			if err := b.addPolicy(r, c, auditOf(r, c), n); err != nil {
				return err
			}
		}
		if err := b.addPolicy(r, perms, auditOf(r, perms), n, label); err != nil {
			return err
		}
	}
	return nil
}
