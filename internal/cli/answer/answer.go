// SPDX-License-Identifier: Apache-2.0

// Package answer is how commands answer: what they print, how they fail and with
// which exit code. All nouns of the command line stand on it.
//
// The rules: the answer goes to standard output and everything else to standard
// error; what prints takes --json; an error is one line "palisade: error: …",
// followed, where there is something to do about it, by "palisade: hint: …".
// Exit codes: 0 for done or yes, 1 when the answer is no (input rejected,
// differences, violations, open probes), 125 when palisade could not do what it
// was asked. Commands that run another program pass on that program's code.
package answer

import (
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
	codeDone   = 0
	codeNo     = 1
	CodeFailed = 125
)

// Env is what a command may touch: its streams and the flags common to all.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	JSON   bool
}

// PrintJSON writes v to standard output, indented, with a newline behind it.
func (e *Env) PrintJSON(v any) error {
	enc := json.NewEncoder(e.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Flush shows what was printed before the command goes on.
func (e *Env) Flush() error {
	if f, ok := e.Stdout.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// Warnf says something on standard error that does not change the outcome.
func (e *Env) Warnf(format string, args ...any) {
	fmt.Fprintf(e.Stderr, "palisade: warning: %s\n", OneLine(fmt.Sprintf(format, args...)))
}

// no is the answer no.
type no struct{ err error }

// No ends a command with exit code 1. An error is printed first; without one the
// command has already said what there is to say.
func No(err error) error { return no{err} }

// IsNo tells whether an error is an answer, and no failure.
func IsNo(err error) bool { return errors.As(err, new(no)) }

func (a no) Error() string {
	if a.err == nil {
		return "the answer is no"
	}
	return a.err.Error()
}

func (a no) Unwrap() error { return a.err }

// exit is another program's exit code.
type exit struct{ code int }

// ExitWith ends a command silently with another program's exit code.
func ExitWith(code int) error { return exit{code} }

func (e exit) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// coded is an error with an exit code of its own.
type coded struct {
	code int
	err  error
}

// FailWith ends a command with the code that another program's failure to start
// stands for, after printing why.
func FailWith(code int, err error) error { return coded{code, err} }

func (c coded) Error() string { return c.err.Error() }
func (c coded) Unwrap() error { return c.err }

// Failure is an error with advice.
type Failure struct {
	err    error
	advice string
}

// Fail wraps err so that a hint can be attached: Fail(err).Hint("install runc").
func Fail(err error) *Failure { return &Failure{err: err} }

// Hint says what a person can do about it.
func (f *Failure) Hint(format string, args ...any) error {
	f.advice = fmt.Sprintf(format, args...)
	return f
}

func (f *Failure) Error() string { return f.err.Error() }
func (f *Failure) Unwrap() error { return f.err }

// Report prints what a command ended with and returns the exit code for it.
// Diagnostics with positions are shown with their source lines.
func Report(stderr io.Writer, err error) int {
	if err == nil {
		return codeDone
	}
	var other exit
	if errors.As(err, &other) {
		return other.code
	}
	code := CodeFailed
	var failed coded
	if errors.As(err, &failed) {
		code = failed.code
	}
	var said no
	if errors.As(err, &said) {
		code = codeNo
		if said.err == nil {
			return code
		}
	}
	var list diag.List
	if errors.As(err, &list) {
		// Rendering goes first: the summary is what stays in sight.
		_ = diag.Render(stderr, list.Sorted(), Source)
	}
	fmt.Fprintf(stderr, "palisade: error: %s\n", OneLine(err.Error()))
	var f *Failure
	if errors.As(err, &f) && f.advice != "" {
		fmt.Fprintf(stderr, "palisade: hint: %s\n", OneLine(f.advice))
	}
	return code
}

// OneLine keeps an error on its line and free of control characters, whatever
// file names or kernel messages went into it.
func OneLine(s string) string {
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

// Source reads a file again, for the lines that a diagnostic shows.
func Source(file string) ([]byte, bool) {
	fi, err := os.Stat(file)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxSource {
		return nil, false
	}
	b, err := os.ReadFile(file)
	return b, err == nil
}

// noSubcommand answers a word that is no command, with the nearest ones that are.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := Fail(fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.Hint("did you mean '%s %s'?", cmd.CommandPath(), near[0])
	}
	return err.Hint("see '%s --help'", cmd.CommandPath())
}

// Group is a noun without an action of its own: it prints its help, and refuses
// words that are none of its verbs.
func Group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verbs...)
	return cmd
}
