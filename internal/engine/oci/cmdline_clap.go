// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"slices"
	"strings"
)

// parseClap reads a command line by the rules of clap: options and arguments in
// any order, one-letter options may be joined, a value behind an option does not
// begin with a dash, and an option that does not collect values stands once.
//
// Source: clap_builder 4.6, src/parser/parser.rs, get_matches_with, parse_long_arg,
// parse_short_arg.
func parseClap(g *grammar, args []string) (*commandLine, error) {
	return asError(g.clap(args))
}

func (g *grammar) clap(args []string) (*commandLine, *syntaxError) {
	c := &commandLine{Grammar: g}
	c.Global.table = &g.Options
	for len(args) > 0 && isDashed(args[0]) {
		var e *syntaxError
		if args, e = c.clapOption(&c.Global, args); e != nil {
			return nil, e
		}
		if c.Help {
			break
		}
	}
	c.Global.settle()
	if c.Help {
		return c, nil
	}
	// --version is a switch, whatever follows it has to be well-formed too.
	version := c.Global.Bool("version")
	c.Global.Delete("version")
	if len(args) > 0 {
		if args[0] == "--" {
			return nil, c.failure(unknownCommand, "--", "-- before the command")
		}
		if e := c.begin(args[0]); e != nil {
			return nil, e
		}
		if e := c.clapCommand(args[1:]); e != nil {
			return nil, e
		}
	}
	if version {
		return &commandLine{Grammar: g, Global: c.Global, Version: true}, nil
	}
	c.Help = c.Help || c.command == nil
	return c, nil
}

// clapCommand reads the words of a command.
func (c *commandLine) clapCommand(args []string) *syntaxError {
	var positional []string
	for len(args) > 0 {
		word := args[0]
		after := c.command.ID >= 0 && len(positional) > c.command.ID
		switch {
		case word == "--":
			positional = append(positional, args[1:]...)
			args = nil
		case !isDashed(word) || after && c.command.HyphenArgs && !c.clapKnown(word):
			if c.command.InOrder && after {
				// What follows belongs to the command in the container.
				positional = append(positional, args...)
				args = nil
				break
			}
			positional = append(positional, word)
			args = args[1:]
		default:
			var e *syntaxError
			if args, e = c.clapOption(&c.options, args); e != nil {
				return e
			}
			if c.Help {
				c.options = options{table: c.options.table}
				return nil
			}
		}
	}
	c.options.settle()
	return c.finish(positional)
}

// clapKnown reports whether a word with a dash is made of options of the command.
func (c *commandLine) clapKnown(word string) bool {
	if long, ok := strings.CutPrefix(word, "--"); ok {
		name, _, _ := strings.Cut(long, "=")
		return c.options.find(name) != nil
	}
	for i := 1; i < len(word); i++ {
		if argpLetter(*c.options.table, word[i]) == nil {
			return false
		}
	}
	return true
}

func isDashed(word string) bool { return len(word) > 1 && word[0] == '-' && word != "--" }

// clapOption reads the option at the front of args.
func (c *commandLine) clapOption(o *options, args []string) (rest []string, e *syntaxError) {
	word, args := args[0], args[1:]
	if long, ok := strings.CutPrefix(word, "--"); ok {
		name, value, given := strings.Cut(long, "=")
		i := slices.IndexFunc(*o.table, func(p option) bool { return p.Name == name || slices.Contains(p.Aliases, name) })
		if i < 0 {
			return nil, c.unknown(*o.table, word, name)
		}
		return c.clapTake(o, &(*o.table)[i], word, value, given, args)
	}
	for i := 1; i < len(word); i++ {
		opt := argpLetter(*o.table, word[i])
		if opt == nil {
			return nil, c.unknown(*o.table, word, "")
		}
		if opt.Type == boolValue {
			if strings.HasPrefix(word[i+1:], "=") {
				return nil, c.failure(unexpectedValue, word, "option --%s takes no value", opt.Name)
			}
			if _, e := c.clapTake(o, opt, word, "", false, nil); e != nil || c.Help {
				return nil, e
			}
			continue
		}
		value, equals := strings.CutPrefix(word[i+1:], "=")
		return c.clapTake(o, opt, word, value, equals || value != "", args)
	}
	return args, nil
}

func (c *commandLine) clapTake(o *options, opt *option, word, value string, given bool, args []string) (rest []string, e *syntaxError) {
	switch {
	case opt.Type == boolValue && given:
		return nil, c.failure(unexpectedValue, word, "option --%s takes no value", opt.Name)
	case opt.Type == boolValue:
		value = "true"
	case given:
	case len(args) == 0 || isDashed(args[0]) || args[0] == "--":
		return nil, c.failure(missingValue, word, "option %s has no value", quote(word))
	default:
		value, args = args[0], args[1:]
	}
	if _, twice := o.seen[opt]; twice && !opt.Repeat && opt.Name != "log" {
		return nil, c.failure(repeated, word, "option --%s is given twice", opt.Name)
	}
	if e := c.take(o, opt, word, value); e != nil {
		return nil, e
	}
	if opt.Name == "help" {
		o.set = o.set[:len(o.set)-1]
		c.Help = true
	}
	return args, nil
}
