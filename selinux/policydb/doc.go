// SPDX-License-Identifier: Apache-2.0

// Package policydb reads, checks and writes the kernel's binary SELinux policy
// (policy.15 to policy.35, for SELinux and for Xen, with and without MLS).
//
// Work goes in three phases, each with an error type of its own:
//
//	p, err := policydb.Parse(data)       // bytes → records; *ParseError has the byte offset
//	err = p.Validate()                   // do the records mean something?; *ValidateError lists problems
//	data, err = p.Encode()               // records → bytes; *EncodeError
//
// [Load] does the first two. An unmodified policy encodes to the bytes that it
// was parsed from: every table keeps the order of the file.
//
// # The form in memory
//
// A [Policy] mirrors the file, section by section. Numbers are the file's
// numbers: a type, class, role, user, sensitivity, category or boolean has a
// value from 1 up; in a [Bitmap] the value v is bit v-1, which the methods
// HasValue and Values take care of. Symbols live in a [Table], which finds them
// by value and by name. Attributes are entries of the type table with
// Attribute set, aliases are entries with Alias set and the value of their
// primary. Rules are plain slices in the order of the file: [Policy.Rules],
// and in [Policy.Conditionals] those that depend on booleans. To see which
// types an attribute has use [Policy.TypesOf], to see which attributes a type
// has use [Policy.AttributesOf].
//
// A policy holds one copy of the file; names and bitmaps point into it. It must
// not be modified after [Parse]: it is then safe for concurrent readers. To
// encode a changed policy, copy the Policy value and replace whole slices.
//
// # Hostile input
//
// No count in the file is believed before the bytes that it promises are known
// to be there, so memory is bounded by a small multiple of the input's size.
//
// Source: security/selinux/ss/policydb.c (policydb_read, policydb_write),
// libsepol/src/policydb.c, libsepol/src/write.c.
package policydb
