// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

func newExplainCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	cmd := &cobra.Command{
		Use:   "explain [flags] [SCON TCON CLASS PERMISSION...]",
		Short: "Say why something was denied, and the smallest change that cures it",
		Long: `Says for each denied permission which step of the kernel's decision denied it: no
rule, a rule that a boolean keeps off, one constraint with the levels that made it
fail, a missing role allow, type bounds, a class that the policy does not know; and
the smallest change that was tried out and helps. A rule that exists already is never
proposed.

Without arguments it reads a log from standard input (ausearch, dmesg, the journal)
and explains each AVC message once. Exit code: 1 when something is denied by the
policy, 0 when all of it would be allowed now.`,
		Example: `  ausearch -m avc -ts recent | palisade selinux explain
  dmesg | palisade selinux explain --policy /etc/selinux/default`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := len(args); n > 0 && n < 4 {
				return answer.Fail(fmt.Errorf("%d arguments: a source, a target, a class and permissions are needed", n)).Hint("see '%s --help'", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := source.server(e)
			if err != nil {
				return err
			}
			x := &avcExplainer{s: s, cache: newContextCache(s), seen: map[string]int{}}
			if len(args) > 0 {
				a := selinux.AVC{Source: args[0], Target: args[1], Class: args[2], Permissions: args[3:]}
				if _, _, err := parsePair(s, a.Source, a.Target); err != nil {
					return err
				}
				x.add(a, 0)
			} else if err := x.read(e); err != nil {
				return err
			}
			return x.print(e)
		},
	}
	source.register(cmd)
	source.registerSet(cmd)
	return cmd
}

// avcExplanation is one permission of AVC messages with its explanation.
type avcExplanation struct {
	Line  int    `json:"line,omitempty"` // of the first such message, 1-based
	Count int    `json:"count"`
	Comm  string `json:"comm,omitempty"`
	Path  string `json:"path,omitempty"`
	// Error says why the message cannot be explained.
	Error string `json:"error,omitempty"`
	ss.Explanation
}

type avcExplainer struct {
	s        *ss.Server
	cache    *contextCache
	list     []avcExplanation
	seen     map[string]int // question → index in list
	messages int
	bad      int
}

