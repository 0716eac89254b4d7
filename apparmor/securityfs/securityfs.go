// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package securityfs speaks with AppArmor in the running kernel: it loads,
// replaces and removes profiles, reads what is loaded, asks for decisions, and
// labels processes.
//
// Loading needs CAP_MAC_ADMIN in the user namespace of the policy namespace and
// a task that no profile confines; see [ErrDenied].
//
// Source: security/apparmor/apparmorfs.c, procattr.c.
package securityfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/apparmor"
)

// Root is where the kernel mounts its interface.
const Root = "/sys/kernel/security/apparmor"

// Errors to test for.
var (
	// ErrUnavailable: the kernel has no AppArmor, or it is off, or securityfs is
	// not mounted.
	ErrUnavailable = errors.New("AppArmor is not available in the running kernel")
	// ErrDenied: the task may not change policy.
	ErrDenied = errors.New("not allowed to change AppArmor policy")
	// ErrNotLoaded: no such profile.
	ErrNotLoaded = errors.New("profile is not loaded")
	// ErrExists: Load of a profile that is there.
	ErrExists = errors.New("profile is already loaded")
)

// FS is the interface below a directory; the zero value is that of the kernel.
type FS struct {
	Dir  string // Root when empty
	Proc string // /proc when empty
}

func (f FS) path(parts ...string) string {
	dir := f.Dir
	if dir == "" {
		dir = Root
	}
	return filepath.Join(append([]string{dir}, parts...)...)
}

func (f FS) proc(parts ...string) string {
	dir := f.Proc
	if dir == "" {
		dir = "/proc"
	}
	return filepath.Join(append([]string{dir}, parts...)...)
}

// Available tells whether the kernel enforces AppArmor; the error says why not.
func (f FS) Available() error {
	if _, err := os.Stat(f.path("features")); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if b, perr := os.ReadFile("/sys/module/apparmor/parameters/enabled"); perr != nil || !bytes.HasPrefix(b, []byte("Y")) {
			return fmt.Errorf("%w: it is not enabled", ErrUnavailable)
		}
		return fmt.Errorf("%w: %s is not there; is securityfs mounted?", ErrUnavailable, f.path())
	}
	return nil
}

// maxFeature bounds one file of the features tree.
const maxFeature = 64 << 10

// Features reads what the kernel supports.
func (f FS) Features() (*apparmor.Features, error) {
	if err := f.Available(); err != nil {
		return nil, err
	}
	leaves := map[string]string{}
	root := f.path("features")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			leaves[rel+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		leaves[rel] = string(b[:min(len(b), maxFeature)])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return apparmor.NewFeatures(leaves), nil
}

// LoadError says why the kernel refused policy.
type LoadError struct {
	Op      string // load, replace, remove
	Profile string // of the kernel's message, "" when it named none
	Info    string // the kernel's reason, "" when it gave none
	Offset  int    // in the policy, −1 when the kernel named none
	Err     error
}

func (e *LoadError) Error() string {
	s := e.Op + " policy: " + e.Err.Error()
	if e.Profile != "" {
		s = fmt.Sprintf("%s profile %q: %s", e.Op, e.Profile, e.Err)
	}
	if e.Info != "" {
		s += ": " + e.Info
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" (at byte %d of the policy)", e.Offset)
	}
	return s
}

// Unwrap gives the cause: ErrDenied and the like, or an errno.
func (e *LoadError) Unwrap() error { return e.Err }

// Load adds profiles; one that is loaded already is ErrExists. The kernel
// takes all profiles of one write or none.
func (f FS) Load(policy []byte) error { return f.write("load", ".load", policy) }

// Replace adds profiles or replaces those with their names; tasks under the
// old ones move to the new ones.
func (f FS) Replace(policy []byte) error { return f.write("replace", ".replace", policy) }

