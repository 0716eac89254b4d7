// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"slices"
	"strings"
)

// parseArgp reads a command line by the rules of argp with ARGP_IN_ORDER: options
// end at the first word that is none. A long name may be abbreviated as long as
// that fits one option; one-letter options may be joined.
//
// Source: glibc argp/argp-parse.c, parser_parse_next; posix/getopt.c,
// process_long_option, _getopt_internal_r (2.36).
func parseArgp(g *grammar, args []string) (*commandLine, error) {
	return asError(g.argp(args))
}

func (g *grammar) argp(args []string) (*commandLine, *syntaxError) {
	c := &commandLine{Grammar: g}
	c.Global.table = &g.Options
	rest, e := c.argpOptions(&c.Global, args)
	if e != nil || c.Help || c.Version {
		return orError(c, e)
	}
	if len(rest) == 0 {
		return nil, c.failure(missingArgument, "", "the command is missing")
	}
	if e := c.begin(rest[0]); e != nil {
		return nil, e
	}
	rest, e = c.argpOptions(&c.options, rest[1:])
	if e != nil {
		return nil, e
	}
	return orError(c, c.finish(rest))
}

func orError(c *commandLine, e *syntaxError) (*commandLine, *syntaxError) {
	if e != nil {
		return nil, e
	}
	return c, nil
}

// argpOptions reads the options at the front of args, and returns what follows
// them. It stops where the runtime would print its help or version and end.
func (c *commandLine) argpOptions(o *options, args []string) (rest []string, e *syntaxError) {
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		if word == "--" {
			break
		}
		if word[1] == '-' {
			args, e = c.argpLong(o, word, args)
		} else {
			args, e = c.argpShort(o, word, args)
		}
		if e != nil {
			return nil, e
		}
		if c.Help || c.Version {
			o.settle()
			o.Delete("help")
			o.Delete("usage")
			o.Delete("version")
			if c.command != nil {
				o.set = nil
			}
			return nil, nil
		}
	}
	o.settle()
	return args, nil
}

func (c *commandLine) argpLong(o *options, word string, args []string) (rest []string, e *syntaxError) {
	name, value, given := strings.Cut(word[2:], "=")
	opt, e := c.argpNamed(*o.table, word, name)
	if e != nil {
		return nil, e
	}
	switch {
	case opt.Separate && given, opt.Type == boolValue && given:
		return nil, c.failure(unexpectedValue, word, "option --%s takes no value in the same word", opt.Name)
	case opt.Type == boolValue:
		value = "true"
	case opt.Type == optionalBool && !given, given:
	case len(args) == 0:
		return nil, c.failure(missingValue, word, "option %s has no value", quote(word))
	default:
		value, args = args[0], args[1:]
	}
	return args, c.argpTake(o, opt, word, value)
}

func (c *commandLine) argpShort(o *options, word string, args []string) (rest []string, e *syntaxError) {
	for i := 1; i < len(word); i++ {
		letter := word[i]
		if letter == 0xff {
			// As a signed char it is -1, which argp takes for the end of the options and
			// not for the unknown one that getopt found: what is left is its question mark.
			letter = '?'
		}
		opt := argpLetter(*o.table, letter)
		if opt == nil {
			return nil, c.unknown(*o.table, word, "")
		}
		value, joined := "true", word[i+1:]
		switch {
		case opt.Type == boolValue:
		case joined != "", opt.Type == optionalBool:
			value, i = joined, len(word)
		case len(args) == 0:
			return nil, c.failure(missingValue, word, "option %s has no value", quote(word))
		default:
			value, args = args[0], args[1:]
		}
		if e := c.argpTake(o, opt, word, value); e != nil || c.Help || c.Version {
			return nil, e
		}
	}
	return args, nil
}

func (c *commandLine) argpTake(o *options, opt *option, word, value string) *syntaxError {
	if e := c.take(o, opt, word, value); e != nil {
		return e
	}
	c.Help = opt.Name == "help" || opt.Name == "usage"
	c.Version = opt.Name == "version"
	return nil
}

func argpLetter(table []option, letter byte) *option {
	for i := range table {
		if strings.IndexByte(table[i].Short, letter) >= 0 {
			return &table[i]
		}
	}
	return nil
}

// argpNamed finds an option by its long name or an abbreviation of it.
func (c *commandLine) argpNamed(table []option, word, name string) (*option, *syntaxError) {
	var found *option
	var all []string
	for i := range table {
		o := &table[i]
		for _, n := range append([]string{o.Name}, o.Aliases...) {
			if n == name {
				return o, nil
			}
			if strings.HasPrefix(n, name) {
				all = append(all, "--"+n)
				if found == nil {
					found = o
				} else if found != o {
					found = &option{} // of two
				}
			}
		}
	}
	switch {
	case found == nil:
		return nil, c.unknown(table, word, name)
	case found.Name == "":
		e := c.failure(ambiguousOption, word, "option %s is short for more than one", quote(word))
		slices.Sort(all)
		e.Hint = strings.Join(all, " ")
		return nil, e
	}
	return found, nil
}
