// SPDX-License-Identifier: Apache-2.0

// Package seccomp is the command line of seccomp: profiles and filters compiled,
// evaluated, explained, compared and recorded.
package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// Command is "palisade seccomp".
func Command(e *answer.Env) *cobra.Command {
	cmd := answer.Group("seccomp", "compile, evaluate, explain, compare and record seccomp profiles",
		newCompileCommand(e), newCheckCommand(e), newDisasmCommand(e), newEvalCommand(e),
		newExplainCommand(e), newDiffCommand(e), newLintCommand(e), newShowCommand(e),
		newGroupsCommand(e), newRecordCommand(e))
	cmd.Long = `Reads seccomp profiles as Docker, Podman and OCI runtimes write them (a config.json
does as well), compiles them to classic BPF, and says what they do. Where a command
takes a profile, it also takes a compiled filter (raw struct sock_filter), the word
"docker" for Docker's default profile, and "pid:N" for the filters of a process.`
	return cmd
}

// targetFlags are the flags that say which container on which machine a
// profile is read for.
type targetFlags struct {
	caps, archs, kernel, mode string
}

func (t *targetFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.caps, "caps", "docker", "capabilities of the container: a list, docker (its 14), all or none")
	f.StringVar(&t.archs, "arch", "", "ABIs to filter, the machine's own first: amd64,x86,x32 (default: this machine's, and what the profile adds)")
	f.StringVar(&t.kernel, "kernel", "", "kernel version for minKernel conditions (default: newer than any)")
	f.StringVar(&t.mode, "mode", "compat", "compat: as runc with libseccomp; strict: as the profile is written")
}

func nativeArch() syscalls.Arch {
	if a, ok := syscalls.FromGo(runtime.GOARCH); ok {
		return a
	}
	return syscalls.X86_64
}

// machineOf is the native ABI of the machines that serve an ABI.
func machineOf(a syscalls.Arch) syscalls.Arch {
	switch a {
	case syscalls.X86, syscalls.X32:
		return syscalls.X86_64
	case syscalls.ARM:
		return syscalls.ARM64
	case syscalls.S390:
		return syscalls.S390X
	case syscalls.PPC:
		return syscalls.PPC64
	case syscalls.MIPS, syscalls.MIPS64N32:
		return syscalls.MIPS64
	case syscalls.MIPSEL, syscalls.MIPSEL64N32:
		return syscalls.MIPSEL64
	case syscalls.PARISC:
		return syscalls.PARISC64
	}
	return a
}

