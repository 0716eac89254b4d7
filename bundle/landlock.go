// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/policy"
)

// Access rights of Landlock.
//
// Source: include/uapi/linux/landlock.h.
const (
	llExecute = 1 << iota
	llWriteFile
	llReadFile
	llReadDir
	llRemoveDir
	llRemoveFile
	llMakeChar
	llMakeDir
	llMakeReg
	llMakeSock
	llMakeFifo
	llMakeBlock
	llMakeSym
	llRefer
	llTruncate
	llIoctlDev

	llBindTCP    = 1 << 0
	llConnectTCP = 1 << 1

	llScopeAbstractUnix = 1 << 0
	llScopeSignal       = 1 << 1
)

const (
	llRead  = llReadFile | llReadDir
	llWrite = llRead | llWriteFile | llRemoveDir | llRemoveFile | llMakeDir | llMakeReg |
		llMakeSock | llMakeFifo | llMakeSym | llRefer | llTruncate | llIoctlDev
)

// landlockABI tells which rights a version of the interface knows.
func landlockRights(abi int) (fs, net, scope uint64) {
	if abi >= 1 {
		fs = llMakeSym<<1 - 1
	}
	if abi >= 2 {
		fs |= llRefer
	}
	if abi >= 3 {
		fs |= llTruncate
	}
	if abi >= 4 {
		net = llBindTCP | llConnectTCP
	}
	if abi >= 5 {
		fs |= llIoctlDev
	}
	if abi >= 6 {
		scope = llScopeAbstractUnix | llScopeSignal
	}
	return fs, net, scope
}

// landlock is the domain that p comes to on a kernel with the given ABI, and what
// of it that ABI lacks. It is nil when the kernel has nothing to give.
//
// Every domain denies block device nodes and, by its nature, changes to the mount
// tree and ptrace of what is outside of it. Rights to files are denied where the
// policy has rules on files, TCP where it has rules on the network.
func landlock(p policy.Policy, abi int, hostNetwork bool, writable []string) (*Landlock, []string, error) {
	want := Landlock{HandledFS: llMakeBlock | llRefer}
	rules := []PathRule{{Access: llRefer, Path: "/"}}
	if hostNetwork {
		// The abstract sockets of the host belong to its network namespace.
		want.Scoped |= llScopeAbstractUnix
	}
	if p.Files != nil {
		want.HandledFS, _, _ = landlockRights(1 << 10)
		rules = nil
		for _, r := range []struct {
			patterns []string
			access   uint64
		}{
			{p.Files.Read, llRead},
			{p.Files.Execute, llExecute | llReadFile},
			{p.Files.Append, llReadFile | llWriteFile},
			{p.Files.Write, llWrite},
		} {
			for _, pattern := range r.patterns {
				path, err := landlockPath(pattern)
				if err != nil {
					return nil, nil, err
				}
				rules = append(rules, PathRule{Access: r.access, Path: path})
			}
		}
		for _, path := range writable {
			rules = append(rules, PathRule{Access: llWrite, Path: path})
		}
	}
	if p.Network != nil && len(p.Network.Listen) == 0 && len(p.Network.Connect) == 0 {
		want.HandledNet = llBindTCP | llConnectTCP
		want.Scoped |= llScopeAbstractUnix
	}
	if p.Process.Ptrace == "none" {
		want.Scoped |= llScopeSignal
	}

	fs, net, scope := landlockRights(abi)
	var missing []string
	if abi < 2 {
		// Without the right to move files between folders a domain would deny it
		// everywhere, and break what every policy allows.
		return nil, []string{"landlock"}, nil
	}
	if want.HandledFS&^fs != 0 {
		missing = append(missing, fmt.Sprintf("file rights %#x", want.HandledFS&^fs))
	}
	if want.HandledNet&^net != 0 {
		missing = append(missing, "tcp")
	}
	if want.Scoped&^scope != 0 {
		missing = append(missing, "scopes")
	}
	want.HandledFS &= fs
	want.HandledNet &= net
	want.Scoped &= scope
	for _, r := range rules {
		if r.Access &= want.HandledFS; r.Access != 0 {
			want.Paths = append(want.Paths, r)
		}
	}
	return &want, missing, nil
}

// landlockPath is the folder below which a pattern allows. Landlock knows whole
// trees only; a pattern that says anything else cannot be enforced by it alone.
func landlockPath(pattern string) (string, error) {
	path := strings.TrimSuffix(pattern, "/**")
	if path == "" {
		path = "/"
	}
	if strings.ContainsAny(path, "*?{}[]") {
		return "", fmt.Errorf("files: pattern %q: %w", pattern, ErrMissing)
	}
	return path, nil
}
