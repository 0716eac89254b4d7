// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// openedPolicy is policy to ask: compiled from text, or binary.
type openedPolicy struct {
	set      *decide.Set
	compiled map[*blob.Profile]*compile.Profile
	options  compile.Options
	// source gives the text that spans of compiled point into.
	source diag.Source
}

func (p *openedPolicy) explainer(b *blob.Profile) decide.Explainer {
	if c, ok := p.compiled[b]; ok {
		return c
	}
	return nil
}

// binaryPolicy tells the kernel's format, which begins with a version item.
func binaryPolicy(b []byte) bool { return bytes.HasPrefix(b, []byte("\x04\x08\x00version\x00")) }

// openPolicy reads policy from a file of profiles, a binary policy, or with
// "kernel:NAME" what the running kernel has loaded.
func (t *targetFlags) openPolicy(e *answer.Env, path string) (*openedPolicy, error) {
	o, err := t.options()
	if err != nil {
		return nil, err
	}
	p := &openedPolicy{compiled: map[*blob.Profile]*compile.Profile{}, options: o}
	env, err := t.env()
	if err != nil {
		return nil, err
	}
	if p.options.Kernel = env.Kernel; p.options.Kernel == nil {
		if p.options.Kernel, err = (securityfs.FS{}).Features(); err != nil {
			p.options.Kernel = compile.Portable()
		}
	}
	var data []byte
	var name string
	if loaded, ok := strings.CutPrefix(path, "kernel:"); ok {
		if data, err = (securityfs.FS{}).RawData(loaded); err != nil {
			return nil, err
		}
	} else {
		name, data, err = readProfile(e, path)
		if err != nil {
			return nil, err
		}
	}
	if binaryPolicy(data) {
		profiles, err := blob.Decode(data)
		if err != nil {
			return nil, answer.No(fmt.Errorf("%s: %w", path, err))
		}
		p.set = decide.NewSet(profiles...)
		return p, nil
	}
	again := *e
	if path == "-" {
		again.Stdin = bytes.NewReader(data)
	}
	policy, err := t.compile(&again, path, true)
	if err != nil {
		return nil, err
	}
	for _, c := range policy.Profiles {
		p.compiled[c.Blob] = c
	}
	p.source = (&profileFindings{name: name, text: data}).source
	p.set = decide.NewSet(policy.Blobs()...)
	return p, nil
}

// label finds the profiles of a label; a hint lists what is there.
func (p *openedPolicy) label(s string) ([]*blob.Profile, error) {
	l, err := p.set.Label(s)
	if errors.Is(err, decide.ErrNoProfile) {
		return nil, answer.Fail(err).Hint("the policy has: %s", strings.Join(p.set.Names(), ", "))
	}
	return l, err
}

type decisionAnswer struct {
	Allowed  bool            `json:"allowed"`
	Access   string          `json:"access"`
	Profiles []profileAnswer `json:"profiles"`
}

type profileAnswer struct {
	Profile    string       `json:"profile"`
	Allowed    bool         `json:"allowed"`
	Reason     string       `json:"reason"`
	Audit      bool         `json:"audit,omitempty"`
	Quiet      bool         `json:"quiet,omitempty"`
	Transition string       `json:"transition,omitempty"`
	Rules      []ruleAnswer `json:"rules"`
}

