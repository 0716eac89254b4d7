// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

func newEvalCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var batch, verbose bool
	cmd := &cobra.Command{
		Use:   "eval FILE --arch ARCH NAME|NR [ARG…]",
		Short: "Say what a filter does with a call",
		Long: `Prints the action for one call: ALLOW, LOG, ERRNO(1), TRACE(1), TRAP, NOTIFY,
KILL_THREAD or KILL_PROCESS. Arguments that are not given are 0.

For a profile, --arch names the ABI of the call; the filter is compiled for the
machine that serves it, with the ABIs that the profile lists.

--batch reads lines "ARCH NR A0 … A5" from standard input and prints one action a
line. NR may be a name; ARCH may be a number (AUDIT_ARCH_…). Numbers are taken as the
kernel passes them: an x32 number has bit 30 set.`,
		Example: "  palisade seccomp eval docker --arch amd64 personality 0x20000\n  echo 'amd64 socket 38' | palisade seccomp eval filter.bpf --batch",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			ev := evaluator{e: e, name: args[0], target: t, verbose: verbose}
			if batch {
				if len(args) > 1 {
					return answer.Fail(errors.New("--batch takes calls from standard input, not as arguments")).Hint("give only the file")
				}
				return ev.batch()
			}
			if len(args) < 2 {
				return answer.Fail(errors.New("no system call given")).Hint("palisade seccomp eval %s --arch amd64 openat", args[0])
			}
			if len(args) > 8 {
				return errors.New("a system call has at most six arguments")
			}
			return ev.one(args[1:])
		},
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&batch, "batch", false, "read calls from standard input")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say also which rule decides")
	return cmd
}

// evaluator answers calls of several machines from one input.
type evaluator struct {
	e       *answer.Env
	name    string
	target  targetFlags
	verbose bool

	data     []byte
	profile  *seccomp.Profile
	programs map[syscalls.Arch]*loadedFilter // by machine
	lastArch string
	last     *loadedFilter
	audit    uint32
	arch     syscalls.Arch
}

