// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"encoding/binary"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Request is one access that a task asks for. Make it with the functions below.
type Request struct {
	what       kind
	query      []byte // class byte and match string
	perms      uint32 // kernel's bits, all of which are asked for
	packed     uint32 // the same in the bits of the accept tables
	owner      bool
	capability int
	target     string // of a link
}

type kind uint8

const (
	kindQuery kind = iota
	kindCapability
	kindLink
)

// File asks for access to a path: perms are apparmor.May* bits. owner says
// whether the file belongs to the task's user.
func File(path string, perms uint32, owner bool) Request {
	k := perms & 0xf
	if perms&apparmor.MayLink != 0 {
		k |= blob.MayLink
	}
	if perms&apparmor.MayLock != 0 {
		k |= blob.MayLock
	}
	if perms&apparmor.MayMmap != 0 {
		k |= blob.MayMmap
	}
	packed := perms
	if !owner {
		packed <<= 14
	}
	return Request{query: append([]byte{fileClass}, path...), perms: k, packed: packed, owner: owner}
}

// Link asks for a hard link at path to target.
func Link(path, target string, owner bool) Request {
	packed := apparmor.MayLink
	if !owner {
		packed <<= 14
	}
	return Request{what: kindLink, query: append([]byte{fileClass}, path...), target: target, perms: blob.MayLink, packed: packed, owner: owner}
}

// ChangeProfile asks to change to a label, now or, with exec not empty, when
// that file is executed.
func ChangeProfile(label, exec string) Request {
	if exec == "" {
		return Request{query: append([]byte{fileClass}, label...), perms: blob.MayChangeProfile, packed: 1 << 31, owner: true}
	}
	q := append(append([]byte{fileClass}, exec...), 0)
	return Request{query: append(q, label...), perms: blob.MayOnexec, packed: 1 << 30, owner: true}
}

// Capability asks for a capability by number.
func Capability(n int) Request { return Request{what: kindCapability, capability: n} }

// Network asks for a socket: perms are apparmor.Net* bits. class is that of the
// kernel: apparmor.ClassNetV8 or ClassNetV9.
func Network(class apparmor.Class, family, typ uint16, perms uint32) Request {
	q := []byte{byte(class)}
	q = binary.BigEndian.AppendUint16(q, family)
	q = binary.BigEndian.AppendUint16(q, typ)
	return Request{query: q, perms: perms, packed: packNet(perms)}
}

func packNet(p uint32) uint32 { return p&0x7f | p&0x300<<6 | p&0x700000>>4 | p&0x3000000>>5 }

// Signal asks to send a signal to a peer or receive one from it: number is
// AppArmor's, perms apparmor.Signal* bits.
func Signal(number int, peer string, perms uint32) Request {
	return Request{query: append([]byte{byte(apparmor.ClassSignal), byte(number)}, peer...), perms: perms, packed: perms}
}

// Ptrace asks to trace or read a peer, or to be traced or read by it: perms are
// apparmor.Ptrace* bits.
func Ptrace(peer string, perms uint32) Request {
	return Request{query: append([]byte{byte(apparmor.ClassLabel), byte(apparmor.ClassPtrace)}, peer...), perms: perms, packed: perms}
}

// Mount asks to mount a device of a file system type, with MS_* flags.
func Mount(device, point, fstype string, flags uint32) Request {
	q := append(append([]byte{byte(apparmor.ClassMount)}, point...), 0)
	q = append(append(q, device...), 0)
	q = append(append(q, fstype...), 0)
	for i := range 32 {
		if flags&(1<<i) != 0 {
			q = append(q, byte(i+1))
		}
	}
	return Request{query: q, perms: apparmor.MayMount, packed: apparmor.MayMount}
}

// Umount asks to unmount.
func Umount(point string) Request {
	return Request{query: append([]byte{byte(apparmor.ClassMount)}, point...), perms: apparmor.MayUmount, packed: apparmor.MayUmount}
}

// PivotRoot asks to change the root.
func PivotRoot(newRoot, oldRoot string) Request {
	q := append(append([]byte{byte(apparmor.ClassMount)}, newRoot...), 0)
	return Request{query: append(q, oldRoot...), perms: apparmor.MayPivotRoot, packed: apparmor.MayPivotRoot}
}