// Remove takes a profile away, with its hats and children. Tasks under it
// become unconfined.
func (f FS) Remove(name string) error {
	err := f.write("remove", ".remove", []byte(name))
	var le *LoadError
	if errors.As(err, &le) {
		le.Profile = name
	}
	return err
}

func (f FS) write(op, file string, data []byte) error {
	if err := f.Available(); err != nil {
		return err
	}
	log := openKernelLog()
	defer log.close()
	w, err := os.OpenFile(f.path(file), os.O_WRONLY, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return &LoadError{Op: op, Offset: -1, Err: ErrDenied}
		}
		return err
	}
	defer w.Close()
	// The kernel takes policy only whole, from offset 0: one system call, no
	// retries in pieces.
	n, err := unix.Write(int(w.Fd()), data)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(int(w.Fd()), data)
	}
	if err == nil {
		if n != len(data) {
			return fmt.Errorf("%s policy: the kernel took %d of %d bytes", op, n, len(data))
		}
		return nil
	}
	le := &LoadError{Op: op, Offset: -1, Err: err}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		le.Err = ErrDenied
	case errors.Is(err, unix.EEXIST):
		le.Err = ErrExists
	case errors.Is(err, unix.ENOENT):
		le.Err = ErrNotLoaded
	case errors.Is(err, unix.EPROTO):
		le.Err = errors.New("the policy does not have the form that this kernel reads")
	case errors.Is(err, unix.EPROTONOSUPPORT):
		le.Err = errors.New("this kernel does not know the version of the policy")
	}
	log.explain(le)
	return le
}

// kernelLog finds what the kernel said about a refused policy.
type kernelLog struct{ fd int }

func openKernelLog() kernelLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kernelLog{-1}
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return kernelLog{-1}
	}
	return kernelLog{fd}
}

func (k kernelLog) close() {
	if k.fd >= 0 {
		unix.Close(k.fd)
	}
}

func (k kernelLog) explain(e *LoadError) {
	if k.fd < 0 {
		return
	}
	buf := make([]byte, 8192)
	deadline := time.Now().Add(logWait)
	for e.Info == "" {
		n, err := unix.Read(k.fd, buf)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // records were overwritten, or a signal came
		case errors.Is(err, unix.EAGAIN):
			// The audit thread writes the record a moment after the refusal.
			left := time.Until(deadline)
			if left <= 0 {
				return
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			continue
		case err != nil || n <= 0:
			return
		}
		line := string(buf[:n])
		if !strings.Contains(line, `apparmor="STATUS"`) || field(line, "pid") != strconv.Itoa(unix.Gettid()) && field(line, "pid") != strconv.Itoa(os.Getpid()) {
			continue
		}
		if v := field(line, "info"); v != "" {
			e.Info = v
			if n := field(line, "name"); n != "" && n != "unknown" {
				e.Profile = n
			}
			if o, err := strconv.Atoi(field(line, "offset")); err == nil {
				e.Offset = o
			}
		}
	}
}

// logWait is how long a refusal waits for the kernel's reason to be logged.
const logWait = 200 * time.Millisecond

// field reads key="value" or key=value of an audit line.
func field(line, key string) string {
	i := strings.Index(line, " "+key+"=")
	if i < 0 {
		return ""
	}
	v := line[i+len(key)+2:]
	if strings.HasPrefix(v, `"`) {
		v, _, _ = strings.Cut(v[1:], `"`)
		return v
	}
	if i := strings.IndexAny(v, " \n;"); i >= 0 {
		v = v[:i]
	}
	return v
}

// Profile is one loaded profile.
type Profile struct {
	Name string // with namespace, as labels spell it
	Mode string // enforce, complain, kill, unconfined, prompt
}

