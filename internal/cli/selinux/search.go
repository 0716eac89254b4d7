// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/analysis"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// searchKinds are the flags that choose rules, with the short forms and both
// spellings that versions of sesearch have.
var searchKinds = []struct {
	flag, short string
	kinds       []policydb.RuleKind
	help        string
}{
	{"all-allow", "A", []policydb.RuleKind{policydb.Allow, policydb.AllowX}, "allow and allowxperm rules"},
	{"allow", "", []policydb.RuleKind{policydb.Allow}, "allow rules"},
	{"allowxperm", "", []policydb.RuleKind{policydb.AllowX}, "allowxperm rules"},
	{"auditallow", "", []policydb.RuleKind{policydb.AuditAllow}, "auditallow rules"},
	{"auditallowxperm", "", []policydb.RuleKind{policydb.AuditAllowX}, "auditallowxperm rules"},
	{"dontaudit", "", []policydb.RuleKind{policydb.DontAudit}, "dontaudit rules"},
	{"dontauditxperm", "", []policydb.RuleKind{policydb.DontAuditX}, "dontauditxperm rules"},
	{"type_trans", "T", []policydb.RuleKind{policydb.TypeTransition}, "type_transition rules"},
	{"type_transition", "", []policydb.RuleKind{policydb.TypeTransition}, "type_transition rules"},
	{"type_change", "", []policydb.RuleKind{policydb.TypeChange}, "type_change rules"},
	{"type_member", "", []policydb.RuleKind{policydb.TypeMember}, "type_member rules"},
}

func newSearchCommand(e *answer.Env) *cobra.Command {
	var (
		src                           policyFlags
		q                             analysis.Query
		class, perms, xperms, boolean string
		roleTrans, rangeTrans         bool
	)
	chosen := make([]bool, len(searchKinds))
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Search a policy's rules, with the options and the output of sesearch",
		Example: `  palisade selinux search --policy policy.33 -A -s container_t -t container_file_t -c file -p write
  palisade selinux search --policy policy.33 -T -s init_t -c process
  palisade selinux search --policy policy.33 -A -b allow_ptrace`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for i, on := range chosen {
				if on {
					q.Kinds = append(q.Kinds, searchKinds[i].kinds...)
				}
			}
			q.RoleTransitions = q.RoleTransitions || roleTrans
			q.RangeTransitions = q.RangeTransitions || rangeTrans
			about := q.RoleAllows || q.RoleTransitions || q.RangeTransitions
			if len(q.Kinds) == 0 && !about {
				return answer.Fail(errors.New("selinux search: no kind of rule is chosen")).Hint("-A searches allow rules, -T type transitions; see 'palisade selinux search --help'")
			}
			if about && (perms != "" || xperms != "" || boolean != "") {
				return errors.New("selinux search: -p, -x and -b are for type enforcement rules")
			}
			list := func(text string, re bool) []string {
				switch {
				case text == "":
					return nil
				case re:
					return []string{text}
				}
				return strings.Split(text, ",")
			}
			q.Classes = list(class, q.ClassRegexp)
			q.Permissions = list(perms, false)
			q.Booleans = list(boolean, q.BoolRegexp)
			var err error
			if q.XPerms, err = parseXPerms(xperms); err != nil {
				return err
			}
			p, err := src.load(e)
			if err != nil {
				return err
			}
			rules, err := analysis.Search(p, q)
			var unknown *analysis.UnknownNameError
			switch {
			case errors.As(err, &unknown):
				return answer.No(answer.Fail(err).Hint("'palisade selinux info' lists what the policy has"))
			case err != nil:
				return err
			case e.JSON:
				if rules == nil {
					rules = []string{}
				}
				return e.PrintJSON(rules)
			}
			for _, r := range rules {
				fmt.Fprintln(e.Stdout, r)
			}
			return nil
		},
	}
	src.register(cmd)
	f := cmd.Flags()
	f.SortFlags = false
	for i, k := range searchKinds {
		f.BoolVarP(&chosen[i], k.flag, k.short, false, k.help)
	}
	f.BoolVar(&q.RoleAllows, "role_allow", false, "role allow rules")
	f.BoolVar(&q.RoleTransitions, "role_trans", false, "role_transition rules")
	f.BoolVar(&roleTrans, "role_transition", false, "role_transition rules")
	f.BoolVar(&q.RangeTransitions, "range_trans", false, "range_transition rules")
	f.BoolVar(&rangeTrans, "range_transition", false, "range_transition rules")
	f.StringVarP(&q.Source, "source", "s", "", "source type, attribute or role")
	f.StringVarP(&q.Target, "target", "t", "", "target type, attribute or role")
	f.StringVarP(&class, "class", "c", "", "classes, separated by commas")
	f.StringVarP(&perms, "perms", "p", "", "permissions, separated by commas: one of them")
	f.StringVarP(&xperms, "xperms", "x", "", "extended permissions, numbers or ranges separated by commas")
	f.StringVarP(&q.Default, "default", "D", "", "new type, role or range of the rule")
	f.StringVarP(&boolean, "bool", "b", "", "booleans in the rule's condition, separated by commas: one of them")
	f.BoolVar(&q.SourceDirect, "ds", false, "the source as the rule is written, not its members")
	f.BoolVar(&q.TargetDirect, "dt", false, "the target as the rule is written, not its members")
	f.BoolVar(&q.SourceRegexp, "rs", false, "the source is a regular expression")
	f.BoolVar(&q.TargetRegexp, "rt", false, "the target is a regular expression")
	f.BoolVar(&q.ClassRegexp, "rc", false, "the class is a regular expression")
	f.BoolVar(&q.DefaultRegexp, "rd", false, "the default is a regular expression")
	f.BoolVar(&q.BoolRegexp, "rb", false, "the boolean is a regular expression")
	f.BoolVar(&q.PermsEqual, "ep", false, "exactly these permissions")
	f.BoolVar(&q.PermsSubset, "Sp", false, "all of these permissions, perhaps more")
	f.BoolVar(&q.XPermsEqual, "ex", false, "exactly these extended permissions")
	f.BoolVar(&q.BoolsEqual, "eb", false, "exactly these booleans")
	return cmd
}

