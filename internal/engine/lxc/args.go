// SPDX-License-Identifier: Apache-2.0

package lxc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// call is a command line with which libvirt starts the controller of a container.
type call struct {
	own map[string]string // --palisade-NAME
	// options are the controller's in their order.
	options []option
}

type option struct{ name, value string }

// ownPrefix begins the flags that are for Palisade and not passed on.
const ownPrefix = "palisade-"

// kind says what the value of an option is.
type kind int

const (
	text   kind = iota
	none        // it has no value
	fd          // a descriptor
	fdPair      // two, with a colon between them
)

// known are the options of the controller. What is none of them may bring
// descriptors or a way into a container that nobody looked at here.
//
// Source: src/lxc/lxc_controller.c, main, and src/lxc/lxc_process.c,
// virLXCProcessBuildControllerCmd, of libvirt 9.0.
var known = map[string]kind{
	"name": text, "veth": text, "security": text,
	"console": fd, "passfd": fd, "share-net": fd, "share-ipc": fd, "share-uts": fd,
	"handshakefds": fdPair,
}

// parseArgs takes a command line apart.
func parseArgs(args []string) (*call, error) {
	c := &call{own: map[string]string{}}
	for i := 0; i < len(args); i++ {
		name, isLong := strings.CutPrefix(args[i], "--")
		name, value, given := strings.Cut(name, "=")
		own := strings.HasPrefix(name, ownPrefix)
		kind, ok := known[name]
		if !isLong || !own && !ok {
			return nil, fmt.Errorf("argument %q is none that libvirt 9 gives to its controller of containers", args[i])
		}
		if !given {
			if i++; i == len(args) {
				return nil, fmt.Errorf("option --%s wants a value", name)
			}
			value = args[i]
		}
		if own {
			c.own[strings.TrimPrefix(name, ownPrefix)] = value
			continue
		}
		if kind == fd || kind == fdPair {
			if n, err := numbers(value); err != nil || len(n) != int(kind-fd)+1 {
				return nil, fmt.Errorf("option --%s: %q is no descriptor", name, value)
			}
		}
		c.options = append(c.options, option{name, value})
	}
	if c.name() == "" {
		return nil, errors.New("no --name: this program is for libvirt to start, as the <emulator> of a domain")
	}
	if len(c.fds("handshakefds")) != 2 {
		return nil, errors.New("no --handshakefds: libvirt is too old; 9.0 has them")
	}
	return c, nil
}

func numbers(value string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(value, ":") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no descriptor", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// value is that of the last option of a name.
func (c *call) value(name string) string {
	v := ""
	for _, o := range c.options {
		if o.name == name {
			v = o.value
		}
	}
	return v
}

func (c *call) name() string { return c.value("name") }

// has tells whether an option is given.
func (c *call) has(name string) bool {
	return slices.ContainsFunc(c.options, func(o option) bool { return o.name == name })
}

// fds are the descriptors of all options of a name.
func (c *call) fds(name string) []int {
	var out []int
	for _, o := range c.options {
		if o.name == name {
			n, _ := numbers(o.value) // parseArgs has looked
			out = append(out, n...)
		}
	}
	return out
}

// set replaces the value of an option, or adds it.
func (c *call) set(name, value string) {
	for i := range c.options {
		if c.options[i].name == name {
			c.options[i].value = value
			return
		}
	}
	c.options = append(c.options, option{name, value})
}

// pass adds descriptors that the container's first process is to have, behind
// those that it already gets.
func (c *call) pass(fds ...int) {
	for _, n := range fds {
		c.options = append(c.options, option{"passfd", strconv.Itoa(n)})
	}
}

// moved tells that a descriptor has another number now.
func (c *call) moved(from, to int) {
	for i, o := range c.options {
		if k := known[o.name]; k != fd && k != fdPair {
			continue
		}
		parts := strings.Split(o.value, ":")
		for j, p := range parts {
			if n, err := strconv.Atoi(p); err == nil && n == from {
				parts[j] = strconv.Itoa(to)
			}
		}
		c.options[i].value = strings.Join(parts, ":")
	}
}

// args is the command line for the controller.
func (c *call) args() []string {
	var out []string
	for _, o := range c.options {
		out = append(out, "--"+o.name, o.value)
	}
	return out
}
