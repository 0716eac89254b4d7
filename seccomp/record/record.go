// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package record counts the system calls of a workload with raw tracepoints, in
// the kernel, without stopping anything. It needs root, or CAP_BPF and
// CAP_PERFMON, and Linux 5.7; the tracepoints run for every call on the machine
// while a recording is on, which costs each some 50 ns.
package record

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Scope says whose calls count.
type Scope struct {
	// Cgroup is the folder of a version 2 control group; its own tasks count,
	// those of groups below it do not.
	Cgroup string
	// PIDNamespace is a file such as /proc/N/ns/pid; the tasks of exactly this
	// namespace count. One of the two has to be given.
	PIDNamespace string
}

// ErrPlatform is returned on machines that the recorder has no register layout
// for.
var ErrPlatform = errors.New("recording works on amd64 and arm64")

// Recorder counts until it is closed.
type Recorder struct {
	counts, lost *ebpf.Map
	closers      []interface{ Close() error }
}

// layout says where the registers are in struct pt_regs.
type layout struct {
	nr          int16 // number of the call, for sys_exit
	arg         [2]int16
	arg32       [2]int16
	mode        int16 // word that tells a 32-bit task
	modeMask    int32
	modeValue   int32
	native, a32 syscalls.Arch
}

var layouts = map[string]layout{
	// arch/x86/include/asm/ptrace.h: di, si; bx, cx; cs is __USER32_CS.
	"amd64": {120, [2]int16{112, 104}, [2]int16{40, 88}, 136, 0xffff, 0x23, syscalls.X86_64, syscalls.X86},
	// arch/arm64/include/asm/ptrace.h: regs[0], regs[1]; syscallno; PSR_MODE32_BIT.
	"arm64": {280, [2]int16{272, 8}, [2]int16{272, 8}, 264, 0x10, 0x10, syscalls.ARM64, syscalls.ARM},
}

const maxDifferent = 1 << 14

// key and value are the map's; the kernel side writes them.
type key struct {
	Is32  uint32
	Nr    uint32
	Value uint64
}

type value struct{ Count, Denied, NoSys uint64 }

// Start attaches the tracepoints.
func Start(s Scope) (r *Recorder, err error) {
	l, ok := layouts[runtime.GOARCH]
	if !ok {
		return nil, ErrPlatform
	}
	// Kernels since 5.11 account differently and need no limit raised.
	_ = rlimit.RemoveMemlock()
	r = &Recorder{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	var filter asm.Instructions
	switch {
	case s.Cgroup != "":
		fi, err := os.Stat(s.Cgroup)
		if err != nil {
			return nil, err
		}
		filter = cgroupFilter(fi.Sys().(*syscall.Stat_t).Ino)
	case s.PIDNamespace != "":
		fi, err := os.Stat(s.PIDNamespace)
		if err != nil {
			return nil, err
		}
		st := fi.Sys().(*syscall.Stat_t)
		filter = namespaceFilter(uint64(st.Dev), st.Ino)
	default:
		return nil, errors.New("record: no scope given")
	}
	if r.counts, err = ebpf.NewMap(&ebpf.MapSpec{Name: "calls", Type: ebpf.Hash, KeySize: 16, ValueSize: 24, MaxEntries: maxDifferent}); err != nil {
		return r, fmt.Errorf("create map: %w", err)
	}
	if r.lost, err = ebpf.NewMap(&ebpf.MapSpec{Name: "lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return r, fmt.Errorf("create map: %w", err)
	}
	inside, err := ebpf.NewMap(&ebpf.MapSpec{Name: "inside", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 16, MaxEntries: 1 << 13})
	if err != nil {
		return r, fmt.Errorf("create map: %w", err)
	}
	r.closers = append(r.closers, r.counts, r.lost, inside)
	for _, p := range []struct {
		name string
		code asm.Instructions
	}{
		{"sys_enter", enter(l, filter, r.counts, r.lost, inside)},
		{"sys_exit", exit(l, filter, r.counts, r.lost, inside)},
	} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "palisade_" + p.name[4:], Type: ebpf.RawTracepoint, Instructions: p.code, License: "Dual BSD/GPL"})
		if err != nil {
			return r, fmt.Errorf("load program for %s: %w", p.name, err)
		}
		r.closers = append(r.closers, prog)
		at, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.name, Program: prog})
		if err != nil {
			return r, fmt.Errorf("attach to %s: %w", p.name, err)
		}
		r.closers = append(r.closers, at)
	}
	return r, nil
}

