// SPDX-License-Identifier: Apache-2.0

// Package seccomp reads seccomp profiles as container tools write them (OCI
// runtime configurations, Docker's and Podman's profiles), compiles them to the
// smallest and fastest classic BPF, evaluates, explains, compares and lints
// them. It is pure: package seccomp/install talks to the kernel.
//
// The way of the data: Parse gives a Profile, which is what the file says;
// Profile.Resolve gives a Filter for one host and one container, which is what
// an OCI runtime is handed; Compile gives a Program.
//
// Values of this package are safe for concurrent use once made.
package seccomp

import (
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Action is what happens to a system call.
type Action = cbpf.Action

// Op compares an argument with a value.
type Op uint8

// The operators, SCMP_CMP_… in profiles. All comparisons are unsigned.
const (
	NE Op = iota + 1
	LT
	LE
	EQ
	GE
	GT
	MaskedEQ // (argument & Value) == (ValueTwo & Value)
)

var opNames = [...]string{NE: "SCMP_CMP_NE", LT: "SCMP_CMP_LT", LE: "SCMP_CMP_LE", EQ: "SCMP_CMP_EQ", GE: "SCMP_CMP_GE", GT: "SCMP_CMP_GT", MaskedEQ: "SCMP_CMP_MASKED_EQ"}

// String is the operator's name in profiles.
func (o Op) String() string {
	if int(o) < len(opNames) && o > 0 {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// MarshalText makes the operator readable in JSON.
func (o Op) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Arg is a condition on one argument.
type Arg struct {
	Index    uint8 // 0 to 5
	Op       Op
	Value    uint64
	ValueTwo uint64 // MaskedEQ only
	at       extent
}

// Name is a system call's name where a profile has it.
type Name struct {
	Text  string
	call  syscalls.Name
	known bool // some ABI has the call
	at    extent
}

// Known tells whether any ABI of Linux has a system call of this name.
func (n Name) Known() bool { return n.known }

func newName(text string, from, to int) Name {
	call, known := syscalls.Lookup(text)
	return Name{text, call, known, extent{int32(from), int32(to)}}
}

// extent is a place in the profile's text; lines are worked out when asked for.
type extent struct{ from, to int32 }

// Condition says when a rule of a Docker profile counts.
type Condition struct {
	Caps      []string
	Arches    []string
	MinKernel syscalls.Version
	hasKernel bool
}

func (c *Condition) empty() bool { return len(c.Caps) == 0 && len(c.Arches) == 0 && !c.hasKernel }

// Rule is one entry of `syscalls`.
type Rule struct {
	Names    []Name
	Action   Action  // with ErrnoRet, or its default, as data
	ErrnoRet *uint32 // as written
	Args     []Arg
	Comment  string
	Includes Condition
	Excludes Condition

	argsNull bool
	kind     string // SCMP_ACT_… as written
	at       extent
}

// ArchMap is one entry of `archMap`.
type ArchMap struct {
	Arch syscalls.Arch
	Sub  []syscalls.Arch
}

// Profile is what a profile's text says, nothing resolved. It is read-only.
type Profile struct {
	File             string
	DefaultAction    Action
	DefaultErrnoRet  *uint32
	Architectures    []syscalls.Arch
	ArchMap          []ArchMap
	Flags            []string // nil: none given; empty: given and empty
	ListenerPath     string
	ListenerMetadata string
	Rules            []Rule

	defaultKind string
	disabled    bool // neither a default action nor rules: seccomp stays off
	src         *decoder
	warnings    diag.List
}

// Disabled tells that the profile has neither a default action nor rules, which
// container tools take for "no seccomp".
func (p *Profile) Disabled() bool { return p.disabled }

// Warnings are findings of Parse that do not make the profile unusable.
func (p *Profile) Warnings() diag.List { return p.warnings }

// Span is the place of a rule in the profile's text.
func (p *Profile) Span(r *Rule) diag.Span { return p.span(r.at) }

// NameSpan is the place of a name in the profile's text.
func (p *Profile) NameSpan(n Name) diag.Span { return p.span(n.at) }

// ArgSpan is the place of a condition in the profile's text.
func (p *Profile) ArgSpan(a Arg) diag.Span { return p.span(a.at) }

func (p *Profile) span(x extent) diag.Span {
	if p.src == nil || x.to == 0 {
		return diag.Span{File: p.File}
	}
	return p.src.span(int(x.from), int(x.to))
}

// Flags of seccomp(2) that profiles name. Source: include/uapi/linux/seccomp.h.
const (
	FlagTSync            = "SECCOMP_FILTER_FLAG_TSYNC"
	FlagLog              = "SECCOMP_FILTER_FLAG_LOG"
	FlagSpecAllow        = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
	FlagWaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
)

var actionNames = map[string]Action{
	"SCMP_ACT_KILL":         cbpf.KillThread,
	"SCMP_ACT_KILL_THREAD":  cbpf.KillThread,
	"SCMP_ACT_KILL_PROCESS": cbpf.KillProcess,
	"SCMP_ACT_TRAP":         cbpf.Trap,
	"SCMP_ACT_ERRNO":        cbpf.ErrnoBase,
	"SCMP_ACT_TRACE":        cbpf.TraceBase,
	"SCMP_ACT_ALLOW":        cbpf.Allow,
	"SCMP_ACT_LOG":          cbpf.Log,
	"SCMP_ACT_NOTIFY":       cbpf.Notify,
}

const eperm = 1

// Parse reads a profile: Docker's format, Podman's, an OCI `linux.seccomp`
// object, or a whole OCI config.json, of which it takes `linux.seccomp`. The
// error, if any, is a diag.List with everything that is wrong.
func Parse(file string, data []byte) (*Profile, error) {
	const maxSize = 16 << 20
	if len(data) > maxSize {
		return nil, diag.List{{Code: "SEC-SIZE", Severity: diag.Error, Message: fmt.Sprintf("profile of %d bytes; the limit is %d", len(data), maxSize), Span: diag.Span{File: file}}}
	}
	d := newDecoder(file, data)
	p := &Profile{File: file, src: d}
	pd := profileDecoder{decoder: d, p: p}
	pd.top()
	d.end()
	if err := d.diags.Err(); err != nil {
		return nil, err
	}
	p.warnings = d.diags
	return p, nil
}

type profileDecoder struct {
	*decoder
	p *Profile

	hasDefault, hasArchs, hasArchMap bool
	archsAt, archMapAt               extent
	defaultAt, defaultErrnoAt        extent
	defaultErrno                     string
	bundle                           bool
}

func (d *profileDecoder) top() {
	if d.peek() == 'n' {
		d.errorf(d.pos, min(d.pos+4, len(d.src)), "SEC-TYPE", "profile: want an object")
		d.skip()
		return
	}
	start := d.pos
	if !d.object("profile", d.member) {
		return
	}
	d.finish(start)
}

// member reads one key of the profile, or of a config.json around it.
func (d *profileDecoder) member(key string, from, to int) {
	switch fold(key, profileKeys) {
	case "defaultAction":
		d.p.defaultKind, d.defaultAt, d.hasDefault = d.action("defaultAction")
	case "defaultErrnoRet":
		d.p.DefaultErrnoRet = d.errnoRet("defaultErrnoRet")
		d.defaultErrnoAt = extent{int32(from), int32(d.pos)}
	case "defaultErrno":
		d.defaultErrno = d.errnoName("defaultErrno")
		d.defaultErrnoAt = extent{int32(from), int32(d.pos)}
	case "architectures":
		d.archsAt = extent{int32(from), int32(to)}
		d.array("architectures", func() {
			d.hasArchs = true
			if a, ok := d.arch(); ok {
				d.p.Architectures = append(d.p.Architectures, a)
			}
		})
	case "archMap":
		d.archMapAt = extent{int32(from), int32(to)}
		d.array("archMap", d.archMap)
	case "flags":
		if d.array("flags", d.flag) && d.p.Flags == nil {
			d.p.Flags = []string{}
		}
	case "listenerPath":
		d.p.ListenerPath, _, _ = d.stringValue("listenerPath")
	case "listenerMetadata":
		d.p.ListenerMetadata, _, _ = d.stringValue("listenerMetadata")
	case "syscalls":
		d.p.Rules = make([]Rule, 0, 64)
		d.array("syscalls", d.rule)
	case "linux":
		d.object("linux", func(key string, _, _ int) {
			if key != "seccomp" {
				d.skip()
				return
			}
			d.bundle = true
			d.object("linux.seccomp", d.member)
		})
	case "ociVersion":
		d.bundle = true
		d.skip()
	case "comment", "$schema":
		d.skip()
	default:
		// The other members of a config.json are none of our business, and
		// which kind of file this is may only show further down.
		if !bundleKeys[key] {
			d.diags.Warnf(d.span(from, to), "SEC-UNKNOWN-KEY", "unknown key %q; container tools ignore it", key)
		}
		d.skip()
	}
}

var bundleKeys = map[string]bool{
	"process": true, "root": true, "hostname": true, "domainname": true, "mounts": true, "hooks": true,
	"annotations": true, "solaris": true, "windows": true, "vm": true, "zos": true, "freebsd": true,
}

var profileKeys = []string{"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags", "listenerPath", "listenerMetadata", "syscalls"}

// fold finds the key that is meant: encoding/json, and so Docker and runc, do
// not mind the case of keys.
func fold(key string, known []string) string {
	for _, k := range known {
		if k == key {
			return k
		}
	}
	for _, k := range known {
		if strings.EqualFold(k, key) {
			return k
		}
	}
	return key
}

func (d *profileDecoder) finish(start int) {
	p := d.p
	if d.dead {
		return
	}
	if len(p.Rules) == 0 && !d.hasDefault {
		if p.disabled = true; d.bundle {
			return
		}
		d.diags.Warnf(d.span(start, start+1), "SEC-EMPTY", "the profile has neither a default action nor rules: container tools take it for no seccomp at all")
		return
	}
	if !d.hasDefault {
		d.errorf(start, start+1, "SEC-DEFAULT", "the profile has no defaultAction")
	}
	if d.hasArchs && d.hasArchMap {
		d.errorf(int(d.archMapAt.from), int(d.archMapAt.to), "SEC-ARCH-TWICE", "both 'architectures' and 'archMap' are there; use one of them")
	}
	ret, code := p.DefaultErrnoRet, d.defaultErrno
	if p.DefaultAction = d.withErrno(p.defaultKind, &ret, code, d.defaultErrnoAt, "defaultErrnoRet"); d.defaultErrno != "" {
		p.DefaultErrnoRet = ret
	}
	if p.DefaultAction == cbpf.Notify && p.defaultKind != "" {
		d.errorf(int(d.defaultAt.from), int(d.defaultAt.to), "SEC-NOTIFY-DEFAULT", "SCMP_ACT_NOTIFY cannot be the default action: the runtime could not hand over the listener")
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		d.errorf(start, start+1, "SEC-LISTENER", "listenerMetadata without listenerPath")
	}
}

// action reads SCMP_ACT_…; ok tells that there was a non-empty string.
func (d *profileDecoder) action(what string) (kind string, at extent, ok bool) {
	s, from, to := d.stringValue(what)
	at = extent{int32(from), int32(to)}
	if s == "" {
		return "", at, false
	}
	if _, known := actionNames[s]; !known && !d.dead {
		d.errorf(from, to, "SEC-ACTION", "%s: unknown action %q", what, s)
		return "", at, true
	}
	return s, at, true
}

// errnoRet reads an error number; null is none.
func (d *profileDecoder) errnoRet(what string) *uint32 {
	if d.null() {
		return nil
	}
	v, ok := d.uintValue(what, 16)
	if !ok {
		return nil
	}
	u := uint32(v)
	return &u
}

// errnoName reads Podman's symbolic error number, which may also be digits.
func (d *profileDecoder) errnoName(what string) string {
	s, from, to := d.stringValue(what)
	if s == "" {
		return ""
	}
	if _, ok := errnoByName(s); !ok {
		d.errorf(from, to, "SEC-ERRNO", "%s: unknown error number %q", what, s)
		return ""
	}
	return s
}

// withErrno puts an action and its error number together. Podman's symbolic
// number goes before the other one.
func (d *profileDecoder) withErrno(kind string, ret **uint32, name string, at extent, what string) Action {
	act := actionNames[kind]
	if name != "" {
		n, _ := errnoByName(name)
		u := uint32(n)
		*ret = &u
	}
	switch {
	case act == cbpf.ErrnoBase || act == cbpf.TraceBase:
		if *ret == nil {
			return act | eperm
		}
		if act == cbpf.ErrnoBase && **ret > 4095 {
			d.diags.Warnf(d.span(int(at.from), int(at.to)), "SEC-ERRNO-RANGE", "%s: the kernel knows no error numbers above 4095 and returns that one", what)
		}
		return act | Action(**ret)
	case *ret != nil && kind != "":
		d.errorf(int(at.from), int(at.to), "SEC-ERRNO-UNUSED", "%s with %s, which takes no error number", what, kind)
	}
	return act
}

func (d *profileDecoder) arch() (syscalls.Arch, bool) {
	s, from, to := d.stringValue("architecture")
	if d.dead {
		return 0, false
	}
	if a, ok := syscalls.ParseOCI(s); ok {
		return a, true
	}
	if s == "SCMP_ARCH_NATIVE" {
		return 0, false // always there
	}
	d.errorf(from, to, "SEC-ARCH", "unknown architecture %q", s)
	return 0, false
}

func (d *profileDecoder) archMap() {
	var m ArchMap
	ok := false
	d.hasArchMap = true
	d.object("archMap entry", func(key string, from, to int) {
		switch fold(key, []string{"architecture", "subArchitectures"}) {
		case "architecture":
			m.Arch, ok = d.arch()
		case "subArchitectures":
			d.array("subArchitectures", func() {
				if a, ok := d.arch(); ok {
					m.Sub = append(m.Sub, a)
				}
			})
		default:
			d.diags.Warnf(d.span(from, to), "SEC-UNKNOWN-KEY", "unknown key %q; container tools ignore it", key)
			d.skip()
		}
	})
	if ok {
		d.p.ArchMap = append(d.p.ArchMap, m)
	}
}

func (d *profileDecoder) flag() {
	s, from, to := d.stringValue("flag")
	switch s {
	case FlagTSync, FlagLog, FlagSpecAllow, FlagWaitKillableRecv:
		d.p.Flags = append(d.p.Flags, s)
	default:
		if !d.dead {
			d.errorf(from, to, "SEC-FLAG", "unknown flag %q", s)
		}
	}
}

var ruleKeys = []string{"names", "name", "action", "args", "errnoRet", "errno", "includes", "excludes", "comment"}

func (d *profileDecoder) rule() {
	var r Rule
	if d.null() {
		d.errorf(d.pos-4, d.pos, "SEC-TYPE", "syscalls: want an object, not null")
		return
	}
	d.skipSpace()
	start := d.pos
	var single string
	var singleAt, errnoAt extent
	var errno string
	hasAction := false
	ok := d.object("syscalls entry", func(key string, from, to int) {
		switch fold(key, ruleKeys) {
		case "names":
			d.array("names", func() {
				s, from, to := d.stringValue("name")
				if s == "" && !d.dead {
					d.errorf(from, to, "SEC-NAME", "an empty string names no system call")
				}
				if r.Names == nil {
					r.Names = make([]Name, 0, 8)
				}
				r.Names = append(r.Names, newName(s, from, to))
			})
		case "name":
			s, from, to := d.stringValue("name")
			single, singleAt = s, extent{int32(from), int32(to)}
		case "action":
			r.kind, _, hasAction = d.action("action")
		case "args":
			if d.peek() == 'n' {
				r.argsNull = true
			}
			d.array("args", func() { d.arg(&r) })
		case "errnoRet":
			r.ErrnoRet = d.errnoRet("errnoRet")
			errnoAt = extent{int32(from), int32(d.pos)}
		case "errno":
			errno = d.errnoName("errno")
			if errno != "" || errnoAt.to == 0 {
				errnoAt = extent{int32(from), int32(d.pos)}
			}
		case "includes":
			d.condition("includes", &r.Includes)
		case "excludes":
			d.condition("excludes", &r.Excludes)
		case "comment":
			r.Comment, _, _ = d.stringValue("comment")
		default:
			d.diags.Warnf(d.span(from, to), "SEC-UNKNOWN-KEY", "unknown key %q; container tools ignore it", key)
			d.skip()
		}
	})
	if !ok || d.dead {
		return
	}
	r.at = extent{int32(start), int32(d.pos)}
	if single != "" {
		if len(r.Names) > 0 {
			d.errorf(int(singleAt.from), int(singleAt.to), "SEC-NAME-TWICE", "both 'name' and 'names' are there; use one of them")
		}
		r.Names = append(r.Names, newName(single, int(singleAt.from), int(singleAt.to)))
	}
	if !hasAction {
		d.errorf(start, start+1, "SEC-ACTION", "the rule has no action")
	}
	r.Action = d.withErrno(r.kind, &r.ErrnoRet, errno, errnoAt, "errnoRet")
	if len(r.Names) == 0 {
		d.diags.Warnf(d.span(start, start+1), "SEC-NO-NAMES", "the rule names no system call and has no effect")
	}
	if r.kind != "" && r.Action == cbpf.Notify {
		for _, n := range r.Names {
			if n.Text == "write" {
				d.errorf(int(n.at.from), int(n.at.to), "SEC-NOTIFY-WRITE", "SCMP_ACT_NOTIFY cannot be used for write: the runtime needs it to hand over the listener")
			}
		}
	}
	d.p.Rules = append(d.p.Rules, r)
}

func (d *profileDecoder) arg(r *Rule) {
	var a Arg
	hasIndex, hasOp := false, false
	if d.null() {
		d.errorf(d.pos-4, d.pos, "SEC-TYPE", "args: want an object, not null")
		return
	}
	d.skipSpace()
	start := d.pos
	ok := d.object("args entry", func(key string, from, to int) {
		switch fold(key, []string{"index", "value", "valueTwo", "op"}) {
		case "index":
			d.skipSpace()
			at := d.pos
			v, ok := d.uintValue("index", 64)
			if ok && v > 5 {
				d.errorf(at, d.pos, "SEC-INDEX", "index %d: a system call has the arguments 0 to 5", v)
			}
			a.Index, hasIndex = uint8(min(v, 255)), true
		case "value":
			if !d.null() {
				a.Value, _ = d.uintValue("value", 64)
			}
		case "valueTwo":
			if !d.null() {
				a.ValueTwo, _ = d.uintValue("valueTwo", 64)
			}
		case "op":
			s, from, to := d.stringValue("op")
			for o, n := range opNames {
				if n == s && n != "" {
					a.Op = Op(o)
				}
			}
			if hasOp = true; a.Op == 0 && !d.dead {
				d.errorf(from, to, "SEC-OP", "unknown operator %q", s)
			}
		default:
			d.diags.Warnf(d.span(from, to), "SEC-UNKNOWN-KEY", "unknown key %q; container tools ignore it", key)
			d.skip()
		}
	})
	if !ok || d.dead {
		return
	}
	a.at = extent{int32(start), int32(d.pos)}
	if !hasIndex {
		d.diags.Warnf(d.span(start, start+1), "SEC-INDEX", "the condition has no index; 0 is meant")
	}
	if !hasOp {
		d.errorf(start, start+1, "SEC-OP", "the condition has no operator")
	}
	r.Args = append(r.Args, a)
}

func (d *profileDecoder) condition(what string, c *Condition) {
	d.object(what, func(key string, from, to int) {
		list := func(into *[]string) {
			d.array(key, func() {
				s, _, _ := d.stringValue(key)
				*into = append(*into, s)
			})
		}
		switch fold(key, []string{"caps", "arches", "minKernel"}) {
		case "caps":
			list(&c.Caps)
		case "arches":
			list(&c.Arches)
		case "minKernel":
			if d.null() {
				return
			}
			s, from, to := d.stringValue("minKernel")
			if c.hasKernel = true; s == "" {
				return
			}
			v, err := minKernel(s)
			if err != nil {
				d.errorf(from, to, "SEC-KERNEL", "minKernel: %v", err)
			}
			c.MinKernel = v
		default:
			d.diags.Warnf(d.span(from, to), "SEC-UNKNOWN-KEY", "unknown key %q; container tools ignore it", key)
			d.skip()
		}
	})
}

// minKernel reads exactly "MAJOR.MINOR", as Docker does.
func minKernel(s string) (syscalls.Version, error) {
	major, minor, ok := strings.Cut(s, ".")
	bad := !ok
	for _, part := range []string{major, minor} {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			bad = true
		}
	}
	if bad {
		return 0, fmt.Errorf("want MAJOR.MINOR, not %q", s)
	}
	v, err := syscalls.ParseVersion(s)
	if err == nil && v == 0 {
		err = fmt.Errorf("the version cannot be 0.0")
	}
	return v, err
}
