// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/palisade-sec/palisade/internal/strictjson"
)

// ConfigFile is the configuration of this host, unless another file is named.
const ConfigFile = "/etc/palisade/oci.json"

// Config says how palisade-oci and palisade-lxc work on this host. Flags win over
// the file, the file over the defaults.
type Config struct {
	// Runtime is the path of the OCI runtime that does the work; empty for the
	// first of runc and crun that is installed.
	Runtime string `json:"runtime"`
	// Emulator is the path of libvirt's own controller of LXC domains, for
	// palisade-lxc; empty for the one that is installed.
	Emulator string `json:"emulator"`
	// Policy is the name of a built-in policy.
	Policy string `json:"policy"`
	// State is the state directory.
	State string `json:"state"`
	// OnMismatch is kill or warn: what to do with a container of which less is in
	// force than was asked for.
	OnMismatch string `json:"on_mismatch"`
	// Require are layers without which this host starts no container, whether one
	// asks for them or not.
	Require []string `json:"require"`
}

// Layers that a host can require: SELinux that is enforcing, and AppArmor.
const (
	RequireSELinux  = "selinux"
	RequireAppArmor = "apparmor"
)

const maxConfigFile = 1 << 20

// ReadConfig reads the file at path over what c has. The file holds one object of
// the members of [Config]: one that is unknown, there twice or spelled in another
// case is an error, as is text behind the object. The error wraps fs.ErrNotExist
// when there is no file.
func ReadConfig(path string, c *Config) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxConfigFile {
		return fmt.Errorf("configuration %s: not a file of at most %d bytes", path, maxConfigFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := decodeConfig(b, c); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func decodeConfig(raw []byte, c *Config) error {
	if err := strictjson.Unmarshal(raw, c, strictjson.RefuseUnknown); err != nil {
		return err
	}
	return c.Validate()
}

// Validate checks the values of c, once flags have been put over the file's.
func (c *Config) Validate() error {
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
		if layer != RequireSELinux && layer != RequireAppArmor {
			return fmt.Errorf("require %q: want %s or %s", layer, RequireSELinux, RequireAppArmor)
		}
	}
	return nil
}