// filterFor loads the filter for the machine that serves an ABI.
func (ev *evaluator) filterFor(a syscalls.Arch) (*loadedFilter, error) {
	machine := machineOf(a)
	if f := ev.programs[machine]; f != nil {
		return f, nil
	}
	if ev.programs == nil {
		ev.programs = map[syscalls.Arch]*loadedFilter{}
	}
	h, mode, err := ev.target.host()
	if err != nil {
		return nil, err
	}
	f := &loadedFilter{name: ev.name, mode: mode, big: machine.BigEndian()}
	switch {
	case strings.HasPrefix(ev.name, "pid:"):
		if f, err = loadFilter(ev.e, ev.name, &ev.target); err != nil {
			return nil, err
		}
	case ev.name == "docker":
		ev.profile = seccomp.Docker()
	case ev.data == nil:
		if ev.data, err = readInput(ev.e, ev.name); err != nil {
			return nil, err
		}
		if isProfile(ev.data) {
			if ev.profile, err = parseProfile(ev.e, ev.name, ev.data); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case ev.profile != nil:
		h.Native, h.Archs = machine, nil
		if listed, _ := parseArchs(ev.target.archs); len(listed) > 1 {
			h.Archs = listed
		}
		if f.filter, err = ev.profile.Resolve(h); err != nil {
			return nil, rejected(fmt.Errorf("%s: %w", ev.name, err))
		}
		p, err := f.filter.Compile(seccomp.Options{Mode: mode})
		if err != nil {
			return nil, rejected(err)
		}
		f.program, f.archs, f.stack = p.Instructions, p.ABIs, []cbpf.Program{p.Instructions}
	case f.program == nil:
		p, err := cbpf.Decode(ev.data, f.big)
		if err == nil {
			if err = p.Verify(); err != nil && cbpf.GuessBigEndian(ev.data) != f.big {
				err = fmt.Errorf("%w; it looks like a filter of the other byte order than %v's", err, machine)
			}
		}
		if err != nil {
			return nil, answer.No(fmt.Errorf("%s: %w", ev.name, err))
		}
		f.program, f.archs, f.stack = p, archsIn(p), []cbpf.Program{p}
	}
	ev.programs[machine] = f
	return f, nil
}

// act is what all filters together answer.
func (f *loadedFilter) act(d *cbpf.Data) cbpf.Action {
	act := f.stack[0].Eval(d, f.big)
	for _, p := range f.stack[1:] {
		if a := p.Eval(d, f.big); a.Rank() < act.Rank() {
			act = a
		}
	}
	return act
}

func (ev *evaluator) one(args []string) error {
	archs, err := parseArchs(ev.target.archs)
	if err != nil {
		return err
	}
	a := nativeArch()
	if len(archs) > 0 {
		a = archs[0]
	}
	nr, err := parseNumber(a, args[0])
	if err != nil {
		return err
	}
	d := cbpf.Data{Nr: nr, Arch: a.Audit()}
	for i, s := range args[1:] {
		if d.Args[i], err = parseArgument(s); err != nil {
			return err
		}
	}
	f, err := ev.filterFor(a)
	if err != nil {
		return err
	}
	act := f.act(&d)
	var why *seccomp.Reason
	if f.filter != nil {
		why = f.filter.Why(f.mode, a, &d, act)
	}
	if ev.e.JSON {
		out := struct {
			Arch   syscalls.Arch   `json:"arch"`
			Call   string          `json:"syscall"`
			Nr     uint32          `json:"nr"`
			Args   [6]uint64       `json:"args"`
			Action cbpf.Action     `json:"action"`
			Why    *seccomp.Reason `json:"reason,omitempty"`
		}{a, callName(a, nr), nr, d.Args, act, why}
		return ev.e.PrintJSON(out)
	}
	fmt.Fprintln(ev.e.Stdout, act)
	if ev.verbose && why != nil {
		fmt.Fprintf(ev.e.Stderr, "%s\n", why)
	}
	return nil
}

func (ev *evaluator) batch() error {
	var d cbpf.Data
	var buf []byte
	return ev.e.EachLine(func(line int, text string) error {
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			return nil
		}
		if err := ev.parse(text, &d); err != nil {
			if answer.IsNo(err) {
				return err
			}
			return fmt.Errorf("standard input, line %d: %w", line, err)
		}
		buf = append(append(buf[:0], ev.last.act(&d).String()...), '\n')
		_, err := ev.e.Stdout.Write(buf)
		return err
	})
}

// parse reads one line of a batch.
func (ev *evaluator) parse(text string, d *cbpf.Data) error {
	field := func() (s string) {
		text = strings.TrimLeft(text, " \t")
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		s, text = text[:end], text[end:]
		return s
	}
	arch := field()
	if arch != ev.lastArch || ev.last == nil {
		a, err := syscalls.ParseArch(arch)
		audit := uint32(0)
		if err == nil {
			audit = a.Audit()
		} else {
			v, perr := strconv.ParseUint(arch, 0, 32)
			if perr != nil {
				return err
			}
			audit, a = uint32(v), nativeArch()
			if list := syscalls.FromAudit(audit); len(list) > 0 {
				a = list[0]
			}
		}
		if ev.last, err = ev.filterFor(a); err != nil {
			return err
		}
		ev.lastArch, ev.audit, ev.arch = arch, audit, a
	}
	call := field()
	if call == "" {
		return errors.New("want ARCH NR [A0 … A5]")
	}
	*d = cbpf.Data{Arch: ev.audit}
	var err error
	if d.Nr, err = parseNumber(ev.arch, call); err != nil {
		return err
	}
	for i := 0; ; i++ {
		s := field()
		if s == "" {
			return nil
		}
		if i == 6 {
			return errors.New("more than six arguments")
		}
		if d.Args[i], err = parseArgument(s); err != nil {
			return err
		}
	}
}
