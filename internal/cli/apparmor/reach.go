// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// filePermission are the letters of file permissions, in the kernel's bits.
var filePermission = map[rune]uint32{
	'r': blob.MayRead, 'w': blob.MayWrite, 'a': blob.MayAppend, 'x': blob.MayExec, 'l': blob.MayLink, 'k': blob.MayLock, 'm': blob.MayMmap,
}

type reachAnswer struct {
	Profile   string   `json:"profile"`
	Perms     string   `json:"perms"`
	Within    string   `json:"within"`
	Denied    bool     `json:"denied,omitempty"`
	Globs     []string `json:"globs"`
	Except    []string `json:"except"`
	Truncated bool     `json:"truncated"`
}

type deadAnswer struct {
	Profile string       `json:"profile"`
	Rule    ruleAnswer   `json:"rule"`
	By      []ruleAnswer `json:"by"`
}

func newReachCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var policy, perms, within string
	var other, denied, dead bool
	var limit int
	cmd := &cobra.Command{
		Use:   "reach [flags] --profile FILE|BLOB PROFILE",
		Short: "List the paths that a profile can reach, as globs",
		Long: `Lists, as globs, the paths where a profile (or a stack, a//&b) has all the
permissions asked for, computed from the automata: what allow and deny rules
together leave. --denied lists the complement. --dead lists instead the rules of
a profile text that change nothing: those that other rules shadow, and those
that no access meets. Exit code 1 when there is nothing to list.

` + targetHelp,
		Example: `  palisade apparmor reach --profile web.profile --perms w --within '/proc/**' web
  palisade apparmor reach --profile kernel:docker-default --perms w --denied --within '/sys/*' docker-default
  palisade apparmor reach --profile web.profile --dead web`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if policy == "" {
				return answer.Fail(errors.New("no policy to ask")).Hint("give it with --profile")
			}
			p, err := t.openPolicy(e, policy)
			if err != nil {
				return err
			}
			label, err := p.label(args[0])
			if err != nil {
				return err
			}
			if dead {
				return deadRules(e, p, label)
			}
			var mask uint32
			for _, c := range perms {
				bit, ok := filePermission[c]
				if !ok {
					return answer.Fail(fmt.Errorf("unknown permission %q", c)).Hint("permissions are letters of rwaxlkm")
				}
				mask |= bit
			}
			q := decide.ReachQuery{Perms: mask, Within: within, Other: other, Denied: denied, Limit: limit}
			for _, b := range label {
				if c, ok := p.compiled[b]; ok {
					q.Hints = append(q.Hints, fileGlobs(c, within)...)
				}
			}
			r, err := decide.Reachable(label, q)
			if err != nil {
				return err
			}
			a := reachAnswer{Profile: args[0], Perms: perms, Within: within, Denied: denied, Globs: append([]string{}, r.Globs...), Except: append([]string{}, r.Except...), Truncated: r.Truncated}
			if e.JSON {
				if err := e.PrintJSON(a); err != nil {
					return err
				}
			} else {
				for _, g := range a.Globs {
					fmt.Fprintln(e.Stdout, g)
				}
				for _, g := range a.Except {
					fmt.Fprintln(e.Stdout, "  except", g)
				}
				if r.Truncated {
					e.Warnf("there are more paths than these globs say; raise --limit or narrow --within")
				}
			}
			if len(a.Globs) == 0 {
				return answer.No(nil)
			}
			return nil
		},
	}
	t.register(cmd)
	f := cmd.Flags()
	f.StringVar(&policy, "profile", "", "the policy to ask: profile text, binary policy, or kernel:NAME")
	f.StringVar(&perms, "perms", "r", "permissions that all have to be there, letters of rwaxlkm")
	f.StringVar(&within, "within", "/**", "only paths that this glob matches")
	f.BoolVar(&other, "other", false, "files of other users instead of the task's own")
	f.BoolVar(&denied, "denied", false, "list where the permissions are missing")
	f.BoolVar(&dead, "dead", false, "list the rules that change nothing")
	f.IntVar(&limit, "limit", 200, "at most so many globs")
	return cmd
}

// fileGlobs are the paths of a profile's file rules, the spelling that a reader
// knows; only for a question about all paths.
func fileGlobs(c *compile.Profile, within string) []string {
	var out []string
	if within != "/**" {
		return nil
	}
	for _, r := range c.Resolved.Rules {
		if f, ok := r.Body.(*apparmor.FileBody); ok && r.Mode != apparmor.ModeDeny && !slices.Contains(out, f.Path) {
			out = append(out, f.Path)
		}
	}
	return out
}