func (x *avcExplainer) read(e *answer.Env) error {
	err := e.EachLine(func(line int, text string) error {
		switch a, err := selinux.ParseAVC(text); {
		case errors.Is(err, selinux.ErrNotAVC):
		case err != nil:
			x.bad++
			e.Warnf("line %d: %v", line, err)
		default:
			x.add(a, line)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if x.messages == 0 {
		what := "no AVC message on standard input"
		if x.bad > 0 {
			what = "no complete AVC message on standard input"
		}
		return answer.No(answer.Fail(errors.New(what)).Hint("a message looks like: avc:  denied  { read } for … scontext=… tcontext=… tclass=…"))
	}
	return nil
}

func (x *avcExplainer) add(a selinux.AVC, line int) {
	x.messages++
	for _, perm := range a.Permissions {
		key := fmt.Sprintf("%s %s %s %s", a.Source, a.Target, a.Class, perm)
		if perm == "ioctl" && a.HasIoctl {
			key += fmt.Sprintf(" %x", a.Ioctl)
		}
		if i, ok := x.seen[key]; ok {
			x.list[i].Count++
			continue
		}
		x.seen[key] = len(x.list)
		x.list = append(x.list, x.explain(a, perm, line))
	}
}

func (x *avcExplainer) explain(a selinux.AVC, perm string, line int) avcExplanation {
	out := avcExplanation{Line: line, Count: 1, Comm: a.Comm, Path: a.Path}
	out.Source, out.Target, out.Class, out.Permission = a.Source, a.Target, a.Class, perm
	source, target := x.cache.get(a.Source), x.cache.get(a.Target)
	if source == nil || target == nil {
		_, _, err := parsePair(x.s, a.Source, a.Target)
		out.Error = fmt.Sprintf("the policy cannot have decided this: %v", err)
		return out
	}
	if perm == "ioctl" && a.HasIoctl {
		out.Explanation = x.s.ExplainIoctl(source, target, a.Class, a.Ioctl)
	} else {
		out.Explanation = x.s.Explain(source, target, a.Class, perm)
	}
	return out
}

func (x *avcExplainer) print(e *answer.Env) error {
	denied := false
	for _, a := range x.list {
		denied = denied || !a.Allowed
	}
	if e.JSON {
		if err := e.PrintJSON(x.list); err != nil {
			return err
		}
	} else {
		for i, a := range x.list {
			if i > 0 {
				fmt.Fprintln(e.Stdout)
			}
			a.print(e)
		}
	}
	if denied {
		return answer.No(nil)
	}
	return nil
}

func (a *avcExplanation) print(e *answer.Env) {
	head := fmt.Sprintf("%s may not %s %s:%s", a.Source, a.Permission, a.Target, a.Class)
	switch {
	case a.Error != "":
		head = fmt.Sprintf("%s %s %s:%s", a.Source, a.Permission, a.Target, a.Class)
	case a.Allowed:
		head = fmt.Sprintf("%s may %s %s:%s", a.Source, a.Permission, a.Target, a.Class)
	}
	var about []string
	if a.Comm != "" {
		about = append(about, "command "+answer.OneLine(a.Comm))
	}
	if a.Path != "" {
		about = append(about, answer.OneLine(a.Path))
	}
	if a.Count > 1 {
		about = append(about, fmt.Sprintf("%d times", a.Count))
	}
	if len(about) > 0 {
		head += " (" + strings.Join(about, ", ") + ")"
	}
	fmt.Fprintln(e.Stdout, answer.OneLine(head))
	if a.Error != "" {
		fmt.Fprintf(e.Stdout, "  why: %s\n", answer.OneLine(a.Error))
		return
	}
	fmt.Fprintf(e.Stdout, "  why: %s\n", a.Text)
	if a.Allowed && a.Line > 0 {
		fmt.Fprintln(e.Stdout, "  note: this policy allows it; the message comes from another policy, from other boolean values, or from before a change")
	}
	if a.Constraint != nil {
		fmt.Fprintf(e.Stdout, "  constraint: %s\n", a.Constraint.Text)
		for i, l := range a.Constraint.Leaves {
			if i > 0 || len(a.Constraint.Leaves) > 1 {
				fmt.Fprintf(e.Stdout, "    %s: %s\n", l.Expr, l.Why)
			}
		}
	}
	for _, then := range a.Then {
		fmt.Fprintf(e.Stdout, "  then: %s\n", then)
	}
	if a.Permissive {
		fmt.Fprintln(e.Stdout, "  note: the source domain is permissive: it is logged and done")
	}
	if a.DontAudit {
		fmt.Fprintln(e.Stdout, "  note: a dontaudit rule keeps the denial out of the log")
	}
	for i, f := range a.Fixes {
		label := "fix:"
		if i > 0 {
			label = "or: "
		}
		fmt.Fprintf(e.Stdout, "  %s %s\n", label, fixText(f))
	}
}

func fixText(f ss.Fix) string {
	switch {
	case f.Rule != "":
		return f.Text + ": " + f.Rule
	case f.Context != "":
		return f.Text + ": " + f.Context
	case len(f.Booleans) > 0:
		var words []string
		for name, v := range f.Booleans {
			words = append(words, fmt.Sprintf("setsebool -P %s %s", name, onOff(v)))
		}
		if len(words) == 1 {
			return f.Text + ": " + words[0]
		}
	}
	return f.Text
}

// transitionStep is one permission that a change of domain needs.
type transitionStep struct {
	Source     string `json:"source"`
	Target     string `json:"target"`
	Class      string `json:"class"`
	Permission string `json:"permission"`
	Allowed    bool   `json:"allowed"`
	Why        string `json:"why"`
}

type transitionAnswer struct {
	Context string           `json:"context"`
	Allowed bool             `json:"allowed"`
	Steps   []transitionStep `json:"steps"`
}

func newTransitionCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	var name string
	cmd := &cobra.Command{
		Use:   "transition [flags] SCON TCON [CLASS]",
		Short: "Say which context a program or new object gets, and whether that is allowed",
		Long: `Says which context a process gets that executes a file (CLASS process, the default;
TCON is the file's context) or which one a new object gets (TCON is the context of
the directory, or of the source itself for sockets and the like), and checks every
permission on the way. Exit code: 1 when a step is denied.`,
		Args: batchArgs(new(bool), 2, 3),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := source.server(e)
			if err != nil {
				return err
			}
			from, to, err := parsePair(s, args[0], args[1])
			if err != nil {
				return err
			}
			class := "process"
			if s.Policy().Target == policydb.Xen {
				class = "domain"
			}
			if len(args) == 3 {
				class = args[2]
			}
			id := s.Class(class)
			if id == 0 {
				return answer.No(fmt.Errorf("the policy has no class %q", class))
			}
			n, err := s.Transition(from, to, id, name)
			if err != nil {
				return answer.No(err)
			}
			return printTransition(e, s, from, to, n, class)
		},
	}
	source.register(cmd)
	source.registerSet(cmd)
	cmd.Flags().StringVar(&name, "name", "", "last component of the new object's path")
	return cmd
}

// transitionSteps lists what must be allowed for a transition.
//
// Source: security/selinux/hooks.c, selinux_bprm_creds_for_exec, may_create.
func transitionSteps(s *ss.Server, from, to, n *ss.Context, class string) []transitionStep {
	var steps []transitionStep
	check := func(a, b *ss.Context, class, perm string) {
		x := s.Explain(a, b, class, perm)
		steps = append(steps, transitionStep{a.String(), b.String(), class, perm, x.Allowed, x.Text})
	}
	switch class {
	case "process":
		check(from, to, "file", "execute")
		if n.String() == from.String() {
			check(from, to, "file", "execute_no_trans")
			break
		}
		check(from, n, "process", "transition")
		check(n, to, "file", "entrypoint")
	case "domain":
		check(from, n, class, "transition")
	default:
		if c := s.Policy().Classes.ByName(class); c.PermissionMask("create") != 0 {
			check(from, n, class, "create")
		}
		if strings.HasSuffix(class, "file") || class == "dir" {
			check(from, to, "dir", "search")
			check(from, to, "dir", "add_name")
		}
	}
	return steps
}

func printTransition(e *answer.Env, s *ss.Server, from, to, n *ss.Context, class string) error {
	a := transitionAnswer{Context: n.String(), Allowed: true, Steps: transitionSteps(s, from, to, n, class)}
	for _, st := range a.Steps {
		a.Allowed = a.Allowed && st.Allowed
	}
	if e.JSON {
		if err := e.PrintJSON(a); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(e.Stdout, a.Context)
		for _, st := range a.Steps {
			word := "allowed"
			if !st.Allowed {
				word = "denied "
			}
			fmt.Fprintf(e.Stdout, "  %s  %s %s %s:%s", word, st.Source, st.Permission, st.Target, st.Class)
			if !st.Allowed {
				fmt.Fprintf(e.Stdout, "\n           %s", st.Why)
			}
			fmt.Fprintln(e.Stdout)
		}
	}
	if !a.Allowed {
		return answer.No(nil)
	}
	return nil
}
