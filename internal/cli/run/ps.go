// SPDX-License-Identifier: Apache-2.0

package run

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/container"
)

// PSCommand is "palisade ps".
func PSCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List confined containers",
		Long: `Lists the containers that 'palisade run' started, those that an engine started through
palisade-oci, and the domains that libvirt started through palisade-lxc, with their
labels.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			list, err := container.List(dir)
			if err != nil {
				defer e.Warnf("%v", err)
			}
			if e.JSON {
				return e.PrintJSON(list)
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATUS\tPID\tPOLICY\tLABEL\tAGE\tCOMMAND")
			for _, c := range list {
				pid := "-"
				if c.PID > 0 {
					pid = strconv.Itoa(c.PID)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shortID(c.ID), c.Status, pid, c.Policy, c.Label, age(c.Created), shorten(strings.Join(c.Command, " ")))
			}
			return w.Flush()
		},
	}
}

// shortID shows of an engine's 64 digits those that engines show.
func shortID(id string) string {
	const engineID, shown = 64, 12
	if len(id) == engineID {
		return id[:shown]
	}
	return id
}

func shorten(s string) string {
	const most = 40
	s = answer.OneLine(s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