// DBus asks to send or receive a message (apparmor.DBusSend, DBusReceive), to
// bind a name (DBusBind; path, iface and member are not used) or to eavesdrop.
func DBus(perms uint32, bus, name, peer, path, iface, member string) Request {
	parts := []string{bus, name, peer, path, iface, member}
	switch {
	case perms&apparmor.DBusBind != 0:
		parts = parts[:2]
	case perms&apparmor.DBusEavesdrop != 0:
		parts = parts[:1]
	}
	q := []byte{byte(apparmor.ClassDBus)}
	for i, p := range parts {
		if i > 0 {
			q = append(q, 0)
		}
		q = append(q, p...)
	}
	return Request{query: q, perms: perms, packed: perms}
}

// Userns asks to make a user namespace.
func Userns() Request {
	return Request{query: []byte{byte(apparmor.ClassUserns)}, perms: apparmor.UsernsCreate, packed: apparmor.UsernsCreate}
}

// Raw asks for kernel permission bits on a class byte and match string.
func Raw(query []byte, perms uint32) Request {
	return Request{query: query, perms: perms, packed: perms, owner: true}
}

// Reason says why a profile's answer is what it is.
type Reason uint8

// The reasons.
const (
	ReasonAllowed    Reason = iota
	ReasonUnmediated        // the class is not in the policy
	ReasonUnconfined        // the profile's mode
	ReasonNoRule            // nothing allows it
	ReasonDenied            // a deny rule
	ReasonLinkTarget        // the link pair does not match
	ReasonLinkSubset        // the target allows less than the link
	ReasonComplain          // denied, but the profile is in complain mode
)

var reasons = [...]string{
	"allowed", "class is not mediated", "profile is unconfined", "no rule allows it", "a deny rule", "the link's target is not allowed",
	"the link would allow more than its target does", "would be denied, but the profile is in complain mode",
}

func (r Reason) String() string { return reasons[r] }

// Answer is one profile's answer to a request.
type Answer struct {
	Profile *blob.Profile
	Allowed bool
	Reason  Reason
	Missing uint32 // kernel's bits that were asked for and not allowed
	Audit   bool   // the access would be logged though allowed
	Quiet   bool   // the denial would not be logged
	// Transition is where an allowed exec goes, in words.
	Transition string
	// Rules decided; only where the profile was compiled here.
	Rules []*apparmor.ResolvedRule
}

// Decision is the answer of a label: all profiles of a stack have to allow.
type Decision struct {
	Allowed bool
	Answers []Answer
}

// Explainer finds the rules that decided about packed permission bits.
// *compile.Profile is one.
type Explainer interface {
	Deciding(kind blob.Kind, input []byte, bits uint32) []*apparmor.ResolvedRule
	// DecidingCapability finds the rules that decided about a capability.
	DecidingCapability(n int) []*apparmor.ResolvedRule
}

// May decides about a request of a task with a label. explain, which may be
// nil, gives the explainer of a profile or nil.
func May(label []*blob.Profile, r Request, explain func(*blob.Profile) Explainer) Decision {
	d := Decision{Allowed: true}
	for _, p := range label {
		a := answer(p, r)
		a.Profile = p
		if explain != nil {
			switch x := explain(p); {
			case x == nil:
			case r.what == kindCapability:
				a.Rules = x.DecidingCapability(r.capability)
			default:
				kind, input := blob.KindPolicy, r.query
				if r.query[0] == fileClass {
					kind, input = blob.KindFile, r.query[1:]
				}
				bits := r.packed
				if r.what == kindLink && a.Reason != ReasonNoRule {
					input = append(append(append([]byte{}, input...), 0), r.target...)
				}
				a.Rules = x.Deciding(kind, input, bits)
			}
			if a.Reason == ReasonNoRule && denies(a.Rules) {
				a.Reason = ReasonDenied
			}
		}
		if !a.Allowed && p.Mode == blob.Complain {
			a.Allowed, a.Reason = true, ReasonComplain
		}
		d.Allowed = d.Allowed && a.Allowed
		d.Answers = append(d.Answers, a)
	}
	return d
}

func denies(rules []*apparmor.ResolvedRule) bool {
	return len(rules) > 0 && rules[0].Mode == apparmor.ModeDeny
}

