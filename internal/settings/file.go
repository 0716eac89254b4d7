// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/palisade-sec/palisade/internal/strictjson"
)

// Layers that a host can require: SELinux that is enforcing, and AppArmor.
const (
	requireSELinux  = "selinux"
	requireAppArmor = "apparmor"
)

const maxFile = 1 << 20

// read reads the file at path over what c has. The file holds one object of
// the members of [Settings]: one that is unknown, there twice or spelled in another
// case is an error, as is text behind the object. The error wraps fs.ErrNotExist
// when there is no file.
func read(path string, c *Settings) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxFile {
		return fmt.Errorf("configuration %s: not a file of at most %d bytes", path, maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := decode(b, c); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func decode(raw []byte, c *Settings) error {
	if err := strictjson.Unmarshal(raw, c, strictjson.RefuseUnknown); err != nil {
		return err
	}
	return c.Validate()
}

// Validate checks the values of c, once flags have been put over the file's.
func (c *Settings) Validate() error {
	for _, program := range []struct{ name, path string }{{"runtime", c.Runtime}, {"emulator", c.Emulator}} {
		if program.path != "" && !filepath.IsAbs(program.path) {
			return fmt.Errorf("%s %q: want an absolute path", program.name, program.path)
		}
	}
	switch c.OnMismatch {
	case "", "kill", "warn":
	default:
		return fmt.Errorf("on_mismatch %q: want kill or warn", c.OnMismatch)
	}
	for _, layer := range c.Require {
		if layer != requireSELinux && layer != requireAppArmor {
			return fmt.Errorf("require %q: want %s or %s", layer, requireSELinux, requireAppArmor)
		}
	}
	return nil
}
