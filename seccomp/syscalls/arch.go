// SPDX-License-Identifier: Apache-2.0

// Package syscalls knows the system calls of Linux: for every ABI that a
// seccomp filter can meet, the numbers, the names, the width at which the kernel
// reads each argument, the kernel version that introduced the call, and the
// groups that systemd names.
//
// The tables are generated; tables.go says from what and when. All lookups are
// safe for concurrent use and allocate nothing.
package syscalls

import (
	"fmt"
	"strings"
)

// Arch is one system call ABI of Linux. An ABI is finer than a machine: x86_64
// kernels serve X86_64, X86 and X32.
type Arch uint8

// The ABIs. The zero Arch is none of them.
const (
	X86_64 Arch = iota + 1
	X86
	X32
	ARM64
	ARM
	RISCV64
	PPC64LE
	PPC64
	PPC
	S390X
	S390
	LOONG64
	MIPS
	MIPS64
	MIPS64N32
	MIPSEL
	MIPSEL64
	MIPSEL64N32
	M68K
	SH
	SHEB
	PARISC
	PARISC64
	archEnd
)

// X32Bit is set in the numbers of the X32 ABI, which shares its audit
// architecture with X86_64. Source: arch/x86/include/uapi/asm/unistd.h.
const X32Bit = 0x40000000

type archInfo struct {
	name  string // what --arch takes and what is printed
	oci   string // SCMP_ARCH_…
	audit uint32 // AUDIT_ARCH_…, seccomp_data.arch
	bits  uint8  // size of a system call argument as libseccomp compares it
	big   bool
	base  uint32 // added to the numbers of the kernel's tables
	// docker is what `includes.arches` of a Docker profile calls the machine.
	docker string
	also   []string // other spellings that --arch takes
}

// audit flags. Source: include/uapi/linux/audit.h.
const (
	le64 = 0x80000000 | 0x40000000
	le32 = 0x40000000
	be64 = 0x80000000
	n32  = 0x20000000
)

var archs = [archEnd]archInfo{
	X86_64:      {name: "amd64", oci: "SCMP_ARCH_X86_64", audit: 62 | le64, bits: 64, docker: "amd64", also: []string{"x86_64", "x86-64"}},
	X86:         {name: "x86", oci: "SCMP_ARCH_X86", audit: 3 | le32, bits: 32, docker: "x86", also: []string{"386", "i386", "i686"}},
	X32:         {name: "x32", oci: "SCMP_ARCH_X32", audit: 62 | le64, bits: 32, base: X32Bit, docker: "x32", also: []string{"amd64p32"}},
	ARM64:       {name: "arm64", oci: "SCMP_ARCH_AARCH64", audit: 183 | le64, bits: 64, docker: "arm64", also: []string{"aarch64"}},
	ARM:         {name: "arm", oci: "SCMP_ARCH_ARM", audit: 40 | le32, bits: 32, docker: "arm", also: []string{"armhf", "armv7l"}},
	RISCV64:     {name: "riscv64", oci: "SCMP_ARCH_RISCV64", audit: 243 | le64, bits: 64, docker: "riscv64"},
	PPC64LE:     {name: "ppc64le", oci: "SCMP_ARCH_PPC64LE", audit: 21 | le64, bits: 64, docker: "ppc64le"},
	PPC64:       {name: "ppc64", oci: "SCMP_ARCH_PPC64", audit: 21 | be64, bits: 64, big: true, docker: "ppc64"},
	PPC:         {name: "ppc", oci: "SCMP_ARCH_PPC", audit: 20, bits: 32, big: true, docker: "ppc"},
	S390X:       {name: "s390x", oci: "SCMP_ARCH_S390X", audit: 22 | be64, bits: 64, big: true, docker: "s390x"},
	S390:        {name: "s390", oci: "SCMP_ARCH_S390", audit: 22, bits: 32, big: true, docker: "s390"},
	LOONG64:     {name: "loong64", oci: "SCMP_ARCH_LOONGARCH64", audit: 258 | le64, bits: 64, docker: "loongarch64", also: []string{"loongarch64"}},
	MIPS:        {name: "mips", oci: "SCMP_ARCH_MIPS", audit: 8, bits: 32, big: true, base: 4000, docker: "mips"},
	MIPS64:      {name: "mips64", oci: "SCMP_ARCH_MIPS64", audit: 8 | be64, bits: 64, big: true, base: 5000, docker: "mips64"},
	MIPS64N32:   {name: "mips64n32", oci: "SCMP_ARCH_MIPS64N32", audit: 8 | be64 | n32, bits: 32, big: true, base: 6000, docker: "mips64n32", also: []string{"mips64p32"}},
	MIPSEL:      {name: "mipsel", oci: "SCMP_ARCH_MIPSEL", audit: 8 | le32, bits: 32, base: 4000, docker: "mipsel", also: []string{"mipsle"}},
	MIPSEL64:    {name: "mipsel64", oci: "SCMP_ARCH_MIPSEL64", audit: 8 | le64, bits: 64, base: 5000, docker: "mipsel64", also: []string{"mips64le", "mips64el"}},
	MIPSEL64N32: {name: "mipsel64n32", oci: "SCMP_ARCH_MIPSEL64N32", audit: 8 | le64 | n32, bits: 32, base: 6000, docker: "mips3l64n32", also: []string{"mips64p32le"}},
	M68K:        {name: "m68k", oci: "SCMP_ARCH_M68K", audit: 4, bits: 32, big: true, docker: "m68k"},
	SH:          {name: "sh", oci: "SCMP_ARCH_SH", audit: 42 | le32, bits: 32, docker: "sh"},
	SHEB:        {name: "sheb", oci: "SCMP_ARCH_SHEB", audit: 42, bits: 32, big: true, docker: "sheb"},
	PARISC:      {name: "parisc", oci: "SCMP_ARCH_PARISC", audit: 15, bits: 32, big: true, docker: "parisc", also: []string{"hppa"}},
	PARISC64:    {name: "parisc64", oci: "SCMP_ARCH_PARISC64", audit: 15 | be64, bits: 64, big: true, docker: "parisc64", also: []string{"hppa64"}},
}

