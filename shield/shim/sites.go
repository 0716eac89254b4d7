// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"golang.org/x/arch/x86/x86asm"
)

// Site is one system call instruction that can be rewritten, with the place of the
// long jump: the instruction before it that loads the call's number, or padding
// within reach of a short jump. Both are offsets in the file.
type Site struct {
	Call uint32
	Cave uint32
}

// Sites is what a linear sweep found in one file.
type Sites struct {
	// Rewrite lists the sites that have a place for the jump, in rising order.
	Rewrite []Site
	// Found counts all system call instructions; those not in Rewrite are
	// dispatched by the kernel's signal, which is slower and always right.
	Found int
}

const (
	maxText = 512 << 20 // a larger text segment is left to the signal
	jump    = 5         // bytes of jmp rel32
	context = 24        // instructions before a site in which its number must be set
)

// findSites disassembles the 64-bit x86 ELF file around every system call in it.
// A site is listed only when the code before it sets rax (so that data between the
// code is left alone), and a cave only when nothing known leads into it.
func findSites(r io.ReaderAt) (Sites, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return Sites{}, fmt.Errorf("read ELF: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return Sites{}, errors.New("not a 64-bit x86 file")
	}
	entries := entryPoints(f)
	var out Sites
	for _, t := range texts(f) {
		code := make([]byte, t.size)
		if _, err := r.ReadAt(code, int64(t.off)); err != nil {
			return Sites{}, fmt.Errorf("read code: %w", err)
		}
		out.add(code, t, entries)
	}
	slices.SortFunc(out.Rewrite, func(a, b Site) int { return int(a.Call) - int(b.Call) })
	return out, nil
}

type text struct{ addr, off, size uint64 }

