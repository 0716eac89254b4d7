// SPDX-License-Identifier: Apache-2.0

// Package session keeps what a shielded program needs and may only get once its
// identity was verified: volume keys and roots, secrets, arguments, environment,
// files. A session says which measurement on which platform may have it.
//
// The service speaks HTTP over TLS 1.3 with client keys. Owners are known by
// their key. A program proves what it is with evidence whose REPORTDATA binds
// the key of its own TLS connection and a nonce of the service, so that evidence
// of one program is of no use to another. Generations of volumes only go up.
// State is sealed at rest; every decision is in an audit log that cannot be
// changed unnoticed. The simulation is refused unless both the service and the
// session allow it.
package session

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/palisade-sec/palisade/shield/attest"
	"github.com/palisade-sec/palisade/shield/sealfs"
)

// Session is a session as its owner writes it.
type Session struct {
	Name        string            `yaml:"name" json:"name"`
	Predecessor string            `yaml:"predecessor,omitempty" json:"predecessor,omitempty"` // hash of the session that this one replaces
	Attestation Attestation       `yaml:"attestation" json:"attestation"`
	Args        []string          `yaml:"args,omitempty" json:"args,omitempty"`
	Environment map[string]string `yaml:"environment,omitempty" json:"environment,omitempty"`
	Files       []File            `yaml:"files,omitempty" json:"files,omitempty"`
	Secrets     []Secret          `yaml:"secrets,omitempty" json:"secrets,omitempty"`
	Volumes     []Volume          `yaml:"volumes,omitempty" json:"volumes,omitempty"`
	Access      Access            `yaml:"access" json:"access"`
}

// Attestation says which programs on which platforms may have the session.
type Attestation struct {
	TEE                    []attest.TEE   `yaml:"tee" json:"tee"`
	Measurements           []string       `yaml:"measurements" json:"measurements"`
	Signers                []string       `yaml:"signers,omitempty" json:"signers,omitempty"`
	MinSVN                 uint64         `yaml:"min_svn,omitempty" json:"min_svn,omitempty"`
	AcceptTCB              []string       `yaml:"accept_tcb,omitempty" json:"accept_tcb,omitempty"`
	MinTCBNumber           uint32         `yaml:"min_tcb_evaluation_number,omitempty" json:"min_tcb_evaluation_number,omitempty"`
	SNPMinTCB              *attest.SNPTCB `yaml:"snp_min_tcb,omitempty" json:"snp_min_tcb,omitempty"`
	MaxVMPL                uint32         `yaml:"max_vmpl,omitempty" json:"max_vmpl,omitempty"`
	Platforms              []string       `yaml:"platforms,omitempty" json:"platforms,omitempty"` // PPID or CHIP_ID in hex; empty: any
	AllowDebug             bool           `yaml:"allow_debug,omitempty" json:"allow_debug,omitempty"`
	AllowMissingCollateral bool           `yaml:"allow_missing_collateral,omitempty" json:"allow_missing_collateral,omitempty"`
	AllowInsecureSim       bool           `yaml:"allow_insecure_sim,omitempty" json:"allow_insecure_sim,omitempty"`
}

// Policy is what attest.Verify is to ask, the key's binding aside.
func (a *Attestation) Policy() attest.Policy {
	p := attest.Policy{
		TEEs: a.TEE, Measurements: a.Measurements, Signers: a.Signers, MinSVN: a.MinSVN, AcceptTCB: a.AcceptTCB, MinTCBNumber: a.MinTCBNumber,
		MaxVMPL: a.MaxVMPL, AllowDebug: a.AllowDebug, AllowMissingCollateral: a.AllowMissingCollateral, AllowSim: a.AllowInsecureSim,
	}
	if a.SNPMinTCB != nil {
		p.MinSNPTCB = *a.SNPMinTCB
	}
	return p
}

// File is a file that is injected into the program's file system.
type File struct {
	Path    string `yaml:"path" json:"path"`
	Content string `yaml:"content" json:"content"`
	Mode    uint32 `yaml:"mode,omitempty" json:"mode,omitempty"` // default 0400
}

