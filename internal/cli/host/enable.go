// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/enable"
)

func newEnableCommand(e *answer.Env) *cobra.Command {
	var o enable.Options
	var root string
	var apply, undo, dryRun, quiet bool
	cmd := &cobra.Command{
		Use:   "enable selinux|apparmor",
		Short: "Plan, and with --apply take, the way to SELinux or AppArmor on this host",
		Long: `Shows what this host needs so that SELinux or AppArmor confines its containers, and
what would go wrong. Nothing is changed without --apply. The way to SELinux has three
parts: this command before a reboot; a time in which SELinux only logs; this command
again, which shows what enforcing would deny and enforces when nothing is left.

Every step can be taken back with --undo, also one that was interrupted. A host on
which enforcing goes wrong starts permissive with enforcing=0 on the kernel's
command line, in the boot menu.`,
		Example:   "  palisade host enable selinux\n  palisade host enable selinux --apply\n  palisade host enable selinux --undo",
		ValidArgs: []string{"selinux", "apparmor"},
		Args:      cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mechanism := args[0]
			if apply && (undo || dryRun) {
				return answer.Fail(errors.New("--apply excludes --undo and --dry-run")).Hint("--undo acts by itself; --undo --dry-run only shows")
			}
			if mechanism != "selinux" && mechanism != "apparmor" {
				return answer.Fail(fmt.Errorf("%w %q", enable.ErrMechanism, mechanism)).Hint("the mechanisms are selinux and apparmor")
			}
			if (apply || undo && !dryRun) && os.Geteuid() != 0 {
				return answer.Fail(errors.New("changing the host needs root")).Hint("run it with sudo; without --apply it only shows the plan")
			}
			var output io.Writer = os.Stderr
			if quiet {
				output = io.Discard
			}
			do := enable.Commands{Root: root, Output: output}
			if undo {
				return disable(cmd, e, root, mechanism, do, dryRun)
			}
			f, err := enable.Gather(cmd.Context(), root)
			if err != nil {
				return answer.Fail(err).Hint("nothing was changed")
			}
			p, err := enable.NewPlan(mechanism, f, o)
			if err != nil {
				return err
			}
			if !apply || len(p.Blockers) > 0 {
				if err := showPlan(e, p, f.Review, false); err != nil {
					return err
				}
				if len(p.Blockers) > 0 {
					return answer.No(answer.Fail(fmt.Errorf("the plan for %s is blocked: %s", mechanism, p.Blockers[0])).Hint("nothing was changed"))
				}
				return nil
			}
			p, err = enable.Apply(cmd.Context(), root, mechanism, o, do, func(s enable.Step) {
				fmt.Fprintf(e.Stderr, "palisade: %s\n", s.Title)
			})
			if err != nil {
				return answer.Fail(err).Hint("the steps before it stay; run the command again, or take all back with --undo")
			}
			return showPlan(e, p, f.Review, true)
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "/", "`folder` that stands for /; commands run in it by chroot")
	f.BoolVar(&apply, "apply", false, "do it")
	f.BoolVar(&undo, "undo", false, "take back what --apply did")
	f.BoolVar(&dryRun, "dry-run", false, "change nothing (as without --apply)")
	f.BoolVar(&o.AcceptDenials, "accept-denials", false, "enforce although the log has denials that the policy would still deny")
	f.BoolVar(&quiet, "quiet", false, "do not show what the commands print")
	return cmd
}

type stepJSON struct {
	ID    string     `json:"id"`
	Title string     `json:"title"`
	Why   string     `json:"why"`
	Done  bool       `json:"done"`
	Edits []editJSON `json:"edits"`
	Run   [][]string `json:"run"`
}

