// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of palisade: the list of its commands and what
// runs one of them. Each noun is a package below this one, which turns flags into
// a call of the package that does the work.
package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/cli/selinux"
)

// Main runs the command line and returns the exit code of the process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := bufio.NewWriterSize(stdout, 64<<10)
	e := &answer.Env{Stdin: stdin, Stdout: &flusher{out}, Stderr: stderr}
	root := newRoot(e)
	root.SetArgs(selinux.DoubleDashes(args))
	root.SetIn(stdin)
	root.SetOut(e.Stdout)
	root.SetErr(stderr)
	err := root.Execute()
	// A reader that has gone away is its own business; a full disk is ours.
	if ferr := out.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("write standard output: %w", ferr)
	}
	return answer.Report(stderr, err)
}

// flusher gives commands a buffered writer that they may flush when what they
// print has to be seen before they go on.
type flusher struct{ *bufio.Writer }

func newRoot(e *answer.Env) *cobra.Command {
	root := answer.Group("palisade", "Confine Linux containers, prove it, and explain every denial")
	root.Long = `Palisade confines Linux containers with every mechanism the host's kernel offers
(seccomp, capabilities, Landlock, AppArmor, SELinux), gives each container its own
label, and says what is enforced and why something was denied.

Exit codes: 0 done or yes; 1 the answer is no; 125 palisade could not do it.`
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentFlags().BoolVar(&e.JSON, "json", false, "print the answer as JSON")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return answer.Fail(err).Hint("see '%s --help'", cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, newCommand := range commands {
		root.AddCommand(newCommand(e))
	}
	return root
}
