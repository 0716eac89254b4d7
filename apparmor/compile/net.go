// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/dfa"
)

const (
	afUnix  = 1
	afInet  = 2
	afInet6 = 10
	afMax   = 46 // families that net_allowed_af and AppArmor 3 know

	allTypes = 0x43e // stream, dgram, raw, rdm, seqpacket, packet
)

// netMasks are sets of socket types for each family, as AppArmor 3 keeps them
// and as kernels without socket rules in the policydb take them.
type netMasks struct {
	used                      bool
	allow, audit, deny, quiet [afMax]uint32
}

func (b *build) addMask(r *apparmor.ResolvedRule, family int, mask uint32) {
	n := &b.net
	n.used = true
	if family < 0 || family >= afMax {
		return
	}
	if r.Mode == apparmor.ModeDeny {
		n.deny[family] |= mask
		// In these tables, and only here, AppArmor 4 has it the wrong way round.
		if (r.Audit == apparmor.AuditQuiet) == (b.s.level == Level3) {
			n.quiet[family] |= mask
		}
		return
	}
	n.allow[family] |= mask
	if r.Audit == apparmor.AuditForce {
		n.audit[family] |= mask
	}
}

// mapNet packs socket permissions. Source: parser/network.h, map_perms.
func mapNet(p uint32) uint32 {
	return p&0x7f | p&(apparmor.NetGetattr|apparmor.NetSetattr)<<(otherShift-8) |
		p&(apparmor.NetAccept|apparmor.NetBind|apparmor.NetListen)>>4 | p&(apparmor.NetSetopt|apparmor.NetGetopt)>>5
}

const (
	netOpt      = apparmor.NetSetopt | apparmor.NetGetopt
	netLocal    = apparmor.NetCreate | apparmor.NetShutdown | apparmor.NetSetattr | apparmor.NetGetattr | apparmor.NetBind | apparmor.NetAccept | apparmor.NetListen | netOpt
	netLocalCmd = apparmor.NetListen | netOpt
	netPeer     = apparmor.NetAll&^netLocal | apparmor.NetAccept
)

// Commands of the socket expressions. Source: parser/network.h, CMD_*.
const (
	cmdAddr   = 1
	cmdListen = 2
	cmdOpt    = 4
)