func deadRules(e *answer.Env, p *openedPolicy, label []*blob.Profile) error {
	list := []deadAnswer{}
	for _, b := range label {
		c, ok := p.compiled[b]
		if !ok {
			return answer.Fail(errors.New("binary policy holds no rules to look at")).Hint("give the profile text with --profile")
		}
		dead, err := c.DeadRules(dfa.Limits{})
		if err != nil {
			return err
		}
		for _, d := range dead {
			a := deadAnswer{Profile: decide.FullName(b), Rule: describeRule(d.Rule), By: []ruleAnswer{}}
			for _, o := range d.By {
				a.By = append(a.By, describeRule(o))
			}
			list = append(list, a)
		}
	}
	if e.JSON {
		if err := e.PrintJSON(list); err != nil {
			return err
		}
	} else {
		for _, d := range list {
			fmt.Fprintln(e.Stdout, d.Rule)
			for _, o := range d.By {
				fmt.Fprintf(e.Stdout, "  says nothing beside %s\n", o)
			}
		}
	}
	if len(list) == 0 {
		return answer.No(nil)
	}
	return nil
}

type changeAnswer struct {
	Profile string `json:"profile"`
	Kind    string `json:"kind"`
	Text    string `json:"text"`
	Query   string `json:"query,omitempty"`
}

func newDiffCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var features2 string
	cmd := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Say where two policies decide differently, each with the shortest access",
		Long: `Compares decisions, not texts: A and B are profile text, binary policy or
kernel:NAME, and may be encoded for different kernels. For every profile and class
it shows the shortest access that only one of them allows, and where logging or
the target of an exec differs. Two policies with one profile each are compared
even if the names differ. With --features2, B is compiled for other features; so
one text compared with itself shows what a change of kernel changes.

Exit code 0: no difference; 1: there are some.

` + targetHelp,
		Example: `  palisade apparmor diff old.profile new.profile
  palisade apparmor diff web.profile kernel:web
  palisade apparmor diff --features 6.1.features --features2 7.2.features web.profile web.profile`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			a, err := t.openPolicy(e, args[0])
			if err != nil {
				return err
			}
			second := t
			if features2 != "" {
				second.features = features2
			}
			b, err := second.openPolicy(e, args[1])
			if err != nil {
				return err
			}
			var changes []decide.Change
			if na, nb := a.set.Names(), b.set.Names(); len(na) == 1 && len(nb) == 1 {
				pa, _ := a.set.Profile(na[0])
				pb, _ := b.set.Profile(nb[0])
				changes, err = decide.DiffProfiles(pa, pb)
			} else {
				changes, err = decide.Diff(a.set, b.set)
			}
			if err != nil {
				return err
			}
			if e.JSON {
				out := []changeAnswer{}
				for _, c := range changes {
					out = append(out, changeAnswer{c.Profile, c.Kind, c.Text, fmt.Sprintf("%x", c.Query)})
				}
				if err := e.PrintJSON(out); err != nil {
					return err
				}
			} else {
				for _, c := range changes {
					fmt.Fprintf(e.Stdout, "%s: %s: %s\n", c.Profile, c.Kind, c.Text)
				}
			}
			if len(changes) > 0 {
				return answer.No(nil)
			}
			return nil
		},
	}
	t.register(cmd)
	cmd.Flags().StringVar(&features2, "features2", "", "features to compile B for, where other than for A")
	return cmd
}

type decodedProfile struct {
	Name         string             `json:"name"`
	Version      string             `json:"version"`
	Mode         string             `json:"mode"`
	Hat          bool               `json:"hat,omitempty"`
	Audit        bool               `json:"audit,omitempty"`
	PathFlags    string             `json:"path_flags,omitempty"`
	Capabilities []string           `json:"capabilities"`
	Xattrs       []string           `json:"xattrs,omitempty"`
	Automata     []decodedAutomaton `json:"automata"`
	Exec         []string           `json:"exec,omitempty"`
	Files        []decodedFiles     `json:"files,omitempty"`
}

type decodedAutomaton struct {
	Kind        string `json:"kind"`
	States      int    `json:"states"`
	Transitions int    `json:"transitions"`
	Bytes       int    `json:"bytes"`
	Perms       int    `json:"permission_entries,omitempty"`
	DiffEncoded bool   `json:"diff_encoded,omitempty"`
}

type decodedFiles struct {
	Perms     string   `json:"perms"`
	Globs     []string `json:"globs"`
	Except    []string `json:"except,omitempty"`
	Truncated bool     `json:"truncated,omitempty"`
}

