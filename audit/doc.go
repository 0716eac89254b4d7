// SPDX-License-Identifier: Apache-2.0

// Package audit reads records of AppArmor, SELinux, seccomp and Landlock, as auditd, the
// kernel log, syslog and the journal write them, and makes denials of them.
//
// [Parse] is the one entry for all of them. [AppArmor] gives the whole record of AppArmor, and
// [AppArmorRecord.Suggest] the rule that it asks for.
//
// Lines are hostile input: processes choose parts of them. Reading is bounded
// by the length of the line, and what cannot be read is said to be invalid.
package audit
