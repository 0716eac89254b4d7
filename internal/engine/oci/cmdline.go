// SPDX-License-Identifier: Apache-2.0

// Package oci translates between Palisade and the OCI runtimes: their command
// lines and their JSON files.
package oci

import (
	"fmt"
	"slices"
	"strings"
)

// syntax is the library by whose rules a runtime reads its command line.
type syntax uint8

const (
	// syntaxGoFlag is urfave/cli version 1 over package flag of Go, as in runc.
	syntaxGoFlag syntax = iota + 1
	// syntaxArgp is argp over getopt_long of the GNU C library, as in crun.
	syntaxArgp
	// syntaxClap is clap version 4, as in youki.
	syntaxClap
)

// reordering is how syntaxGoFlag moves options of a command in front of its other
// arguments. It belongs to the version of urfave/cli that a runtime was built
// with, which distributions choose apart from the runtime's version.
type reordering uint8

const (
	// reorderUnknown takes what both ways read the same, and refuses the rest.
	reorderUnknown reordering = iota
	// reorderDashes moves each word with a dash (urfave/cli 1.22.1).
	reorderDashes
	// reorderKnownOptions moves known options (urfave/cli 1.22.12 to 1.22.17).
	reorderKnownOptions
)

// role is what a command does, as far as a caller that confines containers has
// to know.
type role uint8

const (
	// rolePass is a command that makes no process in a container and changes none.
	rolePass role = iota
	// roleCreate makes a container whose process waits for roleStart.
	roleCreate
	// roleRun makes a container and starts it.
	roleRun
	// roleExec adds a process to a container.
	roleExec
	// roleRestore makes a container from an image of its processes.
	roleRestore
	// roleStart starts the process of a created container.
	roleStart
	// roleDelete removes a container.
	roleDelete
	// roleUpdate changes the resources of a container.
	roleUpdate
	// roleMounts changes the mounts of a running container.
	roleMounts
)

var roleNames = [...]string{"pass", "create", "run", "exec", "restore", "start", "delete", "update", "mounts"}

