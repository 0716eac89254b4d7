// SPDX-License-Identifier: Apache-2.0

package label

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/selinux/relabel"
)

// RelabelCommand is "palisade relabel".
func RelabelCommand(e *answer.Env) *cobra.Command {
	var (
		label string
		o     relabel.Options
	)
	cmd := &cobra.Command{
		Use:   "relabel DIR --context CONTEXT",
		Short: "Give a folder and all below it one SELinux context",
		Long: `Gives a folder and all below it one SELinux context, as a container's volume needs it.

Works in parallel, follows no symbolic link, crosses no mount unless asked, and
refuses folders of the system. An interrupted run is resumed by running it again;
after a finished one the next run with the same context ends at once.`,
		Example: `  palisade relabel /srv/web --context system_u:object_r:container_file_t:s0:c12,c844
  palisade relabel /srv/web --context system_u:object_r:container_file_t:s0 --dry-run --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if label == "" {
				return answer.Fail(errors.New("relabel: no --context given")).Hint("a container's own content has system_u:object_r:container_file_t and the container's level")
			}
			con, err := selinux.ParseContext(label)
			if err != nil {
				return fmt.Errorf("--context: %w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			done := showProgress(e.Stderr, &o)
			counts, err := relabel.Relabel(ctx, args[0], con, o)
			done()
			if e.JSON && (err == nil || counts.Seen > 0) {
				if jerr := e.PrintJSON(counts); jerr != nil {
					return jerr
				}
			}
			switch {
			case errors.Is(err, relabel.ErrSystemPath):
				return answer.Fail(err).Hint("make a folder for the container's data and give that")
			case errors.Is(err, relabel.ErrNotSupported):
				return answer.Fail(err).Hint("use ext4, xfs, btrfs or tmpfs, or mount it with -o context=%s", con)
			case errors.Is(err, syscall.EPERM):
				return answer.Fail(err).Hint("labels are set by root")
			case ctx.Err() != nil:
				return answer.Fail(err).Hint("run it again to go on where it stopped")
			case err != nil:
				return err
			case e.JSON:
				return nil
			case counts.Marked:
				fmt.Fprintf(e.Stdout, "%s: already has %s throughout\n", args[0], con)
			default:
				verb := "relabelled"
				if o.DryRun {
					verb = "to relabel"
				}
				fmt.Fprintf(e.Stdout, "%s: %d of %d %s, %d were right\n", args[0], counts.Changed, counts.Seen, verb, counts.Already)
				if counts.Mounts > 0 {
					fmt.Fprintf(e.Stdout, "%d mounts below it were left out (--cross-mounts takes them in)\n", counts.Mounts)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&label, "context", "", "the SELinux context to set: user:role:type:level")
	f.BoolVar(&o.DryRun, "dry-run", false, "count what would change, and change nothing")
	f.BoolVar(&o.CrossMounts, "cross-mounts", false, "go on into file systems mounted below the folder")
	f.BoolVar(&o.IgnoreMarker, "force", false, "walk the tree even if an earlier run has finished")
	f.IntVar(&o.Workers, "workers", 0, "folders read at one time (0: one a CPU)")
	return cmd
}

// showProgress prints the counts on a terminal, over one line that is erased at
// the end.
func showProgress(w io.Writer, o *relabel.Options) (done func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	var last time.Time
	o.Progress = func(c relabel.Counts) {
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
			last = now
			fmt.Fprintf(w, "\r\x1b[K%d seen, %d relabelled", c.Seen, c.Changed)
		}
	}
	return func() { fmt.Fprint(w, "\r\x1b[K") }
}
