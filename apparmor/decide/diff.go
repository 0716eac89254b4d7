// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

// Change is one difference between two policies.
type Change struct {
	// Profile is the name in both, or in the one that has it.
	Profile string
	// Kind is what differs: profile, mode, capabilities, rlimits, attachment,
	// file (for the owner of files), file-other, or a class: network, mount, …
	Kind string
	// Text says what, with the shortest access that shows it where there is one.
	Text string
	// Query is that access: class byte and match string.
	Query []byte
	// Gained and Lost are kernel's permission bits that the second policy
	// allows and the first does not, and the reverse, on Query.
	Gained, Lost uint32
}

// Diff lists how the decisions of b differ from those of a: for each profile
// and class, one access that b allows and a does not, and one of the reverse,
// each the shortest there is. Equal policies give nothing, however they are
// written and for whatever kernel they are encoded.
func Diff(a, b *Set) ([]Change, error) {
	var out []Change
	names := append([]string{}, a.names...)
	for _, n := range b.names {
		if _, ok := a.profiles[n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		pa, inA := a.profiles[n]
		pb, inB := b.profiles[n]
		switch {
		case !inB:
			out = append(out, Change{Profile: n, Kind: "profile", Text: "only the first policy has it"})
			continue
		case !inA:
			out = append(out, Change{Profile: n, Kind: "profile", Text: "only the second policy has it"})
			continue
		}
		c, err := DiffProfiles(pa, pb)
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", n, err)
		}
		out = append(out, c...)
	}
	return out, nil
}

