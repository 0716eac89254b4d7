// SPDX-License-Identifier: Apache-2.0

package run

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// PauseCommand waits, as the pause container of Kubernetes does. The built-in
// root holds no other program that could keep a container alive to look at.
func PauseCommand(*answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:    "pause",
		Short:  "Do nothing until a signal comes",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c := make(chan os.Signal, 1)
			signal.Notify(c, os.Interrupt, syscall.SIGTERM)
			<-c
			return nil
		},
	}
}