// Profiles lists the loaded profiles, sorted by name.
func (f FS) Profiles() ([]Profile, error) {
	if err := f.Available(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(f.path("profiles"))
	if err != nil {
		return nil, err
	}
	var out []Profile
	for line := range strings.Lines(string(b)) {
		name, mode := splitMode(strings.TrimSuffix(line, "\n"))
		if name != "" {
			out = append(out, Profile{name, mode})
		}
	}
	slices.SortFunc(out, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// splitMode takes "label (mode)" apart.
func splitMode(s string) (label, mode string) {
	if i := strings.LastIndex(s, " ("); i >= 0 && strings.HasSuffix(s, ")") {
		return s[:i], s[i+2 : len(s)-1]
	}
	return s, ""
}

// RawData returns the policy that a loaded profile came from: all profiles of
// that write. It needs a kernel that keeps it (parameter export_binary).
func (f FS) RawData(name string) ([]byte, error) {
	if err := f.Available(); err != nil {
		return nil, err
	}
	dir, err := f.profileDir(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "raw_data"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("profile %q: the kernel does not keep the policy that was loaded", name)
	}
	return b, err
}

// profileDir finds the directory of a loaded profile. Names with a namespace
// are below that namespace's directory, children below their parents'.
func (f FS) profileDir(name string) (string, error) {
	root := f.path("policy")
	if strings.HasPrefix(name, ":") {
		ns, rest, ok := strings.Cut(name[1:], ":")
		if !ok {
			return "", fmt.Errorf("%w: %q", ErrNotLoaded, name)
		}
		for _, part := range strings.Split(ns, "//") {
			root = filepath.Join(root, "namespaces", part)
		}
		name = strings.TrimPrefix(rest, "//")
	}
	at := root
	for _, local := range strings.Split(name, "//") {
		entries, err := os.ReadDir(filepath.Join(at, "profiles"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		found := ""
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(at, "profiles", e.Name(), "name"))
			if err != nil {
				continue
			}
			n := strings.TrimSuffix(string(b), "\n")
			if n == local || strings.HasSuffix(n, "//"+local) {
				found = filepath.Join(at, "profiles", e.Name())
			}
		}
		if found == "" {
			return "", fmt.Errorf("%w: %q", ErrNotLoaded, name)
		}
		at = found
	}
	return at, nil
}

// Access is a decision of the kernel.
type Access struct{ Allow, Deny, Audit, Quiet uint32 }

// Querier asks the kernel for decisions. Not safe for concurrent use.
type Querier struct {
	f   *os.File
	buf []byte
}

// Query opens the interface for decisions.
func (f FS) Query() (*Querier, error) {
	if err := f.Available(); err != nil {
		return nil, err
	}
	q, err := os.OpenFile(f.path(".access"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Querier{f: q}, nil
}

// Close ends the queries.
func (q *Querier) Close() error { return q.f.Close() }

// Ask gives the kernel's decision on a query: the class byte and the match
// string of the class. The label is a loaded profile or a stack of them. Of a
// stack across namespaces only the profiles of the innermost one are asked, which
// is what a task under it can see; [Querier.AskAll] asks all.
func (q *Querier) Ask(label string, query []byte) (Access, error) {
	return q.ask("label", label, query)
}

// AskAll is Ask about all profiles of a stack, whatever their namespaces: what the
// kernel enforces on a task under it.
func (q *Querier) AskAll(label string, query []byte) (Access, error) {
	return q.ask("labelall", label, query)
}

func (q *Querier) ask(command, label string, query []byte) (Access, error) {
	q.buf = append(append(q.buf[:0], command...), 0)
	q.buf = append(append(q.buf, label...), 0)
	q.buf = append(q.buf, query...)
	var a Access
	// Each query is one transaction, from offset 0.
	if _, err := q.f.WriteAt(q.buf, 0); err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w: %q", ErrNotLoaded, label)
		}
		return a, err
	}
	var out [256]byte
	n, err := q.f.ReadAt(out[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return a, err
	}
	_, err = fmt.Sscanf(string(out[:n]), "allow %v\ndeny %v\naudit %v\nquiet %v\n", &a.Allow, &a.Deny, &a.Audit, &a.Quiet)
	return a, err
}
