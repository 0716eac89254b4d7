// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/policy"
)

// Version is the version of the records that this package reads and writes. It
// changes with every member that is added, removed or given another meaning.
const Version = 1

var (
	// ErrDamaged says that a container is there and its record, or a file that the
	// record names, cannot be read. What confines it is unknown: nothing may be
	// started in it, and its label stays taken.
	ErrDamaged = errors.New("the record is damaged")
	// errVersion says that a newer Palisade has written a record. It comes with
	// [ErrDamaged].
	errVersion = errors.New("the record is of a newer version of Palisade")
	// ErrUnfinished says that a container's creation was not finished.
	ErrUnfinished = errors.New("the container's creation was not finished")
)

// DamagedError is an [ErrDamaged] of one container.
type DamagedError struct {
	// Key is the container's folder name, Folder its path, File the file in it.
	Key, Folder, File string
	Cause             error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("container %s: %s cannot be read: %v; %s", e.Key, e.File, e.Cause, e.Mend())
}

// Mend says what a person can do about it.
func (e *DamagedError) Mend() string {
	if errors.Is(e.Cause, errVersion) {
		return "use the version of Palisade that wrote it"
	}
	return "stop the container with its engine, then remove the folder " + e.Folder
}

// Unwrap gives [ErrDamaged] and the cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Cause} }

// Record is what is known about one container.
type Record struct {
	Version int `json:"version"`
	// Key is the name of the container's folder, and of the holder of its label. It
	// is set by whatever returns a record.
	Key string `json:"-"`
	ID  string `json:"id"`
	// Engine says who made the container: "palisade" for palisade run, "oci"
	// for an engine that called palisade-oci, "libvirt" for a domain of libvirt's
	// LXC driver.
	Engine string `json:"engine"`
	Policy Policy `json:"policy"`
	// Level is the MCS label that it holds.
	Level   string    `json:"level"`
	Created time.Time `json:"created"`
	Runtime Runtime   `json:"runtime"`
	// Bundle is what the engine handed over, Config the digest of the
	// configuration that the runtime was given instead.
	Bundle Bundle `json:"bundle"`
	Config string `json:"config"`
	// Controller is the process with which a domain of libvirt lives and ends,
	// Init the first process inside.
	Controller *Process `json:"controller"`
	Init       *Process `json:"init"`
	// Image is the root of the unpacked image that it uses, if any.
	Image   string   `json:"image"`
	Command []string `json:"command"`
	// Labelled reports whether content outside the container's own folder carries
	// its label, so that the label must not be given out again.
	Labelled bool `json:"labelled"`
	// Asked is what is to be in force; nil until it has been planned.
	Asked *effective.State `json:"asked"`
	// Step is the digest of what the last step does, Handed the file that it is
	// executed from, as the kernel names it; both are empty without one.
	Step   string        `json:"step"`
	Handed hold.Identity `json:"handed"`
	// HandedConfig is the file that the last step reads what it does from.
	HandedConfig hold.Identity `json:"handed_config"`
	// VerifiedAt is when what is in force was compared with what was asked for,
	// right before the workload's first instruction; zero before that.
	VerifiedAt time.Time `json:"verified_at"`
	// Profile is the container's own AppArmor profile, to be unloaded with it;
	// EngineProfile the one that its engine has asked for.
	Profile       string `json:"profile"`
	EngineProfile string `json:"engine_profile"`
}

// Policy is what of a policy is needed once its container exists.
type Policy struct {
	Name string `json:"name"`
	// Digest is that of the whole policy, in JSON.
	Digest string `json:"digest"`
	// Capabilities and NewPrivileges are what processes may have that are added.
	Capabilities  caps.Set `json:"capabilities"`
	NewPrivileges bool     `json:"new_privileges"`
}

// PolicyOf is what a record keeps of p.
func PolicyOf(p policy.Policy) Policy {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // it holds nothing that cannot be written
	}
	return Policy{Name: p.Name, Digest: Digest(b), Capabilities: p.Capabilities, NewPrivileges: p.Process.NewPrivileges}
}

// ForProcess is a policy for a process that is added to the container: it has the
// record's members and no other.
func (p Policy) ForProcess() policy.Policy {
	return policy.Policy{Name: p.Name, Capabilities: p.Capabilities, Process: policy.Process{NewPrivileges: p.NewPrivileges}}
}

// Runtime is how the OCI runtime that keeps the container is called.
type Runtime struct {
	Path string `json:"path"`
	// Args stand before the command: --root and what else is global.
	Args []string `json:"args"`
	// Root is the folder in which it keeps its containers, absolute; empty for
	// the runtime's default. Namespace is the engine's, if known: of containerd.
	Root      string `json:"root"`
	Namespace string `json:"namespace"`
}

// Bundle is the identity of a bundle's configuration.
type Bundle struct {
	Path string `json:"path"`
	// Dev and Ino are those of config.json, Digest is that of what was read.
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Digest string `json:"digest"`
}

