// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/denial"
)

// Errors of [Parse].
var (
	// ErrNotDenial says that a line reports no request that a mechanism denied, or
	// logged though it was allowed.
	ErrNotDenial = errors.New("no record of a denied request")
	// ErrMalformed says that a line is such a record and cannot be read to its end:
	// it was cut off, is mixed with another, or no kernel wrote it.
	ErrMalformed = errors.New("malformed audit record")
)

// maxLine is far above what a kernel writes (8970 bytes) and auditd makes of it.
//
// Source: include/uapi/linux/audit.h, MAX_AUDIT_MESSAGE_LENGTH.
const maxLine = 1 << 16

// Parse reads a record of AppArmor, SELinux, seccomp or Landlock from one line of
// a log, in each form: auditd's file, the kernel log, syslog, the journal (its own and
// the kernel's), and the text of a netlink message. The errors wrap [ErrNotDenial]
// and [ErrMalformed].
//
// Processes choose parts of a record, and whoever may write to a log can write whole
// lines. Parse takes nothing from such a part but the value of its field. Who wrote the line, it
// cannot tell.
func Parse(line string) (denial.Denial, error) {
	if len(line) > maxLine {
		return denial.Denial{}, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(line), maxLine)
	}
	line = strings.TrimRight(line, "\r\n")
	h, err := readHeader(line)
	if err != nil {
		return denial.Denial{}, err
	}
	var d denial.Denial
	switch h.kind {
	case kindAppArmor:
		rec, ok := AppArmor(line)
		if !ok || rec.Event == EventInvalid {
			return denial.Denial{}, fmt.Errorf("%w of AppArmor", ErrMalformed)
		}
		if d, ok = FromAppArmor(rec, line); !ok {
			return denial.Denial{}, ErrNotDenial
		}
		return d, nil
	case kindAVC:
		d, err = parseAVC(h)
	case kindSeccomp:
		d, err = parseSeccomp(h)
	case kindLandlock:
		d, err = parseLandlock(h)
	case kindOther, kindDomain:
		return denial.Denial{}, ErrNotDenial
	}
	if err != nil {
		return denial.Denial{}, err
	}
	d.Time, d.Serial, d.Raw = h.time, h.serial, line
	return d, nil
}

// kind is what wrote a record.
type kind uint8

const (
	kindOther kind = iota
	kindAppArmor
	kindAVC
	kindSeccomp
	kindLandlock
	kindDomain
)

// kinds are the types of records, by number and by name.
//
// Source: include/uapi/linux/audit.h; audit-userspace, lib/msg_typetab.h. The journal
// writes types that it has no name for as audit-NUMBER.
var kinds = map[string]kind{
	"1400": kindAVC, "AVC": kindAVC,
	"1107": kindAVC, "USER_AVC": kindAVC,
	"1326": kindSeccomp, "SECCOMP": kindSeccomp,
	"1423": kindLandlock, "LANDLOCK_ACCESS": kindLandlock,
	"1424": kindDomain, "LANDLOCK_DOMAIN": kindDomain,
}

// header is what stands before the body of a record.
type header struct {
	kind   kind
	user   bool // the body is quoted by another: msg='…'
	time   time.Time
	serial uint64
	body   string
}

// readHeader finds where a record begins, and of what type it is.
func readHeader(line string) (h header, err error) {
	typ := ""
	if at := strings.Index(line, "audit("); at >= 0 {
		head := line[:at]
		id, rest, ok := auditID(line[at+len("audit("):])
		if !ok {
			return header{}, cutOff(line)
		}
		h.time, h.serial, h.body = id.time(), id.serial, strings.TrimLeft(rest, " \t")
		if i := strings.LastIndex(head, "type="); i >= 0 {
			typ, _, _ = strings.Cut(head[i+len("type="):], " ")
		}
	} else {
		typ, h.body = journalType(line)
		if typ == "" {
			return header{}, cutOff(line)
		}
	}
	// auditd in its enriched format writes the meaning of numbers behind the record.
	h.body, _, _ = strings.Cut(h.body, "\x1d")
	typ = strings.TrimSuffix(strings.TrimPrefix(typ, "UNKNOWN["), "]")
	typ = strings.TrimPrefix(typ, "audit-")
	if typ == "" {
		h.kind = guess(h.body)
	} else {
		h.kind = kinds[typ]
	}
	if n, err := strconv.Atoi(typ); h.kind == kindOther && (strings.HasPrefix(typ, "APPARMOR") || err == nil && n >= 1500 && n < 1600) {
		h.kind = kindAppArmor
	}
	h.user = typ == "USER_AVC" || typ == "1107"
	if h.kind == kindAVC && strings.Contains(h.body, "apparmor=") && !strings.Contains(h.body, "avc:") {
		h.kind = kindAppArmor // AppArmor shares SELinux's type
	}
	return h, nil
}

// cutOff is the error of a line without the identity of a record: it may still be what is left of
// one.
func cutOff(line string) error {
	for _, mark := range []string{"apparmor=\"", "avc:  denied", "avc:  granted", " blockers="} {
		if strings.Contains(line, mark) {
			return fmt.Errorf("%w: no time and serial number", ErrMalformed)
		}
	}
	return ErrNotDenial
}

