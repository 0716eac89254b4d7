// SPDX-License-Identifier: Apache-2.0

package palisade

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Clocks that tests read or wait for all the same, by file and function, each with
// its reason. Everything else waits with internal/await for what is to happen.
// Benchmarks measure, and are free.
var clocks = map[string]string{
	"apparmor/compile/confirm_test.go":              "the reference hangs on some inputs, which are left out; enough have to be compared",
	"internal/await/await_test.go":                  "tests the end of waiting itself",
	"internal/container/kill_test.go":               "the moments of kills; nothing is judged by how far a start had come",
	"internal/engine/oci/cri_test.go":               "an engine's daemon is waited for",
	"internal/engine/oci/engine_test.go":            "an engine's daemon is waited for; names are made unique by the time",
	"internal/engine/oci/failopen_table_test.go":    "a runtime that hangs is ended, and its cell is open",
	"internal/engine/oci/kill_moments_test.go":      "the moments of kills are spread over what each step takes on this machine",
	"internal/engine/oci/kill_test.go":              "the moments of kills; a seed, which the log names",
	"internal/escapes/engines_test.go":              "a program that hangs is ended, and counts as one that did not escape",
	"internal/escapes/rows_test.go":                 "a runtime or a compiler that hangs is ended",
	"internal/escapes/scratch_test.go":              "a runtime that hangs is ended, and counts as one that did not escape",
	"internal/hold/hold_test.go":                    "a helper process polls for a file; the test has no deadline but its own",
	"internal/launch/profile/kernel_test.go":        "the moments of kills are spread over what one start takes on this machine",
	"internal/probe/probe_test.go":                  "a run is ended by its context, whenever that is",
	"internal/registry/authority/authority_test.go": "the clock of a synctest bubble, which moves only while everything sleeps",
	"internal/registry/authority/edges_test.go":     "the clock of a synctest bubble, which moves only while everything sleeps",
	"internal/registry/bolt/own_test.go":            "a seed, which the log names",
	"internal/registry/socket/socket_test.go":       "the benchmark's allocations are timed, and none is judged by it",
	"internal/state/state_test.go":                  "that something does not happen is watched for a moment: too short a one passes",
	"internal/suites/suites_test.go":                "a suite that hangs is ended, and its tests have failed",
	"landlock/install/relation_test.go":             "the end of the test run as a deadline",
	"seccomp/bench_test.go":                         "measures",
	"selinux/container/drivers_test.go":             "a command of a guest that hangs is ended after minutes; names are made unique by the time",
	"selinux/container/engines_test.go":             "the log says when in a run something was found",
	"selinux/container/escape_test.go":              "a name is made unique by the time",
	"selinux/ss/kernel_test.go":                     "the log says how long the questions took",
	"shield/session/session_test.go":                "evidence has the time at which it was made",
}

// fixedPaths are fixed names outside of a test's own folder, by file, each with its
// reason. Two runs on one machine would meet there.
var fixedPaths = map[string]string{
	"apparmor/securityfs/stack_test.go":    "in a virtual machine",
	"internal/cli/apparmor_kernel_test.go": "in a virtual machine",
	"internal/state/record_test.go":        "a name in a record",
	"internal/state/state_test.go":         "a name in a record",
	"shield/sealfs/sealfs_test.go":         "a path inside a volume",
}

const (
	needsRoot  = "root, for containers, mounts or labels"
	needsAMD64 = "the system calls of amd64"
	takesLong  = "more time than -short or an everyday run has; make has a target for it"
	needsTree  = "a source tree that the caller names"
)

// skips are the tests that some machines leave out, by file, each with what they
// need. Missing programs and inputs go by way of internal/oracle, which fails where
// all have to be there.
var skips = map[string]string{
	"apparmor/compile/suites_test.go":            takesLong,
	"apparmor/generated_test.go":                 needsTree,
	"audit/kernel_test.go":                       "the kernel's log, and its messages about filters",
	"caps/caps_test.go":                          "the headers of the kernel",
	"internal/cli/apparmor_suite_test.go":        needsTree,
	"internal/effective/effective_test.go":       "a program that ends at once",
	"internal/enable/enable_test.go":             "a file system that takes labels",
	"internal/engine/lxc/libvirt_test.go":        "user namespaces",
	"internal/engine/lxc/mounts_test.go":         needsRoot,
	"internal/engine/oci/failopen_table_test.go": takesLong,
	"internal/engine/oci/failopen_test.go":       "a kernel without SELinux or AppArmor",
	"internal/escapes/escapes_test.go":           takesLong,
	"internal/suites/flows_test.go":              takesLong,
	"internal/suites/limits_test.go":             takesLong,
	"internal/suites/suites_test.go":             takesLong,
	"internal/escapes/rows_test.go":              "root and a table of system calls for this processor",
	"internal/escapes/scratch_test.go":           needsRoot,
	"internal/gc/collect_test.go":                "a program that ends at once",
	"internal/handover/handover_test.go":         "root, or Linux 6.3",
	"internal/hostfacts/mounts_test.go":          "a mount namespace of its own",
	"internal/hostfacts/status_test.go":          "a mount namespace of its own, securityfs and Linux 6.8",
	"internal/image/image_test.go":               takesLong,
	"internal/laststep/kernel_linux_test.go":     takesLong,
	"internal/laststep/step_linux_test.go":       "Landlock in the kernel",
	"internal/launch/profile/kernel_test.go":     takesLong,
	"internal/mutate/mutate_test.go":             takesLong,
	"internal/observe/observe_test.go":           "a file system that takes labels",
	"internal/state/kill_test.go":                "time, and the right to trace",
	"landlock/install/install_test.go":           "Landlock in the kernel",
	"landlock/install/kernel_test.go":            "root and the newest ABI of Landlock",
	"landlock/install/relation_test.go":          "scopes in the kernel's Landlock",
	"seccomp/install/install_test.go":            "amd64, and notifications in the kernel",
	"seccomp/record/record_test.go":              needsAMD64,
	"selinux/analysis/flow_test.go":              takesLong,
	"selinux/container/engines_test.go":          takesLong,
	"selinux/relabel/relabel_test.go":            "root and a file system that takes labels",
	"shield/shim/evil_fuzz_test.go":              "inputs of the fuzzer beyond what a script can say",
	"shield/shim/volume_test.go":                 needsRoot,
	"shield/volfile/archive_test.go":             "a file system with sparse files",
	"svirt/control_test.go":                      "a library that reserves labels on this system",
}