func showPlan(e *answer.Env, p enable.Plan, review enable.Review, applied bool) error {
	if e.JSON {
		steps := []stepJSON{}
		for _, s := range p.Steps {
			j := stepJSON{ID: s.ID, Title: s.Title, Why: s.Why, Done: s.Done, Edits: []editJSON{}, Run: s.Run}
			if !s.Done {
				j.Edits = editsJSON(s.Edits)
			}
			if j.Run == nil {
				j.Run = [][]string{}
			}
			steps = append(steps, j)
		}
		return e.PrintJSON(struct {
			Mechanism string                  `json:"mechanism"`
			Stage     string                  `json:"stage"`
			Blockers  []string                `json:"blockers"`
			Warnings  []string                `json:"warnings"`
			Steps     []stepJSON              `json:"steps"`
			Denials   []enable.ReviewedDenial `json:"denials"`
			Settled   int                     `json:"denials_settled"`
			Then      string                  `json:"then"`
			Applied   bool                    `json:"applied"`
		}{p.Mechanism, p.Stage, some(p.Blockers), some(p.Warnings), steps, some(review.Open), review.Settled, p.Then, applied})
	}
	out := e.Stdout
	fmt.Fprintf(out, "%s is %s\n", p.Mechanism, p.Stage)
	for _, b := range p.Blockers {
		fmt.Fprintf(out, "BLOCKED  %s\n", b)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(out, "note     %s\n", w)
	}
	for i, s := range p.Steps {
		state := "to do"
		if s.Done {
			state = "done "
		}
		fmt.Fprintf(out, "\n%d. [%s] %s\n", i+1, state, s.Title)
		if s.Done {
			continue
		}
		fmt.Fprintf(out, "   %s\n", s.Why)
		for _, x := range s.Edits {
			fmt.Fprint(out, indent(shortDiff(x)))
		}
		for _, argv := range s.Run {
			fmt.Fprintf(out, "   run    %s\n", strings.Join(argv, " "))
		}
	}
	if p.Mechanism == "selinux" && review.Source != "" {
		fmt.Fprintf(out, "\n%s: enforcing would deny %d kinds of access that were logged; %d logged ones are allowed by now\n", review.Source, len(review.Open), review.Settled)
		for i, d := range review.Open {
			if i == 20 {
				fmt.Fprintf(out, "   … and %d more\n", len(review.Open)-i)
				break
			}
			fmt.Fprintf(out, "   %5d×  %s { %s } %s:%s  %s %s\n", d.Count, d.Source, d.Permission, d.Target, d.Class, d.Command, d.Path)
		}
	}
	fmt.Fprintf(out, "\nthen: %s\n", p.Then)
	if !applied && len(p.Blockers) == 0 && len(p.Pending()) > 0 {
		fmt.Fprintf(out, "\nnothing was changed; to do it: palisade host enable %s --apply\n", p.Mechanism)
	}
	return nil
}

// some is a list that encodes as [] when it is empty.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// shortDiff is a diff cut where it is long, as that of a whole policy module.
func shortDiff(x configfile.Edit) string {
	const most = 12
	diff := x.Diff()
	if lines := strings.SplitAfter(diff, "\n"); len(lines) > most+2 {
		diff = strings.Join(lines[:most], "") + fmt.Sprintf("  … %d more lines\n", len(lines)-most-1)
	}
	return diff
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("   " + line)
	}
	return b.String()
}

func disable(cmd *cobra.Command, e *answer.Env, root, mechanism string, do enable.Doer, dryRun bool) error {
	u, err := enable.PlanUndo(root, mechanism)
	if err != nil {
		return answer.Fail(err).Hint("nothing was changed")
	}
	if !dryRun {
		if u.Kept, err = enable.Undo(cmd.Context(), root, mechanism, do, func(id string) { fmt.Fprintf(e.Stderr, "palisade: take back %s\n", id) }); err != nil {
			return answer.Fail(err).Hint("what was taken back stays so; run the command again")
		}
	}
	if e.JSON {
		return e.PrintJSON(struct {
			Mechanism string     `json:"mechanism"`
			Edits     []editJSON `json:"edits"`
			Run       [][]string `json:"run"`
			Kept      []string   `json:"kept"`
			Undone    bool       `json:"undone"`
		}{mechanism, editsJSON(u.Edits), some(u.Run), some(u.Kept), !dryRun})
	}
	if len(u.Edits)+len(u.Run)+len(u.Kept) == 0 {
		_, err := fmt.Fprintf(e.Stdout, "nothing of 'palisade host enable %s' to take back\n", mechanism)
		return err
	}
	for _, x := range u.Edits {
		fmt.Fprint(e.Stdout, shortDiff(x))
	}
	for _, argv := range u.Run {
		fmt.Fprintf(e.Stdout, "run    %s\n", strings.Join(argv, " "))
	}
	for _, name := range u.Kept {
		fmt.Fprintf(e.Stdout, "kept   %s (changed by another program since)\n", name)
	}
	if dryRun {
		_, err = fmt.Fprintf(e.Stdout, "\nnothing was changed\n")
	} else {
		_, err = fmt.Fprintf(e.Stdout, "\ndone; it takes effect with the next boot\n")
	}
	return err
}
