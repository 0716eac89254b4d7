// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// advice adds what to do about an error of the kernel's interface.
func advice(err error) error {
	switch {
	case errors.Is(err, securityfs.ErrUnavailable):
		return answer.Fail(err).Hint("boot with lsm=…,apparmor and mount securityfs; 'palisade host status' says what this host has")
	case errors.Is(err, securityfs.ErrDenied):
		return answer.Fail(err).Hint("loading needs CAP_MAC_ADMIN and a task that no profile confines")
	}
	return err
}

func newLoadCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var add bool
	cmd := &cobra.Command{
		Use:   "load [flags] FILE|BLOB|-...",
		Short: "Compile profiles and load them into the running kernel",
		Long: `Compiles profiles for the running kernel and loads them; profiles that are loaded
already are replaced, and tasks under them move to the new ones. Binary policy is
loaded as it is. All files are compiled before anything is loaded, and the kernel
takes the profiles of one file and namespace together or not at all. A refusal is
shown with the kernel's reason.

` + sourceHelp,
		Example: "  palisade apparmor load web.profile\n  palisade apparmor compile web.profile | palisade apparmor load -",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var kernel securityfs.FS
			features, err := kernel.Features()
			if err != nil {
				return advice(err)
			}
			var files [][]*blob.Profile
			var policies []*openedPolicy
			for _, path := range args {
				p, err := t.openPolicy(e, path)
				if err != nil {
					return err
				}
				var profiles []*blob.Profile
				for _, n := range p.set.Names() {
					b, _ := p.set.Profile(n)
					profiles = append(profiles, b)
				}
				files = append(files, profiles)
				policies = append(policies, p)
			}
			loaded := []string{}
			for i, profiles := range files {
				writes, err := blob.Writes(profiles, features.Has("policy/set_load"))
				if err != nil {
					return fmt.Errorf("%s: %w", args[i], err)
				}
				for _, w := range writes {
					do := kernel.Replace
					if add {
						do = kernel.Load
					}
					if err := do(w); err != nil {
						return advice(fmt.Errorf("%s: %w", args[i], policies[i].refused(e, w, err)))
					}
				}
				for _, p := range profiles {
					loaded = append(loaded, decide.FullName(p))
				}
			}
			if e.JSON {
				return e.PrintJSON(map[string]any{"loaded": loaded})
			}
			for _, n := range loaded {
				fmt.Fprintln(e.Stdout, "loaded", n)
			}
			return nil
		},
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&add, "add", false, "refuse to replace profiles that are loaded already")
	return cmd
}

func newUnloadCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "unload PROFILE...",
		Short:   "Remove profiles from the running kernel",
		Long:    "Removes profiles with their hats and children. Tasks that run under them become\nunconfined at once.",
		Example: "  palisade apparmor unload web :tenant:web",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var kernel securityfs.FS
			for _, name := range args {
				if err := kernel.Remove(name); err != nil {
					if errors.Is(err, securityfs.ErrNotLoaded) {
						return answer.No(err)
					}
					return advice(err)
				}
				if !e.JSON {
					fmt.Fprintln(e.Stdout, "removed", name)
				}
			}
			if e.JSON {
				return e.PrintJSON(map[string]any{"removed": args})
			}
			return nil
		},
	}
}

type kernelStatus struct {
	Enabled    bool                 `json:"enabled"`
	Why        string               `json:"why,omitempty"`
	Profiles   []securityfs.Profile `json:"profiles"`
	Namespaces []string             `json:"namespaces"`
	Label      string               `json:"label,omitempty"`
	Permstable bool                 `json:"permstable"`
	Unmediated []string             `json:"unmediated"`
}

// mediated are the features that stand for what AppArmor can mediate.
var mediated = [][2]string{
	{"file", "files"},
	{"capability", "capabilities"},
	{"network_v8 network_v9", "sockets"},
	{"network_v9/af_unix network/af_unix", "unix socket peers"},
	{"mount", "mounts"},
	{"signal", "signals"},
	{"ptrace", "ptrace"},
	{"dbus", "D-Bus"},
	{"namespaces/mask/userns_create", "user namespaces"},
	{"ipc/posix_mqueue", "message queues"},
	{"io_uring", "io_uring"},
}

func newStatusCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say what AppArmor in the running kernel does",
		Long:  "Shows whether the kernel enforces AppArmor, what it cannot mediate, and which\nprofiles are loaded. Exit code 1 when AppArmor is not enabled.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var kernel securityfs.FS
			s := kernelStatus{Profiles: []securityfs.Profile{}, Namespaces: []string{}, Unmediated: []string{}}
			features, err := kernel.Features()
			if err != nil {
				s.Why = err.Error()
				if e.JSON {
					if err := e.PrintJSON(s); err != nil {
						return err
					}
					return answer.No(nil)
				}
				return answer.No(err)
			}
			s.Enabled = true
			s.Permstable = features.Has("policy/permstable32_version/0x000003") || features.Has("policy/permstable32_version/0x000002")
			for _, m := range mediated {
				has := false
				for _, f := range strings.Fields(m[0]) {
					has = has || features.Has(f)
				}
				if !has {
					s.Unmediated = append(s.Unmediated, m[1])
				}
			}
			if s.Profiles, err = kernel.Profiles(); err != nil {
				return answer.Fail(err).Hint("the list of profiles is for root")
			}
			if ns, err := kernel.Namespaces(""); err == nil {
				s.Namespaces = append(s.Namespaces, ns...)
			}
			if l, err := kernel.LabelOf(0); err == nil {
				s.Label = l.String()
			}
			if e.JSON {
				return e.PrintJSON(s)
			}
			fmt.Fprintf(e.Stdout, "AppArmor is enabled; this task is %s\n", s.Label)
			if len(s.Unmediated) > 0 {
				fmt.Fprintf(e.Stdout, "not mediated by this kernel: %s\n", strings.Join(s.Unmediated, ", "))
			}
			fmt.Fprintf(e.Stdout, "%d profiles\n", len(s.Profiles))
			for _, p := range s.Profiles {
				fmt.Fprintf(e.Stdout, "  %s (%s)\n", p.Name, p.Mode)
			}
			for _, n := range s.Namespaces {
				fmt.Fprintf(e.Stdout, "namespace %s\n", n)
			}
			return nil
		},
	}
}
