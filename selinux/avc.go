// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"strconv"
	"strings"
)

// AVC is one access vector cache message of the kernel or of a user-space object
// manager, as audit, dmesg and the journal show it:
//
//	avc:  denied  { read write } for  pid=1 comm="cat" … scontext=… tcontext=… tclass=file permissive=0
type AVC struct {
	Granted     bool // "granted", by an auditallow rule
	Permissions []string
	Source      string // scontext
	Target      string // tcontext
	Class       string // tclass
	Permissive  bool
	// Ioctl is the number of a denied ioctl when HasIoctl is set.
	Ioctl    uint16
	HasIoctl bool

	// What the message says about the process and the object, where it does.
	PID  int
	Comm string
	Path string // path, or name where there is no path
}

// ErrNotAVC is returned for text without an AVC message.
var ErrNotAVC = errors.New("no AVC message")

// ParseAVC reads the AVC message in a line of a log; whatever stands before it
// does not count. Text without one is [ErrNotAVC]; a message that lacks its
// contexts, class or permissions is a [*SyntaxError].
//
// Source: security/selinux/avc.c, avc_audit_pre_callback, avc_audit_post_callback.
func ParseAVC(line string) (AVC, error) {
	at := strings.Index(line, "avc:")
	if at < 0 {
		return AVC{}, ErrNotAVC
	}
	fail := func(offset int, expected, found string) (AVC, error) {
		return AVC{}, &SyntaxError{Kind: "AVC message", Text: line, Offset: offset, Expected: expected, Found: found}
	}
	var a AVC
	rest := strings.TrimLeft(line[at+len("avc:"):], " \t")
	verdict, rest, _ := strings.Cut(rest, " ")
	switch verdict {
	case "denied":
	case "granted":
		a.Granted = true
	case "":
		return AVC{}, ErrNotAVC
	default:
		// "avc: received policyload notice" and the like.
		return AVC{}, ErrNotAVC
	}
	offset := len(line) - len(rest)
	perms, rest, ok := strings.Cut(rest, "}")
	perms = strings.TrimSpace(perms)
	if !ok || !strings.HasPrefix(perms, "{") {
		return fail(offset, "permissions in braces", line[offset:])
	}
	a.Permissions = strings.Fields(perms[1:])
	if len(a.Permissions) == 0 {
		return fail(offset, "at least one permission", "none")
	}
	a.fields(rest)
	for _, f := range [...]struct{ name, value string }{{"scontext=", a.Source}, {"tcontext=", a.Target}, {"tclass=", a.Class}} {
		if f.value == "" {
			return fail(len(line), f.name, "")
		}
	}
	return a, nil
}

// fields reads the name=value pairs behind the permissions.
func (a *AVC) fields(text string) {
	name := ""
	for {
		key, value, rest, ok := nextField(text)
		if !ok {
			break
		}
		text = rest
		switch key {
		case "scontext":
			a.Source = value
		case "tcontext":
			a.Target = value
		case "tclass":
			a.Class = value
		case "permissive":
			a.Permissive = value == "1"
		case "pid":
			a.PID, _ = strconv.Atoi(value)
		case "comm":
			a.Comm = value
		case "path":
			a.Path = value
		case "name":
			name = value
		case "ioctlcmd":
			if n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 32); err == nil {
				// The kernel prints the low half; a longer number has it there too.
				a.Ioctl, a.HasIoctl = uint16(n), true
			}
		}
	}
	if a.Path == "" {
		a.Path = name
	}
}

// nextField takes the next name=value off the text. Values may be quoted; the
// kernel writes what would not be safe in quotes as hexadecimal.
func nextField(text string) (key, value, rest string, ok bool) {
	for {
		text = strings.TrimLeft(text, " \t\r\n'\x1d")
		if text == "" {
			return "", "", "", false
		}
		word := text
		if i := strings.IndexAny(text, " \t\r\n\x1d"); i >= 0 {
			word = text[:i]
		}
		eq := strings.IndexByte(word, '=')
		if eq < 0 {
			text = text[len(word):]
			continue
		}
		key = word[:eq]
		after := text[eq+1:]
		if strings.HasPrefix(after, `"`) {
			if end := strings.IndexByte(after[1:], '"'); end >= 0 {
				return key, after[1 : 1+end], after[end+2:], true
			}
		}
		value = strings.TrimRight(word[eq+1:], "'")
		return key, value, text[len(word):], true
	}
}
