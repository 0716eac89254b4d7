// SPDX-License-Identifier: Apache-2.0

// Package host is the command line of the host: what it can enforce, how that is
// turned on, and how its engines are set up.
package host

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/hostfacts/bpflsm"
	"github.com/palisade-sec/palisade/internal/integrate"
	"github.com/palisade-sec/palisade/target"
)

// Command is "palisade host".
func Command(e *answer.Env) *cobra.Command {
	return answer.Group("host", "what this host can enforce, and how its engines are set up", newStatusCommand(e), newIntegrateCommand(e), newEnableCommand(e))
}

func newStatusCommand(e *answer.Env) *cobra.Command {
	var brief bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what this host enforces, why it matters and how to turn on what is off",
		Long: `Reads the running host once and says of each mechanism whether it enforces, is
present but off, or is absent, why it matters, and how to turn it on. Nothing is
changed. What could not be determined is said, and is no error.`,
		Example: "  palisade host status\n  palisade host status --json | jq -r .selinux.state",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status := hostfacts.Read(cmd.Context(), hostfacts.Options{Engine: integrate.Describe, LoadLSM: bpflsm.Load})
			if e.JSON {
				return e.PrintJSON(status)
			}
			return printStatus(e.Stdout, status, brief)
		},
	}
	cmd.Flags().BoolVar(&brief, "brief", false, "one line for each mechanism")
	return cmd
}

var stateWords = map[target.State]string{
	target.Enforcing: "enforcing", target.Off: "present but off", target.Absent: "absent", target.StateUnknown: "could not tell",
}

// usable are the mechanisms that enforce nothing by themselves.
var usable = map[string]bool{"user namespaces": true, "cgroups": true, "tee": true}

func printStatus(out io.Writer, s *hostfacts.Status, brief bool) error {
	lsms := strings.Join(s.LSM, ",")
	switch {
	case s.LSMSource == "":
		lsms = "could not tell"
	case lsms == "":
		lsms = "none"
	}
	fmt.Fprintf(out, "kernel    %s\n", s.Kernel.Detail)
	fmt.Fprintf(out, "modules   %s\n\n", lsms)
	for _, m := range s.Mechanisms() {
		state := stateWords[m.State]
		if m.State == target.Enforcing && usable[m.Name] {
			state = "usable"
		}
		fmt.Fprintf(out, "%-16s %-16s %s\n", m.Name, state, m.Detail)
		if brief {
			continue
		}
		fmt.Fprintf(out, "    why          %s\n", m.Why)
		if m.Enable != "" {
			fmt.Fprintf(out, "    to turn on   %s\n", m.Enable)
		}
		for _, u := range m.Unknown {
			fmt.Fprintf(out, "    not known    %s\n", strings.ReplaceAll(u, "\n", "; "))
		}
	}
	if len(s.Runtimes) == 0 {
		_, err := fmt.Fprintf(out, "\nno container runtime or engine is installed\n")
		return err
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "INSTALLED\tVERSION\tPATH\tLABELS\tWRAPPER\tNOTE")
	for _, r := range s.Runtimes {
		wrapper := r.Palisade.String()
		if r.Kind == "runtime" {
			wrapper = "-"
		}
		version := r.Version
		if version == "" {
			version = "unknown"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, version, r.Path, r.SELinux, wrapper, r.Detail)
	}
	return w.Flush()
}
