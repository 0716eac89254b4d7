// SPDX-License-Identifier: Apache-2.0

// Package dfa turns AppArmor expressions into exactly minimal deterministic
// automata and into the compressed tables that the kernel walks.
//
// The way is: glob → regular expression text ([ConvertGlob]) → hash-consed
// expression ([Arena.Parse]) → automaton of partial derivatives → [DFA] by
// subset construction with labels on accepting states → exactly minimal DFA
// ([DFA.Minimize]) → comb tables ([Pack], [Table.Encode]).
//
// Input symbols are the bytes 0..255 and one out-of-band symbol [OOB] that no
// byte class contains; the kernel uses it between the parts of an extended
// attribute match. State 0 of a DFA is the trap and state 1 the start.
//
// Values of this package are not safe for concurrent use, except a finished
// DFA or Table, which nothing changes.
package dfa
