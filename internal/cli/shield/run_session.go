// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/attest"
	"github.com/palisade-sec/palisade/shield/sealfs"
	"github.com/palisade-sec/palisade/shield/session"
	"github.com/palisade-sec/palisade/shield/shim"
	"github.com/palisade-sec/palisade/shield/tee"
	"github.com/palisade-sec/palisade/shield/volfile"
)

// runSession are the flags of shield run that name a session.
type runSession struct{ name, server, fingerprint string }

func (s *runSession) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&s.name, "session", "", "get arguments, environment, files and volume key of session `NAME` (--volume then names the file alone)")
	fl.StringVar(&s.server, "server", "https://127.0.0.1:8443", "`ADDRESS` of the session service")
	fl.StringVar(&s.fingerprint, "server-key", "", "`FINGERPRINT` of the service's key, as serve prints it")
}

// connect proves to the service what is about to run and gets the session. The
// TLS key lives as long as the run.
func (s *runSession) connect(ctx context.Context, measurement [48]byte) (*session.Client, *session.Config, error) {
	if s.fingerprint == "" {
		return nil, nil, answer.Fail(errors.New("--session needs --server-key")).Hint("'palisade shield serve' prints its fingerprint")
	}
	b, err := session.NewKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := session.ParseKey(b)
	clear(b)
	if err != nil {
		return nil, nil, err
	}
	c, err := session.NewClient(s.server, s.fingerprint, key)
	if err != nil {
		return nil, nil, err
	}
	conf, err := c.Config(ctx, s.name, func(rd [64]byte) ([]byte, error) { return evidence(measurement, rd) })
	if err != nil {
		c.Close()
		var r *session.RefusedError
		if errors.As(err, &r) && slices.Contains(r.Fields, "measurement") {
			return nil, nil, answer.Fail(fmt.Errorf("session %s: %w", s.name, err)).Hint("'palisade shield attest measure-sim' prints what the session's measurements have to list")
		}
		return nil, nil, fmt.Errorf("session %s: %w", s.name, err)
	}
	return c, conf, nil
}

