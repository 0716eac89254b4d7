// SPDX-License-Identifier: Apache-2.0

package state

import (
	"os"
	"path/filepath"
	"strings"
)

// bootLink is a link in a container's folder. It points to nothing: its target is
// the boot in which the folder was made, with a checksum. A link needs no content on
// disk, so it outlives a power cut that takes the record.
const bootLink = "boot"

const bootFile = "/proc/sys/kernel/random/boot_id"

func bootMark() (string, error) {
	b, err := os.ReadFile(bootFile)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	return id + "." + Digest([]byte(id))[:16], nil
}

func markBoot(folder string) error {
	mark, err := bootMark()
	if err != nil {
		return err
	}
	return os.Symlink(mark, filepath.Join(folder, bootLink))
}

// BeforeBoot reports whether the container was made before the machine was started:
// then no process of it is left. It does not need the record.
func (c *Container) BeforeBoot() bool { return beforeBoot(c.path) }

func beforeBoot(folder string) bool {
	made, err := os.Readlink(filepath.Join(folder, bootLink))
	if err != nil {
		return false
	}
	id, sum, _ := strings.Cut(made, ".")
	now, err := bootMark()
	return err == nil && Digest([]byte(id))[:16] == sum && made != now
}