// Close detaches the tracepoints. What was counted is gone; Read it before.
func (r *Recorder) Close() error {
	var errs []error
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i].Close())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// Read returns what was counted so far.
func (r *Recorder) Read() (*seccomp.Recording, error) {
	l := layouts[runtime.GOARCH]
	out := &seccomp.Recording{}
	var k key
	var v value
	it := r.counts.Iterate()
	for it.Next(&k, &v) {
		c := seccomp.RecordedCall{Arch: l.native, Nr: k.Nr, Arg: -1, Count: v.Count + v.Denied, Denied: v.Denied, NoSys: v.NoSys}
		switch {
		case k.Is32 != 0:
			c.Arch = l.a32
		case l.native == syscalls.X86_64 && k.Nr&syscalls.X32Bit != 0 && k.Nr != ^uint32(0):
			c.Arch = syscalls.X32
		}
		c.Name, _ = c.Arch.Name(k.Nr)
		if c.Arg = seccomp.ArgOf(c.Name); c.Arg >= 0 {
			c.Value = k.Value
		}
		out.Calls = append(out.Calls, c)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read what was counted: %w", err)
	}
	var lost uint64
	if err := r.lost.Lookup(uint32(0), &lost); err == nil {
		out.Lost = lost
	}
	slices.SortFunc(out.Calls, func(a, b seccomp.RecordedCall) int {
		return cmp.Or(cmp.Compare(a.Arch, b.Arch), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Nr, b.Nr), cmp.Compare(a.Value, b.Value))
	})
	return out, nil
}

// The programs' stack: the key at -16, a value at -40, scratch below.
const (
	stackKey   = -16
	stackValue = -40
	stackTask  = -48
	stackWord  = -56
	stackNS    = -64
)

func cgroupFilter(id uint64) asm.Instructions {
	return asm.Instructions{
		asm.FnGetCurrentCgroupId.Call(),
		asm.LoadImm(asm.R1, int64(id), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "out"),
	}
}

func namespaceFilter(dev, ino uint64) asm.Instructions {
	return asm.Instructions{
		asm.LoadImm(asm.R1, int64(dev), asm.DWord),
		asm.LoadImm(asm.R2, int64(ino), asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackNS),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
	}
}

// readWord reads a word of struct pt_regs, whose address is in R7, into dst.
func readWord(off int16, dst asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stackWord),
		asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, int32(off)),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(dst, asm.RFP, stackWord, asm.DWord),
	}
}

// describe fills the key from the registers at R7 and the number in R8.
func describe(l layout) asm.Instructions {
	// is32 in R9
	out := append(readWord(l.mode, asm.R9),
		asm.And.Imm(asm.R9, l.modeMask),
		asm.JEq.Imm(asm.R9, l.modeValue, "is32"),
		asm.Mov.Imm(asm.R9, 0),
		asm.Ja.Label("store"),
		asm.Mov.Imm(asm.R9, 1).WithSymbol("is32"),
		asm.StoreMem(asm.RFP, stackKey, asm.R9, asm.Word).WithSymbol("store"),
		asm.StoreMem(asm.RFP, stackKey+4, asm.R8, asm.Word),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackKey+8, asm.R1, asm.DWord),
	)
	// The argument that tells calls apart, by ABI and number.
	for _, abi := range []struct {
		arch syscalls.Arch
		is32 int32
		args [2]int16
		skip string
	}{{l.native, 0, l.arg, "try32"}, {l.a32, 1, l.arg32, "done"}} {
		first := asm.JNE.Imm(asm.R9, abi.is32, abi.skip)
		if abi.is32 == 1 {
			first = first.WithSymbol("try32")
		}
		out = append(out, first)
		for _, name := range []string{"socket", "clone", "personality", "prctl", "ioctl"} {
			if nr, ok := abi.arch.Number(name); ok {
				out = append(out, asm.JEq.Imm(asm.R8, int32(nr), fmt.Sprintf("arg%d_%d", seccomp.ArgOf(name), abi.is32)))
			}
		}
		out = append(out, asm.Ja.Label("done"))
		for i, off := range abi.args {
			code := readWord(off, asm.R1)
			code[0] = code[0].WithSymbol(fmt.Sprintf("arg%d_%d", i, abi.is32))
			out = append(out, code...)
			if abi.is32 == 1 || i == 1 { // 32-bit registers, and ioctl's int
				out = append(out, asm.LSh.Imm(asm.R1, 32), asm.RSh.Imm(asm.R1, 32))
			}
			out = append(out, asm.StoreMem(asm.RFP, stackKey+8, asm.R1, asm.DWord), asm.Ja.Label("done"))
		}
	}
	return out
}

