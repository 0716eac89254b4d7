// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// policyInfo is what a policy has, by count.
type policyInfo struct {
	Target        string   `json:"target"`
	Version       uint32   `json:"version"`
	MLS           bool     `json:"mls"`
	HandleUnknown string   `json:"handle_unknown"`
	Capabilities  []string `json:"capabilities"`

	Classes       int `json:"classes"`
	Permissions   int `json:"permissions"` // of commons and classes, each where it is defined
	Commons       int `json:"commons"`
	Types         int `json:"types"`
	Attributes    int `json:"attributes"`
	Aliases       int `json:"aliases"`
	Roles         int `json:"roles"`
	Users         int `json:"users"`
	Booleans      int `json:"booleans"`
	Sensitivities int `json:"sensitivities"`
	Categories    int `json:"categories"`

	Rules            map[string]int `json:"rules"`
	ConditionalRules map[string]int `json:"conditional_rules"`
	Conditionals     int            `json:"conditionals"`

	Constraints         int `json:"constraints"`
	MLSConstraints      int `json:"mls_constraints"`
	ValidateTrans       int `json:"validatetrans"`
	RoleAllows          int `json:"role_allows"`
	RoleTransitions     int `json:"role_transitions"`
	RangeTransitions    int `json:"range_transitions"`
	FilenameTransitions int `json:"filename_transitions"`
	BoundedTypes        int `json:"bounded_types"`

	Permissive []string `json:"permissive"`
	NeverAudit []string `json:"neveraudit"`

	InitialSIDs    int `json:"initial_sids"`
	ObjectContexts int `json:"object_contexts"`
	GenfsPaths     int `json:"genfs_paths"`
}

func newPolicyInfo(p *policydb.Policy) policyInfo {
	i := policyInfo{
		Target: p.Target.String(), Version: p.Version, MLS: p.MLS(), HandleUnknown: p.HandleUnknown().String(),
		Capabilities: []string{}, Permissive: []string{}, NeverAudit: []string{},
		Rules: map[string]int{}, ConditionalRules: map[string]int{},
		Commons: len(p.Commons.Entries), Classes: len(p.Classes.Entries), Roles: len(p.Roles.Entries),
		Users: len(p.Users.Entries), Booleans: len(p.Booleans.Entries), Conditionals: len(p.Conditionals),
		RoleAllows: len(p.RoleAllows), RoleTransitions: len(p.RoleTransitions), RangeTransitions: len(p.RangeTransitions),
		InitialSIDs: len(p.ObjectContexts.InitialSIDs),
	}
	for bit := range p.Capabilities.Bits() {
		name, _ := policydb.CapabilityName(bit)
		i.Capabilities = append(i.Capabilities, name)
	}
	for n := range p.Commons.Entries {
		i.Permissions += len(p.Commons.Entries[n].Permissions)
	}
	for n := range p.Classes.Entries {
		c := &p.Classes.Entries[n]
		i.Permissions += len(c.Permissions)
		i.ValidateTrans += len(c.ValidateTrans)
		for m := range c.Constraints {
			if c.Constraints[m].IsMLS() {
				i.MLSConstraints++
			} else {
				i.Constraints++
			}
		}
	}
	for n := range p.Types.Entries {
		switch t := &p.Types.Entries[n]; {
		case t.Attribute:
			i.Attributes++
		case t.Alias:
			i.Aliases++
		default:
			i.Types++
			if t.Bounds != 0 {
				i.BoundedTypes++
			}
			if p.Permissive.Has(t.Value) {
				i.Permissive = append(i.Permissive, t.Name)
			}
			if p.NeverAudit.Has(t.Value) {
				i.NeverAudit = append(i.NeverAudit, t.Name)
			}
		}
	}
	slices.Sort(i.Permissive)
	slices.Sort(i.NeverAudit)
	for range p.Sensitivities.All() {
		i.Sensitivities++
	}
	for range p.Categories.All() {
		i.Categories++
	}
	i.countRules(p)
	return i
}

