// SPDX-License-Identifier: Apache-2.0

// Package ss is the security server: it answers, from a policy alone, what the
// kernel would answer. May one context do something to another, constraints and
// levels included? Which context does a new process or object get? May a label
// be changed? And why not?
//
//	server := ss.New(policy)
//	source, err := server.ParseContext("system_u:system_r:container_t:s0:c1,c2")
//	target, err := server.ParseContext("system_u:object_r:container_file_t:s0:c3,c4")
//	decision := server.Decide(source, target, server.Class("file"))
//
// A [Server] is immutable and safe for concurrent use. Rules are merged by
// source type on first use and decisions are cached, so that a decision that was
// made before costs some nanoseconds and allocates nothing. [Server.WithBooleans]
// gives a server with other boolean values that shares everything else.
//
// The order of a decision is the kernel's: rules of all attributes of both types,
// unconditional and conditional; constraints; role allows; type bounds.
//
// Source: security/selinux/ss/services.c (context_struct_compute_av,
// security_compute_sid, security_compute_validatetrans,
// security_compute_xperms_decision), security/selinux/ss/mls.c.
package ss
