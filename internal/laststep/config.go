// SPDX-License-Identifier: Apache-2.0

// Package laststep is what runs inside a container between the OCI runtime and
// the workload: it enters a Landlock domain, installs system call filters, and
// becomes the workload.
//
// The step itself is C without a library (folder src), built by go generate and
// embedded as one blob a machine; see [Program]. The runtime executes it by a file
// descriptor, /proc/self/fd/N, so that it needs no file and no mount of the
// container. Descriptor N+1 holds the [Config], sealed; behind it may come a gate,
// on which the step waits until whoever started the container has looked at what
// is in force, and the standard error that the workload is to have. None of them
// stays open in the workload, and no descriptor above them. Those below N stay:
// the standard streams, sockets passed by socket activation, and what the caller
// has the runtime pass on.
//
// This package holds the form of the configuration, and is pure.
package laststep

import (
	"errors"
	"strings"

	"github.com/palisade-sec/palisade/caps"
)

//go:generate go run gen.go

// Config is what the last step does.
type Config struct {
	// Gate says that descriptor N+2 is a connected socket: the step writes a
	// [Report], waits for one byte, and writes the error number when the
	// workload cannot be executed.
	Gate bool
	// Stderr says that the descriptor behind is the workload's standard error.
	Stderr bool
	// NoNewPrivileges is for starters that have not set it themselves.
	NoNewPrivileges bool
	// AppArmor is the profile to change to, for starters that have not; empty for
	// none.
	AppArmor string
	// Capabilities bound what an engine may have left; nil for no bound.
	Capabilities *Capabilities
	// Landlock is the domain; nil for none.
	Landlock *Landlock
	// Filters are installed in this order; the last is the newest.
	Filters []Filter
}

// Capabilities are the sets with which the inheritable and the ambient
// capabilities of the process are intersected. Engines give ambient ones on
// purpose to users other than root, and so they are named here; what only an
// engine's mistake left (CVE-2022-29162) is not. A capability that is not
// inheritable is not ambient either.
type Capabilities struct {
	Inheritable, Ambient caps.Set
}

// Landlock is a domain, in the kernel's bits of the running kernel's ABI.
//
// Source: include/uapi/linux/landlock.h.
type Landlock struct {
	HandledFS, HandledNet, Scoped uint64
	Paths                         []PathRule
	Ports                         []PortRule
}

// PathRule allows access below an absolute path; one that is not there is left out.
type PathRule struct {
	Access uint64
	Path   string
}

// PortRule allows access to a TCP port.
type PortRule struct {
	Access uint64
	Port   uint64
}

// Filter is a seccomp filter: flags of seccomp(2), of which TSYNC, LOG and
// SPEC_ALLOW are accepted, and the array of 1 to 4,096 struct sock_filter in the
// byte order of the machine.
type Filter struct {
	Flags   uint32
	Program []byte
}

// Messages that the step writes to its gate, by their first byte.
const (
	// Report says that everything is in force; it is the whole message.
	Report = 'R'
	// NotExecuted says that the workload could not be executed; the exit code and
	// the error number follow, one byte each.
	NotExecuted = 'E'
	// Refused says that something could not be put in force; the reason follows
	// as text.
	Refused = 'F'
)

// MaxMessage is the most that the step writes to its gate at once, in bytes.
const MaxMessage = 1024

// Go is the byte that lets the step go on.
const Go = 'G'

var magic = [4]byte{'P', 'L', 'S', 2}

// ErrConfig is the error of bytes that are no configuration.
var ErrConfig = errors.New("malformed configuration of the last step")

const (
	flagGate = 1 << iota
	flagStderr
	flagLandlock
	flagNoNewPrivileges
	flagAppArmor
	flagCapabilities
	knownFlags = 1<<iota - 1
)