// evidence is that of the machine's trusted environment, or else simulated.
func evidence(measurement [48]byte, reportData [64]byte) ([]byte, error) {
	ev, err := tee.Evidence(reportData)
	if !errors.Is(err, tee.ErrNone) {
		return ev, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return attest.SimEvidence(key, measurement, reportData, time.Now())
}

// simMeasurement measures the shim and, unless it comes from a volume, the program.
func simMeasurement(program string) (m [48]byte, err error) {
	var sum [32]byte
	if program != "" {
		f, err := os.Open(program)
		if err != nil {
			return m, err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return m, err
		}
		sum = [32]byte(h.Sum(nil))
	}
	return attest.SimMeasurement(shim.Digest(), sum), nil
}

func newAttestMeasureSimCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "measure-sim [PROGRAM]",
		Short: "Print the measurement that the simulation has for a program",
		Long: `Prints what simulated evidence of 'palisade shield run' says: the measurement of the shim
and of a PROGRAM of the host, or of the shim alone for programs that lie in a volume shown at /.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			program := ""
			if len(args) == 1 {
				var err error
				if program, err = hostProgram(args[0]); err != nil {
					return err
				}
			}
			m, err := simMeasurement(program)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.PrintJSON(map[string]string{"measurement": hex.EncodeToString(m[:])})
			}
			_, err = fmt.Fprintf(e.Stdout, "%x\n", m)
			return err
		},
	}
}

func hostProgram(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no program %q in PATH", name)
	}
	return p, nil
}

// runInSession runs a program with what its session has for it. What the host
// gives is the location of files, nothing else: no arguments, no environment.
func (f *runFlags) runInSession(ctx context.Context, e *answer.Env, args []string) (err error) {
	if f.keyFile != "" {
		return errors.New("--key-file and --session exclude each other: the key is the session's")
	}
	if strings.Contains(f.volume, ":/") {
		return answer.Fail(fmt.Errorf("--volume %s: where it is shown is the session's business", f.volume)).Hint("with --session name the volume's file alone")
	}
	// Whether the program comes from the volume is known only once the session is
	// there, but what the session is asked for depends on it: an absolute path that
	// the host lacks can only be in the volume.
	program, err := hostProgram(args[0])
	if err != nil {
		return err
	}
	_, err = os.Stat(program)
	inVolume := errors.Is(err, os.ErrNotExist) && f.volume != ""
	measured := program
	if inVolume {
		measured = ""
	}
	m, err := simMeasurement(measured)
	if err != nil {
		return err
	}
	client, conf, err := f.session.connect(ctx, m)
	if err != nil {
		return err
	}
	defer client.Close()
	defer func() {
		for _, b := range conf.Secrets {
			clear(b)
		}
	}()
	if len(args) > 1 && len(conf.Args) > 0 {
		return fmt.Errorf("session %s has the arguments: none can be given here", conf.Session)
	}
	c := shim.Config{
		Program: program, Args: append(append([]string{args[0]}, conf.Args...), args[1:]...), Dir: f.workdir, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		ReadOnly: f.readOnly, CacheBytes: f.cacheMiB << 20, SignalOnly: f.signalOnly, UserDispatch: f.userDispatch,
	}
	for k, v := range conf.Environment {
		c.Env = append(c.Env, k+"="+v)
	}
	slices.Sort(c.Env)
	if conf.Taint != "" {
		e.Warnf("simulated shield: confidentiality none, host isolation none; the session's secrets are tainted")
	}
	var w *rootWatcher
	switch {
	case len(conf.Volumes) > 1:
		return fmt.Errorf("session %s has %d volumes: one is supported", conf.Session, len(conf.Volumes))
	case len(conf.Volumes) == 1 && f.volume == "":
		return answer.Fail(fmt.Errorf("session %s has volume %s", conf.Session, conf.Volumes[0].Name)).Hint("--volume says which file it is")
	case len(conf.Volumes) == 0 && (f.volume != "" || len(conf.Files) > 0):
		return fmt.Errorf("session %s has no volume", conf.Session)
	case len(conf.Volumes) == 1:
		v := &conf.Volumes[0]
		defer clear(v.Key)
		c.Volume, c.Mount, c.Key = f.volume, filepath.Clean(v.Path), v.Key
		if inVolume && c.Mount != "/" && !strings.HasPrefix(program, c.Mount+"/") {
			return fmt.Errorf("no program %s: it is neither on the host nor in the volume at %s", program, c.Mount)
		}
		root, every, err := prepareVolume(&c, v, conf.Files)
		if err != nil {
			return volumeError(f.volume, err)
		}
		c.MinGeneration = root.Generation
		w = &rootWatcher{client: client, session: conf.Session, volume: v.Name, file: f.volume, key: v.Key, last: root, every: every}
		// What was known before counts from now on, whatever becomes of this run.
		if err := w.report(ctx, root); err != nil {
			return err
		}
	}
	if w != nil {
		stop := w.start(ctx, e)
		defer func() {
			if e := stop(); err == nil {
				err = e
			}
		}()
	}
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

// prepareVolume refuses a volume that is not the one the session knows, and puts
// the session's files into it.
func prepareVolume(c *shim.Config, v *session.ConfigVolume, files []session.ConfigFile) (root sealfs.Root, every time.Duration, err error) {
	o := sealfs.Options{ReadOnly: len(files) == 0}
	if v.Root != "" {
		r, err := session.ParseRoot(v.Root)
		if err != nil {
			return root, 0, err
		}
		o.Expect = &r
	}
	dev, err := volfile.Open(c.Volume, !o.ReadOnly)
	if err != nil {
		return root, 0, err
	}
	defer dev.Close()
	vol, err := sealfs.Open(dev, v.Key, o)
	if err != nil {
		return root, 0, err
	}
	defer vol.Close()
	for _, f := range files {
		rel, ok := strings.CutPrefix(f.Path, strings.TrimSuffix(c.Mount, "/")+"/")
		if !ok {
			return root, 0, fmt.Errorf("file %s of the session lies outside of the volume at %s", f.Path, c.Mount)
		}
		if err := inject(vol, "/"+rel, f); err != nil {
			return root, 0, err
		}
	}
	p := vol.Policy()
	switch p.Freshness {
	case sealfs.InRun:
		every = never
	case sealfs.AtFsync:
		every = 100 * time.Millisecond
	case sealfs.Interval:
		every = p.Interval
	}
	if o.ReadOnly {
		return vol.Root(), every, nil
	}
	root, err = vol.Commit()
	return root, every, err
}

// inject writes a file of the session, unless it is there already. Its content is
// secret, so it has to be in an encrypted region.
func inject(v *sealfs.Volume, name string, f session.ConfigFile) error {
	policy := v.Policy()
	if class := policy.Class(name); class != sealfs.Encrypted {
		return fmt.Errorf("file %s of the session would lie in a region that is %v, not encrypted", f.Path, class)
	}
	if have, err := v.ReadFile(name, int64(len(f.Content))); err == nil && bytes.Equal(have, f.Content) {
		if i, err := v.Stat(name); err == nil && i.Mode == f.Mode {
			return nil
		}
	}
	for dir, i := "", 0; ; {
		n := strings.IndexByte(name[i+1:], '/')
		if n < 0 {
			break
		}
		i += 1 + n
		dir = name[:i]
		if _, err := v.Stat(dir); errors.Is(err, os.ErrNotExist) {
			if err := v.Mkdir(path.Clean(dir), sealfs.Attr{Mode: 0o755}); err != nil {
				return err
			}
		}
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	if err := v.WriteFile(name, f.Content, sealfs.Attr{Mode: f.Mode, UID: uid, GID: gid}); err != nil {
		return err
	}
	return v.Chattr(name, sealfs.SetAttr{Mode: &f.Mode})
}

// rootWatcher reports the volume's root to the session service: at the freshness
// of the volume's policy while the program runs, and at its end.
type rootWatcher struct {
	client          *session.Client
	session, volume string
	file            string
	key             []byte
	last            sealfs.Root
	every           time.Duration // 0: at the end alone; never: not at all
}

const never time.Duration = -1

func (w *rootWatcher) report(ctx context.Context, r sealfs.Root) error {
	if err := w.client.Advance(ctx, w.session, w.volume, r.String()); err != nil {
		return fmt.Errorf("report generation %d of volume %s: %w", r.Generation, w.volume, err)
	}
	w.last = r
	return nil
}

// check reports the root when it is a new one.
func (w *rootWatcher) check(ctx context.Context) error {
	f, err := os.Open(w.file)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := sealfs.ReadRoot(&volfile.File{File: f}, w.key)
	if err != nil || r == w.last {
		return err
	}
	if r.Generation <= w.last.Generation {
		return &sealfs.StaleError{Have: r.Generation, Want: w.last.Generation, Digest: r.Generation == w.last.Generation}
	}
	return w.report(ctx, r)
}

// start watches until the function that it returns is called.
func (w *rootWatcher) start(ctx context.Context, e *answer.Env) func() error {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if w.every <= 0 {
			<-done
			return
		}
		t := time.NewTicker(w.every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				if err := w.check(ctx); err != nil {
					e.Warnf("%v", err)
				}
			}
		}
	}()
	return func() error {
		close(done)
		<-ended
		if w.every == never {
			return nil
		}
		return w.check(context.WithoutCancel(ctx))
	}
}