func (i *policyInfo) countRules(p *policydb.Policy) {
	for _, r := range p.Rules {
		i.Rules[r.Kind().String()]++
	}
	for n := range p.Conditionals {
		for _, list := range [2][]policydb.Rule{p.Conditionals[n].True, p.Conditionals[n].False} {
			for _, r := range list {
				i.ConditionalRules[r.Kind().String()]++
			}
		}
	}
	for n := range p.FilenameTransitions {
		for _, o := range p.FilenameTransitions[n].Outcomes {
			i.FilenameTransitions += o.Sources.Len()
		}
	}
	c := &p.ObjectContexts
	i.ObjectContexts = len(c.Filesystems) + len(c.Ports) + len(c.Interfaces) + len(c.Nodes) + len(c.FSUses) + len(c.Nodes6) + len(c.PKeys) +
		len(c.EndPorts) + len(c.PIRQs) + len(c.IOPorts) + len(c.IOMems) + len(c.PCIDevices) + len(c.DeviceTrees)
	for n := range p.Genfs {
		i.GenfsPaths += len(p.Genfs[n].Entries)
	}
}

// ruleOrder is the order in which kinds of rules are shown.
var ruleOrder = []string{
	"allow", "auditallow", "dontaudit", "type_transition", "type_member", "type_change",
	"allowxperm", "auditallowxperm", "dontauditxperm",
}

func newInfoCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	cmd := &cobra.Command{
		Use:   "info [flags]",
		Short: "Show what a policy has: version, capabilities, and how much of everything",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := source.load(e)
			if err != nil {
				return err
			}
			i := newPolicyInfo(p)
			if e.JSON {
				return e.PrintJSON(i)
			}
			i.print(e)
			return nil
		},
	}
	source.register(cmd)
	return cmd
}

func (i *policyInfo) print(e *answer.Env) {
	mls := "without levels"
	if i.MLS {
		mls = "with levels"
	}
	fmt.Fprintf(e.Stdout, "policy version %d for %s, %s, unknown classes: %s\n", i.Version, i.Target, mls, i.HandleUnknown)
	row := func(name string, n int) { fmt.Fprintf(e.Stdout, "  %-24s %8d\n", name, n) }
	row("classes", i.Classes)
	row("permissions", i.Permissions)
	row("types", i.Types)
	row("attributes", i.Attributes)
	row("aliases", i.Aliases)
	row("roles", i.Roles)
	row("users", i.Users)
	row("booleans", i.Booleans)
	row("sensitivities", i.Sensitivities)
	row("categories", i.Categories)
	for _, kind := range ruleOrder {
		if n := i.Rules[kind]; n > 0 {
			row(kind, n)
		}
	}
	row("conditionals", i.Conditionals)
	for _, kind := range ruleOrder {
		if n := i.ConditionalRules[kind]; n > 0 {
			row(kind+" (cond.)", n)
		}
	}
	row("constrain", i.Constraints)
	row("mlsconstrain", i.MLSConstraints)
	row("validatetrans", i.ValidateTrans)
	row("role allow", i.RoleAllows)
	row("role_transition", i.RoleTransitions)
	row("range_transition", i.RangeTransitions)
	row("filename transitions", i.FilenameTransitions)
	row("bounded types", i.BoundedTypes)
	row("initial SIDs", i.InitialSIDs)
	row("object contexts", i.ObjectContexts)
	row("genfs paths", i.GenfsPaths)
	list := func(name string, words []string) {
		if len(words) > 0 {
			fmt.Fprintf(e.Stdout, "%s: %s\n", name, strings.Join(words, " "))
		}
	}
	list("capabilities", i.Capabilities)
	list("permissive domains", i.Permissive)
	list("domains never audited", i.NeverAudit)
}

func newReencodeCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	var out string
	var version uint32
	cmd := &cobra.Command{
		Use:   "reencode [flags] -o OUT",
		Short: "Read a policy and write it back, in the same or in another version",
		Long: fmt.Sprintf(`Reads a policy, checks it and writes it back. In its own version an unmodified policy
comes out byte for byte. With --version it is written in another one, from %d to %d;
what that version cannot hold and decisions depend on is an error.`, policydb.MinWriteVersion, policydb.MaxVersion),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return answer.Fail(fmt.Errorf("no file to write to")).Hint("name it with -o OUT")
			}
			p, err := source.load(e)
			if err != nil {
				return err
			}
			if version == 0 {
				version = p.Version
			}
			data, err := p.EncodeVersion(version)
			if err != nil {
				return answer.No(err)
			}
			return writePolicy(e, out, data, version)
		},
	}
	source.register(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.Flags().Uint32Var(&version, "version", 0, "version to write; the policy's own when it is not given")
	return cmd
}