// Encode is the form in which a configuration is handed over. One that exceeds the
// bounds is encoded all the same, and Decode refuses it.
func (c *Config) Encode() []byte {
	w := writer(magic[:])
	var flags uint32
	for _, f := range []struct {
		on   bool
		flag uint32
	}{
		{c.Gate, flagGate},
		{c.Stderr, flagStderr},
		{c.Landlock != nil, flagLandlock},
		{c.NoNewPrivileges, flagNoNewPrivileges},
		{c.AppArmor != "", flagAppArmor},
		{c.Capabilities != nil, flagCapabilities},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	w.u32(flags)
	if c.AppArmor != "" {
		w.text(c.AppArmor)
	}
	if s := c.Capabilities; s != nil {
		w.u64(uint64(s.Inheritable))
		w.u64(uint64(s.Ambient))
	}
	if l := c.Landlock; l != nil {
		w.u64(l.HandledFS)
		w.u64(l.HandledNet)
		w.u64(l.Scoped)
		w.u32(uint32(len(l.Paths)))
		for _, p := range l.Paths {
			w.u64(p.Access)
			w.text(p.Path)
		}
		w.u32(uint32(len(l.Ports)))
		for _, p := range l.Ports {
			w.u64(p.Access)
			w.u64(p.Port)
		}
	}
	w.u32(uint32(len(c.Filters)))
	for _, f := range c.Filters {
		w.u32(f.Flags)
		w.u32(uint32(len(f.Program)))
		w = append(w, f.Program...)
	}
	return w
}

type writer []byte

func (w *writer) u32(v uint32) { *w = append(*w, byte(v), byte(v>>8), byte(v>>16), byte(v>>24)) }
func (w *writer) u64(v uint64) { w.u32(uint32(v)); w.u32(uint32(v >> 32)) }

// text has a zero byte behind it, which the length does not count: the step hands
// it to the kernel as it is.
func (w *writer) text(s string) {
	w.u32(uint32(len(s)))
	*w = append(append(*w, s...), 0)
}

// Bounds of a configuration; src/config.h has the same.
const (
	maxConfig       = 16 << 20
	maxRules        = 1 << 16
	maxFilters      = 64
	maxInstructions = 4096 // BPF_MAXINSNS
	instruction     = 8    // sizeof(struct sock_filter)
	maxPath         = 4095
	maxProfile      = 4000
	filterFlags     = 1<<0 | 1<<1 | 1<<2 // TSYNC, LOG, SPEC_ALLOW
)

// Decode reads what Encode has written. The error is [ErrConfig].
func Decode(b []byte) (*Config, error) {
	r := reader{rest: b, bad: len(b) > maxConfig}
	if string(r.take(4)) != string(magic[:]) {
		return nil, ErrConfig
	}
	flags := r.u32()
	if flags&^knownFlags != 0 {
		return nil, ErrConfig
	}
	c := &Config{Gate: flags&flagGate != 0, Stderr: flags&flagStderr != 0, NoNewPrivileges: flags&flagNoNewPrivileges != 0}
	if flags&flagAppArmor != 0 {
		c.AppArmor = r.text(maxProfile)
	}
	if flags&flagCapabilities != 0 {
		c.Capabilities = &Capabilities{Inheritable: caps.Set(r.u64()), Ambient: caps.Set(r.u64())}
	}
	if flags&flagLandlock != 0 {
		l := &Landlock{HandledFS: r.u64(), HandledNet: r.u64(), Scoped: r.u64()}
		for range r.count(maxRules, 14) {
			l.Paths = append(l.Paths, r.path())
		}
		for range r.count(maxRules, 16) {
			l.Ports = append(l.Ports, PortRule{r.u64(), r.u64()})
		}
		c.Landlock = l
	}
	for range r.count(maxFilters, 16) {
		c.Filters = append(c.Filters, r.filter())
	}
	if r.bad || len(r.rest) != 0 {
		return nil, ErrConfig
	}
	return c, nil
}

// reader takes values off the front; after the first that is not there, bad is
// set and all that follow are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) spoil() { r.bad, r.rest = true, nil }

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.rest) {
		r.spoil()
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func (r *reader) u64() uint64 {
	low := r.u32()
	return uint64(low) | uint64(r.u32())<<32
}

// text reads a string of 1 to most bytes with a zero byte behind it and none inside.
func (r *reader) text(most uint32) string {
	n := r.u32()
	if n == 0 || n > most {
		r.spoil()
		return ""
	}
	b := r.take(int(n) + 1)
	if b == nil || strings.IndexByte(string(b), 0) != int(n) {
		r.spoil()
		return ""
	}
	return string(b[:n])
}

func (r *reader) path() PathRule {
	p := PathRule{r.u64(), r.text(maxPath)}
	if !strings.HasPrefix(p.Path, "/") {
		r.spoil()
	}
	return p
}

func (r *reader) filter() Filter {
	flags, n := r.u32(), r.u32()
	if flags&^filterFlags != 0 || n == 0 || n%instruction != 0 || n/instruction > maxInstructions {
		r.spoil()
		return Filter{}
	}
	return Filter{flags, r.take(int(n))}
}

// count reads a number of elements, of which each takes at least least bytes.
func (r *reader) count(most uint32, least int) uint32 {
	n := r.u32()
	if n > most || int(n) > len(r.rest)/least {
		r.spoil()
		return 0
	}
	return n
}
