// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"strings"

	"github.com/palisade-sec/palisade/caps"
)

// capabilityNumber is the number of a capability by the name that rules use:
// without CAP_ and in small letters.
var capabilityNumber = func() map[string]int {
	m := make(map[string]int, caps.Last+1)
	for c := range caps.Last + 1 {
		m[CapabilityName(int(c))] = int(c)
	}
	return m
}()

// CapabilityName is the name of a capability in rules, "" for a number that has
// none.
func CapabilityName(n int) string {
	if n < 0 || n > int(caps.Last) {
		return ""
	}
	return caps.Capability(n).Name()
}

// Socket types.
const (
	sockStream    = 1
	sockDgram     = 2
	sockRaw       = 3
	sockRdm       = 4
	sockSeqpacket = 5
	sockPacket    = 10
)

var socketTypes = map[string]int{
	"none": 0, "stream": sockStream, "dgram": sockDgram, "raw": sockRaw, "rdm": sockRdm,
	"seqpacket": sockSeqpacket, "dccp": 6, "packet": sockPacket,
}

// Address families.
const (
	afUnspec = 0
	afUnix   = 1
	afInet   = 2
	afInet6  = 10
	afMax    = 46
)

// families are the address families that rules can name, by number; 12 has no
// name of its own.
//
// Source: include/linux/socket.h; parser/base_af_names.h.
var families = [afMax]string{
	"unspec", "unix", "inet", "ax25", "ipx", "appletalk", "netrom", "bridge", "atmpvc", "x25",
	"inet6", "rose", "", "netbeui", "security", "key", "netlink", "packet", "ash", "econet",
	"atmsvc", "rds", "sna", "irda", "pppox", "wanpipe", "llc", "ib", "mpls", "can", "tipc",
	"bluetooth", "iucv", "rxrpc", "isdn", "phonet", "ieee802154", "caif", "alg", "nfc", "vsock",
	"kcm", "qipcrtr", "smc", "xdp", "mctp",
}

// FamilyName is the name of an address family in rules, "" when it has none.
func FamilyName(n int) string {
	if n < 0 || n >= len(families) {
		return ""
	}
	return families[n]
}

// netTuple is one combination that a network rule can name.
type netTuple struct {
	family   int
	typeName string
	sockType int
	protocol uint32
}

// netTuples are all of them, in the order in which the parser finds them.
//
// Source: parser/network.cc, network_mappings.
var netTuples = func() []netTuple {
	var t []netTuple
	for f, n := range families {
		if n == "" {
			continue
		}
		for _, ty := range [...]string{"stream", "dgram", "seqpacket", "rdm", "raw", "packet"} {
			t = append(t, netTuple{f, ty, socketTypes[ty], 0xffffff})
		}
	}
	return append(t,
		netTuple{afInet, "raw", sockRaw, 1 << 6},
		netTuple{afInet, "raw", sockRaw, 1 << 17},
		netTuple{afInet, "raw", sockRaw, 1 << 1},
		netTuple{afInet, "tcp", sockStream, 0xffffffff},
		netTuple{afInet, "udp", sockDgram, 0xffffffff},
		netTuple{afInet, "icmp", sockRaw, 1 << 1},
		netTuple{afInet6, "tcp", sockStream, 0xffffffff},
		netTuple{afInet6, "udp", sockDgram, 0xffffffff},
	)
}()

// findNet lists the tuples of a family and a type, each "" when the rule does
// not name it.
func findNet(family, typ string) []netTuple {
	var out []netTuple
	for _, t := range netTuples {
		if (family == "" || families[t.family] == family) && (typ == "" || t.typeName == typ) {
			out = append(out, t)
		}
	}
	return out
}

// signalNumbers are AppArmor's own numbers of signals, which hold on every
// architecture.
//
// Source: security/apparmor/include/sig_names.h.
var signalNumbers = map[string]int{
	"hup": 1, "int": 2, "quit": 3, "ill": 4, "trap": 5, "abrt": 6, "bus": 7, "fpe": 8, "kill": 9,
	"usr1": 10, "segv": 11, "usr2": 12, "pipe": 13, "alrm": 14, "term": 15, "stkflt": 16, "chld": 17,
	"cont": 18, "stop": 19, "stp": 20, "tstp": 20, "ttin": 21, "ttou": 22, "urg": 23, "xcpu": 24,
	"xfsz": 25, "vtalrm": 26, "prof": 27, "winch": 28, "io": 29, "poll": 29, "pwr": 30, "sys": 31, "emt": 32,
	"exists": 35,
}

// Signals from 128 on are real-time signals.
const (
	signalRealtime = 128
	maxRealtime    = 32
)