func answer(p *blob.Profile, r Request) Answer {
	if p.Mode == blob.Unconfined {
		return Answer{Allowed: true, Reason: ReasonUnconfined}
	}
	if r.what == kindCapability {
		bit := uint64(1) << uint(r.capability)
		a := Answer{Allowed: p.Caps.Allow&bit != 0, Audit: p.Caps.Audit&bit != 0, Quiet: p.Caps.Quiet&bit != 0}
		if !a.Allowed {
			a.Reason = ReasonNoRule
			if a.Quiet {
				a.Reason = ReasonDenied
			}
		}
		return a
	}
	t, mediated := one(p, r.query, r.owner)
	if !mediated {
		return Answer{Allowed: true, Reason: ReasonUnmediated}
	}
	a := Answer{Missing: r.perms &^ (t.Allow &^ t.Deny)}
	a.Allowed = a.Missing == 0
	a.Audit = a.Allowed && t.Audit&r.perms != 0
	a.Quiet = !a.Allowed && t.Quiet&a.Missing == a.Missing
	if !a.Allowed {
		a.Reason = ReasonNoRule
		if a.Quiet && p.Audit == 0 {
			a.Reason = ReasonDenied
		}
		return a
	}
	if r.what == kindLink {
		return link(p, r, t, a)
	}
	if r.query[0] == fileClass && r.perms&blob.MayExec != 0 {
		a.Transition = Transition(p, t.XIndex)
	}
	return a
}

// link checks the pair and the subset condition.
// Source: security/apparmor/file.c, profile_path_link.
func link(p *blob.Profile, r Request, first blob.Perms, a Answer) Answer {
	pair := append(append(append([]byte{}, r.query...), 0), r.target...)
	t, _ := one(p, pair, r.owner)
	a.Audit, a.Quiet = t.Audit&blob.MayLink != 0, false
	if t.Allow&blob.MayLink == 0 {
		return Answer{Reason: ReasonLinkTarget, Missing: blob.MayLink, Quiet: t.Quiet&blob.MayLink != 0}
	}
	if t.Allow&blob.LinkSubset == 0 {
		return a
	}
	target, _ := one(p, append([]byte{fileClass}, r.target...), r.owner)
	more := first.Allow &^ blob.MayLink &^ target.Allow
	if more == 0 && first.Allow&blob.MayExec != 0 && first.XIndex != target.XIndex {
		more = blob.MayExec
	}
	if more != 0 {
		return Answer{Reason: ReasonLinkSubset, Missing: more}
	}
	return a
}

// Transition says in words where an exec with this index goes.
func Transition(p *blob.Profile, x uint32) string {
	var s string
	switch x & blob.XTypeMask {
	case blob.XName:
		s = "to the profile that attaches to the file"
		if x&blob.XChild != 0 {
			s = "to the child profile that attaches to the file"
		}
	case blob.XTable:
		s = "to a profile that the policy does not name"
		if i := int(x & blob.XIndexMask); p.File != nil && i < len(p.File.XTable) {
			s = "to the profile " + p.File.XTable[i]
		}
	default:
		switch {
		case x&blob.XInherit != 0:
			s = "under the same profile"
		case x&blob.XUnconfined != 0:
			s = "unconfined"
		default:
			return ""
		}
		x &^= blob.XInherit | blob.XUnconfined
	}
	if x&blob.XInherit != 0 {
		s += ", else under the same profile"
	}
	if x&blob.XUnconfined != 0 {
		s += ", else unconfined"
	}
	if x&blob.XUnsafe != 0 {
		s += ", with the environment as it is"
	}
	return s
}

// Attachments lists the profiles that attach to an executable, the most
// specific first; the kernel takes the first unless a second is as specific.
func (s *Set) Attachments(path string) []*blob.Profile {
	var exact, out []*blob.Profile
	for _, n := range s.names {
		p := s.profiles[n]
		switch {
		case p.XMatch != nil:
			at := walk(p.XMatch, dfa.Start, []byte(path))
			if at != dfa.Trap && p.XMatch.Lookup(blob.KindXMatch, at, true).Allow&blob.MayExec != 0 {
				out = append(out, p)
			}
		case p.Name == path:
			exact = append(exact, p)
		}
	}
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j].XMatchLen > out[j-1].XMatchLen; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return append(exact, out...)
}
