// SPDX-License-Identifier: Apache-2.0

// Package cbpf is classic BPF as seccomp uses it: instructions and their
// encoding, a builder with labels, the kernel's verifier, an interpreter that
// also takes unknown words, a disassembler, an optimiser, and the answer to
// whether the kernel caches a filter's verdict on a system call.
package cbpf
