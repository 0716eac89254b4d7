// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"path"
	"strings"
)

// dirs are the folders that relative paths of a command line are relative to, as
// absolute paths.
type dirs struct {
	// Caller is the working directory of the caller.
	Caller string
	// Bundle is the bundle of the command line, as [commandLine.bundleDir] returns it.
	Bundle string
	// Container is the bundle that the runtime recorded for the container.
	Container string
}

func (d dirs) of(b pathBase) string {
	switch b {
	case callerBase:
		return d.Caller
	case bundleBase:
		return d.Bundle
	case containerBase:
		return d.Container
	}
	return ""
}

// join keeps the path as it is behind the folder: ".." after a symbolic link means
// what it means to the kernel.
func joinPath(dir, name string) string {
	if path.IsAbs(name) || dir == "" {
		return name
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

// base is the base of the path of one option. The path may have a prefix that
// belongs to the option.
func (c *commandLine) base(opt *option, value string) (b pathBase, prefix, name string) {
	b = opt.Path
	if in, ok := opt.PathIn[c.Command]; ok {
		b = in
	}
	if literal, ok := opt.Literal[value]; ok {
		b = literal
	}
	if b == containerBase && c.Value("process") != "" {
		b = callerBase // runc stays where it is
	}
	if c.Grammar.Syntax == syntaxArgp && opt.Name == "log" {
		kind, rest, given := strings.Cut(value, ":")
		switch {
		case given && kind == "file":
			return b, "file:", rest
		case given && (kind == "syslog" || kind == "journald"):
			return noPath, "", value
		case !path.IsAbs(value):
			return b, "file:", value // the folder may have a colon
		}
	}
	return b, "", value
}

// bundleDir is the bundle of the command line as an absolute path: that of the
// option, or the caller's directory.
func (c *commandLine) bundleDir(caller string) string {
	if v := c.Value("bundle"); v != "" {
		return joinPath(caller, v)
	}
	return caller
}

// ConfigFile is the configuration that create and run read. d.Bundle has to be
// [commandLine.bundleDir].
func (c *commandLine) ConfigFile(d dirs) string {
	if c.Value("config") == "" {
		return joinPath(d.Bundle, "config.json")
	}
	return c.Path("config", d)
}

// Path is the path that an option of the command names, as an absolute path where
// the folder is known. It is empty when the option is not given or is no path.
func (c *commandLine) Path(name string, d dirs) string { return c.path(&c.options, name, d) }

// globalPath is Path for an option before the command.
func (c *commandLine) globalPath(name string, d dirs) string { return c.path(&c.Global, name, d) }

func (c *commandLine) path(o *options, name string, d dirs) string {
	opt := o.find(name)
	if opt == nil || o.Value(name) == "" {
		return ""
	}
	b, _, p := c.base(opt, o.Value(name))
	if b == noPath {
		return ""
	}
	return joinPath(d.of(b), p)
}

// makeAbsolute makes each relative path absolute that depends on a folder of d, so
// that the command line means the same after its bundle was replaced. A folder that
// the runtime would take from the bundle by default is made explicit.
//
// A path that is relative to a checkpoint or to the runtime's own state stays.
func (c *commandLine) makeAbsolute(d dirs) {
	for _, o := range []*options{&c.Global, &c.options} {
		for i := range o.set {
			s := &o.set[i]
			if s.value == "" {
				continue
			}
			if b, prefix, p := c.base(s.opt, s.value); d.of(b) != "" {
				s.value = prefix + joinPath(d.of(b), p)
			}
		}
	}
	if c.command == nil || c.Help {
		return
	}
	for i := range c.command.Options {
		if opt := &c.command.Options[i]; opt.Default != "" && !c.Has(opt.Name) && d.of(opt.Path) != "" {
			c.options.set = append(c.options.set, setting{opt, joinPath(d.of(opt.Path), opt.Default)})
		}
	}
}

// Log is where the runtime writes its messages and whether as JSON. The path is
// empty when that is no file.
func (c *commandLine) Log(d dirs) (file string, asJSON bool) {
	return c.globalPath("log", d), c.Global.Value("log-format") == "json"
}
