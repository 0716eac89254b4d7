// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var (
	// errDevLink says that a root without a mount at /dev has a link where its
	// runtime makes a device: the device would be made at the link's end.
	errDevLink = errors.New("a device of the root is a link")
	// errVolumePoint says that a runtime would look for a mount point in a volume that
	// others write to, through links that they exchange meanwhile.
	errVolumePoint = errors.New("the mount point lies in a writable volume")
)

// madeDevices are those that runtimes make or mount in every container.
//
// Source: runtime-spec config-linux.md, "Default Devices".
var madeDevices = []string{"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"}

// checkOwnDev refuses links in the place of devices where the root's own /dev is used
// (CVE-2026-88264).
func checkOwnDev(s *specs.Spec) error {
	if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return filepath.Clean("/"+m.Destination) == "/dev" }) {
		return nil
	}
	for _, name := range madeDevices {
		path := filepath.Join(s.Root.Path, "dev", name)
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode()&os.ModeSymlink == 0 {
			continue
		}
		// This one is a link by the specification.
		if to, err := os.Readlink(path); name == "ptmx" && err == nil && (to == "pts/ptmx" || to == "/dev/pts/ptmx") {
			continue
		}
		return fmt.Errorf("/dev/%s: %w", name, errDevLink)
	}
	return nil
}

// safeMountPoints is the version of runc that makes mount points without following
// links that are exchanged meanwhile.
const safeMountPoints = "1.1.14"

// checkVolumePoints refuses, for an older runc, mount points in a writable volume
// (CVE-2024-45310). That one is there says nothing: who shares the volume exchanges it
// for a link after the check.
func checkVolumePoints(s *specs.Spec, d detected) error {
	if d.Runtime != "runc" || !older(d.Version, safeMountPoints) {
		return nil
	}
	mounts, err := Mounted(s)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Volume != "" {
			return &MountError{Index: m.Index, Destination: m.Destination, Err: fmt.Errorf(
				"%w, %s, where runc %s can be led out of the container (CVE-2024-45310): use runc %s",
				errVolumePoint, m.Volume, d.Version, safeMountPoints)}
		}
	}
	return nil
}
