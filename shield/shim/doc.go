// SPDX-License-Identifier: Apache-2.0

// Package shim starts unmodified programs under the shield's data plane.
//
// The data plane itself is C and assembly without a C library (folder src): a
// static program that loads the real one into its own address space and takes over
// every system call of it. It is built by go generate, embedded as one blob, and
// runs from memory. This package is its launcher: it hands over keys, volume and
// options in memory that both share, answers the shim's questions for the system
// call sites of a file (found by disassembling it), and passes on signals and the
// exit status.
//
// What the shim does is described in docs/shim.md.
package shim

//go:generate go run gen.go
