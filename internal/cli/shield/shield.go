// SPDX-License-Identifier: Apache-2.0

// Package shield is the command line of the shield: volumes, evidence, sessions
// and shielded programs.
package shield

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/sealfs"
	"github.com/palisade-sec/palisade/shield/volfile"
)

// verbList lists what "palisade shield" can do, one a line.
var verbList = []func(*answer.Env) *cobra.Command{
	newSealCommand,
	newVerifyCommand,
	newListCommand,
	newCatCommand,
	newCopyCommand,
	newFsckCommand,
	newRekeyCommand,
	newInfoCommand,
	newAttestCommand,
	newServeCommand,
	newSessionCommand,
	newRunCommand,
	newAttachCommand,
}

// Command is "palisade shield".
func Command(e *answer.Env) *cobra.Command {
	cmd := answer.Group("shield", "protect programs and their files from the host they run on")
	for _, newVerb := range verbList {
		cmd.AddCommand(newVerb(e))
	}
	return cmd
}

// volumeFlags are what every command on a volume takes.
type volumeFlags struct {
	keyFile       string
	minGeneration uint64
	root          string
}

const keyHelp = `The key file holds 32 random bytes as they are, or as 64 hexadecimal digits, or in base64:
  (umask 077; head -c 32 /dev/urandom > volume.key)`

func (f *volumeFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "`FILE` with the volume's key: 32 bytes, or hex or base64 of 32 bytes (required)")
	cmd.Flags().Uint64Var(&f.minGeneration, "min-generation", 0, "refuse a volume older than generation `N`")
	cmd.Flags().StringVar(&f.root, "root", "", "refuse a volume older than, or different from, the root `GENERATION:DIGEST` that seal and info print")
	_ = cmd.MarkFlagRequired("key-file")
}

// key reads the key file.
func readKey(e *answer.Env, name string) ([]byte, error) {
	key, open, err := volfile.ReadKey(name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, answer.Fail(err).Hint("make one with: (umask 077; head -c 32 /dev/urandom > %s)", name)
		}
		return nil, err
	}
	if open {
		e.Warnf("key file %s can be read by others than its owner", name)
	}
	return key, nil
}

func (f *volumeFlags) options() (sealfs.Options, error) {
	o := sealfs.Options{MinGeneration: f.minGeneration}
	if f.root != "" {
		r, err := parseRoot(f.root)
		if err != nil {
			return o, err
		}
		o.Expect = &r
	}
	return o, nil
}

func parseRoot(s string) (sealfs.Root, error) {
	var r sealfs.Root
	var digest string
	if _, err := fmt.Sscanf(s, "%d:%s", &r.Generation, &digest); err != nil {
		return r, fmt.Errorf("root %q: want GENERATION:DIGEST", s)
	}
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != len(r.Digest) {
		return r, fmt.Errorf("root %q: the digest is not 64 hexadecimal digits", s)
	}
	copy(r.Digest[:], b)
	return r, nil
}

// withVolume opens a volume for one command.
func withVolume(e *answer.Env, name string, f *volumeFlags, write bool, do func(*sealfs.Volume) error) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	o.ReadOnly = !write
	return withVolumeFile(e, name, f, write, func(dev *volfile.File, key []byte) error {
		v, err := sealfs.Open(dev, key, o)
		if err != nil {
			return volumeError(name, err)
		}
		defer v.Close()
		return volumeError(name, do(v))
	})
}

func withVolumeFile(e *answer.Env, name string, f *volumeFlags, write bool, do func(*volfile.File, []byte) error) error {
	key, err := readKey(e, f.keyFile)
	if err != nil {
		return err
	}
	defer clear(key)
	dev, err := volfile.Open(name, write)
	if err != nil {
		return err
	}
	defer dev.Close()
	return do(dev, key)
}

// volumeError names the volume and says what can be done.
func volumeError(name string, err error) error {
	if err == nil {
		return nil
	}
	var hint string
	switch {
	case errors.Is(err, sealfs.ErrWrongKey):
		hint = "the volume was sealed under another key, or its first block was changed"
	case errors.Is(err, sealfs.ErrStale):
		hint = "an older copy was put in its place: restore the newest one"
	case errors.Is(err, sealfs.ErrCorrupt), errors.Is(err, sealfs.ErrNoRoot):
		hint = fmt.Sprintf("'palisade shield fsck %s' lists everything that is damaged", name)
	case errors.Is(err, sealfs.ErrNotVolume):
		hint = "'palisade shield seal' makes volumes"
	}
	if text := err.Error(); !strings.HasPrefix(text, name+": ") && !strings.Contains(text, " "+name+": ") {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if hint == "" {
		return err
	}
	return answer.Fail(err).Hint("%s", hint)
}

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	e    *answer.Env
	name string
	all  *mpb.Progress
	bar  *mpb.Bar
}

func newProgress(e *answer.Env, name string) *progress { return &progress{e: e, name: name} }

func (p *progress) total(n int64) {
	f, ok := p.e.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || n < 64<<20 {
		return
	}
	p.all = mpb.New(mpb.WithOutput(f), mpb.WithWidth(50))
	p.bar = p.all.AddBar(n,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(p.name+" "), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
}

func (p *progress) add(n int64) {
	if p.bar != nil {
		p.bar.IncrInt64(n)
	}
}

// end takes the bar away, whether the work was finished or not.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.all.Wait()
	}
}

// bytesOf prints a size for people.
func bytesOf(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// copyOut writes to standard output; a broken pipe is the reader's own business.
func copyOut(e *answer.Env, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{e.Stdout}, struct{ io.Reader }{r}, make([]byte, 512<<10))
	return err
}
