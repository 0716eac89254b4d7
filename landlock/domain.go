// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"fmt"
	"path"
	"strings"
)

// Domain is what confines a process: one layer inside another. Nil is a process
// that is in no domain.
//
// Two processes are in the same domain when they have the same pointer: a domain
// made of an equal rule set by another process is another domain.
type Domain struct {
	parent *Domain
	layers int
	// files reports that this layer or one around it handles rights on files.
	files bool
	rules Ruleset
	paths map[string]AccessFS
	ports map[uint16]AccessNet
}

// Enter is the domain of a process in d that puts r into force, as
// landlock_restrict_self(2) does: what both allow. The error is that of
// [Ruleset.Validate], or wraps [ErrLayers].
func (d *Domain) Enter(r Ruleset) (*Domain, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if d.Layers() == MaxLayers {
		return nil, ErrLayers
	}
	n := layer(r)
	n.parent, n.layers = d, d.Layers()+1
	n.files = n.files || d != nil && d.files
	return n, nil
}

// Layers is the number of rule sets in force.
func (d *Domain) Layers() int {
	if d == nil {
		return 0
	}
	return d.layers
}

// Parent is the domain that d was entered from; nil for the outermost.
func (d *Domain) Parent() *Domain {
	if d == nil {
		return nil
	}
	return d.parent
}

// Includes reports whether a process in other is in d, or in a domain inside d. No
// domain includes all.
func (d *Domain) Includes(other *Domain) bool { return d == nil || other.at(d.layers) == d }

// at is the layer of d with that number, from 1; nil where d has fewer.
func (d *Domain) at(layer int) *Domain {
	for d != nil && d.layers > layer {
		d = d.parent
	}
	if d == nil || d.layers != layer {
		return nil
	}
	return d
}

// granted are the rights that the rules of this layer grant on a path: those on the
// path itself and on all folders above it.
func (d *Domain) granted(p string) (a AccessFS) {
	for {
		a |= d.paths[p]
		if p == "/" {
			return a
		}
		p = path.Dir(p)
	}
}

// denied are the rights on files that layer l of d denies unless a rule of l grants them.
// Where any layer handles rights on files, all of them deny moves between folders, even one
// that is about the network alone.
//
// Source: security/landlock/access.h, _LANDLOCK_ACCESS_FS_INITIALLY_DENIED; Linux 6.18
// behaves so.
func (d *Domain) denied(l *Domain) AccessFS {
	if !d.files {
		return 0
	}
	return l.rules.HandledFS | Refer
}

// unmet are the rights, of those asked for, that layer l of d denies on a path.
func (d *Domain) unmet(l *Domain, p string, want AccessFS) AccessFS {
	if want &= d.denied(l); want == 0 {
		return 0
	}
	return want &^ l.granted(p)
}

// Blocker is what one layer denies.
type Blocker struct {
	// Layer counts from 1, the outermost.
	Layer int
	// Rights are names as in audit records.
	Rights []string
	// Object is the path or port that the rights are missing on; empty for processes.
	Object string
}

// Decision is the answer to a request.
type Decision struct {
	Allowed bool
	// Errno is what the system call fails with: EACCES, EPERM, or EXDEV for a move
	// that would be allowed as copying. EINVAL stands for a request that is none.
	Errno string
	// Blockers are the layers that deny, the innermost first. The kernel logs the first.
	Blockers []Blocker
}

// Reason says in a line why a request is denied.
func (d Decision) Reason() string {
	if d.Allowed {
		return "allowed"
	}
	var b strings.Builder
	b.WriteString(d.Errno)
	for i, blocker := range d.Blockers {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%slayer %d denies %s", sep, blocker.Layer, strings.Join(blocker.Rights, ","))
		if blocker.Object != "" {
			b.WriteString(" on " + blocker.Object)
		}
	}
	return b.String()
}

// Request is something that a process in a domain does.
type Request interface{ decide(d *Domain) Decision }

// Decide answers a request of a process in d.
func (d *Domain) Decide(q Request) Decision {
	if d == nil {
		return Decision{Allowed: true}
	}
	return q.decide(d)
}

// each asks every layer, the innermost first, what it denies.
func (d *Domain) each(errno, object string, denies func(layer *Domain) []string) Decision {
	out := Decision{Allowed: true}
	for l := d; l != nil; l = l.parent {
		if rights := denies(l); len(rights) > 0 {
			out.Allowed, out.Errno = false, errno
			out.Blockers = append(out.Blockers, Blocker{l.layers, rights, object})
		}
	}
	return out
}

// onPath asks for rights on one path.
func (d *Domain) onPath(p string, want AccessFS) Decision {
	if !validPath(p) {
		return Decision{Errno: "EINVAL"}
	}
	return d.each("EACCES", p, func(l *Domain) []string { return d.unmet(l, p, want).Names() })
}

// FileKind is the type of a file.
type FileKind uint8

