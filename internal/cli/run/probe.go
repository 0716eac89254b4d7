// SPDX-License-Identifier: Apache-2.0

package run

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/probe"
)

// claimsVariable hands the claims of a policy to a probe run in a container.
const claimsVariable = "PALISADE_PROBE_CLAIMS"

// ProbeCommand is "palisade probe".
func ProbeCommand(e *answer.Env) *cobra.Command {
	var claims string
	var only []string
	var list, verbose bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Try what escapes are made of, harmlessly, and say what stopped it",
		Long: `Tries, from inside a container, about a hundred things that a confined process
must not get, and says of each whether it is blocked, by which errno and layer, or
open. Nothing is damaged when a try succeeds: the kernel gives or refuses its
permission and the call then fails on its arguments, or ends with the process.

--claims says what the policy in force claims to block: default, strict, none,
names of probes separated by commas, @FILE or JSON. Without it the variable
PALISADE_PROBE_CLAIMS is read. What is claimed to be blocked and is open ends the
command with exit code 1.`,
		Example: "  palisade run --probe\n  palisade run -- /palisade probe --json\n  palisade probe --claims default",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return listProbes(e)
			}
			c, err := readClaims(cmp.Or(claims, os.Getenv(claimsVariable)))
			if err != nil {
				return answer.Fail(err).Hint("--claims takes default, strict, none, names of probes (see --list), @FILE or JSON")
			}
			results, err := probe.Run(cmd.Context(), probe.Options{Only: only, Timeout: timeout, Claims: c})
			if errors.Is(err, probe.ErrNoWorker) {
				return answer.Fail(err).Hint("probing needs /proc, and permission to start processes of its own")
			}
			if err != nil {
				return answer.Fail(err).Hint("palisade probe --list has the names")
			}
			if e.JSON {
				err = e.PrintJSON(results)
			} else {
				err = printProbes(e.Stdout, results, verbose)
			}
			if err != nil {
				return err
			}
			if bad := probe.Violations(results); len(bad) > 0 {
				names := make([]string, 0, len(bad))
				for _, r := range bad {
					names = append(names, r.Name)
				}
				return answer.No(fmt.Errorf("open, though the policy %s claims to block it: %s", c.Policy, strings.Join(names, ", ")))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&claims, "claims", "", "what the policy claims to block: default, strict, none, NAME,…, @FILE or JSON")
	cmd.Flags().StringSliceVar(&only, "only", nil, "run only the probes of these names")
	cmd.Flags().BoolVar(&list, "list", false, "list the probes and what an attacker would do with each")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list blocked probes one by one")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "kill a probe that takes longer")
	cmd.AddCommand(newProbeServeCommand(e))
	return cmd
}

// newProbeServeCommand is how a probe run starts its workers.
func newProbeServeCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:    "serve ROLE",
		Short:  "Serve a probe run (started by 'palisade probe' itself)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			// Standard output directly: each answer is waited for.
			if code := probe.Serve(args, os.Stdin, os.Stdout); code != 0 {
				return answer.ExitWith(code)
			}
			return nil
		},
	}
}

func readClaims(text string) (probe.Claims, error) {
	if name, ok := strings.CutPrefix(text, "@"); ok {
		f, err := os.Open(name)
		if err != nil {
			return probe.Claims{}, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err != nil {
			return probe.Claims{}, err
		}
		text = string(b)
	}
	return probe.ParseClaims(text)
}

func listProbes(e *answer.Env) error {
	list := probe.List()
	if e.JSON {
		type described struct {
			Name  string `json:"name"`
			Group string `json:"group"`
			About string `json:"about"`
		}
		out := make([]described, 0, len(list))
		for _, d := range list {
			out = append(out, described(d))
		}
		return e.PrintJSON(out)
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	for _, d := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", d.Group, d.Name, d.About)
	}
	return w.Flush()
}

// printProbes shows each group: what is open line by line, what is blocked
// counted by layer unless all is asked for.
func printProbes(out io.Writer, results []probe.Result, verbose bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tPROBE\tOUTCOME\tERRNO\tLAYER\tNOTE")
	counts := map[probe.Outcome]int{}
	layers := map[probe.Layer]int{}
	var order []probe.Layer
	for _, r := range results {
		counts[r.Outcome]++
		if r.Outcome == probe.Blocked {
			if layers[r.Layer] == 0 {
				order = append(order, r.Layer)
			}
			layers[r.Layer]++
		}
		if r.Outcome != probe.Open && !verbose {
			continue
		}
		var notes []string
		if r.Outcome == probe.Open && r.Claimed {
			notes = append(notes, "CLAIMED TO BE BLOCKED")
		}
		if r.Outcome == probe.Open && r.Control == probe.Open {
			notes = append(notes, "open in Docker too")
		}
		switch {
		case r.Proves:
		case r.Outcome == probe.Open:
			notes = append(notes, "proves nothing: nothing is known to block it")
		case r.Outcome == probe.Blocked:
			notes = append(notes, "proves nothing: not seen open anywhere")
		}
		if r.Note != "" {
			notes = append(notes, r.Note)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Group, r.Name, r.Outcome, cmp.Or(r.Errno, "-"), cmp.Or(string(r.Layer), "-"), strings.Join(notes, "; "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	parts := make([]string, 0, len(order))
	for _, l := range order {
		parts = append(parts, fmt.Sprintf("%s %d", cmp.Or(string(l), "layer not provable"), layers[l]))
	}
	by := ""
	if len(parts) > 0 {
		by = " (" + strings.Join(parts, ", ") + ")"
	}
	_, err := fmt.Fprintf(out, "\n%d probes: %d blocked%s, %d open, %d not applicable\n",
		len(results), counts[probe.Blocked], by, counts[probe.Open], counts[probe.NotApplicable])
	return err
}
