// SPDX-License-Identifier: Apache-2.0

// Package landlock is Linux's Landlock as values: the rights of each version of its
// interface, rule sets, and the decisions of the domains that are made of them.
//
// A [Ruleset] says what is denied and which rules allow some of it. [Ruleset.Degrade]
// fits it to an older kernel and says what is lost; [Compare] tells which of two is
// stricter; [Domain.Decide] answers whether a process may do something, and which layer
// and right stand against it. Package landlock/install puts a rule set into force.
//
// Landlock denies only what a rule set handles. What no right stands for (stat, chdir,
// chmod, chown, access, extended attributes, descriptors that were open before) is
// never denied. Rules hold files by inode, so all paths here are those that the kernel
// finds behind symbolic links, in one mount tree without bind mounts of rules' folders.
//
// Values are immutable once in use, and safe for concurrent use then.
//
// Source: Documentation/userspace-api/landlock.rst; security/landlock (Linux 6.18; UDP
// and path sockets as in Linux 7.1 and 7.2).
package landlock
