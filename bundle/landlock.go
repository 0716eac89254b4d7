// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/landlock"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/target"
)

// Hold is one rule of a policy that Landlock can hold, and what holds it.
type Hold struct {
	// Value names the rule in the policy's words: files, network, host network,
	// block devices.
	Value string
	// Rights are Landlock's names, as its audit records spell them.
	Rights []string
	// By is the layer that holds the rule, [ByLandlock] or the reason why Landlock is
	// not needed; [ByNone] when no layer holds it.
	By string
}

// Values of [Hold.By] beside the names of other layers.
const (
	ByLandlock = "landlock"
	ByNone     = "nothing"
)

// demand is a rule that Landlock can hold.
type demand struct {
	value string
	want  landlock.Ruleset
	// by is the other layer that holds the rule, empty for none.
	by string
	// hard makes it an error when nothing holds the rule: the policy or the
	// request asks for it. Otherwise it is a gain where it can be had.
	hard bool
	// held are rights, of those of want, that another layer holds when the ABI lacks them.
	held map[string]string
	// soft are rights, of those of want, that no value of the policy asks for.
	soft landlock.AccessFS
}

// Rights that the lists of [policy.Files] give below a path.
const (
	readRights    = landlock.ReadFile | landlock.ReadDir
	executeRights = landlock.Execute | landlock.ReadFile
	writeRights   = readRights | landlock.WriteFile | landlock.Truncate | landlock.RemoveDir | landlock.RemoveFile |
		landlock.MakeDir | landlock.MakeReg | landlock.MakeSock | landlock.MakeFifo | landlock.MakeSym |
		landlock.Refer | landlock.IoctlDev | landlock.ResolveUnix
)

// demands lists what Landlock can hold of p for the container r, with the layer that
// holds it already.
func demands(p policy.Policy, r Request) ([]demand, error) {
	var out []demand
	files, err := fileDemand(p, r)
	if err != nil {
		return nil, err
	}
	if files != nil {
		out = append(out, *files)
	} else {
		d := demand{value: "block devices", hard: true, want: landlock.Ruleset{
			HandledFS: landlock.MakeBlock | landlock.Refer,
			Paths:     []landlock.PathRule{{Access: landlock.Refer, Path: "/"}},
		}}
		switch {
		case r.BlockDevices:
			d.by = "the device control group"
		case !p.Capabilities.Has(caps.Mknod):
			d.by = "no CAP_MKNOD"
		}
		out = append(out, d)
	}
	network, err := networkDemand(p)
	if err != nil {
		return nil, err
	}
	if network != nil {
		out = append(out, *network)
	}
	// Abstract sockets belong to the network namespace. A container that shares the
	// host's reaches the host's (CVE-2020-15257).
	d := demand{value: "host network", want: landlock.Ruleset{Scoped: landlock.AbstractUnixSocket}, hard: p.Network != nil}
	switch {
	case !r.HostNetwork:
		d.by = "the network namespace"
	case p.Network != nil && p.Syscalls.Base != policy.SyscallsNone && !slices.Contains(p.Network.Families, "unix"):
		d.by = "the system call filter"
	}
	out = append(out, d)
	return out, nil
}

