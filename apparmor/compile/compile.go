// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/diag"
)

// Level is a generation of the language's meaning.
type Level uint8

// The levels. LevelAuto is Level3 for kernels that only AppArmor 3 knows, else
// Level4: each kernel gets what the compiler of its distribution makes.
const (
	LevelAuto Level = iota
	Level3          // AppArmor 3.0: as Debian 12 compiles
	Level4          // AppArmor 4.0 and later
)

// Format is an encoding of permissions.
type Format uint8

// The formats. FormatAuto is the newest that the kernel can read.
const (
	FormatAuto Format = iota
	FormatV7          // packed accept tables: every kernel
	FormatPermstable
)

// Options say for what to compile.
type Options struct {
	// Kernel are the features of the kernel; nil means all that exist.
	Kernel *apparmor.Features
	Level  Level
	Format Format
	Limits dfa.Limits
	// Complain asks the kernel to load every profile in complain mode.
	Complain bool
}

// support is what policy and kernel both have.
type support struct {
	netV8, netV9, inet, network bool
	skb, iface                  bool
	unix, unixV7, unixV9        bool
	mount, dbus, signal, ptrace bool
	stack, xattr, userns        bool
	posixMqueue, sysvMqueue     bool
	ioURing                     bool
	flagSignal, flagError       bool
	flagIPC, identity           bool
	interruptible               bool
	abi                         uint32
	oob, diffEncode, state32    bool
	permstable                  bool
	level                       Level
}

func supported(policy *apparmor.Features, o Options) support {
	k := o.Kernel
	both := func(path string) bool { return apparmor.BothHave(policy, k, path) }
	kernel := func(path string) bool { return k == nil || k.Has(path) }
	s := support{
		network: both("network"), netV8: both("network_v8"), netV9: both("network_v9"),
		unixV7: both("network/af_unix"), mount: both("mount"), dbus: both("dbus"), signal: both("signal"),
		ptrace: both("ptrace"), stack: both("domain/stack"), xattr: both("domain/attach_conditions/xattr"),
		userns: both("namespaces/mask/userns_create"), posixMqueue: both("ipc/posix_mqueue"),
		sysvMqueue: both("ipc/sysv_mqueue"), ioURing: both("io_uring"),
		flagSignal: both("policy/profile/kill.signal") || both("domain/kill.signal"), flagError: both("policy/profile/error"),
		interruptible: both("policy/profile/interruptible"),
		flagIPC:       both("domain/disconnected.ipc"), identity: both("domain/identity"),
		oob: kernel("policy/outofband"), diffEncode: kernel("policy/diff-encode"), state32: kernel("policy/state32"),
		abi: 5,
	}
	s.unixV9 = both("network_v9/af_unix")
	s.unix = s.unixV7 || s.unixV9
	s.inet = both("network_v8/af_inet") || both("network_v9/af_inet")
	s.skb, s.iface = both("network_v9_skb"), both("network_v9_skb/iface")
	switch {
	case kernel("policy/versions/v7"):
		s.abi = 7
	case kernel("policy/versions/v6"):
		s.abi = 6
	}
	permstable := kernel("policy/permstable32_version/0x000003") || kernel("policy/permstable32_version/0x000002")
	s.level = o.Level
	if s.level == LevelAuto {
		s.level = autoLevel(k)
	}
	switch o.Format {
	case FormatPermstable:
		s.permstable = true
	case FormatAuto:
		s.permstable = permstable && s.level != Level3
	}
	if s.level == Level3 {
		// That compiler knew none of these.
		s.netV9, s.inet, s.skb, s.iface, s.userns, s.posixMqueue, s.sysvMqueue, s.ioURing = false, false, false, false, false, false, false, false
		s.unix, s.unixV9 = s.unixV7, false
	}
	return s
}

// newer are features that only kernels after AppArmor 3's time have.
var newer = []string{
	"network_v9", "policy/permstable32", "policy/permstable32_version", "namespaces/mask/userns_create", "io_uring",
	"ipc/posix_mqueue", "domain/disconnected.path", "mount/move_mount", "policy/state32",
}

func autoLevel(k *apparmor.Features) Level {
	if k == nil {
		return Level4
	}
	for _, f := range newer {
		if k.Has(f) {
			return Level4
		}
	}
	return Level3
}

// Compiler compiles policies for one target. Expressions and automata of rules
// that several profiles share are built once. Not safe for concurrent use.
type Compiler struct {
	opts  Options
	arena *dfa.Arena
	exprs map[string]cachedExpr
}

type cachedExpr struct {
	expr  dfa.Expr
	exact bool
}

// New returns a compiler.
func New(o Options) *Compiler {
	c := &Compiler{opts: o}
	c.reset()
	return c
}

func (c *Compiler) reset() {
	c.arena, c.exprs = dfa.NewArena(), make(map[string]cachedExpr)
}

// maxShared bounds how many expressions are kept for later profiles.
const maxShared = 1 << 19

// Profile is one compiled profile.
type Profile struct {
	Resolved *apparmor.ResolvedProfile
	Blob     *blob.Profile
	support  support
	file     *rules
	policy   *rules
	xmatch   *rules
}

// Policy is a compiled policy.
type Policy struct {
	Profiles []*Profile
}

// Blobs are the profiles in the order of the policy.
func (p *Policy) Blobs() []*blob.Profile {
	out := make([]*blob.Profile, len(p.Profiles))
	for i, c := range p.Profiles {
		out[i] = c.Blob
	}
	return out
}

// Encode writes the policy as one stream.
func (p *Policy) Encode() ([]byte, error) { return blob.Encode(p.Blobs()...) }

// Compile compiles every profile of p. The list holds all errors, and warnings
// about rules that the target does not enforce; the policy is nil when one of
// them is an error.
func (c *Compiler) Compile(p *apparmor.Policy) (*Policy, diag.List) {
	var list diag.List
	s := supported(p.ABI, c.opts)
	out := &Policy{}
	for _, rp := range p.Profiles {
		if prof := c.profile(rp, s, &list); prof != nil {
			out.Profiles = append(out.Profiles, prof)
		}
	}
	if list.Err() != nil {
		return nil, list
	}
	return out, list
}
