// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/install"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

func (f *loadedFilter) source() *seccomp.Source {
	if f.filter != nil {
		return &seccomp.Source{Filter: f.filter, Mode: f.mode}
	}
	return &seccomp.Source{Programs: f.stack, BigEndian: f.big}
}

// filtersOf reads the filters of a process.
func filtersOf(pid string) ([]cbpf.Program, error) {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 0 {
		return nil, fmt.Errorf("process %q: want a process ID", pid)
	}
	raw, err := install.Filters(n)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("read the filters of process %d: there is no such process", n)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, answer.Fail(fmt.Errorf("read the filters of process %d: %w", n, err)).Hint("this needs root with CAP_SYS_ADMIN and CAP_SYS_PTRACE, and no seccomp filter on palisade itself")
	case err != nil:
		return nil, fmt.Errorf("read the filters of process %d: %w", n, err)
	}
	var out []cbpf.Program
	for _, b := range raw {
		p, err := cbpf.Decode(b, nativeArch().BigEndian())
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func newExplainCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	cmd := &cobra.Command{
		Use:   "explain FILE NAME|NR…",
		Short: "Say what happens to a call on each ABI, and which line of the profile says so",
		Long: `Says for each call everything that can happen to it, on each ABI of the filter: the
action, under which conditions on the arguments, and which rule of which line decides.
For compiled filters and processes the regions are exact as well; there are no lines.`,
		Example: "  palisade seccomp explain docker clone socket\n  palisade seccomp explain pid:1234 personality",
		Args:    cobra.MinimumNArgs(2),
		RunE:    func(_ *cobra.Command, args []string) error { return explainCalls(e, &t, args[0], args[1:]) },
	}
	t.register(cmd)
	return cmd
}

func explainCalls(e *answer.Env, t *targetFlags, name string, calls []string) error {
	f, err := loadFilter(e, name, t)
	if err != nil {
		return err
	}
	archs := f.archs
	if h, _, _ := t.host(); f.filter == nil && len(h.Archs) > 0 {
		archs = h.Archs
	}
	var out []*seccomp.Explanation
	src := f.source()
	for _, call := range calls {
		var found []*seccomp.Explanation
		for _, a := range archs {
			nr, err := parseNumber(a, call)
			if err != nil {
				continue
			}
			if _, err := strconv.ParseInt(call, 0, 64); err == nil && a.Base() != 0 && nr < a.Base() {
				nr += a.Base()
			}
			x, err := seccomp.Explain(src, a, nr)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			x.Cached = true
			for _, p := range f.stack {
				if ok, why := p.Cacheable(a.Audit(), nr); !ok {
					x.Cached, x.NotCached = false, why
				}
			}
			if a == syscalls.X32 && x.Cached {
				x.Cached, x.NotCached = false, "the kernel never keeps verdicts on x32 numbers"
			}
			found = append(found, x)
		}
		if len(found) == 0 {
			if _, known := syscalls.Lookup(call); known {
				return fmt.Errorf("none of %s has the system call %s", archList(archs), call)
			}
			return answer.Fail(fmt.Errorf("no system call %q on any architecture", call)).Hint("'palisade seccomp groups' lists calls by purpose")
		}
		out = append(out, found...)
	}
	if e.JSON {
		return e.PrintJSON(out)
	}
	for i, x := range out {
		if i > 0 {
			fmt.Fprintln(e.Stdout)
		}
		fmt.Fprintf(e.Stdout, "%v %s (%d)", x.Arch, x.Syscall, x.Nr)
		if x.Since != "" {
			fmt.Fprintf(e.Stdout, ", since Linux %s", x.Since)
		}
		if len(x.Groups) > 0 {
			fmt.Fprintf(e.Stdout, ", in %s", strings.Join(x.Groups, " "))
		}
		fmt.Fprintln(e.Stdout)
		for _, r := range x.Regions {
			when := "always"
			if len(r.Args) > 0 {
				parts := make([]string, len(r.Args))
				for i, a := range r.Args {
					parts[i] = a.String()
				}
				when = "when " + strings.Join(parts, " and ")
			} else if len(x.Regions) > 1 {
				when = "otherwise"
			}
			fmt.Fprintf(e.Stdout, "  %-16s %s\n", r.Action, when)
			if r.Reason != nil {
				fmt.Fprintf(e.Stdout, "    %s\n", strings.ReplaceAll(r.Reason.String(), "\n", "\n    "))
			}
		}
		if x.Cached {
			fmt.Fprintf(e.Stdout, "  the kernel keeps this verdict: the filter does not run\n")
		} else {
			fmt.Fprintf(e.Stdout, "  the filter runs at every call: %s\n", x.NotCached)
		}
	}
	return nil
}

func newDiffCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var format string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say exactly which calls two filters answer differently",
		Long: `Compares what two filters do, not how they are written. Each line is a region of calls
that became allowed, denied or otherwise answered, with the conditions on the arguments
and one call as a witness. Profiles, compiled filters and processes (pid:N) can be
compared with each other. Exit code 1 when there are differences.`,
		Example: "  palisade seccomp diff docker mine.json\n  palisade seccomp diff mine.json pid:1234 --json",
		Args:    cobra.ExactArgs(2),
		RunE:    func(_ *cobra.Command, args []string) error { return diffProfiles(e, &t, args[0], args[1], format) },
	}
	t.register(cmd)
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	return cmd
}

func parseFormat(e *answer.Env, s string) (string, error) {
	if e.JSON {
		return "json", nil
	}
	switch s {
	case "text", "json", "sarif":
		return s, nil
	}
	return "", fmt.Errorf("unknown format %q: want text, json or sarif", s)
}

func diffProfiles(e *answer.Env, t *targetFlags, before, after, format string) error {
	format, err := parseFormat(e, format)
	if err != nil {
		return err
	}
	a, err := loadFilter(e, before, t)
	if err != nil {
		return err
	}
	b, err := loadFilter(e, after, t)
	if err != nil {
		return err
	}
	archs := slices.Clone(a.archs)
	for _, x := range b.archs {
		if !slices.Contains(archs, x) {
			archs = append(archs, x)
		}
	}
	changes, err := seccomp.Diff(a.source(), b.source(), archs)
	if err != nil {
		return err
	}
	if changes == nil {
		changes = []seccomp.Change{}
	}
	switch format {
	case "json":
		err = e.PrintJSON(changes)
	case "sarif":
		var results []sarifResult
		for i := range changes {
			c := &changes[i]
			level := "note"
			if c.Grants() {
				level = "warning"
			}
			results = append(results, sarifResult{rule: "SEC-DIFF", level: level, message: fmt.Sprintf("%s (witness: nr %d, arguments %v)", c, c.Witness.Nr, c.Witness.Args), file: after})
		}
		err = printSARIF(e, [][2]string{{"SEC-DIFF", "two filters answer a region of calls differently"}}, results)
	default:
		var granted, denied, other []string
		for i := range changes {
			c := &changes[i]
			line := fmt.Sprintf("%s   witness: %s", c, witnessText(c))
			switch {
			case c.Grants():
				granted = append(granted, line)
			case c.Denies():
				denied = append(denied, line)
			default:
				other = append(other, line)
			}
		}
		section := func(title string, lines []string) {
			if len(lines) > 0 {
				fmt.Fprintf(e.Stdout, "%s (%d)\n", title, len(lines))
				for _, l := range lines {
					fmt.Fprintf(e.Stdout, "  %s\n", l)
				}
			}
		}
		section("became allowed", granted)
		section("became denied", denied)
		section("answered differently", other)
		if len(changes) == 0 {
			fmt.Fprintln(e.Stdout, "no difference")
		}
	}
	if err == nil && len(changes) > 0 {
		err = answer.No(nil)
	}
	return err
}

func witnessText(c *seccomp.Change) string {
	last := 6
	for last > 0 && c.Witness.Args[last-1] == 0 {
		last--
	}
	name := c.Syscall
	if i := strings.IndexByte(name, '-'); i > 0 {
		name = name[:i]
	}
	parts := make([]string, last)
	for i := range last {
		parts[i] = fmt.Sprintf("%#x", c.Witness.Args[i])
	}
	return name + "(" + strings.Join(parts, ", ") + ")"
}

