// SPDX-License-Identifier: Apache-2.0

// Package apparmor is the command line of AppArmor: profiles checked, compiled,
// loaded, asked and explained.
package apparmor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/internal/atomicfile"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// verbList lists the verbs of the noun, one a line and in alphabetical
// order.
var verbList = []func(*answer.Env) *cobra.Command{
	newCheckCommand,
	newCompileCommand,
	newDecideCommand,
	newDecodeCommand,
	newDiffCommand,
	newExplainCommand,
	newFmtCommand,
	newGenerateCommand,
	newLoadCommand,
	newReachCommand,
	newStatusCommand,
	newUnloadCommand,
}

// Command is "palisade apparmor".
func Command(e *answer.Env) *cobra.Command {
	verbs := make([]*cobra.Command, len(verbList))
	for i, v := range verbList {
		verbs[i] = v(e)
	}
	return answer.Group("apparmor", "AppArmor profiles: check, compile, load, ask and explain, without the C parser", verbs...)
}

// sourceFlags are the flags of the verbs that read profiles from text.
type sourceFlags struct {
	features string
	include  []string
	base     string
}

func (s *sourceFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.features, "features", "", "file with the features of the kernel to compile for, as the parser's --features-file")
	f.StringArrayVarP(&s.include, "include", "I", nil, "directory to look up <path> in, before --base; may be repeated")
	f.StringVar(&s.base, "base", "", "directory to look up <path> in, such as /etc/apparmor.d")
}

// sourceHelp is what the help of those verbs says about it.
const sourceHelp = `Includes: without -I and --base, <path> means one of the files that palisade
brings along (abi/3.0, abi/4.0, abi/5.0, tunables/global, abstractions/base), so
that the answer does not depend on the host. With one of them, only those
directories count, in that order. "path" is relative to the working directory.`

// env is what resolving needs, from the flags.
func (s *sourceFlags) env() (apparmor.Env, error) {
	env := apparmor.Env{FS: os.DirFS("/"), NoBuiltin: len(s.include) > 0 || s.base != ""}
	for _, d := range append(slices.Clone(s.include), s.base) {
		if d == "" {
			continue
		}
		abs, err := filepath.Abs(d)
		if err != nil {
			return env, err
		}
		if fi, err := os.Stat(abs); err != nil {
			return env, err
		} else if !fi.IsDir() {
			return env, fmt.Errorf("%s is not a directory", d)
		}
		env.Search = append(env.Search, abs)
	}
	wd, err := os.Getwd()
	if err != nil {
		return env, err
	}
	env.Dir = wd
	if s.features != "" {
		text, err := os.ReadFile(s.features)
		if err != nil {
			return env, err
		}
		f, err := apparmor.ParseFeatures(string(text))
		if err != nil {
			return env, fmt.Errorf("%s: %w", s.features, err)
		}
		env.Kernel, env.ABI = f, f
	}
	return env, nil
}

// maxProfile bounds what is read as profile text.
const maxProfile = 64 << 20

// readProfile reads a file, or standard input for "-", and gives the name to
// show.
func readProfile(e *answer.Env, path string) (name string, text []byte, err error) {
	r := e.Stdin
	if name = path; path == "-" {
		name = "<stdin>"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return name, nil, err
		}
		defer f.Close()
		r = f
	}
	text, err = io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err == nil && len(text) > maxProfile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxProfile)
	}
	return name, text, err
}

// load reads, parses and resolves one file. The policy is nil when the file is
// rejected; what was found is not shown yet.
func (s *sourceFlags) load(e *answer.Env, path string, configure ...func(*apparmor.Env)) (*apparmor.Policy, *profileFindings, error) {
	env, err := s.env()
	if err != nil {
		return nil, nil, err
	}
	for _, c := range configure {
		c(&env)
	}
	name, text, err := readProfile(e, path)
	if err != nil {
		return nil, nil, err
	}
	file, diags := apparmor.Parse(name, text)
	out := &profileFindings{name: name, text: text, list: diags}
	policy, more := apparmor.Resolve(file, env)
	for _, d := range more {
		if d.Code != "AA-BROKEN" { // what is broken has been said
			out.list = append(out.list, d)
		}
	}
	if policy != nil {
		out.profiles = policy.Profiles
	}
	return policy, out, nil
}