// Secret is a value that only attested programs get. Either Value or Generate is given.
type Secret struct {
	Name     string `yaml:"name" json:"name"`
	Kind     string `yaml:"kind,omitempty" json:"kind,omitempty"`         // how Value is written: text (default), hex, base64
	Value    string `yaml:"value,omitempty" json:"value,omitempty"`       //
	Generate int    `yaml:"generate,omitempty" json:"generate,omitempty"` // make this many random bytes when the session is created
}

// Volume is a sealed volume that the program mounts.
type Volume struct {
	Name string `yaml:"name" json:"name"`
	Path string `yaml:"path" json:"path"`
	Key  string `yaml:"key" json:"key"`                       // name of the secret that holds its 32 bytes
	Root string `yaml:"root,omitempty" json:"root,omitempty"` // GENERATION:DIGEST, as seal prints it
}

// Access says which keys may read and change the session: the SHA-256 of their
// public keys in hex. Nobody else can, the service's administrators included.
type Access struct {
	Read   []string `yaml:"read,omitempty" json:"read,omitempty"`
	Update []string `yaml:"update" json:"update"`
}

// Bounds of a session.
const (
	maxSession = 1 << 20
	maxSecrets = 1000
	maxKeys    = 4096 // of one mapping
)

var (
	nameRE   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`) })
	secretRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\$\$secret:([A-Za-z0-9._-]+)\$\$`) })
	keyRE    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{64}$`) })
)

// Parse reads a session in YAML and reports everything that is wrong with it, each
// with its line.
func Parse(b []byte) (*Session, error) {
	if len(b) > maxSession {
		return nil, fmt.Errorf("session of %d bytes, at most %d", len(b), maxSession)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if n := wideMapping(&doc); n != nil {
		return nil, fmt.Errorf("line %d: %d keys, at most %d", n.Line, len(n.Content)/2, maxKeys)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	var s Session
	if err := d.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("session is empty")
		}
		return nil, err
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("session: more than one document")
	}
	list := s.faults()
	if len(list) == 0 {
		return &s, nil
	}
	line := func(f fault) int { return lineOf(&doc, f.at) }
	slices.SortStableFunc(list, func(a, b fault) int {
		return cmp.Or(cmp.Compare(line(a), line(b)), strings.Compare(a.err.Error(), b.err.Error()))
	})
	var errs []error
	for _, f := range list {
		errs = append(errs, fmt.Errorf("line %d: %w", line(f), f.err))
	}
	return nil, errors.Join(errs...)
}

// wideMapping finds a mapping with too many keys: decoding compares each with each.
func wideMapping(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.MappingNode && len(n.Content) > 2*maxKeys {
		return n
	}
	for _, c := range n.Content {
		if wide := wideMapping(c); wide != nil {
			return wide
		}
	}
	return nil
}

// fault is something that is wrong with a session, and where: keys and indices.
type fault struct {
	at  []any
	err error
}

// lineOf finds the line of a place in a document, or of what would hold it.
func lineOf(n *yaml.Node, at []any) int {
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
		return lineOf(n.Content[0], at)
	case n.Kind == yaml.AliasNode:
		return n.Line
	case len(at) == 0:
		return n.Line
	}
	switch key := at[0].(type) {
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				if len(at) == 1 {
					return n.Content[i].Line
				}
				return lineOf(n.Content[i+1], at[1:])
			}
		}
	case int:
		if n.Kind == yaml.SequenceNode && key < len(n.Content) {
			return lineOf(n.Content[key], at[1:])
		}
	}
	return n.Line
}

// Validate reports everything that is wrong with a session.
func (s *Session) Validate() error {
	var errs []error
	for _, f := range s.faults() {
		errs = append(errs, f.err)
	}
	return errors.Join(errs...)
}

func (s *Session) faults() []fault {
	var list []fault
	object := func(at []any, format string, args ...any) {
		list = append(list, fault{at, fmt.Errorf(format, args...)})
	}
	place := func(at ...any) []any { return at }
	if !nameRE().MatchString(s.Name) {
		object(place("name"), "name %q: want letters, digits, '.', '_' and '-', at most 128", s.Name)
	}
	if s.Predecessor != "" && !keyRE().MatchString(s.Predecessor) {
		object(place("predecessor"), "predecessor: want the 64 hexadecimal digits of a session's hash")
	}
	a := &s.Attestation
	if len(a.TEE) == 0 {
		object(place("attestation", "tee"), "attestation.tee: name at least one of sgx, tdx, sev-snp, sim")
	}
	for i, t := range a.TEE {
		if !slices.Contains([]attest.TEE{attest.SGX, attest.TDX, attest.SNP, attest.Sim}, t) {
			object(place("attestation", "tee", i), "attestation.tee: %q is none of sgx, tdx, sev-snp, sim", t)
		}
		if t == attest.Sim && !a.AllowInsecureSim {
			object(place("attestation", "tee", i), "attestation.tee: sim protects nothing from its host; allow_insecure_sim: true is needed with it")
		}
	}
	if len(a.Measurements) == 0 && len(a.Signers) == 0 {
		object(place("attestation", "measurements"), "attestation: name at least one of measurements and signers: without, any program would get the secrets")
	}
	for key, digests := range map[string][]string{"measurements": a.Measurements, "signers": a.Signers} {
		for i, m := range digests {
			if b, err := hex.DecodeString(m); err != nil || len(b) != 32 && len(b) != 48 {
				object(place("attestation", key, i), "attestation.%s: %q is not 32 or 48 bytes in hexadecimal", key, m)
			}
		}
	}
	secrets := map[string]int{} // length, -1 when it is not known before the session is made
	if len(s.Secrets) > maxSecrets {
		object(place("secrets"), "%d secrets, at most %d", len(s.Secrets), maxSecrets)
	}
	for i, x := range s.Secrets {
		_, twice := secrets[x.Name]
		switch {
		case !nameRE().MatchString(x.Name):
			object(place("secrets", i), "secret %q: bad name", x.Name)
		case twice:
			object(place("secrets", i), "secret %s is given twice", x.Name)
		case (x.Value == "") == (x.Generate == 0):
			object(place("secrets", i), "secret %s: give either value or generate", x.Name)
		case x.Generate < 0 || x.Generate > 4096:
			object(place("secrets", i), "secret %s: generate 1 to 4096 bytes", x.Name)
		}
		secrets[x.Name] = x.Generate
		if x.Value != "" {
			b, err := x.bytes()
			if err != nil {
				object(place("secrets", i), "secret %s: %w", x.Name, err)
			}
			secrets[x.Name] = len(b)
		}
	}
	refs := func(at []any, where, text string) {
		for _, m := range secretRE().FindAllStringSubmatch(text, -1) {
			if _, ok := secrets[m[1]]; !ok {
				object(at, "%s: no secret %s", where, m[1])
			}
		}
	}
	for i, x := range s.Args {
		refs(place("args", i), fmt.Sprintf("args[%d]", i), x)
	}
	for k, x := range s.Environment {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			object(place("environment", k), "environment: bad name %q", k)
		}
		refs(place("environment", k), "environment "+k, x)
	}
	for i, f := range s.Files {
		if !strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || f.Path == "/" {
			object(place("files", i), "file %q: want a clean absolute path", f.Path)
		}
		if f.Mode&^0o7777 != 0 {
			object(place("files", i), "file %s: mode %#o", f.Path, f.Mode)
		}
		refs(place("files", i, "content"), "file "+f.Path, f.Content)
	}
	names, paths := map[string]bool{}, map[string]string{}
	for i, v := range s.Volumes {
		n, ok := secrets[v.Key]
		switch {
		case !nameRE().MatchString(v.Name):
			object(place("volumes", i), "volume %q: bad name", v.Name)
		case names[v.Name]:
			object(place("volumes", i), "volume %s is given twice", v.Name)
		case !strings.HasPrefix(v.Path, "/") || path.Clean(v.Path) != v.Path:
			object(place("volumes", i), "volume %s: path %q: want a clean absolute path", v.Name, v.Path)
		case paths[v.Path] != "":
			object(place("volumes", i, "path"), "volumes %s and %s are both at %s", paths[v.Path], v.Name, v.Path)
		case !ok:
			object(place("volumes", i), "volume %s: key %q is no secret of the session", v.Name, v.Key)
		case n != sealfs.KeySize:
			object(place("volumes", i), "volume %s: secret %s is %d bytes, a key is %d", v.Name, v.Key, n, sealfs.KeySize)
		}
		names[v.Name], paths[v.Path] = true, cmp.Or(paths[v.Path], v.Name)
		if v.Root != "" {
			if _, err := ParseRoot(v.Root); err != nil {
				object(place("volumes", i), "volume %s: %w", v.Name, err)
			}
		}
	}
	if len(s.Access.Update) == 0 {
		object(place("access", "update"), "access.update: name at least one key, or nobody could ever change the session")
	}
	for key, keys := range map[string][]string{"update": s.Access.Update, "read": s.Access.Read} {
		for i, k := range keys {
			if !keyRE().MatchString(k) {
				object(place("access", key, i), "access.%s: %q is not a key's fingerprint (64 hexadecimal digits)", key, k)
			}
		}
	}
	return list
}

func (x *Secret) bytes() ([]byte, error) {
	switch x.Kind {
	case "", "text":
		return []byte(x.Value), nil
	case "hex":
		return hex.DecodeString(x.Value)
	case "base64":
		return base64.StdEncoding.DecodeString(x.Value)
	}
	return nil, fmt.Errorf("kind %q: want text, hex or base64", x.Kind)
}

// Hash names a session: SHA-256 of its canonical JSON. Two sessions that say the
// same have the same hash, however they were written.
func (s *Session) Hash() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // no type in it can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// redacted is the session without the values of its secrets.
func (s *Session) redacted() *Session {
	c := *s
	c.Secrets = slices.Clone(s.Secrets)
	for i := range c.Secrets {
		if c.Secrets[i].Value != "" {
			c.Secrets[i].Value = "(not shown)"
		}
	}
	return &c
}

// ParseRoot reads GENERATION:DIGEST.
func ParseRoot(s string) (sealfs.Root, error) {
	var r sealfs.Root
	var digest string
	if _, err := fmt.Sscanf(s, "%d:%s", &r.Generation, &digest); err != nil {
		return r, fmt.Errorf("root %q: want GENERATION:DIGEST", s)
	}
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != len(r.Digest) || r.Generation == 0 {
		return r, fmt.Errorf("root %q: want GENERATION:DIGEST, the digest 64 hexadecimal digits", s)
	}
	copy(r.Digest[:], b)
	return r, nil
}

// Config is what an attested program gets.
type Config struct {
	Session     string            `json:"session"`
	Hash        string            `json:"hash"`
	Taint       string            `json:"taint,omitempty"` // "sim": the secrets in here were given to a simulation
	Args        []string          `json:"args,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	Files       []ConfigFile      `json:"files,omitempty"`
	Secrets     map[string][]byte `json:"secrets,omitempty"`
	Volumes     []ConfigVolume    `json:"volumes,omitempty"`
}

