// SPDX-License-Identifier: Apache-2.0

// Package palisade is the root of the module; it holds no code, only the tests
// that keep the architecture (see ARCHITECTURE.md).
package palisade
