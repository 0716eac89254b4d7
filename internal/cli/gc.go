// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/runtime/delegate"
	"github.com/palisade-sec/palisade/internal/image"
	"github.com/palisade-sec/palisade/internal/state"
)

func newGCCommand(e *env) *cobra.Command {
	var images bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Clean up behind containers whose palisade was killed",
		Long: `Ends and removes containers whose 'palisade run' is gone, and forgets containers
that their engine has deleted. Frees their labels, unless content outside the
container still carries one, and unloads their AppArmor profiles. Containers in use are left alone.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			collected, err := delegate.Collect(dir, registry(dir))
			got := struct {
				delegate.Collected
				Images []string `json:"images"`
			}{collected, []string{}}
			if images {
				var ierr error
				got.Images, ierr = pruneImages(dir)
				err = errors.Join(err, ierr)
			}
			if e.json {
				if perr := e.printJSON(got); perr != nil {
					return perr
				}
			} else {
				for _, id := range slices.Concat(got.Containers, got.Profiles, got.Images) {
					fmt.Fprintln(e.stdout, id)
				}
			}
			if err != nil {
				return fail(err).hint("what could be removed was; run it again when the cause is gone")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&images, "images", false, "also remove unpacked images that no container uses")
	return cmd
}

// pruneImages removes the unpacked images that no record names.
func pruneImages(dir *state.Dir) ([]string, error) {
	records, err := dir.List()
	if err != nil {
		return []string{}, err // one that cannot be read may use any of them
	}
	removed, err := image.Prune(dir.Images(), func(root string) bool {
		return slices.ContainsFunc(records, func(r state.Record) bool { return r.Image == root })
	})
	if removed == nil {
		removed = []string{}
	}
	return removed, err
}
