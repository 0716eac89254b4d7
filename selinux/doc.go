// SPDX-License-Identifier: Apache-2.0

// Package selinux is the algebra of SELinux security labels: contexts, levels,
// ranges and category sets, their canonical text, and dominance.
//
// It knows no policy. Sensitivities are the numbers behind the names s0, s1, …
// and categories the numbers behind c0, c1, …, as every MCS policy and nearly
// every MLS policy names them; whether a policy defines them is decided by
// package selinux/ss. All types are values: comparable with ==, usable as map
// keys, and safe for concurrent use.
//
//	ctx, err := selinux.ParseContext("system_u:system_r:container_t:s0:c12,c741")
//	ctx.Range.Low.Dominates(other.Range.Low)
//
// Text is read strictly, as the kernel reads it, and printed canonically, as
// the kernel prints it: c2,c1 is read and printed as c1,c2; c1,c2,c3,c7 is
// printed as c1.c3,c7; a run of two stays c1,c2.
//
// Source: security/selinux/ss/mls.c (mls_context_to_sid, mls_sid_to_context),
// security/selinux/ss/mls_types.h.
package selinux
