// SPDX-License-Identifier: Apache-2.0

// Package settings reads what a host's administrator says about the programs that
// stand between an engine and its runtime: /etc/palisade/oci.json.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
)

// File is read unless --palisade-config names another file.
const File = "/etc/palisade/oci.json"

// Settings say how palisade-oci and palisade-lxc work on this host. Flags win over
// the file, the file over the defaults.
type Settings struct {
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
	// OnMismatch is kill or warn: what to do with a container of which less is
	// in force than was asked for.
	OnMismatch string `json:"on_mismatch"`
	// Require are layers without which this host starts no container, whether
	// one asks for them or not: "selinux" (enforcing) and "apparmor".
	Require []string `json:"require"`
}

// Load reads the file that own["config"] names, or File if it is
// there, and puts the options over it.
func Load(own map[string]string) (Settings, error) {
	c := Settings{Policy: policy.Default().Name, State: state.Locate(), OnMismatch: "kill"}
	path, named := own["config"]
	if !named {
		path = File
	}
	switch err := read(path, &c); {
	case err == nil:
	case !named && errors.Is(err, fs.ErrNotExist):
	default:
		return c, err
	}
	for name, value := range own {
		switch name {
		case "config":
		case "runtime":
			c.Runtime = value
		case "emulator":
			c.Emulator = value
		case "policy":
			c.Policy = value
		case "state":
			c.State = value
		case "on-mismatch":
			c.OnMismatch = value
		case "require":
			c.Require = strings.Split(value, ",")
		default:
			return c, fmt.Errorf("unknown option --palisade-%s", name)
		}
	}
	return c, c.Validate()
}
