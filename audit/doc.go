// SPDX-License-Identifier: Apache-2.0

// Package audit reads kernel audit records, as auditd, the kernel log, syslog
// and the message buses write them, and makes denials of them.
//
// Lines are hostile input: processes choose parts of them. Reading is bounded
// by the length of the line, and what cannot be read is said to be invalid.
package audit
