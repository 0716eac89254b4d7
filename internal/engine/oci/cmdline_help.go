// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"strings"
)

// ownHelp are the options of Palisade that stand before those of the runtime.
var ownHelp = [][2]string{
	{"config FILE", "another file than /etc/palisade/oci.json"},
	{"runtime PATH", "the runtime that does the work"},
	{"policy NAME", "the policy: default or strict"},
	{"state DIR", "the state directory"},
	{"on-mismatch kill|warn", "what to do with a container of which less is in force than asked"},
	{"require LAYERS", "layers without which no container starts: selinux, apparmor"},
}

// helpText is the answer to --help: what program is, its own options, and what the
// runtime below takes. command limits it to one command, if the grammar has it.
func (g *grammar) helpText(program, path, command string) string {
	var b strings.Builder
	if c := g.Command(command); command != "" && c != nil {
		fmt.Fprintf(&b, "usage: %s [OPTION]... %s [OPTION]...%s\n\n%s, by %s (%s).\n", program, c.Name, c.arguments(), c.Help, g.Runtime, path)
		writeOptions(&b, c.Options)
		return b.String()
	}
	fmt.Fprintf(&b, "usage: %s [--palisade-NAME=VALUE]... [OPTION]... COMMAND [OPTION]... [ID] [ARGUMENT]...\n\n", program)
	fmt.Fprintf(&b, "%s confines each container and leaves the work to %s (%s).\n", program, g.Runtime, path)
	b.WriteString("It refuses what is not listed here.\n\noptions of Palisade, before all others:\n")
	for _, o := range ownHelp {
		fmt.Fprintf(&b, "  %-34s %s\n", ownPrefix+o[0], o[1])
	}
	b.WriteString("\noptions of " + g.Runtime + ":\n")
	writeOptions(&b, g.Options)
	b.WriteString("\ncommands:\n")
	for i := range g.Commands {
		c := &g.Commands[i]
		fmt.Fprintf(&b, "  %-34s %s\n", c.Name+c.arguments(), c.Help)
	}
	return b.String()
}

// versionText is the answer to --version: program with its version, and what the
// runtime below says. Engines read the runtime's lines, so these come unchanged.
func versionText(program, version, path, below string) string {
	return fmt.Sprintf("%s version %s over %s\n%s\n", program, version, path, strings.TrimRight(below, "\n"))
}

func (c *command) arguments() string {
	var b strings.Builder
	if c.ID > 0 {
		b.WriteString(" VERB")
	}
	if c.ID >= 0 {
		b.WriteString(" ID")
	}
	switch {
	case c.Name == "exec":
		b.WriteString(" COMMAND [ARGUMENT]...")
	case c.Max < 0, c.Max > c.ID+1:
		b.WriteString(" [ARGUMENT]...")
	}
	return b.String()
}

func writeOptions(b *strings.Builder, table []option) {
	for i := range table {
		o := &table[i]
		if o.Refuse != "" {
			continue
		}
		name := "--" + o.Name
		if o.Short != "" {
			name = "-" + o.Short[:1] + ", " + name
		}
		if o.Type != boolValue {
			name += "=" + o.placeholder()
		}
		help := o.Help
		if o.Repeat {
			help += " (repeatable)"
		}
		if o.Since != "" {
			help += fmt.Sprintf(" (since %s)", o.Since)
		}
		if o.Until != "" {
			help += fmt.Sprintf(" (before %s)", o.Until)
		}
		fmt.Fprintf(b, "  %-34s %s\n", name, help)
	}
}

func (o *option) placeholder() string {
	switch {
	case o.Type == intValue:
		return "N"
	case o.Type == durationValue:
		return "DURATION"
	case o.Type == pairValue:
		return "NAME=VALUE"
	case o.Path != noPath:
		return "PATH"
	}
	return "VALUE"
}
