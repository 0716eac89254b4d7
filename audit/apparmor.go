// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/denial"
)

// AppArmor reads one record of AppArmor from a log line, with or without what
// syslog, the kernel log or auditd put in front of it. A record over several
// lines (from dbus-daemon) is one text with line ends in it.
//
// ok is false when the line is not a record of AppArmor at all. Event is
// EventInvalid when it is one that cannot be read to its end; the
// fields up to there are set.
//
// Source: libraries/libapparmor/src/grammar.y and scanner.l.
func AppArmor(line string) (rec AppArmorRecord, ok bool) {
	rec.FSUID, rec.OUID = -1, -1
	line = strings.TrimRight(line, "\r\n")
	at := strings.Index(line, "audit(")
	var typ, rest string
	if at >= 0 {
		head := line[:at]
		id, after, good := auditID(line[at+len("audit("):])
		if !good {
			return rec, strings.Contains(line, "apparmor=")
		}
		rec.AuditID, rec.Epoch, rec.Serial = id.text, id.epoch, id.serial
		if i := strings.LastIndex(head, "type="); i >= 0 {
			typ, _, _ = strings.Cut(head[i+len("type="):], " ")
		}
		rest = strings.TrimLeft(after, " \t")
	} else {
		// A daemon's own message: no type, no identity.
		i := strings.Index(line, `apparmor="`)
		if i < 0 {
			return rec, false
		}
		rest = line[i:]
	}
	switch {
	case typ == "" || typ == "AVC" || isNumber(typ):
		rec.Event = eventNumbers[typ]
	case typ == "USER_AVC":
	case eventTypes[typ] != 0:
		rec.Event = eventTypes[typ]
	case strings.HasPrefix(typ, "UNKNOWN["):
		rec.Event = eventNumbers[strings.TrimSuffix(typ[len("UNKNOWN["):], "]")]
	default:
		rec.Operation, rec.Info = typ, rest
		return rec, typ == "APPARMOR"
	}
	// A message of a daemon is quoted in the record about it.
	if i := strings.Index(rest, "msg='"); i >= 0 {
		rest = strings.TrimSuffix(rest[i+len("msg='"):], "'")
	}
	r := reader{rec: &rec, text: rest}
	r.fields()
	fixed := rec.Event
	if typed := eventTypes[typ]; typed != 0 {
		fixed = typed
	}
	rec.Event = fixed
	if r.bad {
		rec.Event = EventInvalid
	}
	return rec, r.apparmor || rec.Event != EventInvalid
}

type identity struct {
	text   string
	epoch  int64
	serial uint64
}