type ruleAnswer struct {
	Rule   string `json:"rule"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func describeRule(r *apparmor.ResolvedRule) ruleAnswer {
	a := ruleAnswer{Rule: "implied by other rules", File: r.Span.File, Line: r.Span.Start.Line, Column: r.Span.Start.Column}
	if r.Source != nil {
		a.Rule = strings.TrimSpace(apparmor.String(r.Source))
	}
	return a
}

func (a ruleAnswer) String() string {
	if a.Line == 0 {
		return a.Rule
	}
	return fmt.Sprintf("%s:%d:%d: %s", a.File, a.Line, a.Column, a.Rule)
}

func decisionOf(v decide.Verdict) decisionAnswer {
	out := decisionAnswer{Allowed: v.Allowed, Access: v.Text, Profiles: []profileAnswer{}}
	for _, a := range v.Decision.Answers {
		p := profileAnswer{
			Profile: decide.FullName(a.Profile), Allowed: a.Allowed, Reason: a.Reason.String(), Audit: a.Audit, Quiet: a.Quiet,
			Transition: a.Transition, Rules: []ruleAnswer{},
		}
		for _, r := range a.Rules {
			p.Rules = append(p.Rules, describeRule(r))
		}
		out.Profiles = append(out.Profiles, p)
	}
	return out
}

// operation turns the words of a question into what is wanted. It is a rule:
// a bare x needs no word about where the exec goes.
func (p *openedPolicy) operation(words []string) (*compile.Wanted, bool, error) {
	text := strings.TrimSuffix(strings.TrimSpace(strings.Join(words, " ")), ",")
	owner := true
	if rest, ok := strings.CutPrefix(text, "other "); ok {
		owner, text = false, rest
	}
	text = strings.TrimPrefix(text, "owner ")
	parse := func(text string) (*compile.Wanted, error) {
		file, diags := apparmor.Parse("<question>", []byte("profile question {\n"+text+",\n}\n"))
		if diags.HasErrors() {
			return nil, diags.Err()
		}
		policy, diags := apparmor.Resolve(file, apparmor.Env{Kernel: p.options.Kernel, ABI: p.options.Kernel, SkipExecCheck: true})
		if diags.HasErrors() {
			return nil, diags.Err()
		}
		w, diags := compile.Want(policy.Profiles[0], p.options)
		return w, diags.Err()
	}
	w, err := parse(text)
	if err != nil {
		if alt, ok := withExec(text); ok {
			if w, err2 := parse(alt); err2 == nil {
				return w, owner, nil
			}
		}
		first := err
		var list interface{ Unwrap() []error }
		if errors.As(err, &list) && len(list.Unwrap()) > 0 {
			first = list.Unwrap()[0]
		}
		return nil, false, answer.Fail(fmt.Errorf("operation %q: %w", text, first)).Hint("an operation is written as a rule: '/etc/passwd r', 'signal send set=kill peer=x', 'capability mknod'")
	}
	return w, owner, nil
}

// withExec writes the bare x of a file question as ix.
func withExec(text string) (string, bool) {
	perms := func(s string) bool { return s != "" && strings.Trim(s, "rwaklmx") == "" && strings.Contains(s, "x") }
	fields := strings.Fields(text)
	for _, i := range []int{len(fields) - 1, 0} {
		if i >= 0 && i < len(fields) && perms(fields[i]) {
			fields[i] = strings.Replace(fields[i], "x", "ix", 1)
			return strings.Join(fields, " "), true
		}
	}
	return "", false
}

func newDecideCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var policy string
	var batch bool
	cmd := &cobra.Command{
		Use:   "decide [flags] --profile FILE|BLOB PROFILE OPERATION...",
		Short: "Say whether a profile allows an operation, and which rule decides",
		Long: `Answers offline what the kernel would answer. The operation is written as a rule;
with wildcards in it the question is whether all that the rule stands for is
allowed, and a "no" comes with the shortest access that is not. PROFILE may be a
stack, a//&b: all of it has to allow. File questions are about files of the
task's own user; "other" before the operation asks about those of others.

The policy of --profile is text, binary policy, or kernel:NAME for what the
running kernel has loaded. For text the deciding rules are named.

--batch reads lines PROFILE, a tab, and in hexadecimal a class byte and a match
string, and prints for each the four words allow, deny, audit and quiet that the
kernel's .access file gives.

Exit code 0: allowed; 1: not allowed.

` + targetHelp,
		Example: `  palisade apparmor decide --profile web.profile web /etc/passwd r
  palisade apparmor decide --profile web.bin web 'signal send set=kill peer=db'
  palisade apparmor decide --profile kernel:docker-default docker-default 'mount'`,
		Args: func(_ *cobra.Command, args []string) error {
			if batch && len(args) > 0 || !batch && len(args) < 2 {
				return answer.Fail(errors.New("decide needs a profile and an operation, or --batch and neither")).Hint("see 'palisade apparmor decide --help'")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if policy == "" {
				return answer.Fail(errors.New("no policy to ask")).Hint("give it with --profile")
			}
			p, err := t.openPolicy(e, policy)
			if err != nil {
				return err
			}
			if batch {
				return decideBatch(e, p)
			}
			label, err := p.label(args[0])
			if err != nil {
				return err
			}
			want, owner, err := p.operation(args[1:])
			if err != nil {
				return err
			}
			v, err := decide.Check(label, want, owner, p.explainer)
			if err != nil {
				return err
			}
			a := decisionOf(v)
			if e.JSON {
				if err := e.PrintJSON(a); err != nil {
					return err
				}
			} else {
				printDecision(e, a)
			}
			if !v.Allowed {
				return answer.No(nil)
			}
			return nil
		},
	}
	t.register(cmd)
	// An operation may hold words that look like flags: ->.
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&policy, "profile", "", "the policy to ask: profile text, binary policy, or kernel:NAME")
	cmd.Flags().BoolVar(&batch, "batch", false, "answer queries from standard input as the kernel's .access file does")
	return cmd
}

func printDecision(e *answer.Env, a decisionAnswer) {
	word := "yes"
	if !a.Allowed {
		word = "no"
	}
	fmt.Fprintf(e.Stdout, "%s: %s\n", word, a.Access)
	for _, p := range a.Profiles {
		s := p.Reason
		if p.Transition != "" {
			s += ", " + p.Transition
		}
		switch {
		case p.Audit:
			s += "; logged"
		case p.Quiet:
			s += "; not logged"
		}
		fmt.Fprintf(e.Stdout, "  %s: %s\n", p.Profile, s)
		for _, r := range p.Rules {
			fmt.Fprintf(e.Stdout, "    %s\n", r)
		}
	}
}

func decideBatch(e *answer.Env, p *openedPolicy) error {
	labels := map[string][]*blob.Profile{}
	return e.EachLine(func(n int, line string) error {
		name, text, ok := strings.Cut(line, "\t")
		if !ok {
			return fmt.Errorf("standard input, line %d: no tab between profile and query", n)
		}
		query, err := hex.DecodeString(strings.TrimSpace(text))
		if err != nil || len(query) == 0 {
			return fmt.Errorf("standard input, line %d: the query is not hexadecimal", n)
		}
		label, ok := labels[name]
		if !ok {
			if label, err = p.label(name); err != nil {
				return fmt.Errorf("standard input, line %d: %w", n, err)
			}
			labels[name] = label
		}
		a := decide.Query(label, query)
		_, err = fmt.Fprintf(e.Stdout, "0x%08x 0x%08x 0x%08x 0x%08x\n", a.Allow, a.Deny, a.Audit, a.Quiet)
		return err
	})
}
