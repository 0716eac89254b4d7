// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

var someELF = []string{
	"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox",
	"/usr/lib/x86_64-linux-musl/libc.so", "/bin/bash",
}

// TestConfirmFindSites compares with objdump: each site is a system call
// instruction there, and each cave lies in padding that nothing names.
func TestConfirmFindSites(t *testing.T) {
	objdump := oracle.Tool(t, "objdump", "apt: binutils")
	instruction := regexp.MustCompile(`(?m)^\s*([0-9a-f]+):\s+(\S.*)$`)
	isPadding := regexp.MustCompile(`^(data16 |cs )*(nop|nopw|nopl|int3|xchg +%ax,%ax)`)
	for _, path := range someELF {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		sites, err := findSites(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out, err := exec.Command(objdump, "-d", "--no-show-raw-insn", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		at := map[uint64]string{}
		calls := 0
		for _, m := range instruction.FindAllStringSubmatch(string(out), -1) {
			a, _ := strconv.ParseUint(m[1], 16, 64)
			at[a] = m[2]
			if m[2] == "syscall" {
				calls++
			}
		}
		ef, err := elf.NewFile(f)
		if err != nil {
			t.Fatal(err)
		}
		bias := uint64(0)
		for _, p := range ef.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
				bias = p.Vaddr - p.Off
			}
		}
		for _, s := range sites.Rewrite {
			if got := at[uint64(s.Call)+bias]; got != "syscall" {
				t.Errorf("%s: site %#x is %q", path, s.Call, got)
			}
			if got := at[uint64(s.Cave)+bias]; strings.HasPrefix(got, "mov ") && strings.HasSuffix(got, "ax") && (s.Call-s.Cave == 5 || s.Call-s.Cave == 7) {
				continue
			}
			// A cave may begin inside of a long no-op: look back for it.
			a := uint64(s.Cave) + bias
			for n := 0; at[a] == "" && n < 12; n++ {
				a--
			}
			if !isPadding.MatchString(at[a]) {
				t.Errorf("%s: cave %#x is in %q", path, s.Cave, at[a])
			}
		}
		if sites.Found != calls {
			t.Errorf("%s: found %d system calls, objdump %d", path, sites.Found, calls)
		}
		t.Logf("%s: %d system calls, %d can be rewritten", path, sites.Found, len(sites.Rewrite))
		f.Close()
	}
}

func FuzzFindSites(f *testing.F) {
	b, err := os.ReadFile("shim.bin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sites, err := findSites(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, s := range sites.Rewrite {
			if int(s.Call)+2 > len(b) || b[s.Call] != 0x0f || b[s.Call+1] != 0x05 || int(s.Cave)+jump > len(b) {
				t.Fatalf("site %+v is not in the file", s)
			}
		}
	})
}
