// SPDX-License-Identifier: Apache-2.0

package laststep_test

// sysMkdir is a system call that this machine does not have.
const sysMkdir = 1<<32 - 1
