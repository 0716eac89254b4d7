// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/analysis"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// flowFlags are the flags of the verb.
type flowFlags struct {
	policyFlags
	from, to, mapFile string
	levels            []string
	into, brief       bool
	paths             int
	analysis.FlowOptions
}

func newFlowCommand(e *answer.Env) *cobra.Command {
	var f flowFlags
	cmd := &cobra.Command{
		Use:   "flow [flags] -s FROM [-t TO]",
		Short: "Ask how information can flow between types, or between full contexts",
		Long: `With types: the flows of one step out of FROM (or into it, with --into), or with -t
the shortest paths to TO. Information flows to what FROM may write and to who may
read it; a permission map says which permission does what and how much it carries.

With full contexts, both of them: a shortest path on which every step is a decision as
the kernel makes it, constraints included. What lies between is taken with the levels of
both ends and the lowest of the policy; --level names others, 'none' only those of the ends.

Ends with exit code 1 when nothing flows.`,
		Example: `  palisade selinux flow --policy policy.33 -s shadow_t -t svirt_t --min-weight 5
  palisade selinux flow --policy policy.33 -s svirt_t --into --map perm_map
  palisade selinux flow --policy policy.33 --level none -s system_u:system_r:svirt_t:s0:c1,c2 -t system_u:system_r:svirt_t:s0:c3,c4`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if f.mapFile != "" {
				m, err := readPermMap(f.mapFile)
				if err != nil {
					return err
				}
				f.Map = m
			}
			server, err := f.server(e)
			if err != nil {
				return err
			}
			if f.Map != nil {
				if un := f.Map.Unmapped(server.Policy()); len(un) > 0 {
					e.Warnf("%s lacks %d permissions of the policy, which carry nothing: %s …", f.mapFile, len(un), un[0])
				}
			}
			g, err := analysis.NewFlowGraph(server, f.FlowOptions)
			if err != nil {
				return answer.No(err)
			}
			if strings.Contains(f.from, ":") {
				return f.contexts(e, server, g)
			}
			return f.types(e, g)
		},
	}
	f.register(cmd)
	f.registerSet(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.from, "source", "s", "", "`type` or context that information flows from")
	flags.StringVarP(&f.to, "target", "t", "", "`type` or context that it flows to")
	flags.BoolVar(&f.into, "into", false, "list the flows into the type instead of those out of it")
	flags.IntVarP(&f.MinWeight, "min-weight", "m", 1, "leave out permissions that carry less, 1 to 10")
	flags.StringVar(&f.mapFile, "map", "", "permission map in setools' format; Palisade's own without it")
	flags.StringArrayVar(&f.Exclude, "exclude", nil, "type or attribute that information does not pass; may be repeated")
	flags.StringArrayVar(&f.levels, "level", nil, "level or range of what lies between contexts, beside those of the ends; may be repeated")
	flags.IntVarP(&f.paths, "paths", "n", 1, "number of shortest paths to show, 0 for all")
	flags.BoolVar(&f.brief, "brief", false, "leave the rules out")
	return cmd
}

func (f *flowFlags) check() error {
	switch {
	case f.from == "":
		return answer.Fail(errors.New("no source")).Hint("name a type or a context with -s")
	case strings.Contains(f.from, ":") != strings.Contains(f.to, ":"):
		return answer.Fail(errors.New("constraints are decided between full contexts")).Hint("give -s and -t both as contexts, or both as types")
	case f.into && f.to != "":
		return answer.Fail(errors.New("--into is about one type")).Hint("for a path in the other direction swap -s and -t")
	case f.MinWeight < 1 || f.MinWeight > 10:
		return answer.Fail(fmt.Errorf("no weight %d", f.MinWeight)).Hint("weights are from 1 to 10")
	case f.paths < 0:
		return answer.Fail(errors.New("a negative number of paths")).Hint("0 shows all")
	}
	return nil
}

func readPermMap(file string) (*analysis.PermMap, error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m, err := analysis.ParsePermMap(r)
	if err != nil {
		return nil, answer.No(fmt.Errorf("%s: %w", file, err))
	}
	return m, nil
}

func (f *flowFlags) types(e *answer.Env, g *analysis.FlowGraph) error {
	var paths [][]analysis.FlowStep
	if f.to == "" {
		steps, err := g.Direct(f.from, f.into, !f.brief)
		if err != nil {
			return answer.No(err)
		}
		for _, s := range steps {
			paths = append(paths, []analysis.FlowStep{s})
		}
	} else {
		var err error
		if paths, err = g.Shortest(f.from, f.to, f.paths); err != nil {
			return answer.No(err)
		}
	}
	if e.JSON {
		nodes, edges := g.Size()
		if err := e.PrintJSON(struct {
			Nodes int                   `json:"nodes"`
			Edges int                   `json:"edges"`
			Paths [][]analysis.FlowStep `json:"paths"`
		}{nodes, edges, append([][]analysis.FlowStep{}, paths...)}); err != nil {
			return err
		}
	} else {
		for i, p := range paths {
			if f.to != "" && len(paths) > 1 {
				fmt.Fprintf(e.Stdout, "path %d\n", i+1)
			}
			f.print(e, p)
		}
	}
	if len(paths) == 0 {
		fmt.Fprintln(e.Stderr, "no information flows")
		return answer.No(nil)
	}
	return nil
}

func (f *flowFlags) print(e *answer.Env, path []analysis.FlowStep) {
	for _, s := range path {
		if f.brief {
			fmt.Fprintf(e.Stdout, "%s -> %s\n", s.From, s.To)
			continue
		}
		fmt.Fprintf(e.Stdout, "%s -> %s  weight %d\n", s.From, s.To, s.Weight)
		for _, r := range s.Rules {
			fmt.Fprintf(e.Stdout, "  %s\n", r)
		}
	}
}

func (f *flowFlags) contexts(e *answer.Env, server *ss.Server, g *analysis.FlowGraph) error {
	var ends [2]*ss.Context
	for i, text := range []string{f.from, f.to} {
		c, err := server.ParseContext(text)
		if err != nil {
			return answer.No(err)
		}
		ends[i] = c
	}
	ranges, err := f.between(server, ends[0])
	if err != nil {
		return err
	}
	got := g.ShortestBetween(ends[0], ends[1], ranges...)
	if e.JSON {
		if err := e.PrintJSON(got); err != nil {
			return err
		}
	} else {
		f.print(e, got.Path)
	}
	if len(got.Path) == 0 {
		fmt.Fprintf(e.Stderr, "no information flows: %d contexts are reached, %d decisions\n", got.Reached, got.Decisions)
		return answer.No(nil)
	}
	return nil
}

// between returns the ranges of what may lie between two contexts.
func (f *flowFlags) between(server *ss.Server, source *ss.Context) ([]policydb.Range, error) {
	if !server.Policy().MLS() {
		return nil, nil
	}
	if len(f.levels) == 0 {
		lowest := policydb.Level{Sensitivity: 1}
		return []policydb.Range{{Low: lowest, High: lowest}}, nil
	}
	var ranges []policydb.Range
	for _, level := range f.levels {
		if level == "none" {
			continue
		}
		own := strings.SplitN(source.String(), ":", 4)
		c, err := server.ParseContext(strings.Join(append(own[:3:3], level), ":"))
		if err != nil {
			return nil, answer.No(fmt.Errorf("--level %s: %w", level, err))
		}
		ranges = append(ranges, c.Values().Range)
	}
	return ranges, nil
}