// sesearchOptions are those of sesearch's options that are longer than a letter
// and have one dash.
var sesearchOptions = []string{"ds", "dt", "rs", "rt", "rc", "rd", "rb", "ep", "Sp", "ex", "eb"}

// DoubleDashes turns "-ds" into "--ds" behind "selinux search", so that what
// people type for sesearch works; to a flag parser it would be -d and -s.
func DoubleDashes(args []string) []string {
	if len(args) < 2 || args[0] != "selinux" || args[1] != "search" {
		return args
	}
	out := append([]string(nil), args...)
	for i, a := range out {
		for _, o := range sesearchOptions {
			if a == "-"+o {
				out[i] = "-" + a
			}
		}
	}
	return out
}

func parseXPerms(text string) ([][2]uint16, error) {
	if text == "" {
		return nil, nil
	}
	var out [][2]uint16
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(strings.TrimSpace(low), 0, 16)
		if err != nil {
			return nil, fmt.Errorf("-x %s: want numbers such as 0x5401 or ranges such as 0x5401-0x5410", part)
		}
		b := a
		if isRange {
			if b, err = strconv.ParseUint(strings.TrimSpace(high), 0, 16); err != nil {
				return nil, fmt.Errorf("-x %s: want numbers such as 0x5401 or ranges such as 0x5401-0x5410", part)
			}
		}
		out = append(out, [2]uint16{uint16(min(a, b)), uint16(max(a, b))})
	}
	return out, nil
}

func newIsolateCommand(e *answer.Env) *cobra.Command {
	var (
		src    policyFlags
		accept string
	)
	cmd := &cobra.Command{
		Use:   "isolate CONTEXT CONTEXT…",
		Short: "Prove that contexts are kept apart, or list what is left between them",
		Long: `Decides, for every ordered pair of contexts and every class, what the one may do to
the other's processes and to content that the other may own: constraints, booleans
and bounds included, as the kernel decides. Ends with exit code 1 when something is
left that the file of accepted residuals does not have.

The file has lines "CLASS PERM SOURCE-TYPE TARGET-TYPE", each a name or "*".`,
		Example: `  palisade selinux isolate --policy policy.33 system_u:system_r:container_t:s0:c1,c2 system_u:system_r:container_t:s0:c3,c4`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var accepted analysis.Accepted
			if accept != "" {
				b, err := os.ReadFile(accept)
				if err != nil {
					return err
				}
				if accepted, err = analysis.ParseAccepted(string(b)); err != nil {
					return fmt.Errorf("%s: %w", accept, err)
				}
			}
			server, err := src.server(e)
			if err != nil {
				return err
			}
			contexts := make([]*ss.Context, len(args))
			for i, a := range args {
				if contexts[i], err = server.ParseContext(a); err != nil {
					return answer.No(err)
				}
			}
			proof, err := analysis.Isolate(server, contexts, accepted)
			if err != nil {
				return err
			}
			if e.JSON {
				if err := e.PrintJSON(proof); err != nil {
					return err
				}
			} else {
				printProof(e, proof)
			}
			if !proof.Proven {
				return answer.No(nil)
			}
			return nil
		},
	}
	src.register(cmd)
	src.registerSet(cmd)
	cmd.Flags().StringVar(&accept, "accept", "", "`file` of residual permissions that are accepted")
	return cmd
}

func printProof(e *answer.Env, proof analysis.Proof) {
	for _, p := range proof.Problems {
		fmt.Fprintf(e.Stdout, "problem: %s\n", p)
	}
	// One line for what has the same class, types and reason.
	type line struct {
		class, source, target, reason string
		accepted                      bool
	}
	var order []line
	perms := map[line][]string{}
	for _, r := range proof.Residual {
		l := line{r.Class, r.Source, r.Target, r.Reason, r.Accepted}
		if perms[l] == nil {
			order = append(order, l)
		}
		perms[l] = append(perms[l], r.Perm)
	}
	for _, l := range order {
		what := "left"
		if l.accepted {
			what = "accepted"
		}
		fmt.Fprintf(e.Stdout, "%s: %s may %s on %s:%s (%s)\n", what, l.source, strings.Join(perms[l], " "), l.target, l.class, l.reason)
	}
	verdict := "proven apart"
	if !proof.Proven {
		verdict = "not proven apart"
	}
	fmt.Fprintf(e.Stdout, "%s: %d pairs of %d kinds, %d decisions\n", verdict, proof.Pairs, proof.Kinds, proof.Checked)
}