// fileDemand is nil for a policy without rules on files: ownership and modes alone decide.
func fileDemand(p policy.Policy, r Request) (*demand, error) {
	if p.Files == nil {
		return nil, nil
	}
	d := &demand{
		value: "files", hard: true, want: landlock.Ruleset{HandledFS: landlock.AllFS},
		// The lists speak of reading, writing and executing.
		soft: landlock.IoctlDev | landlock.ResolveUnix,
	}
	if p.ReadOnlyRoot {
		// What can be truncated lies on a volume that may be written to.
		d.held = map[string]string{"fs.truncate": "the read-only root"}
	}
	for _, list := range []struct {
		name     string
		patterns []string
		access   landlock.AccessFS
	}{
		{"read", p.Files.Read, readRights},
		{"execute", p.Files.Execute, executeRights},
		{"write", p.Files.Write, writeRights},
		{"writable volume", r.Writable, writeRights},
	} {
		for _, pattern := range list.patterns {
			below, err := tree(pattern)
			if err != nil {
				return nil, fmt.Errorf("files: %s %q: %w", list.name, pattern, err)
			}
			d.want.Paths = append(d.want.Paths, landlock.PathRule{Access: list.access, Path: below})
		}
	}
	for _, pattern := range p.Files.Append {
		// Where writing is allowed, so is appending.
		below, err := tree(pattern)
		if err != nil {
			return nil, fmt.Errorf("files: append %q: %w", pattern, err)
		}
		if !slices.ContainsFunc(d.want.Paths, func(r landlock.PathRule) bool { return r.Access == writeRights && lies(below, r.Path) }) {
			return nil, fmt.Errorf("files: append %q: no layer tells appending from writing: %w", pattern, ErrMissing)
		}
	}
	for _, pattern := range p.Files.Deny {
		fixed, err := fixedPart(pattern)
		if err != nil {
			return nil, fmt.Errorf("files: deny %q: %w", pattern, err)
		}
		for _, r := range d.want.Paths {
			if lies(fixed, r.Path) || lies(r.Path, fixed) {
				return nil, fmt.Errorf("files: deny %q: Landlock cannot take away what %q allows: %w", pattern, r.Path, ErrMissing)
			}
		}
	}
	return d, nil
}

// tree is the folder below which a pattern allows. Landlock knows whole trees and
// single files; a pattern that says anything else is an error that wraps [ErrMissing].
func tree(pattern string) (string, error) {
	below, ok := strings.CutSuffix(pattern, "/**")
	switch {
	case ok && below == "":
		below = "/"
	case ok && below == "/":
		below = pattern // "//**": not clean
	}
	fixed, err := fixedPart(below)
	if err != nil {
		return "", err
	}
	if fixed != below {
		return "", fmt.Errorf("Landlock knows whole trees only (a path, or a path and /**): %w", ErrMissing)
	}
	return below, nil
}

// fixedPart is the path of a pattern up to its first variable element.
func fixedPart(pattern string) (string, error) {
	fixed := pattern
	if i := strings.IndexAny(pattern, "*?[]{}"); i >= 0 {
		fixed = pattern[:strings.LastIndexByte(pattern[:i], '/')+1]
		if fixed != "/" {
			fixed = strings.TrimSuffix(fixed, "/")
		}
	}
	if !strings.HasPrefix(fixed, "/") || path.Clean(fixed) != fixed || strings.ContainsRune(pattern, 0) || len(pattern) > 4095 {
		return "", fmt.Errorf("want an absolute path without . and .. elements: %w", ErrMissing)
	}
	return fixed, nil
}

// lies reports whether a path is below another, or is the same.
func lies(p, below string) bool {
	return p == below || below == "/" || strings.HasPrefix(p, below+"/")
}

// networkDemand is nil where every endpoint is allowed, or no socket that has one can be made.
func networkDemand(p policy.Policy) (*demand, error) {
	n, err := endpoints(p.Network)
	if err != nil {
		return nil, err
	}
	if n.free() {
		return nil, nil
	}
	d := &demand{value: "network", hard: true}
	for _, side := range []struct {
		ports    ports
		tcp, udp landlock.AccessNet
	}{
		{n.listen, landlock.BindTCP, landlock.BindUDP},
		{n.connect, landlock.ConnectTCP, landlock.ConnectSendUDP},
	} {
		for _, proto := range []struct {
			right landlock.AccessNet
			any   bool
			ports []uint16
		}{{side.tcp, side.ports.anyTCP, side.ports.tcp}, {side.udp, side.ports.anyUDP, side.ports.udp}} {
			if proto.any || !n.udp() && proto.right == side.udp {
				continue // free, or no UDP socket can be made
			}
			d.want.HandledNet |= proto.right
			for _, port := range proto.ports {
				d.want.Ports = append(d.want.Ports, landlock.PortRule{Access: proto.right, Port: port})
			}
		}
	}
	if d.want.HandledNet&landlock.BindUDP != 0 && n.connect.hasUDP() {
		// Who sends first is bound to a port that the kernel chooses.
		d.want.Ports = append(d.want.Ports, landlock.PortRule{Access: landlock.BindUDP, Port: 0})
	}
	if d.want.HandledNet == 0 {
		return nil, nil
	}
	if !slices.Contains(p.Network.Families, "inet") && !slices.Contains(p.Network.Families, "inet6") {
		d.by = "the system call filter"
	}
	return d, nil
}