// journalType finds a type in a line of the journal's own audit messages, which have no identity:
// "host audit[812]: AVC avc:  denied …".
func journalType(line string) (typ, body string) {
	_, rest, ok := strings.Cut(line, " audit[")
	if ok {
		_, rest, ok = strings.Cut(rest, "]: ")
	} else {
		_, rest, ok = strings.Cut(line, " audit: ")
	}
	if !ok {
		return "", ""
	}
	typ, body, _ = strings.Cut(rest, " ")
	name := strings.TrimPrefix(typ, "audit-")
	if kinds[name] == kindOther && !strings.HasPrefix(name, "APPARMOR") {
		return "", ""
	}
	return typ, strings.TrimLeft(body, " ")
}

// guess tells the type of a record from its first words, where only the text is there.
func guess(body string) kind {
	switch {
	case strings.HasPrefix(body, "avc:"):
		return kindAVC
	case strings.HasPrefix(body, "apparmor="):
		return kindAppArmor
	case strings.HasPrefix(body, "domain=") && strings.Contains(body, " blockers="):
		return kindLandlock
	case strings.HasPrefix(body, "domain="):
		return kindDomain
	case strings.HasPrefix(body, "auid=") && strings.Contains(body, " sig=") && strings.Contains(body, " syscall=") && strings.Contains(body, " code="):
		return kindSeccomp
	}
	return kindOther
}

// pairs are the fields of a record that the kernel wrote, in order.
type pairs []pair

type pair struct {
	key string
	value
}

// readPairs reads key=value separated by blanks, to the end. The kernel writes a value that
// a process chose in quotes, or in hexadecimal where it has a quote, a blank or a control character
// in it. So quotes hold neither, and a key comes once: anything else is not the kernel's.
//
// Source: kernel/audit.c, audit_log_n_untrustedstring.
func readPairs(text string) (pairs, error) {
	var out pairs
	seen := map[string]bool{}
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		key, rest, ok := strings.Cut(text, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t\"'") {
			return nil, fmt.Errorf("%w: %q is no field", ErrMalformed, first(text))
		}
		if seen[key] {
			return nil, fmt.Errorf("%w: field %s twice", ErrMalformed, key)
		}
		seen[key] = true
		var v value
		if strings.HasPrefix(rest, `"`) {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("%w: field %s does not end", ErrMalformed, key)
			}
			v = value{rest[1 : 1+end], true}
			rest = rest[end+2:]
			if rest != "" && rest[0] != ' ' {
				return nil, fmt.Errorf("%w: text behind field %s", ErrMalformed, key)
			}
		} else {
			v.text, rest, _ = strings.Cut(rest, " ")
		}
		for i := range len(v.text) {
			if c := v.text[i]; c < ' ' || c > '~' || !v.quoted && c == '"' {
				return nil, fmt.Errorf("%w: field %s holds a character that no kernel writes", ErrMalformed, key)
			}
		}
		out = append(out, pair{key, v})
		text = rest
	}
	return out, nil
}

// first is the beginning of a text, for messages.
func first(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word[:min(len(word), 40)]
}

func (p pairs) get(key string) (value, bool) {
	for _, f := range p {
		if f.key == key {
			return f.value, true
		}
	}
	return value{}, false
}

// text is a value that a process or person chose; empty where there is none.
func (p pairs) text(key string) (string, error) {
	v, ok := p.get(key)
	if !ok || !v.quoted && (v.text == "(null)" || v.text == "?" || strings.HasPrefix(v.text, "<")) {
		return "", nil // <too_long>, <no_memory>
	}
	if v.quoted {
		return v.text, nil
	}
	b, err := hex.DecodeString(v.text)
	if err != nil || len(b) == 0 {
		return "", fmt.Errorf("%w: field %s is neither quoted nor hexadecimal", ErrMalformed, key)
	}
	return string(b), nil
}

// number is a value that the kernel wrote in a base.
func (p pairs) number(key string, base int) (uint64, error) {
	v, ok := p.get(key)
	if !ok {
		return 0, fmt.Errorf("%w: no field %s", ErrMalformed, key)
	}
	text := v.text
	if base == 16 {
		text = strings.TrimPrefix(text, "0x")
	}
	n, err := strconv.ParseUint(text, base, 64)
	if err != nil || v.quoted {
		return 0, fmt.Errorf("%w: field %s is no number", ErrMalformed, key)
	}
	return n, nil
}

// process reads who asked: pid and comm.
func (p pairs) process(d *denial.Denial) error {
	pid, err := p.number("pid", 10)
	if err != nil {
		return err
	}
	if pid > 1<<22 {
		return fmt.Errorf("%w: process %d", ErrMalformed, pid)
	}
	d.PID = int(pid)
	d.Command, err = p.text("comm")
	return err
}

// time is when the record was written.
func (id identity) time() time.Time {
	stamp, _, _ := strings.Cut(id.text, ":")
	_, ms, _ := strings.Cut(stamp, ".")
	n, _ := strconv.ParseInt(ms, 10, 64)
	return time.Unix(id.epoch, n*int64(time.Millisecond)).UTC()
}
