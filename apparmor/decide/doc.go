// SPDX-License-Identifier: Apache-2.0

// Package decide answers, without a kernel, what loaded AppArmor policy would
// answer: whether a profile, or a stack of profiles, allows an operation; which
// accesses exist at all; and where two policies differ.
//
// It works on binary policy ([blob.Profile]), so on what palisade compiled as
// well as on what another compiler wrote or a kernel gave back. With profiles
// compiled here it also names the rules that decided and where they stand.
//
// Source: security/apparmor/apparmorfs.c, profile_query_cb; lib.c,
// aa_perms_accum_raw, aa_apply_modes_to_perms; file.c, mount.c, net.c,
// domain.c, ipc.c, task.c.
package decide
