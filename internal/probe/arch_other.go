// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package probe

// archProbes are doors that only this architecture has.
var archProbes []spec
