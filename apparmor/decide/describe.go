// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
)

// printable shows a match string; bytes that do not print, quoted.
func printable(b []byte) string {
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			return fmt.Sprintf("%q", b)
		}
	}
	return string(b)
}

type permWord struct {
	bit  uint32
	word string
}

var permWords = map[apparmor.Class][]permWord{
	apparmor.ClassSignal: {{apparmor.SignalSend, "send"}, {apparmor.SignalReceive, "receive"}},
	apparmor.ClassPtrace: {{apparmor.PtraceTrace, "trace"}, {apparmor.PtraceRead, "read"}, {apparmor.PtraceTracedBy, "tracedby"}, {apparmor.PtraceReadBy, "readby"}},
	apparmor.ClassMount:  {{apparmor.MayMount, "mount"}, {apparmor.MayUmount, "umount"}, {apparmor.MayPivotRoot, "pivot_root"}},
	apparmor.ClassDBus:   {{apparmor.DBusSend, "send"}, {apparmor.DBusReceive, "receive"}, {apparmor.DBusEavesdrop, "eavesdrop"}, {apparmor.DBusBind, "bind"}},
	apparmor.ClassNetV8: {
		{apparmor.NetSend, "send"},
		{apparmor.NetReceive, "receive"},
		{apparmor.NetCreate, "create"},
		{apparmor.NetShutdown, "shutdown"},
		{apparmor.NetConnect, "connect"},
		{apparmor.NetSetattr, "setattr"},
		{apparmor.NetGetattr, "getattr"},
		{apparmor.NetAccept, "accept"},
		{apparmor.NetBind, "bind"},
		{apparmor.NetListen, "listen"},
		{apparmor.NetSetopt, "setopt"},
		{apparmor.NetGetopt, "getopt"},
	},
}

var socketTypeNames = map[uint16]string{1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}

// Describe says in words what a query of a class other than files asks for.
// perms, kernel's bits, may be 0.
func Describe(query []byte, perms uint32) string {
	if len(query) == 0 {
		return "nothing"
	}
	class, rest := apparmor.Class(query[0]), query[1:]
	words := func(c apparmor.Class) string {
		var out []string
		for _, w := range permWords[c] {
			if perms&w.bit != 0 {
				out = append(out, w.word)
			}
		}
		if len(out) == 0 || len(out) == len(permWords[c]) {
			return ""
		}
		return " (" + strings.Join(out, ",") + ")"
	}
	switch class {
	case apparmor.ClassFile:
		return "file " + printable(rest)
	case apparmor.ClassNetwork, apparmor.ClassNetV8, apparmor.ClassNetV9:
		if len(rest) < 4 {
			break
		}
		family, typ := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		s := "network" + words(apparmor.ClassNetV8) + " " + nameOr(apparmor.FamilyName(int(family)), int(family)) + " " + nameOr(socketTypeNames[typ], int(typ))
		if len(rest) > 4 {
			s += " " + printable(rest[4:])
		}
		return s
	case apparmor.ClassSignal:
		if len(rest) == 0 {
			break
		}
		return fmt.Sprintf("signal%s set=%s peer=%s", words(class), signalName(int(rest[0])), printable(rest[1:]))
	case apparmor.ClassPtrace:
		return "ptrace" + words(class) + " peer=" + printable(rest)
	case apparmor.ClassLabel:
		if len(rest) > 0 {
			switch c := apparmor.Class(rest[0]); c {
			case apparmor.ClassPtrace:
				return "ptrace" + words(c) + " peer=" + printable(rest[1:])
			case apparmor.ClassSignal:
				return "signal" + words(c) + " peer=" + printable(rest[1:])
			}
		}
	case apparmor.ClassMount:
		parts := bytes.Split(rest, []byte{0})
		switch {
		case perms&apparmor.MayPivotRoot != 0 && len(parts) == 2:
			return fmt.Sprintf("pivot_root oldroot=%s %s", printable(parts[1]), printable(parts[0]))
		case len(parts) == 1:
			return "umount " + printable(parts[0])
		case len(parts) >= 4:
			var flags []string
			for _, c := range parts[3] {
				flags = append(flags, mountFlagName(int(c)-1))
			}
			s := "mount"
			if len(flags) > 0 {
				s += " options=(" + strings.Join(flags, ",") + ")"
			}
			return s + fmt.Sprintf(" fstype=%s %s -> %s", printable(parts[2]), printable(parts[1]), printable(parts[0]))
		}
	case apparmor.ClassDBus:
		s := "dbus" + words(class)
		for i, p := range bytes.Split(rest, []byte{0}) {
			if i < 6 {
				s += " " + [...]string{"bus", "name", "label", "path", "interface", "member"}[i] + "=" + printable(p)
			}
		}
		return s
	case apparmor.ClassUserns:
		return "userns create"
	case apparmor.ClassIOUring:
		return "io_uring " + printable(rest)
	case apparmor.ClassPosixMqueue, apparmor.ClassSysvMqueue:
		return "mqueue " + printable(rest)
	}
	return fmt.Sprintf("class %d %q", query[0], rest)
}

func nameOr(name string, n int) string {
	if name == "" {
		return fmt.Sprint(n)
	}
	return name
}

// signalNames are AppArmor's numbers of signals.
// Source: security/apparmor/include/sig_names.h.
var signalNames = strings.Fields("unknown hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop stp " +
	"ttin ttou urg xcpu xfsz vtalrm prof winch io pwr sys emt lost unused exists")

func signalName(n int) string {
	switch {
	case n < len(signalNames):
		return signalNames[n]
	case n >= 128:
		return fmt.Sprintf("rtmin+%d", n-128)
	}
	return fmt.Sprint(n)
}

// mountFlagNames are the MS_* flags by bit.
var mountFlagNames = map[int]string{
	0: "ro", 1: "nosuid", 2: "nodev", 3: "noexec", 4: "sync", 5: "remount", 6: "mand", 7: "dirsync", 8: "nosymfollow", 10: "noatime",
	11: "nodiratime", 12: "bind", 13: "move", 14: "rec", 15: "silent", 16: "acl", 17: "unbindable", 18: "private", 19: "slave",
	20: "shared", 21: "relatime", 23: "iversion", 24: "strictatime", 25: "lazytime", 31: "nouser",
}

func mountFlagName(bit int) string { return nameOr(mountFlagNames[bit], bit) }
