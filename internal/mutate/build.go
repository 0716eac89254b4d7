// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed switch.txt
var switchText string

const (
	activeEnv = "PALISADE_MUTANT"
	seenEnv   = "PALISADE_MUTANT_SEEN"
)

// listed is what go list tells of a package.
type listed struct {
	ImportPath, Dir, Name, Export string
	GoFiles                       []string
	TestGoFiles, XTestGoFiles     []string
}

func list(args ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// mutated is a package with the mutants that can be built into it.
type mutated struct {
	listed
	sources []*source
	mutants []*mutant
	dropped map[int]bool // do not compile
	imports types.Importer
}

// load finds the mutants of a package, or of some files of it.
func load(path string, only []string) (*mutated, error) {
	all, err := list("-json=ImportPath,Dir,Name,Export,GoFiles,TestGoFiles,XTestGoFiles", "-export", "-deps", path)
	if err != nil {
		return nil, err
	}
	// And what the switch imports.
	more, err := list("-json=ImportPath,Export", "-export", "-deps", "os", "strconv", "syscall")
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, p := range slices.Concat(more, all) {
		exports[p.ImportPath] = p.Export
	}
	fset := token.NewFileSet()
	m := &mutated{listed: all[len(all)-1], dropped: map[int]bool{}}
	m.imports = importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	for _, name := range only {
		if !slices.Contains(m.GoFiles, name) {
			return nil, fmt.Errorf("%s has no file %s", path, name)
		}
	}
	var files []*ast.File
	var texts [][]byte
	for _, name := range m.GoFiles {
		text, err := os.ReadFile(filepath.Join(m.Dir, name))
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files, texts = append(files, f), append(texts, text)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	pkg, err := (&types.Config{Importer: m.imports}).Check(m.ImportPath, fset, files, info)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if ast.IsGenerated(f) || len(only) > 0 && !slices.Contains(only, m.GoFiles[i]) {
			continue
		}
		s := &source{name: m.GoFiles[i], text: texts[i], base: fset.File(f.Pos()).Pos(0), ast: f, pkg: pkg, info: info, fset: fset, named: map[string]bool{}}
		for _, spec := range f.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			for _, imp := range pkg.Imports() {
				if imp.Path() == path && spec.Name == nil {
					s.named[imp.Name()] = true
				}
			}
		}
		s.next = func(x *mutant) int { m.mutants = append(m.mutants, x); return len(m.mutants) }
		s.find()
		m.sources = append(m.sources, s)
	}
	seen := map[string]int{}
	for _, x := range m.mutants {
		k := x.file + "\x00" + x.fn + "\x00" + x.change
		x.nth = seen[k]
		seen[k]++
	}
	return m, m.settle()
}

// texts are the files as they are built.
func (m *mutated) texts() map[string]string {
	out := map[string]string{}
	for _, s := range m.sources {
		end := s.base + token.Pos(len(s.text))
		out[s.name] = s.render(s.base, end, nil, m.dropped)
	}
	return out
}

func (m *mutated) switchFile() string {
	return fmt.Sprintf(switchText, m.Name, activeEnv, seenEnv, len(m.mutants)+1)
}

// check type-checks the package as it is built, and returns the functions and
// variables (by file and start) that have errors.
func (m *mutated) check(texts map[string]string) (bad map[string][]int, err error) {
	fset := token.NewFileSet()
	var files []*ast.File
	byName := map[string]*ast.File{}
	parse := func(name, text string) error {
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
		byName[name] = f
		return nil
	}
	for _, name := range m.GoFiles {
		text, ok := texts[name]
		if !ok {
			b, err := os.ReadFile(filepath.Join(m.Dir, name))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if err := parse(name, text); err != nil {
			return nil, err
		}
	}
	if err := parse("zz_mutate.go", m.switchFile()); err != nil {
		return nil, err
	}
	bad = map[string][]int{}
	var other error
	conf := types.Config{Importer: m.imports, Error: func(err error) {
		var te types.Error
		if !errors.As(err, &te) || te.Soft && strings.Contains(te.Msg, "imported and not used") {
			return
		}
		at := fset.Position(te.Pos)
		f := byName[at.Filename]
		for i, d := range f.Decls {
			if d.Pos() <= te.Pos && te.Pos < d.End() {
				if !slices.Contains(bad[at.Filename], i) {
					bad[at.Filename] = append(bad[at.Filename], i)
				}
				return
			}
		}
		other = err
	}}
	_, _ = conf.Check(m.ImportPath, fset, files, nil)
	return bad, other
}

// settle drops what does not compile: each mutant of a declaration with errors is
// tried by itself.
func (m *mutated) settle() error {
	bad, err := m.check(m.texts())
	if err != nil || len(bad) == 0 {
		return err
	}
	for _, s := range m.sources {
		for _, i := range bad[s.name] {
			d := s.ast.Decls[i]
			var here []*site
			for _, st := range s.sites {
				if d.Pos() <= st.pos && st.end <= d.End() {
					here = append(here, st)
				}
			}
			// With all of them out the declaration is as it was; they come back in one by one.
			for _, st := range here {
				for _, x := range st.mutants {
					m.dropped[x.id] = true
				}
			}
			for _, st := range here {
				for _, x := range st.mutants {
					delete(m.dropped, x.id)
				}
				now, err := m.check(map[string]string{s.name: m.texts()[s.name]})
				if err != nil {
					return err
				}
				if slices.Contains(now[s.name], i) {
					for _, x := range st.mutants {
						m.dropped[x.id] = true
					}
				}
			}
		}
	}
	bad, err = m.check(m.texts())
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("%s does not compile with mutants in %v", m.ImportPath, bad)
	}
	return err
}

// build compiles the tests of packages against the mutated one, and returns the
// programs by package.
func (m *mutated) build(dir string, tests []string) (map[string]string, error) {
	overlay := map[string]string{}
	write := func(name, text string) error {
		path := filepath.Join(dir, name)
		overlay[filepath.Join(m.Dir, name)] = path
		return os.WriteFile(path, []byte(text), 0o600)
	}
	for name, text := range m.texts() {
		if err := write(name, text); err != nil {
			return nil, err
		}
	}
	if err := write("zz_mutate.go", m.switchFile()); err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, t := range tests {
		bin := filepath.Join(dir, fmt.Sprintf("tests%d", i))
		cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", file, "-o", bin, t)
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s with mutants: %w\n%s", t, err, msg)
		}
		if _, err := os.Stat(bin); err == nil { // there is none without test files
			out[t] = bin
		}
	}
	return out, nil
}