// The types.
const (
	Regular FileKind = iota
	Directory
	Symlink
	CharDevice
	BlockDevice
	Fifo
	Socket
)

// make is the right to make such a file in a folder.
//
// Source: security/landlock/fs.c, get_mode_access.
func (k FileKind) make() AccessFS {
	switch k {
	case Directory:
		return MakeDir
	case Symlink:
		return MakeSym
	case CharDevice:
		return MakeChar
	case BlockDevice:
		return MakeBlock
	case Fifo:
		return MakeFifo
	case Socket:
		return MakeSock
	case Regular:
	}
	return MakeReg
}

// remove is the right to take such a file out of a folder.
func (k FileKind) remove() AccessFS {
	if k == Directory {
		return RemoveDir
	}
	return RemoveFile
}

// OpenRequest opens or executes what is there. With none of the members set
// it is a descriptor that only names the file (O_PATH), which is never denied.
type OpenRequest struct {
	Path string
	Kind FileKind
	// Read, Write and Execute are how it is opened; Truncate is O_TRUNC. The kernel opens
	// what it executes for reading too.
	Read, Write, Execute, Truncate bool
}

func (q OpenRequest) decide(d *Domain) Decision {
	var want AccessFS
	switch {
	case q.Kind == Directory && q.Read:
		want = ReadDir
	default:
		if q.Read {
			want |= ReadFile
		}
		if q.Write {
			want |= WriteFile
		}
		if q.Execute {
			want |= Execute | ReadFile
		}
		if q.Truncate {
			want |= Truncate
		}
	}
	return d.onPath(q.Path, want)
}

// MakeRequest makes a file, folder or device node that is not there yet. Opening it
// is a request of its own.
type MakeRequest struct {
	Path string
	Kind FileKind
}

func (q MakeRequest) decide(d *Domain) Decision { return d.onPath(path.Dir(q.Path), q.Kind.make()) }

// RemoveRequest is unlink(2) and rmdir(2).
type RemoveRequest struct {
	Path string
	Kind FileKind
}

func (q RemoveRequest) decide(d *Domain) Decision {
	return d.onPath(path.Dir(q.Path), q.Kind.remove())
}

// TruncateRequest is truncate(2), and ftruncate(2) of a file that the process has opened in its domain.
type TruncateRequest struct{ Path string }

func (q TruncateRequest) decide(d *Domain) Decision { return d.onPath(q.Path, Truncate) }

// IoctlRequest is ioctl(2) on a file that the process has opened in its domain.
type IoctlRequest struct {
	Path string
	Kind FileKind
	Cmd  uint32
}

// alwaysIoctl are the commands that no domain denies: the kernel handles them itself,
// before any driver.
//
// Source: security/landlock/fs.c, is_masked_device_ioctl; numbers as on x86 and arm64.
var alwaysIoctl = map[uint32]bool{
	0x5450: true, 0x5451: true, 0x5421: true, 0x5452: true, 0x5460: true, // FIONCLEX, FIOCLEX, FIONBIO, FIOASYNC, FIOQSIZE
	0xc0045877: true, 0xc0045878: true, // FIFREEZE, FITHAW
	0xc020660b: true, 0x2: true, // FS_IOC_FIEMAP, FIGETBSZ
	0x40049409: true, 0x4020940d: true, 0xc0189436: true, // FICLONE, FICLONERANGE, FIDEDUPERANGE
	0x80111500: true, 0x80811501: true, // FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH
}

func (q IoctlRequest) decide(d *Domain) Decision {
	if q.Kind != CharDevice && q.Kind != BlockDevice || alwaysIoctl[q.Cmd] {
		return d.onPath(q.Path, 0)
	}
	return d.onPath(q.Path, IoctlDev)
}

// ReparentRequest is rename(2) and link(2).
type ReparentRequest struct {
	Old, New string
	Kind     FileKind
	// Link leaves Old where it is.
	Link bool
	// Over reports that New is there and is replaced, OverKind what it is.
	Over     bool
	OverKind FileKind
	// Exchange swaps the two (RENAME_EXCHANGE); Over has to be set.
	Exchange bool
}