// findSignal is the number of a signal's name, -1 when there is none.
func findSignal(s string) int {
	if rest, ok := strings.CutPrefix(s, "rtmin+"); ok {
		// strtoul: blanks and a sign may lead, what follows the digits does not
		// count, and a negative number is a very large one.
		rest = strings.TrimLeft(rest, " \t\n\v\f\r")
		neg := strings.HasPrefix(rest, "-")
		if neg || strings.HasPrefix(rest, "+") {
			rest = rest[1:]
		}
		n, d := 0, 0
		for d < len(rest) && isDigit(rest[d]) && n <= maxRealtime {
			n = n*10 + int(rest[d]-'0')
			d++
		}
		if n > maxRealtime || neg && n > 0 {
			return -1
		}
		return signalRealtime + n
	}
	if n, ok := signalNumbers[s]; ok {
		return n
	}
	return -1
}

// Resources of set rlimit, by RLIMIT_* number on all architectures but alpha,
// mips and sparc.
var rlimits = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "ofile": 7,
	"memlock": 8, "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

const (
	rlimitCPU    = 0
	rlimitNice   = 13
	rlimitRTTime = 15
)

// timeUnits in microseconds.
var timeUnits = map[string]int64{
	"us": 1, "microsecond": 1, "microseconds": 1,
	"ms": 1000, "millisecond": 1000, "milliseconds": 1000,
	"s": 1e6, "sec": 1e6, "second": 1e6, "seconds": 1e6,
	"min": 60e6, "minute": 60e6, "minutes": 60e6,
	"h": 3600e6, "hour": 3600e6, "hours": 3600e6,
	"d": 86400e6, "day": 86400e6, "days": 86400e6,
	"week": 7 * 86400e6, "weeks": 7 * 86400e6,
}

// Mount flags, MS_*, as the parser uses them.
//
// Source: include/uapi/linux/mount.h; parser/mount.h.
const (
	MSReadOnly    uint32 = 1 << 0
	MSNoSUID      uint32 = 1 << 1
	MSNoDev       uint32 = 1 << 2
	MSNoExec      uint32 = 1 << 3
	MSSynchronous uint32 = 1 << 4
	MSRemount     uint32 = 1 << 5
	MSMandLock    uint32 = 1 << 6
	MSDirSync     uint32 = 1 << 7
	MSNoSymFollow uint32 = 1 << 8
	MSNoATime     uint32 = 1 << 10
	MSNoDirATime  uint32 = 1 << 11
	MSBind        uint32 = 1 << 12
	MSMove        uint32 = 1 << 13
	MSRec         uint32 = 1 << 14
	MSSilent      uint32 = 1 << 15 // and verbose
	MSPosixACL    uint32 = 1 << 16
	MSUnbindable  uint32 = 1 << 17
	MSPrivate     uint32 = 1 << 18
	MSSlave       uint32 = 1 << 19
	MSShared      uint32 = 1 << 20
	MSRelATime    uint32 = 1 << 21
	MSIVersion    uint32 = 1 << 23
	MSStrictATime uint32 = 1 << 24
	MSLazyTime    uint32 = 1 << 25
	MSNoUser      uint32 = 1 << 31

	// MSAll is what a rule without options allows.
	MSAll = MSReadOnly | MSNoSUID | MSNoDev | MSNoExec | MSSynchronous | MSRemount | MSMandLock | MSDirSync |
		MSNoSymFollow | MSNoATime | MSNoDirATime | MSBind | MSRec | MSMove | MSSilent | MSPosixACL |
		MSUnbindable | MSPrivate | MSSlave | MSShared | MSRelATime | MSIVersion | MSStrictATime | MSLazyTime
)

type mountOption struct{ set, clear uint32 }