func (b *build) network(r *apparmor.ResolvedRule, body *apparmor.NetworkBody) error {
	for _, m := range body.Matches {
		b.addMask(r, int(m.Family), m.Types)
	}
	if b.s.level == Level3 {
		if !b.s.netV8 && !b.s.network {
			b.unsupported(r, "network")
		}
		return nil
	}
	if !b.s.netV8 && !b.s.netV9 {
		if !b.s.network {
			b.unsupported(r, "network")
		}
		return nil
	}
	type what struct{ types, protocol uint32 }
	families := map[uint16]what{}
	var order []uint16
	for _, m := range body.Matches {
		w, ok := families[m.Family]
		if !ok {
			order = append(order, m.Family)
		}
		w.types |= m.Types
		w.protocol |= m.Protocol
		families[m.Family] = w
	}
	slices.Sort(order)
	class := apparmor.ClassNetV8
	if b.s.netV9 {
		class = apparmor.ClassNetV9
	}
	for _, f := range order {
		w := families[f]
		conditional := body.Local.Interface != "" || body.Peer.Interface != ""
		if !(b.s.skb && r.Mode == apparmor.ModeDeny && conditional) {
			if err := b.sockets(r, body, class, f, w.types, w.protocol, false); err != nil {
				return err
			}
		}
		if b.s.skb {
			if err := b.sockets(r, body, apparmor.ClassNetV9Skb, f, w.types, w.protocol, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// typesText matches the socket types of a mask.
func typesText(mask uint32) string {
	if mask > 0xffff || mask == allTypes {
		return ".."
	}
	var alts []string
	for t := range 16 {
		if mask&(1<<t) != 0 {
			alts = append(alts, be16Text(t))
		}
	}
	if len(alts) == 1 {
		return alts[0]
	}
	return "(" + strings.Join(alts, "|") + ")"
}

// sockets writes the expressions of one family.
// Source: parser/network.cc, gen_net_rule.
func (b *build) sockets(r *apparmor.ResolvedRule, body *apparmor.NetworkBody, class apparmor.Class, family uint16, types, protocol uint32, skb bool) error {
	text := classText(class) + be16Text(int(family)) + typesText(types)
	perms := body.Perms
	all := mapNet(perms)
	if !skb && (!b.s.inet || family != afInet && family != afInet6) {
		return b.addPolicy(r, all, auditOf(r, all), text)
	}
	more := func(text string) error {
		return b.policy.add(r, grant{priority: r.Priority, perms: contMatch, audit: 0}, text)
	}
	if err := more(text); err != nil {
		return err
	}
	if c := mapNet(perms & apparmor.NetCreate); !skb && c != 0 {
		if err := b.addPolicy(r, c|contMatch, auditOf(r, c), text); err != nil {
			return err
		}
	}
	if protocol > 0xffff {
		text += ".."
	} else {
		text += be16Text(int(protocol))
	}
	iface := skb && b.s.iface
	if perms&netPeer != 0 {
		peers, err := b.inetConds(r, body, []string{text}, body.Peer, true, false, iface)
		if err != nil {
			return err
		}
		for i := range peers {
			peers[i] += byteText(cmdAddr)
		}
		if _, err := b.inetConds(r, body, peers, body.Local, false, true, iface); err != nil {
			return err
		}
	}
	if skb {
		return nil
	}
	locals, err := b.inetConds(r, body, []string{text}, body.Local, false, false, false)
	if err != nil {
		return err
	}
	for _, t := range locals {
		if perms&apparmor.NetListen != 0 {
			if err := b.addPolicy(r, all, auditOf(r, all), t+byteText(cmdListen)+".."); err != nil {
				return err
			}
		}
		if perms&netOpt != 0 {
			if err := b.addPolicy(r, all, auditOf(r, all), t+byteText(cmdOpt)+"...."); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sizes of addresses and kinds of ports in the expressions.
const (
	ipNone, ip4, ip6                   = 0, 1, 2
	portUnprivileged, portPriv, portTo = 0, 1, 2
	privilegedPorts                    = 1024
)

func rangeText(from, to int) string {
	if from == 0 && to == 255 {
		return "."
	}
	return "[" + byteText(from) + "-" + byteText(to) + "]"
}

// portsText matches two bytes between from and to.
func portsText(from, to int) string {
	switch {
	case from == to && from == 0:
		return ".."
	case from == to:
		return be16Text(from)
	case from>>8 == to>>8:
		return byteText(from>>8) + rangeText(from&0xff, to&0xff)
	}
	t := "(" + byteText(from>>8) + rangeText(from&0xff, 0xff) + "|"
	if to>>8-from>>8 > 1 {
		t += rangeText(from>>8+1, to>>8-1) + ".|"
	}
	return t + byteText(to>>8) + rangeText(0, to&0xff) + ")"
}

func portText(c apparmor.InetCond, isPeer, bind bool) string {
	from, to := int(c.From), int(c.To)
	switch {
	case isPeer:
		return byteText(portTo) + portsText(from, to)
	case bind && from < privilegedPorts && to >= privilegedPorts:
		return "(" + byteText(portUnprivileged) + portsText(privilegedPorts, to) + "|" +
			byteText(portPriv) + portsText(from, privilegedPorts-1) + ")"
	case bind && from < privilegedPorts:
		return byteText(portPriv) + portsText(from, to)
	}
	return byteText(portUnprivileged) + portsText(from, to)
}

// inetConds appends the conditions of one end to each text, adds what the
// kernel looks up on the way, and returns the longer texts.
// Source: parser/network.cc, gen_ip_conds.
func (b *build) inetConds(r *apparmor.ResolvedRule, body *apparmor.NetworkBody, texts []string, c apparmor.InetCond, isPeer, isCmd, iface bool) ([]string, error) {
	port := "..."
	if c.HasPort && !c.IPNone {
		port = portText(c, isPeer, body.Perms&apparmor.NetBind != 0)
	}
	var addrs []string
	switch {
	case len(c.IP) == 4, len(c.IP) == 16:
		t := byteText(ip4)
		if len(c.IP) == 16 {
			t = byteText(ip6)
		}
		for _, v := range c.IP {
			t += byteText(int(v))
		}
		addrs = []string{t}
	case c.IPNone:
		addrs = []string{byteText(ipNone)}
	default:
		addrs = []string{byteText(ipNone), byteText(ip4) + "....", byteText(ip6) + strings.Repeat(".", 16)}
	}
	all := mapNet(body.Perms)
	audit := auditOf(r, all)
	final := grant{mode: r.Mode, priority: r.Priority, perms: all, audit: audit}
	onTheWay := grant{priority: r.Priority, perms: contMatch, audit: audit}
	cond := final
	if !isCmd && (c.Label != "" || isPeer) || iface {
		cond = onTheWay
	}
	var out []string
	for _, t := range texts {
		for _, a := range addrs {
			t := t + port + a + `\x00`
			if err := b.policy.add(r, cond, t); err != nil {
				return nil, err
			}
			send := body.Perms&apparmor.NetSend != 0
			if iface {
				name, err := opt("", apparmor.Opt{Value: c.Interface, Set: c.Interface != ""}, anyText)
				if err != nil {
					return nil, err
				}
				name += `\x00`
				if send {
					name = `(\x00|` + name + ")"
				}
				t += name
				g := cond
				if c.Label == "" && !isPeer {
					g = final
				}
				if send {
					g.perms |= changeBit // the permission to set the label
				}
				if err := b.policy.add(r, g, t); err != nil {
					return nil, err
				}
			}
			if c.Label != "" || isPeer {
				l, err := opt("", apparmor.Opt{Value: c.Label, Set: c.Label != ""}, anyText)
				if err != nil {
					return nil, err
				}
				t += l
				if iface && c.Label == "" {
					if err := b.policy.add(r, final, t); err != nil {
						return nil, err
					}
				}
				t += `\x00`
				g := cond
				if !isPeer {
					g = final
				}
				if err := b.policy.add(r, g, t); err != nil {
					return nil, err
				}
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// networkTotals writes what AppArmor 3 writes at the end: for each family the
// types that any rule named. Families with equal types share an expression.
func (b *build) networkTotals() {
	if b.s.level != Level3 || !b.s.netV8 || !b.net.used {
		return
	}
	type group struct {
		mode  apparmor.Mode
		types uint32 // AnyType: every value
		audit bool
		rules string
	}
	families := map[group]*dfa.Set{}
	rules := map[string][]*apparmor.ResolvedRule{}
	var order []group
	for f := range afMax {
		for _, t := range []struct {
			mode          apparmor.Mode
			types, audits uint32
		}{{apparmor.ModeAllow, b.net.allow[f], b.net.audit[f]}, {apparmor.ModeDeny, b.net.deny[f], b.net.quiet[f]}} {
			if t.types == 0 {
				continue
			}
			list := b.networkRules(f, t.mode)
			key := ""
			for _, r := range list {
				key += fmt.Sprint(r.ID, " ")
			}
			rules[key] = list
			put := func(types uint32, audit bool) {
				if types == 0 {
					return
				}
				g := group{t.mode, types, audit, key}
				if families[g] == nil {
					families[g] = &dfa.Set{}
					order = append(order, g)
				}
				families[g].Add(byte(f))
			}
			if t.types > 0xffff && t.audits > 0xffff {
				put(apparmor.AnyType, true)
				continue
			}
			put(t.types&t.audits&0xffff, true)
			put(t.types&^t.audits&0xffff, false)
		}
	}
	perms := mapNet(apparmor.NetAll)
	for _, g := range order {
		types := ".."
		if g.types != apparmor.AnyType {
			var set dfa.Set
			for t := range 16 {
				if g.types&(1<<t) != 0 {
					set.Add(byte(t))
				}
			}
			types = `\x00` + setText(set)
		}
		text := classText(apparmor.ClassNetV8) + `\x00` + setText(*families[g]) + types
		what := grant{mode: g.mode, perms: perms}
		if g.audit {
			what.audit = perms
		}
		for _, r := range rules[g.rules] {
			if err := b.policy.add(r, what, text); err != nil {
				b.errorf(r.Span, "AA-RULE", "%s", err)
			}
		}
	}
}

// setText matches one byte of a set.
func setText(s dfa.Set) string {
	var t strings.Builder
	t.WriteByte('[')
	for c := range 256 {
		if s.Has(byte(c)) {
			t.WriteString(byteText(c))
		}
	}
	t.WriteByte(']')
	return t.String()
}

// networkRules lists the rules that named a family, for explanations.
func (b *build) networkRules(family int, mode apparmor.Mode) []*apparmor.ResolvedRule {
	var out []*apparmor.ResolvedRule
	for _, r := range b.rp.Rules {
		if (r.Mode == apparmor.ModeDeny) != (mode == apparmor.ModeDeny) {
			continue
		}
		switch body := r.Body.(type) {
		case *apparmor.NetworkBody:
			for _, m := range body.Matches {
				if int(m.Family) == family {
					out = append(out, r)
					break
				}
			}
		case *apparmor.UnixBody:
			if family == afUnix && r.Mode != apparmor.ModeDeny {
				out = append(out, r)
			}
		}
	}
	return out
}

// netAF gives the masks for kernels that take them beside the policydb.
func (b *build) netAF() [][3]uint16 {
	if b.s.netV8 || b.s.netV9 || !b.s.network || !b.net.used {
		return nil
	}
	out := make([][3]uint16, afMax)
	for f := range out {
		allow := b.net.allow[f] &^ b.net.deny[f]
		out[f] = [3]uint16{uint16(allow), uint16(allow & b.net.audit[f]), uint16(b.net.deny[f] & b.net.quiet[f])}
	}
	return out
}

// unix: class, family, type, protocol; then the local address and label, a
// command, and the peer's address and label, for what each permission needs.
// Source: parser/af_unix.cc, gen_policy_re.
func (b *build) unix(r *apparmor.ResolvedRule, body *apparmor.UnixBody) error {
	if err := b.unixAsNetwork(r, body); err != nil {
		return err
	}
	if !b.s.unix {
		if !b.s.network && !b.s.netV8 && !b.s.netV9 {
			b.unsupported(r, "unix")
		}
		return nil
	}
	class := apparmor.ClassNetwork
	switch {
	case b.s.netV9:
		class = apparmor.ClassNetV9
	case b.s.netV8:
		class = apparmor.ClassNetV8
	}
	text := classText(class) + be16Text(afUnix)
	if body.Type >= 0 {
		text += be16Text(body.Type)
	} else {
		text += ".."
	}
	text += ".."
	hasPeer := body.PeerAddr.Set || body.PeerLabel.Set
	mask := body.Perms
	add := func(perms uint32, text string) error {
		return b.addPolicy(r, mapNet(perms), auditOf(r, mapNet(perms)), text)
	}
	if mask&apparmor.NetCreate != 0 && !hasPeer {
		if err := add(apparmor.NetCreate, text); err != nil {
			return err
		}
		mask &^= apparmor.NetCreate
	}
	label, err := opt("", body.Label, anyText)
	if err != nil {
		return err
	}
	if mask&apparmor.NetBind != 0 && (!body.Addr.Set || body.Addr.Value == "auto") {
		if err := add(apparmor.NetBind, text+`\x00`+label+`\x00`); err != nil {
			return err
		}
		if body.Addr.Set {
			mask &^= apparmor.NetBind
		}
	}
	if mask == 0 {
		return nil
	}
	addr, err := unixAddr(body.Addr)
	if err != nil {
		return err
	}
	text += addr + label + `\x00`
	local := uint32(netLocal &^ netLocalCmd)
	if hasPeer {
		local = apparmor.NetAccept
	}
	if p := mask & local; p != 0 {
		audit := p
		if b.s.level == Level3 {
			audit = body.Perms & local
		}
		if err := b.addPolicy(r, mapNet(p), auditOf(r, mapNet(audit)), text); err != nil {
			return err
		}
	}
	if mask&apparmor.NetListen != 0 && !hasPeer {
		if err := add(apparmor.NetListen, text+byteText(cmdListen)+".."); err != nil {
			return err
		}
	}
	if p := mask & netOpt; p != 0 && !hasPeer {
		if err := add(p, text+byteText(cmdOpt)+".."); err != nil {
			return err
		}
	}
	if mask&netPeer == 0 {
		return nil
	}
	if addr, err = unixAddr(body.PeerAddr); err != nil {
		return err
	}
	if label, err = opt("", body.PeerLabel, anyText); err != nil {
		return err
	}
	perms := mapNet(body.Perms & netPeer)
	audit := perms
	if b.s.level == Level3 {
		audit = mapNet(body.Perms)
	}
	return b.addPolicy(r, perms, auditOf(r, audit), text+byteText(cmdAddr)+addr+label)
}

// unixAddr matches an address and its end.
func unixAddr(o apparmor.Opt) (string, error) {
	switch {
	case !o.Set:
		return `.*\x00`, nil
	case o.Value == "none":
		return `\x01\x00`, nil
	case o.Value == "auto":
		return `\x00[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]\x00`, nil
	}
	g, err := dfa.ConvertGlob("", strings.TrimPrefix(dfa.FilterSlashes(o.Value), "@"), true)
	if err != nil {
		return "", fmt.Errorf("unix address %q: %w", o.Value, err)
	}
	return `\x00` + g.Regex + `\x00`, nil
}

// unixAsNetwork also grants unix sockets to kernels that know only families
// and types.
func (b *build) unixAsNetwork(r *apparmor.ResolvedRule, body *apparmor.UnixBody) error {
	if r.Mode == apparmor.ModeDeny {
		b.net.used = true
		return nil // would take away more than the rule says
	}
	types := apparmor.AnyType
	if body.Type >= 0 {
		types = 1 << uint(body.Type)
	}
	b.addMask(r, afUnix, types)
	if b.s.level == Level3 || body.FromNetworkRule || !b.s.netV8 && !b.s.netV9 {
		return nil
	}
	class := apparmor.ClassNetV8
	if b.s.netV9 {
		class = apparmor.ClassNetV9
	}
	all := mapNet(body.Perms)
	return b.policy.add(r, grant{mode: r.Mode, perms: all, audit: auditOf(r, all)},
		classText(class)+be16Text(afUnix)+typesText(types))
}
