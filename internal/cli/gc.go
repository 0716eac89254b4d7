// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/runtime/delegate"
)

func newGCCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Clean up behind containers whose palisade was killed",
		Long: `Ends and removes containers whose 'palisade run' is gone, and forgets containers
that their engine has deleted. Frees their labels, unless content outside the
container still carries one. Containers in use are left alone.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			got, err := delegate.Collect(dir, registry(dir))
			if e.json {
				if perr := e.printJSON(got); perr != nil {
					return perr
				}
			} else {
				for _, id := range got.Containers {
					fmt.Fprintln(e.stdout, id)
				}
			}
			if err != nil {
				return fail(err).hint("what could be removed was; run it again when the cause is gone")
			}
			return nil
		},
	}
}
