// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

const batchHelp = `With --batch questions come from standard input, one a line, and each line is
answered by one line. A class may be given by name or by its number in the policy.`

func newDecideCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	var batch bool
	cmd := &cobra.Command{
		Use:   "decide [flags] SCON TCON CLASS [PERMISSION...]",
		Short: "Say what a source context may do to a target, constraints and levels included",
		Long: `Says what the policy allows a source context to do to a target context of a class,
as the kernel decides it: rules, conditional rules, constraints, role allows, type
bounds, permissive domains, unknown classes.

Prints the allowed permissions. With PERMISSIONs it prints those of them that are
allowed, and exits with 1 when one is not.

` + batchHelp + ` The answer is what the
kernel's /sys/fs/selinux/access answers:
  allowed decided auditallow auditdeny seqno flags
in hexadecimal (seqno decimal, always 0), or "invalid".`,
		Example: `  palisade selinux decide --policy policy.33 \
    system_u:system_r:svirt_t:s0:c1,c2 system_u:object_r:svirt_image_t:s0:c3,c4 file write`,
		Args: batchArgs(&batch, 3, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := source.server(e)
			if err != nil {
				return err
			}
			if batch {
				return runBatch(e, s, decideLine)
			}
			return decideOne(e, s, args)
		},
	}
	source.register(cmd)
	source.registerSet(cmd)
	cmd.Flags().BoolVar(&batch, "batch", false, "read 'SCON TCON CLASS' lines from standard input")
	return cmd
}

// batchArgs demands no arguments with --batch and otherwise from low to high, or
// any number from low on.
func batchArgs(batch *bool, low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case *batch && len(args) > 0:
			return answer.Fail(errors.New("--batch takes its questions from standard input alone")).Hint("see '%s --help'", cmd.CommandPath())
		case !*batch && (len(args) < low || high >= 0 && len(args) > high):
			return answer.Fail(fmt.Errorf("%d arguments are not what '%s' takes", len(args), cmd.Use)).Hint("see '%s --help'", cmd.CommandPath())
		}
		return nil
	}
}

type decideAnswer struct {
	Source     string   `json:"source"`
	Target     string   `json:"target"`
	Class      string   `json:"class"`
	Allowed    []string `json:"allowed"`
	Denied     []string `json:"denied,omitempty"` // of those asked for
	AuditAllow []string `json:"auditallow,omitempty"`
	DontAudit  []string `json:"dontaudit,omitempty"`
	Permissive bool     `json:"permissive,omitempty"`
	Unknown    bool     `json:"unknown_class,omitempty"`
	Vectors    vectors  `json:"vectors"`
}

type vectors struct {
	Allowed    string `json:"allowed"`
	AuditAllow string `json:"auditallow"`
	AuditDeny  string `json:"auditdeny"`
	Flags      string `json:"flags"`
}

func decideOne(e *answer.Env, s *ss.Server, args []string) error {
	source, target, err := parsePair(s, args[0], args[1])
	if err != nil {
		return err
	}
	class := s.Policy().Classes.ByName(args[2])
	asked := args[3:]
	if class == nil {
		return decideUnknown(e, s, source, target, args[2], asked)
	}
	var mask uint32
	for _, name := range asked {
		bit := class.PermissionMask(name)
		if bit == 0 {
			return answer.No(answer.Fail(fmt.Errorf("class %s has no permission %q", class.Name, name)).
				Hint("it has: %s", strings.Join(class.PermissionNames(class.AllPermissions()), " ")))
		}
		mask |= bit
	}
	d := s.Decide(source, target, class.ID())
	shown, denied := d.Allowed, uint32(0)
	if len(asked) > 0 {
		shown, denied = d.Allowed&mask, mask&^d.Allowed
	}
	a := decideAnswer{
		Source: source.String(), Target: target.String(), Class: class.Name,
		Allowed: class.PermissionNames(shown), Denied: class.PermissionNames(denied),
		AuditAllow: class.PermissionNames(d.AuditAllow), DontAudit: class.PermissionNames(^d.AuditDeny),
		Permissive: d.IsPermissive(),
		Vectors:    hexVectors(d),
	}
	return printDecision(e, a)
}

func hexVectors(d ss.Decision) vectors {
	hex := func(v uint32) string { return strconv.FormatUint(uint64(v), 16) }
	return vectors{hex(d.Allowed), hex(d.AuditAllow), hex(d.AuditDeny), hex(d.Flags)}
}

