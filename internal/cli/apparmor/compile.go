// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// targetFlags are the flags that say for which kernel to compile.
type targetFlags struct {
	sourceFlags
	format   string
	level    string
	complain bool
}

func (t *targetFlags) register(cmd *cobra.Command) {
	t.sourceFlags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&t.format, "format", "", "encoding of permissions: v7 (every kernel) or permstable (default: the newest that the features have)")
	f.StringVar(&t.level, "level", "", "meaning of the language: 3 or 4 (default: 3 for kernels that only AppArmor 3 knows, else 4)")
	f.BoolVar(&t.complain, "complain", false, "make the kernel load every profile in complain mode")
}

const targetHelp = `The features say for which kernel to compile: those of --features, else those of
the running kernel, else those that every kernel since 6.1 has. A class of rules
is compiled only where both they and the abi that the profile declares have it.
A profile without an abi statement is taken to be written for that kernel.`

func (t *targetFlags) options() (compile.Options, error) {
	o := compile.Options{Complain: t.complain}
	switch t.format {
	case "":
	case "v7":
		o.Format = compile.FormatV7
	case "permstable":
		o.Format = compile.FormatPermstable
	default:
		return o, answer.Fail(fmt.Errorf("unknown format %q", t.format)).Hint("the formats are v7 and permstable")
	}
	switch t.level {
	case "":
	case "3", "3.0":
		o.Level = compile.Level3
	case "4", "4.0", "4.1":
		o.Level = compile.Level4
	default:
		return o, answer.Fail(fmt.Errorf("unknown level %q", t.level)).Hint("the levels are 3 and 4")
	}
	return o, nil
}

// compile resolves and compiles one file. Findings go to standard error.
func (t *targetFlags) compile(e *answer.Env, path string, quiet bool) (*compile.Policy, error) {
	o, err := t.options()
	if err != nil {
		return nil, err
	}
	configure := func(env *apparmor.Env) {
		env.SkipExecCheck = true
		if env.Kernel == nil {
			var err error
			if env.Kernel, err = (securityfs.FS{}).Features(); err != nil {
				env.Kernel = compile.Portable()
			}
		}
		if env.ABI == nil {
			env.ABI = env.Kernel
		}
		o.Kernel = env.Kernel
	}
	policy, found, err := t.load(e, path, configure)
	if err != nil {
		return nil, err
	}
	var out *compile.Policy
	if policy != nil {
		compiled, diags := compile.New(o).Compile(policy)
		found.list = append(found.list, diags...)
		out = compiled
	}
	if quiet && out != nil {
		return out, nil
	}
	return out, printFindings(e, path, found, out == nil)
}

type compiledProfile struct {
	Name     string `json:"name"`
	Bytes    int    `json:"bytes"`
	States   int    `json:"states"`
	Rules    int    `json:"rules"`
	Attached bool   `json:"attached"`
}

func newCompileCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var out string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "compile [flags] FILE|-",
		Short: "Turn profiles into the binary policy that the kernel loads",
		Long: `Compiles all profiles of a file into one stream, on standard output or in the
file of -o, which is written whole or not at all. No kernel is needed.

` + targetHelp + "\n\n" + sourceHelp,
		Example: "  palisade apparmor compile -o web.bin web.profile\n  palisade apparmor compile --features kernel.features --format v7 - <web.profile | palisade apparmor decode -",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			policy, err := t.compile(e, args[0], quiet)
			if err != nil {
				return err
			}
			b, err := policy.Encode()
			if err != nil {
				return answer.No(err)
			}
			switch {
			case out != "" && out != "-":
				if err := answer.WriteFile(out, b); err != nil {
					return err
				}
			case e.JSON:
				// The answer is the description then; the policy needs -o.
			default:
				_, err := e.Stdout.Write(b)
				return err
			}
			if e.JSON {
				list := []compiledProfile{}
				for _, p := range policy.Profiles {
					one, err := blob.Encode(p.Blob)
					if err != nil {
						return err
					}
					c := compiledProfile{Name: p.Resolved.FullName(), Bytes: len(one), Rules: len(p.Resolved.Rules), Attached: p.Blob.XMatch != nil}
					for _, a := range []*blob.Automaton{p.Blob.XMatch, p.Blob.PolicyDB, p.Blob.File} {
						if a != nil {
							c.States += a.Table.States()
						}
					}
					list = append(list, c)
				}
				return e.PrintJSON(list)
			}
			return nil
		},
	}
	t.register(cmd)
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write the policy to")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave out warnings")
	return cmd
}
