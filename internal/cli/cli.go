// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of palisade: one file per noun, each of which
// turns flags into a call of the package that does the work.
//
// The rules: the answer goes to standard output and everything else to standard
// error; what prints takes --json; an error is one line "palisade: error: …",
// followed, where there is something to do about it, by "palisade: hint: …".
// Exit codes: 0 for done or yes, 1 when the answer is no (input rejected,
// differences, violations, open probes), 125 when palisade could not do what it
// was asked. Commands that run another program pass on that program's code.
package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/diag"
)

// Exit codes of palisade itself.
const (
	exitDone   = 0
	exitNo     = 1
	exitFailed = 125
)

// env is what a command may touch: its streams and the flags common to all.
type env struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	json   bool
}

// printJSON writes v to standard output, indented, with a newline behind it.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// warnf says something on standard error that does not change the outcome.
func (e *env) warnf(format string, args ...any) {
	fmt.Fprintf(e.stderr, "palisade: warning: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// answerNo ends a command with exit code 1. With an error inside, that is
// printed first; without one the command has already said what there is to say.
type answerNo struct{ err error }

func (a answerNo) Error() string {
	if a.err == nil {
		return "the answer is no"
	}
	return a.err.Error()
}

func (a answerNo) Unwrap() error { return a.err }

// exitWith ends a command silently with another program's exit code.
type exitWith struct{ code int }

func (e exitWith) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// commandFailed ends a command with the code that another program's failure to
// start stands for, after printing why.
type commandFailed struct {
	code int
	err  error
}

func (c commandFailed) Error() string { return c.err.Error() }
func (c commandFailed) Unwrap() error { return c.err }

// failure is an error with advice.
type failure struct {
	err    error
	advice string
}

// fail wraps err so that a hint can be attached: fail(err).hint("install runc").
func fail(err error) *failure { return &failure{err: err} }

func (f *failure) hint(format string, args ...any) error {
	f.advice = fmt.Sprintf(format, args...)
	return f
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Main runs the command line and returns the exit code of the process.
// Diagnostics with positions are shown with their source lines.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := bufio.NewWriterSize(stdout, 64<<10)
	e := &env{stdin: stdin, stdout: &flusher{out}, stderr: stderr}
	root := newRoot(e)
	root.SetArgs(doubleDashes(args))
	root.SetIn(stdin)
	root.SetOut(e.stdout)
	root.SetErr(stderr)
	err := root.Execute()
	// A reader that has gone away is its own business; a full disk is ours.
	if ferr := out.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("write standard output: %w", ferr)
	}
	return report(stderr, err)
}

// flusher gives commands a buffered writer that they may flush when what they
// print has to be seen before they go on.
type flusher struct{ *bufio.Writer }

func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	var other exitWith
	if errors.As(err, &other) {
		return other.code
	}
	code := exitFailed
	var failed commandFailed
	if errors.As(err, &failed) {
		code = failed.code
	}
	var no answerNo
	if errors.As(err, &no) {
		code = exitNo
		if no.err == nil {
			return code
		}
	}
	var list diag.List
	if errors.As(err, &list) {
		// Rendering goes first: the summary is what stays in sight.
		_ = diag.Render(stderr, list.Sorted(), readSource)
	}
	fmt.Fprintf(stderr, "palisade: error: %s\n", oneLine(err.Error()))
	var f *failure
	if errors.As(err, &f) && f.advice != "" {
		fmt.Fprintf(stderr, "palisade: hint: %s\n", oneLine(f.advice))
	}
	return code
}

// oneLine keeps an error on its line and free of control characters, whatever
// file names or kernel messages went into it.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0):
			return '\ufffd'
		}
		return r
	}, strings.TrimSpace(s))
}

// maxSource bounds what is read again only to show a source line.
const maxSource = 16 << 20

func readSource(file string) ([]byte, bool) {
	fi, err := os.Stat(file)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxSource {
		return nil, false
	}
	b, err := os.ReadFile(file)
	return b, err == nil
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "palisade",
		Short: "Confine Linux containers, prove it, and explain every denial",
		Long: `Palisade confines Linux containers with every mechanism the host's kernel offers
(seccomp, capabilities, Landlock, AppArmor, SELinux), gives each container its own
label, and says what is enforced and why something was denied.

Exit codes: 0 done or yes; 1 the answer is no; 125 palisade could not do it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSubcommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&e.json, "json", false, "print the answer as JSON")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fail(err).hint("see '%s --help'", cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, newCommand := range commands {
		root.AddCommand(newCommand(e))
	}
	return root
}

// noSubcommand answers a word that is no command, with the nearest ones that are.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fail(fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.hint("did you mean '%s %s'?", cmd.CommandPath(), near[0])
	}
	return err.hint("see '%s --help'", cmd.CommandPath())
}

// group is a noun without an action of its own: it prints its help, and refuses
// words that are none of its verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verbs...)
	return cmd
}
