// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/image"
	"github.com/palisade-sec/palisade/internal/state"
)

// GCCommand is "palisade gc".
func GCCommand(e *answer.Env) *cobra.Command {
	var images bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Clean up behind containers whose palisade was killed",
		Long: `Ends and removes containers whose 'palisade run' is gone, and forgets containers
that their engine has deleted. Frees their labels, unless content outside the
container still carries one, and unloads their AppArmor profiles. Containers in use are left alone.

A container whose record cannot be read, or whose runtime does not answer, stays with
its label and is reported: nothing shows that it has ended.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := openState()
			if err != nil {
				return err
			}
			collected, err := gc.Collect(dir, registry(dir))
			got := struct {
				gc.Collected
				Images []string  `json:"images"`
				Kept   []gc.Kept `json:"kept,omitempty"`
			}{collected, []string{}, collected.Kept}
			if images {
				var ierr error
				got.Images, ierr = pruneImages(dir)
				err = errors.Join(err, ierr)
			}
			if e.JSON {
				if perr := e.PrintJSON(got); perr != nil {
					return perr
				}
			} else {
				for _, id := range slices.Concat(got.Containers, got.Profiles, got.Images) {
					fmt.Fprintln(e.Stdout, id)
				}
			}
			for _, k := range got.Kept {
				e.Warnf("%s", answer.OneLine(k.String()))
			}
			if err != nil {
				return answer.Fail(err).Hint("what could be removed was; run it again when the cause is gone")
			}
			if n := len(got.Kept); n > 0 {
				return answer.Fail(fmt.Errorf("%d of the containers may still be in use", n)).Hint("the warnings say what to do about each; what could be removed was")
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
