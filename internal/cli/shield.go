// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

// shieldVerbs lists what "palisade shield" can do, one a line and in alphabetical order.
var shieldVerbs = []func(*env) *cobra.Command{
	newShieldRunCommand,
}

func newShieldCommand(e *env) *cobra.Command {
	cmd := group("shield", "Protect programs and their files from the host they run on")
	for _, newVerb := range shieldVerbs {
		cmd.AddCommand(newVerb(e))
	}
	return cmd
}
