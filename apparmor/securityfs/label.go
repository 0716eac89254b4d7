// SPDX-License-Identifier: Apache-2.0

//go:build linux

package securityfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Component is one profile of a label.
type Component struct {
	Namespace string // "" is the namespace of the reader
	Profile   string
}

// Label is what confines a process: a stack of profiles, each of which has to
// allow an access.
type Label struct {
	Components []Component
	Mode       string // "" for unconfined
}

// ParseLabel reads a label as /proc/PID/attr/current spells it, with or without
// the mode behind it.
func ParseLabel(s string) (Label, error) {
	s = strings.TrimRight(s, "\n\x00")
	text, mode := splitMode(s)
	if text == "" {
		return Label{}, errors.New("empty AppArmor label")
	}
	l := Label{Mode: mode}
	for _, part := range strings.Split(text, "//&") {
		part = strings.TrimPrefix(part, "&")
		c := Component{Profile: part}
		if strings.HasPrefix(part, ":") {
			ns, rest, ok := strings.Cut(part[1:], ":")
			if !ok || ns == "" {
				return Label{}, fmt.Errorf("AppArmor label %q: namespace does not end", s)
			}
			c = Component{Namespace: ns, Profile: strings.TrimPrefix(rest, "//")}
		}
		if c.Profile == "" {
			return Label{}, fmt.Errorf("AppArmor label %q: empty profile name", s)
		}
		l.Components = append(l.Components, c)
	}
	return l, nil
}

// String is the label without its mode.
func (l Label) String() string {
	parts := make([]string, len(l.Components))
	for i, c := range l.Components {
		parts[i] = c.Profile
		if c.Namespace != "" {
			parts[i] = ":" + c.Namespace + "://" + c.Profile
		}
	}
	return strings.Join(parts, "//&")
}

// Has tells whether a profile of the reader's namespace is in the label.
func (l Label) Has(profile string) bool {
	return slices.Contains(l.Components, Component{Profile: profile})
}

// Unconfined tells whether no profile confines the process.
func (l Label) Unconfined() bool {
	for _, c := range l.Components {
		if c.Profile != "unconfined" {
			return false
		}
	}
	return true
}

// attr reads an attribute of a process from AppArmor's own directory, or from
// the shared one where the kernel has no other or another module owns it.
func (f FS) attr(pid int, name string) (string, error) {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	b, err := os.ReadFile(f.proc(who, "attr", "apparmor", name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		if b, err = os.ReadFile(f.proc(who, "attr", name)); errors.Is(err, unix.EINVAL) {
			return "", ErrUnavailable
		}
	}
	return string(b), err
}

// LabelOf gives the label of a process; 0 is the calling one.
func (f FS) LabelOf(pid int) (Label, error) {
	s, err := f.attr(pid, "current")
	if err != nil {
		return Label{}, err
	}
	return ParseLabel(s)
}

// ChangeOnExec makes the next exec of the calling thread go into a profile or
// stack of profiles ("&name" adds to what confines the thread now). The kernel
// keeps it for the thread: lock the goroutine to its thread and let the thread
// end after a failed exec.
func (f FS) ChangeOnExec(label string) error {
	verb := "exec "
	if strings.HasPrefix(label, "&") {
		verb, label = "stack ", label[1:]
	}
	tid := strconv.Itoa(unix.Gettid())
	var err error
	for _, p := range []string{f.proc("self", "task", tid, "attr", "apparmor", "exec"), f.proc("self", "task", tid, "attr", "exec")} {
		var w *os.File
		if w, err = os.OpenFile(p, os.O_WRONLY, 0); err != nil {
			continue
		}
		_, err = w.Write([]byte(verb + label))
		w.Close()
		if errors.Is(err, unix.EINVAL) && !strings.Contains(p, "attr/apparmor/") {
			err = ErrUnavailable
		}
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w: %q", ErrNotLoaded, label)
		}
		break
	}
	if err != nil {
		return fmt.Errorf("change AppArmor profile on exec to %q: %w", label, err)
	}
	return nil
}

// Namespaces lists the policy namespaces below parent ("" is the reader's own,
// "a//b" is b below a).
func (f FS) Namespaces(parent string) ([]string, error) {
	entries, err := os.ReadDir(f.namespaceDir(parent))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// CreateNamespace makes a policy namespace; RemoveNamespace removes it with all
// profiles in it.
func (f FS) CreateNamespace(name string) error {
	parent, last := splitNamespace(name)
	return os.Mkdir(f.namespaceDir(parent)+"/"+last, 0o755)
}

// RemoveNamespace removes a policy namespace and the profiles in it.
func (f FS) RemoveNamespace(name string) error {
	parent, last := splitNamespace(name)
	return unix.Rmdir(f.namespaceDir(parent) + "/" + last)
}

func splitNamespace(name string) (parent, last string) {
	if i := strings.LastIndex(name, "//"); i >= 0 {
		return name[:i], name[i+2:]
	}
	return "", name
}

func (f FS) namespaceDir(name string) string {
	p := f.path("policy")
	if name != "" {
		for _, part := range strings.Split(name, "//") {
			p += "/namespaces/" + part
		}
	}
	return p + "/namespaces"
}