// profileFindings are the diagnostics of one file with what is needed to show
// them.
type profileFindings struct {
	name     string
	text     []byte
	list     diag.List
	profiles []*apparmor.ResolvedProfile
}

func (p *profileFindings) source(file string) ([]byte, bool) {
	if file == p.name {
		return p.text, true
	}
	if b, ok := strings.CutPrefix(file, "builtin:"); ok {
		text, err := fs.ReadFile(apparmor.Builtin(), b)
		return text, err == nil
	}
	return answer.Source(file)
}

// printFindings shows diagnostics on standard error.
func printFindings(e *answer.Env, path string, p *profileFindings, rejected bool) error {
	if err := diag.Render(e.Stderr, p.list.Sorted(), p.source); err != nil {
		return err
	}
	if !rejected {
		return nil
	}
	n := 0
	for _, d := range p.list {
		if d.Severity == diag.Error {
			n++
		}
	}
	errors := "errors"
	if n == 1 {
		errors = "error"
	}
	return answer.No(fmt.Errorf("%s is rejected: %d %s", p.name, n, errors))
}

type checkedProfile struct {
	File        string            `json:"file"`
	OK          bool              `json:"ok"`
	Profiles    []string          `json:"profiles"`
	Diagnostics []checkedFindings `json:"diagnostics"`
}

type checkedFindings struct {
	Severity diag.Severity `json:"severity"`
	Code     string        `json:"code,omitempty"`
	Message  string        `json:"message"`
	File     string        `json:"file,omitempty"`
	Line     int           `json:"line,omitempty"`
	Column   int           `json:"column,omitempty"`
	EndLine  int           `json:"end_line,omitempty"`
	EndCol   int           `json:"end_column,omitempty"`
}

func newCheckCommand(e *answer.Env) *cobra.Command {
	var src sourceFlags
	var quiet, werror bool
	cmd := &cobra.Command{
		Use:   "check [flags] FILE|DIR|-...",
		Short: "Say what is wrong with profiles, all of it, each with its place",
		Long: `Reads profiles with all they include and reports every error and warning with its
source line. Nothing is compiled and no kernel is needed. A directory stands for
the profiles in it, without those below "disable" and without what package
managers and editors leave behind.

` + sourceHelp,
		Example: "  palisade apparmor check profile\n  palisade apparmor check --base /etc/apparmor.d /etc/apparmor.d",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := profileFiles(args)
			if err != nil {
				return err
			}
			var all []checkedProfile
			rejected := 0
			for _, file := range files {
				policy, found, err := src.load(e, file)
				if err != nil {
					return err
				}
				ok := policy != nil && (!werror || !hasWarnings(found.list))
				if !ok {
					rejected++
				}
				if e.JSON {
					all = append(all, checked(found, ok))
					continue
				}
				if quiet {
					found.list = slices.DeleteFunc(found.list, func(d diag.Diagnostic) bool { return d.Severity != diag.Error })
				}
				if err := printFindings(e, file, found, false); err != nil {
					return err
				}
				if ok {
					plural := "s"
					if len(found.profiles) == 1 {
						plural = ""
					}
					fmt.Fprintf(e.Stdout, "%s: ok, %d profile%s\n", found.name, len(found.profiles), plural)
				}
			}
			if e.JSON {
				if err := e.PrintJSON(all); err != nil {
					return err
				}
			}
			if rejected > 0 {
				return answer.No(fmt.Errorf("%d of %d files are rejected", rejected, len(files)))
			}
			return nil
		},
	}
	src.register(cmd)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave out warnings")
	cmd.Flags().BoolVar(&werror, "werror", false, "reject files with warnings too")
	return cmd
}

func hasWarnings(l diag.List) bool {
	return slices.ContainsFunc(l, func(d diag.Diagnostic) bool { return d.Severity == diag.Warning })
}

func checked(p *profileFindings, ok bool) checkedProfile {
	out := checkedProfile{File: p.name, OK: ok, Profiles: []string{}, Diagnostics: []checkedFindings{}}
	for _, r := range p.profiles {
		out.Profiles = append(out.Profiles, r.FullName())
	}
	for _, d := range p.list.Sorted() {
		out.Diagnostics = append(out.Diagnostics, checkedFindings{
			Severity: d.Severity, Code: d.Code, Message: d.Message, File: d.Span.File,
			Line: d.Span.Start.Line, Column: d.Span.Start.Column, EndLine: d.Span.End.Line, EndCol: d.Span.End.Column,
		})
	}
	return out
}