// decideUnknown answers for a class that the policy does not have.
func decideUnknown(e *answer.Env, s *ss.Server, source, target *ss.Context, class string, asked []string) error {
	handling := s.Policy().HandleUnknown()
	e.Warnf("the policy has no class %q; its handle_unknown setting is %s", class, handling)
	d := s.Decide(source, target, 0)
	a := decideAnswer{
		Source: source.String(), Target: target.String(), Class: class, Permissive: d.IsPermissive(), Unknown: true,
		Vectors: hexVectors(d),
	}
	if d.Allowed != 0 {
		a.Allowed = asked
	} else {
		a.Denied = asked
	}
	return printDecision(e, a)
}

func printDecision(e *answer.Env, a decideAnswer) error {
	if e.JSON {
		if a.Allowed == nil {
			a.Allowed = []string{}
		}
		if err := e.PrintJSON(a); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(e.Stdout, strings.Join(a.Allowed, " "))
		if a.Permissive {
			e.Warnf("the source domain is permissive: what is not allowed is logged and done")
		}
	}
	if len(a.Denied) > 0 {
		return answer.No(nil)
	}
	return nil
}

func parsePair(s *ss.Server, sourceText, targetText string) (source, target *ss.Context, err error) {
	if source, err = s.ParseContext(sourceText); err != nil {
		return nil, nil, answer.No(fmt.Errorf("source %w", err))
	}
	if target, err = s.ParseContext(targetText); err != nil {
		return nil, nil, answer.No(fmt.Errorf("target %w", err))
	}
	return source, target, nil
}

// contextCache keeps parsed contexts, since batches repeat them.
type contextCache struct {
	server *ss.Server
	parsed map[string]*ss.Context // nil for those that are not valid
}

// maxCachedContexts bounds the memory of a batch without end.
const maxCachedContexts = 1 << 16

func newContextCache(s *ss.Server) *contextCache {
	return &contextCache{server: s, parsed: map[string]*ss.Context{}}
}

func (c *contextCache) get(text string) *ss.Context {
	if ctx, ok := c.parsed[text]; ok {
		return ctx
	}
	ctx, err := c.server.ParseContext(text)
	if err != nil {
		ctx = nil
	}
	if len(c.parsed) >= maxCachedContexts {
		clear(c.parsed)
	}
	c.parsed[strings.Clone(text)] = ctx
	return ctx
}

// classNumber reads a class by name or number. A name that the policy does not
// know is class 0, as for a program that asks selinuxfs.
func classNumber(p *policydb.Policy, word string) (policydb.ClassID, bool) {
	if c := p.Classes.ByName(word); c != nil {
		return c.ID(), true
	}
	n, err := strconv.ParseUint(word, 10, 16)
	if err == nil {
		return policydb.ClassID(n), true
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return 0, true
}

const invalidLine = "invalid"

// decideLine answers one line of a batch.
func decideLine(c *contextCache, line string) string {
	words := strings.Fields(line)
	if len(words) != 3 {
		return invalidLine
	}
	source, target := c.get(words[0]), c.get(words[1])
	class, ok := classNumber(c.server.Policy(), words[2])
	if source == nil || target == nil || !ok {
		return invalidLine
	}
	d := c.server.Decide(source, target, class)
	return fmt.Sprintf("%x %x %x %x %d %x", d.Allowed, uint32(0xffffffff), d.AuditAllow, d.AuditDeny, 0, d.Flags)
}

// runBatch answers the lines of standard input one by one.
func runBatch(e *answer.Env, s *ss.Server, answer func(*contextCache, string) string) error {
	cache := newContextCache(s)
	return e.EachLine(func(_ int, line string) error {
		_, err := fmt.Fprintln(e.Stdout, answer(cache, line))
		return err
	})
}

// newContextVerb makes the verbs that compute a context.
func newContextVerb(e *answer.Env, use, short, long string, names bool, compute func(s *ss.Server, source, target *ss.Context, class policydb.ClassID, name string) (*ss.Context, error)) *cobra.Command {
	var source policyFlags
	var batch bool
	most := 3
	args := "SCON TCON CLASS"
	if names {
		most, args = 4, "SCON TCON CLASS [NAME]"
	}
	line := func(c *contextCache, line string) string {
		words := strings.Fields(line)
		if len(words) < 3 || len(words) > most {
			return invalidLine
		}
		from, to := c.get(words[0]), c.get(words[1])
		class, ok := knownClass(c.server.Policy(), words[2])
		if from == nil || to == nil || !ok {
			return invalidLine
		}
		name := ""
		if len(words) == 4 {
			var err error
			if name, err = url.QueryUnescape(words[3]); err != nil {
				return invalidLine
			}
		}
		n, err := compute(c.server, from, to, class, name)
		if err != nil {
			return invalidLine
		}
		return n.String()
	}
	cmd := &cobra.Command{
		Use:   use + " [flags] " + args,
		Short: short,
		Long: long + "\n\n" + batchHelp + `
What has no answer is answered by "invalid".`,
		Args: batchArgs(&batch, 3, most),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := source.server(e)
			if err != nil {
				return err
			}
			if batch {
				return runBatch(e, s, line)
			}
			from, to, err := parsePair(s, args[0], args[1])
			if err != nil {
				return err
			}
			class, ok := knownClass(s.Policy(), args[2])
			if !ok {
				return answer.No(fmt.Errorf("the policy has no class %q", args[2]))
			}
			name := ""
			if len(args) == 4 {
				name = args[3]
			}
			n, err := compute(s, from, to, class, name)
			if err != nil {
				return answer.No(err)
			}
			if e.JSON {
				return e.PrintJSON(struct {
					Context string `json:"context"`
				}{n.String()})
			}
			fmt.Fprintln(e.Stdout, n)
			return nil
		},
	}
	source.register(cmd)
	source.registerSet(cmd)
	cmd.Flags().BoolVar(&batch, "batch", false, fmt.Sprintf("read '%s' lines from standard input", args))
	return cmd
}