// texts gives the executable sections, or the executable segments of a file
// without sections.
func texts(f *elf.File) []text {
	var out []text
	for _, s := range f.Sections {
		if s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_EXECINSTR != 0 && s.Size <= maxText && s.Offset+s.Size < 1<<32 {
			out = append(out, text{s.Addr, s.Offset, s.Size})
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Filesz <= maxText && p.Off+p.Filesz < 1<<32 {
			out = append(out, text{p.Vaddr, p.Off, p.Filesz})
		}
	}
	return out
}

// entryPoints gives the addresses where functions begin, sorted: from the symbols
// and from the table that unwinders search.
func entryPoints(f *elf.File) []uint64 {
	out := []uint64{f.Entry}
	for _, load := range []func() ([]elf.Symbol, error){f.Symbols, f.DynamicSymbols} {
		syms, _ := load() // a stripped file has none
		for _, s := range syms {
			if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value != 0 {
				out = append(out, s.Value)
			}
		}
	}
	if s := f.Section(".eh_frame_hdr"); s != nil && s.Size <= 64<<20 {
		if b, err := s.Data(); err == nil && len(b) >= 12 && b[0] == 1 && b[2] == 0x03 && b[3] == 0x3b {
			n := int(binary.LittleEndian.Uint32(b[8:]))
			for i := 0; i < n && 12+8*i+8 <= len(b); i++ {
				out = append(out, s.Addr+uint64(int64(int32(binary.LittleEndian.Uint32(b[12+8*i:])))))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// add sweeps the neighbourhood of each byte pair that could be a system call.
func (out *Sites) add(code []byte, t text, entries []uint64) {
	const around = 192
	var regions [][2]int
	for at := 0; ; at += 2 {
		i := bytes.Index(code[at:], []byte{0x0f, 0x05})
		if i < 0 {
			break
		}
		at += i
		// Begin at a function that starts far enough before, to have its caves as well.
		begin := 0
		want := t.addr + uint64(max(at-around, 0))
		if k := sort.Search(len(entries), func(k int) bool { return entries[k] > want }); k > 0 && entries[k-1] >= t.addr {
			begin = int(entries[k-1] - t.addr)
		}
		end := min(at+around+64, len(code))
		if n := len(regions); n > 0 && begin <= regions[n-1][1] {
			regions[n-1][1] = max(regions[n-1][1], end)
		} else {
			regions = append(regions, [2]int{begin, end})
		}
	}
	for _, r := range regions {
		out.sweep(code, r[0], r[1], t, entries)
	}
}

func (out *Sites) sweep(code []byte, pos, end int, t text, entries []uint64) {
	var calls []int
	var caves [][2]int
	var targets []int
	sinceRAX := context
	before := pos    // the instruction before this one
	stopped := false // the last instruction never continues behind itself
	for pos < end {
		if stopped {
			start := pos
			for pos < len(code) {
				n := padding(code[pos:])
				if n == 0 {
					break
				}
				pos += n
			}
			if pos-start >= jump {
				caves = append(caves, [2]int{start, pos})
			}
			if pos > start {
				stopped = false
				continue
			}
		}
		inst, err := x86asm.Decode(code[pos:], 64)
		if err != nil || inst.Len == 0 {
			before = pos
			pos++
			stopped = false
			sinceRAX++
			continue
		}
		stopped = false
		switch inst.Op {
		case x86asm.SYSCALL:
			out.Found++
			if n := loadsNumber(code[before:pos]); n > 0 {
				out.Rewrite = append(out.Rewrite, Site{uint32(t.off) + uint32(pos), uint32(t.off) + uint32(before)})
			} else if sinceRAX < context {
				calls = append(calls, pos)
			}
			sinceRAX = 0 // its result
		case x86asm.RET, x86asm.JMP, x86asm.UD2, x86asm.HLT:
			stopped = true
		}
		if rel, ok := inst.Args[0].(x86asm.Rel); ok {
			targets = append(targets, pos+inst.Len+int(rel))
		}
		if setsRAX(inst) {
			sinceRAX = 0
		} else {
			sinceRAX++
		}
		before = pos
		pos += inst.Len
	}
	for _, e := range entriesIn(entries, t.addr, t.addr+uint64(len(code))) {
		targets = append(targets, int(e-t.addr))
	}
	slices.Sort(targets)
	out.assign(calls, caves, targets, t)
}

func entriesIn(entries []uint64, lo, hi uint64) []uint64 {
	i, _ := slices.BinarySearch(entries, lo)
	j, _ := slices.BinarySearch(entries, hi)
	return entries[i:j]
}

// assign gives each call the first free place for a jump within reach of a short
// jump. A cave ends where something jumps into it.
func (out *Sites) assign(calls []int, caves [][2]int, targets []int, t text) {
	var places []int
	for _, c := range caves {
		end := c[1]
		if k, _ := slices.BinarySearch(targets, c[0]); k < len(targets) && targets[k] < end {
			end = targets[k]
		}
		for p := c[0]; p+jump <= end; p += jump {
			places = append(places, p)
		}
	}
	used := make([]bool, len(places))
	for _, c := range calls {
		lo, hi := c+2-128, c+2+127
		k, _ := slices.BinarySearch(places, lo)
		for ; k < len(places) && places[k] <= hi; k++ {
			if !used[k] {
				used[k] = true
				out.Rewrite = append(out.Rewrite, Site{uint32(t.off) + uint32(c), uint32(t.off) + uint32(places[k])})
				break
			}
		}
	}
}

// padding gives the length of the no-operation or breakpoint at the start of b, or 0.
func padding(b []byte) int {
	if len(b) > 0 && b[0] == 0xcc {
		return 1
	}
	i := 0
	for i < len(b) && i < 12 && (b[i] == 0x66 || b[i] == 0x2e) {
		i++
	}
	switch {
	case i < len(b) && b[i] == 0x90:
		return i + 1
	case i+2 < len(b) && b[i] == 0x0f && b[i+1] == 0x1f && b[i+2]>>3&7 == 0:
		i += 3
		switch modrm := b[i-1]; {
		case modrm>>6 == 3:
		case modrm&7 == 4:
			i++
			fallthrough
		default:
			i += []int{0, 1, 4, 0}[modrm>>6]
			if modrm>>6 == 0 && modrm&7 == 5 {
				i += 4
			}
		}
		if i <= len(b) {
			return i
		}
	}
	return 0
}

// loadsNumber says whether b is one "mov $n, %eax" or "mov $n, %rax" with a
// plausible system call number: as long as a long jump.
func loadsNumber(b []byte) int {
	var imm []byte
	switch {
	case len(b) == 5 && b[0] == 0xb8:
		imm = b[1:]
	case len(b) == 7 && b[0] == 0x48 && b[1] == 0xc7 && b[2] == 0xc0:
		imm = b[3:]
	default:
		return 0
	}
	if binary.LittleEndian.Uint32(imm) >= 1024 {
		return 0
	}
	return len(b)
}

func setsRAX(inst x86asm.Inst) bool {
	switch inst.Op {
	case x86asm.CMP, x86asm.TEST, x86asm.PUSH, x86asm.JMP, x86asm.CALL:
		return inst.Op == x86asm.CALL
	case x86asm.XCHG:
		return true
	}
	switch inst.Args[0] {
	case x86asm.RAX, x86asm.EAX, x86asm.AX, x86asm.AL:
		return true
	}
	return false
}

// factsMagic begins the facts that are sealed with a program: its sites.
const factsMagic = "PSITES1\x00"

// Facts gives what is worth sealing with a file: the sites of code, or nothing.
func Facts(_ string, r io.ReaderAt, _ int64) ([]byte, error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return nil, nil
	}
	sites, err := findSites(r)
	if err != nil {
		return nil, nil // damaged or foreign code is a file like any other
	}
	return append([]byte(factsMagic), encodeSites(sites.Rewrite)...), nil
}

// encodeSites writes the number of sites and then each as two offsets.
func encodeSites(sites []Site) []byte {
	if len(sites) > 1<<16 {
		sites = sites[:1<<16]
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(sites)))
	for _, s := range sites {
		b = binary.LittleEndian.AppendUint32(b, s.Call)
		b = binary.LittleEndian.AppendUint32(b, s.Cave)
	}
	return b
}
