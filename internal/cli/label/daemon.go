// SPDX-License-Identifier: Apache-2.0

package label

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/state"
)

// DaemonCommand serves the registry, as package daemon does.
func DaemonCommand(e *answer.Env) *cobra.Command {
	var (
		path  string
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Serve the label registry of the host on a unix socket",
		Long: `Keeps the label registry open and answers all others of the host on a unix socket:
faster, and with one eye on the labels that other engines give out. Without it,
everybody takes turns at the registry's file.

Root and the daemon's own user may change labels; everybody may list them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := state.Locate()
			if err := os.MkdirAll(dir, 0o711); err != nil {
				return answer.Fail(err).Hint("run it as root, or let %s name a folder of your own", state.EnvDir)
			}
			if path == "" {
				path = filepath.Join(dir, authority.SocketName)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			err := daemon.Serve(ctx, daemon.Options{
				Dir: dir, Socket: path, Reconcile: every,
				Ready: func() { fmt.Fprintf(e.Stderr, "palisade: serving %s on %s\n", authority.Registry(dir), path) },
				Warn:  func(text string) { e.Warnf("%s", text) },
			})
			switch {
			case errors.Is(err, bolt.ErrLocked):
				return answer.Fail(fmt.Errorf("the registry in %s is in use", dir)).Hint("another daemon runs for this state directory")
			case errors.Is(err, daemon.ErrDamaged):
				return answer.Fail(err).Hint("%s is a bbolt file; its copy and 'bbolt check' tell more", authority.Registry(dir))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "socket", "", "`path` of the socket (default: daemon.sock in the state directory)")
	f.DurationVar(&every, "reconcile", 10*time.Second, "how often to look for labels that others gave out; 0 never")
	return cmd
}
