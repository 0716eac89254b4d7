// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
)

// Event is what an audit record of AppArmor reports.
type Event uint8

// The events. The kernel's record types 1501 to 1506 stand for them too.
const (
	EventInvalid Event = iota
	EventAudit         // allowed, and audited because a rule asks for it
	EventAllowed       // not allowed, but the profile is in complain mode
	EventDenied
	EventHint
	EventStatus
	EventError
)

func (e Event) String() string {
	return [...]string{"invalid", "audit", "allowed", "denied", "hint", "status", "error"}[e%7]
}

// MarshalText makes the event readable in JSON.
func (e Event) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// AppArmorRecord is one record of AppArmor, its fields by the names that they
// have in libapparmor.
//
// Source: libraries/libapparmor/include/aalogparse.h, aa_log_record.
type AppArmorRecord struct {
	Event     Event  `json:"event"`
	AuditID   string `json:"audit_id,omitempty"` // "seconds.milliseconds:serial"
	Epoch     int64  `json:"epoch,omitempty"`
	Serial    uint64 `json:"serial,omitempty"`
	Operation string `json:"operation,omitempty"`
	Class     string `json:"class,omitempty"`

	Requested string `json:"requested,omitempty"` // letters or words
	Denied    string `json:"denied,omitempty"`

	Profile     string `json:"profile,omitempty"`
	PeerProfile string `json:"peer_profile,omitempty"`
	Peer        string `json:"peer,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	Name2       string `json:"target,omitempty"`
	Attribute   string `json:"attribute,omitempty"`
	Info        string `json:"info,omitempty"`
	PeerInfo    string `json:"peer_info,omitempty"`
	Command     string `json:"comm,omitempty"`
	ExecPath    string `json:"execpath,omitempty"`

	// FSUID and OUID are -1 when not given.
	FSUID int64 `json:"fsuid"`
	OUID  int64 `json:"ouid"`

	Task       int64 `json:"task,omitempty"`
	Parent     int64 `json:"parent,omitempty"`
	MagicToken int64 `json:"magic_token,omitempty"`
	ErrorCode  int64 `json:"error,omitempty"` // without its sign
	PID        int64 `json:"pid,omitempty"`
	PeerPID    int64 `json:"peer_pid,omitempty"`

	Family      string `json:"family,omitempty"`
	SockType    string `json:"sock_type,omitempty"`
	Protocol    string `json:"protocol,omitempty"`
	LocalAddr   string `json:"laddr,omitempty"`
	LocalPort   int64  `json:"lport,omitempty"`
	ForeignAddr string `json:"faddr,omitempty"`
	ForeignPort int64  `json:"fport,omitempty"`
	Addr        string `json:"addr,omitempty"` // of a unix socket
	PeerAddr    string `json:"peer_addr,omitempty"`

	Bus       string `json:"bus,omitempty"`
	Path      string `json:"path,omitempty"`
	Interface string `json:"interface,omitempty"`
	Member    string `json:"member,omitempty"`

	Signal  string `json:"signal,omitempty"`
	FSType  string `json:"fstype,omitempty"`
	Flags   string `json:"flags,omitempty"`
	SrcName string `json:"srcname,omitempty"`
}

// Suggestion is the rule that a record asks for.
type Suggestion struct {
	// Profile is the profile's full name, "parent//hat".
	Profile string
	// Rule is nil where no rule helps; Advice says what would, or what else there
	// is to know.
	Rule   apparmor.Rule
	Advice string
}

// MarshalJSON gives the rule as text.
func (s Suggestion) MarshalJSON() ([]byte, error) {
	v := struct {
		Profile string `json:"profile,omitempty"`
		Rule    string `json:"rule,omitempty"`
		Advice  string `json:"advice,omitempty"`
	}{s.Profile, "", s.Advice}
	if s.Rule != nil {
		v.Rule = apparmor.String(s.Rule)
	}
	return json.Marshal(v)
}

// File is a whole profile with nothing but the suggested rule: the part before
// the first "//" of its name is the profile, the rest a hat in it.
func (s Suggestion) File() *apparmor.File {
	name, hat, nested := strings.Cut(s.Profile, "//")
	p := &apparmor.Profile{Kind: apparmor.KindProfile, Name: apparmor.Word{Value: name}}
	if strings.HasPrefix(name, "/") {
		p.Kind = apparmor.KindBare
	}
	into := p
	if nested {
		into = &apparmor.Profile{Kind: apparmor.KindCaret, Name: apparmor.Word{Value: hat}}
		p.Rules = []apparmor.Rule{into}
	}
	if s.Rule != nil {
		into.Rules = []apparmor.Rule{s.Rule}
	}
	return &apparmor.File{Items: []apparmor.Item{p}}
}

// Suggest works out the rule that would allow what a record reports. A rule is
// as narrow as the record: it says neither whether the access is a good idea
// nor what else of its kind will be asked for next.
//
// ok is false where the record is no request: status messages, and records that
// could not be read.
func (r *AppArmorRecord) Suggest() (s Suggestion, ok bool) {
	switch r.Event {
	case EventDenied, EventAllowed, EventAudit:
	default:
		return Suggestion{}, false
	}
	if r.Profile == "" {
		return Suggestion{Advice: "the process has no profile, so no rule of one can help"}, true
	}
	s.Profile = r.Profile
	if r.Profile == "unconfined" && r.ExecPath != "" {
		// The kernel moved an unconfined process into a profile for the occasion:
		// what would help is a profile of the program.
		s.Profile = r.ExecPath
	}
	s.Rule, s.Advice = r.rule()
	if !s.holds() {
		return Suggestion{Advice: "the record has values that no rule can have; it may be forged"}, true
	}
	if r.Event == EventAudit && s.Rule != nil && s.Advice == "" {
		s.Advice = "nothing was denied: a rule with audit allowed and logged this"
	}
	return s, true
}

// holds tells whether the suggestion, taken through text as a person would, is
// still this one rule in this one profile. Log lines hold what processes chose:
// nothing in them may grow into a second rule.
func (s Suggestion) holds() bool {
	var b bytes.Buffer
	if err := apparmor.Print(&b, s.File()); err != nil {
		return false
	}
	f, diags := apparmor.Parse("suggestion", b.Bytes())
	if diags.HasErrors() || len(f.Items) != 1 {
		return false
	}
	at, ok := f.Items[0].(*apparmor.Profile)
	if ok && strings.Contains(s.Profile, "//") {
		if len(at.Rules) != 1 {
			return false
		}
		at, ok = at.Rules[0].(*apparmor.Profile)
	}
	want := 0
	if s.Rule != nil {
		want = 1
	}
	if !ok || len(at.Rules) != want {
		return false
	}
	if want == 1 && fmt.Sprintf("%T", at.Rules[0]) != fmt.Sprintf("%T", s.Rule) {
		return false
	}
	_, diags = apparmor.Resolve(f, apparmor.Env{SkipExecCheck: true})
	return !diags.HasErrors()
}

func words(list ...string) []apparmor.Word {
	var ws []apparmor.Word
	for _, w := range list {
		ws = append(ws, apparmor.Word{Value: w})
	}
	return ws
}

// accesses makes words of a mask: words separated by blanks, sorted.
func accesses(mask string) []apparmor.Word {
	list := strings.Fields(mask)
	slices.Sort(list)
	return words(slices.Compact(list)...)
}

func cond(name, value string) apparmor.Cond {
	return apparmor.Cond{Name: apparmor.Word{Value: name}, Op: apparmor.CondEq, Values: []apparmor.Word{{Value: escapeLiteral(value)}}}
}

// escapeLiteral makes a glob that matches one text.
func escapeLiteral(s string) string { return apparmor.Exactly(s) }

// fileOrNet are operations that files and sockets share, or that only files
// have.
var fileOperations = map[string]bool{
	"create": true, "post_create": true, "bind": true, "connect": true, "listen": true, "accept": true,
	"sendmsg": true, "recvmsg": true, "getsockname": true, "getpeername": true, "getsockopt": true,
	"setsockopt": true, "socket_create": true, "sock_shutdown": true, "open": true, "truncate": true,
	"mkdir": true, "mknod": true, "chmod": true, "chown": true, "rename_src": true, "rename_dest": true,
	"unlink": true, "rmdir": true, "symlink": true, "symlink_create": true, "link": true, "sysctl": true,
	"getattr": true, "setattr": true, "xattr": true,
}

func (r *AppArmorRecord) rule() (apparmor.Rule, string) {
	op := r.Operation
	shared := strings.HasPrefix(op, "file_") || strings.HasPrefix(op, "inode_") || fileOperations[op]
	mask := r.Denied
	if mask == "" && r.Event == EventAudit {
		mask = r.Requested
	}
	switch {
	case op == "exec":
		return r.execRule()
	case r.Class == "namespace":
		access, ok := strings.CutPrefix(mask, "userns_")
		if !ok {
			return nil, "the record does not say which access was denied"
		}
		return &apparmor.CondRule{Class: apparmor.ClassUserns, Prefix: r.prefix(), Perms: words(access)}, ""
	case strings.HasSuffix(r.Class, "mqueue"):
		return r.mqueueRule(mask)
	case r.Class == "io_uring":
		n := &apparmor.CondRule{Class: apparmor.ClassIOUring, Perms: accesses(mask)}
		if r.PeerProfile != "" {
			n.Conds = []apparmor.Cond{cond("label", r.PeerProfile)}
		}
		return n, ""
	case r.Class == "mount", op == "mount", op == "umount":
		return r.mountRule(), ""
	case op == "pivotroot":
		n := &apparmor.MountRule{Kind: apparmor.PivotRoot, Target: apparmor.Word{Value: escapeLiteral(r.Name)}}
		if r.SrcName != "" {
			n.Conds = []apparmor.Cond{cond("oldroot", r.SrcName)}
		}
		return n, ""
	case r.Class == "net" && r.Family == "unix":
		return r.unixRule(mask)
	case op == "change_profile", op == "change_onexec":
		if r.Name2 == "" {
			if r.Info == "label not found" {
				return nil, fmt.Sprintf("profile %s is not loaded", r.Name)
			}
			return nil, "the record does not name the profile to change to"
		}
		n := &apparmor.ChangeProfileRule{Target: apparmor.Word{Value: escapeLiteral(r.Name2)}}
		if r.Info == "no new privs" {
			return n, "no_new_privs is set, so the change must be to a profile that allows no more"
		}
		return n, ""
	case shared && r.Class != "file" && r.Family != "" && r.Protocol != "" && r.SockType != "":
		return r.networkRule()
	case r.Class == "file", shared:
		return r.fileRule(mask)
	case op == "capable":
		return &apparmor.CapabilityRule{Caps: words(r.Name)}, ""
	case op == "ptrace":
		if r.Peer == "" || mask == "" {
			return nil, "the record does not name the peer and the access"
		}
		return &apparmor.CondRule{Class: apparmor.ClassPtrace, Perms: accesses(mask), Conds: []apparmor.Cond{cond("peer", r.Peer)}}, ""
	case op == "signal":
		n := &apparmor.CondRule{Class: apparmor.ClassSignal, Perms: accesses(mask)}
		if r.Signal != "" {
			n.Conds = append(n.Conds, apparmor.Cond{Name: apparmor.Word{Value: "set"}, Op: apparmor.CondEq, Values: words(r.Signal)})
		}
		if r.Peer != "" {
			n.Conds = append(n.Conds, cond("peer", r.Peer))
		}
		return n, ""
	case strings.HasPrefix(op, "dbus_"):
		return r.dbusRule(mask)
	case op == "change_hat":
		return nil, "the process asks for a hat: give the profile one of that name"
	}
	return nil, fmt.Sprintf("no rule is known for operation %s", op)
}

// prefix is audit where the access was allowed and logged.
func (r *AppArmorRecord) prefix() apparmor.Prefix {
	return apparmor.Prefix{Audit: r.Event == EventAudit}
}

// execRule suggests to stay in the profile. Where the process should go
// instead, only a person knows.
func (r *AppArmorRecord) execRule() (apparmor.Rule, string) {
	if r.Name == "" {
		return nil, "the record does not name the executable"
	}
	return &apparmor.FileRule{Path: apparmor.Word{Value: escapeLiteral(r.Name)}, Perms: apparmor.Word{Value: "mrix"}},
		"ix keeps the profile; px, cx or ux send the new program elsewhere"
}

func (r *AppArmorRecord) fileRule(mask string) (apparmor.Rule, string) {
	if r.Name == "" {
		return nil, "the record names no file"
	}
	if r.ErrorCode == 13 && r.Info == "Failed name lookup - disconnected path" {
		return nil, "the path is outside of the process's file system: flag attach_disconnected makes it visible"
	}
	owner := r.OUID >= 0 && r.FSUID == r.OUID && r.Denied != ""
	// Records of old kernels have the owner's permissions before "::" and
	// others' behind it.
	if own, other, split := strings.Cut(mask, "::"); split {
		switch {
		case own != "" && other != "":
			return nil, "the record speaks of the owner and of others at once"
		case own != "":
			mask, owner = own, true
		default:
			mask = other
		}
	}
	perms := ""
	for _, c := range mask {
		switch c {
		case 'c', 'd': // create and delete are writes
			c = 'w'
		case 'x': // an exec has a record of its own
			continue
		case 'm', 'r', 'w', 'a', 'l', 'k':
		default:
			return nil, fmt.Sprintf("the record has an unknown access %q", c)
		}
		if !strings.ContainsRune(perms, c) {
			perms += string(c)
		}
	}
	if strings.Contains(perms, "w") {
		perms = strings.ReplaceAll(perms, "a", "")
	}
	if perms == "" {
		return nil, "the record does not say which access was denied"
	}
	n := &apparmor.FileRule{Path: apparmor.Word{Value: escapeLiteral(r.Name)}, Perms: apparmor.Word{Value: perms}}
	if owner {
		n.Prefix.Owner = apparmor.OwnerOwn
	}
	return n, ""
}

func (r *AppArmorRecord) mqueueRule(mask string) (apparmor.Rule, string) {
	kind, _, _ := strings.Cut(r.Class, "_")
	n := &apparmor.CondRule{Class: apparmor.ClassMqueue, Perms: accesses(mask), Conds: []apparmor.Cond{cond("type", kind)}}
	if r.Name != "" {
		n.Args = words(escapeLiteral(r.Name))
	}
	return n, ""
}

func (r *AppArmorRecord) mountRule() apparmor.Rule {
	n := &apparmor.MountRule{Kind: apparmor.Mount}
	if r.Operation == "umount" {
		n.Kind = apparmor.Umount
	}
	list := func(name, values string) {
		if values != "" {
			n.Conds = append(n.Conds, apparmor.Cond{Name: apparmor.Word{Value: name}, Op: apparmor.CondEq, Paren: true, Values: words(strings.Split(values, ", ")...)})
		}
	}
	list("fstype", r.FSType)
	list("options", r.Flags)
	dst := apparmor.Word{}
	if r.Name != "" {
		dst.Value = escapeLiteral(r.Name)
	}
	n.Target = dst
	if n.Kind == apparmor.Mount && r.SrcName != "" {
		n.Source.Value = escapeLiteral(r.SrcName)
	}
	return n
}

func (r *AppArmorRecord) unixRule(mask string) (apparmor.Rule, string) {
	if mask == "" {
		return nil, "the record does not say which access was denied"
	}
	n := &apparmor.CondRule{Class: apparmor.ClassUnix, Perms: accesses(mask), ParenPerms: true}
	if r.SockType != "" {
		n.Conds = append(n.Conds, cond("type", r.SockType))
	}
	if r.Addr != "" {
		n.Conds = append(n.Conds, cond("addr", r.Addr))
	}
	if r.PeerAddr != "" {
		n.Group = append(n.Group, cond("addr", r.PeerAddr))
	}
	if r.PeerProfile != "" {
		n.Group = append(n.Group, cond("label", r.PeerProfile))
	}
	n.HasGroup = n.Group != nil
	n.GroupName.Value = "peer"
	return n, ""
}

// peerless are the accesses of sockets that have no peer.
var peerless = []string{"create", "bind", "listen", "shutdown", "getattr", "setattr", "getopt", "setopt"}

func (r *AppArmorRecord) networkRule() (apparmor.Rule, string) {
	n := &apparmor.CondRule{Class: apparmor.ClassNetwork, Perms: accesses(r.Requested), Args: words(r.Family, r.SockType)}
	n.ParenPerms = len(n.Perms) > 0
	end := func(addr string, port int64) (cs []apparmor.Cond) {
		if addr != "" {
			cs = append(cs, apparmor.Cond{Name: apparmor.Word{Value: "ip"}, Op: apparmor.CondEq, Values: words(addr)})
		}
		if port != 0 {
			cs = append(cs, apparmor.Cond{Name: apparmor.Word{Value: "port"}, Op: apparmor.CondEq, Values: words(fmt.Sprint(port))})
		}
		return cs
	}
	n.Conds = end(r.LocalAddr, r.LocalPort)
	if !slices.ContainsFunc(n.Perms, func(w apparmor.Word) bool { return slices.Contains(peerless, w.Value) }) {
		n.Group = end(r.ForeignAddr, r.ForeignPort)
	}
	n.HasGroup = n.Group != nil
	n.GroupName.Value = "peer"
	return n, ""
}

func (r *AppArmorRecord) dbusRule(mask string) (apparmor.Rule, string) {
	n := &apparmor.CondRule{Class: apparmor.ClassDBus, Perms: accesses(mask)}
	set := func(name, value string) {
		if value != "" {
			n.Conds = append(n.Conds, cond(name, value))
		}
	}
	set("bus", r.Bus)
	switch mask {
	case "send", "receive":
		set("path", r.Path)
		set("interface", r.Interface)
		set("member", r.Member)
		if r.PeerProfile != "" {
			n.Group = []apparmor.Cond{cond("label", r.PeerProfile)}
			n.GroupName.Value, n.HasGroup = "peer", true
		}
	case "bind":
		set("name", r.Name)
	case "eavesdrop":
	default:
		return nil, fmt.Sprintf("the record has an unknown access %q", mask)
	}
	return n, ""
}
