// SPDX-License-Identifier: Apache-2.0

//go:build linux && !amd64 && !arm64

package laststep

import "golang.org/x/sys/unix"

const sysSeccompNumber = unix.SYS_SECCOMP
