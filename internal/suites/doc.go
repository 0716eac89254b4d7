// SPDX-License-Identifier: Apache-2.0

// Package suites runs what other people test container runtimes with, and what people
// do with container engines: once with a runtime alone, and once with the same runtime
// below Palisade. What passes alone and fails below Palisade is a difference; each is a
// row of a table with its reason, and everything else fails the test.
//
// The package has tests only.
package suites
