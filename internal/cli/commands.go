// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/cli/apparmor"
	"github.com/palisade-sec/palisade/internal/cli/host"
	"github.com/palisade-sec/palisade/internal/cli/label"
	"github.com/palisade-sec/palisade/internal/cli/run"
	"github.com/palisade-sec/palisade/internal/cli/seccomp"
	"github.com/palisade-sec/palisade/internal/cli/selinux"
	"github.com/palisade-sec/palisade/internal/cli/shield"
)

// commands lists the nouns, one a line and in alphabetical order.
var commands = []func(*answer.Env) *cobra.Command{
	apparmor.Command,
	label.DaemonCommand,
	run.GCCommand,
	host.Command,
	run.InspectCommand,
	label.Command,
	run.PSCommand,
	run.PauseCommand,
	run.ProbeCommand,
	label.RelabelCommand,
	run.Command,
	seccomp.Command,
	selinux.Command,
	shield.Command,
	newVersionCommand,
}
