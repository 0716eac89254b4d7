// SPDX-License-Identifier: Apache-2.0

// Package analysis answers questions about a whole SELinux policy: which rules
// it has, what keeps two contexts apart, where one domain leads, how information
// can flow, and how two policies differ.
//
// Unlike other tools it takes constraints into account wherever contexts are
// given: a rule that a constraint takes back allows nothing.
package analysis
