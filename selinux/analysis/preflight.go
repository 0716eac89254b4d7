// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/selinux/ss"
)

// Launch is how a container is to be started: by whom, and with which labels.
type Launch struct {
	// Engine is the context of the process that starts it.
	Engine string
	// Process and Content are the contexts of the container's processes and of its
	// files; either may be empty.
	Process, Content string
}

// Finding is one reason why a launch would fail, as a sentence. The kernel
// answers such a launch with EINVAL or EACCES and no reason.
type Finding struct {
	Context string `json:"context"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// need is one decision that a launch depends on.
type need struct {
	source, target *ss.Context
	class          string
	perms          []string
	what           string
}

// Preflight decides offline whether a launch can succeed: do the contexts exist
// in the policy, may the engine start processes with the label, is the content
// an entry point for them, can it be mounted and created with its label, and may
// the container read and run it.
func Preflight(server *ss.Server, l Launch) []Finding {
	var out []Finding
	parse := func(role, text string) *ss.Context {
		if text == "" {
			return nil
		}
		c, err := server.ParseContext(text)
		if err != nil {
			out = append(out, Finding{Context: text, Message: fmt.Sprintf("the policy has no such %s context: %v", role, err), Hint: hintFor(err)})
		}
		return c
	}
	engine, process, content := parse("engine", l.Engine), parse("process", l.Process), parse("content", l.Content)
	var needs []need
	if engine != nil && process != nil {
		needs = append(needs,
			need{engine, process, "process", []string{"transition"}, "the engine may not start processes with the container's label"},
			need{engine, process, "process2", []string{"nnp_transition"}, "the engine may not do so with no-new-privileges set"},
		)
	}
	if process != nil && content != nil {
		needs = append(needs,
			need{process, content, "file", []string{"entrypoint"}, "the container's files are no entry point to its domain"},
			need{process, content, "file", []string{"read", "execute", "open", "getattr"}, "the container may not run its own files"},
			need{process, content, "dir", []string{"search", "read", "open"}, "the container may not read its own folders"},
		)
	}
	if engine != nil && content != nil {
		needs = append(needs,
			need{engine, content, "filesystem", []string{"mount", "relabelfrom", "relabelto"}, "the engine may not mount the container's root with context="},
			need{engine, content, "dir", []string{"mounton"}, "the engine may not mount onto the container's folders"},
			need{engine, content, "file", []string{"create", "relabelto"}, "the engine may not make or label the container's files"},
		)
	}
	for _, n := range needs {
		if missing := missing(server, n); missing != "" {
			out = append(out, Finding{
				Context: n.target.String(),
				Message: fmt.Sprintf("%s: %s may not %s on %s (class %s)", n.what, n.source, missing, n.target, n.class),
				Hint:    "'palisade selinux explain' says which rule or constraint it is",
			})
		}
	}
	return out
}

// missing returns the first permission that is denied, "" when none is.
func missing(server *ss.Server, n need) string {
	class := server.Class(n.class)
	c := server.Policy().Classes.ByValue(uint32(class))
	if c == nil {
		return "" // an older policy: the kernel goes by handle_unknown
	}
	d := server.Decide(n.source, n.target, class)
	for _, perm := range n.perms {
		bit := c.PermissionMask(perm)
		if bit != 0 && d.Allowed&bit == 0 && !d.IsPermissive() {
			return perm
		}
	}
	return ""
}

func hintFor(err error) string {
	var ce *ss.ContextError
	if errors.As(err, &ce) && ce.Near != "" {
		return fmt.Sprintf("did you mean %s?", ce.Near)
	}
	return "the policy has no container types: 'palisade host enable selinux' shows how to add them"
}