// decide asks both folders for what is taken out of them and put into them. Between two
// folders that takes [Refer] on both, and what is moved may not gain rights that
// a rule at its new place would grant and none at its old one did.
//
// Source: security/landlock/fs.c, current_check_refer_path, is_access_to_paths_allowed,
// no_more_access.
func (q ReparentRequest) decide(d *Domain) Decision {
	if !validPath(q.Old) || !validPath(q.New) || q.Old == "/" || q.New == "/" || q.Exchange && (!q.Over || q.Link) {
		return Decision{Errno: "EINVAL"}
	}
	from, to := path.Dir(q.Old), path.Dir(q.New)
	var wantFrom, wantTo AccessFS
	wantTo = q.Kind.make()
	if q.Exchange {
		wantFrom = q.OverKind.make()
	}
	if !q.Link {
		wantFrom |= q.Kind.remove()
		if q.Over {
			wantTo |= q.OverKind.remove()
		}
	}
	if from == to {
		return d.onPath(to, wantFrom|wantTo)
	}
	gain := false
	for l := d; l != nil; l = l.parent {
		gain = gain || d.gains(l, q.Old, from, to, q.Kind) || q.Exchange && d.gains(l, q.New, to, from, q.OverKind)
	}
	askFrom, askTo := wantFrom|Refer, wantTo|Refer
	if gain {
		// Only where nothing at all is denied can nothing be gained.
		askFrom, askTo = ^AccessFS(0), ^AccessFS(0)
	}
	out := Decision{Allowed: true}
	for l := d; l != nil; l = l.parent {
		for _, side := range []struct {
			dir       string
			ask, want AccessFS
		}{{from, askFrom, wantFrom}, {to, askTo, wantTo}} {
			missing := d.unmet(l, side.dir, side.ask)
			if missing == 0 {
				continue
			}
			out.Allowed = false
			out.Blockers = append(out.Blockers, Blocker{l.layers, missing.Names(), side.dir})
			if missing&side.want != 0 {
				out.Errno = "EACCES" // copying would not be allowed either
			} else if out.Errno == "" {
				out.Errno = "EXDEV"
			}
		}
	}
	return out
}

// gains reports whether what is moved from one folder to another gets a right in layer l of d that
// it had by no rule: one on its old folder, above, or on itself.
func (d *Domain) gains(l *Domain, moved, from, to string, kind FileKind) bool {
	denied := d.denied(l)
	before := denied &^ l.granted(from) &^ l.paths[moved]
	after := denied &^ l.granted(to)
	if kind != Directory {
		before &= FileRights
		after &= FileRights
	}
	return before&^after != 0
}

// MountRequest is mount(2), umount(2), move_mount(2) and pivot_root(2).
type MountRequest struct{}

func (MountRequest) decide(d *Domain) Decision {
	return d.each("EPERM", "", func(l *Domain) []string {
		if l.rules.HandledFS == 0 {
			return nil
		}
		return []string{ChangeTopology}
	})
}

// PortRequest is bind(2), connect(2) or sendto(2) on a TCP or UDP socket.
type PortRequest struct {
	// Access is one right.
	Access AccessNet
	Port   uint16
	// Unbound reports, with [ConnectSendUDP], that the socket has no port yet, so that the kernel
	// binds it to one of its choice.
	Unbound bool
}

func (q PortRequest) decide(d *Domain) Decision {
	out := d.onPort(q.Port, q.Access)
	if out.Allowed && q.Unbound && q.Access == ConnectSendUDP {
		return d.onPort(0, BindUDP)
	}
	return out
}

func (d *Domain) onPort(port uint16, want AccessNet) Decision {
	return d.each("EACCES", fmt.Sprintf("port %d", port), func(l *Domain) []string {
		return (want & l.rules.HandledNet &^ l.ports[port]).Names()
	})
}

// UnixRequest connects or sends to a Unix socket.
type UnixRequest struct {
	// Path is where the socket lies; empty for an abstract name.
	Path string
	// Server is the domain of the process that made the socket.
	Server *Domain
}

// Source: security/landlock/task.c, hook_unix_stream_connect; security/landlock/fs.c,
// hook_unix_find.
func (q UnixRequest) decide(d *Domain) Decision {
	if q.Path == "" {
		return d.scoped(AbstractUnixSocket, q.Server)
	}
	if !validPath(q.Path) {
		return Decision{Errno: "EINVAL"}
	}
	return d.each("EACCES", q.Path, func(l *Domain) []string {
		if l.Includes(q.Server) {
			return nil
		}
		return d.unmet(l, q.Path, ResolveUnix).Names()
	})
}

// SignalRequest is kill(2).
type SignalRequest struct {
	Target *Domain
	// SameProcess reports that the target is a thread of the same process, which is
	// never denied.
	SameProcess bool
}

func (q SignalRequest) decide(d *Domain) Decision {
	if q.SameProcess {
		return Decision{Allowed: true}
	}
	return d.scoped(Signal, q.Target)
}

// scoped asks each layer that handles s whether the other process is in it too.
//
// Source: security/landlock/task.c, domain_is_scoped.
func (d *Domain) scoped(s Scope, other *Domain) Decision {
	return d.each("EPERM", "", func(l *Domain) []string {
		if l.rules.Scoped&s == 0 || l.Includes(other) {
			return nil
		}
		return s.Names()
	})
}

// PtraceRequest is looking into a process: ptrace(2), /proc/PID/root and all else that
// the kernel guards in the same way.
type PtraceRequest struct{ Target *Domain }

// Source: security/landlock/task.c, hook_ptrace_access_check, domain_scope_le.
func (q PtraceRequest) decide(d *Domain) Decision {
	return d.each("EPERM", "", func(l *Domain) []string {
		if l.Includes(q.Target) {
			return nil
		}
		return []string{Ptrace}
	})
}