func (r role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// valueType is the kind of value that an option takes.
type valueType uint8

const (
	// boolValue takes no value, or one of Go's spellings of true and false where the
	// syntax is syntaxGoFlag.
	boolValue valueType = iota
	// optionalBool is a switch that may have a value behind an equals sign: "false"
	// and "no" turn it off, everything else on.
	optionalBool
	// stringValue takes any value.
	stringValue
	// intValue takes a number from Min to Max.
	intValue
	// durationValue takes a duration of package time.
	durationValue
	// pairValue takes NAME=VALUE.
	pairValue
)

// pathBase is the folder that a relative path of an option is relative to.
type pathBase uint8

const (
	// noPath is the base of a value that is no path.
	noPath pathBase = iota
	// callerBase is the working directory of the caller.
	callerBase
	// bundleBase is the bundle: the runtime changes its directory before it uses the path.
	bundleBase
	// containerBase is the bundle of the container that the command is about, as the
	// runtime recorded it.
	containerBase
	// imageBase is the folder of the checkpoint.
	imageBase
	// stateBase is the container's folder below the runtime's state root.
	stateBase
)

// option is one option of a runtime.
type option struct {
	// Name is the long name, by which values are asked for.
	Name string
	// Short are one-letter names.
	Short string
	// Aliases are other long names of the same option.
	Aliases []string
	Type    valueType
	// Min and Max bound an intValue.
	Min, Max int64
	// Enum are the values that a stringValue may have; any when it is empty.
	Enum []string
	// Fold compares values of Enum without regard to case.
	Fold bool
	// Repeat keeps each value of a repeated option. Otherwise the last one holds.
	Repeat bool
	// DropsEmpty is a list from which builds with reorderKnownOptions take one empty value
	// away when there are others.
	DropsEmpty bool
	// Once refuses a second, different value.
	Once bool
	// NonEmpty refuses an empty value.
	NonEmpty bool
	// Separate is an option whose value can only be the next word.
	Separate bool
	// Path is the base of a relative path.
	Path pathBase
	// PathIn replaces Path in some commands, for an option before the command.
	PathIn map[string]pathBase
	// Literal are values that are not paths, or paths of another base.
	Literal map[string]pathBase
	// Default is the path that the runtime takes below Path when the option is not
	// given.
	Default string
	// Refuse is the reason why the option is never accepted.
	Refuse string
	// Since and Until bound the versions that have the option: Since <= version < Until.
	Since, Until string
	// Help is one line for a person.
	Help string
}

// command is one command of a runtime.
type command struct {
	Name    string
	Aliases []string
	Role    role
	Options []option
	// Min and Max bound the number of arguments that are no options; Max < 0 is no
	// bound.
	Min, Max int
	// ID is the place of the container's ID among the arguments, or -1.
	ID int
	// NeedsCommand wants a second argument unless the option process is given.
	NeedsCommand bool
	// InOrder ends the options at the first argument, for syntaxGoFlag (the others
	// of that syntax reorder) and for syntaxClap (where it is so after the ID).
	InOrder bool
	// HyphenArgs lets arguments after the ID begin with a dash, for syntaxClap.
	HyphenArgs bool
	// Pattern is the option that makes the ID a regular expression.
	Pattern string
	Since   string
	Help    string
}

// grammar is the command line of one runtime.
type grammar struct {
	// Runtime is runc, crun or youki.
	Runtime string
	// Version is the one that the grammar was made for; empty for the union of all.
	Version string
	Syntax  syntax
	Reorder reordering
	// Options stand before the command.
	Options  []option
	Commands []command
	// IDChars are the characters of a container's ID besides letters and digits.
	IDChars string
}

// Command returns the command of that name, or nil.
func (g *grammar) Command(name string) *command {
	for i := range g.Commands {
		if c := &g.Commands[i]; c.Name == name || slices.Contains(c.Aliases, name) {
			return c
		}
	}
	return nil
}

// syntaxReason is why a command line was refused.
type syntaxReason uint8

const (
	unknownOption syntaxReason = iota + 1
	unknownCommand
	ambiguousOption
	missingValue
	unexpectedValue
	badValue
	repeated
	missingArgument
	tooManyArguments
	badID
	refused
	ambiguousOrder
	misplacedOwn
)

// syntaxError is a command line that the grammar does not have.
type syntaxError struct {
	Runtime string
	Command string
	Reason  syntaxReason
	// Word is the word of the command line that was not understood.
	Word string
	// Detail says what is wrong with it.
	Detail string
	// Hint is what was perhaps meant, or what to do.
	Hint string
}

func (e *syntaxError) Error() string {
	var b strings.Builder
	b.WriteString("command line of " + e.Runtime)
	if e.Command != "" {
		b.WriteString(" " + e.Command)
	}
	b.WriteString(": " + e.Detail)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Longest excerpt of a word in an error, in bytes.
const maxQuoted = 100

func quote(word string) string {
	if len(word) > maxQuoted {
		return fmt.Sprintf("%q...", word[:maxQuoted])
	}
	return fmt.Sprintf("%q", word)
}

// maxID is the longest ID: runtimes name a folder by it.
const maxID = 255

// validID reports what is wrong with an ID. The characters are those of runc and
// of crun since 1.28; older versions of crun take more.
func (g *grammar) validID(id string) string {
	switch {
	case id == "":
		return "the container ID is empty"
	case len(id) > maxID:
		return fmt.Sprintf("the container ID has %d bytes, want at most %d", len(id), maxID)
	case id == "." || id == "..":
		return fmt.Sprintf("container ID %q is a folder", id)
	}
	for i := range len(id) {
		c := id[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(g.IDChars, c) >= 0 {
			continue
		}
		return fmt.Sprintf("container ID %s: character %q at byte %d, want letters, digits and %s", quote(id), c, i, g.IDChars)
	}
	return ""
}

// options are the options of one place of a command line, with their values in
// the order of the command line.
type options struct {
	table *[]option
	set   []setting
	drops bool // obey DropsEmpty
	seen  map[*option]string
}

type setting struct {
	opt   *option
	value string // of a boolValue "true" or "false"
}

func (o *options) find(name string) *option {
	if o.table == nil {
		return nil
	}
	for i := range *o.table {
		if p := &(*o.table)[i]; p.Name == name {
			return p
		}
	}
	return nil
}

// Has reports whether the option is given.
func (o *options) Has(name string) bool {
	return slices.ContainsFunc(o.set, func(s setting) bool { return s.opt.Name == name })
}

// Value is the value of the option, the last one of several; empty when it is not
// given.
func (o *options) Value(name string) string {
	for _, s := range slices.Backward(o.set) {
		if s.opt.Name == name {
			return s.value
		}
	}
	return ""
}

// Bool reports whether a switch is on.
func (o *options) Bool(name string) bool { return o.Value(name) == "true" }

// Int is the value of an intValue; 0 when it is not given.
func (o *options) Int(name string) int {
	var n int
	_, _ = fmt.Sscanf(o.Value(name), "%d", &n) // the parser checked it
	return n
}

// Values are the values of a repeated option, as the runtime takes them.
func (o *options) Values(name string) []string {
	var out []string
	drops := false
	for _, s := range o.set {
		if s.opt.Name == name {
			out, drops = append(out, s.value), s.opt.DropsEmpty && o.drops
		}
	}
	if i := slices.Index(out, ""); drops && i >= 0 && len(out) > 1 {
		out = slices.Delete(out, i, i+1)
	}
	return out
}

// Names are the names of the given options, each once.
func (o *options) Names() []string {
	var out []string
	for _, s := range o.set {
		if !slices.Contains(out, s.opt.Name) {
			out = append(out, s.opt.Name)
		}
	}
	return out
}

// Delete takes all values of the option away.
func (o *options) Delete(name string) {
	o.set = slices.DeleteFunc(o.set, func(s setting) bool { return s.opt.Name == name })
}

// Set replaces all values of the option. The error is one of a name that the
// grammar does not have here, or of a value of the wrong type.
func (o *options) Set(name string, values ...string) error {
	opt := o.find(name)
	if opt == nil {
		return fmt.Errorf("set option --%s: no such option", name)
	}
	if len(values) > 1 && !opt.Repeat {
		return fmt.Errorf("set option --%s: %d values, want 1", name, len(values))
	}
	var set []setting
	for _, v := range values {
		canonical, why := opt.check(v)
		if why != "" {
			return fmt.Errorf("set option --%s: %s", name, why)
		}
		set = append(set, setting{opt, canonical})
	}
	o.Delete(name)
	o.set = append(o.set, set...)
	return nil
}

// add takes one value from a command line. The value is canonical. After the last
// one, settle has to be called.
func (o *options) add(opt *option, value string) (why string) {
	if o.seen == nil {
		o.seen = map[*option]string{}
	}
	if had, twice := o.seen[opt]; twice && opt.Once && had != value {
		return fmt.Sprintf("option --%s is given twice, with %s and %s", opt.Name, quote(had), quote(value))
	}
	o.seen[opt] = value
	o.set = append(o.set, setting{opt, value})
	return ""
}

// settle leaves the last value of each option that does not collect them, in its
// place: some options undo others, so their order counts.
func (o *options) settle() {
	later := map[*option]bool{}
	keep := len(o.set)
	for i, s := range slices.Backward(o.set) {
		if later[s.opt] && !s.opt.Repeat {
			continue
		}
		later[s.opt] = true
		keep--
		o.set[keep] = o.set[i]
	}
	o.set, o.seen = slices.Delete(o.set, 0, keep), nil
}

// commandLine is a command line that was understood.
type commandLine struct {
	Grammar *grammar
	// Global are the options before the command.
	Global options
	// Command is the canonical name; empty for none.
	Command string
	// Options of the command.
	options
	// Help and Version are set when the runtime would do nothing but print its help
	// or version. Then there are no arguments, and ID is empty.
	Help, Version bool
	// Verb is the word before the ID of a command that has one (crun mounts).
	Verb string
	// ID is the container; empty for a command without one.
	ID string
	// Pattern is the regular expression of the containers that the command is about,
	// in place of an ID (crun delete --regex).
	Pattern string
	// Args are the arguments after the ID: of exec the command.
	Args []string

	command *command
}

// Role is what the command does. One that only prints its help has rolePass.
func (c *commandLine) Role() role {
	if c.command == nil || c.Help || c.Version {
		return rolePass
	}
	return c.command.Role
}

// helpTopic reports whether the command line asks for help only, and for that of
// which command; empty for all.
func (c *commandLine) helpTopic() (command string, asked bool) {
	switch {
	case c.Help:
		return c.Command, true
	case c.Command == "help" && len(c.Args) > 0:
		return c.Args[0], true
	}
	return "", c.Command == "help"
}

// positionals are the arguments that are no options.
func (c *commandLine) positionals() []string {
	var out []string
	if c.command != nil && !c.Help && !c.Version {
		if c.command.ID > 0 {
			out = append(out, c.Verb)
		}
		switch {
		case c.Pattern != "":
			out = append(out, c.Pattern)
		case c.ID != "":
			out = append(out, c.ID)
		}
	}
	return append(out, c.Args...)
}

// argv rebuilds the command line from what was understood, without the name of
// the program. Each option has its long name and its value behind an equals sign;
// "--" stands before the arguments.
func (c *commandLine) argv() []string {
	out := c.Grammar.words(nil, &c.Global)
	if c.command == nil {
		switch {
		case c.Help:
			out = append(out, "--help")
		case c.Version:
			out = append(out, "--version")
		}
		return out
	}
	out = append(out, c.command.Name)
	if c.Help {
		return append(out, "--help")
	}
	out = c.Grammar.words(out, &c.options)
	if args := c.positionals(); len(args) > 0 {
		out = append(out, "--")
		out = append(out, args...)
	}
	return out
}

func (g *grammar) words(out []string, o *options) []string {
	for _, s := range o.set {
		name := "--" + s.opt.Name
		switch {
		case s.opt.Type == boolValue && g.Syntax != syntaxGoFlag:
			out = append(out, name) // it cannot be turned off, so it is on
		case s.opt.Type == optionalBool && s.value == "true":
			out = append(out, name)
		case s.opt.Separate:
			out = append(out, name, s.value)
		default:
			out = append(out, name+"="+s.value)
		}
	}
	return out
}

// ownPrefix begins the options that are for Palisade and never handed on.
const ownPrefix = "--palisade-"

// takeOwn takes Palisade's own options from the front of a command line:
// --palisade-NAME=VALUE or --palisade-NAME VALUE. They come first, since they may
// say which runtime's grammar the rest has.
func takeOwn(args []string) (own map[string]string, rest []string, err error) {
	own = map[string]string{}
	for len(args) > 0 {
		name, ok := strings.CutPrefix(args[0], ownPrefix)
		if !ok {
			break
		}
		name, value, given := strings.Cut(name, "=")
		args = args[1:]
		if !given {
			if len(args) == 0 {
				return nil, nil, fmt.Errorf("option %s%s: no value", ownPrefix, name)
			}
			value, args = args[0], args[1:]
		}
		if had, twice := own[name]; twice && had != value {
			return nil, nil, fmt.Errorf("option %s%s is given twice, with %s and %s", ownPrefix, name, quote(had), quote(value))
		}
		own[name] = value
	}
	return own, args, nil
}

// parse reads a command line, without the name of the program and without
// Palisade's own options. Each word is understood as the runtime would understand
// it, or refused with a *syntaxError.
func parse(g *grammar, args []string) (*commandLine, error) {
	switch g.Syntax {
	case syntaxGoFlag:
		return parseGoFlag(g, args)
	case syntaxArgp:
		return parseArgp(g, args)
	case syntaxClap:
		return parseClap(g, args)
	}
	return nil, fmt.Errorf("grammar of %q: unknown syntax %d", g.Runtime, g.Syntax)
}

// failure makes the errors of one place of a command line.
func (c *commandLine) failure(reason syntaxReason, word, format string, args ...any) *syntaxError {
	return &syntaxError{Runtime: c.Grammar.Runtime, Command: c.Command, Reason: reason, Word: word, Detail: fmt.Sprintf(format, args...)}
}

// take adds one option with its value.
func (c *commandLine) take(o *options, opt *option, word, value string) *syntaxError {
	if opt.Refuse != "" {
		return c.failure(refused, word, "option --%s: %s", opt.Name, opt.Refuse)
	}
	canonical, why := opt.check(value)
	if why != "" {
		return c.failure(badValue, word, "option --%s: %s", opt.Name, why)
	}
	if why := o.add(opt, canonical); why != "" {
		return c.failure(repeated, word, "%s", why)
	}
	return nil
}

// begin enters a command.
func (c *commandLine) begin(word string) *syntaxError {
	c.command = c.Grammar.Command(word)
	if c.command == nil {
		e := c.failure(unknownCommand, word, "unknown command %s", quote(word))
		var names []string
		for i := range c.Grammar.Commands {
			names = append(names, c.Grammar.Commands[i].Name)
		}
		e.Hint = nearest(word, names, "")
		return e
	}
	c.Command = c.command.Name
	c.options.table = &c.command.Options
	return nil
}

// finish sorts the arguments that are no options.
func (c *commandLine) finish(args []string) *syntaxError {
	if c.Help || c.Version {
		c.Args = nil
		return nil
	}
	cmd := c.command
	if len(args) < cmd.Min {
		what := "the container ID is missing"
		if cmd.ID != 0 || len(args) > 0 {
			what = fmt.Sprintf("%d arguments, want at least %d", len(args), cmd.Min)
		}
		return c.failure(missingArgument, "", "%s", what)
	}
	if cmd.Max >= 0 && len(args) > cmd.Max {
		e := c.failure(tooManyArguments, args[cmd.Max], "argument %s is one too many", quote(args[cmd.Max]))
		if strings.HasPrefix(args[cmd.Max], "-") {
			e.Hint = "options stand before the container ID"
		}
		return e
	}
	if cmd.ID < 0 {
		c.Args = slices.Clone(args)
		return nil
	}
	if cmd.ID > 0 {
		c.Verb = args[0]
	}
	id, rest := args[cmd.ID], args[cmd.ID+1:]
	if cmd.Pattern != "" && c.Bool(cmd.Pattern) {
		if id == "" {
			return c.failure(badID, id, "the pattern is empty")
		}
		c.Pattern = id
	} else {
		if why := c.Grammar.validID(id); why != "" {
			return c.failure(badID, id, "%s", why)
		}
		c.ID = id
	}
	if cmd.NeedsCommand && len(rest) == 0 && c.Value("process") == "" {
		return c.failure(missingArgument, "", "the command is missing")
	}
	c.Args = slices.Clone(rest)
	return nil
}

// unknown is the error of an option that is not in the table.
func (c *commandLine) unknown(table []option, word, name string) *syntaxError {
	e := c.failure(unknownOption, word, "unknown option %s", quote(word))
	if strings.HasPrefix("--"+name, ownPrefix) {
		e.Reason, e.Hint = misplacedOwn, "options of Palisade stand before all others"
		return e
	}
	var names []string
	for i := range table {
		if table[i].Refuse == "" {
			names = append(names, table[i].Name)
		}
	}
	e.Hint = nearest(name, names, "--")
	return e
}

// nearest is a hint of the name that was perhaps meant.
func nearest(word string, names []string, prefix string) string {
	const maxWord = 40
	if word == "" || len(word) > maxWord {
		return ""
	}
	best, at := 3, ""
	for _, n := range names {
		if len(word) >= 3 && strings.HasPrefix(n, word) {
			return "did you mean " + prefix + n + "?"
		}
		if d := distance(word, n); d < best && d < len(n)/2+1 {
			best, at = d, n
		}
	}
	if at == "" {
		return ""
	}
	return "did you mean " + prefix + at + "?"
}

// distance is the number of bytes to insert, remove or exchange.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := left
			if a[i] != b[j] {
				d++
			}
			left = row[j+1]
			row[j+1] = min(d, row[j]+1, left+1)
		}
	}
	return row[len(b)]
}