// writePolicy replaces a file with a policy, whole or not at all.
func writePolicy(e *answer.Env, out string, data []byte, version uint32) error {
	if err := answer.WriteFile(out, data); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if e.JSON {
		return e.PrintJSON(struct {
			File    string `json:"file"`
			Version uint32 `json:"version"`
			Bytes   int    `json:"bytes"`
		}{out, version, len(data)})
	}
	fmt.Fprintf(e.Stderr, "wrote policy version %d, %d bytes, to %s\n", version, len(data), out)
	return nil
}

type booleanInfo struct {
	Name         string   `json:"name"`
	Value        bool     `json:"value"`
	Conditionals []string `json:"conditionals"` // the expressions with it
	Rules        int      `json:"rules"`        // in those conditionals
}

func newBooleanCommand(e *answer.Env) *cobra.Command {
	var source policyFlags
	var out string
	cmd := &cobra.Command{
		Use:   "boolean [flags] [NAME...]",
		Short: "List booleans, what depends on them, or write a policy with other defaults",
		Long: `Lists the booleans of a policy with their values, all or those named, and the
conditions that they are in. With --set and -o it writes the policy with other
default values.`,
		RunE: func(_ *cobra.Command, args []string) error {
			values, err := parseBooleans(source.set)
			if err != nil {
				return err
			}
			p, err := source.load(e)
			if err != nil {
				return err
			}
			states := make([]bool, p.Booleans.Prim)
			for b := range p.Booleans.All() {
				states[b.Value-1] = b.State
			}
			for name, v := range values {
				b := p.Booleans.ByName(name)
				if b == nil {
					return answer.No(fmt.Errorf("the policy has no boolean %q", name))
				}
				states[b.Value-1] = v
			}
			p = p.WithBooleans(states)
			if out != "" {
				data, err := p.Encode()
				if err != nil {
					return answer.No(err)
				}
				return writePolicy(e, out, data, p.Version)
			}
			return printBooleans(e, p, args)
		},
	}
	source.register(cmd)
	source.registerSet(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the policy with the values of --set to this file")
	return cmd
}

func printBooleans(e *answer.Env, p *policydb.Policy, names []string) error {
	if len(names) == 0 {
		for b := range p.Booleans.All() {
			names = append(names, b.Name)
		}
		slices.Sort(names)
	}
	infos := make([]booleanInfo, len(names))
	byValue := map[policydb.BoolID]*booleanInfo{}
	for i, name := range names {
		b := p.Booleans.ByName(name)
		if b == nil {
			return answer.No(fmt.Errorf("the policy has no boolean %q", name))
		}
		infos[i] = booleanInfo{Name: name, Value: b.State, Conditionals: []string{}}
		byValue[policydb.BoolID(b.Value)] = &infos[i]
	}
	for i := range p.Conditionals {
		c := &p.Conditionals[i]
		seen := map[policydb.BoolID]bool{}
		for _, x := range c.Expr {
			info := byValue[x.Bool]
			if x.Op != policydb.CondBool || info == nil || seen[x.Bool] {
				continue
			}
			seen[x.Bool] = true
			info.Conditionals = append(info.Conditionals, p.CondString(c.Expr))
			info.Rules += len(c.True) + len(c.False)
		}
	}
	if e.JSON {
		return e.PrintJSON(infos)
	}
	for _, i := range infos {
		fmt.Fprintf(e.Stdout, "%-40s %-3s %5d rules", i.Name, onOff(i.Value), i.Rules)
		if len(infos) <= 10 {
			fmt.Fprintf(e.Stdout, "  if %s", strings.Join(i.Conditionals, "; if "))
		}
		fmt.Fprintln(e.Stdout)
	}
	return nil
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
