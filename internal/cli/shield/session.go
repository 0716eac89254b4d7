// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/attest"
	"github.com/palisade-sec/palisade/shield/session"
)

func newServeCommand(e *answer.Env) *cobra.Command {
	var o session.Options
	var listen, keyFile, collateralDir string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the session service, which gives secrets to attested programs only",
		Long: `Keeps sessions, sealed under the key, and gives what they hold to programs that prove
with evidence what they are. Prints the fingerprint of its own key, which clients pin.
Runs until it is told to stop (SIGINT or SIGTERM).

What protects the service itself is not its own doing: run it in a trusted environment or
on a machine that you trust. Whoever can put back an old copy of its state directory can
undo updates; the audit log then ends too early for the sealed store or the other way round.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readKey(e, keyFile)
			if err != nil {
				return err
			}
			defer clear(key)
			o.Key = key
			if collateralDir != "" {
				o.Collateral = func() (c attest.Collateral, err error) {
					return c, addCollateral(&c, collateralDir)
				}
			}
			if len(o.Admins) == 0 {
				e.Warnf("without --admin no client can create sessions")
			}
			o.Log = slog.New(slog.NewTextHandler(e.Stderr, nil))
			s, err := session.Open(o)
			if err != nil {
				return err
			}
			defer s.Close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			fp, err := s.Fingerprint()
			if err != nil {
				return err
			}
			if e.JSON {
				err = e.PrintJSON(map[string]any{"address": "https://" + l.Addr().String(), "fingerprint": fp, "allow_insecure_sim": o.AllowSim})
			} else {
				_, err = fmt.Fprintf(e.Stdout, "address      https://%s\nfingerprint  %s\n", l.Addr(), fp)
			}
			if err != nil {
				return err
			}
			if o.AllowSim {
				e.Warnf("sessions may give their secrets to simulations, which protect nothing")
			}
			if err := e.Flush(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return s.Serve(ctx, l)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&listen, "listen", "127.0.0.1:8443", "`ADDRESS` to listen on")
	fl.StringVar(&o.Dir, "state", "", "`DIR` for the sealed state and the audit log (required)")
	fl.StringVar(&keyFile, "key-file", "", "`FILE` with the key that seals the state: 32 bytes, or hex or base64 of 32 bytes (required)")
	fl.StringSliceVar(&o.Admins, "admin", nil, "`FINGERPRINT` of a key that may create sessions (may be repeated)")
	fl.StringVar(&collateralDir, "collateral", "", "`DIR` with what vendors publish about platforms; read anew for each attestation")
	fl.BoolVar(&o.AllowSim, "allow-insecure-sim", false, "let sessions allow the simulation: for development only")
	_ = cmd.MarkFlagRequired("state")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

func newSessionCommand(e *answer.Env) *cobra.Command {
	return answer.Group("session", "manage the sessions of a service",
		newSessionKeyCommand(e), newSessionCheckCommand(e), newSessionPutCommand(e, "create"), newSessionPutCommand(e, "update"), newSessionGetCommand(e), newSessionListCommand(e))
}

func newSessionKeyCommand(e *answer.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "key [FILE]", Short: "Make a client key with -o, or print the fingerprint of one", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := output
			if output != "" {
				b, err := session.NewKey()
				if err != nil {
					return err
				}
				f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return err
				}
				if _, err := f.Write(b); err != nil {
					f.Close()
					return err
				}
				clear(b)
				if err := f.Close(); err != nil {
					return err
				}
			} else if len(args) == 1 {
				name = args[0]
			} else {
				return answer.Fail(errors.New("no key file")).Hint("-o FILE makes a key")
			}
			k, err := session.ReadKey(name)
			if err != nil {
				return err
			}
			fp, err := session.Fingerprint(k.Public())
			if err != nil {
				return err
			}
			if e.JSON {
				return e.PrintJSON(map[string]string{"file": name, "fingerprint": fp})
			}
			_, err = fmt.Fprintln(e.Stdout, fp)
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "make a new key in `FILE`")
	return cmd
}

// serviceFlags say which service to ask, and as whom.
type serviceFlags struct{ address, fingerprint, keyFile string }

func (f *serviceFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "server", "https://127.0.0.1:8443", "`ADDRESS` of the service")
	cmd.Flags().StringVar(&f.fingerprint, "server-key", "", "`FINGERPRINT` of the service's key, as serve prints it (required)")
	cmd.Flags().StringVar(&f.keyFile, "identity", "", "`FILE` with the client's key (required)")
	_ = cmd.MarkFlagRequired("server-key")
	_ = cmd.MarkFlagRequired("identity")
}

func (f *serviceFlags) client() (*session.Client, error) {
	k, err := session.ReadKey(f.keyFile)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, answer.Fail(err).Hint("make one with 'palisade shield session key -o %s'", f.keyFile)
		}
		return nil, err
	}
	return session.NewClient(f.address, f.fingerprint, k)
}

// ask runs one request.
func ask(e *answer.Env, cmd *cobra.Command, f *serviceFlags, do func(context.Context, *session.Client) error) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	defer c.Close()
	err = do(cmd.Context(), c)
	var r *session.RefusedError
	if errors.As(err, &r) {
		return answer.No(fmt.Errorf("the service refuses: %w", err))
	}
	return err
}

func readFileOrStdin(e *answer.Env, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(e.Stdin, 4<<20))
	}
	return os.ReadFile(name)
}

func newSessionPutCommand(e *answer.Env, verb string) *cobra.Command {
	var f serviceFlags
	short := map[string]string{
		"create": "make a session of a YAML file",
		"update": "replace a session; the file names the hash of the one it replaces as predecessor",
	}[verb]
	cmd := &cobra.Command{
		Use: verb + " FILE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFileOrStdin(e, args[0])
			if err != nil {
				return err
			}
			defer clear(b)
			if _, err := session.Parse(b); err != nil {
				return answer.No(fmt.Errorf("%s: %w", args[0], err))
			}
			return ask(e, cmd, &f, func(ctx context.Context, c *session.Client) error {
				put := c.Create
				if verb == "update" {
					put = c.Update
				}
				out, err := put(ctx, b)
				if err != nil {
					return err
				}
				if e.JSON {
					return e.PrintJSON(out)
				}
				_, err = fmt.Fprintf(e.Stdout, "session  %s\nhash     %s\n", out.Name, out.Hash)
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newSessionCheckCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a session's YAML file and print its hash, without a service", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := readFileOrStdin(e, args[0])
			if err != nil {
				return err
			}
			defer clear(b)
			s, err := session.Parse(b)
			if err != nil {
				return answer.No(fmt.Errorf("%s: %w", args[0], err))
			}
			if e.JSON {
				return e.PrintJSON(session.Created{Name: s.Name, Hash: s.Hash()})
			}
			_, err = fmt.Fprintf(e.Stdout, "session  %s\nhash     %s\n", s.Name, s.Hash())
			return err
		},
	}
}

func newSessionGetCommand(e *answer.Env) *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Print a session, without the values of its secrets", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(e, cmd, &f, func(ctx context.Context, c *session.Client) error {
				v, err := c.Get(ctx, args[0])
				if err != nil {
					return err
				}
				if e.JSON {
					return e.PrintJSON(v)
				}
				fmt.Fprintf(e.Stdout, "# hash %s\n# updated %s\n", v.Hash, v.Updated.Format(time.RFC3339))
				for name, root := range v.Roots {
					if root == "" {
						root = "no generation yet"
					}
					fmt.Fprintf(e.Stdout, "# volume %s is at %s\n", name, root)
				}
				_, err = io.WriteString(e.Stdout, v.Session)
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newSessionListCommand(e *answer.Env) *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the sessions that the key may read", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(e, cmd, &f, func(ctx context.Context, c *session.Client) error {
				list, err := c.List(ctx)
				if err != nil {
					return err
				}
				if e.JSON {
					return e.PrintJSON(list)
				}
				w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
				for _, v := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, v.Updated.Format(time.RFC3339), v.Hash)
				}
				return w.Flush()
			})
		},
	}
	f.register(cmd)
	return cmd
}
