// SPDX-License-Identifier: Apache-2.0

package laststep_test

import "golang.org/x/sys/unix"

// sysMkdir is a system call that newer machines do not have.
const sysMkdir = unix.SYS_MKDIR
