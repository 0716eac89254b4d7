// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/shim"
)

// newAttachCommand reads what a shielded program wrote to its console.
func newAttachCommand(e *answer.Env) *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use:   "attach [FILE]",
		Short: "Read the sealed output of a shielded program",
		Long: `Read one sealed stream, the standard output or the standard error of a run with
--console-key-file, from FILE or from standard input, and print it as it comes. Every
block is checked for its place in the stream.

Exit code 1: a block was changed, left out, repeated or is of another run; or the
stream has no end mark, so that its tail may be missing. What was printed until then
is true.`,
		Example: `  palisade shield run --allow-insecure-sim --volume app.vol:/srv --key-file app.key --console-key-file con.key -- app | palisade shield attach --key-file con.key`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := readKey(e, keyFile)
			if err != nil {
				return err
			}
			defer clear(key)
			in := e.Stdin
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			err = shim.OpenConsole(flushing{e}, in, key)
			if errors.Is(err, shim.ErrConsole) || errors.Is(err, shim.ErrConsoleCut) {
				return answer.No(err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "`FILE` with the console's key (required)")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

// flushing shows each block at once: somebody is watching.
type flushing struct{ e *answer.Env }

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.e.Stdout.Write(b)
	if err == nil {
		err = f.e.Flush()
	}
	return n, err
}

var _ io.Writer = flushing{}
