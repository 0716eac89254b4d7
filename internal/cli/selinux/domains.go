// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/analysis"
)

func newDomainsCommand(e *answer.Env) *cobra.Command {
	var (
		src            policyFlags
		from, to       string
		into, whatever bool
		paths          int
	)
	cmd := &cobra.Command{
		Use:   "domains [flags] -s FROM [-t TO]",
		Short: "Ask which domains a domain can become, and by which executables",
		Long: `Lists the changes of domain of one step out of FROM (or into it, with --into), or with
-t the shortest ways to TO. A change needs the permission transition, an executable that
FROM may execute and TO may be entered by, and a type_transition rule or setexec; or
dyntransition and setcurrent.

Ends with exit code 1 when there is none.`,
		Example: `  palisade selinux domains --policy policy.33 -s init_t -t svirt_t`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case from == "":
				return answer.Fail(errors.New("no source")).Hint("name a domain with -s")
			case into && to != "":
				return answer.Fail(errors.New("--into is about one domain")).Hint("for a way in the other direction swap -s and -t")
			case paths < 0:
				return answer.Fail(errors.New("a negative number of paths")).Hint("0 shows all")
			}
			server, err := src.server(e)
			if err != nil {
				return err
			}
			g := analysis.NewDomainGraph(server, whatever)
			found := [][]analysis.DomainStep{}
			if to != "" {
				found, err = g.Shortest(from, to, paths)
			} else {
				var steps []analysis.DomainStep
				steps, err = g.Direct(from, into)
				for _, s := range steps {
					found = append(found, []analysis.DomainStep{s})
				}
			}
			if err != nil {
				return answer.No(err)
			}
			if e.JSON {
				if err := e.PrintJSON(found); err != nil {
					return err
				}
			} else {
				printDomains(e, found, to != "" && len(found) > 1)
			}
			if len(found) == 0 {
				fmt.Fprintln(e.Stderr, "no change of domain")
				return answer.No(nil)
			}
			return nil
		},
	}
	src.register(cmd)
	src.registerSet(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&from, "source", "s", "", "`domain` to begin with")
	flags.StringVarP(&to, "target", "t", "", "`domain` to get to")
	flags.BoolVar(&into, "into", false, "list the changes into the domain instead of those out of it")
	flags.BoolVar(&whatever, "any-boolean", false, "count rules whatever booleans they depend on")
	flags.IntVarP(&paths, "paths", "n", 1, "number of shortest ways to show, 0 for all")
	return cmd
}

func printDomains(e *answer.Env, paths [][]analysis.DomainStep, numbered bool) {
	for i, path := range paths {
		if numbered {
			fmt.Fprintf(e.Stdout, "path %d\n", i+1)
		}
		for _, s := range path {
			var how []string
			var automatic, asked []string
			for _, x := range s.Exec {
				if x.Automatic {
					automatic = append(automatic, x.Type)
				} else {
					asked = append(asked, x.Type)
				}
			}
			if len(automatic) > 0 {
				how = append(how, "executes "+strings.Join(automatic, " "))
			}
			if len(asked) > 0 {
				how = append(how, "asks for it and executes "+strings.Join(asked, " "))
			}
			if s.Dynamic {
				how = append(how, "changes itself")
			}
			fmt.Fprintf(e.Stdout, "%s -> %s: %s\n", s.From, s.To, strings.Join(how, "; "))
		}
	}
}
