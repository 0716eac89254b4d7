// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

// commands lists the nouns, one a line and in alphabetical order.
var commands = []func(*env) *cobra.Command{
	newAppArmorCommand,
	newDaemonCommand,
	newGCCommand,
	newHostCommand,
	newInspectCommand,
	newLabelCommand,
	newPSCommand,
	newPauseCommand,
	newProbeCommand,
	newRelabelCommand,
	newRunCommand,
	newSeccompCommand,
	newSELinuxCommand,
	newShieldCommand,
	newVersionCommand,
}
