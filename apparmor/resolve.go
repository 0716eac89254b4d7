// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/diag"
)

// Env is what resolving needs from outside.
type Env struct {
	// FS holds the files that includes and abi statements name. Names are slash
	// paths from the root of FS, without a leading slash: "/etc/apparmor.d/x" is
	// opened as "etc/apparmor.d/x". nil means that there are no files but those
	// that the package brings along.
	FS fs.FS
	// Search are the directories for <path>, in order, as paths in FS.
	Search []string
	// Dir is the directory that "path" and a bare path are relative to.
	Dir string
	// Kernel are the features of the kernel that the policy is for: they answer
	// "abi <kernel>", and a glob is checked only in rules of classes that the
	// kernel and the policy's abi both have, as the parser does it. nil checks
	// everything.
	Kernel *Features
	// ABI is the feature set of a policy that declares no abi; nil is
	// [DefaultFeatures]. The parser's --features-file sets both Kernel and ABI.
	ABI *Features
	// NoBuiltin turns off the abi files and abstractions that the package brings
	// along for names that Search does not have.
	NoBuiltin bool
	// SkipExecCheck leaves out [CheckExec], for a caller that compiles what comes
	// out: building the file automaton finds the same conflicts.
	SkipExecCheck bool
}

// Bounds of resolving: how deep files may include each other and profiles nest,
// and how many rules one profile may have, those that aliases add included.
const (
	maxInclude = 64
	maxRules   = 1 << 20
)

// Resolve turns a parsed file into the profiles that a compiler needs. The list
// holds every error found, and warnings; the policy is nil when one of them is
// an error.
//
// Includes are looked up in Env.Search, and each is taken once per profile, as
// the parser does. Source: parser/parser_lex.l, include_filename;
// parser/parser_policy.c, post_process_profile.
func Resolve(file *File, env Env) (*Policy, diag.List) {
	r := &resolver{
		env:    env,
		policy: &Policy{Files: []*File{file}},
		vars:   &variableSet{m: map[string]*variableValue{}},
		parsed: map[string]*File{},
		once:   map[string]bool{},
	}
	r.preamble(file.Items)
	if r.policy.ABI == nil {
		if r.policy.ABI = env.ABI; r.policy.ABI == nil {
			r.policy.ABI = DefaultFeatures()
		}
	}
	r.finish()
	if file.Broken && !r.diags.HasErrors() {
		r.errorf(file.Span(), "AA-BROKEN", "the file has syntax errors")
	}
	if r.diags.HasErrors() {
		return nil, r.diags
	}
	return r.policy, r.diags
}

type resolver struct {
	env    Env
	diags  diag.List
	policy *Policy
	vars   *variableSet
	alias  []aliasRule
	parsed map[string]*File
	once   map[string]bool // the include cache of the current scope
	via    []diag.Span     // include statements that led here

	profiles    []*profileDraft
	seenProfile bool
	nested      int
}

type aliasRule struct{ from, to string }

// profileDraft is a profile whose variables are not expanded yet.
type profileDraft struct {
	decl     *Profile
	via      []diag.Span
	ns, name string // as written, before variables are replaced
	flags    ProfileFlags
	body     blockBody
}

// ofNames are the errors that a declaration that could not be read brings about.
var ofNames = map[string]bool{"AA-VARIABLE": true, "AA-VAR-UNDECLARED": true, "AA-CONDITION": true}

func (r *resolver) errorf(at diag.Span, code, format string, args ...any) {
	if r.policy.Files[0].Broken && ofNames[code] {
		return
	}
	switch {
	case len(r.diags) < maxErrors:
		r.diags.Errorf(at, code, format, args...)
	case len(r.diags) == maxErrors:
		r.diags.Errorf(at, "AA-TOO-MANY", "too many errors; the rest is not reported")
	}
	if n := len(r.diags); n <= maxErrors && len(r.via) > 0 {
		d := &r.diags[n-1]
		for i := len(r.via) - 1; i >= 0; i-- {
			d.Related = append(d.Related, diag.Related{Span: r.via[i], Message: "included here"})
		}
	}
}

func (r *resolver) warnf(at diag.Span, code, format string, args ...any) {
	if len(r.diags) < maxErrors {
		r.diags.Warnf(at, code, format, args...)
	}
}

// preamble goes through the items at the top of a file.
func (r *resolver) preamble(items []Item) {
	for _, it := range items {
		switch it := it.(type) {
		case *Comment:
		case *Include:
			r.include(it, func(f *File) { r.preamble(f.Items) })
		case *Profile:
			r.seenProfile = true
			d := r.profile(it, nil)
			if d == nil {
				continue
			}
			if dup := findDraft(r.profiles, d); dup != nil {
				r.duplicate("profile", d, dup)
				continue
			}
			r.profiles = append(r.profiles, d)
		case *ABI:
			if r.afterProfile(it, "abi") {
				r.abi(it)
			}
		case *Alias:
			if r.afterProfile(it, "an alias") {
				r.addAlias(it)
			}
		case *VarAssign:
			if r.afterProfile(it, "a variable") {
				r.assign(it)
			}
		case *BoolAssign:
			if r.afterProfile(it, "a variable") {
				r.assignBool(it)
			}
		default:
			r.errorf(it.Span(), "AA-OUTSIDE", "this rule stands outside of any profile")
		}
	}
}