// ConfigFile is an injected file.
type ConfigFile struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
	Mode    uint32 `json:"mode"`
}

// ConfigVolume is a volume with its key and the state it must not be older than.
type ConfigVolume struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Key  []byte `json:"key"`
	Root string `json:"root,omitempty"`
}

// config fills the session's templates. Generated secrets stand in text as
// hexadecimal digits.
func (r *record) config(taint string) *Config {
	s := &r.Session
	text := map[string]string{}
	for _, x := range s.Secrets {
		text[x.Name] = string(r.Secrets[x.Name])
		if x.Generate > 0 {
			text[x.Name] = hex.EncodeToString(r.Secrets[x.Name])
		}
	}
	expand := func(t string) string {
		return secretRE().ReplaceAllStringFunc(t, func(m string) string { return text[secretRE().FindStringSubmatch(m)[1]] })
	}
	c := &Config{Session: s.Name, Hash: r.Hash, Taint: taint, Secrets: r.Secrets}
	for _, a := range s.Args {
		c.Args = append(c.Args, expand(a))
	}
	if len(s.Environment) > 0 {
		c.Environment = map[string]string{}
		for k, v := range s.Environment {
			c.Environment[k] = expand(v)
		}
	}
	for _, f := range s.Files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o400
		}
		c.Files = append(c.Files, ConfigFile{f.Path, []byte(expand(f.Content)), mode})
	}
	for _, v := range s.Volumes {
		c.Volumes = append(c.Volumes, ConfigVolume{v.Name, v.Path, r.Secrets[v.Key], r.Roots[v.Name]})
	}
	return c
}