// DiffProfiles is Diff for one pair of profiles, which may differ in name.
func DiffProfiles(a, b *blob.Profile) ([]Change, error) {
	name := FullName(a)
	var out []Change
	add := func(kind, format string, args ...any) {
		out = append(out, Change{Profile: name, Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
	if a.Mode != b.Mode {
		add("mode", "%s becomes %s", a.Mode, b.Mode)
	}
	if a.Flags != b.Flags || a.Audit != b.Audit || pathFlags(a) != pathFlags(b) || a.Disconnected != b.Disconnected {
		add("flags", "flags %#x audit %d path flags %#x become flags %#x audit %d path flags %#x", a.Flags, a.Audit, pathFlags(a), b.Flags, b.Audit, pathFlags(b))
	}
	for _, c := range []struct {
		what   string
		af, bf uint64
	}{{"allows", a.Caps.Allow, b.Caps.Allow}, {"logs", a.Caps.Audit, b.Caps.Audit}, {"keeps quiet about", a.Caps.Quiet, b.Caps.Quiet}} {
		if more := c.bf &^ c.af; more != 0 {
			add("capabilities", "the second %s %s", c.what, capNames(more))
		}
		if less := c.af &^ c.bf; less != 0 {
			add("capabilities", "the second no longer %s %s", c.what, capNames(less))
		}
	}
	for i := range 16 {
		x, y := limit(a, i), limit(b, i)
		if x != y {
			add("rlimits", "limit %d: %s becomes %s", i, x, y)
		}
	}
	if a.Mode == blob.Unconfined && b.Mode == blob.Unconfined {
		return out, nil
	}
	type side struct {
		kind  string
		which int
	}
	for _, s := range []side{{"file", ownerView}, {"file-other", otherView}, {"policy", policyView}} {
		va, err := viewOf(a, s.which)
		if err != nil {
			return nil, err
		}
		vb, err := viewOf(b, s.which)
		if err != nil {
			return nil, err
		}
		if s.which == policyView {
			va, vb = unmediated(a, va), unmediated(b, vb)
		}
		out = append(out, diffViews(name, s.kind, s.which, va, vb, execNames(a), execNames(b))...)
	}
	if c, err := diffAttachment(name, a, b); err != nil {
		return nil, err
	} else if c != nil {
		out = append(out, *c)
	}
	return dropOwnerTwins(out), nil
}

// dropOwnerTwins leaves out a difference for files of others that the files of
// the owner show already.
func dropOwnerTwins(in []Change) []Change {
	var out []Change
	for _, c := range in {
		if c.Kind == "file-other" && slices.ContainsFunc(in, func(o Change) bool {
			return o.Kind == "file" && string(o.Query) == string(c.Query) && o.Gained == c.Gained && o.Lost == c.Lost
		}) {
			continue
		}
		out = append(out, c)
	}
	return out
}

const defaultPathFlags = 0x10000

func pathFlags(p *blob.Profile) uint32 {
	if p.HasPathFlags {
		return p.PathFlags
	}
	return defaultPathFlags
}

func limit(p *blob.Profile, i int) string {
	if p.RlimitMask&(1<<uint(i)) == 0 || i >= len(p.Rlimits) {
		return "not set"
	}
	if p.Rlimits[i] == apparmor.RlimitInfinity {
		return "infinity"
	}
	return fmt.Sprint(p.Rlimits[i])
}

func capNames(mask uint64) string {
	var out []string
	for m := mask; m != 0; m &= m - 1 {
		n := bits.TrailingZeros64(m)
		out = append(out, nameOr(apparmor.CapabilityName(n), n))
	}
	return strings.Join(out, ", ")
}

// execNames gives exec transitions a name that means the same in both
// policies.
func execNames(p *blob.Profile) func(uint32) string {
	return func(x uint32) string {
		if x == 0 {
			return ""
		}
		return Transition(p, x)
	}
}

// diffViews finds, for each class, the shortest access gained, the shortest
// lost, and the shortest whose logging or exec transition differs.
func diffViews(profile, kind string, which int, a, b *view, xa, xb func(uint32) string) []Change {
	type key struct {
		class byte
		what  int
	}
	var out []Change
	found := map[key]bool{}
	// What only says how the kernel reads the automaton is no permission.
	const ignore = blob.ContMatch
	dfa.Product(a.d, b.d, func(la, lb uint32, in func() ([]uint16, uint32, uint32)) bool {
		pa, pb := a.perms[la], b.perms[lb]
		if pa == pb {
			if pa.Allow&blob.MayExec == 0 || which == policyView || xa(pa.XIndex) == xb(pb.XIndex) {
				return true
			}
		}
		allowA, allowB := pa.Allow&^pa.Deny&^ignore, pb.Allow&^pb.Deny&^ignore
		gained, lost := allowB&^allowA, allowA&^allowB
		if which != policyView && gained|lost == blob.MayGetattr {
			// The kernel lets every task look at a path that an automaton has.
			gained, lost = 0, 0
		}
		if which == policyView {
			gained, lost = gained&^blob.MayLock, lost&^blob.MayLock
		}
		exec := which != policyView && allowA&allowB&blob.MayExec != 0 && xa(pa.XIndex) != xb(pb.XIndex)
		logs := pa.Audit&allowA != pb.Audit&allowB && gained|lost == 0 || (pa.Quiet&^allowA) != (pb.Quiet&^allowB) && gained|lost == 0
		if gained|lost == 0 && !exec && !logs {
			return true
		}
		input, _, _ := in()
		query := make([]byte, 0, len(input)+1)
		if which != policyView {
			query = append(query, fileClass)
		}
		for _, c := range input {
			query = append(query, byte(c))
		}
		if len(query) == 0 || which == policyView && len(query) == 1 && gained|lost == mediatedMark {
			return true // the mark that a class is mediated decides by itself
		}
		class := query[0]
		k := kind
		if which == policyView {
			k = className(class)
		}
		report := func(what int, change Change) {
			if !found[key{class, what}] {
				found[key{class, what}] = true
				change.Profile, change.Kind, change.Query = profile, k, query
				out = append(out, change)
			}
		}
		words := func(p uint32) string {
			if which == policyView {
				return Describe(query, p)
			}
			return Request{query: query, perms: p}.String()
		}
		if gained != 0 {
			report(0, Change{Gained: gained, Text: "the second allows " + words(gained)})
		}
		if lost != 0 {
			report(1, Change{Lost: lost, Text: "the second no longer allows " + words(lost)})
		}
		if exec {
			report(2, Change{Text: fmt.Sprintf("exec of %s goes %s instead of %s", printable(query[1:]), xb(pb.XIndex), xa(pa.XIndex))})
		}
		if logs {
			report(3, Change{Text: "logging differs for " + words(pa.Audit|pb.Audit|pa.Quiet|pb.Quiet)})
		}
		return true
	})
	return out
}

// mediatedMark is the permission on a class state that only says that the
// class is mediated.
const mediatedMark = blob.MayRead

var classNames = map[apparmor.Class]string{
	apparmor.ClassFile: "file", apparmor.ClassNetwork: "network", apparmor.ClassMount: "mount", apparmor.ClassPtrace: "ptrace",
	apparmor.ClassSignal: "signal", apparmor.ClassNetV8: "network", apparmor.ClassNetV9: "network", apparmor.ClassLabel: "label",
	apparmor.ClassPosixMqueue: "mqueue", apparmor.ClassSysvMqueue: "mqueue", apparmor.ClassUserns: "userns", apparmor.ClassIOUring: "io_uring",
	apparmor.ClassDBus: "dbus", apparmor.ClassNetV9Skb: "network",
}

func className(c byte) string {
	if n := classNames[apparmor.Class(c)]; n != "" {
		return n
	}
	return fmt.Sprintf("class %d", c)
}

func diffAttachment(name string, a, b *blob.Profile) (*Change, error) {
	if a.XMatch == nil && b.XMatch == nil {
		return nil, nil
	}
	at := func(p *blob.Profile) (*dfa.DFA, error) {
		if p.XMatch == nil {
			return nothing, nil
		}
		return p.XMatch.Table.Unpack(func(x, _ uint32) uint32 { return x & blob.MayExec })
	}
	da, err := at(a)
	if err != nil {
		return nil, err
	}
	db, err := at(b)
	if err != nil {
		return nil, err
	}
	if d := dfa.Compare(da, db, func(x, y uint32) bool { return x == y }); d != nil {
		text := "the second attaches to "
		if d.A != 0 {
			text = "the second no longer attaches to "
		}
		return &Change{Profile: name, Kind: "attachment", Text: text + printable(d.Bytes())}, nil
	}
	return nil, nil
}