// landlockFor is the domain of p on a kernel, and what holds each rule that a domain could
// hold. The rule set is nil when no domain is needed. The error wraps [ErrMissing] and
// names the rule that nothing holds.
func landlockFor(t target.Target, p policy.Policy, r Request) (*landlock.Ruleset, []Hold, error) {
	list, err := demands(p, r)
	if err != nil {
		return nil, nil, err
	}
	abi := min(t.Landlock.ABI, landlock.MaxABI)
	if t.Landlock.State != target.Enforcing {
		abi = 0
	}
	why := fmt.Sprintf("the host has Landlock ABI %d", abi)
	switch {
	case abi == 0:
		why = "the host has no Landlock"
	case r.Init == "":
		why = "there is no last step to enter a domain"
	case p.Process.NewPrivileges:
		why = "a domain excludes new privileges"
	}
	usable := abi
	if r.Init == "" || p.Process.NewPrivileges {
		usable = 0
	}
	var out landlock.Ruleset
	var holds []Hold
	for _, d := range list {
		rights := slices.Concat(d.want.HandledFS.Names(), d.want.HandledNet.Names(), d.want.Scoped.Names())
		if d.by != "" {
			holds = append(holds, Hold{d.value, rights, d.by})
			continue
		}
		got, lost := d.want.Degrade(usable)
		var missing, open []string
		for _, l := range lost {
			right, ok := landlock.LookupRight(l.Right)
			switch {
			case !ok:
			case d.held[l.Right] != "":
				holds = append(holds, Hold{d.value, []string{l.Right}, d.held[l.Right]})
			case right.Kind == landlock.KindFS && landlock.AccessFS(right.Bit)&d.soft != 0 || !d.hard:
				open = append(open, l.Right)
			default:
				missing = append(missing, fmt.Sprintf("%s (ABI %d)", l.Right, l.ABI))
			}
		}
		if len(missing) > 0 {
			return nil, nil, fmt.Errorf("%s: Landlock alone holds %s, and %s: %w", d.value, strings.Join(missing, ", "), why, ErrMissing)
		}
		if len(open) > 0 {
			holds = append(holds, Hold{d.value, open, ByNone})
		}
		if rights = slices.Concat(got.HandledFS.Names(), got.HandledNet.Names(), got.Scoped.Names()); len(rights) > 0 {
			holds = append(holds, Hold{d.value, rights, ByLandlock})
		}
		out.HandledFS |= got.HandledFS
		out.HandledNet |= got.HandledNet
		out.Scoped |= got.Scoped
		out.Paths = append(out.Paths, got.Paths...)
		out.Ports = append(out.Ports, got.Ports...)
	}
	if out.Empty() {
		return nil, holds, nil
	}
	if out.HandledFS != 0 && p.Process.Ptrace == "none" {
		// There is a domain anyway, and the policy wants processes apart from each other.
		out.Scoped |= landlock.Signal & landlock.ScopeAt(usable)
	}
	if err := out.ValidateFor(usable); err != nil {
		return nil, nil, fmt.Errorf("landlock: %w: %w", err, ErrMissing)
	}
	return &out, holds, nil
}

// BlockDevicesDenied reports whether the rules on devices in a container's configuration deny
// every block device: for [Request.BlockDevices]. The rules hold in their order, and
// before the first nothing counts as denied.
//
// Source: OCI runtime specification, config-linux.md, "Allowed Device list".
func BlockDevicesDenied(l *specs.Linux) bool {
	if l == nil || l.Resources == nil {
		return false
	}
	denied := false
	for _, d := range l.Resources.Devices {
		all := d.Type == "" || d.Type == "a"
		if !all && d.Type != "b" {
			continue
		}
		wild := (d.Major == nil || *d.Major < 0) && (d.Minor == nil || *d.Minor < 0)
		switch {
		case d.Allow && d.Access != "":
			denied = false
		case !d.Allow && wild && strings.Contains(d.Access, "r") && strings.Contains(d.Access, "w") && strings.Contains(d.Access, "m"):
			denied = true
		}
	}
	return denied
}