// profileFiles replaces directories by the profiles in them.
func profileFiles(args []string) ([]string, error) {
	var files []string
	for _, a := range args {
		if a == "-" {
			files = append(files, a)
			continue
		}
		fi, err := os.Stat(a)
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			files = append(files, a)
			continue
		}
		entries, err := os.ReadDir(a)
		if err != nil {
			return nil, err
		}
		for _, d := range entries {
			path := filepath.Join(a, d.Name())
			if apparmor.Ignored(d.Name()) {
				continue
			}
			if _, err := os.Lstat(filepath.Join(a, "disable", d.Name())); err == nil {
				continue
			}
			if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
				files = append(files, path)
			}
		}
	}
	if len(files) == 0 {
		return nil, answer.Fail(errors.New("no profiles there")).Hint("name a file, a directory that holds profiles, or - for standard input")
	}
	return files, nil
}

func newFmtCommand(e *answer.Env) *cobra.Command {
	var write, list bool
	cmd := &cobra.Command{
		Use:   "fmt [flags] FILE|-...",
		Short: "Print profiles in one format, or rewrite them",
		Long: `Prints profiles with one statement a line and two spaces a level. Comments, the
spelling of paths and values, and the order of everything stay as they are; the
meaning does not change. Includes are not followed.`,
		Example: "  palisade apparmor fmt profile\n  palisade apparmor fmt -l /etc/apparmor.d/usr.*",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			changed := 0
			for _, path := range args {
				name, text, err := readProfile(e, path)
				if err != nil {
					return err
				}
				file, diags := apparmor.Parse(name, text)
				if diags.HasErrors() {
					return printFindings(e, path, &profileFindings{name: name, text: text, list: diags}, true)
				}
				var out bytes.Buffer
				if err := apparmor.Print(&out, file); err != nil {
					return err
				}
				differs := !bytes.Equal(out.Bytes(), text)
				if differs {
					changed++
				}
				switch {
				case list && differs:
					fmt.Fprintln(e.Stdout, name)
				case list:
				case !write || path == "-":
					if _, err := e.Stdout.Write(out.Bytes()); err != nil {
						return err
					}
				case differs:
					if err := replaceFile(path, out.Bytes()); err != nil {
						return err
					}
				}
			}
			if list && changed > 0 {
				return answer.No(nil)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&write, "write", "w", false, "rewrite the files in place")
	cmd.Flags().BoolVarP(&list, "list", "l", false, "only name the files whose format differs; exit 1 when there are any")
	cmd.MarkFlagsMutuallyExclusive("write", "list")
	return cmd
}

// replaceFile writes a file anew, whole or not at all, with the mode of the
// old one.
func replaceFile(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return atomicfile.File{Mode: fi.Mode().Perm()}.Write(path, text)
}

func newGenerateCommand(e *answer.Env) *cobra.Command {
	var c apparmor.ContainerProfile
	cmd := &cobra.Command{
		Use:   "generate [flags]",
		Short: "Print a profile for containers, Docker's default by name and meaning",
		Long: `Prints the text of a profile for containers. By default it is docker-default, by
the name under which Docker looks for it. What it denies below /proc and /sys is
generated: the exact complement of what a container may write there (the folders
of processes, /proc/sys/kernel/shm*, /sys/fs/cgroup). The text needs no other
file, and any AppArmor parser reads it.`,
		Example: "  palisade apparmor generate\n  palisade apparmor generate --name web --sender podman | palisade apparmor check -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("sender") {
				c.Senders = nil
			}
			text := c.Text()
			if _, diags := apparmor.Parse("generated", text); diags.HasErrors() {
				return answer.Fail(diags).Hint("a profile's name and those of senders are single words")
			}
			if e.JSON {
				name := c.Name
				if name == "" {
					name = apparmor.DockerDefaultName
				}
				return e.PrintJSON(struct {
					Name string `json:"name"`
					Text string `json:"text"`
				}{name, string(text)})
			}
			_, err := e.Stdout.Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&c.Name, "name", "", "name of the profile (default docker-default)")
	cmd.Flags().StringArrayVar(&c.Senders, "sender", nil, "profile, besides unconfined, that may send signals into the container; may be repeated (default runc, crun)")
	return cmd
}
