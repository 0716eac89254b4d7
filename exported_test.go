// SPDX-License-Identifier: Apache-2.0

package palisade

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readPromised reads the rooms whose exported names README promises to others: whoever
// imports them may use a name that no code here uses.
func readPromised(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("make/promised")
	if err != nil {
		t.Fatal(err)
	}
	rooms := strings.Fields(string(b))
	for _, r := range rooms {
		if fi, err := os.Stat(r); err != nil || !fi.IsDir() {
			t.Errorf("make/promised: %s is no folder", r)
		}
	}
	return rooms
}

// exportedAllTheSame are names that no other package uses, each with its reason.
var exportedAllTheSame = map[string]string{
	"internal/cli.Version":                 "the linker sets it",
	"internal/container.Static":            "scripts of internal/cli ask by it whether a container can run here",
	"internal/engine/oci.Edit":             "tests of bundle edit configurations by it",
	"internal/engine/oci.ErrBelowProc":     "tests of internal/engine/lxc tell refusals by it",
	"internal/engine/oci.ErrNoProcfs":      "tests of internal/engine/lxc tell refusals by it",
	"internal/engine/oci.ErrOverRoot":      "tests of internal/engine/lxc tell refusals by it",
	"internal/engine/oci.ErrRootFolder":    "tests of internal/engine/lxc tell refusals by it",
	"internal/hold.ErrForeign":             "tests of internal/launch tell why a process was killed by it",
	"internal/hold.ErrTimeout":             "tests of internal/launch tell why a process was killed by it",
	"internal/laststep.ErrConfig":          "tests of internal/handover tell refusals by it",
	"internal/registry/socket.ErrDenied":   "tests of internal/registry/authority tell answers of the daemon by it",
	"internal/registry/socket.ErrProtocol": "tests of internal/registry/authority tell answers of the daemon by it",
	"internal/state.ErrName":               "tests of internal/launch tell refusals by it",
	"internal/state.ErrUnfinished":         "tests of internal/launch tell records by it",
	"internal/state.StepFile":              "tests of internal/launch look for the file by it",
	"internal/witness.ErrNoRecord":         "tests of internal/gc tell why a container is kept by it",
}

// methodsOfOthers are methods that the standard library, or a library, calls by an
// interface of its own.
var methodsOfOthers = []string{
	"Error", "Unwrap", "Is", "As", "String", "GoString", "Format", "Read", "Write", "Close", "Len", "Less", "Swap", "Push", "Pop",
	"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "MarshalBinary", "UnmarshalBinary", "ServeHTTP", "Set", "Type",
	"ReadAt", "WriteAt", "Seek", "Stat", "Open", "ReadDir", "Name", "Size", "Mode", "ModTime", "IsDir", "Sys", "Info", "Timeout", "Temporary",
}

// source is a package as its files say, for every system.
type source struct {
	path  string // below the module
	name  string
	files []*ast.File
	tests []*ast.File
}

func readSources(t *testing.T) map[string]*source {
	t.Helper()
	sources := map[string]*source{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		s := sources[dir]
		if s == nil {
			s = &source{path: dir}
			sources[dir] = s
		}
		switch {
		case strings.HasSuffix(path, "_test.go"):
			s.tests = append(s.tests, f)
		case ignored(f):
			// a generator beside the package
		default:
			s.name = f.Name.Name
			s.files = append(s.files, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if c.Pos() < f.Package && strings.HasPrefix(c.Text, "//go:build ignore") {
				return true
			}
		}
	}
	return false
}

// uses collects what a file takes of other packages: "path.Name" for what it names
// of a package, ".Name" for every field and method.
func uses(sources map[string]*source, f *ast.File, into map[string]bool) {
	imported := map[string]string{}
	for _, imp := range f.Imports {
		rel, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module+"/")
		s := sources[rel]
		if !ours || s == nil {
			continue
		}
		name := s.name
		if imp.Name != nil {
			name = imp.Name.Name
		}
		imported[name] = rel
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil && imported[x.Name] != "" {
			into[imported[x.Name]+"."+s.Sel.Name] = true
			return false
		}
		into["."+s.Sel.Name] = true
		return true
	})
}

// exported lists the exported names of a package: functions, types, variables and
// constants as "Name", methods of exported types as "Type.Name". named are the types
// that its other exported names speak of, which go with those.
func (s *source) exported() (names []string, named map[string]bool) {
	named = map[string]bool{}
	speaks := func(n ast.Node) {
		if n == nil {
			return
		}
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if len(n.Names) > 0 && !slices.ContainsFunc(n.Names, func(i *ast.Ident) bool { return i.IsExported() || n.Tag == nil }) {
					return false
				}
			case *ast.SelectorExpr:
				return false
			case *ast.Ident:
				named[n.Name] = true
			}
			return true
		})
	}
	for _, f := range s.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if !d.Name.IsExported() {
					continue
				}
				if d.Recv == nil {
					names = append(names, d.Name.Name)
				} else if r := receiver(d.Recv.List[0].Type); ast.IsExported(r) {
					names = append(names, r+"."+d.Name.Name)
				} else {
					continue
				}
				speaks(d.Type)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() {
							names = append(names, spec.Name.Name)
							speaks(spec.Type)
						}
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							if n.IsExported() {
								names = append(names, n.Name)
								speaks(spec.Type)
							}
						}
					}
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), named
}

func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// TestExportedNames wants what is exported and not promised to have a user
// it: in another package, tests aside. A type that a used name speaks of is used.
func TestExportedNames(t *testing.T) {
	sources, promised := readSources(t), readPromised(t)
	byOthers := map[string]map[string]bool{} // what each package uses of others
	interfaces := map[string]bool{}          // methods of interfaces that are declared here
	for dir, s := range sources {
		byOthers[dir] = map[string]bool{}
		for _, f := range s.files {
			uses(sources, f, byOthers[dir])
			ast.Inspect(f, func(n ast.Node) bool {
				if i, ok := n.(*ast.InterfaceType); ok {
					for _, m := range i.Methods.List {
						for _, n := range m.Names {
							interfaces[n.Name] = true
						}
					}
				}
				return true
			})
		}
	}
	usedOutside := func(dir, key string) bool {
		for other, u := range byOthers {
			if other != dir && u[key] {
				return true
			}
		}
		return false
	}
	total, idle := 0, 0
	excused := map[string]bool{}
	for _, dir := range slices.Sorted(maps.Keys(sources)) {
		s := sources[dir]
		isPromised := slices.ContainsFunc(promised, func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
		if isPromised || s.name == "main" || dir == "." || slices.Contains(testOnly, dir) {
			continue
		}
		names, named := s.exported()
		total += len(names)
		for _, n := range names {
			_, method, isMethod := strings.Cut(n, ".")
			switch {
			case !isMethod && (usedOutside(dir, dir+"."+n) || named[n]):
				continue
			case isMethod && (usedOutside(dir, "."+method) || interfaces[method] || slices.Contains(methodsOfOthers, method)):
				continue
			}
			idle++
			if exportedAllTheSame[dir+"."+n] != "" {
				excused[dir+"."+n] = true
				continue
			}
			t.Errorf("%s.%s: no other package uses it: make it the package's own", dir, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(exportedAllTheSame)) {
		if !excused[n] {
			t.Errorf("%s is used, or is not there: take it out of the exceptions", n)
		}
	}
	t.Logf("%d exported names outside of the promised packages, %d of them used by no other package", total, idle)
}