// add counts in the field at off of the key's value, which it makes first.
func add(counts, lost *ebpf.Map, off int16, tag string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, counts.FD()).WithSymbol("count" + tag),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "have"+tag),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackValue, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, stackValue+8, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, stackValue+16, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackValue),
		asm.Mov.Imm(asm.R4, 1), // BPF_NOEXIST: another CPU may have been first
		asm.FnMapUpdateElem.Call(),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "have"+tag),
		// No room.
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackWord, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, lost.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackWord),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Ja.Label("out"),
		asm.Mov.Imm(asm.R1, 1).WithSymbol("have" + tag),
		asm.Add.Imm(asm.R0, int32(off)),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
	}
}

func begin(filter asm.Instructions) asm.Instructions {
	out := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	out = append(out, filter...)
	return append(out, asm.LoadMem(asm.R7, asm.R6, 0, asm.DWord)) // struct pt_regs *
}

func task() asm.Instructions {
	return asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(),
		asm.StoreMem(asm.RFP, stackTask, asm.R0, asm.DWord),
	}
}

func end() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return()}
}

// enter runs at sys_enter, behind seccomp: the call is going to be executed. It
// counts, and keeps the key for exit.
func enter(l layout, filter asm.Instructions, counts, lost, inside *ebpf.Map) asm.Instructions {
	out := append(begin(filter), asm.LoadMem(asm.R8, asm.R6, 8, asm.DWord)) // long id
	out = append(out, describe(l)...)
	keep := append(task(),
		asm.LoadMapPtr(asm.R1, inside.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackTask),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackKey),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	)
	keep[0] = keep[0].WithSymbol("done")
	out = append(out, keep...)
	out = append(out, add(counts, lost, 0, "e")...)
	return append(out, end()...)
}

// exit runs at sys_exit. A call that was not seen entering was answered by
// seccomp.
func exit(l layout, filter asm.Instructions, counts, lost, inside *ebpf.Map) asm.Instructions {
	out := append(begin(filter), task()...)
	out = append(out,
		asm.LoadMapPtr(asm.R1, inside.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackTask),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "denied"),
		// Seen entering: its key is the one kept.
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.RFP, stackKey, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R0, 8, asm.DWord),
		asm.StoreMem(asm.RFP, stackKey+8, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, inside.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackTask),
		asm.FnMapDeleteElem.Call(),
		asm.LoadMem(asm.R1, asm.R6, 8, asm.DWord), // long ret
		asm.JNE.Imm(asm.R1, -38, "out"),
	)
	out = append(out, add(counts, lost, 16, "n")...)
	out = append(out, asm.Ja.Label("out"))
	denied := readWord(l.nr, asm.R8)
	denied[0] = denied[0].WithSymbol("denied")
	out = append(out, denied...)
	// The number is an int; a task's way out of fork shows none.
	out = append(out, asm.LSh.Imm(asm.R8, 32), asm.ArSh.Imm(asm.R8, 32), asm.JSLT.Imm(asm.R8, 0, "out"))
	// A new task's first act is to leave the call that made it, with 0, and
	// what was under way when the recording began leaves too: only errors
	// count, those of interrupted calls excepted.
	out = append(out,
		asm.LoadMem(asm.R1, asm.R6, 8, asm.DWord),
		asm.JSGE.Imm(asm.R1, 0, "out"),
		asm.JEq.Imm(asm.R1, -4, "out"),
		asm.JSLT.Imm(asm.R1, -511, "out"),
	)
	out = append(out, describe(l)...)
	count := add(counts, lost, 8, "d")
	count[0] = asm.LoadMapPtr(asm.R1, counts.FD()).WithSymbol("done")
	out = append(out, count...)
	return append(out, end()...)
}
