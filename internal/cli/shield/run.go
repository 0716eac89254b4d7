// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/shim"
)

// runFlags are the flags of palisade shield run.
type runFlags struct {
	insecureSim   bool
	volume        string
	keyFile       string
	consoleKey    string
	minGeneration uint64
	readOnly      bool
	cacheMiB      int64
	workdir       string
	stats         bool
	signalOnly    bool
	userDispatch  bool
	session       runSession
}

// newRunCommand runs an unmodified program under the data plane.
func newRunCommand(e *answer.Env) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGUMENTS...]",
		Short: "Run an unmodified program under the shield",
		Long: `Run an unmodified program with every system call taken over by the shield. What it
finds below the mount point of the volume is decrypted and verified as it is read,
and sealed before it is written.

This machine has no trusted environment that the shield can run in yet, so all it
can offer is the simulation, which protects nothing from the host. It has to be
asked for with --allow-insecure-sim. The exit code is that of the program; 125
means that it could not be started, or that what it wrote could not be kept.`,
		Example: `  palisade shield run --allow-insecure-sim --volume app.vol:/srv --key-file app.key -- redis-server --dir /srv`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.session.name != "" && f.insecureSim {
				return f.runInSession(cmd.Context(), e, args)
			}
			return f.run(e, args)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.insecureSim, "allow-insecure-sim", false, "run without a trusted environment: for development only")
	fl.StringVar(&f.volume, "volume", "", "show the sealed `VOLUME:/MOUNT`; :/ makes it the program's whole file system")
	fl.StringVar(&f.keyFile, "key-file", "", "`FILE` with the volume's key: 32 bytes, or hex or base64 of 32 bytes")
	fl.StringVar(&f.consoleKey, "console-key-file", "", "seal standard output and error under the key in `FILE`; 'palisade shield attach' reads them")
	fl.Uint64Var(&f.minGeneration, "min-generation", 0, "refuse a volume older than generation `N`")
	fl.BoolVar(&f.readOnly, "read-only", false, "refuse changes to the volume")
	fl.Int64Var(&f.cacheMiB, "cache", 256, "`MiB` of opened content to keep in memory")
	fl.StringVar(&f.workdir, "workdir", "", "working directory on the host")
	fl.BoolVar(&f.stats, "stats", false, "say at the end how calls were taken over")
	fl.BoolVar(&f.signalOnly, "no-rewrite", false, "leave the program's code as it is: every call goes by a signal (slow)")
	fl.BoolVar(&f.userDispatch, "sud", false, "take calls over by Syscall User Dispatch too, in front of the seccomp filter (slower)")
	f.session.register(cmd)
	fl.SetInterspersed(false)
	return cmd
}

func (f *runFlags) run(e *answer.Env, args []string) error {
	if !f.insecureSim {
		return answer.Fail(errors.New("no trusted environment here, and the simulation protects nothing from the host")).
			Hint("--allow-insecure-sim runs the program all the same, for development")
	}
	c := shim.Config{
		Program: args[0], Args: args, Env: os.Environ(), Dir: f.workdir,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		MinGeneration: f.minGeneration, ReadOnly: f.readOnly, CacheBytes: f.cacheMiB << 20,
		SignalOnly: f.signalOnly, UserDispatch: f.userDispatch,
	}
	if f.volume != "" {
		if err := f.openVolume(e, &c); err != nil {
			return err
		}
		defer clear(c.Key)
	}
	if f.consoleKey != "" {
		if f.volume == "" {
			return errors.New("--console-key-file needs --volume")
		}
		var err error
		if c.ConsoleKey, err = readKey(e, f.consoleKey); err != nil {
			return err
		}
	}
	if !strings.Contains(args[0], "/") {
		if c.Mount == "/" {
			return answer.Fail(fmt.Errorf("program %q: the volume is the whole file system", args[0])).
				Hint("give the program's path in the volume")
		}
		p, err := exec.LookPath(args[0])
		if err != nil {
			return fmt.Errorf("no program %q in PATH", args[0])
		}
		c.Program = p
	}
	e.Warnf("simulated shield: confidentiality none, host isolation none")
	res, err := shim.Run(c)
	if err != nil {
		return err
	}
	if f.stats {
		fmt.Fprintf(e.Stderr, "palisade: %d call sites rewritten, %d calls by signal, generation %d\n", res.Sites, res.Signals, res.Generation)
	}
	if res.Code != 0 {
		return answer.ExitWith(res.Code)
	}
	return nil
}

// openVolume takes VOLUME:/MOUNT apart and reads the key.
func (f *runFlags) openVolume(e *answer.Env, c *shim.Config) error {
	i := strings.LastIndex(f.volume, ":/")
	if i <= 0 {
		return answer.Fail(fmt.Errorf("--volume %q is not VOLUME:/MOUNT", f.volume)).Hint("for example --volume app.vol:/srv")
	}
	if f.keyFile == "" {
		return errors.New("--volume needs --key-file")
	}
	c.Volume, c.Mount = f.volume[:i], filepath.Clean(f.volume[i+1:])
	var err error
	c.Key, err = readKey(e, f.keyFile)
	return err
}
