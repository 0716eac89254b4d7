// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var networkProbes = []spec{
	socketProbe("socket-inet", "reach the network at all", unix.AF_INET, unix.SOCK_DGRAM, 0, 0),
	socketProbe("socket-raw", "forge packets of other containers", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, caps.Of(caps.NetRaw)),
	socketProbe("socket-packet", "read and forge everything on the wire", unix.AF_PACKET, unix.SOCK_RAW, 0, caps.Of(caps.NetRaw)),
	socketProbe("socket-vsock", "reach the host of the virtual machine, around every firewall", unix.AF_VSOCK, unix.SOCK_STREAM, 0, 0),
	socketProbe("socket-alg", "use the kernel's ciphers, where many bugs were", unix.AF_ALG, unix.SOCK_SEQPACKET, 0, 0),
	socketProbe("socket-netfilter", "reach the kernel's packet filter, where many bugs were", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, 0),
	socketProbe("socket-audit", "write into the host's audit log", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT, 0),
	{
		name: "net-admin", group: "network",
		about: "change addresses, routes and firewalls",
		try: func(w *world) attempt {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return notApplicable("no socket to ask through: " + err.Error())
			}
			defer unix.Close(fd)
			// Setting the metric is permitted or not, and never implemented.
			request := &[40]byte{'l', 'o'}
			return w.do(call{
				nr: unix.SYS_IOCTL, args: [6]uintptr{uintptr(fd), unix.SIOCSIFMETRIC, pointer(request)},
				past: []unix.Errno{unix.EOPNOTSUPP}, anyOf: caps.Of(caps.NetAdmin),
			})
		},
	},
	{
		name: "low-port", group: "network",
		about: "take the place of a service of the system",
		try: func(w *world) attempt {
			if a := w.do(socketCall(unix.AF_INET, unix.SOCK_STREAM, 0, 0)); a.outcome != Open {
				return a.with("no socket to bind")
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return notApplicable("no socket to bind: " + err.Error())
			}
			defer unix.Close(fd)
			// Bound for a moment and never listened on.
			address := &[16]byte{0: unix.AF_INET, 3: 1}
			return w.do(call{
				nr: unix.SYS_BIND, args: [6]uintptr{uintptr(fd), pointer(address), 16},
				past: []unix.Errno{unix.EADDRINUSE}, anyOf: caps.Of(caps.NetBindService),
			})
		},
	},
	{
		name: "shim-socket", group: "network",
		about: "talk to the runtime's helpers through sockets without a file",
		try: func(*world) attempt {
			b, err := os.ReadFile("/proc/self/net/unix")
			if err != nil {
				return notApplicable("no /proc")
			}
			for line := range strings.Lines(string(b)) {
				_, name, ok := strings.Cut(line, "@")
				if ok && (strings.Contains(name, "containerd-shim") || strings.Contains(name, "/docker/") || strings.Contains(name, "systemd")) {
					return open("@" + strings.TrimSpace(name))
				}
			}
			return blocked(namespace, "")
		},
	},
}

func socketProbe(name, about string, family, kind, protocol uintptr, anyOf caps.Set) spec {
	return spec{name: name, group: "network", about: about, try: func(w *world) attempt {
		return w.do(socketCall(family, kind, protocol, anyOf))
	}}
}

func socketCall(family, kind, protocol uintptr, anyOf caps.Set) call {
	return call{
		nr: unix.SYS_SOCKET, args: [6]uintptr{family, kind | unix.SOCK_CLOEXEC, protocol},
		absent: []unix.Errno{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT},
		anyOf:  anyOf, undo: closeFD,
	}
}