// knownClass reads a class that must have a meaning: a name of the policy, or any
// number.
func knownClass(p *policydb.Policy, word string) (policydb.ClassID, bool) {
	c, ok := classNumber(p, word)
	if ok && c == 0 {
		_, err := strconv.Atoi(word)
		ok = err == nil
	}
	return c, ok
}

func newCreateCommand(e *answer.Env) *cobra.Command {
	return newContextVerb(e, "create", "Compute the context of a new process or object",
		`Computes the context that a new process (class process; TCON is the executable's)
or object (TCON is the directory's) gets: type, role, range and filename
transitions, defaults of classes. NAME is the last component of the path; on the
lines of a batch it is percent-encoded, with + for a blank.`,
		true, (*ss.Server).Transition)
}

func newMemberCommand(e *answer.Env) *cobra.Command {
	return newContextVerb(e, "member", "Compute the context of a member of a polyinstantiated object",
		`Computes the context that a member of a polyinstantiated object gets, a user's own
/tmp for example.`, false,
		func(s *ss.Server, source, target *ss.Context, class policydb.ClassID, _ string) (*ss.Context, error) {
			return s.Member(source, target, class)
		})
}

func newRelabelCommand(e *answer.Env) *cobra.Command {
	return newContextVerb(e, "relabel", "Compute the context that an object is relabelled to for a user",
		`Computes the context that a program gives to an object on behalf of a user, a
terminal at login for example (type_change rules).`, false,
		func(s *ss.Server, source, target *ss.Context, class policydb.ClassID, _ string) (*ss.Context, error) {
			return s.Relabel(source, target, class)
		})
}

func newValidateTransCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	var batch bool
	line := func(c *contextCache, line string) string {
		words := strings.Fields(line)
		if len(words) != 4 {
			return invalidLine
		}
		from, to, process := c.get(words[0]), c.get(words[1]), c.get(words[3])
		class, ok := classNumber(c.server.Policy(), words[2])
		if from == nil || to == nil || process == nil || !ok {
			return invalidLine
		}
		switch err := c.server.ValidateTransition(from, to, process, class); {
		case err == nil:
			return "allowed"
		case errors.Is(err, ss.ErrTransitionDenied):
			return "denied"
		}
		return invalidLine
	}
	cmd := &cobra.Command{
		Use:   "validatetrans [flags] FROM TO CLASS PROCESS",
		Short: "Say whether validatetrans rules let a process change a label",
		Long: `Says whether the validatetrans and mlsvalidatetrans rules of a class let a process
change an object's context: "allowed" (exit 0) or "denied" (exit 1).

` + batchHelp + `
What has no answer is answered by "invalid".`,
		Args: batchArgs(&batch, 4, 4),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := source.server(e)
			if err != nil {
				return err
			}
			if batch {
				return runBatch(e, s, line)
			}
			from, to, err := parsePair(s, args[0], args[1])
			if err != nil {
				return err
			}
			process, err := s.ParseContext(args[3])
			if err != nil {
				return answer.No(fmt.Errorf("process %w", err))
			}
			class, _ := classNumber(s.Policy(), args[2])
			err = s.ValidateTransition(from, to, process, class)
			if err != nil && !errors.Is(err, ss.ErrTransitionDenied) {
				return answer.No(err)
			}
			if e.JSON {
				if jerr := e.PrintJSON(struct {
					Allowed bool `json:"allowed"`
				}{err == nil}); jerr != nil {
					return jerr
				}
			} else if err == nil {
				fmt.Fprintln(e.Stdout, "allowed")
			} else {
				fmt.Fprintln(e.Stdout, "denied")
			}
			if err != nil {
				return answer.No(nil)
			}
			return nil
		},
	}
	source.register(cmd)
	cmd.Flags().BoolVar(&batch, "batch", false, "read 'FROM TO CLASS PROCESS' lines from standard input")
	return cmd
}