// BundleOf is the identity of the configuration that was read from f as content.
func BundleOf(path string, f *os.File, content []byte) (Bundle, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Bundle{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return Bundle{Path: path, Dev: st.Dev, Ino: st.Ino, Digest: Digest(content)}, nil
}

// Digest is the SHA-256 of b in hexadecimal.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Planned is what is to be in force. The error wraps [ErrUnfinished].
func (r Record) Planned() (effective.State, error) {
	if r.Asked == nil {
		return effective.State{}, fmt.Errorf("container %s: %w", r.Key, ErrUnfinished)
	}
	return *r.Asked, nil
}

// maxRecord bounds a file of a container's folder in bytes.
const maxRecord = 4 << 20

// A sealed record is one JSON object in exactly this form:
//
//	{"version":1,"sha256":"<hexadecimal>","record":<object>}
//
// The digest is over everything but itself.
const (
	sealVersion = `{"version":`
	sealDigest  = `,"sha256":"`
	sealRecord  = `","record":`
	sealEnd     = "}\n"
)

func sealSum(version int, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "palisade record %d\n", version)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func seal(r *Record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, "%s%d%s%s%s%s%s", sealVersion, r.Version, sealDigest, sealSum(r.Version, body), sealRecord, body, sealEnd)
	if len(b) > maxRecord {
		return nil, fmt.Errorf("record of %.64s: %d bytes, want at most %d", r.ID, len(b), maxRecord)
	}
	return b, nil
}

var errSeal = errors.New("its checksum does not fit")

// unseal reads what seal has written, and nothing else.
func unseal(b []byte) (Record, error) {
	rest, ok := bytes.CutPrefix(b, []byte(sealVersion))
	if !ok {
		return Record{}, errors.New("it is not a sealed record")
	}
	number, rest, ok := bytes.Cut(rest, []byte(sealDigest))
	version, err := strconv.Atoi(string(number))
	if !ok || err != nil || version < 1 || strconv.Itoa(version) != string(number) {
		return Record{}, errors.New("it is not a sealed record")
	}
	sum, rest, ok := bytes.Cut(rest, []byte(sealRecord))
	body, end := bytes.CutSuffix(rest, []byte(sealEnd))
	if !ok || !end || sealSum(version, body) != string(sum) {
		return Record{}, errSeal
	}
	if version > Version {
		return Record{}, fmt.Errorf("version %d, want at most %d: %w", version, Version, errVersion)
	}
	if err := checkMembers(body); err != nil {
		return Record{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var r Record
	if err := dec.Decode(&r); err != nil {
		return Record{}, err
	}
	if r.Version != version {
		return Record{}, fmt.Errorf("version %d within version %d", r.Version, version)
	}
	return r, nil
}

// checkMembers refuses what encoding/json would read loosely: a second member of
// a name, and names in another case.
func checkMembers(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		seen map[string]bool // nil in an array
		key  bool            // a name comes next
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			if len(stack) != 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		} else if err != nil {
			return err
		}
		if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if n := len(stack); n > 0 && stack[n-1].seen != nil {
			top := &stack[n-1]
			if name, ok := tok.(string); ok && top.key {
				if strings.ContainsFunc(name, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' }) || top.seen[name] {
					return fmt.Errorf("member %q is unknown or there twice", name)
				}
				top.seen[name], top.key = true, false
				continue
			}
			top.key = true
		} else if n == 0 && dec.InputOffset() > 1 {
			return errors.New("it is more than one value")
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{seen: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, level{})
		}
	}
}

// readBounded reads a file of a container's folder, and follows no link.
func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRecord {
		return nil, fmt.Errorf("not a file of at most %d bytes", maxRecord)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("not a file of at most %d bytes", maxRecord)
	}
	return b, err
}

// Get reads the record of the container with the key, without its lock. The key is
// exact. The error wraps [ErrNotFound] when there is no such folder, [ErrDamaged]
// when there is one.
func (d *Dir) Get(key string) (Record, error) { return d.read(key, recordFile) }

// Claimed is what Get returned when the folder was made. It is a separate file,
// and says where to look when the record is damaged.
func (d *Dir) Claimed(key string) (Record, error) { return d.read(key, claimFile) }

func (d *Dir) read(key, file string) (Record, error) {
	if !ValidKey(key) {
		return Record{}, fmt.Errorf("%.64q: %w", key, ErrNotFound)
	}
	folder := filepath.Join(d.containers(), key)
	b, err := readBounded(filepath.Join(folder, file))
	var r Record
	if err == nil {
		r, err = unseal(b)
	}
	if err == nil && !IsKeyOf(key, r.Runtime.Root, r.ID) {
		err = fmt.Errorf("it is of container %.64q", r.ID)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if _, serr := os.Lstat(folder); errors.Is(serr, fs.ErrNotExist) {
				return Record{}, fmt.Errorf("%.64q: %w", key, ErrNotFound)
			}
		}
		return Record{}, &DamagedError{Key: key, Folder: folder, File: file, Cause: err}
	}
	r.Key = key
	return r, nil
}
