// SPDX-License-Identifier: Apache-2.0

// Package apparmor is the AppArmor profile language: lexer, parser, tree,
// printer, and the resolving of includes, variables, conditionals and aliases
// into the profiles that a compiler needs.
//
// The way is forward only:
//
//	text ─Parse→ *File ─Resolve(Env)→ *Policy ─compile.Compile→ blob
//
// [Parse] reads one file by itself and keeps what a printer needs. [Resolve]
// pulls in the includes through [Env], sets variables, evaluates conditionals,
// applies aliases, flattens hats and child profiles, and checks what the
// language demands. A [Policy] holds no names any more that need looking up:
// only profiles with rules of globs, bit masks and numbers, each rule with an
// identity and the place in the source that it came from.
//
// Nothing here touches the file system: files come from [Env].FS, abi
// definitions from there or from those that the package brings along.
//
// Values of the package may be read by several goroutines at once; nothing in
// it changes after it was returned.
//
// Source: AppArmor 4.1 and 6.0 parser/parser_lex.l and parser/parser_yacc.y,
// apparmor.d(5).
package apparmor
