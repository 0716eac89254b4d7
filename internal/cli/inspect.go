// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/internal/container"
)

func newInspectCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what is enforced on a container, read back from the kernel",
		Long: `Reads back from the kernel what confines a running container and shows it beside
what was asked for. A difference that makes the container less confined than
asked is marked with !!, and ends the command with exit code 1.

NAME is the name or ID of a container that 'palisade ps' lists, or a beginning of
it that fits no other.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fail(errors.New("want the name of one container")).hint("'palisade ps' lists them")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			in, err := container.Inspect(dir, args[0])
			if errors.Is(err, state.ErrNotFound) {
				return fail(err).hint("'palisade ps' lists the containers")
			} else if err != nil {
				return err
			}
			if e.json {
				err = e.printJSON(in)
			} else {
				err = printInspection(e.stdout, in)
			}
			if err == nil && len(in.Mismatches) > 0 {
				return answerNo{}
			}
			return err
		},
	}
}

func printInspection(out io.Writer, in container.Inspection) error {
	fmt.Fprintf(out, "%s  %s  policy %s  label %s\n", shortID(in.ID), in.Status, in.Policy, in.Label)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tLAYER\tASKED\tEFFECTIVE")
	asked := layers(in.Asked)
	var found [][2]string
	if in.Effective != nil {
		found = layers(*in.Effective)
	}
	for i, a := range asked {
		mark, value := "", "-"
		if found != nil {
			value = found[i][1]
		}
		for _, m := range in.Mismatches {
			if m.Layer == a[0] {
				mark = "!!"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, a[0], oneLine(a[1]), oneLine(value))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if in.EngineProfile != "" && in.EngineProfile != in.Asked.AppArmor {
		fmt.Fprintf(out, "the engine asked for the AppArmor profile %s\n", oneLine(in.EngineProfile))
	}
	for _, m := range in.Mismatches {
		fmt.Fprintf(out, "!! %s\n", oneLine(m.String()))
	}
	return nil
}

// layers is a state as pairs of layer and value, always the same layers in the
// same order.
func layers(s effective.State) [][2]string {
	none := func(v string) string {
		if v == "" {
			return "none"
		}
		return v
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	seccomp := s.Seccomp.Mode
	if seccomp == effective.SeccompFilter {
		seccomp = fmt.Sprintf("filter, %d installed", s.Seccomp.Filters)
		if s.Seccomp.InstalledBy != "" {
			seccomp = "filter by " + s.Seccomp.InstalledBy
		}
		for _, h := range s.Seccomp.SHA256 {
			seccomp += " " + h[:min(len(h), 12)]
		}
	}
	landlock := "none"
	if s.Landlock != nil {
		landlock = s.Landlock.String()
		if len(s.Landlock.Missing) > 0 {
			landlock += " without " + strings.Join(s.Landlock.Missing, ", ")
		}
	}
	root := "writable root"
	if s.ReadOnlyRoot {
		root = "read-only root"
	}
	return [][2]string{
		{"selinux", none(s.SELinux)},
		{"apparmor", none(s.AppArmor)},
		{"seccomp", seccomp},
		{"no_new_privileges", yes(s.NoNewPrivileges)},
		{"capabilities", fmt.Sprintf("bounding %s, effective %s", s.Capabilities.Bounding.Hex(), s.Capabilities.Effective.Hex())},
		{"landlock", landlock},
		{"mounts", fmt.Sprintf("%s, %d masked, %d read-only", root, len(s.MaskedPaths), len(s.ReadOnlyPaths))},
		{"namespaces", none(strings.Join(s.Namespaces, " "))},
	}
}