// auditID reads "seconds.milliseconds:serial):".
func auditID(s string) (id identity, rest string, ok bool) {
	text, rest, ok := strings.Cut(s, "):")
	if !ok {
		return id, "", false
	}
	stamp, serial, ok1 := strings.Cut(text, ":")
	sec, ms, ok2 := strings.Cut(stamp, ".")
	if !ok1 || !ok2 || !isNumber(sec) || !isNumber(ms) || !isNumber(serial) {
		return id, "", false
	}
	id.text = text
	id.epoch, _ = strconv.ParseInt(sec, 10, 64)
	id.serial, _ = strconv.ParseUint(serial, 10, 64)
	return id, rest, true
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

var eventNumbers = map[string]Event{
	"1501": EventAudit, "1502": EventAllowed, "1503": EventDenied,
	"1504": EventHint, "1505": EventStatus, "1506": EventError,
}

var eventTypes = map[string]Event{
	"APPARMOR_AUDIT": EventAudit, "APPARMOR_ALLOWED": EventAllowed,
	"APPARMOR_DENIED": EventDenied, "APPARMOR_HINT": EventHint,
	"APPARMOR_STATUS": EventStatus, "APPARMOR_ERROR": EventError,
}

var eventWords = map[string]Event{
	"AUDIT": EventAudit, "ALLOWED": EventAllowed, "DENIED": EventDenied,
	"HINT": EventHint, "STATUS": EventStatus, "ERROR": EventError,
}

// reader goes through the key=value pairs of a record.
type reader struct {
	rec      *AppArmorRecord
	text     string
	pos      int
	apparmor bool
	bad      bool
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0x1d }

func (r *reader) fields() {
	for {
		for r.pos < len(r.text) && isBlank(r.text[r.pos]) {
			r.pos++
		}
		if r.pos == len(r.text) {
			return
		}
		start := r.pos
		for r.pos < len(r.text) && r.text[r.pos] != '=' && !isBlank(r.text[r.pos]) {
			r.pos++
		}
		if r.pos == len(r.text) || r.text[r.pos] != '=' {
			r.rec.Info, r.bad = r.text[start:], true
			return
		}
		key := r.text[start:r.pos]
		r.pos++
		if !r.value(key) {
			r.bad = true
			return
		}
	}
}

// value is one value: in quotes, or a bare word.
type value struct {
	text   string
	quoted bool
}

func (r *reader) next() (v value, ok bool) {
	if r.pos < len(r.text) && r.text[r.pos] == '"' {
		var b strings.Builder
		for i := r.pos + 1; i < len(r.text); i++ {
			switch c := r.text[i]; c {
			case '"':
				r.pos = i + 1
				return value{b.String(), true}, true
			case '\\':
				if i++; i < len(r.text) {
					b.WriteByte(r.text[i])
				}
			default:
				b.WriteByte(c)
			}
		}
		return v, false
	}
	start := r.pos
	for r.pos < len(r.text) && !isBlank(r.text[r.pos]) && r.text[r.pos] != '\'' {
		r.pos++
	}
	return value{text: r.text[start:r.pos]}, r.pos > start
}

// name is a value that the kernel writes in hex when it is not printable.
func (v value) name() (string, bool) {
	if v.quoted {
		return v.text, true
	}
	if v.text != strings.ToUpper(v.text) {
		return "", false
	}
	b, err := hex.DecodeString(v.text)
	if err != nil || len(b) == 0 {
		return "", false
	}
	s, _, _ := strings.Cut(string(b), "\x00")
	return s, true
}

// value reads the value of one key into the record. It reports false for what
// the key cannot have.
func (r *reader) value(key string) bool {
	v, ok := r.next()
	if !ok {
		return false
	}
	rec := r.rec
	str := func(into *string) bool {
		if v.quoted {
			*into = v.text
		}
		return v.quoted
	}
	name := func(into *string) bool {
		s, ok := v.name()
		if ok {
			*into = s
		}
		return ok
	}
	num := func(into *int64) bool {
		n, err := strconv.ParseInt(strings.TrimPrefix(v.text, "-"), 10, 64)
		*into = n
		return !v.quoted && err == nil
	}
	word := func(into *string) bool {
		*into = v.text
		return true
	}
	switch key {
	case "apparmor":
		r.apparmor = true
		e, ok := eventWords[v.text]
		rec.Event = e
		return ok
	case "type":
		rec.Event = eventNumbers[v.text]
		return isNumber(v.text)
	case "operation":
		return str(&rec.Operation)
	case "name":
		return name(&rec.Name)
	case "namespace":
		return name(&rec.Namespace)
	case "name2":
		return name(&rec.Name2)
	case "target":
		return str(&rec.Name2)
	case "mask", "denied_mask", "denied":
		return str(&rec.Denied)
	case "requested_mask", "requested":
		return str(&rec.Requested)
	case "attribute":
		return word(&rec.Attribute)
	case "task":
		return num(&rec.Task)
	case "parent":
		return num(&rec.Parent)
	case "magic_token":
		return num(&rec.MagicToken)
	case "info":
		return str(&rec.Info)
	case "peer_info":
		return str(&rec.PeerInfo)
	case "peer":
		return name(&rec.Peer)
	case "pid":
		return num(&rec.PID)
	case "peer_pid":
		return num(&rec.PeerPID)
	case "profile", "label":
		return name(&rec.Profile)
	case "peer_profile", "peer_label", "tcontext":
		return name(&rec.PeerProfile)
	case "family":
		return str(&rec.Family)
	case "sock_type":
		return str(&rec.SockType)
	case "protocol":
		if v.quoted {
			return word(&rec.Protocol)
		}
		var n int64
		if !num(&n) {
			return false
		}
		rec.Protocol = protocol(n)
		return true
	case "error":
		return num(&rec.ErrorCode)
	case "fsuid":
		return num(&rec.FSUID)
	case "ouid":
		return num(&rec.OUID)
	case "addr":
		if v.text == "none" && !v.quoted || v.text == "?" {
			return true
		}
		return name(&rec.Addr)
	case "peer_addr":
		if v.text == "none" && !v.quoted {
			return true
		}
		return name(&rec.PeerAddr)
	case "exe", "comm":
		return name(&rec.Command)
	case "capname":
		return str(&rec.Name)
	case "laddr", "saddr":
		return word(&rec.LocalAddr)
	case "faddr", "daddr":
		return word(&rec.ForeignAddr)
	case "lport", "src":
		return num(&rec.LocalPort)
	case "fport", "dest":
		return num(&rec.ForeignPort)
	case "bus":
		return str(&rec.Bus)
	case "path":
		return str(&rec.Path)
	case "interface":
		return str(&rec.Interface)
	case "member", "method":
		return str(&rec.Member)
	case "signal":
		return word(&rec.Signal)
	case "fstype":
		return str(&rec.FSType)
	case "flags":
		return str(&rec.Flags)
	case "srcname":
		return name(&rec.SrcName)
	case "execpath":
		return name(&rec.ExecPath)
	case "class":
		return str(&rec.Class)
	}
	// Keys of no interest here: uid, auid, ses, sauid, hostname, terminal,
	// capability, offset, FSUID and OUID (names), and what newer kernels add.
	return true
}

// protocols are the names of IP protocols, as libapparmor writes them.
var protocols = map[int64]string{
	0: "ip", 1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 8: "egp", 12: "pup", 17: "udp", 22: "idp", 29: "tp",
	33: "dccp", 41: "ipv6", 43: "routing", 44: "fragment", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah",
	58: "icmpv6", 59: "none", 60: "dstopts", 92: "mtp", 94: "beetph", 98: "encap", 103: "pim", 108: "comp",
	115: "l2tp", 132: "sctp", 135: "mh", 136: "udplite", 137: "mpls", 143: "ethernet", 255: "raw", 262: "mptcp",
}

func protocol(n int64) string {
	if s, ok := protocols[n]; ok {
		return s
	}
	return fmt.Sprintf("unknown(%d)", n)
}

// FromAppArmor makes a denial of a record. ok is false for records that are no
// requests: status messages and what could not be read.
func FromAppArmor(r AppArmorRecord, raw string) (d denial.Denial, ok bool) {
	switch r.Event {
	case EventDenied:
		d.Outcome = denial.Denied
	case EventAllowed:
		d.Outcome = denial.Allowed
	case EventAudit:
		d.Outcome = denial.Audited
	default:
		return d, false
	}
	d.Mechanism = denial.AppArmor
	d.Subject, d.Operation, d.Class = r.Profile, r.Operation, r.Class
	d.Object, d.ObjectLabel = r.Name, r.Peer
	for _, o := range []string{r.Addr, r.PeerAddr, r.ForeignAddr, r.Path, r.Name2} {
		if d.Object == "" {
			d.Object = o
		}
	}
	if d.ObjectLabel == "" {
		d.ObjectLabel = r.PeerProfile
	}
	d.Access = strings.Fields(r.Denied)
	d.PID, d.Command, d.Serial, d.Raw = int(r.PID), r.Command, r.Serial, raw
	if stamp, _, found := strings.Cut(r.AuditID, ":"); found {
		_, ms, _ := strings.Cut(stamp, ".")
		n, _ := strconv.ParseInt(ms, 10, 64)
		d.Time = time.Unix(r.Epoch, n*int64(time.Millisecond)).UTC()
	}
	return d, true
}