var mountOptions = map[string]mountOption{
	"ro": {MSReadOnly, 0}, "r": {MSReadOnly, 0}, "read-only": {MSReadOnly, 0},
	"rw": {0, MSReadOnly}, "w": {0, MSReadOnly},
	"suid": {0, MSNoSUID}, "nosuid": {MSNoSUID, 0},
	"dev": {0, MSNoDev}, "nodev": {MSNoDev, 0},
	"exec": {0, MSNoExec}, "noexec": {MSNoExec, 0},
	"sync": {MSSynchronous, 0}, "async": {0, MSSynchronous},
	"remount": {MSRemount, 0},
	"mand":    {MSMandLock, 0}, "nomand": {0, MSMandLock},
	"dirsync":   {MSDirSync, 0},
	"symfollow": {0, MSNoSymFollow}, "nosymfollow": {MSNoSymFollow, 0},
	"atime": {0, MSNoATime}, "noatime": {MSNoATime, 0},
	"diratime": {0, MSNoDirATime}, "nodiratime": {MSNoDirATime, 0},
	"bind": {MSBind, 0}, "B": {MSBind, 0},
	"move": {MSMove, 0}, "M": {MSMove, 0},
	"rbind": {MSBind | MSRec, 0}, "R": {MSBind | MSRec, 0},
	"verbose": {MSSilent, 0}, "silent": {MSSilent, 0}, "loud": {0, MSSilent},
	"acl": {MSPosixACL, 0}, "noacl": {0, MSPosixACL},
	"unbindable": {MSUnbindable, 0}, "make-unbindable": {MSUnbindable, 0},
	"runbindable": {MSUnbindable | MSRec, 0}, "make-runbindable": {MSUnbindable | MSRec, 0},
	"private": {MSPrivate, 0}, "make-private": {MSPrivate, 0},
	"rprivate": {MSPrivate | MSRec, 0}, "make-rprivate": {MSPrivate | MSRec, 0},
	"slave": {MSSlave, 0}, "make-slave": {MSSlave, 0},
	"rslave": {MSSlave | MSRec, 0}, "make-rslave": {MSSlave | MSRec, 0},
	"shared": {MSShared, 0}, "make-shared": {MSShared, 0},
	"rshared": {MSShared | MSRec, 0}, "make-rshared": {MSShared | MSRec, 0},
	"relatime": {MSRelATime, 0}, "norelatime": {0, MSRelATime},
	"iversion": {MSIVersion, 0}, "noiversion": {0, MSIVersion},
	"strictatime": {MSStrictATime, 0}, "nostrictatime": {0, MSStrictATime},
	"lazytime": {MSLazyTime, 0}, "nolazytime": {0, MSLazyTime},
	"user": {0, MSNoUser}, "nouser": {MSNoUser, 0},
}

var netPerms = map[string]uint32{
	"create": NetCreate, "bind": NetBind, "listen": NetListen, "accept": NetAccept, "connect": NetConnect,
	"shutdown": NetShutdown, "getattr": NetGetattr, "setattr": NetSetattr, "getopt": NetGetopt,
	"setopt": NetSetopt, "send": NetSend, "write": NetSend, "receive": NetReceive, "read": NetReceive,
}

// netPeer are the accesses that can have a peer.
const netPeer = NetSend | NetReceive | NetConnect | NetAccept

var dbusPerms = map[string]uint32{
	"bind": DBusBind, "send": DBusSend, "write": DBusSend, "receive": DBusReceive, "read": DBusReceive,
	"eavesdrop": DBusEavesdrop,
}

var signalPerms = map[string]uint32{
	"send": SignalSend, "write": SignalSend, "receive": SignalReceive, "read": SignalReceive,
}

var ptracePerms = map[string]uint32{
	"trace": PtraceTrace, "write": PtraceTrace, "read": PtraceRead, "tracedby": PtraceTracedBy, "readby": PtraceReadBy,
}

var mqueuePerms = map[string]uint32{
	"create": MqueueCreate, "open": MqueueOpen, "delete": MqueueDelete, "getattr": MqueueGetattr,
	"setattr": MqueueSetattr, "write": MqueueWrite, "read": MqueueRead,
}

const (
	mqueueAll = MqueueCreate | MqueueOpen | MqueueDelete | MqueueGetattr | MqueueSetattr | MqueueWrite | MqueueRead
	dbusAll   = DBusBind | DBusSend | DBusReceive | DBusEavesdrop
	signalAll = SignalSend | SignalReceive
	ptraceAll = PtraceTrace | PtraceRead | PtraceTracedBy | PtraceReadBy
)

var ioUringPerms = map[string]uint32{"override_creds": IOUringOverrideCreds, "sqpoll": IOUringSQPoll}

var usernsPerms = map[string]uint32{"create": UsernsCreate}

var profileModes = map[string]ProfileMode{
	"enforce": ProfileEnforce, "complain": ProfileComplain, "kill": ProfileKill, "unconfined": ProfileUnconfined,
	"prompt": ProfilePrompt, "default_allow": ProfileDefaultAllow,
}