func newLintCommand(e *answer.Env) *cobra.Command {
	var t targetFlags
	var format string
	cmd := &cobra.Command{
		Use:   "lint PROFILE…",
		Short: "Find rules that do not do what they look like, with a call that proves it",
		Long: `Reports conditions wider than what the kernel reads, denials that another rule
swallows, rules that ask about one argument twice, conditions on calls that are also
made through socketcall or ipc, ABIs without rules, unknown names, notifications of
calls that the runtime needs, and allowed calls that get around others. Findings about
effects carry a call that shows them. Exit code 1 when there are warnings or errors.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return lintProfiles(e, &t, args, format) },
	}
	t.register(cmd)
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	return cmd
}

func lintProfiles(e *answer.Env, t *targetFlags, names []string, format string) error {
	format, err := parseFormat(e, format)
	if err != nil {
		return err
	}
	type finding struct {
		Code     string           `json:"code"`
		Severity diag.Severity    `json:"severity"`
		Message  string           `json:"message"`
		File     string           `json:"file"`
		Line     int              `json:"line,omitempty"`
		Column   int              `json:"column,omitempty"`
		Arch     string           `json:"arch,omitempty"`
		Witness  *seccomp.Witness `json:"witness,omitempty"`
		Gets     string           `json:"gets,omitempty"`
	}
	out := []finding{}
	var results []sarifResult
	serious := 0
	for _, name := range names {
		h, _, err := t.host()
		if err != nil {
			return err
		}
		p, err := readProfile(e, name)
		if err != nil {
			return err
		}
		f, err := p.Resolve(h)
		if err != nil {
			return rejected(fmt.Errorf("%s: %w", name, err))
		}
		for _, w := range p.Warnings() {
			serious++
			out = append(out, finding{Code: w.Code, Severity: w.Severity, Message: w.Message, File: name, Line: w.Span.Start.Line, Column: w.Span.Start.Column})
			results = append(results, sarifResult{rule: w.Code, level: "warning", message: w.Message, file: name, line: w.Span.Start.Line, column: w.Span.Start.Column})
		}
		for _, x := range f.Lint() {
			if x.Severity > diag.Note {
				serious++
			}
			out = append(out, finding{x.Code, x.Severity, x.Message, name, x.Span.Start.Line, x.Span.Start.Column, x.Arch, x.Witness, x.Gets})
			results = append(results, sarifResult{rule: x.Code, level: x.Severity.String(), message: x.Message, file: name, line: x.Span.Start.Line, column: x.Span.Start.Column})
			if format == "text" {
				if err := diag.Render(e.Stdout, diag.List{x.Diagnostic}, answer.Source); err != nil {
					return err
				}
				if x.Witness != nil {
					fmt.Fprintf(e.Stdout, "  proof: %s nr %d, arguments %#x gets %s\n", x.Arch, int32(x.Witness.Nr), x.Witness.Args, x.Gets)
				}
			}
		}
	}
	switch format {
	case "json":
		err = e.PrintJSON(out)
	case "sarif":
		var rules [][2]string
		for _, c := range seccomp.Checks {
			rules = append(rules, [2]string{c.Code, c.Text})
		}
		err = printSARIF(e, rules, results)
	default:
		if len(out) == 0 {
			fmt.Fprintln(e.Stdout, "nothing found")
		}
	}
	if err == nil && serious > 0 {
		err = answer.No(nil)
	}
	return err
}

// sarifResult is one result of a SARIF 2.1.0 log.
type sarifResult struct {
	rule, level, message, file string
	line, column               int
}

// printSARIF writes results in the parseFormat that code hosts show next to the text.
// Source: Static Analysis Results Interchange Format (SARIF) 2.1.0, OASIS.
func printSARIF(e *answer.Env, rules [][2]string, results []sarifResult) error {
	type text struct {
		Text string `json:"text"`
	}
	type region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
	type artifact struct {
		URI string `json:"uri"`
	}
	type physical struct {
		ArtifactLocation artifact `json:"artifactLocation"`
		Region           *region  `json:"region,omitempty"`
	}
	type location struct {
		PhysicalLocation physical `json:"physicalLocation"`
	}
	type result struct {
		RuleID    string     `json:"ruleId"`
		Level     string     `json:"level"`
		Message   text       `json:"message"`
		Locations []location `json:"locations"`
	}
	type rule struct {
		ID               string `json:"id"`
		ShortDescription text   `json:"shortDescription"`
	}
	type driver struct {
		Name    string `json:"name"`
		Version string `json:"semanticVersion,omitempty"`
		Rules   []rule `json:"rules"`
	}
	type tool struct {
		Driver driver `json:"driver"`
	}
	type run struct {
		Tool    tool     `json:"tool"`
		Results []result `json:"results"`
	}
	r := run{Tool: tool{driver{Name: "palisade", Rules: []rule{}}}, Results: []result{}}
	for _, x := range rules {
		r.Tool.Driver.Rules = append(r.Tool.Driver.Rules, rule{x[0], text{x[1]}})
	}
	for _, x := range results {
		loc := location{physical{ArtifactLocation: artifact{x.file}}}
		if x.line > 0 {
			loc.PhysicalLocation.Region = &region{x.line, x.column}
		}
		r.Results = append(r.Results, result{x.rule, x.level, text{x.message}, []location{loc}})
	}
	enc := json.NewEncoder(e.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": []run{r},
	})
}

func newShowCommand(e *answer.Env) *cobra.Command {
	var against string
	var t targetFlags
	cmd := &cobra.Command{
		Use:   "show PID",
		Short: "Show the filters that a running process is under, read from the kernel",
		Long: `Reads the filters of a process back from the kernel (it is stopped for a moment) and
sums up what they do together on each ABI. With --against the process is compared with
a profile or a compiled filter; exit code 1 when they differ.`,
		Example: "  palisade seccomp show 1234\n  palisade seccomp show 1234 --against docker",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return showFilters(e, &t, args[0], against) },
	}
	t.register(cmd)
	cmd.Flags().StringVar(&against, "against", "", "compare with this profile or filter")
	return cmd
}

func showFilters(e *answer.Env, t *targetFlags, pid, against string) error {
	pid = strings.TrimPrefix(pid, "pid:")
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 0 {
		return fmt.Errorf("process %q: want a process ID", pid)
	}
	mode := "unknown"
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no process %d", n)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if v, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			mode = map[string]string{"0": "off", "1": "strict", "2": "filter"}[strings.TrimSpace(v)]
		}
	}
	type perArch struct {
		Arch    syscalls.Arch  `json:"arch"`
		Actions map[string]int `json:"actions"`
		Cached  int            `json:"cached"`
	}
	out := struct {
		PID     int       `json:"pid"`
		Mode    string    `json:"mode"`
		Filters []int     `json:"filters"`
		ABIs    []perArch `json:"abis"`
	}{PID: n, Mode: mode, Filters: []int{}, ABIs: []perArch{}}
	if mode == "filter" {
		f, err := loadFilter(e, "pid:"+pid, t)
		if err != nil {
			return err
		}
		for _, p := range f.stack {
			out.Filters = append(out.Filters, len(p))
		}
		src := f.source()
		for _, a := range f.archs {
			pa := perArch{Arch: a, Actions: map[string]int{}}
			var fault error
			a.Each(func(nr uint32, _ string) {
				x, err := seccomp.Explain(src, a, nr)
				if err != nil {
					fault = err
					return
				}
				label := "by argument"
				if len(x.Regions) == 1 {
					label = x.Regions[0].Action.String()
				}
				pa.Actions[label]++
				cached := a != syscalls.X32
				for _, p := range f.stack {
					ok, _ := p.Cacheable(a.Audit(), nr)
					cached = cached && ok
				}
				if cached {
					pa.Cached++
				}
			})
			if fault != nil {
				return fmt.Errorf("process %d: %w", n, fault)
			}
			out.ABIs = append(out.ABIs, pa)
		}
	}
	if against != "" {
		if mode != "filter" {
			return answer.No(fmt.Errorf("process %d has no seccomp filter", n))
		}
		return diffProfiles(e, t, against, "pid:"+pid, "text")
	}
	if e.JSON {
		return e.PrintJSON(out)
	}
	fmt.Fprintf(e.Stdout, "process %d: seccomp %s\n", n, mode)
	for i, k := range out.Filters {
		fmt.Fprintf(e.Stdout, "filter %d: %d instructions\n", i+1, k)
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	for _, a := range out.ABIs {
		var labels []string
		for l := range a.Actions {
			labels = append(labels, l)
		}
		slices.Sort(labels)
		for i, l := range labels {
			labels[i] = fmt.Sprintf("%s %d", l, a.Actions[l])
		}
		fmt.Fprintf(w, "%v\t%s\t%d kept by the kernel\n", a.Arch, strings.Join(labels, ", "), a.Cached)
	}
	return w.Flush()
}

func newGroupsCommand(e *answer.Env) *cobra.Command {
	var archs string
	cmd := &cobra.Command{
		Use:     "groups [@GROUP|CALL…]",
		Short:   "List groups of system calls, the calls of a group, or the groups of a call",
		Example: "  palisade seccomp groups @keyring\n  palisade seccomp groups mount --arch amd64,x86",
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := parseArchs(archs)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				list = []syscalls.Arch{nativeArch()}
			}
			return showGroups(e, list, args)
		},
	}
	cmd.Flags().StringVar(&archs, "arch", "", "ABIs whose numbers are shown (default: this machine's)")
	return cmd
}

func showGroups(e *answer.Env, archs []syscalls.Arch, args []string) error {
	type call struct {
		Name    string            `json:"name"`
		Numbers map[string]uint32 `json:"numbers"`
		Since   string            `json:"since,omitempty"`
		Groups  []string          `json:"groups,omitempty"`
	}
	type group struct {
		Name  string `json:"name"`
		Calls []call `json:"calls"`
	}
	describe := func(name string) call {
		c := call{Name: name, Numbers: map[string]uint32{}, Groups: syscalls.GroupsOf(name)}
		if n, ok := syscalls.Lookup(name); ok {
			if v := n.Since(archs[0]); v != 0 {
				c.Since = v.String()
			}
			for _, a := range archs {
				if nr, ok := n.On(a); ok {
					c.Numbers[a.String()] = nr
				}
			}
		}
		return c
	}
	out := []group{}
	if len(args) == 0 {
		for _, g := range syscalls.Groups() {
			args = append(args, g.Name)
		}
		if !e.JSON {
			w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
			for _, name := range args {
				members, _ := syscalls.Expand(name)
				fmt.Fprintf(w, "%s\t%d calls\n", name, len(members))
			}
			return w.Flush()
		}
	}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "@") {
			if _, ok := syscalls.Lookup(arg); !ok {
				return fmt.Errorf("no system call %q on any architecture", arg)
			}
			out = append(out, group{arg, []call{describe(arg)}})
			continue
		}
		members, ok := syscalls.Expand(arg)
		if !ok {
			return answer.Fail(fmt.Errorf("no group %q", arg)).Hint("'palisade seccomp groups' lists them")
		}
		g := group{Name: arg, Calls: []call{}}
		for _, m := range members {
			g.Calls = append(g.Calls, describe(m))
		}
		out = append(out, g)
	}
	if e.JSON {
		return e.PrintJSON(out)
	}
	for _, g := range out {
		if strings.HasPrefix(g.Name, "@") {
			fmt.Fprintln(e.Stdout, g.Name)
		}
		for _, c := range g.Calls {
			var nrs []string
			for _, a := range archs {
				if nr, ok := c.Numbers[a.String()]; ok {
					nrs = append(nrs, fmt.Sprintf("%v %d", a, nr))
				}
			}
			where := "not on " + archList(archs)
			if len(nrs) > 0 {
				where = strings.Join(nrs, ", ")
			}
			fmt.Fprintf(e.Stdout, "  %-28s %-24s since %-8s %s\n", c.Name, where, c.Since, strings.Join(c.Groups, " "))
		}
	}
	return nil
}
