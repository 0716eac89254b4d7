// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/gc"
	"github.com/palisade-sec/palisade/internal/observe"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/registry/socket"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

func newDaemonCommand(e *env) *cobra.Command {
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
				return fail(err).hint("run it as root, or let %s name a folder of your own", state.EnvDir)
			}
			if path == "" {
				path = filepath.Join(dir, authority.SocketName)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return serveLabels(ctx, e, dir, path, every)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "socket", "", "`path` of the socket (default: daemon.sock in the state directory)")
	f.DurationVar(&every, "reconcile", 10*time.Second, "how often to look for labels that others gave out; 0 never")
	return cmd
}

func serveLabels(ctx context.Context, e *env, dir, path string, every time.Duration) (err error) {
	store, err := bolt.Own(authority.Registry(dir), 5*time.Second)
	if errors.Is(err, bolt.ErrLocked) {
		return fail(fmt.Errorf("the registry in %s is in use", dir)).hint("another daemon runs for this state directory")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Check(); err != nil {
		return fail(fmt.Errorf("the registry is damaged: %w", err)).hint("%s is a bbolt file; its copy and 'bbolt check' tell more", authority.Registry(dir))
	}
	r := &svirt.Registry{Store: store}
	watch := newWatch(e, r, dir)
	if every > 0 {
		// Before the first label is given out: what others gave out is in use.
		watch.look()
	}
	l, err := socket.Listen(path)
	if err != nil {
		return err
	}
	defer l.Close()
	withdraw, err := authority.Announce(dir, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, withdraw()) }()
	if every > 0 {
		go watch.run(ctx, every)
	}
	fmt.Fprintf(e.stderr, "palisade: serving %s on %s\n", authority.Registry(dir), path)
	return socket.Serve(ctx, l, r)
}

// watch reconciles the registry with the host, unloads AppArmor profiles whose
// container is gone, and says each violation once.
type watch struct {
	e    *env
	r    svirt.Authority
	dir  *state.Dir // nil where there are no containers
	said map[string]bool
}

func newWatch(e *env, r svirt.Authority, path string) *watch {
	w := &watch{e: e, r: r, said: map[string]bool{}}
	var err error
	if w.dir, err = state.Open(path); err != nil {
		w.say(err.Error())
	}
	return w
}

func (w *watch) say(text string) {
	if !w.said[text] {
		w.said[text] = true
		w.e.warnf("%s", text)
	}
}

func (w *watch) look() {
	list, err := w.r.List()
	if err != nil {
		w.e.warnf("reconcile: %v", err)
		return
	}
	seen, err := observe.All("/", list)
	if err != nil {
		w.say(err.Error())
	}
	if w.dir != nil {
		if _, err := gc.CollectProfiles(w.dir, w.r); err != nil {
			w.say(err.Error())
		}
	}
	rep, err := w.r.Reconcile(seen)
	if err != nil {
		w.e.warnf("reconcile: %v", err)
	}
	for _, v := range rep.Violations {
		w.say(v.Message)
	}
	if _, err := w.r.Expire(); err != nil {
		w.e.warnf("reconcile: %v", err)
	}
}

func (w *watch) run(ctx context.Context, every time.Duration) {
	for tick := time.NewTicker(every); ; {
		select {
		case <-tick.C:
			w.look()
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}
