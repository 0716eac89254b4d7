// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/analysis"
)

func newDiffCommand(e *answer.Env) *cobra.Command {
	var (
		set, contexts    []string
		rules, decisions bool
		all              bool
	)
	cmd := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Compare two policies: what they are made of, and what they come to allow",
		Long: `Compares policy B with policy A, each a file or a store. Changes are what the policies
are made of: rules as they are written, types, roles, users, booleans, classes,
constraints, labels. Decisions are which permissions on which types came to be allowed
or denied for which types, however the rules are written; constraints are not applied
to those. With --context, decisions between full contexts are compared too: each on
itself and on the others, constraints included.

Ends with exit code 1 when the policies differ.`,
		Example: `  palisade selinux diff /etc/selinux/default /etc/selinux/mls
  palisade selinux diff before.33 after.33 --decisions --context system_u:system_r:svirt_t:s0:c1,c2`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			a, b := policyFlags{policy: args[0], set: set}, policyFlags{policy: args[1], set: set}
			left, err := a.server(e)
			if err != nil {
				return err
			}
			right, err := b.server(e)
			if err != nil {
				return err
			}
			d := analysis.Diff(left, right)
			if len(contexts) > 0 {
				if d.Contexts, err = analysis.DiffContexts(left, right, contexts); err != nil {
					return answer.No(err)
				}
			}
			if e.JSON {
				err = e.PrintJSON(d)
			} else {
				printDiff(e, &d, rules || !decisions, decisions || !rules, all)
			}
			if err == nil && !d.Same() {
				err = answer.No(nil)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&set, "set", nil, "compare decisions as if a boolean were set in both, NAME=on or NAME=off; may be repeated")
	flags.StringArrayVar(&contexts, "context", nil, "compare the decisions of this `context` too; may be repeated")
	flags.BoolVar(&rules, "rules", false, "print only what the policies are made of")
	flags.BoolVar(&decisions, "decisions", false, "print only decisions")
	flags.BoolVar(&all, "all", false, "print long lists in full")
	return cmd
}

func printDiff(e *answer.Env, d *analysis.Difference, rules, decisions, all bool) {
	list := func(words []string) string {
		const most = 6
		if len(words) == 1 {
			return words[0]
		}
		if len(words) > most && !all {
			return fmt.Sprintf("{ %s … %d in all }", strings.Join(words[:most-2], " "), len(words))
		}
		return "{ " + strings.Join(words, " ") + " }"
	}
	signed := func(plus, minus []string) string {
		var out string
		if len(plus) > 0 {
			out += " +" + list(plus)
		}
		if len(minus) > 0 {
			out += " -" + list(minus)
		}
		return out
	}
	if rules {
		for _, c := range d.Changes {
			sign := map[string]string{"added": "+", "removed": "-", "modified": "*"}[c.What]
			tail := signed(c.Plus, c.Minus)
			if c.What != "modified" {
				tail = ""
				if words := append(append([]string{}, c.Plus...), c.Minus...); len(words) > 0 {
					tail = " " + list(words)
				}
			}
			fmt.Fprintf(e.Stdout, "%s %s %s%s\n", sign, c.Kind, c.Name, tail)
		}
	}
	if decisions {
		for _, c := range d.Decisions {
			fmt.Fprintf(e.Stdout, "decision: %s on %s:%s%s\n", list(c.Sources), list(c.Targets), c.Class, signed(c.Allowed, c.Denied))
		}
	}
	for _, c := range d.Contexts {
		if c.Invalid != "" {
			fmt.Fprintf(e.Stdout, "context: %s: %s\n", c.Source, c.Invalid)
			continue
		}
		fmt.Fprintf(e.Stdout, "context: %s on %s:%s%s\n", c.Source, c.Target, c.Class, signed(c.Allowed, c.Denied))
	}
	allowed, denied := d.Permissions()
	fmt.Fprintf(e.Stderr, "%d changes; %d permissions of pairs of types came to be allowed, %d denied\n", len(d.Changes), allowed, denied)
}
