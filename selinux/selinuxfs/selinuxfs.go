// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package selinuxfs talks to the SELinux of the running kernel: its mode, policy
// and booleans, the decisions that it makes, and the labels of processes and files.
//
// An FS is a mounted selinuxfs, and safe for concurrent use. Errors are those of the
// system, with the file: EINVAL for a context or class that the kernel's policy does
// not have, EPERM and EACCES where SELinux or the mode of a file forbids the
// question, ENOENT (fs.ErrNotExist) where the kernel does not run SELinux.
//
// Source: security/selinux/selinuxfs.c.
package selinuxfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mountpoint is where selinuxfs usually is.
const Mountpoint = "/sys/fs/selinux"

// XattrName is the extended attribute that has the label of a file.
const XattrName = "security.selinux"

// FS is a mounted selinuxfs.
type FS struct{ dir string }

// ErrNotSELinux is returned by Open where no selinuxfs is mounted.
var ErrNotSELinux = errors.New("no selinuxfs is mounted")

// Open checks that dir, or [Mountpoint] when it is "", is a selinuxfs.
func Open(dir string) (*FS, error) {
	if dir == "" {
		dir = Mountpoint
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", dir, ErrNotSELinux)
		}
		return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if uint32(st.Type) != unix.SELINUX_MAGIC {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotSELinux)
	}
	return &FS{dir}, nil
}

func (f *FS) path(name ...string) string {
	return filepath.Join(append([]string{f.dir}, name...)...)
}

func (f *FS) number(name ...string) (int, error) {
	path := f.path(name...)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(trim(data))
	if err != nil {
		return 0, fmt.Errorf("%s: want a number, found %q", path, data)
	}
	return n, nil
}

func trim(b []byte) string { return strings.TrimRight(string(b), "\x00\n") }

// write makes one write, which is what selinuxfs takes as one request.
func (f *FS) write(name string, data []byte) error {
	file, err := os.OpenFile(f.path(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// Enforcing reports whether denials are enforced, or only logged.
func (f *FS) Enforcing() (bool, error) {
	n, err := f.number("enforce")
	return n != 0, err
}

func digit(on bool) []byte {
	if on {
		return []byte("1")
	}
	return []byte("0")
}

// MLS reports whether the loaded policy has levels.
func (f *FS) MLS() (bool, error) {
	n, err := f.number("mls")
	return n != 0, err
}

// MaxPolicyVersion returns the highest version of a policy that the kernel takes.
func (f *FS) MaxPolicyVersion() (int, error) { return f.number("policyvers") }

// Policy reads the loaded policy back.
func (f *FS) Policy() ([]byte, error) { return os.ReadFile(f.path("policy")) }

// Load replaces the policy. The kernel takes it whole or not at all.
func (f *FS) Load(policy []byte) error { return f.write("load", policy) }

// Booleans returns the names and the values that are in force.
func (f *FS) Booleans() (map[string]bool, error) {
	entries, err := os.ReadDir(f.path("booleans"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(entries))
	for _, e := range entries {
		data, err := os.ReadFile(f.path("booleans", e.Name()))
		if err != nil {
			return nil, err
		}
		// The value in force, then the pending one.
		out[e.Name()] = bytes.HasPrefix(data, []byte("1"))
	}
	return out, nil
}

// SetBooleans sets booleans together: all of them take effect at once, or, when one
// cannot be set, none; what was pending before is reset.
func (f *FS) SetBooleans(values map[string]bool) error {
	now := map[string]bool{}
	for name := range values {
		if name == "" || strings.Contains(name, "/") || name == "." || name == ".." {
			return fmt.Errorf("%q is no name of a boolean", name)
		}
		data, err := os.ReadFile(f.path("booleans", name))
		if err != nil {
			return err
		}
		now[name] = bytes.HasPrefix(data, []byte("1"))
	}
	for name, v := range values {
		if err := f.write(filepath.Join("booleans", name), digit(v)); err != nil {
			for name, old := range now {
				err = errors.Join(err, f.write(filepath.Join("booleans", name), digit(old)))
			}
			return err
		}
	}
	return f.write("commit_pending_bools", []byte("1"))
}

// Class returns the number that the loaded policy gives to a class.
func (f *FS) Class(name string) (int, error) {
	if name == "" || strings.Contains(name, "/") {
		return 0, fmt.Errorf("%q is no name of a class", name)
	}
	return f.number("class", name, "index")
}

// ask writes a request and reads the answer on the same file.
func (f *FS) ask(name, request string) (string, error) {
	file, err := os.OpenFile(f.path(name), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err := file.Write([]byte(request)); err != nil {
		return "", err
	}
	answer := make([]byte, 4096) // the kernel answers within a page
	n, err := file.Read(answer)
	if err != nil {
		return "", err
	}
	return trim(answer[:n]), nil
}

// Decision is the kernel's answer about access; the bits are permissions of the
// class, numbered from 1 as in class/NAME/perms.
type Decision struct {
	Allowed, Decided, AuditAllow, AuditDeny uint32
	Sequence                                uint32 // counts policies and changes of booleans
	Flags                                   uint32 // 1: the source domain is permissive
}

// Access asks what a context may do to another; class is a number, see [FS.Class].
func (f *FS) Access(source, target string, class int) (Decision, error) {
	var d Decision
	answer, err := f.ask("access", fmt.Sprintf("%s %s %d", source, target, class))
	if err != nil {
		return d, err
	}
	if _, err := fmt.Sscanf(answer, "%x %x %x %x %d %x", &d.Allowed, &d.Decided, &d.AuditAllow, &d.AuditDeny, &d.Sequence, &d.Flags); err != nil {
		return d, fmt.Errorf("%s: answer %q: %w", f.path("access"), answer, err)
	}
	return d, nil
}

// Create asks for the context of a new object of a class, or of a new process. name
// is the last component of its path, or "".
func (f *FS) Create(source, target string, class int, name string) (string, error) {
	request := fmt.Sprintf("%s %s %d", source, target, class)
	if name != "" {
		request += " " + encode(name)
	}
	return f.ask("create", request)
}

// encode writes a file name as the kernel reads it: every byte that could end it is
// a percent sign and two digits.
func encode(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// Member asks for the context of a member of a polyinstantiated object.
func (f *FS) Member(source, target string, class int) (string, error) {
	return f.ask("member", fmt.Sprintf("%s %s %d", source, target, class))
}

// Relabel asks for the context that a user's object gets.
func (f *FS) Relabel(source, target string, class int) (string, error) {
	return f.ask("relabel", fmt.Sprintf("%s %s %d", source, target, class))
}

// Canonical returns a context as the kernel prints it, or an error for one that the
// policy does not allow.
func (f *FS) Canonical(context string) (string, error) { return f.ask("context", context) }

// ProcessContext returns the context of a process; 0 is the caller.
func ProcessContext(pid int) (string, error) {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	data, err := os.ReadFile("/proc/" + who + "/attr/current")
	return trim(data), err
}

// FileContext returns the label of a file; a symbolic link is not followed.
func FileContext(path string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Lgetxattr(path, XattrName, buf)
		switch {
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<16:
			buf = make([]byte, 4*len(buf))
		case err != nil:
			return "", &os.PathError{Op: "lgetxattr", Path: path, Err: err}
		default:
			return trim(buf[:n]), nil
		}
	}
}