// pathFlags maps a flag to its bit and the bit it excludes.
var pathFlags = map[string][2]uint32{
	"chroot_relative":         {PathChrootRelative, pathNamespaceRelative},
	"namespace_relative":      {pathNamespaceRelative, PathChrootRelative},
	"mediate_deleted":         {PathMediateDeleted, PathDelegateDeleted},
	"delegate_deleted":        {PathDelegateDeleted, PathMediateDeleted},
	"attach_disconnected":     {PathAttachDisconn, pathNoAttach},
	"attach_disconnected.ipc": {PathIPCAttach, pathNoAttach},
	"no_attach_disconnected":  {pathNoAttach, PathAttachDisconn | PathIPCAttach},
	"chroot_attach":           {PathChrootAttach, pathChrootNoAttach},
	"chroot_no_attach":        {pathChrootNoAttach, PathChrootAttach},
}

// errnos are the error numbers of the architectures that use the generic ones.
//
// Source: include/uapi/asm-generic/errno.h.
var errnos = map[string]int{
	"EPERM": 1, "ENOENT": 2, "ESRCH": 3, "EINTR": 4, "EIO": 5, "ENXIO": 6, "E2BIG": 7, "ENOEXEC": 8, "EBADF": 9,
	"ECHILD": 10, "EAGAIN": 11, "EWOULDBLOCK": 11, "ENOMEM": 12, "EACCES": 13, "EFAULT": 14, "ENOTBLK": 15,
	"EBUSY": 16, "EEXIST": 17, "EXDEV": 18, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21, "EINVAL": 22,
	"ENFILE": 23, "EMFILE": 24, "ENOTTY": 25, "ETXTBSY": 26, "EFBIG": 27, "ENOSPC": 28, "ESPIPE": 29,
	"EROFS": 30, "EMLINK": 31, "EPIPE": 32, "EDOM": 33, "ERANGE": 34, "EDEADLK": 35, "EDEADLOCK": 35,
	"ENAMETOOLONG": 36, "ENOLCK": 37, "ENOSYS": 38, "ENOTEMPTY": 39, "ELOOP": 40, "ENOMSG": 42, "EIDRM": 43,
	"ECHRNG": 44, "EL2NSYNC": 45, "EL3HLT": 46, "EL3RST": 47, "ELNRNG": 48, "EUNATCH": 49, "ENOCSI": 50,
	"EL2HLT": 51, "EBADE": 52, "EBADR": 53, "EXFULL": 54, "ENOANO": 55, "EBADRQC": 56, "EBADSLT": 57,
	"EBFONT": 59, "ENOSTR": 60, "ENODATA": 61, "ETIME": 62, "ENOSR": 63, "ENONET": 64, "ENOPKG": 65,
	"EREMOTE": 66, "ENOLINK": 67, "EADV": 68, "ESRMNT": 69, "ECOMM": 70, "EPROTO": 71, "EMULTIHOP": 72,
	"EDOTDOT": 73, "EBADMSG": 74, "EOVERFLOW": 75, "ENOTUNIQ": 76, "EBADFD": 77, "EREMCHG": 78, "ELIBACC": 79,
	"ELIBBAD": 80, "ELIBSCN": 81, "ELIBMAX": 82, "ELIBEXEC": 83, "EILSEQ": 84, "ERESTART": 85, "ESTRPIPE": 86,
	"EUSERS": 87, "ENOTSOCK": 88, "EDESTADDRREQ": 89, "EMSGSIZE": 90, "EPROTOTYPE": 91, "ENOPROTOOPT": 92,
	"EPROTONOSUPPORT": 93, "ESOCKTNOSUPPORT": 94, "EOPNOTSUPP": 95, "EPFNOSUPPORT": 96, "EAFNOSUPPORT": 97,
	"EADDRINUSE": 98, "EADDRNOTAVAIL": 99, "ENETDOWN": 100, "ENETUNREACH": 101, "ENETRESET": 102,
	"ECONNABORTED": 103, "ECONNRESET": 104, "ENOBUFS": 105, "EISCONN": 106, "ENOTCONN": 107, "ESHUTDOWN": 108,
	"ETOOMANYREFS": 109, "ETIMEDOUT": 110, "ECONNREFUSED": 111, "EHOSTDOWN": 112, "EHOSTUNREACH": 113,
	"EALREADY": 114, "EINPROGRESS": 115, "ESTALE": 116, "EUCLEAN": 117, "ENOTNAM": 118, "ENAVAIL": 119,
	"EISNAM": 120, "EREMOTEIO": 121, "EDQUOT": 122, "ENOMEDIUM": 123, "EMEDIUMTYPE": 124, "ECANCELED": 125,
	"ENOKEY": 126, "EKEYEXPIRED": 127, "EKEYREVOKED": 128, "EKEYREJECTED": 129, "EOWNERDEAD": 130,
	"ENOTRECOVERABLE": 131, "ERFKILL": 132, "EHWPOISON": 133,
}
