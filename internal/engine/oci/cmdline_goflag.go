// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"slices"
	"strings"
)

// parseGoFlag reads a command line by the rules of urfave/cli version 1: options
// of package flag before the command, then those of the command, which may also
// stand behind its arguments unless the command forbids it.
//
// Source: flag (Go), FlagSet.parseOne; urfave/cli v1.22 app.go, command.go,
// context.go normalizeFlags.
func parseGoFlag(g *grammar, args []string) (*commandLine, error) {
	switch g.Reorder {
	case reorderDashes:
		return asError(g.goFlag(args, reorderDashes))
	case reorderKnownOptions:
		return asError(g.goFlag(args, reorderKnownOptions))
	}
	// It is not known which way the runtime was built. What one way refuses, the
	// other may have: the rebuilt line is read the same by both.
	known, errKnown := g.goFlag(args, reorderKnownOptions)
	dash, errDash := g.goFlag(args, reorderDashes)
	switch {
	case errKnown != nil && errDash != nil:
		return nil, errKnown
	case errKnown != nil:
		return dash, nil
	case errDash != nil:
		return known, nil
	case !slices.Equal(known.argv(), dash.argv()):
		e := known.failure(ambiguousOrder, "", "versions of %s read it in different ways", g.Runtime)
		e.Hint = "write options as --name=value, before the container ID"
		return nil, e
	}
	for _, name := range known.Names() {
		if !slices.Equal(known.Values(name), dash.Values(name)) {
			e := known.failure(ambiguousOrder, "", "option --%s has an empty value among others, which versions of %s read in different ways", name, g.Runtime)
			return nil, e
		}
	}
	return known, nil
}

// asError keeps a nil *syntaxError from becoming an error.
func asError(c *commandLine, e *syntaxError) (*commandLine, error) {
	if e != nil {
		return nil, e
	}
	return c, nil
}

func (g *grammar) goFlag(args []string, how reordering) (*commandLine, *syntaxError) {
	c := &commandLine{Grammar: g}
	c.Global.table = &g.Options
	rest, e := c.goFlags(&c.Global, args)
	if e != nil {
		return nil, e
	}
	if c.ask(&c.Global); c.Help || c.Version || len(rest) == 0 || rest[0] == "" {
		c.Help = !c.Version // without a command, or with an empty one, the help is printed
		return c, nil
	}
	if e := c.begin(rest[0]); e != nil {
		return nil, e
	}
	rest = rest[1:]
	c.options.drops = how == reorderKnownOptions
	switch {
	case c.command.InOrder:
	case how == reorderDashes:
		rest = reorderDash(rest)
	default:
		rest = reorderKnown(c.command, rest)
	}
	rest, e = c.goFlags(&c.options, rest)
	if e != nil {
		return nil, e
	}
	c.ask(&c.options)
	if c.Help {
		c.options.set = nil
	}
	if e := c.finish(rest); e != nil {
		return nil, e
	}
	return c, nil
}

// ask takes the options help and version out of o.
func (c *commandLine) ask(o *options) {
	c.Help = o.Bool("help")
	c.Version = o.Bool("version") && !c.Help
	o.Delete("help")
	o.Delete("version")
}

// goFlags reads the options at the front of args, and returns what follows them.
func (c *commandLine) goFlags(o *options, args []string) (rest []string, e *syntaxError) {
	// The runtime refuses two names of one option, even with the same value.
	form := map[*option]string{}
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		if word == "--" {
			break
		}
		name := word[1:]
		if name[0] == '-' {
			name = name[1:]
		}
		if name == "" || name[0] == '-' || name[0] == '=' {
			return nil, c.failure(unknownOption, word, "unknown option %s", quote(word))
		}
		name, value, given := cutName(name)
		opt := goFlagNamed(*o.table, name)
		if opt == nil {
			return nil, c.unknown(*o.table, word, name)
		}
		if had, ok := form[opt]; ok && had != name {
			return nil, c.failure(repeated, word, "option --%s is given by two of its names, %s and %s", opt.Name, had, name)
		}
		form[opt] = name
		if !given {
			switch {
			case opt.Type == boolValue:
				value = "true"
			case len(args) == 0:
				return nil, c.failure(missingValue, word, "option %s has no value", quote(word))
			default:
				value, args = args[0], args[1:]
			}
		}
		if e := c.take(o, opt, word, value); e != nil {
			return nil, e
		}
	}
	o.settle()
	return args, nil
}

// cutName cuts NAME=VALUE. An equals sign at the front belongs to the name.
func cutName(s string) (name, value string, given bool) {
	if i := strings.IndexByte(s[1:], '='); i >= 0 {
		return s[:i+1], s[i+2:], true
	}
	return s, "", false
}

func goFlagNamed(table []option, name string) *option {
	for i := range table {
		o := &table[i]
		if o.Name == name || slices.Contains(o.Aliases, name) || len(name) == 1 && strings.Contains(o.Short, name) {
			return o
		}
	}
	return nil
}

// reorderDash moves words with a dash to the front, each with the word behind it
// if that has no dash.
//
// Source: urfave/cli v1.22.1, command.go reorderArgs.
func reorderDash(args []string) []string {
	var front, back []string
	value := false
	for i, word := range args {
		if word == "--" {
			back = append(back, args[i:]...)
			break
		}
		dash := strings.HasPrefix(word, "-")
		switch {
		case value && !dash:
			front, value = append(front, word), false
		case dash && word != "-":
			front, value = append(front, word), !strings.Contains(word, "=")
		default:
			back, value = append(back, word), false
		}
	}
	return append(front, back...)
}

// reorderKnown moves options of the command to the front, each with the word
// behind it unless that is an option of the command.
//
// Source: urfave/cli v1.22.17, command.go reorderArgs, argIsFlag.
func reorderKnown(cmd *command, args []string) []string {
	var front, back []string
	value := false
	for i, word := range args {
		option := knownOption(cmd, word)
		switch {
		case value && !option:
			front, value = append(front, word), false
			continue
		case option:
			front, value = append(front, word), !strings.Contains(word, "=")
			continue
		case word != "--":
			back = append(back, word)
			continue
		}
		back = append([]string{"--"}, back...)
		back = append(back, args[i+1:]...)
		break
	}
	return append(front, back...)
}

// knownOption reports whether a word names an option of the command, with one or
// two dashes, or with three.
func knownOption(cmd *command, word string) bool {
	if word == "-" || word == "--" || !strings.HasPrefix(word, "-") {
		return false
	}
	if name, ok := strings.CutPrefix(word, "--"); ok {
		word = name
	}
	word = strings.TrimPrefix(word, "-")
	name, _, _ := strings.Cut(word, "=")
	return name != "" && goFlagNamed(cmd.Options, name) != nil
}
