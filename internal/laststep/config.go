// SPDX-License-Identifier: Apache-2.0

// Package laststep is what runs inside a container between the OCI runtime and
// the workload: it enters a Landlock domain, installs system call filters, and
// becomes the workload.
//
// The runtime executes it by a file descriptor, /proc/self/fd/N, so that it needs
// no file and no mount of the container. Descriptor N+1 holds the [Config];
// behind it may come a gate, on which it waits until whoever started the
// container has looked at what is in force, and the standard error that the
// workload is to have. None of them stays open in the workload.
//
// The package imports the least that is possible: how long a container takes to
// start depends on it.
package laststep

import "errors"

// Config is what the last step does.
type Config struct {
	// Gate tells that descriptor N+2 is a connected socket: the step writes a
	// [Report], waits for one byte, and writes the error number when the
	// workload cannot be executed.
	Gate bool
	// Stderr tells that the descriptor behind is the workload's standard error.
	Stderr bool
	// NoNewPrivileges is for starters that have not set it themselves.
	NoNewPrivileges bool
	// AppArmor is the profile to change to, for starters that have not; empty for
	// none.
	AppArmor string
	// Landlock is the domain; nil for none.
	Landlock *Landlock
	// Filters are installed in this order; the last is the newest.
	Filters []Filter
}

// Landlock is a domain, in the kernel's bits of the running kernel's ABI.
//
// Source: include/uapi/linux/landlock.h.
type Landlock struct {
	HandledFS, HandledNet, Scoped uint64
	Paths                         []PathRule
	Ports                         []PortRule
}

// PathRule allows access below a path; one that is not there is left out.
type PathRule struct {
	Access uint64
	Path   string
}

// PortRule allows access to a TCP port.
type PortRule struct {
	Access uint64
	Port   uint64
}

// Filter is a seccomp filter: flags of seccomp(2), and the array of struct
// sock_filter in the byte order of the machine.
type Filter struct {
	Flags   uint32
	Program []byte
}

// Report is the first byte that the step writes to its gate.
const Report = 'R'

// Go is the byte that lets the step go on.
const Go = 'G'

var magic = [4]byte{'P', 'L', 'S', 1}

// ErrConfig is the error of bytes that are no configuration.
var ErrConfig = errors.New("malformed configuration of the last step")

const (
	flagGate = 1 << iota
	flagStderr
	flagLandlock
	flagNoNewPrivileges
	flagAppArmor
	knownFlags = 1<<iota - 1
)

// Encode is the form in which a configuration is handed over.
func (c *Config) Encode() []byte {
	w := writer(magic[:])
	var flags uint32
	if c.Gate {
		flags |= flagGate
	}
	if c.Stderr {
		flags |= flagStderr
	}
	if c.Landlock != nil {
		flags |= flagLandlock
	}
	if c.NoNewPrivileges {
		flags |= flagNoNewPrivileges
	}
	if c.AppArmor != "" {
		flags |= flagAppArmor
	}
	w.u32(flags)
	if c.AppArmor != "" {
		w.bytes([]byte(c.AppArmor))
	}
	if l := c.Landlock; l != nil {
		w.u64(l.HandledFS)
		w.u64(l.HandledNet)
		w.u64(l.Scoped)
		w.u32(uint32(len(l.Paths)))
		for _, p := range l.Paths {
			w.u64(p.Access)
			w.bytes([]byte(p.Path))
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
		w.bytes(f.Program)
	}
	return w
}

type writer []byte

func (w *writer) u32(v uint32) { *w = append(*w, byte(v), byte(v>>8), byte(v>>16), byte(v>>24)) }
func (w *writer) u64(v uint64) { w.u32(uint32(v)); w.u32(uint32(v >> 32)) }
func (w *writer) bytes(b []byte) {
	w.u32(uint32(len(b)))
	*w = append(*w, b...)
}

// Bounds of a configuration; the kernel's own are lower.
const (
	maxRules   = 1 << 16
	maxFilters = 64
	maxBytes   = 1 << 20
)

// Decode reads what Encode has written. The error is [ErrConfig].
func Decode(b []byte) (*Config, error) {
	r := reader{rest: b}
	if string(r.take(4)) != string(magic[:]) {
		return nil, ErrConfig
	}
	flags := r.u32()
	c := &Config{Gate: flags&flagGate != 0, Stderr: flags&flagStderr != 0, NoNewPrivileges: flags&flagNoNewPrivileges != 0}
	if flags&flagAppArmor != 0 {
		c.AppArmor = string(r.bytes())
	}
	if flags&flagLandlock != 0 {
		l := &Landlock{HandledFS: r.u64(), HandledNet: r.u64(), Scoped: r.u64()}
		for range r.count(maxRules) {
			l.Paths = append(l.Paths, PathRule{r.u64(), string(r.bytes())})
		}
		for range r.count(maxRules) {
			l.Ports = append(l.Ports, PortRule{r.u64(), r.u64()})
		}
		c.Landlock = l
	}
	for range r.count(maxFilters) {
		c.Filters = append(c.Filters, Filter{r.u32(), r.bytes()})
	}
	if r.bad || len(r.rest) != 0 || flags&^knownFlags != 0 || (flags&flagAppArmor != 0) != (c.AppArmor != "") {
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

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.bad, r.rest = true, nil
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

func (r *reader) bytes() []byte {
	n := r.u32()
	if n > maxBytes {
		r.bad, r.rest = true, nil
		return nil
	}
	return r.take(int(n))
}

// count reads a number of elements, of which each takes at least four bytes.
func (r *reader) count(most uint32) uint32 {
	n := r.u32()
	if n > most || int(n) > len(r.rest)/4 {
		r.bad, r.rest = true, nil
		return 0
	}
	return n
}