func (r *resolver) afterProfile(n Node, what string) bool {
	if r.seenProfile {
		r.errorf(n.Span(), "AA-PREAMBLE", "%s belongs before the first profile", what)
	}
	return !r.seenProfile
}

func findDraft(list []*profileDraft, d *profileDraft) *profileDraft {
	for _, o := range list {
		if o.ns == d.ns && o.name == d.name {
			return o
		}
	}
	return nil
}

func (r *resolver) duplicate(what string, d, first *profileDraft) {
	r.errorf(d.decl.Name.Pos, "AA-DUPLICATE", "%s %s is defined more than once", what, d.name)
	r.diags[len(r.diags)-1].Related = append(r.diags[len(r.diags)-1].Related,
		diag.Related{Span: first.decl.Name.Pos, Message: "first defined here"})
}

func (r *resolver) addAlias(a *Alias) {
	n := aliasRule{a.From.Value, a.To.Value}
	if !slices.Contains(r.alias, n) {
		r.alias = append(r.alias, n)
	}
}

func (r *resolver) assign(v *VarAssign) {
	old := r.vars.m[v.Name]
	switch v.Op {
	case AssignAdd:
		switch {
		case old == nil:
			r.errorf(v.Span(), "AA-VAR-UNDECLARED", "variable @{%s} gets more values but was not declared before", v.Name)
		case old.boolean:
			r.errorf(v.Span(), "AA-VAR-KIND", "$%s is a boolean variable", v.Name)
		default:
			for _, w := range v.Values {
				old.values[w.Value] = true
			}
		}
		return
	case AssignSet:
		if old != nil {
			r.errorf(v.Span(), "AA-VAR-REDECLARED", "variable @{%s} is declared already; use += to add values", v.Name)
			return
		}
	case AssignDefault:
		if old != nil {
			return
		}
	}
	n := newSetVariable()
	for _, w := range v.Values {
		n.values[w.Value] = true
	}
	r.vars.m[v.Name] = n
}

func (r *resolver) assignBool(v *BoolAssign) {
	value := r.eval(v.Value)
	if v.Op == AssignAdd {
		r.errorf(v.Span(), "AA-VAR-KIND", "+= does not go with a boolean variable")
		return
	}
	if r.vars.m[v.Name] != nil {
		switch v.Op {
		case AssignSet:
			r.errorf(v.Span(), "AA-VAR-REDECLARED", "variable $%s is declared already", v.Name)
			return
		case AssignDefault:
			return
		}
	}
	r.vars.m[v.Name] = &variableValue{boolean: true, value: value}
}

func (r *resolver) eval(e Expr) bool {
	return r.vars.eval(e, func(n Node, err error) { r.errorf(n.Span(), "AA-CONDITION", "%s", err) })
}

// Includes.

// fsName turns a path into the name that fs.FS takes.
func fsName(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// under is where a path lies that may be relative to dir.
func under(dir, p string) string {
	if path.IsAbs(p) {
		return p
	}
	return dir + "/" + p
}

func (r *resolver) stat(p string) (fs.FileInfo, error) {
	if r.env.FS == nil {
		return nil, fs.ErrNotExist
	}
	return fs.Stat(r.env.FS, fsName(p))
}

// find looks a path up as includes do: the path in the cache of this scope, the
// file, and whether it was there before. A builtin has its text in data.
func (r *resolver) find(angle bool, p string) (full string, info fs.FileInfo, data []byte, again bool, err error) {
	if !angle {
		full = under(r.env.Dir, p)
		if r.once[p] {
			return full, nil, nil, true, nil
		}
		if info, err = r.stat(full); err == nil {
			r.once[p] = true
		}
		return full, info, nil, false, err
	}
	for _, dir := range r.env.Search {
		full = strings.TrimRight(dir, "/") + "/" + p
		if r.once[full] {
			return full, nil, nil, true, nil
		}
		if info, err = r.stat(full); err == nil {
			r.once[full] = true
			return full, info, nil, false, nil
		}
	}
	if !r.env.NoBuiltin {
		full = "builtin:" + p
		if r.once[full] {
			return full, nil, nil, true, nil
		}
		if data, ok := builtin(p); ok {
			r.once[full] = true
			return full, nil, data, false, nil
		}
	}
	return p, nil, nil, false, fs.ErrNotExist
}

// include reads what an include names, one file or a directory of them, and
// hands each on.
func (r *resolver) include(inc *Include, use func(*File)) {
	if inc.Hash {
		r.warnf(inc.Span(), "AA-HASH-INCLUDE", "'#include' is deprecated, write 'include'")
	}
	if len(r.via) >= maxInclude {
		r.errorf(inc.Span(), "AA-INCLUDE-DEPTH", "files include each other more than %d deep", maxInclude)
		return
	}
	full, info, data, again, err := r.find(inc.Angle, inc.Path.Value)
	switch {
	case again:
		return
	case err != nil:
		if !inc.IfExists || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			r.errorf(inc.Path.Pos, "AA-INCLUDE", "could not open %s: %s", inc.Path.Raw, reason(err))
		}
		return
	}
	outer := r.via
	r.via = append(slices.Clip(outer), inc.Span()) // rules keep it: never written to again
	defer func() { r.via = outer }()
	switch {
	case data != nil:
		use(r.file(full, data))
	case info.IsDir():
		r.includeDir(inc, full, use)
	case info.Mode().IsRegular():
		if f := r.read(inc, full); f != nil {
			use(f)
		}
	}
}

