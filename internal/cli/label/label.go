// SPDX-License-Identifier: Apache-2.0

// Package label is the command line of labels: who has which, the daemon that
// serves them, and content that is given one.
package label

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/observe"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// Command is "palisade label".
func Command(e *answer.Env) *cobra.Command {
	return answer.Group("label", "Say which label belongs to whom",
		newListCommand(e), newShowCommand(e), newReserveCommand(e),
		newReleaseCommand(e), newCheckCommand(e), newGCCommand(e))
}

// labels opens the registry of the state directory. Unlike containers, labels
// can be managed by any user that may write the directory.
func labels() (svirt.Authority, error) {
	dir := state.Locate()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, answer.Fail(err).Hint("run it as root, or let %s name a folder of your own", state.EnvDir)
	}
	return authority.Open(dir), nil
}

func explainLabel(err error) error {
	switch {
	case errors.Is(err, svirt.ErrExhausted):
		return answer.Fail(err).Hint("'palisade label gc' frees the labels that nothing carries any more")
	case errors.Is(err, svirt.ErrInUse):
		return answer.Fail(err).Hint("'palisade label ls' shows who holds what; leave --level out to get a label that is free")
	case errors.Is(err, os.ErrPermission):
		return answer.Fail(err).Hint("run it as root, or let %s name a folder of your own", state.EnvDir)
	}
	return err
}

func newReserveCommand(e *answer.Env) *cobra.Command {
	var c svirt.Claim
	cmd := &cobra.Command{
		Use:   "reserve --id ID",
		Short: "Give a holder a label that keeps it apart from all others",
		Example: `  palisade label reserve --id web
  palisade label reserve --id web-2 --shared web
  palisade label reserve --id db --level s0:c12,c844`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if c.ID == "" {
				return answer.Fail(errors.New("label reserve: no --id given")).Hint("the ID of the container that is to carry the label")
			}
			if c.Level != "" && c.Shared != "" {
				return answer.Fail(errors.New("--level and --shared exclude each other")).Hint("a group's label is drawn with its first member")
			}
			a, err := labels()
			if err != nil {
				return err
			}
			rec, err := a.Reserve(c)
			if err != nil {
				return explainLabel(err)
			}
			if e.JSON {
				return e.PrintJSON(rec)
			}
			fmt.Fprintln(e.Stdout, rec.Level)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.ID, "id", "", "`ID` of the holder")
	f.StringVar(&c.Level, "level", "", "ask for this `level` instead of a random pair")
	f.StringVar(&c.Shared, "shared", "", "have one label together with the other members of this `group`")
	f.StringVar(&c.Holder, "holder", "palisade label", "on whose behalf it is held")
	f.StringArrayVar(&c.Content, "content", nil, "`folder` that is to carry the label (may be given again)")
	return cmd
}

func newReleaseCommand(e *answer.Env) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "release ID…",
		Short: "Give labels back that neither a process nor content carries",
		RunE: func(_ *cobra.Command, args []string) error {
			if id != "" {
				args = append(args, id)
			}
			if len(args) == 0 {
				return answer.Fail(errors.New("label release: no ID given")).Hint("'palisade label ls' shows who holds what")
			}
			a, err := labels()
			if err != nil {
				return err
			}
			for _, id := range args {
				if err := a.Release(id); err != nil {
					return explainLabel(err)
				}
			}
			if e.JSON {
				return e.PrintJSON(map[string][]string{"released": args})
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "`ID` of the holder")
	return cmd
}

func newListCommand(e *answer.Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the labels in use and their holders",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := heldLabels(all)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.PrintJSON(list)
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "LEVEL\tSTATE\tID\tGROUP\tHOLDER\tCONTENT")
			for _, r := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Level, r.State, r.ID, r.Group, r.Holder, strings.Join(r.Content, " "))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "with labels in quarantine and the groups' own records")
	return cmd
}

func heldLabels(all bool) ([]svirt.Record, error) {
	a, err := labels()
	if err != nil {
		return nil, err
	}
	list, err := a.List()
	if err != nil {
		return nil, explainLabel(err)
	}
	out := []svirt.Record{}
	for _, r := range list {
		if all || (r.State != svirt.Quarantine && r.Members == 0) {
			out = append(out, r)
		}
	}
	return out, nil
}

func newShowCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID|LEVEL",
		Short: "Show one label and its holder",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := heldLabels(true)
			if err != nil {
				return err
			}
			found := []svirt.Record{}
			for _, r := range list {
				if r.ID == args[0] || r.Level == args[0] {
					found = append(found, r)
				}
			}
			if len(found) == 0 {
				return answer.No(answer.Fail(fmt.Errorf("%s: %w", args[0], svirt.ErrNotHeld)).Hint("'palisade label ls' shows who holds what"))
			}
			if e.JSON {
				return e.PrintJSON(found)
			}
			for _, r := range found {
				fmt.Fprintf(e.Stdout, "id:      %s\nlevel:   %s\nstate:   %s since %s\n", r.ID, r.Level, r.State, r.Since.Local().Format("2006-01-02 15:04:05"))
				for _, f := range []struct{ name, value string }{{"group", r.Group}, {"holder", r.Holder}, {"bundle", r.Bundle}, {"content", strings.Join(r.Content, " ")}} {
					if f.value != "" {
						fmt.Fprintf(e.Stdout, "%-8s %s\n", f.name+":", f.value)
					}
				}
			}
			return nil
		},
	}
}

func newCheckCommand(e *answer.Env) *cobra.Command {
	var registryOnly bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify that no two containers on the host have labels that meet",
		Long: `Verifies the registry, and compares it with the labels that running processes, the
engines' state and the content of volumes carry. Prints what is wrong and ends with
exit code 1 when there is something.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a, err := labels()
			if err != nil {
				return err
			}
			var seen []svirt.Observation
			if !registryOnly {
				if seen, err = observeHost(e, a); err != nil {
					return err
				}
			}
			violations, err := a.Check(seen)
			if err != nil {
				return explainLabel(err)
			}
			if e.JSON {
				if violations == nil {
					violations = []svirt.Violation{}
				}
				if err := e.PrintJSON(violations); err != nil {
					return err
				}
			} else {
				for _, v := range violations {
					fmt.Fprintf(e.Stdout, "%s: %s\n", strings.Join(v.Holders, " and "), v.Message)
				}
				if len(violations) == 0 {
					fmt.Fprintf(e.Stdout, "no two containers have labels that meet (%d labels seen on the host)\n", len(seen))
				}
			}
			if len(violations) > 0 {
				return answer.No(nil)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&registryOnly, "registry-only", false, "leave the host's processes, engines and volumes out")
	return cmd
}

// observeHost looks at the host, the content that the registry knows of and the
// engines' volumes.
func observeHost(e *answer.Env, a svirt.Authority) ([]svirt.Observation, error) {
	list, err := a.List()
	if err != nil {
		return nil, explainLabel(err)
	}
	seen, err := observe.All("/", list)
	if err != nil {
		e.Warnf("%v", err)
	}
	return seen, nil
}

type labelsCollected struct {
	Adopted    []svirt.Record    `json:"adopted"`
	Gone       []svirt.Record    `json:"gone"`
	Released   []string          `json:"released"`
	Expired    int               `json:"expired"`
	Violations []svirt.Violation `json:"violations"`
}

func newGCCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Bring the registry in line with the host and free what nothing carries",
		Long: `Blocks the labels that other engines gave out, frees those that are no longer seen,
those whose content was removed or relabelled, and those whose quarantine is over.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a, err := labels()
			if err != nil {
				return err
			}
			seen, err := observeHost(e, a)
			if err != nil {
				return err
			}
			rep, err := a.Reconcile(seen)
			if err != nil {
				return explainLabel(err)
			}
			got := labelsCollected{Adopted: rep.Adopted, Gone: rep.Gone, Violations: rep.Violations, Released: []string{}}
			list, err := a.List()
			if err != nil {
				return explainLabel(err)
			}
			for _, r := range list {
				if r.State == svirt.Draining && !carried(r) {
					if err := a.Release(r.ID); err != nil {
						return explainLabel(err)
					}
					got.Released = append(got.Released, r.ID)
				}
			}
			if got.Expired, err = a.Expire(); err != nil {
				return explainLabel(err)
			}
			if e.JSON {
				return e.PrintJSON(got)
			}
			fmt.Fprintf(e.Stdout, "%d labels of others blocked, %d of others gone, %d released, %d out of quarantine, %d violations\n",
				len(got.Adopted), len(got.Gone), len(got.Released), got.Expired, len(got.Violations))
			return nil
		},
	}
}

// carried tells whether content still has the label of a container that is gone.
// A record without a list of content is kept: where it is, is not known.
func carried(r svirt.Record) bool {
	for _, dir := range r.Content {
		if observe.Labelled(dir, r.Level) {
			return true
		}
	}
	return len(r.Content) == 0
}
