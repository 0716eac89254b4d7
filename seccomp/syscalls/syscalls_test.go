// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestNumbers(t *testing.T) {
	tests := []struct {
		arch Arch
		name string
		nr   uint32
	}{
		{X86_64, "read", 0},
		{X86_64, "openat", 257},
		{X86, "socketcall", 102},
		{X86, "socket", 359},
		{X32, "read", X32Bit},
		{X32, "execve", X32Bit + 520},
		{ARM64, "openat", 56},
		{ARM, "set_tls", 0xf0005},
		{S390X, "socket", 359},
		{MIPS, "read", 4003},
		{MIPS64, "read", 5000},
		{MIPSEL64N32, "read", 6000},
		{LOONG64, "clone3", 435},
		{RISCV64, "riscv_flush_icache", 259},
		{X86_64, "mseal", 462},
		{S390, "mseal", 462},
	}
	for _, tt := range tests {
		nr, ok := tt.arch.Number(tt.name)
		if !ok || nr != tt.nr {
			t.Errorf("%v %s: %d %v, want %d", tt.arch, tt.name, nr, ok, tt.nr)
		}
		if name, ok := tt.arch.Name(tt.nr); !ok || name != tt.name {
			t.Errorf("%v %d: %q, want %q", tt.arch, tt.nr, name, tt.name)
		}
	}
	for _, name := range []string{"", "nosuch", "READ"} {
		if _, ok := Lookup(name); ok {
			t.Errorf("%q is known", name)
		}
	}
}

// Every name leads to a number and back, on every ABI.
func TestTablesAreConsistent(t *testing.T) {
	if !slices.IsSorted(names[:]) {
		t.Error("names are not sorted")
	}
	for i, name := range names {
		if n, ok := Lookup(name); !ok || int(n) != i {
			t.Errorf("Lookup(%q) = %d %v", name, n, ok)
		}
	}
	for _, a := range All() {
		calls := a.Calls()
		if len(calls) < 250 {
			t.Errorf("%v has %d calls", a, len(calls))
		}
		for _, n := range calls {
			nr, ok := n.On(a)
			if !ok {
				t.Errorf("%v lists %v without a number", a, n)
			}
			if back, ok := a.Call(nr); !ok || back != n {
				t.Errorf("%v %v: number %d leads to %v", a, n, nr, back)
			}
		}
		if parsed, err := ParseArch(a.OCI()); err != nil || parsed != a {
			t.Errorf("%v: ParseArch(%q) = %v %v", a, a.OCI(), parsed, err)
		}
		if parsed, err := ParseArch(a.String()); err != nil || parsed != a {
			t.Errorf("%v: ParseArch(%q) = %v %v", a, a, parsed, err)
		}
		if !slices.Contains(FromAudit(a.Audit()), a) {
			t.Errorf("%v is not among FromAudit(%#x)", a, a.Audit())
		}
	}
}

func TestWidths(t *testing.T) {
	tests := []struct {
		arch Arch
		name string
		arg  int
		mask uint64
	}{
		{X86_64, "socket", 0, 0xffffffff},
		{X86_64, "read", 0, 0xffffffff},
		{X86_64, "read", 1, ^uint64(0)},
		{X86_64, "read", 3, 0},
		{X86_64, "chmod", 1, 0xffff},
		{X86_64, "clone", 0, ^uint64(0)},
		{X86_64, "pread64", 3, ^uint64(0)},
		{X32, "read", 1, ^uint64(0)},
		{X86, "read", 1, 0xffffffff},
		{ARM64, "ioctl", 1, 0xffffffff},
		{X86_64, "statmount", 2, ^uint64(0)},
	}
	for _, tt := range tests {
		n, ok := Lookup(tt.name)
		if !ok {
			t.Fatal(tt.name)
		}
		if got := n.Mask(tt.arch, tt.arg); got != tt.mask {
			t.Errorf("%v %s argument %d: %#x, want %#x", tt.arch, tt.name, tt.arg, got, tt.mask)
		}
	}
}

func TestSince(t *testing.T) {
	tests := []struct {
		arch Arch
		name string
		want Version
	}{
		{X86_64, "openat", V(2, 6, 16)},
		{ARM64, "openat", V(3, 7, 0)},
		{LOONG64, "clone3", V(5, 19, 0)},
		{LOONG64, "cachestat", V(6, 5, 0)},
		{X32, "read", V(3, 4, 0)},
		{X86, "clock_gettime64", V(5, 1, 0)},
	}
	for _, tt := range tests {
		n, _ := Lookup(tt.name)
		if got := n.Since(tt.arch); got != tt.want {
			t.Errorf("%v %s: %v, want %v", tt.arch, tt.name, got, tt.want)
		}
	}
}

func TestGroups(t *testing.T) {
	mount, ok := Expand("@mount")
	if !ok || !slices.Contains(mount, "umount2") {
		t.Errorf("@mount: %v %v", mount, ok)
	}
	system, ok := Expand("@system-service")
	if !ok || !slices.Contains(system, "openat") || !slices.Contains(system, "read") {
		t.Errorf("@system-service: %v %v", system, ok)
	}
	if _, ok := Expand("@nosuch"); ok {
		t.Error("@nosuch is known")
	}
	if got := GroupsOf("keyctl"); !slices.Contains(got, "@keyring") {
		t.Errorf("keyctl is in %v", got)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]Version{"6.1": V(6, 1, 0), "6.1.0-25-amd64": V(6, 1, 0), "4.15-rc1": V(4, 15, 0), "4.9.337": V(4, 9, 255), "3.10.0.1": V(3, 10, 0)} {
		if got, err := ParseVersion(in); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "6", "x.y", ".1", "99999999.1"} {
		if v, err := ParseVersion(in); err == nil {
			t.Errorf("%q: %v, want an error", in, v)
		}
	}
}

// The tables are what the generator makes of data.txt.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"generate.go", "data.txt"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "generate.go")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "tables.go"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("tables.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("tables.go is not what generate.go makes of data.txt; run go generate")
	}
}
