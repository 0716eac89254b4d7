// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/container"
)

// shieldedRun are the flags of palisade run that put its command under the shield:
// in the container, under the same policy, with the sealed volume and this program
// mounted where nothing else is.
type shieldedRun struct {
	volume      string
	keyFile     string
	insecureSim bool
}

// Where the container has what the shield needs.
const (
	shieldProgram = "/.palisade/palisade"
	shieldVolume  = "/.palisade/volume"
	shieldKey     = "/.palisade/key"
)

func (s *shieldedRun) register(f *pflag.FlagSet) {
	f.StringVar(&s.volume, "shield", "", "run the command under the shield with the sealed `VOLUME:/MOUNT`")
	f.StringVar(&s.keyFile, "shield-key-file", "", "`FILE` with the volume's key")
	f.BoolVar(&s.insecureSim, "allow-insecure-sim", false, "with --shield: run without a trusted environment, for development only")
}

// apply wraps the command of a container.
func (s *shieldedRun) apply(o *container.Options) error {
	if s.volume == "" {
		return nil
	}
	if !s.insecureSim {
		return answer.Fail(errors.New("no trusted environment here, and the simulation protects nothing from the host")).
			Hint("--allow-insecure-sim runs the command all the same, for development")
	}
	i := strings.LastIndex(s.volume, ":/")
	if i <= 0 || s.keyFile == "" {
		return answer.Fail(errors.New("--shield needs VOLUME:/MOUNT and --shield-key-file")).Hint("for example --shield app.vol:/srv --shield-key-file app.key")
	}
	if len(o.Args) == 0 {
		return answer.Fail(errors.New("--shield needs a command")).Hint("the image's own is not known to the shield")
	}
	if !strings.HasPrefix(o.Args[0], "/") {
		return answer.Fail(fmt.Errorf("command %q: --shield needs its whole path", o.Args[0])).Hint("for example /usr/bin/%s", filepath.Base(o.Args[0]))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, m := range []struct{ src, dst string }{{self, shieldProgram + ":ro"}, {s.volume[:i], shieldVolume}, {s.keyFile, shieldKey + ":ro"}} {
		src, err := filepath.Abs(m.src)
		if err != nil {
			return err
		}
		if fi, err := os.Stat(src); err != nil || !fi.Mode().IsRegular() {
			return fmt.Errorf("--shield: %s is not a file", m.src)
		}
		o.Volumes = append(o.Volumes, src+":"+m.dst)
	}
	o.Args = append([]string{
		shieldProgram, "shield", "run", "--allow-insecure-sim",
		"--volume", shieldVolume + ":" + s.volume[i+1:], "--key-file", shieldKey, "--",
	}, o.Args...)
	return nil
}
