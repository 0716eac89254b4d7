// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"io"
	"slices"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
)

// containerProfile is the AppArmor profile that engines run containers under.
const containerProfile = "docker-default"

// ensureContainerProfile compiles the containers' AppArmor profile into memory and
// loads it, where the kernel has AppArmor and nobody has loaded it yet: on a host
// without an engine, and without apparmor_parser. It stays loaded, as engines
// leave it; two at once load the same.
func ensureContainerProfile(e *env, name string) error {
	var kernel securityfs.FS
	if name != containerProfile || kernel.Available() != nil {
		return nil
	}
	loaded, err := kernel.Profiles()
	if err != nil || slices.ContainsFunc(loaded, func(p securityfs.Profile) bool { return p.Name == name }) {
		return err
	}
	load := newAppArmorLoadCommand(&env{stdin: bytes.NewReader(apparmor.ContainerProfile{}.Text()), stdout: io.Discard, stderr: e.stderr})
	load.SilenceErrors, load.SilenceUsage = true, true
	load.SetArgs([]string{"-"})
	return load.Execute()
}