func newDecodeCommand(e *answer.Env) *cobra.Command {
	var files bool
	var limit int
	cmd := &cobra.Command{
		Use:   "decode [flags] BLOB|kernel:NAME|-",
		Short: "Show what a binary policy holds",
		Long: `Reads binary policy, of whichever compiler and of both formats, and shows its
profiles: flags, capabilities, the automata and their sizes. --files adds, for
every file permission, the paths where it is allowed, as globs. kernel:NAME is
what the running kernel has loaded under that name.`,
		Example: "  palisade apparmor decode /var/cache/apparmor/*/usr.sbin.ntpd\n  palisade apparmor decode --files kernel:docker-default",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var t targetFlags
			p, err := t.openPolicy(e, args[0])
			if err != nil {
				return err
			}
			if len(p.compiled) > 0 {
				e.Warnf("%s is text; it was compiled for this", args[0])
			}
			out := []decodedProfile{}
			for _, n := range p.set.Names() {
				b, _ := p.set.Profile(n)
				d, err := decoded(b, files, limit)
				if err != nil {
					return err
				}
				out = append(out, d)
			}
			if e.JSON {
				return e.PrintJSON(out)
			}
			for _, d := range out {
				printDecoded(e, d)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "list the paths of every file permission")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many globs for each permission")
	return cmd
}

func decoded(b *blob.Profile, files bool, limit int) (decodedProfile, error) {
	d := decodedProfile{
		Name: decide.FullName(b), Version: fmt.Sprintf("abi %d, policy %d", b.Version&0x3ff, b.Version>>20), Mode: b.Mode.String(),
		Hat: b.Flags&blob.FlagHat != 0, Audit: b.Audit != 0, Capabilities: []string{}, Xattrs: b.Xattrs, Automata: []decodedAutomaton{},
	}
	if b.HasPathFlags {
		d.PathFlags = fmt.Sprintf("%#x", b.PathFlags)
	}
	for n := range 64 {
		if b.Caps.Allow&(1<<n) != 0 {
			d.Capabilities = append(d.Capabilities, capabilityText(n))
		}
	}
	for _, a := range []struct {
		kind string
		a    *blob.Automaton
	}{{"attachment", b.XMatch}, {"policy", b.PolicyDB}, {"file", b.File}} {
		if a.a == nil {
			continue
		}
		n := 0
		for _, s := range a.a.Table.Check {
			if s != 0 {
				n++
			}
		}
		d.Automata = append(d.Automata, decodedAutomaton{
			Kind: a.kind, States: a.a.Table.States(), Transitions: n, Bytes: a.a.Table.EncodedLen(), Perms: len(a.a.Perms),
			DiffEncoded: a.a.Table.Flags&dfa.FlagDiffEncode != 0,
		})
	}
	if b.File != nil {
		d.Exec = b.File.XTable
	}
	if files {
		for _, c := range "rwaxlkm" {
			r, err := decide.Reachable([]*blob.Profile{b}, decide.ReachQuery{Perms: filePermission[c], Limit: limit})
			if err != nil {
				return d, err
			}
			if len(r.Globs) > 0 {
				d.Files = append(d.Files, decodedFiles{Perms: string(c), Globs: r.Globs, Except: r.Except, Truncated: r.Truncated})
			}
		}
	}
	return d, nil
}

func capabilityText(n int) string {
	if s := apparmor.CapabilityName(n); s != "" {
		return s
	}
	return fmt.Sprint(n)
}

func printDecoded(e *answer.Env, d decodedProfile) {
	fmt.Fprintf(e.Stdout, "profile %s (%s), %s\n", d.Name, d.Mode, d.Version)
	if len(d.Capabilities) > 0 {
		fmt.Fprintf(e.Stdout, "  capabilities: %s\n", strings.Join(d.Capabilities, " "))
	}
	for _, a := range d.Automata {
		fmt.Fprintf(e.Stdout, "  %s automaton: %d states, %d transitions, %d bytes", a.Kind, a.States, a.Transitions, a.Bytes)
		if a.Perms > 0 {
			fmt.Fprintf(e.Stdout, ", %d permission entries", a.Perms)
		}
		fmt.Fprintln(e.Stdout)
	}
	for i, x := range d.Exec {
		fmt.Fprintf(e.Stdout, "  exec target %d: %s\n", i, x)
	}
	for _, f := range d.Files {
		fmt.Fprintf(e.Stdout, "  %s:\n", f.Perms)
		for _, g := range f.Globs {
			fmt.Fprintf(e.Stdout, "    %s\n", g)
		}
		for _, g := range f.Except {
			fmt.Fprintf(e.Stdout, "      except %s\n", g)
		}
		if f.Truncated {
			fmt.Fprintln(e.Stdout, "    and more")
		}
	}
}
