// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/shield/shim"
)

// newShieldRunCommand runs an unmodified program under the data plane.
func newShieldRunCommand(e *env) *cobra.Command {
	var insecureSim bool
	cmd := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGUMENTS...]",
		Short: "Run an unmodified program under the shield",
		Long: `Run an unmodified program with every system call taken over by the shield.

This machine has no trusted environment that the shield can run in yet, so all it
can offer is the simulation, which protects nothing from the host. It has to be
asked for with --allow-insecure-sim. The exit code is that of the program; 125
means that it could not be started.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if !insecureSim {
				return fail(errors.New("no trusted environment here, and the simulation protects nothing from the host")).
					hint("--allow-insecure-sim runs the program all the same, for development")
			}
			path := args[0]
			if !strings.Contains(path, "/") {
				p, err := exec.LookPath(path)
				if err != nil {
					return fmt.Errorf("no program %q in PATH", path)
				}
				path = p
			}
			e.warnf("simulated shield: confidentiality none, host isolation none")
			res, err := shim.Run(shim.Config{
				Program: path, Args: args, Env: os.Environ(),
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			})
			if err != nil {
				return err
			}
			if res.Code != 0 {
				return exitWith{res.Code}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&insecureSim, "allow-insecure-sim", false, "run without a trusted environment: for development only")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
