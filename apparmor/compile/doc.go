// SPDX-License-Identifier: Apache-2.0

// Package compile turns resolved AppArmor profiles into the kernel's binary
// policy: the automata for files, for everything else (policydb) and for
// attachment, capability sets, resource limits and exec tables.
//
// What a rule means on a host depends on three things, which [Options] holds:
// the features of the kernel, the features that the policy was written for
// (its abi), and the generation of the language ([Level]): from AppArmor 3 to
// 4 the meaning of mount rules without options and of overlapping rules
// changed. A class of rules is compiled only where the policy's abi and the
// kernel both have it.
//
// Every accepting state of the automata can be traced back to the rules that
// made it: see [Profile.Deciding].
//
// Source: parser/parser_regex.c, mount.cc, network.cc, af_unix.cc, dbus.cc,
// signal.cc, ptrace.cc, mqueue.cc, userns.cc, io_uring.cc,
// libapparmor_re/hfa.cc, of AppArmor 3.0.8, 4.1.8 and 6.0.0~alpha1.
package compile
