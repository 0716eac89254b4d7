// SPDX-License-Identifier: Apache-2.0

package image

import (
	"io/fs"
	"syscall"
)

func links(fi fs.FileInfo) uint64 { return uint64(fi.Sys().(*syscall.Stat_t).Nlink) }