func reason(err error) string {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.As(err, &pe):
		return pe.Err.Error()
	}
	return err.Error()
}

// includeDir reads the files of a directory. The last in the alphabet is read
// first, because the reference scanner stacks them.
func (r *resolver) includeDir(inc *Include, dir string, use func(*File)) {
	entries, err := fs.ReadDir(r.env.FS, fsName(dir))
	if err != nil {
		r.errorf(inc.Path.Pos, "AA-INCLUDE", "could not read directory %s: %s", inc.Path.Raw, reason(err))
		return
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(b.Name(), a.Name()) })
	for _, e := range entries {
		full := dir + "/" + e.Name()
		if Ignored(e.Name()) || r.once[full] {
			continue
		}
		info, err := r.stat(full)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		r.once[full] = true
		if f := r.read(inc, full); f != nil {
			use(f)
		}
	}
}

func (r *resolver) read(inc *Include, full string) *File {
	if f := r.parsed[full]; f != nil {
		return f
	}
	data, err := fs.ReadFile(r.env.FS, fsName(full))
	if err != nil {
		r.errorf(inc.Path.Pos, "AA-INCLUDE", "could not read %s: %s", inc.Path.Raw, reason(err))
		return nil
	}
	return r.file(full, data)
}

// file parses what was read, once.
func (r *resolver) file(full string, data []byte) *File {
	if f := r.parsed[full]; f != nil {
		return f
	}
	f, diags := Parse(full, data)
	for _, d := range diags {
		if d.Severity == diag.Error {
			r.errorf(d.Span, d.Code, "%s", d.Message)
		}
	}
	r.parsed[full] = f
	r.policy.Files = append(r.policy.Files, f)
	return f
}

// ignoredSuffixes are the files that package managers and editors leave behind.
//
// Source: libraries/libapparmor/src/private.c, ignored_suffixes.
var ignoredSuffixes = []string{
	".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-remove",
	".pacsave", ".pacnew", ".rpmnew", ".rpmsave", ".orig", ".rej", "~",
}

// Ignored tells whether a file in a directory of profiles or includes does not
// count by its name: hidden files, README, and what package managers and
// editors leave behind.
func Ignored(name string) bool {
	if name == "" || name[0] == '.' || name == "README" {
		return true
	}
	return slices.ContainsFunc(ignoredSuffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// ABI.

func (r *resolver) abi(a *ABI) {
	f, again, err := r.features(a)
	switch {
	case err != nil:
		r.errorf(a.Path.Pos, "AA-ABI", "could not use abi %s: %s", a.Path.Raw, reason(err))
	case again && r.policy.ABI == nil:
		r.errorf(a.Path.Pos, "AA-ABI", "abi %s was read as an include before", a.Path.Raw)
	case again:
	case r.policy.ABI == nil:
		r.policy.ABI, r.policy.ABIDeclared = f, true
	case r.policy.ABI.String() != f.String():
		r.warnf(a.Span(), "AA-ABI-DIFFERS", "abi %s differs from the one declared before, which stays in force", a.Path.Raw)
	}
}

func (r *resolver) features(a *ABI) (f *Features, again bool, err error) {
	if a.Angle {
		switch a.Path.Value {
		case "kernel":
			if r.env.Kernel == nil {
				return DefaultFeatures(), false, nil
			}
			return r.env.Kernel, false, nil
		case "default":
			return DefaultFeatures(), false, nil
		}
	}
	full, info, data, again, err := r.find(a.Angle, a.Path.Value)
	if err != nil || again {
		return nil, again, err
	}
	if data == nil {
		if !info.Mode().IsRegular() {
			return nil, false, fmt.Errorf("not a file")
		}
		if data, err = fs.ReadFile(r.env.FS, fsName(full)); err != nil {
			return nil, false, err
		}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	f, err = ParseFeatures(string(data))
	return f, false, err
}
