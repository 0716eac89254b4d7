// SPDX-License-Identifier: Apache-2.0

// Package blob reads and writes AppArmor's binary policy: what the kernel takes
// through .load and .replace and gives back as raw_data.
//
// Two encodings of permissions exist. In the old one (interface version 5 to
// 8, every kernel) the accept tables of an automaton hold packed permissions.
// In the new one (permstable32, kernels with policy/permstable32_version 2 or
// 3) they hold indices into a table of [Perms]. [Decode] reads both, and
// [Automaton.Lookup] answers in the new terms for both.
//
// Source: security/apparmor/policy_unpack.c, policy_compat.c;
// parser/parser_interface.c.
package blob
