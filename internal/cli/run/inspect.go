// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/container"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/state"
)

// InspectCommand is "palisade inspect".
func InspectCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what is enforced on a container, read back from the kernel",
		Long: `Reads back from the kernel what confines a running container and shows it beside
what was asked for. A difference that makes the container less confined than
asked is marked with !!, and ends the command with exit code 1.

NAME is the name or ID of a container as 'palisade ps' lists it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return answer.Fail(errors.New("want the name of one container")).Hint("'palisade ps' lists them")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			in, err := container.Inspect(dir, args[0])
			switch {
			case errors.Is(err, state.ErrNotFound):
				return answer.Fail(err).Hint("'palisade ps' lists the containers")
			case errors.Is(err, state.ErrAmbiguous):
				return answer.Fail(err).Hint("take one of the names in the message")
			case err != nil:
				return err
			}
			if e.JSON {
				err = e.PrintJSON(in)
			} else {
				err = printInspection(e.Stdout, in)
			}
			if err == nil && len(in.Mismatches) > 0 {
				return answer.No(nil)
			}
			return err
		},
	}
}

func printInspection(out io.Writer, in container.Inspection) error {
	fmt.Fprintf(out, "%s  %s  policy %s  label %s\n", shortID(in.ID), in.Status, in.Policy, in.Label)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tLAYER\tASKED\tEFFECTIVE")
	for _, l := range in.Layers {
		mark, value := "", "-"
		if in.Effective != nil {
			value = layerText(l.Layer, *in.Effective, true)
		}
		if len(l.Mismatches) > 0 {
			mark = "!!"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, l.Layer, answer.OneLine(layerText(l.Layer, in.Asked, false)), answer.OneLine(value))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if in.EngineProfile != "" && in.EngineProfile != in.Asked.AppArmor {
		fmt.Fprintf(out, "the engine asked for the AppArmor profile %s\n", answer.OneLine(in.EngineProfile))
	}
	for _, m := range in.Mismatches {
		fmt.Fprintf(out, "!! %s\n", answer.OneLine(m.String()))
	}
	return nil
}

// layerText shows one layer of what was asked, or of what was found.
func layerText(layer string, s effective.State, found bool) string {
	switch layer {
	case "selinux":
		if s.Permissive {
			return orNothing(s.SELinux) + ", permissive"
		}
		return orNothing(s.SELinux)
	case "apparmor":
		return orNothing(s.AppArmor)
	case "seccomp":
		return seccompText(s.Seccomp)
	case "no_new_privileges":
		if s.NoNewPrivileges {
			return "yes"
		}
		return "no"
	case "capabilities":
		return fmt.Sprintf("bounding %s, effective %s", s.Capabilities.Bounding.Hex(), s.Capabilities.Effective.Hex())
	case "landlock":
		switch {
		case s.Landlock == nil:
			return "none"
		case len(s.Landlock.Missing) > 0:
			return s.Landlock.String() + " without " + strings.Join(s.Landlock.Missing, ", ")
		}
		return s.Landlock.String()
	case "user":
		return fmt.Sprintf("user %d, group %d", s.UID, s.GID)
	case "mounts":
		root := "writable root"
		if s.ReadOnlyRoot {
			root = "read-only root"
		}
		// Those that mask a path or make it read-only are counted with it.
		mounts := 0
		for _, m := range s.Mounts {
			if !slices.Contains(s.MaskedPaths, m.Destination) && !slices.Contains(s.ReadOnlyPaths, m.Destination) {
				mounts++
			}
		}
		return fmt.Sprintf("%s, %d mounts, %d masked, %d read-only", root, mounts, len(s.MaskedPaths), len(s.ReadOnlyPaths))
	case "root":
		if len(s.Outside) > 0 {
			return strings.Join(s.Outside, " and ") + " outside"
		}
		return "inside"
	case "descriptors":
		if !found {
			return fmt.Sprintf("%d passed", s.FDs)
		}
		lead := 0
		for _, d := range s.Descriptors {
			if d.FD > 2 || d.Kind == effective.KindFolder {
				lead++
			}
		}
		return fmt.Sprintf("%d lead outside", lead)
	case "namespaces":
		return orNothing(strings.Join(s.Namespaces, " "))
	}
	return ""
}

func seccompText(s effective.Seccomp) string {
	if s.Mode != effective.SeccompFilter {
		return orNothing(s.Mode)
	}
	text := fmt.Sprintf("filter, %d installed", s.Filters)
	if s.InstalledBy != "" {
		text = "filter by " + s.InstalledBy
	}
	for _, h := range s.SHA256 {
		text += " " + h[:min(len(h), 12)]
	}
	return text
}

func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
