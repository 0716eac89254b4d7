// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/integrate"
)

func newIntegrateCommand(e *answer.Env) *cobra.Command {
	var o integrate.Options
	var apply, undo, dryRun bool
	var domain domainOptions
	cmd := &cobra.Command{
		Use:   "integrate " + strings.Join(integrate.Engines(), "|") + " [DOMAIN.xml]",
		Short: "Have an engine start containers through palisade-oci",
		Long: `Shows what the configuration of a container engine needs so that it starts
containers through palisade-oci, the runtime that confines them and leaves the rest
to runc or crun. Nothing is written without --apply, which keeps a copy of the file
and replaces it in one step. --undo takes back what --apply did: the file becomes
what it was, or, when it was edited since, loses Palisade's part alone.

libvirt has no setting for all of its containers: each definition names the program
that starts it, palisade-lxc. Without DOMAIN.xml the plan is for all containers that
are defined. With it, that definition (- for standard input) is printed as 'virsh
define' takes it, with a policy and a label of its own where asked; nothing is
written.`,
		Example:   "  palisade host integrate docker\n  palisade host integrate docker --default --apply\n  palisade host integrate docker --undo\n  palisade host integrate libvirt web.xml --policy strict | virsh -c lxc:/// define /dev/stdin",
		ValidArgs: integrate.Engines(),
		Args:      cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if apply && (undo || dryRun) {
				return answer.Fail(errors.New("--apply excludes --undo and --dry-run")).Hint("--undo acts by itself; --undo --dry-run only shows")
			}
			if o.Wrapper == "" {
				o.Wrapper = findWrapper(args[0])
			}
			if len(args) == 2 {
				if apply || undo || o.Default {
					return answer.Fail(errors.New("a definition is printed, not written")).Hint("'virsh -c lxc:/// define FILE' gives it to libvirt")
				}
				return integrateDomain(e, args[0], args[1], o, domain)
			}
			if domain.given() {
				return answer.Fail(errors.New("--policy and --level are for the definition of one domain")).Hint("the policy of all containers is in /etc/palisade/oci.json")
			}
			plan := integrate.Plan
			if undo {
				plan = integrate.PlanUndo
			} else if err := checkWrapper(o); err != nil && apply {
				return err
			}
			i, err := plan(args[0], o)
			if errors.Is(err, integrate.ErrEngine) {
				return answer.Fail(err).Hint("the engines are %s", strings.Join(integrate.Engines(), ", "))
			}
			if errors.Is(err, integrate.ErrNoDefault) {
				return answer.Fail(err).Hint("without --default all containers that are defined are changed")
			}
			if err != nil {
				return answer.Fail(err).Hint("nothing was changed")
			}
			write := apply || undo && !dryRun
			if write {
				if err := configfile.Write(o.Root, i.Edits); err != nil {
					return answer.Fail(err).Hint("%s", writeHint(err))
				}
			}
			if e.JSON {
				return e.PrintJSON(integrationJSON(i, write))
			}
			return printIntegration(e, i, o, write, undo)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Root, "root", "/", "`folder` that stands for /")
	f.StringVar(&o.Wrapper, "wrapper", "", "`path` of palisade-oci, or for libvirt of palisade-lxc (default: beside palisade, or in /usr/local/bin)")
	f.BoolVar(&o.Default, "default", false, "make it the runtime of containers that ask for none")
	f.StringVar(&domain.policy, "policy", "", "`name` of a policy for one domain of libvirt, on top of the host's")
	f.StringVar(&domain.level, "level", "", "`level` of a static SELinux label for one domain of libvirt")
	f.BoolVar(&apply, "apply", false, "write the configuration")
	f.BoolVar(&undo, "undo", false, "take back what --apply did")
	f.BoolVar(&dryRun, "dry-run", false, "write nothing (as without --apply)")
	return cmd
}

// findWrapper is what an engine is to start, beside this program or where it is
// installed.
func findWrapper(engine string) string {
	name := "palisade-oci"
	if engine == "libvirt" {
		name = integrate.EmulatorName
	}
	installed := "/usr/local/bin/" + name
	self, err := os.Executable()
	if err != nil {
		return installed
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() {
		return beside
	}
	return installed
}

// checkWrapper keeps an engine from being given a runtime that is not there.
func checkWrapper(o integrate.Options) error {
	fi, err := os.Stat(filepath.Join(o.Root, o.Wrapper))
	if err == nil && (!fi.Mode().IsRegular() || fi.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is no program", o.Wrapper)
	}
	if err != nil {
		return answer.Fail(fmt.Errorf("wrapper runtime: %w", err)).Hint("install %s, or say where it is with --wrapper", filepath.Base(o.Wrapper))
	}
	return nil
}

func writeHint(err error) string {
	switch {
	case errors.Is(err, configfile.ErrChanged):
		return "somebody else changed it; run the command again"
	case errors.Is(err, fs.ErrPermission):
		return "run it with sudo"
	}
	return "files are written whole or not at all; run the command again, or take it back with --undo"
}

type editJSON struct {
	Path   string  `json:"path"`
	Action string  `json:"action"` // create, change or remove
	After  *string `json:"after,omitempty"`
	Backup string  `json:"backup,omitempty"`
}

func editsJSON(edits []configfile.Edit) []editJSON {
	list := []editJSON{}
	for _, x := range edits {
		j := editJSON{Path: x.Path, Action: "change", Backup: x.Backup}
		switch {
		case x.After == nil:
			j.Action = "remove"
		case x.Before == nil:
			j.Action = "create"
		}
		if x.After != nil {
			after := string(x.After)
			j.After = &after
		}
		list = append(list, j)
	}
	return list
}

func integrationJSON(i integrate.Integration, written bool) any {
	return struct {
		integrate.Integration
		Edits   []editJSON `json:"edits"`
		Written bool       `json:"written"`
	}{i, editsJSON(i.Edits), written}
}

func printIntegration(e *answer.Env, i integrate.Integration, o integrate.Options, written, undo bool) error {
	if len(i.Edits) == 0 {
		_, err := fmt.Fprintf(e.Stdout, "%s: nothing to do\n", i.File)
		return err
	}
	for _, x := range i.Edits {
		fmt.Fprint(e.Stdout, x.Diff())
		if x.Backup != "" {
			fmt.Fprintf(e.Stdout, "keep   %s\n", x.Backup)
		}
	}
	if !written {
		again := "palisade host integrate " + i.Engine
		if undo {
			again += " --undo"
		} else {
			if o.Default {
				again += " --default"
			}
			again += " --apply"
		}
		_, err := fmt.Fprintf(e.Stdout, "\nnothing was written; to do it: %s\n", again)
		return err
	}
	fmt.Fprintln(e.Stdout, "\ndone; next:")
	for _, step := range i.Next {
		fmt.Fprintf(e.Stdout, "  %s\n", step)
	}
	return nil
}
