// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// compiled is the JSON answer of `seccomp compile`.
type compiled struct {
	Profile      string          `json:"profile"`
	Mode         seccomp.Mode    `json:"mode"`
	ABIs         []syscalls.Arch `json:"abis"`
	Instructions int             `json:"instructions"`
	MeanUniform  float64         `json:"mean_uniform"`
	MeanWeighted float64         `json:"mean_weighted"`
	CompileNS    int64           `json:"compile_ns"`
	Cacheable    int             `json:"cacheable"`
	Calls        int             `json:"calls"`
	Flags        []string        `json:"flags"`
	Output       string          `json:"output,omitempty"`
	BPF          string          `json:"bpf,omitempty"`
}

func newCompileCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var profile, weights, output string
	cmd := &cobra.Command{
		Use:   "compile [PROFILE]",
		Short: "Compile a profile to classic BPF",
		Long: `Compiles a profile to the classic BPF that seccomp(2) takes: a raw array of struct
sock_filter in the byte order of the target machine. Without -o it goes to standard
output, unless --json is given.

The JSON answer says how many instructions there are, how many of them a call
executes on the average (all calls of the native ABI alike, and weighted), how many
calls the kernel answers from its cache without running the filter, and how long
compiling took: the fastest of several runs, from the profile's text to the filter.

--weights takes what "seccomp record" wrote, or one of the words uniform (all calls
alike), builtin (the mix of five recorded workloads) and cached (builtin, for kernels
since 5.11, which never run the filter for calls that are always allowed).`,
		Example: "  palisade seccomp compile --profile docker --arch amd64,x86,x32 -o docker.bpf\n  palisade seccomp compile --profile p.json --caps all --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if profile != "" {
					return answer.Fail(errors.New("a profile both as argument and with --profile")).Hint("give it once")
				}
				profile = args[0]
			}
			return compileProfile(e, &t, profile, weights, output)
		},
	}
	t.register(cmd)
	cmd.Flags().StringVar(&profile, "profile", "", "profile file, - for standard input, or docker (default docker)")
	cmd.Flags().StringVar(&weights, "weights", "", "how frequent calls are: a file, uniform, builtin or cached")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the filter to this file")
	return cmd
}

func readWeights(e *answer.Env, name string) (*seccomp.Weights, error) {
	switch name {
	case "":
		return seccomp.Balanced(), nil
	case "uniform":
		return seccomp.Uniform, nil
	case "builtin":
		return seccomp.Recorded(), nil
	case "cached":
		w := *seccomp.Recorded()
		w.Cached = true
		return &w, nil
	}
	data, err := readInput(e, name)
	if err != nil {
		return nil, err
	}
	w, err := seccomp.ParseWeights(name, data)
	if err != nil {
		return nil, answer.No(err)
	}
	return w, nil
}

// isTerminal tells whether standard output is one.
func isTerminal() bool {
	_, err := unix.IoctlGetTermios(1, unix.TCGETS)
	return err == nil
}

func compileProfile(e *answer.Env, t *targetFlags, profile, weights, output string) error {
	h, mode, err := t.host()
	if err != nil {
		return err
	}
	w, err := readWeights(e, weights)
	if err != nil {
		return err
	}
	name, text := "docker", seccomp.DockerJSON()
	if profile != "" && profile != "docker" {
		name = profile
		if text, err = readInput(e, profile); err != nil {
			return err
		}
	}
	if _, err := parseProfile(e, name, text); err != nil {
		return err
	}
	var p *seccomp.Program
	var f *seccomp.Filter
	best := time.Duration(-1)
	runs := 1
	if e.JSON {
		runs = 20
	}
	for range runs {
		start := time.Now()
		prof, err := seccomp.Parse(name, text)
		if err != nil {
			return answer.No(err)
		}
		if f, err = prof.Resolve(h); err != nil {
			return rejected(err)
		}
		if p, err = f.Compile(seccomp.Options{Mode: mode, Weights: w}); err != nil {
			return rejected(err)
		}
		if d := time.Since(start); best < 0 || d < best {
			best = d
		}
	}
	if output != "" && output != "-" {
		if err := answer.WriteFile(output, p.Bytes()); err != nil {
			return err
		}
	}
	if !e.JSON {
		if output == "" {
			if isTerminal() {
				return answer.Fail(errors.New("a filter is binary, and standard output is a terminal")).Hint("use -o FILE, --json, or 'palisade seccomp disasm %s'", name)
			}
		}
		if output == "" || output == "-" {
			_, err = e.Stdout.Write(p.Bytes())
		}
		return err
	}
	mix := w.Counts[p.Native]
	if mix == nil {
		mix = seccomp.Recorded().Counts[syscalls.X86_64]
	}
	out := compiled{
		Profile: name, Mode: mode, ABIs: p.ABIs, Instructions: len(p.Instructions),
		MeanUniform: p.Mean(nil), MeanWeighted: p.Mean(mix), CompileNS: best.Nanoseconds(),
		Flags: f.Flags(), Output: output,
	}
	p.Native.Each(func(nr uint32, _ string) {
		out.Calls++
		if ok, _ := p.Instructions.Cacheable(p.Native.Audit(), nr); ok {
			out.Cacheable++
		}
	})
	if output == "" {
		out.BPF = base64.StdEncoding.EncodeToString(p.Bytes())
	}
	return e.PrintJSON(out)
}

func newCheckCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	cmd := &cobra.Command{
		Use:   "check FILE…",
		Short: "Say whether profiles and filters are valid, and compare each with a second reading",
		Long: `Reads profiles, resolves and compiles them, and compares the compiled filter with a
slow second evaluator over the borders of all conditions. Compiled filters are
verified as the kernel does. Exit code 1 when one is not valid.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return checkProfiles(e, &t, args) },
	}
	t.register(cmd)
	return cmd
}

func checkProfiles(e *answer.Env, t *targetFlags, files []string) error {
	type checked struct {
		File         string          `json:"file"`
		Valid        bool            `json:"valid"`
		Error        string          `json:"error,omitempty"`
		ABIs         []syscalls.Arch `json:"abis,omitempty"`
		Instructions int             `json:"instructions,omitempty"`
		Compared     int             `json:"compared,omitempty"`
	}
	var out []checked
	var first error
	for _, name := range files {
		a := checked{File: name}
		f, err := loadFilter(e, name, t)
		if err == nil {
			a.ABIs, a.Instructions = f.archs, len(f.program)
			if f.filter != nil {
				a.Compared, err = f.filter.SelfTest(f.mode, f.program)
			}
		}
		if a.Valid = err == nil; err != nil {
			if !answer.IsNo(err) {
				return err
			}
			a.Error = err.Error()
			if first == nil {
				first = err
			} else if !e.JSON {
				answer.Report(e.Stderr, err)
			}
		} else if !e.JSON {
			fmt.Fprintf(e.Stdout, "%s: valid, %d instructions for %s", name, a.Instructions, archList(f.archs))
			if a.Compared > 0 {
				fmt.Fprintf(e.Stdout, ", %d cases alike in both readings", a.Compared)
			}
			fmt.Fprintln(e.Stdout)
		}
		out = append(out, a)
	}
	if e.JSON {
		if err := e.PrintJSON(out); err != nil {
			return err
		}
		if first != nil {
			return answer.No(nil)
		}
	}
	return first
}

func archList(archs []syscalls.Arch) string {
	s := ""
	for i, a := range archs {
		if i > 0 {
			s += ","
		}
		s += a.String()
	}
	return s
}

func newDisasmCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	cmd := &cobra.Command{
		Use:     "disasm FILE",
		Short:   "Print a filter's instructions",
		Example: "  palisade seccomp disasm docker --arch amd64\n  palisade seccomp disasm pid:1234",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := loadFilter(e, args[0], &t)
			if err != nil {
				return err
			}
			if e.JSON {
				type insn struct {
					Code uint16 `json:"code"`
					JT   uint8  `json:"jt"`
					JF   uint8  `json:"jf"`
					K    uint32 `json:"k"`
				}
				all := make([][]insn, len(f.stack))
				for i, p := range f.stack {
					for _, in := range p {
						all[i] = append(all[i], insn{in.Op, in.JT, in.JF, in.K})
					}
				}
				return e.PrintJSON(all)
			}
			for i, p := range f.stack {
				if len(f.stack) > 1 {
					fmt.Fprintf(e.Stdout, "# filter %d of %d, the newest first\n", i+1, len(f.stack))
				}
				fmt.Fprint(e.Stdout, p.Format(f.big, describe(f.archs)))
			}
			return nil
		},
	}
	t.register(cmd)
	return cmd
}

// describe names numbers and architectures. The ABI that a number belongs to is
// not known at a comparison, so it is named where all ABIs agree or there is one.
func describe(archs []syscalls.Arch) cbpf.Describe {
	return func(off int64, k uint32) string {
		switch off {
		case cbpf.OffsetArch:
			if list := syscalls.FromAudit(k); len(list) > 0 {
				return list[0].String()
			}
		case cbpf.OffsetNr:
			s := ""
			for _, a := range archs {
				if n, ok := a.Name(k); ok {
					if len(archs) > 1 {
						n = a.String() + " " + n
					}
					if s != "" {
						s += ", "
					}
					s += n
				}
			}
			return s
		}
		return ""
	}
}