func parseArchs(s string) ([]syscalls.Arch, error) {
	var out []syscalls.Arch
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		a, err := syscalls.ParseArch(part)
		if err != nil {
			var names []string
			for _, k := range syscalls.All() {
				names = append(names, k.String())
			}
			return nil, answer.Fail(err).Hint("the architectures are %s", strings.Join(names, ", "))
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// host makes what the flags say into what a profile is resolved for.
func (t *targetFlags) host() (h seccomp.Host, mode seccomp.Mode, err error) {
	if mode, err = seccomp.ParseMode(t.mode); err != nil {
		return h, 0, err
	}
	switch t.caps {
	case "all":
		h.AllCaps = true
	case "none", "":
	case "docker", "default":
		h.Caps = caps.Docker.Names()
	default:
		for _, c := range strings.Split(t.caps, ",") {
			if c = strings.TrimSpace(c); c == "" {
				continue
			}
			known, err := caps.Parse(c)
			if err != nil {
				return h, 0, err
			}
			h.Caps = append(h.Caps, known.String())
		}
	}
	if t.kernel != "" {
		if h.Kernel, err = syscalls.ParseVersion(t.kernel); err != nil {
			return h, 0, err
		}
	}
	h.Native = nativeArch()
	if h.Archs, err = parseArchs(t.archs); err != nil {
		return h, 0, err
	}
	if len(h.Archs) > 0 {
		// The machine's own ABI is the first 64-bit one; all others are served
		// beside it.
		h.Native = h.Archs[0]
		for _, a := range h.Archs {
			if a.Is64() {
				h.Native = a
				break
			}
		}
	}
	return h, mode, nil
}

const maxInput = 16 << 20

// readInput reads a file, or standard input for "-".
func readInput(e *answer.Env, name string) ([]byte, error) {
	var r io.Reader = e.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxInput {
		return nil, answer.No(fmt.Errorf("%s is larger than %d bytes", name, maxInput))
	}
	return data, nil
}

// isProfile tells a JSON profile from a compiled filter. A filter never begins
// with a brace: no opcode does.
func isProfile(data []byte) bool {
	trimmed := bytes.TrimLeft(data, " \t\r\n\ufeff")
	return len(trimmed) == 0 || trimmed[0] == '{' || trimmed[0] == '[' || trimmed[0] == '"' || len(data)%8 != 0
}

func readProfile(e *answer.Env, name string) (*seccomp.Profile, error) {
	if name == "docker" || name == "" {
		return seccomp.Docker(), nil
	}
	data, err := readInput(e, name)
	if err != nil {
		return nil, err
	}
	return parseProfile(e, name, data)
}

func parseProfile(e *answer.Env, name string, data []byte) (*seccomp.Profile, error) {
	p, err := seccomp.Parse(name, data)
	if err != nil {
		return nil, answer.No(err)
	}
	_ = diag.Render(e.Stderr, p.Warnings(), answer.Source)
	return p, nil
}

// rejected makes an error of compiling into the answer no.
func rejected(err error) error {
	var list diag.List
	var large *seccomp.TooLargeError
	if errors.As(err, &list) || errors.As(err, &large) || errors.Is(err, seccomp.ErrDisabled) {
		return answer.No(err)
	}
	return err
}

// loadedFilter is a filter from wherever it came.
type loadedFilter struct {
	name    string
	filter  *seccomp.Filter // nil for a compiled filter
	mode    seccomp.Mode
	program cbpf.Program
	stack   []cbpf.Program // all filters of a process, the newest first
	archs   []syscalls.Arch
	big     bool
}

// load reads a profile, a compiled filter or a process's filters.
func loadFilter(e *answer.Env, name string, t *targetFlags) (*loadedFilter, error) {
	h, mode, err := t.host()
	if err != nil {
		return nil, err
	}
	out := &loadedFilter{name: name, mode: mode}
	if pid, ok := strings.CutPrefix(name, "pid:"); ok {
		stack, err := filtersOf(pid)
		if err != nil {
			return nil, err
		}
		if len(stack) == 0 {
			return nil, answer.No(fmt.Errorf("process %s has no seccomp filter", pid))
		}
		out.stack, out.program, out.archs = stack, stack[0], familyOf(nativeArch())
		out.big = out.archs[0].BigEndian()
		return out, nil
	}
	var p *seccomp.Profile
	if name == "docker" {
		p = seccomp.Docker()
	} else {
		data, err := readInput(e, name)
		if err != nil {
			return nil, err
		}
		if !isProfile(data) {
			out.big = h.Native.BigEndian()
			if len(h.Archs) == 0 {
				out.big = cbpf.GuessBigEndian(data)
			}
			prog, err := cbpf.Decode(data, out.big)
			if err == nil {
				err = prog.Verify()
			}
			if err != nil {
				return nil, answer.No(fmt.Errorf("%s: %w", name, err))
			}
			out.program, out.stack = prog, []cbpf.Program{prog}
			if out.archs = h.Archs; len(out.archs) == 0 {
				out.archs = archsIn(prog)
			}
			return out, nil
		}
		if p, err = parseProfile(e, name, data); err != nil {
			return nil, err
		}
	}
	if out.filter, err = p.Resolve(h); err != nil {
		return nil, rejected(fmt.Errorf("%s: %w", name, err))
	}
	prog, err := out.filter.Compile(seccomp.Options{Mode: mode})
	if err != nil {
		return nil, rejected(err)
	}
	out.program, out.archs, out.big = prog.Instructions, prog.ABIs, h.Native.BigEndian()
	out.stack = []cbpf.Program{out.program}
	return out, nil
}

// familyOf lists the ABIs of a machine.
func familyOf(native syscalls.Arch) []syscalls.Arch {
	out := []syscalls.Arch{native}
	for _, a := range syscalls.All() {
		if a != native && machineOf(a) == native {
			out = append(out, a)
		}
	}
	return out
}

// archsIn lists the ABIs whose audit architecture a program compares with.
func archsIn(p cbpf.Program) []syscalls.Arch {
	var out []syscalls.Arch
	for _, i := range p {
		if i.Op == cbpf.JumpEq {
			for _, a := range syscalls.FromAudit(i.K) {
				if !slices.Contains(out, a) {
					out = append(out, a)
				}
			}
		}
	}
	if len(out) == 0 {
		out = familyOf(nativeArch())
	}
	return out
}

// parseNumber reads a system call's number or name.
func parseNumber(a syscalls.Arch, s string) (uint32, error) {
	if n, ok := a.Number(s); ok {
		return n, nil
	}
	if v, err := strconv.ParseInt(s, 0, 64); err == nil && v >= -1<<31 && v <= 1<<32-1 {
		return uint32(v), nil
	}
	if _, known := syscalls.Lookup(s); known {
		return 0, fmt.Errorf("%v has no system call %s", a, s)
	}
	return 0, fmt.Errorf("no system call %q on any architecture", s)
}

func parseArgument(s string) (uint64, error) {
	if v, err := strconv.ParseUint(s, 0, 64); err == nil {
		return v, nil
	}
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		return uint64(v), nil
	}
	return 0, fmt.Errorf("argument %q: want a number", s)
}

// callName names a call for people: its name, or its number.
func callName(a syscalls.Arch, nr uint32) string {
	if n, ok := a.Name(nr); ok {
		return n
	}
	return strconv.FormatInt(int64(int32(nr)), 10)
}