// All lists every ABI in a fixed order.
func All() []Arch {
	out := make([]Arch, 0, archEnd-1)
	for a := X86_64; a < archEnd; a++ {
		out = append(out, a)
	}
	return out
}

// IsValid tells whether a is one of the ABIs.
func (a Arch) IsValid() bool { return a > 0 && a < archEnd }

// String is the name that palisade's commands take and print: "amd64", "x32".
func (a Arch) String() string {
	if !a.IsValid() {
		return fmt.Sprintf("arch(%d)", uint8(a))
	}
	return archs[a].name
}

// MarshalText makes the ABI readable in JSON.
func (a Arch) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads any spelling that ParseArch takes.
func (a *Arch) UnmarshalText(b []byte) error {
	p, err := ParseArch(string(b))
	if err == nil {
		*a = p
	}
	return err
}

// OCI is the name in an OCI runtime configuration: "SCMP_ARCH_X86_64".
func (a Arch) OCI() string { return archs[a].oci }

// Docker is what `includes.arches` in a Docker profile calls the ABI.
func (a Arch) Docker() string { return archs[a].docker }

// Audit is AUDIT_ARCH_…, the value that the kernel puts into seccomp_data.arch.
// X86_64 and X32 share one.
func (a Arch) Audit() uint32 { return archs[a].audit }

// BigEndian tells the byte order of the ABI, and so that of its filters.
func (a Arch) BigEndian() bool { return archs[a].big }

// Bits is 32 or 64: how much of an argument libseccomp looks at. It is 32 for
// X32, although that ABI's registers are wider.
func (a Arch) Bits() int { return int(archs[a].bits) }

// Is64 tells whether the ABI is the native one of a 64-bit machine.
func (a Arch) Is64() bool { return archs[a].bits == 64 }

// Base is what the ABI adds to the numbers of its table: X32Bit on X32, 4000,
// 5000 or 6000 on the MIPS ABIs, otherwise 0. Table numbers here include it.
func (a Arch) Base() uint32 { return archs[a].base }

// ENOSYS is the errno of a system call that does not exist. MIPS and PA-RISC
// number it their own way.
func (a Arch) ENOSYS() uint16 {
	switch a {
	case MIPS, MIPS64, MIPS64N32, MIPSEL, MIPSEL64, MIPSEL64N32:
		return 89
	case PARISC, PARISC64:
		return 251
	}
	return 38
}

// ParseArch reads an ABI's name: palisade's own, Go's, uname's, Docker's or
// libseccomp's SCMP_ARCH_….
func ParseArch(s string) (Arch, error) {
	for a := X86_64; a < archEnd; a++ {
		in := &archs[a]
		if s == in.name || s == in.oci || s == in.docker {
			return a, nil
		}
		for _, other := range in.also {
			if s == other {
				return a, nil
			}
		}
	}
	if l := strings.ToLower(s); l != s {
		if a, err := ParseArch(l); err == nil {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown architecture %q", s)
}

// ParseOCI reads SCMP_ARCH_… and nothing else.
func ParseOCI(s string) (Arch, bool) {
	for a := X86_64; a < archEnd; a++ {
		if archs[a].oci == s {
			return a, true
		}
	}
	return 0, false
}

// FromAudit lists the ABIs that have an audit architecture: two for
// AUDIT_ARCH_X86_64, X86_64 first; otherwise one or none.
func FromAudit(audit uint32) []Arch {
	var out []Arch
	for a := X86_64; a < archEnd; a++ {
		if archs[a].audit == audit {
			out = append(out, a)
		}
	}
	return out
}

// FromGo is the native ABI of a GOARCH.
func FromGo(goarch string) (Arch, bool) {
	a, err := ParseArch(goarch)
	return a, err == nil
}