// clockNames are what a test must not use, by package.
var clockNames = map[string][]string{
	"time":    {"Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Now", "Since", "Until"},
	"context": {"WithTimeout", "WithDeadline", "WithTimeoutCause", "WithDeadlineCause"},
}

var deadlines = []string{"SetDeadline", "SetReadDeadline", "SetWriteDeadline"}

var (
	shared    = regexp.MustCompile(`^/(tmp|var/tmp|run|dev/shm)/[^.*]`)
	fixedPort = regexp.MustCompile(`^(127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\])?:[1-9][0-9]*$`)
	// outside writes: a fixed path in other calls is a value that is compared or given out.
	writers = []string{"WriteFile", "Create", "Mkdir", "MkdirAll", "OpenFile", "Remove", "RemoveAll", "Symlink", "Rename", "Listen", "ListenUnix", "Dial", "Mount"}
)

// TestTestsDependOnNothing: no test depends on how fast a machine is, on what other
// tests do on it at the same time, or on what is installed, but for what the tables
// above name.
func TestTestsDependOnNothing(t *testing.T) {
	used := map[string]bool{}
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		path = filepath.ToSlash(path)
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		complain := func(n ast.Node, table map[string]string, name, format string, args ...any) {
			if table[path] != "" {
				used[name+" "+path] = true
				return
			}
			t.Errorf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...))
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Benchmark") {
				continue
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if ok && slices.Contains(clockNames[x.Name], n.Sel.Name) {
						complain(n, clocks, "clocks", "%s.%s: wait with internal/await for what is to happen, or give the reason in the table of clocks", x.Name, n.Sel.Name)
					}
					if slices.Contains(deadlines, n.Sel.Name) {
						complain(n, clocks, "clocks", "%s: a busy machine passes any deadline", n.Sel.Name)
					}
					if isTest(n.X) && (n.Sel.Name == "Skip" || n.Sel.Name == "Skipf" || n.Sel.Name == "SkipNow") {
						complain(n, skips, "skips", "%s: say in the table of skips what the test needs, or use internal/oracle", n.Sel.Name)
					}
				case *ast.CallExpr:
					name := ""
					switch fun := n.Fun.(type) {
					case *ast.SelectorExpr:
						name = fun.Sel.Name
						if name == "Go" && len(n.Args) == 1 { // of a sync.WaitGroup or an errgroup
							fatalIn(t, fset, n.Args[0])
						}
					case *ast.Ident:
						name = fun.Name
					}
					if !slices.Contains(writers, name) {
						return true
					}
					for _, a := range n.Args {
						ast.Inspect(a, func(n ast.Node) bool {
							lit, ok := n.(*ast.BasicLit)
							if !ok || lit.Kind != token.STRING {
								return true
							}
							s, err := strconv.Unquote(lit.Value)
							if err == nil && (shared.MatchString(s) || fixedPort.MatchString(s)) {
								complain(lit, fixedPaths, "fixedPaths", "%q: take a folder of t.TempDir or a port that is free, or give the reason in the table of fixed paths", s)
							}
							return true
						})
					}
				case *ast.GoStmt:
					fatalIn(t, fset, n.Call.Fun)
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Fatalf("only %d files of tests", files)
	}
	for name, table := range map[string]map[string]string{"clocks": clocks, "fixedPaths": fixedPaths, "skips": skips} {
		for _, path := range slices.Sorted(maps.Keys(table)) {
			if !used[name+" "+path] {
				t.Errorf("%s does no such thing: take it out of the table of %s", path, name)
			}
		}
	}
}

// isTest tells whether an expression is called as tests are: t, tb, b, or a field of that name.
func isTest(e ast.Expr) bool {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	return name == "t" || name == "tb" || name == "b"
}

// fatalIn refuses what ends only the goroutine that it is called in, so that the test
// goes on as if nothing were wrong.
func fatalIn(t *testing.T, fset *token.FileSet, fn ast.Node) {
	ast.Inspect(fn, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if ok && isTest(s.X) && slices.Contains([]string{"Fatal", "Fatalf", "FailNow", "Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
			t.Errorf("%s: %s in a goroutine ends that alone: use Error and return", fset.Position(s.Pos()), s.Sel.Name)
		}
		return true
	})
}
